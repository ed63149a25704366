# SPDX-License-Identifier: MIT
# The members of a struct of the public header as roff, each with its comment.
function flush() {
	if (!member)
		return
	gsub(/[ \t]+/, " ", text)
	gsub(/\\/, "\\e", text)
	gsub(/-/, "\\-", text)
	sub(/^ /, "", text)
	sub(/ $/, "", text)
	print ".TP"
	print ".B " member
	print text ? text "." : "see above."
	member = text = ""
}
$0 ~ "^struct " struct " \\{" { inside = 1; next }
inside && /^};/ { flush(); inside = 0 }
inside {
	line = $0
	if (match(line, /^\t[a-z][^;]*;/)) {
		flush()
		member = substr(line, 2, RLENGTH - 2)
		line = substr(line, RLENGTH + 1)
	}
	gsub(/\/\*|\*\//, "", line)
	text = text " " line
}
