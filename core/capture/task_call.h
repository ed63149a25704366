/* SPDX-License-Identifier: MIT */
/*
 * System calls that stopped threads make for us. A thread gets other registers, runs one
 * instruction of its own code and stops; results land in a few bytes that are ours for as long. All
 * signals are held meanwhile, so none is seen, lost or delivered at a wrong place.
 *
 *   stop | frame | call, call, ... | interrupted: stop | all put back, compared | (go on)
 *
 * Should we die meanwhile, the thread goes on with what it was given: its call, whose code returns
 * to code that takes a signal frame off the stack, and the frame is the thread as it was. The main
 * thread's frame lies below its stack's red zone; those of others in memory that the main thread
 * maps for the time.
 */
#ifndef TF_CAPTURE_TASK_CALL_H
#define TF_CAPTURE_TASK_CALL_H

#include "arch/arch.h"
#include "core/capture/task_impl.h"

/* What a thread is asked: a call, and where its answer goes. */
struct tf_question {
	long nr;
	uint64_t arg[6];
	unsigned at; /* number of the argument that is the address of the answer's bytes; 0: none */
	int (*take)(struct tf_asking *q, const struct tf_question *question, int64_t result,
		const void *bytes);
	void *to;
};

/* Calls that a thread makes on its own at a time; they are at the head of its slot. A single call
 * has its result there: the largest, struct sigaction of the kernel, has 32 bytes. */
#define TF_ASK_CALLS  16
#define TF_ASK_RESULT (TF_ASK_CALLS * sizeof(struct tf_batch_call))

/* A fork may be asked all at once: what was mapped is room for that, and in nobody's way there. */
#define TF_ASK_MOST 80

/* Threads are asked so many at a time: memory that nobody touched before costs more than waiting.
 * While the one half makes its calls, the other one is put back, and the next told what to do. */
#define TF_ASK_WAVE 16
#define TF_ASK_HALF (TF_ASK_WAVE / 2)

/* Of the child in between that makes a fork, task_fork.c. */
#define TF_ASK_SPARE (2 * sizeof(struct tf_batch_call))

/* A slot holds results and a frame; there is one for the main thread, one for each of those that
 * are asked at a time, and one more, for a thread that has nothing to lose and needs little. */
struct tf_asking {
	struct tf_task *t;
	size_t frame, slot, spare; /* bytes; of the one more */
	uint8_t *slots;            /* the main thread's and a wave's, as they are laid */
	uint8_t *bytes;            /* of whose turn it is */
	uint64_t stack;            /* the main thread's slot and the one more, below its stack; 0 */
	size_t stack_size;         /* of both */
	uint8_t *under;            /* what lay there */
	uint64_t room, room_size;  /* all slots, mapped in the process; 0 */
	uint64_t code;             /* that makes many calls, in the room */
	uint32_t most;             /* calls at a time, TF_ASK_CALLS or TF_ASK_MOST */
	int quiet;                 /* the signal that ends them; 0: each call is made by itself */
	const struct tf_question *own; /* that the main thread is yet to be asked */
	uint32_t n_own;
	uint32_t begun;   /* calls of which the fork is one */
	uint64_t to_reap; /* a child that has ended and that nobody may see yet; 0 */
	/* Whose turn it is, where its result goes, and how it makes a call. */
	struct tf_traced *x;
	struct tf_thread *thread;
	uint64_t result;
	struct tf_call_way way;
};

/* Before the process is stopped: its mappings (t->before), and where in its code a call can be
 * made. 0, or as tf_maps_read(). */
int tf_task_survey(struct tf_task *t);

/* Whether it can be asked at all; else why not is in ret_why. */
bool tf_task_can_ask(struct tf_task *t, const char **ret_why);

/* Makes the main thread ready for calls, and room for those of the others. On failure
 * tf_asking_end() is to follow all the same. 0, _NOMEM, _SYSTEM. */
int tf_asking_begin(struct tf_asking *q, struct tf_task *t);

/* Puts the main thread and its stack back as they were; before, it reaps, and gives back the room.
 */
int tf_asking_end(struct tf_asking *q);

/* From now on it is thread i's turn. */
void tf_asking_turn(struct tf_asking *q, uint32_t i);

/* Lays the thread's frame; with its first call its signals are held, all but some. It has to be put
 * back then, in two parts: between them others can be told the same. */
int tf_asking_ready(struct tf_asking *q);
int tf_asking_hold(struct tf_asking *q, uint64_t but);
int tf_asking_interrupt(struct tf_asking *q);
int tf_asking_settle(struct tf_asking *q); /* waits until it is, if nobody did */
int tf_asking_put_back(struct tf_asking *q);

/* Lays calls for a held thread to make. */
int tf_asking_lay(struct tf_asking *q, const struct tf_batch_call *call, uint32_t n);

/* Of threads that are asked at a time, and are not held: puts the calls and the frame of each into
 * its slot; lays all slots. */
int tf_asking_fill(struct tf_asking *q, const struct tf_batch_call *call, uint32_t n);
int tf_asking_lay_wave(struct tf_asking *q, uint32_t first, uint32_t end);

/* Both, wherever in a call the thread is. */
int tf_asking_recover(struct tf_asking *q);

/* One call, of the thread whose turn it is: *ret is its result, or -errno. */
int tf_asking_call(struct tf_asking *q, long nr, const uint64_t arg[6], int64_t *ret);

/* The same in parts, so that many threads are at it at a time: it sets off; it is in the call; it
 * stands at the call's end. last: it is interrupted there, as by tf_asking_interrupt(). */
int tf_asking_start(struct tf_asking *q, long nr, const uint64_t arg[6]);
int tf_asking_enter(struct tf_asking *q, bool last);
int tf_asking_leave(struct tf_asking *q, int64_t *ret);

/* Waits for the thread's next stop in or at the end of a system call, or at an event of it. *ret:
 * the PTRACE_EVENT_*, 0: none. */
int tf_asking_await(struct tf_asking *q, int *ret_event);

/* Goes on to that. 0, or _SYSTEM. */
int tf_asking_resume(struct tf_asking *q);

/* Lays calls, and a frame of one that the main thread would never make, into the slot that is
 * beyond those of the threads. A thread whose stack pointer becomes *ret's sp, and that returns,
 * makes it.
 */
int tf_asking_lay_spare(struct tf_asking *q, const struct tf_batch_call *call, uint32_t n, long nr,
	const uint64_t arg[6], struct tf_call_way *ret_way);

/* Where that slot is. */
uint64_t tf_asking_spare(const struct tf_asking *q);

/* task_batch.c: many calls of many threads at a time. A signal that the process ignores, no thread
 * blocks, and a thread that makes calls on its own sends to itself at their end: it is seen by us,
 * and by nobody when we are gone. 0: there is none. */
int tf_batch_signal(const struct tf_task *t);

/* A held thread sets off to make calls, fewer than q->most, and what its signal needs; one
 * whose own_tid is 0 sends none. In parts: the calls, of which there are as many as returned, laid
 * by somebody; and off, which holds it. */
int tf_batch_start(struct tf_asking *q, const struct tf_question *question, uint32_t n);
uint32_t tf_batch_compose(const struct tf_asking *q, const struct tf_question *question, uint32_t n,
	struct tf_batch_call *call);
int tf_batch_go(struct tf_asking *q, uint32_t n);

/* Until it has sent its signal, *ret_event is 0; or stands at an event, PTRACE_EVENT_*, with more
 * to do; or, if it sends none, has ended, -1. call[] tells what it has done; of one that sends
 * none, NULL: that is read later, if at all. */
int tf_batch_await(struct tf_asking *q, uint32_t n, struct tf_batch_call *call, int *ret_event);
int tf_batch_read(struct tf_asking *q, uint32_t n, struct tf_batch_call *call);
int tf_batch_resume(struct tf_asking *q);

/* Takes their answers. */
int tf_batch_take(struct tf_asking *q, const struct tf_question *question, uint32_t n,
	const struct tf_batch_call *call);

/* The thread whose turn it is, held, is asked the questions, fewer than q->most. */
int tf_batch_ask(struct tf_asking *q, const struct tf_question *question, uint32_t n);

/* Threads from first on, which are not held, are; and have answered, and stand held. */
int tf_batch_ask_wave(struct tf_asking *q, uint32_t first, uint32_t end,
	const struct tf_question *question, uint32_t n);
int tf_batch_take_wave(struct tf_asking *q, uint32_t first, uint32_t end,
	const struct tf_question *question, uint32_t n);

#endif
