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
#include <string.h>

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
	s->bitmap = slab_bitmap(h, off);
	s->hint = 0;
	return s;
}

/* Room for the unit's map of so many blocks. */
static uint8_t *make_free_map(struct zone *z, struct unit *u, uint32_t nblocks)
{
	uint32_t need = 64;

	while (need < nblocks)
		need *= 2;
	if (u->room < need) {
		u->free_map = z->free_maps + z->free_maps_used;
		u->room = need;
		z->free_maps_used += need;
	}
	return u->free_map;
}

void slab_load(struct fm_heap *h, struct zone *z, uint32_t index, unsigned cls)
{
	struct slab *s = set_up(h, z, index, cls);
	uint32_t nblocks = sizeclass_table[cls].nblocks, i;
	uint8_t *free_map = make_free_map(z, &z->unit[index], nblocks);

	s->nfree = 0;
	for (i = 0; i < nblocks; i++) {
		free_map[i] = (~s->bitmap[i / 64] >> i % 64) & 1;
		s->nfree += free_map[i];
	}
	__atomic_store_n(&z->unit[index].cls1, cls + 1, __ATOMIC_RELEASE);
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
	memset(make_free_map(z, &z->unit[index], s->nfree), 1, s->nfree);
	__atomic_store_n(&z->unit[index].cls1, cls + 1, __ATOMIC_RELEASE);
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

/* The first word of the bitmap, from the hint on, with free blocks; *free_bits
 * are they.  -1: there is none. */
static int find_word(struct slab *s, uint64_t *free_bits)
{
	uint32_t nblocks = sizeclass_table[s->cls].nblocks;
	uint32_t nwords = (nblocks + 63) / 64, w = s->hint, n;

	for (n = 0; n < nwords; n++, w = w + 1 < nwords ? w + 1 : 0) {
		*free_bits = ~s->bitmap[w];
		if (w == nwords - 1 && nblocks % 64 != 0)
			*free_bits &= (UINT64_C(1) << nblocks % 64) - 1;
		if (*free_bits != 0) {
			s->hint = w;
			return w;
		}
	}
	return -1;
}

/* The class's slab to take blocks from; its lock is held. */
static int front(struct fm_heap *h, struct slab_class *c, unsigned cls,
		 struct slab **s, int *w, uint64_t *free_bits)
{
	int rc;

	for (;;) {
		if (c->partial == NULL) {
			rc = provide(h, c, cls);
			if (rc < 0)
				return rc;
		}
		*s = c->partial;
		*w = find_word(*s, free_bits);
		if (*w >= 0)
			return 0;
		/* A wild store into the bitmap: leave the slab be. */
		unlink_slab(c, *s);
		(*s)->nfree = 0;
	}
}

/* Set bits of a word of the bitmap, which are n. */
static void set_bits(struct slab_class *c, struct slab *s, int w, uint64_t bits,
		     uint32_t n)
{
	__atomic_store_n(&s->bitmap[w], s->bitmap[w] | bits, __ATOMIC_RELEASE);
	s->nfree = s->nfree > n ? s->nfree - n : 0;
	if (s->nfree == 0)
		unlink_slab(c, s);
}

static uint64_t block_off(const struct fm_heap *h, const struct slab *s, uint32_t i)
{
	return s->mem - h->base + (uint64_t)i * sizeclass_table[s->cls].size;
}

/* Move up to `want` blocks of one word into the magazine, the lowest on top. */
static uint32_t fill(struct fm_heap *h, struct slab_class *c, struct slab *s, int w,
		     uint64_t free_bits, struct fm_magazine_disk *mag, uint32_t want)
{
	uint64_t bits = 0, rest = free_bits;
	uint32_t n, i, top;

	for (n = 0; n < want && rest != 0; n++, rest &= rest - 1)
		bits |= rest & -rest;
	top = mag->count + n;
	for (rest = bits, i = top; rest != 0; rest &= rest - 1)
		__atomic_store_n(&mag->slot[--i],
				 block_off(h, s, w * 64 + __builtin_ctzll(rest)),
				 __ATOMIC_RELAXED);
	/* Bits last: until then the blocks are free twice over. */
	__atomic_store_n(&mag->count, top, __ATOMIC_RELEASE);
	set_bits(c, s, w, bits, n);
	return n;
}

int slab_refill(struct fm_heap *h, unsigned cls, struct fm_magazine_disk *mag,
		uint32_t want)
{
	struct slab_class *c = &h->cls[cls];
	uint64_t free_bits;
	uint32_t got = 0;
	struct slab *s;
	int w, rc = 0;

	pthread_mutex_lock(&c->lock);
	while (got < want && (got == 0 || c->partial != NULL)) {
		rc = front(h, c, cls, &s, &w, &free_bits);
		if (rc < 0)
			break;
		got += fill(h, c, s, w, free_bits, mag, want - got);
	}
	pthread_mutex_unlock(&c->lock);
	return got > 0 ? 0 : rc;
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

static struct unit *unit_of(const struct fm_heap *h, const struct slab *s)
{
	uint64_t off = s->mem - h->base;

	return &h->zones[off >> FM_ZONE_SHIFT]
			->unit[off % FM_ZONE_LEN >> FM_SLAB_SHIFT];
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
		__atomic_store_n(&unit_of(h, s)->cls1, 0, __ATOMIC_RELEASE);
		zone_free(h, FM_EXTENT_SLAB, s->mem - h->base);
	}
	return 0;
}

void slab_flush(struct fm_heap *h, unsigned cls, struct fm_magazine_disk *mag,
		uint32_t n)
{
	struct slab_class *c = &h->cls[cls];
	uint32_t top = mag->count;
	struct zone *z;

	pthread_mutex_lock(&c->lock);
	adopt_loaded(h, c);
	while (n-- > 0 && top > 0) {
		uint64_t off = mag->slot[top - 1];

		if (zone_get(h, off, &z) == 0)
			free_block(h, c, &z->slab[off % FM_ZONE_LEN >> FM_SLAB_SHIFT],
				   off);
		__atomic_store_n(&mag->count, --top, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&c->lock);
}

void slab_unmark(struct fm_heap *h, unsigned cls, uint64_t off)
{
	uint32_t entry = zone_entry(h, off & ~(FM_SLAB_LEN - 1));
	int i = block_at(cls, off);

	if (FM_EXTENT_KIND(entry) != FM_EXTENT_SLAB || FM_EXTENT_CLASS(entry) != cls ||
	    i < 0)
		return;
	slab_bitmap(h, off)[i / 64] &= ~(UINT64_C(1) << i % 64);
}

bool slab_has(const struct fm_heap *h, unsigned cls, uint64_t off)
{
	int i = block_at(cls, off);

	return i >= 0 && slab_bit(h, off, i);
}
