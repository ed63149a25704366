/* SPDX-License-Identifier: MIT */
/* Facts about the process and the kernel that several parts ask for. System calls only. */
#ifndef TF_BASE_HOST_H
#define TF_BASE_HOST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/base/arena.h"
#include "core/base/err.h"

/* Whether this process runs under QEMU user mode (which has no ptrace: the call is unknown). */
bool tf_host_emulated(void);

/* Threads of this process, itself included; QEMU's own are not counted. 0 if it cannot be told. */
unsigned tf_host_threads(void);

/* Whether no other thread is left. One that was joined can be seen for a moment yet: waits for up
 * to 100 ms until it is gone. */
bool tf_host_alone(void);

/* Processors that this thread may run on; 0 if it cannot be told. */
int tf_host_processors(void);

/* MemAvailable of /proc/meminfo in bytes, read through the arena; UINT64_MAX if it is not told. */
uint64_t tf_host_memory_free(struct tf_arena *a);

/* Address range of the maps that are truly there: under QEMU user mode the emulator's own too. */
#define TF_HOST_MAPS      "/proc/self/maps"
#define TF_HOST_TRUE_MAPS "/proc/thread-self/maps"

/* The open descriptors of this process in ascending order (arena), but for the one used to list
 * them. No allocator. 0, _NOMEM, _SYSTEM. */
int tf_host_fds(struct tf_arena *a, int **ret_fds, uint32_t *ret_n, struct tf_err *e);

/* Closes every descriptor but those in keep[n] (any order, n <= 8). */
void tf_host_close_all(const int *keep, unsigned n);

/* What a process's clocks are ahead of the machine's, nanoseconds: time_namespaces(7). */
struct tf_clocks {
	int64_t monotonic, boottime;
};

/* Of the process, or of the caller (pid 0); zeros where there are no time namespaces. Allocates
 * nothing. */
struct tf_clocks tf_host_clocks(int pid);

#endif
