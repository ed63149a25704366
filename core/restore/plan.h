/* SPDX-License-Identifier: MIT */
/*
 * A restore is a list of system calls for each thread. plan = f(image, facts about the
 * destination): steps without jumps, built and checked completely before anything is torn down,
 * then executed by the freestanding restorer (restorer.c) in the new process. All lists stand in
 * one array, the first thread's first; each ends in its SIGRETURN. This layout is shared with the
 * restorer: fixed-size, no pointers but addresses in the restorer's range.
 *
 *   first thread   memory, process, files | THREAD ... | GATHER  BARRIER  RELEASE | SIGRETURN
 *   another                                    its own | ARRIVE                   |
 * SIGRETURN
 *
 * A zygote (zygote.h) stays at its ZYGOTE step, behind memory; each fork of it goes on from there,
 * with a GATE for its BARRIER. */
#ifndef TF_RESTORE_PLAN_H
#define TF_RESTORE_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/arena.h"
#include "core/base/err.h"

enum tf_op {
	TF_OP_SYSCALL,  /* nr(arg[0..5]) -> result */
	TF_OP_FILL,     /* read extents from fd arg[0] until the trailer, into memory; arg[1]: a
			   userfaultfd for TF_FILL_PUT, or an error */
	TF_OP_STORE,    /* arg[2] bytes (4 or 8) of arg[1] -> address arg[0] */
	TF_OP_STORE_IF, /* the same, if the word there is arg[3] */
	TF_OP_OWNERS, /* locks that know who holds them get the new ids: struct tf_owners (owners.h)
			at address arg[0], of arg[1] threads; arg[2]: enum tf_owners_how */
	TF_OP_COPY,   /* arg[2] bytes from address arg[1] (in the plan's data) -> address arg[0] */
	TF_OP_BARRIER,   /* write 'r' to fd arg[0], then wait for 'g' from it */
	TF_OP_ZYGOTE,    /* write 'z' to fd arg[0], then make forks as struct tf_litter from there
			    asks, for ever; in each -> its index. arg[1] non-zero: there is no
			    CLONE_PARENT */
	TF_OP_GATE,      /* a zygote's fork, with index arg[1]: write 'r' to fd arg[0], wait until
			    it may go on */
	TF_OP_ARCH,      /* register code arg[0] = arg[1] */
	TF_OP_SIGN,      /* arg[1], signed with modifier arg[2] and key arg[3] -> address arg[0] */
	TF_OP_TAGS,      /* memory gets the tags of arg[1] struct tf_tags at address arg[0] */
	TF_OP_TRACER,    /* done by the receiver at the barrier: regset type arg[0], arg[1] bytes,
			    of the image's thread arg[2] */
	TF_OP_THREAD,    /* a new thread: its list begins at step arg[0], its stack ends at arg[1];
			    its id is arg[2] (0: any) -> result */
	TF_OP_ARRIVE,    /* another thread than the first: ready, waits until all may go on */
	TF_OP_GATHER,    /* the first: waits until arg[0] others are ready */
	TF_OP_RELEASE,   /* the first: the others may go on */
	TF_OP_SIGRETURN, /* sp = arg[0], rt_sigreturn: the last step of a thread */
	TF_OPS,
};

enum tf_expect {
	TF_EXPECT_SUCCESS, /* result is not an error (-4095..-1) */
	TF_EXPECT_VALUE,   /* result == expected */
	TF_EXPECT_ANY,
};

/* Codes for TF_OP_ARCH. */
enum tf_arch_register {
	TF_ARCH_TPIDR_EL0,
	TF_ARCH_FLUSH, /* arg[1] start, arg[2] size: instruction cache */
};

/* One step: 88 bytes. Argument i is arg[i], or the result of step arg[i] when bit i of refs is
 * set. */
struct tf_step {
	uint8_t op;     /* enum tf_op */
	uint8_t expect; /* enum tf_expect */
	uint8_t refs;
	uint8_t reserved;
	int32_t nr; /* system call number of the architecture */
	uint64_t arg[6];
	uint64_t expected;
	uint64_t result;     /* written by the restorer */
	const char *comment; /* for the dry run and for errors ("stack", "vdso"); NULL: none. Never
				dereferenced by the restorer. */
};

/* What an OWNERS step does. */
enum tf_owners_how {
	TF_OWNERS_CHANGE, /* finds and changes the locks */
	TF_OWNERS_NOTE,   /* finds them, changes nothing: in a zygote */
	TF_OWNERS_NOTED,  /* changes those: in its fork */
};

/* How bytes come to stand at their address. */
enum tf_fill_how {
	TF_FILL_WRITE,
	TF_FILL_PUT,       /* nothing is there: the kernel makes pages of the bytes, if it can */
	TF_FILL_DIFFERENT, /* pages that are there already stay untouched: they are a file's */
	TF_FILL_EQUAL,     /* all must be there already: they are a file's, and shared */
};

/* Where file offsets land; sorted by offset. */
struct tf_fill {
	uint64_t offset, size, address;
	uint64_t how; /* enum tf_fill_how */
};

/* --- what an OWNERS step reads; pointers into the plan's data --- */

/* A thread that may hold locks, in a table sorted by old. */
struct tf_owner {
	uint32_t old, now;
	uint64_t step;         /* its result is now */
	uint64_t robust;       /* head of its list; 0: none */
	uint64_t regs, n_regs; /* general registers, in the frame that it will start from */
	uint64_t sp;           /* its stack pointer then */
	uint64_t waits;        /* non-zero: in a call that names a lock */
	uint64_t call;         /* bits of regs that say which call it is about to make */
	uint64_t code, n_code; /* around its pc, if it may be inside the functions of a lock */
	uint64_t uncounted; /* a lock that has it for its owner, and no user yet; while changing */
};

/* Writable memory with bytes that came along, whole pages, sorted. Parts lie in one range each. */
struct tf_owner_range {
	uint64_t start, end;
};

/* A word that is to get an id, and whose: index of struct tf_owner. */
struct tf_owner_note {
	uint64_t at, owner;
};

struct tf_owner_notes {
	uint64_t n, max; /* n > max: there was no room for all, they have to be found anew */
	struct tf_owner_note note[];
};

struct tf_owners {
	struct tf_owner *owner;
	const struct tf_owner_range *range;
	const struct tf_owner_range *part; /* of the ranges, in which nobody has searched yet */
	const uint64_t *word; /* addresses of locks that calls name, sorted, each once */
	const uint64_t *held; /* words that were found elsewhere, likewise */
	uint64_t n_owners, n_ranges, n_parts, n_words, n_held;
	uint64_t page;                /* bytes */
	uint64_t *found, n_found;     /* addresses of what may be one, TF_OWNER_FOUND: noted while
					 memory came. More: not all were noted. NULL: none */
	struct tf_owner_notes *notes; /* not NULL: noted here, not changed */
};

#define TF_OWNER_FOUND 4096u

/* "TFRESTOR": by this and its own address a range is known that was left in a process. */
#define TF_PLAN_MARK UINT64_C(0x524f545345524654)

/* What the restorer gets: stands at the beginning of its range. */
struct tf_plan_header {
	uint64_t mark, start, end; /* TF_PLAN_MARK, and what is mapped */
	uint64_t steps;            /* address of struct tf_step[n_steps] */
	uint64_t n_steps;
	uint64_t fills; /* address of struct tf_fill[n_fills] */
	uint64_t n_fills;
	uint64_t crc_table;       /* address of uint32_t[8][256] */
	uint32_t crc_instruction; /* non-zero: use the processor's */
	int32_t control_fd;       /* reports: struct tf_report */
	uint64_t buffer;          /* scratch, TF_PLAN_BUFFER bytes */
	uint64_t page;            /* bytes */
	uint64_t owners;          /* address of struct tf_owners; 0: no id changes */
	uint32_t count, chain;    /* of the head's extents, which were read before */
	uint64_t bytes;           /* result: bytes filled */
	uint64_t max_bytes;       /* of all extents: no sender goes on for ever */
	int32_t idle_ms;  /* wait so long for each read; 0: the descriptor has a limit of its own */
	uint32_t arrived; /* threads that are ready: counted, and waited for, by the restorer */
	uint64_t thread_entry; /* address of tf_restorer_thread */
	uint32_t go;           /* non-zero: they may go on */
	int32_t uffd;          /* of the FILL under way; negative: none */
	uint64_t traced; /* non-zero, set by the receiver while it stops the first thread at the
			    barrier: a read there that this interrupts has the word to go on */
	int32_t gate_fd; /* a zygote's forks wait here; the number above it opens it */
	uint32_t litter; /* how many were made */
};

#define TF_PLAN_BUFFER  131072u
#define TF_PLAN_PAGE    4096u /* TF_FILL_DIFFERENT writes whole ones; the smallest page there is */
#define TF_THREAD_STACK 4096u /* of another thread than the first, in the restorer's range */

/* Sent on control_fd at a BARRIER ('r') and when a step fails ('e'); by a zygote when it is ready
 * ('z') and when it, or a helper, has made forks ('f': value says how many, error what kept it from
 * more). */
struct tf_report {
	uint16_t tag;
	uint16_t litter; /* a zygote's and its forks': number of the request, else 0 */
	int32_t error;   /* -errno, or a negative TELEFORK_E_* - 10000 */
	uint64_t step;   /* index */
	uint64_t value;  /* what it returned; at a GATE: the process's id */
	uint64_t where;  /* file offset or address, 0 if none; at a GATE: its index; with 'f': that
			    of  the next fork */
};

/* What a zygote is asked for: n forks with indices from first on. They wait at their gates; a byte
 * follows: 'g' and they go on, anything else and they end. helpers: so many forks of it make some
 * of them meanwhile, each as many as the zygote itself. */
struct tf_litter {
	uint64_t first;
	uint32_t n, helpers;
};

#define TF_LITTER_MAX 4096u

/* tf_report.error of a FILL: what was wrong with the stream. */
#define TF_REPORT_CHECKSUM (TELEFORK_E_CHECKSUM - 10000)
#define TF_REPORT_IMAGE    (TELEFORK_E_IMAGE - 10000)
#define TF_REPORT_CLOSED   (TELEFORK_E_CLOSED - 10000)
#define TF_REPORT_DIFFERS  (TELEFORK_E_INCOMPATIBLE - 10000) /* TF_FILL_EQUAL; where: address */

/* The restorer's entry: executes the plan that stands at its range's beginning.
 * Position-independent; its bytes are [__start_tf_restorer, __stop_tf_restorer). */
_Noreturn void tf_restorer_main(struct tf_plan_header *plan);

/* Where another thread than the first begins: executes the list from that step on. */
_Noreturn void tf_restorer_thread(struct tf_plan_header *plan, uint64_t first);

/* A plan under construction, in one array of the arena. */
struct tf_plan {
	struct tf_step *steps;
	uint64_t n_steps, max_steps;
	bool full; /* a step did not fit: the plan is not to be used */
};

/* Room for max steps. 0 or _NOMEM. */
int tf_plan_init(struct tf_plan *plan, struct tf_arena *a, uint64_t max);

/* Appends a step and returns it for the caller to adjust. When the plan is full, plan->full is set
 * and a scratch step returned: the builder checks once, at the end. Never NULL. */
struct tf_step *tf_plan_add(struct tf_plan *plan, enum tf_op op, const char *comment);

/* Appends a system call with n arguments (uint64_t each) that must succeed; the others are 0.
 * Returns the step, to set refs or another expectation. */
struct tf_step *tf_plan_syscall(
	struct tf_plan *plan, const char *comment, long nr, unsigned n, ...);

/* Index of the step that was appended last. */
uint64_t tf_plan_last(const struct tf_plan *plan);

/* One step as a line of text, as strace would print it, without a newline:
 * "mmap(0x7f12000, 8192, 0x3, 0x100022, -1, 0) = 0x7f12000  ; stack". */
void tf_step_text(const struct tf_step *step, char *buf, size_t size);

#endif
