/* SPDX-License-Identifier: MIT */
/* See changes.h. Runs in a copy, before and after the function that it came for. */
#include "core/capture/changes.h"
#include "core/base/cleanup.h"
#include "core/base/host.h"
#include "core/base/zero.h"
#include "core/capture/pagemap.h"
#include "core/capture/self.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#define WINDOW 512u /* pages looked at together */

/* A walk over one map's pages. */
struct walk {
	struct tf_capture *c;
	const struct tf_map *m;
	int pagemap;
	uint64_t page;
	bool swap;   /* mincore() cannot tell what is absent */
	bool noting; /* the moment itself; else: changes since */
	bool readable;
	uint64_t at_run; /* first of base->runs that does not end before the page */
	uint32_t at_map; /* likewise of base->maps */
	/* The twin's memory, to compare with; -1: a page that cannot be compared has changed. */
	int twin_mem, twin_pagemap;
	uint64_t at;                /* the window that is looked at, */
	size_t n;                   /* its pages */
	bool has_frames, has_bytes; /* of the twin's window, here: */
	uint64_t frames[WINDOW];
	uint8_t *bytes;
};

static bool was_mapped(struct walk *w, uint64_t addr)
{
	const struct tf_base *b = w->c->base;

	while (w->at_map < b->n_maps && b->maps[w->at_map].end <= addr)
		w->at_map++;
	return w->at_map < b->n_maps && b->maps[w->at_map].start <= addr;
}

static bool was_filled(struct walk *w, uint64_t addr)
{
	const struct tf_base *b = w->c->base;

	while (w->at_run < b->n_runs && b->runs[w->at_run].end <= addr)
		w->at_run++;
	return w->at_run < b->n_runs && b->runs[w->at_run].start <= addr;
}

static bool ask_twin(int fd, void *to, size_t size, uint64_t at)
{
	return fd >= 0 && pread(fd, to, size, (off_t)at) == (ssize_t)size;
}

/* Whether a page that somebody shares is the twin's, here: it may have come from elsewhere
 * (mremap), or be shared with the function's own children or by KSM. */
static bool is_twins(struct walk *w, uint64_t addr, uint64_t bits)
{
	size_t i = (addr - w->at) / w->page;

	if (bits & TF_PM_FRAME) {
		w->has_frames = w->has_frames ||
				ask_twin(w->twin_pagemap, w->frames, w->n * 8, w->at / w->page * 8);
		if (w->has_frames && (w->frames[i] & TF_PM_PRESENT) &&
			!((w->frames[i] ^ bits) & TF_PM_FRAME))
			return true;
	}
	w->has_bytes = w->has_bytes || ask_twin(w->twin_mem, w->bytes, w->n * w->page, w->at);
	return w->has_bytes && !memcmp((const void *)addr, w->bytes + i * w->page, w->page);
}

static bool is_wanted(struct walk *w, uint64_t addr, uint64_t bits)
{
	bool present = bits & (TF_PM_PRESENT | TF_PM_SWAPPED);

	if (w->noting)
		return present && (!w->readable || !tf_all_zero((const void *)addr, w->page));
	if (present && ((bits & (TF_PM_EXCLUSIVE | TF_PM_SWAPPED)) || !was_mapped(w, addr) ||
			       !is_twins(w, addr, bits)))
		return true;
	/* The twin's, or gone. */
	return !present && was_filled(w, addr);
}

/* Pages of [at, at + n pages); n <= WINDOW. */
static int look_at(struct walk *w, uint64_t at, size_t n)
{
	uint64_t entry[WINDOW];
	ssize_t got = pread(w->pagemap, entry, n * 8, (off_t)(at / w->page * 8));

	if (got != (ssize_t)(n * 8))
		return tf_fail_errno(&w->c->err, TELEFORK_E_SYSTEM, got < 0 ? errno : EIO,
			"/proc/self/pagemap at %llx", (unsigned long long)at);
	w->at = at;
	w->n = n;
	w->has_frames = w->has_bytes = false;
	for (size_t i = 0; i < n; i++, at += w->page)
		if (is_wanted(w, at, entry[i]) && tf_capture_add_run(w->c, at, at + w->page))
			return w->c->err.code;
	return 0;
}

/* Whether nothing is or was in [start, end). */
static bool is_empty(struct walk *w, uint64_t start, uint64_t end)
{
	unsigned char seen[WINDOW] = {0};

	if (w->swap || mincore((void *)start, end - start, seen))
		return false;
	if (!w->noting) {
		was_filled(w, start);
		if (w->at_run < w->c->base->n_runs && w->c->base->runs[w->at_run].start < end)
			return false;
	}
	return !memchr(seen, 1, sizeof(seen));
}

static int walk_private(struct walk *w, uint64_t start, uint64_t end)
{
	int rc = 0;

	w->readable = w->m->prot & PROT_READ;
	if (!w->noting && !w->readable) /* our last act: nobody runs here any more */
		w->readable = !mprotect((void *)start, end - start, PROT_READ);
	for (uint64_t at = start; at < end && !rc; at += WINDOW * w->page) {
		uint64_t to = end - at < WINDOW * w->page ? end : at + WINDOW * w->page;

		if (!is_empty(w, at, to))
			rc = look_at(w, at, (to - at) / w->page);
	}
	return rc;
}

/* Shared pages show no exclusive bit: their content is compared with what it was. */
static int walk_shared(struct walk *w)
{
	const struct tf_map *m = w->m;
	int rc = 0;

	if (!(m->prot & PROT_READ))
		mprotect((void *)m->start, m->end - m->start, PROT_READ);
	for (uint64_t at = m->start; at < m->end && !rc; at += w->page) {
		const struct tf_frozen *f = tf_capture_frozen_at(w->c, at);
		unsigned char seen = 1;

		if (!w->swap && !f)
			mincore((void *)at, w->page, &seen);
		if (f ? memcmp((void *)at, f->copy + (at - f->start), w->page) != 0
		      : (seen & 1) && !tf_all_zero((const void *)at, w->page))
			rc = tf_capture_add_run(w->c, at, at + w->page);
	}
	return rc;
}

static const struct tf_map *base_map_at(const struct tf_base *b, uint64_t addr)
{
	const struct tf_image as_image = {.maps = b->maps, .n_maps = b->n_maps};

	return tf_image_map_at(&as_image, addr);
}

/* Where the program's part of a map begins. A stack that grows by itself holds nothing below the
 * caller's frame; any other (a coroutine's) may lie among other things. */
static uint64_t stack_bottom(const struct tf_map *m, uint64_t stack, uint64_t page)
{
	bool grows = m->kind == TF_MAP_STACK && stack >= m->start && stack < m->end;

	return grows ? stack & ~(page - 1) : m->start;
}

static int walk_map(struct walk *w, struct tf_map *m)
{
	const struct tf_base *b = w->c->base;
	const struct tf_map *old;
	uint64_t start = m->start;

	w->m = m;
	switch (m->kind) {
	case TF_MAP_VDSO:
	case TF_MAP_VVAR:
		m->data_end = m->kind == TF_MAP_VVAR ? m->start : m->end;
		return 0;
	case TF_MAP_FILE:
		/* The copy landed without files, but for what stands past a file's end. */
		old = base_map_at(b, m->start);
		if (w->noting || (old && old->kind == TF_MAP_FILE))
			return 0;
		m->data_end = tf_capture_readable_end(m);
		return m->data_end > start ? tf_capture_add_run(w->c, start, m->data_end) : 0;
	default:
		if (m->flags & TF_MAP_SHARED)
			return w->noting ? 0 : walk_shared(w);
		return walk_private(w, stack_bottom(m, b->stack, w->page), m->end);
	}
}

/* Opens the twin's memory. The addresses are those of the process that a
 * kernel sees: under QEMU user mode they have to be the program's own. */
static void open_twin(struct walk *w)
{
	char path[32];
	uint64_t word = 0, place = (uint64_t)&w->c->base->twin;

	w->bytes = tf_arena_alloc(&w->c->arena, WINDOW * w->page);
	snprintf(path, sizeof(path), "/proc/%d/mem", (int)w->c->base->twin);
	if (w->bytes)
		w->twin_mem = open(path, O_RDONLY | O_CLOEXEC);
	if (ask_twin(w->twin_mem, &word, 4, place) && (int32_t)word == w->c->base->twin) {
		snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)w->c->base->twin);
		w->twin_pagemap = open(path, O_RDONLY | O_CLOEXEC);
		return;
	}
	tf_closep(&w->twin_mem);
	w->twin_mem = -1;
}

static int walk_all(struct tf_capture *c, bool noting)
{
	struct walk w = {.c = c,
		.noting = noting,
		.page = (uint64_t)sysconf(_SC_PAGESIZE),
		.twin_mem = -1,
		.twin_pagemap = -1};
	struct sysinfo si = {0};
	int rc = 0;

	w.pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (w.pagemap < 0)
		return tf_fail_errno(&c->err, TELEFORK_E_SYSTEM, errno, "/proc/self/pagemap");
	sysinfo(&si);
	w.swap = si.freeswap != si.totalswap;
	if (!noting)
		open_twin(&w);
	tf_capture_begin_runs(c);
	for (uint32_t i = 0; i < c->image.n_maps && !rc; i++) {
		c->map_runs = c->n_runs;
		rc = walk_map(&w, &c->image.maps[i]);
	}
	close(w.pagemap);
	tf_closep(&w.twin_mem);
	tf_closep(&w.twin_pagemap);
	return rc;
}

/* Tells its pid, which its own memory holds as well, and waits for its copy's end. When the
 * receiver goes before that, nobody wants the copy any more, nor what it started. */
static _Noreturn void twin_main(struct tf_base *b, int fd, int back)
{
	struct pollfd ends[2] = {{.fd = fd, .events = POLLIN}, {.fd = back, .events = POLLRDHUP}};
	uint64_t all = ~UINT64_C(0);
	int keep[2] = {fd, back};

	sigprocmask(SIG_BLOCK, (sigset_t *)(void *)&all, NULL);
	tf_host_close_all(keep, 2);
	b->twin = getpid();
	if (write(fd, &b->twin, sizeof(b->twin)) != sizeof(b->twin))
		_exit(1);
	while (poll(ends, 2, -1) < 0 && errno == EINTR)
		;
	if (ends[0].revents)
		_exit(0);
	kill(b->copy, SIGKILL);
	kill(0, SIGKILL);
	_exit(0);
}

/* The twin only keeps the pages, so that what is written afterwards is no longer shared. */
static int fork_twin(struct tf_capture *c)
{
	struct tf_base *b = c->base;
	bool child;
	pid_t pid;
	int fd[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
		return tf_fail_errno(&c->err, TELEFORK_E_SYSTEM, errno, "socketpair");
	b->copy = getpid();
	pid = tf_fork_hidden(&child);
	if (!pid)
		twin_main(b, fd[1], c->channel_fd);
	close(fd[1]);
	b->twin_fd = fd[0];
	if (pid > 0 && read(fd[0], &b->twin, sizeof(b->twin)) == sizeof(b->twin))
		return 0;
	close(fd[0]);
	return tf_fail_errno(&c->err, TELEFORK_E_SYSTEM, errno, "fork of a twin");
}

int tf_changes_begin(struct tf_capture *c, uint64_t stack)
{
	struct tf_base *b = tf_arena_alloc(&c->arena, sizeof(*b));
	int rc;

	if (!b)
		return tf_fail(&c->err, TELEFORK_E_NOMEM, "out of memory");
	b->stack = stack;
	c->base = b;
	rc = tf_capture_freeze(c);
	if (!rc)
		rc = walk_all(c, true);
	if (rc)
		return rc;
	b->maps = c->image.maps;
	b->n_maps = c->image.n_maps;
	b->runs = c->runs;
	b->n_runs = c->n_runs;
	c->n_runs = 0;
	c->memory = 0;
	return fork_twin(c);
}

/* --- edits --- */

static bool is_kernels(const struct tf_map *m)
{
	return m && (m->kind == TF_MAP_VDSO || m->kind == TF_MAP_VVAR);
}

static bool edit_for(
	const struct tf_map *a, const struct tf_map *b, bool protections, struct tf_edit *edit)
{
	if (is_kernels(a) || is_kernels(b) || (!a && !b))
		return false;
	if (!a || !b) {
		if ((a ? a : b)->kind == TF_MAP_HEAP)
			return false;
		edit->op = b ? TF_EDIT_MAP : TF_EDIT_UNMAP;
	} else if ((a->flags ^ b->flags) & TF_MAP_SHARED) {
		edit->op = TF_EDIT_REPLACE;
	} else if (protections && a->prot != b->prot) {
		edit->op = TF_EDIT_PROTECT;
	} else {
		return false;
	}
	edit->prot = b ? b->prot : 0;
	edit->flags = b ? b->flags & TF_MAP_SHARED : 0;
	edit->vmflags = b ? b->vmflags & TF_VMF_NORESERVE : 0;
	return true;
}

static void edit_add(struct tf_edit *out, uint32_t max, uint32_t *n, const struct tf_edit *edit)
{
	struct tf_edit *last = *n && *n <= max ? &out[*n - 1] : NULL;

	if (last && last->end == edit->start && last->op == edit->op && last->prot == edit->prot &&
		last->flags == edit->flags && last->vmflags == edit->vmflags) {
		last->end = edit->end;
		return;
	}
	if (*n < max)
		out[*n] = *edit;
	(*n)++;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

uint32_t tf_changes_edits(const struct tf_map *before, uint32_t n_before,
	const struct tf_map *after, uint32_t n_after, bool protections, struct tf_edit *out,
	uint32_t max)
{
	uint32_t i = 0, j = 0, n = 0;
	uint64_t at = 0;

	while (i < n_before || j < n_after) {
		const struct tf_map *a = i < n_before ? &before[i] : NULL;
		const struct tf_map *b = j < n_after ? &after[j] : NULL;
		uint64_t a_from = a ? a->start : UINT64_MAX, b_from = b ? b->start : UINT64_MAX;
		uint64_t end = UINT64_MAX;
		struct tf_edit edit = {0};

		if (at < smaller(a_from, b_from))
			at = smaller(a_from, b_from);
		/* Up to the next border of either list. */
		if (a)
			end = at < a_from ? a_from : a->end;
		if (b)
			end = smaller(end, at < b_from ? b_from : b->end);
		if (edit_for(
			    at >= a_from ? a : NULL, at >= b_from ? b : NULL, protections, &edit)) {
			edit.start = at;
			edit.end = end;
			edit_add(out, max, &n, &edit);
		}
		at = end;
		i += a && a->end <= at;
		j += b && b->end <= at;
	}
	return n;
}

/* How far a stack grew is no change. */
static uint64_t cut_stack(struct tf_map *maps, uint32_t n, uint64_t stack)
{
	const struct tf_image as_image = {.maps = maps, .n_maps = n};
	struct tf_map *m = (struct tf_map *)tf_image_map_at(&as_image, stack);
	uint64_t start = m ? m->start : 0;

	if (m)
		m->start = stack_bottom(m, stack, (uint64_t)sysconf(_SC_PAGESIZE));
	return start;
}

static int find_edits(struct tf_capture *c)
{
	const struct tf_base *b = c->base;
	struct tf_image *img = &c->image;
	uint32_t max = 2 * (b->n_maps + img->n_maps) + 2;
	/* QEMU 7.2 shows a merged mapping with its first page's protection. */
	bool protections = !(img->source.flags & TF_SOURCE_EMULATED);
	struct tf_map *stack;
	uint64_t start;

	img->edits = tf_arena_array(&c->arena, max, sizeof(*img->edits));
	if (!img->edits)
		return tf_fail(&c->err, TELEFORK_E_NOMEM, "out of memory for mappings");
	/* The map itself stays whole: it is yet to be unwound. */
	cut_stack(b->maps, b->n_maps, b->stack);
	start = cut_stack(img->maps, img->n_maps, b->stack);
	img->n_edits = tf_changes_edits(
		b->maps, b->n_maps, img->maps, img->n_maps, protections, img->edits, max);
	stack = (struct tf_map *)tf_image_map_at(img, b->stack);
	if (stack)
		stack->start = start;
	return 0;
}

int tf_changes_find(struct tf_capture *c)
{
	int rc = tf_capture_read_vmflags(c);

	if (!rc)
		rc = find_edits(c);
	return rc ? rc : walk_all(c, false);
}
