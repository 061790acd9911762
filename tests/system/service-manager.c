/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As much of a service manager as keeps descriptors: sd_notify(3), sd_listen_fds(3).
 *
 *   service-manager MAX COMMAND...   run the command, again whenever it does not end with
 *                                    status 0; say on standard output what happens:
 *                                    "start N", N being the number of descriptors that it
 *                                    gets; "ready"; "exit STATUS", "signal NUMBER"
 *
 * It keeps MAX descriptors at most.  On SIGUSR1 it damages a byte of the state that it has
 * when it starts the command next, on SIGUSR2 its version.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 4096, FIRST_FD = 3, VERSION_OFF = 8, LATE_OFF = 100 };

static struct kept {
	char name[32];
	int fd;
} kept[MOST];
static int nkept, max_kept, sock;
static volatile sig_atomic_t damage_off;

static void on_signal(int sig)
{
	damage_off = sig == SIGUSR1   ? LATE_OFF
		     : sig == SIGUSR2 ? VERSION_OFF
				      : damage_off;
}

/* --- what it keeps ------------------------------------------------------------------- */

static void drop(const char *name)
{
	int to = 0;

	for (int i = 0; i < nkept; i++)
		if (strcmp(kept[i].name, name) == 0)
			close(kept[i].fd);
		else
			kept[to++] = kept[i];
	nkept = to;
}

static void keep(const char *name, int fd)
{
	if (nkept == max_kept || fd < 0) {
		close(fd);
		return;
	}
	snprintf(kept[nkept].name, sizeof(kept[0].name), "%s", name);
	kept[nkept++].fd = fd;
}

static void damage(void)
{
	unsigned char c;

	for (int i = 0; i < nkept && damage_off != 0; i++)
		if (strcmp(kept[i].name, "state") == 0 &&
		    pread(kept[i].fd, &c, 1, damage_off) == 1) {
			c ^= 0xff;
			if (pwrite(kept[i].fd, &c, 1, damage_off) == 1)
				damage_off = 0;
		}
}

/* --- what it is told ------------------------------------------------------------------ */

static int descriptor_of(struct msghdr *msg)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(msg);
	int fd = -1;

	if (c != NULL && c->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

static void understand(char *text, int fd)
{
	const char *name = strstr(text, "FDNAME=");

	name = name == NULL ? "" : name + strlen("FDNAME=");
	if (strncmp(text, "FDSTORE=1", 9) == 0)
		keep(name, fd);
	else if (strncmp(text, "FDSTOREREMOVE=1", 15) == 0)
		drop(name);
	else if (strncmp(text, "READY=1", 7) == 0)
		puts("ready");
	else if (fd >= 0)
		close(fd); /* BARRIER=1 */
}

static bool hear(int wait_ms)
{
	char text[256], control[64];
	struct iovec iov = { text, sizeof(text) - 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	struct pollfd p = { .fd = sock, .events = POLLIN };
	ssize_t n;

	if (poll(&p, 1, wait_ms) <= 0)
		return false;
	n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (n < 0)
		return false;
	text[n] = '\0';
	understand(text, descriptor_of(&msg));
	return true;
}

/* --- the service ---------------------------------------------------------------------- */

static void set_number(const char *name, int value)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", value);
	setenv(name, text, 1);
}

/* From 3 on, which may be where others of them are. */
static void place_descriptors(void)
{
	char *names = calloc(nkept + 1, sizeof(kept[0].name));
	int high[MOST];

	for (int i = 0; i < nkept; i++) {
		high[i] = fcntl(kept[i].fd, F_DUPFD_CLOEXEC, FIRST_FD + nkept);
		strcat(strcat(names, i == 0 ? "" : ":"), kept[i].name);
	}
	for (int i = 0; i < nkept; i++)
		dup2(high[i], FIRST_FD + i);
	if (nkept == 0)
		return;
	setenv("LISTEN_FDNAMES", names, 1);
	set_number("LISTEN_FDS", nkept);
	set_number("LISTEN_PID", getpid());
}

static pid_t start(char **argv)
{
	pid_t pid;

	damage();
	printf("start %d\n", nkept);
	pid = fork();
	if (pid != 0)
		return pid;
	place_descriptors();
	execvp(argv[0], argv);
	_exit(127);
}

/* In the current folder, which those who speak to it may have left. */
static void listen_here(void)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };

	if (getcwd(at.sun_path, sizeof(at.sun_path) - strlen("/notify")) == NULL)
		exit(2);
	strcat(at.sun_path, "/notify");
	unlink(at.sun_path);
	sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (bind(sock, (struct sockaddr *)&at, sizeof(at)) < 0)
		exit(2);
	setenv("NOTIFY_SOCKET", at.sun_path, 1);
}

int main(int argc, char **argv)
{
	struct sigaction act = { .sa_handler = on_signal };
	pid_t pid;
	int status;

	if (argc < 3)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	sigaction(SIGUSR1, &act, NULL);
	sigaction(SIGUSR2, &act, NULL);
	listen_here();
	max_kept = atoi(argv[1]);
	setenv("FDSTORE", argv[1], 1);
	do {
		pid = start(argv + 2);
		while (waitpid(pid, &status, WNOHANG) == 0)
			hear(10);
		while (hear(0))
			;
		if (WIFSIGNALED(status))
			printf("signal %d\n", WTERMSIG(status));
		else
			printf("exit %d\n", WEXITSTATUS(status));
	} while (status != 0);
	return 0;
}
