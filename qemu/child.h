/* SPDX-License-Identifier: MIT */
/*
 * A program that ends with us, even with kill -9. PR_SET_PDEATHSIG alone is tied to the
 * *thread* that forked, so a small guard process stands in between:
 *
 *     harness ===socketpair=== guard ---fork, PDEATHSIG---> program
 *
 * The guard kills the program when the socket reports that the harness is gone, and is itself
 * single-threaded, so that its own death kills the program through PDEATHSIG. It also reaps
 * it, hence a pid is never used after it may have been given to somebody else. What the program
 * leaves behind at its end becomes the guard's own and ends at the latest with it.
 */
#ifndef TF_QEMU_CHILD_H
#define TF_QEMU_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "qemu/error.h"

struct tf_vm_child;

/* Descriptor @from of ours becomes @to (3..63) in the program. */
struct tf_vm_child_fd {
	int from;
	int to;
};

/*
 * Start @argv (looked up in PATH) with stdin from /dev/null, stdout and stderr appended to the
 * file @log, the @n descriptors of @fds and no others. It succeeds as soon as the program has a
 * pid; a failing exec shows as an early end and in tf_vm_child_explain.
 */
int tf_vm_child_start(const char *const argv[], const struct tf_vm_child_fd *fds, size_t n,
	const char *log, struct tf_vm_child **ret_child, struct tf_vm_error *err);

/*
 * While this is held nobody forks. Who writes a program's file holds it: a child that another
 * thread makes meanwhile would have the file open for a moment, and exec would say ETXTBSY.
 */
void tf_vm_fork_lock(void);
void tf_vm_fork_unlock(void);

/* Every guard that is started from now on keeps @fd open until nothing is left of its program, so
 * that the other end of a pipe can tell when all are gone. -1: none any more. */
void tf_vm_child_keep(int fd);

/* Its pid. */
pid_t tf_vm_child_pid(const struct tf_vm_child *child);

/* A descriptor that polls readable when the program has ended. */
int tf_vm_child_poll_fd(const struct tf_vm_child *child);

/* Wait up to @timeout_ms for the end; true if it has ended, with *@ret_status (or NULL). */
bool tf_vm_child_ended(struct tf_vm_child *child, int timeout_ms, int *ret_status);

/* How it ended, in words ("qemu-system-x86_64 was killed by signal 9"). */
void tf_vm_child_explain(struct tf_vm_child *child, char *buf, size_t size);

/* Send @signo to the program's process group, as long as it or what it left behind is there. */
void tf_vm_child_signal(struct tf_vm_child *child, int signo);

/* SIGKILL to it and all that it started, and wait for its end (at most 10 s, then -ETIMEDOUT). */
int tf_vm_child_kill(struct tf_vm_child *child);

/* Kill if it runs, with all that it started, reap, free. NULL is fine. */
void tf_vm_child_free(struct tf_vm_child *child);

#endif
