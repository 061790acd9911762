/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The allocator workloads, for any allocator.  An adapter (a program beside this,
 * named like its allocator) gives a class H with static functions:
 *
 *     open(path, len)      make the heap; len is the most that will be needed
 *     reopen(path)         open it again, in a process that has not had it open
 *     close()
 *     thread()             called first in each further thread
 *     void *alloc(size)    free(p)
 *     root_set(p)          root_get()      what is found again after reopen()
 *     held()               bytes of disk or memory that the heap takes
 *     version()            prints what this is
 *     construct(where, p)  let the pointer at `where`, not yet one, refer to p
 *     deref(ptr)           the plain pointer
 *
 * and
 *
 *     persistent           false: reopen and the roots mean nothing
 *     ptr<T>               the allocator's own pointer, as it stands in a heap
 *
 * and calls bench_main<H>().  One workload a process, so that none finds what
 * another left; it prints lines of "NAME NUMBER", the name being that of the
 * workload, or for two of them that and more.  Nanoseconds an operation if
 * nothing else is said; an operation is all of what is described:
 *
 *   A1  a block of 64 bytes allocated and freed, again and again
 *   A2  100,000 slots of 16 to 1,024 bytes: one freed, filled again, at random
 *   A2x2  the same in two threads at once, each with slots of its own: what it
 *       takes either of them; and, in turn with that, in one: how many times as much
 *       two get done (A2scale)
 *   A3  one thread allocates 16 to 256 bytes, another frees them
 *   A4  10 million blocks of 32 bytes allocated and written (A4alloc), then freed
 *       in random order (A4free); bytes of the heap for each byte that is live,
 *       before the first is freed (A4bytes)
 *   A5  256 slots of 4 KiB to 1 MiB: one freed, filled again, at random; a byte
 *       written in each page
 *   A6  a heap of 10 million blocks of 32 bytes opened, to the first allocation:
 *       milliseconds (A6open); the same after the process that had it was killed
 *       while it allocated and freed (A6kill), or "fails"
 *   A7  a list of 1 million nodes walked, hot: a node
 *
 * Blocks are written when they are allocated, as programs do: their first and
 * last 8 bytes, in A1 the first.
 */
#ifndef BENCH_WORKLOADS_HPP
#define BENCH_WORKLOADS_HPP

#include <atomic>
#include <errno.h>
#include <new>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <time.h>
#include <unistd.h>

static inline double now_ns()
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

[[noreturn]] static inline void die(const char *what, const char *why)
{
	fprintf(stderr, "bench: %s: %s\n", what, why);
	exit(1);
}

[[noreturn]] static inline void die(const char *what)
{
	die(what, strerror(errno));
}

/* xorshift64 (Marsaglia 2003). */
struct rng {
	uint64_t x;

	explicit rng(uint64_t seed) : x(seed * 0x9e3779b97f4a7c15u + 1)
	{
	}
	uint64_t next()
	{
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		return x;
	}
	/* 0 to n-1, by the upper bits. */
	uint32_t below(uint32_t n)
	{
		return (next() >> 32) * n >> 32;
	}
};

/* Memory that is none of the allocator's, with all pages there. */
template <class T> static T *own_memory(size_t n)
{
	void *p = mmap(NULL, n * sizeof(T), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		die("memory");
	return (T *)p;
}

/* What a file takes on the disk, blocks that are not yet written included. */
static inline double file_held(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? st.st_blocks * 512.0 : 0;
}

/* Waiting must not take from the other thread where the two share a core. */
static inline void spin()
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

template <class H> static inline void *get(size_t size)
{
	char *p = (char *)H::alloc(size);

	if (__builtin_expect(p == NULL, 0))
		die("allocate");
	*(volatile uint64_t *)p = size;
	*(volatile uint64_t *)(p + size - 8) = size;
	return p;
}

static inline int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static inline double median(double *v, unsigned n)
{
	qsort(v, n, sizeof(*v), by_value);
	return v[n / 2];
}

/* --- A1, A2 -------------------------------------------------------------- */

template <class H> static void a1(unsigned scale)
{
	unsigned n = 40000000 / scale, i;
	double start;

	for (i = 0; i < 1000; i++)
		H::free(get<H>(64));
	start = now_ns();
	for (i = 0; i < n; i++) {
		void *p = H::alloc(64);

		/* Else a compiler that knows malloc does without it. */
		__asm__ volatile("" : "+r"(p) : : "memory");
		*(volatile uint64_t *)p = i;
		H::free(p);
	}
	printf("A1 %.3f\n", (now_ns() - start) / n);
}

static const unsigned churn_nslots = 100000;
static const unsigned a2x2_nturns = 25;

template <class H> static void churn_fill(void **slot, rng &r)
{
	for (unsigned i = 0; i < churn_nslots; i++)
		slot[i] = get<H>(16 + r.below(1009));
}

template <class H> static void churn(void **slot, rng &r, unsigned n)
{
	while (n-- > 0) {
		unsigned i = r.below(churn_nslots);

		H::free(slot[i]);
		slot[i] = get<H>(16 + r.below(1009));
	}
}

template <class H> static void a2(unsigned scale)
{
	unsigned n = 10000000 / scale;
	void **slot = own_memory<void *>(churn_nslots);
	double start;
	rng r(1);

	churn_fill<H>(slot, r);
	churn<H>(slot, r, n / 5);
	start = now_ns();
	churn<H>(slot, r, n);
	printf("A2 %.3f\n", (now_ns() - start) / n);
}

/* One of the two threads of A2x2. */
struct churner {
	void **slot;
	rng r;
	double both[a2x2_nturns], alone[a2x2_nturns]; /* ns an operation */

	explicit churner(unsigned k) : slot(own_memory<void *>(churn_nslots)), r(k + 1)
	{
	}
};

/* Two threads at once and, in turn with that, one of them: what a machine gives changes
 * from second to second. */
template <class H>
static void churn_in_turns(churner &own, int k, unsigned n, pthread_barrier_t *barrier,
			   std::atomic<unsigned> &done)
{
	H::thread();
	churn_fill<H>(own.slot, own.r);
	churn<H>(own.slot, own.r, n * 3);
	for (unsigned i = 0; i < a2x2_nturns; i++) {
		double start;

		pthread_barrier_wait(barrier);
		start = now_ns();
		churn<H>(own.slot, own.r, n);
		own.both[i] = (now_ns() - start) / n;
		/* The other one is not to be alone for its rest. */
		done++;
		while (done < 2 * (i + 1))
			churn<H>(own.slot, own.r, 100);
		pthread_barrier_wait(barrier);
		start = now_ns();
		if (i % 2 == (unsigned)k)
			churn<H>(own.slot, own.r, n);
		own.alone[i] = (now_ns() - start) / n;
	}
}

template <class H> static void a2x2(unsigned scale)
{
	unsigned n = 10000000 / scale / a2x2_nturns;
	double both[a2x2_nturns], ratio[a2x2_nturns];
	churner c[2] = { churner(0), churner(1) };
	std::atomic<unsigned> done(0);
	pthread_barrier_t barrier;
	std::thread t[2];

	pthread_barrier_init(&barrier, NULL, 2);
	for (int k = 0; k < 2; k++) {
		t[k] = std::thread([&, k] {
			churn_in_turns<H>(c[k], k, n, &barrier, done);
		});
	}
	t[0].join();
	t[1].join();
	for (unsigned i = 0; i < a2x2_nturns; i++) {
		both[i] = (c[0].both[i] + c[1].both[i]) / 2;
		/* To the same thread's own. */
		ratio[i] = c[i % 2].alone[i] * 2 / c[i % 2].both[i];
	}
	printf("A2x2 %.3f\n", median(both, a2x2_nturns));
	printf("A2scale %.3f\n", median(ratio, a2x2_nturns));
}

/* --- A3 ------------------------------------------------------------------ */

/* A queue of one producer and one consumer, passed on by whole lines. */
struct queue {
	static const unsigned len = 4096, batch = 64;
	alignas(128) std::atomic<unsigned> head;
	alignas(128) std::atomic<unsigned> tail;
	alignas(128) void *slot[len];
};

template <class H> static void produce(queue *q, unsigned upto, rng &r)
{
	unsigned head = q->head;

	while (head < upto) {
		while (head - q->tail.load(std::memory_order_acquire) >
		       queue::len - queue::batch)
			spin();
		for (unsigned i = 0; i < queue::batch; i++)
			q->slot[head++ % queue::len] = get<H>(16 + r.below(241));
		q->head.store(head, std::memory_order_release);
	}
}

template <class H> static void consume(queue *q, unsigned upto)
{
	unsigned tail = 0;

	while (tail < upto) {
		while (q->head.load(std::memory_order_acquire) - tail < queue::batch)
			spin();
		for (unsigned i = 0; i < queue::batch; i++)
			H::free(q->slot[tail++ % queue::len]);
		q->tail.store(tail, std::memory_order_release);
	}
}

template <class H> static void a3(unsigned scale)
{
	unsigned n = 10000000 / scale / queue::batch * queue::batch;
	unsigned warm = n / 5 / queue::batch * queue::batch;
	queue *q = own_memory<queue>(1);
	double start;
	rng r(3);

	std::thread consumer([=] {
		H::thread();
		consume<H>(q, warm + n);
	});
	produce<H>(q, warm, r);
	start = now_ns();
	produce<H>(q, warm + n, r);
	consumer.join();
	printf("A3 %.3f\n", (now_ns() - start) / n);
}

/* --- A4 ------------------------------------------------------------------ */

static const unsigned bulk_nblocks = 10000000, bulk_size = 32;

static inline void shuffle(void **block, unsigned n)
{
	rng r(4);

	for (unsigned i = n - 1; i > 0; i--) {
		unsigned k = r.below(i + 1);
		void *p = block[i];

		block[i] = block[k];
		block[k] = p;
	}
}

template <class H> static void a4(unsigned scale)
{
	unsigned n = bulk_nblocks / scale, i;
	void **block = own_memory<void *>(n);
	/* A file counts from its first byte, memory from what is there anyway. */
	double before = H::persistent ? 0 : H::held(), held;
	double start = now_ns();

	for (i = 0; i < n; i++)
		block[i] = get<H>(bulk_size);
	printf("A4alloc %.3f\n", (now_ns() - start) / n);
	held = H::held() - before;
	printf("A4bytes %.4f\n", held / ((double)n * bulk_size));
	shuffle(block, n);
	start = now_ns();
	for (i = 0; i < n; i++)
		H::free(block[i]);
	printf("A4free %.3f\n", (now_ns() - start) / n);
}

/* --- A5 ------------------------------------------------------------------ */

template <class H> static void large_put(void **slot, rng &r, unsigned i)
{
	size_t size = 4096 + r.below((1u << 20) - 4096 + 1), at;

	slot[i] = get<H>(size);
	for (at = 0; at < size; at += 4096)
		((volatile char *)slot[i])[at] = 1;
}

template <class H> static void a5(unsigned scale)
{
	static const unsigned nslots = 256;
	unsigned n = 200000 / scale, i, k;
	void **slot = own_memory<void *>(nslots);
	double start = 0;
	rng r(5);

	for (i = 0; i < nslots; i++)
		large_put<H>(slot, r, i);
	for (i = 0; i < n + n / 5; i++) {
		if (i == n / 5)
			start = now_ns();
		k = r.below(nslots);
		H::free(slot[k]);
		large_put<H>(slot, r, k);
	}
	printf("A5 %.3f\n", (now_ns() - start) / n);
}

/* --- A6 ------------------------------------------------------------------ */

/*
 * All is done in children, each with no trace of the heap from before.  One that
 * is not through after limit_s hangs, and is killed.
 */
struct child {
	pid_t pid;
	int fd;

	template <class F> child(unsigned limit_s, F body)
	{
		int p[2];

		fflush(stdout);
		if (pipe(p) < 0 || (pid = fork()) < 0)
			die("a child");
		if (pid == 0) {
			alarm(limit_s);
			body(p[1]);
			_exit(0);
		}
		close(p[1]);
		fd = p[0];
	}
	/* What it has to tell; -1 if it ended without. */
	double hear()
	{
		double val;

		return read(fd, &val, sizeof(val)) == sizeof(val) ? val : -1;
	}
	~child()
	{
		close(fd);
		waitpid(pid, NULL, 0);
	}
};

static inline void tell(int fd, double val)
{
	if (write(fd, &val, sizeof(val)) != sizeof(val))
		die("a pipe");
}

template <class H> static void a6_make(const char *path, unsigned n)
{
	child c(300, [=](int fd) {
		void *last = NULL;

		H::open(path, 2ull << 30);
		for (unsigned i = 0; i < n; i++)
			last = get<H>(bulk_size);
		H::root_set(last);
		H::close();
		tell(fd, 0);
	});

	if (c.hear() < 0)
		die("A6", "the heap was not made");
}

template <class H> static double a6_open(const char *path)
{
	child c(10, [=](int fd) {
		double start = now_ns(), took;
		uint64_t *last;

		H::reopen(path);
		get<H>(64);
		took = (now_ns() - start) / 1e6;
		last = (uint64_t *)H::root_get();
		if (last == NULL || *last != bulk_size)
			die("A6", "the root is lost");
		tell(fd, took);
		H::close();
	});

	return c.hear();
}

/* Churn, killed after some milliseconds.  False: it did not get that far. */
template <class H> static bool a6_kill(const char *path, rng &r)
{
	child c(10, [=](int fd) {
		void **slot = own_memory<void *>(churn_nslots);
		rng own(6);

		H::reopen(path);
		churn_fill<H>(slot, own);
		tell(fd, 0);
		for (;;)
			churn<H>(slot, own, 1000);
	});

	if (c.hear() < 0)
		return false;
	usleep(1000 + r.below(20000));
	kill(c.pid, SIGKILL);
	return true;
}

template <class H> static void a6(const char *path, unsigned scale)
{
	static const unsigned nopens = 5, nkills = 10;
	double took[nkills];
	unsigned i;
	rng r(7);

	if (!H::persistent)
		return;
	a6_make<H>(path, bulk_nblocks / scale);
	for (i = 0; i < nopens; i++) {
		took[i] = a6_open<H>(path);
		if (took[i] < 0)
			die("A6", "the heap does not open");
	}
	printf("A6open %.3f\n", median(took, nopens));
	for (i = 0; i < nkills; i++) {
		took[i] = a6_kill<H>(path, r) ? a6_open<H>(path) : -1;
		if (took[i] < 0)
			break;
	}
	if (i < nkills)
		printf("A6kill fails\n");
	else
		printf("A6kill %.3f\n", median(took, nkills));
}

/* --- A7 ------------------------------------------------------------------ */

template <class H> struct node {
	typename H::template ptr<node<H>> next;
	uint64_t val;
};

template <class H> static void a7()
{
	const unsigned n = 1000000, nwalks = 51;
	node<H> *head = NULL, *p;
	double took[nwalks];
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++) {
		p = (node<H> *)H::alloc(sizeof(*p));
		if (p == NULL)
			die("allocate");
		H::construct(&p->next, head);
		p->val = i;
		head = p;
	}
	for (unsigned k = 0; k < nwalks; k++) {
		double start = now_ns();

		for (p = head; p != NULL; p = (node<H> *)H::deref(p->next))
			sum += p->val;
		took[k] = (now_ns() - start) / n;
	}
	if (sum != (uint64_t)n * (n - 1) / 2 * nwalks)
		die("A7", "wrong sum");
	printf("A7 %.3f\n", median(took, nwalks));
}

/* --- main ---------------------------------------------------------------- */

template <class H> static bool bench_one(const char *what, unsigned scale)
{
	if (strcmp(what, "A1") == 0)
		a1<H>(scale);
	else if (strcmp(what, "A2") == 0)
		a2<H>(scale);
	else if (strcmp(what, "A2x2") == 0)
		a2x2<H>(scale);
	else if (strcmp(what, "A3") == 0)
		a3<H>(scale);
	else if (strcmp(what, "A4") == 0)
		a4<H>(scale);
	else if (strcmp(what, "A5") == 0)
		a5<H>(scale);
	else if (strcmp(what, "A7") == 0)
		a7<H>();
	else
		return false;
	return true;
}

template <class H> static int bench_main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "", *path = argc > 2 ? argv[2] : NULL;
	int scale = argc > 3 ? atoi(argv[3]) : 1;

	if (argc == 2 && strcmp(what, "version") == 0) {
		H::version();
		return 0;
	}
	if (path == NULL || scale < 1) {
		fprintf(stderr,
			"usage: %s A1..A7 NEW-FILE [SCALE]\n"
			"       %s version\n"
			"SCALE: do this many times less\n",
			argv[0], argv[0]);
		return 2;
	}
	if (strcmp(what, "A6") == 0) {
		a6<H>(path, scale);
		return 0;
	}
	H::open(path, 4ull << 30);
	if (!bench_one<H>(what, scale))
		die(what, "no such workload");
	H::close();
	return 0;
}

#endif
