/* SPDX-License-Identifier: MIT */
/*
 * aarch64 for the freestanding restorer: see arch/restorer.h. Everything is inlined into position-
 * independent code that runs without a stack guard, without libc and without vector registers.
 */
#ifndef TF_ARCH_AARCH64_RESTORER_H
#define TF_ARCH_AARCH64_RESTORER_H

#include <stdbool.h>
#include <stdint.h>

/* What tests/unit/test_arch.c needs of the architecture. */
#define TF_ARCH_TESTING_HEADER "arch/aarch64/testing.h"

/* include/uapi/asm-generic/unistd.h; there is no poll: use ppoll. */
#define TF_R_NR_dup3          24
#define TF_R_NR_ioctl         29
#define TF_R_NR_close         57
#define TF_R_NR_pipe2         59
#define TF_R_NR_read          63
#define TF_R_NR_write         64
#define TF_R_NR_pread64       67
#define TF_R_NR_ppoll         73
#define TF_R_NR_exit          93
#define TF_R_NR_exit_group    94
#define TF_R_NR_futex         98
#define TF_R_NR_clock_gettime 113
#define TF_R_NR_kill          129
#define TF_R_NR_tgkill        131
#define TF_R_NR_rt_sigreturn  139
#define TF_R_NR_getpid        172
#define TF_R_NR_gettid        178
#define TF_R_NR_sendto        206
#define TF_R_NR_recvfrom      207
#define TF_R_NR_clone         220
#define TF_R_NR_mincore       232
#define TF_R_NR_madvise       233
#define TF_R_NR_wait4         260
#define TF_R_NR_clone3        435

static inline long tf_r_syscall(long nr, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc #0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory", "cc");
	return x0;
}

static inline _Noreturn void tf_r_sigreturn(uint64_t sp)
{
	__asm__ volatile("mov sp, %0\n\t"
			 "mov x8, %1\n\t"
			 "svc #0\n\t"
			 "brk #1"
			 :
			 : "r"(sp), "i"(TF_R_NR_rt_sigreturn)
			 : "memory");
	__builtin_unreachable();
}

/* code 0 is TF_ARCH_TPIDR_EL0 of core/restore/plan.h. */
static inline void tf_r_arch(uint32_t code, uint64_t value)
{
	if (code == 0)
		__asm__ volatile("msr tpidr_el0, %0" : : "r"(value) : "memory");
}

/* pacia1716, pacib1716: in the hint space, so that any assembler and processor takes them. */
static inline uint64_t tf_r_sign(uint64_t value, uint64_t modifier, uint64_t key)
{
	register uint64_t x16 __asm__("x16") = modifier;
	register uint64_t x17 __asm__("x17") = value;

	if (key)
		__asm__ volatile("hint #10" : "+r"(x17) : "r"(x16));
	else
		__asm__ volatile("hint #8" : "+r"(x17) : "r"(x16));
	return x17;
}

/* The tag that the register's pointer has becomes that of the memory, whatever it had. */
static inline long tf_r_tag(uint64_t address, uint64_t tag)
{
	register uint64_t x16 __asm__("x16") = address | tag << 56;

	/* stg x16, [x16], which assemblers take for processors of Armv8.5 only */
	__asm__ volatile(".inst 0xd9200a10" : : "r"(x16) : "memory");
	return 0;
}

/* Arm ARM, B2.4.4: clean data to the point of unification, then invalidate instructions, by the
 * line sizes that CTR_EL0 tells. */
static inline void tf_r_flush(uint64_t start, uint64_t size)
{
	uint64_t ctr, dline, iline, end = start + size;

	__asm__ volatile("mrs %0, ctr_el0" : "=r"(ctr));
	dline = UINT64_C(4) << (ctr >> 16 & 15);
	iline = UINT64_C(4) << (ctr & 15);
	for (uint64_t p = start & ~(dline - 1); p < end; p += dline)
		__asm__ volatile("dc cvau, %0" : : "r"(p) : "memory");
	__asm__ volatile("dsb ish" : : : "memory");
	for (uint64_t p = start & ~(iline - 1); p < end; p += iline)
		__asm__ volatile("ic ivau, %0" : : "r"(p) : "memory");
	__asm__ volatile("dsb ish\n\tisb" : : : "memory");
}

/* One step of the processor's CRC32C, over 8 bytes. */
static inline __attribute__((always_inline)) uint64_t tf_r_crc32c_word(uint64_t crc, uint64_t word)
{
	__asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(word));
	return crc;
}

/* The same over one byte. */
static inline __attribute__((always_inline)) uint64_t tf_r_crc32c_byte(uint64_t crc, uint8_t byte)
{
	__asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"(byte));
	return crc;
}

/* The new thread has the registers of the old one, but for its stack pointer and the result. */
static inline long tf_r_clone(
	long nr, uint64_t a, uint64_t b, uint64_t code, uint64_t plan, uint64_t first)
{
	register uint64_t x8 __asm__("x8") = (uint64_t)nr;
	register uint64_t x0 __asm__("x0") = a;
	register uint64_t x1 __asm__("x1") = b;
	register uint64_t x2 __asm__("x2") = 0;
	register uint64_t x3 __asm__("x3") = 0;
	register uint64_t x4 __asm__("x4") = 0;
	register uint64_t x9 __asm__("x9") = code;
	register uint64_t x10 __asm__("x10") = plan;
	register uint64_t x11 __asm__("x11") = first;

	__asm__ volatile("svc #0\n\t"
			 "cbnz x0, 1f\n\t"
			 "mov x29, xzr\n\t"
			 "mov x30, xzr\n\t"
			 "mov x0, x10\n\t"
			 "mov x1, x11\n\t"
			 "br x9\n"
			 "1:"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x9), "r"(x10), "r"(x11)
			 : "memory", "cc");
	return (long)x0;
}

/* mrs, of the thread pointer. */
static inline __attribute__((unused)) bool tf_r_asks_thread(const uint8_t *code, uint64_t n)
{
	for (uint64_t i = 0; i + 4 <= n; i += 4)
		if ((code[i] & 0xe0) == 0x40 && code[i + 1] == 0xd0 && code[i + 2] == 0x3b &&
			code[i + 3] == 0xd5)
			return true;
	return false;
}

static inline _Noreturn void tf_r_enter(uint64_t code, uint64_t stack_top, uint64_t plan)
{
	register uint64_t x0 __asm__("x0") = plan;

	__asm__ volatile("mov sp, %1\n\t"
			 "mov x29, xzr\n\t"
			 "mov x30, xzr\n\t"
			 "br %0"
			 :
			 : "r"(code), "r"(stack_top & ~UINT64_C(15)), "r"(x0)
			 : "memory");
	__builtin_unreachable();
}

#endif
