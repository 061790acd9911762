/* SPDX-License-Identifier: Apache-2.0 */
/* Copying files of the store. */
#include <config.h>

#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuse/copy.h"
#include "fuse/fmfs.h"

/* How much is copied between two looks at whether the caller still wants it. */
#define COPY_LEN (32l << 20)

static ssize_t copy_by_hand(int from, int to, off_t off, size_t len)
{
	size_t size = len < 1 << 20 ? len : 1 << 20;
	char *buf = malloc(size);
	ssize_t n;

	if (buf == NULL)
		return -ENOMEM;
	n = pread(from, buf, size, off);
	if (n > 0)
		n = pwrite(to, buf, n, off);
	if (n < 0)
		n = -errno;
	free(buf);
	return n;
}

static ssize_t copy_some(int from, int to, off_t off, size_t len)
{
	off_t off_from = off, off_to = off;
	ssize_t n;

	n = copy_file_range(from, &off_from, to, &off_to, len, 0);
	if (n >= 0)
		return n;
	if (errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS)
		return -errno;
	return copy_by_hand(from, to, off, len);
}

bool copy_unwanted(fuse_req_t req)
{
	return fuse_req_interrupted(req) || fuse_session_exited(fmfs_of(req)->session);
}

static int copy_extent(fuse_req_t req, int from, int to, off_t off, off_t end)
{
	ssize_t n;

	while (off < end) {
		if (copy_unwanted(req))
			return -EINTR;
		n = copy_some(from, to, off,
			      end - off < COPY_LEN ? end - off : COPY_LEN);
		if (n < 0)
			return n;
		if (n == 0)
			break; /* cut short meanwhile */
		off += n;
	}
	return 0;
}

int copy_data(fuse_req_t req, int from, int to, off_t len)
{
	off_t off = 0, end;
	int rc = 0;

	if (ftruncate(to, len) < 0)
		return -errno;
	while (rc == 0 && off < len) {
		off = lseek(from, off, SEEK_DATA);
		if (off < 0)
			return errno == ENXIO ? 0 : -errno;
		end = lseek(from, off, SEEK_HOLE);
		if (end < 0)
			return -errno;
		rc = copy_extent(req, from, to, off, end < len ? end : len);
		off = end;
	}
	return rc;
}

int copy_file(fuse_req_t req, int from, int to)
{
	struct stat st;

	if (fmfs_of(req)->store.reflink && ioctl(to, FICLONE, from) == 0)
		return 0;
	return fstat(from, &st) < 0 ? -errno : copy_data(req, from, to, st.st_size);
}
