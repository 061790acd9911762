/* SPDX-License-Identifier: Apache-2.0 */
/* The table of what files have allocated. */
#include <config.h>

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/align.h"
#include "fuse/usage.h"

#define SIZE_AT_FIRST 1024

void usage_free(struct usage *u)
{
	free(u->file);
	*u = (struct usage){ .file = NULL };
}

uint64_t usage_of(const struct stat *st)
{
	uint64_t blocks = st->st_blocks * UINT64_C(512);
	uint64_t end = align_up(st->st_size, USAGE_BLOCK_LEN);

	return blocks < end ? blocks : end;
}

/* Its slot, or the free one that it would get. */
static struct usage_file *slot_of(struct usage_file *file, size_t size, ino_t ino)
{
	size_t i = ino * 0x9e3779b97f4a7c15ull >> 32;

	while (file[i & (size - 1)].ino != 0 && file[i & (size - 1)].ino != ino)
		i++;
	return &file[i & (size - 1)];
}

struct usage_file *usage_find(const struct usage *u, ino_t ino)
{
	struct usage_file *file = u->size == 0 ? NULL : slot_of(u->file, u->size, ino);

	return file == NULL || file->ino == 0 ? NULL : file;
}

static bool is_gone(const struct usage_file *file)
{
	return file->ino == 0 || (file->len == 0 && file->open == NULL);
}

/* A table for those that are there, at most half full. */
static int make_room(struct usage *u)
{
	size_t size = SIZE_AT_FIRST, n = 0, i;
	struct usage_file *file;

	for (i = 0; i < u->size; i++)
		n += !is_gone(&u->file[i]);
	while (size < 4 * n)
		size *= 2;
	file = calloc(size, sizeof(*file));
	if (file == NULL)
		return -ENOMEM;
	for (i = 0; i < u->size; i++)
		if (!is_gone(&u->file[i]))
			*slot_of(file, size, u->file[i].ino) = u->file[i];
	free(u->file);
	u->file = file;
	u->size = size;
	u->n = n;
	return 0;
}

int usage_set(struct usage *u, ino_t ino, uint64_t len)
{
	struct usage_file *file = usage_find(u, ino);
	int rc;

	if (file == NULL) {
		rc = u->n >= u->size / 2 ? make_room(u) : 0;
		if (rc < 0)
			return rc;
		file = slot_of(u->file, u->size, ino);
		file->ino = ino;
		u->n++;
	}
	u->total += len - file->len;
	file->len = len;
	file->scan = u->scan;
	return 0;
}

void usage_begin_scan(struct usage *u)
{
	u->scan++;
}

void usage_end_scan(struct usage *u)
{
	struct usage_file *file;

	for (file = u->file; file < u->file + u->size; file++)
		if (file->ino != 0 && file->scan != u->scan && file->open == NULL) {
			u->total -= file->len;
			file->len = 0;
		}
}
