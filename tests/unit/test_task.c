/* SPDX-License-Identifier: MIT */
/*
 * A process looked at from outside: twice the same, every difference named, and unharmed. Where
 * there is no ptrace (QEMU user mode) it is refused by name. Runs in a guest as well: one static
 * program.
 */
#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arch/arch.h"
#include "core/base/host.h"
#include "core/capture/task.h"
#include "core/image/compare.h"

static volatile uint64_t *page; /* shared with the child: it counts in [0], and obeys [1] */
static pid_t child;
static struct tf_task task;

static void start(void)
{
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	child = fork();
	if (!child) {
		static stack_t ss;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		ss = (stack_t){.ss_sp = malloc(SIGSTKSZ), .ss_size = (size_t)SIGSTKSZ};
		sigaltstack(&ss, NULL);
		signal(SIGUSR1, SIG_IGN);
		page[0] = 1;
		for (;;)
			while (page[1])
				page[0]++;
	}
	while (!page[0])
		;
}

static void stop(void)
{
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	munmap((void *)page, 4096);
}

/* Looks at the child and opens what was seen. */
static void look(struct tf_file *f)
{
	char path[] = "/tmp/test_task.XXXXXX";
	int fd = mkstemp(path);
	struct tf_err e = {0};

	ck_assert_int_ge(fd, 0);
	ck_assert_msg(!tf_task_stop(&task, child) && !tf_task_describe(&task) &&
			      !tf_task_save(&task, fd) && !tf_task_commit(&task),
		"%s", task.capture.err.text);
	tf_task_release(&task);
	close(fd);
	ck_assert_msg(!tf_file_open(f, path, &e), "%s", e.text);
	unlink(path);
}

START_TEST(refused_by_name)
{
	ck_assert_int_eq(tf_task_stop(&task, getppid()), TELEFORK_E_UNSUPPORTED);
	ck_assert_ptr_nonnull(strstr(task.capture.err.text, "no ptrace"));
}
END_TEST

static unsigned lost;
static char first[64];

static void heard(void *ctx, const struct tf_difference *d)
{
	(void)ctx;
	if (!d->except && !lost++)
		strncpy(first, d->name, sizeof(first) - 1);
}

START_TEST(the_same_twice)
{
	const struct tf_arch *arch = tf_arch_native();
	struct tf_compared sum;
	struct tf_file a, b;
	struct tf_err e = {0};
	unsigned n;

	start();
	look(&a);
	look(&b);
	ck_assert_int_eq(tf_compare(&a, &b, false, heard, NULL, &sum, &e), 0);
	/* pc and what the loop loads may be in either of its instructions. */
	n = tf_regs_count(arch, &a.image.threads->regs, &a.image.cpu);
	ck_assert_uint_eq(
		sum.count[TF_COMPARE_REGISTER].equal + sum.count[TF_COMPARE_REGISTER].different, n);
	ck_assert_uint_ge(sum.count[TF_COMPARE_REGISTER].equal, n - 3);
	ck_assert_uint_eq(sum.count[TF_COMPARE_MAPPING].different, 0);
	ck_assert_uint_eq(sum.count[TF_COMPARE_MAPPING].equal, a.image.n_maps);
	ck_assert_uint_eq(sum.count[TF_COMPARE_MEMORY].different, 0);
	ck_assert_uint_ge(sum.count[TF_COMPARE_MEMORY].equal, 100000);
	ck_assert_uint_eq(sum.count[TF_COMPARE_STATE].different, 0);
	ck_assert_uint_eq(a.image.source.flags, 0);
	ck_assert_uint_eq(a.image.sigactions[SIGUSR1 - 1].handler, 1);
	ck_assert_uint_ne(a.image.threads->altstack.size, 0);
	ck_assert_uint_ne(a.image.threads->tid_addr, 0);
	page[1] = 1; /* it still does what it is told */
	for (uint64_t before = page[0]; page[0] < before + 1000;)
		;
	tf_file_close(&a);
	tf_file_close(&b);
	stop();
}
END_TEST

START_TEST(differences_are_named)
{
	struct tf_compared sum;
	struct tf_file a, b;
	struct tf_err e = {0};

	start();
	look(&a);
	look(&b);
	b.image.threads->sigmask ^= 4;
	ck_assert_int_eq(tf_compare(&a, &b, false, heard, NULL, &sum, &e), 0);
	ck_assert_uint_eq(sum.count[TF_COMPARE_STATE].different, 1);
	b.image.threads->sigmask ^= 4;
	for (uint32_t i = 0; i < b.image.n_maps; i++) {
		lost = 0;
		b.image.maps[i].flags ^= TF_MAP_SHARED;
		ck_assert_int_eq(tf_compare(&a, &b, false, heard, NULL, &sum, &e), 0);
		ck_assert_uint_eq(sum.count[TF_COMPARE_MAPPING].different, 1);
		b.image.maps[i].flags ^= TF_MAP_SHARED;
	}
	tf_file_close(&a);
	tf_file_close(&b);
	stop();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("task");
	TCase *tc = tcase_create("task");
	SRunner *r;
	int failed;

	tcase_set_timeout(tc, 120);
	if (tf_host_emulated()) {
		tcase_add_test(tc, refused_by_name);
	} else {
		tcase_add_test(tc, the_same_twice);
		tcase_add_test(tc, differences_are_named);
	}
	suite_add_tcase(s, tc);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
