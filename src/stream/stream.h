/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots as streams of bytes: whole, or as what changed since another snapshot of the
 * pool, the base.  format.h has the bytes.  Knows files, and nothing of mounts.
 *
 * Functions return 0 or -errno with words (heap/error.h); -EBADMSG is a stream that is
 * damaged, cut short or made to do harm, -ENOTSUP one of a newer version.
 */
#ifndef FM_STREAM_STREAM_H
#define FM_STREAM_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "stream/format.h"

/* Called now and then with how many bytes of the snapshot are done, of how many. */
typedef void stream_progress(void *arg, uint64_t done, uint64_t size);

struct stream_send {
	int fd, base_fd;	/* the snapshot; the base, or -1 */
	const char *name, *base_name; /* POOL@TAG */
	int out_fd;
	bool compress;
	bool spare_time;	/* only in the time that would be spent waiting for whoever
				 * reads the stream: all through a slow network, hardly
				 * anything through a pipe */
	int level;		/* of zstd */
	stream_progress *progress;
	void *arg;
};

/* The levels that there are, from the fastest. */
void stream_levels(int *min, int *max);

/* Write the stream to out_fd.  -EINVAL: not pools, or not snapshots of one pool.  If it
 * fails after something was written, what was is no whole stream. */
int stream_send(const struct stream_send *send);

struct receiver;

/* Read the head of a stream, after which its strings end and its numbers are in bounds. */
int receive_open(int in_fd, struct receiver **out);
const struct stream_head_disk *receive_head(const struct receiver *r);
void receive_close(struct receiver *r);

struct receive_to {
	int fd;			/* an empty file, open for reading and writing */
	int base_fd;		/* the base, if the stream has one; else -1 */
	const char *base_name;	/* what messages call it */
	bool share;		/* let the file share blocks with the base */
	stream_progress *progress;
	void *arg;
};

/*
 * Make the file what the stream says: it is the snapshot if this returns 0, and anything
 * if not.  Not synced.  -ESTALE: the base is another one than the sender's.
 */
int receive_run(struct receiver *r, const struct receive_to *to);

#endif
