/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Durable commits a second: K random 8-byte counters of 1M are changed, and then
 * committed.  Ours beside what the disk could do: the same 16 bytes an update, or the
 * pages that were changed, written to space that has been written before, and synced.
 * They run in turn, round after round.
 *
 *     bench/commits [FOLDER [ROUNDS [SECONDS]]]
 *
 * Prints a line for each K: medians of the rounds.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <fmalloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NCOUNTERS (UINT64_C(1) << 20)
#define LIMIT_LEN (UINT64_C(16) << 20) /* space that is written round and round */
#define PAGE 4096u
#define NROUNDS_MAX 99

struct peer {
	const char *name;
	void (*open)(const char *dir);
	void (*update)(uint64_t at);
	void (*commit)(uint64_t k);
	void (*close)(void);
};

static uint64_t seed;
static double seconds = 1.0;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void need(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "commits: %s: %s\n", what, fm_errmsg());
	exit(1);
}

/* --- what the disk can do ----------------------------------------------------- */

static int limit_fd;
static uint64_t limit_at, nchanged;
static unsigned char *limit_buf;
static unsigned char page_changed[NCOUNTERS * 8 / PAGE];

static void limit_open(const char *dir)
{
	char path[4096];
	uint64_t off;

	snprintf(path, sizeof(path), "%s/limit", dir);
	limit_fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	need(limit_fd >= 0, "open");
	limit_buf = calloc(1, LIMIT_LEN);
	need(limit_buf != NULL, "memory");
	for (off = 0; off < LIMIT_LEN; off += 1 << 20)
		need(pwrite(limit_fd, limit_buf, 1 << 20, off) == 1 << 20, "write");
	need(fsync(limit_fd) == 0, "fsync");
	limit_at = 0;
	nchanged = 0;
}

static void limit_close(void)
{
	close(limit_fd);
	free(limit_buf);
}

static void append(uint64_t len)
{
	if (limit_at + len > LIMIT_LEN)
		limit_at = 0;
	need(pwrite(limit_fd, limit_buf, len, limit_at) == (ssize_t)len, "write");
	need(fdatasync(limit_fd) == 0, "fdatasync");
	limit_at += len;
}

static void words_update(uint64_t at)
{
	memcpy(limit_buf + nchanged++ % NCOUNTERS * 16, &at, sizeof(at));
}

static void words_commit(uint64_t k)
{
	append(k * 16);
	nchanged = 0;
}

static void pages_update(uint64_t at)
{
	if (page_changed[at * 8 / PAGE]++ == 0)
		nchanged++;
}

static void pages_commit(uint64_t k)
{
	(void)k;
	append(nchanged * PAGE);
	nchanged = 0;
	memset(page_changed, 0, sizeof(page_changed));
}

/* --- ours --------------------------------------------------------------------- */

static struct fm_info *pool;
static uint64_t *counters;

static void pool_open(const char *dir)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/pool", dir);
	unlink(path);
	pool = fmalloc_open(path, FM_CREATE | FM_ATOMIC, NULL);
	need(pool != NULL, "fmalloc_open");
	counters = fm_root_alloc(pool, "counters", NCOUNTERS * 8, "");
	need(counters != NULL && fmalloc_commit(pool) == 0, "fmalloc_commit");
}

static void pool_update(uint64_t at)
{
	counters[at]++;
}

static void pool_commit(uint64_t k)
{
	(void)k;
	need(fmalloc_commit(pool) == 0, "fmalloc_commit");
}

static void pool_close(void)
{
	need(fmalloc_close(pool) == 0, "fmalloc_close");
}

/* --- measuring ---------------------------------------------------------------- */

static const struct peer peers[] = {
	{ "words", limit_open, words_update, words_commit, limit_close },
	{ "pages", limit_open, pages_update, pages_commit, limit_close },
	{ "fmalloc", pool_open, pool_update, pool_commit, pool_close },
};

#define NPEERS (sizeof(peers) / sizeof(peers[0]))

static double rate(const struct peer *p, const char *dir, uint64_t k)
{
	double start, took = 0;
	uint64_t n = 0, i;
	int warm;

	p->open(dir);
	seed = 88172645463325252u;
	for (warm = 1; warm >= 0; warm--) {
		start = now();
		for (n = 0; took = now() - start, took < (warm ? seconds / 2 : seconds);
		     n++) {
			for (i = 0; i < k; i++)
				p->update(rnd() % NCOUNTERS);
			p->commit(k);
		}
	}
	p->close();
	return n / took;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v, int n)
{
	qsort(v, n, sizeof(*v), by_value);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

int main(int argc, char **argv)
{
	static const uint64_t ks[] = { 1, 100, 10000 };
	static double got[NPEERS][NROUNDS_MAX];
	const char *dir = argc > 1 ? argv[1] : ".";
	int nrounds = argc > 2 ? atoi(argv[2]) : 5, round;
	size_t k, i;

	if (nrounds < 1 || nrounds > NROUNDS_MAX)
		nrounds = 5;
	if (argc > 3)
		seconds = atof(argv[3]);
	printf("%8s", "K");
	for (i = 0; i < NPEERS; i++)
		printf(" %10s", peers[i].name);
	printf("  of words  of pages\n");
	for (k = 0; k < sizeof(ks) / sizeof(ks[0]); k++) {
		for (round = 0; round < nrounds; round++)
			for (i = 0; i < NPEERS; i++)
				got[i][round] = rate(&peers[i], dir, ks[k]);
		printf("%8llu", (unsigned long long)ks[k]);
		for (i = 0; i < NPEERS; i++)
			printf(" %10.1f", median(got[i], nrounds));
		printf("  %8.2f  %8.2f\n", got[2][nrounds / 2] / got[0][nrounds / 2],
		       got[2][nrounds / 2] / got[1][nrounds / 2]);
		fflush(stdout);
	}
	return 0;
}
