/* SPDX-License-Identifier: MIT */
/*
 * Pages that are swapped out, in a guest of its own, whose RAM disk becomes its swap: private
 * memory, memory shared with nobody and a file's private pages that were written to, all of them
 * out when the process is captured, from outside or by itself. Only an argument makes it take the
 * disk; without one there is nothing to be seen, and that is said.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/capture/task.h"
#include "core/restore/pad.h"
#include "core/telefork.h"
#include "tests/unit/suite.h"

#define DISK    "/dev/ram0" /* of the guest's kernel module brd */
#define PAGES   64u
#define SWAPPED (UINT64_C(1) << 62) /* /proc/PID/pagemap */

enum way { STANDS, FORKED, BY_ITSELF, WAYS };

static long page_size;
static volatile int *ready; /* shared with the child */
static bool in_guest;       /* the machine is ours */
static const char *missing; /* why it has no swap; or NULL */
static char path[] = "/tmp/test_swap.XXXXXX";
static char data[] = "/tmp/test_swap_data.XXXXXX";

/* --- the child, and its copy --- */

static struct {
	const char *name;
	bool in_pagemap; /* else only by what is resident */
	uint8_t *at;
} memory[] = {{"private", true, NULL}, {"shared", false, NULL}, {"of a file", true, NULL}};

#define MEMORIES (sizeof(memory) / sizeof(*memory))

static uint8_t *page_of(size_t i, unsigned page)
{
	return memory[i].at + page * (size_t)page_size;
}

/* Every byte of a page is of the page. */
static uint8_t byte_of(size_t i, unsigned page)
{
	return (uint8_t)(1 + i * 71 + page);
}

static void make_memory(void)
{
	size_t size = PAGES * (size_t)page_size;
	int fd = open(data, O_RDONLY);

	memory[0].at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memory[1].at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	memory[2].at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	close(fd);
	for (size_t i = 0; i < MEMORIES; i++)
		for (unsigned page = 0; page < PAGES; page++)
			memset(page_of(i, page), byte_of(i, page), (size_t)page_size);
}

static bool is_out(int pagemap, size_t i, unsigned page)
{
	off_t at = (off_t)((uintptr_t)page_of(i, page) / (uintptr_t)page_size * 8);
	unsigned char resident = 1;
	uint64_t entry = 0;

	if (memory[i].in_pagemap)
		return pread(pagemap, &entry, 8, at) == 8 && entry & SWAPPED;
	return !mincore(page_of(i, page), (size_t)page_size, &resident) && !(resident & 1);
}

/* The kernel swaps out what nobody just wrote to: it may take more than one try. False: never. */
static bool swap_out(void)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	unsigned out = 0;

	for (int try = 0; try < 1000 && out < MEMORIES * PAGES; try++) {
		out = 0;
		for (size_t i = 0; i < MEMORIES; i++) {
			madvise(memory[i].at, PAGES * (size_t)page_size, MADV_PAGEOUT);
			for (unsigned page = 0; page < PAGES; page++)
				out += is_out(pagemap, i, page);
		}
		usleep(100);
	}
	close(pagemap);
	if (out < MEMORIES * PAGES)
		fprintf(stderr, "%u of %zu pages are out\n", out, MEMORIES * PAGES);
	return out == MEMORIES * PAGES;
}

/* 0, or what is wrong. */
static int look_at_all(void)
{
	for (size_t i = 0; i < MEMORIES; i++)
		for (unsigned page = 0; page < PAGES; page++)
			for (long k = 0; k < page_size; k++)
				if (page_of(i, page)[k] != byte_of(i, page))
					return 2 + (int)i;
	return 0;
}

static _Noreturn void be_swapped(enum way way)
{
	struct telefork_result result = {0};
	sigset_t set;
	int signo;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	make_memory();
	if (!swap_out())
		_exit(20);
	if (way == BY_ITSELF && telefork_save(path, NULL, &result) < 0) {
		fprintf(stderr, "%s\n", result.message);
		_exit(21);
	}
	++*ready;
	sigwait(&set, &signo);
	_exit(look_at_all());
}

/* --- the parent --- */

/* NULL, or why there is no swap. */
static const char *take_swap(void)
{
	static uint8_t head[65536];
	static char why[64];
	uint32_t version = 1, last;
	uint64_t size;
	int fd;

	fd = open(DISK, O_WRONLY);
	if (fd < 0 || ioctl(fd, BLKGETSIZE64, &size))
		return "there is no " DISK " for swap here";
	last = (uint32_t)(size / (uint64_t)page_size - 1);
	memcpy(head + 1024, &version, sizeof(version)); /* union swap_header, linux/swap.h */
	memcpy(head + 1028, &last, sizeof(last));
	memcpy(head + page_size - 10, "SWAPSPACE2", 10);
	if (write(fd, head, (size_t)page_size) != page_size || fsync(fd) || close(fd))
		return DISK " cannot be written to";
	if (!swapon(DISK, 0))
		return NULL;
	snprintf(why, sizeof(why), "swapon " DISK ": %s", strerror(errno));
	return why;
}

static void capture(pid_t pid, enum way way)
{
	static struct tf_task task;
	int fd = open(path, O_RDWR | O_TRUNC);
	int rc = way == FORKED ? tf_task_snapshot(&task, pid) : tf_task_stop(&task, pid);

	if (!rc && way != FORKED)
		rc = tf_task_describe(&task);
	if (!rc)
		rc = tf_task_save(&task, fd);
	if (!rc)
		rc = tf_task_commit(&task);
	ck_assert_msg(!rc, "%s", task.capture.err.text);
	tf_task_release(&task);
	close(fd);
}

static void ends_well(const char *who, pid_t pid)
{
	int status = 0;

	kill(pid, SIGUSR1);
	waitpid(pid, &status, 0);
	ck_assert_msg(!status, "%s: exit status %d, signal %d", who, WEXITSTATUS(status),
		WTERMSIG(status));
}

static void make_data(void)
{
	int fd = mkstemp(data);

	ck_assert_int_eq(ftruncate(fd, PAGES * page_size), 0);
	close(fd);
}

START_TEST(there_and_back)
{
	static struct tf_pad pad;
	pid_t child;
	int fd, status;

	if (!in_guest) {
		printf("swap is taken in a guest of its own only\n");
		return;
	}
	ck_assert_msg(!missing, "%s", missing);
	ready = mmap(
		NULL, (size_t)page_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	close(mkstemp(path));
	make_data();
	child = fork();
	if (!child)
		be_swapped((enum way)_i);
	while (!*ready) {
		ck_assert_msg(
			!waitpid(child, &status, WNOHANG), "exit status %d", WEXITSTATUS(status));
		usleep(100);
	}
	if (_i != BY_ITSELF)
		capture(child, (enum way)_i);
	fd = open(path, O_RDONLY);
	ck_assert_msg(!tf_pad_prepare(&pad, fd, NULL) && !tf_pad_start(&pad), "%s", pad.err.text);
	ends_well("copy", pad.child);
	ends_well("original", child);
	close(fd);
	unlink(path);
	unlink(data);
	printf("%zu swapped pages were seen\n", MEMORIES * PAGES);
}
END_TEST

int main(int argc, char **argv)
{
	Suite *s = suite_create("swap");
	TCase *t = tcase_create("swap");

	(void)argv;
	in_guest = argc > 1;
	page_size = sysconf(_SC_PAGESIZE);
	missing = in_guest ? take_swap() : NULL;
	tcase_set_timeout(t, SUITE_LIMIT_S);
	tcase_add_loop_test(t, there_and_back, 0, WAYS);
	suite_add_tcase(s, t);
	return suite_run(s);
}
