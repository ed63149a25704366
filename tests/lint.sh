#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# lint.sh format|size|shell|arch|cppcheck|tidy...: what compilers do not say. Without arguments: all of it,
# every finding is shown, and the exit code tells. tidy is by far the slowest, so it is the last.
# shellcheck disable=SC2317 # the checks are called by name
set -u
folders=(core arch qemu harness tests)
mapfile -t sources < <(find "${folders[@]}" -name '*.[ch]' | sort)
mapfile -t scripts < <(find "${folders[@]}" -name '*.sh' | sort)
jobs=$(nproc)

# Debian's clang-format 14 decides.
check_format() {
	clang-format --dry-run -Werror "${sources[@]}"
}

# A file has 800 lines at most, a function 100.
check_size() {
	awk 'FNR == 1 { begin = 0 }
		FNR == 801 { print FILENAME ": more than 800 lines"; bad = 1 }
		/^{/ { begin = FNR }
		/^}/ && begin {
			if (FNR - begin > 101) { print FILENAME ":" begin ": a function of " FNR - begin - 1 " lines"; bad = 1 }
			begin = 0
		}
		END { exit bad }' "${sources[@]}" "${scripts[@]}"
}

# SC2016: what stands in single quotes is for gdb, awk and sed.
check_shell() {
	shellcheck -e SC2016 .ci/run "${scripts[@]}"
}

# Names that arch/arch.h declares; tf_signal_entry is what core/ defines for the backends.
declared() {
	sed 's:/\*.*\*/::; /^ \*/d' arch/arch.h | grep -o 'tf_[a-z0-9_]*(' | tr -d '(' |
		grep -vx tf_signal_entry | sort -u
}

# defined ARCH: the backend's external names.
defined() {
	find "build/$1/obj/arch/$1" -name '*.o' -not -name regs.o \
		-exec nm --defined-only --extern-only --format=posix '{}' + |
		awk 'NF > 1 { print $1 }' | sort -u
}

# Both backends define what arch.h declares and nothing else; only arch/ asks which one it is.
check_arch() {
	local bad=0 arch
	for arch in x86_64 aarch64; do
		diff <(declared) <(defined "$arch") |
			sed -n "s:^< :arch/$arch does not define :p; s:^> :arch/$arch defines what arch.h does not declare\: :p" |
			grep . && bad=1
	done
	find "${folders[@]}" -name '*.[chS]' -not -path 'arch/*' -print0 |
		xargs -0 grep -nE '^[[:space:]]*#[[:space:]]*(el)?if.*(x86|amd64|i386|aarch64|arm)' &&
		echo "an architecture is named in an #if outside arch/" && bad=1
	return "$bad"
}

# Left out: pointers into different objects (code with a symbol at either end).
check_cppcheck() {
	local arch other=aarch64 bad=0 files
	for arch in x86_64 aarch64; do
		# The other backend is built with other headers.
		mapfile -t files < <(printf '%s\n' "${sources[@]}" | grep '\.c$' |
			grep -vE "^arch/$other/|probes/$other/")
		other=x86_64
		cppcheck --quiet -j "$jobs" --enable=warning,performance,portability --std=c11 \
			--inline-suppr --error-exitcode=1 -I. -D_GNU_SOURCE "-D__${arch}__" \
			-DTF_ARCH_RESTORER_HEADER="\"arch/$arch/restorer.h\"" \
			--suppress=missingInclude --suppress=comparePointers:core/restore/pad_child.c \
			"--suppress=comparePointers:arch/$arch/ptrace.c" \
			"${files[@]}" || bad=1
	done
	return "$bad"
}

# tidy_one FILE: with the flags of the architecture that it is built for.
tidy_one() {
	local arch target=()
	arch=$(uname -m)
	case $1 in
	arch/*/*) arch=${1#arch/} arch=${arch%%/*} ;;
	tests/probes/*/*) arch=${1#tests/probes/} arch=${arch%%/*} ;;
	esac
	[ "$arch" = "$(uname -m)" ] || target=("--target=$arch-linux-gnu" -isystem "/usr/$arch-linux-gnu/include")
	clang-tidy --quiet "$1" -- "${target[@]}" -I. -isystem /usr/include/libxml2 -std=gnu17 -D_GNU_SOURCE -DTF_VERSION='"0"' \
		-DTF_ARCH_RESTORER_HEADER="\"arch/$arch/restorer.h\"" 2>/dev/null
}
export -f tidy_one

check_tidy() {
	printf '%s\n' "${sources[@]}" | grep '\.c$' |
		xargs -P "$jobs" -I '{}' bash -c 'tidy_one {} || { echo "{}: see above"; exit 1; }'
}

bad=0
[ $# -gt 0 ] || set -- format size shell arch cppcheck tidy
for check; do
	if "check_$check"; then
		echo "$check: ok"
	else
		echo "$check: not ok"
		bad=1
	fi
done
exit $bad
