/* SPDX-License-Identifier: Apache-2.0 */
/* What a pool file says of itself, by pread(2). */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/bits.h"
#include "common/rw.h"
#include "heap/atomic.h"
#include "heap/error.h"
#include "heap/heap.h"
#include "heap/inspect.h"
#include "heap/lock.h"
#include "heap/rootscan.h"

/* Who looks after many pools must not be kept by one: 261,120 roots will do, so much of a
 * log, which is read again for pages of roots that it leads to, so often; and a lock may
 * be held for ever. */
#define MAX_NPAGES 1024u
#define MAX_LOG_LEN (UINT64_C(1) << 30)
#define MAX_NREADS 16
#define ROOTS_WAIT_MS 20
/* Of a log that is looked at as a whole, however little memory the machine has. */
#define VIEW_LEN_MIN (UINT64_C(256) << 20)

/* --- the last commit -------------------------------------------------------------- */

/* How the view is got at. */
struct looking {
	bool still;	/* inspect_open_still() */
	int wait_ms;	/* for a checkpoint to end */
	struct replay_limits limits;
};

static int open_view(struct inspect_view *view, int fd, const struct looking *how)
{
	ssize_t n;
	int rc = 0;

	memset(view, 0, sizeof(*view));
	view->fd = fd;
	n = read_at(fd, &view->super, sizeof(view->super), 0);
	if (n < 0)
		return n;
	if (n != sizeof(view->super) || super_check(&view->super) < 0 ||
	    (view->super.incompat & FM_INCOMPAT_ATOMIC) == 0)
		return 0;
	view->shared = lock_share_now(fd);
	if (!view->shared && !how->still) {
		rc = lock_share_wait(fd, how->wait_ms);
		view->shared = rc == 0;
	}
	if (rc == 0)	/* again: it may have changed until now */
		rc = read_at(fd, &view->super, sizeof(view->super), 0);
	if (rc >= 0)
		rc = atomic_load(fd, false, &how->limits, &view->super, &view->atomic);
	if (rc < 0) {
		inspect_close_view(view);
		return rc;
	}
	view->nrecords = atomic_nrecords(view->atomic);
	return 0;
}

/* A part of the machine's memory, and as much of the log: more is one's who opens it. */
static int open_whole(struct inspect_view *view, int fd, bool still)
{
	uint64_t len = (uint64_t)sysconf(_SC_PHYS_PAGES) / 32 * FM_PAGE_LEN;
	struct looking how = { .still = still, .wait_ms = LOCK_WAIT_MS };

	how.limits.max_len = len < VIEW_LEN_MIN ? VIEW_LEN_MIN : len;
	how.limits.max_npages = how.limits.max_len / FM_PAGE_LEN;
	return open_view(view, fd, &how);
}

int inspect_open_view(struct inspect_view *view, int fd)
{
	return open_whole(view, fd, false);
}

int inspect_open_still(struct inspect_view *view, int fd)
{
	return open_whole(view, fd, true);
}

void inspect_close_view(struct inspect_view *view)
{
	atomic_free(view->atomic);
	view->atomic = NULL;
	if (view->shared)
		lock_unshare(view->fd);
	view->shared = false;
}

bool inspect_is_log(const struct inspect_view *view, uint64_t off)
{
	return view->atomic != NULL && log_has_page(&view->atomic->log, off);
}

int inspect_finish_copy(struct inspect_view *view, int copy)
{
	return atomic_finish_copy(view->atomic, view->fd, copy);
}

int inspect_read(void *src, uint64_t off, void *buf, size_t len)
{
	struct inspect_view *view = src;
	ssize_t n;

	if (view->atomic != NULL)
		return atomic_read(view->atomic, view->fd, off, buf, len);
	n = read_at(view->fd, buf, len, off);
	if (n < 0)
		return n;
	return (size_t)n == len ? 0 : -EUCLEAN;
}

/* --- the super --------------------------------------------------------------------- */

int inspect_pool(int fd, struct pool_info *info)
{
	struct fm_super_disk super = { .magic = { 0 } };
	off_t size;
	ssize_t n;
	int rc;

	memset(info, 0, sizeof(*info));
	n = read_at(fd, &super, sizeof(super), 0);
	if (n < 0)
		return n;
	rc = super_check(&super);
	if (rc == 0) {
		size = lseek(fd, 0, SEEK_END);
		if (size < 0)
			return -errno;
		if ((uint64_t)size < super.heap_end &&
		    (super.incompat & FM_INCOMPAT_ATOMIC) == 0)
			rc = err_set(EUCLEAN, "the pool is cut short");
	}
	if (rc < 0) {
		info->state = rc == -ENOTSUP ? POOL_FOREIGN :
			      rc == -EUCLEAN ? POOL_DAMAGED : POOL_NONE;
		snprintf(info->why, sizeof(info->why), "%s", err_words());
		return 0;
	}
	info->state = POOL_GOOD;
	info->version = super.version;
	info->compat = super.compat;
	info->ro_compat = super.ro_compat;
	info->incompat = super.incompat;
	memcpy(info->uuid, super.uuid, sizeof(info->uuid));
	info->created_ns = super.created_ns;
	info->heap_end = super.heap_end;
	return 0;
}

/* --- roots ------------------------------------------------------------------------ */

/* The sound slots of a pool, gathered before any is reported: two may have one
 * name. */
struct gather {
	struct fm_root_disk *slot;
	size_t n, cap;
};

static int gather_slot(void *arg, uint64_t off, const struct fm_root_disk *slot)
{
	struct gather *g = arg;

	(void)off;
	if (slot->state != FM_ROOT_USED)
		return 0;
	if (g->n == g->cap) {
		size_t cap = g->cap == 0 ? 64 : g->cap * 2;
		void *mem = realloc(g->slot, cap * sizeof(*g->slot));

		if (mem == NULL)
			return -ENOMEM;
		g->slot = mem;
		g->cap = cap;
	}
	g->slot[g->n++] = *slot;
	return 0;
}

/* By name, the latest of a name first. */
static int by_name(const void *a, const void *b)
{
	const struct fm_root_disk *ra = a, *rb = b;
	int order = strcmp(ra->name, rb->name);

	return order != 0 ? order : (ra->seq < rb->seq) - (ra->seq > rb->seq);
}

static int report(const struct gather *g, uint64_t heap_end,
		  int (*fn)(const struct pool_root *root, void *arg), void *arg)
{
	struct pool_root root;
	int n = 0, rc;
	size_t i;

	for (i = 0; i < g->n; i++) {
		const struct fm_root_disk *slot = &g->slot[i];

		if (i > 0 && strcmp(slot->name, g->slot[i - 1].name) == 0)
			continue;
		memcpy(root.name, slot->name, sizeof(root.name));
		memcpy(root.type, slot->type, sizeof(root.type));
		root.off = rootscan_object(slot, heap_end);
		root.size = root.off != 0 ? slot->size : 0;
		rc = fn(&root, arg);
		if (rc != 0)
			return rc;
		n++;
	}
	return n;
}

/* The view of a pool's roots: only what is read of it is kept of the log. */
struct roots_view {
	struct inspect_view view;
	uint64_t *only;		/* pages that are kept, a bit each */
	bool missed;		/* others were read, and are kept from now on */
	struct gather found;
};
#define ONLY_LEN (FM_MAX_NZONES * FM_ZONE_NPAGES / 8)

/* A page that is not kept is as it is in the file. */
static int read_noting(void *src, uint64_t off, void *buf, size_t len)
{
	struct roots_view *v = src;
	uint64_t page;

	for (page = off / FM_PAGE_LEN; page * FM_PAGE_LEN < off + len; page++)
		if (v->view.atomic != NULL && !bits_has(v->only, page)) {
			bits_set(v->only, page);
			v->missed = true;
		}
	return inspect_read(&v->view, off, buf, len);
}

/* As rootscan_run(), of what is known of the log so far. */
static int read_roots(struct roots_view *v, int fd, uint64_t *heap_end)
{
	const struct looking how = {
		.wait_ms = ROOTS_WAIT_MS,
		.limits = { .max_len = MAX_LOG_LEN, .only = v->only },
	};
	struct rootscan scan = {
		.read = read_noting,
		.src = v,
		.max_npages = MAX_NPAGES,
		.slot = gather_slot,
		.arg = &v->found,
	};
	int rc = open_view(&v->view, fd, &how);

	if (rc < 0)
		return rc;
	if (v->view.atomic != NULL)
		*heap_end = v->view.super.heap_end;
	scan.heap_end = *heap_end;
	v->found.n = 0;
	v->missed = false;
	rc = rootscan_run(&scan);
	inspect_close_view(&v->view);
	if (rc == -EEXIST)
		rc = 0;
	return rc >= 0 && scan.nbad > 0 ? -EUCLEAN : rc;
}

/* Until all that was read was as of the last commit. */
static int read_committed_roots(struct roots_view *v, int fd, uint64_t *heap_end)
{
	int n, rc;

	v->only = map_anon_sparse(ONLY_LEN);
	if (v->only == NULL)
		return err_sys(ENOMEM, "memory for a log");
	v->missed = true;
	for (n = 0, rc = 0; v->missed && n < MAX_NREADS; n++) {
		v->missed = false;
		rc = read_roots(v, fd, heap_end);
	}
	map_anon_free(v->only, ONLY_LEN);
	return v->missed ? err_set(EFBIG, "its log is not to be looked at by the way") : rc;
}

int inspect_roots(int fd, int (*fn)(const struct pool_root *root, void *arg),
		  void *arg)
{
	struct roots_view v = { .missed = false };
	struct gather *g = &v.found;
	struct pool_info info;
	int rc, n;

	rc = inspect_pool(fd, &info);
	if (rc < 0 || info.state != POOL_GOOD)
		return rc;
	rc = read_committed_roots(&v, fd, &info.heap_end);
	if (g->n > 0)
		qsort(g->slot, g->n, sizeof(*g->slot), by_name);
	n = rc < 0 && rc != -EUCLEAN ? 0 : report(g, info.heap_end, fn, arg);
	free(g->slot);
	return rc < 0 ? rc : n;
}

/* --- the writer -------------------------------------------------------------------- */

int inspect_hold(int fd)
{
	return lock_take(fd);
}

void inspect_release(int fd)
{
	lock_release(fd);
}
