/* SPDX-License-Identifier: MIT */
/*
 * captures BUILD COUNT [SEED]: the busy probe, whose threads check themselves, is dumped from
 * outside at COUNT moments. Each image is restored, and the process made from it has to have the
 * same threads, descriptors and ranges of memory, and to come to its end rightly; so has the
 * original, after all that was done to it, with its mappings, descriptors and threads as before.
 * Nothing may be left of either. Each moment has a seed of its own (SEED and on), which is printed
 * when something is wrong: captures BUILD 1 THAT-SEED chooses the same again.
 */
#include "arch/arch.h"
#include "core/image/file.h"
#include "tests/tools/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PER_PROCESS 50    /* captures of one original */
#define DELAY_US    20000 /* at most, before a capture */
#define MAX_PCS     65536

static const char *build;
static char folder[] = "/tmp/captures-XXXXXX";
static unsigned seed, failed;
static uint64_t pcs[MAX_PCS], places[4];
static unsigned n_pcs;
static const char *const place_name[] = {"vdso", "system call", "library", "program"};

/* What the last command that was started says on standard error is of interest if it fails. */
static int open_words(int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/words", folder);
	return open(path, flags | O_CLOEXEC, 0600);
}

static void repeat_words(void)
{
	char text[1024];
	int fd = open_words(O_RDONLY);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text));

	if (n > 0)
		printf("%.*s", (int)n, text);
	if (fd >= 0)
		close(fd);
}

static void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void complain(const char *format, ...)
{
	va_list ap;

	printf("not ok: seed %u: ", seed);
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	printf("\n");
	repeat_words();
	fflush(stdout);
	failed++;
}

static unsigned chosen(unsigned limit)
{
	uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
	return (unsigned)((x >> 33) % limit);
}

static void run(struct process *p, const char *program, char *const argv[])
{
	int words = open_words(O_WRONLY | O_CREAT | O_TRUNC);

	process_start(p, program, argv, words, NULL);
	close(words);
}

static void compare(const char *who, const struct process_state *is,
	const struct process_state *was, bool exactly)
{
	if (is->fds != was->fds)
		complain("%s: %u descriptors, %u before", who, is->fds, was->fds);
	if (is->threads != was->threads)
		complain("%s: %u threads, %u before", who, is->threads, was->threads);
	if (strcmp(is->ranges, was->ranges) != 0)
		complain("%s: its memory is\n%swas\n%s", who, is->ranges, was->ranges);
	else if (exactly && strcmp(is->maps, was->maps) != 0)
		complain("%s: its mappings are\n%swere\n%s", who, is->maps, was->maps);
}

/* --- where the threads stood --- */

static void count_place(const struct tf_file *f, const struct tf_thread *t)
{
	const struct tf_arch *arch = tf_arch_by_machine(f->image.source.machine);
	uint64_t pc = arch->pc(&t->regs);
	const struct tf_map *m = tf_image_map_at(&f->image, pc);
	uint8_t code[8] = {0};
	unsigned i = 0, where = 3;

	if (m && m->kind == TF_MAP_VDSO)
		where = 0;
	else if (tf_file_read(f, pc - 4, code, 8) == 8 &&
		 (tf_arch_find_syscall(code, 4) < 4 || !tf_arch_find_syscall(code + 4, 4)))
		where = 1;
	else if (m && strcmp(m->path, f->image.source.exe) != 0)
		where = 2;
	places[where]++;
	while (i < n_pcs && pcs[i] != pc)
		i++;
	if (i == n_pcs && n_pcs < MAX_PCS)
		pcs[n_pcs++] = pc;
}

static void count_places(const char *path)
{
	struct tf_err e = {0};
	struct tf_file f = {.fd = -1};

	if (tf_file_open(&f, path, &e)) {
		complain("%s", e.text);
		return;
	}
	for (uint32_t i = 0; i < f.image.n_threads; i++)
		count_place(&f, &f.image.threads[i]);
	tf_file_close(&f);
}

/* --- originals and copies --- */

static struct process original;
static struct process_state before;

static void original_start(void)
{
	static const char *const variant[] = {"pie", "static", "dyn"};
	char program[512], bytes[64];
	char *argv[] = {program, bytes, NULL};

	snprintf(program, sizeof(program), "%s/probes/busy-%s", build,
		variant[seed / PER_PROCESS % 3]);
	snprintf(bytes, sizeof(bytes), "%s/bytes", folder);
	run(&original, program, argv);
	if (!process_hear(&original, "ready ")) {
		complain("%s did not start: %s", program, original.said);
		exit(1);
	}
	process_look(original.pid, &before);
}

static void original_end(void)
{
	struct process_state after;
	int status;

	process_look(original.pid, &after);
	compare("original", &after, &before, true);
	kill(original.pid, SIGUSR1);
	if (!process_hear(&original, NULL))
		complain("the original does not end");
	status = process_end(original.pid);
	if (status || !strstr(original.said, "\nright "))
		complain("original: status %#x, said: %s", (unsigned)status, original.said);
	close(original.out);
}

/* The process that comes of the image; its pid is the last thing that the command says. */
static void copy_check(char *image)
{
	char program[512], *argv[] = {program, (char *)"restore", (char *)"--detach", image, NULL};
	struct process copy;
	struct process_state has;
	pid_t pid;
	int status;

	snprintf(program, sizeof(program), "%s/bin/telefork-pad", build);
	run(&copy, program, argv);
	status = process_end(copy.pid);
	process_hear(&copy, "\n");
	pid = (pid_t)atoi(copy.said);
	if (status || pid <= 0) {
		complain("restore: status %#x", (unsigned)status);
		close(copy.out);
		return;
	}
	process_look(pid, &has);
	compare("copy", &has, &before, false);
	kill(pid, SIGUSR1);
	if (!process_hear(&copy, NULL))
		complain("the copy does not end");
	status = process_end(pid);
	if (status || !strstr(copy.said, "\nright "))
		complain("copy: status %#x, said: %s", (unsigned)status, copy.said);
	close(copy.out);
}

static void capture(void)
{
	char program[512], image[64], pid[16];
	char *argv[] = {program, (char *)"dump", pid, (char *)"-o", image, NULL};
	struct timespec delay = {.tv_nsec = chosen(DELAY_US) * 1000L};
	struct process dump;
	int status;

	snprintf(program, sizeof(program), "%s/bin/telefork", build);
	snprintf(image, sizeof(image), "%s/image", folder);
	snprintf(pid, sizeof(pid), "%d", (int)original.pid);
	nanosleep(&delay, NULL);
	run(&dump, program, argv);
	status = process_end(dump.pid);
	close(dump.out);
	if (status) {
		complain("dump: status %#x", (unsigned)status);
		return;
	}
	count_places(image);
	copy_check(image);
	unlink(image);
}

/* --- all of them --- */

static bool make_bytes(void)
{
	unsigned char bytes[256];
	char path[64];
	bool made;
	int fd;

	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)i;
	snprintf(path, sizeof(path), "%s/bytes", folder);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	made = fd >= 0 && write(fd, bytes, sizeof(bytes)) == sizeof(bytes);
	close(fd);
	return made;
}

/* Nothing but the file that the program read, and no process. */
static void nothing_is_left(unsigned fds)
{
	char path[64];
	pid_t pid;

	/* The forks that telefork made the original do are orphans, and ours to be reaped. */
	while ((pid = waitpid(-1, NULL, WNOHANG | __WALL)) > 0)
		;
	if (!pid || errno != ECHILD)
		complain("a process is left");
	if (process_entries(getpid(), "fd") != fds)
		complain("%u descriptors here, %u before", process_entries(getpid(), "fd"), fds);
	snprintf(path, sizeof(path), "%s/bytes", folder);
	unlink(path);
	snprintf(path, sizeof(path), "%s/words", folder);
	unlink(path);
	if (rmdir(folder))
		complain("%s: a file is left", folder);
}

int main(int argc, char **argv)
{
	unsigned count = argc > 2 ? (unsigned)atoi(argv[2]) : 0, first, fds;

	if (!count) {
		fprintf(stderr, "usage: captures BUILD COUNT [SEED]\n");
		return 64;
	}
	build = argv[1];
	seed = first = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : (unsigned)time(NULL);
	printf("seed %u\n", seed);
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	if (!mkdtemp(folder) || !make_bytes())
		return 2;
	fds = process_entries(getpid(), "fd");
	for (; seed < first + count; seed++) {
		if (seed == first || seed % PER_PROCESS == 0) {
			if (seed != first)
				original_end();
			original_start();
		}
		capture();
	}
	original_end();
	nothing_is_left(fds);
	for (unsigned i = 0; i < 4; i++)
		printf("%8llu threads in: %s\n", (unsigned long long)places[i], place_name[i]);
	printf("%u captures, %u distinct program counters, %u failures\n", count, n_pcs, failed);
	if (count >= 50 && (!places[0] || !places[1] || !places[2] || n_pcs < count)) {
		printf("not ok: the moments were not at random\n");
		failed++;
	}
	return failed != 0;
}
