/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs killed at each change of their pool: see scenarios.c for what they do,
 * trace.h for what a change is, and journal.h for the judge.
 *
 * POINTS=n judges about n changes of each program; POINTS=all all of them (make
 * crashcheck).  POINT=SCENARIO judges that one, POINT=SCENARIO:NUMBER one change of
 * it.  RECOVER=SCENARIO:NUMBER kills there, and judges each change that the next
 * opener makes.  BETWEEN=PAIR:NUMBER lets the other thread have its turn there, and
 * judges each of its changes.
 */
#include <config.h>

#include "scratch.h"

#include <inttypes.h>

#include "crash/scenarios.h"

#define ALL UINT64_MAX
/* Kills of a program, and judged changes of the next opener, when all are judged. */
#define KILLS_MAX 400u
#define OPENERS_MAX 15u

static uint64_t points = 10;
static const struct scenario *only_in;
static uint64_t only, only_kill, only_between;

static bool wanted(const struct scenario *s)
{
	return only_in == NULL || only_in == s;
}

/* How far apart points are, for about `most` of n. */
static uint64_t step_for(uint64_t n, uint64_t most)
{
	return n > most ? n / most : 1;
}

static uint64_t count_changes(const struct scenario *s)
{
	struct verdict v;

	if (s->between != NULL)
		bench_between(s, UINT64_MAX, UINT64_MAX, &v);
	else
		bench_run(s, UINT64_MAX, 0, NULL, &v);
	assert_true(v.nchanges > 0);
	return v.nchanges;
}

static void whole_after_each_change(void **state)
{
	const struct scenario *s;
	struct verdict v;
	uint64_t nbad = 0;

	(void)state;
	for (s = scenarios; s->name != NULL; s++) {
		if (!wanted(s) || only_kill != 0)
			continue;
		bench_run(s, step_for(count_changes(s), points), only, NULL, &v);
		print_message("# %s: %" PRIu64 " changes, %" PRIu64 " judged\n", s->name,
			      v.nchanges, v.njudged);
		if (v.nbad != 0)
			print_message("# %" PRIu64 " are bad, the first: %s\n", v.nbad,
				      v.why);
		assert_true(v.njudged > 0);
		nbad += v.nbad;
	}
	assert_true(nbad == 0);
}

/* Kill the program at its changes, `step` apart: how many openers were bad. */
static uint64_t kill_and_open(const struct scenario *s, uint64_t first, uint64_t step)
{
	uint64_t nkills = 0, njudged = 0, nbad = 0, at, inner = 7;
	struct verdict v;

	for (at = first; bench_recover(s, at, inner, &v); at += step) {
		nkills++;
		njudged += v.njudged;
		if (nbad == 0 && v.nbad != 0)
			print_message("# RECOVER=%s:%" PRIu64 ": %s\n", s->name, at,
				      v.why);
		nbad += v.nbad;
		if (only_kill != 0)
			break;
		inner = step_for(v.nchanges,
				 points < OPENERS_MAX ? points : OPENERS_MAX);
	}
	print_message("# %s: %" PRIu64 " kills, %" PRIu64 " changes of the next judged\n",
		      s->name, nkills, njudged);
	assert_true(nkills > 0);
	return nbad;
}

/* Killed while it opens the pool after a kill, or closes it. */
static void whole_after_each_change_of_the_next_opener(void **state)
{
	uint64_t most = points < KILLS_MAX ? points / 3 + 1 : KILLS_MAX, nbad = 0, step;
	const struct scenario *s;

	(void)state;
	for (s = scenarios; s->name != NULL; s++) {
		if (!wanted(s) || only != 0)
			continue;
		step = step_for(count_changes(s), most);
		nbad += kill_and_open(s, only_kill != 0 ? only_kill : step, step);
	}
	assert_true(nbad == 0);
}

/* Let the other thread go at the changes of the first, `step` apart. */
static uint64_t let_other_go(const struct scenario *s, uint64_t first, uint64_t step)
{
	uint64_t nturns = 0, njudged = 0, nbad = 0, at;
	uint64_t inner = points == ALL || only_between != 0 ? 1 : 5;
	struct verdict v;

	for (at = first; bench_between(s, at, inner, &v); at += step) {
		nturns++;
		njudged += v.njudged;
		if (nbad == 0 && v.nbad != 0)
			print_message("# BETWEEN=%s:%" PRIu64 ": %s\n", s->name, at,
				      v.why);
		nbad += v.nbad;
		if (only_between != 0)
			break;
	}
	print_message("# %s: %" PRIu64 " turns of another thread, %" PRIu64 " judged\n",
		      s->name, nturns, njudged);
	assert_true(nturns > 0);
	return nbad;
}

/* Two threads: between any two changes of one the other does something, and the
 * process is killed then. */
static void whole_after_each_change_of_another_thread(void **state)
{
	const struct scenario *s;
	uint64_t nbad = 0, step;

	(void)state;
	for (s = pairs; s->name != NULL; s++) {
		if (!wanted(s) || only != 0 || only_kill != 0)
			continue;
		step = step_for(count_changes(s), points / 3 + 1);
		nbad += let_other_go(s, only_between != 0 ? only_between : step, step);
	}
	assert_true(nbad == 0);
}

/*
 * Bugs that would be: a store is made after one that it must come before.  What a
 * kill between the two would leave is judged, and must be found bad at least once.
 */
static void planted_is_caught(const char *scenario, enum region late, enum region early)
{
	const struct plant plant = { .late = late, .early = early };
	struct verdict v;

	bench_run(scenario_find(scenario), 1, 0, &plant, &v);
	print_message("# %" PRIu64 " judged, %" PRIu64 " bad: %s\n", v.njudged, v.nbad,
		      v.why);
	assert_true(v.nbad > 0);
}

#define PLANTED(name, scenario, late, early) \
	static void planted_##name##_is_caught(void **state) \
	{ \
		(void)state; \
		planted_is_caught(#scenario, late, early); \
	}

PLANTED(bit_set_after_the_pointer, into, FIRST, POINTER)
PLANTED(new_block_named_after_it_is_taken, into, INTENT_NEW, FIRST)
PLANTED(intent_armed_after_the_block_is_taken, into, INTENT_WHERE, FIRST)
PLANTED(intent_cleared_before_the_block_is_freed, into, FIRST, INTENT_WHERE)
PLANTED(run_entered_after_the_pointer, into, TABLE, POINTER)
PLANTED(page_of_intents_linked_before_it_is_entered, first_roots, TABLE, INTENTS_OFF)
PLANTED(pending_page_named_after_it_is_entered, first_roots, PENDING, TABLE)
PLANTED(heap_end_raised_after_the_zone_says_so, growth, HEAP_END, ZONE_HEADER)
PLANTED(heap_end_lowered_before_the_zone_says_so, shrinking, ZONE_HEADER, HEAP_END)
PLANTED(zone_entered_before_its_header, another_zone, ZONE_HEADER, DIRECTORY)
PLANTED(huge_block_entered_before_its_header, into_huge, ZONE_HEADER, DIRECTORY)
PLANTED(root_used_before_it_is_filled, more_roots, SLOT_REST, SLOT_STATE)

/* "SCENARIO" or "SCENARIO:NUMBER" of the environment. */
static void from_env(const char *text, uint64_t *number)
{
	char name[64];

	if (text == NULL || sscanf(text, "%63[^:]:%" SCNu64, name, number) < 1)
		return;
	only_in = scenario_find(name);
	if (only_in == NULL) {
		fprintf(stderr, "there is no scenario '%s'\n", name);
		exit(1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		scratch_test(whole_after_each_change),
		scratch_test(whole_after_each_change_of_the_next_opener),
		scratch_test(whole_after_each_change_of_another_thread),
		scratch_test(planted_bit_set_after_the_pointer_is_caught),
		scratch_test(planted_new_block_named_after_it_is_taken_is_caught),
		scratch_test(planted_intent_armed_after_the_block_is_taken_is_caught),
		scratch_test(planted_intent_cleared_before_the_block_is_freed_is_caught),
		scratch_test(planted_run_entered_after_the_pointer_is_caught),
		scratch_test(planted_page_of_intents_linked_before_it_is_entered_is_caught),
		scratch_test(planted_pending_page_named_after_it_is_entered_is_caught),
		scratch_test(planted_heap_end_raised_after_the_zone_says_so_is_caught),
		scratch_test(planted_heap_end_lowered_before_the_zone_says_so_is_caught),
		scratch_test(planted_zone_entered_before_its_header_is_caught),
		scratch_test(planted_huge_block_entered_before_its_header_is_caught),
		scratch_test(planted_root_used_before_it_is_filled_is_caught),
	};
	const char *n = getenv("POINTS");

	if (n != NULL)
		points = strcmp(n, "all") == 0 ? ALL : strtoull(n, NULL, 10);
	from_env(getenv("POINT"), &only);
	from_env(getenv("RECOVER"), &only_kill);
	from_env(getenv("BETWEEN"), &only_between);
	return cmocka_run_group_tests_name("points", tests, NULL, NULL);
}
