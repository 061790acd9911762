/* SPDX-License-Identifier: Apache-2.0 */
/* What a daemon tells the next: see handover.h for the order, which both sides here have. */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "fuse/fmfs.h"

static int finish(const struct fmfs *f, const struct state *s, const char *what)
{
	if (!s->failed)
		return 0;
	log_error("%s: what the daemon before told of %s cannot be understood",
		  f->mountpoint, what);
	return -EUCLEAN;
}

/* --- the mount --------------------------------------------------------------------- */

static void save_terms(const struct fmfs_terms *t, struct state *s)
{
	state_put_bytes(s, t->init, t->init_len);
	state_put(s, t->want);
	state_put(s, t->max_write);
}

static void load_terms(struct fmfs_terms *t, struct state *s)
{
	const void *init = state_get_bytes(s, sizeof(t->init), &t->init_len);

	if (init != NULL)
		memcpy(t->init, init, t->init_len);
	t->want = state_get(s);
	t->max_write = state_get(s);
}

static void save_mount(struct fmfs *f, struct state *s, bool complete)
{
	state_put_fd(s, fuse_session_fd(f->session));
	state_put_text(s, f->mountpoint);
	state_put_text(s, f->store.path);
	state_put_fd(s, f->store.dirfd);
	state_put_fd(s, f->store.lock_fd);
	state_put(s, f->readonly);
	state_put(s, f->replacing.n + 1);
	save_terms(&f->terms, s);
	state_put(s, complete);
	state_put(s, f->last_fh);
}

static void load_text(struct state *s, char *to, size_t size)
{
	char *text = state_get_text(s);

	if (text == NULL || strlen(text) >= size)
		s->failed = true;
	else
		strcpy(to, text);
	free(text);
}

static int take_store(struct fmfs *f, struct state *s, const char *path)
{
	int dirfd = state_get_fd(s), lock_fd = state_get_fd(s);

	if (!s->failed)
		return store_take(&f->store, path, dirfd, lock_fd);
	close(dirfd);
	close(lock_fd);
	return finish(f, s, "the store");
}

int handover_load_mount(struct fmfs *f, struct state *s, int *fuse_fd, bool *complete)
{
	char path[PATH_MAX];
	int rc;

	*fuse_fd = state_get_fd(s);
	load_text(s, f->mountpoint, sizeof(f->mountpoint));
	load_text(s, path, sizeof(path));
	rc = take_store(f, s, path);
	f->readonly = state_get(s);
	f->replacing.n = state_get(s);
	load_terms(&f->terms, s);
	*complete = state_get(s);
	f->last_fh = state_get(s);
	if (rc == 0) {
		rc = finish(f, s, "the mount");
		if (rc < 0)
			store_close(&f->store);
	}
	return rc;
}

/* --- nodes --------------------------------------------------------------------------- */

static void save_node(const struct node *n, struct state *s)
{
	bool open = n->nopen > 0;

	state_put(s, 1);
	state_put(s, n->id);
	state_put(s, n->ino);
	state_put(s, n->dir);
	state_put(s, n->nlookup);
	state_put(s, n->gone || node_is_retired(n->parent));
	state_put_fd(s, n->old_fd);
	state_put(s, n->nopen);
	state_put_fd(s, open ? n->fd : -1);
	state_put(s, open && n->writable);
	state_put(s, open ? n->backing_id : 0);
	state_put_text(s, n->tmp_name);
	locks_save_owners(n, s);
}

static void load_node(struct node_table *t, struct state *s)
{
	uint64_t id = state_get(s), ino = state_get(s);
	struct node *n = node_restore(t, id, ino, state_get(s));

	if (n == NULL) {
		s->failed = true;
		return;
	}
	n->nlookup = state_get(s);
	n->gone = state_get(s);
	n->old_fd = state_get_fd(s);
	n->nopen = state_get(s);
	n->fd = state_get_fd(s);
	n->writable = state_get(s);
	n->backing_id = state_get(s);
	n->tmp_name = state_get_text(s);
	locks_load_owners(n, s);
	if ((n->nopen > 0) != (n->fd >= 0))
		s->failed = true;
}

/* The folder of one that has no path may have no number any more: any will do. */
static void save_place(const struct node *n, struct state *s)
{
	state_put(s, n->id);
	state_put(s, node_is_retired(n->parent) ? FUSE_ROOT_ID : n->parent->id);
	state_put_text(s, n->name);
}

/* False: that was the last. */
static bool load_place(struct node_table *t, struct state *s)
{
	uint64_t id = state_get(s);
	struct node *n, *parent;
	char *name;

	if (id == 0)
		return false;
	n = node_find(t, id);
	parent = node_find(t, state_get(s));
	name = state_get_text(s);
	if (n == NULL || n->parent != NULL || parent == NULL || name == NULL) {
		free(name);
		s->failed = true;
		return false;
	}
	node_restore_place(n, parent, name);
	return true;
}

static void save_each(const struct node_table *t, struct state *s,
		      void (*save)(const struct node *n, struct state *s))
{
	const struct node *n;

	for (size_t i = 0; i < t->nbuckets; i++)
		for (n = t->bucket[i]; n != NULL; n = n->next)
			if (n != t->root && !node_is_retired(n))
				save(n, s);
	state_put(s, 0);
}

/* --- all ------------------------------------------------------------------------------- */

void handover_save(struct fmfs *f, struct state *s, bool complete)
{
	save_mount(f, s, complete);
	passthrough_save(&f->passthrough, s);
	save_each(&f->nodes, s, save_node);
	save_each(&f->nodes, s, save_place);
	dirs_save(&f->dirs, s);
	index_save(f->index, s);
	locks_save_waits(&f->locks, s);
	notify_save(&f->notifier, s);
}

int handover_load_tables(struct fmfs *f, struct state *s)
{
	passthrough_load(&f->passthrough, s);
	while (state_get(s) != 0)
		load_node(&f->nodes, s);
	while (load_place(&f->nodes, s))
		;
	dirs_load(&f->dirs, s);
	return finish(f, s, "files");
}

int handover_load_requests(struct fmfs *f, struct state *s)
{
	index_load(f->index, s);
	locks_load_waits(f->session, s);
	notify_load(&f->notifier, f->session, s);
	return finish(f, s, "requests");
}
