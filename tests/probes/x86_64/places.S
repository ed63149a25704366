/* SPDX-License-Identifier: MIT */
/* Code that is captured at each of its instructions: tests/unit/test_places.c. */
	.text
	.globl places_begin, places_end, places_calls, places_string, places_frame, places_trap
	.globl places_skip, places_sequence, places_sequence_start, places_sequence_abort

/* A walk is from the one to the other. */
places_begin:
	ret
places_end:
	ret

/* long places_calls(int fd): the position of the file, once it has gone on a byte twice. */
places_calls:
	mov $8, %eax /* lseek(fd, 1, SEEK_CUR) */
	mov $1, %esi
	mov $1, %edx
	syscall
	mov %rax, %r8
	mov $8, %eax
	syscall
	lea (%rax, %r8), %rax
	ret

/* void places_string(void *to, const void *from, size_t n) */
places_string:
	mov %rdx, %rcx
	rep movsb
	ret

/* long places_frame(long x): x + 5, by way of frames and of the red zone. */
places_frame:
	push %rbp
	mov %rsp, %rbp
	add $1, %rdi
	call 1f
	add $1, %rax
	leave
	ret
1:	mov %rdi, -8(%rsp)
	mov $3, %eax
	add -8(%rsp), %rax
	ret

/* SIGILL; its handler calls places_skip(ucontext). */
places_trap:
	ud2
	ret
places_skip:
	addq $2, 168(%rdi) /* uc_mcontext.gregs[REG_RIP] */
	ret

/* void places_sequence(struct rseq *, volatile int *told, volatile long *aborts): a restartable
 * sequence that ends when it is told to. */
places_sequence:
	lea 3f(%rip), %rax
1:	mov %rax, 8(%rdi)
places_sequence_start:
	cmpl $0, (%rsi)
	nop
	je places_sequence_start
2:	movq $0, 8(%rdi)
	ret
	.long 0x53053053 /* RSEQ_SIG */
places_sequence_abort:
	incq (%rdx)
	jmp 1b

	.data
	.balign 32
3:	.long 0, 0
	.quad places_sequence_start, 2b - places_sequence_start, places_sequence_abort

	.section .note.GNU-stack, "", @progbits
