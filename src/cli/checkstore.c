/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fmfs check STORE: all pools of a store that is not mounted, and whether its catalog says
 * what is there.  The catalog is an index, and never repaired here: the next mount does.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "catalog/catalog.h"
#include "cli/check.h"
#include "cli/cli.h"
#include "common/log.h"
#include "fuse/scan.h"
#include "fuse/store.h"
#include "heap/inspect.h"

/* What there is of a name, in the store or in the catalog. */
struct row {
	char *name;
	uint64_t ino, nroots;
	bool lacks_roots; /* of the catalog */
	enum catalog_kind kind;
	uint8_t uuid[16];
};

struct rows { /* in the order of the names' bytes */
	struct row *row;
	size_t n, max;
};

struct store_check {
	const struct check_options *options;
	struct json_list *list;
	struct store store;
	struct rows there, listed;
	char *catalog; /* its path */
	json_t *findings;
	unsigned int ndiffer;
	int status;
};

static struct row *add_row(struct rows *rows, const char *name)
{
	struct row *row;

	if (rows->n == rows->max) {
		rows->max = rows->max ? 2 * rows->max : 64;
		rows->row = cli_realloc(rows->row, rows->max, sizeof(*rows->row));
	}
	row = &rows->row[rows->n++];
	*row = (struct row){ .name = cli_printf("%s", name) };
	return row;
}

static void free_rows(struct rows *rows)
{
	for (size_t i = 0; i < rows->n; i++)
		free(rows->row[i].name);
	free(rows->row);
}

/* --- the store ------------------------------------------------------------- */

static int count(const struct pool_root *root, void *arg)
{
	(void)root;
	++*(uint64_t *)arg;
	return 0;
}

/* What its catalog should have of the file. */
static int describe(const char *path, struct row *row)
{
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct pool_info info;
	int rc;

	if (fd < 0)
		return -errno;
	rc = inspect_pool(fd, &info);
	if (rc == 0) {
		row->kind = scan_kind(&info);
		if (info.state == POOL_GOOD) {
			memcpy(row->uuid, info.uuid, sizeof(row->uuid));
			rc = inspect_roots(fd, count, &row->nroots);
		}
		if (rc == -EUCLEAN)
			row->kind = CATALOG_DAMAGED;
	}
	close(fd);
	return rc < 0 && rc != -EUCLEAN ? rc : 0;
}

static void see_file(struct store_check *c, const FTSENT *e, const char *pools)
{
	struct row *row = add_row(&c->there, e->fts_path + strlen(pools) + 1);
	int rc;

	row->ino = e->fts_statp->st_ino;
	rc = describe(e->fts_path, row);
	if (rc < 0)
		c->status = check_worse(c->status, cli_fail_errno(e->fts_path, rc));
	else if (row->kind != CATALOG_FILE)
		c->status = check_worse(c->status, check_pool(e->fts_path, c->options,
							      c->list));
}

static int in_order(const void *a, const void *b)
{
	return strcmp(((const struct row *)a)->name, ((const struct row *)b)->name);
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

static void see_files(struct store_check *c)
{
	char *pools = cli_printf("%s/pools", c->store.path);
	char *const roots[] = { pools, NULL };
	FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, by_name);
	FTSENT *e;

	while (tree != NULL && (e = fts_read(tree)) != NULL)
		if (e->fts_info == FTS_F)
			see_file(c, e, pools);
		else if (e->fts_info == FTS_D && e->fts_level > 0 &&
			 strchr(e->fts_name, '@') != NULL)
			fts_set(tree, e, FTS_SKIP); /* a mount does not show it */
		else if (e->fts_info == FTS_DNR || e->fts_info == FTS_ERR)
			c->status = check_worse(
				c->status, cli_fail_errno(e->fts_path, -e->fts_errno));
	if (tree == NULL)
		c->status = cli_fail_errno(pools, -errno);
	else
		fts_close(tree);
	free(pools);
	if (c->there.n > 0)
		qsort(c->there.row, c->there.n, sizeof(*c->there.row), in_order);
}

/* --- the catalog ----------------------------------------------------------- */

static int see_listed(const struct catalog_pool *pool, void *arg)
{
	struct row *row = add_row(arg, pool->name);

	row->ino = pool->ino;
	row->kind = pool->kind;
	row->nroots = pool->nroots;
	row->lacks_roots = catalog_lacks_roots(pool);
	memcpy(row->uuid, pool->uuid, sizeof(row->uuid));
	return 0;
}

static int read_catalog(struct store_check *c)
{
	struct catalog *catalog;
	int rc = catalog_open_readonly(c->catalog, &catalog);

	if (rc < 0)
		return rc;
	rc = catalog_each_pool(catalog, NULL, see_listed, &c->listed);
	catalog_close(catalog);
	return rc;
}

static void differs(struct store_check *c, const char *name, const char *how)
{
	char *what = cli_printf("%s: %s", name, how), *catalog, *escaped;

	c->ndiffer++;
	if (c->findings != NULL) {
		json_t *obj = json_object();

		cli_json_text(obj, "level", "damage");
		cli_json_text(obj, "structure", "catalog");
		cli_json_text(obj, "what", what);
		json_array_append_new(c->findings, obj);
	} else {
		catalog = cli_escape(c->catalog);
		escaped = cli_escape(what);
		printf("%s: %s\n", catalog, escaped);
		free(catalog);
		free(escaped);
	}
	free(what);
}

static void compare_row(struct store_check *c, const struct row *is,
			const struct row *said)
{
	if (is->ino != said->ino)
		differs(c, is->name, "is another file than the catalog has");
	else if (is->kind != said->kind)
		differs(c, is->name, "has another kind than the catalog says");
	else if (memcmp(is->uuid, said->uuid, sizeof(is->uuid)) != 0)
		differs(c, is->name, "is another pool than the catalog has");
	else if (is->nroots != said->nroots && !said->lacks_roots)
		differs(c, is->name, "has not as many roots as the catalog says");
}

static void compare(struct store_check *c)
{
	const struct rows *there = &c->there, *listed = &c->listed;
	size_t i = 0, k = 0;
	int order;

	while (i < there->n || k < listed->n) {
		order = i == there->n    ? 1
			: k == listed->n ? -1
					 : in_order(&there->row[i], &listed->row[k]);
		if (order == 0)
			compare_row(c, &there->row[i++], &listed->row[k++]);
		else if (order < 0)
			differs(c, there->row[i++].name, "is not in the catalog");
		else
			differs(c, listed->row[k++].name,
				"is in the catalog, and not there");
	}
}

/* `words` NULL: it is as it should be. */
static void say_state(struct store_check *c, const char *state, const char *words)
{
	char *name = cli_escape(c->catalog);
	json_t *obj;

	if (!c->options->json) {
		printf("%s: %s%s%s\n", name, state, words ? ": " : "", words ? words : "");
	} else {
		obj = json_object();
		cli_json_text(obj, "pool", c->catalog);
		cli_json_text(obj, "state", state);
		if (words != NULL)
			cli_json_text(obj, "error", words);
		cli_json_set(obj, "findings", c->findings);
		cli_json_list_add(c->list, obj);
	}
	free(name);
}

static void check_catalog(struct store_check *c)
{
	int rc;

	c->findings = c->options->json ? json_array() : NULL;
	rc = read_catalog(c);
	if (rc == 0)
		compare(c);
	if (rc == -ENOENT) {
		say_state(c, "good", "there is none, and the next mount makes it");
	} else if (rc == -EUCLEAN || c->ndiffer > 0) {
		say_state(c, "damaged", rc == -EUCLEAN ? catalog_errmsg()
						       : "it is not what is there");
		c->status = check_worse(c->status, CLI_DAMAGED);
	} else if (rc < 0) {
		json_decref(c->findings);
		c->status = check_worse(c->status, cli_fail(c->catalog, "%s",
							    catalog_errmsg()));
	} else {
		say_state(c, "good", NULL);
	}
}

int check_store(const char *path, const struct check_options *options,
		struct json_list *list)
{
	struct store_check c = { .options = options, .list = list };

	log_init("fmfs check", LOG_LEVEL_WARN);
	if (store_open_readonly(&c.store, path) < 0)
		return CLI_FAILED;
	c.catalog = cli_printf("%s/catalog.db", c.store.path);
	see_files(&c);
	check_catalog(&c);
	free_rows(&c.there);
	free_rows(&c.listed);
	free(c.catalog);
	store_close(&c.store);
	return c.status;
}
