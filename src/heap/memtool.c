/* SPDX-License-Identifier: Apache-2.0 */
/* What AddressSanitizer and Valgrind are told. */
#include <config.h>

#ifdef HAVE_VALGRIND_MEMCHECK_H
#include <valgrind/memcheck.h>
#endif

#include "heap/memtool.h"

/* The program's, if it was built with AddressSanitizer. */
void __asan_poison_memory_region(const volatile void *mem, size_t len)
	__attribute__((weak));
void __asan_unpoison_memory_region(const volatile void *mem, size_t len)
	__attribute__((weak));

bool memtool_active;

static bool under_valgrind(void)
{
#ifdef HAVE_VALGRIND_MEMCHECK_H
	return RUNNING_ON_VALGRIND != 0;
#else
	return false;
#endif
}

__attribute__((constructor)) static void look(void)
{
	memtool_active = __asan_poison_memory_region != NULL || under_valgrind();
}

static void poison(void *mem, size_t len)
{
	if (__asan_poison_memory_region != NULL)
		__asan_poison_memory_region(mem, len);
#ifdef HAVE_VALGRIND_MEMCHECK_H
	(void)VALGRIND_MAKE_MEM_NOACCESS(mem, len);
#endif
}

static void unpoison(void *mem, size_t len)
{
	if (__asan_unpoison_memory_region != NULL)
		__asan_unpoison_memory_region(mem, len);
}

void memtool_mark_block(void *mem, size_t size, size_t usable)
{
	unpoison(mem, size);
	poison((char *)mem + size, usable - size);
#ifdef HAVE_VALGRIND_MEMCHECK_H
	(void)VALGRIND_MAKE_MEM_UNDEFINED(mem, size);
#endif
}

void memtool_mark_ours(void *mem, size_t len)
{
	unpoison(mem, len);
#ifdef HAVE_VALGRIND_MEMCHECK_H
	(void)VALGRIND_MAKE_MEM_DEFINED(mem, len);
#endif
}

/* What of it was written is not known any more: all of it counts as written. */
void memtool_mark_resized(void *mem, size_t size, size_t usable)
{
	memtool_mark_ours(mem, size);
	poison((char *)mem + size, usable - size);
}

void memtool_mark_free(void *mem, size_t len)
{
	poison(mem, len);
}

void memtool_hush(bool hush)
{
#ifdef HAVE_VALGRIND_MEMCHECK_H
	if (hush)
		VALGRIND_DISABLE_ERROR_REPORTING;
	else
		VALGRIND_ENABLE_ERROR_REPORTING;
#else
	(void)hush;
#endif
}
