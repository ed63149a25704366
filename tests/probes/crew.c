/* SPDX-License-Identifier: MIT */
/*
 * crew N: N threads that know nothing of telefork and wait or work, each with a state of its own:
 * what it has in registers, on its stack, in thread-local memory, its name, signal mask, altstack,
 * robust list and restartable sequences. Prints "ready PID"; SIGUSR1 wakes all, each looks whether
 * everything of its own is still there and meets the others at a barrier: "right N", exit code 0,
 * or what was wrong, 1.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SPINNERS 3 /* more would only take turns */
#define STACK    (128u << 10)
#define MULTIPLY UINT64_C(6364136223846793005)
#define ADD      UINT64_C(1442695040888963407)

enum role { SPIN, WAIT, LOCK, COUNT, ROLES };

struct own {
	unsigned number;
	char altstack[8192];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER, locked = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER, seen = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t all;
static sem_t count;
static unsigned set_up;
static bool woken;
static __thread uint64_t in_tls[16];

static void __attribute__((noreturn)) wrong(unsigned number, const char *what)
{
	printf("wrong: thread %u: %s\n", number, what);
	fflush(stdout);
	_exit(1);
}

static uint64_t pattern(unsigned number, unsigned i)
{
	return (number + 1) * UINT64_C(0x9e3779b97f4a7c15) + i;
}

/* Where n steps of spinning lead to from x. */
static uint64_t leap(uint64_t x, uint64_t n)
{
	uint64_t m = MULTIPLY, a = ADD;

	for (; n; n >>= 1) {
		if (n & 1)
			x = x * m + a;
		a += a * m;
		m *= m;
	}
	return x;
}

/* x, n and y stay in registers. */
static void spin(unsigned number)
{
	uint64_t x = pattern(number, 0), n = 0;
	double y = number;

	for (; !__atomic_load_n(&woken, __ATOMIC_RELAXED); n++) {
		x = x * MULTIPLY + ADD;
		y += 2;
		__asm__ volatile("" : "+r"(x), "+r"(n));
	}
	if (x != leap(pattern(number, 0), n) || y != (double)number + 2 * (double)n)
		wrong(number, "registers");
}

static void one_more(void)
{
	set_up++;
	pthread_cond_signal(&seen);
}

static void report(void)
{
	pthread_mutex_lock(&lock);
	one_more();
	pthread_mutex_unlock(&lock);
}

static void stand_by(unsigned number, enum role role)
{
	if (role != WAIT)
		report();
	switch (role) {
	case SPIN:
		spin(number);
		return;
	case WAIT:
		pthread_mutex_lock(&lock);
		one_more();
		while (!woken)
			pthread_cond_wait(&wake, &lock);
		pthread_mutex_unlock(&lock);
		return;
	case LOCK:
		pthread_mutex_lock(&locked);
		pthread_mutex_unlock(&locked);
		return;
	default:
		while (sem_wait(&count))
			if (errno != EINTR)
				wrong(number, "semaphore");
	}
}

/* An emulator does not know it. */
static bool robust_list_is(const void *want)
{
	void *head = NULL;
	size_t size;

	return syscall(SYS_get_robust_list, 0, &head, &size) || head == want;
}

static void *robust_list(void)
{
	void *head = NULL;
	size_t size;

	syscall(SYS_get_robust_list, 0, &head, &size);
	return head;
}

/* Registered where the C library has it: then it cannot be again. An emulator has none, and says
 * so. */
static bool rseq_is_right(void)
{
	char *at = (char *)__builtin_thread_pointer() + __rseq_offset;
	int32_t cpu = (int32_t)((volatile struct rseq *)(void *)at)->cpu_id;

	if (!__rseq_size)
		return true;
	if (!syscall(SYS_rseq, at, 32L, 0L, (long)RSEQ_SIG))
		return false;
	return errno == EBUSY || (errno == ENOSYS && cpu == RSEQ_CPU_ID_REGISTRATION_FAILED);
}

/* The C library's idea of the thread's id leads to this thread. */
static bool known_to_libc(void)
{
	clockid_t clock;
	struct timespec ts;
	pthread_mutexattr_t type;
	pthread_mutex_t m;
	bool twice;

	pthread_mutexattr_init(&type);
	pthread_mutexattr_settype(&type, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(&m, &type);
	twice = !pthread_mutex_lock(&m) && pthread_mutex_lock(&m) == EDEADLK;
	return twice && !pthread_mutex_unlock(&m) &&
	       !pthread_getcpuclockid(pthread_self(), &clock) && !clock_gettime(clock, &ts);
}

static void set_up_own(struct own *o, sigset_t *mask, char name[static 16])
{
	stack_t ss = {.ss_sp = o->altstack, .ss_size = sizeof(o->altstack)};

	snprintf(name, 16, "crew-%u", o->number);
	prctl(PR_SET_NAME, name);
	sigaltstack(&ss, NULL);
	sigemptyset(mask);
	sigaddset(mask, SIGUSR1);
	sigaddset(mask, SIGRTMIN + 1 + (int)o->number % 20);
	pthread_sigmask(SIG_SETMASK, mask, NULL);
	for (unsigned i = 0; i < 16; i++)
		in_tls[i] = pattern(o->number, i);
}

static void check_own(const struct own *o, const sigset_t *mask, const char *name)
{
	char now[16] = "";
	stack_t ss;
	sigset_t is;

	for (unsigned i = 0; i < 16; i++)
		if (in_tls[i] != pattern(o->number, i))
			wrong(o->number, "thread-local memory");
	prctl(PR_GET_NAME, now);
	if (strcmp(now, name) != 0)
		wrong(o->number, "name");
	sigaltstack(NULL, &ss);
	if (ss.ss_sp != o->altstack || ss.ss_size != sizeof(o->altstack) || ss.ss_flags)
		wrong(o->number, "altstack");
	pthread_sigmask(SIG_SETMASK, NULL, &is);
	if (memcmp(&is, mask, 8) != 0)
		wrong(o->number, "signal mask");
	if (!known_to_libc())
		wrong(o->number, "the C library's thread id");
}

static void act(struct own *o)
{
	volatile uint64_t on_stack[256];
	enum role role = o->number % ROLES;
	void *robust = robust_list();
	char name[16];
	sigset_t mask;

	set_up_own(o, &mask, name);
	for (unsigned i = 0; i < 256; i++)
		on_stack[i] = pattern(o->number, i);
	stand_by(o->number, role == SPIN && o->number / ROLES >= SPINNERS ? COUNT : role);
	for (unsigned i = 0; i < 256; i++)
		if (on_stack[i] != pattern(o->number, i))
			wrong(o->number, "stack");
	check_own(o, &mask, name);
	if (!robust_list_is(robust))
		wrong(o->number, "robust list");
	if (!rseq_is_right())
		wrong(o->number, "restartable sequences");
	pthread_barrier_wait(&all);
}

/* With keys of its own where pointers are signed (aarch64): no function that was called before may
 * return then. */
static void *work(void *arg)
{
	prctl(PR_PAC_RESET_KEYS, 0, 0, 0, 0);
	act(arg);
	syscall(SYS_exit, 0);
	return NULL;
}

static void start(pthread_t *thread, struct own *own, unsigned n)
{
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	for (unsigned i = 1; i < n; i++) {
		own[i].number = i;
		if (pthread_create(&thread[i], &attr, work, &own[i]))
			wrong(i, "pthread_create");
	}
	pthread_mutex_lock(&lock);
	while (set_up < n - 1)
		pthread_cond_wait(&seen, &lock);
	pthread_mutex_unlock(&lock);
}

static void wake_all(unsigned n)
{
	pthread_mutex_lock(&lock);
	__atomic_store_n(&woken, true, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&wake);
	pthread_mutex_unlock(&lock);
	pthread_mutex_unlock(&locked);
	for (unsigned i = 0; i < n; i++)
		sem_post(&count);
}

int main(int argc, char **argv)
{
	unsigned n = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1;
	pthread_t *thread = calloc(n, sizeof(*thread));
	struct own *own = calloc(n, sizeof(*own));
	char name[16];
	sigset_t mask, set;
	int signo;

	if (!n || !thread || !own)
		return 64;
	close_range(3, ~0u, 0); /* whatever it was started with */
	sem_init(&count, 0, 0);
	pthread_barrier_init(&all, NULL, n);
	pthread_mutex_lock(&locked);
	set_up_own(&own[0], &mask, name);
	start(thread, own, n);
	printf("ready %d\n", (int)getpid());
	fflush(stdout);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	errno = EINTR; /* what a look from outside makes of it: this call is not restarted */
	while (sigwait(&set, &signo))
		;
	wake_all(n);
	check_own(&own[0], &mask, name);
	pthread_barrier_wait(&all);
	for (unsigned i = 1; i < n; i++)
		pthread_join(thread[i], NULL);
	printf("right %u\n", n);
	return 0;
}
