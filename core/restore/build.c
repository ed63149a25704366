/* SPDX-License-Identifier: MIT */
/* The order of a restore, as steps. Each part below appends its own; nothing is executed here. */
#include "core/restore/build.h"
#include "arch/arch.h"
#include "core/base/crc32c.h"
#include "core/restore/vdso.h"

#include <fcntl.h>
#include <linux/prctl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define PAGE_UP(x, page) (((x) + (page) - 1) & ~((uint64_t)(page) - 1))
#define STACK_MAX	 (UINT64_C(64) << 20) /* mapped for a stack without a limit */
#define STACK_DEFAULT	 (UINT64_C(8) << 20)
#define STACK_GAP	 (UINT64_C(1) << 20) /* stack_guard_gap: 256 pages, mm/mmap.c */
#define OWNERS_MAX	 (UINT64_C(64) << 20) /* static storage searched for held mutexes */

struct builder {
	struct tf_restore *r;
	const struct tf_image *img;
	const struct tf_facts *f;
	struct tf_err *e;
	uint64_t page;
	bool traced;	   /* the receiver sets registers at the barrier */
	int64_t sigbus_fd; /* step that opened the empty file for pages past a file's end; -1 */
};

struct tf_range tf_restore_map_range(const struct tf_image *img, uint32_t map)
{
	const struct tf_map *m = &img->maps[map];
	struct tf_range r = {m->start, m->end};
	uint64_t size = img->source.stack_limit, low;

	if (m->kind != TF_MAP_STACK)
		return r;
	if (size > STACK_MAX)
		size = size == UINT64_MAX ? STACK_DEFAULT : STACK_MAX;
	size &= ~(uint64_t)0xffff;
	low = map ? img->maps[map - 1].end + STACK_GAP : STACK_GAP;
	low = PAGE_UP(low, img->source.page_size);
	if (m->end > size && m->end - size < m->start)
		r.start = m->end - size > low ? m->end - size : low;
	if (r.start > m->start)
		r.start = m->start;
	return r;
}

uint32_t tf_restore_map_prot(const struct tf_image *img, uint32_t map)
{
	const struct tf_map *m = &img->maps[map];
	uint32_t prot = m->prot;

	/* QEMU 7.2 shows a merged mapping with its first page's protection: code could be in any. */
	if ((img->source.flags & TF_SOURCE_EMULATED) && prot)
		prot |= PROT_EXEC;
	return prot;
}

static uint32_t map_prot(const struct builder *b, uint32_t i)
{
	return tf_restore_map_prot(b->img, i) |
		tf_arch_map_prot(b->img->maps[i].vmflags, &b->f->cpu);
}

/* n bytes of the plan's data; returns where they will stand, *ret (may be NULL) where they are now. */
static uint64_t data_add(struct builder *b, const void *p, uint64_t n, uint64_t align, void *ret)
{
	struct tf_restore *r = b->r;
	uint64_t at = (r->data_size + align - 1) / align * align;

	if (at + n > r->data_max) {
		r->plan.full = true;
		at = 0;
	} else {
		r->data_size = at + n;
	}
	if (p)
		memcpy(r->data + at, p, n);
	if (ret)
		*(void **)ret = r->data + at;
	return r->data_at + at;
}

static uint64_t data_string(struct builder *b, const char *s)
{
	return data_add(b, s, strlen(s) + 1, 1, NULL);
}

/* --- taking the receiver down --- */

static void plan_leave(struct builder *b)
{
	struct tf_plan *p = &b->r->plan;

	if (b->f->rseq.addr)
		tf_plan_syscall(p, "unregister the receiver's rseq", SYS_rseq, 4, b->f->rseq.addr,
			(uint64_t)b->f->rseq.len, UINT64_C(1), (uint64_t)b->f->rseq.sig);
}

static uint64_t vdso_first(const struct tf_vdso *v)
{
	return v->vvar_size && v->vvar_base < v->base ? v->vvar_base : v->base;
}

/* Moves each area of the destination's vDSO by the same distance. */
static void plan_move_vdso(struct builder *b, uint64_t from_shift, uint64_t to_shift,
	const char *comment)
{
	uint64_t first = vdso_first(&b->f->vdso);

	for (uint32_t i = 0; i < b->f->n_maps; i++) {
		const struct tf_map *m = &b->f->maps[i];
		uint64_t at = m->start - first, size = m->end - m->start;
		struct tf_step *s;

		if (m->kind != TF_MAP_VDSO && m->kind != TF_MAP_VVAR)
			continue;
		s = tf_plan_syscall(&b->r->plan, comment, SYS_mremap, 5, from_shift + at, size,
			size, (uint64_t)(MREMAP_MAYMOVE | MREMAP_FIXED), to_shift + at);
		s->expect = TF_EXPECT_VALUE;
		s->expected = to_shift + at;
	}
}

static bool is_kept(const struct tf_facts *f, uint64_t page)
{
	for (uint32_t i = 0; i < f->n_keep; i++)
		if (f->keep[i] == page)
			return true;
	return false;
}

/* Under QEMU user mode a page here and there has to stay. */
static void plan_unmap_around(struct builder *b, const struct tf_map *m)
{
	uint64_t from = m->start;

	for (uint64_t at = m->start; at <= m->end; at += b->page) {
		if (at < m->end && !is_kept(b->f, at))
			continue;
		if (at > from)
			tf_plan_syscall(&b->r->plan, "receiver", SYS_munmap, 2, from, at - from);
		from = at + b->page;
	}
}

static void plan_unmap(struct builder *b)
{
	struct tf_restore *r = b->r;

	if (!(b->f->flags & TF_FACT_EMULATED)) {
		tf_plan_syscall(&r->plan, "receiver", SYS_munmap, 2, UINT64_C(0), r->hole.start);
		tf_plan_syscall(&r->plan, "receiver", SYS_munmap, 2, r->hole.end,
			b->f->max_addr - r->hole.end);
		return;
	}
	for (uint32_t i = 0; i < b->f->n_maps; i++)
		if (b->f->maps[i].kind != TF_MAP_VDSO)
			plan_unmap_around(b, &b->f->maps[i]);
}

/* --- memory --- */

static const struct {
	uint32_t flag;
	int advice;
} advices[] = {
	{TF_VMF_HUGEPAGE, MADV_HUGEPAGE},   {TF_VMF_NOHUGEPAGE, MADV_NOHUGEPAGE},
	{TF_VMF_DONTDUMP, MADV_DONTDUMP},   {TF_VMF_DONTFORK, MADV_DONTFORK},
	{TF_VMF_WIPEONFORK, MADV_WIPEONFORK}, {TF_VMF_MERGEABLE, MADV_MERGEABLE},
	{TF_VMF_SEQ, MADV_SEQUENTIAL},	    {TF_VMF_RAND, MADV_RANDOM},
};

static const char *const kind_comment[TF_MAP_KINDS] = {
	[TF_MAP_ANON] = "memory", [TF_MAP_FILE] = "file", [TF_MAP_HEAP] = "heap",
	[TF_MAP_STACK] = "stack", [TF_MAP_VDSO] = "vdso", [TF_MAP_VVAR] = "vvar",
};

static void plan_mmap(struct builder *b, const char *comment, uint64_t start, uint64_t end,
	uint32_t prot, uint32_t flags)
{
	struct tf_step *s = tf_plan_syscall(&b->r->plan, comment, SYS_mmap, 6, start, end - start,
		(uint64_t)prot, (uint64_t)(flags | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE),
		~UINT64_C(0), UINT64_C(0));

	/* QEMU 7.2 and kernels before 4.17 take MAP_FIXED_NOREPLACE for a hint. */
	s->expect = TF_EXPECT_VALUE;
	s->expected = start;
}

/* Pages of a file mapping beyond the file's end raise SIGBUS: so does an empty file's. */
static void plan_beyond_end(struct builder *b, const struct tf_map *m, uint32_t prot)
{
	struct tf_plan *p = &b->r->plan;
	struct tf_step *s;

	if (b->sigbus_fd < 0) {
		tf_plan_syscall(p, "an empty file", SYS_memfd_create, 2,
			data_string(b, "beyond-end-of-file"), (uint64_t)MFD_CLOEXEC);
		b->sigbus_fd = (int64_t)tf_plan_last(p);
	}
	s = tf_plan_syscall(p, "beyond the end of a file", SYS_mmap, 6, m->data_end,
		m->end - m->data_end, (uint64_t)prot,
		(uint64_t)((m->flags & TF_MAP_SHARED ? MAP_SHARED : MAP_PRIVATE) |
			MAP_FIXED_NOREPLACE),
		(uint64_t)b->sigbus_fd, UINT64_C(0));
	s->refs = 1u << 4;
	s->expect = TF_EXPECT_VALUE;
	s->expected = m->data_end;
}

static bool has_data(const struct tf_image *img, const struct tf_map *m)
{
	uint32_t low = 0, high = img->n_segments;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (img->segments[middle].vaddr + img->segments[middle].memsz <= m->start)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < img->n_segments && img->segments[low].vaddr < m->end; low++)
		if (img->segments[low].filesz)
			return true;
	return false;
}

static void plan_map(struct builder *b, uint32_t i)
{
	const struct tf_map *m = &b->img->maps[i];
	struct tf_range range = tf_restore_map_range(b->img, i);
	uint32_t prot = map_prot(b, i);
	uint32_t flags = m->flags & TF_MAP_SHARED ? MAP_SHARED : MAP_PRIVATE;
	uint64_t end = m->data_end;

	if (m->kind == TF_MAP_VVAR)
		end = m->end; /* zeroes: "no clock here", the old code makes the system call */
	if (m->kind == TF_MAP_STACK)
		flags |= MAP_STACK | MAP_NORESERVE;
	if (m->vmflags & TF_VMF_NORESERVE || end - range.start > b->f->memory_free)
		flags |= MAP_NORESERVE;
	if (end > range.start)
		plan_mmap(b, kind_comment[m->kind], range.start, end,
			has_data(b->img, m) ? PROT_READ | PROT_WRITE : prot, flags);
	if (end < m->end)
		plan_beyond_end(b, m, prot);
	for (size_t k = 0; k < sizeof(advices) / sizeof(*advices) && end > range.start; k++)
		if (m->vmflags & advices[k].flag)
			tf_plan_syscall(&b->r->plan, "advice", SYS_madvise, 3, range.start,
				end - range.start, (uint64_t)advices[k].advice)
				->expect = TF_EXPECT_ANY;
}

static bool is_vdso_part(const struct tf_map *m)
{
	return m->kind == TF_MAP_VDSO || m->kind == TF_MAP_VVAR;
}

static void plan_memory(struct builder *b)
{
	for (uint32_t i = 0; i < b->img->n_maps; i++)
		if (!b->r->vdso_equal || !is_vdso_part(&b->img->maps[i]))
			plan_map(b, i);
	if (b->r->vdso_equal)
		plan_move_vdso(b, b->r->park_at, vdso_first(&b->img->vdso), "vdso, as it was");
	tf_plan_add(&b->r->plan, TF_OP_FILL, "memory")->arg[0] = (uint64_t)b->r->fds.channel;
}

static void plan_protections(struct builder *b)
{
	for (uint32_t i = 0; i < b->img->n_maps; i++) {
		const struct tf_map *m = &b->img->maps[i];
		uint32_t prot = map_prot(b, i);
		struct tf_range range = tf_restore_map_range(b->img, i);

		if ((b->r->vdso_equal && is_vdso_part(m)) || !has_data(b->img, m) ||
			prot == (PROT_READ | PROT_WRITE))
			continue;
		tf_plan_syscall(&b->r->plan, kind_comment[m->kind], SYS_mprotect, 3, range.start,
			m->data_end - range.start, (uint64_t)prot);
	}
}

static void fill_add(struct tf_restore *r, uint64_t offset, uint64_t size, uint64_t address)
{
	if (size)
		r->fills[r->n_fills++] = (struct tf_fill){offset, size, address};
}

static int make_fills(struct builder *b, struct tf_arena *a)
{
	const struct tf_image *img = b->img;

	b->r->fills = tf_arena_array(a, img->n_segments + 1, sizeof(*b->r->fills));
	if (!b->r->fills)
		return TELEFORK_E_NOMEM;
	for (uint32_t i = 0; i < img->n_segments; i++) {
		const struct tf_segment *s = &img->segments[i];
		const struct tf_map *m = tf_image_map_at(img, s->vaddr);
		bool drop = b->r->vdso_equal && m && is_vdso_part(m);

		fill_add(b->r, s->offset, s->filesz, drop ? 0 : s->vaddr);
	}
	return 0;
}

/* --- vDSO --- */

static bool in_code(const struct tf_image *img, uint64_t from, uint64_t n)
{
	for (uint32_t i = 0; i < img->n_threads; i++) {
		uint64_t pc = tf_arch_native()->pc(&img->threads[i].regs);

		if (pc > from && pc < from + n)
			return true;
	}
	return false;
}

/* Whether n bytes at addr are bytes of the old vDSO that have come: an image may say anything. */
static bool in_vdso(const struct tf_image *img, uint64_t addr, uint64_t n)
{
	const struct tf_map *m = tf_image_map_at(img, addr);

	return m && m->kind == TF_MAP_VDSO && n <= m->end - addr && has_data(img, m);
}

/* The old pages are data; their entry points lead to the destination's functions or to the kernel.
 * QEMU's own vDSO has no data area: it is made of system calls already and works as it is. */
static void plan_patch_vdso(struct builder *b)
{
	const struct tf_vdso *v = &b->img->vdso;

	if (!v->size || !v->vvar_size || b->r->vdso_equal)
		return;
	for (uint32_t i = 0; i < v->n_symbols; i++) {
		long nr = tf_arch_vdso_syscall(v->symbols[i].name);
		uint64_t target = tf_vdso_symbol(&b->f->vdso, v->symbols[i].name);
		uint8_t code[32];
		struct tf_step *s;
		size_t n;

		if (nr == -2)
			continue;
		if (target && b->f->vdso.vvar_size)
			n = tf_arch_code_jump(code,
				target - vdso_first(&b->f->vdso) + b->r->park_at);
		else
			n = tf_arch_code_syscall(code, nr);
		/* Two names share an entry; a thread that stands in the bytes must not be pulled
		 * off the road: its call goes on in the old code, which finds no clock and asks. */
		if (v->symbols[i].size < n || in_code(b->img, v->symbols[i].value, n) ||
			!in_vdso(b->img, v->symbols[i].value, n))
			continue;
		s = tf_plan_add(&b->r->plan, TF_OP_COPY, "vdso entry");
		s->arg[0] = v->symbols[i].value;
		s->arg[1] = data_add(b, code, n, 8, NULL);
		s->arg[2] = n;
	}
}

/* --- the kernel's side of the process --- */

static bool inside_map(const struct tf_image *img, uint64_t addr, uint64_t n)
{
	const struct tf_map *m = tf_image_map_at(img, addr);

	return m && (m->prot & PROT_WRITE) && addr < m->data_end && n <= m->data_end - addr &&
		!is_vdso_part(m);
}

/* Where the keys cannot be the source's, signed return addresses get the new ones'. Before
 * protections are set. */
static int plan_signatures(struct builder *b)
{
	for (uint32_t i = 0; i < b->img->n_signatures && !b->traced; i++) {
		const struct tf_signature *s = &b->img->signatures[i];
		struct tf_step *step;

		if (s->place != TF_SIGN_MEMORY)
			continue; /* plan_frame() */
		if (!inside_map(b->img, s->address, 8))
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

static void plan_brk(struct builder *b)
{
	const struct tf_mm *mm = &b->img->mm;
	struct prctl_mm_map map = {
		.start_code = mm->start_code, .end_code = mm->end_code,
		.start_data = mm->start_data, .end_data = mm->end_data,
		.start_brk = mm->start_brk, .brk = mm->brk, .start_stack = mm->start_stack,
		.arg_start = mm->arg_start, .arg_end = mm->arg_end,
		.env_start = mm->env_start, .env_end = mm->env_end,
		.exe_fd = ~0u,
	};
	uint64_t low = b->img->maps[0].start, guard = PAGE_UP(b->f->brk, b->page);

	if (!(b->f->flags & TF_FACT_MM_MAP)) {
		/* brk stays the receiver's, low; a page at it makes every growth fail, and malloc
		 * turns to mmap. compat.c has made sure that it lies below the image's. */
		if (b->f->flags & TF_FACT_EMULATED && !tf_image_map_at(b->img, guard))
			plan_mmap(b, "no brk", guard, guard + b->page, PROT_NONE, MAP_PRIVATE);
		return;
	}
	if (!mm->start_code || !mm->arg_start) { /* a source under QEMU does not know its own */
		map.start_code = map.start_data = map.arg_start = map.env_start = low;
		map.end_code = map.end_data = map.arg_end = map.env_end = low + 1;
		map.start_brk = mm->brk;
		map.start_stack = b->img->maps[b->img->n_maps - 1].start;
	}
	if (b->img->n_auxv && (uint64_t)b->img->n_auxv * 16 <= b->f->auxv_size) {
		map.auxv = (void *)data_add(b, b->img->auxv, (uint64_t)b->img->n_auxv * 16, 8, NULL);
		map.auxv_size = b->img->n_auxv * 16;
	}
	tf_plan_syscall(&b->r->plan, "brk and the mm fields", SYS_prctl, 5, (uint64_t)PR_SET_MM,
		(uint64_t)PR_SET_MM_MAP, data_add(b, &map, sizeof(map), 8, NULL),
		(uint64_t)sizeof(map), UINT64_C(0));
}

static void plan_signals(struct builder *b)
{
	static const struct tf_sigaction dfl;

	for (uint32_t i = 0; i < TF_SIGNALS; i++) {
		const struct tf_sigaction *sa = i < b->img->n_sigactions ? &b->img->sigactions[i]
									 : &dfl;
		struct tf_step *s;

		if (i + 1 == SIGKILL || i + 1 == SIGSTOP)
			continue;
		s = tf_plan_syscall(&b->r->plan, "signal action", SYS_rt_sigaction, 4,
			(uint64_t)(i + 1), data_add(b, sa, sizeof(*sa), 8, NULL), UINT64_C(0),
			UINT64_C(8));
		/* QEMU user mode keeps the first real-time signals for itself. */
		if (b->f->flags & TF_FACT_EMULATED)
			s->expect = TF_EXPECT_ANY;
	}
}

static void plan_store(struct builder *b, const char *comment, uint64_t address, uint64_t value,
	uint64_t size)
{
	struct tf_step *s = tf_plan_add(&b->r->plan, TF_OP_STORE, comment);

	s->arg[0] = address;
	s->arg[1] = value;
	s->arg[2] = size;
}

/* Static storage of the program and its libraries: a file's writable mapping, and .bss behind it. */
static bool is_static_storage(const struct tf_image *img, const struct tf_map *m)
{
	const struct tf_map *before = m > img->maps ? m - 1 : m;

	if (!(m->prot & PROT_WRITE) || m->flags & TF_MAP_SHARED)
		return false;
	return m->kind == TF_MAP_FILE ||
		(m->kind == TF_MAP_ANON && before->kind == TF_MAP_FILE && before->end == m->start &&
			before->prot & PROT_WRITE);
}

/* The loader's lock is held by whoever was captured inside dlopen(). */
static void plan_owners(struct builder *b, const struct tf_thread *t)
{
	uint64_t tid_step = tf_plan_last(&b->r->plan), left = OWNERS_MAX;

	for (uint32_t i = 0; i < b->img->n_segments && left; i++) {
		const struct tf_segment *g = &b->img->segments[i];
		const struct tf_map *m = tf_image_map_at(b->img, g->vaddr);
		uint64_t n = g->filesz < left ? g->filesz : left;
		struct tf_step *s;

		if (!n || !m || !is_static_storage(b->img, m))
			continue;
		s = tf_plan_add(&b->r->plan, TF_OP_OWNERS, "held mutexes");
		s->arg[0] = g->vaddr;
		s->arg[1] = g->vaddr + n;
		s->arg[2] = (uint32_t)t->tid;
		s->arg[3] = tid_step;
		s->refs = 1u << 3;
		left -= n;
	}
}

static void plan_tid(struct builder *b, const struct tf_thread *t)
{
	uint64_t tid_step;
	struct tf_step *s;

	tf_plan_syscall(&b->r->plan, "clear_child_tid", SYS_set_tid_address, 1, t->tid_addr);
	tid_step = tf_plan_last(&b->r->plan);
	plan_owners(b, t);
	if (!t->tid_addr || !inside_map(b->img, t->tid_addr, 4))
		return;
	s = tf_plan_add(&b->r->plan, TF_OP_STORE_IF, "the C library's own tid");
	s->arg[0] = t->tid_addr;
	s->arg[1] = tid_step;
	s->refs = 1u << 1;
	s->arg[2] = 4;
	s->arg[3] = (uint32_t)t->tid;
}

static void plan_rseq(struct builder *b, const struct tf_thread *t)
{
	struct tf_step *s;

	if (!t->rseq.addr || !inside_map(b->img, t->rseq.addr, 32))
		return;
	plan_store(b, "rseq: no critical section", t->rseq.addr + 8, 0, 8);
	if (!(b->f->flags & TF_FACT_RSEQ)) {
		plan_store(b, "rseq: not here", t->rseq.addr, 0xfffffffe00000000u, 8);
		return;
	}
	s = tf_plan_syscall(&b->r->plan, "rseq", SYS_rseq, 4, t->rseq.addr, (uint64_t)t->rseq.len,
		UINT64_C(0), (uint64_t)t->rseq.sig);
	s->expect = TF_EXPECT_VALUE;
}

static void plan_thread(struct builder *b, const struct tf_thread *t)
{
	struct tf_plan *p = &b->r->plan;

	plan_tid(b, t);
	if (t->robust_head)
		tf_plan_syscall(p, "robust list", SYS_set_robust_list, 2, t->robust_head,
			t->robust_len)
			->expect = b->f->flags & TF_FACT_EMULATED ? TF_EXPECT_ANY
								  : TF_EXPECT_SUCCESS;
	plan_rseq(b, t);
	tf_plan_syscall(p, "name", SYS_prctl, 5, (uint64_t)PR_SET_NAME,
		data_add(b, t->comm, sizeof(t->comm), 1, NULL), UINT64_C(0), UINT64_C(0),
		UINT64_C(0));
}

static void plan_files(struct builder *b)
{
	struct tf_plan *p = &b->r->plan;
	const struct tf_image *img = b->img;
	uint32_t peer_flags = b->r->fds.back != b->r->fds.channel ? O_CLOEXEC : 0;

	tf_plan_syscall(p, "umask", SYS_umask, 1, (uint64_t)img->source.umask);
	if (img->source.cwd[0])
		tf_plan_syscall(p, "working directory", SYS_chdir, 1,
			data_string(b, img->source.cwd))
			->expect = TF_EXPECT_ANY;
	for (uint32_t i = 0; i < img->n_fds; i++) {
		const struct tf_fd *fd = &img->fds[i];

		if (fd->fd == img->source.channel_fd)
			peer_flags |= fd->flags & O_CLOEXEC;
		if (fd->fd <= 2 || (b->r->fds.peer && fd->fd == img->source.channel_fd))
			continue;
		tf_plan_syscall(p, "held", SYS_dup3, 3, (uint64_t)b->r->fds.reserve,
			(uint64_t)fd->fd, (uint64_t)(fd->flags & O_CLOEXEC));
	}
	if (b->r->fds.peer)
		tf_plan_syscall(p, "the way back", SYS_dup3, 3, (uint64_t)b->r->fds.back,
			(uint64_t)img->source.channel_fd, (uint64_t)peer_flags);
	if (b->r->fds.back != b->r->fds.channel)
		tf_plan_syscall(p, "the way back", SYS_close, 1, (uint64_t)b->r->fds.back);
	tf_plan_syscall(p, "reserve", SYS_close, 1, (uint64_t)b->r->fds.reserve);
	tf_plan_syscall(p, "channel", SYS_close, 1, (uint64_t)b->r->fds.channel);
}

static void plan_mailbox(struct builder *b)
{
	const struct tf_restore *r = b->r;
	uint64_t at = b->img->source.mailbox;
	uint32_t flags = b->f->flags & TF_FACT_EMULATED ? TF_MAILBOX_EMULATED : 0;

	if (!(b->f->flags & TF_FACT_MM_MAP))
		flags |= TF_MAILBOX_NO_BRK;
	if (!at || !inside_map(b->img, at, sizeof(struct tf_mailbox)))
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
	};

	for (size_t i = 0; i < sizeof(set) / sizeof(*set); i++)
		plan_store(b, "mailbox", at + set[i].offset, set[i].value, set[i].size);
}

/* The return address that a thread still holds in a register, signed in its frame at address at. */
static int plan_sign_link(struct builder *b, uint64_t at)
{
	const struct tf_image *img = b->img;
	const struct tf_signature *s = img->n_signatures
		? &img->signatures[img->n_signatures - 1]
		: NULL;
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

static int plan_frame(struct builder *b, const struct tf_thread *t)
{
	size_t size = tf_arch_frame_size(&t->regs, &b->f->cpu);
	void *frame;
	uint64_t sp, at = data_add(b, NULL, size, 64, &frame);
	int rc;

	if (b->r->plan.full)
		return 0;
	rc = tf_arch_frame_from_regs(t, &b->img->cpu, &b->f->cpu, frame, size, at, &sp, b->e);
	if (rc)
		return rc;
	rc = plan_sign_link(b, at);
	if (rc)
		return rc;
	rc = tf_arch_plan_registers(&b->r->plan, t);
	if (rc)
		return tf_fail(b->e, rc, "registers that no frame holds cannot be set here");
	tf_plan_add(&b->r->plan, TF_OP_SIGRETURN, "run")->arg[0] = sp;
	return 0;
}

/* --- the whole --- */

static int plan_all(struct builder *b)
{
	struct tf_plan *p = &b->r->plan;
	const struct tf_thread *t = &b->img->threads[0];
	int rc;

	plan_leave(b);
	plan_move_vdso(b, vdso_first(&b->f->vdso), b->r->park_at, "park the vdso");
	plan_unmap(b);
	plan_memory(b);
	rc = plan_signatures(b);
	if (rc)
		return rc;
	plan_patch_vdso(b);
	plan_protections(b);
	if (b->sigbus_fd >= 0)
		tf_plan_syscall(p, "the empty file", SYS_close, 1, (uint64_t)b->sigbus_fd)->refs = 1;
	plan_brk(b);
	plan_signals(b);
	plan_thread(b, t);
	plan_mailbox(b);
	plan_files(b);
	if (b->traced)
		tf_arch_plan_traced(p, t);
	if (b->r->fds.back == b->r->fds.channel) /* else the receiver stays between, and is needed */
		tf_plan_syscall(p, "to outlive the receiver", SYS_prctl, 5,
			(uint64_t)PR_SET_PDEATHSIG, UINT64_C(0), UINT64_C(0), UINT64_C(0),
			UINT64_C(0));
	tf_plan_add(p, TF_OP_BARRIER, "ready")->arg[0] = (uint64_t)b->r->fds.control;
	tf_plan_syscall(p, "control", SYS_close, 1, (uint64_t)b->r->fds.control);
	return plan_frame(b, t);
}

/* Room that the parts above need at most, counted before the range is chosen. */
static int reserve(struct builder *b, struct tf_arena *a)
{
	const struct tf_image *img = b->img;
	struct tf_restore *r = b->r;
	uint64_t steps = 12ull * img->n_maps + b->f->n_maps + img->n_fds + img->vdso.n_symbols +
		img->n_signatures + 256;

	r->data_max = 65536 + (uint64_t)TF_SIGNALS * 64 + (uint64_t)img->n_auxv * 16 +
		img->vdso.n_symbols * 32ull +
		tf_arch_frame_size(&img->threads[0].regs, &b->f->cpu) + 8192;
	r->data = tf_arena_alloc(a, r->data_max);
	if (!r->data || tf_plan_init(&r->plan, a, steps))
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

static struct tf_range *taken_ranges(const struct tf_facts *f, struct tf_arena *a)
{
	struct tf_range *v = tf_arena_array(a, f->n_taken + 1, sizeof(*v));

	for (uint32_t i = 0; v && i < f->n_taken; i++)
		v[i] = (struct tf_range){f->taken[i].start, f->taken[i].end};
	return v;
}

static int place(struct builder *b, uint64_t restorer_size, struct tf_arena *a)
{
	struct tf_restore *r = b->r;
	struct tf_range *img = image_ranges(b->img, a), *taken = taken_ranges(b->f, a);
	uint64_t page = b->page, steps = r->plan.max_steps * sizeof(struct tf_step);
	uint64_t fills = (b->img->n_segments + 1ull) * sizeof(struct tf_fill);
	uint64_t first = vdso_first(&b->f->vdso), park = 0, body, size;
	uint64_t top = b->f->max_addr < TF_HOLE_TOP ? b->f->max_addr / 4 * 3 : TF_HOLE_TOP;

	if (!img || !taken)
		return tf_fail(b->e, TELEFORK_E_NOMEM, "out of memory for address ranges");
	if (b->f->vdso.size)
		park = b->f->vdso.base + b->f->vdso.size - first;
	body = PAGE_UP(sizeof(struct tf_plan_header), 64) + PAGE_UP(fills, 64) +
		PAGE_UP(steps, 64) + PAGE_UP(r->data_max, 64) + TF_PLAN_BUFFER + TF_RESTORER_STACK;
	body = PAGE_UP(body, page);
	size = body + PAGE_UP(restorer_size, page) + PAGE_UP(park, page);
	r->hole.start = tf_hole_find(img, b->img->n_maps, taken, b->f->n_taken, size,
		b->f->min_addr + TF_HOLE_MARGIN, top & ~(page - 1));
	if (!r->hole.start)
		return tf_fail(b->e, TELEFORK_E_COLLISION,
			"no %llu bytes are free both in the process and here",
			(unsigned long long)size);
	r->hole.end = r->hole.start + size;
	r->code_at = r->hole.start + body;
	r->park_at = r->code_at + PAGE_UP(restorer_size, page);
	r->fills_at = r->hole.start + PAGE_UP(sizeof(struct tf_plan_header), 64);
	r->steps_at = r->fills_at + PAGE_UP(fills, 64);
	r->data_at = r->steps_at + PAGE_UP(steps, 64);
	r->buffer_at = r->data_at + PAGE_UP(r->data_max, 64);
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
	if ((uint64_t)high + 5 > f->fd_limit)
		return tf_fail(e, TELEFORK_E_LIMIT,
			"the process has descriptor %lld, RLIMIT_NOFILE here is %llu: raise it with "
			"ulimit -n",
			(long long)high, (unsigned long long)f->fd_limit);
	r->fds = (struct tf_restore_fds){
		.channel = (int)high + 1,
		.control = (int)high + 2,
		.reserve = (int)high + 3,
		.back = relayed ? (int)high + 4 : (int)high + 1,
		.peer = peer && img->source.channel_fd >= 0,
	};
	return 0;
}

/* The vDSO's pages are moved and written to: they have to be what the mappings say. */
static int check_vdso(struct builder *b)
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
	struct builder b = {.r = r, .img = img, .f = f, .e = e, .page = f->page_size,
		.sigbus_fd = -1};
	void *table;
	int rc;

	b.traced = f->flags & TF_FACT_PTRACE && tf_arch_has_traced(&img->threads[0]);
	r->vdso_equal = tf_vdso_equal(&img->vdso, &f->vdso);
	rc = check_vdso(&b);
	if (!rc)
		rc = reserve(&b, a);
	if (!rc)
		rc = place(&b, restorer_size, a);
	if (!rc)
		rc = make_fills(&b, a);
	if (rc)
		return tf_fail(e, rc, "out of memory for a plan");
	/* Also where the processor has an instruction: a plan follows from the facts alone. */
	r->crc_table_at = (uint32_t)(data_add(&b, NULL, 8192, 64, &table) - r->data_at);
	if (!tf_arch_has_crc32c())
		tf_crc32c_table(table);
	rc = plan_all(&b);
	if (!rc && r->plan.full)
		rc = tf_fail(e, TELEFORK_E_LIMIT, "the plan does not fit its reservation");
	return rc;
}
