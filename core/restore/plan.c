/* SPDX-License-Identifier: MIT */
/* Building a plan step by step, and showing it. What goes into it is build.c's business. */
#include "core/restore/plan.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

int tf_plan_init(struct tf_plan *plan, struct tf_arena *a, uint64_t max)
{
	*plan = (struct tf_plan){.max_steps = max};
	plan->steps = tf_arena_array(a, max + 1, sizeof(*plan->steps)); /* the last is scratch */
	return plan->steps ? 0 : TELEFORK_E_NOMEM;
}

struct tf_step *tf_plan_add(struct tf_plan *plan, enum tf_op op, const char *comment)
{
	struct tf_step *s = &plan->steps[plan->n_steps];

	if (plan->n_steps == plan->max_steps)
		plan->full = true;
	else
		plan->n_steps++;
	*s = (struct tf_step){.op = (uint8_t)op, .expect = TF_EXPECT_SUCCESS, .comment = comment};
	return s;
}

struct tf_step *tf_plan_syscall(struct tf_plan *plan, const char *comment, long nr, unsigned n, ...)
{
	struct tf_step *s = tf_plan_add(plan, TF_OP_SYSCALL, comment);
	va_list ap;

	s->nr = (int32_t)nr;
	va_start(ap, n);
	for (unsigned i = 0; i < n && i < 6; i++)
		s->arg[i] = va_arg(ap, uint64_t);
	va_end(ap);
	return s;
}

uint64_t tf_plan_last(const struct tf_plan *plan)
{
	return plan->n_steps - 1;
}

/* Only what plans use; names follow the call, numbers the architecture. */
static const struct {
	long nr;
	const char *name;
	unsigned args;
} calls[] = {
	{SYS_mmap, "mmap", 6},
	{SYS_munmap, "munmap", 2},
	{SYS_mprotect, "mprotect", 3},
	{SYS_mremap, "mremap", 5},
	{SYS_madvise, "madvise", 3},
	{SYS_rt_sigaction, "rt_sigaction", 4},
	{SYS_sigaltstack, "sigaltstack", 2},
	{SYS_set_tid_address, "set_tid_address", 1},
	{SYS_set_robust_list, "set_robust_list", 2},
	{SYS_rseq, "rseq", 4},
	{SYS_prctl, "prctl", 5},
	{SYS_memfd_create, "memfd_create", 2},
	{SYS_ftruncate, "ftruncate", 2},
	{SYS_fchmod, "fchmod", 2},
	{SYS_fcntl, "fcntl", 3},
	{SYS_getrandom, "getrandom", 3},
	{SYS_write, "write", 3},
	{SYS_shmget, "shmget", 3},
	{SYS_shmctl, "shmctl", 3},
	{SYS_fchown, "fchown", 3},
	{SYS_shmat, "shmat", 3},
	{SYS_shmctl, "shmctl", 3},
	{SYS_mlock2, "mlock2", 3},
	{SYS_mlockall, "mlockall", 1},
	{SYS_pkey_alloc, "pkey_alloc", 2},
	{SYS_pkey_free, "pkey_free", 1},
	{SYS_pkey_mprotect, "pkey_mprotect", 4},
	{SYS_dup3, "dup3", 3},
	{SYS_openat, "openat", 4},
	{SYS_lseek, "lseek", 3},
	{SYS_getpid, "getpid", 0},
	{SYS_gettid, "gettid", 0},
	{SYS_rt_sigqueueinfo, "rt_sigqueueinfo", 3},
	{SYS_rt_tgsigqueueinfo, "rt_tgsigqueueinfo", 4},
	{SYS_userfaultfd, "userfaultfd", 1},
	{SYS_ioctl, "ioctl", 3},
	{SYS_close, "close", 1},
	{SYS_chdir, "chdir", 1},
	{SYS_umask, "umask", 1},
	{SYS_brk, "brk", 1},
	{SYS_setsockopt, "setsockopt", 5},
	{SYS_write, "write", 3},
	{SYS_setsid, "setsid", 0},
	{SYS_prlimit64, "prlimit64", 4},
	{SYS_sched_setaffinity, "sched_setaffinity", 3},
	{SYS_setpriority, "setpriority", 3},
	{SYS_sched_setattr, "sched_setattr", 3},
	{SYS_ioprio_set, "ioprio_set", 3},
	{SYS_personality, "personality", 1},
	{SYS_timer_create, "timer_create", 3},
	{SYS_timer_delete, "timer_delete", 1},
	{SYS_timer_getoverrun, "timer_getoverrun", 1},
	{SYS_timer_settime, "timer_settime", 4},
	{SYS_setitimer, "setitimer", 3},
	{SYS_capset, "capset", 2},
	{SYS_setgroups, "setgroups", 2},
	{SYS_setresgid, "setresgid", 3},
	{SYS_setresuid, "setresuid", 3},
	{SYS_setfsgid, "setfsgid", 1},
	{SYS_setfsuid, "setfsuid", 1},
	{SYS_seccomp, "seccomp", 3},
#ifdef SYS_arch_prctl
	{SYS_arch_prctl, "arch_prctl", 2},
#endif
};

static const char *call_name(int32_t nr, unsigned *args)
{
	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++)
		if (calls[i].nr == nr) {
			*args = calls[i].args;
			return calls[i].name;
		}
	*args = 6;
	return "syscall";
}

static void add_text(char *buf, size_t size, const char *fmt, ...)
{
	size_t n = strlen(buf);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(buf + n, size - n, fmt, ap);
	va_end(ap);
}

static void add_args(const struct tf_step *s, unsigned n, char *buf, size_t size)
{
	for (unsigned i = 0; i < n; i++) {
		const char *comma = i ? ", " : "";

		if (s->refs & 1u << i)
			add_text(buf, size, "%sresult of step %" PRIu64, comma, s->arg[i]);
		else if ((int64_t)s->arg[i] < 4096 && (int64_t)s->arg[i] > -4096)
			add_text(buf, size, "%s%" PRId64, comma, (int64_t)s->arg[i]);
		else
			add_text(buf, size, "%s0x%" PRIx64, comma, s->arg[i]);
	}
}

void tf_step_text(const struct tf_step *s, char *buf, size_t size)
{
	static const struct {
		const char *name;
		unsigned args;
	} ops[TF_OPS] = {
		[TF_OP_FILL] = {"fill", 2},
		[TF_OP_STORE] = {"store", 3},
		[TF_OP_STORE_IF] = {"store_if", 4},
		[TF_OP_COPY] = {"copy", 3},
		[TF_OP_OWNERS] = {"owners", 3},
		[TF_OP_BARRIER] = {"barrier", 1},
		[TF_OP_ZYGOTE] = {"zygote", 2},
		[TF_OP_GATE] = {"gate", 2},
		[TF_OP_ARCH] = {"register", 3},
		[TF_OP_SIGN] = {"sign", 4},
		[TF_OP_TAGS] = {"tags", 2},
		[TF_OP_TRACER] = {"tracer", 2},
		[TF_OP_THREAD] = {"thread", 3},
		[TF_OP_ARRIVE] = {"arrive", 0},
		[TF_OP_GATHER] = {"gather", 1},
		[TF_OP_RELEASE] = {"release", 0},
		[TF_OP_SIGRETURN] = {"rt_sigreturn", 1},
	};
	unsigned args;

	buf[0] = '\0';
	if (s->op == TF_OP_SYSCALL) {
		add_text(buf, size, "%s(", call_name(s->nr, &args));
	} else {
		add_text(buf, size, "%s(", s->op < TF_OPS ? ops[s->op].name : "?");
		args = s->op < TF_OPS ? ops[s->op].args : 6;
	}
	add_args(s, args, buf, size);
	add_text(buf, size, ")");
	if (s->op == TF_OP_SYSCALL && s->expect == TF_EXPECT_VALUE)
		add_text(buf, size, " = 0x%" PRIx64, s->expected);
	else if (s->op == TF_OP_SYSCALL && s->expect == TF_EXPECT_ANY)
		add_text(buf, size, " = any");
	if (s->comment)
		add_text(buf, size, "  ; %s", s->comment);
}
