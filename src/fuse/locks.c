/* SPDX-License-Identifier: Apache-2.0 */
/* File locks, passed down to the store. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "common/clock.h"
#include "fuse/fmfs.h"
#include "fuse/state.h"
#include "heap/inspect.h"

/* How often, and after what pause, a lock is tried again before it is refused, if
 * who has it has ended, or may have closed its file. */
#define DEAD_TRIES 50
#define CLOSED_TRIES 3
#define TRY_NS 1000000

struct lock_owner { /* guarded by node->lock */
	struct lock_owner *next;
	uint64_t owner; /* the kernel's name for it */
	uint64_t fh;    /* the handle that it locked through last */
	pid_t pid;      /* who did */
	int fd;         /* its description of the file */
};

struct lock_message { /* as the kernel sends it */
	struct fuse_in_header header;
	struct fuse_lk_in lock;
};

enum lock_kind { LOCK_KIND_RANGE, LOCK_KIND_FLOCK };

struct lock_request {
	struct node *node;
	uint64_t owner;
	uint64_t fh;
	pid_t pid;
	enum lock_kind kind;
	struct flock range; /* LOCK_KIND_RANGE */
	int op;             /* LOCK_KIND_FLOCK: without LOCK_NB */
};

struct lock_wait {
	TAILQ_ENTRY(lock_wait) link;
	fuse_req_t req;
	struct lock_request what;
	struct lock_message message; /* which it came in */
	bool armed;                  /* libfuse will tell of interrupts */
	bool interrupted;
};

/* --- owners, with node->lock held -------------------------------------- */

static struct lock_owner *find_owner(struct node *n, uint64_t owner)
{
	struct lock_owner *o = n->owners;

	while (o != NULL && o->owner != owner)
		o = o->next;
	return o;
}

/* With the descriptor, which it takes; NULL: no memory. */
static struct lock_owner *add_owner(struct node *n, uint64_t owner, int fd)
{
	struct lock_owner *o = calloc(1, sizeof(*o));

	if (o == NULL) {
		close(fd);
		return NULL;
	}
	o->owner = owner;
	o->fd = fd;
	o->next = n->owners;
	n->owners = o;
	return o;
}

static int make_owner(struct node *n, uint64_t owner, struct lock_owner **out)
{
	int fd = fd_reopen(n->fd, n->writable ? O_RDWR : O_RDONLY);

	if (fd < 0)
		return fd;
	*out = add_owner(n, owner, fd);
	return *out == NULL ? -ENOLCK : 0;
}

/* Drop those for which `by(o, value)`: true if there was one. */
static bool drop_owners(struct node *n, uint64_t value,
			bool (*by)(const struct lock_owner *o, uint64_t value))
{
	struct lock_owner **p = &n->owners, *o;
	bool dropped = false;

	while ((o = *p) != NULL) {
		if (!by(o, value)) {
			p = &o->next;
			continue;
		}
		*p = o->next;
		close(o->fd);
		free(o);
		dropped = true;
	}
	return dropped;
}

static bool is_owner(const struct lock_owner *o, uint64_t owner)
{
	return o->owner == owner;
}

static bool is_through(const struct lock_owner *o, uint64_t fh)
{
	return o->fh == fh;
}

/* --- one try ------------------------------------------------------------ */

static bool unlocks(const struct lock_request *r)
{
	return r->kind == LOCK_KIND_FLOCK ? r->op == LOCK_UN
					  : r->range.l_type == F_UNLCK;
}

/* Can others get a lock now that they could not before? */
static bool may_weaken(const struct lock_request *r)
{
	/* A flock that is converted is given up first. */
	return r->kind == LOCK_KIND_FLOCK || r->range.l_type != F_WRLCK;
}

static int apply(int fd, const struct lock_request *r)
{
	struct flock range = r->range;
	int rc;

	if (r->kind == LOCK_KIND_FLOCK)
		rc = flock(fd, r->op | LOCK_NB);
	else
		rc = fcntl(fd, F_OFD_SETLK, &range);
	if (rc == 0)
		return 0;
	return errno == EWOULDBLOCK || errno == EACCES ? -EAGAIN : -errno;
}

/* -EAGAIN: in conflict. */
static int try_lock(const struct lock_request *r)
{
	struct node *n = r->node;
	struct lock_owner *o;
	int rc = 0;

	pthread_mutex_lock(&n->lock);
	o = find_owner(n, r->owner);
	if (o == NULL && unlocks(r))
		goto out; /* has nothing */
	if (o == NULL)
		rc = make_owner(n, r->owner, &o);
	if (rc == 0) {
		o->fh = r->fh;
		o->pid = r->pid;
		rc = apply(o->fd, r);
	}
out:
	pthread_mutex_unlock(&n->lock);
	return rc;
}

/*
 * A close(2) and the end of a process reach us (RELEASE) after they returned, so
 * that whoever asks right then would be refused for a lock that is gone: how many
 * more tries an answer is worth.
 */
static int ntries_left(struct node *n, uint64_t asking, int ntried)
{
	struct lock_owner *o;
	int most = 0;

	pthread_mutex_lock(&n->lock);
	for (o = n->owners; o != NULL; o = o->next) {
		bool dead = o->pid > 0 && kill(o->pid, 0) < 0 && errno == ESRCH;
		int tries = dead ? DEAD_TRIES : CLOSED_TRIES;

		if (o->owner != asking && tries > most)
			most = tries;
	}
	pthread_mutex_unlock(&n->lock);
	return most - ntried;
}

static int try_lock_now(const struct lock_request *r)
{
	int rc = try_lock(r);
	bool more = true;

	for (int i = 0; rc == -EAGAIN && more; i++) {
		/* Looked at before the try: who was there may be gone by then. */
		more = ntries_left(r->node, r->owner, i) > 0;
		if (more)
			clock_sleep(TRY_NS);
		rc = try_lock(r);
	}
	return rc;
}

/* --- waiting -------------------------------------------------------------- */

static void wake(struct lock_waits *w)
{
	pthread_mutex_lock(&w->lock);
	w->retry = true;
	if (!TAILQ_EMPTY(&w->list))
		pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

/*
 * The caller was hit by a signal.  libfuse may call this when the request was
 * answered a moment ago, so the wait is looked for, not passed; and from within
 * fuse_req_interrupt_func(), when the request must not be answered yet.
 */
static void interrupted(fuse_req_t req, void *arg)
{
	struct lock_waits *w = arg;
	struct lock_wait *p;

	pthread_mutex_lock(&w->lock);
	TAILQ_FOREACH(p, &w->list, link)
	if (p->req == req)
		p->interrupted = true;
	w->retry = true;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

static void wait_for(fuse_req_t req, struct lock_waits *w, const struct lock_request *r)
{
	struct lock_wait *p = calloc(1, sizeof(*p));

	if (p == NULL) {
		fuse_reply_err(req, ENOLCK);
		return;
	}
	p->req = req;
	p->what = *r;
	memcpy(&p->message, loop_request(), sizeof(p->message));
	pthread_mutex_lock(&w->lock);
	TAILQ_INSERT_TAIL(&w->list, p, link);
	pthread_mutex_unlock(&w->lock);
	fuse_req_interrupt_func(req, interrupted, w);
	/* From here on the request may be answered at any time. */
	pthread_mutex_lock(&w->lock);
	p->armed = true;
	w->retry = true;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

/* Try each in the list once, the oldest first; with w->lock held. */
static void try_all(struct lock_waits *w)
{
	struct lock_wait *p, *next;
	int rc;

	for (p = TAILQ_FIRST(&w->list); p != NULL; p = next) {
		next = TAILQ_NEXT(p, link);
		if (!p->armed)
			continue;
		rc = p->interrupted ? -EINTR : try_lock(&p->what);
		if (rc == -EAGAIN)
			continue;
		TAILQ_REMOVE(&w->list, p, link);
		fuse_reply_err(p->req, -rc);
		free(p);
	}
}

static void *serve_waits(void *arg)
{
	struct lock_waits *w = arg;

	pthread_mutex_lock(&w->lock);
	while (!w->stop) {
		if (TAILQ_EMPTY(&w->list)) {
			pthread_cond_wait(&w->changed, &w->lock);
			continue;
		}
		if (!w->retry)
			clock_cond_wait(&w->changed, &w->lock,
					clock_ns() + LOCK_RETRY_MS * UINT64_C(1000000));
		w->retry = false;
		try_all(w);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static int start_thread(struct lock_waits *w)
{
	int err;

	w->retry = w->stop = false;
	err = pthread_create(&w->thread, NULL, serve_waits, w);
	w->started = err == 0;
	return -err;
}

int locks_start(struct lock_waits *w)
{
	pthread_mutex_init(&w->lock, NULL);
	clock_cond_init(&w->changed);
	TAILQ_INIT(&w->list);
	return start_thread(w);
}

static void stop_thread(struct lock_waits *w)
{
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	w->started = false;
}

void locks_stop(struct lock_waits *w)
{
	struct lock_wait *p;

	if (!w->started)
		return;
	stop_thread(w);
	while ((p = TAILQ_FIRST(&w->list)) != NULL) {
		TAILQ_REMOVE(&w->list, p, link);
		fuse_reply_err(p->req, ENOLCK);
		free(p);
	}
}

/* --- handing over ------------------------------------------------------------- */

void locks_pause(struct lock_waits *w)
{
	stop_thread(w);
	/* The next daemon would not know who was interrupted. */
	pthread_mutex_lock(&w->lock);
	try_all(w);
	pthread_mutex_unlock(&w->lock);
}

int locks_resume(struct lock_waits *w)
{
	return start_thread(w);
}

static bool is_any(const struct lock_owner *o, uint64_t value)
{
	(void)o;
	(void)value;
	return true;
}

void locks_drop_all(struct node *n)
{
	drop_owners(n, 0, is_any);
}

void locks_save_owners(const struct node *n, struct state *s)
{
	const struct lock_owner *o;

	for (o = n->owners; o != NULL; o = o->next) {
		state_put(s, 1);
		state_put(s, o->owner);
		state_put(s, o->fh);
		state_put(s, o->pid);
		state_put_fd(s, o->fd);
	}
	state_put(s, 0);
}

void locks_load_owners(struct node *n, struct state *s)
{
	uint64_t owner, fh;
	struct lock_owner *o;
	pid_t pid;
	int fd;

	while (state_get(s) != 0) {
		owner = state_get(s);
		fh = state_get(s);
		pid = state_get(s);
		fd = state_get_fd(s);
		o = fd < 0 ? NULL : add_owner(n, owner, fd);
		if (o == NULL) {
			s->failed = true;
			return;
		}
		o->fh = fh;
		o->pid = pid;
	}
}

void locks_save_waits(const struct lock_waits *w, struct state *s)
{
	const struct lock_wait *p;

	TAILQ_FOREACH(p, &w->list, link)
	state_put_bytes(s, &p->message, sizeof(p->message));
	state_put_bytes(s, NULL, 0);
}

void locks_load_waits(struct fuse_session *session, struct state *s)
{
	const void *message;
	size_t len;

	do {
		message = state_get_bytes(s, sizeof(struct lock_message), &len);
		if (message != NULL && len == sizeof(struct lock_message))
			loop_serve(session, message, len);
	} while (len > 0);
}

/* --- what the kernel asks for ----------------------------------------------- */

static void serve(fuse_req_t req, const struct lock_request *r, bool sleep)
{
	struct lock_waits *w = &fmfs_of(req)->locks;
	int rc = sleep ? try_lock(r) : try_lock_now(r);

	if (rc == -EAGAIN && sleep) {
		wait_for(req, w, r);
		return;
	}
	if (may_weaken(r))
		wake(w);
	fuse_reply_err(req, -rc);
}

static struct lock_request request_of(fuse_req_t req, fuse_ino_t ino,
				      const struct fuse_file_info *fi)
{
	return (struct lock_request){
		.node = fmfs_node(req, ino),
		.owner = fi->lock_owner,
		.fh = fi->fh,
		.pid = fuse_req_ctx(req)->pid,
	};
}

void fmfs_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
		struct flock *lock, int sleep)
{
	struct lock_request r = request_of(req, ino, fi);

	r.kind = LOCK_KIND_RANGE;
	r.range = *lock;
	r.range.l_pid = 0; /* or the OFD commands refuse */
	serve(req, &r, sleep);
}

void fmfs_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
	struct lock_request r = request_of(req, ino, fi);

	r.kind = LOCK_KIND_FLOCK;
	r.op = op & ~LOCK_NB;
	serve(req, &r, !(op & LOCK_NB));
}

/* Of the locks of others; whose they are the kernel does not tell of OFD
 * locks, so the pid stays 0. */
void fmfs_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
		struct flock *lock)
{
	struct node *n = fmfs_node(req, ino);
	struct lock_owner *o;
	int rc;

	lock->l_pid = 0;
	pthread_mutex_lock(&n->lock);
	o = find_owner(n, fi->lock_owner);
	/* The shared descriptor holds no locks. */
	rc = fcntl(o != NULL ? o->fd : n->fd, F_OFD_GETLK, lock) < 0 ? -errno : 0;
	pthread_mutex_unlock(&n->lock);
	lock->l_pid = 0;
	if (rc < 0)
		fuse_reply_err(req, -rc);
	else
		fuse_reply_lock(req, lock);
}

static void drop(fuse_req_t req, struct node *n, uint64_t value,
		 bool (*by)(const struct lock_owner *o, uint64_t value))
{
	bool dropped;

	pthread_mutex_lock(&n->lock);
	dropped = drop_owners(n, value, by);
	pthread_mutex_unlock(&n->lock);
	if (dropped)
		wake(&fmfs_of(req)->locks);
}

void locks_flush(fuse_req_t req, struct node *n, uint64_t owner)
{
	drop(req, n, owner, is_owner);
}

void locks_release(fuse_req_t req, struct node *n, uint64_t fh)
{
	drop(req, n, fh, is_through);
}

bool locks_pool_in_use(int fd)
{
	struct flock range = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = POOL_LOCK_OFF,
		.l_len = 1,
	};

	return fcntl(fd, F_OFD_GETLK, &range) == 0 && range.l_type != F_UNLCK;
}

bool locks_pool_in_use_here(struct node *n)
{
	struct lock_owner *o;
	bool here = false;

	pthread_mutex_lock(&n->lock);
	/* Who has a lock does not see it. */
	for (o = n->owners; o != NULL && !here; o = o->next)
		here = !locks_pool_in_use(o->fd);
	here = here && locks_pool_in_use(n->fd);
	pthread_mutex_unlock(&n->lock);
	return here;
}
