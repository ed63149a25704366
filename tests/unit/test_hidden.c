/* SPDX-License-Identifier: MIT */
/*
 * The snapshot never shows. While a large memory is on its way to a receiver that reads nothing,
 * the program's wait(), signals, pipes, locks, timers and descriptors are as if there were no
 * snapshot. The receiver here is this process's other end of a socket: it decides when a byte
 * moves.
 */
#include "core/capture/capture.h"
#include "core/image/file.h"
#include "core/job.h"
#include "tests/unit/sides.h"

#include <pthread.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/time.h>

#define LARGE ((size_t)1 << 30)

/* A transfer that does not move: the peer's end is in our hand. */
struct still {
	int fd, peer;
	struct telefork_job *job;
};

static char *large;

static void still_begin(struct still *s)
{
	struct telefork_options o = {.idle_ms = 60000};
	int fd[2];

	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd));
	*s = (struct still){.fd = fd[0], .peer = fd[1]};
	ck_assert_int_eq(telefork(s->fd, &o, &s->job), TELEFORK_PARENT);
}

/* It is still under way. */
static void still_there(const struct still *s)
{
	struct pollfd p = {telefork_job_fd(s->job), POLLIN, 0};

	ck_assert_int_eq(poll(&p, 1, 0), 0);
	ck_assert_int_eq(kill(s->job->snapshot, 0), 0);
}

static void still_end(struct still *s)
{
	struct telefork_result r;
	pid_t snapshot = s->job->snapshot;
	bool child = s->job->child;

	still_there(s);
	ck_assert_int_eq(telefork_cancel(s->job), 0);
	ck_assert_int_eq(telefork_wait(s->job, &r), TELEFORK_E_CANCELLED);
	ck_assert_ptr_nonnull(strstr(r.message, "cancel"));
	if (child) /* reaped: it does not outlive the call */
		ck_assert(kill(snapshot, 0) && errno == ESRCH);
	close(s->fd);
	close(s->peer);
}

/* A gigabyte, of which every 64th page is there. */
static void set_up(void)
{
	sides_setup();
	large = mmap(NULL, LARGE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ck_assert(large != MAP_FAILED);
	for (size_t i = 0; i < LARGE; i += 64 * 4096)
		large[i] = (char)i;
}

/* --- children and signals --- */

static volatile sig_atomic_t sigchlds;
static siginfo_t sigchld;

static void on_sigchld(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)context;
	sigchld = *info;
	sigchlds++;
}

static void catch_sigchld(void)
{
	struct sigaction sa = {.sa_flags = SA_SIGINFO};

	sa.sa_sigaction = on_sigchld;
	sigaction(SIGCHLD, &sa, NULL);
}

static void no_child(void)
{
	siginfo_t info;
	struct rusage usage;

	ck_assert(wait(NULL) == -1 && errno == ECHILD);
	ck_assert(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
	ck_assert(waitpid(0, NULL, WNOHANG) == -1 && errno == ECHILD);
	ck_assert(wait3(NULL, WNOHANG, &usage) == -1 && errno == ECHILD);
	ck_assert(waitid(P_ALL, 0, &info, WEXITED | WNOHANG) == -1 && errno == ECHILD);
}

START_TEST(no_child_shows)
{
	struct still s;

	catch_sigchld();
	no_child();
	still_begin(&s);
	no_child();
	still_end(&s);
	no_child();
	ck_assert_int_eq(sigchlds, 0);
}
END_TEST

static pid_t child_that_exits(int code)
{
	pid_t pid = fork();

	if (!pid)
		_exit(code);
	return pid;
}

/* The program's own children are told of and waited for as ever. */
START_TEST(own_children)
{
	struct still s;
	sigset_t chld, old;
	int status;
	pid_t pid;

	catch_sigchld();
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, &old);
	still_begin(&s);
	pid = child_that_exits(7);
	sigsuspend(&old);
	ck_assert_int_eq(sigchlds, 1);
	ck_assert_int_eq(sigchld.si_pid, pid);
	ck_assert_int_eq(sigchld.si_code, CLD_EXITED);
	ck_assert_int_eq(sigchld.si_status, 7);
	ck_assert_int_eq(wait(&status), pid);
	ck_assert_int_eq(WEXITSTATUS(status), 7);
	no_child();
	still_end(&s);
	ck_assert_int_eq(sigchlds, 1);
}
END_TEST

/* One that ended before the call, its signal pending: it stays pending, with everything it says. */
START_TEST(pending_sigchld)
{
	struct still s;
	sigset_t chld, pending;
	siginfo_t info;
	int status;
	pid_t pid;

	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	pid = child_that_exits(9);
	ck_assert(!waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
	still_begin(&s);
	sigpending(&pending);
	ck_assert(sigismember(&pending, SIGCHLD));
	ck_assert_int_eq(sigwaitinfo(&chld, &info), SIGCHLD);
	ck_assert_int_eq(info.si_pid, pid);
	ck_assert_int_eq(info.si_code, CLD_EXITED);
	ck_assert_int_eq(info.si_status, 9);
	ck_assert_int_eq(waitpid(-1, &status, 0), pid);
	sigpending(&pending);
	ck_assert(!sigismember(&pending, SIGCHLD));
	still_end(&s);
	sigpending(&pending);
	ck_assert(!sigismember(&pending, SIGCHLD));
}
END_TEST

/* One that was told of, but not waited for: it is not told of again. */
START_TEST(no_second_sigchld)
{
	struct still s;
	sigset_t pending;
	siginfo_t info;
	pid_t pid;

	catch_sigchld();
	pid = child_that_exits(3);
	while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT))
		;
	ck_assert_int_eq(sigchlds, 1);
	still_begin(&s);
	sigpending(&pending);
	ck_assert(!sigismember(&pending, SIGCHLD));
	ck_assert_int_eq(sigchlds, 1);
	ck_assert_int_eq(waitpid(-1, NULL, 0), pid);
	still_end(&s);
	ck_assert_int_eq(sigchlds, 1);
}
END_TEST

START_TEST(signals_and_timers)
{
	struct itimerval timer = {.it_value = {1000, 0}}, left;
	struct still s;
	sigset_t set, pending;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
	raise(SIGUSR1);
	inventory_take(&held_before);
	still_begin(&s);
	sigpending(&pending);
	ck_assert(sigismember(&pending, SIGUSR1) && !sigismember(&pending, SIGUSR2));
	getitimer(ITIMER_REAL, &left);
	ck_assert(left.it_value.tv_sec > 900);
	still_end(&s);
	inventory_take(&held_after);
	ck_assert_str_eq(inventory_differs(&held_before, &held_after), "");
	/* An alarm rings once, here. */
	signal(SIGALRM, SIG_IGN);
	timer.it_value.tv_sec = 0;
	setitimer(ITIMER_REAL, &timer, NULL);
}
END_TEST

/* --- descriptors --- */

START_TEST(pipe_ends)
{
	struct still s;
	int fd[2];
	char byte;

	ck_assert(!pipe(fd));
	still_begin(&s);
	close(fd[1]);
	ck_assert_int_eq(read(fd[0], &byte, 1), 0); /* would hang while the snapshot held it */
	close(fd[0]);
	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
	still_end(&s);
	still_begin(&s);
	close(fd[1]);
	ck_assert_int_eq(read(fd[0], &byte, 1), 0);
	close(fd[0]);
	still_end(&s);
}
END_TEST

static int other_process_locks(const char *path)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 100};
		int fd = open(path, O_RDWR);

		_exit((flock(fd, LOCK_EX | LOCK_NB) ? 1 : 0) |
			(fcntl(fd, F_SETLK, &range) ? 2 : 0) |
			(fcntl(fd, F_OFD_SETLK,
				 &(struct flock){.l_type = F_WRLCK, .l_start = 200, .l_len = 100})
					? 4
					: 0));
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

START_TEST(locks)
{
	struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 100};
	struct flock ofd = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 200, .l_len = 100};
	char path[] = "/tmp/telefork-locks-XXXXXX";
	int fd = mkstemp(path);
	struct still s;

	ck_assert_int_ge(fd, 0);
	ck_assert(!flock(fd, LOCK_EX) && !fcntl(fd, F_SETLK, &range) &&
		  !fcntl(fd, F_OFD_SETLK, &ofd));
	still_begin(&s);
	ck_assert_int_eq(other_process_locks(path), 7); /* they are held as ever */
	close(fd);
	ck_assert_int_eq(other_process_locks(path), 0); /* and free when closed */
	unlink(path);
	still_end(&s);
}
END_TEST

START_TEST(descriptors_equal)
{
	struct still s;

	inventory_take(&held_before);
	still_begin(&s);
	still_end(&s);
	inventory_take(&held_after);
	ck_assert_str_eq(inventory_differs(&held_before, &held_after), "");
}
END_TEST

/* A thousand descriptors: all of them held and listed over there. */
static void open_many(int *fds, int n)
{
	struct rlimit lim = {4096, 4096};

	setrlimit(RLIMIT_NOFILE, &lim);
	for (int i = 0; i < n; i++)
		ck_assert_int_ge(fds[i] = open("/dev/null", O_RDWR | (i % 2 ? O_CLOEXEC : 0)), 0);
}

START_TEST(a_thousand_descriptors)
{
	struct journey j = {.wire.act = PASS};
	static int fds[1000];

	munmap(large, LARGE);
	open_many(fds, 1000);
	travel(&j);
	check_arrived(&j, "1,000 descriptors");
	ck_assert_uint_ge(j.result.held_total, 1000);
	ck_assert_uint_eq(j.result.held_total, report.result.held_total);
	ck_assert_int_ge(j.result.held[TELEFORK_HELD_MAX - 1], 3);
	for (int i = 0; i < 1000; i++)
		close(fds[i]);
}
END_TEST

/* Each of ours, as it is. */
static void assert_listed(const struct tf_file *in, int file)
{
	const struct tf_image *img = &in->image;
	uint32_t n = 0;

	for (int fd = 0; fd < 4096; fd++) {
		const struct tf_fd *f = &img->fds[n];
		char name[32], target[256] = "";
		int flags = fcntl(fd, F_GETFL);

		if (flags < 0 || fd == in->fd)
			continue;
		if (fcntl(fd, F_GETFD) & FD_CLOEXEC)
			flags |= O_CLOEXEC;
		snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
		ck_assert_int_gt(readlink(name, target, sizeof(target) - 1), 0);
		ck_assert_uint_lt(n++, img->n_fds);
		ck_assert_int_eq(f->fd, fd);
		ck_assert_str_eq(f->path, target);
		ck_assert_uint_eq(f->flags, flags);
		if (fd == file)
			ck_assert_uint_eq(f->offset, 7);
	}
	ck_assert_uint_eq(n, img->n_fds);
}

static void assert_all_listed(int channel, const char *path, int file)
{
	struct telefork_job *job;
	struct telefork_result r;
	struct tf_err e = {0};
	struct tf_file f;
	int rc;

	ck_assert(!ftruncate(channel, 0) && !lseek(channel, 0, SEEK_SET));
	rc = telefork(channel, NULL, &job);
	if (!rc)
		_exit(0);
	ck_assert_int_eq(rc, TELEFORK_PARENT);
	ck_assert_int_eq(telefork_wait(job, &r), 0);
	ck_assert_msg(!tf_file_open(&f, path, &e), "%s", e.text);
	lseek(channel, 0, SEEK_SET);
	assert_listed(&f, file);
	tf_file_close(&f);
}

static void *wait_for(void *fd)
{
	char byte;

	ck_assert_int_eq(read(*(int *)fd, &byte, 1), 0);
	return NULL;
}

/* Few; more than a socket takes at a time; and in a program with threads. */
START_TEST(all_are_listed)
{
	char path[] = "/tmp/test_hidden.XXXXXX", words[] = "/tmp/test_hidden.XXXXXX";
	int channel = mkostemp(path, O_CLOEXEC), file = mkstemp(words), fd[2];
	static int many[3000];
	pthread_t thread;

	munmap(large, LARGE);
	ck_assert(channel >= 0 && write(file, words, 7) == 7 && !pipe2(fd, O_CLOEXEC));
	assert_all_listed(channel, path, file);
	open_many(many, 3000);
	assert_all_listed(channel, path, file);
	for (int i = 0; i < 3000; i++)
		close(many[i]);
	ck_assert(!pthread_create(&thread, NULL, wait_for, fd));
	assert_all_listed(channel, path, file);
	close(fd[1]);
	pthread_join(thread, NULL);
	close(fd[0]);
	close(file);
	close(channel);
	unlink(path);
	unlink(words);
}
END_TEST

START_TEST(without_standard_streams)
{
	struct journey j = {.wire.act = PASS};
	int saved[3];

	munmap(large, LARGE);
	for (int i = 0; i < 3; i++) {
		saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 100);
		close(i);
	}
	travel(&j);
	for (int i = 0; i < 3; i++)
		dup2(saved[i], i);
	check_arrived(&j, "stdin, stdout and stderr closed");
}
END_TEST

/* The channel is one of the standard streams. */
START_TEST(channel_is_low)
{
	munmap(large, LARGE);
	for (int low = 0; low < 3; low++) {
		struct journey j = {.wire.act = PASS, .low = low, .use_low = true};

		travel(&j);
		check_arrived(&j, "the channel is descriptor 0, 1 or 2");
	}
}
END_TEST

/* --- SIGUSR1, with which the snapshot interrupts itself --- */

static volatile sig_atomic_t usr1s;

static void on_usr1(int signo)
{
	(void)signo;
	usr1s++;
}

static int with_usr1(void)
{
	usr1s = 0;
	raise(SIGUSR1);
	return usr1s;
}

/* Over there: is everything as it was here? */
static int usr1_default(void)
{
	struct sigaction sa;

	return !sigaction(SIGUSR1, NULL, &sa) && sa.sa_handler == SIG_DFL;
}

static int usr1_ignored(void)
{
	struct sigaction sa;

	return !with_usr1() && !sigaction(SIGUSR1, NULL, &sa) && sa.sa_handler == SIG_IGN;
}

static int usr1_handled(void)
{
	return with_usr1() == 1;
}

static int usr1_blocked(void)
{
	sigset_t set, pending;

	if (with_usr1())
		return 0;
	sigpending(&pending);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	return sigismember(&pending, SIGUSR1) && !sigprocmask(SIG_UNBLOCK, &set, NULL) &&
	       usr1s == 1;
}

START_TEST(sigusr1)
{
	struct journey j[4] = {{.copy = usr1_default}, {.copy = usr1_ignored},
		{.copy = usr1_handled}, {.copy = usr1_blocked}};
	void (*const action[4])(int) = {SIG_DFL, SIG_IGN, on_usr1, on_usr1};
	sigset_t set;

	munmap(large, LARGE);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	for (int i = 0; i < 4; i++) {
		signal(SIGUSR1, action[i]);
		sigprocmask(i == 3 ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
		travel(&j[i]);
		check_arrived(&j[i], "SIGUSR1 default, ignored, handled, blocked");
	}
}
END_TEST

/* --- several at once --- */

START_TEST(jobs_at_once)
{
	struct still s[5];

	catch_sigchld();
	inventory_take(&held_before);
	for (int i = 0; i < 5; i++)
		still_begin(&s[i]);
	no_child();
	for (int i = 4; i >= 0; i--)
		still_end(&s[i]);
	no_child();
	ck_assert_int_eq(sigchlds, 0);
	inventory_take(&held_after);
	ck_assert_str_eq(inventory_differs(&held_before, &held_after), "");
}
END_TEST

static void *thread_of_jobs(void *arg)
{
	struct still s[3];

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 3; i++)
			still_begin(&s[i]);
		for (int i = 0; i < 3; i++)
			still_end(&s[i]);
	}
	return arg;
}

START_TEST(jobs_of_two_threads)
{
	pthread_t t[2];

	for (int i = 0; i < 2; i++)
		ck_assert(!pthread_create(&t[i], NULL, thread_of_jobs, NULL));
	for (int i = 0; i < 2; i++)
		ck_assert(!pthread_join(t[i], NULL));
	no_child();
}
END_TEST

/* --- the parent goes first --- */

/* The program exits, or is killed, at once: the transfer goes on, the copy runs (telefork.h). */
static void parent_goes(bool killed)
{
	struct order order = {0};
	int fd[2], talk;
	pid_t source, receiver;

	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd));
	receiver = receiver_start(fd[1], &order, &talk);
	close(fd[1]);
	source = fork();
	if (!source) {
		struct telefork_job *job;

		if (!telefork(fd[0], NULL, &job)) /* the copy: its way back ends at once */
			_exit(read(telefork_peer_fd(), &(char){0}, 1) ? 1 : COPY_EXIT);
		if (killed)
			raise(SIGKILL);
		_exit(0);
	}
	close(fd[0]);
	ck_assert_int_eq(waitpid(source, NULL, 0), source);
	receiver_end(receiver, talk);
	ck_assert_msg(report.pid > 0, "%s", report.result.message);
	ck_assert(WIFEXITED(report.status));
	ck_assert_int_eq(WEXITSTATUS(report.status), COPY_EXIT);
	ck_assert_str_eq(report.differs, "");
}

START_TEST(parent_goes_first)
{
	munmap(large, LARGE);
	parent_goes(false);
	parent_goes(true);
}
END_TEST

/* --- huge pages --- */

#define HUGE ((size_t)2 << 20)
#define MANY 8u

/* NULL: there are none here, or nobody tells which pages are huge. */
static char *huge_pages(void)
{
	char *p = mmap(NULL, (MANY + 1) * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		-1, 0);
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	bool told = tf_capture_lists_pages(pagemap);
	struct tf_capture c = {.huge = MANY * HUGE, .image = {.n_maps = 1}};
	struct tf_map map;

	close(pagemap);
	ck_assert(p != MAP_FAILED);
	p += -(uintptr_t)p % HUGE;
	madvise(p, MANY * HUGE, MADV_HUGEPAGE);
	memset(p, 1, MANY * HUGE);
	map = (struct tf_map){.start = (uint64_t)p, .end = (uint64_t)p + MANY * HUGE};
	c.image.maps = &map;
	return told && !tf_capture_split(&c, getpid()) ? p : NULL;
}

static uint64_t split_of(char *huge, unsigned written)
{
	struct telefork_result r;
	struct still s;

	still_begin(&s);
	for (unsigned i = 0; i < written; i++)
		huge[i * HUGE] = 2;
	close(s.peer);
	ck_assert_int_eq(telefork_wait(s.job, &r), TELEFORK_E_CLOSED);
	close(s.fd);
	return r.split;
}

/* What is written to while it is shared with the snapshot is not huge any more, and told of. */
START_TEST(split_is_told)
{
	char *huge;

	munmap(large, LARGE);
	huge = huge_pages();
	if (!huge)
		return;
	ck_assert_uint_eq(split_of(huge, 0), 0);
	ck_assert_uint_eq(split_of(huge, 3), 3 * HUGE);
}
END_TEST

int main(int argc, char **argv)
{
	const TTest *const tests[] = {
		no_child_shows,
		own_children,
		pending_sigchld,
		no_second_sigchld,
		signals_and_timers,
		pipe_ends,
		locks,
		descriptors_equal,
		a_thousand_descriptors,
		all_are_listed,
		without_standard_streams,
		channel_is_low,
		sigusr1,
		jobs_at_once,
		jobs_of_two_threads,
		parent_goes_first,
		split_is_told,
	};

	return sides_main(argc, argv,
		sides_suite("hidden", set_up, NULL, tests, sizeof(tests) / sizeof(*tests)));
}
