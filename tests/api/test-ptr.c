/* SPDX-License-Identifier: Apache-2.0 */
/* FM_PTR, fm_get and fm_set: pool pointers in C. */
#include "scratch.h"

#include <fmalloc.h>

struct node {
	int val;
	FM_PTR(struct node) next;
	FM_PTR(const char) name;
	FM_PTR(void) any;
};

static struct fm_info *a, *b;

static int set_up(void **state)
{
	if (scratch_make(state) != 0)
		return -1;
	a = fmalloc_open("a", FM_CREATE, NULL);
	b = fmalloc_open("b", FM_CREATE, NULL);
	fmalloc_set_target(NULL);
	return a != NULL && b != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
	int rc = fmalloc_close(a) | fmalloc_close(b);

	return scratch_remove(state) | rc;
}

#define pool_test(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

static struct node *push(struct fm_info *fi, struct node *head, int val)
{
	struct node *n = fmalloc_in(fi, sizeof(*n));

	assert_non_null(n);
	n->val = val;
	fm_set(n->next, head);
	return n;
}

static void pointer_is_the_offset_in_8_bytes(void **state)
{
	struct node *n = push(a, NULL, 1), *m = push(a, n, 2);
	uint64_t off;

	(void)state;
	assert_int_equal(sizeof(n->next), 8);
	memcpy(&off, &n->next, 8);
	assert_int_equal(off, 0);
	memcpy(&off, &m->next, 8);
	assert_int_equal(off, (char *)n - (char *)a->mem);
	assert_null(fm_get(n->next));
	assert_ptr_equal(fm_get(m->next), n);
}

static void lists_in_two_pools_are_walked_alternately(void **state)
{
	struct node *x = NULL, *y = NULL;
	int i;

	(void)state;
	for (i = 0; i < 1000; i++) {
		x = push(a, x, i);
		y = push(b, y, -i);
	}
	assert_int_equal(fm_root_set(a, "head", x, "node"), 0);
	assert_int_equal(fm_root_set(b, "head", y, "node"), 0);
	assert_int_equal(fmalloc_close(a), 0);
	assert_int_equal(fmalloc_close(b), 0);
	b = fmalloc_open("b", FM_RDONLY, NULL);
	a = fmalloc_open("a", 0, NULL);
	fmalloc_set_target(NULL);
	x = fm_root_get(a, "head", "node");
	y = fm_root_get(b, "head", "node");
	for (i = 999; i >= 0; i--) {
		assert_non_null(x);
		assert_non_null(y);
		assert_int_equal(x->val, i);
		assert_int_equal(y->val, -i);
		x = fm_get(x->next);
		y = fm_get(y->next);
	}
	assert_null(x);
	assert_null(y);
}

static void types_are_those_of_the_pointer(void **state)
{
	struct node *n = push(a, NULL, 1);
	char *text = fmalloc_in(a, 10);

	(void)state;
	strcpy(text, "text");
	fm_set(n->name, text);
	assert_string_equal(fm_get(n->name), "text");
	fm_set(n->any, n);
	assert_ptr_equal(fm_get(n->any), n);
	assert_int_equal(fm_get(n->next) == NULL, 1);
	fm_set(n->next, n);
	assert_int_equal(fm_get(fm_get(n->next)->next)->val, 1);
}

static void pointer_into_another_pool_is_exdev(void **state)
{
	struct node *n = push(a, NULL, 1), *m = push(b, NULL, 2), on_stack;

	(void)state;
	fm_set(n->next, n);
	errno = 0;
	fm_set(n->next, m);
	assert_int_equal(errno, EXDEV);
	assert_null(fm_get(n->next));
	assert_non_null(strstr(fm_errmsg(), "another pool"));
	errno = 0;
	fm_set(n->next, &on_stack);
	assert_int_equal(errno, EXDEV);
	assert_null(fm_get(n->next));
	assert_non_null(strstr(fm_errmsg(), "no open pool"));
}

/* On the stack: an offset in the target, or the address in another pool. */
static void pointers_outside_refer_to_any_pool(void **state)
{
	struct node *n = push(a, NULL, 1), *m = push(b, NULL, 2), here;

	(void)state;
	fmalloc_set_target(a);
	fm_set(here.next, n);
	assert_int_equal(here.next.fm_off, (char *)n - (char *)a->mem);
	assert_ptr_equal(fm_get(here.next), n);
	fm_set(here.next, m);
	assert_ptr_equal(fm_get(here.next), m);
	fmalloc_set_target(b);
	assert_ptr_equal(fm_get(here.next), m);
	fmalloc_set_target(NULL);
	fm_set(here.next, n);
	assert_ptr_equal(fm_get(here.next), n);
	errno = 0;
	fm_set(here.next, &here);
	assert_int_equal(errno, EXDEV);
	assert_null(fm_get(here.next));
	fm_set(here.next, NULL);
	assert_null(fm_get(here.next));
}

static void pointer_may_be_copied_within_its_pool(void **state)
{
	struct node *n = push(a, NULL, 1), *m = push(a, n, 2), *o;

	(void)state;
	o = fmalloc_in(a, sizeof(*o));
	memcpy(o, m, sizeof(*o));
	assert_ptr_equal(fm_get(o->next), n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		pool_test(pointer_is_the_offset_in_8_bytes),
		pool_test(lists_in_two_pools_are_walked_alternately),
		pool_test(types_are_those_of_the_pointer),
		pool_test(pointer_into_another_pool_is_exdev),
		pool_test(pointers_outside_refer_to_any_pool),
		pool_test(pointer_may_be_copied_within_its_pool),
	};

	return cmocka_run_group_tests_name("ptr", tests, NULL, NULL);
}
