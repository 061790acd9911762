/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a peer of the benchmark of durable commits can do.  Each library has a program
 * of its own: workloads.c and one of the other files here, which has the peers.  What
 * fails ends the program (need(), tools.h).
 */
#ifndef BENCH_COMMIT_PEER_H
#define BENCH_COMMIT_PEER_H

#include <stdint.h>

#define NCOUNTERS (UINT64_C(1) << 20) /* of 8 bytes: 8 MiB */
#define VALUE_LEN 24

struct peer {
	const char *name;

	/* Make the file, which is not there yet, with nothing in it. */
	void (*open)(const char *path);
	void (*close)(void);

	/* Let there be all counters, and commit.  NULL: it has none. */
	void (*make_counters)(void);
	/* Count counter `at`, one of NCOUNTERS. */
	void (*update)(uint64_t at);

	/* Keep a value of VALUE_LEN bytes under `key`, which is one more than the last
	 * was.  NULL: it does not take part in that. */
	void (*insert)(uint64_t key, const void *value);

	/* Make durable what changed since the last time. */
	void (*commit)(void);
};

/* Another key for each, in no order. */
static inline uint64_t scattered(uint64_t key)
{
	return key * UINT64_C(0x9e3779b97f4a7c15);
}

/* All peers of this program; the one after the last has no name. */
extern const struct peer peers[];

/* The library, and its version. */
const char *peers_version(void);

#endif
