/* SPDX-License-Identifier: MIT */
/*
 * x86_64 for the register probe: see tests/probes/registers.h. General registers stand as in
 * user_regs_struct, floating point ones as XSAVE (or FXSAVE) lays them out: the processor's own
 * instructions load and store them. No flag changes between the load and the store.
 */

#define R15	(0 * 8)
#define R14	(1 * 8)
#define R13	(2 * 8)
#define R12	(3 * 8)
#define RBP	(4 * 8)
#define RBX	(5 * 8)
#define R11	(6 * 8)
#define R10	(7 * 8)
#define R9	(8 * 8)
#define R8	(9 * 8)
#define RAX	(10 * 8)
#define RCX	(11 * 8)
#define RDX	(12 * 8)
#define RSI	(13 * 8)
#define RDI	(14 * 8)
#define RIP	(16 * 8)
#define EFLAGS	(18 * 8)
#define RSP	(19 * 8)
#define FS_BASE	(21 * 8)
#define GS_BASE	(22 * 8)

/* struct registers_state */
#define GENERAL	 0
#define FLOATING 8
#define EXTENDED 16
#define MASK	 32

#define GENERATION (tf_mailbox + 28)

#define SYS_arch_prctl 158
#define ARCH_SET_GS    0x1001
#define ARCH_SET_FS    0x1002
#define ARCH_GET_FS    0x1003
#define ARCH_GET_GS    0x1004

	.bss
	.p2align 3
load:	.skip	8	/* general registers as they were loaded */
store:	.skip	8	/* struct registers_state to fill */
target:	.skip	8	/* where to stay */
rax:	.skip	8
rcx:	.skip	8	/* as found in the register at the last moment */

	.text

/* arch_prctl(code, %rsi) */
	.macro	base code
	movl	$SYS_arch_prctl, %eax
	movl	$\code, %edi
	syscall
	.endm

	.macro	edx_eax_mask state
	movl	MASK(\state), %eax
	movl	MASK+4(\state), %edx
	.endm

/* void registers_spin(struct registers_state *load, struct registers_state *store, bool hold) */
	.globl	registers_spin
	.type	registers_spin, @function
registers_spin:
	.cfi_startproc
	endbr64
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	movq	GENERAL(%rdi), %rbx
	movq	%rdi, %rbp
	movq	%rbx, load(%rip)
	movq	%rsi, store(%rip)
	leaq	registers_begin(%rip), %rax
	leaq	registers_held(%rip), %rcx
	testb	%dl, %dl
	cmovnz	%rcx, %rax
	movq	%rax, target(%rip)
	movq	%rax, RIP(%rbx)
	movq	%rsp, RSP(%rbx)
	leaq	FS_BASE(%rbx), %rsi
	base	ARCH_GET_FS
	movq	GS_BASE(%rbx), %rsi
	base	ARCH_SET_GS
	movq	EXTENDED(%rbp), %rdi
	testq	%rdi, %rdi
	jz	1f
	edx_eax_mask %rbp
	xrstor64 (%rdi)
	jmp	2f
1:	movq	FLOATING(%rbp), %rdi
	fxrstor64 (%rdi)
2:	pushq	EFLAGS(%rbx)
	popfq
	movq	R15(%rbx), %r15
	movq	R14(%rbx), %r14
	movq	R13(%rbx), %r13
	movq	R12(%rbx), %r12
	movq	RBP(%rbx), %rbp
	movq	R11(%rbx), %r11
	movq	R10(%rbx), %r10
	movq	R9(%rbx), %r9
	movq	R8(%rbx), %r8
	movq	RAX(%rbx), %rax
	movq	RCX(%rbx), %rcx
	movq	RDX(%rbx), %rdx
	movq	RSI(%rbx), %rsi
	movq	RDI(%rbx), %rdi
	movq	RBX(%rbx), %rbx
	jmp	*target(%rip)

	.globl	registers_held
registers_held:
	jmp	registers_held

	.globl	registers_begin, registers_end
registers_begin:
	pause
	movq	%rcx, rcx(%rip)
registers_end:
	movl	GENERATION(%rip), %ecx
	jrcxz	1f
	movq	rcx(%rip), %rcx
	jmp	registers_leave
1:	movq	rcx(%rip), %rcx
	jmp	registers_begin

	.globl	registers_leave
registers_leave:
	movq	%rax, rax(%rip)
	movq	store(%rip), %rax
	movq	GENERAL(%rax), %rax
	movq	%r15, R15(%rax)
	movq	%r14, R14(%rax)
	movq	%r13, R13(%rax)
	movq	%r12, R12(%rax)
	movq	%rbp, RBP(%rax)
	movq	%rbx, RBX(%rax)
	movq	%r11, R11(%rax)
	movq	%r10, R10(%rax)
	movq	%r9, R9(%rax)
	movq	%r8, R8(%rax)
	movq	%rcx, RCX(%rax)
	movq	%rdx, RDX(%rax)
	movq	%rsi, RSI(%rax)
	movq	%rdi, RDI(%rax)
	movq	%rsp, RSP(%rax)
	movq	rax(%rip), %rcx
	movq	%rcx, RAX(%rax)
	movq	load(%rip), %rbx
	movq	RSP(%rbx), %rsp		/* the stack as it should be, so that a loss can be told */
	pushfq
	popq	EFLAGS(%rax)
	cld
	movq	target(%rip), %rcx	/* the only place from which a way leads here */
	movq	%rcx, RIP(%rax)
	movq	%rax, %r12
	movq	store(%rip), %rbp
	movq	EXTENDED(%rbp), %rdi
	testq	%rdi, %rdi
	jz	1f
	edx_eax_mask %rbp
	xsave64	(%rdi)
1:	movq	FLOATING(%rbp), %rdi
	fxsave64 (%rdi)
	fninit
	pushq	$0x1f80
	ldmxcsr	(%rsp)
	popq	%rax
	leaq	FS_BASE(%r12), %rsi
	base	ARCH_GET_FS
	leaq	GS_BASE(%r12), %rsi
	base	ARCH_GET_GS
	movq	FS_BASE(%rbx), %rsi
	base	ARCH_SET_FS
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ret
	.cfi_endproc
	.size	registers_spin, . - registers_spin

/* void registers_handler(int signo, siginfo_t *info, void *ucontext): QEMU leaves DF and MXCSR as the
 * interrupted code had them, and 7.2 does not align the stack. */
	.globl	registers_handler
	.type	registers_handler, @function
registers_handler:
	endbr64
	cld
	pushq	%rbp
	movq	%rsp, %rbp
	andq	$-16, %rsp
	subq	$16, %rsp
	movl	$0x1f80, 8(%rsp)
	ldmxcsr	8(%rsp)
	fninit
	call	registers_signal@PLT
	leave
	ret
	.size	registers_handler, . - registers_handler

	.section .note.GNU-stack, "", @progbits
