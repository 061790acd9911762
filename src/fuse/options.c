/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of a mount: our own, and the one by which mount(8) calls its
 * helpers: mount.fmfs STORE MOUNTPOINT [-sfnvrw] [-t TYPE] [-o OPTIONS].
 */
#include <config.h>

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "fuse/options.h"

#define MAX_THREADS 256
#define MAX_STALL_MS 3600000

static bool parse_seconds(const char *value, double *out)
{
	char *end;

	*out = strtod(value, &end);
	return end != value && *end == '\0' && *out >= 0 && *out <= 86400;
}

static bool set_attr_timeout(struct mount_options *o, const char *value)
{
	return parse_seconds(value, &o->attr_timeout);
}

static bool set_entry_timeout(struct mount_options *o, const char *value)
{
	return parse_seconds(value, &o->entry_timeout);
}

static bool parse_number(const char *value, unsigned long max, unsigned int *out)
{
	unsigned long n;
	char *end;

	if (*value < '0' || *value > '9')
		return false;
	n = strtoul(value, &end, 10);
	*out = n;
	return *end == '\0' && n <= max;
}

static bool set_max_stall(struct mount_options *o, const char *value)
{
	return parse_number(value, MAX_STALL_MS, &o->max_stall);
}

static bool set_max_threads(struct mount_options *o, const char *value)
{
	return parse_number(value, MAX_THREADS, &o->max_threads) && o->max_threads > 0;
}

/* Bytes, or with a letter behind it 1,024 of them, and so on; not 0. */
static bool parse_size(const char *value, uint64_t *out)
{
	static const char letters[] = "KMGT";
	const char *letter;
	uint64_t n, unit;
	char *end;

	if (value[0] < '0' || value[0] > '9')
		return false;
	errno = 0;
	n = strtoull(value, &end, 10);
	letter = *end == '\0' ? NULL : strchr(letters, *end & ~0x20);
	unit = letter == NULL ? 1 : UINT64_C(1) << 10 * (letter - letters + 1);
	if (errno != 0 || n == 0 || n > INT64_MAX / unit)
		return false;
	*out = n * unit;
	return *end == '\0' || (letter != NULL && end[1] == '\0');
}

static bool set_max_pool(struct mount_options *o, const char *value)
{
	return parse_size(value, &o->max_pool);
}

static bool set_max_store(struct mount_options *o, const char *value)
{
	return parse_size(value, &o->max_store);
}

static bool set_ro(struct mount_options *o, const char *value)
{
	(void)value;
	o->readonly = true;
	return true;
}

static bool set_rw(struct mount_options *o, const char *value)
{
	(void)value;
	o->readonly = false;
	return true;
}

static bool set_atomic(struct mount_options *o, const char *value)
{
	(void)value;
	o->atomic = true;
	return true;
}

static bool set_no_passthrough(struct mount_options *o, const char *value)
{
	(void)value;
	o->no_passthrough = true;
	return true;
}

enum option_kind {
	OPT_OURS,
	OPT_SIZE,    /* the same, with parse_size() */
	OPT_KERNEL,  /* handed on */
	OPT_IGNORED, /* for mount(8), or what is so anyway */
	OPT_REFUSED
};

static const struct option_desc {
	const char *name; /* with '=': it has a value; with '*': begins so */
	enum option_kind kind;
	bool (*set)(struct mount_options *o, const char *value);
} options[] = {
	{ "ro", OPT_OURS, set_ro },
	{ "rw", OPT_OURS, set_rw },
	{ "atomic", OPT_OURS, set_atomic },
	{ "no_passthrough", OPT_OURS, set_no_passthrough },
	{ "attr_timeout=", OPT_OURS, set_attr_timeout },
	{ "entry_timeout=", OPT_OURS, set_entry_timeout },
	{ "max_stall=", OPT_OURS, set_max_stall },
	{ "max_threads=", OPT_OURS, set_max_threads },
	{ "max_pool=", OPT_SIZE, set_max_pool },
	{ "max_store=", OPT_SIZE, set_max_store },
	{ "fsname=", OPT_KERNEL, NULL },
	{ "allow_other", OPT_KERNEL, NULL },
	{ "noexec", OPT_KERNEL, NULL },
	{ "exec", OPT_KERNEL, NULL },
	{ "sync", OPT_KERNEL, NULL },
	{ "async", OPT_KERNEL, NULL },
	{ "dirsync", OPT_KERNEL, NULL },
	{ "noatime", OPT_KERNEL, NULL },
	{ "nodiratime", OPT_KERNEL, NULL },
	{ "context=", OPT_KERNEL, NULL },
	{ "fscontext=", OPT_KERNEL, NULL },
	{ "defcontext=", OPT_KERNEL, NULL },
	{ "rootcontext=", OPT_KERNEL, NULL },
	{ "defaults", OPT_IGNORED, NULL },
	{ "default_permissions", OPT_IGNORED, NULL },
	{ "nosuid", OPT_IGNORED, NULL },
	{ "nodev", OPT_IGNORED, NULL },
	{ "atime", OPT_IGNORED, NULL },
	{ "diratime", OPT_IGNORED, NULL },
	{ "relatime", OPT_IGNORED, NULL },
	{ "norelatime", OPT_IGNORED, NULL },
	{ "strictatime", OPT_IGNORED, NULL },
	{ "nostrictatime", OPT_IGNORED, NULL },
	{ "lazytime", OPT_IGNORED, NULL },
	{ "nolazytime", OPT_IGNORED, NULL },
	{ "auto", OPT_IGNORED, NULL },
	{ "noauto", OPT_IGNORED, NULL },
	{ "user", OPT_IGNORED, NULL },
	{ "nouser", OPT_IGNORED, NULL },
	{ "users", OPT_IGNORED, NULL },
	{ "owner", OPT_IGNORED, NULL },
	{ "group", OPT_IGNORED, NULL },
	{ "_netdev", OPT_IGNORED, NULL },
	{ "nofail", OPT_IGNORED, NULL },
	{ "user=*", OPT_IGNORED, NULL },
	{ "comment=*", OPT_IGNORED, NULL },
	{ "x-*", OPT_IGNORED, NULL },
	{ "X-*", OPT_IGNORED, NULL },
	{ "helper=*", OPT_IGNORED, NULL },
	{ "uhelper=*", OPT_IGNORED, NULL },
	{ "suid", OPT_REFUSED, NULL },
	{ "dev", OPT_REFUSED, NULL },
};
#define NOPTIONS (sizeof(options) / sizeof(options[0]))

static bool matches(const struct option_desc *d, const char *word)
{
	size_t len = strlen(d->name);

	if (d->name[len - 1] == '*')
		return strncmp(word, d->name, len - 1) == 0;
	if (d->name[len - 1] == '=')
		return strncmp(word, d->name, len) == 0;
	return strcmp(word, d->name) == 0;
}

static const struct option_desc *find_option(const char *word)
{
	for (size_t i = 0; i < NOPTIONS; i++)
		if (matches(&options[i], word))
			return &options[i];
	return NULL;
}

char *options_escape(const char *word)
{
	char *escaped = malloc(2 * strlen(word) + 1), *to = escaped;

	if (escaped == NULL)
		return NULL;
	for (; *word != '\0'; word++) {
		if (*word == ',' || *word == '\\')
			*to++ = '\\';
		*to++ = *word;
	}
	*to = '\0';
	return escaped;
}

static int hand_on(struct mount_options *o, const char *word)
{
	char *escaped = options_escape(word), *both = NULL;
	int n;

	if (escaped == NULL)
		return -ENOMEM;
	n = asprintf(&both, "%s%s%s", o->fuse == NULL ? "" : o->fuse,
		     o->fuse == NULL ? "" : ",", escaped);
	free(escaped);
	if (n < 0)
		return -ENOMEM;
	free(o->fuse);
	o->fuse = both;
	return 0;
}

static int take_option(struct mount_options *o, const char *word)
{
	const struct option_desc *d = find_option(word);
	const char *value = strchr(word, '=');

	if (d == NULL && o->sloppy)
		return 0;
	if (d == NULL) {
		log_error("-o %s: no such option; see mount.fmfs(8)", word);
		return -EINVAL;
	}
	switch (d->kind) {
	case OPT_OURS:
	case OPT_SIZE:
		if (d->set(o, value == NULL ? "" : value + 1))
			return 0;
		log_error("-o %s: not a good value%s", word,
			  d->kind == OPT_SIZE
				  ? ": a number of bytes, or with K, M, G or T behind it"
				  : "");
		return -EINVAL;
	case OPT_KERNEL:
		return hand_on(o, word);
	case OPT_IGNORED:
		return 0;
	case OPT_REFUSED:
		log_error("-o %s: fmfs always mounts nosuid,nodev", word);
		return -EINVAL;
	}
	return 0;
}

/* Words separated by commas; "\," is a comma in a value, as libfuse has it. */
static int take_options(struct mount_options *o, const char *text)
{
	char *word = malloc(strlen(text) + 1);
	int rc = word == NULL ? -ENOMEM : 0;
	const char *p = text;
	size_t n;

	while (rc == 0 && *p != '\0') {
		for (n = 0; *p != '\0' && *p != ','; p++) {
			if (p[0] == '\\' && p[1] != '\0')
				p++;
			word[n++] = *p;
		}
		word[n] = '\0';
		if (n > 0)
			rc = take_option(o, word);
		if (*p == ',')
			p++;
	}
	free(word);
	return rc;
}

bool options_is_helper(const char *argv0)
{
	const char *slash = strrchr(argv0, '/');

	return strcmp(slash == NULL ? argv0 : slash + 1, "mount.fmfs") == 0;
}

static int usage_error(void)
{
	log_error("usage: mount STORE MOUNTPOINT [-o OPTIONS] [-f] (--help explains)");
	return -EINVAL;
}

static int take_flag(struct mount_options *o, int c, bool helper)
{
	switch (c) {
	case 'o':
		return take_options(o, optarg);
	case 'f':
		if (helper)
			o->fake = true;
		else
			o->foreground = true;
		return 0;
	case 'd':
		o->debug = o->foreground = true;
		return 0;
	case 'v':
		o->verbose = true;
		return 0;
	case 's':
		o->sloppy = true;
		return 0;
	case 'r':
		o->readonly = true;
		return 0;
	case 'w':
		o->readonly = false;
		return 0;
	case 'n':
	case 't':
		return 0;
	case 'T':
		o->takes = optarg;
		return 0;
	case 'h':
		o->help = true;
		return 0;
	default:
		return usage_error();
	}
}

int options_parse(struct mount_options *o, int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "takes", required_argument, NULL, 'T' },
		{ NULL, 0, NULL, 0 },
	};
	bool helper = options_is_helper(argv[0]);
	int c, rc = 0;

	*o = (struct mount_options){
		.attr_timeout = 1.0,
		.entry_timeout = 1.0,
		.max_stall = 250,
		.max_threads = 10,
	};
	optind = 0; /* whoever called us may have used it */
	while (rc == 0 &&
	       (c = getopt_long(argc, argv, "o:fdvsrwnt:h", long_options, NULL)) != -1)
		rc = take_flag(o, c, helper);
	if (rc < 0 || o->help || o->takes != NULL)
		return rc;
	if (argc - optind != 2)
		return usage_error();
	o->store = argv[optind];
	o->mountpoint = argv[optind + 1];
	return 0;
}

void options_free(struct mount_options *o)
{
	free(o->fuse);
	o->fuse = NULL;
}

void options_print_help(void)
{
	fputs("Usage: fmfs mount [-f] [-d] [-o OPTION,...] STORE MOUNTPOINT\n"
	      "       mount -t fmfs [-o OPTION,...] STORE MOUNTPOINT\n"
	      "\n"
	      "Mount the store, a folder that is made if it does not exist, and return once\n"
	      "the mount answers.\n"
	      "\n"
	      "  -f                    stay in the foreground, messages to standard error\n"
	      "  -d                    the same, and show every request\n"
	      "  -r, -o ro             read-only\n"
	      "  -o atomic             let new pools be atomic: fmalloc(3), FM_ATOMIC\n"
	      "  -o no_passthrough     let all data go through the daemon\n"
	      "  -o attr_timeout=S     seconds that attributes are believed for (1)\n"
	      "  -o entry_timeout=S    seconds that names are believed for (1)\n"
	      "  -o max_stall=MS       how long a snapshot may hold up a pool's writer (250)\n"
	      "  -o max_threads=N      threads that serve requests (10)\n"
	      "  -o max_pool=SIZE      let no file be longer: bytes, or with K, M, G, T\n"
	      "  -o max_store=SIZE     let all files together have no more space\n"
	      "  -o allow_other        let other users in (always so if root mounts)\n"
	      "\n"
	      "mount.fmfs(8) has the rest.  'fmfs umount MOUNTPOINT' unmounts.\n",
	      stdout);
}
