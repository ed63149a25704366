/* SPDX-License-Identifier: MIT */
/*
 * Capture from outside: a running process is stopped by ptrace, all its threads, looked at, written
 * as an image and let go. Nothing of it is changed: what only the process itself can ask (signal
 * actions, altstacks, tid addresses, brk) is asked in its name, through system calls that its
 * threads make while stopped; registers and memory are put back as they were, and that is checked.
 * Where such a call could disturb it, those facts stay unknown (TF_SOURCE_OUTSIDE).
 *
 * tf_task_snapshot() has it fork as well: then it need not stand still while memory is written.
 */
#ifndef TF_CAPTURE_TASK_H
#define TF_CAPTURE_TASK_H

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>

#include "arch/arch.h"
#include "core/base/maps.h"
#include "core/base/host.h"
#include "core/capture/capture.h"

struct tf_rounds;

/* A thread that we trace. */
struct tf_traced {
	pid_t tid;
	pid_t own_tid;          /* as the thread knows it */
	bool stopped;           /* it stands; else it is seized only */
	bool held;              /* it has other registers and another mask than its own */
	struct tf_call_way way; /* meanwhile */
	int status_fd;          /* /proc/PID/task/TID/status; -1 */
	const char *status;     /* its text, which tells as well: */
	bool pending, filtered; /* signals wait for it; it has seccomp filters, or may do little */
	long blocked;           /* the system call in which /proc saw it before we came; -1: none */
	uint64_t slept_ns, switches; /* tf_now_ns() when it fell asleep there, and how often it had
				      * by then; 0: not known */
	struct tf_regs as_found;     /* its registers as the stop shows them */
	uint64_t abort; /* where the restartable sequence that it stands in has its exit; 0: none */
	uint8_t code[2 * TF_CODE_AROUND]; /* where it stands */
};

/* A fork of the process, which nothing but its memory is looked at of. */
struct tf_shot {
	struct tf_traced x;       /* tid 0: there is none */
	uint64_t result;          /* room for a result of a call of its */
	uint64_t stack, size;     /* where we had our bytes on its stack, and what lay there */
	uint8_t *under;           /* before; NULL: nowhere */
	uint64_t room, room_size; /* what we had mapped at the time; 0: nothing */
	uint64_t code;            /* that makes many calls, in the room */
	int quiet;                /* the signal that ends them; 0: each is made by itself */
	bool differs;             /* from what was seen before the process was stopped */
};

struct tf_task {
	struct tf_capture capture; /* arena, image, runs, frozen and err are used */
	pid_t pid;
	pid_t seen;       /* whose /proc, mem and pagemap are read: its own, or its shot's */
	int mem, pagemap; /* of seen; -1. tf_task_pagemap() */
	struct tf_traced *traced; /* the main thread first */
	uint32_t n_traced;
	bool reset_tcp;   /* the copy finds its TCP connections reset: set before describing */
	bool was_stopped; /* by a signal, before we came */
	uint8_t *vdso;    /* a copy of its bytes */
	const struct telefork_options *options; /* time limits of the way; NULL: defaults */

	/* Seen before it was stopped, so as not to look for them afterwards. */
	struct tf_map *before;
	uint32_t n_before;
	struct tf_known_fd *known; /* descriptors, task_files.c */
	uint32_t n_known;
	DIR *fd_list;
	bool opens_memory; /* a descriptor of shared memory, or of a deleted file */
	struct tf_exits exits;
	uint64_t code; /* a system call instruction */
	struct tf_cpu here;
	int processors;          /* that we may run on */
	int most_fds;            /* numbers below are for texts that are opened beforehand */
	int timers;              /* /proc/PID/timers; -1 */
	struct tf_clocks clocks; /* its own less ours */
	uint64_t *cpu_clocks;    /* what tf_now_ns() is ahead of each processor's own; 0: unknown */
	const char *boot;        /* the machine's boot id; "": it has clocks of its own */

	struct tf_smap *used; /* parts of its mappings that have pages, sorted; NULL: look at all */
	uint32_t n_used;
	bool whole;         /* a post-copy's large mappings have hardly an absent page */
	const char *status; /* of the main thread, and of the process */
	bool aside;         /* tf_task_describe_aside() was there */
	char *status_texts; /* task_status.c, as the next three */
	atomic_uint next_status, read_statuses;
	bool has_reader;
	pthread_t reader;
	struct tf_shot shot;
	char stands[160]; /* tf_task_snapshot(): why there is no shot; "" there is one */
	uint64_t stopped_ns, released_ns; /* tf_now_ns() */

	int *object_fd; /* of each object: to read it; -1 */
	uint32_t max_objects;
	struct tf_run *object_runs; /* of all mappings of objects: what travels with them; sorted */
	uint64_t n_object_runs;

	struct tf_packer *packer; /* of a stream; NULL: none. A post-copy's has no lists */
	struct tf_rounds *rounds; /* pre-copy: what has gone before; NULL. Set before stopping */
	bool post_copy;    /* most memory goes when the process runs there: set before all else */
	bool all_first;    /* but the receiver wanted all of it before */
	uint64_t requests; /* for addresses, that came from there */
	uint64_t gone;     /* bytes of memory, so far */
	uint8_t *buffer;   /* TF_EXTENT_MAX bytes */
	uint64_t buffered; /* of them, which are yet to go */

	/* Asked once, before tf_task_snapshot() stops the process (may be NULL): 0, or an error
	 * with words, and nothing happens to it. */
	int (*may_stop)(void *way, struct tf_err *e);
	void *way;

	/* Called now and then while memory goes out, with the bytes that have gone (may be NULL).
	 */
	void (*progress)(void *ctx, uint64_t done, uint64_t all);
	void *ctx;
};

/* The two halves of tf_task_stop(). The first looks at the running process, which may take long;
 * tf_task_release() undoes it, too. */
int tf_task_begin(struct tf_task *t, pid_t pid);
int tf_task_halt(struct tf_task *t);

/* Stops the process, every thread of it, and waits until they stand: at most 2 s. _UNSUPPORTED (no
 * ptrace here: QEMU user mode; a process of another architecture; the main thread has ended),
 * _SYSTEM naming pid, and the state of a thread that does not stop. On failure the process runs on
 * and there is nothing to release. */
int tf_task_stop(struct tf_task *t, pid_t pid);

/* Whether what is mapped there travels as an object: shared memory or a file, mapped shared. */
bool tf_map_has_object(const struct tf_map *m);

/* Fills the image: registers, mappings, pages, everything but memory's bytes. */
int tf_task_describe(struct tf_task *t);

/* Both of these, and (where that is possible) the process runs on when this returns: it was forked,
 * and memory is that of its fork, which stands still and dies with us. Its threads see no child, no
 * signal, and no descriptor that somebody else holds. Else t->stands says why not, and it stands
 * until tf_task_release(). */
int tf_task_snapshot(struct tf_task *t, pid_t pid);

/* Writes the image to fd, a regular file or a stream. It ends with tf_task_commit(): until then no
 * receiver has a whole process. Both: 0, or as tf_io_write(), _NOMEM, _LIMIT. */
int tf_task_save(struct tf_task *t, int fd);
int tf_task_commit(struct tf_task *t);

/* After it: the receiver's answer; message has TELEFORK_MESSAGE_MAX bytes. Of a post-copy, a
 * receiver that cannot wait for memory gets everything before it answers (t->all_first). 0, or as
 * tf_reply_read(). */
int tf_task_answer(struct tf_task *t, struct tf_reply *reply, char *message);

/* Of a post-copy, once the process runs there: sends the rest, until the receiver says that it has
 * it. 0; what the receiver says, or _CLOSED and the like: the process there is not whole, and ends.
 */
int tf_task_serve(struct tf_task *t, struct tf_reply *reply, char *message);

/* Whether a POSIX timer of that clock travels: of all but those of one thread's, or of another
 * process's, time. */
bool tf_task_timer_travels(int clock);

/* Lets the process go on and frees everything; safe at any time after tf_task_stop(). */
void tf_task_release(struct tf_task *t);

#endif
