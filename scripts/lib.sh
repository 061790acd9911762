# SPDX-License-Identifier: Apache-2.0
#
# shellcheck shell=sh disable=SC2034,SC2154 # it shares variables with its users
#
# What the scripts of this folder share: where things are, how progress is
# shown, how a build folder is brought up to date.  To be sourced, by a script
# that has set `top` to the source tree.
#
# Details of every step go to build/log/STEP.log; what is printed is one line a
# step, and the end of the log when a step fails.

build=$top/build
fuse_prefix=$build/deps/fuse3
fuse_min=3.17
jobs=$(nproc 2>/dev/null || echo 2)
mkdir -p "$build/log"

say()
{
	echo "==> $*"
}

die()
{
	echo "${0##*/}: $*" >&2
	exit 1
}

# step NAME COMMAND...: run the command, its output to build/log/NAME.log.
step()
{
	step_log=$build/log/$1.log
	shift
	"$@" >"$step_log" 2>&1 && return 0
	step_rc=$?
	echo "failed ($step_rc): $*" >&2
	tail -n 30 "$step_log" | sed 's/^/    /' >&2
	echo "    (all of it: $step_log)" >&2
	return "$step_rc"
}

# use_private_fuse: let pkg-config find the libfuse that scripts/setup built, if
# it did.
use_private_fuse()
{
	[ -e "$fuse_prefix/stamp" ] || return 0
	PKG_CONFIG_PATH=$fuse_prefix/lib/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
	export PKG_CONFIG_PATH
}

# build_tree NAME FOLDER [CONFIGURE ARGUMENT...]: configure the folder unless
# that was done with the same arguments, and make all that is out of date.
build_tree()
{
	tree_name=$1 tree_dir=$2
	shift 2
	use_private_fuse
	if [ ! -e "$top/configure" ]; then
		say "autoreconf"
		step autoreconf autoreconf -fi "$top" || return
	fi
	mkdir -p "$tree_dir"
	tree_args="${PKG_CONFIG_PATH-} $*"
	if [ ! -e "$tree_dir/Makefile" ] ||
	   [ "$(cat "$tree_dir/configured-with" 2>/dev/null)" != "$tree_args" ]; then
		say "configure ($tree_name)"
		step "configure-$tree_name" in_dir "$tree_dir" \
			"$top/configure" "$@" || return
		echo "$tree_args" >"$tree_dir/configured-with"
	fi
	say "make ($tree_name)"
	step "make-$tree_name" make -C "$tree_dir" -j "$jobs" || return
}

in_dir()
{
	(cd "$1" && shift && "$@")
}
