/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bank in an atomic pool: money moves between accounts, and the sum stays.
 *
 *   bank-tool make POOL        make it
 *   bank-tool run POOL SEED    let threads move money, each transfer in a bracket, and
 *                              commit now and then, until it is killed.  Says "ready"
 *                              after the first commit
 *   bank-tool check POOL...    open each read-only, print how many transfers it has had;
 *                              fails if money is missing, or there is too much
 *
 * A transfer takes from one account into a new bill, and pays an older bill of the
 * thread into another; so what there is lies in the accounts and in blocks that are
 * allocated and freed.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <fmalloc.h>

#define NACCOUNTS 100000u
#define EACH 1000
#define NTHREADS 8u
#define NBILLS 16u /* that a thread has at most */

struct bill {
	int64_t amount;
	char pad[200];
};

struct bank {
	uint64_t ntransfers[NTHREADS];
	FM_PTR(struct bill) bill[NTHREADS][NBILLS];
	int64_t account[NACCOUNTS];
};

static int fail(const char *what)
{
	fprintf(stderr, "bank-tool: %s: %s\n", what, fm_errmsg());
	return 1;
}

static uint32_t next(uint32_t *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 8;
}

static int make(const char *path)
{
	struct fm_info *fi = fmalloc_open(path, FM_CREATE | FM_EXCL | FM_ATOMIC, NULL);
	struct bank *bank;
	unsigned i;

	if (fi == NULL)
		return fail("make");
	bank = fm_root_alloc(fi, "bank", sizeof(*bank), "bank");
	if (bank == NULL)
		return fail("make");
	for (i = 0; i < NACCOUNTS; i++)
		bank->account[i] = EACH;
	return fmalloc_close(fi) < 0 ? fail("close") : 0;
}

/* --- moving money ------------------------------------------------------------- */

static struct fm_info *pool;
static struct bank *bank;
static uint32_t first_seed;

static void transfer(unsigned t, uint32_t *seed)
{
	unsigned slot = next(seed) % NBILLS;
	int64_t amount = next(seed) % 100;
	struct bill *old = fm_get(bank->bill[t][slot]), *new;

	/* Other threads are at the same accounts. */
	__atomic_fetch_sub(&bank->account[next(seed) % NACCOUNTS], amount,
			   __ATOMIC_RELAXED);
	/* From here on money is missing, until all is done. */
	new = fmalloc_in(pool, sizeof(*new));
	if (new == NULL)
		exit(fail("fmalloc"));
	memset(new->pad, (int)amount, sizeof(new->pad));
	new->amount = amount;
	if (old != NULL)
		__atomic_fetch_add(&bank->account[next(seed) % NACCOUNTS], old->amount,
				   __ATOMIC_RELAXED);
	ffree(old);
	fm_set(bank->bill[t][slot], new);
	bank->ntransfers[t]++;
}

static void *work(void *arg)
{
	unsigned t = (uintptr_t)arg;
	uint32_t seed = first_seed * NTHREADS + t;

	for (;;) {
		if (fm_begin(pool) != 0)
			exit(fail("fm_begin"));
		transfer(t, &seed);
		if (fm_end(pool) != 0)
			exit(fail("fm_end"));
		if (next(&seed) % 16 == 0 && fmalloc_commit(pool) != 0)
			exit(fail("commit"));
	}
	return arg;
}

static int run(const char *path, const char *seed)
{
	pthread_t thread;
	uintptr_t t;

	first_seed = strtoul(seed, NULL, 10);
	pool = fmalloc_open(path, 0, NULL);
	if (pool == NULL)
		return fail("open");
	bank = fm_root_get(pool, "bank", "bank");
	if (bank == NULL)
		return fail("bank");
	for (t = 0; t < NTHREADS; t++)
		if (pthread_create(&thread, NULL, work, (void *)t) != 0)
			return fail("thread");
	if (fmalloc_commit(pool) != 0)
		return fail("commit");
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}

/* --- checking ----------------------------------------------------------------- */

/* What there is in bills; -1 if one is not allocated. */
static int64_t in_bills(const struct bank *b)
{
	const struct bill *bill;
	int64_t sum = 0;
	unsigned i;

	for (i = 0; i < NTHREADS * NBILLS; i++) {
		bill = fm_get(b->bill[i / NBILLS][i % NBILLS]);
		if (bill == NULL)
			continue;
		if (fmalloc_usable_size(bill) < sizeof(*bill))
			return -1;
		sum += bill->amount;
	}
	return sum;
}

static int check_bank(const struct bank *b, const char *path)
{
	const int64_t want = (int64_t)NACCOUNTS * EACH;
	int64_t bills = in_bills(b), sum = bills;
	uint64_t n = 0;
	unsigned i;

	for (i = 0; i < NACCOUNTS; i++)
		sum += b->account[i];
	for (i = 0; i < NTHREADS; i++)
		n += b->ntransfers[i];
	if (bills < 0 || sum != want) {
		fprintf(stderr,
			"bank-tool: %s: %lld of %lld are there, %lld in bills\n", path,
			(long long)sum, (long long)want, (long long)bills);
		return 1;
	}
	printf("%llu\n", (unsigned long long)n);
	return 0;
}

static int check(const char *path)
{
	struct fm_info *fi = fmalloc_open(path, FM_RDONLY, NULL);
	struct bank *b;
	int rc;

	if (fi == NULL)
		return fail("open");
	b = fm_root_get(fi, "bank", "bank");
	rc = b == NULL ? fail("bank") : check_bank(b, path);
	return fmalloc_close(fi) < 0 ? fail("close") : rc;
}

int main(int argc, char **argv)
{
	int i, rc = 0;

	if (argc == 3 && strcmp(argv[1], "make") == 0)
		return make(argv[2]);
	if (argc == 4 && strcmp(argv[1], "run") == 0)
		return run(argv[2], argv[3]);
	if (argc >= 3 && strcmp(argv[1], "check") == 0) {
		for (i = 2; i < argc && rc == 0; i++)
			rc = check(argv[i]);
		return rc;
	}
	fprintf(stderr, "usage: bank-tool make POOL | run POOL SEED | check POOL...\n");
	return 2;
}
