/* SPDX-License-Identifier: MIT */
/* See host.h. */
#include "core/base/host.h"
#include "core/base/maps.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <stdio.h>
#include <sched.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct dirent64_raw {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

/* Not remembered: a copy may wake where it is otherwise. */
bool tf_host_emulated(void)
{
	int saved = errno;
	/* Nothing is traced by us: a kernel says ESRCH, QEMU user mode ENOSYS. */
	bool missing =
		syscall(SYS_ptrace, PTRACE_PEEKDATA, (long)getpid(), 0L, 0L) < 0 && errno == ENOSYS;

	errno = saved;
	return missing;
}

unsigned tf_host_threads(void)
{
	struct stat st;
	unsigned own = tf_host_emulated() ? 1 : 0; /* QEMU's RCU thread */

	/* . and .. are links as well, proc(5) */
	if (stat("/proc/self/task", &st) || st.st_nlink < 3 + own)
		return 0;
	return (unsigned)st.st_nlink - 2 - own;
}

bool tf_host_alone(void)
{
	for (int i = 0; tf_host_threads() > 1; i++) {
		if (i == 1000)
			return false;
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
	return true;
}

int tf_host_processors(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? 0 : CPU_COUNT(&set);
}

uint64_t tf_host_memory_free(struct tf_arena *a)
{
	struct tf_err quiet = {0};
	size_t size;
	char *text, *line;

	if (tf_proc_read(a, "/proc/meminfo", &text, &size, &quiet))
		return UINT64_MAX;
	line = strstr(text, "MemAvailable:");
	return line ? strtoull(line + 13, NULL, 10) * 1024 : UINT64_MAX;
}

static int compare_ints(const int *a, const int *b)
{
	return *a < *b ? -1 : *a > *b;
}

/* The kernel lists /proc/self/fd in ascending order; QEMU passes it on. Sorted all the same. */
static void sort_ints(int *v, size_t n)
{
	for (size_t i = 1; i < n; i++)
		for (size_t j = i; j && compare_ints(&v[j - 1], &v[j]) > 0; j--) {
			int t = v[j];

			v[j] = v[j - 1];
			v[j - 1] = t;
		}
}

int tf_host_fds(struct tf_arena *a, int **ret_fds, uint32_t *ret_n, struct tf_err *e)
{
	int dir = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	uint32_t n = 0;
	int *fds = (int *)(void *)(a->base + a->used);
	char buf[4096];
	long got;

	if (dir < 0)
		return tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "/proc/self/fd");
	while ((got = syscall(SYS_getdents64, dir, buf, sizeof(buf))) > 0) {
		for (long at = 0; at < got;) {
			struct dirent64_raw d;
			const char *name = buf + at + offsetof(struct dirent64_raw, name);
			int fd = atoi(name);

			memcpy(&d, buf + at, offsetof(struct dirent64_raw, name));
			at += d.reclen;
			if (name[0] < '0' || name[0] > '9' || fd == dir)
				continue;
			if (n % 4 == 0 && !tf_arena_alloc(a, sizeof(int) * 4)) {
				close(dir);
				return tf_fail(e, TELEFORK_E_NOMEM, "too many descriptors");
			}
			fds[n++] = fd;
		}
	}
	close(dir);
	sort_ints(fds, n);
	*ret_fds = fds;
	*ret_n = n;
	return 0;
}

static void close_span(unsigned first, unsigned last)
{
	struct rlimit lim;

	if (first > last)
		return;
#ifdef SYS_close_range
	if (!syscall(SYS_close_range, first, last, 0))
		return;
#endif
	/* QEMU 7.2 user mode has no close_range. */
	if (getrlimit(RLIMIT_NOFILE, &lim) || lim.rlim_cur > 65536)
		lim.rlim_cur = 65536;
	for (unsigned fd = first; fd <= last && fd < lim.rlim_cur; fd++)
		close((int)fd);
}

void tf_host_close_all(const int *keep, unsigned n)
{
	int sorted[8];
	unsigned from = 0;

	memcpy(sorted, keep, n * sizeof(*keep));
	sort_ints(sorted, n);
	for (unsigned i = 0; i < n; i++) {
		if (sorted[i] < 0)
			continue;
		if ((unsigned)sorted[i] > from)
			close_span(from, (unsigned)sorted[i] - 1);
		from = (unsigned)sorted[i] + 1;
	}
	close_span(from, ~0u);
}

struct tf_clocks tf_host_clocks(int pid)
{
	struct tf_clocks c = {0};
	char path[48] = "/proc/self/timens_offsets", text[256];
	long long seconds, ns;
	const char *p;
	ssize_t n;
	int fd;

	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/timens_offsets", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	p = strstr(text, "monotonic");
	if (p && sscanf(p, "monotonic %lld %lld", &seconds, &ns) == 2)
		c.monotonic = seconds * 1000000000 + ns;
	p = strstr(text, "boottime");
	if (p && sscanf(p, "boottime %lld %lld", &seconds, &ns) == 2)
		c.boottime = seconds * 1000000000 + ns;
	return c;
}
