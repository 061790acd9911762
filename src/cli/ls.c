/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fmfs ls: the pools of a mount, from its catalog; their sizes and times from
 * the mount itself.
 */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
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
	int fd;		       /* of the folder being listed */
	const char *prefix;    /* of names in it: "" or "FOLDER/" */
	struct name_list folders; /* in it, in order */
	size_t nshown;	       /* of those */
	bool recursive;
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

static void set_name(json_t *obj, const char *key, const struct listing *l,
		     const char *name)
{
	char *path = cli_printf("%s%s", l->prefix, name);

	cli_json_text(obj, key, path);
	free(path);
}

static void add_json(struct listing *l, const struct fmfs_pool_rec *pool,
		     const struct stat *st)
{
	json_t *obj = json_object();

	set_name(obj, "name", l, pool->name);
	cli_json_set(obj, "kind", json_string(kind_name(pool->kind)));
	if (*pool->parent)
		set_name(obj, "parent", l, pool->parent);
	else
		cli_json_set(obj, "parent", json_null());
	cli_json_set(obj, "uuid", json_uuid(pool->uuid));
	cli_json_set(obj, "roots", pool->nroots == FMFS_NROOTS_UNKNOWN
					   ? json_null()
					   : cli_json_u64(pool->nroots));
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

static char *escaped_path(const struct listing *l, const char *name)
{
	char *path = cli_printf("%s%s", l->prefix, name), *text = cli_escape(path);

	free(path);
	return text;
}

/* NAME, or NAME <- PARENT. */
static char *row_name(const struct listing *l, const struct fmfs_pool_rec *pool)
{
	char *name = escaped_path(l, pool->name), *parent, *text;

	if (*pool->parent == '\0')
		return name;
	parent = escaped_path(l, pool->parent);
	text = cli_printf("%s <- %s", name, parent);
	free(name);
	free(parent);
	return text;
}

static void add_row(struct listing *l, const struct fmfs_pool_rec *pool,
		    const struct stat *st)
{
	struct table *t = &l->table;

	table_add(t, cli_printf("%s", kind_name(pool->kind)));
	table_add(t, st ? cli_printf("%lld", (long long)st->st_size) : cli_printf("?"));
	table_add(t, st ? cli_printf("%lld", 512ll * st->st_blocks) : cli_printf("?"));
	table_add(t, pool->nroots == FMFS_NROOTS_UNKNOWN
			     ? cli_printf("?")
			     : cli_printf("%llu", (unsigned long long)pool->nroots));
	table_add(t, st ? short_time(st->st_mtime) : cli_printf("?"));
	table_add(t, row_name(l, pool));
}

/* --- folders -------------------------------------------------------------------- */

/* The catalog knows pools only. */
static int find_folders(int fd, struct name_list *folders)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;

	if (dir == NULL)
		return -errno;
	while ((e = readdir(dir)) != NULL)
		if (e->d_type == DT_DIR && strcmp(e->d_name, ".") != 0 &&
		    strcmp(e->d_name, "..") != 0)
			names_add(folders, cli_printf("%s", e->d_name));
	closedir(dir);
	names_sort(folders);
	return 0;
}

static void print_name(const struct listing *l, const char *name, const char *end)
{
	char *path = escaped_path(l, name);

	printf("%s%s\n", path, end);
	free(path);
}

static void show_folder(struct listing *l, const char *name)
{
	json_t *obj;
	char *path;

	if (l->form == NAMES) {
		print_name(l, name, "/");
	} else if (l->form == JSON) {
		obj = json_object();
		set_name(obj, "name", l, name);
		cli_json_set(obj, "kind", json_string("folder"));
		cli_json_list_add(&l->json, obj);
	} else {
		path = escaped_path(l, name);
		table_add(&l->table, cli_printf("folder"));
		for (int i = 0; i < 4; i++)
			table_add(&l->table, cli_printf("-"));
		table_add(&l->table, cli_printf("%s/", path));
		free(path);
	}
}

/* Those that come before the name; NULL: all that are left. */
static void show_folders(struct listing *l, const char *before)
{
	const struct name_list *f = &l->folders;

	while (l->nshown < f->n &&
	       (before == NULL || strcmp(f->name[l->nshown], before) < 0))
		show_folder(l, f->name[l->nshown++]);
}

/* --- listing -------------------------------------------------------------------- */

static int add_pool(const struct fmfs_pool_rec *pool, void *arg)
{
	struct listing *l = arg;
	struct stat st;
	bool known;

	/* The daemon's word is not enough to look at files elsewhere. */
	if (strchr(pool->name, '/') != NULL || strcmp(pool->name, "..") == 0)
		return -EPROTO;
	show_folders(l, pool->name);
	if (l->form == NAMES) {
		print_name(l, pool->name, "");
		return 0;
	}
	known = fstatat(l->fd, pool->name, &st, AT_SYMLINK_NOFOLLOW) == 0;
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

static int list_open(struct listing *l)
{
	int ret = find_folders(l->fd, &l->folders);

	if (ret == 0)
		ret = ask_pools(l->fd, add_pool, l);
	if (ret == 0)
		show_folders(l, NULL);
	return ret;
}

/* "": the top.  Adds the folders in it to those that are to be listed. */
static int list_folder(struct listing *l, int top_fd, const char *path,
		       struct name_list *below)
{
	char *prefix = cli_printf("%s%s", path, *path == '\0' ? "" : "/");
	int ret;

	l->prefix = prefix;
	l->folders = (struct name_list){ .n = 0 };
	l->nshown = 0;
	/* That of the top is not opened again: it may be one to read and not to search. */
	l->fd = *path == '\0' ? fcntl(top_fd, F_DUPFD_CLOEXEC, 0)
			      : openat(top_fd, path,
				       O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	ret = l->fd < 0 ? -errno : list_open(l);
	if (l->fd >= 0)
		close(l->fd);
	for (size_t i = 0; l->recursive && i < l->folders.n; i++)
		names_add(below, cli_printf("%s%s", prefix, l->folders.name[i]));
	names_free(&l->folders);
	/* Of one that was removed meanwhile, or cannot be listed, the others can be. */
	if (ret < 0 && *path != '\0') {
		if (ret != -ENOENT)
			l->status = cli_fail_errno(path, ret);
		ret = 0;
	}
	free(prefix);
	return ret;
}

static int list_all(struct listing *l, int top_fd)
{
	struct name_list paths = { .n = 0 };
	int ret = 0;

	names_add(&paths, cli_printf("%s", ""));
	for (size_t i = 0; ret == 0 && i < paths.n; i++)
		ret = list_folder(l, top_fd, paths.name[i], &paths);
	names_free(&paths);
	return ret;
}

static int list_pools(const char *path, enum form form, bool recursive)
{
	struct listing l = {
		.form = form,
		.recursive = recursive,
		.table = { .head = head, .align = "lrrrll", .ncolumns = 6 },
		.status = CLI_OK,
	};
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int ret = fd < 0 ? -errno : list_all(&l, fd);

	if (fd >= 0)
		close(fd);
	if (ret == 0 && form == LONG)
		table_print(&l.table);
	if (form == JSON && (ret == 0 || l.json.n > 0))
		cli_json_list_end(&l.json);
	table_free(&l.table);
	return ret == 0 ? l.status : cli_fail_errno(path, ret);
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "long", no_argument, NULL, 'l' },
		{ "recursive", no_argument, NULL, 'R' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	enum form form = NAMES;
	bool recursive = false;
	int opt;

	while ((opt = getopt_long(argc, argv, "lR", options, NULL)) != -1) {
		if (opt == 'h')
			return cli_help(&verb_ls);
		if (opt == 'l' && form == NAMES)
			form = LONG;
		else if (opt == 'j')
			form = JSON;
		else if (opt == 'R')
			recursive = true;
		else if (opt != 'l')
			return cli_usage(&verb_ls);
	}
	if (argc - optind != 1)
		return cli_usage(&verb_ls);
	return list_pools(argv[optind], form, recursive);
}

const struct verb verb_ls = {
	.name = "ls",
	.synopsis = "ls [-lR] [--json] FOLDER",
	.summary = "List the pools and snapshots of a mount",
	.help = "FOLDER is where the mount is, or a folder in it.  One name a line, in order\n"
		"of their bytes, escaped as in C, folders with a '/' behind the name.\n\n"
		"  -l, --long       a table: kind, size and allocated space in bytes, number\n"
		"                   of named roots, time of change, name (of a snapshot:\n"
		"                   NAME <- PARENT)\n"
		"  -R, --recursive  then what is in its folders, by the path from FOLDER on\n"
		"  --json           an array of objects with all there is to know\n",
	.run = run,
};
