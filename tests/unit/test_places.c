/* SPDX-License-Identifier: MIT */
/*
 * A process captured from outside at places where it matters: every single instruction of a walk
 * through system calls, the vDSO, string moves, signed frames and nested signal handlers, inside a
 * restartable sequence, and blocked in each of many system calls, running or stopped. The copy has
 * to come to the right end from there, and so has the original. A walk is made by single steps
 * before the capture comes, so no place depends on luck. Runs in a guest as well: one static
 * program: test_places STRIDE looks at every so manieth instruction only, where
 * there is no time for all.
 */
#include <check.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/rseq.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "arch/arch.h"
#include "core/base/host.h"
#include "core/base/io.h"
#include "core/capture/task.h"
#include "core/restore/pad.h"

#define DAY      86400
#define LIMIT_MS 20000
#define TEXT     "places, one after the other"

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

static volatile int *go; /* shared with the original */
static pid_t original, copy;
static struct tf_task task;
static struct tf_pad pad;
static int image_fd = -1;
static uint64_t image_pc;
static bool jumps; /* the receiver may not keep the source's clocks */
static char file_path[] = "/tmp/test_places.XXXXXX";

/* --- the process: an exit code says how it ended --- */

enum {
	RIGHT,
	GAVE_UP,   /* the call returned EINTR, and nobody had sent a signal */
	NO_FILE,   /* EBADF: what it waited for stayed behind */
	NO_CHILD,  /* ECHILD */
	TIMED_OUT, /* and not too early */
	WRONG = 70,
};

static volatile int told;
static volatile long aborts;
static int file;

static void hear(int signo)
{
	(void)signo;
	told = 1;
}

static int calls(void)
{
	long sum;

	places_begin();
	sum = places_calls(file);
	places_end();
	return sum == 1 + 2 && lseek(file, 0, SEEK_CUR) == 2 ? RIGHT : WRONG;
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

static void *rseq_area(void)
{
	return (char *)__builtin_thread_pointer() + __rseq_offset;
}

static int sequence(void)
{
	struct sigaction sa = {.sa_handler = hear};

	sigaction(SIGUSR1, &sa, NULL);
	places_begin();
	places_sequence(rseq_area(), &told, &aborts);
	return told && aborts ? RIGHT : WRONG;
}

/* --- system calls that take their time --- */

static int word, second, ends[2], epoll, listener, locked;
static struct timespec day = {DAY, 0}, rest, moment = {0, 200000000};

static long result(long rc)
{
	return rc < 0 ? -errno : rc;
}

static long futex(int op, const struct timespec *limit)
{
	return result(syscall(SYS_futex, &word, op, 0, limit, &second, FUTEX_BITSET_MATCH_ANY));
}

static struct timespec *from_now(clockid_t clock, const struct timespec *more)
{
	static struct timespec ts;

	clock_gettime(clock, &ts);
	ts.tv_nsec += more->tv_nsec;
	ts.tv_sec += more->tv_sec + ts.tv_nsec / 1000000000;
	ts.tv_nsec %= 1000000000;
	return &ts;
}

static long futex_wait(void)
{
	return futex(FUTEX_WAIT, NULL);
}

static long futex_relative(void)
{
	return futex(FUTEX_WAIT, &day);
}

static long futex_absolute(void)
{
	return futex(FUTEX_WAIT_BITSET, from_now(CLOCK_MONOTONIC, &day));
}

static long futex_moment(void)
{
	return futex(FUTEX_WAIT_BITSET, from_now(CLOCK_MONOTONIC, &moment));
}

static void *requeue(void *unused)
{
	while (syscall(SYS_futex, &word, FUTEX_CMP_REQUEUE, 0, 1L, &second, 0) != 1)
		sched_yield();
	*(volatile int *)&second = 1;
	return unused;
}

static pthread_t start_thread(void *(*fn)(void *))
{
	pthread_t t;
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_create(&t, NULL, fn, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return t;
}

/* Moved to another word while it waits. */
static long futex_requeued(void)
{
	start_thread(requeue);
	return futex(FUTEX_WAIT, NULL);
}

/* Until the other one has heard, and does not get out of the kernel for that. */
static void *hold(void *unused)
{
	word = (int)syscall(SYS_gettid);
	while (!told)
		sched_yield();
	syscall(SYS_futex, &word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0);
	return unused;
}

/* Another thread has it, and gives it to this one. */
static long futex_pi(void)
{
	long rc;

	start_thread(hold);
	while (!*(volatile int *)&word)
		;
	rc = futex(FUTEX_LOCK_PI, NULL);
	return !rc && told && (word & FUTEX_TID_MASK) == syscall(SYS_gettid) ? -EINTR : rc;
}

static void *hold_mutex(void *unused)
{
	pthread_mutex_lock(&recursive);
	word = 1;
	while (!told)
		sched_yield();
	pthread_mutex_unlock(&recursive);
	return unused;
}

static long mutex_recursive(void)
{
	int rc;

	start_thread(hold_mutex);
	while (!*(volatile int *)&word)
		;
	rc = pthread_mutex_lock(&recursive);
	rc |= pthread_mutex_unlock(&recursive);
	rc |= pthread_mutex_trylock(&recursive);
	return !rc && told ? -EINTR : rc;
}

static long sleep_here(void)
{
	return result(syscall(SYS_nanosleep, &day, &day));
}

static long sleep_moment(void)
{
	return result(syscall(SYS_nanosleep, &moment, &moment));
}

static long sleep_rest(void)
{
	return result(syscall(SYS_nanosleep, &day, &rest));
}

/* Interrupted before: the kernel's own call goes on with it, and this code does not tell which one
 * it was. */
static long sleep_continued(void)
{
	return sleep_here();
}

static long clock_sleep(void)
{
	return result(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &day, &day));
}

static long clock_until(void)
{
	return result(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME,
		from_now(CLOCK_MONOTONIC, &day), NULL));
}

static long poll_none(void)
{
	return result(poll(NULL, 0, DAY * 1000));
}

static long poll_moment(void)
{
	return result(poll(NULL, 0, 200));
}

static long ppoll_none(void)
{
	return result(ppoll(NULL, 0, NULL, NULL));
}

static long select_none(void)
{
	return result(select(0, NULL, NULL, NULL, NULL));
}

static long read_pipe(void)
{
	char c;

	return result(read(ends[0], &c, 1));
}

static long accept_one(void)
{
	return result(accept(listener, NULL, NULL));
}

static long wait_child(void)
{
	return result(syscall(SYS_wait4, -1, NULL, 0, NULL));
}

static long wait_id(void)
{
	return result(syscall(SYS_waitid, P_ALL, 0, NULL, WEXITED, NULL));
}

static long lock_file(void)
{
	return result(flock(file, LOCK_EX));
}

static long suspend(void)
{
	sigset_t none;

	sigemptyset(&none);
	return result(sigsuspend(&none));
}

static long pause_here(void)
{
	return result(pause());
}

static long wait_signal(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	return result(sigtimedwait(&set, NULL, &day));
}

static long wait_epoll(void)
{
	struct epoll_event event;

	return result(epoll_wait(epoll, &event, 1, -1));
}

/* In the copy; RIGHT: waits there again until it is told. In the original it never ends, but where
 * signal(7) says that a stop ends it. */
static const struct blocked {
	const char *name;
	long (*call)(void);
	int copy, original;
	bool continued; /* by a stop, before */
} blocked[] = {
	{"futex", futex_wait, RIGHT, RIGHT, false},
	{"futex, relative", futex_relative, RIGHT, RIGHT, false},
	{"futex, absolute", futex_absolute, RIGHT, RIGHT, false},
	{"futex, a moment", futex_moment, TIMED_OUT, TIMED_OUT, false},
	{"futex, requeued", futex_requeued, RIGHT, RIGHT, false},
	{"futex, priority inheritance", futex_pi, RIGHT, RIGHT, false},
	{"mutex, recursive", mutex_recursive, RIGHT, RIGHT, false},
	{"nanosleep", sleep_here, RIGHT, RIGHT, false},
	{"nanosleep, a moment", sleep_moment, TIMED_OUT, TIMED_OUT, false},
	{"nanosleep, rest elsewhere", sleep_rest, RIGHT, RIGHT, false},
	{"nanosleep, continued", sleep_continued, GAVE_UP, RIGHT, true},
	{"clock_nanosleep", clock_sleep, RIGHT, RIGHT, false},
	{"clock_nanosleep, absolute", clock_until, RIGHT, RIGHT, false},
	{"poll", poll_none, RIGHT, RIGHT, false},
	{"poll, a moment", poll_moment, TIMED_OUT, TIMED_OUT, false},
	{"ppoll", ppoll_none, RIGHT, RIGHT, false},
	{"select", select_none, RIGHT, RIGHT, false},
	{"read", read_pipe, NO_FILE, RIGHT, false},
	{"accept", accept_one, NO_FILE, RIGHT, false},
	{"wait4", wait_child, NO_CHILD, RIGHT, false},
	{"waitid", wait_id, NO_CHILD, RIGHT, false},
	{"flock", lock_file, RIGHT, RIGHT, false},
	{"sigsuspend", suspend, RIGHT, RIGHT, false},
	{"pause", pause_here, RIGHT, RIGHT, false},
	{"sigtimedwait", wait_signal, GAVE_UP, GAVE_UP, false},
	{"epoll_wait", wait_epoll, GAVE_UP, GAVE_UP, false},
};

static int place; /* of blocked[], or timed[] */

static int verdict(long rc, int64_t ns)
{
	if (told)
		return rc == -EINTR ? RIGHT : WRONG + 3;
	switch (rc) {
	case -EINTR:
		return GAVE_UP;
	case -EBADF:
		return NO_FILE;
	case -ECHILD:
		return NO_CHILD;
	case 0:
	case -ETIMEDOUT:
		return ns >= 200000000 ? TIMED_OUT : WRONG + 1;
	default:
		return WRONG + 2;
	}
}

static int block(void)
{
	struct sigaction sa = {.sa_handler = hear};
	struct timespec from, to;
	long rc;

	sigaction(SIGUSR1, &sa, NULL);
	clock_gettime(CLOCK_MONOTONIC, &from);
	rc = blocked[place].call();
	clock_gettime(CLOCK_MONOTONIC, &to);
	return verdict(
		rc, (to.tv_sec - from.tv_sec) * INT64_C(1000000000) + to.tv_nsec - from.tv_nsec);
}

/* What the calls wait for: none of it ever happens. */
static void set_up_block(void)
{
	struct sockaddr name = {.sa_family = AF_UNIX};

	ck_assert_int_eq(pipe(ends), 0);
	epoll = epoll_create1(0);
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	bind(listener, &name, sizeof(name.sa_family));
	listen(listener, 1);
	locked = open(file_path, O_RDWR);
	flock(locked, LOCK_EX);
	if (blocked[place].copy == NO_CHILD && !fork()) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
}

/* --- the original, its image and the copy --- */

static void start(int (*fn)(void))
{
	original = fork();
	if (!original) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close_range(3, ~0u, 0);
		file = open(file_path, O_RDWR);
		if (fn == block)
			set_up_block();
		go[1] = 1;
		while (!*go)
			;
		_exit(fn());
	}
	while (!go[1])
		sched_yield();
}

/* other_vdso: the image says that its vDSO is another than the one here. */
static void describe(bool other_vdso)
{
	ck_assert_msg(!tf_task_stop(&task, original) && !tf_task_describe(&task), "%s",
		task.capture.err.text);
	ck_assert_uint_eq(task.capture.image.source.flags & TF_SOURCE_OUTSIDE, 0);
	image_pc = tf_arch_native()->pc(&task.capture.image.threads->regs);
	task.capture.image.vdso.digest ^= other_vdso;
}

static void save(void)
{
	char path[] = "/tmp/test_places.image.XXXXXX";

	image_fd = mkstemp(path);
	ck_assert_int_ge(image_fd, 0);
	unlink(path);
	ck_assert_msg(!tf_task_save(&task, image_fd) && !tf_task_commit(&task), "%s",
		task.capture.err.text);
	tf_task_release(&task);
}

static void take(bool other_vdso)
{
	describe(other_vdso);
	save();
}

static void restore(void)
{
	static const struct telefork_options o = {
		.stdio = TELEFORK_STDIO_NULL, .restore = TELEFORK_RESTORE_HOLD_FILES};

	ck_assert_msg(!tf_pad_prepare(&pad, image_fd, &o, NULL, NULL), "%s", pad.err.text);
	if (jumps)
		pad.facts.flags &= ~TF_FACT_TIME_NS;
	ck_assert_msg(!tf_pad_start(&pad), "%s", pad.err.text);
	copy = pad.child;
	tf_pad_done(&pad);
	close(image_fd);
}

static void end(const char *who, pid_t pid, int want, const char *where, long at)
{
	const struct timespec ms = {.tv_nsec = 1000000};
	int status = 0, left = LIMIT_MS;

	while (!waitpid(pid, &status, WNOHANG) && left--)
		nanosleep(&ms, NULL);
	ck_assert_msg(left >= 0 && WIFEXITED(status) && WEXITSTATUS(status) == want,
		"%s, %s %ld (pc %llx): %s, status %#x, not exit code %d", who, where, at,
		(unsigned long long)image_pc, left < 0 ? "still there" : "ended", (unsigned)status,
		want);
}

/* --- walks --- */

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
			ptrace(PTRACE_SINGLESTEP, original, NULL, (void *)(intptr_t)signo), 0);
		ck_assert_int_eq(waitpid(original, &status, __WALL), original);
		ck_assert_msg(WIFSTOPPED(status), "status %#x", (unsigned)status);
		signo = WSTOPSIG(status);
	} while (signo != SIGTRAP);
}

static void stop_here(void)
{
	int status;

	ck_assert_int_eq(kill(original, SIGSTOP), 0);
	ck_assert_int_eq(ptrace(PTRACE_DETACH, original, NULL, NULL), 0);
	ck_assert_int_eq(waitpid(original, &status, WUNTRACED), original);
	ck_assert_msg(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP, "%#x", (unsigned)status);
}

/* Leaves the original stopped so many instructions behind the beginning. False: that would be
 * behind the end. */
static bool walk(long n)
{
	int status;
	uint64_t pc;

	ck_assert_int_eq(ptrace(PTRACE_SEIZE, original, NULL, NULL), 0);
	ck_assert_int_eq(ptrace(PTRACE_INTERRUPT, original, NULL, NULL), 0);
	ck_assert_int_eq(waitpid(original, &status, __WALL), original);
	*go = 1;
	do {
		step();
		pc = where_is(original);
	} while (pc != (uint64_t)(uintptr_t)places_begin);
	while (n--) {
		step();
		if (where_is(original) == (uint64_t)(uintptr_t)places_end) {
			ptrace(PTRACE_DETACH, original, NULL, NULL);
			return false;
		}
	}
	stop_here();
	return true;
}

static long stride = 1;

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

	for (; more && n < w->most; n += stride) {
		go[0] = go[1] = 0;
		start(w->fn);
		more = walk(n);
		if (more) {
			take(w->other_vdso);
			restore();
			kill(copy, SIGCONT);
			end("copy", copy, RIGHT, w->name, n);
		}
		kill(original, SIGCONT);
		end("original", original, RIGHT, w->name, n);
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
	start(sequence);
	ck_assert(walk(0));
	ck_assert_int_eq(ptrace(PTRACE_SEIZE, original, NULL, NULL), 0);
	ck_assert_int_eq(waitpid(original, NULL, __WALL), original);
	kill(original, SIGCONT);
	while (pc != (uint64_t)(uintptr_t)places_sequence_start) {
		step();
		pc = where_is(original);
	}
	stop_here();
	take(false);
	ck_assert_uint_eq(image_pc, (uint64_t)(uintptr_t)places_sequence_abort);
	restore();
	kill(copy, SIGCONT);
	kill(copy, SIGUSR1);
	end("copy", copy, RIGHT, "sequence", 0);
	kill(original, SIGCONT);
	kill(original, SIGUSR1);
	end("original", original, RIGHT, "sequence", 0);
}
END_TEST

/* --- blocked --- */

/* Until it waits in a system call: that of number *nr, or if that is not known yet, any. */
static void wait_blocked(const char *who, pid_t pid, long *nr)
{
	char path[64], text[64];
	long now = -1;

	snprintf(path, sizeof(path), "/proc/%d/syscall", (int)pid);
	while (now < 0 || (now != *nr && *nr >= 0 && now != SYS_restart_syscall)) {
		FILE *f = fopen(path, "r");
		int status = 0;

		ck_assert_ptr_nonnull(f);
		if (!fgets(text, sizeof(text), f))
			text[0] = '\0';
		fclose(f);
		now = text[0] >= '0' && text[0] <= '9' ? strtol(text, NULL, 10) : -1;
		ck_assert_msg(!waitpid(pid, &status, WNOHANG), "%s, %d: ended, status %#x", who,
			place, (unsigned)status);
	}
	if (*nr < 0)
		*nr = now;
}

static void set_stopped(pid_t pid, bool stopped)
{
	int status;

	kill(pid, stopped ? SIGSTOP : SIGCONT);
	if (stopped)
		ck_assert_int_eq(waitpid(pid, &status, WUNTRACED), pid);
}

static void end_blocked(const char *who, pid_t pid, int want, long nr)
{
	if (want == RIGHT) {
		wait_blocked(who, pid, &nr);
		kill(pid, SIGUSR1);
	}
	end(who, pid, want, blocked[place].name, nr);
}

/* The kernel does not tell of some that are stopped that they are inside a call (aarch64, after it
 * has set the registers to make it again). That is then one that is yet to be made. */
static bool is_forgotten(void)
{
	char path[64], text[64] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/syscall", (int)original);
	f = fopen(path, "r");
	ck_assert_ptr_nonnull(f);
	if (!fgets(text, sizeof(text), f))
		text[0] = '\0';
	fclose(f);
	return !strncmp(text, "-1 ", 3);
}

/* Twice: running, and stopped. */
START_TEST(in_a_call)
{
	const struct blocked *b = &blocked[_i / 2];
	bool stopped = _i % 2;
	int copys = b->copy;
	long nr = -1;

	place = _i / 2;
	start(block);
	*go = 1;
	wait_blocked("original", original, &nr);
	if (b->continued) {
		set_stopped(original, true);
		set_stopped(original, false);
		wait_blocked("original", original, &nr);
	}
	if (stopped)
		set_stopped(original, true);
	if (stopped && b->call == sleep_rest && is_forgotten())
		copys = RIGHT; /* the whole time anew, too long and never too short */
	if (stopped && b->call == futex_relative && is_forgotten())
		copys = GAVE_UP;
	take(false);
	restore();
	if (stopped) {
		set_stopped(copy, false);
		set_stopped(original, false);
	}
	end_blocked("copy", copy, copys, nr);
	end_blocked("original", original, b->original, nr);
}
END_TEST

/* --- waits with a time limit --- */

#define SECOND     INT64_C(1000000000)
#define WAITED_NS  (SECOND / 10)
#define SHORT_LEFT (3 * SECOND / 10)

static long sleep_nowhere(void)
{
	return result(syscall(SYS_nanosleep, &day, NULL));
}

static long clock_nowhere(void)
{
	return result(syscall(SYS_clock_nanosleep, CLOCK_REALTIME, 0, &day, NULL));
}

static long clock_elsewhere(void)
{
	return result(syscall(SYS_clock_nanosleep, CLOCK_BOOTTIME, 0, &day, &rest));
}

static long ppoll_day(void)
{
	return result(syscall(SYS_ppoll, NULL, 0, &day, NULL, 8));
}

static long pselect_day(void)
{
	return result(syscall(SYS_pselect6, 0, NULL, NULL, NULL, &day, NULL));
}

static const struct timed {
	const char *name;
	long (*call)(void);
	bool absolute; /* matters where the clocks are others */
	bool kept;     /* the kernel has put the rest in the request */
} timed[] = {
	{"nanosleep", sleep_nowhere, false, false},
	{"nanosleep, rest elsewhere", sleep_rest, false, false},
	{"nanosleep, rest in the request", sleep_here, false, true},
	{"clock_nanosleep", clock_nowhere, false, false},
	{"clock_nanosleep, rest elsewhere", clock_elsewhere, false, false},
	{"clock_nanosleep, absolute", clock_until, true, false},
#ifdef SYS_poll
	{"poll", poll_none, false, false},
#endif
	{"ppoll", ppoll_day, false, true},
	{"pselect", pselect_day, false, true},
	{"futex", futex_relative, false, false},
	{"futex, absolute", futex_absolute, true, false},
};

static int64_t now_ns(void)
{
	return (int64_t)tf_clock_ns(CLOCK_MONOTONIC);
}

static int wait_timed(void)
{
	struct sigaction sa = {.sa_handler = hear};

	sigaction(SIGUSR1, &sa, NULL);
	return verdict(timed[place].call(), SHORT_LEFT);
}

/* Nobody can say when it fell asleep, and time that the host took does not count: too little is
 * wrong, too much is not. */
static void check_left(int64_t left, int64_t before, int64_t asleep)
{
	int64_t stopped = (int64_t)task.stopped_ns, slept = DAY * SECOND - left;

	/* The kernel writes a rest when it has heard of the stop. */
	ck_assert_msg(slept <= now_ns() - before, "%s: %lld ns too short", timed[place].name,
		(long long)(slept - (stopped - before)));
	ck_assert_msg(slept >= (stopped - asleep) / 8, "%s: slept %lld of %lld", timed[place].name,
		(long long)slept, (long long)(stopped - asleep));
}

/* What is left is found, and the copy waits as long as the image says and no longer: that is made
 * short here, where the call itself still says a day. */
START_TEST(time_left)
{
	const struct timed *w = &timed[_i];
	struct tf_image *img = &task.capture.image;
	struct timespec wait = {.tv_nsec = WAITED_NS};
	int64_t before, asleep;
	long nr = -1;

	place = _i;
	start(wait_timed);
	before = now_ns();
	*go = 1;
	wait_blocked("original", original, &nr);
	asleep = now_ns();
	nanosleep(&wait, NULL);
	describe(false);
	ck_assert_uint_eq(img->n_waits, !w->kept);
	if (w->kept) {
		ck_assert_int_eq(
			pread(task.mem, &day, sizeof(day), (off_t)(uintptr_t)&day), sizeof(day));
		check_left(day.tv_sec * SECOND + day.tv_nsec, before, asleep);
		return;
	}
	ck_assert_uint_eq(img->waits->thread, 0);
	check_left((int64_t)img->waits->left, before, asleep);
	img->waits->left = SHORT_LEFT;
	if (w->absolute)
		img->process.boot = "another machine";
	save();
	jumps = w->absolute;
	restore();
	end("copy", copy, TIMED_OUT, w->name, nr);
	kill(original, SIGUSR1);
	end("original", original, RIGHT, w->name, nr);
}
END_TEST

static void set_up(void)
{
	int fd;

	go = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	fd = mkstemp(file_path);
	ck_assert_int_ge(fd, 0);
	close(fd);
}

static void tear_down(void)
{
	unlink(file_path);
}

START_TEST(refused_by_name)
{
	ck_assert_int_eq(tf_task_stop(&task, getppid()), TELEFORK_E_UNSUPPORTED);
}
END_TEST

int main(int argc, char **argv)
{
	Suite *s = suite_create("places");
	TCase *tc = tcase_create("places");
	SRunner *r;
	int failed;

	if (argc > 1)
		stride = strtol(argv[1], NULL, 10);
	tcase_set_timeout(tc, 300);
	tcase_add_checked_fixture(tc, set_up, tear_down);
	if (tf_host_emulated()) {
		tcase_add_test(tc, refused_by_name);
	} else {
		tcase_add_loop_test(tc, each_instruction, 0, sizeof(walks) / sizeof(*walks));
		tcase_add_test(tc, inside_a_sequence);
		tcase_add_loop_test(tc, time_left, 0, sizeof(timed) / sizeof(*timed));
		tcase_add_loop_test(tc, in_a_call, 0, 2 * sizeof(blocked) / sizeof(*blocked));
	}
	suite_add_tcase(s, tc);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
