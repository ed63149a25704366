/* SPDX-License-Identifier: MIT */
/*
 * What nobody who captures from outside can do without: each thread is stopped, its registers are
 * read, it makes one system call (nobody else knows its alternate stack), and is put back and let
 * go. No memory, no descriptors, nothing for the case that the tracer dies.
 */
#include "tests/bench/bench.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arch/arch.h"
#include "core/base/io.h"

#define ROOM    ((size_t)64 << 20)
#define THREADS 1024

struct thread {
	pid_t tid;
	struct tf_regs regs;
};

static unsigned seize_all(pid_t pid, struct thread *all)
{
	char path[32];
	struct dirent *entry;
	unsigned n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	while (dir && n < THREADS && (entry = readdir(dir))) {
		all[n].tid = atoi(entry->d_name);
		if (all[n].tid > 0 && !ptrace(PTRACE_SEIZE, all[n].tid, NULL, NULL))
			n++;
	}
	if (dir)
		closedir(dir);
	return n;
}

static int await(const struct thread *all, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		int status;
		pid_t got;

		while (!(got = waitpid(all[i].tid, &status, __WALL | WNOHANG)))
			;
		if (got < 0 || !WIFSTOPPED(status))
			return -1;
	}
	return 0;
}

static void resume(const struct thread *all, unsigned n, bool stop)
{
	for (unsigned i = 0; i < n; i++) {
		if (stop)
			ptrace(PTRACE_INTERRUPT, all[i].tid, NULL, NULL);
		ptrace(stop ? PTRACE_CONT : PTRACE_SYSCALL, all[i].tid, NULL, NULL);
	}
}

/* From stop to stop: into the call, and out of it, to where it can be put back. */
static int call(const struct thread *all, unsigned n)
{
	static const uint64_t none[6];
	const uint8_t *code = (const uint8_t *)(uintptr_t)syscall; /* the program is a fork of us */
	const struct tf_call_way way = {.at = (uint64_t)code + tf_arch_find_syscall(code, 64)};

	for (unsigned i = 0; i < n; i++)
		if (tf_arch_task_call(all[i].tid, &all[i].regs, &way, SYS_sigaltstack, none))
			return -1;
	resume(all, n, false);
	if (await(all, n))
		return -1;
	resume(all, n, true);
	return await(all, n);
}

static int stop_and_go(struct thread *all, unsigned n, struct tf_arena *a)
{
	struct tf_cpu cpu;
	struct tf_err e = {0};

	tf_arch_cpu(&cpu, true);
	for (unsigned i = 0; i < n; i++)
		ptrace(PTRACE_INTERRUPT, all[i].tid, NULL, NULL);
	if (await(all, n))
		return -1;
	for (unsigned i = 0; i < n; i++)
		if (tf_arch_regs_from_task(all[i].tid, &cpu, a, &all[i].regs, &e))
			return -1;
	if (call(all, n))
		return -1;
	for (unsigned i = 0; i < n; i++)
		if (tf_arch_task_put(all[i].tid, &all[i].regs))
			return -1;
	for (unsigned i = 0; i < n; i++)
		ptrace(PTRACE_DETACH, all[i].tid, NULL, NULL);
	return 0;
}

double bench_floor(pid_t pid)
{
	struct thread *all = calloc(THREADS, sizeof(*all));
	struct tf_arena a = {0};
	double ms = -1;

	if (all && !tf_arena_init(&a, ROOM)) {
		unsigned n = seize_all(pid, all);
		uint64_t start;

		tf_arena_touch(&a, n * (8u << 10));
		start = tf_now_ns();
		if (!stop_and_go(all, n, &a))
			ms = (double)(tf_now_ns() - start) / 1e6;
	}
	tf_arena_done(&a);
	free(all);
	return ms;
}
