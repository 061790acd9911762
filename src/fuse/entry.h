/* SPDX-License-Identifier: Apache-2.0 */
/* Names in a folder: looking up, making, removing. */
#ifndef FM_FUSE_ENTRY_H
#define FM_FUSE_ENTRY_H

#include <sys/stat.h>

#include "fuse/fuse_version.h"
#include "fuse/node.h"

struct fmfs;
struct node;

/* Is this a file or folder that the mount shows? */
bool entry_visible(const struct fmfs *f, const char *name, const struct stat *st);
/* What has the name, if it is to be seen; -ENOENT, ... */
int entry_stat(struct fmfs *f, struct node *parent, const char *name, struct stat *st);
/* The same, and its path, for who holds the names or changes them.  The path is there with
 * -ENOENT, too, unless the folder has none. */
int entry_find(struct fmfs *f, struct node *parent, const char *name,
	       char path[NODE_PATH_LEN], struct stat *st);

/* -EPERM; the reason goes to the log. */
int entry_refuse(const char *name, const char *why);

/* Fill the reply about the file; the kernel has one more look-up of its node.
 * 0 or -ENOMEM. */
int entry_fill(struct fmfs *f, struct node *parent, const char *name,
	       const struct stat *st, struct fuse_entry_param *e);
/* Send it; takes the look-up back if it cannot be sent. */
void entry_reply(fuse_req_t req, const struct fuse_entry_param *e);

/*
 * Make a regular file for the caller of the request: its descriptor (O_RDWR),
 * or -errno; `st` says what it is.
 */
int entry_make_file(fuse_req_t req, struct node *parent, const char *name, mode_t mode,
		    struct stat *st);

/* Let a new file, whose mode kept others out till now, belong to the caller, as if he had
 * made it in the folder, and have this mode: 0 or -errno. */
int entry_give_to_caller(fuse_req_t req, struct node *parent, int fd, mode_t mode);

/* What is in tmp/ gets its name in the folder, on the disk when this returns; or is
 * removed: -errno. */
int entry_publish(struct fmfs *f, const char *tmp, struct node *dir, const char *name);

/* May the caller make names in the folder?  0, or -errno: see caller_may_make(). */
int entry_may_make(fuse_req_t req, struct node *dir);

/* The open file has got the name in the folder, and not by a request of the kernel for
 * names: let that know.  Its node, with one more look-up, or NULL. */
struct node *entry_tell(struct fmfs *f, struct node *dir, const char *name, int fd);

void fmfs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void fmfs_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup);
void fmfs_forget_multi(fuse_req_t req, size_t n, struct fuse_forget_data *forgets);
void fmfs_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		dev_t dev);
void fmfs_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void fmfs_symlink(fuse_req_t req, const char *to, fuse_ino_t parent, const char *name);
void fmfs_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void fmfs_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void fmfs_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent,
	       const char *newname);

#endif
