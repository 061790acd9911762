/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams of snapshots: what is received is what was sent, and of what is damaged, or
 * was made to do harm, nothing is.
 */
#include <config.h>

#include <fmalloc.h>
#include <sys/mman.h>
#include <zstd.h>

#include "common/crc32c.h"
#include "heap/error.h"
#include "scratch.h"
#include "stream/stream.h"

#define STREAM_MAX (1u << 20)

struct bytes {
	uint8_t *at;
	size_t len;
};

/* --- checksums ------------------------------------------------------------------ */

static void checksums_are_joined(void **state)
{
	static uint8_t bytes[5000];
	uint64_t seed = 1;
	uint32_t zeros = 7;
	size_t at;

	(void)state;
	for (at = 0; at < 1000; at++)
		bytes[at] = rnd(&seed);
	for (at = 0; at <= 1000; at += 37) {
		assert_int_equal(crc32c_join(crc32c(7, bytes, at),
					     crc32c(0, bytes + at, 1000 - at), 1000 - at),
				 crc32c(7, bytes, 1000));
		assert_int_equal(crc32c_zeros(crc32c(0, bytes, 1000), at * 4),
				 crc32c(0, bytes, 1000 + at * 4));
	}
	memset(bytes, 0, sizeof(bytes));
	for (at = 0; at < 100000; at++)
		zeros = crc32c(zeros, bytes, sizeof(bytes));
	assert_int_equal(crc32c_zeros(7, UINT64_C(500000000)), zeros);
}

/* --- pools, and streams of them ----------------------------------------------------- */

static void make_pools(void *arg)
{
	struct fm_info *fi = fmalloc_open("a", FM_CREATE, NULL);
	uint64_t seed = 5, i;
	uint64_t *block;

	(void)arg;
	child_check(fi != NULL);
	block = fm_root_alloc(fi, "block", 50000, "");
	child_check(block != NULL);
	for (i = 0; i < 1000; i++)
		block[i] = rnd(&seed);
	child_check(fmalloc_close(fi) == 0);
	file_copy("a", "b");
	fi = fmalloc_open("b", 0, NULL);
	child_check(fi != NULL);
	block = fm_root_get(fi, "block", "");
	memset(block + 100, 0, 8 * 500);
	block[5000] = 1;
	child_check(fm_root_alloc(fi, "more", 3000000, "") != NULL);
	child_check(fmalloc_close(fi) == 0);
	_exit(0);
}

static int setup(void **state)
{
	scratch_make(state);
	child_run(make_pools, NULL);
	return 0;
}

static int open_file(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static int memory(void)
{
	int fd = memfd_create("stream", MFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

/* The stream of the file, or of what changed since base, if not NULL. */
static struct bytes sent(const char *path, const char *base, bool compress)
{
	struct stream_send send = {
		.fd = open_file(path),
		.base_fd = base != NULL ? open_file(base) : -1,
		.name = "pool@new",
		.base_name = "pool@old",
		.out_fd = memory(),
		.compress = compress,
		.level = 1,
	};
	struct bytes s = { .at = malloc(STREAM_MAX) };

	assert_int_equal(stream_send(&send), 0);
	s.len = pread(send.out_fd, s.at, STREAM_MAX, 0);
	assert_in_range(s.len, 1, STREAM_MAX - 1);
	close(send.fd);
	close(send.out_fd);
	if (base != NULL)
		close(send.base_fd);
	return s;
}

/* What comes of a stream; in memory, since there are many. */
static int out_fd;
static char out_path[32];

/* What receive_run() says of the bytes. */
static int received(const void *bytes, size_t len, const char *base)
{
	struct receive_to to = {
		.fd = out_fd,
		.base_fd = base != NULL ? open_file(base) : -1,
		.base_name = "pool@old",
	};
	struct receiver *r;
	int in_fd = memory(), rc;

	assert_int_equal(ftruncate(out_fd, 0), 0);
	assert_int_equal(pwrite(in_fd, bytes, len, 0), len);
	rc = receive_open(in_fd, &r);
	if (rc == 0) {
		rc = receive_run(r, &to);
		receive_close(r);
	}
	close(in_fd);
	if (base != NULL)
		close(to.base_fd);
	return rc;
}

static void expect_arrives(const char *path, const char *base, bool compress)
{
	struct bytes s = sent(path, base, compress);

	assert_int_equal(received(s.at, s.len, base), 0);
	assert_int_equal(file_size(out_path), file_size(path));
	assert_true(file_sum(out_path) == file_sum(path));
	free(s.at);
}

static void what_is_sent_arrives(void **state)
{
	(void)state;
	expect_arrives("a", NULL, true);
	expect_arrives("a", NULL, false);
	expect_arrives("b", "a", true);
	expect_arrives("b", "a", false);
	expect_arrives("a", "b", true);
	expect_arrives("a", "a", true);
	/* A length that is no multiple of pages. */
	assert_int_equal(truncate("b", file_size("b") + 1234), 0);
	expect_arrives("b", "a", true);
	file_write("b", file_size("b") - 3, "end", 3);
	expect_arrives("b", "a", true);
	expect_arrives("b", NULL, true);
	expect_arrives("a", "b", true);
}

static void expect_refused(int rc)
{
	assert_true(rc == -EBADMSG || rc == -ENOTSUP);
}

static void each_byte_matters(void **state)
{
	struct bytes s = sent("b", "a", true);
	size_t i;

	(void)state;
	for (i = 0; i < s.len; i++) {
		s.at[i] ^= 1 << i % 8;
		expect_refused(received(s.at, s.len, "a"));
		s.at[i] ^= 1 << i % 8;
	}
	assert_int_equal(received(s.at, s.len, "a"), 0);
	free(s.at);
}

static void each_length_but_one_is_refused(void **state)
{
	struct bytes s = sent("b", "a", true);
	size_t i;

	(void)state;
	for (i = 0; i < s.len; i++)
		expect_refused(received(s.at, i, "a"));
	s.at[s.len] = 0;
	expect_refused(received(s.at, s.len + 1, "a"));
	free(s.at);
}

static void another_base_is_refused(void **state)
{
	struct bytes s = sent("b", "a", true);
	char byte = 1;

	(void)state;
	assert_int_equal(received(s.at, s.len, "b"), -ESTALE);
	/* At its end: only reading all of it tells. */
	file_copy("a", "c");
	file_write("c", file_size("c") - 1, &byte, 1);
	assert_int_equal(received(s.at, s.len, "c"), -ESTALE);
	assert_int_equal(received(s.at, s.len, "a"), 0);
	free(s.at);
}

/* --- made by hand ----------------------------------------------------------------- */

#define SIZE (UINT64_C(2) << 20)

struct maker {
	uint8_t bytes[STREAM_MAX];
	size_t len;
	uint32_t crc;
};

static struct maker m;

/* A head that is right but for what `change` does to it. */
static void make_head(void (*change)(struct stream_head_disk *head))
{
	struct stream_head_disk head;
	struct bytes s = sent("b", "a", true);

	memcpy(&head, s.at, sizeof(head));
	free(s.at);
	head.size = SIZE;
	if (change != NULL)
		change(&head);
	head.crc = 0;
	head.crc = m.crc = crc32c(0, &head, sizeof(head));
	memcpy(m.bytes, &head, sizeof(head));
	m.len = sizeof(head);
}

static void add(uint32_t kind, uint64_t off, uint64_t len, const void *payload,
		uint32_t payload_len)
{
	struct stream_record_disk *r = (void *)(m.bytes + m.len);

	*r = (struct stream_record_disk){
		.kind = kind, .off = off, .len = len, .payload_len = payload_len
	};
	if (payload_len > 0 && payload != NULL)
		memcpy(r + 1, payload, payload_len);
	m.crc = crc32c(m.crc, r, sizeof(*r) + (payload != NULL ? payload_len : 0));
	r->crc = m.crc;
	m.len += sizeof(*r) + (payload != NULL ? payload_len : 0);
}

static void expect_words(const char *words)
{
	expect_refused(received(m.bytes, m.len, "a"));
	if (strstr(err_words(), words) == NULL)
		fail_msg("'%s' is not in: %s", words, err_words());
	assert_in_range(file_size(out_path), 0, SIZE);
}

static void size_is_absurd(struct stream_head_disk *head)
{
	head->size = UINT64_C(1) << 63;
}

static void base_size_is_absurd(struct stream_head_disk *head)
{
	head->base_size = UINT64_MAX;
}

static void there_is_no_size(struct stream_head_disk *head)
{
	head->size = 0;
}

static void name_does_not_end(struct stream_head_disk *head)
{
	memset(head->name, 'x', sizeof(head->name));
}

static void mode_is_setuid(struct stream_head_disk *head)
{
	head->mode = 04755;
}

static void flag_is_unknown(struct stream_head_disk *head)
{
	head->flags |= 0x80000000u;
}

static void base_is_hidden(struct stream_head_disk *head)
{
	head->flags = 0;
}

static void heads_are_judged(void **state)
{
	static void (*const change[])(struct stream_head_disk *) = {
		size_is_absurd, base_size_is_absurd, there_is_no_size, name_does_not_end,
		mode_is_setuid, base_is_hidden,
	};

	(void)state;
	for (size_t i = 0; i < sizeof(change) / sizeof(change[0]); i++) {
		make_head(change[i]);
		expect_words("damaged at byte 0: bad head");
	}
	make_head(flag_is_unknown);
	expect_words("newer");
}

/* One record of the kind, after a head and a piece of 1 MiB of zeroes. */
static void one(uint32_t kind, uint64_t off, uint64_t len, const void *payload,
		uint32_t payload_len, const char *words)
{
	char place[64];

	make_head(NULL);
	add(STREAM_ZERO, 0, SIZE / 2, NULL, 0);
	snprintf(place, sizeof(place), "at byte %zu: %s", m.len, words);
	add(kind, off, len, payload, payload_len);
	expect_words(place);
}

static void records_are_judged(void **state)
{
	static const char page[4096];
	const uint64_t at = SIZE / 2;

	(void)state;
	one(STREAM_ZERO, 0, 4096, NULL, 0, "a piece that is not where");
	one(STREAM_ZERO, at + 4096, 4096, NULL, 0, "a piece that is not where");
	one(STREAM_ZERO, UINT64_MAX, 4096, NULL, 0, "a piece that is not where");
	one(STREAM_ZERO, at, UINT64_C(1) << 63, NULL, 0, "a record that cannot be");
	one(STREAM_ZERO, at, UINT64_MAX - at + 1, NULL, 0, "a record that cannot be");
	one(STREAM_ZERO, at, SIZE / 2 + 1, NULL, 0, "a record that cannot be");
	one(STREAM_ZERO, at, 0, NULL, 0, "a record that cannot be");
	one(STREAM_ZERO, at, 4096, page, 4096, "a record that cannot be");
	one(STREAM_SAME, at, SIZE / 2 + 1, NULL, 0, "a record that cannot be");
	one(STREAM_DATA, at, 8192, page, 4096, "a record that cannot be");
	one(STREAM_DATA, at, 10, page, 4096, "a record that cannot be");
	one(STREAM_DATA, at, 0, NULL, 0, "a record that cannot be");
	one(STREAM_PACKED, at, 4096, page, 4096, "a record that cannot be");
	one(STREAM_PACKED, at, STREAM_PIECE_LEN + 1, page, 100, "a record that cannot be");
	one(STREAM_PACKED, at, 4096, page, 100, "what is packed cannot be unpacked");
	one(STREAM_PACKED, at, 4096, NULL, 0, "what is packed cannot be unpacked");
	one(STREAM_END, at, 0, page, 8, "a record that cannot be");
	one(0, at, 4096, NULL, 0, "a record that cannot be");
	one(77, at, 4096, NULL, 0, "a record that cannot be");
	one(STREAM_DATA, at, 4096, NULL, STREAM_PIECE_LEN + 1, "a payload that long");
	one(STREAM_DATA, at, 4096, NULL, UINT32_MAX, "a payload that long");
}

/* More, or less, than it was said to unpack to. */
static void bombs_do_not_go_off(void **state)
{
	static char zeroes[1 << 20];
	char packed[1000];
	size_t len = ZSTD_compress(packed, sizeof(packed), zeroes, sizeof(zeroes), 1);

	(void)state;
	assert_false(ZSTD_isError(len));
	one(STREAM_PACKED, SIZE / 2, 4096, packed, len, "what is packed cannot be unpacked");
	one(STREAM_PACKED, SIZE / 2, STREAM_PIECE_LEN - 1, packed, len,
	    "what is packed cannot be unpacked");
	len = ZSTD_compress(packed, sizeof(packed), zeroes, 4096, 1);
	one(STREAM_PACKED, SIZE / 2, 8192, packed, len, "what is packed cannot be unpacked");
}

static void what_comes_out_is_judged(void **state)
{
	struct stream_end_disk end = { .crc = crc32c_zeros(0, SIZE) };
	uint8_t *base = malloc(file_size("a"));

	(void)state;
	file_read("a", 0, base, file_size("a"));
	end.base_crc = crc32c(0, base, file_size("a"));
	make_head(NULL);
	add(STREAM_ZERO, 0, SIZE, NULL, 0);
	add(STREAM_END, SIZE, 0, &end, sizeof(end));
	expect_words("what was received is no pool");
	end.crc++;
	make_head(NULL);
	add(STREAM_ZERO, 0, SIZE, NULL, 0);
	add(STREAM_END, SIZE, 0, &end, sizeof(end));
	expect_words("what was received is not what was sent");
	free(base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(checksums_are_joined),
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, scratch_remove)
		CASE(what_is_sent_arrives),
		CASE(each_byte_matters),
		CASE(each_length_but_one_is_refused),
		CASE(another_base_is_refused),
		CASE(heads_are_judged),
		CASE(records_are_judged),
		CASE(bombs_do_not_go_off),
		CASE(what_comes_out_is_judged),
	};

	out_fd = memory();
	snprintf(out_path, sizeof(out_path), "/proc/self/fd/%d", out_fd);
	return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
