/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PROGRAM PEER commits NEW-FILE SECONDS: durable commits a second.  Of 1M counters of 8
 * bytes K random ones are counted, and then committed, K being 1, 100 and 10,000, for
 * so many seconds each, and before that half as long for warming up.  A peer that has
 * not made one commit in LIMIT_S seconds is too slow for that K.
 *
 * PROGRAM PEER bulk NEW-FILE COUNT: seconds until so many objects are there, of 32 bytes,
 * with a commit every 100,000.
 *
 * Prints lines "ROW VALUE" for bench/run.  PROGRAM version: prints what is measured.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commit/peer.h"
#include "tools.h"

#define EVERY 100000u
#define LIMIT_S 30

/* Up to k updates: false if they were cut short.  (The clock costs as much as an update
 * that is a store.) */
static bool update_some(const struct peer *p, unsigned k, double until)
{
	unsigned i;

	for (i = 0; i < k; i++) {
		p->update(rnd() % NCOUNTERS);
		if (i % 256 == 255 && now_s() > until)
			return false;
	}
	return true;
}

/* Commits a second; 0: too slow. */
static double rate(const struct peer *p, unsigned k, double seconds)
{
	double start = now_s(), took;
	uint64_t n = 0;
	bool whole;

	do {
		whole = update_some(p, k, start + LIMIT_S);
		p->commit();
		n += whole;
		took = now_s() - start;
	} while (whole && took < seconds);
	return n / took;
}

static void print_rate(const struct peer *p, unsigned k, double seconds)
{
	double got = rate(p, k, seconds / 2);

	if (got > 0)
		got = rate(p, k, seconds);
	if (got > 0)
		printf("commits%u %.3f\n", k, got);
	else
		printf("commits%u too-slow\n", k);
}

static void commits(const struct peer *p, const char *path, double seconds)
{
	static const unsigned ks[] = { 1, 100, 10000 };
	size_t i;

	p->open(path);
	p->make_counters();
	for (i = 0; i < sizeof(ks) / sizeof(ks[0]); i++)
		print_rate(p, ks[i], seconds);
	p->close();
}

static void bulk(const struct peer *p, const char *path, uint64_t count)
{
	unsigned char value[VALUE_LEN] = { 0 };
	double start;
	uint64_t i;

	p->open(path);
	start = now_s();
	for (i = 0; i < count; i++) {
		memcpy(value, &i, sizeof(i));
		p->insert(i, value);
		if ((i + 1) % EVERY == 0 || i + 1 == count)
			p->commit();
	}
	printf("bulk %.1f\n", (now_s() - start) * 1e9 / count);
	p->close();
}

static const struct peer *find_peer(const char *name)
{
	const struct peer *p = peers;

	while (p->name != NULL && strcmp(p->name, name) != 0)
		p++;
	need(p->name != NULL, name, "there is no such peer");
	return p;
}

int main(int argc, char **argv)
{
	const struct peer *p;

	if (argc == 2 && strcmp(argv[1], "version") == 0) {
		puts(peers_version());
		return 0;
	}
	if (argc != 5) {
		fprintf(stderr, "usage: PROGRAM PEER WORKLOAD NEW-FILE AMOUNT\n");
		return 2;
	}
	p = find_peer(argv[1]);
	if (strcmp(argv[2], "commits") == 0 && p->make_counters != NULL)
		commits(p, argv[3], atof(argv[4]));
	else if (strcmp(argv[2], "bulk") == 0 && p->insert != NULL)
		bulk(p, argv[3], strtoull(argv[4], NULL, 10));
	else
		need(false, argv[2], "this peer has no such workload");
	return 0;
}
