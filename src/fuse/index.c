/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread that keeps the catalog, and its queue.
 *
 * A catalog that failed is not trusted any more: the store is scanned, which
 * makes the catalog right whatever was missed, before anything else is written.
 */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <unistd.h>

#include "catalog/catalog.h"
#include "common/clock.h"
#include "common/log.h"
#include "fuse/entry.h"
#include "fuse/fmfs.h"
#include "fuse/state.h"
#include "heap/inspect.h"

#define TOUCH_DELAY_NS 500000000ull
#define QUIET_NS 20000000ull   /* when nothing was told for so long, it is time to write, */
#define GATHER_NS 500000000ull /* or so long after the first that was told */
#define BATCH 256  /* jobs in a transaction */
#define DRAIN_S 10 /* how long a listing waits at most */
#define IN_MEMORY ":memory:" /* SQLite's name for what is in no file */

/* node->queued, guarded by index->lock */
#define QUEUED_NOW 1u
#define QUEUED_LATER 2u
/* Behind all that was told, also if it is to be read before: a name that was removed or
 * renamed meanwhile is this file's by then. */
#define QUEUED_AGAIN 0u

enum job_kind {
	JOB_PUT,    /* read the file of the node again */
	JOB_REMOVE, /* name, with the note */
	JOB_RENAME, /* name to other, a pool or a folder */
	JOB_NOTE    /* what, name, other */
};

struct job {
	STAILQ_ENTRY(job) link;
	enum job_kind kind;
	unsigned int queued; /* JOB_PUT: its bit in node->queued, if any */
	uint64_t seq;        /* the order of being told */
	uint64_t due_ns;
	struct node *node;
	char *what;
	char *name;
	char *other;
	bool folder; /* JOB_RENAME: of one */
};

STAILQ_HEAD(job_queue, job);

struct folder {
	STAILQ_ENTRY(folder) link;
	char path[]; /* below pools/; "": that itself */
};

STAILQ_HEAD(folder_queue, folder);

static int add_folder(struct folder_queue *q, const char *path)
{
	struct folder *f = malloc(sizeof(*f) + strlen(path) + 1);

	if (f == NULL)
		return -ENOMEM;
	strcpy(f->path, path);
	STAILQ_INSERT_TAIL(q, f, link);
	return 0;
}

struct index {
	struct fmfs *f;
	char path[PATH_MAX + 16]; /* of the catalog */

	pthread_mutex_t work;    /* guards the catalog; taken before `lock` */
	struct catalog *catalog; /* NULL: could not be opened */
	bool scan_needed;
	struct folder_queue moved; /* of the thread: to be scanned when all is quiet */

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t changed;
	struct job_queue now, later; /* each in the order of seq and due_ns */
	uint64_t last_seq;
	uint64_t told_ns;  /* when that was told */
	uint64_t busy_seq; /* the least of the batch being written; 0: none is */
	bool idle;         /* the thread wants to know of what is told */
	bool hurry;        /* somebody waits: nothing is too early */
	bool stop;         /* when all is written */
	bool paused;       /* at once */
	pthread_t thread;
};

/* --- from a file to a row ------------------------------------------------- */

struct root_list {
	struct pool_root *root;
	size_t n, size;
};

static int collect_root(const struct pool_root *root, void *arg)
{
	struct root_list *l = arg;

	if (l->n == CATALOG_NROOTS_MAX)
		return -EFBIG;
	if (l->n == l->size) {
		size_t size = l->size == 0 ? 16 : l->size * 2;
		struct pool_root *p = reallocarray(l->root, size, sizeof(*p));

		if (p == NULL)
			return -ENOMEM;
		l->root = p;
		l->size = size;
	}
	l->root[l->n++] = *root;
	return 0;
}

/* Let the catalog have the pool, and these roots of it. */
static int put_pool(struct index *x, const struct catalog_pool *pool,
		    const struct root_list *l)
{
	struct catalog_root *roots = calloc(l->n + 1, sizeof(*roots));
	int rc;

	if (roots == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < l->n; i++)
		roots[i] = (struct catalog_root){
			.name = l->root[i].name,
			.type = l->root[i].type,
			.off = l->root[i].off,
			.size = l->root[i].size,
		};
	rc = catalog_put(x->catalog, pool, roots, l->n);
	free(roots);
	return rc;
}

static uint64_t birth_ns(int fd)
{
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &stx) < 0 ||
	    !(stx.stx_mask & STATX_BTIME))
		return 0;
	return stx.stx_btime.tv_sec * 1000000000ull + stx.stx_btime.tv_nsec;
}

static uint64_t ctime_ns(const struct stat *st)
{
	return st->st_ctim.tv_sec * 1000000000ull + st->st_ctim.tv_nsec;
}

int index_kind(const struct pool_info *info)
{
	switch (info->state) {
	case POOL_NONE:
		return CATALOG_FILE;
	case POOL_GOOD:
		return info->incompat & FM_INCOMPAT_ATOMIC ? CATALOG_ATOMIC
							   : CATALOG_LIVE;
	default:
		return CATALOG_DAMAGED;
	}
}

static int note_ino(const struct catalog_pool *pool, void *arg)
{
	*(uint64_t *)arg = pool->ino;
	return 0;
}

static bool is_known(struct index *x, const struct catalog_pool *pool)
{
	uint64_t ino = 0;

	return catalog_get(x->catalog, pool->name, note_ino, &ino) == 0 &&
	       ino == pool->ino;
}

/* 1: the catalog is to keep what it has of the pool. */
static int find_roots(struct index *x, int fd, struct catalog_pool *pool,
		      struct root_list *roots)
{
	int rc = inspect_roots(fd, collect_root, roots);

	if (rc >= 0)
		return 0;
	if (rc == -EUCLEAN) {
		pool->kind = CATALOG_DAMAGED;
		pool->why = "the named roots are damaged";
		return 0;
	}
	/* A checkpoint, after which it will be told again; or somebody just has the lock.
	 * Nobody else's file waits for that, or for what is too much. */
	if (rc == -EBUSY && is_known(x, pool))
		return 1;
	roots->n = 0;
	pool->why = rc == -EFBIG ? "too much to be in the catalog" : strerror(-rc);
	if (rc != -EFBIG)
		pool->stamp_ns = 0;
	return 0;
}

/* Of a snapshot: the pool that it is of, to be freed. */
static char *parent_of(const char *path)
{
	const char *base = store_name_of(path);

	return strndup(path, base - path + strcspn(base, "@"));
}

/*
 * Put the file into the catalog.  `in_use`: somebody may be writing to it, in
 * ways that do not show in its times; so it is read again at the next scan.
 */
static int put_file(struct index *x, const char *path, int fd, bool in_use)
{
	const bool is_snapshot = name_is_snapshot(store_name_of(path));
	struct catalog_pool pool = { .name = path };
	struct root_list roots = { 0 };
	struct pool_info info;
	char *parent = NULL;
	struct stat st;
	int rc;

	/* The times first: what changes later is then seen as changed. */
	if (fstat(fd, &st) < 0)
		return -errno;
	rc = inspect_pool(fd, &info);
	if (rc < 0)
		return rc;
	pool.kind = index_kind(&info);
	pool.ino = st.st_ino;
	pool.stamp_ns = in_use || locks_pool_in_use(fd) ? 0 : ctime_ns(&st);
	pool.created_ns = birth_ns(fd);
	if (info.state == POOL_GOOD) {
		memcpy(pool.uuid, info.uuid, sizeof(pool.uuid));
		if (!is_snapshot)
			pool.created_ns = info.created_ns;
		rc = find_roots(x, fd, &pool, &roots);
	}
	if (pool.kind == CATALOG_DAMAGED && pool.why == NULL)
		pool.why = info.why;
	if (is_snapshot)
		pool.parent = parent = parent_of(path);
	if (is_snapshot && parent == NULL)
		rc = -ENOMEM;
	if (rc == 0)
		rc = put_pool(x, &pool, &roots);
	free(parent);
	free(roots.root);
	return rc < 0 ? rc : 0;
}

static int open_node(struct node_table *t, struct node *n, char path[NODE_PATH_LEN])
{
	int fd;

	/* The path and the file are to be of one moment. */
	node_hold_names(t);
	fd = node_path(t, n, path);
	if (fd == 0)
		fd = node_open(t, n, O_RDONLY | O_NOATIME);
	node_let_names(t);
	return fd;
}

static int put_node(struct index *x, struct node *n)
{
	char path[NODE_PATH_LEN];
	bool in_use;
	int fd, rc;

	pthread_mutex_lock(&n->lock);
	in_use = n->nopen > 0;
	pthread_mutex_unlock(&n->lock);
	fd = open_node(&x->f->nodes, n, path);
	if (fd < 0)
		return 0; /* removed since */
	rc = put_file(x, path, fd, in_use);
	close(fd);
	return rc;
}

/* --- scanning the store ------------------------------------------------------ */

struct known { /* a row of the catalog */
	char *name;
	uint64_t ino, stamp_ns;
	bool seen; /* its file is there */
};

struct known_list { /* in the order of the names */
	struct known *known;
	size_t n, size;
};

struct collecting {
	struct known_list *list;
	const char *prefix;
};
#define BEYOND 1 /* not one with the prefix, which are one after the other */

static int collect_known(const struct catalog_pool *pool, void *arg)
{
	const struct collecting *c = arg;
	struct known_list *l = c->list;
	struct known *k;

	if (strncmp(pool->name, c->prefix, strlen(c->prefix)) != 0)
		return BEYOND;

	if (l->n == l->size) {
		size_t size = l->size == 0 ? 64 : l->size * 2;

		k = reallocarray(l->known, size, sizeof(*k));
		if (k == NULL)
			return -ENOMEM;
		l->known = k;
		l->size = size;
	}
	k = &l->known[l->n];
	*k = (struct known){
		.name = strdup(pool->name),
		.ino = pool->ino,
		.stamp_ns = pool->stamp_ns,
	};
	l->n++;
	return k->name == NULL ? -ENOMEM : 0;
}

static void free_known(struct known_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->known[i].name);
	free(l->known);
}

static int compare_known(const void *a, const void *b)
{
	return strcmp(((const struct known *)a)->name, ((const struct known *)b)->name);
}

static int scan_file(struct index *x, struct known_list *l, const char *path,
		     const struct stat *st)
{
	const struct known key = { .name = (char *)path };
	struct known *k;
	int fd, rc;

	k = l->n == 0 ? NULL : bsearch(&key, l->known, l->n, sizeof(*k), compare_known);
	if (k != NULL) {
		k->seen = true;
		if (k->ino == st->st_ino && k->stamp_ns == ctime_ns(st))
			return 0;
	}
	fd = openat(x->f->store.pools_fd, path,
		    O_RDONLY | O_NOATIME | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		log_warn("%s: cannot read it for the catalog: %s", path,
			 strerror(errno));
		return 0;
	}
	/* It may be open at the mount, if this scan repairs the catalog. */
	rc = put_file(x, path, fd, x->f->session != NULL);
	close(fd);
	return rc;
}

static int scan_entry(struct index *x, struct known_list *l, struct folder_queue *q,
		      const char *folder, int dirfd, const char *name)
{
	char path[NODE_PATH_LEN];
	struct stat st;

	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
	    fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	    !entry_visible(x->f, name, &st))
		return 0;
	if (snprintf(path, sizeof(path), "%s%s%s", folder, *folder == '\0' ? "" : "/",
		     name) >= (int)sizeof(path))
		return 0; /* nor can it be reached at the mount */
	return S_ISDIR(st.st_mode) ? add_folder(q, path) : scan_file(x, l, path, &st);
}

/* Adds the folders in it to the queue. */
static int scan_folder(struct index *x, struct known_list *l, struct folder_queue *q,
		       const char *folder)
{
	DIR *d = store_list(x->f->store.pools_fd, *folder == '\0' ? "." : folder);
	struct dirent *de;
	int rc = 0;

	if (d == NULL) /* removed meanwhile, or another kind of thing */
		return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
	while (rc == 0 && (de = readdir(d)) != NULL)
		rc = scan_entry(x, l, q, folder, dirfd(d), de->d_name);
	closedir(d);
	return rc;
}

static int scan_files(struct index *x, struct known_list *l, const char *folder)
{
	struct folder_queue q = STAILQ_HEAD_INITIALIZER(q);
	int rc = add_folder(&q, folder);
	struct folder *f;

	while ((f = STAILQ_FIRST(&q)) != NULL) {
		STAILQ_REMOVE_HEAD(&q, link);
		if (rc == 0)
			rc = scan_folder(x, l, &q, f->path);
		free(f);
	}
	for (size_t i = 0; rc == 0 && i < l->n; i++)
		if (!l->known[i].seen)
			rc = catalog_remove(x->catalog, l->known[i].name);
	return rc;
}

static int collect_all(struct index *x, struct known_list *l, const char *folder)
{
	char prefix[NODE_PATH_LEN + 1];
	struct collecting c = { .list = l, .prefix = prefix };
	int rc;

	snprintf(prefix, sizeof(prefix), "%s%s", folder, *folder == '\0' ? "" : "/");
	rc = catalog_each_pool(x->catalog, prefix, collect_known, &c);
	if (rc == BEYOND)
		rc = 0;
	if (rc == 0 && l->n > 0)
		qsort(l->known, l->n, sizeof(*l->known), compare_known);
	return rc;
}

/* Make the catalog what the folder is, "" for the store, in one transaction. */
static int scan(struct index *x, const char *folder)
{
	struct known_list l = { 0 };
	int rc, end;

	rc = collect_all(x, &l, folder);
	if (rc == 0)
		rc = catalog_begin(x->catalog);
	if (rc == 0) {
		rc = scan_files(x, &l, folder);
		end = catalog_end(x->catalog);
		if (rc == 0)
			rc = end;
	}
	free_known(&l);
	return rc;
}

static int scan_store(struct index *x)
{
	int rc = scan(x, "");

	if (rc == 0)
		x->scan_needed = false;
	return rc;
}

/*
 * Folders were renamed, under files that had been put by one path or by the other: once
 * nothing more is told, what is there is taken as it is.  After a failure rc they are
 * forgotten: all will be scanned.
 */
static int scan_moved(struct index *x, int rc)
{
	struct folder *f;

	while ((f = STAILQ_FIRST(&x->moved)) != NULL) {
		STAILQ_REMOVE_HEAD(&x->moved, link);
		if (rc == 0)
			rc = scan(x, f->path);
		free(f);
	}
	return rc;
}

/* --- writing, with x->work held --------------------------------------------- */

/* `complete`: if it is there, all that is in the store is in it. */
static int open_catalog(struct index *x, bool complete)
{
	bool fresh = false;
	int rc;

	rc = catalog_open(x->path, &x->catalog, &fresh);
	if (rc < 0)
		x->catalog = NULL;
	x->scan_needed = rc < 0 || fresh || !complete;
	return rc;
}

static void say_failed(const char *what, int rc)
{
	static struct log_limit limit;

	if (log_allowed(&limit))
		log_error("catalog: %s: %s (%s)", what, catalog_errmsg(),
			  strerror(-rc));
}

/*
 * A full store must show what is in it, now that somebody looks for what to
 * remove.  The next mount finds in the files what the catalog there lacks.
 */
static int go_on_in_memory(struct index *x)
{
	int rc;

	log_warn("catalog: cannot be in the store (%s); it is kept in memory until the "
		 "next mount",
		 catalog_errmsg());
	if (x->catalog != NULL)
		catalog_close(x->catalog);
	snprintf(x->path, sizeof(x->path), IN_MEMORY);
	rc = open_catalog(x, false);
	return rc == 0 ? scan_store(x) : rc;
}

/* Ready to be written to, and complete? */
static int make_ready(struct index *x)
{
	int rc = 0;

	if (x->catalog == NULL)
		rc = open_catalog(x, false);
	if (rc == 0 && x->scan_needed)
		rc = scan_store(x);
	/* Where there is no space for files SQLite may say only that it cannot open its
	 * log.  (What is of the moment, or not ours, is left for later.) */
	if ((rc == -ENOSPC || rc == -EDQUOT || (x->catalog == NULL && rc == -ENOENT)) &&
	    strcmp(x->path, IN_MEMORY) != 0)
		return go_on_in_memory(x);
	if (rc != -EUCLEAN)
		return rc;
	log_warn("catalog: damaged (%s); it is made anew", catalog_errmsg());
	catalog_close(x->catalog); /* puts it aside */
	rc = open_catalog(x, false);
	return rc == 0 ? scan_store(x) : rc;
}

/* "/": see index_exchanged(). */
static int add_moved(struct index *x, const char *path)
{
	return strcmp(path, "/") == 0 ? 0 : add_folder(&x->moved, path);
}

static int rename_folder(struct index *x, const struct job *j)
{
	int rc = catalog_rename_folder(x->catalog, j->name, j->other);

	if (rc == 0)
		rc = add_moved(x, j->name);
	return rc == 0 ? add_moved(x, j->other) : rc;
}

static int do_job(struct index *x, const struct job *j)
{
	int rc;

	switch (j->kind) {
	case JOB_PUT:
		return put_node(x, j->node);
	case JOB_REMOVE:
		rc = catalog_remove(x->catalog, j->name);
		return rc == 0 ? catalog_note(x->catalog, "remove", j->name, NULL) : rc;
	case JOB_RENAME:
		/* It may not have been put before; then it is after. */
		rc = catalog_rename(x->catalog, j->name, j->other);
		if (rc == -ENOENT)
			rc = 0;
		return rc == 0 && j->folder ? rename_folder(x, j) : rc;
	case JOB_NOTE:
		return catalog_note(x->catalog, j->what, j->name, j->other);
	}
	return 0;
}

static int do_jobs(struct index *x, struct job_queue *batch)
{
	int rc = catalog_begin(x->catalog), end;
	struct job *j;

	if (rc < 0)
		return rc;
	STAILQ_FOREACH(j, batch, link)
	if (rc == 0)
		rc = do_job(x, j);
	end = catalog_end(x->catalog);
	return rc == 0 ? end : rc;
}

/* `last`: nothing more was told. */
static void do_batch(struct index *x, struct job_queue *batch, bool last)
{
	int rc = make_ready(x);

	if (rc < 0) {
		say_failed("cannot be opened or filled", rc);
		scan_moved(x, rc);
		x->scan_needed = true;
		return;
	}
	rc = do_jobs(x, batch);
	if (rc < 0 || last)
		rc = scan_moved(x, rc);
	if (rc == 0)
		return;
	say_failed("cannot be written", rc);
	x->scan_needed = true;
	if (rc == -EUCLEAN)
		make_ready(x);
}

/* --- queue --------------------------------------------------------------------- */

static void free_job(struct index *x, struct job *j)
{
	if (j->node != NULL)
		node_unref(&x->f->nodes, j->node);
	free(j->what);
	free(j->name);
	free(j->other);
	free(j);
}

/* Takes the job; NULL (no memory): the next scan will see. */
static void push(struct index *x, struct job_queue *q, struct job *j)
{
	if (j == NULL)
		return;
	pthread_mutex_lock(&x->lock);
	if (j->kind == JOB_PUT && (j->node->queued & j->queued)) {
		pthread_mutex_unlock(&x->lock);
		free_job(x, j);
		return;
	}
	if (j->kind == JOB_PUT)
		j->node->queued |= j->queued;
	j->seq = ++x->last_seq;
	x->told_ns = clock_ns();
	STAILQ_INSERT_TAIL(q, j, link);
	if (x->idle)
		pthread_cond_broadcast(&x->changed);
	pthread_mutex_unlock(&x->lock);
}

static struct job *put_job(struct index *x, struct node *n, unsigned int queued,
			   uint64_t delay_ns)
{
	struct job *j = calloc(1, sizeof(*j));

	if (j == NULL)
		return NULL;
	j->kind = JOB_PUT;
	j->queued = queued;
	j->due_ns = clock_ns() + delay_ns;
	j->node = n;
	node_ref(&x->f->nodes, n);
	return j;
}

/* A copy of what may be NULL; false: no memory. */
static bool copy_text(const char *from, char **to)
{
	*to = from == NULL ? NULL : strdup(from);
	return from == NULL || *to != NULL;
}

static struct job *name_job(struct index *x, enum job_kind kind, const char *what,
			    const char *name, const char *other)
{
	struct job *j = calloc(1, sizeof(*j));

	if (j == NULL)
		return NULL;
	j->kind = kind;
	if (copy_text(what, &j->what) && copy_text(name, &j->name) &&
	    copy_text(other, &j->other))
		return j;
	free_job(x, j);
	return NULL;
}

/* The node's path, for a note; false if it has none any more. */
static bool path_of(struct index *x, struct node *n, char path[NODE_PATH_LEN])
{
	return node_path(&x->f->nodes, n, path) == 0;
}

void index_created(struct index *x, struct node *n)
{
	char path[NODE_PATH_LEN];

	push(x, &x->now, put_job(x, n, QUEUED_AGAIN, 0));
	if (path_of(x, n, path))
		push(x, &x->now, name_job(x, JOB_NOTE, "create", path, NULL));
}

void index_made_of(struct index *x, struct node *n, const char *what,
		   const char *source)
{
	char path[NODE_PATH_LEN];

	push(x, &x->now, put_job(x, n, QUEUED_NOW, 0));
	if (path_of(x, n, path))
		push(x, &x->now, name_job(x, JOB_NOTE, what, path, source));
}

void index_snapshot(struct index *x, struct node *n)
{
	char path[NODE_PATH_LEN], pool[NODE_PATH_LEN];

	push(x, &x->now, put_job(x, n, QUEUED_AGAIN, 0));
	if (!path_of(x, n, path))
		return;
	snprintf(pool, sizeof(pool), "%.*s", (int)strcspn(path, "@"), path);
	push(x, &x->now, name_job(x, JOB_NOTE, "snapshot", path, pool));
}

void index_changed(struct index *x, struct node *n)
{
	push(x, &x->now, put_job(x, n, QUEUED_NOW, 0));
}

void index_touched(struct index *x, struct node *n)
{
	push(x, &x->later, put_job(x, n, QUEUED_LATER, TOUCH_DELAY_NS));
}

void index_removed(struct index *x, const char *path)
{
	push(x, &x->now, name_job(x, JOB_REMOVE, NULL, path, NULL));
}

/* Folders are not in the catalog. */
static void put_again(struct index *x, struct node *n)
{
	if (!n->dir)
		push(x, &x->now, put_job(x, n, QUEUED_AGAIN, 0));
}

static void push_rename(struct index *x, const char *from, const char *to, bool folder)
{
	struct job *j = name_job(x, JOB_RENAME, NULL, from, to);

	if (j != NULL)
		j->folder = folder;
	push(x, &x->now, j);
}

void index_renamed(struct index *x, struct node *n, const char *from, const char *to)
{
	push_rename(x, from, to, n != NULL && n->dir);
	push(x, &x->now, name_job(x, JOB_NOTE, "rename", from, to));
	if (n != NULL)
		put_again(x, n);
}

/* By a name that no file can have. */
void index_exchanged(struct index *x, struct node *at_a, const char *a,
		     struct node *at_b, const char *b)
{
	bool folder = at_a->dir || at_b->dir;

	push_rename(x, a, "/", folder);
	push_rename(x, b, a, folder);
	push_rename(x, "/", b, folder);
	push(x, &x->now, name_job(x, JOB_NOTE, "exchange", a, b));
	put_again(x, at_a);
	put_again(x, at_b);
}

/* --- thread ----------------------------------------------------------------------- */

/* Move what is due to the batch, with x->lock held. */
static void take_due(struct index *x, struct job_queue *from, struct job_queue *batch,
		     size_t *n)
{
	uint64_t now = clock_ns();
	struct job *j;

	while (*n < BATCH && (j = STAILQ_FIRST(from)) != NULL &&
	       (j->due_ns <= now || x->hurry || x->stop)) {
		STAILQ_REMOVE_HEAD(from, link);
		/* What happens from here on wants to be read again. */
		if (j->kind == JOB_PUT)
			j->node->queued &= ~j->queued;
		if (x->busy_seq == 0 || j->seq < x->busy_seq)
			x->busy_seq = j->seq;
		STAILQ_INSERT_TAIL(batch, j, link);
		++*n;
	}
}

static void wait_for_due(struct index *x)
{
	struct job *j = STAILQ_FIRST(&x->later);

	x->idle = true;
	if (j == NULL)
		pthread_cond_wait(&x->changed, &x->lock);
	else
		clock_cond_wait(&x->changed, &x->lock, j->due_ns);
	x->idle = false;
}

/* Something was told, and more may follow.  One by one they cost far more, also to who
 * tells them, on whose processor they would be written.  Nobody misses them: who lists
 * waits for them, and a mount after a crash finds them in the store. */
static void gather(struct index *x)
{
	uint64_t latest = clock_ns() + GATHER_NS, until;

	while (!x->hurry && !x->stop && !x->paused) {
		until = x->told_ns + QUIET_NS;
		if (until > latest)
			until = latest;
		if (clock_ns() >= until)
			break;
		clock_cond_wait(&x->changed, &x->lock, until);
	}
}

/* Is all written that was told up to `seq`? */
static bool is_written(struct index *x, uint64_t seq)
{
	const struct job *now = STAILQ_FIRST(&x->now), *later = STAILQ_FIRST(&x->later);

	return (now == NULL || now->seq > seq) && (later == NULL || later->seq > seq) &&
	       (x->busy_seq == 0 || x->busy_seq > seq);
}

static void *keep(void *arg)
{
	struct job_queue batch = STAILQ_HEAD_INITIALIZER(batch);
	struct index *x = arg;
	struct job *j;
	bool last;
	size_t n;

	/* Whoever waits for the store comes first. */
	setpriority(PRIO_PROCESS, gettid(), 10);
	pthread_mutex_lock(&x->lock);
	while (!x->paused && (!x->stop || !is_written(x, x->last_seq))) {
		n = 0;
		take_due(x, &x->later, &batch, &n);
		take_due(x, &x->now, &batch, &n);
		if (n == 0 && STAILQ_EMPTY(&x->moved)) {
			wait_for_due(x);
			gather(x);
			continue;
		}
		last = STAILQ_EMPTY(&x->now);
		pthread_mutex_unlock(&x->lock);
		pthread_mutex_lock(&x->work);
		do_batch(x, &batch, last);
		pthread_mutex_unlock(&x->work);
		while ((j = STAILQ_FIRST(&batch)) != NULL) {
			STAILQ_REMOVE_HEAD(&batch, link);
			free_job(x, j);
		}
		pthread_mutex_lock(&x->lock);
		if (STAILQ_EMPTY(&x->moved))
			x->busy_seq = 0;
		if (is_written(x, x->last_seq))
			x->hurry = false;
		pthread_cond_broadcast(&x->changed);
	}
	pthread_mutex_unlock(&x->lock);
	return NULL;
}

void index_drain(struct index *x)
{
	uint64_t until = clock_ns() + DRAIN_S * UINT64_C(1000000000);
	uint64_t seq;

	pthread_mutex_lock(&x->lock);
	seq = x->last_seq;
	while (!is_written(x, seq)) {
		x->hurry = true;
		pthread_cond_broadcast(&x->changed);
		if (clock_cond_wait(&x->changed, &x->lock, until) == ETIMEDOUT)
			break;
	}
	pthread_mutex_unlock(&x->lock);
}

/* --- opening, closing, listing ------------------------------------------------------ */

static void init_sync(struct index *x)
{
	pthread_mutex_init(&x->work, NULL);
	pthread_mutex_init(&x->lock, NULL);
	clock_cond_init(&x->changed);
}

static void free_index(struct index *x)
{
	if (x->catalog != NULL)
		catalog_close(x->catalog);
	pthread_cond_destroy(&x->changed);
	pthread_mutex_destroy(&x->lock);
	pthread_mutex_destroy(&x->work);
	free(x);
}

static int start_thread(struct index *x)
{
	x->stop = x->paused = false;
	return -pthread_create(&x->thread, NULL, keep, x);
}

static void stop_thread(struct index *x, bool *how)
{
	pthread_mutex_lock(&x->lock);
	*how = true;
	pthread_cond_broadcast(&x->changed);
	pthread_mutex_unlock(&x->lock);
	pthread_join(x->thread, NULL);
}

int index_open(struct fmfs *f, bool taken, bool complete, struct index **out)
{
	struct index *x = calloc(1, sizeof(*x));
	int rc;

	if (x == NULL)
		return -ENOMEM;
	x->f = f;
	/* A store that cannot be written to gets a catalog in memory. */
	if (f->store.readonly)
		snprintf(x->path, sizeof(x->path), IN_MEMORY);
	else
		snprintf(x->path, sizeof(x->path), "%s/catalog.db", f->store.path);
	STAILQ_INIT(&x->now);
	STAILQ_INIT(&x->later);
	STAILQ_INIT(&x->moved);
	init_sync(x);
	/* Who writes to a pool may wait for us to serve: that is not the time to read it. */
	rc = taken ? open_catalog(x, complete) : make_ready(x);
	if (rc < 0) {
		log_error("%s: %s (%s)", x->path, catalog_errmsg(), strerror(-rc));
		/* A newer catalog is not ours to touch; else go without one for now. */
		if (rc == -ENOTSUP) {
			free_index(x);
			return rc;
		}
	}
	rc = start_thread(x);
	if (rc < 0) {
		free_index(x);
		return rc;
	}
	*out = x;
	return 0;
}

void index_close(struct index *x)
{
	stop_thread(x, &x->stop);
	free_index(x);
}

/* --- handing over ------------------------------------------------------------------- */

void index_pause(struct index *x)
{
	stop_thread(x, &x->paused);
}

int index_resume(struct index *x)
{
	return start_thread(x);
}

bool index_let_go(struct index *x)
{
	bool complete = x->catalog != NULL && !x->scan_needed &&
			strcmp(x->path, IN_MEMORY) != 0;

	if (x->catalog != NULL)
		catalog_close(x->catalog);
	x->catalog = NULL;
	return complete;
}

static void save_jobs(const struct job_queue *q, struct state *s)
{
	const struct job *j;

	STAILQ_FOREACH(j, q, link)
	{
		state_put(s, 1);
		state_put(s, j->kind);
		state_put(s, j->queued);
		state_put(s, j->folder);
		state_put(s, j->node == NULL ? 0 : j->node->id);
		state_put_text(s, j->what);
		state_put_text(s, j->name);
		state_put_text(s, j->other);
	}
	state_put(s, 0);
}

void index_save(const struct index *x, struct state *s)
{
	const struct folder *f;

	save_jobs(&x->now, s);
	save_jobs(&x->later, s);
	STAILQ_FOREACH(f, &x->moved, link)
	state_put_text(s, f->path);
	state_put_text(s, NULL);
}

/* The node of one that is gone, and that the kernel does not have, was not handed over. */
static void load_job(struct index *x, struct job_queue *q, struct state *s)
{
	struct job *j = calloc(1, sizeof(*j));
	uint64_t id;

	if (j == NULL) {
		s->failed = true;
		return;
	}
	j->kind = state_get(s);
	j->queued = state_get(s);
	j->folder = state_get(s);
	id = state_get(s);
	j->what = state_get_text(s);
	j->name = state_get_text(s);
	j->other = state_get_text(s);
	j->node = id == 0 ? NULL : node_find(&x->f->nodes, id);
	if (j->node != NULL)
		node_ref(&x->f->nodes, j->node);
	if (s->failed || (j->kind == JOB_PUT) != (j->node != NULL))
		free_job(x, j);
	else
		push(x, q, j);
}

void index_load(struct index *x, struct state *s)
{
	char *path;

	while (state_get(s) != 0)
		load_job(x, &x->now, s);
	while (state_get(s) != 0)
		load_job(x, &x->later, s);
	while ((path = state_get_text(s)) != NULL) {
		pthread_mutex_lock(&x->lock);
		if (add_folder(&x->moved, path) < 0)
			s->failed = true;
		x->busy_seq = 1;
		pthread_cond_broadcast(&x->changed);
		pthread_mutex_unlock(&x->lock);
		free(path);
	}
}

int index_each_pool(struct index *x, struct node *folder, const char *after,
		    int (*fn)(const struct catalog_pool *pool, void *arg), void *arg)
{
	char path[NODE_PATH_LEN];
	int rc;

	rc = node_path(&x->f->nodes, folder, path);
	if (rc < 0)
		return rc;
	index_drain(x);
	pthread_mutex_lock(&x->work);
	rc = make_ready(x);
	if (rc == 0)
		rc = catalog_each_in(x->catalog, strcmp(path, ".") == 0 ? "" : path,
				     after, fn, arg);
	if (rc < 0)
		say_failed("cannot be read", rc);
	pthread_mutex_unlock(&x->work);
	return rc;
}

int index_each_root(struct index *x, struct node *n, const char *after,
		    int (*fn)(const struct catalog_root *root, void *arg), void *arg)
{
	char path[NODE_PATH_LEN];
	int rc;

	rc = node_path(&x->f->nodes, n, path);
	if (rc < 0)
		return rc;
	if (after == NULL || *after == '\0')
		index_changed(x, n);
	index_drain(x);
	pthread_mutex_lock(&x->work);
	rc = make_ready(x);
	if (rc == 0)
		rc = catalog_each_root(x->catalog, path, after, fn, arg);
	if (rc < 0)
		say_failed("cannot be read", rc);
	pthread_mutex_unlock(&x->work);
	return rc;
}

static int judge_roots(const struct catalog_pool *pool, void *arg)
{
	*(int *)arg = pool->kind == CATALOG_DAMAGED ? -EUCLEAN :
		      catalog_lacks_roots(pool)     ? -EFBIG :
						      0;
	return 0;
}

int index_has_roots(struct index *x, struct node *n)
{
	char path[NODE_PATH_LEN];
	int rc = 0;

	if (node_path(&x->f->nodes, n, path) < 0)
		return 0;
	pthread_mutex_lock(&x->work);
	if (x->catalog != NULL)
		catalog_get(x->catalog, path, judge_roots, &rc);
	pthread_mutex_unlock(&x->work);
	return rc;
}
