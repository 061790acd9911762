/* SPDX-License-Identifier: Apache-2.0 */
/* Allocating and freeing extents of pages in normal zones. */
#include <config.h>

#include <errno.h>

#include "common/align.h"
#include "heap/error.h"
#include "heap/memtool.h"
#include "heap/zone.h"

#define NCANDIDATES 16u		/* extents looked at in one list, at first */
#define NLOADS 4		/* zones loaded before the pool grows instead */

/* --- allocating ------------------------------------------------------------------ */

/* Free pages that are known, or become so by loading a few zones; 0: none. */
static uint32_t find(struct fm_heap *h, uint32_t npages, uint32_t align)
{
	uint32_t page;
	int n;

	page = extent_take(h, npages, align, NCANDIDATES);
	for (n = 0; page == 0 && n < NLOADS && zone_load_next(h); n++)
		page = extent_take(h, npages, align, NCANDIDATES);
	return page;
}

/* When the disk is full it is worth looking everywhere. */
static uint32_t find_anywhere(struct fm_heap *h, uint32_t npages, uint32_t align)
{
	uint32_t page;

	do
		page = extent_take(h, npages, align, UINT32_MAX);
	while (page == 0 && zone_load_next(h));
	return page;
}

/* Both locks are held. */
static int find_or_grow(struct fm_heap *h, uint32_t npages, uint32_t align,
			uint32_t *page)
{
	int rc = 0;

	while ((*page = find(h, npages, align)) == 0) {
		rc = space_grow(h, npages, align);
		if (rc < 0) {
			*page = find_anywhere(h, npages, align);
			break;
		}
	}
	return *page != 0 ? 0 : rc;
}

/* Pages were taken off the lists; page_lock is held. */
static void note_peak(struct fm_heap *h)
{
	uint64_t nused = h->nbacked_pages - h->nfree_pages;

	if (nused > h->npeak_pages)
		__atomic_store_n(&h->npeak_pages, nused, __ATOMIC_RELAXED);
}

/* Allocate the pages, which are off the lists. */
static void enter(struct fm_heap *h, enum fm_extent_kind kind, unsigned cls,
		  uint32_t page, uint32_t npages, uint64_t *off)
{
	unsigned char *mem = h->base + ((uint64_t)page << FM_PAGE_SHIFT);
	struct zone *z = zone_of_page(h, page);

	memtool_ours(mem, npages * FM_PAGE_LEN);
	if (kind == FM_EXTENT_SLAB)
		slab_prepare(h, (uint64_t)page << FM_PAGE_SHIFT, cls);
	/* Where it lies in the pool it tells who dies now what to free. */
	__atomic_store_n(off, (uint64_t)page << FM_PAGE_SHIFT, __ATOMIC_RELEASE);
	__atomic_store_n(&z->table[page_in_zone(page)],
			 FM_EXTENT(kind, cls, npages), __ATOMIC_RELEASE);
}

/* Take pages off the lists; align in pages. */
static int take(struct fm_heap *h, uint32_t npages, uint32_t align, uint32_t *page)
{
	bool growing = false;
	int rc = 0;

	pthread_mutex_lock(&h->page_lock);
	*page = find(h, npages, align);
	if (*page == 0) {
		pthread_mutex_unlock(&h->page_lock);
		pthread_mutex_lock(&h->space_lock);
		pthread_mutex_lock(&h->page_lock);
		growing = true;
		rc = find_or_grow(h, npages, align, page);
	}
	note_peak(h);
	pthread_mutex_unlock(&h->page_lock);
	if (growing)
		pthread_mutex_unlock(&h->space_lock);
	return rc;
}

int pages_alloc(struct fm_heap *h, enum fm_extent_kind kind, unsigned cls,
		uint32_t npages, uint32_t align_npages, uint64_t *off)
{
	uint32_t page;
	int rc;

	rc = take(h, npages, align_npages, &page);
	if (rc == 0)
		enter(h, kind, cls, page, npages, off);
	return rc;
}

/* Both locks are held. */
static int take_fresh(struct fm_heap *h, uint32_t npages, uint32_t *page)
{
	uint32_t from, start;
	struct zone *z;
	int rc;

	rc = space_last_zone(h, npages, &z);
	if (rc < 0)
		return rc;
	from = z->nreserved;
	rc = space_extend(h, z, npages);
	if (rc < 0)
		return rc;
	/* They have become one with what was free before them. */
	start = z->nreserved - z->span[z->nreserved - 1];
	extent_cut(h, z, start, from, npages);
	*page = (z->index << PAGE_BITS) + from;
	return 0;
}

int pages_alloc_fresh(struct fm_heap *h, uint32_t npages, uint64_t *off)
{
	uint32_t page = 0;
	int rc;

	pthread_mutex_lock(&h->space_lock);
	pthread_mutex_lock(&h->page_lock);
	rc = take_fresh(h, npages, &page);
	note_peak(h);
	pthread_mutex_unlock(&h->page_lock);
	pthread_mutex_unlock(&h->space_lock);
	if (rc == 0)
		enter(h, FM_EXTENT_META, 0, page, npages, off);
	return rc;
}

/* --- stocks of pages for slabs ------------------------------------------------------ */

int pages_stock(struct fm_heap *h, uint32_t nslabs, bool grow, struct page_stock *stock)
{
	uint32_t page = 0;
	int rc = 0;

	pthread_mutex_lock(&h->page_lock);
	while (nslabs > 1 && (page = extent_take(h, nslabs * FM_SLAB_NPAGES,
						 FM_SLAB_NPAGES, NCANDIDATES)) == 0)
		nslabs /= 2;
	if (page == 0 && !grow) {
		page = find(h, FM_SLAB_NPAGES, FM_SLAB_NPAGES);
		rc = page == 0 ? -EAGAIN : 0;
	}
	note_peak(h);
	pthread_mutex_unlock(&h->page_lock);
	if (page == 0 && grow)
		rc = take(h, FM_SLAB_NPAGES, FM_SLAB_NPAGES, &page);
	if (rc == 0)
		*stock = (struct page_stock){ page, nslabs };
	return rc;
}

uint32_t pages_use_stock(struct fm_heap *h, unsigned cls, struct page_stock *stock)
{
	uint64_t off;

	enter(h, FM_EXTENT_SLAB, cls, stock->page, FM_SLAB_NPAGES, &off);
	stock->page += FM_SLAB_NPAGES;
	stock->nslabs--;
	return slab_number(off);
}

void pages_return_stock(struct fm_heap *h, struct page_stock *stock)
{
	if (stock->nslabs == 0)
		return;
	pthread_mutex_lock(&h->page_lock);
	extent_add(h, zone_of_page(h, stock->page), page_in_zone(stock->page),
		   stock->nslabs * FM_SLAB_NPAGES);
	pthread_mutex_unlock(&h->page_lock);
	stock->nslabs = 0;
}

bool pages_hold(uint64_t len, uint64_t align)
{
	return len <= FM_ZONE_LEN &&
	       align_up(FM_ZONE_DATA_OFF, align) + len <= FM_ZONE_LEN;
}

/* --- freeing and resizing ---------------------------------------------------------- */

/* The zone and page of the extent of a kind at off; page_lock is held. */
static int find_extent(struct fm_heap *h, enum fm_extent_kind kind, uint64_t off,
		       struct zone **z, uint32_t *p, uint32_t *npages)
{
	uint64_t index = off >> FM_ZONE_SHIFT;
	uint32_t entry;
	int rc;

	if (zone_kind(h, index) != FM_ZONE_NORMAL)
		return -EINVAL;
	rc = zone_load(h, index);
	if (rc < 0)
		return rc;
	entry = zone_entry(h, off);
	if (off % FM_PAGE_LEN != 0 || FM_EXTENT_KIND(entry) != (uint32_t)kind)
		return -EINVAL;
	*z = h->zones[index];
	*p = page_in_zone(off >> FM_PAGE_SHIFT);
	*npages = FM_EXTENT_NPAGES(entry);
	return 0;
}

int pages_free(struct fm_heap *h, enum fm_extent_kind kind, uint64_t off,
	       uint64_t *done)
{
	uint32_t p, npages;
	struct zone *z;
	int rc;

	pthread_mutex_lock(&h->page_lock);
	rc = find_extent(h, kind, off, &z, &p, &npages);
	if (rc == 0) {
		__atomic_store_n(&z->table[p], 0, __ATOMIC_RELEASE);
		if (done != NULL)
			__atomic_store_n(done, 0, __ATOMIC_RELEASE);
		extent_add(h, z, p, npages);
	}
	pthread_mutex_unlock(&h->page_lock);
	return rc;
}

void pages_drop(struct fm_heap *h, enum fm_extent_kind kind, uint64_t off)
{
	uint32_t entry = zone_entry(h, off);

	if (off % FM_PAGE_LEN == 0 && FM_EXTENT_KIND(entry) == (uint32_t)kind)
		__atomic_store_n(&zone_table(h, off >> FM_ZONE_SHIFT)
					 [page_in_zone(off >> FM_PAGE_SHIFT)],
				 0, __ATOMIC_RELEASE);
}

/* Take `more` free pages that follow the extent's end: 0, -EAGAIN (the zone must
 * grow by *lacking for that), or -ENOSPC. */
static int lengthen(struct fm_heap *h, struct zone *z, uint32_t end, uint32_t more,
		    uint32_t *lacking)
{
	uint32_t after;

	if (end + more > FM_ZONE_NPAGES)
		return -ENOSPC;
	after = end < z->nreserved ? z->span[end] : 0;
	if (after >= more) {
		extent_cut(h, z, end, end, more);
		return 0;
	}
	if (end + after != z->nreserved || z->nreserved == FM_ZONE_NPAGES)
		return -ENOSPC;
	*lacking = more - after;
	return -EAGAIN;
}

/* page_lock is held. */
static int resize(struct fm_heap *h, uint64_t off, uint32_t want, struct zone **z,
		  uint32_t *lacking)
{
	uint32_t p, npages;
	int rc;

	rc = find_extent(h, FM_EXTENT_RUN, off, z, &p, &npages);
	if (rc == 0 && want > npages)
		rc = lengthen(h, *z, p + npages, want - npages, lacking);
	if (rc < 0 || want == npages)
		return rc;
	__atomic_store_n(&(*z)->table[p], FM_EXTENT(FM_EXTENT_RUN, 0, want),
			 __ATOMIC_RELEASE);
	if (want < npages)
		extent_add(h, *z, p + want, npages - want);
	return 0;
}

int pages_resize(struct fm_heap *h, uint64_t off, uint32_t want)
{
	uint32_t lacking = 0;
	struct zone *z;
	int rc;

	pthread_mutex_lock(&h->page_lock);
	rc = resize(h, off, want, &z, &lacking);
	pthread_mutex_unlock(&h->page_lock);
	if (rc != -EAGAIN)
		return rc;
	/* Once more, with the lock that growing needs. */
	pthread_mutex_lock(&h->space_lock);
	pthread_mutex_lock(&h->page_lock);
	rc = resize(h, off, want, &z, &lacking);
	if (rc == -EAGAIN) {
		rc = space_extend(h, z, lacking);
		if (rc == 0)
			rc = resize(h, off, want, &z, &lacking);
		if (rc == -EAGAIN)	/* others took what was there */
			rc = -ENOSPC;
	}
	pthread_mutex_unlock(&h->page_lock);
	pthread_mutex_unlock(&h->space_lock);
	return rc;
}
