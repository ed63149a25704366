/* SPDX-License-Identifier: MIT */
/*
 * What stands in the way of a running process's journey, found without stopping it: descriptors and
 * mappings that do not travel, relatives, and what the kernel keeps for it that no image holds.
 * What is found can have changed when the process is stopped: the capture looks again at what it
 * needs.
 */
#ifndef TF_CAPTURE_TASK_CHECK_H
#define TF_CAPTURE_TASK_CHECK_H

#include <stdbool.h>
#include <sys/types.h>

#include "core/base/err.h"

/* X(NAME, name, whether a user may go on without it, what it is, remedy) */
#define TF_OBSTACLES(X)                                                                            \
	X(ACCESS, "access", false, "the process may not be looked at",                             \
		"be its user or root; see kernel.yama.ptrace_scope")                               \
	X(ENDED, "ended", false, "it has ended", "nothing can be done")                            \
	X(MACHINE, "machine", false, "it is no 64-bit program of this architecture",               \
		"use the telefork of its architecture")                                            \
	X(TRACER, "tracer", false, "another process traces it", "end the debugger")                \
	X(BUSY, "uninterruptible", false, "a thread that cannot be stopped where it is",           \
		"wait until it is through")                                                        \
	X(CHILD, "child", true, "it has a child, which stays behind", "let it end first")          \
	X(ZOMBIE, "zombie", true, "a child that has ended, for which it has not waited",           \
		"let it wait for the child")                                                       \
	X(TRACEE, "tracee", true, "it traces this process", "let it detach")                       \
	X(SEMAPHORE, "semaphore", true,                                                            \
		"what it did to a System V semaphore is undone when it ends (SEM_UNDO)",           \
		"let it release the semaphore and end its use")                                    \
	X(NAMESPACE, "namespace", true, "it lives in a namespace of its own",                      \
		"run telefork in the same container")                                              \
	X(SECCOMP, "seccomp", false, "system call filters are on that cannot be read here",        \
		"be root outside of a container; a process in strict mode stays")                  \
	X(TIMER, "timer", true, "it has a timer for one thread's own time, which is lost",         \
		"let it delete the timer")                                                         \
	X(LOCK, "lock", true, "it holds a lock on a file, which is lost", "let it unlock")         \
	X(DELETED, "deleted", true, "a file or directory that has no name any more",               \
		"let it close it")                                                                 \
	X(PIPE, "pipe", true, "a pipe, whose other end stays here", "let it close the pipe")       \
	X(SOCKET, "socket", true, "a socket, whose peer stays here", "let it close the socket")    \
	X(TCP, "tcp", true, "a TCP connection, whose peer stays here",                             \
		"let it close the socket, or let it find the connection reset: --tcp=reset")       \
	X(TTY, "tty", true, "a terminal, which stays here", "let it close the terminal")           \
	X(DEVICE, "device", true, "a device, which stays here", "let it close the device")         \
	X(EPOLL, "epoll", true, "an epoll set", "let it close the set")                            \
	X(EVENTFD, "eventfd", true, "an event counter", "let it close the counter")                \
	X(TIMERFD, "timerfd", true, "a timer", "let it close the timer")                           \
	X(SIGNALFD, "signalfd", true, "a descriptor for signals", "let it close it")               \
	X(INOTIFY, "inotify", true, "a watch on files", "let it close the watch")                  \
	X(IO_URING, "io_uring", false, "an io_uring: the kernel writes to its memory",             \
		"start it without io_uring")                                                       \
	X(PERF, "perf", true, "a performance counter", "end the profiler")                         \
	X(BPF, "bpf", true, "a BPF object", "let it close it")                                     \
	X(PIDFD, "pidfd", true, "a descriptor of a process here", "let it close it")               \
	X(LANDLOCK, "landlock", true, "a set of rules for files", "let it close the set")          \
	X(MQUEUE, "mqueue", true, "a message queue, which stays here", "let it close the queue")   \
	X(PROC, "proc", true, "a file in /proc about a process here", "let it close the file")     \
	X(USERFAULTFD, "userfaultfd", false, "it handles page faults by itself",                   \
		"start it without userfaultfd")                                                    \
	X(AIO, "aio", true,                                                                        \
		"it has asynchronous input and output set up (io_setup), which is lost",           \
		"let it end that with io_destroy")                                                 \
	X(SECRET, "secret-memory", false, "memory that nobody else may read",                      \
		"start it without memfd_secret")                                                   \
	X(OTHER, "other", true, "a descriptor of an unknown kind", "let it close it")              \
	X(DEVICE_MEMORY, "device-memory", false, "memory of a device", "let it unmap it")          \
	X(HUGETLB, "hugetlb", false, "pages of hugetlbfs", "start it without them")                \
	X(SHARED_MEMORY, "shared-memory", true,                                                    \
		"memory that others use, too, which parts from them", "let them unmap the memory") \
	X(TAGS, "tags", false, "memory with tags that is shared, or a file's",                     \
		"start it without memory tagging")                                                 \
	X(SEALED, "sealed", false, "a sealed mapping", "start it without mseal")                   \
	X(SHADOW_STACK, "shadow-stack", false, "a thread has a shadow stack",                      \
		"start it with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off")

enum tf_obstacle_kind {
#define X(name, text, waive, what, remedy) TF_OBSTACLE_##name,
	TF_OBSTACLES(X)
#undef X
		TF_OBSTACLE_KINDS,
};

struct tf_obstacle_info {
	const char *name;
	bool waivable; /* what is missing over there does not make the rest wrong */
	const char *what, *remedy;
};

extern const struct tf_obstacle_info tf_obstacle_info[TF_OBSTACLE_KINDS];

struct tf_obstacle {
	enum tf_obstacle_kind kind;
	const char *which; /* "descriptor 5 (socket:[1234])"; for the time of the call */
};

typedef void tf_obstacle_fn(void *ctx, const struct tf_obstacle *o);

/* Calls found for every obstacle. The number of them, or an error: _UNSUPPORTED (there is
 * no such process), _NOMEM. */
int tf_task_check(pid_t pid, tf_obstacle_fn *found, void *ctx, struct tf_err *e);

/* By name; TF_OBSTACLE_KINDS if there is none. */
enum tf_obstacle_kind tf_obstacle_by_name(const char *name);

#endif
