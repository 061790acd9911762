/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a thread has and does not use, others can have: blocks of its slabs that it
 * or others freed, when the pool would grow and when it cannot; and threads that
 * are not idle are not disturbed by that.
 */
#include "scratch.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <fmalloc.h>

#define MIB (1ull << 20)
#define NBLOCKS 400000
#define SIZE 240	/* 92 MiB in all */

static struct fm_info *fi;
static void *block[NBLOCKS];

static uint64_t taken(void)
{
	struct stat st;

	assert_int_equal(stat(P, &st), 0);
	return st.st_blocks * 512;
}

/* --- a thread that does what it is told, and is idle else ----------------------------- */

struct worker {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	void (*job)(void);	/* NULL: none */
	bool ends;
};

static void *work(void *arg)
{
	struct worker *w = arg;

	pthread_mutex_lock(&w->lock);
	for (;;) {
		while (w->job == NULL && !w->ends)
			pthread_cond_wait(&w->changed, &w->lock);
		if (w->job == NULL)
			break;
		w->job();
		w->job = NULL;
		pthread_cond_signal(&w->changed);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static void worker_start(struct worker *w)
{
	memset(w, 0, sizeof(*w));
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->changed, NULL);
	assert_int_equal(pthread_create(&w->thread, NULL, work, w), 0);
}

static void worker_do(struct worker *w, void (*job)(void))
{
	pthread_mutex_lock(&w->lock);
	w->job = job;
	pthread_cond_signal(&w->changed);
	while (w->job != NULL)
		pthread_cond_wait(&w->changed, &w->lock);
	pthread_mutex_unlock(&w->lock);
}

static void worker_end(struct worker *w)
{
	pthread_mutex_lock(&w->lock);
	w->ends = true;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
	assert_int_equal(pthread_join(w->thread, NULL), 0);
}

/* --- jobs ---------------------------------------------------------------------------------- */

static void fill(void)
{
	int i;

	for (i = 0; i < NBLOCKS; i++)
		if (block[i] == NULL)
			block[i] = fmalloc(SIZE);
}

static void shuffle(void)
{
	uint64_t seed = 1;
	int i, k;
	void *p;

	for (i = NBLOCKS - 1; i > 0; i--) {
		k = rnd(&seed) % (i + 1);
		p = block[i];
		block[i] = block[k];
		block[k] = p;
	}
}

static void empty_to(int end)
{
	int i;

	for (i = 0; i < end; i++) {
		ffree(block[i]);
		block[i] = NULL;
	}
}

static void empty_most(void)
{
	empty_to(NBLOCKS / 10 * 9);
}

static int nfilled(void)
{
	int i, n = 0;

	for (i = 0; i < NBLOCKS; i++)
		n += block[i] != NULL;
	return n;
}

/* --- cases ----------------------------------------------------------------------------------- */

static struct worker worker;

static int set_up(void **state)
{
	if (scratch_make(state) != 0)
		return -1;
	fi = fmalloc_init(P, NULL);
	memset(block, 0, sizeof(block));
	worker_start(&worker);
	return fi != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
	worker_end(&worker);
	return fmalloc_close(fi) | scratch_remove(state);
}

#define pool_test(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

static void filled_by_the_worker(void)
{
	worker_do(&worker, fill);
	assert_int_equal(nfilled(), NBLOCKS);
	shuffle();
}

static void what_others_freed_goes_back_by_itself(void **state)
{
	uint64_t peak;

	(void)state;
	filled_by_the_worker();
	peak = taken();
	assert_true(peak > 90 * MIB);
	empty_to(NBLOCKS);
	assert_true(taken() <= peak / 20);
}

static void trim_gets_at_what_is_idle(void **state)
{
	uint64_t before = taken();
	struct fm_stats stats = { .size = sizeof(stats) };

	(void)state;
	filled_by_the_worker();
	empty_to(NBLOCKS - 1);
	worker_do(&worker, empty_most);
	ffree(block[NBLOCKS - 1]);
	assert_int_equal(fm_trim(fi), 0);
	assert_true(taken() <= before + 2 * MIB);
	assert_int_equal(fm_stat(fi, &stats), 0);
	assert_int_equal(stats.nlive, 0);
}

static void what_others_freed_is_used_before_the_pool_grows(void **state)
{
	uint64_t peak;

	(void)state;
	filled_by_the_worker();
	peak = file_size(P);
	empty_most();
	fill();
	assert_int_equal(nfilled(), NBLOCKS);
	assert_true(file_size(P) <= peak + peak / 10);
}

static void what_it_freed_itself_is_used_before_the_pool_grows(void **state)
{
	uint64_t peak;

	(void)state;
	filled_by_the_worker();
	peak = file_size(P);
	worker_do(&worker, empty_most);
	fill();
	assert_int_equal(nfilled(), NBLOCKS);
	assert_true(file_size(P) <= peak + peak / 10);
}

/* --- when nothing more can be had ----------------------------------------------------------------- */

/* The least limit on the pool's file from where on it cannot grow. */
static void no_more(void)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = file_size(P);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void no_limit(void)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = limit.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static uint64_t fill_up(size_t size)
{
	uint64_t n = 0;

	while (fmalloc(size) != NULL)
		n += size;
	return n;
}

static void a_block_of_each_class(void)
{
	int size;

	for (size = 16; size <= 16384; size += size / 8)
		ffree(fmalloc(size));
}

static void nothing_is_out_of_reach(void **state)
{
	static const size_t size[] = { 1000, SIZE, 40000, 5 << 20 };
	uint64_t n;
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(size) / sizeof(size[0]); i++) {
		worker_do(&worker, a_block_of_each_class);
		filled_by_the_worker();
		no_more();
		/* Some are freed by the one, then some by the other. */
		empty_to(NBLOCKS / 3);
		worker_do(&worker, empty_most);
		empty_to(NBLOCKS);
		n = fill_up(size[i]);
		assert_true(n > NBLOCKS * SIZE * 9ull / 10);
		no_limit();
		assert_int_equal(fmalloc_close(fi), 0);
		assert_int_equal(unlink(P), 0);
		fi = fmalloc_init(P, NULL);
		assert_non_null(fi);
	}
}

static void a_root_finds_room(void **state)
{
	char name[32];
	int i;

	(void)state;
	filled_by_the_worker();
	no_more();
	fill_up(1 << 20);
	fill_up(5000);
	fill_up(16);
	empty_to(NBLOCKS);
	for (i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "root %d", i);
		assert_int_equal(fm_root_set(fi, name, NULL, "t"), 0);
	}
	no_limit();
}

/* --- threads that are not idle ------------------------------------------------------------------- */

#define NBUSY 3
#define NKEPT 2000

struct busy {
	pthread_t thread;
	uint64_t seed;
	int nbad;
};

static bool enough;	/* atomic */

/* Each word of a block says whose it is. */
static void *keep_busy(void *arg)
{
	struct busy *b = arg;
	uint64_t *kept[NKEPT] = { NULL };
	int i, w;

	while (!__atomic_load_n(&enough, __ATOMIC_RELAXED)) {
		i = rnd(&b->seed) % NKEPT;
		if (kept[i] != NULL) {
			for (w = 0; w < 4; w++)
				b->nbad += kept[i][w] != (uintptr_t)b + i;
			ffree(kept[i]);
		}
		kept[i] = fmalloc(32 + rnd(&b->seed) % 3 * 16);
		if (kept[i] == NULL) {
			b->nbad++;
			continue;
		}
		for (w = 0; w < 4; w++)
			kept[i][w] = (uintptr_t)b + i;
	}
	for (i = 0; i < NKEPT; i++)
		ffree(kept[i]);
	return NULL;
}

static void busy_threads_are_not_disturbed(void **state)
{
	struct fm_stats stats = { .size = sizeof(stats) };
	uint64_t nbad = fm_bad_free_count();
	struct busy busy[NBUSY];
	int i;

	(void)state;
	enough = false;
	for (i = 0; i < NBUSY; i++) {
		busy[i] = (struct busy){ .seed = i + 1 };
		assert_int_equal(pthread_create(&busy[i].thread, NULL, keep_busy,
						&busy[i]), 0);
	}
	/* (As often as there is time for, under the sanitizers.) */
	for (i = 0; i < 1000; i++) {
		assert_int_equal(fm_trim(fi), 0);
		usleep(i % 5 * 100);
	}
	__atomic_store_n(&enough, true, __ATOMIC_RELAXED);
	for (i = 0; i < NBUSY; i++) {
		assert_int_equal(pthread_join(busy[i].thread, NULL), 0);
		assert_int_equal(busy[i].nbad, 0);
	}
	assert_int_equal(fm_bad_free_count(), nbad);
	assert_int_equal(fm_stat(fi, &stats), 0);
	assert_int_equal(stats.nlive, 0);
	assert_int_equal(fmalloc_close(fi), 0);
	assert_int_equal(fm_check(P), 0);
	fi = fmalloc_init(P, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		pool_test(what_others_freed_goes_back_by_itself),
		pool_test(trim_gets_at_what_is_idle),
		pool_test(what_others_freed_is_used_before_the_pool_grows),
		pool_test(what_it_freed_itself_is_used_before_the_pool_grows),
		pool_test(nothing_is_out_of_reach),
		pool_test(a_root_finds_room),
		pool_test(busy_threads_are_not_disturbed),
	};

	return cmocka_run_group_tests_name("idle", tests, NULL, NULL);
}
