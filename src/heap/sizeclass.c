/* SPDX-License-Identifier: Apache-2.0 */
/* The table of size classes, and its inverses. */
#include <config.h>

#include "common/crc32c.h"
#include "heap/sizeclass.h"

static const uint32_t sizes[SIZECLASS_N] = {
	16, 32, 48, 64, 80, 96, 112, 128,
	144, 160, 176, 192, 208, 224, 240, 256,
	288, 320, 352, 384, 416, 448, 480, 512,
	576, 640, 704, 768, 832, 896, 960, 1024,
	1152, 1280, 1408, 1536, 1792, 2048, 2304, 2560, 2816, 3072,
	3584, 4096, 4608, 5376, 5888, 6528, 7168, 8192, 9344, 10880,
	13056, 16384,
};

struct sizeclass sizeclass_table[SIZECLASS_N];
uint64_t sizeclass_geometry[SIZECLASS_N];
uint8_t sizeclass_of16[(1024 >> 4) + 1];
uint8_t sizeclass_of128[(SIZECLASS_MAX >> 7) + 1];

__attribute__((constructor)) static void fill_tables(void)
{
	unsigned i, cls;

	for (cls = 0; cls < SIZECLASS_N; cls++) {
		sizeclass_table[cls].size = sizes[cls];
		sizeclass_table[cls].nblocks = FM_SLAB_LEN / sizes[cls];
		sizeclass_table[cls].inverse =
			((1ull << 32) + sizes[cls] - 1) / sizes[cls];
		sizeclass_geometry[cls] = sizeclass_table[cls].inverse |
					  (uint64_t)sizes[cls] >> 4 << 32 |
					  (uint64_t)(cls + 1) << 44;
	}
	for (i = 0, cls = 0; i < sizeof(sizeclass_of16); i++) {
		cls += i << 4 > sizes[cls];
		sizeclass_of16[i] = cls;
	}
	for (i = 0, cls = 0; i < sizeof(sizeclass_of128); i++) {
		while (i << 7 > sizes[cls])
			cls++;
		sizeclass_of128[i] = cls;
	}
}

uint32_t sizeclass_crc(void)
{
	unsigned char le[sizeof(sizes)];
	unsigned cls;

	for (cls = 0; cls < SIZECLASS_N; cls++) {
		le[cls * 4] = sizes[cls];
		le[cls * 4 + 1] = sizes[cls] >> 8;
		le[cls * 4 + 2] = sizes[cls] >> 16;
		le[cls * 4 + 3] = sizes[cls] >> 24;
	}
	return crc32c(0, le, sizeof(le));
}
