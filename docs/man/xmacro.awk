# SPDX-License-Identifier: MIT
# The rows X(NAME, number, "text") of the table `macro` as roff: tagged by the number, or, with
# `prefix`, by the name.
$0 ~ "^#define " macro "\\(X\\)" { inside = 1 }
inside && /X\([A-Z_]+,/ {
	row = $0
	sub(/.*X\(/, "", row)
	split(row, part, /, */)
	text = $0
	sub(/^[^"]*"/, "", text)
	sub(/"[^"]*$/, "", text)
	gsub(/\\/, "\\e", text)
	print ".TP"
	print prefix ? ".BR " prefix part[1] " \" (-" part[2] + 0 ")\"" : ".B " part[2] + 0
	print text "."
}
inside && !/\\$/ { inside = 0 }
