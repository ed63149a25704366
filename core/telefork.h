/* SPDX-License-Identifier: MIT */
/*
 * telefork: fork() onto another machine. This header is the library's specification.
 *
 *	struct telefork_job *job;
 *	int fd = telefork_dial("tcp://big-machine:7700", NULL, &result);
 *	switch (telefork(fd, NULL, &job)) {
 *	case 0:  ... this is the copy, running over there ...
 *	case TELEFORK_PARENT:  telefork_wait(job, &result);  ... result.pid is its pid over there
 *... default: ... nothing was started ...
 *	}
 *
 * Return values: 0 or a positive number on success, a negative TELEFORK_E_* on failure. The library
 * never prints and never exits. Functions may be called from any thread unless they say otherwise;
 * one job, one descriptor and one result belong to one thread at a time.
 *
 * What a copy has, and what fork(2) does not tell: as after fork(), only the calling thread exists
 * in the copy; areas marked MADV_DONTFORK are absent and MADV_WIPEONFORK ones are zero; memory
 * locks, timers and pending signals stay behind. Its pid is another, and so is its thread id;
 * glibc's mutexes and read-write locks that the calling thread holds follow it. Where there is no
 * ptrace (QEMU user mode), pointers that an aarch64 program signed itself are not good in the copy;
 * return addresses are. See telefork(3).
 *
 * In a program with other threads the C library's fork() makes the snapshot: handlers of
 * pthread_atfork() run in the process and in the copy, and no lock of the C library is left held.
 * The other threads run on: private memory is of one moment, memory that is mapped shared is copied
 * while they may write to it. The snapshot is then a child of init, or of the nearest subreaper.
 */
#ifndef TELEFORK_H
#define TELEFORK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TELEFORK_VERSION "0.1.0"

/* Version of the image and of the stream; a receiver refuses any other. */
#define TELEFORK_FORMAT 5

/* telefork() returns this in the parent (0 in the copy). */
#define TELEFORK_PARENT 1

/* Longest message in a result, with its terminating zero. */
#define TELEFORK_MESSAGE_MAX 2048

/* The single table of errors: X(NAME, number, text). Codes are negative, stable, and travel. */
#define TELEFORK_ERRORS(X)                                                \
	X(INVAL, 1, "an argument or option is not valid")                 \
	X(NOMEM, 2, "out of memory or address space")                     \
	X(IO, 3, "input or output failed")                                \
	X(CLOSED, 4, "the other side closed the connection")              \
	X(REFUSED, 5, "the connection was refused")                       \
	X(TIMEOUT, 6, "a time limit passed")                              \
	X(CANCELLED, 7, "cancelled")                                      \
	X(PROTOCOL, 8, "the other side does not speak this protocol")     \
	X(VERSION, 9, "the other side speaks another version")            \
	X(AUTH, 10, "the token or the peer was not accepted")             \
	X(IMAGE, 11, "the image is damaged or hostile")                   \
	X(CHECKSUM, 12, "data arrived damaged")                           \
	X(INCOMPATIBLE, 13, "the process cannot live on the destination") \
	X(UNSUPPORTED, 14, "the process has state that cannot travel")    \
	X(THREADS, 15, "the process has other threads")                   \
	X(COLLISION, 16, "no free address range, try a fresh receiver")   \
	X(LIMIT, 17, "a limit of the receiver was reached")               \
	X(RESTORE, 18, "a step of the restore failed")                    \
	X(CRASHED, 19, "the process over there ended before its time")    \
	X(ADDRESS, 20, "the address is not understood or cannot be used") \
	X(SYSTEM, 21, "a system call failed")

enum telefork_error {
#define X(name, number, text) TELEFORK_E_##name = -(number),
	TELEFORK_ERRORS(X)
#undef X
};

/* Static text of a code from the table; "unknown error" for any other. */
const char *telefork_strerror(int code);

/* Static name ("TELEFORK_E_IO") of a code; "TELEFORK_E_?" for any other. */
const char *telefork_errname(int code);

/* Where the standard streams of a received process go. */
enum telefork_stdio {
	TELEFORK_STDIO_LOG, /* stdin /dev/null, stdout and stderr to the receiver's stderr (default)
			     */
	TELEFORK_STDIO_INHERIT, /* the receiver's own 0, 1 and 2 */
	TELEFORK_STDIO_NULL,    /* /dev/null, all three */
	TELEFORK_STDIO_INPUT,   /* as TELEFORK_STDIO_LOG, with the receiver's own 0 */
};

struct telefork_result;

/*
 * Options. Zero-initialise (or pass NULL): every zero is the default. Set size to
 * sizeof(struct telefork_options) (0: this header's). A program may have been compiled against an
 * older header or a newer one: fields that it does not have are zero, and those that the library
 * does not know are refused (_INVAL) unless they are zero. */
struct telefork_options {
	size_t size;
	int deadline_ms;           /* whole operation, milliseconds; 0: none */
	int idle_ms;               /* no byte moved for so long: give up; 0: 30000 */
	enum telefork_stdio stdio; /* telepad: where the copy's streams go */
	const char *token;   /* dial: shared secret, at most TELEFORK_TOKEN_MAX bytes; NULL: none */
	uint64_t max_memory; /* telepad: refuse more bytes of present memory; 0: what is free */
	struct telefork_result
		*result;    /* telefork_yoyo: filled when it returns; NULL: not wanted */
	unsigned restore;   /* telepad: TELEFORK_RESTORE_*, or 0 */
	const char *zygote; /* dial: what is sent is not run but kept over there under this name,
			       for telefork_spawn(); NULL: it runs */
};

/* The process and its threads get the ids that they had. Needs CAP_CHECKPOINT_RESTORE or
 * CAP_SYS_ADMIN. */
#define TELEFORK_RESTORE_SAME_PID 1u
/* Files that a process captured from outside had open and that are not here do not keep it from
 * being restored: their descriptors' numbers are held, every use answers EBADF. */
#define TELEFORK_RESTORE_HOLD_FILES 2u
/* Ids and groups of such a process that the receiver may not give it become the receiver's own;
 * without this they are a reason to refuse it. */
#define TELEFORK_RESTORE_OWN_USER 4u
/* The receiver ends before the process does: a signal that it wanted at its parent's end is off. */
#define TELEFORK_RESTORE_DETACHED 8u
/* Files that it maps shared and writes to, and that are not the same here; shared memory whose name
 * or key is in use here: the copy gets memory of its own with that content. */
#define TELEFORK_RESTORE_PART_FILES  16u
#define TELEFORK_RESTORE_PART_MEMORY 32u

#define TELEFORK_TOKEN_MAX 4096

/* A zygote's name has so many letters, digits, dots, "_" and "-" at most. */
#define TELEFORK_ZYGOTE_NAME 16

/* Most descriptors listed in a result; held_total counts all. */
#define TELEFORK_HELD_MAX 64

/* What came of an operation. Filled completely, on success and failure. */
struct telefork_result {
	int error;           /* 0 or a negative TELEFORK_E_* */
	pid_t pid;           /* of the copy over there (its own view); 0: saved to a file */
	uint64_t stopped_ns; /* how long the parent stood still */
	uint64_t total_ns;   /* from the call to the other side's answer */
	uint64_t bytes_sent; /* on the channel or into the file */
	uint64_t bytes_received;
	uint32_t registers;  /* registers in the image */
	uint32_t mappings;   /* mappings carried */
	uint64_t memory;     /* bytes of present memory carried */
	uint32_t held_total; /* descriptors of the process that did not travel: their numbers are
				reserved in the copy until it closes them, every use (but fstat,
				dup and close-on-exec) answers EBADF */
	int held[TELEFORK_HELD_MAX];
	char message[TELEFORK_MESSAGE_MAX]; /* what failed, by name, and the way out; else "" */
	uint64_t split; /* bytes that this process had in huge pages before, and in small ones
			   afterwards: it wrote to them meanwhile. The kernel puts them together in
			   its own time, MADV_COLLAPSE at once */
};

/* A transfer under way in the background. Freed by telefork_wait(). */
struct telefork_job;

/*
 * Opens a channel: "tcp://host:port", "unix:path", "ssh://[user@]host[:port]" (through ssh(1),
 * which runs "telefork serve" there), "file:path" or a plain path (a new image, mode 0600, visible
 * under its name only when complete), "-" (standard output). Presents options->token. Returns a
 * descriptor (close-on-exec, owned by the caller) or an error, explained in *result (which may be
 * NULL). TELEFORK_E_ADDRESS, _REFUSED, _AUTH, _VERSION, _TIMEOUT, _IO. */
int telefork_dial(
	const char *uri, const struct telefork_options *options, struct telefork_result *result);

/*
 * Forks the calling process onto the other side of fd (a connected stream socket, a pipe, or a file
 * to be written as an image). Returns
 *   TELEFORK_PARENT in the parent, as soon as a snapshot exists; *job is then set,
 *   0 in the copy, when it runs over there,
 *   a negative code if nothing was started (*job is untouched; telefork_why() tells the reason):
 *     _UNSUPPORTED, _NOMEM, _INVAL, _SYSTEM.
 * Between the call and telefork_wait() fd is the transfer's: do not use or close it. Afterwards it
 * is the caller's again, and leads to the copy (see telefork_peer_fd). Not async-signal-safe.
 * Several transfers, each on a descriptor of its own, may be under way at once.
 *
 * A transfer does not need the process that began it: when that exits or is killed before
 * telefork_wait(), the snapshot goes on to the end, and the copy runs; its way back then reads an
 * end of file. Only telefork_cancel() gives up. Signals do not reach the snapshot, but for SIGKILL
 * and SIGSTOP sent to the process group, to which it belongs. It shows in /proc, and to wait4(2)
 * with
 * __WALL; under QEMU user mode, where it is made by forking twice, also to another thread that
 * waits for any child at that moment, or that takes the
 * SIGCHLD. */
int telefork(int fd, const struct telefork_options *options, struct telefork_job **job);

/*
 * Forks the calling process onto n machines (1 to 1024; tcp and unix addresses) by one snapshot. It
 * is sent to the first only, and each receiver (telefork serve) passes it on to the next while it
 * reads, so that no link carries it twice; options->token is the same for all. Returns
 *   0 in each copy; telefork_index() says which it is, from 1 on in the order of uris,
 *   TELEFORK_PARENT in the parent, when all is decided: results[n] tell of each,
 *   a negative code if nothing was sent (results tell why of each, if they are not NULL).
 * A receiver that cannot be reached is passed over. Where a link breaks on the way, those behind it
 * fail with _CLOSED; nothing is sent again, so that no copy is ever made twice. A copy has no way
 * back. With options->zygote they are kept, as of telefork_dial(). */
int telefork_many(const char *const *uris, unsigned n, const struct telefork_options *options,
	struct telefork_result *results);

/* Why this thread's latest telefork() or telefork_many() returned a negative code: a text that
 * names the thing. Valid until the thread's next telefork(). */
const char *telefork_why(void);

/* In a copy: the descriptor that leads back to the process that called telefork(); -1 elsewhere,
 * and in a copy that came by way of a file. Owned by the copy. */
int telefork_peer_fd(void);

/* Waits until the transfer ended, fills *result (may be NULL), frees the job. Returns
 * result->error. */
int telefork_wait(struct telefork_job *job, struct telefork_result *result);

/* A descriptor that becomes readable when telefork_wait() would not block. Owned by the job. */
int telefork_job_fd(const struct telefork_job *job);

/* Gives up: the snapshot ends, the other side destroys its half. telefork_wait() then reports
 * TELEFORK_E_CANCELLED, or success if the word that the copy runs was here already. If that word
 * was on its way, the copy runs although TELEFORK_E_CANCELLED is reported. */
int telefork_cancel(struct telefork_job *job);

/*
 * Saves the calling process into the file at path (0600, visible only when complete). Returns
 * TELEFORK_PARENT when the file is there, 0 in every process later made from it, or an error;
 * *result may be NULL.
 */
int telefork_save(
	const char *path, const struct telefork_options *options, struct telefork_result *result);

/*
 * Runs fn(arg) on the machine at uri (as of telefork_dial(), but no file), with all of this
 * process's memory, and returns here: in the same process, with the same pid and descriptors, and
 * with every change that fn made to memory (written pages, new, grown and unmapped mappings,
 * protections), applied all or nothing. The copy ends when fn returns.
 *
 * What fn writes to standard output and error over there is written to this process's; its standard
 * input is empty. Other descriptors do not travel: their numbers are held in the copy, and fn must
 * not close what it did not open. Only memory comes back: signal actions, working directory,
 * descriptors and the like stay as they are here, and so do this thread's id and rseq area, the
 * vDSO and the stack below the caller's frame.
 *
 * Meanwhile signals that have a handler here are blocked, and delivered afterwards; others act as
 * usual. fn must join the threads that it starts; processes that it leaves behind are killed (by a
 * receiver that is no "telefork serve", or runs under QEMU user mode, only those in the copy's
 * process group). Memory shared with other processes is sent as it was at the call; of it the pages
 * that fn changed are written back, whole: what others write to the same pages meanwhile is lost.
 * options->idle_ms is raised to 2000 at least; the deadline counts from the call. If this process
 * dies, or the receiver, the copy is killed. The calling stack may be any, a coroutine's too, with
 * 64 KiB left.
 *
 * Returns 0, or a negative code, and then memory here is as it was and no copy is left:
 * TELEFORK_E_THREADS (this process has other threads, or fn left some), _CRASHED (a signal or
 * exit() ended fn), _TIMEOUT (options->deadline_ms), _CLOSED (the link was lost), _COLLISION,
 * _LIMIT and _NOMEM (the changes cannot be made here), and what telefork_dial() and telefork() say.
 * *options->result has the sizes and times: bytes_sent, bytes_received, total_ns, message. Not
 * async-signal-safe.
 */
int telefork_yoyo(
	const char *uri, void (*fn)(void *arg), void *arg, const struct telefork_options *options);

/*
 * Receives one process from fd (stream socket, pipe, or an image file opened for reading) as a
 * child of the caller and returns its pid, or a negative code with nothing left behind; the sender
 * is told why, and the new process dies with the receiver until it is complete. What comes has to
 * come within options->deadline_ms or, without one, within idle_ms and at 4 KiB a second on the
 * whole. Returns when the copy runs. With a socket, the copy keeps the connection. *result may be
 * NULL.
 */
pid_t telepad(int fd, const struct telefork_options *options, struct telefork_result *result);

/*
 * Makes n copies (1 to 4096) of the zygote that the receiver at uri (tcp or unix, as of
 * telefork_dial()) keeps under that name, and puts their process ids there into pids[n] (may be
 * NULL). All of them run then, or none does. They share memory, copy on write, and are told apart
 * by telefork_index(), which counts from first on (0: from where the last request for that zygote
 * ended). Returns 0 or an error, explained in *result (may be NULL): _INVAL (no zygote of that
 * name), _LIMIT, _RESTORE, and what telefork_dial() says. When the answer is lost (_CLOSED,
 * _TIMEOUT) it is not known whether they run.
 *
 * Each copy has random bytes of its own at getauxval(AT_RANDOM), and memory marked
 * MADV_WIPEONFORK is zero in it, as after fork(). What the program drew before it was sent is the
 * same in all of them: the state of random(3), of a generator in any library or interpreter, keys,
 * cookies, the stack guard. Whoever needs other ones seeds them anew where telefork() returns 0,
 * for which telefork_index() is enough where secrecy is not needed, and getrandom(2) where it is.
 */
int telefork_spawn(const char *uri, const char *name, unsigned n, unsigned first, pid_t *pids,
	const struct telefork_options *options, struct telefork_result *result);

/* Waits for a process received by telepad(); *status as in waitpid(2). Returns pid or an error. */
pid_t telefork_child_wait(pid_t pid, int *status);

/*
 * From now on signo makes a copy of this process go to uri, from whatever instruction it
 * interrupts; the process itself goes on. The handler is async-signal-safe. Each arrival of signo
 * makes one attempt; its outcome is read with telefork_signal_result(). Refuses (_THREADS) at
 * arrival when the process has other threads. uri and options are copied. The copy has no way back
 * (telefork_peer_fd() is -1). Returns 0, _ADDRESS, _INVAL.
 */
int telefork_on_signal(int signo, const char *uri, const struct telefork_options *options);

/* Number of attempts ended so far; *result (may be NULL) is that of the latest.
 * Async-signal-safe. */
unsigned telefork_signal_result(struct telefork_result *result);

/* In a process that was made by telefork: how often it (or its ancestors' images) moved; 0:
 * never. */
unsigned telefork_generation(void);

/* In a process that was made by telefork: which copy it is of those that were made of one snapshot,
 * counted from 1: a zygote's (struct telefork_options.zygote) as it makes them, those of
 * telefork_many() in the order of its addresses. 0: there is one only, or it is no copy. See
 * telefork(3) for which random numbers such copies do not share. */
unsigned telefork_index(void);

#ifdef __cplusplus
}
#endif
#endif
