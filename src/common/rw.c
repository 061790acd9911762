/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "common/rw.h"

ssize_t read_at(int fd, void *buf, size_t len, uint64_t off)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = pread(fd, (char *)buf + done, len - done, off + done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += n;
	}
	return done;
}

/* At *off, or without one where the file is. */
static int write_all(int fd, const char *buf, size_t len, const uint64_t *off)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = off != NULL ? pwrite(fd, buf + done, len - done, *off + done)
				: write(fd, buf + done, len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENOSPC;
		done += n;
	}
	return 0;
}

int write_at(int fd, const void *buf, size_t len, uint64_t off)
{
	return write_all(fd, buf, len, &off);
}

int write_next(int fd, const void *buf, size_t len)
{
	return write_all(fd, buf, len, NULL);
}

int flush_at(int fd, uint64_t off, uint64_t len)
{
	return sync_file_range(fd, off, len,
			       SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
				       SYNC_FILE_RANGE_WAIT_AFTER) < 0
		       ? -errno
		       : 0;
}
