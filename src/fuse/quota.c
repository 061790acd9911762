/* SPDX-License-Identifier: Apache-2.0 */
/* Limits, and what is counted of what is done at the mount. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/align.h"
#include "common/clock.h"
#include "common/fmfs_ioctl.h"
#include "common/holes.h"
#include "common/log.h"
#include "fuse/fmfs.h"

/* As long as so much is left after it, nobody asks what of a range is allocated already. */
#define PLENTY_LEN (UINT64_C(64) << 20)
/* What others have been promised may turn out to be less: how long that is waited for. */
#define WAIT_NS 100000000ull

static struct log_limit refusals;

bool quota_binds(const struct quota *q, int flags)
{
	const int mask = O_ACCMODE | O_NONBLOCK | O_TRUNC | O_APPEND;

	if (q->max_pool == 0 && q->max_store == 0)
		return false;
	return (flags & O_ACCMODE) != O_RDONLY && (flags & mask) != FMFS_OPEN_RESERVING;
}

/* --- counting -------------------------------------------------------------------- */

/* With q->lock held, so that it is not what the file had before somebody else looked.
 * One without a name has nothing, unless somebody has it open. */
static void look(struct quota *q, int fd, bool opened)
{
	struct usage_file *file;
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return;
	file = usage_find(&q->usage, st.st_ino);
	if (st.st_nlink == 0 && !opened && (file == NULL || file->open == NULL))
		st.st_blocks = 0;
	if (usage_set(&q->usage, st.st_ino, usage_of(&st)) < 0 &&
	    log_allowed(&refusals))
		log_warn("no memory to count what a file has");
}

void quota_settle(struct fmfs *f, int fd, uint64_t taken)
{
	struct quota *q = &f->quota;

	if (q->max_store == 0)
		return;
	pthread_mutex_lock(&q->lock);
	look(q, fd, false);
	q->promised -= taken;
	if (taken > 0)
		pthread_cond_broadcast(&q->settled);
	pthread_mutex_unlock(&q->lock);
}

void quota_look(struct fmfs *f, int fd)
{
	quota_settle(f, fd, 0);
}

void quota_removed(struct fmfs *f, ino_t ino)
{
	struct quota *q = &f->quota;
	struct usage_file *file;

	if (q->max_store == 0)
		return;
	pthread_mutex_lock(&q->lock);
	file = usage_find(&q->usage, ino);
	if (file != NULL && file->open == NULL)
		usage_set(&q->usage, ino, 0);
	pthread_mutex_unlock(&q->lock);
}

void quota_renamed(struct fmfs *f)
{
	pthread_mutex_lock(&f->quota.lock);
	f->quota.nrenames++;
	pthread_mutex_unlock(&f->quota.lock);
}

void quota_opened(struct fmfs *f, struct node *n)
{
	struct quota *q = &f->quota;
	struct usage_file *file;

	if (q->max_store == 0)
		return;
	pthread_mutex_lock(&q->lock);
	look(q, n->fd, true);
	file = usage_find(&q->usage, n->ino);
	if (file != NULL)
		file->open = n;
	pthread_mutex_unlock(&q->lock);
}

void quota_closed(struct fmfs *f, struct node *n)
{
	struct quota *q = &f->quota;
	struct usage_file *file;

	if (q->max_store == 0)
		return;
	pthread_mutex_lock(&n->lock);
	pthread_mutex_lock(&q->lock);
	file = n->nopen == 0 ? usage_find(&q->usage, n->ino) : NULL;
	if (file != NULL) {
		file->open = NULL;
		if (!node_has_name(&f->nodes, n))
			usage_set(&q->usage, n->ino, 0);
	}
	pthread_mutex_unlock(&q->lock);
	pthread_mutex_unlock(&n->lock);
}

/* The nodes that are open, with a reference each; their number. */
static size_t ref_open(struct fmfs *f, struct node ***nodes)
{
	struct usage *u = &f->quota.usage;
	size_t nopen = 0, n = 0, i;

	pthread_mutex_lock(&f->quota.lock);
	for (i = 0; i < u->size; i++)
		nopen += u->file[i].open != NULL;
	*nodes = calloc(nopen + 1, sizeof(**nodes));
	for (i = 0; *nodes != NULL && i < u->size; i++)
		if (u->file[i].open != NULL) {
			node_ref(&f->nodes, u->file[i].open);
			(*nodes)[n++] = u->file[i].open;
		}
	pthread_mutex_unlock(&f->quota.lock);
	return n;
}

void quota_look_at_open(struct fmfs *f)
{
	struct node **nodes;
	size_t n = ref_open(f, &nodes), i;

	for (i = 0; i < n; i++) {
		pthread_mutex_lock(&nodes[i]->lock);
		if (nodes[i]->nopen > 0)
			quota_look(f, nodes[i]->fd);
		pthread_mutex_unlock(&nodes[i]->lock);
		node_unref(&f->nodes, nodes[i]);
	}
	free(nodes);
}

uint64_t quota_used(struct fmfs *f)
{
	uint64_t used;

	pthread_mutex_lock(&f->quota.lock);
	used = f->quota.usage.total;
	pthread_mutex_unlock(&f->quota.lock);
	return used;
}

/* --- how long a file may be ---------------------------------------------------------- */

static void name_of(struct fmfs *f, struct node *n, char path[NODE_PATH_LEN])
{
	if (node_path(&f->nodes, n, path) < 0)
		strcpy(path, "a file without a name");
}

static int refuse_size(const struct quota *q, const char *name, uint64_t size)
{
	if (log_allowed(&refusals))
		log_warn("%s: refused: it would be %" PRIu64
			 " bytes long, and max_pool is "
			 "%" PRIu64,
			 name, size, q->max_pool);
	return -ENOSPC;
}

int quota_check_size(struct fmfs *f, struct node *n, const struct stat *st,
		     uint64_t size)
{
	const struct quota *q = &f->quota;
	char path[NODE_PATH_LEN];

	/* One that is longer already can be used. */
	if (q->max_pool == 0 || size <= q->max_pool || size <= (uint64_t)st->st_size)
		return 0;
	name_of(f, n, path);
	return refuse_size(q, path, size);
}

/* --- how much there may be ------------------------------------------------------------ */

/* With q->lock held. */
static bool fits(const struct quota *q, uint64_t len)
{
	uint64_t used = q->usage.total + q->promised;

	return used <= q->max_store && len <= q->max_store - used;
}

static bool promise(struct quota *q, uint64_t len, uint64_t to_be_left)
{
	bool ok;

	pthread_mutex_lock(&q->lock);
	ok = fits(q, len + to_be_left);
	if (ok)
		q->promised += len;
	pthread_mutex_unlock(&q->lock);
	return ok;
}

/* The same, if it is only others' promises that it does not fit for, when they were kept. */
static bool promise_later(struct quota *q, uint64_t len)
{
	const uint64_t until = clock_ns() + WAIT_NS;
	bool ok;
	int rc = 0;

	pthread_mutex_lock(&q->lock);
	while (!(ok = fits(q, len)) && q->promised > 0 && rc == 0)
		rc = clock_cond_wait(&q->settled, &q->lock, until);
	if (ok)
		q->promised += len;
	else
		quota_want_scan(q);
	pthread_mutex_unlock(&q->lock);
	return ok;
}

static int take(struct fmfs *f, const char *name, uint64_t len, uint64_t *taken)
{
	struct quota *q = &f->quota;
	bool ok = len == 0 || promise(q, len, 0);

	if (!ok) {
		quota_look_at_open(f);
		ok = promise_later(q, len);
	}
	*taken = ok ? len : 0;
	if (!ok && log_allowed(&refusals))
		log_warn("%s: refused: it would take %" PRIu64
			 " bytes more, and %" PRIu64 " of max_store, %" PRIu64
			 ", are taken",
			 name, len, quota_used(f), q->max_store);
	return ok ? 0 : -ENOSPC;
}

/* What the range has not got yet. */
static int missing(int fd, uint64_t off, uint64_t len, uint64_t *out)
{
	struct holes holes = { 0 };
	int rc = holes_find(fd, off, len, true, &holes);

	*out = 0;
	for (size_t i = 0; i < holes.n; i++)
		*out += holes.hole[i].len;
	holes_free(&holes);
	return rc;
}

int quota_take_range(struct fmfs *f, struct node *n, uint64_t off, uint64_t len,
		     uint64_t *taken)
{
	char path[NODE_PATH_LEN];
	uint64_t start, end;
	struct stat st;
	int rc;

	*taken = 0;
	if ((f->quota.max_pool == 0 && f->quota.max_store == 0) || len == 0)
		return 0;
	if (fstat(n->fd, &st) < 0)
		return -errno;
	rc = quota_check_size(f, n, &st, off + len);
	if (rc < 0 || f->quota.max_store == 0)
		return rc;
	start = align_down(off, USAGE_BLOCK_LEN);
	end = align_up(off + len, USAGE_BLOCK_LEN);
	if (promise(&f->quota, end - start, PLENTY_LEN)) {
		*taken = end - start;
		return 0;
	}
	rc = missing(n->fd, start, end - start, &len);
	if (rc < 0)
		return rc;
	name_of(f, n, path);
	return take(f, path, len, taken);
}

int quota_take_reserve(struct fmfs *f, struct node *n, int mode, uint64_t off,
		       uint64_t len, uint64_t *taken)
{
	struct stat st;

	*taken = 0;
	if (mode & FALLOC_FL_PUNCH_HOLE)
		return 0;
	if (f->quota.max_store > 0 && mode & FALLOC_FL_KEEP_SIZE) {
		if (fstat(n->fd, &st) < 0)
			return -errno;
		if (off + len > (uint64_t)st.st_size)
			return -EOPNOTSUPP;
	}
	return quota_take_range(f, n, off, len, taken);
}

/* Replaced, it goes on having what it has. */
bool quota_keeps(struct fmfs *f, const struct stat *old)
{
	struct usage_file *file;
	bool open;

	pthread_mutex_lock(&f->quota.lock);
	file = usage_find(&f->quota.usage, old->st_ino);
	open = file != NULL && file->open != NULL;
	pthread_mutex_unlock(&f->quota.lock);
	return open;
}

int quota_take_copy(struct fmfs *f, const struct stat *from, const struct stat *old,
		    const char *name, uint64_t *taken)
{
	const struct quota *q = &f->quota;
	uint64_t len = usage_of(from), size = from->st_size;
	uint64_t had = old == NULL || quota_keeps(f, old) ? 0 : usage_of(old);

	*taken = 0;
	if (q->max_pool > 0 && size > q->max_pool &&
	    (old == NULL || from->st_size > old->st_size))
		return refuse_size(q, name, size);
	return q->max_store == 0 ? 0 : take(f, name, len > had ? len - had : 0, taken);
}

int quota_take_rest(struct fmfs *f, int to, const char *name, uint64_t *taken)
{
	uint64_t more = 0;
	struct stat st;
	int rc;

	if (f->quota.max_store == 0)
		return 0;
	if (fstat(to, &st) < 0)
		return -errno;
	if (usage_of(&st) <= *taken)
		return 0;
	rc = take(f, name, usage_of(&st) - *taken, &more);
	*taken += more;
	return rc;
}

void quota_statfs(struct fmfs *f, struct statvfs *st)
{
	struct quota *q = &f->quota;
	uint64_t left, used;

	if (q->max_store == 0)
		return;
	/* The library asks, when it was refused, whether there is space by now. */
	quota_look_at_open(f);
	pthread_mutex_lock(&q->lock);
	used = q->usage.total + q->promised;
	pthread_mutex_unlock(&q->lock);
	left = used < q->max_store ? (q->max_store - used) / st->f_frsize : 0;
	if (st->f_blocks > q->max_store / st->f_frsize)
		st->f_blocks = q->max_store / st->f_frsize;
	if (st->f_bfree > left)
		st->f_bfree = left;
	if (st->f_bavail > left)
		st->f_bavail = left;
}
