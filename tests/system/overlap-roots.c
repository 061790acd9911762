/* SPDX-License-Identifier: Apache-2.0 */
/*
 * overlap-roots POOL: grow the file by pages of named roots, one at every 4 KiB,
 * each sound by itself, each overlapping the next ones, and link them behind
 * those that the pool has.
 */
#include <config.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "heap/layout.h"
#include "heap/rootscan.h"

#define NPAGES 4096u

int main(int argc, char **argv)
{
	struct fm_rootpage_disk page;
	uint64_t off = FM_APP_OFF, end = 0, i;
	struct fm_super_disk super;
	int fd;

	fd = argc == 2 ? open(argv[1], O_RDWR) : -1;
	if (fd < 0 || pread(fd, &super, sizeof(super), 0) != sizeof(super) ||
	    pread(fd, &page, sizeof(page), off) != sizeof(page))
		goto failed;
	while (page.next_off != 0) {
		off = page.next_off;
		if (pread(fd, &page, sizeof(page), off) != sizeof(page))
			goto failed;
	}
	end = super.heap_end;
	page.next_off = end;
	if (pwrite(fd, &page, sizeof(page), off) != sizeof(page))
		goto failed;
	memset(&page, 0, sizeof(page));
	memcpy(page.magic, FM_ROOT_MAGIC, sizeof(page.magic));
	page.nslots = (FM_ROOTPAGE_LEN - FM_ROOTPAGE_HEAD_LEN) / sizeof(struct fm_root_disk);
	for (i = 0; i < NPAGES; i++) {
		page.self_off = end + i * FM_PAGE_LEN;
		page.next_off = i + 1 < NPAGES ? page.self_off + FM_PAGE_LEN : 0;
		page.crc = rootscan_page_crc(&page);
		if (pwrite(fd, &page, sizeof(page), page.self_off) != sizeof(page))
			goto failed;
	}
	super.heap_end = end + (NPAGES + FM_ROOTPAGE_NPAGES) * FM_PAGE_LEN;
	if (ftruncate(fd, super.heap_end) < 0 ||
	    pwrite(fd, &super, sizeof(super), 0) != sizeof(super))
		goto failed;
	return 0;
failed:
	perror("overlap-roots");
	return 2;
}
