/* SPDX-License-Identifier: MIT */
/*
 * Which features of the processor a program uses that is captured from outside: its own choice
 * counts, when it began, not what telefork's environment says. The program is this one, started
 * again. Where there is no ptrace (QEMU user mode) there is nothing to see.
 */
#include <check.h>
#include <elf.h>
#include <errno.h>
#include <linux/prctl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arch/arch.h"
#include "core/base/host.h"
#include "core/capture/task.h"
#include "tests/unit/suite.h"

#define VARIABLE "GLIBC_TUNABLES"

static pid_t child;
static char off[64]; /* VARIABLE=… that hides the feature */
static const struct tf_feature *feature;

/* What this C library can be told not to use; else (aarch64) just any. */
static void choose_feature(void)
{
	const struct tf_arch *arch = tf_arch_native();
	struct tf_cpu cpu;

	tf_arch_cpu(&cpu, true);
	for (size_t i = 0; i < arch->n_features; i++) {
		const struct tf_feature *f = &arch->features[i];

		if (tf_cpu_has(&cpu, f) && !f->hint &&
			(!arch->n_baselines || !strcmp(f->name, "SSE4_1")))
			feature = f;
	}
	if (!feature)
		abort();
	snprintf(off, sizeof(off), VARIABLE "=glibc.cpu.hwcaps=-%s",
		feature->tunable ? feature->tunable : "NONE");
}

/* --- the other program --- */

/* What /proc shows: glibc has made a copy of some of it. */
static void wipe_environment(void)
{
	char text[1024] = "";
	struct tf_mm mm;
	FILE *f = fopen("/proc/self/stat", "r");

	if (!f || !fgets(text, sizeof(text), f))
		abort();
	fclose(f);
	tf_capture_parse_stat(text, &mm, NULL);
	memset((void *)mm.env_start, 'x', mm.env_end - mm.env_start);
}

/* As if it had been started on a machine without the feature. Needs CAP_SYS_RESOURCE. */
static int change_auxv(void)
{
	uint64_t auxv[128];
	FILE *f = fopen("/proc/self/auxv", "r");
	size_t n = f ? fread(auxv, 1, sizeof(auxv), f) / 8 : 0;

	if (f)
		fclose(f);
	choose_feature();
	for (size_t i = 0; i + 1 < n; i += 2)
		if (auxv[i] == (feature->word ? AT_HWCAP2 : AT_HWCAP))
			auxv[i + 1] &= ~(UINT64_C(1) << feature->bit);
	return prctl(PR_SET_MM, PR_SET_MM_AUXV, auxv, n * 8, 0);
}

static int be_other(const char *how, int ready)
{
	char c = 'r';

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!strcmp(how, "wipe"))
		wipe_environment();
	if (!strcmp(how, "auxv") && change_auxv())
		c = 's';
	if (write(ready, &c, 1) != 1)
		return 1;
	for (;;)
		pause();
}

/* false: the machine does not allow that. */
static bool start(const char *how, char *variable)
{
	char *env[] = {variable, NULL}, number[12], c = 0;
	int ready[2];

	ck_assert(!pipe(ready));
	snprintf(number, sizeof(number), "%d", ready[1]);
	child = fork();
	if (!child) {
		execle("/proc/self/exe", "other", how, number, NULL, env);
		_exit(1);
	}
	close(ready[1]);
	ck_assert_int_eq(read(ready[0], &c, 1), 1);
	close(ready[0]);
	return c == 'r';
}

static bool uses_it(void)
{
	struct tf_task task = {0};
	bool uses;

	ck_assert_msg(!tf_task_stop(&task, child), "%s", task.capture.err.text);
	ck_assert_msg(!tf_task_describe(&task), "%s", task.capture.err.text);
	uses = tf_cpu_has(&task.capture.image.cpu, feature);
	tf_task_release(&task);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return uses;
}

/* --- */

START_TEST(uses_what_it_may)
{
	/* What telefork was told is no matter of the program's. */
	putenv(off);
	start("plain", "X=1");
	ck_assert(uses_it());
	/* glibc has chosen by now: the environment cannot change it. */
	start("wipe", "X=1");
	ck_assert(uses_it());
}
END_TEST

START_TEST(does_not_use_what_is_hidden)
{
	if (!feature->tunable) {
		printf("skip: nothing hides a feature from this C library\n");
		return;
	}
	start("plain", off);
	ck_assert(!uses_it());
	start("wipe", off);
	ck_assert(!uses_it());
}
END_TEST

START_TEST(does_not_use_what_it_was_not_told_of)
{
	if (feature->tunable)
		return; /* a program asks the processor there */
	if (start("auxv", "X=1"))
		ck_assert(!uses_it());
	else
		printf("skip: the auxiliary vector cannot be changed here\n");
}
END_TEST

/* Notes are found where they are, and nowhere else. */
START_TEST(notes)
{
	static uint8_t storage[8192];
	struct tf_cpu_clues clues = {.env = off, .env_size = sizeof(off)};
	struct tf_cpu all = {0}, less = {0};

	ck_assert_uint_eq(tf_arch_cpu_noted(storage, sizeof(storage)), sizeof(storage));
	memset(storage, 0xff, sizeof(storage));
	ck_assert_uint_eq(tf_arch_cpu_noted(storage, sizeof(storage)), sizeof(storage));
	if (!feature->tunable)
		return;
	/* Without notes the environment decides; what has no end is none. */
	tf_arch_cpu(&all, false);
	tf_arch_cpu(&less, false);
	tf_arch_cpu_of(&less, &all, &clues);
	ck_assert(tf_cpu_has(&all, feature) && !tf_cpu_has(&less, feature));
	clues.env_size = strlen(off);
	tf_arch_cpu_of(&less, &all, &clues);
	ck_assert_mem_eq(less.features, all.features, sizeof(all.features));
}
END_TEST

int main(int argc, char **argv)
{
	Suite *s = suite_create("cpu_of");
	TCase *t = tcase_create("cpu_of");

	if (argc == 3)
		return be_other(argv[1], atoi(argv[2]));
	choose_feature();
	tcase_set_timeout(t, SUITE_LIMIT_S);
	tcase_add_test(t, notes);
	if (tf_host_emulated()) {
		printf("skip: there is no ptrace here\n");
	} else {
		tcase_add_test(t, uses_what_it_may);
		tcase_add_test(t, does_not_use_what_is_hidden);
		tcase_add_test(t, does_not_use_what_it_was_not_told_of);
	}
	suite_add_tcase(s, t);
	return suite_run(s);
}
