/* SPDX-License-Identifier: MIT */
/*
 * Memory tags, there and back in one program, so that it runs in a guest: a child with memory of
 * many tags, whose threads have their pointers checked each in its own way, is captured from
 * outside, or one without threads saves itself; a parent that has them checked otherwise makes it
 * anew. Copy and original then look
 * at each tag by themselves: a pointer with it works, one with another faults. Where there are no
 * tags, or nobody has ptrace (QEMU user mode), nothing is to be seen, and that is said; an argument
 * makes it a failure.
 */
#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arch/arch.h"
#include "arch/restorer.h"
#include "core/base/host.h"
#include "core/capture/task.h"
#include "core/image/file.h"
#include "core/restore/pad.h"
#include "core/telefork.h"
#include "tests/unit/suite.h"

#define PROT_TAGS 0x20 /* PROT_MTE of arch/arm64/include/uapi/asm/mman.h */
#define WRONG_TAG 9    /* SEGV_MTESERR */
#define PAGE      4096u
#define PAGES     12u
#define GRANULES  (PAGE / 16)
#define ALL       (PAGES * GRANULES)
#define CHECKED   0x7fff3     /* of the first thread: at once; irg makes any tag but 0 */
#define UNCHECKED 0x00001     /* of the second: addresses may have a tag */
#define RECEIVER  0x00ff5     /* of the receiver: now and then */
#define READ_ONLY 9u          /* the first page that cannot be written to */
#define HIDDEN    (PAGES - 1) /* nor read */
#define UNTAGGED  5u          /* a page without tags */
#define UNTOUCHED 7u          /* a page that is not there */
#define WITH_TAGS (PAGES - 2)

static volatile int *ready; /* shared with the child */
static uint64_t memory;
static sigjmp_buf back;
static volatile int faulted;
static bool must; /* there have to be tags */
static char path[] = "/tmp/test_tags.XXXXXX";

/* --- the child, and its copy --- */

static uint64_t tag_of(uint32_t i)
{
	uint32_t page = i / GRANULES;

	if (page == UNTAGGED || page == UNTOUCHED)
		return 0;
	return i * UINT32_C(2654435761) >> 13 & 15;
}

static volatile uint64_t *at(uint32_t i, uint64_t tag)
{
	return (volatile uint64_t *)((memory + i * UINT64_C(16)) | tag << 56);
}

static void take_fault(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)context;
	faulted = info->si_code;
	siglongjmp(back, 1);
}

/* The si_code of the fault that reading it makes; 0: none, and it is what was there. */
static int look_at(uint32_t i, uint64_t tag)
{
	faulted = 0;
	if (!sigsetjmp(back, 1) && *at(i, tag) != (i / GRANULES == UNTOUCHED ? 0 : i))
		return -1;
	return faulted;
}

static int controls(void)
{
	return prctl(PR_GET_TAGGED_ADDR_CTRL, 0, 0, 0, 0);
}

static void *unchecked(void *arg)
{
	sigset_t *set = arg;
	int signo;

	prctl(PR_SET_TAGGED_ADDR_CTRL, UNCHECKED, 0, 0, 0);
	++*ready;
	sigwait(set, &signo);
	if (controls() != UNCHECKED)
		_exit(10);
	if (*at(3, tag_of(3) ^ 1) != 3)
		_exit(11);
	return NULL;
}

static void *without(void *arg)
{
	int signo;

	prctl(PR_SET_TAGGED_ADDR_CTRL, 0, 0, 0, 0);
	++*ready;
	sigwait(arg, &signo);
	if (controls())
		_exit(12);
	return NULL;
}

/* 0, or the number of what is wrong. */
static int look_at_all(void)
{
	struct sigaction sa = {.sa_sigaction = take_fault, .sa_flags = SA_SIGINFO};

	mprotect((void *)(memory + HIDDEN * PAGE), PAGE, PROT_READ | PROT_TAGS);
	sigaction(SIGSEGV, &sa, NULL);
	if (controls() != CHECKED)
		return 1;
	for (uint32_t i = 0; i < ALL; i++) {
		if (look_at(i, tag_of(i)))
			return 2;
		if (look_at(i, tag_of(i) ^ (1 + i % 15)) != WRONG_TAG)
			return 3;
	}
	*at(0, tag_of(0)) = 4711;
	return *at(0, tag_of(0)) == 4711 ? 0 : 4;
}

static void make_tags(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	memory = (uint64_t)mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE | PROT_TAGS,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (uint32_t i = 0; i < ALL; i++) {
		if (i / GRANULES == UNTOUCHED)
			continue;
		*at(i, 0) = i;
		tf_r_tag((uint64_t)at(i, 0), tag_of(i));
	}
	mprotect((void *)(memory + READ_ONLY * PAGE), (PAGES - READ_ONLY) * PAGE,
		PROT_READ | PROT_TAGS);
	mprotect((void *)(memory + HIDDEN * PAGE), PAGE, PROT_NONE | PROT_TAGS);
}

static _Noreturn void have_tags(void)
{
	pthread_t thread[2];
	sigset_t set;
	int signo, wrong;

	make_tags();
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	pthread_create(&thread[0], NULL, unchecked, &set);
	pthread_create(&thread[1], NULL, without, &set);
	while (*ready < 2)
		usleep(100);
	prctl(PR_SET_TAGGED_ADDR_CTRL, CHECKED, 0, 0, 0);
	++*ready;
	sigwait(&set, &signo);
	pthread_kill(thread[0], SIGUSR1);
	pthread_kill(thread[1], SIGUSR1);
	pthread_join(thread[0], NULL);
	pthread_join(thread[1], NULL);
	wrong = look_at_all();
	_exit(wrong);
}

static _Noreturn void save_itself(void)
{
	struct telefork_result result = {0};
	int rc;

	make_tags();
	prctl(PR_SET_TAGGED_ADDR_CTRL, CHECKED, 0, 0, 0);
	rc = telefork_save(path, NULL, &result);
	if (rc < 0)
		fprintf(stderr, "%s\n", result.message);
	_exit(rc < 0 ? 20 : look_at_all());
}

/* --- the parent --- */

/* System machines of QEMU before 8.0 keep one pair of tags for all of a page. */
static bool keeps_tags(void)
{
	struct tf_tags tags = {0};
	uint64_t before = memory;
	pid_t child;

	memory = (uint64_t)mmap(
		NULL, PAGE, PROT_READ | PROT_WRITE | PROT_TAGS, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (uint32_t i = 0; i < GRANULES; i++)
		tf_r_tag((uint64_t)at(i, 0), i & 15);
	child = fork();
	if (!child) {
		ptrace(PTRACE_TRACEME);
		raise(SIGSTOP);
	}
	waitpid(child, NULL, 0);
	ck_assert_int_eq(tf_arch_tags_of_task(child, memory, tags.tags), 0);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	munmap((void *)memory, PAGE);
	memory = before;
	return tags.tags[0] == UINT64_C(0xfedcba9876543210);
}

/* NULL, or why not. */
static const char *no_tags(void)
{
	int before = controls();

	if (tf_host_emulated())
		return "there is no ptrace here";
	if (before < 0 || prctl(PR_SET_TAGGED_ADDR_CTRL, CHECKED, 0, 0, 0))
		return "there are no memory tags here";
	prctl(PR_SET_TAGGED_ADDR_CTRL, before, 0, 0, 0);
	return keeps_tags() ? NULL : "this QEMU does not keep memory tags";
}

/* What a snapshot does, for which QEMU user mode is enough. */
START_TEST(of_its_own)
{
	struct sigaction sa = {.sa_sigaction = take_fault, .sa_flags = SA_SIGINFO};
	uint64_t tags[TF_TAGS_WORDS];

	memory = (uint64_t)mmap(
		NULL, PAGE, PROT_READ | PROT_WRITE | PROT_TAGS, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (prctl(PR_SET_TAGGED_ADDR_CTRL, CHECKED, 0, 0, 0) || memory == (uint64_t)MAP_FAILED)
		return; /* not known to this processor */
	for (uint32_t i = 0; i < GRANULES; i++)
		tf_r_tag((uint64_t)at(i, 0), tag_of(i));
	tf_arch_tags(memory, tags);
	if (!tf_host_emulated() && no_tags())
		return;
	for (uint32_t i = 0; i < GRANULES; i++)
		ck_assert_uint_eq(tags[i / 16] >> i % 16 * 4 & 15, tag_of(i));
	sigaction(SIGSEGV, &sa, NULL);
	faulted = 0;
	if (!sigsetjmp(back, 1))
		*at(1, tag_of(1) ^ 1) = 1;
	ck_assert_int_eq(faulted, WRONG_TAG);
	ck_assert_uint_eq(tf_arch_checks(), CHECKED);
	tf_arch_no_checks(CHECKED);
	ck_assert_uint_eq(tf_arch_checks(), UNCHECKED);
	*at(1, tag_of(1) ^ 1) = 1;
}
END_TEST

static void capture(pid_t pid, bool snapshot)
{
	static struct tf_task task;
	int fd = open(path, O_RDWR | O_TRUNC);
	int rc = snapshot ? tf_task_snapshot(&task, pid) : tf_task_stop(&task, pid);

	if (!rc && !snapshot)
		rc = tf_task_describe(&task);
	if (!rc)
		rc = tf_task_save(&task, fd);
	if (!rc)
		rc = tf_task_commit(&task);
	ck_assert_msg(!rc, "%s", task.capture.err.text);
	ck_assert_str_eq(task.stands, "");
	tf_task_release(&task);
	close(fd);
}

/* The image says of each page with tags what they are, and of no other. */
static void check_image(void)
{
	static struct tf_file file;
	struct tf_err e = {0};

	ck_assert_msg(!tf_file_open(&file, path, &e), "%s", e.text);
	ck_assert_uint_eq(file.image.n_tags, WITH_TAGS);
	for (uint32_t i = 0; i < WITH_TAGS; i++) {
		const struct tf_tags *t = &file.image.tags[i];
		uint32_t page = i + (i >= UNTAGGED) + (i + 1 >= UNTOUCHED);

		for (uint32_t k = 0; k < GRANULES; k++)
			ck_assert_uint_eq(
				t->tags[k / 16] >> k % 16 * 4 & 15, tag_of(page * GRANULES + k));
	}
	tf_file_close(&file);
}

static void ends_well(const char *who, pid_t pid)
{
	int status = 0;

	syscall(SYS_tgkill, pid, pid, SIGUSR1); /* the main thread, which wakes the others */
	waitpid(pid, &status, 0);
	ck_assert_msg(!status, "%s: exit status %d, signal %d", who, WEXITSTATUS(status),
		WTERMSIG(status));
}

static bool nothing_to_see(void)
{
	const char *missing = no_tags();

	if (!missing)
		return false;
	ck_assert_msg(!must, "%s", missing);
	printf("%s\n", missing);
	return true;
}

/* What was captured, by a receiver that lives otherwise. */
static void copy_ends_well(void)
{
	static struct tf_pad pad;
	int fd = open(path, O_RDONLY);

	check_image();
	prctl(PR_SET_TAGGED_ADDR_CTRL, RECEIVER, 0, 0, 0);
	ck_assert_msg(!tf_pad_prepare(&pad, fd, NULL) && !tf_pad_start(&pad), "%s", pad.err.text);
	ends_well("copy", pad.child);
	close(fd);
	unlink(path);
	printf("%u tags were seen\n", ALL);
}

START_TEST(there_and_back)
{
	pid_t child;

	if (nothing_to_see())
		return;
	ready = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	close(mkstemp(path));
	child = fork();
	if (!child)
		have_tags();
	while (*ready < 3 && !waitpid(child, NULL, WNOHANG))
		usleep(100);
	capture(child, _i);
	ends_well("original", child);
	copy_ends_well();
}
END_TEST

START_TEST(by_itself)
{
	pid_t child;

	if (nothing_to_see())
		return;
	close(mkstemp(path));
	signal(SIGUSR1, SIG_IGN);
	child = fork();
	if (!child)
		save_itself();
	ends_well("original", child);
	copy_ends_well();
}
END_TEST

static void nothing(void *arg)
{
	(void)arg;
}

/* A receiver that greets and takes whatever comes. */
static pid_t greeter(const struct sockaddr_un *at)
{
	static const char greeting[16] = "TFHELLO1";
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), peer;
	char byte[4096];
	pid_t pid;

	ck_assert(!bind(fd, (const struct sockaddr *)at, sizeof(*at)) && !listen(fd, 1));
	pid = fork();
	if (!pid) {
		peer = accept(fd, NULL, NULL);
		while (write(peer, greeting, sizeof(greeting)) > 0 &&
			read(peer, byte, sizeof(byte)) > 0)
			;
		_exit(0);
	}
	close(fd);
	return pid;
}

/* What a function changes there is not brought back, and QEMU user mode tells nobody of tags. */
START_TEST(refused_by_name)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct telefork_result result = {0};
	struct telefork_options options = {.result = &result};
	char uri[64];
	pid_t pid;

	if (prctl(PR_SET_TAGGED_ADDR_CTRL, PR_TAGGED_ADDR_ENABLE, 0, 0, 0))
		return; /* not known to this kernel */
	close(mkstemp(path));
	unlink(path);
	strcpy(to.sun_path, path);
	snprintf(uri, sizeof(uri), "unix:%s", path);
	pid = greeter(&to);
	telefork_yoyo(uri, nothing, NULL, &options);
	ck_assert_msg(result.error == TELEFORK_E_UNSUPPORTED &&
			      strstr(result.message, "PR_SET_TAGGED_ADDR_CTRL"),
		"%d: %s", result.error, result.message);
	unlink(path);
	waitpid(pid, NULL, 0);
	if (!tf_host_emulated())
		return;
	ck_assert_int_eq(telefork_save(path, NULL, &result), TELEFORK_E_UNSUPPORTED);
	ck_assert_msg(strstr(result.message, "QEMU user mode"), "%s", result.message);
}
END_TEST

int main(int argc, char **argv)
{
	Suite *s = suite_create("tags");
	TCase *t = tcase_create("tags");

	(void)argv;
	must = argc > 1;
	tcase_set_timeout(t, 600);
	tcase_add_loop_test(t, there_and_back, 0, 2);
	tcase_add_test(t, of_its_own);
	tcase_add_test(t, by_itself);
	tcase_add_test(t, refused_by_name);
	suite_add_tcase(s, t);
	return suite_run(s);
}
