/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A full disk, and errors of the disk: each call that a commit, a checkpoint or a close
 * makes of the file fails in turn, once or from then on.  The commit says so, memory is
 * what it was, the file is as of the last commit, and it works once the cause is gone.
 */
#include <config.h>

#include <errno.h>
#include <fmalloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scratch.h"

#define NVALUES 30000u

/* --- calls that fail ---------------------------------------------------------- */

static struct {
	uint64_t ino;      /* of the file; 0: nothing fails */
	uint64_t ncalls;   /* so far */
	uint64_t from, to; /* these fail ... */
	int error;         /* ... with that */
	bool half;         /* of a write the first half is done */
} fault;

/* Whether this call fails. */
static bool fails(int fd)
{
	struct stat st;

	if (fault.ino == 0 || fstat(fd, &st) != 0 || st.st_ino != fault.ino)
		return false;
	fault.ncalls++;
	if (fault.ncalls < fault.from || fault.ncalls >= fault.to)
		return false;
	errno = fault.error;
	return true;
}

ssize_t __real_pwrite(int fd, const void *buf, size_t len, off_t off);
ssize_t __wrap_pwrite(int fd, const void *buf, size_t len, off_t off);
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __real_fallocate(int fd, int mode, off_t off, off_t len);
int __wrap_fallocate(int fd, int mode, off_t off, off_t len);

ssize_t __wrap_pwrite(int fd, const void *buf, size_t len, off_t off)
{
	if (!fails(fd))
		return __real_pwrite(fd, buf, len, off);
	if (fault.half && len > 1)
		return __real_pwrite(fd, buf, len / 2, off);
	return -1;
}

/* What happens while a commit waits for the disk; may be NULL. */
static void (*meanwhile)(void);

/* It takes no time where nothing is lost. */
int __wrap_fdatasync(int fd)
{
	void (*now)(void) = meanwhile;

	meanwhile = NULL;
	if (now != NULL)
		now();
	return fails(fd) ? -1 : 0;
}

int __wrap_fallocate(int fd, int mode, off_t off, off_t len)
{
	return fails(fd) ? -1 : __real_fallocate(fd, mode, off, len);
}

static void let_fail(uint64_t from, uint64_t n, int error)
{
	struct stat st;

	assert_int_equal(stat(P, &st), 0);
	fault.ino = st.st_ino;
	fault.ncalls = 0;
	fault.from = from;
	fault.to = n == UINT64_MAX ? n : from + n;
	fault.error = error;
	fault.half = from % 2 == 0;
}

static void let_work(void)
{
	fault.ino = 0;
}

/* --- a pool and what it must be ----------------------------------------------- */

struct top {
	uint64_t value[NVALUES];
	FM_PTR(unsigned char) block[64];
	uint64_t block_len[64];
};

struct model {
	struct fm_info *fi;
	struct top *top;
	uint64_t seed;
	uint64_t value[NVALUES];
	unsigned char fill[64];
	uint64_t block_len[64];
};

static void open_model(struct model *m, uint64_t seed)
{
	unlink(P);
	memset(m, 0, sizeof(*m));
	m->seed = seed;
	m->fi = fmalloc_open(P, FM_CREATE | FM_ATOMIC, NULL);
	assert_non_null(m->fi);
	fmalloc_set_target(m->fi);
	m->top = fm_root_alloc(m->fi, "top", sizeof(*m->top), "");
	assert_non_null(m->top);
	assert_int_equal(fmalloc_commit(m->fi), 0);
}

/* Change things in the pool, and in the model.  A block that cannot be had is not. */
static void change(struct model *m, unsigned nvalues, bool blocks)
{
	unsigned i, at;
	void *mem;

	for (i = 0; i < nvalues; i++) {
		at = rnd(&m->seed) % NVALUES;
		m->value[at] = m->top->value[at] = rnd(&m->seed);
	}
	for (i = 0; blocks && i < 8; i++) {
		at = rnd(&m->seed) % 64;
		ffree(fm_get(m->top->block[at]));
		m->block_len[at] = rnd(&m->seed) % 60000;
		mem = fmalloc(m->block_len[at]);
		if (mem == NULL)
			m->block_len[at] = 0;
		m->fill[at] = rnd(&m->seed);
		if (mem != NULL)
			memset(mem, m->fill[at], m->block_len[at]);
		fm_set(m->top->block[at], mem);
		m->top->block_len[at] = m->block_len[at];
	}
}

static bool is_model(const struct model *m, const struct top *top)
{
	const unsigned char *block;
	uint64_t i, len;

	if (memcmp(top->value, m->value, sizeof(m->value)) != 0)
		return false;
	for (i = 0; i < 64; i++) {
		block = fm_get(top->block[i]);
		len = top->block_len[i];
		if (len != m->block_len[i] || (len > 0 && block == NULL))
			return false;
		if (len > 0 &&
		    (block[0] != m->fill[i] || memcmp(block, block + 1, len - 1) != 0))
			return false;
	}
	return true;
}

/* What another process would find now: this or the other. */
static void check_file_for(const struct model *m, const struct model *other)
{
	struct fm_info *fi = fmalloc_open(P, FM_RDONLY, NULL);
	struct top *top;

	if (fi == NULL)
		fail_msg("%s", fm_errmsg());
	top = fm_root_get(fi, "top", "");
	assert_non_null(top);
	assert_true(is_model(m, top) || is_model(other, top));
	assert_int_equal(fmalloc_close(fi), 0);
}

static void check_file(const struct model *m)
{
	check_file_for(m, m);
}

static void close_model(struct model *m)
{
	let_work();
	if (fmalloc_close(m->fi) != 0)
		fail_msg("%s", fm_errmsg());
	if (fm_check(P) != 0)
		fail_msg("%s", fm_errmsg());
	m->fi = fmalloc_open(P, 0, NULL);
	assert_non_null(m->fi);
	fmalloc_set_target(m->fi);
	m->top = fm_root_get(m->fi, "top", "");
	assert_true(is_model(m, m->top));
	assert_int_equal(fmalloc_close(m->fi), 0);
}

/* --- cases -------------------------------------------------------------------- */

enum after { TRY_AGAIN, ROLL_BACK, GO_ON, NAFTER };

/* Calls [from, from + n) of a commit fail: false if it has no such call. */
static bool try_commit(uint64_t from, uint64_t n, int error, enum after what,
		       unsigned nvalues, bool blocks, unsigned nbefore)
{
	static struct model m, committed;
	bool failed;
	unsigned i;

	open_model(&m, from);
	for (i = 0; i < nbefore; i++) {
		change(&m, i % 8 == 0 ? 20000 : 50, i % 3 == 0);
		assert_int_equal(fmalloc_commit(m.fi), 0);
	}
	committed = m;
	change(&m, nvalues, blocks);
	let_fail(from, n, error);
	failed = fmalloc_commit(m.fi) != 0;
	if (getenv("FAULTS_VERBOSE") != NULL)
		print_message("# from %llu, %s, what %d: %s\n",
			      (unsigned long long)from, n == 1 ? "once" : "always",
			      what, failed ? fm_errmsg() : "made");
	if (failed)
		assert_int_equal(errno, error);
	let_work();
	/* Memory is as it was, and the file is not. */
	assert_true(is_model(&m, m.top));
	/* If nothing at all could be written the record could not be taken back: as
	 * if the program had been killed just before it was told. */
	check_file_for(failed ? &committed : &m, n == 1 && failed ? &committed : &m);
	if (what == ROLL_BACK) {
		assert_int_equal(fmalloc_rollback(m.fi), 0);
		if (failed) {
			committed.seed = m.seed;
			m = committed;
		}
		assert_true(is_model(&m, m.top));
		check_file(&m);
	} else if (what == GO_ON) {
		change(&m, 100, true);
	}
	assert_int_equal(fmalloc_commit(m.fi), 0);
	check_file(&m);
	change(&m, 100, true);
	close_model(&m);
	return fault.ncalls >= from;
}

static void each_call_of_a_commit(unsigned nvalues, bool blocks, unsigned nbefore)
{
	static const int errors[] = { EIO, ENOSPC };
	uint64_t from;
	unsigned what;
	bool more = true;

	for (from = 1; more; from++) {
		more = false;
		for (what = 0; what < NAFTER; what++) {
			more |= try_commit(from, 1, errors[what % 2], what, nvalues,
					   blocks, nbefore);
			try_commit(from, UINT64_MAX, errors[(what + 1) % 2], what,
				   nvalues, blocks, nbefore);
		}
	}
	assert_true(from > 3);
}

static void a_small_commit(void **state)
{
	(void)state;
	each_call_of_a_commit(10, false, 1);
}

static void a_commit_that_grows_the_pool(void **state)
{
	(void)state;
	each_call_of_a_commit(10, true, 1);
}

static void a_commit_that_grows_the_log(void **state)
{
	(void)state;
	each_call_of_a_commit(NVALUES, true, 1);
}

/* nbefore is such that the log is full. */
static void a_commit_with_a_checkpoint(void **state)
{
	(void)state;
	each_call_of_a_commit(NVALUES, false, 26);
}

static void closing(void **state)
{
	static struct model m;
	uint64_t from;

	(void)state;
	for (from = 1;; from++) {
		open_model(&m, from);
		change(&m, NVALUES, true);
		assert_int_equal(fmalloc_commit(m.fi), 0);
		change(&m, 100, true);
		let_fail(from, UINT64_MAX, EIO);
		if (fmalloc_close(m.fi) != 0) {
			/* It is still open. */
			assert_int_equal(errno, EIO);
			assert_true(is_model(&m, m.top));
			let_work();
			assert_int_equal(fmalloc_close(m.fi), 0);
		}
		let_work();
		if (fm_check(P) != 0)
			fail_msg("%s", fm_errmsg());
		check_file(&m);
		m.fi = fmalloc_open(P, 0, NULL);
		assert_non_null(m.fi);
		fmalloc_set_target(m.fi);
		m.top = fm_root_get(m.fi, "top", "");
		assert_true(is_model(&m, m.top));
		close_model(&m);
		if (fault.ncalls < from)
			break;
	}
	assert_true(from > 10);
}

/* --- during a commit ---------------------------------------------------------- */

#define BIG_LEN (UINT64_C(6) << 20)

static struct fm_info *big_pool;
static unsigned char *big;

/* Such that the file gets space again where the commit has a block. */
static void free_and_use_again(void)
{
	ffree(big);
	assert_int_equal(fm_trim(big_pool), 0);
	big = fmalloc(BIG_LEN);
	assert_non_null(big);
}

static void what_is_freed_during_a_commit_is_in_it(void **state)
{
	struct fm_info *fi = fmalloc_open(P, FM_CREATE | FM_ATOMIC, NULL), *ro;
	const unsigned char *was;

	(void)state;
	assert_non_null(fi);
	fmalloc_set_target(fi);
	big_pool = fi;
	/* Behind the heap the file may have anything now. */
	big = fmalloc(BIG_LEN);
	assert_non_null(big);
	assert_int_equal(fmalloc_rollback(fi), 0);
	big = fmalloc(BIG_LEN);
	assert_non_null(big);
	memset(big, 7, BIG_LEN);
	assert_int_equal(fm_root_set(fi, "big", big, ""), 0);
	meanwhile = free_and_use_again;
	assert_int_equal(fmalloc_commit(fi), 0);
	assert_null(meanwhile);
	ro = fmalloc_open(P, FM_RDONLY, NULL);
	assert_non_null(ro);
	was = fm_root_get(ro, "big", "");
	assert_non_null(was);
	assert_int_equal(was[0], 7);
	assert_memory_equal(was, was + 1, BIG_LEN - 1);
	assert_int_equal(fmalloc_close(ro), 0);
	assert_int_equal(fmalloc_close(fi), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		scratch_test(a_small_commit),
		scratch_test(a_commit_that_grows_the_pool),
		scratch_test(a_commit_that_grows_the_log),
		scratch_test(a_commit_with_a_checkpoint),
		scratch_test(closing),
		scratch_test(what_is_freed_during_a_commit_is_in_it),
	};

	return cmocka_run_group_tests_name("faults", tests, NULL, NULL);
}
