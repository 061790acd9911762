/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing: flags, readers beside a writer, locks, forks, targets. */
#include "scratch.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include <fmalloc.h>

static struct fm_info *open_ok(const char *path, int flags)
{
	struct fm_info *fi = fmalloc_open(path, flags, NULL);

	if (fi == NULL)
		fail_msg("%s", fm_errmsg());
	return fi;
}

static void close_ok(struct fm_info *fi)
{
	assert_int_equal(fmalloc_close(fi), 0);
}

static void open_fails(const char *path, int flags, int err)
{
	bool created = true;

	errno = 0;
	assert_null(fmalloc_open(path, flags, &created));
	assert_int_equal(errno, err);
	assert_false(created);
	assert_string_not_equal(fm_errmsg(), "");
}

static bool inside(const struct fm_info *fi, const void *p)
{
	return p != NULL &&
	       ((uintptr_t)p - (uintptr_t)fi->mem) >> FM_WINDOW_BITS == 0;
}

/* --- flags ------------------------------------------------------------------ */

static void flags_decide_what_is_created(void **state)
{
	bool created = false, init = false;
	struct fm_info *fi;

	(void)state;
	open_fails(P, 0, ENOENT);
	open_fails(P, FM_RDONLY, ENOENT);
	assert_int_equal(access(P, F_OK), -1);
	open_fails(P, FM_EXCL, EINVAL);
	open_fails(P, FM_CREATE | FM_RDONLY, EINVAL);
	open_fails(P, FM_CREATE | 0x100, EINVAL);
	open_fails(P, -1, EINVAL);
	open_fails(NULL, FM_CREATE, EINVAL);
	open_fails("", FM_CREATE, ENOENT);
	open_fails("no/such/folder", FM_CREATE, ENOENT);
	assert_int_equal(access(P, F_OK), -1);

	fi = fmalloc_open(P, FM_CREATE | FM_EXCL, &created);
	assert_non_null(fi);
	assert_true(created);
	close_ok(fi);
	open_fails(P, FM_CREATE | FM_EXCL, EEXIST);
	fi = fmalloc_open(P, FM_CREATE, &created);
	assert_non_null(fi);
	assert_false(created);
	close_ok(fi);
	fi = fmalloc_init(P, &init);
	assert_non_null(fi);
	assert_false(init);
	close_ok(fi);
	init = true;	/* is left alone */
	fi = fmalloc_init(P, &init);
	assert_true(init);
	close_ok(fi);
	fi = fmalloc_init("other", NULL);
	assert_non_null(fi);
	close_ok(fi);
}

static void files_of_zeroes_become_pools(void **state)
{
	static const off_t size[] = { 0, 1, 4096, 8192, 655360, 655361, 100 << 20 };
	static char zeroes[1 << 20];
	struct fm_info *fi;
	bool created;
	unsigned i;
	void *p;

	(void)state;
	for (i = 0; i < sizeof(size) / sizeof(size[0]); i++) {
		file_make(P, "", 0);
		assert_int_equal(truncate(P, size[i]), 0);
		if (size[i] <= (off_t)sizeof(zeroes))	/* no hole */
			file_write(P, 0, zeroes, size[i]);
		created = false;
		fi = fmalloc_open(P, FM_CREATE, &created);
		assert_non_null(fi);
		assert_true(created);
		p = fmalloc_in(fi, 1000);
		assert_true(inside(fi, p));
		memset(p, 1, 1000);
		close_ok(fi);
		assert_true((off_t)file_size(P) >= size[i]);
		close_ok(open_ok(P, 0));
		assert_int_equal(unlink(P), 0);
	}
}

static void new_file_has_the_mode_of_the_umask(void **state)
{
	mode_t was = umask(027);
	struct stat st;

	(void)state;
	close_ok(open_ok(P, FM_CREATE));
	umask(was);
	assert_int_equal(stat(P, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
}

static void application_region_is_zero_and_kept(void **state)
{
	struct fm_info *fi = open_ok(P, FM_CREATE);
	unsigned char *region = (unsigned char *)fi->mem + 4096;
	int i;

	(void)state;
	for (i = 0; i < 4096; i++)
		assert_int_equal(region[i], 0);
	memset(region, 0xee, 4096);
	for (i = 0; i < 1000; i++)
		assert_non_null(fmalloc_in(fi, 500));
	close_ok(fi);
	fi = open_ok(P, 0);
	region = (unsigned char *)fi->mem + 4096;
	for (i = 0; i < 4096; i++)
		assert_int_equal(region[i], 0xee);
	close_ok(fi);
}

static void deleted_file_goes_on_until_closed(void **state)
{
	struct fm_info *fi = open_ok(P, FM_CREATE);
	int i;

	(void)state;
	assert_int_equal(unlink(P), 0);
	for (i = 0; i < 100; i++)
		assert_non_null(memset(fmalloc_in(fi, 100000), 1, 100000));
	assert_int_equal(fmalloc_commit(fi), 0);
	close_ok(fi);
	open_fails(P, 0, ENOENT);
}

/* --- closed pools -------------------------------------------------------------- */

static void closed_pool_is_einval(void **state)
{
	struct fm_info *fi = open_ok(P, FM_CREATE), never = { NULL };
	void *block = fmalloc_in(fi, 100);
	uint64_t bad = fm_bad_free_count();

	(void)state;
	assert_int_equal(fmalloc_close(NULL), -1);
	assert_int_equal(errno, EINVAL);
	assert_int_equal(fmalloc_close(&never), -1);
	assert_int_equal(errno, EINVAL);
	close_ok(fi);
	errno = 0;
	assert_int_equal(fmalloc_close(fi), -1);
	assert_int_equal(errno, EINVAL);
	errno = 0;
	assert_int_equal(fmalloc_commit(fi), -1);
	assert_int_equal(errno, EINVAL);
	errno = 0;
	assert_null(fmalloc_in(fi, 1));
	assert_int_equal(errno, EINVAL);
	assert_int_equal(fm_root_set(fi, "a", NULL, NULL), -1);
	assert_int_equal(errno, EINVAL);
	errno = 0;
	assert_null(fm_root_get(fi, "a", NULL));
	assert_int_equal(errno, EINVAL);
	ffree(block);
	assert_int_equal(fm_bad_free_count(), bad + 1);
	fmalloc_set_target(fi);
	assert_null(fmalloc(1));
}

/* --- readers ---------------------------------------------------------------------- */

static void reader_sees_the_writer_grow(void **state)
{
	struct fm_info *rw = open_ok(P, FM_CREATE), *ro = open_ok(P, FM_RDONLY);
	struct fm_info *ro2 = open_ok(P, FM_RDONLY);
	uint64_t off;
	char *p;
	int i;

	(void)state;
	assert_string_equal(fm_errmsg(), "");
	assert_ptr_not_equal(rw->mem, ro->mem);
	for (i = 0; i < 200; i++) {
		p = fmalloc_in(rw, i % 10 == 0 ? 5 << 20 : 3000);
		assert_non_null(p);
		p[0] = p[2999] = i;
		off = p - (char *)rw->mem;
		assert_int_equal(((char *)ro->mem + off)[2999], (char)i);
		assert_int_equal(((char *)ro2->mem + off)[0], (char)i);
		assert_int_equal(fmalloc_usable_size((char *)ro->mem + off),
				 fmalloc_usable_size(p));
	}
	assert_int_equal(fm_root_set(rw, "a", p, "t"), 0);
	assert_ptr_equal(fm_root_get(ro, "a", "t"), (char *)ro->mem + off);
	close_ok(rw);
	assert_int_equal(((char *)ro->mem + off)[0], (char)199);
	close_ok(ro);
	close_ok(ro2);
}

static void grow_and_shrink(void *arg)
{
	struct fm_info *fi;
	void *p;

	(void)arg;
	for (;;) {
		fi = fmalloc_init(P, NULL);
		child_check(fi != NULL);
		p = fmalloc(3 << 20);
		child_check(p != NULL);
		ffree(p);
		child_check(fmalloc_close(fi) == 0);
	}
}

/* The length of the file and that of the heap are not read at the same moment. */
static void readers_open_it_while_it_grows(void **state)
{
	pid_t writer;
	int i;

	(void)state;
	close_ok(open_ok(P, FM_CREATE));
	writer = child_start(grow_and_shrink, NULL);
	for (i = 0; i < 3000; i++)
		close_ok(open_ok(P, FM_RDONLY));
	assert_int_equal(kill(writer, SIGKILL), 0);
	assert_true(WIFSIGNALED(child_wait(writer)));
}

static void *free_block(void *block)
{
	ffree(block);
	return NULL;
}

/* Where the smallest blocks have what other threads freed. */
static void reader_sees_what_another_thread_freed(void **state)
{
	struct fm_info *rw = open_ok(P, FM_CREATE), *ro = open_ok(P, FM_RDONLY);
	char *p = fmalloc_in(rw, 1), *q = fmalloc_in(rw, 1), *seen;
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, free_block, q), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	seen = (char *)ro->mem + (p - (char *)rw->mem);
	assert_int_equal(fmalloc_usable_size(seen), 16);
	assert_int_equal(fmalloc_usable_size(seen + (q - p)), 0);
	close_ok(ro);
	close_ok(rw);
}

static void reader_may_change_nothing(void **state)
{
	struct fm_info *fi;
	uint64_t sum;

	(void)state;
	close_ok(open_ok(P, FM_CREATE));
	sum = file_sum(P);
	fi = open_ok(P, FM_RDONLY);
	errno = 0;
	assert_null(fmalloc_in(fi, 1));
	assert_int_equal(errno, EROFS);
	assert_int_equal(fmalloc_commit(fi), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(fm_root_set(fi, "a", NULL, NULL), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(fm_root_remove(fi, "a"), -1);
	assert_int_equal(errno, EROFS);
	assert_null(fm_root_get(fi, "a", NULL));
	assert_int_equal(errno, ENOENT);
	close_ok(fi);
	assert_int_equal(file_sum(P), sum);
}

/* --- one writer ---------------------------------------------------------------------- */

static void try_to_write(void *arg)
{
	child_check(fmalloc_open(P, *(int *)arg, NULL) == NULL);
	child_check(errno == EBUSY);
	child_check(strstr(fm_errmsg(), P) != NULL);
	child_check(fmalloc_open(P, FM_RDONLY, NULL) != NULL);
}

static void second_writer_is_ebusy(void **state)
{
	struct fm_info *fi = open_ok(P, FM_CREATE);
	int flags = FM_CREATE;

	(void)state;
	open_fails(P, 0, EBUSY);
	open_fails(P, FM_CREATE, EBUSY);
	assert_non_null(fmalloc_in(fi, 1));	/* the first goes on */
	child_run(try_to_write, &flags);
	/* A second name is the same pool. */
	assert_int_equal(link(P, "name"), 0);
	open_fails("name", 0, EBUSY);
	close_ok(fi);
	close_ok(open_ok("name", 0));
}

struct pipes {
	int ready[2], go[2];
};

static void tell(int fd)
{
	child_check(write(fd, "x", 1) == 1);
}

static void hear(int fd)
{
	char c;

	child_check(read(fd, &c, 1) == 1);
}

static void hold_until_killed(void *arg)
{
	struct pipes *p = arg;
	struct fm_info *fi = fmalloc_open(P, FM_CREATE, NULL);

	child_check(fi != NULL);
	child_check(fmalloc_in(fi, 100) != NULL);
	tell(p->ready[1]);
	pause();
}

static void make_pipes(struct pipes *p)
{
	assert_int_equal(pipe(p->ready), 0);
	assert_int_equal(pipe(p->go), 0);
}

static void lock_dies_with_its_holder(void **state)
{
	struct pipes p;
	pid_t pid;
	char c;
	int i;

	(void)state;
	for (i = 0; i < 5; i++) {
		make_pipes(&p);
		pid = child_start(hold_until_killed, &p);
		assert_int_equal(read(p.ready[0], &c, 1), 1);
		open_fails(P, 0, EBUSY);
		assert_int_equal(kill(pid, SIGKILL), 0);
		child_wait(pid);
		close_ok(open_ok(P, 0));
		close(p.ready[0]), close(p.ready[1]), close(p.go[0]), close(p.go[1]);
	}
}

/* Killed, but not yet waited for: a zombie has no mapping. */
static void lock_is_not_held_by_a_zombie(void **state)
{
	struct pipes p;
	siginfo_t info;
	pid_t pid;
	char c;

	(void)state;
	make_pipes(&p);
	pid = child_start(hold_until_killed, &p);
	assert_int_equal(read(p.ready[0], &c, 1), 1);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitid(P_PID, pid, &info, WEXITED | WNOWAIT), 0);
	close_ok(open_ok(P, 0));
	child_wait(pid);
}

/* --- fork and exec ---------------------------------------------------------------------- */

static struct fm_info *forked_fi;
static char *forked_block;

static void use_as_child(void *arg)
{
	uint64_t bad = fm_bad_free_count();

	(void)arg;
	child_check(strcmp(forked_block, "from the parent") == 0);
	errno = 0;
	child_check(fmalloc_in(forked_fi, 1) == NULL && errno == EPERM);
	errno = 0;
	child_check(fmalloc(1) == NULL && errno == EPERM);
	errno = 0;
	child_check(frealloc(forked_block, 9999) == NULL && errno == EPERM);
	child_check(fmalloc_commit(forked_fi) == -1 && errno == EPERM);
	child_check(fm_root_set(forked_fi, "b", NULL, NULL) == -1 && errno == EPERM);
	child_check(fm_root_remove(forked_fi, "a") == -1 && errno == EPERM);
	ffree(forked_block);
	child_check(fm_bad_free_count() == bad + 1);
	child_check(fm_root_get(forked_fi, "a", NULL) == forked_block);
	child_check(fmalloc_usable_size(forked_block) == 112);
	child_check(fmalloc_open(P, 0, NULL) == NULL && errno == EBUSY);
	child_check(fmalloc_close(forked_fi) == 0);
	child_check(fmalloc_close(forked_fi) == -1 && errno == EINVAL);
	exit(0);	/* with its destructors: they leave the writer's name alone */
}

static void forked_child_reads_and_changes_nothing(void **state)
{
	struct fm_info *fi = fmalloc_init(P, NULL);

	(void)state;
	assert_non_null(fi);
	forked_fi = fi;
	forked_block = fmalloc(100);
	strcpy(forked_block, "from the parent");
	assert_int_equal(fm_root_set(fi, "a", forked_block, NULL), 0);
	child_run(use_as_child, NULL);
	/* The parent is the writer still, in the eyes of all. */
	open_fails(P, 0, EBUSY);
	assert_ptr_equal(fm_root_get(fi, "a", NULL), forked_block);
	ffree(forked_block);
	assert_non_null(fmalloc(1));
	close_ok(fi);
}

static void wait_and_open(void *arg)
{
	struct pipes *p = arg;

	close(p->go[1]);
	tell(p->ready[1]);
	hear(p->go[0]);
	/* The parent has closed it: now it may be ours. */
	child_check(fmalloc_open(P, 0, NULL) != NULL);
	child_check(fmalloc_in(forked_fi, 1) == NULL);
}

static void forked_child_keeps_no_lock(void **state)
{
	struct pipes p;
	pid_t pid;
	char c;

	(void)state;
	make_pipes(&p);
	forked_fi = open_ok(P, FM_CREATE);
	pid = child_start(wait_and_open, &p);
	assert_int_equal(read(p.ready[0], &c, 1), 1);
	close_ok(forked_fi);
	/* Though the child still maps the pool. */
	close_ok(open_ok(P, 0));
	assert_int_equal(write(p.go[1], "x", 1), 1);
	assert_int_equal(child_wait(pid), 0);
}

static void fork_and_wait(void *arg)
{
	struct pipes *p = arg;
	pid_t pid;

	child_check(fmalloc_open(P, FM_CREATE, NULL) != NULL);
	pid = fork();
	child_check(pid >= 0);
	if (pid == 0) {
		alarm(60);
		tell(p->ready[1]);
		hear(p->go[0]);
		_exit(0);
	}
	pause();
}

static void forked_child_keeps_no_lock_of_a_killed_parent(void **state)
{
	struct pipes p;
	pid_t pid;
	char c;

	(void)state;
	make_pipes(&p);
	pid = child_start(fork_and_wait, &p);
	assert_int_equal(read(p.ready[0], &c, 1), 1);
	open_fails(P, 0, EBUSY);
	kill(pid, SIGKILL);
	child_wait(pid);
	close_ok(open_ok(P, 0));
	assert_int_equal(write(p.go[1], "x", 1), 1);
}

static void become_sleep(void *arg)
{
	struct pipes *p = arg;

	child_check(fmalloc_open(P, FM_CREATE, NULL) != NULL);
	child_check(fcntl(p->ready[1], F_SETFD, FD_CLOEXEC) == 0);
	tell(p->ready[1]);
	hear(p->go[0]);
	execl("/bin/sleep", "sleep", "30", (char *)NULL);
}

static void executed_program_keeps_no_lock(void **state)
{
	struct pipes p;
	pid_t pid;
	char c;

	(void)state;
	make_pipes(&p);
	pid = child_start(become_sleep, &p);
	assert_int_equal(read(p.ready[0], &c, 1), 1);
	open_fails(P, 0, EBUSY);
	close(p.ready[1]);
	assert_int_equal(write(p.go[1], "x", 1), 1);
	assert_int_equal(read(p.ready[0], &c, 1), 0);	/* closed by execve */
	close_ok(open_ok(P, 0));
	kill(pid, SIGKILL);
	child_wait(pid);
}

/* --- creation that was killed ---------------------------------------------------------------- */

static void create_many(void *arg)
{
	char path[32];
	int i;

	(void)arg;
	for (i = 0;; i++) {
		snprintf(path, sizeof(path), "new-%d", i % 20);
		unlink(path);
		fmalloc_close(fmalloc_open(path, FM_CREATE, NULL));
	}
}

static void killed_creation_can_be_done_again(void **state)
{
	uint64_t seed = 3;
	struct fm_info *fi;
	char path[32];
	pid_t pid;
	int i, k;

	(void)state;
	for (i = 0; i < 15; i++) {
		pid = child_start(create_many, NULL);
		usleep(1000 + rnd(&seed) % 30000);
		kill(pid, SIGKILL);
		child_wait(pid);
		for (k = 0; k < 20; k++) {
			snprintf(path, sizeof(path), "new-%d", k);
			fi = open_ok(path, FM_CREATE);
			assert_non_null(fmalloc_in(fi, 100));
			close_ok(fi);
		}
	}
}

/* --- many pools, and targets ------------------------------------------------------------------- */

static void all_windows_can_be_used(void **state)
{
	static struct fm_info *fi[FM_NWINDOWS];
	char path[32];
	unsigned i, *p;

	(void)state;
	for (i = 0; i < FM_NWINDOWS; i++) {
		snprintf(path, sizeof(path), "pool-%u", i);
		fi[i] = open_ok(path, FM_CREATE);
		p = fmalloc_in(fi[i], sizeof(*p));
		*p = i;
		assert_int_equal(fm_root_set(fi[i], "number", p, NULL), 0);
	}
	open_fails("one-more", FM_CREATE, ENOMEM);
	assert_non_null(strstr(fm_errmsg(), "window"));
	for (i = 0; i < FM_NWINDOWS; i++) {
		p = fm_root_get(fi[i], "number", NULL);
		assert_true(inside(fi[i], p));
		assert_int_equal(*p, i);
	}
	close_ok(fi[3]);
	fi[3] = open_ok("one-more", FM_CREATE);
	for (i = 0; i < FM_NWINDOWS; i++)
		close_ok(fi[i]);
}

static void a_pool_comes_back_to_its_address(void **state)
{
	struct fm_info *fi = open_ok(P, FM_CREATE);
	void *mem = fi->mem;
	int i;

	(void)state;
	for (i = 0; i < 5; i++) {
		close_ok(fi);
		fi = open_ok(P, 0);
		assert_ptr_equal(fi->mem, mem);
	}
	close_ok(fi);
}

static void *allocate_in_target(void *arg)
{
	(void)arg;
	return fmalloc(10);
}

static void *choose_and_allocate(void *arg)
{
	fmalloc_set_target(arg);
	return fmalloc(10);
}

static void *in_thread(void *(*fn)(void *), void *arg)
{
	pthread_t thread;
	void *result;

	assert_int_equal(pthread_create(&thread, NULL, fn, arg), 0);
	assert_int_equal(pthread_join(thread, &result), 0);
	return result;
}

static void target_is_of_each_thread(void **state)
{
	struct fm_info *a = fmalloc_init("a", NULL), *b = fmalloc_init("b", NULL);

	(void)state;
	assert_true(inside(b, fmalloc(10)));
	assert_true(inside(b, in_thread(allocate_in_target, NULL)));
	fmalloc_set_target(a);
	assert_true(inside(a, fmalloc(10)));
	assert_true(inside(a, in_thread(allocate_in_target, NULL)));
	/* Another thread's choice is for itself and for those that have none. */
	assert_true(inside(b, in_thread(choose_and_allocate, b)));
	assert_true(inside(a, fmalloc(10)));
	assert_true(inside(b, in_thread(allocate_in_target, NULL)));
	assert_true(inside(b, fmalloc_in(b, 10)));
	fmalloc_set_target(NULL);
	assert_null(fmalloc(10));
	assert_int_equal(errno, EINVAL);
	close_ok(a);
	close_ok(b);
}

struct opener {
	struct fm_info *fi;
	void *first, *second;
	pthread_barrier_t turn;
};

static void *open_and_allocate_twice(void *arg)
{
	struct opener *o = arg;

	o->fi = fmalloc_open("a", FM_CREATE, NULL);
	o->first = fmalloc(10);
	pthread_barrier_wait(&o->turn);
	pthread_barrier_wait(&o->turn);	/* the other thread has chosen */
	o->second = fmalloc(10);
	return NULL;
}

/* Opening is not choosing: the thread goes on with what others set. */
static void opening_chooses_no_target(void **state)
{
	struct opener o;
	struct fm_info *b;
	pthread_t thread;

	(void)state;
	pthread_barrier_init(&o.turn, NULL, 2);
	assert_int_equal(pthread_create(&thread, NULL, open_and_allocate_twice, &o), 0);
	pthread_barrier_wait(&o.turn);
	b = fmalloc_open("b", FM_CREATE, NULL);
	fmalloc_set_target(b);
	pthread_barrier_wait(&o.turn);
	assert_int_equal(pthread_join(thread, NULL), 0);
	pthread_barrier_destroy(&o.turn);
	assert_true(inside(o.fi, o.first));
	assert_true(inside(b, o.second));
	close_ok(o.fi);
	close_ok(b);
}

static void target_ends_with_its_pool(void **state)
{
	struct fm_info *a = fmalloc_init("a", NULL), *b;

	(void)state;
	close_ok(a);
	errno = 0;
	assert_null(fmalloc(10));
	assert_int_equal(errno, EINVAL);
	assert_null(in_thread(allocate_in_target, NULL));
	/* The first that is opened then is the target. */
	b = open_ok("b", FM_CREATE);
	assert_true(inside(b, fmalloc(10)));
	a = open_ok("a", 0);
	assert_true(inside(b, fmalloc(10)));
	close_ok(a);
	close_ok(b);
}

static void commit_makes_no_fuss(void **state)
{
	struct fm_info *fi = open_ok(P, FM_CREATE);

	(void)state;
	memset(fmalloc_in(fi, 70 << 20), 1, 1 << 20);
	assert_int_equal(fmalloc_commit(fi), 0);
	close_ok(fi);
}

/* The descriptor that the library has of the pool. */
static int descriptor(void)
{
	struct stat pool, st;
	int fd;

	assert_int_equal(stat(P, &pool), 0);
	for (fd = 3; fd < 1000; fd++)
		if (fstat(fd, &st) == 0 && st.st_ino == pool.st_ino &&
		    st.st_dev == pool.st_dev)
			return fd;
	fail_msg("the pool has no descriptor");
	return -1;
}

static void a_closed_descriptor_is_not_used(void **state)
{
	struct fm_info *fi = fmalloc_init(P, NULL);
	int other = open("other", O_RDWR | O_CREAT, 0666), fd, n;
	void *mem = fmalloc(100);
	struct stat st;

	(void)state;
	assert_non_null(fi);
	assert_non_null(mem);
	assert_true(other >= 0);
	fd = descriptor();
	assert_int_equal(dup2(other, fd), fd);
	/* The file cannot grow, and what it has is used. */
	for (n = 0; n < 100 && (mem = fmalloc(1000000)) != NULL; n++)
		memset(mem, n, 1000000);
	assert_null(mem);
	assert_int_equal(errno, EBADF);
	mem = fmalloc(100);
	assert_non_null(mem);
	ffree(mem);
	assert_int_equal(fm_trim(fi), 0);
	assert_int_equal(fmalloc_commit(fi), 0);
	assert_int_equal(fmalloc_close(fi), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 0);
	close(fd);
	close(other);
	/* With the mapping went what the lock was for. */
	fi = fmalloc_init(P, NULL);
	assert_non_null(fi);
	assert_non_null(fmalloc(1000000));
	assert_int_equal(fmalloc_close(fi), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		scratch_test(flags_decide_what_is_created),
		scratch_test(a_closed_descriptor_is_not_used),
		scratch_test(files_of_zeroes_become_pools),
		scratch_test(new_file_has_the_mode_of_the_umask),
		scratch_test(application_region_is_zero_and_kept),
		scratch_test(deleted_file_goes_on_until_closed),
		scratch_test(closed_pool_is_einval),
		scratch_test(reader_sees_the_writer_grow),
		scratch_test(readers_open_it_while_it_grows),
		scratch_test(reader_sees_what_another_thread_freed),
		scratch_test(reader_may_change_nothing),
		scratch_test(second_writer_is_ebusy),
		scratch_test(lock_dies_with_its_holder),
		scratch_test(lock_is_not_held_by_a_zombie),
		scratch_test(forked_child_reads_and_changes_nothing),
		scratch_test(forked_child_keeps_no_lock),
		scratch_test(forked_child_keeps_no_lock_of_a_killed_parent),
		scratch_test(executed_program_keeps_no_lock),
		scratch_test(killed_creation_can_be_done_again),
		scratch_test(all_windows_can_be_used),
		scratch_test(a_pool_comes_back_to_its_address),
		scratch_test(opening_chooses_no_target),
		scratch_test(target_is_of_each_thread),
		scratch_test(target_ends_with_its_pool),
		scratch_test(commit_makes_no_fuss),
	};

	return cmocka_run_group_tests_name("pools", tests, NULL, NULL);
}
