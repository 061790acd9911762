/* SPDX-License-Identifier: Apache-2.0 */
/* What a pool file says of itself, by pread(2). */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/rw.h"
#include "heap/atomic.h"
#include "heap/error.h"
#include "heap/heap.h"
#include "heap/inspect.h"
#include "heap/lock.h"
#include "heap/rootscan.h"

/* Who looks after many pools must not be kept by one: 261,120 roots will do. */
#define MAX_NPAGES 1024u

/* --- the last commit -------------------------------------------------------------- */

static int open_view(struct inspect_view *view, int fd, bool still)
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
	if (!view->shared && !still) {
		rc = lock_share_wait(fd);
		view->shared = rc == 0;
	}
	if (rc == 0)	/* again: it may have changed until now */
		rc = read_at(fd, &view->super, sizeof(view->super), 0);
	if (rc >= 0)
		rc = atomic_load(fd, false, &view->super, &view->atomic);
	if (rc < 0) {
		inspect_close_view(view);
		return rc;
	}
	view->nrecords = atomic_nrecords(view->atomic);
	return 0;
}

int inspect_open_view(struct inspect_view *view, int fd)
{
	return open_view(view, fd, false);
}

int inspect_open_still(struct inspect_view *view, int fd)
{
	return open_view(view, fd, true);
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

int inspect_roots(int fd, int (*fn)(const struct pool_root *root, void *arg),
		  void *arg)
{
	struct gather g = { NULL, 0, 0 };
	struct inspect_view view;
	struct rootscan scan = {
		.read = inspect_read,
		.src = &view,
		.max_npages = MAX_NPAGES,
		.slot = gather_slot,
		.arg = &g,
	};
	struct pool_info info;
	int rc, n;

	rc = inspect_pool(fd, &info);
	if (rc < 0 || info.state != POOL_GOOD)
		return rc;
	rc = inspect_open_view(&view, fd);
	if (rc < 0)
		return rc;
	if (view.atomic != NULL)
		info.heap_end = view.super.heap_end;
	scan.heap_end = info.heap_end;
	rc = rootscan_run(&scan);
	inspect_close_view(&view);
	if (rc == -EEXIST)
		rc = 0;
	if (rc >= 0 && scan.nbad > 0)
		rc = -EUCLEAN;
	if (g.n > 0)
		qsort(g.slot, g.n, sizeof(*g.slot), by_name);
	n = rc == 1 || rc == -ENOMEM ? 0 : report(&g, info.heap_end, fn, arg);
	free(g.slot);
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
