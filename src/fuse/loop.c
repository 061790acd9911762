/* SPDX-License-Identifier: Apache-2.0 */
/* The threads that serve requests. */
#include <config.h>

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "fuse/loop.h"

#define WAKE_MS 2 /* how often who has to stop is woken */

struct worker {
	SLIST_ENTRY(worker) link;
	struct loop *loop;
	pthread_t thread;
	atomic_bool reading; /* or about to, or just done */
	bool masked;         /* SIGUSR1 is blocked */
	struct fuse_buf buf;
};

static _Thread_local const struct fuse_in_header *current;

const struct fuse_in_header *loop_request(void)
{
	return current;
}

/* --- one request --------------------------------------------------------------- */

/* Of writes that are spliced only libfuse sees the header, and nobody else asks. */
static void process(struct fuse_session *session, const struct fuse_buf *buf)
{
	current = buf->flags & FUSE_BUF_IS_FD ? NULL : buf->mem;
	fuse_session_process_buf(session, buf);
	current = NULL;
}

void loop_serve(struct fuse_session *session, const void *message, size_t len)
{
	struct fuse_buf buf = { .mem = (void *)message, .size = len };

	process(session, &buf);
}

ssize_t loop_negotiate(struct fuse_session *session, void *init, size_t size)
{
	struct fuse_buf buf = { .mem = NULL };
	ssize_t n;

	do {
		n = fuse_session_receive_buf(session, &buf);
	} while (n == -EINTR);
	if (n > 0 && (size_t)n <= size) {
		memcpy(init, buf.mem, n);
		process(session, &buf);
	} else if (n >= 0) {
		n = n == 0 ? -ENODEV : -EPROTO;
	}
	free(buf.mem);
	return n;
}

static bool is_forget(const struct fuse_buf *buf)
{
	const struct fuse_in_header *in = buf->mem;

	return !(buf->flags & FUSE_BUF_IS_FD) &&
	       (in->opcode == FUSE_FORGET || in->opcode == FUSE_BATCH_FORGET);
}

/* --- threads --------------------------------------------------------------------- */

static void *work(void *arg);

/* With l->lock held. */
static int start_worker(struct loop *l)
{
	struct worker *w = calloc(1, sizeof(*w));
	int err;

	if (w == NULL)
		return -ENOMEM;
	w->loop = l;
	w->masked = true; /* perhaps, as it is for who starts it */
	err = pthread_create(&w->thread, NULL, work, w);
	if (err != 0) {
		free(w);
		return -err;
	}
	SLIST_INSERT_HEAD(&l->workers, w, link);
	l->nworkers++;
	l->nfree++;
	return 0;
}

/* What it begins may block; somebody must be there for the next.  (Not so if it only
 * forgets: a burst of that would make many threads.) */
static void begin(struct loop *l)
{
	pthread_mutex_lock(&l->lock);
	if (--l->nfree == 0 && l->nworkers < l->max)
		start_worker(l);
	pthread_mutex_unlock(&l->lock);
}

static void finish(struct loop *l)
{
	pthread_mutex_lock(&l->lock);
	l->nfree++;
	pthread_mutex_unlock(&l->lock);
}

static void end(struct loop *l, int error)
{
	pthread_mutex_lock(&l->lock);
	if (!l->ended)
		l->error = error;
	l->ended = true;
	atomic_store(&l->stop, true);
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
}

static void mask_wakes(struct worker *w, bool masked)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(masked ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
	w->masked = masked;
}

/* Wait while the loop is paused; false: it has ended. */
static bool may_read(struct loop *l)
{
	bool ended;

	if (!atomic_load(&l->stop))
		return true;
	pthread_mutex_lock(&l->lock);
	l->nparked++;
	pthread_cond_broadcast(&l->changed);
	while (atomic_load(&l->stop) && !l->ended)
		pthread_cond_wait(&l->changed, &l->lock);
	l->nparked--;
	ended = l->ended;
	pthread_mutex_unlock(&l->lock);
	return !ended;
}

/*
 * The next request: its size, -EINTR if there is none, or what ends the loop.  Who wants us
 * to stop sets `stop` and then sends signals while we are `reading`.  One that was sent
 * just before that ended is taken here or kept off, before the request is begun.
 */
static int receive(struct worker *w)
{
	struct loop *l = w->loop;
	int n = -EINTR;

	if (w->masked)
		mask_wakes(w, false);
	w->buf.flags = 0;
	atomic_store(&w->reading, true);
	if (!atomic_load(&l->stop))
		n = fuse_session_receive_buf(l->session, &w->buf);
	atomic_store(&w->reading, false);
	if (atomic_load(&l->stop))
		mask_wakes(w, true);
	return n == -EAGAIN ? -EINTR : n;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct loop *l = w->loop;
	bool forget;
	int n;

	while (may_read(l)) {
		n = receive(w);
		if (n == -EINTR)
			continue;
		if (n <= 0) {
			end(l, n);
			break;
		}
		forget = is_forget(&w->buf);
		if (!forget)
			begin(l);
		process(l->session, &w->buf);
		if (!forget)
			finish(l);
	}
	pthread_mutex_lock(&l->lock);
	l->nworkers--;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

/* --- all of them ------------------------------------------------------------------ */

void loop_init(struct loop *l, unsigned int max_threads)
{
	*l = (struct loop){ .max = max_threads };
	SLIST_INIT(&l->workers);
	pthread_mutex_init(&l->lock, NULL);
	clock_cond_init(&l->changed);
}

/* Wake those who wait for requests, and wait a moment for them; with l->lock held. */
static void wake_readers(struct loop *l)
{
	uint64_t until = clock_ns() + WAKE_MS * UINT64_C(1000000);
	struct worker *w;

	SLIST_FOREACH(w, &l->workers, link)
	if (atomic_load(&w->reading))
		pthread_kill(w->thread, SIGUSR1);
	clock_cond_wait(&l->changed, &l->lock, until);
}

static void join_all(struct loop *l)
{
	struct worker *w;

	while ((w = SLIST_FIRST(&l->workers)) != NULL) {
		SLIST_REMOVE_HEAD(&l->workers, link);
		pthread_join(w->thread, NULL);
		free(w->buf.mem);
		free(w);
	}
}

int loop_run(struct loop *l, struct fuse_session *session)
{
	int rc;

	pthread_mutex_lock(&l->lock);
	l->session = session;
	rc = start_worker(l);
	while (l->nworkers > 0)
		if (l->ended)
			wake_readers(l);
		else
			pthread_cond_wait(&l->changed, &l->lock);
	pthread_mutex_unlock(&l->lock);
	join_all(l);
	return rc < 0 ? rc : l->error;
}

void loop_end(struct loop *l)
{
	end(l, 0);
}

bool loop_pause(struct loop *l, unsigned int wait_ms)
{
	uint64_t until = clock_ns() + wait_ms * UINT64_C(1000000);
	bool paused;

	atomic_store(&l->stop, true);
	pthread_mutex_lock(&l->lock);
	while (l->nparked < l->nworkers && !l->ended && clock_ns() < until)
		wake_readers(l);
	paused = l->nparked == l->nworkers && !l->ended;
	pthread_mutex_unlock(&l->lock);
	if (!paused)
		loop_resume(l);
	return paused;
}

void loop_resume(struct loop *l)
{
	pthread_mutex_lock(&l->lock);
	atomic_store(&l->stop, l->ended);
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
}
