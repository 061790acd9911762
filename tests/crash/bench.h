/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scenario is a program that is stopped at each change of its pool, while another
 * process, the judge, looks at a copy of the file as a kill would leave it there.
 * Pool and copy are in memory.
 */
#ifndef FM_TESTS_BENCH_H
#define FM_TESTS_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include <fmalloc.h>

#include "crash/journal.h"

struct scenario {
	const char *name;
	/* In a process that is killed then; may be NULL. */
	void (*before)(void);
	/* In the process that run is in, which is not stopped yet; may be NULL. */
	void (*setup)(void);
	void (*run)(void);
	/* Of a pair: what another thread did before, and what it does, all at once,
	 * between two stores of run.  NULL: nothing. */
	void (*prepare)(void);
	void (*between)(void);
	unsigned flags;		/* JUDGE_ */
};

/* Where in the pool a store is. */
enum region {
	ELSEWHERE, HEAP_END, PENDING, INTENTS_OFF, INTENT_WHERE, INTENT_VALUE,
	INTENT_NEW, INTENT_OLD, ZONE_HEADER, DIRECTORY, TABLE, FIRST, SECOND,
	SLOT_STATE, SLOT_REST, POINTER, NREGIONS
};

/* A bug: before a store into `early` the last one into `late` is not made yet. */
struct plant {
	enum region late, early;
};

struct verdict {
	uint64_t nchanges;	/* stores and system calls */
	uint64_t njudged;
	uint64_t nbad;
	uint64_t nreached;	/* 1: bench_between() got there */
	char why[600];		/* the first that was bad */
};

/* Of the scenario's process. */
extern struct fm_info *pool;
extern struct journal *journal;
extern const char *pool_path;

/* What the calling thread does from now on is s->between. */
void bench_other(void);
bool bench_open(void);
void bench_close(void);

/* Let each `every`th change be judged; `only`: only this one, if not 0.  plant: judge
 * what it makes of the changes instead; may be NULL. */
void bench_run(const struct scenario *s, uint64_t every, uint64_t only,
	       const struct plant *plant, struct verdict *v);
/* Kill it at change number `at`, and let each `every`th change of the process that
 * opens the pool next, and closes it, be judged: false if there are not so many. */
bool bench_recover(const struct scenario *s, uint64_t at, uint64_t every,
		   struct verdict *v);
/* Let another thread do s->between at change number `at`, up to where it has to wait
 * for the first, and let each `every`th change of its be judged: false if there are
 * not so many changes. */
bool bench_between(const struct scenario *s, uint64_t at, uint64_t every,
		   struct verdict *v);

#endif
