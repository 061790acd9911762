/* SPDX-License-Identifier: Apache-2.0 */
/* This library; the file may be at a mount or not. */
#include <fmalloc.hpp>

#include "workloads.hpp"

static fm_info *pool;
static const char *pool_path;

struct heap {
	static const bool persistent = true;
	template <class T> using ptr = fm_ptr<T>;

	static void open_as(const char *path, int flags)
	{
		pool_path = path;
		pool = fmalloc_open(path, flags, NULL);
		if (pool == NULL)
			die(path, fm_errmsg());
		fmalloc_set_target(pool);
	}
	static void open(const char *path, uint64_t)
	{
		open_as(path, FM_CREATE | FM_EXCL);
	}
	static void reopen(const char *path)
	{
		open_as(path, 0);
	}
	static void close()
	{
		fmalloc_close(pool);
	}
	static void thread()
	{
		fmalloc_set_target(pool);
	}
	static void *alloc(size_t size)
	{
		return fmalloc(size);
	}
	static void free(void *p)
	{
		ffree(p);
	}
	static void root_set(void *p)
	{
		if (fm_root_set(pool, "last", p, NULL) < 0)
			die(pool_path, fm_errmsg());
	}
	static void *root_get()
	{
		return fm_root_get(pool, "last", NULL);
	}
	static double held()
	{
		return file_held(pool_path);
	}
	static void version()
	{
		printf("fmalloc of this tree\n");
	}
	template <class T> static void construct(ptr<T> *where, T *p)
	{
		new (where) ptr<T>(p);
	}
	template <class T> static T *deref(const ptr<T> &p)
	{
		return p.get();
	}
};

int main(int argc, char **argv)
{
	int rc = bench_main<heap>(argc, argv);

	/* A workload of refused frees would be a fast one. */
	if (fm_bad_free_count() != 0)
		die("ffree", fm_errmsg());
	return rc;
}
