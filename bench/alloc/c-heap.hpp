/* SPDX-License-Identifier: Apache-2.0 */
/* What allocators of ordinary memory have in common. */
#ifndef BENCH_C_HEAP_HPP
#define BENCH_C_HEAP_HPP

#include "workloads.hpp"

struct c_heap {
	static const bool persistent = false;
	template <class T> using ptr = T *;

	static void open(const char *, uint64_t)
	{
	}
	static void reopen(const char *)
	{
	}
	static void close()
	{
	}
	static void thread()
	{
	}
	static void *alloc(size_t size)
	{
		return malloc(size);
	}
	static void free(void *p)
	{
		::free(p);
	}
	static void root_set(void *)
	{
	}
	static void *root_get()
	{
		return NULL;
	}
	/* Memory of the process that is in no file. */
	static double held()
	{
		unsigned long size, resident, shared;
		FILE *f = fopen("/proc/self/statm", "r");

		if (f == NULL ||
		    fscanf(f, "%lu %lu %lu", &size, &resident, &shared) != 3)
			die("/proc/self/statm");
		fclose(f);
		return (double)(resident - shared) * sysconf(_SC_PAGESIZE);
	}
	template <class T> static void construct(T **where, T *p)
	{
		*where = p;
	}
	template <class T> static T *deref(T *p)
	{
		return p;
	}
};

#endif
