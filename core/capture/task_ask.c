/* SPDX-License-Identifier: MIT */
/*
 * System calls that the stopped threads make for us: signal actions, brk, and of each its altstack
 * and tid address. A thread gets other registers, runs one instruction of the vDSO and stops;
 * results land in a few bytes of the process's own private memory, which are put back, as the
 * registers are. All signals are held meanwhile, so none is seen, lost or delivered at a wrong
 * place.
 *
 *   stop | registers, 64 bytes, mask saved | call, call, ... | interrupted: stop | all put back,
 * compared
 *
 * They are put back in a stop like the first, in which the kernel still handles signals: there it
 * sees by the registers that a call of the program has to be started again, and does so.
 */
#include "core/capture/task_impl.h"

#include <elf.h>
#include <errno.h>
#include <linux/prctl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arch/arch.h"

#define SCRATCH 64 /* bytes: the largest result, struct sigaction of the kernel, has 32 */
#define SYSGOOD (SIGTRAP | 0x80)

struct asking {
	struct tf_task *t;
	struct tf_traced *x;
	struct tf_thread *thread;
	uint64_t code;    /* a system call instruction */
	uint64_t scratch; /* SCRATCH bytes of private writable memory */
	uint8_t before[SCRATCH];
};

/* --- whether --- */

/* Any page of the process's own memory will do: it is read before and written back. */
static uint64_t find_scratch(const struct tf_capture *c)
{
	for (uint64_t i = 0; i < c->n_runs; i++) {
		const struct tf_map *m = tf_image_map_at(&c->image, c->runs[i].start);
		uint32_t rw = PROT_READ | PROT_WRITE;

		if (m && (m->prot & rw) == rw && !(m->flags & TF_MAP_SHARED) &&
			(m->kind == TF_MAP_ANON || m->kind == TF_MAP_HEAP ||
				m->kind == TF_MAP_STACK))
			return c->runs[i].start;
	}
	return 0;
}

static uint64_t find_code(const struct tf_task *t)
{
	const struct tf_vdso *v = &t->capture.image.vdso;
	size_t at = tf_arch_find_syscall(t->vdso, v->size);

	return at < v->size ? v->base + at : 0;
}

/* A filter would see our calls as the program's. */
static bool is_filtered(struct tf_task *t)
{
	const char *p;
	char *text;
	size_t size;

	if (tf_task_read_text(t, "status", &text, &size))
		return true;
	p = strstr(text, "\nSeccomp:");
	return p && strtol(p + 9, NULL, 10) != 0;
}

static bool can_ask(struct asking *q)
{
	q->code = find_code(q->t);
	q->scratch = find_scratch(&q->t->capture);
	return q->code && q->scratch && !is_filtered(q->t);
}

/* --- one call --- */

static int fail(struct asking *q, const char *what)
{
	return tf_fail_errno(&q->t->capture.err, TELEFORK_E_SYSTEM, errno, "process %d: %s",
		(int)q->t->pid, what);
}

/* Runs on to the next stop of a system call. */
static int to_syscall_stop(struct asking *q)
{
	uintptr_t signo = 0;
	int status;

	for (;;) {
		if (ptrace(PTRACE_SYSCALL, q->x->tid, NULL, (void *)signo))
			return fail(q, "ptrace");
		while (waitpid(q->x->tid, &status, __WALL) < 0)
			if (errno != EINTR)
				return fail(q, "wait");
		if (!WIFSTOPPED(status)) {
			q->x->stopped = false;
			return tf_fail(&q->t->capture.err, TELEFORK_E_SYSTEM,
				"process %d has ended", (int)q->t->pid);
		}
		if (WSTOPSIG(status) == SYSGOOD)
			return 0;
		/* SIGSTOP cannot be held: it takes its course, and changes nothing for us. */
		signo = status >> 16 ? 0 : (uintptr_t)WSTOPSIG(status);
	}
}

static int call(struct asking *q, long nr, const uint64_t arg[6], int64_t *ret)
{
	int rc;

	if (tf_arch_task_call(q->x->tid, &q->x->as_found, q->code, nr, arg))
		return fail(q, "set registers");
	rc = to_syscall_stop(q); /* on its way in */
	if (!rc)
		rc = to_syscall_stop(q); /* on its way out */
	if (!rc)
		*ret = tf_arch_task_result(q->x->tid);
	return rc;
}

/* --- questions --- */

static int ask_sigactions(struct asking *q)
{
	struct tf_image *img = &q->t->capture.image;

	img->sigactions =
		tf_arena_array(&q->t->capture.arena, TF_SIGNALS, sizeof(*img->sigactions));
	if (!img->sigactions)
		return TELEFORK_E_NOMEM;
	for (int i = 0; i < TF_SIGNALS; i++) {
		const uint64_t arg[6] = {(uint64_t)i + 1, 0, q->scratch, sizeof(uint64_t)};
		int64_t result;
		int rc = call(q, SYS_rt_sigaction, arg, &result);

		if (!rc)
			rc = tf_task_read(
				q->t, q->scratch, &img->sigactions[i], sizeof(img->sigactions[i]));
		if (rc)
			return rc;
	}
	img->n_sigactions = TF_SIGNALS;
	return 0;
}

static int ask_altstack(struct asking *q)
{
	const uint64_t arg[6] = {0, q->scratch};
	int64_t result;
	stack_t ss;
	int rc = call(q, SYS_sigaltstack, arg, &result);

	if (!rc)
		rc = tf_task_read(q->t, q->scratch, &ss, sizeof(ss));
	if (!rc)
		q->thread->altstack =
			(struct tf_altstack){(uint64_t)ss.ss_sp, ss.ss_size, ss.ss_flags};
	return rc;
}

static int ask_tid_address(struct asking *q)
{
	const uint64_t arg[6] = {PR_GET_TID_ADDRESS, q->scratch};
	int64_t result;
	int rc = call(q, SYS_prctl, arg, &result);

	if (!rc && !result)
		rc = tf_task_read(q->t, q->scratch, &q->thread->tid_addr, sizeof(uint64_t));
	return rc;
}

static int ask_brk(struct asking *q)
{
	static const uint64_t arg[6];
	int64_t result;
	int rc = call(q, SYS_brk, arg, &result);

	if (!rc)
		q->t->capture.image.mm.brk = (uint64_t)result;
	return rc;
}

/* --- the whole --- */

static int hold_signals(struct asking *q)
{
	uint64_t all = ~UINT64_C(0);

	if (ptrace(PTRACE_SETOPTIONS, q->x->tid, NULL, (void *)PTRACE_O_TRACESYSGOOD) ||
		ptrace(PTRACE_SETSIGMASK, q->x->tid, (void *)sizeof(all), &all))
		return fail(q, "hold signals");
	return 0;
}

/* From the way out of a system call to a stop where signals are handled: no instruction is run. */
static int to_signal_stop(struct asking *q)
{
	uint64_t deadline = tf_now_ns() + TF_TASK_STOP_MS * UINT64_C(1000000);
	int rc;

	if (ptrace(PTRACE_INTERRUPT, q->x->tid, NULL, NULL) ||
		ptrace(PTRACE_CONT, q->x->tid, NULL, NULL))
		return fail(q, "could not be stopped again");
	q->x->stopped = false;
	rc = tf_task_wait_stop(q->t, q->x, deadline);
	return rc == 1 ? 0 : rc ? rc : fail(q, "has ended");
}

/* Nothing may have changed: neither what a table knows nor the bytes that were borrowed. */
static int check_unharmed(struct asking *q, const struct tf_regs *should)
{
	struct tf_capture *c = &q->t->capture;
	struct tf_cpu cpu = c->image.cpu;
	struct tf_regs now = {0};
	uint8_t after[SCRATCH];
	int rc = tf_arch_regs_from_task(q->x->tid, &cpu, &c->arena, &now, &c->err);

	if (!rc &&
		tf_regs_diff(tf_arch_native(), should, &c->image.cpu, &now, &cpu, NULL, NULL, NULL))
		rc = tf_fail(&c->err, TELEFORK_E_SYSTEM,
			"thread %d: its registers are not what they were", (int)q->x->tid);
	if (!rc)
		rc = tf_task_read(q->t, q->scratch, after, SCRATCH);
	if (!rc && memcmp(after, q->before, SCRATCH) != 0)
		rc = tf_fail(&c->err, TELEFORK_E_SYSTEM,
			"process %d: its memory is not what it was", (int)q->t->pid);
	return rc;
}

static int put_back(struct asking *q)
{
	struct tf_task *t = q->t;
	struct tf_regs regs;
	int rc = to_signal_stop(q);

	if (pwrite(t->mem, q->before, SCRATCH, (off_t)q->scratch) != SCRATCH)
		return fail(q, "its memory could not be put back as it was");
	if (!rc)
		rc = tf_task_go_on(t, q->x, q->thread, &regs);
	if (rc)
		return rc;
	if (tf_arch_task_put(q->x->tid, &regs) ||
		ptrace(PTRACE_SETSIGMASK, q->x->tid, (void *)sizeof(uint64_t),
			&q->thread->sigmask) ||
		ptrace(PTRACE_SETOPTIONS, q->x->tid, NULL, NULL))
		return fail(q, "could not be put back as it was");
	return check_unharmed(q, &regs);
}

/* The main thread answers for the process, too. */
static int ask_thread(struct asking *q)
{
	static int (*const question[])(struct asking *) = {
		ask_altstack, ask_tid_address, ask_sigactions, ask_brk};
	size_t n = q->x->tid == q->t->pid ? 4 : 2;
	int rc = hold_signals(q), back;

	for (size_t i = 0; i < n && !rc; i++)
		rc = question[i](q);
	if (!q->x->stopped)
		return rc;
	back = put_back(q);
	return rc ? rc : back;
}

int tf_task_ask(struct tf_task *t)
{
	struct asking q = {.t = t};
	int rc;

	if (!can_ask(&q))
		return 0;
	rc = tf_task_read(t, q.scratch, q.before, SCRATCH);
	for (uint32_t i = 0; i < t->n_traced && !rc; i++) {
		q.x = &t->traced[i];
		q.thread = &t->capture.image.threads[i];
		rc = ask_thread(&q);
	}
	if (!rc)
		t->capture.image.source.flags &= ~TF_SOURCE_OUTSIDE;
	return rc;
}
