/* SPDX-License-Identifier: MIT */
/*
 * A run for people who wait, on standard error if that is a terminal: how far it is, how much time
 * is left, and the cells under way. Elsewhere nothing is shown. It goes by the time that cells take
 * as a rule, and begins after a moment. Threads may call all of it at once.
 *
 *   [######........................]  12 of 60, 1 did not hold, 2:10 left
 *      3 s of  5  witness/clib-static.x86_64.system.tcp
 *      1 s of  2  host/hop-pie.aarch64.user.tcp
 */
#ifndef TF_HARNESS_PROGRESS_H
#define TF_HARNESS_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How often tf_progress_tick() wants to be called meanwhile, in milliseconds. */
#define TF_PROGRESS_STEP_MS 200

/* A run of @total cells begins, @jobs at once, which take some @total_ms together. @total 0: nobody
 * knows how many. */
void tf_progress_open(size_t total, uint64_t total_ms, unsigned jobs);

/* A cell of this thread begins that takes some @takes_ms; @label is borrowed until it ends. */
void tf_progress_begin(const char *label, int takes_ms);

/* Draws it anew, if it is time. */
void tf_progress_tick(void);

/* The cell of this thread has ended, as it should or not. */
void tf_progress_end(bool held);

/* Takes the view away while something else is printed; all that is above waits until
 * tf_progress_show(). */
void tf_progress_hide(void);
void tf_progress_show(void);

/* The run has ended. */
void tf_progress_close(void);

#endif
