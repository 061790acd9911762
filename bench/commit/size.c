/* SPDX-License-Identifier: Apache-2.0 */
/*
 * size FOLDER [ROUNDS [SECONDS]]: what the size of an atomic pool costs its commits.
 *
 * Three pools are open, of 1, 8 and 64 GiB, in each of which 1 GiB has been written.
 * They take turns: a word of a random page of that is changed and committed, over and
 * over, for so many seconds.  Prints medians of commits a second, and of ratios to the
 * smallest in the same round.  Needs 3 GiB of disk in FOLDER, and as much memory.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "commit/sparse.h"
#include "tools.h"

#define NSIZES 3
#define NROUNDS_MAX 99

static const unsigned sizes_gib[NSIZES] = { 1, 8, 64 };
static struct fm_info *pool[NSIZES];
static struct sparse *contents[NSIZES];
static double got[NSIZES][NROUNDS_MAX], ratio[NSIZES][NROUNDS_MAX];

static void make_pool(const char *folder, int i)
{
	char *path;

	need(asprintf(&path, "%s/size-%u", folder, sizes_gib[i]) >= 0, folder, "memory");
	pool[i] = sparse_make(path, sizes_gib[i], &contents[i]);
	unlink(path);
	free(path);
}

static double rate(int i, double seconds)
{
	double start = now_s(), took;
	uint64_t n = 0;

	do {
		sparse_commit(pool[i], contents[i]);
		n++;
		took = now_s() - start;
	} while (took < seconds);
	return n / took;
}

static void measure(int round, double seconds)
{
	int i;

	for (i = 0; i < NSIZES; i++) {
		rate(i, seconds / 4);
		got[i][round] = rate(i, seconds);
		ratio[i][round] = got[i][round] / got[0][round];
	}
}

int main(int argc, char **argv)
{
	int nrounds = argc > 2 ? atoi(argv[2]) : 5, i;
	double seconds = argc > 3 ? atof(argv[3]) : 1;

	if (argc < 2 || nrounds < 1 || nrounds > NROUNDS_MAX) {
		fprintf(stderr, "usage: size FOLDER [ROUNDS [SECONDS]]\n");
		return 2;
	}
	for (i = 0; i < NSIZES; i++)
		make_pool(argv[1], i);
	for (i = 0; i < nrounds; i++)
		measure(i, seconds);
	printf("commits of one word a second, by the size of the pool:");
	for (i = 0; i < NSIZES; i++)
		printf("%s %u GiB %.0f (%.2f)", i > 0 ? "," : "", sizes_gib[i],
		       median(got[i], nrounds), median(ratio[i], nrounds));
	printf("\n");
	for (i = 0; i < NSIZES; i++)
		need(fmalloc_close(pool[i]) == 0, "fmalloc_close", fm_errmsg());
	return 0;
}
