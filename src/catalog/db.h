/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalog's connection to SQLite: opening and what can be wrong with the
 * file, prepared statements, transactions, and errors.  Knows the SQL; what
 * the calls of catalog.h mean is catalog.c's.
 *
 * All functions but the first four are called between db_enter() and db_leave().
 */
#ifndef FM_CATALOG_DB_H
#define FM_CATALOG_DB_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>

#include "catalog/catalog.h"

enum db_stmt {
	DB_BEGIN,
	DB_COMMIT,
	DB_ROLLBACK,
	DB_POOL_GET,
	DB_POOL_EACH,
	DB_POOL_FROM,
	DB_POOL_INSERT,
	DB_POOL_UPDATE,
	DB_POOL_DELETE,
	DB_POOL_RENAME,
	DB_PARENT_RENAME,
	DB_FOLDER_DELETE,
	DB_FOLDER_RENAME,
	DB_ROOT_EACH,
	DB_ROOT_EACH_BY_NAME,
	DB_ROOT_PUT,
	DB_ROOT_DELETE,
	DB_EVENT_INSERT,
	DB_EVENT_EACH,
	DB_EVENT_PRUNE,
	DB_NSTMTS
};

/* Columns of DB_POOL_GET, DB_POOL_EACH and DB_POOL_FROM. */
enum db_pool_column {
	DB_POOL_ID,
	DB_POOL_NAME,
	DB_POOL_KIND,
	DB_POOL_WHY,
	DB_POOL_UUID,
	DB_POOL_INO,
	DB_POOL_CREATED,
	DB_POOL_STAMP,
	DB_POOL_NROOTS,
	DB_POOL_PARENT
};

struct catalog {
	pthread_mutex_t lock; /* of everything below */
	sqlite3 *db;
	sqlite3_stmt *stmt[DB_NSTMTS];
	char *path;    /* of the file; NULL: none */
	bool readonly; /* only to be looked at */
	bool damaged;  /* a call has returned -EUCLEAN */
	bool moved;    /* and that because the file is not at `path` */
	bool grouped;  /* between catalog_begin() and catalog_end() */
	int group_err; /* first failure of a write since then: 0 or -errno */
};

/* As catalog_open(). */
int db_open(const char *path, struct catalog **out, bool *fresh);
/* As catalog_open_readonly(). */
int db_open_readonly(const char *path, struct catalog **out);
void db_close(struct catalog *c);

/* Around every call: -EUCLEAN, without the lock, if the catalog is damaged. */
int db_enter(struct catalog *c);
void db_leave(struct catalog *c);

/* The statement, with no bindings. */
sqlite3_stmt *db_stmt(struct catalog *c, enum db_stmt id);

/* Step: 1 with a row, 0 at the end, -errno (and catalog_errmsg()). */
int db_step(struct catalog *c, sqlite3_stmt *stmt);

/* Step a statement that returns no rows, and reset it.  0 or -errno. */
int db_run(struct catalog *c, sqlite3_stmt *stmt);

/*
 * A transaction around the writes of one call.  Inside a group it joins the
 * group's, and after a failed write every further call returns that failure.
 * db_end() commits if err is 0 and rolls back if not; returns err, or how the
 * commit failed.
 */
int db_begin(struct catalog *c);
int db_end(struct catalog *c, int err);

/* Remember a failure in words for catalog_errmsg(); returns err. */
int db_fail(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *db_errmsg(void);

#endif
