/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pools with a few random bytes wrong in their metadata: whatever the library
 * makes of one, it does not die of a signal and does not hang; and one that it could
 * repair is good from then on.  A run is
 * repeated with its number: MUTATE_SEED=n, and MUTATE_RUNS=n for more of them.
 */
#include <config.h>

#include "scratch.h"

#include <fmalloc.h>

#include "common/crc32c.h"
#include "heap/inspect.h"
#include "heap/layout.h"

#define MIB (1ull << 20)
#define REPAIR_EACH 10	/* it waits for the disk */
#define NKNOWN 64	/* blocks of the good pool */

static uint64_t known[NKNOWN];

static void make_pool(void)
{
	static const size_t size[] = { 16, 100, 1000, 5000, 16384, 20000, 300000, 65 * MIB };
	struct fm_info *fi = fmalloc_open("made", FM_CREATE, NULL);
	char name[16];
	void *p;
	int i;

	assert_non_null(fi);
	for (i = 0; i < NKNOWN; i++) {
		p = fmalloc_in(fi, size[i % (i < 10 ? 8 : 7)]);
		assert_non_null(p);
		known[i] = (char *)p - (char *)fi->mem;
		snprintf(name, sizeof(name), "r%d", i);
		assert_int_equal(fm_root_set(fi, name, p, "t"), 0);
	}
	/* A second normal zone. */
	assert_non_null(fmalloc_in(fi, 60 * MIB));
	assert_int_equal(fmalloc_close(fi), 0);
	file_copy("made", "good");	/* with holes: quick to copy */
}

static uint64_t in(uint64_t *seed, uint64_t off, uint64_t len)
{
	return off + rnd(seed) % len;
}

/* A place where the pool's own bytes are: of a page, mostly its beginning. */
static uint64_t a_place(uint64_t *seed)
{
	switch (rnd(seed) % 9) {
	case 0:
		return in(seed, offsetof(struct fm_super_disk, heap_end), 64);
	case 1:
		return in(seed, FM_ZONE0_HEADER_OFF, sizeof(struct fm_zone_disk));
	case 2:
		return in(seed, FM_APP_OFF, FM_APP_LEN);
	case 3:
		return in(seed, FM_APP_OFF, FM_ROOTPAGE_HEAD_LEN / 8);
	case 4:
		return in(seed, FM_ZONEDIR_OFF, 16);
	case 5:
		return in(seed, FM_ZONE_TABLE_OFF + 160 * 4, 400 * 4);
	case 6:
		return in(seed, FM_ZONE_BITMAP_OFF + 10 * FM_BITMAP_LEN, 16 * FM_BITMAP_LEN);
	case 7:
		return in(seed, (1 + rnd(seed) % 3) * FM_ZONE_LEN, sizeof(struct fm_zone_disk));
	default:
		/* Root pages are among the first extents. */
		return in(seed, FM_ZONE_DATA_OFF, 2 * MIB) & ~UINT64_C(4095);
	}
}

static void mutate(uint64_t *seed)
{
	static const uint64_t value[] = {
		0, 1, 2, 3, 4096, 65536, 0x7fffffff, 0x80000000, 0xffffffff,
		FM_ZONE_LEN, FM_ZONE_LEN - 4096, FM_ZONE_DATA_OFF, UINT64_MAX,
		UINT64_MAX - 4095, UINT64_C(1) << 63, UINT64_C(1) << 40,
	};
	int n = 1 + rnd(seed) % 4, i;
	uint64_t v, off;
	size_t len;

	for (i = 0; i < n; i++) {
		v = rnd(seed) % 2 ? rnd(seed) : value[rnd(seed) % 16];
		len = (size_t)1 << rnd(seed) % 4;
		off = a_place(seed);
		if (rnd(seed) % 4 != 0)
			off &= ~(uint64_t)(len - 1);
		file_write(P, off, &v, len);
	}
}

static int look(const char *name, void *ptr, const char *type, void *arg)
{
	size_t *n = arg;

	(void)ptr;	/* where it leads is the program's business */
	*n += strlen(name) + strlen(type);
	return 0;
}

static int look_inspect(const struct pool_root *root, void *arg)
{
	return look(root->name, NULL, root->type, arg);
}

static void use_as_reader(void)
{
	struct fm_info *fi = fmalloc_open(P, FM_RDONLY, NULL);
	int fd = open(P, O_RDONLY | O_CLOEXEC), i;
	size_t n = 0;

	inspect_roots(fd, look_inspect, &n);
	close(fd);
	if (fi == NULL)
		return;
	for (i = 0; i < NKNOWN; i++)
		fmalloc_usable_size((char *)fi->mem + known[i]);
	fm_root_get(fi, "r3", NULL);
	fm_root_each(fi, look, &n);
	child_check(fmalloc_close(fi) == 0);
}

static void use_as_writer(uint64_t *seed)
{
	struct fm_info *fi = fmalloc_open(P, FM_CREATE, NULL);
	char name[16];
	size_t n = 0, size;
	char *p;
	int i;

	if (fi == NULL) {
		child_check(errno == EUCLEAN || errno == ENOTSUP || errno == EINVAL ||
			    errno == ENOSPC || errno == EROFS);
		child_check(*fm_errmsg() != '\0');
		return;
	}
	fm_root_each(fi, look, &n);
	for (i = 0; i < 200; i++) {
		p = (char *)fi->mem + known[rnd(seed) % NKNOWN];
		size = rnd(seed) % (i % 40 == 0 ? 3 * MIB : 20000);
		switch (rnd(seed) % 6) {
		case 0:
			ffree(p);
			break;
		case 1:
			if (fmalloc_usable_size(p) <= MIB)
				frealloc(p, size);
			break;
		case 2:
			snprintf(name, sizeof(name), "r%d", i);
			fm_root_set(fi, name, p, NULL);
			break;
		case 3:
			snprintf(name, sizeof(name), "r%d", i);
			fm_root_remove(fi, name);
			break;
		default:
			p = fmalloc_in(fi, size);
			if (p != NULL && size > 0)
				p[0] = p[size - 1] = 1;
		}
	}
	child_check(fmalloc_close(fi) == 0);
}

/* A pool that is good, or was repaired, stays so whatever is done with it. */
static void use_repaired(uint64_t *seed)
{
	bool good = fm_check(P) == 0;
	struct fm_stats stats = { .size = sizeof(stats) };
	struct fm_info *fi;

	child_check(good || errno == EUCLEAN || errno == ENOTSUP || errno == EINVAL);
	if (fm_check_each(P, FM_CHECK_REPAIR, NULL, NULL) != 0) {
		child_check(!good || errno == EROFS);
		return;
	}
	if (fm_check(P) != 0)
		fprintf(stderr, "# child: %s\n", fm_errmsg());
	child_check(fm_check(P) == 0);
	fi = fmalloc_open(P, 0, NULL);
	child_check(fi != NULL);
	child_check(fm_stat(fi, &stats) == 0 && stats.nlive > 0);
	child_check(fm_trim(fi) == 0 && fmalloc_close(fi) == 0);
	use_as_writer(seed);
	if (fm_check(P) != 0)
		fprintf(stderr, "# child: %s\n", fm_errmsg());
	child_check(fm_check(P) == 0);
}

static void use(void *arg)
{
	uint64_t seed = *(uint64_t *)arg;

	alarm(30);
	if (seed % REPAIR_EACH == 0) {
		file_copy(P, "mutated");
		use_repaired(&seed);
		file_copy("mutated", P);
	}
	use_as_reader();
	use_as_writer(&seed);
	use_as_reader();
	use_as_writer(&seed);
}

static unsigned from_env(const char *name, unsigned otherwise)
{
	const char *text = getenv(name);

	return text != NULL ? strtoul(text, NULL, 10) : otherwise;
}

static void mutated_pools_kill_nobody(void **state)
{
	unsigned first = from_env("MUTATE_SEED", 1), runs = from_env("MUTATE_RUNS", 300);
	unsigned i, bad = 0;
	uint64_t seed;
	int status;

	(void)state;
	make_pool();
	for (i = first; i < first + runs; i++) {
		seed = i;
		file_copy("good", P);
		mutate(&seed);
		status = child_wait(child_start(use, &seed));
		if (status != 0) {
			print_error("MUTATE_SEED=%u: status %#x\n", i, status);
			bad++;
		}
	}
	assert_int_equal(bad, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		scratch_test(mutated_pools_kill_nobody),
	};

	return cmocka_run_group_tests_name("mutate", tests, NULL, NULL);
}
