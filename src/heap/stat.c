/* SPDX-License-Identifier: Apache-2.0 */
/* The figures of a pool: what checking it counts, without the findings. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "heap/check.h"
#include "heap/error.h"
#include "heap/heap.h"
#include "heap/inspect.h"
#include "heap/memtool.h"

/*
 * Words of a pool in use, each whole: off and len are multiples of 8.
 *
 * No lock is held: what was a slab's head when it was found may be a program's memory
 * by now, or nobody's.  What is read then is judged by the reader, and is no matter of
 * AddressSanitizer and Valgrind.
 */
__attribute__((no_sanitize("address")))
static int read_heap(void *src, uint64_t off, void *buf, size_t len)
{
	const struct fm_heap *h = src;
	const uint64_t *from = (const uint64_t *)(h->base + off);
	uint64_t word;
	size_t i;

	if (off > heap_end(h) || len > heap_end(h) - off)
		return -EUCLEAN;
	memtool_hush(true);
	for (i = 0; i < len / sizeof(word); i++) {
		word = __atomic_load_n(&from[i], __ATOMIC_ACQUIRE);
		memcpy((char *)buf + i * sizeof(word), &word, sizeof(word));
	}
	memtool_hush(false);
	memtool_ours(buf, len);
	return 0;
}

/* The super is sound; its heap_end is that of a moment ago. */
static int run(struct check *c, int fd, struct fm_stats *stats)
{
	struct statx st;
	int rc;

	/* What was given back through a mapping of a file at a mount is no news to
	 * the kernel's copy of the attributes. */
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_SIZE | STATX_BLOCKS,
		  &st) < 0)
		return err_sys(errno, "statx");
	c->file_len = st.stx_size;
	c->tiny = (c->super.compat & FM_COMPAT_TINY) != 0;
	c->heap_end = c->super.heap_end;
	rc = check_begin(c);
	if (rc == 0)
		check_run(c);
	*stats = c->stats;
	stats->file_len = st.stx_size;
	stats->disk_len = st.stx_blocks * 512;
	stats->heap_end = c->heap_end;
	rc = rc == 0 ? c->error : rc;
	check_end(c);
	return rc;
}

int stat_heap(struct fm_heap *h, struct fm_stats *stats)
{
	struct check c = { .read = read_heap, .src = h, .fd = -1 };
	int rc;

	/* The zones of a pool that is being closed or cut are its closer's concern. */
	pthread_mutex_lock(&h->root_lock);
	rc = revive(h);
	if (rc == 0)
		rc = read_heap(h, 0, &c.super, sizeof(c.super));
	if (rc == 0)
		rc = run(&c, map_fd(h), stats);
	if (rc == 0 && h->atomic != NULL)
		atomic_figures(h->atomic, stats);
	pthread_mutex_unlock(&h->root_lock);
	return rc;
}

int stat_file(int fd, struct fm_stats *stats)
{
	struct inspect_view view;
	struct check c = { .read = inspect_read, .src = &view, .fd = -1 };
	int rc;

	rc = inspect_open_view(&view, fd);
	if (rc < 0)
		return rc;
	rc = inspect_read(&view, 0, &c.super, sizeof(c.super));
	if (rc == -EUCLEAN)
		rc = err_set(EINVAL, "it is too short for a pool");
	else if (rc < 0)
		rc = err_sys(-rc, "read");
	else
		rc = super_check(&c.super);
	if (rc == 0)
		rc = run(&c, fd, stats);
	if (rc == 0 && view.atomic != NULL)
		atomic_figures(view.atomic, stats);
	inspect_close_view(&view);
	return rc;
}
