/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walk NEW-POOL [GIB [ROUNDS]]: what commits cost after the program has read much.
 *
 * A word of a random page is changed and committed, over and over, in a new atomic pool;
 * then so many GiB of the pool are read, a word of each page; then such commits again.
 * All that several times.  Prints medians of the time of a commit before, of the first
 * one after, and of what a commit takes later.  Takes as much memory as is read, for the
 * page cache, but not more than half of what is free; and 1 GiB of disk.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "commit/sparse.h"
#include "tools.h"

#define NCOMMITS 200
#define NBEFORE 100 /* the last ones, when what went before has worn off */
#define NROUNDS_MAX 99

/* What is printed. */
enum { BEFORE, FIRST, FIRST_TEN, TO_100, AFTER_100, NFIGURES };

static const char *const words[NFIGURES] = {
	"before", "the first after", "the next 9", "from the 91st to the 100th",
	"from the 101st to the 200th",
};
static double us[NFIGURES][NROUNDS_MAX], ratio[NFIGURES][NROUNDS_MAX];

static unsigned free_gib(void)
{
	unsigned long kib = 0;
	char line[128];
	FILE *f = fopen("/proc/meminfo", "r");

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, "MemAvailable: %lu", &kib) == 1)
			break;
	if (f != NULL)
		fclose(f);
	return kib >> 20;
}

static uint64_t read_all(const struct sparse *contents)
{
	uint64_t sum = 0, b, i;

	for (b = 1; b < contents->nblocks; b++) {
		const volatile uint64_t *block = fm_get(contents->block[b]);

		for (i = 0; i < SPARSE_BLOCK_NPAGES; i++)
			sum += block[i * 512];
	}
	return sum;
}

static void time_commits(struct fm_info *pool, struct sparse *contents,
			 double took[NCOMMITS])
{
	double start;
	int i;

	for (i = 0; i < NCOMMITS; i++) {
		start = now_s();
		sparse_commit(pool, contents);
		took[i] = (now_s() - start) * 1e6;
	}
}

static void measure(struct fm_info *pool, struct sparse *contents, int round)
{
	double before[NCOMMITS], after[NCOMMITS];
	int i;

	time_commits(pool, contents, before);
	need(read_all(contents) == 0, "read", "there is something");
	time_commits(pool, contents, after);
	us[BEFORE][round] = median(before + NCOMMITS - NBEFORE, NBEFORE);
	us[FIRST][round] = after[0];
	us[FIRST_TEN][round] = median(after + 1, 9);
	us[TO_100][round] = median(after + 90, 10);
	us[AFTER_100][round] = median(after + 100, NCOMMITS - 100);
	for (i = 0; i < NFIGURES; i++)
		ratio[i][round] = us[i][round] / us[BEFORE][round];
}

int main(int argc, char **argv)
{
	unsigned ngib = argc > 2 ? strtoul(argv[2], NULL, 10) : 8, most = free_gib() / 2;
	int nrounds = argc > 3 ? atoi(argv[3]) : 5, i;
	struct sparse *contents;
	struct fm_info *pool;

	if (argc < 2 || nrounds < 1 || nrounds > NROUNDS_MAX) {
		fprintf(stderr, "usage: walk NEW-POOL [GIB [ROUNDS]]\n");
		return 2;
	}
	if (ngib > most)
		ngib = most;
	pool = sparse_make(argv[1], ngib + 1, &contents);
	unlink(argv[1]);
	for (i = 0; i < nrounds; i++)
		measure(pool, contents, i);
	printf("us for a commit of one word, before and after %u GiB are read:", ngib);
	for (i = 0; i < NFIGURES; i++)
		printf("%s %s %.0f (%.2f)", i > 0 ? "," : "", words[i],
		       median(us[i], nrounds), median(ratio[i], nrounds));
	printf("\n");
	need(fmalloc_close(pool) == 0, "fmalloc_close", fm_errmsg());
	return 0;
}
