/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Atomic pools: making, opening and closing them, brackets, and what readers see.
 */
#include <config.h>

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/align.h"
#include "common/bits.h"
#include "common/rw.h"
#include "heap/atomic.h"
#include "heap/error.h"
#include "heap/inspect.h"
#include "heap/lock.h"

/* --- a new pool --------------------------------------------------------------- */

int atomic_format(int fd, struct fm_super_disk *super)
{
	const uint64_t off = FM_ZONE_DATA_OFF, len = FM_LOG_NPAGES_MIN * FM_PAGE_LEN;
	uint32_t entry = FM_EXTENT(FM_EXTENT_META, 0, FM_LOG_NPAGES_MIN);
	uint64_t at = FM_ZONE_TABLE_OFF + FM_ZONE_HEAD_NPAGES * sizeof(entry);
	int rc;

	rc = map_reserve(fd, 0, off + len);
	if (rc < 0)
		return rc;
	rc = write_at(fd, &entry, sizeof(entry), at);
	if (rc < 0)
		return err_sys(-rc, "write");
	rc = log_make(fd, off, FM_LOG_NPAGES_MIN);
	super->incompat |= FM_INCOMPAT_ATOMIC;
	super_renew(super);
	super->log_off = off;
	super->heap_end = off + len;
	super->zone0.npages_reserved = super->heap_end >> FM_PAGE_SHIFT;
	return rc;
}

/* --- opening ------------------------------------------------------------------ */

/* Where the entry in the page table is of the page at off. */
static uint64_t entry_off(uint64_t off)
{
	return (off & ~(FM_ZONE_LEN - 1)) + FM_ZONE_TABLE_OFF +
	       (off % FM_ZONE_LEN >> FM_PAGE_SHIFT) * sizeof(uint32_t);
}

/* The entry as of the last commit. */
static int read_entry(const struct atomic *a, int fd, uint64_t off, uint32_t *entry)
{
	uint64_t at = entry_off(off), words;
	int rc;

	rc = overlay_read(&a->overlay, fd, at & ~UINT64_C(7), &words, sizeof(words));
	*entry = at % 8 != 0 ? words >> 32 : (uint32_t)words;
	return rc;
}

/* An extent that is not allocated was being added by a commit that was not made. */
static int judge_extents(struct atomic *a, int fd, uint64_t end)
{
	struct log *log = &a->log;
	uint32_t i, entry;
	int rc;

	for (i = 0; i < log->nextents; i++) {
		const struct log_extent *e = &log->extent[i];

		entry = 0;
		if (e->off + ((uint64_t)e->npages << FM_PAGE_SHIFT) <= end) {
			rc = read_entry(a, fd, e->off, &entry);
			if (rc < 0)
				return err_sys(-rc, "read of a page table");
		}
		if (entry != FM_EXTENT(FM_EXTENT_META, 0, e->npages))
			break;
	}
	if (i == 0)
		return err_set(EUCLEAN,
			       "the pool is damaged: its log is not allocated");
	if (a->heat != NULL) /* a writer */
		return log_cut(log, fd, i);
	log_forget(log, i);
	return 0;
}

static void set_limits(struct atomic *a, const struct replay_limits *limits)
{
	uint32_t i;

	a->log.max_len = limits->max_len;
	a->overlay.max_npages = limits->max_npages;
	a->overlay.only = limits->only;
	if (limits->only == NULL)
		return;
	/* What is asked of the pool here. */
	bits_set(limits->only, 0);
	for (i = 0; i < a->log.nextents; i++)
		if (a->log.extent[i].off < FM_MAX_NZONES * FM_ZONE_LEN)
			bits_set(limits->only,
				 entry_off(a->log.extent[i].off) >> FM_PAGE_SHIFT);
}

static int read_log(struct atomic *a, int fd, const struct replay_limits *limits,
		    uint64_t file_len, struct fm_super_disk *super)
{
	int rc;

	rc = log_open(&a->log, fd, super->log_off, file_len);
	if (rc == 0 && limits != NULL)
		set_limits(a, limits);
	if (rc == 0)
		rc = log_replay(&a->log, fd, file_len, &a->overlay);
	if (rc < 0)
		return rc;
	a->nreplayed = rc;
	rc = overlay_read(&a->overlay, fd, 0, super, sizeof(*super));
	if (rc < 0)
		return err_sys(-rc, "read");
	rc = super_check(super);
	if (rc == 0 && super->heap_end > file_len)
		rc = err_set(EUCLEAN, "the pool is cut short: %llu bytes of %llu",
			     (unsigned long long)file_len,
			     (unsigned long long)super->heap_end);
	return rc == 0 ? judge_extents(a, fd, super->heap_end) : rc;
}

/* Nobody reads the pool: bring the file up to date.  What is behind the heap is of a
 * commit that was not made. */
static int recover(struct atomic *a, int fd, uint64_t file_len,
		   const struct fm_super_disk *super)
{
	int rc;

	a->stale_end = file_len;
	if (lock_bar_readers(fd) < 0)
		return 0;
	rc = commit_write_back(a, fd);
	if (rc == 0)
		fresh_next_lap(&a->fresh, super->heap_end);
	if (rc == 0 && file_len > super->heap_end && map_cut(fd, super->heap_end) == 0)
		a->stale_end = 0;
	lock_unshare(fd);
	/* It will have to be done some time, but may wait. */
	return rc == -ENOSPC || rc == -EDQUOT ? 0 : rc;
}

int atomic_read(const struct atomic *a, int fd, uint64_t off, void *buf, uint64_t len)
{
	return overlay_read(&a->overlay, fd, off, buf, len);
}

uint64_t atomic_nrecords(const struct atomic *a)
{
	return a->nreplayed;
}

static size_t bits_len(void)
{
	return FM_MAX_NCHUNKS / 8;
}

static int make_writer(struct atomic *a)
{
	/* If there is no telling, no limit. */
	a->private_max = (uint64_t)sysconf(_SC_PHYS_PAGES) / 4 * FM_PAGE_LEN;
	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->done_cond, NULL);
	a->heat = map_anon_sparse(FM_MAX_NCHUNKS * sizeof(*a->heat));
	a->hot = map_anon_sparse(bits_len());
	a->armed = map_anon_sparse(bits_len());
	a->touched = map_anon_sparse(FM_MAX_NCHUNKS * sizeof(*a->touched));
	a->punch = map_anon_sparse(FM_MAX_NCHUNKS);
	if (a->heat == NULL || a->hot == NULL || a->armed == NULL ||
	    a->touched == NULL || a->punch == NULL)
		return err_sys(ENOMEM, "memory for an atomic pool");
	return fresh_open(&a->fresh);
}

void atomic_free(struct atomic *a)
{
	if (a == NULL)
		return;
	if (a->dirty.base != NULL)
		dirty_close(&a->dirty);
	map_anon_free(a->heat, FM_MAX_NCHUNKS * sizeof(*a->heat));
	map_anon_free(a->hot, bits_len());
	map_anon_free(a->armed, bits_len());
	map_anon_free(a->touched, FM_MAX_NCHUNKS * sizeof(*a->touched));
	map_anon_free(a->punch, FM_MAX_NCHUNKS);
	map_anon_free(a->record, a->cap_words * 8);
	fresh_close(&a->fresh);
	log_close(&a->log);
	overlay_close(&a->overlay);
	map_anon_free(a, sizeof(*a));
}

static int load(int fd, bool writable, const struct replay_limits *limits,
		uint64_t file_len, struct fm_super_disk *super, struct atomic **out)
{
	struct atomic *a = map_anon(sizeof(*a));
	int rc;

	if (a == NULL)
		return err_sys(ENOMEM, "memory for an atomic pool");
	rc = overlay_open(&a->overlay, FM_MAX_NZONES * FM_ZONE_LEN);
	if (rc == 0 && writable)
		rc = make_writer(a);
	if (rc == 0)
		rc = read_log(a, fd, limits, file_len, super);
	if (rc == 0 && writable)
		rc = recover(a, fd, file_len, super);
	if (rc < 0) {
		atomic_free(a);
		return rc;
	}
	a->committed_end = super->heap_end;
	a->kept_end = super->heap_end;
	a->npunch[PUNCH_NONE] = FM_MAX_NCHUNKS;
	a->log_len = a->log.len;
	a->log_used_len = a->log.end;
	*out = a;
	return 0;
}

int atomic_load(int fd, bool writable, const struct replay_limits *limits,
		struct fm_super_disk *super, struct atomic **out)
{
	const struct fm_super_disk home = *super;
	uint64_t file_len = UINT64_MAX;
	struct stat st;
	int rc = 0;

	*out = NULL;
	do { /* beside a writer it may become longer meanwhile */
		if (fstat(fd, &st) < 0)
			return err_sys(errno, "fstat");
		if ((uint64_t)st.st_size == file_len)
			return rc;
		file_len = st.st_size;
		*super = home;
		rc = load(fd, writable, limits, file_len, super, out);
	} while (rc == -EUCLEAN && !writable);
	return rc;
}

static int store_page(void *arg, uint64_t off, const unsigned char *page)
{
	struct fm_heap *h = arg;

	memcpy(h->base + off, page, FM_PAGE_LEN);
	return 0;
}

/* Store what the file does not have into memory. */
static void apply_overlay(struct fm_heap *h)
{
	overlay_each(&h->atomic->overlay, OVERLAY_LOGGED, store_page, h);
}

int atomic_map(struct fm_heap *h)
{
	struct atomic *a = h->atomic;
	int rc;

	if (!h->writable) {
		rc = map_private(h, h->map_len);
		if (rc == 0) {
			apply_overlay(h);
			rc = map_seal(h, true);
		}
		return rc;
	}
	a->mapped_end = a->committed_end;
	rc = map_private(h, a->mapped_end);
	if (rc == 0)
		rc = dirty_open(&a->dirty, h->base, h->map_len);
	if (rc == 0) {
		apply_overlay(h);
		reclaim_keep_super(h);
	}
	return rc;
}

/* --- a copy ------------------------------------------------------------------- */

int atomic_finish_copy(struct atomic *a, int fd, int copy)
{
	uint32_t i;
	int rc;

	rc = log_has_last(&a->log, fd);
	if (rc == 0)
		return err_set(EAGAIN, "its writer took a commit back meanwhile");
	if (rc < 0)
		return rc;
	/* The copy's log may be of more than one moment: none of it counts. */
	for (i = 0; i < a->log.nextents; i++)
		map_punch(copy, a->log.extent[i].off,
			  (uint64_t)a->log.extent[i].npages << FM_PAGE_SHIFT);
	rc = log_write_heads(&a->log, copy);
	return rc == 0 ? commit_write_out(a, copy) : rc;
}

/* --- the writer's record, which is not logged --------------------------------- */

int atomic_sign(struct fm_heap *h)
{
	struct fm_writer_disk writer = { .pid = 0 };
	int rc = lock_sign(h->ino, &writer);

	if (rc < 0)
		return rc;
	rc = write_at(h->fd, &writer, sizeof(writer),
		      offsetof(struct fm_super_disk, writer));
	return rc < 0 ? err_sys(-rc, "write") : 0;
}

void atomic_unsign(struct fm_heap *h)
{
	const uint64_t at = offsetof(struct fm_super_disk, writer) +
			    offsetof(struct fm_writer_disk, pid);
	uint64_t none = 0;
	int fd = map_fd(h);

	if (fd >= 0)
		write_at(fd, &none, sizeof(none), at);
}

/* --- brackets ----------------------------------------------------------------- */

/* Those that the thread has open, by window. */
static __thread struct {
	uint64_t generation;
	uint32_t depth;
} own[FM_NWINDOWS];

static pthread_key_t end_key;
static bool have_end_key;

/* A thread that ends in a bracket must not stop the others for ever. */
static void at_thread_end(void *arg)
{
	struct fm_heap *h;
	uint32_t w;

	(void)arg;
	registry_lock();
	for (w = 0; w < FM_NWINDOWS; w++) {
		h = own[w].depth > 0 ? registry_get(w, own[w].generation) : NULL;
		own[w].depth = 0;
		if (h != NULL && h->atomic != NULL && h->writable)
			gate_leave(&h->atomic->gate);
	}
	registry_unlock();
}

__attribute__((constructor)) static void watch_thread_ends(void)
{
	have_end_key = pthread_key_create(&end_key, at_thread_end) == 0;
}

uint32_t atomic_depth(const struct fm_heap *h)
{
	return own[h->window].generation == registry_generation(h->window)
		       ? own[h->window].depth
		       : 0;
}

void atomic_enter(struct fm_heap *h)
{
	uint32_t depth = atomic_depth(h);

	if (depth == 0) {
		__atomic_store_n(&h->atomic->bracketed, true, __ATOMIC_RELAXED);
		gate_enter(&h->atomic->gate);
		own[h->window].generation = registry_generation(h->window);
		if (have_end_key)
			pthread_setspecific(end_key, own);
	}
	own[h->window].depth = depth + 1;
}

int atomic_leave(struct fm_heap *h)
{
	if (atomic_depth(h) == 0)
		return err_set(EINVAL, "the calling thread has no bracket open");
	if (--own[h->window].depth == 0)
		gate_leave(&h->atomic->gate);
	return 0;
}

/* --- space -------------------------------------------------------------------- */

/* Bytes of a commit that was never made are to be zeroes again before anything is put
 * there.  Those of one that is under way are its own, also where it has by now been
 * freed. */
int atomic_claim(struct fm_heap *h, uint64_t off, uint64_t len)
{
	struct atomic *a = h->atomic;
	uint64_t end = off + len, c;

	for (c = off >> FM_CHUNK_SHIFT; c << FM_CHUNK_SHIFT < end; c++) {
		a->npunch[a->punch[c]]--;
		a->punch[c] = PUNCH_NONE;
		a->npunch[PUNCH_NONE]++;
	}
	if (off < a->kept_end)
		off = a->kept_end;
	if (end > a->stale_end)
		end = a->stale_end;
	return off < end ? map_zero(h->fd, off, end - off) : 0;
}

void atomic_give_back(struct fm_heap *h, uint64_t off, uint64_t len)
{
	struct atomic *a = h->atomic;
	uint64_t end = off + len, c;

	if (end > a->kept_end) {
		uint64_t from = off > a->kept_end ? off : a->kept_end;

		map_drop(h, from, end - from);
		map_punch(h->fd, from, end - from);
		end = from;
	}
	for (c = align_up(off, FM_CHUNK_LEN) >> FM_CHUNK_SHIFT;
	     (c + 1) << FM_CHUNK_SHIFT <= end; c++)
		if (a->punch[c] == PUNCH_NONE) {
			a->punch[c] = PUNCH_NEW;
			a->npunch[PUNCH_NONE]--;
			a->npunch[PUNCH_NEW]++;
		}
}

/* --- closing ------------------------------------------------------------------ */

static int commit_alone(struct fm_heap *h)
{
	int rc;

	commit_begin(h->atomic);
	rc = commit_make(h, true);
	commit_end(h->atomic);
	return rc;
}

/* Free the extents that the log had.  What is not there any more was freed by a process
 * that was killed after that. */
static void free_extents(struct fm_heap *h)
{
	struct atomic *a = h->atomic;
	uint64_t off = a->log.free_off;
	struct fm_log_disk head;
	uint32_t n;

	for (n = 0; off != 0 && n < FM_LOG_NEXTENTS_MAX; n++, off = head.next_off) {
		if (log_read_head(h->fd, off, map_file_len(h), &head) < 0 ||
		    zone_entry(h, off) != FM_EXTENT(FM_EXTENT_META, 0, head.npages))
			break;
		pages_free(h, FM_EXTENT_META, off, NULL);
	}
}

void atomic_settle(struct fm_heap *h)
{
	struct atomic *a = h->atomic;

	if (a->log.free_off == 0)
		return;
	free_extents(h);
	if (commit_alone(h) == 0)
		log_freed(&a->log, h->fd);
}

bool atomic_begin_close(struct fm_heap *h)
{
	struct atomic *a = h->atomic;

	if (commit_alone(h) < 0 || revive(h) < 0 || lock_bar_readers(h->fd) < 0)
		return false;
	a->barred = true;
	if (commit_write_back(a, h->fd) == 0 && log_shrink(&a->log, h->fd) == 0)
		atomic_settle(h);
	return true;
}

void atomic_end_close(struct fm_heap *h)
{
	uint64_t end = heap_end(h);

	if (commit_alone(h) < 0 || commit_checkpoint(h) < 0)
		return;
	if (map_file_len(h) > end)
		map_cut(h->fd, end);
}

/* The process must end, whatever its other threads are at. */
void atomic_at_exit(struct fm_heap *h)
{
	if (atomic_depth(h) == 0 && commit_try_begin(h->atomic)) {
		commit_make(h, false);
		commit_end(h->atomic);
	}
	atomic_unsign(h);
}

void atomic_in_child(struct fm_heap *h)
{
	if (h->atomic->dirty.base != NULL)
		dirty_close(&h->atomic->dirty);
}

/* --- memory, and figures ------------------------------------------------------ */

void atomic_set_limit(struct fm_heap *h, uint64_t len)
{
	__atomic_store_n(&h->atomic->private_max, len, __ATOMIC_RELAXED);
}

void atomic_figures(const struct atomic *a, struct fm_stats *stats)
{
	stats->log_len = __atomic_load_n(&a->log_len, __ATOMIC_RELAXED);
	stats->log_used_len = __atomic_load_n(&a->log_used_len, __ATOMIC_RELAXED);
	stats->private_len = __atomic_load_n(&a->private_len, __ATOMIC_RELAXED);
}

/* --- readers ------------------------------------------------------------------ */

/* Read the log anew, as it is by now. */
static int reload(struct fm_heap *h)
{
	struct atomic *a = h->atomic, *fresh = NULL;
	struct fm_super_disk super;
	int rc;

	if (read_at(h->fd, &super, sizeof(super), 0) != sizeof(super))
		return err_sys(EIO, "read");
	rc = atomic_load(h->fd, false, NULL, &super, &fresh);
	if (rc == 0)
		rc = a->stale_map ? map_private(h, h->map_len) : map_seal(h, false);
	if (rc < 0) {
		atomic_free(fresh);
		return rc;
	}
	map_drop(h, 0, h->map_len);
	h->atomic = fresh;
	atomic_free(a);
	apply_overlay(h);
	return map_seal(h, true);
}

int atomic_refresh(struct fm_heap *h)
{
	int state, rc;

	if (map_fd(h) < 0)
		return err_set(EBADF, "the program has closed the file's descriptor");
	state = cancel_disable();
	pthread_mutex_lock(&h->root_lock);
	rc = revive(h);
	if (rc == 0) {
		/* A writer may make a checkpoint now. */
		lock_unshare(h->fd);
		rc = lock_share_wait(h->fd, LOCK_WAIT_MS);
	}
	if (rc == 0)
		rc = reload(h);
	root_close(h);
	pthread_mutex_unlock(&h->root_lock);
	cancel_restore(state);
	return rc;
}
