/* SPDX-License-Identifier: MIT */
/*
 * still: sets up state of every kind and then stands at one instruction, for a witness to look at.
 *
 *   still FILE      prints "holding PID"; SIGUSR1 saves it into FILE, and so it does the copy made
 * from that; SIGUSR2 changes one byte of `changed_byte`, SIGWINCH one protection; SIGTERM ends it
 *
 * A copy wakes at the very instruction and stays there: whatever differs was lost on the way.
 */
#include "core/telefork.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define AREA (256u << 10)

volatile unsigned char changed_byte[64] = {1, 2, 3};
static char *changed_area;
static char *heap; /* stays allocated: a part of what is compared */
static char stack[64 << 10];

static void change_byte(int signo)
{
	(void)signo;
	changed_byte[5] ^= 0x80;
}

static void change_protection(int signo)
{
	(void)signo;
	mprotect(changed_area, AREA, PROT_READ);
}

static char *area(int prot, int flags, int value)
{
	char *p = mmap(NULL, AREA, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		exit(2);
	memset(p, value, AREA / 2); /* the other half stays absent */
	mprotect(p, AREA, prot);
	return p;
}

static void set_up_memory(void)
{
	int exe = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	changed_area = area(PROT_READ | PROT_WRITE, MAP_PRIVATE, 0x11);
	area(PROT_READ, MAP_PRIVATE, 0x22);
	area(PROT_NONE, MAP_PRIVATE, 0x33);
	area(PROT_READ | PROT_EXEC, MAP_PRIVATE, 0x44);
	area(PROT_READ | PROT_WRITE, MAP_SHARED, 0x55);
	madvise(area(PROT_READ | PROT_WRITE, MAP_PRIVATE, 0x66), AREA, MADV_NOHUGEPAGE);
	madvise(area(PROT_READ | PROT_WRITE, MAP_PRIVATE, 0x77), AREA, MADV_DONTDUMP);
	mmap(NULL, 64 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	/* Longer than the file: its end is inside. */
	mmap(NULL, 64 << 20, PROT_READ, MAP_PRIVATE, exe, 0);
	close(exe);
	heap = malloc(100000);
	memset(heap, 0x88, 100000);
}

static void set_up_signals(void)
{
	stack_t ss = {.ss_sp = stack, .ss_size = sizeof(stack)};
	struct sigaction sa = {.sa_handler = change_byte, .sa_flags = SA_RESTART};
	sigset_t blocked;

	sigaddset(&sa.sa_mask, SIGQUIT);
	sigaction(SIGUSR2, &sa, NULL);
	sa.sa_handler = change_protection;
	sigaction(SIGWINCH, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGHUP);
	sigprocmask(SIG_SETMASK, &blocked, NULL);
	sigaltstack(&ss, NULL);
}

static __attribute__((noinline)) void stand_still(void)
{
	for (;;)
		__asm__ volatile(""); /* one instruction, a jump to itself */
}

int main(int argc, char **argv)
{
	if (argc != 2 || argv[1][0] != '/')
		return 64;
	umask(027);
	if (chdir("/"))
		return 2;
	prctl(PR_SET_NAME, "standing-still");
	set_up_memory();
	set_up_signals();
	if (telefork_on_signal(SIGUSR1, argv[1], NULL))
		return 2;
	printf("holding %d\n", (int)getpid());
	fflush(stdout);
	stand_still();
}
