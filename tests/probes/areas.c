/* SPDX-License-Identifier: MIT */
/*
 * See areas.h. Access is tried by system calls, which answer EFAULT where an instruction would
 * fault; sharing by a child that writes. What only /proc tells is read natively: QEMU makes it up.
 */
#include "tests/probes/areas.h"
#include "core/base/host.h"
#include "tests/probes/probe.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE  (256u << 10)
#define WORDS (SIZE / 8)
#define RW    (PROT_READ | PROT_WRITE)

static struct area {
	const char *name;
	int prot, flags, advice;
	const char *perms, *vmflag; /* as in /proc/self/smaps */
	uint64_t *at;
} areas[] = {
	{"private memory", RW, MAP_PRIVATE, 0, "rw-p", "", NULL},
	{"read-only memory", PROT_READ, MAP_PRIVATE, 0, "r--p", "", NULL},
	{"inaccessible memory", PROT_NONE, MAP_PRIVATE, 0, "---p", "", NULL},
	{"code", PROT_READ | PROT_EXEC, MAP_PRIVATE, 0, "r-xp", "", NULL},
	{"shared memory", RW, MAP_SHARED, 0, "rw-s", "", NULL},
	{"memory that is not dumped", RW, MAP_PRIVATE, MADV_DONTDUMP, "rw-p", " dd", NULL},
	{"memory for huge pages", RW, MAP_PRIVATE, MADV_HUGEPAGE, "rw-p", " hg", NULL},
};

#define N_AREAS (sizeof(areas) / sizeof(*areas))

static uint64_t salt;

static uint64_t word(const struct area *a, uint64_t i)
{
	uint64_t state = salt + (uint64_t)(a - areas) * WORDS + i;

	return probe_next(&state);
}

void areas_set_up(uint64_t seed)
{
	salt = seed << 32;
	for (struct area *a = areas; a < areas + N_AREAS; a++) {
		/* Between two others that nobody may touch, so that it keeps its place in a list.
		 */
		char *room = mmap(NULL, 3 * SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		munmap(room, 3 * SIZE);
		a->at = mmap(room + SIZE, SIZE, RW, a->flags | MAP_ANONYMOUS, -1, 0);
		for (uint64_t i = 0; i < WORDS; i++)
			a->at[i] = word(a, i);
		if (a->advice)
			madvise(a->at, SIZE, a->advice);
		mprotect(a->at, SIZE, a->prot);
	}
}

/* Whether the byte can be read, and (with what it holds) written. */
static void access_of(char *p, bool *r, bool *w)
{
	int fd[2];
	char c = 0;

	*r = *w = false;
	if (pipe(fd))
		return;
	*r = write(fd[1], p, 1) == 1;
	if (!*r && write(fd[1], &c, 1) != 1)
		return;
	*w = read(fd[0], p, 1) == 1;
	close(fd[0]);
	close(fd[1]);
}

static bool compare_access(struct area *a)
{
	const size_t at[] = {0, SIZE / 2, SIZE - 1};

	for (unsigned i = 0; i < 3; i++) {
		bool r, w;

		access_of((char *)a->at + at[i], &r, &w);
		if (r == !!(a->prot & PROT_READ) && w == !!(a->prot & PROT_WRITE))
			continue;
		probe_lost("%s: protection: byte %zu can%s be read and can%s be written", a->name,
			at[i], r ? "" : "not", w ? "" : "not");
		return false;
	}
	return true;
}

/* The line of the mapping that begins there, and the flags that follow. */
static void compare_listing(const struct area *a)
{
	char line[512], perms[5] = "";
	unsigned long start, end;
	bool inside = false, flags = false;
	FILE *f = fopen("/proc/self/smaps", "r");

	while (f && fgets(line, sizeof(line), f)) {
		char p[5];

		if (sscanf(line, "%lx-%lx %4s", &start, &end, p) == 3) {
			inside =
				start <= (unsigned long)a->at && end >= (unsigned long)a->at + SIZE;
			if (inside)
				strcpy(perms, p);
		} else if (inside && !strncmp(line, "VmFlags:", 8)) {
			flags = strstr(line, a->vmflag);
		}
	}
	if (f)
		fclose(f);
	if (strcmp(perms, a->perms))
		probe_lost("%s: protection: expected %s found %s", a->name, a->perms, perms);
	else if (!flags)
		probe_lost("%s: flag%s is not set", a->name, a->vmflag);
}

static void compare_content(const struct area *a)
{
	for (uint64_t i = 0; i < WORDS; i++)
		if (a->at[i] != word(a, i)) {
			probe_lost("%s: word %llu: expected %#llx found %#llx", a->name,
				(unsigned long long)i, (unsigned long long)word(a, i),
				(unsigned long long)a->at[i]);
			return;
		}
}

static void compare_sharing(struct area *a)
{
	volatile uint64_t *p = a->at;
	uint64_t old = *p;
	int status;
	pid_t pid = fork();

	if (!pid) {
		*p = ~old;
		_exit(0);
	}
	waitpid(pid, &status, 0);
	if ((*p != old) != (a->flags == MAP_SHARED))
		probe_lost("%s: sharing: it is%s shared", a->name, *p != old ? "" : " not");
}

void areas_compare(void)
{
	for (struct area *a = areas; a < areas + N_AREAS; a++) {
		if (!compare_access(a))
			continue;
		if (!tf_host_emulated())
			compare_listing(a);
		if (mprotect(a->at, SIZE, RW)) {
			probe_lost("%s: cannot be made accessible", a->name);
			continue;
		}
		compare_content(a);
		compare_sharing(a);
	}
}
