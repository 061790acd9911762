/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A writer that snapshots may hold up, and whether one is a moment.
 *
 *   month-tool write POOL NPAGES live|atomic
 *              write numbers, from 1 on, each to some page of a block, a thousand a
 *              second, and in an atomic pool commit now and then.  From standard input,
 *              a line each: N for N more at once, answered by "written"; "stall", answered
 *              by the longest that a number took since the last such line, in us
 *   month-tool check POOL
 *              the pages hold what they did when the last number was written that
 *              is there; prints that
 *   month-tool extents FILE
 *              how many extents the file has
 */
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <fmalloc.h>

#define PAGE 4096u
#define COMMIT_EVERY 100u

struct pages {
	uint64_t n;
	char page[];
};

static struct {
	struct fm_info *fi;
	struct pages *pages;
	bool atomic;
	_Atomic uint64_t longest; /* ns */
	atomic_ulong wanted;	  /* at once */
} w;

static int fail(void)
{
	fprintf(stderr, "month-tool: %s\n", fm_errmsg());
	return 1;
}

static _Atomic uint64_t *page_of(struct pages *p, uint64_t i)
{
	return (_Atomic uint64_t *)(void *)(p->page + i * PAGE);
}

/* The page that a number goes to (splitmix64, Steele, Lea and Flood 2014). */
static uint64_t place_of(uint64_t number, uint64_t npages)
{
	uint64_t z = number * UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (z ^ (z >> 31)) % npages;
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * UINT64_C(1000000000) + t.tv_nsec;
}

static void put(uint64_t number)
{
	uint64_t start = now(), took;

	atomic_store(page_of(w.pages, place_of(number, w.pages->n)), number);
	if (w.atomic && number % COMMIT_EVERY == 0 && fmalloc_commit(w.fi) < 0)
		exit(fail());
	took = now() - start;
	if (took > atomic_load(&w.longest))
		atomic_store(&w.longest, took);
}

static void *put_for_ever(void *arg)
{
	uint64_t number = 1;

	for (;; number++) {
		put(number);
		if (atomic_load(&w.wanted) == 0)
			usleep(1000);
		else if (atomic_fetch_sub(&w.wanted, 1) == 1)
			puts("written");
	}
	return arg;
}

static int write_numbers(const char *path, uint64_t n)
{
	char line[32];
	pthread_t t;

	w.fi = fmalloc_open(path, FM_CREATE | (w.atomic ? FM_ATOMIC : 0), NULL);
	if (w.fi == NULL)
		return fail();
	w.pages = fmalloc_in(w.fi, sizeof(*w.pages) + n * PAGE);
	if (w.pages == NULL)
		return fail();
	memset(w.pages->page, 0, n * PAGE);
	w.pages->n = n;
	if (fm_root_set(w.fi, "pages", w.pages, "pages") < 0 || fmalloc_commit(w.fi) < 0)
		return fail();
	setlinebuf(stdout);
	puts("ready");
	pthread_create(&t, NULL, put_for_ever, NULL);
	while (fgets(line, sizeof(line), stdin) != NULL) {
		if (strcmp(line, "stall\n") == 0)
			printf("%lu\n",
			       (unsigned long)(atomic_exchange(&w.longest, 0) / 1000));
		else
			atomic_fetch_add(&w.wanted, strtoul(line, NULL, 10));
	}
	return 0;
}

static int check(const char *path)
{
	struct fm_info *fi = fmalloc_open(path, FM_RDONLY, NULL);
	struct pages *p = fi == NULL ? NULL : fm_root_get(fi, "pages", "pages");
	uint64_t last = 0, *want, i;

	if (p == NULL)
		return fail();
	want = calloc(p->n, sizeof(*want));
	for (i = 0; i < p->n; i++)
		if (*page_of(p, i) > last)
			last = *page_of(p, i);
	for (i = 1; i <= last; i++)
		want[place_of(i, p->n)] = i;
	for (i = 0; i < p->n; i++)
		if (*page_of(p, i) != want[i]) {
			fprintf(stderr,
				"month-tool: page %lu has %lu, had %lu before %lu\n",
				(unsigned long)i, (unsigned long)*page_of(p, i),
				(unsigned long)want[i], (unsigned long)last);
			return 1;
		}
	printf("%lu\n", (unsigned long)last);
	free(want);
	return fmalloc_close(fi) < 0 ? fail() : 0;
}

static int extents(const char *path)
{
	struct fiemap all = { .fm_length = FIEMAP_MAX_OFFSET };
	int fd = open(path, O_RDONLY);

	if (fd < 0 || ioctl(fd, FS_IOC_FIEMAP, &all) < 0) {
		perror(path);
		return 1;
	}
	printf("%u\n", all.fm_mapped_extents);
	return 0;
}

int main(int argc, char **argv)
{
	w.atomic = argc == 5 && strcmp(argv[4], "atomic") == 0;
	if (argc == 5 && strcmp(argv[1], "write") == 0)
		return write_numbers(argv[2], strtoul(argv[3], NULL, 0));
	if (argc == 3 && strcmp(argv[1], "check") == 0)
		return check(argv[2]);
	if (argc == 3 && strcmp(argv[1], "extents") == 0)
		return extents(argv[2]);
	fprintf(stderr, "usage: month-tool write POOL NPAGES live|atomic | check POOL | "
			"extents FILE\n");
	return 2;
}
