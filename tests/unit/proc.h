/* SPDX-License-Identifier: MIT */
/* Everything that /proc tells of a process, as text that can be compared with what it told before.
 */
#ifndef TESTS_UNIT_PROC_H
#define TESTS_UNIT_PROC_H

#include <check.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct text {
	char *at;
	size_t size;
};

/* Lines that may differ: docs/state.md, "What the original notices". */
static bool may_differ(const char *file, const char *line)
{
	static const char *const status[] = {
		"SigQ:", "VmPeak:", "VmHWM:", "VmRSS:", "RssAnon:", "RssFile:", "RssShmem:",
		"VmPTE:", "voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"};
	static const char *const smaps[] = {"Rss:", "Pss:", "Pss_Dirty:", "Shared_Clean:",
		"Shared_Dirty:", "Private_Clean:", "Private_Dirty:", "Referenced:", "Anonymous:",
		"AnonHugePages:", "KSM:", "LazyFree:", "Swap:", "SwapPss:", "Locked:"};
	bool of_smaps = !strcmp(file, "smaps");
	const char *const *list = of_smaps ? smaps : status;
	size_t n = of_smaps ? sizeof(smaps) / sizeof(*smaps) : sizeof(status) / sizeof(*status);

	for (size_t i = 0; i < n; i++)
		if (!strncmp(line, list[i], strlen(list[i])))
			return true;
	return false;
}

/* /proc/PID/stat, proc(5): faults, times, CPU, resident size. */
static bool stat_may_differ(int field)
{
	return (field >= 10 && field <= 17) || field == 24 || field == 39 || field == 42;
}

static void add_line(FILE *out, const char *path, const char *file, char *line)
{
	int field = 1;

	if (!strcmp(file, "stat")) {
		for (char *p = strtok(line, " "); p; p = strtok(NULL, " "), field++)
			if (!stat_may_differ(field))
				fprintf(out, "%s field %d: %s\n", path, field, p);
	} else if (!may_differ(file, line)) {
		fprintf(out, "%s: %s", path, line);
	}
}

static void add_file(FILE *out, const char *folder, const char *file)
{
	char path[320], line[4096];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", folder, file);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		add_line(out, path, file, line);
	if (f)
		fclose(f);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* Links, or contents of what is in a folder. */
static void add_folder(FILE *out, const char *folder, const char *const *files)
{
	struct dirent **entry;
	int n = scandir(folder, &entry, NULL, by_name);

	for (int i = 0; i < n; free(entry[i++])) {
		char path[320], target[256] = "";

		if (entry[i]->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%.200s", folder, entry[i]->d_name);
		if (readlink(path, target, sizeof(target) - 1) > 0)
			fprintf(out, "%s -> %s\n", path, target);
		else if (!files)
			add_file(out, folder, entry[i]->d_name);
		for (; files && *files; files++)
			add_file(out, path, *files);
	}
	if (n >= 0)
		free(entry);
}

/* All that /proc tells of it. */
static struct text read_proc(pid_t child)
{
	static const char *const files[] = {"status", "stat", "smaps", "maps", "limits", "timers",
		"oom_score_adj", "cmdline", "comm", "environ", "auxv", "cgroup", "coredump_filter",
		"personality", "loginuid", "timerslack_ns", "syscall", "mountinfo", "uid_map"};
	static const char *const of_thread[] = {
		"status", "stat", "comm", "children", "syscall", NULL};
	struct text t = {0};
	char folder[64], path[96];
	FILE *out = open_memstream(&t.at, &t.size);

	snprintf(folder, sizeof(folder), "/proc/%d", (int)child);
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
		add_file(out, folder, files[i]);
	snprintf(path, sizeof(path), "%s/fd", folder);
	add_folder(out, path, NULL);
	snprintf(path, sizeof(path), "%s/fdinfo", folder);
	add_folder(out, path, NULL);
	snprintf(path, sizeof(path), "%s/ns", folder);
	add_folder(out, path, NULL);
	snprintf(path, sizeof(path), "%s/task", folder);
	add_folder(out, path, of_thread);
	fclose(out);
	return t;
}

static void assert_same(const struct text *a, const struct text *b)
{
	size_t i = 0, from;

	while (i < a->size && i < b->size && a->at[i] == b->at[i])
		i++;
	for (from = i; from && a->at[from - 1] != '\n'; from--)
		;
	ck_assert_msg(a->size == b->size && i == a->size, "before: %.*s\nafter: %.*s",
		(int)strcspn(a->at + from, "\n"), a->at + from, (int)strcspn(b->at + from, "\n"),
		b->at + from);
	ck_assert_uint_gt(a->size, 10000);
}

#endif
