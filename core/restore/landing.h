/* SPDX-License-Identifier: MIT */
/*
 * The last steps of a process that knows nothing of us: nobody in it would unmap the restorer's
 * range. So the receiver traces all of its threads until each stands where it was captured, unmaps
 * the range through a system call that the first thread makes in its name, and lets them go. Until
 * then the process dies with the receiver. Natively only: QEMU user mode has no ptrace, and there,
 * and where a receiver may not trace, the range stays.
 *
 *   all wait in the restorer | tf_landing_begin | 'g' | tf_landing_arrive |
 *   tf_landing_go | running
 *
 * The copy of a move is kept in between: tf_landing_arrive | tf_landing_keep | noted |
 * tf_landing_go
 */
#ifndef TF_RESTORE_LANDING_H
#define TF_RESTORE_LANDING_H

#include "core/restore/build.h"

struct tf_landing {
	const struct tf_restore *restore;
	const struct tf_image *image;
	pid_t *tids; /* in the image's order; the first is the process */
	uint32_t n;  /* of them traced by us, and stopped */
	int stop;    /* a stop signal that came meanwhile, passed on at the end; 0: none */
	bool kept;   /* tf_landing_keep() */
	bool awake;  /* stops are waited for awake: somebody else can run meanwhile */
	bool jumps;  /* times of the source's monotonic clocks are others here */
};

/* Of a process that will land: its end of the control socket. A read with a time limit, unlike one
 * without, does not go on by itself once a stop has interrupted it (signal(7)): see struct
 * tf_plan_header, traced. */
void tf_landing_prepare(int control);

/* Traces every thread of child, which waits at the plan's barrier, and executes all TRACER steps.
 * tids come from the arena. 0, _NOMEM, or _RESTORE with ptrace's reason; then tf_landing_abandon().
 */
int tf_landing_begin(struct tf_landing *l, pid_t child, const struct tf_restore *restore,
	const struct tf_image *image, struct tf_arena *a, struct tf_err *e);

/* The process was told to go on: follows each thread to the end of its rt_sigreturn, has those that
 * waited in a call with a time limit wait for what is left (image.waits), then removes the
 * restorer's range. code: offsets of two system call instructions in the
 * restorer's code: one that is interrupted in a wait would go on with that from the same one. All
 * threads are stopped afterwards. 0, or _RESTORE; then tf_landing_abandon(). */
int tf_landing_arrive(struct tf_landing *l, const uint64_t code[2], const struct tf_facts *facts,
	struct tf_arena *a, struct tf_err *e);

/* From here on the process does not end with the receiver: should that end, it stands still, by a
 * SIGSTOP that is on its way and comes before any instruction of the program (every thread looks
 * for signals as it leaves the tracer). 0 or _RESTORE. */
int tf_landing_keep(struct tf_landing *l, struct tf_err *e);

/* Lets all threads run, or stay stopped if the image says so. 0 or _RESTORE. */
int tf_landing_go(struct tf_landing *l, struct tf_err *e);

/* Kills the process and takes its threads' ends, so that the process's own can be waited for. */
void tf_landing_abandon(struct tf_landing *l);

#endif
