/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that tells the kernel of names. */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "fuse/fmfs.h"
#include "fuse/state.h"

struct notice {
	STAILQ_ENTRY(notice) link;
	fuse_req_t req;  /* NULL: another daemon read it, */
	uint64_t unique; /* and the kernel calls it so */
	struct fuse_session *session;
	fuse_ino_t folder;
	char name[];
};

static struct notice *make(struct fuse_session *session, fuse_ino_t folder,
			   const char *name)
{
	struct notice *p = calloc(1, sizeof(*p) + strlen(name) + 1);

	if (p == NULL)
		return NULL;
	p->session = session;
	p->folder = folder;
	strcpy(p->name, name);
	return p;
}

/* What libfuse does not know of. */
static void reply_by_number(const struct notice *p)
{
	struct {
		struct fuse_out_header header;
		struct fuse_ioctl_out ioctl;
	} reply = { .header = { .len = sizeof(reply), .unique = p->unique } };

	if (write(fuse_session_fd(p->session), &reply, sizeof(reply)) < 0)
		log_debug("an ioctl cannot be answered: %s", strerror(errno));
}

static void give(struct notice *p)
{
	/* -ENOENT: the kernel does not know the name. */
	fuse_lowlevel_notify_inval_entry(p->session, p->folder, p->name,
					 strlen(p->name));
	if (p->req != NULL)
		fuse_reply_ioctl(p->req, 0, NULL, 0);
	else
		reply_by_number(p);
	free(p);
}

static void *serve(void *arg)
{
	struct notifier *x = arg;
	struct notice *p;

	pthread_mutex_lock(&x->lock);
	for (;;) {
		p = STAILQ_FIRST(&x->queue);
		if (x->paused || (p == NULL && x->stop))
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

static int start_thread(struct notifier *x)
{
	int err;

	x->paused = false;
	err = pthread_create(&x->thread, NULL, serve, x);
	x->started = err == 0;
	return -err;
}

int notify_start(struct notifier *x)
{
	pthread_mutex_init(&x->lock, NULL);
	pthread_cond_init(&x->changed, NULL);
	STAILQ_INIT(&x->queue);
	x->stop = false;
	return start_thread(x);
}

static void stop_thread(struct notifier *x, bool *why)
{
	if (!x->started)
		return;
	pthread_mutex_lock(&x->lock);
	*why = true;
	pthread_cond_signal(&x->changed);
	pthread_mutex_unlock(&x->lock);
	pthread_join(x->thread, NULL);
	x->started = false;
}

void notify_stop(struct notifier *x)
{
	stop_thread(x, &x->stop);
}

void notify_pause(struct notifier *x)
{
	stop_thread(x, &x->paused);
}

int notify_resume(struct notifier *x)
{
	return start_thread(x);
}

void notify_save(const struct notifier *x, struct state *s)
{
	const struct notice *p;

	STAILQ_FOREACH(p, &x->queue, link)
	{
		state_put(s, p->unique);
		state_put(s, p->folder);
		state_put_text(s, p->name);
	}
	state_put(s, 0);
}

void notify_load(struct notifier *x, struct fuse_session *session, struct state *s)
{
	uint64_t unique, folder;
	struct notice *p;
	char *name;

	while ((unique = state_get(s)) != 0) {
		folder = state_get(s);
		name = state_get_text(s);
		p = name == NULL ? NULL : make(session, folder, name);
		free(name);
		if (p == NULL)
			return;
		p->unique = unique;
		pthread_mutex_lock(&x->lock);
		STAILQ_INSERT_TAIL(&x->queue, p, link);
		pthread_cond_signal(&x->changed);
		pthread_mutex_unlock(&x->lock);
	}
}

void notify_then_reply(fuse_req_t req, fuse_ino_t folder, const char *name)
{
	struct notifier *x = &fmfs_of(req)->notifier;
	struct notice *p = make(fmfs_of(req)->session, folder, name);
	bool stopped;

	if (p != NULL) {
		p->req = req;
		p->unique = loop_request()->unique;
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
