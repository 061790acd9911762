/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Telling the kernel that a name leads to another file than it believes.
 *
 * It takes the lock of the folder for that, and who has this may be waiting for an answer
 * from us: so a thread of its own does it, for which no worker waits.  It is stopped
 * before the workers are.
 */
#ifndef FM_FUSE_NOTIFY_H
#define FM_FUSE_NOTIFY_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/queue.h>

#include "fuse/fuse_version.h"

struct notice;
struct state;

struct notifier {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	STAILQ_HEAD(notice_queue, notice) queue;
	bool started, stop, paused;
	pthread_t thread;
};

int notify_start(struct notifier *x);
/* Tells what there is to tell, and ends the thread.  What comes after is answered at
 * once, and the kernel believes it within the entry timeout. */
void notify_stop(struct notifier *x);

/* Handing over (handover.h).  Paused while requests are still served, because the kernel
 * may wait for them; what comes after waits for the next daemon, or for going on. */
void notify_pause(struct notifier *x);
int notify_resume(struct notifier *x);
void notify_save(const struct notifier *x, struct state *s);
void notify_load(struct notifier *x, struct fuse_session *session, struct state *s);

/* Let the kernel look the name in the folder up again, and then answer the ioctl: done. */
void notify_then_reply(fuse_req_t req, fuse_ino_t folder, const char *name);

#endif
