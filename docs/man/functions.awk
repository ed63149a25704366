# SPDX-License-Identifier: MIT
# The functions of the public header as roff: each prototype, and the comment that stands before it.
function escape(s) {
	gsub(/\\/, "\\e", s)
	gsub(/-/, "\\-", s)
	if (s ~ /^[.']/)
		s = "\\&" s
	return s
}
function emit(   i, n, line) {
	print ".SS " name
	print ".nf"
	n = split(prototype, line, "\n")
	for (i = 1; i <= n; i++) {
		sub(/^\t+/, "    ", line[i])
		print ".B \"" escape(line[i]) "\""
	}
	print ".fi"
	print ".PP"
	for (i = 1; i <= n_text; i++) {
		if (text[i] == "")
			print ".PP"
		else if (text[i] ~ /^  /)
			print ".br\n" escape(substr(text[i], 3))
		else
			print escape(text[i])
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
