/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a structure of a pool is what its format says: for all who read one, be
 * the pool mapped or not.  Each function looks at the bytes that it is given and
 * nothing else, bounds every number, and returns NULL if they are sound, else in a
 * few words what is wrong.  (The super is judged in super.c, roots in rootscan.c.)
 */
#ifndef FM_HEAP_JUDGE_H
#define FM_HEAP_JUDGE_H

#include <stddef.h>
#include <stdint.h>

#include "heap/layout.h"
#include "heap/sizeclass.h"

/* The header of a zone, whatever its kind. */
static inline const char *judge_zone(const struct fm_zone_disk *disk, uint32_t index)
{
	if (disk->magic != FM_ZONE_MAGIC)
		return "no magic number";
	return disk->index != index ? "number of another zone" : NULL;
}

/* npages_reserved of a normal zone, which a writer may be raising. */
static inline const char *judge_nreserved(uint32_t n, uint32_t index, uint64_t heap_end)
{
	if (n < FM_ZONE_HEAD_NPAGES || n > FM_ZONE_NPAGES)
		return "npages_reserved out of bounds";
	if (index * FM_ZONE_LEN + ((uint64_t)n << FM_PAGE_SHIFT) > heap_end)
		return "npages_reserved beyond the end of the heap";
	return NULL;
}

/* The huge block of a zone, which begins before heap_end; and then how many zones
 * it covers. */
const char *judge_huge(const struct fm_zone_disk *disk, uint32_t index,
		       uint64_t heap_end);

static inline uint32_t judge_huge_span(const struct fm_zone_disk *disk)
{
	return (disk->huge_off + disk->huge_len + FM_ZONE_LEN - 1) >> FM_ZONE_SHIFT;
}

/* The entry of page p, which is below nreserved, of a page table. */
static inline const char *judge_entry(uint32_t entry, uint32_t p, uint32_t nreserved)
{
	uint32_t npages = FM_EXTENT_NPAGES(entry), kind = FM_EXTENT_KIND(entry);

	if (kind < FM_EXTENT_SLAB || kind > FM_EXTENT_META)
		return "unknown kind of extent";
	if (npages == 0)
		return "an extent of no pages";
	if (npages > nreserved - p)
		return "an extent beyond the pages that the zone has";
	if (kind != FM_EXTENT_SLAB)
		return FM_EXTENT_CLASS(entry) != 0 ? "a size class, but no slab" : NULL;
	if (npages != FM_SLAB_NPAGES)
		return "a slab of another length";
	if (p % FM_SLAB_NPAGES != 0)
		return "a slab that is not aligned";
	return FM_EXTENT_CLASS(entry) >= SIZECLASS_N ? "unknown size class" : NULL;
}

/* The bits of `holes` that are right beside the page table: none of a chunk that an
 * extent lies in, or that is not whole; none at all if an entry is not sound. */
uint32_t judge_holes(uint32_t holes, const uint32_t *table, uint32_t nreserved);

/* Heads of the heap's own pages, which lie at off; and their `crc`. */
const char *judge_lane(const struct fm_lane_disk *lane, uint64_t off);
const char *judge_intents(const struct fm_intents_disk *page, uint64_t off);
uint32_t judge_self_crc(uint64_t self_off);

/* Heads of extents of the log, of which the file has file_len bytes; and laps. */
const char *judge_log(const struct fm_log_disk *head, uint64_t off, uint64_t file_len);
uint32_t judge_log_crc(const struct fm_log_disk *head);
const char *judge_lap(const struct fm_lap_disk *lap);
uint32_t judge_lap_crc(const struct fm_lap_disk *lap);

/* where_off of an intent that counts. */
const char *judge_where(uint64_t where_off, uint64_t heap_end);

#endif
