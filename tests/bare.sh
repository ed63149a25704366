# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Read by scripts whose programs must have no descriptor of who started the script.

# Closes all but the standard streams, of this shell or subshell.
close_descriptors() {
	local fd
	for fd in /proc/self/fd/*; do
		fd=${fd##*/}
		if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi
	done
}
