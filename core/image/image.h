/* SPDX-License-Identifier: MIT */
/*
 * A process image in memory: everything that is known about a captured process, except the bytes of
 * its memory. capture/ fills it, notes.c and elfcore.c turn it into the head of a sparse ELF core
 * file and back, restore/ plans from it. Arrays live in an arena. Architecture-neutral: an image of
 * any known architecture can be decoded, shown and compared by any
 * build. */
#ifndef TF_IMAGE_IMAGE_H
#define TF_IMAGE_IMAGE_H

#include "arch/regs.h"
#include "core/base/arena.h"
#include "core/base/err.h"
#include "core/image/known.h"

/* Maxima of what a decoder accepts (all counts are checked against these before anything else). */
#define TF_MAX_MAPS       1000000u /* vm.max_map_count is 65,530 by default */
#define TF_MAX_SEGMENTS   (2u * TF_MAX_MAPS)
#define TF_MAX_OBJECTS    65536u
#define TF_MAX_FDS        1048576u /* fs.nr_open default */
#define TF_MAX_THREADS    65536u
#define TF_MAX_TID        4194304 /* PID_MAX_LIMIT */
#define TF_MAX_SYMBOLS    4096u   /* functions of the vDSO */
#define TF_MAX_SIGNATURES 262144u /* signed frames in 8 MiB of stack */
#define TF_MAX_AUXV       256u    /* pairs; Linux has some 40 types */
#define TF_MAX_EDITS      (4u * TF_MAX_MAPS)
#define TF_MAX_LATER      (8u * TF_MAX_MAPS)
#define TF_MAX_STAGED     TF_MAX_LATER
#define TF_MAX_HELD       1048576u
#define TF_MAX_PENDING    262144u /* RLIMIT_SIGPENDING is a few 10,000 by default */
#define TF_MAX_TIMERS     65536u
#define TF_MAX_RIGHTS     65536u                /* of each thread its own, at most */
#define TF_MAX_GROUPS     1048576u              /* NGROUPS_MAX is 65,536 */
#define TF_MAX_FILTERS    65536u                /* each has a cost of 5 instructions at least */
#define TF_MAX_CODE       1048576u              /* instructions: 32,768 for a thread */
#define TF_MAX_TAGS       1048576u              /* times TF_TAGS_SIZE: 4 GiB of tagged memory */
#define TF_MAX_STR        4096u                 /* PATH_MAX */
#define TF_MAX_HEAD       ((uint64_t)256 << 20) /* bytes before the first page of memory */
#define TF_MAX_ADDR       ((uint64_t)1 << 57)   /* user half, five-level x86_64 */
#define TF_SIGNALS        64

enum tf_map_kind {
	TF_MAP_ANON,  /* private or shared anonymous memory */
	TF_MAP_FILE,  /* mapping of a file, or of shared memory with a name or a descriptor */
	TF_MAP_HEAP,  /* the brk area */
	TF_MAP_STACK, /* the main thread's stack, MAP_GROWSDOWN at the source */
	TF_MAP_VDSO,  /* [vdso] */
	TF_MAP_VVAR,  /* [vvar], [vvar_vclock]: no bytes travel */
	TF_MAP_STAGE, /* bytes of an object that no mapping shows: gone before the copy runs */
	TF_MAP_KINDS,
};

#define TF_MAP_SHARED  1u /* tf_map.flags: MAP_SHARED */
#define TF_MAP_ZERO    2u /* shared mapping of /dev/zero or memfd etc. without a path elsewhere */
#define TF_MAP_DELETED 4u /* its file has no name any more */

/* VmFlags of /proc/PID/smaps that can be set again, as bits of tf_map.vmflags (table in maps.c). */
#define TF_VMF_HUGEPAGE   1u     /* hg: MADV_HUGEPAGE */
#define TF_VMF_NOHUGEPAGE 2u     /* nh */
#define TF_VMF_DONTDUMP   4u     /* dd */
#define TF_VMF_DONTFORK   8u     /* dc */
#define TF_VMF_WIPEONFORK 16u    /* wf */
#define TF_VMF_MERGEABLE  32u    /* mg */
#define TF_VMF_SEQ        64u    /* sr */
#define TF_VMF_RAND       128u   /* rr */
#define TF_VMF_NORESERVE  256u   /* nr */
#define TF_VMF_GROWSDOWN  512u   /* gd */
#define TF_VMF_BTI        1024u  /* bt (aarch64 PROT_BTI) */
#define TF_VMF_MTE        2048u  /* mt (aarch64 PROT_MTE) */
#define TF_VMF_LOCKED     4096u  /* lo */
#define TF_VMF_MAYWRITE   8192u  /* mw: could be made writable (a shared file opened for writing) */
#define TF_VMF_HUGETLB    16384u /* ht: pages of hugetlbfs */
#define TF_VMF_ONFAULT    32768u /* lf: MLOCK_ONFAULT */
#define TF_VMF_ALL        65535u

/* One VMA of the source. Sorted by start, page-aligned, never overlapping. */
struct tf_map {
	uint64_t start, end;
	uint64_t data_end; /* end of what can be read: end, or the end of a mapped file's last page;
			      beyond it every access raises SIGBUS */
	uint32_t prot;     /* PROT_READ | PROT_WRITE | PROT_EXEC */
	uint32_t flags;    /* TF_MAP_SHARED … */
	uint32_t kind;     /* enum tf_map_kind */
	uint32_t vmflags;  /* TF_VMF_* */
	uint64_t offset;   /* in the file, bytes */
	uint64_t dev, ino; /* identity of the file at the source */
	const char *path;  /* as /proc/PID/maps has it, without " (deleted)"; "" if none */
	uint32_t object;   /* 1 + index in image.objects of what is mapped shared; 0: none */
	uint32_t crc;  /* CRC32C of [start, data_end), where object is a file with a name; else 0 */
	uint32_t huge; /* hugetlb: log2 of the bytes of a page; else 0 */
	uint32_t key;  /* of memory protection, pkeys(7); 0: none */
	bool here;     /* the destination has this file: set by the receiver, does not travel */
	bool waits;    /* nothing of it comes before the process runs: likewise */
	uint64_t own;  /* bytes of pages that are not its file's, as smaps has it; UINT64_MAX: not
			  known. Does not travel */
};

#define TF_TAGS_SIZE  4096u /* bytes of memory that one record tells of */
#define TF_TAGS_WORDS 16    /* a tag for each 16 of them */

/* Memory tags (aarch64) that are not all zero: 4 bits each, from the least significant on. Sorted.
 */
struct tf_tags {
	uint64_t address;
	uint64_t tags[TF_TAGS_WORDS];
};

/* What several mappings and descriptors of a process lead to: a file, or shared memory. */
enum tf_object_kind {
	TF_OBJECT_FILE,  /* a regular file */
	TF_OBJECT_SHM,   /* a file of tmpfs, as POSIX shared memory is */
	TF_OBJECT_MEMFD, /* memfd_create(2) */
	TF_OBJECT_SYSV,  /* shmget(2) */
	TF_OBJECT_KINDS,
};

#define TF_OBJECT_DELETED 1u /* has no name any more; SysV: goes with its last user */

/* What becomes of an object at the destination: the receiver's decision, does not travel. */
enum tf_object_how {
	TF_OBJECT_AS_IT_WAS, /* made anew; a file with a name is the one that is there */
	TF_OBJECT_TMPFILE,   /* a file without a name, in the folder where it was */
	TF_OBJECT_NAMELESS,  /* memory of the copy's own */
};

struct tf_object {
	uint32_t kind;     /* enum tf_object_kind */
	uint32_t flags;    /* TF_OBJECT_DELETED */
	uint32_t mode;     /* permissions */
	uint32_t uid, gid; /* its owner; UINT32_MAX: unknown */
	uint32_t seals;    /* memfd: F_SEAL_* */
	int32_t key, id;   /* SysV */
	uint64_t size;     /* bytes */
	const char *path;  /* without " (deleted)" */
	uint32_t how;      /* enum tf_object_how */
	uint64_t dev, ino; /* while capturing: device as in struct tf_map */
};

/* Which mappings an object has. */
struct tf_use {
	uint32_t map; /* 1 + index of the first; image.next_use[index] is the next one, so; 0: none
		       */
	bool written; /* one of them can write to it */
};

/* One PT_LOAD. Segments cover every mapping, in order; a mapping with long gaps of absent pages has
 * several. offset and filesz follow from tf_image_layout(). */
struct tf_segment {
	uint64_t vaddr, memsz, filesz, offset;
	uint32_t prot;
};

/* Bytes that are present and travel, page-aligned, inside one mapping. Sorted by start. */
struct tf_run {
	uint64_t start, end;
};

enum tf_edit_op {
	TF_EDIT_MAP,     /* new */
	TF_EDIT_UNMAP,   /* gone */
	TF_EDIT_PROTECT, /* only the protection is another */
	TF_EDIT_REPLACE, /* private became shared, or the other way round */
	TF_EDIT_OPS,
};

/* What became of a range of addresses while a yoyo's function ran. Sorted, not overlapping. */
struct tf_edit {
	uint64_t start, end;
	uint32_t op;      /* enum tf_edit_op */
	uint32_t prot;    /* afterwards; 0 if it is gone */
	uint32_t flags;   /* TF_MAP_SHARED */
	uint32_t vmflags; /* TF_VMF_NORESERVE */
};

struct tf_sigaction {
	uint64_t handler, flags, restorer,
		mask; /* kernel layout, see sigaction(2) "C library/kernel" */
};

struct tf_altstack {
	uint64_t sp, size;
	int32_t flags;
};

struct tf_rseq {
	uint64_t addr; /* 0: not registered */
	uint32_t len, sig;
};

struct tf_thread {
	int32_t tid;
	uint64_t sigmask;
	struct tf_altstack altstack;
	uint64_t robust_head, robust_len; /* 0: none */
	uint64_t tid_addr;                /* clear_child_tid; 0: unknown or none */
	struct tf_rseq rseq;
	char comm[16];
	struct tf_regs regs; /* regsets, data in the arena */
};

#define TF_SIGINFO 128 /* sizeof(siginfo_t) on every architecture */

/* A signal that was sent and not delivered, in the order in which the kernel has them queued. */
struct tf_pending {
	int32_t tid;                   /* of the thread it was sent to; 0: to the process */
	uint32_t signo;                /* 1 to TF_SIGNALS */
	uint64_t info[TF_SIGINFO / 8]; /* siginfo_t as the kernel has it */
};

#define TF_LIMITS    16 /* RLIM_NLIMITS */
#define TF_ITIMERS   3  /* ITIMER_REAL, _VIRTUAL, _PROF */
#define TF_CPU_WORDS 16 /* 1,024 processors */

#define TF_PROCESS_KNOWN     1u  /* the record says something: captured from outside */
#define TF_PROCESS_ASKED     2u  /* dumpable, subreaper, timers: the process itself was asked */
#define TF_PROCESS_SUBREAPER 4u  /* PR_SET_CHILD_SUBREAPER */
#define TF_PROCESS_NO_THP    8u  /* PR_SET_THP_DISABLE */
#define TF_PROCESS_LEADER    16u /* of a session without a terminal */

/* What the kernel keeps for a whole process and a fork()ed child would inherit, and its interval
 * timers. Times in nanoseconds. */
struct tf_process {
	uint32_t flags;    /* TF_PROCESS_* */
	uint32_t dumpable; /* PR_GET_DUMPABLE */
	int32_t oom_score_adj;
	uint32_t n_cpus;                  /* processors of the source: CPUs 0 to n_cpus - 1 */
	uint64_t limits[2 * TF_LIMITS];   /* soft and hard limit of each RLIMIT_* */
	uint64_t itimers[2 * TF_ITIMERS]; /* time left (0: not armed) and interval */
	const char *boot; /* random/boot_id, where its clocks are those of the machine: else "" */
};

/* The five sets, as in capabilities(7). */
enum tf_cap_set { TF_CAP_I, TF_CAP_P, TF_CAP_E, TF_CAP_B, TF_CAP_A, TF_CAP_SETS };

/* Credentials, once for all threads that have the same. */
struct tf_rights {
	uint32_t uid[4], gid[4]; /* real, effective, saved, file system */
	uint32_t securebits;
	uint32_t group, n_groups; /* image.groups[group ...] */
	uint64_t caps[TF_CAP_SETS];
};

#define TF_OWN_GROUPS UINT32_MAX /* n_groups on the way to a plan: they stay the receiver's */

/* A seccomp filter: instructions [code, code + n_code) of image.code. Filters of a chain stand
 * together, in the order in which they were installed. */
struct tf_filter {
	uint32_t chain; /* number of the chain: attributes.chain */
	uint32_t flags; /* SECCOMP_FILTER_FLAG_LOG */
	uint32_t code, n_code;
};

#define TF_NO_CHAIN UINT32_MAX

#define TF_ATTR_ASKED  1u /* pdeathsig and securebits are known */
#define TF_ATTR_SLACK  2u /* slack is known */
#define TF_ATTR_NO_NEW 4u /* PR_SET_NO_NEW_PRIVS */

/* What the kernel keeps for a thread and another would inherit from it. */
struct tf_attributes {
	uint32_t flags;            /* TF_ATTR_* */
	uint32_t policy, priority; /* sched_setattr(2) */
	int32_t nice;
	uint32_t sched_flags; /* SCHED_FLAG_* */
	uint32_t ioprio;      /* ioprio_set(2) */
	uint32_t personality;
	uint32_t pdeathsig;
	uint64_t runtime, deadline, period; /* of SCHED_DEADLINE, nanoseconds */
	uint64_t slack;                     /* of timers, nanoseconds */
	uint32_t rights;                    /* image.rights[] */
	uint32_t chain;                     /* of its seccomp filters; TF_NO_CHAIN */
	uint64_t cpus[TF_CPU_WORDS];        /* affinity; all 0: unknown */
};

enum tf_timer_notify {
	TF_TIMER_SIGNAL, /* to the process, or a thread */
	TF_TIMER_NONE,
	TF_TIMER_NOTIFIES,
};

/* A POSIX timer. */
struct tf_timer {
	int32_t id;
	int32_t clock;   /* CLOCK_* */
	uint32_t notify; /* enum tf_timer_notify */
	uint32_t signo;
	int32_t tid;             /* thread that is told; 0: the process */
	uint64_t value;          /* sigev_value */
	uint64_t left, interval; /* nanoseconds; left 0: not armed */
};

/* A thread that waits in a system call with a time limit. Its registers make the call anew, with
 * the whole limit; a receiver that can has it wait for what is left. A call with an absolute limit
 * is told for where clocks are others. */
struct tf_wait {
	uint32_t thread; /* index in image.threads */
	uint64_t left;   /* nanoseconds */
};

enum tf_sign_place {
	TF_SIGN_MEMORY, /* address is that of an aligned word */
	TF_SIGN_LINK,   /* the first thread's link register; address is 0 */
	TF_SIGN_PLACES,
};

/* A return address that the source signed with a key of its own. Where the copy has other keys it
 * is signed anew: value and modifier under the copy's key. */
struct tf_signature {
	uint32_t place; /* enum tf_sign_place */
	uint32_t key;   /* 0: A, 1: B */
	uint64_t address;
	uint64_t value;    /* without its signature */
	uint64_t modifier; /* the stack pointer when the function was entered */
};

enum tf_fd_kind {
	TF_FD_OTHER,
	TF_FD_FILE,
	TF_FD_DIR,
	TF_FD_PIPE,
	TF_FD_SOCKET,
	TF_FD_TTY,
	TF_FD_CHAR,
	TF_FD_ANON,  /* anon_inode:… */
	TF_FD_RESET, /* a TCP connection that the copy is to find reset by its peer */
	TF_FD_KINDS,
};

struct tf_fd {
	int32_t fd;
	uint32_t kind;     /* enum tf_fd_kind */
	uint32_t flags;    /* O_ACCMODE | status flags, and O_CLOEXEC */
	int32_t same;      /* a lower descriptor, or a standard stream, of which it is a duplicate:
			      they share position and flags; -1: none, or unknown */
	uint64_t offset;   /* file position */
	uint64_t size;     /* of a regular file, bytes */
	const char *path;  /* readlink of /proc/self/fd/N */
	uint32_t object;   /* 1 + index in image.objects; 0: none */
	uint64_t dev, ino; /* while capturing: as in struct tf_map */
};

/* The mm fields of prctl(PR_SET_MM_MAP), in the order of struct prctl_mm_map. */
struct tf_mm {
	uint64_t start_code, end_code, start_data, end_data, start_brk, brk, start_stack;
	uint64_t arg_start, arg_end, env_start, env_end;
	uint32_t locks; /* TF_LOCK_*: what mlockall(2) said of mappings to come */
	uint32_t keys;  /* bit n: protection key n is allocated; 0, which all have, is not told */
};

#define TF_LOCK_FUTURE  1u
#define TF_LOCK_ONFAULT 2u
#define TF_KEYS         16u /* protection keys of a process, at most, and key 0 among them */

struct tf_symbol {
	uint64_t value; /* address in the process */
	uint64_t size;
	const char *name;
};

struct tf_vdso {
	uint64_t base, size;           /* 0: none */
	uint64_t vvar_base, vvar_size; /* 0: none (QEMU's own vDSO has none) */
	uint64_t digest;               /* over the pages: equal means the same vDSO */
	uint32_t n_symbols;
	struct tf_symbol *symbols; /* global functions */
};

/* How the image came about. */
#define TF_ORIGIN_CALL   0 /* telefork() */
#define TF_ORIGIN_SIGNAL 1 /* telefork_on_signal() */
#define TF_ORIGIN_YOYO   2 /* on its way out */
#define TF_ORIGIN_RETURN 3 /* on its way back: changed pages only */
#define TF_ORIGIN_TASK   4 /* looked at from outside, by ptrace */

#define TF_SOURCE_EMULATED                                                                        \
	1u                    /* captured under QEMU user mode: protections are not to be trusted \
			       */
#define TF_SOURCE_NO_SMAPS 2u /* vmflags are unknown */
#define TF_SOURCE_OUTSIDE                                                         \
	4u /* what only the process can ask is unknown: signal actions, altstack, \
	      tid address, brk */
#define TF_SOURCE_SIGNS   8u  /* its code signs pointers: only its own keys make all of them good */
#define TF_SOURCE_STOPPED 16u /* stopped by a signal: it goes on when SIGCONT comes */

/* Where and when the image was taken. */
struct tf_source {
	uint32_t machine; /* ELF e_machine */
	uint32_t flags;   /* TF_SOURCE_* */
	uint32_t origin;  /* TF_ORIGIN_* */
	uint32_t page_size;
	uint64_t max_map_end; /* highest mapped address at the source, exclusive */
	int32_t pid, ppid;
	uint64_t realtime_ns, monotonic_ns, boottime_ns;
	uint64_t mailbox;     /* address of struct tf_mailbox in the process; 0: none */
	uint64_t stack_limit; /* RLIMIT_STACK, bytes */
	int32_t channel_fd; /* descriptor that telefork() was given: the copy finds its peer there;
			       -1 */
	uint32_t umask, generation;
	const char *release; /* uname -r */
	const char *exe;     /* readlink /proc/self/exe */
	const char *cwd;
	const char *version; /* TELEFORK_VERSION of the library that captured */
};

struct tf_image {
	struct tf_source source;
	struct tf_cpu cpu;
	struct tf_mm mm;
	struct tf_vdso vdso;
	struct tf_process process;
	uint32_t n_threads, n_maps, n_fds, n_sigactions, n_signatures, n_auxv, n_segments, n_edits,
		n_pending, n_objects, n_attributes, n_rights, n_groups, n_timers, n_filters, n_code,
		n_later, n_known, n_waits, n_tags, n_staged, n_held;
	struct tf_thread *threads;
	struct tf_attributes *attributes; /* of each thread; or none at all */
	struct tf_rights *rights;
	uint32_t *groups;
	struct tf_wait *waits;     /* by their threads */
	struct tf_timer *timers;   /* by their ids */
	struct tf_filter *filters; /* by their chains */
	uint64_t *code;            /* struct sock_filter */
	struct tf_object *objects;
	struct tf_use *uses; /* of each object; does not travel */
	uint32_t *next_use;  /* of each map */
	struct tf_map *maps;
	struct tf_tags *tags;
	struct tf_fd *fds;
	struct tf_sigaction *sigactions; /* [0] is signal 1 */
	struct tf_pending *pending;
	struct tf_signature *signatures;
	uint64_t *auxv; /* n_auxv pairs {type, value}, with AT_NULL */
	struct tf_segment *segments;
	struct tf_edit *edits;  /* only what a yoyo brings back has any */
	struct tf_run *later;   /* post-copy: bytes that come when the process runs already */
	struct tf_known *known; /* post-copy: mappings that are their files' pages, and no more */
	struct tf_run *staged;  /* pre-copy: bytes that came before the head did */
	uint64_t *held;         /* in them: words in which a thread's id stands, because it holds a
				   lock; sorted */
	uint64_t head_size;     /* bytes before the first segment's data, page-rounded */
	uint64_t data_end; /* end of the last segment's data: the extent table of a file follows */
};

/* What the library tells the restorer about itself: lives at source.mailbox in the process, is
 * written by STORE steps while memory is filled. Fixed layout, little-endian. */
struct tf_mailbox {
	uint64_t magic;      /* TF_MAILBOX_MAGIC, checked before anything is stored */
	uint64_t hole_start; /* the restorer's range, still mapped in the copy; 0: none */
	uint64_t hole_size;
	int32_t peer_fd; /* -1: none */
	uint32_t generation;
	uint32_t flags;     /* TF_MAILBOX_* */
	uint32_t index;     /* which copy of a zygote, or of many; 0: the only one */
	uint64_t brk;       /* what brk(0) says in the copy */
	uint64_t own_start; /* the library's own state (own.h): no part of the program's */
	uint64_t own_end;
};

#define TF_MAILBOX_MAGIC    UINT64_C(0x786f626c69616d74) /* "tmailbox" */
#define TF_MAILBOX_EMULATED 1u                           /* the copy runs under QEMU user mode */
#define TF_MAILBOX_NO_BRK   2u                           /* brk cannot grow there */

/* --- segments and layout (segments.c) --- */

/* Makes image->segments from maps and runs (n_runs sorted page-aligned runs, each inside a map):
 * gaps longer than gap bytes are split off as segments with filesz 0. Arena-allocated.
 * 0, TELEFORK_E_NOMEM, _LIMIT (TF_MAX_SEGMENTS), _INVAL (runs unsorted, unaligned, outside the
 * readable part of a map or inside vvar). */
int tf_image_make_segments(struct tf_image *img, struct tf_arena *a, const struct tf_run *runs,
	size_t n_runs, uint64_t gap);

/* File offset of the byte at addr, or UINT64_MAX when no segment carries it. */
uint64_t tf_image_offset(const struct tf_image *img, uint64_t addr);

/* Address of the byte at a file offset; *room (may be NULL): bytes until its segment's data ends.
 * UINT64_MAX if no segment holds it. */
uint64_t tf_image_address(const struct tf_image *img, uint64_t offset, uint64_t *room);

/* Whether its memory may come when the process runs already (post-copy): private, of ordinary
 * pages, and nothing that the kernel looks at itself before. */
bool tf_map_may_wait(const struct tf_map *m);

/* Whether there may be a file that its pages are of: what known.h is about. */
bool tf_map_may_be_known(const struct tf_map *m);

/* Sets waits of all mappings of which image.later has all that would come. */
void tf_image_note_waiting(struct tf_image *img);

/* Takes what is in those mappings, in their order, off img->later. Bytes that were. */
uint64_t tf_image_drop_later(struct tf_image *img, const struct tf_known *known, uint32_t n);

/* Whether its memory may come before the process has been stopped (pre-copy): the same, and no part
 * of a file. */
bool tf_map_may_be_staged(const struct tf_map *m);

/* Fills img->uses and img->next_use: which mappings each object has. tf_image_decode() does. 0 or
 * _NOMEM. */
int tf_image_link_objects(struct tf_image *img, struct tf_arena *a);

/* The map that holds addr, or NULL. */
const struct tf_map *tf_image_map_at(const struct tf_image *img, uint64_t addr);

/* Whether tags of what is mapped there travel: of private memory that has some. */
bool tf_map_may_have_tags(const struct tf_map *m);

/* --- head (elfcore.c, notes.c) --- */

/* Computes the head (ELF header, PT_NOTE, PT_LOADs, notes) into the arena; sets head_size, data_end
 * and the segments' offsets. *ret_head has head_size bytes. No libc allocator, no lock.
 * Needs source.machine, source.page_size and segments. 0, TELEFORK_E_NOMEM, _LIMIT (a maximum
 * above), _INVAL (unknown machine, or a thread without its general registers). */
int tf_image_encode(struct tf_image *img, struct tf_arena *a, uint8_t **ret_head);

/* Decodes and validates a head of exactly size bytes (what tf_image_peek() says). NT_PRSTATUS is
 * the first regset of every thread. bytes stay owned by the caller and may be freed: everything is
 * copied into the arena. On return 0 every invariant stated in this header holds. Hostile input
 * gives TELEFORK_E_IMAGE (or _VERSION, _NOMEM) with the byte offset and the rule in e. */
int tf_image_decode(struct tf_image *img, struct tf_arena *a, const uint8_t *bytes, size_t size,
	struct tf_err *e);

/* The head begins with Ehdr, one Shdr (for PN_XNUM) and the PT_NOTE Phdr: 64 + 64 + 56 bytes. */
#define TF_HEAD_PEEK 184

/* From the first TF_HEAD_PEEK bytes: the architecture, and how many bytes the head has (at most
 * TF_MAX_HEAD). TELEFORK_E_IMAGE if this is no telefork image. */
int tf_image_peek(const uint8_t bytes[static TF_HEAD_PEEK], uint32_t *ret_machine,
	uint64_t *ret_head_size, struct tf_err *e);

#endif
