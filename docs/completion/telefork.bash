	# bash cuts words at "=": --option = value.
	if [ "$cur" = = ]; then
		cur=''
		_telefork_value "${COMP_WORDS[COMP_CWORD - 1]}"
	elif [ "${COMP_WORDS[COMP_CWORD - 1]}" = = ]; then
		_telefork_value "${COMP_WORDS[COMP_CWORD - 2]}"
	else
		_telefork_value "${COMP_WORDS[COMP_CWORD - 1]}"
	fi
	if [ -z "$value" ] && [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
		[[ ${COMPREPLY[*]} != *= ]] || compopt -o nospace
		return
	fi
	# Which of the command's arguments it is.
	if [ -z "$value" ]; then
		read -ra list <<<"$words"
		for ((i = 2; i < COMP_CWORD; i++)); do
			case ${COMP_WORDS[i]} in
			-* | =) ;;
			*)
				[ "${COMP_WORDS[i - 1]}" != = ] || continue
				_telefork_value "${COMP_WORDS[i - 1]}"
				[ -n "$value" ] || [ ${#list[@]} -lt 2 ] || list=("${list[@]:1}")
				;;
			esac
		done
		value=${list[0]-}
	fi
	case $value in
	FILE | A | B | '[ARGUMENT...]')
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	PROGRAM)
		mapfile -t COMPREPLY < <(compgen -c -- "$cur")
		return
		;;
	PID) value=$(cd /proc && echo [0-9]*) ;;
	ADDRESS) value='tcp:// unix: -' && compopt -o nospace ;;
	URI) value='tcp:// unix: ssh://' && compopt -o nospace ;;
	KIND) value='@KIND@' ;;
	CPU) value='@CPU@' ;;
	[A-Z]*) return ;; # a number
	*) value=${value//|/ } ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$value" -- "$cur")
}
complete -F _telefork telefork
