/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store of many pools, and names in it.
 *
 * names fill POOL FOLDER NFOLDERS NPOOLS: copies of the pool, holes left out, so many in
 * each of folders 0, 1, ... in FOLDER.
 *
 * names map FOLDER N: N pools of FOLDER (0, 1, ...) are mapped at once, and a byte of each
 * read and written.
 *
 * names rates FOLDER PEER COUNT: files are made, looked at, opened and closed, and
 * removed, in the one folder and then in the other, in turn.  Prints medians and their
 * ratios.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools.h"

#define NROUNDS 15
#define SETTLE_US 1200000
#define PATH_LEN 4096

static void need_errno(bool ok, const char *what)
{
	need(ok, what, strerror(errno));
}

/* --- fill ----------------------------------------------------------------- */

static void copy_pool(int from, const char *path)
{
	off_t len = lseek(from, 0, SEEK_END), off = 0, end;
	int to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	char buf[4096];

	need_errno(to >= 0 && ftruncate(to, len) == 0, path);
	while ((off = lseek(from, off, SEEK_DATA)) >= 0) {
		end = lseek(from, off, SEEK_HOLE);
		for (; off < end; off += sizeof(buf)) {
			ssize_t n = pread(from, buf, sizeof(buf), off);

			/* What was reserved and never written need not be there. */
			if (n > 0 && (buf[0] != 0 || memcmp(buf, buf + 1, n - 1) != 0))
				need_errno(pwrite(to, buf, n, off) == n, path);
		}
	}
	close(to);
}

static void fill(const char *pool, const char *folder, int nfolders, int npools)
{
	int from = open(pool, O_RDONLY | O_CLOEXEC), i, j;
	char path[PATH_LEN];

	need_errno(from >= 0, pool);
	for (i = 0; i < nfolders; i++) {
		snprintf(path, sizeof(path), "%s/%d", folder, i);
		need_errno(mkdir(path, 0755) == 0, path);
		for (j = 0; j < npools; j++) {
			snprintf(path, sizeof(path), "%s/%d/%d", folder, i, j);
			copy_pool(from, path);
		}
	}
	close(from);
}

/* --- map -------------------------------------------------------------------- */

static void map_all(const char *folder, int n)
{
	struct rlimit l;
	char path[PATH_LEN];
	volatile char *mem;
	int i, fd;

	need_errno(getrlimit(RLIMIT_NOFILE, &l) == 0, "getrlimit");
	l.rlim_cur = l.rlim_max;
	need_errno(setrlimit(RLIMIT_NOFILE, &l) == 0, "setrlimit");
	for (i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/%d", folder, i);
		fd = open(path, O_RDWR | O_CLOEXEC);	/* stays open */
		need_errno(fd >= 0, path);
		mem = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		need_errno(mem != MAP_FAILED, path);
		mem[4095] = mem[4095];
	}
	printf("%d pools are open and mapped at once\n", n);
}

/* --- rates -------------------------------------------------------------------- */

static bool make_one(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

	return fd >= 0 && close(fd) == 0;
}

static bool look_at_one(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

static bool open_one(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	return fd >= 0 && close(fd) == 0;
}

static bool remove_one(const char *path)
{
	return unlink(path) == 0;
}

static const struct {
	const char *name;
	bool (*do_one)(const char *path);
} ops[] = {
	{ "create", make_one },
	{ "stat", look_at_one },
	{ "open and close", open_one },
	{ "unlink", remove_one },
};
#define NOPS (sizeof(ops) / sizeof(ops[0]))

static double rate(const char *folder, int count, bool (*do_one)(const char *path))
{
	double start = now_s();
	char path[PATH_LEN];
	int i;

	for (i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "%s/names-%d", folder, i);
		need_errno(do_one(path), path);
	}
	return count / (now_s() - start);
}

/* All four in one folder.  When it is looked at the kernel does not know the names any
 * more: it is told them for a second. */
static void round_in(const char *folder, int count, double rates[NOPS])
{
	size_t op;

	for (op = 0; op < NOPS; op++) {
		if (op == 1)
			usleep(SETTLE_US);
		rates[op] = rate(folder, count, ops[op].do_one);
	}
	usleep(SETTLE_US); /* what is done later is not done in the other's time */
}

static void rates(const char *folder, const char *peer, int count)
{
	static double a[NOPS][NROUNDS], b[NOPS][NROUNDS], ratio[NOPS][NROUNDS];
	double of_a[NOPS], of_b[NOPS];
	size_t op;
	int i;

	for (i = 0; i < NROUNDS; i++) {
		/* Who is first finds other things in the disk's caches. */
		if (i % 2 == 0)
			round_in(folder, count, of_a);
		round_in(peer, count, of_b);
		if (i % 2 != 0)
			round_in(folder, count, of_a);
		for (op = 0; op < NOPS; op++) {
			a[op][i] = of_a[op];
			b[op][i] = of_b[op];
			ratio[op][i] = of_a[op] / of_b[op];
		}
	}
	for (op = 0; op < NOPS; op++)
		printf("%s: %.0f a second, the example of libfuse %.0f, ratio %.2f\n",
		       ops[op].name, median(a[op], NROUNDS), median(b[op], NROUNDS),
		       median(ratio[op], NROUNDS));
}

int main(int argc, char **argv)
{
	if (argc == 6 && strcmp(argv[1], "fill") == 0)
		fill(argv[2], argv[3], atoi(argv[4]), atoi(argv[5]));
	else if (argc == 4 && strcmp(argv[1], "map") == 0)
		map_all(argv[2], atoi(argv[3]));
	else if (argc == 5 && strcmp(argv[1], "rates") == 0)
		rates(argv[2], argv[3], atoi(argv[4]));
	else
		return 2;
	return 0;
}
