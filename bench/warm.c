/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warm MIB: touch that much memory, and end.
 *
 * A virtual machine gives memory that is free for some seconds back to its host, in
 * pieces of some MiB, and who touches it next waits for the host to find some: 8 us a
 * page were seen, where the kernel itself takes 1.  That is no property of an
 * allocator, but it hits those that take their memory in large pieces.  Run just
 * before a measurement this makes memory that is free be there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
	size_t len = argc == 2 ? strtoul(argv[1], NULL, 10) << 20 : 0, i;
	volatile char *mem;

	if (len == 0) {
		fprintf(stderr, "usage: warm MIB\n");
		return 2;
	}
	mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED) {
		perror("warm");
		return 1;
	}
	madvise((void *)mem, len, MADV_HUGEPAGE);
	for (i = 0; i < len; i += 4096)
		mem[i] = 1;
	return 0;
}
