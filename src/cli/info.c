/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fmfs info: what a mount can do, and who serves it.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/ask.h"
#include "cli/cli.h"
#include "fuse/mountinfo.h"

static void print_text(const struct fmfs_info *info, const struct mount_entry *mount)
{
	char *why = cli_escape(info->why_not);
	char *store = cli_escape(mount->source ? mount->source : "unknown");
	char *point = cli_escape(mount->point ? mount->point : "unknown");

	if (info->flags & FMFS_F_PASSTHROUGH)
		puts("passthrough: yes");
	else
		printf("passthrough: no (%s)%s\n", *why ? why : "no reason given",
		       info->flags & FMFS_F_SLOW ? ": large shared mappings are slow"
						 : "");
	printf("reflink: %s\n", info->flags & FMFS_F_REFLINK ? "yes" : "no");
	printf("read-only: %s\n", info->flags & FMFS_F_READONLY ? "yes" : "no");
	printf("atomic: %s\n", info->flags & FMFS_F_ATOMIC ? "yes" : "no");
	if (info->max_pool > 0)
		printf("max_pool: %" PRIu64 "\n", info->max_pool);
	if (info->max_store > 0)
		printf("max_store: %" PRIu64 "\nused: %" PRIu64 "\n", info->max_store,
		       info->used);
	printf("daemon: %" PRIu64 "\n", info->pid);
	printf("store: %s\n", store);
	printf("mountpoint: %s\n", point);
	free(why);
	free(store);
	free(point);
}

static void print_json(const struct fmfs_info *info, const struct mount_entry *mount)
{
	json_t *obj = json_object();

	cli_json_set(obj, "passthrough",
		     json_boolean(info->flags & FMFS_F_PASSTHROUGH));
	if (*info->why_not)
		cli_json_text(obj, "why_not", info->why_not);
	cli_json_set(obj, "slow", json_boolean(info->flags & FMFS_F_SLOW));
	cli_json_set(obj, "reflink", json_boolean(info->flags & FMFS_F_REFLINK));
	cli_json_set(obj, "read_only", json_boolean(info->flags & FMFS_F_READONLY));
	cli_json_set(obj, "atomic", json_boolean(info->flags & FMFS_F_ATOMIC));
	if (info->max_pool > 0)
		cli_json_set(obj, "max_pool", cli_json_u64(info->max_pool));
	if (info->max_store > 0) {
		cli_json_set(obj, "max_store", cli_json_u64(info->max_store));
		cli_json_set(obj, "used", cli_json_u64(info->used));
	}
	cli_json_set(obj, "daemon", cli_json_u64(info->pid));
	if (mount->source)
		cli_json_text(obj, "store", mount->source);
	if (mount->point)
		cli_json_text(obj, "mountpoint", mount->point);
	json_dumpf(obj, stdout, JSON_INDENT(1) | JSON_ENSURE_ASCII);
	putchar('\n');
	json_decref(obj);
}

static int show(const char *path, bool json)
{
	struct mount_entry mount = { .point = NULL };
	struct fmfs_info info;
	struct stat st;
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	int ret = fd < 0 ? -errno : fmfs_ask_info(fd, &info);

	if (ret == 0 && fstat(fd, &st) != 0)
		ret = -errno;
	if (ret == 0)
		ret = mount_find_dev(st.st_dev, &mount);
	if (fd >= 0)
		close(fd);
	if (ret < 0)
		return cli_fail_errno(path, ret);
	if (json)
		print_json(&info, &mount);
	else
		print_text(&info, &mount);
	mount_entry_free(&mount);
	return CLI_OK;
}

static int run(int argc, char **argv)
{
	int status;
	bool json;

	if (!cli_json_option(&verb_info, argc, argv, &json, &status))
		return status;
	if (argc - optind != 1)
		return cli_usage(&verb_info);
	return show(argv[optind], json);
}

const struct verb verb_info = {
	.name = "info",
	.synopsis = "info [--json] MOUNT",
	.summary = "Show what a mount can do",
	.help = "MOUNT is the mount point, or any file below it.\n\n"
		"  --json   an object instead of lines\n",
	.run = run,
};
