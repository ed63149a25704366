#!/bin/sh
# SPDX-License-Identifier: MIT
# make.sh PAGE: a man page on standard output, with what it shares with the code put in: a line @exits@
# is the table of core/cmd/cmd.h, @errors@, @options@, @result@, @copy@ and @functions@ are
# core/telefork.h, @format@ is docs/format.md.
set -eu
here=docs/man
table() {
	case $1 in
	@exits@) awk -v macro=TF_EXITS -f $here/xmacro.awk core/cmd/cmd.h ;;
	@errors@) awk -v macro=TELEFORK_ERRORS -v prefix=TELEFORK_E_ -f $here/xmacro.awk core/telefork.h ;;
	@options@) awk -v struct=telefork_options -f $here/struct.awk core/telefork.h ;;
	@result@) awk -v struct=telefork_result -f $here/struct.awk core/telefork.h ;;
	@copy@) awk -f $here/copy.awk core/telefork.h ;;
	@functions@) awk -f $here/functions.awk core/telefork.h ;;
	@format@) awk -f $here/markdown.awk docs/format.md ;;
	*) echo "$0: $1 is no table" >&2 && exit 1 ;;
	esac
}
version=$(sed -n 's/^#define TELEFORK_VERSION "\(.*\)"/\1/p' core/telefork.h)
while IFS= read -r line; do
	case $line in
	@*@) table "$line" ;;
	.TH*) printf '%s "telefork %s"\n' "$line" "$version" ;;
	*) printf '%s\n' "$line" ;;
	esac
done <"$1"
