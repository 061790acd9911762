/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a pool takes of the disk: what is freed is given back, and what a commit
 * writes is not much more than what was changed.
 */
#include "scratch.h"

#include <pthread.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <fmalloc.h>

#define MIB (1ull << 20)
#define TMPFS_MAGIC 0x01021994

static struct fm_info *fi;

static uint64_t taken(void)
{
	struct stat st;

	assert_int_equal(stat(P, &st), 0);
	return st.st_blocks * 512;
}

/* Let the file have all the space there. */
static void file_reserve(const char *path, uint64_t off, uint64_t len)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(posix_fallocate(fd, off, len), 0);
	assert_int_equal(close(fd), 0);
}

static void open_pool(void)
{
	fi = fmalloc_init(P, NULL);
	assert_non_null(fi);
}

static void close_pool(void)
{
	assert_int_equal(fmalloc_close(fi), 0);
}

/* --- giving back ------------------------------------------------------------------ */

#define NSMALL 1000000

static void *small[NSMALL];

/* 200 MB in blocks of about 200 bytes, in an order that is not that of freeing. */
static void *fill(void *arg)
{
	uint64_t seed = 1;
	int i, k;
	void *p;

	(void)arg;
	for (i = 0; i < NSMALL; i++) {
		small[i] = fmalloc(150 + i % 100);
		if (small[i] == NULL)
			return NULL;
	}
	for (i = NSMALL - 1; i > 0; i--) {
		k = rnd(&seed) % (i + 1);
		p = small[i];
		small[i] = small[k];
		small[k] = p;
	}
	return small;
}

static void empty(int from)
{
	int i;

	for (i = from; i < NSMALL; i++)
		ffree(small[i]);
}

static void a_peak_goes_back_by_itself(void **state)
{
	uint64_t peak;

	(void)state;
	open_pool();
	assert_non_null(fill(NULL));
	peak = taken();
	assert_true(peak > 150 * MIB);
	empty(0);
	assert_true(taken() <= peak / 20);
	close_pool();
	assert_true(taken() <= peak / 100);
	assert_true(file_size(P) <= peak / 100);
}

static void a_peak_of_another_thread_goes_back(void **state)
{
	pthread_t thread;
	uint64_t peak;
	void *ok;

	(void)state;
	open_pool();
	assert_int_equal(pthread_create(&thread, NULL, fill, NULL), 0);
	assert_int_equal(pthread_join(thread, &ok), 0);
	assert_non_null(ok);
	peak = taken();
	empty(0);
	assert_int_equal(fm_trim(fi), 0);
	assert_true(taken() <= peak / 20);
	close_pool();
}

static void trim_gives_back_what_is_free(void **state)
{
	char *big[40], *huge;
	uint64_t before, size;
	int i;

	(void)state;
	open_pool();
	before = taken();
	huge = fmalloc(200 * MIB);
	assert_non_null(huge);
	for (i = 0; i < 40; i++) {
		big[i] = fmalloc(3 * MIB);
		assert_non_null(big[i]);
		memset(big[i], i, 3 * MIB);
	}
	size = file_size(P);
	ffree(huge);
	for (i = 1; i < 40; i += 2)
		ffree(big[i]);
	assert_int_equal(fm_trim(fi), 0);
	/* A chunk is shared with a neighbour now and then. */
	assert_true(taken() <= before + 100 * MIB);
	for (i = 0; i < 40; i += 2) {
		assert_int_equal(big[i][0], i);
		assert_int_equal(big[i][3 * MIB - 1], i);
	}
	/* The holes are filled again, and hold. */
	for (i = 1; i < 40; i += 2) {
		big[i] = fmalloc(3 * MIB);
		assert_non_null(big[i]);
		memset(big[i], i, 3 * MIB);
	}
	assert_int_equal(file_size(P), size);
	for (i = 0; i < 40; i++)
		assert_int_equal(big[i][MIB], i);
	for (i = 0; i < 40; i++)
		ffree(big[i]);
	assert_int_equal(fm_trim(fi), 0);
	assert_true(taken() <= before + 4 * MIB);
	close_pool();
	assert_true(file_size(P) <= before + 4 * MIB);
	assert_int_equal(fm_bad_free_count(), 0);
}

/* In place, with the zones that they have or in fewer, or moved. */
static void what_huge_blocks_lose_goes_back(void **state)
{
	static const uint64_t from[] = { 127, 120, 500, 250, 190 };
	static const uint64_t to[] = { 65, 119, 66, 20, 128 };
	uint64_t before, live = 0, peak;
	char *p[5];
	int i;

	(void)state;
	open_pool();
	before = taken();
	for (i = 0; i < 5; i++) {
		p[i] = fmalloc(from[i] * MIB);
		assert_non_null(p[i]);
		memset(p[i], i + 1, MIB);
		p[i][to[i] * MIB - 1] = i + 1;
		live += to[i] * MIB;
	}
	peak = taken() - before;
	assert_true(peak >= 1187 * MIB);
	for (i = 0; i < 5; i++) {
		char *q = frealloc(p[i], to[i] * MIB);

		assert_non_null(q);
		assert_true(q == p[i] || to[i] < 60);
		p[i] = q;
	}
	/* By itself all but what goes with the latest peak. */
	assert_true(taken() - before <= live + peak / 20);
	assert_int_equal(fm_trim(fi), 0);
	/* A chunk is shared with what is no block, one is the end of the block's. */
	assert_true(taken() - before <= live + 10 * 2 * MIB);
	for (i = 0; i < 5; i++) {
		assert_int_equal(p[i][MIB - 1], i + 1);
		assert_int_equal(p[i][to[i] * MIB - 1], i + 1);
	}
	/* The space is there again when it is wanted. */
	p[0] = frealloc(p[0], 127 * MIB);
	assert_non_null(p[0]);
	memset(p[0] + 65 * MIB, 7, 62 * MIB);
	assert_int_equal(fmalloc_usable_size(p[1]), 119 * MIB);
	for (i = 0; i < 5; i++)
		ffree(p[i]);
	assert_int_equal(fm_trim(fi), 0);
	assert_true(taken() <= before + 4 * MIB);
	close_pool();
	assert_int_equal(fm_check(P), 0);
	assert_int_equal(fm_bad_free_count(), 0);
}

/* What an earlier process left of them, and the pointer that moves with its block. */
static void what_was_lost_earlier_goes_back(void **state)
{
	uint64_t *where;
	char *last;

	(void)state;
	open_pool();
	where = fm_root_alloc(fi, "pointer", 8, NULL);
	assert_non_null(where);
	assert_int_equal(fmalloc_into(where, 300 * MIB), 0);
	last = fm_root_alloc(fi, "last", 64 * MIB, NULL);
	assert_non_null(last);
	memset(last, 1, 64 * MIB);
	assert_true(taken() >= 364 * MIB);
	assert_int_equal(frealloc_into(where, 66 * MIB), 0);
	assert_true(taken() <= 140 * MIB);
	close_pool();
	/* As if it had been killed before that. */
	file_reserve(P, 64 * MIB, 320 * MIB);
	open_pool();
	assert_true(taken() >= 384 * MIB);
	assert_int_equal(fm_trim(fi), 0);
	assert_true(taken() <= 140 * MIB);
	assert_int_equal(last[64 * MIB - 1], 1);	/* at the same address */
	close_pool();
	assert_int_equal(fm_check(P), 0);
}

/* A run that shrinks leaves pages to others. */
static void what_runs_lose_goes_back(void **state)
{
	char *p[20];
	int i;

	(void)state;
	open_pool();
	for (i = 0; i < 20; i++) {
		p[i] = fmalloc(30 * MIB);
		assert_non_null(p[i]);
	}
	assert_true(taken() >= 600 * MIB);
	for (i = 0; i < 20; i++)
		assert_ptr_equal(frealloc(p[i], MIB), p[i]);
	assert_true(taken() <= 20 * 4 * MIB + 600 * MIB / 20);
	close_pool();
}

static void holes_are_there_after_reopening(void **state)
{
	char *block[50];
	uint64_t with_holes;
	int i;

	(void)state;
	open_pool();
	for (i = 0; i < 50; i++) {
		block[i] = fmalloc(4 * MIB);
		assert_non_null(block[i]);
		memset(block[i], i, 4 * MIB);
	}
	for (i = 0; i < 49; i++)
		if (i % 8 != 0)
			ffree(block[i]);
	assert_int_equal(fm_trim(fi), 0);
	with_holes = taken();
	assert_true(with_holes < 60 * MIB);
	close_pool();
	open_pool();
	assert_true(taken() <= with_holes + MIB);
	for (i = 0; i < 49; i += 8)
		assert_int_equal(block[i][MIB], i);	/* at the same address */
	for (i = 0; i < 40; i++) {
		char *p = fmalloc(4 * MIB);

		assert_non_null(p);
		memset(p, 1, 4 * MIB);
	}
	for (i = 0; i < 49; i += 8)
		assert_int_equal(block[i][4 * MIB - 1], i);
	assert_true(file_size(P) < 260 * MIB);
	close_pool();
}

static int tell(const struct fm_finding *f, void *arg)
{
	print_message("# %#lx: %s: %s\n", f->off, f->structure, f->what);
	++*(int *)arg;
	return 0;
}

/* After a plain close there is nothing to say, not even that does no harm. */
static void holes_end_where_the_pool_does(void **state)
{
	int nfindings = 0, i;
	char *block[8];

	(void)state;
	open_pool();
	for (i = 0; i < 8; i++) {
		block[i] = fmalloc(4 * MIB);
		assert_non_null(block[i]);
	}
	ffree(block[1]);
	for (i = 3; i < 7; i++)
		ffree(block[i]);
	assert_int_equal(fm_trim(fi), 0);
	ffree(block[7]);
	close_pool();
	assert_true(file_size(P) < 20 * MIB);
	assert_int_equal(fm_check_each(P, 0, tell, &nfindings), 0);
	assert_int_equal(nfindings, 0);
}

static void a_reader_keeps_the_file_as_it_is(void **state)
{
	struct fm_info *reader;
	uint64_t size, sum = 0, i;
	char *p;

	(void)state;
	open_pool();
	p = fmalloc(50 * MIB);
	assert_non_null(p);
	memset(p, 1, 50 * MIB);
	size = file_size(P);
	reader = fmalloc_open(P, FM_RDONLY, NULL);
	assert_non_null(reader);
	ffree(p);
	close_pool();
	assert_int_equal(file_size(P), size);
	for (i = 0; i < size; i += 4096)
		sum += ((volatile char *)reader->mem)[i];
	assert_int_equal(fmalloc_close(reader), 0);
	open_pool();
	close_pool();
	assert_true(file_size(P) < size);
	assert_true(sum < size);
}

static void trim_needs_a_pool(void **state)
{
	(void)state;
	assert_int_equal(fm_trim(NULL), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(fm_prefetch(NULL), -1);
	assert_int_equal(errno, EINVAL);
	open_pool();
	close_pool();
	fi = fmalloc_open(P, FM_RDONLY, NULL);
	assert_int_equal(fm_trim(fi), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(fm_prefetch(fi), 0);
	close_pool();
}

/* --- what a commit writes ------------------------------------------------------------ */

/* Bytes that this process made the kernel want to write. */
static uint64_t written(void)
{
	char line[256];
	uint64_t n = 0;
	FILE *f = fopen("/proc/self/io", "r");

	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL)
		sscanf(line, "write_bytes: %lu", &n);
	fclose(f);
	return n;
}

#define NBLOCKS 256
#define NUPDATES 200

static void update(char **block, uint64_t *seed)
{
	int i;

	for (i = 0; i < NUPDATES; i++)
		*(uint64_t *)(block[rnd(seed) % NBLOCKS] + rnd(seed) % (MIB / 8) * 8) = i;
	assert_int_equal(fmalloc_commit(fi), 0);
}

static void assert_little_is_written(char **block, uint64_t *seed)
{
	uint64_t before = written();

	update(block, seed);
	assert_true(written() - before <= 3 * NUPDATES * 4096);
}

static void scattered_updates_write_little(void **state)
{
	char *block[NBLOCKS];
	uint64_t seed = 3;
	struct statfs fs;
	int i;

	(void)state;
	assert_int_equal(statfs(".", &fs), 0);
	if (fs.f_type == TMPFS_MAGIC)
		skip();
	open_pool();
	for (i = 0; i < NBLOCKS; i++) {
		block[i] = fmalloc(MIB);
		assert_non_null(block[i]);
		memset(block[i], i, MIB);
	}
	assert_int_equal(fmalloc_commit(fi), 0);
	assert_little_is_written(block, &seed);
	assert_little_is_written(block, &seed);
	close_pool();
	open_pool();	/* at the same address */
	assert_little_is_written(block, &seed);
	close_pool();
}

/* --- FM_FIXED -------------------------------------------------------------------------- */

struct raw {
	struct raw *self;
	uint64_t mark;
};

static void a_fixed_pool_comes_back_to_its_address(void **state)
{
	struct fm_info *other;
	struct raw *r;
	void *mem;

	(void)state;
	fi = fmalloc_open(P, FM_CREATE | FM_FIXED, NULL);
	assert_non_null(fi);
	mem = fi->mem;
	r = fm_root_alloc(fi, "raw", sizeof(*r), "raw");
	assert_non_null(r);
	r->self = r;
	r->mark = 42;
	close_pool();

	/* A copy has the same address; both cannot have it. */
	file_copy(P, "copy");
	other = fmalloc_open("copy", FM_FIXED, NULL);
	assert_non_null(other);
	assert_ptr_equal(other->mem, mem);
	errno = 0;
	assert_null(fmalloc_open(P, FM_FIXED, NULL));
	assert_int_equal(errno, EADDRINUSE);
	assert_non_null(strstr(fm_errmsg(), "in use"));
	/* Without the flag it lies somewhere else. */
	fi = fmalloc_open(P, 0, NULL);
	assert_non_null(fi);
	assert_ptr_not_equal(fi->mem, mem);
	close_pool();
	assert_int_equal(fmalloc_close(other), 0);

	fi = fmalloc_open(P, FM_FIXED | FM_RDONLY, NULL);
	assert_non_null(fi);
	assert_ptr_equal(fi->mem, mem);
	r = fm_root_get(fi, "raw", "raw");
	assert_ptr_equal(r->self, r);
	assert_int_equal(r->mark, 42);
	close_pool();
	/* It prefers its address also without the flag. */
	fi = fmalloc_open(P, 0, NULL);
	assert_ptr_equal(fi->mem, mem);
	close_pool();
}

static void a_pool_may_become_fixed(void **state)
{
	static const uint64_t bad[] = { 4096, 1, UINT64_MAX, UINT64_C(1) << 47 };
	void *mem;
	int i;

	(void)state;
	open_pool();
	close_pool();
	errno = 0;
	assert_null(fmalloc_open(P, FM_FIXED | FM_RDONLY, NULL));
	assert_int_equal(errno, EINVAL);
	assert_non_null(strstr(fm_errmsg(), "no address"));
	fi = fmalloc_open(P, FM_FIXED, NULL);
	assert_non_null(fi);
	mem = fi->mem;
	close_pool();
	fi = fmalloc_open(P, FM_FIXED | FM_RDONLY, NULL);
	assert_non_null(fi);
	assert_ptr_equal(fi->mem, mem);
	close_pool();
	/* An address that is none. */
	for (i = 0; i < 4; i++) {
		file_write(P, 536, &bad[i], 8);
		errno = 0;
		assert_null(fmalloc_open(P, FM_FIXED, NULL));
		assert_int_equal(errno, EADDRNOTAVAIL);
		fi = fmalloc_open(P, 0, NULL);
		assert_non_null(fi);
		close_pool();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		scratch_test(a_peak_goes_back_by_itself),
		scratch_test(a_peak_of_another_thread_goes_back),
		scratch_test(trim_gives_back_what_is_free),
		scratch_test(what_huge_blocks_lose_goes_back),
		scratch_test(what_was_lost_earlier_goes_back),
		scratch_test(what_runs_lose_goes_back),
		scratch_test(holes_are_there_after_reopening),
		scratch_test(holes_end_where_the_pool_does),
		scratch_test(a_reader_keeps_the_file_as_it_is),
		scratch_test(trim_needs_a_pool),
		scratch_test(scattered_updates_write_little),
		scratch_test(a_fixed_pool_comes_back_to_its_address),
		scratch_test(a_pool_may_become_fixed),
	};

	return cmocka_run_group_tests_name("space", tests, NULL, NULL);
}
