/* SPDX-License-Identifier: Apache-2.0 */
/* Talking to a service manager. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "fuse/service.h"

#define FIRST_FD 3      /* SD_LISTEN_FDS_START */
#define ANSWER_MS 10000 /* how long it may take to understand */

/* '@' is the abstract namespace.  False: there is none, or none that we know how to reach. */
static bool find_socket(struct sockaddr_un *to, socklen_t *len)
{
	const char *path = getenv("NOTIFY_SOCKET");

	if (path == NULL || (*path != '/' && *path != '@') ||
	    strlen(path) >= sizeof(to->sun_path))
		return false;
	*to = (struct sockaddr_un){ .sun_family = AF_UNIX };
	strcpy(to->sun_path, path);
	*len = offsetof(struct sockaddr_un, sun_path) + strlen(path);
	if (*path == '@')
		to->sun_path[0] = '\0';
	return true;
}

static void attach(struct msghdr *msg, void *control, size_t len, int fd)
{
	struct cmsghdr *c;

	msg->msg_control = control;
	msg->msg_controllen = len;
	c = CMSG_FIRSTHDR(msg);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
}

/* With a descriptor, or -1. */
static int say(const char *text, int fd)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { (void *)text, strlen(text) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct sockaddr_un to;
	int sock, rc = 0;

	if (!find_socket(&to, &msg.msg_namelen))
		return -ENOTCONN;
	msg.msg_name = &to;
	if (fd >= 0)
		attach(&msg, control, sizeof(control), fd);
	sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -errno;
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) < 0)
		rc = -errno;
	close(sock);
	return rc;
}

void service_ready(void)
{
	say("READY=1", -1);
}

void service_reloading(void)
{
	char text[80];

	snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%" PRIu64,
		 clock_ns() / 1000);
	say(text, -1);
}

bool service_keeps(size_t nfds)
{
	const char *max = getenv("FDSTORE");
	struct sockaddr_un to;
	socklen_t len;

	return max != NULL && find_socket(&to, &len) && nfds <= strtoul(max, NULL, 10);
}

int service_keep(const char *name, int fd)
{
	char text[64];

	snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s", name);
	return say(text, fd);
}

int service_drop(const char *name)
{
	char text[64];

	snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", name);
	return say(text, -1);
}

/* It closes the descriptor when it has understood all before. */
int service_wait(void)
{
	struct pollfd p = { .events = 0 };
	int fds[2], rc;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	rc = say("BARRIER=1", fds[1]);
	close(fds[1]);
	p.fd = fds[0];
	if (rc == 0 && poll(&p, 1, ANSWER_MS) != 1)
		rc = -ETIMEDOUT;
	close(fds[0]);
	return rc;
}

void service_each_kept(void (*fn)(const char *name, int fd, void *arg), void *arg)
{
	const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");
	const char *listed = getenv("LISTEN_FDNAMES");
	char *names = strdup(listed == NULL ? "" : listed), *rest = names;
	const char *name;

	if (names != NULL && pid != NULL && n != NULL && atoi(pid) == getpid())
		for (int i = 0; i < atoi(n); i++) {
			name = rest == NULL ? NULL : strsep(&rest, ":");
			fn(name == NULL ? "" : name, FIRST_FD + i, arg);
		}
	free(names);
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
}
