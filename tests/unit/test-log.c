/* SPDX-License-Identifier: Apache-2.0 */
/* The log of an atomic pool: what of it counts, what is damage, and pools with logs
 * that somebody made to do harm.  And the ways to find written pages. */
#include <config.h>

#include <fmalloc.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "common/crc32c.h"
#include "heap/dirty.h"
#include "heap/inspect.h"
#include "heap/judge.h"
#include "scratch.h"

#define NVALUES 4096u
#define LOG_OFF FM_ZONE_DATA_OFF          /* of the first extent */
#define FIRST_OFF (LOG_OFF + FM_PAGE_LEN) /* of the first record */

static void checksums_by_instruction_are_those_by_table(void **state)
{
	unsigned char bytes[300];
	uint64_t seed = 1;
	size_t at, len;

	(void)state;
	for (at = 0; at < sizeof(bytes); at++)
		bytes[at] = rnd(&seed);
	for (at = 0; at < 9; at++)
		for (len = 0; len + at < sizeof(bytes); len++)
			assert_int_equal(crc32c(7, bytes + at, len),
					 crc32c_by_table(7, bytes + at, len));
	/* RFC 3720, B.4: 32 bytes of zeroes. */
	memset(bytes, 0, 32);
	assert_int_equal(crc32c(0, bytes, 32), 0x8a9136aa);
}

/* --- a pool with some records ------------------------------------------------- */

static void make_records(void *arg)
{
	unsigned ncommits = *(unsigned *)arg, i;
	struct fm_info *fi = fmalloc_open(P, FM_CREATE | FM_ATOMIC, NULL);
	uint64_t *value;

	child_check(fi != NULL);
	fmalloc_set_target(fi);
	value = fm_root_alloc(fi, "value", NVALUES * 8, "");
	child_check(value != NULL && fmalloc_commit(fi) == 0 && fmalloc_close(fi) == 0);
	fi = fmalloc_open(P, 0, NULL);
	child_check(fi != NULL);
	value = fm_root_get(fi, "value", "");
	for (i = 1; i <= ncommits; i++) {
		value[0] = i;
		value[i * 100 % NVALUES] = i;
		value[NVALUES - 1] = i;
		child_check(fmalloc_commit(fi) == 0);
	}
	_exit(0);
}

static void make_pool(unsigned ncommits)
{
	unlink(P);
	child_run(make_records, &ncommits);
}

/* In the file itself, for whoever finds the lock free. */
static void the_writer_is_named(void **state)
{
	struct fm_info *fi = fmalloc_open(P, FM_CREATE | FM_ATOMIC, NULL);
	const uint64_t at = offsetof(struct fm_super_disk, writer);
	struct fm_writer_disk writer;
	struct stat st;

	(void)state;
	assert_non_null(fi);
	file_read(P, at, &writer, sizeof(writer));
	assert_int_equal(stat(P, &st), 0);
	assert_int_equal(writer.pid, getpid());
	assert_int_equal(writer.ino, st.st_ino);
	assert_int_equal(fmalloc_close(fi), 0);
	file_read(P, at, &writer, sizeof(writer));
	assert_int_equal(writer.pid, 0);
}

/* What a reader finds: the number of the commit, or -1 with errno. */
static int found(void)
{
	struct fm_info *fi = fmalloc_open(P, FM_RDONLY, NULL);
	const uint64_t *value;
	int n = -1;

	if (fi == NULL)
		return -1;
	value = fm_root_get(fi, "value", "");
	if (value != NULL) {
		assert_int_equal(value[0], value[NVALUES - 1]);
		n = value[0];
	}
	assert_int_equal(fmalloc_close(fi), 0);
	return n;
}

/* Where record number n (from 0 on) begins. */
static uint64_t record_off(unsigned n)
{
	struct fm_record_disk record;
	uint64_t off = FIRST_OFF;

	for (;; n--) {
		file_read(P, off, &record, sizeof(record));
		assert_int_equal(record.magic, FM_RECORD_MAGIC);
		if (n == 0)
			return off;
		off += record.len;
	}
}

static void write64(uint64_t off, uint64_t value)
{
	file_write(P, off, &value, sizeof(value));
}

static void flip(uint64_t off)
{
	unsigned char byte;

	file_read(P, off, &byte, 1);
	byte ^= 1;
	file_write(P, off, &byte, 1);
}

static void reseal_record(uint64_t off)
{
	static unsigned char buf[1 << 16];
	struct fm_record_disk record;

	file_read(P, off, &record, sizeof(record));
	assert_true(record.len <= sizeof(buf));
	file_read(P, off, buf, record.len);
	record.crc = crc32c(0, buf + 8, record.len - 8);
	file_write(P, off, &record, sizeof(record));
}

static void reseal_head(void)
{
	struct fm_log_disk head;

	file_read(P, LOG_OFF, &head, sizeof(head));
	head.crc = judge_log_crc(&head);
	file_write(P, LOG_OFF, &head, FM_SECTOR_LEN);
}

/* --- cases -------------------------------------------------------------------- */

static void all_records_count(void **state)
{
	(void)state;
	make_pool(20);
	assert_int_equal(found(), 20);
	assert_int_equal(fm_check(P), 0);
}

static void the_first_bad_record_ends_the_log(void **state)
{
	static const unsigned where[] = { 0, 4, 8, 16, 24, 32, 40 };
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(where) / sizeof(where[0]); i++) {
		make_pool(20);
		/* Number 10 is that of commit 11. */
		flip(record_off(10) + where[i]);
		assert_int_equal(found(), 10);
		assert_int_equal(fm_check(P), 0);
	}
}

static void records_of_a_former_lap_do_not_count(void **state)
{
	struct fm_info *fi;

	(void)state;
	make_pool(20);
	fi = fmalloc_open(P, 0, NULL); /* makes a checkpoint */
	assert_non_null(fi);
	record_off(15); /* they are all still there */
	assert_int_equal(found(), 20);
	assert_int_equal(fmalloc_close(fi), 0);
	assert_int_equal(found(), 20);
}

static void the_older_lap_counts_if_the_newer_is_torn(void **state)
{
	struct fm_log_disk head;
	int newer;

	(void)state;
	make_pool(20);
	file_read(P, LOG_OFF, &head, sizeof(head));
	assert_null(judge_lap(&head.lap[0]));
	assert_null(judge_lap(&head.lap[1]));
	newer = head.lap[1].number > head.lap[0].number;
	assert_int_equal(head.lap[newer].number, head.lap[1 - newer].number + 1);
	/* The records are of the newer, so without it there are none. */
	flip(LOG_OFF + (1 + newer) * FM_SECTOR_LEN + 3);
	assert_int_equal(found(), 0);
	flip(LOG_OFF + (2 - newer) * FM_SECTOR_LEN + 3);
	assert_int_equal(found(), -1);
	assert_int_equal(errno, EUCLEAN);
	assert_int_equal(fm_check(P), -1);
	assert_int_equal(errno, EUCLEAN);
}

/* --- copies ------------------------------------------------------------------- */

/* More commits, and an end without a checkpoint. */
static void go_on(void *arg)
{
	struct fm_info *fi = fmalloc_open(P, 0, NULL);
	uint64_t *value;
	unsigned i;

	(void)arg;
	child_check(fi != NULL);
	fmalloc_set_target(fi);
	value = fm_root_get(fi, "value", "");
	child_check(value != NULL && fmalloc(100000) != NULL);
	for (i = 0; i < 10; i++) {
		value[0] = value[NVALUES - 1] = 100 + i;
		child_check(fmalloc_commit(fi) == 0);
	}
	_exit(0);
}

/* Copy the bytes of a view of P, its writer at it: what inspect_finish_copy() says. */
static int copy_of_view(const char *path, void (*meanwhile)(void *arg))
{
	int fd = open(P, O_RDWR | O_CLOEXEC);
	int copy = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	struct inspect_view view;
	void *bytes;
	int rc;

	assert_true(fd >= 0 && copy >= 0);
	assert_int_equal(inspect_open_view(&view, fd), 0);
	assert_non_null(view.atomic);
	child_run(meanwhile, NULL);
	bytes = malloc(view.super.heap_end);
	assert_non_null(bytes);
	file_read(P, 0, bytes, view.super.heap_end);
	assert_int_equal(pwrite(copy, bytes, view.super.heap_end, 0), view.super.heap_end);
	free(bytes);
	rc = inspect_finish_copy(&view, copy);
	inspect_close_view(&view);
	close(copy);
	close(fd);
	return rc;
}

static void a_copy_is_of_the_commit_that_was_looked_at(void **state)
{
	uint64_t len;

	(void)state;
	make_pool(5);
	len = file_size(P);
	assert_int_equal(copy_of_view("copy", go_on), 0);
	assert_int_equal(found(), 109);
	assert_int_equal(rename("copy", P), 0);
	assert_int_equal(fm_check(P), 0);
	assert_int_equal(file_size(P), len);
	assert_int_equal(found(), 5);
	child_run(go_on, NULL);
	assert_int_equal(found(), 109);
}

static void take_back(void *arg)
{
	(void)arg;
	write64(record_off(4), 0);
	_exit(0);
}

static void a_copy_of_a_commit_that_failed_is_none(void **state)
{
	(void)state;
	make_pool(5);
	assert_int_equal(copy_of_view("copy", take_back), -EAGAIN);
	assert_int_equal(found(), 4);
}

/* --- damage ------------------------------------------------------------------- */

static void a_sealed_record_that_makes_no_sense_is_damage(void **state)
{
	static const uint64_t runs[] = {
		FM_RUN(0, 0),                    /* of no words */
		FM_RUN(4096, FM_RUN_NWORDS_MAX), /* longer than the record */
		FM_RUN(UINT64_C(1) << 39, 1),    /* beyond the file */
	};
	uint64_t off;
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
		make_pool(3);
		off = record_off(1);
		write64(off + sizeof(struct fm_record_disk), runs[i]);
		reseal_record(off);
		assert_int_equal(found(), -1);
		assert_int_equal(errno, EUCLEAN);
		assert_null(fmalloc_open(P, 0, NULL));
		assert_int_equal(errno, EUCLEAN);
		assert_int_equal(fm_check(P), -1);
		assert_int_equal(errno, EUCLEAN);
	}
}

static void a_bad_head_is_damage(void **state)
{
	static const unsigned where[] = { 0, 4, 8, 16, 24 };
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(where) / sizeof(where[0]); i++) {
		make_pool(3);
		flip(LOG_OFF + where[i]);
		assert_int_equal(found(), -1);
		assert_int_equal(errno, EUCLEAN);
		assert_int_equal(fm_check(P), -1);
		assert_int_equal(errno, EUCLEAN);
	}
	make_pool(3);
	write64(offsetof(struct fm_super_disk, log_off), 0);
	assert_int_equal(found(), -1);
	assert_int_equal(errno, EUCLEAN);
}

static void a_chain_that_leads_nowhere_ends(void **state)
{
	static const uint64_t next[] = { LOG_OFF, 4096, 12345, UINT64_MAX,
					 LOG_OFF + 4096 };
	struct fm_info *fi;
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(next) / sizeof(next[0]); i++) {
		make_pool(3);
		write64(LOG_OFF + offsetof(struct fm_log_disk, next_off), next[i]);
		reseal_head();
		assert_int_equal(found(), 3);
		fi = fmalloc_open(P, 0, NULL);
		assert_non_null(fi);
		assert_int_equal(fmalloc_close(fi), 0);
		assert_int_equal(found(), 3);
		assert_int_equal(fm_check(P), 0);
	}
}

/* A file may be longer than what a pool, and so the memory for one, can be. */
static void a_record_beyond_the_longest_pool_is_damage(void **state)
{
	uint64_t off;

	(void)state;
	make_pool(3);
	if (truncate(P, INT64_C(9) << 40) != 0)
		skip();
	off = record_off(1);
	write64(off + sizeof(struct fm_record_disk), FM_RUN(UINT64_C(5) << 40, 1));
	reseal_record(off);
	assert_int_equal(found(), -1);
	assert_int_equal(errno, EUCLEAN);
	assert_int_equal(fm_check(P), -1);
}

/* --- logs that are to take memory, or time ------------------------------------- */

#define EXTENT_LEN (FM_LOG_NPAGES_MAX * FM_PAGE_LEN)
#define MAPPED_LEN (FM_RUN_NWORDS_MAX * 8)	/* of the longest run */
#define MEMORY_KIB (96 << 10)	/* for looking at one */

static uint64_t extent_off(unsigned i)
{
	return i == 0 ? LOG_OFF : i * FM_ZONE_LEN;
}

/* So many extents behind the first, without any space. */
static void make_log_long(unsigned nextents)
{
	struct fm_log_disk head;
	unsigned i;

	assert_int_equal(truncate(P, (nextents + 1) * FM_ZONE_LEN), 0);
	for (i = 0; i <= nextents; i++) {
		file_read(P, extent_off(i), &head, sizeof(head));
		head.magic = FM_LOG_MAGIC;
		head.self_off = extent_off(i);
		if (i > 0)
			head.npages = FM_LOG_NPAGES_MAX;
		head.next_off = i < nextents ? extent_off(i + 1) : 0;
		head.crc = judge_log_crc(&head);
		file_write(P, extent_off(i), &head, FM_SECTOR_LEN);
	}
}

/* Where the byte at pos of the records is. */
static uint64_t log_off(uint64_t pos)
{
	const uint64_t first = (FM_LOG_NPAGES_MIN - 1) * FM_PAGE_LEN;
	const uint64_t room = EXTENT_LEN - FM_PAGE_LEN;

	return pos < first ? FIRST_OFF + pos
			   : extent_off(1 + (pos - first) / room) + FM_PAGE_LEN +
				     (pos - first) % room;
}

/* Let the first record be nruns of zeroes, as long as can be; sealed or not. */
static void make_record_long(unsigned nruns, bool sealed)
{
	const uint64_t run_len = 8 + MAPPED_LEN;
	struct fm_record_disk record;
	uint64_t word, pos = sizeof(record);
	unsigned i;

	file_read(P, FIRST_OFF, &record, sizeof(record));
	record.len = sizeof(record) + nruns * run_len;
	record.crc = crc32c(0, &record.salt, sizeof(record) - 8);
	for (i = 0; i < nruns; i++, pos += run_len) {
		word = FM_RUN(FM_ZONE_LEN + i * MAPPED_LEN, FM_RUN_NWORDS_MAX);
		write64(log_off(pos), word);
		record.crc = crc32c_zeros(crc32c(record.crc, &word, 8), MAPPED_LEN);
	}
	record.crc += !sealed;
	file_write(P, FIRST_OFF, &record, sizeof(record));
}

static int count_root(const struct pool_root *root, void *arg)
{
	(void)root;
	++*(int *)arg;
	return 0;
}

/* Where nothing else has taken memory. */
static void look(void *arg)
{
	const int *want = arg;
	struct rusage before, after;
	int fd = open(P, O_RDWR), rc, n = 0;

	child_check(fd >= 0 && getrusage(RUSAGE_SELF, &before) == 0);
	rc = inspect_roots(fd, count_root, &n);
	child_check(getrusage(RUSAGE_SELF, &after) == 0);
	if (rc != *want)
		fprintf(stderr, "# inspect_roots: %d, %d\n", rc, n);
	child_check(rc == *want);
	child_check(after.ru_maxrss - before.ru_maxrss < MEMORY_KIB);
	_exit(0);
}

static void a_long_record_takes_no_memory(void **state)
{
	int one = 1, too_long = -EFBIG;

	(void)state;
	make_pool(1);
	make_log_long(18);
	/* What lies behind the first extent is to be zeroes. */
	file_write(P, FIRST_OFF + sizeof(struct fm_record_disk), (char[4096]){ 0 }, 4096);
	make_record_long(4, false);
	child_run(look, &one);
	make_record_long(4, true);
	child_run(look, &one);
	make_log_long(36);
	make_record_long(8, true);
	child_run(look, &too_long);
}

static void make_roots(void *arg)
{
	struct fm_info *fi = fmalloc_open(P, 0, NULL);
	char name[16];
	int i;

	(void)arg;
	child_check(fi != NULL);
	for (i = 0; i < 600; i++) {
		snprintf(name, sizeof(name), "r%d", i);
		child_check(fm_root_set(fi, name, NULL, "") == 0);
		child_check(i % 100 != 0 || fmalloc_commit(fi) == 0);
	}
	child_check(fmalloc_commit(fi) == 0);
	_exit(0);
}

static void roots_that_only_the_log_has_are_found(void **state)
{
	int all = 601;

	(void)state;
	make_pool(1);
	child_run(make_roots, NULL);
	child_run(look, &all);
}

/* --- random damage ------------------------------------------------------------- */

/* Bytes changed anywhere, checksums made right again or not: no signal, no end. */
static void no_log_does_harm(void **state)
{
	unsigned nrounds = getenv("LOG_ROUNDS") != NULL ? atoi(getenv("LOG_ROUNDS"))
							: 150,
		 i, k;
	struct fm_info *fi;
	uint64_t seed = 5, off;
	unsigned char byte;

	(void)state;
	make_pool(30);
	file_copy(P, "good");
	for (i = 0; i < nrounds; i++) {
		file_copy("good", P);
		off = record_off(rnd(&seed) % 30);
		for (k = rnd(&seed) % 4 + 1; k > 0; k--) {
			byte = rnd(&seed);
			switch (rnd(&seed) % 4) {
			case 0:
				file_write(P, LOG_OFF + rnd(&seed) % 64, &byte, 1);
				break;
			case 1:
				file_write(P, off + 16 + rnd(&seed) % 16, &byte, 1);
				break;
			default:
				file_write(P, off + 32 + rnd(&seed) % 40, &byte, 1);
				break;
			}
		}
		if (rnd(&seed) % 2) {
			struct fm_record_disk record;

			file_read(P, off, &record, sizeof(record));
			if (record.len >= 40 && record.len < 4096 &&
			    record.len % 8 == 0)
				reseal_record(off);
		}
		if (rnd(&seed) % 2)
			reseal_head();
		fm_check(P);
		fi = fmalloc_open(P, FM_RDONLY, NULL);
		if (fi != NULL) {
			fm_root_get(fi, "value", NULL);
			assert_int_equal(fmalloc_close(fi), 0);
		}
		fi = fmalloc_open(P, 0, NULL);
		if (fi == NULL)
			continue;
		fmalloc_set_target(fi);
		ffree(fmalloc(100));
		if (fmalloc_commit(fi) == 0)
			assert_int_equal(fmalloc_close(fi), 0);
		else
			assert_int_equal(fmalloc_rollback(fi) | fmalloc_close(fi), 0);
	}
}

/* --- written pages ------------------------------------------------------------ */

static void work_with(unsigned uses)
{
	static uint64_t model[NVALUES * 16];
	struct fm_info *fi;
	uint64_t *v, seed = uses, i, round;

	dirty_uses = uses;
	unlink(P);
	fi = fmalloc_open(P, FM_CREATE | FM_ATOMIC, NULL);
	assert_non_null(fi);
	fmalloc_set_target(fi);
	v = fm_root_alloc(fi, "value", sizeof(model), "");
	assert_non_null(v);
	memset(model, 0, sizeof(model));
	for (round = 0; round < 200; round++) {
		for (i = 0; i < (round % 9 == 0 ? 5000 : 5); i++) {
			uint64_t at = rnd(&seed) % (NVALUES * 16);

			v[at] = model[at] = rnd(&seed);
		}
		assert_int_equal(fmalloc_commit(fi), 0);
		v[rnd(&seed) % (NVALUES * 16)]++;
		ffree(fmalloc(rnd(&seed) % 100000));
		assert_int_equal(fmalloc_rollback(fi), 0);
		assert_memory_equal(v, model, sizeof(model));
		if (round % 50 == 49) {
			assert_int_equal(fmalloc_close(fi), 0);
			assert_int_equal(fm_check(P), 0);
			fi = fmalloc_open(P, 0, NULL);
			assert_non_null(fi);
			fmalloc_set_target(fi);
			v = fm_root_get(fi, "value", "");
			assert_memory_equal(v, model, sizeof(model));
		}
	}
	assert_int_equal(fmalloc_close(fi), 0);
	dirty_uses = DIRTY_WATCH | DIRTY_SCAN;
}

static void written_pages_are_found_in_every_way(void **state)
{
	(void)state;
	work_with(DIRTY_WATCH | DIRTY_SCAN);
	work_with(DIRTY_SCAN);
	work_with(0);
}

static int add_pages(void *arg, uint64_t off, uint64_t len)
{
	(void)off;
	*(uint64_t *)arg += len / FM_PAGE_LEN;
	return 0;
}

static uint64_t count(struct dirty *d, unsigned what)
{
	uint64_t n = 0;

	assert_int_equal(dirty_find(d, 0, d->len, what, add_pages, &n), 0);
	return n;
}

static void pages_are_found_once(void **state)
{
	unsigned char *mem = mmap(NULL, 64 * FM_PAGE_LEN, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct dirty d;

	(void)state;
	assert_true(mem != MAP_FAILED);
	assert_int_equal(dirty_open(&d, mem, 64 * FM_PAGE_LEN), 0);
	if (!dirty_protects(&d)) {
		dirty_close(&d);
		skip();
	}
	assert_int_equal(count(&d, DIRTY_WRITTEN | DIRTY_PRIVATE | DIRTY_PROTECT), 0);
	mem[0] = 1;
	mem[10 * FM_PAGE_LEN] = 1;
	assert_int_equal(count(&d, DIRTY_WRITTEN | DIRTY_PRIVATE), 2);
	assert_int_equal(count(&d, DIRTY_WRITTEN | DIRTY_PRIVATE | DIRTY_PROTECT), 2);
	assert_int_equal(count(&d, DIRTY_WRITTEN | DIRTY_PRIVATE | DIRTY_PROTECT), 0);
	assert_int_equal(count(&d, DIRTY_PRIVATE), 2);
	mem[10 * FM_PAGE_LEN] = 2;
	assert_int_equal(count(&d, DIRTY_WRITTEN | DIRTY_PRIVATE | DIRTY_PROTECT), 1);
	/* All of them, there or not; then only what is written. */
	count(&d, DIRTY_WRITTEN | DIRTY_PROTECT);
	assert_int_equal(count(&d, DIRTY_WRITTEN | DIRTY_PROTECT), 0);
	mem[20 * FM_PAGE_LEN] = 1;
	mem[0] = 2;
	assert_int_equal(count(&d, DIRTY_WRITTEN | DIRTY_PROTECT), 2);
	dirty_close(&d);
	munmap(mem, 64 * FM_PAGE_LEN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(checksums_by_instruction_are_those_by_table),
		scratch_test(the_writer_is_named),
		scratch_test(all_records_count),
		scratch_test(the_first_bad_record_ends_the_log),
		scratch_test(records_of_a_former_lap_do_not_count),
		scratch_test(the_older_lap_counts_if_the_newer_is_torn),
		scratch_test(a_copy_is_of_the_commit_that_was_looked_at),
		scratch_test(a_copy_of_a_commit_that_failed_is_none),
		scratch_test(a_sealed_record_that_makes_no_sense_is_damage),
		scratch_test(a_bad_head_is_damage),
		scratch_test(a_chain_that_leads_nowhere_ends),
		scratch_test(a_record_beyond_the_longest_pool_is_damage),
		scratch_test(a_long_record_takes_no_memory),
		scratch_test(roots_that_only_the_log_has_are_found),
		scratch_test(no_log_does_harm),
		scratch_test(written_pages_are_found_in_every_way),
		cmocka_unit_test(pages_are_found_once),
	};

	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
