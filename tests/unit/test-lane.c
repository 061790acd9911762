/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes: blocks freed by whichever thread come back, what threads have is nobody's
 * when they end, by whatever means, and pages that were being made when a process
 * died come back.
 */
#include <config.h>

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

#include "heap/heap.h"
#include "heap/lane.h"
#include "scratch.h"

/* --- what is on disk ------------------------------------------------------- */

struct counts {
	uint64_t nblocks;	/* small ones, allocated */
	uint64_t nslabs;
	uint64_t nmeta;		/* extents of the heap's own */
};

static struct counts count(struct fm_heap *h)
{
	struct counts n = { 0, 0, 0 };
	uint32_t zone, p, entry, i, size;

	for (zone = 0; zone < heap_nzones(h); zone++)
		for (p = FM_ZONE_HEAD_NPAGES; p < FM_ZONE_NPAGES; p++) {
			uint64_t off = zone * FM_ZONE_LEN + (uint64_t)p * FM_PAGE_LEN;

			entry = zone_entry(h, off);
			n.nmeta += FM_EXTENT_KIND(entry) == FM_EXTENT_META;
			if (FM_EXTENT_KIND(entry) != FM_EXTENT_SLAB)
				continue;
			n.nslabs++;
			size = sizeclass_table[FM_EXTENT_CLASS(entry)].size;
			for (i = 0; i < FM_SLAB_LEN / size; i++)
				n.nblocks += slab_has(h, FM_EXTENT_CLASS(entry),
						      off + i * size);
		}
	return n;
}

static struct counts count_pool(struct fm_info *fi)
{
	return count(registry_check(fi));
}

/* Open the pool and check that just so many small blocks are allocated. */
static void assert_nblocks(uint64_t want)
{
	struct fm_info *fi = fmalloc_open(P, 0, NULL);

	assert_non_null(fi);
	assert_int_equal(count_pool(fi).nblocks, want);
	assert_int_equal(fmalloc_close(fi), 0);
}

/* --- the end of a process ---------------------------------------------------- */

#define NLIVE 700

static size_t size_of(unsigned i)
{
	return 1 + i * 37 % 3000;
}

/* Allocate twice NLIVE blocks and free every second. */
static void use_pool(void)
{
	void *block[2 * NLIVE];
	unsigned i;

	if (fmalloc_init(P, NULL) == NULL)
		_exit(1);
	for (i = 0; i < 2 * NLIVE; i++) {
		block[i] = fmalloc(size_of(i));
		if (block[i] == NULL)
			_exit(2);
	}
	for (i = 0; i < 2 * NLIVE; i += 2)
		ffree(block[i]);
}

static int in_child(void (*fn)(void *arg))
{
	return child_wait(child_start(fn, NULL));
}

static void use_and_end(void *arg)
{
	(void)arg;
	use_pool();
}

static void use_and_die(void *arg)
{
	(void)arg;
	use_pool();
	raise(SIGKILL);
}

static void killed_with_blocks_at_hand_leaks_nothing(void **state)
{
	(void)state;
	assert_true(WIFSIGNALED(in_child(use_and_die)));
	assert_nblocks(NLIVE);
	assert_nblocks(NLIVE);
}

static void ended_with_blocks_at_hand_leaks_nothing(void **state)
{
	(void)state;
	assert_int_equal(in_child(use_and_end), 0);
	assert_nblocks(NLIVE);
}

static void closing_gives_empty_slabs_back(void **state)
{
	struct fm_info *fi;
	void *block[500];
	int i, round;

	(void)state;
	for (round = 0; round < 3; round++) {
		fi = fmalloc_init(P, NULL);
		assert_non_null(fi);
		assert_int_equal(count_pool(fi).nslabs, round);
		for (i = 0; i < 500; i++)
			assert_non_null(block[i] = fmalloc(16 + i * 30));
		assert_true(count_pool(fi).nslabs > 30);
		for (i = 0; i < 500; i++)
			ffree(block[i]);
		assert_non_null(fmalloc(1000 + round * 500));
		assert_int_equal(fmalloc_close(fi), 0);
	}
	assert_nblocks(3);
}

/* --- threads ------------------------------------------------------------------- */

static void *in_thread(void *(*fn)(void *), void *arg)
{
	pthread_t thread;
	void *result;

	assert_int_equal(pthread_create(&thread, NULL, fn, arg), 0);
	assert_int_equal(pthread_join(thread, &result), 0);
	return result;
}

static void *alloc_and_free(void *arg)
{
	unsigned i;

	(void)arg;
	for (i = 0; i < 200; i++)
		ffree(fmalloc(size_of(i)));
	return fmalloc(40);
}

static void lanes_and_slabs_go_from_thread_to_thread(void **state)
{
	struct fm_info *fi = fmalloc_init(P, NULL);
	int i;

	(void)state;
	assert_non_null(fi);
	for (i = 0; i < 20; i++)
		assert_non_null(in_thread(alloc_and_free, NULL));
	assert_int_equal(registry_check(fi)->nlanes, 1);
	/* Each left one block, all in one slab, and nothing else. */
	assert_int_equal(count_pool(fi).nblocks, 20);
	assert_int_equal(count_pool(fi).nslabs, 1);
	assert_int_equal(count_pool(fi).nmeta, 0);
	assert_int_equal(fmalloc_close(fi), 0);
}

#define NMANY 5000

static void *many[NMANY];

static void *fill_many(void *arg)
{
	unsigned i;

	(void)arg;
	for (i = 0; i < NMANY; i++) {
		many[i] = fmalloc(size_of(i));
		if (many[i] == NULL)
			return NULL;
	}
	return many;
}

static void *free_many(void *arg)
{
	unsigned i;

	(void)arg;
	for (i = 0; i < NMANY; i++)
		ffree(many[i]);
	return NULL;
}

static void what_others_free_is_used_again(void **state)
{
	struct fm_info *fi = fmalloc_init(P, NULL);
	uint64_t nbad = fm_bad_free_count(), nslabs = 0;
	int i;

	(void)state;
	assert_non_null(fi);
	for (i = 0; i < 10; i++) {
		assert_non_null(fill_many(NULL));
		if (i == 0)
			nslabs = count_pool(fi).nslabs;
		in_thread(free_many, NULL);
		assert_int_equal(count_pool(fi).nblocks, 0);
	}
	/* A slab or two a class are what the other thread's end left loose. */
	assert_true(count_pool(fi).nslabs <= nslabs + 2 * SIZECLASS_N);
	assert_int_equal(fm_bad_free_count(), nbad);
	assert_int_equal(fmalloc_close(fi), 0);
	assert_nblocks(0);
}

/* ThreadSanitizer is done with a thread before the last round of destructors, and
 * cannot say what happens in that. */
#ifndef __SANITIZE_THREAD__
static pthread_key_t late_key;

/* Each time that the thread's destructors run, the last time included. */
static void use_late(void *arg)
{
	assert_int_equal(pthread_setspecific(late_key, arg), 0);
	ffree(fmalloc(100));
}

static void *end_late(void *arg)
{
	assert_int_equal(pthread_setspecific(late_key, arg), 0);
	ffree(fmalloc(100));
	return NULL;
}

static void a_lane_is_not_lost_to_a_late_destructor(void **state)
{
	struct fm_info *fi = fmalloc_init(P, NULL);
	int i;

	assert_non_null(fi);
	assert_int_equal(pthread_key_create(&late_key, use_late), 0);
	for (i = 0; i < 20; i++)
		in_thread(end_late, state);
	assert_int_equal(registry_check(fi)->nlanes, 1);
	assert_int_equal(pthread_key_delete(late_key), 0);
	assert_int_equal(fmalloc_close(fi), 0);
	assert_nblocks(0);
}
#endif

static void what_an_ended_thread_had_is_used_again(void **state)
{
	struct fm_info *fi = fmalloc_init(P, NULL);
	uint64_t nslabs = 0;
	int i;

	(void)state;
	assert_non_null(fi);
	for (i = 0; i < 10; i++) {
		assert_non_null(in_thread(fill_many, NULL));
		if (i == 0)
			nslabs = count_pool(fi).nslabs;
		free_many(NULL);
	}
	assert_true(count_pool(fi).nslabs <= nslabs + SIZECLASS_N);
	assert_int_equal(count_pool(fi).nblocks, 0);
	assert_int_equal(fmalloc_close(fi), 0);
}

static uint64_t npages_in_extents(const struct fm_heap *h)
{
	uint64_t off, n = 0;

	for (off = FM_ZONE_DATA_OFF; off < heap_end(h); off += FM_PAGE_LEN)
		if (off % FM_ZONE_LEN >= FM_ZONE_DATA_OFF)
			n += FM_EXTENT_NPAGES(zone_entry(h, off));
	return n;
}

static uint64_t npages_taken(const struct fm_heap *h)
{
	return h->nbacked_pages - h->nfree_pages;
}

/* A thread takes pages for several slabs at once. */
static void pages_for_slabs_to_come_go_back(void **state)
{
	struct fm_info *fi = fmalloc_init(P, NULL);
	struct fm_heap *h = registry_check(fi);

	(void)state;
	assert_non_null(fi);
	assert_non_null(in_thread(fill_many, NULL));
	assert_int_equal(npages_taken(h), npages_in_extents(h));
	free_many(NULL);
	while (npages_taken(h) == npages_in_extents(h))
		assert_non_null(fmalloc(2000));
	assert_int_equal(fm_trim(fi), 0);
	assert_int_equal(npages_taken(h), npages_in_extents(h));
	assert_int_equal(fmalloc_close(fi), 0);
}

/* One allocates without end, some free what it passes to them. */
#define NPASS 200000

static void *passed[NPASS];	/* atomic */

static void *free_passed(void *arg)
{
	uintptr_t i;
	uint64_t *p;

	for (i = (uintptr_t)arg; i < NPASS; i += 3) {
		while ((p = __atomic_load_n(&passed[i], __ATOMIC_ACQUIRE)) == NULL)
			;
		if (*p != i)
			return (void *)1;
		ffree(p);
	}
	return NULL;
}

static void passing_blocks_on(void **state)
{
	struct fm_info *fi = fmalloc_init(P, NULL);
	uint64_t nbad = fm_bad_free_count();
	pthread_t thread[3];
	uint64_t *p;
	uintptr_t i;
	void *bad;

	(void)state;
	assert_non_null(fi);
	memset(passed, 0, sizeof(passed));
	for (i = 0; i < 3; i++)
		pthread_create(&thread[i], NULL, free_passed, (void *)i);
	for (i = 0; i < NPASS; i++) {
		p = fmalloc(8 + i % 7 * 16);
		assert_non_null(p);
		*p = i;
		__atomic_store_n(&passed[i], p, __ATOMIC_RELEASE);
	}
	for (i = 0; i < 3; i++) {
		pthread_join(thread[i], &bad);
		assert_null(bad);
	}
	assert_int_equal(fm_bad_free_count(), nbad);
	assert_int_equal(count_pool(fi).nblocks, 0);
	assert_int_equal(fmalloc_close(fi), 0);
	assert_nblocks(0);
}

#define NTHREADS (SHARED_LANE + 20)
#define NEACH 50

static pthread_barrier_t barrier;
static uint64_t *table[NTHREADS][NEACH];

/* All threads are there at the same time. */
static void *fill_table(void *arg)
{
	uint64_t id = (uintptr_t)arg;
	unsigned i;

	pthread_barrier_wait(&barrier);
	for (i = 0; i < NEACH; i++) {
		table[id][i] = fmalloc(48);
		if (table[id][i] != NULL)
			*table[id][i] = id * NEACH + i;
	}
	pthread_barrier_wait(&barrier);
	/* And each frees another's. */
	id = (id + 1) % NTHREADS;
	for (i = 0; i < NEACH; i += 2)
		ffree(table[id][i]);
	return NULL;
}

/* As many threads, at the same time, as make some share a lane. */
static void fill_tables(void)
{
	static pthread_t thread[NTHREADS];
	uint64_t i;

	pthread_barrier_init(&barrier, NULL, NTHREADS);
	for (i = 0; i < NTHREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, fill_table,
						(void *)(uintptr_t)i), 0);
	for (i = 0; i < NTHREADS; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);
	pthread_barrier_destroy(&barrier);
}

static void more_threads_than_lanes(void **state)
{
	struct fm_info *fi = fmalloc_init(P, NULL);
	uint64_t nbad = fm_bad_free_count(), i, k;

	(void)state;
	assert_non_null(fi);
	fill_tables();
	for (i = 0; i < NTHREADS; i++)
		for (k = 1; k < NEACH; k += 2) {
			assert_non_null(table[i][k]);
			assert_int_equal(*table[i][k], i * NEACH + k);
		}
	assert_int_equal(registry_check(fi)->nlanes, SHARED_LANE - 1);
	assert_int_equal(fm_bad_free_count(), nbad);
	assert_int_equal(fmalloc_close(fi), 0);
	assert_nblocks(NTHREADS * NEACH / 2);
}

/* That lane is no thread's that ends. */
static void what_a_shared_lane_had_goes_back(void **state)
{
	struct fm_info *fi = fmalloc_init(P, NULL);
	uint64_t i, k;

	(void)state;
	assert_non_null(fi);
	fill_tables();
	for (i = 0; i < NTHREADS; i++)
		for (k = 1; k < NEACH; k += 2)
			ffree(table[i][k]);
	assert_int_equal(fm_trim(fi), 0);
	assert_int_equal(count_pool(fi).nslabs, 0);
	assert_int_equal(npages_taken(registry_check(fi)), 0);
	assert_int_equal(fmalloc_close(fi), 0);
}

static void *free_block(void *block)
{
	ffree(block);
	return NULL;
}

static void freeing_again_is_refused(void **state)
{
	struct fm_info *fi = fmalloc_init(P, NULL);
	uint64_t nbad = fm_bad_free_count();
	void *block[300], *big;
	int i;

	(void)state;
	assert_non_null(fi);
	for (i = 0; i < 300; i++)
		assert_non_null(block[i] = fmalloc(100));
	ffree(block[0]);
	ffree(block[0]);
	assert_int_equal(fm_bad_free_count(), ++nbad);
	assert_int_equal(fmalloc_usable_size(block[0]), 0);
	in_thread(free_block, block[0]);
	assert_int_equal(fm_bad_free_count(), ++nbad);
	/* Freed by another thread, and not yet taken over by this one. */
	in_thread(free_block, block[1]);
	assert_int_equal(fm_bad_free_count(), nbad);
	assert_int_equal(fmalloc_usable_size(block[1]), 0);
	in_thread(free_block, block[1]);
	assert_int_equal(fm_bad_free_count(), ++nbad);
	ffree(block[1]);
	assert_int_equal(fm_bad_free_count(), ++nbad);
	/* Taken over, when it looked for slabs of another class. */
	assert_non_null(big = fmalloc(16384));
	ffree(block[1]);
	assert_int_equal(fm_bad_free_count(), ++nbad);
	assert_int_equal(fmalloc_usable_size(block[1]), 0);
	ffree(big);
	for (i = 2; i < 300; i++)
		ffree(block[i]);
	assert_int_equal(fm_bad_free_count(), nbad);
	for (i = 0; i < 300; i++)
		ffree(block[i]);
	assert_int_equal(fm_bad_free_count(), nbad + 300);
	assert_int_equal(count_pool(fi).nblocks, 0);
	assert_int_equal(fmalloc_close(fi), 0);
	assert_nblocks(0);
}

/* --- pools that come and go --------------------------------------------------------- */

static pthread_barrier_t turns;

static void *across_pools(void *arg)
{
	void **block = arg;

	block[0] = fmalloc(64);
	pthread_barrier_wait(&turns);
	pthread_barrier_wait(&turns);	/* the pool was closed and opened again */
	block[1] = fmalloc(64);
	return NULL;
}

static void a_pool_closed_behind_a_thread(void **state)
{
	struct fm_info *fi = fmalloc_init(P, NULL);
	void *block[2] = { NULL, NULL };
	pthread_t thread;

	(void)state;
	assert_non_null(fi);
	pthread_barrier_init(&turns, NULL, 2);
	pthread_create(&thread, NULL, across_pools, block);
	pthread_barrier_wait(&turns);
	assert_int_equal(fmalloc_close(fi), 0);
	fi = fmalloc_init(P, NULL);	/* the same window: by the UUID */
	assert_non_null(fi);
	pthread_barrier_wait(&turns);
	pthread_join(thread, NULL);
	pthread_barrier_destroy(&turns);
	assert_non_null(block[0]);
	assert_non_null(block[1]);
	assert_ptr_not_equal(block[0], block[1]);
	assert_int_equal(fmalloc_usable_size(block[0]), 64);
	assert_int_equal(fmalloc_close(fi), 0);
	assert_nblocks(2);
}

/* --- pages that were being made ------------------------------------------------------ */

static void die_making_intents(void *arg)
{
	struct fm_heap *h = registry_check(fmalloc_init(P, NULL));

	(void)arg;
	if (h == NULL || fmalloc(10) == NULL ||
	    pages_alloc(h, FM_EXTENT_META, 0, FM_INTENTS_NPAGES, 1,
			&h->super->pending_intents_off) < 0)
		_exit(1);
	raise(SIGKILL);
}

/* A new pool with 100 roots: the region's page is full, and one more made. */
static struct fm_heap *pool_with_roots(void)
{
	struct fm_heap *h = registry_check(fmalloc_init(P, NULL));
	char name[32];
	int i;

	if (h == NULL)
		_exit(1);
	for (i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "root %d", i);
		if (fm_root_set(&h->info, name, NULL, NULL) < 0)
			_exit(2);
	}
	return h;
}

static void die_making_a_rootpage(void *arg)
{
	struct fm_heap *h = pool_with_roots();

	(void)arg;
	if (pages_alloc(h, FM_EXTENT_META, 0, FM_ROOTPAGE_NPAGES, 1,
			&h->super->pending_rootpage_off) < 0)
		_exit(3);
	raise(SIGKILL);
}

/* One page of roots beyond the region was made, and finished. */
static void die_after_making_a_rootpage(void *arg)
{
	struct fm_heap *h = pool_with_roots();

	(void)arg;
	h->super->pending_rootpage_off = h->roots.last_page_off;
	raise(SIGKILL);
}

static void assert_nmeta(uint64_t want, int nroots)
{
	struct fm_info *fi = fmalloc_open(P, 0, NULL);
	char name[32];
	int i;

	assert_non_null(fi);
	assert_int_equal(count_pool(fi).nmeta, want);
	for (i = 0; i < nroots; i++) {
		snprintf(name, sizeof(name), "root %d", i);
		errno = 1;
		assert_null(fm_root_get(fi, name, NULL));
		assert_int_equal(errno, 0);
	}
	assert_int_equal(fmalloc_close(fi), 0);
}

static void killed_making_intents_leaks_nothing(void **state)
{
	(void)state;
	assert_true(WIFSIGNALED(in_child(die_making_intents)));
	assert_nmeta(0, 0);
}

static void killed_making_a_rootpage_leaks_nothing(void **state)
{
	(void)state;
	assert_true(WIFSIGNALED(in_child(die_making_a_rootpage)));
	assert_nmeta(1, 100);
}

static void killed_after_linking_a_rootpage_keeps_it(void **state)
{
	(void)state;
	assert_true(WIFSIGNALED(in_child(die_after_making_a_rootpage)));
	assert_nmeta(1, 100);
}

static void *allocate_for_ever(void *arg)
{
	(void)arg;
	for (;;) {
		if (fmalloc(5000) == NULL)
			return NULL;
		pthread_testcancel();
	}
}

static void a_cancelled_thread_leaves_no_lock(void **state)
{
	struct fm_info *fi = fmalloc_init(P, NULL);
	pthread_t thread;
	int i;

	(void)state;
	assert_non_null(fi);
	alarm(60);
	for (i = 0; i < 30; i++) {
		assert_int_equal(pthread_create(&thread, NULL, allocate_for_ever, NULL), 0);
		usleep(1000);
		assert_int_equal(pthread_cancel(thread), 0);
		assert_int_equal(pthread_join(thread, NULL), 0);
		ffree(fmalloc(5000));
		ffree(fmalloc(50000));
	}
	alarm(0);
	assert_int_equal(fmalloc_close(fi), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		scratch_test(killed_with_blocks_at_hand_leaks_nothing),
		scratch_test(ended_with_blocks_at_hand_leaks_nothing),
		scratch_test(closing_gives_empty_slabs_back),
		scratch_test(lanes_and_slabs_go_from_thread_to_thread),
		scratch_test(what_others_free_is_used_again),
		scratch_test(what_an_ended_thread_had_is_used_again),
		scratch_test(pages_for_slabs_to_come_go_back),
#ifndef __SANITIZE_THREAD__
		scratch_test(a_lane_is_not_lost_to_a_late_destructor),
#endif
		scratch_test(passing_blocks_on),
		scratch_test(more_threads_than_lanes),
		scratch_test(what_a_shared_lane_had_goes_back),
		scratch_test(freeing_again_is_refused),
		scratch_test(a_pool_closed_behind_a_thread),
		scratch_test(a_cancelled_thread_leaves_no_lock),
		scratch_test(killed_making_intents_leaks_nothing),
		scratch_test(killed_making_a_rootpage_leaks_nothing),
		scratch_test(killed_after_linking_a_rootpage_keeps_it),
	};

	return cmocka_run_group_tests_name("lane", tests, NULL, NULL);
}
