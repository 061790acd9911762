/* SPDX-License-Identifier: Apache-2.0 */
/*
 * updates POOL: what a commit after scattered updates writes.
 *
 * A new pool of 1 GiB is filled and committed; then 1,000 random updates of 8 bytes
 * and a commit, several times, in the process that filled it and in one that opened
 * it.  Prints the bytes that the kernel was made to write for each 4 KiB page that was
 * changed, and the times.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmalloc.h>

#include "tools.h"

#define NBLOCKS 16384
#define BLOCK_LEN 65536
#define NUPDATES 1000

struct table {
	FM_PTR(char) block[NBLOCKS];
};

static long written(void)
{
	long n = 0;
	char line[128];
	FILE *f = fopen("/proc/self/io", "r");

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		sscanf(line, "write_bytes: %ld", &n);
	if (f != NULL)
		fclose(f);
	return n;
}

static struct table *fill(struct fm_info *fi)
{
	struct table *t = fm_root_alloc(fi, "table", sizeof(*t), "");
	char *p;
	int i;

	need(t != NULL, "allocate", fm_errmsg());
	for (i = 0; i < NBLOCKS; i++) {
		p = fmalloc_in(fi, BLOCK_LEN);
		need(p != NULL, "allocate", fm_errmsg());
		memset(p, 1, BLOCK_LEN);
		fm_set(t->block[i], p);
	}
	need(fmalloc_commit(fi) == 0, "commit", fm_errmsg());
	return t;
}

static void round_of_updates(struct fm_info *fi, struct table *t, const char *when)
{
	double start = now_s(), stored;
	long before = written();
	uint64_t x;
	int i;

	for (i = 0; i < NUPDATES; i++) {
		x = rnd();
		*(uint64_t *)(fm_get(t->block[x % NBLOCKS]) +
			      (x >> 20) % (BLOCK_LEN / 8) * 8) = x;
	}
	stored = now_s();
	need(fmalloc_commit(fi) == 0, "commit", fm_errmsg());
	printf("1000 updates of 8 bytes and a commit, %s: wrote %.2f times"
	       " the changed pages; stores %.1f us each, commit %.1f ms\n", when,
	       (written() - before) / (NUPDATES * 4096.0),
	       (stored - start) * 1e6 / NUPDATES, (now_s() - stored) * 1e3);
}

static void in_one_process(const char *path, bool make, const char *when)
{
	struct fm_info *fi = fmalloc_open(path, make ? FM_CREATE | FM_EXCL : 0, NULL);
	struct table *t;

	need(fi != NULL, path, fm_errmsg());
	t = make ? fill(fi) : fm_root_get(fi, "table", NULL);
	round_of_updates(fi, t, when);
	round_of_updates(fi, t, when);
	fmalloc_close(fi);
}

int main(int argc, char **argv)
{
	int status = 0;

	if (argc != 2) {
		fprintf(stderr, "usage: updates NEW-POOL\n");
		return 2;
	}
	if (fork() == 0) {
		in_one_process(argv[1], true, "of a pool just filled");
		fflush(stdout);
		_exit(0);
	}
	if (wait(&status) < 0 || status != 0)
		return 1;
	in_one_process(argv[1], false, "of a pool just opened");
	return 0;
}
