/* SPDX-License-Identifier: MIT */
/*
 * fork() gives the snapshot, copy on write; the child describes itself and sends its own memory. No
 * ptrace, no privilege. The snapshot must not show: no SIGCHLD, nothing for the program's wait(),
 * no descriptor held when the parent runs on. The child calls no allocator and takes no lock.
 *
 *   parent                         child (snapshot)
 *   block signals
 *   raw clone ------------------->  freeze shared memory
 *   list descriptors ------------>
 *   wait  <------- READY ---------  close everything
 *   restore mask, return 1         raise a signal: the frame is the copy's registers
 *   …                              send it all, read the answer
 *   telefork_wait <-- DONE -------  _exit
 *                                                        the copy returns from the raise with
 * 1 */
#include "core/capture/self.h"
#include "arch/arch.h"
#include "core/base/cleanup.h"
#include "core/base/crc32c.h"
#include "core/base/guest.h"
#include "core/base/host.h"
#include "core/base/own.h"
#include "core/capture/changes.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define HANDLER_STACK (256u << 10)
#define HELPER_STACK  (256u << 10) /* for the program's atfork handlers */
#define RESULT_COPY   1
#define AWAKE_NS      1000000

TF_OWN struct tf_mailbox tf_mailbox = {.magic = TF_MAILBOX_MAGIC,
	.peer_fd = -1,
	.own_start = (uint64_t)__start_tf_own,
	.own_end = (uint64_t)__stop_tf_own};

/* The child's, for its signal handler. The parent never touches it. */
TF_OWN static struct tf_capture capture;
TF_OWN static const struct tf_snapshot *current;
TF_OWN static int status_fd = -1;
/* The signal that comes next is our own, and goes there. */
TF_OWN static void (*volatile raised)(const void *ucontext);

/* --- the child --- */

static _Noreturn void finish(struct telefork_result *r)
{
	struct tf_status s = {.kind = TF_STATUS_DONE, .pid = getpid(), .result = *r};

	if (capture.err.code) {
		s.result.error = capture.err.code;
		memcpy(s.result.message, capture.err.text, sizeof(s.result.message));
	}
	s.result.bytes_sent = capture.io.sent;
	s.result.bytes_received = capture.io.received;
	tf_status_write(status_fd, &s);
	_exit(0);
}

static void held_fds(struct telefork_result *r)
{
	for (uint32_t i = 0; i < capture.image.n_fds; i++) {
		int fd = capture.image.fds[i].fd;

		if (fd < 3 || fd == capture.channel_fd)
			continue;
		if (r->held_total < TELEFORK_HELD_MAX)
			r->held[r->held_total] = fd;
		r->held_total++;
	}
}

/* A pipe leads one way: nobody answers. */
static bool answers(void)
{
	int flags = fcntl(capture.io.fd, F_GETFL);

	return !capture.file && (capture.io.socket || (flags & O_ACCMODE) == O_RDWR);
}

/* When sending fails, the other side may have said why before it closed. */
static void read_refusal(void)
{
	struct tf_err quiet = {0};
	struct tf_reply reply;
	char message[TELEFORK_MESSAGE_MAX];

	if (capture.err.code != TELEFORK_E_CLOSED || !answers())
		return;
	capture.io.idle_ms = TF_WHY_MS;
	if (!tf_reply_read(&capture.io, &reply, message, &quiet) && reply.code) {
		capture.err.code = 0;
		tf_fail(&capture.err, reply.code, "%s", message);
	}
}

static void read_answer(struct telefork_result *r)
{
	struct tf_err quiet = {0};
	struct tf_reply reply;
	char message[TELEFORK_MESSAGE_MAX];
	int rc = tf_reply_read(&capture.io, &reply, message, &quiet);

	if (rc) {
		tf_fail(&capture.err, rc,
			"no answer came: %s; whether the copy runs over there is not known",
			quiet.text);
		return;
	}
	if (reply.code) {
		tf_fail(&capture.err, reply.code, "%s", message);
		return;
	}
	r->pid = reply.pid;
	r->registers = reply.registers;
}

static void send_and_exit(const void *ucontext)
{
	struct telefork_result r = {0};
	int before = tf_io_widen(&capture.io);
	int rc = tf_capture_from_frame(
		&capture, ucontext, current->ucontext ? 0 : RESULT_COPY, current->stream_flags);

	tf_io_narrow(&capture.io, before);
	if (rc && !current->many)
		read_refusal();
	else if (answers() && !current->many)
		read_answer(&r);
	r.mappings = capture.image.n_maps;
	r.memory = capture.memory;
	r.split = tf_capture_split(&capture, capture.before.pid);
	held_fds(&r);
	if (!capture.err.code && current->finish)
		current->finish(current->ctx, &capture.err);
	finish(&r);
}

/* A handler has its own mask, and SS_AUTODISARM takes the stack away meanwhile: what the
 * interrupted program had stands in the frame. */
static void signal_state_from_frame(const ucontext_t *uc, struct tf_thread *t)
{
	memcpy(&t->sigmask, &uc->uc_sigmask, sizeof(t->sigmask));
	t->altstack = (struct tf_altstack){
		(uint64_t)uc->uc_stack.ss_sp, uc->uc_stack.ss_size, uc->uc_stack.ss_flags};
}

int tf_capture_from_frame(
	struct tf_capture *c, const void *ucontext, uint64_t result, uint32_t stream_flags)
{
	struct tf_thread *t;
	int rc = tf_capture_describe(c);

	tf_crc32c_prepare();
	if (rc)
		return rc;
	t = c->image.threads;
	rc = tf_arch_regs_from_frame(ucontext, &c->image.cpu, &c->arena, &t->regs, &c->err);
	if (!rc)
		rc = tf_arch_add_checks(&t->regs, &c->arena, c->before.checks);
	if (rc)
		return tf_fail(&c->err, rc, "the signal frame is not understood");
	if (c->origin == TF_ORIGIN_SIGNAL)
		signal_state_from_frame(ucontext, t);
	if (result)
		tf_arch_native()->set_result(&t->regs, result);
	rc = c->base ? tf_changes_find(c) : tf_capture_find_pages(c);
	if (!rc)
		rc = tf_capture_tags(c, 0);
	if (!rc)
		rc = tf_arch_capture_traced(&c->image, &c->arena, &c->err);
	if (!rc)
		rc = tf_arch_signatures(&c->image, &c->arena, &c->err);
	return rc ? rc : tf_capture_send(c, stream_flags);
}

void tf_signal_entry(int signo, void *info, void *ucontext)
{
	(void)info;
	if (raised)
		raised(ucontext);
	else
		tf_signal_arrived(signo, ucontext);
}

static int catch_on_own_stack(struct tf_capture *c, int signo)
{
	struct sigaction sa = {.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	stack_t ss = {.ss_sp = tf_arena_alloc(&c->arena, HANDLER_STACK), .ss_size = HANDLER_STACK};
	sigset_t only;

	sa.sa_sigaction = (void (*)(int, siginfo_t *, void *))tf_arch_signal_trampoline;
	sigemptyset(&only);
	sigaddset(&only, signo);
	c->replaced = signo;
	syscall(SYS_rt_sigaction, signo, NULL, &c->replaced_action, sizeof(uint64_t));
	if (!ss.ss_sp || sigaltstack(&ss, NULL) || sigaction(signo, &sa, NULL) ||
		sigprocmask(SIG_UNBLOCK, &only, NULL))
		return tf_fail_errno(&c->err, TELEFORK_E_SYSTEM, errno, "cannot take a signal");
	return 0;
}

int tf_capture_raise(struct tf_capture *c, void (*fn)(const void *ucontext))
{
	int rc = catch_on_own_stack(c, SIGUSR1);

	if (rc)
		return rc;
	raised = fn;
	rc = (int)tf_arch_raise(getpid(), (int)syscall(SYS_gettid), SIGUSR1);
	/* fn does not return: from here on this is the copy. */
	raised = NULL;
	return rc;
}

static void say_ready(void)
{
	struct tf_status s = {.kind = TF_STATUS_READY, .pid = getpid()};

	s.result.error = capture.err.code;
	memcpy(s.result.message, capture.err.text, sizeof(s.result.message));
	tf_status_write(status_fd, &s);
}

/* Until READY the parent stands still: only what cannot wait. */
static int freeze(struct tf_capture *c)
{
	const int keep[3] = {c->channel_fd, status_fd, c->fds_fd};
	int rc;

	if (c->before.checks && (c->returns || tf_host_emulated()))
		tf_fail_more(&c->err, TELEFORK_E_UNSUPPORTED,
			"tagged addresses are in use, and memory tags do not travel %s: set "
			"PR_SET_TAGGED_ADDR_CTRL to 0 before the call, or start the program "
			"without it (GLIBC_TUNABLES glibc.mem.tagging)",
			c->returns ? "with a function that returns" : "out of QEMU user mode");
	tf_arch_no_checks(c->before.checks);
	rc = tf_capture_freeze(c);
	if (!rc)
		rc = c->fds_fd < 0 ? tf_capture_files(c) : tf_capture_files_told(c);
	if (!rc)
		tf_host_close_all(keep, 3);
	return rc;
}

/* fork() wrote a child's tid where the C library keeps it: the image says what the program had. */
static void own_tid(const struct tf_before *before)
{
	if (before->tid_there)
		*(int32_t *)before->tid_addr = before->tid;
}

/* Runs in the snapshot; returns only in the copy. */
static int child_main(
	const struct tf_snapshot *s, const struct tf_before *before, int out, int told)
{
	struct tf_capture *c = &capture;
	struct stat st;
	int rc;

	memset(c, 0, offsetof(struct tf_capture, sink)); /* each page of it is copied now */
	current = s;
	status_fd = out;
	c->before = *before;
	c->origin = s->origin;
	c->channel_fd = s->channel_fd;
	c->returns = s->origin == TF_ORIGIN_YOYO;
	c->peer_keep = out;
	c->fds_fd = told;
	c->drop = true;
	c->many = s->many;
	rc = tf_guest_arena(&c->arena);
	if (rc)
		tf_fail(&c->err, rc, "no address space for a snapshot");
	else
		rc = freeze(c);
	own_tid(&c->before);
	say_ready();
	tf_closep(&told); /* takes time, and nobody else has it any more */
	if (rc)
		_exit(0);
	if (s->dial && (c->channel_fd = s->dial(s->ctx, &c->err)) < 0)
		finish(&(struct telefork_result){0});
	c->file = !fstat(c->channel_fd, &st) && S_ISREG(st.st_mode);
	tf_io_init(&c->io, c->channel_fd, s->options);
	c->io.heed = c->io.socket && !s->many;
	if (s->ucontext)
		send_and_exit(s->ucontext);
	rc = tf_capture_raise(c, send_and_exit);
	if (rc != RESULT_COPY)
		finish(&(struct telefork_result){0});
	return 0;
}

/* --- the parent --- */

/* Even _Fork() writes in the child: the tid into the thread's descriptor, a fresh robust list. */
static pid_t plain_fork(void)
{
	return (pid_t)syscall(SYS_clone, (long)SIGCHLD, 0L, 0L, 0L, 0L);
}

/* A child of the program that has ended and was not waited for; 0: none. */
static pid_t ended_child(siginfo_t *info)
{
	info->si_pid = 0;
	return waitid(P_ALL, 0, info, WEXITED | WNOHANG | WNOWAIT) ? 0 : info->si_pid;
}

/* SIGCHLD is pending at most once: the one of the child in between is taken back, but it may stand
 * for a child of the program's own, or hide one that ended at the same time. Those are raised again
 * as the kernel told them. */
static void take_back_sigchld(pid_t middle, pid_t ended_before)
{
	siginfo_t info, child;
	sigset_t chld;

	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	if (sigtimedwait(&chld, &info, &(struct timespec){0}) != SIGCHLD)
		return;
	if (info.si_pid == middle) {
		if (!ended_child(&child) || child.si_pid == ended_before)
			return;
		info = child;
	}
	syscall(SYS_rt_sigqueueinfo, getpid(), SIGCHLD, &info);
}

/* Where the kernel has no clone with exit signal 0 (QEMU 7.2 user mode): fork twice. The child in
 * between ends at once, and tells by its status whether there is a snapshot. */
static pid_t clone_twice(pid_t (*first)(void))
{
	siginfo_t info;
	pid_t before = ended_child(&info), middle = first();
	int status = 0;

	if (middle < 0)
		return -1;
	if (!middle) {
		pid_t inner = plain_fork();

		if (!inner)
			return 0;
		_exit(inner < 0 ? errno : 0);
	}
	while (waitpid(middle, &status, 0) < 0 && errno == EINTR)
		;
	take_back_sigchld(middle, before);
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return middle;
	errno = WIFEXITED(status) ? WEXITSTATUS(status) : EAGAIN;
	return -1;
}

pid_t tf_fork_hidden(bool *ret_child)
{
	long pid = -1;

	*ret_child = !tf_host_emulated();
	if (*ret_child)
		pid = syscall(SYS_clone, 0L, 0L, 0L, 0L, 0L);
	else
		pid = clone_twice(plain_fork);
	return (pid_t)pid;
}

struct helper {
	jmp_buf caller;
	volatile pid_t pid;
};

static int helper_main(void *arg)
{
	struct helper *h = arg;
	pid_t pid = fork();

	if (!pid)
		longjmp(h->caller, 1); /* the snapshot goes on where the program stands */
	h->pid = pid;
	return 0;
}

/*
 * With other threads about, the C library's own fork() is the only one that gives a child without a
 * lock held by somebody who is not there (malloc, streams, atfork handlers). Its child is a child
 * that shows. So a helper calls it, that lives in our memory, as our thread, for as long as that
 * takes, and whose end nobody is told. The snapshot, an orphan then, is init's to
 * reap. */
static pid_t fork_with_locks(bool *ret_child)
{
	struct helper h = {.pid = -1};
	uint8_t *volatile stack;
	pid_t helper;

	*ret_child = false;
	if (tf_host_emulated()) /* shares no memory with what CLONE_VFORK makes */
		return clone_twice(fork);
	stack = mmap(NULL, HELPER_STACK, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (stack == MAP_FAILED)
		return -1;
	if (setjmp(h.caller)) {
		munmap(stack, HELPER_STACK);
		return 0;
	}
	helper = clone(helper_main, stack + HELPER_STACK, CLONE_VM | CLONE_VFORK, &h);
	while (helper > 0 && waitpid(helper, NULL, __WALL) < 0 && errno == EINTR)
		;
	munmap(stack, HELPER_STACK);
	return h.pid;
}

static void restore_mask(uint64_t mask)
{
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
}

/* Both ends above the standard streams, which the program may have closed. */
static int status_pipe(int fd[2])
{
	if (pipe2(fd, O_CLOEXEC))
		return -1;
	for (int i = 0; i < 2; i++) {
		int low = fd[i];

		if (low > STDERR_FILENO)
			continue;
		fd[i] = fcntl(low, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
		close(low);
		if (fd[i] >= 0)
			continue;
		close(fd[!i]);
		return -1;
	}
	return 0;
}

/* None, where that is not to be had: -1. */
static void told_pair(int fd[2])
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
		fd[0] = fd[1] = -1;
}

/* To be woken takes a tenth of all the time that the parent stands still. */
static void wait_awake(int fd)
{
	uint64_t until = tf_host_processors() > 1 ? tf_now_ns() + AWAKE_NS : 0;
	struct pollfd p = {.fd = fd, .events = POLLIN};

	while (until && !poll(&p, 1, 0) && tf_now_ns() < until)
		sched_yield(); /* to the snapshot, where nothing else is free */
}

int tf_snapshot_fork(const struct tf_snapshot *s, int *ret_status_fd, pid_t *ret_pid,
	bool *ret_child, struct tf_err *e)
{
	struct tf_status status = {0};
	struct tf_before before;
	/* A handler may have interrupted whoever holds a lock:
	 * it only comes here without threads. */
	bool threaded = s->origin != TF_ORIGIN_SIGNAL && tf_host_threads() > 1;
	uint64_t all = ~UINT64_C(0);
	int fd[2], told[2] = {-1, -1};
	pid_t pid;

	tf_capture_before(&before);
	if (status_pipe(fd))
		return tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "pipe");
	/* Of a program with other threads only the fork's descriptors are those of that moment. */
	if (!threaded && !s->ucontext && !tf_host_emulated())
		told_pair(told);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof(all));
	pid = threaded ? fork_with_locks(ret_child) : tf_fork_hidden(ret_child);
	if (!pid) {
		int rc;

		close(fd[0]);
		tf_closep(&told[0]);
		rc = child_main(s, &before, fd[1], told[1]);
		return rc; /* the copy; its mask came with the registers */
	}
	close(fd[1]);
	tf_closep(&told[1]);
	if (pid > 0 && told[0] >= 0)
		tf_files_tell(told[0], fd[0]);
	tf_closep(&told[0]);
	if (pid > 0)
		wait_awake(fd[0]);
	if (pid < 0) {
		tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "fork");
	} else if (!tf_status_read(fd[0], TF_STATUS_READY, &status)) {
		tf_fail(e, TELEFORK_E_SYSTEM, "the snapshot ended before it was ready");
	} else if (status.result.error) {
		tf_fail(e, status.result.error, "%s", status.result.message);
	}
	if (e->code) {
		if (pid > 0 && *ret_child)
			waitpid(pid, NULL, __WALL);
		close(fd[0]);
		restore_mask(before.sigmask);
		return e->code;
	}
	restore_mask(before.sigmask);
	*ret_status_fd = fd[0];
	*ret_pid = status.pid;
	return TELEFORK_PARENT;
}
