/* SPDX-License-Identifier: Apache-2.0 */
/*
 * heap-user VERB [ARGUMENT]: a program that knows nothing of pools, and uses the heap
 * as programs do.  What it checks holds for any malloc; the tests run it with that of
 * libfmalloc-preload.so.
 *   served PATH     the heap is in the file PATH (or one whose name begins so)
 *   api             what malloc(3) and its kin promise
 *   threads         blocks of one thread are freed by others; threads that end free
 *   fork            neither of two processes sees what the other stores
 *   fork-threads    forking while other threads allocate
 *   fork-stdio      forking while other threads are in stdio
 *   fork-detached   forking when threads that allocated nothing are gone
 *   fork-frees      a child gives back what its parent goes on behind
 *   fork-starved    a child asks for memory that it may not be able to have
 *   closed FILE     all descriptors are closed, FILE is opened, the heap grows
 *   closed-fork     the same, and then it forks
 *   modules         shared libraries come and go
 *   locked          all memory is locked, and that is not much
 *   fill MIB        allocate and write until there is no memory, which is before
 *                   so much
 *   closed-fill MIB the same, all descriptors closed
 *   exec PROGRAM... run the program, with the environment as it is
 *   set N SETTING... PROGRAM...
 *                   the same, with N settings before all others
 *   touch MIB       write so much, read it; prints MiB of it in anonymous memory
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1u << 20)

static void need(bool good, int line, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "heap-user: line %d: %s (errno %d)\n", line, what, errno);
	_exit(1);
}
#define NEED(cond) need((cond), __LINE__, #cond)

/* What the compiler must not know. */
static void *(*volatile resize)(void *, size_t) = realloc;
static void *(*volatile resize_array)(void *, size_t, size_t) = reallocarray;
static volatile size_t zero, much = SIZE_MAX, half = SIZE_MAX / 2 + 1;

static void *filled(size_t len, int byte)
{
	void *mem = malloc(len);

	NEED(mem != NULL);
	return memset(mem, byte, len);
}

static bool is_filled(const unsigned char *mem, size_t len, int byte)
{
	return mem[0] == (unsigned char)byte && memcmp(mem, mem + 1, len - 1) == 0;
}

static uint32_t next(uint32_t *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 8;
}

/* --- whose heap --------------------------------------------------------------------- */

static int served(const char *path)
{
	uintptr_t at = (uintptr_t)filled(100, 1), from, to;
	char line[4096], file[4096];
	bool found = false;
	FILE *f = fopen("/proc/self/maps", "r");

	NEED(f != NULL);
	while (!found && fgets(line, sizeof(line), f) != NULL) {
		file[0] = '\0';
		NEED(sscanf(line, "%lx-%lx %*s %*s %*s %*s %4095s", &from, &to,
			    file) >= 2);
		found = at >= from && at < to;
	}
	if (!found || strncmp(file, path, strlen(path)) != 0) {
		fprintf(stderr, "heap-user: memory is of '%s'\n",
			found ? file : "nothing");
		return 1;
	}
	return 0;
}

/* --- the interface -------------------------------------------------------------------- */

static void refuses(void *mem, int err)
{
	NEED(mem == NULL && errno == err);
	errno = 0;
}

static void sizes(void)
{
	unsigned char *a, *b;
	size_t len;

	a = malloc(zero);
	b = malloc(zero);
	NEED(a != NULL && b != NULL && a != b);
	free(a);
	free(b);
	free(NULL);
	for (len = 1; len < 300u * MIB; len = len * 3 + 1) {
		a = filled(len, 'a');
		NEED((uintptr_t)a % 16 == 0);
		NEED(malloc_usable_size(a) >= len);
		memset(a, 'b', malloc_usable_size(a));
		free(a);
	}
	NEED(malloc_usable_size(NULL) == 0);
	errno = 0;
	refuses(malloc(much), ENOMEM);
	refuses(malloc(half), ENOMEM);
	refuses(malloc(half - 1), ENOMEM);
	refuses(malloc(half / 16), ENOMEM);
}

static void clearing(void)
{
	size_t len;
	void *mem;
	int i;

	for (len = 10; len < 50u * MIB; len *= 7)
		for (i = 0; i < 3; i++) {
			free(filled(len, 'x'));
			mem = calloc(len / 10, 10);
			NEED(mem != NULL && is_filled(mem, len / 10 * 10, 0));
			free(mem);
		}
	errno = 0;
	refuses(calloc(half, 2), ENOMEM);
	refuses(calloc(much, much), ENOMEM);
}

static void resizing(void)
{
	unsigned char *mem = NULL, *same;
	size_t len, old = 0;

	for (len = 1; len < 200u * MIB; old = len, len = len * 5 / 2 + 1) {
		mem = realloc(mem, len);
		NEED(mem != NULL);
		NEED(old == 0 || is_filled(mem, old, 'r'));
		memset(mem, 'r', len);
	}
	for (; old > 1; old /= 3) {
		mem = realloc(mem, old);
		NEED(mem != NULL && is_filled(mem, old, 'r'));
	}
	errno = 0;
	same = mem;
	refuses(resize(mem, much), ENOMEM);
	refuses(resize_array(mem, half, 4), ENOMEM);
	NEED(same[0] == 'r');
	mem = reallocarray(same, 1000, 1000);
	NEED(mem != NULL && mem[0] == 'r');
	NEED(realloc(mem, zero) == NULL);
	mem = realloc(NULL, zero);
	NEED(mem != NULL);
	free(mem);
}

static void alignment(void)
{
	void *mem = NULL;
	size_t align;

	for (align = sizeof(void *); align <= 4 * MIB; align *= 2) {
		NEED(posix_memalign(&mem, align, 100) == 0);
		NEED((uintptr_t)mem % align == 0);
		memset(mem, 1, 100);
		free(mem);
		mem = aligned_alloc(align, align);
		NEED(mem != NULL && (uintptr_t)mem % align == 0);
		free(mem);
		mem = memalign(align, 3 * align + 5);
		NEED(mem != NULL && (uintptr_t)mem % align == 0);
		memset(mem, 1, 3 * align + 5);
		free(mem);
	}
	mem = valloc(5000);
	NEED(mem != NULL && (uintptr_t)mem % 4096 == 0);
	free(mem);
	mem = pvalloc(5000);
	NEED(mem != NULL && (uintptr_t)mem % 4096 == 0);
	NEED(malloc_usable_size(mem) >= 8192);
	free(mem);
	mem = memalign(48, 10);		/* the next power of two */
	NEED(mem != NULL && (uintptr_t)mem % 64 == 0);
	free(mem);
	mem = &align;
	errno = 7;
	NEED(posix_memalign(&mem, 24, 10) == EINVAL && mem == &align);
	NEED(posix_memalign(&mem, 4, 10) == EINVAL && mem == &align);
	NEED(posix_memalign(&mem, zero, 10) == EINVAL && mem == &align);
	NEED(posix_memalign(&mem, 64, much - 100) == ENOMEM && mem == &align);
	NEED(errno == 7);
	refuses(aligned_alloc(64, much - 100), ENOMEM);
	refuses(pvalloc(much), ENOMEM);
}

static void errno_is_kept(void)
{
	void *small = malloc(100), *big = malloc(80u * MIB);

	errno = 42;
	free(small);
	free(big);
	free(NULL);
	NEED(errno == 42);
	small = malloc(10);
	NEED(errno == 42);
	free(small);
}

static int api(void)
{
	sizes();
	clearing();
	resizing();
	alignment();
	errno_is_kept();
	return 0;
}

/* --- threads --------------------------------------------------------------------------- */

#define NTHREADS 4
#define NSLOTS 10000

static void *slots[NSLOTS];	/* atomic */

/* Put blocks of any size into slots, and free what others had put there. */
static void *exchange(void *arg)
{
	uint32_t seed = (uintptr_t)arg, len;
	unsigned char *mem;
	int i;

	for (i = 0; i < 300000; i++) {
		len = 16 + next(&seed) % (i % 100 == 0 ? 100000 : 500);
		mem = filled(len, len);
		memcpy(mem, &len, sizeof(len));
		mem = __atomic_exchange_n(&slots[next(&seed) % NSLOTS], mem,
					  __ATOMIC_ACQ_REL);
		if (mem == NULL)
			continue;
		memcpy(&len, mem, sizeof(len));
		NEED(is_filled(mem + sizeof(len), len - sizeof(len), len));
		free(mem);
	}
	return NULL;
}

static pthread_key_t keys[100];

/* As the destructor of all keys, in each round. */
static void free_own(void *mem)
{
	free(mem);
	free(filled(3000, 1));
}

static void *end_with_memory(void *arg)
{
	size_t i;

	for (i = 0; i < 100; i++)
		NEED(pthread_setspecific(keys[i], filled(100 + i, i)) == 0);
	return arg;
}

static void run(int n, void *(*fn)(void *))
{
	pthread_t thread[NTHREADS];
	uintptr_t i;

	for (i = 0; i < (uintptr_t)n; i++)
		NEED(pthread_create(&thread[i], NULL, fn, (void *)(i + 1)) == 0);
	for (i = 0; i < (uintptr_t)n; i++)
		NEED(pthread_join(thread[i], NULL) == 0);
}

static void make_keys(void)
{
	int i;

	for (i = 0; i < 100; i++)
		NEED(pthread_key_create(&keys[i], free_own) == 0);
}

static int threads(void)
{
	int i;

	run(NTHREADS, exchange);
	for (i = 0; i < NSLOTS; i++)
		free(slots[i]);
	make_keys();
	for (i = 0; i < 300; i++)
		run(1, end_with_memory);
	return 0;
}

/* --- fork ------------------------------------------------------------------------------- */

static void wait_for_good_end(pid_t pid)
{
	int status = -1;

	NEED(waitpid(pid, &status, 0) == pid);
	NEED(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

#define NBLOCKS 3000

#define BIG_LEN (20u * MIB)

/* Blocks of many sizes, and one that makes the heap grow. */
struct set {
	unsigned char *big;
	unsigned char *block[NBLOCKS];
	size_t len[NBLOCKS];
	int byte;
};

static void make_set(struct set *s, int byte)
{
	uint32_t seed = byte;
	int i;

	s->byte = byte;
	s->big = filled(BIG_LEN, byte);
	for (i = 0; i < NBLOCKS; i++) {
		s->len[i] = 1 + next(&seed) % (i % 100 == 0 ? 300000 : 3000);
		s->block[i] = filled(s->len[i], byte);
	}
}

static void check_set(const struct set *s)
{
	int i;

	NEED(is_filled(s->big, BIG_LEN, s->byte));
	for (i = 0; i < NBLOCKS; i++)
		NEED(is_filled(s->block[i], s->len[i], s->byte));
}

/* Free the big one and half of the others, resize some, store into all. */
static void change_set(struct set *s, int byte)
{
	int i;

	for (i = 0; i < NBLOCKS; i++) {
		if (i % 2 == 0) {
			free(s->block[i]);
			s->len[i] = s->len[i] / 2 + 10;
			s->block[i] = malloc(s->len[i]);
		} else if (i % 3 == 0) {
			s->len[i] *= 2;
			s->block[i] = realloc(s->block[i], s->len[i]);
		}
		NEED(s->block[i] != NULL);
		memset(s->block[i], byte, s->len[i]);
	}
	free(s->big);
	s->big = filled(BIG_LEN, byte);
	s->byte = byte;
}

static struct set *new_set(int byte)
{
	struct set *s = filled(sizeof(*s), 0);

	make_set(s, byte);
	return s;
}

static void free_set(struct set *s)
{
	int i;

	check_set(s);
	free(s->big);
	for (i = 0; i < NBLOCKS; i++)
		free(s->block[i]);
	free(s);
}

/* Each generation changes what it has, while the one before does the same. */
static void generations(struct set *s, int n)
{
	struct set *more;
	int to_child[2];
	pid_t pid;
	char go;

	check_set(s);
	if (n == 0)
		return;
	NEED(pipe(to_child) == 0);
	pid = fork();
	NEED(pid >= 0);
	if (pid == 0) {
		/* The parent has stored into all that it has. */
		NEED(read(to_child[0], &go, 1) == 1);
		check_set(s);
		change_set(s, 'c' + n);
		more = new_set('m' + n);
		generations(s, n - 1);
		free_set(more);
		free_set(s);
		_exit(0);
	}
	change_set(s, 'p' - n);
	more = new_set('P' + n);
	NEED(write(to_child[1], "", 1) == 1);
	change_set(s, 'q' - n);
	wait_for_good_end(pid);
	check_set(s);
	free_set(more);
	close(to_child[0]);
	close(to_child[1]);
}

static int do_fork(void)
{
	struct set *s = new_set('a');

	generations(s, 3);
	generations(s, 1);
	free_set(s);
	return 0;
}

static bool stop;	/* atomic */

static void *allocate(void *arg)
{
	static __thread unsigned char *own[500];
	uint32_t seed = (uintptr_t)arg, i, len;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		i = next(&seed) % 500;
		free(own[i]);
		len = 1 + next(&seed) % (i == 0 ? 3 * MIB : 2000);
		own[i] = malloc(len);
		NEED(own[i] != NULL);
		own[i][0] = own[i][len - 1] = i;
	}
	for (i = 0; i < 500; i++)
		free(own[i]);
	return NULL;
}

static void fork_once(int round)
{
	struct set *s = new_set('a' + round);
	pid_t pid = fork();

	NEED(pid >= 0);
	if (pid == 0) {
		check_set(s);
		change_set(s, 'C');
		run(2, end_with_memory);	/* threads of the child's own */
		free_set(s);
		_exit(0);
	}
	change_set(s, 'P');
	wait_for_good_end(pid);
	free_set(s);
}

static void with_threads(void *(*fn)(void *), void (*once)(int), int nrounds)
{
	pthread_t thread[2];
	int i;

	for (i = 0; i < 2; i++)
		NEED(pthread_create(&thread[i], NULL, fn,
				    (void *)(uintptr_t)(i + 5)) == 0);
	for (i = 0; i < nrounds; i++)
		once(i % 20);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < 2; i++)
		NEED(pthread_join(thread[i], NULL) == 0);
}

static int fork_threads(void)
{
	make_keys();
	with_threads(allocate, fork_once, 40);
	return 0;
}

static FILE *null;

/* Both threads wait for each other at the lock of one stream. */
static void *print(void *arg)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		fprintf(null, "%p", arg);
	return NULL;
}

static void fork_and_exit(int round)
{
	pid_t pid = fork();

	(void)round;
	NEED(pid >= 0);
	if (pid == 0)
		_exit(0);
	wait_for_good_end(pid);
}

static int fork_stdio(void)
{
	null = fopen("/dev/null", "w");
	NEED(null != NULL);
	with_threads(print, fork_and_exit, 1000);
	fclose(null);
	return 0;
}

static void *wait_for_all(void *barrier)
{
	pthread_barrier_wait(barrier);
	return NULL;
}

/* More stacks than the C library keeps: a thread that ends frees what it has for those of
 * others, when all destructors of its own have run. */
static int fork_detached(void)
{
	enum { N = 40 };
	pthread_barrier_t barrier;
	pthread_attr_t detached;
	pthread_t thread;
	int i, round;

	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	for (round = 0; round < 10; round++) {
		NEED(pthread_barrier_init(&barrier, NULL, N + 1) == 0);
		for (i = 0; i < N; i++)
			NEED(pthread_create(&thread, &detached, wait_for_all,
					    &barrier) == 0);
		pthread_barrier_wait(&barrier);
		usleep(50000);
		fork_once(round);
	}
	return 0;
}

/* What lies behind the end that the heap had at the fork is the parent's: blocks of len
 * bytes.  The child does its part when they are there. */
static void go_on_behind(size_t len, void (*in_child)(void))
{
	enum { N = 20 };
	unsigned char *all[N];
	int told[2], i;
	char byte = 0;
	pid_t pid;

	NEED(pipe(told) == 0);
	pid = fork();
	NEED(pid >= 0);
	if (pid == 0) {
		NEED(read(told[0], &byte, 1) == 1);
		in_child();
		_exit(0);
	}
	for (i = 0; i < N; i++)
		all[i] = filled(len, 'a' + i);
	NEED(write(told[1], &byte, 1) == 1);
	wait_for_good_end(pid);
	for (i = 0; i < N; i++) {
		NEED(is_filled(all[i], len, 'a' + i));
		free(all[i]);
	}
	close(told[0]);
	close(told[1]);
}

static unsigned char *last_of_zone;

static void free_last_of_zone(void)
{
	free(last_of_zone);
}

static int fork_frees(void)
{
	unsigned char *first = filled(60 * MIB, 'f');

	last_of_zone = filled(30 * MIB, 's');
	go_on_behind(MIB, free_last_of_zone);
	NEED(is_filled(last_of_zone, 30 * MIB, 's'));
	free(first);
	free(last_of_zone);
	return 0;
}

/* What it asks for lies where its parent has something else by now. */
static void ask_without_descriptors(void)
{
	const struct rlimit none = { 0, 0 };
	int i;

	NEED(setrlimit(RLIMIT_NOFILE, &none) == 0);
	for (i = 0; i < 20; i++)
		if (malloc(3 * MIB) == NULL)
			NEED(errno == ENOMEM);
}

static int fork_starved(void)
{
	go_on_behind(3 * MIB, ask_without_descriptors);
	return 0;
}

/* --- descriptors ------------------------------------------------------------------------ */

static void close_all(void)
{
	int fd;

	for (fd = 3; fd < 65536; fd++)
		close(fd);
}

static void grow(unsigned mib)
{
	unsigned char **all = malloc(mib * sizeof(*all));
	unsigned i;

	NEED(all != NULL);
	for (i = 0; i < mib; i++)
		all[i] = filled(MIB, i);
	for (i = 0; i < mib; i++) {
		NEED(is_filled(all[i], MIB, i));
		free(all[i]);
	}
	free(all);
}

static int closed(const char *path)
{
	struct stat st;
	int fd;

	close_all();
	fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	NEED(fd >= 0);
	/* Whatever number the heap's descriptor had. */
	for (int i = 4; i < 1024; i++)
		dup2(fd, i);
	grow(200);
	NEED(fstat(1023, &st) == 0 && st.st_size == 0 && st.st_blocks == 0);
	return 0;
}

/* --- the rest ---------------------------------------------------------------------------- */

static int modules(void)
{
	int i;

	for (i = 0; i < 50; i++) {
		void *lib = dlopen("libm.so.6", RTLD_NOW), *none;

		NEED(lib != NULL);
		NEED(dlsym(lib, "cos") != NULL);
		none = dlopen("/no/such/library.so", RTLD_NOW);
		NEED(none == NULL && dlerror() != NULL);
		NEED(dlclose(lib) == 0);
	}
	return 0;
}

static int fill(const char *arg)
{
	struct block {
		struct block *next;
		unsigned char bytes[];
	} *b, *all = NULL;
	size_t len = 1 * MIB, most = strtoul(arg, NULL, 10) * MIB, total = 0;

	for (; len >= 1000; len /= 4)
		while ((b = malloc(sizeof(*b) + len)) != NULL) {
			memset(b->bytes, 'f', len);
			b->next = all;
			all = b;
			total += len;
			NEED(total < most);
		}
	NEED(errno == ENOMEM);
	NEED(total > most / 2);
	for (b = all; b != NULL; b = all) {
		NEED(b->bytes[0] == 'f');
		all = b->next;
		free(b);
	}
	free(filled(5u * MIB, 1));
	return 0;
}

static unsigned long status_kb(const char *field)
{
	FILE *f = fopen("/proc/self/status", "r");
	unsigned long kb = 0;
	char line[256];

	NEED(f != NULL);
	while (fgets(line, sizeof(line), f) != NULL)
		if (strncmp(line, field, strlen(field)) == 0)
			kb = strtoul(line + strlen(field), NULL, 10);
	fclose(f);
	return kb;
}

static int locked(void)
{
	NEED(mlockall(0) == -1 && errno == EINVAL);
	NEED(mlockall(MCL_CURRENT | MCL_FUTURE) == 0);
	NEED(status_kb("VmLck:") > 0);
	NEED(status_kb("VmRSS:") < 100 * 1024);
	grow(200);
	NEED(status_kb("VmRSS:") < 300 * 1024);
	return do_fork();
}

static int touch(size_t mib)
{
	uint64_t **all = malloc(mib * sizeof(*all)), sum = 0;
	size_t i, k;

	NEED(all != NULL);
	for (i = 0; i < mib; i++) {
		all[i] = malloc(MIB);
		NEED(all[i] != NULL);
		for (k = 0; k < MIB / 8; k++)
			all[i][k] = i + k;
	}
	for (i = 0; i < mib; i++)
		for (k = 0; k < MIB / 8; k += 512)
			sum += all[i][k];
	NEED(sum == 256 * (mib * (mib - 1) / 2 + mib * 512 * 255 / 2));
	printf("%lu\n", status_kb("RssAnon:") / 1024);
	return 0;
}

extern char **environ;

static int run_program(char **argv)
{
	NEED(argv[0] != NULL);
	execv(argv[0], argv);
	NEED(false);
	return 1;
}

static int set_and_run(char **argv)
{
	size_t n = strtoul(argv[0], NULL, 10), nold = 0, i;
	char **env;

	while (environ[nold] != NULL)
		nold++;
	env = calloc(n + nold + 1, sizeof(*env));
	NEED(env != NULL);
	for (i = 0; i < n; i++) {
		NEED(argv[1 + i] != NULL);
		env[i] = argv[1 + i];
	}
	for (i = 0; i < nold; i++)
		env[n + i] = environ[i];
	environ = env;
	return run_program(argv + 1 + n);
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "", *arg = argc > 2 ? argv[2] : "";

	if (strcmp(verb, "served") == 0)
		return served(arg);
	if (strcmp(verb, "api") == 0)
		return api();
	if (strcmp(verb, "threads") == 0)
		return threads();
	if (strcmp(verb, "fork") == 0)
		return do_fork();
	if (strcmp(verb, "fork-threads") == 0)
		return fork_threads();
	if (strcmp(verb, "fork-stdio") == 0)
		return fork_stdio();
	if (strcmp(verb, "fork-detached") == 0)
		return fork_detached();
	if (strcmp(verb, "fork-frees") == 0)
		return fork_frees();
	if (strcmp(verb, "fork-starved") == 0)
		return fork_starved();
	if (strcmp(verb, "closed") == 0)
		return closed(arg);
	if (strcmp(verb, "closed-fork") == 0)
		return close_all(), do_fork();
	if (strcmp(verb, "modules") == 0)
		return modules();
	if (strcmp(verb, "locked") == 0)
		return locked();
	if (strcmp(verb, "fill") == 0)
		return fill(arg);
	if (strcmp(verb, "closed-fill") == 0)
		return close_all(), fill(arg);
	if (strcmp(verb, "exec") == 0)
		return run_program(argv + 2);
	if (strcmp(verb, "set") == 0 && argc > 3)
		return set_and_run(argv + 2);
	if (strcmp(verb, "touch") == 0)
		return touch(strtoul(arg, NULL, 10));
	fprintf(stderr, "heap-user: see the source for what it does\n");
	return 2;
}
