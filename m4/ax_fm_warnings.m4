# SPDX-License-Identifier: Apache-2.0
#
# AX_FM_WARNINGS: WARN_CFLAGS and WARN_CXXFLAGS, the warnings that all our code
# is compiled with by GCC and Clang alike; errors only with --enable-werror.
AC_DEFUN([AX_FM_WARNINGS], [
AC_ARG_ENABLE([werror],
	[AS_HELP_STRING([--enable-werror],
		[treat warnings as errors (for those who work on fmalloc)])],
	[], [enable_werror=no])
fm_warn="-Wall -Wextra -Wshadow -Wpointer-arith -Wwrite-strings -Wvla"
AS_IF([test "x$enable_werror" != xno], [fm_warn="$fm_warn -Werror"])
WARN_CFLAGS="$fm_warn -Wstrict-prototypes -Wmissing-prototypes"
WARN_CXXFLAGS="$fm_warn"
AC_SUBST([WARN_CFLAGS])
AC_SUBST([WARN_CXXFLAGS])
])
