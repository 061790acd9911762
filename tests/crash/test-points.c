/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs killed at each change of their pool: see scenarios.c for what they do,
 * trace.h for what a change is, and journal.h for the judge.
 *
 * POINTS=1 judges every change (make crashcheck), POINTS=n each nth.
 * POINT=SCENARIO:NUMBER judges one.
 */
#include <config.h>

#include "scratch.h"

#include <inttypes.h>

#include "crash/scenarios.h"

static uint64_t every = 23, only;
static const char *only_in = "";

static void report(const struct scenario *s, const struct verdict *v)
{
	print_message("# %s: %" PRIu64 " changes, %" PRIu64 " judged\n", s->name,
		      v->nchanges, v->njudged);
	if (v->nbad != 0)
		print_message("# %" PRIu64 " are bad, the first: %s\n", v->nbad, v->why);
}

static void whole_after_each_change(void **state)
{
	const struct scenario *s;
	struct verdict v;
	uint64_t nbad = 0;

	(void)state;
	for (s = scenarios; s->name != NULL; s++) {
		if (*only_in != '\0' && strcmp(s->name, only_in) != 0)
			continue;
		bench_run(s, every, only, NULL, &v);
		report(s, &v);
		nbad += v.nbad;
	}
	assert_true(nbad == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		scratch_test(whole_after_each_change),
	};
	const char *points = getenv("POINTS"), *point = getenv("POINT");
	static char name[64];

	if (points != NULL && atoi(points) > 0)
		every = atoi(points);
	if (point != NULL && sscanf(point, "%63[^:]:%" SCNu64, name, &only) >= 1)
		only_in = name;
	return cmocka_run_group_tests_name("points", tests, NULL, NULL);
}
