/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking the slabs of a zone: the bitmaps, and that what should be a block of any
 * kind is one.
 */
#include <config.h>

#include <inttypes.h>

#include "heap/check.h"
#include "heap/sizeclass.h"

/* --- what should be a block -------------------------------------------------- */

void checkslab_pass(struct check *c, uint64_t end, const char *why)
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
void checkslab_block(struct check *c, uint64_t off, uint64_t len)
{
	const struct check_ref *r;

	checkslab_pass(c, off, "free space");
	while ((r = next_ref(c, off + len)) != NULL)
		if (r->cls >= 0)
			check_note(c, false, r->from_off, "magazine",
				   "offset %#" PRIx64 " is no small block", r->off);
		else if (r->off == off && r->size > len)
			check_note(c, false, r->from_off, "root",
				   "its block at %#" PRIx64 " had %" PRIu64 " bytes and"
				   " has %" PRIu64 " now",
				   off, r->size, len);
}

/* --- slabs ------------------------------------------------------------------- */

/* A slab, as read. */
struct slab_view {
	uint64_t off;
	unsigned cls;
	uint32_t nblocks;
	uint64_t *first, *second; /* NULL: it has none */
	uint64_t first_off, second_off;
	uint32_t first_nwords, second_nwords;
	uint64_t tiny[FM_BITMAP_LEN / sizeof(uint64_t)];
};

static bool view_slab(struct check *c, struct check_zone *z, uint32_t p,
		      struct slab_view *v)
{
	uint32_t i = p / FM_SLAB_NPAGES, nwords = FM_BITMAP_LEN / sizeof(uint64_t);

	v->off = checkzone_base(z->index) + p * FM_PAGE_LEN;
	v->cls = FM_EXTENT_CLASS(z->table[p]);
	v->nblocks = sizeclass_nblocks(v->cls, c->tiny);
	v->first = z->bitmap[i];
	v->first_off =
		checkzone_base(z->index) + FM_ZONE_BITMAP_OFF + i * FM_BITMAP_LEN;
	v->first_nwords = v->second_nwords = v->cls == 0 ? nwords : nwords / 2;
	v->second = v->cls == 0 ? v->tiny : v->first + nwords / 2;
	v->second_off = v->cls == 0 ? v->off + FM_TINY_SECOND_OFF
				    : v->first_off + FM_SECOND_OFF;
	if (v->cls != 0)
		return true;
	if (c->tiny)
		return check_read(c, v->second_off, v->tiny, sizeof(v->tiny));
	v->second = NULL;
	return true;
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
		uint64_t set = v->first[w] & sizeclass_mask(v->nblocks, w);
		uint64_t freed = second_word(v, w);

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
		if (keep_bits(c, &v->first[w], sizeclass_mask(v->nblocks, w), off,
			      &fixed) && nbeyond++ == 0)
			beyond = off;
	}
	for (w = 0; v->second != NULL && w < v->second_nwords; w++) {
		off = v->second_off + w * sizeof(uint64_t);
		if (keep_bits(c, &v->second[w], sizeclass_mask(v->nblocks, w), off,
			      &fixed) && nbeyond++ == 0)
			beyond = off;
		if (keep_bits(c, &v->second[w], v->first[w], off, &fixed) &&
		    ntwice++ == 0)
			twice = off;
	}
	if (nbeyond > 0)
		check_note(c, fixed, beyond, "slab",
			   "bits beyond the last of its %" PRIu32 " blocks are set",
			   v->nblocks);
	if (ntwice > 0)
		check_note(c, fixed, twice, "slab",
			   "blocks were freed, and then taken over but for this");
}

/* A free block of a magazine, whose bit is set all the same. */
static void slot_to_slab(struct check *c, const struct slab_view *v,
			 const struct check_ref *r)
{
	const struct check_ref *before = r - (r > (struct check_ref *)c->refs.item);
	struct fm_class_stats *cls = &c->stats.cls[v->cls];
	uint32_t size = sizeclass_table[v->cls].size, at = r->off - v->off;

	if (r->cls != (int)v->cls || at % size != 0 || !slab_live(v, at / size)) {
		check_note(c, false, r->from_off, "magazine",
			   "offset %#" PRIx64 " is no block of its class", r->off);
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
		check_note(c, false, r->from_off, "root",
			   "offset %#" PRIx64 " is in a free block", r->off);
	else if (r->size != 0 && at % size != 0)
		check_note(c, false, r->from_off, "root",
			   "its block at %#" PRIx64 " is none any more: there is a"
			   " longer one around it",
			   r->off);
	else if (r->size > size)
		check_note(c, false, r->from_off, "root",
			   "its block at %#" PRIx64 " had %" PRIu64 " bytes and has %"
			   PRIu32 " now",
			   r->off, r->size, size);
}

void checkslab_run(struct check *c, struct check_zone *z, uint32_t p)
{
	const struct check_ref *r;
	struct slab_view v;

	if (!view_slab(c, z, p, &v))
		return;
	count_slab(c, &v);
	check_bits(c, &v);
	checkslab_pass(c, v.off, "free space");
	while ((r = next_ref(c, v.off + FM_SLAB_LEN)) != NULL)
		if (r->cls >= 0)
			slot_to_slab(c, &v, r);
		else
			root_to_slab(c, &v, r);
}
