/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random operations on one file, compared with a model in memory after each: reading
 * and writing by descriptors and through mappings, mixed; truncating, holes, ranges of
 * zeroes, reserved space, copies within the file, syncing, opening again.
 *
 *   file-exerciser [-s SEED] [-n OPERATIONS] FILE
 *
 * Says how often it did what.  On a difference: the byte, the operations that led
 * there, and exit status 1.  The same seed is the same operations.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_LEN ((size_t)256 << 10)
#define MAX_IO ((size_t)48 << 10)
#define PAGE ((size_t)4096)
#define NLOGGED 64

static const char *path;
static unsigned short rng[3];
static unsigned long nth, nops = 10000;

/* The model: bytes behind the end are 0, as in a file that is made longer. */
static unsigned char model[MAX_LEN];
static size_t model_len;

/* Two open files and, for as long as it may last, a mapping beyond the file's end. */
static int fds[2];
static unsigned char *map;
static unsigned char buf[MAX_LEN];

static char logged[NLOGGED][96];

static size_t below(size_t n)
{
	return (size_t)nrand48(rng) % n;
}

/* Half of them where pages begin or end, or one byte beside. */
static size_t random_off(size_t n)
{
	size_t off = below(n);

	if (below(2) == 0)
		off = off / PAGE * PAGE + below(3) - 1;
	return off < n ? off : 0;
}

/* At least 1, and off + it is at most `end`. */
static size_t random_len(size_t off, size_t end)
{
	size_t len = below(4) == 0 ? PAGE * (1 + below(8)) : 1 + below(MAX_IO);

	return len < end - off ? len : end - off;
}

static int any_fd(void)
{
	return fds[below(2)];
}

static void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *fmt, ...)
{
	char *line = logged[nth % NLOGGED];
	va_list ap;
	int n;

	n = snprintf(line, sizeof(logged[0]), "%lu (%#zx) ", nth, model_len);
	va_start(ap, fmt);
	vsnprintf(line + n, sizeof(logged[0]) - n, fmt, ap);
	va_end(ap);
}

static void fail(const char *fmt, ...)
	__attribute__((noreturn, format(printf, 1, 2)));
static void fail(const char *fmt, ...)
{
	unsigned long first = nth < NLOGGED ? 0 : nth - NLOGGED + 1;
	va_list ap;

	printf("operations, each after the length that it found:\n");
	for (unsigned long i = first; i <= nth; i++)
		printf("  %s\n", logged[i % NLOGGED]);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	exit(1);
}

static void must(bool done, const char *what)
{
	if (!done)
		fail("%s: %s", what, strerror(errno));
}

/* --- the model ------------------------------------------------------------- */

static void set_len(size_t len)
{
	if (len < model_len)
		memset(model + len, 0, model_len - len);
	model_len = len;
}

static void stored(size_t off, const void *bytes, size_t len)
{
	memcpy(model + off, bytes, len);
	if (off + len > model_len)
		model_len = off + len;
}

/* Only what lies within the file. */
static void zeroed(size_t off, size_t len)
{
	if (off < model_len)
		memset(model + off, 0, len < model_len - off ? len : model_len - off);
}

static void compare(const unsigned char *bytes, const char *how)
{
	size_t i = 0;

	if (memcmp(bytes, model, model_len) == 0)
		return;
	while (bytes[i] == model[i])
		i++;
	fail("%s: byte %#zx is %#x, not %#x", how, i, bytes[i], model[i]);
}

static void check(void)
{
	struct stat st;
	ssize_t n;

	must(fstat(any_fd(), &st) == 0, "fstat");
	if ((size_t)st.st_size != model_len)
		fail("fstat: the length is %#jx, not %#zx", (intmax_t)st.st_size,
		     model_len);
	if (below(2) == 0) {
		compare(map, "mapping");
		return;
	}
	n = pread(any_fd(), buf, MAX_LEN, 0);
	must(n >= 0, "pread");
	if ((size_t)n != model_len)
		fail("pread: %#zx bytes, not %#zx", (size_t)n, model_len);
	compare(buf, "pread");
}

/* --- operations ------------------------------------------------------------ */

static void fill_random(size_t len)
{
	unsigned char first = (unsigned char)(1 + below(255));

	for (size_t i = 0; i < len; i++)
		buf[i] = (unsigned char)(first + i + i / 251);
}

static void do_write(void)
{
	size_t off = random_off(MAX_LEN), len = random_len(off, MAX_LEN);

	note("write %#zx+%#zx", off, len);
	fill_random(len);
	must(pwrite(any_fd(), buf, len, off) == (ssize_t)len, "pwrite");
	stored(off, buf, len);
}

static void do_append(void)
{
	size_t len = model_len < MAX_LEN ? random_len(model_len, MAX_LEN) : 0;
	int fd = open(path, O_WRONLY | O_APPEND);

	note("append %#zx", len);
	must(fd >= 0, "open");
	fill_random(len);
	must(write(fd, buf, len) == (ssize_t)len, "write");
	must(close(fd) == 0, "close");
	stored(model_len, buf, len);
}

static void do_read(void)
{
	size_t off = random_off(MAX_LEN), len = random_len(off, MAX_LEN);
	size_t have = off >= model_len ? 0 : model_len - off;
	ssize_t n;

	note("read %#zx+%#zx", off, len);
	n = pread(any_fd(), buf, len, off);
	if (n != (ssize_t)(len < have ? len : have))
		fail("pread: %zd", n);
	if (n > 0 && memcmp(buf, model + off, n) != 0)
		fail("pread: other bytes");
}

static void do_map_write(void)
{
	size_t off, len;

	if (model_len == 0)
		return;
	off = random_off(model_len);
	len = random_len(off, model_len);
	note("store %#zx+%#zx", off, len);
	fill_random(len);
	memcpy(map + off, buf, len);
	stored(off, buf, len);
}

static void do_msync(void)
{
	note("msync");
	must(model_len == 0 || msync(map, model_len, MS_SYNC) == 0, "msync");
}

static void do_truncate(void)
{
	size_t len = random_off(MAX_LEN);
	bool by_name = below(2) == 0;

	note("%s %#zx", by_name ? "truncate" : "ftruncate", len);
	must((by_name ? truncate(path, len) : ftruncate(any_fd(), len)) == 0,
	     "truncate");
	set_len(len);
}

static void do_fallocate(const char *what, int mode)
{
	size_t off = random_off(MAX_LEN), len = random_len(off, MAX_LEN);

	note("%s %#zx+%#zx", what, off, len);
	must(fallocate(any_fd(), mode, off, len) == 0, what);
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		zeroed(off, len);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && off + len > model_len)
		model_len = off + len;
}

static void do_reserve(void)
{
	do_fallocate("reserve", 0);
}

static void do_reserve_keep(void)
{
	do_fallocate("reserve, keeping the size", FALLOC_FL_KEEP_SIZE);
}

static void do_punch(void)
{
	do_fallocate("punch", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
}

static void do_zero(void)
{
	do_fallocate("zero", FALLOC_FL_ZERO_RANGE);
}

static void do_zero_keep(void)
{
	do_fallocate("zero, keeping the size",
		     FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE);
}

static void do_copy(void)
{
	size_t from, to, len, gap;
	ssize_t n;

	if (model_len == 0)
		return;
	from = random_off(model_len);
	to = random_off(MAX_LEN);
	gap = from < to ? to - from : from - to;
	len = random_len(from, model_len);
	len = len < gap ? len : gap; /* the two may not overlap */
	len = len < MAX_LEN - to ? len : MAX_LEN - to;
	note("copy %#zx+%#zx to %#zx", from, len, to);
	for (size_t done = 0; done < len; done += n) {
		off_t off_in = from + done, off_out = to + done;

		n = copy_file_range(any_fd(), &off_in, any_fd(), &off_out, len - done,
				    0);
		must(n >= 0, "copy_file_range");
		if (n == 0)
			fail("copy_file_range: 0 after %#zx", done);
	}
	if (len > 0)
		stored(to, model + from, len);
}

static void do_sync(void)
{
	bool data = below(2) == 0;

	note(data ? "fdatasync" : "fsync");
	must((data ? fdatasync(any_fd()) : fsync(any_fd())) == 0, "fsync");
}

static void open_file(int i)
{
	fds[i] = open(path, O_RDWR | O_CREAT, 0644);
	must(fds[i] >= 0, "open");
}

static void do_reopen(void)
{
	int i = (int)below(2);

	note("close, open");
	must(close(fds[i]) == 0, "close");
	open_file(i);
}

static void make_map(void)
{
	map = mmap(NULL, MAX_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, any_fd(), 0);
	must(map != MAP_FAILED, "mmap");
}

static void do_remap(void)
{
	note("munmap, mmap");
	must(munmap(map, MAX_LEN) == 0, "munmap");
	make_map();
}

/* All that the kernel has of the file is asked for again. */
static void do_reopen_all(void)
{
	note("munmap, close, open, mmap");
	must(munmap(map, MAX_LEN) == 0, "munmap");
	for (int i = 0; i < 2; i++)
		must(close(fds[i]) == 0, "close");
	for (int i = 0; i < 2; i++)
		open_file(i);
	make_map();
}

static struct {
	const char *name;
	void (*run)(void);
	unsigned weight;
	unsigned long done;
} ops[] = {
	{ "write", do_write, 10, 0 },
	{ "append", do_append, 3, 0 },
	{ "read", do_read, 4, 0 },
	{ "store", do_map_write, 10, 0 },
	{ "msync", do_msync, 1, 0 },
	{ "truncate", do_truncate, 5, 0 },
	{ "reserve", do_reserve, 2, 0 },
	{ "reserve-keep", do_reserve_keep, 2, 0 },
	{ "punch", do_punch, 4, 0 },
	{ "zero", do_zero, 2, 0 },
	{ "zero-keep", do_zero_keep, 2, 0 },
	{ "copy", do_copy, 5, 0 },
	{ "sync", do_sync, 1, 0 },
	{ "reopen", do_reopen, 2, 0 },
	{ "remap", do_remap, 2, 0 },
	{ "reopen-all", do_reopen_all, 1, 0 },
};
#define NOPS (sizeof(ops) / sizeof(ops[0]))

static void one_operation(void)
{
	size_t total = 0, pick, i = 0;

	for (size_t k = 0; k < NOPS; k++)
		total += ops[k].weight;
	for (pick = below(total); pick >= ops[i].weight; i++)
		pick -= ops[i].weight;
	note("%s: nothing to do", ops[i].name);
	ops[i].run();
	ops[i].done++;
	check();
}

int main(int argc, char **argv)
{
	unsigned long seed = 1;
	int opt;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((opt = getopt(argc, argv, "s:n:")) != -1)
		if (opt == 's')
			seed = strtoul(optarg, NULL, 0);
		else if (opt == 'n')
			nops = strtoul(optarg, NULL, 0);
		else
			return 2;
	if (argc - optind != 1)
		return 2;
	path = argv[optind];
	rng[0] = (unsigned short)seed;
	rng[1] = (unsigned short)(seed >> 16);
	rng[2] = 0x330e;
	note("open");
	open_file(0);
	open_file(1);
	must(ftruncate(fds[0], 0) == 0, "ftruncate");
	make_map();
	for (nth = 1; nth <= nops; nth++)
		one_operation();
	printf("seed %lu:", seed);
	for (size_t i = 0; i < NOPS; i++)
		printf(" %s %lu", ops[i].name, ops[i].done);
	printf("\n");
	return 0;
}
