/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots: a file POOL@TAG beside its pool, of a moment, that never changes.
 *
 * Where the store's file system can share blocks (FICLONE) the clone is the
 * moment, also while a program writes through a mapping.  Where it cannot, a live
 * pool is copied, with its writer's lock held so that nobody writes to it
 * meanwhile; if somebody has it already: -EBUSY.
 *
 * Of an atomic pool a snapshot is its last commit, or one that is under way, whatever its
 * program does.  Its file changes by write(2) only, in an order that leaves it right
 * whenever the program is killed: so does a clone, which is between two writes.  A copy is
 * made from what only checkpoints change, and none does while it has the readers' lock,
 * and of the log as it was at the start.
 *
 * The kernel locks the file for link(2), so a program at this mount that writes to it
 * waits until the snapshot is made, perhaps with a checkpoint half done: the readers'
 * lock is not to be waited for then.
 */
#ifndef FM_FUSE_SNAPSHOT_H
#define FM_FUSE_SNAPSHOT_H

#include <stdbool.h>
#include <sys/stat.h>

#include "fuse/fuse_version.h"

struct node;

/* Is `name` a good name for a snapshot of the pool that the first pool_len bytes
 * of `pool` name?  0, or -EPERM (another pool's), -EINVAL (no tag, or one with
 * a second '@'). */
int snapshot_check_name(const char *name, const char *pool, size_t pool_len);

/* May the caller have one of the file? */
bool snapshot_allowed(fuse_req_t req, const struct stat *st);

/*
 * Make one of the node's file with this name; `st` says what it is.  It belongs
 * to the owner of the pool and has its mode, so that it can be read by those
 * who can read the pool, and removed by those who can remove it.
 */
int snapshot_make(fuse_req_t req, struct node *n, struct node *dir, const char *name,
		  struct stat *st);

/*
 * The same for an ioctl, `name` being in `size` bytes: so what the kernel checks of link(2)
 * is checked here.  0, or -errno: those of link(2), and -EINVAL of a name that is none;
 * -EAGAIN: the pool was renamed meanwhile.
 */
int snapshot_take(fuse_req_t req, struct node *n, const char *name, size_t size);

/*
 * Make `to`, an empty file, the contents of the node's file at one moment.  `from` is a
 * description of that file, for reading and writing, which nobody else uses.  `link`:
 * the kernel has the file locked for link(2).  Messages name `name`.
 */
int snapshot_capture(fuse_req_t req, struct node *n, int from, int to, const char *name,
		     bool link);

#endif
