/* SPDX-License-Identifier: MIT */
/*
 * Walks: every single instruction of a walk through system calls, the vDSO, string moves, signed
 * frames, nested signal handlers and locks, and inside a restartable sequence. A walk is made by
 * single steps before the capture comes, so no place depends on luck.
 */
#include "tests/unit/places.h"

#include <check.h>
#include <elf.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "arch/arch.h"

#define TEXT "places, one after the other"

/* tests/probes/ARCH/places.S */
void places_begin(void);
void places_end(void);
long places_calls(int fd);
void places_string(void *to, const void *from, size_t n);
long places_frame(long x);
void places_trap(void);
void places_skip(void *ucontext);
void places_sequence(void *rseq, volatile int *told, volatile long *aborts);
extern const char places_sequence_start[], places_sequence_abort[];

/* --- what is walked through: an exit code says how it ended --- */

static int calls(void)
{
	long sum;

	places_begin();
	sum = places_calls(place.file);
	places_end();
	return sum == 1 + 2 && lseek(place.file, 0, SEEK_CUR) == 2 ? RIGHT : WRONG;
}

static int vdso(void)
{
	struct timespec ts[3] = {0};

	clock_gettime(CLOCK_MONOTONIC, &ts[0]);
	places_begin();
	if (clock_gettime(CLOCK_MONOTONIC, &ts[1]))
		return WRONG;
	places_end();
	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts[2]);
	for (int i = 0; i < 2; i++)
		if (ts[i].tv_sec > ts[i + 1].tv_sec || ts[i].tv_nsec >= 1000000000 ||
			(ts[i].tv_sec == ts[i + 1].tv_sec && ts[i].tv_nsec > ts[i + 1].tv_nsec))
			return WRONG + 1 + i;
	return RIGHT;
}

static int string(void)
{
	static char to[sizeof(TEXT)];

	places_begin();
	places_string(to, TEXT, sizeof(to));
	places_end();
	return strcmp(to, TEXT) ? WRONG : RIGHT;
}

static int frame(void)
{
	long x;

	places_begin();
	x = places_frame(37);
	places_end();
	return x == 42 ? RIGHT : WRONG;
}

static int depth, deepest;

static void on_trap(int signo, siginfo_t *info, void *ucontext)
{
	(void)signo;
	(void)info;
	if (++depth > deepest)
		deepest = depth;
	if (depth == 1)
		places_trap();
	depth--;
	places_skip(ucontext);
}

/* A handler on the alternate stack, interrupted by itself. */
static int handlers(void)
{
	static char stack[65536];
	stack_t now, ss = {.ss_sp = stack, .ss_size = sizeof(stack)};
	struct sigaction sa = {
		.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

	sigaltstack(&ss, NULL);
	sigaction(SIGILL, &sa, NULL);
	places_begin();
	places_trap();
	places_end();
	sigaltstack(NULL, &now);
	return deepest == 2 && !depth && now.ss_sp == stack && !now.ss_flags ? RIGHT : WRONG;
}

static pthread_mutex_t recursive = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;

/* They know their holder by his id, and refuse, or take for a reader, who has another. */
static int locks(void)
{
	int rc;

	places_begin();
	rc = pthread_mutex_lock(&recursive);
	rc |= pthread_rwlock_wrlock(&lock);
	rc |= pthread_rwlock_unlock(&lock);
	rc |= pthread_mutex_unlock(&recursive);
	places_end();
	return !rc && !pthread_mutex_trylock(&recursive) && !pthread_rwlock_trywrlock(&lock)
		       ? RIGHT
		       : WRONG;
}

static volatile long aborts;

static void *rseq_area(void)
{
	return (char *)__builtin_thread_pointer() + __rseq_offset;
}

static int sequence(void)
{
	place_hear();
	places_begin();
	places_sequence(rseq_area(), &place.told, &aborts);
	return place.told && aborts ? RIGHT : WRONG;
}

/* --- step by step --- */

static uint64_t where_is(pid_t pid)
{
	static uint8_t general[512];
	struct iovec iov = {general, sizeof(general)};
	struct tf_regs regs = {.n = 1};

	ck_assert_int_eq(ptrace(PTRACE_GETREGSET, pid, (void *)(uintptr_t)NT_PRSTATUS, &iov), 0);
	regs.set[0] = (struct tf_regset){NT_PRSTATUS, (uint32_t)iov.iov_len, general};
	return tf_arch_native()->pc(&regs);
}

/* One instruction, or into the handler of the signal that it got. */
static void step(void)
{
	int status, signo = 0;

	do {
		ck_assert_int_eq(
			ptrace(PTRACE_SINGLESTEP, place.original, NULL, (void *)(intptr_t)signo),
			0);
		ck_assert_int_eq(waitpid(place.original, &status, __WALL), place.original);
		ck_assert_msg(WIFSTOPPED(status), "status %#x", (unsigned)status);
		signo = WSTOPSIG(status);
	} while (signo != SIGTRAP);
}

static void stop_here(void)
{
	int status;

	ck_assert_int_eq(kill(place.original, SIGSTOP), 0);
	ck_assert_int_eq(ptrace(PTRACE_DETACH, place.original, NULL, NULL), 0);
	ck_assert_int_eq(waitpid(place.original, &status, WUNTRACED), place.original);
	ck_assert_msg(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP, "%#x", (unsigned)status);
}

/* Leaves the original stopped so many instructions behind the beginning. False: that would be
 * behind the end. */
static bool walk(long n)
{
	int status;
	uint64_t pc;

	ck_assert_int_eq(ptrace(PTRACE_SEIZE, place.original, NULL, NULL), 0);
	ck_assert_int_eq(ptrace(PTRACE_INTERRUPT, place.original, NULL, NULL), 0);
	ck_assert_int_eq(waitpid(place.original, &status, __WALL), place.original);
	place.go[0] = 1;
	do {
		step();
		pc = where_is(place.original);
	} while (pc != (uint64_t)(uintptr_t)places_begin);
	while (n--) {
		step();
		if (where_is(place.original) == (uint64_t)(uintptr_t)places_end) {
			ptrace(PTRACE_DETACH, place.original, NULL, NULL);
			return false;
		}
	}
	stop_here();
	return true;
}

static const struct walk {
	const char *name;
	int (*fn)(void);
	bool other_vdso;
	long least, most; /* instructions; a clock that ticks makes the vDSO start anew, again and
			   * again */
} walks[] = {
	{"calls", calls, false, 8, 400},
	{"vdso", vdso, false, 20, 90},
	{"another vdso", vdso, true, 20, 90},
	{"string", string, false, sizeof(TEXT), 400},
	{"frame", frame, false, 10, 400},
	{"handlers", handlers, false, 30, 400},
	{"locks", locks, false, 60, 400},
};

START_TEST(each_instruction)
{
	const struct walk *w = &walks[_i];
	bool more = true;
	long n = 0;

	for (; more && n < w->most; n += place.stride) {
		place_start(w->fn, NULL);
		more = walk(n);
		if (more) {
			place_take(w->other_vdso);
			place_restore();
			kill(place.copy, SIGCONT);
			place_end("copy", place.copy, RIGHT, w->name, n);
		}
		kill(place.original, SIGCONT);
		place_end("original", place.original, RIGHT, w->name, n);
	}
	ck_assert_int_ge(n, w->least);
}
END_TEST

/* Nobody goes on in the middle of a sequence: neither the copy nor the original. */
START_TEST(inside_a_sequence)
{
	uint64_t pc = 0;

	if (!__rseq_size)
		return;
	place_start(sequence, NULL);
	ck_assert(walk(0));
	ck_assert_int_eq(ptrace(PTRACE_SEIZE, place.original, NULL, NULL), 0);
	ck_assert_int_eq(waitpid(place.original, NULL, __WALL), place.original);
	kill(place.original, SIGCONT);
	while (pc != (uint64_t)(uintptr_t)places_sequence_start) {
		step();
		pc = where_is(place.original);
	}
	stop_here();
	place_take(false);
	ck_assert_uint_eq(place.pc, (uint64_t)(uintptr_t)places_sequence_abort);
	place_restore();
	kill(place.copy, SIGCONT);
	kill(place.copy, SIGUSR1);
	place_end("copy", place.copy, RIGHT, "sequence", 0);
	kill(place.original, SIGCONT);
	kill(place.original, SIGUSR1);
	place_end("original", place.original, RIGHT, "sequence", 0);
}
END_TEST

void place_walks(TCase *t)
{
	tcase_add_loop_test(t, each_instruction, 0, sizeof(walks) / sizeof(*walks));
	tcase_add_test(t, inside_a_sequence);
}
