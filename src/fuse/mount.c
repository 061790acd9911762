/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounting: from the command line to a daemon that serves.
 *
 * The program forks first, and everything is done in the child (daemon.c), so that no
 * lock and no thread has to survive a fork.  The child says "ready" through a pipe
 * when the kernel has answered; then the parent asks the mount a question
 * itself, and leaves.  Until then the child's messages go to standard error.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fmfs_ioctl.h"
#include "common/log.h"
#include "fuse/daemon.h"
#include "fuse/mount.h"
#include "fuse/mountinfo.h"

#define EXIT_USAGE 2
#define ANSWER_S 30 /* how long the first answer may take */

/* --- the child -------------------------------------------------------------- */

static void too_late(int sig)
{
	static const char text[] = "fmfs mount: the mount does not answer\n";

	(void)sig;
	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(EXIT_FAILURE);
	_exit(EXIT_FAILURE);
}

static int ask_mount(const char *mountpoint, bool want_passthrough)
{
	struct fmfs_info info;
	int fd, rc;

	signal(SIGALRM, too_late);
	alarm(ANSWER_S);
	fd = open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	rc = fd < 0 ? -1 : ioctl(fd, FMFS_IOC_INFO, &info);
	if (rc < 0)
		log_error("%s: mounted, but does not answer: %s", mountpoint,
			  strerror(errno));
	if (fd >= 0)
		close(fd);
	alarm(0);
	if (rc == 0 && want_passthrough && !(info.flags & FMFS_F_PASSTHROUGH))
		log_warn("no passthrough: %.*s%s", (int)sizeof(info.why_not),
			 info.why_not,
			 info.flags & FMFS_F_SLOW
				 ? "; large shared mappings will be slow"
				 : "");
	return rc < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* Wait for "ready", or for the end of the child: its exit status. */
static int wait_until_ready(const struct mounting *m, pid_t child, int fd)
{
	ssize_t n;
	int status;
	char c;

	do {
		n = read(fd, &c, 1);
	} while (n < 0 && errno == EINTR);
	if (n == 1)
		return ask_mount(m->f.mountpoint, c == *DAEMON_READY);
	if (waitpid(child, &status, 0) < 0)
		return EXIT_FAILURE;
	if (WIFSIGNALED(status))
		log_error("the daemon died: %s", strsignal(WTERMSIG(status)));
	return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE;
}

/* A daemon must not hold what its caller has open: close all but standard input,
 * output, error and `fd`, whose new number is returned. */
static int keep_only(int fd)
{
	const int to = STDERR_FILENO + 1;

	if (fd != to) {
		dup3(fd, to, O_CLOEXEC);
		fd = to;
	}
	close_range(to + 1, ~0u, 0);
	return fd;
}

static int start_daemon(struct mounting *m)
{
	pid_t child;
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0) {
		log_error("cannot make a pipe: %s", strerror(errno));
		return EXIT_FAILURE;
	}
	child = fork();
	if (child < 0) {
		log_error("cannot fork: %s", strerror(errno));
		return EXIT_FAILURE;
	}
	if (child == 0) {
		m->ready_fd = keep_only(fds[1]);
		setsid();
		_exit(daemon_run(m));
	}
	close(fds[1]);
	return wait_until_ready(m, child, fds[0]);
}

/* --- the program --------------------------------------------------------------- */

/* The daemon of the mount at the mount point has died.  If it served the same store this
 * one takes its place. */
static int take_place(struct mounting *m)
{
	char *point = mount_resolve(m->opt.mountpoint);
	struct mount_entry e = { .dev = 0 };
	char store[PATH_MAX];
	int rc = -ENOTCONN;

	if (point != NULL && strlen(point) < sizeof(m->f.mountpoint) &&
	    realpath(m->opt.store, store) != NULL && mount_find_point(point, &e) == 1 &&
	    e.is_fmfs && strcmp(e.source, store) == 0)
		rc = mount_detach(point, true);
	if (rc == 0) {
		strcpy(m->f.mountpoint, point);
		m->takes_place = true;
	} else {
		log_error("%s: a mount is there whose daemon has died: "
			  "'fmfs umount %s' first",
			  m->opt.mountpoint, m->opt.mountpoint);
	}
	mount_entry_free(&e);
	free(point);
	return rc;
}

static int find_mountpoint(struct mounting *m)
{
	int err = 0;
	int fd;

	if (realpath(m->opt.mountpoint, m->f.mountpoint) == NULL)
		err = errno;
	/* The attributes of a dead mount may still be in the kernel's cache. */
	fd = err != 0 ? -1 : open(m->f.mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		close(fd);
	else if (err == 0 && errno != EACCES)
		err = errno;
	/* ECONNABORTED: it is just dying. */
	if (err == ENOTCONN || err == ECONNABORTED)
		return take_place(m);
	if (err != 0)
		log_error("%s: %s", m->opt.mountpoint, strerror(err));
	return -err;
}

static int run(struct mounting *m)
{
	if (find_mountpoint(m) != 0)
		return EXIT_FAILURE;
	if (m->opt.foreground || m->opt.fake)
		return daemon_run(m);
	return start_daemon(m);
}

/* What we were called with, for the program that is at our path by then. */
static int remember_call(struct mounting *m, int argc, char **argv)
{
	ssize_t n = readlink("/proc/self/exe", m->program, sizeof(m->program) - 1);
	bool helper = options_is_helper(argv[0]);
	char **to = calloc(argc + 2, sizeof(*to));

	if (to == NULL)
		return -ENOMEM;
	m->argv = to;
	m->program[n < 0 ? 0 : n] = '\0';
	*to++ = (char *)(helper ? "mount.fmfs" : "fmfs");
	if (!helper)
		*to++ = (char *)"mount";
	memcpy(to, argv + 1, (argc - 1) * sizeof(*to));
	return 0;
}

/* The mount that another daemon has left to us, if one has: true, and *status is what we
 * end with. */
static bool take_over(struct mounting *m, int *status)
{
	struct state state;

	if (handover_take(&state) != 1)
		return false;
	m->taken = &state;
	if (!m->opt.foreground)
		daemon_detach();
	*status = daemon_run(m);
	if (m->took)
		return true;
	log_warn("%s: the mount of the daemon before ends, and the store is mounted anew",
		 m->f.mountpoint);
	handover_done(&state);
	if (m->fuse_fd >= 0)
		close(m->fuse_fd);
	m->taken = NULL;
	m->complete = false;
	memset(&m->f, 0, sizeof(m->f));
	return false;
}

static int mount_or_take_over(struct mounting *m, int argc, char **argv)
{
	int status;

	log_init("fmfs mount", m->opt.debug                          ? LOG_LEVEL_DEBUG
			       : m->opt.foreground || m->opt.verbose ? LOG_LEVEL_INFO
								     : LOG_LEVEL_WARN);
	if (remember_call(m, argc, argv) < 0) {
		log_error("no memory");
		return EXIT_FAILURE;
	}
	if (!take_over(m, &status))
		status = run(m);
	free(m->argv);
	return status;
}

int fmfs_mount_main(int argc, char **argv)
{
	struct mounting *m = calloc(1, sizeof(*m));
	int status;

	if (m == NULL) {
		log_error("no memory");
		return EXIT_FAILURE;
	}
	log_init("fmfs mount", LOG_LEVEL_WARN);
	m->ready_fd = m->fuse_fd = -1;
	if (options_parse(&m->opt, argc, argv) < 0) {
		status = EXIT_USAGE;
	} else if (m->opt.help) {
		options_print_help();
		status = EXIT_SUCCESS;
	} else if (m->opt.takes != NULL) {
		status = strtoul(m->opt.takes, NULL, 10) == HANDOVER_VERSION
				 ? EXIT_SUCCESS
				 : EXIT_FAILURE;
	} else {
		status = mount_or_take_over(m, argc, argv);
	}
	options_free(&m->opt);
	free(m);
	return status;
}
