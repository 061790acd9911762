/* SPDX-License-Identifier: Apache-2.0 */
/* jemalloc: the same calls, linked with it. */
#include <jemalloc/jemalloc.h>

#include "c-heap.hpp"

struct heap : c_heap {
	static void version()
	{
		const char *s;
		size_t len = sizeof(s);

		errno = mallctl("version", &s, &len, NULL, 0);
		if (errno != 0)
			die("jemalloc");
		printf("jemalloc %.*s\n", (int)strcspn(s, "-"), s);
	}
};

int main(int argc, char **argv)
{
	return bench_main<heap>(argc, argv);
}
