/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commits, checkpoints and rollback.  The order of writes is that of "The log of an
 * atomic pool" in doc/format.md.
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/rw.h"
#include "heap/atomic.h"
#include "heap/error.h"
#include "heap/lane.h"
#include "heap/lock.h"
#include "heap/memtool.h"

#define LOG_LEN_MIN (UINT64_C(1) << 20)
#define LOG_LEN_MAX (UINT64_C(64) << 20)

/* --- one at a time ------------------------------------------------------------ */

void commit_begin(struct atomic *a)
{
	pthread_mutex_lock(&a->lock);
	while (a->busy)
		pthread_cond_wait(&a->done_cond, &a->lock);
	a->busy = true;
	pthread_mutex_unlock(&a->lock);
}

bool commit_try_begin(struct atomic *a)
{
	struct timespec until;
	bool mine;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 2;
	pthread_mutex_lock(&a->lock);
	while (a->busy &&
	       pthread_cond_timedwait(&a->done_cond, &a->lock, &until) != ETIMEDOUT)
		;
	mine = !a->busy;
	a->busy = true;
	pthread_mutex_unlock(&a->lock);
	return mine;
}

void commit_end(struct atomic *a)
{
	pthread_mutex_lock(&a->lock);
	a->busy = false;
	pthread_cond_broadcast(&a->done_cond);
	pthread_mutex_unlock(&a->lock);
}

/* --- checkpoints -------------------------------------------------------------- */

/* The super's page without what is not part of its contents. */
static int write_first(int fd, const unsigned char *page)
{
	const uint64_t writer_at = offsetof(struct fm_super_disk, writer);
	const uint64_t rest = writer_at + sizeof(struct fm_writer_disk);
	int rc = write_at(fd, page, writer_at, 0);

	return rc < 0 ? rc : write_at(fd, page + rest, FM_PAGE_LEN - rest, rest);
}

static int write_page(void *arg, uint64_t off, const unsigned char *page)
{
	const int *fd = arg;
	int rc = off == 0 ? write_first(*fd, page)
			  : write_at(*fd, page, FM_PAGE_LEN, off);

	return rc < 0 ? err_sys(-rc, "write of a page") : 0;
}

static int write_overlay(struct atomic *a, int fd)
{
	int rc = overlay_each(&a->overlay, OVERLAY_LOGGED, write_page, &fd);

	return rc == 0 ? log_sync(fd) : rc;
}

int commit_write_out(struct atomic *a, int fd)
{
	int rc = write_overlay(a, fd);

	if (rc < 0)
		return rc;
	overlay_set_written(&a->overlay);
	return log_next_lap(&a->log, fd);
}

int commit_write_back(struct atomic *a, int fd)
{
	int rc;

	if (a->log.end == 0 && a->overlay.nlogged == 0)
		return 0;
	rc = commit_write_out(a, fd);
	return rc < 0 ? err_in(rc, "checkpoint") : 0;
}

void commit_move_punches(struct fm_heap *h, int from, int to)
{
	struct atomic *a = h->atomic;
	uint64_t c;

	for (c = 0; a->npunch[from] > 0; c++) {
		if (a->punch[c] != from)
			continue;
		a->punch[c] = to;
		a->npunch[from]--;
		a->npunch[to]++;
		if (from == PUNCH_COMMITTED)
			map_punch(h->fd, c << FM_CHUNK_SHIFT, FM_CHUNK_LEN);
	}
}

static void move_punches(struct fm_heap *h, int from, int to)
{
	pthread_mutex_lock(&h->space_lock);
	commit_move_punches(h, from, to);
	pthread_mutex_unlock(&h->space_lock);
}

/* -EBUSY: there are readers, or that cannot be known. */
static int bar_readers(struct fm_heap *h)
{
	int rc;

	if (h->atomic->barred)
		return 0;
	rc = revive(h);
	if (rc == -ENOTCONN || (rc == 0 && lock_bar_readers(h->fd) < 0))
		return -EBUSY;
	return rc;
}

int commit_checkpoint(struct fm_heap *h)
{
	struct atomic *a = h->atomic;
	int rc;

	rc = bar_readers(h);
	if (rc < 0)
		return rc;
	rc = commit_write_back(a, h->fd);
	if (rc == 0) {
		fresh_next_lap(&a->fresh, a->committed_end);
		move_punches(h, PUNCH_COMMITTED, PUNCH_NONE);
	}
	if (!a->barred)
		lock_unshare(h->fd);
	return rc;
}

/* --- room in the log ---------------------------------------------------------- */

static uint64_t log_limit(const struct fm_heap *h)
{
	uint64_t limit = heap_end(h) / 8;

	return limit < LOG_LEN_MIN   ? LOG_LEN_MIN
	       : limit > LOG_LEN_MAX ? LOG_LEN_MAX
				     : limit;
}

static uint64_t room(const struct log *log)
{
	return log->len - log->end;
}

/* The gate is closed: the heap changes, and must be captured again. */
static int grow_log(struct fm_heap *h, uint64_t len)
{
	struct log *log = &h->atomic->log;
	uint64_t want = log->len > len ? log->len : len, npages, off = 0;
	int rc;

	npages = (want >> FM_PAGE_SHIFT) + 2;
	if (npages > FM_LOG_NPAGES_MAX)
		npages = FM_LOG_NPAGES_MAX;
	rc = pages_alloc_fresh(h, npages, &off);
	if (rc < 0)
		return err_in(rc, "space for the log");
	rc = log_grow(log, h->fd, off, npages);
	if (rc < 0)
		pages_free(h, FM_EXTENT_META, off, NULL);
	return rc;
}

/* --- a commit ----------------------------------------------------------------- */

static int capture(struct fm_heap *h)
{
	int rc;

	heap_lock_all(h);
	/* It is read all over, freed blocks included, which look good from then on. */
	memtool_ours(h->base, heap_end(h));
	commit_move_punches(h, PUNCH_NEW, PUNCH_CAPTURED);
	memtool_hush(true);	/* the program need not have set all of it */
	rc = capture_take(h);
	memtool_hush(false);
	if (h->atomic->captured_end > h->atomic->kept_end)
		h->atomic->kept_end = h->atomic->captured_end;
	heap_unlock_all(h);
	return rc;
}

static int close_gate(struct atomic *a, bool wait)
{
	if (wait)
		gate_close(&a->gate);
	else if (!gate_try_close(&a->gate))
		return err_set(EBUSY, "a bracket is open");
	return 0;
}

/* There is no other way.  A reader may be one that has only a look at the pool, as the
 * daemon of its mount has: that one is waited for. */
static int checkpoint_for_want(struct fm_heap *h)
{
	int rc = commit_checkpoint(h), i;

	for (i = 0; i < 40 && rc == -EBUSY; i++) {
		clock_sleep(5000000);
		rc = commit_checkpoint(h);
	}
	return rc;
}

/* Capture, and see to it that the record fits the log. */
static int capture_to_fit(struct fm_heap *h, bool wait)
{
	struct atomic *a = h->atomic;
	bool may_checkpoint = true;
	uint64_t len;
	int rc;

	for (;;) {
		rc = close_gate(a, wait);
		if (rc < 0)
			return rc;
		rc = capture(h);
		len = capture_len(a);
		if (rc == 0 && len > room(&a->log) &&
		    (len > a->log.len || a->log.len < log_limit(h) ||
		     !may_checkpoint)) {
			rc = grow_log(h, len);
			gate_open(&a->gate);
			/* If it cannot grow the old log may do. */
			if (rc < 0 && (len > a->log.len || !may_checkpoint ||
				       checkpoint_for_want(h) < 0))
				return rc;
			continue;
		}
		if (rc == 0)
			reclaim_sweep(h);
		gate_open(&a->gate);
		if (rc < 0 || len <= room(&a->log))
			return rc;
		rc = commit_checkpoint(h);
		if (rc == 0)
			return 0;
		if (rc != -EBUSY)
			return rc;
		may_checkpoint = false;
	}
}

/* What is told is why it failed, not how this goes. */
static void take_back(struct atomic *a, int fd, int rc)
{
	char words[256];

	snprintf(words, sizeof(words), "%s", err_words());
	log_revoke(&a->log, fd);
	err_set(-rc, "%s", words);
}

static int append(struct fm_heap *h)
{
	struct atomic *a = h->atomic;
	struct fm_record_disk *record = (struct fm_record_disk *)a->record;
	int rc = 0;

	if (a->has_fresh)
		rc = log_sync(h->fd);
	if (rc < 0)
		return rc;
	rc = log_ready(&a->log, h->fd);
	if (rc < 0)
		return rc;
	log_seal(&a->log, record, a->nwords - sizeof(*record) / 8);
	rc = log_append(&a->log, h->fd, record);
	if (rc == 0)
		rc = log_sync(h->fd);
	if (rc == 0)
		log_accept(&a->log, record);
	else
		take_back(a, h->fd, rc);
	return rc;
}

/* rc: of the capture. */
static int make_durable(struct fm_heap *h, int rc)
{
	struct atomic *a = h->atomic;

	if (rc == 0 && !capture_is_empty(a))
		rc = append(h);
	if (rc == 0)
		rc = capture_accept(h);
	else
		capture_fail(h);
	a->has_fresh = false;
	move_punches(h, PUNCH_CAPTURED, rc == 0 ? PUNCH_COMMITTED : PUNCH_NEW);
	return rc;
}

int commit_make(struct fm_heap *h, bool wait)
{
	int rc;

	if (map_fd(h) < 0)
		return err_set(EBADF, "the program has closed the file's descriptor");
	rc = make_durable(h, capture_to_fit(h, wait));
	/* With passthrough it does not come to that. */
	if (rc == -ENOTCONN && revive(h) == 0)
		rc = make_durable(h, capture_to_fit(h, wait));
	return rc;
}

/* --- memory ------------------------------------------------------------------- */

/* Let fm_stat() know how things are. */
static void note_figures(struct fm_heap *h)
{
	struct atomic *a = h->atomic;

	__atomic_store_n(&a->private_len, reclaim_len(h), __ATOMIC_RELAXED);
	__atomic_store_n(&a->log_len, a->log.len, __ATOMIC_RELAXED);
	__atomic_store_n(&a->log_used_len, a->log.end, __ATOMIC_RELAXED);
}

/*
 * Have all of memory in the file, and give it up.  Most is written while other threads
 * go on; what they stored meanwhile is another commit, made with the gate closed.  If
 * any of this fails, memory is kept until the next time.
 */
static void reclaim(struct fm_heap *h)
{
	struct atomic *a = h->atomic;
	int rc;

	if (!reclaim_may(h) || commit_checkpoint(h) < 0)
		return;
	gate_close(&a->gate);
	rc = capture(h);
	if (rc == 0 && capture_len(a) > room(&a->log))
		rc = -ENOSPC;
	rc = make_durable(h, rc);
	if (rc == 0)
		rc = commit_checkpoint(h);
	if (rc == 0)
		reclaim_all(h);
	gate_open(&a->gate);
}

static int commit_in_limits(struct fm_heap *h)
{
	struct atomic *a = h->atomic;
	int rc;

	/* Readers held checkpoints back.  If one comes after the other the log will not be
	 * full just when there is none. */
	if (a->log.end > 2 * log_limit(h))
		commit_checkpoint(h);
	rc = commit_make(h, true);
	if (rc == 0 &&
	    (a->stale_map ||
	     reclaim_len(h) > __atomic_load_n(&a->private_max, __ATOMIC_RELAXED)))
		reclaim(h);
	note_figures(h);
	return rc;
}

/* --- group commit ------------------------------------------------------------- */

/* a->lock is held: wait until capture `want` has ended, or make it. */
static int take_part(struct fm_heap *h, uint64_t want)
{
	struct atomic *a = h->atomic;
	uint64_t n;
	int rc;

	while (a->ndone < want) {
		if (a->busy) {
			pthread_cond_wait(&a->done_cond, &a->lock);
			continue;
		}
		a->busy = true;
		n = ++a->nstarted;
		pthread_mutex_unlock(&a->lock);
		rc = commit_in_limits(h);
		pthread_mutex_lock(&a->lock);
		a->result[n % ATOMIC_NRESULTS] = rc;
		a->ndone = n;
		a->busy = false;
		pthread_cond_broadcast(&a->done_cond);
		if (n == want)
			return rc;
	}
	/* If so many came since that it is forgotten: they had what this one has. */
	rc = a->result[(a->ndone - want < ATOMIC_NRESULTS ? want : a->ndone) %
		       ATOMIC_NRESULTS];
	return rc < 0 ? err_set(-rc,
				"the commit of another thread, for all that waited,"
				" failed")
		      : 0;
}

int atomic_commit(struct fm_heap *h)
{
	struct atomic *a = h->atomic;
	int rc, state;

	if (atomic_depth(h) > 0)
		return err_set(EDEADLK, "the calling thread has a bracket open");
	state = cancel_disable();
	pthread_mutex_lock(&a->lock);
	/* One that has started may have captured before what is stored by now. */
	rc = take_part(h, a->nstarted + 1);
	pthread_mutex_unlock(&a->lock);
	cancel_restore(state);
	return rc;
}

/* --- rollback ----------------------------------------------------------------- */

/* What lies behind the end of the last commit is nobody's; it may be in the log. */
static void forget_fresh(struct fm_heap *h)
{
	struct atomic *a = h->atomic;
	uint32_t n = a->log.nextents;
	uint64_t file_len = map_file_len(h);

	while (n > 1 && a->log.extent[n - 1].off >= a->committed_end)
		n--;
	log_revoke(&a->log, h->fd);
	log_cut(&a->log, h->fd, n);
	if (file_len != UINT64_MAX && file_len > a->stale_end)
		a->stale_end = file_len;
	a->fresh_written = false;
	a->kept_end = a->committed_end;
	commit_move_punches(h, PUNCH_NEW, PUNCH_NONE);
}

/* What memory knows of the heap is of what was rolled back. */
static void forget_caches(struct fm_heap *h)
{
	root_close(h);
	lane_reset(h);
	zone_reset(h);
	into_settle(h);
	registry_next_epoch();
}

static int rollback(struct fm_heap *h)
{
	struct atomic *a = h->atomic;
	int rc;

	if (map_fd(h) < 0)
		return err_set(EBADF, "the program has closed the file's descriptor");
	gate_close(&a->gate);
	heap_lock_all(h);
	memtool_ours(h->base, heap_end(h));	/* what was freed since is there again */
	rc = capture_undo(h);
	if (rc == -ENOTCONN && revive(h) == 0)
		rc = capture_undo(h);
	if (rc == 0) {
		forget_fresh(h);
		forget_caches(h);
	}
	heap_unlock_all(h);
	gate_open(&a->gate);
	return rc;
}

int atomic_rollback(struct fm_heap *h)
{
	int rc, state;

	if (atomic_depth(h) > 0)
		return err_set(EDEADLK, "the calling thread has a bracket open");
	state = cancel_disable();
	commit_begin(h->atomic);
	rc = rollback(h);
	commit_end(h->atomic);
	cancel_restore(state);
	return rc;
}
