/* SPDX-License-Identifier: MIT */
/*
 * aarch64 registers of another process, by PTRACE_GETREGSET. NT_ARM_SVE comes in either of its two
 * forms; the pointer authentication keys only from kernels with CONFIG_CHECKPOINT_RESTORE.
 */
#include "arch/arch.h"
#include "arch/aarch64/layout.h"

#include <elf.h>
#include <errno.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#ifndef PTRACE_PEEKMTETAGS
#define PTRACE_PEEKMTETAGS 33
#endif
#ifndef NT_ARM_SSVE
#define NT_ARM_SSVE 0x40b
#endif

#define SVC_0 UINT32_C(0xd4000001)

static long get(int tid, uint32_t type, void *to, size_t size)
{
	struct iovec iov = {to, size};

	return ptrace(PTRACE_GETREGSET, tid, (void *)(uintptr_t)type, &iov) ? -1
									    : (long)iov.iov_len;
}

/* The kernel or the processor has no such state. */
static bool absent(void)
{
	return errno == EINVAL || errno == ENODEV || errno == ENODATA;
}

static const struct {
	uint32_t type, size;
	bool optional;
	const char *name;
} sets[] = {
	{NT_PRSTATUS, ARM_GREGS_SIZE, false, "NT_PRSTATUS"},
	{NT_FPREGSET, FP_SIZE, false, "NT_FPREGSET"},
	{NT_ARM_TLS, 16, false, "NT_ARM_TLS"}, /* 8 without SME */
	{NT_ARM_SYSTEM_CALL, 4, true, "NT_ARM_SYSTEM_CALL"},
	{NT_ARM_SVE, TF_REGSET_MAX, true, "NT_ARM_SVE"},
	{NT_ARM_PACA_KEYS, 64, true, "NT_ARM_PACA_KEYS"},
	{NT_ARM_PACG_KEYS, 16, true, "NT_ARM_PACG_KEYS"},
	{NT_ARM_PAC_ENABLED_KEYS, 8, true, "NT_ARM_PAC_ENABLED_KEYS"},
	{NT_ARM_TAGGED_ADDR_CTRL, 8, true, "NT_ARM_TAGGED_ADDR_CTRL"},
};

/* The thread's own vector length counts, not this process's. */
static long take_sve(const uint8_t *data, long size, struct tf_cpu *cpu)
{
	uint32_t vl;

	if (size < SVE_HEADER || arm_get32(data + SVE_SIZE) > (uint64_t)size)
		return -1;
	vl = arm_get16(data + SVE_VL);
	if (sve_vl_ok(vl)) {
		cpu->vl = vl;
		cpu->vl_mask |= UINT32_C(1) << (vl / 16 - 1);
	}
	return arm_get32(data + SVE_SIZE);
}

static int refuse_streaming(int tid, uint8_t *scratch, struct tf_err *e)
{
	if (get(tid, NT_ARM_SSVE, scratch, TF_REGSET_MAX) >= SVE_HEADER &&
		(arm_get16(scratch + SVE_FLAGS) & SVE_FLAG_REGS))
		return tf_fail(e, TELEFORK_E_UNSUPPORTED,
			"thread %d is in SME streaming mode, whose registers are in no table", tid);
	return 0;
}

int tf_arch_regs_from_task(
	int tid, struct tf_cpu *cpu, struct tf_arena *a, struct tf_regs *regs, struct tf_err *e)
{
	uint8_t data[TF_REGSET_MAX];

	cpu->vl = 0;
	for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
		long size = get(tid, sets[i].type, data, sets[i].size);
		struct tf_regset *set;

		if (size < 0 && sets[i].optional && absent())
			continue;
		if (size >= 0 && sets[i].type == NT_ARM_SVE)
			size = take_sve(data, size, cpu);
		if (size < 0)
			return tf_fail_errno(
				e, TELEFORK_E_SYSTEM, errno, "%s of thread %d", sets[i].name, tid);
		if (sets[i].type == NT_ARM_TAGGED_ADDR_CTRL && !arm_get64(data))
			continue;
		set = tf_regs_add(regs, a, sets[i].type, (uint32_t)size);
		if (!set)
			return tf_fail(e, TELEFORK_E_NOMEM, "out of memory for registers");
		memcpy(set->data, data, (size_t)size);
	}
	return refuse_streaming(tid, data, e);
}

/* The kernel gives a byte for each tag, and as many as lie in a page at a time. */
int tf_arch_tags_of_task(int tid, uint64_t addr, uint64_t tags[static TF_TAGS_WORDS])
{
	uint8_t byte[TF_TAGS_SIZE / 16];
	struct iovec iov = {byte, sizeof(byte)};

	memset(tags, 0, TF_TAGS_WORDS * sizeof(*tags));
	if (ptrace((enum __ptrace_request)PTRACE_PEEKMTETAGS, tid, (void *)addr, &iov))
		return -1;
	for (size_t i = 0; i < iov.iov_len; i++)
		tags[i / 16] |= (uint64_t)(byte[i] & 15) << i % 16 * 4;
	return 0;
}

#define MOV_X8      UINT32_C(0xd2800008) /* mov x8, #n: n << 5 */
#define MOV_X8_MASK UINT32_C(0xffe0001f)

/* A call that was continued once already has its number no more, but in the "mov x8, #nr" before.
 */
static uint64_t number_before(const uint8_t code[2 * TF_CODE_AROUND], uint64_t nr)
{
	for (int i = TF_CODE_AROUND - 4; i >= 0 && nr == SYS_restart_syscall; i -= 4) {
		uint32_t mov = arm_get32(code + i);

		if ((mov & MOV_X8_MASK) == MOV_X8)
			nr = mov >> 5 & 0xffff;
	}
	return nr;
}

long tf_arch_next_call(const struct tf_regs *regs, uint64_t ret_arg[6])
{
	const struct tf_regset *set = tf_regs_find(regs, NT_PRSTATUS);
	const uint8_t *gp;

	if (!set)
		return -1;
	gp = set->data;
	for (unsigned i = 0; i < 6; i++)
		ret_arg[i] = arm_get64(gp + i * 8);
	return (long)arm_get64(gp + 8 * 8);
}

/* The kernel has rewound pc and x0 before it stops, and has forgotten the call: whether it was made
 * already cannot be told from here. */
enum tf_at_call tf_arch_task_rewind(struct tf_regs *regs, const uint8_t code[2 * TF_CODE_AROUND],
	long *ret_nr, uint64_t ret_arg[6])
{
	uint8_t *gp = tf_regs_find(regs, NT_PRSTATUS)->data;
	uint64_t nr = number_before(code, arm_get64(gp + 8 * 8));

	if (arm_get32(code + TF_CODE_AROUND) != SVC_0)
		return TF_AT_NO_CALL;
	arm_put64(gp + 8 * 8, nr);
	*ret_nr = tf_arch_next_call(regs, ret_arg);
	return TF_AT_CALL;
}

void tf_arch_task_give_up(struct tf_regs *regs, int error)
{
	uint8_t *gp = tf_regs_find(regs, NT_PRSTATUS)->data;

	arm_put64(gp + G_PC * 8, arm_get64(gp + G_PC * 8) + 4);
	arm_put64(gp + G_X0 * 8, (uint64_t) - (int64_t)error);
}

void tf_arch_task_go_on(struct tf_regs *regs)
{
	arm_put64(tf_regs_find(regs, NT_PRSTATUS)->data + 8 * 8, SYS_restart_syscall);
}

size_t tf_arch_find_syscall(const uint8_t *code, size_t n)
{
	for (size_t i = 0; i + 4 <= n; i += 4)
		if (arm_get32(code + i) == SVC_0)
			return i;
	return n;
}

static int put(int tid, uint8_t *gregs)
{
	struct iovec iov = {gregs, ARM_GREGS_SIZE};

	return ptrace(PTRACE_SETREGSET, tid, (void *)(uintptr_t)NT_PRSTATUS, &iov) ? -1 : 0;
}

#define RET        UINT32_C(0xd65f03c0)
#define MOV_X8_139 UINT32_C(0xd2801168) /* the vDSO's __kernel_rt_sigreturn */

void tf_arch_find_exits(const uint8_t *code, size_t n, uint64_t at, struct tf_exits *exits)
{
	for (size_t i = 0; i + 8 <= n; i += 4) {
		uint32_t first = arm_get32(code + i), second = arm_get32(code + i + 4);

		if (!exits->call_return && first == SVC_0 && second == RET)
			exits->call_return = at + i;
		if (!exits->sigreturn && first == MOV_X8_139 && second == SVC_0)
			exits->sigreturn = at + i;
	}
}

struct tf_call_way tf_arch_task_way(
	const struct tf_exits *exits, uint8_t *bytes, uint64_t frame, uint64_t sp)
{
	(void)bytes;
	(void)frame;
	return (struct tf_call_way){exits->call_return, sp, exits->sigreturn, sp};
}

/* x7 stays: the kernel marks it at stops of system calls and puts it back by itself. */
static void set_call(uint8_t *gregs, const struct tf_call_way *way, long nr, const uint64_t arg[6])
{
	arm_put64(gregs + G_PC * 8, way->at);
	arm_put64(gregs + 8 * 8, (uint64_t)nr);
	if (way->sp) {
		arm_put64(gregs + G_SP * 8, way->sp);
		arm_put64(gregs + G_LR * 8, way->link);
	}
	for (unsigned i = 0; i < 6; i++)
		arm_put64(gregs + i * 8, arg[i]);
}

void tf_arch_regs_call(
	struct tf_regs *regs, const struct tf_call_way *way, long nr, const uint64_t arg[6])
{
	set_call(tf_regs_find(regs, NT_PRSTATUS)->data, way, nr, arg);
}

int tf_arch_task_call(int tid, const struct tf_regs *regs, const struct tf_call_way *way, long nr,
	const uint64_t arg[6])
{
	uint8_t gregs[ARM_GREGS_SIZE];

	memcpy(gregs, tf_regs_find(regs, NT_PRSTATUS)->data, sizeof(gregs));
	set_call(gregs, way, nr, arg);
	return put(tid, gregs);
}

/* x19: struct tf_batch_call, x20: how many */
__asm__(".pushsection .rodata\n"
	"	.balign 4\n"
	"batch_code:\n"
	"1:	ldr x8, [x19]\n"
	"	ldp x0, x1, [x19, #8]\n"
	"	ldp x2, x3, [x19, #24]\n"
	"	ldp x4, x5, [x19, #40]\n"
	"	svc #0\n"
	"	str x0, [x19, #56]\n"
	"	add x19, x19, #96\n"
	"	subs x20, x20, #1\n"
	"	b.ne 1b\n"
	"	mov x8, #139\n" /* rt_sigreturn */
	"	svc #0\n"
	"batch_code_end:\n"
	".popsection\n");

/* Hidden: not by way of the GOT, where symbols that only the assembler knows become one. */
extern __attribute__((visibility("hidden"))) const uint8_t batch_code[];
extern __attribute__((visibility("hidden"))) const uint8_t batch_code_end[];

size_t tf_arch_batch_code(const uint8_t **ret_code)
{
	_Static_assert(offsetof(struct tf_batch_call, result) == 56, "as the code has it");
	_Static_assert(sizeof(struct tf_batch_call) == 96, "as the code has it");
	*ret_code = batch_code;
	return (size_t)(batch_code_end - batch_code);
}

int tf_arch_task_batch(int tid, const struct tf_regs *regs, const struct tf_call_way *way,
	uint64_t code, uint64_t calls, uint64_t n)
{
	uint8_t gregs[ARM_GREGS_SIZE];

	memcpy(gregs, tf_regs_find(regs, NT_PRSTATUS)->data, sizeof(gregs));
	arm_put64(gregs + G_PC * 8, code);
	arm_put64(gregs + G_SP * 8, way->frame);
	arm_put64(gregs + 19 * 8, calls);
	arm_put64(gregs + 20 * 8, n);
	return put(tid, gregs);
}

int64_t tf_arch_task_result(int tid)
{
	uint8_t gregs[ARM_GREGS_SIZE];

	if (get(tid, NT_PRSTATUS, gregs, sizeof(gregs)) != sizeof(gregs))
		return -errno;
	return (int64_t)arm_get64(gregs + G_X0 * 8);
}

int tf_arch_task_put(int tid, const struct tf_regs *regs)
{
	const struct tf_regset *sve = tf_regs_find(regs, NT_ARM_SVE);

	/* A system call drops what z has beyond v, and p and FFR
	 * (Documentation/arch/arm64/sve.rst, 4). */
	if (sve) {
		struct iovec iov = {sve->data, sve->size};

		if (ptrace(PTRACE_SETREGSET, tid, (void *)(uintptr_t)NT_ARM_SVE, &iov))
			return -1;
	}
	return put(tid, tf_regs_find(regs, NT_PRSTATUS)->data);
}
