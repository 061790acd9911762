/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C by a table of 256 entries: it sums up superblocks, not bulk data. */
#include <config.h>

#include "common/crc32c.h"

#define POLY 0x82f63b78u	/* the reversed polynomial */

static uint32_t table[256];

__attribute__((constructor)) static void fill_table(void)
{
	uint32_t i, crc;
	int bit;

	for (i = 0; i < 256; i++) {
		crc = i;
		for (bit = 0; bit < 8; bit++)
			crc = crc & 1 ? crc >> 1 ^ POLY : crc >> 1;
		table[i] = crc;
	}
}

uint32_t crc32c(uint32_t crc, const void *buf, size_t len)
{
	const unsigned char *p = buf;

	crc = ~crc;
	while (len-- > 0)
		crc = crc >> 8 ^ table[(crc ^ *p++) & 255];
	return ~crc;
}
