/* SPDX-License-Identifier: MIT */
/*
 * A twin: a child that shares our memory, asks to be traced and stands still. Some state of a
 * thread is copied by fork but told only to a tracer, so the twin answers for us; and whether it
 * can be had at all tells whether this process may trace. The twin never shows: no SIGCHLD when it
 * ends, no descriptor of its own, and it dies with us. System calls only.
 */
#ifndef TF_BASE_TWIN_H
#define TF_BASE_TWIN_H

#include <sys/types.h>

#include "core/base/err.h"

/* Starts one and returns its pid when it is stopped, traced by the calling thread; or _SYSTEM with
 * the reason in e (may be NULL), nothing left behind. The caller ends it with tf_twin_end().
 * Signals of the calling thread should be blocked: the stop raises SIGCHLD. [child] */
pid_t tf_twin_start(struct tf_err *e);

/* Ends and reaps it. [child] */
void tf_twin_end(pid_t twin);

#endif
