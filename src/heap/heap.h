/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An open pool, as the files of this folder share it.
 *
 * Lock order, outermost first; each is a volatile mutex of this process:
 *   1. fm_heap.root_lock     named roots
 *   2. fm_heap.intent_lock   the intent of threads without one of their own
 *   3. fm_heap.lane_lock     which thread has which lane
 *   4. lane.lock             the slabs of a lane (threads.c); one at a time, but for
 *                            fork(2)
 *   (fm_heap.settle_lock has none inside, and is inside of none.)
 *   5. fm_heap.space_lock    the zone directory; getting space and giving it back
 *   6. fm_heap.page_lock     extents of pages
 *   7. fm_heap.loose[].lock  slabs of a size class that no lane has
 *   8. fm_heap.fd_lock       opening the file again (revive.c)
 * No system call on the file is made under 6 and 7.  The registry (registry.c) has
 * a lock of its own, held only while opening and closing, outside of all of these.
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

#define SHARED_LANE 256u	/* number of the lane for threads beyond as many */

#define WINDOW_LEN (UINT64_C(1) << FM_WINDOW_BITS)
#define WINDOW_REGION_LEN ((uint64_t)FM_NWINDOWS << FM_WINDOW_BITS)

/*
 * A slab in memory, by its number: its offset / 64 KiB.  (32 bytes: freeing a
 * block at random is bound by what of this is in the cache.)
 *
 * A slab has an owner, which is a lane, or it is loose, or just being made.  Only
 * the owner's thread touches next to nfree, and the first bitmap; of a loose slab,
 * who has the lock of its class.  The rest is atomic, or does not change while the
 * slab is there.
 */
struct slab {
	uint64_t geometry;	/* as sizeclass_geometry[]; 0: no slab here */
	union {
		struct {
			uint16_t owner;	/* number of the lane, or LOOSE */
			uint8_t remote;	/* 1: is on a list of lane.remote */
			uint8_t pins;	/* threads that are about to say what
					 * they freed: see slab_free_remote() */
		};
		uint32_t owner_only;	/* the number, if that is all; atomic */
	};
	/* Free blocks of the first bitmap, if `where` is not SLAB_CURRENT; freeing
	 * in the short way is right while nfree < limit. */
	uint16_t nfree;
	uint16_t limit;
	uint32_t next, prev;	/* on the list that `where` says */
	uint32_t remote_next;	/* on a list of lane.remote */
	uint16_t nblocks;
	uint8_t where;		/* enum slab_where */
	uint8_t hint;		/* word of the bitmap to look at first */
};

_Static_assert(sizeof(struct slab) == 32, "slabs in cache lines");

enum slab_where {
	SLAB_NOWHERE,	/* loose, without free blocks */
	SLAB_LOOSE,	/* loose, perhaps with free blocks: fm_heap.loose[] */
	SLAB_PARTIAL,	/* owned, with free blocks, or so it seemed */
	SLAB_FULL,	/* owned, without */
	SLAB_CURRENT	/* owned, and blocks are being taken from it */
};

#define LOOSE 0u	/* no lane has this number, */
#define UNBORN UINT16_MAX	/* nor this one: a slab that its maker has yet to own */

struct loose_slabs {
	pthread_mutex_t lock;
	uint32_t first;		/* atomic */
} __attribute__((aligned(64)));

#define NBINS 72u	/* lists of free extents, by length: see extent.c */

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
	int fd;			/* only by map_fd() */
	uint64_t dev[2], ino;	/* of the file; the second is what the first was before
				 * it was opened again: atomic, changed under fd_lock */
	pthread_mutex_t fd_lock;
	bool writable;
	bool forked;		/* this process is a child of the opener; then
				 * not writable */
	uint64_t map_len;	/* bytes mapped, and the most the pool can have */
	char path[512];		/* for messages; cut short if longer */
	uint32_t window;

	/* Of a scratch pool: see scratch.c. */
	const char *scratch_dir; /* for files of its own; NULL: this is none */
	unsigned char *shadow;	/* the file as at base, map_len bytes, but private */
	uint64_t file_len;
	uint64_t frozen_len;	/* from base on: private, and the file is not
				 * changed there any more */
	bool torn;		/* it could not be frozen before a fork */
	bool borrowed;		/* what is mapped behind that is not ours */

	struct atomic *atomic;	/* see atomic.h; NULL: a live pool */

	struct slab *slab;	/* of a pool that is writable */
	bool tiny;		/* slabs of class 0 have second bitmaps */

	pthread_mutex_t space_lock;
	uint64_t spare[FM_MAX_NZONES / 64]; /* zones that may have space that is not
				 * used, since a huge block went or got shorter: a
				 * bit each */
	uint32_t nspare_zones;	/* atomic */
	bool grown;		/* since the last commit; atomic */
	bool disk_full;		/* when space was last asked for */

	pthread_mutex_t settle_lock;
	uint64_t fresh_off;	/* what lies from here on came in large folios */
	uint64_t settle_in, settle_every;	/* commits */

	pthread_mutex_t page_lock;
	struct zone *growable;	/* zones with unreserved pages at their end */
	uint32_t load_next;	/* zones below are not all loaded yet */
	uint32_t nzones_loaded;
	uint32_t bins[NBINS];	/* first page of the first extent; 0: none */
	uint64_t bins_used[2];	/* one bit a bin */
	/* Of the zones that are loaded; atomic, changed under page_lock. */
	uint64_t nfree_pages;	/* in the bins */
	uint64_t nfree_chunks;	/* whole ones among them */
	uint64_t nbacked_pages;	/* in the bins or in extents */
	uint64_t npeak_pages;	/* the most that were in extents, fading */
	uint64_t nhole_chunks;

	struct loose_slabs loose[SIZECLASS_N];
	bool loose_loaded;	/* since empty ones were looked for; atomic */

	pthread_mutex_t lane_lock;
	struct lane *lane[SHARED_LANE + 1]; /* by number, from 1 on */
	uint32_t nlanes_taken;	/* but for the shared one; atomic */
	uint32_t nlanes;	/* made so far, but for the shared one; under lane_lock */

	pthread_mutex_t intent_lock;
	struct fm_intents_disk *intents;	/* in the pool; NULL: none yet; atomic */

	pthread_mutex_t root_lock;
	struct root_index roots;

	/* For revive(), which cannot look at what was mapped. */
	uint8_t uuid[16];
	char file_path[4096];	/* "": none */

	/* Last, and all NULL in a closed pool: guarded by page_lock.  NULL: not
	 * normal, or not loaded. */
	struct zone *zones[FM_MAX_NZONES];
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
extern uint64_t registry_epoch	/* atomic */
	__attribute__((visibility("hidden")));
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
/* Storage for the pool of a window: zero, or what a pool that was closed left.  It
 * is never unmapped, so that a stale struct fm_info can be recognised.  NULL: in
 * use, or no memory. */
struct fm_heap *registry_storage(uint32_t window);
void registry_add(struct fm_heap *h);
void registry_remove(struct fm_heap *h);
void registry_each(void (*fn)(struct fm_heap *h));
/* What threads keep of the pools they use is void, or somebody is to be kept out of a
 * lane. */
void registry_next_epoch(void);

/* --- map.c: the one file that calls mmap, msync, fallocate -------------- */

struct holes;

/* Map `h->fd` into window `h->window`; sets base, map_len.  -EEXIST: something
 * else is there.  file_len: what must fit at least. */
int map_pool(struct fm_heap *h, uint64_t file_len);
void map_close(struct fm_heap *h);
/* The pool's descriptor; -1 if the program has closed it: by now the number may be
 * that of some other file. */
int map_fd(const struct fm_heap *h);
uint64_t map_file_len(const struct fm_heap *h);	/* UINT64_MAX if so */
void map_close_fd(struct fm_heap *h);
/* Make what was written to a file durable, also if the mount that it was opened through,
 * with passthrough, has lost its daemon. */
int map_sync_file(int fd);
/* Make everything up to the heap's end durable; or a part. */
int map_sync(struct fm_heap *h);
int map_sync_part(struct fm_heap *h, uint64_t off, uint64_t len);

/* Make the file have space for [off, off + len), whole pages, so that no store
 * there can fail for want of it.  The bytes there are not changed, zero if new;
 * nobody may store into those that are zero meanwhile. */
int map_reserve(int fd, uint64_t off, uint64_t len);
/* The same of a pool's file. */
int map_claim(struct fm_heap *h, uint64_t off, uint64_t len);
/* -ENOSPC if the disk was full when space was last asked for, and still has less than len
 * bytes; else 0.  To ask again takes milliseconds then: ext4 looks for some in its journal,
 * and what it finds is to be given back. */
int map_check_full(const struct fm_heap *h, uint64_t len);
/* While the pool is being opened: list what has no space of [off, off + len); then
 * let it have space, all of it or, but for an error, none. */
int map_find_holes(struct fm_heap *h, uint64_t off, uint64_t len, struct holes *holes);
int map_fill_holes(struct fm_heap *h, const struct holes *holes);
/* Give the space of [off, off + len) back; the bytes read as zero then.  If that
 * cannot be done the pool just keeps it. */
void map_give_back(struct fm_heap *h, uint64_t off, uint64_t len);
/* Of an atomic pool: what is mapped instead, where map_pool() has been; the first len
 * bytes are the file's, privately, the rest is anonymous memory; and whether it can be
 * stored into. */
int map_private(struct fm_heap *h, uint64_t len);
int map_seal(struct fm_heap *h, bool readonly);
/* A part of the file, mapped privately, elsewhere; NULL: cannot.  And let it be where it
 * belongs, in one step for all threads: if not, it is unmapped. */
unsigned char *map_part(struct fm_heap *h, uint64_t off, uint64_t len);
int map_part_over(struct fm_heap *h, unsigned char *mem, uint64_t off, uint64_t len);
/* Private memory is what it was before anything was stored. */
void map_drop(struct fm_heap *h, uint64_t off, uint64_t len);
/* Of the file: let it have no space here, or zeroes. */
void map_punch(int fd, uint64_t off, uint64_t len);
int map_zero(int fd, uint64_t off, uint64_t len);
/* Let the file end at len, less than it has. */
int map_cut(int fd, uint64_t len);

/* The mapping once more, which map_freeze() takes from.  If need be both get shorter:
 * nothing is allocated yet. */
int map_shadow(struct fm_heap *h);
/* Let the first len bytes be private from now on, with what they are. */
int map_freeze(struct fm_heap *h, uint64_t len);
/* Let what is not frozen be that of another file, which the heap has from now on. */
int map_replace(struct fm_heap *h, int fd);

/* Zeroed memory for this folder's own purposes, by whole pages.  The second is
 * for much that is looked at all over, the third for what is mostly never
 * touched. */
void *map_anon(size_t len);
void *map_anon_huge(size_t len);
void *map_anon_sparse(size_t len);
void map_anon_free(void *mem, size_t len);
void map_anon_clear(void *mem, size_t len);

/* --- pagecache.c: in what pieces the page cache holds the pool ------------ */

void pagecache_advise(struct fm_heap *h);
/* What lies from off on is new. */
void pagecache_advise_fresh(struct fm_heap *h, uint64_t off);
/* What lies before `end` is on disk, and will be updated here and there. */
void pagecache_settle(struct fm_heap *h, uint64_t end);
/* Begin to read it, in the order of the file. */
void pagecache_prefetch(struct fm_heap *h, uint64_t off, uint64_t len);

/* --- revive.c: when the daemon of a mount has died -------------------------- */

/* See to it that requests on the pool's descriptor can be answered: if its mount has lost
 * its daemon, open the file again, by its path.  0, or -errno with words: ENOTCONN (no
 * daemon serves it yet; or it is a live pool, and there was no passthrough), ESTALE
 * (another writer has been there), EIO and the like (what was written by the old
 * descriptor did not reach the disk). */
int revive(struct fm_heap *h);
/* Remember where the pool's file is. */
void revive_note_path(struct fm_heap *h);

/* --- zone.c: the zone directory, and zones in memory --------------------- */

/* Load one of the zones not yet looked at, if any are left. */
bool zone_load_more(struct fm_heap *h);
/* 0 if `off` is in a normal zone, which is loaded then; else -EINVAL (no normal
 * zone there), -EUCLEAN, -ENOMEM. */
int zone_get(struct fm_heap *h, uint64_t off);
/* The table entry of the page at `off`, 0 if there is none; loads nothing. */
uint32_t zone_entry(const struct fm_heap *h, uint64_t off);

/* Check the zone directory, and finish what a kill left half done in it. */
int zone_open(struct fm_heap *h);
void zone_close(struct fm_heap *h);
/* Forget what is known of the zones; all locks are held. */
void zone_reset(struct fm_heap *h);

/* --- pages.c: extents of pages, in the zones ------------------------------ */

/* Allocate npages pages at a multiple of align_npages (a power of two, 32 MiB
 * at most) for `kind`; cls is of FM_EXTENT_SLAB.  *off is where; it is stored
 * before the extent is entered in the table. */
int pages_alloc(struct fm_heap *h, enum fm_extent_kind kind, unsigned cls,
		uint32_t npages, uint32_t align_npages, uint64_t *off);
/* The same for the heap's own, of pages that no commit has had. */
int pages_alloc_fresh(struct fm_heap *h, uint32_t npages, uint64_t *off);
/*
 * A lane's pages for slabs to come, next to each other: nobody else has them, and
 * for whoever opens the pool after a kill they are free.  So that threads meet at
 * page_lock once for several slabs, and not while a page of a bitmap is read.
 */
struct page_stock {
	uint32_t page;		/* the first, counted from the start of the pool */
	uint32_t nslabs;	/* so many slabs */
};

/* A stock for up to nslabs slabs, where there was none.  -EAGAIN: the pool would have
 * to grow for that, and !grow. */
int pages_stock(struct fm_heap *h, uint32_t nslabs, bool grow, struct page_stock *stock);
/* Make a slab of it: its number. */
uint32_t pages_use_stock(struct fm_heap *h, unsigned cls, struct page_stock *stock);
void pages_return_stock(struct fm_heap *h, struct page_stock *stock);
/* Whether a block could be had from pages_alloc(). */
bool pages_hold(uint64_t len, uint64_t align);
/* Free the extent of this kind that starts at off: -EINVAL if none does.
 * *done, if given, is set to 0 once that is so, before anybody can have the
 * pages. */
int pages_free(struct fm_heap *h, enum fm_extent_kind kind, uint64_t off,
	       uint64_t *done);
/* Change the length of a run in place; -ENOSPC and the like: cannot. */
int pages_resize(struct fm_heap *h, uint64_t off, uint32_t npages);
/* Free an extent that a killed process left; before any zone is loaded. */
void pages_drop(struct fm_heap *h, enum fm_extent_kind kind, uint64_t off);

/* --- huge.c: blocks that no zone can hold --------------------------------- */

/* As above, by bytes. */
int huge_alloc(struct fm_heap *h, uint64_t len, uint64_t align, uint64_t *off);
/* Length of the huge block that starts at off; 0: none does. */
uint64_t huge_len(const struct fm_heap *h, uint64_t off);
int huge_free(struct fm_heap *h, uint64_t off, uint64_t *done);
int huge_resize(struct fm_heap *h, uint64_t off, uint64_t len);
void huge_drop(struct fm_heap *h, uint64_t off);

/* --- space.c: what space the file has ------------------------------------- */

/* Get the space that the pool was promised, should any be missing. */
int space_claim(struct fm_heap *h);
/* Bytes in extents, of zones that are loaded; looks at any time. */
uint64_t space_used(const struct fm_heap *h);
/* If so much is free that some should be given back: how many free chunks to keep;
 * else UINT64_MAX. */
uint64_t space_wants_trim(const struct fm_heap *h);
/* Give free chunks of loaded zones back until no more than `keep` are left. */
void space_trim(struct fm_heap *h, uint64_t keep);
/* Let the heap and the file end where the last block does, if that saves much.
 * Nobody else uses the pool any more. */
void space_shrink(struct fm_heap *h);
/* The end of the chunk that has the last extent. */
uint64_t space_used_end(struct fm_heap *h);

/* --- slab.c: the bitmaps of slabs ---------------------------------------- */

/* A slab that a zone being loaded has (page_lock is held); and one that is about to
 * be entered in the table. */
void slab_load(struct fm_heap *h, uint64_t off, unsigned cls);
void slab_prepare(struct fm_heap *h, uint64_t off, unsigned cls);
/* The slab is none any more. */
void slab_forget(struct fm_heap *h, uint32_t number);

/* Free blocks that others have freed in the second bitmap; by the owner.  Sets
 * nfree, to all that are free. */
void slab_absorb(struct fm_heap *h, uint32_t number);
/* The first word of the first bitmap, from hint on, that has free blocks, or -1. */
int slab_find(const struct fm_heap *h, uint32_t number);
/* Set the bit of an allocated block in the second bitmap: false if it was not
 * allocated.  *done: as of pages_free(). */
bool slab_free_remote(struct fm_heap *h, uint64_t off, unsigned cls, uint64_t *done);
/* Whether slabs of the class have a second bitmap in this pool; if not, no blocks
 * are allocated from them. */
static inline bool slab_has_second(const struct fm_heap *h, unsigned cls)
{
	return cls != 0 || h->tiny;
}

/* Whether off is the start of an allocated block of a slab of this class. */
bool slab_has(const struct fm_heap *h, unsigned cls, uint64_t off);
/* Clear the bit of an allocated block; by the owner: false if it is not
 * allocated. */
bool slab_clear(struct fm_heap *h, uint64_t off, unsigned cls);
/* Whether the bit of the block at off is set in the first bitmap, the inverse of
 * its size given. */
static inline bool slab_is_set(const struct fm_heap *h, uint64_t off, uint32_t inverse);
/* The bits of word w of the first bitmap that are of blocks. */
uint64_t slab_mask(const struct fm_heap *h, unsigned cls, uint32_t w);
/* Clear the bit of the block if there is one; for recovery, before any zone is
 * loaded. */
void slab_unmark(struct fm_heap *h, unsigned cls, uint64_t off);

static inline uint32_t slab_number(uint64_t off)
{
	return off >> FM_SLAB_SHIFT;
}

static inline uint64_t slab_off(uint32_t number)
{
	return (uint64_t)number << FM_SLAB_SHIFT;
}

/* The first bitmap of the slab that off is in. */
static inline uint64_t *slab_bitmap(const struct fm_heap *h, uint64_t off)
{
	return (uint64_t *)(h->base + (off & ~(FM_ZONE_LEN - 1)) + FM_ZONE_BITMAP_OFF +
			    (off % FM_ZONE_LEN >> FM_SLAB_SHIFT) * FM_BITMAP_LEN);
}

static inline bool slab_is_set(const struct fm_heap *h, uint64_t off, uint32_t inverse)
{
	uint32_t i = off % FM_SLAB_LEN * inverse >> 32;

	return (slab_bitmap(h, off)[i / 64] >> i % 64 & 1) != 0;
}

static inline uint32_t slab_nblocks(const struct fm_heap *h, unsigned cls)
{
	return sizeclass_nblocks(cls, h->tiny);
}

/* --- alloc.c: blocks of any size ----------------------------------------- */

/* *off: as of pages_alloc(). */
int alloc_block(struct fm_heap *h, size_t size, size_t align, uint64_t *off);
/* Pages for the heap's own use.  *off: as of pages_alloc(). */
int alloc_meta(struct fm_heap *h, uint32_t npages, uint64_t *off);
/* -EINVAL: no block of the program's starts there.  *done: as of pages_free(). */
int alloc_free(struct fm_heap *h, uint64_t off, uint64_t *done);
/* Free the block if there is one; for recovery, before any zone is loaded. */
void alloc_drop(struct fm_heap *h, uint64_t off);
/* Usable bytes of the block at off, 0 if no block starts there. */
uint64_t alloc_usable(const struct fm_heap *h, uint64_t off);
/* Let the allocated block at off have size bytes in place; false: it must move, and
 * all that it has may be copied. */
bool alloc_resize(struct fm_heap *h, uint64_t off, size_t size);

/* --- into.c: a block and the pointer to it, changed in one step ----------- */

/* Settle what a killed process had begun; before any zone is loaded. */
void into_open(struct fm_heap *h);
void into_settle(struct fm_heap *h);
void into_close(struct fm_heap *h);
/* Whether the page of intents is at off. */
bool into_has_page(const struct fm_heap *h, uint64_t off);
/* Begin a change of the word at where_off, after which old_off is no block any
 * more: the intent, whose new_off alloc_block() stores; and end it. */
struct fm_intent_disk *into_begin(struct fm_heap *h, uint64_t where_off,
				  uint64_t old_off);
void into_end(struct fm_heap *h, struct fm_intent_disk *intent);
/* Of the pool pointer at where_off, which lies in the pool. */
int into_alloc(struct fm_heap *h, uint64_t where_off, size_t size);
int into_free(struct fm_heap *h, uint64_t where_off);
int into_resize(struct fm_heap *h, uint64_t where_off, size_t size);

/* --- legacy.c: pools of the first version --------------------------------- */

/* Make the pool one that the first version does not write to, and free what its
 * threads had at hand; before any zone is loaded. */
int legacy_open(struct fm_heap *h);

/* --- super.c: the first page -------------------------------------------- */

/* A super for a new pool. */
int super_make(struct fm_super_disk *super);
/* Let it be of the newest kind that its pool can be. */
void super_renew(struct fm_super_disk *super);
/* 0, or -EINVAL (no pool's super), -EUCLEAN, -ENOTSUP, with words.  Looks at
 * nothing but the page itself. */
int super_check(const struct fm_super_disk *super);

/* --- atomic.c, commit.c (and atomic.h) ------------------------------------- */

/* Let the new pool that is being made in the file be atomic. */
int atomic_format(int fd, struct fm_super_disk *super);
/* What of a log is read by who only looks at the pool, and need not be able to; 0, NULL:
 * all. */
struct replay_limits {
	uint64_t max_len;	/* bytes of records; of more: -EFBIG */
	uint64_t max_npages;	/* changed pages that are kept; the same */
	uint64_t *only;		/* keep only these pages, a bit each; some are added */
};
/* Read the log; of a writer, without readers: bring the file up to date.  *super: what
 * it is on entry in the file, and on return as of the last commit.  limits: of who does
 * not write; NULL: none. */
int atomic_load(int fd, bool writable, const struct replay_limits *limits,
		struct fm_super_disk *super, struct atomic **out);
void atomic_free(struct atomic *a);
/* Copy len bytes at off, as of the last commit: 0, -EUCLEAN (the file ends before), or
 * -errno; and how many commits the file does not have. */
int atomic_read(const struct atomic *a, int fd, uint64_t off, void *buf, uint64_t len);
uint64_t atomic_nrecords(const struct atomic *a);
/* Of a reader: see inspect_finish_copy(). */
int atomic_finish_copy(struct atomic *a, int fd, int copy);
/* Map the pool; before the heap is looked at. */
int atomic_map(struct fm_heap *h);
/* Settle what a killed process left of the log. */
void atomic_settle(struct fm_heap *h);
int atomic_sign(struct fm_heap *h);
void atomic_unsign(struct fm_heap *h);
/* Commit, and let the log be short: true if nobody reads the pool; then space may be
 * given back, before the second. */
bool atomic_begin_close(struct fm_heap *h);
void atomic_end_close(struct fm_heap *h);
void atomic_at_exit(struct fm_heap *h);
void atomic_in_child(struct fm_heap *h);
/* Space that is being had, or given back; space_lock is held. */
int atomic_claim(struct fm_heap *h, uint64_t off, uint64_t len);
void atomic_give_back(struct fm_heap *h, uint64_t off, uint64_t len);

/* More memory than that is given up at a commit. */
void atomic_set_limit(struct fm_heap *h, uint64_t len);
/* What the log and memory take; as of the last commit, for a pool open for writing. */
void atomic_figures(const struct atomic *a, struct fm_stats *stats);
int atomic_commit(struct fm_heap *h);
int atomic_rollback(struct fm_heap *h);
int atomic_refresh(struct fm_heap *h);
void atomic_enter(struct fm_heap *h);
int atomic_leave(struct fm_heap *h);
/* Brackets that the calling thread has open. */
uint32_t atomic_depth(const struct fm_heap *h);

/* --- pool.c: opening and closing ----------------------------------------- */

int pool_open(const char *path, int flags, bool *created, struct fm_heap **out);
void pool_close(struct fm_heap *h);
/* Make a pool in the empty file fd, for as long as the process lives: nothing is
 * synced or signed.  The descriptor is the pool's if that succeeds. */
int pool_make_scratch(int fd, const char *name, const char *dir, struct fm_heap **out);

/* --- threads.c (and lane.h) --------------------------------------------------------- */

/* All locks of the heap, with no thread in a short way, so that nothing of it is half
 * changed. */
void heap_lock_all(struct fm_heap *h);
void heap_unlock_all(struct fm_heap *h);

/* --- scratch.c: pools that are the memory of a process --------------------- */

/* A new file without a name, in the folder: a descriptor, or -errno. */
int scratch_file(const char *dir);
/* As pool_make_scratch(); `dir` is where a forked child makes a file of its own. */
int scratch_open(int fd, const char *name, const char *dir, struct fm_heap **out);
/* Get the file that the pool lacks. */
int scratch_take_file(struct fm_heap *h);
/* Around fork(2); the second in parent and child, after the third. */
void scratch_before_fork(struct fm_heap *h);
void scratch_after_fork(struct fm_heap *h);
void scratch_in_child(struct fm_heap *h);
/* --- stat.c (and inspect.h) ------------------------------------------------------- */

/* fm_stat(), but for `size`. */
int stat_heap(struct fm_heap *h, struct fm_stats *stats);

/* --- root.c ---------------------------------------------------------------- */

int root_set(struct fm_heap *h, const char *name, uint64_t off, const char *type);
int root_get(struct fm_heap *h, const char *name, const char *type, uint64_t *off);
int root_remove(struct fm_heap *h, const char *name);
/* *off: the root's object, made if there is none. */
int root_alloc(struct fm_heap *h, const char *name, size_t size, const char *type,
	       uint64_t *off);
/* *result: what the last call of fn returned. */
int root_each(struct fm_heap *h,
	      int (*fn)(const char *name, void *ptr, const char *type, void *arg),
	      void *arg, int *result);
void root_close(struct fm_heap *h);
/* Whether the page of roots at off is linked: 1, 0, or -errno. */
int root_has_page(struct fm_heap *h, uint64_t off);

#endif
