/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that tells the kernel of names. */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/fmfs.h"

struct notice {
	STAILQ_ENTRY(notice) link;
	fuse_req_t req;
	struct fuse_session *session;
	fuse_ino_t folder;
	char name[];
};

static void give(struct notice *p)
{
	/* -ENOENT: the kernel does not know the name. */
	fuse_lowlevel_notify_inval_entry(p->session, p->folder, p->name,
					 strlen(p->name));
	fuse_reply_ioctl(p->req, 0, NULL, 0);
	free(p);
}

static void *serve(void *arg)
{
	struct notifier *x = arg;
	struct notice *p;

	pthread_mutex_lock(&x->lock);
	for (;;) {
		p = STAILQ_FIRST(&x->queue);
		if (p == NULL && x->stop)
			break;
		if (p == NULL) {
			pthread_cond_wait(&x->changed, &x->lock);
			continue;
		}
		STAILQ_REMOVE_HEAD(&x->queue, link);
		pthread_mutex_unlock(&x->lock);
		give(p);
		pthread_mutex_lock(&x->lock);
	}
	pthread_mutex_unlock(&x->lock);
	return NULL;
}

int notify_start(struct notifier *x)
{
	int err;

	pthread_mutex_init(&x->lock, NULL);
	pthread_cond_init(&x->changed, NULL);
	STAILQ_INIT(&x->queue);
	x->stop = false;
	err = pthread_create(&x->thread, NULL, serve, x);
	x->started = err == 0;
	return -err;
}

void notify_stop(struct notifier *x)
{
	if (!x->started)
		return;
	pthread_mutex_lock(&x->lock);
	x->stop = true;
	pthread_cond_signal(&x->changed);
	pthread_mutex_unlock(&x->lock);
	pthread_join(x->thread, NULL);
	x->started = false;
}

void notify_then_reply(fuse_req_t req, fuse_ino_t folder, const char *name)
{
	struct notifier *x = &fmfs_of(req)->notifier;
	struct notice *p = malloc(sizeof(*p) + strlen(name) + 1);
	bool stopped;

	if (p != NULL) {
		p->req = req;
		p->session = fmfs_of(req)->session;
		p->folder = folder;
		strcpy(p->name, name);
	}
	pthread_mutex_lock(&x->lock);
	stopped = x->stop;
	if (p != NULL && !stopped)
		STAILQ_INSERT_TAIL(&x->queue, p, link);
	pthread_cond_signal(&x->changed);
	pthread_mutex_unlock(&x->lock);
	if (p != NULL && !stopped)
		return;
	free(p);
	fuse_reply_ioctl(req, 0, NULL, 0);
}
