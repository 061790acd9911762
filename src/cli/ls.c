/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fmfs ls: the pools of a mount, from its catalog; their sizes and times from
 * the mount itself.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "catalog/catalog.h"
#include "cli/ask.h"
#include "cli/cli.h"

enum form { NAMES, LONG, JSON };

struct listing {
	int root_fd;
	enum form form;
	struct table table;    /* LONG */
	struct json_list json; /* JSON */
	int status;
};

static const char *const head[] = {
	"KIND", "SIZE", "DISK", "ROOTS", "MODIFIED", "NAME"
};

static const char *kind_name(uint32_t kind)
{
	switch (kind) {
	case CATALOG_FILE:
		return "file";
	case CATALOG_LIVE:
		return "live";
	case CATALOG_ATOMIC:
		return "atomic";
	case CATALOG_DAMAGED:
		return "damaged";
	default:
		return "unknown";
	}
}

static json_t *json_time(time_t seconds, long ns)
{
	char date[32];
	struct tm tm;
	char *text;
	json_t *value;

	if (!gmtime_r(&seconds, &tm) ||
	    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm) == 0)
		return json_null();
	text = cli_printf("%s.%09ldZ", date, ns);
	value = json_string(text);
	free(text);
	return value;
}

static json_t *json_uuid(const uint8_t uuid[16])
{
	static const uint8_t none[16];
	char s[37], *to = s;

	if (memcmp(uuid, none, sizeof(none)) == 0)
		return json_null();
	for (int i = 0; i < 16; i++)
		to += sprintf(to,
			      i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x",
			      uuid[i]);
	return json_string(s);
}

static void add_json(struct listing *l, const struct fmfs_pool_rec *pool,
		     const struct stat *st)
{
	json_t *obj = json_object();

	cli_json_text(obj, "name", pool->name);
	cli_json_set(obj, "kind", json_string(kind_name(pool->kind)));
	if (*pool->parent)
		cli_json_text(obj, "parent", pool->parent);
	else
		cli_json_set(obj, "parent", json_null());
	cli_json_set(obj, "uuid", json_uuid(pool->uuid));
	cli_json_set(obj, "roots", cli_json_u64(pool->nroots));
	cli_json_set(obj, "size", st ? json_integer(st->st_size) : json_null());
	cli_json_set(obj, "disk",
		     st ? json_integer(512ll * st->st_blocks) : json_null());
	cli_json_set(obj, "created",
		     pool->created_ns == 0
			     ? json_null()
			     : json_time((time_t)(pool->created_ns / 1000000000u),
					 (long)(pool->created_ns % 1000000000u)));
	cli_json_set(obj, "modified",
		     !st ? json_null()
			 : json_time(st->st_mtim.tv_sec, st->st_mtim.tv_nsec));
	cli_json_list_add(&l->json, obj);
}

static char *short_time(time_t t)
{
	char s[32];
	struct tm tm;

	if (!localtime_r(&t, &tm) || strftime(s, sizeof(s), "%Y-%m-%d %H:%M", &tm) == 0)
		return cli_printf("?");
	return cli_printf("%s", s);
}

static void add_row(struct listing *l, const struct fmfs_pool_rec *pool,
		    const struct stat *st)
{
	char *name = cli_escape(pool->name), *parent = cli_escape(pool->parent);
	struct table *t = &l->table;

	table_add(t, cli_printf("%s", kind_name(pool->kind)));
	table_add(t, st ? cli_printf("%lld", (long long)st->st_size) : cli_printf("?"));
	table_add(t, st ? cli_printf("%lld", 512ll * st->st_blocks) : cli_printf("?"));
	table_add(t, cli_printf("%llu", (unsigned long long)pool->nroots));
	table_add(t, st ? short_time(st->st_mtime) : cli_printf("?"));
	table_add(t, *parent ? cli_printf("%s <- %s", name, parent)
			     : cli_printf("%s", name));
	free(name);
	free(parent);
}

/* The daemon's word is not enough to look at files outside of its mount. */
static bool leaves_mount(const char *name)
{
	return name[0] == '/' || strcmp(name, "..") == 0 ||
	       strncmp(name, "../", 3) == 0 || strstr(name, "/../") ||
	       (strlen(name) > 3 && strcmp(name + strlen(name) - 3, "/..") == 0);
}

static int add_pool(const struct fmfs_pool_rec *pool, void *arg)
{
	struct listing *l = arg;
	struct stat st;
	bool known;

	if (leaves_mount(pool->name))
		return -EPROTO;
	if (l->form == NAMES) {
		char *name = cli_escape(pool->name);

		puts(name);
		free(name);
		return 0;
	}
	known = fstatat(l->root_fd, pool->name, &st, AT_SYMLINK_NOFOLLOW) == 0;
	if (!known && errno == ENOENT)
		return 0; /* removed since the catalog was asked */
	if (!known)
		l->status = cli_fail_errno(pool->name, -errno);
	if (l->form == JSON)
		add_json(l, pool, known ? &st : NULL);
	else
		add_row(l, pool, known ? &st : NULL);
	return 0;
}

static int list_pools(const char *path, enum form form)
{
	struct listing l = {
		.form = form,
		.table = { .head = head, .align = "lrrrll", .ncolumns = 6 },
		.status = CLI_OK,
	};
	int ret;

	l.root_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (l.root_fd < 0)
		return cli_fail_errno(path, -errno);
	ret = ask_pools(l.root_fd, add_pool, &l);
	close(l.root_fd);
	if (ret == 0 && form == LONG)
		table_print(&l.table);
	if (ret == 0 && form == JSON)
		cli_json_list_end(&l.json);
	table_free(&l.table);
	return ret == 0 ? l.status : cli_fail_errno(path, ret);
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "long", no_argument, NULL, 'l' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	enum form form = NAMES;
	int opt;

	while ((opt = getopt_long(argc, argv, "l", options, NULL)) != -1) {
		if (opt == 'h')
			return cli_help(&verb_ls);
		if (opt == 'l' && form == NAMES)
			form = LONG;
		else if (opt == 'j')
			form = JSON;
		else if (opt != 'l')
			return cli_usage(&verb_ls);
	}
	if (argc - optind != 1)
		return cli_usage(&verb_ls);
	return list_pools(argv[optind], form);
}

const struct verb verb_ls = {
	.name = "ls",
	.synopsis = "ls [-l] [--json] MOUNT",
	.summary = "List the pools and snapshots of a mount",
	.help = "One name a line, in order of their bytes, escaped as in C.\n\n"
		"  -l, --long  a table: kind, size and allocated space in bytes, number of\n"
		"              named roots, time of change, name (of a snapshot: NAME <- PARENT)\n"
		"  --json      an array of objects with all there is to know\n",
	.run = run,
};
