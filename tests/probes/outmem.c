/* SPDX-License-Identifier: MIT */
/*
 * outmem DIR [lock]: see outmem.h. Says "ready PID", waits for SIGUSR1, compares, says "right N" or
 * what is wrong. DIR has files that the caller takes away or changes meanwhile. lock: all memory is
 * locked, now and later (mlockall).
 */
#include "tests/probes/outmem.h"

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NOTES 80

long out_page;
unsigned out_checks;
static unsigned wrongs;
static volatile sig_atomic_t told;
static sigjmp_buf after_fault;

struct note {
	const char *name;
	const void *at;
	char perms[8], path[256], flags[256];
	size_t size, private_bytes;
	unsigned long key, inode;
};

static struct note notes[NOTES];
static unsigned n_notes;

void out_wrong(const char *name, const char *what)
{
	printf("wrong: %s: %s\n", name, what);
	wrongs++;
}

void out_check(bool holds, const char *name, const char *what)
{
	out_checks++;
	if (!holds)
		out_wrong(name, what);
}

void out_skip(const char *name, const char *why)
{
	printf("skip: %s: %s\n", name, why);
}

static uint64_t word(const char *name, size_t i)
{
	uint64_t x = i * UINT64_C(0x9e3779b97f4a7c15);

	while (*name)
		x = (x ^ (uint8_t)*name++) * UINT64_C(0x100000001b3);
	return x | 1;
}

void out_fill(void *p, size_t n, const char *name)
{
	for (size_t i = 0; i < n / 8; i++)
		((volatile uint64_t *)p)[i] = word(name, i);
}

bool out_same(const void *p, size_t n, const char *name)
{
	for (size_t i = 0; i < n / 8; i++)
		if (((const volatile uint64_t *)p)[i] != word(name, i))
			return false;
	return true;
}

void *out_must(void *p, const char *name)
{
	if (p != MAP_FAILED)
		return p;
	perror(name);
	exit(2);
}

int out_must_fd(int fd, const char *name)
{
	if (fd >= 0)
		return fd;
	perror(name);
	exit(2);
}

static void caught(int signo)
{
	siglongjmp(after_fault, signo);
}

int out_fault(volatile uint8_t *p, bool write)
{
	struct sigaction sa = {.sa_handler = caught}, segv, bus;
	int signo;

	sigaction(SIGSEGV, &sa, &segv);
	sigaction(SIGBUS, &sa, &bus);
	signo = sigsetjmp(after_fault, 1);
	if (!signo) {
		uint8_t x = *p;

		if (write)
			*p = x;
	}
	sigaction(SIGSEGV, &segv, NULL);
	sigaction(SIGBUS, &bus, NULL);
	return signo;
}

/* "start-end perms offset dev inode path", then fields. False: there is none. */
static bool read_note(const void *at, struct note *n)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	char line[512];
	bool in = false, found = false;

	*n = (struct note){.at = at};
	while (f && fgets(line, sizeof(line), f)) {
		unsigned long start, end, inode;
		char perms[8];
		int path = 0;

		line[strcspn(line, "\n")] = '\0';
		if (sscanf(line, "%lx-%lx %7s %*s %*s %lu %n", &start, &end, perms, &inode,
			    &path) >= 4) {
			if (in)
				break;
			in = (unsigned long)at >= start && (unsigned long)at < end;
			found |= in;
			if (!in)
				continue;
			memcpy(n->perms, perms, sizeof(perms));
			n->size = end - start;
			n->inode = inode;
			snprintf(n->path, sizeof(n->path), "%.255s", line + path);
		} else if (in && !strncmp(line, "Anonymous:", 10)) {
			n->private_bytes += strtoul(line + 10, NULL, 10) << 10;
		} else if (in && !strncmp(line, "ProtectionKey:", 14)) {
			n->key = strtoul(line + 14, NULL, 10);
		} else if (in && !strncmp(line, "VmFlags:", 8)) {
			char *p = line + 8, *flag;

			/* What the kernel does by itself: accounting, and soft-dirty. */
			while ((flag = strsep(&p, " ")))
				if (*flag && strcmp(flag, "sd") != 0 && strcmp(flag, "ac") != 0 &&
					strlen(n->flags) < 240)
					strcat(strcat(n->flags, flag), " ");
		}
	}
	if (f)
		fclose(f);
	return found;
}

void out_note(const char *name, const void *p)
{
	if (n_notes == NOTES || !read_note(p, &notes[n_notes])) {
		out_wrong(name, "is not in the kernel's list");
		return;
	}
	notes[n_notes++].name = name;
}

void out_note_unsized(const char *name, const void *p)
{
	out_note(name, p);
	notes[n_notes - 1].size = 0;
}

void out_compare_notes(void)
{
	for (unsigned i = 0; i < n_notes; i++) {
		const struct note *was = &notes[i];
		struct note now;
		char text[700];

		if (!read_note(was->at, &now)) {
			out_check(false, was->name, "the mapping is gone");
			continue;
		}
		snprintf(text, sizeof(text), "was %zu %s %skey %lu, is %zu %s %skey %lu", was->size,
			was->perms, was->flags, was->key, now.size, now.perms, now.flags, now.key);
		out_check((was->size == now.size || !was->size) && !strcmp(was->perms, now.perms) &&
				  !strcmp(was->flags, now.flags) && was->key == now.key,
			was->name, text);
	}
}

const char *out_name_at(const void *p)
{
	static struct note n;

	return read_note(p, &n) ? n.path : "";
}

unsigned long out_inode(const void *p)
{
	struct note n;

	return read_note(p, &n) ? n.inode : 0;
}

size_t out_private(const void *p)
{
	struct note n;

	return read_note(p, &n) ? n.private_bytes : 0;
}

static void tell(int signo)
{
	(void)signo;
	told = 1;
}

/* What it has without asking for it; its stack has another size there. */
static void note_program(void)
{
	static int data = 1;
	static char zeroes[2 * 65536]; /* the first page may be one with data */

	out_note_unsized("data", &data);
	out_note_unsized("zeroed data", zeroes + 65536);
	out_note_unsized("heap", out_must(malloc(1), "heap"));
}

int main(int argc, char **argv)
{
	sigset_t usr1, before;

	out_page = sysconf(_SC_PAGESIZE);
	if (argc < 2)
		return 64;
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr1, &before);
	signal(SIGUSR1, tell);
	out_files_make(argv[1]);
	out_shared_make(argv[1]);
	out_flags_make();
	out_process_make(argc > 2 && !strcmp(argv[2], "lock"));
	note_program();
	printf("ready %d\n", (int)getpid());
	fflush(stdout);
	while (!told)
		sigsuspend(&before);
	out_compare_notes();
	out_flags_check();
	out_files_check();
	out_shared_check();
	out_process_check();
	if (!wrongs)
		printf("right %u\n", out_checks);
	return wrongs ? 1 : 0;
}
