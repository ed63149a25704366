/* SPDX-License-Identifier: MIT */
/*
 * A process that is captured while it runs on (tf_task_snapshot): its memory is that of one moment,
 * whatever kind it is of; the fork that this takes shows nowhere; afterwards nothing is different
 * that /proc or the program can see; and whoever captures may be killed at any ptrace call. One
 * static program, for guests as well.
 */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/host.h"
#include "core/capture/task.h"
#include "core/image/file.h"
#include "tests/unit/proc.h"
#include "tests/unit/suite.h"

#define AREA (64u << 10)

/* What the program does, byte by byte: and it answers each with one. */
enum {
	DO_NOTHING = 'n',
	DO_LOOK = 'l',    /* at itself, into shared->view */
	DO_COUNT = 'c',   /* in all areas, until shared->stop */
	DO_SHARE = 's',   /* one more area, that a fork does not freeze */
	DO_KEEP = 'f',    /* one more that it does not have */
	DO_CLOSE = 'o',   /* the pipe and the locked file */
	DO_RENAME = 'r',  /* the file that is locked */
	DO_REPLACE = 'p', /* its descriptor by that of a pipe */
	DO_SEEK = 'e',    /* in it, and more flags */
	DO_OPEN = 'd',    /* a descriptor more of it */
	DO_MEMORY = 'm',  /* one of shared memory */
	DO_CHILD = 'k',   /* vfork a child that stays; no answer until it is gone */
};

/* Kinds of memory, each counted in. */
enum { PRIVATE, SHARED, WIPED, LOCKED, NO_FORK, LATE, KINDS };

struct view {
	sigset_t mask, pending;
	uint64_t action[64][4]; /* as the kernel has it */
	stack_t altstack;
	struct itimerval timer;
	uint64_t tid_addr, robust_head, robust_len;
	uint64_t brk, sum, chld;
	int nice, policy, children, dumpable, adopted;
	char cwd[64], name[16];
};

static struct shared {
	volatile int pid, stop, child, chld;
	volatile uint64_t *volatile area[KINDS];
	char renamed[80];
	struct view view;
} * shared; /* with the program */

static int command[2], answer[2], held[2], locked;
static char locked_path[64];
static pid_t child;
static struct tf_task task;

/* --- the program --- */

static volatile uint64_t *map_area(int kind)
{
	bool is_shared = kind == SHARED;
	uint64_t *p = mmap(NULL, AREA, PROT_READ | PROT_WRITE,
		(is_shared ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED || (kind == WIPED && madvise(p, AREA, MADV_WIPEONFORK)) ||
		(kind == NO_FORK && madvise(p, AREA, MADV_DONTFORK)) ||
		(kind == LOCKED && mlock(p, AREA)))
		_exit(4);
	p[0] = 1;
	return p;
}

/* At any moment they are equal, or those before are one ahead. */
static void count(void)
{
	for (uint64_t n = 2; !shared->stop; n++)
		for (int k = 0; k < KINDS; k++)
			if (shared->area[k])
				shared->area[k][0] = shared->area[k][AREA / 8 - 1] =
					n; /* the end first */
}

static void look_at_itself(struct view *v)
{
	size_t len = 0;
	void *head = NULL;

	memset(v, 0, sizeof(*v));
	sigprocmask(0, NULL, &v->mask);
	sigpending(&v->pending);
	for (int i = 1; i < 64; i++)
		syscall(SYS_rt_sigaction, i, NULL, v->action[i], sizeof(uint64_t));
	sigaltstack(NULL, &v->altstack);
	getitimer(ITIMER_VIRTUAL, &v->timer);
	prctl(PR_GET_TID_ADDRESS, &v->tid_addr);
	syscall(SYS_get_robust_list, 0, &head, &len);
	v->robust_head = (uint64_t)head;
	v->robust_len = len;
	v->brk = (uint64_t)sbrk(0);
	for (int k = 0; k < KINDS; k++)
		for (unsigned i = 0; shared->area[k] && i < AREA / 8; i++)
			v->sum = v->sum * 31 + shared->area[k][i];
	v->chld = (uint64_t)shared->chld;
	v->nice = getpriority(PRIO_PROCESS, 0);
	v->policy = sched_getscheduler(0);
	v->children = waitpid(-1, NULL, __WALL | WNOHANG) == -1 ? errno : -1;
	v->dumpable = prctl(PR_GET_DUMPABLE);
	prctl(PR_GET_NAME, v->name);
	if (!getcwd(v->cwd, sizeof(v->cwd)))
		v->cwd[0] = 0;
}

static void on_chld(int signo)
{
	(void)signo;
	shared->chld++;
}

static void *__attribute__((noreturn)) wait_forever(void *arg)
{
	(void)arg;
	for (;;)
		pause();
}

static void stay(void)
{
	pid_t pid = vfork(); /* NOLINT(clang-analyzer-security.insecureAPI.vfork): on purpose */

	if (!pid) {
		shared->child = (int)syscall(SYS_getpid); /* NOLINT(clang-analyzer-unix.Vfork) */
		for (;;)
			pause(); /* NOLINT(clang-analyzer-unix.Vfork) */
	}
}

static void obey(char what)
{
	switch (what) {
	case DO_LOOK:
		look_at_itself(&shared->view);
		break;
	case DO_COUNT:
		if (write(answer[1], &what, 1) == 1)
			count();
		break;
	case DO_SHARE:
		shared->area[LATE] = map_area(SHARED);
		break;
	case DO_KEEP:
		shared->area[LATE] = map_area(NO_FORK);
		break;
	case DO_CLOSE:
		close(held[1]);
		close(locked);
		break;
	case DO_RENAME:
		rename(locked_path, strcat(strcpy(shared->renamed, locked_path), ".new"));
		break;
	case DO_REPLACE:
		dup2(held[1], locked);
		break;
	case DO_SEEK:
		lseek(locked, 5, SEEK_SET);
		fcntl(locked, F_SETFL, O_APPEND);
		fcntl(locked, F_SETFD, 0);
		break;
	case DO_OPEN:
		dup(locked);
		break;
	case DO_MEMORY:
		if (ftruncate(memfd_create("late", MFD_CLOEXEC), AREA))
			_exit(4);
		break;
	case DO_CHILD:
		stay();
		waitpid(shared->child, NULL, 0);
		break;
	}
}

/* Others write to what was inherited. */
static void close_others(void)
{
	int null = open("/dev/null", O_RDWR);

	for (int fd = 0; fd < 256; fd++)
		if (fd <= STDERR_FILENO)
			dup2(null, fd);
		else if (fd != command[0] && fd != answer[1] && fd != held[1] && fd != locked)
			close(fd);
}

static void __attribute__((noreturn)) be_program(int threads, bool no_fork)
{
	static uint8_t stack[65536];
	char what;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close_others();
	signal(SIGCHLD, on_chld);
	sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof(stack)}, NULL);
	for (int k = 0; k < LATE; k++)
		if (k != NO_FORK || no_fork)
			shared->area[k] = map_area(k);
	for (int i = 1; i < threads; i++) {
		pthread_t t;

		if (pthread_create(&t, NULL, wait_forever, NULL))
			_exit(5);
	}
	shared->pid = getpid();
	while (read(command[0], &what, 1) == 1) {
		obey(what);
		if (write(answer[1], &what, 1) != 1)
			break;
	}
	_exit(0);
}

static void await_answer(char what)
{
	char got = 0;

	ck_assert_int_eq(read(answer[0], &got, 1), 1);
	ck_assert_int_eq(got, what);
}

static void start_command(char what)
{
	ck_assert_int_eq(write(command[1], &what, 1), 1);
}

static void tell(char what)
{
	start_command(what);
	await_answer(what);
}

static int lock_file(void)
{
	char path[] = "/tmp/test_snapshot.XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC), other = open(path, O_RDWR | O_CLOEXEC);

	ck_assert(fd >= 0 && other >= 0 && !flock(fd, LOCK_EX));
	unlink(path);
	locked = fd;
	return other;
}

static void start(int threads, bool no_fork)
{
	shared = mmap(
		NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert(!pipe(command) && !pipe(answer) && !pipe(held));
	child = fork();
	if (!child)
		be_program(threads, no_fork);
	close(command[0]);
	close(answer[1]);
	close(held[1]);
	tell(DO_NOTHING);
}

static void stop(void)
{
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	for (int i = 0; i < 2; i++) {
		close(i ? command[1] : held[0]);
		close(answer[i]);
	}
	munmap(shared, sizeof(*shared));
}

/* --- this program's own ptrace(): the library is linked with it --- */

static volatile long calls_left = -1; /* then we are killed; negative: never */
static char at_seize;                 /* what to tell it before it is stopped; 0 */
static int seized;

long ptrace(enum __ptrace_request request, ...)
{
	va_list ap;
	pid_t pid;
	void *addr, *data;

	va_start(ap, request);
	pid = va_arg(ap, pid_t);
	addr = va_arg(ap, void *);
	data = va_arg(ap, void *);
	va_end(ap);
	seized += request == PTRACE_SEIZE;
	if (at_seize && request == PTRACE_SEIZE) {
		char what = at_seize;

		at_seize = 0;
		tell(what);
	}
	if (!calls_left--)
		raise(SIGKILL);
	return syscall(SYS_ptrace, (long)request, (long)pid, addr, data);
}

static void snapshot(void)
{
	ck_assert_msg(!tf_task_snapshot(&task, child), "%s", task.capture.err.text);
}

static void save(struct tf_file *f)
{
	char path[] = "/tmp/test_snapshot.XXXXXX";
	int fd = mkstemp(path);
	struct tf_err e = {0};

	ck_assert_msg(
		!tf_task_save(&task, fd) && !tf_task_commit(&task), "%s", task.capture.err.text);
	close(fd);
	ck_assert_msg(!tf_file_open(f, path, &e), "%s", e.text);
	unlink(path);
}

/* --- one moment --- */

static uint64_t count_of(const struct tf_file *f, int kind, size_t word)
{
	uint64_t n = 0, at = (uint64_t)&shared->area[kind][word];

	ck_assert_int_eq(tf_file_read(f, at, &n, sizeof(n)), sizeof(n));
	return n;
}

/* Both ends of every area; the program has counted on, far, since. */
static void assert_one_moment(const struct tf_file *f)
{
	uint64_t first = count_of(f, PRIVATE, AREA / 8 - 1);

	ck_assert_uint_gt(first, 2);
	for (int k = 0; k < KINDS; k++) {
		if (!shared->area[k])
			continue;
		ck_assert_msg(first - count_of(f, k, 0) <= 1, "kind %d: %llu, not %llu", k,
			(unsigned long long)count_of(f, k, 0), (unsigned long long)first);
		ck_assert_msg(first - count_of(f, k, AREA / 8 - 1) <= 1, "kind %d, end", k);
	}
}

static const struct tf_map *map_of(const struct tf_file *f, int kind)
{
	const struct tf_map *m = tf_image_map_at(&f->image, (uint64_t)shared->area[kind]);

	ck_assert_ptr_nonnull(m);
	return m;
}

static uint64_t counted(void)
{
	uint64_t n = 0, at = (uint64_t)shared->area[PRIVATE];
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/mem", (int)child);
	fd = open(path, O_RDONLY);
	ck_assert_int_eq(pread(fd, &n, sizeof(n), (off_t)at), sizeof(n));
	close(fd);
	return n;
}

/* no_fork: with an area that the fork lacks. late: how one appears before it is stopped, 0: none.
 */
static void capture_counting(bool no_fork, char late)
{
	struct tf_file f;
	uint64_t then;

	start(3, no_fork);
	at_seize = late;
	if (!late) {
		start_command(DO_COUNT);
		await_answer(DO_COUNT);
		while (counted() < 3)
			;
	}
	snapshot();
	ck_assert_str_eq(task.stands, "");
	ck_assert_int_gt(task.shot.x.tid, 0);
	if (late) {
		start_command(DO_COUNT);
		await_answer(DO_COUNT);
	}
	then = counted();
	while (counted() < then + 100000) /* it runs, and the image is not of now */
		;
	save(&f);
	if (!late)
		assert_one_moment(&f);
	else
		ck_assert_uint_eq(count_of(&f, LATE, 0), 1);
	ck_assert_uint_eq(f.image.source.flags, 0);
	ck_assert_uint_eq(f.image.n_threads, 3);
	ck_assert_uint_ne(f.image.threads->altstack.size, 0);
	ck_assert_uint_ne(f.image.threads->tid_addr, 0);
	ck_assert_uint_ne(f.image.sigactions[SIGCHLD - 1].handler, 0);
	ck_assert(map_of(&f, WIPED)->vmflags & TF_VMF_WIPEONFORK);
	ck_assert(map_of(&f, LOCKED)->vmflags & TF_VMF_LOCKED);
	if (no_fork)
		ck_assert(map_of(&f, NO_FORK)->vmflags & TF_VMF_DONTFORK);
	tf_file_close(&f);
	tf_task_release(&task);
	shared->stop = 1;
	await_answer(DO_COUNT);
	stop();
}

START_TEST(one_moment)
{
	capture_counting(false, 0);
}
END_TEST

START_TEST(one_moment_exactly)
{
	capture_counting(true, 0);
}
END_TEST

START_TEST(changed_meanwhile)
{
	capture_counting(false, _i ? DO_KEEP : DO_SHARE);
}
END_TEST

/* --- the fork shows nowhere --- */

/* What the image says of a descriptor, and what /proc says of the process, which is idle. */
static void assert_descriptor(const struct tf_fd *f)
{
	char path[64], target[256] = "", info[256] = "";
	FILE *in;
	unsigned long long pos = 0;
	unsigned flags = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)child, f->fd);
	ck_assert_int_gt(readlink(path, target, sizeof(target) - 1), 0);
	ck_assert_str_eq(f->path, target);
	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)child, f->fd);
	in = fopen(path, "re");
	ck_assert(in && fread(info, 1, sizeof(info) - 1, in) > 0);
	fclose(in);
	ck_assert_int_eq(sscanf(info, "pos: %llu flags: %o", &pos, &flags), 2);
	ck_assert_uint_eq(f->offset, pos);
	ck_assert_uint_eq(f->flags, flags);
}

static unsigned count_descriptors(void)
{
	char path[64];
	struct dirent **list;
	int n;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)child);
	n = scandir(path, &list, NULL, NULL);
	for (int i = 0; i < n; i++)
		free(list[i]);
	free(list);
	return (unsigned)n - 2;
}

/* Descriptors are looked at before the process is stopped, and then only compared; but for shared
 * memory, which has to be looked at while it stands: then all is done again. */
START_TEST(descriptors_meanwhile)
{
	static const char what[] = {
		DO_NOTHING, DO_RENAME, DO_REPLACE, DO_SEEK, DO_OPEN, DO_CLOSE, DO_MEMORY};

	strcpy(locked_path, "/tmp/test_snapshot.XXXXXX");
	locked = mkostemp(locked_path, O_CLOEXEC);
	ck_assert_int_ge(locked, 0);
	start(1, false);
	usleep(50000); /* else its inode is too young to tell of a change */
	at_seize = what[_i];
	seized = 0;
	snapshot();
	ck_assert_int_eq(seized, what[_i] == DO_MEMORY ? 2 : 1);
	ck_assert_uint_eq(task.capture.image.n_objects, what[_i] == DO_MEMORY);
	ck_assert_uint_eq(task.capture.image.n_fds, count_descriptors());
	for (uint32_t i = 0; i < task.capture.image.n_fds; i++)
		assert_descriptor(&task.capture.image.fds[i]);
	unlink(locked_path);
	unlink(shared->renamed);
	tf_task_release(&task);
	close(locked);
	stop();
}
END_TEST

START_TEST(unseen)
{
	int other = lock_file();
	char byte;

	start(2, false);
	close(locked);
	snapshot();
	ck_assert_str_eq(task.stands, "");
	tell(DO_LOOK);
	ck_assert_int_eq(shared->view.children, ECHILD);
	ck_assert_uint_eq(shared->view.chld, 0);
	ck_assert(flock(other, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK);
	tell(DO_CLOSE);
	ck_assert_int_eq(read(held[0], &byte, 1), 0);
	ck_assert_int_eq(flock(other, LOCK_EX | LOCK_NB), 0);
	tf_task_release(&task);
	tell(DO_LOOK);
	ck_assert_int_eq(shared->view.children, ECHILD);
	ck_assert_uint_eq(shared->view.chld, 0);
	close(other);
	stop();
}
END_TEST

/* --- it cannot be forked --- */

static void be_alone(void)
{
	if (!getuid() && setresuid(65534, 65534, 65534))
		_exit(6);
	if (setrlimit(RLIMIT_NPROC, &(struct rlimit){1, 1}))
		_exit(7);
}

static void be_filtered(void)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog all = {.len = 1, .filter = &allow};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all))
		_exit(8);
}

static void be_adopter(void)
{
	if (prctl(PR_SET_CHILD_SUBREAPER, 1))
		_exit(9);
}

START_TEST(refused)
{
	static const struct {
		void (*be)(void);
		const char *says;
	} kind[] = {
		{be_alone, "fork: Resource temporarily unavailable"},
		{be_filtered, "it has seccomp filters"},
		{be_adopter, "it adopts orphans, and would see its own fork"},
	};
	struct tf_file f;

	shared = mmap(
		NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert(!pipe(command) && !pipe(answer) && !pipe(held));
	child = fork();
	if (!child) {
		kind[_i].be();
		be_program(1, false);
	}
	close(command[0]);
	close(answer[1]);
	close(held[1]);
	tell(DO_NOTHING);
	snapshot();
	ck_assert_str_eq(task.stands, kind[_i].says);
	ck_assert_int_eq(task.shot.x.tid, 0);
	save(&f);
	ck_assert_uint_eq(f.image.source.flags, 0);
	ck_assert_uint_eq(count_of(&f, WIPED, 0), 1);
	tf_file_close(&f);
	tf_task_release(&task);
	tell(DO_LOOK);
	ck_assert_int_eq(shared->view.children, ECHILD);
	stop();
}
END_TEST

/* --- it does not stop --- */

START_TEST(waits_for_vfork)
{
	pid_t looker;
	int status;

	start(1, false);
	start_command(DO_CHILD);
	while (!shared->child)
		usleep(100);
	looker = fork();
	if (!looker) {
		bool named = tf_task_snapshot(&task, child) == TELEFORK_E_SYSTEM &&
			     strstr(task.capture.err.text, "waits for a vfork (state D");

		if (!named)
			fprintf(stderr, "%s\n", task.capture.err.text);
		_exit(!named);
	}
	ck_assert_int_eq(waitpid(looker, &status, 0), looker);
	ck_assert_int_eq(status, 0);
	kill(shared->child, SIGKILL);
	await_answer(DO_CHILD);
	tell(DO_LOOK);
	stop();
}
END_TEST

/* --- afterwards nothing is different --- */

/* All its threads sleep, so that it does not differ by itself. */
static void wait_asleep(void)
{
	char folder[64], path[128], text[512];
	bool awake = true;

	snprintf(folder, sizeof(folder), "/proc/%d/task", (int)child);
	while (awake) {
		DIR *dir = opendir(folder);
		struct dirent *entry;

		awake = false;
		while ((entry = readdir(dir))) {
			FILE *f;

			if (entry->d_name[0] == '.')
				continue;
			snprintf(path, sizeof(path), "%s/%.16s/stat", folder, entry->d_name);
			f = fopen(path, "r");
			awake |= !f || !fgets(text, sizeof(text), f) || !strstr(text, ") S ");
			if (f)
				fclose(f);
		}
		closedir(dir);
	}
}

/* How: by a fork, or while it stands. */
START_TEST(nothing_is_different)
{
	struct text before, during, after;
	struct view view;
	struct tf_file f;

	start(4, true);
	tell(DO_LOOK);
	view = shared->view;
	wait_asleep();
	before = read_proc(child);
	if (_i) {
		ck_assert(!tf_task_stop(&task, child) && !tf_task_describe(&task));
	} else {
		snapshot();
		during = read_proc(child);
		assert_same(&before, &during);
		free(during.at);
	}
	save(&f);
	tf_file_close(&f);
	tf_task_release(&task);
	wait_asleep();
	after = read_proc(child);
	assert_same(&before, &after);
	tell(DO_LOOK);
	ck_assert_mem_eq(&view, &shared->view, sizeof(view));
	free(before.at);
	free(after.at);
	stop();
}
END_TEST

/* --- killed at any ptrace call --- */

static bool killed_at(long at)
{
	pid_t looker = fork();
	int status;

	if (!looker) {
		calls_left = at;
		if (tf_task_snapshot(&task, child))
			_exit(1);
		calls_left = -1;
		tf_task_release(&task);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(looker, &status, 0), looker);
	ck_assert_msg(WIFSIGNALED(status) || !WEXITSTATUS(status), "call %ld", at);
	return WIFSIGNALED(status);
}

/* Orphans are ours here: each ends, by our death or by itself, and none runs the program. */
static void assert_orphans_end(long at)
{
	char path[64];
	int pids[3];

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)syscall(SYS_gettid));
	for (;;) {
		FILE *f = fopen(path, "r");
		int n = fscanf(f, "%d %d %d", &pids[0], &pids[1], &pids[2]), status = 0;

		fclose(f);
		if (n == 1)
			return;
		for (int i = 0; i < n; i++)
			if (pids[i] != child)
				ck_assert_int_eq(waitpid(pids[i], &status, __WALL), pids[i]);
		ck_assert_msg((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) ||
				      (WIFEXITED(status) && !WEXITSTATUS(status)),
			"call %ld: %x", at, (unsigned)status);
	}
}

static long stride = 1; /* an argument: a slow machine does not try every call */

/* One thread: its frame is on its stack; more: in a room of their own. */
START_TEST(killed_at_every_call)
{
	struct view view;
	long at = 0;

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	start(_i ? 3 : 1, false);
	tell(DO_LOOK);
	view = shared->view;
	for (; killed_at(at); at += stride) {
		assert_orphans_end(at);
		tell(DO_LOOK);
		ck_assert_mem_eq(&view, &shared->view, sizeof(view));
	}
	assert_orphans_end(at);
	ck_assert_int_gt(at, 30);
	stop();
}
END_TEST

START_TEST(refused_by_name)
{
	ck_assert_int_eq(tf_task_snapshot(&task, getppid()), TELEFORK_E_UNSUPPORTED);
	ck_assert_ptr_nonnull(strstr(task.capture.err.text, "no ptrace"));
}
END_TEST

int main(int argc, char **argv)
{
	Suite *s = suite_create("snapshot");
	TCase *tc = tcase_create("snapshot");

	if (argc > 1)
		stride = strtol(argv[1], NULL, 10);
	tcase_set_timeout(tc, SUITE_LIMIT_S);
	if (tf_host_emulated()) {
		tcase_add_test(tc, refused_by_name);
	} else {
		tcase_add_test(tc, one_moment);
		tcase_add_test(tc, one_moment_exactly);
		tcase_add_loop_test(tc, changed_meanwhile, 0, 2);
		tcase_add_loop_test(tc, descriptors_meanwhile, 0, 7);
		tcase_add_test(tc, unseen);
		tcase_add_loop_test(tc, refused, 0, 3);
		tcase_add_test(tc, waits_for_vfork);
		tcase_add_loop_test(tc, nothing_is_different, 0, 2);
		tcase_add_loop_test(tc, killed_at_every_call, 0, 2);
	}
	suite_add_tcase(s, tc);
	return suite_run(s);
}
