/* SPDX-License-Identifier: MIT */
/* Obstacles, see task_check.h: all of /proc, nothing of ptrace. A look that /proc does not grant
 * finds nothing; that it may not be looked at at all is an obstacle of its own. */
#include "core/capture/check_impl.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arch/arch.h"
#include "core/base/cleanup.h"
#include "core/base/maps.h"
#include "core/capture/task.h"

const struct tf_obstacle_info tf_obstacle_info[TF_OBSTACLE_KINDS] = {
#define X(name, text, waive, says, way_out) [TF_OBSTACLE_##name] = {text, waive, says, way_out},
	TF_OBSTACLES(X)
#undef X
};

void tf_check_add(struct tf_check *c, enum tf_obstacle_kind kind, const char *fmt, ...)
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

const char *tf_check_text(struct tf_check *c, const char *name)
{
	char path[96], *text;
	size_t size;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)c->pid, name);
	return tf_proc_read(&c->arena, path, &text, &size, NULL) ? "" : text;
}

long tf_check_number(const char *text, const char *label)
{
	const char *p = strstr(text, label);

	return p ? strtol(p + strlen(label), NULL, 10) : 0;
}

/* --- the process --- */

/* What ended can be asked nothing else: neither a zombie, nor one whose main thread is. */
static bool has_ended(struct tf_check *c)
{
	const char *status = tf_check_text(c, "status");
	const char *state = strstr(status, "\nState:\t");

	if (state && state[8] != 'Z' && state[8] != 'X')
		return false;
	tf_check_add(c, TF_OBSTACLE_ENDED, "%s %d",
		tf_check_number(status, "\nThreads:") > 1 ? "main thread" : "process", (int)c->pid);
	return true;
}

/* False: it ended in this very moment. */
static bool check_machine(struct tf_check *c)
{
	unsigned char ident[20] = {0};
	char path[64];
	TF_CLOSE int fd = -1, mem = -1;

	snprintf(path, sizeof(path), "/proc/%d/mem", (int)c->pid);
	mem = open(path, O_RDONLY | O_CLOEXEC); /* asks for what ptrace asks for */
	snprintf(path, sizeof(path), "/proc/%d/exe", (int)c->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (mem < 0 || fd < 0) {
		int err = errno;

		if (has_ended(c))
			return false;
		tf_check_add(c, TF_OBSTACLE_ACCESS, "process %d: %s", (int)c->pid, strerror(err));
	} else if (read(fd, ident, sizeof(ident)) != sizeof(ident) ||
		   ident[EI_CLASS] != ELFCLASS64 ||
		   (uint32_t)(ident[18] | ident[19] << 8) != tf_arch_native()->machine) {
		tf_check_add(c, TF_OBSTACLE_MACHINE, "process %d", (int)c->pid);
	}
	return true;
}

/* ptrace(2), PTRACE_SECCOMP_GET_FILTER: for CAP_SYS_ADMIN, and who has no filter himself. */
static bool reads_filters(struct tf_check *c)
{
	const char *caps;
	char *text;
	size_t size;

	if (tf_proc_read(&c->arena, "/proc/self/status", &text, &size, NULL))
		return false;
	caps = strstr(text, "\nCapEff:");
	return caps && strtoull(caps + 8, NULL, 16) >> CAP_SYS_ADMIN & 1 &&
	       !tf_check_number(text, "\nSeccomp:");
}

static void check_status(struct tf_check *c)
{
	const char *status = tf_check_text(c, "status");
	const char *shadow = strstr(status, "shstk"); /* in use, or locked */
	long tracer = tf_check_number(status, "\nTracerPid:");
	long seccomp = tf_check_number(status, "\nSeccomp:");

	if (tracer)
		tf_check_add(c, TF_OBSTACLE_TRACER, "process %ld", tracer);
	if (seccomp == SECCOMP_MODE_STRICT || (seccomp && !reads_filters(c)))
		tf_check_add(c, TF_OBSTACLE_SECCOMP, "process %d", (int)c->pid);
	if (shadow)
		tf_check_add(c, TF_OBSTACLE_SHADOW_STACK, "process %d", (int)c->pid);
}

static void check_timers(struct tf_check *c)
{
	for (const char *p = tf_check_text(c, "timers"); (p = strstr(p, "ID: ")); p += 4) {
		const char *clock = strstr(p, "\nClockID:");

		if (clock && !tf_task_timer_travels((int)strtol(clock + 9, NULL, 10)))
			tf_check_add(c, TF_OBSTACLE_TIMER, "timer %ld", strtol(p + 4, NULL, 10));
	}
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

static void check_map(struct tf_check *c, const struct tf_map *m, const char *vmflags)
{
	unsigned long long start = m->start, end = m->end;
	bool shared = m->flags & TF_MAP_SHARED;

	if (m->kind == TF_MAP_VDSO || m->kind == TF_MAP_VVAR)
		return;
	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
		/* Without a file no others can have them. */
		if (flags[i].kind == TF_OBSTACLE_HUGETLB && m->kind == TF_MAP_ANON)
			continue;
		if (flags[i].kind == TF_OBSTACLE_TAGS && tf_map_may_have_tags(m))
			continue;
		if (strstr(vmflags, flags[i].flag)) {
			tf_check_add(
				c, flags[i].kind, "mapping %llx-%llx (%s)", start, end, m->path);
			return;
		}
	}
	if (!strncmp(m->path, "/[aio]", 6)) {
		tf_check_add(c, TF_OBSTACLE_AIO, "mapping %llx-%llx", start, end);
		return;
	}
	/* Shared memory without a file is nobody else's where there is no child. A file with a name
	 * has to be there, which the receiver sees to. */
	if (tf_map_has_object(m) &&
		(m->flags & TF_MAP_DELETED || !strncmp(m->path, "/dev/shm/", 9)))
		tf_check_shared(c, m->dev, m->ino, m->path);
	else if (shared && m->kind == TF_MAP_FILE && !tf_map_has_object(m))
		tf_check_add(c, TF_OBSTACLE_DEVICE_MEMORY, "mapping %llx-%llx (%s)", start, end,
			m->path);
}

void tf_check_shared(struct tf_check *c, uint64_t dev, uint64_t ino, const char *name)
{
	for (uint32_t i = 0; i < c->n_shared; i++)
		if (c->shared[i].dev == dev && c->shared[i].ino == ino)
			return;
	if (c->shared && c->n_shared < TF_CHECK_SHARED)
		c->shared[c->n_shared++] = (struct tf_shared){
			dev, ino, tf_arena_strn(&c->arena, name, strlen(name)), 0};
}

static void check_shared(struct tf_check *c)
{
	tf_task_others(c->pid, c->shared, c->n_shared, &c->arena);
	for (uint32_t i = 0; i < c->n_shared; i++)
		if (c->shared[i].user)
			tf_check_add(c, TF_OBSTACLE_SHARED_MEMORY, "%s, by process %d",
				c->shared[i].name, (int)c->shared[i].user);
}

static int check_maps(struct tf_check *c, struct tf_err *e)
{
	const char *text = tf_check_text(c, "smaps");
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

static int check_all(struct tf_check *c, struct tf_err *e)
{
	int rc;

	c->shared = tf_arena_array(&c->arena, TF_CHECK_SHARED, sizeof(*c->shared));
	if (has_ended(c) || !check_machine(c))
		return 0;
	check_status(c);
	check_timers(c);
	tf_check_others(c);
	tf_check_fds(c);
	rc = check_maps(c, e);
	check_shared(c);
	return rc;
}

int tf_task_check(pid_t pid, tf_obstacle_fn *found, void *ctx, struct tf_err *e)
{
	struct tf_check c = {.pid = pid, .found = found, .ctx = ctx};
	char path[64];
	int rc;

	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	if (access(path, F_OK))
		return tf_fail(e, TELEFORK_E_UNSUPPORTED, "there is no process %d", (int)pid);
	if (tf_arena_init(&c.arena, TF_ARENA_DEFAULT))
		return tf_fail(e, TELEFORK_E_NOMEM, "no address space for a check");
	rc = check_all(&c, e);
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
