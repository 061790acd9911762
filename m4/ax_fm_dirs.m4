# SPDX-License-Identifier: Apache-2.0
#
# Folders outside the usual set: where mount(8) looks for helpers, systemd for
# units, and where libraries are that the run-time linker does not find by itself.

# AX_FM_MOUNTDIR: mountdir, where mount.fmfs is installed.
AC_DEFUN([AX_FM_MOUNTDIR], [
AC_ARG_WITH([mountdir],
	[AS_HELP_STRING([--with-mountdir=DIR],
		[install mount.fmfs in DIR @<:@/sbin if the prefix is /usr,
		 else SBINDIR@:>@; "mount -t fmfs" finds it only in /sbin,
		 /sbin/fs.d or /sbin/fs])],
	[mountdir=$withval],
	[AS_IF([test "x$prefix" = x/usr], [mountdir=/sbin],
		[mountdir='${sbindir}'])])
AC_SUBST([mountdir])
])

# AX_FM_UNITDIR: systemdsystemunitdir, where units of systemd are installed, or "no".
AC_DEFUN([AX_FM_UNITDIR], [
AC_ARG_WITH([systemdsystemunitdir],
	[AS_HELP_STRING([--with-systemdsystemunitdir=DIR],
		[install units of systemd in DIR, or nowhere if that is "no" @<:@what
		 systemd says if the prefix is /usr, else PREFIX/lib/systemd/system@:>@])],
	[systemdsystemunitdir=$withval],
	[AS_IF([test "x$prefix" = x/usr],
		[systemdsystemunitdir=`$PKG_CONFIG --variable=systemdsystemunitdir systemd 2>/dev/null`
		 AS_IF([test "x$systemdsystemunitdir" = x],
			[systemdsystemunitdir=/usr/lib/systemd/system])],
		[systemdsystemunitdir='${prefix}/lib/systemd/system'])])
AC_SUBST([systemdsystemunitdir])
AM_CONDITIONAL([INSTALL_UNITS], [test "x$systemdsystemunitdir" != xno])
])

# AX_FM_SYSTEM_LIBDIR(DIR, IF-FOUND, IF-NOT): does the run-time linker search
# DIR by itself?  /usr/local counts as "not": it does only after ldconfig.
AC_DEFUN([AX_FM_SYSTEM_LIBDIR], [
AS_CASE([$1], [/lib|/lib64|/lib/*|/usr/lib|/usr/lib64|/usr/lib/*], [$2], [$3])
])

# AX_FM_FUSE_RPATH: FUSE_RPATH, a libtool flag that lets fmfs run with a libfuse
# from a private prefix.
AC_DEFUN([AX_FM_FUSE_RPATH], [
AC_MSG_CHECKING([whether fmfs needs a path to libfuse])
fm_fuse_libdir=`$PKG_CONFIG --variable=libdir fuse3`
AX_FM_SYSTEM_LIBDIR([$fm_fuse_libdir], [FUSE_RPATH=],
	[FUSE_RPATH="-R$fm_fuse_libdir"])
AC_MSG_RESULT([${FUSE_RPATH:-no}])
AC_SUBST([FUSE_RPATH])
])

# AX_FM_PC_RPATH: PC_RPATH for fmalloc.pc, so that what is linked with
# `pkg-config --libs fmalloc` also runs when libfmalloc is in a private prefix.
AC_DEFUN([AX_FM_PC_RPATH], [
fm_save_prefix=$prefix
fm_save_exec_prefix=$exec_prefix
AS_IF([test "x$prefix" = xNONE], [prefix=$ac_default_prefix])
AS_IF([test "x$exec_prefix" = xNONE], [exec_prefix=$prefix])
eval fm_libdir="$libdir"
prefix=$fm_save_prefix
exec_prefix=$fm_save_exec_prefix
AX_FM_SYSTEM_LIBDIR([$fm_libdir], [PC_RPATH=],
	[PC_RPATH='-Wl,-rpath,${libdir} '])
AC_SUBST([PC_RPATH])
])
