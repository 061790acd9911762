/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks of any size: which of slab, run and huge block one is. */
#include <config.h>

#include <errno.h>
#include <inttypes.h>

#include "common/align.h"
#include "heap/error.h"
#include "heap/heap.h"
#include "heap/lane.h"

#define NO_CLASS SIZECLASS_N

/* The smallest class whose blocks hold size bytes and are all aligned. */
static unsigned class_for(size_t size, size_t align)
{
	unsigned cls;

	if (size > SIZECLASS_MAX || align > FM_SLAB_LEN)
		return NO_CLASS;
	cls = sizeclass_of(size);
	if (align > 16)
		while (cls < SIZECLASS_N && sizeclass_table[cls].size % align != 0)
			cls++;
	return cls;
}

static uint64_t npages_of(uint64_t size)
{
	return (size + FM_PAGE_LEN - 1) >> FM_PAGE_SHIFT;
}

int alloc_block(struct fm_heap *h, size_t size, size_t align, uint64_t *off)
{
	unsigned cls;

	if (size == 0)
		size = 1;
	cls = class_for(size, align);
	if (cls != NO_CLASS)
		return lane_alloc(h, cls, off);
	if (align < FM_PAGE_LEN)
		align = FM_PAGE_LEN;
	if (zone_holds(size, align))
		return zone_alloc(h, FM_EXTENT_RUN, 0, npages_of(size),
				  align >> FM_PAGE_SHIFT, off);
	return zone_alloc_huge(h, size, align, off);
}

int alloc_free(struct fm_heap *h, uint64_t off)
{
	int rc;

	if (FM_EXTENT_KIND(zone_entry(h, off & ~(FM_SLAB_LEN - 1))) == FM_EXTENT_SLAB)
		return lane_free(h, off);
	rc = zone_free(h, FM_EXTENT_RUN, off);
	if (rc == -EINVAL)
		rc = zone_free_huge(h, off);
	return rc;
}

uint64_t alloc_usable(const struct fm_heap *h, uint64_t off)
{
	uint32_t entry = zone_entry(h, off & ~(FM_SLAB_LEN - 1));
	unsigned cls = FM_EXTENT_CLASS(entry);

	if (FM_EXTENT_KIND(entry) == FM_EXTENT_SLAB)
		return lane_has(h, cls, off) ? sizeclass_table[cls].size : 0;
	entry = zone_entry(h, off);
	if (off % FM_PAGE_LEN == 0 && FM_EXTENT_KIND(entry) == FM_EXTENT_RUN)
		return (uint64_t)FM_EXTENT_NPAGES(entry) << FM_PAGE_SHIFT;
	return zone_huge_len(h, off);
}

bool alloc_resize(struct fm_heap *h, uint64_t off, size_t size)
{
	uint64_t usable = alloc_usable(h, off);

	/* A small block stays unless it grows, or shrinks by half. */
	if (usable <= SIZECLASS_MAX)
		return size <= usable && (size >= usable / 2 || usable <= 64);
	if (size <= SIZECLASS_MAX)
		return false;
	if (zone_huge_len(h, off) != 0)
		return zone_resize_huge(h, off, size) == 0;
	return zone_holds(size, FM_PAGE_LEN) &&
	       zone_resize_run(h, off, npages_of(size)) == 0;
}
