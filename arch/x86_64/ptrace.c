/* SPDX-License-Identifier: MIT */
/*
 * x86_64 registers of another process, by PTRACE_GETREGSET. The kernel gives the XSAVE area in
 * standard format at the processor's own offsets, like a frame, but always in full; what this
 * process could not use is left out, as it is from frames.
 */
#include "arch/arch.h"
#include "arch/x86_64/layout.h"

#include <elf.h>
#include <errno.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>

static long get(int tid, uint32_t type, void *to, size_t size)
{
	struct iovec iov = {to, size};

	return ptrace(PTRACE_GETREGSET, tid, (void *)(uintptr_t)type, &iov) ? -1
									    : (long)iov.iov_len;
}

/* A regset of fixed size. */
static int add(int tid, uint32_t type, const char *name, uint32_t size, struct tf_arena *a,
	struct tf_regs *regs, struct tf_err *e)
{
	struct tf_regset *set = tf_regs_add(regs, a, type, size);
	long got;

	if (!set)
		return tf_fail(e, TELEFORK_E_NOMEM, "%s: out of memory", name);
	got = get(tid, type, set->data, size);
	if (got < 0)
		return tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "%s of thread %d", name, tid);
	/* The kernel answers as i386 for a thread that is in such code. */
	return got == (long)size ? 0
				 : tf_fail(e, TELEFORK_E_UNSUPPORTED,
					   "thread %d runs 32-bit code: try again later", tid);
}

/* The legacy registers are in both: the kernel is asked once. */
static int add_xstate(int tid, const struct tf_cpu *cpu, struct tf_arena *a, struct tf_regs *regs,
	struct tf_err *e)
{
	struct tf_regset *fx = tf_regs_add(regs, a, NT_FPREGSET, FX_SIZE);
	struct tf_regset *set = tf_regs_add(regs, a, NT_X86_XSTATE, cpu->xsave_size);
	uint8_t area[TF_REGSET_MAX];
	uint64_t bv;
	long size;

	if (!fx || !set)
		return tf_fail(e, TELEFORK_E_NOMEM, "NT_X86_XSTATE: out of memory");
	size = get(tid, NT_X86_XSTATE, area, sizeof(area));
	if (size < XS_MIN_SIZE)
		return tf_fail_errno(
			e, TELEFORK_E_SYSTEM, errno, "NT_X86_XSTATE of thread %d", tid);
	bv = x86_get64(area + XS_XSTATE_BV);
	if (bv & ~cpu->xcr0)
		return tf_fail(e, TELEFORK_E_UNSUPPORTED,
			"thread %d has %s registers in use, which are not carried", tid,
			x86_component_name((unsigned)__builtin_ctzll(bv & ~cpu->xcr0)));
	x86_legacy(set->data, area, bv);
	memcpy(fx->data, set->data, FX_SIZE);
	for (unsigned i = XC_AVX; i < TF_XCOMPONENTS; i++) {
		uint32_t offset = cpu->xcomp[i].offset, n = cpu->xcomp[i].size;

		if ((bv & XC_BIT(i)) && offset + n <= (uint64_t)size)
			memcpy(set->data + offset, area + offset, n);
	}
	x86_put64(set->data + FX_SW, cpu->xcr0);
	x86_put64(set->data + XS_XSTATE_BV, bv | XC_LEGACY);
	return 0;
}

int tf_arch_regs_from_task(
	int tid, struct tf_cpu *cpu, struct tf_arena *a, struct tf_regs *regs, struct tf_err *e)
{
	int rc = add(tid, NT_PRSTATUS, "NT_PRSTATUS", X86_GREGS_SIZE, a, regs, e);

	if (rc)
		return rc;
	return cpu->xcr0 ? add_xstate(tid, cpu, a, regs, e)
			 : add(tid, NT_FPREGSET, "NT_FPREGSET", FX_SIZE, a, regs, e);
}

/* The kernel's own, include/linux/errno.h: a call that is to be made again. */
enum { RESTARTSYS = 512, RESTARTNOINTR = 513, RESTARTNOHAND = 514, RESTART_RESTARTBLOCK = 516 };

static bool to_restart(int64_t rax)
{
	return rax == -RESTARTSYS || rax == -RESTARTNOINTR || rax == -RESTARTNOHAND ||
	       rax == -RESTART_RESTARTBLOCK;
}

/* A call that was continued once already has its number no more, but in "mov $nr, %eax; syscall".
 */
static uint64_t number_before(const uint8_t code[2 * TF_CODE_AROUND], uint64_t nr)
{
	const uint8_t *mov = code + TF_CODE_AROUND - 7;

	return nr == SYS_restart_syscall && *mov == 0xb8 ? x86_get32(mov + 1) : nr;
}

long tf_arch_next_call(const struct tf_regs *regs, uint64_t ret_arg[6])
{
	static const uint8_t order[6] = {G_RDI, G_RSI, G_RDX, G_R10, G_R8, G_R9};
	const struct tf_regset *set = tf_regs_find(regs, NT_PRSTATUS);
	const uint8_t *gp;

	if (!set)
		return -1;
	gp = set->data;
	for (unsigned i = 0; i < 6; i++)
		ret_arg[i] = x86_get64(gp + order[i] * 8);
	return (long)x86_get64(gp + G_RAX * 8);
}

enum tf_at_call tf_arch_task_rewind(struct tf_regs *regs, const uint8_t code[2 * TF_CODE_AROUND],
	long *ret_nr, uint64_t ret_arg[6])
{
	uint8_t *gp = tf_regs_find(regs, NT_PRSTATUS)->data;
	uint64_t nr = x86_get64(gp + G_ORIG_RAX * 8);

	if ((int64_t)nr < 0 || !to_restart((int64_t)x86_get64(gp + G_RAX * 8)))
		return TF_AT_NO_CALL;
	nr = number_before(code, nr);
	x86_put64(gp + G_RIP * 8, x86_get64(gp + G_RIP * 8) - 2);
	x86_put64(gp + G_RAX * 8, nr);
	x86_put64(gp + G_ORIG_RAX * 8, UINT64_MAX);
	*ret_nr = tf_arch_next_call(regs, ret_arg);
	return TF_IN_CALL;
}

void tf_arch_task_give_up(struct tf_regs *regs, int error)
{
	uint8_t *gp = tf_regs_find(regs, NT_PRSTATUS)->data;

	x86_put64(gp + G_RIP * 8, x86_get64(gp + G_RIP * 8) + 2);
	x86_put64(gp + G_RAX * 8, (uint64_t) - (int64_t)error);
}

/* The kernel sees it by the registers; those of a call that was found so are. */
void tf_arch_task_go_on(struct tf_regs *regs)
{
	uint8_t *gp = tf_regs_find(regs, NT_PRSTATUS)->data;

	if ((int64_t)x86_get64(gp + G_ORIG_RAX * 8) >= 0)
		return;
	x86_put64(gp + G_ORIG_RAX * 8, x86_get64(gp + G_RAX * 8));
	x86_put64(gp + G_RAX * 8, -(uint64_t)RESTART_RESTARTBLOCK);
	x86_put64(gp + G_RIP * 8, x86_get64(gp + G_RIP * 8) + 2);
}

size_t tf_arch_find_syscall(const uint8_t *code, size_t n)
{
	for (size_t i = 0; i + 2 <= n; i++)
		if (code[i] == 0x0f && code[i + 1] == 0x05)
			return i;
	return n;
}

static int put(int tid, uint8_t *gregs)
{
	struct iovec iov = {gregs, X86_GREGS_SIZE};

	return ptrace(PTRACE_SETREGSET, tid, (void *)(uintptr_t)NT_PRSTATUS, &iov) ? -1 : 0;
}

static bool ends_with(const uint8_t *code, size_t at, const uint8_t *what, size_t n)
{
	return at >= n && !memcmp(code + at - n, what, n);
}

/* "syscall; ret", and what every C library has for SA_RESTORER: "mov $15, %rax; syscall". A
 * program's code is searched while somebody waits: by the syscalls' second byte, which is rare. */
void tf_arch_find_exits(const uint8_t *code, size_t n, uint64_t at, struct tf_exits *exits)
{
	static const uint8_t restorer[] = {0x48, 0xc7, 0xc0, 15, 0, 0, 0};
	static const uint8_t shorter[] = {0xb8, 15, 0, 0, 0};
	const uint8_t *p = code;

	while ((p = memchr(p, 0x05, n - (size_t)(p - code)))) {
		size_t call = (size_t)(p - code) - 1;

		p++;
		if (p - code < 2 || p[-2] != 0x0f)
			continue;
		if (!exits->call_return && call + 2 < n && code[call + 2] == 0xc3)
			exits->call_return = at + call;
		if (exits->sigreturn)
			continue;
		if (ends_with(code, call, restorer, sizeof(restorer)))
			exits->sigreturn = at + call - sizeof(restorer);
		else if (ends_with(code, call, shorter, sizeof(shorter)))
			exits->sigreturn = at + call - sizeof(shorter);
	}
}

struct tf_call_way tf_arch_task_way(
	const struct tf_exits *exits, uint8_t *bytes, uint64_t frame, uint64_t sp)
{
	x86_put64(bytes + (sp - 8 - frame), exits->sigreturn);
	return (struct tf_call_way){exits->call_return, sp - 8, exits->sigreturn, sp};
}

static void set_call(uint8_t *gregs, const struct tf_call_way *way, long nr, const uint64_t arg[6])
{
	static const uint8_t order[6] = {G_RDI, G_RSI, G_RDX, G_R10, G_R8, G_R9};

	x86_put64(gregs + G_RIP * 8, way->at);
	x86_put64(gregs + G_RAX * 8, (uint64_t)nr);
	x86_put64(gregs + G_ORIG_RAX * 8, UINT64_MAX);
	if (way->sp)
		x86_put64(gregs + G_RSP * 8, way->sp);
	for (unsigned i = 0; i < 6; i++)
		x86_put64(gregs + order[i] * 8, arg[i]);
}

void tf_arch_regs_call(
	struct tf_regs *regs, const struct tf_call_way *way, long nr, const uint64_t arg[6])
{
	set_call(tf_regs_find(regs, NT_PRSTATUS)->data, way, nr, arg);
}

int tf_arch_task_call(int tid, const struct tf_regs *regs, const struct tf_call_way *way, long nr,
	const uint64_t arg[6])
{
	uint8_t gregs[X86_GREGS_SIZE];

	memcpy(gregs, tf_regs_find(regs, NT_PRSTATUS)->data, sizeof(gregs));
	set_call(gregs, way, nr, arg);
	return put(tid, gregs);
}

/* r12: struct tf_batch_call, r13: how many */
__asm__(".pushsection .rodata\n"
	"batch_code:\n"
	"1:	mov (%r12), %rax\n"
	"	mov 8(%r12), %rdi\n"
	"	mov 16(%r12), %rsi\n"
	"	mov 24(%r12), %rdx\n"
	"	mov 32(%r12), %r10\n"
	"	mov 40(%r12), %r8\n"
	"	mov 48(%r12), %r9\n"
	"	syscall\n"
	"	mov %rax, 56(%r12)\n"
	"	add $96, %r12\n"
	"	dec %r13\n"
	"	jnz 1b\n"
	"	mov $15, %eax\n" /* rt_sigreturn */
	"	syscall\n"
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
	uint8_t gregs[X86_GREGS_SIZE];

	memcpy(gregs, tf_regs_find(regs, NT_PRSTATUS)->data, sizeof(gregs));
	x86_put64(gregs + G_ORIG_RAX * 8, UINT64_MAX);
	x86_put64(gregs + G_RIP * 8, code);
	x86_put64(gregs + G_RSP * 8, way->frame);
	x86_put64(gregs + G_R12 * 8, calls);
	x86_put64(gregs + G_R13 * 8, n);
	return put(tid, gregs);
}

int64_t tf_arch_task_result(int tid)
{
	uint8_t gregs[X86_GREGS_SIZE];

	if (get(tid, NT_PRSTATUS, gregs, sizeof(gregs)) != sizeof(gregs))
		return -errno;
	return (int64_t)x86_get64(gregs + G_RAX * 8);
}

int tf_arch_task_put(int tid, const struct tf_regs *regs)
{
	return put(tid, tf_regs_find(regs, NT_PRSTATUS)->data);
}

int tf_arch_tags_of_task(int tid, uint64_t addr, uint64_t tags[static TF_TAGS_WORDS])
{
	(void)tid;
	(void)addr;
	memset(tags, 0, TF_TAGS_WORDS * sizeof(*tags));
	return 0;
}
