/* SPDX-License-Identifier: MIT */
/* What the kernel keeps of a whole address space: locks, and what /proc shows of its beginning. */
#include "tests/probes/outmem.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif

#define SHOWN 8192

static struct {
	const char *name;
	char text[SHOWN];
	ssize_t size;
} shown[] = {
	{"/proc/self/cmdline", "", 0}, {"/proc/self/environ", "", 0}, {"/proc/self/auxv", "", 0}};

/* Fields of /proc/PID/stat, proc(5): code, stack; data, brk, command line, environment. */
static const unsigned addresses[] = {26, 27, 28, 45, 46, 47, 48, 49, 50, 51};
#define ADDRESSES (sizeof(addresses) / sizeof(*addresses))

static unsigned long places[ADDRESSES];
static uint8_t *locked, *on_fault;
static bool all_locked;

static ssize_t read_all(const char *path, char *text)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, SHOWN);

	close(fd);
	return n;
}

/* The first field behind the name in parentheses is number 3. */
static void read_places(unsigned long at[ADDRESSES])
{
	char text[SHOWN + 1] = "", *p;
	unsigned field = 2, n = 0;

	if (read_all("/proc/self/stat", text) <= 0 || !(p = strrchr(text, ')')))
		return;
	for (; n < ADDRESSES && (p = strchr(p, ' ')); p++)
		if (++field == addresses[n])
			at[n++] = strtoul(p, NULL, 10);
}

static bool resident(void *p)
{
	unsigned char seen = 0;

	return !mincore(p, OUT_PAGE, &seen) && (seen & 1);
}

void out_process_make(bool lock)
{
	for (size_t i = 0; i < sizeof(shown) / sizeof(*shown); i++)
		shown[i].size = read_all(shown[i].name, shown[i].text);
	read_places(places);
	locked = out_must(mmap(NULL, 4 * OUT_PAGE, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
		"locked");
	on_fault = out_must(
		mmap(NULL, 4 * OUT_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0),
		"locked on fault");
	out_fill(locked, OUT_PAGE, "locked");
	out_fill(on_fault, OUT_PAGE, "locked on fault");
	if (mlock(locked, 4 * OUT_PAGE) || mlock2(on_fault, 4 * OUT_PAGE, MLOCK_ONFAULT))
		out_skip("locked", "RLIMIT_MEMLOCK");
	out_note("locked", locked);
	out_note("locked on fault", on_fault);
	all_locked = lock && !mlockall(MCL_FUTURE);
}

void out_process_check(void)
{
	static char now[SHOWN];
	unsigned long at[ADDRESSES] = {0};
	uint8_t *later;

	for (size_t i = 0; i < sizeof(shown) / sizeof(*shown); i++) {
		ssize_t n = read_all(shown[i].name, now);

		out_check(n == shown[i].size && !memcmp(now, shown[i].text, (size_t)n),
			shown[i].name, "shows something else");
	}
	read_places(at);
	for (size_t i = 0; i < ADDRESSES; i++)
		out_check(at[i] == places[i], "/proc/self/stat", "an address of the program");
	out_check(out_same(locked, OUT_PAGE, "locked"), "locked", "content");
	out_check(resident(locked + 3 * OUT_PAGE), "locked", "is not present");
	out_check(out_same(on_fault, OUT_PAGE, "locked on fault"), "locked on fault", "content");
	later = out_must(mmap(NULL, 4 * OUT_PAGE, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
		"later");
	out_check(
		resident(later) == all_locked, "mlockall", "later mappings are not locked, or are");
}
