/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalog: every call, every way its file can be wrong, and threads.
 * Each case has an empty folder of its own as working directory.
 */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "catalog/catalog.h"
#include "catalog/schema.h"

#define DB "catalog.db"
#define DAMAGED DB ".damaged"

/* --- fixture and helpers ----------------------------------------------------- */

struct dir {
	char path[64];
	int old_cwd;
};

static int set_up(void **state)
{
	struct dir *d = calloc(1, sizeof(*d));

	if (!d)
		return -1;
	strcpy(d->path, "/tmp/test-catalog.XXXXXX");
	d->old_cwd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->old_cwd < 0 || !mkdtemp(d->path) || chdir(d->path) != 0)
		return -1;
	*state = d;
	return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type,
			struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int tear_down(void **state)
{
	struct dir *d = *state;
	int ret = fchdir(d->old_cwd);

	close(d->old_cwd);
	ret |= nftw(d->path, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	free(d);
	return ret;
}

/* Success, or the catalog's own words in the test's failure. */
#define assert_ok(call)                                                               \
	do {                                                                          \
		int ok_ret = (call);                                                  \
		if (ok_ret != 0)                                                      \
			fail_msg("%s: %d (%s): %s", #call, ok_ret, strerror(-ok_ret), \
				 catalog_errmsg());                                   \
	} while (0)

static struct catalog *open_db(bool want_fresh)
{
	struct catalog *c = NULL;
	bool fresh = !want_fresh;

	assert_ok(catalog_open(DB, &c, &fresh));
	assert_non_null(c);
	assert_int_equal(fresh, want_fresh);
	return c;
}

static struct catalog_pool live(const char *name)
{
	struct catalog_pool pool = {
		.name = name,
		.kind = CATALOG_LIVE,
		.uuid = "0123456789abcde",
		.ino = 42,
		.created_ns = 1700000000123456789u,
		.stamp_ns = 1700000001987654321u,
	};

	return pool;
}

static void put(struct catalog *c, const char *name)
{
	struct catalog_pool pool = live(name);

	assert_ok(catalog_put(c, &pool, NULL, 0));
}

static void put_child(struct catalog *c, const char *name, const char *parent)
{
	struct catalog_pool pool = live(name);

	pool.parent = parent;
	assert_ok(catalog_put(c, &pool, NULL, 0));
}

/* Names, or whatever else is listed, joined with '|'. */
struct list {
	char text[4096];
	size_t n, stop_after;
};

static int list_add(struct list *l, const char *s)
{
	size_t len = strlen(l->text);

	snprintf(l->text + len, sizeof(l->text) - len, "%s%s", len ? "|" : "", s);
	l->n++;
	return l->stop_after != 0 && l->n == l->stop_after ? 77 : 0;
}

static int list_pool(const struct catalog_pool *pool, void *arg)
{
	return list_add(arg, pool->name);
}

static int list_parent(const struct catalog_pool *pool, void *arg)
{
	return list_add(arg, pool->parent ? pool->parent : "-");
}

static int list_root(const struct catalog_root *root, void *arg)
{
	char s[512];

	snprintf(s, sizeof(s), "%s:%s:%llu:%llu", root->name, root->type,
		 (unsigned long long)root->off, (unsigned long long)root->size);
	return list_add(arg, s);
}

static int list_event(const struct catalog_event *event, void *arg)
{
	char s[512];

	snprintf(s, sizeof(s), "%s %s %s", event->what, event->name,
		 event->detail ? event->detail : "-");
	return list_add(arg, s);
}

static void expect_pools(struct catalog *c, const char *after, const char *want)
{
	struct list l = { .n = 0 };

	assert_ok(catalog_each_pool(c, after, list_pool, &l));
	assert_string_equal(l.text, want);
}

static void expect_roots(struct catalog *c, const char *pool, const char *want)
{
	struct list l = { .n = 0 };

	assert_ok(catalog_each_root(c, pool, NULL, list_root, &l));
	assert_string_equal(l.text, want);
}

static void expect_parent(struct catalog *c, const char *pool, const char *want)
{
	struct list l = { .n = 0 };

	assert_ok(catalog_get(c, pool, list_parent, &l));
	assert_string_equal(l.text, want);
}

static int copy_nroots(const struct catalog_pool *pool, void *arg)
{
	*(uint64_t *)arg = pool->nroots;
	return 0;
}

static uint64_t nroots(struct catalog *c, const char *pool)
{
	uint64_t n = UINT64_MAX;

	assert_ok(catalog_get(c, pool, copy_nroots, &n));
	return n;
}

static bool exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

static off_t file_len(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_size;
}

static void write_file(const char *path, const void *bytes, size_t len)
{
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static void *read_file(const char *path, size_t *len)
{
	FILE *f = fopen(path, "re");
	char *bytes;

	assert_non_null(f);
	*len = (size_t)file_len(path);
	bytes = malloc(*len + 1);
	assert_non_null(bytes);
	assert_int_equal(fread(bytes, 1, *len, f), *len);
	fclose(f);
	return bytes;
}

/* By SQLite, without us. */
static void run_sql(const char *path, const char *sql)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* --- what is put comes back ----------------------------------------------------- */

static int same_as(const struct catalog_pool *pool, void *arg)
{
	const struct catalog_pool *want = arg;

	assert_string_equal(pool->name, want->name);
	assert_int_equal(pool->kind, want->kind);
	assert_memory_equal(pool->uuid, want->uuid, 16);
	assert_int_equal(pool->ino, want->ino);
	assert_int_equal(pool->created_ns, want->created_ns);
	assert_int_equal(pool->stamp_ns, want->stamp_ns);
	assert_int_equal(pool->nroots, want->nroots);
	if (want->why)
		assert_string_equal(pool->why, want->why);
	else
		assert_null(pool->why);
	if (want->parent)
		assert_string_equal(pool->parent, want->parent);
	else
		assert_null(pool->parent);
	return 5;
}

static void put_get_returns_every_field(void **state)
{
	struct catalog_pool pools[] = { live("a"), live("b"), live("c"), live("d") };
	struct catalog *c = open_db(true);

	(void)state;
	pools[1].kind = CATALOG_DAMAGED;
	pools[1].why = "the superblock's checksum is wrong";
	memset(pools[1].uuid, 0, sizeof(pools[1].uuid));
	pools[2].kind = CATALOG_ATOMIC;
	pools[2].parent = "a";
	pools[2].ino = UINT64_MAX;
	pools[2].stamp_ns = UINT64_MAX - 1;
	pools[3].kind = CATALOG_FILE;
	pools[3].nroots = 99;
	for (size_t i = 0; i < 4; i++)
		assert_ok(catalog_put(c, &pools[i], NULL, 0));
	pools[3].nroots = 0; /* the catalog counts for itself */
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(catalog_get(c, pools[i].name, same_as, &pools[i]), 5);
	catalog_close(c);
	c = open_db(false);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(catalog_get(c, pools[i].name, same_as, &pools[i]), 5);
	catalog_close(c);
}

static void put_replaces_every_field(void **state)
{
	struct catalog_pool pool = live("a");
	struct catalog *c = open_db(true);

	(void)state;
	assert_ok(catalog_put(c, &pool, NULL, 0));
	pool = (struct catalog_pool){
		.name = "a",
		.kind = CATALOG_DAMAGED,
		.why = "w",
		.ino = 1,
		.created_ns = 2,
		.stamp_ns = 3,
		.parent = "p",
	};
	assert_ok(catalog_put(c, &pool, NULL, 0));
	assert_int_equal(catalog_get(c, "a", same_as, &pool), 5);
	pool.why = NULL;
	pool.parent = NULL;
	assert_ok(catalog_put(c, &pool, NULL, 0));
	assert_int_equal(catalog_get(c, "a", same_as, &pool), 5);
	expect_pools(c, NULL, "a");
	catalog_close(c);
}

static void get_unknown_is_enoent(void **state)
{
	struct list l = { .n = 0 };
	struct catalog *c = open_db(true);

	(void)state;
	assert_int_equal(catalog_get(c, "nobody", list_pool, &l), -ENOENT);
	assert_int_equal(l.n, 0);
	assert_non_null(strstr(catalog_errmsg(), "nobody"));
	catalog_close(c);
}

static void names_are_any_bytes(void **state)
{
	static const char *const names[] = {
		"it's",
		"\"quoted\"",
		"a\nb",
		"'; DROP TABLE pool; --",
		"%s%n",
		"\xc3\xa9\xe2\x82\xac\xf0\x9f\x8d\x8e",
		"\xff\xfe\x80",
		"\xc3",
		"\x01\x1b[31m",
		" ",
		"dir/pool@tag",
		"A",
		"a",
	};
	char longest[256];
	struct catalog *c = open_db(true);

	(void)state;
	memset(longest, 0xee, 255);
	longest[255] = '\0';
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct catalog_root root = { names[i], names[i], 1, 2 };
		struct catalog_pool pool = live(names[i]);

		pool.parent = longest;
		assert_ok(catalog_put(c, &pool, &root, 1));
	}
	put(c, longest);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct catalog_pool pool = live(names[i]);
		char roots[256];

		pool.parent = longest;
		pool.nroots = 1;
		assert_int_equal(catalog_get(c, names[i], same_as, &pool), 5);
		snprintf(roots, sizeof(roots), "%s:%s:1:2", names[i], names[i]);
		expect_roots(c, names[i], roots);
	}
	assert_ok(catalog_rename(c, "it's", "it\"s"));
	assert_ok(catalog_remove(c, "\xff\xfe\x80"));
	assert_int_equal(catalog_get(c, "\xff\xfe\x80", same_as, NULL), -ENOENT);
	assert_ok(catalog_get(c, longest, copy_nroots, &(uint64_t){ 0 }));
	catalog_close(c);
}

static void bad_arguments_are_einval(void **state)
{
	struct catalog_root nameless = { "", "t", 1, 1 },
			    typeless = { "r", NULL, 1, 1 };
	struct catalog_pool pool = live("a"), unnamed = live("");
	struct catalog *c = open_db(true);

	(void)state;
	assert_int_equal(catalog_put(c, &unnamed, NULL, 0), -EINVAL);
	unnamed.name = NULL;
	assert_int_equal(catalog_put(c, &unnamed, NULL, 0), -EINVAL);
	assert_int_equal(catalog_put(c, &pool, &nameless, 1), -EINVAL);
	assert_int_equal(catalog_put(c, &pool, &typeless, 1), -EINVAL);
	assert_int_equal(catalog_remove(c, ""), -EINVAL);
	assert_int_equal(catalog_rename(c, "a", ""), -EINVAL);
	assert_int_equal(catalog_rename(c, NULL, "a"), -EINVAL);
	assert_int_equal(catalog_note(c, NULL, "a", NULL), -EINVAL);
	assert_int_equal(catalog_end(c), -EINVAL);
	expect_pools(c, NULL, "");
	catalog_close(c);
}

/* --- roots ------------------------------------------------------------------------ */

static void roots_follow_each_put(void **state)
{
	struct catalog_root first[] = {
		{ "z", "struct z", 16, 32 },
		{ "b", "", 4096, 0 },
		{ "m", "t", 0, 0 },
	};
	struct catalog_root second[] = {
		{ "b", "new type", 4096, 0 },
		{ "a", "x", 1ull << 40, UINT64_MAX },
		{ "z", "struct z", 16, 32 },
	};
	struct catalog_pool pool = live("p");
	struct catalog *c = open_db(true);

	(void)state;
	assert_ok(catalog_put(c, &pool, first, 3));
	expect_roots(c, "p", "b::4096:0|m:t:0:0|z:struct z:16:32");
	assert_int_equal(nroots(c, "p"), 3);
	assert_ok(catalog_put(c, &pool, second, 3));
	expect_roots(c, "p",
		     "a:x:1099511627776:18446744073709551615|"
		     "b:new type:4096:0|z:struct z:16:32");
	assert_ok(catalog_put(c, &pool, second, 1));
	expect_roots(c, "p", "b:new type:4096:0");
	assert_int_equal(nroots(c, "p"), 1);
	assert_ok(catalog_put(c, &pool, NULL, 0));
	expect_roots(c, "p", "");
	assert_int_equal(nroots(c, "p"), 0);
	catalog_close(c);
}

static void roots_of_one_name_the_first_counts(void **state)
{
	struct catalog_root roots[] = {
		{ "r", "one", 1, 1 },
		{ "q", "", 5, 5 },
		{ "r", "two", 2, 2 },
		{ "r", "three", 3, 3 },
	};
	struct catalog_pool pool = live("p");
	struct catalog *c = open_db(true);

	(void)state;
	for (int i = 0; i < 2; i++) {
		assert_ok(catalog_put(c, &pool, roots, 4));
		expect_roots(c, "p", "q::5:5|r:one:1:1");
		assert_int_equal(nroots(c, "p"), 2);
	}
	catalog_close(c);
}

static void roots_are_of_their_pool(void **state)
{
	struct catalog_root one = { "r", "", 1, 0 }, two = { "r", "", 2, 0 };
	struct catalog_pool a = live("a"), b = live("b");
	struct list l = { .n = 0 };
	struct catalog *c = open_db(true);

	(void)state;
	assert_ok(catalog_put(c, &a, &one, 1));
	assert_ok(catalog_put(c, &b, &two, 1));
	expect_roots(c, "a", "r::1:0");
	expect_roots(c, "b", "r::2:0");
	assert_ok(catalog_each_root(c, "nobody", NULL, list_root, &l));
	assert_int_equal(l.n, 0);
	assert_ok(catalog_remove(c, "a"));
	put(c, "a");
	expect_roots(c, "a", "");
	expect_roots(c, "b", "r::2:0");
	catalog_close(c);
}

static void roots_list_after_and_stop(void **state)
{
	struct catalog_root roots[] = { { "a", "", 1, 0 },
					{ "b", "", 2, 0 },
					{ "c", "", 3, 0 } };
	struct catalog_pool pool = live("p");
	struct list l = { .stop_after = 1 };
	struct catalog *c = open_db(true);

	(void)state;
	assert_ok(catalog_put(c, &pool, roots, 3));
	assert_int_equal(catalog_each_root(c, "p", "a", list_root, &l), 77);
	assert_string_equal(l.text, "b::2:0");
	l = (struct list){ .n = 0 };
	assert_ok(catalog_each_root(c, "p", "aa", list_root, &l));
	assert_string_equal(l.text, "b::2:0|c::3:0");
	catalog_close(c);
}

static struct catalog_root *many_roots(size_t n, char (*names)[16])
{
	struct catalog_root *roots = calloc(n, sizeof(*roots));

	assert_non_null(roots);
	for (size_t i = 0; i < n; i++) {
		/* in no order of name */
		snprintf(names[i], sizeof(names[i]), "r%zu", i * 7919 % n);
		roots[i] =
			(struct catalog_root){ names[i], "struct thing", i * 16, 16 };
	}
	return roots;
}

static void roots_ten_thousand(void **state)
{
	enum { N = 10000 };
	static char names[N][16];
	struct catalog_root *roots = many_roots(N, names);
	struct catalog_pool pool = live("p");
	struct catalog *c = open_db(true);
	double start = seconds(), first, again;
	off_t wal;

	(void)state;
	assert_ok(catalog_put(c, &pool, roots, N));
	first = seconds() - start;
	assert_int_equal(nroots(c, "p"), N);
	wal = file_len(DB "-wal");
	start = seconds();
	assert_ok(catalog_put(c, &pool, roots, N));
	again = seconds() - start;
	assert_int_equal(file_len(DB "-wal"), wal); /* nothing written */
	print_message("# 10,000 roots: first put %.1f ms, unchanged %.1f ms\n",
		      first * 1e3, again * 1e3);
	roots[5000].off++;
	assert_ok(catalog_put(c, &pool, roots, N - 1));
	assert_int_equal(nroots(c, "p"), N - 1);
	assert_ok(catalog_remove(c, "p"));
	catalog_close(c);
	free(roots);
}

/* --- removing, renaming, listing ------------------------------------------------------ */

static void remove_forgets(void **state)
{
	struct catalog *c = open_db(true);

	(void)state;
	put(c, "a");
	put_child(c, "a@1", "a");
	assert_ok(catalog_remove(c, "a"));
	assert_ok(catalog_remove(c, "a"));
	expect_pools(c, NULL, "a@1");
	expect_parent(c, "a@1", "a");
	catalog_close(c);
}

static void rename_carries_roots_and_parents(void **state)
{
	struct catalog_root root = { "r", "t", 1, 2 };
	struct catalog_pool pool = live("old");
	struct catalog *c = open_db(true);

	(void)state;
	assert_ok(catalog_put(c, &pool, &root, 1));
	put_child(c, "old@1", "old");
	put_child(c, "other@1", "other");
	assert_ok(catalog_rename(c, "old", "new"));
	expect_pools(c, NULL, "new|old@1|other@1");
	expect_roots(c, "new", "r:t:1:2");
	expect_parent(c, "old@1", "new");
	expect_parent(c, "other@1", "other");
	pool.name = "new";
	pool.nroots = 1;
	assert_int_equal(catalog_get(c, "new", same_as, &pool), 5);
	catalog_close(c);
}

static void rename_replaces_the_target(void **state)
{
	struct catalog_root ra = { "ra", "", 1, 0 }, rb = { "rb", "", 2, 0 };
	struct catalog_pool a = live("a"), b = live("b");
	struct catalog *c = open_db(true);

	(void)state;
	assert_ok(catalog_put(c, &a, &ra, 1));
	assert_ok(catalog_put(c, &b, &rb, 1));
	assert_ok(catalog_rename(c, "a", "b"));
	expect_pools(c, NULL, "b");
	expect_roots(c, "b", "ra::1:0");
	catalog_close(c);
}

static void rename_onto_itself_and_of_nothing(void **state)
{
	struct catalog *c = open_db(true);

	(void)state;
	put(c, "a");
	put(c, "b");
	assert_ok(catalog_rename(c, "a", "a"));
	assert_int_equal(catalog_rename(c, "nobody", "b"), -ENOENT);
	expect_pools(c, NULL, "a|b");
	catalog_close(c);
}

/* Of folders and pools whose names are neighbours in the order of bytes. */
static void fill_folders(struct catalog *c)
{
	static const char *const names[] = {
		"a", "a-/p", "a/b/p", "a/b/q@1", "a/b-", "a/b0", "a/c/d/e", "a/z",
		"a0", "\xff/\x80/\xc3", "b",
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		put(c, names[i]);
}

static void expect_in(struct catalog *c, const char *folder, const char *after,
		      const char *text)
{
	struct list l = { .stop_after = 0 };

	assert_int_equal(catalog_each_in(c, folder, after, list_pool, &l), 0);
	assert_string_equal(l.text, text);
}

static void list_of_a_folder(void **state)
{
	struct list l = { .stop_after = 2 };
	struct catalog *c = open_db(true);

	(void)state;
	fill_folders(c);
	expect_in(c, "", NULL, "a|a0|b");
	expect_in(c, "", "a", "a0|b");
	expect_in(c, "", "a-", "a0|b");
	expect_in(c, "a", NULL, "a/b-|a/b0|a/z");
	expect_in(c, "a", "b-", "a/b0|a/z");
	expect_in(c, "a", "b0", "a/z");
	expect_in(c, "a", "z", "");
	expect_in(c, "a/b", "", "a/b/p|a/b/q@1");
	expect_in(c, "a/c", NULL, "");
	expect_in(c, "a/c/d", NULL, "a/c/d/e");
	expect_in(c, "\xff/\x80", NULL, "\xff/\x80/\xc3");
	expect_in(c, "\xff", NULL, "");
	expect_in(c, "nowhere", NULL, "");
	assert_int_equal(catalog_each_in(c, "a", NULL, list_pool, &l), 77);
	assert_string_equal(l.text, "a/b-|a/b0");
	catalog_close(c);
}

static void rename_of_a_folder(void **state)
{
	struct catalog_root root = { "r", "t", 1, 2 };
	struct catalog_pool pool = live("a/b/r");
	struct catalog *c = open_db(true);

	(void)state;
	fill_folders(c);
	assert_ok(catalog_put(c, &pool, &root, 1));
	put_child(c, "a/b/r@1", "a/b/r");
	put(c, "x/new");
	put_child(c, "x/p", "put since");
	assert_ok(catalog_rename_folder(c, "a/b", "x"));
	expect_parent(c, "x/p", "put since");
	expect_pools(c, NULL,
		     "a|a-/p|a/b-|a/b0|a/c/d/e|a/z|a0|b|x/new|x/p|x/q@1|x/r|x/r@1|"
		     "\xff/\x80/\xc3");
	expect_roots(c, "x/r", "r:t:1:2");
	expect_parent(c, "x/r@1", "x/r");
	assert_ok(catalog_rename_folder(c, "\xff", "\xc3\xa4/\xfe"));
	expect_in(c, "\xc3\xa4/\xfe/\x80", NULL, "\xc3\xa4/\xfe/\x80/\xc3");
	assert_ok(catalog_rename_folder(c, "nowhere", "n"));
	assert_ok(catalog_rename_folder(c, "x", "x"));
	expect_in(c, "x", NULL, "x/new|x/p|x/q@1|x/r|x/r@1");
	assert_int_equal(catalog_rename_folder(c, "", "n"), -EINVAL);
	catalog_close(c);
}

static void list_is_in_order_of_bytes(void **state)
{
	struct list l = { .stop_after = 2 };
	struct catalog *c = open_db(true);

	(void)state;
	put(c, "b");
	put(c, "\xc3\xa4");
	put(c, "B");
	put(c, "ab");
	put(c, "a");
	expect_pools(c, NULL, "B|a|ab|b|\xc3\xa4");
	expect_pools(c, "", "B|a|ab|b|\xc3\xa4");
	expect_pools(c, "a", "ab|b|\xc3\xa4");
	expect_pools(c, "aa", "ab|b|\xc3\xa4");
	expect_pools(c, "\xff", "");
	assert_int_equal(catalog_each_pool(c, "B", list_pool, &l), 77);
	assert_string_equal(l.text, "a|ab");
	catalog_close(c);
}

static void events_come_in_order(void **state)
{
	struct list l = { .stop_after = 2 };
	struct catalog *c = open_db(true);

	(void)state;
	assert_ok(catalog_note(c, "create", "a", NULL));
	assert_ok(catalog_note(c, "rename", "a", "b"));
	assert_ok(catalog_note(c, "remove", "b\n", NULL));
	assert_int_equal(catalog_each_event(c, 0, list_event, &l), 77);
	assert_string_equal(l.text, "create a -|rename a b");
	l = (struct list){ .n = 0 };
	assert_ok(catalog_each_event(c, 2, list_event, &l));
	assert_string_equal(l.text, "remove b\n -");
	catalog_close(c);
}

static int first_event(const struct catalog_event *event, void *arg)
{
	*(int64_t *)arg = event->id;
	return 1;
}

static void events_are_bounded(void **state)
{
	struct catalog *c = open_db(true);
	int64_t first = 0;

	(void)state;
	assert_ok(catalog_begin(c));
	for (int i = 0; i < CATALOG_NEVENTS + 5000; i++)
		assert_ok(catalog_note(c, "sync", "a", NULL));
	assert_ok(catalog_end(c));
	assert_int_equal(catalog_each_event(c, 0, first_event, &first), 1);
	assert_in_range(first, 5000 - 1024, 5001);
	catalog_close(c);
}

/* --- groups ---------------------------------------------------------------------------- */

static void group_is_one_transaction(void **state)
{
	struct catalog *c = open_db(true);

	(void)state;
	assert_ok(catalog_begin(c));
	assert_int_equal(catalog_begin(c), -EINVAL);
	put(c, "a");
	put(c, "b");
	assert_ok(catalog_rename(c, "a", "c"));
	assert_ok(catalog_remove(c, "b"));
	expect_pools(c, NULL, "c");
	assert_ok(catalog_end(c));
	expect_pools(c, NULL, "c");
	catalog_close(c);
}

static void group_not_ended_leaves_nothing(void **state)
{
	struct catalog *c = open_db(true);

	(void)state;
	put(c, "before");
	assert_ok(catalog_begin(c));
	put(c, "a");
	catalog_close(c);
	c = open_db(false);
	expect_pools(c, NULL, "before");
	catalog_close(c);
}

static void group_of_100000_pools_is_quick(void **state)
{
	struct catalog *c = open_db(true);
	double start = seconds(), fill, again, reopen;
	char name[32];

	(void)state;
	for (int round = 0; round < 2; round++) {
		assert_ok(catalog_begin(c));
		for (int i = 0; i < 100000; i++) {
			/* as readdir() gives them: in no order */
			snprintf(name, sizeof(name), "pool-%06ld", i * 73939l % 100000);
			put(c, name);
		}
		assert_ok(catalog_end(c));
		if (round == 0)
			fill = seconds() - start, start = seconds();
	}
	again = seconds() - start;
	catalog_close(c);
	write_file(DB "-wal", "unclean", 7);
	start = seconds();
	c = open_db(false);
	reopen = seconds() - start;
	expect_pools(c, "pool-099998", "pool-099999");
	catalog_close(c);
	print_message(
		"# 100,000 pools: fill %.2f s, again %.2f s, checked open %.3f s\n",
		fill, again, reopen);
	/* Bounds for the slowest machine, under any tool. */
	assert_true(fill < 60);
	assert_true(reopen < 5);
}

/* --- the file -------------------------------------------------------------------------- */

static void open_makes_a_private_wal_database(void **state)
{
	struct catalog *c = open_db(true);
	struct stat st;

	(void)state;
	assert_int_equal(stat(DB, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	put(c, "a");
	assert_true(exists(DB "-wal"));
	assert_int_equal(stat(DB "-wal", &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	catalog_close(c);
	assert_false(exists(DB "-wal"));
	catalog_close(NULL);
}

static void open_in_memory_makes_no_file(void **state)
{
	struct catalog *c = NULL;
	bool fresh = false;

	(void)state;
	assert_ok(catalog_open(":memory:", &c, &fresh));
	assert_true(fresh);
	put(c, "a");
	put_child(c, "a@1", "a");
	expect_pools(c, NULL, "a|a@1");
	catalog_close(c);
	assert_false(exists(DB));
	assert_false(exists(":memory:"));
}

static void open_empty_file_is_fresh(void **state)
{
	(void)state;
	write_file(DB, "", 0);
	write_file(DB "-wal", "left over", 9);
	catalog_close(open_db(true));
	assert_false(exists(DAMAGED));
}

/* Opening must put the file aside, whole, and go on with a new one. */
static void expect_put_aside(void)
{
	size_t len, old_len;
	char *old = read_file(DB, &old_len), *moved;
	struct catalog *c = open_db(true);

	expect_pools(c, NULL, "");
	put(c, "new");
	catalog_close(c);
	moved = read_file(DAMAGED, &len);
	assert_int_equal(len, old_len);
	assert_memory_equal(moved, old, len);
	free(old);
	free(moved);
	c = open_db(false);
	expect_pools(c, NULL, "new");
	catalog_close(c);
}

static void open_garbage_is_put_aside(void **state)
{
	char garbage[8192];

	(void)state;
	for (size_t i = 0; i < sizeof(garbage); i++)
		garbage[i] = (char)(i * 31 + 7);
	write_file(DAMAGED, "an older one", 12);
	write_file(DAMAGED "-wal", "an older one's", 14);
	write_file(DB, garbage, sizeof(garbage));
	expect_put_aside();
	assert_false(exists(DAMAGED "-wal"));
}

static void open_short_garbage_is_put_aside(void **state)
{
	(void)state;
	write_file(DB, "x", 1);
	expect_put_aside();
}

static void open_foreign_database_is_put_aside(void **state)
{
	(void)state;
	run_sql(DB, "CREATE TABLE mine(x); INSERT INTO mine VALUES(1);");
	expect_put_aside();
}

static void fill_some(int n)
{
	struct catalog *c = open_db(true);
	char name[32];

	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "pool-%d", i);
		put(c, name);
	}
	catalog_close(c);
}

static void open_truncated_is_put_aside(void **state)
{
	(void)state;
	fill_some(500);
	assert_int_equal(truncate(DB, file_len(DB) / 2 / 4096 * 4096), 0);
	expect_put_aside();
}

static void open_without_tables_is_put_aside(void **state)
{
	(void)state;
	fill_some(1);
	run_sql(DB, "DROP TABLE event");
	expect_put_aside();
}

static void damage_page(int page)
{
	char junk[4096];
	int fd = open(DB, O_WRONLY | O_CLOEXEC);

	memset(junk, 0xa5, sizeof(junk));
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, junk, sizeof(junk), page * 4096l), sizeof(junk));
	close(fd);
}

static void open_unclean_is_checked(void **state)
{
	(void)state;
	fill_some(2000);
	damage_page((int)(file_len(DB) / 4096 / 2));
	write_file(DB "-wal", "not a wal", 9);
	expect_put_aside();
}

static void damage_found_later_is_euclean(void **state)
{
	struct list l = { .n = 0 };
	struct catalog *c;
	int ret;

	(void)state;
	fill_some(2000);
	/* all but the first pages, which hold the schema */
	for (int i = 8; i < file_len(DB) / 4096; i++)
		damage_page(i);
	c = open_db(false);
	ret = catalog_each_pool(c, NULL, list_pool, &l);
	assert_int_equal(ret, -EUCLEAN);
	assert_int_equal(catalog_note(c, "sync", "a", NULL), -EUCLEAN);
	assert_int_equal(catalog_begin(c), -EUCLEAN);
	catalog_close(c);
	assert_true(exists(DAMAGED));
	assert_false(exists(DB));
	c = open_db(true);
	expect_pools(c, NULL, "");
	catalog_close(c);
}

static void tables_dropped_later_is_euclean(void **state)
{
	struct catalog_pool pool = live("b");
	struct catalog *c = open_db(true);

	(void)state;
	put(c, "a");
	run_sql(DB, "DROP TABLE root; DROP TABLE pool");
	assert_int_equal(catalog_put(c, &pool, NULL, 0), -EUCLEAN);
	catalog_close(c);
}

static void file_deleted_later_is_euclean(void **state)
{
	struct catalog_pool pool = live("b");
	struct catalog *c = open_db(true);

	(void)state;
	put(c, "a");
	assert_int_equal(unlink(DB), 0);
	assert_int_equal(catalog_put(c, &pool, NULL, 0), -EUCLEAN);
	write_file(DB, "somebody else's", 15);
	catalog_close(c);
	assert_false(exists(DAMAGED));
	assert_int_equal(unlink(DB), 0);
	c = open_db(true);
	expect_pools(c, NULL, "");
	catalog_close(c);
}

static void open_newer_is_refused_untouched(void **state)
{
	struct catalog *c = NULL;
	size_t len, after_len;
	char *before, *after, sql[64];
	bool fresh;

	(void)state;
	fill_some(3);
	snprintf(sql, sizeof(sql), "PRAGMA user_version = %d",
		 schema_steps[schema_nsteps - 1].version + 1);
	run_sql(DB, sql);
	before = read_file(DB, &len);
	assert_int_equal(catalog_open(DB, &c, &fresh), -ENOTSUP);
	assert_null(c);
	assert_non_null(strstr(catalog_errmsg(), "newer"));
	after = read_file(DB, &after_len);
	assert_int_equal(after_len, len);
	assert_memory_equal(before, after, len);
	assert_false(exists(DAMAGED));
	assert_false(exists(DB "-wal"));
	free(before);
	free(after);
}

static void open_puts_aside_what_is_no_file(void **state)
{
	struct catalog *c = NULL;
	bool fresh;
	int i;

	(void)state;
	for (i = 0; i < 3; i++) {
		if (i == 0)
			assert_int_equal(mkdir(DB, 0700), 0);
		else if (i == 1)
			assert_int_equal(mkfifo(DB, 0600), 0);
		else
			assert_int_equal(symlink("elsewhere", DB), 0);
		fresh = false;
		assert_int_equal(catalog_open(DB, &c, &fresh), 0);
		assert_true(fresh);
		catalog_close(c);
		assert_int_equal(remove(DAMAGED), 0);
		assert_int_equal(unlink(DB), 0);
	}
	assert_false(exists("elsewhere"));
	c = NULL;
	assert_int_equal(catalog_open("no/such/folder/" DB, &c, &fresh), -ENOENT);
	assert_null(c);
}

static void planted_trigger_does_not_run(void **state)
{
	struct catalog *c;

	(void)state;
	fill_some(1);
	run_sql(DB,
		"CREATE TRIGGER t AFTER INSERT ON event BEGIN DELETE FROM pool; END");
	c = open_db(false);
	assert_ok(catalog_note(c, "create", "x", NULL));
	expect_pools(c, NULL, "pool-0");
	catalog_close(c);
}

/* The child dies with the catalog open, in the middle of a group. */
static void killed_in_a_group_keeps_what_was_before(void **state)
{
	struct catalog *c;
	int status;
	pid_t pid;

	(void)state;
	fill_some(1);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		bool fresh;

		if (catalog_open(DB, &c, &fresh) != 0)
			_exit(1);
		put(c, "whole");
		catalog_begin(c);
		for (int i = 0; i < 1000; i++) {
			char name[32];

			snprintf(name, sizeof(name), "half-%d", i);
			put(c, name);
		}
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_true(file_len(DB "-wal") > 0);
	c = open_db(false);
	expect_pools(c, NULL, "pool-0|whole");
	catalog_close(c);
}

/* --- schema history ------------------------------------------------------------------- */

static sqlite3 *open_sqlite(void)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open(DB, &db), SQLITE_OK);
	return db;
}

static int count_tables(sqlite3 *db)
{
	sqlite3_stmt *stmt;
	int n;

	assert_int_equal(sqlite3_prepare_v2(db,
					    "SELECT count(*) FROM sqlite_master WHERE"
					    " type = 'table'",
					    -1, &stmt, NULL),
			 SQLITE_OK);
	assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
	n = sqlite3_column_int(stmt, 0);
	sqlite3_finalize(stmt);
	return n;
}

static void upgrade_takes_the_steps_that_are_missing(void **state)
{
	static const struct schema_step steps[] = {
		{ 1, "CREATE TABLE one(x)" },
		{ 2, "CREATE TABLE two(x); INSERT INTO two SELECT x FROM one" },
		{ 3, "CREATE TABLE three(x)" },
	};
	struct schema_state s;
	sqlite3 *db = open_sqlite();

	(void)state;
	assert_int_equal(schema_read(db, &s), SQLITE_OK);
	assert_true(s.fresh);
	assert_int_equal(schema_upgrade(db, 0, steps, 1), SQLITE_OK);
	assert_int_equal(schema_read(db, &s), SQLITE_OK);
	assert_int_equal(s.version, 1);
	assert_int_equal(s.application_id, SCHEMA_APPLICATION_ID);
	assert_false(s.fresh);
	assert_int_equal(schema_upgrade(db, 1, steps, 3), SQLITE_OK);
	assert_int_equal(schema_read(db, &s), SQLITE_OK);
	assert_int_equal(s.version, 3);
	assert_int_equal(count_tables(db), 3);
	assert_int_equal(schema_upgrade(db, 3, steps, 3), SQLITE_OK);
	sqlite3_close(db);
}

static void upgrade_that_fails_keeps_the_version_before(void **state)
{
	static const struct schema_step steps[] = {
		{ 1, "CREATE TABLE one(x)" },
		{ 2, "CREATE TABLE two(x); INSERT INTO nowhere VALUES(1)" },
		{ 3, "CREATE TABLE three(x)" },
	};
	struct schema_state s;
	sqlite3 *db = open_sqlite();

	(void)state;
	assert_int_equal(schema_upgrade(db, 0, steps, 3), SQLITE_ERROR);
	assert_int_equal(schema_read(db, &s), SQLITE_OK);
	assert_int_equal(s.version, 1);
	assert_int_equal(count_tables(db), 1);
	sqlite3_close(db);
}

/* The order and numbering that schema_upgrade() relies on. */
static void history_has_no_gaps(void **state)
{
	(void)state;
	assert_true(schema_nsteps > 0);
	for (size_t i = 0; i < schema_nsteps; i++)
		assert_int_equal(schema_steps[i].version, i + 1);
}

/* --- failures of the moment -------------------------------------------------------------- */

/* In a child: a limit on the length of files, as a disk that is full. */
static int run_out_of_space(void)
{
	struct rlimit limit = { 1 << 20, 1 << 20 };
	struct catalog *c;
	char name[64];
	bool fresh;
	int ret = 0, n = 0;

	signal(SIGXFSZ, SIG_IGN);
	if (catalog_open(DB, &c, &fresh) != 0 || setrlimit(RLIMIT_FSIZE, &limit) != 0)
		return 1;
	catalog_begin(c);
	while (ret == 0 && n < 1000000) {
		struct catalog_pool pool = live(name);

		snprintf(name, sizeof(name), "pool-with-a-longer-name-%d", n++);
		ret = catalog_put(c, &pool, NULL, 0);
	}
	if (ret == 0)
		ret = catalog_end(c);
	else if (catalog_end(c) != ret)
		return 2;
	if (ret != -EFBIG && ret != -ENOSPC)
		return 3;
	/* It goes on working for what needs no space, and in small. */
	if (catalog_each_pool(c, "pool-0", list_pool, &(struct list){ .n = 0 }) != 0)
		return 4;
	if (catalog_remove(c, "pool-0") != 0)
		return 5;
	catalog_close(c);
	return 0;
}

static void no_space_is_an_error_and_loses_nothing(void **state)
{
	struct catalog *c;
	int status;
	pid_t pid;

	(void)state;
	fill_some(2);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(run_out_of_space());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	c = open_db(false);
	expect_pools(c, NULL, "pool-1");
	catalog_close(c);
	assert_false(exists(DAMAGED));
}

static void busy_database_is_ebusy(void **state)
{
	struct catalog_pool pool = live("b");
	struct catalog *c = open_db(true);
	sqlite3 *other = open_sqlite();
	double start;

	(void)state;
	put(c, "a");
	assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL),
			 SQLITE_OK);
	start = seconds();
	assert_int_equal(catalog_put(c, &pool, NULL, 0), -EBUSY);
	assert_true(seconds() - start < 5);
	expect_pools(c, NULL, "a");
	assert_int_equal(sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(other);
	put(c, "b");
	expect_pools(c, NULL, "a|b");
	catalog_close(c);
}

/* --- threads ------------------------------------------------------------------------------ */

#define NTHREADS 4
#define NROUNDS 200

struct worker {
	struct catalog *c;
	int id;
	const char *failed;
};

static int count_one(const struct catalog_pool *pool, void *arg)
{
	(void)pool;
	++*(int *)arg;
	return 0;
}

static const char *work_once(struct catalog *c, int id, int round)
{
	char name[32], other[32];
	struct catalog_root roots[] = { { "r", "t", 1, 1 }, { name, "t", 2, 2 } };
	struct catalog_pool pool = live(name);
	struct list l = { .n = 0 };
	int n = 0;

	snprintf(name, sizeof(name), "t%d-%d", id, round);
	snprintf(other, sizeof(other), "t%d-%d.new", id, round);
	if (catalog_put(c, &pool, roots, 2) != 0)
		return "put";
	if (catalog_rename(c, name, other) != 0)
		return "rename";
	if (catalog_each_root(c, other, NULL, list_root, &l) != 0 || l.n != 2)
		return "roots";
	if (catalog_each_pool(c, NULL, count_one, &n) != 0 || n == 0)
		return "list";
	if (catalog_note(c, "rename", name, other) != 0)
		return "note";
	if (round % 2 && catalog_remove(c, other) != 0)
		return "remove";
	if (catalog_get(c, name, count_one, &n) != -ENOENT ||
	    strcmp(strrchr(catalog_errmsg(), ' '), " ''") == 0 ||
	    !strstr(catalog_errmsg(), name))
		return "get";
	return NULL;
}

static void *work(void *arg)
{
	struct worker *w = arg;

	for (int i = 0; i < NROUNDS && !w->failed; i++)
		w->failed = work_once(w->c, w->id, i);
	return NULL;
}

static void threads_share_one_catalog(void **state)
{
	struct worker workers[NTHREADS];
	pthread_t threads[NTHREADS];
	struct catalog *c = open_db(true);
	int n = 0;

	(void)state;
	for (int i = 0; i < NTHREADS; i++) {
		workers[i] = (struct worker){ .c = c, .id = i };
		assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]),
				 0);
	}
	for (int i = 0; i < NTHREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < NTHREADS; i++)
		if (workers[i].failed)
			fail_msg("thread %d: %s: %s", i, workers[i].failed,
				 catalog_errmsg());
	assert_ok(catalog_each_pool(c, NULL, count_one, &n));
	assert_int_equal(n, NTHREADS * NROUNDS / 2);
	catalog_close(c);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	static const struct CMUnitTest catalog[] = {
		CASE(put_get_returns_every_field),
		CASE(put_replaces_every_field),
		CASE(get_unknown_is_enoent),
		CASE(names_are_any_bytes),
		CASE(bad_arguments_are_einval),
		CASE(roots_follow_each_put),
		CASE(roots_of_one_name_the_first_counts),
		CASE(roots_are_of_their_pool),
		CASE(roots_list_after_and_stop),
		CASE(roots_ten_thousand),
		CASE(remove_forgets),
		CASE(rename_carries_roots_and_parents),
		CASE(rename_replaces_the_target),
		CASE(rename_onto_itself_and_of_nothing),
		CASE(list_of_a_folder),
		CASE(rename_of_a_folder),
		CASE(list_is_in_order_of_bytes),
		CASE(events_come_in_order),
		CASE(events_are_bounded),
		CASE(group_is_one_transaction),
		CASE(group_not_ended_leaves_nothing),
		CASE(group_of_100000_pools_is_quick),
		CASE(open_makes_a_private_wal_database),
		CASE(open_in_memory_makes_no_file),
		CASE(open_empty_file_is_fresh),
		CASE(open_garbage_is_put_aside),
		CASE(open_short_garbage_is_put_aside),
		CASE(open_foreign_database_is_put_aside),
		CASE(open_truncated_is_put_aside),
		CASE(open_without_tables_is_put_aside),
		CASE(open_unclean_is_checked),
		CASE(damage_found_later_is_euclean),
		CASE(tables_dropped_later_is_euclean),
		CASE(file_deleted_later_is_euclean),
		CASE(open_newer_is_refused_untouched),
		CASE(open_puts_aside_what_is_no_file),
		CASE(planted_trigger_does_not_run),
		CASE(killed_in_a_group_keeps_what_was_before),
		CASE(upgrade_takes_the_steps_that_are_missing),
		CASE(upgrade_that_fails_keeps_the_version_before),
		CASE(history_has_no_gaps),
		CASE(no_space_is_an_error_and_loses_nothing),
		CASE(busy_database_is_ebusy),
		CASE(threads_share_one_catalog),
	};

	return cmocka_run_group_tests_name("catalog", catalog, NULL, NULL);
}
