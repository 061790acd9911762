/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Free extents of pages: lists by length (the bins of Kingsley's and Lea's
 * allocators; within a bin the shortest that has room), with boundary tags for
 * coalescing.  All of it is in memory only.
 */
#include <config.h>

#include "common/align.h"
#include "common/bits.h"
#include "heap/zone.h"

#define NPAGES_EXACT 32u	/* lists up to here have one length each */

static unsigned bin_of(uint32_t npages)
{
	unsigned exp;

	if (npages <= NPAGES_EXACT)
		return npages - 1;
	exp = 31 - __builtin_clz(npages);
	return NPAGES_EXACT + (exp - 5) * 4 + (npages >> (exp - 2) & 3);
}

static uint32_t span_of(const struct fm_heap *h, uint32_t page)
{
	return zone_of_page(h, page)->span[page_in_zone(page)];
}

/* Whole chunks among pages of a zone. */
static uint32_t nchunks_in(uint32_t p, uint32_t npages)
{
	uint32_t first = (p + FM_CHUNK_NPAGES - 1) / FM_CHUNK_NPAGES;
	uint32_t end = (p + npages) / FM_CHUNK_NPAGES;

	return end > first ? end - first : 0;
}

static void count(uint64_t *counter, int64_t more)
{
	/* Atomic for space_wants_trim(), which looks at any time. */
	__atomic_store_n(counter, *counter + more, __ATOMIC_RELAXED);
}

static void count_free(struct fm_heap *h, struct zone *z, uint32_t p, uint32_t npages,
		       int sign)
{
	z->nfree += sign * (int64_t)npages;
	count(&h->nfree_pages, sign * (int64_t)npages);
	count(&h->nfree_chunks, sign * (int64_t)nchunks_in(p, npages));
}

static void list_add(struct fm_heap *h, uint32_t page, uint32_t npages)
{
	struct zone *z = zone_of_page(h, page);
	uint32_t p = page_in_zone(page), next;
	unsigned bin = bin_of(npages);

	z->span[p] = npages;
	z->span[p + npages - 1] = npages;
	next = h->bins[bin];
	z->next[p] = next;
	z->prev[p] = 0;
	if (next != 0)
		zone_of_page(h, next)->prev[page_in_zone(next)] = page;
	h->bins[bin] = page;
	bits_set(h->bins_used, bin);
	count_free(h, z, p, npages, 1);
}

uint32_t extent_remove(struct fm_heap *h, uint32_t page)
{
	struct zone *z = zone_of_page(h, page);
	uint32_t p = page_in_zone(page), npages = z->span[p];
	uint32_t next = z->next[p], prev = z->prev[p];
	unsigned bin = bin_of(npages);

	if (next != 0)
		zone_of_page(h, next)->prev[page_in_zone(next)] = prev;
	if (prev != 0)
		zone_of_page(h, prev)->next[page_in_zone(prev)] = next;
	else
		h->bins[bin] = next;
	if (h->bins[bin] == 0)
		bits_clear(h->bins_used, bin);
	z->span[p] = 0;
	z->span[p + npages - 1] = 0;
	count_free(h, z, p, npages, -1);
	return npages;
}

void extent_add(struct fm_heap *h, struct zone *z, uint32_t p, uint32_t npages)
{
	uint32_t first = z->index << PAGE_BITS, before;

	if (p > FM_ZONE_HEAD_NPAGES && z->span[p - 1] != 0) {
		before = extent_remove(h, first + p - z->span[p - 1]);
		p -= before;
		npages += before;
	}
	if (p + npages < z->nreserved && z->span[p + npages] != 0)
		npages += extent_remove(h, first + p + npages);
	list_add(h, first + p, npages);
}

/* Where in the free extent an aligned run of npages would start; 0: nowhere. */
static uint32_t place(const struct fm_heap *h, uint32_t page, uint32_t npages,
		      uint32_t align)
{
	uint32_t start = align_up(page, align);

	return start + npages <= page + span_of(h, page) ? start : 0;
}

/* The shortest of the first `most` extents of a list that has room; 0: none. */
static uint32_t search_bin(const struct fm_heap *h, unsigned bin, uint32_t npages,
			   uint32_t align, uint32_t most)
{
	uint32_t page, best = 0, n = 0;

	for (page = h->bins[bin]; page != 0 && n < most;
	     page = zone_of_page(h, page)->next[page_in_zone(page)], n++)
		if (place(h, page, npages, align) != 0 &&
		    (best == 0 || span_of(h, page) < span_of(h, best)))
			best = page;
	return best;
}

/* The free extent at `page` is taken but for what lies before `start` and from
 * `end` on. */
static void keep_rest(struct fm_heap *h, uint32_t page, uint32_t start, uint32_t end)
{
	uint32_t len = extent_remove(h, page);

	if (start > page)
		list_add(h, page, start - page);
	if (end < page + len)
		list_add(h, end, page + len - end);
}

uint32_t extent_take(struct fm_heap *h, uint32_t npages, uint32_t align,
		     uint32_t most)
{
	uint32_t page = 0, start;
	unsigned bin;

	for (bin = bin_of(npages); page == 0 && bin < NBINS; bin++)
		if (bits_has(h->bins_used, bin))
			page = search_bin(h, bin, npages, align, most);
	if (page == 0)
		return 0;
	start = place(h, page, npages, align);
	keep_rest(h, page, start, start + npages);
	return start;
}

void extent_cut(struct fm_heap *h, struct zone *z, uint32_t extent, uint32_t p,
		uint32_t npages)
{
	uint32_t first = z->index << PAGE_BITS;

	keep_rest(h, first + extent, first + p, first + p + npages);
}
