/* SPDX-License-Identifier: MIT */
/* Memory that is measured with, and what /proc says of it. */
#include "tests/bench/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define HUGE (UINT64_C(2) << 20)

uint8_t *bench_fresh(uint64_t size, bool huge)
{
	uint8_t *p = mmap(NULL, size + HUGE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *at = (uint8_t *)(((uintptr_t)p + HUGE - 1) & ~(uintptr_t)(HUGE - 1));

	if (p == MAP_FAILED)
		return NULL;
	if (at > p)
		munmap(p, (size_t)(at - p));
	munmap(at + size, (size_t)(p + HUGE - at));
	madvise(at, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return at;
}

void bench_free(uint8_t *at, uint64_t size)
{
	munmap(at, size);
}

uint8_t *bench_heap(uint64_t size, bool huge)
{
	uint8_t *at = bench_fresh(size, huge);
	uint64_t x = 88172645463325252u;

	for (uint64_t i = 0; at && i < size / 8; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		((uint64_t *)(void *)at)[i] = x;
	}
	return at;
}

void bench_warm(uint64_t bytes)
{
	pid_t pid = fork();

	if (!pid) {
		uint8_t *at = bench_fresh(bytes, true);

		for (uint64_t i = 0; at && i < bytes; i += 4096)
			at[i] = 1;
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

static uint64_t sum_of(const char *path, const char *field)
{
	FILE *f = fopen(path, "r");
	uint64_t sum = 0;
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, field, strlen(field)))
			sum += strtoull(line + strlen(field), NULL, 10) * 1024;
	if (f)
		fclose(f);
	return sum;
}

uint64_t bench_memory_of(pid_t pid, const char *file, const char *field)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	return sum_of(path, field);
}

uint64_t bench_available(void)
{
	return sum_of("/proc/meminfo", "MemAvailable:");
}

uint64_t bench_private_of(pid_t pid)
{
	return bench_memory_of(pid, "smaps_rollup", "Private_Dirty:") +
	       bench_memory_of(pid, "smaps_rollup", "Private_Clean:");
}

pid_t bench_last_child(pid_t pid)
{
	char path[64];
	int child = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
	f = fopen(path, "r");
	while (f && fscanf(f, "%d", &child) == 1)
		;
	if (f)
		fclose(f);
	return child;
}
