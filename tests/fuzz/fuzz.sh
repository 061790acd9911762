#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# What `make fuzz` and `make fuzz-corpus` do, with the targets in FOLDER:
#   fuzz.sh run FOLDER    let each run for FUZZ_SECONDS (3600), on from what it has in
#                         FOLDER/corpus-TARGET and what is in the source tree
#   fuzz.sh pack FOLDER   let the source tree have the smallest corpora that do as well
# SRCDIR is the top of the source tree.
set -eu
dir=$2

archive()
{
	echo "$SRCDIR/tests/fuzz/corpus-$1.tar.gz"
}

unpack()
{
	mkdir -p "$dir/corpus-$1"
	gzip -dc "$(archive "$1")" | tar -xf - -C "$dir/corpus-$1"
}

run()
{
	unpack "$1"
	# A finding is in the folder that make was called in.
	"$dir/fuzz-$1" -max_len="$2" -timeout=30 -print_final_stats=1 \
		-max_total_time="${FUZZ_SECONDS:-3600}" -artifact_prefix="fuzz-$1-" \
		"$dir/corpus-$1"
}

pack()
{
	unpack "$1"
	rm -rf "$dir/merged-$1"
	mkdir "$dir/merged-$1"
	"$dir/fuzz-$1" -merge=1 -timeout=30 "$dir/merged-$1" "$dir/corpus-$1"
	tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf - \
		-C "$dir/merged-$1" . | gzip -9n >"$(archive "$1")"
}

# Calls are a few bytes each, damage and what follows not much more.
"$1" calls 1500
"$1" pool 500
[ ! -x "$dir/fuzz-stream" ] || "$1" stream 700
