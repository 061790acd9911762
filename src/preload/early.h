/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory for what is allocated when the pool cannot serve: before it is open, and by
 * the C library when the heap itself calls that.  It is little, and never given
 * back.
 */
#ifndef FM_PRELOAD_EARLY_H
#define FM_PRELOAD_EARLY_H

#include <stdbool.h>
#include <stddef.h>

/* Zeroes, aligned to a power of two; NULL with ENOMEM: none is left. */
void *early_alloc(size_t size, size_t align);
bool early_has(const void *ptr);
/* What was asked for. */
size_t early_size(const void *ptr);

#endif
