/* SPDX-License-Identifier: Apache-2.0 */
/* The headers as C and as C++, and the names that the library brings with it. */
#include "scratch.h"

#include <fmalloc.h>

int header_c99(void);
int header_cxx(void);

static void headers_compile_alone(void **state)
{
	(void)state;
	assert_true(header_c99());
	assert_true(header_cxx());
}

/* Compile and link with the compilers that are there, as strict as they go. */
static void headers_are_clean_under_other_standards(void **state)
{
	static const char *const how[] = {
		"cc -std=gnu99 -pedantic -x c", "cc -std=gnu11 -x c", "cc -std=gnu2x -x c",
		"c++ -std=c++11 -pedantic -x c++", "c++ -std=c++20 -x c++",
	};
	const char *build = getenv("BUILDDIR"), *source = getenv("SRCDIR");
	char command[2000];
	unsigned i;

	(void)state;
	if (build == NULL || source == NULL || system("command -v cc c++ >/dev/null") != 0)
		skip();
	for (i = 0; i < sizeof(how) / sizeof(how[0]); i++) {
		snprintf(command, sizeof(command),
			 "echo '#include <fmalloc.h>' | %s -fsyntax-only -Wall -Wextra"
			 " -Wno-pedantic-ms-format -Werror -I%s/include -I%s/include -",
			 how[i], source, build);
		if (system(command) != 0)
			fail_msg("%s", command);
	}
}

static void shared_library_exports_public_names_only(void **state)
{
	const char *build = getenv("BUILDDIR");
	char command[2000], line[400];
	int n = 0;
	FILE *f;

	(void)state;
	snprintf(command, sizeof(command), "%s/.libs/libfmalloc.so", build != NULL ? build : ".");
	if (access(command, R_OK) != 0)
		skip();
	snprintf(command, sizeof(command),
		 "nm -D --defined-only %s/.libs/libfmalloc.so | awk '{print $3}'", build);
	f = popen(command, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL) {
		line[strcspn(line, "@\n")] = '\0';
		n++;
		if (strncmp(line, "fm_", 3) != 0 && strncmp(line, "fmalloc", 7) != 0 &&
		    strcmp(line, "ffree") != 0 && strcmp(line, "ffree_from") != 0 &&
		    strcmp(line, "fcalloc") != 0 && strcmp(line, "faligned_alloc") != 0 &&
		    strcmp(line, "frealloc") != 0 && strcmp(line, "frealloc_into") != 0)
			fail_msg("'%s' is exported", line);
	}
	assert_int_equal(pclose(f), 0);
	assert_true(n >= 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(headers_compile_alone),
		cmocka_unit_test(headers_are_clean_under_other_standards),
		cmocka_unit_test(shared_library_exports_public_names_only),
	};

	return cmocka_run_group_tests_name("headers", tests, NULL, NULL);
}
