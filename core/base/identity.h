/* SPDX-License-Identifier: MIT */
/*
 * A process that is told from a later one with the same id: by when it began, and since which boot.
 * Nothing here ever touches another process than the one that was meant.
 */
#ifndef TF_BASE_IDENTITY_H
#define TF_BASE_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define TF_BOOT_ID 36 /* characters of /proc/sys/kernel/random/boot_id */

struct tf_identity {
	pid_t pid;
	uint64_t start; /* clock ticks after boot, field 22 of proc_pid_stat(5) */
	char boot[TF_BOOT_ID + 1];
};

/* Whose id this is at the moment. 0, or -errno: -ESRCH if there is none. */
int tf_identity_of(pid_t pid, struct tf_identity *ret);

/* The state of that very process, as in proc_pid_stat(5): 'R', 'S', 'T' (stopped), 't' (stopped by
 * a tracer), 'Z', …; 0: it is gone. */
char tf_identity_state(const struct tf_identity *i);

/* Whether there is no process of this id, or one that has ended and that nobody has waited for. */
bool tf_identity_ended(pid_t pid);

/* Sends it a signal. 0 or -errno: -ESRCH if it is gone. */
int tf_identity_signal(const struct tf_identity *i, int signo);

#endif
