/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The calls of catalog.h: what is read and written for each.  How SQLite is
 * opened and spoken to is db.c's.
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "catalog/catalog.h"
#include "catalog/db.h"

/* Old events go in batches: a DELETE with every INSERT would double the cost. */
#define PRUNE_EVERY 1024

static bool same_str(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool is_empty(const char *s)
{
	return !s || *s == '\0';
}

/* --- columns -------------------------------------------------------------- */

static const char *text(sqlite3_stmt *stmt, int column)
{
	return (const char *)sqlite3_column_text(stmt, column);
}

/* For columns that are NOT NULL, in a file that may have been meddled with. */
static const char *text_or_empty(sqlite3_stmt *stmt, int column)
{
	const char *s = text(stmt, column);

	return s ? s : "";
}

static uint64_t u64(sqlite3_stmt *stmt, int column)
{
	return (uint64_t)sqlite3_column_int64(stmt, column);
}

static void read_pool(sqlite3_stmt *stmt, struct catalog_pool *pool)
{
	const void *uuid = sqlite3_column_blob(stmt, DB_POOL_UUID);
	int kind = sqlite3_column_int(stmt, DB_POOL_KIND);

	memset(pool, 0, sizeof(*pool));
	pool->name = text_or_empty(stmt, DB_POOL_NAME);
	pool->kind = kind >= CATALOG_FILE && kind <= CATALOG_DAMAGED
			     ? (enum catalog_kind)kind
			     : CATALOG_FILE;
	pool->why = text(stmt, DB_POOL_WHY);
	if (uuid && sqlite3_column_bytes(stmt, DB_POOL_UUID) == sizeof(pool->uuid))
		memcpy(pool->uuid, uuid, sizeof(pool->uuid));
	pool->ino = u64(stmt, DB_POOL_INO);
	pool->created_ns = u64(stmt, DB_POOL_CREATED);
	pool->stamp_ns = u64(stmt, DB_POOL_STAMP);
	pool->nroots = u64(stmt, DB_POOL_NROOTS);
	pool->parent = text(stmt, DB_POOL_PARENT);
}

static void read_root(sqlite3_stmt *stmt, struct catalog_root *root)
{
	root->name = text_or_empty(stmt, 0);
	root->type = text_or_empty(stmt, 1);
	root->off = u64(stmt, 2);
	root->size = u64(stmt, 3);
}

/* Parameters stay the caller's: they outlive the step, and db_stmt() unbinds. */
static void bind_text(sqlite3_stmt *stmt, int param, const char *s)
{
	if (s)
		sqlite3_bind_text(stmt, param, s, -1, SQLITE_STATIC);
}

static void bind_u64(sqlite3_stmt *stmt, int param, uint64_t value)
{
	sqlite3_bind_int64(stmt, param, (sqlite3_int64)value);
}

/* --- opening, errors, groups ----------------------------------------------- */

int catalog_open(const char *path, struct catalog **out, bool *fresh)
{
	return db_open(path, out, fresh);
}

int catalog_open_readonly(const char *path, struct catalog **out)
{
	return db_open_readonly(path, out);
}

void catalog_close(struct catalog *c)
{
	db_close(c);
}

const char *catalog_errmsg(void)
{
	return db_errmsg();
}

int catalog_begin(struct catalog *c)
{
	int ret = db_enter(c);

	if (ret != 0)
		return ret;
	if (c->grouped)
		ret = db_fail(-EINVAL, "catalog: a group is open already");
	else
		ret = db_begin(c);
	if (ret == 0) {
		c->grouped = true;
		c->group_err = 0;
	}
	db_leave(c);
	return ret;
}

int catalog_end(struct catalog *c)
{
	int ret = db_enter(c);

	if (ret != 0)
		return ret;
	if (!c->grouped) {
		ret = db_fail(-EINVAL, "catalog: no group is open");
	} else {
		c->grouped = false;
		ret = db_end(c, c->group_err);
	}
	db_leave(c);
	return ret;
}

/* --- putting a pool --------------------------------------------------------- */

struct known { /* what the catalog has of a pool */
	int64_t id;
	bool same; /* as what is being put, but for its roots */
};

/* 1 and *known, or 0 if the pool is not there. */
static int look_up(struct catalog *c, const struct catalog_pool *pool,
		   struct known *known)
{
	sqlite3_stmt *stmt = db_stmt(c, DB_POOL_GET);
	struct catalog_pool was;
	int ret;

	bind_text(stmt, 1, pool->name);
	ret = db_step(c, stmt);
	if (ret == 1) {
		read_pool(stmt, &was);
		known->id = sqlite3_column_int64(stmt, DB_POOL_ID);
		known->same = was.kind == pool->kind && was.ino == pool->ino &&
			      was.created_ns == pool->created_ns &&
			      was.stamp_ns == pool->stamp_ns &&
			      was.nroots == pool->nroots &&
			      memcmp(was.uuid, pool->uuid, sizeof(was.uuid)) == 0 &&
			      same_str(was.why, pool->why) &&
			      same_str(was.parent, pool->parent);
	}
	sqlite3_reset(stmt);
	return ret;
}

static int write_pool(struct catalog *c, enum db_stmt id,
		      const struct catalog_pool *pool)
{
	sqlite3_stmt *stmt = db_stmt(c, id);

	bind_text(stmt, 1, pool->name);
	sqlite3_bind_int(stmt, 2, pool->kind);
	bind_text(stmt, 3, pool->why);
	sqlite3_bind_blob(stmt, 4, pool->uuid, sizeof(pool->uuid), SQLITE_STATIC);
	bind_u64(stmt, 5, pool->ino);
	bind_u64(stmt, 6, pool->created_ns);
	bind_u64(stmt, 7, pool->stamp_ns);
	bind_u64(stmt, 8, pool->nroots);
	bind_text(stmt, 9, pool->parent);
	return db_run(c, stmt);
}

static int write_root(struct catalog *c, int64_t pool_id,
		      const struct catalog_root *root)
{
	sqlite3_stmt *stmt = db_stmt(c, DB_ROOT_PUT);

	sqlite3_bind_int64(stmt, 1, pool_id);
	bind_text(stmt, 2, root->name);
	bind_text(stmt, 3, root->type);
	bind_u64(stmt, 4, root->off);
	bind_u64(stmt, 5, root->size);
	return db_run(c, stmt);
}

static int delete_root(struct catalog *c, int64_t pool_id, const char *name)
{
	sqlite3_stmt *stmt = db_stmt(c, DB_ROOT_DELETE);

	sqlite3_bind_int64(stmt, 1, pool_id);
	bind_text(stmt, 2, name);
	return db_run(c, stmt);
}

/*
 * The roots that a pool is to have: pointers to the caller's, in order of name
 * and without duplicates; and how they differ from what the catalog has.
 * Writing the difference makes a sync of a pool with many roots cheap.
 */
struct wanted {
	const struct catalog_root **root;
	size_t n;
	bool *write; /* root[i] is to be written */
	char **gone; /* names that are to be deleted */
	size_t ngone, max_gone;
};

/* Among equal names, in the order they were given. */
static int by_name(const void *a, const void *b)
{
	const struct catalog_root *x = *(const struct catalog_root *const *)a;
	const struct catalog_root *y = *(const struct catalog_root *const *)b;
	int order = strcmp(x->name, y->name);

	return order ? order : (x > y) - (x < y);
}

static void free_wanted(struct wanted *w)
{
	for (size_t i = 0; i < w->ngone; i++)
		free(w->gone[i]);
	free(w->gone);
	free(w->write);
	free(w->root);
}

static int sort_wanted(struct wanted *w, const struct catalog_root *roots, size_t n)
{
	memset(w, 0, sizeof(*w));
	if (n == 0)
		return 0;
	w->root = calloc(n, sizeof(*w->root));
	w->write = calloc(n, sizeof(*w->write));
	if (!w->root || !w->write) {
		free_wanted(w);
		return db_fail(-ENOMEM, "catalog: out of memory");
	}
	for (size_t i = 0; i < n; i++)
		w->root[i] = &roots[i];
	qsort(w->root, n, sizeof(*w->root), by_name);
	for (size_t i = 0; i < n; i++)
		if (w->n == 0 || strcmp(w->root[w->n - 1]->name, w->root[i]->name) != 0)
			w->root[w->n++] = w->root[i];
	for (size_t i = 0; i < w->n; i++)
		w->write[i] = true;
	return 0;
}

static int add_gone(struct wanted *w, const char *name)
{
	if (w->ngone == w->max_gone) {
		size_t max = w->max_gone ? 2 * w->max_gone : 16;
		char **gone = reallocarray(w->gone, max, sizeof(*gone));

		if (!gone)
			return db_fail(-ENOMEM, "catalog: out of memory");
		w->gone = gone;
		w->max_gone = max;
	}
	w->gone[w->ngone] = strdup(name);
	if (!w->gone[w->ngone])
		return db_fail(-ENOMEM, "catalog: out of memory");
	w->ngone++;
	return 0;
}

/*
 * Walk both lists in order of name.  strcmp() orders as SQLite does; were the
 * two ever to differ (a damaged index), roots would be written needlessly and
 * the deletions, made first, could not hurt them.
 */
static int compare_roots(struct catalog *c, int64_t pool_id, struct wanted *w)
{
	sqlite3_stmt *stmt = db_stmt(c, DB_ROOT_EACH);
	size_t i = 0;
	int ret;

	sqlite3_bind_int64(stmt, 1, pool_id);
	while ((ret = db_step(c, stmt)) == 1) {
		struct catalog_root have;

		read_root(stmt, &have);
		while (i < w->n && strcmp(w->root[i]->name, have.name) < 0)
			i++;
		if (i < w->n && strcmp(w->root[i]->name, have.name) == 0) {
			w->write[i] = w->root[i]->off != have.off ||
				      w->root[i]->size != have.size ||
				      strcmp(w->root[i]->type, have.type) != 0;
			i++;
		} else {
			ret = add_gone(w, have.name);
			if (ret != 0)
				break;
		}
	}
	sqlite3_reset(stmt);
	return ret;
}

static bool roots_differ(const struct wanted *w)
{
	for (size_t i = 0; i < w->n; i++)
		if (w->write[i])
			return true;
	return w->ngone != 0;
}

static int write_roots(struct catalog *c, int64_t pool_id, const struct wanted *w)
{
	int ret = 0;

	for (size_t i = 0; i < w->ngone && ret == 0; i++)
		ret = delete_root(c, pool_id, w->gone[i]);
	for (size_t i = 0; i < w->n && ret == 0; i++)
		if (w->write[i])
			ret = write_root(c, pool_id, w->root[i]);
	return ret;
}

/* Called without a transaction: most puts at a sync find nothing to write. */
static int put_locked(struct catalog *c, const struct catalog_pool *pool,
		      struct wanted *w)
{
	struct known known = { 0 };
	int found = look_up(c, pool, &known);
	int ret = 0;

	if (found < 0)
		return found;
	if (found)
		ret = compare_roots(c, known.id, w);
	if (ret != 0 || (found && known.same && !roots_differ(w)))
		return ret;
	ret = db_begin(c);
	if (ret != 0)
		return ret;
	ret = write_pool(c, found ? DB_POOL_UPDATE : DB_POOL_INSERT, pool);
	if (ret == 0)
		ret = write_roots(
			c, found ? known.id : sqlite3_last_insert_rowid(c->db), w);
	return db_end(c, ret);
}

static bool roots_ok(const struct catalog_root *roots, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (is_empty(roots[i].name) || !roots[i].type)
			return false;
	return true;
}

int catalog_put(struct catalog *c, const struct catalog_pool *pool,
		const struct catalog_root *roots, size_t nroots)
{
	struct catalog_pool put = *pool;
	struct wanted wanted;
	int ret;

	if (is_empty(pool->name) || !roots_ok(roots, nroots))
		return db_fail(-EINVAL, "catalog: a pool or root without a name");
	ret = sort_wanted(&wanted, roots, nroots);
	if (ret != 0)
		return ret;
	put.nroots = wanted.n;
	ret = db_enter(c);
	if (ret == 0) {
		ret = c->grouped && c->group_err ? c->group_err
						 : put_locked(c, &put, &wanted);
		db_leave(c);
	}
	free_wanted(&wanted);
	return ret;
}

/* --- removing, renaming, noting ---------------------------------------------- */

/* A statement whose parameters 1 and 2 are names. */
static int run_names(struct catalog *c, enum db_stmt id, const char *first,
		     const char *second)
{
	sqlite3_stmt *stmt = db_stmt(c, id);

	bind_text(stmt, 1, first);
	if (second)
		bind_text(stmt, 2, second);
	return db_run(c, stmt);
}

int catalog_remove(struct catalog *c, const char *name)
{
	int ret;

	if (is_empty(name))
		return db_fail(-EINVAL, "catalog: a pool without a name");
	ret = db_enter(c);
	if (ret != 0)
		return ret;
	ret = db_begin(c);
	if (ret == 0)
		ret = db_end(c, run_names(c, DB_POOL_DELETE, name, NULL));
	db_leave(c);
	return ret;
}

static int rename_locked(struct catalog *c, const char *from, const char *to)
{
	struct catalog_pool pool = { .name = from };
	struct known known;
	int ret = look_up(c, &pool, &known);

	if (ret < 0)
		return ret;
	if (ret == 0)
		return db_fail(-ENOENT, "catalog: no pool '%s'", from);
	if (strcmp(from, to) == 0)
		return 0;
	ret = db_begin(c);
	if (ret != 0)
		return ret;
	ret = run_names(c, DB_POOL_DELETE, to, NULL);
	if (ret == 0)
		ret = run_names(c, DB_POOL_RENAME, from, to);
	if (ret == 0)
		ret = run_names(c, DB_PARENT_RENAME, from, to);
	return db_end(c, ret);
}

int catalog_rename(struct catalog *c, const char *from, const char *to)
{
	int ret;

	if (is_empty(from) || is_empty(to))
		return db_fail(-EINVAL, "catalog: a pool without a name");
	ret = db_enter(c);
	if (ret != 0)
		return ret;
	ret = c->grouped && c->group_err ? c->group_err : rename_locked(c, from, to);
	db_leave(c);
	return ret;
}

int catalog_rename_folder(struct catalog *c, const char *from, const char *to)
{
	int ret;

	if (is_empty(from) || is_empty(to))
		return db_fail(-EINVAL, "catalog: a folder without a name");
	if (strcmp(from, to) == 0)
		return 0;
	ret = db_enter(c);
	if (ret != 0)
		return ret;
	ret = db_begin(c);
	if (ret == 0) {
		ret = run_names(c, DB_FOLDER_RENAME, from, to);
		if (ret == 0)
			ret = run_names(c, DB_FOLDER_DELETE, from, NULL);
		ret = db_end(c, ret);
	}
	db_leave(c);
	return ret;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int note_locked(struct catalog *c, const char *what, const char *name,
		       const char *detail)
{
	sqlite3_stmt *stmt = db_stmt(c, DB_EVENT_INSERT);
	int64_t id;
	int ret;

	bind_u64(stmt, 1, now_ns());
	bind_text(stmt, 2, what);
	bind_text(stmt, 3, name);
	bind_text(stmt, 4, detail);
	ret = db_run(c, stmt);
	id = sqlite3_last_insert_rowid(c->db);
	if (ret != 0 || id % PRUNE_EVERY != 0)
		return ret;
	stmt = db_stmt(c, DB_EVENT_PRUNE);
	sqlite3_bind_int64(stmt, 1, id - CATALOG_NEVENTS);
	return db_run(c, stmt);
}

int catalog_note(struct catalog *c, const char *what, const char *name,
		 const char *detail)
{
	int ret;

	if (is_empty(what) || !name)
		return db_fail(-EINVAL, "catalog: an event without a name");
	ret = db_enter(c);
	if (ret != 0)
		return ret;
	ret = db_begin(c);
	if (ret == 0)
		ret = db_end(c, note_locked(c, what, name, detail));
	db_leave(c);
	return ret;
}

/* --- listing ------------------------------------------------------------------ */

int catalog_each_pool(struct catalog *c, const char *after,
		      int (*fn)(const struct catalog_pool *pool, void *arg), void *arg)
{
	sqlite3_stmt *stmt;
	int ret = db_enter(c);

	if (ret != 0)
		return ret;
	stmt = db_stmt(c, DB_POOL_EACH);
	bind_text(stmt, 1, after ? after : "");
	while ((ret = db_step(c, stmt)) == 1) {
		struct catalog_pool pool;

		read_pool(stmt, &pool);
		ret = fn(&pool, arg);
		if (ret != 0)
			break;
	}
	sqlite3_reset(stmt);
	db_leave(c);
	return ret;
}

/* Where the folder of the path below `prefix` ends, in the order of names: FOLDER0, as
 * '0' comes after '/'.  NULL: the path is that of a pool. */
static int find_end(const char *prefix, const char *path, char **end)
{
	const char *slash = strchr(path + strlen(prefix), '/');

	*end = slash == NULL ? NULL : strndup(path, slash - path + 1);
	if (*end != NULL)
		(*end)[slash - path] = '0';
	return slash != NULL && *end == NULL
		       ? db_fail(-ENOMEM, "catalog: out of memory")
		       : 0;
}

/* List what comes from *from on, up to a folder: *from is its end then, else NULL. */
static int list_run(struct catalog *c, const char *prefix, const char *after,
		    char **from, int (*fn)(const struct catalog_pool *pool, void *arg),
		    void *arg)
{
	sqlite3_stmt *stmt = db_stmt(c, DB_POOL_FROM);
	struct catalog_pool pool;
	char *end = NULL;
	int found, ret = 0;

	bind_text(stmt, 1, *from);
	while (ret == 0 && end == NULL && (found = db_step(c, stmt)) != 0) {
		if (found < 0) {
			ret = found;
			break;
		}
		read_pool(stmt, &pool);
		if (strncmp(pool.name, prefix, strlen(prefix)) != 0)
			break;
		ret = find_end(prefix, pool.name, &end);
		if (ret == 0 && end == NULL && strcmp(pool.name, after) != 0)
			ret = fn(&pool, arg);
	}
	sqlite3_reset(stmt);
	free(*from);
	*from = end;
	return ret;
}

int catalog_each_in(struct catalog *c, const char *folder, const char *after,
		    int (*fn)(const struct catalog_pool *pool, void *arg), void *arg)
{
	char *prefix = NULL, *last = NULL, *from;
	int ret;

	if (asprintf(&prefix, "%s%s", folder, is_empty(folder) ? "" : "/") < 0)
		return db_fail(-ENOMEM, "catalog: out of memory");
	if (asprintf(&last, "%s%s", prefix, after ? after : "") < 0)
		last = NULL;
	from = last == NULL ? NULL : strdup(last);
	ret = from == NULL ? db_fail(-ENOMEM, "catalog: out of memory") : db_enter(c);
	if (ret == 0) {
		while (ret == 0 && from != NULL)
			ret = list_run(c, prefix, last, &from, fn, arg);
		db_leave(c);
	}
	free(from);
	free(last);
	free(prefix);
	return ret;
}

int catalog_each_root(struct catalog *c, const char *pool, const char *after,
		      int (*fn)(const struct catalog_root *root, void *arg), void *arg)
{
	sqlite3_stmt *stmt;
	int ret = db_enter(c);

	if (ret != 0)
		return ret;
	stmt = db_stmt(c, DB_ROOT_EACH_BY_NAME);
	bind_text(stmt, 1, pool);
	bind_text(stmt, 2, after ? after : "");
	while ((ret = db_step(c, stmt)) == 1) {
		struct catalog_root root;

		read_root(stmt, &root);
		ret = fn(&root, arg);
		if (ret != 0)
			break;
	}
	sqlite3_reset(stmt);
	db_leave(c);
	return ret;
}

int catalog_each_event(struct catalog *c, int64_t after,
		       int (*fn)(const struct catalog_event *event, void *arg),
		       void *arg)
{
	sqlite3_stmt *stmt;
	int ret = db_enter(c);

	if (ret != 0)
		return ret;
	stmt = db_stmt(c, DB_EVENT_EACH);
	sqlite3_bind_int64(stmt, 1, after);
	while ((ret = db_step(c, stmt)) == 1) {
		struct catalog_event event = {
			.id = sqlite3_column_int64(stmt, 0),
			.time_ns = u64(stmt, 1),
			.what = text_or_empty(stmt, 2),
			.name = text_or_empty(stmt, 3),
			.detail = text(stmt, 4),
		};

		ret = fn(&event, arg);
		if (ret != 0)
			break;
	}
	sqlite3_reset(stmt);
	db_leave(c);
	return ret;
}

int catalog_get(struct catalog *c, const char *name,
		int (*fn)(const struct catalog_pool *pool, void *arg), void *arg)
{
	struct catalog_pool pool;
	sqlite3_stmt *stmt;
	int ret = db_enter(c);

	if (ret != 0)
		return ret;
	stmt = db_stmt(c, DB_POOL_GET);
	bind_text(stmt, 1, name);
	ret = db_step(c, stmt);
	if (ret == 1) {
		read_pool(stmt, &pool);
		ret = fn(&pool, arg);
	} else if (ret == 0) {
		ret = db_fail(-ENOENT, "catalog: no pool '%s'", name);
	}
	sqlite3_reset(stmt);
	db_leave(c);
	return ret;
}
