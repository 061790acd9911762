/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The public functions: check the arguments, call inward, set errno.  What
 * they promise stands in fmalloc.h.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/align.h"
#include "heap/error.h"
#include "heap/heap.h"
#include "heap/inspect.h"
#include "heap/lane.h"
#include "heap/memtool.h"

#define ALIGN_MAX (32ull << 20)

static uint64_t nbad_frees;	/* atomic */

/* --- errors -------------------------------------------------------------------- */

static int fail(int rc)
{
	errno = -rc;
	return -1;
}

static void *fail_null(int rc)
{
	errno = -rc;
	return NULL;
}

const char *fm_errmsg(void)
{
	return err_words();
}

/* 0 if the calling process may change the pool. */
static int may_change(const struct fm_heap *h, const char *func)
{
	if (h->forked)
		return err_set(EPERM, "%s: '%s' belongs to the parent of this process",
			       func, h->path);
	if (!h->writable)
		return err_set(EROFS, "%s: '%s' is open read-only", func, h->path);
	return 0;
}

/* The open pool that fi is, for func to use. */
static int check_pool(const struct fm_info *fi, const char *func, bool write,
		      struct fm_heap **h)
{
	*h = registry_check(fi);
	if (*h == NULL)
		return err_set(EINVAL, "%s: not an open pool", func);
	return write ? may_change(*h, func) : 0;
}

/* --- pools ---------------------------------------------------------------------- */

struct fm_info *fmalloc_open(const char *path, int flags, bool *created)
{
	struct fm_heap *h;
	bool made = false;
	int rc;

	if (created != NULL)
		*created = false;
	if (path == NULL)
		return fail_null(err_set(EINVAL, "fmalloc_open: no path is given"));
	if ((flags & ~(FM_CREATE | FM_EXCL | FM_RDONLY | FM_FIXED | FM_ATOMIC)) != 0 ||
	    (flags & FM_EXCL && !(flags & FM_CREATE)) ||
	    (flags & FM_CREATE && flags & FM_RDONLY))
		return fail_null(err_set(EINVAL, "pool '%s': bad flags %#x", path,
					 (unsigned)flags));
	rc = pool_open(path, flags, &made, &h);
	if (rc < 0)
		return fail_null(err_in(rc, "pool '%s'", path));
	if (created != NULL)
		*created = made;
	if (registry_target() == NULL)
		registry_offer_target(h);
	return &h->info;
}

struct fm_info *fmalloc_init(const char *path, bool *init)
{
	struct fm_info *fi;
	bool made;

	fi = fmalloc_open(path, FM_CREATE, &made);
	if (fi == NULL)
		return NULL;
	if (made && init != NULL)
		*init = true;
	fmalloc_set_target(fi);
	return fi;
}

int fmalloc_close(struct fm_info *fi)
{
	struct fm_heap *h;
	int rc;

	rc = check_pool(fi, "fmalloc_close", false, &h);
	if (rc == 0 && h->atomic != NULL && h->writable) {
		rc = atomic_commit(h);
		if (rc < 0)
			err_in(rc, "close '%s'", h->path);
	}
	if (rc < 0)
		return fail(rc);
	pool_close(h);
	return 0;
}

int fmalloc_commit(struct fm_info *fi)
{
	struct fm_heap *h;
	int rc;

	rc = check_pool(fi, "fmalloc_commit", true, &h);
	if (rc < 0)
		return fail(rc);
	rc = h->atomic != NULL ? atomic_commit(h) : map_sync(h);
	if (rc < 0)
		return fail(err_in(rc, "commit '%s'", h->path));
	if (h->atomic == NULL)
		pagecache_settle(h, space_used_end(h));
	return 0;
}

int fmalloc_rollback(struct fm_info *fi)
{
	struct fm_heap *h;
	int rc;

	rc = check_pool(fi, "fmalloc_rollback", true, &h);
	if (rc < 0)
		return fail(rc);
	rc = h->atomic != NULL ? atomic_rollback(h) :
				 err_set(EINVAL, "it is a live pool, and has no way back");
	return rc < 0 ? fail(err_in(rc, "roll back '%s'", h->path)) : 0;
}

int fm_begin(struct fm_info *fi)
{
	struct fm_heap *h;
	int rc;

	rc = check_pool(fi, "fm_begin", true, &h);
	if (rc < 0)
		return fail(rc);
	if (h->atomic != NULL)
		atomic_enter(h);
	return 0;
}

int fm_end(struct fm_info *fi)
{
	struct fm_heap *h;
	int rc;

	rc = check_pool(fi, "fm_end", true, &h);
	if (rc == 0 && h->atomic != NULL) {
		rc = atomic_leave(h);
		if (rc < 0)
			err_in(rc, "fm_end");
	}
	return rc < 0 ? fail(rc) : 0;
}

int fm_refresh(struct fm_info *fi)
{
	struct fm_heap *h;
	int rc;

	rc = check_pool(fi, "fm_refresh", false, &h);
	if (rc == 0 && h->forked)
		rc = may_change(h, "fm_refresh");
	if (rc < 0)
		return fail(rc);
	if (h->atomic != NULL && !h->writable)
		rc = atomic_refresh(h);
	return rc < 0 ? fail(err_in(rc, "refresh '%s'", h->path)) : 0;
}

int fm_prefetch(struct fm_info *fi)
{
	struct fm_heap *h;
	int rc;

	rc = check_pool(fi, "fm_prefetch", false, &h);
	if (rc < 0)
		return fail(rc);
	pagecache_prefetch(h, 0, heap_end(h));
	return 0;
}

int fm_set_private_limit(struct fm_info *fi, uint64_t len)
{
	struct fm_heap *h;
	int rc = check_pool(fi, "fm_set_private_limit", true, &h);

	if (rc < 0)
		return fail(rc);
	if (h->atomic != NULL)
		atomic_set_limit(h, len);
	return 0;
}

int fm_trim(struct fm_info *fi)
{
	struct fm_heap *h;
	int rc;

	rc = check_pool(fi, "fm_trim", true, &h);
	if (rc < 0)
		return fail(rc);
	while (zone_load_more(h))
		;
	lanes_reclaim(h, true);
	lane_drop_loose(h);
	space_trim(h, 0);
	return 0;
}

void fmalloc_set_target(struct fm_info *fi)
{
	registry_set_target(registry_check(fi));
}

/* --- blocks ----------------------------------------------------------------------- */

static void *block(struct fm_heap *h, const char *func, size_t size, size_t align)
{
	uint64_t off;
	int rc;

	if (h == NULL)
		return fail_null(err_set(EINVAL, "%s: no target pool", func));
	rc = may_change(h, func);
	if (rc == 0) {
		rc = alloc_block(h, size, align, &off);
		if (rc < 0)
			err_in(rc, "%s of %zu bytes in '%s'", func, size, h->path);
	}
	return rc < 0 ? fail_null(rc) : h->base + off;
}

/* Let the thread's next calls take the short way. */
static void warm_tcache(struct fm_heap *h, bool to_free)
{
	uint64_t epoch = __atomic_load_n(&registry_epoch, __ATOMIC_ACQUIRE);
	struct lane *lane;

	if (h == NULL || !h->writable || h != registry_target() || memtool_active)
		return;
	lane = to_free ? lane_get_to_free(h) : lane_get(h);
	if (lane == NULL)
		return;
	/* Who wants the lane holds the lock from before a new epoch on. */
	pthread_mutex_lock(&lane->lock);
	if (epoch == __atomic_load_n(&registry_epoch, __ATOMIC_ACQUIRE)) {
		lane_in_use(lane);
		tcache.lane = lane;
		tcache.base = h->base;
		tcache.slab = h->slab;
		tcache.h = h;
		tcache.len = h->map_len;
		tcache.epoch = epoch;
	}
	pthread_mutex_unlock(&lane->lock);
}

static bool tcache_warm(void)
{
	return __builtin_expect(tcache.epoch == __atomic_load_n(&registry_epoch,
								__ATOMIC_ACQUIRE), 1);
}

/* Begin the short way, which ends with lane_leave(), if it is open. */
static inline bool enter(void)
{
	lane_enter();
	if (tcache_warm())
		return true;
	lane_leave();
	return false;
}

static __attribute__((noinline)) void *fmalloc_slow(size_t size)
{
	struct fm_heap *h = registry_target();

	if (size <= SIZECLASS_MAX && !tcache_warm())
		warm_tcache(h, false);
	return block(h, "fmalloc", size, 16);
}

void *fmalloc(size_t size)
{
	void *mem;

	if (size <= SIZECLASS_MAX && enter()) {
		struct lane_class *c = &tcache.lane->cls[sizeclass_of(size)];

		mem = lane_take_recent(tcache.base, tcache.slab, c);
		if (mem == NULL)
			mem = lane_take_next(c);
		lane_leave();
		if (__builtin_expect(mem != NULL, 1))
			return mem;
	}
	return fmalloc_slow(size);
}

void *fmalloc_in(struct fm_info *fi, size_t size)
{
	struct fm_heap *h = registry_check(fi);

	if (h == NULL)
		return fail_null(err_set(EINVAL, "fmalloc_in: not an open pool"));
	return block(h, "fmalloc_in", size, 16);
}

void *fcalloc(size_t n, size_t size)
{
	size_t len;
	void *mem;

	if (__builtin_mul_overflow(n, size, &len))
		return fail_null(err_set(ENOMEM, "fcalloc: %zu times %zu bytes is too"
					 " much", n, size));
	mem = block(registry_target(), "fcalloc", len, 16);
	return mem == NULL ? NULL : memset(mem, 0, len);
}

void *faligned_alloc(size_t align, size_t size)
{
	if (!is_pow2(align) || align > ALIGN_MAX)
		return fail_null(err_set(EINVAL, "faligned_alloc: %zu is not a power of"
					 " two of at most 32 MiB", align));
	return block(registry_target(), "faligned_alloc", size, align);
}

/* The pool that ptr is in, and where; EINVAL if it is in none. */
static int find_block(const void *ptr, const char *func, struct fm_heap **h,
		      uint64_t *off)
{
	*h = registry_find(ptr);
	if (*h == NULL)
		return err_set(EINVAL, "%s: %p is in no open pool", func, ptr);
	*off = (const unsigned char *)ptr - (*h)->base;
	return 0;
}

static int not_a_block(const struct fm_heap *h, const char *func, uint64_t off)
{
	return err_set(EINVAL, "%s: offset %#" PRIx64 " of '%s' is not an allocated"
		       " block", func, off, h->path);
}

static void *move_block(struct fm_heap *h, uint64_t off, size_t size)
{
	uint64_t have = alloc_usable(h, off);
	void *mem;

	mem = block(h, "frealloc", size, 16);
	if (mem == NULL)
		return NULL;
	memcpy(mem, h->base + off, have < size ? have : size);
	alloc_free(h, off, NULL);
	return mem;
}

void *frealloc(void *ptr, size_t size)
{
	struct fm_heap *h;
	uint64_t off = 0;
	int rc;

	if (ptr == NULL)
		return block(registry_target(), "frealloc", size, 16);
	rc = find_block(ptr, "frealloc", &h, &off);
	if (rc == 0)
		rc = may_change(h, "frealloc");
	if (rc < 0)
		return fail_null(rc);
	if (alloc_usable(h, off) == 0)
		return fail_null(not_a_block(h, "frealloc", off));
	return alloc_resize(h, off, size) ? ptr : move_block(h, off, size);
}

static __attribute__((noinline)) void ffree_slow(void *ptr)
{
	int saved = errno, rc;
	struct fm_heap *h;
	uint64_t off = 0;

	if (ptr == NULL)
		return;
	rc = find_block(ptr, "ffree", &h, &off);
	if (rc == 0)
		rc = may_change(h, "ffree");
	if (rc == 0) {
		rc = alloc_free(h, off, NULL);
		if (rc == -EINVAL)
			not_a_block(h, "ffree", off);
		else if (!tcache_warm())
			warm_tcache(h, true);
	}
	if (rc < 0)
		__atomic_add_fetch(&nbad_frees, 1, __ATOMIC_RELAXED);
	errno = saved;
}

void ffree(void *ptr)
{
	uint64_t off = (uintptr_t)ptr - (uintptr_t)tcache.base;
	bool done = false;

	if (off < tcache.len && enter()) {
		done = lane_put(tcache.base, tcache.slab, tcache.lane, off) ||
		       lane_put_other(tcache.h, tcache.lane, off);
		lane_leave();
	}
	if (!done)
		ffree_slow(ptr);
}

uint64_t fm_bad_free_count(void)
{
	return __atomic_load_n(&nbad_frees, __ATOMIC_RELAXED);
}

size_t fmalloc_usable_size(const void *ptr)
{
	struct fm_heap *h;
	uint64_t off = 0, len = 0;
	int rc;

	if (ptr == NULL)
		return 0;
	rc = find_block(ptr, "fmalloc_usable_size", &h, &off);
	if (rc == 0) {
		len = alloc_usable(h, off);
		/* All of it may be used, now that the program knows. */
		memtool_resized((void *)ptr, len, len);
		if (len == 0)
			rc = not_a_block(h, "fmalloc_usable_size", off);
	}
	if (rc < 0)
		fail(rc);
	return len;
}

/* --- a block and the pointer to it ------------------------------------------------------ */

/* The pool that the pool pointer lies in, and where. */
static int find_pointer(const void *where, const char *func, struct fm_heap **h,
			uint64_t *off)
{
	int rc;

	if (where == NULL)
		return err_set(EINVAL, "%s: no pointer is given", func);
	rc = find_block(where, func, h, off);
	if (rc == 0)
		rc = may_change(*h, func);
	if (rc < 0)
		return rc;
	if (*off % sizeof(uint64_t) != 0)
		return err_set(EINVAL, "%s: offset %#" PRIx64 " of '%s' is not a multiple"
			       " of 8", func, *off, (*h)->path);
	if (*off < FM_APP_OFF || (*off >= FM_HEAP_OFF && *off < FM_ZONE_DATA_OFF) ||
	    *off >= heap_end(*h))
		return err_set(EINVAL, "%s: offset %#" PRIx64 " of '%s' is not the program's",
			       func, *off, (*h)->path);
	return 0;
}

static int done_with(struct fm_heap *h, const char *func, uint64_t where_off, int rc)
{
	if (rc == 0)
		return 0;
	return fail(err_in(rc, "%s: pointer at offset %#" PRIx64 " of '%s'", func,
			   where_off, h->path));
}

int fmalloc_into(void *where, size_t size)
{
	struct fm_heap *h;
	uint64_t off = 0;
	int rc;

	rc = find_pointer(where, "fmalloc_into", &h, &off);
	if (rc < 0)
		return fail(rc);
	return done_with(h, "fmalloc_into", off, into_alloc(h, off, size));
}

int ffree_from(void *where)
{
	struct fm_heap *h;
	uint64_t off = 0;
	int rc;

	rc = find_pointer(where, "ffree_from", &h, &off);
	if (rc < 0)
		return fail(rc);
	return done_with(h, "ffree_from", off, into_free(h, off));
}

int frealloc_into(void *where, size_t size)
{
	struct fm_heap *h;
	uint64_t off = 0;
	int rc;

	rc = find_pointer(where, "frealloc_into", &h, &off);
	if (rc < 0)
		return fail(rc);
	return done_with(h, "frealloc_into", off, into_resize(h, off, size));
}

/* --- named roots --------------------------------------------------------------------- */

int fm_root_set(struct fm_info *fi, const char *name, const void *ptr,
		const char *type)
{
	uint64_t off = 0, end;
	struct fm_heap *h;
	int rc;

	rc = check_pool(fi, "fm_root_set", true, &h);
	if (rc < 0)
		return fail(rc);
	if (ptr != NULL) {
		off = (uintptr_t)ptr - (uintptr_t)h->base;
		end = heap_end(h);
		if (off < FM_HEAP_OFF || off >= end)
			return fail(err_set(EINVAL, "fm_root_set: %p is not in the heap"
					    " of '%s'", ptr, h->path));
	}
	rc = root_set(h, name, off, type);
	return rc < 0 ? fail(err_in(rc, "set a root of '%s'", h->path)) : 0;
}

void *fm_root_get(struct fm_info *fi, const char *name, const char *type)
{
	struct fm_heap *h;
	uint64_t off = 0;
	int rc;

	rc = check_pool(fi, "fm_root_get", false, &h);
	if (rc == 0) {
		rc = root_get(h, name, type, &off);
		if (rc < 0)
			err_in(rc, "get a root of '%s'", h->path);
	}
	errno = -rc;
	return rc == 0 && off != 0 ? h->base + off : NULL;
}

void *fm_root_alloc(struct fm_info *fi, const char *name, size_t size, const char *type)
{
	uint64_t off = 0;
	struct fm_heap *h;
	int rc;

	rc = check_pool(fi, "fm_root_alloc", true, &h);
	if (rc < 0)
		return fail_null(rc);
	rc = root_alloc(h, name, size, type == NULL ? "" : type, &off);
	if (rc < 0)
		return fail_null(err_in(rc, "allocate a root of '%s'", h->path));
	return h->base + off;
}

int fm_root_remove(struct fm_info *fi, const char *name)
{
	struct fm_heap *h;
	int rc;

	rc = check_pool(fi, "fm_root_remove", true, &h);
	if (rc < 0)
		return fail(rc);
	rc = root_remove(h, name);
	return rc < 0 ? fail(err_in(rc, "remove a root of '%s'", h->path)) : 0;
}

int fm_root_each(struct fm_info *fi,
		 int (*fn)(const char *name, void *ptr, const char *type,
			   void *arg),
		 void *arg)
{
	int rc, result, state;
	struct fm_heap *h;

	rc = check_pool(fi, "fm_root_each", false, &h);
	if (rc < 0)
		return fail(rc);
	if (fn == NULL)
		return fail(err_set(EINVAL, "fm_root_each: no function is given"));
	/* fn is called with a lock held. */
	state = cancel_disable();
	rc = root_each(h, fn, arg, &result);
	cancel_restore(state);
	return rc < 0 ? fail(err_in(rc, "list the roots of '%s'", h->path)) : result;
}

/* --- checking, and figures --------------------------------------------------------- */

int fm_check_each(const char *path, int flags,
		  int (*fn)(const struct fm_finding *finding, void *arg), void *arg)
{
	int rc, result;

	if (path == NULL)
		return fail(err_set(EINVAL, "fm_check_each: no path is given"));
	if ((flags & ~FM_CHECK_REPAIR) != 0)
		return fail(err_set(EINVAL, "pool '%s': bad flags %#x", path,
				    (unsigned)flags));
	rc = check_file(path, flags, fn, arg, &result);
	return rc < 0 ? fail(err_in(rc, "pool '%s'", path)) : result;
}

int fm_check(const char *path)
{
	return fm_check_each(path, 0, NULL, NULL);
}

_Static_assert(FM_NCLASSES == SIZECLASS_N, "figures of each class");

/* Programs were built with this much. */
#define STATS_LEN_FIRST offsetof(struct fm_stats, log_len)

int fm_stat(struct fm_info *fi, struct fm_stats *stats)
{
	struct fm_stats all;
	struct fm_heap *h;
	uint64_t size;
	int rc;

	rc = check_pool(fi, "fm_stat", false, &h);
	if (rc == 0 && (stats == NULL || stats->size < STATS_LEN_FIRST))
		rc = err_set(EINVAL, "fm_stat: no room is given");
	if (rc == 0)
		rc = stat_heap(h, &all);
	if (rc < 0)
		return fail(rc);
	size = stats->size;
	memset(stats, 0, size);
	memcpy(stats, &all, size < sizeof(all) ? size : sizeof(all));
	stats->size = size;
	return 0;
}

/* --- pointers outside of pools --------------------------------------------------------- */

void *fm_ptr_load_outside(uint64_t value)
{
	struct fm_heap *h;

	if (value >= WINDOW_LEN)
		return (void *)(uintptr_t)value;
	h = registry_target();
	return h == NULL ? NULL : h->base + value;
}

uint64_t fm_ptr_value_outside(const void *self, const void *ptr)
{
	struct fm_heap *target, *h = registry_find(ptr);
	bool inside = (uintptr_t)self - FM_REGION_BASE < WINDOW_REGION_LEN;

	if (h == NULL || inside) {
		errno = EXDEV;
		err_set(EXDEV, h == NULL ? "fm_ptr: %p is in no open pool" :
			"fm_ptr: %p is in another pool", ptr);
		return 0;
	}
	target = registry_target();
	return target == h ? (uintptr_t)ptr - (uintptr_t)h->base : (uintptr_t)ptr;
}
