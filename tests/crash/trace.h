/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stopping a program at each change that it makes of its pool: after every store
 * that changed a byte, and after every system call that changed the file.
 *
 * The mapping is read-only, a store into it faults, and is stepped over.  On x86-64
 * the stores of one thread become visible in the order of the program, so what is
 * there at such a stop is what a kill can leave, and there is nothing else that it
 * can leave of one thread.  Not covered: most of what several threads can leave
 * (test-kills), other architectures, and crashes of the machine, after which stores
 * are on disk in any order.
 */
#ifndef FM_TESTS_TRACE_H
#define FM_TESTS_TRACE_H

#include <stdbool.h>
#include <stdint.h>

struct change {
	uint64_t number;	/* from 1 on */
	const char *call;	/* the system call, or NULL: a store */
	uint64_t off;		/* of the store: what it changed ... */
	uint32_t len;
	const unsigned char *before;	/* ... and what was there */
	void *pc;
};

/* From now on call fn at each change of the pool that is mapped, or of the one that is
 * mapped next: in a signal handler, while no other thread makes a change. */
void trace_start(void (*fn)(const struct change *change));
void trace_stop(void);
/* What the program stores for itself is no change. */
void trace_pause(bool begins);
/* Called by fn: others may make changes, and be told of, until fn takes it back. */
void trace_yield(bool begins);
/* The base of the pool, or NULL. */
unsigned char *trace_base(void);

#endif
