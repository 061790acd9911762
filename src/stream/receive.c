/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a stream, which may be anything.  Another thread reads records into buffers;
 * this one judges them, unpacks and writes.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "common/crc32c.h"
#include "common/rw.h"
#include "heap/error.h"
#include "heap/inspect.h"
#include "stream/ring.h"
#include "stream/source.h"
#include "stream/stream.h"

/* A record with its payload, and one byte of what should not follow the last. */
#define BUF_LEN (sizeof(struct stream_record_disk) + STREAM_PIECE_LEN + 1)

struct receiver {
	struct stream_head_disk head;
	int in_fd;
	int stop_fd;		/* readable: nobody wants what in_fd still brings */

	struct ring ring;
	pthread_t reader;
	int read_rc;		/* the reader's, once it has ended */

	uint64_t at;		/* of the record at hand in the stream */
	uint32_t crc;		/* of the record before it */
	uint32_t payload_crc;	/* of its payload alone */
	const struct receive_to *to;
	uint64_t off;		/* what lies before is in the file */
	uint32_t out_crc;	/* of that */
	struct source base;	/* as far as `off`, or its end */
	uint8_t *piece, *base_piece;
	ZSTD_DCtx *zstd;
};

/* --- the other thread ---------------------------------------------------------- */

/* Read len bytes, fewer only at the end: how many, or -errno, -ECANCELED if told to stop. */
static ssize_t read_in(struct receiver *r, uint8_t *to, size_t len)
{
	struct pollfd fds[] = { { .fd = r->in_fd, .events = POLLIN },
				{ .fd = r->stop_fd, .events = POLLIN } };
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return -errno;
		if (fds[1].revents != 0)
			return -ECANCELED;
		n = read(r->in_fd, to + done, len - done);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += n;
	}
	return done;
}

/* The next record into buf, as much of it as there is: 1 if another may follow. */
static int read_record(struct receiver *r, struct ring_buf *buf)
{
	struct stream_record_disk record;
	size_t more;
	ssize_t n;

	n = read_in(r, buf->bytes, sizeof(record));
	if (n < (ssize_t)sizeof(record)) {
		buf->len = n < 0 ? 0 : n;
		return n < 0 ? n : 0;
	}
	buf->len = n;
	memcpy(&record, buf->bytes, sizeof(record));
	if (record.payload_len > STREAM_PIECE_LEN)
		return 0;
	more = record.payload_len + (record.kind == STREAM_END);
	n = read_in(r, buf->bytes + buf->len, more);
	if (n < 0)
		return n;
	buf->len += n;
	return (size_t)n == more && record.kind != STREAM_END;
}

static void *read_all_records(void *arg)
{
	struct receiver *r = arg;
	struct ring_buf *buf;

	do {
		buf = ring_fill(&r->ring);
		if (buf == NULL)
			break;
		r->read_rc = read_record(r, buf);
		if (r->read_rc >= 0)
			ring_filled(&r->ring);
	} while (r->read_rc > 0);
	ring_end(&r->ring);
	return NULL;
}

/* --- the head ------------------------------------------------------------------- */

static bool is_text(const char name[STREAM_NAME_LEN])
{
	return memchr(name, '\0', STREAM_NAME_LEN) != NULL;
}

static int check_head(const struct stream_head_disk *head)
{
	struct stream_head_disk copy = *head;
	bool incremental = (head->flags & STREAM_INCREMENTAL) != 0;

	if (memcmp(head->magic, STREAM_MAGIC, sizeof(head->magic)) != 0)
		return err_set(EBADMSG, "no stream of fmfs send");
	if (head->byte_order != STREAM_BYTE_ORDER_MARK)
		return err_set(EBADMSG, "the stream is damaged at byte 8: bad byte order mark");
	if (head->version != STREAM_VERSION)
		return err_set(ENOTSUP, "the stream has version %u; this fmfs knows up to %u",
			       head->version, STREAM_VERSION);
	copy.crc = 0;
	if (crc32c(0, &copy, sizeof(copy)) != head->crc)
		return err_set(EBADMSG, "the stream is damaged at byte 0: bad checksum");
	if ((head->flags & ~STREAM_KNOWN) != 0)
		return err_set(ENOTSUP, "the stream is of a newer fmfs: unknown flags %#x",
			       head->flags);
	if (!is_text(head->name) || !is_text(head->base_name) || head->mode > 0777 ||
	    head->size == 0 || head->size > STREAM_SIZE_MAX ||
	    head->base_size > STREAM_SIZE_MAX || (head->base_size != 0) != incremental)
		return err_set(EBADMSG, "the stream is damaged at byte 0: bad head");
	return 0;
}

static int read_head(struct receiver *r)
{
	ssize_t n = read_in(r, (uint8_t *)&r->head, sizeof(r->head));

	if (n < 0)
		return err_sys(-n, "the stream cannot be read");
	if (n == 0)
		return err_set(EBADMSG, "there is no stream: nothing was sent");
	/* What is too short to have a version may be told from a stream. */
	if (n < (ssize_t)sizeof(r->head) &&
	    memcmp(r->head.magic, STREAM_MAGIC, sizeof(r->head.magic)) == 0)
		return err_set(EBADMSG, "the stream is cut short: it ends at byte %zd", n);
	return check_head(&r->head);
}

int receive_open(int in_fd, struct receiver **out)
{
	struct receiver *r = calloc(1, sizeof(*r));
	int rc;

	if (r == NULL)
		return err_set(ENOMEM, "no memory");
	r->in_fd = in_fd;
	r->stop_fd = eventfd(0, EFD_CLOEXEC);
	rc = r->stop_fd < 0 ? err_sys(errno, "no eventfd") : read_head(r);
	if (rc < 0) {
		receive_close(r);
		return rc;
	}
	*out = r;
	return 0;
}

const struct stream_head_disk *receive_head(const struct receiver *r)
{
	return &r->head;
}

void receive_close(struct receiver *r)
{
	if (r->stop_fd >= 0)
		close(r->stop_fd);
	free(r);
}

/* --- judging a record ------------------------------------------------------------- */

static int damaged(const struct receiver *r, const char *why)
{
	return err_set(EBADMSG, "the stream is damaged at byte %llu: %s",
		       (unsigned long long)r->at, why);
}

static int cut_short(const struct receiver *r, size_t len)
{
	return err_set(EBADMSG, "the stream is cut short: it ends at byte %llu",
		       (unsigned long long)(r->at + len));
}

/* Is it whole, and what was sent? */
static int check_sent(struct receiver *r, struct ring_buf *buf,
		      struct stream_record_disk *record)
{
	struct stream_record_disk plain;
	size_t len;
	uint32_t crc;

	if (buf->len < sizeof(*record))
		return cut_short(r, buf->len);
	memcpy(record, buf->bytes, sizeof(*record));
	if (record->payload_len > STREAM_PIECE_LEN)
		return damaged(r, "a payload that long cannot be");
	len = sizeof(*record) + record->payload_len;
	if (buf->len < len)
		return cut_short(r, buf->len);
	plain = *record;
	plain.crc = 0;
	r->payload_crc = crc32c(0, buf->bytes + sizeof(plain), record->payload_len);
	crc = crc32c_join(crc32c(r->crc, &plain, sizeof(plain)), r->payload_crc,
			  record->payload_len);
	if (crc != record->crc)
		return damaged(r, "bad checksum");
	if (buf->len > len)
		return damaged(r, "something follows its end");
	r->crc = crc;
	return 0;
}

/* Does it say what can be? */
static int check_record(const struct receiver *r, const struct stream_record_disk *record)
{
	uint64_t left = r->head.size - r->off;
	bool ok;

	if (record->off != r->off || record->reserved != 0)
		return damaged(r, "a piece that is not where the one before ended");
	if (record->kind == STREAM_END)
		ok = left == 0 && record->len == 0 &&
		     record->payload_len == sizeof(struct stream_end_disk);
	else if (record->len == 0 || record->len > left)
		ok = false;
	else if (record->kind == STREAM_DATA)
		ok = record->payload_len == record->len;
	else if (record->kind == STREAM_PACKED)
		ok = record->len <= STREAM_PIECE_LEN && record->payload_len < record->len;
	else if (record->kind == STREAM_ZERO)
		ok = record->payload_len == 0;
	else
		ok = record->kind == STREAM_SAME && record->payload_len == 0 &&
		     r->off + record->len <= r->head.base_size;
	return ok ? 0 : damaged(r, "a record that cannot be");
}

/* --- doing what it says ------------------------------------------------------------- */

static int write_failed(int rc)
{
	return err_sys(-rc, "the snapshot cannot be written");
}

static uint64_t least_of(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* All of the base counts for its checksum, also what the snapshot has not got. */
static int read_base(struct receiver *r, uint64_t end)
{
	uint64_t until = least_of(end, r->base.size);
	bool hole;
	int rc = 0;

	while (rc == 0 && r->base.off < until)
		rc = source_next(&r->base, r->base_piece,
				 least_of(until - r->base.off, STREAM_PIECE_LEN), &hole);
	return rc < 0 ? err_in(rc, "%s", r->to->base_name) : 0;
}

static int put_data(struct receiver *r, const struct stream_record_disk *record,
		    const uint8_t *payload)
{
	size_t n;
	int rc;

	if (record->kind == STREAM_PACKED) {
		n = ZSTD_decompressDCtx(r->zstd, r->piece, record->len, payload,
					record->payload_len);
		if (ZSTD_isError(n) || n != record->len)
			return damaged(r, "what is packed cannot be unpacked");
		payload = r->piece;
		r->payload_crc = crc32c(0, payload, record->len);
	}
	rc = write_at(r->to->fd, payload, record->len, record->off);
	if (rc < 0)
		return write_failed(rc);
	r->out_crc = crc32c_join(r->out_crc, r->payload_crc, record->len);
	return read_base(r, record->off + record->len);
}

static int put_zero(struct receiver *r, const struct stream_record_disk *record)
{
	r->out_crc = crc32c_zeros(r->out_crc, record->len);
	return read_base(r, record->off + record->len);
}

/* Let the file have these bytes of the base without copying; false: not all of them. */
static bool share(const struct receiver *r, uint64_t off, uint64_t len)
{
	off_t from = off, to = off;
	ssize_t n = 1;

	while (len > 0 && n > 0) {
		n = copy_file_range(r->to->base_fd, &from, r->to->fd, &to, len, 0);
		len -= n > 0 ? n : 0;
	}
	return len == 0;
}

static int put_same(struct receiver *r, const struct stream_record_disk *record)
{
	uint64_t off = record->off, end = off + record->len;
	bool shared = r->to->share && share(r, off, record->len), hole;
	int rc = 0;
	size_t n;

	for (; rc == 0 && off < end; off += n) {
		n = least_of(end - off, STREAM_PIECE_LEN);
		rc = source_next(&r->base, r->base_piece, n, &hole);
		if (rc < 0)
			return err_in(rc, "%s", r->to->base_name);
		r->out_crc = hole ? crc32c_zeros(r->out_crc, n)
				  : crc32c_join(r->out_crc, r->base.piece_crc, n);
		if (!shared && !hole)
			rc = write_at(r->to->fd, r->base_piece, n, off);
	}
	return rc < 0 ? write_failed(rc) : 0;
}

static int finish(struct receiver *r, const uint8_t *payload)
{
	struct stream_end_disk end;
	struct pool_info info;
	int rc = read_base(r, r->base.size);

	if (rc < 0)
		return rc;
	memcpy(&end, payload, sizeof(end));
	if (end.base_crc != r->base.crc)
		return err_set(ESTALE, "%s is not what the sender has by that name",
			       r->to->base_name);
	if (end.crc != r->out_crc)
		return damaged(r, "what was received is not what was sent");
	rc = inspect_pool(r->to->fd, &info);
	if (rc < 0)
		return err_sys(-rc, "what was received");
	if (info.state != POOL_GOOD)
		return err_set(EBADMSG, "what was received is no pool: %s", info.why);
	if (memcmp(info.uuid, r->head.uuid, sizeof(info.uuid)) != 0)
		return err_set(EBADMSG, "what was received is another pool");
	return 0;
}

/* 1: it was the last. */
static int do_record(struct receiver *r, struct ring_buf *buf)
{
	struct stream_record_disk record;
	const uint8_t *payload = buf->bytes + sizeof(record);
	int rc = check_sent(r, buf, &record);

	if (rc == 0)
		rc = check_record(r, &record);
	if (rc < 0)
		return rc;
	if (record.kind == STREAM_END)
		rc = finish(r, payload);
	else if (record.kind == STREAM_ZERO)
		rc = put_zero(r, &record);
	else if (record.kind == STREAM_SAME)
		rc = put_same(r, &record);
	else
		rc = put_data(r, &record, payload);
	r->off += record.len;
	r->at += sizeof(record) + record.payload_len;
	return rc == 0 ? record.kind == STREAM_END : rc;
}

/* --- all of it ----------------------------------------------------------------------- */

static int do_all(struct receiver *r)
{
	struct ring_buf *buf;
	int rc;

	do {
		buf = ring_drain(&r->ring);
		if (buf == NULL)
			return r->read_rc < 0 ? err_sys(-r->read_rc,
							"the stream cannot be read")
					      : cut_short(r, 0);
		rc = do_record(r, buf);
		ring_drained(&r->ring);
		if (r->to->progress != NULL)
			r->to->progress(r->to->arg, r->off, r->head.size);
	} while (rc == 0);
	return rc < 0 ? rc : 0;
}

/* With the other thread that reads. */
static int run(struct receiver *r)
{
	int rc = -pthread_create(&r->reader, NULL, read_all_records, r);

	if (rc < 0)
		return err_sys(-rc, "no thread");
	rc = do_all(r);
	ring_stop(&r->ring);
	eventfd_write(r->stop_fd, 1);
	pthread_join(r->reader, NULL);
	return rc;
}

/* Is it what the sender had?  All of it is looked at by the way; this is soon said. */
static int check_base(struct receiver *r)
{
	struct pool_info info;
	struct stat st;
	ssize_t n;
	int rc;

	if (r->head.base_size == 0)
		return 0;
	rc = fstat(r->to->base_fd, &st) < 0 ? -errno
					    : inspect_pool(r->to->base_fd, &info);
	n = rc < 0 ? rc : read_at(r->to->base_fd, r->base_piece, STREAM_PIECE_LEN, 0);
	if (n < 0)
		return err_sys(-n, "%s", r->to->base_name);
	if (info.state != POOL_GOOD ||
	    memcmp(info.uuid, r->head.uuid, sizeof(info.uuid)) != 0)
		return err_set(ESTALE, "%s is not of the pool that was sent",
			       r->to->base_name);
	if ((uint64_t)st.st_size != r->head.base_size ||
	    crc32c(0, r->base_piece, n) != r->head.base_begin_crc)
		return err_set(ESTALE, "%s is not what the sender has by that name",
			       r->to->base_name);
	return 0;
}

static int begin(struct receiver *r)
{
	int rc;

	r->piece = malloc(STREAM_PIECE_LEN);
	r->base_piece = malloc(STREAM_PIECE_LEN);
	r->zstd = ZSTD_createDCtx();
	if (r->piece == NULL || r->base_piece == NULL || r->zstd == NULL)
		return err_set(ENOMEM, "no memory");
	r->at = sizeof(r->head);
	r->crc = r->head.crc;
	source_init(&r->base, r->to->base_fd, r->head.base_size);
	rc = check_base(r);
	if (rc == 0 && ftruncate(r->to->fd, r->head.size) < 0)
		rc = write_failed(-errno);
	return rc;
}

int receive_run(struct receiver *r, const struct receive_to *to)
{
	int rc;

	r->to = to;
	rc = begin(r);
	if (rc == 0 && ring_init(&r->ring, BUF_LEN) < 0)
		rc = err_set(ENOMEM, "no memory");
	else if (rc == 0) {
		rc = run(r);
		ring_destroy(&r->ring);
	}
	ZSTD_freeDCtx(r->zstd);
	free(r->base_piece);
	free(r->piece);
	return rc;
}
