/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks: sizes, alignment, resizing, freeing, and what is refused. */
#include "scratch.h"

#include <fmalloc.h>

#define MIB (1ull << 20)
#define ZONE (64 * MIB)

static struct fm_info *fi;

static int set_up(void **state)
{
	bool created = false;

	if (scratch_make(state) != 0)
		return -1;
	fi = fmalloc_init(P, &created);
	return fi != NULL && created ? 0 : -1;
}

static int tear_down(void **state)
{
	int rc = fi == NULL ? 0 : fmalloc_close(fi);

	fi = NULL;
	return scratch_remove(state) | rc;
}

#define pool_test(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

static void reopen(void)
{
	assert_int_equal(fmalloc_close(fi), 0);
	fi = fmalloc_open(P, 0, NULL);
	assert_non_null(fi);
	fmalloc_set_target(fi);
}

static void *at(uint64_t off)
{
	return (char *)fi->mem + off;
}

static uint64_t off_of(const void *p)
{
	return (const char *)p - (char *)fi->mem;
}

static void assert_aligned(const void *p, size_t align)
{
	assert_non_null(p);
	assert_int_equal((uintptr_t)p % align, 0);
	assert_int_equal(off_of(p) % align, 0);
}

/* A block of `size` bytes, with every byte of it its own. */
static void *filled(size_t size, unsigned char with)
{
	unsigned char *p = fmalloc(size);

	assert_aligned(p, 16);
	assert_true(fmalloc_usable_size(p) >= (size > 0 ? size : 1));
	memset(p, with, fmalloc_usable_size(p));
	return p;
}

static void assert_filled(const void *p, unsigned char with, size_t len)
{
	const unsigned char *c = p;

	assert_true(len == 0 || (c[0] == with && memcmp(c, c + 1, len - 1) == 0));
}

static void refused(void *p, const char *word)
{
	uint64_t before = fm_bad_free_count();

	errno = 4711;
	ffree(p);
	assert_int_equal(errno, 4711);
	assert_int_equal(fm_bad_free_count(), before + 1);
	assert_non_null(strstr(fm_errmsg(), word));
}

/* --- sizes ------------------------------------------------------------------- */

static void alloc_each_size_and_its_neighbours(void **state)
{
	enum { MAX = 4096 };
	static void *p[MAX];
	static size_t size[MAX];
	size_t s, step, want;
	int n = 0, i, d;

	(void)state;
	for (s = 0; s <= 1100; s++)
		size[n++] = s;
	for (step = 1152; step <= 128 * 1024; step += 128)
		for (d = -1; d <= 1; d++)
			if (n < MAX - 64)
				size[n++] = step + d;
	for (want = 256 * 1024; want <= 16 * MIB; want *= 2)
		for (d = -1; d <= 1; d++)
			size[n++] = want + d;
	for (i = 0; i < n; i++)
		p[i] = filled(size[i], i);
	for (i = 0; i < n; i++)
		assert_filled(p[i], i, fmalloc_usable_size(p[i]));
	for (i = 0; i < n; i++)
		ffree(p[i]);
	assert_int_equal(fm_bad_free_count(), 0);
}

static void alloc_around_the_length_of_a_zone(void **state)
{
	/* The largest run, the smallest huge block, and around whole zones. */
	static const uint64_t size[] = {
		63 * MIB, ZONE - 655360 - 1, ZONE - 655360, ZONE - 655360 + 1,
		ZONE - 4097, ZONE - 4096, ZONE - 4095, ZONE - 1, ZONE, ZONE + 1,
		2 * ZONE - 4096, 2 * ZONE - 4095, 200 * MIB,
	};
	enum { N = sizeof(size) / sizeof(size[0]) };
	char *p[N];
	int i, round;

	(void)state;
	for (round = 0; round < 2; round++) {
		for (i = 0; i < N; i++) {
			p[i] = fmalloc(size[i]);
			assert_aligned(p[i], 4096);
			assert_true(fmalloc_usable_size(p[i]) >= size[i]);
			assert_true(fmalloc_usable_size(p[i]) < size[i] + 4096);
			p[i][0] = p[i][size[i] - 1] = p[i][size[i] / 2] = 'a' + i;
		}
		for (i = 0; i < N; i++) {
			assert_int_equal(p[i][0], 'a' + i);
			assert_int_equal(p[i][size[i] - 1], 'a' + i);
			assert_int_equal(p[i][size[i] / 2], 'a' + i);
		}
		/* Other orders leave other holes. */
		for (i = 0; i < N; i++)
			ffree(p[round ? N - 1 - i : (i * 5) % N]);
	}
	assert_int_equal(fm_bad_free_count(), 0);
}

static void alloc_survives_reopening(void **state)
{
	uint64_t off[200];
	unsigned i;

	(void)state;
	for (i = 0; i < 200; i++)
		off[i] = off_of(filled(1 + i * i, i));
	off[100] = off_of(filled(ZONE + 5, 100));
	reopen();
	for (i = 0; i < 200; i++)
		assert_filled(at(off[i]), i, fmalloc_usable_size(at(off[i])));
	for (i = 0; i < 200; i++)
		ffree(at(off[i]));
	assert_int_equal(fm_bad_free_count(), 0);
}

static void alloc_more_than_the_window_is_enomem(void **state)
{
	static const size_t size[] = {
		SIZE_MAX, SIZE_MAX - 1, SIZE_MAX - 4095, SIZE_MAX - 4096,
		SIZE_MAX / 2, (size_t)1 << FM_WINDOW_BITS,
		((size_t)1 << FM_WINDOW_BITS) - 4096,
	};
	uint64_t before = file_size(P);
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(size) / sizeof(size[0]); i++) {
		errno = 0;
		assert_null(fmalloc(size[i]));
		assert_int_equal(errno, ENOMEM);
		assert_non_null(strstr(fm_errmsg(), "fmalloc of"));
		assert_null(faligned_alloc(32 * MIB, size[i]));
		assert_int_equal(errno, ENOMEM);
	}
	assert_int_equal(file_size(P), before);
}

static void aligned_alloc_keeps_every_alignment(void **state)
{
	static const size_t size[] = { 0, 1, 100, 4096, 5000, 65536, 300000, 20 * MIB };
	void *p[26 * 8];
	unsigned n = 0, i, k;

	(void)state;
	for (k = 0; k <= 25; k++)
		for (i = 0; i < 8; i++) {
			if (size[i] == 20 * MIB && k % 5 != 0)
				continue;
			p[n] = faligned_alloc((size_t)1 << k, size[i]);
			assert_aligned(p[n], (size_t)1 << k);
			assert_aligned(p[n], 16);
			assert_true(fmalloc_usable_size(p[n]) >= size[i]);
			memset(p[n], n, size[i] < 5000 ? size[i] : 5000);
			n++;
		}
	for (i = 0; i < n; i++)
		ffree(p[i]);
	assert_int_equal(fm_bad_free_count(), 0);
	/* A huge block, too. */
	p[0] = faligned_alloc(32 * MIB, 33 * MIB);
	assert_aligned(p[0], 32 * MIB);
	ffree(p[0]);
	assert_int_equal(fm_bad_free_count(), 0);
}

static void aligned_alloc_refuses_other_alignments(void **state)
{
	static const size_t align[] = { 0, 3, 24, 48, 64 * MIB, SIZE_MAX };
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(align) / sizeof(align[0]); i++) {
		errno = 0;
		assert_null(faligned_alloc(align[i], 100));
		assert_int_equal(errno, EINVAL);
		assert_non_null(strstr(fm_errmsg(), "power of"));
	}
}

static void calloc_clears_reused_memory(void **state)
{
	static const size_t size[] = { 1, 100, 4000, 20000, 500000 };
	unsigned i;
	void *p;

	(void)state;
	for (i = 0; i < 5; i++) {
		p = filled(size[i], 0xaa);
		ffree(p);
		p = fcalloc(1, size[i]);
		assert_non_null(p);
		assert_filled(p, 0, size[i]);
		ffree(p);
	}
	p = fcalloc(0, 10);
	assert_non_null(p);
	ffree(p);
}

static void calloc_overflow_is_enomem(void **state)
{
	(void)state;
	errno = 0;
	assert_null(fcalloc(SIZE_MAX / 2, 3));
	assert_int_equal(errno, ENOMEM);
	errno = 0;
	assert_null(fcalloc((size_t)1 << 32, (size_t)1 << 32));
	assert_int_equal(errno, ENOMEM);
	assert_non_null(strstr(fm_errmsg(), "fcalloc"));
}

/* --- resizing ------------------------------------------------------------------ */

static void realloc_keeps_contents_over_all_kinds(void **state)
{
	static const size_t size[] = {
		1, 16, 17, 64, 1000, 1001, 16384, 16385, 40000, 4096, 100,
		200000, 5 * MIB, 20 * MIB, 19 * MIB, 70 * MIB, 130 * MIB,
		129 * MIB, 65 * MIB, 3 * MIB, 20000, 33,
	};
	size_t have = 0, keep;
	unsigned char *p = NULL;
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(size) / sizeof(size[0]); i++) {
		p = frealloc(p, size[i]);
		assert_aligned(p, 16);
		assert_true(fmalloc_usable_size(p) >= size[i]);
		keep = have < size[i] ? have : size[i];
		assert_filled(p, i, keep);
		memset(p, i + 1, size[i]);
		have = size[i];
	}
	assert_non_null(frealloc(p, 0));
	assert_int_equal(fm_bad_free_count(), 0);
}

static void realloc_grows_and_shrinks_runs_in_place(void **state)
{
	unsigned char *p = filled(100000, 7), *q;

	(void)state;
	assert_ptr_equal(frealloc(p, 3 * MIB), p);
	assert_true(fmalloc_usable_size(p) >= 3 * MIB);
	assert_filled(p, 7, 100000);
	q = filled(MIB, 9);
	assert_true(q >= p + 3 * MIB || q + MIB <= p);
	assert_ptr_equal(frealloc(p, 50000), p);
	assert_true(fmalloc_usable_size(p) < 60000);
	assert_filled(p, 7, 50000);
	assert_filled(q, 9, MIB);
	ffree(p);
	ffree(q);
	assert_int_equal(fm_bad_free_count(), 0);
}

/* Beyond all bounds: NULL, and the block is as it was. */
static void realloc_failure_keeps_the_block(void **state)
{
	static const size_t have[] = { 10, 20000, 63 * MIB + 700000, 2 * ZONE };
	static const size_t want[] = {
		SIZE_MAX, SIZE_MAX - 100, SIZE_MAX - 4095, SIZE_MAX - 4096,
		SIZE_MAX - 8191, SIZE_MAX / 2, (size_t)1 << FM_WINDOW_BITS,
	};
	size_t usable;
	unsigned i, j;
	char *p;

	(void)state;
	for (i = 0; i < 4; i++) {
		p = fmalloc(have[i]);
		assert_non_null(p);
		strcpy(p, "contents");
		usable = fmalloc_usable_size(p);
		for (j = 0; j < sizeof(want) / sizeof(want[0]); j++) {
			errno = 0;
			assert_null(frealloc(p, want[j]));
			assert_int_equal(errno, ENOMEM);
			assert_int_equal(fmalloc_usable_size(p), usable);
			assert_string_equal(p, "contents");
		}
		ffree(p);
	}
	assert_int_equal(fm_bad_free_count(), 0);
}

static void realloc_of_no_block_is_einval(void **state)
{
	char *p = fmalloc(100), *run = fmalloc(100000);
	int on_stack;

	(void)state;
	errno = 0;
	assert_null(frealloc(p + 16, 10));
	assert_int_equal(errno, EINVAL);
	assert_null(frealloc(run + 4096, 10));
	assert_int_equal(errno, EINVAL);
	assert_null(frealloc(&on_stack, 10));
	assert_int_equal(errno, EINVAL);
	ffree(p);
	assert_null(frealloc(p, 10));
	assert_int_equal(errno, EINVAL);
	assert_non_null(strstr(fm_errmsg(), "not an allocated block"));
}

/* --- freeing -------------------------------------------------------------------- */

static void free_refuses_what_is_no_block(void **state)
{
	char *small = fmalloc(100), *run = fmalloc(100000), *huge = fmalloc(ZONE);
	char *outside = malloc(100);
	uint64_t on_stack[4];

	(void)state;
	refused(small + 8, "not an allocated block");
	refused(small + 16, "not an allocated block");
	refused(small + 112, "not an allocated block");	/* never handed out */
	refused(run + 16, "not an allocated block");
	refused(run + 4096, "not an allocated block");
	refused(huge + 4096, "not an allocated block");
	refused(huge - 4096, "not an allocated block");
	refused(fi->mem, "not an allocated block");
	refused(at(4096), "not an allocated block");
	refused(at(65536), "not an allocated block");
	refused(at(131072), "not an allocated block");
	refused(at(((uint64_t)1 << FM_WINDOW_BITS) - 16), "not an allocated block");
	refused(on_stack, "no open pool");
	refused(outside, "no open pool");
	refused((void *)16, "no open pool");
	refused((void *)-16l, "no open pool");
	refused((char *)fi->mem - 16, "no open pool");
	/* All of them still work. */
	ffree(NULL);
	ffree(small);
	refused(small, "not an allocated block");
	ffree(run);
	refused(run, "not an allocated block");
	ffree(huge);
	refused(huge, "not an allocated block");
	free(outside);
}

static void free_in_a_read_only_pool_is_refused(void **state)
{
	uint64_t off = off_of(filled(100, 1));
	struct fm_info *ro;

	(void)state;
	ro = fmalloc_open(P, FM_RDONLY, NULL);
	assert_non_null(ro);
	refused((char *)ro->mem + off, "read-only");
	assert_int_equal(fmalloc_usable_size((char *)ro->mem + off), 112);
	assert_int_equal(fmalloc_close(ro), 0);
	ffree(at(off));
	refused(at(off), "not an allocated block");
}

static void usable_size_of_no_block_is_0(void **state)
{
	char *p = fmalloc(20000);

	(void)state;
	errno = 0;
	assert_int_equal(fmalloc_usable_size(NULL), 0);
	assert_int_equal(errno, 0);
	assert_int_equal(fmalloc_usable_size(p), 20480);
	assert_int_equal(fmalloc_usable_size(p + 1), 0);
	assert_int_equal(errno, EINVAL);
	errno = 0;
	assert_int_equal(fmalloc_usable_size(&p), 0);
	assert_int_equal(errno, EINVAL);
}

/* The same work again and again ends in the same file. */
static void freed_space_is_used_again(void **state)
{
	static void *p[3000];
	uint64_t seed = 1, after_first = 0;
	int round, i;

	(void)state;
	for (round = 0; round < 30; round++) {
		for (i = 0; i < 3000; i++)
			p[i] = filled(1 + rnd(&seed) % (i % 50 == 0 ? 300000 : 3000), i);
		for (i = 0; i < 3000; i++)
			ffree(p[(i * 1009) % 3000]);
		if (round == 0)
			after_first = file_size(P);
		if (round % 10 == 9)
			reopen();
	}
	assert_int_equal(fm_bad_free_count(), 0);
	assert_true(file_size(P) <= after_first + after_first / 4);
}

static void freed_neighbours_become_one(void **state)
{
	char *p[60];
	uint64_t before;
	int i;

	(void)state;
	for (i = 0; i < 60; i++)
		p[i] = filled(MIB, i);
	before = file_size(P);
	for (i = 0; i < 60; i += 2)
		ffree(p[i]);
	for (i = 1; i < 60; i += 2)
		ffree(p[i]);
	assert_non_null(fmalloc(59 * MIB));
	assert_int_equal(file_size(P), before);
	assert_int_equal(fm_bad_free_count(), 0);
}

/* An aligned run that fits at the end of the zone is found there, though many
 * other free extents of the same length do not do. */
static void aligned_run_is_found_among_unaligned_holes(void **state)
{
	enum { N = 40 };
	void *hole[N], *wall[N];
	uint64_t size;
	int i;

	(void)state;
	for (i = 0; i < N; i++) {
		hole[i] = faligned_alloc(4096, 31 * 4096);
		wall[i] = faligned_alloc(4096, 4096);
		assert_non_null(wall[i]);
	}
	for (i = 0; i < N; i++)
		ffree(hole[i]);
	size = file_size(P);
	assert_aligned(faligned_alloc(128 * 1024, 31 * 4096), 128 * 1024);
	assert_true(file_size(P) - size <= 2 * MIB);
}

static void huge_space_is_used_again(void **state)
{
	uint64_t size = 0;
	void *p;
	int i;

	(void)state;
	for (i = 0; i < 10; i++) {
		p = fmalloc(150 * MIB);
		assert_non_null(p);
		memset(p, 1, 4096);
		if (i == 0)
			size = file_size(P);
		ffree(p);
	}
	assert_int_equal(file_size(P), size);
	/* By small blocks as well: the zones were not lost. */
	for (i = 0; i < 100; i++)
		assert_non_null(fmalloc(MIB));
	assert_int_equal(file_size(P), size);
	/* And what is behind the last of them goes with closing. */
	reopen();
	assert_true(file_size(P) < 120 * MIB);
	assert_non_null(fmalloc(10 * MIB));
	assert_true(file_size(P) < 130 * MIB);
}

static void no_target_is_einval(void **state)
{
	(void)state;
	fmalloc_set_target(NULL);
	errno = 0;
	assert_null(fmalloc(1));
	assert_int_equal(errno, EINVAL);
	assert_non_null(strstr(fm_errmsg(), "no target"));
	errno = 0;
	assert_null(frealloc(NULL, 1));
	assert_int_equal(errno, EINVAL);
	assert_null(fcalloc(1, 1));
	assert_null(faligned_alloc(16, 1));
	assert_non_null(fmalloc_in(fi, 1));
	errno = 0;
	assert_null(fmalloc_in(NULL, 1));
	assert_int_equal(errno, EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		pool_test(alloc_each_size_and_its_neighbours),
		pool_test(alloc_around_the_length_of_a_zone),
		pool_test(alloc_survives_reopening),
		pool_test(alloc_more_than_the_window_is_enomem),
		pool_test(aligned_alloc_keeps_every_alignment),
		pool_test(aligned_alloc_refuses_other_alignments),
		pool_test(calloc_clears_reused_memory),
		pool_test(calloc_overflow_is_enomem),
		pool_test(realloc_keeps_contents_over_all_kinds),
		pool_test(realloc_grows_and_shrinks_runs_in_place),
		pool_test(realloc_failure_keeps_the_block),
		pool_test(freed_space_is_used_again),
		pool_test(freed_neighbours_become_one),
		pool_test(aligned_run_is_found_among_unaligned_holes),
		pool_test(huge_space_is_used_again),
		pool_test(realloc_of_no_block_is_einval),
		pool_test(usable_size_of_no_block_is_0),
		pool_test(no_target_is_einval),
		/* From here on there have been bad frees. */
		pool_test(free_refuses_what_is_no_block),
		pool_test(free_in_a_read_only_pool_is_refused),
	};

	return cmocka_run_group_tests_name("alloc", tests, NULL, NULL);
}
