/* SPDX-License-Identifier: MIT */
/* The order of a restore, as steps, and where everything stands meanwhile. Each part (build_*.c)
 * appends its own steps; nothing is executed here. */
#include "core/restore/build_impl.h"
#include "core/base/crc32c.h"
#include "core/restore/vdso.h"

#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

uint64_t tf_build_data(struct tf_build *b, const void *p, uint64_t n, uint64_t align, void *ret)
{
	struct tf_restore *r = b->r;
	uint64_t at = (r->data_size + align - 1) / align * align;

	if (at + n > r->data_max) {
		r->plan.full = true;
		at = 0;
	} else {
		r->data_size = at + n;
	}
	if (p && !r->plan.full) /* n is no more than there is */
		memcpy(r->data + at, p, n);
	if (ret)
		*(void **)ret = r->data + at;
	return r->data_at + at;
}

uint64_t tf_build_string(struct tf_build *b, const char *s)
{
	return tf_build_data(b, s, strlen(s) + 1, 1, NULL);
}

void tf_build_store(
	struct tf_build *b, const char *comment, uint64_t address, uint64_t value, uint64_t size)
{
	struct tf_step *s = tf_plan_add(&b->r->plan, TF_OP_STORE, comment);

	s->arg[0] = address;
	s->arg[1] = value;
	s->arg[2] = size;
}

/* --- the whole --- */

/* What it asked to be told by at its parent's end: the receiver is its parent now. */
static uint64_t parent_signal(const struct tf_build *b)
{
	return b->img->n_attributes && !b->r->detached ? b->img->attributes[0].pdeathsig : 0;
}

static int plan_all(struct tf_build *b)
{
	struct tf_plan *p = &b->r->plan;
	uint32_t others = b->img->n_threads - 1;
	uint64_t sp;
	int rc;

	tf_build_take_down(b);
	tf_build_memory(b);
	tf_build_later(b);
	rc = tf_build_signatures(b);
	if (rc)
		return rc;
	tf_build_vdso_entries(b);
	tf_build_tags(b);
	tf_build_protections(b);
	tf_build_objects_done(b);
	if (b->sigbus_fd >= 0)
		tf_plan_syscall(p, "the empty file", SYS_close, 1, (uint64_t)b->sigbus_fd)->refs =
			1;
	tf_build_brk(b);
	tf_build_signals(b);
	tf_build_zygote(b);
	tf_build_first_thread(b);
	tf_build_mailbox(b);
	tf_build_process_attrs(b);
	tf_build_locks(b);
	tf_build_numbers(b);
	tf_build_rights(b, 0);
	tf_build_files(b);
	tf_build_traced(b, 0);
	tf_build_start_threads(b);
	tf_build_owners(b);
	rc = tf_build_timers(b);
	if (rc)
		return rc;
	tf_build_thread_attrs(b, 0);
	if (b->r->fds.back ==
		b->r->fds.channel) /* else the receiver stays between, and is needed */
		tf_plan_syscall(p, "to outlive the receiver", SYS_prctl, 5,
			(uint64_t)PR_SET_PDEATHSIG, parent_signal(b), UINT64_C(0), UINT64_C(0),
			UINT64_C(0));
	if (others)
		tf_plan_add(p, TF_OP_GATHER, "the other threads")->arg[0] = others;
	tf_build_limits(b);
	rc = tf_build_registers(b, b->img->threads, &sp);
	if (rc)
		return rc;
	if (!tf_build_ends_as_less(b))
		tf_build_dumpable(b);
	if (b->r->zygote)
		tf_build_gate(b);
	else
		tf_plan_add(p, TF_OP_BARRIER, "ready")->arg[0] = (uint64_t)b->r->fds.control;
	tf_build_mark(b);
	tf_build_last_rights(b, 0);
	if (tf_build_ends_as_less(b))
		tf_build_dumpable(b);
	tf_build_arm(b);
	tf_plan_syscall(p, "control", SYS_close, 1, (uint64_t)b->r->fds.control);
	if (b->r->mark.from)
		tf_build_stop(b);
	if (others)
		tf_plan_add(p, TF_OP_RELEASE, "the other threads");
	tf_plan_add(p, TF_OP_SIGRETURN, "run")->arg[0] = sp;
	return tf_build_other_threads(b);
}

/* Bytes of all threads' frames in the plan's data, alignment included. */
static uint64_t frames_size(const struct tf_build *b)
{
	uint64_t size = 0;

	for (uint32_t i = 0; i < b->img->n_threads; i++)
		size += tf_arch_frame_size(&b->img->threads[i].regs, &b->f->cpu) + 64;
	return size;
}

/* Bytes of the paths of files that are opened anew, of those that objects are opened by, and of the
 * mark's. */
static uint64_t paths_size(const struct tf_image *img, const struct tf_mark *mark)
{
	uint64_t size = (uint64_t)(img->n_maps + img->n_fds) * 40;

	size += mark->from ? strlen(mark->from) + strlen(mark->to) + 2 : 0;

	for (uint32_t i = 0; i < img->n_maps; i++)
		size += img->maps[i].here ? strlen(img->maps[i].path) + 1 : 0;
	for (uint32_t i = 0; i < img->n_objects; i++)
		size += strlen(img->objects[i].path) + 1 + sizeof(TF_SHM_NEXT_ID) + 16;

	for (uint32_t i = 0; i < img->n_fds; i++)
		if (tf_restore_opens(img, &img->fds[i]))
			size += strlen(img->fds[i].path) + 1;
		else if (img->fds[i].kind == TF_FD_RESET)
			size += 48;
	return size;
}

/* Room that the parts above need at most, counted before the range is chosen. */
static int reserve(struct tf_build *b, struct tf_arena *a)
{
	const struct tf_image *img = b->img;
	struct tf_restore *r = b->r;
	uint64_t steps = 16ull * img->n_maps + 12ull * img->n_objects + b->f->n_maps +
			 12ull * img->n_fds + img->vdso.n_symbols + img->n_signatures +
			 24ull * img->n_threads + img->n_pending + 256,
		 more = 0;

	steps += tf_build_staged_steps(b);
	steps += tf_build_attrs_steps(img, &more) + tf_build_rights_steps(b, &more);
	if (r->zygote) {
		steps += tf_build_zygote_steps(img, &more);
		more += tf_build_notes_size(img);
	}
	more += tf_build_owners_size(img) + tf_build_later_size(img) + tf_build_fill_size(img) +
		img->n_tags * sizeof(*img->tags);

	r->data_max = more + 65536 + (uint64_t)TF_SIGNALS * 64 + (uint64_t)img->n_auxv * 16 +
		      img->vdso.n_symbols * 32ull + img->n_pending * (uint64_t)TF_SIGINFO +
		      img->n_threads * 16ull + frames_size(b) + paths_size(img, &r->mark) + 8192;
	r->data = tf_arena_alloc(a, r->data_max);
	r->object_step = tf_arena_array(a, img->n_objects + 1u, sizeof(*r->object_step));
	b->mapped_prot = tf_arena_array(a, img->n_maps, sizeof(*b->mapped_prot));
	if (!r->data || !r->object_step || !b->mapped_prot || tf_plan_init(&r->plan, a, steps))
		return tf_fail(b->e, TELEFORK_E_NOMEM, "out of memory for a plan of %llu steps",
			(unsigned long long)steps);
	return 0;
}

/* Ranges of the image in the copy, for the search of a hole. */
static struct tf_range *image_ranges(const struct tf_image *img, struct tf_arena *a)
{
	struct tf_range *v = tf_arena_array(a, img->n_maps + 1, sizeof(*v));

	for (uint32_t i = 0; v && i < img->n_maps; i++)
		v[i] = tf_restore_map_range(img, i);
	return v;
}

static int by_start(const void *a, const void *b)
{
	uint64_t x = ((const struct tf_range *)a)->start, y = ((const struct tf_range *)b)->start;

	return (x > y) - (x < y);
}

/* Here: what the receiver has, and what came before. */
static struct tf_range *taken_ranges(const struct tf_build *b, struct tf_arena *a, uint32_t *ret_n)
{
	const struct tf_staging *s = b->r->staging;
	uint32_t n = b->f->n_taken;
	struct tf_range *v = tf_arena_array(a, n + (s ? s->n_windows : 0) + 1, sizeof(*v));

	for (uint32_t i = 0; v && i < n; i++)
		v[i] = (struct tf_range){b->f->taken[i].start, b->f->taken[i].end};
	for (uint32_t i = 0; v && s && i < s->n_windows; i++)
		v[n++] = (struct tf_range){s->window[i].to, s->window[i].to + s->span};
	if (v && n > b->f->n_taken)
		qsort(v, n, sizeof(*v), by_start);
	*ret_n = n;
	return v;
}

static int place(struct tf_build *b, uint64_t restorer_size, struct tf_arena *a)
{
	struct tf_restore *r = b->r;
	uint32_t n_taken;
	struct tf_range *img = image_ranges(b->img, a), *taken = taken_ranges(b, a, &n_taken);
	uint64_t page = b->page, steps = r->plan.max_steps * sizeof(struct tf_step);
	uint64_t fills = (b->img->n_segments + 1ull) * sizeof(struct tf_fill);
	uint64_t first = tf_build_vdso_first(&b->f->vdso), park = 0, body, stacks, size;
	uint64_t aside = r->zygote ? tf_build_zygote_aside(b->img) : 0;
	uint64_t top = b->f->max_addr < TF_HOLE_TOP ? b->f->max_addr / 4 * 3 : TF_HOLE_TOP;

	if (!img || !taken)
		return tf_fail(b->e, TELEFORK_E_NOMEM, "out of memory for address ranges");
	if (b->f->vdso.size)
		park = b->f->vdso.base + b->f->vdso.size - first;
	body = TF_PAGE_UP(sizeof(struct tf_plan_header), 64) + TF_PAGE_UP(fills, 64) +
	       TF_PAGE_UP(steps, 64) + TF_PAGE_UP(r->data_max, 64) +
	       TF_OWNER_FOUND * sizeof(uint64_t);
	body = TF_PAGE_UP(body, page) + TF_PLAN_BUFFER + TF_RESTORER_STACK;
	body = TF_PAGE_UP(body, page);
	stacks = TF_PAGE_UP((b->img->n_threads - 1) * (uint64_t)TF_THREAD_STACK, page);
	size = body + stacks + TF_PAGE_UP(restorer_size, page) + TF_PAGE_UP(park, page) + aside;
	r->hole.start = tf_hole_find(img, b->img->n_maps, taken, n_taken, size,
		b->f->min_addr + TF_HOLE_MARGIN, top & ~(page - 1));
	if (!r->hole.start)
		return tf_fail(b->e, TELEFORK_E_COLLISION,
			"no %llu bytes are free both in the process and here",
			(unsigned long long)size);
	r->hole.end = r->hole.start + size;
	r->aside = r->hole.end - aside;
	r->thread_stacks = r->hole.start + body;
	r->code_at = r->thread_stacks + stacks;
	r->park_at = r->code_at + TF_PAGE_UP(restorer_size, page);
	r->fills_at = r->hole.start + TF_PAGE_UP(sizeof(struct tf_plan_header), 64);
	r->steps_at = r->fills_at + TF_PAGE_UP(fills, 64);
	r->data_at = r->steps_at + TF_PAGE_UP(steps, 64);
	r->found_at = r->data_at + TF_PAGE_UP(r->data_max, 64);
	r->buffer_at = TF_PAGE_UP(r->found_at + TF_OWNER_FOUND * sizeof(uint64_t), page);
	r->stack_top = r->hole.start + body;
	return 0;
}

int tf_restore_choose_fds(struct tf_restore *r, const struct tf_image *img,
	const struct tf_facts *f, bool peer, bool relayed, struct tf_err *e)
{
	int64_t high = img->source.channel_fd > 2 ? img->source.channel_fd : 2;

	for (uint32_t i = 0; i < img->n_fds; i++)
		if (img->fds[i].fd > high)
			high = img->fds[i].fd;
	if ((uint64_t)high + 5 + img->n_objects + (r->zygote ? 2 : 0) > f->fd_limit)
		return tf_fail(e, TELEFORK_E_LIMIT,
			"the process has descriptor %lld, RLIMIT_NOFILE here is %llu: "
			"raise it with ulimit -n",
			(long long)high, (unsigned long long)f->fd_limit);
	r->fds = (struct tf_restore_fds){
		.channel = (int)high + 1,
		.control = (int)high + 2,
		.reserve = (int)high + 3,
		.back = relayed ? (int)high + 4 : (int)high + 1,
		.peer = peer && img->source.channel_fd >= 0,
		.objects = (int)high + 5,
		.gate = (int)(high + 5 + img->n_objects),
	};
	return 0;
}

/* The vDSO's pages are moved and written to: they have to be what the mappings say. */
static int check_vdso(struct tf_build *b)
{
	const struct tf_vdso *told = &b->img->vdso;
	struct tf_vdso v;

	tf_vdso_find(&v, b->img->maps, b->img->n_maps);
	if (v.base == told->base && v.size == told->size && v.vvar_base == told->vvar_base &&
		v.vvar_size == told->vvar_size)
		return 0;
	return tf_fail(b->e, TELEFORK_E_IMAGE, "the vDSO at %llx is not where the mappings have it",
		(unsigned long long)told->base);
}

int tf_restore_build(struct tf_restore *r, const struct tf_image *img, const struct tf_facts *f,
	uint64_t restorer_size, struct tf_arena *a, struct tf_err *e)
{
	struct tf_build b = {.r = r,
		.img = img,
		.f = f,
		.e = e,
		.page = f->page_size,
		.sigbus_fd = -1,
		.file_fd = -1};
	void *table;
	int rc;

	for (uint32_t i = 0; i < img->n_threads && f->flags & TF_FACT_PTRACE; i++)
		b.traced |= tf_arch_has_traced(&img->threads[i]);
	r->vdso_equal = tf_vdso_equal(&img->vdso, &f->vdso);
	rc = check_vdso(&b);
	if (!rc)
		rc = tf_build_check_staging(&b);
	if (!rc)
		rc = reserve(&b, a);
	if (!rc)
		rc = place(&b, restorer_size, a);
	if (!rc)
		rc = tf_build_fills(&b, a);
	if (rc)
		return tf_fail(e, rc, "out of memory for a plan");
	/* Also where the processor has an instruction: a plan follows from the facts alone. */
	r->crc_table_at =
		(uint32_t)(tf_build_data(&b, NULL, TF_CRC32C_TABLE, 64, &table) - r->data_at);
	if (!tf_crc32c_has_instruction())
		tf_crc32c_table(table);
	rc = plan_all(&b);
	if (!rc)
		rc = b.rc;
	if (!rc && r->plan.full)
		rc = tf_fail(e, TELEFORK_E_LIMIT, "the plan does not fit its reservation");
	return rc;
}
