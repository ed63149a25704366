/* SPDX-License-Identifier: MIT */
/*
 * Threads in a plan: what the kernel keeps of each, and the signal frame that makes it run. The
 * first thread's list starts the others; theirs stand behind it, in the image's
 * order. */
#include "core/restore/build_impl.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static void plan_tid(struct tf_build *b, const struct tf_thread *t)
{
	uint64_t tid_step;
	struct tf_step *s;

	tf_plan_syscall(&b->r->plan, "clear_child_tid", SYS_set_tid_address, 1, t->tid_addr);
	tid_step = tf_plan_last(&b->r->plan);
	if (t == b->img->threads)
		b->tid_step = tid_step;
	if (!t->tid_addr || !tf_build_inside_map(b->img, t->tid_addr, 4))
		return;
	s = tf_plan_add(&b->r->plan, TF_OP_STORE_IF, "the C library's own tid");
	s->arg[0] = t->tid_addr;
	s->arg[1] = tid_step;
	s->refs = 1u << 1;
	s->arg[2] = 4;
	s->arg[3] = (uint32_t)t->tid;
}

static void plan_rseq(struct tf_build *b, const struct tf_thread *t)
{
	struct tf_step *s;

	if (!t->rseq.addr || !tf_build_inside_map(b->img, t->rseq.addr, 32))
		return;
	tf_build_store(b, "rseq: no critical section", t->rseq.addr + 8, 0, 8);
	if (!(b->f->flags & TF_FACT_RSEQ)) {
		tf_build_store(b, "rseq: not here", t->rseq.addr, 0xfffffffe00000000u, 8);
		return;
	}
	s = tf_plan_syscall(&b->r->plan, "rseq", SYS_rseq, 4, t->rseq.addr, (uint64_t)t->rseq.len,
		UINT64_C(0), (uint64_t)t->rseq.sig);
	s->expect = TF_EXPECT_VALUE;
}

static void plan_thread(struct tf_build *b, const struct tf_thread *t)
{
	struct tf_plan *p = &b->r->plan;

	plan_tid(b, t);
	if (t->robust_head)
		tf_plan_syscall(
			p, "robust list", SYS_set_robust_list, 2, t->robust_head, t->robust_len)
			->expect =
			b->f->flags & TF_FACT_EMULATED ? TF_EXPECT_ANY : TF_EXPECT_SUCCESS;
	plan_rseq(b, t);
	tf_plan_syscall(p, "name", SYS_prctl, 5, (uint64_t)PR_SET_NAME,
		tf_build_data(b, t->comm, sizeof(t->comm), 1, NULL), UINT64_C(0), UINT64_C(0),
		UINT64_C(0));
}

/* Queued again, while every signal is blocked. The image has those of the process first, then each
 * thread's in the threads' order. */
static void plan_pending(struct tf_build *b, int32_t tid)
{
	struct tf_plan *p = &b->r->plan;
	uint64_t pid = p->n_steps, own = tid ? pid + 1 : pid;

	for (; b->pending < b->img->n_pending; b->pending++) {
		const struct tf_pending *s = &b->img->pending[b->pending];
		uint64_t info;
		struct tf_step *step;

		if (s->tid != tid)
			return;
		if (s->signo == SIGKILL || s->signo == SIGSTOP) /* they cannot wait */
			continue;
		if (p->n_steps == pid) {
			tf_plan_syscall(p, "process", SYS_getpid, 0);
			if (tid)
				tf_plan_syscall(p, "thread", SYS_gettid, 0);
		}
		info = tf_build_data(b, s->info, sizeof(s->info), 8, NULL);
		if (tid)
			step = tf_plan_syscall(p, "pending signal", SYS_rt_tgsigqueueinfo, 4, pid,
				own, (uint64_t)s->signo, info);
		else
			step = tf_plan_syscall(p, "pending signal", SYS_rt_sigqueueinfo, 3, pid,
				(uint64_t)s->signo, info);
		step->refs = tid ? 3 : 1;
	}
}

void tf_build_first_thread(struct tf_build *b)
{
	const struct tf_thread *t = b->img->threads;

	plan_thread(b, t);
	plan_pending(b, 0);
	plan_pending(b, t->tid);
}

void tf_build_traced(struct tf_build *b, uint32_t i)
{
	struct tf_plan *p = &b->r->plan;
	uint64_t before = p->n_steps;

	if (b->traced && !(b->r->zygote && i)) /* they have the first's */
		tf_arch_plan_traced(p, &b->img->threads[i]);
	for (; before < p->n_steps; before++)
		p->steps[before].arg[2] = i;
}

void tf_build_start_threads(struct tf_build *b)
{
	struct tf_restore *r = b->r;

	r->first_thread = r->plan.n_steps;
	for (uint32_t i = 1; i < b->img->n_threads; i++) {
		const struct tf_thread *t = &b->img->threads[i];
		struct tf_step *s = tf_plan_add(&r->plan, TF_OP_THREAD, "another thread");

		s->arg[1] = r->thread_stacks + i * (uint64_t)TF_THREAD_STACK;
		s->arg[2] = r->same_ids ? (uint32_t)t->tid : 0;
	}
}

/* The return address that a thread still holds in a register, signed in its frame at address at. */
static int plan_sign_link(struct tf_build *b, uint64_t at)
{
	const struct tf_image *img = b->img;
	const struct tf_signature *s =
		img->n_signatures ? &img->signatures[img->n_signatures - 1] : NULL;
	size_t offset = tf_arch_frame_link();
	struct tf_step *step;

	if (!s || s->place != TF_SIGN_LINK || b->traced)
		return 0;
	if (!offset)
		return tf_fail(b->e, TELEFORK_E_IMAGE, "signature: there is no such register");
	step = tf_plan_add(&b->r->plan, TF_OP_SIGN, "link register");
	step->arg[0] = at + offset;
	step->arg[1] = s->value;
	step->arg[2] = s->modifier;
	step->arg[3] = s->key;
	return 0;
}

static int plan_registers(struct tf_build *b, const struct tf_thread *t)
{
	int rc = tf_arch_plan_registers(&b->r->plan, t);

	return rc ? tf_fail(b->e, rc, "registers that no frame holds cannot be set here") : 0;
}

/* *ret_sp: for its SIGRETURN. */
static int plan_frame(
	struct tf_build *b, const struct tf_thread *t, uint64_t *ret_at, uint64_t *ret_sp)
{
	size_t size = tf_arch_frame_size(&t->regs, &b->f->cpu);
	void *frame;

	*ret_sp = 0;
	*ret_at = tf_build_data(b, NULL, size, 64, &frame);
	return b->r->plan.full ? 0
			       : tf_arch_frame_from_regs(t, &b->img->cpu, &b->f->cpu, frame, size,
					 *ret_at, ret_sp, b->e);
}

int tf_build_registers(struct tf_build *b, const struct tf_thread *t, uint64_t *ret_sp)
{
	uint64_t at;
	int rc = plan_frame(b, t, &at, ret_sp);

	if (!rc)
		tf_build_owner_frame(b, 0, at);
	if (!rc)
		rc = plan_sign_link(b, at);
	return rc ? rc : plan_registers(b, t);
}

static int plan_list(struct tf_build *b, uint32_t i)
{
	struct tf_plan *p = &b->r->plan;
	const struct tf_thread *t = &b->img->threads[i];
	uint64_t at, sp;
	int rc = plan_frame(b, t, &at, &sp);

	if (rc)
		return rc;
	tf_build_owner_frame(b, i, at);
	p->steps[b->r->first_thread + i - 1].arg[0] = p->n_steps;
	plan_thread(b, t);
	plan_pending(b, t->tid);
	tf_build_rights(b, i);
	tf_build_thread_attrs(b, i);
	rc = plan_registers(b, t);
	tf_build_traced(b, i);
	tf_plan_add(p, TF_OP_ARRIVE, "ready");
	tf_build_last_rights(b, i);
	tf_plan_add(p, TF_OP_SIGRETURN, "run")->arg[0] = sp;
	return rc;
}

int tf_build_other_threads(struct tf_build *b)
{
	int rc = 0;

	for (uint32_t i = 1; i < b->img->n_threads && !rc && !b->r->plan.full; i++)
		rc = plan_list(b, i);
	tf_build_owners_done(b);
	if (!rc && !b->r->plan.full && b->pending != b->img->n_pending)
		return tf_fail(b->e, TELEFORK_E_IMAGE,
			"pending signal %u is for thread %d, which is not there, or comes too late",
			b->pending, (int)b->img->pending[b->pending].tid);
	return rc;
}
