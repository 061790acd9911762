/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes: the blocks that each thread keeps at hand, in magazines that lie in
 * the pool (after Bonwick and Adams, "Magazines and Vmem", 2001).  Taking or
 * putting a block is one store of a count, with no lock, and what a killed
 * process leaves in its magazines is free by definition.
 *
 * A lane belongs to one thread until that ends, and is then another's.
 */
#ifndef FM_HEAP_LANE_H
#define FM_HEAP_LANE_H

#include "heap/heap.h"

/*
 * The calling thread's target pool and its lane there, for the inline
 * functions.  Void unless `epoch` is that of the registry, which goes up
 * whenever a pool is closed, a target chosen, or the process forked.
 */
struct tcache {
	uint64_t epoch;
	struct fm_heap *h;
	unsigned char *base;
	uint64_t len;		/* bytes from base that blocks may be in */
	struct fm_lane_disk *lane;
};

extern __thread struct tcache tcache __attribute__((tls_model("initial-exec")));

/* Find the pool's lanes; changes nothing.  A damaged one ends the chain: what it
 * and those behind it hold stays allocated. */
void lane_open(struct fm_heap *h);
/* Empty the lanes that a killed process left full; before any zone is loaded. */
void lane_recover(struct fm_heap *h);
/* Whether a lane is at off. */
bool lane_known(const struct fm_heap *h, uint64_t off);
/* Give all blocks in magazines back to their slabs. */
void lane_close(struct fm_heap *h);

/* The calling thread's lane of the pool; NULL: too many threads, or no space
 * for another. */
struct fm_lane_disk *lane_get(struct fm_heap *h);

/* A block of the class, by way of the thread's lane if it can have one: 0 and
 * *off, or -errno. */
int lane_alloc(struct fm_heap *h, unsigned cls, uint64_t *off);
/* Free the block of a slab at off: -EINVAL if none of the program's is there. */
int lane_free(struct fm_heap *h, uint64_t off);

/* The byte that says whether the block at off is the program's; NULL if no block
 * of a slab starts there. */
static inline uint8_t *lane_free_byte(const struct fm_heap *h, uint64_t off, unsigned *cls)
{
	struct zone *z = __atomic_load_n(&h->zones[off >> FM_ZONE_SHIFT], __ATOMIC_ACQUIRE);
	uint32_t in_slab = off % FM_SLAB_LEN, i;
	struct unit *u;
	unsigned cls1;

	if (__builtin_expect(z == NULL, 0))
		return NULL;
	u = &z->unit[off % FM_ZONE_LEN >> FM_SLAB_SHIFT];
	cls1 = __atomic_load_n(&u->cls1, __ATOMIC_ACQUIRE);
	if (__builtin_expect(cls1 == 0, 0))
		return NULL;
	*cls = cls1 - 1;
	i = sizeclass_index(cls1 - 1, in_slab);
	if (__builtin_expect(i * sizeclass_table[cls1 - 1].size != in_slab ||
			     i >= sizeclass_table[cls1 - 1].nblocks, 0))
		return NULL;
	return &u->free_map[i];
}

/* Whether the block at off of a slab of this class is the program's. */
static inline bool lane_has(const struct fm_heap *h, unsigned cls, uint64_t off)
{
	const uint8_t *free_byte;

	/* No block of a zone that is not loaded is in a magazine.  Another thread
	 * may be loading it, so look at that once, and first. */
	if (__atomic_load_n(&h->zones[off >> FM_ZONE_SHIFT], __ATOMIC_ACQUIRE) == NULL)
		return slab_has(h, cls, off);
	free_byte = lane_free_byte(h, off, &cls);
	return free_byte != NULL && __atomic_load_n(free_byte, __ATOMIC_RELAXED) == 0;
}

/* Take the topmost block: its offset, or 0 if the magazine is empty. */
static inline uint64_t lane_pop(struct fm_heap *h, struct fm_magazine_disk *mag)
{
	uint32_t n = __atomic_load_n(&mag->count, __ATOMIC_RELAXED);
	uint64_t off;
	unsigned cls;

	if (__builtin_expect(n == 0, 0))
		return 0;
	off = mag->slot[n - 1];
	__atomic_store_n(&mag->count, n - 1, __ATOMIC_RELEASE);
	__atomic_store_n(lane_free_byte(h, off, &cls), 0, __ATOMIC_RELAXED);
	return off;
}

/* Put an allocated block: false if the magazine is full or it is no such. */
static inline bool lane_push(struct fm_heap *h, struct fm_lane_disk *lane, uint64_t off)
{
	struct fm_magazine_disk *mag;
	uint8_t *free_byte;
	unsigned cls = 0;
	uint32_t n;

	free_byte = lane_free_byte(h, off, &cls);
	mag = &lane->magazine[cls];
	n = __atomic_load_n(&mag->count, __ATOMIC_RELAXED);
	if (__builtin_expect(free_byte == NULL || n >= FM_MAGAZINE_NSLOTS ||
			     __atomic_load_n(free_byte, __ATOMIC_RELAXED) != 0, 0))
		return false;
	__atomic_store_n(free_byte, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&mag->slot[n], off, __ATOMIC_RELAXED);
	__atomic_store_n(&mag->count, n + 1, __ATOMIC_RELEASE);
	return true;
}

#endif
