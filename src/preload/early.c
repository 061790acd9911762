/* SPDX-License-Identifier: Apache-2.0 */
/* Early memory: taken from the front of an array, by any thread. */
#include <config.h>

#include <errno.h>
#include <stdint.h>

#include "common/align.h"
#include "preload/early.h"

#define EARLY_LEN (UINT64_C(1) << 20)

/* What is not touched takes no memory. */
static unsigned char early[EARLY_LEN] __attribute__((aligned(4096)));
static uint64_t used;	/* atomic */

/* Before each block. */
struct head {
	size_t size;
} __attribute__((aligned(16)));

void *early_alloc(size_t size, size_t align)
{
	uint64_t old = __atomic_load_n(&used, __ATOMIC_RELAXED), off;

	if (align < sizeof(struct head))
		align = sizeof(struct head);
	do {
		off = align_up(old + sizeof(struct head), align);
		if (align > EARLY_LEN || off > EARLY_LEN || size > EARLY_LEN - off) {
			errno = ENOMEM;
			return NULL;
		}
	} while (!__atomic_compare_exchange_n(&used, &old, off + size, true,
					      __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	((struct head *)(early + off))[-1].size = size;
	return early + off;
}

bool early_has(const void *ptr)
{
	return (uintptr_t)ptr - (uintptr_t)early < EARLY_LEN;
}

size_t early_size(const void *ptr)
{
	return ((const struct head *)ptr)[-1].size;
}
