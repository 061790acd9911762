/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rewriting pools that are in many pieces.
 *
 * Each page that is written to after a snapshot gets a block elsewhere, and the next
 * snapshot takes as long as there are such pieces (reflink.h).  A snapshot that held the
 * pool's writer up for half as long as the mount allows is followed by this: a thread goes
 * through the pool, and has the file system write those parts anew that are in many pieces,
 * in one.  It does so a MiB at a time with pauses, while programs go on; what they read
 * and write stays the same.
 *
 * XFS: FALLOC_FL_UNSHARE_RANGE, after the part was shared with a file without a name.  For
 * it rewrites what is shared only; of what the program has written to since the snapshot
 * each page would stay where it is, between others that move.  Btrfs: its
 * defragmentation.
 *
 * What was rewritten is no longer shared with snapshots, so they take that space then.  It
 * is not done if the disk has not as much free as the pool takes.
 */
#ifndef FM_FUSE_DEFRAG_H
#define FM_FUSE_DEFRAG_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct defrag_job;

struct defrag {
	int64_t max_stall; /* nanoseconds; 0: never rewrite */
	int tmp_fd;        /* a folder of the same file system */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	STAILQ_HEAD(defrag_queue, defrag_job) queue;
	unsigned int njobs;
	bool started;
	atomic_bool stop;
	pthread_t thread;
};

/* 0 or -errno. */
int defrag_start(struct defrag *d, int tmp_fd, int64_t max_stall);
/* Ends the thread, in the middle of a file if need be. */
void defrag_stop(struct defrag *d);

/* A clone of the file, open for reading and writing, held its writer up for so long.
 * Messages name it `name`. */
void defrag_after(struct defrag *d, int fd, int64_t stall, const char *name);

#endif
