/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program of several threads, killed at random moments, over and over, with one
 * pool; and killed while it opens what the kill before left.  The judge looks at
 * the pool after each kill: see journal.h.  KILLS=n for more kills, CRASH_SEED=n for
 * others; a seed gives the same program, but the moment of a kill is the machine's.
 */
#include <config.h>

#include "scratch.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>

#include "crash/journal.h"

#define NTHREADS 5
#define FRESH_EVERY 40	/* kills */
#define NLANES 255

static struct {
	struct journal *j;
	char (*why)[300];	/* of a judge, who is a child */
	uint64_t seed;
	int nkills;
} run;

static struct fm_info *fi;	/* of the child */
static bool in_use[NSLOTS];	/* by a thread of the child; atomic */
static sem_t idle_ready;

/* --- the program that is killed ------------------------------------------------- */

static size_t a_size(uint64_t *seed)
{
	switch (rnd(seed) % 64) {
	case 0:
		return 1 + rnd(seed) % (1 << 20);
	case 1:
		if (rnd(seed) % 16 != 0)
			return 300000;
		return (64 << 20) + rnd(seed) % (40 << 20);
	case 2:
	case 3:
	case 4:
		return 1 + rnd(seed) % 60000;
	case 5:
	case 6:
	case 7:
	case 8:
	case 9:
		return 1 + rnd(seed) % 16384;
	default:
		return 1 + rnd(seed) % 1200;
	}
}

static size_t an_alignment(uint64_t *seed)
{
	return rnd(seed) % 8 == 0 ? (size_t)16 << rnd(seed) % 10 : 16;
}

static void change(int i, uint64_t *seed)
{
	size_t size = a_size(seed), align = an_alignment(seed);

	if (run.j->slot[i].state == EMPTY)
		child_check(slot_alloc(run.j, fi, i, size, align));
	else if (rnd(seed) % 3 == 0 && journal_kind(i) != OBJECT)
		child_check(slot_resize(run.j, fi, i, size));
	else
		child_check(slot_free(run.j, fi, i));
}

static void *work(void *arg)
{
	uint64_t seed = (uintptr_t)arg, n = 20 + rnd(&seed) % 3000;
	int i;

	while (n-- > 0) {
		i = rnd(&seed) % NSLOTS;
		if (__atomic_exchange_n(&in_use[i], true, __ATOMIC_ACQUIRE))
			continue;
		change(i, &seed);
		__atomic_store_n(&in_use[i], false, __ATOMIC_RELEASE);
		if (rnd(&seed) % 1500 == 0)
			child_check(fm_trim(fi) == 0);
		child_check(fm_bad_free_count() == 0);
	}
	return NULL;
}

/* A thread that has a lane and does nothing with it: no block that could leak. */
static void *idle(void *arg)
{
	child_check(fmalloc_into((char *)fi->mem + run.j->anchor_off,
				 UINT64_C(1) << 50) == -1);
	sem_post(&idle_ready);
	pause();
	return arg;
}

/* So many threads that those that come after have no lanes, nor intents, of their
 * own. */
static void make_crowd(void)
{
	pthread_attr_t attr;
	pthread_t thread;
	int i;

	sem_init(&idle_ready, 0, 0);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 1 << 17);
	for (i = 0; i < NLANES; i++)
		child_check(pthread_create(&thread, &attr, idle, NULL) == 0);
	for (i = 0; i < NLANES; i++)
		sem_wait(&idle_ready);
}

static void program(void *arg)
{
	uint64_t seed = *(uint64_t *)arg;
	pthread_t thread[NTHREADS];
	int i;

	fi = fmalloc_init(P, NULL);
	child_check(fi != NULL);
	child_check(run.j->anchor_off != 0 || journal_anchor(run.j, fi));
	if (rnd(&seed) % 16 == 0)
		make_crowd();
	for (i = 0; i < NTHREADS; i++)
		child_check(pthread_create(&thread[i], NULL, work,
					   (void *)(uintptr_t)rnd(&seed)) == 0);
	run.j->ready = 1;
	/* As one ends another begins. */
	for (i = 0;; i = (i + 1) % NTHREADS) {
		child_check(pthread_join(thread[i], NULL) == 0);
		child_check(pthread_create(&thread[i], NULL, work,
					   (void *)(uintptr_t)rnd(&seed)) == 0);
	}
}

/* One that only opens the pool, and closes it. */
static void visitor(void *arg)
{
	(void)arg;
	for (;;) {
		fi = fmalloc_open(P, FM_CREATE, NULL);
		child_check(fi != NULL);
		child_check(fmalloc_close(fi) == 0);
	}
}

/* --- killing it --------------------------------------------------------------------- */

static void kill_after(pid_t pid, unsigned us)
{
	usleep(us);
	if (!child_kill(pid))
		fail_msg("CRASH_SEED=%lu, kill %d: the program ended by itself",
			 (unsigned long)run.seed, run.nkills);
	run.nkills++;
}

static void kill_program(uint64_t *seed)
{
	uint64_t its_seed = rnd(seed);
	/* One in eight is killed while it opens the pool. */
	int tries = rnd(seed) % 8 == 0 ? 0 : 100000;
	pid_t pid;

	run.j->ready = 0;
	pid = child_start(program, &its_seed);
	while (tries-- > 0 && __atomic_load_n(&run.j->ready, __ATOMIC_RELAXED) == 0)
		usleep(20);
	kill_after(pid, rnd(seed) % (rnd(seed) % 2 ? 3000 : 25000));
}

static void the_judge(void *arg)
{
	if (judge(P, run.j, *(unsigned *)arg, *run.why) != 0)
		_exit(1);
}

static void judge_it(uint64_t *seed)
{
	unsigned flags = JUDGE_CREATE;
	int status;

	if (rnd(seed) % 3 == 0)
		flags |= JUDGE_CLOSE;
	if (rnd(seed) % 4 == 0)
		flags |= JUDGE_HAND_OUT;
	strcpy(*run.why, "the judge was ended by a signal");
	status = child_wait(child_start(the_judge, &flags));
	if (status != 0)
		fail_msg("CRASH_SEED=%lu, after kill %d: %s", (unsigned long)run.seed,
			 run.nkills, *run.why);
}

static void start_afresh(void)
{
	unlink(P);
	memset(run.j, 0, sizeof(*run.j));
}

static void killed_at_any_moment_it_is_whole(void **state)
{
	const char *kills = getenv("KILLS"), *with = getenv("CRASH_SEED");
	int n = kills != NULL ? atoi(kills) : 60;
	uint64_t seed, ncalls = 0;

	(void)state;
	run.j = journal_new();
	run.why = mmap(NULL, sizeof(*run.why), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_non_null(run.j);
	assert_ptr_not_equal(run.why, MAP_FAILED);
	seed = run.seed = with != NULL ? strtoull(with, NULL, 10) : 1;
	while (run.nkills < n) {
		kill_program(&seed);
		while (rnd(&seed) % 4 == 0)
			kill_after(child_start(visitor, NULL), rnd(&seed) % 4000);
		judge_it(&seed);
		ncalls += run.j->ncalls;
		run.j->ncalls = 0;
		if (rnd(&seed) % FRESH_EVERY == 0)
			start_afresh();
	}
	print_message("# %d kills, %lu calls\n", run.nkills, (unsigned long)ncalls);
	assert_true(ncalls > (uint64_t)n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		scratch_test(killed_at_any_moment_it_is_whole),
	};

	return cmocka_run_group_tests_name("kills", tests, NULL, NULL);
}
