/* SPDX-License-Identifier: MIT */
/* What a thread can ask the kernel about itself; see attrs.h. */
#include "tests/probes/attrs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void add(struct attrs_seen *s, const char *name, uint64_t value)
{
	s->item[s->n].name = name;
	s->item[s->n++].value = value;
}

static uint64_t hash(const char *text)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	while (*text)
		h = (h ^ (unsigned char)*text++) * UINT64_C(0x100000001b3);
	return h;
}

static void see_link(struct attrs_seen *s, const char *path)
{
	char text[4096] = "";

	if (readlink(path, text, sizeof(text) - 1) < 0)
		snprintf(text, sizeof(text), "%d", errno);
	add(s, path, hash(text));
}

static void see_line(struct attrs_seen *s, const char *status, const char *label)
{
	char line[512] = "";
	const char *p = strstr(status, label);

	if (p)
		snprintf(line, sizeof(line), "%.*s", (int)strcspn(p, "\n"), p);
	add(s, label, hash(line));
}

static void see_status(struct attrs_seen *s)
{
	static const char *const lines[] = {
		"Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:",
		"NoNewPrivs:", "Seccomp:", "Seccomp_filters:", "THP_enabled:", "Umask:"};
	FILE *f = fopen("/proc/thread-self/status", "r");
	char status[8192] = "";

	attrs_need(f && fread(status, 1, sizeof(status) - 1, f) > 0, "read status");
	fclose(f);
	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++)
		see_line(s, status, lines[i]);
}

static uint64_t answer_of(long nr, uint32_t arg)
{
	return syscall(nr, (unsigned long)arg, 0L, 0L, 0L, 0L) < 0 ? (uint64_t)errno : 0;
}

/* What the filters of attrs_rights.c answer. */
static void see_filters(struct attrs_seen *s)
{
	/* None of them answers another call with its argument, or its call with another argument:
	 * what no kernel knows. */
	add(s, "filter of all calls", answer_of(SYS_close_range, 77));
	add(s, "other filter of all calls", answer_of(SYS_close_range, UINT32_MAX));
	add(s, "third filter of all calls", answer_of(SYS_close_range, PR_MCE_KILL));
	add(s, "filter of all arguments", answer_of(SYS_getpriority, 99));
	add(s, "other filter of all arguments", answer_of(SYS_getsid, INT32_MAX));
	add(s, "third filter of all arguments", answer_of(SYS_prctl, INT32_MAX));
	add(s, "filter", answer_of(SYS_getpriority, 77));
	add(s, "other filter", answer_of(SYS_getsid, UINT32_MAX));
	add(s, "third filter", answer_of(SYS_prctl, PR_MCE_KILL));
}

static void see_thread(struct attrs_seen *s)
{
	struct attrs_sched a = {0};
	uint64_t cpus[16] = {0};
	int signo = 0;

	syscall(SYS_sched_getattr, 0, &a, sizeof(a), 0);
	add(s, "policy", a.policy);
	add(s, "priority", a.priority);
	add(s, "nice", (uint64_t)(int64_t)a.nice);
	add(s, "scheduling flags", a.flags);
	syscall(SYS_sched_getaffinity, 0, sizeof(cpus), cpus);
	add(s, "processors", cpus[0]);
	add(s, "I/O priority", (uint64_t)syscall(SYS_ioprio_get, 1, 0));
	add(s, "personality", (uint64_t)syscall(SYS_personality, 0xffffffff));
	add(s, "timer slack", (uint64_t)prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0));
	prctl(PR_GET_PDEATHSIG, &signo, 0, 0, 0);
	add(s, "signal for the parent's end", (uint64_t)signo);
	add(s, "securebits", (uint64_t)prctl(PR_GET_SECUREBITS, 0, 0, 0, 0));
	see_filters(s);
}

/* Ids, signals, values, clocks, and whether it is for a thread; but not which: those are new. */
static void see_timers(struct attrs_seen *s)
{
	FILE *f = fopen("/proc/self/timers", "r");
	char text[4096] = "", *to = text;
	size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;

	attrs_need(n > 0, "read timers");
	fclose(f);
	for (const char *p = text; *p; p++)
		if (p == text || p[-1] != '.' || *p < '0' || *p > '9')
			*to++ = *p;
		else
			while (p[1] >= '0' && p[1] <= '9')
				p++;
	*to = '\0';
	add(s, "timers", hash(text));
}

static void see_process(struct attrs_seen *s)
{
	static const char *const limits[] = {"limit cpu", "limit fsize", "limit data",
		"limit stack", "limit core", "limit rss", "limit nproc", "limit nofile",
		"limit memlock", "limit as", "limit locks", "limit sigpending", "limit msgqueue",
		"limit nice", "limit rtprio", "limit rttime"};
	FILE *f = fopen("/proc/self/oom_score_adj", "r");
	char text[32] = "";
	int reaper = 0;

	for (int i = 0; i < 16; i++) {
		struct rlimit lim = {0};

		getrlimit((__rlimit_resource_t)i, &lim);
		add(s, limits[i], lim.rlim_cur);
		add(s, limits[i], lim.rlim_max);
	}
	attrs_need(f && fgets(text, sizeof(text), f), "read oom_score_adj");
	fclose(f);
	add(s, "oom_score_adj", hash(text));
	prctl(PR_GET_CHILD_SUBREAPER, &reaper, 0, 0, 0);
	add(s, "child subreaper", (uint64_t)reaper);
	add(s, "dumpable", (uint64_t)prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
	add(s, "session leader", getsid(0) == getpid());
	see_timers(s);
	see_link(s, "/proc/self/exe");
	see_link(s, "/proc/self/cwd");
}

void attrs_observe(struct attrs_seen *s, unsigned thread)
{
	s->n = 0;
	see_status(s);
	see_thread(s);
	if (!thread)
		see_process(s);
}

void attrs_compare(const struct attrs_seen *was, const struct attrs_seen *is, unsigned thread)
{
	for (unsigned i = 0; i < was->n; i++)
		if (was->item[i].value != is->item[i].value)
			attrs_wrong(
				thread, was->item[i].name, was->item[i].value, is->item[i].value);
	attrs_counted(was->n);
}
