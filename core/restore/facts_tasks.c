/* SPDX-License-Identifier: MIT */
/* How many threads can be made here, and how many signals wait: what would else fail in the middle
 * of a restore. */
#include "core/restore/facts_impl.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/maps.h"
#include "core/base/text.h"

#define CAP_SYS_ADMIN    21
#define CAP_SYS_RESOURCE 24

static const char *text_of(struct tf_arena *a, const char *path)
{
	char *text;
	size_t size;

	return tf_proc_read(a, path, &text, &size, NULL) ? "" : text;
}

static uint64_t less(uint64_t limit, uint64_t used)
{
	return limit > used ? limit - used : 0;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* --- threads --- */

/* Threads of this user, as RLIMIT_NPROC counts them. */
static uint64_t threads_of_user(struct tf_arena *a)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	uint64_t n = 0;

	while (proc && (entry = readdir(proc))) {
		char path[40];
		struct stat st;
		int length;

		if (entry->d_name[0] < '0' || entry->d_name[0] > '9')
			continue;
		length = snprintf(path, sizeof(path), "/proc/%.16s", entry->d_name);
		if (stat(path, &st) || st.st_uid != getuid())
			continue;
		snprintf(path + length, sizeof(path) - (size_t)length, "/status");
		n += tf_text_number(text_of(a, path), "\nThreads:", 10, 0);
	}
	if (proc)
		closedir(proc);
	return n;
}

static uint64_t free_of_user(const struct tf_facts *f, struct tf_arena *a)
{
	uint64_t caps = f->rights.caps[TF_CAP_E];
	struct rlimit lim;

	if (getrlimit(RLIMIT_NPROC, &lim) || lim.rlim_cur == RLIM_INFINITY || !getuid() ||
		caps & (UINT64_C(1) << CAP_SYS_ADMIN | UINT64_C(1) << CAP_SYS_RESOURCE))
		return UINT64_MAX;
	return less(lim.rlim_cur, threads_of_user(a));
}

/* What the control group and those above it leave; path: its folder, cut off at each. */
static uint64_t free_of_group(struct tf_arena *a, char path[PATH_MAX], size_t root)
{
	uint64_t most = UINT64_MAX;
	size_t n = strlen(path);

	for (;;) {
		const char *max, *current;

		snprintf(path + n, PATH_MAX - n, "/pids.max");
		max = text_of(a, path);
		snprintf(path + n, PATH_MAX - n, "/pids.current");
		current = text_of(a, path);
		if (*max >= '0' && *max <= '9')
			most = least(
				most, less(strtoull(max, NULL, 10), strtoull(current, NULL, 10)));
		while (n > root && path[n - 1] != '/')
			n--;
		if (n <= root)
			return most;
		n--;
	}
}

/* cgroups(7): one hierarchy, or one of its own for pids. */
static uint64_t free_of_groups(struct tf_arena *a)
{
	const char *text = text_of(a, "/proc/self/cgroup"), *at = strstr(text, ":pids:"), *own;
	static const char one[] = "/sys/fs/cgroup", pids[] = "/sys/fs/cgroup/pids";
	const char *root = at ? pids : one;
	char path[PATH_MAX];

	at = at ? at : strstr(text, "0::");
	own = at ? strchr(at, '/') : NULL;
	if (!own || (size_t)snprintf(path, sizeof(path), "%s%.*s", root, (int)strcspn(own, "\n"),
			    own) >= sizeof(path) - 32)
		return UINT64_MAX;
	if (path[strlen(path) - 1] == '/')
		path[strlen(path) - 1] = '\0';
	return free_of_group(a, path, strlen(root));
}

static uint64_t free_of_system(struct tf_arena *a)
{
	uint64_t all = tf_text_number(text_of(a, "/proc/loadavg"), "/", 10, 0);
	uint64_t max = least(tf_facts_number("/proc/sys/kernel/threads-max", UINT64_MAX),
		tf_facts_number("/proc/sys/kernel/pid_max", UINT64_MAX));

	return less(max, all);
}

void tf_facts_tasks(struct tf_facts *f, const char *status, struct tf_arena *a)
{
	const char *queue = strstr(status, "\nSigQ:");
	uint64_t used = queue ? strtoull(queue + 6, NULL, 10) : 0;

	f->threads_free = least(free_of_user(f, a), least(free_of_groups(a), free_of_system(a)));
	f->pending_free = queue ? less(tf_text_number(queue, "/", 10, 0), used) : UINT64_MAX;
}
