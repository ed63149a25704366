/* SPDX-License-Identifier: MIT */
/*
 * Capture from outside, see task.h. Everything that /proc and ptrace show is read from the stopped
 * process; task_ask.c asks it for the rest. Not for a forked child: uses the allocator and stdio.
 */
#include "core/capture/task_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/elf.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
#include "core/restore/vdso.h"

static void proc_path(const struct tf_task *t, const char *name, char path[static TF_TASK_PATH])
{
	snprintf(path, TF_TASK_PATH, "/proc/%d/%s", (int)t->pid, name);
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

/* The number behind a label of /proc/PID/status; 0 if there is none. */
static uint64_t status_number(const char *text, const char *label, int base)
{
	const char *p = strstr(text, label);

	return p ? strtoull(p + strlen(label), NULL, base) : 0;
}

static int describe_source(struct tf_task *t)
{
	struct tf_capture *c = &t->capture;
	struct tf_source *s = &c->image.source;
	struct rlimit stack = {0};
	struct utsname uts;
	char *stat, *status;
	size_t size;
	int rc = tf_task_read_text(t, "stat", &stat, &size);

	if (!rc)
		rc = tf_task_read_text(t, "status", &status, &size);
	if (rc)
		return rc;
	uname(&uts);
	prlimit(t->pid, RLIMIT_STACK, NULL, &stack);
	*s = (struct tf_source){
		.machine = tf_arch_native()->machine,
		.flags = TF_SOURCE_OUTSIDE | (t->was_stopped ? TF_SOURCE_STOPPED : 0),
		.origin = TF_ORIGIN_TASK,
		.page_size = (uint32_t)sysconf(_SC_PAGESIZE),
		.pid = t->pid,
		.realtime_ns = tf_clock_ns(CLOCK_REALTIME),
		.monotonic_ns = tf_clock_ns(CLOCK_MONOTONIC),
		.boottime_ns = tf_clock_ns(CLOCK_BOOTTIME),
		.stack_limit = stack.rlim_cur,
		.channel_fd = -1,
		.umask = (uint32_t)status_number(status, "\nUmask:", 8),
		.release = tf_arena_strn(&c->arena, uts.release, sizeof(uts.release)),
		.exe = link_text(t, "exe"),
		.cwd = link_text(t, "cwd"),
		.version = TELEFORK_VERSION,
	};
	tf_capture_parse_stat(stat, &c->image.mm, &s->ppid);
	return s->release && s->exe && s->cwd ? 0 : TELEFORK_E_NOMEM;
}

static int describe_maps(struct tf_task *t)
{
	struct tf_capture *c = &t->capture;
	char path[TF_TASK_PATH];
	int rc;

	proc_path(t, "smaps", path);
	rc = tf_maps_read(&c->arena, path, &c->image.maps, &c->image.n_maps, &c->err);
	if (!rc)
		tf_task_drop_leftovers(t);
	for (uint32_t i = 0; !rc && i < c->image.n_maps; i++) {
		struct tf_map *m = &c->image.maps[i];

		m->vmflags &= ~TF_VMF_MAYWRITE;
		c->image.source.max_map_end = m->end;
		/* The break itself is only known to the process: the heap's end is near. */
		if (m->kind == TF_MAP_HEAP)
			c->image.mm.brk = m->end;
	}
	return rc;
}

int tf_task_read(struct tf_task *t, uint64_t addr, void *to, size_t n)
{
	if (pread(t->mem, to, n, (off_t)addr) != (ssize_t)n)
		return tf_fail_errno(&t->capture.err, TELEFORK_E_SYSTEM, errno,
			"memory of process %d at %llx", (int)t->pid, (unsigned long long)addr);
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

/* --- descriptors --- */

static int compare_fds(const void *a, const void *b)
{
	const struct tf_fd *x = a, *y = b;

	return x->fd < y->fd ? -1 : x->fd > y->fd;
}

static int describe_fd(struct tf_task *t, struct tf_fd *f, int number)
{
	char name[40];
	char *info;
	size_t size;
	struct stat st = {0};
	int rc;

	snprintf(name, sizeof(name), "fdinfo/%d", number);
	rc = tf_task_read_text(t, name, &info, &size);
	if (rc)
		return rc;
	snprintf(name, sizeof(name), "fd/%d", number);
	*f = (struct tf_fd){
		.fd = number,
		.flags = (uint32_t)status_number(info, "flags:", 8),
		.offset = status_number(info, "pos:", 10),
		.path = link_text(t, name),
	};
	if (f->path) {
		char path[TF_TASK_PATH];

		proc_path(t, name, path);
		stat(path, &st);
		f->kind = tf_capture_fd_kind(&st, f->path);
	}
	return f->path ? 0 : TELEFORK_E_NOMEM;
}

static unsigned count_entries(DIR *dir)
{
	unsigned n = 0;

	while (readdir(dir))
		n++;
	rewinddir(dir);
	return n;
}

static int describe_fds(struct tf_task *t)
{
	struct tf_image *img = &t->capture.image;
	char path[TF_TASK_PATH];
	struct dirent *entry;
	unsigned n;
	DIR *dir;
	int rc = 0;

	proc_path(t, "fd", path);
	dir = opendir(path);
	if (!dir)
		return tf_fail_errno(&t->capture.err, TELEFORK_E_SYSTEM, errno, "%s", path);
	n = count_entries(dir);
	img->fds = tf_arena_array(&t->capture.arena, n, sizeof(*img->fds));
	while (img->fds && !rc && (entry = readdir(dir)))
		if (entry->d_name[0] != '.' && img->n_fds < n)
			rc = describe_fd(t, &img->fds[img->n_fds++], atoi(entry->d_name));
	closedir(dir);
	if (!img->fds)
		return TELEFORK_E_NOMEM;
	qsort(img->fds, img->n_fds, sizeof(*img->fds), compare_fds);
	return rc;
}

/* --- memory --- */

static int find_pages_of(struct tf_task *t, struct tf_map *m)
{
	struct tf_capture *c = &t->capture;

	switch (m->kind) {
	case TF_MAP_VVAR:
		m->data_end = m->start;
		return 0;
	case TF_MAP_FILE:
		m->data_end = tf_capture_find_end(t->mem, m);
		/* fall through */
	case TF_MAP_VDSO:
		return m->data_end > m->start ? tf_capture_add_run(c, m->start, m->data_end) : 0;
	default:
		/* The page tables do not tell of shared pages that others have touched. */
		if (m->flags & TF_MAP_SHARED)
			return tf_capture_add_run(c, m->start, m->end);
		return tf_capture_scan(c, t->pagemap, m->start, m->end);
	}
}

static int find_pages(struct tf_task *t)
{
	struct tf_capture *c = &t->capture;
	int rc = 0;

	tf_capture_begin_runs(c);
	for (uint32_t i = 0; i < c->image.n_maps && !rc; i++) {
		c->map_runs = c->n_runs;
		rc = find_pages_of(t, &c->image.maps[i]);
	}
	return rc;
}

int tf_task_describe(struct tf_task *t)
{
	static int (*const step[])(struct tf_task *) = {tf_task_threads, tf_task_pending,
		describe_source, describe_maps, describe_vdso, describe_auxv, describe_fds,
		find_pages, tf_task_ask, tf_task_settle};

	for (size_t i = 0; i < sizeof(step) / sizeof(*step); i++) {
		int rc = step[i](t);

		if (rc)
			return tf_fail(&t->capture.err, rc,
				"out of memory while describing process %d", (int)t->pid);
	}
	return 0;
}

static bool all_zero(const uint8_t *p, size_t n)
{
	return !*p && !memcmp(p, p + 1, n - 1);
}

/* Pages of zeros stay holes. */
static int save_run(struct tf_task *t, const struct tf_run *r, uint8_t *buf, uint64_t *gone)
{
	struct tf_capture *c = &t->capture;
	uint64_t page = c->image.source.page_size;
	int rc = 0;

	for (uint64_t at = r->start; at < r->end && !rc; at += TF_EXTENT_MAX) {
		uint64_t n = r->end - at < TF_EXTENT_MAX ? r->end - at : TF_EXTENT_MAX;

		rc = tf_task_read(t, at, buf, n);
		for (uint64_t i = 0; i < n && !rc;) {
			uint64_t end = i;

			while (end < n && !all_zero(buf + end, page))
				end += page;
			if (end > i)
				rc = tf_sink_data(&c->sink, tf_image_offset(&c->image, at + i),
					buf + i, end - i, NULL, &c->err);
			i = end > i ? end : i + page;
		}
		if (!rc)
			rc = tf_sink_flush(&c->sink, &c->err);
		*gone += n;
		if (!rc && t->progress)
			t->progress(t->ctx, *gone, c->memory);
	}
	return rc;
}

int tf_task_save(struct tf_task *t, int fd)
{
	struct tf_capture *c = &t->capture;
	struct stat st;
	uint64_t gone = 0;
	uint8_t *buf;
	int rc;

	c->file = !fstat(fd, &st) && S_ISREG(st.st_mode);
	tf_io_init(&c->io, fd, NULL);
	c->io.heed = c->io.socket;
	rc = tf_capture_send_head(c, 0);
	buf = tf_arena_alloc(&c->arena, TF_EXTENT_MAX);
	if (!rc && !buf)
		rc = tf_fail(&c->err, TELEFORK_E_NOMEM, "out of memory for a buffer");
	for (uint64_t i = 0; i < c->n_runs && !rc; i++)
		rc = save_run(t, &c->runs[i], buf, &gone);
	return rc;
}

int tf_task_commit(struct tf_task *t)
{
	struct tf_capture *c = &t->capture;

	return tf_sink_end(&c->sink, &c->image, &c->err);
}
