#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# ungrouped.sh COMMAND...: runs it while the processes of a session are not scheduled as one group (autogroup,
# sched(7)), if that may be set: Linux 6.18 starves the others for up to 16 s where a session has many busy
# threads, as the copies of tests have, and what waits with a time limit fails.
autogroup=/proc/sys/kernel/sched_autogroup_enabled
was=$(cat $autogroup 2>/dev/null) || was=0
if [ "$was" != 0 ] && { echo 0 >$autogroup; } 2>/dev/null; then
	trap 'echo "$was" >$autogroup' EXIT
fi
trap : INT TERM # it is set back when the command, which gets them too, has ended
"$@"
