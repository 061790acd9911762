/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log in the file of an atomic pool: its extents, laps and records, by pread(2) and
 * pwrite(2).  What is in the file is not trusted.  Knows no mapping and no heap, and
 * syncs only where it says so.
 */
#ifndef FM_HEAP_LOG_H
#define FM_HEAP_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "heap/layout.h"

struct overlay;

struct log_extent {
	uint64_t off;
	uint32_t npages;	/* with the head */
};

struct log {
	struct log_extent *extent;	/* FM_LOG_NEXTENTS_MAX, sparse memory */
	uint32_t nextents;
	uint64_t len;		/* bytes for records */
	uint64_t end;		/* bytes of valid records */
	uint64_t max_len;	/* more are not replayed: -EFBIG; 0: as many as there are */
	uint64_t last_pos;	/* of the last of them, if there is one; and its checksum */
	uint32_t last_crc;
	uint64_t free_off;
	uint64_t lap, salt;
	uint64_t seq;		/* of the next record */
	uint32_t slot;		/* where the lap is, of the two */
	bool stray;		/* the last extent's next_off leads to none */
	bool unrevoked;		/* a record that was not accepted may be valid */
	bool lapsing;		/* the next lap may be on disk: no record of this one
				 * would count */
};

/* Whether the page at off is the log's. */
static inline bool log_has_page(const struct log *log, uint64_t off)
{
	const struct log_extent *e = log->extent, *end = e + log->nextents;

	while (e < end && off - e->off >= (uint64_t)e->npages << FM_PAGE_SHIFT)
		e++;
	return e < end;
}

/* Wait until all that was written to the file is on the disk. */
int log_sync(int fd);

/* Read the chain and the lap.  file_len: bytes of the file. */
int log_open(struct log *log, int fd, uint64_t log_off, uint64_t file_len);
void log_close(struct log *log);
/* Store the valid records, from log->end on, into the overlay: how many, or -errno. */
int log_replay(struct log *log, int fd, uint64_t file_len, struct overlay *o);

/* Complete a record whose runs are there, nwords of them behind the head. */
void log_seal(const struct log *log, struct fm_record_disk *record, uint64_t nwords);
/* Whether the last valid record is still there: 1, 0 (its commit failed after it was
 * read), or -errno. */
int log_has_last(const struct log *log, int fd);
/* Write it behind the valid ones; if it does not fit, -ENOSPC.  When it is durable,
 * log_accept(). */
int log_append(struct log *log, int fd, const struct fm_record_disk *record);
void log_accept(struct log *log, const struct fm_record_disk *record);
/* What was appended is void after all.  If that cannot be written it may be valid in
 * the file until this is called again, or something else is appended. */
void log_revoke(struct log *log, int fd);
/* Begin a new lap: durable on return.  All records are in the file.  If that fails it
 * must be tried again before anything is appended: log_ready(). */
int log_next_lap(struct log *log, int fd);
int log_ready(struct log *log, int fd);

/* A log in one extent, whose space is there: durable on return. */
int log_make(int fd, uint64_t off, uint32_t npages);
/* Add an extent, whose space is there: durable on return. */
int log_grow(struct log *log, int fd, uint64_t off, uint32_t npages);
/* Let the chain end with nextents extents.  Not durable.  The second: only as it is
 * known here. */
int log_cut(struct log *log, int fd, uint32_t nextents);
void log_forget(struct log *log, uint32_t nextents);
/* Write the heads of its extents, as they are known here, to a copy of the file.  Not
 * durable. */
int log_write_heads(const struct log *log, int fd);
/* The log, which has no valid records, is its first extent only from now on, also if
 * this fails.  The others are for the caller to free if not, and then log_freed().
 * Durable on return. */
int log_shrink(struct log *log, int fd);
int log_freed(struct log *log, int fd);

/* The head of the extent at off, sound: 0, or -EUCLEAN with words. */
int log_read_head(int fd, uint64_t off, uint64_t file_len, struct fm_log_disk *head);

#endif
