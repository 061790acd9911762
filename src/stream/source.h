/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a file from its beginning to its end, without reading its holes, and its
 * checksum by the way.
 */
#ifndef FM_STREAM_SOURCE_H
#define FM_STREAM_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct source {
	int fd;
	uint64_t size;			/* bytes */
	uint64_t off;			/* where it is */
	uint32_t crc;			/* CRC32C of what lies before */
	uint32_t piece_crc;		/* ... and of what was read last, unless a hole */
	uint64_t data_off, data_end;	/* where data was found last; before off: to
					 * be looked for again */
};

void source_init(struct source *s, int fd, uint64_t size);

/*
 * The next len bytes into buf, and on; zeroes behind the end of the file, which do not
 * count for the checksum.  *hole: they are zeroes, all of them, and buf is as it was.
 * 0; or with words, -EUCLEAN (the file is shorter than it was) or another -errno.
 */
int source_next(struct source *s, void *buf, size_t len, bool *hole);

#endif
