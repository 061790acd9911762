/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking a pool file: the super, what is done with findings, and repair.
 *
 * A repair is one write of a word, or of a page's first 512 bytes, that is right by
 * itself: killed between any two, the pool is no worse than before.  What a kill of
 * another process left is not repaired here but settled by who knows how, by opening
 * the pool.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/align.h"
#include "common/crc32c.h"
#include "heap/check.h"
#include "heap/error.h"
#include "heap/heap.h"
#include "heap/inspect.h"
#include "heap/lock.h"

#define NPASSES_MAX 8u

/* --- findings ---------------------------------------------------------------- */

void check_fail(struct check *c, int rc)
{
	if (c->error == 0)
		c->error = rc;
	c->stopped = true;
}

static void tell(struct check *c, int level, bool fixed, uint64_t off,
		 const char *structure, const char *what)
{
	struct fm_finding f = {
		.off = off,
		.level = level,
		.repaired = fixed,
		.structure = structure,
		.what = what,
	};

	if (c->stopped)
		return;
	if (level == FM_FINDING_DAMAGE && !fixed && c->nleft++ == 0)
		snprintf(c->first, sizeof(c->first), "offset %#" PRIx64 ": %s: %s", off,
			 structure, what);
	if (c->mending && !fixed)
		c->untold = true;
	else if (c->fn != NULL)
		c->result = c->fn(&f, c->arg);
	if (c->result != 0)
		c->stopped = true;
}

static void tell_words(struct check *c, int level, bool fixed, uint64_t off,
		       const char *structure, const char *fmt, va_list ap)
{
	char what[224];

	vsnprintf(what, sizeof(what), fmt, ap);
	tell(c, level, fixed, off, structure, what);
}

void check_damage(struct check *c, bool fixed, uint64_t off, const char *structure,
		  const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	tell_words(c, FM_FINDING_DAMAGE, fixed, off, structure, fmt, ap);
	va_end(ap);
}

void check_note(struct check *c, bool fixed, uint64_t off, const char *structure,
		const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	tell_words(c, FM_FINDING_NOTE, fixed, off, structure, fmt, ap);
	va_end(ap);
}

void check_later(struct check *c, uint64_t off, const char *structure, const char *fmt,
		 ...)
{
	struct check_later *later = check_add(c, &c->later, sizeof(*later));
	va_list ap;

	if (later == NULL)
		return;
	later->off = off;
	later->structure = structure;
	va_start(ap, fmt);
	vsnprintf(later->what, sizeof(later->what), fmt, ap);
	va_end(ap);
}

void *check_add(struct check *c, struct check_list *list, size_t len)
{
	size_t cap = list->cap == 0 ? 64 : list->cap * 2;
	void *mem;

	if (list->n == list->cap) {
		mem = reallocarray(list->item, cap, len);
		if (mem == NULL) {
			check_fail(c, err_sys(ENOMEM, "memory for %zu items", cap));
			return NULL;
		}
		list->item = mem;
		list->cap = cap;
	}
	mem = (char *)list->item + len * list->n++;
	return memset(mem, 0, len);
}

/* --- the file ---------------------------------------------------------------- */

bool check_read(struct check *c, uint64_t off, void *buf, size_t len)
{
	int rc;

	if (c->stopped)
		return false;
	rc = c->read(c->src, off, buf, len);
	if (rc == -EUCLEAN) {
		check_damage(c, false, off, "file",
			     "it ends here, before %" PRIu64 " bytes that must be"
			     " there",
			     (uint64_t)len);
		check_fail(c, err_set(EUCLEAN, "the pool is damaged: %s", c->first));
	} else if (rc < 0) {
		check_fail(c, err_sys(-rc, "read at offset %" PRIu64, off));
	}
	return rc == 0;
}

bool check_fix(struct check *c, uint64_t off, const void *buf, size_t len)
{
	ssize_t n;

	if (c->stopped || c->fd < 0)
		return false;
	do
		n = pwrite(c->fd, buf, len, off);
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)len)
		check_fail(c, err_sys(n < 0 ? errno : ENOSPC,
				      "write at offset %" PRIu64, off));
	c->changed = true;
	return n == (ssize_t)len;
}

bool check_fix32(struct check *c, uint64_t off, uint32_t value)
{
	return check_fix(c, off, &value, sizeof(value));
}

bool check_fix64(struct check *c, uint64_t off, uint64_t value)
{
	return check_fix(c, off, &value, sizeof(value));
}

/* --- the super --------------------------------------------------------------- */

static uint32_t super_crc(const struct fm_super_disk *super)
{
	return crc32c(0, super, offsetof(struct fm_super_disk, crc));
}

/*
 * Most of what the checksum covers has one value only.  If with those values it
 * is right, one of them was damaged and the rest is as it was written.
 */
static bool super_mend(struct fm_super_disk *super)
{
	struct fm_super_disk made = { .magic = { 0 } };

	memcpy(made.magic, FM_MAGIC, sizeof(made.magic));
	made.incompat = super->incompat & FM_INCOMPAT_KNOWN;
	made.byte_order = FM_BYTE_ORDER_MARK;
	made.version = FM_VERSION;
	made.compat = super->compat;
	made.ro_compat = super->ro_compat;
	memcpy(made.uuid, super->uuid, sizeof(made.uuid));
	made.created_ns = super->created_ns;
	made.page_shift = FM_PAGE_SHIFT;
	made.slab_shift = FM_SLAB_SHIFT;
	made.zone_shift = FM_ZONE_SHIFT;
	made.nclasses = SIZECLASS_N;
	made.classes_crc = sizeclass_crc();
	made.crc = super_crc(&made);
	if (made.crc != super->crc)
		return false;
	memcpy(super, &made, offsetof(struct fm_super_disk, heap_end));
	return true;
}

static size_t first_difference(const void *a, const void *b, size_t len)
{
	const unsigned char *pa = a, *pb = b;
	size_t i;

	for (i = 0; i < len && pa[i] == pb[i]; i++)
		;
	return i;
}

/* The part under the checksum: 0 if it is, or could be made, right. */
static int check_sealed(struct check *c)
{
	const size_t len = offsetof(struct fm_super_disk, heap_end);
	struct fm_super_disk was = c->super, judged;
	size_t at;
	int rc;

	judged = c->super;
	judged.heap_end = FM_ZONE_DATA_OFF; /* which has its own check */
	rc = super_check(&judged);
	if (rc == 0 || rc == -ENOTSUP || !super_mend(&c->super)) {
		if (rc == -EUCLEAN)
			check_damage(c, false, offsetof(struct fm_super_disk, crc),
				     "super", "bad checksum");
		return rc;
	}
	at = first_difference(&was, &c->super, len);
	check_damage(c, check_fix(c, 0, &c->super, len), at, "super",
		     "the checksum shows that this byte is not what it was");
	return 0;
}

static bool end_possible(const struct check *c, uint64_t end)
{
	return end >= FM_ZONE_DATA_OFF && end % FM_PAGE_LEN == 0 &&
	       end <= FM_MAX_NZONES * FM_ZONE_LEN && end <= c->file_len;
}

/* heap_end: the zones know where it must be at least. */
static void check_heap_end(struct check *c)
{
	const uint64_t at = offsetof(struct fm_super_disk, heap_end);
	uint64_t end = c->super.heap_end, least;
	bool fixed = false;

	c->heap_end = end;
	least = checkzone_find_end(c);
	if (c->stopped || (end_possible(c, end) && (least == 0 || end >= least)))
		return;
	if (least != 0 && end_possible(c, least)) {
		fixed = check_fix64(c, at, least);
		c->heap_end = least;
	}
	if (end > c->file_len)
		check_damage(c, fixed, at, "super",
			     "the pool is cut short: the heap ends at %" PRIu64
			     ", the file at %" PRIu64,
			     end, c->file_len);
	else
		check_damage(c, fixed, at, "super",
			     "the heap ends at %" PRIu64 ", its zones at %" PRIu64, end,
			     least);
	if (!end_possible(c, c->heap_end))
		check_fail(c, err_set(EUCLEAN, "the pool is damaged: %s", c->first));
}

static void check_super(struct check *c)
{
	int rc;

	if (c->file_len < sizeof(c->super)) {
		check_fail(c, err_set(EINVAL, "it is not a pool (%s)",
				      c->file_len == 0 ? "it is empty"
						       : "it is too short"));
		return;
	}
	if (!check_read(c, 0, &c->super, sizeof(c->super)))
		return;
	rc = check_sealed(c);
	if (rc < 0)
		check_fail(c, rc);
	c->tiny = (c->super.compat & FM_COMPAT_TINY) != 0;
	if (!c->stopped && c->fd >= 0 &&
	    (c->super.ro_compat & ~FM_RO_COMPAT_KNOWN) != 0)
		check_fail(c, err_set(EROFS, "the pool has features that this library"
				      " may only read (ro_compat bits %#" PRIx64 ")",
				      c->super.ro_compat & ~FM_RO_COMPAT_KNOWN));
	if (!c->stopped)
		check_heap_end(c);
}

static void check_writer(struct check *c, uint64_t ino)
{
	const struct fm_writer_disk *w = &c->super.writer;

	if (w->pid != 0 && w->ino == ino)
		check_later(c, offsetof(struct fm_super_disk, writer), "writer",
			    "process %" PRIu64 " did not close the pool", w->pid);
}

/* --- all of it --------------------------------------------------------------- */

int check_begin(struct check *c)
{
	c->all_claimed = true;
	c->dir = calloc(FM_MAX_NZONES, sizeof(*c->dir));
	c->zone = malloc(sizeof(*c->zone));
	return c->dir == NULL || c->zone == NULL ? err_sys(ENOMEM, "memory for a zone")
						 : 0;
}

void check_end(struct check *c)
{
	free(c->dir);
	free(c->zone);
	free(c->claims.item);
	free(c->refs.item);
	free(c->roots.item);
	free(c->later.item);
}

void check_run(struct check *c)
{
	checkmeta_run(c);
	if (!c->stopped)
		checkzone_run(c);
}

/* Space that the file lacks the next writer gets, or fails to. */
static void check_space(struct check *c, uint64_t disk_len)
{
	uint64_t promised = c->stats.backed_len + c->stats.meta_len;

	if (disk_len < promised)
		check_later(c, 0, "file",
			    "it has %" PRIu64 " bytes of the %" PRIu64 " that the heap"
			    " was promised",
			    disk_len, promised);
}

/* Let a writer settle what was left: whether it did. */
static bool settle(struct check *c, const char *path)
{
	struct fm_heap *h;
	bool created;
	int rc;

	if (c->fd < 0 || c->stopped || c->nleft > 0 || c->later.n == 0)
		return false;
	lock_release(c->fd);
	rc = pool_open(path, 0, &created, &h);
	if (rc < 0)
		check_fail(c, err_in(rc, "settling what a killed process left"));
	else
		pool_close(h);
	c->changed = true;
	return rc == 0;
}

static void tell_later(struct check *c, bool settled)
{
	const struct check_later *later = c->later.item;
	size_t i;

	for (i = 0; i < c->later.n; i++)
		tell(c, FM_FINDING_NOTE, settled, later[i].off, later[i].structure,
		     later[i].what);
}

static void check_all(struct check *c, const char *path, const struct stat *st)
{
	check_super(c);
	if (!c->stopped)
		check_writer(c, st->st_ino);
	if (!c->stopped)
		check_run(c);
	if (!c->stopped)
		check_space(c, (uint64_t)st->st_blocks * 512);
	tell_later(c, settle(c, path));
	if (c->changed && fsync(c->fd) < 0)
		check_fail(c, err_sys(errno, "fsync"));
}

/* A repair is of the file, so its log must be empty. */
static int empty_log(struct check *c, const char *path, int fd, struct stat *st,
		     struct inspect_view *view)
{
	struct fm_heap *h;
	bool created;
	int rc;

	inspect_close_view(view);
	lock_release(fd);
	rc = pool_open(path, 0, &created, &h);
	if (rc == 0)
		pool_close(h);
	c->changed = rc == 0;
	if (rc == 0)
		rc = lock_take(fd);
	if (rc == 0 && fstat(fd, st) < 0)
		rc = err_sys(errno, "fstat");
	c->file_len = st->st_size;
	return rc == 0 ? inspect_open_view(view, fd) : rc;
}

static void check_view(struct check *c, const char *path, int fd, struct stat *st,
		       struct inspect_view *view)
{
	int rc = inspect_open_view(view, fd);

	if (rc == 0 && view->nrecords > 0 && c->fd >= 0)
		rc = empty_log(c, path, fd, st, view);
	if (rc == -EUCLEAN)
		check_damage(c, false, view->super.log_off, "log", "%s", err_words());
	if (rc == 0 && view->nrecords > 0) {
		check_later(c, view->super.log_off, "log", "it has %" PRIu64 " commits that"
			    " are not in their place yet", view->nrecords);
		c->fd = -1;	/* there is a reader */
	}
	if (rc < 0)
		c->super = view->super;
	if (rc < 0)
		check_fail(c, rc == -EUCLEAN ? err_set(EUCLEAN, "the pool is damaged: %s",
						       c->first) : rc);
	else
		check_all(c, path, st);
}

/* --- a file ------------------------------------------------------------------ */

static int open_file(const char *path, int flags)
{
	int mode = flags & FM_CHECK_REPAIR ? O_RDWR : O_RDONLY, rc = 0;
	int fd = open(path, mode | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0)
		return err_sys(errno, "open");
	if (fstat(fd, &st) < 0)
		rc = err_sys(errno, "fstat");
	else if (S_ISDIR(st.st_mode))
		rc = err_set(EISDIR, "it is a directory");
	else if (!S_ISREG(st.st_mode))
		rc = err_set(EINVAL, "it is not a regular file");
	else if (flags & FM_CHECK_REPAIR)
		rc = lock_take(fd);
	else
		rc = lock_look(fd);
	if (rc < 0)
		close(fd);
	return rc < 0 ? rc : fd;
}

/* A writer that came and went has changed one of these. */
static bool same_file(int fd, const struct stat *was,
		      const struct fm_writer_disk *writer)
{
	struct fm_writer_disk now;
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_size == was->st_size &&
	       st.st_mtim.tv_sec == was->st_mtim.tv_sec &&
	       st.st_mtim.tv_nsec == was->st_mtim.tv_nsec &&
	       pread(fd, &now, sizeof(now), offsetof(struct fm_super_disk, writer)) ==
		       sizeof(now) &&
	       memcmp(&now, writer, sizeof(now)) == 0;
}

static int verdict(struct check *c, int fd, const struct stat *st)
{
	int rc = 0;

	if (c->fd < 0 && c->file_len >= sizeof(c->super)) {
		rc = lock_look(fd);
		if (rc == 0 && !same_file(fd, st, &c->super.writer))
			rc = err_set(EBUSY, "somebody wrote to it meanwhile");
	}
	if (rc < 0)
		return rc;
	if (c->error != 0)
		return c->error;
	if (c->nleft > 0 && c->result == 0)
		return err_set(EUCLEAN, "the pool is damaged: %s", c->first);
	return 0;
}

/* One pass over the file, as the other fields of c say. */
static int pass(struct check *c, const char *path, int fd)
{
	struct inspect_view view = { .fd = -1 };
	struct stat st;
	int rc;

	if (fstat(fd, &st) < 0)
		return err_sys(errno, "fstat");
	c->read = inspect_read;
	c->src = &view;
	c->file_len = st.st_size;
	rc = check_begin(c);
	if (rc == 0) {
		check_view(c, path, fd, &st, &view);
		rc = verdict(c, fd, &st);
	}
	inspect_close_view(&view);
	check_end(c);
	return rc;
}

/*
 * Repair, as long as there is anything that can be: what a repair links anew may lead
 * to what needs another.  The lock is given up where a pool is opened to settle what a
 * kill left; if somebody else has it then, all is as it was found to be good.
 */
static int mend(struct check *c, const char *path, int fd)
{
	const struct check as_given = *c;
	unsigned n = 0;
	int rc;

	do {
		*c = as_given;
		c->fd = fd;
		c->mending = true;
		rc = pass(c, path, fd);
	} while (c->changed && !c->stopped && ++n < NPASSES_MAX && lock_take(fd) == 0);
	/* (Without damage it is an error of the system's.) */
	if (!c->untold || c->result != 0 || (c->error != 0 && c->nleft == 0))
		return rc;
	*c = as_given;
	return pass(c, path, fd);
}

int check_file(const char *path, int flags,
	       int (*fn)(const struct fm_finding *finding, void *arg), void *arg,
	       int *result)
{
	struct check c = { .fd = -1, .fn = fn, .arg = arg };
	int fd, rc, state = cancel_disable();

	fd = open_file(path, flags);
	if (fd < 0)
		rc = fd;
	else
		rc = flags & FM_CHECK_REPAIR ? mend(&c, path, fd) : pass(&c, path, fd);
	*result = c.result;
	if (fd >= 0)
		close(fd);
	cancel_restore(state);
	return rc;
}
