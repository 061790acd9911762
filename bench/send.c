/* SPDX-License-Identifier: Apache-2.0 */
/*
 * send MNT ROUNDS [MIB]: what it takes to send a snapshot and receive it.
 *
 * At the mount MNT a pool of MIB (1024) is made, once of records as programs have them
 * and once of random bytes, and a snapshot of it is copied, in turn, by
 * "fmfs send | fmfs receive", which has it on the disk at the end, and by "cat | cat",
 * with and without sync(1).  Then the same of a second snapshot, in which one page of
 * 100 was changed, with the first as the base.  Prints medians, and ratios of cat's.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <fmalloc.h>

#include "tools.h"

#define NROUNDS_MAX 100
#define MIB (1ul << 20)

struct record {
	uint64_t next_off; /* of another one */
	uint64_t key;
	uint32_t value, weight;
	uint64_t flags;
};

enum way { CAT, CAT_SYNC, SEND, SEND_CHANGES, NWAYS };

static const char *const command[NWAYS] = {
	[CAT] = "cat pool@a | cat >copy",
	[CAT_SYNC] = "cat pool@a | cat >copy && sync copy",
	[SEND] = "fmfs send -q pool@a | fmfs receive -q copy@a",
	[SEND_CHANGES] = "fmfs send -q -i @a pool@b | fmfs receive -q copy@b",
};

static void shell(const char *what)
{
	need(system(what) == 0, what, "failed");
}

static void fill_records(struct record *r, uint64_t n, uint64_t off)
{
	for (uint64_t i = 0; i < n; i++)
		r[i] = (struct record){
			.next_off = off + rnd() % n * sizeof(*r),
			.key = i,
			.value = rnd() % 1000,
			.weight = rnd(),
		};
}

static void fill_random(uint64_t *word, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		word[i] = rnd();
}

static void make_pool(uint64_t len, bool random)
{
	struct fm_info *fi = fmalloc_open("pool", FM_CREATE | FM_EXCL, NULL);
	char *block = fi != NULL ? fmalloc_in(fi, len) : NULL;

	need(block != NULL, "pool", fm_errmsg());
	if (random)
		fill_random((uint64_t *)block, len / sizeof(uint64_t));
	else
		fill_records((struct record *)block, len / sizeof(struct record),
			     block - (char *)fi->mem);
	need(fmalloc_close(fi) == 0, "pool", fm_errmsg());
	need(link("pool", "pool@a") == 0, "pool@a", "cannot be taken");
	fi = fmalloc_open("pool", 0, NULL);
	need(fi != NULL, "pool", fm_errmsg());
	block = (char *)fi->mem + len / 2;
	for (uint64_t at = 0; at < len / 4; at += 100 * 4096)
		memset(block + at, 1, 8);
	need(fmalloc_close(fi) == 0, "pool", fm_errmsg());
	need(link("pool", "pool@b") == 0, "pool@b", "cannot be taken");
}

static void measure(const char *what, uint64_t len, int nrounds)
{
	static double s[NWAYS][NROUNDS_MAX], m[NWAYS];
	double start;

	for (int i = 0; i < nrounds; i++) {
		for (int way = 0; way < NWAYS; way++) {
			sync();
			start = now_s();
			shell(command[way]);
			s[way][i] = now_s() - start;
			if (way <= CAT_SYNC)
				shell("rm copy");
		}
		shell("cmp pool@a copy@a && cmp pool@b copy@b && rm -f copy@a copy@b");
	}
	for (int way = 0; way < NWAYS; way++)
		m[way] = median(s[way], nrounds);
	printf("sending a pool of %lu MiB of %s: %.2f s, of cat | cat %.2f (speed; %.2f "
	       "with sync), of what changed %.2f s\n",
	       len / MIB, what, m[SEND], m[CAT] / m[SEND], m[CAT_SYNC] / m[SEND],
	       m[SEND_CHANGES]);
}

int main(int argc, char **argv)
{
	uint64_t len = (argc > 3 ? strtoul(argv[3], NULL, 0) : 1024) * MIB;
	int nrounds = argc > 2 ? atoi(argv[2]) : 0;

	if (nrounds < 1 || nrounds > NROUNDS_MAX || chdir(argv[1]) < 0) {
		fprintf(stderr, "usage: send MNT ROUNDS [MIB]\n");
		return 2;
	}
	for (int random = 0; random < 2; random++) {
		make_pool(len, random);
		measure(random ? "random bytes" : "records", len, nrounds);
		fflush(stdout);
		shell("rm -f pool pool@a pool@b");
	}
	return 0;
}
