/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fmfs receive: make a snapshot of a stream.  It is written to a file without a name,
 * which goes by itself if this ends early, and gets its name from the daemon at the end.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/fmfs_ioctl.h"
#include "heap/error.h"
#include "stream/stream.h"

struct target {
	const char *path;	/* as given, for messages */
	int dirfd;		/* the folder */
	char *name;		/* POOL@TAG in there */
	char *base_name;	/* the same of the base */
	char *tmp_name;		/* of the file, where it must have one; else NULL */
	bool reflink;
};

/* --- where to ------------------------------------------------------------------- */

static bool is_snapshot_name(const char *name)
{
	const char *at = strchr(name, '@');

	return at != NULL && at > name && at[1] != '\0' && strchr(at + 1, '@') == NULL &&
	       strchr(name, '/') == NULL && strlen(name) < FMFS_NAME_LEN;
}

static bool is_folder(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int open_folder(struct target *t, const char *folder)
{
	struct fmfs_info info;
	int rc;

	t->dirfd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->dirfd < 0)
		return cli_fail_errno(folder, -errno);
	rc = fmfs_ask_info(t->dirfd, &info);
	if (rc < 0)
		return cli_fail_errno(folder, rc);
	t->reflink = (info.flags & FMFS_F_REFLINK) != 0;
	return info.flags & FMFS_F_READONLY ? cli_fail_errno(folder, -EROFS) : CLI_OK;
}

/* A folder, or a path that ends in POOL@TAG. */
static int find_target(struct target *t, const struct stream_head_disk *head)
{
	const char *slash = strrchr(t->path, '/');
	char *folder;
	int status;

	if (is_folder(t->path)) {
		folder = cli_printf("%s", t->path);
		t->name = cli_printf("%s", head->name);
	} else {
		folder = slash == NULL ? cli_printf(".") :
			 cli_printf("%.*s", (int)(slash - t->path + 1), t->path);
		t->name = cli_printf("%s", slash ? slash + 1 : t->path);
	}
	if (!is_snapshot_name(t->name))
		status = cli_fail(t->name, "no name of a snapshot, which is POOL@TAG");
	else
		status = open_folder(t, folder);
	free(folder);
	if (status == CLI_OK &&
	    faccessat(t->dirfd, t->name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		status = cli_fail(t->path, "%s exists already", t->name);
	return status;
}

/* The base has its tag from the stream, and the pool is that of the target. */
static int open_base(struct target *t, const struct stream_head_disk *head, int *fd)
{
	const char *at = strchr(head->base_name, '@');

	*fd = -1;
	if (!(head->flags & STREAM_INCREMENTAL))
		return CLI_OK;
	t->base_name = cli_printf("%.*s%s", (int)strcspn(t->name, "@"), t->name,
				  at ? at : "");
	if (!is_snapshot_name(t->base_name))
		return cli_fail(t->path, "the base in the stream has no name");
	*fd = openat(t->dirfd, t->base_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (*fd < 0 && errno == ENOENT)
		return cli_fail(t->path, "the stream has what changed since %s, which is not"
					 " here: receive that first, or all of %s",
				t->base_name, t->name);
	return *fd < 0 ? cli_fail_errno(t->base_name, -errno) : CLI_OK;
}

/* --- the file ---------------------------------------------------------------------- */

/* Linux before 6.2 cannot make a file without a name at a mount. */
static int make_named(struct target *t, mode_t mode)
{
	int fd;

	t->tmp_name = cli_printf(".receive-%ld", (long)getpid());
	fd = openat(t->dirfd, t->tmp_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	if (fd < 0) {
		free(t->tmp_name);
		t->tmp_name = NULL;
	}
	return fd;
}

static int make_file(struct target *t, const struct stream_head_disk *head, int *fd)
{
	*fd = openat(t->dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, head->mode);
	if (*fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR))
		*fd = make_named(t, head->mode);
	return *fd < 0 ? cli_fail_errno(t->path, -errno) : CLI_OK;
}

static int explain(const struct target *t, int err)
{
	switch (err) {
	case EEXIST:
		return cli_fail(t->path, "%s exists already", t->name);
	case ENOTTY:
		return cli_fail(t->path, "the daemon of this mount is too old to receive");
	case EUCLEAN:
		return cli_fail(t->path, "what was received is no sound pool");
	default:
		return cli_fail_errno(t->path, -err);
	}
}

static int adopt(const struct target *t, const struct stream_head_disk *head, int fd)
{
	const struct timespec times[2] = {
		{ .tv_nsec = UTIME_OMIT },
		{ .tv_sec = head->mtime_ns / 1000000000, .tv_nsec = head->mtime_ns % 1000000000 },
	};
	struct fmfs_adopt request = { .name = "" };
	int rc;

	if (futimens(fd, times) < 0)
		return cli_fail_errno(t->path, -errno);
	strcpy(request.name, t->name);
	rc = fmfs_ask(fd, FMFS_IOC_ADOPT, &request);
	return rc < 0 ? explain(t, -rc) : CLI_OK;
}

/* --- all of it ----------------------------------------------------------------------- */

static int fill(struct target *t, struct receiver *r, int fd, int base_fd, bool quiet)
{
	struct progress progress;
	const struct receive_to to = {
		.fd = fd,
		.base_fd = base_fd,
		.base_name = t->base_name,
		.share = t->reflink,
		.progress = progress_show,
		.arg = &progress,
	};
	int rc;

	progress_begin(&progress, quiet);
	rc = receive_run(r, &to);
	progress_end(&progress);
	return rc < 0 ? cli_fail(t->path, "%s", err_words()) : CLI_OK;
}

static int receive_to(struct target *t, struct receiver *r, bool quiet)
{
	const struct stream_head_disk *head = receive_head(r);
	int fd = -1, base_fd = -1, status;

	status = find_target(t, head);
	if (status == CLI_OK)
		status = open_base(t, head, &base_fd);
	if (status == CLI_OK)
		status = make_file(t, head, &fd);
	if (status == CLI_OK)
		status = fill(t, r, fd, base_fd, quiet);
	if (status == CLI_OK)
		status = adopt(t, head, fd);
	if (status != CLI_OK && t->tmp_name != NULL)
		unlinkat(t->dirfd, t->tmp_name, 0);
	if (fd >= 0)
		close(fd);
	if (base_fd >= 0)
		close(base_fd);
	return status;
}

static int receive(const char *path, bool quiet)
{
	struct target t = { .path = path, .dirfd = -1 };
	struct receiver *r;
	int status;

	if (receive_open(STDIN_FILENO, &r) < 0)
		return cli_fail(path, "%s", err_words());
	status = receive_to(&t, r, quiet);
	if (t.dirfd >= 0)
		close(t.dirfd);
	free(t.tmp_name);
	free(t.base_name);
	free(t.name);
	receive_close(r);
	return status;
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	bool quiet = false;
	int opt;

	while ((opt = getopt_long(argc, argv, "q", options, NULL)) == 'q')
		quiet = true;
	if (opt == 'h')
		return cli_help(&verb_receive);
	if (opt != -1 || argc - optind != 1)
		return cli_usage(&verb_receive);
	if (isatty(STDIN_FILENO))
		return cli_fail("standard input", "a terminal: a stream comes from 'fmfs send',"
						  " or a file that it wrote");
	return receive(argv[optind], quiet);
}

const struct verb verb_receive = {
	.name = "receive",
	.synopsis = "receive [-q] POOL@TAG | FOLDER",
	.summary = "Make a snapshot of a stream",
	.help = "The stream of 'fmfs send' comes from standard input, and becomes the snapshot\n"
		"POOL@TAG of a mount, which must not exist; in FOLDER, a mount, it gets the\n"
		"name that it was sent with.  It is there, and on the disk, once all of it was\n"
		"received and found right; before, there is nothing.  Of a stream of what changed\n"
		"since another snapshot, that must be there, as POOL@ITSTAG.\n\n"
		"  -q, --quiet   no progress on the terminal\n",
	.run = run,
};
