/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the test scripts need of a program that uses a pool.
 *
 *   pool-tool root POOL NAME TYPE SIZE   set a root to a new block (SIZE 0: null)
 *   pool-tool roots POOL N               N roots r0, r1, ... of type "t"
 *   pool-tool unroot POOL NAME           remove a root
 *   pool-tool commit POOL                create the pool if need be, and commit
 *   pool-tool fill POOL N                N blocks of 1 MiB, written to
 *   pool-tool drain POOL N               the same, and then most are given back, in pieces
 *   pool-tool drained POOL N             the same, and then as hold
 *   pool-tool hold POOL                  have it open for writing, say "ready",
 *                                        until standard input ends
 */
#include <fmalloc.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(void)
{
	fprintf(stderr, "pool-tool: %s\n", fm_errmsg());
	return 1;
}

static int set_root(struct fm_info *fi, const char *name, const char *type, size_t size)
{
	void *block = size ? fmalloc_in(fi, size) : NULL;

	if (size && !block)
		return fail();
	return fm_root_set(fi, name, block, type) == 0 ? 0 : fail();
}

static int set_roots(struct fm_info *fi, int n)
{
	char name[32];

	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "r%d", i);
		if (set_root(fi, name, "t", 16) != 0)
			return 1;
	}
	return 0;
}

enum { MIB = 1 << 20, NBLOCKS_MAX = 1000 };

static int fill(struct fm_info *fi, int n, int drain)
{
	static char *block[NBLOCKS_MAX];

	if (n > NBLOCKS_MAX)
		return 2;
	for (int i = 0; i < n; i++) {
		block[i] = fmalloc_in(fi, MIB);
		if (!block[i])
			return fail();
		memset(block[i], i, MIB);
	}
	for (int i = 0; i < n && drain; i++)
		if (i % 8 != 0)
			ffree(block[i]);
	return drain && fm_trim(fi) != 0 ? fail() : 0;
}

static int hold(void)
{
	puts("ready");
	fflush(stdout);
	while (getchar() != EOF)
		;
	return 0;
}

static int run(struct fm_info *fi, int argc, char **argv)
{
	if (strcmp(argv[1], "root") == 0 && argc == 6)
		return set_root(fi, argv[3], argv[4], strtoul(argv[5], NULL, 0));
	if (strcmp(argv[1], "roots") == 0 && argc == 4)
		return set_roots(fi, atoi(argv[3]));
	if (strcmp(argv[1], "unroot") == 0 && argc == 4)
		return fm_root_remove(fi, argv[3]) == 0 ? 0 : fail();
	if (strcmp(argv[1], "commit") == 0)
		return 0;
	if (strcmp(argv[1], "fill") == 0 && argc == 4)
		return fill(fi, atoi(argv[3]), 0);
	if (strcmp(argv[1], "drain") == 0 && argc == 4)
		return fill(fi, atoi(argv[3]), 1);
	if (strcmp(argv[1], "drained") == 0 && argc == 4)
		return fill(fi, atoi(argv[3]), 1) == 0 ? hold() : 1;
	if (strcmp(argv[1], "hold") == 0)
		return hold();
	fprintf(stderr, "pool-tool: wrong usage\n");
	return 2;
}

int main(int argc, char **argv)
{
	struct fm_info *fi;
	int status;

	if (argc < 3)
		return 2;
	fi = fmalloc_open(argv[2], FM_CREATE, NULL);
	if (!fi)
		return fail();
	status = run(fi, argc, argv);
	if (status == 0 && fmalloc_commit(fi) != 0)
		status = fail();
	if (fmalloc_close(fi) != 0)
		status = fail();
	return status;
}
