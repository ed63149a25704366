/* SPDX-License-Identifier: MIT */
/*
 * telefork serve against senders that crawl, come in numbers, are strangers or bring too much; and
 * its end. The receiver is build/<arch>/bin/telefork-pad beside this
 * program. */
#include "tests/unit/sides.h"

#include <sys/stat.h>

struct server {
	pid_t pid;
	int out; /* its standard output */
	char address[256];
};

static char folder[] = "/tmp/telefork-serve-XXXXXX";
static char address[128]; /* unix:FOLDER/socket */

static void pad_path(char *buf, size_t size)
{
	const char *self = own_path();
	const char *slash = strrchr(self, '/');

	snprintf(buf, size, "%.*s/../bin/telefork-pad", (int)(slash - self), self);
}

/* Starts telefork-pad serve ARGS ADDRESS and reads the address that it prints. */
static void server_start(struct server *s, const char *const *args, const char *where)
{
	const char *argv[12] = {"serve"};
	char path[4200];
	unsigned n = 1;
	int out[2];

	while (*args)
		argv[n++] = *args++;
	argv[n++] = where;
	argv[n] = NULL;
	pad_path(path, sizeof(path));
	ck_assert(!pipe2(out, O_CLOEXEC));
	s->pid = fork();
	if (!s->pid) {
		dup2(out[1], 1);
		exec_self(path, argv);
	}
	close(out[1]);
	s->out = out[0];
	for (n = 0; n < sizeof(s->address) - 1 && read(s->out, &s->address[n], 1) == 1; n++)
		if (s->address[n] == '\n')
			break;
	s->address[n] = '\0';
	ck_assert_msg(n > 0, "telefork-pad did not start (%s)", path);
}

static int server_wait(struct server *s)
{
	int status;

	ck_assert_int_eq(waitpid(s->pid, &status, 0), s->pid);
	close(s->out);
	ck_assert_msg(WIFEXITED(status), "telefork-pad ended by signal %d", WTERMSIG(status));
	return WEXITSTATUS(status);
}

static int server_end(struct server *s)
{
	kill(s->pid, SIGTERM);
	return server_wait(s);
}

static void set_up(void)
{
	sides_setup();
	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(address, sizeof(address), "unix:%s/socket", folder);
}

static void tear_down(void)
{
	rmdir(folder); /* fails when something was left, which a test notices */
}

/* The copy: sends back what comes, until there is no more; then exits with COPY_EXIT. */
static _Noreturn void echo(void)
{
	char byte;

	while (read(telefork_peer_fd(), &byte, 1) == 1)
		if (write(telefork_peer_fd(), &byte, 1) != 1)
			_exit(1);
	_exit(COPY_EXIT);
}

/* Sends this process there. The connection, or an error in *r. */
static int send_copy(const char *where, struct telefork_result *r)
{
	struct telefork_job *job;
	int fd = telefork_dial(where, NULL, r), rc;

	if (fd < 0)
		return fd;
	rc = telefork(fd, NULL, &job);
	if (!rc)
		echo();
	ck_assert_int_eq(rc, TELEFORK_PARENT);
	rc = telefork_wait(job, r);
	if (!rc)
		return fd;
	close(fd);
	return rc;
}

static bool echoes(int fd)
{
	char byte = 0;

	return write(fd, "x", 1) == 1 && read(fd, &byte, 1) == 1 && byte == 'x';
}

static int connect_to(const char *where)
{
	struct tf_resolved r;
	struct tf_address a;
	struct tf_err e = {0};

	ck_assert(!tf_address_parse(where, &a, &e) && !tf_address_resolve(&a, false, &r, &e));
	return tf_channel_connect(&r, where, NULL, &e);
}

/* A sender that was accepted, and that has not said anything yet. */
static int greet(const char *where)
{
	int32_t greeting[9] = {0, 0, TELEFORK_FORMAT}, answer[4];
	int fd = connect_to(where);
	char words[64];

	memcpy(greeting, "TFHELLO1", 8);
	if (send(fd, greeting, sizeof(greeting), MSG_NOSIGNAL) != sizeof(greeting) ||
		recv(fd, answer, 16, MSG_WAITALL) != 16) {
		close(fd);
		return -1;
	}
	ck_assert_int_eq(answer[2], 0);
	ck_assert_int_lt(answer[3], (int)sizeof(words));
	ck_assert(recv(fd, words, (size_t)answer[3], MSG_WAITALL) == answer[3]);
	return fd;
}

/* Until the receiver has no child any more: its sessions have been waited for. */
static void await_no_session(const struct server *s)
{
	char path[64], text[256];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)s->pid, (int)s->pid);
	while (slurp(path, text, sizeof(text)))
		usleep(100);
}

/* false: so many seconds are not enough here for one that is not slow. */
static bool slow_senders_have(const char *seconds)
{
	const char *const args[] = {"--insecure", "--handshake-time", seconds, NULL};
	struct telefork_result r;
	struct server s;
	int silent, begun, greeted, fd;
	char answer[64];

	server_start(&s, args, "tcp://127.0.0.1:0");
	silent = connect_to(s.address);
	begun = connect_to(s.address);
	send(begun, "TFHEL", 5, MSG_NOSIGNAL);
	greeted = greet(s.address);                       /* crawls afterwards */
	fd = greeted < 0 ? -1 : send_copy(s.address, &r); /* they hold up nobody */
	if (fd < 0) {
		close(silent);
		close(begun);
		if (greeted >= 0)
			close(greeted);
		server_end(&s);
		return false;
	}
	ck_assert(echoes(fd));
	/* A byte now and then does not gain time. */
	while (send(greeted, "T", 1, MSG_NOSIGNAL) == 1 &&
		!poll(&(struct pollfd){greeted, POLLIN, 0}, 1, 50))
		;
	ck_assert(recv(silent, answer, 1, 0) <= 0);
	ck_assert(recv(begun, answer, 1, 0) <= 0);
	ck_assert(echoes(fd)); /* the time limit is not the copy's */
	close(fd);
	close(silent);
	close(begun);
	close(greeted);
	await_no_session(&s);
	ck_assert_int_eq(server_end(&s), 0);
	return true;
}

START_TEST(slow_senders)
{
	ck_assert(slow_senders_have("1") || slow_senders_have("5") || slow_senders_have("30"));
}
END_TEST

START_TEST(too_many)
{
	static const char *const args[] = {"--max-jobs", "2", NULL};
	struct telefork_result r;
	struct server s;
	int fd[3];

	server_start(&s, args, address);
	for (int i = 0; i < 2; i++)
		ck_assert_int_ge(fd[i] = send_copy(address, &r), 0);
	ck_assert_int_eq(send_copy(address, &r), TELEFORK_E_LIMIT);
	ck_assert_ptr_nonnull(strstr(r.message, "2 processes"));
	ck_assert(echoes(fd[0]) && echoes(fd[1]));
	for (int i = 0; i < 2; i++)
		close(fd[i]);
	await_no_session(&s); /* none stays behind, dead or alive */
	ck_assert_int_ge(fd[0] = send_copy(address, &r), 0);
	close(fd[0]);
	ck_assert_int_eq(server_end(&s), 0);
}
END_TEST

START_TEST(too_large)
{
	static const char *const args[] = {"--max-memory", "1", NULL};
	struct telefork_result r;
	struct server s;
	char *p = malloc(4 << 20);

	ck_assert_ptr_nonnull(p);
	memset(p, 1, 4 << 20);
	server_start(&s, args, address);
	ck_assert_int_eq(send_copy(address, &r), TELEFORK_E_INCOMPATIBLE);
	ck_assert_ptr_nonnull(strstr(r.message, "this receiver takes 1048576 at most"));
	await_no_session(&s);
	ck_assert_int_eq(server_end(&s), 0);
	free(p);
}
END_TEST

START_TEST(once)
{
	static const char *const args[] = {"--once", NULL};
	struct telefork_result r;
	struct server s;
	struct stat st;
	int fd;

	server_start(&s, args, address);
	fd = send_copy(address, &r);
	ck_assert_int_ge(fd, 0);
	ck_assert(stat(address + 5, &st) && errno == ENOENT); /* nobody else is expected */
	ck_assert_int_eq(telefork_dial(address, NULL, &r), TELEFORK_E_REFUSED);
	close(fd);
	ck_assert_int_eq(server_wait(&s), COPY_EXIT);
}
END_TEST

/* Another user may not send, even if the socket's mode lets him in; he is told. */
START_TEST(strangers)
{
	static const char *const args[] = {NULL};
	struct server s;
	pid_t pid;
	int status;

	if (geteuid()) {
		fprintf(stderr, "strangers: not root, nobody else to be\n");
		return;
	}
	server_start(&s, args, address);
	ck_assert(!chmod(folder, 0755) && !chmod(address + 5, 0666));
	pid = fork();
	if (!pid) {
		struct telefork_result r;

		if (setgid(65534) || setuid(65534))
			_exit(10);
		if (telefork_dial(address, NULL, &r) != TELEFORK_E_AUTH)
			_exit(11);
		_exit(strstr(r.message, "uid 65534 may not send") ? 0 : 12);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(server_end(&s), 0);
}
END_TEST

/* At the end a transfer under way ends, too; what has arrived stays. */
static void ends_cleanly(int signo)
{
	static const char *const args[] = {NULL};
	struct telefork_result r;
	struct server s;
	struct stat st;
	int running, half;
	char answer[16];

	server_start(&s, args, address);
	running = send_copy(address, &r);
	ck_assert_int_ge(running, 0);
	half = greet(address);
	ck_assert_int_ge(half, 0);
	kill(s.pid, signo);
	ck_assert_int_eq(server_wait(&s), 0);
	ck_assert_int_eq(recv(half, answer, 1, 0), 0);
	ck_assert(stat(address + 5, &st) && errno == ENOENT);
	ck_assert(echoes(running));
	shutdown(running, SHUT_WR);
	ck_assert_int_eq(recv(running, answer, 1, 0), 0); /* the copy has ended */
	close(running);
	close(half);
}

START_TEST(end)
{
	ends_cleanly(SIGTERM);
	ends_cleanly(SIGINT);
}
END_TEST

START_TEST(refused)
{
	struct telefork_result r;

	ck_assert_int_eq(telefork_dial(address, NULL, &r), TELEFORK_E_REFUSED);
	ck_assert_ptr_nonnull(strstr(r.message, address));
	ck_assert_int_eq(r.error, TELEFORK_E_REFUSED);
	ck_assert_int_eq(telefork_dial("tcp://127.0.0.1:1", NULL, &r), TELEFORK_E_REFUSED);
	ck_assert_ptr_nonnull(strstr(r.message, "tcp://127.0.0.1:1"));
	ck_assert_int_eq(telefork_dial("gopher://x", NULL, &r), TELEFORK_E_ADDRESS);
	ck_assert_int_eq(telefork_dial("/nowhere/at/all", NULL, &r), TELEFORK_E_IO);
	ck_assert_ptr_nonnull(strstr(r.message, "/nowhere/at/all"));
}
END_TEST

/* A listener whose queue is full and that accepts nobody:
 * the deadline holds for connecting, too. */
START_TEST(full_queue)
{
	struct telefork_options o = {.deadline_ms = 200};
	struct telefork_result r;
	struct tf_address a;
	struct tf_err e = {0};
	char text[TF_ADDRESS_TEXT];
	int listener, first;

	ck_assert(!tf_address_parse(address, &a, &e));
	listener = tf_channel_listen(&a, text, sizeof(text), &e);
	ck_assert_int_ge(listener, 0);
	listen(listener, 0);
	first = connect_to(address);
	ck_assert_int_eq(telefork_dial(address, &o, &r), TELEFORK_E_TIMEOUT);
	ck_assert(r.message[0]);
	close(first);
	close(listener);
	unlink(address + 5);
}
END_TEST

int main(int argc, char **argv)
{
	const TTest *const tests[] = {
		slow_senders,
		too_many,
		too_large,
		once,
		strangers,
		end,
		refused,
		full_queue,
	};

	signal(SIGPIPE, SIG_IGN);
	return sides_main(argc, argv,
		sides_suite("serve", set_up, tear_down, tests, sizeof(tests) / sizeof(*tests)));
}
