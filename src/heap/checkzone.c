/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking the zones of a pool: the directory and the headers, the order in which all
 * is looked at; and counting what is there.
 */
#include <config.h>

#include <inttypes.h>
#include <string.h>

#include "common/align.h"
#include "heap/check.h"
#include "heap/heap.h"
#include "heap/judge.h"

static const char dir_words[] = "zone directory", head_words[] = "zone header";

static bool read_header(struct check *c, uint32_t index, struct fm_zone_disk *disk)
{
	return check_read(c, checkzone_header(index), disk, sizeof(*disk));
}

/* --- before the walk --------------------------------------------------------- */

static bool read_directory(struct check *c)
{
	return c->file_len >= FM_ZONEDIR_OFF + FM_ZONEDIR_LEN &&
	       check_read(c, FM_ZONEDIR_OFF, c->dir, FM_ZONEDIR_LEN);
}

/* Where the zone ends by its header; 0: that is not sound. */
static uint64_t end_by_header(struct check *c, uint32_t index)
{
	enum fm_zone_kind kind = index == 0 ? FM_ZONE_NORMAL : c->dir[index];
	struct fm_zone_disk disk;

	if (kind != FM_ZONE_NORMAL && kind != FM_ZONE_HUGE)
		return FM_ZONE_DATA_OFF; /* it has no say */
	if (checkzone_header(index) + sizeof(disk) > c->file_len ||
	    !read_header(c, index, &disk) || judge_zone(&disk, index) != NULL)
		return 0;
	if (kind == FM_ZONE_NORMAL)
		return judge_nreserved(disk.npages_reserved, index, c->file_len) != NULL
			       ? 0
			       : checkzone_base(index) +
					 disk.npages_reserved * FM_PAGE_LEN;
	return judge_huge(&disk, index, c->file_len) != NULL
		       ? 0
		       : checkzone_base(index) + disk.huge_off + disk.huge_len;
}

uint64_t checkzone_find_end(struct check *c)
{
	uint64_t end = FM_ZONE_DATA_OFF,
		 n = (c->file_len + FM_ZONE_LEN - 1) >> FM_ZONE_SHIFT;
	uint32_t i;

	if (n > FM_MAX_NZONES)
		n = FM_MAX_NZONES;
	if (!read_directory(c))
		return 0;
	for (i = 0; i < n && !c->stopped; i++) {
		uint64_t at = end_by_header(c, i);

		if (at == 0)
			return 0;
		if (at > end)
			end = at;
	}
	return end;
}

uint32_t checkzone_entry(struct check *c, uint64_t off)
{
	uint64_t index = off >> FM_ZONE_SHIFT, word;
	uint32_t p = off % FM_ZONE_LEN >> FM_PAGE_SHIFT, entry;

	if (off % FM_PAGE_LEN != 0 || off < FM_ZONE_DATA_OFF || off >= c->heap_end ||
	    p < FM_ZONE_HEAD_NPAGES || (index > 0 && c->dir[index] != FM_ZONE_NORMAL))
		return 0;
	if (!check_read(c, align_down(checkzone_entry_off(index, p), sizeof(word)),
			&word, sizeof(word)))
		return 0;
	entry = p % 2 == 0 ? word : word >> 32;
	return judge_entry(entry, p, checkzone_limit(c, index)) == NULL ? entry : 0;
}

void checkzone_each_meta(struct check *c, uint32_t npages,
			 void (*fn)(struct check *c, uint64_t off, void *arg),
			 void *arg)
{
	uint32_t nzones = (c->heap_end + FM_ZONE_LEN - 1) >> FM_ZONE_SHIFT, i, p, limit;
	struct check_zone *z = c->zone;

	for (i = 0; i < nzones && !c->stopped; i++) {
		limit = checkzone_limit(c, i);
		if ((i > 0 && c->dir[i] != FM_ZONE_NORMAL) ||
		    limit < FM_ZONE_HEAD_NPAGES ||
		    !check_read(c, checkzone_base(i) + FM_ZONE_TABLE_OFF, z->table,
				sizeof(z->table)))
			continue;
		for (p = FM_ZONE_HEAD_NPAGES; p < limit; p++)
			if (z->table[p] == FM_EXTENT(FM_EXTENT_META, 0, npages) &&
			    npages <= limit - p)
				fn(c, checkzone_base(i) + p * FM_PAGE_LEN, arg);
	}
}

/* --- the heap's own extents -------------------------------------------------- */

const struct check_claim *checkzone_claim(struct check *c, uint64_t off)
{
	const struct check_claim *claim = c->claims.item;

	while (c->next_claim < c->claims.n && claim[c->next_claim].off < off)
		c->next_claim++;
	return c->next_claim < c->claims.n ? &claim[c->next_claim] : NULL;
}

static void check_meta(struct check *c, struct check_zone *z, uint32_t p)
{
	uint64_t off = checkzone_base(z->index) + p * FM_PAGE_LEN;
	uint32_t npages = FM_EXTENT_NPAGES(z->table[p]);
	const struct check_claim *claim = checkzone_claim(c, off);
	bool fixed = false;

	checkslab_pass(c, off, "free space");
	checkslab_pass(c, off + npages * FM_PAGE_LEN, "the heap's own pages");
	c->stats.meta_len += npages * FM_PAGE_LEN;
	if (claim != NULL && claim->off == off)
		return; /* of another length: check_claims() has told */
	if (!c->all_claimed)
		return; /* it may be behind what is broken */
	if (checkmeta_is_lost(c, off)) {
		fixed = check_fix32(c, checkzone_entry_off(z->index, p), 0);
		if (fixed)
			z->table[p] = 0;
	}
	check_damage(c, fixed, checkzone_entry_off(z->index, p), "page table",
		     "the heap's own %" PRIu32 " pages at %#" PRIx64 " belong to"
		     " nothing",
		     npages, off);
}

/* --- counting free pages ----------------------------------------------------- */

/* Pages [p, end) are free, but for holes: of those that have space, a stretch. */
static void count_stretch(struct check *c, uint32_t p, uint32_t end)
{
	uint32_t first = (p + FM_CHUNK_NPAGES - 1) / FM_CHUNK_NPAGES;

	c->stats.free_len += (end - p) * FM_PAGE_LEN;
	if ((end - p) * FM_PAGE_LEN > c->stats.largest_free_len)
		c->stats.largest_free_len = (end - p) * FM_PAGE_LEN;
	if (end / FM_CHUNK_NPAGES > first)
		c->stats.nfree_chunks += end / FM_CHUNK_NPAGES - first;
}

static bool is_hole(const struct check_zone *z, uint32_t p)
{
	return (z->head.holes >> p / FM_CHUNK_NPAGES & 1) != 0;
}

static void count_free(struct check *c, const struct check_zone *z)
{
	uint32_t p, q;

	for (p = FM_ZONE_HEAD_NPAGES; p < z->npages; p = q) {
		q = p + 1;
		if (z->table[p] != 0) {
			q = p + FM_EXTENT_NPAGES(z->table[p]);
			continue;
		}
		if (is_hole(z, p))
			continue;
		while (q < z->npages && z->table[q] == 0 && !is_hole(z, q))
			q++;
		count_stretch(c, p, q);
	}
	c->stats.nzones++;
	c->stats.nhole_chunks += __builtin_popcount(z->head.holes);
}

/* --- normal zones ------------------------------------------------------------ */

static bool zone_read(struct check *c, struct check_zone *z)
{
	uint64_t base = checkzone_base(z->index);

	return check_read(c, base + FM_ZONE_TABLE_OFF, z->table, sizeof(z->table)) &&
	       check_read(c, base + FM_ZONE_BITMAP_OFF, z->bitmap, sizeof(z->bitmap));
}

/* Of magic and index one can be made right by the other. */
static bool check_mark(struct check *c, struct check_zone *z)
{
	const char *why = judge_zone(&z->head, z->index);
	uint64_t mark = (uint64_t)z->index << 32 | FM_ZONE_MAGIC;
	bool known = z->head.magic == FM_ZONE_MAGIC || z->head.index == z->index;

	if (why == NULL)
		return true;
	check_damage(c, known && check_fix64(c, checkzone_header(z->index), mark),
		     checkzone_header(z->index), head_words, "zone %" PRIu32 ": %s",
		     z->index, why);
	return known;
}

/* npages_reserved; if need be what the table and the heap's end make of it. */
static bool check_nreserved(struct check *c, struct check_zone *z)
{
	const uint64_t off = checkzone_header(z->index) +
			     offsetof(struct fm_zone_disk, npages_reserved);
	const char *why =
		judge_nreserved(z->head.npages_reserved, z->index, c->heap_end);
	uint32_t limit = checkzone_limit(c, z->index), n;

	z->npages = z->head.npages_reserved;
	if (why == NULL)
		return true;
	n = align_up(checktable_find_end(z, limit), FM_CHUNK_NPAGES);
	z->npages = n < limit ? n : limit;
	check_damage(c, check_fix32(c, off, z->npages), off, head_words,
		     "zone %" PRIu32 ": %s", z->index, why);
	return true;
}

static void check_contents(struct check *c, struct check_zone *z)
{
	uint32_t p = checktable_next(z, FM_ZONE_HEAD_NPAGES, z->npages), npages;
	uint64_t off;

	for (; p < z->npages && !c->stopped;
	     p = checktable_next(z, p + npages, z->npages)) {
		npages = FM_EXTENT_NPAGES(z->table[p]);
		off = checkzone_base(z->index) + p * FM_PAGE_LEN;
		switch (FM_EXTENT_KIND(z->table[p])) {
		case FM_EXTENT_SLAB:
			checkslab_run(c, z, p);
			break;
		case FM_EXTENT_RUN:
			c->stats.nruns++;
			c->stats.run_len += npages * FM_PAGE_LEN;
			checkslab_block(c, off, npages * FM_PAGE_LEN);
			break;
		case FM_EXTENT_META:
			check_meta(c, z, p);
			break;
		}
	}
	checkslab_pass(c, checkzone_base(z->index) + FM_ZONE_LEN, "free space");
}

static void check_normal(struct check *c, uint32_t index)
{
	struct check_zone *z = c->zone;

	z->index = index;
	if (checkzone_limit(c, index) < FM_ZONE_HEAD_NPAGES) {
		check_damage(c, false, FM_ZONEDIR_OFF + index * sizeof(uint16_t),
			     dir_words,
			     "zone %" PRIu32 " is beyond the end of the heap", index);
		checkslab_pass(c, checkzone_base(index) + FM_ZONE_LEN, NULL);
		return;
	}
	if (!read_header(c, index, &z->head) || !zone_read(c, z))
		return;
	checktable_head(c, z);
	if (!check_mark(c, z) || !check_nreserved(c, z)) {
		checkslab_pass(c, checkzone_base(index) + FM_ZONE_LEN, NULL);
		return;
	}
	checktable_run(c, z);
	check_contents(c, z);
	count_free(c, z);
}

/* --- huge blocks and the directory ------------------------------------------- */

static bool set_kind(struct check *c, uint32_t index, enum fm_zone_kind kind)
{
	uint16_t value = kind;

	c->dir[index] = kind;
	return check_fix(c, FM_ZONEDIR_OFF + index * sizeof(value), &value,
			 sizeof(value));
}

/* The zones that a huge block covers are its own; what is said to be a zone of its
 * own there may be right, and the block's length wrong. */
static void check_covered(struct check *c, uint32_t index, uint32_t n)
{
	uint32_t i, kind;
	bool fixed;

	for (i = index + 1; i < index + n; i++) {
		kind = c->dir[i];
		if (kind == FM_ZONE_HUGE_MORE)
			continue;
		fixed = kind != FM_ZONE_NORMAL && kind != FM_ZONE_HUGE &&
			set_kind(c, i, FM_ZONE_HUGE_MORE);
		check_damage(c, fixed, FM_ZONEDIR_OFF + i * sizeof(uint16_t), dir_words,
			     "zone %" PRIu32 " is of kind %" PRIu32 ", but the huge"
			     " block of zone %" PRIu32 " covers it",
			     i, kind, index);
	}
}

/* The number of zones to go on by. */
static uint32_t check_huge(struct check *c, uint32_t index)
{
	struct check_zone *z = c->zone;
	const char *why;
	uint64_t off;
	uint32_t n = 1;

	z->index = index;
	if (!read_header(c, index, &z->head))
		return n;
	why = judge_huge(&z->head, index, c->heap_end);
	if (why != NULL)
		check_damage(c, false, checkzone_header(index), head_words,
			     "zone %" PRIu32 ": %s", index, why);
	if (!check_mark(c, z) || why != NULL) {
		/* Whose the zones behind it are cannot be known. */
		while (index + n < FM_MAX_NZONES &&
		       c->dir[index + n] == FM_ZONE_HUGE_MORE)
			n++;
		checkslab_pass(c, checkzone_base(index + n), NULL);
		return n;
	}
	n = judge_huge_span(&z->head);
	check_covered(c, index, n);
	off = checkzone_base(index) + z->head.huge_off;
	c->stats.nhuge++;
	c->stats.huge_len += z->head.huge_len;
	checkslab_block(c, off, z->head.huge_len);
	return n;
}

/* A kind that there is not: the header knows what the zone was last.  Never used: it
 * has none. */
static void check_unknown(struct check *c, uint32_t index)
{
	static const struct fm_zone_disk zero;
	uint32_t was = c->dir[index], kind = was;
	struct fm_zone_disk disk;

	if (checkzone_base(index) + sizeof(disk) > c->heap_end ||
	    !read_header(c, index, &disk))
		return;
	if (judge_zone(&disk, index) == NULL) {
		if (disk.huge_len == 0 &&
		    checkzone_limit(c, index) >= FM_ZONE_HEAD_NPAGES &&
		    judge_nreserved(disk.npages_reserved, index, c->heap_end) == NULL)
			kind = FM_ZONE_NORMAL;
		else if (disk.npages_reserved == 0 &&
			 judge_huge(&disk, index, c->heap_end) == NULL)
			kind = FM_ZONE_HUGE;
	} else if (memcmp(&disk, &zero, sizeof(disk)) == 0) {
		kind = FM_ZONE_UNUSED;
	}
	check_damage(c, kind != was && set_kind(c, index, kind),
		     FM_ZONEDIR_OFF + index * sizeof(uint16_t), dir_words,
		     "zone %" PRIu32 " is of unknown kind %" PRIu32, index, was);
}

static uint32_t check_zone(struct check *c, uint32_t index)
{
	uint64_t off = FM_ZONEDIR_OFF + index * sizeof(uint16_t);

	if (index > 0 && c->dir[index] > FM_ZONE_HUGE_MORE)
		check_unknown(c, index);
	switch (index == 0 ? FM_ZONE_NORMAL : c->dir[index]) {
	case FM_ZONE_NORMAL:
		check_normal(c, index);
		return 1;
	case FM_ZONE_HUGE:
		return check_huge(c, index);
	case FM_ZONE_HUGE_MORE:
		check_later(c, off, dir_words,
			    "zone %" PRIu32 " is left of a huge block", index);
		break;
	case FM_ZONE_UNUSED:
		break;
	default: /* nobody knows what is there */
		checkslab_pass(c, checkzone_base(index) + FM_ZONE_LEN, NULL);
		return 1;
	}
	checkslab_pass(c, checkzone_base(index) + FM_ZONE_LEN,
		       "a zone that is not used");
	return 1;
}

static void check_first_kind(struct check *c)
{
	unsigned was = c->dir[0];

	if (was != FM_ZONE_UNUSED)
		check_damage(c, set_kind(c, 0, FM_ZONE_UNUSED), FM_ZONEDIR_OFF,
			     dir_words, "the entry of zone 0 is %u", was);
}

/* --- figures ----------------------------------------------------------------- */

static void sum_up(struct fm_stats *stats)
{
	uint64_t slab_len = 0, held;
	unsigned cls;

	stats->nlive = stats->nruns + stats->nhuge;
	stats->live_len = stats->run_len + stats->huge_len;
	for (cls = 0; cls < SIZECLASS_N; cls++) {
		struct fm_class_stats *s = &stats->cls[cls];

		s->block_len = sizeclass_table[cls].size;
		stats->nlive += s->nlive;
		stats->live_len += s->nlive * s->block_len;
		slab_len += s->nslabs * FM_SLAB_LEN;
	}
	stats->backed_len =
		slab_len + stats->run_len + stats->huge_len + stats->free_len;
	held = stats->live_len + stats->nfree_chunks * FM_CHUNK_LEN;
	if (stats->backed_len > held)
		stats->fragmentation =
			(stats->backed_len - held) * 1000 / stats->backed_len;
}

void checkzone_run(struct check *c)
{
	uint32_t nzones = (c->heap_end + FM_ZONE_LEN - 1) >> FM_ZONE_SHIFT, i;

	if (!read_directory(c))
		return;
	check_first_kind(c);
	checkslab_pass(c, FM_ZONE_DATA_OFF, "no zone");
	for (i = 0; i < nzones && !c->stopped;)
		i += check_zone(c, i);
	checkslab_pass(c, UINT64_MAX, "no zone");
	sum_up(&c->stats);
}
