/* SPDX-License-Identifier: Apache-2.0 */
/* Pools whose commits are all or nothing: what is there after commits, rollbacks,
 * crashes of the program, and for readers. */
#include <fcntl.h>
#include <fmalloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "scratch.h"

#define NVALUES 100000u

struct top {
	uint64_t n;
	FM_PTR(uint64_t) values;
	FM_PTR(struct node) list;
};

struct node {
	uint64_t value;
	FM_PTR(struct node) next;
	char pad[100];
};

/* A commit takes the locks of all lanes, more than ThreadSanitizer can follow when it
 * looks for deadlocks. */
const char *__tsan_default_options(void);

const char *__tsan_default_options(void)
{
	return "detect_deadlocks=0";
}

static struct fm_info *open_new(void)
{
	bool created = false;
	struct fm_info *fi = fmalloc_open(P, FM_CREATE | FM_ATOMIC, &created);

	assert_non_null(fi);
	assert_true(created);
	fmalloc_set_target(fi);
	return fi;
}

static struct fm_info *open_again(void)
{
	struct fm_info *fi = fmalloc_open(P, 0, NULL);

	if (fi == NULL)
		fail_msg("%s", fm_errmsg());
	fmalloc_set_target(fi);
	return fi;
}

static struct top *top_of(struct fm_info *fi)
{
	struct top *top = fm_root_get(fi, "top", "top");

	assert_non_null(top);
	return top;
}

static struct top *make_top(struct fm_info *fi)
{
	struct top *top = fm_root_alloc(fi, "top", sizeof(*top), "top");

	assert_non_null(top);
	return top;
}

static void add_node(struct top *top, uint64_t value)
{
	struct node *n = fmalloc(sizeof(*n));

	assert_non_null(n);
	n->value = value;
	memset(n->pad, (int)value, sizeof(n->pad));
	fm_set(n->next, fm_get(top->list));
	fm_set(top->list, n);
	top->n++;
}

/* The list is top->n nodes, with the values n - 1 ... 0. */
static void check_list(const struct top *top, uint64_t n)
{
	const struct node *node = fm_get(top->list);

	assert_int_equal(top->n, n);
	for (; n > 0; n--, node = fm_get(node->next)) {
		assert_non_null(node);
		assert_int_equal(node->value, n - 1);
		assert_int_equal((unsigned char)node->pad[99], (n - 1) % 256);
		assert_int_equal(fmalloc_usable_size(node), 128);
	}
	assert_null(node);
}

static void good(void)
{
	if (fm_check(P) != 0)
		fail_msg("%s", fm_errmsg());
}

/* --- one process -------------------------------------------------------------- */

static void a_pool_is_atomic_for_good(void **state)
{
	struct fm_info *fi = open_new();
	struct fm_info *live;

	(void)state;
	assert_int_equal(fmalloc_close(fi), 0);
	good();
	fi = open_again();
	make_top(fi)->n = 1;
	assert_int_equal(fmalloc_commit(fi), 0);
	top_of(fi)->n = 2;
	assert_int_equal(fmalloc_rollback(fi), 0);
	assert_int_equal(top_of(fi)->n, 1);
	assert_int_equal(fmalloc_close(fi), 0);
	good();

	live = fmalloc_open("live", FM_CREATE, NULL);
	assert_non_null(live);
	assert_int_equal(fmalloc_rollback(live), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(fm_begin(live), 0);
	assert_int_equal(fm_end(live), 0);
	assert_int_equal(fmalloc_close(live), 0);
	assert_null(fmalloc_open("live", FM_CREATE | FM_ATOMIC, NULL));
	assert_int_equal(errno, EINVAL);
	assert_non_null(strstr(fm_errmsg(), "live pool"));
}

static void close_commits(void **state)
{
	struct fm_info *fi = open_new();
	uint64_t i;

	(void)state;
	make_top(fi);
	for (i = 0; i < 10000; i++)
		add_node(top_of(fi), i);
	assert_int_equal(fmalloc_close(fi), 0);
	good();
	fi = open_again();
	check_list(top_of(fi), 10000);
	assert_int_equal(fmalloc_close(fi), 0);
	good();
}

static void rollback_undoes_all(void **state)
{
	struct fm_info *fi = open_new();
	struct node *extra;
	uint64_t i;

	(void)state;
	make_top(fi);
	for (i = 0; i < 1000; i++)
		add_node(top_of(fi), i);
	assert_int_equal(fmalloc_commit(fi), 0);
	check_list(top_of(fi), 1000);

	/* Changes of what is old, new blocks, freed ones, growth. */
	for (; i < 30000; i++)
		add_node(top_of(fi), i);
	assert_non_null(fmalloc(10 << 20));
	assert_non_null(fmalloc(100 << 20));
	for (i = 0; i < 500; i++) {
		extra = fm_get(top_of(fi)->list);
		fm_set(top_of(fi)->list, fm_get(extra->next));
		ffree(extra);
	}
	assert_int_equal(fm_root_set(fi, "other", top_of(fi), ""), 0);
	assert_int_equal(fmalloc_rollback(fi), 0);
	check_list(top_of(fi), 1000);
	assert_null(fm_root_get(fi, "other", NULL));
	assert_int_equal(errno, ENOENT);

	/* The heap goes on. */
	for (i = 1000; i < 5000; i++)
		add_node(top_of(fi), i);
	check_list(top_of(fi), 5000);
	assert_int_equal(fmalloc_commit(fi), 0);
	assert_int_equal(fmalloc_rollback(fi), 0);
	check_list(top_of(fi), 5000);
	assert_int_equal(fmalloc_close(fi), 0);
	good();
	fi = open_again();
	check_list(top_of(fi), 5000);
	assert_int_equal(fmalloc_close(fi), 0);
}

/* Many commits, so that there are checkpoints, and the log grows. */
static void values_after_many_commits(void **state)
{
	static uint64_t model[NVALUES];
	struct fm_info *fi = open_new();
	struct top *top = make_top(fi);
	uint64_t *v, seed = 1, i, round;

	(void)state;
	v = fcalloc(NVALUES, sizeof(*v));
	fm_set(top->values, v);
	memset(model, 0, sizeof(model));
	for (round = 0; round < 600; round++) {
		uint64_t k = round % 10 == 0 ? 20000 : round % 7 == 0 ? 500 : 3;

		for (i = 0; i < k; i++) {
			uint64_t at = rnd(&seed) % NVALUES;

			v[at] = model[at] = rnd(&seed);
		}
		assert_int_equal(fmalloc_commit(fi), 0);
		if (round % 5 != 0)
			continue;
		for (i = 0; i < 100; i++)
			v[rnd(&seed) % NVALUES] = 7;
		assert_int_equal(fmalloc_rollback(fi), 0);
		assert_memory_equal(v, model, sizeof(model));
	}
	assert_int_equal(fmalloc_close(fi), 0);
	good();
	fi = open_again();
	assert_memory_equal(fm_get(top_of(fi)->values), model, sizeof(model));
	assert_int_equal(fmalloc_close(fi), 0);
}

/* --- a pool whose end moves --------------------------------------------------- */

#define NSLOTS 32u
#define SLOT_NWORDS_MAX (UINT64_C(200000) / 8)

struct slots {
	uint64_t nwords[NSLOTS];
	FM_PTR(uint64_t) words[NSLOTS];
};

/* As of the last commit, or as they are. */
struct model {
	uint64_t nwords[NSLOTS];
	uint64_t words[NSLOTS][SLOT_NWORDS_MAX];
};

static void check_slots(struct fm_info *fi, const struct model *m)
{
	const struct slots *s = fm_root_get(fi, "slots", "");
	uint32_t i;

	assert_non_null(s);
	assert_memory_equal(s->nwords, m->nwords, sizeof(m->nwords));
	for (i = 0; i < NSLOTS; i++)
		if (m->nwords[i] > 0)
			assert_memory_equal(fm_get(s->words[i]), m->words[i],
					    m->nwords[i] * 8);
}

/* Free the slot, or fill it anew. */
static void turn_slot(struct slots *s, struct model *m, uint32_t i, uint64_t *seed)
{
	uint64_t n = m->nwords[i] > 0 ? 0 : 1 + rnd(seed) % SLOT_NWORDS_MAX, at;
	uint64_t *words = NULL;

	ffree(fm_get(s->words[i]));
	if (n > 0) {
		words = fmalloc(n * 8);
		assert_non_null(words);
	}
	for (at = 0; at < n; at++)
		words[at] = m->words[i][at] = rnd(seed);
	fm_set(s->words[i], words);
	s->nwords[i] = m->nwords[i] = n;
}

/* Mostly few words, so that pages are looked at only if the kernel tells of them; and
 * sometimes so much that the heap ends elsewhere. */
static void change_slots(struct slots *s, struct model *m, uint64_t *seed)
{
	uint64_t turns = rnd(seed) % 4 == 0 ? rnd(seed) % NSLOTS : 0, k, at;
	uint32_t i;

	for (k = 0; k < turns; k++)
		turn_slot(s, m, rnd(seed) % NSLOTS, seed);
	for (k = 0; k < 5; k++) {
		i = rnd(seed) % NSLOTS;
		if (m->nwords[i] == 0)
			continue;
		at = rnd(seed) % m->nwords[i];
		fm_get(s->words[i])[at] = m->words[i][at] = rnd(seed);
	}
}

static void commits_while_the_end_moves(void **state)
{
	struct model *now = calloc(2, sizeof(*now)), *then = now + 1;
	struct fm_info *fi = open_new(), *ro;
	struct slots *s = fm_root_alloc(fi, "slots", sizeof(*s), "");
	uint64_t seed = 1, round;

	(void)state;
	assert_non_null(now);
	assert_non_null(s);
	assert_int_equal(fmalloc_commit(fi), 0);
	ro = fmalloc_open(P, FM_RDONLY, NULL);
	assert_non_null(ro);
	for (round = 0; round < 400; round++) {
		change_slots(s, now, &seed);
		if (rnd(&seed) % 8 == 0) {
			assert_int_equal(fmalloc_rollback(fi), 0);
			memcpy(now, then, sizeof(*now));
			check_slots(fi, now);
			continue;
		}
		assert_int_equal(fmalloc_commit(fi), 0);
		memcpy(then, now, sizeof(*now));
		assert_int_equal(fm_refresh(ro), 0);
		check_slots(ro, now);
		if (rnd(&seed) % 50 == 0)
			assert_int_equal(fm_trim(fi), 0);
	}
	assert_int_equal(fmalloc_close(ro), 0);
	assert_int_equal(fmalloc_close(fi), 0);
	good();
	fi = open_again();
	check_slots(fi, now);
	assert_int_equal(fmalloc_close(fi), 0);
	free(now);
}

static void what_was_freed_is_given_back(void **state)
{
	struct fm_info *fi = open_new();
	uint64_t before, i;
	void *big[20];

	(void)state;
	make_top(fi);
	for (i = 0; i < 100; i++)
		add_node(top_of(fi), i);
	for (i = 0; i < 20; i++) {
		big[i] = fmalloc(4 << 20);
		assert_non_null(big[i]);
		memset(big[i], 1, 4 << 20);
	}
	assert_int_equal(fmalloc_commit(fi), 0);
	before = file_size(P);
	assert_true(before > 80 << 20);
	for (i = 0; i < 20; i++)
		ffree(big[i]);
	assert_int_equal(fm_trim(fi), 0);
	/* Not committed: they are all still there. */
	assert_int_equal(fmalloc_rollback(fi), 0);
	for (i = 0; i < 20; i++) {
		unsigned char *mem = big[i];

		assert_int_equal(mem[0], 1);
		assert_int_equal(mem[(4 << 20) - 1], 1);
		assert_int_equal(memcmp(mem, mem + 1, (4 << 20) - 1), 0);
		ffree(mem);
	}
	assert_int_equal(fmalloc_close(fi), 0);
	assert_true(file_size(P) < 8 << 20);
	good();
	fi = open_again();
	check_list(top_of(fi), 100);
	assert_int_equal(fmalloc_close(fi), 0);
}

/* --- crashes ------------------------------------------------------------------ */

static void crash_after_commit(void *arg)
{
	struct fm_info *fi = fmalloc_open(P, FM_CREATE | FM_ATOMIC, NULL);
	struct top *top;
	uint64_t i;

	child_check(fi != NULL);
	fmalloc_set_target(fi);
	top = fm_root_alloc(fi, "top", sizeof(*top), "top");
	child_check(top != NULL);
	for (i = top->n; i < *(uint64_t *)arg; i++)
		add_node(top, i);
	child_check(fmalloc_commit(fi) == 0);
	for (; i < *(uint64_t *)arg + 5000; i++)
		add_node(top, i);
	child_check(fmalloc(50 << 20) != NULL);
	kill(getpid(), SIGKILL);
}

static void a_crash_falls_back_to_the_last_commit(void **state)
{
	uint64_t n, sum;
	struct fm_info *fi;

	(void)state;
	for (n = 1000; n < 50000; n += 7000) {
		assert_true(
			WIFSIGNALED(child_wait(child_start(crash_after_commit, &n))));
		good();
		sum = file_sum(P);
		/* A reader sees it, and writes nothing. */
		fi = fmalloc_open(P, FM_RDONLY, NULL);
		assert_non_null(fi);
		check_list(top_of(fi), n);
		assert_int_equal(fmalloc_close(fi), 0);
		assert_int_equal(file_sum(P), sum);
		good();
		fi = open_again();
		check_list(top_of(fi), n);
		assert_int_equal(fmalloc_rollback(fi), 0);
		check_list(top_of(fi), n);
		assert_int_equal(fmalloc_close(fi), 0);
		good();
	}
}

/* fm_stat() reads all that is the heap's own in memory, as the program itself may; where
 * the log's pages are nothing was ever stored there. */
static void crash_looked_at(void *arg)
{
	struct fm_info *fi = fmalloc_open(P, FM_CREATE | FM_ATOMIC, NULL);
	struct fm_stats stats = { .size = sizeof(stats) };
	struct top *top;
	uint64_t i = 0, len = 0, ngrown = 0;

	child_check(fi != NULL);
	fmalloc_set_target(fi);
	top = fm_root_alloc(fi, "top", sizeof(*top), "top");
	child_check(top != NULL);
	while (ngrown < 3) {
		for (i += 100; top->n < i;)
			add_node(top, top->n);
		child_check(fmalloc_commit(fi) == 0);
		child_check(fm_stat(fi, &stats) == 0);
		ngrown += len != 0 && stats.log_len > len;
		len = stats.log_len;
	}
	*(uint64_t *)arg = i;
	kill(getpid(), SIGKILL);
}

static void the_log_is_not_memory(void **state)
{
	uint64_t *n = mmap(NULL, sizeof(*n), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct fm_info *fi;

	(void)state;
	assert_true(n != MAP_FAILED);
	assert_true(WIFSIGNALED(child_wait(child_start(crash_looked_at, n))));
	good();
	fi = open_again();
	check_list(top_of(fi), *n);
	assert_int_equal(fmalloc_close(fi), 0);
	good();
	munmap(n, sizeof(*n));
}

static void just_exit(void *arg)
{
	struct fm_info *fi = fmalloc_open(P, 0, NULL);

	child_check(fi != NULL);
	fmalloc_set_target(fi);
	add_node(top_of(fi), top_of(fi)->n);
	if (arg != NULL)
		child_check(fm_begin(fi) == 0);
	exit(0);
}

static void a_clean_exit_commits_but_not_in_a_bracket(void **state)
{
	struct fm_info *fi = open_new();

	(void)state;
	make_top(fi);
	add_node(top_of(fi), 0);
	assert_int_equal(fmalloc_close(fi), 0);
	child_run(just_exit, NULL);
	good();
	fi = open_again();
	check_list(top_of(fi), 2);
	assert_int_equal(fmalloc_close(fi), 0);
	child_run(just_exit, fi);
	fi = open_again();
	check_list(top_of(fi), 2);
	assert_int_equal(fmalloc_close(fi), 0);
}

/* --- readers ------------------------------------------------------------------ */

static void readers_see_one_commit(void **state)
{
	struct fm_info *fi = open_new(), *ro;
	uint64_t i, round;

	(void)state;
	make_top(fi);
	for (i = 0; i < 100; i++)
		add_node(top_of(fi), i);
	assert_int_equal(fmalloc_commit(fi), 0);
	ro = fmalloc_open(P, FM_RDONLY, NULL);
	assert_non_null(ro);
	check_list(top_of(ro), 100);
	for (round = 0; round < 20; round++) {
		for (; i < 100 + (round + 1) * 2000; i++)
			add_node(top_of(fi), i);
		check_list(top_of(ro), 100 + round * 2000);
		assert_int_equal(fmalloc_commit(fi), 0);
		check_list(top_of(ro), 100 + round * 2000);
		assert_int_equal(fm_refresh(ro), 0);
		check_list(top_of(ro), i);
	}
	assert_int_equal(fm_refresh(fi), 0);
	/* The writer goes, and what it could not bring home is still in the log. */
	add_node(top_of(fi), i++);
	assert_int_equal(fmalloc_close(fi), 0);
	check_list(top_of(ro), i - 1);
	assert_int_equal(fm_refresh(ro), 0);
	check_list(top_of(ro), i);
	fi = open_again();
	check_list(top_of(fi), i);
	add_node(top_of(fi), i++);
	assert_int_equal(fmalloc_commit(fi), 0);
	check_list(top_of(ro), i - 1);
	assert_int_equal(fmalloc_close(ro), 0);
	assert_int_equal(fmalloc_close(fi), 0);
	good();
	fi = open_again();
	check_list(top_of(fi), i);
	assert_int_equal(fmalloc_close(fi), 0);
}

/* --- fork --------------------------------------------------------------------- */

static void in_child(void *arg)
{
	struct fm_info *fi = arg;
	struct top *top = fm_root_get(fi, "top", "top");

	child_check(top != NULL && top->n == 2);
	child_check(fmalloc_commit(fi) == -1 && errno == EPERM);
	child_check(fmalloc_rollback(fi) == -1 && errno == EPERM);
	child_check(fm_begin(fi) == -1 && errno == EPERM);
	child_check(fm_refresh(fi) == -1 && errno == EPERM);
	child_check(fmalloc(10) == NULL && errno == EPERM);
	top->n = 77; /* its own copy */
	exit(0);
}

static void a_child_reads_and_cannot_commit(void **state)
{
	struct fm_info *fi = open_new();

	(void)state;
	make_top(fi);
	add_node(top_of(fi), 0);
	assert_int_equal(fmalloc_commit(fi), 0);
	add_node(top_of(fi), 1);
	child_run(in_child, fi);
	check_list(top_of(fi), 2);
	assert_int_equal(fmalloc_rollback(fi), 0);
	check_list(top_of(fi), 1);
	add_node(top_of(fi), 1);
	assert_int_equal(fmalloc_commit(fi), 0);
	assert_int_equal(fmalloc_close(fi), 0);
	good();
	fi = open_again();
	check_list(top_of(fi), 2);
	assert_int_equal(fmalloc_close(fi), 0);
}

/* --- threads ------------------------------------------------------------------ */

#define NTHREADS 4u
#define NACCOUNTS 5000u

struct bank {
	struct fm_info *fi;
	uint64_t *account;
	unsigned nrounds;
	unsigned seed;
};

static const char *move(struct bank *bank)
{
	uint64_t seed = __atomic_add_fetch(&bank->seed, 1, __ATOMIC_RELAXED);
	void *block = NULL;
	unsigned i;

	fmalloc_set_target(bank->fi);
	for (i = 0; i < bank->nrounds; i++) {
		uint64_t from = rnd(&seed) % NACCOUNTS, to = rnd(&seed) % NACCOUNTS;

		if (fm_begin(bank->fi) != 0 || fm_begin(bank->fi) != 0)
			return "fm_begin";
		ffree(block);
		block = fmalloc(rnd(&seed) % 300);
		__atomic_sub_fetch(&bank->account[from], 5, __ATOMIC_RELAXED);
		__atomic_add_fetch(&bank->account[to], 5, __ATOMIC_RELAXED);
		if (i % 10 == 0 && (fmalloc_commit(bank->fi) != -1 || errno != EDEADLK))
			return "commit in a bracket";
		if (fm_end(bank->fi) != 0 || fm_end(bank->fi) != 0)
			return "fm_end";
		if (fm_end(bank->fi) != -1 || errno != EINVAL)
			return "fm_end too much";
		if (i % 20 == 0 && fmalloc_commit(bank->fi) != 0)
			return "commit";
	}
	fm_begin(bank->fi);
	ffree(block);
	fm_end(bank->fi);
	return NULL;
}

static void *move_money(void *arg)
{
	return (void *)move(arg);
}

static void check_sum(const uint64_t *account)
{
	uint64_t i, sum = 0;

	for (i = 0; i < NACCOUNTS; i++)
		sum += account[i];
	assert_int_equal(sum, NACCOUNTS * 1000);
}

static void open_bank(struct bank *bank)
{
	struct fm_info *fi = open_new();
	struct top *top = make_top(fi);
	uint64_t i;

	bank->fi = fi;
	bank->account = fmalloc(NACCOUNTS * sizeof(uint64_t));
	for (i = 0; i < NACCOUNTS; i++)
		bank->account[i] = 1000;
	fm_set(top->values, bank->account);
	assert_int_equal(fmalloc_commit(fi), 0);
}

static void threads_commit_together(void **state)
{
	struct bank bank = { .nrounds = 2000 };
	pthread_t thread[NTHREADS];
	struct fm_info *ro;
	void *words;
	unsigned i;

	(void)state;
	open_bank(&bank);
	for (i = 0; i < NTHREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, move_money, &bank),
				 0);
	for (i = 0; i < 30; i++) {
		ro = fmalloc_open(P, FM_RDONLY, NULL);
		if (ro == NULL)
			fail_msg("%s", fm_errmsg());
		check_sum(fm_get(top_of(ro)->values));
		assert_int_equal(fm_refresh(ro), 0);
		check_sum(fm_get(top_of(ro)->values));
		assert_int_equal(fmalloc_close(ro), 0);
	}
	for (i = 0; i < NTHREADS; i++) {
		assert_int_equal(pthread_join(thread[i], &words), 0);
		if (words != NULL)
			fail_msg("%s: %s", (char *)words, fm_errmsg());
	}
	check_sum(bank.account);
	assert_int_equal(fmalloc_close(bank.fi), 0);
	good();
}

static void *end_in_a_bracket(void *arg)
{
	struct fm_info *fi = arg;

	if (fm_begin(fi) != 0 || fm_begin(fi) != 0)
		return (void *)"fm_begin";
	return NULL;
}

static void a_thread_that_ends_stops_nobody(void **state)
{
	struct fm_info *fi = open_new();
	pthread_t thread;
	void *words;

	(void)state;
	make_top(fi);
	assert_int_equal(pthread_create(&thread, NULL, end_in_a_bracket, fi), 0);
	assert_int_equal(pthread_join(thread, &words), 0);
	assert_null(words);
	alarm(30);
	assert_int_equal(fmalloc_commit(fi), 0);
	assert_int_equal(fmalloc_close(fi), 0);
	alarm(0);
}

static void bank_until_killed(void *arg)
{
	struct bank *bank = arg;
	pthread_t thread[NTHREADS];
	unsigned i;

	bank->fi = fmalloc_open(P, 0, NULL);
	child_check(bank->fi != NULL);
	/* Every other time each commit gives all memory up. */
	child_check(bank->seed % 2 == 0 || fm_set_private_limit(bank->fi, 0) == 0);
	bank->account =
		fm_get(((struct top *)fm_root_get(bank->fi, "top", "top"))->values);
	bank->nrounds = 1000000;
	for (i = 0; i < NTHREADS; i++)
		child_check(pthread_create(&thread[i], NULL, move_money, bank) == 0);
	for (;;)
		pause();
}

static void killed_threads_leave_a_commit(void **state)
{
	unsigned nkills = getenv("KILLS") != NULL ? atoi(getenv("KILLS")) : 20, i;
	struct bank bank = { .nrounds = 0 };
	struct fm_info *fi;
	pid_t pid;

	(void)state;
	open_bank(&bank);
	assert_int_equal(fmalloc_close(bank.fi), 0);
	for (i = 0; i < nkills; i++) {
		bank.seed = i * 101;
		pid = child_start(bank_until_killed, &bank);
		usleep(5000 + i * 7919 % 40000);
		assert_true(child_kill(pid));
		good();
		fi = open_again();
		check_sum(fm_get(top_of(fi)->values));
		assert_int_equal(fmalloc_close(fi), 0);
	}
}

/* --- memory ------------------------------------------------------------------- */

#define LIMIT (UINT64_C(4) << 20)

/* Bytes of the pool that are memory of this process, as the kernel counts them. */
static uint64_t anonymous_len(const struct fm_info *fi)
{
	uintptr_t base = (uintptr_t)fi->mem & ~((UINT64_C(1) << FM_WINDOW_BITS) - 1);
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long from, to, kib;
	uint64_t sum = 0;
	bool ours = false;
	char line[512];

	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			ours = from - base < UINT64_C(1) << FM_WINDOW_BITS;
		else if (ours && sscanf(line, "Anonymous: %lu kB", &kib) == 1)
			sum += kib << 10;
	fclose(f);
	return sum;
}

static struct fm_stats stats_of(struct fm_info *fi)
{
	struct fm_stats s = { .size = sizeof(s) };

	assert_int_equal(fm_stat(fi, &s), 0);
	return s;
}

#define NWORDS (UINT64_C(8) << 20) /* of 8 bytes: 64 MiB */

/* A commit that writes 512 pages. */
static void scatter(struct fm_info *fi, uint64_t *seed, uint64_t *model)
{
	uint64_t *value = fm_get(top_of(fi)->values), at;
	unsigned i;

	/* Another case has had threads: they would have to be known not to store. */
	assert_int_equal(fm_begin(fi), 0);
	for (i = 0; i < 512; i++) {
		at = rnd(seed) % NWORDS;
		value[at] = model[at] = rnd(seed);
	}
	assert_int_equal(fm_end(fi), 0);
	assert_int_equal(fmalloc_commit(fi), 0);
}

/* The log grows, and has a checkpoint after that. */
static void look_while_the_log_grows(void *arg)
{
	struct fm_stats s = { .size = sizeof(s) };
	struct fm_info *fi = fmalloc_open(P, 0, NULL);
	unsigned char *bytes;
	unsigned i;

	(void)arg;
	child_check(fi != NULL);
	bytes = fmalloc_in(fi, 16 << 10);
	child_check(bytes != NULL);
	for (i = 0; i < 300; i++) {
		memset(bytes, i + 1, 16 << 10);
		child_check(fmalloc_commit(fi) == 0 && fm_stat(fi, &s) == 0);
	}
	child_check(s.log_len > UINT64_C(1) << 20);
	_exit(0);
}

/* What memory has where the log is, once it was looked at, is not written there. */
static void figures_leave_the_log_alone(void **state)
{
	(void)state;
	assert_int_equal(fmalloc_close(open_new()), 0);
	child_wait(child_start(look_while_the_log_grows, NULL));
	good();
}

static void memory_has_a_limit(void **state)
{
	struct fm_info *fi = open_new(), *reader;
	uint64_t *model = calloc(NWORDS, 8), *value, seed = 1, at;
	unsigned i;

	(void)state;
	assert_non_null(model);
	fm_set(make_top(fi)->values, fcalloc(NWORDS, 8));
	assert_int_equal(fmalloc_commit(fi), 0);
	for (i = 0; i < 8; i++)
		scatter(fi, &seed, model);
	assert_true(stats_of(fi).private_len > 2 * LIMIT);
	assert_true(anonymous_len(fi) > LIMIT);

	assert_int_equal(fm_set_private_limit(fi, LIMIT), 0);
	for (i = 0; i < 20; i++) {
		scatter(fi, &seed, model);
		assert_true(stats_of(fi).private_len <= LIMIT);
		assert_true(anonymous_len(fi) <= LIMIT);
	}
	/* Not while somebody reads the last checkpoint. */
	reader = fmalloc_open(P, FM_RDONLY, NULL);
	assert_non_null(reader);
	for (i = 0; i < 4; i++)
		scatter(fi, &seed, model);
	assert_true(stats_of(fi).private_len > LIMIT);
	assert_int_equal(fmalloc_close(reader), 0);
	scatter(fi, &seed, model);
	assert_true(stats_of(fi).private_len <= LIMIT);

	/* What was given up is written, found, and undone as ever. */
	value = fm_get(top_of(fi)->values);
	for (i = 0; i < 1000; i++)
		value[rnd(&seed) % NWORDS] = 1;
	assert_int_equal(fmalloc_rollback(fi), 0);
	assert_memory_equal(value, model, NWORDS * 8);
	assert_int_equal(fm_set_private_limit(fi, 0), 0);
	for (i = 0; i < 4; i++)
		scatter(fi, &seed, model);
	assert_true(anonymous_len(fi) <= 16 * 4096);
	assert_int_equal(fmalloc_close(fi), 0);
	good();
	fi = open_again();
	value = fm_get(top_of(fi)->values);
	for (at = 0; at < NWORDS && value[at] == model[at]; at++)
		;
	assert_int_equal(at, NWORDS);
	assert_int_equal(fmalloc_close(fi), 0);
	free(model);
}

#define READ_LEN (UINT64_C(128) << 20)

static void read_pages(const volatile char *mem)
{
	uint64_t i;

	for (i = 0; i < READ_LEN; i += 4096)
		(void)mem[i];
}

/* Bytes from mem on that the page tables of this process have. */
static uint64_t mapped_len(const char *mem)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry, i, sum = 0;

	assert_true(fd >= 0);
	for (i = 0; i < READ_LEN / 4096; i++) {
		assert_int_equal(pread(fd, &entry, 8, ((uintptr_t)mem / 4096 + i) * 8), 8);
		sum += entry >> 63 << 12;
	}
	close(fd);
	return sum;
}

/* `kept` is read before each commit. */
static void count_commits(struct fm_info *fi, unsigned n, const char *kept)
{
	struct top *top = top_of(fi);

	for (; n > 0; n--) {
		read_pages(kept);
		assert_int_equal(fm_begin(fi), 0);
		top->n++;
		assert_int_equal(fm_end(fi), 0);
		assert_int_equal(fmalloc_commit(fi), 0);
	}
}

/* Or each commit would look through all of it: also in a program that has made many
 * commits before it reads. */
static void what_was_read_is_given_up(void **state)
{
	struct fm_info *fi = open_new();
	const char *mem;

	(void)state;
	fm_set(make_top(fi)->values, fmalloc(2 * READ_LEN));
	assert_int_equal(fmalloc_close(fi), 0);
	fi = open_again();
	mem = (const char *)fm_get(top_of(fi)->values);
	count_commits(fi, 1200, mem);
	read_pages(mem + READ_LEN);
	assert_int_equal(mapped_len(mem + READ_LEN), READ_LEN);
	count_commits(fi, 200, mem);
	assert_true(mapped_len(mem + READ_LEN) <= READ_LEN / 8);
	assert_int_equal(fmalloc_close(fi), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		scratch_test(a_pool_is_atomic_for_good),
		scratch_test(close_commits),
		scratch_test(rollback_undoes_all),
		scratch_test(values_after_many_commits),
		scratch_test(commits_while_the_end_moves),
		scratch_test(what_was_freed_is_given_back),
		scratch_test(a_crash_falls_back_to_the_last_commit),
		scratch_test(the_log_is_not_memory),
		scratch_test(a_clean_exit_commits_but_not_in_a_bracket),
		scratch_test(readers_see_one_commit),
		scratch_test(a_child_reads_and_cannot_commit),
		scratch_test(threads_commit_together),
		scratch_test(a_thread_that_ends_stops_nobody),
		scratch_test(killed_threads_leave_a_commit),
		scratch_test(figures_leave_the_log_alone),
		scratch_test(memory_has_a_limit),
		scratch_test(what_was_read_is_given_up),
	};

	return cmocka_run_group_tests_name("atomic", tests, NULL, NULL);
}
