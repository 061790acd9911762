/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a stream.  This thread reads, compares and packs; another one writes what is
 * ready, so that neither the disk nor the pipe waits for the other.
 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zstd.h>

#include "common/clock.h"
#include "common/crc32c.h"
#include "common/rw.h"
#include "heap/error.h"
#include "heap/inspect.h"
#include "stream/ring.h"
#include "stream/source.h"
#include "stream/stream.h"

#define PAGE_LEN 4096u
#define NPAGES (STREAM_PIECE_LEN / PAGE_LEN)
/* Fewer zeroes in a row than these are packed with what is around them. */
#define ZERO_NPAGES 16u
#define BUF_LEN (2 * STREAM_PIECE_LEN)

struct sender {
	const struct stream_send *send;
	struct source now, was;	/* the snapshot, the base */
	uint8_t *piece, *base_piece;
	size_t piece_len;
	ZSTD_CCtx *zstd;
	uint64_t spare_ns;	/* of the last wait for the other side, not used since */
	uint64_t pack_ns;	/* what packing a whole piece took last */
	uint32_t crc;		/* of the record before */
	uint64_t off;		/* what lies before has been dealt with */
	struct stream_record_disk run; /* ZERO or SAME that may get longer; kind 0: none */

	struct ring ring;
	struct ring_buf *buf;	/* being filled; NULL: none */
	pthread_t writer;
	int write_rc;		/* the writer's, once the ring is stopped or it ended */
};

/* --- the other thread ---------------------------------------------------------- */

static void *write_all_bufs(void *arg)
{
	struct sender *s = arg;
	struct ring_buf *buf;

	while ((buf = ring_drain(&s->ring)) != NULL) {
		s->write_rc = write_next(s->send->out_fd, buf->bytes, buf->len);
		if (s->write_rc < 0) {
			ring_stop(&s->ring);
			break;
		}
		ring_drained(&s->ring);
	}
	return NULL;
}

static int write_failed(const struct sender *s)
{
	return err_sys(-s->write_rc, "the stream cannot be written");
}

static void hand_over(struct sender *s)
{
	if (s->buf != NULL)
		ring_filled(&s->ring);
	s->buf = NULL;
}

/* Room for so many bytes: where. */
static uint8_t *room_for(struct sender *s, size_t len)
{
	uint64_t begun_ns;

	if (s->buf != NULL && s->ring.buf_len - s->buf->len < len)
		hand_over(s);
	if (s->buf == NULL) {
		begun_ns = clock_ns();
		s->buf = ring_fill(&s->ring);
		s->spare_ns = clock_ns() - begun_ns;
	}
	return s->buf == NULL ? NULL : s->buf->bytes + s->buf->len;
}

/* --- records --------------------------------------------------------------------- */

/* Complete the record at `at`, behind which its payload is, with this checksum. */
static void seal(struct sender *s, uint8_t *at, const struct stream_record_disk *record,
		 uint32_t payload_crc)
{
	s->crc = crc32c_join(crc32c(s->crc, record, sizeof(*record)), payload_crc,
			     record->payload_len);
	memcpy(at, record, sizeof(*record));
	memcpy(at + offsetof(struct stream_record_disk, crc), &s->crc, sizeof(s->crc));
	s->buf->len += sizeof(*record) + record->payload_len;
}

static int put_record(struct sender *s, const struct stream_record_disk *record,
		      const void *payload, uint32_t payload_crc)
{
	uint8_t *at = room_for(s, sizeof(*record) + record->payload_len);

	if (at == NULL)
		return write_failed(s);
	if (record->payload_len > 0)
		memcpy(at + sizeof(*record), payload, record->payload_len);
	seal(s, at, record, payload_crc);
	return 0;
}

static int end_run(struct sender *s)
{
	int rc = s->run.kind != 0 ? put_record(s, &s->run, NULL, 0) : 0;

	s->run.kind = 0;
	return rc;
}

static int put_run(struct sender *s, enum stream_kind kind, uint64_t off, uint64_t len)
{
	int rc = 0;

	if (s->run.kind == kind) {
		s->run.len += len;
		return 0;
	}
	rc = end_run(s);
	s->run = (struct stream_record_disk){ .kind = kind, .off = off, .len = len };
	return rc;
}

/* Whether there is time for packing so much: the last wait for the other side was longer
 * than that takes. */
static bool may_pack(const struct sender *s, size_t len)
{
	return s->send->compress &&
	       (!s->send->spare_time || s->spare_ns >= s->pack_ns * len / STREAM_PIECE_LEN);
}

/* How long it gets; 0: not shorter. */
static size_t pack(struct sender *s, uint8_t *to, const uint8_t *bytes, size_t len)
{
	uint64_t begun_ns = clock_ns(), took_ns;
	size_t n = ZSTD_compress2(s->zstd, to, len - 1, bytes, len);

	took_ns = clock_ns() - begun_ns;
	s->spare_ns -= took_ns < s->spare_ns ? took_ns : s->spare_ns;
	s->pack_ns = took_ns * STREAM_PIECE_LEN / len;
	return ZSTD_isError(n) ? 0 : n;
}

static int put_data(struct sender *s, uint64_t off, const uint8_t *bytes, size_t len)
{
	struct stream_record_disk record = {
		.kind = STREAM_DATA, .off = off, .len = len, .payload_len = len
	};
	size_t packed_len = 0;
	uint8_t *at;
	int rc = end_run(s);

	if (rc < 0)
		return rc;
	at = room_for(s, sizeof(record) + len);
	if (at == NULL)
		return write_failed(s);
	if (may_pack(s, len))
		packed_len = pack(s, at + sizeof(record), bytes, len);
	if (packed_len == 0)
		return put_record(s, &record, bytes,
				  len == s->piece_len ? s->now.piece_crc
						      : crc32c(0, bytes, len));
	record.kind = STREAM_PACKED;
	record.payload_len = packed_len;
	seal(s, at, &record, crc32c(0, at + sizeof(record), packed_len));
	return 0;
}

static int put_end(struct sender *s)
{
	struct stream_end_disk end = { .crc = s->now.crc, .base_crc = s->was.crc };
	struct stream_record_disk record = {
		.kind = STREAM_END, .off = s->now.size, .payload_len = sizeof(end)
	};

	return put_record(s, &record, &end, crc32c(0, &end, sizeof(end)));
}

/* --- pieces ------------------------------------------------------------------------ */

static bool is_zero(const uint8_t *p, size_t len)
{
	return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

static size_t page_len(size_t len, size_t i)
{
	return len - i * PAGE_LEN < PAGE_LEN ? len - i * PAGE_LEN : PAGE_LEN;
}

static enum stream_kind page_kind(const struct sender *s, size_t len, size_t i)
{
	size_t at = i * PAGE_LEN, n = page_len(len, i);

	if (s->off + at + n <= s->was.size &&
	    memcmp(s->piece + at, s->base_piece + at, n) == 0)
		return STREAM_SAME;
	return is_zero(s->piece + at, n) ? STREAM_ZERO : STREAM_DATA;
}

static size_t run_end(const uint8_t *kind, size_t n, size_t i)
{
	size_t end = i + 1;

	while (end < n && kind[end] == kind[i])
		end++;
	return end;
}

/* A few zeroes beside data are data. */
static void join_zeroes(uint8_t *kind, size_t n)
{
	for (size_t i = 0, end; i < n; i = end) {
		end = run_end(kind, n, i);
		if (kind[i] == STREAM_ZERO && end - i < ZERO_NPAGES &&
		    ((i > 0 && kind[i - 1] == STREAM_DATA) ||
		     (end < n && kind[end] == STREAM_DATA)))
			memset(kind + i, STREAM_DATA, end - i);
	}
}

static int put_pages(struct sender *s, size_t len)
{
	size_t n = (len + PAGE_LEN - 1) / PAGE_LEN, i, end, at, run_len;
	uint8_t kind[NPAGES];
	int rc = 0;

	for (i = 0; i < n; i++)
		kind[i] = page_kind(s, len, i);
	join_zeroes(kind, n);
	for (i = 0; i < n && rc == 0; i = end) {
		end = run_end(kind, n, i);
		at = i * PAGE_LEN;
		run_len = end == n ? len - at : (end - i) * PAGE_LEN;
		if (kind[i] == STREAM_DATA)
			rc = put_data(s, s->off + at, s->piece + at, run_len);
		else
			rc = put_run(s, kind[i], s->off + at, run_len);
	}
	return rc;
}

static int put_piece(struct sender *s, size_t len)
{
	bool hole, base_hole;
	int rc;

	s->piece_len = len;
	rc = source_next(&s->now, s->piece, len, &hole);
	if (rc < 0)
		return rc;
	rc = source_next(&s->was, s->base_piece, len, &base_hole);
	if (rc < 0)
		return err_in(rc, "%s", s->send->base_name);
	if (hole && base_hole)
		return put_run(s, s->off + len <= s->was.size ? STREAM_SAME : STREAM_ZERO,
			       s->off, len);
	if (hole)
		memset(s->piece, 0, len);
	if (base_hole)
		memset(s->base_piece, 0, len);
	return put_pages(s, len);
}

/* What the base has behind the end of the snapshot counts for its checksum. */
static int read_rest_of_base(struct sender *s)
{
	bool hole;
	int rc = 0;

	while (rc == 0 && s->was.off < s->was.size)
		rc = source_next(&s->was, s->base_piece, STREAM_PIECE_LEN, &hole);
	return rc < 0 ? err_in(rc, "%s", s->send->base_name) : 0;
}

static int put_all(struct sender *s, const struct stream_head_disk *head)
{
	uint64_t left;
	uint8_t *at = room_for(s, sizeof(*head));
	int rc = 0;

	if (at == NULL)
		return write_failed(s);
	memcpy(at, head, sizeof(*head));
	s->buf->len += sizeof(*head);
	s->crc = head->crc;
	for (; rc == 0 && s->off < s->now.size; s->off = s->now.off) {
		left = s->now.size - s->off;
		rc = put_piece(s, left < STREAM_PIECE_LEN ? left : STREAM_PIECE_LEN);
		if (s->send->progress != NULL)
			s->send->progress(s->send->arg, s->now.off, s->now.size);
	}
	if (rc == 0)
		rc = end_run(s);
	if (rc == 0)
		rc = read_rest_of_base(s);
	return rc < 0 ? rc : put_end(s);
}

/* --- the head ----------------------------------------------------------------------- */

static int look_at(int fd, struct pool_info *info, struct stat *st)
{
	int rc = fstat(fd, st) < 0 ? -errno : inspect_pool(fd, info);

	if (rc < 0)
		return err_sys(-rc, "cannot be read");
	if (info->state != POOL_GOOD)
		return err_set(EINVAL, "%s", info->why);
	if ((uint64_t)st->st_size > STREAM_SIZE_MAX)
		return err_set(EFBIG, "too long for a stream");
	return 0;
}

static int add_base(const struct stream_send *send, struct stream_head_disk *head)
{
	struct pool_info info;
	struct stat st;
	uint8_t *begin;
	ssize_t n;
	int rc = look_at(send->base_fd, &info, &st);

	if (rc < 0)
		return err_in(rc, "%s", send->base_name);
	if (memcmp(info.uuid, head->uuid, sizeof(info.uuid)) != 0)
		return err_set(EINVAL, "not of the pool that %s is of", send->base_name);
	begin = malloc(STREAM_PIECE_LEN);
	if (begin == NULL)
		return err_set(ENOMEM, "no memory");
	n = read_at(send->base_fd, begin, STREAM_PIECE_LEN, 0);
	if (n >= 0)
		head->base_begin_crc = crc32c(0, begin, n);
	free(begin);
	head->flags |= STREAM_INCREMENTAL;
	head->base_size = st.st_size;
	strncpy(head->base_name, send->base_name, sizeof(head->base_name) - 1);
	return n < 0 ? err_sys(-n, "%s", send->base_name) : 0;
}

static int make_head(const struct stream_send *send, struct stream_head_disk *head)
{
	struct pool_info info;
	struct stat st;
	int rc = look_at(send->fd, &info, &st);

	if (rc < 0)
		return rc;
	*head = (struct stream_head_disk){
		.byte_order = STREAM_BYTE_ORDER_MARK,
		.version = STREAM_VERSION,
		.size = st.st_size,
		.mode = st.st_mode & 0777,
		.mtime_ns = st.st_mtim.tv_sec * UINT64_C(1000000000) + st.st_mtim.tv_nsec,
	};
	memcpy(head->magic, STREAM_MAGIC, sizeof(head->magic));
	memcpy(head->uuid, info.uuid, sizeof(head->uuid));
	strncpy(head->name, send->name, sizeof(head->name) - 1);
	rc = send->base_fd >= 0 ? add_base(send, head) : 0;
	head->crc = crc32c(0, head, sizeof(*head));
	return rc;
}

/* --- all of it ----------------------------------------------------------------------- */

static int run(struct sender *s, const struct stream_head_disk *head)
{
	int rc = -pthread_create(&s->writer, NULL, write_all_bufs, s);

	if (rc < 0)
		return err_sys(-rc, "no thread");
	rc = put_all(s, head);
	hand_over(s);
	ring_end(&s->ring);
	pthread_join(s->writer, NULL);
	return rc == 0 && s->write_rc < 0 ? write_failed(s) : rc;
}

static int make_room(struct sender *s)
{
	s->piece = malloc(STREAM_PIECE_LEN);
	s->base_piece = malloc(STREAM_PIECE_LEN);
	s->zstd = ZSTD_createCCtx();
	if (s->piece == NULL || s->base_piece == NULL || s->zstd == NULL ||
	    ring_init(&s->ring, BUF_LEN) < 0)
		return err_set(ENOMEM, "no memory");
	ZSTD_CCtx_setParameter(s->zstd, ZSTD_c_compressionLevel, s->send->level);
	return 0;
}

void stream_levels(int *min, int *max)
{
	*min = ZSTD_minCLevel();
	*max = ZSTD_maxCLevel();
}

int stream_send(const struct stream_send *send)
{
	struct sender s = { .send = send };
	struct stream_head_disk head;
	int rc = make_head(send, &head);

	if (rc < 0)
		return rc;
	source_init(&s.now, send->fd, head.size);
	source_init(&s.was, send->base_fd, head.base_size);
	rc = make_room(&s);
	if (rc == 0) {
		rc = run(&s, &head);
		ring_destroy(&s.ring);
	}
	ZSTD_freeCCtx(s.zstd);
	free(s.base_piece);
	free(s.piece);
	return rc;
}
