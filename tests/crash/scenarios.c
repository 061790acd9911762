/* SPDX-License-Identifier: Apache-2.0 */
/* What the programs do that are stopped at each change. */
#include <config.h>

#include "scratch.h"

#include <pthread.h>
#include <semaphore.h>

#include "crash/scenarios.h"
#include "crash/trace.h"
#include "heap/layout.h"
#include "unit/checkpool.h"

#define KIB 1024ull
#define MIB (1ull << 20)

#define INTO_SLOT NPLAIN
#define OBJECT_SLOT (NPLAIN + NINTO)
#define NAME_SLOT (NPLAIN + NINTO + NOBJECTS)

/* --- slots by number ------------------------------------------------------------ */

static void aligned(int i, size_t size, size_t align)
{
	child_check(slot_alloc(journal, pool, i, size, align));
}

static void alloc(int i, size_t size)
{
	aligned(i, size, 16);
}

static void resize(int i, size_t size)
{
	child_check(slot_resize(journal, pool, i, size));
}

static void release(int i)
{
	child_check(slot_free(journal, pool, i));
}

static void alloc_some(int first, int n, size_t size)
{
	int i;

	for (i = first; i < first + n; i++)
		alloc(i, size);
}

static void release_some(int first, int n, int step)
{
	int i;

	for (i = first; i < first + n; i += step)
		release(i);
}

static void open_pool(void)
{
	child_check(bench_open());
}

/* --- another thread, which does what it is told and then waits ----------------------- */

struct helper {
	pthread_t thread;
	sem_t go, done;
	void (*fn)(void);	/* NULL: end */
};

static struct helper helper;

static void *help(void *arg)
{
	struct helper *h = arg;

	for (;;) {
		sem_wait(&h->go);
		if (h->fn == NULL)
			return NULL;
		h->fn();
		sem_post(&h->done);
	}
}

static void helper_start(struct helper *h)
{
	sem_init(&h->go, 0, 0);
	sem_init(&h->done, 0, 0);
	child_check(pthread_create(&h->thread, NULL, help, h) == 0);
}

static void helper_do(struct helper *h, void (*fn)(void))
{
	h->fn = fn;
	sem_post(&h->go);
	sem_wait(&h->done);
}

static void helper_end(struct helper *h)
{
	h->fn = NULL;
	sem_post(&h->go);
	child_check(pthread_join(h->thread, NULL) == 0);
}

/* --- small blocks ------------------------------------------------------------------ */

static void small_blocks(void)
{
	static const size_t size[] = { 1, 16, 40, 100, 1000, 5000, 16000 };
	int i, k;

	for (i = 0; i < 7; i++)
		for (k = 0; k < 3; k++)
			alloc(i * 3 + k, size[i]);
	release_some(0, 21, 2);
	for (i = 0; i < 7; i++)
		resize(i * 2 + 1, size[i] * 3);
	aligned(30, 100, 64);
	aligned(31, 3000, 1024);
	release_some(30, 2, 1);
}

/* Slabs that become full, and empty, and are given back. */
static void whole_slabs(void)
{
	alloc_some(0, 9, 16 * KIB);
	alloc_some(20, 18, 7000);
	release_some(0, 9, 2);
	release_some(1, 8, 2);
	release_some(20, 18, 1);
	alloc_some(0, 5, 13000);
	alloc_some(20, 4, 9000);
}

static void helper_allocs(void)
{
	alloc_some(0, 18, 8000);
	alloc_some(20, 40, 16);
}

static void helper_goes_on(void)
{
	alloc_some(100, 20, 8000);
	alloc_some(120, 5, 16);
}

static void helper_has_more(void)
{
	alloc_some(160, 6, 8000);
	alloc_some(170, 3, 16);
}

static void trim(void)
{
	child_check(fm_trim(pool) == 0);
}

static void with_helper(void)
{
	open_pool();
	helper_start(&helper);
	helper_do(&helper, helper_allocs);
}

/* Freed by others, taken over by the owner. */
static void remote_frees(void)
{
	release_some(0, 14, 1);
	release_some(20, 40, 3);
	helper_do(&helper, helper_goes_on);
	release_some(100, 20, 3);
	helper_do(&helper, trim);
	helper_do(&helper, helper_has_more);
}

/* The thread ends, and others have its slabs. */
static void thread_ends(void)
{
	release_some(0, 7, 1);
	release_some(21, 30, 3);
	helper_end(&helper);
	release_some(10, 3, 1);
	alloc_some(130, 12, 8000);
	alloc_some(150, 4, 16);
	release(20);
	trim();
}

/* What the thread has is taken from it, and it goes on. */
static void taken_from_the_idle(void)
{
	release_some(0, 12, 1);
	release_some(20, 38, 1);
	trim();
	alloc_some(100, 8, 8000);
	alloc_some(130, 6, 16);
	helper_do(&helper, helper_has_more);
	release_some(12, 5, 1);
	release_some(160, 6, 2);
	trim();
}

/* --- pages ---------------------------------------------------------------------------- */

static void runs(void)
{
	alloc(0, 20 * KIB);
	alloc(1, 100 * KIB);
	alloc(2, 20 * KIB);
	alloc(3, 60 * KIB);
	aligned(4, 40 * KIB, 64 * KIB);
	alloc(5, 20 * KIB);
	release(1);
	alloc(6, 30 * KIB);	/* split */
	release(3);
	release(2);		/* merged, on both sides */
	resize(6, 50 * KIB);	/* in place */
	resize(6, 20 * KIB);
	resize(0, 60 * KIB);	/* moved */
	resize(0, 1000);
	resize(0, 30 * KIB);
	release_some(4, 3, 1);
}

static void growth(void)
{
	alloc_some(0, 6, 200 * KIB);
	resize(5, 500 * KIB);
	alloc_some(6, 30, 16 * KIB);
}

static void another_zone(void)
{
	alloc(0, 63 * MIB);
	alloc(1, 20 * KIB);
	alloc(2, 63 * MIB);
	alloc(3, 300 * KIB);
	release(2);
	release(3);
	trim();
	release(1);
	alloc(1, 63 * MIB);
	release(1);
	release(0);
	bench_close();
}

static void shrinking(void)
{
	alloc_some(0, 6, 700 * KIB);
	alloc_some(10, 4, 2000);
	release_some(0, 6, 1);
	bench_close();
	open_pool();
	alloc_some(0, 3, 700 * KIB);
	bench_close();
}

static void holes(void)
{
	alloc_some(0, 7, 2 * MIB);
	alloc(10, 1000);
	release_some(1, 2, 1);
	release_some(4, 3, 1);
	trim();
	alloc(20, 1 * MIB);
	alloc(21, 3 * MIB);
	alloc(22, 5 * MIB);
	release_some(20, 3, 1);
	trim();
	bench_close();
	open_pool();
	alloc_some(1, 2, 2 * MIB);
	bench_close();
}

static void huge_blocks(void)
{
	alloc(0, 64 * MIB);
	alloc(1, 100);
	resize(0, 80 * MIB);
	resize(0, 70 * MIB);
	aligned(2, 64 * MIB, 1 * MIB);
	release(0);
	alloc(0, 100 * MIB);
	release(2);
	resize(0, 20 * MIB);
	trim();
	alloc(3, 200 * MIB);
	resize(3, 66 * MIB);	/* in place, in fewer zones */
	alloc(2, 64 * MIB);	/* in one of the others */
	resize(3, 65 * MIB);
	trim();
}

/* Killed at a certain moment it leaves bytes where the next zone will be. */
static void huge_comes_and_goes(void)
{
	alloc(1, 100);
	alloc(0, 64 * MIB);
	trace_pause(true);
	journal->slot[0].seed = 0;
	memset((char *)pool->mem + journal->slot[0].off, 0x55, 256 * KIB);
	trace_pause(false);
	release(0);
}


/* --- a block and its pointer -------------------------------------------------------------- */

static void into(void)
{
	int i = INTO_SLOT;

	alloc(i, 100);
	resize(i, 110);
	resize(i, 3000);
	resize(i, 20 * KIB);
	resize(i, 40 * KIB);
	resize(i, 30 * KIB);
	resize(i, 1000);
	alloc_some(i + 1, 4, 20 * KIB);
	alloc_some(i + 10, 10, 12000);
	release_some(i + 10, 10, 1);
	release_some(i, 3, 1);
	alloc(i, 16);
	release(i);
}

static void into_allocs(void)
{
	alloc_some(INTO_SLOT, 10, 12000);
	alloc_some(INTO_SLOT + 20, 10, 16);
}

static void with_helper_into(void)
{
	open_pool();
	helper_start(&helper);
	helper_do(&helper, into_allocs);
}

/* Blocks of other threads, and of threads that have ended. */
static void into_remote(void)
{
	int i = INTO_SLOT;

	release_some(i, 5, 1);
	resize(i + 5, 16000);
	release_some(i + 20, 4, 1);
	helper_do(&helper, trim);
	alloc_some(i, 2, 12000);
	helper_end(&helper);
	release_some(i + 6, 3, 1);
	resize(i + 9, 16000);
	resize(i + 24, 100);
	release(i + 25);
}

static void into_huge(void)
{
	alloc(INTO_SLOT, 64 * MIB);
	resize(INTO_SLOT, 65 * MIB);
	resize(INTO_SLOT, 100);
	resize(INTO_SLOT, 64 * MIB);
	release(INTO_SLOT);
}

#define NLANES 256

static struct helper crowd[NLANES];

static void have_a_lane(void)
{
	ffree(fmalloc(1000));
}

/* So many threads that the last has no lane of its own. */
static void with_crowd(void)
{
	int i;

	open_pool();
	for (i = 0; i < NLANES; i++) {
		helper_start(&crowd[i]);
		helper_do(&crowd[i], have_a_lane);
	}
	helper_do(&crowd[0], into_allocs);
}

static void into_shared_now(void)
{
	int i = INTO_SLOT;

	alloc(i + 40, 100);
	resize(i + 40, 5000);
	resize(i + 40, 40 * KIB);
	release(i + 40);
	release(i);
	resize(i + 1, 16000);
}

static void into_shared(void)
{
	helper_do(&crowd[NLANES - 1], into_shared_now);
}

/* --- named roots ------------------------------------------------------------------------------ */

static void first_roots(void)
{
	pool = fmalloc_init(pool_path, NULL);
	child_check(pool != NULL);
	alloc(0, 10);
	alloc(NAME_SLOT, 10);
	child_check(journal_anchor(journal, pool));
	alloc(OBJECT_SLOT, 100);
	alloc(OBJECT_SLOT + 1, 20 * KIB);
	resize(NAME_SLOT, 20);
	release(NAME_SLOT);
	release(OBJECT_SLOT);
	alloc(OBJECT_SLOT, 200);
}

static void more_roots(void)
{
	alloc_some(NAME_SLOT, NNAMES, 30);
	alloc_some(OBJECT_SLOT, 5, 50);
	resize(NAME_SLOT + 15, 40);
	release(NAME_SLOT + 16);
	release(OBJECT_SLOT + 4);
}

/* --- pools that come to be -------------------------------------------------------------------------- */

static void create(void)
{
	pool = fmalloc_init(pool_path, NULL);
	child_check(pool != NULL);
	alloc(0, 100);
	bench_close();
}

static void a_killed_pool(void)
{
	open_pool();
	alloc_some(0, 20, 3000);
	alloc(30, 100 * KIB);
	alloc(INTO_SLOT, 100);
	release_some(0, 20, 2);
}

static void reopen(void)
{
	open_pool();
	bench_close();
}

/* The pool of version 0.1 (see test-legacy), whose blocks are ours now. */
static void unpack_old(void)
{
	struct { uint64_t off, len, fill; } *table;
	char cmd[512];
	int i;

	snprintf(cmd, sizeof(cmd), "gzip -dc '%s/tests/data/pool-0.1-killed.gz' >%s",
		 getenv("SRCDIR"), pool_path);
	child_check(system(cmd) == 0);
	pool = fmalloc_open(pool_path, FM_RDONLY, NULL);
	child_check(pool != NULL);
	table = fm_root_get(pool, "table", NULL);
	child_check(table != NULL);
	for (i = 0; i < 200; i++)
		journal->slot[i] = (struct slot){
			.state = OWN, .off = table[i].off, .size = table[i].len,
		};
	journal->slot[200] = (struct slot){
		.state = OWN, .off = (char *)table - (char *)pool->mem,
	};
	child_check(fmalloc_close(pool) == 0);
}

static void upgrade(void)
{
	open_pool();
	alloc_some(300, 4, 16);
	alloc_some(310, 4, 700);
	alloc(INTO_SLOT, 16);
	release_some(0, 40, 1);
	bench_close();
}

/* --- two threads --------------------------------------------------------------------- */

/* The other takes what it can get, of what the first is giving back. */
static void take_all(void)
{
	trim();
	alloc_some(200, 10, 12000);
	alloc_some(215, 10, 16);
	alloc_some(INTO_SLOT + 50, 3, 12000);
	alloc(230, 20 * KIB);
	alloc(231, 100 * KIB);
	release_some(200, 10, 2);
	release_some(215, 10, 2);
	release(INTO_SLOT + 50);
}

static void into_frees_of_the_others(void)
{
	int i = INTO_SLOT;

	release_some(i, 5, 1);
	resize(i + 5, 16000);
	release_some(i + 20, 4, 1);
	resize(i + 25, 100);
}

static void frees_of_the_others(void)
{
	release_some(0, 9, 1);
	release_some(20, 8, 1);
}

/* Slabs that no thread has. */
static void with_loose_slabs(void)
{
	with_helper_into();
	helper_end(&helper);
}

static void into_of_all_kinds(void)
{
	int i = INTO_SLOT;

	alloc_some(i, 6, 12000);
	alloc(i + 6, 16);
	alloc(i + 7, 20 * KIB);
	resize(i + 7, 40 * KIB);
	resize(i + 6, 200);
	release_some(i, 8, 1);
}

static void pages_and_holes(void)
{
	alloc(0, 3 * MIB);
	alloc(1, 20 * KIB);
	alloc(2, 5 * MIB);
	resize(1, 60 * KIB);
	release(0);
	release(2);
	trim();
	alloc(0, 2 * MIB);
	release(1);
}

static void take_pages(void)
{
	alloc(200, 100 * KIB);
	alloc(201, 64 * MIB);
	alloc(202, 2 * MIB);
	release(201);
	trim();
	alloc(203, 50 * KIB);
}

/* The other takes what the thread has, which is not idle. */
static void taken_while_it_allocates(void)
{
	alloc_some(250, 4, 8000);
	release_some(0, 4, 1);
	alloc_some(260, 3, 16);
	release_some(250, 4, 2);
	into_allocs();
}

static void take_from_the_other(void)
{
	trim();
	alloc_some(200, 3, 8000);
	alloc_some(215, 3, 16);
	trim();
}

static void end_of_the_helper(void)
{
	release_some(0, 3, 1);
	helper_end(&helper);
}

static void free_and_take(void)
{
	release_some(3, 10, 1);
	release_some(25, 20, 1);
	take_all();
}

static void roots_and_objects(void)
{
	alloc_some(OBJECT_SLOT, 3, 100);
	alloc(NAME_SLOT, 10);
	resize(NAME_SLOT, 20);
	release(OBJECT_SLOT);
	release(NAME_SLOT);
}

static void other_roots(void)
{
	alloc(INTO_SLOT, 100);
	alloc(200, 100);
	alloc(OBJECT_SLOT + 10, 100);
	alloc(NAME_SLOT + 5, 10);
	release(OBJECT_SLOT + 10);
	release(INTO_SLOT);
}

/* The owner of the slabs ends, and the other has them. */
static void owner_ends(void)
{
	helper_do(&helper, bench_other);
	helper.fn = NULL;
	sem_post(&helper.go);
	/* Not by waiting for it, which would be the first thread's turn. */
	while (pthread_tryjoin_np(helper.thread, NULL) != 0)
		usleep(100);
	take_all();
}

/* Neither of two has a lane. */
static void shared_too(void)
{
	alloc(INTO_SLOT + 50, 100);
	resize(INTO_SLOT + 50, 1000);
	alloc(200, 12000);
	release(INTO_SLOT + 50);
	release(INTO_SLOT + 5);
}

static void into_shared_briefly_now(void)
{
	alloc(INTO_SLOT + 40, 100);
	resize(INTO_SLOT + 40, 1000);
	release(INTO_SLOT + 40);
	release(INTO_SLOT);
}

static void into_shared_briefly(void)
{
	helper_do(&crowd[NLANES - 1], into_shared_briefly_now);
}

/* The blocks of a slab of class 0 that has no second bitmap: the first is the one of
 * a pointer, the slots of the others are these. */
static int of_old_slab[NPLAIN], nof_old_slab;

static void with_old_slab(void)
{
	uint64_t slab = 0;
	int i;

	open_pool();
	for (i = 0; i < 200; i++) {
		struct slot *s = &journal->slot[i];

		if (s->size > 16 || (slab != 0 && s->off / FM_SLAB_LEN != slab))
			continue;
		if (slab != 0) {
			of_old_slab[nof_old_slab++] = i;
			continue;
		}
		slab = s->off / FM_SLAB_LEN;
		*(uint64_t *)((char *)pool->mem + journal->anchor_off) = s->off;
		journal->slot[INTO_SLOT] = *s;
		s->state = EMPTY;
	}
	child_check(nof_old_slab > 0);
	/* So that the slab's pages are the first to be had. */
	for (i = 210; i < 290; i++)
		alloc(i, 60 * KIB);
}

static void into_frees_of_old_slabs(void)
{
	release(INTO_SLOT);
}

/* The slab goes with its last block, and its pages are had again: by slabs that have
 * a block where the one of the pointer was. */
static void rest_of_old_slab(void)
{
	static const size_t size[] = { 512, 256, 128, 64 };
	int i;

	for (i = 0; i < nof_old_slab; i++)
		release(of_old_slab[i]);
	for (i = 0; i < 4; i++)
		alloc_some(300 + 20 * i, 12, size[i]);
}

#define N(fn, ...) { .name = #fn, .run = fn, __VA_ARGS__ }

const struct scenario scenarios[] = {
	N(small_blocks, .setup = open_pool),
	N(whole_slabs, .setup = open_pool),
	N(remote_frees, .setup = with_helper),
	N(thread_ends, .setup = with_helper),
	N(taken_from_the_idle, .setup = with_helper),
	N(runs, .setup = open_pool),
	N(growth, .setup = open_pool),
	N(another_zone, .setup = open_pool),
	N(shrinking, .setup = open_pool),
	N(holes, .setup = open_pool),
	N(huge_blocks, .setup = open_pool),
	N(huge_comes_and_goes, .setup = open_pool, .flags = JUDGE_ZONE),
	N(into, .setup = open_pool),
	N(into_remote, .setup = with_helper_into),
	N(into_huge, .setup = open_pool),
	N(into_shared, .setup = with_crowd),
	N(first_roots, .flags = JUDGE_CREATE),
	N(more_roots, .setup = open_pool),
	N(create, .flags = JUDGE_CREATE),
	N(reopen, .before = a_killed_pool),
	N(upgrade, .before = unpack_old),
	{ .name = NULL },
};

const struct scenario pairs[] = {
	N(into_frees_of_the_others, .setup = open_pool, .prepare = into_allocs,
	  .between = take_all),
	N(frees_of_the_others, .setup = open_pool, .prepare = helper_allocs,
	  .between = take_all),
	{ .name = "into_frees_of_loose_slabs", .setup = with_loose_slabs,
	  .run = into_frees_of_the_others, .between = take_all },
	N(into_of_all_kinds, .setup = open_pool, .between = take_all),
	N(pages_and_holes, .setup = open_pool, .between = take_pages),
	{ .name = "into_frees_while_the_owner_ends", .setup = with_helper_into,
	  .run = into_frees_of_the_others, .between = owner_ends },
	N(end_of_the_helper, .setup = with_helper, .between = free_and_take),
	{ .name = "slabs_are_taken_from_the_idle", .setup = with_helper,
	  .run = taken_from_the_idle, .between = take_pages },
	N(taken_while_it_allocates, .setup = with_helper,
	  .between = take_from_the_other),
	N(roots_and_objects, .setup = open_pool, .between = other_roots),
	N(into_shared_briefly, .setup = with_crowd, .between = shared_too),
	N(into_frees_of_old_slabs, .before = unpack_old, .setup = with_old_slab,
	  .between = rest_of_old_slab),
	{ .name = NULL },
};

static const struct scenario *find(const struct scenario *s, const char *name)
{
	while (s->name != NULL && strcmp(s->name, name) != 0)
		s++;
	return s->name != NULL ? s : NULL;
}

const struct scenario *scenario_find(const char *name)
{
	const struct scenario *s = find(scenarios, name);

	return s != NULL ? s : find(pairs, name);
}
