/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program of several threads that changes an atomic pool in brackets and commits,
 * killed at random moments, over and over, with one pool; and killed while it opens
 * what the kill before left.  After each kill the pool must be as some commit made it:
 * with all changes that were acknowledged, by whichever thread, none that no commit
 * can have had, and whole ones only.
 *
 * What a change does follows from its thread and its number, so what the pool must hold
 * follows from how many changes of each thread it says it has.
 *
 * KILLS=n for more kills, CRASH_SEED=n for others, COMMITS_POOL=path for a pool
 * elsewhere, such as at a mount.
 */
#include "scratch.h"

#include <fmalloc.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

#include "crash/contents.h"

#define NTHREADS 4u
#define NVALUES 2048u  /* of a thread */
#define NBLOCKS 48u    /* of a thread */
#define FRESH_EVERY 60 /* kills */

/* --- what there is in the pool ------------------------------------------------ */

struct part {            /* of a thread */
	uint64_t number; /* of its last change */
	uint64_t value[NVALUES];
	FM_PTR(unsigned char) block[NBLOCKS];
};

struct top {
	uint64_t nchanges; /* of all threads */
	struct part part[NTHREADS];
};

/* The same, as it must be. */
struct model {
	uint64_t number;
	uint64_t value[NVALUES];
	uint64_t block_len[NBLOCKS]; /* 0: none */
	uint64_t block_seed[NBLOCKS];
};

/* A change: some values, and one block. */
struct change {
	unsigned nvalues;
	unsigned at[32];
	uint64_t value[32];
	unsigned block;
	uint64_t block_len, block_seed;
};

static uint64_t a_length(uint64_t *seed)
{
	switch (rnd(seed) % 32) {
	case 0:
		return 1 + rnd(seed) % (rnd(seed) % 8 == 0 ? 1 << 20 : 60000);
	case 1:
		return 1 + rnd(seed) % 60000;
	case 3:
	case 4:
	case 5:
	case 6:
		return 0;
	default:
		return 1 + rnd(seed) % 600;
	}
}

static void plan(unsigned t, uint64_t number, struct change *c)
{
	uint64_t seed = number * NTHREADS + t;
	unsigned i;

	c->nvalues = 1 + rnd(&seed) % 32;
	for (i = 0; i < c->nvalues; i++) {
		c->at[i] = rnd(&seed) % NVALUES;
		c->value[i] = rnd(&seed);
	}
	c->block = rnd(&seed) % NBLOCKS;
	c->block_len = a_length(&seed);
	c->block_seed = number;
}

/* --- what is known of a program that is killed --------------------------------- */

/* Shared with the program; numbers of changes, by thread. */
struct known {
	uint64_t begun[NTHREADS], ended[NTHREADS];
	uint64_t acked[NTHREADS];   /* that a commit had, which returned */
	uint64_t limit[NTHREADS];   /* that commits that returned can have had */
	uint64_t nasked, nreturned; /* commits */
};

static struct {
	struct known *known;
	const char *pool;
	struct model model[NTHREADS];
	uint64_t seed;
	int nkills, nbetween; /* the second: no commit was under way */
	uint64_t nchanges, ncommits;
} run;

static uint64_t load(const uint64_t *where)
{
	return __atomic_load_n(where, __ATOMIC_SEQ_CST);
}

static void store(uint64_t *where, uint64_t value)
{
	__atomic_store_n(where, value, __ATOMIC_SEQ_CST);
}

static void raise_to(uint64_t *where, uint64_t value)
{
	uint64_t was = load(where);

	while (was < value &&
	       !__atomic_compare_exchange_n(where, &was, value, false, __ATOMIC_SEQ_CST,
					    __ATOMIC_SEQ_CST))
		;
}

/* --- the program that is killed ------------------------------------------------- */

static struct fm_info *fi;
static unsigned every[NTHREADS]; /* so many changes, then a commit; 0: none */

static struct top *top_of(struct fm_info *pool)
{
	return fm_root_get(pool, "top", "top");
}

static void make_change(struct top *top, unsigned t)
{
	struct part *part = &top->part[t];
	unsigned char *mem = NULL;
	struct change c;
	unsigned i;

	plan(t, part->number + 1, &c);
	part->number++;
	__atomic_fetch_add(&top->nchanges, 1, __ATOMIC_RELAXED);
	for (i = 0; i < c.nvalues; i++)
		part->value[c.at[i]] = c.value[i];
	ffree(fm_get(part->block[c.block]));
	if (c.block_len > 0) {
		mem = fmalloc_in(fi, c.block_len);
		child_check(mem != NULL);
		contents_fill(mem, c.block_len, c.block_seed);
	}
	fm_set(part->block[c.block], mem);
}

/* What had ended before a commit was asked for it has; what had not begun when it
 * returned it has not. */
static void commit(void)
{
	struct known *k = run.known;
	uint64_t had[NTHREADS];
	unsigned t;

	for (t = 0; t < NTHREADS; t++)
		had[t] = load(&k->ended[t]);
	__atomic_fetch_add(&k->nasked, 1, __ATOMIC_SEQ_CST);
	child_check(fmalloc_commit(fi) == 0);
	for (t = 0; t < NTHREADS; t++) {
		raise_to(&k->acked[t], had[t]);
		raise_to(&k->limit[t], load(&k->begun[t]));
	}
	__atomic_fetch_add(&k->nreturned, 1, __ATOMIC_SEQ_CST);
}

static void *work(void *arg)
{
	unsigned t = (uintptr_t)arg;
	struct top *top = top_of(fi);
	uint64_t n;

	child_check(top != NULL);
	for (n = top->part[t].number + 1;; n++) {
		store(&run.known->begun[t], n);
		child_check(fm_begin(fi) == 0);
		make_change(top, t);
		child_check(fm_end(fi) == 0);
		store(&run.known->ended[t], n);
		if (every[t] == 0)
			usleep(20); /* or it would do much more than the others */
		else if (n % every[t] == 0)
			commit();
	}
	return NULL;
}

/* All threads commit, or one of them; often, or not. */
static void choose_commits(uint64_t *seed)
{
	static const unsigned often[] = { 1, 3, 10, 40 };
	unsigned t, one = rnd(seed) % 2 ? rnd(seed) % NTHREADS : NTHREADS;

	for (t = 0; t < NTHREADS; t++)
		every[t] = one == NTHREADS || one == t ? often[rnd(seed) % 4] : 0;
}

static void program(void *arg)
{
	uint64_t seed = *(uint64_t *)arg;
	pthread_t thread;
	uintptr_t t;

	choose_commits(&seed);
	fi = fmalloc_open(run.pool, 0, NULL);
	child_check(fi != NULL);
	/* Each commit gives all memory up, then. */
	child_check(rnd(&seed) % 8 != 0 || fm_set_private_limit(fi, 0) == 0);
	for (t = 0; t < NTHREADS; t++)
		child_check(pthread_create(&thread, NULL, work, (void *)t) == 0);
	for (;;)
		pause();
}

/* One that only opens the pool, and closes it. */
static void visitor(void *arg)
{
	(void)arg;
	for (;;) {
		fi = fmalloc_open(run.pool, 0, NULL);
		child_check(fi != NULL);
		child_check(fmalloc_close(fi) == 0);
	}
}

/* --- judging -------------------------------------------------------------------- */

#define wrong(...) \
	do { \
		print_error("CRASH_SEED=%" PRIu64 ", after kill %d: ", run.seed, \
			    run.nkills); \
		fail_msg(__VA_ARGS__); \
	} while (0)

/* As many changes as the pool says. */
static void bring_up(struct model *m, unsigned t, uint64_t number)
{
	struct change c;
	unsigned i;

	while (m->number < number) {
		plan(t, ++m->number, &c);
		for (i = 0; i < c.nvalues; i++)
			m->value[c.at[i]] = c.value[i];
		m->block_len[c.block] = c.block_len;
		m->block_seed[c.block] = c.block_seed;
	}
}

static void judge_number(unsigned t, uint64_t number)
{
	const struct known *k = run.known;
	bool between = k->nasked == k->nreturned;
	uint64_t most = between ? k->limit[t] : k->begun[t];

	if (number < k->acked[t])
		wrong("change %" PRIu64 " of thread %u was acknowledged, %" PRIu64
		      " is there",
		      k->acked[t], t, number);
	if (number > most)
		wrong("change %" PRIu64 " of thread %u is there, but no commit can have"
		      " had more than %" PRIu64,
		      number, t, most);
}

/* Returns how many blocks there are. */
static uint64_t judge_part(const struct part *part, unsigned t)
{
	const struct model *m = &run.model[t];
	const unsigned char *mem;
	uint64_t len, nblocks = 0;
	unsigned i;

	if (memcmp(part->value, m->value, sizeof(m->value)) != 0)
		wrong("values of thread %u are not those of change %" PRIu64, t,
		      m->number);
	for (i = 0; i < NBLOCKS; i++) {
		mem = fm_get(part->block[i]);
		len = m->block_len[i];
		if ((mem == NULL) != (len == 0))
			wrong("block %u of thread %u: %s", i, t,
			      mem == NULL ? "it is not there" : "there is one");
		if (mem == NULL)
			continue;
		if (fmalloc_usable_size(mem) < len ||
		    !contents_right(mem, len, m->block_seed[i]))
			wrong("block %u of thread %u is not that of change %" PRIu64, i,
			      t, m->block_seed[i]);
		nblocks++;
	}
	return nblocks;
}

static void judge_pool(const struct top *top, uint64_t nlive)
{
	uint64_t nchanges = 0, nblocks = 1; /* that of the root */
	unsigned t;

	for (t = 0; t < NTHREADS; t++) {
		judge_number(t, top->part[t].number);
		run.nchanges += top->part[t].number - run.model[t].number;
		bring_up(&run.model[t], t, top->part[t].number);
		nblocks += judge_part(&top->part[t], t);
		nchanges += top->part[t].number;
	}
	if (top->nchanges != nchanges)
		wrong("changes are %" PRIu64 " by one count, %" PRIu64 " by another",
		      top->nchanges, nchanges);
	if (nlive != nblocks)
		wrong("there are %" PRIu64 " blocks, and %" PRIu64 " should be", nlive,
		      nblocks);
}

/* From here on the pool may have what it has now, and nothing else. */
static void settle(const struct top *top)
{
	struct known *k = run.known;
	unsigned t;

	for (t = 0; t < NTHREADS; t++)
		k->begun[t] = k->ended[t] = k->acked[t] = k->limit[t] =
			top->part[t].number;
	k->nasked = k->nreturned = 0;
}

/* The daemon of a mount is told a moment after the program's end that its lock goes. */
static int check_pool(void)
{
	int tries = 5000, rc = fm_check(run.pool);

	for (; rc != 0 && errno == EBUSY && tries > 0; tries--) {
		usleep(1000);
		rc = fm_check(run.pool);
	}
	return rc;
}

static void judge(void)
{
	struct fm_stats s = { .size = sizeof(s) };
	struct fm_info *pool;
	struct top *top;

	if (check_pool() != 0)
		wrong("%s", fm_errmsg());
	pool = fmalloc_open(run.pool, FM_RDONLY, NULL);
	if (pool == NULL)
		wrong("%s", fm_errmsg());
	top = top_of(pool);
	assert_non_null(top);
	assert_int_equal(fm_stat(pool, &s), 0);
	run.nbetween += run.known->nasked == run.known->nreturned;
	run.ncommits += run.known->nreturned;
	judge_pool(top, s.nlive);
	settle(top);
	assert_int_equal(fmalloc_close(pool), 0);
}

/* --- killing it ------------------------------------------------------------------ */

static void start_afresh(void)
{
	struct fm_info *pool;

	unlink(run.pool);
	memset(run.known, 0, sizeof(*run.known));
	memset(run.model, 0, sizeof(run.model));
	pool = fmalloc_open(run.pool, FM_CREATE | FM_EXCL | FM_ATOMIC, NULL);
	if (pool == NULL)
		fail_msg("%s", fm_errmsg());
	assert_non_null(fm_root_alloc(pool, "top", sizeof(struct top), "top"));
	assert_int_equal(fmalloc_close(pool), 0);
}

static void kill_after(pid_t pid, unsigned us)
{
	usleep(us);
	if (!child_kill(pid))
		wrong("the next program ended by itself");
	run.nkills++;
}

/* It is killed a moment after its n-th commit; one in eight while it opens the pool. */
static void kill_program(uint64_t *seed)
{
	uint64_t its_seed = rnd(seed), n = rnd(seed) % 12;
	int tries = rnd(seed) % 8 == 0 ? 0 : 100000;
	pid_t pid = child_start(program, &its_seed);

	while (tries-- > 0 && load(&run.known->nreturned) < n)
		usleep(20);
	kill_after(pid, rnd(seed) % 3000);
}

static void killed_at_any_moment_it_is_a_commit(void **state)
{
	const char *kills = getenv("KILLS"), *with = getenv("CRASH_SEED"),
		   *pool = getenv("COMMITS_POOL");
	int n = kills != NULL ? atoi(kills) : 40;
	uint64_t seed;

	(void)state;
	run.pool = pool != NULL ? pool : P;
	run.known = mmap(NULL, sizeof(*run.known), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(run.known, MAP_FAILED);
	seed = run.seed = with != NULL ? strtoull(with, NULL, 10) : 1;
	start_afresh();
	while (run.nkills < n) {
		kill_program(&seed);
		judge();
		/* That the pool is opened and closed changes nothing. */
		while (rnd(&seed) % 4 == 0) {
			kill_after(child_start(visitor, NULL), rnd(&seed) % 4000);
			judge();
		}
		if (rnd(&seed) % FRESH_EVERY == 0)
			start_afresh();
	}
	print_message("# %d kills, %d of them with no commit under way; %" PRIu64
		      " commits, %" PRIu64 " changes\n",
		      run.nkills, run.nbetween, run.ncommits, run.nchanges);
	assert_true(run.ncommits > (uint64_t)n && run.nchanges > (uint64_t)n);
	assert_true(run.nbetween > 0 && run.nbetween < run.nkills);
	unlink(run.pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		scratch_test(killed_at_any_moment_it_is_a_commit),
	};

	return cmocka_run_group_tests_name("commits", tests, NULL, NULL);
}
