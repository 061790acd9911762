/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fmfs reload: have the daemon of a mount replaced by the program that is installed now, and
 * wait until that serves.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/ask.h"
#include "cli/cli.h"
#include "common/clock.h"

#define WAIT_S 120
#define POLL_NS 20000000

struct reload {
	const char *point;
	int fd; /* of the mount: it lasts from one daemon to the next */
	struct fmfs_daemon before;
	int status;
};

/* Who was replaced answers no more, and the next once it serves. */
static int wait_for_next(struct reload *r)
{
	const struct fmfs_daemon *before = &r->before;
	struct fmfs_daemon now;
	int ret;

	for (;;) {
		ret = ask_daemon(r->fd, &now);
		if (ret == -ENOTCONN || ret == -ECONNABORTED)
			return cli_fail(r->point,
					"the mount was not taken over, and its"
					" daemon has ended: its messages say why");
		if (ret < 0)
			return cli_fail_errno(r->point, ret);
		if (now.nbefore != before->nbefore)
			break;
		if (now.nfailed != before->nfailed)
			return cli_fail(r->point,
					"not replaced, and served as before: %s",
					now.why);
		clock_sleep(POLL_NS);
	}
	printf("%s\n", now.version);
	return CLI_OK;
}

static void *wait_in_thread(void *arg)
{
	struct reload *r = arg;

	r->status = wait_for_next(r);
	return NULL;
}

/* Questions to a daemon that hangs can only be ended with the process. */
static int wait_long(struct reload *r)
{
	struct timespec until;
	pthread_t thread;
	int err;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_S;
	err = pthread_create(&thread, NULL, wait_in_thread, r);
	if (err != 0)
		return cli_fail_errno(r->point, -err);
	if (pthread_timedjoin_np(thread, NULL, &until) == 0)
		return r->status;
	return cli_fail(r->point, "no answer after %d seconds", WAIT_S);
}

static int reload(const char *path)
{
	struct reload r = { .point = path };
	int ret;

	r.fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	ret = r.fd < 0 ? -errno : ask_daemon(r.fd, &r.before);
	if (ret == -EOPNOTSUPP)
		return cli_fail(path,
				"its daemon is of a version that cannot be replaced:"
				" unmount, and mount again");
	if (ret == 0 && kill(r.before.pid, SIGHUP) < 0)
		ret = -errno;
	return ret < 0 ? cli_fail_errno(path, ret) : wait_long(&r);
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
		return opt == 'h' ? cli_help(&verb_reload) : cli_usage(&verb_reload);
	if (argc - optind != 1)
		return cli_usage(&verb_reload);
	return reload(argv[optind]);
}

const struct verb verb_reload = {
	.name = "reload",
	.synopsis = "reload MOUNTPOINT",
	.summary = "Replace the daemon of a mount by the fmfs that is installed",
	.help = "Programs that use the mount go on, and notice only a short wait.  Prints the\n"
		"version of the new daemon once it serves.\n",
	.run = run,
};
