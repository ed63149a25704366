/* SPDX-License-Identifier: MIT */
/*
 * Capture: a process describes itself. self.c forks the snapshot; in it describe.c and files.c fill
 * the image's description, memory.c finds and sends the pages. From the fork on nothing here calls
 * an allocator or takes a lock: the snapshot may come from a threaded program or a signal
 * handler. */
#ifndef TF_CAPTURE_CAPTURE_H
#define TF_CAPTURE_CAPTURE_H

#include <sys/stat.h>

#include "core/image/image.h"
#include "core/image/stream.h"

/* What only the parent can say: asked before the fork, because the child starts without it. */
struct tf_before {
	int32_t pid, ppid, tid;
	int saved_errno; /* goes into the image instead of what capturing made of errno */
	uint64_t sigmask;
	struct tf_altstack altstack;
	uint64_t robust_head, robust_len, tid_addr;
	struct tf_rseq rseq;
	uint64_t checks; /* how pointers are checked, tf_arch_checks() */
	bool tid_there;  /* tid_addr holds tid (glibc; musl keeps something else there) */
};

/* A shared mapping's content at the moment of the fork: shared memory is not frozen by it. */
struct tf_frozen {
	uint64_t start, end;
	uint8_t *copy; /* same size, sparse */
};

struct tf_capture {
	struct tf_before before;
	struct tf_arena arena;
	struct tf_image image;
	struct tf_err err;
	struct tf_io io;
	uint32_t origin; /* TF_ORIGIN_* */
	bool returns;    /* a yoyo's way there or back */
	int channel_fd;  /* the descriptor of the channel in the process */
	int peer_keep;   /* descriptors not to list as the program's (status), or -1 */
	int fds_fd;      /* tf_capture_files_told() */
	bool file;       /* io.fd is a regular file */
	bool many;       /* it goes to several receivers: none can say what it has */
	int replaced;    /* signal that the snapshot takes for itself, 0: none; its action was: */
	struct tf_sigaction replaced_action;
	bool drop; /* drop pages from this process once sent: it is a snapshot */
	struct tf_frozen *frozen;
	uint32_t n_frozen;
	uint8_t *frozen_base; /* one mapping that holds all the copies */
	uint64_t frozen_size;
	struct tf_run *runs;
	uint64_t n_runs;
	uint64_t map_runs; /* runs before the mapping that is being scanned */
	uint64_t memory;   /* bytes in runs */
	uint64_t huge;     /* of them in huge pages, where the kernel tells (Linux 6.7) */
	uint8_t *bounce;   /* TF_EXTENT_SIZE bytes, when first needed */
	uint8_t *known; /* known.c: a bit for each mapping whose file is there; NULL: not asked */
	struct tf_known *known_list; /* as it came */
	bool known_told;             /* it has come */
	struct tf_base *base; /* send only what changed since (changes.h); NULL: everything */
	struct tf_sink sink;  /* last: large, and set up late by tf_sink_begin() */
};

/* Fills *b for the calling thread. Async-signal-safe. */
void tf_capture_before(struct tf_before *b);

/* Reads mappings, names every obstacle (all of them, _UNSUPPORTED), copies shared memory. Between
 * this and the fork nobody else may have run. Sets image.maps. */
int tf_capture_freeze(struct tf_capture *c);

/* Fills source, mm, auxv, vdso, signal actions, and the thread's facts;
 * regs come from the frame. */
int tf_capture_describe(struct tf_capture *c);

/* The mm fields but brk, and the parent (may be NULL), of a text like /proc/PID/stat. */
void tf_capture_parse_stat(const char *text, struct tf_mm *mm, int32_t *ret_ppid);

#define TF_MQUEUE_MAGIC 0x19800202 /* statfs(2) of a message queue, ipc/mqueue.c */

/* What a descriptor leads to, by fstat(2) and its link in /proc/PID/fd. */
uint32_t tf_capture_fd_kind(const struct stat *st, const char *path);

/* Whether the name of a file or directory leads to the same on another machine: it still has one,
 * and is neither this kernel's own object (message queues, namespaces) nor about one of its
 * processes. proc: its link in /proc. */
bool tf_capture_fd_named(const struct stat *st, const char *path, const char *proc);

/* Whether a link of /proc/PID/fd leads to a TCP connection; tcp: the texts of /proc/PID/net/tcp and
 * tcp6. Uses stdio. */
bool tf_capture_is_tcp(const char *link, const char *const tcp[2]);

/* Whether it is a regular file, on a file system whose files hold what is written to them: not a
 * message queue, secret memory, huge pages or /proc. proc: its link there. */
bool tf_capture_fd_content(const struct stat *st, const char *proc);

/* Lists descriptors into image.fds. Before they are closed. */
int tf_capture_files(struct tf_capture *c);

/* The same from the process that forked us, which stands still: it tells its own through one end of
 * a socket, without that and without but, while we do something else; where it cannot, we list
 * ours. Not for a small stack. */
void tf_files_tell(int to, int but);
int tf_capture_files_told(struct tf_capture *c);

/* Finds the present pages: runs, memory. */
int tf_capture_find_pages(struct tf_capture *c);

/* Fills image.tags, of the pages that were found, of thread tid, or (0) of this process's own
 * memory. 0, _NOMEM, _LIMIT, _SYSTEM. [child] */
int tf_capture_tags(struct tf_capture *c, int tid);

/* The parts of it that changes.c uses: image.maps without what is the library's own; their vmflags,
 * naming every obstacle that only smaps shows; [start, end) to the runs, which stand at the arena's
 * end and grow there; the frozen copy that holds addr, or NULL. */
int tf_capture_read_maps(struct tf_capture *c);
int tf_capture_read_vmflags(struct tf_capture *c);
void tf_capture_begin_runs(struct tf_capture *c);
int tf_capture_add_run(struct tf_capture *c, uint64_t start, uint64_t end);
const struct tf_frozen *tf_capture_frozen_at(const struct tf_capture *c, uint64_t addr);

/* huge.c: bytes that were in huge pages when they were found, and are in small ones of process pid
 * now. */
uint64_t tf_capture_split(const struct tf_capture *c, pid_t pid);

/* Where a mapping of a file has to end: at the file's last page. */
uint64_t tf_capture_readable_end(const struct tf_map *m);

/* Cuts [start, end) out of the n maps, of which there is room for one more; returns how many are
 * left. */
uint32_t tf_capture_cut(struct tf_map *maps, uint32_t n, uint64_t start, uint64_t end);

/* For any process's /proc/PID/pagemap: adds the present pages of [start, end) to c->runs, which
 * grow at the arena's end: nothing else may be allocated meanwhile. */
int tf_capture_scan(struct tf_capture *c, int pagemap, uint64_t start, uint64_t end);

/* The same of one part, to ret, which has room for as many runs as it has pages, where the next is
 * true: how many. Nothing else is changed, but that c->huge grows. */
uint32_t tf_capture_present(struct tf_capture *c, int pagemap, const struct tf_run *in,
	struct tf_run *ret, uint32_t room);

/* Whether that leaps over what is absent (Linux 6.7), or looks at each page. */
bool tf_capture_lists_pages(int pagemap);

/* The size of the file that was asked for last; 0: not known. Not to be kept: files change. */
struct tf_ends {
	pid_t pid; /* by whose names */
	uint64_t dev, ino, size;
};

/* tf_capture_readable_end() of a process whose /proc/PID/mem is open. */
uint64_t tf_capture_find_end(struct tf_ends *ends, int mem, const struct tf_map *m);

/* Makes segments of the runs, encodes the head and sends it; memory and tf_sink_end() are to
 * follow. */
int tf_capture_send_head(struct tf_capture *c, uint32_t stream_flags);

/* Sends one run, from where its bytes lie. */
int tf_capture_send_run(struct tf_capture *c, const struct tf_run *r);

/* known.c: whether the receiver may be asked which files it has (TF_STREAM_OFFER). */
bool tf_known_offers(const struct tf_capture *c);

/* Before memory is sent: from now on the receiver's word is heard. 0 or _NOMEM. */
int tf_known_begin(struct tf_capture *c);

/* The receiver's list behind its header, whose count has been checked; to has room for it. 0,
 * _CHECKSUM, or as tf_io_read(). */
int tf_known_read(
	struct tf_io *io, const struct tf_known_header *h, struct tf_known *to, struct tf_err *e);

/* Whether the run has to wait for that word. */
bool tf_known_later(const struct tf_capture *c, const struct tf_run *r);

/* Sends those that had to, without pages that are there. */
int tf_known_send(struct tf_capture *c);

/* Encodes the head and sends everything; afterwards (drop) the snapshot holds next to nothing. */
int tf_capture_send(struct tf_capture *c, uint32_t stream_flags);

/* From a signal frame: describes, finds, sends. All of the above but freeze and files. */
int tf_capture_from_frame(
	struct tf_capture *c, const void *ucontext, uint64_t result, uint32_t stream_flags);

/* The library's mailbox (struct tf_mailbox is at its head); one for each process. */
extern struct tf_mailbox tf_mailbox;

#endif
