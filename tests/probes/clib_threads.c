/* SPDX-License-Identifier: MIT */
/*
 * Threads and what they hold. As after fork(2) only the calling thread is in the copy, under
 * another thread id; a mutex without an owner is as good as new, one that the calling thread holds
 * is in the table below.
 */
#include "tests/probes/clib.h"
#include "tests/probes/probe.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>
#include <unistd.h>

#define N_THREADS 4

/* Every sort of mutex: those that the calling thread holds at the move, in static storage and on
 * the heap, have the new thread id for their owner over there, and can be unlocked. */
static struct sort {
	const char *name;
	int type, protocol, robust;
	pthread_mutex_t free, held, *on_heap;
} sorts[] = {
	{.name = "normal", .type = PTHREAD_MUTEX_NORMAL},
	{.name = "recursive", .type = PTHREAD_MUTEX_RECURSIVE},
	{.name = "checking", .type = PTHREAD_MUTEX_ERRORCHECK},
	{.name = "adaptive", .type = PTHREAD_MUTEX_ADAPTIVE_NP},
	{.name = "robust", .robust = PTHREAD_MUTEX_ROBUST},
	{.name = "inheriting", .protocol = PTHREAD_PRIO_INHERIT},
	{.name = "robust inheriting",
		.protocol = PTHREAD_PRIO_INHERIT,
		.robust = PTHREAD_MUTEX_ROBUST},
};

#define N_SORTS (sizeof(sorts) / sizeof(*sorts))

static pthread_t self;
static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static sem_t sem;
static _Thread_local uint64_t tls = 0x1122334455667788;
static int once_ran, waiting;

static void count_once(void)
{
	once_ran++;
}

static void make_mutex(pthread_mutex_t *m, const struct sort *s)
{
	pthread_mutexattr_t a;

	pthread_mutexattr_init(&a);
	pthread_mutexattr_settype(&a, s->type);
	pthread_mutexattr_setprotocol(&a, s->protocol);
	pthread_mutexattr_setrobust(&a, s->robust);
	if (pthread_mutex_init(m, &a))
		probe_lost("a %s mutex cannot be made", s->name);
	pthread_mutexattr_destroy(&a);
}

static void *short_life(void *arg)
{
	tls++;
	return malloc(100) ? arg : NULL;
}

void clib_threads_make(void)
{
	pthread_t t;

	self = pthread_self();
	for (size_t i = 0; i < N_SORTS; i++) {
		make_mutex(&sorts[i].free, &sorts[i]);
		make_mutex(&sorts[i].held, &sorts[i]);
		pthread_mutex_lock(&sorts[i].free);
		pthread_mutex_unlock(&sorts[i].free);
		pthread_mutex_lock(&sorts[i].held);
		sorts[i].on_heap = malloc(sizeof(pthread_mutex_t));
		make_mutex(sorts[i].on_heap, &sorts[i]);
		pthread_mutex_lock(sorts[i].on_heap);
	}
	pthread_key_create(&key, free);
	pthread_setspecific(key, strdup("specific"));
	pthread_once(&once, count_once);
	sem_init(&sem, 0, 1);
	tls = 0x99;
	/* A thread that was: its stack is in the library's cache. */
	if (pthread_create(&t, NULL, short_life, NULL) || pthread_join(t, NULL))
		probe_lost("no thread can be made at home");
}

static void *worker(void *arg)
{
	for (size_t i = 0; i < N_SORTS; i++) {
		if (pthread_mutex_lock(&sorts[i].free))
			return NULL;
		free(malloc(i * 1000 + 1));
		pthread_mutex_unlock(&sorts[i].free);
	}
	pthread_mutex_lock(&lock);
	waiting++;
	pthread_cond_broadcast(&cond);
	while (waiting < N_THREADS)
		pthread_cond_wait(&cond, &lock);
	pthread_mutex_unlock(&lock);
	if (tls != 0x1122334455667788 || pthread_getspecific(key))
		return NULL;
	pthread_setspecific(key, malloc(10));
	return arg;
}

static void check_threads(void)
{
	pthread_t t[N_THREADS];
	int good = 0;

	for (int i = 0; i < N_THREADS; i++)
		good += !pthread_create(&t[i], NULL, worker, &sorts[i]);
	clib_expect(good == N_THREADS, "pthread_create");
	for (int i = 0; i < N_THREADS && good == N_THREADS; i++) {
		void *back = NULL;

		clib_expect(!pthread_join(t[i], &back) && back == &sorts[i], "a thread");
	}
	clib_expect(!pthread_create(&t[0], NULL, worker, NULL) && !pthread_cancel(t[0]) &&
			    !pthread_join(t[0], NULL),
		"pthread_cancel");
}

static void check_mutexes(void)
{
	for (size_t i = 0; i < N_SORTS; i++) {
		struct sort *s = &sorts[i];
		int rc = pthread_mutex_lock(&s->free) ?: pthread_mutex_unlock(&s->free);

		clib_checks += 2;
		if (rc)
			probe_lost("a free %s mutex: %s", s->name, strerror(rc));
		rc = pthread_mutex_unlock(&s->held) ?: pthread_mutex_unlock(s->on_heap);
		if (rc)
			probe_lost("a %s mutex held at the move: unlocking says %d", s->name, rc);
	}
	clib_expect(!pthread_rwlock_wrlock(&rwlock) && !pthread_rwlock_unlock(&rwlock),
		"a read-write lock");
	clib_expect(!sem_wait(&sem) && sem_trywait(&sem) && errno == EAGAIN, "a semaphore");
}

void clib_threads_check(void)
{
	clib_expect(pthread_equal(self, pthread_self()), "pthread_self");
	clib_expect(tls == 0x99, "a thread-local variable");
	clib_expect(!strcmp(pthread_getspecific(key) ?: "", "specific"), "thread-specific data");
	pthread_once(&once, count_once);
	clib_expect(once_ran == 1, "pthread_once");
	check_mutexes();
	check_threads();
}
