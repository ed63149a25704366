/* SPDX-License-Identifier: MIT */
/*
 * obstacles KIND: a program that has one thing which stands in the way of its journey. Says "ready
 * WHICH" (what telefork check is to name) or "skip WHY" where this kernel has no such thing; on
 * SIGUSR1 it uses what it has, and says "works" or what became of it. Helpers are nobody's children
 * and end with it. "clean" has nothing in the way although it looks like it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define MUCH (20 << 20) /* more than telefork carries by value */

#ifndef SYS_mseal
#define SYS_mseal 462
#endif
#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

struct obstacle {
	const char *name;    /* the kind; behind a full stop: which of several */
	int (*set_up)(void); /* 0: which is set; else errno says why there is none */
	int (*works)(void);  /* 0: it is as good as ever */
};

static char which[128];
static int fd = -1;
static pid_t other;
static char *memory;

static int __attribute__((format(printf, 1, 2))) is(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(which, sizeof(which), fmt, ap);
	va_end(ap);
	return 0;
}

/* A descriptor is what is in the way. */
static int is_fd(int n)
{
	fd = n;
	return n < 0 ? -1 : is("descriptor %d ", n);
}

static int is_memory(void *p)
{
	memory = p;
	return p == MAP_FAILED ? -1 : is("mapping %lx-", (unsigned long)p);
}

static int fd_lives(void)
{
	return fcntl(fd, F_GETFL) < 0 ? -1 : 0;
}

static int always(void)
{
	return 0;
}

/* A process that is nobody's child, and dies with us. */
static pid_t stranger(void (*fn)(pid_t us))
{
	pid_t us = getpid(), middle, pid = 0;
	int to_us[2];

	if (pipe(to_us))
		return -1;
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
	middle = fork();
	if (!middle) {
		struct pollfd p = {.fd = (int)syscall(SYS_pidfd_open, us, 0), .events = POLLIN};

		if (fork())
			_exit(0);
		fn(us);
		pid = getpid();
		if (write(to_us[1], &pid, sizeof(pid)) == sizeof(pid))
			poll(&p, 1, -1);
		_exit(0);
	}
	close(to_us[1]);
	waitpid(middle, NULL, 0);
	if (read(to_us[0], &pid, sizeof(pid)) != sizeof(pid))
		pid = -1;
	close(to_us[0]);
	return pid;
}

/* --- the process --- */

/* main() leaves its thread to another one. */
static int ended(void)
{
	return is("main thread %d", getpid());
}

static int no_looking(void)
{
	return prctl(PR_SET_DUMPABLE, 0) ? -1 : is("process %d", getpid());
}

static void trace(pid_t us)
{
	ptrace(PTRACE_SEIZE, us, 0, 0);
}

static int traced(void)
{
	other = stranger(trace);
	return other < 0 ? -1 : is("process %d", other);
}

static void nothing(pid_t us)
{
	(void)us;
}

static int tracing(void)
{
	other = stranger(nothing);
	return other < 0 || ptrace(PTRACE_SEIZE, other, 0, 0) ? -1 : is("process %d", other);
}

static int child(void)
{
	other = fork();
	if (!other)
		for (;;)
			pause();
	return other < 0 ? -1 : is("process %d", other);
}

static int child_lives(void)
{
	return kill(other, SIGKILL) || waitpid(other, NULL, 0) != other;
}

static int zombie(void)
{
	siginfo_t info;

	other = fork();
	if (!other)
		_exit(7);
	return other < 0 || waitid(P_PID, (id_t)other, &info, WEXITED | WNOWAIT)
		       ? -1
		       : is("process %d", other);
}

static int zombie_waits(void)
{
	int status;

	return waitpid(other, &status, 0) == other && WEXITSTATUS(status) == 7 ? 0 : -1;
}

static pthread_t thread;

static int until_usr2(void *arg)
{
	sigset_t set;
	int signo;

	(void)arg;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	return sigwait(&set, &signo);
}

/* The thread that makes such a child stands still until it ends. */
static void *in_vfork(void *arg)
{
	static char stack[65536] __attribute__((aligned(16)));

	*(int *)arg = (int)syscall(SYS_gettid);
	return clone(until_usr2, stack + sizeof(stack),
		       CLONE_VM | CLONE_VFORK | CLONE_PARENT_SETTID | SIGCHLD, NULL, &other) < 0
		       ? arg
		       : NULL;
}

static int vfork_in_flight(void)
{
	static int tid;

	if (pthread_create(&thread, NULL, in_vfork, &tid))
		return -1;
	while (!__atomic_load_n(&other, __ATOMIC_SEQ_CST))
		usleep(100);
	return is("thread %d (vfork", tid);
}

static int vfork_ends(void)
{
	void *failed;

	return kill(other, SIGUSR2) || pthread_join(thread, &failed) || failed ? -1 : 0;
}

static int other_host_name(void)
{
	return unshare(CLONE_NEWUTS) ? -1 : is("uts namespace");
}

static int other_files(void)
{
	return unshare(CLONE_NEWNS) ? -1 : is("mnt namespace");
}

static int other_clocks_for_children(void)
{
	return unshare(CLONE_NEWTIME) ? -1 : is("time_for_children namespace");
}

static int semaphore(void)
{
	struct sembuf op = {.sem_op = 1, .sem_flg = SEM_UNDO};
	int id = semget(IPC_PRIVATE, 1, 0600);

	if (id < 0 || semop(id, &op, 1))
		return -1;
	fd = id;
	return is("semaphore set %d", id);
}

static int semaphore_works(void)
{
	struct sembuf op = {.sem_op = -1, .sem_flg = SEM_UNDO};

	return semop(fd, &op, 1) || semctl(fd, 0, IPC_RMID);
}

static int timer(void)
{
	struct sigevent never = {.sigev_notify = SIGEV_NONE};
	timer_t id;

	return timer_create(CLOCK_THREAD_CPUTIME_ID, &never, &id) ? -1 : is("timer 0");
}

static int filtered(void)
{
	/* BPF_RET | BPF_K, SECCOMP_RET_ALLOW */
	struct {
		uint16_t code;
		uint8_t jt, jf;
		uint32_t k;
	} allow = {.code = 6, .k = 0x7fff0000};
	struct {
		uint16_t n;
		void *filter;
	} prog = {1, &allow};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, 2, &prog, 0, 0)
		       ? -1
		       : is("process %d", getpid());
}

/* --- descriptors --- */

static int file(const char *name, int flags)
{
	return open(name, flags | O_CREAT, 0600);
}

static int lock(void)
{
	is_fd(file("locked", O_RDWR));
	return flock(fd, LOCK_EX);
}

static int record_lock(void)
{
	struct flock l = {.l_type = F_WRLCK, .l_len = 1};

	is_fd(file("locked", O_RDWR));
	return fcntl(fd, F_SETLK, &l);
}

static int lease(void)
{
	is_fd(file("leased", O_RDONLY));
	return fcntl(fd, F_SETLEASE, F_RDLCK);
}

static int locked_still(void)
{
	int second = open("locked", O_RDWR);

	return second < 0 || !flock(second, LOCK_EX | LOCK_NB) || errno != EWOULDBLOCK;
}

static int deleted_dir(void)
{
	return mkdir("gone", 0700) || is_fd(open("gone", O_RDONLY | O_DIRECTORY)) || rmdir("gone");
}

static int pipe_end(void)
{
	int p[2];

	if (pipe(p) || write(p[1], "x", 1) != 1)
		return -1;
	fd = p[0];
	return is("descriptor %d (pipe:", p[0]);
}

static int pipe_holds(void)
{
	char c = 0;

	return read(fd, &c, 1) == 1 && c == 'x' ? 0 : -1;
}

static int socket_end(void)
{
	int s[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, s) || write(s[1], "x", 1) != 1)
		return -1;
	fd = s[0];
	return is("descriptor %d (socket:", s[0]);
}

/* Both ends are ours. */
static int connection(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(a);
	int listener = socket(AF_INET, SOCK_STREAM, 0), end = socket(AF_INET, SOCK_STREAM, 0);

	if (bind(listener, (void *)&a, size) || listen(listener, 1) ||
		getsockname(listener, (void *)&a, &size) || connect(end, (void *)&a, size))
		return -1;
	fd = accept(listener, NULL, NULL);
	close(listener);
	return fd < 0 || write(end, "x", 1) != 1 ? -1 : is("descriptor %d (socket:", fd);
}

static int terminal(void)
{
	return is_fd(posix_openpt(O_RDWR | O_NOCTTY));
}

static int device(void)
{
	int n = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);

	return is_fd(n >= 0 ? n : open("/dev/fuse", O_RDWR));
}

static int epoll(void)
{
	return is_fd(epoll_create1(0));
}

static int counter(void)
{
	return is_fd(eventfd(5, EFD_SEMAPHORE));
}

static int counter_holds(void)
{
	uint64_t n = 0;

	return read(fd, &n, sizeof(n)) == sizeof(n) && n == 1 ? 0 : -1;
}

static int timer_fd(void)
{
	return is_fd(timerfd_create(CLOCK_MONOTONIC, 0));
}

static int signal_fd(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	return is_fd(signalfd(-1, &set, 0));
}

static int watch(void)
{
	return is_fd(inotify_init1(0)) || inotify_add_watch(fd, ".", IN_CREATE) < 0;
}

static int watch_sees(void)
{
	char event[512];
	int n = file("new", O_WRONLY);

	return n < 0 || read(fd, event, sizeof(event)) <= 0;
}

static int ring(void)
{
	struct io_uring_params p = {0};

	return is_fd((int)syscall(SYS_io_uring_setup, 4, &p));
}

static int performance(void)
{
	struct perf_event_attr a = {
		.type = PERF_TYPE_SOFTWARE, .size = sizeof(a), .config = PERF_COUNT_SW_DUMMY};

	return is_fd((int)syscall(SYS_perf_event_open, &a, 0, -1, -1, 0));
}

static int bpf_map(void)
{
	union bpf_attr a = {
		.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};

	return is_fd((int)syscall(SYS_bpf, BPF_MAP_CREATE, &a, sizeof(a)));
}

static int process_fd(void)
{
	return is_fd((int)syscall(SYS_pidfd_open, getpid(), 0));
}

static int rules(void)
{
	uint64_t handled[1] = {1};

	return is_fd((int)syscall(SYS_landlock_create_ruleset, handled, sizeof(handled), 0));
}

static int queue(void)
{
	char name[32];
	struct mq_attr a = {.mq_maxmsg = 1, .mq_msgsize = 8};
	int n;

	snprintf(name, sizeof(name), "/telefork-%d", getpid());
	n = mq_open(name, O_RDWR | O_CREAT, 0600, &a);
	if (n >= 0)
		mq_unlink(name);
	return is_fd(n);
}

static int proc_file(void)
{
	return is_fd(open("/proc/self/status", O_RDONLY));
}

static int namespace_fd(void)
{
	return is_fd(open("/proc/self/ns/net", O_RDONLY));
}

/* --- memory --- */

static int faults(void)
{
	struct uffdio_api api = {.api = UFFD_API};

	return is_fd((int)syscall(SYS_userfaultfd, O_CLOEXEC)) || ioctl(fd, UFFDIO_API, &api);
}

static int aio(void)
{
	aio_context_t context = 0;

	return syscall(SYS_io_setup, 8, &context) ? -1 : is("mapping %lx-", (unsigned long)context);
}

static int secret(void)
{
	return is_fd((int)syscall(SYS_memfd_secret, 0)) || ftruncate(fd, PAGE);
}

static int huge(void)
{
	int n = memfd_create("huge", MFD_HUGETLB), rc;

	rc = n < 0 ? -1
		   : is_memory(mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_NORESERVE, n, 0));
	close(n);
	return rc;
}

/* It has the memory attached as we do. */
static int shared_memory(void)
{
	int id = shmget(IPC_PRIVATE, PAGE, 0600);

	if (id < 0 || is_memory(shmat(id, NULL, 0)))
		return -1;
	shmctl(id, IPC_RMID, NULL);
	memory[0] = 'x';
	other = stranger(nothing);
	return other < 0 ? -1 : is("/SYSV00000000, by process %d", other);
}

static int memory_holds(void)
{
	return memory[0] == 'x' ? 0 : -1;
}

/* Linux 6.16 shows it. */
static bool shows_seals(void)
{
	char line[256];
	FILE *f = fopen("/proc/self/smaps", "r");
	bool sealed = false;

	while (f && !sealed && fgets(line, sizeof(line), f))
		sealed = !strncmp(line, "VmFlags:", 8) && strstr(line, " sl");
	if (f)
		fclose(f);
	return sealed;
}

static int seal(void)
{
	if (is_memory(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) ||
		syscall(SYS_mseal, memory, PAGE, 0))
		return -1;
	errno = ENOSYS;
	return shows_seals() ? 0 : -1;
}

static int sealed_still(void)
{
	return munmap(memory, PAGE) && errno == EPERM ? 0 : -1;
}

static int device_memory(void)
{
	struct perf_event_attr a = {.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(a),
		.config = PERF_COUNT_SW_DUMMY,
		.exclude_kernel = 1};
	int n = (int)syscall(SYS_perf_event_open, &a, 0, -1, -1, 0), rc;

	rc = n < 0 ? -1 : is_memory(mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, n, 0));
	close(n);
	return rc;
}

static int tagged(void)
{
	/* PR_TAGGED_ADDR_ENABLE | PR_MTE_TCF_SYNC; PROT_MTE */
	return prctl(PR_SET_TAGGED_ADDR_CTRL, 3, 0, 0, 0) ||
	       is_memory(mmap(NULL, PAGE, PROT_READ | PROT_WRITE | 0x20, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0));
}

/* Only what a C library made on demand (GLIBC_TUNABLES) can return from main(). */
static int shadow_stack(void)
{
	char line[256];
	FILE *f = fopen("/proc/self/status", "r");
	bool on = false;

	while (f && !on && fgets(line, sizeof(line), f))
		on = strstr(line, "shstk") != NULL;
	if (f)
		fclose(f);
	errno = ENOSYS;
	return on ? is("process %d", getpid()) : -1;
}

/* --- what looks like an obstacle and is none --- */

static int clean(void)
{
	static const char *const devices[] = {
		"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"};

	for (size_t i = 0; i < sizeof(devices) / sizeof(*devices); i++)
		if (open(devices[i], O_RDWR) < 0 && open(devices[i], O_RDONLY) < 0)
			return -1;
	/* Streams that lead to the same as its own. */
	if (dup(0) < 0 || fcntl(2, F_DUPFD, 200) < 0 || file("plain", O_RDWR | O_APPEND) < 0 ||
		open(".", O_RDONLY | O_DIRECTORY) < 0 || open("/", O_PATH) < 0 ||
		open("/proc/cpuinfo", O_RDONLY) < 0)
		return -1;
	return mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) ==
			       MAP_FAILED
		       ? -1
		       : is("nothing");
}

static const struct obstacle obstacles[] = {
	{"clean", clean, always},
	{"ended", ended, always},
	{"access", no_looking, always},
	{"tracer", traced, always},
	{"tracee", tracing, always},
	{"child", child, child_lives},
	{"zombie", zombie, zombie_waits},
	{"uninterruptible", vfork_in_flight, vfork_ends},
	{"namespace.uts", other_host_name, always},
	{"namespace.mnt", other_files, always},
	{"namespace.time", other_clocks_for_children, always},
	{"semaphore", semaphore, semaphore_works},
	{"timer", timer, always},
	{"seccomp", filtered, always},
	{"lock", lock, locked_still},
	{"lock.record", record_lock, fd_lives},
	{"lock.lease", lease, fd_lives},
	{"deleted.dir", deleted_dir, fd_lives},
	{"pipe", pipe_end, pipe_holds},
	{"socket", socket_end, pipe_holds},
	{"tcp", connection, pipe_holds},
	{"tty", terminal, fd_lives},
	{"device", device, fd_lives},
	{"epoll", epoll, fd_lives},
	{"eventfd", counter, counter_holds},
	{"timerfd", timer_fd, fd_lives},
	{"signalfd", signal_fd, fd_lives},
	{"inotify", watch, watch_sees},
	{"io_uring", ring, fd_lives},
	{"perf", performance, fd_lives},
	{"bpf", bpf_map, fd_lives},
	{"pidfd", process_fd, fd_lives},
	{"landlock", rules, fd_lives},
	{"mqueue", queue, fd_lives},
	{"proc", proc_file, fd_lives},
	{"other", namespace_fd, fd_lives},
	{"userfaultfd", faults, fd_lives},
	{"aio", aio, always},
	{"secret-memory", secret, fd_lives},
	{"hugetlb", huge, always},
	{"shared-memory", shared_memory, memory_holds},
	{"tags", tagged, always},
	{"shadow-stack", shadow_stack, always},
	{"sealed", seal, sealed_still},
	{"device-memory", device_memory, always},
};

static void *wait_and_use(void *arg)
{
	const struct obstacle *o = arg;
	sigset_t set;
	int signo;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigwait(&set, &signo);
	errno = 0;
	if (o->works())
		printf("does not work: %s\n", strerror(errno));
	else
		printf("works\n");
	exit(fflush(stdout));
}

static void *wait_for_end(void *arg)
{
	char state[512] = "";
	int n;

	do { /* the main thread is a zombie now */
		n = open("/proc/self/stat", O_RDONLY);
		if (read(n, state, sizeof(state) - 1) <= 0)
			exit(1);
		close(n);
	} while (!strstr(state, ") Z "));
	printf("ready %s\n", which);
	fflush(stdout);
	return wait_and_use(arg);
}

static const struct obstacle *find(const char *name)
{
	for (size_t i = 0; i < sizeof(obstacles) / sizeof(*obstacles); i++)
		if (!strcmp(obstacles[i].name, name))
			return &obstacles[i];
	return NULL;
}

int main(int argc, char **argv)
{
	const struct obstacle *o = argc > 1 ? find(argv[1]) : NULL;
	sigset_t set;

	for (size_t i = 0; argc < 2 && i < sizeof(obstacles) / sizeof(*obstacles); i++)
		printf("%s\n", obstacles[i].name);
	if (!o)
		return argc > 1;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGCHLD); /* else its tracer would have to let it go on */
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (o->set_up()) {
		printf("skip %s\n", strerror(errno));
		return 0;
	}
	if (o->set_up == ended) {
		pthread_create(&thread, NULL, wait_for_end, (void *)o);
		pthread_exit(NULL);
	}
	printf("ready %s\n", which);
	fflush(stdout);
	wait_and_use((void *)o);
}
