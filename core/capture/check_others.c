/* SPDX-License-Identifier: MIT */
/* Obstacles outside of the process: relatives, tracees, namespaces, semaphores that the kernel is
 * to undo, and threads that wait in the kernel for something that no signal ends. Reads /proc. */
#include "core/capture/check_impl.h"

#include <dirent.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BUSY_MS 500 /* disks are done within that, mostly */

/* Calls fn for each numeric entry of the folder. */
static void each_number(
	struct tf_check *c, const char *path, void (*fn)(struct tf_check *c, int number))
{
	DIR *dir = opendir(path);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9')
			fn(c, atoi(entry->d_name));
	if (dir)
		closedir(dir);
}

/* The state's letter of a text like /proc/PID/stat; ' ' if there is none. */
static char state_in(const char *stat)
{
	const char *p = strrchr(stat, ')'); /* the name may hold anything */

	return p && p[1] ? p[2] : ' ';
}

/* --- children --- */

#define EXIT_SIGNAL 38 /* of the fields of /proc/PID/stat, proc(5) */

static bool ends_silently(const char *stat)
{
	const char *p = strrchr(stat, ')');

	for (int field = 2; p && field < EXIT_SIGNAL; field++)
		p = strchr(p + 1, ' ');
	return p && !strtol(p, NULL, 10);
}

/* A telefork that was killed in the middle of its fork leaves one that has ended, and that no
 * wait() of the program sees. */
static void add_child(struct tf_check *c, long child)
{
	char name[40];
	const char *stat;
	bool over;

	snprintf(name, sizeof(name), "../%ld/stat", child);
	stat = tf_check_text(c, name);
	over = state_in(stat) == 'Z';
	if (over && ends_silently(stat))
		return;
	tf_check_add(c, over ? TF_OBSTACLE_ZOMBIE : TF_OBSTACLE_CHILD, "process %ld", child);
}

static void children_of_thread(struct tf_check *c, int tid)
{
	char name[40], *end;
	const char *p;

	snprintf(name, sizeof(name), "task/%d/children", tid);
	for (p = tf_check_text(c, name); strtol(p, &end, 10) > 0; p = end)
		add_child(c, strtol(p, NULL, 10));
}

/* --- threads that cannot be stopped --- */

static const char *call_name(long nr)
{
	static const struct {
		long nr;
		const char *name;
	} calls[] = {
#ifdef SYS_vfork
		{SYS_vfork, "vfork"},
#endif
		{SYS_clone, "vfork, by clone"},
		{SYS_clone3, "vfork, by clone3"},
	};

	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++)
		if (calls[i].nr == nr)
			return calls[i].name;
	return NULL;
}

static bool is_busy(struct tf_check *c, int tid)
{
	char name[40];

	snprintf(name, sizeof(name), "task/%d/stat", tid);
	return state_in(tf_check_text(c, name)) == 'D';
}

static void busy_thread(struct tf_check *c, int tid)
{
	const struct timespec ms10 = {.tv_nsec = 10000000};
	char name[40];
	const char *text, *call;
	long nr;

	for (int ms = 0; is_busy(c, tid); ms += 10) {
		if (ms < BUSY_MS) {
			nanosleep(&ms10, NULL);
			continue;
		}
		snprintf(name, sizeof(name), "task/%d/syscall", tid);
		text = tf_check_text(c, name);
		nr = *text >= '0' && *text <= '9' ? strtol(text, NULL, 10) : -1;
		call = call_name(nr);
		if (call)
			tf_check_add(c, TF_OBSTACLE_BUSY, "thread %d (%s)", tid, call);
		else
			tf_check_add(c, TF_OBSTACLE_BUSY, "thread %d (system call %ld)", tid, nr);
		return;
	}
}

/* --- tracees, which may be anybody's --- */

static void tracee(struct tf_check *c, int pid)
{
	char name[40];
	long tracer;

	snprintf(name, sizeof(name), "../%d/status", pid);
	tracer = tf_check_number(tf_check_text(c, name), "\nTracerPid:");
	if (!tracer)
		return;
	snprintf(name, sizeof(name), "task/%ld/stat", tracer);
	if (tracer == c->pid || *tf_check_text(c, name))
		tf_check_add(c, TF_OBSTACLE_TRACEE, "process %d", pid);
}

/* --- namespaces: the receiver's take their places; ours stand for them --- */

static bool is_same(const char *a, const char *b)
{
	struct stat its, ours;

	return stat(a, &its) || stat(b, &ours) || its.st_ino == ours.st_ino;
}

static void check_namespaces(struct tf_check *c)
{
	static const struct {
		const char *name, *what;
	} spaces[] = {
		{"user", "user and group ids"},
		{"pid", "process ids"},
		{"pid_for_children", "process ids of its children to come"},
		{"mnt", "the files that it sees"},
		{"net", "network devices and addresses"},
		{"ipc", "System V and POSIX objects"},
		{"uts", "the host's name"},
		{"cgroup", "its place among control groups"},
		{"time_for_children", "the clocks' beginning for its children to come"},
	};

	for (size_t i = 0; i < sizeof(spaces) / sizeof(*spaces); i++) {
		static const char children[] = "_for_children";
		size_t n = strcspn(spaces[i].name, "_");
		char its[64], own[64], ours[64];

		snprintf(its, sizeof(its), "/proc/%d/ns/%s", (int)c->pid, spaces[i].name);
		snprintf(own, sizeof(own), "/proc/%d/ns/%.*s", (int)c->pid, (int)n, spaces[i].name);
		snprintf(ours, sizeof(ours), "/proc/self/ns/%s", spaces[i].name);
		/* Its children's is told where it is not its own. */
		if (strcmp(spaces[i].name + n, children) ? !is_same(its, ours) : !is_same(its, own))
			tf_check_add(c, TF_OBSTACLE_NAMESPACE, "%s namespace (%s)", spaces[i].name,
				spaces[i].what);
	}
}

/* --- System V semaphores --- */

/* Whether the process was the last to use a semaphore; *id: of the set. */
static bool used_last(struct tf_check *c, int *id)
{
	const char *p = tf_check_text(c, "../sysvipc/sem");

	while ((p = strchr(p, '\n')) && *++p) {
		unsigned n = 0;

		if (sscanf(p, "%*d %d %*o %u", id, &n) != 2)
			continue;
		for (unsigned i = 0; i < n; i++)
			if (semctl(*id, (int)i, GETPID) == c->pid)
				return true;
	}
	return false;
}

/* The kernel shows nobody what it is to undo at the process's end, only whether two processes have
 * the same list of it (kcmp(2)): we have none. Threads have an empty one. */
static void check_semaphores(struct tf_check *c)
{
	int id = 0;

	if (syscall(SYS_kcmp, getpid(), c->pid, KCMP_SYSVSEM, 0, 0) > 0 && used_last(c, &id))
		tf_check_add(c, TF_OBSTACLE_SEMAPHORE, "semaphore set %d", id);
}

void tf_check_others(struct tf_check *c)
{
	char task[32];

	snprintf(task, sizeof(task), "/proc/%d/task", (int)c->pid);
	each_number(c, task, busy_thread);
	each_number(c, task, children_of_thread);
	each_number(c, "/proc", tracee);
	check_namespaces(c);
	check_semaphores(c);
}
