/* SPDX-License-Identifier: Apache-2.0 */
/* Extents, laps and records of a log: see "The log of an atomic pool" in
 * doc/format.md. */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/crc32c.h"
#include "common/rw.h"
#include "heap/error.h"
#include "heap/heap.h"
#include "heap/judge.h"
#include "heap/log.h"
#include "heap/overlay.h"

#define EXTENTS_LEN (FM_LOG_NEXTENTS_MAX * sizeof(struct log_extent))

static int bad(uint64_t off, const char *what)
{
	return err_set(EUCLEAN, "the pool is damaged: log at offset %" PRIu64 ": %s",
		       off, what);
}

/* --- bytes -------------------------------------------------------------------- */

static int read_all(int fd, uint64_t off, void *buf, uint64_t len)
{
	ssize_t n = read_at(fd, buf, len, off);

	if (n < 0)
		return err_sys(-n, "read of the log");
	return (uint64_t)n == len ? 0 : bad(off + n, "the file ends here");
}

static int write_all(int fd, uint64_t off, const void *buf, uint64_t len)
{
	int rc = write_at(fd, buf, len, off);

	return rc < 0 ? err_sys(-rc, "write of the log") : 0;
}

int log_sync(int fd)
{
	return map_sync_file(fd);
}

/* Bytes for records in an extent. */
static uint64_t room_of(const struct log_extent *e)
{
	return (uint64_t)(e->npages - 1) << FM_PAGE_SHIFT;
}

/* Read or write len bytes of the records at pos. */
static int transfer(const struct log *log, int fd, uint64_t pos, void *buf,
		    uint64_t len, bool writing)
{
	const struct log_extent *e = log->extent;
	unsigned char *p = buf;
	uint64_t n, off;
	int rc = 0;

	for (; len > 0 && rc == 0; e++) {
		if (pos >= room_of(e)) {
			pos -= room_of(e);
			continue;
		}
		n = room_of(e) - pos < len ? room_of(e) - pos : len;
		off = e->off + FM_PAGE_LEN + pos;
		rc = writing ? write_all(fd, off, p, n) : read_all(fd, off, p, n);
		p += n;
		len -= n;
		pos = 0;
	}
	return rc;
}

/* --- heads -------------------------------------------------------------------- */

int log_read_head(int fd, uint64_t off, uint64_t file_len, struct fm_log_disk *head)
{
	const char *why;
	int rc;

	if (off % FM_PAGE_LEN != 0 || off < FM_ZONE_DATA_OFF || off >= file_len ||
	    file_len - off < FM_LOG_NPAGES_MIN * FM_PAGE_LEN)
		return bad(off, "no extent can be there");
	rc = read_all(fd, off, head, sizeof(*head));
	if (rc < 0)
		return rc;
	why = judge_log(head, off, file_len);
	return why != NULL ? bad(off, why) : 0;
}

static int write_head(int fd, const struct log_extent *e, uint64_t next_off,
		      uint64_t free_off)
{
	union {
		struct fm_log_disk head;
		unsigned char sector[FM_SECTOR_LEN];
	} u;

	memset(&u, 0, sizeof(u));
	u.head.magic = FM_LOG_MAGIC;
	u.head.self_off = e->off;
	u.head.npages = e->npages;
	u.head.next_off = next_off;
	u.head.free_off = free_off;
	u.head.crc = judge_log_crc(&u.head);
	return write_all(fd, e->off, u.sector, sizeof(u.sector));
}

static int write_lap(int fd, uint64_t log_off, unsigned slot, uint64_t number,
		     uint64_t salt, uint64_t seq)
{
	struct fm_lap_disk lap = { .number = number, .salt = salt, .seq = seq };

	lap.crc = judge_lap_crc(&lap);
	return write_all(fd, log_off + (slot + 1) * FM_SECTOR_LEN, &lap, sizeof(lap));
}

static int make_salt(uint64_t *salt)
{
	return getrandom(salt, sizeof(*salt), 0) == sizeof(*salt)
		       ? 0
		       : err_sys(EIO, "random bytes for the log");
}

/* --- opening ------------------------------------------------------------------ */

static int choose_lap(struct log *log, const struct fm_log_disk *head)
{
	unsigned i, n = 2;

	for (i = 0; i < 2; i++)
		if (judge_lap(&head->lap[i]) == NULL &&
		    (n == 2 || head->lap[i].number > head->lap[n].number))
			n = i;
	if (n == 2)
		return bad(head->self_off, "no lap");
	log->slot = n;
	log->lap = head->lap[n].number;
	log->salt = head->lap[n].salt;
	log->seq = head->lap[n].seq;
	return 0;
}

static bool has_extent(const struct log *log, uint64_t off)
{
	uint32_t i;

	for (i = 0; i < log->nextents; i++)
		if (log->extent[i].off == off)
			return true;
	return false;
}

static void add_extent(struct log *log, uint64_t off, uint32_t npages)
{
	log->extent[log->nextents] = (struct log_extent){ off, npages };
	log->len += room_of(&log->extent[log->nextents++]);
}

static int read_chain(struct log *log, int fd, uint64_t off, uint64_t file_len)
{
	struct fm_log_disk head;
	int rc;

	rc = log_read_head(fd, off, file_len, &head);
	if (rc == 0)
		rc = choose_lap(log, &head);
	if (rc < 0)
		return rc;
	log->free_off = head.free_off;
	add_extent(log, off, head.npages);
	/* What follows may be of a commit that was never made: an extent that is none
	 * ends the chain, and no valid record lies in it. */
	for (off = head.next_off;
	     off != 0 && log->nextents < FM_LOG_NEXTENTS_MAX && !has_extent(log, off);
	     off = head.next_off) {
		if (log_read_head(fd, off, file_len, &head) < 0)
			break;
		add_extent(log, off, head.npages);
	}
	log->stray = off != 0;
	return 0;
}

int log_open(struct log *log, int fd, uint64_t log_off, uint64_t file_len)
{
	int rc;

	memset(log, 0, sizeof(*log));
	log->extent = map_anon_sparse(EXTENTS_LEN);
	if (log->extent == NULL)
		return err_sys(ENOMEM, "memory for the log");
	rc = read_chain(log, fd, log_off, file_len);
	if (rc < 0)
		log_close(log);
	return rc;
}

void log_close(struct log *log)
{
	map_anon_free(log->extent, EXTENTS_LEN);
	log->extent = NULL;
}

/* --- replaying ---------------------------------------------------------------- */

static uint32_t record_crc(const struct fm_record_disk *record)
{
	return crc32c(0, &record->salt,
		      record->len - offsetof(struct fm_record_disk, salt));
}

/* The head of the record at log->end: 1, 0 (none is there), or -errno. */
static int read_record_head(const struct log *log, int fd, struct fm_record_disk *head)
{
	int rc;

	if (log->len - log->end < sizeof(*head))
		return 0;
	rc = transfer(log, fd, log->end, head, sizeof(*head), false);
	if (rc < 0)
		return rc;
	return head->magic == FM_RECORD_MAGIC && head->salt == log->salt &&
	       head->seq == log->seq && head->len % 8 == 0 &&
	       head->len >= sizeof(*head) && head->len <= log->len - log->end;
}

/* What follows the head of a record, read piece by piece: it may be as long as the log,
 * and nothing but its checksum tells whether it is a record. */
struct reading {
	const struct log *log;
	int fd;
	const struct fm_record_disk *head;
	uint64_t nread;		/* words, with those of this piece */
	uint64_t word[32 << 10];
	uint64_t n, at;		/* words in the piece, and those that were taken */
	uint32_t crc;		/* of what was read */
};

static uint64_t nwords_of(const struct fm_record_disk *head)
{
	return (head->len - sizeof(*head)) / 8;
}

static int read_piece(struct reading *r)
{
	const uint64_t room = sizeof(r->word) / 8, left = nwords_of(r->head) - r->nread;
	uint64_t pos = r->log->end + sizeof(*r->head) + r->nread * 8;
	int rc;

	r->at = 0;
	r->n = left < room ? left : room;
	rc = transfer(r->log, r->fd, pos, r->word, r->n * 8, false);
	r->nread += r->n;
	r->crc = crc32c(r->crc, r->word, r->n * 8);
	return rc;
}

/* From the start; what is all in one piece need not be read again. */
static void rewind_reading(struct reading *r)
{
	r->at = 0;
	if (r->n == nwords_of(r->head))
		return;
	r->nread = 0;
	r->n = 0;
	r->crc = crc32c(0, &r->head->salt,
			sizeof(*r->head) - offsetof(struct fm_record_disk, salt));
}

/* Is it a record?  It may be being written just now. */
static int verify(struct reading *r)
{
	int rc = 0;

	r->n = UINT64_MAX;
	rewind_reading(r);
	while (rc == 0 && r->nread < nwords_of(r->head))
		rc = read_piece(r);
	return rc < 0 ? rc : r->crc == r->head->crc;
}

/* Store the run that comes next, of which the record has nwords, into the overlay. */
static int apply_run(struct reading *r, uint64_t off, uint64_t nwords, struct overlay *o)
{
	uint64_t n;
	int rc = 0;

	for (; rc == 0 && nwords > 0; off += n * 8, nwords -= n) {
		if (r->at == r->n)
			rc = read_piece(r);
		n = r->n - r->at < nwords ? r->n - r->at : nwords;
		if (rc == 0)
			rc = overlay_store(o, r->fd, off, r->word + r->at, n);
		r->at += n;
	}
	return rc;
}

static int apply(struct reading *r, uint64_t file_len, struct overlay *o)
{
	uint64_t left = nwords_of(r->head), n, off;
	int rc = 0;

	rewind_reading(r);
	for (; rc == 0 && left > 0; left -= n + 1) {
		if (r->at == r->n)
			rc = read_piece(r);
		if (rc < 0)
			return rc;
		n = FM_RUN_NWORDS(r->word[r->at]);
		off = FM_RUN_OFF(r->word[r->at++]);
		if (n == 0 || n >= left)
			return bad(r->log->extent[0].off, "a record with a bad run");
		if (off >= file_len || n * 8 > file_len - off)
			return bad(r->log->extent[0].off,
				   "a record beyond the end of the file");
		rc = apply_run(r, off, n, o);
	}
	/* Read twice, it may have been taken back in between. */
	if (rc == 0 && r->crc != r->head->crc)
		rc = err_set(EAGAIN, "the log is being written to");
	return rc;
}

/* Replay the record at log->end: 1, 0 (none is there), or -errno. */
static int replay_one(struct log *log, struct reading *r, uint64_t file_len,
		      struct overlay *o)
{
	struct fm_record_disk head;
	int rc;

	rc = read_record_head(log, r->fd, &head);
	if (rc <= 0)
		return rc;
	if (log->max_len != 0 && head.len > log->max_len - log->end)
		return err_set(EFBIG, "its log is too long to be looked at by the way");
	r->head = &head;
	rc = verify(r);
	if (rc <= 0)
		return rc;
	rc = apply(r, file_len, o);
	if (rc < 0)
		return rc;
	log_accept(log, &head);
	return 1;
}

int log_replay(struct log *log, int fd, uint64_t file_len, struct overlay *o)
{
	struct reading *r = map_anon(sizeof(*r));
	int rc, n = 0;

	if (r == NULL)
		return err_sys(ENOMEM, "memory for the log");
	/* A file may be longer than any pool, and so than the overlay can be. */
	if (file_len > FM_MAX_NZONES * FM_ZONE_LEN)
		file_len = FM_MAX_NZONES * FM_ZONE_LEN;
	r->log = log;
	r->fd = fd;
	while ((rc = replay_one(log, r, file_len, o)) > 0)
		n++;
	map_anon_free(r, sizeof(*r));
	return rc < 0 ? rc : n;
}

int log_has_last(const struct log *log, int fd)
{
	struct fm_record_disk head;
	int rc;

	if (log->end == 0)
		return 1;
	rc = transfer(log, fd, log->last_pos, &head, sizeof(head), false);
	if (rc < 0)
		return rc;
	return head.salt == log->salt && head.seq == log->seq - 1 &&
	       head.crc == log->last_crc;
}

/* --- appending ---------------------------------------------------------------- */

void log_seal(const struct log *log, struct fm_record_disk *record, uint64_t nwords)
{
	record->magic = FM_RECORD_MAGIC;
	record->salt = log->salt;
	record->seq = log->seq;
	record->len = sizeof(*record) + nwords * 8;
	record->crc = record_crc(record);
}

int log_append(struct log *log, int fd, const struct fm_record_disk *record)
{
	if (record->len > log->len - log->end)
		return err_set(ENOSPC, "the log is full");
	log->unrevoked = true;
	return transfer(log, fd, log->end, (void *)record, record->len, true);
}

void log_accept(struct log *log, const struct fm_record_disk *record)
{
	log->last_pos = log->end;
	log->last_crc = record->crc;
	log->end += record->len;
	log->seq++;
	log->unrevoked = false;
}

void log_revoke(struct log *log, int fd)
{
	struct fm_record_disk none = { .magic = 0 };

	if (log->unrevoked && log->len - log->end >= sizeof(none))
		log->unrevoked =
			transfer(log, fd, log->end, &none, sizeof(none), true) < 0;
}

int log_next_lap(struct log *log, int fd)
{
	unsigned slot = 1 - log->slot;
	uint64_t salt = 0;
	int rc;

	rc = make_salt(&salt);
	if (rc < 0)
		return rc;
	log->lapsing = true;
	rc = write_lap(fd, log->extent[0].off, slot, log->lap + 1, salt, log->seq);
	if (rc == 0)
		rc = log_sync(fd);
	if (rc < 0)
		return rc;
	log->lapsing = false;
	log->slot = slot;
	log->lap++;
	log->salt = salt;
	log->end = 0;
	return 0;
}

int log_ready(struct log *log, int fd)
{
	return log->lapsing ? log_next_lap(log, fd) : 0;
}

/* --- extents ------------------------------------------------------------------ */

/* Zeroes, so that the file system has nothing of its own to write at a commit. */
static int fill(int fd, uint64_t off, uint32_t npages)
{
	static const unsigned char zeroes[FM_PAGE_LEN * 16];
	uint64_t len = (uint64_t)npages << FM_PAGE_SHIFT, n;
	int rc = 0;

	for (; len > 0 && rc == 0; off += n, len -= n) {
		n = len < sizeof(zeroes) ? len : sizeof(zeroes);
		rc = write_all(fd, off, zeroes, n);
	}
	return rc;
}

int log_make(int fd, uint64_t off, uint32_t npages)
{
	struct log_extent e = { off, npages };
	uint64_t salt = 0;
	int rc;

	rc = make_salt(&salt);
	if (rc == 0)
		rc = fill(fd, off, npages);
	if (rc == 0)
		rc = write_head(fd, &e, 0, 0);
	if (rc == 0)
		rc = write_lap(fd, off, 0, 1, salt, 1);
	return rc == 0 ? log_sync(fd) : rc;
}

static int write_link(const struct log *log, int fd, uint32_t i, uint64_t next_off)
{
	return write_head(fd, &log->extent[i], next_off, i == 0 ? log->free_off : 0);
}

int log_grow(struct log *log, int fd, uint64_t off, uint32_t npages)
{
	struct log_extent e = { off, npages };
	int rc;

	if (log->nextents == FM_LOG_NEXTENTS_MAX)
		return err_set(ENOSPC, "the log has as many extents as it can");
	rc = fill(fd, off, npages);
	if (rc == 0)
		rc = write_head(fd, &e, 0, 0);
	if (rc == 0)
		rc = log_sync(fd);
	/* Killed before this there is no such extent. */
	if (rc == 0)
		rc = write_link(log, fd, log->nextents - 1, off);
	if (rc == 0)
		rc = log_sync(fd);
	if (rc == 0)
		add_extent(log, off, npages);
	return rc;
}

int log_write_heads(const struct log *log, int fd)
{
	uint32_t i;
	int rc = 0;

	for (i = 0; i < log->nextents && rc == 0; i++)
		rc = write_link(log, fd, i,
				i + 1 < log->nextents ? log->extent[i + 1].off : 0);
	return rc;
}

void log_forget(struct log *log, uint32_t nextents)
{
	while (log->nextents > nextents)
		log->len -= room_of(&log->extent[--log->nextents]);
}

int log_cut(struct log *log, int fd, uint32_t nextents)
{
	int rc;

	if (nextents >= log->nextents && !log->stray)
		return 0;
	rc = write_link(log, fd, nextents - 1, 0);
	if (rc < 0)
		return rc;
	log->stray = false;
	log_forget(log, nextents);
	return 0;
}

int log_shrink(struct log *log, int fd)
{
	uint64_t free_off;
	int rc;

	if (log->nextents == 1)
		return 0;
	free_off = log->extent[1].off;
	log_forget(log, 1);
	log->free_off = free_off;
	rc = write_head(fd, &log->extent[0], 0, free_off);
	return rc == 0 ? log_sync(fd) : rc;
}

int log_freed(struct log *log, int fd)
{
	int rc;

	if (log->free_off == 0)
		return 0;
	rc = write_head(fd, &log->extent[0], log->nextents > 1 ? log->extent[1].off : 0,
			0);
	if (rc == 0)
		rc = log_sync(fd);
	if (rc == 0)
		log->free_off = 0;
	return rc;
}
