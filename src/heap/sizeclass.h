/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Size classes of small blocks: pure arithmetic.  The table is part of the
 * on-disk format (struct fm_super_disk holds its checksum).
 *
 * Steps of 16 bytes to 256, then eight classes a doubling to 1 KiB; above, the
 * sizes are 64 KiB / k rounded down to 128, so that slabs are filled to 97 %
 * or better.  All are multiples of 16, those above 1 KiB of 128.
 */
#ifndef FM_HEAP_SIZECLASS_H
#define FM_HEAP_SIZECLASS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "heap/layout.h"

#define SIZECLASS_N 54u
#define SIZECLASS_MAX 16384u	/* bytes, of the largest class */

struct sizeclass {
	uint32_t size;		/* bytes of a block */
	uint32_t nblocks;	/* blocks in a slab */
	uint32_t inverse;	/* of size: see sizeclass_index() */
};

/* Filled when the library is loaded; constant after. */
extern struct sizeclass sizeclass_table[SIZECLASS_N];
/*
 * The same in a word, for the short ways of allocating and freeing: bits 0 to 31
 * the inverse, 32 to 43 the size / 16, 44 to 51 the number of the class + 1.
 */
extern uint64_t sizeclass_geometry[SIZECLASS_N];
extern uint8_t sizeclass_of16[(1024 >> 4) + 1];
extern uint8_t sizeclass_of128[(SIZECLASS_MAX >> 7) + 1];

/* The class of the smallest block that holds `size` <= SIZECLASS_MAX bytes. */
static inline unsigned sizeclass_of(size_t size)
{
	return size <= 1024 ? sizeclass_of16[(size + 15) >> 4] :
			      sizeclass_of128[(size + 127) >> 7];
}

/*
 * off / size for an offset within a slab, without a division: with inverse =
 * ceil(2^32 / size) the product errs by less than off * size / 2^32 < 1/size.
 */
static inline uint32_t sizeclass_index(unsigned cls, uint32_t off)
{
	return (uint64_t)off * sizeclass_table[cls].inverse >> 32;
}

/* Blocks of a slab, in pools whose class 0 has second bitmaps (tiny) or none; and of
 * so many the bits that are in word w of a bitmap. */
static inline uint32_t sizeclass_nblocks(unsigned cls, bool tiny)
{
	return cls == 0 && tiny ? FM_TINY_NBLOCKS : sizeclass_table[cls].nblocks;
}

static inline uint64_t sizeclass_mask(uint32_t nblocks, uint32_t w)
{
	if (w >= nblocks / 64)
		return w > nblocks / 64 ? 0 : (UINT64_C(1) << nblocks % 64) - 1;
	return UINT64_MAX;
}

static inline unsigned sizeclass_geometry_class(uint64_t geometry)
{
	return (geometry >> 44) - 1;
}

static inline uint32_t sizeclass_geometry_size(uint64_t geometry)
{
	return geometry >> 28 & 0xfff0;
}

/* CRC32C of the sizes, as the super holds it. */
uint32_t sizeclass_crc(void);

#endif
