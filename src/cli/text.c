/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text from elsewhere (names of pools and roots, the daemon's words) in forms
 * that are safe to print: escaped, in tables, in JSON.
 */
#include <config.h>

#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "cli/cli.h"

static void no_memory(void)
{
	fputs("fmfs: out of memory\n", stderr);
	exit(CLI_FAILED);
}

char *cli_printf(const char *fmt, ...)
{
	va_list ap;
	char *s;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	if (n < 0)
		no_memory();
	return s;
}

void *cli_realloc(void *p, size_t n, size_t size)
{
	void *q = reallocarray(p, n, size);

	if (!q)
		no_memory();
	return q;
}

/* --- UTF-8 ---------------------------------------------------------------- */

/* Bytes of the character that starts with `first`; 0 if none does. */
static size_t char_len(uint8_t first)
{
	if (first < 0x80)
		return 1;
	if (first < 0xc2 || first > 0xf4)
		return 0;
	return first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

/*
 * The character that s begins with, and its length in bytes: 0 if that is no
 * UTF-8 (overlong, a surrogate, beyond Unicode, cut short).
 */
static size_t decode(const char *s, uint32_t *c)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const uint8_t *p = (const uint8_t *)s;
	size_t len = char_len(p[0]);

	if (len <= 1) {
		*c = p[0];
		return len;
	}
	*c = p[0] & (0x7fu >> len);
	for (size_t i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		*c = *c << 6 | (p[i] & 0x3f);
	}
	if (*c < least[len] || (*c >= 0xd800 && *c < 0xe000) || *c > 0x10ffff)
		return 0;
	return len;
}

/* Moves the cursor, changes colours, breaks lines, or turns text around. */
static bool disturbs(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || /* C0, DEL, C1 */
	       c == 0x061c || c == 0x200e || c == 0x200f ||
	       (c >= 0x2028 && c <= 0x202e) || /* lines, direction */
	       (c >= 0x2066 && c <= 0x2069) || c == 0xfeff;
}

static char *put_escaped(char *to, uint8_t byte)
{
	static const char letters[] = "\a\b\t\n\v\f\r\\", names[] = "abtnvfr\\";
	const char *letter = byte ? strchr(letters, byte) : NULL;

	*to++ = '\\';
	if (letter) {
		*to++ = names[letter - letters];
		return to;
	}
	*to++ = (char)('0' + (byte >> 6));
	*to++ = (char)('0' + (byte >> 3 & 7));
	*to++ = (char)('0' + (byte & 7));
	return to;
}

char *cli_escape(const char *s)
{
	char *out = cli_realloc(NULL, strlen(s) + 1, 4), *to = out;

	while (*s) {
		uint32_t c;
		size_t len = decode(s, &c);
		bool plain = len > 0 && c != '\\' && !disturbs(c);

		if (len == 0)
			len = 1;
		for (; len > 0; len--, s++) {
			if (plain)
				*to++ = *s;
			else
				to = put_escaped(to, (uint8_t)*s);
		}
	}
	*to = '\0';
	return out;
}

size_t cli_width(const char *s)
{
	size_t width = 0;

	while (*s) {
		uint32_t c;
		size_t len = decode(s, &c);
		int columns = len ? wcwidth((wchar_t)c) : 1;

		width += columns < 0 ? 1 : (size_t)columns;
		s += len ? len : 1;
	}
	return width;
}

/* --- JSON ----------------------------------------------------------------- */

void cli_json_set(json_t *obj, const char *key, json_t *value)
{
	if (!value || json_object_set_new(obj, key, value) != 0)
		no_memory();
}

json_t *cli_json_u64(uint64_t value)
{
	return json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value);
}

/* With U+FFFD for what is no UTF-8; *exact tells if there was any. */
static char *to_utf8(const char *s, bool *exact)
{
	char *out = cli_realloc(NULL, strlen(s) + 1, 3), *to = out;

	*exact = true;
	while (*s) {
		uint32_t c;
		size_t len = decode(s, &c);

		if (len > 0) {
			to = mempcpy(to, s, len);
			s += len;
		} else {
			to = mempcpy(to, "\xef\xbf\xbd", 3);
			s++;
			*exact = false;
		}
	}
	*to = '\0';
	return out;
}

static char *to_hex(const char *s)
{
	char *out = cli_realloc(NULL, strlen(s) + 1, 2), *to = out;

	for (; *s; s++, to += 2)
		sprintf(to, "%02x", (uint8_t)*s);
	*to = '\0';
	return out;
}

void cli_json_text(json_t *obj, const char *key, const char *s)
{
	bool exact;
	char *text = to_utf8(s, &exact);

	cli_json_set(obj, key, json_string(text));
	free(text);
	if (!exact) {
		char *hex_key = cli_printf("%s_hex", key), *hex = to_hex(s);

		cli_json_set(obj, hex_key, json_string(hex));
		free(hex);
		free(hex_key);
	}
}

void cli_json_list_add(struct json_list *list, json_t *value)
{
	fputs(list->n++ ? ",\n " : "[", stdout);
	/* A failed write stays in stdout: cli_close_stdout() reports it. */
	json_dumpf(value, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
	json_decref(value);
}

void cli_json_list_end(struct json_list *list)
{
	fputs(list->n ? "]\n" : "[]\n", stdout);
}

/* --- tables --------------------------------------------------------------- */

void table_add(struct table *t, char *cell)
{
	if (t->ncells == t->max_cells) {
		t->max_cells = t->max_cells ? 2 * t->max_cells : 64;
		t->cell = cli_realloc(t->cell, t->max_cells, sizeof(*t->cell));
	}
	t->cell[t->ncells++] = cell;
}

/* No blanks after the last column: it may be long. */
static void print_cell(const struct table *t, size_t column, size_t width,
		       const char *s)
{
	size_t own = cli_width(s);
	int pad = (int)(width > own ? width - own : 0);
	bool last = column + 1 == t->ncolumns;

	if (t->align[column] == 'r')
		printf("%*s%s", pad, "", s);
	else
		printf("%s%*s", s, last ? 0 : pad, "");
	fputs(last ? "\n" : "  ", stdout);
}

void table_print(const struct table *t)
{
	size_t width[TABLE_MAX_COLUMNS];

	for (size_t i = 0; i < t->ncolumns; i++)
		width[i] = strlen(t->head[i]);
	for (size_t i = 0; i < t->ncells; i++) {
		size_t own = cli_width(t->cell[i]);

		if (own > width[i % t->ncolumns])
			width[i % t->ncolumns] = own;
	}
	for (size_t i = 0; i < t->ncolumns; i++)
		print_cell(t, i, width[i], t->head[i]);
	for (size_t i = 0; i < t->ncells; i++)
		print_cell(t, i % t->ncolumns, width[i % t->ncolumns], t->cell[i]);
}

void table_free(struct table *t)
{
	for (size_t i = 0; i < t->ncells; i++)
		free(t->cell[i]);
	free(t->cell);
	t->cell = NULL;
	t->ncells = t->max_cells = 0;
}
