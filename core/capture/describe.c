/* SPDX-License-Identifier: MIT */
/* What the process is, but for its memory: facts of the thread before the fork, and in the snapshot
 * the mm fields, auxv, vDSO, signal actions, names. Forked child: no allocator, no lock. */
#include "core/capture/capture.h"
#include "arch/arch.h"
#include "core/base/host.h"
#include "core/base/maps.h"
#include "core/restore/vdso.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* glibc 2.35 and later; a C library without rseq has neither. */
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));

/* Bytes of a thread's control block that are searched for its tid (glibc 2.36: 2,304). */
#define TCB_SEARCH 2048

/* QEMU 7.2 has no PR_GET_TID_ADDRESS. The tid stands once in glibc's thread descriptor. */
static uint64_t find_tid_word(int32_t tid)
{
	const int32_t *tcb = (const int32_t *)pthread_self();
	uint64_t found = 0;

	for (size_t i = 0; i < TCB_SEARCH / sizeof(*tcb); i++) {
		if (tcb[i] != tid)
			continue;
		if (found)
			return 0;
		found = (uint64_t)&tcb[i];
	}
	return found;
}

void tf_capture_before(struct tf_before *b)
{
	stack_t ss = {.ss_flags = SS_DISABLE};
	int *tid_addr = NULL;
	void *head = NULL;
	size_t len = 0;

	*b = (struct tf_before){.pid = getpid(), .ppid = getppid(), .saved_errno = errno};
	b->tid = (int32_t)syscall(SYS_gettid);
	b->checks = tf_arch_checks();
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &b->sigmask, sizeof(b->sigmask));
	sigaltstack(NULL, &ss);
	b->altstack = (struct tf_altstack){(uint64_t)ss.ss_sp, ss.ss_size, ss.ss_flags};
	if (!syscall(SYS_get_robust_list, 0, &head, &len)) {
		b->robust_head = (uint64_t)head;
		b->robust_len = len;
	}
	if (!prctl(PR_GET_TID_ADDRESS, &tid_addr))
		b->tid_addr = (uint64_t)tid_addr;
	else
		b->tid_addr = find_tid_word(b->tid);
	b->tid_there = b->tid_addr && *(const int32_t *)b->tid_addr == b->tid;
	if (&__rseq_size && __rseq_size)
		b->rseq = (struct tf_rseq){
			(uint64_t)__builtin_thread_pointer() + (uint64_t)__rseq_offset,
			sizeof(struct rseq), RSEQ_SIG};
}

static const char *link_text(struct tf_arena *a, const char *path)
{
	char buf[TF_MAX_STR];
	ssize_t n = readlink(path, buf, sizeof(buf) - 1);

	return tf_arena_strn(a, buf, n > 0 ? (size_t)n : 0);
}

static int describe_source(struct tf_capture *c)
{
	struct tf_source *s = &c->image.source;
	struct rlimit stack = {0};
	struct utsname uts;
	bool emulated = tf_host_emulated();

	uname(&uts);
	getrlimit(RLIMIT_STACK, &stack);
	*s = (struct tf_source){
		.machine = tf_arch_native()->machine,
		.flags = emulated ? TF_SOURCE_EMULATED | TF_SOURCE_NO_SMAPS : 0,
		.origin = c->origin,
		.page_size = (uint32_t)sysconf(_SC_PAGESIZE),
		.pid = c->before.pid,
		.ppid = c->before.ppid,
		.realtime_ns = tf_clock_ns(CLOCK_REALTIME),
		.monotonic_ns = tf_clock_ns(CLOCK_MONOTONIC),
		.boottime_ns = tf_clock_ns(CLOCK_BOOTTIME),
		.mailbox = (uint64_t)&tf_mailbox,
		.stack_limit = stack.rlim_cur,
		.channel_fd = c->file || c->origin == TF_ORIGIN_SIGNAL ? -1 : c->channel_fd,
		.generation = tf_mailbox.generation,
		.release = tf_arena_strn(&c->arena, uts.release, sizeof(uts.release)),
		.exe = link_text(&c->arena, "/proc/self/exe"),
		.cwd = link_text(&c->arena, "/proc/self/cwd"),
		.version = TELEFORK_VERSION,
	};
	/* The rest of it is the receiver's, as a child's would be its parent's. */
	c->image.process.boot = "";
	s->umask = (uint32_t)umask(0);
	umask((mode_t)s->umask);
	for (uint32_t i = 0; i < c->image.n_maps; i++)
		s->max_map_end = c->image.maps[i].end;
	return s->release && s->exe && s->cwd ? 0 : TELEFORK_E_NOMEM;
}

/* Fields of /proc/PID/stat by their numbers in proc(5). QEMU 7.2 makes most of them up as 0. */
void tf_capture_parse_stat(const char *text, struct tf_mm *mm, int32_t *ret_ppid)
{
	uint64_t field[53] = {0};
	size_t n = 2;

	/* The name may hold anything. */
	for (const char *p = strrchr(text, ')'); p && *p && n + 1 < sizeof(field) / sizeof(*field);
		p++) {
		if (*p == ' ')
			n++;
		else if (*p >= '0' && *p <= '9')
			field[n] = field[n] * 10 + (uint64_t)(*p - '0');
	}
	*mm = (struct tf_mm){
		.start_code = field[26],
		.end_code = field[27],
		.start_stack = field[28],
		.start_data = field[45],
		.end_data = field[46],
		.start_brk = field[47],
		.arg_start = field[48],
		.arg_end = field[49],
		.env_start = field[50],
		.env_end = field[51],
	};
	if (ret_ppid)
		*ret_ppid = (int32_t)field[4];
}

static int describe_mm(struct tf_capture *c)
{
	size_t size;
	char *text;
	int rc = tf_proc_read(&c->arena, "/proc/self/stat", &text, &size, &c->err);

	if (rc)
		return rc;
	tf_capture_parse_stat(text, &c->image.mm, NULL);
	c->image.mm.brk = (uint64_t)syscall(SYS_brk, 0);
	return 0;
}

static int describe_auxv(struct tf_capture *c)
{
	char *text;
	size_t size;
	int rc = tf_proc_read(&c->arena, "/proc/self/auxv", &text, &size, &c->err);

	if (rc)
		return rc;
	c->image.n_auxv = (uint32_t)(size / 16);
	c->image.auxv = tf_arena_dup(&c->arena, text, size);
	return c->image.auxv ? 0 : TELEFORK_E_NOMEM;
}

static int describe_vdso(struct tf_capture *c)
{
	int rc = tf_vdso_from_maps(&c->image.vdso, c->image.maps, c->image.n_maps, &c->arena);

	return rc ? tf_fail(&c->err, rc, "out of memory for the vDSO's symbols") : 0;
}

static int describe_sigactions(struct tf_capture *c)
{
	struct tf_image *img = &c->image;

	img->n_sigactions = TF_SIGNALS;
	img->sigactions = tf_arena_array(&c->arena, TF_SIGNALS, sizeof(*img->sigactions));
	if (!img->sigactions)
		return TELEFORK_E_NOMEM;
	for (int i = 0; i < TF_SIGNALS; i++) /* libc hides 32 and 33 */
		syscall(SYS_rt_sigaction, i + 1, NULL, &img->sigactions[i], sizeof(uint64_t));
	if (c->replaced)
		img->sigactions[c->replaced - 1] = c->replaced_action;
	return 0;
}

static int describe_thread(struct tf_capture *c)
{
	struct tf_thread *t = tf_arena_alloc(&c->arena, sizeof(*t));

	if (!t)
		return TELEFORK_E_NOMEM;
	*t = (struct tf_thread){
		.tid = c->before.tid,
		.sigmask = c->before.sigmask,
		.altstack = c->before.altstack,
		.robust_head = c->before.robust_head,
		.robust_len = c->before.robust_len,
		.tid_addr = c->before.tid_addr,
		.rseq = c->before.rseq,
	};
	prctl(PR_GET_NAME, t->comm);
	c->image.threads = t;
	c->image.n_threads = 1;
	return 0;
}

int tf_capture_describe(struct tf_capture *c)
{
	static int (*const step[])(struct tf_capture *) = {
		describe_source,
		describe_mm,
		describe_auxv,
		describe_vdso,
		describe_sigactions,
		describe_thread,
	};

	tf_arch_cpu(&c->image.cpu, true);
	for (size_t i = 0; i < sizeof(step) / sizeof(*step); i++) {
		int rc = step[i](c);

		if (rc)
			return tf_fail(&c->err, rc, "out of memory while describing the process");
	}
	return 0;
}
