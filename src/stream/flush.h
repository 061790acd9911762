/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Having a file written to the disk while more is written to it, by a thread: what is
 * left to sync at the end is little then.
 */
#ifndef FM_STREAM_FLUSH_H
#define FM_STREAM_FLUSH_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct flusher {
	int fd;
	pthread_t thread;
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t changed;
	uint64_t len, flushed_len; /* bytes written; and of them on the way to the disk */
	bool ended;
	int rc; /* of fdatasync(2) */
};

/* 0 or -errno. */
int flusher_start(struct flusher *f, int fd);
/* So many more bytes were written. */
void flusher_add(struct flusher *f, uint64_t len);
/* No more will be.  0, or -errno of a write that failed. */
int flusher_end(struct flusher *f);

#endif
