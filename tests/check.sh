#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Runs every case given on standard input, one a line: NAME LIMIT COMMAND...
# JOBS of them at a time (2, or 1 on a single core), but never two that start QEMU machines (by their
# names): those begin first and go one after the other. Prints the outcome of each as it ends, the
# output of those that fail, the ten slowest, once more the end of what failed, and "N passed, N failed"
# as the last line. Logs are in $LOG/NAME.log (build/check), the outcomes in $LOG/results (ok, failed,
# or skipped: a line of it began with "skip:"). Exit code 0: all passed.
set -u
log=${LOG:-build/check}
rm -rf "$log"
mkdir -p "$log"
XDG_STATE_HOME=$(cd "$log" && pwd)/state # journals of moves
export XDG_STATE_HOME
jobs=${JOBS:-2}
[ "$(nproc)" -gt 1 ] || jobs=1
passed=0 failed=0
machines=() others=()
declare -A name_of=() start_of=()
machine_pid=

while read -r name limit command; do
	[ -n "$name" ] || continue
	case $name in
	in-guest-* | guests-* | machines-* | telebed-x86_64 | telebed-aarch64 | faults-x86_64 | faults-aarch64)
		machines+=("$name $limit $command")
		;;
	*) others+=("$name $limit $command") ;;
	esac
done

end_all() {
	trap - INT TERM EXIT
	[ ${#name_of[@]} -eq 0 ] || kill "${!name_of[@]}" 2>/dev/null
	exit 1
}
trap end_all INT TERM EXIT

# start NAME LIMIT COMMAND...; sets started to its pid. timeout leads a process group of its own.
start() {
	local name=$1 limit=$2
	shift 2
	timeout -k 5 "$limit" bash -c "$*" >"$log/$name.log" 2>&1 </dev/null &
	started=$!
	name_of[$started]=$name
	start_of[$started]=$(date +%s%N)
}

# ended PID CODE
ended() {
	local name=${name_of[$1]} ms=$((($(date +%s%N) - start_of[$1]) / 1000000)) verdict=ok word=ok
	unset "name_of[$1]" "start_of[$1]"
	if [ "$2" = 0 ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1)) verdict="not ok (exit code $2)"
	fi
	echo "$ms $name" >>"$log/times"
	! grep -q '^skip:' "$log/$name.log" || word=skipped
	[ "$2" = 0 ] || word=failed
	echo "$name $word" >>"$log/results"
	printf '%-40s %7d ms  %s\n' "$name" "$ms" "$verdict"
	[ "$verdict" = ok ] || sed 's/^/    /' "$log/$name.log" | tail -40
}

while [ ${#machines[@]} -gt 0 ] || [ ${#others[@]} -gt 0 ] || [ ${#name_of[@]} -gt 0 ]; do
	if [ ${#name_of[@]} -lt "$jobs" ] && [ -z "$machine_pid" ] && [ ${#machines[@]} -gt 0 ]; then
		read -r name limit command <<<"${machines[0]}"
		machines=("${machines[@]:1}")
		start "$name" "$limit" "$command"
		machine_pid=$started
	elif [ ${#name_of[@]} -lt "$jobs" ] && [ ${#others[@]} -gt 0 ]; then
		read -r name limit command <<<"${others[0]}"
		others=("${others[@]:1}")
		start "$name" "$limit" "$command"
	else
		wait -n -p pid "${!name_of[@]}"
		code=$?
		[ "$pid" != "$machine_pid" ] || machine_pid=
		ended "$pid" "$code"
	fi
done
trap - INT TERM EXIT
echo "the whole took $SECONDS s; slowest:"
sort -rn "$log/times" | head -10 | sed 's/^\([0-9]*\) /  \1 ms  /'
sed -n 's/ failed$//p' "$log/results" | while read -r name; do
	echo "failed: $name"
	tail -3 "$log/$name.log" | sed 's/^/    /'
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
