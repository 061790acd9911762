/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PMDK: libpmemobj without transactions.  The pool is as large as will be needed
 * from the start, as it cannot grow within one file.  bench/run has it neither
 * flush nor msync (PMEM_NO_FLUSH, PMEM_IS_PMEM_FORCE), so that it too is safe
 * from the death of the process only.
 */
#include <fcntl.h>
#include <libpmemobj.h>

#include "workloads.hpp"

static PMEMobjpool *pool;
static const char *pool_path;
static uint64_t pool_id;

struct root {
	PMEMoid last;
};

static root *the_root()
{
	PMEMoid oid = pmemobj_root(pool, sizeof(root));

	if (OID_IS_NULL(oid))
		die(pool_path, pmemobj_errormsg());
	pool_id = oid.pool_uuid_lo;
	return (root *)pmemobj_direct(oid);
}

/* What a program that keeps PMEMoids has at hand; pmemobj_oid() would search. */
static PMEMoid oid_of(const void *p)
{
	PMEMoid oid = { pool_id, (uint64_t)((const char *)p - (const char *)pool) };

	return p != NULL ? oid : OID_NULL;
}

struct heap {
	static const bool persistent = true;
	template <class T> using ptr = PMEMoid;

	static void opened(const char *path)
	{
		pool_path = path;
		if (pool == NULL)
			die(path, pmemobj_errormsg());
		the_root();
	}
	static void open(const char *path, uint64_t len)
	{
		pool = pmemobj_create(path, "bench", len, 0600);
		opened(path);
	}
	static void reopen(const char *path)
	{
		pool = pmemobj_open(path, "bench");
		opened(path);
	}
	static void close()
	{
		pmemobj_close(pool);
	}
	static void thread()
	{
	}
	static void *alloc(size_t size)
	{
		PMEMoid oid;

		if (pmemobj_alloc(pool, &oid, size, 0, NULL, NULL) != 0)
			return NULL;
		return pmemobj_direct(oid);
	}
	static void free(void *p)
	{
		PMEMoid oid = oid_of(p);

		pmemobj_free(&oid);
	}
	static void root_set(void *p)
	{
		the_root()->last = oid_of(p);
	}
	static void *root_get()
	{
		return pmemobj_direct(the_root()->last);
	}
	/* pmemobj_create() reserves the whole file on the disk: count what of it was
	 * ever written. */
	static double held()
	{
		int fd = ::open(pool_path, O_RDONLY | O_CLOEXEC);
		off_t data = 0, hole = 0;
		double sum = 0;

		if (fd < 0)
			die(pool_path);
		while ((data = lseek(fd, hole, SEEK_DATA)) >= 0) {
			hole = lseek(fd, data, SEEK_HOLE);
			sum += hole - data;
		}
		::close(fd);
		return sum;
	}
	static void version()
	{
		printf("libpmemobj (PMDK) of interface %d.%d\n", PMEMOBJ_MAJOR_VERSION,
		       PMEMOBJ_MINOR_VERSION);
	}
	template <class T> static void construct(PMEMoid *where, T *p)
	{
		*where = oid_of(p);
	}
	static void *deref(PMEMoid oid)
	{
		return pmemobj_direct(oid);
	}
};

int main(int argc, char **argv)
{
	return bench_main<heap>(argc, argv);
}
