/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pool is open in which address window, the target of each thread, and
 * what fork(2) and exit(3) mean for open pools.  Owns nothing on disk.
 */
#include <config.h>

#include <string.h>
#include <unistd.h>

#include "heap/heap.h"
#include "heap/lock.h"

static struct {
	struct fm_heap *open;	/* atomic; NULL: no pool in this window */
	uint64_t generation;	/* atomic; goes up at each close */
} window[FM_NWINDOWS];

/* One for each window, made at the first opening; atomic. */
static struct fm_heap *storage;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;

uint64_t registry_epoch = 1;

/* A choice of target stays valid while its window's generation does. */
struct target {
	uint32_t window_plus_1;	/* 0: none chosen */
	uint64_t generation;
};

static __thread struct target own_target;
static __thread bool own_chosen;
/* The latest choice of any thread: window + 1 and generation in one word. */
static uint64_t last_target;	/* atomic */

#define TARGET_WINDOW_BITS 16

struct fm_heap *registry_find(const void *addr)
{
	uint64_t w = ((uintptr_t)addr - FM_REGION_BASE) >> FM_WINDOW_BITS;

	if (w >= FM_NWINDOWS)
		return NULL;
	return __atomic_load_n(&window[w].open, __ATOMIC_ACQUIRE);
}

struct fm_heap *registry_check(const struct fm_info *fi)
{
	struct fm_heap *all = __atomic_load_n(&storage, __ATOMIC_ACQUIRE);
	uint64_t at = (uintptr_t)fi - (uintptr_t)all;

	/* Looks at nothing that might not be there. */
	if (all == NULL || at >= FM_NWINDOWS * sizeof(*all) || at % sizeof(*all) != 0)
		return NULL;
	return __atomic_load_n(&window[at / sizeof(*all)].open, __ATOMIC_ACQUIRE);
}

uint64_t registry_generation(uint32_t w)
{
	return __atomic_load_n(&window[w].generation, __ATOMIC_ACQUIRE);
}

struct fm_heap *registry_get(uint32_t w, uint64_t generation)
{
	if (registry_generation(w) != generation)
		return NULL;
	return __atomic_load_n(&window[w].open, __ATOMIC_ACQUIRE);
}

static struct fm_heap *resolve(uint32_t window_plus_1, uint64_t generation)
{
	return window_plus_1 == 0 ? NULL : registry_get(window_plus_1 - 1, generation);
}

void registry_next_epoch(void)
{
	__atomic_add_fetch(&registry_epoch, 1, __ATOMIC_RELEASE);
}

struct fm_heap *registry_target(void)
{
	uint64_t last;

	if (own_chosen)
		return resolve(own_target.window_plus_1, own_target.generation);
	last = __atomic_load_n(&last_target, __ATOMIC_ACQUIRE);
	return resolve(last & ((1u << TARGET_WINDOW_BITS) - 1),
		       last >> TARGET_WINDOW_BITS);
}

static void set_last(struct fm_heap *h)
{
	uint64_t last = 0;

	if (h != NULL)
		last = registry_generation(h->window) << TARGET_WINDOW_BITS |
		       (h->window + 1);
	__atomic_store_n(&last_target, last, __ATOMIC_RELEASE);
	registry_next_epoch();
}

void registry_set_target(struct fm_heap *h)
{
	own_chosen = true;
	own_target = (struct target){ 0, 0 };
	if (h != NULL) {
		own_target.window_plus_1 = h->window + 1;
		own_target.generation = registry_generation(h->window);
	}
	set_last(h);
}

void registry_offer_target(struct fm_heap *h)
{
	if (own_chosen)
		registry_set_target(h);
	else
		set_last(h);
}

void registry_begin_open(void)
{
	pthread_mutex_lock(&opening);
}

void registry_end_open(void)
{
	pthread_mutex_unlock(&opening);
}

void registry_lock(void)
{
	pthread_mutex_lock(&lock);
}

void registry_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

struct fm_heap *registry_storage(uint32_t w)
{
	if (window[w].open != NULL)
		return NULL;
	/* Leak checkers do not look into it, so it must refer to nothing that
	 * comes from malloc(): a program may well end with a pool open. */
	if (storage == NULL)
		__atomic_store_n(&storage, map_anon(FM_NWINDOWS * sizeof(*storage)),
				 __ATOMIC_RELEASE);
	return storage == NULL ? NULL : &storage[w];
}

void registry_add(struct fm_heap *h)
{
	__atomic_store_n(&window[h->window].open, h, __ATOMIC_RELEASE);
}

void registry_remove(struct fm_heap *h)
{
	__atomic_store_n(&window[h->window].open, NULL, __ATOMIC_RELEASE);
	__atomic_add_fetch(&window[h->window].generation, 1, __ATOMIC_RELEASE);
	registry_next_epoch();
}

void registry_each(void (*fn)(struct fm_heap *h))
{
	uint32_t w;

	for (w = 0; w < FM_NWINDOWS; w++)
		if (window[w].open != NULL)
			fn(window[w].open);
}

/* --- fork and exit --------------------------------------------------------- */

/*
 * The pool stays the parent's, unless it is the memory of both.  The child gives up
 * its share of the open file description, or the writer lock would outlive the
 * parent; the parent still has it, so closing releases nothing.  (The mapping has one
 * of its own.)
 */
static void disown(struct fm_heap *h)
{
	if (h->scratch_dir != NULL) {
		scratch_in_child(h);
		return;
	}
	if (h->forked)
		return;
	h->forked = true;
	h->writable = false;
	if (h->atomic != NULL)
		atomic_in_child(h);
	map_close_fd(h);
	/* Another thread may have been at the roots. */
	pthread_mutex_init(&h->root_lock, NULL);
	memset(&h->roots, 0, sizeof(h->roots));
}

static void prepare(struct fm_heap *h)
{
	if (h->scratch_dir != NULL)
		scratch_before_fork(h);
	/* The child must not have a descriptor that revive() is about to lock. */
	pthread_mutex_lock(&h->fd_lock);
}

static void go_on(struct fm_heap *h)
{
	pthread_mutex_unlock(&h->fd_lock);
	if (h->scratch_dir != NULL)
		scratch_after_fork(h);
}

static void before_fork(void)
{
	pthread_mutex_lock(&opening);
	registry_lock();
	registry_each(prepare);
}

static void after_fork(void)
{
	registry_each(go_on);
	registry_unlock();
	pthread_mutex_unlock(&opening);
}

static void in_child(void)
{
	registry_next_epoch();
	registry_each(disown);
	after_fork();	/* the child has the locks as well */
}

__attribute__((constructor)) static void watch_forks(void)
{
	pthread_atfork(before_fork, after_fork, in_child);
}

/* A clean exit leaves no writer's name behind.  Pools stay mapped: threads and
 * later destructors may still use them. */
static void sign_off(struct fm_heap *h)
{
	if (h->writable && h->atomic != NULL)
		atomic_at_exit(h);
	else if (h->writable)
		lock_unsign(&h->super->writer);
}

__attribute__((destructor)) static void at_exit(void)
{
	registry_each(sign_off);
}
