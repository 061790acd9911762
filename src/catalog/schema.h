/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The schema of the catalog as a history of steps.  Knows SQL and versions;
 * knows nothing of damage, files or statements.
 */
#ifndef FM_CATALOG_SCHEMA_H
#define FM_CATALOG_SCHEMA_H

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

#define SCHEMA_APPLICATION_ID 0x464d4653 /* "FMFS" */

struct schema_step {
	int version; /* what the database has after the step */
	const char *sql;
};

/* In order of version, without gaps; the last one is what this program uses. */
extern const struct schema_step schema_steps[];
extern const size_t schema_nsteps;

/* What the database itself says; fresh means that it holds nothing at all. */
struct schema_state {
	int32_t application_id;
	int version;
	int fresh;
};

/* All three return a SQLite result code. */
int schema_read(sqlite3 *db, struct schema_state *state);

/*
 * Bring a database of version `from` to the last of the steps.  Each step is
 * one transaction with its version, so that a crash leaves a whole version.
 */
int schema_upgrade(sqlite3 *db, int from, const struct schema_step *steps,
		   size_t nsteps);

/* SQLITE_CORRUPT if a superficial check of the whole file finds damage. */
int schema_check(sqlite3 *db);

#endif
