# SPDX-License-Identifier: MIT
# The facts of make.sh as a completion for zsh.
function quoted(text) {
	gsub(/\\/, "&&", text)
	gsub(/\[/, "\\\\[", text)
	gsub(/\]/, "\\\\]", text)
	gsub(/:/, "\\\\:", text)
	gsub(/'/, "'\\''", text)
	return text
}
# A metavar as zsh's "message:action".
function action(meta) {
	if (meta in value)
		return ":" meta ":(" value[meta] ")"
	if (meta ~ /^[a-z|]+$/) {
		gsub(/\|/, " ", meta)
		return ":value:(" meta ")"
	}
	if (meta in actions)
		return ":" meta ":" actions[meta]
	return ":" meta ": "
}
BEGIN {
	actions["FILE"] = actions["A"] = actions["B"] = "_files"
	actions["PID"] = "_pids"
	actions["PROGRAM"] = "_command_names -e"
	actions["ADDRESS"] = "(tcp\\:// unix\\: -)"
	actions["URI"] = "(tcp\\:// unix\\: ssh\\://)"
}
$1 == "command" { commands[++n] = $2; text[$2] = $3 }
$1 == "word" { words[$2, ++n_words[$2]] = $3 }
$1 == "option" { options[$2, ++n_options[$2]] = $3 "\t" $4 "\t" $5 "\t" $6 }
$1 == "value" { value[$2] = $3 }
END {
	print "#compdef telefork"
	print "# zsh completion for telefork(1): made by docs/completion/make.sh"
	print "local -a commands=("
	for (i = 1; i <= n; i++)
		print "\t'" commands[i] ":" quoted(text[commands[i]]) "'"
	print ")"
	print "if (( CURRENT == 2 )); then"
	print "\t_describe command commands"
	print "\treturn"
	print "fi"
	print "local command=$words[2]"
	print "shift words"
	print "(( CURRENT-- ))"
	print "case $command in"
	for (i = 1; i <= n; i++) {
		c = commands[i]
		print c ")"
		print "\t_arguments \\"
		for (k = 1; k <= n_options[c]; k++) {
			split(options[c, k], o, "\t")
			long = o[2] (o[3] == "-" ? "" : "=")
			short = o[1] == "-" || o[1] == "-?" ? "" : "'(" o[1] " " o[2] ")'" o[1] (o[3] == "-" ? "" : "+")
			tail = "'[" quoted(o[4]) "]" (o[3] == "-" ? "" : action(o[3])) "'"
			if (short)
				print "\t\t" short tail " \\"
			print "\t\t" (short ? "'(" o[1] " " o[2] ")'" : "") long tail " \\"
		}
		for (k = 1; k <= n_words[c]; k++)
			if (words[c, k] ~ /^\[/)
				print "\t\t'*::" substr(words[c, k], 2, length(words[c, k]) - 5) ":_normal' \\"
			else
				print "\t\t'" k action(words[c, k]) "' \\"
		print "\t\t&& return"
		print "\t;;"
	}
	print "esac"
}
