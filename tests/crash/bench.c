/* SPDX-License-Identifier: Apache-2.0 */
/* Running scenarios, with a judge beside them. */
#include <config.h>

#include "scratch.h"

#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "crash/bench.h"
#include "crash/trace.h"
#include "heap/layout.h"

#define SECONDS 20u	/* for a judge */

/* What the processes share. */
struct desk {
	struct journal journal;	/* of the program */
	struct journal copy;	/* of the judge */
	unsigned flags;
	/* What the copy of the pool is changed to, if len is not 0. */
	uint64_t undo_off;
	uint32_t undo_len;
	unsigned char undo[4096];
	int rc;
	char why[300];
	struct verdict verdict;
};

/* By the linker: what addr2line(1) counts from. */
extern char __executable_start;

struct fm_info *pool;
struct journal *journal;
const char *pool_path;

static struct {
	struct desk *desk;
	int live, copy;		/* the pool and the judge's copy of it */
	char live_path[32], copy_path[32];
	int ask, answer;	/* the program's ends of pipes */
	const struct scenario *s;
	const struct plant *plant;
	uint64_t every, only, kill_at;
	/* The other thread, and how many changes each has made. */
	uint64_t between_at, nmine, nothers;
	pthread_t other;
	pid_t other_tid;
	sem_t other_go, other_done;
	/* The last store into plant->late. */
	uint64_t late_off;
	uint32_t late_len;
	unsigned char late[4096];
} b;

static __thread bool is_other;

/* --- the judge --------------------------------------------------------------------- */

static void copy_range(off_t off, off_t end)
{
	static const unsigned char zeroes[1 << 16];
	static unsigned char buf[1 << 16];
	ssize_t n;

	for (; off < end; off += n) {
		n = end - off < (off_t)sizeof(buf) ? end - off : (off_t)sizeof(buf);
		n = pread(b.live, buf, n, off);
		child_check(n > 0);
		if (memcmp(buf, zeroes, n) != 0)
			child_check(pwrite(b.copy, buf, n, off) == n);
	}
}

static void copy_pool(void)
{
	off_t off, end = 0;
	struct stat st;

	child_check(fstat(b.live, &st) == 0);
	child_check(ftruncate(b.copy, 0) == 0 && ftruncate(b.copy, st.st_size) == 0);
	while (file_next_data(b.live, &off, &end))
		copy_range(off, end);
	if (b.desk->undo_len != 0)
		child_check(pwrite(b.copy, b.desk->undo, b.desk->undo_len,
				   b.desk->undo_off) == b.desk->undo_len);
}

/* Judge whenever somebody asks. */
static void be_judge(int asked, int answer)
{
	char c;

	while (read(asked, &c, 1) == 1) {
		alarm(SECONDS);
		copy_pool();
		b.desk->copy = b.desk->journal;
		strcpy(b.desk->why, "the judge was ended by a signal");
		b.desk->rc = judge(b.copy_path, &b.desk->copy,
				   b.desk->flags | JUDGE_CLOSE | JUDGE_HAND_OUT,
				   b.desk->why);
		alarm(0);
		child_check(write(answer, &c, 1) == 1);
	}
}

/* The process of the judge, at the other end of b.ask and b.answer. */
static pid_t start_judge(void)
{
	int ask[2], answer[2];
	pid_t pid;

	assert_int_equal(pipe(ask), 0);
	assert_int_equal(pipe(answer), 0);
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(ask[1]);
		close(answer[0]);
		be_judge(ask[0], answer[1]);
		_exit(0);
	}
	close(ask[0]);
	close(answer[1]);
	b.ask = ask[1];
	b.answer = answer[0];
	return pid;
}

static void end_judge(pid_t pid)
{
	close(b.ask);
	close(b.answer);
	child_wait(pid);
}

/* --- where a store is ------------------------------------------------------------------ */

static enum region region_of_intent(uint64_t at)
{
	return INTENT_WHERE + at % sizeof(struct fm_intent_disk) / sizeof(uint64_t);
}

static enum region region_of_super(uint64_t off)
{
	if (off >= FM_ZONE0_HEADER_OFF)
		return ZONE_HEADER;
	if (off >= 568 && off < 600)
		return region_of_intent(off - 568);
	if (off >= 544 && off < 560)
		return PENDING;
	if (off >= 560 && off < 568)
		return INTENTS_OFF;
	return off >= 512 && off < 520 ? HEAP_END : ELSEWHERE;
}

static enum region region_of_root(uint64_t at)
{
	if (at < FM_ROOTPAGE_HEAD_LEN)
		return ELSEWHERE;
	return at % sizeof(struct fm_root_disk) < 4 ? SLOT_STATE : SLOT_REST;
}

static enum region region_of(uint64_t off)
{
	const struct fm_super_disk *super = (void *)trace_base();
	uint64_t at = off % FM_ZONE_LEN, in = super->intents_off;

	if (off < FM_APP_OFF)
		return region_of_super(off);
	if (off < FM_HEAP_OFF)
		return region_of_root(off - FM_APP_OFF);
	if (off < FM_ZONE_TABLE_OFF)
		return DIRECTORY;
	if (at < FM_ZONE_TABLE_OFF)
		return ZONE_HEADER;
	if (at < FM_ZONE_BITMAP_OFF)
		return TABLE;
	if (at < FM_ZONE_DATA_OFF)
		return at % FM_BITMAP_LEN < FM_SECOND_OFF ? FIRST : SECOND;
	if (in != 0 && off >= in + 32 && off < in + sizeof(struct fm_intents_disk))
		return region_of_intent(off - in - 32);
	if (journal->anchor_off != 0 && off - journal->anchor_off < NINTO * 8)
		return POINTER;
	return ELSEWHERE;
}

/* --- at a change -------------------------------------------------------------------------- */

static void ask_judge(const struct change *c)
{
	static const char *const name[NREGIONS] = {
		"elsewhere", "heap_end", "pending", "intents_off", "where_off", "value",
		"new_off", "old_off", "zone header", "directory", "table",
		"first bitmap", "second bitmap", "state of a root", "root", "pointer",
	};
	struct verdict *v = &b.desk->verdict;
	char byte = 0;

	b.desk->rc = -1;
	if (write(b.ask, &byte, 1) != 1 || read(b.answer, &byte, 1) != 1) {
		v->nbad++;
		snprintf(v->why, sizeof(v->why), "%s, change %" PRIu64 ": %s",
			 b.s->name, c->number, b.desk->why);
		_exit(98);
	}
	v->njudged++;
	if (b.desk->rc == 0 || v->nbad++ != 0)
		return;
	if (c->call != NULL)
		snprintf(v->why, sizeof(v->why), "%s, change %" PRIu64 ", %s: %s",
			 b.s->name, c->number, c->call, b.desk->why);
	else
		snprintf(v->why, sizeof(v->why), "%s, change %" PRIu64 ", store at %#"
			 PRIx64 " (%s) by %#tx: %s", b.s->name, c->number, c->off,
			 name[region_of(c->off)], (char *)c->pc - &__executable_start,
			 b.desk->why);
}

/* Judge what the pool is like if the late store is not there yet. */
static void at_planted(const struct change *c)
{
	enum region region = c->call != NULL ? NREGIONS : region_of(c->off);

	if (region == b.plant->early && b.late_len != 0) {
		b.desk->undo_off = b.late_off;
		b.desk->undo_len = b.late_len;
		memcpy(b.desk->undo, b.late, b.late_len);
		ask_judge(c);
	}
	if (region == b.plant->late) {
		b.late_off = c->off;
		b.late_len = c->len;
		memcpy(b.late, c->before, c->len);
	}
}

/* Whether the other thread waits for a lock, or has done all. */
static bool other_waits(void)
{
	char path[64], text[16] = "";
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", (int)b.other_tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	child_check(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	return atoi(text) == SYS_futex && strncmp(text, "running", 7) != 0;
}

/* The other thread's turn. */
static void let_other_go(const struct change *c)
{
	int nwaits = 0;

	sem_post(&b.other_go);
	trace_yield(true);
	while (nwaits < 5) {
		usleep(200);
		nwaits = other_waits() ? nwaits + 1 : 0;
	}
	trace_yield(false);
	b.desk->verdict.nreached++;
	ask_judge(c);
}

static void at_change_of_two(const struct change *c)
{
	if (is_other && ++b.nothers % b.every == 0)
		ask_judge(c);
	else if (!is_other && ++b.nmine == b.between_at)
		let_other_go(c);
}

static void at_change(const struct change *c)
{
	b.desk->verdict.nchanges = c->number;
	if (b.between_at != 0) {
		at_change_of_two(c);
		return;
	}
	if (c->number == b.kill_at)
		kill(getpid(), SIGKILL);
	if (b.kill_at != 0)
		return;
	if (b.plant != NULL)
		at_planted(c);
	else if (b.only != 0 ? c->number == b.only : c->number % b.every == 0)
		ask_judge(c);
}

/* --- the scenario ---------------------------------------------------------------------------- */

bool bench_open(void)
{
	pool = fmalloc_init(pool_path, NULL);
	return pool != NULL &&
	       (journal->anchor_off != 0 || journal_anchor(journal, pool));
}

void bench_close(void)
{
	child_check(fmalloc_close(pool) == 0);
}

static void run_before(void *arg)
{
	(void)arg;
	b.s->before();
	kill(getpid(), SIGKILL);
}

void bench_other(void)
{
	is_other = true;
}

static void *be_other(void *arg)
{
	bench_other();
	b.other_tid = gettid();
	if (b.s->prepare != NULL)
		b.s->prepare();
	sem_post(&b.other_done);
	sem_wait(&b.other_go);
	if (b.nmine >= b.between_at)
		b.s->between();
	sem_post(&b.other_done);
	sem_wait(&b.other_go);	/* so that it is still there */
	return arg;
}

static void start_other(void)
{
	sem_init(&b.other_go, 0, 0);
	sem_init(&b.other_done, 0, 0);
	child_check(pthread_create(&b.other, NULL, be_other, NULL) == 0);
	sem_wait(&b.other_done);
}

static void end_other(void)
{
	if (b.nmine < b.between_at)
		sem_post(&b.other_go);
	sem_wait(&b.other_done);
	trace_stop();
	sem_post(&b.other_go);
	child_check(pthread_join(b.other, NULL) == 0);
}

static void run_scenario(void *arg)
{
	(void)arg;
	alarm(0);	/* the judge has a limit */
	signal(SIGPIPE, SIG_IGN);
	journal_filling = trace_pause;
	if (b.s->setup != NULL)
		b.s->setup();
	if (b.between_at != 0)
		start_other();
	trace_start(at_change);
	b.s->run();
	if (b.between_at != 0)
		end_other();
	trace_stop();
}

static int make_file(char path[32])
{
	int fd = memfd_create("pool", 0);

	assert_true(fd >= 0);
	snprintf(path, 32, "/proc/self/fd/%d", fd);
	return fd;
}

static void begin(const struct scenario *s)
{
	memset(&b, 0, sizeof(b));
	b.s = s;
	b.every = 1;
	b.desk = mmap(NULL, sizeof(*b.desk), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(b.desk, MAP_FAILED);
	b.desk->flags = s->flags;
	b.live = make_file(b.live_path);
	b.copy = make_file(b.copy_path);
	journal = &b.desk->journal;
	pool_path = b.live_path;
	if (s->before != NULL)
		assert_true(WIFSIGNALED(child_wait(child_start(run_before, NULL))));
}

static void end(struct verdict *v)
{
	*v = b.desk->verdict;
	close(b.live);
	close(b.copy);
	munmap(b.desk, sizeof(*b.desk));
}

/* The wait status of the scenario's process. */
static int watch(void)
{
	pid_t judge_pid = start_judge();
	int status = child_wait(child_start(run_scenario, NULL));

	end_judge(judge_pid);
	return status;
}

static void must_be(const struct scenario *s, int status, int want)
{
	if (status != want && b.desk->verdict.nbad == 0)
		fail_msg("%s: its process ended with status %#x", s->name, status);
}

void bench_run(const struct scenario *s, uint64_t every, uint64_t only,
	       const struct plant *plant, struct verdict *v)
{
	begin(s);
	b.every = every;
	b.only = only;
	b.plant = plant;
	must_be(s, watch(), 0);
	end(v);
}

static void open_and_close(void)
{
	pool = fmalloc_init(pool_path, NULL);
	child_check(pool != NULL);
	bench_close();
}

bool bench_recover(const struct scenario *s, uint64_t at, uint64_t every,
		   struct verdict *v)
{
	const struct scenario opening = {
		.name = s->name, .run = open_and_close, .flags = s->flags,
	};
	bool killed;
	int status;

	begin(s);
	b.kill_at = at;
	status = watch();
	killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
	if (!killed)
		must_be(s, status, 0);
	b.kill_at = 0;
	b.every = every;
	b.s = &opening;
	memset(&b.desk->verdict, 0, sizeof(b.desk->verdict));
	if (killed)
		must_be(s, watch(), 0);
	end(v);
	return killed;
}

bool bench_between(const struct scenario *s, uint64_t at, uint64_t every,
		   struct verdict *v)
{
	begin(s);
	b.between_at = at;
	b.every = every;
	must_be(s, watch(), 0);
	end(v);
	return v->nreached != 0;
}
