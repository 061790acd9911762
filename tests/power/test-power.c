/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Failures of power, simulated.  A program works on an atomic pool, and all that it
 * does to the file is recorded.  Then the file is made what it could be if power had
 * failed: at every operation, with all before it done; and before every sync, with any
 * part of what was done since the sync before it, in sectors.  Each such file is
 * opened, and must be the last commit that the program was told of, or the one that was
 * under way.
 *
 * POWER_STATES=n: about so many in the case that tries the most.  POWER_SEED=n: another
 * program.
 */
#include <config.h>

#include <fmalloc.h>

#include "power/recorder.h"
#include "heap/layout.h"
#include "scratch.h"

#define SECTOR 512u
#define NVALUES 4000u
#define BIG_LEN (UINT64_C(5) << 20) /* such that whole chunks become free */
#define NCOMMITS_PLANTED 160u       /* enough for checkpoints */
#define START "start"               /* the file before the program */

/* --- the program -------------------------------------------------------------- */

struct node {
	uint64_t value;
	FM_PTR(struct node) next;
	FM_PTR(unsigned char) block;
	uint64_t block_len;
};

struct top {
	uint64_t number; /* of the commit */
	uint64_t n;
	FM_PTR(struct node) list;
	uint64_t value[NVALUES];
};

static uint64_t mix(uint64_t sum, uint64_t value)
{
	return (sum ^ value) * 0x100000001b3u + (sum >> 40);
}

/* How far apart the words of a block are that the program uses: of a big one there is
 * space, but little to log. */
static uint64_t step_of(uint64_t len)
{
	return len < BIG_LEN ? 8 : 1 << 16;
}

static uint64_t sum_bytes(uint64_t sum, const unsigned char *p, uint64_t len)
{
	uint64_t word, step = step_of(len);

	for (; len >= 8; len -= step, p += step) {
		memcpy(&word, p, 8);
		sum = mix(sum, word);
		if (len < step)
			return sum;
	}
	for (; len > 0; len--)
		sum = mix(sum, *p++);
	return sum;
}

/* All that the program has in the pool; 0: it has nothing. */
static uint64_t sum_of(struct fm_info *fi)
{
	const struct top *top = fm_root_get(fi, "top", NULL);
	const struct node *node;
	uint64_t sum = 1, i = 0;

	if (top == NULL)
		return 0;
	sum = mix(sum, top->number);
	sum = sum_bytes(sum, (const unsigned char *)top->value, sizeof(top->value));
	for (node = fm_get(top->list); node != NULL && i <= top->n; i++) {
		if (fmalloc_usable_size(node) < sizeof(*node) ||
		    fmalloc_usable_size(fm_get(node->block)) < node->block_len)
			return 2;
		sum = mix(sum, node->value);
		sum = sum_bytes(sum, fm_get(node->block), node->block_len);
		node = fm_get(node->next);
	}
	return i == top->n ? sum : 3;
}

#define MODELS_MAX 4096u

struct program {
	uint64_t seed;
	uint64_t ncommits;          /* made so far */
	uint64_t model[MODELS_MAX]; /* sums, by number; 0 is the new pool */
	struct recording recording;
};

static void fill(unsigned char *block, uint64_t len, unsigned char with)
{
	uint64_t step = step_of(len), at;

	if (step == 8)
		memset(block, with, len);
	else
		for (at = 0; at < len; at += step)
			memset(block + at, with, 8);
}

static void add_node(struct program *p, struct top *top, uint64_t len)
{
	struct node *node = fmalloc(sizeof(*node));
	unsigned char *block = fmalloc(len);

	assert_non_null(node);
	assert_non_null(block);
	fill(block, len, rnd(&p->seed));
	node->value = rnd(&p->seed);
	node->block_len = len;
	fm_set(node->block, block);
	fm_set(node->next, fm_get(top->list));
	fm_set(top->list, node);
	top->n++;
}

static void remove_node(struct top *top)
{
	struct node *node = fm_get(top->list);

	if (node == NULL)
		return;
	fm_set(top->list, fm_get(node->next));
	ffree(fm_get(node->block));
	ffree(node);
	top->n--;
}

/* The pool grows. */
static void add_big(struct program *p, struct fm_info *fi)
{
	add_node(p, fm_root_get(fi, "top", NULL), BIG_LEN);
}

/* The file can have holes then, and be cut when it is closed. */
static void remove_all(struct fm_info *fi)
{
	struct top *top = fm_root_get(fi, "top", NULL);

	while (top->n > 0)
		remove_node(top);
	assert_int_equal(fm_trim(fi), 0);
}

/* Change something. */
static void work(struct program *p, struct fm_info *fi)
{
	struct top *top = fm_root_alloc(fi, "top", sizeof(*top), "top");
	uint64_t k, i;

	assert_non_null(top);
	switch (rnd(&p->seed) % 9) {
	case 8: /* large enough to be written without a log */
		while (top->n > 10)
			remove_node(top);
		add_node(p, top, 270000 + rnd(&p->seed) % 100000);
		break;
	case 0:
		for (k = rnd(&p->seed) % 20; k > 0; k--)
			add_node(p, top, rnd(&p->seed) % 2000);
		break;
	case 1:
		for (k = rnd(&p->seed) % 20; k > 0; k--)
			remove_node(top);
		break;
	case 2:
		add_node(p, top, 20000 + rnd(&p->seed) % 50000);
		break;
	case 3: /* a long record */
		for (i = 0; i < NVALUES; i++)
			top->value[i] = rnd(&p->seed);
		break;
	case 4:
		k = rnd(&p->seed) % NVALUES;
		memset(&top->value[k], 0, (NVALUES - k) * 8);
		break;
	default:
		for (k = rnd(&p->seed) % 10; k > 0; k--)
			top->value[rnd(&p->seed) % NVALUES] = rnd(&p->seed);
		break;
	}
}

static void commit(struct program *p, struct fm_info *fi)
{
	struct top *top = fm_root_get(fi, "top", NULL);
	uint64_t number = p->ncommits + 1;

	assert_true(number < MODELS_MAX);
	top->number = number;
	p->model[number] = sum_of(fi);
	recorder_note(OP_BEGIN, number);
	if (fmalloc_commit(fi) != 0)
		fail_msg("%s", fm_errmsg());
	recorder_note(OP_ACK, number);
	p->ncommits = number;
}

/* Closing commits nothing new, and makes a checkpoint. */
static struct fm_info *reopen(struct fm_info *fi)
{
	assert_int_equal(fmalloc_close(fi), 0);
	fi = fmalloc_open(P, 0, NULL);
	assert_non_null(fi);
	fmalloc_set_target(fi);
	return fi;
}

static struct fm_info *open_pool(void)
{
	struct fm_info *fi = fmalloc_open(P, FM_CREATE | FM_ATOMIC, NULL);

	assert_non_null(fi);
	fmalloc_set_target(fi);
	return fi;
}

static uint64_t inode_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_ino;
}

static void run_program(struct program *p, unsigned ncommits)
{
	struct fm_info *fi = open_pool();
	unsigned i;

	/* Making it is not part of this. */
	assert_int_equal(fmalloc_close(fi), 0);
	file_copy(P, START);
	recorder_start(inode_of(P), &p->recording, NULL);
	fi = open_pool();
	for (i = 0; i < ncommits; i++) {
		work(p, fi);
		if (rnd(&p->seed) % 10 == 0) {
			recorder_note(OP_ROLLBACK, 0);
			assert_int_equal(fmalloc_rollback(fi), 0);
		}
		work(p, fi);
		commit(p, fi);
		if (i % 40 == 20)
			add_big(p, fi);
		if (i % 40 == 30)
			remove_all(fi);
		if (i % 40 == 39)
			fi = reopen(fi);
	}
	assert_int_equal(fmalloc_close(fi), 0);
	recorder_stop();
}

/* --- files that could be ------------------------------------------------------ */

static void do_all(struct image *im, const struct op *op)
{
	if (op->kind == OP_LENGTH)
		image_set_length(im, op->len);
	else if (op->kind == OP_ZERO)
		image_zero(im, op->off, op->len);
	if (op->kind != OP_WRITE)
		return;
	/* It makes the file longer, too. */
	if (op->off + op->len > im->len)
		image_set_length(im, op->off + op->len);
	image_write(im, op->data, op->off, op->len);
}

/* Some sectors of a write. */
static void do_sectors(struct image *im, const struct op *op, uint64_t *seed,
		       unsigned odds)
{
	uint64_t at, n;

	for (at = 0; at < op->len; at += n) {
		n = SECTOR - (op->off + at) % SECTOR;
		if (n > op->len - at)
			n = op->len - at;
		if (rnd(seed) % 100 < odds)
			image_write(im, op->data + at, op->off + at, n);
	}
}

static bool is_meta(const struct op *op)
{
	return op->kind == OP_LENGTH || op->kind == OP_ZERO;
}

/* Operations [from, to) have not been synced: do any part of them.  What is about
 * the file itself is in the journal of the file system, so of that a beginning is
 * done. */
static void do_some(struct image *im, const struct recording *r, size_t from, size_t to,
		    uint64_t *seed)
{
	static const unsigned all_odds[] = { 0, 3, 50, 90, 97, 100 };
	unsigned odds = all_odds[rnd(seed) % 6], own = rnd(seed) % 3;
	uint64_t nmeta = 0, m = 0;
	size_t i;

	for (i = from; i < to; i++)
		nmeta += is_meta(&r->op[i]);
	nmeta = own == 0 ? nmeta : rnd(seed) % (nmeta + 1);
	for (i = from; i < to; i++)
		if (r->op[i].kind == OP_WRITE)
			do_sectors(im, &r->op[i], seed,
				   own == 2 ? all_odds[rnd(seed) % 6] : odds);
		else if (is_meta(&r->op[i]) && m++ < nmeta)
			do_all(im, &r->op[i]);
}

/* --- judging ------------------------------------------------------------------ */

struct judge {
	const struct program *p;
	uint64_t acked, begun; /* commits */
	uint64_t nstates, nprefixes, nrecoveries, nwrong;
	unsigned nthings[NTHINGS]; /* in the recording */
	char first[1024];          /* what was wrong first */
};

static void wrong(struct judge *j, const char *what, const char *more)
{
	if (j->nwrong++ == 0)
		snprintf(j->first, sizeof(j->first),
			 "state %llu, after commit %llu of %llu:"
			 " %s %.700s",
			 (unsigned long long)j->nstates, (unsigned long long)j->acked,
			 (unsigned long long)j->begun, what, more);
}

static bool is_right(const struct judge *j, uint64_t sum)
{
	return sum == j->p->model[j->acked] || sum == j->p->model[j->begun];
}

static void judge_state(struct judge *j, const struct image *im)
{
	struct fm_info *fi = fmalloc_open(im->path, FM_RDONLY, NULL);

	j->nstates++;
	if (fi == NULL) {
		wrong(j, "it does not open:", fm_errmsg());
		return;
	}
	if (!is_right(j, sum_of(fi)))
		wrong(j, "it is no commit", "");
	fmalloc_close(fi);
	if (j->nstates % 16 == 0 && fm_check(im->path) != 0)
		wrong(j, "it is damaged:", fm_errmsg());
}

/* Opened for writing, too, and what that does is recorded. */
static void judge_writer(struct judge *j, struct image *im, struct recording *r,
			 uint64_t *sum)
{
	struct fm_info *fi;

	recorder_start(inode_of(im->path), r, im);
	fi = fmalloc_open(im->path, 0, NULL);
	*sum = fi != NULL ? sum_of(fi) : 0;
	if (fi == NULL)
		wrong(j, "it does not open for writing:", fm_errmsg());
	else if (!is_right(j, *sum))
		wrong(j, "for a writer it is no commit", "");
	if (fi != NULL && fmalloc_close(fi) != 0)
		wrong(j, "it does not close:", fm_errmsg());
	recorder_stop();
	if (fi != NULL && fm_check(im->path) != 0)
		wrong(j, "after a writer it is damaged:", fm_errmsg());
}

/* --- trying ------------------------------------------------------------------- */

/* The one that the file names, which is this process, was of another boot. */
static void end_writer(struct image *im)
{
	image_zero(im, offsetof(struct fm_super_disk, writer),
		   sizeof(struct fm_writer_disk));
}

/* What a recovery does, interrupted anywhere, must not change what is found. */
static void try_recovery(struct judge *j, struct image *im, uint64_t *seed)
{
	struct recording r;
	struct program after = { .seed = 0 };
	struct judge inner = { .p = &after };
	size_t before = im->n, from = 0, at, i, synced;

	judge_writer(j, im, &r, &after.model[0]);
	image_undo(im, before);
	synced = before;
	for (at = 0; at < r.n; at++) {
		if (r.op[at].kind != OP_SYNC && rnd(seed) % 4 != 0)
			continue;
		/* A part of what was not synced. */
		do_some(im, &r, from, at, seed);
		end_writer(im);
		judge_state(&inner, im);
		image_undo(im, synced);
		if (r.op[at].kind != OP_SYNC)
			continue;
		for (i = from; i < at; i++)
			do_all(im, &r.op[i]);
		synced = im->n;
		from = at;
	}
	image_undo(im, before);
	j->nrecoveries++;
	j->nstates += inner.nstates;
	if (inner.nwrong > 0)
		wrong(j, "in a recovery:", inner.first);
	recording_free(&r);
}

/* All that could be between two syncs: operations [from, to). */
static void try_interval(struct judge *j, struct image *im, size_t from, size_t to,
			 unsigned nparts, uint64_t *seed)
{
	const struct recording *r = &j->p->recording;
	size_t i;

	for (i = from; i < to; i++) {
		if (r->op[i].kind == OP_BEGIN)
			j->begun = r->op[i].off;
		if (r->op[i].kind == OP_ACK)
			j->acked = r->op[i].off;
		do_all(im, &r->op[i]);
		if (nparts > 0) {
			judge_state(j, im);
			j->nprefixes++;
		}
	}
	/* An acknowledgement without a sync holds for what follows it. */
	for (i = 0; i < nparts && to > from; i++) {
		image_undo(im, 0);
		do_some(im, r, from, to, seed);
		judge_state(j, im);
		if (rnd(seed) % 40 == 0)
			try_recovery(j, im, seed);
	}
	image_undo(im, 0);
	for (i = from; i < to; i++)
		do_all(im, &r->op[i]);
	image_keep(im);
}

/* Whether things may go wrong anywhere, or where a sync was left out. */
static bool wrong_anywhere(void)
{
	return planted == PLANT_NONE || planted == PLANT_NO_CHECKSUMS ||
	       planted == PLANT_NOBODYS;
}

static void try_all(struct judge *j, unsigned nparts, uint64_t seed)
{
	const struct recording *r = &j->p->recording;
	bool worth_it = wrong_anywhere();
	size_t from = 0, i;
	struct image im;

	recorder_no_checksums = planted == PLANT_NO_CHECKSUMS;
	image_open(&im, START);
	/* One that is wrong will do to catch a bug. */
	for (i = 0; i < r->n && (planted == PLANT_NONE || j->nwrong == 0); i++) {
		worth_it = worth_it || r->op[i].kind == OP_LOST;
		if (r->op[i].kind != OP_SYNC)
			continue;
		try_interval(j, &im, from, i, worth_it ? nparts : 0, &seed);
		worth_it = wrong_anywhere();
		from = i + 1;
	}
	if (i == r->n)
		try_interval(j, &im, from, i, nparts, &seed);
	image_close(&im);
	recorder_no_checksums = false;
}

static uint64_t env(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value != NULL ? strtoull(value, NULL, 10) : otherwise;
}

static void run(struct judge *j, unsigned ncommits, uint64_t nstates)
{
	enum op_kind where = wrong_anywhere() ? OP_SYNC : OP_LOST;
	static struct program p;
	uint64_t nplaces = 1;
	size_t i;

	memset(&p, 0, sizeof(p));
	p.seed = env("POWER_SEED", 1);
	recorder_no_checksums = planted == PLANT_NO_CHECKSUMS;
	run_program(&p, ncommits);
	for (i = 0; i < p.recording.n; i++)
		nplaces += p.recording.op[i].kind == where;
	memset(j, 0, sizeof(*j));
	j->p = &p;
	recording_count(&p.recording, file_size(START), j->nthings);
	nplaces = nstates / nplaces + 1;
	try_all(j, planted != PLANT_NONE && nplaces < 12 ? 12 : nplaces, p.seed + 1);
	recording_free(&p.recording);
}

/* --- cases -------------------------------------------------------------------- */

/* What is not in the recording has not been tried. */
static void has_everything(const unsigned n[NTHINGS])
{
	static const char *const name[NTHINGS] = {
		[THING_COMMIT] = "commits",
		[THING_CHECKPOINT] = "checkpoints",
		[THING_ROLLBACK] = "rollbacks",
		[THING_GROWTH] = "growths of the file",
		[THING_CUT] = "cuts of the file",
		[THING_HOLE] = "holes",
		[THING_LOG_GROWTH] = "growths of the log",
		[THING_LOG_SHRINKING] = "shrinkings of the log",
	};
	unsigned i;

	for (i = 0; i < NTHINGS; i++)
		print_message("# %u %s\n", n[i], name[i]);
	for (i = 0; i < NTHINGS; i++)
		if (n[i] == 0)
			fail_msg("the program has no %s", name[i]);
}

static void any_failure_leaves_a_commit(void **state)
{
	struct judge j;

	(void)state;
	planted = PLANT_NONE;
	run(&j, env("POWER_COMMITS", 120), env("POWER_STATES", 1000));
	print_message(
		"# %llu states: %llu are prefixes, %llu were opened for writing\n",
		(unsigned long long)j.nstates, (unsigned long long)j.nprefixes,
		(unsigned long long)j.nrecoveries);
	has_everything(j.nthings);
	if (j.nwrong > 0)
		fail_msg("%llu wrong; %s", (unsigned long long)j.nwrong, j.first);
}

static void is_caught(enum plant bug)
{
	struct judge j;

	planted = bug;
	run(&j, NCOMMITS_PLANTED, 600);
	planted = PLANT_NONE;
	print_message("# %llu states until %s\n", (unsigned long long)j.nstates,
		      j.first);
	assert_true(j.nwrong > 0);
}

static void a_record_that_is_not_synced_is_caught(void **state)
{
	(void)state;
	is_caught(PLANT_NO_SYNC_OF_RECORDS);
}

static void a_checkpoint_before_its_sync_is_caught(void **state)
{
	(void)state;
	is_caught(PLANT_NO_SYNC_OF_HOME);
}

static void a_lap_that_is_not_synced_is_caught(void **state)
{
	(void)state;
	is_caught(PLANT_NO_SYNC_OF_LAPS);
}

static void growth_that_is_not_synced_is_caught(void **state)
{
	(void)state;
	is_caught(PLANT_NO_SYNC_OF_GROWTH);
}

static void a_page_that_is_in_a_commit_and_written_is_caught(void **state)
{
	(void)state;
	is_caught(PLANT_NOBODYS);
}

static void a_record_without_checksum_is_caught(void **state)
{
	(void)state;
	is_caught(PLANT_NO_CHECKSUMS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		scratch_test(any_failure_leaves_a_commit),
		scratch_test(a_record_that_is_not_synced_is_caught),
		scratch_test(a_checkpoint_before_its_sync_is_caught),
		scratch_test(a_lap_that_is_not_synced_is_caught),
		scratch_test(growth_that_is_not_synced_is_caught),
		scratch_test(a_record_without_checksum_is_caught),
		scratch_test(a_page_that_is_in_a_commit_and_written_is_caught),
	};

	return cmocka_run_group_tests_name("power", tests, NULL, NULL);
}
