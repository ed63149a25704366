/* SPDX-License-Identifier: MIT */
/*
 * A bar for people who wait, on standard error if that is a terminal; elsewhere nothing is shown.
 * It goes by the time that a step takes as a rule, and begins after a second.
 */
#ifndef TF_HARNESS_PROGRESS_H
#define TF_HARNESS_PROGRESS_H

/* How often tf_progress_tick() wants to be called meanwhile, in milliseconds. */
#define TF_PROGRESS_STEP_MS 200

/* A step begins that takes some @takes_ms; @label is borrowed until it ends. */
void tf_progress_begin(const char *label, int takes_ms);

/* Draws the bar anew. */
void tf_progress_tick(void);

/* The step has ended: its line is empty again. */
void tf_progress_end(void);

#endif
