/* SPDX-License-Identifier: MIT */
/*
 * settled FOLDER: everything that a capture from outside takes along, set to what nothing has by
 * itself. In FOLDER lies a file "file" of some bytes. Prints "ready PID", and waits until it has
 * another pid: then it is a copy, and looks for each thing: "right N", exit code 0, or "wrong: "
 * and which, 1. The original ends by SIGUSR1.
 */
#include "tests/probes/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/rseq.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define THREADS   3
#define AREA      (256u << 10)
#define PAGE      65536u /* no kernel has larger ones */
#define READ_FD   10
#define APPEND_FD 11

static unsigned checks;

static void __attribute__((noreturn, format(printf, 1, 2))) wrong(const char *format, ...)
{
	va_list ap;

	printf("wrong: ");
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
	_exit(1);
}

static void check(bool is, const char *what, unsigned number)
{
	if (!is)
		wrong("%s %u", what, number);
	__atomic_add_fetch(&checks, 1, __ATOMIC_RELAXED);
}

/* --- memory --- */

static const struct {
	const char *flag; /* of VmFlags, proc(5); NULL: none */
	int advice, protection, flags;
} kinds[] = {
	{NULL, -1, PROT_READ | PROT_WRITE, MAP_PRIVATE},
	{"sh", -1, PROT_READ | PROT_WRITE, MAP_SHARED},
	{NULL, -1, PROT_READ, MAP_PRIVATE},
	{"dd", MADV_DONTDUMP, PROT_READ | PROT_WRITE, MAP_PRIVATE},
	{"dc", MADV_DONTFORK, PROT_READ | PROT_WRITE, MAP_PRIVATE},
	{"wf", MADV_WIPEONFORK, PROT_READ | PROT_WRITE, MAP_PRIVATE},
	{"nh", MADV_NOHUGEPAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE},
	{"sr", MADV_SEQUENTIAL, PROT_READ | PROT_WRITE, MAP_PRIVATE},
	{"rr", MADV_RANDOM, PROT_READ | PROT_WRITE, MAP_PRIVATE},
};
#define KINDS (sizeof(kinds) / sizeof(*kinds))

static uint64_t *area[KINDS];

static uint64_t word(unsigned k, unsigned i)
{
	return (k + 1) * UINT64_C(0x9e3779b97f4a7c15) + i * UINT64_C(0xd6e8feb86659fd93);
}

/* Apart from each other, so that none is merged with another. */
static void make_areas(void)
{
	for (unsigned k = 0; k < KINDS; k++) {
		char *room =
			mmap(NULL, AREA + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		area[k] = mmap(room + PAGE, AREA, PROT_READ | PROT_WRITE,
			kinds[k].flags | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		for (unsigned i = 0; i < AREA / 8; i++)
			area[k][i] = word(k, i);
		if (kinds[k].advice >= 0)
			madvise(area[k], AREA, kinds[k].advice);
		mprotect(area[k], AREA, kinds[k].protection);
	}
}

/* The lines of /proc/self/smaps of the mapping that begins there: its protection and its flags. */
static void look_up(const void *at, char mode[static 8], char flags[static 512])
{
	FILE *f = fopen("/proc/self/smaps", "r");
	char line[512];
	unsigned long from, to;
	bool here = false;

	mode[0] = flags[0] = '\0';
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx %7s", &from, &to, here ? line : mode) == 3)
			here = from == (uintptr_t)at && to == from + AREA;
		if (here && !strncmp(line, "VmFlags:", 8))
			snprintf(flags, 512, "%.500s", line + 8);
		if (here && flags[0])
			break;
		if (!here)
			mode[0] = '\0';
	}
	if (f)
		fclose(f);
}

static void check_areas(void)
{
	for (unsigned k = 0; k < KINDS; k++) {
		char mode[8], flags[512], name[8];

		look_up(area[k], mode, flags);
		check(mode[0] == 'r' && (mode[1] == 'w') == !!(kinds[k].protection & PROT_WRITE) &&
				(mode[3] == 's') == (kinds[k].flags == MAP_SHARED),
			"mode of memory", k);
		for (unsigned i = 0; i < KINDS; i++) {
			snprintf(name, sizeof(name), " %s", kinds[i].flag ? kinds[i].flag : "");
			check(!kinds[i].flag || (i == k) == !!strstr(flags, name),
				"flags of memory", k);
		}
		for (unsigned i = 0; i < AREA / 8; i++)
			if (area[k][i] != word(k, i))
				wrong("a word of memory %u", k);
	}
}

/* --- a thread's own --- */

struct own {
	unsigned number;
	char altstack[16384];
	sigset_t mask;
	void *robust, *tid_address;
	char name[16];
	struct keys_sign key[KEYS_MAX];
	unsigned n_keys;
};

static pid_t sender; /* of the signals that wait: the original */

static bool as_sent(const siginfo_t *info, int value)
{
	return info->si_code == SI_QUEUE && !info->si_errno && info->si_pid == sender &&
	       info->si_uid == getuid() &&
	       info->si_value.sival_ptr == (union sigval){.sival_int = value}.sival_ptr;
}

static void *robust_list(void)
{
	void *head = NULL;
	size_t size;

	syscall(SYS_get_robust_list, 0, &head, &size);
	return head;
}

static void *tid_address(void)
{
	void *at = NULL;

	prctl(PR_GET_TID_ADDRESS, &at);
	return at;
}

static void set_up_own(struct own *o)
{
	stack_t ss = {.ss_sp = o->altstack, .ss_size = sizeof(o->altstack)};

	snprintf(o->name, sizeof(o->name), "settled-%u", o->number);
	prctl(PR_SET_NAME, o->name);
	sigaltstack(&ss, NULL);
	sigfillset(&o->mask);
	sigdelset(&o->mask, SIGUSR1);
	sigdelset(&o->mask, SIGRTMIN + 9 + (int)o->number);
	pthread_sigmask(SIG_SETMASK, &o->mask, NULL);
	pthread_sigmask(SIG_SETMASK, NULL, &o->mask);
	pthread_sigqueue(
		pthread_self(), SIGRTMIN + 1, (union sigval){.sival_int = 50 + (int)o->number});
	o->robust = robust_list();
	o->tid_address = tid_address();
	o->n_keys = keys_look(o->key);
}

static void check_keys(const struct own *o)
{
	struct keys_sign now[KEYS_MAX];
	unsigned n = keys_look(now);

	check(n == o->n_keys, "number of keys of thread", o->number);
	for (unsigned i = 0; i < n; i++)
		if (now[i].value != o->key[i].value)
			wrong("key %s of thread %u", now[i].name, o->number);
}

/* Whether signal signo waits: for the calling thread alone, or for whoever takes it. */
static bool waits(int signo, bool for_thread)
{
	FILE *f = fopen("/proc/thread-self/status", "r");
	const char *label = for_thread ? "SigPnd:" : "ShdPnd:";
	char line[256];
	unsigned long long set = 0;

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, label, 7))
			set = strtoull(line + 7, NULL, 16);
	if (f)
		fclose(f);
	return set >> (signo - 1) & 1;
}

static void check_own(const struct own *o)
{
	const struct timespec now = {0};
	char *at = (char *)__builtin_thread_pointer() + __rseq_offset;
	char name[16] = "";
	sigset_t mask, one;
	siginfo_t info;
	stack_t ss;

	check_keys(o);
	prctl(PR_GET_NAME, name);
	check(!strcmp(name, o->name), "name of thread", o->number);
	sigaltstack(NULL, &ss);
	check(ss.ss_sp == o->altstack && ss.ss_size == sizeof(o->altstack) && !ss.ss_flags,
		"altstack of thread", o->number);
	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	check(!memcmp(&mask, &o->mask, 8), "signal mask of thread", o->number);
	check(robust_list() == o->robust, "robust list of thread", o->number);
	check(tid_address() == o->tid_address, "tid address of thread", o->number);
	check(*(pid_t *)o->tid_address == (pid_t)syscall(SYS_gettid),
		"the C library's id of thread", o->number);
	check(!__rseq_size || (syscall(SYS_rseq, at, 32L, 0L, (long)RSEQ_SIG) && errno == EBUSY),
		"restartable sequences of thread", o->number);
	check(waits(SIGRTMIN + 1, true) && !waits(SIGRTMIN + 1, false), "pending signal of thread",
		o->number);
	sigemptyset(&one);
	sigaddset(&one, SIGRTMIN + 1);
	check(sigtimedwait(&one, &info, &now) == SIGRTMIN + 1 &&
			as_sent(&info, 50 + (int)o->number) && sigtimedwait(&one, &info, &now) < 0,
		"pending signal of thread", o->number);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned set_up;
static bool woken;

static void *work(void *arg)
{
	set_up_own(arg);
	pthread_mutex_lock(&lock);
	set_up++;
	pthread_cond_broadcast(&changed);
	while (!woken)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	check_own(arg);
	return NULL;
}

/* --- the process's --- */

/* As the kernel has it. */
struct action {
	unsigned long handler, flags, rest[2];
};

static struct action actions[64];
static char folder[4096];
static long end_of_heap;

static void end_here(int signo)
{
	_exit(signo == SIGUSR1 ? 0 : 2);
}

static struct action action_of(unsigned signo)
{
	struct action a = {0};

	syscall(SYS_rt_sigaction, (long)signo, NULL, &a, 8L);
	return a;
}

static void check_actions(void)
{
	for (unsigned i = 1; i <= 64; i++) {
		struct action now = action_of(i);

		check(!memcmp(&now, &actions[i - 1], sizeof(now)), "action of signal", i);
	}
}

static void set_up_process(char *path)
{
	struct sigaction sa = {.sa_handler = end_here, .sa_flags = SA_ONSTACK | SA_RESTART};

	sigaction(SIGUSR1, &sa, NULL);
	sigaddset(&sa.sa_mask, SIGUSR2);
	sigaction(SIGALRM, &sa, NULL);
	signal(SIGWINCH, SIG_IGN);
	umask(0127);
	if (chdir(path) || !getcwd(folder, sizeof(folder)))
		wrong("%s: %s", path, strerror(errno));
	dup3(open("file", O_RDONLY), READ_FD, 0);
	dup3(open("file", O_WRONLY | O_APPEND), APPEND_FD, O_CLOEXEC);
	close_range(3, READ_FD - 1, 0);
	close_range(APPEND_FD + 1, ~0u, 0);
	if (lseek(READ_FD, 3, SEEK_SET) != 3)
		wrong("a file to read");
	for (int i = 0; i < 3; i++)
		sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 10 + i});
}

static void check_process(void)
{
	const struct timespec now = {0};
	siginfo_t info;
	sigset_t one;
	char path[4096] = "";
	mode_t mask = umask(0);

	check_actions();
	check(mask == 0127, "umask", mask);
	check(getcwd(path, sizeof(path)) && !strcmp(path, folder), "current directory", 0);
	check(lseek(READ_FD, 0, SEEK_CUR) == 3, "position of descriptor", READ_FD);
	check((fcntl(READ_FD, F_GETFL) & (O_ACCMODE | O_APPEND)) == O_RDONLY, "mode of descriptor",
		READ_FD);
	check(fcntl(READ_FD, F_GETFD) == 0, "flags of descriptor", READ_FD);
	check((fcntl(APPEND_FD, F_GETFL) & (O_ACCMODE | O_APPEND)) == (O_WRONLY | O_APPEND),
		"mode of descriptor", APPEND_FD);
	check(fcntl(APPEND_FD, F_GETFD) == FD_CLOEXEC, "flags of descriptor", APPEND_FD);
	check(fcntl(3, F_GETFD) < 0, "descriptor", 3);
	check(syscall(SYS_brk, 0) == end_of_heap, "end of the heap", 0);
	check(waits(SIGRTMIN, false) && !waits(SIGRTMIN, true), "pending signal", 9);
	sigemptyset(&one);
	sigaddset(&one, SIGRTMIN);
	for (int i = 0; i < 3; i++)
		check(sigtimedwait(&one, &info, &now) == SIGRTMIN && as_sent(&info, 10 + i),
			"pending signal", (unsigned)i);
	check(sigtimedwait(&one, &info, &now) < 0, "pending signal", 3);
}

int main(int argc, char **argv)
{
	static struct own own[THREADS];
	const struct timespec ms = {.tv_nsec = 1000000};
	pthread_t thread[THREADS];
	pid_t pid = getpid();

	if (argc < 2)
		return 64;
	sender = pid;
	set_up_own(&own[0]);
	make_areas();
	set_up_process(argv[1]);
	for (unsigned i = 1; i < THREADS; i++) {
		own[i].number = i;
		pthread_create(&thread[i], NULL, work, &own[i]);
	}
	pthread_mutex_lock(&lock);
	while (set_up < THREADS - 1)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	for (unsigned i = 1; i <= 64; i++)
		actions[i - 1] = action_of(i);
	setvbuf(stdout, NULL, _IOLBF, 0); /* has its buffer by now */
	printf("preparing\n");
	end_of_heap = syscall(SYS_brk, 0);
	printf("ready %d\n", (int)pid);
	while (getpid() == sender) /* in static storage: a lost robust list leads to the stack */
		nanosleep(&ms, NULL);
	pthread_mutex_lock(&lock);
	woken = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	check_own(&own[0]);
	for (unsigned i = 1; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	check_process();
	check_areas();
	printf("right %u\n", checks);
	return 0;
}
