# SPDX-License-Identifier: Apache-2.0
#
# shellcheck shell=sh
#
# The table of test-two-users.tap, which sources this for each file system: $at is that,
# plain/ a folder of it, mnt/ a mount with its store beside that folder.

# make PLACE NAME OWNER GROUP MODE: a pool, and its snapshot.
make()
{
	install -o "$3" -g "$4" -m "$5" template "$1/$2"
	setfattr -n user.note -v note "$1/$2"
	if [ "$1" = mnt ]; then
		ln "mnt/$2" "mnt/$2@s"
	else
		cp -p "$1/$2" "$1/$2@s"
	fi
}

# fresh: all as it was at the start, at both places, the folder as `folder` says.
folder="root root 1777"
fresh()
{
	for place in plain mnt; do
		rm -f $place/*
		make $place secret 61001 61001 600
		make $place shared 61001 61001 644
		make $place group 61001 61010 660
		make $place open 61001 61001 666
		make $place drop 61001 61001 622
		make $place bobs 61002 61002 600
		make $place carols 61003 61003 600
		# They could not take the place of others with a snapshot of that tag.
		rm -f $place/bobs@s $place/carols@s
		# shellcheck disable=SC2086 # words
		set -- $folder
		chown "$1:$2" $place/ && chmod "$3" $place/
	done
}

# try PLACE WHO WHAT FILE [OTHER]
try()
{
	"$2" attempt "$3" "$1/$4" ${5:+"$1/$5"} 2>&1
}

# done_that WHAT: it was not refused, so all is made afresh if it changes something.
done_that()
{
	case $1 in
	read* | map* | *lock* | lease | stat | access* | getxattr | open_rdwr | list | ask_roots) ;;
	*) fresh ;;
	esac
}

# row WHO WHAT FILE [OTHER]: what is refused there is refused at the mount, and what is
# not, is not; in a line of the table.
row()
{
	there=$(try plain "$@")
	here=$(try mnt "$@")
	line="$1: $2 $3${4:+ $4}: $there on $type, $here at the mount"
	if [ "$there" = OK ]; then
		[ "$here" = OK ] && ok "$line" || not_ok "$line"
		done_that "$2"
	elif [ "$here" = OK ] || [ -z "$here" ]; then
		not_ok "$line"
		fresh
	else
		ok "$line"
	fi
}

# only WANT WHO WHAT FILE [OTHER]: at the mount; there is no such thing elsewhere.
only()
{
	want=$1
	shift
	here=$(try mnt "$@" "")
	line="$1: $2 $3${4:+ $4}: $here"
	[ "$here" = "$want" ] && ok "$line" || not_ok "$line, not $want"
	[ "$here" != OK ] || [ "$want" = OK ] || fresh
}

table()
{
	while read -r who what file other; do
		[ -z "$who" ] || row "$who" "$what" "$file" "$other"
	done
}

unchanged() { (cd mnt && cksum ./* && stat -c '%n %u %g %a %s' ./*); }

# --- somebody else's file, 0600 ------------------------------------------------------

fresh
unchanged >before
for target in secret secret@s; do
	table <<END
bob read $target
bob map $target
bob map_private $target
bob map_wronly $target
bob write $target
bob append $target
bob open_rdwr $target
bob open_trunc $target
bob open_rdonly_trunc $target
bob open_noatime $target
bob reopen_path $target
bob read_path $target
bob execute $target
bob access_read $target
bob access_write $target
bob truncate $target
bob chmod $target
bob chown $target
bob chgrp $target
bob give_away $target
bob touch $target
bob set_times $target
bob setxattr $target
bob removexattr $target
bob set_trusted $target
bob set_capability $target
bob set_flags $target
bob link_path $target secret@x
bob rename $target mine
bob rename bobs $target
bob exchange bobs $target
bob unlink $target
bob handle $target
bob lock $target
bob lock_shared $target
bob flock $target
bob lease $target
carol read $target
carol write $target
carol unlink $target
END
	only EACCES bob ask_roots $target
	only EBADF bob ask_roots_path $target
	only EACCES bob ask_rollback $target
	only EACCES bob ask_clone $target clone
	only EACCES bob ask_clone_wronly $target clone
done
table <<END
bob getxattr secret
bob link secret secret@x
END
only EPERM bob link secret@s secret@x
mkdir -m 744 mnt/closed
ln mnt/shared mnt/shared@t && mv mnt/shared mnt/closed/
check "bob: nor in a folder that is not for him to search" sh -c "
	setpriv --reuid 61002 --regid 61002 --clear-groups fmfs ls mnt/closed >list &&
	setpriv --reuid 61002 --regid 61002 --clear-groups fmfs ls --json mnt/closed |
	jq -r '.[] | .kind + .name' | tr '\n' ' ' | grep -qx 'unknownshared unknownshared@s unknownshared@t '"
mv mnt/closed/shared mnt/ && rmdir mnt/closed && rm -f mnt/shared@t
unchanged | diff before - >out && ok "nothing has changed" || {
	not_ok "nothing has changed"
	diagnose out
}

# --- one that is open to all for reading, 0644 -------------------------------------------

table <<END
bob read shared
bob stat shared
bob map shared
bob map_private shared
bob map_write shared
bob protect shared
bob write shared
bob append shared
bob open_rdwr shared
bob open_trunc shared
bob open_rdonly_trunc shared
bob open_noatime shared
bob reopen_write shared
bob reopen_write shared@s
bob ftruncate shared
bob fallocate shared
bob punch shared
bob copy_into shared shared
bob truncate shared
bob chmod shared
bob fchmod shared
bob chown shared
bob chgrp shared
bob touch shared
bob set_times shared
bob setxattr shared
bob fsetxattr shared
bob getxattr shared
bob removexattr shared
bob set_flags shared
bob link shared shared@x
bob link_path shared shared@x
bob rename shared mine
bob rename bobs shared
bob exchange bobs shared
bob unlink shared
bob unlink shared@s
bob lock shared
bob lock_rdonly shared
bob lock_shared shared
bob flock shared
bob lease shared
END
only OK bob ask_roots shared
only EINVAL bob ask_rollback shared
only EACCES bob ask_rollback shared@s
only EBADF bob ask_roots_path shared
only EEXIST bob ask_clone shared bobs
only EEXIST bob ask_clone shared secret
only EPERM bob ask_clone shared x@y
for bad in ../x .. . "" "$(printf %0256d 0)"; do
	here=$(bob attempt ask_clone_name mnt/shared "$bad")
	check "bob: ask_clone_name shared '$bad': $here" test "$here" = EINVAL
done
only ENOENT bob ask_clone_nowhere shared clone
only ENOENT bob ask_clone_in_file shared clone
unchanged | diff before - >out && ok "nothing has changed" || {
	not_ok "nothing has changed"
	diagnose out
}
only OK bob ask_clone shared@s clone
check "the clone is his, and has no set-ID bits" test "$(stat -c '%u %g %a' mnt/clone)" = \
	"61002 61002 777"
only EEXIST bob ask_clone shared@s clone

# --- one that may be written to, but not read, 0622; and one that all may write to -------

table <<END
bob read drop
bob map drop
bob map_wronly drop
bob read_wronly drop
bob reopen_write drop
bob copy_from_wronly drop bobs
bob write drop
bob open_rdwr drop
bob access_read drop
bob getxattr drop
bob link drop drop@x
bob lock drop
bob chmod drop
bob unlink drop
bob write open
bob lock open
bob truncate open
bob touch open
bob set_times open
bob chmod open
bob setxattr open
bob rename bobs open
bob unlink open
END
only EACCES bob ask_roots drop
only EBADF bob ask_roots_wronly drop
only EACCES bob ask_clone drop clone
only EBADF bob ask_clone_wronly drop clone
only EACCES bob ask_rollback drop@s
only OK bob link open open@x
only EPERM bob ask_rollback open@s
only EPERM bob unlink open@x

# --- by the group --------------------------------------------------------------------------

table <<END
bob read group
bob write group
carol read group
carol write group
carol chmod group
carol chown group
carol set_times group
carol unlink group
carol rename carols group
END
only EACCES bob ask_clone group clone
only EACCES bob ask_clone group@s clone
only OK carol ask_clone group@s hers
check "is hers" test "$(stat -c '%u %g' mnt/hers)" = "61003 61003"
only EPERM carol ask_rollback group@s

# --- who may replace, by folders ------------------------------------------------------------

folder="root root 777"
fresh
table <<END
bob unlink secret
bob rename bobs secret
carol rename carols group
bob create new
END
only EACCES bob ask_rollback secret@s
only EACCES bob ask_rollback shared@s
echo more >>mnt/group
only OK carol ask_rollback group@s
check "it is alice's, as before" test "$(stat -c '%u %g %a' mnt/group)" = "61001 61010 660"
check "and as the snapshot" cmp mnt/group mnt/group@s
rm -f mnt/group mnt/shared mnt/open
only EACCES bob ask_rollback group@s
only EACCES bob ask_rollback shared@s
only OK carol ask_rollback group@s
check "made again, it is alice's" test "$(stat -c '%u %g %a' mnt/group)" = "61001 61010 660"
only OK alice ask_rollback shared@s

folder="61002 61002 1777"
fresh
table <<END
bob unlink secret
bob rename bobs open
carol rename carols open
END
only EACCES bob ask_rollback shared@s
only EPERM carol ask_rollback open@s
alice chmod 4777 mnt/open
only OK bob ask_rollback open@s
check "the owner of a sticky folder may, and set-ID bits go" \
	test "$(stat -c '%u %g %a' mnt/open)" = "61001 61001 777"

folder="root root 755"
fresh
table <<END
alice create new
alice unlink secret
alice rename secret new
alice link secret secret@x
alice write secret
bob list .
END
only EACCES alice ask_rollback secret@s
only EACCES alice ask_clone secret new
rm mnt/secret
only EACCES alice ask_rollback secret@s

folder="root root 1711"
fresh
table <<END
bob list .
bob read shared
bob read bobs
END
check_fails "bob: fmfs ls" 1 "Permission denied" bob fmfs ls mnt
folder="root root 700"
fresh
table <<END
alice read secret
alice stat secret
alice write secret
alice create new
END

# --- one's own ---------------------------------------------------------------------------------

folder="root root 1777"
fresh
table <<END
alice read secret
alice write secret
alice map secret
alice truncate secret
alice chmod secret
alice chown secret
alice give_away secret
alice touch secret
alice set_times secret
alice setxattr secret
alice getxattr secret
alice removexattr secret
alice set_trusted secret
alice set_capability secret
alice lock secret
alice lock_rdonly secret
alice rename secret mine
alice rename secret bobs
alice unlink secret
alice unlink secret@s
END
only OK alice link secret secret@x
only OK alice ask_roots secret
only OK alice ask_rollback secret@s
only OK alice ask_clone secret@s mine

# --- the verbs ------------------------------------------------------------------------------------

fresh
unchanged >before
denied="denied|not allowed|not permitted"
mkdir -p elsewhere
check_fails "bob: fmfs umount mnt" 1 "did not unmount|not permitted" bob fmfs umount mnt
for act in "roots mnt/secret" "roots mnt/secret@s" "stat mnt/secret" "stat mnt/secret@s" \
	"check mnt/secret" "check --repair mnt/secret" "check --repair mnt/shared" \
	"snapshot mnt/secret x" "snapshot mnt/shared x" "snapshot mnt/drop x" \
	"clone mnt/secret mnt/c" "clone mnt/secret@s mnt/c" "clone mnt/drop mnt/c" \
	"rollback mnt/secret@s" "rollback mnt/shared@s" "rollback mnt/open@s" \
	"rollback mnt/drop@s" "mount store elsewhere"; do
	# shellcheck disable=SC2086 # words
	check_fails "bob: fmfs $act" 1 "$denied" bob fmfs $act
done
for act in "cp mnt/secret mnt/c" "cp mnt/secret@s mnt/c" "cp mnt/bobs mnt/secret" \
	"pool-tool commit mnt/secret" "pool-tool commit mnt/shared"; do
	# shellcheck disable=SC2086 # words
	check_fails "bob: $act" 1 "$denied" bob $act
done
check "bob: fmfs ls -l says nothing of what is in them" sh -c "
	setpriv --reuid 61002 --regid 61002 --clear-groups fmfs ls -l mnt >list &&
	grep -E '^unknown .* 0 .* secret$' list && grep -E '^live .* 1 .* shared$' list"
unchanged | diff before - >out && ok "nothing has changed" || {
	not_ok "nothing has changed"
	diagnose out
}

# --- around the mount --------------------------------------------------------------------------------

here=$(bob attempt list store/pools)
check "bob: list store/pools: $here" test "$here" = EACCES
for what in stat read write truncate chmod unlink lock lock_shared flock getxattr; do
	for file in secret shared open; do
		here=$(bob attempt $what store/pools/$file)
		check "bob: $what store/pools/$file: $here" test "$here" = EACCES
	done
done
