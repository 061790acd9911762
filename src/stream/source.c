/* SPDX-License-Identifier: Apache-2.0 */
/* A file from beginning to end. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/crc32c.h"
#include "common/rw.h"
#include "heap/error.h"
#include "stream/source.h"

void source_init(struct source *s, int fd, uint64_t size)
{
	*s = (struct source){ .fd = fd, .size = size };
}

/* Where the next data is, from s->off on.  A file system that cannot tell has no holes. */
static void find_data(struct source *s)
{
	off_t off = lseek(s->fd, s->off, SEEK_DATA), end;

	if (off < 0) {
		s->data_off = errno == ENXIO ? s->size : s->off;
		s->data_end = s->size;
		return;
	}
	end = lseek(s->fd, off, SEEK_HOLE);
	s->data_off = off;
	s->data_end = end > off ? (uint64_t)end : s->size;
}

static int read_next(struct source *s, void *buf, size_t len)
{
	ssize_t n = read_at(s->fd, buf, len, s->off);

	if (n < 0)
		return err_sys(-n, "cannot read at offset %#llx",
			       (unsigned long long)s->off);
	if ((size_t)n < len)
		return err_set(EUCLEAN, "is shorter than it was: it ends at %#llx",
			       (unsigned long long)(s->off + n));
	s->piece_crc = crc32c(0, buf, len);
	s->crc = crc32c_join(s->crc, s->piece_crc, len);
	return 0;
}

int source_next(struct source *s, void *buf, size_t len, bool *hole)
{
	uint64_t left = s->size - s->off;
	size_t within = len < left ? len : left;
	int rc = 0;

	if (s->off >= s->data_end && within > 0)
		find_data(s);
	*hole = within == 0 || s->data_off >= s->off + within;
	if (*hole) {
		s->crc = crc32c_zeros(s->crc, within);
	} else {
		rc = read_next(s, buf, within);
		memset((char *)buf + within, 0, len - within);
	}
	s->off += within;
	return rc;
}
