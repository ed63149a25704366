/* SPDX-License-Identifier: MIT */
/*
 * Yoyos that are cut short: a receiver in a process of its own takes one sender by telepad(); one
 * side is killed, or lies, at a moment that the function over there tells of by a pipe. What is
 * left is looked for until it has gone; the time limit of the test bounds that.
 */
#include "core/channel/frames.h"
#include "tests/unit/sides.h"
#include "tests/unit/suite.h"

#include <sys/stat.h>
#include <sys/un.h>

struct live {
	char path[64], uri[80];
	int listener;
	pid_t receiver;
};

/* Where the function tells: a fifo. */
static char told_path[80];
static int64_t *heap;

struct told {
	pid_t copy, child;
};

static void tell(const struct told *t)
{
	int fd = open(told_path, O_WRONLY);

	if (write(fd, t, sizeof(*t)) != sizeof(*t))
		_exit(9);
	close(fd);
}

/* Tells who is there, with a child, and stays. */
static void stay(void *arg)
{
	struct told t = {.copy = getpid()};

	(void)arg;
	*heap = 2;
	t.child = fork();
	if (!t.child)
		for (;;)
			pause();
	tell(&t);
	for (;;)
		pause();
}

static void add_one(void *arg)
{
	(void)arg;
	++*heap;
}

static _Noreturn void receive(int listener)
{
	struct telefork_options o = {.stdio = TELEFORK_STDIO_NULL};
	struct tf_errand errand;
	struct tf_err e = {0};
	struct tf_io io;
	int fd = accept(listener, NULL, NULL), status;
	pid_t pid;

	close(listener);
	tf_io_init(&io, fd, NULL);
	if (tf_greet_hear(&io, NULL, &errand, &e) || tf_greet_tell(&io, 0, &e))
		_exit(8);
	pid = telepad(fd, &o, NULL);
	if (pid > 0)
		telefork_child_wait(pid, &status);
	/* the thread between has the last word */
	while (poll(&(struct pollfd){.fd = fd, .events = POLLRDHUP}, 1, -1) < 0)
		;
	_exit(pid > 0 ? 0 : 7);
}

/* This program again: see sides.h. */
static _Noreturn void receive_anew(int listener)
{
	static const char *const args[] = {"--live", NULL};
	int fd = fcntl(listener, F_DUPFD, 10), keep[4] = {0, 1, 2, 3};

	dup2(fd, 3);
	tf_host_close_all(keep, 4);
	exec_self(own_path(), args);
}

static void live_start(struct live *l, void (*receiver)(int listener))
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	snprintf(l->path, sizeof(l->path), "/tmp/test_yoyo_live.%d", (int)getpid());
	snprintf(l->uri, sizeof(l->uri), "unix:%s", l->path);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", l->path);
	snprintf(told_path, sizeof(told_path), "%s.told", l->path);
	unlink(told_path);
	ck_assert(!mkfifo(told_path, 0600));
	unlink(l->path);
	l->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert(!bind(l->listener, (struct sockaddr *)&a, sizeof(a)) && !listen(l->listener, 4));
	heap = malloc(sizeof(*heap));
	*heap = 1;
	l->receiver = fork();
	if (!l->receiver)
		receiver(l->listener);
	close(l->listener);
	inventory_take(&held_before);
	inventory_take(&held_before);
}

static void live_end(struct live *l)
{
	unlink(l->path);
	unlink(told_path);
	kill(l->receiver, SIGKILL);
	waitpid(l->receiver, NULL, 0);
}

/* A home that may be killed: a child of the test's. */
static pid_t home_start(const struct live *l, struct told *ret_told)
{
	pid_t pid = fork();
	int fd;

	if (!pid) {
		signal(SIGINT, SIG_DFL); /* the test's runner has handlers */
		signal(SIGTERM, SIG_DFL);
		_exit(-telefork_yoyo(l->uri, stay, NULL, NULL));
	}
	fd = open(told_path, O_RDONLY);
	ck_assert_int_eq(read(fd, ret_told, sizeof(*ret_told)), sizeof(*ret_told));
	close(fd);
	return pid;
}

static bool runs(pid_t pid)
{
	char path[32], text[512], *state;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (!slurp(path, text, sizeof(text)))
		return false;
	state = strrchr(text, ')');
	return state && state[2] != 'Z' && state[2] != 'X';
}

static void wait_until_gone(const struct told *t)
{
	while (runs(t->copy) || runs(t->child))
		poll(NULL, 0, 1);
}

START_TEST(home_is_killed)
{
	static const int how[] = {SIGKILL, SIGINT, SIGTERM};
	struct live l;
	struct told t;
	pid_t home;

	live_start(&l, receive_anew);
	home = home_start(&l, &t);
	ck_assert(runs(t.copy) && runs(t.child));
	kill(home, how[_i]);
	ck_assert_int_eq(waitpid(home, NULL, 0), home);
	wait_until_gone(&t);
	live_end(&l);
}
END_TEST

/* Nobody relays any more: the copy has nowhere to go. */
START_TEST(receiver_is_killed)
{
	struct live l;
	struct told t;
	int status;
	pid_t home;

	live_start(&l, receive_anew);
	home = home_start(&l, &t);
	kill(l.receiver, SIGKILL);
	ck_assert_int_eq(waitpid(home, &status, 0), home);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), -TELEFORK_E_CLOSED);
	wait_until_gone(&t);
	live_end(&l);
}
END_TEST

START_TEST(copy_is_killed)
{
	struct live l;
	struct told t;
	int status;
	pid_t home;

	live_start(&l, receive_anew);
	home = home_start(&l, &t);
	kill(t.copy, SIGKILL);
	ck_assert_int_eq(waitpid(home, &status, 0), home);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), -TELEFORK_E_CRASHED);
	wait_until_gone(&t);
	live_end(&l);
}
END_TEST

/* --- a wire that is cut on the way home --- */

static uint64_t cut_at;
static int next_listener;

/* Passes everything to the receiver behind it, and cut_at bytes back. */
static _Noreturn void wire(int listener)
{
	struct sockaddr_un a;
	socklen_t size = sizeof(a);
	int home = accept(listener, NULL, NULL), there = socket(AF_UNIX, SOCK_STREAM, 0);
	uint64_t back = 0;
	char buf[4096];

	if (getsockname(next_listener, (struct sockaddr *)&a, &size) ||
		connect(there, (struct sockaddr *)&a, size))
		_exit(9);
	for (;;) {
		struct pollfd p[2] = {{home, POLLIN, 0}, {there, POLLIN, 0}};
		ssize_t n;

		poll(p, 2, -1);
		if (p[0].revents) {
			n = read(home, buf, sizeof(buf));
			if (n <= 0)
				_exit(0);
			pass_on(there, (uint8_t *)buf, (size_t)n);
		}
		if (p[1].revents) {
			uint64_t room = cut_at - back < sizeof(buf) ? cut_at - back : sizeof(buf);

			n = room ? read(there, buf, room) : 0;
			if (n <= 0)
				_exit(0);
			back += (uint64_t)n;
			pass_on(home, (uint8_t *)buf, (size_t)n);
		}
	}
}

/* A yoyo by a wire that is cut after so many bytes; true: it came home all the same. */
static bool yoyo_by_wire(uint64_t bytes, uint64_t *ret_received)
{
	struct telefork_result r = {0};
	struct telefork_options o = {.result = &r, .deadline_ms = 60000};
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct live l;
	pid_t receiver;
	int rc;

	snprintf(a.sun_path, sizeof(a.sun_path), "/tmp/test_yoyo_live.%d.2", (int)getpid());
	unlink(a.sun_path);
	next_listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert(!bind(next_listener, (struct sockaddr *)&a, sizeof(a)) &&
		  !listen(next_listener, 4));
	cut_at = bytes;
	receiver = fork();
	if (!receiver)
		receive_anew(next_listener);
	live_start(&l, wire);
	rc = telefork_yoyo(l.uri, add_one, NULL, &o);
	inventory_take(&held_after);
	ck_assert_str_eq(inventory_differs(&held_before, &held_after), "");
	ck_assert_int_eq(*heap, rc ? 1 : 2);
	ck_assert_msg(
		!rc || rc == TELEFORK_E_CLOSED || rc == TELEFORK_E_IO, "%d: %s", rc, r.message);
	*ret_received = r.bytes_received;
	close(next_listener);
	live_end(&l);
	kill(receiver, SIGKILL);
	waitpid(receiver, NULL, 0);
	unlink(a.sun_path);
	free(heap);
	return !rc;
}

/* Near the end at every byte: that is the last frame. */
START_TEST(the_wire_is_cut)
{
	uint64_t whole, got, step = tf_host_emulated() ? 40009 : 4999;

	ck_assert(yoyo_by_wire(UINT64_MAX, &whole));
	whole += 64; /* of the greeting, at most */
	for (uint64_t at = 0; at < whole - 120; at += step)
		ck_assert(!yoyo_by_wire(at, &got));
	for (uint64_t at = whole - 120; at < whole && !yoyo_by_wire(at, &got); at += 8)
		;
}
END_TEST

/* --- a receiver that lies --- */

static enum tf_frame_type endless;

static _Noreturn void lie(int listener)
{
	struct tf_reply ok = {.pid = 1};
	struct tf_stream_header h;
	struct tf_errand errand;
	struct tf_err e = {0};
	struct tf_io io;
	char text[100] = "x";
	int fd = accept(listener, NULL, NULL);

	tf_io_init(&io, fd, NULL);
	if (tf_greet_hear(&io, NULL, &errand, &e) || tf_greet_tell(&io, 0, &e) ||
		tf_io_read(&io, &h, sizeof(h), &e) || !(shared->acted = true) ||
		tf_reply_write(&io, &ok, NULL, &e))
		_exit(8);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	for (;;) {
		char sink[65536];

		while (recv(fd, sink, sizeof(sink), MSG_DONTWAIT) > 0)
			;
		if (tf_frame_write(&io, endless, text, endless == TF_FRAME_OUT ? 100 : 0, &e))
			_exit(0);
	}
}

START_TEST(frames_without_end)
{
	static const enum tf_frame_type types[] = {TF_FRAME_ALIVE, TF_FRAME_OUT, TF_FRAME_DATA};
	struct telefork_result r = {0};
	struct telefork_options o = {.result = &r, .deadline_ms = 8 * PATIENCE};
	int out = dup(1), null = open("/dev/null", O_WRONLY), rc;
	struct live l;

	endless = types[_i];
	live_start(&l, lie);
	dup2(null, 1);
	rc = telefork_yoyo(l.uri, add_one, NULL, &o);
	dup2(out, 1);
	close(out);
	close(null);
	ck_assert_msg(rc == TELEFORK_E_TIMEOUT || rc == TELEFORK_E_CLOSED, "%d: %s", rc, r.message);
	ck_assert_int_eq(*heap, 1);
	live_end(&l);
}
END_TEST

int main(int argc, char **argv)
{
	Suite *s = suite_create("yoyo_live");
	TCase *t = tcase_create("all");

	if (argc > 1 && !strcmp(argv[1], "--live"))
		receive(3);
	tcase_add_checked_fixture(t, sides_setup, NULL);
	tcase_add_loop_test(t, home_is_killed, 0, 3);
	tcase_add_test(t, receiver_is_killed);
	tcase_add_test(t, copy_is_killed);
	tcase_add_test(t, the_wire_is_cut);
	tcase_add_loop_test(t, frames_without_end, 0, 3);
	tcase_set_timeout(t, SUITE_LIMIT_S);
	suite_add_tcase(s, t);
	return suite_run(s);
}
