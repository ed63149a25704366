/* SPDX-License-Identifier: MIT */
/* See task_others.h. */
#include "core/capture/task_others.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/base/maps.h"

struct others {
	struct tf_shared *shared;
	uint32_t n;
	pid_t pid; /* that is looked at */
};

static void seen(struct others *o, uint64_t dev, uint64_t ino)
{
	for (uint32_t i = 0; i < o->n; i++)
		if (o->shared[i].dev == dev && o->shared[i].ino == ino)
			o->shared[i].user = o->pid;
}

static void look_at_maps(struct others *o, struct tf_arena a)
{
	struct tf_map *maps;
	char path[48];
	uint32_t n;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)o->pid);
	if (tf_maps_read(&a, path, &maps, &n, NULL))
		return;
	for (uint32_t i = 0; i < n; i++)
		if (maps[i].dev) /* the first SysV segment of a machine is inode 0 */
			seen(o, maps[i].dev, maps[i].ino);
}

static void look_at_fds(struct others *o)
{
	struct dirent *entry;
	struct stat st;
	char path[48];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)o->pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir)))
		if (!fstatat(dirfd(dir), entry->d_name, &st, 0) && S_ISREG(st.st_mode))
			seen(o, (uint64_t)major(st.st_dev) << 32 | minor(st.st_dev), st.st_ino);
	if (dir)
		closedir(dir);
}

void tf_task_others(pid_t pid, struct tf_shared *shared, uint32_t n, struct tf_arena *a)
{
	struct others o = {.shared = shared, .n = n};
	DIR *dir = n ? opendir("/proc") : NULL;
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		o.pid = (pid_t)strtol(entry->d_name, NULL, 10);
		if (o.pid <= 0 || o.pid == pid || o.pid == getpid())
			continue;
		look_at_maps(&o, *a); /* by value: what it takes is given back */
		look_at_fds(&o);
	}
	if (dir)
		closedir(dir);
}
