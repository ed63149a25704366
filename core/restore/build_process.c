/* SPDX-License-Identifier: MIT */
/* The kernel's side of a whole process in a plan: signed return addresses, break, signal actions,
 * and the library's mailbox. */
#include "core/restore/build_impl.h"

#include <fcntl.h>
#include <linux/prctl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* Where the keys cannot be the source's, signed return addresses get the new ones'. Before
 * protections are set. */
int tf_build_signatures(struct tf_build *b)
{
	for (uint32_t i = 0; i < b->img->n_signatures && !b->traced; i++) {
		const struct tf_signature *s = &b->img->signatures[i];
		struct tf_step *step;

		if (s->place != TF_SIGN_MEMORY)
			continue; /* tf_build_frame() */
		if (!tf_build_inside_map(b->img, s->address, 8))
			return tf_fail(b->e, TELEFORK_E_IMAGE, "signature: %llx is not writable",
				(unsigned long long)s->address);
		step = tf_plan_add(&b->r->plan, TF_OP_SIGN, "return address");
		step->arg[0] = s->address;
		step->arg[1] = s->value;
		step->arg[2] = s->modifier;
		step->arg[3] = s->key;
	}
	return 0;
}

void tf_build_brk(struct tf_build *b)
{
	const struct tf_mm *mm = &b->img->mm;
	struct prctl_mm_map map = {
		.start_code = mm->start_code,
		.end_code = mm->end_code,
		.start_data = mm->start_data,
		.end_data = mm->end_data,
		.start_brk = mm->start_brk,
		.brk = mm->brk,
		.start_stack = mm->start_stack,
		.arg_start = mm->arg_start,
		.arg_end = mm->arg_end,
		.env_start = mm->env_start,
		.env_end = mm->env_end,
		.exe_fd = ~0u,
	};
	uint64_t low = b->img->maps[0].start, guard = TF_PAGE_UP(b->f->brk, b->page), at;
	struct tf_plan *p = &b->r->plan;
	uint64_t opened = 0;

	if (!(b->f->flags & TF_FACT_MM_MAP)) {
		/* brk stays the receiver's, low; a page at it makes every growth fail, and malloc
		 * turns to mmap. compat.c has made sure that it lies below the image's. */
		if (b->f->flags & TF_FACT_EMULATED && !tf_image_map_at(b->img, guard))
			tf_build_mmap(b, "no brk", guard, guard + b->page, PROT_NONE, MAP_PRIVATE);
		return;
	}
	if (!mm->start_code || !mm->arg_start) { /* a source under QEMU does not know its own */
		map.start_code = map.start_data = map.arg_start = map.env_start = low;
		map.end_code = map.end_data = map.arg_end = map.env_end = low + 1;
		map.start_brk = mm->brk;
		map.start_stack = b->img->maps[b->img->n_maps - 1].start;
	}
	if (b->img->n_auxv && (uint64_t)b->img->n_auxv * 16 <= b->f->auxv_size) {
		map.auxv = (void *)tf_build_data(
			b, b->img->auxv, (uint64_t)b->img->n_auxv * 16, 8, NULL);
		map.auxv_size = b->img->n_auxv * 16;
	}
	at = tf_build_data(b, &map, sizeof(map), 8, NULL);
	if (b->f->flags & TF_FACT_EXE) {
		tf_plan_syscall(p, "the program", SYS_openat, 4, (uint64_t)(int64_t)AT_FDCWD,
			tf_build_string(b, b->img->source.exe), (uint64_t)O_RDONLY, UINT64_C(0));
		opened = tf_plan_last(p);
		tf_build_store(
			b, "link exe", at + offsetof(struct prctl_mm_map, exe_fd), opened, 4);
		p->steps[tf_plan_last(p)].refs = 1u << 1;
	}
	tf_plan_syscall(p, "brk and the mm fields", SYS_prctl, 5, (uint64_t)PR_SET_MM,
		(uint64_t)PR_SET_MM_MAP, at, (uint64_t)sizeof(map), UINT64_C(0));
	if (b->f->flags & TF_FACT_EXE)
		tf_plan_syscall(p, "the program", SYS_close, 1, opened)->refs = 1;
}

void tf_build_signals(struct tf_build *b)
{
	static const struct tf_sigaction dfl;

	for (uint32_t i = 0; i < TF_SIGNALS; i++) {
		const struct tf_sigaction *sa =
			i < b->img->n_sigactions ? &b->img->sigactions[i] : &dfl;
		struct tf_step *s;

		if (i + 1 == SIGKILL || i + 1 == SIGSTOP)
			continue;
		s = tf_plan_syscall(&b->r->plan, "signal action", SYS_rt_sigaction, 4,
			i + UINT64_C(1), tf_build_data(b, sa, sizeof(*sa), 8, NULL), UINT64_C(0),
			UINT64_C(8));
		/* QEMU user mode keeps the first real-time signals for itself. */
		if (b->f->flags & TF_FACT_EMULATED)
			s->expect = TF_EXPECT_ANY;
	}
}

void tf_build_mailbox(struct tf_build *b)
{
	const struct tf_restore *r = b->r;
	uint64_t at = b->img->source.mailbox;
	uint32_t flags = b->f->flags & TF_FACT_EMULATED ? TF_MAILBOX_EMULATED : 0;

	if (!(b->f->flags & TF_FACT_MM_MAP))
		flags |= TF_MAILBOX_NO_BRK;
	if (!at || !tf_build_inside_map(b->img, at, sizeof(struct tf_mailbox)))
		return;
	const struct {
		uint64_t offset, size, value;
	} set[] = {
		{offsetof(struct tf_mailbox, hole_start), 8, r->hole.start},
		{offsetof(struct tf_mailbox, hole_size), 8, r->park_at - r->hole.start},
		{offsetof(struct tf_mailbox, peer_fd), 4,
			(uint64_t)(int64_t)(r->fds.peer ? b->img->source.channel_fd : -1)},
		{offsetof(struct tf_mailbox, generation), 4, b->img->source.generation + 1u},
		{offsetof(struct tf_mailbox, flags), 4, flags},
		{offsetof(struct tf_mailbox, index), 4, r->zygote ? b->index_step : r->index},
	};

	for (size_t i = 0; i < sizeof(set) / sizeof(*set); i++)
		tf_build_store(b, "mailbox", at + set[i].offset, set[i].value, set[i].size);
	if (r->zygote)
		b->r->plan.steps[tf_plan_last(&r->plan)].refs = 1u << 1;
}

void tf_build_mark(struct tf_build *b)
{
	const struct tf_mark *m = &b->r->mark;

	if (m->from)
		tf_plan_syscall(&b->r->plan, "the mark that it runs", SYS_renameat, 4,
			(uint64_t)(int64_t)AT_FDCWD, tf_build_string(b, m->from),
			(uint64_t)(int64_t)AT_FDCWD, tf_build_string(b, m->to));
}

void tf_build_stop(struct tf_build *b)
{
	struct tf_plan *p = &b->r->plan;
	uint64_t pid = p->n_steps;

	if (!(b->img->source.flags & TF_SOURCE_STOPPED))
		return;
	tf_plan_syscall(p, "process", SYS_getpid, 0);
	tf_plan_syscall(p, "stopped, as it was", SYS_kill, 2, pid, (uint64_t)SIGSTOP)->refs = 1;
}
