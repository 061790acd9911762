/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on open files.  With passthrough the kernel serves reads, writes
 * and mappings itself; all else comes here.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/holes.h"
#include "common/log.h"
#include "fuse/attr.h"
#include "fuse/entry.h"
#include "fuse/file.h"
#include "fuse/fmfs.h"
#include "fuse/tmpfile.h"

/* What a 32-bit reply can tell, in whole blocks (of reflinks, say). */
#define COPY_MAX ((size_t)0x7ffff000)

static bool is_write(int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
}

/* Give up the node's descriptor, as held by node_hold(). */
static void let_go(fuse_req_t req, struct node *n)
{
	passthrough_detach(req, node_release(n));
	tmpfile_closed(fmfs_of(req), n);
	quota_closed(fmfs_of(req), n);
}

/* Complete fi for the node, which is held; file_reads() looks at its last bit. */
static int make_handle(fuse_req_t req, struct node *n, struct fuse_file_info *fi)
{
	quota_opened(fmfs_of(req), n);
	fi->fh = (atomic_fetch_add(&fmfs_of(req)->last_fh, 1) + 1) << 1 |
		 ((fi->flags & O_ACCMODE) != O_WRONLY);
	/* Also with passthrough: then it is for read(2) and write(2) alone. */
	fi->direct_io = quota_binds(&fmfs_of(req)->quota, fi->flags) && passthrough_on(req);
	return passthrough_attach(req, n, fi);
}

static int open_node(fuse_req_t req, struct node *n, struct fuse_file_info *fi)
{
	struct fmfs *f = fmfs_of(req);
	bool write = is_write(fi->flags);
	int rc;

	if (n->dir)
		return -EISDIR;
	if (write && node_is_snapshot(&f->nodes, n))
		return -EROFS;
	rc = node_hold(&f->nodes, n, write);
	if (rc < 0)
		return rc;
	if (write)
		attr_drop_suid(req, n, n->fd);
	if ((fi->flags & O_TRUNC) && ftruncate(n->fd, 0) < 0)
		rc = -errno; /* what is there now, quota_opened() sees */
	if (rc == 0)
		rc = make_handle(req, n, fi);
	if (rc < 0)
		let_go(req, n);
	return rc;
}

void fmfs_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct node *n = fmfs_node(req, ino);
	int rc = n == NULL ? -ESTALE : open_node(req, n, fi);

	if (rc < 0)
		fuse_reply_err(req, -rc);
	else if (fuse_reply_open(req, fi) == -ENOENT)
		let_go(req, n); /* interrupted: there is no release */
}

/* Answer with a file just made, of which `e` is the entry, and whose node is held. */
static void reply_created(fuse_req_t req, const struct fuse_entry_param *e,
			  struct fuse_file_info *fi)
{
	struct node *n = fmfs_node(req, e->ino);
	int rc = make_handle(req, n, fi);

	if (rc == 0 && fuse_reply_create(req, e, fi) != -ENOENT)
		return;
	if (rc < 0)
		fuse_reply_err(req, -rc);
	let_go(req, n);
	node_forget(&fmfs_of(req)->nodes, n, 1);
}

void fmfs_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		 struct fuse_file_info *fi)
{
	struct fmfs *f = fmfs_of(req);
	struct node *dir = fmfs_node(req, parent);
	struct fuse_entry_param e;
	struct node *n;
	struct stat st;
	int fd, rc;

	fd = dir == NULL ? -ESTALE : entry_make_file(req, dir, name, mode, &st);
	if (fd < 0) {
		/* Made in the store since the kernel looked: let it look again. */
		if (fd == -EEXIST && !(fi->flags & O_EXCL))
			fd = -ESTALE;
		fuse_reply_err(req, -fd);
		return;
	}
	rc = entry_fill(f, dir, name, &st, &e);
	if (rc < 0) {
		close(fd);
		fuse_reply_err(req, -rc);
		return;
	}
	n = fmfs_node(req, e.ino);
	node_hold_new(n, fd);
	index_created(f->index, n);
	reply_created(req, &e, fi);
}

void fmfs_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode,
		  struct fuse_file_info *fi)
{
	struct node *dir = fmfs_node(req, parent);
	struct fuse_entry_param e;
	int rc = dir == NULL ? -ESTALE : tmpfile_make(req, dir, mode, &e);

	if (rc < 0)
		fuse_reply_err(req, -rc);
	else
		reply_created(req, &e, fi);
}

void fmfs_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
	       struct fuse_file_info *fi)
{
	struct fuse_bufvec buf = FUSE_BUFVEC_INIT(size);

	(void)fi;
	buf.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	buf.buf[0].fd = fmfs_node(req, ino)->fd;
	buf.buf[0].pos = off;
	fuse_reply_data(req, &buf, FUSE_BUF_SPLICE_MOVE);
}

static ssize_t write_buf(int fd, struct fuse_bufvec *in, off_t off)
{
	struct fuse_bufvec out = FUSE_BUFVEC_INIT(fuse_buf_size(in));

	out.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	out.buf[0].fd = fd;
	out.buf[0].pos = off;
	return fuse_buf_copy(&out, in, 0);
}

void fmfs_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *in, off_t off,
		    struct fuse_file_info *fi)
{
	struct fmfs *f = fmfs_of(req);
	struct node *n = fmfs_node(req, ino);
	uint64_t taken = 0;
	ssize_t done = 0;

	/* What was stored through a mapping is too late to refuse. */
	if (!fi->writepage)
		done = quota_take_range(f, n, off, fuse_buf_size(in), &taken);
	if (done == 0) {
		done = write_buf(n->fd, in, off);
		quota_settle(f, n->fd, taken);
	}
	if (done < 0)
		fuse_reply_err(req, -done);
	else
		fuse_reply_write(req, done);
}

void fmfs_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	locks_flush(req, fmfs_node(req, ino), fi->lock_owner);
	fuse_reply_err(req, 0);
}

static bool is_open(struct node *n)
{
	bool open;

	pthread_mutex_lock(&n->lock);
	open = n->nopen > 0;
	pthread_mutex_unlock(&n->lock);
	return open;
}

void fmfs_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct node *n = fmfs_node(req, ino);

	locks_release(req, n, fi->fh);
	if (is_write(fi->flags))
		quota_look(fmfs_of(req), n->fd);
	let_go(req, n);
	/* Others have it open: whoever opens a pool opens it twice, and is at it right
	 * now.  To read it again can wait. */
	if (is_write(fi->flags) && is_open(n))
		index_touched(fmfs_of(req)->index, n);
	else if (is_write(fi->flags))
		index_changed(fmfs_of(req)->index, n);
	fuse_reply_err(req, 0);
}

void fmfs_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct node *n = fmfs_node(req, ino);
	int rc;

	(void)fi;
	rc = datasync ? fdatasync(n->fd) : fsync(n->fd);
	if (rc < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	index_touched(fmfs_of(req)->index, n);
	quota_look(fmfs_of(req), n->fd); /* for what was stored through mappings */
	fuse_reply_err(req, 0);
}

/*
 * Space for what has none.  Pools ask for all of theirs when they are opened, of
 * which mostly nothing is missing; XFS would want as much to be free as is asked
 * for.  And it is refused before ext4 has taken all that there is.
 */
static int reserve(int fd, off_t off, off_t len)
{
	struct holes holes = { 0 };
	size_t i;
	int rc;

	rc = holes_find(fd, off, len, false, &holes);
	if (rc == 0)
		rc = holes_check(fd, &holes);
	for (i = 0; i < holes.n && rc == 0; i++)
		if (fallocate(fd, 0, holes.hole[i].off, holes.hole[i].len) < 0)
			rc = -errno;
	holes_free(&holes);
	return rc;
}

/*
 * The kernel does not ask for the size of a file again after a failure; so the file is to
 * have the size that it had.  (ext4 leaves it longer, by what it had found space for.)
 */
static void undo_growth(int fd, off_t size)
{
	struct stat st;

	if (fstat(fd, &st) == 0 && st.st_size > size && ftruncate(fd, size) < 0)
		log_warn("a file got longer by a reservation that failed: %s",
			 strerror(errno));
}

static int do_fallocate(int fd, int mode, off_t off, off_t len)
{
	struct stat was;
	int rc;

	if (fstat(fd, &was) < 0)
		return -errno;
	if (mode == 0)
		rc = reserve(fd, off, len);
	else
		rc = fallocate(fd, mode, off, len) < 0 ? -errno : 0;
	if (rc < 0)
		undo_growth(fd, was.st_size);
	return rc;
}

void fmfs_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
		    struct fuse_file_info *fi)
{
	struct fmfs *f = fmfs_of(req);
	struct node *n = fmfs_node(req, ino);
	uint64_t taken;
	int rc;

	(void)fi;
	rc = quota_take_reserve(f, n, mode, off, len, &taken);
	if (rc == 0) {
		rc = do_fallocate(n->fd, mode, off, len);
		quota_settle(f, n->fd, taken);
	}
	fuse_reply_err(req, -rc);
}

/* SEEK_DATA and SEEK_HOLE; the kernel does the others.  All other I/O has
 * positions of its own, so that the one of the description does not matter. */
void fmfs_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
		struct fuse_file_info *fi)
{
	off_t pos;

	(void)fi;
	pos = lseek(fmfs_node(req, ino)->fd, off, whence);
	if (pos < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_lseek(req, pos);
}

/* What there is to be copied from there, as far as a reply can tell. */
static size_t copy_len(int fd, off_t off, size_t len)
{
	struct stat st;

	if (len > COPY_MAX)
		len = COPY_MAX;
	if (fstat(fd, &st) < 0 || off >= st.st_size)
		return 0;
	return (off_t)len < st.st_size - off ? (off_t)len : st.st_size - off;
}

void fmfs_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
			  struct fuse_file_info *fi_in, fuse_ino_t ino_out,
			  off_t off_out, struct fuse_file_info *fi_out, size_t len,
			  int flags)
{
	struct node *out = fmfs_node(req, ino_out);
	struct fmfs *f = fmfs_of(req);
	int from = fmfs_node(req, ino_in)->fd;
	uint64_t taken;
	ssize_t n;

	(void)fi_in;
	(void)fi_out;
	len = copy_len(from, off_in, len);
	n = quota_take_range(f, out, off_out, len, &taken);
	if (n == 0) {
		n = copy_file_range(from, &off_in, out->fd, &off_out, len, flags);
		if (n < 0)
			n = -errno;
		quota_settle(f, out->fd, taken);
	}
	if (n < 0)
		fuse_reply_err(req, -n);
	else
		fuse_reply_write(req, n);
}
