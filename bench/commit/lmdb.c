/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LMDB: keys of 8 bytes in native order (MDB_INTEGERKEY), a transaction for each commit,
 * synced as by default.  New keys, which come in order, are appended (MDB_APPEND), as
 * its manual recommends for bulk loads.
 */
#include <lmdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "commit/peer.h"
#include "tools.h"

#define MAP_LEN ((size_t)8 << 30) /* of address space */

static MDB_env *env;
static MDB_dbi dbi;
static MDB_txn *txn;
static MDB_cursor *cursor;

static void done(int rc, const char *what)
{
	need(rc == MDB_SUCCESS, what, mdb_strerror(rc));
}

static void begin(void)
{
	done(mdb_txn_begin(env, NULL, 0, &txn), "mdb_txn_begin");
	done(mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &dbi), "mdb_dbi_open");
	done(mdb_cursor_open(txn, dbi, &cursor), "mdb_cursor_open");
}

static void open_env(const char *path)
{
	done(mdb_env_create(&env), "mdb_env_create");
	done(mdb_env_set_mapsize(env, MAP_LEN), "mdb_env_set_mapsize");
	done(mdb_env_open(env, path, MDB_NOSUBDIR, 0600), path);
	begin();
}

/* (The cursor of a transaction that writes ends with it.) */
static void close_env(void)
{
	mdb_txn_abort(txn);
	mdb_env_close(env);
}

static void commit(void)
{
	done(mdb_txn_commit(txn), "mdb_txn_commit");
	begin();
}

static void put(uint64_t key, const void *value, size_t len, unsigned flags)
{
	MDB_val k = { sizeof(key), &key }, v = { len, (void *)value };

	done(mdb_cursor_put(cursor, &k, &v, flags), "mdb_cursor_put");
}

static void make_counters(void)
{
	uint64_t i;

	for (i = 0; i < NCOUNTERS; i++)
		put(i, &i, sizeof(i), MDB_APPEND);
	commit();
}

static void update(uint64_t at)
{
	MDB_val k = { sizeof(at), &at }, v;
	uint64_t n;

	done(mdb_cursor_get(cursor, &k, &v, MDB_SET), "mdb_cursor_get");
	n = *(const uint64_t *)v.mv_data + 1;
	v.mv_data = &n;
	done(mdb_cursor_put(cursor, &k, &v, MDB_CURRENT), "mdb_cursor_put");
}

static void insert(uint64_t key, const void *value)
{
	put(key, value, VALUE_LEN, MDB_APPEND);
}

static void insert_scattered(uint64_t key, const void *value)
{
	put(scattered(key), value, VALUE_LEN, 0);
}

const struct peer peers[] = {
	{ .name = "lmdb",
	  .open = open_env,
	  .close = close_env,
	  .make_counters = make_counters,
	  .update = update,
	  .insert = insert,
	  .commit = commit },
	{ .name = "lmdb-scattered",
	  .open = open_env,
	  .close = close_env,
	  .insert = insert_scattered,
	  .commit = commit },
	{ .name = NULL },
};

const char *peers_version(void)
{
	static char text[32];

	snprintf(text, sizeof(text), "LMDB %d.%d.%d", MDB_VERSION_MAJOR, MDB_VERSION_MINOR,
		 MDB_VERSION_PATCH);
	return text;
}
