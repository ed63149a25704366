/* SPDX-License-Identifier: MIT */
/* Obstacles, see task_check.h: all of /proc, nothing of ptrace. A look that /proc does not grant
 * finds nothing; that it may not be looked at at all is an obstacle of its own. */
#include "core/capture/task_check.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arch/arch.h"
#include "core/base/cleanup.h"
#include "core/base/maps.h"
#include "core/capture/capture.h"
#include "core/restore/build.h"

const struct tf_obstacle_info tf_obstacle_info[TF_OBSTACLE_KINDS] = {
#define X(name, text, waive, says, way_out) [TF_OBSTACLE_##name] = {text, waive, says, way_out},
	TF_OBSTACLES(X)
#undef X
};

struct check {
	pid_t pid;
	struct tf_arena arena;
	tf_obstacle_fn *found;
	void *ctx;
	int n;
};

static void __attribute__((format(printf, 3, 4)))
add(struct check *c, enum tf_obstacle_kind kind, const char *fmt, ...)
{
	struct tf_obstacle o = {.kind = kind};
	char which[TF_MAX_STR + 64];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(which, sizeof(which), fmt, ap);
	va_end(ap);
	o.which = which;
	c->found(c->ctx, &o);
	c->n++;
}

/* The text of /proc/PID/name; "" if it is not to be had. */
static const char *text_of(struct check *c, const char *name)
{
	char path[96], *text;
	size_t size;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)c->pid, name);
	return tf_proc_read(&c->arena, path, &text, &size, NULL) ? "" : text;
}

static long number_in(const char *text, const char *label)
{
	const char *p = strstr(text, label);

	return p ? strtol(p + strlen(label), NULL, 10) : 0;
}

/* --- the process --- */

static void check_machine(struct check *c)
{
	unsigned char ident[20] = {0};
	char path[64];
	TF_CLOSE int fd = -1, mem = -1;

	snprintf(path, sizeof(path), "/proc/%d/mem", (int)c->pid);
	mem = open(path, O_RDONLY | O_CLOEXEC); /* asks for what ptrace asks for */
	snprintf(path, sizeof(path), "/proc/%d/exe", (int)c->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (mem < 0 || fd < 0)
		add(c, TF_OBSTACLE_ACCESS, "process %d: %s", (int)c->pid, strerror(errno));
	else if (read(fd, ident, sizeof(ident)) != sizeof(ident) || ident[EI_CLASS] != ELFCLASS64 ||
		 (uint32_t)(ident[18] | ident[19] << 8) != tf_arch_native()->machine)
		add(c, TF_OBSTACLE_MACHINE, "process %d", (int)c->pid);
}

static void check_status(struct check *c)
{
	const char *status = text_of(c, "status"), *state = strstr(status, "\nState:\t");
	const char *shadow = strstr(status, "shstk"); /* in use, or locked */
	long tracer = number_in(status, "\nTracerPid:");

	if (state && (state[8] == 'Z' || state[8] == 'X'))
		add(c, TF_OBSTACLE_ENDED, "process %d", (int)c->pid);
	if (tracer)
		add(c, TF_OBSTACLE_TRACER, "process %ld", tracer);
	if (number_in(status, "\nSeccomp:"))
		add(c, TF_OBSTACLE_SECCOMP, "process %d", (int)c->pid);
	if (shadow)
		add(c, TF_OBSTACLE_SHADOW_STACK, "process %d", (int)c->pid);
}

static void check_children(struct check *c)
{
	char path[64];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)c->pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		const char *p;
		char *end;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "task/%.16s/children", entry->d_name);
		for (p = text_of(c, path); strtol(p, &end, 10) > 0; p = end)
			add(c, TF_OBSTACLE_CHILD, "process %ld", strtol(p, NULL, 10));
	}
	if (dir)
		closedir(dir);
}

static void check_namespaces(struct check *c)
{
	static const char *const names[] = {"pid", "mnt", "net", "user", "ipc", "uts", "time"};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		char path[64];
		struct stat its, ours;

		snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)c->pid, names[i]);
		if (stat(path, &its))
			continue;
		snprintf(path, sizeof(path), "/proc/self/ns/%s", names[i]);
		if (!stat(path, &ours) && its.st_ino != ours.st_ino)
			add(c, TF_OBSTACLE_NAMESPACE, "%s namespace", names[i]);
	}
}

static void check_timers(struct check *c)
{
	for (const char *p = text_of(c, "timers"); (p = strstr(p, "ID: ")); p += 4)
		add(c, TF_OBSTACLE_TIMER, "timer %ld", strtol(p + 4, NULL, 10));
}

/* --- descriptors --- */

static const struct {
	const char *path; /* how the link begins */
	enum tf_obstacle_kind kind;
} anons[] = {
	{"anon_inode:[eventpoll]", TF_OBSTACLE_EPOLL},
	{"anon_inode:[eventfd]", TF_OBSTACLE_EVENTFD},
	{"anon_inode:[timerfd]", TF_OBSTACLE_TIMERFD},
	{"anon_inode:[signalfd]", TF_OBSTACLE_SIGNALFD},
	{"anon_inode:inotify", TF_OBSTACLE_INOTIFY},
	{"anon_inode:[fanotify]", TF_OBSTACLE_INOTIFY},
	{"anon_inode:[io_uring]", TF_OBSTACLE_IO_URING},
	{"anon_inode:[perf_event]", TF_OBSTACLE_PERF},
	{"anon_inode:bpf", TF_OBSTACLE_BPF},
	{"anon_inode:[userfaultfd]", TF_OBSTACLE_USERFAULTFD},
	{"/memfd:", TF_OBSTACLE_MEMFD},
};

static enum tf_obstacle_kind kind_of(const struct stat *st, const char *path)
{
	for (size_t i = 0; i < sizeof(anons) / sizeof(*anons); i++)
		if (!strncmp(path, anons[i].path, strlen(anons[i].path)))
			return anons[i].kind;
	switch (tf_capture_fd_kind(st, path)) {
	case TF_FD_FILE:
		return TF_OBSTACLE_DELETED;
	case TF_FD_DIR:
		return TF_OBSTACLE_DIR;
	case TF_FD_PIPE:
		return TF_OBSTACLE_PIPE;
	case TF_FD_SOCKET:
		return TF_OBSTACLE_SOCKET;
	case TF_FD_TTY:
		return TF_OBSTACLE_TTY;
	case TF_FD_CHAR:
		return TF_OBSTACLE_DEVICE;
	default:
		return TF_OBSTACLE_OTHER;
	}
}

/* What the receiver opens again by its name. */
static bool travels(const struct stat *st, int fd, const char *path)
{
	const struct tf_image img = {.source.origin = TF_ORIGIN_TASK};
	struct tf_fd f = {.fd = fd, .kind = tf_capture_fd_kind(st, path), .path = path};
	size_t n = strlen(path);

	return tf_restore_opens(&img, &f) && strncmp(path, "/memfd:", 7) != 0 &&
	       (n < 10 || strcmp(path + n - 10, " (deleted)") != 0);
}

/* Standard streams become the receiver's, whatever they are here, unless the kernel writes through
 * them to memory. */
static void check_fd(struct check *c, int fd)
{
	char path[64], target[TF_MAX_STR];
	enum tf_obstacle_kind kind;
	struct stat st = {0};
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)c->pid, fd);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return; /* closed meanwhile */
	target[n] = '\0';
	stat(path, &st);
	kind = kind_of(&st, target);
	if ((fd > STDERR_FILENO && !travels(&st, fd, target)) || !tf_obstacle_info[kind].waivable)
		add(c, kind, "descriptor %d (%s)", fd, target);
	snprintf(path, sizeof(path), "fdinfo/%d", fd);
	if (strstr(text_of(c, path), "\nlock:"))
		add(c, TF_OBSTACLE_LOCK, "descriptor %d (%s)", fd, target);
}

static void check_fds(struct check *c)
{
	char path[64];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)c->pid);
	dir = opendir(path);
	if (!dir)
		add(c, TF_OBSTACLE_ACCESS, "descriptors of process %d: %s", (int)c->pid,
			strerror(errno));
	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			check_fd(c, atoi(entry->d_name));
	if (dir)
		closedir(dir);
}

/* --- memory --- */

static const struct {
	const char *flag; /* of VmFlags, smaps(5) */
	enum tf_obstacle_kind kind;
} flags[] = {
	{" io ", TF_OBSTACLE_DEVICE_MEMORY},
	{" pf ", TF_OBSTACLE_DEVICE_MEMORY},
	{" ht ", TF_OBSTACLE_HUGETLB},
	{" mt ", TF_OBSTACLE_TAGS},
	{" sl ", TF_OBSTACLE_SEALED},
	{" ss ", TF_OBSTACLE_SHADOW_STACK},
	{" um ", TF_OBSTACLE_USERFAULTFD},
	{" uw ", TF_OBSTACLE_USERFAULTFD},
	{" ui ", TF_OBSTACLE_USERFAULTFD},
};

/* The VmFlags line that belongs to the mapping whose line begins at at. */
static void flags_of(const char *at, char buf[static 256])
{
	const char *p = strstr(at, "\nVmFlags:");
	size_t n = p ? strcspn(p + 9, "\n") : 0;

	n = n < 254 ? n : 254;
	memcpy(buf, p ? p + 9 : "", n);
	buf[n] = ' ';
	buf[n + 1] = '\0';
}

static void check_map(struct check *c, const struct tf_map *m, const char *vmflags)
{
	unsigned long long start = m->start, end = m->end;
	bool shared = m->flags & TF_MAP_SHARED;

	if (m->kind == TF_MAP_VDSO || m->kind == TF_MAP_VVAR)
		return;
	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++)
		if (strstr(vmflags, flags[i].flag)) {
			add(c, flags[i].kind, "mapping %llx-%llx (%s)", start, end, m->path);
			return;
		}
	/* Shared anonymous memory is nobody else's where there is no child. */
	if (!shared || m->kind == TF_MAP_ANON ||
		!(m->prot & PROT_WRITE || m->vmflags & TF_VMF_MAYWRITE))
		return;
	if (m->kind == TF_MAP_FILE && m->path[0] == '/' && strncmp(m->path, "/memfd:", 7) &&
		strncmp(m->path, "/dev/shm/", 9) && strncmp(m->path, "/SYSV", 5))
		add(c, TF_OBSTACLE_SHARED_FILE, "mapping %llx-%llx (%s)", start, end, m->path);
	else
		add(c, TF_OBSTACLE_SHARED_MEMORY, "mapping %llx-%llx (%s)", start, end, m->path);
}

static int check_maps(struct check *c, struct tf_err *e)
{
	const char *text = text_of(c, "smaps");
	struct tf_map *maps;
	uint32_t n;
	int rc = tf_maps_parse(&c->arena, text, strlen(text), &maps, &n, e);

	for (uint32_t i = 0; i < n && !rc; i++) {
		char line[40], vmflags[256];
		const char *at;

		snprintf(line, sizeof(line), "%08llx-%08llx ", (unsigned long long)maps[i].start,
			(unsigned long long)maps[i].end);
		at = strstr(text, line);
		if (!at)
			continue;
		text = at;
		flags_of(at, vmflags);
		check_map(c, &maps[i], vmflags);
	}
	return rc;
}

int tf_task_check(pid_t pid, tf_obstacle_fn *found, void *ctx, struct tf_err *e)
{
	struct check c = {.pid = pid, .found = found, .ctx = ctx};
	char path[64];
	int rc;

	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	if (access(path, F_OK))
		return tf_fail(e, TELEFORK_E_SYSTEM, "there is no process %d", (int)pid);
	if (tf_arena_init(&c.arena, TF_ARENA_DEFAULT))
		return tf_fail(e, TELEFORK_E_NOMEM, "no address space for a check");
	check_machine(&c);
	check_status(&c);
	check_children(&c);
	check_namespaces(&c);
	check_timers(&c);
	check_fds(&c);
	rc = check_maps(&c, e);
	tf_arena_done(&c.arena);
	return rc ? rc : c.n;
}

enum tf_obstacle_kind tf_obstacle_by_name(const char *name)
{
	unsigned i = 0;

	while (i < TF_OBSTACLE_KINDS && strcmp(tf_obstacle_info[i].name, name) != 0)
		i++;
	return (enum tf_obstacle_kind)i;
}
