/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes: what threads keep at hand is nobody's when they end, by whatever means,
 * and pages that were being made when a process died come back.
 */
#include <config.h>

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

#include "heap/heap.h"
#include "heap/lane.h"
#include "scratch.h"

/* --- what is on disk ------------------------------------------------------- */

/* Blocks of slabs whose bits are set; and of extents, the heap's own pages. */
static void count_bits(struct fm_heap *h, uint64_t *nblocks, uint64_t *nmeta)
{
	uint32_t zone, p, entry, w;

	*nblocks = *nmeta = 0;
	for (zone = 0; zone < heap_nzones(h); zone++)
		for (p = FM_ZONE_HEAD_NPAGES; p < FM_ZONE_NPAGES; p++) {
			uint64_t off = zone * FM_ZONE_LEN + (uint64_t)p * FM_PAGE_LEN;

			entry = zone_entry(h, off);
			*nmeta += FM_EXTENT_KIND(entry) == FM_EXTENT_META;
			if (FM_EXTENT_KIND(entry) != FM_EXTENT_SLAB)
				continue;
			for (w = 0; w < FM_BITMAP_LEN / 8; w++)
				*nblocks += __builtin_popcountll(slab_bitmap(h, off)[w]);
		}
}

/* Open the pool and check that just so many small blocks are allocated. */
static void assert_nblocks(uint64_t want)
{
	struct fm_info *fi = fmalloc_open(P, 0, NULL);
	uint64_t nblocks, nmeta;

	assert_non_null(fi);
	count_bits(registry_check(fi), &nblocks, &nmeta);
	assert_int_equal(nblocks, want);
	assert_int_equal(fmalloc_close(fi), 0);
}

static uint32_t count_lanes(struct fm_heap *h)
{
	uint32_t n = 0;
	uint64_t off;

	for (off = h->super->lanes_off; off != 0; n++)
		off = ((struct fm_lane_disk *)(h->base + off))->next_off;
	return n;
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

static void killed_with_full_magazines_leaks_nothing(void **state)
{
	(void)state;
	assert_true(WIFSIGNALED(in_child(use_and_die)));
	assert_nblocks(NLIVE);
	assert_nblocks(NLIVE);
}

static void ended_with_full_magazines_leaks_nothing(void **state)
{
	(void)state;
	assert_int_equal(in_child(use_and_end), 0);
	assert_nblocks(NLIVE);
}

static void close_empties_the_magazines(void **state)
{
	struct fm_heap *h;
	struct fm_info *fi;
	uint32_t cls;

	(void)state;
	use_pool();
	fi = &registry_target()->info;
	assert_int_equal(fmalloc_close(fi), 0);
	fi = fmalloc_open(P, FM_RDONLY, NULL);
	assert_non_null(fi);
	h = registry_check(fi);
	assert_int_equal(count_lanes(h), 1);
	for (cls = 0; cls < SIZECLASS_N; cls++)
		assert_int_equal(((struct fm_lane_disk *)(h->base + h->super->lanes_off))
					 ->magazine[cls].count, 0);
	assert_int_equal(fmalloc_close(fi), 0);
	assert_nblocks(NLIVE);
}

/* --- threads ------------------------------------------------------------------- */

static void *alloc_and_free(void *arg)
{
	unsigned i;

	(void)arg;
	for (i = 0; i < 200; i++)
		ffree(fmalloc(size_of(i)));
	return fmalloc(40);
}

static void lanes_go_from_thread_to_thread(void **state)
{
	struct fm_info *fi = fmalloc_init(P, NULL);
	uint64_t nblocks, nmeta;
	pthread_t thread;
	void *block;
	int i;

	(void)state;
	assert_non_null(fi);
	for (i = 0; i < 20; i++) {
		assert_int_equal(pthread_create(&thread, NULL, alloc_and_free, NULL), 0);
		assert_int_equal(pthread_join(thread, &block), 0);
		assert_non_null(block);
	}
	assert_int_equal(count_lanes(registry_check(fi)), 1);
	/* Each left one block, and what it had at hand went back. */
	count_bits(registry_check(fi), &nblocks, &nmeta);
	assert_int_equal(nblocks, 20);
	assert_int_equal(nmeta, 1);
	assert_int_equal(fmalloc_close(fi), 0);
}

#define NTHREADS (FM_MAX_NLANES + 20)
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

static void more_threads_than_lanes(void **state)
{
	struct fm_info *fi = fmalloc_init(P, NULL);
	static pthread_t thread[NTHREADS];
	uint64_t nbad = fm_bad_free_count(), i, k;

	(void)state;
	assert_non_null(fi);
	pthread_barrier_init(&barrier, NULL, NTHREADS);
	for (i = 0; i < NTHREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, fill_table,
						(void *)(uintptr_t)i), 0);
	for (i = 0; i < NTHREADS; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);
	pthread_barrier_destroy(&barrier);
	for (i = 0; i < NTHREADS; i++)
		for (k = 1; k < NEACH; k += 2) {
			assert_non_null(table[i][k]);
			assert_int_equal(*table[i][k], i * NEACH + k);
		}
	assert_int_equal(count_lanes(registry_check(fi)), FM_MAX_NLANES);
	assert_int_equal(fm_bad_free_count(), nbad);
	assert_int_equal(fmalloc_close(fi), 0);
	assert_nblocks(NTHREADS * NEACH / 2);
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
	void *block[300];
	pthread_t thread;
	int i;

	(void)state;
	assert_non_null(fi);
	for (i = 0; i < 300; i++)
		assert_non_null(block[i] = fmalloc(100));
	ffree(block[0]);
	ffree(block[0]);		/* at hand */
	assert_int_equal(fm_bad_free_count(), ++nbad);
	assert_int_equal(fmalloc_usable_size(block[0]), 0);
	pthread_create(&thread, NULL, free_block, block[0]);
	pthread_join(thread, NULL);	/* in another's magazine */
	assert_int_equal(fm_bad_free_count(), ++nbad);
	for (i = 1; i < 300; i++)
		ffree(block[i]);
	assert_int_equal(fm_bad_free_count(), nbad);
	for (i = 0; i < 300; i++)
		ffree(block[i]);	/* some at hand, some given back */
	assert_int_equal(fm_bad_free_count(), nbad + 300);
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

static void die_making_a_lane(void *arg)
{
	struct fm_heap *h = registry_check(fmalloc_init(P, NULL));
	uint64_t off;

	(void)arg;
	if (h == NULL || fmalloc(10) == NULL ||
	    zone_alloc_meta(h, FM_LANE_NPAGES, &h->super->pending_lane_off, &off) < 0)
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
	uint64_t off;

	(void)arg;
	if (zone_alloc_meta(h, FM_ROOTPAGE_NPAGES, &h->super->pending_rootpage_off, &off) < 0)
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
	uint64_t nblocks, nmeta;
	char name[32];
	int i;

	assert_non_null(fi);
	count_bits(registry_check(fi), &nblocks, &nmeta);
	assert_int_equal(nmeta, want);
	for (i = 0; i < nroots; i++) {
		snprintf(name, sizeof(name), "root %d", i);
		errno = 1;
		assert_null(fm_root_get(fi, name, NULL));
		assert_int_equal(errno, 0);
	}
	assert_int_equal(fmalloc_close(fi), 0);
}

static void killed_making_a_lane_leaks_nothing(void **state)
{
	(void)state;
	assert_true(WIFSIGNALED(in_child(die_making_a_lane)));
	assert_nmeta(1, 0);
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

/* --- lanes that somebody made up ------------------------------------------------------ */

static void put64(uint64_t off, uint64_t value)
{
	file_write(P, off, &value, sizeof(value));
}

static void open_and_allocate(void *arg)
{
	struct fm_info *fi = fmalloc_open(P, 0, NULL);
	uint64_t nbad = fm_bad_free_count();
	char *block[200];
	unsigned i, k;

	(void)arg;
	child_check(fi != NULL);
	for (i = 0; i < 200; i++) {
		block[i] = fmalloc_in(fi, size_of(i));
		child_check(block[i] != NULL);
		memset(block[i], i, size_of(i));
	}
	for (i = 0; i < 200; i++)
		for (k = 0; k < size_of(i); k++)
			child_check(block[i][k] == (char)i);
	for (i = 0; i < 200; i++)
		ffree(block[i]);
	child_check(fm_bad_free_count() == nbad);
	child_check(fmalloc_close(fi) == 0);
}

/* Offsets that only look right in their low bits, circles, counts, and pages
 * that are said to be unfinished though they are in use. */
static void made_up_lanes_do_no_harm(void **state)
{
	static const uint64_t far = UINT64_C(1) << 58;
	const uint64_t lanes_off = offsetof(struct fm_super_disk, lanes_off);
	const uint64_t mag = sizeof(struct fm_lane_disk) -
			     FM_LANE_NMAGAZINES * sizeof(struct fm_magazine_disk);
	uint64_t lane, block, n;
	struct fm_info *fi;
	unsigned i;

	(void)state;
	for (i = 0; i < 8; i++) {
		unlink(P);
		fi = fmalloc_init(P, NULL);
		assert_non_null(fi);
		block = (char *)fmalloc(16) - (char *)fi->mem;
		lane = registry_check(fi)->super->lanes_off;
		assert_int_equal(fmalloc_close(fi), 0);
		n = 1;
		switch (i) {
		case 0: put64(lanes_off, lane + far); break;
		case 1: put64(lane + offsetof(struct fm_lane_disk, next_off), lane); break;
		case 2: put64(lane + offsetof(struct fm_lane_disk, next_off), lane + far); break;
		case 3:
			file_write(P, lane + mag, &n, 4);
			put64(lane + mag + 8, block + far);
			break;
		case 4:
			file_write(P, lane + mag, &n, 4);
			put64(lane + mag + 8, lane);	/* no block */
			break;
		case 5: put64(lane + mag, UINT32_MAX); break;
		case 6: put64(offsetof(struct fm_super_disk, pending_lane_off), lane); break;
		case 7: put64(offsetof(struct fm_super_disk, pending_rootpage_off), lane); break;
		}
		child_run(open_and_allocate, NULL);
	}
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
		scratch_test(killed_with_full_magazines_leaks_nothing),
		scratch_test(ended_with_full_magazines_leaks_nothing),
		scratch_test(close_empties_the_magazines),
		scratch_test(lanes_go_from_thread_to_thread),
		scratch_test(more_threads_than_lanes),
		scratch_test(freeing_again_is_refused),
		scratch_test(a_pool_closed_behind_a_thread),
		scratch_test(made_up_lanes_do_no_harm),
		scratch_test(a_cancelled_thread_leaves_no_lock),
		scratch_test(killed_making_a_lane_leaks_nothing),
		scratch_test(killed_making_a_rootpage_leaks_nothing),
		scratch_test(killed_after_linking_a_rootpage_keeps_it),
	};

	return cmocka_run_group_tests_name("lane", tests, NULL, NULL);
}
