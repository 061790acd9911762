/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which thread has which lane, and taking from threads what they do not use.
 *
 * A thread uses its lane with the lane's lock held, but for the short ways of
 * fmalloc() and ffree(), which take no lock: there it says that it is inside, sees
 * that the epoch is still that of its tcache, and goes on (the biased locks of Dice,
 * Moir and Scherer, 2003).  Who wants the lane of another takes the lock, makes a new
 * epoch, so that the thread comes for the lock as well, lets all processors pass a
 * barrier (membarrier(2)), so that the thread need not, and waits until the thread is
 * not inside.
 */
#include <config.h>

#include <errno.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/clock.h"
#include "heap/heap.h"
#include "heap/lane.h"
#include "heap/memtool.h"

/* Of threads without a lane. */
static uint32_t nobody_inside;

__thread struct tcache tcache = { .inside = &nobody_inside };

/* The lanes that a thread has, by window. */
struct lane_table {
	struct {
		uint64_t generation;
		struct lane *lane;	/* NULL: none */
	} of[FM_NWINDOWS];
	/* 1: the thread may be in a short way; atomic.  Not in its tcache, whose memory
	 * goes with the thread: one that comes here for the first time when its
	 * destructors have run (the C library frees what it has for the stacks of others
	 * then) ends without our knowing. */
	uint32_t inside;
};

static __thread struct lane_table *own_lanes;
/* The thread has given its lanes back.  Destructors that run later, of other keys
 * and of the C library, may still allocate and free, and nobody would tell when they
 * have: they share a lane. */
static __thread bool ended;
static pthread_key_t exit_key;
static bool have_exit_key;

/* --- a lane for each thread --------------------------------------------------------- */

/* A lane that is not there yet; lane_lock is held.  NULL: no memory. */
static struct lane *make_lane(struct fm_heap *h, uint16_t number)
{
	struct lane *lane = map_anon(sizeof(*lane));

	if (lane == NULL)
		return NULL;
	lane_set_up(h, lane, number);
	lane->remote = LANE_CLOSED;
	__atomic_store_n(&h->lane[number], lane, __ATOMIC_RELEASE);
	return lane;
}

/* Nobody has the lane, which the calling thread is going to use, or all are. */
static void hand_out(struct lane *lane, const uint32_t *inside)
{
	pthread_mutex_lock(&lane->lock);
	lane->inside = inside;
	/* After a fork it may be that of a thread which others told something. */
	if (lane->remote == LANE_CLOSED)
		__atomic_store_n(&lane->remote, 0, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&lane->lock);
	lane->taken = true;
}

/* A lane that no thread has; NULL: there is none, and no memory for another. */
static struct lane *take_lane(struct fm_heap *h)
{
	struct lane *lane = NULL;
	uint32_t i;

	/* Each look at a lane is one at memory that is not in the cache. */
	if (__atomic_load_n(&h->nlanes_taken, __ATOMIC_RELAXED) >= SHARED_LANE - 1)
		return NULL;
	pthread_mutex_lock(&h->lane_lock);
	for (i = 1; i <= h->nlanes && h->lane[i]->taken; i++)
		;
	if (i <= h->nlanes) {
		lane = h->lane[i];
	} else if (i < SHARED_LANE) {
		lane = make_lane(h, i);
		if (lane != NULL)
			__atomic_store_n(&h->nlanes, i, __ATOMIC_RELEASE);
	}
	if (lane != NULL) {
		hand_out(lane, &own_lanes->inside);
		__atomic_add_fetch(&h->nlanes_taken, 1, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&h->lane_lock);
	return lane;
}

static bool make_table(void)
{
	/* Without a key nobody would learn of the thread's end. */
	own_lanes = have_exit_key ? map_anon(sizeof(*own_lanes)) : NULL;
	if (own_lanes == NULL)
		return false;
	if (pthread_setspecific(exit_key, own_lanes) == 0) {
		tcache.inside = &own_lanes->inside;
		return true;
	}
	map_anon_free(own_lanes, sizeof(*own_lanes));
	own_lanes = NULL;
	return false;
}

/* The calling thread's lane if it has one. */
static struct lane *own_lane(const struct fm_heap *h)
{
	if (own_lanes == NULL ||
	    own_lanes->of[h->window].generation != registry_generation(h->window))
		return NULL;
	return own_lanes->of[h->window].lane;
}

struct lane *lane_get(struct fm_heap *h)
{
	struct lane *lane = own_lane(h);

	if (lane != NULL || (own_lanes == NULL && (ended || !make_table())))
		return lane;
	lane = take_lane(h);
	own_lanes->of[h->window].lane = lane;
	own_lanes->of[h->window].generation = registry_generation(h->window);
	return lane;
}

/* So many blocks may a thread free before it has lanes: they would be lost with one that
 * comes here when its destructors have run. */
#define NFREED_WITHOUT 64u

struct lane *lane_get_to_free(struct fm_heap *h)
{
	static __thread unsigned nfreed;

	if (own_lanes == NULL && nfreed < NFREED_WITHOUT) {
		nfreed++;
		return NULL;
	}
	return lane_get(h);
}

struct lane *lane_get_shared(struct fm_heap *h)
{
	struct lane *lane;

	pthread_mutex_lock(&h->lane_lock);
	lane = h->lane[SHARED_LANE];
	if (lane == NULL)
		lane = make_lane(h, SHARED_LANE);
	if (lane != NULL && !lane->taken)
		hand_out(lane, NULL);
	pthread_mutex_unlock(&h->lane_lock);
	return lane;
}

/* The lane has no slabs, and no thread, any more. */
static void give_up(struct fm_heap *h, struct lane *lane)
{
	pthread_mutex_lock(&lane->lock);
	lane_retire(h, lane);
	lane->inside = NULL;
	pthread_mutex_unlock(&lane->lock);
	pthread_mutex_lock(&h->lane_lock);
	lane->taken = false;
	if (lane->number != SHARED_LANE)
		__atomic_sub_fetch(&h->nlanes_taken, 1, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&h->lane_lock);
}

/* A thread ends: its lanes are free for others. */
static void at_thread_exit(void *arg)
{
	struct lane_table *table = arg;
	struct fm_heap *h;
	uint32_t w;

	registry_lock();
	tcache.epoch = 0;
	tcache.inside = &nobody_inside;
	for (w = 0; w < FM_NWINDOWS; w++) {
		h = registry_get(w, table->of[w].generation);
		if (table->of[w].lane != NULL && h != NULL && h->writable)
			give_up(h, table->of[w].lane);
	}
	registry_unlock();
	map_anon_free(table, sizeof(*table));
	own_lanes = NULL;
	ended = true;
}

__attribute__((constructor)) static void watch_threads(void)
{
	have_exit_key = pthread_key_create(&exit_key, at_thread_exit) == 0;
}

/* --- stopping a thread --------------------------------------------------------------- */

/* All threads of the process have passed a barrier; false: the kernel has no such
 * thing, or it is forbidden. */
static bool barrier_everywhere(void)
{
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0)
		return true;
	return errno == EPERM &&
	       syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0,
		       0) == 0 &&
	       syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
}

static bool no_barrier;	/* atomic */

#define NYIELDS 100
#define NNAPS 100

/* Wait until the thread is not inside.  Not for ever: it may have been stopped
 * there, or its program may have left by longjmp() from a handler of a signal. */
static bool wait_outside(const uint32_t *inside)
{
	int n;

	for (n = 0; n < NYIELDS + NNAPS; n++) {
		if (__atomic_load_n(inside, __ATOMIC_ACQUIRE) == 0)
			return true;
		if (n < NYIELDS)
			sched_yield();
		else
			clock_sleep(100000);
	}
	return false;
}

/* Whether the thread of the lane may be in a short way, and that is not the caller. */
static bool has_short_way(const struct lane *lane)
{
	return lane->inside != NULL && !memtool_active &&
	       (own_lanes == NULL || lane->inside != &own_lanes->inside);
}

/* From now on threads come for the locks of their lanes, once they are outside; false:
 * nobody can see when that is. */
static bool call_out(void)
{
	if (__atomic_load_n(&no_barrier, __ATOMIC_RELAXED))
		return false;
	registry_next_epoch();
	if (barrier_everywhere())
		return true;
	__atomic_store_n(&no_barrier, true, __ATOMIC_RELAXED);
	return false;
}

/* The lane's lock is held.  Whether its thread keeps out of the lane until that is
 * released, having been called out if need be. */
static bool keeps_out(const struct lane *lane, bool called)
{
	if (lane->lost)
		return false;
	return !has_short_way(lane) || (called && wait_outside(lane->inside));
}

static bool stop(const struct lane *lane)
{
	return keeps_out(lane, !lane->lost && has_short_way(lane) && call_out());
}

/* --- taking what is idle ------------------------------------------------------------- */

/* Whether the lane may have something, and its thread did not use the lock since this
 * was asked last (the second chance of the clock algorithm); looks without a lock. */
static bool is_idle(struct lane *lane)
{
	if (__atomic_load_n(&lane->bare, __ATOMIC_RELAXED) &&
	    __atomic_load_n(&lane->remote, __ATOMIC_RELAXED) == 0)
		return false;
	return !__atomic_exchange_n(&lane->active, false, __ATOMIC_RELAXED);
}

/* Let others have what the lane has; its lock is held. */
static bool reclaim(struct fm_heap *h, struct lane *lane)
{
	uint32_t remote = __atomic_load_n(&lane->remote, __ATOMIC_ACQUIRE);

	if (remote == LANE_CLOSED || (lane->bare && remote == 0) || !stop(lane))
		return false;
	return lane_release(h, lane);
}

static bool reclaim_if_idle(struct fm_heap *h, struct lane *lane)
{
	bool any;

	if (!is_idle(lane) || pthread_mutex_trylock(&lane->lock) != 0)
		return false;
	any = reclaim(h, lane);
	pthread_mutex_unlock(&lane->lock);
	return any;
}

static bool reclaim_anyway(struct fm_heap *h, struct lane *lane)
{
	bool any;

	pthread_mutex_lock(&lane->lock);
	any = reclaim(h, lane);
	pthread_mutex_unlock(&lane->lock);
	return any;
}

/* From 1 on: the next lane that there is; NULL: that was all. */
static struct lane *next_lane(const struct fm_heap *h, uint32_t *i)
{
	struct lane *lane = NULL;

	while (lane == NULL && *i <= SHARED_LANE)
		lane = __atomic_load_n(&h->lane[(*i)++], __ATOMIC_ACQUIRE);
	return lane;
}

static bool reclaim_idle(struct fm_heap *h)
{
	const struct lane *own = own_lane(h);
	struct lane *lane;
	bool any = false;
	uint32_t i = 1;

	while ((lane = next_lane(h, &i)) != NULL)
		if (lane != own)
			any = reclaim_if_idle(h, lane) || any;
	return any;
}

/* Whether anybody was told of what others freed. */
static bool is_told(const struct fm_heap *h)
{
	struct lane *lane;
	uint32_t i = 1, remote;

	while ((lane = next_lane(h, &i)) != NULL) {
		remote = __atomic_load_n(&lane->remote, __ATOMIC_RELAXED);
		if (remote != 0 && remote != LANE_CLOSED)
			return true;
	}
	return false;
}

/* A slab may be on the list of a lane that it was of before; taken from there its
 * owner is told. */
#define NPASSES 3

static bool reclaim_all(struct fm_heap *h)
{
	struct lane *lane;
	bool any = false;
	int pass = 0;
	uint32_t i;

	do {
		i = 1;
		while ((lane = next_lane(h, &i)) != NULL)
			any = reclaim_anyway(h, lane) || any;
	} while (++pass < NPASSES && is_told(h));
	return any;
}

bool lanes_reclaim(struct fm_heap *h, bool all)
{
	return all ? reclaim_all(h) : reclaim_idle(h);
}

/* --- all locks, and fork(2) -------------------------------------------------------------------- */

/* Hold the locks of all lanes, with nobody inside: one call for all. */
static void freeze(struct fm_heap *h)
{
	bool called = false;
	struct lane *lane;
	uint32_t i = 1;

	while ((lane = next_lane(h, &i)) != NULL) {
		pthread_mutex_lock(&lane->lock);
		called = called || has_short_way(lane);
	}
	called = called && call_out();
	for (i = 1; (lane = next_lane(h, &i)) != NULL;)
		lane->stopped = keeps_out(lane, called);
}

static void thaw(struct fm_heap *h)
{
	struct lane *lane;
	uint32_t i = 1;

	while ((lane = next_lane(h, &i)) != NULL)
		pthread_mutex_unlock(&lane->lock);
}

/* In the order that heap.h says. */
void heap_lock_all(struct fm_heap *h)
{
	unsigned cls;

	pthread_mutex_lock(&h->root_lock);
	pthread_mutex_lock(&h->intent_lock);
	pthread_mutex_lock(&h->lane_lock);
	freeze(h);
	pthread_mutex_lock(&h->space_lock);
	pthread_mutex_lock(&h->page_lock);
	for (cls = 0; cls < SIZECLASS_N; cls++)
		pthread_mutex_lock(&h->loose[cls].lock);
}

void heap_unlock_all(struct fm_heap *h)
{
	unsigned cls;

	for (cls = SIZECLASS_N; cls-- > 0;)
		pthread_mutex_unlock(&h->loose[cls].lock);
	pthread_mutex_unlock(&h->page_lock);
	pthread_mutex_unlock(&h->space_lock);
	thaw(h);
	pthread_mutex_unlock(&h->lane_lock);
	pthread_mutex_unlock(&h->intent_lock);
	pthread_mutex_unlock(&h->root_lock);
}

void lanes_in_child(struct fm_heap *h)
{
	const struct lane *own = own_lane(h);
	struct lane *lane;
	uint32_t i = 1;

	while ((lane = next_lane(h, &i)) != NULL) {
		if (lane == own || lane->inside == NULL)
			continue;
		/* Its thread is not here, and what was its stack may be used anew. */
		lane->inside = NULL;
		lane->lost = !lane->stopped;
		if (lane->taken && !lane->lost)
			__atomic_sub_fetch(&h->nlanes_taken, 1, __ATOMIC_RELAXED);
		lane->taken = lane->lost;
	}
}

/* --- opening and closing ------------------------------------------------------------- */

void lane_open(struct fm_heap *h)
{
	unsigned cls;

	pthread_mutex_init(&h->lane_lock, NULL);
	for (cls = 0; cls < SIZECLASS_N; cls++)
		pthread_mutex_init(&h->loose[cls].lock, NULL);
}

void lane_close(struct fm_heap *h)
{
	struct lane *lane;
	uint32_t i = 1;

	while ((lane = next_lane(h, &i)) != NULL)
		if (lane->taken)
			give_up(h, lane);
	lane_drop_loose(h);
}

void lane_reset(struct fm_heap *h)
{
	struct lane *lane;
	unsigned cls;
	uint32_t i = 1;

	while ((lane = next_lane(h, &i)) != NULL) {
		lane_clear(h, lane, lane->number);
		lane->remote = lane->taken ? 0 : LANE_CLOSED;
	}
	for (cls = 0; cls < SIZECLASS_N; cls++)
		h->loose[cls].first = 0;
}

void lane_destroy(struct fm_heap *h)
{
	struct lane *lane;
	unsigned cls;
	uint32_t i = 1;

	while ((lane = next_lane(h, &i)) != NULL) {
		pthread_mutex_destroy(&lane->lock);
		map_anon_free(lane, sizeof(*lane));
	}
	for (cls = 0; cls < SIZECLASS_N; cls++)
		pthread_mutex_destroy(&h->loose[cls].lock);
	pthread_mutex_destroy(&h->lane_lock);
}
