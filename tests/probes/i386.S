/* SPDX-License-Identifier: MIT */
/* A 32-bit program, without a C library: says "ready process", waits for SIGUSR1, says "works". Built by
 * `as --32` and `ld -m elf_i386`, which need no package; by `as --defsym MIXED=1` and `ld` it is a 64-bit
 * one that goes on in 32-bit code. */
	.text
	.globl	_start
_start:
	.ifdef	MIXED
	.code64
	pushq	$0x23			/* __USER32_CS */
	pushq	$narrow
	lretq
	.code32
narrow:
	.endif
	movl	$175, %eax		/* rt_sigprocmask(SIG_BLOCK, &set, NULL, 8) */
	xorl	%ebx, %ebx
	movl	$set, %ecx
	xorl	%edx, %edx
	movl	$8, %esi
	int	$0x80
	movl	$4, %eax		/* write(1, ready) */
	movl	$1, %ebx
	movl	$ready, %ecx
	movl	$ready_end - ready, %edx
	int	$0x80
1:	movl	$177, %eax		/* rt_sigtimedwait(&set, NULL, NULL, 8) */
	movl	$set, %ebx
	xorl	%ecx, %ecx
	xorl	%edx, %edx
	movl	$8, %esi
	int	$0x80
	cmpl	$10, %eax
	jne	1b
	movl	$4, %eax
	movl	$1, %ebx
	movl	$works, %ecx
	movl	$works_end - works, %edx
	int	$0x80
	movl	$1, %eax
	xorl	%ebx, %ebx
	int	$0x80
	.section .rodata
set:	.quad	1 << 9			/* SIGUSR1 */
ready:	.ascii	"ready process\n"
ready_end:
works:	.ascii	"works\n"
works_end:
	.section .note.GNU-stack, "", @progbits
