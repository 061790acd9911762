/* SPDX-License-Identifier: Apache-2.0 */
/* How late it is. */
#ifndef FM_COMMON_CLOCK_H
#define FM_COMMON_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Nanoseconds since some moment; CLOCK_MONOTONIC. */
static inline uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * UINT64_C(1000000000) + t.tv_nsec;
}

#endif
