/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks a mount to make a file a snapshot, as fmfs receive does.
 *
 *   adopt-tool named PATH NAME FROM       a new file at PATH, with what is in FROM
 *   adopt-tool nameless FOLDER NAME FROM  the same without a name
 *   adopt-tool shared PATH NAME FROM      as named, while it is open a second time
 *   adopt-tool given PATH NAME UID        the file at PATH, as that user
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/fmfs_ioctl.h"

static void need(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "adopt-tool: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void copy(int to, const char *path)
{
	int from = open(path, O_RDONLY);
	static char buf[1 << 20];
	ssize_t n;

	need(from >= 0, path);
	while ((n = read(from, buf, sizeof(buf))) > 0)
		need(write(to, buf, n) == n, "write");
	need(n == 0, path);
	close(from);
}

static int open_it(const char *how, const char *path)
{
	if (strcmp(how, "nameless") == 0)
		return open(path, O_TMPFILE | O_RDWR, 0600);
	return open(path, O_RDWR | O_CREAT, 0600);
}

int main(int argc, char **argv)
{
	struct fmfs_adopt adopt = { .name = "" };
	int fd;

	if (argc != 5)
		return 2;
	fd = open_it(argv[1], argv[2]);
	need(fd >= 0, argv[2]);
	if (strcmp(argv[1], "given") == 0)
		need(setuid(atoi(argv[4])) == 0, "setuid");
	else
		copy(fd, argv[4]);
	if (strcmp(argv[1], "shared") == 0)
		need(open(argv[2], O_RDWR) >= 0, argv[2]);
	strncpy(adopt.name, argv[3], sizeof(adopt.name) - 1);
	need(ioctl(fd, FMFS_IOC_ADOPT, &adopt) == 0, argv[3]);
	return 0;
}
