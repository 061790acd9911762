/* SPDX-License-Identifier: Apache-2.0 */
/* Buffers between two threads. */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "stream/ring.h"

int ring_init(struct ring *r, size_t buf_len)
{
	memset(r, 0, sizeof(*r));
	r->buf_len = buf_len;
	for (unsigned i = 0; i < RING_NBUFS; i++) {
		r->buf[i].bytes = malloc(buf_len);
		if (r->buf[i].bytes == NULL) {
			while (i-- > 0)
				free(r->buf[i].bytes);
			return -ENOMEM;
		}
	}
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->changed, NULL);
	return 0;
}

void ring_destroy(struct ring *r)
{
	for (unsigned i = 0; i < RING_NBUFS; i++)
		free(r->buf[i].bytes);
	pthread_cond_destroy(&r->changed);
	pthread_mutex_destroy(&r->lock);
}

/* Add to a count, or set a flag, and tell the other side. */
#define CHANGE(r, change) \
	do { \
		pthread_mutex_lock(&(r)->lock); \
		change; \
		pthread_cond_signal(&(r)->changed); \
		pthread_mutex_unlock(&(r)->lock); \
	} while (0)

struct ring_buf *ring_fill(struct ring *r)
{
	struct ring_buf *buf = NULL;

	pthread_mutex_lock(&r->lock);
	while (!r->stopped && r->nfilled - r->ndrained == RING_NBUFS)
		pthread_cond_wait(&r->changed, &r->lock);
	if (!r->stopped) {
		buf = &r->buf[r->nfilled % RING_NBUFS];
		buf->len = 0;
	}
	pthread_mutex_unlock(&r->lock);
	return buf;
}

void ring_filled(struct ring *r)
{
	CHANGE(r, r->nfilled++);
}

void ring_end(struct ring *r)
{
	CHANGE(r, r->ended = true);
}

struct ring_buf *ring_drain(struct ring *r)
{
	struct ring_buf *buf = NULL;

	pthread_mutex_lock(&r->lock);
	while (!r->ended && r->nfilled == r->ndrained)
		pthread_cond_wait(&r->changed, &r->lock);
	if (r->nfilled != r->ndrained)
		buf = &r->buf[r->ndrained % RING_NBUFS];
	pthread_mutex_unlock(&r->lock);
	return buf;
}

void ring_drained(struct ring *r)
{
	CHANGE(r, r->ndrained++);
}

void ring_stop(struct ring *r)
{
	CHANGE(r, r->stopped = true);
}
