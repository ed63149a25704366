/* SPDX-License-Identifier: MIT */
/*
 * locks N [LIMIT]: N threads that know nothing of telefork; some hold locks of every sort (in
 * static storage, on the heap, on a stack, in shared memory), others wait for them in the kernel.
 * Prints "ready PID"; at SIGUSR1 the holders look whether the locks still know them, give them
 * back, or end with them; whoever waits has to get each, and everybody locks all of them once more:
 * "right N", exit code 0, or what was wrong, 1. N says whether there are some that end with a lock.
 * LIMIT: seconds, after which somebody waits for ever.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LIMIT 200

enum place { STATIC, HEAP, STACK, SHARED, PLACES };

/* Nobody waits for those on the heap: nothing names them but their looks. */
static const bool waited_for[PLACES] = {[STATIC] = true, [STACK] = true, [SHARED] = true};

static const struct sort {
	const char *name;
	int type, protocol, robust;
	bool dies; /* the holder, with the lock */
} sorts[] = {
	{.name = "normal", .type = PTHREAD_MUTEX_NORMAL},
	{.name = "adaptive", .type = PTHREAD_MUTEX_ADAPTIVE_NP},
	{.name = "checking", .type = PTHREAD_MUTEX_ERRORCHECK},
	{.name = "recursive", .type = PTHREAD_MUTEX_RECURSIVE},
	{.name = "robust", .robust = PTHREAD_MUTEX_ROBUST},
	{.name = "robust checking",
		.type = PTHREAD_MUTEX_ERRORCHECK,
		.robust = PTHREAD_MUTEX_ROBUST},
	{.name = "robust, left", .robust = PTHREAD_MUTEX_ROBUST, .dies = true},
	{.name = "inheriting", .protocol = PTHREAD_PRIO_INHERIT},
	{.name = "inheriting recursive",
		.type = PTHREAD_MUTEX_RECURSIVE,
		.protocol = PTHREAD_PRIO_INHERIT},
	{.name = "robust inheriting",
		.protocol = PTHREAD_PRIO_INHERIT,
		.robust = PTHREAD_MUTEX_ROBUST},
	{.name = "robust inheriting, left",
		.protocol = PTHREAD_PRIO_INHERIT,
		.robust = PTHREAD_MUTEX_ROBUST,
		.dies = true},
};

#define SORTS   (sizeof(sorts) / sizeof(*sorts))
#define WAITERS (SORTS * (PLACES - 1))
/* The main one, mutexes, read-write locks, a condition. */
#define THREADS    (1 + SORTS + WAITERS + 4)
#define MORTAL     (2 * PLACES) /* of those, for the two sorts that are left */
#define STACK_SIZE (128u << 10)

static pthread_mutex_t in_static[SORTS], *mutex[SORTS][PLACES];
static pthread_rwlock_t written = PTHREAD_RWLOCK_INITIALIZER, *also_written;
static pthread_mutex_t nested = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static bool fulfilled;

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t opened = PTHREAD_COND_INITIALIZER, seen = PTHREAD_COND_INITIALIZER;
static unsigned ready;
static bool open_now, nobody_dies;
static pthread_t threads[THREADS];
static volatile pid_t waiter[THREADS];
static unsigned n_threads, n_waiters;

static void __attribute__((noreturn, format(printf, 1, 2))) wrong(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	printf("wrong: ");
	vprintf(fmt, ap);
	printf("\n");
	va_end(ap);
	fflush(stdout);
	_exit(1);
}

static void check(bool right, const char *name, int place, const char *what)
{
	if (!right)
		wrong("a %s lock (%d): %s", name, place, what);
}

static void report(void)
{
	pthread_mutex_lock(&gate);
	ready++;
	pthread_cond_signal(&seen);
	pthread_mutex_unlock(&gate);
}

static void wait_open(void)
{
	pthread_mutex_lock(&gate);
	while (!open_now)
		pthread_cond_wait(&opened, &gate);
	pthread_mutex_unlock(&gate);
}

static void make(pthread_mutex_t *m, const struct sort *s, bool shared)
{
	pthread_mutexattr_t a;

	pthread_mutexattr_init(&a);
	pthread_mutexattr_settype(&a, s->type);
	pthread_mutexattr_setprotocol(&a, s->protocol);
	pthread_mutexattr_setrobust(&a, s->robust);
	pthread_mutexattr_setpshared(&a, shared);
	check(!pthread_mutex_init(m, &a), s->name, 0, "cannot be made");
	pthread_mutexattr_destroy(&a);
}

/* --- who holds them --- */

static void give_back(const struct sort *s, int place, pthread_mutex_t *m)
{
	if (s->type == PTHREAD_MUTEX_RECURSIVE) {
		check(!pthread_mutex_lock(m), s->name, place, "not once more");
		check(!pthread_mutex_unlock(m), s->name, place, "cannot be unlocked thrice");
		check(!pthread_mutex_unlock(m), s->name, place, "cannot be unlocked twice");
	}
	if (s->type == PTHREAD_MUTEX_ERRORCHECK)
		check(pthread_mutex_lock(m) == EDEADLK, s->name, place, "no EDEADLK");
	check(!pthread_mutex_unlock(m), s->name, place, "cannot be unlocked");
}

static void *hold(void *arg)
{
	const struct sort *s = arg;
	pthread_mutex_t **m = mutex[s - sorts];

	for (int i = 0; i < PLACES; i++) {
		check(!pthread_mutex_lock(m[i]), s->name, i, "cannot be locked");
		if (s->type == PTHREAD_MUTEX_RECURSIVE)
			pthread_mutex_lock(m[i]);
	}
	report();
	wait_open();
	for (int i = 0; i < PLACES && !s->dies; i++)
		give_back(s, i, m[i]);
	return NULL;
}

static void *write_lock(void *unused)
{
	pthread_rwlock_wrlock(&written);
	pthread_rwlock_wrlock(also_written);
	report();
	wait_open();
	check(pthread_rwlock_wrlock(&written) == EDEADLK, "written", 0, "no EDEADLK");
	check(pthread_rwlock_rdlock(also_written) == EDEADLK, "written", 1, "no EDEADLK");
	pthread_rwlock_unlock(&written);
	pthread_rwlock_unlock(also_written);
	return unused;
}

/* It is held, and somebody waits for a condition with it. */
static void *nest(void *unused)
{
	pthread_mutex_lock(&nested);
	report();
	wait_open();
	check(!pthread_mutex_lock(&nested), "nested", 0, "not once more");
	fulfilled = true;
	pthread_cond_signal(&condition);
	for (int i = 0; i < 2; i++)
		check(!pthread_mutex_unlock(&nested), "nested", 0, "cannot be unlocked");
	return unused;
}

/* --- who waits --- */

static void begin_to_wait(void)
{
	pthread_mutex_lock(&gate);
	waiter[n_waiters++] = (pid_t)syscall(SYS_gettid);
	pthread_mutex_unlock(&gate);
	report();
}

/* A sort's lock, but that on the heap; from then on it is as any other. */
static void *want(void *arg)
{
	pthread_mutex_t **at = arg;
	const struct sort *s = &sorts[(at - mutex[0]) / PLACES];
	int place = (int)((at - mutex[0]) % PLACES), rc;

	begin_to_wait();
	rc = pthread_mutex_lock(*at);
	if (s->dies) {
		check(rc == EOWNERDEAD, s->name, place, "its holder's end was not told");
		pthread_mutex_consistent(*at);
	} else {
		check(!rc, s->name, place, "not got");
	}
	check(!pthread_mutex_unlock(*at), s->name, place, "cannot be given back");
	return NULL;
}

static void *want_to_read(void *unused)
{
	begin_to_wait();
	check(!pthread_rwlock_rdlock(&written), "written", 0, "not got");
	pthread_rwlock_unlock(&written);
	return unused;
}

static void *want_condition(void *unused)
{
	pthread_mutex_lock(&nested);
	begin_to_wait();
	while (!fulfilled)
		pthread_cond_wait(&condition, &nested);
	check(!pthread_mutex_unlock(&nested), "nested", 1, "cannot be given back");
	return unused;
}

static bool is_blocked(pid_t tid)
{
	char path[64], text[32] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", (int)tid);
	f = fopen(path, "r");
	if (!f)
		return false;
	if (!fgets(text, sizeof(text), f))
		text[0] = '\0';
	fclose(f);
	return text[0] >= '0' && text[0] <= '9' && strtol(text, NULL, 10) == SYS_futex;
}

/* --- all --- */

static void start(void *(*fn)(void *), void *arg)
{
	static unsigned expected;
	pthread_attr_t small;
	int rc;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, STACK_SIZE);
	rc = pthread_create(&threads[n_threads++], &small, fn, arg);
	if (rc)
		wrong("thread: %s", strerror(rc));
	pthread_mutex_lock(&gate);
	for (expected++; ready != expected;)
		pthread_cond_wait(&seen, &gate);
	pthread_mutex_unlock(&gate);
}

static void start_all(pthread_mutex_t *on_stack)
{
	pthread_mutex_t *shared = mmap(NULL, SORTS * sizeof(*shared), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	also_written = malloc(sizeof(*also_written));
	pthread_rwlock_init(also_written, NULL);
	for (size_t i = 0; i < SORTS; i++) {
		mutex[i][STATIC] = &in_static[i];
		mutex[i][HEAP] = malloc(sizeof(pthread_mutex_t));
		mutex[i][STACK] = &on_stack[i];
		mutex[i][SHARED] = &shared[i];
		for (int place = 0; place < PLACES; place++)
			make(mutex[i][place], &sorts[i], place == SHARED);
		if (sorts[i].dies && nobody_dies)
			continue;
		start(hold, (void *)&sorts[i]);
		for (int place = 0; place < PLACES; place++)
			if (waited_for[place])
				start(want, &mutex[i][place]);
	}
	start(write_lock, NULL);
	start(want_to_read, NULL);
	start(want_condition, NULL);
	start(nest, NULL);
	for (unsigned i = 0; i < n_waiters; i++)
		while (!is_blocked(waiter[i]))
			usleep(1000);
}

static void lock_all(void)
{
	for (size_t i = 0; i < SORTS; i++)
		for (int place = 0; place < PLACES; place++) {
			pthread_mutex_t *m = mutex[i][place];
			int rc = pthread_mutex_lock(m);

			if (rc == EOWNERDEAD && sorts[i].dies && place == HEAP && !nobody_dies)
				rc = pthread_mutex_consistent(m);
			check(!rc && !pthread_mutex_unlock(m), sorts[i].name, place, "at the end");
		}
	check(!pthread_rwlock_wrlock(&written) && !pthread_rwlock_unlock(&written), "written", 0,
		"at the end");
	check(!pthread_rwlock_wrlock(also_written) && !pthread_rwlock_unlock(also_written),
		"written", 1, "at the end");
}

static void *lock_again(void *unused)
{
	lock_all();
	return unused;
}

static void too_late(int signo)
{
	static const char text[] = "wrong: somebody waits for ever\n";

	(void)signo;
	(void)!write(1, text, sizeof(text) - 1);
	_exit(1);
}

int main(int argc, char **argv)
{
	pthread_mutex_t on_stack[SORTS];
	sigset_t set;
	int signo = 0;

	close_range(3, ~0u, 0); /* whatever it was started with */
	nobody_dies = argc > 1 && strtoul(argv[1], NULL, 10) == THREADS - MORTAL;
	if (argc < 2 || (strtoul(argv[1], NULL, 10) != THREADS && !nobody_dies))
		wrong("there are %zu threads", THREADS);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGALRM, too_late);
	start_all(on_stack);
	printf("ready %d\n", (int)getpid());
	fflush(stdout);
	while (sigwait(&set, &signo) || signo != SIGUSR1)
		;
	alarm(argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : LIMIT);
	pthread_mutex_lock(&gate);
	open_now = true;
	pthread_cond_broadcast(&opened);
	pthread_mutex_unlock(&gate);
	for (unsigned i = 0; i < n_threads; i++)
		pthread_join(threads[i], NULL);
	lock_all();
	if (pthread_create(&threads[0], NULL, lock_again, NULL) || pthread_join(threads[0], NULL))
		wrong("no new thread");
	printf("right %u\n", 1 + n_threads);
	return 0;
}
