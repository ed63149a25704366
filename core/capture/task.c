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

#define STOP_MS 2000 /* a process in vfork or in uninterruptible sleep does not stop */

static void proc_path(const struct tf_task *t, const char *name, char path[static TF_TASK_PATH])
{
	snprintf(path, TF_TASK_PATH, "/proc/%d/%s", (int)t->pid, name);
}

/* --- stop and release --- */

static int open_files(struct tf_task *t)
{
	char path[TF_TASK_PATH];

	proc_path(t, "mem", path);
	t->mem = open(path, O_RDWR | O_CLOEXEC);
	proc_path(t, "pagemap", path);
	t->pagemap = open(path, O_RDONLY | O_CLOEXEC);
	if (t->mem < 0 || t->pagemap < 0)
		return tf_fail_errno(
			&t->capture.err, TELEFORK_E_SYSTEM, errno, "/proc/%d/mem", (int)t->pid);
	return 0;
}

static int check_threads(struct tf_task *t)
{
	char path[TF_TASK_PATH];
	struct stat st;

	proc_path(t, "task", path);
	if (stat(path, &st))
		return tf_fail_errno(
			&t->capture.err, TELEFORK_E_SYSTEM, errno, "process %d", (int)t->pid);
	if (st.st_nlink > 3) /* . and .. are links as well, proc(5) */
		return tf_fail(&t->capture.err, TELEFORK_E_UNSUPPORTED,
			"process %d has %d threads: this version looks at processes with one",
			(int)t->pid, (int)st.st_nlink - 2);
	return 0;
}

static int check_machine(struct tf_task *t)
{
	char path[TF_TASK_PATH];
	unsigned char ident[20] = {0};
	TF_CLOSE int fd = -1;

	proc_path(t, "exe", path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, ident, sizeof(ident)) != sizeof(ident))
		return tf_fail_errno(&t->capture.err, TELEFORK_E_SYSTEM, errno, "%s", path);
	if (ident[EI_CLASS] != ELFCLASS64 ||
		(uint32_t)(ident[18] | ident[19] << 8) != tf_arch_native()->machine)
		return tf_fail(&t->capture.err, TELEFORK_E_UNSUPPORTED,
			"process %d is not a 64-bit %s program", (int)t->pid,
			tf_arch_native()->name);
	return 0;
}

/* Waits for the stop. Signals that are on their way are not ours: the thread stops for them first,
 * and gets them. */
static int wait_stop(struct tf_task *t)
{
	for (int ms = 0; ms < STOP_MS;) {
		struct timespec step = {.tv_nsec = 1000000};
		int status;
		pid_t got = waitpid(t->pid, &status, __WALL | WNOHANG);

		if (got < 0)
			return tf_fail_errno(&t->capture.err, TELEFORK_E_SYSTEM, errno,
				"process %d", (int)t->pid);
		if (!got) {
			nanosleep(&step, NULL);
			ms++;
			continue;
		}
		if (!WIFSTOPPED(status))
			return tf_fail(&t->capture.err, TELEFORK_E_SYSTEM, "process %d has ended",
				(int)t->pid);
		t->stopped = true;
		if (status >> 16 == PTRACE_EVENT_STOP)
			return 0;
		ptrace(PTRACE_CONT, t->pid, NULL, (void *)(uintptr_t)WSTOPSIG(status));
		t->stopped = false;
	}
	return tf_fail(&t->capture.err, TELEFORK_E_SYSTEM, "process %d does not stop", (int)t->pid);
}

int tf_task_stop(struct tf_task *t, pid_t pid)
{
	struct tf_err *e;
	int rc;

	*t = (struct tf_task){.pid = pid, .mem = -1, .pagemap = -1};
	e = &t->capture.err;
	if (tf_host_emulated())
		return tf_fail(e, TELEFORK_E_UNSUPPORTED,
			"QEMU user mode has no ptrace: a process cannot be looked at from outside "
			"here; let it save itself twice and compare the images");
	rc = check_threads(t);
	if (!rc)
		rc = check_machine(t);
	if (!rc && tf_arena_init(&t->capture.arena, TF_ARENA_DEFAULT))
		rc = tf_fail(e, TELEFORK_E_NOMEM, "no address space for an image");
	if (rc)
		return rc;
	if (ptrace(PTRACE_SEIZE, pid, NULL, NULL)) {
		rc = tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "ptrace of process %d", (int)pid);
		tf_task_release(t);
		return rc;
	}
	t->seized = true;
	if (ptrace(PTRACE_INTERRUPT, pid, NULL, NULL))
		rc = tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "process %d", (int)pid);
	if (!rc)
		rc = wait_stop(t);
	if (!rc)
		rc = check_threads(t); /* it may have made one meanwhile */
	if (!rc)
		rc = open_files(t);
	if (rc)
		tf_task_release(t);
	return rc;
}

void tf_task_release(struct tf_task *t)
{
	/* Only a stopped thread can be let go; one that never stopped is let go by our end. */
	if (t->seized && t->stopped)
		ptrace(PTRACE_DETACH, t->pid, NULL, NULL);
	t->seized = t->stopped = false;
	if (t->mem >= 0)
		close(t->mem);
	if (t->pagemap >= 0)
		close(t->pagemap);
	t->mem = t->pagemap = -1;
	tf_arena_done(&t->capture.arena);
}

/* --- what /proc and ptrace show --- */

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static const char *link_text(struct tf_task *t, const char *name)
{
	char path[TF_TASK_PATH], buf[TF_MAX_STR];
	ssize_t n;

	proc_path(t, name, path);
	n = readlink(path, buf, sizeof(buf) - 1);
	return tf_arena_strn(&t->capture.arena, buf, n > 0 ? (size_t)n : 0);
}

static int read_text(struct tf_task *t, const char *name, char **ret_text, size_t *ret_size)
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
	int rc = read_text(t, "stat", &stat, &size);

	if (!rc)
		rc = read_text(t, "status", &status, &size);
	if (rc)
		return rc;
	uname(&uts);
	prlimit(t->pid, RLIMIT_STACK, NULL, &stack);
	*s = (struct tf_source){
		.machine = tf_arch_native()->machine,
		.flags = TF_SOURCE_OUTSIDE,
		.origin = TF_ORIGIN_TASK,
		.page_size = (uint32_t)sysconf(_SC_PAGESIZE),
		.pid = t->pid,
		.realtime_ns = clock_ns(CLOCK_REALTIME),
		.monotonic_ns = clock_ns(CLOCK_MONOTONIC),
		.boottime_ns = clock_ns(CLOCK_BOOTTIME),
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
	int rc = read_text(t, "auxv", &text, &size);

	t->capture.image.auxv = (uint64_t *)(void *)text;
	t->capture.image.n_auxv = rc ? 0 : (uint32_t)(size / 16);
	return rc;
}

static void read_rseq(struct tf_task *t, struct tf_thread *thread)
{
	struct __ptrace_rseq_configuration rseq = {0};

	/* Linux 5.13 */
	if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, t->pid, (void *)sizeof(rseq), &rseq) > 0)
		thread->rseq =
			(struct tf_rseq){rseq.rseq_abi_pointer, rseq.rseq_abi_size, rseq.signature};
}

static int describe_thread(struct tf_task *t)
{
	struct tf_capture *c = &t->capture;
	struct tf_thread *thread = tf_arena_alloc(&c->arena, sizeof(*thread));
	void *head = NULL;
	size_t len = 0, size;
	char *comm;
	int rc = read_text(t, "comm", &comm, &size);

	if (!thread || rc)
		return rc ? rc : TELEFORK_E_NOMEM;
	c->image.threads = thread;
	c->image.n_threads = 1;
	thread->tid = t->pid;
	memcpy(thread->comm, comm, size < 16 ? size : 15);
	thread->comm[strcspn(thread->comm, "\n")] = '\0';
	if (ptrace(PTRACE_GETSIGMASK, t->pid, (void *)sizeof(thread->sigmask), &thread->sigmask))
		return tf_fail_errno(&c->err, TELEFORK_E_SYSTEM, errno, "signal mask of process %d",
			(int)t->pid);
	if (!syscall(SYS_get_robust_list, t->pid, &head, &len)) {
		thread->robust_head = (uint64_t)head;
		thread->robust_len = len;
	}
	read_rseq(t, thread);
	tf_arch_cpu(&c->image.cpu, true);
	return tf_arch_regs_from_task(t->pid, &c->image.cpu, &c->arena, &thread->regs, &c->err);
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
	rc = read_text(t, name, &info, &size);
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
	static int (*const step[])(struct tf_task *) = {describe_thread, describe_source,
		describe_maps, describe_vdso, describe_auxv, describe_fds, find_pages, tf_task_ask};

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
static int save_run(struct tf_task *t, const struct tf_run *r, uint8_t *buf)
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
	}
	return rc;
}

int tf_task_save(struct tf_task *t, int fd)
{
	struct tf_capture *c = &t->capture;
	uint8_t *buf;
	int rc;

	c->file = true;
	tf_io_init(&c->io, fd, NULL);
	rc = tf_capture_send_head(c, 0);
	buf = tf_arena_alloc(&c->arena, TF_EXTENT_MAX);
	if (!rc && !buf)
		rc = tf_fail(&c->err, TELEFORK_E_NOMEM, "out of memory for a buffer");
	for (uint64_t i = 0; i < c->n_runs && !rc; i++)
		rc = save_run(t, &c->runs[i], buf);
	return rc ? rc : tf_sink_end(&c->sink, &c->image, &c->err);
}
