/* SPDX-License-Identifier: Apache-2.0 */
/* From an open store to a session that serves, and back. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "fuse/daemon.h"
#include "fuse/mountinfo.h"
#include "fuse/ops.h"
#include "fuse/rename.h"
#include "fuse/service.h"

#define DYING_MS 5000 /* a killed daemon holds its store's lock until all its threads end */

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

void daemon_detach(void)
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
	daemon_detach();
	if (write(m->ready_fd, f->passthrough.wanted ? DAEMON_READY : DAEMON_READY_SLOW, 1) != 1)
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
		rc = defrag_start(&f->defrag, f->store.tmp_fd,
				  m->opt.max_stall * INT64_C(1000000));
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

int daemon_run(struct mounting *m)
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
