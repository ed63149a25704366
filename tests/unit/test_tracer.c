/* SPDX-License-Identifier: MIT */
/*
 * State that only a tracer reads or sets: twins, TRACER steps on a process that waits, what is
 * refused where ptrace is not to be had, and what the plan does with signed return addresses.
 */
#include <check.h>
#include <elf.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arch/arch.h"
#include "core/base/host.h"
#include "core/base/twin.h"
#include "core/restore/build.h"
#include "core/restore/tracer.h"
#include "tests/unit/image_sample.h"
#include "tests/unit/suite.h"

static struct tf_arena arena;

static void set_up(void)
{
	ck_assert_int_eq(tf_arena_init(&arena, 64 << 20), 0);
}

static void tear_down(void)
{
	tf_arena_done(&arena);
}

static void no_child_is_left(void)
{
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG | __WALL), -1);
	ck_assert_int_eq(errno, ECHILD);
}

/* --- twins --- */

START_TEST(twin_stands_still_and_goes)
{
	struct tf_err e = {0};
	pid_t twin = tf_twin_start(&e);

	if (tf_host_emulated()) { /* no ptrace there */
		ck_assert_int_eq(twin, TELEFORK_E_SYSTEM);
		ck_assert(*e.text);
		no_child_is_left();
		return;
	}
	ck_assert_msg(twin > 0, "%s", e.text);
	ck_assert_int_eq(ptrace(PTRACE_SETOPTIONS, twin, NULL, (void *)PTRACE_O_EXITKILL), 0);
	tf_twin_end(twin);
	no_child_is_left();
	ck_assert(tf_tracer_allowed());
	no_child_is_left();
}
END_TEST

/* From now on ptrace() ends so. */
static void forbid_ptrace(uint32_t verdict)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ptrace, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, verdict),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog), 0);
}

/* A filter must not end the one who asks, whatever it does to the one who calls. */
START_TEST(forbidden_ptrace_is_noticed)
{
	static const uint32_t verdicts[] = {SECCOMP_RET_ERRNO | EPERM, SECCOMP_RET_KILL_PROCESS};
	static const char *const words[] = {"EPERM", "signal 31"};
	struct tf_err e = {0};

	if (tf_host_emulated())
		return;
	forbid_ptrace(verdicts[_i]);
	ck_assert_int_eq(tf_twin_start(&e), TELEFORK_E_SYSTEM);
	ck_assert_msg(strstr(e.text, words[_i]), "%s", e.text);
	no_child_is_left();
	ck_assert(!tf_tracer_allowed());
	no_child_is_left();
}
END_TEST

/* --- steps --- */

static pid_t waiting_child(int fd[static 2])
{
	pid_t pid;
	char go;

	ck_assert_int_eq(pipe(fd), 0);
	pid = fork();
	if (pid)
		return pid;
	_exit(read(fd[0], &go, 1) == 1 && go == 'g' ? 7 : 1);
}

static void ends_well(pid_t pid, int fd)
{
	int status;

	ck_assert_int_eq(write(fd, "g", 1), 1);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

/* The floating-point registers of a child that stands in a system call, as a tracer sees them. */
static void fpregs(pid_t pid, struct tf_regset *set)
{
	struct iovec iov = {set->data, 4096};
	int status;

	ck_assert_int_eq(ptrace(PTRACE_SEIZE, pid, NULL, NULL), 0);
	ck_assert_int_eq(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL), 0);
	ck_assert_int_eq(waitpid(pid, &status, __WALL), pid);
	ck_assert_int_eq(ptrace(PTRACE_GETREGSET, pid, (void *)NT_FPREGSET, &iov), 0);
	ck_assert_int_eq(ptrace(PTRACE_DETACH, pid, NULL, NULL), 0);
	set->size = (uint32_t)iov.iov_len;
}

START_TEST(steps_set_registers)
{
	struct tf_thread thread = {0}, after = {0};
	struct tf_regset *set = tf_regs_add(&thread.regs, &arena, NT_FPREGSET, 4096);
	struct tf_regset *found = tf_regs_add(&after.regs, &arena, NT_FPREGSET, 4096);
	struct tf_plan plan;
	struct tf_step *step;
	struct tf_err e = {0};
	int fd[2];
	pid_t pid;

	ck_assert_int_eq(tf_plan_init(&plan, &arena, 4), 0);
	tf_plan_add(&plan, TF_OP_BARRIER, "ready");
	ck_assert_int_eq(tf_tracer_run(-1, &plan, &thread, &e), 0); /* nothing to do */
	if (tf_host_emulated())
		return;
	pid = waiting_child(fd);
	fpregs(pid, set);
	for (unsigned i = 0; i < 16; i++) /* a vector register, on both architectures */
		set->data[240 + i] ^= (uint8_t)(0x5a + i);
	step = tf_plan_add(&plan, TF_OP_TRACER, "vectors");
	step->arg[0] = NT_FPREGSET;
	step->arg[1] = set->size;
	ck_assert_msg(!tf_tracer_run(pid, &plan, &thread, &e), "%s", e.text);
	fpregs(pid, found);
	ck_assert_mem_eq(found->data + 240, set->data + 240, 16);
	ends_well(pid, fd[1]);

	pid = waiting_child(fd);
	tf_plan_add(&plan, TF_OP_TRACER, "a set that the image lacks")->arg[0] = NT_ARM_PACA_KEYS;
	ck_assert_int_eq(tf_tracer_run(pid, &plan, &thread, &e), TELEFORK_E_RESTORE);
	ck_assert(strstr(e.text, "a set that the image lacks"));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, __WALL);
	e = (struct tf_err){0};
	ck_assert_int_eq(tf_tracer_run(pid, &plan, &thread, &e), TELEFORK_E_RESTORE);
	ck_assert(strstr(e.text, "ESRCH"));
	no_child_is_left();
}
END_TEST

/* An image of this architecture whose first thread has every regset of TRACER steps. */
static void keyed_image(struct tf_image *img, bool signs)
{
	static const uint32_t sets[][2] = {{NT_ARM_PACA_KEYS, 64}, {NT_ARM_PACG_KEYS, 16}};
	uint32_t machine = tf_arch_native()->machine;

	ck_assert_int_eq(sample_image(img, &arena, machine, 4096, 1), 0);
	for (unsigned i = 0; i < 2 && machine == EM_AARCH64; i++)
		sample_set(&img->threads[0], &arena, sets[i][0], sets[i][1]);
	if (signs)
		img->source.flags |= TF_SOURCE_SIGNS;
}

START_TEST(keys_need_a_tracer)
{
	struct tf_facts f = {.machine = tf_arch_native()->machine,
		.page_size = 4096,
		.max_addr = UINT64_C(1) << 47,
		.max_map_count = 65530,
		.memory_free = 1 << 30,
		.address_limit = UINT64_MAX,
		.brk = 0x10000,
		.release = ""};
	bool keyed = f.machine == EM_AARCH64;
	struct tf_plan plan;
	struct tf_image img;

	for (unsigned i = 0; i < 8; i++) {
		struct tf_err e = {0};
		bool signs = i & 1;

		f.flags = TF_FACT_MM_MAP | (i & 2 ? TF_FACT_PTRACE : 0) |
			  (i & 4 ? TF_FACT_EMULATED : 0);
		keyed_image(&img, signs);
		f.cpu = img.cpu;
		tf_compat_check(&img, &f, 0, &e);
		ck_assert_msg(!strstr(e.text, "ptrace") == !(keyed && signs && !(i & 6)), "%u: %s",
			i, e.text);
	}
	ck_assert_int_eq(tf_arch_has_traced(&img.threads[0]), keyed);
	ck_assert_int_eq(tf_plan_init(&plan, &arena, 8), 0);
	ck_assert_uint_eq(tf_arch_plan_traced(&plan, &img.threads[0]), keyed ? 2 : 0);
	ck_assert_uint_eq(plan.n_steps, keyed ? 2 : 0);
}
END_TEST

/* --- signatures in plans --- */

static unsigned count_ops(const struct tf_restore *r, enum tf_op op)
{
	unsigned n = 0;

	for (uint64_t i = 0; i < r->plan.n_steps; i++)
		n += r->plan.steps[i].op == op;
	return n;
}

/* With the keys, no return address is touched; without, each is signed once. */
START_TEST(plan_signs_or_traces)
{
	struct tf_facts f = {.machine = tf_arch_native()->machine,
		.page_size = 4096,
		.min_addr = 0x10000,
		.max_addr = UINT64_C(1) << 47,
		.memory_free = 1 << 30,
		.flags = TF_FACT_MM_MAP | (_i ? TF_FACT_PTRACE : TF_FACT_EMULATED),
		.fd_limit = 1024,
		.brk = 0x10000,
		.release = ""};
	bool keyed = f.machine == EM_AARCH64;
	struct tf_restore r = {0};
	struct tf_image img;
	struct tf_err e = {0};

	keyed_image(&img, true);
	f.cpu = img.cpu;
	f.maps = f.taken = tf_arena_alloc(&arena, sizeof(*f.maps));
	ck_assert_int_eq(tf_restore_choose_fds(&r, &img, &f, false, false, &e), 0);
	ck_assert_msg(!tf_restore_build(&r, &img, &f, 8192, &arena, &e), "%s", e.text);
	ck_assert_uint_eq(count_ops(&r, TF_OP_SIGN), keyed && !_i ? img.n_signatures : 0);
	ck_assert_uint_eq(count_ops(&r, TF_OP_TRACER), keyed && _i ? 2 : 0);
}
END_TEST

START_TEST(bits_of_protection_need_the_processor)
{
	struct tf_cpu with, without = {0};

	memset(&with, 0xff, sizeof(with));
	ck_assert_uint_eq(tf_arch_map_prot(TF_VMF_BTI, &with),
		tf_arch_native()->machine == EM_AARCH64 ? 16 : 0);
	ck_assert_uint_eq(tf_arch_map_prot(TF_VMF_BTI, &without), 0);
	ck_assert_uint_eq(tf_arch_map_prot(TF_VMF_MTE, &with),
		tf_arch_native()->machine == EM_AARCH64 ? 32 : 0);
	ck_assert_uint_eq(tf_arch_map_prot(TF_VMF_MTE, &without), 0);
	ck_assert_uint_eq(tf_arch_map_prot(TF_VMF_ALL & ~(TF_VMF_BTI | TF_VMF_MTE), &with), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("tracer");
	TCase *t = tcase_create("tracer");

	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_set_timeout(t, SUITE_LIMIT_S);
	tcase_add_test(t, twin_stands_still_and_goes);
	tcase_add_loop_test(t, forbidden_ptrace_is_noticed, 0, 2);
	tcase_add_test(t, steps_set_registers);
	tcase_add_test(t, keys_need_a_tracer);
	tcase_add_loop_test(t, plan_signs_or_traces, 0, 2);
	tcase_add_test(t, bits_of_protection_need_the_processor);
	suite_add_tcase(s, t);
	return suite_run(s);
}
