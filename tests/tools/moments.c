/* SPDX-License-Identifier: MIT */
/*
 * moments BUILD COUNT [RUNNER...]: the spin probe is captured at COUNT moments, every image is
 * restored, two at a time, and has to finish its work. Says where the moments lay (by mapping, by
 * the instruction at pc, by the loop that the copy woke up in) and fails if a kind of place was not
 * hit in four times as many, or if they were too few different instructions.
 */
#include "core/image/file.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PER_PROCESS  50 /* images of one spin process */
#define AHEAD        4  /* images that wait */
#define PARALLEL     2
#define MAX_MOMENTS  4096
#define MAX_PLACES   64
#define ALLOWED_SECS 120 /* for one restore, and for the spin process to say something */

static const char *build;
static char *const *runner;
static char folder[] = "/tmp/moments-XXXXXX";
static uint64_t pcs[MAX_MOMENTS];
static unsigned n_pcs, failed;
static struct place {
	char name[48];
	unsigned n;
} places[MAX_PLACES];

struct restore {
	pid_t pid; /* 0: free */
	int out;
	char path[512], said[512];
	size_t n;
	time_t started;
};

static unsigned *place(const char *kind, const char *name)
{
	char full[48];
	unsigned i = 0;

	snprintf(full, sizeof(full), "%s %s", kind, name);
	while (i < MAX_PLACES - 1 && places[i].n && strcmp(places[i].name, full))
		i++;
	strcpy(places[i].name, full);
	return &places[i].n;
}

/* --- where a moment lay --- */

static bool at_system_call(const struct tf_file *f, uint64_t pc)
{
	static const struct {
		uint32_t machine, size;
		uint8_t bytes[4];
	} calls[] = {{62, 2, {0x0f, 0x05}}, {183, 4, {0x01, 0x00, 0x00, 0xd4}}};
	uint8_t code[8];

	if (tf_file_read(f, pc - 4, code, 8) != 8)
		return false;
	for (unsigned i = 0; i < 2; i++)
		if (calls[i].machine == f->image.source.machine &&
			(!memcmp(code + 4, calls[i].bytes, calls[i].size) ||
				!memcmp(code + 4 - calls[i].size, calls[i].bytes, calls[i].size)))
			return true;
	return false;
}

static const char *mapping(const struct tf_file *f, uint64_t pc)
{
	const struct tf_map *m = tf_image_map_at(&f->image, pc);
	const char *base = m ? strrchr(m->path, '/') : NULL;

	if (m && m->kind == TF_MAP_VDSO)
		return "vdso";
	if (!base)
		return "elsewhere";
	if (!strncmp(base, "/libc.", 6))
		return "libc";
	if (!strncmp(base, "/ld-", 4))
		return "loader";
	return !strcmp(m->path, f->image.source.exe) || strstr(base, "spin") ? "program"
									     : "library";
}

static void look(const char *path)
{
	struct tf_err e = {0};
	struct tf_file f = {.fd = -1};
	uint64_t pc;
	unsigned i = 0;

	if (tf_file_open(&f, path, &e)) {
		fprintf(stderr, "%s: %s\n", path, e.text);
		failed++;
		return;
	}
	pc = tf_arch_by_machine(f.image.source.machine)->pc(&f.image.threads[0].regs);
	++*place("at", at_system_call(&f, pc) ? "system-call" : mapping(&f, pc));
	while (i < n_pcs && pcs[i] != pc)
		i++;
	if (i == n_pcs && n_pcs < MAX_MOMENTS)
		pcs[n_pcs++] = pc;
	tf_file_close(&f);
}

/* --- processes --- */

/* Starts the runner with program and its arguments; *in (may be NULL) and *out are its pipes. */
static pid_t start(const char *program, const char *const *args, int *in, int *out)
{
	const char *argv[32];
	unsigned n = 0;
	int to[2] = {-1, -1}, from[2];
	pid_t pid;

	for (unsigned i = 0; runner[i] && n < 16; i++)
		argv[n++] = runner[i];
	argv[n++] = program;
	while (*args && n < 31)
		argv[n++] = *args++;
	argv[n] = NULL;
	if ((in && pipe2(to, O_CLOEXEC)) || pipe2(from, O_CLOEXEC))
		return -1;
	pid = fork();
	if (!pid) {
		if (in)
			dup2(to[0], 0);
		else /* a receiver under QEMU: room around its stack, as journey.sh has it */
			setenv("QEMU_STACK_SIZE", "268435456", 1);
		dup2(from[1], 1);
		execvp(argv[0], (char *const *)argv);
		perror(argv[0]);
		_exit(127);
	}
	close(from[1]);
	*out = from[0];
	if (in) {
		close(to[0]);
		*in = to[1];
	}
	return pid;
}

/* Says where a process and its children stand, which have said nothing for too long, and ends them.
 */
static void put_down(pid_t pid)
{
	char command[320];

	snprintf(command, sizeof(command),
		"all=\"$(cat /proc/%d/task/*/children) %d\"; cd /proc; for p in $all; do "
		"grep -HE '^(Name|State|SigPnd|ShdPnd|SigBlk)' $p/status; "
		"grep -H . $p/syscall $p/wchan $p/stack; done | sed 's/^/# /'; kill -9 $all",
		(int)pid, (int)pid);
	fflush(stdout);
	if (system(command))
		printf("# %d and its children: not all could be ended\n", (int)pid);
}

static void restore_start(struct restore *r, const char *path)
{
	char program[512];
	const char *const args[] = {"restore", path, NULL};

	snprintf(program, sizeof(program), "%s/bin/telefork-pad", build);
	snprintf(r->path, sizeof(r->path), "%s", path);
	r->n = 0;
	r->started = time(NULL);
	r->pid = start(program, args, NULL, &r->out);
}

/* Takes what a restore says; true when it has ended. */
static bool restore_ended(struct restore *r)
{
	ssize_t got = read(r->out, r->said + r->n, sizeof(r->said) - 1 - r->n);
	int status;

	if (got > 0) {
		r->n += (size_t)got;
		return false;
	}
	r->said[r->n] = 0;
	close(r->out);
	waitpid(r->pid, &status, 0);
	r->pid = 0;
	if (status || strncmp(r->said, "ok ", 3)) {
		printf("# %s: status %#x, said: %s\n", r->path, status,
			r->n ? r->said : "nothing\n");
		failed++;
		return true;
	}
	r->said[strcspn(r->said, "\n")] = 0;
	++*place("in", r->said + 3);
	unlink(r->path);
	return true;
}

struct spinner {
	pid_t pid;
	int in, out;
	char path[512];
	size_t n;
	char *queue[PER_PROCESS];
	unsigned queued, taken, wanted, let_go;
};

static int spinner_start(struct spinner *s, unsigned seed, unsigned count)
{
	char program[512], n[16], seed_text[16];
	const char *const args[] = {folder, n, seed_text, NULL};

	*s = (struct spinner){.wanted = count};
	snprintf(program, sizeof(program), "%s/probes/spin-pie", build);
	snprintf(n, sizeof(n), "%u", count);
	snprintf(seed_text, sizeof(seed_text), "%u", seed);
	s->pid = start(program, args, &s->in, &s->out);
	return s->pid < 0 ? -1 : 0;
}

/* Paths, one a line. False at the end. */
static bool spinner_read(struct spinner *s)
{
	char *line;
	ssize_t got = read(s->out, s->path + s->n, sizeof(s->path) - 1 - s->n);

	if (got <= 0)
		return false;
	s->n += (size_t)got;
	s->path[s->n] = 0;
	while ((line = strchr(s->path, '\n'))) {
		*line = 0;
		if (s->queued < PER_PROCESS && s->path[0] == '/')
			s->queue[s->queued++] = strdup(s->path);
		else
			printf("# spin: %s\n", s->path);
		s->n -= (size_t)(line + 1 - s->path);
		memmove(s->path, line + 1, s->n + 1);
	}
	return true;
}

/* One spin process and the restores of all its images. */
static void series(unsigned seed, unsigned count)
{
	struct restore running[PARALLEL] = {0};
	struct spinner s;
	unsigned ended = 0, heard = 0;
	time_t since = time(NULL);
	bool open = true;
	int status;

	if (spinner_start(&s, seed, count)) {
		failed += count;
		return;
	}
	while (open || ended < s.queued) {
		struct pollfd fds[PARALLEL + 1];

		for (; s.let_go < count && s.let_go < ended + AHEAD; s.let_go++)
			if (write(s.in, "", 1) != 1)
				break;
		for (unsigned i = 0; i < PARALLEL; i++) {
			if (!running[i].pid && s.taken < s.queued) {
				look(s.queue[s.taken]);
				restore_start(&running[i], s.queue[s.taken++]);
			}
			fds[i] = (struct pollfd){
				.fd = running[i].pid ? running[i].out : -1, .events = POLLIN};
		}
		fds[PARALLEL] = (struct pollfd){.fd = open ? s.out : -1, .events = POLLIN};
		poll(fds, PARALLEL + 1, 1000);
		if (fds[PARALLEL].revents)
			open = spinner_read(&s);
		for (unsigned i = 0; i < PARALLEL; i++) {
			if (running[i].pid && time(NULL) > running[i].started + ALLOWED_SECS) {
				put_down(running[i].pid);
				running[i].started = time(NULL);
			}
			if (fds[i].revents)
				ended += restore_ended(&running[i]);
		}
		if (heard != s.queued + ended) {
			heard = s.queued + ended;
			since = time(NULL);
		} else if (time(NULL) > since + 2 * ALLOWED_SECS) {
			put_down(s.pid);
			break;
		}
	}
	close(s.in);
	close(s.out);
	waitpid(s.pid, &status, 0);
	if (status || s.queued != count) {
		printf("# spin with seed %u: %u of %u images, status %#x\n", seed, s.queued, count,
			status);
		failed++;
	}
	for (unsigned i = 0; i < s.queued; i++)
		free(s.queue[i]);
}

/* --- the verdict --- */

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct place *)a)->name, ((const struct place *)b)->name);
}

static unsigned demand(const char *kind, const char *name, bool wanted, bool say)
{
	if (!wanted || *place(kind, name))
		return 0;
	if (say)
		printf("not ok: no moment %s %s\n", kind, name);
	return 1;
}

/* What is missing of so many moments and more; said, if that is asked for. */
static unsigned lacks(unsigned count, bool emulated, bool say)
{
	static const char *const loops[] = {"malloc", "printf", "dlopen", "read", "nanosleep"};
	unsigned n = 0, least = count < 500 ? count / 10 : 50;

	n += demand("at", "libc", true, say) + demand("at", "system-call", true, say);
	n += demand("at", "vdso", !emulated && count >= 500, say);
	for (unsigned i = 0; i < sizeof(loops) / sizeof(*loops); i++)
		n += demand("in", loops[i], count >= 500, say);
	if (n_pcs >= least)
		return n;
	if (say)
		printf("not ok: %u distinct program counters, at least %u are needed\n", n_pcs,
			least);
	return n + 1;
}

static int verdict(unsigned count, unsigned done, bool emulated)
{
	unsigned n = 0;

	while (n < MAX_PLACES && places[n].n)
		n++;
	qsort(places, n, sizeof(*places), by_name);
	for (unsigned i = 0; i < n; i++)
		printf("%6u %s\n", places[i].n, places[i].name);
	printf("%u moments, %u distinct program counters, %u lost\n", done, n_pcs, failed);
	return lacks(count, emulated, true) || failed ? 1 : 0;
}

int main(int argc, char **argv)
{
	unsigned count = argc > 2 ? (unsigned)atoi(argv[2]) : 0, done = 0, part;
	char command[64];

	if (!count || count > MAX_MOMENTS) {
		fprintf(stderr, "usage: moments BUILD COUNT [RUNNER...]\n");
		return 64;
	}
	build = argv[1];
	runner = argv + 3;
	signal(SIGPIPE, SIG_IGN);
	if (!mkdtemp(folder))
		return 2;
	/* Where moments lie depends on how busy the machine is. */
	for (unsigned seed = 1;
		done < count || (done < 4 * count && done + PER_PROCESS < MAX_MOMENTS && !failed &&
					lacks(count, *runner, false));
		done += part, seed++) {
		part = done < count && count - done < PER_PROCESS ? count - done : PER_PROCESS;
		series(seed, part);
	}
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return verdict(count, done, *runner) | (system(command) != 0);
}
