/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking the page table of a zone, which is in memory.
 *
 * What an entry was before it was damaged cannot be told in general, so nothing is
 * freed on a suspicion: an entry that makes no sense becomes a run of the pages that
 * may have been its, and a reserved end that is too low is raised.
 */
#include <config.h>

#include <inttypes.h>

#include "heap/check.h"
#include "heap/judge.h"

/* --- page tables ------------------------------------------------------------- */

/* Whether there are no other entries in the extent that the entry of page p makes. */
static bool clear_behind(const struct check_zone *z, uint32_t p, uint32_t npages)
{
	return checktable_next(z, p + 1, p + npages) >= p + npages;
}

/* Store an entry, here and, if repairs are made, in the file. */
static bool set_entry(struct check *c, struct check_zone *z, uint32_t p, uint32_t entry)
{
	z->table[p] = entry;
	return check_fix32(c, checkzone_entry_off(z->index, p), entry);
}

/*
 * What an entry that is not sound may have been: if it can be told of a slab, or of
 * an extent with a length, that; else a run of all pages that nothing else claims, so
 * that none of them is given to somebody else.
 */
static uint32_t likely_entry(const struct check_zone *z, uint32_t p)
{
	uint32_t e = z->table[p], kind = FM_EXTENT_KIND(e), cls = FM_EXTENT_CLASS(e);
	uint32_t room = checktable_next(z, p + 1, z->npages) - p, try;

	try = FM_EXTENT(kind, cls, FM_SLAB_NPAGES);
	if (kind == FM_EXTENT_SLAB && room >= FM_SLAB_NPAGES &&
	    judge_entry(try, p, z->npages) == NULL)
		return try;
	try = FM_EXTENT(kind, 0, FM_EXTENT_NPAGES(e));
	if (kind != FM_EXTENT_SLAB && judge_entry(try, p, z->npages) == NULL &&
	    FM_EXTENT_NPAGES(e) <= room)
		return try;
	return FM_EXTENT(FM_EXTENT_RUN, 0, room);
}

/* A slab in all but its class, which nothing else tells. */
static bool is_classless(const struct check_zone *z, uint32_t p)
{
	uint32_t e = z->table[p];

	return FM_EXTENT_KIND(e) == FM_EXTENT_SLAB &&
	       FM_EXTENT_CLASS(e) >= SIZECLASS_N &&
	       judge_entry(FM_EXTENT(FM_EXTENT_SLAB, 0, FM_EXTENT_NPAGES(e)), p,
			   z->npages) == NULL;
}

static void mend_entry(struct check *c, struct check_zone *z, uint32_t p,
		       const char *why)
{
	uint32_t was = z->table[p], entry = likely_entry(z, p);
	bool fixed = !is_classless(z, p) &&
		     check_fix32(c, checkzone_entry_off(z->index, p), entry);

	z->table[p] = entry;
	check_damage(c, fixed, checkzone_entry_off(z->index, p), "page table",
		     "entry %#" PRIx32 " of the page at %#" PRIx64 ": %s; it may be %"
		     PRIu32 " pages",
		     was, checkzone_base(z->index) + p * FM_PAGE_LEN, why,
		     FM_EXTENT_NPAGES(entry));
}

/* Entries among the further pages of an extent.  If one could be an extent itself,
 * which of the two is right cannot be told. */
static void check_overlaps(struct check *c, struct check_zone *z, uint32_t p)
{
	uint32_t end = p + FM_EXTENT_NPAGES(z->table[p]), q, entry;
	bool fixed;

	for (q = checktable_next(z, p + 1, end); q < end;
	     q = checktable_next(z, q + 1, end)) {
		entry = z->table[q];
		fixed = judge_entry(entry, q, z->npages) != NULL &&
			check_fix32(c, checkzone_entry_off(z->index, q), 0);
		check_damage(c, fixed, checkzone_entry_off(z->index, q), "page table",
			     "entry %#" PRIx32 " of the page at %#" PRIx64 " is within"
			     " the extent at %#" PRIx64,
			     entry, checkzone_base(z->index) + q * FM_PAGE_LEN,
			     checkzone_base(z->index) + p * FM_PAGE_LEN);
		z->table[q] = 0;
	}
}

void checktable_head(struct check *c, struct check_zone *z)
{
	uint32_t p = checktable_next(z, 0, FM_ZONE_HEAD_NPAGES);

	for (; p < FM_ZONE_HEAD_NPAGES;
	     p = checktable_next(z, p + 1, FM_ZONE_HEAD_NPAGES))
		check_damage(c, set_entry(c, z, p, 0), checkzone_entry_off(z->index, p),
			     "page table",
			     "the zone's own page at %#" PRIx64 " has an entry",
			     checkzone_base(z->index) + p * FM_PAGE_LEN);
}

uint32_t checktable_find_end(const struct check_zone *z, uint32_t limit)
{
	uint32_t p, npages, end = FM_ZONE_HEAD_NPAGES;

	for (p = checktable_next(z, end, limit); p < limit;
	     p = checktable_next(z, p + npages, limit)) {
		npages = 1;
		if (judge_entry(z->table[p], p, limit) != NULL ||
		    !clear_behind(z, p, FM_EXTENT_NPAGES(z->table[p])))
			continue;
		npages = FM_EXTENT_NPAGES(z->table[p]);
		end = p + npages;
	}
	return end;
}

/* Extents behind the pages that the zone has: then it has more. */
static void check_end_entries(struct check *c, struct check_zone *z)
{
	const uint64_t off = checkzone_header(z->index) +
			     offsetof(struct fm_zone_disk, npages_reserved);
	uint32_t end = checktable_find_end(z, checkzone_limit(c, z->index)), p;

	if (end > z->npages) {
		check_damage(c, check_fix32(c, off, end), off, "zone header",
			     "npages_reserved is %" PRIu32 ", but extents end at %"
			     PRIu32, z->npages, end);
		z->npages = end;
	}
	for (p = checktable_next(z, z->npages, FM_ZONE_NPAGES); p < FM_ZONE_NPAGES;
	     p = checktable_next(z, p + 1, FM_ZONE_NPAGES))
		check_damage(c, set_entry(c, z, p, 0), checkzone_entry_off(z->index, p),
			     "page table",
			     "the page at %#" PRIx64 ", which the zone does not have,"
			     " has an entry",
			     checkzone_base(z->index) + p * FM_PAGE_LEN);
}

static bool page_is_free(const struct check_zone *z, uint32_t p, uint32_t npages)
{
	uint32_t q;

	if (npages > z->npages - p || checktable_next(z, p, p + npages) < p + npages)
		return false;
	for (q = p; q > FM_ZONE_HEAD_NPAGES && z->table[q - 1] == 0; q--)
		;
	return q == FM_ZONE_HEAD_NPAGES ||
	       q - 1 + FM_EXTENT_NPAGES(z->table[q - 1]) <= p;
}

/* What something leads to is there, or can be entered: the page itself says so by
 * its head. */
static void check_claims(struct check *c, struct check_zone *z)
{
	uint64_t base = checkzone_base(z->index), end = base + FM_ZONE_LEN;
	const struct check_claim *claim = checkzone_claim(c, base);
	uint32_t p, entry, was;
	bool fixed;

	for (; claim != NULL && claim->off < end;
	     claim = checkzone_claim(c, claim->off + 1)) {
		p = (claim->off - base) >> FM_PAGE_SHIFT;
		entry = FM_EXTENT(FM_EXTENT_META, 0, claim->npages);
		if (claim->npages == 0 || (p < z->npages && z->table[p] == entry))
			continue;
		fixed = false;
		was = p < z->npages ? z->table[p] : 0;
		if (p >= FM_ZONE_HEAD_NPAGES && p < z->npages) {
			z->table[p] = 0;
			if (page_is_free(z, p, claim->npages))
				fixed = set_entry(c, z, p, entry);
			else
				z->table[p] = was;
		}
		check_damage(c, fixed, checkzone_entry_off(z->index, p), "page table",
			     "the %s at %#" PRIx64 " has entry %#" PRIx32 ", not %#"
			     PRIx32,
			     claim->what, claim->off, was, entry);
	}
	c->next_claim = 0;
	checkzone_claim(c, base);
}

static void check_holes(struct check *c, struct check_zone *z)
{
	uint64_t off =
		checkzone_header(z->index) + offsetof(struct fm_zone_disk, holes);
	uint32_t was = z->head.holes, n = z->npages / FM_CHUNK_NPAGES;
	uint32_t whole = (uint32_t)((UINT64_C(1) << n) - 1);
	uint32_t holes = judge_holes(was, z->table, z->npages);

	z->head.holes = holes;
	if (was == holes)
		return;
	if ((was & whole & ~holes) != 0)
		check_damage(c, check_fix32(c, off, holes), off, "zone header",
			     "chunks (mask %#" PRIx32 ") that have extents are said to"
			     " be holes",
			     was & whole & ~holes);
	else
		check_note(c, check_fix32(c, off, holes), off, "zone header",
			   "holes (mask %#" PRIx32 ") beyond the zone's end",
			   was & ~whole);
}

static void check_extents(struct check *c, struct check_zone *z)
{
	uint32_t p = checktable_next(z, FM_ZONE_HEAD_NPAGES, z->npages), npages;
	const char *why;

	for (; p < z->npages && !c->stopped;
	     p = checktable_next(z, p + npages, z->npages)) {
		why = judge_entry(z->table[p], p, z->npages);
		if (why != NULL)
			mend_entry(c, z, p, why);
		check_overlaps(c, z, p);
		npages = FM_EXTENT_NPAGES(z->table[p]);
	}
}

void checktable_run(struct check *c, struct check_zone *z)
{
	check_end_entries(c, z);
	check_claims(c, z);
	check_extents(c, z);
	check_holes(c, z);
}
