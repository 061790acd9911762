/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking the zones of a pool: the directory, headers, page tables and bitmaps; and
 * counting what is in them.
 *
 * What an entry of a page table was before it was damaged cannot be told in general,
 * so nothing is freed on a suspicion: an entry that makes no sense becomes a run of
 * the pages that may have been its, and a reserved end that is too low is raised.
 */
#include <config.h>

#include <inttypes.h>
#include <string.h>

#include "common/align.h"
#include "heap/check.h"
#include "heap/heap.h"
#include "heap/judge.h"

static const char dir_words[] = "zone directory", head_words[] = "zone header",
		  table_words[] = "page table", bitmap_words[] = "slab";

static uint64_t base_of(uint32_t index)
{
	return index * FM_ZONE_LEN;
}

static uint64_t header_off(uint32_t index)
{
	return index == 0 ? FM_ZONE0_HEADER_OFF : base_of(index);
}

static uint64_t entry_off(uint32_t index, uint32_t p)
{
	return base_of(index) + FM_ZONE_TABLE_OFF + p * sizeof(uint32_t);
}

static bool read_header(struct check *c, uint32_t index, struct fm_zone_disk *disk)
{
	return check_read(c, header_off(index), disk, sizeof(*disk));
}

/* Pages that the zone can have before the heap ends. */
static uint32_t npages_limit(const struct check *c, uint32_t index)
{
	uint64_t n = (c->heap_end - base_of(index)) >> FM_PAGE_SHIFT;

	return n < FM_ZONE_NPAGES ? n : FM_ZONE_NPAGES;
}

/* --- before the walk --------------------------------------------------------------- */

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
		return FM_ZONE_DATA_OFF;	/* it has no say */
	if (header_off(index) + sizeof(disk) > c->file_len ||
	    !read_header(c, index, &disk) || judge_zone(&disk, index) != NULL)
		return 0;
	if (kind == FM_ZONE_NORMAL)
		return judge_nreserved(disk.npages_reserved, index, c->file_len) != NULL ?
		       0 : base_of(index) + disk.npages_reserved * FM_PAGE_LEN;
	return judge_huge(&disk, index, c->file_len) != NULL ?
	       0 : base_of(index) + disk.huge_off + disk.huge_len;
}

uint64_t checkzone_find_end(struct check *c)
{
	uint64_t end = FM_ZONE_DATA_OFF, n = (c->file_len + FM_ZONE_LEN - 1) >> FM_ZONE_SHIFT;
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
	if (!check_read(c, align_down(entry_off(index, p), sizeof(word)), &word,
			sizeof(word)))
		return 0;
	entry = p % 2 == 0 ? word : word >> 32;
	return judge_entry(entry, p, npages_limit(c, index)) == NULL ? entry : 0;
}

void checkzone_each_meta(struct check *c, uint32_t npages,
			 void (*fn)(struct check *c, uint64_t off, void *arg), void *arg)
{
	uint32_t nzones = (c->heap_end + FM_ZONE_LEN - 1) >> FM_ZONE_SHIFT, i, p, limit;
	struct check_zone *z = c->zone;

	for (i = 0; i < nzones && !c->stopped; i++) {
		limit = npages_limit(c, i);
		if ((i > 0 && c->dir[i] != FM_ZONE_NORMAL) || limit < FM_ZONE_HEAD_NPAGES ||
		    !check_read(c, base_of(i) + FM_ZONE_TABLE_OFF, z->table,
				sizeof(z->table)))
			continue;
		for (p = FM_ZONE_HEAD_NPAGES; p < limit; p++)
			if (z->table[p] == FM_EXTENT(FM_EXTENT_META, 0, npages) &&
			    npages <= limit - p)
				fn(c, base_of(i) + p * FM_PAGE_LEN, arg);
	}
}

/* --- what should be a block ---------------------------------------------------------- */

/* The refs before `end`, which are in no extent; why NULL: nobody can know. */
static void pass_refs(struct check *c, uint64_t end, const char *why)
{
	const struct check_ref *ref = c->refs.item;

	for (; c->next_ref < c->refs.n && ref[c->next_ref].off < end; c->next_ref++) {
		const struct check_ref *r = &ref[c->next_ref];

		if (why == NULL)
			continue;
		check_note(c, false, r->from_off, r->cls < 0 ? "root" : "magazine",
			   "offset %#" PRIx64 " is in %s", r->off, why);
	}
}

/* The next ref, if it is before `end`. */
static const struct check_ref *next_ref(struct check *c, uint64_t end)
{
	const struct check_ref *ref = c->refs.item;

	if (c->stopped || c->next_ref == c->refs.n || ref[c->next_ref].off >= end)
		return NULL;
	return &ref[c->next_ref++];
}

/* Refs into the block at [off, off + len); that of a run, or a huge one. */
static void refs_to_block(struct check *c, uint64_t off, uint64_t len)
{
	const struct check_ref *r;

	pass_refs(c, off, "free space");
	while ((r = next_ref(c, off + len)) != NULL)
		if (r->cls >= 0)
			check_note(c, false, r->from_off, "magazine",
				   "offset %#" PRIx64 " is no small block", r->off);
		else if (r->off == off && r->size > len)
			check_note(c, false, r->from_off, "root", "its block at %#" PRIx64
				   " had %" PRIu64 " bytes and has %" PRIu64 " now",
				   off, r->size, len);
}

/* --- slabs ----------------------------------------------------------------------------- */

/* A slab, as read. */
struct slab_view {
	uint64_t off;
	unsigned cls;
	uint32_t nblocks;
	uint64_t *first, *second;	/* NULL: it has none */
	uint64_t first_off, second_off;
	uint32_t first_nwords, second_nwords;
	uint64_t tiny[FM_BITMAP_LEN / sizeof(uint64_t)];
};

static bool view_slab(struct check *c, struct check_zone *z, uint32_t p,
		      struct slab_view *v)
{
	uint32_t i = p / FM_SLAB_NPAGES, nwords = FM_BITMAP_LEN / sizeof(uint64_t);

	v->off = base_of(z->index) + p * FM_PAGE_LEN;
	v->cls = FM_EXTENT_CLASS(z->table[p]);
	v->nblocks = v->cls == 0 && c->tiny ? FM_TINY_NBLOCKS :
					      sizeclass_table[v->cls].nblocks;
	v->first = z->bitmap[i];
	v->first_off = base_of(z->index) + FM_ZONE_BITMAP_OFF + i * FM_BITMAP_LEN;
	v->first_nwords = v->second_nwords = v->cls == 0 ? nwords : nwords / 2;
	v->second = v->cls == 0 ? v->tiny : v->first + nwords / 2;
	v->second_off = v->cls == 0 ? v->off + FM_TINY_SECOND_OFF :
				      v->first_off + FM_SECOND_OFF;
	if (v->cls != 0)
		return true;
	if (c->tiny)
		return check_read(c, v->second_off, v->tiny, sizeof(v->tiny));
	v->second = NULL;
	return true;
}

/* The bits of word w that are of blocks. */
static uint64_t mask_of(const struct slab_view *v, uint32_t w)
{
	uint32_t from = w * 64;

	if (from >= v->nblocks)
		return 0;
	return v->nblocks - from >= 64 ? UINT64_MAX :
					 (UINT64_C(1) << (v->nblocks - from)) - 1;
}

static uint64_t second_word(const struct slab_view *v, uint32_t w)
{
	return v->second != NULL && w < v->second_nwords ? v->second[w] : 0;
}

static bool slab_live(const struct slab_view *v, uint32_t i)
{
	return i < v->nblocks &&
	       ((v->first[i / 64] & ~second_word(v, i / 64)) >> i % 64 & 1) != 0;
}

static void count_slab(struct check *c, const struct slab_view *v)
{
	struct fm_class_stats *cls = &c->stats.cls[v->cls];
	uint64_t nlive = 0, nremote = 0;
	uint32_t w;

	for (w = 0; w * 64 < v->nblocks; w++) {
		uint64_t set = v->first[w] & mask_of(v, w), freed = second_word(v, w);

		nlive += __builtin_popcountll(set & ~freed);
		nremote += __builtin_popcountll(set & freed);
	}
	cls->nslabs++;
	cls->nlive += nlive;
	cls->nremote += nremote;
	cls->nfree += v->nblocks - nlive - nremote;
}

/* Clear the bits that are not in `keep` of a word: whether there were any. */
static bool keep_bits(struct check *c, uint64_t *word, uint64_t keep, uint64_t off,
		      bool *fixed)
{
	if ((*word & ~keep) == 0)
		return false;
	*word &= keep;
	*fixed = check_fix64(c, off, *word);
	return true;
}

/* Bits that mean nothing: those beyond the last block, and of blocks that are free in
 * both bitmaps. */
static void check_bits(struct check *c, struct slab_view *v)
{
	uint32_t w, nbeyond = 0, ntwice = 0;
	uint64_t beyond = 0, twice = 0, off;
	bool fixed = false;

	for (w = 0; w < v->first_nwords; w++) {
		off = v->first_off + w * sizeof(uint64_t);
		if (keep_bits(c, &v->first[w], mask_of(v, w), off, &fixed) &&
		    nbeyond++ == 0)
			beyond = off;
	}
	for (w = 0; v->second != NULL && w < v->second_nwords; w++) {
		off = v->second_off + w * sizeof(uint64_t);
		if (keep_bits(c, &v->second[w], mask_of(v, w), off, &fixed) &&
		    nbeyond++ == 0)
			beyond = off;
		if (keep_bits(c, &v->second[w], v->first[w], off, &fixed) &&
		    ntwice++ == 0)
			twice = off;
	}
	if (nbeyond > 0)
		check_note(c, fixed, beyond, bitmap_words, "bits beyond the last of its"
			   " %" PRIu32 " blocks are set", v->nblocks);
	if (ntwice > 0)
		check_note(c, fixed, twice, bitmap_words, "blocks were freed, and then"
			   " taken over but for this");
}

/* A free block of a magazine, whose bit is set all the same. */
static void slot_to_slab(struct check *c, const struct slab_view *v,
			 const struct check_ref *r)
{
	const struct check_ref *before = r - (r > (struct check_ref *)c->refs.item);
	struct fm_class_stats *cls = &c->stats.cls[v->cls];
	uint32_t size = sizeclass_table[v->cls].size, at = r->off - v->off;

	if (r->cls != (int)v->cls || at % size != 0 || !slab_live(v, at / size)) {
		check_note(c, false, r->from_off, "magazine", "offset %#" PRIx64
			   " is no block of its class", r->off);
		return;
	}
	if (before != r && before->off == r->off && before->cls == r->cls)
		return;
	cls->nlive--;
	cls->nfree++;
	c->stats.nmagazine++;
}

static void root_to_slab(struct check *c, const struct slab_view *v,
			 const struct check_ref *r)
{
	uint32_t size = sizeclass_table[v->cls].size, at = r->off - v->off;

	if (!slab_live(v, at / size))
		check_note(c, false, r->from_off, "root", "offset %#" PRIx64
			   " is in a free block", r->off);
	else if (r->size != 0 && at % size != 0)
		check_note(c, false, r->from_off, "root", "its block at %#" PRIx64
			   " is none any more: there is a longer one around it",
			   r->off);
	else if (r->size > size)
		check_note(c, false, r->from_off, "root", "its block at %#" PRIx64
			   " had %" PRIu64 " bytes and has %" PRIu32 " now", r->off,
			   r->size, size);
}

static void check_slab(struct check *c, struct check_zone *z, uint32_t p)
{
	const struct check_ref *r;
	struct slab_view v;

	if (!view_slab(c, z, p, &v))
		return;
	count_slab(c, &v);
	check_bits(c, &v);
	pass_refs(c, v.off, "free space");
	while ((r = next_ref(c, v.off + FM_SLAB_LEN)) != NULL)
		if (r->cls >= 0)
			slot_to_slab(c, &v, r);
		else
			root_to_slab(c, &v, r);
}

/* --- the heap's own extents --------------------------------------------------------------- */

/* The first claim that is not before off. */
static const struct check_claim *next_claim(struct check *c, uint64_t off)
{
	const struct check_claim *claim = c->claims.item;

	while (c->next_claim < c->claims.n && claim[c->next_claim].off < off)
		c->next_claim++;
	return c->next_claim < c->claims.n ? &claim[c->next_claim] : NULL;
}

static void check_meta(struct check *c, struct check_zone *z, uint32_t p)
{
	uint64_t off = base_of(z->index) + p * FM_PAGE_LEN;
	uint32_t npages = FM_EXTENT_NPAGES(z->table[p]);
	const struct check_claim *claim = next_claim(c, off);
	bool fixed = false;

	pass_refs(c, off, "free space");
	pass_refs(c, off + npages * FM_PAGE_LEN, "the heap's own pages");
	c->stats.meta_len += npages * FM_PAGE_LEN;
	if (claim != NULL && claim->off == off)
		return;		/* of another length: claim_entries() knows */
	if (!c->all_claimed)
		return;		/* it may be behind what is broken */
	if (checkmeta_is_lost(c, off)) {
		fixed = check_fix32(c, entry_off(z->index, p), 0);
		if (fixed)
			z->table[p] = 0;
	}
	check_damage(c, fixed, entry_off(z->index, p), table_words, "the heap's own %"
		     PRIu32 " pages at %#" PRIx64 " belong to nothing", npages, off);
}

/* --- page tables ----------------------------------------------------------------------------- */

/* The next page with an entry, from p on, before `end`. */
static uint32_t next_entry(const struct check_zone *z, uint32_t p, uint32_t end)
{
	while (p < end && z->table[p] == 0)
		p++;
	return p;
}

/* Whether there are no other entries in the extent that the entry of page p makes. */
static bool clear_behind(const struct check_zone *z, uint32_t p, uint32_t npages)
{
	return next_entry(z, p + 1, p + npages) >= p + npages;
}

/* Store an entry, here and, if repairs are made, in the file. */
static bool set_entry(struct check *c, struct check_zone *z, uint32_t p, uint32_t entry)
{
	z->table[p] = entry;
	return check_fix32(c, entry_off(z->index, p), entry);
}

/*
 * What an entry that is not sound may have been: if it can be told of a slab, or of
 * an extent with a length, that; else a run of all pages that nothing else claims, so
 * that none of them is given to somebody else.
 */
static uint32_t likely_entry(const struct check_zone *z, uint32_t p)
{
	uint32_t e = z->table[p], kind = FM_EXTENT_KIND(e), cls = FM_EXTENT_CLASS(e);
	uint32_t room = next_entry(z, p + 1, z->npages) - p, try;

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

	return FM_EXTENT_KIND(e) == FM_EXTENT_SLAB && FM_EXTENT_CLASS(e) >= SIZECLASS_N &&
	       judge_entry(FM_EXTENT(FM_EXTENT_SLAB, 0, FM_EXTENT_NPAGES(e)), p,
			   z->npages) == NULL;
}

static void mend_entry(struct check *c, struct check_zone *z, uint32_t p, const char *why)
{
	uint32_t was = z->table[p], entry = likely_entry(z, p);
	bool fixed = !is_classless(z, p) && check_fix32(c, entry_off(z->index, p), entry);

	z->table[p] = entry;
	check_damage(c, fixed, entry_off(z->index, p), table_words, "entry %#" PRIx32
		     " of the page at %#" PRIx64 ": %s; it may be %" PRIu32 " pages", was,
		     base_of(z->index) + p * FM_PAGE_LEN, why, FM_EXTENT_NPAGES(entry));
}

/* Entries among the further pages of an extent.  If one could be an extent itself,
 * which of the two is right cannot be told. */
static void check_overlaps(struct check *c, struct check_zone *z, uint32_t p)
{
	uint32_t end = p + FM_EXTENT_NPAGES(z->table[p]), q, entry;
	bool fixed;

	for (q = next_entry(z, p + 1, end); q < end; q = next_entry(z, q + 1, end)) {
		entry = z->table[q];
		fixed = judge_entry(entry, q, z->npages) != NULL &&
			check_fix32(c, entry_off(z->index, q), 0);
		check_damage(c, fixed, entry_off(z->index, q), table_words, "entry %#"
			     PRIx32 " of the page at %#" PRIx64 " is within the extent"
			     " at %#" PRIx64, entry, base_of(z->index) + q * FM_PAGE_LEN,
			     base_of(z->index) + p * FM_PAGE_LEN);
		z->table[q] = 0;
	}
}

/* The pages before the first that can be anybody's. */
static void check_head_entries(struct check *c, struct check_zone *z)
{
	uint32_t p = next_entry(z, 0, FM_ZONE_HEAD_NPAGES);

	for (; p < FM_ZONE_HEAD_NPAGES; p = next_entry(z, p + 1, FM_ZONE_HEAD_NPAGES))
		check_damage(c, set_entry(c, z, p, 0), entry_off(z->index, p), table_words,
			     "the zone's own page at %#" PRIx64 " has an entry",
			     base_of(z->index) + p * FM_PAGE_LEN);
}

/* Where the extents end that are sound if the zone has up to `limit` pages. */
static uint32_t find_end(const struct check_zone *z, uint32_t limit)
{
	uint32_t p, npages, end = FM_ZONE_HEAD_NPAGES;

	for (p = next_entry(z, end, limit); p < limit; p = next_entry(z, p + npages, limit)) {
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
	uint32_t limit = npages_limit(c, z->index), end = find_end(z, limit), p;

	if (end > z->npages) {
		check_damage(c, check_fix32(c, header_off(z->index) +
					       offsetof(struct fm_zone_disk, npages_reserved),
					    end),
			     header_off(z->index) +
				     offsetof(struct fm_zone_disk, npages_reserved),
			     head_words, "npages_reserved is %" PRIu32 ", but the zone's"
			     " extents end at %" PRIu32, z->npages, end);
		z->npages = end;
	}
	for (p = next_entry(z, z->npages, FM_ZONE_NPAGES); p < FM_ZONE_NPAGES;
	     p = next_entry(z, p + 1, FM_ZONE_NPAGES))
		check_damage(c, set_entry(c, z, p, 0), entry_off(z->index, p), table_words,
			     "the page at %#" PRIx64 ", which the zone does not have, has"
			     " an entry", base_of(z->index) + p * FM_PAGE_LEN);
}

static bool page_is_free(const struct check_zone *z, uint32_t p, uint32_t npages)
{
	uint32_t q;

	if (npages > z->npages - p || next_entry(z, p, p + npages) < p + npages)
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
	uint64_t base = base_of(z->index), end = base + FM_ZONE_LEN;
	const struct check_claim *claim = next_claim(c, base);
	uint32_t p, entry, was;
	bool fixed;

	for (; claim != NULL && claim->off < end; claim = next_claim(c, claim->off + 1)) {
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
		check_damage(c, fixed, entry_off(z->index, p), table_words, "the %s at %#"
			     PRIx64 " has entry %#" PRIx32 ", not %#" PRIx32, claim->what,
			     claim->off, was, entry);
	}
	c->next_claim = 0;
	next_claim(c, base);
}

static void check_holes(struct check *c, struct check_zone *z)
{
	uint64_t off = header_off(z->index) + offsetof(struct fm_zone_disk, holes);
	uint32_t was = z->head.holes, n = z->npages / FM_CHUNK_NPAGES;
	uint32_t whole = (uint32_t)((UINT64_C(1) << n) - 1);
	uint32_t holes = judge_holes(was, z->table, z->npages);

	z->head.holes = holes;
	if (was == holes)
		return;
	if ((was & whole & ~holes) != 0)
		check_damage(c, check_fix32(c, off, holes), off, head_words, "chunks (mask %#"
			     PRIx32 ") that have extents are said to be holes",
			     was & whole & ~holes);
	else
		check_note(c, check_fix32(c, off, holes), off, head_words, "holes (mask %#"
			   PRIx32 ") beyond the zone's end", was & ~whole);
}

/* --- counting free pages ------------------------------------------------------------------ */

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

/* --- normal zones -------------------------------------------------------------------------- */

static bool zone_read(struct check *c, struct check_zone *z)
{
	uint64_t base = base_of(z->index);

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
	check_damage(c, known && check_fix64(c, header_off(z->index), mark),
		     header_off(z->index), head_words, "zone %" PRIu32 ": %s", z->index,
		     why);
	return known;
}

/* npages_reserved; if need be what the table and the heap's end make of it. */
static bool check_nreserved(struct check *c, struct check_zone *z)
{
	const uint64_t off = header_off(z->index) +
			     offsetof(struct fm_zone_disk, npages_reserved);
	const char *why = judge_nreserved(z->head.npages_reserved, z->index, c->heap_end);
	uint32_t limit = npages_limit(c, z->index), n;

	z->npages = z->head.npages_reserved;
	if (why == NULL)
		return true;
	n = align_up(find_end(z, limit), FM_CHUNK_NPAGES);
	z->npages = n < limit ? n : limit;
	check_damage(c, check_fix32(c, off, z->npages), off, head_words, "zone %" PRIu32
		     ": %s", z->index, why);
	return true;
}

static void check_extents(struct check *c, struct check_zone *z)
{
	uint32_t p = next_entry(z, FM_ZONE_HEAD_NPAGES, z->npages), npages;
	const char *why;

	for (; p < z->npages && !c->stopped; p = next_entry(z, p + npages, z->npages)) {
		why = judge_entry(z->table[p], p, z->npages);
		if (why != NULL)
			mend_entry(c, z, p, why);
		check_overlaps(c, z, p);
		npages = FM_EXTENT_NPAGES(z->table[p]);
	}
}

static void check_contents(struct check *c, struct check_zone *z)
{
	uint32_t p = next_entry(z, FM_ZONE_HEAD_NPAGES, z->npages), npages;
	uint64_t off;

	for (; p < z->npages && !c->stopped; p = next_entry(z, p + npages, z->npages)) {
		npages = FM_EXTENT_NPAGES(z->table[p]);
		off = base_of(z->index) + p * FM_PAGE_LEN;
		switch (FM_EXTENT_KIND(z->table[p])) {
		case FM_EXTENT_SLAB:
			check_slab(c, z, p);
			break;
		case FM_EXTENT_RUN:
			c->stats.nruns++;
			c->stats.run_len += npages * FM_PAGE_LEN;
			refs_to_block(c, off, npages * FM_PAGE_LEN);
			break;
		case FM_EXTENT_META:
			check_meta(c, z, p);
			break;
		}
	}
	pass_refs(c, base_of(z->index) + FM_ZONE_LEN, "free space");
}

static void check_normal(struct check *c, uint32_t index)
{
	struct check_zone *z = c->zone;

	z->index = index;
	if (npages_limit(c, index) < FM_ZONE_HEAD_NPAGES) {
		check_damage(c, false, FM_ZONEDIR_OFF + index * sizeof(uint16_t), dir_words,
			     "zone %" PRIu32 " is beyond the end of the heap", index);
		pass_refs(c, base_of(index) + FM_ZONE_LEN, NULL);
		return;
	}
	if (!read_header(c, index, &z->head) || !zone_read(c, z))
		return;
	check_head_entries(c, z);
	if (!check_mark(c, z) || !check_nreserved(c, z)) {
		pass_refs(c, base_of(index) + FM_ZONE_LEN, NULL);
		return;
	}
	check_end_entries(c, z);
	check_claims(c, z);
	check_extents(c, z);
	check_holes(c, z);
	check_contents(c, z);
	count_free(c, z);
}

/* --- huge blocks and the directory ------------------------------------------------------------ */

static bool set_kind(struct check *c, uint32_t index, enum fm_zone_kind kind)
{
	uint16_t value = kind;

	c->dir[index] = kind;
	return check_fix(c, FM_ZONEDIR_OFF + index * sizeof(value), &value, sizeof(value));
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
			     "zone %" PRIu32 " is of kind %" PRIu32 ", but the huge block of"
			     " zone %" PRIu32 " covers it", i, kind, index);
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
		check_damage(c, false, header_off(index), head_words, "zone %" PRIu32
			     ": %s", index, why);
	if (!check_mark(c, z) || why != NULL) {
		/* Whose the zones behind it are cannot be known. */
		while (index + n < FM_MAX_NZONES && c->dir[index + n] == FM_ZONE_HUGE_MORE)
			n++;
		pass_refs(c, base_of(index + n), NULL);
		return n;
	}
	n = judge_huge_span(&z->head);
	check_covered(c, index, n);
	off = base_of(index) + z->head.huge_off;
	c->stats.nhuge++;
	c->stats.huge_len += z->head.huge_len;
	refs_to_block(c, off, z->head.huge_len);
	return n;
}

/* A kind that there is not: the header knows what the zone was last.  Never used: it
 * has none. */
static void check_unknown(struct check *c, uint32_t index)
{
	static const struct fm_zone_disk zero;
	uint32_t was = c->dir[index], kind = was;
	struct fm_zone_disk disk;

	if (base_of(index) + sizeof(disk) > c->heap_end || !read_header(c, index, &disk))
		return;
	if (judge_zone(&disk, index) == NULL) {
		if (disk.huge_len == 0 && npages_limit(c, index) >= FM_ZONE_HEAD_NPAGES &&
		    judge_nreserved(disk.npages_reserved, index, c->heap_end) == NULL)
			kind = FM_ZONE_NORMAL;
		else if (disk.npages_reserved == 0 &&
			 judge_huge(&disk, index, c->heap_end) == NULL)
			kind = FM_ZONE_HUGE;
	} else if (memcmp(&disk, &zero, sizeof(disk)) == 0) {
		kind = FM_ZONE_UNUSED;
	}
	check_damage(c, kind != was && set_kind(c, index, kind),
		     FM_ZONEDIR_OFF + index * sizeof(uint16_t), dir_words, "zone %" PRIu32
		     " is of unknown kind %" PRIu32, index, was);
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
		check_later(c, off, dir_words, "zone %" PRIu32 " is left of a huge block",
			    index);
		break;
	case FM_ZONE_UNUSED:
		break;
	default:	/* nobody knows what is there */
		pass_refs(c, base_of(index) + FM_ZONE_LEN, NULL);
		return 1;
	}
	pass_refs(c, base_of(index) + FM_ZONE_LEN, "a zone that is not used");
	return 1;
}

static void check_first_kind(struct check *c)
{
	unsigned was = c->dir[0];

	if (was != FM_ZONE_UNUSED)
		check_damage(c, set_kind(c, 0, FM_ZONE_UNUSED), FM_ZONEDIR_OFF, dir_words,
			     "the entry of zone 0 is %u", was);
}

/* --- figures -------------------------------------------------------------------------------- */

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
	stats->backed_len = slab_len + stats->run_len + stats->huge_len + stats->free_len;
	held = stats->live_len + stats->nfree_chunks * FM_CHUNK_LEN;
	if (stats->backed_len > held)
		stats->fragmentation = (stats->backed_len - held) * 1000 /
				       stats->backed_len;
}

void checkzone_run(struct check *c)
{
	uint32_t nzones = (c->heap_end + FM_ZONE_LEN - 1) >> FM_ZONE_SHIFT, i;

	if (!read_directory(c))
		return;
	check_first_kind(c);
	pass_refs(c, FM_ZONE_DATA_OFF, "no zone");
	for (i = 0; i < nzones && !c->stopped;)
		i += check_zone(c, i);
	pass_refs(c, UINT64_MAX, "no zone");
	sum_up(&c->stats);
}
