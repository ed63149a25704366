/* SPDX-License-Identifier: MIT */
/*
 * The kernel's own list of mappings, before and after: where something is mapped, with which
 * protections and, from smaps, which flags. What may differ is in one table. The parser is the
 * probe's own: it is not to share a mistake with the library's.
 */
#include "tests/probes/memory.h"
#include "arch/arch.h"
#include "core/base/host.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_MAPS   70000
#define MAX_FLAGS  1024
#define FLAGS_TEXT 96

enum kind { OTHER, STACK, VDSO, OF_FILE };

struct entry {
	uint64_t start, end;
	uint8_t kind;
	char perms[5];
	const char *flags; /* " rd wr mr ", from VmFlags; "" if not known */
};

struct list {
	size_t n, max;
	struct entry *v;
	bool overflow, emulated;
	char (*flags)[FLAGS_TEXT]; /* of each of v; NULL: the list has none */
};

static struct list maps[2], flags[2];
static char flag_texts[2][MAX_FLAGS][FLAGS_TEXT];

/*
 * Every difference that is meant to be, in one table. kind -1: any. Flags are smaps(5)'s names.
 */
static const struct exception {
	int kind;
	const char *flags;
	const char *why;
} exceptions[] = {
	{-1, "lo", "memory locks stay behind, as after fork(2)"},
	{-1, "sd ac", "the kernel's own notes: soft-dirty, accounted"},
	{STACK, "gd nr", "a stack is mapped whole, down to its limit, and not accounted at once"},
	{OF_FILE, "mw ms me mr sh",
		"mappings of files travel by value and are anonymous over there"},
	{VDSO, "*",
		"the old vDSO's pages are data over there, and the kernel's own lies elsewhere"},
};

void mem_maps_init(void)
{
	for (int i = 0; i < 2; i++) {
		maps[i] = (struct list){.max = MAX_MAPS};
		flags[i] = (struct list){.max = MAX_FLAGS, .flags = flag_texts[i]};
		maps[i].v = mmap(NULL, MAX_MAPS * sizeof(struct entry), PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		flags[i].v = mmap(NULL, MAX_FLAGS * sizeof(struct entry), PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	}
}

static uint64_t hex(const char **p)
{
	uint64_t v = 0;

	for (;; (*p)++) {
		if (**p >= '0' && **p <= '9')
			v = v << 4 | (uint64_t)(**p - '0');
		else if (**p >= 'a' && **p <= 'f')
			v = v << 4 | (uint64_t)(**p - 'a' + 10);
		else
			return v;
	}
}

/* The line's end is zeroed. */
static void take_line(struct list *l, const char *line)
{
	const char *p = line, *path;
	struct entry *e = &l->v[l->n ? l->n - 1 : 0];

	if (*line >= 'A' && *line <= 'Z') {
		if (l->n && !strncmp(line, "VmFlags:", 8))
			e->flags = strncpy(l->flags[l->n - 1], line + 8, FLAGS_TEXT - 1);
		return;
	}
	if (l->n == l->max) {
		l->overflow = true;
		return;
	}
	e = &l->v[l->n];
	e->start = hex(&p);
	p++;
	e->end = hex(&p);
	if (e->end > UINT64_C(1) << 57)
		return; /* [vsyscall] */
	memcpy(e->perms, p + 1, 4);
	e->perms[4] = '\0';
	e->flags = "";
	path = strpbrk(line, "/[");
	e->kind = OTHER;
	if (path && !strncmp(path, "[stack", 6))
		e->kind = STACK;
	else if (path && !strncmp(path, "[v", 2))
		e->kind = VDSO;
	else if (path && *path == '/' && strncmp(path, "/dev/zero", 9))
		e->kind = OF_FILE;
	l->n++;
}

static void take(struct list *l, const char *name)
{
	static char buf[65536];
	size_t have = 0;
	ssize_t got;
	int fd = open(name, O_RDONLY | O_CLOEXEC);

	l->n = 0;
	l->overflow = false;
	l->emulated = tf_host_emulated();
	while (fd >= 0 && (got = read(fd, buf + have, sizeof(buf) - have)) > 0) {
		char *p = buf, *eol;

		have += (size_t)got;
		while ((eol = memchr(p, '\n', have - (size_t)(p - buf)))) {
			*eol = '\0';
			take_line(l, p);
			p = eol + 1;
		}
		have -= (size_t)(p - buf);
		memmove(buf, p, have);
	}
	close(fd);
	if (!l->n || l->overflow)
		probe_lost("%s: %s", name, l->n ? "too many lines" : "cannot be read");
}

void mem_maps_take(bool after)
{
	take(&maps[after], "/proc/self/maps");
}

void mem_flags_take(bool after)
{
	if (tf_host_emulated())
		return; /* QEMU user mode shows the emulator's */
	take(&flags[after], "/proc/self/smaps");
}

/* --- comparing --- */

static bool same_perms(const struct entry *a, const struct entry *b)
{
	/* QEMU 7.2 shows a merged mapping with its first page's protection, so execution is allowed
	 * everywhere in a copy of what ran there. */
	if (maps[0].emulated || maps[1].emulated)
		return a->perms[0] == b->perms[0] && a->perms[1] == b->perms[1];
	return !memcmp(a->perms, b->perms, 4);
}

static bool may_differ(const struct entry *before, const char *flag)
{
	for (size_t i = 0; i < sizeof(exceptions) / sizeof(*exceptions); i++) {
		const struct exception *x = &exceptions[i];

		if (x->kind >= 0 && x->kind != before->kind)
			continue;
		if (*x->flags == '*' || strstr(x->flags, flag))
			return true;
	}
	return false;
}

/* Names the flags of a that b lacks. */
static void compare_flags(const struct entry *before, const char *a, const char *b, const char *how)
{
	for (const char *p = a; *p; p++) {
		char flag[3] = {p[0], p[1], '\0'};

		if (*p == ' ' || !p[1])
			continue;
		p++;
		if (!strstr(b, flag) && !may_differ(before, flag))
			probe_lost("mapping %llx: flag %s is %s", (unsigned long long)before->start,
				flag, how);
	}
}

static void compare_pair(const struct entry *before, const struct entry *after)
{
	if (!same_perms(before, after) && before->kind != VDSO)
		probe_lost("mapping %llx-%llx: was %s, is %s", (unsigned long long)before->start,
			(unsigned long long)before->end, before->perms, after->perms);
	if (*before->flags && *after->flags) {
		compare_flags(before, before->flags, after->flags, "lost");
		compare_flags(before, after->flags, before->flags, "new");
	}
}

/* The first address of e that no mapping of l covers; e->end if all are. fn (may be NULL) gets each
 * that covers a part. *from is a cursor into l, which starts at 0 and only rises. */
static uint64_t first_gap(const struct entry *e, const struct list *l, size_t *from,
	void (*fn)(const struct entry *, const struct entry *))
{
	uint64_t at = e->start;

	while (*from < l->n && l->v[*from].end <= at)
		(*from)++;
	for (size_t k = *from; at < e->end && k < l->n && l->v[k].start <= at; k++) {
		if (fn)
			fn(e, &l->v[k]);
		at = l->v[k].end;
	}
	return at < e->end ? at : e->end;
}

/* In QEMU user mode: a page that the emulator itself needs, and the one at the break that keeps brk
 * from growing into what is not its own. */
static bool is_emulators(const struct entry *e)
{
	uint64_t pages[8], page = (uint64_t)sysconf(_SC_PAGESIZE), found = 0;
	unsigned n;

	if (!maps[1].emulated)
		return false;
	if (e->perms[0] == '-' && e->end - e->start == page &&
		e->start - (uint64_t)syscall(SYS_brk, 0) < page)
		return true;
	n = tf_arch_emulator_pages(pages, 8);
	for (unsigned i = 0; i < n; i++)
		found += pages[i] >= e->start && pages[i] < e->end ? page : 0;
	return found == e->end - e->start;
}

/* What was mapped has to be mapped; what was not, must not be. Neighbours that are alike may be one
 * mapping here and two there. */
static void compare(const struct list *before, const struct list *after, const char *what)
{
	size_t from = 0;

	for (size_t i = 0; i < before->n; i++) {
		const struct entry *e = &before->v[i];
		uint64_t gap = first_gap(e, after, &from, compare_pair);

		if (gap < e->end && e->kind != VDSO && !mem_is_absent(gap))
			probe_lost("mapping %llx-%llx (%s): absent from %llx on",
				(unsigned long long)e->start, (unsigned long long)e->end, e->perms,
				(unsigned long long)gap);
	}
	from = 0;
	for (size_t i = 0; i < after->n; i++) {
		const struct entry *e = &after->v[i];
		uint64_t gap = first_gap(e, before, &from, NULL);

		if (gap < e->end && e->kind != VDSO && e->kind != STACK && !is_emulators(e))
			probe_lost("mapping %llx-%llx (%s) is new", (unsigned long long)e->start,
				(unsigned long long)e->end, e->perms);
	}
	probe_count(what, before->n);
}

void mem_maps_compare(void)
{
	compare(&maps[0], &maps[1], "mappings");
}

void mem_flags_compare(void)
{
	if (!flags[0].n || !flags[1].n)
		mem_skip("flags of smaps");
	else
		compare(&flags[0], &flags[1], "flagged mappings");
}
