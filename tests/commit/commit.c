/* SPDX-License-Identifier: MIT */
/*
 * commit TELEFORK COUNTER sender|session|receiver|network [EVERY]: goes through the cells of
 * docs/commit.md. A counter is moved, and a party is killed before each (or each EVERY-th) of its
 * system calls that matter, found by counting; or the network is cut, or falls silent, in each
 * message. Afterwards one program goes on, here or there, as the table says. Prints the cells that
 * were met.
 */
#include "tests/commit/commit.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ALLOWED_SECS 200 /* for one death */
#define SILENCE      2   /* seconds without a byte */
#define LONG_SILENCE 32  /* a loaded machine is silent, too: then it is done again, up to this */

const char *telefork, *counter;

static struct world world = {.folder = ""};
static char doing[128]; /* for messages */

static struct cell {
	char what[64];
	const char *verdict;
	int n;
} cells[64];

_Noreturn void die(const char *fmt, ...)
{
	char command[TEXT + 64];
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "FAILED: %s: ", doing);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	snprintf(command, sizeof(command), "tail -n 5 %s/*.out >&2", world.folder);
	if (!*world.folder || system(command))
		fprintf(stderr, "no output\n");
	if (*world.folder)
		world_end(&world);
	exit(1);
}

static void on_alarm(int signo)
{
	(void)signo;
	die("this takes too long");
}

static void note(const char *what, const char *verdict)
{
	struct cell *c = cells;

	while (c->n && (strcmp(c->what, what) != 0 || strcmp(c->verdict, verdict) != 0))
		if (++c == cells + sizeof(cells) / sizeof(*cells))
			die("more cells than there can be");
	snprintf(c->what, sizeof(c->what), "%s", what);
	c->verdict = verdict;
	c->n++;
}

static void check_cell(enum tf_party party, char phase[2][16], const char *verdict)
{
	const char *allowed = tf_table_death(party, phase[0], phase[1]);

	if (!allowed)
		die("\"%s\" here, \"%s\" there: this is not in the table", phase[0], phase[1]);
	if (!tf_table_has(allowed, verdict))
		die("\"%s\", where the table has \"%s\"", verdict, allowed);
}

static void strike_all(enum tf_party party, const char *name, int every)
{
	char phase[2][16], call[32], what[64];
	bool struck = true;

	for (int n = 0; struck; n += every) {
		const char *v;

		snprintf(doing, sizeof(doing), "%s, call %d", name, n);
		alarm(ALLOWED_SECS);
		world_begin(&world, "30");
		struck = strike(&world, party, n, phase, call);
		if (struck)
			snprintf(doing, sizeof(doing),
				"%s killed before call %d, %s (\"%s\" here, \"%s\" there)", name, n,
				call, phase[0], phase[1]);
		v = verdict(&world);
		if (struck)
			check_cell(party, phase, v);
		else if (strcmp(v, "there") != 0)
			die("a move that nobody disturbed: %s", v);
		snprintf(what, sizeof(what), "%-10s %-10s", *phase[0] ? phase[0] : "-",
			*phase[1] ? phase[1] : "-");
		note(struck ? what : "undisturbed", v);
		world_end(&world);
	}
}

static const struct {
	const char *message;
	int turn, bytes;
} breaks[] = {
	{"greeting", 0, 0},
	{"greeting", 0, 20},
	{"welcome", 1, 0},
	{"welcome", 1, 7},
	{"image", 2, 0},
	{"image", 2, 30000},
	{"prepared", 3, 0},
	{"prepared", 3, 20},
	{"commit", 4, 0},
	{"commit", 4, 10},
	{"running", 5, 0},
	{"running", 5, 20},
};

/* false: the two gave up for want of a processor before the network was broken, or afterwards. */
static bool break_once(unsigned i, enum fault fault, bool dead, int silence)
{
	struct plan plan = {breaks[i].turn, breaks[i].bytes, fault, dead};
	const char *wanted = tf_table_break(breaks[i].turn, dead), *v;
	char pid[16], idle[16], what[64];
	const char *argv[] = {telefork, "move", "--idle-time", idle, pid, world.to, NULL};
	bool struck, right;
	int code;

	snprintf(idle, sizeof(idle), "%d", silence);
	snprintf(what, sizeof(what), "%-10s %s %s", breaks[i].message,
		fault == CUT ? "cut" : "silent", dead ? "for good" : "once");
	snprintf(doing, sizeof(doing), "%s, after %d bytes", what, plan.bytes);
	alarm(ALLOWED_SECS);
	world_begin(&world, idle);
	network_start(&world, &plan);
	snprintf(pid, sizeof(pid), "%d", (int)world.source);
	code = run(&world, world.here, "move", argv);
	struck = network_struck();
	v = verdict(&world);
	right = struck && !strcmp(v, wanted);
	if (!right && silence >= LONG_SILENCE)
		die("\"%s\" instead of \"%s\", the network was %sbroken, and move ended with %d", v,
			wanted, struck ? "" : "not ", code);
	if (right && ((code == 75) != !strncmp(v, "stopped", 7) || !code != !strcmp(v, "there")))
		die("\"%s\", and move's exit code was %d", v, code);
	if (right)
		note(what, v);
	network_end();
	world_end(&world);
	return right;
}

static void break_all(int every)
{
	unsigned n = sizeof(breaks) / sizeof(*breaks), k = 0;

	for (unsigned i = 0; i < n; i++)
		for (int way = 0; way < 4; way++)
			if (!(k++ % (unsigned)every) || breaks[i].turn > 3)
				for (int s = SILENCE;
					!break_once(i, way & 1 ? SILENT : CUT, way & 2, s);)
					s *= 4;
}

int main(int argc, char **argv)
{
	static const char *const parties[] = {"sender", "session", "receiver"};
	int every = argc > 4 ? atoi(argv[4]) : 1;
	unsigned i = 0;

	if (argc < 4)
		return 64;
	telefork = argv[1];
	counter = argv[2];
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGALRM, on_alarm);
	while (i < 3 && strcmp(parties[i], argv[3]) != 0)
		i++;
	if (i < 3)
		strike_all((enum tf_party)i, parties[i], every);
	else
		break_all(every);
	for (struct cell *c = cells; c->n; c++)
		printf("%-9s %-26s %-15s %3d times\n", argv[3], c->what, c->verdict, c->n);
	return 0;
}
