/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lacking WHAT COMMAND...: run the command where the kernel or the file system cannot do
 * something, as older ones cannot:
 *
 *   tmpfile    open(2) with O_TMPFILE: EOPNOTSUPP
 *   exchange   renameat2(2) with RENAME_EXCHANGE: EINVAL
 *
 * A filter of system calls says so, which works for any program.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The low half of an argument, of a little-endian machine. */
#define ARG(n) (offsetof(struct seccomp_data, args) + 8 * (n))

/* The call, if the argument has the bit, fails with err. */
static int deny(int call, int arg, unsigned int bit, int err)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARG(arg)),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bit, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | err),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {
		.len = sizeof(filter) / sizeof(filter[0]), .filter = filter
	};

	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";
	int rc = -1;

	if (strcmp(what, "tmpfile") == 0)
		rc = deny(SYS_openat, 2, O_TMPFILE & ~O_DIRECTORY, EOPNOTSUPP);
	else if (strcmp(what, "exchange") == 0)
		rc = deny(SYS_renameat2, 4, RENAME_EXCHANGE, EINVAL);
	else
		errno = EINVAL;
	if (rc == 0)
		execvp(argv[2], argv + 2);
	fprintf(stderr, "lacking: %s: %s\n", rc == 0 ? argv[2] : what, strerror(errno));
	return 127;
}
