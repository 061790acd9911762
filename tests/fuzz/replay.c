/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands in for libFuzzer where there is none: try the files that are named,
 * and those of folders that are.  Options are libFuzzer's and passed over.
 */
#include <config.h>

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz/fuzz.h"

#define INPUT_MAX (1 << 20)

static unsigned ntried;

static void try_file(const char *path)
{
	uint8_t *data = malloc(INPUT_MAX), *exact;
	FILE *f = fopen(path, "re");
	size_t len;

	fuzz_check(data != NULL);
	if (f == NULL) {
		perror(path);
		exit(1);
	}
	len = fread(data, 1, INPUT_MAX, f);
	fclose(f);
	/* With nothing behind the last byte, for AddressSanitizer. */
	exact = malloc(len + (len == 0));
	fuzz_check(exact != NULL);
	memcpy(exact, data, len);
	free(data);
	fprintf(stderr, "%s\n", path);
	LLVMFuzzerTestOneInput(exact, len);
	free(exact);
	ntried++;
}

static void try_folder(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *e;
	char file[4096];

	if (dir == NULL) {
		perror(path);
		exit(1);
	}
	while ((e = readdir(dir)) != NULL) {
		snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
		if (e->d_name[0] != '.')
			try_file(file);
	}
	closedir(dir);
}

int main(int argc, char **argv)
{
	struct stat st;
	int i;

	for (i = 1; i < argc; i++) {
		if (argv[i][0] == '-')
			continue;
		if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode))
			try_folder(argv[i]);
		else
			try_file(argv[i]);
	}
	printf("tried %u inputs\n", ntried);
	return ntried > 0 ? 0 : 1;
}
