/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Zones and the extents of pages in them: slabs, large blocks ("runs"), the
 * heap's own pages, and blocks longer than a zone ("huge").
 *
 * The page tables in the file are the truth: an extent is allocated by storing
 * its entry and freed by storing 0.  What is free is worked out from them, a
 * zone at a time, when the zone is first needed, and kept in memory as lists
 * of free extents by length (good fit: the lists of Kingsley's and Lea's
 * allocators) with boundary tags (Knuth) for coalescing.
 *
 * Space is reserved in the file before an extent can lie there: a zone's
 * npages_reserved only grows.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/align.h"
#include "heap/error.h"
#include "heap/heap.h"

#define PAGE_BITS (FM_ZONE_SHIFT - FM_PAGE_SHIFT)	/* of a page in its zone */
#define NPAGES_EXACT 32u	/* lists up to here have one length each */
#define NCANDIDATES 16u		/* extents looked at in one list, at first */
#define NLOADS 4		/* zones loaded before the pool grows instead */
#define GROW_NPAGES_MIN 64u	/* 256 KiB */
#define GROW_NPAGES_MAX 4096u	/* 16 MiB */

_Static_assert(FM_ZONE_NPAGES <= UINT16_MAX, "spans fit uint16_t");

/* --- free extents ----------------------------------------------------------- */

static unsigned bin_of(uint32_t npages)
{
	unsigned exp;

	if (npages <= NPAGES_EXACT)
		return npages - 1;
	exp = 31 - __builtin_clz(npages);
	return NPAGES_EXACT + (exp - 5) * 4 + (npages >> (exp - 2) & 3);
}

static struct zone *zone_of_page(const struct fm_heap *h, uint32_t page)
{
	return h->zones[page >> PAGE_BITS];
}

static uint32_t page_in_zone(uint32_t page)
{
	return page & (FM_ZONE_NPAGES - 1);
}

static uint32_t span_of(const struct fm_heap *h, uint32_t page)
{
	return zone_of_page(h, page)->span[page_in_zone(page)];
}

static void list_add(struct fm_heap *h, uint32_t page, uint32_t npages)
{
	struct zone *z = zone_of_page(h, page), *nz;
	uint32_t p = page_in_zone(page), next;
	unsigned bin = bin_of(npages);

	z->span[p] = npages;
	z->span[p + npages - 1] = npages;
	next = h->bins[bin];
	z->next[p] = next;
	z->prev[p] = 0;
	if (next != 0) {
		nz = zone_of_page(h, next);
		nz->prev[page_in_zone(next)] = page;
	}
	h->bins[bin] = page;
	h->bins_used[bin / 64] |= 1ull << bin % 64;
}

static void list_remove(struct fm_heap *h, uint32_t page)
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
		h->bins_used[bin / 64] &= ~(1ull << bin % 64);
	z->span[p] = 0;
	z->span[p + npages - 1] = 0;
}

/* Enter pages as free, together with free neighbours. */
static void add_free(struct fm_heap *h, struct zone *z, uint32_t p, uint32_t npages)
{
	uint32_t first = z->index << PAGE_BITS;

	if (p > FM_ZONE_HEAD_NPAGES && z->span[p - 1] != 0) {
		uint32_t before = z->span[p - 1];

		list_remove(h, first + p - before);
		p -= before;
		npages += before;
	}
	if (p + npages < z->nreserved && z->span[p + npages] != 0) {
		uint32_t after = z->span[p + npages];

		list_remove(h, first + p + npages);
		npages += after;
	}
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

/* Take npages pages off the lists, looking at no more than `most` extents of
 * each: the first page, or 0. */
static uint32_t take(struct fm_heap *h, uint32_t npages, uint32_t align, uint32_t most)
{
	uint32_t page = 0, start, len;
	unsigned bin;

	for (bin = bin_of(npages); page == 0 && bin < NBINS; bin++)
		if (h->bins_used[bin / 64] >> bin % 64 & 1)
			page = search_bin(h, bin, npages, align, most);
	if (page == 0)
		return 0;
	start = place(h, page, npages, align);
	len = span_of(h, page);
	list_remove(h, page);
	if (start > page)
		list_add(h, page, start - page);
	if (start + npages < page + len)
		list_add(h, start + npages, page + len - start - npages);
	return start;
}

/* --- the zone directory ------------------------------------------------------- */

static enum fm_zone_kind kind_of(const struct fm_heap *h, uint32_t index)
{
	if (index == 0)
		return FM_ZONE_NORMAL;
	if (index >= heap_nzones(h))
		return FM_ZONE_UNUSED;
	return __atomic_load_n(&h->zonedir[index], __ATOMIC_ACQUIRE);
}

static void set_kind(struct fm_heap *h, uint32_t index, enum fm_zone_kind kind)
{
	__atomic_store_n(&h->zonedir[index], (uint16_t)kind, __ATOMIC_RELEASE);
}

static struct fm_zone_disk *header_of(const struct fm_heap *h, uint32_t index)
{
	if (index == 0)
		return &h->super->zone0;
	return (struct fm_zone_disk *)(h->base + index * FM_ZONE_LEN);
}

static uint32_t *table_of(const struct fm_heap *h, uint32_t index)
{
	return (uint32_t *)(h->base + index * FM_ZONE_LEN + FM_ZONE_TABLE_OFF);
}

/* Pages from the zone's start that may hold extents; 0 if its header is bad. */
static uint32_t nreserved_of(const struct fm_heap *h, uint32_t index)
{
	const struct fm_zone_disk *disk = header_of(h, index);
	uint32_t n = __atomic_load_n(&disk->npages_reserved, __ATOMIC_ACQUIRE);

	if (disk->magic != FM_ZONE_MAGIC || disk->index != index ||
	    n < FM_ZONE_HEAD_NPAGES || n > FM_ZONE_NPAGES ||
	    index * FM_ZONE_LEN + ((uint64_t)n << FM_PAGE_SHIFT) > heap_end(h))
		return 0;
	return n;
}

/* How many zones the huge block of this zone covers; 0 if its header is bad. */
static uint32_t huge_nzones(const struct fm_heap *h, uint32_t index)
{
	const struct fm_zone_disk *disk = header_of(h, index);
	uint64_t room = heap_end(h) - index * FM_ZONE_LEN;

	if (disk->magic != FM_ZONE_MAGIC || disk->index != index ||
	    disk->huge_off < FM_PAGE_LEN || disk->huge_off > room ||
	    disk->huge_off % FM_PAGE_LEN != 0 || disk->huge_len == 0 ||
	    disk->huge_len > room - disk->huge_off)
		return 0;
	return (disk->huge_off + disk->huge_len + FM_ZONE_LEN - 1) >> FM_ZONE_SHIFT;
}

static int bad_zone(uint32_t index, const char *what)
{
	return err_set(EUCLEAN, "the pool is damaged: zone %" PRIu32
		       " at offset %" PRIu64 ": %s",
		       index, index * FM_ZONE_LEN, what);
}

static int check_directory(const struct fm_heap *h)
{
	uint32_t nzones = heap_nzones(h), i, n, covered = 1;

	/* At hand anyway; the others' are met when they are needed. */
	if (nreserved_of(h, 0) == 0)
		return bad_zone(0, "bad header");
	for (i = 1; i < nzones; i++) {
		bool within = i < covered;

		switch (h->zonedir[i]) {
		case FM_ZONE_UNUSED:
		case FM_ZONE_NORMAL:
			break;
		case FM_ZONE_HUGE:
			n = huge_nzones(h, i);
			if (n == 0)
				return bad_zone(i, "bad header of a huge block");
			covered = i + n;
			break;
		case FM_ZONE_HUGE_MORE:
			continue;
		default:
			return bad_zone(i, "unknown kind");
		}
		if (within)
			return bad_zone(i, "lies within a huge block");
	}
	return 0;
}

/* What a process that died allocating or freeing a huge block left. */
static void clean_directory(struct fm_heap *h)
{
	uint32_t nzones = heap_nzones(h), i, covered = 1;

	for (i = 1; i < nzones; i++) {
		if (h->zonedir[i] == FM_ZONE_HUGE)
			covered = i + huge_nzones(h, i);
		else if (h->zonedir[i] == FM_ZONE_HUGE_MORE && i >= covered)
			set_kind(h, i, FM_ZONE_UNUSED);
	}
}

int zone_open(struct fm_heap *h)
{
	int rc;

	pthread_mutex_init(&h->page_lock, NULL);
	h->load_next = heap_nzones(h);
	/* A reader needs none of it, and a writer beside it may be changing it. */
	if (!h->writable)
		return 0;
	rc = check_directory(h);
	if (rc == 0)
		clean_directory(h);
	return rc;
}

void zone_close(struct fm_heap *h)
{
	uint32_t i;

	for (i = 0; i < FM_MAX_NZONES; i++) {
		if (h->zones[i] == NULL)
			continue;
		map_anon_free(h->zones[i]->free_maps, FREE_MAPS_LEN);
		map_anon_free(h->zones[i], sizeof(struct zone));
		h->zones[i] = NULL;
	}
	pthread_mutex_destroy(&h->page_lock);
}

/* --- loading a zone ------------------------------------------------------------ */

static bool entry_valid(uint32_t entry, uint32_t p, uint32_t nreserved)
{
	uint32_t npages = FM_EXTENT_NPAGES(entry);

	if (npages == 0 || npages > nreserved - p)
		return false;
	switch (FM_EXTENT_KIND(entry)) {
	case FM_EXTENT_SLAB:
		return npages == FM_SLAB_NPAGES && p % FM_SLAB_NPAGES == 0 &&
		       FM_EXTENT_CLASS(entry) < SIZECLASS_N;
	case FM_EXTENT_RUN:
	case FM_EXTENT_META:
		return FM_EXTENT_CLASS(entry) == 0;
	default:
		return false;
	}
}

/* Check the whole table before anything is made of it. */
static int check_table(uint32_t index, const uint32_t *table, uint32_t nreserved)
{
	char what[64];
	uint32_t p, q;

	for (p = FM_ZONE_HEAD_NPAGES; p < nreserved;) {
		uint32_t npages = 1;

		if (table[p] != 0) {
			if (!entry_valid(table[p], p, nreserved))
				goto bad;
			npages = FM_EXTENT_NPAGES(table[p]);
		}
		for (q = p + 1; q < p + npages; q++)
			if (table[q] != 0)
				goto bad;
		p += npages;
	}
	return 0;
bad:
	snprintf(what, sizeof(what), "bad table entry of page %" PRIu32, p);
	return bad_zone(index, what);
}

/* Pages to the next entry: of the extent, or 1 where none starts. */
static uint32_t npages_at(const struct zone *z, uint32_t p)
{
	return z->table[p] != 0 ? FM_EXTENT_NPAGES(z->table[p]) : 1;
}

static struct zone *new_zone(struct fm_heap *h, uint32_t index, uint32_t nreserved)
{
	struct zone *z = map_anon(sizeof(*z));

	if (z == NULL)
		return NULL;
	/* A pool of one zone is small: no huge pages for it. */
	z->free_maps = index == 0 ? map_anon(FREE_MAPS_LEN) :
				    map_anon_huge(FREE_MAPS_LEN);
	if (z->free_maps == NULL) {
		map_anon_free(z, sizeof(*z));
		return NULL;
	}
	z->index = index;
	z->nreserved = nreserved;
	z->table = table_of(h, index);
	z->disk = header_of(h, index);
	if (nreserved < FM_ZONE_NPAGES) {
		z->next_growable = h->growable;
		h->growable = z;
	}
	return z;
}

static void publish(struct fm_heap *h, struct zone *z)
{
	__atomic_store_n(&h->zones[z->index], z, __ATOMIC_RELEASE);
}

static struct zone *loaded(const struct fm_heap *h, uint32_t index)
{
	return __atomic_load_n(&h->zones[index], __ATOMIC_ACQUIRE);
}

static int load(struct fm_heap *h, uint32_t index)
{
	uint32_t nreserved, p, end;
	struct zone *z;
	int rc;

	nreserved = nreserved_of(h, index);
	if (nreserved == 0)
		return bad_zone(index, "bad header");
	rc = check_table(index, table_of(h, index), nreserved);
	if (rc < 0)
		return rc;
	z = new_zone(h, index, nreserved);
	if (z == NULL)
		return err_sys(ENOMEM, "memory for zone %" PRIu32, index);
	/* Slabs before the zone is published: whoever finds it finds them. */
	for (p = FM_ZONE_HEAD_NPAGES; p < nreserved; p += npages_at(z, p))
		if (FM_EXTENT_KIND(z->table[p]) == FM_EXTENT_SLAB)
			slab_load(h, z, p / FM_SLAB_NPAGES,
				  FM_EXTENT_CLASS(z->table[p]));
	publish(h, z);
	for (p = FM_ZONE_HEAD_NPAGES; p < nreserved; p = end) {
		end = p + npages_at(z, p);
		if (z->table[p] != 0)
			continue;
		while (end < nreserved && z->table[end] == 0)
			end++;
		add_free(h, z, p, end - p);
	}
	return 0;
}

/* --- growing --------------------------------------------------------------------- */

int zone_reserve(struct fm_heap *h, uint32_t index)
{
	const struct fm_zone_disk *disk = header_of(h, index);
	uint64_t len = 0;

	switch (kind_of(h, index)) {
	case FM_ZONE_NORMAL:
		len = (uint64_t)nreserved_of(h, index) << FM_PAGE_SHIFT;
		break;
	case FM_ZONE_HUGE:
		len = disk->huge_off + disk->huge_len;
		break;
	default:
		break;
	}
	return len == 0 ? 0 : map_reserve(h->fd, index * FM_ZONE_LEN, len);
}

static void raise_heap_end(struct fm_heap *h, uint64_t end)
{
	if (end > heap_end(h))
		__atomic_store_n(&h->super->heap_end, end, __ATOMIC_RELEASE);
}

static void forget_growable(struct fm_heap *h, struct zone *z)
{
	struct zone **p;

	for (p = &h->growable; *p != NULL; p = &(*p)->next_growable)
		if (*p == z) {
			*p = z->next_growable;
			return;
		}
}

/* Let the zone have `more` further pages. */
static int extend(struct fm_heap *h, struct zone *z, uint32_t more)
{
	uint32_t from = z->nreserved, to = from + more;
	int rc;

	rc = map_reserve(h->fd, z->index * FM_ZONE_LEN + ((uint64_t)from << FM_PAGE_SHIFT),
			 (uint64_t)more << FM_PAGE_SHIFT);
	if (rc < 0)
		return rc;
	raise_heap_end(h, z->index * FM_ZONE_LEN + ((uint64_t)to << FM_PAGE_SHIFT));
	__atomic_store_n(&z->disk->npages_reserved, to, __ATOMIC_RELEASE);
	__atomic_store_n(&z->nreserved, to, __ATOMIC_RELEASE);
	if (to == FM_ZONE_NPAGES)
		forget_growable(h, z);
	add_free(h, z, from, more);
	return 0;
}

/* Pages to add to a zone at its end for it to hold an aligned run; 0: cannot. */
static uint32_t lacks(const struct zone *z, uint32_t npages, uint32_t align)
{
	uint32_t tail, end;

	tail = z->nreserved > FM_ZONE_HEAD_NPAGES ? z->span[z->nreserved - 1] : 0;
	end = align_up(z->nreserved - tail, align) + npages;
	if (end > FM_ZONE_NPAGES)
		return 0;
	/* It fits as it is if take() did not look far enough: then a page more
	 * brings the extent to the front. */
	return end > z->nreserved ? end - z->nreserved : 1;
}

/*
 * The index of the first of n successive unused zones: the first such, so that
 * the file stays short.
 */
static int find_unused(struct fm_heap *h, uint32_t n, uint32_t *index)
{
	uint32_t limit = h->map_len >> FM_ZONE_SHIFT, i, free = 0;

	for (i = 1; i < limit; i++) {
		free = kind_of(h, i) == FM_ZONE_UNUSED ? free + 1 : 0;
		if (free == n) {
			*index = i - n + 1;
			return 0;
		}
	}
	return err_set(ENOMEM, "the pool's %" PRIu64 " bytes of address space"
		       " are used up", h->map_len);
}

static void write_header(struct fm_heap *h, uint32_t index, struct fm_zone_disk disk)
{
	disk.magic = FM_ZONE_MAGIC;
	disk.index = index;
	*header_of(h, index) = disk;
}

/* A new, empty normal zone. */
static int add_zone(struct fm_heap *h)
{
	struct fm_zone_disk disk = { .npages_reserved = FM_ZONE_HEAD_NPAGES };
	uint32_t index = 0;
	struct zone *z;
	uint64_t base;
	bool reused;
	int rc;

	rc = find_unused(h, 1, &index);
	if (rc < 0)
		return rc;
	base = index * FM_ZONE_LEN;
	reused = index < heap_nzones(h);
	/* All of it: a store makes the kernel want space for the whole folio, and
	 * that may be many pages. */
	rc = map_reserve(h->fd, base, FM_ZONE_DATA_OFF);
	if (rc < 0)
		return rc;
	z = new_zone(h, index, FM_ZONE_HEAD_NPAGES);
	if (z == NULL)
		return err_sys(ENOMEM, "memory for zone %" PRIu32, index);
	raise_heap_end(h, base + FM_ZONE_DATA_OFF);
	/* One that was part of a huge block has old bytes in its table. */
	if (reused)
		memset(z->table, 0, FM_ZONE_TABLE_LEN);
	write_header(h, index, disk);
	set_kind(h, index, FM_ZONE_NORMAL);
	publish(h, z);
	return 0;
}

/* Make room for an extent that take() did not find. */
static int grow(struct fm_heap *h, uint32_t npages, uint32_t align)
{
	uint32_t least = 0, more, step;
	struct zone *z;
	int rc;

	for (z = h->growable; z != NULL; z = z->next_growable) {
		least = lacks(z, npages, align);
		if (least != 0)
			break;
	}
	if (z == NULL) {
		rc = add_zone(h);
		if (rc < 0)
			return rc;
		z = h->growable;	/* where the new one is, first */
		least = lacks(z, npages, align);
	}
	/* In steps that grow with the pool: few calls, and large folios in the
	 * page cache, for 3 % of slack at most. */
	step = heap_end(h) >> FM_PAGE_SHIFT >> 5;
	if (step < GROW_NPAGES_MIN)
		step = GROW_NPAGES_MIN;
	if (step > GROW_NPAGES_MAX)
		step = GROW_NPAGES_MAX;
	more = least < step ? step : least;
	if (more > FM_ZONE_NPAGES - z->nreserved)
		more = FM_ZONE_NPAGES - z->nreserved;
	rc = extend(h, z, more);
	if (rc < 0 && more > least)
		rc = extend(h, z, least);
	return rc;
}

/* Load the next of the zones not yet looked at, from the pool's end down, where
 * a growing pool has its space.  0: none is left; else 1. */
static int load_next(struct fm_heap *h)
{
	while (h->load_next > 0) {
		uint32_t index = --h->load_next;

		if (kind_of(h, index) != FM_ZONE_NORMAL || h->zones[index] != NULL)
			continue;
		/* A damaged zone gives nothing, and takes nothing from others. */
		load(h, index);
		return 1;
	}
	return 0;
}

bool zone_load_more(struct fm_heap *h)
{
	int rc;

	pthread_mutex_lock(&h->page_lock);
	rc = load_next(h);
	pthread_mutex_unlock(&h->page_lock);
	return rc != 0;
}

/* --- extents ------------------------------------------------------------------------ */

static int alloc_extent(struct fm_heap *h, enum fm_extent_kind kind, unsigned cls,
			uint32_t npages, uint32_t align_npages, uint64_t *pending,
			uint64_t *off)
{
	struct zone *z;
	uint32_t page;
	int rc = 0, nloads = 0;

	pthread_mutex_lock(&h->page_lock);
	while ((page = take(h, npages, align_npages, NCANDIDATES)) == 0) {
		if (nloads++ < NLOADS && load_next(h))
			continue;
		rc = grow(h, npages, align_npages);
		if (rc < 0)
			break;
	}
	/* When the disk is full it is worth looking everywhere. */
	while (page == 0 && (page = take(h, npages, align_npages, UINT32_MAX)) == 0)
		if (!load_next(h))
			goto out;
	rc = 0;
	z = zone_of_page(h, page);
	*off = (uint64_t)page << FM_PAGE_SHIFT;
	if (kind == FM_EXTENT_SLAB)
		slab_prepare(h, z, page_in_zone(page) / FM_SLAB_NPAGES, cls);
	if (pending != NULL)
		__atomic_store_n(pending, *off, __ATOMIC_RELEASE);
	__atomic_store_n(&z->table[page_in_zone(page)],
			 FM_EXTENT(kind, cls, npages), __ATOMIC_RELEASE);
out:
	pthread_mutex_unlock(&h->page_lock);
	return rc;
}

int zone_alloc(struct fm_heap *h, enum fm_extent_kind kind, unsigned cls,
	       uint32_t npages, uint32_t align_npages, uint64_t *off)
{
	return alloc_extent(h, kind, cls, npages, align_npages, NULL, off);
}

int zone_alloc_meta(struct fm_heap *h, uint32_t npages, uint64_t *pending,
		    uint64_t *off)
{
	return alloc_extent(h, FM_EXTENT_META, 0, npages, 1, pending, off);
}

void zone_drop_meta(struct fm_heap *h, uint64_t off, uint32_t npages)
{
	uint32_t entry = zone_entry(h, off);

	if (off % FM_PAGE_LEN == 0 && entry == FM_EXTENT(FM_EXTENT_META, 0, npages))
		__atomic_store_n(&table_of(h, off >> FM_ZONE_SHIFT)
					 [page_in_zone(off >> FM_PAGE_SHIFT)],
				 0, __ATOMIC_RELEASE);
}

bool zone_holds(uint64_t len, uint64_t align)
{
	return len <= FM_ZONE_LEN &&
	       align_up(FM_ZONE_DATA_OFF, align) + len <= FM_ZONE_LEN;
}

int zone_get(struct fm_heap *h, uint64_t off, struct zone **z)
{
	uint64_t index = off >> FM_ZONE_SHIFT;
	int rc = 0;

	*z = index < FM_MAX_NZONES ? loaded(h, index) : NULL;
	if (*z != NULL)
		return 0;
	pthread_mutex_lock(&h->page_lock);
	if (index >= FM_MAX_NZONES || kind_of(h, index) != FM_ZONE_NORMAL)
		rc = -EINVAL;
	else if (h->zones[index] == NULL)
		rc = load(h, index);
	if (rc == 0)
		*z = h->zones[index];
	pthread_mutex_unlock(&h->page_lock);
	return rc;
}

uint32_t zone_entry(const struct fm_heap *h, uint64_t off)
{
	uint32_t p = page_in_zone(off >> FM_PAGE_SHIFT), nreserved, entry;
	uint64_t index = off >> FM_ZONE_SHIFT;	/* off is any number from the file */
	const struct zone *z;

	if (index >= FM_MAX_NZONES)
		return 0;
	z = loaded(h, index);
	if (z == NULL && kind_of(h, index) != FM_ZONE_NORMAL)
		return 0;
	nreserved = z != NULL ? __atomic_load_n(&z->nreserved, __ATOMIC_ACQUIRE) :
				nreserved_of(h, index);
	if (p < FM_ZONE_HEAD_NPAGES || p >= nreserved)
		return 0;
	entry = __atomic_load_n(&table_of(h, index)[p], __ATOMIC_ACQUIRE);
	return entry_valid(entry, p, nreserved) ? entry : 0;
}

/* The zone and page of the extent of a kind at off; page_lock is held. */
static int find_extent(struct fm_heap *h, enum fm_extent_kind kind, uint64_t off,
		       struct zone **z, uint32_t *p, uint32_t *npages)
{
	uint32_t entry = zone_entry(h, off);

	*z = h->zones[off >> FM_ZONE_SHIFT];
	*p = page_in_zone(off >> FM_PAGE_SHIFT);
	*npages = FM_EXTENT_NPAGES(entry);
	if (off % FM_PAGE_LEN != 0 || *z == NULL ||
	    FM_EXTENT_KIND(entry) != (uint32_t)kind)
		return -EINVAL;
	return 0;
}

int zone_free(struct fm_heap *h, enum fm_extent_kind kind, uint64_t off)
{
	uint32_t p, npages;
	struct zone *z;
	int rc;

	rc = zone_get(h, off, &z);
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&h->page_lock);
	rc = find_extent(h, kind, off, &z, &p, &npages);
	if (rc == 0) {
		__atomic_store_n(&z->table[p], 0, __ATOMIC_RELEASE);
		add_free(h, z, p, npages);
	}
	pthread_mutex_unlock(&h->page_lock);
	return rc;
}

/* Add the free pages right after an extent to it. */
static int lengthen(struct fm_heap *h, struct zone *z, uint32_t p, uint32_t npages,
		    uint32_t want)
{
	uint32_t end = p + npages, more = want - npages, after;
	uint32_t first = z->index << PAGE_BITS;

	if (p + want > FM_ZONE_NPAGES)
		return -ENOSPC;
	after = end < z->nreserved ? z->span[end] : 0;
	if (after < more) {
		int rc;

		/* At the end of what is reserved the zone can grow. */
		if (end + after != z->nreserved || z->nreserved == FM_ZONE_NPAGES)
			return -ENOSPC;
		rc = extend(h, z, more - after);
		if (rc < 0)
			return rc;
		after = z->span[end];
	}
	list_remove(h, first + end);
	if (after > more)
		list_add(h, first + end + more, after - more);
	return 0;
}

int zone_resize_run(struct fm_heap *h, uint64_t off, uint32_t want)
{
	uint32_t p, npages;
	struct zone *z;
	int rc;

	rc = zone_get(h, off, &z);
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&h->page_lock);
	rc = find_extent(h, FM_EXTENT_RUN, off, &z, &p, &npages);
	if (rc == 0 && want > npages)
		rc = lengthen(h, z, p, npages, want);
	if (rc == 0 && want != npages) {
		__atomic_store_n(&z->table[p], FM_EXTENT(FM_EXTENT_RUN, 0, want),
				 __ATOMIC_RELEASE);
		if (want < npages)
			add_free(h, z, p + want, npages - want);
	}
	pthread_mutex_unlock(&h->page_lock);
	return rc;
}

/* --- huge blocks ----------------------------------------------------------------------- */

int zone_alloc_huge(struct fm_heap *h, uint64_t len, uint64_t align, uint64_t *off)
{
	struct fm_zone_disk disk = { .huge_off = FM_PAGE_LEN };
	uint32_t index = 0, n, i;
	uint64_t base;
	int rc;

	if (align > FM_PAGE_LEN)
		disk.huge_off = align;
	if (len > h->map_len - disk.huge_off)
		return err_set(ENOMEM, "a block of %" PRIu64 " bytes is more than"
			       " the pool's address space", len);
	disk.huge_len = align_up(len, FM_PAGE_LEN);
	n = (disk.huge_off + disk.huge_len + FM_ZONE_LEN - 1) >> FM_ZONE_SHIFT;

	pthread_mutex_lock(&h->page_lock);
	rc = find_unused(h, n, &index);
	if (rc < 0)
		goto out;
	base = index * FM_ZONE_LEN;
	rc = map_reserve(h->fd, base, disk.huge_off + disk.huge_len);
	if (rc < 0)
		goto out;
	raise_heap_end(h, base + disk.huge_off + disk.huge_len);
	write_header(h, index, disk);
	for (i = 1; i < n; i++)
		set_kind(h, index + i, FM_ZONE_HUGE_MORE);
	set_kind(h, index, FM_ZONE_HUGE);
	*off = base + disk.huge_off;
out:
	pthread_mutex_unlock(&h->page_lock);
	return rc;
}

uint64_t zone_huge_len(const struct fm_heap *h, uint64_t off)
{
	uint64_t index = off >> FM_ZONE_SHIFT;

	if (index >= FM_MAX_NZONES || kind_of(h, index) != FM_ZONE_HUGE ||
	    huge_nzones(h, index) == 0 ||
	    off != index * FM_ZONE_LEN + header_of(h, index)->huge_off)
		return 0;
	return header_of(h, index)->huge_len;
}

int zone_free_huge(struct fm_heap *h, uint64_t off)
{
	uint64_t index = off >> FM_ZONE_SHIFT, len;
	uint32_t n, i;

	pthread_mutex_lock(&h->page_lock);
	len = zone_huge_len(h, off);
	if (len != 0) {
		n = huge_nzones(h, index);
		set_kind(h, index, FM_ZONE_UNUSED);
		for (i = 1; i < n; i++)
			set_kind(h, index + i, FM_ZONE_UNUSED);
		map_punch(h->fd, index * FM_ZONE_LEN,
			  off + len - index * FM_ZONE_LEN);
	}
	pthread_mutex_unlock(&h->page_lock);
	return len == 0 ? -EINVAL : 0;
}

int zone_resize_huge(struct fm_heap *h, uint64_t off, uint64_t want)
{
	uint32_t index = off >> FM_ZONE_SHIFT;
	uint64_t len, end;
	int rc = 0;

	if (want > h->map_len)	/* and what follows cannot overflow */
		return -ENOSPC;
	want = align_up(want, FM_PAGE_LEN);
	pthread_mutex_lock(&h->page_lock);
	len = zone_huge_len(h, off);
	/* The zones that the block covers must stay as they are. */
	end = align_up(off + len, FM_ZONE_LEN);
	if (len == 0)
		rc = -EINVAL;
	else if (off + want > end || off + want <= end - FM_ZONE_LEN)
		rc = -ENOSPC;
	else if (want > len)
		rc = map_reserve(h->fd, off + len, want - len);
	if (rc == 0) {
		raise_heap_end(h, off + want);
		__atomic_store_n(&header_of(h, index)->huge_len, want,
				 __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&h->page_lock);
	return rc;
}
