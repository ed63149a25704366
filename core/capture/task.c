/* SPDX-License-Identifier: MIT */
/*
 * Capture from outside, see task.h. Everything that /proc and ptrace show is read from the stopped
 * process; task_ask.c asks it for the rest. Not for a forked child: uses the allocator and stdio.
 */
#include "core/capture/task_call.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/elf.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "arch/arch.h"
#include "core/base/cleanup.h"
#include "core/base/host.h"
#include "core/base/maps.h"
#include "core/base/zero.h"
#include "core/restore/vdso.h"

static void proc_path(const struct tf_task *t, const char *name, char path[static TF_TASK_PATH])
{
	snprintf(path, TF_TASK_PATH, "/proc/%d/%s", (int)t->seen, name);
}

/* --- what /proc and ptrace show --- */

static const char *link_text(struct tf_task *t, const char *name)
{
	char path[TF_TASK_PATH], buf[TF_MAX_STR];
	ssize_t n;

	proc_path(t, name, path);
	n = readlink(path, buf, sizeof(buf) - 1);
	return tf_arena_strn(&t->capture.arena, buf, n > 0 ? (size_t)n : 0);
}

int tf_task_read_text(struct tf_task *t, const char *name, char **ret_text, size_t *ret_size)
{
	char path[TF_TASK_PATH];

	proc_path(t, name, path);
	return tf_proc_read(&t->capture.arena, path, ret_text, ret_size, &t->capture.err);
}

/* What is true of this moment only, and of this process, not of a fork. */
static int describe_moment(struct tf_task *t)
{
	struct tf_source *s = &t->capture.image.source;
	const char *status = t->status;

	*s = (struct tf_source){
		.machine = tf_arch_native()->machine,
		.flags = TF_SOURCE_OUTSIDE | (t->was_stopped ? TF_SOURCE_STOPPED : 0),
		.origin = TF_ORIGIN_TASK,
		.page_size = (uint32_t)sysconf(_SC_PAGESIZE),
		.pid = t->pid,
		.ppid = (int32_t)tf_text_number(status, "\nPPid:", 10, 0),
		.realtime_ns = tf_clock_ns(CLOCK_REALTIME),
		.monotonic_ns = tf_clock_ns(CLOCK_MONOTONIC) + (uint64_t)t->clocks.monotonic,
		.boottime_ns = tf_clock_ns(CLOCK_BOOTTIME) + (uint64_t)t->clocks.boottime,
		.channel_fd = -1,
		.umask = (uint32_t)tf_text_number(status, "\nUmask:", 8, 0),
		.version = TELEFORK_VERSION,
	};
	return 0;
}

static int describe_source(struct tf_task *t)
{
	struct tf_capture *c = &t->capture;
	struct tf_source *s = &c->image.source;
	struct utsname uts;
	const struct tf_mm asked = c->image.mm;
	int32_t parent;
	char *stat;
	size_t size;
	int rc = tf_task_read_text(t, "stat", &stat, &size);

	if (rc)
		return rc;
	uname(&uts);
	s->stack_limit = c->image.process.limits[2 * RLIMIT_STACK];
	s->release = tf_arena_strn(&c->arena, uts.release, sizeof(uts.release));
	s->exe = link_text(t, "exe");
	s->cwd = link_text(t, "cwd");
	tf_capture_parse_stat(stat, &c->image.mm, &parent);
	c->image.mm.brk = asked.brk;
	c->image.mm.locks = asked.locks;
	c->image.mm.keys = asked.keys;
	return s->release && s->exe && s->cwd ? 0 : TELEFORK_E_NOMEM;
}

int tf_task_describe_maps(struct tf_task *t)
{
	int rc = t->rounds ? tf_task_rounds_maps(t) : 0;

	if (!rc)
		rc = tf_task_smaps(t);
	rc = rc > 0 ? 0 : rc;
	if (!rc)
		tf_task_drop_leftovers(t);
	return rc;
}

/* Of an object the copy's mapping can be written to as the original's could; other memory has no
 * such bit. */
static int finish_maps(struct tf_task *t)
{
	struct tf_image *img = &t->capture.image;

	for (uint32_t i = 0; i < img->n_maps; i++) {
		if (!img->maps[i].object)
			img->maps[i].vmflags &= ~TF_VMF_MAYWRITE;
		img->source.max_map_end = img->maps[i].end;
		/* The break itself is only known to the process: the heap's end is near. */
		if (img->maps[i].kind == TF_MAP_HEAP && !img->mm.brk)
			img->mm.brk = img->maps[i].end;
	}
	return 0;
}

int tf_task_read(struct tf_task *t, uint64_t addr, void *to, size_t n)
{
	int rc;

	if (tf_task_object_read(t, addr, to, n, &rc))
		return rc;
	if (pread(t->mem, to, n, (off_t)addr) != (ssize_t)n)
		return tf_fail_errno(&t->capture.err, TELEFORK_E_SYSTEM, errno,
			"memory of process %d at %llx", (int)t->seen, (unsigned long long)addr);
	return 0;
}

static int describe_vdso(struct tf_task *t)
{
	struct tf_capture *c = &t->capture;
	struct tf_vdso *v = &c->image.vdso;
	int rc;

	tf_vdso_find(v, c->image.maps, c->image.n_maps);
	t->vdso = tf_arena_alloc(&c->arena, v->size + 1);
	if (!t->vdso)
		return TELEFORK_E_NOMEM;
	rc = v->size ? tf_task_read(t, v->base, t->vdso, v->size) : 0;
	return rc ? rc : tf_vdso_read(v, t->vdso, &c->arena);
}

static int describe_auxv(struct tf_task *t)
{
	char *text;
	size_t size;
	int rc = tf_task_read_text(t, "auxv", &text, &size);

	t->capture.image.auxv = (uint64_t *)(void *)text;
	t->capture.image.n_auxv = rc ? 0 : (uint32_t)(size / 16);
	return rc;
}

/* --- memory --- */

static int find_pages_of(struct tf_task *t, struct tf_ends *ends, struct tf_map *m)
{
	struct tf_capture *c = &t->capture;
	const struct tf_frozen *f = tf_capture_frozen_at(c, m->start);

	if (m->object)
		return tf_task_object_pages(t, m);
	if (f) {
		m->data_end = f->end;
		return tf_capture_add_run(c, m->start, m->data_end);
	}
	switch (m->kind) {
	case TF_MAP_VVAR:
		m->data_end = m->start;
		return 0;
	case TF_MAP_FILE:
		m->data_end = tf_capture_find_end(ends, t->mem, m);
		/* fall through */
	case TF_MAP_VDSO:
		return m->data_end > m->start ? tf_capture_add_run(c, m->start, m->data_end) : 0;
	default:
		/* The page tables do not tell of shared pages that others have touched. */
		if (m->flags & TF_MAP_SHARED)
			return tf_capture_add_run(c, m->start, m->end);
		return t->rounds ? tf_task_rounds_scan(t, m) : tf_task_scan(t, m);
	}
}

static int find_pages(struct tf_task *t)
{
	struct tf_capture *c = &t->capture;
	struct tf_ends ends = {.pid = t->pid};
	int rc = 0;

	tf_task_guess_whole(t);
	tf_capture_begin_runs(c);
	for (uint32_t i = 0; i < c->image.n_maps && !rc; i++) {
		struct tf_map *m = &c->image.maps[i];

		c->map_runs = c->n_runs;
		rc = find_pages_of(t, &ends, m);
	}
	return rc;
}

static int ask_standing(struct tf_task *t)
{
	const char *why;

	if (tf_task_can_ask(t, &why))
		return tf_task_ask(t, NULL);
	tf_task_unasked(t);
	return 0;
}

static int each_step(struct tf_task *t, int (*const step[])(struct tf_task *), size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int rc = step[i](t);

		if (rc)
			return tf_fail(&t->capture.err, rc,
				"out of memory while describing process %d", (int)t->pid);
	}
	return 0;
}

int tf_task_describe_threads(struct tf_task *t)
{
	static int (*const step[])(struct tf_task *) = {
		tf_task_threads, tf_task_pending, tf_task_attributes, describe_moment};

	return each_step(t, step, sizeof(step) / sizeof(*step));
}

int tf_task_describe_aside(struct tf_task *t)
{
	static int (*const step[])(struct tf_task *) = {tf_task_files, tf_task_scheduling};

	if (t->aside)
		return 0;
	t->aside = true;
	return each_step(t, step, sizeof(step) / sizeof(*step));
}

int tf_task_describe_rest(struct tf_task *t)
{
	static int (*const step[])(struct tf_task *) = {tf_task_process, describe_source,
		tf_task_objects, finish_maps, describe_vdso, describe_auxv, tf_task_cpu,
		tf_task_rights, tf_task_find_used, find_pages, tf_task_rounds_settle, tf_task_tags,
		tf_task_settle};

	return each_step(t, step, sizeof(step) / sizeof(*step));
}

int tf_task_describe(struct tf_task *t)
{
	static int (*const step[])(struct tf_task *) = {tf_task_describe_threads,
		tf_task_describe_aside, tf_task_describe_maps, ask_standing, tf_task_describe_rest};

	return each_step(t, step, sizeof(step) / sizeof(*step));
}

static int read_memory(struct tf_task *t, uint64_t at, void *to, size_t n)
{
	const struct tf_frozen *f = tf_capture_frozen_at(&t->capture, at);

	if (!f)
		return tf_task_read(t, at, to, n);
	memcpy(to, f->copy + (at - f->start), n);
	return 0;
}

/* Over there a private mapping of a file begins as that file's pages. And what goes first of a
 * post-copy is wanted before anybody brings what is missing. */
static bool zeros_travel(const struct tf_task *t, const struct tf_map *m)
{
	return m && ((m->kind == TF_MAP_FILE && !(m->flags & TF_MAP_SHARED)) ||
			    (t->post_copy && !t->all_first && tf_map_may_wait(m)));
}

/* Bytes of zeros that n bytes begin with, in whole pages. */
static uint64_t zeros(const uint8_t *buf, uint64_t n, uint64_t page)
{
	uint64_t at = 0;

	while (at < n && tf_all_zero(buf + at, page))
		at += page;
	return at;
}

/* Other pages of zeros stay holes, but for gaps so small that there would be more extents than the
 * sink has room for: it counts on full ones. */
static int save_pages(struct tf_task *t, uint64_t at, const uint8_t *buf, uint64_t n)
{
	struct tf_capture *c = &t->capture;
	bool all = zeros_travel(t, tf_image_map_at(&c->image, at));
	uint64_t page = c->image.source.page_size, i = all ? 0 : zeros(buf, n, page);
	int rc = 0;

	while (i < n && !rc) {
		uint64_t end = i, gap = 0;

		for (uint64_t next = i; next < n && gap < TF_EXTENT_SIZE; next = end + gap) {
			end = next + page;
			gap = all ? 0 : zeros(buf + end, n - end, page);
		}
		rc = tf_sink_data(&c->sink, tf_image_offset(&c->image, at + i), buf + i, end - i,
			NULL, &c->err);
		i = end + gap;
	}
	return rc;
}

void tf_task_drop_pages(struct tf_task *t, uint64_t at, uint64_t n)
{
	const struct tf_map *m = tf_image_map_at(&t->capture.image, at);

	if (t->shot.x.tid && m && !(m->flags & TF_MAP_SHARED) &&
		(m->kind == TF_MAP_ANON || m->kind == TF_MAP_HEAP))
		tf_task_shot_call(t, SYS_madvise, at, n, MADV_DONTNEED);
}

/* What has been read into the buffer goes. */
static int flush(struct tf_task *t)
{
	t->buffered = 0;
	return tf_sink_flush(&t->capture.sink, &t->capture.err);
}

int tf_task_save_run(struct tf_task *t, const struct tf_run *r)
{
	int rc = 0;

	for (uint64_t at = r->start, n; at < r->end && !rc; at += n) {
		uint64_t room = TF_EXTENT_MAX - t->buffered;

		n = r->end - at < room ? r->end - at : room;
		rc = read_memory(t, at, t->buffer + t->buffered, n);
		if (!rc)
			rc = save_pages(t, at, t->buffer + t->buffered, n);
		t->buffered += n;
		if (!rc && t->buffered == TF_EXTENT_MAX)
			rc = flush(t);
		if (!rc && n == TF_EXTENT_MAX)
			tf_task_drop_pages(t, at, n);
		t->gone += n;
		if (!rc && t->progress)
			t->progress(t->ctx, t->gone, t->capture.memory);
	}
	return rc;
}

/* What does not go with the image: it comes later, or was there before. */
static const struct tf_run *others(const struct tf_task *t, uint32_t *ret_n)
{
	const struct tf_image *img = &t->capture.image;

	*ret_n = t->rounds ? img->n_staged : img->n_later;
	return t->rounds ? img->staged : img->later;
}

/* All else of a run; *k: the first of the others that may lie in it. */
static int save_first(struct tf_task *t, const struct tf_run *r, uint32_t *k)
{
	uint32_t n;
	const struct tf_run *other = others(t, &n);
	struct tf_run part = *r;
	int rc = 0;

	while (*k < n && other[*k].start < r->end && !rc) {
		part.end = other[*k].start;
		rc = tf_task_save_run(t, &part);
		part.start = other[*k].end;
		++*k;
	}
	part.end = r->end;
	return rc ? rc : tf_task_save_run(t, &part);
}

int tf_task_save(struct tf_task *t, int fd)
{
	struct tf_capture *c = &t->capture;
	struct stat st;
	uint32_t other = 0;
	int rc = 0;

	c->file = !fstat(fd, &st) && S_ISREG(st.st_mode);
	tf_io_init(&c->io, fd, t->options);
	c->io.heed = c->io.socket && !t->post_copy; /* a post-copy's receiver may ask at once */
	if (t->post_copy)
		rc = tf_task_choose_later(t);
	if (!rc)
		rc = tf_capture_send_head(c, 0);
	c->sink.packer = c->file ? NULL : t->packer;
	t->buffer = tf_arena_alloc(&c->arena, TF_EXTENT_MAX);
	if (!rc && !t->buffer)
		rc = tf_fail(&c->err, TELEFORK_E_NOMEM, "out of memory for a buffer");
	for (uint64_t i = 0; i < c->n_runs && !rc; i++)
		rc = save_first(t, &c->runs[i], &other);
	return rc ? rc : flush(t);
}

int tf_task_commit(struct tf_task *t)
{
	struct tf_capture *c = &t->capture;

	return tf_sink_end(&c->sink, &c->image, &c->err);
}
