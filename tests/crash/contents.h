/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contents of blocks that can be recognised: all of a short block, some of each
 * page of a longer one, the ends of one that is longer yet.
 */
#ifndef FM_TESTS_CONTENTS_H
#define FM_TESTS_CONTENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CONTENTS_ALL 4096u
#define CONTENTS_PAGES (1u << 20)

static inline unsigned char contents_byte(size_t at, uint64_t seed)
{
	uint64_t word = (at / 8 + seed * 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;

	return (word ^ word >> 32) >> at % 8 * 8;
}

/* The next place to look at after `at`. */
static inline size_t contents_next(size_t at, size_t size)
{
	if (size <= CONTENTS_ALL || at + 1 >= size - 64 || at < 64)
		return at + 1;
	if (size <= CONTENTS_PAGES)
		return at + 509 < size - 64 ? at + 509 : size - 64;
	return size - 64;
}

static inline void contents_fill(unsigned char *mem, size_t size, uint64_t seed)
{
	size_t i;

	for (i = 0; i < size; i = contents_next(i, size))
		mem[i] = contents_byte(i, seed);
}

static inline bool contents_right(const unsigned char *mem, size_t size, uint64_t seed)
{
	size_t i;

	for (i = 0; i < size; i = contents_next(i, size))
		if (mem[i] != contents_byte(i, seed))
			return false;
	return true;
}

#endif
