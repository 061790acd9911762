/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that rewrites pools that are in many pieces. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/rw.h"
#include "fuse/defrag.h"
#include "fuse/locks.h"
#include "fuse/reflink.h"

/* What is rewritten at once, if it is in more pieces than that. */
#define PART_LEN (1l << 20)
#define PART_BREAKS 16u
/* As many extents as are looked at, which may have holes between them. */
#define PART_EXTENTS 256u

#define MAX_JOBS 64u

struct defrag_job {
	STAILQ_ENTRY(defrag_job) link;
	int fd;
	char name[];
};

/* --- a part of a file ---------------------------------------------------------- */

static bool goes_on(const struct fiemap_extent *a, const struct fiemap_extent *b)
{
	return a->fe_physical + a->fe_length == b->fe_physical;
}

/* Where one extent ends, and the next one, right behind it in the file, lies elsewhere. */
static unsigned int count_breaks(int fd, off_t off)
{
	union {
		struct fiemap map;
		char room[sizeof(struct fiemap) +
			  PART_EXTENTS * sizeof(struct fiemap_extent)];
	} m = { .map = { .fm_start = off,
			 .fm_length = PART_LEN,
			 .fm_extent_count = PART_EXTENTS } };
	const struct fiemap_extent *e = m.map.fm_extents;
	unsigned int n = 0;

	if (ioctl(fd, FS_IOC_FIEMAP, &m.map) < 0)
		return 0;
	for (unsigned int i = 1; i < m.map.fm_mapped_extents; i++)
		n += e[i - 1].fe_logical + e[i - 1].fe_length == e[i].fe_logical &&
		     !((e[i - 1].fe_flags | e[i].fe_flags) & FIEMAP_EXTENT_UNKNOWN) &&
		     !goes_on(&e[i - 1], &e[i]);
	return n;
}

/* On XFS, which gives only what is shared another place, a file to share with; else -1. */
static int open_other(const struct defrag *d, int fd, int *other)
{
	struct statfs fs;

	*other = -1;
	if (fstatfs(fd, &fs) < 0)
		return -errno;
	if (fs.f_type != XFS_SUPER_MAGIC)
		return 0;
	*other = openat(d->tmp_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	return *other < 0 ? -errno : 0;
}

/* Put the part where there is room for it in one piece: 0 or -errno. */
static int move_part(int fd, int other, off_t off)
{
	struct btrfs_ioctl_defrag_range_args range = {
		.start = off,
		.len = PART_LEN,
		.extent_thresh = PART_LEN,
		.flags = BTRFS_DEFRAG_RANGE_START_IO,
	};
	int rc;

	if (other < 0)
		return ioctl(fd, BTRFS_IOC_DEFRAG_RANGE, &range) < 0 ? -errno : 0;
	rc = reflink_range(fd, off, PART_LEN, other, 0);
	if (rc == 0 && fallocate(fd, FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE, off,
				 PART_LEN) < 0)
		rc = -errno;
	return rc;
}

static int rewrite(int fd, int other, off_t off)
{
	int rc = move_part(fd, other, off);

	/* Now, so that what is dirty does not pile up, which others would have to wait for. */
	if (rc == 0)
		rc = flush_at(fd, off, PART_LEN);
	if (other >= 0 && ftruncate(other, 0) < 0 && rc == 0)
		rc = -errno;
	return rc;
}

/* --- a file ---------------------------------------------------------------------- */

/* As much as when a snapshot is taken, and what is rewritten comes to that. */
static bool has_room(int fd, const struct stat *st)
{
	uint64_t taken = (uint64_t)st->st_blocks * 512;
	struct statvfs fs;

	return fstatvfs(fd, &fs) == 0 &&
	       (uint64_t)fs.f_bavail * fs.f_frsize >= taken + PART_LEN;
}

/* Is there still anybody who would be held up? */
static bool is_of_use(int fd, struct stat *st)
{
	return fstat(fd, st) == 0 && st->st_nlink > 0 && locks_pool_in_use(fd);
}

/* The part at this offset, if need be: 1 if so, 0, or -errno. */
static int do_part(int fd, int other, off_t off, const struct stat *st)
{
	uint64_t start;
	int rc;

	if (count_breaks(fd, off) <= PART_BREAKS)
		return 0;
	if (!has_room(fd, st))
		return -ENOSPC;
	start = clock_ns();
	rc = rewrite(fd, other, off);
	/* Who waited for it is to have as long till the next. */
	clock_sleep(clock_ns() - start);
	return rc < 0 ? rc : 1;
}

static void do_file(struct defrag *d, const struct defrag_job *job)
{
	struct stat st = { .st_size = 0 };
	unsigned int nparts = 0;
	int other;
	int rc = open_other(d, job->fd, &other);

	for (off_t off = 0; rc >= 0 && !atomic_load(&d->stop); off += PART_LEN) {
		if (!is_of_use(job->fd, &st) || off + PART_LEN > st.st_size)
			break;
		rc = do_part(job->fd, other, off, &st);
		nparts += rc > 0;
	}
	if (other >= 0)
		close(other);
	log_info("%s: a snapshot held its writer up: rewrote %u of %lld MiB%s%s",
		 job->name, nparts, (long long)(st.st_size / PART_LEN),
		 rc < 0 ? ", then: " : "", rc < 0 ? strerror(-rc) : "");
}

/* --- the thread ------------------------------------------------------------------- */

static void free_job(struct defrag_job *job)
{
	close(job->fd);
	free(job);
}

static void *serve(void *arg)
{
	struct defrag *d = arg;
	struct defrag_job *job;

	pthread_mutex_lock(&d->lock);
	while (!atomic_load(&d->stop)) {
		job = STAILQ_FIRST(&d->queue);
		if (job == NULL) {
			pthread_cond_wait(&d->changed, &d->lock);
			continue;
		}
		STAILQ_REMOVE_HEAD(&d->queue, link);
		d->njobs--;
		pthread_mutex_unlock(&d->lock);
		do_file(d, job);
		free_job(job);
		pthread_mutex_lock(&d->lock);
	}
	pthread_mutex_unlock(&d->lock);
	return NULL;
}

int defrag_start(struct defrag *d, int tmp_fd, int64_t max_stall)
{
	int err;

	d->tmp_fd = tmp_fd;
	d->max_stall = max_stall;
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->changed, NULL);
	STAILQ_INIT(&d->queue);
	err = pthread_create(&d->thread, NULL, serve, d);
	d->started = err == 0;
	return -err;
}

void defrag_stop(struct defrag *d)
{
	struct defrag_job *job;

	if (!d->started)
		return;
	pthread_mutex_lock(&d->lock);
	atomic_store(&d->stop, true);
	pthread_cond_signal(&d->changed);
	pthread_mutex_unlock(&d->lock);
	pthread_join(d->thread, NULL);
	while ((job = STAILQ_FIRST(&d->queue)) != NULL) {
		STAILQ_REMOVE_HEAD(&d->queue, link);
		free_job(job);
	}
	d->started = false;
}

static struct defrag_job *new_job(int fd, const char *name)
{
	struct defrag_job *job = malloc(sizeof(*job) + strlen(name) + 1);

	if (job == NULL)
		return NULL;
	strcpy(job->name, name);
	job->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (job->fd >= 0)
		return job;
	free(job);
	return NULL;
}

void defrag_after(struct defrag *d, int fd, int64_t stall, const char *name)
{
	struct defrag_job *job;

	/* Before it is too much; and who writes may have waited for more than the clone. */
	if (d->max_stall == 0 || stall < d->max_stall / 2)
		return;
	job = new_job(fd, name);
	if (job == NULL)
		return; /* the next snapshot asks again */
	pthread_mutex_lock(&d->lock);
	if (d->njobs < MAX_JOBS && !atomic_load(&d->stop)) {
		STAILQ_INSERT_TAIL(&d->queue, job, link);
		d->njobs++;
		pthread_cond_signal(&d->changed);
		job = NULL;
	}
	pthread_mutex_unlock(&d->lock);
	if (job != NULL)
		free_job(job);
}
