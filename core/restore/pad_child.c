/* SPDX-License-Identifier: MIT */
/*
 * Receiving, the child's side (pad.c): its fork, descriptors and the restorer's range, then the
 * restorer takes over. The child of a threaded receiver: calls no allocator and takes no lock.
 */
#include "arch/arch.h"
#include "arch/restorer.h"
#include "core/base/crc32c.h"
#include "core/base/host.h"
#include "core/restore/fit.h"
#include "core/restore/pad_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

uint64_t tf_restorer_size(void)
{
	return (uint64_t)(__stop_tf_restorer - __start_tf_restorer);
}

pid_t tf_pad_fork_as(int32_t pid)
{
	struct clone_args args = {
		.exit_signal = SIGCHLD, .set_tid = (uint64_t)(uintptr_t)&pid, .set_tid_size = 1};

	return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

int tf_pad_explain_fork(struct tf_pad *p)
{
	int pid = p->image.source.pid, why = errno;

	if (!p->restore.same_ids)
		return tf_fail_errno(&p->err, TELEFORK_E_SYSTEM, why, "fork");
	return tf_fail_errno(&p->err, TELEFORK_E_INCOMPATIBLE, why,
		"process id %d cannot be had: %s", pid,
		why == EEXIST ? "it is in use here: end that process, or let this one have a new id"
		: why == EPERM  ? "only a receiver with CAP_CHECKPOINT_RESTORE may choose one: run "
				  "it as root, "
				  "or let the process have a new id"
		: why == ENOSYS ? "there is no clone3 here: let the process have a new id"
				: "let the process have a new id");
}

static _Noreturn void child_fail(int control, int code, const char *what)
{
	struct tf_report r = {.tag = 'e', .error = -errno, .step = UINT64_MAX};

	(void)what;
	r.where = (uint64_t) - (int64_t)code;
	if (write(control, &r, sizeof(r)) < 0)
		_exit(126);
	_exit(127);
}

/* Of nanoseconds, rounded down: the rest is never negative. */
static long long seconds(int64_t ns)
{
	return ns / 1000000000 - (ns % 1000000000 < 0);
}

static long long rest(int64_t ns)
{
	return ns - seconds(ns) * 1000000000;
}

/* Its clocks go on from where they were when it was captured. The child is alone, so it enters the
 * namespace that it made for its children. */
static void child_clocks(const struct tf_pad *p, int control)
{
	const struct tf_source *s = &p->image.source;
	struct tf_clocks ours = tf_host_clocks(0);
	int64_t monotonic =
		(int64_t)(s->monotonic_ns - tf_clock_ns(CLOCK_MONOTONIC)) + ours.monotonic;
	int64_t boottime = (int64_t)(s->boottime_ns - tf_clock_ns(CLOCK_BOOTTIME)) + ours.boottime;
	char text[96];
	int fd, ns, n;

	n = snprintf(text, sizeof(text), "monotonic %lld %lld\nboottime %lld %lld\n",
		seconds(monotonic), rest(monotonic), seconds(boottime), rest(boottime));
	if (unshare(CLONE_NEWTIME))
		child_fail(control, TELEFORK_E_SYSTEM, "a time namespace");
	fd = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
	ns = open("/proc/self/ns/time_for_children", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || ns < 0 || write(fd, text, (size_t)n) != n || setns(ns, CLONE_NEWTIME))
		child_fail(control, TELEFORK_E_SYSTEM, "a time namespace");
	close(fd);
	close(ns);
}

static void child_stdio(const struct tf_pad *p, const struct tf_relay_ends *ends, int control)
{
	int null = open("/dev/null", O_RDWR), log = fcntl(2, F_GETFD) < 0 ? null : 2;
	enum telefork_stdio stdio = p->options->stdio;

	for (int i = 0; i < 3; i++) {
		int from = null;

		if (tf_pad_relayed(p))
			from = i ? ends->output[i - 1] : null;
		else if (stdio == TELEFORK_STDIO_INHERIT || (stdio == TELEFORK_STDIO_INPUT && !i))
			continue;
		else if (stdio != TELEFORK_STDIO_NULL && i)
			from = log;
		if (from != i && dup2(from, i) < 0)
			child_fail(control, TELEFORK_E_SYSTEM, "standard streams");
	}
}

static int to_number(int fd, int number, int control)
{
	if (fd != number && dup2(fd, number) < 0)
		child_fail(control, TELEFORK_E_SYSTEM, "descriptors");
	return number;
}

/* Leaves 0, 1, 2 and those that the plan knows. They may stand where others have to go: all
 * sources are first moved above every number in use. */
static void child_fds(const struct tf_pad *p, int channel, int control, int back)
{
	const struct tf_restore_fds *n = &p->restore.fds;
	struct rlimit lim;
	int above = n->reserve + 2, reserve, keep[7] = {0, 1, 2};

	if (!getrlimit(RLIMIT_NOFILE, &lim) &&
		lim.rlim_cur < (rlim_t)above + 8 + p->image.n_objects) {
		lim.rlim_cur = lim.rlim_max;
		setrlimit(RLIMIT_NOFILE, &lim);
	}
	control = fcntl(control, F_DUPFD, above);
	channel = fcntl(channel, F_DUPFD, above);
	back = tf_pad_relayed(p) ? fcntl(back, F_DUPFD, above) : channel;
	reserve = open("/dev/null", O_PATH); /* no folder: openat() fails, too */
	if (reserve < 0)
		reserve = open("/", O_PATH);
	if (control < 0 || channel < 0 || back < 0 || reserve < 0)
		child_fail(control, TELEFORK_E_LIMIT, "descriptors");
	reserve = fcntl(reserve, F_DUPFD, above);
	keep[3] = to_number(channel, n->channel, control);
	keep[4] = to_number(control, n->control, control);
	keep[5] = to_number(reserve, n->reserve, control);
	keep[6] = to_number(back, n->back, control);
	tf_host_close_all(keep, 7);
}

/* A socket gives up by itself (limit_reads), and so does a pump that is a file's; a pipe or a
 * socket that never blocks has to be waited for. */
static bool reads_are_limited(const struct tf_pad *p)
{
	return p->file || (p->io.socket && !(fcntl(p->restore.fds.channel, F_GETFL) & O_NONBLOCK));
}

/* Where code of the restorer's will stand. */
static uint64_t blob_address(const struct tf_pad *p, uint64_t here)
{
	return p->restore.code_at + (here - (uint64_t)(uintptr_t)__start_tf_restorer);
}

/* The table, where it is used: each page that is written to here is a fresh one. */
static void copy_data(const struct tf_restore *r, bool table)
{
	uint64_t n = r->crc_table_at, rest = table ? n : n + TF_CRC32C_TABLE;

	memcpy((void *)r->data_at, r->data, n);
	memcpy((void *)(r->data_at + rest), r->data + rest, r->data_size - rest);
}

/* Maps the restorer's range and puts everything into it. */
static struct tf_plan_header *child_map(const struct tf_pad *p)
{
	const struct tf_restore *r = &p->restore;
	uint64_t size = r->park_at - r->hole.start;
	uint8_t *at = mmap((void *)r->hole.start, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE, -1, 0);
	struct tf_plan_header *h = (struct tf_plan_header *)at;

	if ((uint64_t)at != r->hole.start)
		child_fail(r->fds.control, TELEFORK_E_COLLISION, "the restorer's range");
	*h = (struct tf_plan_header){
		.mark = TF_PLAN_MARK,
		.start = r->hole.start,
		.end = r->park_at,
		.steps = r->steps_at,
		.n_steps = r->plan.n_steps,
		.fills = r->fills_at,
		.n_fills = r->n_fills,
		.crc_table = r->data_at + r->crc_table_at,
		.crc_instruction = tf_crc32c_has_instruction(),
		.control_fd = r->fds.control,
		.buffer = r->buffer_at,
		.page = p->facts.page_size,
		.owners = r->owners_at,
		.count = p->count,
		.chain = p->chain,
		.max_bytes = p->to_come,
		.gate_fd = r->fds.gate,
		.idle_ms = reads_are_limited(p) ? 0 : p->io.idle_ms,
		.thread_entry = blob_address(p, (uint64_t)(uintptr_t)tf_restorer_thread),
	};
	memcpy((void *)r->fills_at, r->fills, r->n_fills * sizeof(*r->fills));
	memcpy((void *)r->steps_at, r->plan.steps, r->plan.n_steps * sizeof(*r->plan.steps));
	copy_data(r, !h->crc_instruction);
	memcpy((void *)r->code_at, __start_tf_restorer, tf_restorer_size());
	tf_arch_flush((void *)r->code_at, tf_restorer_size());
	if (mprotect((void *)r->code_at, r->park_at - r->code_at, PROT_READ | PROT_EXEC))
		child_fail(r->fds.control, TELEFORK_E_SYSTEM, "mprotect");
	return h;
}

/* The receiver's own standard streams may be closed: what the new process needs must not stand
 * there. */
static int above_stdio(int fd)
{
	return fd < 0 || fd > STDERR_FILENO ? fd : fcntl(fd, F_DUPFD, STDERR_FILENO + 1);
}

_Noreturn void tf_pad_child(
	const struct tf_pad *p, int channel, int control, struct tf_relay_ends *ends)
{
	uint64_t all = ~UINT64_C(0);
	stack_t off = {.ss_flags = SS_DISABLE};
	struct tf_plan_header *h;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof(all));
	/* Nothing half made outlives the receiver; the plan takes this back at its end. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) || getppid() != p->receiver)
		_exit(127);
	sigaltstack(&off, NULL);
	if (p->facts.flags & TF_FACT_TIME_NS && tf_fit_clocks(&p->image, &p->facts))
		child_clocks(p, control);
	if (tf_pad_relayed(p))
		setpgid(0, 0); /* what the function started ends with it */
	/* The kernel continues stopped processes of a group that its shell has left (orphaned): one
	 * that is held must not be in it. */
	if (p->mark.from)
		setsid();
	control = above_stdio(control);
	channel = above_stdio(channel);
	ends->back = above_stdio(ends->back);
	for (int i = 0; i < 2; i++)
		ends->output[i] = above_stdio(ends->output[i]);
	child_stdio(p, ends, control);
	child_fds(p, channel, control, ends->back);
	h = child_map(p);
	tf_arch_scramble(&p->facts.cpu); /* what is lost must not be replaced by what was here */
	tf_r_enter(blob_address(p, (uint64_t)(uintptr_t)tf_restorer_main), p->restore.stack_top,
		(uint64_t)h);
}
