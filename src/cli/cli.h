/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the verbs of fmfs share: the verb table's entries, messages and exit
 * statuses, and text that is safe to print.
 *
 * The verbs are short programs: out of memory ends them with a message.
 */
#ifndef FM_CLI_CLI_H
#define FM_CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum cli_status {
	CLI_OK = 0,
	CLI_FAILED = 1,
	CLI_USAGE = 2,
	CLI_DIFFER = 1,	  /* fmfs diff, of which CLI_USAGE is also a failure */
	CLI_REPAIRED = 3, /* fmfs check: and now all is good */
	CLI_DAMAGED = 4	  /* fmfs check: and is still */
};

struct verb {
	const char *name;
	const char *synopsis; /* what follows "fmfs " in the usage line */
	const char *summary;  /* half a line */
	const char *help;     /* the rest; NULL: run() says it on --help */
	int failed;	      /* what cli_fail() returns; 0: CLI_FAILED */
	/* argv[0] is "fmfs VERB", for getopt's messages; returns a cli_status. */
	int (*run)(int argc, char **argv);
};

extern const struct verb verb_check, verb_clone, verb_create, verb_diff, verb_info,
	verb_ls, verb_mount, verb_receive, verb_reload, verb_rollback, verb_roots,
	verb_send, verb_snapshot, verb_stat, verb_umount;

/* --- messages ------------------------------------------------------------ */

/* The verb that messages name; NULL: none. */
void cli_set_verb(const struct verb *verb);

/* "fmfs VERB: THING: CAUSE" on standard error, escaped; returns CLI_FAILED, or what is
 * that of the verb. */
int cli_fail(const char *thing, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* The same for a -errno. */
int cli_fail_errno(const char *thing, int err);

/* The verb's help on standard output: CLI_OK.  Its usage line on standard
 * error: CLI_USAGE. */
int cli_help(const struct verb *verb);
int cli_usage(const struct verb *verb);

/* Everything printed so far is written, or a message says why not: then
 * CLI_FAILED, else `status`.  The last call of a program. */
int cli_close_stdout(int status);

/* --- arguments (args.c) ---------------------------------------------------- */

/* For verbs with no option but --json and --help: whether to go on, optind being at
 * the first operand; else *status is what to return. */
bool cli_json_option(const struct verb *verb, int argc, char **argv, bool *json,
		     int *status);

/* Open a regular file for reading: CLI_OK and *fd, or a message. */
int cli_open_pool(const char *path, int *fd);

/* Whether the path is that of a snapshot, at a mount or in a store, which is never
 * changed (where.c). */
bool cli_is_snapshot(const char *path);

/* --- progress (progress.c) -------------------------------------------------- */

/* A line on standard error if that is a terminal, of how much is done. */
struct progress {
	bool shown;	   /* at all */
	bool is_there;	   /* a line, that progress_end() ends */
	uint64_t begun_ns, last_ns;
};

void progress_begin(struct progress *p, bool quiet);
/* `arg` is the struct progress; bytes. */
void progress_show(void *arg, uint64_t done, uint64_t size);
/* Before any message. */
void progress_end(struct progress *p);

/* --- lists of names (names.c) ----------------------------------------------- */

struct name_list {
	char **name;
	size_t n, max;
};

/* Takes the name, which is to be freed. */
void names_add(struct name_list *l, char *name);
/* In the order of their bytes. */
void names_sort(struct name_list *l);
void names_free(struct name_list *l);

/* --- text ---------------------------------------------------------------- */

/* Not freed on failure, because they do not fail: see above. */
char *cli_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void *cli_realloc(void *p, size_t n, size_t size);

/*
 * `s` with what could disturb a terminal or a table written as in C: \n, \t,
 * \\, and \ooo (octal) for every byte of other control and formatting
 * characters and of what is not UTF-8.  To be freed.
 */
char *cli_escape(const char *s);

/* Columns that the escaped string takes on a terminal. */
size_t cli_width(const char *s);

/*
 * Set obj[key] to the string.  JSON can hold only UTF-8: of other strings each
 * byte that is not UTF-8 becomes U+FFFD, and obj["KEY_hex"] has all bytes, two
 * hexadecimal digits each.
 */
void cli_json_text(json_t *obj, const char *key, const char *s);

/* Set obj[key]; takes the reference.  UINT64: as large as JSON readers bear. */
void cli_json_set(json_t *obj, const char *key, json_t *value);
json_t *cli_json_u64(uint64_t value);

/* An array written element by element, so that it may be long. */
struct json_list {
	size_t n;
};
void cli_json_list_add(struct json_list *list, json_t *value); /* takes it */
void cli_json_list_end(struct json_list *list);

/* --- tables -------------------------------------------------------------- */

#define TABLE_MAX_COLUMNS 8

/* Rows of cells under a header, in aligned columns two blanks apart. */
struct table {
	const char *const *head;
	const char *align; /* a column: 'l' or 'r' */
	size_t ncolumns;
	char **cell; /* row by row */
	size_t ncells, max_cells;
};

/* Takes `cell`, which was allocated and is safe to print. */
void table_add(struct table *t, char *cell);
void table_print(const struct table *t);
void table_free(struct table *t);

#endif
