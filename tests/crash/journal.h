/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a program that is going to be killed knows of its blocks, in memory that
 * outlives it, and the judge who compares a pool with that.
 *
 * A slot of the journal is one block, or none.  Its state is stored before a call
 * of the library and after it, so that at any instruction the journal says what is
 * certain: the block of a slot that is OWN is there, with its contents; of one that
 * is EMPTY there is none; else a call was under way.
 */
#ifndef FM_TESTS_JOURNAL_H
#define FM_TESTS_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <fmalloc.h>

#define NPLAIN 400	/* slots for fmalloc(), frealloc(), ffree() */
#define NINTO 100	/* for fmalloc_into() and its kin: pointers of the anchor */
#define NOBJECTS 40	/* for fm_root_alloc(): an object that is a root */
#define NNAMES 20	/* for fm_root_set(): a root, and no block */
#define NSLOTS (NPLAIN + NINTO + NOBJECTS + NNAMES)

enum slot_state { EMPTY, OWN, ALLOCATING, RESIZING, FREEING };
enum slot_kind { PLAIN, INTO, OBJECT, NAME };

struct slot {
	uint64_t state;		/* enum slot_state */
	uint64_t off;		/* NAME: what the root is set to */
	uint64_t size;		/* that was asked for */
	uint64_t seed;		/* of the contents; 0: they are not ours */
	uint64_t next_off;	/* NAME: what it is being set to */
};

struct journal {
	uint64_t anchor_off;	/* of the INTO slots' pointers; 0: none */
	uint64_t ncalls;
	uint64_t ready;
	struct slot slot[NSLOTS];
};

/* Memory for a journal that a child shares. */
struct journal *journal_new(void);
enum slot_kind journal_kind(int i);

/* Make the anchor if there is none. */
bool journal_anchor(struct journal *j, struct fm_info *fi);

/* The calls: true, or false if the library failed, with the slot unchanged. */
bool slot_alloc(struct journal *j, struct fm_info *fi, int i, size_t size, size_t align);
bool slot_resize(struct journal *j, struct fm_info *fi, int i, size_t size);
bool slot_free(struct journal *j, struct fm_info *fi, int i);

/* Called around the filling of blocks, which is the program's affair. */
extern void (*journal_filling)(bool begins);

enum {
	JUDGE_CLOSE = 1,	/* close the pool, else leave it as a kill would */
	JUDGE_HAND_OUT = 2,	/* have all free space handed out */
	JUDGE_ZONE = 4,		/* ... and a new zone made */
	JUDGE_CREATE = 8	/* there may be no pool yet */
};

/*
 * Open the pool and compare: 0, or -1 with why.  The slots are brought to what was
 * found, and what leaked is freed, so that a program can go on.
 */
int judge(const char *path, struct journal *j, unsigned flags, char why[300]);

#endif
