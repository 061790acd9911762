/* SPDX-License-Identifier: Apache-2.0 */
/* Passthrough: may we, does it work, and one backing id for each open file. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/log.h"
#include "fuse/fmfs.h"
#include "fuse/mountinfo.h"
#include "fuse/state.h"

/* The initial user namespace has a fixed inode number (PROC_USER_INIT_INO). */
#define INIT_USERNS_INO 0xeffffffdu
#define CAP_SYS_ADMIN_BIT 21

static bool has_sys_admin(void)
{
	unsigned long long caps = 0;
	char line[128];
	struct stat st;
	FILE *f;

	if (stat("/proc/self/ns/user", &st) == 0 && st.st_ino != INIT_USERNS_INO)
		return false;
	f = fopen("/proc/self/status", "re");
	if (f == NULL)
		return false;
	while (fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, "CapEff: %llx", &caps) == 1)
			break;
	fclose(f);
	return caps >> CAP_SYS_ADMIN_BIT & 1;
}

/*
 * The kernel lets a mount have some 48 MB of dirty pages and no more, so that stores
 * through large mappings wait for the daemon all the time.  Root may say that it is as good
 * as a disk.
 */
static bool lift_dirty_limit(const char *mountpoint)
{
	struct mount_entry e;
	char path[64];
	bool lifted;
	int fd;

	if (mountpoint == NULL || mount_find_point(mountpoint, &e) != 1)
		return false;
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/strict_limit", major(e.dev),
		 minor(e.dev));
	mount_entry_free(&e);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	lifted = fd >= 0 && write(fd, "0", 1) == 1;
	if (fd >= 0)
		close(fd);
	return lifted;
}

static void decide_against(struct passthrough *p, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
static void decide_against(struct passthrough *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p->why_not, sizeof(p->why_not), fmt, ap);
	va_end(ap);
	p->on = false;
	p->decided = true;
	p->slow = !lift_dirty_limit(p->mountpoint);
	log_warn("no passthrough: %s%s", p->why_not,
		 p->slow ? "; large shared mappings will be slow, but not pools that are "
			   "atomic (-o atomic)"
			 : "");
}

void passthrough_init(struct passthrough *p, const struct store *s, bool refused,
		      struct fuse_conn_info *conn)
{
	pthread_mutex_init(&p->lock, NULL);
	if (refused)
		decide_against(p, "refused by the option no_passthrough");
	else if (!(conn->capable_ext & FUSE_CAP_PASSTHROUGH))
		decide_against(p, "this kernel does not offer it (Linux 6.9 does)");
	else if (!has_sys_admin())
		decide_against(p, "the daemon lacks CAP_SYS_ADMIN; mount as root");
	else
		p->wanted = fuse_set_feature_flag(conn, FUSE_CAP_PASSTHROUGH);
	if (!p->wanted)
		return;
	conn->max_backing_stack_depth =
		s->stacked ? FUSE_BACKING_STACKED_OVER : FUSE_BACKING_STACKED_UNDER;
}

void passthrough_save(const struct passthrough *p, struct state *s)
{
	state_put(s, p->wanted);
	state_put(s, p->decided);
	state_put(s, p->on);
	state_put(s, p->slow);
	state_put_text(s, p->why_not);
}

void passthrough_load(struct passthrough *p, struct state *s)
{
	char *why_not;

	pthread_mutex_init(&p->lock, NULL);
	p->wanted = state_get(s);
	p->decided = state_get(s);
	p->on = state_get(s);
	p->slow = state_get(s);
	why_not = state_get_text(s);
	snprintf(p->why_not, sizeof(p->why_not), "%s", why_not == NULL ? "" : why_not);
	free(why_not);
}

/* With the file that is in every store, full or not; with p->lock held. */
static void try_it(fuse_req_t req, struct passthrough *p, const struct store *s)
{
	int id;

	if (s->readonly) {
		p->on = p->decided = true; /* it may have none */
		return;
	}
	errno = 0;
	id = fuse_passthrough_open(req, s->lock_fd);
	if (id > 0) {
		fuse_passthrough_close(req, id);
		p->on = p->decided = true;
	} else {
		decide_against(p, "the kernel refuses the store's files: %s",
			       strerror(errno));
	}
}

bool passthrough_on(fuse_req_t req)
{
	struct fmfs *f = fmfs_of(req);
	struct passthrough *p = &f->passthrough;
	bool on;

	pthread_mutex_lock(&p->lock);
	if (!p->decided)
		try_it(req, p, &f->store);
	on = p->on;
	pthread_mutex_unlock(&p->lock);
	return on;
}

int passthrough_attach(fuse_req_t req, struct node *n, struct fuse_file_info *fi)
{
	int rc = 0;

	if (!passthrough_on(req))
		return 0;
	pthread_mutex_lock(&n->lock);
	if (n->backing_id == 0) {
		errno = 0;
		n->backing_id = fuse_passthrough_open(req, n->fd);
		if (n->backing_id == 0)
			rc = errno != 0 ? -errno : -EIO;
	}
	fi->backing_id = n->backing_id;
	pthread_mutex_unlock(&n->lock);
	return rc;
}

void passthrough_detach(fuse_req_t req, int backing_id)
{
	if (backing_id > 0)
		fuse_passthrough_close(req, backing_id);
}
