/* SPDX-License-Identifier: MIT */
/*
 * A stop that outlives its tracer (core/base/stop.h): after a tracer's death no thread of the
 * program runs another instruction; taken back, the program goes on and has seen nothing. And
 * processes that are told from later ones with the same id (core/base/identity.h).
 */
#include "core/base/host.h"
#include "core/base/identity.h"
#include "core/base/stop.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 4
#define ROUNDS  20

static volatile struct {
	pid_t tid[THREADS];
	unsigned long n[THREADS];
	unsigned seen; /* SIGCONTs */
} * shared;

static pid_t program;

static void on_cont(int signo)
{
	(void)signo;
	shared->seen++;
}

static void *count(void *arg)
{
	unsigned long me = (unsigned long)arg;

	shared->tid[me] = gettid();
	for (;;)
		shared->n[me]++;
	return NULL;
}

static bool all_go_on(void)
{
	unsigned long before[THREADS];
	int moved = 0;

	for (int i = 0; i < THREADS; i++)
		before[i] = shared->n[i];
	for (int looks = 0; moved < THREADS && looks < 100000; looks++) {
		moved = 0;
		for (int i = 0; i < THREADS; i++)
			moved += shared->n[i] != before[i];
		usleep(1000);
	}
	return moved == THREADS;
}

static void set_up(void)
{
	pthread_t thread;

	shared = mmap(
		NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert(shared != MAP_FAILED);
	program = fork();
	if (program) {
		while (!shared->n[THREADS - 1] || !shared->n[0])
			usleep(100);
		return;
	}
	signal(SIGCONT, on_cont);
	for (unsigned long i = 1; i < THREADS; i++)
		pthread_create(&thread, NULL, count, (void *)i);
	count(NULL);
}

static void tear_down(void)
{
	kill(program, SIGKILL);
	waitpid(program, NULL, 0);
	munmap((void *)shared, sizeof(*shared));
}

static void seize_all(void)
{
	int status;

	for (int i = 0; i < THREADS; i++) {
		while (!shared->tid[i])
			usleep(100);
		ck_assert(!ptrace(PTRACE_SEIZE, shared->tid[i], NULL, NULL));
		ck_assert(!ptrace(PTRACE_INTERRUPT, shared->tid[i], NULL, NULL));
		ck_assert(waitpid(shared->tid[i], &status, __WALL) == shared->tid[i]);
		ck_assert(WIFSTOPPED(status));
	}
}

START_TEST(outlives_its_tracer)
{
	struct tf_identity who;
	unsigned long at[THREADS];
	int pipefd[2];
	pid_t tracer;

	ck_assert(!pipe(pipefd));
	ck_assert_int_eq(tf_identity_of(program, &who), 0);
	tracer = fork();
	if (!tracer) {
		seize_all();
		for (int i = 0; i < THREADS; i++)
			at[i] = shared->n[i];
		if (kill(program, SIGSTOP) || write(pipefd[1], at, sizeof(at)) != sizeof(at))
			_exit(1);
		for (;;)
			pause();
	}
	ck_assert(read(pipefd[0], at, sizeof(at)) == sizeof(at));
	kill(tracer, SIGKILL);
	waitpid(tracer, NULL, 0);
	for (int looks = 0; tf_identity_state(&who) != 'T' && looks < 5000; looks++)
		usleep(1000);
	ck_assert_int_eq(tf_identity_state(&who), 'T');
	for (int i = 0; i < THREADS; i++)
		ck_assert_msg(shared->n[i] == at[i], "thread %d went on from %lu to %lu", i, at[i],
			shared->n[i]);
	ck_assert_int_eq(tf_identity_signal(&who, SIGCONT), 0);
	ck_assert(all_go_on());
	close(pipefd[0]);
	close(pipefd[1]);
}
END_TEST

START_TEST(taken_back)
{
	seize_all();
	ck_assert(!kill(program, SIGSTOP));
	ck_assert_int_eq(tf_stop_take_back(program), 0);
	for (int i = 0; i < THREADS; i++)
		ck_assert(!ptrace(PTRACE_DETACH, shared->tid[i], NULL, NULL));
	ck_assert(all_go_on());
	ck_assert_uint_eq(shared->seen, 0);
}
END_TEST

/* Somebody's SIGCONT came between: the program gets that one, and is not lost. */
START_TEST(continued_meanwhile)
{
	seize_all();
	ck_assert(!kill(program, SIGSTOP) && !kill(program, SIGCONT));
	ck_assert_int_eq(tf_stop_take_back(program), 0);
	for (int i = 0; i < THREADS; i++)
		ck_assert(!ptrace(PTRACE_DETACH, shared->tid[i], NULL, NULL));
	ck_assert(all_go_on());
	ck_assert_uint_eq(shared->seen, 1);
}
END_TEST

START_TEST(another_with_its_id)
{
	struct tf_identity who, later, boot;

	ck_assert_int_eq(tf_identity_of(program, &who), 0);
	later = boot = who;
	later.start++;
	boot.boot[0] ^= 1;
	ck_assert_int_eq(tf_identity_signal(&later, SIGKILL), -ESRCH);
	ck_assert_int_eq(tf_identity_signal(&boot, SIGKILL), -ESRCH);
	ck_assert_int_eq(tf_identity_state(&later), 0);
	ck_assert(all_go_on());
	ck_assert_int_eq(tf_identity_signal(&who, SIGKILL), 0);
	ck_assert_int_eq(waitpid(program, NULL, 0), program);
	ck_assert_int_eq(tf_identity_signal(&who, SIGKILL), -ESRCH);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("stop");
	TCase *c = tcase_create("stop");

	tcase_add_checked_fixture(c, set_up, tear_down);
	tcase_set_timeout(c, SUITE_LIMIT_S);
	if (!tf_host_emulated()) { /* QEMU user mode has no ptrace */
		tcase_add_loop_test(c, outlives_its_tracer, 0, ROUNDS);
		tcase_add_loop_test(c, taken_back, 0, ROUNDS);
		tcase_add_test(c, continued_meanwhile);
	}
	tcase_add_test(c, another_with_its_id);
	suite_add_tcase(s, c);
	return suite_run(s);
}
