/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fm_check(), fm_check_each() and fm_stat() as a program sees them.  What each kind of
 * damage looks like is in tests/unit/test-check.c.
 */
#include "scratch.h"

#include <pthread.h>
#include <signal.h>

#include <fmalloc.h>

#define MIB (1ull << 20)

/* --- checking ---------------------------------------------------------------- */

static void make_pool(void)
{
	struct fm_info *fi = fmalloc_open(P, FM_CREATE, NULL);
	uint64_t *value;

	assert_non_null(fi);
	value = fmalloc_in(fi, sizeof(*value));
	assert_non_null(value);
	*value = 4711;
	assert_int_equal(fm_root_set(fi, "value", value, "uint64_t"), 0);
	assert_int_equal(fmalloc_close(fi), 0);
}

/* doc/format.md has the directory entry of zone 0 there, which is 0. */
static void damage(void)
{
	file_write(P, 16384, "\1", 1);
}

static void expect_refused(const char *path, int flags, int err, const char *word)
{
	errno = 0;
	assert_int_equal(fm_check_each(path, flags, NULL, NULL), -1);
	assert_int_equal(errno, err);
	if (strstr(fm_errmsg(), word) == NULL)
		fail_msg("'%s' does not say '%s'", fm_errmsg(), word);
}

static void what_is_no_pool_is_refused(void **state)
{
	(void)state;
	expect_refused(NULL, 0, EINVAL, "no path");
	expect_refused(P, 0, ENOENT, P);
	make_pool();
	expect_refused(P, 2, EINVAL, "flags");
	expect_refused(".", 0, EISDIR, "directory");
	expect_refused("/dev/null", 0, EINVAL, "regular");
	file_make("text", "a few words", 11);
	expect_refused("text", 0, EINVAL, "not a pool");
	expect_refused("text", FM_CHECK_REPAIR, EINVAL, "not a pool");
	assert_int_equal(file_size("text"), 11);
	file_make("empty", "", 0);
	expect_refused("empty", 0, EINVAL, "empty");
	assert_int_equal(truncate("empty", MIB), 0);
	expect_refused("empty", 0, EINVAL, "not a pool");
}

static int count(const struct fm_finding *f, void *arg)
{
	assert_true(f->level == FM_FINDING_DAMAGE);
	assert_int_equal(f->off, 16384);
	assert_string_equal(f->structure, "zone directory");
	assert_true(strlen(f->what) > 0);
	*(int *)arg += 1 + 100 * f->repaired;
	return 0;
}

static int stop(const struct fm_finding *f, void *arg)
{
	(void)f;
	++*(int *)arg;
	return 42;
}

static void damage_is_told_and_repaired(void **state)
{
	int n = 0;

	(void)state;
	make_pool();
	assert_int_equal(fm_check(P), 0);
	damage();
	errno = 0;
	assert_int_equal(fm_check(P), -1);
	assert_int_equal(errno, EUCLEAN);
	assert_non_null(strstr(fm_errmsg(), "zone directory"));
	assert_int_equal(fm_check_each(P, 0, count, &n), -1);
	assert_int_equal(n, 1);
	/* What the callback says is the result. */
	n = 0;
	assert_int_equal(fm_check_each(P, 0, stop, &n), 42);
	assert_int_equal(n, 1);
	n = 0;
	assert_int_equal(fm_check_each(P, FM_CHECK_REPAIR, count, &n), 0);
	assert_int_equal(n, 101);
	n = 0;
	assert_int_equal(fm_check_each(P, 0, count, &n), 0);
	assert_int_equal(n, 0);
}

static void a_pool_that_is_written_to_is_busy(void **state)
{
	struct fm_info *fi;

	(void)state;
	make_pool();
	fi = fmalloc_open(P, 0, NULL);
	assert_non_null(fi);
	expect_refused(P, 0, EBUSY, "open for writing");
	expect_refused(P, FM_CHECK_REPAIR, EBUSY, "open for writing");
	assert_int_equal(fmalloc_close(fi), 0);
	/* A reader is none. */
	fi = fmalloc_open(P, FM_RDONLY, NULL);
	assert_non_null(fi);
	assert_int_equal(fm_check(P), 0);
	assert_int_equal(fmalloc_close(fi), 0);
}

static int try_to_open(const struct fm_finding *f, void *arg)
{
	(void)f;
	(void)arg;
	assert_null(fmalloc_open(P, 0, NULL));
	assert_int_equal(errno, EBUSY);
	return 42;
}

static void a_pool_is_not_opened_while_it_is_repaired(void **state)
{
	(void)state;
	make_pool();
	damage();
	assert_int_equal(fm_check_each(P, FM_CHECK_REPAIR, try_to_open, NULL), 42);
	/* And is free again after, whatever fn said. */
	assert_int_equal(fm_check_each(P, FM_CHECK_REPAIR, NULL, NULL), 0);
	assert_int_equal(fmalloc_close(fmalloc_open(P, 0, NULL)), 0);
}

/* Allocates and links until it is killed. */
static void work(void *arg)
{
	struct fm_info *fi = fmalloc_init(P, NULL);
	uint64_t *where, i;

	(void)arg;
	child_check(fi != NULL);
	where = fm_root_alloc(fi, "table", 8 * 512, "uint64_t[512]");
	child_check(where != NULL);
	for (i = 0;; i++)
		if (i % 3 == 2)
			ffree_from(&where[i * 7 % 512]);
		else
			fmalloc_into(&where[i * 5 % 512], i * i % 40000);
}

static int notes_only(const struct fm_finding *f, void *arg)
{
	*(int *)arg += f->level != FM_FINDING_NOTE;
	return 0;
}

static void a_killed_writer_leaves_no_damage(void **state)
{
	int i, n = 0;
	pid_t pid;

	(void)state;
	make_pool();
	for (i = 0; i < 20; i++) {
		pid = child_start(work, NULL);
		usleep(5000 + i * 2000);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(child_wait(pid), SIGKILL);
		if (fm_check_each(P, 0, notes_only, &n) != 0)
			fail_msg("%s", fm_errmsg());
	}
	assert_int_equal(n, 0);
	/* Settled, there is not even a note. */
	assert_int_equal(fm_check_each(P, FM_CHECK_REPAIR, NULL, NULL), 0);
	assert_int_equal(fm_check_each(P, 0, stop, &n), 0);
}

static void cut_pool_is_no_trap(void **state)
{
	uint64_t len;

	(void)state;
	make_pool();
	for (len = file_size(P) - 1; len > 4096; len = len / 2 + 7) {
		assert_int_equal(truncate(P, len), 0);
		expect_refused(P, 0, EUCLEAN, "damaged");
		expect_refused(P, FM_CHECK_REPAIR, EUCLEAN, "damaged");
	}
}

/* --- figures ----------------------------------------------------------------- */

static struct fm_stats stats_of(struct fm_info *fi)
{
	struct fm_stats stats = { .size = sizeof(stats) };

	if (fm_stat(fi, &stats) != 0)
		fail_msg("%s", fm_errmsg());
	return stats;
}

static void stat_wants_a_pool_and_room(void **state)
{
	struct fm_info *fi = fmalloc_open(P, FM_CREATE, NULL), none = { NULL };
	struct {
		struct fm_stats stats;
		uint64_t later;		/* of a version to come */
	} more = { .stats.size = sizeof(more), .later = 99 };
	struct fm_stats stats = { .size = offsetof(struct fm_stats, log_len) - 8 };

	(void)state;
	assert_int_equal(fm_stat(&none, &stats), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(fm_stat(fi, NULL), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(fm_stat(fi, &stats), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(fm_stat(fi, &more.stats), 0);
	assert_int_equal(more.stats.size, sizeof(more));
	assert_int_equal(more.later, 0);
	assert_int_equal(more.stats.nzones, 1);
	/* A program that was built with the first version. */
	stats.size += 8;
	stats.log_len = 99;
	assert_int_equal(fm_stat(fi, &stats), 0);
	assert_int_equal(stats.nzones, 1);
	assert_int_equal(stats.log_len, 99);
	assert_int_equal(fmalloc_close(fi), 0);
}

static void stat_counts_blocks(void **state)
{
	struct fm_info *fi = fmalloc_open(P, FM_CREATE, NULL);
	struct fm_stats s;
	void *run, *huge, *small[100];
	int i;

	(void)state;
	s = stats_of(fi);
	assert_int_equal(s.nlive, 0);
	assert_int_equal(s.live_len, 0);
	assert_int_equal(s.nroots, 0);
	for (i = 0; i < 100; i++)
		small[i] = fmalloc_in(fi, 48);
	run = fmalloc_in(fi, 100000);
	huge = fmalloc_in(fi, 70 * MIB);
	assert_int_equal(fm_root_set(fi, "a", run, NULL), 0);
	assert_int_equal(fm_root_set(fi, "b", huge, NULL), 0);
	assert_int_equal(fm_root_set(fi, "a", huge, NULL), 0);
	s = stats_of(fi);
	assert_int_equal(s.nlive, 102);
	assert_int_equal(s.live_len, 100 * 48 + 102400 + 70 * MIB);
	assert_int_equal(s.nruns, 1);
	assert_int_equal(s.run_len, 102400);
	assert_int_equal(s.nhuge, 1);
	assert_int_equal(s.huge_len, 70 * MIB);
	assert_int_equal(s.nroots, 2);
	assert_int_equal(s.cls[2].block_len, 48);
	assert_int_equal(s.cls[2].nslabs, 1);
	assert_int_equal(s.cls[2].nlive, 100);
	assert_int_equal(s.cls[2].nfree, 1365 - 100);
	assert_int_equal(s.file_len, file_size(P));
	assert_true(s.heap_end <= s.file_len && s.disk_len >= s.backed_len);
	assert_int_equal(s.backed_len, 65536 + 102400 + 70 * MIB + s.free_len);
	ffree(huge);
	ffree(run);
	for (i = 0; i < 50; i++)
		ffree(small[i]);
	s = stats_of(fi);
	assert_int_equal(s.nlive, 50);
	assert_int_equal(s.live_len, 50 * 48);
	assert_int_equal(s.nhuge, 0);
	assert_int_equal(fmalloc_close(fi), 0);
	/* A reader sees the same. */
	fi = fmalloc_open(P, FM_RDONLY, NULL);
	s = stats_of(fi);
	assert_int_equal(s.nlive, 50);
	assert_int_equal(s.cls[2].nlive, 50);
	assert_int_equal(s.nroots, 2);
	assert_int_equal(fmalloc_close(fi), 0);
}

static void *free_all(void *arg)
{
	void **p = arg;

	for (; *p != NULL; p++)
		ffree(*p);
	return NULL;
}

static void stat_knows_what_others_freed(void **state)
{
	struct fm_info *fi = fmalloc_open(P, FM_CREATE, NULL);
	void *p[31] = { NULL };
	struct fm_stats s;
	pthread_t thread;
	int i;

	(void)state;
	for (i = 0; i < 30; i++)
		p[i] = fmalloc_in(fi, 1000);
	assert_int_equal(pthread_create(&thread, NULL, free_all, p), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	s = stats_of(fi);
	assert_int_equal(s.nlive, 0);
	assert_int_equal(s.cls[31].block_len, 1024);
	assert_int_equal(s.cls[31].nremote, 30);
	assert_int_equal(s.cls[31].nlive, 0);
	assert_int_equal(s.cls[31].nfree, s.cls[31].nslabs * 64 - 30);
	assert_int_equal(fmalloc_close(fi), 0);
}

/* Every second 1 MiB is freed: all that is free is in pieces less than a chunk. */
static void stat_knows_fragmentation(void **state)
{
	struct fm_info *fi = fmalloc_open(P, FM_CREATE, NULL);
	struct fm_stats s;
	void *p[32];
	int i;

	(void)state;
	for (i = 0; i < 32; i++)
		p[i] = fmalloc_in(fi, MIB);
	for (i = 0; i < 32; i += 2)
		ffree(p[i]);
	assert_int_equal(fm_trim(fi), 0);
	s = stats_of(fi);
	assert_int_equal(s.nlive, 16);
	assert_true(s.free_len >= 16 * MIB);
	assert_true(s.largest_free_len >= MIB && s.nfree_chunks == 0);
	/* 16 of 32 MiB, and at most a chunk at each end. */
	assert_in_range(s.fragmentation, 480, 540);
	for (i = 1; i < 32; i += 2)
		ffree(p[i]);
	s = stats_of(fi);
	assert_int_equal(s.nlive, 0);
	assert_true(s.nfree_chunks >= 1 || s.nhole_chunks >= 1);
	assert_int_equal(fm_trim(fi), 0);
	s = stats_of(fi);
	assert_int_equal(s.nfree_chunks, 0);
	assert_true(s.nhole_chunks >= 14);
	assert_int_equal(fmalloc_close(fi), 0);
}

static bool stopping;	/* atomic */

static void *churn(void *arg)
{
	unsigned i;
	void *p;

	fmalloc_set_target(arg);
	for (i = 0; !__atomic_load_n(&stopping, __ATOMIC_RELAXED); i++) {
		p = fmalloc(i * 37 % 30000);
		ffree(p);
	}
	return NULL;
}

static void stat_beside_other_threads(void **state)
{
	struct fm_info *fi = fmalloc_open(P, FM_CREATE, NULL);
	pthread_t thread[2];
	struct fm_stats s;
	int i;

	(void)state;
	assert_non_null(fmalloc_in(fi, 5000000));
	for (i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, churn, fi), 0);
	for (i = 0; i < 200; i++) {
		s = stats_of(fi);
		/* The block that nobody touches; and of each thread one at a time,
		 * which may be seen where it is and where it was. */
		assert_in_range(s.nlive, 1, 100);
		assert_true(s.run_len >= 5000000);
	}
	__atomic_store_n(&stopping, true, __ATOMIC_RELAXED);
	for (i = 0; i < 2; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);
	assert_int_equal(fmalloc_close(fi), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		scratch_test(what_is_no_pool_is_refused),
		scratch_test(damage_is_told_and_repaired),
		scratch_test(a_pool_that_is_written_to_is_busy),
		scratch_test(a_pool_is_not_opened_while_it_is_repaired),
		scratch_test(a_killed_writer_leaves_no_damage),
		scratch_test(cut_pool_is_no_trap),
		scratch_test(stat_wants_a_pool_and_room),
		scratch_test(stat_counts_blocks),
		scratch_test(stat_knows_what_others_freed),
		scratch_test(stat_knows_fragmentation),
		scratch_test(stat_beside_other_threads),
	};

	return cmocka_run_group_tests_name("check", tests, NULL, NULL);
}
