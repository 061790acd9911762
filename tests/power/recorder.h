/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done to one file, in order: every write, change of its length or space, and
 * sync.  The calls are wrapped by the linker; syncs are written down and not made.
 */
#ifndef FM_TESTS_RECORDER_H
#define FM_TESTS_RECORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "power/image.h"

enum op_kind {
	OP_WRITE,
	OP_LENGTH,	/* the file has `len` bytes */
	OP_ZERO,	/* a hole, or zeroes: [off, off + len) */
	OP_SYNC,
	OP_LOST,	/* a sync that was left out */
	OP_BEGIN,	/* the program asks for commit number `off` ... */
	OP_ACK,		/* ... and has been told that it is made */
	OP_ROLLBACK	/* the program asks for one */
};

struct op {
	enum op_kind kind;
	uint64_t off, len;
	unsigned char *data;
};

struct recording {
	struct op *op;
	size_t n, cap;
};

/* How often the things happened that a recording should have. */
enum thing {
	THING_COMMIT,
	THING_CHECKPOINT,
	THING_ROLLBACK,
	THING_GROWTH,		/* of the file */
	THING_CUT,		/* of the file */
	THING_HOLE,
	THING_LOG_GROWTH,
	THING_LOG_SHRINKING,
	NTHINGS
};

/* Bugs of the library, planted: syncs that are left out, and then others. */
enum plant {
	PLANT_NONE,
	PLANT_NO_SYNC_OF_RECORDS,
	PLANT_NO_SYNC_OF_HOME,		/* of a checkpoint */
	PLANT_NO_SYNC_OF_LAPS,
	PLANT_NO_SYNC_OF_GROWTH,	/* of new pages */
	PLANT_NO_CHECKSUMS,
	PLANT_NOBODYS			/* what a commit has allocated counts as free */
};

extern enum plant planted;
extern bool recorder_no_checksums;

/* Of the file with this inode; `to` is empty.  im: the file is that image's, which gets
 * a way back; may be NULL. */
void recorder_start(uint64_t ino, struct recording *to, struct image *im);
void recorder_stop(void);
/* What the program knows. */
void recorder_note(enum op_kind kind, uint64_t number);
void recording_free(struct recording *r);
/* len: of the file when it began. */
void recording_count(const struct recording *r, uint64_t len, unsigned n[NTHINGS]);

#endif
