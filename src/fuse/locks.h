/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File locks, passed down to the store's files, so that a program at the mount
 * and one that opens the file in the store exclude each other.
 *
 * Each owner that the kernel names (a process for POSIX locks, an open file for
 * OFD locks and flock) gets an open file description of its own on the store's
 * file, and takes OFD locks and flocks with it: they conflict just where the
 * owners do, and closing it gives all of them up.
 *
 * A request that has to wait waits in a list, not in a worker: one thread tries
 * again whenever a lock is given up here, and every LOCK_RETRY_MS for those that
 * are held by somebody in the store.
 */
#ifndef FM_FUSE_LOCKS_H
#define FM_FUSE_LOCKS_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/queue.h>

#include "fuse/fuse_version.h"

#define LOCK_RETRY_MS 25

struct node;
struct state;
struct lock_wait;

struct lock_waits {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	TAILQ_HEAD(lock_wait_list, lock_wait) list;
	bool retry; /* something was given up */
	bool stop;
	bool started;
	pthread_t thread;
};

int locks_start(struct lock_waits *w);
void locks_stop(struct lock_waits *w);

/* Handing over (handover.h), while there are no requests: stop trying, so that what waits
 * stays as it is; and go on, 0 or -errno. */
void locks_pause(struct lock_waits *w);
int locks_resume(struct lock_waits *w);
/* Who has locks on the node's file, with the descriptions that have them. */
void locks_save_owners(const struct node *n, struct state *s);
void locks_load_owners(struct node *n, struct state *s);
/* The table of nodes is given up. */
void locks_drop_all(struct node *n);
/* Who waits, as the requests that the kernel sent, which are then served again. */
void locks_save_waits(const struct lock_waits *w, struct state *s);
void locks_load_waits(struct fuse_session *session, struct state *s);

/* FLUSH: the process closes a descriptor of the file, which gives up all of its
 * POSIX locks on it. */
void locks_flush(fuse_req_t req, struct node *n, uint64_t owner);
/* RELEASE: the open file is gone, with its OFD locks and its flock. */
void locks_release(fuse_req_t req, struct node *n, uint64_t fh);

/* Does a program hold the pool for writing, as fmalloc_open() does? */
bool locks_pool_in_use(int fd);
/* Is that program one at this mount? */
bool locks_pool_in_use_here(struct node *n);

/* Operations. */
void fmfs_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
		struct flock *lock);
void fmfs_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
		struct flock *lock, int sleep);
void fmfs_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op);

#endif
