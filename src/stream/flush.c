/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <errno.h>
#include <unistd.h>

#include "stream/flush.h"

/* A sync costs some ms of its own; so many bytes take longer. */
#define FLUSH_LEN (UINT64_C(32) << 20)

static void *flush(void *arg)
{
	struct flusher *f = arg;
	int rc = 0;

	pthread_mutex_lock(&f->lock);
	while (!f->ended && rc == 0) {
		if (f->len - f->flushed_len < FLUSH_LEN) {
			pthread_cond_wait(&f->changed, &f->lock);
			continue;
		}
		f->flushed_len = f->len;
		pthread_mutex_unlock(&f->lock);
		rc = fdatasync(f->fd) < 0 ? -errno : 0;
		pthread_mutex_lock(&f->lock);
	}
	f->rc = rc;
	pthread_mutex_unlock(&f->lock);
	return NULL;
}

int flusher_start(struct flusher *f, int fd)
{
	*f = (struct flusher){ .fd = fd };
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->changed, NULL);
	return -pthread_create(&f->thread, NULL, flush, f);
}

void flusher_add(struct flusher *f, uint64_t len)
{
	pthread_mutex_lock(&f->lock);
	f->len += len;
	if (f->len - f->flushed_len >= FLUSH_LEN)
		pthread_cond_signal(&f->changed);
	pthread_mutex_unlock(&f->lock);
}

int flusher_end(struct flusher *f)
{
	pthread_mutex_lock(&f->lock);
	f->ended = true;
	pthread_cond_signal(&f->changed);
	pthread_mutex_unlock(&f->lock);
	pthread_join(f->thread, NULL);
	pthread_cond_destroy(&f->changed);
	pthread_mutex_destroy(&f->lock);
	return f->rc;
}
