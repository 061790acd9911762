/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Folders are renamed without pause while other things are done in them, which must not
 * notice: each call has what it would have if nothing moved.
 *
 *   folder-race pool FOLDER N    FOLDER/d, which has a pool p with snapshots, is renamed to e
 *                                and back; in it, by an open descriptor, p is renamed to q and
 *                                back, N times
 *   folder-race calls FOLDER N   FOLDER/g is renamed to h and back; below, in d, files are
 *                                made, looked at, opened, changed, linked, renamed and
 *                                removed, N times
 *   folder-race fill FOLDER N    in a folder that is renamed after each, N files are made
 *   folder-race reuse FOLDER N   in four folders at once, N files are made, looked at and
 *                                removed, so that others get their inode numbers at once
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int top, nfailed;
static atomic_bool stop;

static void want(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "folder-race: %s: %s\n", what, strerror(errno));
	nfailed++;
}

static void *move(void *arg)
{
	const char *const *name = arg;

	while (!stop) {
		want(renameat(top, name[0], top, name[1]) == 0, "rename of a folder");
		want(renameat(top, name[1], top, name[0]) == 0, "and back");
	}
	return NULL;
}

static void rename_pool(int dir)
{
	want(renameat(dir, "p", dir, "q") == 0, "rename of a pool");
	want(renameat(dir, "q", dir, "p") == 0, "and back");
}

static void call_all(int dir)
{
	struct stat st;
	int fd = openat(dir, "a", O_RDWR | O_CREAT | O_EXCL, 0600);

	want(fd >= 0 && close(fd) == 0, "create");
	want(fstatat(dir, "a", &st, 0) == 0, "stat");
	fd = openat(dir, "a", O_RDWR);
	want(fd >= 0 && close(fd) == 0, "open");
	want(fchmodat(dir, "a", 0640, 0) == 0, "chmod");
	want(linkat(dir, "a", dir, "a@1", 0) == 0, "link");
	want(mkdirat(dir, "sub", 0700) == 0, "mkdir");
	want(renameat(dir, "a", dir, "b") == 0, "rename");
	want(unlinkat(dir, "b@1", 0) == 0, "unlink of a snapshot");
	want(unlinkat(dir, "b", 0) == 0, "unlink");
	want(unlinkat(dir, "sub", AT_REMOVEDIR) == 0, "rmdir");
}

static void while_moving(const char *from, const char *to, const char *in, int n,
			 void (*act)(int dir))
{
	const char *name[2] = { from, to };
	int dir = openat(top, in, O_RDONLY | O_DIRECTORY);
	pthread_t mover;

	want(dir >= 0, in);
	if (dir < 0 || pthread_create(&mover, NULL, move, name) != 0)
		exit(1);
	while (n-- > 0 && nfailed == 0)
		act(dir);
	stop = true;
	pthread_join(mover, NULL);
	close(dir);
}

static void fill(int n)
{
	const char *from = "d", *to = "e", *other;
	char path[64];
	int i, fd;

	for (i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/%d", from, i);
		fd = openat(top, path, O_RDWR | O_CREAT | O_EXCL, 0600);
		want(fd >= 0 && close(fd) == 0, path);
		want(renameat(top, from, top, to) == 0, "rename");
		other = from;
		from = to;
		to = other;
	}
}

static void *make_and_remove(void *arg)
{
	struct stat st;
	int *n = arg, fd;
	char path[64];

	snprintf(path, sizeof(path), "%p", arg);
	want(mkdirat(top, path, 0700) == 0, "mkdir");
	snprintf(path, sizeof(path), "%p/file", arg);
	for (; *n > 0; --*n) {
		fd = openat(top, path, O_RDWR | O_CREAT | O_EXCL, 0600);
		want(fd >= 0 && close(fd) == 0, "create");
		want(fstatat(top, path, &st, 0) == 0, "stat");
		want(unlinkat(top, path, 0) == 0, "unlink");
	}
	return NULL;
}

static void reuse(int n)
{
	int left[4] = { n, n, n, n };
	pthread_t thread[4];

	for (int i = 0; i < 4; i++)
		pthread_create(&thread[i], NULL, make_and_remove, &left[i]);
	for (int i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
}

int main(int argc, char **argv)
{
	int n = argc == 4 ? atoi(argv[3]) : 0;

	top = argc == 4 ? open(argv[2], O_RDONLY | O_DIRECTORY) : -1;
	if (top < 0)
		return 2;
	if (strcmp(argv[1], "pool") == 0)
		while_moving("d", "e", "d", n, rename_pool);
	else if (strcmp(argv[1], "calls") == 0)
		while_moving("g", "h", "g/d", n, call_all);
	else if (strcmp(argv[1], "fill") == 0)
		fill(n);
	else if (strcmp(argv[1], "reuse") == 0)
		reuse(n);
	else
		return 2;
	return nfailed > 0;
}
