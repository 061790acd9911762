/* SPDX-License-Identifier: Apache-2.0 */
/* The table of what files have allocated, against an array. */
#include <config.h>

#include <stdlib.h>

#include "scratch.h"

#include "fuse/usage.h"

enum { NFILES = 5000, NROUNDS = 20 };

static uint64_t expected[NFILES];

/* Inode numbers that are in a row, and some that are far apart. */
static ino_t ino_of(int i)
{
	return i % 2 == 0 ? (ino_t)i + 1 : (ino_t)i << 32 | 1;
}

static void set(struct usage *u, int i, uint64_t len)
{
	assert_int_equal(usage_set(u, ino_of(i), len), 0);
	expected[i] = len;
}

static void compare(const struct usage *u)
{
	uint64_t total = 0;

	for (int i = 0; i < NFILES; i++) {
		struct usage_file *file = usage_find(u, ino_of(i));

		assert_int_equal(file == NULL ? 0 : file->len, expected[i]);
		total += expected[i];
	}
	assert_int_equal(u->total, total);
}

static void files_have_what_they_were_set_to(void **state)
{
	struct usage u = { 0 };

	(void)state;
	srandom(1);
	compare(&u);
	for (int round = 0; round < NROUNDS; round++) {
		for (int i = 0; i < NFILES; i++)
			if (random() % 3 == 0)
				set(&u, i, random() % 2 * random());
		compare(&u);
	}
	usage_free(&u);
	assert_int_equal(u.total, 0);
}

static void a_scan_forgets_what_nobody_set_or_has_open(void **state)
{
	struct usage u = { 0 };

	(void)state;
	for (int i = 0; i < NFILES; i++)
		set(&u, i, i + 1);
	usage_find(&u, ino_of(7))->open = (void *)&u;
	usage_begin_scan(&u);
	for (int i = 0; i < NFILES; i++)
		if (i % 5 == 0)
			set(&u, i, i + 2);
		else if (i != 7)
			expected[i] = 0;
	usage_end_scan(&u);
	compare(&u);
	usage_free(&u);
}

static void places_of_files_that_are_gone_are_used_again(void **state)
{
	struct usage u = { 0 };

	(void)state;
	for (ino_t ino = 1; ino < 1000000; ino++) {
		assert_int_equal(usage_set(&u, ino, 4096), 0);
		assert_int_equal(usage_set(&u, ino, 0), 0);
	}
	assert_true(u.size <= 4096);
	usage_free(&u);
}

static void what_is_behind_the_end_does_not_count(void **state)
{
	struct stat st = { .st_blocks = 100, .st_size = 5000 };

	(void)state;
	assert_int_equal(usage_of(&st), 8192);
	st.st_size = 1 << 20;
	assert_int_equal(usage_of(&st), 51200);
	st.st_size = 0;
	assert_int_equal(usage_of(&st), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_have_what_they_were_set_to),
		cmocka_unit_test(a_scan_forgets_what_nobody_set_or_has_open),
		cmocka_unit_test(places_of_files_that_are_gone_are_used_again),
		cmocka_unit_test(what_is_behind_the_end_does_not_count),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
