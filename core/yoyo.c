/* SPDX-License-Identifier: MIT */
/*
 * telefork_yoyo(): there, and back into the same process.
 *
 *   home                               receiver        copy
 *   snapshot, sent --------------------- restores ---->  notes its memory, forks a twin
 *   relays output <------ frames -------- relays <-----  fn(arg)
 *   stages the changes <----------------- relays <-----  captures what changed, _exit
 *   applies them, returns
 *
 * Between the snapshot and the return home calls no allocator: the heap that comes back takes the
 * place of its own.
 */
#include "core/base/cleanup.h"
#include "core/base/host.h"
#include "core/base/own.h"
#include "core/capture/changes.h"
#include "core/channel/frames.h"
#include "core/restore/merge.h"
#include "core/telefork_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct yoyo {
	void (*fn)(void *arg);
	void *arg;
	struct telefork_options options; /* with what is left of the time */
	uint64_t stack;                  /* address of the caller's frame */
	uint64_t sigmask;
	uint64_t deadline_ns; /* 0: none */
	int fd;
	struct tf_before before; /* of this thread, here */
	struct tf_merge merge;
	struct telefork_result result;
	struct tf_err err;
};

/* --- the copy --- */

/* The copy's capture, for the signal handler that sends it. */
TF_OWN static struct tf_capture *going_home;

static _Noreturn void give_up(struct tf_capture *c)
{
	struct tf_reply r = {.code = c->err.code};
	struct tf_err quiet = {0};

	tf_reply_write(&c->io, &r, c->err.text, &quiet);
	_exit(1);
}

static void send_changes(const void *ucontext)
{
	if (tf_capture_from_frame(going_home, ucontext, 0, 0))
		give_up(going_home);
	_exit(0);
}

/* The function's own signals would change memory while it is looked at. The number of our channel
 * may be another file's by now: that one is not written to. */
static void go_home(struct tf_capture *c, const struct stat *channel)
{
	uint64_t all = ~UINT64_C(0);
	struct stat st;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof(all));
	if (fstat(c->channel_fd, &st) || st.st_ino != channel->st_ino ||
		st.st_dev != channel->st_dev)
		_exit(126);
	if (!tf_host_alone())
		tf_fail(&c->err, TELEFORK_E_THREADS,
			"the function left threads running: it has to join them");
	if (!c->err.code && !tf_capture_read_maps(c)) {
		going_home = c;
		tf_capture_raise(c, send_changes);
	}
	give_up(c);
}

static _Noreturn void copy_main(const struct yoyo *y)
{
	struct tf_capture at_home = {.channel_fd = tf_mailbox.peer_fd,
		.peer_keep = -1,
		.fds_fd = -1,
		.origin = TF_ORIGIN_RETURN};
	struct tf_capture *c;
	struct stat channel;

	tf_copy_arrived();
	tf_mailbox.peer_fd = -1; /* nobody but us talks to home */
	tf_io_init(&at_home.io, at_home.channel_fd, NULL);
	if (fstat(at_home.channel_fd, &channel) || tf_arena_init(&at_home.arena, TF_ARENA_DEFAULT))
		_exit(126);
	c = tf_arena_dup(&at_home.arena, &at_home, sizeof(at_home));
	c->arena = at_home.arena;
	tf_capture_before(&c->before);
	c->returns = true;
	if (tf_changes_begin(c, y->stack))
		give_up(c);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &y->sigmask, NULL, sizeof(y->sigmask));
	y->fn(y->arg);
	go_home(c, &channel);
	_exit(126);
}

/* --- home --- */

/* Signals with a handler wait: what it would write here could be overwritten by what comes back. */
static uint64_t block_handled(void)
{
	uint64_t set = 0, before = 0;

	for (int signo = 1; signo <= TF_SIGNALS; signo++) {
		struct tf_sigaction sa = {0};

		if (!syscall(SYS_rt_sigaction, signo, NULL, &sa, sizeof(uint64_t)) &&
			sa.handler > (uint64_t)(uintptr_t)SIG_IGN)
			set |= UINT64_C(1) << (signo - 1);
	}
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, &before, sizeof(before));
	return before;
}

/* More than what is called from keep_own()'s caller on needs of the stack, a lazily bound symbol
 * included. What lies further down on a coroutine's stack may be another thing, which comes
 * back. */
#define OWN_FRAMES 16384u

/* What is this process's own and not the program's, or only here true. In a frame of its own, which
 * is as deep as that of the one who applies. */
static __attribute__((noinline)) void keep_own(struct yoyo *y)
{
	struct tf_merge *m = &y->merge;
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), rseq = y->before.rseq.addr;
	uint64_t here = (uint64_t)__builtin_frame_address(0) - OWN_FRAMES;
	const struct tf_map *stack;

	tf_merge_keep(m, (uint64_t)__start_tf_own, (uint64_t)__stop_tf_own);
	tf_merge_keep(m, y->before.tid_addr, y->before.tid_addr ? y->before.tid_addr + 4 : 0);
	tf_merge_keep(m, rseq, rseq ? rseq + y->before.rseq.len : 0);
	tf_merge_keep(m, here, y->stack);
	for (uint32_t i = 0; i < m->n_maps; i++) {
		stack = &m->maps[i];
		if (stack->kind == TF_MAP_STACK && y->stack >= stack->start && here < stack->end)
			tf_merge_keep(m, stack->start - page, here);
		if (stack->kind == TF_MAP_VDSO || stack->kind == TF_MAP_VVAR)
			tf_merge_keep(m, stack->start, stack->end);
	}
}

/* The first bytes tell whether changes come, or words. */
static int read_first(struct tf_io *io, struct tf_stream_header *h, struct tf_err *e)
{
	struct tf_reply reply;
	char text[TELEFORK_MESSAGE_MAX];
	int rc = tf_io_read(io, h->magic, sizeof(h->magic), e);

	if (rc)
		return rc;
	if (memcmp(h->magic, TF_REPLY_MAGIC, sizeof(h->magic)))
		return tf_io_read(
			io, (char *)h + sizeof(h->magic), sizeof(*h) - sizeof(h->magic), e);
	memcpy(reply.magic, h->magic, sizeof(reply.magic));
	rc = tf_reply_read_rest(io, &reply, sizeof(reply.magic), text, e);
	return rc ? rc : tf_fail(e, reply.code ?: TELEFORK_E_PROTOCOL, "%s", text);
}

/* The deadline began with the call. */
static void limit_time(struct yoyo *y)
{
	uint64_t now = tf_now_ns();

	if (y->deadline_ns)
		y->options.deadline_ms =
			now < y->deadline_ns ? (int)((y->deadline_ns - now) / 1000000u) + 1 : 1;
}

static int come_back(struct yoyo *y)
{
	struct tf_stream_header h;
	struct tf_io io;
	int rc;

	limit_time(y);
	tf_io_init(&io, y->fd, &y->options);
	tf_frames_read(&io);
	rc = read_first(&io, &h, &y->err);
	if (!rc)
		rc = tf_merge_receive(&y->merge, &io, &h, &y->err);
	if (!rc)
		rc = tf_frames_finish(&io, &y->err);
	y->result.bytes_received += io.received;
	if (rc)
		return rc;
	keep_own(y);
	rc = tf_merge_apply(&y->merge, &y->err);
	if (!rc && tf_host_emulated())
		(void)!brk(NULL); /* the C library's memory of it is of over there */
	return rc;
}

/* The snapshot's last word: the copy runs, or why not. */
static void await_departure(struct yoyo *y, int status_fd, pid_t pid, bool child)
{
	uint64_t start = y->result.total_ns, stopped = y->result.stopped_ns;
	struct tf_status s;
	bool done = tf_status_read(status_fd, TF_STATUS_DONE, &s);

	close(status_fd);
	if (child)
		while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
			;
	if (!done) {
		tf_fail(&y->err, TELEFORK_E_SYSTEM, "the snapshot ended without a word");
		return;
	}
	y->result = s.result;
	y->result.total_ns = start;
	y->result.stopped_ns = stopped;
	if (s.result.error)
		tf_fail(&y->err, s.result.error, "%s", s.result.message);
}

static int there_and_back(struct yoyo *y)
{
	struct tf_snapshot s = {.options = &y->options,
		.origin = TF_ORIGIN_YOYO,
		.stream_flags = TF_STREAM_RELAY,
		.channel_fd = y->fd};
	uint64_t start = tf_now_ns();
	int status_fd, rc;
	bool child;
	pid_t pid;

	limit_time(y);
	tf_capture_before(&y->before);
	rc = tf_snapshot_fork(&s, &status_fd, &pid, &child, &y->err);
	if (!rc)
		copy_main(y);
	if (rc < 0)
		return rc;
	y->result.stopped_ns = tf_now_ns() - start;
	rc = tf_merge_init(&y->merge, &y->err);
	if (rc) /* the snapshot sees it, and ends */
		shutdown(y->fd, SHUT_RDWR);
	await_departure(y, status_fd, pid, child);
	rc = y->err.code;
	if (!rc)
		rc = come_back(y);
	tf_merge_done(&y->merge);
	return rc;
}

/* Where a standard stream is closed, what fn prints must not go into the channel. */
static int above_stdio(int fd, struct tf_err *e)
{
	int above = fd < 0 ? fd : tf_fd_above_stdio(fd);

	return above < 0 && fd >= 0 ? tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "a descriptor")
				    : above;
}

/* Its frame is the border: above it the stack is the program's and comes back, below it is ours. */
__attribute__((noinline)) int telefork_yoyo(
	const char *uri, void (*fn)(void *arg), void *arg, const struct telefork_options *options)
{
	struct yoyo y = {.fn = fn, .arg = arg, .stack = (uint64_t)__builtin_dwarf_cfa()};
	uint64_t start = tf_now_ns();
	struct tf_address address;
	int rc = tf_options_take(options, &y.options, &y.err);

	y.result.total_ns = start;
	if (y.options.deadline_ms)
		y.deadline_ns = start + (uint64_t)y.options.deadline_ms * 1000000u;
	if (!rc && !fn)
		rc = tf_fail(&y.err, TELEFORK_E_INVAL, "there is no function to run");
	if (!rc && !tf_host_alone())
		rc = tf_fail(&y.err, TELEFORK_E_THREADS,
			"the process has other threads, which would not see the changes: join them");
	if (!rc)
		rc = tf_address_parse(uri, &address, &y.err);
	if (!rc && (address.kind == TF_ADDRESS_FILE || address.kind == TF_ADDRESS_STDIO))
		rc = tf_fail(
			&y.err, TELEFORK_E_ADDRESS, "%s: nobody can come back from there", uri);
	if (!rc)
		rc = y.fd = above_stdio(tf_dial(&address, &y.options, NULL, NULL, &y.err), &y.err);
	if (rc >= 0) {
		y.sigmask = block_handled();
		rc = there_and_back(&y);
		close(y.fd);
		syscall(SYS_rt_sigprocmask, SIG_SETMASK, &y.sigmask, NULL, sizeof(y.sigmask));
	}
	if (y.options.result) {
		y.result.error = y.err.code;
		y.result.total_ns = tf_now_ns() - start;
		memcpy(y.result.message, y.err.text, sizeof(y.result.message));
		*y.options.result = y.result;
	}
	return rc;
}
