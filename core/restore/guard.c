/* SPDX-License-Identifier: MIT */
/* See guard.h. It hears of the receiver's end by its end of a socket, whatever ended that. */
#include "core/restore/guard.h"
#include "core/base/cleanup.h"
#include "core/base/host.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SPACES_MAX 1000 /* more that are forked are not held */
#define LOOK_MS    200
#define LOW        UINT64_C(65536) /* vm.mmap_min_addr: where nobody has memory to come */
#define HIGH       ((UINT64_C(1) << 47) - LOW)

union control {
	char bytes[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

/* Its memory is gone, with all who used it. */
static bool has_ended(int uffd)
{
	struct uffdio_zeropage z = {.range = {LOW, LOW}};

	return ioctl(uffd, UFFDIO_ZEROPAGE, &z) && errno == ESRCH;
}

/* Who touches what will never come is ended, and what it forks is watched, too. */
static void end_who_waits(struct pollfd *space, int *n)
{
	for (int i = 0; i < *n; i++) {
		struct uffd_msg m;

		while (space[i].revents && read(space[i].fd, &m, sizeof(m)) == sizeof(m))
			if (m.event == UFFD_EVENT_PAGEFAULT)
				kill((pid_t)m.arg.pagefault.feat.ptid, SIGKILL);
			else if (m.event == UFFD_EVENT_FORK && *n < SPACES_MAX)
				space[(*n)++] = (struct pollfd){(int)m.arg.fork.ufd, POLLIN, 0};
	}
}

/* Those that the process forked: until the last one has ended. */
static void watch(struct pollfd *space, int n)
{
	for (int i = 0; i < n; i++) {
		struct uffdio_range all = {LOW, HIGH - LOW};

		ioctl(space[i].fd, UFFDIO_WAKE, &all); /* who waits by now, asks again */
	}
	while (n) {
		if (poll(space, (nfds_t)n, LOOK_MS) > 0)
			end_who_waits(space, &n);
		for (int i = 0; i < n;)
			if (has_ended(space[i].fd)) {
				close(space[i].fd);
				space[i] = space[--n];
			} else {
				i++;
			}
	}
}

/* Another space (1), the word that all is well (0), or the receiver's end (-1). */
static int hear(int from, int *ret_uffd)
{
	union control control;
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control)};
	ssize_t n;

	do
		n = recvmsg(from, &m, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return -1;
	if (!m.msg_controllen || !CMSG_FIRSTHDR(&m))
		return 0;
	memcpy(ret_uffd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
	return 1;
}

static _Noreturn void guard(int from, pid_t pid, int process)
{
	static struct pollfd space[SPACES_MAX];
	char name[16];
	int n = 0, one, rc;
	const int keep[] = {from, process};
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	setsid(); /* what ends the receiver's group leaves it alone */
	snprintf(name, sizeof(name), "tfguard-%d", (int)pid);
	prctl(PR_SET_NAME, name, 0, 0, 0);
	tf_host_close_all(keep, 2);
	while ((rc = hear(from, &one)) == 1)
		if (n < SPACES_MAX)
			space[n++] = (struct pollfd){one, POLLIN, 0};
		else
			close(one);
	if (!rc)
		_exit(0);
	syscall(SYS_pidfd_send_signal, process, SIGKILL, NULL, 0);
	poll(&(struct pollfd){.fd = process, .events = POLLIN}, 1, -1);
	watch(space, n);
	_exit(0);
}

int tf_guard_start(struct tf_guard *g, pid_t process, struct tf_err *e)
{
	TF_CLOSE int pidfd = (int)syscall(SYS_pidfd_open, process, 0);
	int pair[2];

	*g = (struct tf_guard){.tell = -1};
	if (pidfd < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return tf_fail_errno(
			e, TELEFORK_E_SYSTEM, errno, "a guard of process %d", (int)process);
	g->pid = (pid_t)syscall(SYS_clone, 0, 0, 0, 0, 0); /* no SIGCHLD when it ends */
	if (!g->pid) {
		close(pair[0]);
		guard(pair[1], process, pidfd);
	}
	close(pair[1]);
	g->tell = pair[0];
	if (g->pid > 0)
		return 0;
	g->pid = 0;
	tf_closep(&g->tell);
	return tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "a guard of process %d", (int)process);
}

void tf_guard_add(struct tf_guard *g, int uffd)
{
	union control control = {0};
	struct iovec iov = {"s", 1};
	struct msghdr m = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &uffd, sizeof(int));
	sendmsg(g->tell, &m, MSG_NOSIGNAL);
}

void tf_guard_end(struct tf_guard *g)
{
	if (g->tell < 0)
		return;
	send(g->tell, "d", 1, MSG_NOSIGNAL);
	tf_closep(&g->tell);
}

void tf_guard_reap(struct tf_guard *g)
{
	while (g->pid > 0 && waitpid(g->pid, NULL, __WALL) < 0 && errno == EINTR)
		;
	*g = (struct tf_guard){.tell = -1};
}
