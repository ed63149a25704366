# SPDX-License-Identifier: MIT
# As much of markdown as docs/format.md uses, as roff: headings, paragraphs, numbered lists, blocks of
# code, tables (first column the tag), **bold**, *italic*, `code`.
function inline(s) {
	gsub(/\\/, "\\e", s)
	gsub(/-/, "\\-", s)
	while (match(s, /\*\*[^*]+\*\*/))
		s = substr(s, 1, RSTART - 1) "\\fB" substr(s, RSTART + 2, RLENGTH - 4) "\\fR" substr(s, RSTART + RLENGTH)
	while (match(s, /`[^`]+`/))
		s = substr(s, 1, RSTART - 1) "\\fB" substr(s, RSTART + 1, RLENGTH - 2) "\\fR" substr(s, RSTART + RLENGTH)
	while (match(s, /\*[A-Za-z][^*]*\*/))
		s = substr(s, 1, RSTART - 1) "\\fI" substr(s, RSTART + 1, RLENGTH - 2) "\\fR" substr(s, RSTART + RLENGTH)
	if (s ~ /^[.']/)
		s = "\\&" s
	return s
}
BEGIN { fresh = 1 }
function row(line,   n, cell, i) {
	sub(/^\| */, "", line)
	sub(/ *\| *$/, "", line)
	n = split(line, cell, / *\| */)
	fresh = 0
	print ".TP"
	print ".B " inline(cell[1])
	for (i = 2; i <= n; i++)
		print inline(cell[i]) (i < n ? (i == 2 && n > 3 ? ", " : "; ") : "")
}
{ gsub(/…/, "...") }
/^```/ { code = !code; print code ? ".PP\n.RS 2\n.nf" : ".fi\n.RE"; next }
code { gsub(/\\/, "\\e"); gsub(/-/, "\\-"); if ($0 ~ /^[.']/) printf "\\&"; print; next }
/^<!--/ { next }
/^# / { next }
/^## / { print ".SH " toupper(substr($0, 4)); fresh = 1; next }
/^### / { print ".SS \"" inline(substr($0, 5)) "\""; fresh = 1; table = 0; next }
/^\|/ {
	if ($0 ~ /^\| *---/)
		table = 2
	else if (table < 2)
		table = 1
	else
		row($0)
	next
}
/^$/ { blank = 1; table = 0; next }
/^[0-9]+\. / {
	print ".IP " $1 " 4"
	sub(/^[0-9]+\. /, "")
	print inline($0)
	blank = fresh = 0
	next
}
{
	if (blank && !fresh && $0 !~ /^ /)
		print ".PP"
	blank = fresh = 0
	sub(/^ +/, "")
	print inline($0)
}
