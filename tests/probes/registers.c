/* SPDX-License-Identifier: MIT */
/*
 * registers: every register that the table knows has a value that belongs to the seed, the program
 * stays at one place, a signal captures it there, and over there every register is compared by
 * name. The process itself, interrupted by the handler, has to find all of its own again, too.
 *
 *   registers ADDRESS [--token T] [--seed N] [--hold | --wait] [--vector-length BYTES]
 *
 * A timer's handler looks whether the program has come to its place, and only then raises the
 * signal: it is delivered right when that handler returns. A copy made by a signal has no way back,
 * so it calls the process at an address that it remembers. With --wait the timer only announces
 * that the program is there, and somebody else sends the signal.
 */
#include "tests/probes/registers.h"
#include "arch/arch.h"
#include "core/channel/channel.h"
#include "tests/probes/areas.h"
#include "tests/probes/probe.h"
#include "tests/probes/process.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <unistd.h>

#ifndef PR_SVE_SET_VL
#define PR_SVE_SET_VL 50
#endif

#define CAPTURE PROBE_GO
#define TICK    SIGALRM

static struct registers_state want, found, held;
static struct tf_cpu cpu;
static struct probe_args args;
static struct probe_back back;
static volatile sig_atomic_t asked, holding;
static volatile uint64_t left_from; /* where SIGTERM found it */

/* --- at the place --- */

static bool in_place(uint64_t pc)
{
	if (args.wait)
		return pc == (uint64_t)registers_held;
	return pc >= (uint64_t)registers_begin && pc < (uint64_t)registers_end;
}

static void tick(suseconds_t usec)
{
	struct itimerval every = {{0, usec}, {0, usec}};

	setitimer(ITIMER_REAL, &every, NULL);
}

void registers_signal(int signo, siginfo_t *info, void *ucontext)
{
	uint64_t *pc = registers_pc(ucontext);

	(void)info;
	if (signo == SIGTERM) {
		if (!holding && !args.wait)
			_exit(143);
		left_from = *pc;
		*pc = (uint64_t)registers_leave;
	} else if (!in_place(*pc)) {
		return; /* at the next tick */
	} else if (args.wait) {
		tick(0);
		probe_hold_announce();
	} else if (!asked) {
		asked = 1;
		kill(getpid(), CAPTURE);
	} else if (telefork_signal_result(NULL)) {
		*pc = (uint64_t)registers_leave;
	}
}

static void handle(int signo)
{
	struct sigaction sa = {
		.sa_flags = SA_SIGINFO | SA_RESTART, .sa_sigaction = registers_handler};

	sigfillset(&sa.sa_mask);
	sigaction(signo, &sa, NULL);
}

/* --- comparing --- */

static const char *hex(const uint8_t *p, uint32_t size, char *buf)
{
	char *at = buf;

	at += sprintf(at, "0x");
	for (uint32_t i = size; i-- > 0;)
		at += sprintf(at, "%02x", p[i]);
	return buf;
}

static void lost(void *whose, const struct tf_reg *reg, const uint8_t *a, const uint8_t *b)
{
	char expected[2 * TF_REG_VALUE_MAX + 3] = "nothing",
					     got[2 * TF_REG_VALUE_MAX + 3] = "nothing";

	if (a)
		hex(a, reg->size, expected);
	if (b)
		hex(b, reg->size, got);
	probe_lost("%sregister %s: expected %s found %s", (const char *)whose, reg->name, expected,
		got);
}

static void compare(
	const char *whose, const struct registers_state *a, const struct registers_state *b)
{
	const struct tf_arch *arch = tf_arch_native();
	unsigned equal = 0, n = tf_regs_count(arch, &a->regs, &cpu);
	unsigned differ =
		tf_regs_diff(arch, &a->regs, &cpu, &b->regs, &cpu, lost, (void *)whose, &equal);

	if (equal + differ != n || tf_regs_count(arch, &b->regs, &cpu) != n)
		probe_lost("%s%u registers, but %u equal and %u not", whose, n, equal, differ);
	if (!*whose)
		probe_count("registers", equal);
}

/* Stays until SIGTERM with the registers that came. */
static void hold(void)
{
	registers_layout(&held, &cpu);
	probe_hold_announce();
	holding = 1;
	registers_spin(&found, &held, true);
	holding = 0;
}

/* --- the two of them --- */

static int copy_main(void)
{
	compare("", &want, &found);
	process_compare("");
	areas_compare();
	if (args.hold) {
		hold();
		compare("while it was held, ", &found, &held);
	}
	return probe_back_say(&back);
}

static int process_main(void)
{
	struct telefork_result r;

	tick(0);
	/* Somebody took it along from outside, or let it go on where it is. */
	if (!telefork_signal_result(&r) && args.wait) {
		tf_arch_native()->set_pc(&found.regs, left_from);
		return copy_main();
	}
	if (r.error)
		return probe_error("registers", r.error, r.message);
	compare("in the process itself, ", &want, &found);
	process_compare("in the process itself, ");
	if (args.hold)
		hold();
	if (probe_lost_any())
		return probe_say(STDOUT_FILENO);
	return args.file ? 0 : probe_back_hear("registers", &back);
}

/* Takes --vector-length out of the command line. */
static bool set_vector_length(int *argc, char **argv)
{
	for (int i = 1; i + 1 < *argc; i++) {
		long bytes = atol(argv[i + 1]);

		if (strcmp(argv[i], "--vector-length"))
			continue;
		if ((prctl(PR_SVE_SET_VL, bytes, 0, 0, 0) & 0xffff) != bytes) {
			fprintf(stderr, "registers: no vectors of %ld bytes here\n", bytes);
			return false;
		}
		memmove(argv + i, argv + i + 2, (size_t)(*argc - i - 1) * sizeof(*argv));
		*argc -= 2;
		break;
	}
	return true;
}

int main(int argc, char **argv)
{
	static const int own[] = {TICK, CAPTURE, SIGTERM};
	int rc;

	if (!set_vector_length(&argc, argv))
		return 64;
	if (!probe_parse(argc, argv, "registers", &args))
		return 64;
	tf_arch_cpu(&cpu, true);
	registers_pattern(&want, &cpu, args.seed);
	registers_layout(&found, &cpu);
	if (!args.file && !probe_back_open(&back, args.address))
		return 2;
	rc = telefork_on_signal(CAPTURE, args.address, &args.options);
	if (rc)
		return probe_error("registers", rc, NULL);
	handle(TICK);
	handle(SIGTERM);
	process_set_up(args.seed, own, 3);
	areas_set_up(args.seed);
	tick(2000);
	registers_spin(&want, &found, args.wait);
	return telefork_generation() ? copy_main() : process_main();
}
