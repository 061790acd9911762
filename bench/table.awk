# SPDX-License-Identifier: Apache-2.0
#
# The table of bench/run, of lines "ROUND ALLOCATOR ROW VALUE".  A column for each
# of the words in `allocators`.
#
# Where glibc has a value, it is shown as it is (the median), and the others as
# ratios: the median of value / glibc's value in the same round.  Where it has
# none, and in rows of what is a ratio already, all are shown as they are.  Rows of
# durable commits are followed by ratios to what the disk could do, and those of loads by
# ratios to that into a live pool.

# label NAME WORDS KIND UNIT: declare a row, in the order of the table.
function label(name, words, kind, unit)
{
	rows[++nrows] = name
	words_of[name] = words
	kind_of[name] = kind
	unit_of[name] = unit
}

function label_commits(k, words,    row)
{
	row = "commits" k
	label(row, words ", commits a second", "plain", "")
	label(row "/words", "of what writing the words would make", "plain", "x")
	label(row "/pages", "of what writing the pages would make", "plain", "x")
}

BEGIN {
	label("A1", "A1 hot alloc+free of 64 B", "compare", " ns")
	label("A2", "A2 churn, 100k slots, 16..1024 B", "compare", " ns")
	label("A2x2", "A2 the same in two threads at once, each", "compare", " ns")
	label("A2scale", "A2 throughput of two threads over that of one", "plain", "x")
	label("A3", "A3 two threads, every free remote, 16..256 B", "compare", " ns")
	label("A4alloc", "A4 allocate and write 10M x 32 B", "compare", " ns")
	label("A4free", "A4 free them in random order", "compare", " ns")
	label("A4bytes", "A4 bytes held per live byte at the peak", "plain", "")
	label("A5", "A5 churn, 256 slots, 4 KiB..1 MiB", "compare", " ns")
	label("A6open", "A6 open a heap of 10M objects, to the first alloc", "plain", " ms")
	label("A6kill", "A6 the same after kill -9", "plain", " ms")
	label("A7", "A7 walk a list of 1M nodes, hot", "compare", " ns")
	label_commits(1, "1 update of 8 bytes a commit")
	label_commits(100, "100 updates")
	label_commits(10000, "10,000 updates")
	label("bulk", "bulk load, an object", "plain", " ns")
	label("bulk/fmalloc-live", "the same, over that of the live pool", "plain", "x")
	ncolumns = split(allocators, column, " ")
}

{
	value[$3, $2, $1] = $4
	if ($1 > nrounds)
		nrounds = $1
	seen[$3] = 1
}

function is_number(s)
{
	return s ~ /^[0-9.]+(e[-+]?[0-9]+)?$/
}

# Three digits.
function digits(x)
{
	return sprintf(x < 10 ? "%.2f" : x < 100 ? "%.1f" : "%.0f", x)
}

# Of v[1] to v[n], which are sorted by this.
function median(v, n,    i, k, x)
{
	for (i = 2; i <= n; i++) {
		x = v[i]
		for (k = i - 1; k > 0 && v[k] > x; k--)
			v[k + 1] = v[k]
		v[k + 1] = x
	}
	return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
}

# What stands in a row for an allocator: a number for each round, or a word for
# those that came to none.
function cell(row, who, ratio,    r, x, n, v, word, nwords)
{
	for (r = 1; r <= nrounds; r++) {
		x = value[row, who, r]
		if (x == "")
			continue
		if (!is_number(x)) {
			word = x
			nwords++
		} else if (!ratio) {
			v[++n] = x + 0
		} else if (is_number(value[row, "glibc", r])) {
			v[++n] = x / value[row, "glibc", r]
		}
	}
	if (nwords > 0)
		return nrounds == 1 ? word : word " in " nwords " of " nrounds
	if (n == 0)
		return "-"
	return digits(median(v, n)) (ratio ? "x" : unit_of[row])
}

# A row ROW/PEER: the ratios of ROW to that peer's in the same round.
function add_ratios(row, peer,    c, r, one, base)
{
	for (c = 1; c <= ncolumns; c++)
		for (r = 1; r <= nrounds; r++) {
			one = value[row, column[c], r]
			base = value[row, peer, r]
			if (!is_number(one) || !is_number(base) || base == 0)
				continue
			value[row "/" peer, column[c], r] = one / base
			seen[row "/" peer] = 1
		}
}

function add_all_ratios(    i, parts)
{
	for (i = 1; i <= nrows; i++)
		if (split(rows[i], parts, "/") == 2)
			add_ratios(parts[1], parts[2])
}

function print_row(row,    c, line, has_glibc, r)
{
	for (r = 1; r <= nrounds; r++)
		if (is_number(value[row, "glibc", r]))
			has_glibc = 1
	line = "| " words_of[row] " |"
	for (c = 1; c <= ncolumns; c++)
		line = line " " cell(row, column[c], kind_of[row] == "compare" &&
				     has_glibc && column[c] != "glibc") " |"
	print line
}

END {
	if (nrounds == 0)
		exit
	add_all_ratios()
	head = "| workload |"
	rule = "|---|"
	for (c = 1; c <= ncolumns; c++) {
		head = head " " column[c] " |"
		rule = rule "---|"
	}
	print head
	print rule
	for (i = 1; i <= nrows; i++)
		if (rows[i] in seen)
			print_row(rows[i])
	print ""
}
