/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fmfs umount: unmount, and wait until the daemon has finished its work.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cli/ask.h"
#include "cli/cli.h"
#include "fuse/mountinfo.h"

#define WAIT_MS 10000

/* A descriptor of the daemon that serves the mount; -1 if it cannot be had. */
static int open_daemon(const char *point, uint64_t *pid)
{
	struct fmfs_info info;
	int fd = open(point, O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC);
	int ret = fd < 0 ? -errno : fmfs_ask_info(fd, &info);

	if (fd >= 0)
		close(fd); /* it would keep the mount busy */
	if (ret != 0 || info.pid == 0 || info.pid > INT32_MAX)
		return -1;
	*pid = info.pid;
	return (int)syscall(SYS_pidfd_open, (pid_t)info.pid, 0);
}

static int explain(const char *point, int ret)
{
	char *quoted;

	if (ret > 0)
		return cli_fail(point, "fusermount3 did not unmount it");
	if (ret == -EPERM)
		return cli_fail(point, "not allowed, and fusermount3 is not installed");
	if (ret != -EBUSY)
		return cli_fail_errno(point, ret);
	quoted = cli_escape(point);
	cli_fail(point,
		 "in use: end the programs that have files open there"
		 " ('fuser -vm %s' shows them), or unmount with -l",
		 quoted);
	free(quoted);
	return CLI_FAILED;
}

/* A pidfd becomes readable when its process ends. */
static int wait_for_daemon(const char *point, int pidfd, uint64_t pid)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	int n;

	do
		n = poll(&p, 1, WAIT_MS);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		return CLI_OK;
	return cli_fail(point,
			"unmounted, but its daemon (process %llu) is still running"
			" after %d seconds",
			(unsigned long long)pid, WAIT_MS / 1000);
}

static int unmount(const char *point, bool lazy)
{
	uint64_t pid = 0;
	int pidfd = lazy ? -1 : open_daemon(point, &pid);
	int ret = mount_detach(point, lazy);
	int status = ret == 0 ? CLI_OK : explain(point, ret);

	if (status == CLI_OK && pidfd >= 0)
		status = wait_for_daemon(point, pidfd, pid);
	if (pidfd >= 0)
		close(pidfd);
	return status;
}

static int unmount_checked(const char *path, bool lazy)
{
	struct mount_entry mount;
	char *point = mount_resolve(path);
	int status, ret;

	if (!point)
		return cli_fail_errno(path, -errno);
	ret = mount_find_point(point, &mount);
	if (ret < 0)
		status = cli_fail_errno("/proc/self/mountinfo", ret);
	else if (ret == 0)
		status = cli_fail(path, "nothing is mounted there");
	else if (!mount.is_fmfs)
		status = cli_fail(path, "what is mounted there is not an fmfs");
	else
		status = unmount(point, lazy);
	if (ret == 1)
		mount_entry_free(&mount);
	free(point);
	return status;
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "lazy", no_argument, NULL, 'l' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	bool lazy = false;
	int opt;

	while ((opt = getopt_long(argc, argv, "l", options, NULL)) != -1) {
		if (opt == 'h')
			return cli_help(&verb_umount);
		if (opt != 'l')
			return cli_usage(&verb_umount);
		lazy = true;
	}
	if (argc - optind != 1)
		return cli_usage(&verb_umount);
	return unmount_checked(argv[optind], lazy);
}

const struct verb verb_umount = {
	.name = "umount",
	.synopsis = "umount [-l] MOUNTPOINT",
	.summary = "Unmount an fmfs and wait for its daemon to end",
	.help = "Works also when the daemon is dead.\n\n"
		"  -l, --lazy  take the mount out of sight at once; it goes on for the programs\n"
		"              that use it, and so does its daemon, which is not waited for\n",
	.run = run,
};
