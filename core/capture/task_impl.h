/* SPDX-License-Identifier: MIT */
/* What the parts of the capture from outside share; see task.h. Nobody else includes this. */
#ifndef TF_CAPTURE_TASK_IMPL_H
#define TF_CAPTURE_TASK_IMPL_H

#include "core/base/text.h"
#include "core/capture/task.h"

#define TF_TASK_PATH    64    /* "/proc/PID/task/TID/syscall" */
#define TF_TASK_STOP_MS 2000  /* a thread in vfork or in uninterruptible sleep does not stop */
#define TF_TASK_TURN_MS 20000 /* one that is ready to run does, as soon as it is its turn */

/* Nearly all stops come sooner, and to be woken takes as long: so long they are waited for awake.
 */
#define TF_TASK_AWAKE_NS 50000

/* Reads n bytes of the process's memory. 0 or _SYSTEM with the address. */
int tf_task_read(struct tf_task *t, uint64_t addr, void *to, size_t n);

/* Reads /proc/PID/name into the arena. */
int tf_task_read_text(struct tf_task *t, const char *name, char **ret_text, size_t *ret_size);

/* Waits for a thread's next stop until the deadline. 1: it stands, as *ret_status says; 0: it has
 * ended; _SYSTEM, naming its state. */
int tf_task_wait_any(struct tf_task *t, struct tf_traced *x, uint64_t deadline_ns, int *ret_status);

/* The first line of /proc/PID/task/TID/name; "" if there is none. */
void tf_task_thread_text(
	const struct tf_task *t, pid_t tid, const char *name, char *buf, size_t size);

/* Waits for a thread's next PTRACE_EVENT_STOP until the deadline; signals that are on their way are
 * not ours: the thread stops for them first, and gets them. 1: it stands; 0: it has ended; _SYSTEM,
 * naming its state. */
int tf_task_wait_stop(struct tf_task *t, struct tf_traced *x, uint64_t deadline_ns);

/* task_status.c: each thread's status and own_tid, read meanwhile by another thread of ours.
 * Between the two calls nothing else may look at either; the second has to follow, if the first
 * succeeded. */
int tf_task_status_begin(struct tf_task *t);
int tf_task_status_end(struct tf_task *t);

/* Waits for the end of that thread, if there is one: later, when nothing stands still. */
void tf_task_status_join(struct tf_task *t);

/* task_thread.c: fills image.threads from the stopped threads, and image.pending. */
int tf_task_threads(struct tf_task *t);
int tf_task_pending(struct tf_task *t);

/* task_files.c: fills image.fds, and says which are duplicates of each other. What can be known
 * before the process stands is; then that need only be compared. */
void tf_task_files_before(struct tf_task *t);
int tf_task_files(struct tf_task *t);
void tf_task_files_close(struct tf_task *t);

/* task_objects.c: fills image.objects from what is mapped shared and from descriptors of memory,
 * and adds the stages to image.maps. After both lists are there; once. 0, _NOMEM, _LIMIT, _SYSTEM.
 */
int tf_task_objects(struct tf_task *t);

/* Whether there is one whose bytes others than its fork could change: of mappings, of a descriptor.
 * It is to be looked at while the process stands. */
bool tf_task_maps_memory(const struct tf_map *maps, uint32_t n);
bool tf_task_opens_memory(const struct tf_fd *f);

/* Adds the runs of a mapping of an object: what travels with it. */
int tf_task_object_pages(struct tf_task *t, const struct tf_map *m);

/* Copies what travels with it to where the mapping is copied to. */
int tf_task_object_copy(struct tf_task *t, const struct tf_map *m, uint8_t *copy);

/* Reads n bytes of an object's mapping at addr from the object itself; false: there is none, or no
 * descriptor of it. *ret_rc: 0 or _SYSTEM. */
bool tf_task_object_read(struct tf_task *t, uint64_t addr, void *to, size_t n, int *ret_rc);

/* Their descriptors. */
void tf_task_objects_close(struct tf_task *t);

/* task.c: sends a run's memory. */
int tf_task_save_run(struct tf_task *t, const struct tf_run *r);

/* Gives sent pages of the fork back, so that the program writes to them without a copy. */
void tf_task_drop_pages(struct tf_task *t, uint64_t at, uint64_t n);

/* task_later.c: image.later, from the runs. 0, _NOMEM, _LIMIT. */
int tf_task_choose_later(struct tf_task *t);

/* task_known.c, of a post-copy: image.known. When the receiver's list has begun, its magic that is:
 * hears the rest, and takes what is there off image.later. 0, _NOMEM, _PROTOCOL, _CHECKSUM, or as
 * tf_io_read(). */
int tf_task_offer_known(struct tf_task *t);
int tf_task_hear_known(struct tf_task *t);

/* task_rounds.c, for t->rounds: mappings as tf_task_describe_maps(), but 0 where they are not those
 * that were seen before, 1 where they are; pages as tf_task_scan(); image.staged and image.held
 * from all of them. */
int tf_task_rounds_maps(struct tf_task *t);
int tf_task_rounds_scan(struct tf_task *t, const struct tf_map *m);
int tf_task_rounds_settle(struct tf_task *t);

/* task_smaps.c: image.maps, with their flags, of t->seen; of a shot without a walk through its page
 * tables. 0, _NOMEM, _SYSTEM. */
int tf_task_smaps(struct tf_task *t);

/* task_vdso.c, once all threads stand: none of them is in the middle of reading a clock that will
 * be another one elsewhere. 0, _SYSTEM, or as tf_task_wait_any(). */
int tf_task_leave_vdso(struct tf_task *t);

/* task_cpu.c: image.cpu.features become those that the program uses. Needs maps and auxv. */
int tf_task_cpu(struct tf_task *t);

/* task_leftover.c: takes off image.maps the ranges of restorers that have done their work. */
void tf_task_drop_leftovers(struct tf_task *t);

/* Once the threads have been asked: makes the registers of image.threads those from which they go
 * on anywhere, and fills image.waits. System calls that the kernel was about to start again are
 * made again, or give up with EINTR where nobody knows the time that is left; a restartable
 * sequence is aborted. */
int tf_task_settle(struct tf_task *t);

/* The same for one thread's regs alone, which are copied before they are changed. here: for this
 * very process, where a sleep rather starts anew than ends for no reason that the program knows. */
int tf_task_settle_thread(
	struct tf_task *t, const struct tf_traced *x, struct tf_thread *thread, bool here);

/* task_wait.c. For a thread that is about to be stopped, and its line of
 * /proc/PID/task/TID/syscall: notes since when it sleeps. */
void tf_task_see_wait(struct tf_task *t, struct tf_traced *x, const char *syscall);

/* What a thread that makes, or (inside) was interrupted in, that call has left of its limit,
 * nanoseconds; rather too much. False: nobody knows, or it was written to the request itself, or
 * the call has none. */
bool tf_task_wait_left(struct tf_task *t, const struct tf_traced *x, long nr, const uint64_t arg[6],
	bool inside, uint64_t *ret);

/* The registers that a thread of the living process is put back with. *ret may share data with
 * x->as_found. */
int tf_task_go_on(struct tf_task *t, const struct tf_traced *x, struct tf_regs *ret);

/* Opens mem of t->seen, instead of what is open; its pagemap, when first needed: -1, or it. */
int tf_task_open(struct tf_task *t);
int tf_task_pagemap(struct tf_task *t);

/* Stops the process, and nothing can be asked or described: 0, or as tf_task_stop().
 * tf_task_release() in either case. */
int tf_task_pause(struct tf_task *t, pid_t pid);

/* Lets the threads go on; the rest stays. */
void tf_task_let_go(struct tf_task *t);

/* The parts of tf_task_describe(): what only the standing process tells, and has to be known before
 * it makes calls for us; what it tells while it makes them as well, without a tracer, and the time
 * costs nothing then (once: again is nothing); its mappings, of any /proc; what a fork of it tells
 * as well, and pages. */
int tf_task_describe_threads(struct tf_task *t);
int tf_task_describe_aside(struct tf_task *t);
int tf_task_describe_maps(struct tf_task *t);
int tf_task_describe_rest(struct tf_task *t);

/* task_sparse.c: which parts of its mappings have anything in them, where looking at each page
 * would take too long (t->used stays NULL where not). tf_task_scan(): adds the present pages of a
 * private mapping to the runs, as tf_capture_scan(). */
int tf_task_find_used(struct tf_task *t);

/* Before tf_task_scan(): whether all pages of large mappings are said to be there; and of which. */
void tf_task_guess_whole(struct tf_task *t);
bool tf_task_is_whole(const struct tf_task *t, const struct tf_map *m);
int tf_task_scan(struct tf_task *t, const struct tf_map *m);

/* task_tags.c: fills image.tags, of the pages that were found. 0, _NOMEM, _LIMIT, _SYSTEM, and
 * _UNSUPPORTED naming a mapping whose tags do not travel. */
int tf_task_tags(struct tf_task *t);

/* Whether there are some that a fork of it has not. */
bool tf_task_keeps_tags(const struct tf_map *maps, uint32_t n);

struct tf_asking;

/* task_attrs.c: what the kernel keeps for the threads: filters; POSIX timers; after that,
 * scheduling. */
int tf_task_attributes(struct tf_task *t);
int tf_task_scheduling(struct tf_task *t);

/* What it keeps for the process, and a fork inherits: limits, oom_score_adj. */
int tf_task_process(struct tf_task *t);

/* What only the process can tell, through its main thread: timers, dumpable, subreaper. */
struct tf_question;
/* ret NULL: only how many. */
uint32_t tf_task_own_questions(struct tf_task *t, struct tf_question *ret);

/* What /proc tells of threads that cannot be asked: personality, timer slack. */
void tf_task_unasked(struct tf_task *t);

/* When all has been asked: credentials, as each thread's status has them. Threads with the same
 * share a record of them. */
int tf_task_rights(struct tf_task *t);

/* Traced threads with filters make our calls without them; Linux 4.3, root only. */
#define TF_TASK_SUSPEND (1ul << 21) /* PTRACE_O_SUSPEND_SECCOMP of linux/ptrace.h */

/* task_filter.c: reads the filters of a thread that has some, into the image, and suspends them
 * while we trace it. 0, _UNSUPPORTED where that is not allowed, _NOMEM, _LIMIT, _SYSTEM. */
int tf_task_filters(struct tf_task *t, pid_t tid, struct tf_attributes *at);

/* Whether a thread that makes this call, whose instruction ends at pc, under its own filters would
 * survive it: 0, or _UNSUPPORTED with the reason. */
int tf_task_check_call(
	struct tf_task *t, uint32_t thread, uint64_t pc, long nr, const uint64_t arg[6]);

/* What a classic BPF program says to the data of a call (struct seccomp_data). */
struct seccomp_data;
uint32_t tf_filter_run(const uint64_t *code, uint32_t n, const struct seccomp_data *data);

/* task_ask.c: asks what only the process knows, and clears TF_SOURCE_OUTSIDE; leaves it set where
 * asking could disturb. The process is afterwards as it was, or the error says that it is not.
 * meanwhile (may be NULL) is called when all but the main thread are put back; if there is a shot
 * then, what that knows as well is left to tf_task_ask_shot(). */
int tf_task_ask(struct tf_task *t, int (*meanwhile)(struct tf_asking *q));
int tf_task_ask_shot(struct tf_task *t);

/* task_fork.c: has the main thread fork, and asks it what it is yet to be asked (q->own) if it can.
 * Sets t->shot, or t->stands; if there is a shot, rest is called when it is, while the main thread
 * is on its way back. 0, or what must not happen. */
#define TF_FORK_CALLS 2
int tf_task_fork(struct tf_asking *q, int (*rest)(struct tf_task *t));

/* Waits until the shot stands, ready for calls; takes what we had on its stack out of it. */
int tf_task_shot_ready(struct tf_task *t);
int tf_task_shot_clean(struct tf_task *t);

/* A call of the shot: its result, or -errno. */
int64_t tf_task_shot_call(struct tf_task *t, long nr, uint64_t arg0, uint64_t arg1, uint64_t arg2);
int64_t tf_task_shot_calls(struct tf_task *t, long nr, const uint64_t arg[6]);

/* Ends the shot, and waits until it is gone. */
void tf_task_shot_end(struct tf_task *t);

#endif
