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
#include "heap/layout.h"
#include "power/recorder.h"

enum plant planted;
bool recorder_no_checksums;

static struct {
	struct recording *to; /* NULL: nothing is recorded */
	uint64_t ino;
	size_t synced; /* operations before the last sync */
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

static bool is_recorded(int fd)
{
	struct stat st;

	return rec.to != NULL && fstat(fd, &st) == 0 && st.st_ino == rec.ino;
}

void recorder_start(uint64_t ino, struct recording *to)
{
	memset(to, 0, sizeof(*to));
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

/* --- planted bugs ------------------------------------------------------------- */

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
	ssize_t n = __real_pwrite(fd, buf, len, off);
	struct op *op;

	if (n <= 0 || !is_recorded(fd))
		return n;
	op = add(OP_WRITE, off, n);
	op->data = malloc(n);
	memcpy(op->data, buf, n);
	return n;
}

int __wrap_ftruncate(int fd, off_t len)
{
	int rc = __real_ftruncate(fd, len);

	if (rc == 0 && is_recorded(fd))
		add(OP_LENGTH, 0, len);
	return rc;
}

int __wrap_fallocate(int fd, int mode, off_t off, off_t len)
{
	struct stat st;
	off_t was = fstat(fd, &st) == 0 ? st.st_size : 0;
	int rc = __real_fallocate(fd, mode, off, len);

	if (rc != 0 || !is_recorded(fd))
		return rc;
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		add(OP_ZERO, off, len);
	else if (off + len > was)
		add(OP_LENGTH, 0, off + len);
	return rc;
}

static int synced(int fd)
{
	if (!is_recorded(fd))
		return 0;
	if (is_left_out()) {
		add(OP_LOST, 0, 0);
		return 0;
	}
	add(OP_SYNC, 0, 0);
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
