/* SPDX-License-Identifier: MIT */
/* See guest.h. */
#include "core/base/guest.h"
#include "core/base/host.h"
#include "core/base/maps.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct finder {
	struct tf_arena *a;
	const struct tf_map *listed; /* by the emulator */
	uint32_t n_listed, at;
	struct tf_map *found; /* grow at the arena's end */
	uint32_t n_found;
	uint64_t page;
	bool full;
};

/* QEMU checks the address of every system call against its own table of pages. */
static bool is_guests(uint64_t addr, uint64_t size)
{
	unsigned char seen = 0;

	return !mincore((void *)addr, size, &seen);
}

static void add(struct finder *f, const struct tf_map *m, uint64_t start, uint64_t end)
{
	struct tf_map *last;

	if (f->n_found) {
		last = &f->found[f->n_found - 1];
		if (last->end == start && last->prot == m->prot) {
			last->end = last->data_end = end;
			return;
		}
	}
	if (!tf_arena_alloc(f->a, sizeof(*m))) {
		f->full = true;
		return;
	}
	last = &f->found[f->n_found++];
	*last = *m;
	last->start = start;
	last->end = last->data_end = end;
}

static bool is_listed(struct finder *f, const struct tf_map *m)
{
	while (f->at < f->n_listed && f->listed[f->at].end <= m->start)
		f->at++;
	return f->at < f->n_listed && f->listed[f->at].start < m->end;
}

/* Only memory without a name can have been merged. The emulator's own code buffer is executable,
 * nothing of the program's is, for the host. Inaccessible memory, of which the emulator's allocator
 * reserves much, is looked at from both ends only. */
static void look_into(struct finder *f, const struct tf_map *m)
{
	uint64_t at = m->start, last = m->end;

	if (m->kind != TF_MAP_ANON || *m->path || (m->prot & PROT_EXEC) || is_listed(f, m))
		return;
	if (!m->prot) {
		while (at < m->end && is_guests(at, f->page))
			at += f->page;
		if (at > m->start)
			add(f, m, m->start, at);
		while (last > at && is_guests(last - f->page, f->page))
			last -= f->page;
		at = last;
	}
	for (; at < m->end && !f->full; at += f->page)
		if (is_guests(at, f->page))
			add(f, m, at, at + f->page);
}

/* Both lists are sorted; out has room for both. */
static uint32_t merge(struct tf_map *out, const struct tf_map *a, uint32_t n_a,
	const struct tf_map *b, uint32_t n_b)
{
	uint32_t n = 0, i = 0, k = 0;

	while (i < n_a || k < n_b)
		out[n++] = k == n_b || (i < n_a && a[i].start < b[k].start) ? a[i++] : b[k++];
	return n;
}

static int find_more(struct finder *f, struct tf_err *e)
{
	struct tf_map *host;
	uint32_t n;
	int rc;

	if (!tf_host_emulated())
		return 0;
	rc = tf_maps_read(f->a, TF_HOST_TRUE_MAPS, &host, &n, e);
	if (rc)
		return rc;
	f->found = (struct tf_map *)(void *)(f->a->base + f->a->used);
	for (uint32_t i = 0; i < n; i++)
		look_into(f, &host[i]);
	return f->full ? tf_fail(e, TELEFORK_E_NOMEM, "out of memory for mappings") : 0;
}

int tf_guest_maps(struct tf_arena *a, uint32_t spare, struct tf_map **ret_maps, uint32_t *ret_n,
	struct tf_err *e)
{
	struct finder f = {.a = a, .page = (uint64_t)sysconf(_SC_PAGESIZE)};
	struct tf_map *listed, *out;
	int rc = tf_maps_read(a, TF_HOST_MAPS, &listed, &f.n_listed, e);

	f.listed = listed;
	if (!rc)
		rc = find_more(&f, e);
	if (rc)
		return rc;
	out = tf_arena_array(a, (uint64_t)f.n_listed + f.n_found + spare, sizeof(*out));
	if (!out)
		return tf_fail(e, TELEFORK_E_NOMEM, "out of memory for mappings");
	*ret_n = merge(out, listed, f.n_listed, f.found, f.n_found);
	*ret_maps = out;
	return 0;
}

int tf_guest_arena(struct tf_arena *a)
{
	return tf_host_emulated()
		       ? tf_arena_init_small(a, TF_ARENA_DEFAULT / 256, TF_ARENA_DEFAULT / 8)
		       : tf_arena_init(a, TF_ARENA_DEFAULT);
}

void *tf_guest_hold_break(void)
{
	uint64_t size = (uint64_t)sysconf(_SC_PAGESIZE);
	void *at, *got;

	if (!tf_host_emulated())
		return NULL;
	at = (void *)(((uint64_t)syscall(SYS_brk, 0L) + size - 1) & -size);
	got = mmap(at, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (got != at && got != MAP_FAILED)
		munmap(got, size);
	return got == at ? at : NULL;
}
