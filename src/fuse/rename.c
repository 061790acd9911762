/* SPDX-License-Identifier: Apache-2.0 */
/* Renaming, and what a crash left of it: see rename.h. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/rw.h"
#include "fuse/entry.h"
#include "fuse/fmfs.h"
#include "fuse/rename.h"
#include "fuse/snapshot.h"

#define INTENT "rename"
#define INTENT_HEAD "fmfs rename 1"
#define INTENT_LEN_MAX (2 * NODE_PATH_LEN + 64)

/* There is one intent at a time. */
static pthread_mutex_t intent_lock = PTHREAD_MUTEX_INITIALIZER;

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

static int write_intent(const struct store *s, ino_t ino, const char *from,
			const char *to)
{
	char text[INTENT_LEN_MAX];
	int len, fd, rc;

	len = snprintf(text, sizeof(text), "%s%c%ju%c%s%c%s", INTENT_HEAD, 0,
		       (uintmax_t)ino, 0, from, 0, to);
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
	return rc;
}

/* With all that was done on the disk. */
static void end_intent(const struct store *s, const char *from, const char *to)
{
	int rc = store_sync_folder(s, from);

	if (rc == 0)
		rc = store_sync_folder(s, to);
	if (rc == 0 && ((unlinkat(s->dirfd, INTENT, 0) < 0 && errno != ENOENT) ||
			fsync(s->dirfd) < 0))
		rc = -errno;
	if (rc < 0)
		log_error("%s/" INTENT ": cannot be removed (%s); the next mount will "
			  "rename what is '%s' then to '%s'",
			  s->path, strerror(-rc), from, to);
}

/* What to do, in text[INTENT_LEN_MAX]; false: it is not as write_intent() has it. */
static bool parse_intent(char *text, size_t len, uintmax_t *ino, char **from, char **to)
{
	char *part[4] = { text }, *end;
	size_t n = 1;

	if (len == 0 || text[len - 1] != '\0')
		return false;
	for (char *p = text; n < 4 && p < text + len - 1; p++)
		if (*p == '\0')
			part[n++] = p + 1;
	if (n != 4 || strcmp(part[0], INTENT_HEAD) != 0)
		return false;
	*ino = strtoumax(part[1], &end, 10);
	*from = part[2];
	*to = part[3];
	return *end == '\0' && **from != '\0' && **to != '\0';
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

static int rename_with_snapshots(const struct store *s, ino_t ino, const char *from,
				 const char *to, unsigned int flags,
				 const struct tags *t)
{
	int rc;

	pthread_mutex_lock(&intent_lock);
	rc = write_intent(s, ino, from, to);
	if (rc == 0)
		rc = rename_all(s, from, to, flags, t);
	end_intent(s, from, to);
	pthread_mutex_unlock(&intent_lock);
	return rc;
}

static void recover(const struct store *s, ino_t ino, const char *from, const char *to)
{
	struct tags t = { 0 };
	bool any = false;
	struct stat st;
	int rc = find_tags(s, from, &t, &any);

	for (size_t i = 0; rc == 0 && i < t.n; i++)
		rc = rename_snapshot(s, from, to, t.tag[i]);
	free_tags(&t);
	if (rc == 0 && fstatat(s->pools_fd, from, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    st.st_ino == ino)
		rc = rename_file(s, from, to, 0);
	if (rc < 0 && rc != -ENOENT)
		log_warn("%s: was being renamed to %s, which cannot be finished: %s",
			 from, to, strerror(-rc));
	else
		log_info("%s: was being renamed to %s: done", from, to);
	end_intent(s, from, to);
}

int rename_recover(struct store *s)
{
	char text[INTENT_LEN_MAX], *from, *to;
	uintmax_t ino;
	ssize_t len;
	int fd;

	/* Nothing had been done. */
	if (!s->readonly)
		unlinkat(s->dirfd, INTENT ".new", 0);
	fd = openat(s->dirfd, INTENT, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	len = read_at(fd, text, sizeof(text), 0);
	close(fd);
	if (s->readonly) {
		log_warn("%s: a pool was being renamed; its snapshots may have the old "
			 "name or the new: mount it for writing once",
			 s->path);
	} else if (len > 0 && parse_intent(text, len, &ino, &from, &to)) {
		recover(s, ino, from, to);
	} else {
		log_warn("%s/" INTENT ": not as fmfs writes it; removed", s->path);
		unlinkat(s->dirfd, INTENT, 0);
	}
	return 0;
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
	uid_t uid = fuse_req_ctx(req)->uid;
	char path[NODE_PATH_LEN];
	struct stat dir, st;
	int rc = node_stat(&f->nodes, r->dir, &dir);

	if (rc < 0 || !(dir.st_mode & S_ISVTX) || uid == 0 || uid == dir.st_uid)
		return rc;
	for (size_t i = 0; i < r->tags.n; i++)
		if (join(path, r->from, r->tags.tag[i]) == 0 &&
		    fstatat(f->store.pools_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    st.st_uid != uid)
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
	uint64_t stamp;
	int rc;

	if (node_lacks_snapshots(&f->nodes, folder, &stamp))
		return 0;
	rc = find_tags(&f->store, path, t, &any);
	if (rc == 0 && !any)
		node_note_none(&f->nodes, folder, stamp);
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

	rc = entry_stat(f, r->dir, r->name, &r->st);
	if (rc < 0)
		return rc;
	rc = entry_stat(f, r->newdir, r->newname, &r->replaced);
	if (rc < 0 && rc != -ENOENT)
		return rc;
	r->had_target = rc == 0;
	rc = node_child_path(&f->nodes, r->dir, r->name, r->from);
	if (rc == 0)
		rc = node_child_path(&f->nodes, r->newdir, r->newname, r->to);
	if (rc == 0 && name_is_snapshot(r->newname) && r->had_target)
		rc = entry_refuse(r->newname, "a snapshot cannot be replaced");
	return rc;
}

static int rename_files(fuse_req_t req, struct renaming *r)
{
	struct fmfs *f = fmfs_of(req);
	int rc;

	rc = look(f, r);
	if (rc == 0)
		rc = find_snapshots(f, r);
	if (rc == 0 && r->tags.n > 0)
		rc = check_snapshots(req, r);
	if (rc < 0)
		return rc;
	return r->tags.n == 0 ? rename_file(&f->store, r->from, r->to, r->flags)
			      : rename_with_snapshots(&f->store, r->st.st_ino, r->from,
						      r->to, r->flags, &r->tags);
}

static void note_snapshots(struct fmfs *f, const struct renaming *r)
{
	char from[NODE_PATH_LEN], to[NODE_PATH_LEN];
	struct stat st;

	for (size_t i = 0; i < r->tags.n; i++) {
		if (join(from, r->from, r->tags.tag[i]) < 0 ||
		    join(to, r->to, r->tags.tag[i]) < 0 ||
		    fstatat(f->store.pools_fd, to, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		node_moved(&f->nodes, st.st_ino, r->newdir, store_name_of(to));
		index_renamed(f->index, NULL, from, to);
	}
}

static void note_renamed(struct fmfs *f, const struct renaming *r)
{
	struct node *n, *other;

	if (!(r->flags & RENAME_EXCHANGE) && r->had_target &&
	    r->replaced.st_ino != r->st.st_ino)
		node_gone(&f->nodes, r->replaced.st_ino);
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
	if (rc == 0)
		rc = rename_files(req, &r);
	if (rc == 0)
		note_renamed(fmfs_of(req), &r);
	free_tags(&r.tags);
	fuse_reply_err(req, -rc);
}
