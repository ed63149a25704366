/* SPDX-License-Identifier: MIT */
/*
 * Limits of both sides: descriptors that are none, full disks and pipes, a receiver without memory.
 * The answer is a code and a text that names the thing; no file, no process, no mapping
 * stays. */
#include "tests/unit/sides.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

static char folder[] = "/tmp/telefork-limits-XXXXXX";

static void set_up(void)
{
	sides_setup();
	ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void tear_down(void)
{
	rmdir(folder);
}

static unsigned files_in(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;
	unsigned n = 0;

	while (d && (e = readdir(d)))
		n += e->d_name[0] != '.';
	if (d)
		closedir(d);
	return n;
}

/* --- telefork() itself --- */

static void not_started(int fd, const char *why)
{
	struct telefork_job *job = (void *)1;

	ck_assert_int_eq(telefork(fd, NULL, &job), TELEFORK_E_INVAL);
	ck_assert_ptr_eq(job, (void *)1);
	ck_assert_msg(strstr(telefork_why(), why), "\"%s\" is not \"%s\"", telefork_why(), why);
}

START_TEST(bad_descriptors)
{
	struct telefork_options o = {.size = 3};
	struct telefork_job *job;
	int fd, two[2];

	inventory_take(&held_before);
	not_started(-1, "descriptor -1: EBADF");
	fd = open("/dev/null", O_RDONLY);
	not_started(fd, "not open for writing");
	close(fd);
	not_started(fd, "EBADF");
	fd = open("/dev/null", O_PATH);
	not_started(fd, "not open for writing");
	close(fd);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	ck_assert(!bind(fd, (struct sockaddr *)&(sa_family_t){AF_UNIX}, sizeof(sa_family_t)));
	ck_assert(!listen(fd, 1));
	not_started(fd, "listening socket");
	close(fd);
	ck_assert(!socketpair(AF_UNIX, SOCK_DGRAM, 0, two));
	not_started(two[0], "no stream socket");
	close(two[0]);
	close(two[1]);
	fd = open("/dev/null", O_WRONLY);
	ck_assert_int_eq(telefork(fd, NULL, NULL), TELEFORK_E_INVAL);
	ck_assert_int_eq(telefork(fd, &o, &job), TELEFORK_E_INVAL);
	ck_assert_ptr_nonnull(strstr(telefork_why(), "options.size is 3"));
	close(fd);
	inventory_take(&held_after);
	ck_assert_str_eq(inventory_differs(&held_before, &held_after), "");
}
END_TEST

/* A process that has what cannot travel: said by name before anything starts. */
START_TEST(cannot_travel)
{
	char path[64];
	struct telefork_job *job;
	int fd, out = open("/dev/null", O_WRONLY);
	void *p;

	snprintf(path, sizeof(path), "%s/shared", folder);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	ck_assert(fd >= 0 && !ftruncate(fd, 4096));
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ck_assert(p != MAP_FAILED);
	ck_assert_int_eq(telefork(out, NULL, &job), TELEFORK_E_UNSUPPORTED);
	ck_assert_ptr_nonnull(strstr(telefork_why(), path));
	munmap(p, 4096);
	close(fd);
	close(out);
	unlink(path);
}
END_TEST

/* --- disks --- */

static int outcome_of(int fd, struct telefork_result *r)
{
	struct telefork_options o = {.idle_ms = 5000};
	struct telefork_job *job;
	int rc = telefork(fd, &o, &job);

	if (!rc)
		_exit(COPY_EXIT);
	ck_assert_int_eq(rc, TELEFORK_PARENT);
	return telefork_wait(job, r);
}

/* By either call into a folder with no room: the file that was there stays as it was. */
static void no_room(const char *reason)
{
	char path[80], text[8] = "";
	struct telefork_result r;
	int fd;

	snprintf(path, sizeof(path), "%s/image", folder);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	ck_assert(write(fd, "before", 6) == 6);
	close(fd);
	inventory_take(&held_before);
	ck_assert_int_eq(telefork_save(path, NULL, &r), TELEFORK_E_IO);
	ck_assert_msg(strstr(r.message, reason), "%s", r.message);
	fd = telefork_dial(path, NULL, &r);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(outcome_of(fd, &r), TELEFORK_E_IO);
	ck_assert_msg(strstr(r.message, reason), "%s", r.message);
	close(fd);
	inventory_take(&held_after);
	ck_assert_str_eq(inventory_differs(&held_before, &held_after), "");
	ck_assert_uint_eq(files_in(folder), 1);
	slurp(path, text, sizeof(text));
	ck_assert_str_eq(text, "before");
	unlink(path);
}

START_TEST(disk_full)
{
	/* Another namespace: the mount ends with this process. */
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		mount("tmpfs", folder, "tmpfs", 0, "size=256k")) {
		fprintf(stderr, "disk_full: cannot mount: %s\n", strerror(errno));
		return;
	}
	no_room("ENOSPC");
	umount(folder);
}
END_TEST

START_TEST(file_limit)
{
	struct rlimit lim = {65536, RLIM_INFINITY};

	setrlimit(RLIMIT_FSIZE, &lim);
	no_room("EFBIG");
}
END_TEST

START_TEST(pipe_full)
{
	struct telefork_result r;
	int fd = open("/dev/full", O_WRONLY), ends[2];

	ck_assert_int_eq(outcome_of(fd, &r), TELEFORK_E_IO);
	ck_assert_msg(strstr(r.message, "ENOSPC"), "%s", r.message);
	close(fd);
	ck_assert(!pipe(ends));
	close(ends[0]); /* nobody reads: no SIGPIPE here */
	ck_assert_int_eq(outcome_of(ends[1], &r), TELEFORK_E_CLOSED);
	ck_assert(r.message[0]);
	close(ends[1]);
}
END_TEST

/* Two dials into one number: the file that was given up is not the one that appears. */
START_TEST(number_used_again)
{
	char path[2][80];
	struct telefork_result r;
	struct stat st;
	int fd, again;

	for (int i = 0; i < 2; i++)
		snprintf(path[i], sizeof(path[i]), "%s/image%d", folder, i);
	fd = telefork_dial(path[0], NULL, &r);
	close(fd);
	again = telefork_dial(path[1], NULL, &r);
	ck_assert_int_eq(again, fd);
	ck_assert_int_eq(outcome_of(again, &r), 0);
	ck_assert(stat(path[0], &st) && !stat(path[1], &st));
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	close(again);
	unlink(path[1]);
}
END_TEST

/* --- pipes, and sockets that do not block --- */

static void through(int from, int to, int idle_ms, int meant)
{
	struct order order = {.options.idle_ms = idle_ms};
	struct telefork_result r;
	int talk;
	pid_t pid = receiver_start(to, &order, &talk);

	close(to);
	if (meant) /* say nothing at all, but stay */
		receiver_end(pid, talk);
	else
		ck_assert_int_eq(outcome_of(from, &r), 0);
	close(from);
	if (!meant)
		receiver_end(pid, talk);
	ck_assert_str_eq(report.differs, "");
	if (meant)
		ck_assert_int_eq(report.pid, meant);
	else
		ck_assert(report.pid > 0 && WEXITSTATUS(report.status) == COPY_EXIT);
}

START_TEST(pipes)
{
	int fd[2];

	ck_assert(!pipe2(fd, O_CLOEXEC));
	through(fd[1], fd[0], 0, 0);
	ck_assert(!pipe2(fd, O_CLOEXEC));
	through(fd[1], fd[0], PATIENCE, TELEFORK_E_TIMEOUT);
}
END_TEST

START_TEST(sockets_that_do_not_block)
{
	int fd[2];

	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd));
	through(fd[1], fd[0], 0, 0);
	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd));
	through(fd[1], fd[0], PATIENCE, TELEFORK_E_TIMEOUT);
}
END_TEST

/* A pipe that stops in the middle of the memory:
 * nothing but the restorer's own clock can end it. */
START_TEST(pipe_that_stops)
{
	struct order order = {.options.idle_ms = PATIENCE};
	static char stream[16 << 20];
	size_t n = 0, part;
	int fd[2], talk;
	ssize_t got;
	pid_t pid;

	ck_assert(!pipe2(fd, O_CLOEXEC));
	pid = fork();
	if (!pid) {
		struct telefork_result r;

		close(fd[0]);
		_exit(outcome_of(fd[1], &r) != 0);
	}
	close(fd[1]);
	while ((got = read(fd[0], stream + n, sizeof(stream) - n)) > 0)
		n += (size_t)got;
	close(fd[0]);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ck_assert_uint_gt(n, 1 << 18);
	part = n - (1 << 16);
	ck_assert(!pipe2(fd, O_CLOEXEC));
	pid = receiver_start(fd[0], &order, &talk);
	close(fd[0]);
	for (size_t at = 0; at < part; at += (size_t)got)
		ck_assert_int_gt(got = write(fd[1], stream + at, part - at), 0);
	receiver_end(pid, talk);
	close(fd[1]);
	ck_assert_int_eq(report.pid, TELEFORK_E_TIMEOUT);
	ck_assert_str_eq(report.differs, "");
}
END_TEST

/* --- memory --- */

START_TEST(address_space)
{
	const rlim_t limits[] = {(rlim_t)512 << 20, (rlim_t)1280 << 20};
	const int codes[] = {TELEFORK_E_NOMEM, TELEFORK_E_INCOMPATIBLE};

	if (tf_host_emulated()) /* which does not pass RLIMIT_AS on */
		return;
	/* Nothing is in it, but it takes addresses. */
	ck_assert(mmap(NULL, (size_t)2 << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
		  MAP_FAILED);
	for (int i = 0; i < 2; i++) {
		struct journey j = {.to.address_space = limits[i]};

		travel(&j);
		check_failed(&j, "RLIMIT_AS");
		ck_assert_int_eq(report.pid, codes[i]);
		ck_assert_int_eq(
			j.result.error, codes[i] == TELEFORK_E_NOMEM ? j.result.error : codes[i]);
		ck_assert(strstr(report.result.message, "address space"));
	}
}
END_TEST

/* --- ssh --- */

static char script[64];

/* A stand-in for ssh. */
static void write_script(const char *text)
{
	int fd;

	snprintf(script, sizeof(script), "%s/ssh", folder);
	fd = open(script, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0700);
	ck_assert(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
	setenv("TELEFORK_SSH", script, 1);
}

static void remove_scripts(void)
{
	char pid[64];

	snprintf(pid, sizeof(pid), "%s/ssh.pid", folder);
	unlink(pid);
	unlink(script);
	unsetenv("TELEFORK_SSH");
}

/* Its text has to be there, and nobody: no child, no signal, no descriptor. */
static void ssh_fails(const char *text, int deadline_ms, int code, const char *why)
{
	struct telefork_options o = {.deadline_ms = deadline_ms};
	struct telefork_result r;
	siginfo_t info;
	sigset_t chld;

	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	write_script(text);
	inventory_take(&held_before);
	ck_assert_int_eq(telefork_dial("ssh://some.host", &o, &r), code);
	inventory_take(&held_after);
	ck_assert_str_eq(inventory_differs(&held_before, &held_after), "");
	ck_assert_msg(strstr(r.message, why), "\"%s\" is not in \"%s\"", why, r.message);
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
	ck_assert_int_eq(sigtimedwait(&chld, &info, &(struct timespec){0}), -1);
}

START_TEST(ssh_that_fails)
{
	ssh_fails("#!/bin/sh\necho no \033[2J route >&2; exit 255\n", 0, TELEFORK_E_REFUSED,
		"ssh://some.host: ssh ended with exit code 255: no \\x1b[2J route");
	ssh_fails("#!/bin/sh\nkill -9 $$\n", 0, TELEFORK_E_REFUSED, "ssh was ended by signal 9");
	ssh_fails("#!/bin/sh\necho welcome to some.host\n", 0, TELEFORK_E_PROTOCOL,
		"the other side is no telefork receiver");
	ssh_fails("#!/bin/sh\nhead -c 100000 /dev/zero | tr '\\0' x >&2\n", 0, TELEFORK_E_REFUSED,
		"xxxxxxxx");
	remove_scripts();
}
END_TEST

/* A connection that is never made: ssh does not outlive the attempt. */
START_TEST(ssh_that_hangs)
{
	char name[80], pid[16] = "";
	int fd;

	ssh_fails("#!/bin/sh\necho $$ >$0.pid; exec sleep 1000\n", 2 * PATIENCE, TELEFORK_E_TIMEOUT,
		"the deadline passed");
	snprintf(name, sizeof(name), "%s.pid", script);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, pid, sizeof(pid) - 1) > 0) { /* else it did not come so far */
		ck_assert_int_eq(kill(atoi(pid), 0), -1);
		ck_assert_int_eq(errno, ESRCH);
	}
	if (fd >= 0)
		close(fd);
	remove_scripts();
}
END_TEST

int main(int argc, char **argv)
{
	const TTest *const tests[] = {
		bad_descriptors,
		cannot_travel,
		disk_full,
		file_limit,
		pipe_full,
		number_used_again,
		pipes,
		sockets_that_do_not_block,
		pipe_that_stops,
		address_space,
		ssh_that_fails,
		ssh_that_hangs,
	};

	return sides_main(argc, argv,
		sides_suite("limits", set_up, tear_down, tests, sizeof(tests) / sizeof(*tests)));
}
