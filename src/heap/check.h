/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking a pool, for the files that do it: check.c (the super, findings, repair),
 * checklog.c (the log of an atomic pool), checkmeta.c (what the heap keeps for itself,
 * and roots), checkmend.c (what leads to
 * that), checkzone.c (zones, and the figures of fm_stat()), checktable.c and
 * checkslab.c (what is in zones).
 *
 * Everything is read into memory of our own before it is judged.  First the pages
 * that the heap keeps for itself are found by the chains that lead to them
 * ("claims"), and what should be a block ("refs"); then the zones are walked once, in
 * the order of the file, and compared with both.
 */
#ifndef FM_HEAP_CHECK_H
#define FM_HEAP_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <fmalloc.h>

#include "heap/layout.h"

/* An extent of the heap's own that something leads to. */
struct check_claim {
	uint64_t off;
	uint32_t npages;	/* 0: any number; it need not be there (pending) */
	const char *what;
};

#define CHECK_NO_CLASS (-1)

/* The offset of what should be a block. */
struct check_ref {
	uint64_t off;
	uint64_t from_off;	/* of the slot that has it */
	uint64_t size;		/* of a root: as in its slot */
	int cls;		/* of a magazine; CHECK_NO_CLASS: of a root */
};

/* A used slot of roots. */
struct check_root {
	uint64_t slot_off;
	uint64_t seq;
	bool bad;		/* not sound */
	char name[FM_ROOT_NAME_LEN];
};

/* A note of what opening the pool for writing settles. */
struct check_later {
	uint64_t off;
	const char *structure;
	char what[160];
};

/* A growing array. */
struct check_list {
	void *item;
	size_t n, cap;
};

/* A normal zone, as read. */
struct check_zone {
	uint32_t index;
	struct fm_zone_disk head;
	uint32_t npages;	/* that may hold extents */
	uint32_t table[FM_ZONE_NPAGES];
	uint64_t bitmap[FM_ZONE_NSLABS][FM_BITMAP_LEN / sizeof(uint64_t)];
};

struct check {
	/* Copy len bytes at off, multiples of 8: 0 or -errno, -EUCLEAN beyond the
	 * end. */
	int (*read)(void *src, uint64_t off, void *buf, size_t len);
	void *src;
	int fd;			/* to write repairs to; -1: none are made */
	uint64_t file_len;

	int (*fn)(const struct fm_finding *finding, void *arg);
	void *arg;
	int result;		/* what fn returned last */
	int error;		/* -errno: it cannot go on, with words */
	bool stopped;		/* either of these */
	uint64_t nleft;		/* damage that is left */
	char first[320];	/* in words, the first of it */
	bool changed;		/* something was repaired */
	bool mending;		/* what is left is not told: another pass may repair
				 * it, or tells of it */
	bool untold;		/* something was not */

	struct fm_super_disk super;
	uint64_t heap_end;	/* as in the super, or what it must be */
	bool tiny;		/* slabs of class 0 have second bitmaps */
	bool all_claimed;	/* no chain is broken: an extent of the heap's own that
				 * is not claimed is lost */
	uint16_t *dir;		/* FM_MAX_NZONES */
	struct check_zone *zone;
	struct check_list claims, refs, roots, later;
	size_t next_claim, next_ref;	/* the walk of zones has come by those before */
	struct fm_stats stats;
};

/* --- check.c ----------------------------------------------------------------- */

/* Before and after. */
int check_begin(struct check *c);
void check_end(struct check *c);
/* Walk the roots, the heap's own pages and the zones, once super and heap_end are
 * set. */
void check_run(struct check *c);

/* The check is over: -errno, with words. */
void check_fail(struct check *c, int rc);
/* False: it could not be read, and the check is over. */
bool check_read(struct check *c, uint64_t off, void *buf, size_t len);
/* Whether the bytes are in the file now; false if no repairs are made. */
bool check_fix(struct check *c, uint64_t off, const void *buf, size_t len);
bool check_fix32(struct check *c, uint64_t off, uint32_t value);
bool check_fix64(struct check *c, uint64_t off, uint64_t value);
/* Report; `fixed` as check_fix() said. */
void check_damage(struct check *c, bool fixed, uint64_t off, const char *structure,
		  const char *fmt, ...) __attribute__((format(printf, 5, 6)));
void check_note(struct check *c, bool fixed, uint64_t off, const char *structure,
		const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* The same of what the next writer settles. */
void check_later(struct check *c, uint64_t off, const char *structure,
		 const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* Room for another item of len bytes, zeroed; NULL: no memory, and the check is
 * over. */
void *check_add(struct check *c, struct check_list *list, size_t len);

/* --- checklog.c ------------------------------------------------------------- */

void checklog_run(struct check *c);

/* --- checkmeta.c ------------------------------------------------------------- */

/* Something leads to an extent of the heap's own: as of struct check_claim. */
void check_claim(struct check *c, uint64_t off, uint32_t npages, const char *what);

/* Lanes, intents, roots and pending pages: claims and refs, in order. */
void checkmeta_run(struct check *c);
/* Whether the heap's own extent at off, which nothing claims, may be freed. */
bool checkmeta_is_lost(struct check *c, uint64_t off);

/* --- checkmend.c ------------------------------------------------------------- */

/* The first words of a page of the heap's own at off: what they must be. */
struct check_head {
	uint64_t off;
	uint64_t word[4];
	unsigned which[3];	/* those that have one value only */
	unsigned n;		/* how many those are */
};

struct check_head checkmend_self_head(uint32_t magic, uint64_t off); /* lane, intents */
struct check_head checkmend_root_head(uint64_t off);
/* How many of the words are right in the file. */
unsigned checkmend_nright(struct check *c, const struct check_head *head);
/* Make the head right of a page that something leads to, and that is one by its head
 * or by its entry in the page table: whether it is right now. */
bool checkmend_linked(struct check *c, const struct check_head *head, uint32_t entry,
		      const char *structure);
/* Whether the application region has named roots, but not the magic number of them. */
bool checkmend_lost_magic(struct check *c);
/* Whether there may be a page of this length at off. */
bool checkmend_may_be_page(const struct check *c, uint64_t off, uint32_t npages);
/* Make right what leads to the pages, before it is followed. */
void checkmend_intents(struct check *c);
void checkmend_roots(struct check *c);

/* --- checkslab.c ------------------------------------------------------------- */

/* The refs before `end`, which the walk of zones has come by, are in no extent but in
 * `where`; NULL: nobody can know. */
void checkslab_pass(struct check *c, uint64_t end, const char *where);
/* Those into the block at [off, off + len), of a run or a huge one. */
void checkslab_block(struct check *c, uint64_t off, uint64_t len);
/* The slab whose first page in the zone is p; with the refs into it. */
void checkslab_run(struct check *c, struct check_zone *z, uint32_t p);

/* --- checktable.c ------------------------------------------------------------ */

/* The next page with an entry, from p on, before `end`; else `end`. */
static inline uint32_t checktable_next(const struct check_zone *z, uint32_t p,
				       uint32_t end)
{
	while (p < end && z->table[p] == 0)
		p++;
	return p;
}

/* The entries of pages that are the zone's own. */
void checktable_head(struct check *c, struct check_zone *z);
/* Where the extents end that are sound if the zone has up to `limit` pages. */
uint32_t checktable_find_end(const struct check_zone *z, uint32_t limit);
/* The rest, and the holes; after that the table in memory is sound. */
void checktable_run(struct check *c, struct check_zone *z);

/* --- checkzone.c ------------------------------------------------------------- */

static inline uint64_t checkzone_base(uint32_t index)
{
	return index * FM_ZONE_LEN;
}

/* Offsets of the zone's header, and of the entry of its page p. */
static inline uint64_t checkzone_header(uint32_t index)
{
	return index == 0 ? FM_ZONE0_HEADER_OFF : checkzone_base(index);
}

static inline uint64_t checkzone_entry_off(uint32_t index, uint32_t p)
{
	return checkzone_base(index) + FM_ZONE_TABLE_OFF + p * sizeof(uint32_t);
}

/* Pages that the zone can have before the heap ends. */
static inline uint32_t checkzone_limit(const struct check *c, uint32_t index)
{
	uint64_t n = (c->heap_end - checkzone_base(index)) >> FM_PAGE_SHIFT;

	return n < FM_ZONE_NPAGES ? n : FM_ZONE_NPAGES;
}

void checkzone_run(struct check *c);
/* The first claim, of those not passed, that is not before off. */
const struct check_claim *checkzone_claim(struct check *c, uint64_t off);
/* Where the zones that the directory names end, going by their headers; 0: one of
 * them is not sound.  Reads the directory. */
uint64_t checkzone_find_end(struct check *c);
/* The entry of the page at off; 0 if there is none. */
uint32_t checkzone_entry(struct check *c, uint64_t off);
/* Call fn for each extent of the heap's own that has so many pages. */
void checkzone_each_meta(struct check *c, uint32_t npages,
			 void (*fn)(struct check *c, uint64_t off, void *arg),
			 void *arg);

#endif
