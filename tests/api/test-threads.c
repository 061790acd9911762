/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that allocate and free across each other: every block that one hands
 * on is freed, resized or kept by another, and roots are set meanwhile.  To be
 * run under the sanitizers, too.
 */
#include "scratch.h"

#include <pthread.h>

#include <fmalloc.h>

#define NTHREADS 4
#define NOPS 250000	/* of each thread */
#define NSLOTS 512

static struct fm_info *fi;
static void *slot[NSLOTS];	/* handed on by atomic exchange */

/* A block says how long it is and holds the low byte of its address at both
 * ends: two that overlap are found out. */
static void *make_block(size_t size)
{
	unsigned char *p;

	if (size < 16)
		size = 16;
	p = fmalloc_in(fi, size);
	if (p == NULL)
		return NULL;
	memcpy(p, &size, sizeof(size));
	p[8] = p[size - 1] = (uintptr_t)p >> 4;
	return p;
}

static int bad_block(const unsigned char *p)
{
	size_t size;

	memcpy(&size, p, sizeof(size));
	return (uintptr_t)p % 16 != 0 || size < 16 || fmalloc_usable_size(p) < size ||
	       p[8] != (unsigned char)((uintptr_t)p >> 4) || p[size - 1] != p[8];
}

static size_t a_size(uint64_t *seed)
{
	uint64_t r = rnd(seed);

	if (r % 1000 == 0)
		return r >> 32 & 0x3ffff;	/* runs */
	return r % 16 == 0 ? r >> 32 & 0x3fff : r >> 32 & 0xff;
}

struct job {
	pthread_t thread;
	unsigned number;
	uint64_t seed;
	int nbad;
};

static void *work(void *arg)
{
	struct job *job = arg;
	void *p;
	int i;

	for (i = 0; i < NOPS; i++) {
		p = rnd(&job->seed) % 3 == 0 ? NULL : make_block(a_size(&job->seed));
		p = __atomic_exchange_n(&slot[rnd(&job->seed) % NSLOTS], p, __ATOMIC_ACQ_REL);
		if (p == NULL)
			continue;
		job->nbad += bad_block(p);
		ffree(p);
	}
	return NULL;
}

static void run(void *(*fn)(void *), unsigned n)
{
	struct job job[NTHREADS];
	unsigned i;

	for (i = 0; i < n; i++) {
		job[i] = (struct job){ .number = i, .seed = i + 1 };
		assert_int_equal(pthread_create(&job[i].thread, NULL, fn, &job[i]), 0);
	}
	for (i = 0; i < n; i++)
		assert_int_equal(pthread_join(job[i].thread, NULL), 0);
	for (i = 0; i < n; i++)
		assert_int_equal(job[i].nbad, 0);
}

static int set_up(void **state)
{
	if (scratch_make(state) != 0)
		return -1;
	fi = fmalloc_init(P, NULL);
	memset(slot, 0, sizeof(slot));
	return fi != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
	int rc = fmalloc_close(fi);

	return scratch_remove(state) | rc;
}

#define pool_test(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

static void blocks_are_freed_across_threads(void **state)
{
	int i, n = 0;

	(void)state;
	run(work, NTHREADS);
	for (i = 0; i < NSLOTS; i++) {
		if (slot[i] == NULL)
			continue;
		assert_false(bad_block(slot[i]));
		ffree(slot[i]);
		n++;
	}
	assert_true(n > 0);
	assert_int_equal(fm_bad_free_count(), 0);
	/* Live data was a few MiB all the time. */
	assert_true(file_size(P) < 200 << 20);
}

/* After a reopening zones are loaded by whichever thread comes there first. */
static void a_reopened_pool_is_loaded_by_many_threads(void **state)
{
	static uint64_t off[4000];
	uint64_t seed = 5;
	int i;

	(void)state;
	for (i = 0; i < 4000; i++) {
		void *p = make_block(i % 10 == 0 ? 200000 : a_size(&seed));

		assert_non_null(p);
		off[i] = (char *)p - (char *)fi->mem;
	}
	assert_int_equal(fmalloc_close(fi), 0);
	fi = fmalloc_init(P, NULL);
	assert_non_null(fi);
	for (i = 0; i < NSLOTS; i++)
		slot[i] = (char *)fi->mem + off[i * 7];
	run(work, NTHREADS);
	for (i = 0; i < 4000; i++)
		if (i % 7 != 0 || i / 7 >= NSLOTS)
			assert_false(bad_block((unsigned char *)fi->mem + off[i]));
	assert_int_equal(fm_bad_free_count(), 0);
}

static void *work_on_roots(void *arg)
{
	struct job *job = arg;
	char name[32];
	void *p, *q;
	int i;

	for (i = 0; i < 3000; i++) {
		snprintf(name, sizeof(name), "%u-%d", job->number, i % 50);
		p = fm_root_get(fi, name, "block");
		if (p != NULL)
			job->nbad += bad_block(p);
		q = make_block(a_size(&job->seed));
		job->nbad += q == NULL || fm_root_set(fi, name, q, "block") != 0;
		if (i % 11 == 0)
			job->nbad += fm_root_remove(fi, name) != 0;
		if (p != NULL)
			ffree(p);
	}
	return NULL;
}

static void roots_are_set_by_many_threads(void **state)
{
	(void)state;
	run(work_on_roots, NTHREADS);
}

/* Each thread opens, uses and closes a pool of its own. */
static void *work_on_own_pool(void *arg)
{
	struct job *job = arg;
	struct fm_info *own;
	char path[32];
	void *p;
	int i, k;

	snprintf(path, sizeof(path), "own-%u", job->number);
	for (i = 0; i < 20; i++) {
		own = fmalloc_init(path, NULL);
		if (own == NULL) {
			job->nbad++;
			return NULL;
		}
		for (k = 0; k < 100; k++) {
			p = fmalloc(k * 10);
			if (p == NULL || (char *)p < (char *)own->mem ||
			    (uint64_t)((char *)p - (char *)own->mem) >> FM_WINDOW_BITS != 0)
				job->nbad++;
		}
		job->nbad += fmalloc_close(own) != 0;
	}
	return NULL;
}

static void pools_are_opened_by_many_threads(void **state)
{
	(void)state;
	run(work_on_own_pool, NTHREADS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		pool_test(blocks_are_freed_across_threads),
		pool_test(a_reopened_pool_is_loaded_by_many_threads),
		pool_test(roots_are_set_by_many_threads),
		pool_test(pools_are_opened_by_many_threads),
	};

	return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
