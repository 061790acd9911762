# SPDX-License-Identifier: Apache-2.0
#
# AX_FM_WINDOW: where in the address space pools are mapped: FM_WINDOW_BITS,
# FM_REGION_BASE (a multiple of the window) and FM_NWINDOWS for
# include/fmalloc_config.h.
#
# Up to 34 bits, the region ends at 60 GiB, because the 128 GiB that Valgrind
# gives to a program by default must hold it.  Above, it is the 63 TiB between
# AddressSanitizer's shadow, which ends at 0x10007fff8000, and the heap that it
# puts at 0x500000000000 since GCC 14 and LLVM 17; Linux puts programs, libraries
# and stacks higher still.  40 bits is as far as the format of a pool reaches.
AC_DEFUN([AX_FM_WINDOW], [
AC_ARG_WITH([window-bits],
	[AS_HELP_STRING([--with-window-bits=N],
		[map every pool in an address window of 2^N bytes, 28 to 40
		 @<:@40: pools of up to 1 TiB, 63 open at once@:>@; Valgrind
		 and ThreadSanitizer need 32])],
	[], [with_window_bits=40])
AS_CASE([$with_window_bits],
	[2@<:@89@:>@|3@<:@01234@:>@], [
		fm_gib=$((1 << 30))
		fm_base=$((1 << with_window_bits))
		AS_IF([test $fm_base -lt $((4 * fm_gib))],
			[fm_base=$((4 * fm_gib))])
		FM_REGION_BASE=`printf '0x%xull' $fm_base`
		FM_NWINDOWS=$(((60 * fm_gib - fm_base) >> with_window_bits))],
	[3@<:@56789@:>@|40], [
		FM_REGION_BASE=0x110000000000ull
		FM_NWINDOWS=$(((63 << 40) >> with_window_bits))],
	[AC_MSG_ERROR([--with-window-bits=$with_window_bits: expected a number from 28 to 40])])
FM_WINDOW_BITS=$with_window_bits
AC_SUBST([FM_WINDOW_BITS])
AC_SUBST([FM_REGION_BASE])
AC_SUBST([FM_NWINDOWS])
AM_CONDITIONAL([SMALL_WINDOW], [test "$with_window_bits" -le 34])
])
