/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the verbs do with text and answers that come from elsewhere: escaping,
 * JSON, tables, and a daemon that lies.  ioctl(2) and fstatfs(2) are wrapped.
 */
#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/magic.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cli/ask.h"
#include "cli/cli.h"

/* --- text ------------------------------------------------------------------ */

static void expect_escaped(const char *s, const char *want)
{
	char *got = cli_escape(s);

	assert_string_equal(got, want);
	free(got);
}

static void escape_keeps_printable_utf8(void **state)
{
	(void)state;
	expect_escaped("", "");
	expect_escaped("pool@tag ~'\"$", "pool@tag ~'\"$");
	expect_escaped("\xc3\xa9\xe2\x82\xac\xf0\x9f\x8d\x8e\xf4\x8f\xbf\xbd",
		       "\xc3\xa9\xe2\x82\xac\xf0\x9f\x8d\x8e\xf4\x8f\xbf\xbd");
	expect_escaped("\xc2\xa0", "\xc2\xa0");
}

static void escape_disarms_what_disturbs(void **state)
{
	(void)state;
	expect_escaped("a\\b", "a\\\\b");
	expect_escaped("\a\b\t\n\v\f\r", "\\a\\b\\t\\n\\v\\f\\r");
	expect_escaped("\x1b[31m\x7f", "\\033[31m\\177");
	expect_escaped("\xc2\x9b"
		       "31m",
		       "\\302\\23331m");                   /* C1: CSI */
	expect_escaped("\xe2\x80\xae", "\\342\\200\\256"); /* right to left */
	expect_escaped("\xe2\x81\xa6", "\\342\\201\\246");
	expect_escaped("\xef\xbb\xbf", "\\357\\273\\277");
}

static void escape_spells_out_what_is_no_utf8(void **state)
{
	(void)state;
	expect_escaped("a\xff", "a\\377");
	expect_escaped("\xc3", "\\303");
	expect_escaped("\xe2\x82", "\\342\\202"); /* cut short */
	expect_escaped("\xc0\x80", "\\300\\200"); /* overlong */
	expect_escaped("\xc1\xbf\xe0\x9f\xbf", "\\301\\277\\340\\237\\277");
	expect_escaped("\xf0\x8f\xbf\xbf", "\\360\\217\\277\\277");
	expect_escaped("\xed\xa0\x80", "\\355\\240\\200");          /* a surrogate */
	expect_escaped("\xf4\x90\x80\x80", "\\364\\220\\200\\200"); /* beyond */
	expect_escaped("\x80x\xe2\x82\xac", "\\200x\xe2\x82\xac");
}

/* No two bytes, whatever they are, leave anything but safe characters. */
static void escape_is_safe_for_all_pairs_of_bytes(void **state)
{
	(void)state;
	for (int a = 1; a < 256; a++) {
		for (int b = 1; b < 256; b++) {
			char s[] = { (char)a, (char)b, 0 };
			char *got = cli_escape(s);

			for (const uint8_t *p = (uint8_t *)got; *p; p++) {
				assert_true(*p >= 0x20 && *p != 0x7f);
				assert_false(*p == 0xc2 && p[1] < 0xa0);
			}
			free(got);
		}
	}
}

static void width_counts_columns(void **state)
{
	(void)state;
	assert_non_null(setlocale(LC_CTYPE, "C.UTF-8"));
	assert_int_equal(cli_width("abc"), 3);
	assert_int_equal(cli_width("\xc3\xa9"), 1);
	assert_int_equal(cli_width("\xe6\x97\xa5\xe6\x9c\xac"), 4);
	assert_int_equal(cli_width("e\xcc\x81"), 1);
}

static void expect_json(const char *s, const char *want)
{
	json_t *obj = json_object();
	char *got;

	cli_json_text(obj, "name", s);
	got = json_dumps(obj, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_SORT_KEYS);
	assert_string_equal(got, want);
	free(got);
	json_decref(obj);
}

static void json_is_exact_or_says_the_bytes(void **state)
{
	(void)state;
	expect_json("", "{\"name\":\"\"}");
	expect_json("a\n\x1b\"\\\xc3\xa9", "{\"name\":\"a\\n\\u001B\\\"\\\\\\u00E9\"}");
	expect_json("a\xff\xc3",
		    "{\"name\":\"a\\uFFFD\\uFFFD\",\"name_hex\":\"61ffc3\"}");
	expect_json("\xed\xa0\x80",
		    "{\"name\":\"\\uFFFD\\uFFFD\\uFFFD\",\"name_hex\":\"eda080\"}");
}

static void json_numbers_stop_at_the_largest(void **state)
{
	json_t *small = cli_json_u64(INT64_MAX), *large = cli_json_u64(UINT64_MAX);

	(void)state;
	assert_true(json_integer_value(small) == INT64_MAX);
	assert_true(json_integer_value(large) == INT64_MAX);
	json_decref(small);
	json_decref(large);
}

/* --- a daemon --------------------------------------------------------------- */

/* What the mount answers; every case fills its own. */
static struct {
	long magic;
	int err;
	struct fmfs_info info;
	struct fmfs_list list[3];
	struct fmfs_roots roots[3];
	unsigned int npages; /* asked for so far */
	char after[3][FMFS_NAME_LEN];
} daemon_;

int __wrap_fstatfs(int fd, struct statfs *st);
int __wrap_ioctl(int fd, unsigned long request, ...);

int __wrap_fstatfs(int fd, struct statfs *st)
{
	(void)fd;
	memset(st, 0, sizeof(*st));
	st->f_type = daemon_.magic;
	return 0;
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	unsigned int page = daemon_.npages;
	va_list ap;
	void *data;

	(void)fd;
	va_start(ap, request);
	data = va_arg(ap, void *);
	va_end(ap);
	if (daemon_.err) {
		errno = daemon_.err;
		return -1;
	}
	if (request == FMFS_IOC_INFO) {
		memcpy(data, &daemon_.info, sizeof(daemon_.info));
		return 0;
	}
	assert_in_range(page, 0, 2);
	/* Both requests start with `after`. */
	strcpy(daemon_.after[page], data);
	if (request == FMFS_IOC_LIST)
		memcpy(data, &daemon_.list[page], sizeof(daemon_.list[page]));
	else if (request == FMFS_IOC_ROOTS)
		memcpy(data, &daemon_.roots[page], sizeof(daemon_.roots[page]));
	else
		fail_msg("ioctl %#lx", request);
	daemon_.npages++;
	return 0;
}

static int reset_daemon(void **state)
{
	(void)state;
	memset(&daemon_, 0, sizeof(daemon_));
	daemon_.magic = FUSE_SUPER_MAGIC;
	daemon_.info.abi = FMFS_ABI;
	return 0;
}

static void say_pool(unsigned int page, const char *name)
{
	struct fmfs_list *list = &daemon_.list[page];

	strcpy(list->pool[list->n++].name, name);
}

static void say_root(unsigned int page, const char *name)
{
	struct fmfs_roots *roots = &daemon_.roots[page];

	strcpy(roots->root[roots->n++].name, name);
}

static int join_pool(const struct fmfs_pool_rec *pool, void *arg)
{
	strcat(strcat(arg, pool->name), "|");
	return 0;
}

static int join_root(const struct fmfs_root_rec *root, void *arg)
{
	strcat(strcat(arg, root->name), "|");
	return 0;
}

static void pools_come_page_by_page(void **state)
{
	char got[1024] = "";

	(void)state;
	say_pool(0, "a");
	say_pool(0, "b");
	say_pool(1, "c");
	assert_int_equal(ask_pools(3, join_pool, got), 0);
	assert_string_equal(got, "a|b|c|");
	assert_string_equal(daemon_.after[0], "");
	assert_string_equal(daemon_.after[1], "b");
	assert_string_equal(daemon_.after[2], "c");
}

static void roots_come_page_by_page(void **state)
{
	char got[1024] = "";

	(void)state;
	say_root(0, "a");
	say_root(1, "\xff");
	assert_int_equal(ask_roots(3, join_root, got), 0);
	assert_string_equal(got, "a|\xff|");
	assert_string_equal(daemon_.after[2], "\xff");
}

static void other_file_systems_are_not_asked(void **state)
{
	struct fmfs_info info;

	(void)state;
	daemon_.magic = EXT4_SUPER_MAGIC;
	assert_int_equal(fmfs_ask_info(3, &info), -ENOTTY);
	assert_int_equal(ask_roots(3, join_root, NULL), -ENOTTY);
}

static void failures_are_passed_on(void **state)
{
	struct fmfs_info info;

	(void)state;
	daemon_.err = ENOTCONN;
	assert_int_equal(fmfs_ask_info(3, &info), -ENOTCONN);
	daemon_.err = ENOSYS;
	assert_int_equal(ask_pools(3, join_pool, NULL), -ENOTTY);
}

static void other_abi_is_eproto(void **state)
{
	struct fmfs_info info;

	(void)state;
	daemon_.info.abi = FMFS_ABI + 1;
	assert_int_equal(fmfs_ask_info(3, &info), -EPROTO);
}

static void endless_strings_are_eproto(void **state)
{
	char got[1024] = "";
	struct fmfs_info info;

	(void)state;
	memset(daemon_.info.why_not, 'x', sizeof(daemon_.info.why_not));
	assert_int_equal(fmfs_ask_info(3, &info), -EPROTO);
	reset_daemon(NULL);
	daemon_.list[0].n = 1;
	memset(daemon_.list[0].pool[0].name, 'x', FMFS_NAME_LEN);
	assert_int_equal(ask_pools(3, join_pool, got), -EPROTO);
	reset_daemon(NULL);
	say_pool(0, "a");
	memset(daemon_.list[0].pool[0].parent, 'x', FMFS_NAME_LEN);
	assert_int_equal(ask_pools(3, join_pool, got), -EPROTO);
	reset_daemon(NULL);
	say_root(0, "a");
	memset(daemon_.roots[0].root[0].type, 'x',
	       sizeof(daemon_.roots[0].root[0].type));
	assert_int_equal(ask_roots(3, join_root, got), -EPROTO);
	assert_string_equal(got, "");
}

static void counts_beyond_the_page_are_eproto(void **state)
{
	(void)state;
	daemon_.list[0].n = FMFS_LIST_MAX + 1;
	assert_int_equal(ask_pools(3, join_pool, NULL), -EPROTO);
	daemon_.npages = 0;
	daemon_.roots[0].n = UINT32_MAX;
	assert_int_equal(ask_roots(3, join_root, NULL), -EPROTO);
}

/* Or a listing could go on for ever. */
static void names_out_of_order_are_eproto(void **state)
{
	char got[1024] = "";

	(void)state;
	say_pool(0, "a");
	say_pool(1, "a");
	assert_int_equal(ask_pools(3, join_pool, got), -EPROTO);
	reset_daemon(NULL);
	say_pool(0, "");
	assert_int_equal(ask_pools(3, join_pool, got), -EPROTO);
	reset_daemon(NULL);
	say_root(0, "b");
	say_root(0, "a");
	assert_int_equal(ask_roots(3, join_root, got), -EPROTO);
}

#define ASK(f) cmocka_unit_test_setup(f, reset_daemon)

int main(void)
{
	static const struct CMUnitTest cli[] = {
		cmocka_unit_test(escape_keeps_printable_utf8),
		cmocka_unit_test(escape_disarms_what_disturbs),
		cmocka_unit_test(escape_spells_out_what_is_no_utf8),
		cmocka_unit_test(escape_is_safe_for_all_pairs_of_bytes),
		cmocka_unit_test(width_counts_columns),
		cmocka_unit_test(json_is_exact_or_says_the_bytes),
		cmocka_unit_test(json_numbers_stop_at_the_largest),
		ASK(pools_come_page_by_page),
		ASK(roots_come_page_by_page),
		ASK(other_file_systems_are_not_asked),
		ASK(failures_are_passed_on),
		ASK(other_abi_is_eproto),
		ASK(endless_strings_are_eproto),
		ASK(counts_beyond_the_page_are_eproto),
		ASK(names_out_of_order_are_eproto),
	};

	return cmocka_run_group_tests_name("cli", cli, NULL, NULL);
}
