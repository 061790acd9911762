/* SPDX-License-Identifier: Apache-2.0 */
/*
 * heap-fill VERB POOL: use a pool on a disk that gets full, or is.
 *   fill      allocate and write until there is no space, free some, go on
 *   rewrite   write all that the pool has, twice, with a commit between
 *   again     open and close it, nothing else
 *   zeroes    make a pool of 16 MiB of blocks that hold zeroes
 *   refused   opening fails with ENOSPC; to read it works
 *   no-room   making it fails with ENOSPC, and leaves nothing
 *   atomic    make an atomic pool of 8 MiB that is committed
 *   full      of that one: a commit that needs space fails, memory is as it was,
 *             rolling back works, and so do commits that need none
 *   killed    the same, and then end without closing
 *   space     the commit that failed works
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <fmalloc.h>

struct block {
	FM_PTR(struct block) next;
	uint64_t len;
	unsigned char bytes[];
};

static struct fm_info *fi;
static uint64_t nblocks;

static void need(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "heap-fill: %s: %s (errno %d)\n", what, fm_errmsg(), errno);
	exit(1);
}
#define NEED(cond) need((cond), #cond)

static void open_pool(const char *path, int flags)
{
	fi = fmalloc_open(path, flags, NULL);
	NEED(fi != NULL);
}

static struct block *first(void)
{
	return fm_root_get(fi, "first", "block");
}

/* Blocks of the size until there is no space; each is written, all of it. */
static void allocate(size_t size)
{
	struct block *b, *head = first();

	while ((b = fmalloc_in(fi, sizeof(*b) + size)) != NULL) {
		b->len = size;
		memset(b->bytes, 'a', size);
		fm_set(b->next, head);
		head = b;
		nblocks++;
	}
	NEED(errno == ENOSPC);
	NEED(strstr(fm_errmsg(), "No space") != NULL);
	NEED(fm_root_set(fi, "first", head, "block") == 0);
}

static void write_all(int with)
{
	struct block *b;

	for (b = first(); b != NULL; b = fm_get(b->next))
		memset(b->bytes, with, b->len);
}

static void check_all(int with)
{
	struct block *b;
	uint64_t i, n = 0;

	for (b = first(); b != NULL; b = fm_get(b->next), n++)
		for (i = 0; i < b->len; i++)
			need(b->bytes[i] == with, "a block has other bytes");
	NEED(n == nblocks || nblocks == 0);
}

/* Every second block goes. */
static void free_half(void)
{
	struct block *b, *next;

	for (b = first(); b != NULL && (next = fm_get(b->next)) != NULL;
	     b = fm_get(b->next)) {
		fm_set(b->next, fm_get(next->next));
		ffree(next);
		nblocks--;
	}
	NEED(fm_bad_free_count() == 0);
}

static void fill(const char *path)
{
	uint64_t before;

	open_pool(path, FM_CREATE);
	NEED(fm_root_set(fi, "first", NULL, "block") == 0);
	allocate(1 << 20);
	allocate(50000);
	allocate(3000);
	allocate(100);
	write_all('b');
	check_all('b');
	before = nblocks;
	free_half();
	allocate(100);
	NEED(nblocks > before / 2 + 100);
	write_all('c');
	NEED(fmalloc_commit(fi) == 0);
	NEED(fmalloc_close(fi) == 0);
	open_pool(path, 0);
	check_all('c');
	NEED(fmalloc_close(fi) == 0);
}

static void rewrite(const char *path)
{
	open_pool(path, 0);
	write_all('d');
	NEED(fmalloc_commit(fi) == 0);
	write_all('e');
	NEED(fmalloc_commit(fi) == 0);
	check_all('e');
	NEED(fmalloc_close(fi) == 0);
}

static void again(const char *path)
{
	open_pool(path, 0);
	NEED(fmalloc_close(fi) == 0);
}

static void zeroes(const char *path)
{
	int i;

	open_pool(path, FM_CREATE);
	for (i = 0; i < 4096; i++)
		NEED(fmalloc_in(fi, 4096) != NULL);
	NEED(fmalloc_close(fi) == 0);
}

static void refused(const char *path)
{
	NEED(fmalloc_open(path, 0, NULL) == NULL);
	NEED(errno == ENOSPC);
	NEED(strstr(fm_errmsg(), "sparse") != NULL);
	open_pool(path, FM_RDONLY);
}

static void no_room(const char *path)
{
	NEED(fmalloc_open(path, FM_CREATE, NULL) == NULL);
	NEED(errno == ENOSPC);
	NEED(access(path, F_OK) < 0);
}

#define ATOMIC_LEN (8u << 20)

static void make_atomic(const char *path)
{
	open_pool(path, FM_CREATE | FM_ATOMIC);
	NEED(fm_root_alloc(fi, "bytes", ATOMIC_LEN, "") != NULL);
	NEED(fmalloc_close(fi) == 0);
}

static void check_bytes(const unsigned char *bytes, int with, const char *what)
{
	need(bytes[0] == with && memcmp(bytes, bytes + 1, ATOMIC_LEN - 1) == 0, what);
}

static void full(const char *path)
{
	unsigned char *bytes;
	int i, was;

	open_pool(path, FM_ATOMIC);
	bytes = fm_root_get(fi, "bytes", "");
	NEED(bytes != NULL);
	was = bytes[0];
	/* Longer than the log. */
	memset(bytes, was + 1, ATOMIC_LEN);
	for (i = 0; i < 3; i++) {
		NEED(fmalloc_commit(fi) == -1 && errno == ENOSPC);
		NEED(strstr(fm_errmsg(), "No space") != NULL);
		check_bytes(bytes, was + 1, "memory is not as it was");
	}
	NEED(fmalloc_close(fi) == -1 && errno == ENOSPC);
	NEED(fmalloc_rollback(fi) == 0);
	check_bytes(bytes, was, "it is not the last commit");
	/* These fit, again and again. */
	for (i = 1; i <= 300; i++) {
		memset(bytes + i * 20000, was + 1, 10000);
		NEED(fmalloc_commit(fi) == 0);
	}
	for (i = 1; i <= 300; i++) {
		memset(bytes + i * 20000, was, 10000);
		NEED(fmalloc_commit(fi) == 0);
	}
	check_bytes(bytes, was, "it is not what was committed");
}

static void full_and_closed(const char *path)
{
	full(path);
	NEED(fmalloc_close(fi) == 0);
	NEED(fm_check(path) == 0);
}

static void full_and_killed(const char *path)
{
	full(path);
	memset(fm_root_get(fi, "bytes", ""), 'x', 100);
	_exit(0);
}

static void space(const char *path)
{
	unsigned char *bytes;
	int was;

	open_pool(path, 0);
	bytes = fm_root_get(fi, "bytes", "");
	was = bytes[0];
	check_bytes(bytes, was, "it is not what was committed");
	memset(bytes, was + 1, ATOMIC_LEN);
	NEED(fmalloc_commit(fi) == 0);
	NEED(fmalloc_close(fi) == 0);
	NEED(fm_check(path) == 0);
	open_pool(path, FM_RDONLY);
	check_bytes(fm_root_get(fi, "bytes", ""), was + 1, "it was not committed");
}

int main(int argc, char **argv)
{
	static const struct {
		const char *verb;
		void (*fn)(const char *path);
	} verbs[] = {
		{ "fill", fill }, { "rewrite", rewrite }, { "again", again },
		{ "zeroes", zeroes },
		{ "refused", refused }, { "no-room", no_room },
		{ "atomic", make_atomic }, { "full", full_and_closed },
		{ "killed", full_and_killed }, { "space", space },
	};
	unsigned i;

	for (i = 0; argc == 3 && i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (strcmp(argv[1], verbs[i].verb) == 0) {
			verbs[i].fn(argv[2]);
			return 0;
		}
	fprintf(stderr, "usage: heap-fill VERB POOL\n");
	return 2;
}
