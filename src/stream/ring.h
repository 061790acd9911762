/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A few buffers that go from one thread to another, in order, and back.  The one fills
 * (ring_fill, ring_filled), the other drains (ring_drain, ring_drained).  Whoever fails
 * or has done says so, and the other gets no more buffers.
 */
#ifndef FM_STREAM_RING_H
#define FM_STREAM_RING_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RING_NBUFS 4u

struct ring_buf {
	uint8_t *bytes; /* ring->buf_len of them */
	size_t len;	/* filled */
};

struct ring {
	struct ring_buf buf[RING_NBUFS];
	size_t buf_len;
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t changed;
	uint64_t nfilled, ndrained; /* since the start */
	bool ended;		    /* no more is filled */
	bool stopped;		    /* no more is drained */
};

/* 0 or -ENOMEM. */
int ring_init(struct ring *r, size_t buf_len);
void ring_destroy(struct ring *r);

/* The next buffer to fill, when there is one; NULL: the other side has stopped. */
struct ring_buf *ring_fill(struct ring *r);
void ring_filled(struct ring *r);
void ring_end(struct ring *r);

/* The next buffer to drain, when there is one; NULL: the other side has ended. */
struct ring_buf *ring_drain(struct ring *r);
void ring_drained(struct ring *r);
void ring_stop(struct ring *r);

#endif
