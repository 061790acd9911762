/* SPDX-License-Identifier: Apache-2.0 */
/* malloc of the C library. */
#include <gnu/libc-version.h>

#include "c-heap.hpp"

struct heap : c_heap {
	static void version()
	{
		printf("glibc %s\n", gnu_get_libc_version());
	}
};

int main(int argc, char **argv)
{
	return bench_main<heap>(argc, argv);
}
