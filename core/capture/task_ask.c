/* SPDX-License-Identifier: MIT */
/*
 * System calls that the stopped threads make for us: signal actions, brk, and of each its altstack
 * and tid address. A thread gets other registers, runs one instruction of the vDSO and stops;
 * results land in a few bytes of the process's own private memory, which are put back, as the
 * registers are. All signals are held meanwhile, so none is seen, lost or delivered at a wrong
 * place.
 *
 * All signals are held meanwhile, so none is seen, lost or delivered at a wrong place.
 *
 *   stop | frame | call, call, ... | interrupted: stop | all put back, compared | (go on)
 *
 * Should we die meanwhile, the thread goes on with what it was given: its call, whose code returns
 * to code that takes a signal frame off the stack, and the frame is the thread as it was. The
 * frames lie in a page or two that the main thread maps and unmaps in the same manner; for that its
 * frame lies below its stack's red zone. All is put back in a stop like the first, in which the
 * kernel still handles signals: there it sees by the registers that a call of the program has to be
 * started again.
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

#define RESULT  64 /* bytes: the largest result, struct sigaction of the kernel, has 32 */
#define SYSGOOD (SIGTRAP | 0x80)

#define CHUNK 65536

struct asking {
	struct tf_task *t;
	struct tf_cpu here; /* what frames are laid out for */
	struct tf_exits exits;
	uint64_t code;            /* a system call instruction, where there are no exits */
	uint64_t room, room_size; /* mapped in the process: a result, and a frame */
	struct tf_traced *x;
	struct tf_thread *thread;
	struct tf_call_way way;
};

/* --- whether, and which way --- */

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

/* Reads code until both are found; chunks overlap by what a pattern has. */
static void find_exits(struct asking *q, const struct tf_map *m, uint8_t *buf)
{
	for (uint64_t at = m->start; at < m->data_end; at += CHUNK - 16) {
		uint64_t left = m->data_end - at;
		ssize_t n = pread(q->t->mem, buf, left < CHUNK ? left : CHUNK, (off_t)at);

		if (n <= 0 || (q->exits.call_return && q->exits.sigreturn))
			return;
		tf_arch_find_exits(buf, (size_t)n, at, &q->exits);
	}
}

static bool can_ask(struct asking *q)
{
	const struct tf_image *img = &q->t->capture.image;
	uint8_t *buf = tf_arena_alloc(&q->t->capture.arena, CHUNK);

	q->code = find_code(q->t);
	for (uint32_t i = 0; i < img->n_maps && buf; i++)
		if (img->maps[i].prot & PROT_EXEC && img->maps[i].kind != TF_MAP_ANON)
			find_exits(q, &img->maps[i], buf);
	return buf && q->code && !is_filtered(q->t);
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

	if (tf_arch_task_call(q->x->tid, &q->x->as_found, &q->way, nr, arg))
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
		const uint64_t arg[6] = {(uint64_t)i + 1, 0, q->room, sizeof(uint64_t)};
		int64_t result;
		int rc = call(q, SYS_rt_sigaction, arg, &result);

		if (!rc)
			rc = tf_task_read(
				q->t, q->room, &img->sigactions[i], sizeof(img->sigactions[i]));
		if (rc)
			return rc;
	}
	img->n_sigactions = TF_SIGNALS;
	return 0;
}

static int ask_altstack(struct asking *q)
{
	const uint64_t arg[6] = {0, q->room};
	int64_t result;
	stack_t ss;
	int rc = call(q, SYS_sigaltstack, arg, &result);

	if (!rc)
		rc = tf_task_read(q->t, q->room, &ss, sizeof(ss));
	if (!rc)
		q->thread->altstack =
			(struct tf_altstack){(uint64_t)ss.ss_sp, ss.ss_size, ss.ss_flags};
	return rc;
}

static int ask_tid_address(struct asking *q)
{
	const uint64_t arg[6] = {PR_GET_TID_ADDRESS, q->room};
	int64_t result;
	int rc = call(q, SYS_prctl, arg, &result);

	if (!rc && !result)
		rc = tf_task_read(q->t, q->room, &q->thread->tid_addr, sizeof(uint64_t));
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

/* Lays the thread as it is into a frame at that address of the process, and leads the way there. */
static int lay_frame(struct asking *q, uint64_t at, size_t size)
{
	struct tf_capture *c = &q->t->capture;
	struct tf_thread thread = *q->thread;
	uint8_t *bytes = tf_arena_alloc(&c->arena, size);
	uint64_t sp;
	int rc;

	if (!bytes)
		return tf_fail(&c->err, TELEFORK_E_NOMEM, "out of memory for a frame");
	rc = tf_task_settle_thread(q->t, q->x, &thread, true);
	if (!rc)
		rc = tf_arch_frame_from_regs(
			&thread, &c->image.cpu, &q->here, bytes, size, at, &sp, &c->err);
	if (rc)
		return rc;
	q->way = tf_arch_task_way(&q->exits, bytes, at, sp);
	return pwrite(q->t->mem, bytes, size, (off_t)at) == (ssize_t)size
		       ? 0
		       : fail(q, "a frame could not be laid");
}

/* In this order there is no moment at which our death would leave it without its mask. */
static int begin(struct asking *q)
{
	static const uint64_t none[6];
	uint64_t all = ~UINT64_C(0);

	if (tf_arch_task_call(q->x->tid, &q->x->as_found, &q->way, SYS_gettid, none) ||
		ptrace(PTRACE_SETSIGMASK, q->x->tid, (void *)sizeof(all), &all) ||
		ptrace(PTRACE_SETOPTIONS, q->x->tid, NULL, (void *)PTRACE_O_TRACESYSGOOD))
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

/* Nothing may have changed of what a table knows. */
static int check_unharmed(struct asking *q, const struct tf_regs *should)
{
	struct tf_capture *c = &q->t->capture;
	struct tf_cpu cpu = c->image.cpu;
	struct tf_regs now = {0};
	int rc = tf_arch_regs_from_task(q->x->tid, &cpu, &c->arena, &now, &c->err);

	if (!rc &&
		tf_regs_diff(tf_arch_native(), should, &c->image.cpu, &now, &cpu, NULL, NULL, NULL))
		rc = tf_fail(&c->err, TELEFORK_E_SYSTEM,
			"thread %d: its registers are not what they were", (int)q->x->tid);
	return rc;
}

static int put_back(struct asking *q)
{
	struct tf_regs regs;
	int rc = to_signal_stop(q);

	if (!rc)
		rc = tf_task_go_on(q->t, q->x, &regs);
	if (rc)
		return rc;
	if (ptrace(PTRACE_SETSIGMASK, q->x->tid, (void *)sizeof(uint64_t), &q->thread->sigmask) ||
		tf_arch_task_put(q->x->tid, &regs) ||
		ptrace(PTRACE_SETOPTIONS, q->x->tid, NULL, NULL))
		return fail(q, "could not be put back as it was");
	return check_unharmed(q, &regs);
}

/* What the thread is asked between the two. */
static int ask(struct asking *q, int (*const question[])(struct asking *), size_t n)
{
	int rc = begin(q), back;

	for (size_t i = 0; i < n && !rc; i++)
		rc = question[i](q);
	if (!q->x->stopped)
		return rc;
	back = put_back(q);
	return rc ? rc : back;
}

/* --- the room for frames --- */

static int map_room(struct asking *q)
{
	const uint64_t arg[6] = {0, q->room_size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, ~UINT64_C(0), 0};
	int64_t result;
	int rc = call(q, SYS_mmap, arg, &result);

	if (!rc && result > -4096 && result < 0)
		rc = tf_fail_errno(&q->t->capture.err, TELEFORK_E_SYSTEM, (int)-result,
			"process %d has no room for a page more", (int)q->t->pid);
	if (!rc)
		q->room = (uint64_t)result;
	return rc;
}

static int unmap_room(struct asking *q)
{
	const uint64_t arg[6] = {q->room, q->room_size};
	int64_t result;

	return call(q, SYS_munmap, arg, &result);
}

/* Lets the main thread call fn with a frame below its stack, if it is on a stack that the kernel
 * made: elsewhere (coroutines, goroutines) something else may lie below. What lay there is put
 * back. */
static int with_stack(struct asking *q, int (*const fn)(struct asking *), size_t frame)
{
	struct tf_capture *c = &q->t->capture;
	uint64_t sp = tf_arch_native()->sp(&q->x->as_found), at;
	const struct tf_map *m = tf_image_map_at(&c->image, sp);
	uint8_t *before = tf_arena_alloc(&c->arena, frame);
	int rc;

	at = (sp - tf_arch_native()->red_zone - frame) & ~UINT64_C(63);
	q->way = (struct tf_call_way){.at = q->code};
	if (!q->exits.call_return || !q->exits.sigreturn || !before || !m ||
		m->kind != TF_MAP_STACK || at < m->start ||
		pread(q->t->mem, before, frame, (off_t)at) != (ssize_t)frame)
		return ask(q, &fn, 1);
	rc = lay_frame(q, at, frame);
	if (!rc)
		rc = ask(q, &fn, 1);
	if (pwrite(q->t->mem, before, frame, (off_t)at) != (ssize_t)frame && !rc)
		rc = fail(q, "its stack could not be put back as it was");
	return rc;
}

/* The main thread answers for the process, too. */
static int ask_thread(struct asking *q, size_t frame)
{
	static int (*const question[])(struct asking *) = {
		ask_altstack, ask_tid_address, ask_sigactions, ask_brk};
	int rc = 0;

	q->way = (struct tf_call_way){.at = q->code};
	if (q->exits.call_return && q->exits.sigreturn)
		rc = lay_frame(q, q->room + RESULT, frame);
	return rc ? rc : ask(q, question, q->x->tid == q->t->pid ? 4 : 2);
}

static void turn_to(struct asking *q, uint32_t i)
{
	q->x = &q->t->traced[i];
	q->thread = &q->t->capture.image.threads[i];
}

int tf_task_ask(struct tf_task *t)
{
	struct asking q = {.t = t};
	size_t frame = 0;
	int rc, last;

	if (!can_ask(&q))
		return 0;
	tf_arch_cpu(&q.here, false);
	for (uint32_t i = 0; i < t->n_traced; i++) {
		size_t n = tf_arch_frame_size(&t->capture.image.threads[i].regs, &q.here);

		frame = n > frame ? n : frame;
	}
	q.room_size = (RESULT + frame + 0xffff) & ~UINT64_C(0xffff);
	turn_to(&q, 0);
	rc = with_stack(&q, map_room, frame);
	if (rc)
		return rc;
	for (uint32_t i = 0; i < t->n_traced && !rc; i++) {
		turn_to(&q, i);
		rc = ask_thread(&q, frame);
	}
	turn_to(&q, 0);
	last = t->traced[0].stopped ? with_stack(&q, unmap_room, frame) : rc;
	if (!rc)
		rc = last;
	if (!rc)
		t->capture.image.source.flags &= ~TF_SOURCE_OUTSIDE;
	return rc;
}
