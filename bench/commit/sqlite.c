/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SQLite: a table by INTEGER PRIMARY KEY and prepared statements; WAL with
 * synchronous=FULL, so that each commit is durable, and checkpoints as by default.  All
 * pages that the workloads change have room in its cache, which would be 2 MiB.
 */
#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "commit/peer.h"
#include "tools.h"

static sqlite3 *db;
static sqlite3_stmt *update_stmt, *insert_stmt;

static void done(bool ok, const char *what)
{
	need(ok, what, sqlite3_errmsg(db));
}

static void run_sql(const char *sql)
{
	done(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK, sql);
}

static sqlite3_stmt *prepare(const char *sql)
{
	sqlite3_stmt *stmt = NULL;

	done(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) == SQLITE_OK, sql);
	return stmt;
}

static void open_db(const char *path)
{
	done(sqlite3_open(path, &db) == SQLITE_OK, path);
	run_sql("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-65536;"
		"CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
	update_stmt = prepare("UPDATE t SET v = v + 1 WHERE id = ?");
	insert_stmt = prepare("INSERT INTO t VALUES (?, ?)");
	run_sql("BEGIN");
}

static void close_db(void)
{
	run_sql("ROLLBACK");
	sqlite3_finalize(update_stmt);
	sqlite3_finalize(insert_stmt);
	sqlite3_close(db);
}

static void commit(void)
{
	run_sql("COMMIT; BEGIN");
}

static void step(sqlite3_stmt *stmt, uint64_t key)
{
	sqlite3_bind_int64(stmt, 1, key);
	done(sqlite3_step(stmt) == SQLITE_DONE, "sqlite3_step");
	sqlite3_reset(stmt);
}

/* Values that take 8 bytes in a row; small ones take less. */
static void make_counters(void)
{
	uint64_t i;

	for (i = 0; i < NCOUNTERS; i++) {
		sqlite3_bind_int64(insert_stmt, 2, (INT64_C(1) << 62) + i);
		step(insert_stmt, i);
	}
	commit();
}

static void update(uint64_t at)
{
	step(update_stmt, at);
}

static void insert(uint64_t key, const void *value)
{
	sqlite3_bind_blob(insert_stmt, 2, value, VALUE_LEN, SQLITE_STATIC);
	step(insert_stmt, key);
}

static void insert_scattered(uint64_t key, const void *value)
{
	insert(scattered(key), value);
}

const struct peer peers[] = {
	{ .name = "sqlite",
	  .open = open_db,
	  .close = close_db,
	  .make_counters = make_counters,
	  .update = update,
	  .insert = insert,
	  .commit = commit },
	{ .name = "sqlite-scattered",
	  .open = open_db,
	  .close = close_db,
	  .insert = insert_scattered,
	  .commit = commit },
	{ .name = NULL },
};

const char *peers_version(void)
{
	static char text[32];

	snprintf(text, sizeof(text), "SQLite %s", sqlite3_libversion());
	return text;
}
