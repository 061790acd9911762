/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Atomic pools, for the files that make them: atomic.c (opening, closing, brackets),
 * commit.c (commits, checkpoints, rollback), capture.c (what a commit has to write),
 * reclaim.c (memory that it can do without).
 * doc/design.md says how it works.
 *
 * One thread at a time is at the pool's file, its log, or its overlay: the one that is
 * `busy`.  Memory it looks at with the gate closed, and the heap's locks held.
 */
#ifndef FM_HEAP_ATOMIC_H
#define FM_HEAP_ATOMIC_H


#include "heap/dirty.h"
#include "heap/fresh.h"
#include "heap/gate.h"
#include "heap/heap.h"
#include "heap/log.h"
#include "heap/overlay.h"

#define ATOMIC_NRESULTS 64u

/* What was stored in a chunk of late. */
struct chunk_heat {
	uint32_t last;		/* the latest capture that found a page written */
	uint16_t nchanged;	/* pages, in this capture */
	uint8_t streak;		/* captures that spoke for a change */
	uint32_t keep_until;	/* the capture after which its memory may be given up */
	uint32_t ndrops;	/* how often it was */
	uint32_t nhome;		/* pages of memory that were written home unlogged */
};

/* Space of a chunk that was given back: since the last commit; before the one that is
 * under way; before the last one. */
enum { PUNCH_NONE, PUNCH_NEW, PUNCH_CAPTURED, PUNCH_COMMITTED, PUNCH_N };

struct atomic {
	struct log log;
	struct overlay overlay;
	uint64_t nreplayed;

	bool stale_map;		/* what is mapped of the file is of a mount that is gone,
				 * and had no passthrough, or may have had none */

	/* The rest is a writer's. */
	pthread_mutex_t lock;
	pthread_cond_t done_cond;
	bool busy;
	uint64_t nstarted, ndone; /* captures */
	int result[ATOMIC_NRESULTS]; /* of those that ended last: 0 or -errno */
	struct gate gate;
	bool bracketed;		/* brackets have been used; atomic */
	bool barred;		/* readers are, until the pool is closed */

	struct dirty dirty;
	uint64_t committed_end;	/* heap_end of the last commit */
	uint64_t kept_end;	/* ... or of one under way: guarded by space_lock */
	uint64_t mapped_end;	/* the file is mapped up to here, privately; behind it
				 * memory is anonymous */
	uint64_t stale_end;	/* up to here the file may have bytes of nobody's */
	bool reopen;		/* pages may be open in the overlay */
	bool rescan;		/* all private pages may have been written */
	bool fresh_written;	/* pages behind committed_end may be in the file */
	struct fresh fresh;
	uint64_t nhome;		/* sum over all chunks */

	/* The record that is being made: words, of which the first are its head. */
	uint64_t *record;
	uint64_t nwords, cap_words;
	uint64_t captured_end;	/* heap_end in it */
	bool has_fresh;		/* the file must be synced before it is appended */

	struct chunk_heat *heat;
	uint64_t *hot;		/* a bit for each chunk: its pages are compared each
				 * time, not protected */
	uint64_t *armed;	/* the same: all its pages were protected */
	uint32_t *touched;	/* chunks with nchanged > 0 */
	uint32_t ntouched;
	uint32_t ncaptures;
	uint64_t sweep;		/* the chunk at which to go on giving up memory */
	bool swept;		/* some was, since it was at the first one */
	uint32_t sweep_from;	/* the capture from which on it goes on */
	uint64_t scan_ns;	/* what looking for written pages took the last time */
	uint64_t ncompared;	/* pages, in this capture */

	uint8_t *punch;		/* of each chunk; guarded by space_lock */
	uint64_t npunch[PUNCH_N];

	/* Bytes of memory: what it may take, and what it took at the last commit.  The
	 * log's bytes, then.  All atomic. */
	uint64_t private_max, private_len;
	uint64_t log_len, log_used_len;
};

/* --- capture.c ---------------------------------------------------------------- */

/* Put what changed since the last commit into a->record, and write new pages home.
 * Gate closed, locks held. */
int capture_take(struct fm_heap *h);
/* Whether the record says anything. */
static inline bool capture_is_empty(const struct atomic *a)
{
	return a->nwords == sizeof(struct fm_record_disk) / 8;
}
/* Bytes of the record. */
static inline uint64_t capture_len(const struct atomic *a)
{
	return a->nwords * 8;
}
/* It has been made durable, or is empty: the overlay is what it says. */
int capture_accept(struct fm_heap *h);
/* It has not: what it wrote in its place may not be there. */
void capture_fail(struct fm_heap *h);
/* Let memory be as of the last commit. */
int capture_undo(struct fm_heap *h);

/* --- reclaim.c ---------------------------------------------------------------- */

/* Captures without a store after which a chunk is cold. */
#define ATOMIC_NCOLD 64u

/* Give up some memory that is as in the file; right after a capture, gate closed. */
void reclaim_sweep(struct fm_heap *h);
/* Have the super in memory of this process; its bytes stay what they are. */
void reclaim_keep_super(struct fm_heap *h);
/* Memory of this process that the pool takes, in bytes. */
uint64_t reclaim_len(const struct fm_heap *h);
/* Whether it is known that nobody stores while the gate is closed: a store that another
 * thread makes just then would be lost.  Those in brackets are not being made. */
bool reclaim_may(const struct fm_heap *h);
/* Give up all of it; right after a checkpoint of all that memory has, gate closed since
 * the capture. */
void reclaim_all(struct fm_heap *h);

/* --- commit.c ----------------------------------------------------------------- */

/* Be the one who is busy, and no longer.  The second: false if that takes seconds. */
void commit_begin(struct atomic *a);
bool commit_try_begin(struct atomic *a);
void commit_end(struct atomic *a);
/* As the one who is busy: a whole commit; wait: for open brackets, else -EBUSY. */
int commit_make(struct fm_heap *h, bool wait);
/* Write all of the log home, and begin a new lap: -EBUSY: there are readers.  Then
 * what has been given back is punched. */
int commit_checkpoint(struct fm_heap *h);
/* The same, but for that; readers are barred. */
int commit_write_back(struct atomic *a, int fd);
/* The same to a file that may have records which are not known here. */
int commit_write_out(struct atomic *a, int fd);
/* What was given back is in another state now; space_lock is held. */
void commit_move_punches(struct fm_heap *h, int from, int to);

#endif
