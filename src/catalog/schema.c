/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The schema of the catalog as a history of steps: see schema.h.
 *
 * A released step is never edited; a change is a new step at the end.
 */
#include <config.h>

#include <stdio.h>
#include <string.h>

#include "catalog/schema.h"

/*
 * pool.nroots repeats count(*) of the pool's roots: listings would have to
 * visit every root for it otherwise.  Times and offsets are uint64_t kept in
 * SQLite's signed integers.
 */
static const char schema_1[] =
	"CREATE TABLE pool("
	" id INTEGER PRIMARY KEY,"
	" name TEXT NOT NULL UNIQUE,"
	" kind INTEGER NOT NULL,"
	" why TEXT,"
	" uuid BLOB NOT NULL,"
	" ino INTEGER NOT NULL,"
	" created_ns INTEGER NOT NULL,"
	" stamp_ns INTEGER NOT NULL,"
	" nroots INTEGER NOT NULL DEFAULT 0,"
	" parent TEXT);"
	"CREATE INDEX pool_parent ON pool(parent) WHERE parent IS NOT NULL;"
	"CREATE TABLE root("
	" pool INTEGER NOT NULL REFERENCES pool(id) ON DELETE CASCADE,"
	" name TEXT NOT NULL,"
	" type TEXT NOT NULL,"
	" off INTEGER NOT NULL,"
	" size INTEGER NOT NULL,"
	" PRIMARY KEY(pool, name)) WITHOUT ROWID;"
	"CREATE TABLE event("
	" id INTEGER PRIMARY KEY,"
	" time_ns INTEGER NOT NULL,"
	" what TEXT NOT NULL,"
	" name TEXT NOT NULL,"
	" detail TEXT);";

const struct schema_step schema_steps[] = {
	{ 1, schema_1 },
};
const size_t schema_nsteps = sizeof(schema_steps) / sizeof(schema_steps[0]);

/* The one integer that `sql` selects. */
static int select_int(sqlite3 *db, const char *sql, int *value)
{
	sqlite3_stmt *stmt = NULL;
	int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);

	if (rc != SQLITE_OK)
		return rc;
	rc = sqlite3_step(stmt);
	if (rc == SQLITE_ROW)
		*value = sqlite3_column_int(stmt, 0);
	if (rc == SQLITE_DONE)
		rc = SQLITE_CORRUPT;
	sqlite3_finalize(stmt);
	return rc == SQLITE_ROW ? SQLITE_OK : rc;
}

int schema_read(sqlite3 *db, struct schema_state *state)
{
	int id = 0, ntables = 0;
	int rc = select_int(db, "PRAGMA application_id", &id);

	if (rc == SQLITE_OK)
		rc = select_int(db, "PRAGMA user_version", &state->version);
	if (rc == SQLITE_OK)
		rc = select_int(db, "SELECT count(*) FROM sqlite_master", &ntables);
	if (rc != SQLITE_OK)
		return rc;
	state->application_id = id;
	state->fresh = id == 0 && state->version == 0 && ntables == 0;
	return SQLITE_OK;
}

static int upgrade_step(sqlite3 *db, const struct schema_step *step)
{
	char versions[96];
	int rc = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);

	if (rc != SQLITE_OK)
		return rc;
	snprintf(versions, sizeof(versions),
		 "PRAGMA application_id = %d; PRAGMA user_version = %d",
		 SCHEMA_APPLICATION_ID, step->version);
	rc = sqlite3_exec(db, step->sql, NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db, versions, NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
	if (rc != SQLITE_OK && !sqlite3_get_autocommit(db))
		sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
	return rc;
}

int schema_upgrade(sqlite3 *db, int from, const struct schema_step *steps,
		   size_t nsteps)
{
	int rc = SQLITE_OK;

	for (size_t i = 0; i < nsteps && rc == SQLITE_OK; i++)
		if (steps[i].version > from)
			rc = upgrade_step(db, &steps[i]);
	return rc;
}

int schema_check(sqlite3 *db)
{
	sqlite3_stmt *stmt = NULL;
	int rc = sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &stmt, NULL);

	if (rc != SQLITE_OK)
		return rc;
	rc = sqlite3_step(stmt);
	if (rc == SQLITE_ROW) {
		const char *verdict = (const char *)sqlite3_column_text(stmt, 0);

		rc = verdict && strcmp(verdict, "ok") == 0 ? SQLITE_OK : SQLITE_CORRUPT;
	}
	sqlite3_finalize(stmt);
	return rc;
}
