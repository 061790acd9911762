/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Zones in memory, for the files that keep them: zone.c (which zones there are),
 * extent.c (which pages are free), pages.c, huge.c (allocating), space.c (the
 * space of the file).
 *
 * The zone directory, the headers and the page tables in the file are the truth:
 * an extent is allocated by storing its entry and freed by storing 0.  What is
 * free is worked out from them, a zone at a time, when the zone is first needed.
 */
#ifndef FM_HEAP_ZONE_H
#define FM_HEAP_ZONE_H

#include "heap/heap.h"

#define PAGE_BITS (FM_ZONE_SHIFT - FM_PAGE_SHIFT)	/* of a page in its zone */

/*
 * A normal zone, made when the zone is first needed.  An extent is known by the
 * number of its first page, counted from the start of the pool.  `span` is the
 * boundary tag (Knuth): a free extent's length in pages at its first and its
 * last page, 0 at pages in use, without space, or beyond nreserved.  Guarded by
 * page_lock.
 */
struct zone {
	uint32_t index;
	uint32_t nreserved;	/* as in the header */
	uint32_t holes;		/* as in the header */
	uint32_t nfree;		/* pages in free extents */
	uint32_t *table;	/* in the pool */
	struct fm_zone_disk *disk; /* in the pool */
	struct zone *next_growable;
	uint16_t span[FM_ZONE_NPAGES];
	uint32_t next[FM_ZONE_NPAGES], prev[FM_ZONE_NPAGES];
};

_Static_assert(FM_ZONE_NPAGES <= UINT16_MAX, "spans fit uint16_t");

static inline struct zone *zone_of_page(const struct fm_heap *h, uint32_t page)
{
	return h->zones[page >> PAGE_BITS];
}

static inline uint32_t page_in_zone(uint32_t page)
{
	return page & (FM_ZONE_NPAGES - 1);
}

/* --- extent.c: free extents of all loaded zones; page_lock is held --------- */

/* Enter pages of the zone as free, together with free neighbours. */
void extent_add(struct fm_heap *h, struct zone *z, uint32_t p, uint32_t npages);
/* Take the free extent that starts at `page` off the lists: its length. */
uint32_t extent_remove(struct fm_heap *h, uint32_t page);
/* Take an aligned run of npages off the lists, from the shortest extent that
 * has room, looking at no more than `most` extents of each list: its first page,
 * or 0. */
uint32_t extent_take(struct fm_heap *h, uint32_t npages, uint32_t align,
		     uint32_t most);
/* Take npages pages of the zone from p on, which lie in the free extent that
 * starts at page `extent` of it. */
void extent_cut(struct fm_heap *h, struct zone *z, uint32_t extent, uint32_t p,
		uint32_t npages);

/* The zone has so many pages with space more, or less. */
static inline void count_backed(struct fm_heap *h, int64_t more)
{
	__atomic_store_n(&h->nbacked_pages, h->nbacked_pages + more, __ATOMIC_RELAXED);
}

/* Pages of the zone with space, but for its head. */
static inline uint32_t zone_nbacked(const struct zone *z)
{
	return z->nreserved - FM_ZONE_HEAD_NPAGES -
	       __builtin_popcount(z->holes) * FM_CHUNK_NPAGES;
}

/* --- zone.c ------------------------------------------------------------------ */

enum fm_zone_kind zone_kind(const struct fm_heap *h, uint32_t index);
void zone_set_kind(struct fm_heap *h, uint32_t index, enum fm_zone_kind kind);
struct fm_zone_disk *zone_header(const struct fm_heap *h, uint32_t index);
uint32_t *zone_table(const struct fm_heap *h, uint32_t index);
/* Pages from the zone's start that may hold extents; 0 if its header is bad. */
uint32_t zone_nreserved(const struct fm_heap *h, uint32_t index);
/* Its chunks that are holes, by bits: see judge_holes().  The table is read only if
 * there are any. */
uint32_t zone_holes(const struct fm_heap *h, uint32_t index);
/* How many zones the huge block of this zone covers; 0 if its header is bad. */
uint32_t zone_huge_span(const struct fm_heap *h, uint32_t index);
void zone_write_header(struct fm_heap *h, uint32_t index, struct fm_zone_disk disk);
void zone_raise_end(struct fm_heap *h, uint64_t end);
/* With space_lock held: the first of n successive unused zones; and whether a
 * zone is one of fm_heap.spare. */
int zone_find_unused(struct fm_heap *h, uint32_t n, uint32_t *index);
bool zone_is_spare(const struct fm_heap *h, uint32_t index);
void zone_set_spare(struct fm_heap *h, uint32_t index, bool spare);

/* The rest with page_lock held: a struct for the zone, without extents; its
 * end; load the zone, if it is not; load the next of those not yet looked at,
 * from the pool's end down, where a growing pool has its space: 0 if none is
 * left. */
struct zone *zone_new(struct fm_heap *h, uint32_t index, uint32_t nreserved);
void zone_forget(struct fm_heap *h, struct zone *z);
int zone_load(struct fm_heap *h, uint32_t index);
int zone_load_next(struct fm_heap *h);
/* The zone has no unreserved pages any more. */
void zone_forget_growable(struct fm_heap *h, struct zone *z);
/* Pages to the next entry or gap: of the extent, or 1 where none starts. */
uint32_t zone_npages_at(const struct zone *z, uint32_t p);

/* --- space.c ------------------------------------------------------------------ */

/* Get space for an extent that extent_take() does not find.  Both locks are held;
 * page_lock is given up meanwhile.  0, then try again; or -errno. */
int space_grow(struct fm_heap *h, uint32_t npages, uint32_t align);
/* The same for `more` pages at the end of the zone. */
int space_extend(struct fm_heap *h, struct zone *z, uint32_t more);
/* The last zone, with room for npages pages behind the heap's end.  Both locks are held,
 * as above. */
int space_last_zone(struct fm_heap *h, uint32_t npages, struct zone **z);
/* Get space for [off, off + len); space_lock is held. */
int space_add(struct fm_heap *h, uint64_t off, uint64_t len);

#endif
