/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads that take requests from the kernel and serve them: one at first, and one
 * more, up to a limit, whenever all are busy.
 *
 * libfuse has such a loop, but ends it by cancelling its threads, and what one of them has
 * just read is lost.  These can be stopped between two requests, so that another process
 * can go on: all read from one description of the device, because what was read from one
 * (a lock that is waited for, say) must be answered there.
 *
 * A thread that waits for a request is woken by SIGUSR1, which does not hit one that has a
 * request: see work().
 */
#ifndef FM_FUSE_LOOP_H
#define FM_FUSE_LOOP_H

#include <linux/fuse.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/queue.h>

#include "fuse/fuse_version.h"

struct worker;

struct loop {
	struct fuse_session *session;
	unsigned int max;
	pthread_mutex_t lock; /* of all below, but for `stop` */
	pthread_cond_t changed;
	SLIST_HEAD(worker_list, worker) workers;
	unsigned int nworkers, nfree, nparked; /* all; without a request; paused */
	atomic_bool stop;                      /* no more requests: paused or ended */
	bool ended;
	int error; /* -errno why it ended */
};

void loop_init(struct loop *l, unsigned int max_threads);

/* Serve the first request, which is FUSE_INIT, and copy it to `init`: its length, or -errno.
 * (With a buffer of its own: what the others need is found out by it.) */
ssize_t loop_negotiate(struct fuse_session *session, void *init, size_t size);

/* Serve until the mount is gone, or loop_end(): 0 or -errno. */
int loop_run(struct loop *l, struct fuse_session *session);
/* By any thread.  Requests that were read are still answered. */
void loop_end(struct loop *l);

/* Have all threads finish what they have, for at most so long, and wait: true; or go on:
 * false. */
bool loop_pause(struct loop *l, unsigned int wait_ms);
void loop_resume(struct loop *l);

/* Serve a request by this thread, before the loop runs. */
void loop_serve(struct fuse_session *session, const void *message, size_t len);

/* The request that this thread serves, as the kernel sent it; what is behind its header
 * is there if that is short. */
const struct fuse_in_header *loop_request(void);

#endif
