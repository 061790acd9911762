/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a snapshot back to a pool: clones, and rolling back.  Both make a file in tmp/,
 * complete and on the disk, before it gets its name; a crash leaves nothing, or all.
 * When they return 0 it is all on the disk, the name too.
 *
 * A clone keeps the UUID of the pool that it is of, as a copy by cp(1) does.  It says
 * which pool the contents come from, and where a pool is best mapped; which file a pool
 * is, the catalog tells by its name, and the writer's record and a program whose daemon
 * has died by its inode number as well.  So two of one UUID do no harm, and a clone that
 * nobody has written to is equal to what it is of, byte by byte.
 *
 * Errors of both: -EROFS (of the mount), -EACCES, -ENOENT, -ENOSPC, -EINTR (the caller was
 * hit by a signal, or the mount ends), and those of the store's file system.  Then nothing
 * has changed, but for -EIO of a folder that cannot be synced.
 */
#ifndef FM_FUSE_RESTORE_H
#define FM_FUSE_RESTORE_H

#include "fuse/fuse_version.h"

struct fmfs_clone;
struct node;

/*
 * Make a pool of the node's file, a snapshot or a pool, which the caller has open for
 * reading.  It belongs to him, as any file that he makes in that folder, which he needs to
 * be allowed to (-EACCES).  -EINVAL: no name; -EPERM: one with '@'; -EEXIST.  Of a pool that a
 * program has open for writing, see snapshot.h: -EBUSY, -EAGAIN.
 */
int restore_clone(fuse_req_t req, struct node *n, const struct fmfs_clone *to);

/*
 * Put a file that is as the node's, a snapshot POOL@TAG, in the place of POOL, in one step.
 * It has the owner, group, mode and extended attributes (user.*, trusted.*) of POOL.  Who
 * has the old file open, for reading, keeps it as it was.  A program that has it open
 * for writing is not disturbed: -EBUSY.  Nor does one become its writer meanwhile, nor
 * after if it opened the old file before: it gets EBUSY.
 *
 * If there is no POOL any more it is made, with the owner, group and mode of the snapshot.
 *
 * The caller has the snapshot open for reading, may write to the pool, and make names in
 * the folder (-EACCES); in a sticky folder he owns the pool or the folder (-EPERM).  If there is no
 * pool, he owns the snapshot, or its mode lets him read and write it.
 *
 * -EINVAL: the node's file is no snapshot.  -EAGAIN: POOL was removed, made or replaced
 * meanwhile.
 *
 * Answers the ioctl, when the kernel knows that the name leads to another file.
 */
void restore_rollback(fuse_req_t req, struct node *n);

#endif
