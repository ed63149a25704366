/* SPDX-License-Identifier: MIT */
/*
 * What the kernel keeps for a process, there and back in one program, so that it runs in a guest: a
 * child that has everything otherwise is captured from outside, made anew by a parent that has it
 * otherwise again, and captured once more; both images say the same. Where there is no ptrace (QEMU
 * user mode) there is nothing to be seen.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base/host.h"
#include "core/capture/task.h"
#include "core/image/file.h"
#include "core/restore/pad.h"
#include "tests/unit/suite.h"

#define AHEAD 1000000 /* seconds of the child's monotonic clock */

static volatile int *page; /* shared with the child: what it has done */
static char path[] = "/tmp/test_attrs.XXXXXX";

enum { READY = 1, CLOCKS = 2, RIGHTS = 4 };

/* --- the child --- */

static int other_clocks(void)
{
	static const char text[] = "monotonic 1000000 5\nboottime 1000000 5\n";
	int fd, ns;

	if (unshare(CLONE_NEWTIME))
		return 0;
	fd = open("/proc/self/timens_offsets", O_WRONLY);
	ns = open("/proc/self/ns/time_for_children", O_RDONLY);
	if (write(fd, text, sizeof(text) - 1) < 0 || setns(ns, CLONE_NEWTIME))
		return 0;
	close(fd);
	close(ns);
	return CLOCKS;
}

static void other_timers(void)
{
	struct sigevent none = {.sigev_notify = SIGEV_NONE}, here = {.sigev_notify = SIGEV_SIGNAL};
	const struct itimerspec v = {{7, 0}, {5000, 0}};
	const struct itimerval i = {{9, 0}, {5000, 0}};
	timer_t t[4];

	here.sigev_signo = SIGRTMIN + 1;
	here.sigev_value.sival_int = 4711;
	for (int n = 0; n < 4; n++)
		timer_create(CLOCK_MONOTONIC, n == 3 ? &here : &none, &t[n]);
	timer_delete(t[0]);
	timer_delete(t[2]);
	timer_settime(t[3], 0, &v, NULL);
	setitimer(ITIMER_REAL, &i, NULL);
	setitimer(ITIMER_PROF, &i, NULL);
}

static void other_filter(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpriority, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EDOM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {sizeof(code) / sizeof(*code), code};

	syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog);
}

static int other_rights(void)
{
	const gid_t groups[] = {77, 99};
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct sets[2] = {{1u << CAP_NET_RAW, 3, 1}};

	if (geteuid())
		return 0;
	other_filter();
	prctl(PR_CAPBSET_DROP, CAP_SYS_MODULE, 0, 0, 0);
	prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
	if (setgroups(2, groups) || setresgid(4001, 4002, 4003) || setresuid(4004, 4005, 4006))
		_exit(1);
	sets[0].permitted |= 1u << CAP_NET_RAW;
	sets[0].effective = 1u << CAP_NET_RAW;
	return syscall(SYS_capset, &head, sets) ? 0 : RIGHTS;
}

static void be_other(void)
{
	const struct rlimit core = {1234, 123456}, files = {55, 66};
	const uint64_t first = 1;
	int done = READY | other_clocks();

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setsid();
	if (chdir("/"))
		_exit(1);
	umask(0135);
	setrlimit(RLIMIT_CORE, &core);
	setrlimit(RLIMIT_NOFILE, &files);
	setpriority(PRIO_PROCESS, 0, 4);
	syscall(SYS_sched_setaffinity, 0, sizeof(first), &first);
	syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 6);
	syscall(SYS_personality, 0x0040000);
	prctl(PR_SET_TIMERSLACK, 77777, 0, 0, 0);
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	other_timers();
	done |= other_rights();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	*page = done;
	for (;;)
		pause();
}

/* --- the parent --- */

static void look(pid_t pid, struct tf_file *f)
{
	static struct tf_task task;
	struct tf_err e = {0};
	int fd = open(path, O_RDWR | O_TRUNC);

	ck_assert_msg(!tf_task_stop(&task, pid) && !tf_task_describe(&task) &&
			      !tf_task_save(&task, fd) && !tf_task_commit(&task),
		"%s", task.capture.err.text);
	tf_task_release(&task);
	close(fd);
	ck_assert_msg(!tf_file_open(f, path, &e), "%s", e.text);
}

#define SAME(member, n)                                                                         \
	ck_assert_msg(x->n == y->n && !memcmp(x->member, y->member, x->n * sizeof(*x->member)), \
		#member " are others")

static void compare(const struct tf_image *x, const struct tf_image *y)
{
	ck_assert_uint_eq(x->process.flags, y->process.flags);
	ck_assert_uint_eq(x->process.dumpable, y->process.dumpable);
	ck_assert_int_eq(x->process.oom_score_adj, y->process.oom_score_adj);
	ck_assert_mem_eq(x->process.limits, y->process.limits, sizeof(x->process.limits));
	ck_assert_uint_eq(x->source.umask, y->source.umask);
	SAME(attributes, n_attributes);
	SAME(rights, n_rights);
	SAME(groups, n_groups);
	SAME(filters, n_filters);
	SAME(code, n_code);
	ck_assert_uint_eq(x->n_timers, 2);
	ck_assert_uint_eq(y->n_timers, 2);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(x->timers[i].id, y->timers[i].id);
		ck_assert_int_eq(x->timers[i].clock, y->timers[i].clock);
		ck_assert_uint_eq(x->timers[i].notify, y->timers[i].notify);
		ck_assert_uint_eq(x->timers[i].signo, y->timers[i].signo);
		ck_assert_uint_eq(x->timers[i].value, y->timers[i].value);
		ck_assert_uint_eq(x->timers[i].interval, y->timers[i].interval);
		ck_assert_uint_le(y->timers[i].left, x->timers[i].left);
		ck_assert_int_eq(!x->timers[i].left, !y->timers[i].left);
	}
	for (int i = 0; i < TF_ITIMERS; i++) {
		ck_assert_uint_eq(x->process.itimers[2 * i + 1], y->process.itimers[2 * i + 1]);
		ck_assert_int_eq(!x->process.itimers[2 * i], !y->process.itimers[2 * i]);
	}
}

/* What it was set to is what was seen: else two images without anything would be equal, too. */
static void check_seen(const struct tf_image *x, int done)
{
	ck_assert_uint_eq(x->process.limits[2 * RLIMIT_CORE], 1234);
	ck_assert_uint_eq(x->process.limits[2 * RLIMIT_NOFILE + 1], 66);
	ck_assert_int_eq(x->attributes[0].nice, 4);
	ck_assert_uint_eq(x->attributes[0].slack, 77777);
	ck_assert_uint_eq(x->attributes[0].cpus[0], 1);
	ck_assert_uint_eq(x->attributes[0].personality, 0x0040000);
	ck_assert_uint_eq(x->attributes[0].pdeathsig, SIGKILL);
	ck_assert_int_eq(x->timers[1].id, 3);
	ck_assert_uint_eq(x->process.itimers[1], UINT64_C(9000000000));
	ck_assert_uint_eq(x->process.flags & (TF_PROCESS_LEADER | TF_PROCESS_NO_THP),
		TF_PROCESS_LEADER | TF_PROCESS_NO_THP);
	if (done & CLOCKS)
		ck_assert_uint_gt(x->source.monotonic_ns, AHEAD * UINT64_C(1000000000));
	if (!(done & RIGHTS))
		return;
	ck_assert_uint_eq(x->rights[0].uid[2], 4006);
	ck_assert_uint_eq(x->rights[0].caps[TF_CAP_P], 3 | 1u << CAP_NET_RAW);
	ck_assert_uint_eq(x->n_filters, 1);
}

START_TEST(there_and_back)
{
	const struct telefork_options o = {.restore = TELEFORK_RESTORE_HOLD_FILES};
	const struct rlimit core = {0, RLIM_INFINITY};
	static struct tf_file before, after;
	static struct tf_pad pad;
	pid_t child;
	int fd;

	if (tf_host_emulated())
		return;
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	close(mkstemp(path));
	child = fork();
	if (!child)
		be_other();
	while (!*page && !waitpid(child, NULL, WNOHANG))
		usleep(100);
	look(child, &before);
	check_seen(&before.image, *page);
	setrlimit(RLIMIT_CORE, &core);
	prctl(PR_SET_TIMERSLACK, 1234, 0, 0, 0);
	umask(0);
	fd = open(path, O_RDONLY);
	ck_assert_msg(!tf_pad_prepare(&pad, fd, &o) && !tf_pad_start(&pad), "%s", pad.err.text);
	look(pad.child, &after);
	compare(&before.image, &after.image);
	/* Its clock goes on, and no more than that. */
	if (*page & CLOCKS)
		ck_assert_uint_lt(
			after.image.source.monotonic_ns - before.image.source.monotonic_ns,
			UINT64_C(1000000000000));
	kill(pad.child, SIGKILL);
	kill(child, SIGKILL);
	waitpid(pad.child, NULL, 0);
	waitpid(child, NULL, 0);
	close(fd);
	unlink(path);
	printf("%u of this was seen\n", (unsigned)*page);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("attrs");
	TCase *t = tcase_create("attrs");

	tcase_set_timeout(t, SUITE_LIMIT_S);
	tcase_add_test(t, there_and_back);
	suite_add_tcase(s, t);
	return suite_run(s);
}
