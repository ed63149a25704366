/* SPDX-License-Identifier: MIT */
/*
 * What a plan needs to know about the destination: a record that can be printed, saved and loaded,
 * so that plans are made and tested for any architecture on any host.
 */
#ifndef TF_RESTORE_FACTS_H
#define TF_RESTORE_FACTS_H

#include "core/image/image.h"

#define TF_FACT_EMULATED 1u /* QEMU user mode: keep-list, no rseq, no PR_SET_MM */
#define TF_FACT_MM_MAP   2u /* prctl(PR_SET_MM_MAP) works: brk goes where it was */
#define TF_FACT_RSEQ     4u /* the kernel has rseq */
#define TF_FACT_PTRACE   8u /* a receiver can trace its child (only asked where a plan needs it) */

#define TF_FACT_TIMER_IDS  16u   /* PR_TIMER_CREATE_RESTORE_IDS, Linux 6.15 */
#define TF_FACT_FIRST_USER 32u   /* in the first user namespace: capabilities count everywhere */
#define TF_FACT_NO_NEW     64u   /* no_new_privs is set */
#define TF_FACT_UNFILTERED 128u  /* no seccomp filter holds the receiver */
#define TF_FACT_TIME_NS    256u  /* a receiver can make a time namespace */
#define TF_FACT_EXE        512u  /* the image's program is here, and can be the link exe */
#define TF_FACT_EXE_SAME   2048u /* it is the receiver's own program: the link leads there */
#define TF_FACT_UFFD       4096u /* memory may come later: userfaultfd(2), of kernel faults, too */
#define TF_FACT_THP        8192u /* memory gets huge pages unasked */
#define TF_FACT_KEYS       1024u /* memory protection keys can be allocated */

#define TF_FACT_KEEP_MAX 8
#define TF_FACT_HUGE_MAX 8

/* Pages of hugetlbfs of one size that are free. */
struct tf_huge {
	uint64_t size, free; /* bytes of a page; pages */
};

struct tf_facts {
	uint32_t machine, page_size, flags, n_keep;
	uint64_t min_addr, max_addr; /* usable addresses: [min, max) */
	uint64_t max_map_count;      /* mappings in one process */
	uint64_t memory_free;        /* bytes, MemAvailable */
	uint64_t address_limit;      /* RLIMIT_AS, bytes */
	uint64_t lock_limit;         /* RLIMIT_MEMLOCK, bytes; UINT64_MAX with CAP_IPC_LOCK */
	uint64_t commit_free;        /* bytes, where vm.overcommit_memory is 2; else UINT64_MAX */
	struct tf_huge huge[TF_FACT_HUGE_MAX]; /* ends with size 0, or at the end */
	uint64_t fd_limit;                     /* hard RLIMIT_NOFILE */
	uint64_t threads_free; /* more that RLIMIT_NPROC, control groups and the kernel allow */
	uint64_t pending_free; /* more that RLIMIT_SIGPENDING allows */
	uint64_t brk;          /* where a program's brk would start if it cannot be set */
	uint64_t auxv_size;    /* bytes that the kernel keeps */
	uint64_t keep[TF_FACT_KEEP_MAX]; /* pages that must survive */
	struct tf_rseq rseq;             /* the receiver's own */
	struct tf_cpu cpu;
	struct tf_vdso vdso;
	struct tf_rights rights; /* the receiver's own */
	uint32_t *groups;        /* rights.n_groups */
	uint64_t limits[2 * TF_LIMITS], nr_open;
	uint64_t cpus[TF_CPU_WORDS]; /* processors that are here */
	int32_t nice, oom_score_adj;
	bool traces;           /* tf_tracer_allowed(), if that was asked (tf_facts_remember()) */
	uint64_t monotonic_ns; /* of the machine */
	int64_t clock_ahead;   /* of the receiver, of that */
	const char *boot;      /* random/boot_id; "": its clocks are not the machine's */
	uint32_t n_maps, n_taken;
	struct tf_map *maps;  /* of the receiver, to be removed */
	struct tf_map *taken; /* emulator's pages included: nothing may be put there */
	const char *release;
};

/* Looks at this process and machine. Call it last: mappings made afterwards are not in it.
 * Everything lives in the arena. 0, _NOMEM, _SYSTEM. */
int tf_facts_gather(struct tf_facts *f, struct tf_arena *a, struct tf_err *e);

/* The same for this process, and from now on a part of it is not looked for again, neither in it
 * nor in what it forks: what the kernel, the processor and the program are, and what it may. Before
 * there are threads, and not where its rights change later. */
int tf_facts_remember(struct tf_arena *a, struct tf_err *e);

/* Whether the link exe of the new process can be the program that it was, or is: TF_FACT_EXE*. */
uint32_t tf_facts_link(const struct tf_facts *f, const struct tf_image *img);

/* Fills f from a text of "name value" lines (tests; numbers decimal or 0x; a name is a field's,
 * such as rseq.addr; each "keep" adds a page), then, after a line "maps:", the receiver's mappings
 * as /proc/PID/maps has them: they become maps and taken. "#" begins a comment's line. _INVAL with
 * the line for a name or a number that is none, _SYSTEM for a mapping, _NOMEM. */
int tf_facts_parse(struct tf_facts *f, struct tf_arena *a, const char *text, struct tf_err *e);

#endif
