# SPDX-License-Identifier: Apache-2.0
#
# AX_FM_FUZZ: FUZZ_LDFLAGS, what links a fuzz target with libFuzzer, and flags in
# SANITIZE_FLAGS for it to see what is executed.  After AX_FM_SANITIZE.
AC_DEFUN([AX_FM_FUZZ], [
AC_ARG_ENABLE([fuzz],
	[AS_HELP_STRING([--enable-fuzz],
		[build the targets in tests/fuzz for libFuzzer; needs CC=clang.
		 Without it they try the files they are given])],
	[], [enable_fuzz=no])
FUZZ_LDFLAGS=
AS_IF([test "x$enable_fuzz" != xno], [
	enable_fuzz=yes
	FUZZ_LDFLAGS=-fsanitize=fuzzer
	fm_save_CFLAGS=$CFLAGS
	CFLAGS="$CFLAGS $FUZZ_LDFLAGS"
	AC_MSG_CHECKING([whether $CC links with libFuzzer])
	AC_LINK_IFELSE([AC_LANG_SOURCE([
		int LLVMFuzzerTestOneInput(const unsigned char *data, unsigned long len)
		{
			return data == 0 || len == 0 ? 0 : 0;
		}])],
		[AC_MSG_RESULT([yes])],
		[AC_MSG_RESULT([no])
		 AC_MSG_FAILURE([--enable-fuzz needs Clang and its libFuzzer: CC=clang, scripts/setup fuzz])])
	CFLAGS=$fm_save_CFLAGS
	fm_list='$(top_srcdir)/tests/fuzz/unexplored.txt'
	SANITIZE_FLAGS="$SANITIZE_FLAGS -fsanitize=fuzzer-no-link"
	SANITIZE_FLAGS="$SANITIZE_FLAGS -fsanitize-coverage-ignorelist=$fm_list"])
AC_SUBST([FUZZ_LDFLAGS])
AM_CONDITIONAL([ENABLE_FUZZ], [test "x$enable_fuzz" = xyes])
])
