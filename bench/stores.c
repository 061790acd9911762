/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stores POOL SAME-FILE: what a store costs through a mount.
 *
 * A new 1 GiB pool is made at POOL, and then mapped twice, at POOL (through
 * the mount) and at SAME-FILE (the file in the store).  Random 8-byte stores
 * into its blocks go to the one mapping and to the other in turn.  Prints the
 * medians and their ratio.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <fmalloc.h>

#include "tools.h"

#define NBLOCKS 32
#define BLOCK_LEN (32ul << 20)
#define NSTORES 2000000
#define NROUNDS 21

static uint64_t block_off[NBLOCKS];

static int make_pool(const char *path)
{
	struct fm_info *fi = fmalloc_open(path, FM_CREATE | FM_EXCL, NULL);
	char *block;
	int i;

	for (i = 0; fi != NULL && i < NBLOCKS; i++) {
		block = fmalloc_in(fi, BLOCK_LEN);
		if (block == NULL)
			break;
		memset(block, 1, BLOCK_LEN);
		block_off[i] = block - (char *)fi->mem;
	}
	if (fi == NULL || i < NBLOCKS || fmalloc_commit(fi) < 0) {
		fprintf(stderr, "stores: %s\n", fm_errmsg());
		return -1;
	}
	return fmalloc_close(fi);
}

static char *map_file(const char *path, uint64_t len)
{
	int fd = open(path, O_RDWR);
	char *mem = MAP_FAILED;

	if (fd >= 0)
		mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mem == MAP_FAILED) {
		perror(path);
		exit(1);
	}
	close(fd);
	return mem;
}

static double round_of_stores(char *mem)
{
	uint64_t x = 88172645463325252ull, off;
	double start = now_s();
	int i;

	for (i = 0; i < NSTORES; i++) {
		x ^= x << 13;	/* xorshift64 (Marsaglia) */
		x ^= x >> 7;
		x ^= x << 17;
		off = block_off[x % NBLOCKS] + (x >> 8) % (BLOCK_LEN / 8) * 8;
		*(volatile uint64_t *)(mem + off) = x;
	}
	return (now_s() - start) * 1e9 / NSTORES;
}

int main(int argc, char **argv)
{
	static double mount_ns[NROUNDS], file_ns[NROUNDS];
	double mount_median, file_median;
	char *through_mount, *direct;
	uint64_t len = 0;
	int i;

	if (argc != 3) {
		fprintf(stderr, "usage: stores NEW-POOL SAME-FILE\n");
		return 2;
	}
	if (make_pool(argv[1]) < 0)
		return 1;
	for (i = 0; i < NBLOCKS; i++)
		if (block_off[i] + BLOCK_LEN > len)
			len = block_off[i] + BLOCK_LEN;
	through_mount = map_file(argv[1], len);
	direct = map_file(argv[2], len);
	/* A first round each, not counted, takes the page faults. */
	for (i = -1; i < NROUNDS; i++) {
		double m = round_of_stores(through_mount);
		double f = round_of_stores(direct);

		if (i >= 0) {
			mount_ns[i] = m;
			file_ns[i] = f;
		}
	}
	mount_median = median(mount_ns, NROUNDS);
	file_median = median(file_ns, NROUNDS);
	printf("random stores, 1 GiB pool: mount %.1f ns, file %.1f ns, ratio %.2f\n",
	       mount_median, file_median, mount_median / file_median);
	return 0;
}
