/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRC-32C by the processor's instruction where there is one (x86-64 with SSE 4.2), else
 * by a table of 256 entries.
 */
#include <config.h>

#include <stdbool.h>
#include <string.h>

#include "common/crc32c.h"

#define POLY 0x82f63b78u /* the reversed polynomial */

static uint32_t table[256];
static bool have_instruction;

uint32_t crc32c_by_table(uint32_t crc, const void *buf, size_t len)
{
	const unsigned char *p = buf;

	crc = ~crc;
	while (len-- > 0)
		crc = crc >> 8 ^ table[(crc ^ *p++) & 255];
	return ~crc;
}

/* The product of two polynomials modulo POLY; bit 31 is the coefficient of x^0. */
static uint32_t multiply(uint32_t a, uint32_t b)
{
	uint32_t product = 0;

	for (; a != 0; a <<= 1) {
		if (a & UINT32_C(1) << 31)
			product ^= b;
		b = b & 1 ? b >> 1 ^ POLY : b >> 1;
	}
	return product;
}

/* A byte of zero multiplies what was before it by x^8. */
static uint32_t shift(uint32_t crc, uint64_t len)
{
	uint32_t power = UINT32_C(1) << (31 - 8);

	for (; len != 0; len >>= 1) {
		if (len & 1)
			crc = multiply(crc, power);
		power = multiply(power, power);
	}
	return crc;
}

uint32_t crc32c_join(uint32_t crc, uint32_t next, uint64_t len)
{
	return shift(crc, len) ^ next;
}

uint32_t crc32c_zeros(uint32_t crc, uint64_t len)
{
	return ~shift(~crc, len);
}

#ifdef __x86_64__

static bool look_for_instruction(void)
{
	__builtin_cpu_init();
	return __builtin_cpu_supports("sse4.2") != 0;
}

__attribute__((target("sse4.2"))) static uint32_t
by_instruction(uint32_t crc, const void *buf, size_t len)
{
	const unsigned char *p = buf;
	uint64_t c = (uint32_t)~crc, word;

	for (; len >= sizeof(word); len -= sizeof(word), p += sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		c = __builtin_ia32_crc32di(c, word);
	}
	while (len-- > 0)
		c = __builtin_ia32_crc32qi((uint32_t)c, *p++);
	return ~(uint32_t)c;
}

#else

static bool look_for_instruction(void)
{
	return false;
}

static uint32_t by_instruction(uint32_t crc, const void *buf, size_t len)
{
	return crc32c_by_table(crc, buf, len);
}

#endif

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
	have_instruction = look_for_instruction();
}

uint32_t crc32c(uint32_t crc, const void *buf, size_t len)
{
	return have_instruction ? by_instruction(crc, buf, len)
				: crc32c_by_table(crc, buf, len);
}
