/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounting: from the command line to a daemon that serves, and back down.
 *
 * The program forks first, and everything is done in the child, so that no lock
 * and no thread has to survive a fork.  The child says "ready" through a pipe
 * when the kernel has answered; then the parent asks the mount a question
 * itself, and leaves.  Until then the child's messages go to standard error.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fmfs_ioctl.h"
#include "common/log.h"
#include "fuse/fmfs.h"
#include "fuse/mount.h"
#include "fuse/mountinfo.h"
#include "fuse/ops.h"
#include "fuse/options.h"
#include "fuse/rename.h"
#include "fuse/service.h"

#define EXIT_USAGE 2
#define READY "r"      /* what the child says */
#define READY_SLOW "s" /* the same, and it has said why there is no passthrough */
#define ANSWER_S 30    /* how long the first answer may take */
#define DYING_MS 5000 /* a killed daemon holds its store's lock until all its threads end */

struct mounting {
	struct mount_options opt;
	bool takes_place;          /* of a mount whose daemon has died */
	int ready_fd;              /* to the parent; -1: in the foreground */
	/* To be executed when another daemon is to take our place. */
	char program[PATH_MAX];
	char **argv;
	/* From another daemon, whose mount this is; or NULL. */
	struct state *taken;
	int fuse_fd;   /* the device, until the session has it; else -1 */
	bool complete; /* its catalog is */
	bool took;     /* all of it: we serve */
	struct fmfs f;
	/* Signals. */
	sigset_t signals;
	pthread_t signal_thread;
	atomic_bool loop_left;
};

/* --- the session ---------------------------------------------------------- */

static void log_fuse(enum fuse_log_level level, const char *fmt, va_list ap)
{
	enum log_level to = level <= FUSE_LOG_ERR       ? LOG_LEVEL_ERROR
			    : level <= FUSE_LOG_WARNING ? LOG_LEVEL_WARN
			    : level <= FUSE_LOG_INFO    ? LOG_LEVEL_INFO
							: LOG_LEVEL_DEBUG;
	int saved_errno = errno;
	char line[512];
	size_t len;

	vsnprintf(line, sizeof(line), fmt, ap);
	len = strlen(line);
	if (len > 0 && line[len - 1] == '\n')
		line[len - 1] = '\0';
	log_msg(to, "%s", line);
	errno = saved_errno;
}

/* From here on nobody listens at standard error. */
static void become_daemon(void)
{
	int fd = open("/dev/null", O_RDWR);

	log_to_syslog();
	if (fd < 0)
		return;
	dup2(fd, STDIN_FILENO);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

static void want(struct fuse_conn_info *conn, uint64_t flag)
{
	fuse_set_feature_flag(conn, flag); /* if it is to be had */
}

/* The kernel has had its answer, from another daemon. */
static void init_as_before(struct fmfs *f, struct fuse_conn_info *conn)
{
	fuse_unset_feature_flag(conn, conn->want_ext & ~f->terms.want);
	conn->max_write = f->terms.max_write;
	if (!fuse_set_feature_flag(conn, f->terms.want))
		fuse_session_exit(f->session);
}

static void log_quota(struct fmfs *f)
{
	if (f->quota.max_pool > 0)
		log_info("%s: max_pool is %" PRIu64 " bytes", f->store.path,
			 f->quota.max_pool);
	if (f->quota.max_store > 0)
		log_info("%s: max_store is %" PRIu64 " bytes, of which %" PRIu64
			 " are taken",
			 f->store.path, f->quota.max_store, quota_used(f));
}

static void init(void *data, struct fuse_conn_info *conn)
{
	struct fmfs *f = data;
	struct mounting *m =
		(struct mounting *)((char *)f - offsetof(struct mounting, f));

	f->passthrough.mountpoint = f->mountpoint;
	if (m->taken != NULL) {
		init_as_before(f, conn);
		return;
	}
	want(conn, FUSE_CAP_HANDLE_KILLPRIV_V2);
	want(conn, FUSE_CAP_PARALLEL_DIROPS);
	want(conn, FUSE_CAP_SPLICE_WRITE);
	want(conn, FUSE_CAP_SPLICE_MOVE);
	passthrough_init(&f->passthrough, &f->store, m->opt.no_passthrough, conn);
	f->terms.want = conn->want_ext;
	f->terms.max_write = conn->max_write;
	log_info("%s: mounted at %s", f->store.path, f->mountpoint);
	log_quota(f);
	service_ready();
	if (m->ready_fd < 0)
		return;
	become_daemon();
	if (write(m->ready_fd, f->passthrough.wanted ? READY : READY_SLOW, 1) != 1)
		log_warn("cannot tell the program that mounted: %s", strerror(errno));
	close(m->ready_fd);
	m->ready_fd = -1;
}

/* fsname is what mount(8) shows as the device. */
static int add_fsname(struct fuse_args *args, const char *store)
{
	char *escaped = options_escape(store), *opt = NULL;
	int rc = -1;

	if (escaped != NULL && asprintf(&opt, "-ofsname=%s", escaped) >= 0) {
		rc = fuse_opt_add_arg(args, opt);
		free(opt);
	}
	free(escaped);
	return rc;
}

static int session_args(struct mounting *m, struct fuse_args *args)
{
	int rc;

	rc = fuse_opt_add_arg(args, "fmfs");
	rc |= fuse_opt_add_arg(args, "-odefault_permissions,subtype=fmfs");
	rc |= add_fsname(args, m->f.store.path);
	if (m->f.readonly)
		rc |= fuse_opt_add_arg(args, "-oro");
	if (geteuid() == 0)
		rc |= fuse_opt_add_arg(args, "-oallow_other");
	if (m->opt.debug)
		rc |= fuse_opt_add_arg(args, "-odebug");
	if (m->opt.fuse != NULL) {
		rc |= fuse_opt_add_arg(args, "-o");
		rc |= fuse_opt_add_arg(args, m->opt.fuse);
	}
	return rc != 0 ? -ENOMEM : 0;
}

static int make_session(struct mounting *m)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_lowlevel_ops ops = fmfs_ops;
	int rc;

	ops.init = init;
	fuse_set_log_func(log_fuse);
	rc = session_args(m, &args);
	if (rc == 0) {
		m->f.session = fuse_session_new(&args, &ops, sizeof(ops), &m->f);
		if (m->f.session == NULL)
			rc = -EINVAL;
	}
	fuse_opt_free_args(&args);
	if (rc < 0)
		log_error("cannot make a FUSE session: %s", strerror(-rc));
	return rc;
}

/* --- signals ------------------------------------------------------------------ */

static void do_nothing(int sig)
{
	(void)sig;
}

static void *wait_for_signal(void *arg)
{
	struct mounting *m = arg;
	int sig;

	while (sigwait(&m->signals, &sig) == 0 && sig == SIGHUP)
		handover_give(&m->f, m->program, m->argv);
	if (!atomic_load(&m->loop_left))
		log_info("%s: unmounting: %s", m->f.mountpoint, strsignal(sig));
	notify_stop(&m->f.notifier);
	fuse_session_exit(m->f.session);
	loop_end(&m->f.loop);
	return NULL;
}

/* Before any thread is made, which all inherit it. */
static void block_signals(struct mounting *m)
{
	struct sigaction nothing = { .sa_handler = do_nothing };
	struct sigaction ignore = { .sa_handler = SIG_IGN };
	struct sigaction usual = { .sa_handler = SIG_DFL };

	sigemptyset(&m->signals);
	sigaddset(&m->signals, SIGHUP);
	sigaddset(&m->signals, SIGINT);
	sigaddset(&m->signals, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &m->signals, NULL);
	sigaction(SIGUSR1, &nothing, NULL);
	sigaction(SIGPIPE, &ignore, NULL);
	/* Or, if who started us ignores it, nobody can tell how handover.c's child ended. */
	sigaction(SIGCHLD, &usual, NULL);
}

static int serve(struct mounting *m)
{
	int rc = -pthread_create(&m->signal_thread, NULL, wait_for_signal, m);

	if (rc < 0)
		return rc;
	rc = loop_run(&m->f.loop, m->f.session);
	atomic_store(&m->loop_left, true);
	pthread_kill(m->signal_thread, SIGTERM); /* if it still waits */
	pthread_join(m->signal_thread, NULL);
	return rc;
}

/* --- the daemon ------------------------------------------------------------- */

static bool is_within(const char *path, const char *folder)
{
	size_t len = strlen(folder);

	if (strcmp(folder, "/") == 0)
		return true;
	return strncmp(path, folder, len) == 0 &&
	       (path[len] == '/' || path[len] == '\0');
}

static int check_places(const struct mounting *m)
{
	const char *store = m->f.store.path;

	if (!is_within(m->f.mountpoint, store) && !is_within(store, m->f.mountpoint))
		return 0;
	log_error("%s, %s: neither of store and mount point may lie within the other",
		  store, m->f.mountpoint);
	return -EINVAL;
}

static void raise_limits(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) == 0) {
		l.rlim_cur = l.rlim_max;
		setrlimit(RLIMIT_NOFILE, &l);
	}
}

static int start_session(struct mounting *m)
{
	struct fmfs *f = &m->f;
	ssize_t n;

	if (fuse_session_mount(f->session, f->mountpoint) != 0) {
		log_error(
			"%s: cannot mount%s", f->mountpoint,
			geteuid() == 0
				? ""
				: " (users other than root need fusermount3, of the package fuse3)");
		return -EIO;
	}
	n = loop_negotiate(f->session, f->terms.init, sizeof(f->terms.init));
	if (n < 0)
		return n;
	f->terms.init_len = n;
	return fuse_session_exited(f->session) ? -EPROTO : 0;
}

/* On the device that another daemon had, with what it had negotiated. */
static int go_on_with_session(struct mounting *m)
{
	struct fmfs *f = &m->f;
	char device[32];
	int rc;

	snprintf(device, sizeof(device), "/dev/fd/%d", m->fuse_fd);
	if (fuse_session_mount(f->session, device) != 0)
		return -EIO;
	m->fuse_fd = -1; /* the session's */
	loop_serve(f->session, f->terms.init, f->terms.init_len);
	if (fuse_session_exited(f->session)) {
		log_error("%s: cannot do what the daemon before has agreed on with the "
			  "kernel",
			  f->mountpoint);
		return -EPROTO;
	}
	rc = handover_load_requests(f, m->taken);
	if (rc < 0)
		return rc;
	m->took = true;
	handover_done(m->taken);
	log_info("%s: taken over", f->mountpoint);
	service_ready();
	return 0;
}

/*
 * Lazily, if it is in use: those who use it get ENOTCONN, but for the mappings of
 * passthrough, which live on.  libfuse does not know where a mount is that was taken over;
 * and if that has been unmounted already, something else may be there by now.
 */
static void unmount(struct mounting *m)
{
	struct pollfd p = { .fd = fuse_session_fd(m->f.session) };

	if (m->taken != NULL && poll(&p, 1, 0) == 0)
		mount_detach(m->f.mountpoint, true);
	fuse_session_unmount(m->f.session);
}

static int mount_and_serve(struct mounting *m)
{
	int rc;

	rc = make_session(m);
	if (rc < 0)
		return rc;
	rc = m->taken != NULL ? go_on_with_session(m) : start_session(m);
	if (rc == 0)
		rc = serve(m);
	if (rc != 0)
		log_error("%s: the session ended: %s", m->f.mountpoint,
			  strerror(abs(rc)));
	locks_stop(&m->f.locks); /* while those who wait can be told */
	unmount(m);
	return rc;
}

static int open_tables(struct mounting *m)
{
	struct fmfs *f = &m->f;
	int rc = node_table_init(&f->nodes, &f->store);

	if (rc == 0 && m->taken != NULL)
		rc = handover_load_tables(f, m->taken);
	if (rc == 0)
		rc = locks_start(&f->locks);
	if (rc == 0)
		rc = notify_start(&f->notifier);
	if (rc == 0)
		rc = defrag_start(&f->defrag, m->opt.max_stall * INT64_C(1000000));
	if (rc == 0)
		rc = quota_start(f);
	if (rc == 0)
		rc = index_open(f, m->taken != NULL, m->complete, &f->index);
	return rc;
}

/* With the store open. */
static int run_fs(struct mounting *m)
{
	struct fmfs *f = &m->f;
	int rc;

	f->atomic = m->opt.atomic;
	f->may_chown = geteuid() == 0;
	f->attr_timeout = m->opt.attr_timeout;
	f->entry_timeout = m->opt.entry_timeout;
	f->quota.max_pool = m->opt.max_pool;
	f->quota.max_store = m->opt.max_store;
	rc = check_places(m);
	if (rc < 0)
		return rc;
	loop_init(&f->loop, m->opt.max_threads);
	pthread_mutex_init(&f->replacing.lock, NULL);
	dirs_init(&f->dirs);
	rename_recover(&f->store);
	rc = open_tables(m);
	if (rc == 0) {
		rc = m->opt.fake ? 0 : mount_and_serve(m);
		locks_stop(&f->locks); /* while there is a session */
		notify_stop(&f->notifier);
		index_close(f->index);
		if (f->session != NULL)
			fuse_session_destroy(f->session);
	}
	locks_stop(&f->locks);
	notify_stop(&f->notifier);
	defrag_stop(&f->defrag);
	quota_stop(f);
	dirs_destroy(&f->dirs);
	node_table_destroy(&f->nodes);
	return rc;
}

static int open_fs(struct mounting *m)
{
	struct fmfs *f = &m->f;
	int rc;

	if (m->taken != NULL)
		return handover_load_mount(f, m->taken, &m->fuse_fd, &m->complete);
	rc = store_open(&f->store, m->opt.store, m->takes_place ? DYING_MS : 0);
	f->readonly = m->opt.readonly || f->store.readonly;
	return rc;
}

static int run_daemon(struct mounting *m)
{
	int rc;

	block_signals(m);
	raise_limits();
	umask(0); /* the kernel has applied the caller's */
	if (access("/proc/self/fd", X_OK) < 0) {
		log_error("/proc is not mounted, and fmfs needs it");
		return EXIT_FAILURE;
	}
	rc = open_fs(m);
	if (rc < 0)
		return EXIT_FAILURE;
	rc = run_fs(m);
	log_info("%s: closed", m->f.store.path);
	store_close(&m->f.store);
	return rc == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- the program --------------------------------------------------------------- */

static void too_late(int sig)
{
	static const char text[] = "fmfs mount: the mount does not answer\n";

	(void)sig;
	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(EXIT_FAILURE);
	_exit(EXIT_FAILURE);
}

static int ask_mount(const char *mountpoint, bool want_passthrough)
{
	struct fmfs_info info;
	int fd, rc;

	signal(SIGALRM, too_late);
	alarm(ANSWER_S);
	fd = open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	rc = fd < 0 ? -1 : ioctl(fd, FMFS_IOC_INFO, &info);
	if (rc < 0)
		log_error("%s: mounted, but does not answer: %s", mountpoint,
			  strerror(errno));
	if (fd >= 0)
		close(fd);
	alarm(0);
	if (rc == 0 && want_passthrough && !(info.flags & FMFS_F_PASSTHROUGH))
		log_warn("no passthrough: %.*s%s", (int)sizeof(info.why_not),
			 info.why_not,
			 info.flags & FMFS_F_SLOW
				 ? "; large shared mappings will be slow"
				 : "");
	return rc < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* Wait for "ready", or for the end of the child: its exit status. */
static int wait_until_ready(const struct mounting *m, pid_t child, int fd)
{
	ssize_t n;
	int status;
	char c;

	do {
		n = read(fd, &c, 1);
	} while (n < 0 && errno == EINTR);
	if (n == 1)
		return ask_mount(m->f.mountpoint, c == *READY);
	if (waitpid(child, &status, 0) < 0)
		return EXIT_FAILURE;
	if (WIFSIGNALED(status))
		log_error("the daemon died: %s", strsignal(WTERMSIG(status)));
	return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE;
}

/* A daemon must not hold what its caller has open: close all but standard input,
 * output, error and `fd`, whose new number is returned. */
static int keep_only(int fd)
{
	const int to = STDERR_FILENO + 1;

	if (fd != to) {
		dup3(fd, to, O_CLOEXEC);
		fd = to;
	}
	close_range(to + 1, ~0u, 0);
	return fd;
}

static int start_daemon(struct mounting *m)
{
	pid_t child;
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0) {
		log_error("cannot make a pipe: %s", strerror(errno));
		return EXIT_FAILURE;
	}
	child = fork();
	if (child < 0) {
		log_error("cannot fork: %s", strerror(errno));
		return EXIT_FAILURE;
	}
	if (child == 0) {
		m->ready_fd = keep_only(fds[1]);
		setsid();
		_exit(run_daemon(m));
	}
	close(fds[1]);
	return wait_until_ready(m, child, fds[0]);
}

/* The daemon of the mount at the mount point has died.  If it served the same store this
 * one takes its place. */
static int take_place(struct mounting *m)
{
	char *point = mount_resolve(m->opt.mountpoint);
	struct mount_entry e = { .dev = 0 };
	char store[PATH_MAX];
	int rc = -ENOTCONN;

	if (point != NULL && strlen(point) < sizeof(m->f.mountpoint) &&
	    realpath(m->opt.store, store) != NULL && mount_find_point(point, &e) == 1 &&
	    e.is_fmfs && strcmp(e.source, store) == 0)
		rc = mount_detach(point, true);
	if (rc == 0) {
		strcpy(m->f.mountpoint, point);
		m->takes_place = true;
	} else {
		log_error("%s: a mount is there whose daemon has died: "
			  "'fmfs umount %s' first",
			  m->opt.mountpoint, m->opt.mountpoint);
	}
	mount_entry_free(&e);
	free(point);
	return rc;
}

static int find_mountpoint(struct mounting *m)
{
	int err = 0;
	int fd;

	if (realpath(m->opt.mountpoint, m->f.mountpoint) == NULL)
		err = errno;
	/* The attributes of a dead mount may still be in the kernel's cache. */
	fd = err != 0 ? -1 : open(m->f.mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		close(fd);
	else if (err == 0 && errno != EACCES)
		err = errno;
	/* ECONNABORTED: it is just dying. */
	if (err == ENOTCONN || err == ECONNABORTED)
		return take_place(m);
	if (err != 0)
		log_error("%s: %s", m->opt.mountpoint, strerror(err));
	return -err;
}

static int run(struct mounting *m)
{
	if (find_mountpoint(m) != 0)
		return EXIT_FAILURE;
	if (m->opt.foreground || m->opt.fake)
		return run_daemon(m);
	return start_daemon(m);
}

/* What we were called with, for the program that is at our path by then. */
static int remember_call(struct mounting *m, int argc, char **argv)
{
	ssize_t n = readlink("/proc/self/exe", m->program, sizeof(m->program) - 1);
	bool helper = options_is_helper(argv[0]);
	char **to = calloc(argc + 2, sizeof(*to));

	if (to == NULL)
		return -ENOMEM;
	m->argv = to;
	m->program[n < 0 ? 0 : n] = '\0';
	*to++ = (char *)(helper ? "mount.fmfs" : "fmfs");
	if (!helper)
		*to++ = (char *)"mount";
	memcpy(to, argv + 1, (argc - 1) * sizeof(*to));
	return 0;
}

/* The mount that another daemon has left to us, if one has: true, and *status is what we
 * end with. */
static bool take_over(struct mounting *m, int *status)
{
	struct state state;

	if (handover_take(&state) != 1)
		return false;
	m->taken = &state;
	if (!m->opt.foreground)
		become_daemon();
	*status = run_daemon(m);
	if (m->took)
		return true;
	log_warn("%s: the mount of the daemon before ends, and the store is mounted anew",
		 m->f.mountpoint);
	handover_done(&state);
	if (m->fuse_fd >= 0)
		close(m->fuse_fd);
	m->taken = NULL;
	m->complete = false;
	memset(&m->f, 0, sizeof(m->f));
	return false;
}

static int mount_or_take_over(struct mounting *m, int argc, char **argv)
{
	int status;

	log_init("fmfs mount", m->opt.debug                          ? LOG_LEVEL_DEBUG
			       : m->opt.foreground || m->opt.verbose ? LOG_LEVEL_INFO
								     : LOG_LEVEL_WARN);
	if (remember_call(m, argc, argv) < 0) {
		log_error("no memory");
		return EXIT_FAILURE;
	}
	if (!take_over(m, &status))
		status = run(m);
	free(m->argv);
	return status;
}

int fmfs_mount_main(int argc, char **argv)
{
	struct mounting *m = calloc(1, sizeof(*m));
	int status;

	if (m == NULL) {
		log_error("no memory");
		return EXIT_FAILURE;
	}
	log_init("fmfs mount", LOG_LEVEL_WARN);
	m->ready_fd = m->fuse_fd = -1;
	if (options_parse(&m->opt, argc, argv) < 0) {
		status = EXIT_USAGE;
	} else if (m->opt.help) {
		options_print_help();
		status = EXIT_SUCCESS;
	} else if (m->opt.takes != NULL) {
		status = strtoul(m->opt.takes, NULL, 10) == HANDOVER_VERSION
				 ? EXIT_SUCCESS
				 : EXIT_FAILURE;
	} else {
		status = mount_or_take_over(m, argc, argv);
	}
	options_free(&m->opt);
	free(m);
	return status;
}
