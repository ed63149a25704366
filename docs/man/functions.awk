# SPDX-License-Identifier: MIT
# The functions of the public header as roff: each prototype, and the comment that stands before it.
function escape(s) {
	gsub(/\\/, "\\e", s)
	gsub(/-/, "\\-", s)
	if (s ~ /^[.']/)
		s = "\\&" s
	return s
}
function emit(   i, n, line, indent, item) {
	print ".SS " name
	print ".nf"
	n = split(prototype, part, "\n")
	for (i = 1; i <= n; i++) {
		sub(/^\t+/, "    ", part[i])
		print ".B \"" escape(part[i]) "\""
	}
	print ".fi"
	print ".PP"
	for (i = 1; i <= n_text; i++) {
		line = text[i]
		indent = match(line, /[^ ]/) - 1
		sub(/^ +/, "", line)
		if (line == "" || (item && !indent))
			print ".PP"
		if (indent == 2)
			print ".IP \\(bu 2"
		item = indent > 0
		if (line != "")
			print escape(line)
	}
}
/^\/\*/ { comment = 1; n_text = 0 }
comment {
	line = $0
	ends = line ~ /\*\//
	sub(/^\/\* ?/, "", line)
	sub(/^ \* ?/, "", line)
	sub(/ *\*\/.*/, "", line)
	if (line != "/" && (line != "" || (n_text && !ends)))
		text[++n_text] = line
	if (ends)
		comment = 0
	next
}
/^(int|unsigned|pid_t|const char \*)[ a-z_]*\(?/ && /telefork|telepad/ { prototype = ""; collecting = 1 }
collecting {
	prototype = prototype (prototype ? "\n" : "") $0
	if (/;$/) {
		collecting = 0
		name = prototype
		match(name, /tele[a-z_]+\(/)
		name = substr(name, RSTART, RLENGTH - 1)
		emit()
	}
	next
}
/^[^ \t\/]/ { n_text = 0 }
