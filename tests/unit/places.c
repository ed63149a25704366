/* SPDX-License-Identifier: MIT */
/* The original, its image and the copy. */
#include "tests/unit/places.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "arch/arch.h"

#define LIMIT_MS 100000

struct place place = {.stride = 1};

void place_wait_for(volatile int *word)
{
	while (!*word)
		syscall(SYS_futex, word, FUTEX_WAIT, 0, NULL, NULL, 0);
}

void place_wake(volatile int *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static void hear(int signo)
{
	(void)signo;
	place.told = 1;
	place_wake(&place.told);
}

void place_hear(void)
{
	struct sigaction sa = {.sa_handler = hear};

	sigaction(SIGUSR1, &sa, NULL);
}

void place_start(int (*fn)(void), void (*set_up)(void))
{
	place.go[0] = place.go[1] = 0;
	place.original = fork();
	if (!place.original) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close_range(3, ~0u, 0);
		place.file = open(place.path, O_RDWR);
		if (set_up)
			set_up();
		place.go[1] = 1;
		place_wake(&place.go[1]);
		while (!place.go[0])
			;
		_exit(fn());
	}
	place_wait_for(&place.go[1]);
}

void place_describe(bool other_vdso)
{
	struct tf_task *t = &place.task;

	ck_assert_msg(!tf_task_stop(t, place.original) && !tf_task_describe(t), "%s",
		t->capture.err.text);
	ck_assert_uint_eq(t->capture.image.source.flags & TF_SOURCE_OUTSIDE, 0);
	place.pc = tf_arch_native()->pc(&t->capture.image.threads->regs);
	t->capture.image.vdso.digest ^= other_vdso;
}

void place_save(void)
{
	struct tf_task *t = &place.task;
	char path[] = "/tmp/test_places.image.XXXXXX";

	place.image = mkstemp(path);
	ck_assert_int_ge(place.image, 0);
	unlink(path);
	ck_assert_msg(
		!tf_task_save(t, place.image) && !tf_task_commit(t), "%s", t->capture.err.text);
	tf_task_release(t);
}

void place_take(bool other_vdso)
{
	place_describe(other_vdso);
	place_save();
}

void place_restore(void)
{
	static const struct telefork_options o = {
		.stdio = TELEFORK_STDIO_NULL, .restore = TELEFORK_RESTORE_HOLD_FILES};
	struct tf_pad *p = &place.pad;

	ck_assert_msg(!tf_pad_prepare(p, place.image, &o), "%s", p->err.text);
	if (place.jumps)
		p->facts.flags &= ~TF_FACT_TIME_NS;
	ck_assert_msg(!tf_pad_start(p), "%s", p->err.text);
	place.copy = p->child;
	tf_pad_done(p);
	close(place.image);
}

void place_end(const char *who, pid_t pid, int want, const char *where, long at)
{
	const struct timespec ms = {.tv_nsec = 1000000};
	int status = 0, left = LIMIT_MS;

	while (!waitpid(pid, &status, WNOHANG) && left--)
		nanosleep(&ms, NULL);
	ck_assert_msg(left >= 0 && WIFEXITED(status) && WEXITSTATUS(status) == want,
		"%s, %s %ld (pc %llx): %s, status %#x, not exit code %d", who, where, at,
		(unsigned long long)place.pc, left < 0 ? "still there" : "ended", (unsigned)status,
		want);
}

/* A line of /proc/PID/syscall (proc(5)). */
static void read_call(pid_t pid, char text[static 64])
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/syscall", (int)pid);
	f = fopen(path, "r");
	ck_assert_ptr_nonnull(f);
	if (!fgets(text, 64, f))
		text[0] = '\0';
	fclose(f);
}

void place_wait_blocked(const char *who, pid_t pid, long *nr)
{
	char text[64];
	long now = -1;
	int status = 0;

	for (;;) {
		read_call(pid, text);
		now = text[0] >= '0' && text[0] <= '9' ? strtol(text, NULL, 10) : -1;
		ck_assert_msg(!waitpid(pid, &status, WNOHANG), "%s: ended, status %#x", who,
			(unsigned)status);
		if (now >= 0 && (*nr < 0 || now == *nr || now == SYS_restart_syscall))
			break;
		usleep(100);
	}
	if (*nr < 0)
		*nr = now;
}

bool place_is_outside_calls(void)
{
	char text[64];

	read_call(place.original, text);
	return text[0] == '-' && text[1] == '1' && text[2] == ' ';
}
