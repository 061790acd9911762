/* SPDX-License-Identifier: Apache-2.0 */
/* mimalloc, by its own names. */
#include <mimalloc.h>

#include "c-heap.hpp"

struct heap : c_heap {
	static void *alloc(size_t size)
	{
		return mi_malloc(size);
	}
	static void free(void *p)
	{
		mi_free(p);
	}
	static void version()
	{
		printf("mimalloc %d\n", mi_version());
	}
};

int main(int argc, char **argv)
{
	return bench_main<heap>(argc, argv);
}
