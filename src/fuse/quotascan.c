/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking at all files of the store, for what they have allocated: at mount, and by a thread
 * now and then, for what nobody saw.
 */
#include <config.h>

#include <errno.h>
#include <fts.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/clock.h"
#include "common/log.h"
#include "fuse/fmfs.h"

/* Between two looks, from the end of the one: if nothing was refused; and if something was,
 * so many times as long as the last one took. */
#define SCAN_PERIOD_NS (600 * 1000000000ull)
#define SCAN_LEAST_NS 1000000000ull
#define SCAN_SHARE 20

/* Looked at with the lock held: who removes the file says so afterwards. */
static int count_file(struct fmfs *f, const char *path)
{
	struct quota *q = &f->quota;
	struct stat st;
	int rc = 0;

	pthread_mutex_lock(&q->lock);
	if (q->stop)
		rc = -ECANCELED;
	else if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) &&
		 store_owns(&f->store, &st))
		rc = usage_set(&q->usage, st.st_ino, usage_of(&st));
	pthread_mutex_unlock(&q->lock);
	return rc;
}

/* -EAGAIN: it could not be looked at; -ENOMEM; -ECANCELED: the daemon ends. */
static int count_entry(struct fmfs *f, const FTSENT *e)
{
	switch (e->fts_info) {
	case FTS_F:
	case FTS_NSOK:
	case FTS_DEFAULT:
		return count_file(f, e->fts_path);
	case FTS_DNR:
	case FTS_ERR:
		return -EAGAIN;
	default:
		return 0;
	}
}

static int count_files(struct fmfs *f, FTS *tree)
{
	bool all = true;
	FTSENT *e;
	int rc = 0;

	while (rc == 0 && (e = fts_read(tree)) != NULL) {
		rc = count_entry(f, e);
		if (rc == -EAGAIN) {
			all = false;
			rc = 0;
		}
	}
	return rc == 0 && !all ? -EAGAIN : rc;
}

/*
 * What was not seen is gone; but if folders were moved, it may have been missed.  Half-made
 * files in tmp/ are those that space was promised for, or are open.
 */
static int scan(struct fmfs *f)
{
	char pools[PATH_MAX + 8];
	char *const roots[] = { pools, NULL };
	struct quota *q = &f->quota;
	unsigned int nrenames;
	FTS *tree;
	int rc;

	snprintf(pools, sizeof(pools), "%s/pools", f->store.path);
	tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_NOSTAT, NULL);
	if (tree == NULL)
		return -errno;
	pthread_mutex_lock(&q->lock);
	nrenames = q->nrenames;
	usage_begin_scan(&q->usage);
	pthread_mutex_unlock(&q->lock);
	rc = count_files(f, tree);
	fts_close(tree);
	pthread_mutex_lock(&q->lock);
	if (rc == 0 && nrenames == q->nrenames)
		usage_end_scan(&q->usage);
	pthread_mutex_unlock(&q->lock);
	return rc == -EAGAIN ? 0 : rc;
}

void quota_want_scan(struct quota *q)
{
	if (!q->scan_wanted)
		pthread_cond_signal(&q->wake);
	q->scan_wanted = true;
}

/* With q->lock held: till the time has come, or q->stop. */
static void wait_for_time(struct quota *q, uint64_t began_ns)
{
	uint64_t ended_ns = clock_ns(), pause_ns = (ended_ns - began_ns) * SCAN_SHARE;
	uint64_t due_ns;

	if (pause_ns < SCAN_LEAST_NS)
		pause_ns = SCAN_LEAST_NS;
	for (;;) {
		due_ns = ended_ns + (q->scan_wanted ? pause_ns : SCAN_PERIOD_NS);
		if (q->stop || clock_ns() >= due_ns)
			return;
		clock_cond_wait(&q->wake, &q->lock, due_ns);
	}
}

static void *keep_counting(void *arg)
{
	struct fmfs *f = arg;
	struct quota *q = &f->quota;
	uint64_t began_ns = clock_ns();

	pthread_mutex_lock(&q->lock);
	for (;;) {
		wait_for_time(q, began_ns);
		if (q->stop)
			break;
		q->scan_wanted = false;
		began_ns = clock_ns();
		pthread_mutex_unlock(&q->lock);
		if (scan(f) == -ENOMEM)
			log_warn("%s: no memory to count its files", f->store.path);
		pthread_mutex_lock(&q->lock);
	}
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

static void init_sync(struct quota *q)
{
	pthread_mutex_init(&q->lock, NULL);
	clock_cond_init(&q->settled);
	clock_cond_init(&q->wake);
}

/* What the daemon before has left open, which may have no name. */
static void look_at_known(struct fmfs *f)
{
	struct node_table *t = &f->nodes;

	for (size_t i = 0; i < t->nbuckets; i++)
		for (struct node *n = t->bucket[i]; n != NULL; n = n->next)
			if (n->nopen > 0)
				quota_opened(f, n);
}

int quota_start(struct fmfs *f)
{
	struct quota *q = &f->quota;
	int rc;

	init_sync(q);
	if (q->max_store == 0)
		return 0;
	rc = scan(f);
	if (rc < 0) {
		log_error("%s: its files cannot be counted: %s", f->store.path,
			  strerror(-rc));
		return rc;
	}
	if (q->usage.total > q->max_store)
		log_warn("%s: its files take %" PRIu64 " bytes, more than max_store, "
			 "%" PRIu64 ": they can be used, and get no more",
			 f->store.path, q->usage.total, q->max_store);
	rc = -pthread_create(&q->thread, NULL, keep_counting, f);
	q->started = rc == 0;
	look_at_known(f);
	return rc;
}

void quota_stop(struct fmfs *f)
{
	struct quota *q = &f->quota;

	if (q->started) {
		pthread_mutex_lock(&q->lock);
		q->stop = true;
		pthread_cond_signal(&q->wake);
		pthread_mutex_unlock(&q->lock);
		pthread_join(q->thread, NULL);
	}
	q->started = false;
	usage_free(&q->usage);
}
