/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that uses a pool without pause while the daemon of its mount dies.
 *
 *   daemon-user make POOL KIND   make the pool, atomic or live
 *   daemon-user write POOL ACK   commit numbered states to it until it is told to stop;
 *                                what was committed is in the file ACK
 *   daemon-user read POOL        at each byte of standard input, refresh and say the state
 *   daemon-user verify POOL ACK KIND   the pool holds the last state that was committed,
 *                                or the one after it
 *   daemon-user get ACK FIELD    print a field of ACK: n, len, error
 *   daemon-user ask ACK [N]      have the writer grow the pool and make a checkpoint, and
 *                                wait until it has, trying N times while there are
 *                                readers: 1 if that failed
 *   daemon-user stop ACK         have the writer close the pool and end
 *
 * A state is a number, all over a block; and a list, which gets longer when asked.
 */
#include <fmalloc.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { NWORDS = 2048, LINK_LEN = 64 << 10, NLINKS = 16, WAIT_MS = 20000, NTRIES = 1000 };

/* What is shared with the script, in a file that no daemon has. */
struct ack {
	volatile uint64_t n;		/* of the last state that was committed */
	volatile uint64_t asked, grown;	/* times */
	volatile uint64_t stop;
	volatile uint64_t grow_error;	/* errno of that, or 0 */
	volatile uint64_t error;	/* of the last commit */
	volatile uint64_t file_len;
};

struct link {
	FM_PTR(struct link) next;
	uint64_t bytes[LINK_LEN / 8 - 1];
};

struct state {
	uint64_t word[NWORDS];
	uint64_t nlinks;
	FM_PTR(struct link) first;
};

static int fail(const char *what)
{
	fprintf(stderr, "daemon-user: %s: %s\n", what, fm_errmsg());
	return 1;
}

static struct ack *map_ack(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT, 0666);
	void *mem;

	if (fd < 0 || ftruncate(fd, sizeof(struct ack)) < 0)
		return NULL;
	mem = mmap(NULL, sizeof(struct ack), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return mem == MAP_FAILED ? NULL : mem;
}

static int make(const char *path, int atomic)
{
	struct fm_info *fi = fmalloc_open(path, FM_CREATE | (atomic ? FM_ATOMIC : 0), NULL);

	return fi != NULL && fmalloc_close(fi) == 0 ? 0 : fail(path);
}

/* --- the writer ------------------------------------------------------------ */

static int add_link(struct fm_info *fi, struct state *s)
{
	struct link *l = fmalloc_in(fi, sizeof(*l));

	if (l == NULL)
		return -1;
	memset(l->bytes, 0xab, sizeof(l->bytes));
	fm_set(l->next, fm_get(s->first));
	fm_set(s->first, l);
	s->nlinks++;
	return 0;
}

/* With no memory to keep, a commit makes a checkpoint. */
static int grow(struct fm_info *fi, struct state *s, struct ack *ack)
{
	struct fm_stats stats = { .size = sizeof(stats) };
	int i, rc = 0;

	for (i = 0; i < NLINKS && rc == 0 && ack->grow_error != EBUSY; i++)
		rc = add_link(fi, s);
	fm_set_private_limit(fi, 0);
	if (rc == 0)
		rc = fmalloc_commit(fi);
	fm_set_private_limit(fi, UINT64_MAX);
	if (rc == 0)
		rc = fm_stat(fi, &stats);
	ack->file_len = stats.file_len;
	if (rc != 0 || stats.log_used_len == 0)
		return rc;
	errno = EBUSY;	/* there are readers */
	return -1;
}

static void set_state(struct state *s, uint64_t n)
{
	for (int i = 0; i < NWORDS; i++)
		s->word[i] = n;
}

static int is_state(const struct state *s, uint64_t n)
{
	for (int i = 0; i < NWORDS; i++)
		if (s->word[i] != n)
			return 0;
	return 1;
}

static uint64_t error_of(int rc, const char *what)
{
	if (rc == 0)
		return 0;
	if (errno != EBUSY)
		fail(what);
	return errno;
}

static int commit_state(struct fm_info *fi, struct state *s, struct ack *ack, uint64_t n)
{
	set_state(s, n);
	ack->error = error_of(fmalloc_commit(fi), "commit");
	if (ack->error == 0) {
		ack->n = n;
		return 0;
	}
	if (!is_state(s, n)) {
		fprintf(stderr, "daemon-user: memory is not what it was\n");
		return 1;
	}
	usleep(10000);
	return 0;
}

static int write_states(struct fm_info *fi, struct state *s, struct ack *ack)
{
	uint64_t n = s->word[0];
	int status = 0;

	ack->grown = ack->asked;
	while (status == 0 && !ack->stop) {
		if (ack->asked != ack->grown) {
			ack->grow_error = error_of(grow(fi, s, ack), "grow");
			ack->grown = ack->asked;
		}
		/* What could not be committed stays what it is. */
		status = commit_state(fi, s, ack, ack->error != 0 ? n : ++n);
	}
	return status;
}

/* Without passthrough what is not in memory is a signal when the daemon has died. */
static int read_all(struct fm_info *fi)
{
	struct fm_stats stats = { .size = sizeof(stats) };
	const volatile char *mem = fi->mem;
	uint64_t off;

	if (fm_stat(fi, &stats) != 0)
		return -1;
	for (off = 0; off < stats.heap_end; off += 4096)
		(void)mem[off];
	return 0;
}

static int run_writer(const char *path, const char *ack_path)
{
	struct ack *ack = map_ack(ack_path);
	struct fm_info *fi = fmalloc_open(path, 0, NULL);
	struct state *s = fi == NULL ? NULL
				     : fm_root_alloc(fi, "state", sizeof(*s), "state");
	int status;

	if (s == NULL || ack == NULL || read_all(fi) != 0)
		return fail(path);
	/* The path that the pool had stays its path. */
	if (chdir("/") != 0)
		return 1;
	status = write_states(fi, s, ack);
	return fmalloc_close(fi) == 0 ? status : fail("close");
}

/* errno of what the writer did, or ETIMEDOUT. */
static uint64_t ask_once(struct ack *ack)
{
	int ms;

	ack->asked++;
	for (ms = 0; ms < WAIT_MS && ack->grown != ack->asked; ms++)
		usleep(1000);
	return ack->grown == ack->asked ? ack->grow_error : ETIMEDOUT;
}

/* The daemon itself is a reader for moments, when it looks for roots; and the lock of one
 * that has gone goes when the daemon hears of it. */
static int ask(const char *ack_path, int ntries)
{
	struct ack *ack = map_ack(ack_path);
	uint64_t err = EBUSY;
	int tries;

	for (tries = 0; ack != NULL && tries < ntries && err == EBUSY; tries++) {
		err = ask_once(ack);
		usleep(10000);
	}
	return err != 0;
}

/* --- those that read ------------------------------------------------------- */

static int check_links(const struct state *s)
{
	const struct link *l;
	uint64_t n = 0, i;

	for (l = fm_get(s->first); l != NULL; l = fm_get(l->next), n++)
		for (i = 0; i < sizeof(l->bytes) / 8; i++)
			if (l->bytes[i] != UINT64_C(0xabababababababab))
				return 0;
	return n == s->nlinks;
}

static int run_reader(const char *path)
{
	struct fm_info *fi = fmalloc_open(path, FM_RDONLY, NULL);
	const struct state *s;

	setlinebuf(stdout);
	if (fi == NULL)
		return fail(path);
	puts("ready");
	while (getchar() != EOF) {
		if (fm_refresh(fi) != 0) {
			printf("error %s\n", fm_errmsg());
			continue;
		}
		s = fm_root_get(fi, "state", "state");
		if (s == NULL)
			return fail("root");
		printf("%s %llu\n", is_state(s, s->word[0]) && check_links(s) ? "whole"
									      : "torn",
		       (unsigned long long)s->word[0]);
	}
	return fmalloc_close(fi) == 0 ? 0 : fail("close");
}

/* A live pool may have some of the state that was being stored. */
static int has_state(const struct state *s, uint64_t n, int atomic)
{
	for (int i = 0; i < NWORDS && !atomic; i++)
		if (s->word[i] != n && s->word[i] != n + 1)
			return 0;
	return !atomic || is_state(s, n) || is_state(s, n + 1);
}

static int verify(const char *path, const char *ack_path, int atomic)
{
	struct ack *ack = map_ack(ack_path);
	struct fm_info *fi = fmalloc_open(path, FM_RDONLY, NULL);
	const struct state *s = fi == NULL ? NULL : fm_root_get(fi, "state", "state");

	if (ack == NULL || s == NULL)
		return fail(path);
	if (!has_state(s, ack->n, atomic) || (atomic && !check_links(s))) {
		fprintf(stderr, "daemon-user: state %llu, and %llu was committed\n",
			(unsigned long long)s->word[0], (unsigned long long)ack->n);
		return 1;
	}
	return 0;
}

static int print_field(const char *ack_path, const char *field)
{
	struct ack *ack = map_ack(ack_path);

	if (ack == NULL)
		return 1;
	printf("%llu\n", (unsigned long long)(strcmp(field, "n") == 0	    ? ack->n
					      : strcmp(field, "len") == 0 ? ack->file_len
									    : ack->error));
	return 0;
}

static int stop(const char *ack_path)
{
	struct ack *ack = map_ack(ack_path);

	if (ack != NULL)
		ack->stop = 1;
	return ack == NULL;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 2 ? argv[1] : "";

	if (strcmp(verb, "make") == 0 && argc == 4)
		return make(argv[2], strcmp(argv[3], "atomic") == 0);
	if (strcmp(verb, "write") == 0 && argc == 4)
		return run_writer(argv[2], argv[3]);
	if (strcmp(verb, "read") == 0)
		return run_reader(argv[2]);
	if (strcmp(verb, "verify") == 0 && argc == 5)
		return verify(argv[2], argv[3], strcmp(argv[4], "atomic") == 0);
	if (strcmp(verb, "get") == 0 && argc == 4)
		return print_field(argv[2], argv[3]);
	if (strcmp(verb, "ask") == 0)
		return ask(argv[2], argc > 3 ? atoi(argv[3]) : NTRIES);
	if (strcmp(verb, "stop") == 0)
		return stop(argv[2]);
	fprintf(stderr, "daemon-user: wrong usage\n");
	return 2;
}
