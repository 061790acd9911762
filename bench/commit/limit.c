/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the disk can do: 16 bytes for each update (words), or each page that was changed
 * (pages), in one write to space that has been written before, and one fdatasync.
 * Nothing of it could be read back.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commit/peer.h"
#include "tools.h"

#define FILE_LEN (UINT64_C(16) << 20) /* written round and round */
#define PAGE_LEN 4096u
#define WORD_LEN 16u /* an address and a value */

static int fd;
static uint64_t at_off, nchanged;
static unsigned char *buf;
static bool page_changed[NCOUNTERS * 8 / PAGE_LEN];

static void need_errno(bool ok, const char *what)
{
	need(ok, what, strerror(errno));
}

static void open_file(const char *path)
{
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	need_errno(fd >= 0, path);
	buf = calloc(1, FILE_LEN);
	need_errno(buf != NULL, "memory");
}

static void close_file(void)
{
	close(fd);
	free(buf);
}

static void write_all(uint64_t len, uint64_t off)
{
	need_errno(pwrite(fd, buf, len, off) == (ssize_t)len, "pwrite");
	need_errno(fdatasync(fd) == 0, "fdatasync");
}

static void make_counters(void)
{
	write_all(FILE_LEN, 0);
}

static void append(uint64_t len)
{
	if (at_off + len > FILE_LEN)
		at_off = 0;
	write_all(len, at_off);
	at_off += len;
	nchanged = 0;
}

static void update_word(uint64_t at)
{
	memcpy(buf + nchanged++ * WORD_LEN, &at, sizeof(at));
}

static void commit_words(void)
{
	append(nchanged * WORD_LEN);
}

static void update_page(uint64_t at)
{
	nchanged += !page_changed[at * 8 / PAGE_LEN];
	page_changed[at * 8 / PAGE_LEN] = true;
}

static void commit_pages(void)
{
	append(nchanged * PAGE_LEN);
	memset(page_changed, 0, sizeof(page_changed));
}

const struct peer peers[] = {
	{ .name = "words",
	  .open = open_file,
	  .close = close_file,
	  .make_counters = make_counters,
	  .update = update_word,
	  .commit = commit_words },
	{ .name = "pages",
	  .open = open_file,
	  .close = close_file,
	  .make_counters = make_counters,
	  .update = update_page,
	  .commit = commit_pages },
	{ .name = NULL },
};

const char *peers_version(void)
{
	return "words and pages by pwrite and fdatasync";
}
