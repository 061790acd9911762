/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small blocks: slabs of one size class, a bitmap for each.
 *
 * The bitmaps in the file are the truth: setting a bit allocates the block,
 * clearing it frees the block, each one store.  Counts and lists are of this
 * process; they are made from the bitmaps when a zone is loaded.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>

#include "heap/error.h"
#include "heap/heap.h"

void slab_init(struct fm_heap *h)
{
	unsigned cls;

	for (cls = 0; cls < SIZECLASS_N; cls++)
		pthread_mutex_init(&h->cls[cls].lock, NULL);
}

void slab_destroy(struct fm_heap *h)
{
	unsigned cls;

	for (cls = 0; cls < SIZECLASS_N; cls++)
		pthread_mutex_destroy(&h->cls[cls].lock);
}

static uint64_t *bitmap_of(const struct fm_heap *h, uint64_t off)
{
	return (uint64_t *)(h->base + (off & ~(FM_ZONE_LEN - 1)) + FM_ZONE_BITMAP_OFF +
			    (off % FM_ZONE_LEN >> FM_SLAB_SHIFT) * FM_BITMAP_LEN);
}

static void push(struct slab **list, struct slab *s)
{
	s->prev = NULL;
	s->next = *list;
	if (s->next != NULL)
		s->next->prev = s;
	/* Atomic for adopt_loaded(), which looks before it locks. */
	__atomic_store_n(list, s, __ATOMIC_RELEASE);
}

static void unlink_slab(struct slab_class *c, struct slab *s)
{
	if (s->prev != NULL)
		s->prev->next = s->next;
	else
		c->partial = s->next;
	if (s->next != NULL)
		s->next->prev = s->prev;
}

static struct slab *set_up(struct fm_heap *h, struct zone *z, uint32_t index,
			   unsigned cls)
{
	uint64_t off = z->index * FM_ZONE_LEN + ((uint64_t)index << FM_SLAB_SHIFT);
	struct slab *s = &z->slab[index];

	s->cls = cls;
	s->mem = h->base + off;
	s->bitmap = bitmap_of(h, off);
	s->hint = 0;
	return s;
}

void slab_load(struct fm_heap *h, struct zone *z, uint32_t index, unsigned cls)
{
	struct slab *s = set_up(h, z, index, cls);
	uint32_t nblocks = sizeclass_table[cls].nblocks, w, nused = 0;

	for (w = 0; w < nblocks / 64; w++)
		nused += __builtin_popcountll(s->bitmap[w]);
	if (nblocks % 64 != 0)
		nused += __builtin_popcountll(s->bitmap[w] &
					      ((1ull << nblocks % 64) - 1));
	s->nfree = nblocks - nused;
	if (s->nfree > 0)
		push(&h->cls[cls].loaded, s);
}

void slab_prepare(struct fm_heap *h, struct zone *z, uint32_t index, unsigned cls)
{
	struct slab *s = set_up(h, z, index, cls);
	unsigned w;

	/* Atomic, for slab_has() may look at any time. */
	for (w = 0; w < FM_BITMAP_LEN / sizeof(uint64_t); w++)
		__atomic_store_n(&s->bitmap[w], 0, __ATOMIC_RELAXED);
	s->nfree = sizeclass_table[cls].nblocks;
}

/* Take over the slabs of zones loaded meanwhile; the class's lock is held. */
static void adopt_loaded(struct fm_heap *h, struct slab_class *c)
{
	struct slab *s, *next;

	if (__atomic_load_n(&c->loaded, __ATOMIC_ACQUIRE) == NULL)
		return;
	pthread_mutex_lock(&h->page_lock);
	s = c->loaded;
	__atomic_store_n(&c->loaded, NULL, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&h->page_lock);
	for (; s != NULL; s = next) {
		next = s->next;
		push(&c->partial, s);
	}
}

/*
 * Put a slab with free blocks on the class's empty list: one that a zone not
 * looked at so far has, so that old holes are filled before the pool grows, or
 * a new one.
 */
static int provide(struct fm_heap *h, struct slab_class *c, unsigned cls)
{
	struct zone *z;
	uint64_t off;
	int rc;

	adopt_loaded(h, c);
	if (c->partial == NULL && zone_load_more(h))
		adopt_loaded(h, c);
	if (c->partial != NULL)
		return 0;
	rc = zone_alloc(h, FM_EXTENT_SLAB, cls, FM_SLAB_NPAGES, FM_SLAB_NPAGES, &off);
	if (rc < 0)
		return rc;
	rc = zone_get(h, off, &z);
	if (rc < 0)
		return rc;
	push(&c->partial, &z->slab[off % FM_ZONE_LEN >> FM_SLAB_SHIFT]);
	return 0;
}

/* Allocate a block of a slab that counts free ones: its number, or -1 if the
 * bitmap has none. */
static int take_bit(struct slab *s)
{
	uint32_t nblocks = sizeclass_table[s->cls].nblocks;
	uint32_t nwords = (nblocks + 63) / 64, w = s->hint, n, bit;
	uint64_t free_bits;

	for (n = 0; n < nwords; n++, w = w + 1 < nwords ? w + 1 : 0) {
		free_bits = ~s->bitmap[w];
		if (free_bits == 0)
			continue;
		/* Bits past the last block look free, but come last. */
		bit = w * 64 + __builtin_ctzll(free_bits);
		if (bit >= nblocks)
			continue;
		__atomic_store_n(&s->bitmap[w],
				 s->bitmap[w] | (free_bits & -free_bits),
				 __ATOMIC_RELEASE);
		s->hint = w;
		return bit;
	}
	return -1;
}

int slab_alloc(struct fm_heap *h, unsigned cls, uint64_t *off)
{
	struct slab_class *c = &h->cls[cls];
	struct slab *s;
	int i, rc = 0;

	pthread_mutex_lock(&c->lock);
	if (c->partial == NULL)
		rc = provide(h, c, cls);
	if (rc < 0)
		goto out;
	s = c->partial;
	i = take_bit(s);
	if (i < 0) {
		/* A wild store into the bitmap: leave the slab be. */
		unlink_slab(c, s);
		s->nfree = 0;
		rc = err_set(EUCLEAN, "the bitmap of the slab at offset %" PRIu64
			     " was changed from outside",
			     (uint64_t)(s->mem - h->base));
		goto out;
	}
	*off = s->mem - h->base + (uint64_t)i * sizeclass_table[cls].size;
	if (--s->nfree == 0)
		unlink_slab(c, s);
out:
	pthread_mutex_unlock(&c->lock);
	return rc;
}

/* The number of the block that starts at off in a slab, or -1. */
static int block_at(unsigned cls, uint64_t off)
{
	uint32_t in_slab = off % FM_SLAB_LEN;
	uint32_t i = sizeclass_index(cls, in_slab);

	if (i * sizeclass_table[cls].size != in_slab ||
	    i >= sizeclass_table[cls].nblocks)
		return -1;
	return i;
}

/* The class's lock is held; the slab may go away. */
static int free_block(struct fm_heap *h, struct slab_class *c, struct slab *s,
		      uint64_t off)
{
	int i = block_at(s->cls, off);
	uint64_t *word, bit;

	if (i < 0)
		return -EINVAL;
	word = &s->bitmap[i / 64];
	bit = 1ull << i % 64;
	if ((*word & bit) == 0)
		return -EINVAL;
	__atomic_store_n(word, *word & ~bit, __ATOMIC_RELEASE);
	if (s->nfree++ == 0)
		push(&c->partial, s);
	/* An empty slab goes back, but for a last one. */
	if (s->nfree == sizeclass_table[s->cls].nblocks &&
	    (s->prev != NULL || s->next != NULL)) {
		unlink_slab(c, s);
		zone_free(h, FM_EXTENT_SLAB, s->mem - h->base);
	}
	return 0;
}

int slab_free(struct fm_heap *h, uint64_t off)
{
	uint64_t slab_off = off & ~(FM_SLAB_LEN - 1);
	struct slab_class *c;
	uint32_t entry;
	struct zone *z;
	int rc;

	rc = zone_get(h, off, &z);
	if (rc < 0)
		return rc;
	entry = zone_entry(h, slab_off);
	if (FM_EXTENT_KIND(entry) != FM_EXTENT_SLAB)
		return -EINVAL;
	c = &h->cls[FM_EXTENT_CLASS(entry)];
	pthread_mutex_lock(&c->lock);
	adopt_loaded(h, c);
	/* With the lock it cannot change any more. */
	if (zone_entry(h, slab_off) == entry)
		rc = free_block(h, c, &z->slab[off % FM_ZONE_LEN >> FM_SLAB_SHIFT], off);
	else
		rc = -EINVAL;
	pthread_mutex_unlock(&c->lock);
	return rc;
}

bool slab_has(const struct fm_heap *h, unsigned cls, uint64_t off)
{
	int i = block_at(cls, off);

	return i >= 0 && (__atomic_load_n(&bitmap_of(h, off)[i / 64],
					  __ATOMIC_ACQUIRE) >> i % 64 & 1) != 0;
}
