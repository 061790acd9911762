/* SPDX-License-Identifier: Apache-2.0 */
/* Wrapped system calls. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/crc32c.h"
#include "heap/fresh.h"
#include "heap/layout.h"
#include "power/recorder.h"

enum plant planted;
bool recorder_no_checksums;

static struct {
	struct recording *to; /* NULL: nothing is recorded */
	struct image *im;     /* that is changed; may be NULL */
	uint64_t ino;
	size_t synced; /* operations before the last sync, made or not */
} rec;

static struct op *add(enum op_kind kind, uint64_t off, uint64_t len)
{
	struct recording *r = rec.to;

	if (r->n == r->cap) {
		r->cap = r->cap == 0 ? 1024 : r->cap * 2;
		r->op = realloc(r->op, r->cap * sizeof(*r->op));
		if (r->op == NULL)
			abort();
	}
	r->op[r->n] = (struct op){ kind, off, len, NULL };
	return &r->op[r->n++];
}

/* And how long it is. */
static bool is_recorded(int fd, uint64_t *len)
{
	struct stat st;

	if (rec.to == NULL || fstat(fd, &st) < 0 || st.st_ino != rec.ino)
		return false;
	*len = st.st_size;
	return true;
}

/* [off, end) of the file, of which `len` bytes are there, is going to be changed. */
static void save(uint64_t off, uint64_t end, uint64_t len)
{
	if (rec.im == NULL)
		return;
	image_save(rec.im, off, end - off);
	if (end > len)
		image_save_length(rec.im, end);
}

void recorder_start(uint64_t ino, struct recording *to, struct image *im)
{
	memset(to, 0, sizeof(*to));
	rec.im = im;
	rec.ino = ino;
	rec.synced = 0;
	rec.to = to;
}

void recorder_stop(void)
{
	rec.to = NULL;
}

void recorder_note(enum op_kind kind, uint64_t number)
{
	add(kind, number, 0);
}

void recording_free(struct recording *r)
{
	size_t i;

	for (i = 0; i < r->n; i++)
		free(r->op[i].data);
	free(r->op);
	memset(r, 0, sizeof(*r));
}

/* --- what a write is ---------------------------------------------------------- */

static bool is_record(const struct op *op)
{
	uint32_t magic;

	if (op->len < sizeof(struct fm_record_disk))
		return false;
	memcpy(&magic, op->data, sizeof(magic));
	return magic == FM_RECORD_MAGIC;
}

static bool is_lap(const struct op *op)
{
	return op->len == FM_SECTOR_LEN && op->off % FM_PAGE_LEN != 0;
}

static bool is_head(const struct op *op)
{
	uint32_t magic;

	memcpy(&magic, op->data, sizeof(magic));
	return op->len == FM_SECTOR_LEN && magic == FM_LOG_MAGIC;
}

/* A head with which the chain of extents gets longer, and one with which it ends. */
static bool is_link(const struct op *op)
{
	const struct fm_log_disk *head = (const void *)op->data;

	return is_head(op) && head->next_off != 0;
}

static bool is_shrinking(const struct op *op)
{
	const struct fm_log_disk *head = (const void *)op->data;

	return is_head(op) && head->free_off != 0 && head->next_off == 0;
}

static void count_write(const struct op *op, unsigned n[NTHINGS])
{
	if (is_record(op))
		n[THING_COMMIT]++;
	else if (is_lap(op))
		n[THING_CHECKPOINT]++;
	else if (is_link(op))
		n[THING_LOG_GROWTH]++;
	else if (is_shrinking(op))
		n[THING_LOG_SHRINKING]++;
}

/* Of the file, which has len bytes before. */
static uint64_t length_after(const struct op *op, uint64_t len)
{
	if (op->kind == OP_LENGTH)
		return op->len;
	return op->kind == OP_WRITE && op->off + op->len > len ? op->off + op->len : len;
}

void recording_count(const struct recording *r, uint64_t len, unsigned n[NTHINGS])
{
	const struct op *op;
	uint64_t end;
	size_t i;

	memset(n, 0, NTHINGS * sizeof(n[0]));
	for (i = 0; i < r->n; i++) {
		op = &r->op[i];
		end = length_after(op, len);
		if (op->kind == OP_WRITE)
			count_write(op, n);
		n[THING_GROWTH] += end > len;
		n[THING_CUT] += end < len;
		n[THING_HOLE] += op->kind == OP_ZERO;
		n[THING_ROLLBACK] += op->kind == OP_ROLLBACK;
		len = end;
	}
}

/* --- planted bugs ------------------------------------------------------------- */

/* What the writes since the last sync were. */
static void look_back(bool *record, bool *lap, bool *longer, bool *home)
{
	const struct op *op;
	size_t i;

	*record = *lap = *longer = *home = false;
	for (i = rec.synced; i < rec.to->n; i++) {
		op = &rec.to->op[i];
		if (op->kind == OP_LENGTH)
			*longer = true;
		if (op->kind != OP_WRITE)
			continue;
		if (is_record(op))
			*record = true;
		else if (is_lap(op))
			*lap = true;
		else if (!is_head(op))
			*home = true;
	}
}

static bool is_left_out(void)
{
	bool record, lap, longer, home;

	look_back(&record, &lap, &longer, &home);
	switch (planted) {
	case PLANT_NO_SYNC_OF_RECORDS:
		return record;
	case PLANT_NO_SYNC_OF_LAPS:
		return lap && !record;
	case PLANT_NO_SYNC_OF_HOME:
		return home && !longer && !record;
	case PLANT_NO_SYNC_OF_GROWTH:
		return longer && !record;
	default:
		return false;
	}
}

/* A record of which nothing but its beginning is looked at. */
uint32_t __real_crc32c(uint32_t crc, const void *buf, size_t len);
uint32_t __wrap_crc32c(uint32_t crc, const void *buf, size_t len);

uint32_t __wrap_crc32c(uint32_t crc, const void *buf, size_t len)
{
	return recorder_no_checksums ? 1 : __real_crc32c(crc, buf, len);
}

void __real_fresh_commit(struct fresh *f, const struct overlay *o, int fd,
			 const uint64_t *runs, uint64_t nwords);
void __wrap_fresh_commit(struct fresh *f, const struct overlay *o, int fd,
			 const uint64_t *runs, uint64_t nwords);

void __wrap_fresh_commit(struct fresh *f, const struct overlay *o, int fd,
			 const uint64_t *runs, uint64_t nwords)
{
	if (planted != PLANT_NOBODYS)
		__real_fresh_commit(f, o, fd, runs, nwords);
}

/* --- calls -------------------------------------------------------------------- */

ssize_t __real_pwrite(int fd, const void *buf, size_t len, off_t off);
ssize_t __wrap_pwrite(int fd, const void *buf, size_t len, off_t off);
int __real_ftruncate(int fd, off_t len);
int __wrap_ftruncate(int fd, off_t len);
int __real_fallocate(int fd, int mode, off_t off, off_t len);
int __wrap_fallocate(int fd, int mode, off_t off, off_t len);
int __wrap_fdatasync(int fd);
int __wrap_fsync(int fd);
int __wrap_msync(void *mem, size_t len, int flags);

ssize_t __wrap_pwrite(int fd, const void *buf, size_t len, off_t off)
{
	struct op *op;
	uint64_t was;
	ssize_t n;

	if (!is_recorded(fd, &was))
		return __real_pwrite(fd, buf, len, off);
	save(off, off + len, was);
	n = __real_pwrite(fd, buf, len, off);
	if (n <= 0)
		return n;
	op = add(OP_WRITE, off, n);
	op->data = malloc(n);
	memcpy(op->data, buf, n);
	return n;
}

int __wrap_ftruncate(int fd, off_t len)
{
	uint64_t was;

	if (!is_recorded(fd, &was))
		return __real_ftruncate(fd, len);
	add(OP_LENGTH, 0, len);
	if (rec.im != NULL)
		image_save_length(rec.im, len);
	return __real_ftruncate(fd, len);
}

int __wrap_fallocate(int fd, int mode, off_t off, off_t len)
{
	bool zero = (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0;
	uint64_t was;
	int rc;

	if (!is_recorded(fd, &was))
		return __real_fallocate(fd, mode, off, len);
	if (zero)
		save(off, off + len < (off_t)was ? off + len : (off_t)was, was);
	else
		save(was, off + len, was);
	rc = __real_fallocate(fd, mode, off, len);
	if (rc == 0 && zero)
		add(OP_ZERO, off, len);
	else if (rc == 0 && off + len > (off_t)was)
		add(OP_LENGTH, 0, off + len);
	return rc;
}

static int synced(int fd)
{
	uint64_t len;

	if (!is_recorded(fd, &len))
		return 0;
	add(is_left_out() ? OP_LOST : OP_SYNC, 0, 0);
	rec.synced = rec.to->n;
	return 0;
}

int __wrap_fdatasync(int fd)
{
	return synced(fd);
}

int __wrap_fsync(int fd)
{
	return synced(fd);
}

/* An atomic pool has no shared mapping. */
int __wrap_msync(void *mem, size_t len, int flags)
{
	(void)mem;
	(void)len;
	(void)flags;
	abort();
}
