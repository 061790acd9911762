/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks that are changed together with the pointer to them, and what the next
 * opener makes of such a change that a kill stopped in the middle.
 */
#include <config.h>

#include <pthread.h>

#include "heap/heap.h"
#include "unit/poke.h"

#define MIB (1ull << 20)

/* Of a slab, a run, and a huge block. */
static const size_t size_of_kind[] = { 100, 50000, 100 * MIB };
#define NKINDS 3

struct anchor {
	FM_PTR(char) p[8];
};

static struct fm_info *fi;

static struct anchor *open_anchor(void)
{
	fi = fmalloc_init(P, NULL);
	assert_non_null(fi);
	return fm_root_alloc(fi, "anchor", sizeof(struct anchor), "anchor");
}

static void close_pool(void)
{
	assert_int_equal(fmalloc_close(fi), 0);
}

/* Bytes in allocated blocks. */
static uint64_t live(void)
{
	struct fm_heap *h = registry_check(fi);
	uint64_t len = 0, off, one;

	for (off = FM_ZONE_DATA_OFF; off < heap_end(h); off += one == 0 ? 16 : one) {
		one = alloc_usable(h, off);
		len += one;
	}
	return len;
}

/* --- the calls ------------------------------------------------------------------ */

static void allocates_links_unlinks_and_frees(void **state)
{
	struct anchor *a = open_anchor();
	uint64_t before = live();
	char *old;
	int i;

	(void)state;
	assert_non_null(a);
	for (i = 0; i < NKINDS; i++) {
		assert_int_equal(fmalloc_into(&a->p[i], size_of_kind[i]), 0);
		assert_non_null(fm_get(a->p[i]));
		assert_true(fmalloc_usable_size(fm_get(a->p[i])) >= size_of_kind[i]);
		memset(fm_get(a->p[i]), i, 100);
	}
	/* What it referred to before is the program's to know. */
	old = fm_get(a->p[0]);
	assert_int_equal(fmalloc_into(&a->p[0], 100), 0);
	assert_ptr_not_equal(fm_get(a->p[0]), old);
	ffree(old);
	for (i = 0; i < NKINDS; i++) {
		old = fm_get(a->p[i]);
		assert_int_equal(ffree_from(&a->p[i]), 0);
		assert_null(fm_get(a->p[i]));
		assert_int_equal(fmalloc_usable_size(old), 0);
		assert_int_equal(ffree_from(&a->p[i]), 0);
	}
	assert_int_equal(live(), before);
	assert_int_equal(fm_bad_free_count(), 0);
	close_pool();
}

static void resizes(void **state)
{
	static const size_t size[] = { 10, 90, 100, 5000, 40000, 60000, 2000000,
				       70 * MIB, 72 * MIB, 300000, 20, 0, 1 };
	struct anchor *a = open_anchor();
	uint64_t before = live();
	size_t had = 0, k;
	unsigned i;
	char *p;

	(void)state;
	for (i = 0; i < sizeof(size) / sizeof(size[0]); i++) {
		assert_int_equal(frealloc_into(&a->p[0], size[i]), 0);
		p = fm_get(a->p[0]);
		assert_non_null(p);
		assert_true(fmalloc_usable_size(p) >= size[i]);
		for (k = 0; k < (had < size[i] ? had : size[i]); k += 7)
			assert_int_equal(p[k], (char)(k * 31));
		for (k = 0; k < size[i] && k < 100000; k++)
			p[k] = k * 31;
		had = k;
	}
	assert_int_equal(ffree_from(&a->p[0]), 0);
	assert_int_equal(live(), before);
	close_pool();
}

static void the_application_region_has_pointers_too(void **state)
{
	FM_PTR(char) *where;

	(void)state;
	fi = fmalloc_init(P, NULL);
	assert_non_null(fi);
	where = (void *)((char *)fi->mem + 8184);
	assert_int_equal(fmalloc_into(where, 64), 0);
	strcpy(fm_get(*where), "found");
	close_pool();
	fi = fmalloc_init(P, NULL);
	where = (void *)((char *)fi->mem + 8184);
	assert_string_equal(fm_get(*where), "found");
	assert_int_equal(ffree_from(where), 0);
	assert_int_equal(live(), 0);
	close_pool();
}

static void assert_refused(void *where, int err)
{
	errno = 0;
	assert_int_equal(fmalloc_into(where, 10), -1);
	assert_int_equal(errno, err);
	errno = 0;
	assert_int_equal(ffree_from(where), -1);
	assert_int_equal(errno, err);
	errno = 0;
	assert_int_equal(frealloc_into(where, 10), -1);
	assert_int_equal(errno, err);
}

static void bad_pointers_are_refused(void **state)
{
	struct anchor *a = open_anchor();
	uint64_t on_the_stack = 0, before = live();

	(void)state;
	assert_refused(NULL, EINVAL);
	assert_refused(&on_the_stack, EINVAL);
	assert_refused((char *)&a->p[0] + 4, EINVAL);
	assert_refused((char *)fi->mem + 512, EINVAL);
	assert_refused((char *)fi->mem + FM_HEAP_OFF, EINVAL);
	assert_refused((char *)fi->mem + FM_ZONE_TABLE_OFF, EINVAL);
	assert_refused((char *)fi->mem + heap_end(registry_check(fi)), EINVAL);
	/* What it refers to is no block, or one that is too far off. */
	a->p[0].fm_off = FM_ZONE_DATA_OFF + 16 * 50;
	assert_int_equal(ffree_from(&a->p[0]), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(frealloc_into(&a->p[0], 10), -1);
	assert_int_equal(a->p[0].fm_off, FM_ZONE_DATA_OFF + 16 * 50);
	a->p[0].fm_off = UINT64_MAX - 15;
	assert_int_equal(ffree_from(&a->p[0]), -1);
	assert_int_equal(errno, EINVAL);
	/* Nothing was linked by what failed. */
	a->p[0].fm_off = 0;
	assert_int_equal(fmalloc_into(&a->p[0], UINT64_C(1) << 50), -1);
	assert_int_equal(errno, ENOMEM);
	assert_int_equal(a->p[0].fm_off, 0);
	assert_int_equal(live(), before);
	close_pool();

	fi = fmalloc_open(P, FM_RDONLY, NULL);
	assert_non_null(fi);
	assert_refused((char *)fi->mem + FM_APP_OFF, EROFS);
	close_pool();
}

static void *fill_in_thread(void *arg)
{
	struct anchor *a = arg;
	int i;

	for (i = 0; i < 8; i++)
		if (fmalloc_into(&a->p[i], 50 + i) != 0)
			return arg;
	return NULL;
}

static void blocks_of_another_thread(void **state)
{
	struct anchor *a = open_anchor();
	uint64_t before = live();
	pthread_t thread;
	void *bad;
	int i;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, fill_in_thread, a), 0);
	assert_int_equal(pthread_join(thread, &bad), 0);
	assert_null(bad);
	for (i = 0; i < 8; i++)
		assert_int_equal(i % 2 ? ffree_from(&a->p[i]) :
					 frealloc_into(&a->p[i], 5000), 0);
	for (i = 0; i < 8; i++)
		assert_int_equal(ffree_from(&a->p[i]), 0);
	assert_int_equal(live(), before);
	close_pool();
}

/* --- roots with their objects ------------------------------------------------------ */

static void a_root_is_found_or_made(void **state)
{
	uint64_t *p, before;
	int i;

	(void)state;
	fi = fmalloc_init(P, NULL);
	assert_non_null(fi);
	/* Old bytes, for the object to be zeroed over. */
	p = fmalloc(80);
	memset(p, 0xff, 80);
	ffree(p);
	p = fm_root_alloc(fi, "r", 80, "t");
	assert_non_null(p);
	for (i = 0; i < 10; i++)
		assert_int_equal(p[i], 0);
	p[9] = 9;
	assert_ptr_equal(fm_root_alloc(fi, "r", 80, "t"), p);
	assert_ptr_equal(fm_root_get(fi, "r", "t"), p);
	before = live();
	assert_null(fm_root_alloc(fi, "r", 80, "other"));
	assert_int_equal(errno, EPROTOTYPE);
	assert_null(fm_root_alloc(fi, "", 80, ""));
	assert_int_equal(errno, EINVAL);
	assert_null(fm_root_alloc(fi, "big", UINT64_C(1) << 50, ""));
	assert_int_equal(errno, ENOMEM);
	assert_null(fm_root_get(fi, "big", NULL));
	assert_int_equal(live(), before);
	/* A null root gets its object. */
	assert_int_equal(fm_root_set(fi, "null", NULL, NULL), 0);
	assert_non_null(fm_root_alloc(fi, "null", 10, NULL));
	close_pool();
	fi = fmalloc_init(P, NULL);
	p = fm_root_alloc(fi, "r", 80, "t");
	assert_int_equal(p[9], 9);
	close_pool();
}

/* --- killed in the middle ------------------------------------------------------------- */

/* How far it got; the pool's bytes are made to look so. */
enum stage { ARMED, ALLOCATED, LINKED };

static struct {
	enum stage stage;
	bool in_super;		/* the intent of threads without their own */
	int kind;
} die;

static struct fm_intent_disk *intent_of(struct fm_heap *h, uint64_t where_off,
					uint64_t old_off)
{
	struct fm_intent_disk *intent = into_begin(h, where_off, old_off);

	if (!die.in_super)
		return intent;
	h->super->intent = *intent;
	intent->where_off = 0;
	return &h->super->intent;
}

static void die_allocating(void *arg)
{
	struct anchor *a = open_anchor();
	struct fm_heap *h = registry_check(fi);
	struct fm_intent_disk *intent;

	(void)arg;
	a->p[0].fm_off = 0;
	intent = intent_of(h, (char *)&a->p[0] - (char *)fi->mem, 0);
	if (die.stage >= ALLOCATED)
		child_check(alloc_block(h, size_of_kind[die.kind], 16,
					&intent->new_off) == 0);
	if (die.stage >= LINKED)
		a->p[0].fm_off = intent->new_off;
	raise(SIGKILL);
}

static void die_freeing(void *arg)
{
	struct anchor *a = open_anchor();

	(void)arg;
	child_check(fmalloc_into(&a->p[0], size_of_kind[die.kind]) == 0);
	intent_of(registry_check(fi), (char *)&a->p[0] - (char *)fi->mem, a->p[0].fm_off);
	if (die.stage >= LINKED)
		a->p[0].fm_off = 0;
	raise(SIGKILL);
}

static void die_moving(void *arg)
{
	struct anchor *a = open_anchor();
	struct fm_heap *h = registry_check(fi);
	struct fm_intent_disk *intent;

	(void)arg;
	child_check(fmalloc_into(&a->p[0], 3000) == 0);
	intent = intent_of(h, (char *)&a->p[0] - (char *)fi->mem, a->p[0].fm_off);
	if (die.stage >= ALLOCATED)
		child_check(alloc_block(h, size_of_kind[die.kind], 16,
					&intent->new_off) == 0);
	if (die.stage >= LINKED)
		a->p[0].fm_off = intent->new_off;
	raise(SIGKILL);
}

/* Let it die in each way, and see that the anchor's block, if it has one, is all
 * that there is besides the anchor. */
static void each_stage(void (*fn)(void *arg), bool linked_means_some,
		       bool unlinked_means_some)
{
	struct anchor *a;
	uint64_t len;
	int n;

	for (n = 0; n < 3 * 2 * NKINDS; n++) {
		unlink(P);
		die.stage = n % 3;
		die.in_super = n / 3 % 2;
		die.kind = n / 6;
		assert_true(WIFSIGNALED(child_wait(child_start(fn, NULL))));
		a = open_anchor();
		len = fmalloc_usable_size(a);
		if (die.stage == LINKED ? linked_means_some : unlinked_means_some) {
			assert_non_null(fm_get(a->p[0]));
			len += fmalloc_usable_size(fm_get(a->p[0]));
			assert_true(fmalloc_usable_size(fm_get(a->p[0])) > 0);
		} else {
			assert_null(fm_get(a->p[0]));
		}
		assert_int_equal(live(), len);
		close_pool();
	}
}

static void killed_while_it_allocates_and_links(void **state)
{
	(void)state;
	each_stage(die_allocating, true, false);
}

static void killed_while_it_unlinks_and_frees(void **state)
{
	(void)state;
	each_stage(die_freeing, false, true);
}

static void killed_while_it_moves(void **state)
{
	(void)state;
	each_stage(die_moving, true, true);
}

static void open_and_use(void *arg)
{
	(void)arg;
	child_check(open_anchor() != NULL);
	child_check(fmalloc(100) != NULL);
	child_check(fmalloc_close(fi) == 0);
}

/* The block lies in a zone that turns out to be damaged when it is to be freed. */
static void what_cannot_be_freed_stays_linked(void **state)
{
	const uint64_t len = 40 << 20, table = FM_ZONE_LEN + FM_ZONE_TABLE_OFF;
	struct anchor *a = open_anchor();
	uint64_t off;

	(void)state;
	assert_int_equal(fmalloc_into(&a->p[0], len), 0);
	assert_int_equal(fmalloc_into(&a->p[1], len), 0);
	off = a->p[1].fm_off;
	assert_int_equal(off / FM_ZONE_LEN, 1);
	close_pool();
	put32(table + (off % FM_ZONE_LEN / FM_PAGE_LEN + 1) * sizeof(uint32_t), 1);

	a = open_anchor();
	assert_int_equal(ffree_from(&a->p[1]), -1);
	assert_int_equal(errno, EUCLEAN);
	assert_int_equal(a->p[1].fm_off, off);
	assert_int_equal(frealloc_into(&a->p[1], len + (1 << 20)), -1);
	assert_int_equal(errno, EUCLEAN);
	assert_int_equal(a->p[1].fm_off, off);
	/* Nor is there a block that nobody knows. */
	assert_int_equal(fmalloc_into(&a->p[2], len), 0);
	assert_int_equal(a->p[2].fm_off / FM_ZONE_LEN, 2);
	close_pool();
}

static void made_up_intents_do_no_harm(void **state)
{
	static const uint64_t any[] = {
		1, 8, 4096, 8192, 65536, 655360, 655361, FM_ZONE_LEN, UINT64_MAX,
		UINT64_MAX - 7, UINT64_C(1) << 58, (UINT64_C(1) << 58) + 655360,
	};
	enum { N = sizeof(any) / sizeof(any[0]) };
	uint64_t intents, at;
	struct anchor *a;
	int i, k;

	(void)state;
	a = open_anchor();
	assert_int_equal(fmalloc_into(&a->p[0], 10), 0);
	intents = registry_check(fi)->super->intents_off;
	assert_true(intents != 0);
	close_pool();
	for (i = 0; i < N; i++)
		for (k = 0; k < N; k++) {
			at = i % 2 ? intents + 32 : 568;
			put64(at, any[i]);
			put64(at + 8, i % 3 ? any[k] : 0);
			put64(at + 16, any[k]);
			put64(at + 24, any[k]);
			child_run(open_and_use, NULL);
		}
	for (i = 0; i < N; i++) {
		put64(560, any[i]);	/* the page itself */
		put64(544, any[i]);
		child_run(open_and_use, NULL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		scratch_test(allocates_links_unlinks_and_frees),
		scratch_test(resizes),
		scratch_test(the_application_region_has_pointers_too),
		scratch_test(bad_pointers_are_refused),
		scratch_test(blocks_of_another_thread),
		scratch_test(a_root_is_found_or_made),
		scratch_test(killed_while_it_allocates_and_links),
		scratch_test(killed_while_it_unlinks_and_frees),
		scratch_test(killed_while_it_moves),
		scratch_test(what_cannot_be_freed_stays_linked),
		scratch_test(made_up_intents_do_no_harm),
	};

	return cmocka_run_group_tests_name("into", tests, NULL, NULL);
}
