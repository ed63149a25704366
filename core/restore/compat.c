/* SPDX-License-Identifier: MIT */
/* Can it live there? Every reason is told, before anything is torn down. */
#include "arch/arch.h"
#include "core/restore/build.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>

typedef unsigned long long ull;

struct check {
	const struct tf_image *img;
	const struct tf_facts *f;
	struct tf_err *e;
	unsigned reasons, collisions;
};

static void reason(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void reason(struct check *c, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	tf_fail_more(c->e, TELEFORK_E_INCOMPATIBLE, "%s", text);
	c->reasons++;
}

static const char *machine_name(uint32_t machine)
{
	const struct tf_arch *arch = tf_arch_by_machine(machine);

	return arch ? arch->name : "an unknown architecture";
}

static void check_addresses(struct check *c)
{
	const struct tf_image *img = c->img;
	const struct tf_map *top = NULL;

	for (uint32_t i = 0; i < img->n_maps; i++)
		if (img->maps[i].end > c->f->max_addr) {
			top = &img->maps[i];
			break;
		}
	if (top)
		reason(c,
			"address width: the process uses %llx-%llx (%s), addresses here end at %llx; "
			"a machine with as many address bits as the source is needed",
			(ull)top->start, (ull)top->end, top->path, (ull)c->f->max_addr);
	if (img->n_maps && img->maps[0].start < c->f->min_addr)
		reason(c,
			"lowest address: the process uses %llx, vm.mmap_min_addr here is %llu: lower it",
			(ull)img->maps[0].start, (ull)c->f->min_addr);
}

static void check_limits(struct check *c, uint64_t max_memory)
{
	const struct tf_image *img = c->img;
	uint64_t present = 0, mapped = 0, maps = img->n_maps + 16;

	for (uint32_t i = 0; i < img->n_segments; i++)
		present += img->segments[i].filesz;
	for (uint32_t i = 0; i < img->n_maps; i++) {
		struct tf_range r = tf_restore_map_range(img, i);

		mapped += r.end - r.start;
		maps += img->maps[i].data_end < img->maps[i].end;
	}
	if (maps > c->f->max_map_count)
		reason(c,
			"mappings: the process has %u, vm.max_map_count here is %llu: raise it to %llu",
			img->n_maps, (ull)c->f->max_map_count, (ull)maps);
	if (mapped > c->f->address_limit)
		reason(c, "address space: %llu bytes are mapped, RLIMIT_AS here is %llu: ulimit -v",
			(ull)mapped, (ull)c->f->address_limit);
	if (max_memory && present > max_memory)
		reason(c, "memory: up to %llu bytes are to come, this receiver takes %llu at most",
			(ull)present, (ull)max_memory);
	if (present > c->f->memory_free && !max_memory)
		reason(c, "memory: up to %llu bytes are to come, %llu are free here", (ull)present,
			(ull)c->f->memory_free);
}

/* Those that take a place in the receiver's queue: sent with a value, or real-time. */
static bool is_queued(const struct tf_pending *s)
{
	return s->signo >= 32 || (int32_t)s->info[1] < 0; /* si_code */
}

static void check_tasks(struct check *c)
{
	uint64_t queued = 0;

	for (uint32_t i = 0; i < c->img->n_pending; i++)
		queued += is_queued(&c->img->pending[i]);
	if (c->img->n_threads > c->f->threads_free)
		reason(c,
			"threads: the process has %u, %llu more may be here: raise ulimit -u, the "
			"control group's pids.max or kernel.threads-max",
			c->img->n_threads, (ull)c->f->threads_free);
	if (queued > c->f->pending_free)
		reason(c, "signals: %llu are pending, %llu more may be here: raise ulimit -i",
			(ull)queued, (ull)c->f->pending_free);
}

/* Some registers are set by a tracer or not at all. */
static void check_traced(struct check *c)
{
	const char *what = tf_arch_traced_state(c->img);
	/* Under an emulator return addresses are signed anew, if the process could tell them. */
	bool anew = c->f->flags & TF_FACT_EMULATED && c->img->source.origin != TF_ORIGIN_TASK;

	if (what && !anew && !(c->f->flags & TF_FACT_PTRACE))
		reason(c,
			"%s are in use, and only ptrace sets them, which this receiver may not call: run "
			"it outside the filter or container that forbids it, or as root if "
			"kernel.yama.ptrace_scope is 2",
			what);
}

static void check_brk(struct check *c)
{
	if (!(c->f->flags & TF_FACT_MM_MAP) && c->img->mm.brk < c->f->brk)
		reason(c,
			"brk: the process's break %llx lies below the receiver's %llx, and it cannot "
			"be set here: use the receiver telefork-pad",
			(ull)c->img->mm.brk, (ull)c->f->brk);
}

static bool guest_has(const struct tf_facts *f, const struct tf_map *m)
{
	for (uint32_t i = 0; i < f->n_maps; i++)
		if (m->start < f->maps[i].end && m->end > f->maps[i].start)
			return true;
	return false;
}

#define STACK_NEAR (UINT64_C(1) << 30) /* mappings closer than that belong together */

/* The receiver's stack lies below the pages that the emulator keeps: how large it has to be for
 * them to lie behind map i of the process and what follows it. A power of two. */
static uint64_t stack_to_clear(const struct check *c, uint32_t i, uint64_t page)
{
	uint64_t top = tf_restore_map_range(c->img, i).end, size = UINT64_C(1) << 28, need = 0;

	for (; i < c->img->n_maps; i++) {
		struct tf_range r = tf_restore_map_range(c->img, i);

		if (r.start > top && r.start - top > STACK_NEAR)
			break;
		top = r.end;
	}
	for (uint32_t k = 0; k < c->f->n_maps; k++)
		if (c->f->maps[k].kind == TF_MAP_STACK)
			need = c->f->maps[k].end - c->f->maps[k].start;
	need += top - page;
	while (size < need)
		size *= 2;
	return size;
}

/* QEMU returns from handlers through a page of its own, and keeps descriptor tables in others, next
 * to the stack it made: a larger stack moves them out of the way. */
static void check_kept_pages(struct check *c)
{
	for (uint32_t k = 0; k < c->f->n_keep; k++) {
		uint64_t page = c->f->keep[k];

		for (uint32_t i = 0; i < c->img->n_maps; i++) {
			struct tf_range r = tf_restore_map_range(c->img, i);

			if (page < r.start || page >= r.end)
				continue;
			tf_fail_more(c->e, TELEFORK_E_COLLISION,
				"%llx-%llx of the process holds page %llx, which the emulator needs: "
				"start the receiver with QEMU_STACK_SIZE=%llu",
				(ull)r.start, (ull)r.end, (ull)page,
				(ull)stack_to_clear(c, i, page));
			c->collisions++;
			return;
		}
	}
}

/* Under QEMU user mode the emulator's own pages lie in the same address space. */
static void check_emulator(struct check *c)
{
	if (!(c->f->flags & TF_FACT_EMULATED))
		return;
	check_kept_pages(c);
	for (uint32_t i = 0; i < c->img->n_maps; i++) {
		struct tf_range r = tf_restore_map_range(c->img, i);

		for (uint32_t k = 0; k < c->f->n_taken; k++) {
			const struct tf_map *t = &c->f->taken[k];

			if (t->start >= r.end || t->end <= r.start || guest_has(c->f, t))
				continue;
			tf_fail_more(c->e, TELEFORK_E_COLLISION,
				"%llx-%llx of the process is taken by the emulator (%s): start a "
				"fresh receiver and try again",
				(ull)r.start, (ull)r.end, t->path);
			c->collisions++;
			return;
		}
	}
}

int tf_compat_check(
	const struct tf_image *img, const struct tf_facts *f, uint64_t max_memory, struct tf_err *e)
{
	struct check c = {.img = img, .f = f, .e = e};

	if (img->source.machine != f->machine) {
		/* Nothing else can be compared. */
		reason(&c, "architecture: the process is %s, this receiver is %s",
			machine_name(img->source.machine), machine_name(f->machine));
		return e->code;
	}
	if (img->source.origin == TF_ORIGIN_RETURN)
		reason(&c, "the image holds only what a yoyo changed: it completes its own source");
	if (img->source.flags & TF_SOURCE_OUTSIDE)
		reason(&c,
			"signal actions, signal stack, tid address and break: unknown, the image was "
			"taken without asking the process");
	if (img->source.page_size != f->page_size)
		reason(&c, "page size: the process has pages of %u bytes, here they have %u",
			img->source.page_size, f->page_size);
	check_addresses(&c);
	check_limits(&c, max_memory);
	check_tasks(&c);
	c.reasons += tf_compat_memory(img, f, e);
	check_brk(&c);
	check_traced(&c);
	c.reasons += tf_arch_compat(img, &f->cpu, e);
	check_emulator(&c);
	return c.reasons || c.collisions ? e->code : 0;
}
