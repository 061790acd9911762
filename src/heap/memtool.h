/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Telling AddressSanitizer and Valgrind what is a block, so that they see a
 * program touch memory that it has freed, or beyond what it asked for.
 *
 * The library need not be built for either: the program brings AddressSanitizer
 * along, and Valgrind is asked at run time.  Without them all of this is one test of
 * a flag, and nothing at all in the short ways of fmalloc() and ffree(), which are
 * not taken with them.
 */
#ifndef FM_HEAP_MEMTOOL_H
#define FM_HEAP_MEMTOOL_H

#include <stdbool.h>
#include <stddef.h>

/* One of them is there.  Constant after start-up. */
extern bool memtool_active __attribute__((visibility("hidden")));

void memtool_mark_block(void *mem, size_t size, size_t usable);
void memtool_mark_resized(void *mem, size_t size, size_t usable);
void memtool_mark_free(void *mem, size_t len);
void memtool_mark_ours(void *mem, size_t len);

/* Around a system call that is given memory which nobody may touch, or a look at such
 * memory: Valgrind is silent in this thread. */
void memtool_hush(bool hush);

/* `size` bytes were allocated, of `usable` that the block has. */
static inline void memtool_block(void *mem, size_t size, size_t usable)
{
	if (__builtin_expect(memtool_active, 0))
		memtool_mark_block(mem, size, usable);
}

/* The block is of another size now, and has what it had. */
static inline void memtool_resized(void *mem, size_t size, size_t usable)
{
	if (__builtin_expect(memtool_active, 0))
		memtool_mark_resized(mem, size, usable);
}

/* Nobody may touch it. */
static inline void memtool_free(void *mem, size_t len)
{
	if (__builtin_expect(memtool_active, 0))
		memtool_mark_free(mem, len);
}

/* The library is going to use it, all of it. */
static inline void memtool_ours(void *mem, size_t len)
{
	if (__builtin_expect(memtool_active, 0))
		memtool_mark_ours(mem, len);
}

#endif
