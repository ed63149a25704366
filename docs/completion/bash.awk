# SPDX-License-Identifier: MIT
# The facts of make.sh as a completion for bash, which needs nothing but bash.
$1 == "command" { commands[++n] = $2 }
$1 == "word" { words[$2] = words[$2] (words[$2] ? " " : "") $3 }
$1 == "option" { options[$2] = options[$2] (options[$2] ? " " : "") $4 ($5 == "-" ? "" : "=") }
$1 == "option" && $5 != "-" {
	takes[++m] = "'" $2 " " $4 "'" ($3 == "-" ? "" : " | '" $2 " " $3 "'") ") value='" $5 "' ;;"
}
$1 == "value" { value[$2] = $3 }
END {
	print "# bash completion for telefork(1): made by docs/completion/make.sh"
	print "_telefork()\n{"
	print "\tlocal cur=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]-} options='' words='' value='' i"
	print "\tlocal -a list"
	print "\tCOMPREPLY=()"
	print "\tif [ \"$COMP_CWORD\" = 1 ]; then"
	printf "\t\tmapfile -t COMPREPLY < <(compgen -W '"
	for (i = 1; i <= n; i++)
		printf "%s ", commands[i]
	print "--help --version' -- \"$cur\")"
	print "\t\treturn\n\tfi"
	print "\tcase $command in"
	for (i = 1; i <= n; i++)
		print "\t" commands[i] ") options='" options[commands[i]] "' words='" words[commands[i]] "' ;;"
	print "\tesac"
	print "\t# What value the option $1 wants."
	print "\t_telefork_value()\n\t{"
	print "\t\tcase \"$command $1\" in"
	for (i = 1; i <= m; i++)
		print "\t\t" takes[i]
	print "\t\t*) value='' ;;"
	print "\t\tesac\n\t}"
	while ((getline line < "docs/completion/telefork.bash") > 0) {
		if (match(line, /@[A-Z]+@/))
			line = substr(line, 1, RSTART - 1) value[substr(line, RSTART + 1, RLENGTH - 2)] \
				substr(line, RSTART + RLENGTH)
		print line
	}
}
