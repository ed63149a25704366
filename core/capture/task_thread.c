/* SPDX-License-Identifier: MIT */
/*
 * The threads of a stopped process, see task.h: their registers and what the kernel keeps for each,
 * the signals that wait, and how a thread that was interrupted goes on elsewhere.
 */
#include "core/capture/task_impl.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch/arch.h"
#include "core/base/cleanup.h"
#include "core/base/maps.h"
#include "core/base/wait.h"

#define PEEK    32 /* signals at a time */
#define RSEQ_CS 8  /* offset of rseq_cs in struct rseq, linux/rseq.h */

/* struct rseq_cs of linux/rseq.h. */
struct sequence {
	uint32_t version, flags;
	uint64_t start, size, abort;
};

/* --- what the kernel keeps for a thread --- */

/* "Name:\t", with \n and \\ for the two characters. */
static void read_comm(const char *status, struct tf_thread *thread)
{
	const char *p = status + strcspn(status, "\t");

	for (size_t n = 0; *p && *++p != '\n' && n < sizeof(thread->comm) - 1; n++) {
		p += *p == '\\';
		thread->comm[n] = (char)(*p == 'n' && p[-1] == '\\' ? '\n' : *p);
	}
}

static void read_rseq(struct tf_thread *thread)
{
	struct __ptrace_rseq_configuration rseq = {0};

	/* Linux 5.13 */
	if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, thread->tid, (void *)sizeof(rseq), &rseq) > 0)
		thread->rseq =
			(struct tf_rseq){rseq.rseq_abi_pointer, rseq.rseq_abi_size, rseq.signature};
}

/* cpu is the image's; what belongs to a thread is told by its regsets. */
static int read_regs(struct tf_task *t, struct tf_traced *x, struct tf_thread *thread)
{
	struct tf_capture *c = &t->capture;
	struct tf_cpu cpu = c->image.cpu;
	int rc = tf_arch_regs_from_task(x->tid, &cpu, &c->arena, &x->as_found, &c->err);

	if (x->tid == t->pid)
		c->image.cpu.vl = cpu.vl;
	c->image.cpu.vl_mask |= cpu.vl_mask;
	thread->regs = x->as_found;
	return rc;
}

/* Where the sequence that the thread stands in has its exit; 0: it stands in none. Only known until
 * the thread makes its first call for us: the kernel forgets a sequence that it finds left. */
static uint64_t sequence_exit(struct tf_task *t, const struct tf_thread *thread, uint64_t pc)
{
	struct sequence s;
	uint64_t at = 0;

	if (!thread->rseq.addr ||
		pread(t->mem, &at, sizeof(at), (off_t)(thread->rseq.addr + RSEQ_CS)) !=
			sizeof(at) ||
		!at || pread(t->mem, &s, sizeof(s), (off_t)at) != sizeof(s))
		return 0;
	return pc - s.start < s.size ? s.abort : 0;
}

static void code_around(struct tf_task *t, uint64_t pc, uint8_t code[2 * TF_CODE_AROUND])
{
	memset(code, 0, 2 * TF_CODE_AROUND);
	if (pread(t->mem, code, 2 * TF_CODE_AROUND, (off_t)(pc - TF_CODE_AROUND)) < 0)
		memset(code, 0, 2 * TF_CODE_AROUND); /* [vsyscall] cannot be read */
}

/* Copies the general registers, which are the first set, so that the copy can be changed. */
static int own_registers(struct tf_task *t, struct tf_regs *regs)
{
	struct tf_regset *set = tf_regs_find(regs, NT_PRSTATUS);

	set->data = tf_arena_dup(&t->capture.arena, set->data, set->size);
	return set->data ? 0 : TELEFORK_E_NOMEM;
}

/* No sequence has a call in it, so nobody has to look for one. */
static bool is_at_call(struct tf_task *t, const struct tf_traced *x)
{
	size_t mark = t->capture.arena.used;
	struct tf_regs regs = x->as_found;
	uint64_t arg[6];
	long nr;
	bool at = !own_registers(t, &regs) &&
		  tf_arch_task_rewind(&regs, x->code, &nr, arg) != TF_AT_NO_CALL;

	tf_arena_rewind(&t->capture.arena, mark);
	return at;
}

static int read_thread(struct tf_task *t, struct tf_traced *x, struct tf_thread *thread)
{
	void *head = NULL;
	uint64_t pc;
	size_t len = 0;
	int rc;

	thread->tid = x->tid;
	if (ptrace(PTRACE_GETSIGMASK, x->tid, (void *)sizeof(thread->sigmask), &thread->sigmask))
		return tf_fail_errno(&t->capture.err, TELEFORK_E_SYSTEM, errno,
			"signal mask of thread %d", (int)x->tid);
	if (!syscall(SYS_get_robust_list, x->tid, &head, &len)) {
		thread->robust_head = (uint64_t)head;
		thread->robust_len = len;
	}
	read_rseq(thread);
	rc = read_regs(t, x, thread);
	if (rc)
		return rc;
	pc = tf_arch_native()->pc(&x->as_found);
	if (x > t->traced && tf_arch_native()->pc(&x[-1].as_found) == pc)
		memcpy(x->code, x[-1].code, sizeof(x->code));
	else
		code_around(t, pc, x->code);
	if (!is_at_call(t, x))
		x->abort = sequence_exit(t, thread, pc);
	return 0;
}

static int read_threads(struct tf_task *t)
{
	struct tf_image *img = &t->capture.image;
	int rc = 0;

	for (; img->n_threads < t->n_traced && !rc; img->n_threads++)
		rc = read_thread(t, &t->traced[img->n_threads], &img->threads[img->n_threads]);
	return rc;
}

int tf_task_threads(struct tf_task *t)
{
	struct tf_image *img = &t->capture.image;
	int rc = tf_task_status_begin(t), told;

	img->threads = tf_arena_array(&t->capture.arena, t->n_traced, sizeof(*img->threads));
	if (!rc)
		rc = img->threads ? read_threads(t) : TELEFORK_E_NOMEM;
	told = t->status_texts ? tf_task_status_end(t) : rc;
	t->status = t->traced->status;
	for (uint32_t i = 0; i < t->n_traced && !rc && !told; i++)
		read_comm(t->traced[i].status, &img->threads[i]);
	return rc ? rc : told;
}

/* --- signals that wait --- */

struct pending_list {
	struct tf_task *t;
	uint32_t room;
};

static int add_pending(struct pending_list *l, pid_t tid, const siginfo_t *info)
{
	struct tf_image *img = &l->t->capture.image;
	struct tf_pending *p = img->pending;

	_Static_assert(sizeof(*info) == TF_SIGINFO, "siginfo_t");
	if (img->n_pending == TF_MAX_PENDING)
		return tf_fail(
			&l->t->capture.err, TELEFORK_E_LIMIT, "too many signals are pending");
	if (img->n_pending == l->room) {
		l->room = l->room ? 2 * l->room : PEEK;
		p = tf_arena_array(&l->t->capture.arena, l->room, sizeof(*p));
		if (!p)
			return TELEFORK_E_NOMEM;
		if (img->n_pending)
			memcpy(p, img->pending, img->n_pending * sizeof(*p));
		img->pending = p;
	}
	p += img->n_pending++;
	*p = (struct tf_pending){.tid = tid, .signo = (uint32_t)info->si_signo};
	memcpy(p->info, info, sizeof(*info));
	return 0;
}

/* Looked at, not taken: the process keeps them. tid 0: those of the whole process. */
static int peek_queue(struct pending_list *l, pid_t tid)
{
	pid_t of = tid ? tid : l->t->pid;
	struct __ptrace_peeksiginfo_args args = {
		.nr = PEEK, .flags = tid ? 0 : PTRACE_PEEKSIGINFO_SHARED};
	siginfo_t info[PEEK];
	long n;
	int rc = 0;

	do {
		n = ptrace(PTRACE_PEEKSIGINFO, of, &args, info);
		if (n < 0)
			return tf_fail_errno(&l->t->capture.err, TELEFORK_E_SYSTEM, errno,
				"signals of thread %d", (int)of);
		for (long i = 0; i < n && !rc; i++)
			rc = add_pending(l, tid, &info[i]);
		args.off += (uint64_t)n;
	} while (n == PEEK && !rc);
	return rc;
}

int tf_task_pending(struct tf_task *t)
{
	struct pending_list l = {.t = t};
	int rc = 0;

	if (tf_text_number(t->status, "\nShdPnd:", 16, 0))
		rc = peek_queue(&l, 0);
	for (uint32_t i = 0; i < t->n_traced && !rc; i++)
		if (t->traced[i].pending)
			rc = peek_queue(&l, t->traced[i].tid);
	return rc;
}

/* --- where it goes on --- */

/* Whether /proc saw the thread in this call; one that was continued once goes by another name. */
static bool was_inside(const struct tf_traced *x, long nr)
{
	return x->blocked == nr || x->blocked == SYS_restart_syscall;
}

int tf_task_go_on(struct tf_task *t, const struct tf_traced *x, struct tf_regs *ret)
{
	struct tf_regs again;
	uint64_t arg[6];
	long nr = -1;

	*ret = again = x->as_found;
	if (own_registers(t, ret) || own_registers(t, &again))
		return tf_fail(&t->capture.err, TELEFORK_E_NOMEM, "out of memory for registers");
	if (x->abort)
		tf_arch_native()->set_pc(ret, x->abort);
	if (tf_arch_task_rewind(&again, x->code, &nr, arg) != TF_AT_NO_CALL && was_inside(x, nr) &&
		tf_wait_is_timed(nr, arg))
		tf_arch_task_go_on(ret);
	return 0;
}

/* What the record of a thread that waits says of its limit, if that is known. */
static bool add_wait(
	struct tf_task *t, const struct tf_traced *x, long nr, const uint64_t arg[6], bool inside)
{
	struct tf_image *img = &t->capture.image;
	struct tf_wait w = {.thread = (uint32_t)(x - t->traced)};

	if (!tf_task_wait_left(t, x, nr, arg, inside, &w.left))
		return false;
	img->waits[img->n_waits++] = w;
	return true;
}

int tf_task_settle_thread(
	struct tf_task *t, const struct tf_traced *x, struct tf_thread *thread, bool here)
{
	enum tf_at_call at;
	uint64_t arg[6];
	long nr = -1;
	bool inside;

	if (own_registers(t, &thread->regs))
		return tf_fail(&t->capture.err, TELEFORK_E_NOMEM, "out of memory for registers");
	if (x->abort) {
		tf_arch_native()->set_pc(&thread->regs, x->abort);
		return 0;
	}
	at = tf_arch_task_rewind(&thread->regs, x->code, &nr, arg);
	inside = at == TF_IN_CALL || was_inside(x, nr);
	if (at == TF_AT_NO_CALL || (here && nr != SYS_restart_syscall) ||
		(!here && add_wait(t, x, nr, arg, inside)))
		return 0;
	if (tf_wait_gives_up(nr, arg, inside))
		tf_arch_task_give_up(&thread->regs, EINTR);
	return 0;
}

int tf_task_settle(struct tf_task *t)
{
	struct tf_image *img = &t->capture.image;
	int rc = 0;

	img->waits = tf_arena_array(&t->capture.arena, t->n_traced, sizeof(*img->waits));
	if (!img->waits)
		return TELEFORK_E_NOMEM;
	for (uint32_t i = 0; i < t->n_traced && !rc; i++)
		rc = tf_task_settle_thread(t, &t->traced[i], &img->threads[i], false);
	return rc;
}
