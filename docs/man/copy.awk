# SPDX-License-Identifier: MIT
# What the public header's own comment says of a copy, as roff: from "What a copy has" to its end.
/^ \* What a copy has/ { inside = 1 }
inside && /\*\// { exit }
inside {
	sub(/^ \* ?/, "")
	sub(/^What a copy has, and what fork\(2\) does not tell: as/, "As")
	sub(/ See telefork\(3\)\./, "")
	gsub(/\\/, "\\e")
	gsub(/-/, "\\-")
	print $0 == "" ? ".PP" : $0
}
