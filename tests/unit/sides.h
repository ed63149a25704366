/* SPDX-License-Identifier: MIT */
/*
 * For tests of two sides: this process is the source, a forked one the receiver, a third the wire
 * between them, which can be told to cut, stall, slow down, damage or kill at a message of the
 * stream. Each side writes down what it holds (descriptors, children, mappings, signals) before and
 * after, and nothing may differ. Whoever waits here waits for an event, never for a time.
 */
#ifndef TF_TEST_SIDES_H
#define TF_TEST_SIDES_H

#include "arch/arch.h"
#include "core/base/host.h"
#include "core/channel/channel.h"
#include "core/image/stream.h"
#include "core/telefork.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define UNUSED    __attribute__((unused))
#define FDS_MAX   1200
#define COPY_EXIT 42

/* A time limit that is to pass: longer than the slowest step of a side that works. */
#define PATIENCE (tf_host_emulated() ? 600 : 200)

/* --- what a process holds --- */

struct inventory {
	size_t n;
	char text[1 << 17];
};

static void note(struct inventory *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void note(struct inventory *v, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (v->n < sizeof(v->text))
		v->n += (size_t)vsnprintf(v->text + v->n, sizeof(v->text) - v->n, fmt, ap);
	va_end(ap);
}

static size_t slurp(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t n = 0;
	ssize_t got;

	while (fd >= 0 && n + 1 < size && (got = read(fd, buf + n, size - 1 - n)) > 0)
		n += (size_t)got;
	if (fd >= 0)
		close(fd);
	buf[n] = '\0';
	return n;
}

static void note_fds(struct inventory *v)
{
	for (int fd = 0; fd < FDS_MAX; fd++) {
		char name[32], target[256];
		int flags = fcntl(fd, F_GETFD);
		ssize_t n;

		if (flags < 0)
			continue;
		snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
		n = readlink(name, target, sizeof(target) - 1);
		target[n > 0 ? n : 0] = '\0';
		note(v, "fd %d %s flags %x %x\n", fd, target, (unsigned)flags,
			(unsigned)fcntl(fd, F_GETFL));
	}
}

static void note_children(struct inventory *v)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;

	while (d && (e = readdir(d))) {
		char path[300], text[4096];

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%s/children", e->d_name);
		if (slurp(path, text, sizeof(text)))
			note(v, "children %s\n", text);
	}
	if (d)
		closedir(d);
}

static void note_maps(struct inventory *v)
{
	static char text[1 << 16];

	slurp("/proc/self/maps", text, sizeof(text));
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		if (!strstr(line, "[heap]") && !strstr(line, "[stack]"))
			note(v, "map %s\n", line);
}

static void note_signals(struct inventory *v)
{
	uint64_t mask = 0, pending = 0;

	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, sizeof(mask));
	syscall(SYS_rt_sigpending, &pending, sizeof(pending));
	note(v, "signals blocked %llx pending %llx\n", (unsigned long long)mask,
		(unsigned long long)pending);
	for (int i = 1; i < SIGRTMIN; i++) {
		struct sigaction sa;

		if (!sigaction(i, NULL, &sa) && sa.sa_handler != SIG_DFL)
			note(v, "signal %d %p\n", i, (void *)sa.sa_sigaction);
	}
}

static void inventory_take(struct inventory *v)
{
	v->n = 0;
	note_fds(v);
	note_children(v);
	note_maps(v);
	note_signals(v);
}

/* "" or the first lines that differ. */
static const char *inventory_differs(const struct inventory *a, const struct inventory *b)
{
	static char text[600];
	const char *p = a->text, *q = b->text;

	text[0] = '\0';
	if (!strcmp(p, q))
		return text;
	while (*p && *q) {
		size_t n = strcspn(p, "\n"), m = strcspn(q, "\n");

		if (n != m || memcmp(p, q, n))
			break;
		p += n + 1;
		q += m + 1;
	}
	snprintf(text, sizeof(text), "before \"%.*s\" after \"%.*s\"", (int)strcspn(p, "\n"), p,
		(int)strcspn(q, "\n"), q);
	return text;
}

/* --- the receiver --- */

/* A receiver is this program again: under QEMU user mode with a larger stack, so that the pages
 * which the emulator keeps beside it are in nobody's way. */
struct order {
	struct telefork_options options;
	bool greet;           /* a greeting with TOKEN comes first */
	rlim_t address_space; /* RLIMIT_AS; 0: as it is */
};

#define TOKEN "the receiver's token"

struct report {
	struct telefork_result result;
	pid_t pid;         /* telepad's value; greeting refused: its code */
	int status;        /* of the copy */
	char differs[600]; /* before and after */
};

/* What the wire tells; shared. */
struct shared {
	uint64_t forward, back; /* bytes that it passed on */
	uint32_t messages;      /* that it saw begin */
	bool acted;
};

static struct shared *shared;
static int acted[2]; /* a pipe: the wire has done what it was told */
static struct report report;
static struct inventory held_before, held_after;

static void sides_setup(void)
{
	signal(SIGPIPE, SIG_DFL);
	shared = mmap(
		NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert(shared != MAP_FAILED);
	ck_assert(!pipe(acted));
	inventory_take(&held_before); /* what the first call allocates is there from now on */
}

static int greeted(int fd, struct telefork_result *r)
{
	struct tf_errand errand;
	struct tf_err e = {0};
	struct tf_io io;

	tf_io_init(&io, fd, NULL);
	r->error = tf_greet_hear(&io, TOKEN, &errand, &e) ?: tf_greet_tell(&io, 0, &e);
	snprintf(r->message, sizeof(r->message), "%s", e.text);
	return r->error;
}

/* The receiver's main(): descriptors 3 (the wire) and 4 (orders, report). */
static int receiver_main(void)
{
	static struct inventory before, after;
	static struct report r;
	struct order order;

	if (read(4, &order, sizeof(order)) != sizeof(order))
		return 1;
	if (order.address_space)
		setrlimit(RLIMIT_AS, &(struct rlimit){order.address_space, order.address_space});
	inventory_take(&before);
	inventory_take(&before);
	if (send(4, "", 1, MSG_NOSIGNAL) != 1)
		return 1;
	r.pid = order.greet ? greeted(3, &r.result) : 0;
	if (!r.pid)
		r.pid = telepad(3, &order.options, &r.result);
	if (r.pid > 0)
		telefork_child_wait(r.pid, &r.status);
	inventory_take(&after);
	snprintf(r.differs, sizeof(r.differs), "%s", inventory_differs(&before, &after));
	return send(4, &r, sizeof(r), MSG_NOSIGNAL) != sizeof(r);
}

/* Runs program ARG ARG in place of this process, by way of the emulator if there is one. */
static _Noreturn void exec_self(const char *program, const char *const *args)
{
	const char *argv[16];
	char emulator[32];
	unsigned n = 0;

	snprintf(emulator, sizeof(emulator), "qemu-%s", tf_arch_native()->name);
	if (tf_host_emulated())
		argv[n++] = emulator;
	argv[n++] = program;
	while (*args && n < 15)
		argv[n++] = *args++;
	argv[n] = NULL;
	setenv("QEMU_STACK_SIZE", "268435456", 1);
	execvp(argv[0], (char **)argv);
	_exit(127);
}

static const char *own_path(void)
{
	static char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	path[n > 0 ? n : 0] = '\0';
	return path;
}

/* Starts a receiver that reads from fd. *ret_talk: our end for its orders and report. */
static UNUSED pid_t receiver_start(int fd, const struct order *order, int *ret_talk)
{
	static const char *const args[] = {"--receiver", NULL};
	int talk[2];
	pid_t pid;

	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, talk));
	pid = fork();
	if (!pid) {
		int wire = fcntl(fd, F_DUPFD, 10), orders = fcntl(talk[1], F_DUPFD, 10);
		int keep[5] = {0, 1, 2, 3, 4};

		dup2(wire, 3);
		dup2(orders, 4);
		tf_host_close_all(keep, 5);
		exec_self(own_path(), args);
	}
	close(talk[1]);
	ck_assert(write(talk[0], order, sizeof(*order)) == sizeof(*order));
	ck_assert(read(talk[0], &(char){0}, 1) == 1); /* it is ready */
	*ret_talk = talk[0];
	return pid;
}

/* Its report, if there is one, and its end. */
static UNUSED void receiver_end(pid_t pid, int talk)
{
	memset(&report, 0, sizeof(report));
	(void)!recv(talk, &report, sizeof(report), MSG_WAITALL);
	close(talk);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

/* --- the wire --- */

#define AT_BYTE    (-1) /* wire.message: at wire.at bytes from the beginning */
#define AT_TRAILER (-2) /* in the trailer, at 8 bytes or more */

enum act { PASS, CUT, STALL, FLIP, SLOW, KILL };

struct wire {
	enum act act;
	int message;   /* in front of this message: header 0, then extent and data by turns, ... */
	uint64_t into; /* and so many bytes into it */
	uint64_t prefix; /* bytes of a greeting, which count as one more message at the beginning */
	uint64_t at;     /* AT_BYTE */
	bool back;       /* at byte `at` of the way back instead */
	pid_t *victim;   /* KILL */
};

struct parser {
	struct wire w;
	uint64_t left; /* bytes of the message under way */
	int index;     /* of it; -1: none yet */
	uint64_t into, total;
	uint8_t head[16];
	bool is_extent; /* the message under way is an extent's head */
	uint32_t data;
};

static void next_message(struct parser *p)
{
	p->index++;
	p->into = 0;
	shared->messages = (uint32_t)p->index + 1;
	if (p->data) {
		p->left = p->data;
		p->data = 0;
		p->is_extent = false;
		return;
	}
	if (!p->index && p->w.prefix)
		p->left = p->w.prefix;
	else if (p->index == (p->w.prefix ? 1 : 0))
		p->left = sizeof(struct tf_stream_header);
	else
		p->left = 16, p->is_extent = true;
}

static bool is_place(const struct parser *p)
{
	static const uint8_t trailer[8] = {255, 255, 255, 255, 255, 255, 255, 255};

	if (p->w.message == AT_BYTE)
		return p->total == p->w.at;
	if (p->into != p->w.into)
		return false;
	if (p->w.message == AT_TRAILER)
		return p->is_extent && p->into >= 8 && !memcmp(p->head, trailer, 8);
	return p->index == p->w.message;
}

/* Bytes of [buf, buf+n) in front of the place; n if it is not among them. */
static size_t place_in(struct parser *p, const uint8_t *buf, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!p->left)
			next_message(p);
		if (p->w.act != PASS && !p->w.back && !shared->acted && is_place(p))
			return i;
		if (p->is_extent && p->into < 16)
			p->head[p->into] = buf[i];
		p->into++;
		p->total++;
		if (!--p->left && p->is_extent) {
			struct tf_extent x;

			memcpy(&x, p->head, sizeof(x));
			p->data = x.offset == TF_TRAILER_OFFSET ? 0 : x.size;
		}
	}
	return n;
}

/* What nobody takes any more is lost, as on a line; there may be an answer to come all the same. */
static void pass_on(int to, const uint8_t *buf, size_t n)
{
	while (n) {
		ssize_t done = send(to, buf, n, MSG_NOSIGNAL);

		if (done <= 0)
			return;
		buf += done;
		n -= (size_t)done;
	}
}

/* Reads nothing more until both ends have gone. */
static _Noreturn void hold(int a, int b)
{
	struct pollfd p[2] = {{.fd = a}, {.fd = b}};

	while ((p[0].fd >= 0 || p[1].fd >= 0) && poll(p, 2, -1) > 0)
		for (int i = 0; i < 2; i++)
			if (p[i].revents & (POLLHUP | POLLERR))
				_exit(0);
	_exit(0);
}

static bool slow;

static void act_at(struct parser *p, int source, int receiver, uint8_t *byte)
{
	shared->acted = true;
	if (p->w.act == KILL)
		kill(*p->w.victim, SIGKILL);
	(void)!write(acted[1], "", 1);
	switch (p->w.act) {
	case CUT:
		_exit(0);
	case STALL:
		hold(source, receiver);
	case FLIP:
		*byte ^= 0x40;
		return;
	case SLOW:
		slow = true;
		return;
	case KILL:
	case PASS:
		return;
	}
}

static void backward(struct parser *p, int source, const uint8_t *buf, size_t n)
{
	bool cut = p->w.act == CUT && p->w.back && shared->back + n > p->w.at;

	if (cut)
		n = p->w.at - shared->back;
	pass_on(source, buf, n);
	shared->back += n;
	if (cut)
		_exit(0);
}

/* A byte every 20 ms; the other direction is not slowed down. */
static void crawl(struct parser *p, int source, int receiver, const uint8_t *buf, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct pollfd fds[2] = {{source, 0, 0}, {receiver, POLLIN, 0}};
		uint8_t reply[4096];
		ssize_t got;

		pass_on(receiver, buf + i, 1);
		poll(fds, 2, 20);
		if (fds[0].revents & POLLHUP)
			_exit(0);
		if (!fds[1].revents)
			continue;
		got = recv(receiver, reply, sizeof(reply), 0);
		if (got <= 0)
			_exit(0);
		backward(p, source, reply, (size_t)got);
	}
}

static void forward(struct parser *p, int source, int receiver, uint8_t *buf, size_t n)
{
	while (n) {
		size_t first = place_in(p, buf, n);

		if (slow)
			crawl(p, source, receiver, buf, first);
		else
			pass_on(receiver, buf, first);
		shared->forward += first;
		if (first < n)
			act_at(p, source, receiver, buf + first);
		buf += first;
		n -= first;
	}
}

static _Noreturn void wire_main(int source, int receiver, const struct wire *w)
{
	struct parser p = {.w = *w, .index = -1};
	struct pollfd fds[2] = {{source, POLLIN, 0}, {receiver, POLLIN, 0}};
	static uint8_t buf[1 << 16];

	while (poll(fds, 2, -1) > 0) {
		if (fds[0].revents) {
			ssize_t n = recv(source, buf, sizeof(buf), 0);

			if (n <= 0) {
				shutdown(receiver, SHUT_WR);
				fds[0].fd = -1;
			} else {
				forward(&p, source, receiver, buf, (size_t)n);
			}
		}
		if (fds[1].revents) {
			ssize_t n = recv(receiver, buf, sizeof(buf), 0);

			if (n <= 0)
				_exit(0);
			backward(&p, source, buf, (size_t)n);
		}
	}
	_exit(0);
}

/* --- one journey over the wire --- */

/* Waits until the wire has done what it was told. */
static UNUSED void await_act(void)
{
	struct pollfd p = {acted[0], POLLIN, 0};

	poll(&p, 1, -1);
}

struct journey {
	struct wire wire;
	struct telefork_options from;
	struct order to;
	int (*greet)(int fd);                        /* the source's greeting; not 0: no more */
	void (*meanwhile)(struct telefork_job *job); /* in the parent, after telefork() */
	void (*orphans)(void);                       /* at the end, before the comparison */
	int (*copy)(void);                           /* in the copy: all is well */
	int low;                                     /* use_low: the channel's number */
	bool use_low;
	int started; /* telefork()'s value */
	struct telefork_result result;
	pid_t receiver;
};

/* Its way back has the channel's number, and the flags that this had. */
static _Noreturn void copy_main(const struct journey *j, int fd, int flags)
{
	char byte = 'k';

	if (j->copy && !j->copy())
		_exit(2);
	if (telefork_peer_fd() != fd || fcntl(fd, F_GETFD) != flags)
		_exit(3);
	if (write(telefork_peer_fd(), &byte, 1) != 1)
		_exit(1);
	_exit(COPY_EXIT);
}

/* The source's part. */
static void depart(struct journey *j, int fd)
{
	struct telefork_job *job;
	int flags = fcntl(fd, F_GETFD);

	j->started = j->greet ? j->greet(fd) : 0;
	if (j->started)
		return;
	j->started = telefork(fd, &j->from, &job);
	if (!j->started)
		copy_main(j, fd, flags);
	if (j->started < 0)
		return;
	if (j->meanwhile)
		j->meanwhile(job);
	telefork_wait(job, &j->result);
}

static UNUSED void travel(struct journey *j)
{
	int a[2], b[2], talk, saved = -1;
	pid_t wire;

	memset(shared, 0, sizeof(*shared));
	inventory_take(&held_before);
	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, a));
	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, b));
	j->receiver = receiver_start(b[1], &j->to, &talk);
	wire = fork();
	if (!wire) {
		int keep[6] = {0, 1, 2, a[1], b[0], acted[1]};

		tf_host_close_all(keep, 6);
		wire_main(a[1], b[0], &j->wire);
	}
	close(a[1]);
	close(b[0]);
	close(b[1]);
	if (j->use_low) {
		saved = fcntl(j->low, F_DUPFD_CLOEXEC, 100);
		dup2(a[0], j->low);
		close(a[0]);
		a[0] = j->low;
	}
	depart(j, a[0]);
	if (j->use_low) {
		dup2(saved, j->low);
		close(saved);
	} else {
		close(a[0]);
	}
	ck_assert_int_eq(waitpid(wire, NULL, 0), wire);
	receiver_end(j->receiver, talk);
	if (j->orphans)
		j->orphans();
	while (poll(&(struct pollfd){acted[0], POLLIN, 0}, 1, 0) > 0)
		(void)!read(acted[0], &(char){0}, 1);
	inventory_take(&held_after);
	ck_assert_str_eq(inventory_differs(&held_before, &held_after), "");
}

/* Both sides failed, neither kept anything, and the source still can. */
static UNUSED void check_failed(const struct journey *j, const char *what)
{
	ck_assert_msg(j->result.error < 0, "%s: the source thinks it went well", what);
	ck_assert_msg(j->result.message[0], "%s: the source does not say why", what);
	ck_assert_msg(report.pid < 0, "%s: the receiver thinks it went well", what);
	ck_assert_msg(report.result.error == report.pid && report.result.message[0],
		"%s: the receiver does not say why", what);
	ck_assert_msg(!report.differs[0], "%s: receiver: %s", what, report.differs);
}

static UNUSED void check_arrived(const struct journey *j, const char *what)
{
	ck_assert_msg(j->started == TELEFORK_PARENT && !j->result.error, "%s: source: %d %s", what,
		j->result.error, j->result.message);
	ck_assert_msg(report.pid > 0, "%s: receiver: %s", what, report.result.message);
	ck_assert_int_eq(j->result.pid, report.pid);
	ck_assert_msg(WIFEXITED(report.status) && WEXITSTATUS(report.status) == COPY_EXIT,
		"%s: copy: status %x", what, (unsigned)report.status);
	ck_assert_msg(!report.differs[0], "%s: receiver: %s", what, report.differs);
}

static UNUSED Suite *sides_suite(const char *name, void (*set_up)(void), void (*tear_down)(void),
	const TTest *const *tests, size_t n)
{
	Suite *s = suite_create(name);

	for (size_t i = 0; i < n; i++) {
		TCase *t = tcase_create(tests[i]->name);

		tcase_set_timeout(t, SUITE_LIMIT_S);
		tcase_add_checked_fixture(t, set_up, tear_down);
		tcase_add_test(t, tests[i]);
		suite_add_tcase(s, t);
	}
	return s;
}

/* main() of every program that includes this. */
static UNUSED int sides_main(int argc, char **argv, Suite *s)
{
	if (argc > 1 && !strcmp(argv[1], "--receiver"))
		return receiver_main();
	return suite_run(s);
}

#endif
