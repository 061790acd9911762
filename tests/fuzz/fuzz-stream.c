/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams that were damaged, or made to do harm.  An input is one of
 *
 * - a list of records, well made or not, whose checksums are right, behind a head of
 *   which some bytes are changed;
 * - a snapshot and its base that are damaged, to be sent, and received.
 *
 * What is received is what the records say, or was sent; all else is refused with
 * words, and no descriptor or memory is lost.
 */
#include <config.h>

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <fmalloc.h>

#include "common/crc32c.h"
#include "fuzz/fuzz.h"
#include "heap/error.h"
#include "heap/layout.h"
#include "stream/stream.h"

#define FILE_LEN (2 * MIB)	/* room for a snapshot */
#define STREAM_LEN (8 * MIB)
#define NRECORDS_MAX 64u

enum { SNAPSHOT, BASE, RECEIVED };	/* the files */

struct contents {
	uint8_t bytes[FILE_LEN];
	size_t len;
};

static struct contents pools[2];	/* as they were made: SNAPSHOT, BASE */
static struct contents now[2];		/* of this input */

/* --- files ------------------------------------------------------------------ */

static void read_file(unsigned i, struct contents *c)
{
	struct stat st;

	fuzz_check(fstat(disk_fd(i), &st) == 0 && st.st_size <= (off_t)FILE_LEN);
	c->len = st.st_size;
	fuzz_check(pread(disk_fd(i), c->bytes, c->len, 0) == st.st_size);
}

static bool is_zero(const uint8_t *bytes, size_t len)
{
	return len == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0);
}

/* With holes where a page is zero. */
static void write_file(unsigned i, const struct contents *c)
{
	size_t off, n;

	disk_clear(i);
	fuzz_check(ftruncate(disk_fd(i), c->len) == 0);
	for (off = 0; off < c->len; off += n) {
		n = c->len - off < FM_PAGE_LEN ? c->len - off : FM_PAGE_LEN;
		if (!is_zero(c->bytes + off, n))
			fuzz_check(pwrite(disk_fd(i), c->bytes + off, n, off) ==
				   (ssize_t)n);
	}
}

static void change_pool(unsigned i, const char *root, size_t size)
{
	struct fm_info *fi = fmalloc_open(disk_path(i), FM_CREATE, NULL);
	uint64_t *words, k;

	fuzz_check(fi != NULL);
	words = fm_root_alloc(fi, root, size, "t");
	fuzz_check(words != NULL);
	for (k = 0; k < size / 16; k++)
		words[k] = (k + 1) * 0x9e3779b97f4a7c15ull;
	fuzz_check(fmalloc_close(fi) == 0);
}

static void make_pools(void)
{
	disk_clear(BASE);
	disk_watch(BASE);
	change_pool(BASE, "a", 20000);
	disk_copy(BASE, SNAPSHOT);
	change_pool(SNAPSHOT, "b", 200000);
	read_file(SNAPSHOT, &pools[SNAPSHOT]);
	read_file(BASE, &pools[BASE]);
	fuzz_check(pools[SNAPSHOT].len < FILE_LEN - 8);
}

static void poke(struct input *in, struct contents *c)
{
	size_t off = take16(in) * 8;
	uint64_t value = take64(in);

	memcpy(c->bytes + off % c->len, &value, sizeof(value));
}

/* The pool with a few words changed, and its length perhaps. */
static void damage(struct input *in, const struct contents *pool, struct contents *c)
{
	unsigned n = take8(in);
	size_t len = c->len = pool->len;

	memcpy(c->bytes, pool->bytes, len);
	if (n & 128 && take16(in) % 4 != 0)
		c->len = 1 + (take16(in) * 32 + take8(in)) % (FILE_LEN - 8);
	if (len < c->len)
		memset(c->bytes + len, 0, c->len - len);
	for (n %= 4; n > 0; n--)
		poke(in, c);
}

static int next_fd(void)
{
	int fd = dup(disk_fd(0));

	fuzz_check(fd >= 0);
	close(fd);
	return fd;
}

/* --- receiving -------------------------------------------------------------- */

static uint8_t stream[STREAM_LEN];
static size_t stream_len;

static int stream_file(void)
{
	int fd = memfd_create("stream", MFD_CLOEXEC);

	fuzz_check(fd >= 0);
	return fd;
}

/* What receive_run() says of the stream. */
static int receive(bool share)
{
	const struct receive_to to = {
		.fd = disk_fd(RECEIVED),
		.base_fd = disk_fd(BASE),
		.base_name = "pool@base",
		.share = share,
	};
	int in_fd = stream_file(), rc;
	struct receiver *r;

	disk_clear(RECEIVED);
	fuzz_check(pwrite(in_fd, stream, stream_len, 0) == (ssize_t)stream_len);
	rc = receive_open(in_fd, &r);
	if (rc == 0) {
		rc = receive_run(r, &to);
		receive_close(r);
	}
	close(in_fd);
	fuzz_check(rc == 0 || rc == -EBADMSG || rc == -ENOTSUP || rc == -ESTALE);
	fuzz_check(rc == 0 || *err_words() != '\0');
	return rc;
}

/* --- making one ------------------------------------------------------------- */

static struct contents said;	/* what the records say, as far as said_len */
static size_t said_len;
static uint32_t crc;		/* of the record before */
static bool proper;		/* nothing that must be refused was said */
static bool ended;

static void put_head(struct input *in, bool incremental)
{
	struct stream_head_disk head = {
		.byte_order = STREAM_BYTE_ORDER_MARK,
		.version = STREAM_VERSION,
		.size = now[SNAPSHOT].len,
		.mode = 0644,
		.name = "pool@new",
	};
	size_t begin = now[BASE].len < STREAM_PIECE_LEN ? now[BASE].len : STREAM_PIECE_LEN;
	unsigned n = take8(in);
	uint64_t value;

	memcpy(head.magic, STREAM_MAGIC, sizeof(head.magic));
	memcpy(head.uuid, pools[BASE].bytes + offsetof(struct fm_super_disk, uuid), 16);
	if (incremental) {
		head.flags = STREAM_INCREMENTAL;
		head.base_size = now[BASE].len;
		head.base_begin_crc = crc32c(0, now[BASE].bytes, begin);
		strcpy(head.base_name, "pool@old");
	}
	for (n = n < 192 ? 0 : n % 3 + 1; n > 0; n--) {
		proper = false;
		value = take64(in);
		memcpy((char *)&head + take16(in) % (sizeof(head) - 7), &value, 8);
	}
	head.crc = 0;
	head.crc = crc = crc32c(0, &head, sizeof(head));
	memcpy(stream, &head, sizeof(head));
	stream_len = sizeof(head);
}

static void put_bytes(const void *bytes, size_t len)
{
	if (len > STREAM_LEN - stream_len)
		len = STREAM_LEN - stream_len;
	memcpy(stream + stream_len, bytes, len);
	stream_len += len;
}

static void put_record(struct stream_record_disk *record, const void *payload, size_t len)
{
	record->crc = 0;
	record->crc = crc = crc32c(crc32c(crc, record, sizeof(*record)), payload, len);
	put_bytes(record, sizeof(*record));
	put_bytes(payload, len);
	proper = proper && !ended;
}

/* The piece that comes next is this, as DATA or PACKED. */
static void put_data(const uint8_t *bytes, size_t len, bool pack)
{
	static uint8_t packed[STREAM_PIECE_LEN + (64 << 10)];
	struct stream_record_disk record = {
		.kind = STREAM_DATA, .off = said_len, .len = len, .payload_len = len
	};
	size_t n = pack ? ZSTD_compress(packed, sizeof(packed), bytes, len, 1) : len;

	fuzz_check(!ZSTD_isError(n));
	memmove(said.bytes + said_len, bytes, len);
	said_len += len;
	if (n < len) {
		record.kind = STREAM_PACKED;
		record.payload_len = n;
		bytes = packed;
	}
	put_record(&record, bytes, record.payload_len);
}

static void put_zero(size_t len)
{
	struct stream_record_disk record = {
		.kind = STREAM_ZERO, .off = said_len, .len = len
	};

	memset(said.bytes + said_len, 0, len);
	said_len += len;
	put_record(&record, "", 0);
}

static void put_same(size_t len, bool incremental)
{
	struct stream_record_disk record = {
		.kind = STREAM_SAME, .off = said_len, .len = len
	};

	proper = proper && incremental && said_len + len <= now[BASE].len;
	memset(said.bytes + said_len, 0, len);
	if (said_len < now[BASE].len)
		memcpy(said.bytes + said_len, now[BASE].bytes + said_len,
		       said_len + len < now[BASE].len ? len : now[BASE].len - said_len);
	said_len += len;
	put_record(&record, "", 0);
}

static void put_end(bool incremental, uint32_t wrong, uint32_t base_wrong)
{
	const struct stream_end_disk end = {
		.crc = crc32c(wrong, said.bytes, said_len),
		.base_crc = incremental ? crc32c(base_wrong, now[BASE].bytes, now[BASE].len)
					: base_wrong,
	};
	struct stream_record_disk record = {
		.kind = STREAM_END, .off = said_len, .payload_len = sizeof(end)
	};

	proper = proper && said_len == now[SNAPSHOT].len && wrong == 0 && base_wrong == 0;
	put_record(&record, &end, sizeof(end));
	ended = true;
}

/* Any record, with as much payload as it says or not. */
static void put_any(struct input *in)
{
	struct stream_record_disk record = {
		.kind = take8(in) % 8,
		.off = said_len + (take8(in) == 0 ? take64(in) : 0),
		.len = take64(in) >> take8(in) % 64,
		.payload_len = take64(in) >> take8(in) % 64,
		.reserved = take8(in) == 0 ? take16(in) : 0,
	};
	uint8_t how = take8(in);
	size_t len = how % 64 < in->left ? how % 64 : in->left;

	if (how < 192)
		record.payload_len = len;
	put_record(&record, in->at, len);
	in->at += len;
	in->left -= len;
	proper = false;
}

static size_t take_len(struct input *in)
{
	size_t len = (take8(in) % 2 == 0 ? 1 : 4096) * ((size_t)take16(in) + 1);
	size_t left = now[SNAPSHOT].len - said_len;

	len = len < STREAM_PIECE_LEN ? len : STREAM_PIECE_LEN;
	return len < left ? len : left;
}

static void put_step(struct input *in, bool incremental)
{
	unsigned what = take8(in) % 10;
	size_t len = take_len(in);
	uint8_t bytes[16];

	if (len == 0 && what < 6)
		what = 6;
	if (what < 2)
		put_data(now[SNAPSHOT].bytes + said_len, len, what == 0);
	else if (what == 2)
		put_data(now[BASE].bytes + said_len, len, take8(in) % 2 == 0);
	else if (what == 3)
		put_zero(len);
	else if (what < 6)
		put_same(len, incremental);
	else if (what == 6)
		put_end(incremental, 0, 0);
	else if (what == 7)
		put_end(incremental, take16(in), take16(in));
	else if (what == 8)
		put_any(in);
	else {
		memset(bytes, take8(in), sizeof(bytes));
		put_bytes(bytes, take8(in) % sizeof(bytes));
		proper = false;
	}
}

/* What is left of the snapshot, and the end. */
static void put_rest(bool incremental)
{
	size_t len;

	while ((len = now[SNAPSHOT].len - said_len) > 0)
		put_data(now[SNAPSHOT].bytes + said_len,
			 len < STREAM_PIECE_LEN ? len : STREAM_PIECE_LEN, true);
	put_end(incremental, 0, 0);
}

/* Cut it, or change a byte of it. */
static void spoil(struct input *in)
{
	size_t at = take64(in) % stream_len;
	uint8_t how = take8(in);

	if (how % 4 == 0)
		stream_len = at;
	else
		stream[at] ^= 1 << how % 8;
}

/* It begins as that pool does, and is as long or longer. */
static bool is_pool(const struct contents *c, size_t len, unsigned i)
{
	return len >= pools[i].len && memcmp(c->bytes, pools[i].bytes, FM_PAGE_LEN) == 0;
}

/* The file is what the records said. */
static void check_said(void)
{
	static struct contents c;

	read_file(RECEIVED, &c);
	fuzz_check(c.len == said_len && memcmp(c.bytes, said.bytes, said_len) == 0);
}

static void receive_made(struct input *in, unsigned how)
{
	bool incremental = how & 2, spoilt = how & 4;
	unsigned n;
	int rc;

	proper = true;
	ended = false;
	said_len = 0;
	put_head(in, incremental);
	for (n = 0; n < NRECORDS_MAX && in->left > 8; n++)
		put_step(in, incremental);
	if (!ended)
		put_rest(incremental);
	if (spoilt)
		spoil(in);
	rc = receive(how & 8);
	if (!proper)	/* and what follows the end may have been cut off again */
		return;
	fuzz_check(!spoilt || rc != 0);
	if (rc == 0)
		check_said();
	else if (!spoilt)
		fuzz_check(!is_pool(&said, said_len, SNAPSHOT) ||
			   !is_pool(&now[BASE], now[BASE].len, BASE));
}

/* --- sending ---------------------------------------------------------------- */

static void check_received(void)
{
	static struct contents c;

	read_file(RECEIVED, &c);
	fuzz_check(c.len == now[SNAPSHOT].len);
	fuzz_check(memcmp(c.bytes, now[SNAPSHOT].bytes, c.len) == 0);
}

static void send_and_receive(unsigned how)
{
	struct stream_send send = {
		.fd = disk_fd(SNAPSHOT),
		.base_fd = how & 2 ? disk_fd(BASE) : -1,
		.name = "pool@new",
		.base_name = "pool@old",
		.out_fd = stream_file(),
		.compress = how & 4,
		.level = 1,
	};
	int rc = stream_send(&send);
	ssize_t n = pread(send.out_fd, stream, sizeof(stream), 0);

	close(send.out_fd);
	fuzz_check(n >= 0 && n < (ssize_t)STREAM_LEN);
	stream_len = n;
	fuzz_check(rc <= 0 && (rc == 0 || *err_words() != '\0'));
	if (rc == 0) {
		fuzz_check(receive(how & 8) == 0);
		check_received();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = { data, len };
	unsigned how = take8(&in), i;
	int fd;

	if (pools[0].len == 0)
		make_pools();
	fd = next_fd();
	for (i = 0; i < 2; i++) {
		damage(&in, &pools[i], &now[i]);
		write_file(i, &now[i]);
	}
	if (how & 1)
		send_and_receive(how);
	else
		receive_made(&in, how);
	fuzz_check(next_fd() == fd);
	return 0;
}
