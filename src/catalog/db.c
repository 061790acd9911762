/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalog's connection to SQLite: see db.h.
 *
 * The file is checked as far as it is cheap: the header always, the whole only
 * when the last user did not close it and it is small.  WAL keeps the file whole
 * through kills and power failures, so what remains is damage by others, and
 * that may as well be found later: the calls return -EUCLEAN then.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "catalog/db.h"
#include "catalog/schema.h"

#define BUSY_TIMEOUT_MS 2000
#define IN_MEMORY ":memory:"       /* as SQLite calls it */
#define CHECK_MAX_LEN (64ll << 20) /* a quick check of this takes about 0.2 s */

static const char *const suffixes[] = { "", "-wal", "-shm", "-journal" };
#define NSUFFIXES (sizeof(suffixes) / sizeof(suffixes[0]))

#define POOL_COLUMNS \
	"id, name, kind, why, uuid, ino, created_ns, stamp_ns, nroots, parent"

/* A path in folder ?1 as it is in folder ?2; by bytes, which need not be UTF-8.  (What
 * is in a folder is between FOLDER/ and FOLDER0, as '0' comes after '/'.) */
#define MOVED(path)                                      \
	"CAST(?2 || substr(CAST(" path " AS BLOB),"      \
	" length(CAST(?1 AS BLOB)) + 1) AS TEXT)"

static const char *const sql[DB_NSTMTS] = {
	[DB_BEGIN] = "BEGIN IMMEDIATE",
	[DB_COMMIT] = "COMMIT",
	[DB_ROLLBACK] = "ROLLBACK",
	[DB_POOL_GET] = "SELECT " POOL_COLUMNS " FROM pool WHERE name = ?1",
	[DB_POOL_EACH] =
		"SELECT " POOL_COLUMNS " FROM pool WHERE name > ?1 ORDER BY name",
	[DB_POOL_FROM] =
		"SELECT " POOL_COLUMNS " FROM pool WHERE name >= ?1 ORDER BY name",
	[DB_POOL_INSERT] =
		"INSERT INTO pool(name, kind, why, uuid, ino, created_ns,"
		" stamp_ns, nroots, parent) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9)",
	[DB_POOL_UPDATE] = "UPDATE pool SET kind = ?2, why = ?3, uuid = ?4, ino = ?5,"
			   " created_ns = ?6, stamp_ns = ?7, nroots = ?8, parent = ?9"
			   " WHERE name = ?1",
	[DB_POOL_DELETE] = "DELETE FROM pool WHERE name = ?1",
	[DB_POOL_RENAME] = "UPDATE pool SET name = ?2 WHERE name = ?1",
	[DB_PARENT_RENAME] = "UPDATE pool SET parent = ?2 WHERE parent = ?1",
	[DB_FOLDER_DELETE] = "DELETE FROM pool WHERE name > ?1 || '/'"
			     " AND name < ?1 || '0'",
	[DB_FOLDER_RENAME] = "UPDATE OR IGNORE pool SET name = " MOVED("name")
			     ", parent = " MOVED("parent")
			     " WHERE name > ?1 || '/' AND name < ?1 || '0'",
	[DB_ROOT_EACH] = "SELECT name, type, off, size FROM root"
			 " WHERE pool = ?1 ORDER BY name",
	[DB_ROOT_EACH_BY_NAME] = "SELECT name, type, off, size FROM root WHERE pool ="
				 " (SELECT id FROM pool WHERE name = ?1) AND name > ?2"
				 " ORDER BY name",
	[DB_ROOT_PUT] = "INSERT OR REPLACE INTO root(pool, name, type, off, size)"
			" VALUES(?1,?2,?3,?4,?5)",
	[DB_ROOT_DELETE] = "DELETE FROM root WHERE pool = ?1 AND name = ?2",
	[DB_EVENT_INSERT] = "INSERT INTO event(time_ns, what, name, detail)"
			    " VALUES(?1,?2,?3,?4)",
	[DB_EVENT_EACH] = "SELECT id, time_ns, what, name, detail FROM event"
			  " WHERE id > ?1 ORDER BY id",
	[DB_EVENT_PRUNE] = "DELETE FROM event WHERE id <= ?1",
};

/* --- errors -------------------------------------------------------------- */

static __thread char errmsg[512];

int db_fail(int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(errmsg, sizeof(errmsg), fmt, ap);
	va_end(ap);
	return err;
}

const char *db_errmsg(void)
{
	return errmsg;
}

/*
 * The one translation of SQLite's codes.  SQLITE_ERROR and SQLITE_CONSTRAINT
 * from a statement that was prepared, with checked arguments, mean that
 * somebody changed the tables; a file that is gone is as lost as a damaged one.
 */
static int to_errno(sqlite3 *db, int rc)
{
	if (rc == SQLITE_READONLY_DBMOVED || rc == SQLITE_IOERR_CORRUPTFS)
		return -EUCLEAN;
	switch (rc & 0xff) {
	case SQLITE_OK:
	case SQLITE_ROW:
	case SQLITE_DONE:
		return 0;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
	case SQLITE_CONSTRAINT:
	case SQLITE_ERROR:
	case SQLITE_SCHEMA:
		return -EUCLEAN;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
	case SQLITE_PROTOCOL:
		return -EBUSY;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_PERM:
	case SQLITE_AUTH:
		return -EACCES;
	case SQLITE_TOOBIG:
	case SQLITE_NOLFS:
		return -EFBIG;
	case SQLITE_MISUSE:
	case SQLITE_RANGE:
	case SQLITE_MISMATCH:
		return -EINVAL;
	case SQLITE_IOERR:
	case SQLITE_CANTOPEN:
		return db && sqlite3_system_errno(db) > 0 ? -sqlite3_system_errno(db)
							  : -EIO;
	default:
		return -EIO;
	}
}

/* Is it the file that is wrong, rather than the machine around it? */
static bool is_damage(int rc)
{
	return to_errno(NULL, rc) == -EUCLEAN;
}

static int fail_sqlite(struct catalog *c, int rc)
{
	int err = to_errno(c->db, rc);

	if (err == -EUCLEAN)
		c->damaged = true;
	return db_fail(err, "catalog: %s", sqlite3_errmsg(c->db));
}

int db_enter(struct catalog *c)
{
	pthread_mutex_lock(&c->lock);
	if (!c->damaged)
		return 0;
	pthread_mutex_unlock(&c->lock);
	return db_fail(-EUCLEAN, "catalog: found damaged before");
}

void db_leave(struct catalog *c)
{
	pthread_mutex_unlock(&c->lock);
}

/* --- statements and transactions ------------------------------------------ */

sqlite3_stmt *db_stmt(struct catalog *c, enum db_stmt id)
{
	sqlite3_reset(c->stmt[id]);
	sqlite3_clear_bindings(c->stmt[id]);
	return c->stmt[id];
}

int db_step(struct catalog *c, sqlite3_stmt *stmt)
{
	int rc = sqlite3_step(stmt);

	if (rc == SQLITE_ROW)
		return 1;
	return rc == SQLITE_DONE ? 0 : fail_sqlite(c, rc);
}

int db_run(struct catalog *c, sqlite3_stmt *stmt)
{
	int ret = db_step(c, stmt);

	sqlite3_reset(stmt);
	return ret < 0 ? ret : 0;
}

/*
 * In WAL mode SQLite would go on writing to a file that has been deleted, or
 * replaced by another, and nobody would ever see it again.
 */
static int check_not_moved(struct catalog *c)
{
	int moved = 0;

	if (c->path)
		sqlite3_file_control(c->db, "main", SQLITE_FCNTL_HAS_MOVED, &moved);
	if (!moved)
		return 0;
	c->damaged = c->moved = true;
	return db_fail(-EUCLEAN, "catalog: the file was moved or deleted");
}

int db_begin(struct catalog *c)
{
	int ret;

	if (c->grouped)
		return c->group_err;
	ret = check_not_moved(c);
	return ret ? ret : db_run(c, db_stmt(c, DB_BEGIN));
}

/* SQLite has rolled back by itself after some failures, a full disk for one. */
static void rollback(struct catalog *c)
{
	if (!sqlite3_get_autocommit(c->db))
		sqlite3_step(db_stmt(c, DB_ROLLBACK));
	sqlite3_reset(c->stmt[DB_ROLLBACK]);
}

int db_end(struct catalog *c, int err)
{
	if (c->grouped) {
		if (c->group_err == 0)
			c->group_err = err;
		return err;
	}
	if (err == 0)
		err = db_run(c, db_stmt(c, DB_COMMIT));
	if (err != 0)
		rollback(c);
	return err;
}

/* --- opening -------------------------------------------------------------- */

/* path + suffix, for what SQLite and we keep beside the file. */
static char *beside(const char *path, const char *suffix, const char *more)
{
	char *s = NULL;

	return asprintf(&s, "%s%s%s", path, suffix, more) < 0 ? NULL : s;
}

static int for_files(const char *path, int (*fn)(const char *path, const char *suffix))
{
	int ret = 0;

	for (size_t i = 0; i < NSUFFIXES && ret == 0; i++)
		ret = fn(path, suffixes[i]);
	return ret;
}

static int remove_one(const char *path, const char *suffix)
{
	char *name = beside(path, suffix, "");
	int ret = 0;

	if (!name)
		return db_fail(-ENOMEM, "catalog: out of memory");
	if (unlink(name) != 0 && errno != ENOENT)
		ret = db_fail(-errno, "%s: %s", name, strerror(errno));
	free(name);
	return ret;
}

static int rename_one(const char *path, const char *suffix)
{
	char *from = beside(path, suffix, "");
	char *to = beside(path, ".damaged", suffix);
	int ret = 0;

	if (!from || !to)
		ret = db_fail(-ENOMEM, "catalog: out of memory");
	else if (rename(from, to) != 0 && errno != ENOENT)
		ret = db_fail(-errno, "%s: cannot be put aside: %s", from,
			      strerror(errno));
	free(from);
	free(to);
	return ret;
}

/*
 * The database first: without it SQLite ignores the rest, while a database
 * without its -wal would look like a good one of an earlier time.
 */
static int put_aside(const char *path)
{
	char *old = beside(path, ".damaged", "");
	int ret = old ? for_files(old, remove_one)
		      : db_fail(-ENOMEM, "catalog: out of memory");

	free(old);
	return ret ? ret : for_files(path, rename_one);
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* What can be said of the file before SQLite sees it, and may change it. */
struct before {
	bool is_new;  /* not there, or empty */
	bool unclean; /* its last user did not close it */
	bool foreign; /* does not even begin like a SQLite database */
	bool newer;   /* made by a newer version of us */
	int64_t len;
};

static int look_header(const char *path, struct before *b)
{
	uint8_t head[72];
	ssize_t n;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	if (fd < 0)
		return db_fail(-errno, "%s: %s", path, strerror(errno));
	n = pread(fd, head, sizeof(head), 0);
	close(fd);
	if (n < 0)
		return db_fail(-errno, "%s: %s", path, strerror(errno));
	/* Offsets as in SQLite's own description of its file format. */
	b->foreign =
		n < (ssize_t)sizeof(head) || memcmp(head, "SQLite format 3", 16) != 0;
	b->newer = !b->foreign && be32(head + 68) == SCHEMA_APPLICATION_ID &&
		   be32(head + 60) > (uint32_t)schema_steps[schema_nsteps - 1].version;
	return 0;
}

static int look_before(const char *path, struct before *b)
{
	struct stat st;
	char *wal;

	memset(b, 0, sizeof(*b));
	if (lstat(path, &st) != 0) {
		if (errno != ENOENT)
			return db_fail(-errno, "%s: %s", path, strerror(errno));
		b->is_new = true;
		return 0;
	}
	b->foreign = !S_ISREG(st.st_mode);
	if (b->foreign)
		return 0;
	b->is_new = st.st_size == 0;
	b->len = st.st_size;
	if (b->is_new)
		return 0;
	wal = beside(path, "-wal", "");
	if (!wal)
		return db_fail(-ENOMEM, "catalog: out of memory");
	b->unclean = stat(wal, &st) == 0 && st.st_size > 0;
	free(wal);
	return look_header(path, b);
}

/*
 * A new file, for its owner alone (SQLite gives -wal and -shm the same mode).
 * Whatever lies beside it belonged to a catalog that is gone.
 */
static int create_file(const char *path)
{
	int ret = for_files(path, remove_one);
	int fd;

	if (ret != 0)
		return ret;
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return db_fail(-errno, "%s: %s", path, strerror(errno));
	close(fd);
	return 0;
}

/*
 * Nothing in the file may run code of its own (triggers, views, functions in
 * the schema), whoever wrote it.
 */
static int configure(sqlite3 *db)
{
	static const struct {
		int op, value;
	} harden[] = {
		{ SQLITE_DBCONFIG_DEFENSIVE, 1 },
		{ SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0 },
		{ SQLITE_DBCONFIG_ENABLE_TRIGGER, 0 },
		{ SQLITE_DBCONFIG_ENABLE_VIEW, 0 },
		{ SQLITE_DBCONFIG_ENABLE_FKEY, 1 },
	};
	int rc = SQLITE_OK;

	for (size_t i = 0; i < sizeof(harden) / sizeof(harden[0]) && rc == SQLITE_OK;
	     i++)
		rc = sqlite3_db_config(db, harden[i].op, harden[i].value, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_extended_result_codes(db, 1);
	if (rc == SQLITE_OK)
		rc = sqlite3_busy_timeout(db, BUSY_TIMEOUT_MS);
	return rc;
}

/*
 * Only once the file is known to be ours.  A cache of 16 MiB holds what filling
 * a store of 100,000 pools touches; where WAL is not to be had (no shared
 * memory on the file system), SQLite stays with a rollback journal.
 */
static int set_journal(sqlite3 *db)
{
	return sqlite3_exec(db,
			    "PRAGMA journal_mode = WAL;"
			    "PRAGMA synchronous = NORMAL;"
			    "PRAGMA journal_size_limit = 4194304;"
			    "PRAGMA cache_size = -16384;",
			    NULL, NULL, NULL);
}

static int prepare(struct catalog *c)
{
	int rc = SQLITE_OK;

	for (int i = 0; i < DB_NSTMTS && rc == SQLITE_OK; i++)
		rc = sqlite3_prepare_v3(c->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT,
					&c->stmt[i], NULL);
	return rc;
}

/*
 * SQLite makes the file that processes share by writing one byte to each 4 KiB of it, and
 * maps that.  Where blocks are smaller, or each change is written elsewhere, a store into it
 * can want space, and be a signal when there is none.  So then nothing is shared: nobody
 * else can open the catalog meanwhile.
 */
static bool must_not_share(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 &&
	       (fs.f_bsize < 4096 || fs.f_type == BTRFS_SUPER_MAGIC);
}

/*
 * Open what is there: a SQLite code, or SQLITE_DONE for a newer version, SQLITE_ROW for
 * an older one that may not be changed.  SQLite
 * takes a file shorter than its header for an empty database: we do not.
 */
static int connect_db(struct catalog *c, const char *path, const struct before *b,
		      bool *fresh)
{
	bool alone = must_not_share(path);
	struct schema_state state = { 0 };
	int rc;

	if (b->foreign)
		return SQLITE_NOTADB;
	/* Alone it takes a lock that only writers can have. */
	rc = sqlite3_open_v2(path, &c->db,
			     SQLITE_OPEN_NOMUTEX | (c->readonly && !alone
							    ? SQLITE_OPEN_READONLY
							    : SQLITE_OPEN_READWRITE),
			     NULL);
	if (rc == SQLITE_OK)
		rc = configure(c->db);
	if (rc == SQLITE_OK && alone)
		rc = sqlite3_exec(c->db, "PRAGMA locking_mode = EXCLUSIVE", NULL, NULL,
				  NULL);
	if (rc == SQLITE_OK)
		rc = schema_read(c->db, &state);
	if (rc != SQLITE_OK)
		return rc;
	*fresh = state.fresh;
	if (!state.fresh && state.application_id != SCHEMA_APPLICATION_ID)
		return SQLITE_NOTADB;
	if (state.version > schema_steps[schema_nsteps - 1].version)
		return SQLITE_DONE;
	if (c->readonly && state.version < schema_steps[schema_nsteps - 1].version)
		return SQLITE_ROW;
	if ((b->unclean || c->readonly) && b->len <= CHECK_MAX_LEN)
		rc = schema_check(c->db);
	if (rc == SQLITE_OK && c->readonly)
		return prepare(c);
	if (rc == SQLITE_OK)
		rc = set_journal(c->db);
	if (rc == SQLITE_OK)
		rc = schema_upgrade(c->db, state.version, schema_steps, schema_nsteps);
	return rc == SQLITE_OK ? prepare(c) : rc;
}

static void disconnect(struct catalog *c)
{
	for (int i = 0; i < DB_NSTMTS; i++) {
		sqlite3_finalize(c->stmt[i]);
		c->stmt[i] = NULL;
	}
	sqlite3_close_v2(c->db);
	c->db = NULL;
}

static int fail_newer(const char *path)
{
	return db_fail(-ENOTSUP, "%s: made by a newer version of fmfs", path);
}

/* *rc is SQLite's code, for the caller to tell damage from other failures. */
static int connect_or_fail(struct catalog *c, const char *path, const struct before *b,
			   bool *fresh, int *rc)
{
	int ret;

	*rc = connect_db(c, path, b, fresh);
	if (*rc == SQLITE_OK)
		return 0;
	if (*rc == SQLITE_DONE)
		ret = fail_newer(path);
	else if (*rc == SQLITE_ROW)
		ret = db_fail(-ENOTSUP, "%s: made by an older version of fmfs", path);
	else
		ret = db_fail(to_errno(c->db, *rc), "%s: %s", path,
			      c->db ? sqlite3_errmsg(c->db) : sqlite3_errstr(*rc));
	disconnect(c);
	return ret;
}

static int open_file(struct catalog *c, const char *path, bool *fresh, int *rc)
{
	struct before before;
	int ret = look_before(path, &before);

	*rc = SQLITE_OK;
	if (ret == 0 && before.newer)
		ret = fail_newer(path);
	if (ret == 0 && before.is_new)
		ret = create_file(path);
	return ret ? ret : connect_or_fail(c, path, &before, fresh, rc);
}

static int open_or_replace(struct catalog *c, const char *path, bool *fresh)
{
	static const struct before nothing;
	int rc, ret;

	if (strcmp(path, IN_MEMORY) == 0)
		return connect_or_fail(c, path, &nothing, fresh, &rc);
	c->path = strdup(path);
	if (!c->path)
		return db_fail(-ENOMEM, "catalog: out of memory");
	ret = open_file(c, path, fresh, &rc);
	if (ret == 0 || !is_damage(rc))
		return ret;
	ret = put_aside(path);
	return ret ? ret : open_file(c, path, fresh, &rc);
}

/* As it is, or not at all. */
static int open_to_look(struct catalog *c, const char *path)
{
	struct before before;
	int ret = look_before(path, &before), rc;
	bool fresh;

	c->readonly = true;
	if (ret == 0 && before.newer)
		ret = fail_newer(path);
	if (ret == 0 && before.is_new)
		ret = db_fail(-ENOENT, "%s: there is none", path);
	return ret ? ret : connect_or_fail(c, path, &before, &fresh, &rc);
}

/* `fresh` NULL: only to look at it. */
static int make(const char *path, struct catalog **out, bool *fresh)
{
	struct catalog *c = calloc(1, sizeof(*c));
	int ret;

	if (!c)
		return db_fail(-ENOMEM, "catalog: out of memory");
	ret = fresh ? open_or_replace(c, path, fresh) : open_to_look(c, path);
	if (ret != 0) {
		free(c->path);
		free(c);
		return ret;
	}
	pthread_mutex_init(&c->lock, NULL);
	*out = c;
	return 0;
}

int db_open(const char *path, struct catalog **out, bool *fresh)
{
	return make(path, out, fresh);
}

int db_open_readonly(const char *path, struct catalog **out)
{
	return make(path, out, NULL);
}

void db_close(struct catalog *c)
{
	if (!c)
		return;
	disconnect(c);
	/* Where opening looks, it may well seem whole. */
	if (c->damaged && !c->moved && c->path)
		put_aside(c->path);
	pthread_mutex_destroy(&c->lock);
	free(c->path);
	free(c);
}
