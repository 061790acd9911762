/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which thread has which lane, filling and emptying magazines, and recovery.
 *
 * The order of stores, so that a block is never lost nor had twice:
 *   filling     slots, count, then the bits of the slabs (under the class's
 *               lock, so that nobody else takes the blocks between)
 *   emptying    for each block from the top: its bit, then count
 *   recovery    the bits of all blocks, then count = 0; harmless to repeat
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/crc32c.h"
#include "heap/error.h"
#include "heap/lane.h"

__thread struct tcache tcache;

/* The lanes that a thread has, by window; 0: none. */
struct lane_table {
	struct {
		uint64_t generation;
		uint32_t index_plus_1;
	} of[FM_NWINDOWS];
};

static __thread struct lane_table *own_lanes;
static pthread_key_t exit_key;
static bool have_exit_key;

/* --- magazines ------------------------------------------------------------------- */

int lane_alloc(struct fm_heap *h, unsigned cls, uint64_t *off)
{
	struct fm_lane_disk *lane = lane_get(h);
	struct fm_magazine_disk one = { .count = 0 };
	struct fm_magazine_disk *mag = lane != NULL ? &lane->magazine[cls] : &one;
	int rc = 0;

	if (mag->count == 0)
		rc = slab_refill(h, cls, mag, lane != NULL ? slab_batch(cls) : 1);
	if (rc == 0)
		*off = lane_pop(h, mag);
	return rc;
}

int lane_free(struct fm_heap *h, uint64_t off)
{
	struct fm_magazine_disk one = { .count = 1, .slot = { off } };
	struct fm_lane_disk *lane = lane_get(h);
	uint8_t *free_byte;
	struct zone *z;
	unsigned cls;
	int rc;

	rc = zone_get(h, off, &z);
	if (rc < 0)
		return rc;
	free_byte = lane_free_byte(h, off, &cls);
	if (free_byte == NULL || __atomic_load_n(free_byte, __ATOMIC_RELAXED) != 0)
		return -EINVAL;
	if (lane == NULL) {
		__atomic_store_n(free_byte, 1, __ATOMIC_RELAXED);
		slab_flush(h, cls, &one, 1);
		return 0;
	}
	if (lane->magazine[cls].count >= FM_MAGAZINE_NSLOTS)
		slab_flush(h, cls, &lane->magazine[cls], slab_batch(cls));
	return lane_push(h, lane, off) ? 0 : -EINVAL;
}

static void empty(struct fm_heap *h, struct fm_lane_disk *lane)
{
	unsigned cls;

	for (cls = 0; cls < SIZECLASS_N; cls++)
		if (lane->magazine[cls].count > 0)
			slab_flush(h, cls, &lane->magazine[cls],
				   lane->magazine[cls].count);
}

/* --- threads ------------------------------------------------------------------------ */

/* A thread ends: its lanes are free for others. */
static void at_thread_exit(void *arg)
{
	struct lane_table *table = arg;
	uint32_t w, i;

	registry_lock();
	for (w = 0; w < FM_NWINDOWS; w++) {
		struct fm_heap *h = registry_get(w, table->of[w].generation);

		if (table->of[w].index_plus_1 == 0 || h == NULL || !h->writable)
			continue;
		i = table->of[w].index_plus_1 - 1;
		empty(h, h->lane[i]);
		pthread_mutex_lock(&h->lane_lock);
		h->lane_taken[i] = false;
		pthread_mutex_unlock(&h->lane_lock);
	}
	registry_unlock();
	map_anon_free(table, sizeof(*table));
	own_lanes = NULL;
	tcache.epoch = 0;
}

__attribute__((constructor)) static void watch_threads(void)
{
	have_exit_key = pthread_key_create(&exit_key, at_thread_exit) == 0;
}

static uint32_t lane_crc(const struct fm_lane_disk *lane)
{
	return crc32c(0, &lane->self_off, sizeof(lane->self_off));
}

/* A further lane in the pool; lane_lock is held. */
static int add_lane(struct fm_heap *h)
{
	struct fm_lane_disk *lane;
	uint64_t off = 0;
	int rc;

	if (h->nlanes == FM_MAX_NLANES)
		return -EAGAIN;
	rc = zone_alloc_meta(h, FM_LANE_NPAGES, &h->super->pending_lane_off, &off);
	if (rc < 0)
		return rc;
	lane = (struct fm_lane_disk *)(h->base + off);
	memset(lane, 0, FM_LANE_NPAGES * FM_PAGE_LEN);
	lane->magic = FM_LANE_MAGIC;
	lane->self_off = off;
	lane->next_off = h->super->lanes_off;
	lane->crc = lane_crc(lane);
	__atomic_store_n(&h->super->lanes_off, off, __ATOMIC_RELEASE);
	__atomic_store_n(&h->super->pending_lane_off, 0, __ATOMIC_RELEASE);
	h->lane[h->nlanes] = lane;
	__atomic_store_n(&h->nlanes, h->nlanes + 1, __ATOMIC_RELEASE);
	return 0;
}

/* Take a lane that no thread has: its index, or -errno. */
static int claim(struct fm_heap *h)
{
	uint32_t i;
	int rc = 0;

	pthread_mutex_lock(&h->lane_lock);
	for (i = 0; i < h->nlanes && h->lane_taken[i]; i++)
		;
	if (i == h->nlanes)
		rc = add_lane(h);
	if (rc == 0)
		h->lane_taken[i] = true;
	pthread_mutex_unlock(&h->lane_lock);
	return rc < 0 ? rc : (int)i;
}

struct fm_lane_disk *lane_get(struct fm_heap *h)
{
	uint64_t generation = registry_generation(h->window);
	int i;

	if (own_lanes == NULL) {
		/* Without a key nobody would learn of the thread's end. */
		own_lanes = have_exit_key ? map_anon(sizeof(*own_lanes)) : NULL;
		if (own_lanes == NULL)
			return NULL;
		if (pthread_setspecific(exit_key, own_lanes) != 0) {
			map_anon_free(own_lanes, sizeof(*own_lanes));
			own_lanes = NULL;
			return NULL;
		}
	}
	if (own_lanes->of[h->window].index_plus_1 == 0 ||
	    own_lanes->of[h->window].generation != generation) {
		i = claim(h);
		if (i < 0)
			return NULL;
		own_lanes->of[h->window].generation = generation;
		own_lanes->of[h->window].index_plus_1 = i + 1;
	}
	return h->lane[own_lanes->of[h->window].index_plus_1 - 1];
}

/* --- opening and closing ------------------------------------------------------------- */

static void recover(struct fm_heap *h, struct fm_lane_disk *lane)
{
	unsigned cls;
	uint32_t i, n;

	for (cls = 0; cls < SIZECLASS_N; cls++) {
		struct fm_magazine_disk *mag = &lane->magazine[cls];

		n = mag->count < FM_MAGAZINE_NSLOTS ? mag->count : FM_MAGAZINE_NSLOTS;
		for (i = 0; i < n; i++)
			slab_unmark(h, cls, mag->slot[i]);
		if (mag->count != 0)
			__atomic_store_n(&mag->count, 0, __ATOMIC_RELEASE);
	}
}

static bool lane_sound(const struct fm_heap *h, uint64_t off)
{
	const struct fm_lane_disk *lane = (void *)(h->base + off);
	uint32_t entry = zone_entry(h, off);

	return off % FM_PAGE_LEN == 0 && FM_EXTENT_KIND(entry) == FM_EXTENT_META &&
	       FM_EXTENT_NPAGES(entry) == FM_LANE_NPAGES &&
	       lane->magic == FM_LANE_MAGIC && lane->self_off == off &&
	       lane->crc == lane_crc(lane);
}

bool lane_known(const struct fm_heap *h, uint64_t off)
{
	uint32_t i;

	for (i = 0; i < h->nlanes; i++)
		if (h->lane[i]->self_off == off)
			return true;
	return false;
}

void lane_open(struct fm_heap *h)
{
	uint64_t off;

	pthread_mutex_init(&h->lane_lock, NULL);
	if (!h->writable)
		return;
	for (off = h->super->lanes_off; off != 0; off = h->lane[h->nlanes++]->next_off) {
		if (h->nlanes == FM_MAX_NLANES || !lane_sound(h, off) ||
		    lane_known(h, off))
			return;
		h->lane[h->nlanes] = (struct fm_lane_disk *)(h->base + off);
	}
}

void lane_recover(struct fm_heap *h)
{
	uint64_t pending = h->super->pending_lane_off;
	uint32_t i;

	for (i = 0; i < h->nlanes; i++)
		recover(h, h->lane[i]);
	if (pending == 0)
		return;
	if (!lane_known(h, pending))
		zone_drop_meta(h, pending, FM_LANE_NPAGES);
	__atomic_store_n(&h->super->pending_lane_off, 0, __ATOMIC_RELEASE);
}

void lane_close(struct fm_heap *h)
{
	uint32_t i;

	if (h->writable)
		for (i = 0; i < h->nlanes; i++)
			empty(h, h->lane[i]);
	pthread_mutex_destroy(&h->lane_lock);
}
