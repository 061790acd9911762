/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a stream: what `fmfs send` writes and `fmfs receive` reads.  Constants
 * and structures only; doc/stream.md says the same in prose.
 *
 *   struct stream_head_disk
 *   records, each with its payload:
 *     STREAM_DATA, STREAM_ZERO, STREAM_SAME   a piece of the snapshot
 *     STREAM_END                              the last
 *
 * Pieces come in the order of their offsets, each begins where the one before ended, and
 * together they are the snapshot.  So nothing can be left out, come twice or overlap.
 * All integers are little-endian.
 */
#ifndef FM_STREAM_FORMAT_H
#define FM_STREAM_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#define STREAM_MAGIC "FMSTREAM"	/* 8 bytes, no terminator */
#define STREAM_BYTE_ORDER_MARK 0x01020304u
#define STREAM_VERSION 1u

#define STREAM_NAME_LEN 256	/* with the terminating NUL */
#define STREAM_SIZE_MAX (UINT64_C(1) << 44)

/* Bits that a reader does not know are refused. */
#define STREAM_INCREMENTAL 0x1u	/* there is a base */
#define STREAM_KNOWN STREAM_INCREMENTAL

struct stream_head_disk {
	uint8_t magic[8];	/* STREAM_MAGIC */
	uint32_t byte_order;	/* STREAM_BYTE_ORDER_MARK */
	uint32_t version;	/* STREAM_VERSION; what follows depends on it */
	uint32_t crc;		/* CRC32C of this structure with crc 0 */
	uint32_t flags;		/* STREAM_INCREMENTAL */
	uint8_t uuid[16];	/* of the pool */
	uint64_t size;		/* of the snapshot, bytes */
	uint64_t mtime_ns;	/* nanoseconds since 1970 UTC */
	uint32_t mode;		/* permissions, 0777 at most */
	uint32_t base_begin_crc; /* CRC32C of the first STREAM_PIECE_LEN bytes of the
				  * base, or all if it has fewer; 0 without one */
	uint64_t base_size;	/* of the base; 0 without one */
	char name[STREAM_NAME_LEN];	 /* POOL@TAG, filled up with NULs */
	char base_name[STREAM_NAME_LEN]; /* the same of the base, or all NULs */
};

enum stream_kind {
	STREAM_DATA = 1,	/* the bytes are the payload */
	STREAM_PACKED = 2,	/* the payload is one frame of zstd, of the bytes */
	STREAM_ZERO = 3,	/* all bytes are zero; no payload */
	STREAM_SAME = 4,	/* as in the base; no payload */
	STREAM_END = 5		/* struct stream_end_disk; off is the size, len 0 */
};

#define STREAM_PIECE_LEN (UINT64_C(1) << 20)	/* of data, at most */

struct stream_record_disk {
	uint32_t kind;		/* enum stream_kind */
	uint32_t crc;		/* CRC32C, begun with the crc before it in the stream,
				 * of this structure with crc 0 and of the payload */
	uint64_t off;		/* of the piece in the snapshot */
	uint64_t len;		/* of it; not 0 */
	uint32_t payload_len;	/* bytes that follow; of STREAM_PACKED less than len */
	uint32_t reserved;	/* 0 */
};

/* What the snapshots are as a whole: the check of all that led there. */
struct stream_end_disk {
	uint32_t crc;		/* CRC32C of the snapshot's bytes */
	uint32_t base_crc;	/* of those of the base; 0 without one */
};

_Static_assert(sizeof(struct stream_head_disk) == 584, "head");
_Static_assert(offsetof(struct stream_head_disk, size) == 40, "size");
_Static_assert(offsetof(struct stream_head_disk, name) == 72, "name");
_Static_assert(sizeof(struct stream_record_disk) == 32, "record");
_Static_assert(sizeof(struct stream_end_disk) == 8, "end");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "structures are as they are");

#endif
