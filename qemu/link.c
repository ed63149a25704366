/* SPDX-License-Identifier: MIT */
/*
 * The creator's side of a link. The relay ends when its control socket reports that the
 * creator is gone, which needs no thread-bound parent-death signal and survives kill -9.
 */
#include "qemu/link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "qemu/child.h"
#include "qemu/io.h"
#include "qemu/relay.h"

#define ORDER_MS    60000
#define LISTENER_FD 3
#define CONTROL_FD  4
#define STRUCK_FD   5

struct tf_link {
	char *path;
	bool is_stream;
	unsigned to, port; /* of a stream */
	int control, struck;
	pid_t relay;
};

static int listen_on(const char *path, struct tf_vm_error *err)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd, rc;

	if (strlen(path) >= sizeof(un.sun_path))
		return tf_vm_fail(err, -ENAMETOOLONG,
			"link %s: a socket's path has at most %zu bytes; use a shorter "
			"run folder",
			path, sizeof(un.sun_path) - 1);
	memcpy(un.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return tf_vm_fail_errno(err, -errno, "link: socket");
	if (bind(fd, (struct sockaddr *)&un, sizeof(un)) < 0 || listen(fd, 64) < 0) {
		rc = -errno;
		close(fd);
		return tf_vm_fail_errno(err, rc, "link: listen on %s", path);
	}
	return fd;
}

static int listen_tcp(struct tf_link *link, struct tf_vm_error *err)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), rc;

	if (fd < 0)
		return tf_vm_fail_errno(err, -errno, "link: socket");
	if (bind(fd, (struct sockaddr *)&in, sizeof(in)) < 0 || listen(fd, 64) < 0 ||
		getsockname(fd, (struct sockaddr *)&in, &size) < 0) {
		rc = -errno;
		close(fd);
		return tf_vm_fail_errno(err, rc, "link: listen at 127.0.0.1");
	}
	link->port = ntohs(in.sin_port);
	link->path = tf_vm_format("127.0.0.1:%u", link->port);
	return fd;
}

static _Noreturn void run_child(const struct tf_link *link, int listener, int control)
{
	struct tf_relay relay = {
		.listener = LISTENER_FD, .control = CONTROL_FD, .struck = STRUCK_FD};
	int from[3] = {listener, control, link->struck};
	sigset_t none;

	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	for (int signo = 1; signo < 32; signo++)
		signal(signo, SIG_DFL);
	for (int i = 0; i < 3; i++)
		from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 16);
	for (int i = 0; i < 3; i++)
		dup2(from[i], LISTENER_FD + i);
	close_range(STRUCK_FD + 1, ~0u, 0);
	/* Our standard streams may be somebody's pipe, who would wait for our end. */
	for (int fd = 0; fd < 3; fd++)
		close(fd);
	for (int fd = 0; fd < 3; fd++)
		(void)!open("/dev/null", O_RDWR);
	if (link->is_stream)
		tf_relay_run_streams(&relay, link->to);
	tf_relay_run(&relay);
}

static int start(struct tf_link *link, struct tf_vm_error *err)
{
	tf_vm_autoclose int listener =
		link->is_stream ? listen_tcp(link, err) : listen_on(link->path, err);
	int pair[2], rc;

	if (listener < 0)
		return listener;
	link->struck = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (link->struck < 0)
		return tf_vm_fail_errno(err, -errno, "link: eventfd");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return tf_vm_fail_errno(err, -errno, "link: socketpair");
	link->control = pair[0];
	tf_vm_fork_lock();
	link->relay = fork();
	if (link->relay == 0)
		run_child(link, listener, pair[1]);
	rc = link->relay < 0 ? tf_vm_fail_errno(err, -errno, "link: fork") : 0;
	close(pair[1]);
	if (rc == 0) /* it answers when it has closed what is not its own */
		rc = tf_link_stats(link, NULL, err);
	tf_vm_fork_unlock();
	return rc;
}

/* Takes @link, which was allocated, over. */
static int start_new(struct tf_link *link, struct tf_link **ret_link, struct tf_vm_error *err)
{
	int rc;

	link->control = link->struck = -1;
	rc = start(link, err);
	if (rc == 0 && !link->path) {
		tf_link_free(link);
		return tf_vm_fail(err, -ENOMEM, "no memory");
	}
	if (rc < 0) {
		tf_link_free(link);
		return rc;
	}
	*ret_link = link;
	return 0;
}

int tf_link_start(const char *path, struct tf_link **ret_link, struct tf_vm_error *err)
{
	struct tf_link *link = calloc(1, sizeof(*link));

	if (link)
		link->path = strdup(path);
	if (!link || !link->path) {
		free(link);
		return tf_vm_fail(err, -ENOMEM, "no memory");
	}
	return start_new(link, ret_link, err);
}

int tf_link_start_stream(unsigned to, struct tf_link **ret_link, struct tf_vm_error *err)
{
	struct tf_link *link = calloc(1, sizeof(*link));

	if (!link)
		return tf_vm_fail(err, -ENOMEM, "no memory");
	link->is_stream = true;
	link->to = to;
	return start_new(link, ret_link, err);
}

unsigned tf_link_port(const struct tf_link *link)
{
	return link->port;
}

int tf_link_struck_fd(const struct tf_link *link)
{
	return link->struck;
}

const char *tf_link_path(const struct tf_link *link)
{
	return link->path;
}

pid_t tf_link_pid(const struct tf_link *link)
{
	return link->relay;
}

static int order(struct tf_link *link, const struct tf_relay_order *o,
	struct tf_link_stats *ret_stats, struct tf_vm_error *err)
{
	struct pollfd p = {.fd = link->control, .events = POLLIN};
	struct tf_link_stats s;

	if (send(link->control, o, sizeof(*o), MSG_NOSIGNAL) != (ssize_t)sizeof(*o))
		return tf_vm_fail(err, -EPIPE, "link %s: the relay is gone", link->path);
	if (poll(&p, 1, ORDER_MS) <= 0)
		return tf_vm_fail(
			err, -ETIMEDOUT, "link %s: the relay does not answer", link->path);
	if (recv(link->control, &s, sizeof(s), MSG_DONTWAIT) != (ssize_t)sizeof(s))
		return tf_vm_fail(err, -EPIPE, "link %s: the relay is gone", link->path);
	if (ret_stats)
		*ret_stats = s;
	return 0;
}

int tf_link_set_faults(
	struct tf_link *link, const struct tf_link_faults *faults, struct tf_vm_error *err)
{
	struct tf_relay_order o = {.op = TF_RELAY_FAULTS, .faults = *faults};

	return order(link, &o, NULL, err);
}

int tf_link_stats(struct tf_link *link, struct tf_link_stats *ret_stats, struct tf_vm_error *err)
{
	struct tf_relay_order o = {.op = TF_RELAY_STATS};

	return order(link, &o, ret_stats, err);
}

void tf_link_free(struct tf_link *link)
{
	if (!link)
		return;
	tf_vm_close_fd(&link->control);
	tf_vm_close_fd(&link->struck);
	while (link->relay > 0 && waitpid(link->relay, NULL, 0) < 0 && errno == EINTR)
		;
	if (link->path && !link->is_stream)
		unlink(link->path);
	free(link->path);
	free(link);
}
