/* SPDX-License-Identifier: Apache-2.0 */
/* fmfs stat: how pools are used, worked out from their bookkeeping. */
#include <config.h>

#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include <fmalloc.h>

#include "cli/cli.h"
#include "heap/error.h"
#include "heap/inspect.h"

/* The figures that are one number each, in the order of both forms. */
static const struct {
	const char *key;
	size_t off; /* in struct fm_stats */
} figures[] = {
#define FIGURE(name) { #name, offsetof(struct fm_stats, name) }
	FIGURE(file_len),	FIGURE(disk_len),	  FIGURE(heap_end),
	FIGURE(nroots),		FIGURE(nzones),		  FIGURE(nlive),
	FIGURE(live_len),	FIGURE(nruns),		  FIGURE(run_len),
	FIGURE(nhuge),		FIGURE(huge_len),	  FIGURE(nmagazine),
	FIGURE(meta_len),	FIGURE(backed_len),	  FIGURE(free_len),
	FIGURE(largest_free_len), FIGURE(nfree_chunks),	  FIGURE(nhole_chunks),
	FIGURE(fragmentation),	FIGURE(log_len),	  FIGURE(log_used_len),
};
#define NFIGURES (sizeof(figures) / sizeof(figures[0]))

static uint64_t figure(const struct fm_stats *stats, size_t i)
{
	return *(const uint64_t *)((const char *)stats + figures[i].off);
}

static void print_classes(const struct fm_stats *stats)
{
	static const char *const head[] = { "SIZE", "SLABS", "LIVE", "FREE", "REMOTE" };
	struct table t = { .head = head, .align = "rrrrr", .ncolumns = 5 };

	for (size_t i = 0; i < FM_NCLASSES; i++) {
		const struct fm_class_stats *cls = &stats->cls[i];

		if (cls->nslabs == 0)
			continue;
		table_add(&t, cli_printf("%" PRIu64, cls->block_len));
		table_add(&t, cli_printf("%" PRIu64, cls->nslabs));
		table_add(&t, cli_printf("%" PRIu64, cls->nlive));
		table_add(&t, cli_printf("%" PRIu64, cls->nfree));
		table_add(&t, cli_printf("%" PRIu64, cls->nremote));
	}
	table_print(&t);
	table_free(&t);
}

static void print_text(const char *path, const struct fm_stats *stats)
{
	char *name = cli_escape(path);

	printf("pool: %s\n", name);
	free(name);
	for (size_t i = 0; i < NFIGURES; i++)
		printf("%s: %" PRIu64 "\n", figures[i].key, figure(stats, i));
	print_classes(stats);
}

static void list_json(const char *path, const struct fm_stats *stats,
		      struct json_list *list)
{
	json_t *obj = json_object(), *classes = json_array(), *item;

	cli_json_text(obj, "pool", path);
	for (size_t i = 0; i < NFIGURES; i++)
		cli_json_set(obj, figures[i].key, cli_json_u64(figure(stats, i)));
	for (size_t i = 0; i < FM_NCLASSES; i++) {
		const struct fm_class_stats *cls = &stats->cls[i];

		item = json_object();
		cli_json_set(item, "size", cli_json_u64(cls->block_len));
		cli_json_set(item, "slabs", cli_json_u64(cls->nslabs));
		cli_json_set(item, "live", cli_json_u64(cls->nlive));
		cli_json_set(item, "free", cli_json_u64(cls->nfree));
		cli_json_set(item, "remote", cli_json_u64(cls->nremote));
		json_array_append_new(classes, item);
	}
	cli_json_set(obj, "classes", classes);
	cli_json_list_add(list, obj);
}

static int show(const char *path, bool json, struct json_list *list)
{
	struct fm_stats stats;
	int fd, status;

	status = cli_open_pool(path, &fd);
	if (status != CLI_OK)
		return status;
	if (stat_file(fd, &stats) < 0)
		status = cli_fail(path, "%s", err_words());
	else if (json)
		list_json(path, &stats, list);
	else
		print_text(path, &stats);
	close(fd);
	return status;
}

static int run(int argc, char **argv)
{
	struct json_list list = { .n = 0 };
	int status = CLI_OK, first;
	bool json;

	if (!cli_json_option(&verb_stat, argc, argv, &json, &status))
		return status;
	if (optind == argc)
		return cli_usage(&verb_stat);
	for (first = optind; optind < argc; optind++) {
		if (!json && optind > first)
			putchar('\n');
		if (show(argv[optind], json, &list) != CLI_OK)
			status = CLI_FAILED;
	}
	if (json)
		cli_json_list_end(&list);
	return status;
}

const struct verb verb_stat = {
	.name = "stat",
	.synopsis = "stat [--json] POOL...",
	.summary = "Show how pools are used",
	.help = "POOL is a pool or snapshot at a mount, or any file that is a pool; a\n"
		"program may have it open.  A line for each figure, as struct fm_stats in\n"
		"fmalloc(3) has them, and a table of the size classes in use.  Lengths are\n"
		"bytes.\n\n"
		"  --json   an array of objects instead\n",
	.run = run,
};
