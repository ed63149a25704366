/* SPDX-License-Identifier: MIT */
/*
 * A process looked at from outside: twice the same, every difference named, and unharmed; its
 * threads, signals and interrupted system calls; and unharmed, too, when who looks is killed at any
 * of its ptrace calls (this program has its own ptrace(), which the library is linked with). Where
 * there is no ptrace (QEMU user mode) it is refused by name. Runs in a guest as well: one static
 * program.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "arch/arch.h"
#include "core/base/host.h"
#include "core/capture/task.h"
#include "core/image/compare.h"
#include "tests/unit/suite.h"

static volatile uint64_t *page; /* shared with the child: it counts in [0], and obeys [1] */
static pid_t child;
static struct tf_task task;

static void start(void)
{
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	child = fork();
	if (!child) {
		static stack_t ss;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close_range(3, ~0u, 0); /* a file of check's changes, and travels by value */
		ss = (stack_t){.ss_sp = malloc(SIGSTKSZ), .ss_size = (size_t)SIGSTKSZ};
		sigaltstack(&ss, NULL);
		signal(SIGUSR1, SIG_IGN);
		page[0] = 1;
		for (;;)
			while (page[1])
				page[0]++;
	}
	while (!page[0])
		;
}

static void stop(void)
{
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	munmap((void *)page, 4096);
}

/* Looks at the child and opens what was seen. */
static void look(struct tf_file *f)
{
	char path[] = "/tmp/test_task.XXXXXX";
	int fd = mkstemp(path);
	struct tf_err e = {0};

	ck_assert_int_ge(fd, 0);
	ck_assert_msg(!tf_task_stop(&task, child) && !tf_task_describe(&task) &&
			      !tf_task_save(&task, fd) && !tf_task_commit(&task),
		"%s", task.capture.err.text);
	tf_task_release(&task);
	close(fd);
	ck_assert_msg(!tf_file_open(f, path, &e), "%s", e.text);
	unlink(path);
}

/* --- threads, each in another state --- */

enum { AT_FUTEX, AT_SLEEP, AT_SLEEP_REST, AT_READ, AT_SUSPEND, AT_WORK, STATES };

static volatile int
	*shared; /* tids, by state; then what a call returned that never should; the main one */
static int no_data[2];

/* Calls that a signal interrupts and the kernel starts again; they never return here. */
static void *be(void *arg)
{
	static struct timespec day[2] = {{86400, 0}, {86400, 0}}, rest;
	static int word;
	int state = (int)(intptr_t)arg;
	sigset_t none;
	char byte;
	long rc = 0;

	shared[state] = (int)syscall(SYS_gettid);
	sigemptyset(&none);
	sigaddset(&none, SIGRTMIN);
	switch (state) {
	case AT_FUTEX:
		rc = syscall(SYS_futex, &word, 0, 0, NULL, NULL, 0);
		break;
	case AT_SLEEP:
		rc = nanosleep(&day[0], &day[0]);
		break;
	case AT_SLEEP_REST:
		rc = nanosleep(&day[1], &rest);
		break;
	case AT_READ:
		rc = read(no_data[0], &byte, 1);
		break;
	case AT_SUSPEND:
		rc = syscall(SYS_rt_sigsuspend, &none, 8);
		break;
	default:
		for (;;)
			page[0]++;
	}
	shared[STATES] = (int)rc * 100 - errno;
	_exit(3);
}

/* Its own main thread waits in pause(), with signals pending that it holds. */
static void __attribute__((noreturn)) be_threads(void)
{
	sigset_t set;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (int i = 77; i < 79; i++)
		sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = i});
	for (int i = 0; i < STATES; i++) {
		pthread_t t;

		pthread_create(&t, NULL, be, (void *)(intptr_t)i);
	}
	shared[STATES + 1] = getpid();
	for (;;)
		pause();
}

/* Until every thread is where it is going to stay. */
static void wait_blocked(void)
{
	for (int i = 0; i < STATES + 2; i++) {
		char path[64], text[64] = "";

		if (i == AT_WORK || i == STATES)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", (int)child, shared[i]);
		while (text[0] < '0' || text[0] > '9') {
			FILE *f = fopen(path, "r");

			ck_assert_ptr_nonnull(f);
			if (!fgets(text, sizeof(text), f))
				text[0] = '\0';
			fclose(f);
		}
	}
}

static void on_signal(int signo)
{
	(void)signo;
}

/* What keeps code of ours out of a process, so that it is asked call by call. */
static void be_unignoring(void)
{
	static const int signals[] = {SIGURG, SIGWINCH, SIGCHLD};

	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		sigaction(signals[i], &(struct sigaction){.sa_handler = on_signal}, NULL);
}

static void be_without_code(void)
{
	prctl(65 /* PR_SET_MDWE */, 1 /* PR_MDWE_REFUSE_EXEC_GAIN, Linux 6.3 */, 0, 0, 0);
}

static void be_usual(void)
{
}

static void (*const kinds[])(void) = {be_usual, be_unignoring, be_without_code};

#define KINDS (int)(sizeof(kinds) / sizeof(*kinds))

static void start_threads(int kind)
{
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_int_eq(pipe(no_data), 0);
	child = fork();
	if (!child) {
		kinds[kind]();
		be_threads();
	}
	for (int i = 0; i < STATES + 2; i++)
		while (i != STATES && !shared[i])
			usleep(100);
	wait_blocked();
}

static const struct tf_thread *thread_at(const struct tf_image *img, int state)
{
	for (uint32_t i = 0; i < img->n_threads; i++)
		if (img->threads[i].tid == shared[state])
			return &img->threads[i];
	ck_abort_msg("no thread %d", shared[state]);
	return NULL;
}

/* Whether a system call instruction lies so many bytes from the thread's pc. */
static bool at_call(const struct tf_file *f, int state, int64_t offset)
{
	uint64_t pc = tf_arch_native()->pc(&thread_at(&f->image, state)->regs);
	uint8_t code[4];
	ssize_t n = tf_file_read(f, pc + (uint64_t)offset, code, sizeof(code));

	return n == sizeof(code) && tf_arch_find_syscall(code, sizeof(code)) == 0;
}

static void assert_alive(void)
{
	uint64_t before = page[0];

	while (page[0] < before + 1000)
		ck_assert_int_eq(waitpid(child, NULL, WNOHANG), 0);
	ck_assert_msg(!shared[STATES], "a call returned: %d", shared[STATES]);
}

static void assert_threads(const struct tf_file *f)
{
	const struct tf_image *img = &f->image;

	ck_assert_uint_eq(img->n_threads, STATES + 1);
	ck_assert_int_eq(img->threads[0].tid, child);
	ck_assert_uint_eq(img->source.flags, 0);
	ck_assert(at_call(f, AT_FUTEX, 0));
	ck_assert(at_call(f, AT_SLEEP, 0));
	ck_assert(at_call(f, AT_READ, 0));
	ck_assert(at_call(f, AT_SUSPEND, 0));
	/* It goes on with its rest, which is elsewhere. */
	ck_assert(at_call(f, AT_SLEEP_REST, 0));
	ck_assert_uint_eq(img->n_waits, 1);
	ck_assert_int_eq(img->threads[img->waits->thread].tid, shared[AT_SLEEP_REST]);
	ck_assert_uint_gt(img->waits->left, 0);
	ck_assert_uint_lt(img->waits->left, UINT64_C(86400) * 1000000000);
	ck_assert_uint_eq(img->n_pending, 2);
	for (uint32_t i = 0; i < 2; i++) {
		siginfo_t info;

		memcpy(&info, img->pending[i].info, sizeof(info));
		ck_assert_int_eq(img->pending[i].tid, 0);
		ck_assert_int_eq(info.si_signo, SIGRTMIN);
		ck_assert_int_eq(info.si_value.sival_int, 77 + (int)i);
	}
	for (uint32_t i = 0; i < img->n_threads; i++) {
		ck_assert_uint_ne(img->threads[i].tid_addr, 0);
		ck_assert_uint_ne(img->threads[i].robust_head, 0);
		ck_assert_uint_eq(img->threads[i].sigmask, UINT64_C(1) << (SIGRTMIN - 1));
		ck_assert_str_eq(img->threads[i].comm, img->threads[0].comm);
	}
}

START_TEST(every_thread)
{
	struct tf_file f;

	start_threads(_i);
	for (int i = 0; i < 3; i++) {
		look(&f);
		assert_threads(&f);
		tf_file_close(&f);
		assert_alive();
		wait_blocked();
	}
	stop();
}
END_TEST

/* --- killed at any ptrace call --- */

static volatile long calls_left = -1; /* negative: no limit */

long ptrace(enum __ptrace_request request, ...)
{
	va_list ap;
	pid_t pid;
	void *addr, *data;

	va_start(ap, request);
	pid = va_arg(ap, pid_t);
	addr = va_arg(ap, void *);
	data = va_arg(ap, void *);
	va_end(ap);
	if (!calls_left--)
		raise(SIGKILL);
	return syscall(SYS_ptrace, (long)request, (long)pid, addr, data);
}

/* Somebody looks at child, and is killed at ptrace call number at. False: there are not so many. */
static bool killed_at(long at)
{
	pid_t looker = fork();
	int status;

	if (!looker) {
		calls_left = at;
		if (tf_task_stop(&task, child) || tf_task_describe(&task)) {
			fprintf(stderr, "%s\n", task.capture.err.text);
			_exit(1);
		}
		calls_left = -1;
		tf_task_release(&task);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(looker, &status, 0), looker);
	ck_assert_msg(WIFSIGNALED(status) || !WEXITSTATUS(status), "call %ld", at);
	return WIFSIGNALED(status);
}

static long stride = 1; /* an argument: a slow machine does not try every call */

START_TEST(killed_at_every_call)
{
	struct tf_file f;
	long at = 0;

	start_threads(_i);
	for (; killed_at(at); at += _i ? 7 * stride : stride)
		assert_alive();
	ck_assert_int_gt(at, 100);
	wait_blocked();
	look(&f); /* masks, signals and calls are what they were */
	assert_threads(&f);
	tf_file_close(&f);
	stop();
}
END_TEST

START_TEST(refused_by_name)
{
	ck_assert_int_eq(tf_task_stop(&task, getppid()), TELEFORK_E_UNSUPPORTED);
	ck_assert_ptr_nonnull(strstr(task.capture.err.text, "no ptrace"));
}
END_TEST

static unsigned lost;
static char first[64];

static void heard(void *ctx, const struct tf_difference *d)
{
	(void)ctx;
	if (!d->except && !lost++)
		strncpy(first, d->name, sizeof(first) - 1);
}

START_TEST(the_same_twice)
{
	const struct tf_arch *arch = tf_arch_native();
	struct tf_compared sum;
	struct tf_file a, b;
	struct tf_err e = {0};
	unsigned n;

	start();
	look(&a);
	look(&b);
	ck_assert_int_eq(tf_compare(&a, &b, false, heard, NULL, &sum, &e), 0);
	/* pc and what the loop loads may be in either of its instructions. */
	n = tf_regs_count(arch, &a.image.threads->regs, &a.image.cpu);
	ck_assert_uint_eq(
		sum.count[TF_COMPARE_REGISTER].equal + sum.count[TF_COMPARE_REGISTER].different, n);
	ck_assert_uint_ge(sum.count[TF_COMPARE_REGISTER].equal, n - 3);
	ck_assert_uint_eq(sum.count[TF_COMPARE_MAPPING].different, 0);
	ck_assert_uint_eq(sum.count[TF_COMPARE_MAPPING].equal, a.image.n_maps);
	ck_assert_uint_eq(sum.count[TF_COMPARE_MEMORY].different, 0);
	ck_assert_uint_ge(sum.count[TF_COMPARE_MEMORY].equal, 100000);
	ck_assert_uint_eq(sum.count[TF_COMPARE_STATE].different, 0);
	ck_assert_uint_eq(a.image.source.flags, 0);
	ck_assert_uint_eq(a.image.sigactions[SIGUSR1 - 1].handler, 1);
	ck_assert_uint_ne(a.image.threads->altstack.size, 0);
	ck_assert_uint_ne(a.image.threads->tid_addr, 0);
	page[1] = 1; /* it still does what it is told */
	for (uint64_t before = page[0]; page[0] < before + 1000;)
		;
	tf_file_close(&a);
	tf_file_close(&b);
	stop();
}
END_TEST

/* Pages of zeros between others: fewer extents than pages. */
START_TEST(zeros_between)
{
	const size_t n = 2048, size = 4096;
	uint8_t *p =
		mmap(NULL, n * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct tf_compared sum;
	struct tf_file a, b;
	struct tf_err e = {0};

	ck_assert(p != MAP_FAILED);
	for (size_t i = 0; i < n; i++)
		p[i * size] = i & 1;
	start();
	look(&a);
	look(&b);
	ck_assert_int_eq(tf_compare(&a, &b, false, heard, NULL, &sum, &e), 0);
	ck_assert_uint_eq(sum.count[TF_COMPARE_MEMORY].different, 0);
	ck_assert_uint_ge(sum.count[TF_COMPARE_MEMORY].equal, n);
	tf_file_close(&a);
	tf_file_close(&b);
	stop();
	munmap(p, n * size);
}
END_TEST

START_TEST(differences_are_named)
{
	struct tf_compared sum;
	struct tf_file a, b;
	struct tf_err e = {0};

	start();
	look(&a);
	look(&b);
	b.image.threads->sigmask ^= 4;
	ck_assert_int_eq(tf_compare(&a, &b, false, heard, NULL, &sum, &e), 0);
	ck_assert_uint_eq(sum.count[TF_COMPARE_STATE].different, 1);
	b.image.threads->sigmask ^= 4;
	for (uint32_t i = 0; i < b.image.n_maps; i++) {
		lost = 0;
		b.image.maps[i].flags ^= TF_MAP_SHARED;
		ck_assert_int_eq(tf_compare(&a, &b, false, heard, NULL, &sum, &e), 0);
		ck_assert_uint_eq(sum.count[TF_COMPARE_MAPPING].different, 1);
		b.image.maps[i].flags ^= TF_MAP_SHARED;
	}
	tf_file_close(&a);
	tf_file_close(&b);
	stop();
}
END_TEST

int main(int argc, char **argv)
{
	Suite *s = suite_create("task");
	TCase *tc = tcase_create("task");

	if (argc > 1)
		stride = strtol(argv[1], NULL, 10);
	tcase_set_timeout(tc, SUITE_LIMIT_S);
	if (tf_host_emulated()) {
		tcase_add_test(tc, refused_by_name);
	} else {
		tcase_add_test(tc, the_same_twice);
		tcase_add_test(tc, zeros_between);
		tcase_add_test(tc, differences_are_named);
		tcase_add_loop_test(tc, every_thread, 0, KINDS);
		tcase_add_loop_test(tc, killed_at_every_call, 0, KINDS);
	}
	suite_add_tcase(s, tc);
	return suite_run(s);
}
