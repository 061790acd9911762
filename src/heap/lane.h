/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes: the slabs that each thread has to itself, and allocating and freeing
 * small blocks in them, with no lock (after Leijen, Zorn and de Moura, "Mimalloc:
 * Free List Sharding in Action", 2019; with bitmaps in the file for the free
 * lists).
 *
 * A lane belongs to one thread until that ends.  Nothing of it is in the file.
 */
#ifndef FM_HEAP_LANE_H
#define FM_HEAP_LANE_H

#include "heap/heap.h"

#define LANE_NRECENT 32u

/*
 * Where the thread takes blocks of a class from.  First those that it freed of
 * late, which are likely to be in the cache, or found free in its slabs: a ring of
 * their offsets, the newest before `top`, 0: none.  They are of slabs of the
 * lane's, and free in their slabs as any; so one may be allocated by now, and then
 * it is passed over.  Second, a word of the first bitmap of the current slab;
 * without one, a word of zeroes and a mask of none.
 */
struct lane_class {
	uint64_t *word;
	uint64_t mask;		/* the bits that are of blocks */
	unsigned char *block;	/* that of bit 0 */
	uint32_t size;		/* bytes of a block */
	uint32_t inverse;	/* of that: see sizeclass_index() */
	uint32_t slab;		/* number of the current slab, 0: none */
	uint32_t top;
	uint64_t recent[LANE_NRECENT];
} __attribute__((aligned(64)));

struct lane {
	struct lane_class cls[SIZECLASS_N];
	struct {
		uint32_t partial, full;
	} slabs[SIZECLASS_N];
	uint32_t number;
	uint32_t nadded;	/* slabs made for it so far */
	struct page_stock stock;
	/* Bytes that the thread freed in slabs of other lanes; from foreign_max on it
	 * should see whether those are idle. */
	uint64_t foreign, foreign_max;
	bool taken;		/* guarded by lane_lock */

	/* For all but the short ways (see threads.c), and for whoever reclaims. */
	pthread_mutex_t lock;
	const uint32_t *inside;	/* as tcache.inside of the thread; NULL: it never is */
	bool stopped;		/* for a fork that is under way */
	bool lost;		/* at the fork its thread could not be stopped */
	bool active;		/* the lock was used; atomic */
	bool bare;		/* it was not since all was reclaimed; atomic */
	/* Slabs of the thread's that others freed blocks of; any thread adds, the
	 * owner takes all.  LANE_CLOSED: no thread has the lane. */
	uint32_t remote __attribute__((aligned(64)));
};

#define LANE_CLOSED UINT32_MAX

/*
 * The calling thread's target pool and its lane there, for the inline
 * functions.  Void unless `epoch` is that of the registry, which goes up
 * whenever a pool is closed, a target chosen, or the process forked.
 */
struct tcache {
	uint64_t epoch;
	uint32_t *inside;	/* to 1: the thread may be in a short way; atomic */
	struct lane *lane;
	unsigned char *base;
	uint64_t len;		/* bytes from base that blocks may be in */
	struct slab *slab;
	struct fm_heap *h;
};

extern __thread struct tcache tcache
	__attribute__((tls_model("initial-exec"), visibility("hidden")));

/* --- threads.c: which thread has which lane ------------------------------------ */

void lane_open(struct fm_heap *h);
/* A writer closes: nobody has a lane any more; empty slabs are given back. */
void lane_close(struct fm_heap *h);
void lane_destroy(struct fm_heap *h);
/* No lane has anything any more, and no slab is loose; all locks are held, and no thread
 * is at the pool. */
void lane_reset(struct fm_heap *h);

/* The calling thread's lane of the pool; NULL: too many threads, or no memory, or
 * the thread is ending. */
struct lane *lane_get(struct fm_heap *h);
/* The same, and NULL for a thread that has allocated nothing and freed little. */
struct lane *lane_get_to_free(struct fm_heap *h);
/* The lane of such threads; NULL: no memory. */
struct lane *lane_get_shared(struct fm_heap *h);

/*
 * Let all use what threads have and do not use: free blocks, and pages for slabs.
 * Of those threads that did not need their lock for some time; or of all, the caller
 * included.  Whether there was anything.  No lock of the pool's may be held but those
 * before lane.lock.
 */
bool lanes_reclaim(struct fm_heap *h, bool all);

/* In the child of fork(2), with all locks of the heap (heap_lock_all): lanes of threads
 * that are not there are free for new ones. */
void lanes_in_child(struct fm_heap *h);

/* The thread is about to use its lane; the lock is held. */
static inline void lane_in_use(struct lane *lane)
{
	__atomic_store_n(&lane->active, true, __ATOMIC_RELAXED);
	__atomic_store_n(&lane->bare, false, __ATOMIC_RELAXED);
}

/* Say that the thread is in a short way, and that it is not any more.  The barrier
 * is for the compiler. */
static inline void lane_enter(void)
{
	__atomic_store_n(tcache.inside, 1, __ATOMIC_RELAXED);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static inline void lane_leave(void)
{
	__atomic_store_n(tcache.inside, 0, __ATOMIC_RELEASE);
}

/* --- lane.c: the slabs of a lane ----------------------------------------------------- */

void lane_set_up(struct fm_heap *h, struct lane *lane, uint16_t number);
/* The lane has nothing any more, whatever it had. */
void lane_clear(struct fm_heap *h, struct lane *lane, uint16_t number);
/* Let others have all that the lane does not use, or all that it has for good; its
 * lock is held, and its thread is not inside.  Whether there was anything. */
bool lane_release(struct fm_heap *h, struct lane *lane);
void lane_retire(struct fm_heap *h, struct lane *lane);
/* Give empty slabs back, of the calling thread's and of those that no lane has; or
 * just of those: whether there were any. */
void lane_tidy(struct fm_heap *h);
bool lane_drop_loose(struct fm_heap *h);

/* A block of the class: 0 and *off, which is stored before the block is allocated,
 * or -errno. */
int lane_alloc(struct fm_heap *h, unsigned cls, uint64_t *off);
/* Free the block of a slab at off: -EINVAL if none of the program's is there.
 * *done: as of pages_free(). */
int lane_free(struct fm_heap *h, uint64_t off, uint64_t *done);

/* The word of the first bitmap that has the bit of block i of the slab at off. */
static inline uint64_t *lane_word(unsigned char *base, uint64_t off, uint32_t i)
{
	return (uint64_t *)(base + (off & ~(FM_ZONE_LEN - 1)) + FM_ZONE_BITMAP_OFF +
			    (off % FM_ZONE_LEN >> FM_SLAB_SHIFT) * FM_BITMAP_LEN) +
	       i / 64;
}

/* Take the block that is newest in the ring: NULL if there is none, or it is
 * allocated by now. */
static inline void *lane_take_recent(unsigned char *base, struct slab *slabs,
				     struct lane_class *c)
{
	uint32_t top = (c->top - 1) % LANE_NRECENT, i;
	uint64_t off = c->recent[top], *word, bits, bit;

	if (off == 0)
		return NULL;
	c->recent[top] = 0;
	c->top = top;
	i = off % FM_SLAB_LEN * c->inverse >> 32;
	word = lane_word(base, off, i);
	bit = UINT64_C(1) << i % 64;
	bits = __atomic_load_n(word, __ATOMIC_RELAXED);
	if (__builtin_expect((bits & bit) != 0, 0))
		return NULL;
	__atomic_store_n(word, bits | bit, __ATOMIC_RELEASE);
	slabs[off >> FM_SLAB_SHIFT].nfree--;
	return base + off;
}

/* Take a block of the current word: its address, or NULL. */
static inline void *lane_take_next(struct lane_class *c)
{
	uint64_t word = __atomic_load_n(c->word, __ATOMIC_RELAXED);
	uint64_t free_bits = ~word & c->mask;

	if (__builtin_expect(free_bits == 0, 0))
		return NULL;
	__atomic_store_n(c->word, word | (free_bits & -free_bits), __ATOMIC_RELEASE);
	return c->block + (uint64_t)__builtin_ctzll(free_bits) * c->size;
}

static inline void lane_remember(struct lane_class *c, uint64_t off)
{
	c->recent[c->top % LANE_NRECENT] = off;
	c->top++;
}

/*
 * Free a block of a slab that the lane owns: false if there is more to do than to
 * clear a bit, or if no allocated block is there.
 */
static inline bool lane_put(unsigned char *base, struct slab *slabs, struct lane *lane,
			    uint64_t off)
{
	struct slab *s = &slabs[off >> FM_SLAB_SHIFT];
	uint64_t geometry = __atomic_load_n(&s->geometry, __ATOMIC_RELAXED);
	uint32_t i = off % FM_SLAB_LEN * (uint32_t)geometry >> 32;
	uint64_t *word = lane_word(base, off, i), bits, bit = UINT64_C(1) << i % 64;

	/* What others freed is in the second bitmap: `remote` says so. */
	if (__builtin_expect(__atomic_load_n(&s->owner_only, __ATOMIC_RELAXED) !=
				     lane->number, 0))
		return false;
	bits = __atomic_load_n(word, __ATOMIC_RELAXED);
	if (__builtin_expect(i * sizeclass_geometry_size(geometry) != off % FM_SLAB_LEN ||
			     (bits & bit) == 0 || s->nfree >= s->limit, 0))
		return false;
	__atomic_store_n(word, bits & ~bit, __ATOMIC_RELEASE);
	s->nfree++;
	lane_remember(&lane->cls[sizeclass_geometry_class(geometry)], off);
	return true;
}

/* The same for the first block of a full slab, and for one of another lane's. */
bool lane_put_other(struct fm_heap *h, struct lane *lane, uint64_t off);

#endif
