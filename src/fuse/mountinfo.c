/* SPDX-License-Identifier: Apache-2.0 */
/* Reads /proc/self/mountinfo (proc(5) has the format), and takes mounts away. */
#include <config.h>

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuse/mountinfo.h"

/* --- the table ------------------------------------------------------------------ */

/* Blanks and backslashes in names are written \ooo. */
static void decode_octal(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' &&
		    s[2] <= '7' && s[3] >= '0' && s[3] <= '7') {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 |
				       (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

/*
 * ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAG...] - TYPE SOURCE OPTIONS
 * The strings point into the line.  false: not such a line.
 */
static bool parse_line(char *line, struct mount_entry *e)
{
	char *save, *word = strtok_r(line, " \n", &save), *type;
	unsigned int major, minor;

	for (int field = 0; word && field < 5; field++) {
		if (field == 2 && sscanf(word, "%u:%u", &major, &minor) != 2)
			return false;
		if (field == 4)
			e->point = word;
		word = strtok_r(NULL, " \n", &save);
	}
	while (word && strcmp(word, "-") != 0)
		word = strtok_r(NULL, " \n", &save);
	type = word ? strtok_r(NULL, " \n", &save) : NULL;
	e->source = type ? strtok_r(NULL, " \n", &save) : NULL;
	if (!e->source)
		return false;
	e->dev = makedev(major, minor);
	e->is_fmfs = strcmp(type, "fuse.fmfs") == 0 || strcmp(type, "fmfs") == 0;
	decode_octal(e->point);
	decode_octal(e->source);
	return true;
}

static int copy_entry(const struct mount_entry *from, struct mount_entry *to)
{
	mount_entry_free(to);
	*to = *from;
	to->point = strdup(from->point);
	to->source = strdup(from->source);
	if (to->point && to->source)
		return 1;
	mount_entry_free(to);
	return -ENOMEM;
}

/* The last line that matches counts for a point: it is mounted over the rest. */
static int find(const char *point, dev_t dev, struct mount_entry *entry)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t max = 0;
	int ret = 0;

	memset(entry, 0, sizeof(*entry));
	if (!f)
		return -errno;
	while (ret >= 0 && getline(&line, &max, f) > 0) {
		struct mount_entry e = { .dev = 0 };

		if (!parse_line(line, &e))
			continue;
		if (point ? strcmp(e.point, point) == 0 : e.dev == dev && ret == 0)
			ret = copy_entry(&e, entry);
	}
	free(line);
	fclose(f);
	return ret;
}

int mount_find_point(const char *point, struct mount_entry *entry)
{
	return find(point, 0, entry);
}

int mount_find_dev(dev_t dev, struct mount_entry *entry)
{
	return find(NULL, dev, entry);
}

void mount_entry_free(struct mount_entry *entry)
{
	free(entry->point);
	free(entry->source);
	memset(entry, 0, sizeof(*entry));
}

/* --- mount points --------------------------------------------------------------- */

char *mount_resolve(const char *path)
{
	char *whole = realpath(path, NULL), *copy, *slash, *parent;

	if (whole != NULL || errno == ENOENT || errno == ENOTDIR)
		return whole;
	/* Only what is above it can be looked at. */
	copy = strdup(path);
	if (copy == NULL)
		return NULL;
	while (strlen(copy) > 1 && copy[strlen(copy) - 1] == '/')
		copy[strlen(copy) - 1] = '\0';
	slash = strrchr(copy, '/');
	if (slash != NULL)
		*slash = '\0';
	parent = realpath(slash == NULL ? "." : slash == copy ? "/" : copy, NULL);
	if (parent != NULL &&
	    asprintf(&whole, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent,
		     slash != NULL ? slash + 1 : copy) < 0)
		whole = NULL;
	free(parent);
	free(copy);
	return whole;
}

/* The set-uid helper of FUSE unmounts what the caller has mounted himself.
 * 0, 1 if it failed, after its own message, or -errno if it cannot be run. */
static int run_fusermount(const char *point, bool lazy)
{
	const char *argv[] = { "fusermount3", lazy ? "-uz" : "-u", "--", point, NULL };
	pid_t pid;
	int status, err;

	err = posix_spawnp(&pid, argv[0], NULL, NULL, (char **)argv, environ);
	if (err != 0)
		return err == ENOENT ? -EPERM : -err;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 1;
}

int mount_detach(const char *point, bool lazy)
{
	if (umount2(point, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
		return 0;
	return errno == EPERM ? run_fusermount(point, lazy) : -errno;
}
