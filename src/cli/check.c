/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fmfs check: whether pools, and the snapshots beside them, are what their format says;
 * and repairing those that are not.  What is judged, and how, is in src/heap/check.c.
 */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <fmalloc.h>

#include "cli/check.h"
#include "cli/cli.h"
#include "fuse/store.h"
#include "heap/error.h"
#include "heap/inspect.h"

#define MAX_SHOWN 100u /* findings of a pool, unless all are asked for */

/* --- one pool ---------------------------------------------------------------- */

struct report {
	const struct check_options *options;
	const char *path;
	char *name; /* the path, escaped */
	unsigned nnotes, nleft, nrepaired, nshown, nhidden;
	json_t *findings; /* if --json */
};

static void print_finding(struct report *r, const struct fm_finding *f)
{
	if (f->level == FM_FINDING_NOTE && !r->options->verbose)
		return;
	if (r->nshown == MAX_SHOWN && !r->options->verbose) {
		r->nhidden++;
		return;
	}
	r->nshown++;
	printf("%s: offset %#" PRIx64 ": %s%s: %s%s\n", r->name, f->off,
	       f->level == FM_FINDING_NOTE ? "note: " : "", f->structure, f->what,
	       f->repaired ? " (repaired)" : "");
}

static void add_finding(struct report *r, const struct fm_finding *f)
{
	json_t *obj = json_object();

	cli_json_set(obj, "offset", cli_json_u64(f->off));
	cli_json_text(obj, "level", f->level == FM_FINDING_NOTE ? "note" : "damage");
	cli_json_text(obj, "structure", f->structure);
	cli_json_text(obj, "what", f->what);
	cli_json_set(obj, "repaired", json_boolean(f->repaired));
	json_array_append_new(r->findings, obj);
}

static int hear(const struct fm_finding *f, void *arg)
{
	struct report *r = arg;

	if (f->level == FM_FINDING_NOTE)
		r->nnotes++;
	else if (!f->repaired)
		r->nleft++;
	r->nrepaired += f->repaired;
	if (r->findings != NULL)
		add_finding(r, f);
	else
		print_finding(r, f);
	return 0;
}

static const char *state_of(const struct report *r, int rc)
{
	if (rc < 0 && rc != -EUCLEAN)
		return "failed";
	if (rc < 0)
		return "damaged";
	return r->nrepaired > 0 ? "repaired" : "good";
}

static void print_summary(const struct report *r, int rc)
{
	if (r->nhidden > 0)
		printf("%s: and %u more\n", r->name, r->nhidden);
	printf("%s: %s", r->name, state_of(r, rc));
	if (r->nleft + r->nrepaired + r->nnotes > 0)
		printf(" (damage left: %u, repaired: %u, notes: %u)", r->nleft,
		       r->nrepaired, r->nnotes);
	putchar('\n');
}

static void list_summary(struct report *r, int rc, struct json_list *list)
{
	json_t *obj = json_object();

	cli_json_text(obj, "pool", r->path);
	cli_json_text(obj, "state", state_of(r, rc));
	if (rc < 0)
		cli_json_text(obj, "error", err_words());
	cli_json_set(obj, "findings", r->findings);
	cli_json_list_add(list, obj);
}

int check_pool(const char *path, const struct check_options *options,
	       struct json_list *list)
{
	int flags = options->repair && !cli_is_snapshot(path) ? FM_CHECK_REPAIR : 0;
	struct report r = { .options = options, .path = path };
	int status = CLI_OK, rc, result;

	r.name = cli_escape(path);
	if (options->json)
		r.findings = json_array();
	rc = check_file(path, flags, hear, &r, &result);
	/* Nothing is said of what could not be checked, but why. */
	if (rc < 0 && rc != -EUCLEAN)
		status = cli_fail(path, "%s", err_words());
	else if (rc < 0)
		status = CLI_DAMAGED;
	else if (r.nrepaired > 0)
		status = CLI_REPAIRED;
	if (options->json)
		list_summary(&r, rc, list);
	else if (status != CLI_FAILED)
		print_summary(&r, rc);
	free(r.name);
	return status;
}

/* --- and its snapshots ------------------------------------------------------- */

int check_worse(int a, int b)
{
	static const int rank[] = {
		[CLI_OK] = 0, [CLI_REPAIRED] = 1, [CLI_FAILED] = 2, [CLI_DAMAGED] = 3,
	};

	return rank[a] >= rank[b] ? a : b;
}

/* The paths of the snapshots beside the pool, in order.  A folder that cannot be
 * listed is one of which nothing is known. */
static void find_snapshots(const char *path, struct name_list *names)
{
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
	char *folder = slash ? cli_printf("%.*s", (int)(slash - path + 1), path) :
			       cli_printf(".");
	DIR *dir = opendir(folder);
	struct dirent *e;

	while (dir != NULL && (e = readdir(dir)) != NULL)
		if (strncmp(e->d_name, base, strlen(base)) == 0 &&
		    e->d_name[strlen(base)] == '@')
			names_add(names, cli_printf("%.*s%s", (int)(base - path), path,
						    e->d_name));
	if (dir != NULL)
		closedir(dir);
	free(folder);
	names_sort(names);
}

static int check_with_snapshots(const char *path, const struct check_options *options,
				struct json_list *list)
{
	struct name_list names = { .n = 0 };
	int status = check_pool(path, options, list);

	find_snapshots(path, &names);
	for (size_t i = 0; i < names.n; i++)
		if (cli_is_snapshot(names.name[i]))
			status = check_worse(
				status, check_pool(names.name[i], options, list));
	names_free(&names);
	return status;
}

static int check_any(const char *path, const struct check_options *options,
		     struct json_list *list)
{
	return store_is(path) ? check_store(path, options, list)
			      : check_with_snapshots(path, options, list);
}

static int run(int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "repair", no_argument, NULL, 'r' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct check_options options = { .repair = false };
	struct json_list list = { .n = 0 };
	int opt, status = CLI_OK;

	while ((opt = getopt_long(argc, argv, "v", long_options, NULL)) != -1) {
		if (opt == 'h')
			return cli_help(&verb_check);
		if (opt == 'r')
			options.repair = true;
		else if (opt == 'v')
			options.verbose = true;
		else if (opt == 'j')
			options.json = true;
		else
			return cli_usage(&verb_check);
	}
	if (optind == argc)
		return cli_usage(&verb_check);
	for (; optind < argc; optind++)
		status = check_worse(status, check_any(argv[optind], &options, &list));
	if (options.json)
		cli_json_list_end(&list);
	return status;
}

const struct verb verb_check = {
	.name = "check",
	.synopsis = "check [--repair] [-v] [--json] POOL|STORE...",
	.summary = "Check pools and their snapshots, or all of a store",
	.help = "POOL is a pool or snapshot at a mount, or any file.  The bookkeeping of\n"
		"each pool, and of its snapshots POOL@TAG at a mount, is checked.  A line\n"
		"for each damaged structure, with its offset, and one for each pool:\n"
		"good, repaired, damaged.\n"
		"Of a STORE, which must not be mounted, each pool is checked, and whether\n"
		"the catalog says what is there; the next mount makes it right if not.\n\n"
		"  --repair       repair what can be without losing what is in use\n"
		"  -v, --verbose  also what does no harm, as what a killed program left\n"
		"  --json         an array of objects instead\n\n"
		"Exit status: 0 good, 1 could not be checked, 2 wrong usage, 3 repaired\n"
		"and good now, 4 damaged.\n",
	.run = run,
};
