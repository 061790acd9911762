/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file in memory that remembers what each change of it destroyed, so that going back
 * costs as much as what is undone, however long the file is.
 */
#ifndef FM_TESTS_IMAGE_H
#define FM_TESTS_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#define IMAGE_LEN_MAX (UINT64_C(256) << 20)

struct image_undo;

struct image {
	char path[32];
	int fd;
	unsigned char *mem; /* the file's bytes, mapped; IMAGE_LEN_MAX of addresses */
	uint64_t len;       /* of the file */
	struct image_undo *undo; /* the changes, oldest first ... */
	size_t n, cap;
	unsigned char *old; /* ... and the bytes that were there, in the same order */
	size_t nold, cap_old;
};

/* Be a copy of the file. */
void image_open(struct image *im, const char *from);
void image_close(struct image *im);

/* Change it; what lies behind the end of the file is not written. */
void image_write(struct image *im, const void *data, uint64_t off, uint64_t len);
void image_zero(struct image *im, uint64_t off, uint64_t len);
void image_set_length(struct image *im, uint64_t len);

/* Somebody else is going to change [off, off + len), or the length of the file. */
void image_save(struct image *im, uint64_t off, uint64_t len);
void image_save_length(struct image *im, uint64_t len);

/* Undo all changes but the first n, which is what im->n was once. */
void image_undo(struct image *im, size_t n);
/* There is no way back from here. */
void image_keep(struct image *im);

#endif
