/* SPDX-License-Identifier: MIT */
/*
 * What core/ asks of the architecture it was built for. Every backend (arch/<name>/) defines every
 * function declared here, and no other external one: make lint compares the lists. A hook that has
 * nothing to do is a function with an empty body. Functions marked [child] may run in a forked
 * child or a signal handler: no allocator, no lock.
 *
 * The freestanding restorer cannot call functions of the library; what it needs is in
 * arch/<name>/restorer.h as static inline functions (see
 * arch/restorer.h). */
#ifndef TF_ARCH_ARCH_H
#define TF_ARCH_ARCH_H

#include "arch/regs.h"
#include "core/image/image.h"
#include "core/restore/plan.h"

/* The table of the architecture that this build runs on. */
const struct tf_arch *tf_arch_native(void);

/* --- capture [child] --- */

/* Fills *cpu with the running thread's processor: the features in use by this process's C library
 * where it can tell (x86_64: glibc's active set, less each "-NAME" of glibc.cpu.hwcaps in the
 * environment's GLIBC_TUNABLES, which glibc ignores for most names: there it is the user's word
 * that the program does not use that feature; aarch64: AT_HWCAP, AT_HWCAP2), XSAVE layout, vector
 * lengths. Only features with a name in tf_arch.features. in_use false: what the machine offers
 * (aarch64: sets each vector length once, and the old one again; the upper parts of z, and p, are
 * lost). [child] */
void tf_arch_cpu(struct tf_cpu *cpu, bool in_use);

/* What another program was told of its processor when it began, and what its C library noted. */
struct tf_cpu_clues {
	const char *env; /* the environment it began with: strings with zeros between */
	size_t env_size;
	const uint64_t *auxv; /* pairs {type, value} */
	uint32_t n_auxv;
	const uint8_t *noted; /* TF_CPU_NOTED bytes found by tf_arch_cpu_noted(); NULL: none */
};

#define TF_CPU_NOTED 288

/* Offset, in n bytes of a program's static storage, of what its C library noted of the processor
 * (x86_64: glibc 2.33 and later; elsewhere nothing that the auxiliary vector has not). n: not
 * there. */
size_t tf_arch_cpu_noted(const uint8_t *data, size_t n);

/* Puts into cpu->features those that the other program's C library uses, as tf_arch_cpu() does for
 * this one. Without notes: all that this machine offers (here: what tf_arch_cpu() says, not in
 * use), less what its GLIBC_TUNABLES hide. The rest of cpu is left as it is. */
void tf_arch_cpu_of(
	struct tf_cpu *cpu, const struct tf_cpu *here, const struct tf_cpu_clues *clues);

/* Turns the frame that the kernel laid on the stack for a signal (ucontext: third argument of the
 * handler) into regsets: NT_PRSTATUS, NT_FPREGSET, and NT_X86_XSTATE (standard format, all of
 * cpu->xcr0; initial values where XSTATE_BV is clear) or NT_ARM_SVE, NT_ARM_TLS. Adds what no frame
 * holds, read from the calling thread (fs and gs base, TPIDR_EL0). 0, -TELEFORK_E_NOMEM,
 * -TELEFORK_E_UNSUPPORTED (a frame record that we do not carry; named in e). [child] */
int tf_arch_regs_from_frame(const void *ucontext, const struct tf_cpu *cpu, struct tf_arena *a,
	struct tf_regs *regs, struct tf_err *e);

/* How the kernel and the processor check pointers of the calling thread (aarch64:
 * PR_GET_TAGGED_ADDR_CTRL, tagged addresses and memory tags); 0: there is nothing of the kind. */
uint64_t tf_arch_checks(void);

/* From now on every pointer is good that those checks let pass, and every other that leads to
 * memory. [child] */
void tf_arch_no_checks(uint64_t checks);

/* Adds them to the registers. 0, -TELEFORK_E_NOMEM. [child] */
int tf_arch_add_checks(struct tf_regs *regs, struct tf_arena *a, uint64_t checks);

/* Adds to the image's first thread, whose frame was read, what only a tracer can read (aarch64:
 * pointer authentication keys, from a twin, see core/base/twin.h), and TF_SOURCE_SIGNS. Needs img's
 * maps with data_end. 0, _NOMEM, _UNSUPPORTED (in use, and cannot be read: named in e). [child] */
int tf_arch_capture_traced(struct tf_image *img, struct tf_arena *a, struct tf_err *e);

/* Fills img->signatures: the signed return addresses of the first thread, whose registers and stack
 * are this process's own. Needs img's maps with data_end. 0, _NOMEM, _LIMIT. [child] */
int tf_arch_signatures(struct tf_image *img, struct tf_arena *a, struct tf_err *e);

/* Calls the handler by raising signo at the calling thread; returns value in the register
 * that tf_arch.set_result sets, that is: 0 here when the handler returned, and what was set in the
 * image when the copy resumes. The only instruction between capture and resumption is a system
 * call, so every register that a called function must preserve is in the frame. [child] */
long tf_arch_raise(int pid, int tid, int signo);

/* Calls handler with rules that every emulator keeps: DF clear, stack aligned, MXCSR usable. Use as
 * the SA_SIGINFO handler that is installed; calls tf_signal_entry(signo, info, ucontext).
 * [child] */
void tf_arch_signal_trampoline(int signo, void *info, void *ucontext);

/* Defined by core/capture/self.c: what the trampoline calls. [child] */
void tf_signal_entry(int signo, void *info, void *ucontext);

/* --- capture from outside: the thread tid is in a ptrace stop of ours --- */

/* Reads every regset that the tables of the architecture know and the thread has, in the same
 * layouts as tf_arch_regs_from_frame(). *cpu is this process's own; what belongs to the thread
 * (aarch64: vector length) is set in it. 0, -TELEFORK_E_NOMEM, -TELEFORK_E_SYSTEM (the regset's
 * name is in e), -TELEFORK_E_UNSUPPORTED (a state that no table has). */
int tf_arch_regs_from_task(
	int tid, struct tf_cpu *cpu, struct tf_arena *a, struct tf_regs *regs, struct tf_err *e);

/* Reads the memory tags of TF_TAGS_SIZE bytes at addr, which are present and may have some. 0, or
 * -1 with errno of ptrace. */
int tf_arch_tags_of_task(int tid, uint64_t addr, uint64_t tags[static TF_TAGS_WORDS]);

/* The same of the calling process, which may read them. [child] */
void tf_arch_tags(uint64_t addr, uint64_t tags[static TF_TAGS_WORDS]);

/* Where the thread stands, as far as registers tell. */
enum tf_at_call {
	TF_AT_NO_CALL,
	TF_AT_CALL, /* before a system call's instruction: the call may have been interrupted */
	TF_IN_CALL, /* in a system call that the kernel was about to start again */
};

/* Bytes of code around pc that the two below are given: as many before it as from it on. */
#define TF_CODE_AROUND 32

/* Tells the call and its arguments, and changes regs to those which make it anew, on any kernel: pc
 * at the instruction, the call's number and arguments in place. *ret_nr is SYS_restart_syscall
 * where the original's number is lost. */
enum tf_at_call tf_arch_task_rewind(struct tf_regs *regs, const uint8_t code[2 * TF_CODE_AROUND],
	long *ret_nr, uint64_t ret_arg[6]);

/* The call that a thread with these registers makes, if it stands at the instruction for it.
 * Returns its number. */
long tf_arch_next_call(const struct tf_regs *regs, uint64_t ret_arg[6]);

/* After tf_arch_task_rewind(): the call has returned -error instead. */
void tf_arch_task_give_up(struct tf_regs *regs, int error);

/* For a thread in a stop where the kernel still handles signals, and for which it keeps a call with
 * time left: makes of registers that were found in that call, or that make it anew, those with
 * which the kernel goes on with it. */
void tf_arch_task_go_on(struct tf_regs *regs);

/* Offset of a system call instruction in n bytes of code; n if there is none. */
size_t tf_arch_find_syscall(const uint8_t *code, size_t n);

/* Code of a process that a call of ours can end in, should we die meanwhile. 0: not found. */
struct tf_exits {
	uint64_t call_return; /* a system call instruction, and a return */
	uint64_t sigreturn;   /* makes the call rt_sigreturn */
};

/* Looks for what *exits still lacks in n bytes of code that stand at address at. */
void tf_arch_find_exits(const uint8_t *code, size_t n, uint64_t at, struct tf_exits *exits);

/* How a thread makes a call of ours: the instruction, and (sp not 0) the stack pointer that makes
 * it return to link, where it takes a signal frame off the stack; and the stack pointer for that.
 */
struct tf_call_way {
	uint64_t at, sp, link, frame;
};

/* The way of a call that ends in the frame that tf_arch_frame_from_regs() laid out in bytes for
 * address frame, with its sp. Completes bytes. */
struct tf_call_way tf_arch_task_way(
	const struct tf_exits *exits, uint8_t *bytes, uint64_t frame, uint64_t sp);

/* Changes the general registers in regs to those that make a thread run system call nr with these
 * arguments that way. */
void tf_arch_regs_call(
	struct tf_regs *regs, const struct tf_call_way *way, long nr, const uint64_t arg[6]);

/* Gives the thread the general registers of regs, but for those that make it run system call nr
 * with these arguments that way. 0, or -1 with errno of ptrace. */
int tf_arch_task_call(int tid, const struct tf_regs *regs, const struct tf_call_way *way, long nr,
	const uint64_t arg[6]);

/* What the call returned: a result, or -errno. */
int64_t tf_arch_task_result(int tid);

/* Calls that a thread makes on its own, one after the other. */
struct tf_batch_call {
	uint64_t nr, arg[6];
	int64_t result;    /* or -errno */
	uint8_t bytes[32]; /* where the call may have its answer written */
};

/* Code that makes them and then takes a signal frame off the stack; it may stand anywhere. Returns
 * its size. */
size_t tf_arch_batch_code(const uint8_t **ret_code);

/* Has the thread run that code, which stands at code, with the n calls at address calls; its frame
 * is that of way. 0, or -1 with errno of ptrace. */
int tf_arch_task_batch(int tid, const struct tf_regs *regs, const struct tf_call_way *way,
	uint64_t code, uint64_t calls, uint64_t n);

/* Gives the thread the general registers of regs. 0, or -1 with errno of ptrace. */
int tf_arch_task_put(int tid, const struct tf_regs *regs);

/* --- restore --- */

/* Bytes that a frame for these regsets needs on the destination, at most. */
size_t tf_arch_frame_size(const struct tf_regs *regs, const struct tf_cpu *dst);

/* Lays out in buf the signal frame from which rt_sigreturn restores the thread, as it will stand at
 * address addr (64-byte aligned) of the new process: regsets converted component by component from
 * src's layout to dst's, fresh magic. *ret_sp: the stack pointer at the rt_sigreturn instruction.
 * 0, -TELEFORK_E_LIMIT (len too small), -TELEFORK_E_INCOMPATIBLE (component in use that dst
 * lacks). */
int tf_arch_frame_from_regs(const struct tf_thread *thread, const struct tf_cpu *src,
	const struct tf_cpu *dst, uint8_t *buf, size_t len, uint64_t addr, uint64_t *ret_sp,
	struct tf_err *e);

/* Compares features in use, XSAVE components in use, vector length; appends to e (tf_fail_more,
 * TELEFORK_E_INCOMPATIBLE) every missing thing by name, and the command that avoids it. Returns the
 * number of missing things. */
unsigned tf_arch_compat(const struct tf_image *img, const struct tf_cpu *dst, struct tf_err *e);

/* Appends the steps that set what no frame holds (arch_prctl fs/gs; PR_SVE_SET_VL, TPIDR_EL0 …).
 * They run after memory is filled and right before rt_sigreturn. 0, or _IMAGE when the thread lacks
 * the regset; a full plan is told by plan->full. */
int tf_arch_plan_registers(struct tf_plan *plan, const struct tf_thread *thread);

/* Whether processes here have state that a restore sets by TRACER steps. */
bool tf_arch_traced(void);

/* Whether the thread has regsets for TRACER steps. */
bool tf_arch_has_traced(const struct tf_thread *thread);

/* Name of the state in use by this image that has to be set by TRACER steps and that nothing else
 * replaces ("pointer authentication keys"), or NULL. */
const char *tf_arch_traced_state(const struct tf_image *img);

/* Appends the TRACER steps for this thread, before the barrier. Returns their number. */
unsigned tf_arch_plan_traced(struct tf_plan *plan, const struct tf_thread *thread);

/* Offset, in the frame of tf_arch_frame_from_regs(), of the register that a called function finds
 * its return address in; 0: the architecture has none. */
size_t tf_arch_frame_link(void);

/* Offset, in that frame, of the general registers but for stack pointer and program counter;
 * *ret_n: how many, of 8 bytes each. */
size_t tf_arch_frame_general(size_t *ret_n);

/* Bits of those registers that a system call's number and its second argument are in. */
uint64_t tf_arch_frame_call(void);

/* PROT_* bits of this architecture that a mapping with these TF_VMF_* flags gets there (aarch64:
 * PROT_BTI and PROT_MTE, where the processor knows them). */
uint32_t tf_arch_map_prot(uint32_t vmflags, const struct tf_cpu *dst);

/* Machine code for a vDSO entry point: jump to target / make system call nr and return. Returns the
 * bytes written (at most 32). */
size_t tf_arch_code_jump(uint8_t code[static 32], uint64_t target);
size_t tf_arch_code_syscall(uint8_t code[static 32], long nr);

/* The system call behind a vDSO function ("__vdso_time"), or -1: then it gets code that returns
 * -ENOSYS; -2: leave it alone (signal return trampolines, and what is not callable). */
long tf_arch_vdso_syscall(const char *symbol);

/* Addresses that QEMU user mode needs and that must survive in a new process: the page that it
 * returns from handlers through (found by taking a signal), GDT and IDT pages on x86_64. Fills at
 * most max page addresses, returns their number. Natively 0. */
unsigned tf_arch_emulator_pages(uint64_t *pages, unsigned max);

/* Fills with junk every register of this processor (cpu: what it offers) that the restorer does not
 * use: vectors, predicates, x87, floating point control, PKRU, thread pointer. From then on only
 * tf_r_enter() may follow: no thread-local variable, no floating point. [child] */
void tf_arch_scramble(const struct tf_cpu *cpu);

/* Makes address ranges below readable to the instruction stream after code was written there
 * (aarch64 instruction cache); nothing on x86_64. */
void tf_arch_flush(void *start, size_t size);

/* Whether the processor has instructions for CRC32C (tf_r_crc32c). Not cheap on x86_64 virtual
 * machines. [child] */
bool tf_arch_has_crc32c(void);

#endif
