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

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
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
#define LIMIT_MS    30000 /* for whatever is waited for */
#define TEXT_MAX    65536
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

/* --- processes --- */

struct process {
	pid_t pid;
	int out;
	char said[512];
	size_t n;
};

/* Starts a program; what it and its children print comes out of p->out. */
static void start(struct process *p, const char *program, char *const argv[])
{
	int from[2];

	*p = (struct process){.pid = -1};
	if (pipe2(from, O_CLOEXEC))
		return;
	p->pid = fork();
	if (!p->pid) {
		int null = open("/dev/null", O_RDWR);

		dup2(null, 0);
		dup2(from[1], 1);
		dup2(open_words(O_WRONLY | O_CREAT | O_TRUNC), 2);
		execv(program, argv);
		_exit(127);
	}
	close(from[1]);
	p->out = from[0];
}

/* Reads until what it said has a line that begins with word, or ends (false). */
static bool hear(struct process *p, const char *word)
{
	for (;;) {
		struct pollfd in = {.fd = p->out, .events = POLLIN};
		const char *at = word ? strstr(p->said, word) : NULL;
		ssize_t got;

		if (at && strchr(at, '\n'))
			return true;
		if (poll(&in, 1, LIMIT_MS) <= 0)
			return false;
		got = read(p->out, p->said + p->n, sizeof(p->said) - 1 - p->n);
		if (got <= 0)
			return !word;
		p->n += (size_t)got;
		p->said[p->n] = '\0';
	}
}

/* Waits for its end, which is killed if it does not come. */
static int end(pid_t pid)
{
	struct timespec ms = {.tv_nsec = 1000000};
	int status = -1;

	for (int i = 0; i < LIMIT_MS; i++) {
		if (waitpid(pid, &status, WNOHANG))
			return status;
		nanosleep(&ms, NULL);
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return status;
}

/* --- what a process has --- */

static unsigned entries(pid_t pid, const char *name)
{
	char path[64];
	unsigned n = 0;
	struct dirent *e;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	dir = opendir(path);
	while (dir && (e = readdir(dir)))
		n += e->d_name[0] != '.';
	if (dir)
		closedir(dir);
	return n;
}

struct state {
	unsigned fds, threads;
	char maps[TEXT_MAX];   /* line by line, but for the stack, which may grow */
	char ranges[TEXT_MAX]; /* the same, what adjoins together and without attributes */
};

static void look_at(pid_t pid, struct state *s)
{
	char path[64], line[512];
	size_t n = 0, m = 0;
	unsigned long from, to, first = 0, last = 0;
	FILE *f;

	*s = (struct state){.fds = entries(pid, "fd"), .threads = entries(pid, "task")};
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f)) {
		if (strstr(line, "[stack]") || sscanf(line, "%lx-%lx", &from, &to) != 2)
			continue;
		n += (size_t)snprintf(s->maps + n, TEXT_MAX - n, "%s", line);
		if (from != last) {
			m += (size_t)snprintf(
				s->ranges + m, TEXT_MAX - m, "%lx-%lx\n", first, last);
			first = from;
		}
		last = to;
	}
	snprintf(s->ranges + m, TEXT_MAX - m, "%lx-%lx\n", first, last);
	if (f)
		fclose(f);
}

static void compare(const char *who, const struct state *is, const struct state *was, bool exactly)
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
static struct state before;

static void original_start(void)
{
	static const char *const variant[] = {"pie", "static", "dyn"};
	char program[512], bytes[64];
	char *argv[] = {program, bytes, NULL};

	snprintf(program, sizeof(program), "%s/probes/busy-%s", build,
		variant[seed / PER_PROCESS % 3]);
	snprintf(bytes, sizeof(bytes), "%s/bytes", folder);
	start(&original, program, argv);
	if (!hear(&original, "ready ")) {
		complain("%s did not start: %s", program, original.said);
		exit(1);
	}
	look_at(original.pid, &before);
}

static void original_end(void)
{
	struct state after;
	int status;

	look_at(original.pid, &after);
	compare("original", &after, &before, true);
	kill(original.pid, SIGUSR1);
	if (!hear(&original, NULL))
		complain("the original does not end");
	status = end(original.pid);
	if (status || !strstr(original.said, "\nright "))
		complain("original: status %#x, said: %s", (unsigned)status, original.said);
	close(original.out);
}

/* The process that comes of the image; its pid is the last thing that the command says. */
static void copy_check(char *image)
{
	char program[512], *argv[] = {program, (char *)"restore", (char *)"--detach", image, NULL};
	struct process copy;
	struct state has;
	pid_t pid;
	int status;

	snprintf(program, sizeof(program), "%s/bin/telefork-pad", build);
	start(&copy, program, argv);
	status = end(copy.pid);
	hear(&copy, "\n");
	pid = (pid_t)atoi(copy.said);
	if (status || pid <= 0) {
		complain("restore: status %#x", (unsigned)status);
		close(copy.out);
		return;
	}
	look_at(pid, &has);
	compare("copy", &has, &before, false);
	kill(pid, SIGUSR1);
	if (!hear(&copy, NULL))
		complain("the copy does not end");
	status = end(pid);
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
	start(&dump, program, argv);
	status = end(dump.pid);
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

	if (waitpid(-1, NULL, WNOHANG | __WALL) >= 0 || errno != ECHILD)
		complain("a process is left");
	if (entries(getpid(), "fd") != fds)
		complain("%u descriptors here, %u before", entries(getpid(), "fd"), fds);
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
	fds = entries(getpid(), "fd");
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
