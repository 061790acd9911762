/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread that keeps the catalog, and its queue.
 *
 * A catalog that failed is not trusted any more: the store is scanned, which
 * makes the catalog right whatever was missed, before anything else is written.
 */
#include <config.h>

#include <errno.h>
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
#include "fuse/fmfs.h"
#include "fuse/scan.h"
#include "fuse/state.h"

#define TOUCH_DELAY_NS 500000000ull
#define QUIET_NS 20000000ull   /* when nothing was told for so long, it is time to write, */
#define GATHER_NS 500000000ull /* or so long after the first that was told */
#define BATCH 256              /* jobs in a transaction */
#define DRAIN_S 10             /* how long a listing waits at most */
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
	uint64_t due_ns;     /* before it is told, how long after that */
	struct node *node;
	char *what;
	char *name;
	char *other;
	bool folder; /* JOB_RENAME: of one */
};

STAILQ_HEAD(job_queue, job);

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

/* --- scanning the store ------------------------------------------------------ */

static int scan_store(struct index *x)
{
	int rc = scan_tree(x->f, x->catalog, "");

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
			rc = scan_tree(x->f, x->catalog, f->path);
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
	return strcmp(path, "/") == 0 ? 0 : scan_add_folder(&x->moved, path);
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
		return scan_node(x->f, x->catalog, j->node);
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
	j->due_ns += x->told_ns;
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
	j->due_ns = delay_ns;
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

/* A file that was told before, and has this name since, may have been put in the place of
 * its row.  Folders are not in the catalog. */
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
	push_rename(x, from, to, n->dir);
	push(x, &x->now, name_job(x, JOB_NOTE, "rename", from, to));
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

/* More may be told.  One by one they cost far more, also to who tells them, on whose
 * processor they would be written.  Nobody misses them: who lists waits for them, and a
 * mount after a crash finds them in the store. */
static void gather(struct index *x)
{
	const struct job *first;
	uint64_t until;

	while ((first = STAILQ_FIRST(&x->now)) != NULL && !x->hurry && !x->stop &&
	       !x->paused) {
		until = x->told_ns + QUIET_NS;
		if (until > first->due_ns + GATHER_NS)
			until = first->due_ns + GATHER_NS;
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
		gather(x);
		n = 0;
		take_due(x, &x->later, &batch, &n);
		take_due(x, &x->now, &batch, &n);
		if (n == 0 && STAILQ_EMPTY(&x->moved)) {
			wait_for_due(x);
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
		pthread_mutex_lock(&x->work); /* the thread runs */
		if (scan_add_folder(&x->moved, path) < 0)
			s->failed = true;
		pthread_mutex_lock(&x->lock);
		x->busy_seq = 1;
		pthread_cond_broadcast(&x->changed);
		pthread_mutex_unlock(&x->lock);
		pthread_mutex_unlock(&x->work);
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
