/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process killed while it allocates, frees, resizes and sets roots.  It writes
 * into a table, in memory that outlives it, what it has; after each kill the
 * pool is sound (checkpool), opens, and has every block of the table.
 * KILL_RUNS=n for more kills.
 */
#include <config.h>

#include "scratch.h"

#include <signal.h>
#include <sys/mman.h>

#include <fmalloc.h>

#include "heap/inspect.h"
#include "unit/checkpool.h"

#define NSLOTS 400
#define NROOTS 30

/* What the child has: `off` is stored after the block is filled, and cleared
 * before it is freed or resized. */
struct record {
	struct {
		uint64_t off, len;
		unsigned char fill;
	} slot[NSLOTS];
	uint64_t root[NROOTS];	/* the last value that fm_root_set() confirmed */
	uint64_t root_next[NROOTS];
	uint64_t nops;
};

static struct record *rec;
static int round_number;

static size_t a_size(uint64_t *seed)
{
	switch (rnd(seed) % 40) {
	case 0:
		return 1 + rnd(seed) % (1 << 20);
	case 1:
	case 2:
		return 1 + rnd(seed) % 60000;
	default:
		return 1 + rnd(seed) % 2000;
	}
}

static void store(uint64_t *where, uint64_t value)
{
	__atomic_store_n(where, value, __ATOMIC_SEQ_CST);
}

static void fill(struct fm_info *fi, int i, uint64_t off, size_t len, unsigned char with)
{
	memset((char *)fi->mem + off, with, len);
	rec->slot[i].len = len;
	rec->slot[i].fill = with;
	store(&rec->slot[i].off, off);
}

static void change(struct fm_info *fi, uint64_t *seed)
{
	int i = rnd(seed) % NSLOTS;
	uint64_t off = rec->slot[i].off;
	size_t len = a_size(seed);
	char *p;

	if (off == 0) {
		p = rnd(seed) % 200 == 0 ? fmalloc_in(fi, 64 << 20) : fmalloc_in(fi, len);
		child_check(p != NULL);
		fill(fi, i, p - (char *)fi->mem, len, rnd(seed));
		return;
	}
	store(&rec->slot[i].off, 0);
	p = (char *)fi->mem + off;
	if (rnd(seed) % 4 == 0) {
		p = frealloc(p, len);
		child_check(p != NULL);
		fill(fi, i, p - (char *)fi->mem, len, rnd(seed));
	} else {
		ffree(p);
	}
}

static void change_root(struct fm_info *fi, uint64_t *seed)
{
	int i = rnd(seed) % NROOTS;
	uint64_t off = 655360 + rnd(seed) % 1000;
	char name[16];

	snprintf(name, sizeof(name), "root%d", i);
	store(&rec->root_next[i], off);
	child_check(fm_root_set(fi, name, (char *)fi->mem + off, "t") == 0);
	store(&rec->root[i], off);
}

static void work(void *arg)
{
	uint64_t seed = round_number;
	struct fm_info *fi;

	(void)arg;
	fi = fmalloc_open(P, FM_CREATE, NULL);
	child_check(fi != NULL);
	for (;; rec->nops++) {
		change(fi, &seed);
		if (rnd(&seed) % 8 == 0)
			change_root(fi, &seed);
		child_check(fm_bad_free_count() == 0);
	}
}

/* The two checkers see the same pool. */
static void compare_checks(const struct checked_pool *pool)
{
	int fd = open(P, O_RDONLY | O_CLOEXEC);
	struct fm_stats stats;
	uint64_t len = 0;
	size_t i;

	if (fm_check(P) != 0)
		fail_msg("after %d kills: %s", round_number, fm_errmsg());
	assert_int_equal(stat_file(fd, &stats), 0);
	close(fd);
	for (i = 0; i < pool->nblocks; i++)
		len += pool->blocks[i].len;
	assert_int_equal(stats.nlive, pool->nblocks);
	assert_int_equal(stats.live_len, len);
	assert_int_equal(stats.meta_len, pool->meta_len);
}

static void check_blocks(void)
{
	struct checked_pool pool;
	const struct checked_block *b;
	size_t n = 0, i;

	if (checkpool_file(P, &pool) < 0)
		fail_msg("after %d kills: %s", round_number, pool.why);
	compare_checks(&pool);
	for (i = 0; i < NSLOTS; i++) {
		if (rec->slot[i].off == 0)
			continue;
		b = checkpool_find(&pool, rec->slot[i].off);
		if (b == NULL || b->len < rec->slot[i].len)
			fail_msg("after %d kills: block %#lx is lost", round_number,
				 (unsigned long)rec->slot[i].off);
		n++;
	}
	/* No more than what the kills caught in the hand: the block allocated
	 * and not yet entered, the old and the new of a move, a half-freed one. */
	assert_true(pool.nblocks <= n + 2 * (round_number + 1));
	for (i = 1; i < pool.nblocks; i++)
		assert_true(pool.blocks[i].off >=
			    pool.blocks[i - 1].off + pool.blocks[i - 1].len);
	checkpool_free(&pool);
}

static void check_contents(void)
{
	struct fm_info *fi = fmalloc_open(P, 0, NULL);
	char name[16];
	uint64_t off;
	unsigned char *p;
	size_t i, k;

	if (fi == NULL)
		fail_msg("after %d kills: %s", round_number, fm_errmsg());
	for (i = 0; i < NSLOTS; i++) {
		if (rec->slot[i].off == 0)
			continue;
		p = (unsigned char *)fi->mem + rec->slot[i].off;
		for (k = 0; k < rec->slot[i].len; k++)
			assert_int_equal(p[k], rec->slot[i].fill);
	}
	for (i = 0; i < NROOTS; i++) {
		snprintf(name, sizeof(name), "root%zu", i);
		p = fm_root_get(fi, name, "t");
		off = p == NULL ? 0 : (uint64_t)(p - (unsigned char *)fi->mem);
		assert_true(off == rec->root[i] || off == rec->root_next[i]);
		rec->root[i] = rec->root_next[i] = off;
	}
	assert_int_equal(fmalloc_close(fi), 0);
}

/* One run of the child, ended at a random moment. */
static void run_once(uint64_t *seed)
{
	pid_t pid = child_start(work, NULL);
	int status;

	usleep(rnd(seed) % 12000);
	kill(pid, SIGKILL);
	status = child_wait(pid);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		fail_msg("the child ended by itself: %#x", status);
}

static void killed_at_any_moment_nothing_is_lost(void **state)
{
	const char *runs = getenv("KILL_RUNS");
	int n = runs != NULL ? atoi(runs) : 100;
	uint64_t seed = 7;

	(void)state;
	rec = mmap(NULL, sizeof(*rec), PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(rec, MAP_FAILED);
	assert_int_equal(fmalloc_close(fmalloc_open(P, FM_CREATE, NULL)), 0);
	for (round_number = 1; round_number <= n; round_number++) {
		run_once(&seed);
		check_blocks();
		check_contents();
	}
	assert_true(rec->nops > (uint64_t)n);
	munmap(rec, sizeof(*rec));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		scratch_test(killed_at_any_moment_nothing_is_lost),
	};

	return cmocka_run_group_tests_name("kill", tests, NULL, NULL);
}
