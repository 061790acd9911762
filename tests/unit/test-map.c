/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Space: a file system without fallocate(2), one that refuses it, and files
 * with holes.  fallocate is wrapped, so that any file system will do.
 */
#include <config.h>

#include "scratch.h"

#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <fmalloc.h>

#include "heap/layout.h"
#include "unit/checkpool.h"

static int fallocate_errno;	/* 0: let the system do it */
static bool in_part;		/* ... half of it, in spite of the error, as ext4 */
static int madvise_errno;	/* the same for MADV_REMOVE alone */
static unsigned npunched;	/* holes by fallocate */
static unsigned ngood;		/* reservations before that error */

int __real_fallocate(int fd, int mode, off_t off, off_t len);
int __wrap_fallocate(int fd, int mode, off_t off, off_t len);

int __wrap_fallocate(int fd, int mode, off_t off, off_t len)
{
	npunched += mode != 0;
	if (fallocate_errno == 0 || (in_part && mode != 0))
		return __real_fallocate(fd, mode, off, len);
	if (ngood > 0) {
		ngood--;
		return __real_fallocate(fd, mode, off, len);
	}
	if (in_part)
		assert_int_equal(__real_fallocate(fd, mode, off, len / 2), 0);
	errno = fallocate_errno;
	return -1;
}

int __real_madvise(void *addr, size_t len, int advice);
int __wrap_madvise(void *addr, size_t len, int advice);

/* MADV_REMOVE is what punches holes as well. */
int __wrap_madvise(void *addr, size_t len, int advice)
{
	if (advice != MADV_REMOVE)
		return __real_madvise(addr, len, advice);
	if (madvise_errno == 0 && (fallocate_errno == 0 || in_part))
		return __real_madvise(addr, len, advice);
	errno = madvise_errno != 0 ? madvise_errno : fallocate_errno;
	return -1;
}

static int set_up(void **state)
{
	fallocate_errno = madvise_errno = 0;
	in_part = false;
	npunched = ngood = 0;
	return scratch_make(state);
}

#define map_test(fn) cmocka_unit_test_setup_teardown(fn, set_up, scratch_remove)

static void assert_sound(size_t nblocks)
{
	struct checked_pool pool;

	if (checkpool_file(P, &pool) < 0)
		fail_msg("%s", pool.why);
	assert_int_equal(pool.nblocks, nblocks);
	checkpool_free(&pool);
}

/* Holes within [0, end) of the file. */
static uint64_t holes(const char *path, uint64_t end)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_blocks * 512 >= end ? 0 : end - st.st_blocks * 512;
}

/* By FIEMAP, which tells reserved space from holes; true where there is none. */
static bool has_space(int fd, uint64_t off, uint64_t len)
{
	uint64_t end = off + len;
	union {
		struct fiemap map;
		unsigned char bytes[sizeof(struct fiemap) + sizeof(struct fiemap_extent)];
	} f;
	const struct fiemap_extent *extent = f.map.fm_extents;

	while (off < end) {
		memset(&f, 0, sizeof(f));
		f.map.fm_start = off;
		f.map.fm_length = end - off;
		f.map.fm_extent_count = 1;
		if (ioctl(fd, FS_IOC_FIEMAP, &f) < 0)
			return true;
		if (f.map.fm_mapped_extents == 0 || extent->fe_logical > off)
			return false;
		off = extent->fe_logical + extent->fe_length;
	}
	return true;
}

/* The blocks that are there stay, while the pool grows by many more. */
static void growing_without_fallocate_keeps_all_blocks(void **state)
{
	enum { N = 20000 };
	static unsigned *p[N];
	struct fm_info *fi;
	unsigned i;

	(void)state;
	fallocate_errno = EOPNOTSUPP;
	fi = fmalloc_open(P, FM_CREATE, NULL);
	assert_non_null(fi);
	for (i = 0; i < N; i++) {
		p[i] = fmalloc_in(fi, i % 1000 == 0 ? 100000 : 16 + i % 500);
		assert_non_null(p[i]);
		*p[i] = i;
	}
	for (i = 0; i < N; i++)
		assert_int_equal(*p[i], i);
	assert_sound(N);
	assert_int_equal(holes(P, file_size(P)), 0);
	assert_int_equal(fmalloc_close(fi), 0);
}

/* Every page of the heap's data is in the copy full of holes: zero pages that
 * only fallocate or writing can get space for. */
static void holes_are_filled(int err)
{
	enum { N = 3000 };
	static uint64_t off[N];
	uint64_t promised;
	struct fm_info *fi;
	unsigned i, *p;
	int fd;

	fi = fmalloc_open(P, FM_CREATE, NULL);
	assert_non_null(fi);
	for (i = 0; i < N; i++) {
		p = fmalloc_in(fi, 4096);
		assert_non_null(p);
		*p = i % 3 == 0 ? i : 0;
		off[i] = (char *)p - (char *)fi->mem;
	}
	assert_int_equal(fmalloc_close(fi), 0);
	promised = file_size(P);
	/* What `cp --sparse=always` would leave out of it. */
	fd = open(P, O_RDWR | O_CLOEXEC);
	for (i = 0; i < N; i++)
		if (i % 3 != 0)
			assert_int_equal(__real_fallocate(fd, FALLOC_FL_PUNCH_HOLE |
				FALLOC_FL_KEEP_SIZE, off[i], 4096), 0);
	assert_true(holes(P, promised) > N / 2 * 4096);

	fallocate_errno = err;
	fi = fmalloc_open(P, 0, NULL);
	assert_non_null(fi);
	assert_int_equal(fsync(fd), 0);
	close(fd);
	assert_int_equal(holes(P, promised), 0);
	for (i = 0; i < N; i++)
		assert_int_equal(*(unsigned *)((char *)fi->mem + off[i]),
				 i % 3 == 0 ? i : 0);
	assert_sound(N);
	assert_int_equal(fmalloc_close(fi), 0);
}

static void holes_of_a_copy_are_filled(void **state)
{
	(void)state;
	holes_are_filled(0);
}

/* Of many holes some were filled, and one in part, when space ran out. */
static void holes_that_cannot_be_filled_stay(void **state)
{
	enum { N = 600, NHOLES = 100 };	/* few enough for all to be found */
	struct fm_info *fi = fmalloc_open(P, FM_CREATE, NULL);
	struct stat before, after;
	uint64_t off[N];
	unsigned i;
	int fd;

	(void)state;
	assert_non_null(fi);
	for (i = 0; i < N; i++) {
		char *p = fmalloc_in(fi, 4096);

		assert_non_null(p);
		memset(p, 1, 4096);
		off[i] = p - (char *)fi->mem;
	}
	assert_int_equal(fmalloc_close(fi), 0);
	fd = open(P, O_RDWR | O_CLOEXEC);
	for (i = 0; i < NHOLES; i++)
		assert_int_equal(__real_fallocate(fd, FALLOC_FL_PUNCH_HOLE |
			FALLOC_FL_KEEP_SIZE, off[i * 6], 2 * 4096), 0);
	assert_int_equal(fsync(fd), 0);
	if (has_space(fd, off[0], 4096))
		skip();	/* the file system does not tell */
	assert_int_equal(stat(P, &before), 0);
	fallocate_errno = ENOSPC;
	in_part = true;
	ngood = 50;
	assert_null(fmalloc_open(P, 0, NULL));
	assert_int_equal(errno, ENOSPC);
	assert_int_equal(ngood, 0);
	assert_int_equal(fsync(fd), 0);
	assert_int_equal(stat(P, &after), 0);
	/* The list of extents may have got longer. */
	assert_in_range(after.st_blocks, 0, before.st_blocks + 64 * 2);
	assert_int_equal(after.st_size, before.st_size);
	for (i = 0; i < N; i++)
		assert_int_equal(has_space(fd, off[i], 4096), i % 6 > 1);
	fallocate_errno = 0;
	fi = fmalloc_open(P, 0, NULL);
	assert_non_null(fi);
	assert_true(has_space(fd, 0, after.st_size));
	close(fd);
	for (i = 0; i < N; i++)
		assert_int_equal(((char *)fi->mem)[off[i]], i % 6 > 1);
	assert_sound(N);
	assert_int_equal(fmalloc_close(fi), 0);
}

static void holes_are_filled_without_fallocate(void **state)
{
	(void)state;
	holes_are_filled(EOPNOTSUPP);
}

/* Even a few, where the number of blocks tells nothing. */
static void a_single_hole_of_a_copy_is_filled(void **state)
{
	struct fm_info *fi;
	uint64_t end;
	char *p;
	int fd;

	(void)state;
	fi = fmalloc_open("made", FM_CREATE, NULL);
	assert_non_null(fi);
	p = fmalloc_in(fi, 30 << 20);
	assert_non_null(p);
	memset(p, 1, 30 << 20);
	memset(p + (1 << 20), 0, 65536);
	assert_int_equal(fmalloc_close(fi), 0);
	file_copy("made", P);
	fd = open(P, O_RDWR | O_CLOEXEC);
	/* Blocks beyond the end, as XFS speculates, make up for it. */
	end = file_size(P);
	assert_int_equal(__real_fallocate(fd, FALLOC_FL_KEEP_SIZE, end, 4 << 20), 0);
	assert_int_equal(holes(P, end), 0);
	fi = fmalloc_open(P, 0, NULL);
	assert_non_null(fi);
	assert_true(has_space(fd, 0, 30 << 20));
	close(fd);
	assert_int_equal(fmalloc_close(fi), 0);
}

static void no_space_is_null_and_goes_away(void **state)
{
	static const int err[] = { ENOSPC, EDQUOT, EIO, EFBIG };
	struct fm_info *fi;
	unsigned i, n;

	(void)state;
	fi = fmalloc_open(P, FM_CREATE, NULL);
	assert_non_null(fi);
	for (i = 0; i < 4; i++) {
		fallocate_errno = err[i];
		for (n = 0; fmalloc_in(fi, 5000) != NULL; n++)
			assert_true(n < 100000);
		assert_int_equal(errno, err[i]);
		assert_non_null(strstr(fm_errmsg(), P));
		assert_null(fmalloc_in(fi, 100 << 20));
		assert_int_equal(errno, err[i]);
		fallocate_errno = 0;
		assert_non_null(fmalloc_in(fi, 5000));
		assert_non_null(fmalloc_in(fi, 100 << 20));
	}
	assert_int_equal(fmalloc_close(fi), 0);
}

static void what_was_had_of_too_much_goes_back(void **state)
{
	/* A run in a zone that must grow, one in a new zone, a huge block, and one
	 * beside a huge block that was freed. */
	static const uint64_t len[] = { 8 << 20, 60 << 20, 300 << 20, 80 << 20 };
	struct fm_info *fi = fmalloc_open(P, FM_CREATE, NULL);
	struct stat before, after;
	size_t i;

	(void)state;
	assert_non_null(fi);
	assert_non_null(fmalloc(1000000));
	ffree(fmalloc(100 << 20));
	assert_int_equal(fm_trim(fi), 0);
	in_part = true;
	for (i = 0; i < sizeof(len) / sizeof(len[0]); i++) {
		assert_int_equal(stat(P, &before), 0);
		fallocate_errno = ENOSPC;
		assert_null(fmalloc(len[i]));
		assert_int_equal(errno, ENOSPC);
		fallocate_errno = 0;
		assert_int_equal(stat(P, &after), 0);
		assert_int_equal(after.st_size, before.st_size);
		assert_in_range(after.st_blocks * 512, 0,
				before.st_blocks * 512 + FM_CHUNK_LEN);
	}
	assert_sound(1);
	assert_int_equal(fmalloc_close(fi), 0);
}

static uint64_t taken(void)
{
	struct stat st;

	assert_int_equal(stat(P, &st), 0);
	return st.st_blocks * 512;
}

/* Through the mapping if that can be, else by the descriptor; and not at all if
 * neither can. */
static void space_goes_back_one_way_or_the_other(void **state)
{
	struct fm_info *fi = fmalloc_open(P, FM_CREATE, NULL);
	char *p;
	int way;

	(void)state;
	assert_non_null(fi);
	for (way = 0; way < 4; way++) {
		p = fmalloc(20 << 20);
		assert_non_null(p);
		memset(p, 1, 20 << 20);
		if (way == 1)
			madvise_errno = EOPNOTSUPP;
		if (way == 2 && mlock(p + (10 << 20), 4096) < 0)
			print_message("memory cannot be locked\n");
		if (way == 3)
			madvise_errno = fallocate_errno = EOPNOTSUPP;
		npunched = 0;
		ffree(p);
		assert_int_equal(fm_trim(fi), 0);
		if (way == 0)
			assert_int_equal(npunched, 0);
		if (way < 3)
			assert_in_range(taken(), 0, 3 << 20);
		else
			assert_in_range(taken(), 20 << 20, 24 << 20);
		madvise_errno = fallocate_errno = 0;
		munlockall();
	}
	assert_sound(0);
	assert_int_equal(fmalloc_close(fi), 0);
}

static void no_space_for_a_new_pool_leaves_nothing(void **state)
{
	char zero[1000] = { 0 };

	(void)state;
	fallocate_errno = ENOSPC;
	assert_null(fmalloc_open(P, FM_CREATE, NULL));
	assert_int_equal(errno, ENOSPC);
	assert_int_equal(access(P, F_OK), -1);
	/* An empty file that was there stays as it was. */
	file_make(P, zero, sizeof(zero));
	assert_null(fmalloc_open(P, FM_CREATE, NULL));
	assert_int_equal(errno, ENOSPC);
	assert_int_equal(file_size(P), sizeof(zero));
}

/* Somebody who was killed shortening a pool left its file as it was. */
static void what_lies_behind_the_heap_counts_for_nothing(void **state)
{
	static unsigned char junk[FM_ZONE_DATA_OFF];
	struct fm_info *fi = fmalloc_open(P, FM_CREATE, NULL);
	char *p, *q;

	(void)state;
	assert_non_null(fi);
	assert_int_equal(fmalloc_close(fi), 0);
	memset(junk, 0x12, sizeof(junk));
	file_write(P, FM_ZONE_LEN, junk, sizeof(junk));
	fi = fmalloc_open(P, 0, NULL);
	assert_non_null(fi);
	/* In zone 0, and in a new one. */
	p = fmalloc_in(fi, FM_ZONE_LEN - FM_ZONE_DATA_OFF);
	q = fmalloc_in(fi, FM_ZONE_LEN / 2);
	assert_non_null(p);
	assert_non_null(q);
	assert_true(q > p);
	assert_sound(2);
	ffree(q);
	assert_sound(1);
	assert_int_equal(fmalloc_close(fi), 0);
}

static bool pool_has_space(uint64_t off, uint64_t len)
{
	int fd = open(P, O_RDONLY | O_CLOEXEC);
	bool has;

	assert_true(fd >= 0);
	has = has_space(fd, off, len);
	close(fd);
	return has;
}

/* A folio of the page cache reaches over the end of a heap that is not that of the
 * file, so what is there must not be a hole. */
static void file_longer_than_its_heap_has_no_hole_at_the_end(void **state)
{
	struct fm_info *fi = fmalloc_open(P, FM_CREATE, NULL);
	uint64_t end;

	(void)state;
	assert_non_null(fi);
	assert_int_equal(fmalloc_close(fi), 0);
	end = file_size(P);
	assert_true(end < FM_CHUNK_LEN);
	assert_int_equal(truncate(P, 3 * FM_CHUNK_LEN), 0);
	fi = fmalloc_open(P, 0, NULL);
	assert_non_null(fi);
	assert_true(pool_has_space(end, FM_CHUNK_LEN - end));
	/* The same when it grows: to somewhere in the second chunk. */
	assert_non_null(fmalloc_in(fi, FM_CHUNK_LEN));
	assert_true(pool_has_space(FM_CHUNK_LEN, FM_CHUNK_LEN));
	assert_int_equal(fmalloc_close(fi), 0);
}

/* Some bytes at the end of a zone are no chunk, and so no hole. */
static void part_of_a_chunk_is_no_hole(void **state)
{
	struct fm_info *fi = fmalloc_open(P, FM_CREATE, NULL);
	uint32_t holes = 1u << 1;
	struct fm_zone_disk zone;
	uint64_t end;

	(void)state;
	assert_non_null(fi);
	assert_non_null(fmalloc_in(fi, FM_CHUNK_LEN));
	assert_int_equal(fmalloc_close(fi), 0);
	file_read(P, FM_ZONE0_HEADER_OFF, &zone, sizeof(zone));
	end = zone.npages_reserved * FM_PAGE_LEN;
	assert_in_range(end, FM_CHUNK_LEN + 1, 2 * FM_CHUNK_LEN - 1);
	file_write(P, FM_ZONE0_HEADER_OFF + offsetof(struct fm_zone_disk, holes), &holes, 4);
	file_copy(P, "copy");	/* with holes for zeroes */
	assert_int_equal(rename("copy", P), 0);
	fi = fmalloc_open(P, 0, NULL);
	assert_non_null(fi);
	assert_true(pool_has_space(FM_CHUNK_LEN, end - FM_CHUNK_LEN));
	assert_int_equal(fmalloc_close(fi), 0);
}

static void lie_about_holes(uint32_t holes)
{
	file_write(P, FM_ZONE0_HEADER_OFF + offsetof(struct fm_zone_disk, holes), &holes,
		   sizeof(holes));
	file_copy(P, "copy");
	assert_int_equal(rename("copy", P), 0);
}

/* A block that is said to lie in holes has its space all the same, before anything is
 * looked up; also where the page table says nothing. */
static void a_block_is_in_no_hole(void **state)
{
	struct fm_info *fi = fmalloc_open(P, FM_CREATE, NULL);
	uint32_t bad = FM_EXTENT(FM_EXTENT_RUN, 0, 0);
	void *block, *last;
	uint64_t off;

	(void)state;
	assert_non_null(fi);
	block = fmalloc_in(fi, 5 * FM_CHUNK_LEN);
	assert_non_null(block);
	last = fmalloc_in(fi, FM_CHUNK_LEN);
	assert_non_null(last);
	off = (char *)block - (char *)fi->mem;
	assert_int_equal(fmalloc_close(fi), 0);
	lie_about_holes(0x3f << 1);
	fi = fmalloc_open(P, 0, NULL);
	assert_non_null(fi);
	assert_true(pool_has_space(off, 5 * FM_CHUNK_LEN));
	assert_int_equal(fmalloc_close(fi), 0);

	lie_about_holes(0x3f << 1);
	file_write(P, FM_ZONE_TABLE_OFF + off / FM_PAGE_LEN * 4, &bad, 4);
	fi = fmalloc_open(P, 0, NULL);
	assert_non_null(fi);
	assert_true(pool_has_space(off, 5 * FM_CHUNK_LEN));
	assert_int_equal(fmalloc_close(fi), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		map_test(growing_without_fallocate_keeps_all_blocks),
		map_test(holes_of_a_copy_are_filled),
		map_test(holes_are_filled_without_fallocate),
		map_test(a_single_hole_of_a_copy_is_filled),
		map_test(holes_that_cannot_be_filled_stay),
		map_test(what_lies_behind_the_heap_counts_for_nothing),
		map_test(file_longer_than_its_heap_has_no_hole_at_the_end),
		map_test(part_of_a_chunk_is_no_hole),
		map_test(a_block_is_in_no_hole),
		map_test(no_space_is_null_and_goes_away),
		map_test(what_was_had_of_too_much_goes_back),
		map_test(space_goes_back_one_way_or_the_other),
		map_test(no_space_for_a_new_pool_leaves_nothing),
	};

	return cmocka_run_group_tests_name("map", tests, NULL, NULL);
}
