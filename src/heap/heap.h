/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An open pool, as the files of this folder share it.
 *
 * Lock order, outermost first; each is a volatile mutex of this process:
 *   1. fm_heap.root_lock     named roots
 *   2. fm_heap.lane_lock     which thread has which lane
 *   3. slab_class.lock       the slabs of one size class, and their bitmaps
 *   4. fm_heap.page_lock     zones, extents, growth
 * The registry (registry.c) has a lock of its own, held only while opening and
 * closing, outside of all of these.
 */
#ifndef FM_HEAP_HEAP_H
#define FM_HEAP_HEAP_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <fmalloc.h>

#include "heap/layout.h"
#include "heap/sizeclass.h"

#define WINDOW_LEN (UINT64_C(1) << FM_WINDOW_BITS)
#define WINDOW_REGION_LEN ((uint64_t)FM_NWINDOWS << FM_WINDOW_BITS)

/*
 * A slab in memory: what its bitmap says, counted.  All fields are guarded by
 * the lock of the class; `bitmap`, `mem` and `cls` do not change while the
 * page table has the slab.
 * On one of the class's lists exactly while nfree > 0.
 */
struct slab {
	struct slab *next, *prev;
	uint64_t *bitmap;	/* in the pool */
	unsigned char *mem;	/* in the pool: the first block */
	uint16_t nfree;
	uint16_t hint;		/* word of the bitmap to look at first */
	uint8_t cls;
};

struct slab_class {
	pthread_mutex_t lock;
	struct slab *partial;	/* slabs with free blocks */
	struct slab *loaded;	/* such slabs of zones loaded since the list was
				 * last used; guarded by page_lock */
} __attribute__((aligned(64)));

/* What ffree() must know of 64 KiB: the class + 1 of the slab there, 0 if there
 * is none (atomic), and a byte a block that is 1 while the block is not the
 * program's, so that freeing it again is noticed. */
struct unit {
	uint8_t *free_map;
	uint32_t room;		/* bytes at free_map */
	uint8_t cls1;
};

/* Each unit may need room for more blocks several times, each time twice as
 * many or more. */
#define FREE_MAPS_LEN (2 * FM_ZONE_NSLABS * (FM_SLAB_LEN / 16))

/*
 * A normal zone in memory, made when the zone is first needed.  The free
 * extents of all such zones are on the lists of struct fm_heap; an extent is
 * known by the number of its first page, counted from the start of the pool.
 * `span` is the boundary tag: a free extent's length in pages at its first
 * and its last page, 0 at pages in use.  Guarded by page_lock; nreserved and
 * the table are also read without it, by atomic loads.
 */
struct zone {
	uint32_t index;
	uint32_t nreserved;	/* as in the header; stored atomically */
	uint32_t *table;	/* in the pool */
	struct fm_zone_disk *disk; /* in the pool */
	struct zone *next_growable;
	uint16_t span[FM_ZONE_NPAGES];
	uint32_t next[FM_ZONE_NPAGES], prev[FM_ZONE_NPAGES];
	struct unit unit[FM_ZONE_NSLABS];
	uint8_t *free_maps;	/* FREE_MAPS_LEN bytes, for those of the units */
	uint32_t free_maps_used;
	struct slab slab[FM_ZONE_NSLABS];
};

#define NBINS 72u	/* lists of free extents, by length: see zone.c */

/* What is known of a named root's slot: see root.c. */
struct root_index {
	uint64_t *slot_off;	/* open addressing; 0: free entry */
	uint32_t *hash;
	size_t nentries;	/* a power of two, or 0 */
	size_t nused;
	uint64_t *free_off;	/* free slots */
	size_t nfree, free_cap;
	uint64_t last_page_off;
	uint64_t seq;		/* highest in use */
	uint64_t nbad;		/* slots that are damaged */
	bool ready;
};

struct fm_heap {
	struct fm_info info;	/* first: what the program sees */
	unsigned char *base;
	struct fm_super_disk *super;
	uint16_t *zonedir;
	int fd;
	bool writable;
	bool forked;		/* this process is a child of the opener; then
				 * not writable */
	uint64_t map_len;	/* bytes mapped, and the most the pool can have */
	char path[512];		/* for messages; cut short if longer */
	uint32_t window;

	pthread_mutex_t page_lock;
	struct zone *zones[FM_MAX_NZONES];	/* NULL: not normal, or not loaded */
	struct zone *growable;	/* zones with unreserved pages */
	uint32_t load_next;	/* zones below are not all loaded yet */
	uint32_t bins[NBINS];	/* first page of the first extent; 0: none */
	uint64_t bins_used[2];	/* one bit a bin */

	struct slab_class cls[SIZECLASS_N];

	pthread_mutex_t lane_lock;
	struct fm_lane_disk *lane[FM_MAX_NLANES]; /* in the pool */
	bool lane_taken[FM_MAX_NLANES];
	uint32_t nlanes;

	pthread_mutex_t root_lock;
	struct root_index roots;
};

static inline uint64_t heap_end(const struct fm_heap *h)
{
	return __atomic_load_n(&h->super->heap_end, __ATOMIC_ACQUIRE);
}

/* Number of zones that the file has, whatever their kind. */
static inline uint32_t heap_nzones(const struct fm_heap *h)
{
	return (heap_end(h) + FM_ZONE_LEN - 1) >> FM_ZONE_SHIFT;
}

/*
 * No thread may be cancelled while it holds a lock of this library: it would
 * hold it for ever, and system calls are where threads are cancelled.
 */
static inline int cancel_disable(void)
{
	int state;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	return state;
}

static inline void cancel_restore(int state)
{
	pthread_setcancelstate(state, NULL);
}

/* --- registry.c: which pools are open, and the targets ------------------ */

/* The open pool whose window `addr` is in, or NULL. */
struct fm_heap *registry_find(const void *addr);
/* How often a pool was closed in the window; and the open pool there, if that
 * is still so, or NULL. */
uint64_t registry_generation(uint32_t window);
struct fm_heap *registry_get(uint32_t window, uint64_t generation);
/* Goes up when a pool is closed, a target chosen, or the process forked. */
extern uint64_t registry_epoch;	/* atomic */
/* The open pool that `fi` is, or NULL. */
struct fm_heap *registry_check(const struct fm_info *fi);
struct fm_heap *registry_target(void);
void registry_set_target(struct fm_heap *h);	/* NULL: none */
/* The same, but a thread that never chose a target has not done so now. */
void registry_offer_target(struct fm_heap *h);

/* Hold while a pool is being opened: fork(2) waits, for the child must know of
 * every lock that it shares.  Outermost of all locks. */
void registry_begin_open(void);
void registry_end_open(void);

/* Hold the registry's lock around finding a window and claiming it. */
void registry_lock(void);
void registry_unlock(void);
/* Storage for the pool of a window, zeroed; it is never unmapped, so that a
 * stale struct fm_info can be recognised.  NULL: in use, or no memory. */
struct fm_heap *registry_storage(uint32_t window);
void registry_add(struct fm_heap *h);
void registry_remove(struct fm_heap *h);
void registry_each(void (*fn)(struct fm_heap *h));

/* --- map.c: the one file that calls mmap, msync, fallocate -------------- */

/* Map `h->fd` into window `h->window`; sets base, map_len.  -EEXIST: something
 * else is there.  file_len: what must fit at least. */
int map_pool(struct fm_heap *h, uint64_t file_len);
void map_close(struct fm_heap *h);
int map_sync(struct fm_heap *h);

/* Make the file have space for [off, off + len), whole pages, so that no store
 * there can fail for want of it.  The bytes there are not changed, zero if new;
 * nobody may store into those that are zero meanwhile. */
int map_reserve(int fd, uint64_t off, uint64_t len);
/* Give the space of [off, off + len) back; the bytes read as zero then.
 * 0 or -errno; not being able to is no failure of the caller's. */
int map_punch(int fd, uint64_t off, uint64_t len);

/* Zeroed memory for this folder's own purposes, by whole pages.  The second is
 * for much that is looked at all over. */
void *map_anon(size_t len);
void *map_anon_huge(size_t len);
void map_anon_free(void *mem, size_t len);

/* --- zone.c: extents of pages -------------------------------------------- */

/* Allocate npages pages at a multiple of align_npages (a power of two, 32 MiB
 * at most) for `kind`; *off is where.  cls is of FM_EXTENT_SLAB. */
int zone_alloc(struct fm_heap *h, enum fm_extent_kind kind, unsigned cls,
	       uint32_t npages, uint32_t align_npages, uint64_t *off);
/* npages pages for the heap itself.  *pending, in the super, names them from
 * before they are allocated; the caller stores 0 there once they are linked. */
int zone_alloc_meta(struct fm_heap *h, uint32_t npages, uint64_t *pending,
		    uint64_t *off);
/* Free npages pages that a killed process had pending; before any zone is
 * loaded. */
void zone_drop_meta(struct fm_heap *h, uint64_t off, uint32_t npages);
/* The same for a block that no zone can hold.  align: bytes. */
int zone_alloc_huge(struct fm_heap *h, uint64_t len, uint64_t align,
		    uint64_t *off);
/* Whether the block could be had from zone_alloc(). */
bool zone_holds(uint64_t len, uint64_t align);

/* Load one of the zones not yet looked at, if any are left. */
bool zone_load_more(struct fm_heap *h);
/* The normal zone that `off` is in, loaded, with 0; else -EINVAL (no normal
 * zone there), -EUCLEAN, -ENOMEM. */
int zone_get(struct fm_heap *h, uint64_t off, struct zone **z);
/* The table entry of the page at `off`, 0 if there is none; loads nothing. */
uint32_t zone_entry(const struct fm_heap *h, uint64_t off);
/* Length of the huge block that starts at off; 0: none does. */
uint64_t zone_huge_len(const struct fm_heap *h, uint64_t off);

/* Free the extent of this kind that starts at off: -EINVAL if none does. */
int zone_free(struct fm_heap *h, enum fm_extent_kind kind, uint64_t off);
int zone_free_huge(struct fm_heap *h, uint64_t off);
/* Change the length of a block in place; -ENOSPC and the like: cannot. */
int zone_resize_run(struct fm_heap *h, uint64_t off, uint32_t npages);
int zone_resize_huge(struct fm_heap *h, uint64_t off, uint64_t len);

/* Get the space that the zone was promised, should any be missing. */
int zone_reserve(struct fm_heap *h, uint32_t index);

/* Check the zone directory, and finish what a kill left half done in it. */
int zone_open(struct fm_heap *h);
void zone_close(struct fm_heap *h);

/* --- slab.c: small blocks ------------------------------------------------ */

void slab_init(struct fm_heap *h);
void slab_destroy(struct fm_heap *h);
/* Called by zone.c, under its lock: a slab that a zone being loaded has, and
 * one that is about to be entered in the table. */
void slab_load(struct fm_heap *h, struct zone *z, uint32_t index, unsigned cls);
void slab_prepare(struct fm_heap *h, struct zone *z, uint32_t index, unsigned cls);
/* Move blocks of the class between its slabs and a magazine: up to `want` into
 * it (0, or -errno if not one could be had), or the topmost n out of it. */
int slab_refill(struct fm_heap *h, unsigned cls, struct fm_magazine_disk *mag,
		uint32_t want);
void slab_flush(struct fm_heap *h, unsigned cls, struct fm_magazine_disk *mag,
		uint32_t n);
/* Clear the bit of the block if there is one; for recovery, before any zone is
 * loaded. */
void slab_unmark(struct fm_heap *h, unsigned cls, uint64_t off);

/* How many blocks go between slabs and a magazine at a time. */
static inline uint32_t slab_batch(unsigned cls)
{
	uint32_t n = 65536 / sizeclass_table[cls].size;

	return n < 2 ? 2 : n > 32 ? 32 : n;
}

/* The bitmap of the slab that off is in, and whether bit i of it is set. */
static inline uint64_t *slab_bitmap(const struct fm_heap *h, uint64_t off)
{
	return (uint64_t *)(h->base + (off & ~(FM_ZONE_LEN - 1)) + FM_ZONE_BITMAP_OFF +
			    (off % FM_ZONE_LEN >> FM_SLAB_SHIFT) * FM_BITMAP_LEN);
}

static inline bool slab_bit(const struct fm_heap *h, uint64_t off, uint32_t i)
{
	return (__atomic_load_n(&slab_bitmap(h, off)[i / 64], __ATOMIC_ACQUIRE) >>
		i % 64 & 1) != 0;
}

/* Whether off is the start of an allocated block of a slab of this class. */
bool slab_has(const struct fm_heap *h, unsigned cls, uint64_t off);

/* --- alloc.c: blocks of any size ----------------------------------------- */

int alloc_block(struct fm_heap *h, size_t size, size_t align, uint64_t *off);
int alloc_free(struct fm_heap *h, uint64_t off);
/* Usable bytes of the block at off, 0 if no block starts there. */
uint64_t alloc_usable(const struct fm_heap *h, uint64_t off);
/* Let the allocated block at off have size bytes in place; false: it must move. */
bool alloc_resize(struct fm_heap *h, uint64_t off, size_t size);

/* --- super.c: the first page -------------------------------------------- */

/* A super for a new pool. */
int super_make(struct fm_super_disk *super);
/* 0, or -EINVAL (no pool's super), -EUCLEAN, -ENOTSUP, with words.  Looks at
 * nothing but the page itself. */
int super_check(const struct fm_super_disk *super);

/* --- pool.c: opening and closing ----------------------------------------- */

int pool_open(const char *path, int flags, bool *created, struct fm_heap **out);
void pool_close(struct fm_heap *h);

/* --- root.c ---------------------------------------------------------------- */

int root_set(struct fm_heap *h, const char *name, uint64_t off, const char *type);
int root_get(struct fm_heap *h, const char *name, const char *type, uint64_t *off);
int root_remove(struct fm_heap *h, const char *name);
/* *result: what the last call of fn returned. */
int root_each(struct fm_heap *h,
	      int (*fn)(const char *name, void *ptr, const char *type, void *arg),
	      void *arg, int *result);
void root_close(struct fm_heap *h);
/* Whether the page of roots at off is linked: 1, 0, or -errno. */
int root_has_page(struct fm_heap *h, uint64_t off);

#endif
