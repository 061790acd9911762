/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that commits to an atomic pool without pause, and one that takes snapshots
 * of it: each must be equal to one commit.
 *
 *   commit-tool write POOL PROGRESS N    make N commits; N 0: until SIGTERM, and the log
 *                                        had more than one lap.  What was begun and
 *                                        acknowledged is in the file PROGRESS.
 *                                        Says "ready" at first, and at last how it went;
 *                                        fails if a commit did
 *   commit-tool snapshots POOL PROGRESS N    N times: ln POOL POOL@i, judge it; all but
 *                                        the last are removed
 *   commit-tool clones POOL PROGRESS N    the same by fmfs clone POOL POOL-i
 *   commit-tool judge POOL PROGRESS      judge a pool, by what was begun and acknowledged
 *
 * A pool is judged read-only: fm_check() finds it good, and all in it is as its own
 * checksum and its commit's number say.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <fmalloc.h>

#define NCOUNTERS 64u
#define COUNTER_STRIDE 512u	/* words: each has a page of its own */
#define NODE_LEN_MAX 6000u
#define LARGE_LEN 300000u
#define NOPS 8u			/* nodes that a commit adds, or removes */
#define TIDE 100u		/* commits that the list gets longer for, then shorter */
#define SPELL 32u		/* commits that all make checkpoints, and then do not */

struct node {
	FM_PTR(struct node) next;
	uint64_t seed;
	uint32_t len;
	unsigned char bytes[];
};

struct state {
	uint64_t number;	/* of the commit */
	uint64_t nnodes;
	uint64_t sum;		/* of all that follows: see sum_of() */
	FM_PTR(uint64_t) counters;
	FM_PTR(struct node) list;
	FM_PTR(struct node) large;	/* one node, not on the list */
};

/* Shared by the processes. */
struct progress {
	uint64_t begun, acked;
	uint64_t pid;		/* of the writer; 0: it has ended */
};

static volatile sig_atomic_t stopped;

static void stop(int sig)
{
	(void)sig;
	stopped = 1;
}

static int fail(const char *what)
{
	fprintf(stderr, "commit-tool: %s: %s\n", what, fm_errmsg());
	return 1;
}

static int wrong(const char *pool, const char *what, uint64_t is, uint64_t want)
{
	fprintf(stderr, "commit-tool: %s: %s is %" PRIu64 ", not %" PRIu64 "\n", pool, what,
		is, want);
	return 1;
}

static struct progress *map_progress(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	void *p = MAP_FAILED;

	if (fd >= 0 && ftruncate(fd, sizeof(struct progress)) == 0)
		p = mmap(NULL, sizeof(struct progress), PROT_READ | PROT_WRITE,
			 MAP_SHARED, fd, 0);
	if (fd >= 0)
		close(fd);
	if (p == MAP_FAILED)
		perror(path);
	return p == MAP_FAILED ? NULL : p;
}

static uint64_t get(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static void set(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

static uint64_t mix(uint64_t a, uint64_t b)
{
	a = (a ^ b << 32 ^ b >> 32) * UINT64_C(0x9e3779b97f4a7c15);
	return (a ^ a >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
}

static uint64_t sum_of_node(const struct node *n)
{
	return mix(n->seed, n->len);
}

static uint64_t sum_of_counter(unsigned i, uint64_t value)
{
	return mix(value, i + 1);
}

/* --- writing -------------------------------------------------------------------- */

static struct node *make_node(struct fm_info *fi, uint64_t seed, uint32_t len)
{
	struct node *n = fmalloc_in(fi, sizeof(*n) + len);

	if (n == NULL)
		return NULL;
	fm_set(n->next, NULL);
	n->seed = seed;
	n->len = len;
	memset(n->bytes, (int)(seed & 255), len);
	return n;
}

static struct state *make_state(struct fm_info *fi)
{
	struct state *s = fm_root_alloc(fi, "state", sizeof(*s), "state");
	uint64_t *counters = fmalloc_in(fi, NCOUNTERS * COUNTER_STRIDE * 8);
	struct node *large = make_node(fi, 0, LARGE_LEN);
	unsigned i;

	if (s == NULL || counters == NULL || large == NULL)
		return NULL;
	memset(s, 0, sizeof(*s));
	memset(counters, 0, NCOUNTERS * COUNTER_STRIDE * 8);
	fm_set(s->counters, counters);
	fm_set(s->large, large);
	s->sum = mix(0, 0) + sum_of_node(large);
	for (i = 0; i < NCOUNTERS; i++)
		s->sum += sum_of_counter(i, 0);
	return s;
}

static void count(struct state *s, unsigned i)
{
	uint64_t *c = &fm_get(s->counters)[i * COUNTER_STRIDE];

	s->sum -= sum_of_counter(i, *c);
	s->sum += sum_of_counter(i, ++*c);
}

static int add(struct fm_info *fi, struct state *s, uint64_t seed)
{
	struct node *n = make_node(fi, seed, 16 + mix(seed, 1) % NODE_LEN_MAX);

	if (n == NULL)
		return fail("add");
	fm_set(n->next, fm_get(s->list));
	fm_set(s->list, n);
	s->nnodes++;
	s->sum += sum_of_node(n);
	return 0;
}

/* The second of the list, so that pages here and there change. */
static void take(struct state *s)
{
	struct node *first = fm_get(s->list), *n;

	n = first == NULL ? NULL : fm_get(first->next);
	if (n == NULL)
		return;
	fm_set(first->next, fm_get(n->next));
	s->nnodes--;
	s->sum -= sum_of_node(n);
	ffree(n);
}

static int replace_large(struct fm_info *fi, struct state *s, uint64_t number)
{
	struct node *old = fm_get(s->large);
	struct node *n = make_node(fi, number, LARGE_LEN + number % 7 * 50000);

	if (n == NULL)
		return fail("large block");
	s->sum += sum_of_node(n) - sum_of_node(old);
	fm_set(s->large, n);
	ffree(old);
	return 0;
}

static int change(struct fm_info *fi, struct state *s)
{
	uint64_t number = s->number + 1;
	int status = 0;
	unsigned i;

	s->sum += mix(number, 0) - mix(s->number, 0);
	s->number = number;
	for (i = 0; i < 3; i++)
		count(s, (number * 7 + i * 13) % NCOUNTERS);
	for (i = 0; i < NOPS && status == 0; i++)
		if (number / TIDE % 2 == 0)
			status = add(fi, s, number * NOPS + i);
		else
			take(s);
	if (status == 0 && number % 16 == 0)
		status = replace_large(fi, s, number);
	return status;
}

/* What the log was seen to be. */
struct log_history {
	uint64_t used, len;
	unsigned nlaps, ngrown;
};

static void look_at_log(struct fm_info *fi, struct log_history *log)
{
	struct fm_stats stats = { .size = sizeof(stats) };

	if (fm_stat(fi, &stats) != 0)
		return;
	log->nlaps += stats.log_used_len < log->used;
	log->ngrown += log->len != 0 && stats.log_len > log->len;
	log->used = stats.log_used_len;
	log->len = stats.log_len;
}

static int write_on(struct fm_info *fi, struct state *s, struct progress *p, uint64_t n)
{
	struct log_history log = { 0 };
	uint64_t i;

	for (i = 0; n == 0 ? !stopped || log.nlaps == 0 : i < n; i++) {
		if (s->number % SPELL == 0)
			fm_set_private_limit(fi, s->number / SPELL % 2 ? 0 : UINT64_MAX);
		set(&p->begun, s->number + 1);
		if (change(fi, s) != 0)
			return 1;
		if (fmalloc_commit(fi) != 0)
			return fail("commit");
		set(&p->acked, s->number);
		if (i % 4 == 0)
			look_at_log(fi, &log);
	}
	printf("%" PRIu64 " commits, %u laps, log grown %u times to %" PRIu64 " KiB\n", i,
	       log.nlaps, log.ngrown, log.len >> 10);
	return 0;
}

static int write_pool(const char *path, struct progress *p, uint64_t n)
{
	struct fm_info *fi = fmalloc_open(path, FM_CREATE | FM_ATOMIC, NULL);
	struct state *s;
	int status;

	if (fi == NULL)
		return fail("open");
	s = fm_root_get(fi, "state", "state");
	if (s == NULL)
		s = make_state(fi);
	if (s == NULL || fmalloc_commit(fi) != 0)
		return fail("first commit");
	set(&p->begun, s->number);
	set(&p->acked, s->number);
	set(&p->pid, getpid());
	puts("ready");
	fflush(stdout);
	status = write_on(fi, s, p, n);
	set(&p->pid, 0);
	if (fmalloc_close(fi) != 0)
		return fail("close");
	return status;
}

/* --- judging ---------------------------------------------------------------------- */

static bool node_is_whole(const struct node *n)
{
	uint32_t i;

	if (fmalloc_usable_size((void *)n) < sizeof(*n) ||
	    fmalloc_usable_size((void *)n) < sizeof(*n) + n->len)
		return false;
	for (i = 0; i < n->len; i++)
		if (n->bytes[i] != (n->seed & 255))
			return false;
	return true;
}

static int judge_state(const char *path, const struct state *s, uint64_t *number)
{
	uint64_t sum = mix(s->number, 0), nnodes = 0;
	const struct node *n = fm_get(s->large);
	unsigned i;

	if (!node_is_whole(n))
		return wrong(path, "the large block's seed", n->seed, s->number);
	sum += sum_of_node(n);
	for (n = fm_get(s->list); n != NULL; n = fm_get(n->next), nnodes++) {
		if (nnodes > s->nnodes || !node_is_whole(n))
			return wrong(path, "a torn node", nnodes, s->nnodes);
		sum += sum_of_node(n);
	}
	if (nnodes != s->nnodes)
		return wrong(path, "nodes", nnodes, s->nnodes);
	for (i = 0; i < NCOUNTERS; i++)
		sum += sum_of_counter(i, fm_get(s->counters)[i * COUNTER_STRIDE]);
	if (sum != s->sum)
		return wrong(path, "the sum", sum, s->sum);
	*number = s->number;
	return 0;
}

/* Its commit is `low` or later, and `high` at the latest. */
static int judge(const char *path, uint64_t low, uint64_t high, uint64_t *number)
{
	struct fm_info *fi;
	struct state *s;
	int status;

	if (fm_check(path) != 0)
		return fail("check");
	fi = fmalloc_open(path, FM_RDONLY, NULL);
	if (fi == NULL)
		return fail("open");
	s = fm_root_get(fi, "state", "state");
	status = s == NULL ? fail("root") : judge_state(path, s, number);
	fmalloc_close(fi);
	if (status == 0 && *number < low)
		return wrong(path, "its commit", *number, low);
	if (status == 0 && *number > high)
		return wrong(path, "its commit", *number, high);
	return status;
}

static int judge_as_told(const char *path, struct progress *p)
{
	uint64_t number;

	return judge(path, get(&p->acked), get(&p->begun), &number);
}

/* --- snapshots -------------------------------------------------------------------- */

/* Until the writer has made another commit; it must be alive for that. */
static int wait_for_commit(struct progress *p, uint64_t number)
{
	while (get(&p->acked) <= number) {
		if (get(&p->pid) == 0 || kill((pid_t)get(&p->pid), 0) != 0) {
			fprintf(stderr, "commit-tool: the writer has ended\n");
			return 1;
		}
		usleep(100);
	}
	return 0;
}

static int make_clone(const char *pool, const char *clone)
{
	char command[10000];

	snprintf(command, sizeof(command), "fmfs clone '%s' '%s'", pool, clone);
	return system(command);
}

static int take_snapshot(const char *pool, const char *snapshot, struct progress *p,
			 uint64_t *number)
{
	uint64_t low = get(&p->acked);
	bool is_link = strchr(snapshot, '@') != NULL;

	if ((is_link ? link(pool, snapshot) : make_clone(pool, snapshot)) != 0) {
		perror(snapshot);
		return 1;
	}
	return judge(snapshot, low, get(&p->begun), number);
}

static int take_snapshots(const char *pool, struct progress *p, unsigned long n, char sep)
{
	uint64_t number = 0, first = 0;
	char snapshot[4096];
	unsigned long i;

	for (i = 1; i <= n; i++) {
		snprintf(snapshot, sizeof(snapshot), "%s%c%lu", pool, sep, i);
		if (wait_for_commit(p, number) != 0 ||
		    take_snapshot(pool, snapshot, p, &number) != 0)
			return 1;
		if (i == 1)
			first = number;
		if (i < n)
			unlink(snapshot);
	}
	printf("%lu snapshots of commits %" PRIu64 " to %" PRIu64 "\n", n, first, number);
	return 0;
}

int main(int argc, char **argv)
{
	struct progress *p = argc < 4 ? NULL : map_progress(argv[3]);

	signal(SIGTERM, stop);
	if (p != NULL && argc == 5 && strcmp(argv[1], "write") == 0)
		return write_pool(argv[2], p, strtoull(argv[4], NULL, 0));
	if (p != NULL && argc == 5 && strcmp(argv[1], "snapshots") == 0)
		return take_snapshots(argv[2], p, strtoul(argv[4], NULL, 0), '@');
	if (p != NULL && argc == 5 && strcmp(argv[1], "clones") == 0)
		return take_snapshots(argv[2], p, strtoul(argv[4], NULL, 0), '-');
	if (p != NULL && argc == 4 && strcmp(argv[1], "judge") == 0)
		return judge_as_told(argv[2], p);
	fprintf(stderr, "commit-tool: wrong usage\n");
	return 2;
}
