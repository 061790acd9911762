/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of the file that are nobody's: free at the last checkpoint, in no commit since were
 * they of an extent, and no record has anything for them.  Neither readers nor a recovery
 * look at what is in them, so a commit may write them before its record is there, and need
 * not log them.
 *
 * For the one who is at the pool's file: no lock of its own.
 */
#ifndef FM_HEAP_FRESH_H
#define FM_HEAP_FRESH_H

#include <stdbool.h>
#include <stdint.h>

#include "heap/overlay.h"

struct fresh_run {
	uint64_t off, len;
};

struct fresh {
	struct fresh_chunk *chunk;
	uint32_t *table;	/* room for a page table: stacks may be small */
	uint32_t lap;
	bool known;		/* what was allocated since the last checkpoint */
	uint64_t lap_end;	/* heap_end at the checkpoint */
	/* Those that the commit which is being made has in their place. */
	struct fresh_run *run;
	uint64_t nruns, cap_runs, npages;
};

int fresh_open(struct fresh *f);
void fresh_close(struct fresh *f);
/* A checkpoint has been made: the file is as of a commit whose heap ends here. */
void fresh_next_lap(struct fresh *f, uint64_t heap_end);
/* Until the next one, nothing is known to be nobody's; as at first. */
void fresh_forget(struct fresh *f);

/* Whether the page, which is in the heap by now, is nobody's. */
bool fresh_has(struct fresh *f, int fd, uint64_t page);
/* A commit was made of these runs, which the overlay has: what it has allocated is
 * somebody's, and so is what it has logged. */
void fresh_commit(struct fresh *f, const struct overlay *o, int fd, const uint64_t *runs,
		  uint64_t nwords);

/* 0 or -ENOMEM. */
int fresh_add(struct fresh *f, uint64_t off, uint64_t len);
void fresh_clear(struct fresh *f);

#endif
