# SPDX-License-Identifier: Apache-2.0
#
# AX_FM_BENCH: which allocators, and libraries that commit, `make bench` can compare
# with.  Each is optional: sets the conditionals HAVE_MIMALLOC, HAVE_JEMALLOC, HAVE_BOOST,
# HAVE_PMDK, HAVE_LMDB, HAVE_SQLITE and HAVE_LIBFUSE_EXAMPLE, and the lists fm_bench_with and
# fm_bench_without of names for the summary.
AC_DEFUN([AX_FM_BENCH], [
fm_bench_with=glibc
fm_bench_without=
# By header and library: Debian's mimalloc has no .pc file.
AX_FM_BENCH_LIB([mimalloc], [mimalloc.h], [mimalloc], [mi_malloc])
AX_FM_BENCH_LIB([jemalloc], [jemalloc/jemalloc.h], [jemalloc], [mallctl])
AC_LANG_PUSH([C++])
AC_CHECK_HEADER([boost/interprocess/managed_mapped_file.hpp],
	[fm_found=yes], [fm_found=no])
AC_LANG_POP([C++])
AX_FM_BENCH_HAVE([boost])
AX_FM_BENCH_LIB([pmdk], [libpmemobj.h], [pmemobj], [pmemobj_alloc])
AX_FM_BENCH_LIB([lmdb], [lmdb.h], [lmdb], [mdb_txn_begin])
AX_FM_BENCH_LIB([sqlite], [sqlite3.h], [sqlite3], [sqlite3_open])
AX_FM_BENCH_LIBFUSE
])

# AX_FM_BENCH_LIBFUSE: LIBFUSE_EXAMPLES, the folder of passthrough_ll.c: of the libfuse that
# scripts/setup built, or of Debian's libfuse3-dev.
AC_DEFUN([AX_FM_BENCH_LIBFUSE], [
fm_found=no
AS_IF([test "x$enable_fuse" = xyes],
	[for fm_dir in "$($PKG_CONFIG --variable=prefix fuse3)/share/examples" \
		/usr/share/doc/libfuse3-dev/examples; do
		AS_IF([test "$fm_found" = no && test -r "$fm_dir/passthrough_ll.c"],
			[fm_found=yes LIBFUSE_EXAMPLES=$fm_dir])
	done])
AC_SUBST([LIBFUSE_EXAMPLES])
AX_FM_BENCH_HAVE([libfuse_example])
])

# AX_FM_BENCH_LIB(NAME, HEADER, LIBRARY, FUNCTION): look for a library.
AC_DEFUN([AX_FM_BENCH_LIB], [
fm_found=no
AC_CHECK_HEADER([$2], [AC_CHECK_LIB([$3], [$4], [fm_found=yes])])
AX_FM_BENCH_HAVE([$1])
])

# AX_FM_BENCH_HAVE(NAME): note whether it was fm_found.
AC_DEFUN([AX_FM_BENCH_HAVE], [
AM_CONDITIONAL([HAVE_]m4_toupper([$1]), [test "x$fm_found" = xyes])
AS_IF([test "x$fm_found" = xyes], [fm_bench_with="$fm_bench_with $1"],
	[fm_bench_without="$fm_bench_without $1"])
])
