/* SPDX-License-Identifier: Apache-2.0 */
/* Rounding, for powers of two only.  The caller rules overflow out. */
#ifndef FM_COMMON_ALIGN_H
#define FM_COMMON_ALIGN_H

#include <stdbool.h>
#include <stdint.h>

static inline bool is_pow2(uint64_t n)
{
	return n != 0 && (n & (n - 1)) == 0;
}

static inline uint64_t align_up(uint64_t n, uint64_t align)
{
	return (n + align - 1) & ~(align - 1);
}

static inline uint64_t align_down(uint64_t n, uint64_t align)
{
	return n & ~(align - 1);
}

#endif
