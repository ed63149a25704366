#!/bin/sh
# SPDX-License-Identifier: MIT
# make.sh bash|zsh TELEFORK: completion for that shell on standard output, made of what the program says of
# itself: the table of commands in --help, and each command's options and arguments in its own.
set -eu
shell=$1 telefork=$2
export LC_ALL=C ARGP_HELP_FMT=rmargin=4000

# "command NAME TEXT", "word COMMAND NAME" in order, "option COMMAND -x|- --long META|- TEXT", "value META LIST";
# tabs between.
facts() {
	"$telefork" --help | awk -v OFS='\t' '
		/^Commands:/ { inside = 1; next }
		inside && NF < 2 { exit }
		inside { name = $1; sub(/^ *[a-z]+ +/, ""); print "command", name, $0 }'
	"$telefork" --help | awk '/^Commands:/ { inside = 1; next } inside && NF < 2 { exit } inside { print $1 }' |
		while read -r command; do
			"$telefork" "$command" --help | awk -v OFS='\t' -v command="$command" '
				/^Usage: / {
					for (i = 4; i <= NF; i++)
						if ($i != "[OPTION...]")
							print "word", command, $i
				}
				/^ +(-., )?--[a-z-]+/ {
					short = meta = "-"
					if ($1 ~ /^-.,$/) {
						short = substr($1, 1, 2)
						sub(/-., /, "")
					}
					long = $1
					sub(/\[=.*/, "", long) # it may go without a value
					if (long ~ /=/) {
						meta = substr(long, index(long, "=") + 1)
						long = substr(long, 1, index(long, "=") - 1)
					}
					sub(/^ *[^ ]+ */, "")
					if (long != "--usage")
						print "option", command, short, long, meta, $0
				}'
		done
	"$telefork" check --help | awk -v OFS='\t' '
		/^Kinds of obstacles/ { inside = 1; next }
		inside && NF < 2 { exit }
		inside && $1 !~ /\*$/ { kinds = kinds " " $1 }
		END { print "value", "KIND", "all" kinds }'
	printf 'value\tCPU\t%s\n' "$("$telefork" run --list-baselines 2>/dev/null |
		awk '/^[a-z]/ { printf "%s%s", n++ ? " " : "", $1 }')"
}

facts | awk -F '\t' -f "docs/completion/$shell.awk"
