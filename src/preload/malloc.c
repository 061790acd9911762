/* SPDX-License-Identifier: Apache-2.0 */
/*
 * malloc(3) and its kin, as the GNU C library has them, by the heap of a pool.
 *
 * The heap calls the C library, which may allocate (when it translates a message,
 * say).  What a thread asks for while it is in the heap, where it may hold a lock,
 * is early memory.
 */
#include <config.h>

#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <fmalloc.h>

#include "common/align.h"
#include "preload/early.h"
#include "preload/open.h"

static __thread bool inside;

static inline bool enter(void)
{
	if (__builtin_expect(!open_done || inside, 0))
		return false;
	inside = true;
	return true;
}

/* Success leaves errno alone; there is one reason to fail. */
static inline void *leave(void *mem, int saved)
{
	inside = false;
	errno = __builtin_expect(mem == NULL, 0) ? ENOMEM : saved;
	return mem;
}

void *malloc(size_t size)
{
	int saved = errno;

	return enter() ? leave(fmalloc(size), saved) : early_alloc(size, 1);
}

void free(void *ptr)
{
	/* What the heap's own caller frees now is lost. */
	if (early_has(ptr) || !enter())
		return;
	ffree(ptr);
	inside = false;
}

static bool overflows(size_t n, size_t size, size_t *len)
{
	if (!__builtin_mul_overflow(n, size, len))
		return false;
	errno = ENOMEM;
	return true;
}

void *calloc(size_t n, size_t size)
{
	size_t len;
	void *mem;

	if (overflows(n, size, &len))
		return NULL;
	mem = malloc(len);
	return mem == NULL ? NULL : memset(mem, 0, len);
}

/* Into memory of the pool. */
static void *move_early(const void *ptr, size_t size)
{
	size_t have = early_size(ptr);
	void *mem = malloc(size);

	return mem == NULL ? NULL : memcpy(mem, ptr, have < size ? have : size);
}

/* Nobody but the heap's own caller asks for this while it is in the heap. */
static void *resize(void *ptr, size_t size)
{
	int saved = errno;

	if (enter())
		return leave(frealloc(ptr, size), saved);
	errno = ENOMEM;
	return NULL;
}

void *realloc(void *ptr, size_t size)
{
	if (ptr == NULL)
		return malloc(size);
	if (size == 0) {
		free(ptr);
		return NULL;
	}
	return early_has(ptr) ? move_early(ptr, size) : resize(ptr, size);
}

void *reallocarray(void *ptr, size_t n, size_t size)
{
	size_t len;

	return overflows(n, size, &len) ? NULL : realloc(ptr, len);
}

size_t malloc_usable_size(void *ptr)
{
	return early_has(ptr) ? early_size(ptr) : fmalloc_usable_size(ptr);
}

/* --- alignment --------------------------------------------------------------------- */

/* A power of two. */
static void *aligned(size_t align, size_t size)
{
	int saved = errno;

	return enter() ? leave(faligned_alloc(align, size), saved) :
			 early_alloc(size, align);
}

static void *invalid(void)
{
	errno = EINVAL;
	return NULL;
}

int posix_memalign(void **out, size_t align, size_t size)
{
	int saved = errno;
	void *mem;

	if (!is_pow2(align) || align % sizeof(void *) != 0)
		return EINVAL;
	mem = aligned(align, size);
	errno = saved;
	if (mem == NULL)
		return ENOMEM;
	*out = mem;
	return 0;
}

void *aligned_alloc(size_t align, size_t size)
{
	return is_pow2(align) ? aligned(align, size) : invalid();
}

/* The least power of two that is at least `align`. */
void *memalign(size_t align, size_t size)
{
	size_t up = 1;

	while (up < align && up <= SIZE_MAX / 2)
		up *= 2;
	return up >= align ? aligned(up, size) : invalid();
}

static size_t page_len(void)
{
	return sysconf(_SC_PAGESIZE);
}

void *valloc(size_t size)
{
	return aligned(page_len(), size);
}

void *pvalloc(size_t size)
{
	size_t page = page_len();

	if (size > SIZE_MAX - page) {
		errno = ENOMEM;
		return NULL;
	}
	return aligned(page, align_up(size, page));
}
