/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boost.Interprocess: a managed_mapped_file, as large as will be needed from the
 * start, since it cannot grow while it is open.  The file is sparse.
 */
#include <boost/interprocess/managed_mapped_file.hpp>
#include <boost/interprocess/offset_ptr.hpp>
#include <boost/version.hpp>

#include "workloads.hpp"

namespace bip = boost::interprocess;

static bip::managed_mapped_file *file;
static const char *file_path;

struct heap {
	static const bool persistent = true;
	template <class T> using ptr = bip::offset_ptr<T>;

	template <class... Args> static void open_as(const char *path, Args... args)
	{
		file_path = path;
		try {
			file = new bip::managed_mapped_file(args...);
		} catch (const std::exception &e) {
			die(path, e.what());
		}
	}
	static void open(const char *path, uint64_t len)
	{
		open_as(path, bip::create_only, path, len);
	}
	static void reopen(const char *path)
	{
		open_as(path, bip::open_only, path);
	}
	static void close()
	{
		delete file;
	}
	static void thread()
	{
	}
	static void *alloc(size_t size)
	{
		return file->allocate(size, std::nothrow);
	}
	static void free(void *p)
	{
		file->deallocate(p);
	}
	static void root_set(void *p)
	{
		file->construct<ptr<void>>("last")(p);
	}
	static void *root_get()
	{
		ptr<void> *root = file->find<ptr<void>>("last").first;

		return root != NULL ? root->get() : NULL;
	}
	static double held()
	{
		return file_held(file_path);
	}
	static void version()
	{
		printf("Boost.Interprocess %d.%d.%d\n", BOOST_VERSION / 100000,
		       BOOST_VERSION / 100 % 1000, BOOST_VERSION % 100);
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
	return bench_main<heap>(argc, argv);
}
