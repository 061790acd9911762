/* SPDX-License-Identifier: Apache-2.0 */
/*
 * This library: an atomic pool, at a mount or not, and for bulk loads live pools, too,
 * with commits and without.  Objects are a list.
 */
#include <fmalloc.h>
#include <stddef.h>
#include <string.h>

#include "commit/peer.h"
#include "tools.h"

struct object {
	FM_PTR(struct object) next;
	unsigned char value[VALUE_LEN];
};

struct list {
	FM_PTR(struct object) last;
};

static struct fm_info *pool;
static uint64_t *counters;
static struct list *list;

static void open_as(const char *path, int flags)
{
	pool = fmalloc_open(path, FM_CREATE | FM_EXCL | flags, NULL);
	need(pool != NULL, path, fm_errmsg());
	list = fm_root_alloc(pool, "list", sizeof(*list), "");
	need(list != NULL, "fm_root_alloc", fm_errmsg());
}

static void open_atomic(const char *path)
{
	open_as(path, FM_ATOMIC);
}

static void open_live(const char *path)
{
	open_as(path, 0);
}

static void close_pool(void)
{
	need(fmalloc_close(pool) == 0, "fmalloc_close", fm_errmsg());
}

static void commit(void)
{
	need(fmalloc_commit(pool) == 0, "fmalloc_commit", fm_errmsg());
}

static void commit_never(void)
{
}

static void make_counters(void)
{
	uint64_t i;

	counters = fm_root_alloc(pool, "counters", NCOUNTERS * sizeof(*counters), "");
	need(counters != NULL, "fm_root_alloc", fm_errmsg());
	for (i = 0; i < NCOUNTERS; i++)
		counters[i] = i;
	commit();
}

static void update(uint64_t at)
{
	counters[at]++;
}

/* The key is the place in the list. */
static void insert(uint64_t key, const void *value)
{
	struct object *o = fmalloc_in(pool, sizeof(*o));

	(void)key;
	need(o != NULL, "fmalloc_in", fm_errmsg());
	memcpy(o->value, value, VALUE_LEN);
	fm_set(o->next, fm_get(list->last));
	fm_set(list->last, o);
}

const struct peer peers[] = {
	{ .name = "fmalloc",
	  .open = open_atomic,
	  .close = close_pool,
	  .make_counters = make_counters,
	  .update = update,
	  .insert = insert,
	  .commit = commit },
	{ .name = "fmalloc-live",
	  .open = open_live,
	  .close = close_pool,
	  .insert = insert,
	  .commit = commit_never },
	{ .name = "fmalloc-live-commits",
	  .open = open_live,
	  .close = close_pool,
	  .insert = insert,
	  .commit = commit },
	{ .name = NULL },
};

const char *peers_version(void)
{
	return "fmalloc of this tree";
}
