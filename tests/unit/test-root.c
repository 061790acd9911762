/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named roots on files that a kill, damage, or somebody else made, and what
 * inspect_roots() and fm_root_each() say of the same file.
 */
#include <config.h>

#include "scratch.h"

#include <fmalloc.h>

#include "common/crc32c.h"
#include "heap/inspect.h"
#include "heap/layout.h"
#include "heap/rootscan.h"

#define SLOT_OFF(page, i) ((page) + FM_ROOTPAGE_HEAD_LEN + (i) * sizeof(struct fm_root_disk))

/* A pool with `n` roots "r0", "r1", ... that lead to blocks that hold their number. */
static void make(unsigned n)
{
	struct fm_info *fi = fmalloc_open(P, FM_CREATE, NULL);
	char name[32];
	unsigned i, *p;

	assert_non_null(fi);
	for (i = 0; i < n; i++) {
		p = fmalloc_in(fi, sizeof(*p));
		assert_non_null(p);
		*p = i;
		snprintf(name, sizeof(name), "r%u", i);
		assert_int_equal(fm_root_set(fi, name, p, "number"), 0);
	}
	assert_int_equal(fmalloc_close(fi), 0);
}

static void get_slot(uint64_t off, struct fm_root_disk *slot)
{
	file_read(P, off, slot, sizeof(*slot));
}

static void put_slot(uint64_t off, struct fm_root_disk *slot)
{
	slot->crc = rootscan_slot_crc(slot);
	file_write(P, off, slot, sizeof(*slot));
}

/* Where the slot of a root in the region is. */
static uint64_t slot_of(const char *name)
{
	struct fm_root_disk slot;
	unsigned i;

	for (i = 0; i < FM_APP_NSLOTS; i++) {
		get_slot(SLOT_OFF(FM_APP_OFF, i), &slot);
		if (slot.state == FM_ROOT_USED && strcmp(slot.name, name) == 0)
			return SLOT_OFF(FM_APP_OFF, i);
	}
	fail_msg("no slot of '%s'", name);
	return 0;
}

static uint64_t next_of(uint64_t page)
{
	struct fm_rootpage_disk head;

	file_read(P, page, &head, sizeof(head));
	assert_memory_equal(head.magic, FM_ROOT_MAGIC, 8);
	return head.next_off;
}

static void set_next(uint64_t page, uint64_t next)
{
	file_write(P, page + offsetof(struct fm_rootpage_disk, next_off), &next, 8);
}

/* --- the two that list roots ---------------------------------------------------- */

struct list {
	struct { char name[FM_ROOT_NAME_LEN], type[FM_ROOT_TYPE_LEN]; uint64_t off; } *root;
	int n, cap;
	char *base;
};

static void list_add(struct list *l, const char *name, const char *type, uint64_t off)
{
	if (l->n == l->cap) {
		l->cap = l->cap * 2 + 64;
		l->root = realloc(l->root, l->cap * sizeof(*l->root));
		assert_non_null(l->root);
	}
	strcpy(l->root[l->n].name, name);
	strcpy(l->root[l->n].type, type);
	l->root[l->n++].off = off;
}

static int from_each(const char *name, void *ptr, const char *type, void *arg)
{
	struct list *l = arg;

	list_add(l, name, type, ptr == NULL ? 0 : (uint64_t)((char *)ptr - l->base));
	return 0;
}

static int from_inspect(const struct pool_root *root, void *arg)
{
	list_add(arg, root->name, root->type, root->off);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(a, b);	/* the name is the first member */
}

/* Both list the same `n` roots, and end with these errors (0: none). */
static void assert_both_list(int n, int err)
{
	struct list each = { 0 }, inspect = { 0 };
	struct fm_info *fi = fmalloc_open(P, FM_RDONLY, NULL);
	int fd = open(P, O_RDONLY | O_CLOEXEC), i;

	assert_non_null(fi);
	each.base = fi->mem;
	errno = 0;
	assert_int_equal(fm_root_each(fi, from_each, &each), err == 0 ? 0 : -1);
	assert_int_equal(errno, err);
	assert_int_equal(inspect_roots(fd, from_inspect, &inspect), err == 0 ? n : -err);
	close(fd);
	assert_int_equal(fmalloc_close(fi), 0);
	assert_int_equal(each.n, n);
	assert_int_equal(inspect.n, n);
	if (n > 0) {
		qsort(each.root, n, sizeof(*each.root), by_name);
		qsort(inspect.root, n, sizeof(*inspect.root), by_name);
	}
	for (i = 0; i < n; i++) {
		assert_string_equal(each.root[i].name, inspect.root[i].name);
		assert_string_equal(each.root[i].type, inspect.root[i].type);
		assert_int_equal(each.root[i].off, inspect.root[i].off);
	}
	free(each.root);
	free(inspect.root);
}

static void inspect_agrees_with_each(void **state)
{
	static const int n[] = { 0, 1, 15, 16, 600 };
	unsigned i;

	(void)state;
	for (i = 0; i < 5; i++) {
		make(n[i]);
		assert_both_list(n[i], 0);
		assert_int_equal(unlink(P), 0);
	}
}

static void inspect_of_no_pool_finds_none(void **state)
{
	struct list l = { 0 };
	struct pool_info info;
	char junk[10000];
	int fd;

	(void)state;
	memset(junk, 'j', sizeof(junk));
	file_make(P, junk, sizeof(junk));
	fd = open(P, O_RDONLY | O_CLOEXEC);
	assert_int_equal(inspect_pool(fd, &info), 0);
	assert_int_equal(info.state, POOL_NONE);
	assert_string_not_equal(info.why, "");
	assert_int_equal(inspect_roots(fd, from_inspect, &l), 0);
	assert_int_equal(l.n, 0);
	close(fd);
}

/* --- left by a kill ----------------------------------------------------------------- */

/* A root being replaced: both slots are in use, the later counts. */
static void later_of_two_slots_counts(void **state)
{
	struct fm_root_disk slot;
	struct fm_info *fi;
	uint64_t off_r0, off_r1;
	unsigned order;

	(void)state;
	for (order = 0; order < 2; order++) {
		make(2);
		get_slot(slot_of("r0"), &slot);
		off_r0 = slot.off;
		get_slot(slot_of("r1"), &slot);
		off_r1 = slot.off;
		/* Now r0 has a second slot, leading to r1's block. */
		strcpy(slot.name, "r0");
		slot.seq = order == 0 ? 100 : 0;
		put_slot(SLOT_OFF(FM_APP_OFF, 7), &slot);
		assert_both_list(2, 0);
		fi = fmalloc_open(P, 0, NULL);
		assert_non_null(fi);
		assert_ptr_equal(fm_root_get(fi, "r0", NULL),
				 (char *)fi->mem + (order == 0 ? off_r1 : off_r0));
		/* Once removed, the other does not come back. */
		assert_int_equal(fm_root_remove(fi, "r0"), 0);
		assert_null(fm_root_get(fi, "r0", NULL));
		assert_int_equal(errno, ENOENT);
		assert_int_equal(fmalloc_close(fi), 0);
		assert_both_list(1, 0);
		assert_int_equal(unlink(P), 0);
	}
}

/* The stores that make the region a page of roots, one after another. */
static void half_made_region_is_finished(void **state)
{
	struct fm_rootpage_disk head;
	struct fm_info *fi;
	unsigned n;

	(void)state;
	for (n = 0; n < 3; n++) {
		make(0);
		memset(&head, 0, sizeof(head));
		memcpy(head.magic, FM_ROOT_MAGIC, 8);
		head.self_off = FM_APP_OFF;
		head.nslots = FM_APP_NSLOTS;
		head.crc = rootscan_page_crc(&head);
		memset(head.magic, 0, 8);
		if (n < 2)
			head.self_off = 0;
		if (n < 1)
			head.nslots = head.crc = 0;
		file_write(P, FM_APP_OFF, &head, sizeof(head));
		assert_both_list(0, 0);
		fi = fmalloc_open(P, 0, NULL);
		assert_non_null(fi);
		assert_int_equal(fm_root_set(fi, "a", NULL, NULL), 0);
		assert_int_equal(fmalloc_close(fi), 0);
		assert_both_list(1, 0);
		assert_int_equal(unlink(P), 0);
	}
}

/* --- the region is the program's ------------------------------------------------------ */

static void raw_region_is_left_alone(void **state)
{
	static const struct { unsigned off, len; const char *bytes; } raw[] = {
		{ 0, 1, "x" },
		{ 4095, 1, "x" },
		{ 8, 8, "\0\x10\0\0\0\0\0\0" },
		{ 24, 4, "\x0f\0\0\0" },
		{ 0, 8, "FMROOTS2" },
		{ 300, 5, "hello" },
	};
	struct fm_info *fi;
	struct list l = { 0 };
	char before[4096], after[4096];
	unsigned i;
	int fd;

	(void)state;
	for (i = 0; i < sizeof(raw) / sizeof(raw[0]); i++) {
		make(0);
		file_write(P, FM_APP_OFF + raw[i].off, raw[i].bytes, raw[i].len);
		file_read(P, FM_APP_OFF, before, sizeof(before));
		fi = fmalloc_open(P, 0, NULL);
		assert_non_null(fi);
		errno = 0;
		assert_int_equal(fm_root_set(fi, "a", NULL, NULL), -1);
		assert_int_equal(errno, EEXIST);
		assert_non_null(strstr(fm_errmsg(), "the program's own"));
		assert_null(fm_root_get(fi, "a", NULL));
		assert_int_equal(errno, EEXIST);
		assert_int_equal(fm_root_remove(fi, "a"), -1);
		assert_int_equal(errno, EEXIST);
		assert_int_equal(fm_root_each(fi, from_each, &l), -1);
		assert_int_equal(errno, EEXIST);
		assert_int_equal(fmalloc_close(fi), 0);
		file_read(P, FM_APP_OFF, after, sizeof(after));
		assert_memory_equal(before, after, sizeof(before));
		fd = open(P, O_RDONLY | O_CLOEXEC);
		assert_int_equal(inspect_roots(fd, from_inspect, &l), 0);
		assert_int_equal(l.n, 0);
		close(fd);
		assert_int_equal(unlink(P), 0);
	}
}

/* --- damage ----------------------------------------------------------------------------- */

/* All that touches roots says EUCLEAN, and changes nothing. */
static void assert_damaged(void)
{
	struct fm_info *fi = fmalloc_open(P, 0, NULL);
	struct list l = { 0 };
	uint64_t sum;
	int fd;

	assert_non_null(fi);
	sum = file_sum(P);
	l.base = fi->mem;
	errno = 0;
	assert_null(fm_root_get(fi, "no such", NULL));
	assert_int_equal(errno, EUCLEAN);
	assert_non_null(strstr(fm_errmsg(), "damaged"));
	errno = 0;
	assert_int_equal(fm_root_each(fi, from_each, &l), -1);
	assert_int_equal(errno, EUCLEAN);
	errno = 0;
	assert_int_equal(fm_root_remove(fi, "no such"), -1);
	assert_int_equal(errno, EUCLEAN);
	assert_int_equal(file_sum(P), sum);
	assert_int_equal(fmalloc_close(fi), 0);
	fd = open(P, O_RDONLY | O_CLOEXEC);
	assert_int_equal(inspect_roots(fd, from_inspect, &l), -EUCLEAN);
	close(fd);
	free(l.root);
}

/* Far beyond the region: set, found, replaced, removed, and all there again. */
static void ten_thousand_roots(void **state)
{
	enum { N = 10000 };
	char name[FM_ROOT_NAME_MAX + 1], type[FM_ROOT_TYPE_MAX + 1];
	struct fm_info *fi = fmalloc_open(P, FM_CREATE, NULL);
	uint64_t *value;
	unsigned i;

	(void)state;
	assert_non_null(fi);
	for (i = 0; i < N; i++) {
		/* Some as long as they can be. */
		snprintf(name, sizeof(name), "%0*u", i % 100 == 0 ? FM_ROOT_NAME_MAX : 1, i);
		snprintf(type, sizeof(type), "%0*u", i % 100 == 0 ? FM_ROOT_TYPE_MAX : 1, i);
		value = fmalloc_in(fi, sizeof(*value));
		assert_non_null(value);
		*value = i;
		assert_int_equal(fm_root_set(fi, name, value, type), 0);
	}
	for (i = 1; i < N; i += 100) {
		snprintf(name, sizeof(name), "%u", i);
		assert_int_equal(fm_root_remove(fi, name), 0);
		snprintf(name, sizeof(name), "%u", i + 1);
		value = fmalloc_in(fi, sizeof(*value));
		*value = N + i;
		assert_int_equal(fm_root_set(fi, name, value, "new"), 0);
	}
	assert_int_equal(fmalloc_close(fi), 0);

	fi = fmalloc_open(P, 0, NULL);
	assert_non_null(fi);
	for (i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "%0*u", i % 100 == 0 ? FM_ROOT_NAME_MAX : 1, i);
		snprintf(type, sizeof(type), "%0*u", i % 100 == 0 ? FM_ROOT_TYPE_MAX : 1, i);
		value = fm_root_get(fi, name, i % 100 == 2 ? "new" : type);
		if (i % 100 == 1) {
			assert_null(value);
			assert_int_equal(errno, ENOENT);
		} else {
			assert_non_null(value);
			assert_int_equal(*value, i % 100 == 2 ? N + i - 1 : i);
		}
	}
	assert_int_equal(fmalloc_close(fi), 0);
	assert_both_list(N - N / 100, 0);
}

static void names_and_types_have_limits(void **state)
{
	static const char *const bad[] = { "", "a\nb", "\x7f", "\t", "\x1b[0m" };
	struct fm_info *fi = fmalloc_open(P, FM_CREATE, NULL);
	char text[FM_ROOT_NAME_MAX + 2];
	unsigned i;

	(void)state;
	assert_non_null(fi);
	memset(text, 'x', sizeof(text));
	text[FM_ROOT_NAME_MAX + 1] = '\0';
	assert_int_equal(fm_root_set(fi, text, NULL, ""), -1);
	assert_int_equal(errno, EINVAL);
	text[FM_ROOT_NAME_MAX] = '\0';
	assert_int_equal(fm_root_set(fi, text, NULL, ""), 0);
	text[FM_ROOT_TYPE_MAX + 1] = '\0';
	assert_int_equal(fm_root_set(fi, "r", NULL, text), -1);
	assert_int_equal(errno, EINVAL);
	text[FM_ROOT_TYPE_MAX] = '\0';
	assert_int_equal(fm_root_set(fi, "r", NULL, text), 0);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(fm_root_set(fi, bad[i], NULL, ""), -1);
		assert_int_equal(errno, EINVAL);
		if (i > 0)
			assert_int_equal(fm_root_set(fi, "r", NULL, bad[i]), -1);
		assert_null(fm_root_get(fi, bad[i], NULL));
		assert_int_equal(errno, EINVAL);
	}
	assert_int_equal(fm_root_set(fi, NULL, NULL, ""), -1);
	assert_int_equal(fm_root_set(fi, "out", &fi, ""), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(fmalloc_close(fi), 0);
	assert_both_list(2, 0);
}

/* A chain that runs in a circle, from each page to each before it. */
static void cycle_in_the_chain_is_damage(void **state)
{
	uint64_t page[4];
	unsigned from, to;

	(void)state;
	make(700);	/* the region and three pages */
	page[0] = FM_APP_OFF;
	for (from = 1; from < 4; from++)
		page[from] = next_of(page[from - 1]);
	assert_int_equal(next_of(page[3]), 0);
	for (from = 0; from < 4; from++)
		for (to = 0; to <= from; to++) {
			set_next(page[from], page[to]);
			assert_damaged();
			set_next(page[from], from < 3 ? page[from + 1] : 0);
		}
	assert_both_list(700, 0);
}

static void bad_page_in_the_chain_is_damage(void **state)
{
	static const struct { unsigned off; uint64_t value; } bad[] = {
		{ 0, 0 },			/* magic */
		{ 8, 12345 },			/* self_off */
		{ 16, 1 },			/* next_off */
		{ 16, FM_APP_OFF },
		{ 16, UINT64_MAX - 4095 },
		{ 16, FM_ZONE_LEN * 3 },
		{ 24, 0xffffffff },		/* nslots */
	};
	uint64_t page, was;
	unsigned i;

	(void)state;
	make(20);
	page = next_of(FM_APP_OFF);
	assert_int_not_equal(page, 0);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		file_read(P, page + bad[i].off, &was, 8);
		file_write(P, page + bad[i].off, &bad[i].value, 8);
		assert_damaged();
		file_write(P, page + bad[i].off, &was, 8);
	}
	assert_both_list(20, 0);
}

/* A page that claims, with a right checksum, as many slots as the file is long. */
static void giant_page_is_damage(void **state)
{
	struct fm_rootpage_disk head;
	struct fm_info *fi;
	uint64_t page;

	(void)state;
	make(20);
	fi = fmalloc_open(P, 0, NULL);
	assert_non_null(fi);
	assert_non_null(fmalloc_in(fi, 512ull << 20));
	assert_int_equal(fmalloc_close(fi), 0);
	page = next_of(FM_APP_OFF);
	file_read(P, page, &head, sizeof(head));
	head.nslots = (256ull << 20) / sizeof(struct fm_root_disk);
	head.crc = rootscan_page_crc(&head);
	file_write(P, page, &head, sizeof(head));
	assert_damaged();
}

static void flip(uint64_t off, unsigned bit)
{
	unsigned char c;

	file_read(P, off, &c, 1);
	c ^= 1u << bit;
	file_write(P, off, &c, 1);
}

/* One bit of a slot that counts: the root is damage, and the others are there. */
static void bad_slot_is_damage_and_hides_no_other(void **state)
{
	struct fm_root_disk was;
	struct fm_info *fi;
	uint64_t slot;
	unsigned off;

	(void)state;
	make(10);
	slot = slot_of("r3");
	get_slot(slot, &was);
	for (off = 4; off < sizeof(was); off++) {
		flip(slot + off, off % 8);
		assert_both_list(9, EUCLEAN);
		fi = fmalloc_open(P, 0, NULL);
		assert_non_null(fi);
		errno = 0;
		assert_null(fm_root_get(fi, was.name, NULL));
		assert_int_equal(errno, EUCLEAN);
		assert_non_null(fm_root_get(fi, "r5", "number"));
		assert_int_equal(fmalloc_close(fi), 0);
		flip(slot + off, off % 8);
	}
	assert_both_list(10, 0);
}

/* A root that outlives its object, and the end of the heap comes before that. */
static void object_behind_the_end_is_null(void **state)
{
	struct fm_info *fi;
	void *p;

	(void)state;
	make(3);
	fi = fmalloc_open(P, 0, NULL);
	assert_non_null(fi);
	p = fmalloc_in(fi, 8 << 20);
	assert_int_equal(fm_root_set(fi, "far", (char *)p + (7 << 20), "t"), 0);
	ffree(p);
	assert_int_equal(fmalloc_close(fi), 0);
	assert_in_range(file_size(P), 1, 7 << 20);
	assert_both_list(4, 0);
	fi = fmalloc_open(P, 0, NULL);
	assert_non_null(fi);
	errno = ERANGE;
	assert_null(fm_root_get(fi, "far", "t"));
	assert_int_equal(errno, 0);
	p = fm_root_alloc(fi, "far", 100, "t");
	assert_non_null(p);
	assert_ptr_equal(fm_root_get(fi, "far", "t"), p);
	assert_int_equal(fmalloc_close(fi), 0);
	assert_both_list(4, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		scratch_test(inspect_agrees_with_each),
		scratch_test(inspect_of_no_pool_finds_none),
		scratch_test(later_of_two_slots_counts),
		scratch_test(half_made_region_is_finished),
		scratch_test(raw_region_is_left_alone),
		scratch_test(ten_thousand_roots),
		scratch_test(names_and_types_have_limits),
		scratch_test(cycle_in_the_chain_is_damage),
		scratch_test(bad_page_in_the_chain_is_damage),
		scratch_test(giant_page_is_damage),
		scratch_test(bad_slot_is_damage_and_hides_no_other),
		scratch_test(object_behind_the_end_is_null),
	};

	return cmocka_run_group_tests_name("root", tests, NULL, NULL);
}
