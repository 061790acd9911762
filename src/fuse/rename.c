/* SPDX-License-Identifier: Apache-2.0 */
/* Renaming, and what a crash left of it: see rename.h. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"
#include "common/rw.h"
#include "fuse/caller.h"
#include "fuse/entry.h"
#include "fuse/fmfs.h"
#include "fuse/rename.h"
#include "fuse/snapshot.h"

#define INTENT "rename"
#define INTENT_HEAD "fmfs rename 1"
#define INTENT_LEN_MAX (2 * NODE_PATH_LEN + 64)

/* --- snapshots of a pool ----------------------------------------------------- */

/* What comes behind the name of the pool: "@TAG". */
struct tags {
	char **tag;
	size_t n, size;
};

static void free_tags(struct tags *t)
{
	for (size_t i = 0; i < t->n; i++)
		free(t->tag[i]);
	free(t->tag);
}

static int add_tag(struct tags *t, const char *tag)
{
	if (t->n == t->size) {
		size_t size = t->size == 0 ? 16 : t->size * 2;
		char **p = reallocarray(t->tag, size, sizeof(*p));

		if (p == NULL)
			return -ENOMEM;
		t->tag = p;
		t->size = size;
	}
	t->tag[t->n] = strdup(tag);
	return t->tag[t->n++] == NULL ? -ENOMEM : 0;
}

/* *any: whether there is a snapshot in the folder, be it of another pool. */
static int find_tags(const struct store *s, const char *path, struct tags *t, bool *any)
{
	const char *name = store_name_of(path);
	const size_t len = strlen(name);
	char folder[PATH_MAX];
	struct dirent *de;
	int rc = 0;
	DIR *d;

	store_folder_of(path, folder);
	d = store_list(s->pools_fd, folder);
	if (d == NULL)
		return -errno;
	while (rc == 0 && (de = readdir(d)) != NULL) {
		*any = *any || name_is_snapshot(de->d_name);
		if (strncmp(de->d_name, name, len) == 0 && de->d_name[len] == '@')
			rc = add_tag(t, de->d_name + len);
	}
	closedir(d);
	return rc;
}

/* Of POOL, POOL@TAG. */
static int join(char out[NODE_PATH_LEN], const char *path, const char *tag)
{
	return snprintf(out, NODE_PATH_LEN, "%s%s", path, tag) < NODE_PATH_LEN
		       ? 0
		       : -ENAMETOOLONG;
}

static int rename_snapshot(const struct store *s, const char *from, const char *to,
			   const char *tag)
{
	char a[NODE_PATH_LEN], b[NODE_PATH_LEN];
	int rc = join(a, from, tag);

	if (rc == 0)
		rc = join(b, to, tag);
	return rc == 0 ? store_rename(s, a, b) : rc;
}

/* --- the intent --------------------------------------------------------------- */

struct intent {
	uintmax_t ino, replaces; /* 0: nothing */
	const char *from, *to;
};

static int write_intent(const struct store *s, const struct intent *i)
{
	char text[INTENT_LEN_MAX];
	int len, fd, rc;

	len = snprintf(text, sizeof(text), "%s%c%ju%c%ju%c%s%c%s", INTENT_HEAD, 0, i->ino,
		       0, i->replaces, 0, i->from, 0, i->to);
	fd = openat(s->dirfd, INTENT ".new",
		    O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	rc = write_at(fd, text, len + 1, 0);
	if (rc == 0 && (fsync(fd) < 0 ||
			renameat(s->dirfd, INTENT ".new", s->dirfd, INTENT) < 0 ||
			fsync(s->dirfd) < 0))
		rc = -errno;
	close(fd);
	if (rc < 0)
		unlinkat(s->dirfd, INTENT ".new", 0);
	return rc;
}

/* What was done is on the disk first, if the disk takes it; and then it is not to be done
 * again, for other files may have these names by then. */
static void end_intent(const struct store *s, const struct intent *i)
{
	int rc = store_sync_folder(s, i->from);

	if (rc == 0)
		rc = store_sync_folder(s, i->to);
	if (rc < 0)
		log_warn("%s: renamed to %s, which may not be on the disk: %s", i->from,
			 i->to, strerror(-rc));
	if ((unlinkat(s->dirfd, INTENT, 0) < 0 && errno != ENOENT) ||
	    fsync(s->dirfd) < 0)
		log_error("%s/" INTENT ": cannot be removed: %s", s->path,
			  strerror(errno));
}

/* As paths are at a mount: below pools/, and a pool's. */
static bool is_path(const char *path)
{
	const char *name = store_name_of(path);

	if (strlen(path) >= NODE_PATH_LEN || *path == '/' || *name == '\0' ||
	    strstr(path, "//") != NULL || name_is_snapshot(name))
		return false;
	for (const char *p = path; p != NULL; p = strchr(p, '/')) {
		p += *p == '/';
		if (strncmp(p, "./", 2) == 0 || strncmp(p, "../", 3) == 0 ||
		    strcmp(p, ".") == 0 || strcmp(p, "..") == 0)
			return false;
	}
	return true;
}

/* What to do, in text[INTENT_LEN_MAX]; false: it is not as write_intent() has it. */
static bool parse_intent(char *text, size_t len, struct intent *i)
{
	char *part[5] = { text }, *end, *end2;
	size_t n = 1;

	if (len == 0 || text[len - 1] != '\0')
		return false;
	for (char *p = text; n < 5 && p < text + len - 1; p++)
		if (*p == '\0')
			part[n++] = p + 1;
	if (n != 5 || strcmp(part[0], INTENT_HEAD) != 0)
		return false;
	*i = (struct intent){
		.ino = strtoumax(part[1], &end, 10),
		.replaces = strtoumax(part[2], &end2, 10),
		.from = part[3],
		.to = part[4],
	};
	return *end == '\0' && *end2 == '\0' && is_path(i->from) && is_path(i->to);
}

/* --- the files ---------------------------------------------------------------- */

/* The first n, back to where they were. */
static void take_back(const struct store *s, const char *from, const char *to,
		      const struct tags *t, size_t n)
{
	while (n-- > 0)
		if (rename_snapshot(s, to, from, t->tag[n]) < 0)
			log_error("%s%s: cannot be named back to %s%s: %s", to,
				  t->tag[n], from, t->tag[n], strerror(errno));
}

static int rename_file(const struct store *s, const char *from, const char *to,
		       unsigned int flags)
{
	return renameat2(s->pools_fd, from, s->pools_fd, to, flags) < 0 ? -errno : 0;
}

static int rename_all(const struct store *s, const char *from, const char *to,
		      unsigned int flags, const struct tags *t)
{
	size_t n;
	int rc = 0;

	for (n = 0; n < t->n && rc == 0; n++)
		rc = rename_snapshot(s, from, to, t->tag[n]);
	if (rc == 0)
		rc = rename_file(s, from, to, flags);
	else
		n--;
	if (rc < 0)
		take_back(s, from, to, t, n);
	return rc;
}

/* One at a time, as the names are changed. */
static int rename_with_snapshots(const struct store *s, const struct intent *i,
				 unsigned int flags, const struct tags *t)
{
	int rc = write_intent(s, i);

	if (rc == 0)
		rc = rename_all(s, i->from, i->to, flags, t);
	end_intent(s, i);
	return rc;
}

/* --- after a crash -------------------------------------------------------------- */

/* Whoever prepared the store: nothing outside of it is meant. */
static bool is_inside(const struct store *s, const char *path)
{
	struct open_how how = {
		.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
	};
	char folder[NODE_PATH_LEN];
	long fd;

	store_folder_of(path, folder);
	fd = syscall(SYS_openat2, s->pools_fd, folder, &how, sizeof(how));
	if (fd >= 0)
		close((int)fd);
	return fd >= 0;
}

static int recover_pool(const struct store *s, const struct intent *i)
{
	struct stat from, to;

	if (fstatat(s->pools_fd, i->from, &from, AT_SYMLINK_NOFOLLOW) < 0 ||
	    from.st_ino != i->ino)
		return 0; /* done */
	if (fstatat(s->pools_fd, i->to, &to, AT_SYMLINK_NOFOLLOW) < 0 ||
	    to.st_ino != i->replaces)
		return store_rename(s, i->from, i->to);
	return rename_file(s, i->from, i->to, 0);
}

static void recover(const struct store *s, const struct intent *i)
{
	struct tags t = { 0 };
	bool any = false;
	int rc;

	rc = is_inside(s, i->from) && is_inside(s, i->to)
		     ? find_tags(s, i->from, &t, &any)
		     : -ENOENT;
	for (size_t n = 0; rc == 0 && n < t.n; n++)
		rc = rename_snapshot(s, i->from, i->to, t.tag[n]);
	free_tags(&t);
	if (rc == 0)
		rc = recover_pool(s, i);
	if (rc < 0)
		log_warn("%s: was being renamed to %s, which cannot be finished: %s",
			 i->from, i->to, strerror(-rc));
	else
		log_info("%s: was being renamed to %s: done", i->from, i->to);
	end_intent(s, i);
}

/* -ENOENT: there is none. */
static ssize_t read_intent(const struct store *s, char text[INTENT_LEN_MAX])
{
	struct stat st;
	ssize_t len;
	int fd;

	fd = openat(s->dirfd, INTENT, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		len = -EINVAL;
	else
		len = read_at(fd, text, INTENT_LEN_MAX, 0);
	close(fd);
	return len;
}

void rename_recover(struct store *s)
{
	char text[INTENT_LEN_MAX];
	struct intent i;
	ssize_t len = read_intent(s, text);

	/* Nothing had been done. */
	if (!s->readonly)
		unlinkat(s->dirfd, INTENT ".new", 0);
	if (len == -ENOENT)
		return;
	if (s->readonly) {
		log_warn("%s: a pool was being renamed; its snapshots may have the old "
			 "name or the new: mount it for writing once",
			 s->path);
	} else if (len > 0 && parse_intent(text, len, &i)) {
		recover(s, &i);
	} else {
		log_warn("%s/" INTENT ": not as fmfs writes it; removed", s->path);
		unlinkat(s->dirfd, INTENT, 0);
	}
}

/* --- what may be renamed -------------------------------------------------------- */

struct renaming {
	struct node *dir, *newdir;
	const char *name, *newname;
	unsigned int flags;
	char from[NODE_PATH_LEN];
	char to[NODE_PATH_LEN];
	struct stat st;
	struct stat replaced; /* if had_target */
	bool had_target;
	struct tags tags;     /* of what else is renamed */
};

/* May the name become the other one? */
static int check_names(const struct renaming *r)
{
	const char *from = r->name, *to = r->newname;
	const unsigned int flags = r->flags;

	if (flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	if (!name_is_snapshot(from) && !name_is_snapshot(to))
		return 0;
	if (!name_is_snapshot(from))
		return entry_refuse(to,
				    "a pool cannot become a snapshot by renaming");
	/* A snapshot may get another tag. */
	if (!(flags & RENAME_EXCHANGE) && r->dir == r->newdir &&
	    snapshot_check_name(to, from, strcspn(from, "@")) == 0)
		return 0;
	return entry_refuse(
		from, "a snapshot can only get another tag: mv POOL@TAG POOL@NEW");
}

/* The kernel has asked this of the pool: in a sticky folder a file is its owner's, or
 * the folder's. */
static int check_sticky(fuse_req_t req, const struct renaming *r)
{
	struct fmfs *f = fmfs_of(req);
	char path[NODE_PATH_LEN];
	struct stat dir, st;
	int rc = node_path(&f->nodes, r->dir, path);

	if (rc == 0 && fstatat(f->store.pools_fd, path, &dir, AT_SYMLINK_NOFOLLOW) < 0)
		rc = -errno;
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < r->tags.n; i++)
		if (join(path, r->from, r->tags.tag[i]) == 0 &&
		    fstatat(f->store.pools_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    !caller_may_take(req, &dir, &st))
			return entry_refuse(path, "this snapshot is another user's");
	return 0;
}

/* All that could fail halfway. */
static int check_snapshots(fuse_req_t req, const struct renaming *r)
{
	struct fmfs *f = fmfs_of(req);
	char path[NODE_PATH_LEN];
	struct stat st;

	if (r->flags & RENAME_EXCHANGE)
		return entry_refuse(r->from, "a pool with snapshots cannot be exchanged");
	for (size_t i = 0; i < r->tags.n; i++) {
		int rc = join(path, r->to, r->tags.tag[i]);

		if (rc == 0 && strlen(r->newname) + strlen(r->tags.tag[i]) > NAME_MAX)
			rc = -ENAMETOOLONG;
		if (rc == 0 && fstatat(f->store.pools_fd, path, &st,
				       AT_SYMLINK_NOFOLLOW) == 0)
			rc = -EEXIST;
		if (rc < 0)
			return rc;
	}
	return check_sticky(req, r);
}

/* Those of the pool at the path in the folder; which has so many names that it is not
 * looked at each time. */
static int find_in(struct fmfs *f, struct node *folder, const char *path, struct tags *t)
{
	bool any = false;
	int rc;

	if (folder->lacks_snapshots)
		return 0;
	rc = find_tags(&f->store, path, t, &any);
	folder->lacks_snapshots = rc == 0 && !any;
	return rc;
}

static int find_snapshots(struct fmfs *f, struct renaming *r)
{
	int rc = 0;

	if (S_ISREG(r->st.st_mode) && !name_is_snapshot(r->name) &&
	    strcmp(r->from, r->to) != 0)
		rc = find_in(f, r->dir, r->from, &r->tags);
	if (rc == 0 && r->flags & RENAME_EXCHANGE && r->had_target &&
	    S_ISREG(r->replaced.st_mode))
		rc = find_in(f, r->newdir, r->to, &r->tags);
	return rc;
}

/* --- the request ---------------------------------------------------------------- */

static int look(struct fmfs *f, struct renaming *r)
{
	int rc;

	rc = entry_find(f, r->dir, r->name, r->from, &r->st);
	if (rc < 0)
		return rc;
	rc = entry_find(f, r->newdir, r->newname, r->to, &r->replaced);
	if (rc < 0 && (rc != -ENOENT || *r->to == '\0'))
		return rc;
	r->had_target = rc == 0;
	return name_is_snapshot(r->newname) && r->had_target
		       ? entry_refuse(r->newname, "a snapshot cannot be replaced")
		       : 0;
}

static int rename_files(fuse_req_t req, struct renaming *r)
{
	struct fmfs *f = fmfs_of(req);
	struct intent i;
	int rc;

	rc = look(f, r);
	if (rc == 0)
		rc = find_snapshots(f, r);
	if (rc == 0 && r->tags.n > 0)
		rc = check_snapshots(req, r);
	if (rc < 0)
		return rc;
	if (name_is_snapshot(r->newname)) /* never in the place of another */
		return store_rename(&f->store, r->from, r->to);
	if (r->tags.n == 0)
		return rename_file(&f->store, r->from, r->to, r->flags);
	i = (struct intent){
		.ino = r->st.st_ino,
		.replaces = r->had_target ? r->replaced.st_ino : 0,
		.from = r->from,
		.to = r->to,
	};
	return rename_with_snapshots(&f->store, &i, r->flags, &r->tags);
}

static void note_snapshots(struct fmfs *f, const struct renaming *r)
{
	char from[NODE_PATH_LEN], to[NODE_PATH_LEN];
	struct stat st;
	struct node *n;

	for (size_t i = 0; i < r->tags.n; i++) {
		if (join(from, r->from, r->tags.tag[i]) < 0 ||
		    join(to, r->to, r->tags.tag[i]) < 0 ||
		    fstatat(f->store.pools_fd, to, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		n = node_enter(&f->nodes, r->newdir, store_name_of(to), &st);
		if (n == NULL)
			continue;
		index_renamed(f->index, n, from, to);
		node_forget(&f->nodes, n, 1);
	}
}

static void note_renamed(struct fmfs *f, const struct renaming *r)
{
	struct node *n, *other;

	if (!(r->flags & RENAME_EXCHANGE) && r->had_target &&
	    r->replaced.st_ino != r->st.st_ino) {
		node_gone(&f->nodes, r->replaced.st_ino);
		quota_removed(f, r->replaced.st_ino);
	}
	quota_renamed(f);
	/* The kernel looked it up to rename it. */
	n = node_enter(&f->nodes, r->newdir, r->newname, &r->st);
	if (n == NULL)
		return;
	if (!(r->flags & RENAME_EXCHANGE)) {
		index_renamed(f->index, n, r->from, r->to);
	} else if ((other = node_enter(&f->nodes, r->dir, r->name, &r->replaced)) !=
		   NULL) {
		index_exchanged(f->index, other, r->from, n, r->to);
		node_forget(&f->nodes, other, 1);
	}
	node_forget(&f->nodes, n, 1);
	note_snapshots(f, r);
}

void fmfs_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
		 fuse_ino_t newparent, const char *newname, unsigned int flags)
{
	struct fmfs *f = fmfs_of(req);
	struct renaming r = {
		.dir = fmfs_node(req, parent),
		.newdir = fmfs_node(req, newparent),
		.name = name,
		.newname = newname,
		.flags = flags,
	};
	int rc;

	if (r.dir == NULL || r.newdir == NULL)
		rc = -ESTALE;
	else
		rc = check_names(&r);
	node_change_names(&f->nodes);
	if (rc == 0)
		rc = rename_files(req, &r);
	if (rc == 0)
		note_renamed(f, &r);
	node_let_names(&f->nodes);
	free_tags(&r.tags);
	fuse_reply_err(req, -rc);
}
