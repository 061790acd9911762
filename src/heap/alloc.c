/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks of any size: which of slab, run and huge block one is. */
#include <config.h>

#include <errno.h>
#include <inttypes.h>

#include "common/align.h"
#include "heap/error.h"
#include "heap/heap.h"
#include "heap/lane.h"
#include "heap/memtool.h"

#define NO_CLASS SIZECLASS_N

/* The smallest class whose blocks hold size bytes and are all aligned, and of which
 * there may be new ones. */
static unsigned class_for(const struct fm_heap *h, size_t size, size_t align)
{
	unsigned cls;

	if (size > SIZECLASS_MAX || align > FM_SLAB_LEN)
		return NO_CLASS;
	cls = sizeclass_of(size);
	if (!slab_has_second(h, cls))
		cls++;
	if (align > 16)
		while (cls < SIZECLASS_N && sizeclass_table[cls].size % align != 0)
			cls++;
	return cls;
}

static uint64_t npages_of(uint64_t size)
{
	return (size + FM_PAGE_LEN - 1) >> FM_PAGE_SHIFT;
}

/* size is not 0. */
static int allocate(struct fm_heap *h, size_t size, size_t align, uint64_t *off)
{
	unsigned cls = class_for(h, size, align);

	if (cls != NO_CLASS)
		return lane_alloc(h, cls, off);
	if (align < FM_PAGE_LEN)
		align = FM_PAGE_LEN;
	if (pages_hold(size, align))
		return pages_alloc(h, FM_EXTENT_RUN, 0, npages_of(size),
				   align >> FM_PAGE_SHIFT, off);
	return huge_alloc(h, size, align, off);
}

/* When there is no more space: get at what threads have at hand, or left.  Whether
 * that was anything. */
static bool reclaim(struct fm_heap *h)
{
	bool any = lanes_reclaim(h, true);

	if (__atomic_load_n(&h->loose_loaded, __ATOMIC_RELAXED))
		any = lane_drop_loose(h) || any;
	return any;
}

int alloc_meta(struct fm_heap *h, uint32_t npages, uint64_t *off)
{
	int rc = pages_alloc(h, FM_EXTENT_META, 0, npages, 1, off);

	if (rc < 0 && reclaim(h))
		rc = pages_alloc(h, FM_EXTENT_META, 0, npages, 1, off);
	return rc;
}

int alloc_block(struct fm_heap *h, size_t size, size_t align, uint64_t *off)
{
	int rc = allocate(h, size + (size == 0), align, off);

	if (rc < 0 && reclaim(h))
		rc = allocate(h, size + (size == 0), align, off);
	if (rc == 0 && memtool_active)
		memtool_block(h->base + *off, size, alloc_usable(h, *off));
	return rc;
}

static bool is_small(const struct fm_heap *h, uint64_t off)
{
	return FM_EXTENT_KIND(zone_entry(h, off & ~(FM_SLAB_LEN - 1))) == FM_EXTENT_SLAB;
}

/* A thread's empty slabs may be what keeps chunks from being free. */
static void trim_if_much(struct fm_heap *h)
{
	uint64_t keep = space_wants_trim(h);

	if (keep == UINT64_MAX)
		return;
	lane_tidy(h);
	space_trim(h, keep);
}

int alloc_free(struct fm_heap *h, uint64_t off, uint64_t *done)
{
	uint64_t usable = memtool_active ? alloc_usable(h, off) : 0;
	int rc;

	/* Before another thread can have it. */
	memtool_free(h->base + off, usable);
	if (is_small(h, off)) {
		rc = lane_free(h, off, done);
	} else {
		rc = pages_free(h, FM_EXTENT_RUN, off, done);
		if (rc == -EINVAL)
			rc = huge_free(h, off, done);
	}
	if (rc == 0)
		trim_if_much(h);
	return rc;
}

void alloc_drop(struct fm_heap *h, uint64_t off)
{
	uint32_t entry = zone_entry(h, off & ~(FM_SLAB_LEN - 1));

	if (FM_EXTENT_KIND(entry) == FM_EXTENT_SLAB)
		slab_unmark(h, FM_EXTENT_CLASS(entry), off);
	else if (huge_len(h, off) != 0)
		huge_drop(h, off);
	else
		pages_drop(h, FM_EXTENT_RUN, off);
}

uint64_t alloc_usable(const struct fm_heap *h, uint64_t off)
{
	uint32_t entry = zone_entry(h, off & ~(FM_SLAB_LEN - 1));
	unsigned cls = FM_EXTENT_CLASS(entry);

	if (FM_EXTENT_KIND(entry) == FM_EXTENT_SLAB)
		return slab_has(h, cls, off) ? sizeclass_table[cls].size : 0;
	entry = zone_entry(h, off);
	if (off % FM_PAGE_LEN == 0 && FM_EXTENT_KIND(entry) == FM_EXTENT_RUN)
		return (uint64_t)FM_EXTENT_NPAGES(entry) << FM_PAGE_SHIFT;
	return huge_len(h, off);
}

static bool resize(struct fm_heap *h, uint64_t off, uint64_t usable, size_t size)
{
	/* A small block stays unless it grows, or shrinks by half. */
	if (usable <= SIZECLASS_MAX)
		return size <= usable && (size >= usable / 2 || usable <= 64);
	if (size <= SIZECLASS_MAX)
		return false;
	if (huge_len(h, off) != 0)
		return huge_resize(h, off, size) == 0;
	return pages_hold(size, FM_PAGE_LEN) &&
	       pages_resize(h, off, npages_of(size)) == 0;
}

bool alloc_resize(struct fm_heap *h, uint64_t off, size_t size)
{
	uint64_t usable = alloc_usable(h, off);
	bool done = resize(h, off, usable, size);

	if (memtool_active)
		memtool_resized(h->base + off, done ? size : alloc_usable(h, off),
				alloc_usable(h, off));
	/* What is behind it now is free. */
	if (done && usable > SIZECLASS_MAX && size < usable)
		trim_if_much(h);
	return done;
}
