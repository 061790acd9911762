/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fmfs verbs do not do.
 *
 *   restore-tool late FILE       open it for reading and writing, say "ready", wait for
 *                                standard input to end, and only then take the lock of a
 *                                pool's writer: exit status 0, or 1 if it is refused
 *   restore-tool stat FILE FD    roll back to the snapshot FILE; status 0 if stat(2) of
 *                                the pool, which is open as FD, is that of another file
 *                                then, and fstat(2) that of the one that is open
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fmfs_ioctl.h"
#include "heap/inspect.h"

static int fail(const char *what)
{
	fprintf(stderr, "restore-tool: %s: %s\n", what, strerror(errno));
	return 2;
}

static int late(const char *path)
{
	struct flock lock = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = POOL_LOCK_OFF,
		.l_len = 1,
	};
	int fd = open(path, O_RDWR);

	if (fd < 0)
		return fail(path);
	puts("ready");
	fflush(stdout);
	while (getchar() != EOF)
		;
	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	return errno == EAGAIN || errno == EACCES ? 1 : fail("lock");
}

static int stat_after(char *path, int open_fd)
{
	struct stat before, by_name, by_fd;
	int fd = open(path, O_RDONLY);

	if (fd < 0 || fstat(open_fd, &before) < 0 ||
	    ioctl(fd, FMFS_IOC_ROLLBACK, NULL) < 0)
		return fail(path);
	*strrchr(path, '@') = '\0';
	if (stat(path, &by_name) < 0 || fstat(open_fd, &by_fd) < 0)
		return fail(path);
	return by_fd.st_ino == before.st_ino && by_name.st_ino != before.st_ino ? 0 : 1;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "late") == 0)
		return late(argv[2]);
	if (argc == 4 && strcmp(argv[1], "stat") == 0)
		return stat_after(argv[2], atoi(argv[3]));
	fprintf(stderr, "restore-tool: wrong usage\n");
	return 2;
}
