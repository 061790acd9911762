/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing single words of the pool P, behind the library's back. */
#ifndef FM_TESTS_POKE_H
#define FM_TESTS_POKE_H

#include "scratch.h"

static inline void put(uint64_t off, const void *bytes, size_t len)
{
	file_write(P, off, bytes, len);
}

static inline void put16(uint64_t off, uint16_t v)
{
	put(off, &v, sizeof(v));
}

static inline void put32(uint64_t off, uint32_t v)
{
	put(off, &v, sizeof(v));
}

static inline void put64(uint64_t off, uint64_t v)
{
	put(off, &v, sizeof(v));
}

static inline uint32_t get32(uint64_t off)
{
	uint32_t v;

	file_read(P, off, &v, sizeof(v));
	return v;
}

static inline uint64_t get64(uint64_t off)
{
	uint64_t v;

	file_read(P, off, &v, sizeof(v));
	return v;
}

/* Let the pool be the one of that name in tests/data. */
static inline void unpack(const char *name)
{
	char cmd[512];

	snprintf(cmd, sizeof(cmd), "gzip -dc '%s/tests/data/%s' >%s",
		 getenv("SRCDIR"), name, P);
	assert_int_equal(system(cmd), 0);
}

#endif
