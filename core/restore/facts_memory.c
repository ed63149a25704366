/* SPDX-License-Identifier: MIT */
/* What memory needs besides room, and would else fail in the middle of a restore: locks, strict
 * accounting, huge pages, protection keys. */
#include "core/restore/facts_impl.h"

#include <dirent.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/base/maps.h"

/* What the kernel still grants where it counts strictly (vm.overcommit_memory 2). */
static uint64_t commit_free(struct tf_arena *a)
{
	const char *limit, *used;
	uint64_t all, taken;
	char *text;
	size_t size;

	if (tf_facts_number("/proc/sys/vm/overcommit_memory", 0) != 2 ||
		tf_proc_read(a, "/proc/meminfo", &text, &size, NULL))
		return UINT64_MAX;
	limit = strstr(text, "CommitLimit:");
	used = strstr(text, "Committed_AS:");
	if (!limit || !used)
		return UINT64_MAX;
	all = strtoull(limit + 12, NULL, 10) << 10;
	taken = strtoull(used + 13, NULL, 10) << 10;
	return all > taken ? all - taken : 0;
}

static uint64_t pages_of(const char *folder, const char *file, uint64_t otherwise)
{
	char path[320];

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/%s/%s", folder, file);
	return tf_facts_number(path, otherwise);
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = ((const struct tf_huge *)a)->size, y = ((const struct tf_huge *)b)->size;

	return (x > y) - (x < y);
}

/* Reserved pages are promised to somebody. */
static void gather_huge(struct tf_facts *f)
{
	DIR *sizes = opendir("/sys/kernel/mm/hugepages");
	struct dirent *entry;
	unsigned n = 0;

	while (sizes && n < TF_FACT_HUGE_MAX && (entry = readdir(sizes))) {
		unsigned long long kb;
		uint64_t free_pages, reserved;

		if (sscanf(entry->d_name, "hugepages-%llukB", &kb) != 1)
			continue;
		free_pages = pages_of(entry->d_name, "free_hugepages", UINT64_MAX);
		reserved = pages_of(entry->d_name, "resv_hugepages", 0);
		if (free_pages != UINT64_MAX)
			f->huge[n++] = (struct tf_huge){
				kb << 10, free_pages > reserved ? free_pages - reserved : 0};
	}
	if (sizes)
		closedir(sizes);
	qsort(f->huge, n, sizeof(*f->huge), by_size);
}

/* Whether huge pages come to whom does not ask for them. */
static bool has_huge_pages(struct tf_arena *a)
{
	static const char path[] = "/sys/kernel/mm/transparent_hugepage/enabled";
	char *text;
	size_t size;

	return !tf_proc_read(a, path, &text, &size, NULL) && strstr(text, "[always]");
}

/* A process that has keys already would hand them on. */
bool tf_facts_keys(void)
{
	long key = syscall(SYS_pkey_alloc, 0L, 0L);

	if (key > 0)
		syscall(SYS_pkey_free, key);
	return key == 1;
}

void tf_facts_memory(struct tf_facts *f, struct tf_arena *a)
{
	bool may_lock = f->rights.caps[TF_CAP_E] >> CAP_IPC_LOCK & 1;

	f->lock_limit = may_lock ? UINT64_MAX : f->limits[2 * RLIMIT_MEMLOCK];
	f->commit_free = commit_free(a);
	gather_huge(f);
	f->flags &= ~TF_FACT_THP;
	if (has_huge_pages(a))
		f->flags |= TF_FACT_THP;
}
