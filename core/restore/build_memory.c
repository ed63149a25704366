/* SPDX-License-Identifier: MIT */
/*
 * Memory in a plan: the receiver's goes, but for the vDSO and an emulator's pages; the image's
 * mappings come, are filled and protected, and its vDSO leads to the destination's.
 */
#include "core/restore/build_impl.h"
#include "core/restore/vdso.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define TF_MLOCK_ONFAULT 1 /* include/uapi/asm-generic/mman-common.h */
#define TF_MCL_ONFAULT   4
#define STACK_MAX        (UINT64_C(64) << 20) /* mapped for a stack without a limit */
#define STACK_DEFAULT    (UINT64_C(8) << 20)
#define STACK_GAP        (UINT64_C(1) << 20) /* stack_guard_gap: 256 pages, mm/mmap.c */

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
	low = TF_PAGE_UP(low, img->source.page_size);
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

	/* QEMU 7.2 shows a merged mapping with its first page's protection: code could be in any.
	 */
	if ((img->source.flags & TF_SOURCE_EMULATED) && prot)
		prot |= PROT_EXEC;
	return prot;
}

static uint32_t map_prot(const struct tf_build *b, uint32_t i)
{
	return tf_restore_map_prot(b->img, i) |
	       tf_arch_map_prot(b->img->maps[i].vmflags, &b->f->cpu);
}

/* n bytes of the plan's data; returns where they will stand, *ret (may be NULL) where they are now.
 */

static bool is_vdso_part(const struct tf_map *m)
{
	return m->kind == TF_MAP_VDSO || m->kind == TF_MAP_VVAR;
}

bool tf_build_inside_map(const struct tf_image *img, uint64_t addr, uint64_t n)
{
	const struct tf_map *m = tf_image_map_at(img, addr);

	return m && (m->prot & PROT_WRITE) && addr < m->data_end && n <= m->data_end - addr &&
	       !is_vdso_part(m) && m->kind != TF_MAP_STAGE;
}

/* --- taking the receiver down --- */

static void plan_leave(struct tf_build *b)
{
	struct tf_plan *p = &b->r->plan;

	if (b->f->rseq.addr)
		tf_plan_syscall(p, "unregister the receiver's rseq", SYS_rseq, 4, b->f->rseq.addr,
			(uint64_t)b->f->rseq.len, UINT64_C(1), (uint64_t)b->f->rseq.sig);
}

uint64_t tf_build_vdso_first(const struct tf_vdso *v)
{
	return v->vvar_size && v->vvar_base < v->base ? v->vvar_base : v->base;
}

/* Moves each area of the destination's vDSO by the same distance. */
static void plan_move_vdso(
	struct tf_build *b, uint64_t from_shift, uint64_t to_shift, const char *comment)
{
	uint64_t first = tf_build_vdso_first(&b->f->vdso);

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
static void plan_unmap_around(struct tf_build *b, const struct tf_map *m)
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

static void plan_unmap(struct tf_build *b)
{
	struct tf_restore *r = b->r;

	if (!(b->f->flags & TF_FACT_EMULATED)) {
		tf_build_unmap_but_staged(b, 0, r->hole.start);
		tf_build_unmap_but_staged(b, r->hole.end, b->f->max_addr);
		return;
	}
	for (uint32_t i = 0; i < b->f->n_maps; i++)
		if (b->f->maps[i].kind != TF_MAP_VDSO)
			plan_unmap_around(b, &b->f->maps[i]);
}

void tf_build_take_down(struct tf_build *b)
{
	plan_leave(b);
	plan_move_vdso(b, tf_build_vdso_first(&b->f->vdso), b->r->park_at, "park the vdso");
	plan_unmap(b);
}

/* --- memory --- */

static const struct {
	uint32_t flag;
	int advice;
} advices[] = {
	{TF_VMF_HUGEPAGE, MADV_HUGEPAGE},
	{TF_VMF_NOHUGEPAGE, MADV_NOHUGEPAGE},
	{TF_VMF_DONTDUMP, MADV_DONTDUMP},
	{TF_VMF_DONTFORK, MADV_DONTFORK},
	{TF_VMF_WIPEONFORK, MADV_WIPEONFORK},
	{TF_VMF_MERGEABLE, MADV_MERGEABLE},
	{TF_VMF_SEQ, MADV_SEQUENTIAL},
	{TF_VMF_RAND, MADV_RANDOM},
};

static const char *const kind_comment[TF_MAP_KINDS] = {
	[TF_MAP_ANON] = "memory",
	[TF_MAP_FILE] = "file",
	[TF_MAP_HEAP] = "heap",
	[TF_MAP_STACK] = "stack",
	[TF_MAP_VDSO] = "vdso",
	[TF_MAP_VVAR] = "vvar",
	[TF_MAP_STAGE] = "stage",
};

void tf_build_mmap(struct tf_build *b, const char *comment, uint64_t start, uint64_t end,
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
static void plan_beyond_end(struct tf_build *b, const struct tf_map *m, uint32_t prot)
{
	struct tf_plan *p = &b->r->plan;
	struct tf_step *s;

	if (b->sigbus_fd < 0) {
		tf_plan_syscall(p, "an empty file", SYS_memfd_create, 2,
			tf_build_string(b, "beyond-end-of-file"), (uint64_t)MFD_CLOEXEC);
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

bool tf_build_has_data(const struct tf_image *img, const struct tf_map *m)
{
	uint32_t low = 0, high = img->n_segments;

	if (m->waits)
		return false;
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

static void close_file(struct tf_build *b)
{
	if (b->file_fd >= 0)
		tf_plan_syscall(&b->r->plan, "file", SYS_close, 1, (uint64_t)b->file_fd)->refs = 1;
	b->file_fd = -1;
}

/* A file that is here: its pages stand for those that come, where they are the same. Neighbours are
 * mostly of one file. */
static void plan_file(struct tf_build *b, const struct tf_map *m, uint32_t prot)
{
	struct tf_plan *p = &b->r->plan;
	struct tf_step *s;

	if (b->file_fd < 0 || strcmp(b->file, m->path) != 0) {
		close_file(b);
		b->file = m->path;
		b->file_fd = (int64_t)p->n_steps;
		tf_plan_syscall(p, m->path, SYS_openat, 4, (uint64_t)(int64_t)AT_FDCWD,
			tf_build_string(b, m->path), (uint64_t)(O_RDONLY | O_CLOEXEC), UINT64_C(0));
	}
	s = tf_plan_syscall(p, "file", SYS_mmap, 6, m->start, m->end - m->start, (uint64_t)prot,
		(uint64_t)(MAP_PRIVATE | MAP_FIXED_NOREPLACE |
			   (m->vmflags & TF_VMF_NORESERVE ? MAP_NORESERVE : 0)),
		(uint64_t)b->file_fd, m->offset);
	s->refs = 1u << 4;
	s->expect = TF_EXPECT_VALUE;
	s->expected = m->start;
}

/* Where what is mapped ends that can be protected and advised. */
static uint64_t map_end(const struct tf_map *m)
{
	return m->here || m->object || m->kind == TF_MAP_VVAR ? m->end : m->data_end;
}

void tf_build_advice(struct tf_build *b, uint32_t i)
{
	const struct tf_map *m = &b->img->maps[i];
	uint64_t start = tf_restore_map_range(b->img, i).start, end = map_end(m);

	for (size_t k = 0; k < sizeof(advices) / sizeof(*advices) && end > start; k++)
		if (m->vmflags & advices[k].flag &&
			!(b->r->zygote && advices[k].flag == TF_VMF_DONTFORK))
			tf_plan_syscall(&b->r->plan, "advice", SYS_madvise, 3, start, end - start,
				(uint64_t)advices[k].advice)
				->expect = TF_EXPECT_ANY;
}

/* What a mapping can be filled with, and tagged. */
static uint32_t fill_prot(const struct tf_build *b, const struct tf_map *m, uint32_t prot)
{
	if (!tf_build_has_data(b->img, m) && !tf_map_may_have_tags(m))
		return prot;
	return PROT_READ | PROT_WRITE | tf_arch_map_prot(m->vmflags & TF_VMF_MTE, &b->f->cpu);
}

static void plan_memory(struct tf_build *b, uint32_t i)
{
	const struct tf_map *m = &b->img->maps[i];
	struct tf_range range = tf_restore_map_range(b->img, i);
	uint32_t prot = map_prot(b, i);
	uint32_t flags = m->flags & TF_MAP_SHARED ? MAP_SHARED : MAP_PRIVATE;
	uint64_t end = map_end(m); /* vvar: zeroes: "no clock here", the old code makes the call */

	if (m->kind == TF_MAP_STACK)
		flags |= MAP_STACK | MAP_NORESERVE;
	else if (m->vmflags & TF_VMF_GROWSDOWN)
		flags |= MAP_GROWSDOWN;
	if (m->huge)
		flags |= MAP_HUGETLB | m->huge << 26; /* MAP_HUGE_SHIFT */
	if (m->vmflags & TF_VMF_NORESERVE || end - range.start > b->f->memory_free)
		flags |= MAP_NORESERVE;
	if (end > range.start)
		tf_build_mmap(
			b, kind_comment[m->kind], range.start, end, fill_prot(b, m, prot), flags);
	if (end < m->end)
		plan_beyond_end(b, m, prot);
}

static void plan_map(struct tf_build *b, uint32_t i)
{
	const struct tf_map *m = &b->img->maps[i];

	if (m->object)
		b->mapped_prot[i] = tf_build_object_map(b, i, tf_build_has_data(b->img, m));
	else if (tf_build_staged_map(b, i))
		;
	else if (m->here)
		plan_file(b, m, fill_prot(b, m, map_prot(b, i)));
	else
		plan_memory(b, i);
	tf_build_advice(b, i);
}

void tf_build_memory(struct tf_build *b)
{
	tf_build_files_as(b, true);
	tf_build_objects(b);
	for (uint32_t i = 0; i < b->img->n_maps; i++)
		if (!b->r->vdso_equal || !is_vdso_part(&b->img->maps[i]))
			plan_map(b, i);
	close_file(b);
	tf_build_staged_done(b);
	tf_build_files_as(b, false);
	if (b->r->vdso_equal)
		plan_move_vdso(
			b, b->r->park_at, tf_build_vdso_first(&b->img->vdso), "vdso, as it was");
	tf_build_fill(b);
}

/* Whatever checks of tags the receiver lives with, the memory is no longer what its pointers say.
 */
void tf_build_tags(struct tf_build *b)
{
	const struct tf_image *img = b->img;
	struct tf_step *s;

	if (!img->n_tags)
		return;
	tf_plan_syscall(&b->r->plan, "tags are not checked", SYS_prctl, 5,
		(uint64_t)PR_SET_TAGGED_ADDR_CTRL, UINT64_C(0), UINT64_C(0), UINT64_C(0),
		UINT64_C(0));
	s = tf_plan_add(&b->r->plan, TF_OP_TAGS, "memory");
	s->arg[0] = tf_build_data(b, img->tags, img->n_tags * sizeof(*img->tags), 8, NULL);
	s->arg[1] = img->n_tags;
}

/* The key by which the kernel forbids the reading of code, which only mprotect(PROT_EXEC) uses. */
static bool has_kernels_key(const struct tf_build *b, const struct tf_map *m)
{
	return m->key && !(b->img->mm.keys >> m->key & 1);
}

/* A mapping that follows the last step's gets what that gives in the same call. */
static void plan_protect(struct tf_build *b, uint32_t i, uint32_t prot)
{
	const struct tf_map *m = &b->img->maps[i];
	uint64_t start = tf_restore_map_range(b->img, i).start;
	struct tf_plan *p = &b->r->plan;
	struct tf_step *last = &p->steps[tf_plan_last(p)];

	if (last->op == TF_OP_SYSCALL && last->nr == SYS_mprotect && last->arg[2] == prot && i &&
		last->arg[0] + last->arg[1] == start && !m->huge && !m[-1].huge)
		last->arg[1] = map_end(m) - last->arg[0];
	else
		tf_plan_syscall(p, kind_comment[m->kind], SYS_mprotect, 3, start,
			map_end(m) - start, (uint64_t)prot);
}

static void plan_kernels_key(struct tf_build *b, uint32_t key)
{
	for (uint32_t i = 0; i < b->img->n_maps; i++)
		if (b->img->maps[i].key == key)
			plan_protect(b, i, map_prot(b, i));
}

/* The kernel gives the lowest free key: all up to the highest are taken, and the others go. */
static void plan_keys(struct tf_build *b)
{
	uint32_t keys = b->img->mm.keys & ~1u, kernels = 0;
	struct tf_step *s;

	for (uint32_t i = 0; i < b->img->n_maps; i++)
		if (has_kernels_key(b, &b->img->maps[i]))
			kernels |= 1u << b->img->maps[i].key;
	for (uint32_t k = 1; k < TF_KEYS && (keys | kernels) >> k; k++) {
		if (kernels & 1u << k) {
			plan_kernels_key(b, k);
			continue;
		}
		s = tf_plan_syscall(
			&b->r->plan, "protection key", SYS_pkey_alloc, 2, UINT64_C(0), UINT64_C(0));
		s->expect = TF_EXPECT_VALUE;
		s->expected = k;
	}
	for (uint32_t k = 1; k < TF_KEYS && keys >> k; k++)
		if (!((keys | kernels) & 1u << k))
			tf_plan_syscall(
				&b->r->plan, "protection key", SYS_pkey_free, 1, (uint64_t)k);
}

/* Pages are made present where the source's were; what may not be read is locked all the same, and
 * answers ENOMEM. */
void tf_build_locks(struct tf_build *b)
{
	const struct tf_mm *mm = &b->img->mm;

	for (uint32_t i = 0; i < b->img->n_maps; i++) {
		const struct tf_map *m = &b->img->maps[i];

		if (!(m->vmflags & TF_VMF_LOCKED) || is_vdso_part(m) || m->data_end == m->start)
			continue;
		tf_plan_syscall(&b->r->plan, "locked", SYS_mlock2, 3, m->start,
			m->data_end - m->start,
			m->vmflags & TF_VMF_ONFAULT ? (uint64_t)TF_MLOCK_ONFAULT : UINT64_C(0))
			->expect = m->prot & PROT_READ ? TF_EXPECT_SUCCESS : TF_EXPECT_ANY;
	}
	if (mm->locks)
		tf_plan_syscall(&b->r->plan, "locks to come", SYS_mlockall, 1,
			(uint64_t)(MCL_FUTURE |
				   (mm->locks & TF_LOCK_ONFAULT ? TF_MCL_ONFAULT : 0)));
}

void tf_build_protections(struct tf_build *b)
{
	plan_keys(b);
	for (uint32_t i = 0; i < b->img->n_maps; i++) {
		const struct tf_map *m = &b->img->maps[i];
		uint32_t prot = map_prot(b, i);
		struct tf_range range = tf_restore_map_range(b->img, i);

		uint32_t now = m->object ? b->mapped_prot[i] : fill_prot(b, m, prot);

		if ((b->r->vdso_equal && is_vdso_part(m)) || m->kind == TF_MAP_STAGE ||
			has_kernels_key(b, m))
			continue;
		if (m->key)
			tf_plan_syscall(&b->r->plan, "protection key", SYS_pkey_mprotect, 4,
				range.start, map_end(m) - range.start, (uint64_t)prot,
				(uint64_t)m->key);
		else if (prot != now)
			plan_protect(b, i, prot);
	}
}

/* What comes for a file that is here is compared with it. */
static enum tf_fill_how fill_how(const struct tf_build *b, const struct tf_map *m)
{
	if (m && tf_build_is_found(b->img, m))
		return TF_FILL_EQUAL;
	if (m && m->here)
		return TF_FILL_DIFFERENT;
	return m && tf_build_puts(b, m) ? TF_FILL_PUT : TF_FILL_WRITE;
}

int tf_build_fills(struct tf_build *b, struct tf_arena *a)
{
	const struct tf_image *img = b->img;

	b->r->fills = tf_arena_array(a, img->n_segments + 1, sizeof(*b->r->fills));
	if (!b->r->fills)
		return TELEFORK_E_NOMEM;
	for (uint32_t i = 0; i < img->n_segments; i++) {
		const struct tf_segment *s = &img->segments[i];
		const struct tf_map *m = tf_image_map_at(img, s->vaddr);
		bool drop = b->r->vdso_equal && m && is_vdso_part(m);

		if (s->filesz && !(m && m->waits))
			b->r->fills[b->r->n_fills++] = (struct tf_fill){
				s->offset, s->filesz, drop ? 0 : s->vaddr, fill_how(b, m)};
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

	return m && m->kind == TF_MAP_VDSO && n <= m->end - addr && tf_build_has_data(img, m);
}

/* The old pages are data; their entry points lead to the destination's functions or to the kernel.
 * QEMU's own vDSO has no data area: it is made of system calls already and works as it is. */
void tf_build_vdso_entries(struct tf_build *b)
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
			n = tf_arch_code_jump(
				code, target - tf_build_vdso_first(&b->f->vdso) + b->r->park_at);
		else
			n = tf_arch_code_syscall(code, nr);
		/* Two names share an entry; a thread that stands in the bytes must not be pulled
		 * off the road: its call goes on in the old code, which finds no clock and asks. */
		if (v->symbols[i].size < n || in_code(b->img, v->symbols[i].value, n) ||
			!in_vdso(b->img, v->symbols[i].value, n))
			continue;
		s = tf_plan_add(&b->r->plan, TF_OP_COPY, "vdso entry");
		s->arg[0] = v->symbols[i].value;
		s->arg[1] = tf_build_data(b, code, n, 8, NULL);
		s->arg[2] = n;
	}
}
