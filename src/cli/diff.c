/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fmfs diff: what two pools differ in, named roots and bytes, each as of its last commit.
 * What is not of a pool's contents does not count: who has it open, and the log.
 */
#include <config.h>

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "heap/error.h"
#include "heap/inspect.h"

struct options {
	bool json, chunks, bytes;
};

struct side {
	const char *path;
	int fd;
	struct inspect_view view;
	uint64_t end;		/* bytes in use */
	struct pool_root *root; /* by name */
	size_t nroots, max_roots;
	uint8_t *chunk;
};

struct diff {
	const struct options *options;
	struct side a, b;
	bool same;
	struct table table;
	json_t *added, *removed, *changed; /* if --json */
	uint64_t nchunks, nchanged_chunks, nchanged_bytes;
};

/* --- opening ---------------------------------------------------------------------- */

static int add_root(const struct pool_root *root, void *arg)
{
	struct side *s = arg;

	if (s->nroots == s->max_roots) {
		s->max_roots = s->max_roots ? 2 * s->max_roots : 64;
		s->root = cli_realloc(s->root, s->max_roots, sizeof(*s->root));
	}
	s->root[s->nroots++] = *root;
	return 0;
}

static int open_view(struct side *s)
{
	struct pool_info info;
	int rc = inspect_pool(s->fd, &info);

	if (rc < 0)
		return cli_fail_errno(s->path, rc);
	if (info.state != POOL_GOOD)
		return cli_fail(s->path, "%s", info.why);
	rc = inspect_roots(s->fd, add_root, s);
	if (rc == -EUCLEAN)
		return cli_fail(s->path, "the named roots are damaged");
	if (rc < 0)
		return cli_fail_errno(s->path, rc);
	rc = inspect_open_view(&s->view, s->fd);
	if (rc < 0)
		return rc == -EUCLEAN ? cli_fail(s->path, "%s", err_words()) :
					cli_fail_errno(s->path, rc);
	s->end = s->view.atomic != NULL ? s->view.super.heap_end : info.heap_end;
	return CLI_OK;
}

static int open_side(struct side *s, const char *path)
{
	int status;

	s->path = path;
	status = cli_open_pool(path, &s->fd);
	if (status == CLI_OK) {
		status = open_view(s);
		if (status != CLI_OK)
			close(s->fd);
	}
	if (status == CLI_OK)
		s->chunk = cli_realloc(NULL, 1, FM_CHUNK_LEN);
	else
		free(s->root);
	return status;
}

static void close_side(struct side *s)
{
	inspect_close_view(&s->view);
	close(s->fd);
	free(s->root);
	free(s->chunk);
}

/* --- roots -------------------------------------------------------------------------- */

static void add_row(struct table *t, const char *sign, const struct pool_root *root)
{
	table_add(t, cli_printf("%s", sign));
	table_add(t, cli_escape(root->name));
	table_add(t, cli_escape(*root->type ? root->type : "-"));
	table_add(t, cli_printf("%" PRIu64, root->off));
	table_add(t, root->size ? cli_printf("%" PRIu64, root->size) : cli_printf("-"));
}

static json_t *root_json(const struct pool_root *root, bool named)
{
	json_t *obj = json_object();

	if (named)
		cli_json_text(obj, "name", root->name);
	cli_json_text(obj, "type", root->type);
	cli_json_set(obj, "offset", cli_json_u64(root->off));
	cli_json_set(obj, "size", root->size ? cli_json_u64(root->size) : json_null());
	return obj;
}

static void only_one_has(struct diff *d, const struct pool_root *root, bool is_new)
{
	d->same = false;
	if (d->options->json)
		json_array_append_new(is_new ? d->added : d->removed,
				      root_json(root, true));
	else
		add_row(&d->table, is_new ? "+" : "-", root);
}

static void compare_root(struct diff *d, const struct pool_root *a,
			 const struct pool_root *b)
{
	json_t *obj;

	if (strcmp(a->type, b->type) == 0 && a->off == b->off && a->size == b->size)
		return;
	d->same = false;
	if (!d->options->json) {
		add_row(&d->table, "-", a);
		add_row(&d->table, "+", b);
		return;
	}
	obj = json_object();
	cli_json_text(obj, "name", a->name);
	cli_json_set(obj, "from", root_json(a, false));
	cli_json_set(obj, "to", root_json(b, false));
	json_array_append_new(d->changed, obj);
}

static void compare_roots(struct diff *d)
{
	const struct pool_root *a = d->a.root, *a_end = a + d->a.nroots;
	const struct pool_root *b = d->b.root, *b_end = b + d->b.nroots;

	while (a < a_end || b < b_end) {
		int order = a == a_end ? 1 : b == b_end ? -1 : strcmp(a->name, b->name);

		if (order == 0)
			compare_root(d, a++, b++);
		else if (order < 0)
			only_one_has(d, a++, false);
		else
			only_one_has(d, b++, true);
	}
}

/* --- ranges ------------------------------------------------------------------------- */

/* Neighbours are one; off and len are of the last. */
struct ranges {
	const char *what;
	bool shown;
	json_t *array; /* if --json */
	uint64_t off, len;
};

static void end_range(struct ranges *r)
{
	if (r->len > 0 && r->array != NULL)
		json_array_append_new(r->array, json_pack("[I,I]", (json_int_t)r->off,
							  (json_int_t)r->len));
	else if (r->len > 0)
		printf("%s: %" PRIu64 " %" PRIu64 "\n", r->what, r->off, r->len);
	r->len = 0;
}

static void add_range(struct ranges *r, uint64_t off, uint64_t len)
{
	if (!r->shown)
		return;
	if (r->len > 0 && r->off + r->len == off) {
		r->len += len;
		return;
	}
	end_range(r);
	r->off = off;
	r->len = len;
}

/* --- bytes -------------------------------------------------------------------------- */

/* Let what does not count be zeroes. */
static void blank(struct side *s, uint64_t off, size_t len)
{
	for (size_t at = 0; at < len; at += FM_PAGE_LEN)
		if (inspect_is_log(&s->view, off + at))
			memset(s->chunk + at, 0, FM_PAGE_LEN);
	if (off == 0)
		memset(s->chunk + offsetof(struct fm_super_disk, writer), 0,
		       sizeof(struct fm_writer_disk));
}

/* The chunk at off, zeroes behind the end. */
static int read_chunk(struct side *s, uint64_t off)
{
	uint64_t left = off < s->end ? s->end - off : 0;
	size_t len = left < FM_CHUNK_LEN ? left : FM_CHUNK_LEN;
	int rc = len > 0 ? inspect_read(&s->view, off, s->chunk, len) : 0;

	if (rc < 0)
		return cli_fail_errno(s->path, rc);
	memset(s->chunk + len, 0, FM_CHUNK_LEN - len);
	blank(s, off, len);
	return CLI_OK;
}

static void compare_page(struct diff *d, size_t at, uint64_t off, struct ranges *bytes)
{
	const uint8_t *a = d->a.chunk + at, *b = d->b.chunk + at;

	if (memcmp(a, b, FM_PAGE_LEN) == 0)
		return;
	for (size_t i = 0; i < FM_PAGE_LEN; i++)
		if (a[i] != b[i]) {
			d->nchanged_bytes++;
			add_range(bytes, off + i, 1);
		}
}

static int compare_chunk(struct diff *d, uint64_t off, struct ranges *chunks,
			 struct ranges *bytes)
{
	if (read_chunk(&d->a, off) != CLI_OK || read_chunk(&d->b, off) != CLI_OK)
		return CLI_USAGE;
	if (memcmp(d->a.chunk, d->b.chunk, FM_CHUNK_LEN) == 0)
		return CLI_OK;
	d->same = false;
	d->nchanged_chunks++;
	/* The bytes of a range of chunks come before it. */
	if (chunks->off + chunks->len != off)
		end_range(bytes);
	add_range(chunks, off, FM_CHUNK_LEN);
	for (size_t at = 0; at < FM_CHUNK_LEN; at += FM_PAGE_LEN)
		compare_page(d, at, off + at, bytes);
	return CLI_OK;
}

/* The chunk that has the next data, from off on, of a file that is as it is. */
static uint64_t next_data(const struct side *s, uint64_t off)
{
	off_t data = s->view.nrecords > 0 ? (off_t)off : lseek(s->fd, off, SEEK_DATA);

	if (data < 0)
		return errno == ENXIO ? UINT64_MAX : off;
	return (uint64_t)data / FM_CHUNK_LEN * FM_CHUNK_LEN;
}

static int compare_bytes(struct diff *d, struct ranges *chunks, struct ranges *bytes)
{
	uint64_t end = d->a.end > d->b.end ? d->a.end : d->b.end, off = 0, a, b;
	int status = CLI_OK;

	d->nchunks = (end + FM_CHUNK_LEN - 1) / FM_CHUNK_LEN;
	while (status == CLI_OK && off < end) {
		a = next_data(&d->a, off);
		b = next_data(&d->b, off);
		off = a < b ? a : b;
		if (off < end)
			status = compare_chunk(d, off, chunks, bytes);
		off = off < end ? off + FM_CHUNK_LEN : end;
	}
	end_range(bytes);
	end_range(chunks);
	return status;
}

/* --- printing ------------------------------------------------------------------------ */

static int print_text(struct diff *d)
{
	static const char *const head[] = { "", "NAME", "TYPE", "OFFSET", "SIZE" };
	struct ranges chunks = { .what = "chunk range", .shown = d->options->chunks };
	struct ranges bytes = { .what = "byte range", .shown = d->options->bytes };
	int status;

	d->table = (struct table){ .head = head, .align = "lllrr", .ncolumns = 5 };
	compare_roots(d);
	if (d->table.ncells > 0)
		table_print(&d->table);
	table_free(&d->table);
	status = compare_bytes(d, &chunks, &bytes);
	if (status == CLI_OK && !d->same)
		printf("chunks: %" PRIu64 " of %" PRIu64 "\nbytes: %" PRIu64 "\n",
		       d->nchanged_chunks, d->nchunks, d->nchanged_bytes);
	return status;
}

static json_t *ranges_json(struct ranges *r)
{
	r->array = r->shown ? json_array() : json_null();
	return r->array;
}

static int print_json(struct diff *d)
{
	struct ranges chunks = { .shown = d->options->chunks };
	struct ranges bytes = { .shown = d->options->bytes };
	json_t *obj = json_object(), *roots = json_object();
	int status;

	cli_json_set(roots, "added", d->added = json_array());
	cli_json_set(roots, "removed", d->removed = json_array());
	cli_json_set(roots, "changed", d->changed = json_array());
	cli_json_set(obj, "roots", roots);
	cli_json_set(obj, "chunk_ranges", ranges_json(&chunks));
	cli_json_set(obj, "byte_ranges", ranges_json(&bytes));
	compare_roots(d);
	status = compare_bytes(d, &chunks, &bytes);
	cli_json_set(obj, "same", json_boolean(d->same));
	cli_json_set(obj, "chunks", cli_json_u64(d->nchunks));
	cli_json_set(obj, "chunks_changed", cli_json_u64(d->nchanged_chunks));
	cli_json_set(obj, "bytes_changed", cli_json_u64(d->nchanged_bytes));
	if (status == CLI_OK) {
		json_dumpf(obj, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
		putchar('\n');
	}
	json_decref(obj);
	return status;
}

static int diff(const char *a, const char *b, const struct options *options)
{
	struct diff d = { .options = options, .same = true };
	int status = open_side(&d.a, a);

	if (status != CLI_OK)
		return status;
	status = open_side(&d.b, b);
	if (status == CLI_OK) {
		status = options->json ? print_json(&d) : print_text(&d);
		close_side(&d.b);
	}
	close_side(&d.a);
	return status == CLI_OK && !d.same ? CLI_DIFFER : status;
}

static int run(int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "bytes", no_argument, NULL, 'b' },
		{ "chunks", no_argument, NULL, 'c' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct options options = { .json = false };
	int opt;

	while ((opt = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (opt == 'h')
			return cli_help(&verb_diff);
		if (opt == 'b')
			options.bytes = true;
		else if (opt == 'c')
			options.chunks = true;
		else if (opt == 'j')
			options.json = true;
		else
			return cli_usage(&verb_diff);
	}
	if (argc - optind != 2)
		return cli_usage(&verb_diff);
	return diff(argv[optind], argv[optind + 1], &options);
}

const struct verb verb_diff = {
	.name = "diff",
	.synopsis = "diff [--chunks] [--bytes] [--json] POOL POOL",
	.summary = "Show what two pools, or snapshots, differ in",
	.help = "POOL is a pool or snapshot at a mount, or any file that is a pool.  Named roots\n"
		"that only the second has (+), that only the first has (-), or that changed\n"
		"(both); and how many of the chunks of 2 MiB and of the bytes in use differ.\n"
		"Nothing is printed of pools that are the same.\n\n"
		"  --chunks   where: a line for each range of chunks, offset and length\n"
		"  --bytes    the same of bytes\n"
		"  --json     an object instead\n\n"
		"Exit status: 0 the same, 1 they differ, 2 failed or wrong usage.\n",
	.failed = CLI_USAGE,
	.run = run,
};
