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
	mov x3, x0
	mov x8, #62 /* lseek(fd, 1, SEEK_CUR) */
	mov x1, #1
	mov x2, #1
	svc #0
	mov x4, x0
	mov x0, x3
	svc #0
	add x0, x0, x4
	ret

/* void places_string(void *to, const void *from, size_t n) */
places_string:
	ldrb w3, [x1], #1
	strb w3, [x0], #1
	subs x2, x2, #1
	b.ne places_string
	ret

/* long places_frame(long x): x + 5, by way of signed return addresses. */
places_frame:
	hint #25 /* paciasp */
	stp x29, x30, [sp, #-16]!
	mov x29, sp
	add x0, x0, #1
	bl 1f
	add x0, x0, #1
	ldp x29, x30, [sp], #16
	hint #29 /* autiasp */
	ret
1:	hint #25
	str x30, [sp, #-16]!
	add x0, x0, #3
	ldr x30, [sp], #16
	hint #29
	ret

/* SIGILL; its handler calls places_skip(ucontext). */
places_trap:
	udf #0
	ret
places_skip:
	ldr x1, [x0, #440] /* uc_mcontext.pc */
	add x1, x1, #4
	str x1, [x0, #440]
	ret

/* void places_sequence(struct rseq *, volatile int *told, volatile long *aborts): a restartable
 * sequence that ends when it is told to. */
places_sequence:
	adrp x3, 3f
	add x3, x3, :lo12:3f
1:	str x3, [x0, #8]
places_sequence_start:
	ldr w4, [x1]
	nop
	cbz w4, places_sequence_start
2:	str xzr, [x0, #8]
	ret
	.inst 0xd428bc00 /* RSEQ_SIG */
places_sequence_abort:
	ldr x4, [x2]
	add x4, x4, #1
	str x4, [x2]
	b 1b

	.data
	.balign 32
3:	.long 0, 0
	.quad places_sequence_start, 2b - places_sequence_start, places_sequence_abort

	.section .note.GNU-stack, "", %progbits
