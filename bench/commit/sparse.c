/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "commit/sparse.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tools.h"

/* The library's calls come here. */
int fallocate(int fd, int mode, off_t off, off_t len)
{
	struct stat st;

	if (mode != 0)
		return syscall(SYS_fallocate, fd, mode, off, len);
	if (fstat(fd, &st) < 0)
		return -1;
	return st.st_size < off + len ? ftruncate(fd, off + len) : 0;
}

/* How much is free it is not told, or it would refuse to open a pool with such holes. */
int fstatvfs(int fd, struct statvfs *fs)
{
	(void)fd;
	(void)fs;
	errno = ENOSYS;
	return -1;
}

static struct fm_info *open_pool(const char *path, int flags)
{
	struct fm_info *pool = fmalloc_open(path, flags, NULL);

	need(pool != NULL, path, fm_errmsg());
	return pool;
}

static void fill(struct fm_info *pool, unsigned ngib)
{
	struct sparse *contents = fm_root_alloc(pool, "contents", sizeof(*contents), "");
	uint64_t *block;

	need(contents != NULL, "fm_root_alloc", fm_errmsg());
	for (; contents->nblocks < ngib; contents->nblocks++) {
		block = fmalloc_in(pool, SPARSE_BLOCK_LEN);
		need(block != NULL, "fmalloc_in", fm_errmsg());
		fm_set(contents->block[contents->nblocks], block);
	}
	memset(fm_get(contents->block[0]), 1, SPARSE_BLOCK_LEN);
}

struct fm_info *sparse_make(const char *path, unsigned ngib, struct sparse **contents)
{
	struct fm_info *pool;

	need(ngib > 0 && ngib <= SPARSE_NBLOCKS_MAX, path, "a pool of 1 to 64 GiB");
	pool = open_pool(path, FM_CREATE | FM_EXCL | FM_ATOMIC);
	fill(pool, ngib);
	need(fmalloc_close(pool) == 0, "fmalloc_close", fm_errmsg());
	pool = open_pool(path, 0);
	*contents = fm_root_get(pool, "contents", "");
	need(*contents != NULL, "fm_root_get", fm_errmsg());
	return pool;
}

void sparse_commit(struct fm_info *pool, struct sparse *contents)
{
	fm_get(contents->block[0])[rnd() % SPARSE_BLOCK_NPAGES * 512]++;
	need(fmalloc_commit(pool) == 0, "fmalloc_commit", fm_errmsg());
}
