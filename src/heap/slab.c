/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slabs of small blocks: what their bitmaps say.
 *
 * The bitmaps in the file are the truth, and each change is one store.  The
 * thread that has a slab sets and clears bits of the first with plain stores.
 * Other threads free a block by setting its bit in the second with an atomic
 * one; the owner takes them over now and then: it clears the bits in the first,
 * and then in the second.  A process that dies in between leaves blocks that are
 * free in both, which is free.
 */
#include <config.h>

#include <string.h>

#include "heap/heap.h"
#include "heap/memtool.h"

/* --- bitmaps ----------------------------------------------------------------------- */

static uint32_t nwords_of(const struct fm_heap *h, unsigned cls)
{
	return (slab_nblocks(h, cls) + 63) / 64;
}

uint64_t slab_mask(const struct fm_heap *h, unsigned cls, uint32_t w)
{
	return sizeclass_mask(slab_nblocks(h, cls), w);
}

static uint64_t load(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

/* The second bitmap; NULL: class 0 of the first version has none. */
static uint64_t *second_of(const struct fm_heap *h, uint64_t off, unsigned cls)
{
	if (cls != 0)
		return slab_bitmap(h, off) + FM_SECOND_OFF / sizeof(uint64_t);
	if (!h->tiny)
		return NULL;
	return (uint64_t *)(h->base + slab_off(slab_number(off)) + FM_TINY_SECOND_OFF);
}

/* The number of the block that starts at off in a slab, or -1. */
static int block_at(const struct fm_heap *h, unsigned cls, uint64_t off)
{
	uint32_t in_slab = off % FM_SLAB_LEN;
	uint32_t i = sizeclass_index(cls, in_slab);

	if (i * sizeclass_table[cls].size != in_slab || i >= slab_nblocks(h, cls))
		return -1;
	return i;
}

/* --- slabs that come and go --------------------------------------------------------- */

static void set_up(struct fm_heap *h, uint64_t off, unsigned cls, uint16_t owner)
{
	struct slab *s = &h->slab[slab_number(off)];

	s->nblocks = slab_nblocks(h, cls);
	s->hint = 0;
	s->where = SLAB_NOWHERE;
	__atomic_store_n(&s->owner, owner, __ATOMIC_RELAXED);
	__atomic_store_n(&s->geometry, sizeclass_geometry[cls], __ATOMIC_RELEASE);
}

void slab_absorb(struct fm_heap *h, uint32_t number)
{
	struct slab *s = &h->slab[number];
	unsigned cls = sizeclass_geometry_class(s->geometry);
	uint64_t *first = slab_bitmap(h, slab_off(number)), mask, freed;
	uint64_t *second = second_of(h, slab_off(number), cls);
	uint32_t nfree = 0, nwords = nwords_of(h, cls), w;
	uint64_t free_bits;

	for (w = 0; w < nwords; w++) {
		mask = slab_mask(h, cls, w);
		freed = second != NULL ? __atomic_load_n(&second[w], __ATOMIC_SEQ_CST) : 0;
		/* Looked at after the word: who set a bit had pinned the slab.  But what
		 * is free in both was left so by a kill, and will be handed out. */
		if (freed != 0 && __atomic_load_n(&s->pins, __ATOMIC_SEQ_CST) != 0)
			freed &= ~load(&first[w]);
		if (freed != 0) {
			__atomic_store_n(&first[w], load(&first[w]) & ~freed,
					 __ATOMIC_RELEASE);
			__atomic_fetch_and(&second[w], ~freed, __ATOMIC_RELEASE);
		}
		free_bits = ~load(&first[w]) & mask;
		if (free_bits != 0)
			nfree += __builtin_popcountll(free_bits);
	}
	s->nfree = nfree;
	s->hint = 0;
}

/* What is free in it is counted when somebody wants to have it.  That may be as soon as
 * the geometry is there: a thread that frees a block does not need the zone's lock. */
void slab_load(struct fm_heap *h, uint64_t off, unsigned cls)
{
	uint32_t number = slab_number(off);
	struct loose_slabs *loose = &h->loose[cls];
	struct slab *s = &h->slab[number];

	pthread_mutex_lock(&loose->lock);
	set_up(h, off, cls, LOOSE);
	if (slab_has_second(h, cls)) {
		s->where = SLAB_LOOSE;
		s->prev = 0;
		s->next = loose->first;
		if (s->next != 0)
			h->slab[s->next].prev = number;
		__atomic_store_n(&loose->first, number, __ATOMIC_RELEASE);
		__atomic_store_n(&h->loose_loaded, true, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&loose->lock);
}

void slab_prepare(struct fm_heap *h, uint64_t off, unsigned cls)
{
	uint64_t *second = second_of(h, off, cls), *first = slab_bitmap(h, off);
	unsigned w;

	/* Atomic, for slab_has() may look at any time. */
	for (w = 0; w < FM_BITMAP_LEN / sizeof(uint64_t); w++) {
		__atomic_store_n(&first[w], 0, __ATOMIC_RELAXED);
		if (cls == 0)
			__atomic_store_n(&second[w], 0, __ATOMIC_RELAXED);
	}
	set_up(h, off, cls, UNBORN);
	h->slab[slab_number(off)].nfree = slab_nblocks(h, cls);
	memtool_free(h->base + off, (uint64_t)slab_nblocks(h, cls) *
				    sizeclass_table[cls].size);
}

void slab_forget(struct fm_heap *h, uint32_t number)
{
	__atomic_store_n(&h->slab[number].geometry, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&h->slab[number].owner, LOOSE, __ATOMIC_RELEASE);
}

int slab_find(const struct fm_heap *h, uint32_t number)
{
	const struct slab *s = &h->slab[number];
	unsigned cls = sizeclass_geometry_class(s->geometry);
	const uint64_t *first = slab_bitmap(h, slab_off(number));
	uint32_t w, nwords = nwords_of(h, cls);

	for (w = s->hint; w < nwords; w++)
		if ((~load(&first[w]) & slab_mask(h, cls, w)) != 0)
			return w;
	return -1;
}

/* --- blocks ------------------------------------------------------------------------- */

static bool is_set(const uint64_t *bitmap, int i)
{
	return (__atomic_load_n(&bitmap[i / 64], __ATOMIC_ACQUIRE) >> i % 64 & 1) != 0;
}

bool slab_clear(struct fm_heap *h, uint64_t off, unsigned cls)
{
	uint64_t *first = slab_bitmap(h, off);
	int i = block_at(h, cls, off);

	if (i < 0 || !is_set(first, i) || is_set(second_of(h, off, cls), i))
		return false;
	__atomic_store_n(&first[i / 64], load(&first[i / 64]) &
			 ~(UINT64_C(1) << i % 64), __ATOMIC_RELEASE);
	return true;
}

/*
 * A block of a slab that has no second bitmap: nobody allocates from it, so all
 * change the first alike.  The last of its blocks takes the slab along; the lock,
 * lest that happen before *done.
 */
static bool free_of_old(struct fm_heap *h, uint64_t off, int i, uint64_t *done)
{
	uint64_t *first = slab_bitmap(h, off), bit = UINT64_C(1) << (i & 63), rest = 0;
	struct loose_slabs *loose = &h->loose[0];
	uint32_t number = slab_number(off), w;
	bool was_set, last;

	pthread_mutex_lock(&loose->lock);
	was_set = (__atomic_fetch_and(&first[i / 64], ~bit, __ATOMIC_ACQ_REL) & bit) != 0;
	if (was_set && done != NULL)
		__atomic_store_n(done, 0, __ATOMIC_RELEASE);
	for (w = 0; w < nwords_of(h, 0); w++)
		rest |= load(&first[w]);
	last = was_set && rest == 0 &&
	       h->slab[number].geometry == sizeclass_geometry[0];
	if (last)
		slab_forget(h, number);
	pthread_mutex_unlock(&loose->lock);
	if (last)
		pages_free(h, FM_EXTENT_SLAB, slab_off(number), NULL);
	return was_set;
}

static void pin(struct slab *s)
{
	uint8_t n = __atomic_load_n(&s->pins, __ATOMIC_RELAXED);

	do
		while (n == UINT8_MAX)	/* as many as can be counted */
			n = __atomic_load_n(&s->pins, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(&s->pins, &n, n + 1, true, __ATOMIC_SEQ_CST,
					    __ATOMIC_RELAXED));
}

bool slab_free_remote(struct fm_heap *h, uint64_t off, unsigned cls, uint64_t *done)
{
	struct slab *s = &h->slab[slab_number(off)];
	uint64_t *first = slab_bitmap(h, off), *second = second_of(h, off, cls);
	int i = block_at(h, cls, off);
	uint64_t bit = UINT64_C(1) << (i & 63);
	bool freed;

	if (i < 0)
		return false;
	if (second == NULL)
		return free_of_old(h, off, i, done);
	/* The owner must not absorb it, and allocate the block again, before *done:
	 * a process killed in between would free it a second time. */
	if (done != NULL)
		pin(s);
	/* (Two who free one block at the same moment, and the owner absorbing the
	 * one between these two looks, would pass.  They are in error.) */
	freed = is_set(first, i) &&
		(__atomic_fetch_or(&second[i / 64], bit, __ATOMIC_SEQ_CST) & bit) == 0;
	if (done != NULL) {
		__atomic_store_n(done, 0, __ATOMIC_RELEASE);
		__atomic_fetch_sub(&s->pins, 1, __ATOMIC_SEQ_CST);
	}
	return freed;
}

bool slab_has(const struct fm_heap *h, unsigned cls, uint64_t off)
{
	const uint64_t *second = second_of(h, off, cls);
	int i = block_at(h, cls, off);

	return i >= 0 && is_set(slab_bitmap(h, off), i) &&
	       (second == NULL || !is_set(second, i));
}

void slab_unmark(struct fm_heap *h, unsigned cls, uint64_t off)
{
	uint32_t entry = zone_entry(h, off & ~(FM_SLAB_LEN - 1));
	int i = block_at(h, cls, off);

	if (FM_EXTENT_KIND(entry) != FM_EXTENT_SLAB || FM_EXTENT_CLASS(entry) != cls ||
	    i < 0)
		return;
	slab_bitmap(h, off)[i / 64] &= ~(UINT64_C(1) << i % 64);
}
