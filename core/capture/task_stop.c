/* SPDX-License-Identifier: MIT */
/*
 * Stopping a process from outside, see task.h. Threads are seized and interrupted until a look at
 * /proc/PID/task shows none that does not stand: then nobody is left who could make another. What
 * is seized and not stopped runs on by itself when we end, and what stands does so too: our death
 * never harms.
 */
#include "core/capture/task_call.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "arch/arch.h"
#include "core/base/cleanup.h"
#include "core/base/host.h"

#define TOUCHED   (16 << 10) /* bytes that a thread's description takes, roughly */
#define SPARE_FDS 64         /* for all else */

static int open_its(const struct tf_task *t, const char *name, int flags)
{
	char path[TF_TASK_PATH];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)t->seen, name);
	return open(path, flags | O_CLOEXEC);
}

static void close_files(struct tf_task *t)
{
	tf_closep(&t->mem);
	tf_closep(&t->pagemap);
	t->mem = t->pagemap = -1;
}

int tf_task_open(struct tf_task *t)
{
	close_files(t);
	t->mem = open_its(t, "mem", O_RDWR);
	return t->mem < 0 ? tf_fail_errno(&t->capture.err, TELEFORK_E_SYSTEM, errno, "/proc/%d/mem",
				    (int)t->seen)
			  : 0;
}

int tf_task_pagemap(struct tf_task *t)
{
	if (t->pagemap < 0)
		t->pagemap = open_its(t, "pagemap", O_RDONLY);
	return t->pagemap;
}

static int check_machine(struct tf_task *t)
{
	char path[TF_TASK_PATH];
	unsigned char ident[20] = {0};
	TF_CLOSE int fd = -1;

	snprintf(path, sizeof(path), "/proc/%d/exe", (int)t->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, ident, sizeof(ident)) != sizeof(ident))
		return tf_fail_errno(
			&t->capture.err, TELEFORK_E_SYSTEM, errno, "process %d", (int)t->pid);
	if (ident[EI_CLASS] != ELFCLASS64 ||
		(uint32_t)(ident[18] | ident[19] << 8) != tf_arch_native()->machine)
		return tf_fail(&t->capture.err, TELEFORK_E_UNSUPPORTED,
			"process %d is not a 64-bit %s program", (int)t->pid,
			tf_arch_native()->name);
	return 0;
}

void tf_task_thread_text(
	const struct tf_task *t, pid_t tid, const char *name, char *buf, size_t size)
{
	char path[TF_TASK_PATH];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", (int)t->pid, (int)tid, name);
	tf_proc_peek(path, buf, size);
	buf[strcspn(buf, "\n")] = '\0';
}

static const char *state_text(char state)
{
	switch (state) {
	case 'D':
		return "it is in uninterruptible sleep or waits for a vfork";
	case 'Z':
	case 'X':
		return "it has ended";
	case 'T':
	case 't':
		return "it is stopped";
	default:
		return "it runs on";
	}
}

/* As proc(5) has it in its stat; '?': not told. */
static char state_of(const struct tf_task *t, pid_t tid)
{
	char stat[256];
	const char *p;

	tf_task_thread_text(t, tid, "stat", stat, sizeof(stat));
	p = strrchr(stat, ')');
	return p && p[1] ? p[2] : '?';
}

static bool is_about_to(char state)
{
	return state == 'R' || state == 't';
}

/* Behind its deadline. Linux 6.18 lets threads wait for their turn for seconds, us among them,
 * where sessions have a group each (autogroup, sched(7)): who needs nothing but that, or stands by
 * now, is given longer. */
static bool is_too_late(const struct tf_task *t, pid_t tid, uint64_t late_ns)
{
	return !is_about_to(state_of(t, tid)) ||
	       late_ns > (TF_TASK_TURN_MS - TF_TASK_STOP_MS) * UINT64_C(1000000);
}

static int does_not_stop(struct tf_task *t, pid_t tid)
{
	char state = state_of(t, tid), where[64];

	tf_task_thread_text(t, tid, "wchan", where, sizeof(where));
	return tf_fail(&t->capture.err, TELEFORK_E_SYSTEM,
		"thread %d of process %d does not stop within %d ms: %s (state %c%s%s); it was let "
		"go, try again later",
		(int)tid, (int)t->pid, is_about_to(state) ? TF_TASK_TURN_MS : TF_TASK_STOP_MS,
		state_text(state), state, where[0] && where[0] != '0' ? ", in " : "",
		where[0] != '0' ? where : "");
}

/* Whether it has stopped or ended by now, or does within a millisecond: as waitpid(2). */
static pid_t wait_a_bit(pid_t tid, int *ret_status)
{
	sigset_t chld, before;
	pid_t got;

	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	pthread_sigmask(SIG_BLOCK, &chld, &before);
	got = waitpid(tid, ret_status, __WALL | WNOHANG);
	if (!got)
		sigtimedwait(&chld, NULL, &(struct timespec){.tv_nsec = 1000000});
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return got;
}

int tf_task_wait_any(struct tf_task *t, struct tf_traced *x, uint64_t deadline_ns, int *ret_status)
{
	uint64_t doze_ns = 0;

	for (;;) {
		uint64_t now = tf_now_ns(); /* on a busy machine what comes then comes late */
		pid_t got = doze_ns && now > doze_ns
				    ? wait_a_bit(x->tid, ret_status)
				    : waitpid(x->tid, ret_status, __WALL | WNOHANG);

		if ((got < 0 && errno != EINTR) || (got > 0 && !WIFSTOPPED(*ret_status)))
			return 0;
		if (got > 0) {
			x->stopped = true;
			return 1;
		}
		if (now > deadline_ns && is_too_late(t, x->tid, now - deadline_ns))
			return does_not_stop(t, x->tid);
		if (!doze_ns)
			doze_ns = t->processors > 1 ? now + TF_TASK_AWAKE_NS : 1;
	}
}

int tf_task_wait_stop(struct tf_task *t, struct tf_traced *x, uint64_t deadline_ns)
{
	for (;;) {
		int status, signo, rc = tf_task_wait_any(t, x, deadline_ns, &status);

		if (rc <= 0)
			return rc;
		signo = WSTOPSIG(status);
		if (status >> 16 == PTRACE_EVENT_STOP) {
			t->was_stopped |= signo != SIGTRAP; /* a group stop has its signal */
			return 1;
		}
		ptrace(PTRACE_CONT, x->tid, NULL, (void *)(uintptr_t)(signo & 0x80 ? 0 : signo));
		x->stopped = false;
	}
}

/* To be read when the thread stands; -1 if there is no descriptor to spare. */
static int open_status(const struct tf_task *t, pid_t tid)
{
	char name[TF_TASK_PATH / 2];
	int fd;

	snprintf(name, sizeof(name), "task/%d/status", (int)tid);
	fd = open_its(t, name, O_RDONLY);
	if (fd < t->most_fds)
		return fd;
	close(fd);
	return -1;
}

static bool is_known(const struct tf_task *t, pid_t tid)
{
	for (uint32_t i = 0; i < t->n_traced; i++)
		if (t->traced[i].tid == tid)
			return true;
	return false;
}

/* One that has just ended is none. */
static int seize(struct tf_task *t, pid_t tid)
{
	struct tf_traced *all = realloc(t->traced, (t->n_traced + 1) * sizeof(*all));
	char call[256];
	int err, status;

	if (!all)
		return tf_fail(&t->capture.err, TELEFORK_E_NOMEM, "out of memory for threads");
	t->traced = all;
	tf_task_thread_text(t, tid, "syscall", call, sizeof(call));
	status = open_status(t, tid);
	all[t->n_traced] = (struct tf_traced){.tid = tid,
		.status_fd = status,
		.blocked = call[0] >= '0' && call[0] <= '9' ? strtol(call, NULL, 10) : -1};
	if (all[t->n_traced].blocked >= 0)
		tf_task_see_wait(t, &all[t->n_traced], call);
	if (ptrace(PTRACE_SEIZE, tid, NULL, (void *)PTRACE_O_TRACESYSGOOD)) {
		err = errno;
		tf_closep(&status);
		if (err == ESRCH && tid != t->pid)
			return 0;
		if (tid == t->pid && state_of(t, tid) == 'Z')
			return tf_fail(&t->capture.err, TELEFORK_E_UNSUPPORTED,
				"the main thread of process %d has ended", (int)t->pid);
		return tf_fail_errno(&t->capture.err, TELEFORK_E_SYSTEM, err,
			"ptrace of process %d (another tracer? another user? see \"telefork "
			"check\")",
			(int)t->pid);
	}
	t->n_traced++;
	return 0;
}

/* *ret_new: how many threads were met for the first time. */
static int seize_new(struct tf_task *t, uint32_t *ret_new)
{
	char path[TF_TASK_PATH];
	struct dirent *entry;
	DIR *dir;
	int rc = 0;

	*ret_new = 0;
	snprintf(path, sizeof(path), "/proc/%d/task", (int)t->pid);
	dir = opendir(path);
	if (!dir)
		return tf_fail_errno(
			&t->capture.err, TELEFORK_E_SYSTEM, errno, "process %d", (int)t->pid);
	while (!rc && (entry = readdir(dir))) {
		pid_t tid = atoi(entry->d_name);

		if (tid <= 0 || is_known(t, tid))
			continue;
		rc = seize(t, tid);
		*ret_new += !rc;
	}
	closedir(dir);
	return rc;
}

/* As many threads as we know. Those stand, so it is they; and a list takes longer. */
static bool has_no_other(const struct tf_task *t)
{
	char path[TF_TASK_PATH];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)t->pid);
	return !stat(path, &st) && st.st_nlink == t->n_traced + 2;
}

/* All at once, so that the first stands hardly longer than the last. */
static void interrupt_all(struct tf_task *t)
{
	if (!t->stopped_ns)
		t->stopped_ns = tf_now_ns();
	for (uint32_t i = 0; i < t->n_traced; i++)
		if (!t->traced[i].stopped)
			ptrace(PTRACE_INTERRUPT, t->traced[i].tid, NULL, NULL);
}

/* Waits until all stand; those that have ended meanwhile are taken off the list. */
static int wait_all(struct tf_task *t, uint64_t deadline_ns)
{
	uint32_t n = 0;
	int rc = 1;

	for (uint32_t i = 0; i < t->n_traced; i++) {
		if (!t->traced[i].stopped && rc >= 0)
			rc = tf_task_wait_stop(t, &t->traced[i], deadline_ns);
		if (rc) {
			t->traced[n++] = t->traced[i];
		} else {
			tf_closep(&t->traced[i].status_fd);
			rc = 1;
		}
	}
	t->n_traced = n;
	return rc < 0 ? rc : 0;
}

static int stop_all(struct tf_task *t)
{
	uint64_t deadline = tf_now_ns() + TF_TASK_STOP_MS * UINT64_C(1000000);
	uint32_t fresh;
	int rc;

	do {
		rc = seize_new(t, &fresh);
		if (!t->stopped_ns)
			tf_arena_touch(&t->capture.arena, TOUCHED * (t->n_traced + 8));
		interrupt_all(t);
		if (!rc)
			rc = wait_all(t, deadline);
	} while (!rc && fresh && !has_no_other(t));
	if (!rc && (!t->n_traced || t->traced[0].tid != t->pid))
		rc = tf_fail(&t->capture.err, TELEFORK_E_UNSUPPORTED,
			"process %d, or its main thread, has ended", (int)t->pid);
	return rc;
}

/* The machine's own clocks, or those of a time namespace: only the former have a name. */
static int see_clocks(struct tf_task *t)
{
	struct tf_clocks its = tf_host_clocks(t->pid), ours = tf_host_clocks(0);
	char id[64] = "";
	TF_CLOSE int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 || its.monotonic || its.boottime ? 0 : read(fd, id, sizeof(id) - 1);

	t->clocks.monotonic = its.monotonic - ours.monotonic;
	t->clocks.boottime = its.boottime - ours.boottime;
	t->boot = tf_arena_strn(&t->capture.arena, id, n > 0 ? strcspn(id, "\n") : 0);
	return t->boot ? 0 : tf_fail(&t->capture.err, TELEFORK_E_NOMEM, "out of memory");
}

/* What we may have: processors, and descriptors for status texts. */
static void see_limits(struct tf_task *t)
{
	struct rlimit files = {0};

	t->processors = tf_host_processors();
	getrlimit(RLIMIT_NOFILE, &files);
	t->most_fds = files.rlim_cur > INT_MAX ? INT_MAX : (int)files.rlim_cur - SPARE_FDS;
}

int tf_task_begin(struct tf_task *t, pid_t pid)
{
	struct tf_err *e;
	int rc;

	*t = (struct tf_task){.pid = pid,
		.seen = pid,
		.mem = -1,
		.pagemap = -1,
		.timers = -1,
		.reset_tcp = t->reset_tcp,
		.post_copy = t->post_copy,
		.rounds = t->rounds,
		.may_stop = t->may_stop,
		.way = t->way};
	e = &t->capture.err;
	if (tf_host_emulated())
		return tf_fail(e, TELEFORK_E_UNSUPPORTED,
			"QEMU user mode has no ptrace: a process cannot be looked at from outside "
			"here; let it save itself twice and compare the images");
	rc = check_machine(t);
	if (!rc && tf_arena_init(&t->capture.arena, TF_ARENA_DEFAULT))
		rc = tf_fail(e, TELEFORK_E_NOMEM, "no address space for an image");
	if (!rc)
		rc = see_clocks(t);
	see_limits(t);
	t->timers = open_its(t, "timers", O_RDONLY);
	if (!rc)
		tf_task_files_before(t);
	if (!rc)
		rc = tf_task_survey(t);
	if (rc)
		tf_task_release(t);
	return rc;
}

int tf_task_halt(struct tf_task *t)
{
	int rc = stop_all(t);

	if (!rc)
		rc = tf_task_leave_vdso(t);
	if (!rc)
		rc = tf_task_open(t);
	if (rc)
		tf_task_release(t);
	return rc;
}

int tf_task_pause(struct tf_task *t, pid_t pid)
{
	*t = (struct tf_task){
		.pid = pid, .seen = pid, .mem = -1, .pagemap = -1, .timers = -1, .processors = 1};
	return tf_task_halt(t);
}

int tf_task_stop(struct tf_task *t, pid_t pid)
{
	int rc = tf_task_begin(t, pid);

	return rc ? rc : tf_task_halt(t);
}

void tf_task_let_go(struct tf_task *t)
{
	/* Only a stopped thread can be let go; one that never stopped is let go by our end. */
	for (uint32_t i = 0; i < t->n_traced; i++)
		if (t->traced[i].stopped)
			ptrace(PTRACE_DETACH, t->traced[i].tid, NULL, NULL);
	if (!t->released_ns)
		t->released_ns = tf_now_ns();
	tf_task_status_join(t);
}

void tf_task_release(struct tf_task *t)
{
	struct tf_capture *c = &t->capture;

	if (t->traced && !t->released_ns)
		tf_task_let_go(t);
	tf_task_status_join(t);
	for (uint32_t i = 0; i < t->n_traced; i++)
		tf_closep(&t->traced[i].status_fd);
	tf_closep(&t->timers);
	t->timers = -1;
	tf_task_files_close(t);
	free(t->traced);
	t->traced = NULL;
	t->n_traced = 0;
	tf_task_shot_end(t);
	tf_task_objects_close(t);
	close_files(t);
	if (c->frozen_base)
		munmap(c->frozen_base, c->frozen_size);
	c->frozen_base = NULL;
	tf_arena_done(&c->arena);
}
