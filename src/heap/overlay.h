/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The overlay of a pool with a log: what pages of it are as of the last commit, where
 * the file may not say so yet.  Pages that it does not have are as in the file.
 *
 * Made from a log by replaying it, by whoever opens or inspects the pool; a writer
 * goes on to keep it as commits are made.  Knows no mapping and no heap.  Of its own it
 * has no lock.
 */
#ifndef FM_HEAP_OVERLAY_H
#define FM_HEAP_OVERLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "heap/layout.h"

/* The pages of a chunk. */
struct overlay_chunk {
	unsigned char *page[FM_CHUNK_NPAGES];	/* NULL: as in the file */
	uint64_t logged[FM_CHUNK_NPAGES / 64];	/* it differs, or may, from the file */
	uint64_t open[FM_CHUNK_NPAGES / 64];	/* memory differs from it: in a record
						 * that is not durable yet */
	uint32_t npages;
	uint32_t nlogged;
};

struct overlay {
	struct overlay_chunk **chunk;	/* NULL: no pages of it */
	uint64_t nchunks;		/* so many there may be */
	uint64_t end;			/* those with pages are before this one */
	uint64_t *used;			/* a bit each: has pages */
	uint64_t npages;
	uint64_t nlogged;
	uint64_t max_npages;		/* -EFBIG if there would be more; 0: no limit */
	uint64_t *only;			/* a bit each: pages that are kept, others pass
					 * by; NULL: all */
	void *free_pages;		/* a list */
	void *blocks;			/* a list, of what the pages are in */
};

/* Of a pool that has up to len bytes. */
int overlay_open(struct overlay *o, uint64_t len);
void overlay_close(struct overlay *o);
/* Forget all pages. */
void overlay_clear(struct overlay *o);

static inline struct overlay_chunk *overlay_chunk(const struct overlay *o,
						  uint64_t page)
{
	return o->chunk[page / FM_CHUNK_NPAGES];
}

/* The page, or NULL; pages are counted from the start of the file. */
static inline unsigned char *overlay_find(const struct overlay *o, uint64_t page)
{
	const struct overlay_chunk *c = overlay_chunk(o, page);

	return c == NULL ? NULL : c->page[page % FM_CHUNK_NPAGES];
}

/* The page, taken from the file if need be: 0, -ENOMEM, or -errno of pread(2). */
int overlay_get(struct overlay *o, int fd, uint64_t page, unsigned char **bytes);
void overlay_drop(struct overlay *o, uint64_t page);
void overlay_set_logged(struct overlay *o, uint64_t page);
void overlay_set_open(struct overlay *o, uint64_t page);
/* All pages are as in the file now. */
void overlay_set_written(struct overlay *o);
/* The first chunk, from this one on, with pages; nchunks: none. */
uint64_t overlay_next_chunk(const struct overlay *o, uint64_t chunk);
/* Call fn for all pages that are logged, or open, in the order of the file, until it
 * returns something other than 0; returns that, or 0.  fn adds and drops no pages. */
enum overlay_kind { OVERLAY_LOGGED, OVERLAY_OPEN };
typedef int overlay_fn(void *arg, uint64_t off, const unsigned char *page);
int overlay_each(const struct overlay *o, enum overlay_kind kind, overlay_fn *fn,
		 void *arg);
/* Store words at off, which are within the pool. */
int overlay_store(struct overlay *o, int fd, uint64_t off, const uint64_t *words,
		  uint64_t nwords);
/* Store the runs of a record.  They are within the pool. */
int overlay_apply(struct overlay *o, int fd, const uint64_t *runs, uint64_t nwords);

/* Copy len bytes at off, as of the last commit: 0, -EUCLEAN (the file ends before), or
 * -errno. */
int overlay_read(const struct overlay *o, int fd, uint64_t off, void *buf,
		 uint64_t len);

#endif
