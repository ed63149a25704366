/* SPDX-License-Identifier: MIT */
/*
 * telebed-hand: what the harness does inside a machine while it torments a move. It is static and
 * asks nobody but the kernel.
 *
 *   census FOLDER FILE RECEIVER   everything of a campaign there, one thing a line
 * (harness/faults.h) tail FILE OFFSET              the file from there on kill PID SIGNAL small
 * FOLDER MIB              a file system of that size becomes FOLDER fill FOLDER no byte is free on
 * its file system tight                         the kernel promises no more memory step SECONDS the
 * wall clock jumps
 *
 * fill and tight say "holding" and hold until SIGTERM.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PATH 1024

static int fail(const char *what)
{
	fprintf(stderr, "telebed-hand: %s: %s\n", what, strerror(errno));
	return 1;
}

/* Bytes read, a NUL behind them; 0 if there is nothing. */
__attribute__((format(printf, 3, 4))) static size_t read_text(
	char *buf, size_t size, const char *fmt, ...)
{
	char path[PATH];
	va_list ap;
	ssize_t n;
	int fd;

	va_start(ap, fmt);
	vsnprintf(path, sizeof(path), fmt, ap);
	va_end(ap);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, buf, size - 1);
	if (fd >= 0)
		close(fd);
	n = n > 0 ? n : 0;
	buf[n] = '\0';
	return (size_t)n;
}

/* --- the census --- */

struct census {
	const char *folder, *file;
	pid_t receiver;
};

static bool is_below(const char *path, const char *folder)
{
	size_t n = strlen(folder);

	return !strncmp(path, folder, n) && path[n] == '/';
}

/* proc_pid_stat(5); 0 if it has ended. */
static char state_of(pid_t pid, pid_t *ret_parent)
{
	char text[512], state = 0;
	const char *p;

	read_text(text, sizeof(text), "/proc/%d/stat", (int)pid);
	p = strrchr(text, ')');
	if (!p || sscanf(p + 1, " %c %d", &state, ret_parent) != 2 || state == 'Z' || state == 'X')
		return 0;
	return state;
}

/* Its last part, if one of a process's arguments is a file of the folder; else NULL. */
static const char *name_in(const char *folder, const char *line, size_t size)
{
	for (const char *arg = line; arg < line + size; arg += strlen(arg) + 1)
		if (is_below(arg, folder))
			return strrchr(arg, '/') + 1;
	return NULL;
}

static bool has_open(pid_t pid, const char *file)
{
	char path[PATH], target[PATH];
	bool found = false;
	struct dirent *e;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir && !found && (e = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), e->d_name, target, sizeof(target) - 1);

		target[n > 0 ? n : 0] = '\0';
		found = !strcmp(target, file);
	}
	if (dir)
		closedir(dir);
	return found;
}

/* The program keeps its arguments where it goes, not its exe link; in QEMU user mode it has the
 * receiver's, and is known by its file. */
static void count_process(const struct census *c, pid_t pid)
{
	char line[2 * PATH], state;
	size_t n = read_text(line, sizeof(line), "/proc/%d/cmdline", (int)pid);
	const char *second = line + strlen(line) + 1, *name = name_in(c->folder, line, n);
	const char *what = "other";
	pid_t parent = 0;

	state = state_of(pid, &parent);
	if (!n || !state || pid == c->receiver || (name && !strcmp(name, "telebed-hand")))
		return;
	if ((second < line + n && !strcmp(second, c->file)) ||
		(name && parent != c->receiver && has_open(pid, c->file)))
		what = "program";
	else if (!name)
		return;
	else if (parent == c->receiver)
		what = "session";
	printf("%s %d %c\n", what, (int)pid, state);
}

static void count_processes(const struct census *c)
{
	DIR *proc = opendir("/proc");
	struct dirent *e;

	while (proc && (e = readdir(proc)))
		if (atoi(e->d_name) > 0)
			count_process(c, atoi(e->d_name));
	if (proc)
		closedir(proc);
}

static void count_receiver(const struct census *c)
{
	char text[8192], path[64];
	const char *anon;
	int fds = -2; /* the names of every folder */
	DIR *dir;

	read_text(text, sizeof(text), "/proc/%d/status", (int)c->receiver);
	anon = strstr(text, "\nRssAnon:");
	if (!anon)
		return;
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)c->receiver);
	dir = opendir(path);
	while (dir && readdir(dir))
		fds++;
	if (dir)
		closedir(dir);
	printf("receiver %d %ld\n", fds, strtol(anon + strlen("\nRssAnon:"), NULL, 10));
}

/* A move's file in the journal, its name: 32 digits, a dot, the phase. */
static bool is_record(const char *name)
{
	return strspn(name, "0123456789abcdef") == 32 && name[32] == '.' &&
	       name[33 + strspn(name + 33, "abcdefghijklmnopqrstuvwxyz")] == '\0';
}

static void count_files(const char *folder, const char *last)
{
	bool journal = !strcmp(last, "moves") || !strcmp(last, "arrivals");
	DIR *dir = opendir(folder);
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		char path[PATH];

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
			snprintf(path, sizeof(path), "%s/%s", folder, e->d_name) >= PATH)
			continue;
		if (e->d_type == DT_DIR)
			count_files(path, e->d_name);
		else if (journal && is_record(e->d_name))
			printf("%s %.32s %s\n", last, e->d_name, e->d_name + 33);
		else
			printf("file %s\n", path);
	}
	if (dir)
		closedir(dir);
}

static int census(char **argv)
{
	struct census c = {.folder = argv[0], .file = argv[1], .receiver = atoi(argv[2])};

	count_processes(&c);
	count_receiver(&c);
	count_files(c.folder, "");
	return 0;
}

/* --- the rest --- */

static int tail(char **argv)
{
	int fd = open(argv[0], O_RDONLY | O_CLOEXEC);
	char buf[65536];
	ssize_t n;

	if (fd < 0 || lseek(fd, atoll(argv[1]), SEEK_SET) < 0)
		return fail(argv[0]);
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		fwrite(buf, 1, (size_t)n, stdout);
	return fflush(stdout) ? fail("standard output") : 0;
}

static int send_signal(char **argv)
{
	return kill(atoi(argv[0]), atoi(argv[1])) ? fail(argv[0]) : 0;
}

static int small(char **argv)
{
	char size[64];

	snprintf(size, sizeof(size), "mode=0700,size=%sm", argv[1]);
	if (mkdir(argv[0], 0700) && errno != EEXIST)
		return fail(argv[0]);
	return mount("tmpfs", argv[0], "tmpfs", 0, size) ? fail(argv[0]) : 0;
}

/* Says so, and waits for SIGTERM, which is blocked. */
static void hold(void)
{
	sigset_t set;
	int signo;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	puts("holding");
	fflush(stdout);
	sigwait(&set, &signo);
}

static int fill(char **argv)
{
	char path[PATH], buf[4096] = "";
	int fd;

	snprintf(path, sizeof(path), "%s/full", argv[0]);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return fail(path);
	for (size_t size = sizeof(buf); size; size /= 2)
		while (write(fd, buf, size) == (ssize_t)size)
			;
	hold();
	return unlink(path) ? fail(path) : 0;
}

static bool write_number(const char *name, long value)
{
	char path[PATH];
	FILE *f;
	bool ok;

	snprintf(path, sizeof(path), "/proc/sys/vm/%s", name);
	f = fopen(path, "we");
	ok = f && fprintf(f, "%ld\n", value) > 0;
	return (!f || !fclose(f)) && ok;
}

/* What is promised already, and not a page more. */
static int tight(char **argv)
{
	char text[8192], mode[16];
	const char *promised;

	(void)argv;
	read_text(text, sizeof(text), "/proc/meminfo");
	read_text(mode, sizeof(mode), "/proc/sys/vm/overcommit_memory");
	promised = strstr(text, "Committed_AS:");
	if (!promised || !write_number("overcommit_kbytes", atol(promised + 13)) ||
		!write_number("overcommit_memory", 2))
		return fail("/proc/sys/vm");
	hold();
	return write_number("overcommit_memory", atol(mode)) ? 0 : fail("/proc/sys/vm");
}

static int step(char **argv)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	now.tv_sec += atol(argv[0]);
	return clock_settime(CLOCK_REALTIME, &now) ? fail("clock") : 0;
}

static const struct {
	const char *name;
	int (*run)(char **argv);
	int args;
} commands[] = {
	{"census", census, 3},
	{"tail", tail, 2},
	{"kill", send_signal, 2},
	{"small", small, 2},
	{"fill", fill, 1},
	{"tight", tight, 0},
	{"step", step, 1},
};

int main(int argc, char **argv)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(*commands); i++)
		if (!strcmp(argv[1], commands[i].name) && argc == 2 + commands[i].args)
			return commands[i].run(argv + 2);
	fprintf(stderr, "telebed-hand: not meant for people, see harness/hand.c\n");
	return 64;
}
