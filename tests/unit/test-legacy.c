/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pools that earlier versions made.  tests/data has one of version 0.1, whose
 * process was killed with free blocks in the magazines of two threads.  Its root
 * "table" is an array of 200 blocks, each filled with one byte.
 */
#include <config.h>

#include "scratch.h"

#include <fmalloc.h>

#include "heap/heap.h"
#include "unit/checkpool.h"
#include "unit/poke.h"

#define NBLOCKS 200

struct entry {
	uint64_t off, len, fill;
};

static void check_blocks(struct fm_info *fi, const struct entry *table)
{
	char *p;
	uint64_t i, k;

	for (i = 0; i < NBLOCKS; i++) {
		p = (char *)fi->mem + table[i].off;
		assert_true(fmalloc_usable_size(p) >= table[i].len);
		for (k = 0; k < table[i].len; k++)
			assert_int_equal((uint8_t)p[k], table[i].fill);
	}
}

/* The table itself, and nothing that was in a magazine. */
static void assert_allocated(size_t want)
{
	struct checked_pool pool;

	if (checkpool_file(P, &pool) < 0)
		fail_msg("%s", pool.why);
	assert_int_equal(pool.nblocks, want);
	assert_int_equal(pool.meta_len, FM_ROOTPAGE_LEN);
	checkpool_free(&pool);
}

static void a_killed_pool_of_0_1_is_taken_over(void **state)
{
	struct entry *table;
	struct fm_info *fi;
	char *p;
	int i;

	(void)state;
	unpack("pool-0.1-killed.gz");
	/* A reader changes nothing. */
	fi = fmalloc_open(P, FM_RDONLY, NULL);
	assert_non_null(fi);
	table = fm_root_get(fi, "table", "table");
	assert_non_null(table);
	check_blocks(fi, table);
	assert_int_equal(fmalloc_close(fi), 0);

	fi = fmalloc_open(P, 0, NULL);
	assert_non_null(fi);
	table = fm_root_get(fi, "table", "table");
	assert_non_null(table);
	check_blocks(fi, table);
	assert_non_null(fm_root_get(fi, "root19", "block"));
	/* The first version may not write to it any more. */
	assert_int_equal(registry_check(fi)->super->ro_compat, FM_RO_COMPAT_SECOND);
	assert_int_equal(registry_check(fi)->super->compat, 0);
	assert_int_equal(fmalloc_close(fi), 0);
	assert_allocated(NBLOCKS + 1);

	/* Every second block goes, those of 16 bytes among them; others come. */
	fi = fmalloc_open(P, 0, NULL);
	assert_non_null(fi);
	table = fm_root_get(fi, "table", "table");
	for (i = 0; i < NBLOCKS; i += 2) {
		p = (char *)fi->mem + table[i].off;
		ffree(p);
		assert_int_equal(fmalloc_usable_size(p), 0);
		ffree(p);
		assert_int_equal(fm_bad_free_count(), i / 2 + 1);
		p = fmalloc_in(fi, table[i].len);
		assert_non_null(p);
		memset(p, table[i].fill, table[i].len);
		table[i].off = p - (char *)fi->mem;
	}
	check_blocks(fi, table);
	assert_int_equal(fmalloc_close(fi), 0);
	assert_allocated(NBLOCKS + 1);

	fi = fmalloc_open(P, 0, NULL);
	assert_non_null(fi);
	table = fm_root_get(fi, "table", "table");
	check_blocks(fi, table);
	for (i = 0; i < NBLOCKS; i++)
		ffree((char *)fi->mem + table[i].off);
	assert_int_equal(fm_bad_free_count(), NBLOCKS / 2);
	assert_int_equal(fmalloc_close(fi), 0);
	assert_allocated(1);
}

static void open_and_use(void *arg)
{
	struct fm_info *fi = fmalloc_open(P, 0, NULL);
	uint64_t nbad = fm_bad_free_count();
	void *block[500];
	int i;

	(void)arg;
	child_check(fi != NULL);
	for (i = 0; i < 500; i++) {
		block[i] = fmalloc_in(fi, 1 + i * 7);
		child_check(block[i] != NULL);
		memset(block[i], i, 1 + i * 7);
	}
	for (i = 0; i < 500; i++)
		ffree(block[i]);
	child_check(fm_bad_free_count() == nbad);
	child_check(fmalloc_close(fi) == 0);
}

/* Lanes in circles and far away, counts and slots that are no such. */
static void made_up_lanes_do_no_harm(void **state)
{
	static const uint64_t far = UINT64_C(1) << 58;
	uint64_t lane;
	int i;

	(void)state;
	for (i = 0; i < 7; i++) {
		unpack("pool-0.1-killed.gz");
		lane = get64(520);
		switch (i) {
		case 0: put64(520, lane + far); break;
		case 1: put64(lane + 16, lane); break;
		case 2: put64(lane + 16, lane + far); break;
		case 3: put64(lane + 64, 1); put64(lane + 72, lane + far); break;
		case 4: put64(lane + 64, 1); put64(lane + 72, lane); break;
		case 5: put64(lane + 64, UINT32_MAX); break;
		case 6: put64(544, lane); break;
		}
		child_run(open_and_use, NULL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		scratch_test(a_killed_pool_of_0_1_is_taken_over),
		scratch_test(made_up_lanes_do_no_harm),
	};

	return cmocka_run_group_tests_name("legacy", tests, NULL, NULL);
}
