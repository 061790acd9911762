/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is refused, and how: one table of files that are no good pools and of
 * circumstances that are no good for one.  Each row is tried in a child: no
 * signal, the errno and a word of the message are right, and the file is byte
 * for byte what it was.
 */
#include <config.h>

#include "scratch.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>

#include <fmalloc.h>

#include "common/crc32c.h"
#include "heap/inspect.h"
#include "heap/layout.h"
#include "unit/poke.h"

#define MIB (1ull << 20)
#define SUPER(field) offsetof(struct fm_super_disk, field)
#define ANYBODY 65534	/* a user who may nothing */

/* --- good pools to start from ---------------------------------------------------- */

/* A list, some roots, a huge block and three zones. */
static void make_pool(const char *path)
{
	struct fm_info *fi = fmalloc_open(path, FM_CREATE, NULL);
	char name[16];
	int i;

	assert_non_null(fi);
	for (i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "r%d", i);
		assert_int_equal(fm_root_set(fi, name, fmalloc_in(fi, 100), "t"), 0);
	}
	assert_non_null(fmalloc_in(fi, 65 * MIB));
	assert_non_null(fmalloc_in(fi, 60 * MIB));
	assert_non_null(fmalloc_in(fi, 60 * MIB));
	assert_int_equal(fmalloc_close(fi), 0);
}

/* Make the checksum of the super right again. */
static void seal(void)
{
	unsigned char super[512];

	file_read(P, 0, super, sizeof(super));
	put32(SUPER(crc), crc32c(0, super, SUPER(crc)));
}

static void cut(uint64_t len)
{
	assert_int_equal(truncate(P, len), 0);
}

static uint64_t zone(unsigned index)
{
	return index * FM_ZONE_LEN;
}

/* --- ways to damage one ------------------------------------------------------------ */

static void nothing(void)
{
}

static void empty(void)
{
	cut(0);
}

static void zeroes(void)
{
	cut(0);
	cut(20000);
}

static void garbage(void)
{
	char junk[9000];

	memset(junk, 'j', sizeof(junk));
	cut(0);
	put(0, junk, sizeof(junk));
}

static void short_garbage(void)
{
	cut(0);
	put(0, "hi", 2);
}

static void late_garbage(void)
{
	cut(0);
	cut(8 * MIB);
	put(7 * MIB + 11, "x", 1);
}

static void cut_in_the_magic(void)
{
	cut(5);
}

static void cut_in_the_super(void)
{
	cut(300);
}

static void cut_after_the_checksum(void)
{
	cut(512);
}

static void cut_after_the_super(void)
{
	cut(4096);
}

static void cut_in_the_heap(void)
{
	cut(file_size(P) - 4096);
}

static void cut_by_a_byte(void)
{
	struct fm_super_disk super;

	file_read(P, 0, &super, sizeof(super));
	cut(super.heap_end - 1);
}

static void newer_version(void)
{
	put32(SUPER(version), 2);
	seal();
}

static void version_0(void)
{
	put32(SUPER(version), 0);
	seal();
}

static void unknown_incompat(void)
{
	put64(SUPER(incompat), 1ull << 63);
	seal();
}

static void atomic_incompat(void)
{
	put64(SUPER(incompat), FM_INCOMPAT_ATOMIC << 1);
	seal();
}

static void unknown_ro_compat(void)
{
	put64(SUPER(ro_compat), 1ull << 40);
	seal();
}

static void unknown_compat(void)
{
	put64(SUPER(compat), UINT64_MAX);
	seal();
}

static void other_byte_order(void)
{
	put32(SUPER(byte_order), 0x04030201);
}

static void other_geometry(void)
{
	put32(SUPER(zone_shift), 27);
	seal();
}

static void other_classes(void)
{
	put32(SUPER(classes_crc), 1);
	seal();
}

static void heap_end_0(void)
{
	put64(SUPER(heap_end), 0);
}

static void heap_end_odd(void)
{
	put64(SUPER(heap_end), FM_ZONE_DATA_OFF + 1);
}

static void heap_end_far(void)
{
	put64(SUPER(heap_end), UINT64_MAX - 4095);
}

static void directory_unknown_kind(void)
{
	put16(FM_ZONEDIR_OFF + 2 * 3, 77);
}

/* Beside a leftover of a kill, which must not be tidied up then. */
static void directory_leftover_and_unknown(void)
{
	put16(FM_ZONEDIR_OFF + 2 * 4, FM_ZONE_HUGE_MORE);
	put16(FM_ZONEDIR_OFF + 2 * 3, 77);
}

static unsigned huge_index(void)
{
	uint16_t kind;
	unsigned i;

	for (i = 1; i < 10; i++) {
		file_read(P, FM_ZONEDIR_OFF + 2 * i, &kind, sizeof(kind));
		if (kind == FM_ZONE_HUGE)
			return i;
	}
	fail_msg("no huge block");
	return 0;
}

static void huge_in_huge(void)
{
	unsigned i = huge_index();
	struct fm_zone_disk head;

	file_read(P, zone(i), &head, sizeof(head));
	head.index++;
	head.huge_len = 4096;
	put(zone(i + 1), &head, sizeof(head));
	put16(FM_ZONEDIR_OFF + 2 * (i + 1), FM_ZONE_HUGE);
}

static void normal_in_huge(void)
{
	put16(FM_ZONEDIR_OFF + 2 * (huge_index() + 1), FM_ZONE_NORMAL);
}

static void huge_magic(void)
{
	put32(zone(huge_index()), 0);
}

static void huge_len_0(void)
{
	put64(zone(huge_index()) + offsetof(struct fm_zone_disk, huge_len), 0);
}

static void huge_len_far(void)
{
	put64(zone(huge_index()) + offsetof(struct fm_zone_disk, huge_len), UINT64_MAX);
}

static void huge_off_far(void)
{
	put64(zone(huge_index()) + offsetof(struct fm_zone_disk, huge_off),
	      UINT64_MAX - 4095);
}

static void huge_off_0(void)
{
	put64(zone(huge_index()) + offsetof(struct fm_zone_disk, huge_off), 0);
}

/* --- other things in its place ---------------------------------------------------------- */

static void directory(void)
{
	assert_int_equal(unlink(P), 0);
	assert_int_equal(mkdir(P, 0777), 0);
}

static void fifo(void)
{
	assert_int_equal(unlink(P), 0);
	assert_int_equal(mkfifo(P, 0666), 0);
}

static void device(void)
{
	assert_int_equal(unlink(P), 0);
	assert_int_equal(symlink("/dev/zero", P), 0);
}

static void dangling_link(void)
{
	assert_int_equal(unlink(P), 0);
	assert_int_equal(symlink("nowhere/at/all", P), 0);
}

static void missing(void)
{
	assert_int_equal(unlink(P), 0);
}

static void read_only_file(void)
{
	assert_int_equal(chmod(P, 0444), 0);
}

static void secret_file(void)
{
	assert_int_equal(chmod(P, 0000), 0);
}

static void secret_folder(void)
{
	assert_int_equal(chmod(".", 0700), 0);
}

/* --- circumstances, set in the child ------------------------------------------------------ */

static void as_anybody(void)
{
	if (geteuid() == 0) {
		child_check(setgid(ANYBODY) == 0);
		child_check(setuid(ANYBODY) == 0);
	}
}

static void with_small_files(void)
{
	struct rlimit limit = { MIB, MIB };

	child_check(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

/* (The sanitizers need all the memory there is.) */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static void with_little_memory(void)
{
	struct rlimit limit = { 64 * MIB, 64 * MIB };

	child_check(setrlimit(RLIMIT_AS, &limit) == 0);
}
#endif

static void with_no_descriptors(void)
{
	struct rlimit limit = { 3, 3 };

	child_check(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

/* --- the table ----------------------------------------------------------------------------- */

static const struct row {
	const char *name;
	void (*damage)(void);
	void (*circumstance)(void);
	int flags;
	int err;	/* 0: opens */
	const char *word;
} rows[] = {
	{ "empty", empty, NULL, 0, EINVAL, "empty" },
	{ "empty, to read", empty, NULL, FM_RDONLY, EINVAL, "empty" },
	{ "zeroes", zeroes, NULL, 0, EINVAL, "zeroes" },
	{ "garbage", garbage, NULL, 0, EINVAL, "not a pool" },
	{ "garbage, to create", garbage, NULL, FM_CREATE, EINVAL, "not a pool" },
	{ "garbage, to read", garbage, NULL, FM_RDONLY, EINVAL, "not a pool" },
	{ "short garbage, to create", short_garbage, NULL, FM_CREATE, EINVAL, "not a pool" },
	{ "late garbage, to create", late_garbage, NULL, FM_CREATE, EINVAL, "not a pool" },
	{ "cut in the magic", cut_in_the_magic, NULL, FM_CREATE, EINVAL, "not a pool" },
	{ "cut in the super", cut_in_the_super, NULL, FM_CREATE, EUCLEAN, "checksum" },
	{ "cut after the checksum", cut_after_the_checksum, NULL, FM_CREATE, EUCLEAN, "damaged" },
	{ "cut after the super", cut_after_the_super, NULL, FM_CREATE, EUCLEAN, "cut short" },
	{ "cut in the heap", cut_in_the_heap, NULL, FM_CREATE, EUCLEAN, "cut short" },
	{ "cut in the heap, to read", cut_in_the_heap, NULL, FM_RDONLY, EUCLEAN, "cut short" },
	{ "cut by a byte", cut_by_a_byte, NULL, 0, EUCLEAN, "cut short" },
	{ "newer version", newer_version, NULL, FM_CREATE, ENOTSUP, "version 2" },
	{ "newer version, to read", newer_version, NULL, FM_RDONLY, ENOTSUP, "version 2" },
	{ "version 0", version_0, NULL, 0, ENOTSUP, "version 0" },
	{ "unknown incompat", unknown_incompat, NULL, FM_RDONLY, ENOTSUP, "0x8000000000000000" },
	{ "atomic pool", atomic_incompat, NULL, 0, ENOTSUP, "features" },
	{ "unknown ro_compat", unknown_ro_compat, NULL, 0, EROFS, "only read" },
	{ "unknown ro_compat, to read", unknown_ro_compat, NULL, FM_RDONLY, 0, "" },
	{ "unknown compat", unknown_compat, NULL, FM_RDONLY, 0, "" },
	{ "other byte order", other_byte_order, NULL, FM_CREATE, ENOTSUP, "byte order" },
	{ "other geometry", other_geometry, NULL, 0, ENOTSUP, "geometry" },
	{ "other classes", other_classes, NULL, 0, ENOTSUP, "geometry" },
	{ "heap_end 0", heap_end_0, NULL, FM_CREATE, EUCLEAN, "heap ends at" },
	{ "heap_end odd", heap_end_odd, NULL, 0, EUCLEAN, "heap ends at" },
	{ "heap_end far", heap_end_far, NULL, FM_RDONLY, EUCLEAN, "heap ends at" },
	{ "unknown zone", directory_unknown_kind, NULL, FM_CREATE, EUCLEAN, "unknown kind" },
	{ "unknown zone and a leftover", directory_leftover_and_unknown, NULL, 0, EUCLEAN, "unknown kind" },
	{ "huge in huge", huge_in_huge, NULL, 0, EUCLEAN, "within a huge" },
	{ "normal in huge", normal_in_huge, NULL, 0, EUCLEAN, "within a huge" },
	{ "huge: magic", huge_magic, NULL, 0, EUCLEAN, "bad header" },
	{ "huge: length 0", huge_len_0, NULL, 0, EUCLEAN, "bad header" },
	{ "huge: long", huge_len_far, NULL, 0, EUCLEAN, "bad header" },
	{ "huge: far", huge_off_far, NULL, 0, EUCLEAN, "bad header" },
	{ "huge: offset 0", huge_off_0, NULL, 0, EUCLEAN, "bad header" },
	{ "directory", directory, NULL, FM_CREATE, EISDIR, "directory" },
	{ "directory, to read", directory, NULL, FM_RDONLY, EISDIR, "directory" },
	{ "FIFO", fifo, NULL, FM_CREATE, EINVAL, "regular" },
	{ "FIFO, to read", fifo, NULL, FM_RDONLY, EINVAL, "regular" },
	{ "device", device, NULL, FM_CREATE, EINVAL, "regular" },
	{ "dangling link", dangling_link, NULL, FM_CREATE, ENOENT, "nowhere" },
	{ "dangling link, exclusively", dangling_link, NULL, FM_CREATE | FM_EXCL, EEXIST, "exists" },
	{ "missing", missing, NULL, 0, ENOENT, "No such file" },
	{ "there, exclusively", nothing, NULL, FM_CREATE | FM_EXCL, EEXIST, "exists" },
	{ "read-only file", read_only_file, as_anybody, FM_CREATE, EACCES, "denied" },
	{ "read-only file, to read", read_only_file, as_anybody, FM_RDONLY, 0, "" },
	{ "secret file", secret_file, as_anybody, FM_RDONLY, EACCES, "denied" },
	{ "secret folder", secret_folder, as_anybody, 0, EACCES, "denied" },
	{ "no right to create", missing, as_anybody, FM_CREATE, EACCES, "denied" },
	{ "small files, new", missing, with_small_files, FM_CREATE, 0, "" },
	{ "small files, old", nothing, with_small_files, 0, 0, "" },
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	{ "little memory", nothing, with_little_memory, 0, ENOMEM, "mmap" },
#endif
	{ "no descriptors", nothing, with_no_descriptors, 0, EMFILE, "open files" },
};

static void try_row(void *arg)
{
	const struct row *row = arg;
	struct fm_info *fi;
	bool created = true;

	if (row->circumstance != NULL)
		row->circumstance();
	errno = 0;
	fi = fmalloc_open(P, row->flags, &created);
	if (row->err == 0) {
		child_check(fi != NULL);
		if (!(row->flags & FM_RDONLY) && row->circumstance == with_small_files) {
			errno = 0;
			child_check(fmalloc_in(fi, 200 * MIB) == NULL && errno == EFBIG);
			child_check(strstr(fm_errmsg(), "ulimit -f") != NULL);
		}
		return;
	}
	if (fi != NULL || errno != row->err || strstr(fm_errmsg(), row->word) == NULL ||
	    strstr(fm_errmsg(), P) == NULL || created) {
		fprintf(stderr, "# %s: errno %d, \"%s\"\n", row->name, errno, fm_errmsg());
		_exit(1);
	}
}

/* Whatever is at P, in a number. */
static uint64_t state_of_file(void)
{
	struct stat st;

	if (lstat(P, &st) < 0)
		return 1;
	if (!S_ISREG(st.st_mode))
		return st.st_mode;
	return file_sum(P) + st.st_size + st.st_mode;
}

static void every_row_is_refused_and_unchanged(void **state)
{
	uint64_t before;
	unsigned i, bad = 0;
	int status;

	(void)state;
	make_pool("made");
	file_copy("made", "good");	/* with holes: quick to copy */
	for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(chmod(".", 0755), 0);
		file_copy("good", P);
		rows[i].damage();
		before = state_of_file();
		status = child_wait(child_start(try_row, (void *)&rows[i]));
		if (status != 0) {
			print_error("%s: status %#x\n", rows[i].name, status);
			bad++;
		}
		/* One that may be opened for writing may change. */
		if ((rows[i].err != 0 || rows[i].flags & FM_RDONLY) &&
		    state_of_file() != before) {
			print_error("%s: the file has changed\n", rows[i].name);
			bad++;
		}
		if (unlink(P) < 0)
			rmdir(P);
	}
	assert_int_equal(bad, 0);
}

/* --- every bit of the super that the checksum covers ---------------------------------------- */

static void every_flipped_bit_of_the_super_is_refused(void **state)
{
	static unsigned char was[4096], now[4096];
	struct pool_info info;
	unsigned bit;
	int fd;

	(void)state;
	make_pool(P);
	file_read(P, 0, was, sizeof(was));
	fd = open(P, O_RDWR | O_CLOEXEC);
	for (bit = 0; bit < 512 * 8; bit++) {
		memcpy(now, was, sizeof(now));
		now[bit / 8] ^= 1u << bit % 8;
		assert_int_equal(pwrite(fd, now, sizeof(now), 0), sizeof(now));
		errno = 0;
		assert_null(fmalloc_open(P, bit % 2 ? FM_CREATE : FM_RDONLY, NULL));
		if (bit / 8 < 8) {
			assert_int_equal(errno, EINVAL);
			assert_non_null(strstr(fm_errmsg(), "not a pool"));
		} else {
			assert_int_equal(errno, EUCLEAN);
			assert_non_null(strstr(fm_errmsg(), "checksum"));
		}
		assert_int_equal(inspect_pool(fd, &info), 0);
		assert_int_equal(info.state, bit / 8 < 8 ? POOL_NONE : POOL_DAMAGED);
		assert_int_equal(pread(fd, was, sizeof(was), 0), sizeof(was));
		assert_memory_equal(was, now, sizeof(was));
		was[bit / 8] ^= 1u << bit % 8;
	}
	close(fd);
}

/* --- damage that is met only when one comes there --------------------------------------------- */

/* The blocks of a zone whose table is bad are refused; others work. */
static void a_bad_table_is_met_when_needed(void **state)
{
	static const struct { unsigned page; uint32_t entry; } bad[] = {
		/* Pages counted from the slab's. */
		{ 1, FM_EXTENT(FM_EXTENT_RUN, 0, 1) },		/* within it */
		{ 0, FM_EXTENT(FM_EXTENT_RUN, 0, 0) },
		{ 0, FM_EXTENT(FM_EXTENT_RUN, 0, 0xfffff) },
		{ 0, FM_EXTENT(FM_EXTENT_RUN, 1, 1) },
		{ 0, FM_EXTENT(FM_EXTENT_SLAB, 0, 15) },
		{ 0, FM_EXTENT(FM_EXTENT_SLAB, 54, 16) },
		{ 0, FM_EXTENT(FM_EXTENT_SLAB, 255, 16) },
		{ 0, FM_EXTENT(7, 0, 1) },
		{ 4, FM_EXTENT(FM_EXTENT_SLAB, 0, 16) },
	};
	struct fm_info *fi;
	uint64_t off, at;
	uint32_t was;
	unsigned i;
	void *p;

	(void)state;
	fi = fmalloc_open(P, FM_CREATE, NULL);
	assert_non_null(fi);
	p = fmalloc_in(fi, 100);
	off = (char *)p - (char *)fi->mem;
	assert_in_range(off, FM_ZONE_DATA_OFF, FM_ZONE_LEN);
	assert_int_equal(fmalloc_close(fi), 0);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		at = FM_ZONE_TABLE_OFF +
		     ((off & ~(FM_SLAB_LEN - 1)) / FM_PAGE_LEN + bad[i].page) * 4;
		file_read(P, at, &was, 4);
		put32(at, bad[i].entry);
		fi = fmalloc_open(P, 0, NULL);
		assert_non_null(fi);
		errno = 0;
		p = (char *)fi->mem + off;
		ffree(p);
		assert_int_equal(fm_bad_free_count(), i + 1);
		assert_non_null(strstr(fm_errmsg(), "bad table entry"));
		/* Elsewhere. */
		p = fmalloc_in(fi, 100);
		assert_non_null(p);
		assert_true((uint64_t)((char *)p - (char *)fi->mem) > FM_ZONE_LEN);
		memset(p, 1, 100);
		ffree(p);
		assert_int_equal(fm_bad_free_count(), i + 1);
		assert_int_equal(fmalloc_close(fi), 0);
		put32(at, was);
	}
	fi = fmalloc_open(P, 0, NULL);
	assert_non_null(fi);
	ffree((char *)fi->mem + off);
	assert_int_equal(fm_bad_free_count(), i);
	assert_int_equal(fmalloc_close(fi), 0);
}

static void a_bad_header_of_zone_0_is_refused(void **state)
{
	static const uint32_t value[] = { 0, 1, 159, 16385, UINT32_MAX };
	uint64_t sum;
	uint32_t was;
	unsigned i;

	(void)state;
	make_pool(P);
	for (i = 0; i < 5; i++) {
		uint64_t at = SUPER(zone0) + offsetof(struct fm_zone_disk, npages_reserved);

		file_read(P, at, &was, 4);
		put32(at, value[i]);
		sum = file_sum(P);
		errno = 0;
		assert_null(fmalloc_open(P, 0, NULL));
		assert_int_equal(errno, EUCLEAN);
		assert_non_null(strstr(fm_errmsg(), "zone 0"));
		assert_int_equal(file_sum(P), sum);
		put32(at, was);
	}
}

/* Another zone's is met when the zone is needed: what is elsewhere can be had. */
static void a_bad_zone_header_is_met_when_needed(void **state)
{
	const size_t len = 50 << 20;
	uint64_t first, second, at;
	struct fm_info *fi;
	uint32_t bad = 0;
	char *p;

	(void)state;
	fi = fmalloc_open(P, FM_CREATE, NULL);
	assert_non_null(fi);
	first = (char *)fmalloc_in(fi, len) - (char *)fi->mem;
	second = (char *)fmalloc_in(fi, len) - (char *)fi->mem;
	assert_int_equal(second / FM_ZONE_LEN, 1);
	assert_int_equal(fmalloc_close(fi), 0);
	at = FM_ZONE_LEN + offsetof(struct fm_zone_disk, npages_reserved);
	file_write(P, at, &bad, 4);
	fi = fmalloc_open(P, 0, NULL);
	assert_non_null(fi);
	p = (char *)fi->mem;
	assert_true(fmalloc_usable_size(p + first) >= len);
	assert_int_equal(fmalloc_usable_size(p + second), 0);
	assert_non_null(fmalloc_in(fi, len));
	assert_int_equal(fmalloc_close(fi), 0);
}

/* What a table says of pages that its zone does not have yet. */
static void entries_beyond_the_zone_count_for_nothing(void **state)
{
	struct fm_zone_disk zone_0;
	struct fm_info *fi;
	uint64_t at;
	char *p;

	(void)state;
	fi = fmalloc_open(P, FM_CREATE, NULL);
	assert_non_null(fi);
	assert_non_null(fmalloc_in(fi, 100));
	assert_int_equal(fmalloc_close(fi), 0);
	file_read(P, FM_ZONE0_HEADER_OFF, &zone_0, sizeof(zone_0));
	at = FM_ZONE_TABLE_OFF + (zone_0.npages_reserved + 20) * 4;
	put32(at, FM_EXTENT(FM_EXTENT_RUN, 0, 3));
	fi = fmalloc_open(P, 0, NULL);
	assert_non_null(fi);
	p = fmalloc_in(fi, MIB);
	assert_non_null(p);
	assert_in_range(p - (char *)fi->mem, 0,
			(zone_0.npages_reserved + 19) * FM_PAGE_LEN);
	/* Within the new block. */
	p = (char *)fi->mem + (zone_0.npages_reserved + 20) * FM_PAGE_LEN;
	assert_int_equal(fmalloc_usable_size(p), 0);
	assert_int_equal(fmalloc_close(fi), 0);
}

/* --- little address space --------------------------------------------------------------------- */

/* (The sanitizers need all there is.) */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/* ulimit -v: room for a mapping of 256 MiB and not for one of twice that. */
static void with_little_address_space(void)
{
	unsigned long npages = 0;
	FILE *f = fopen("/proc/self/statm", "re");
	struct rlimit limit;

	child_check(f != NULL && fscanf(f, "%lu", &npages) == 1);
	fclose(f);
	limit.rlim_cur = limit.rlim_max = npages * sysconf(_SC_PAGESIZE) + (400ul << 20);
	child_check(setrlimit(RLIMIT_AS, &limit) == 0);
}

static void fill_address_space(void *arg)
{
	struct fm_info *fi;
	int n = 0, i;

	(void)arg;
	with_little_address_space();
	fi = fmalloc_open(P, FM_CREATE, NULL);
	child_check(fi != NULL);
	while (fmalloc_in(fi, 20 << 20) != NULL)
		n++;
	child_check(errno == ENOMEM && n == 12);
	child_check(fmalloc_close(fi) == 0);
	for (i = 0; i < 2; i++) {
		fi = fmalloc_open(P, 0, NULL);
		child_check(fi != NULL);
		child_check(fmalloc_in(fi, 20 << 20) == NULL && errno == ENOMEM);
		child_check(fmalloc_in(fi, 100) != NULL);
		child_check(fmalloc_close(fi) == 0);
	}
}

static void a_pool_that_fills_its_address_space_opens_again(void **state)
{
	(void)state;
	child_run(fill_address_space, NULL);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		scratch_test(every_row_is_refused_and_unchanged),
		scratch_test(every_flipped_bit_of_the_super_is_refused),
		scratch_test(a_bad_table_is_met_when_needed),
		scratch_test(a_bad_header_of_zone_0_is_refused),
		scratch_test(a_bad_zone_header_is_met_when_needed),
		scratch_test(entries_beyond_the_zone_count_for_nothing),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
		scratch_test(a_pool_that_fills_its_address_space_opens_again),
#endif
	};

	return cmocka_run_group_tests_name("damage", tests, NULL, NULL);
}
