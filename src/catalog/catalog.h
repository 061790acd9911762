/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalog: a SQLite database in the store that knows the pools, their
 * named roots, their snapshots and what happened to them.  It is an index: the
 * pools are the truth, and a lost or damaged catalog is made again from them.
 * This folder alone sees sqlite3.h, and knows nothing of files or of FUSE.
 *
 * One struct catalog may be used by several threads; each call is one
 * transaction.  Failures are -errno; catalog_errmsg() has the words.
 * Strings are UTF-8 or any other bytes without NUL; they are bound, never
 * pasted into SQL, and come back as they were.
 *
 * Any call may find that the database has been damaged, or that its file was
 * replaced or deleted, since it was opened: -EUCLEAN, and so do all calls after
 * it.  Then catalog_close(), which puts what is damaged aside, catalog_open(),
 * and fill the catalog from the pools.  Of the other failures -ENOSPC, -EDQUOT,
 * -EBUSY (another program holds the database for more than two seconds) and -EIO
 * are of the moment: the catalog is as it was before the call, and lacks what
 * the call was to tell it.
 */
#ifndef FM_CATALOG_H
#define FM_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct catalog;

enum catalog_kind {		/* stored; never renumber */
	CATALOG_FILE = 0,	/* a file that is no pool (yet) */
	CATALOG_LIVE = 1,
	CATALOG_ATOMIC = 2,
	CATALOG_DAMAGED = 3	/* `why` says how */
};

struct catalog_pool {
	const char *name;	/* path below the mount, "folder/pool" or "pool@tag" */
	enum catalog_kind kind;
	const char *why;	/* CATALOG_DAMAGED: the damage; of another pool: why its
				 * roots are not here; NULL: they are */
	uint8_t uuid[16];	/* zero unless a pool */
	uint64_t ino;		/* of the store file */
	uint64_t created_ns;	/* nanoseconds since 1970 UTC; 0 if not known */
	uint64_t stamp_ns;	/* ctime of the store file when it was read */
	uint64_t nroots;	/* filled by the catalog; ignored in _put */
	const char *parent;	/* snapshots: name of the pool it was taken of */
};

/* So many roots of a pool are kept at most, by whoever fills the catalog: putting more
 * takes seconds, for which all wait. */
#define CATALOG_NROOTS_MAX 20000u

static inline bool catalog_lacks_roots(const struct catalog_pool *pool)
{
	return pool->kind != CATALOG_DAMAGED && pool->why != NULL;
}

struct catalog_root {
	const char *name;
	const char *type;
	uint64_t off;		/* bytes */
	uint64_t size;		/* bytes, 0 if not known */
};

struct catalog_event {
	int64_t id;
	uint64_t time_ns;	/* nanoseconds since 1970 UTC */
	const char *what;	/* "create", "rename", "remove", "snapshot", ... */
	const char *name;	/* of the pool */
	const char *detail;	/* the new name, the parent, ...; or NULL */
};
#define CATALOG_NEVENTS 100000	/* about as many are kept, the latest */

/*
 * Open the catalog in the file `path`, creating it or upgrading its schema.  A
 * damaged file, or one that is no catalog, is put aside as `path`.damaged and a
 * new one made; *fresh then tells (as for a new one) that it must be filled.
 * `path` ":memory:": no file at all, for a store that cannot be written to.
 * -ENOTSUP: made by a newer version; nothing changed.  -EISDIR, -EINVAL: `path`
 * is no regular file.
 */
int catalog_open(const char *path, struct catalog **out, bool *fresh);
/*
 * Open it only to list what is in it; it is read whole before, and nothing is changed or
 * put aside.  (An empty -wal and -shm may be left beside it.)  -ENOENT: there is none, or
 * an empty file; -EUCLEAN: damaged, or no catalog; -ENOTSUP: of a newer version, or of an
 * older one, which is to be upgraded first.
 */
int catalog_open_readonly(const char *path, struct catalog **out);
void catalog_close(struct catalog *c);

/* The last failure of this catalog in the calling thread, in words. */
const char *catalog_errmsg(void);

/* Group many calls into one transaction (filling at mount): only between
 * these two, and only by one thread while no other uses the catalog.  After a
 * write that failed, all further ones fail the same way, and so does
 * catalog_end(), with nothing of the group kept. */
int catalog_begin(struct catalog *c);
int catalog_end(struct catalog *c);

/* Insert or replace the pool of this name, with all its roots, in any order.
 * Of two roots of one name the first counts.  Writes only what differs. */
int catalog_put(struct catalog *c, const struct catalog_pool *pool,
		const struct catalog_root *roots, size_t nroots);

/* Forget the pool and its roots.  0 also if it is not there. */
int catalog_remove(struct catalog *c, const char *name);

/* Rename a pool, replacing what `to` was.  Snapshots that name `from` as their
 * parent name `to` then.  -ENOENT: there is no `from`. */
int catalog_rename(struct catalog *c, const char *from, const char *to);

/* The same for all pools in a folder, and the folders in it; but what has its new name
 * already keeps it, for it was put since.  0 also if there are none. */
int catalog_rename_folder(struct catalog *c, const char *from, const char *to);

/* Note an event now. */
int catalog_note(struct catalog *c, const char *what, const char *name,
		 const char *detail);

/*
 * Listing.  Each calls fn in order of name (events: of id) for what comes after
 * `after` (NULL or "": from the start), until fn returns non-zero, which is
 * returned, or to the end: 0.  Names are ordered by their bytes.  fn must not
 * call the catalog.  The strings live until fn returns.  A pool that is not
 * there has no roots.
 */
int catalog_each_pool(struct catalog *c, const char *after,
		      int (*fn)(const struct catalog_pool *pool, void *arg),
		      void *arg);
/* Only pools in this folder ("": those in none), not in folders in it; `after` is a name
 * in the folder. */
int catalog_each_in(struct catalog *c, const char *folder, const char *after,
		    int (*fn)(const struct catalog_pool *pool, void *arg), void *arg);
int catalog_each_root(struct catalog *c, const char *pool, const char *after,
		      int (*fn)(const struct catalog_root *root, void *arg),
		      void *arg);
int catalog_each_event(struct catalog *c, int64_t after,
		       int (*fn)(const struct catalog_event *event, void *arg),
		       void *arg);

/* One pool, through fn; -ENOENT if it is not there. */
int catalog_get(struct catalog *c, const char *name,
		int (*fn)(const struct catalog_pool *pool, void *arg), void *arg);

#endif
