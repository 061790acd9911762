/* SPDX-License-Identifier: Apache-2.0 */
/* Handing a mount over: stopping, and the way from one process to the next. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/crc32c.h"
#include "common/log.h"
#include "common/rw.h"
#include "fuse/fmfs.h"
#include "fuse/service.h"

#define ENV_FD "FMFS_HANDOVER"
#define STATE_NAME "state"
#define NAME_LEN 32

/* Requests may take long (to copy a pool, say), and meanwhile others are to be served; but
 * on a slow disk many take long.  So the pause gets longer, if it was not enough. */
#define PAUSE_MS 500
#define PAUSE_MAX_MS 4000
#define AGAIN_MS 2500
#define NPAUSES 12

/* Or less: what fmfs ends with when it does not like an option. */
#define EXIT_REFUSES 2

#define ANSWER_MS 10000 /* how long a program has to say so, */
#define WAIT_MS 10      /* and how often it is looked for */

#define TAKEN_MAX 3 /* processes that may die of one state */

/* --- the file ---------------------------------------------------------------------- */

static uint32_t crc_of(const struct handover_header *h, const int *fd,
		       const void *values)
{
	const size_t from = offsetof(struct handover_header, nfds);
	uint32_t crc = crc32c(0, (const char *)h + from, sizeof(*h) - from);

	crc = crc32c(crc, fd, h->nfds * sizeof(*fd));
	return crc32c(crc, values, h->len);
}

/* Its descriptor or -errno. */
static int write_file(const struct state *s)
{
	struct handover_header h = {
		.magic = HANDOVER_MAGIC,
		.version = HANDOVER_VERSION,
		.nfds = s->nfds,
		.len = s->len,
	};
	size_t fds_len = s->nfds * sizeof(*s->fd);
	int file, rc;

	if (s->failed)
		return -ENOMEM;
	file = memfd_create("fmfs-handover", MFD_CLOEXEC);
	if (file < 0)
		return -errno;
	h.crc = crc_of(&h, s->fd, s->mem);
	rc = write_at(file, &h, sizeof(h), 0);
	if (rc == 0)
		rc = write_at(file, s->fd, fds_len, sizeof(h));
	if (rc == 0)
		rc = write_at(file, s->mem, s->len, sizeof(h) + fds_len);
	if (rc == 0)
		return file;
	close(file);
	return rc;
}

static int check_header(const struct handover_header *h, uint64_t len)
{
	if (len < sizeof(*h) || memcmp(h->magic, HANDOVER_MAGIC, sizeof(h->magic)) != 0)
		return -EUCLEAN;
	if (h->version != HANDOVER_VERSION)
		return -ENOTSUP;
	len -= sizeof(*h);
	if (h->nfds > len / sizeof(int) || h->len != len - h->nfds * sizeof(int))
		return -EUCLEAN;
	return h->ntaken < TAKEN_MAX ? 0 : -ELOOP;
}

/* The bytes of the file, with what they say of descriptors. */
static int read_parts(int file, const struct handover_header *h, struct state *s)
{
	size_t fds_len = h->nfds * sizeof(int);
	ssize_t n;

	s->mem = malloc(h->len + 1);
	s->fd = malloc(fds_len + 1);
	if (s->mem == NULL || s->fd == NULL)
		return -ENOMEM;
	s->len = h->len;
	s->nfds = h->nfds;
	n = read_at(file, s->fd, fds_len, sizeof(*h));
	if (n == (ssize_t)fds_len)
		n = read_at(file, s->mem, h->len, sizeof(*h) + fds_len);
	if (n < 0)
		return n;
	return crc_of(h, s->fd, s->mem) == h->crc ? 0 : -EUCLEAN;
}

static int read_file(int file, struct state *s)
{
	struct handover_header h = { .version = 0 };
	struct stat st;
	ssize_t n;
	int rc;

	if (fstat(file, &st) < 0)
		return -errno;
	n = read_at(file, &h, sizeof(h), 0);
	if (n < 0)
		return n;
	rc = check_header(&h, st.st_size);
	if (rc < 0)
		return rc;
	h.ntaken++;
	rc = write_at(file, &h, sizeof(h), 0);
	return rc == 0 ? read_parts(file, &h, s) : rc;
}

/* --- stopping ---------------------------------------------------------------------- */

static bool is_to_end(void)
{
	sigset_t set;

	return sigpending(&set) == 0 &&
	       (sigismember(&set, SIGTERM) == 1 || sigismember(&set, SIGINT) == 1);
}

static void check_started(const struct fmfs *f, int rc)
{
	if (rc < 0)
		log_error("%s: cannot start a thread again: %s", f->mountpoint,
			  strerror(-rc));
}

/* Those that help to serve. */
static void resume_helpers(struct fmfs *f)
{
	int rc = index_resume(f->index);

	check_started(f, rc == 0 ? notify_resume(&f->notifier) : rc);
}

static int pause_requests(struct fmfs *f)
{
	unsigned int ms = PAUSE_MS;

	for (int i = 0; i < NPAUSES && !is_to_end(); i++) {
		if (i > 0)
			clock_sleep(AGAIN_MS * UINT64_C(1000000));
		index_drain(f->index);
		index_pause(f->index);
		notify_pause(&f->notifier);
		if (loop_pause(&f->loop, ms))
			return 0;
		resume_helpers(f);
		ms = ms < PAUSE_MAX_MS ? ms * 2 : ms;
	}
	return is_to_end() ? -ECANCELED : -EBUSY;
}

static int pause_all(struct fmfs *f, bool *complete)
{
	int rc = pause_requests(f);

	if (rc < 0)
		return rc;
	locks_pause(&f->locks);
	*complete = index_let_go(f->index);
	return 0;
}

static void resume_all(struct fmfs *f)
{
	check_started(f, locks_resume(&f->locks));
	resume_helpers(f);
	loop_resume(&f->loop);
}

/* --- leaving ----------------------------------------------------------------------- */

/* How it has ended: killed, if it does not, so that we can still be told to end. */
static int status_of(pid_t pid)
{
	int status = 0;

	for (int i = 0; waitpid(pid, &status, WNOHANG) == 0; i++) {
		if (i == ANSWER_MS / WAIT_MS || is_to_end())
			kill(pid, SIGKILL);
		clock_sleep(WAIT_MS * UINT64_C(1000000));
	}
	return status;
}

/*
 * Would the program understand us?  One that does not run, or that knows nothing of all
 * this, must not be found out about when it is too late.
 */
static int check_program(const char *path)
{
	char takes[32];
	const char *argv[] = { path, "mount", takes, NULL };
	posix_spawn_file_actions_t quietly;
	int status, rc;
	pid_t pid;

	snprintf(takes, sizeof(takes), "--takes=%u", HANDOVER_VERSION);
	posix_spawn_file_actions_init(&quietly);
	posix_spawn_file_actions_addopen(&quietly, STDERR_FILENO, "/dev/null", O_WRONLY,
					 0);
	rc = -posix_spawn(&pid, path, &quietly, NULL, (char **)argv, environ);
	posix_spawn_file_actions_destroy(&quietly);
	if (rc < 0)
		return rc;
	status = status_of(pid);
	if (status == 0)
		return 0;
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return -ETIME;
	return WIFEXITED(status) && WEXITSTATUS(status) <= EXIT_REFUSES ? -ENOTSUP
									: -ENOEXEC;
}

static void let_inherit(const struct state *s, int file, bool inherit)
{
	int flags = inherit ? 0 : FD_CLOEXEC;

	for (size_t i = 0; i < s->nfds; i++)
		fcntl(s->fd[i], F_SETFD, flags);
	fcntl(file, F_SETFD, flags);
}

/* -errno. */
static int leave_by_exec(const struct state *s, int file, const char *program,
			 char *const argv[])
{
	char number[16];
	int rc;

	snprintf(number, sizeof(number), "%d", file);
	if (setenv(ENV_FD, number, 1) < 0)
		return -ENOMEM;
	service_reloading();
	let_inherit(s, file, true);
	execv(program, argv);
	rc = -errno;
	let_inherit(s, file, false);
	unsetenv(ENV_FD);
	service_ready();
	return rc;
}

static void fd_name(size_t i, char name[NAME_LEN])
{
	snprintf(name, NAME_LEN, "fd%zu", i);
}

static int drop_kept(size_t nfds)
{
	char name[NAME_LEN];

	for (size_t i = 0; i < nfds; i++) {
		fd_name(i, name);
		service_drop(name);
	}
	service_drop(STATE_NAME);
	return service_wait();
}

/* -errno. */
static int leave_to_manager(const struct state *s, int file)
{
	char name[NAME_LEN];
	int rc = 0;

	for (size_t i = 0; i < s->nfds && rc == 0; i++) {
		fd_name(i, name);
		rc = service_keep(name, s->fd[i]);
	}
	if (rc == 0)
		rc = service_keep(STATE_NAME, file);
	if (rc == 0)
		rc = service_wait();
	if (rc == 0)
		_exit(HANDOVER_EXIT);
	drop_kept(s->nfds);
	return rc;
}

/* -errno. */
static int leave(struct fmfs *f, bool complete, const char *program, char *const argv[])
{
	struct state s = { .failed = false };
	int file, rc;

	handover_save(f, &s, complete);
	rc = file = write_file(&s);
	if (file >= 0) {
		rc = service_keeps(s.nfds + 1) ? leave_to_manager(&s, file)
					       : leave_by_exec(&s, file, program, argv);
		close(file);
	}
	state_free(&s, false);
	return rc;
}

static void say_failed(struct fmfs *f, const char *what, int rc)
{
	struct replacing *r = &f->replacing;
	const char *why = rc == -EBUSY     ? "requests take too long"
			  : rc == -ENOEXEC ? "it does not run"
			  : rc == -ETIME   ? "it does not answer"
			  : rc == -ENOTSUP ? "it cannot take over from this version"
					   : strerror(-rc);

	pthread_mutex_lock(&r->lock);
	snprintf(r->why, sizeof(r->why), "%s: %s", what, why);
	r->nfailed++;
	log_error("%s: not handed over, and served as before: %s", f->mountpoint,
		  r->why);
	pthread_mutex_unlock(&r->lock);
}

void handover_give(struct fmfs *f, const char *program, char *const argv[])
{
	bool complete;
	int rc;

	log_info("%s: handing over to %s", f->mountpoint, program);
	rc = check_program(program);
	if (rc < 0) {
		say_failed(f, program, rc);
		return;
	}
	rc = pause_all(f, &complete);
	if (rc < 0) {
		say_failed(f, "cannot stop", rc);
		return;
	}
	rc = leave(f, complete, program, argv);
	resume_all(f);
	say_failed(f, program, rc);
}

/* --- taking ------------------------------------------------------------------------ */

struct kept { /* by the service manager */
	int *fd;
	size_t nfds; /* places */
	int file;
};

static void add_kept(const char *name, int fd, void *arg)
{
	struct kept *k = arg;
	int *fds;
	size_t i;

	if (strcmp(name, STATE_NAME) == 0) {
		k->file = fd;
		return;
	}
	if (sscanf(name, "fd%zu", &i) != 1 || i > INT16_MAX * 16)
		return;
	if (i >= k->nfds) {
		fds = realloc(k->fd, (i + 1) * sizeof(*fds));
		if (fds == NULL)
			return;
		for (size_t j = k->nfds; j <= i; j++)
			fds[j] = -1;
		k->fd = fds;
		k->nfds = i + 1;
	}
	k->fd[i] = fd;
}

/* In place of the numbers that they had. */
static int use_kept(const struct kept *k, struct state *s)
{
	for (size_t i = s->nfds; i < k->nfds; i++)
		close(k->fd[i]);
	for (size_t i = 0; i < s->nfds; i++) {
		if (i >= k->nfds || k->fd[i] < 0)
			return -EBADF;
		s->fd[i] = k->fd[i];
	}
	return 0;
}

static void set_cloexec(const struct state *s)
{
	for (size_t i = 0; i < s->nfds; i++)
		fcntl(s->fd[i], F_SETFD, FD_CLOEXEC);
}

static const char *why_refused(int rc)
{
	switch (rc) {
	case -ENOTSUP:
		return "it is of another version";
	case -EUCLEAN:
		return "it is damaged";
	case -ELOOP:
		return "processes die of it";
	default:
		return strerror(-rc);
	}
}

static int refuse(struct state *s, size_t nkept, int rc)
{
	log_warn("what the daemon before has left is not used, and its mount ends: %s",
		 why_refused(rc));
	state_free(s, false);
	close_range(STDERR_FILENO + 1, ~0u, 0);
	if (nkept > 0)
		drop_kept(nkept);
	return rc;
}

int handover_take(struct state *s)
{
	const char *number = getenv(ENV_FD);
	struct kept k = { .file = -1 };
	int file, rc;

	*s = (struct state){ .failed = false };
	service_each_kept(add_kept, &k);
	file = number != NULL ? atoi(number) : k.file;
	unsetenv(ENV_FD);
	if (file < 0 && k.nfds == 0)
		return 0;
	rc = file < 0 ? -EBADF : read_file(file, s);
	if (rc == 0 && number == NULL)
		rc = use_kept(&k, s);
	if (rc < 0) {
		rc = refuse(s, k.nfds, rc);
	} else {
		set_cloexec(s);
		close(file);
		rc = 1;
	}
	s->kept = k.nfds;
	free(k.fd);
	return rc;
}

void handover_done(struct state *s)
{
	if (s->kept > 0 && drop_kept(s->kept) < 0)
		log_warn("the service manager may still have descriptors of the mount: "
			 "if the daemon dies, callers wait till it is restarted");
	state_free(s, true);
}
