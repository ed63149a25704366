/* SPDX-License-Identifier: MIT */
/*
 * See merge.h. From tf_merge_init() on nothing here calls an allocator: the heap is about to be
 * replaced by the copy's. What can fail comes first and is undone; what comes after cannot, because
 * the number of mappings was checked beforehand.
 */
#include "core/restore/merge.h"
#include "arch/arch.h"
#include "arch/restorer.h"
#include "core/base/cleanup.h"
#include "core/base/guest.h"
#include "core/base/host.h"
#include "core/base/maps.h"
#include "core/restore/hole.h"
#include "core/restore/owners.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef unsigned long long ull;

#define PLACE_SIZE (UINT64_C(1) << 40) /* free addresses that are looked for */

static uint64_t page_size(void)
{
	return (uint64_t)sysconf(_SC_PAGESIZE);
}

/* --- init --- */

/* A first arena anywhere finds the place for the second, where it is out of the way. */
static uint64_t find_place(struct tf_err *e)
{
	struct tf_arena a = {0};
	struct tf_range *taken;
	struct tf_map *maps;
	uint64_t place = 0;
	uint32_t n;
	int rc = tf_arena_init(&a, TF_ARENA_DEFAULT);

	if (rc)
		tf_fail(e, rc, "no address space for what comes back");
	if (!rc && !tf_maps_read(&a, TF_HOST_TRUE_MAPS, &maps, &n, e) &&
		(taken = tf_arena_array(&a, n, sizeof(*taken)))) {
		for (uint32_t i = 0; i < n; i++)
			taken[i] = (struct tf_range){maps[i].start, maps[i].end};
		place = tf_hole_find(taken, n, NULL, 0, PLACE_SIZE, TF_HOLE_MARGIN, TF_HOLE_TOP);
	}
	tf_arena_done(&a);
	return place;
}

static int map_arena(struct tf_arena *a, uint64_t place, uint64_t size, struct tf_err *e)
{
	return tf_arena_init_at(a, place, size)
		       ? tf_fail_errno(e, TELEFORK_E_NOMEM, errno,
				 "no address space for %llu bytes that come back", (ull)size)
		       : 0;
}

int tf_merge_init(struct tf_merge *m, struct tf_err *e)
{
	uint64_t place = find_place(e);
	int rc;

	*m = (struct tf_merge){.mem = -1, .scratch = -1};
	if (!place)
		return tf_fail(e, TELEFORK_E_COLLISION, "no address range for what comes back");
	rc = map_arena(&m->arena, place, TF_ARENA_DEFAULT, e);
	if (rc)
		return rc;
	m->mem = tf_fd_above_stdio(open("/proc/self/mem", O_RDWR | O_CLOEXEC));
	if (m->mem >= 0 && tf_host_emulated())
		m->scratch = tf_fd_above_stdio(memfd_create("telefork", MFD_CLOEXEC));
	return m->mem < 0 || (tf_host_emulated() && m->scratch < 0)
		       ? tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "/proc/self/mem")
		       : 0;
}

void tf_merge_done(struct tf_merge *m)
{
	if (m->mem >= 0)
		close(m->mem);
	if (m->scratch >= 0)
		close(m->scratch);
	tf_arena_done(&m->stage);
	tf_arena_done(&m->arena);
}

void tf_merge_keep(struct tf_merge *m, uint64_t start, uint64_t end)
{
	uint32_t i = m->n_keep;

	if (start >= end || i == TF_KEEP_MAX)
		return;
	for (; i && m->keep[i - 1].start > start; i--)
		m->keep[i] = m->keep[i - 1];
	m->keep[i] = (struct tf_keep){start, end};
	m->n_keep++;
}

/* --- receive --- */

static const struct tf_map *map_at(const struct tf_map *maps, uint32_t n, uint64_t addr)
{
	const struct tf_image as_image = {.maps = (struct tf_map *)maps, .n_maps = n};

	return tf_image_map_at(&as_image, addr);
}

static bool is_new(const struct tf_edit *d)
{
	return d->op == TF_EDIT_MAP || d->op == TF_EDIT_REPLACE;
}

/* End of what can be written from addr on: this process's, new by an edit, or by a longer heap. */
static uint64_t writable_end(const struct tf_merge *m, uint64_t addr)
{
	const struct tf_map *have = map_at(m->maps, m->n_maps, addr);
	uint64_t brk = (uint64_t)syscall(SYS_brk, 0), page = page_size();

	if (have)
		return have->end;
	for (uint32_t i = 0; i < m->image.n_edits; i++) {
		const struct tf_edit *d = &m->image.edits[i];

		if (is_new(d) && addr >= d->start && addr < d->end)
			return d->end;
	}
	brk = (brk + page - 1) & ~(page - 1);
	if (addr >= brk && addr < m->image.mm.brk)
		return (m->image.mm.brk + page - 1) & ~(page - 1);
	return 0;
}

static int check_place(const struct tf_merge *m, const struct tf_staged *s, struct tf_err *e)
{
	for (uint64_t at = s->address, end = at + s->size; at < end;) {
		uint64_t to = writable_end(m, at);

		if (!to)
			return tf_fail(
				e, TELEFORK_E_IMAGE, "a change at %llx, where nothing is", (ull)at);
		at = to;
	}
	return 0;
}

/* One extent: read, checked, kept. *ret_end: it was the trailer. */
static int receive_extent(struct tf_merge *m, struct tf_io *io, uint32_t *chain, uint32_t *count,
	bool *ret_end, struct tf_err *e)
{
	struct tf_staged *s = &m->staged[m->n_staged];
	struct tf_extent x;
	uint64_t room = 0;
	int rc = tf_io_read(io, &x, sizeof(x), e);

	if (rc)
		return rc;
	*ret_end = x.offset == TF_TRAILER_OFFSET;
	if (*ret_end)
		return x.size == *count && x.crc == *chain
			       ? 0
			       : tf_fail(e, TELEFORK_E_CHECKSUM, "a change was lost on the way");
	*s = (struct tf_staged){
		.address = tf_image_address(&m->image, x.offset, &room), .size = x.size};
	if (!x.size || x.size > TF_EXTENT_MAX || s->address == UINT64_MAX || x.size > room ||
		m->n_staged == m->max_staged || s->address < m->staged_end)
		return tf_fail(e, TELEFORK_E_IMAGE, "a change of %u bytes at byte %llu", x.size,
			(ull)x.offset);
	s->data = tf_arena_alloc(&m->stage, x.size);
	if (!s->data)
		return tf_fail(e, TELEFORK_E_NOMEM, "no room for what comes back");
	rc = tf_io_read(io, s->data, x.size, e);
	if (!rc && x.crc != tf_extent_crc(x.offset, x.size, s->data))
		rc = tf_fail(e, TELEFORK_E_CHECKSUM, "a change arrived damaged");
	if (!rc)
		rc = check_place(m, s, e);
	*chain = tf_chain_crc(*chain, x.crc);
	(*count)++;
	m->n_staged++;
	m->staged_end = s->address + s->size;
	return rc;
}

static int receive_head(struct tf_merge *m, struct tf_io *io, const struct tf_stream_header *h,
	uint32_t *chain, uint32_t *count, struct tf_err *e)
{
	uint8_t *head = tf_arena_alloc(&m->arena, h->head_size);
	int rc;

	if (!head)
		return tf_fail(e, TELEFORK_E_NOMEM, "a head of %llu bytes", (ull)h->head_size);
	rc = tf_stream_read_head(io, head, h->head_size, chain, count, e);
	if (!rc)
		rc = tf_image_decode(&m->image, &m->arena, head, h->head_size, e);
	if (!rc && m->image.source.origin != TF_ORIGIN_RETURN)
		rc = tf_fail(e, TELEFORK_E_PROTOCOL, "what came back is no list of changes");
	if (!rc && (m->image.source.machine != tf_arch_native()->machine ||
			   m->image.source.page_size != page_size()))
		rc = tf_fail(e, TELEFORK_E_IMAGE, "what came back is another machine's");
	return rc;
}

/* Where the bytes for [addr, addr + 8) stand; NULL: they did not change. Extents ascend. */
static uint8_t *staged_word(const struct tf_merge *m, uint64_t addr)
{
	uint32_t low = 0, high = m->n_staged;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (m->staged[middle].address + m->staged[middle].size <= addr)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == m->n_staged || addr < m->staged[low].address ||
		m->staged[low].address + m->staged[low].size - addr < 8)
		return NULL;
	return m->staged[low].data + (addr - m->staged[low].address);
}

/* Return addresses of the program's frames were signed over there, with other keys perhaps. */
static void sign_staged(struct tf_merge *m)
{
	for (uint32_t i = 0; i < m->image.n_signatures; i++) {
		const struct tf_signature *s = &m->image.signatures[i];
		uint64_t word = tf_r_sign(s->value, s->modifier, s->key);
		uint8_t *at = s->place == TF_SIGN_MEMORY ? staged_word(m, s->address) : NULL;

		if (at)
			memcpy(at, &word, sizeof(word));
	}
}

int tf_merge_receive(
	struct tf_merge *m, struct tf_io *io, const struct tf_stream_header *h, struct tf_err *e)
{
	uint32_t chain = 0, count = 0;
	uint64_t most = h->memory / page_size() + 1,
		 behind = (uint64_t)m->arena.base + m->arena.size;
	bool end = false;
	int rc = tf_stream_check_header(h, e);

	if (!rc)
		rc = receive_head(m, io, h, &chain, &count, e);
	if (!rc)
		rc = tf_guest_maps(&m->arena, 0, &m->maps, &m->n_maps, e);
	if (!rc && h->memory > tf_host_memory_free(&m->arena))
		rc = tf_fail(e, TELEFORK_E_NOMEM, "%llu bytes of changes are more than is free",
			(ull)h->memory);
	if (!rc) /* twice: what is to be undone is kept */
		rc = map_arena(&m->stage, behind, 2 * (most * page_size()), e);
	if (rc)
		return rc;
	m->max_staged = most < TF_MAX_EXTENTS ? (uint32_t)most : TF_MAX_EXTENTS;
	m->staged = tf_arena_array(&m->arena, m->max_staged + 1ull, sizeof(*m->staged));
	if (!m->staged)
		return tf_fail(e, TELEFORK_E_NOMEM, "%llu bytes of changes", (ull)h->memory);
	while (!rc && !end)
		rc = receive_extent(m, io, &chain, &count, &end, e);
	if (!rc)
		sign_staged(m);
	return rc;
}

/* --- apply --- */

static bool writable_now(const struct tf_merge *m, uint64_t addr)
{
	const struct tf_map *have = map_at(m->maps, m->n_maps, addr);

	/* QEMU 7.2 shows a merged mapping with its first page's protection. */
	return !have || ((have->prot & PROT_WRITE) && m->scratch < 0);
}

/* Calls put for every stretch of [s, s + size) that is not to be kept. */
static int each_part(const struct tf_merge *m, struct tf_staged *s,
	int (*put)(const struct tf_merge *, uint64_t to, uint8_t *from, uint64_t n), uint8_t *data)
{
	uint64_t at = s->address, end = s->address + s->size;
	int rc = 0;

	for (uint32_t i = 0; i <= m->n_keep && at < end && !rc; i++) {
		uint64_t from = i < m->n_keep ? m->keep[i].start : end;
		uint64_t to = i < m->n_keep ? m->keep[i].end : end;

		if (from > end)
			from = end;
		if (from > at)
			rc = put(m, at, data + (at - s->address), from - at);
		if (to > at)
			at = to;
	}
	return rc;
}

static int put_plain(const struct tf_merge *m, uint64_t to, uint8_t *from, uint64_t n)
{
	(void)m;
	memcpy((void *)to, from, n);
	return 0;
}

/* Past the protection: FOLL_FORCE, proc(5) "/proc/pid/mem". */
static int put_forced(const struct tf_merge *m, uint64_t to, uint8_t *from, uint64_t n)
{
	while (n) {
		ssize_t done = pwrite(m->mem, from, n, (off_t)to);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return -(errno ? errno : EIO);
		to += (uint64_t)done;
		from += done;
		n -= (uint64_t)done;
	}
	return 0;
}

/* Under QEMU user mode a call that writes to memory goes by the guest's own protections, and makes
 * the emulator forget code that it translated; a store could be a fault. */
static int put_through_qemu(const struct tf_merge *m, uint64_t to, uint8_t *from, uint64_t n)
{
	if (pwrite(m->scratch, from, n, 0) == (ssize_t)n &&
		pread(m->scratch, (void *)to, n, 0) == (ssize_t)n)
		return 0;
	return put_forced(m, to, from, n);
}

static int put_carefully(const struct tf_merge *m, uint64_t to, uint8_t *from, uint64_t n)
{
	return m->scratch >= 0 ? put_through_qemu(m, to, from, n) : put_forced(m, to, from, n);
}

/* Code that was replaced: the instruction cache is told. */
static void tell_code(const struct tf_merge *m, const struct tf_staged *s)
{
	const struct tf_map *have = map_at(m->maps, m->n_maps, s->address);

	if (have && (have->prot & PROT_EXEC))
		tf_arch_flush((void *)s->address, s->size);
}

/* Pages that this process may not write go in by force, with what was there kept for an undo. */
static int put_protected(struct tf_merge *m, struct tf_err *e)
{
	for (uint32_t i = 0; i < m->n_staged; i++) {
		struct tf_staged *s = &m->staged[i];
		uint8_t *old;
		int rc;

		if (writable_now(m, s->address))
			continue;
		old = tf_arena_alloc(&m->stage, s->size);
		if (!old || pread(m->mem, old, s->size, (off_t)s->address) != (ssize_t)s->size)
			return tf_fail(
				e, TELEFORK_E_SYSTEM, "%llx cannot be read", (ull)s->address);
		s->undo = old;
		rc = each_part(m, s, put_carefully, s->data);
		if (rc)
			return tf_fail_errno(e, TELEFORK_E_SYSTEM, -rc,
				"the change at %llx cannot be made here", (ull)s->address);
		tell_code(m, s);
	}
	return 0;
}

static int map_new(const struct tf_edit *d, struct tf_err *e)
{
	int flags = MAP_ANONYMOUS | MAP_FIXED_NOREPLACE |
		    (d->flags & TF_MAP_SHARED ? MAP_SHARED : MAP_PRIVATE) |
		    (d->vmflags & TF_VMF_NORESERVE ? MAP_NORESERVE : 0);
	void *at;

	if (d->op != TF_EDIT_MAP)
		return 0;
	at = mmap((void *)d->start, d->end - d->start, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (at == (void *)d->start)
		return 0;
	if (at != MAP_FAILED) /* QEMU 7.2 and kernels before 4.17 take the address for a hint */
		munmap(at, d->end - d->start);
	return tf_fail_errno(e, TELEFORK_E_COLLISION, at == MAP_FAILED ? errno : EEXIST,
		"the function's new memory %llx-%llx cannot be mapped here", (ull)d->start,
		(ull)d->end);
}

/* What this process runs on while it applies: no honest edit is there. */
static int check_edits(const struct tf_merge *m, struct tf_err *e)
{
	uint64_t code = (uint64_t)(uintptr_t)tf_merge_apply & ~(page_size() - 1);
	const struct tf_keep own[] = {
		{(uint64_t)m->arena.base, (uint64_t)m->arena.base + m->arena.size},
		{(uint64_t)m->stage.base, (uint64_t)m->stage.base + m->stage.size},
		{code, code + page_size()},
	};

	for (uint32_t i = 0; i < m->image.n_edits; i++) {
		const struct tf_edit *d = &m->image.edits[i];
		bool hit = false;

		for (uint32_t k = 0; k < sizeof(own) / sizeof(*own); k++)
			hit |= d->start < own[k].end && d->end > own[k].start;
		for (uint32_t k = 0; k < m->n_keep; k++)
			hit |= d->start < m->keep[k].end && d->end > m->keep[k].start;
		if (d->op == TF_EDIT_REPLACE)
			return tf_fail(e, TELEFORK_E_UNSUPPORTED,
				"the function made %llx-%llx another kind of memory (shared or "
				"private): this cannot be taken home",
				(ull)d->start, (ull)d->end);
		if (hit)
			return tf_fail(e, TELEFORK_E_IMAGE,
				"%llx-%llx is this process's own: it cannot be mapped, unmapped or "
				"protected from over there",
				(ull)d->start, (ull)d->end);
	}
	return 0;
}

static int check_room(const struct tf_merge *m, struct tf_err *e)
{
	struct tf_arena *a = (struct tf_arena *)&m->arena;
	uint64_t most = 65530, need = m->n_maps + 2ull * m->image.n_edits + 8;
	struct tf_err quiet = {0};
	size_t size;
	char *text;

	if (!tf_proc_read(a, "/proc/sys/vm/max_map_count", &text, &size, &quiet))
		most = strtoull(text, NULL, 10);
	return need <= most
		       ? 0
		       : tf_fail(e, TELEFORK_E_LIMIT,
				 "%llu mappings may be needed, vm.max_map_count is %llu: raise it",
				 (ull)need, (ull)most);
}

static int grow_brk(const struct tf_merge *m, uint64_t old, struct tf_err *e)
{
	uint64_t want = m->image.mm.brk;

	if (want <= old || (uint64_t)syscall(SYS_brk, want) == want)
		return 0;
	return tf_fail(e, TELEFORK_E_NOMEM, "the heap cannot grow to %llx here", (ull)want);
}

static bool is_opened(const struct tf_edit *d)
{
	return d->op == TF_EDIT_PROTECT && (d->prot & PROT_WRITE);
}

/* Memory that becomes writable counts against limits: this can fail, and comes first. */
static int open_up(const struct tf_edit *d, struct tf_err *e)
{
	if (!is_opened(d) || !mprotect((void *)d->start, d->end - d->start, (int)d->prot))
		return 0;
	return tf_fail_errno(e, errno == ENOMEM ? TELEFORK_E_LIMIT : TELEFORK_E_SYSTEM, errno,
		"%llx-%llx cannot be made writable here, as the function made it", (ull)d->start,
		(ull)d->end);
}

static void close_again(const struct tf_merge *m, const struct tf_edit *d)
{
	for (uint32_t i = 0; i < m->n_maps; i++) {
		const struct tf_map *have = &m->maps[i];
		uint64_t start = have->start > d->start ? have->start : d->start;
		uint64_t end = have->end < d->end ? have->end : d->end;

		if (start < end)
			mprotect((void *)start, end - start, (int)have->prot);
	}
}

/* n_done: edits that are made, and have to be undone; the one that failed among them, which may be
 * made in part. */
static int apply_undoable(struct tf_merge *m, uint64_t old_brk, uint32_t *n_done, struct tf_err *e)
{
	int rc = check_edits(m, e);

	if (!rc)
		rc = check_room(m, e);
	while (!rc && *n_done < m->image.n_edits) {
		const struct tf_edit *d = &m->image.edits[*n_done];

		rc = map_new(d, e);
		if (rc)
			break;
		rc = open_up(d, e);
		++*n_done;
	}
	if (!rc)
		rc = grow_brk(m, old_brk, e);
	return rc ? rc : put_protected(m, e);
}

static void undo(struct tf_merge *m, uint64_t old_brk, uint32_t n_done)
{
	for (uint32_t i = 0; i < m->n_staged; i++)
		if (m->staged[i].undo) {
			each_part(m, &m->staged[i], put_carefully, m->staged[i].undo);
			tell_code(m, &m->staged[i]);
		}
	syscall(SYS_brk, old_brk);
	for (uint32_t i = 0; i < n_done; i++) {
		const struct tf_edit *d = &m->image.edits[i];

		if (d->op == TF_EDIT_MAP)
			munmap((void *)d->start, d->end - d->start);
		else if (is_opened(d))
			close_again(m, d);
	}
}

/* Protections last: pages were written under their old ones. */
static void apply_rest(struct tf_merge *m)
{
	for (uint32_t i = 0; i < m->n_staged; i++)
		if (!m->staged[i].undo) {
			each_part(m, &m->staged[i], put_plain, m->staged[i].data);
			tell_code(m, &m->staged[i]);
		}
	for (uint32_t i = 0; i < m->image.n_edits; i++) {
		const struct tf_edit *d = &m->image.edits[i];
		uint64_t size = d->end - d->start;

		if (d->op == TF_EDIT_UNMAP)
			munmap((void *)d->start, size);
		else if (d->prot != (PROT_READ | PROT_WRITE) && !is_opened(d))
			mprotect((void *)d->start, size, (int)d->prot);
	}
}

/* What this process locked, or the function over there, is held by this thread. */
static void take_locks(struct tf_merge *m)
{
	struct tf_owner self = {
		.old = (uint32_t)m->image.threads->tid, .now = (uint32_t)syscall(SYS_gettid)};
	const struct tf_owners o = {.owner = &self, .n_owners = 1};

	for (uint32_t i = 0; i < m->n_staged; i++) {
		const struct tf_staged *s = &m->staged[i];
		struct tf_owner_range r = {(uint64_t)s->data, (uint64_t)s->data + s->size};

		tf_owner_search(&o, &r, r.start, r.start, r.end);
	}
}

int tf_merge_apply(struct tf_merge *m, struct tf_err *e)
{
	uint64_t old_brk = (uint64_t)syscall(SYS_brk, 0);
	uint32_t n_done = 0;
	int rc;

	take_locks(m);
	rc = apply_undoable(m, old_brk, &n_done, e);
	if (rc) {
		undo(m, old_brk, n_done);
		return rc;
	}
	apply_rest(m);
	/* A copy under an emulator has its receiver's break, which says nothing of ours. */
	if (m->image.mm.brk < old_brk && !(m->image.source.flags & TF_SOURCE_EMULATED))
		syscall(SYS_brk, m->image.mm.brk);
	return 0;
}
