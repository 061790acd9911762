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

enum op_kind {
	OP_WRITE,
	OP_LENGTH,	/* the file has `len` bytes */
	OP_ZERO,	/* a hole, or zeroes: [off, off + len) */
	OP_SYNC,
	OP_LOST,	/* a sync that was left out */
	OP_BEGIN,	/* the program asks for commit number `off` ... */
	OP_ACK		/* ... and has been told that it is made */
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

/* Syncs that are left out: bugs of the library, planted. */
enum plant {
	PLANT_NONE,
	PLANT_NO_SYNC_OF_RECORDS,
	PLANT_NO_SYNC_OF_HOME,		/* of a checkpoint */
	PLANT_NO_SYNC_OF_LAPS,
	PLANT_NO_SYNC_OF_GROWTH,	/* of new pages */
	PLANT_NO_CHECKSUMS
};

extern enum plant planted;
extern bool recorder_no_checksums;

/* Of the file with this inode; `to` is empty. */
void recorder_start(uint64_t ino, struct recording *to);
void recorder_stop(void);
/* What the program knows. */
void recorder_note(enum op_kind kind, uint64_t number);
void recording_free(struct recording *r);

#endif
