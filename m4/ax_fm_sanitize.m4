# SPDX-License-Identifier: Apache-2.0
#
# AX_FM_SANITIZE: SANITIZE_FLAGS, added to the compilation and linking of
# everything.
AC_DEFUN([AX_FM_SANITIZE], [
AC_ARG_ENABLE([sanitize],
	[AS_HELP_STRING([--enable-sanitize@<:@=LIST@:>@],
		[build with the sanitizers in LIST: "address,undefined" (the
		 default of the option) or "thread", which also needs
		 --with-window-bits=32])],
	[], [enable_sanitize=no])
AS_CASE([$enable_sanitize],
	[no], [SANITIZE_FLAGS=],
	[AS_IF([test "x$enable_sanitize" = xyes],
		[enable_sanitize=address,undefined])
	 SANITIZE_FLAGS="-fsanitize=$enable_sanitize -fno-omit-frame-pointer"
	 AS_CASE([$enable_sanitize], [*undefined*],
		[SANITIZE_FLAGS="$SANITIZE_FLAGS -fno-sanitize-recover=undefined"])
	 fm_save_CFLAGS=$CFLAGS
	 CFLAGS="$CFLAGS $SANITIZE_FLAGS"
	 AC_MSG_CHECKING([whether $CC links with $SANITIZE_FLAGS])
	 AC_LINK_IFELSE([AC_LANG_PROGRAM()], [AC_MSG_RESULT([yes])],
		[AC_MSG_RESULT([no])
		 AC_MSG_FAILURE([the compiler has no -fsanitize=$enable_sanitize])])
	 CFLAGS=$fm_save_CFLAGS])
AC_SUBST([SANITIZE_FLAGS])
])
