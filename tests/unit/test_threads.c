/* SPDX-License-Identifier: MIT */
/*
 * Processes that know nothing of telefork, taken from outside and restored: any number of threads,
 * pending signals, files, ids, and nothing of the restorer left. Plans for many threads are played
 * on paper, which is all that can be done where there is no ptrace (QEMU user mode). Runs in a
 * guest as well: one static program.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/wait.h>

int crew_main(int argc, char **argv);
#define main crew_main
#include "tests/probes/crew.c"
#undef main

#define PLAN_BROKEN(...) ck_abort_msg(__VA_ARGS__)
#include "tests/unit/plan_model.h"
#include "tests/unit/plan_sample.h"
#include "tests/unit/suite.h"

#include "core/base/host.h"
#include "core/capture/task.h"
#include "core/restore/pad.h"

static struct tf_task task;
static struct tf_pad pad;
static int image_fd = -1;
static pid_t original;
static int hear; /* what the original prints */

/* --- on paper --- */

static void plays_with(uint32_t n, const char *facts_text)
{
	struct tf_arena arena;
	struct tf_image image;
	struct tf_facts facts;
	struct tf_restore plan = {0};
	struct tf_err e = {0};
	struct model model;
	uint8_t *head;

	ck_assert_int_eq(tf_arena_init(&arena, (size_t)256 << 20), 0);
	ck_assert_int_eq(sample_program(&image, &arena), 0);
	image.n_threads = n;
	image.threads = tf_arena_array(&arena, n, sizeof(*image.threads));
	for (uint32_t i = 0; i < n; i++)
		sample_thread(&image, &arena, i, 0x410400 + 16 * i, 0x7f00001ff800);
	image.pending[1].tid = image.threads[n - 1].tid;
	ck_assert_int_eq(sample_facts(&facts, &arena, facts_text, &e), 0);
	ck_assert_int_eq(tf_image_encode(&image, &arena, &head), 0);
	ck_assert_int_eq(tf_restore_choose_fds(&plan, &image, &facts, false, false, &e), 0);
	ck_assert_msg(!tf_restore_build(&plan, &image, &facts, 2345, &arena, &e), "%s", e.text);
	model_play(&model, &plan, &image, &facts);
	image.pending[1].tid = 1; /* nobody's */
	plan = (struct tf_restore){.fds = plan.fds};
	ck_assert_int_eq(
		tf_restore_build(&plan, &image, &facts, 2345, &arena, &e), TELEFORK_E_IMAGE);
	ck_assert_ptr_nonnull(strstr(e.text, "pending signal 1 is for thread 1"));
	tf_arena_done(&arena);
}

START_TEST(plans)
{
	static const uint32_t n[] = {1, 2, 3, 64, 1000};

	plays_with(n[_i], sample_facts_native);
	plays_with(n[_i], sample_facts_emulated);
}
END_TEST

/* --- a process, its image, and what comes of that --- */

/* Starts main_fn(arg) in a child without our descriptors, and waits until it prints. */
static void start_original(int (*main_fn)(int arg), int arg)
{
	int out[2];
	char c;

	ck_assert_int_eq(pipe(out), 0);
	original = fork();
	if (!original) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(out[1], 1);
		close_range(3, ~0u, 0);
		_exit(main_fn(arg));
	}
	close(out[1]);
	ck_assert_int_eq(read(out[0], &c, 1), 1);
	hear = out[0];
}

static uint64_t hole; /* an address in a restorer's range; 0 */
static bool hole_travels;

static void take(void)
{
	char image_path[] = "/tmp/test_threads.XXXXXX";

	image_fd = mkstemp(image_path);
	ck_assert_int_ge(image_fd, 0);
	unlink(image_path);
	ck_assert_msg(!tf_task_stop(&task, original) && !tf_task_describe(&task) &&
			      !tf_task_save(&task, image_fd) && !tf_task_commit(&task),
		"%s", task.capture.err.text);
	hole_travels = hole && tf_image_map_at(&task.capture.image, hole);
	tf_task_release(&task);
}

static void end(pid_t pid, int signo, int want)
{
	int status;

	ck_assert_int_eq(kill(pid, signo), 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status) ? WEXITSTATUS(status) == want : want == 128 + signo,
		"status %#x, not %d", (unsigned)status, want);
}

static int prepare(unsigned restore)
{
	static struct telefork_options o;

	o = (struct telefork_options){.stdio = TELEFORK_STDIO_NULL, .restore = restore};
	return tf_pad_prepare(&pad, image_fd, &o);
}

static pid_t restore(unsigned flags)
{
	ck_assert_msg(!prepare(flags) && !tf_pad_start(&pad), "%s", pad.err.text);
	return pad.child;
}

/* Whether the process has anything where the restorer was. */
static bool has_restorer(pid_t pid)
{
	char path[64], line[512];
	unsigned long long from, to;
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	f = fopen(path, "r");
	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%llx-%llx", &from, &to) == 2)
			found |= from < pad.restore.park_at && to > pad.restore.hole.start;
	fclose(f);
	return found;
}

static void done(void)
{
	tf_pad_done(&pad);
	close(image_fd);
	close(hear);
}

/* --- threads --- */

static int crew(int n)
{
	char number[12], *argv[] = {"crew", number, NULL};

	snprintf(number, sizeof(number), "%d", n);
	return crew_main(2, argv);
}

START_TEST(threads_go_on)
{
	static const int n[] = {1, 2, 7, 64};
	pid_t copy;

	start_original(crew, n[_i]);
	take();
	copy = restore(0);
	ck_assert(!has_restorer(copy));
	end(copy, SIGUSR1, 0);
	end(original, SIGUSR1, 0);
	done();
}
END_TEST

static void *quit_elsewhere(void *pid)
{
	while (getpid() == *(pid_t *)pid)
		;
	_exit(7);
}

static int quitters(int n)
{
	static pid_t pid;
	pthread_attr_t attr;
	pthread_t thread;

	pid = getpid();
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 262144);
	for (int i = 1; i < n; i++)
		if (pthread_create(&thread, &attr, quit_elsewhere, &pid))
			return 1;
	if (write(1, "r", 1) != 1)
		return 1;
	for (;;)
		pause();
}

/* Those that are let go first end the process, while others are not yet. */
START_TEST(quit_at_once)
{
	int status;

	start_original(quitters, 33);
	take();
	ck_assert_int_eq(kill(original, SIGKILL), 0);
	ck_assert_int_eq(waitpid(original, NULL, 0), original);
	ck_assert_int_eq(waitpid(restore(0), &status, 0), pad.child);
	ck_assert_msg(
		WIFEXITED(status) && WEXITSTATUS(status) == 7, "status %#x", (unsigned)status);
	done();
}
END_TEST

/* A step that fails in any thread is named, and nothing is left. */
START_TEST(a_thread_fails)
{
	struct tf_step *last = NULL;

	start_original(crew, 7);
	take();
	ck_assert_msg(!prepare(0), "%s", pad.err.text);
	for (uint64_t i = 0; i < pad.restore.plan.n_steps; i++)
		if (pad.restore.plan.steps[i].nr == SYS_set_robust_list)
			last = &pad.restore.plan.steps[i];
	ck_assert_ptr_nonnull(last);
	last->arg[1]--; /* no list has that size */
	ck_assert_int_eq(tf_pad_start(&pad), TELEFORK_E_RESTORE);
	ck_assert_msg(strstr(pad.err.text, "set_robust_list") && strstr(pad.err.text, "EINVAL"),
		"%s", pad.err.text);
	end(original, SIGUSR1, 0);
	ck_assert(waitpid(-1, NULL, __WALL) < 0 && errno == ECHILD);
	done();
}
END_TEST

static void forbid_ptrace(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ptrace, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog), 0);
}

/* Then the restorer's range stays; where only ptrace sets a register, it is refused by name. */
START_TEST(without_ptrace)
{
	int rc;

	start_original(crew, 7);
	take();
	forbid_ptrace();
	rc = prepare(0);
	if (tf_arch_traced_state(&pad.image)) {
		ck_assert_int_eq(rc, TELEFORK_E_INCOMPATIBLE);
		ck_assert_msg(strstr(pad.err.text, "only ptrace sets them"), "%s", pad.err.text);
	} else {
		ck_assert_msg(!rc && !tf_pad_start(&pad), "%s", pad.err.text);
		ck_assert(has_restorer(pad.child));
		end(pad.child, SIGUSR1, 0);
	}
	end(original, SIGUSR1, 0);
	done();
}
END_TEST

/* What stayed there does not travel again: from journey to journey nothing grows. */
START_TEST(leftovers_stay)
{
	uint32_t n_maps = 0;

	if (tf_arch_traced()) /* such a receiver takes no process of this machine's */
		return;
	start_original(crew, 7);
	take();
	for (int i = 0; i < 3; i++) {
		ck_assert_msg(!prepare(0), "%s", pad.err.text);
		pad.facts.flags &= ~TF_FACT_PTRACE;
		ck_assert_msg(!tf_pad_start(&pad), "%s", pad.err.text);
		ck_assert(has_restorer(pad.child));
		end(original, SIGUSR1, 0);
		original = pad.child;
		hole = pad.restore.hole.start;
		tf_pad_done(&pad);
		close(image_fd);
		take();
		/* While a thread is still on its way out of there, it travels. */
		for (int k = 0; hole_travels && k < 1000; k++) {
			close(image_fd);
			take();
		}
		if (i)
			ck_assert_uint_eq(task.capture.image.n_maps, n_maps);
		n_maps = task.capture.image.n_maps;
	}
	restore(0);
	end(original, SIGUSR1, 0);
	end(pad.child, SIGUSR1, 0);
	done();
}
END_TEST

/* --- ids --- */

START_TEST(the_same_ids)
{
	pid_t was;

	start_original(crew, 7);
	take();
	was = original;
	ck_assert_int_eq(prepare(TELEFORK_RESTORE_SAME_PID), 0);
	ck_assert_int_eq(tf_pad_start(&pad), TELEFORK_E_INCOMPATIBLE);
	ck_assert_msg(strstr(pad.err.text, geteuid() ? "CAP_CHECKPOINT_RESTORE" : "is in use here"),
		"%s", pad.err.text);
	tf_pad_done(&pad);
	end(original, SIGKILL, 128 + SIGKILL);
	if (geteuid())
		return;
	ck_assert_int_eq(restore(TELEFORK_RESTORE_SAME_PID), was);
	for (uint32_t i = 0; i < 7; i++) {
		char path[64];

		snprintf(path, sizeof(path), "/proc/%d/task/%d", (int)was,
			(int)pad.image.threads[i].tid);
		ck_assert_msg(!access(path, F_OK), "%s", path);
	}
	end(was, SIGUSR1, 0);
	done();
}
END_TEST

/* --- signals --- */

static void wait_for_word(void)
{
	sigset_t set;
	int signo;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (write(1, "r", 1) == 1)
		while (sigwait(&set, &signo))
			;
}

static int takes_signals(int n)
{
	const struct timespec now = {0};
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (int i = 0; i < n; i++)
		sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = i});
	pthread_sigqueue(pthread_self(), SIGUSR2, (union sigval){.sival_int = 77});
	wait_for_word();
	if (sigtimedwait(&set, &info, &now) != SIGUSR2 || info.si_value.sival_int != 77)
		return 1;
	for (int i = 0; i < n; i++)
		if (sigtimedwait(&set, &info, &now) != SIGRTMIN || info.si_code != SI_QUEUE ||
			info.si_value.sival_int != i)
			return 2;
	return sigtimedwait(&set, &info, &now) > 0 ? 3 : 0;
}

START_TEST(signals_stay_pending)
{
	start_original(takes_signals, 20);
	take();
	end(restore(0), SIGUSR1, 0);
	end(original, SIGUSR1, 0);
	done();
}
END_TEST

START_TEST(the_stopped_stay_stopped)
{
	int status;
	pid_t copy;

	start_original(crew, 7);
	kill(original, SIGSTOP);
	ck_assert_int_eq(waitpid(original, &status, WUNTRACED), original);
	take();
	copy = restore(0);
	ck_assert_int_eq(waitpid(copy, &status, WUNTRACED), copy);
	ck_assert_msg(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP, "%#x", (unsigned)status);
	kill(copy, SIGCONT);
	end(copy, SIGUSR1, 0);
	kill(original, SIGCONT);
	end(original, SIGUSR1, 0);
	done();
}
END_TEST

/* --- files --- */

static char read_path[] = "/tmp/test_threads.read.XXXXXX",
	    append_path[] = "/tmp/test_threads.append.XXXXXX";

/* 40: a file for reading, read to its fifth byte; 41: one that is only appended to; 42: /dev/null.
 */
static int uses_files(int unused)
{
	char buf[8] = "";

	(void)unused;
	if (dup3(open(read_path, O_RDONLY), 40, O_CLOEXEC) < 0 ||
		dup2(open(append_path, O_WRONLY | O_APPEND), 41) < 0 ||
		dup2(open("/dev/null", O_RDWR), 42) < 0 || read(40, buf, 5) != 5)
		return 1;
	close_range(3, 39, 0);
	wait_for_word();
	if (read(40, buf, 3) != 3)
		return errno == EBADF ? 2 : 3;
	if (memcmp(buf, "567", 3) != 0 || fcntl(40, F_GETFD) != FD_CLOEXEC)
		return 4;
	if ((fcntl(41, F_GETFL) & (O_ACCMODE | O_APPEND)) != (O_WRONLY | O_APPEND) ||
		fcntl(41, F_GETFD) || write(41, "+", 1) != 1)
		return 5;
	if (write(42, "x", 1) != 1 || read(42, buf, 1))
		return 6;
	return fcntl(3, F_GETFD) < 0 ? 0 : 7;
}

static void make_file(char *path, const char *text)
{
	int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

START_TEST(files_are_opened_again)
{
	char buf[8] = "";
	int fd;

	make_file(read_path, "0123456789");
	make_file(append_path, "a");
	start_original(uses_files, 0);
	take();
	end(restore(0), SIGUSR1, 0);
	end(original, SIGUSR1, 0);
	fd = open(append_path, O_RDONLY);
	ck_assert_int_eq(read(fd, buf, sizeof(buf)), 3);
	ck_assert_str_eq(buf, "a++");
	tf_pad_done(&pad);

	unlink(read_path);
	ck_assert_int_eq(prepare(0), TELEFORK_E_INCOMPATIBLE);
	ck_assert_msg(strstr(pad.err.text, read_path) && strstr(pad.err.text, "descriptor 40") &&
			      strstr(pad.err.text, "ENOENT") &&
			      !strstr(pad.err.text, "descriptor 41"),
		"%s", pad.err.text);
	tf_pad_done(&pad);
	end(restore(TELEFORK_RESTORE_HOLD_FILES), SIGUSR1, 2);
	ck_assert_ptr_nonnull(strstr(pad.left.text, read_path));
	unlink(append_path);
	done();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("threads");
	TCase *tc = tcase_create("threads");

	tcase_set_timeout(tc, SUITE_LIMIT_S);
	tcase_add_loop_test(tc, plans, 0, 5);
	if (!tf_host_emulated()) {
		tcase_add_loop_test(tc, threads_go_on, 0, 4);
		tcase_add_loop_test(tc, quit_at_once, 0, 3);
		tcase_add_test(tc, a_thread_fails);
		tcase_add_test(tc, without_ptrace);
		tcase_add_test(tc, leftovers_stay);
		tcase_add_test(tc, the_same_ids);
		tcase_add_test(tc, signals_stay_pending);
		tcase_add_test(tc, the_stopped_stay_stopped);
		tcase_add_test(tc, files_are_opened_again);
	}
	suite_add_tcase(s, tc);
	return suite_run(s);
}
