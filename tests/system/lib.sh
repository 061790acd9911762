# SPDX-License-Identifier: Apache-2.0
#
# shellcheck shell=sh
#
# For the scripts *.tap beside it, which source it: a folder to work in that is
# the current one, mounts that go away with the script, and TAP.
#
#   . "$SRCDIR/tests/system/lib.sh"
#   need_mount                  # skip all where nothing can be mounted
#   mount_store store mnt
#   check "a name for the case" test -f mnt/x
#   check_fails "another" 1 "expected words" fmfs ls nowhere
#   umount_store mnt
#   done_testing
set -u
LC_ALL=C.UTF-8
export LC_ALL
ncases=0 nfailed=0

work=$(mktemp -d "${TMPDIR:-/tmp}/fmfs-test.XXXXXX") || exit 99
cd "$work" || exit 99

# Mounts below $work, as the kernel has them; it writes blanks as \040.
own_mounts()
{
	awk -v below="$work/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo
}

# No mount but those below $work is touched.  Background processes are in $pids.
pids=
clean_up()
{
	cd /
	for pid in $pids; do
		kill "$pid" 2>/dev/null
	done
	own_mounts | while read -r mnt; do
		umount -l "$(printf %b "$mnt")"
	done
	# Never through a mount that is still there.
	rm -rf --one-file-system "$work"
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP PIPE

skip_all()
{
	echo "1..0 # SKIP $*"
	exit 0
}

need_mount()
{
	[ -c /dev/fuse ] || skip_all "there is no /dev/fuse"
	[ "$(id -u)" = 0 ] || skip_all "needs root"
	fmfs --version >/dev/null || skip_all "there is no fmfs"
}

need_program()
{
	for program; do
		command -v "$program" >/dev/null || skip_all "there is no $program"
	done
}

# mount_store STORE MNT [OPTION...]: both relative to $work, made if missing.
mount_store()
{
	lib_store=$1 lib_mnt=$2
	shift 2
	mkdir -p "$lib_store" "$lib_mnt"
	fmfs mount "$lib_store" "$lib_mnt" "$@"
}

# make_fs NAME SIZE: a file system, of the type that NAME begins with, on a loop device,
# mounted at $work/NAME.fs.
make_fs()
{
	truncate -s "$2" "$1.img"
	case $1 in
	ext4*)	mkfs.ext4 -q -m 0 "$1.img" ;;
	xfs*)	mkfs.xfs -q -m reflink=1 "$1.img" ;;
	btrfs*)	mkfs.btrfs -q "$1.img" ;;
	esac
	mkdir -p "$1.fs"
	mount -o loop "$1.img" "$1.fs"
}

# reserve_all FOLDER: leave no free block, in files FOLDER/ballastN.
reserve_all()
{
	n=0 size=$((256 << 20))
	while [ $size -ge 4096 ]; do
		n=$((n + 1))
		fallocate -l $size "$1/ballast$n" 2>/dev/null && continue
		rm -f "$1/ballast$n"
		size=$((size / 2))
	done
}

umount_store()
{
	fmfs umount "$1"
}

ok()
{
	ncases=$((ncases + 1))
	echo "ok $ncases - $*"
}

not_ok()
{
	ncases=$((ncases + 1)) nfailed=$((nfailed + 1))
	echo "not ok $ncases - $*"
}

skip()
{
	ncases=$((ncases + 1))
	echo "ok $ncases - $1 # SKIP $2"
}

# What was printed, for whoever reads the log.
diagnose()
{
	sed 's/^/# /' "$@"
}

# check NAME COMMAND...: the command succeeds.  Output is in `out` and `err`,
# until the next check.
check()
{
	name=$1
	shift
	"$@" >out 2>err
	status=$?
	if [ $status = 0 ]; then
		ok "$name"
	else
		not_ok "$name"
		echo "# exit status $status of: $*"
		diagnose out err
	fi
}

# check_fails NAME STATUS WORDS COMMAND...: it ends with STATUS and says WORDS (an
# extended regular expression) on standard error.
check_fails()
{
	name=$1 want=$2 words=$3
	shift 3
	"$@" >out 2>err
	status=$?
	if [ $status = "$want" ] && grep -qE -- "$words" err; then
		ok "$name"
	else
		not_ok "$name"
		echo "# exit status $status, not $want, or no '$words', of: $*"
		diagnose out err
	fi
}

# check_output NAME COMMAND... <<END: it succeeds and prints just what is given.
check_output()
{
	name=$1
	shift
	cat >want
	if "$@" >out 2>err && cmp -s want out; then
		ok "$name"
	else
		not_ok "$name"
		echo "# of: $*"
		diff want out | diagnose
		diagnose err
	fi
}

# wait_for SECONDS COMMAND...: until it succeeds.
wait_for()
{
	tries=$(($1 * 20))
	shift
	until "$@" 2>/dev/null; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || return 1
		sleep 0.05
	done
}

# The process has ended, though perhaps nobody has asked yet how.
has_ended()
{
	[ ! -e "/proc/$1" ] || grep -q '^State:[[:space:]]*[ZX]' "/proc/$1/status"
}

done_testing()
{
	echo "1..$ncases"
	[ $nfailed = 0 ] || exit 1
	exit 0
}
