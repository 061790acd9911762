/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quotas of a mount: how long a file may become, and how much the files of the store may
 * have allocated together.
 *
 * Who is about to make a file longer, or have space allocated, asks first: what he may need
 * is promised to him, so that several who grow at once do not pass the limit together;
 * afterwards the file is counted with what it has.  Blocks that files share count for each
 * of them, as in project quotas of XFS: so whatever is written to any of them later, the
 * sum stays.
 *
 * What is done without the daemon is seen later: holes punched and stored into through
 * mappings when a file is looked at again, as all open ones are before anything is refused;
 * what happened in the store, and to what was mapped and closed, when the store is scanned
 * the next time.
 */
#ifndef FM_FUSE_QUOTA_H
#define FM_FUSE_QUOTA_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "fuse/usage.h"

struct fmfs;
struct node;

struct quota {
	uint64_t max_pool;  /* bytes of a file; 0: no limit */
	uint64_t max_store; /* of all together; 0: no limit, and nothing is counted */

	pthread_mutex_t lock;   /* guards what follows */
	pthread_cond_t settled; /* promised is less */
	pthread_cond_t wake;    /* of the thread */
	struct usage usage;
	uint64_t promised; /* to what is under way */
	unsigned int nrenames;
	bool scan_wanted; /* for something was refused */
	bool stop;
	bool started;
	pthread_t thread;
};

/* Count what is there, and start the thread that does so again.  0 or -errno, after a
 * message. */
int quota_start(struct fmfs *f);
void quota_stop(struct fmfs *f);

/* What the store's files have allocated, as far as is known. */
uint64_t quota_used(struct fmfs *f);
/* Look at all files that are open. */
void quota_look_at_open(struct fmfs *f);
/* With the lock held: something was refused, so look at all the others soon. */
void quota_want_scan(struct quota *q);

/*
 * Must write(2) by a file that was opened so come to the daemon?  Not if it is the library's
 * (FMFS_OPEN_RESERVING), which reserves space, and that is asked for: its commits go on when
 * the daemon has died.
 */
bool quota_binds(const struct quota *q, int flags);

/*
 * May [off, off + len) of the node's file be written or reserved?  0, and *taken is what
 * was promised; or -ENOSPC, which is what a project quota says as well.  (EFBIG would be the
 * limit of the file system or of the process, which programs do not take for a full disk.)
 */
int quota_take_range(struct fmfs *f, struct node *n, uint64_t off, uint64_t len,
		     uint64_t *taken);
/* The same for fallocate(2).  -EOPNOTSUPP with max_store: beyond the end of the file, which
 * is to stay there; it would not be counted. */
int quota_take_reserve(struct fmfs *f, struct node *n, int mode, uint64_t off,
		       uint64_t len, uint64_t *taken);
/* May the file be made so long?  The same errors. */
int quota_check_size(struct fmfs *f, struct node *n, const struct stat *st,
		     uint64_t size);
/* May there be a copy of the file `from`, by this name, in the place of `old`, if not NULL? */
int quota_take_copy(struct fmfs *f, const struct stat *from, const struct stat *old,
		    const char *name, uint64_t *taken);
/* The same of the copy that was made, `to`, which has more than what was taken if the file
 * got longer meanwhile, or if what was to make room for it has been opened. */
int quota_take_rest(struct fmfs *f, int to, const char *name, uint64_t *taken);
/* Does the file still count when it has no name any more, for somebody has it open? */
bool quota_keeps(struct fmfs *f, const struct stat *old);

/* It was done, or not: the file has what it has.  fd may be O_PATH. */
void quota_settle(struct fmfs *f, int fd, uint64_t taken);

/* A file may have got more or less; the file of this number has lost its last name;
 * something was renamed. */
void quota_look(struct fmfs *f, int fd);
void quota_removed(struct fmfs *f, ino_t ino);
void quota_renamed(struct fmfs *f);

/* The node has been opened, by one more; and closed, after node_release(). */
void quota_opened(struct fmfs *f, struct node *n);
void quota_closed(struct fmfs *f, struct node *n);

/* Of the file system of the store: let it be as large as the limit, and as full. */
void quota_statfs(struct fmfs *f, struct statvfs *st);

#endif
