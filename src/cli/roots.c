/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fmfs roots: the named roots of a pool, from the catalog if the pool is at a
 * mount, else from the file itself.
 */
#include <config.h>

#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/ask.h"
#include "cli/cli.h"
#include "heap/inspect.h"

/* Both sources give records of the ioctl's form. */
struct roots {
	struct fmfs_root_rec *root;
	size_t n, max;
};

static int add_root(const struct fmfs_root_rec *root, void *arg)
{
	struct roots *roots = arg;

	if (roots->n == roots->max) {
		roots->max = roots->max ? 2 * roots->max : 64;
		roots->root =
			cli_realloc(roots->root, roots->max, sizeof(*roots->root));
	}
	roots->root[roots->n++] = *root;
	return 0;
}

_Static_assert(sizeof(((struct fmfs_root_rec *)0)->name) == FM_ROOT_NAME_LEN &&
		       sizeof(((struct fmfs_root_rec *)0)->type) == FM_ROOT_TYPE_LEN,
	       "records of the same width");

static int add_inspected(const struct pool_root *root, void *arg)
{
	struct fmfs_root_rec rec = { .off = root->off, .size = root->size };

	memcpy(rec.name, root->name, sizeof(rec.name));
	memcpy(rec.type, root->type, sizeof(rec.type));
	return add_root(&rec, arg);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct fmfs_root_rec *)a)->name,
		      ((const struct fmfs_root_rec *)b)->name);
}

static void print_table(const struct roots *roots)
{
	static const char *const head[] = { "NAME", "TYPE", "OFFSET", "SIZE" };
	struct table t = { .head = head, .align = "llrr", .ncolumns = 4 };

	for (size_t i = 0; i < roots->n; i++) {
		const struct fmfs_root_rec *root = &roots->root[i];

		table_add(&t, cli_escape(root->name));
		table_add(&t, cli_escape(*root->type ? root->type : "-"));
		table_add(&t, cli_printf("%llu", (unsigned long long)root->off));
		table_add(&t, root->size ? cli_printf("%llu",
						      (unsigned long long)root->size)
					 : cli_printf("-"));
	}
	table_print(&t);
	table_free(&t);
}

static void print_json(const struct roots *roots)
{
	struct json_list list = { .n = 0 };

	for (size_t i = 0; i < roots->n; i++) {
		const struct fmfs_root_rec *root = &roots->root[i];
		json_t *obj = json_object();

		cli_json_text(obj, "name", root->name);
		cli_json_text(obj, "type", root->type);
		cli_json_set(obj, "offset", cli_json_u64(root->off));
		cli_json_set(obj, "size",
			     root->size ? cli_json_u64(root->size) : json_null());
		cli_json_list_add(&list, obj);
	}
	cli_json_list_end(&list);
}

/* Is it a pool at all?  CLI_OK, or after a message. */
static int check_pool(const char *path, int fd)
{
	struct pool_info info;
	int ret;

	ret = inspect_pool(fd, &info);
	if (ret < 0)
		return cli_fail_errno(path, ret);
	if (info.state != POOL_GOOD)
		return cli_fail(path, "%s", info.why);
	return CLI_OK;
}

static int get_roots(int fd, struct roots *roots)
{
	int ret = ask_roots(fd, add_root, roots);

	if (ret != -ENOTTY && ret != -EFBIG)
		return ret;
	ret = inspect_roots(fd, add_inspected, roots);
	if (roots->n > 0)
		qsort(roots->root, roots->n, sizeof(*roots->root), by_name);
	return ret < 0 ? ret : 0;
}

/* Of a pool whose roots are damaged the good ones are shown, and then a failure. */
static int show(const char *path, bool json)
{
	struct roots roots = { .n = 0 };
	int fd, status, ret;

	status = cli_open_pool(path, &fd);
	if (status != CLI_OK)
		return status;
	status = check_pool(path, fd);
	if (status == CLI_OK) {
		ret = get_roots(fd, &roots);
		if (ret == 0 || ret == -EUCLEAN) {
			if (json)
				print_json(&roots);
			else
				print_table(&roots);
		}
		if (ret == -EUCLEAN)
			status = cli_fail(path, "the named roots are damaged");
		else if (ret != 0)
			status = cli_fail_errno(path, ret);
	}
	free(roots.root);
	close(fd);
	return status;
}

static int run(int argc, char **argv)
{
	int status;
	bool json;

	if (!cli_json_option(&verb_roots, argc, argv, &json, &status))
		return status;
	if (argc - optind != 1)
		return cli_usage(&verb_roots);
	return show(argv[optind], json);
}

const struct verb verb_roots = {
	.name = "roots",
	.synopsis = "roots [--json] POOL",
	.summary = "List the named roots of a pool",
	.help = "POOL is a pool at a mount, or any file that is a pool.  A table, in order of\n"
		"name: name, type (- for none), offset in the file and size, both in bytes\n"
		"(size - if not known).\n\n"
		"  --json   an array of objects instead\n",
	.run = run,
};
