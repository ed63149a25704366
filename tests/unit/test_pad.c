/* SPDX-License-Identifier: MIT */
/*
 * What telepad() promises: descriptors that did not travel are held (every use says EBADF, the
 * number stays taken until it is closed), streams go where options.stdio says, twenty processes may
 * arrive in twenty threads at once.
 */
#include "tests/unit/sides.h"

#include <malloc.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define THREADS     (tf_host_emulated() ? 6 : 20)
#define THREADS_MAX 20

/* --- held descriptors --- */

static int held; /* a file, before */

#define IS_BADF(call) (errno = 0, (call) == -1 && errno == EBADF)

static int held_answers(void)
{
	struct iovec iov = {&iov, 1};
	struct pollfd p = {held, POLLIN, 0};
	char byte;
	int n;

	return IS_BADF(read(held, &byte, 1)) && IS_BADF(write(held, "x", 1)) &&
	       IS_BADF(lseek(held, 0, SEEK_SET)) && IS_BADF(pread(held, &byte, 1, 0)) &&
	       IS_BADF(readv(held, &iov, 1)) && IS_BADF(writev(held, &iov, 1)) &&
	       IS_BADF(ftruncate(held, 0)) && IS_BADF(fsync(held)) && IS_BADF(fchmod(held, 0600)) &&
	       IS_BADF(ioctl(held, FIONREAD, &n)) && IS_BADF(fcntl(held, F_SETFL, O_NONBLOCK)) &&
	       mmap(NULL, 4096, PROT_READ, MAP_SHARED, held, 0) == MAP_FAILED && errno == EBADF &&
	       poll(&p, 1, 0) == 1 && p.revents == POLLNVAL;
}

/* It is no folder either: nothing is found by way of it. */
static int held_leads_nowhere(void)
{
	return openat(held, "etc", O_RDONLY) == -1 && errno == ENOTDIR && fchdir(held) == -1 &&
	       errno == ENOTDIR;
}

/* The number is taken: nothing new gets it, until it is closed; then it is free. */
static int held_number(void)
{
	int other = dup(0), again;

	if (other == held || close(held))
		return 0;
	again = dup(0);
	return again == held || (other < held && again != other);
}

static int held_close_on_exec(void)
{
	return fcntl(held, F_GETFD) == FD_CLOEXEC;
}

START_TEST(held_descriptors)
{
	static int (*const checks[])(void) = {
		held_answers, held_leads_nowhere, held_number, held_close_on_exec};

	for (size_t i = 0; i < sizeof(checks) / sizeof(*checks); i++) {
		struct journey j = {.copy = checks[i]};
		bool listed = false;

		held = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
		travel(&j);
		check_arrived(&j, "held");
		for (uint32_t k = 0; k < report.result.held_total && k < TELEFORK_HELD_MAX; k++)
			listed |= report.result.held[k] == held;
		ck_assert(listed);
		ck_assert_int_eq(
			memcmp(report.result.held, j.result.held, sizeof(j.result.held)), 0);
		close(held);
	}
}
END_TEST

/* --- standard streams --- */

static int speak(void)
{
	char byte;
	ssize_t n;

	if (write(1, "out", 3) != 3 || write(2, "err", 3) != 3)
		return 0;
	n = read(0, &byte, 1);
	return n >= 0 && write(2, &byte, (size_t)n) == n;
}

/* What the receiver's 1 and 2 got to see; its 0 has "in". */
static void heard_by(enum telefork_stdio stdio, const char *out, const char *err)
{
	struct journey j = {.to.options.stdio = stdio, .copy = speak};
	int pipes[2][2], saved[2], in[2], saved_in = fcntl(0, F_DUPFD_CLOEXEC, 10);
	char text[2][16] = {"", ""};

	ck_assert(!pipe2(in, O_CLOEXEC));
	ck_assert_int_eq(write(in[1], "in", 2), 2);
	dup2(in[0], 0);
	close(in[0]);
	close(in[1]);
	for (int i = 0; i < 2; i++) {
		ck_assert(!pipe2(pipes[i], O_CLOEXEC));
		saved[i] = fcntl(i + 1, F_DUPFD_CLOEXEC, 10);
		dup2(pipes[i][1], i + 1);
		close(pipes[i][1]);
	}
	travel(&j);
	dup2(saved_in, 0);
	close(saved_in);
	for (int i = 0; i < 2; i++) {
		dup2(saved[i], i + 1);
		close(saved[i]);
		ck_assert_int_ge(read(pipes[i][0], text[i], sizeof(text[i]) - 1), 0);
		close(pipes[i][0]);
	}
	check_arrived(&j, "stdio");
	ck_assert_str_eq(text[0], out);
	ck_assert_str_eq(text[1], err);
}

START_TEST(standard_streams)
{
	heard_by(TELEFORK_STDIO_LOG, "", "outerr");
	heard_by(TELEFORK_STDIO_INHERIT, "out", "erri");
	heard_by(TELEFORK_STDIO_NULL, "", "");
	heard_by(TELEFORK_STDIO_INPUT, "", "outerri");
}
END_TEST

/* --- threads --- */

struct arrival {
	int fd, status;
	pid_t pid, waited;
	struct telefork_result result;
};

static pthread_barrier_t together;

static void *arrive(void *arg)
{
	struct arrival *a = arg;

	pthread_barrier_wait(&together);
	a->pid = telepad(a->fd, NULL, &a->result);
	if (a->pid > 0)
		a->waited = telefork_child_wait(a->pid, &a->status);
	close(a->fd);
	return NULL;
}

static unsigned arrive_all(struct arrival *a, int first)
{
	pthread_attr_t attr;
	pthread_t t[THREADS_MAX];
	unsigned well = 0;

	pthread_attr_init(&attr); /* all the stacks are kept for the next round */
	pthread_attr_setstacksize(&attr, 256 << 10);
	for (int i = 0; i < THREADS; i++) {
		a[i] = (struct arrival){.fd = first + i};
		if (pthread_create(&t[i], &attr, arrive, &a[i]))
			return 0;
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(t[i], NULL);
		if (a[i].pid <= 0)
			fprintf(stderr, "%d: %s\n", i, a[i].result.message);
		well += a[i].pid > 0 && a[i].waited == a[i].pid && WIFEXITED(a[i].status) &&
			WEXITSTATUS(a[i].status) == COPY_EXIT;
	}
	return well;
}

/* The receiver with threads: descriptors 10 and up are the senders', twice as many as there are
 * threads. The second round must leave nothing that the first did not. */
static int threads_main(void)
{
	static struct inventory before, after;
	static struct arrival a[THREADS_MAX];
	unsigned well;

	mallopt(M_ARENA_MAX, 1); /* how many there would be is chance */
	pthread_barrier_init(&together, NULL, (unsigned)THREADS);
	well = arrive_all(a, 10);
	note_maps(&before);
	well += arrive_all(a, 10 + THREADS);
	note_maps(&after);
	if (waitpid(-1, NULL, __WALL) != -1 || errno != ECHILD)
		return 1;
	if (strcmp(before.text, after.text)) {
		fprintf(stderr, "%s\n", inventory_differs(&before, &after));
		return 3;
	}
	return well == 2u * (unsigned)THREADS ? 0 : 2;
}

/* THREADS copies at once. */
static void send_all(int fd[][2])
{
	struct telefork_job *job[THREADS_MAX];
	struct telefork_result r;

	for (int i = 0; i < THREADS; i++) {
		int rc = telefork(fd[i][0], NULL, &job[i]);

		if (!rc)
			_exit(COPY_EXIT);
		ck_assert_int_eq(rc, TELEFORK_PARENT);
	}
	for (int i = 0; i < THREADS; i++) {
		int rc = telefork_wait(job[i], &r);

		ck_assert_msg(!rc, "%d: %s", i, r.message);
		ck_assert_int_gt(r.pid, 0);
		close(fd[i][0]);
	}
}

START_TEST(threads)
{
	static const char *const args[] = {"--threads", NULL};
	int fd[2 * THREADS_MAX][2], status;
	pid_t receiver;

	for (int i = 0; i < 2 * THREADS; i++)
		ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd[i]));
	receiver = fork();
	if (!receiver) {
		for (int i = 0; i < 2 * THREADS; i++)
			fd[i][1] = fcntl(fd[i][1], F_DUPFD, 200);
		for (int i = 0; i < 2 * THREADS; i++)
			dup2(fd[i][1], 10 + i);
		for (int i = 10 + 2 * THREADS; i < 400; i++)
			close(i);
		for (int i = 3; i < 10; i++)
			close(i);
		exec_self(own_path(), args);
	}
	for (int i = 0; i < 2 * THREADS; i++)
		close(fd[i][1]);
	send_all(fd);
	send_all(fd + THREADS);
	ck_assert_int_eq(waitpid(receiver, &status, 0), receiver);
	ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(child_wait)
{
	int status = 0;
	pid_t pid = fork();

	if (!pid)
		_exit(5);
	ck_assert_int_eq(telefork_child_wait(pid, &status), pid);
	ck_assert_int_eq(WEXITSTATUS(status), 5);
	ck_assert_int_eq(telefork_child_wait(pid, &status), TELEFORK_E_SYSTEM); /* no more */
}
END_TEST

/* What telepad() itself says to what is no sender. */
START_TEST(no_sender)
{
	struct telefork_options o = {.size = 5};
	struct telefork_result r;
	int fd = open("/dev/null", O_RDWR), write_only;

	inventory_take(&held_before);
	ck_assert_int_eq(telepad(fd, &o, &r), TELEFORK_E_INVAL);
	ck_assert_int_eq(telepad(fd, NULL, &r), TELEFORK_E_CLOSED);
	ck_assert(r.message[0] && !r.pid);
	ck_assert_int_eq(telepad(-1, NULL, &r), TELEFORK_E_INVAL);
	ck_assert_msg(strstr(r.message, "-1: EBADF"), "%s", r.message);
	write_only = open("/dev/null", O_WRONLY);
	ck_assert_int_eq(telepad(write_only, NULL, &r), TELEFORK_E_INVAL);
	ck_assert_msg(strstr(r.message, "not open for reading"), "%s", r.message);
	close(write_only);
	inventory_take(&held_after);
	ck_assert_str_eq(inventory_differs(&held_before, &held_after), "");
	close(fd);
}
END_TEST

int main(int argc, char **argv)
{
	const TTest *const tests[] = {
		held_descriptors,
		standard_streams,
		threads,
		child_wait,
		no_sender,
	};

	if (argc > 1 && !strcmp(argv[1], "--threads"))
		return threads_main();
	return sides_main(argc, argv,
		sides_suite("pad", sides_setup, NULL, tests, sizeof(tests) / sizeof(*tests)));
}
