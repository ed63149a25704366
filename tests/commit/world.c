/* SPDX-License-Identifier: MIT */
/* See commit.h: what a move can leave, and whether that is right. */
#include "tests/commit/commit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STEP_NS 2000000 /* between two looks at what has no event */
#define PATIENT 50000   /* looks */

static void rest(int *patience, const char *what)
{
	if (!--*patience)
		die("waited too long for %s", what);
	nanosleep(&(struct timespec){.tv_nsec = STEP_NS}, NULL);
}

static void read_text(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);

	buf[n > 0 ? n : 0] = '\0';
	if (fd >= 0)
		close(fd);
}

/* --- processes --- */

pid_t start(const struct world *w, const char *state, const char *name, int hold,
	const char *const *argv)
{
	char path[TEXT + 64], byte;
	pid_t pid = fork();
	int fd;

	if (pid)
		return pid;
	if (hold >= 0 && read(hold, &byte, 1) != 1)
		_exit(126);
	snprintf(path, sizeof(path), "%s/%s.out", w->folder, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	dup2(open("/dev/null", O_RDONLY), 0);
	dup2(fd, 1);
	dup2(fd, 2);
	close_range(3, ~0u, 0);
	setenv("XDG_STATE_HOME", state, 1);
	execv(argv[0], (char *const *)argv);
	_exit(127);
}

int await(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int run(const struct world *w, const char *state, const char *name, const char *const *argv)
{
	return await(start(w, state, name, -1, argv));
}

char state_of(pid_t pid)
{
	char path[64], text[512];
	const char *p;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	read_text(path, text, sizeof(text));
	p = strrchr(text, ')');
	return p ? p[2] : 0;
}

/* By their command line: a copy keeps its memory, not its exe link. */
int others(const struct world *w, pid_t pid, pid_t *ret_one)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	int n = 0;

	while (proc && (entry = readdir(proc))) {
		char path[64], line[2 * TEXT] = "";
		pid_t other = atoi(entry->d_name);
		size_t program;

		if (other <= 0 || other == pid)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)other);
		read_text(path, line, sizeof(line));
		program = strlen(line);
		if (strcmp(line, counter) != 0 || strcmp(line + program + 1, w->file) != 0 ||
			state_of(other) == 'Z')
			continue;
		*ret_one = other;
		n++;
	}
	if (proc)
		closedir(proc);
	return n;
}

/* Threads of serve that are its sessions. */
static int sessions(const struct world *w)
{
	char path[64], text[TEXT];
	int n = 0;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)w->serve, (int)w->serve);
	read_text(path, text, sizeof(text));
	for (const char *p = text; *p; p++)
		n += *p == ' ';
	return n;
}

static int descriptors(pid_t pid)
{
	char path[64];
	DIR *dir;
	int n = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

/* --- the world --- */

void receiver_start(struct world *w)
{
	const char *argv[] = {
		telefork, "serve", "--insecure", "--idle-time", w->idle, w->address, NULL};
	char path[TEXT + 64], text[TEXT] = "";
	int patience = PATIENT;

	snprintf(path, sizeof(path), "%s/serve.out", w->folder);
	unlink(path); /* of the one before */
	w->serve = start(w, w->there, "serve", -1, argv);
	while (!strchr(text, '\n') || strncmp(text, "tcp://", 6)) {
		rest(&patience, "telefork serve");
		read_text(path, text, sizeof(text));
	}
	*strchr(text, '\n') = '\0';
	if (!w->to[0])
		snprintf(w->to, sizeof(w->to), "%s", text);
	snprintf(w->address, sizeof(w->address), "%s", text);
	w->serve_fds = descriptors(w->serve);
}

static off_t size_of(const char *path)
{
	struct stat st;

	return stat(path, &st) ? 0 : st.st_size;
}

static void await_growth(const struct world *w, const char *what)
{
	off_t before = size_of(w->file);
	int patience = PATIENT;

	while (size_of(w->file) < before + 100)
		rest(&patience, what);
}

void world_begin(struct world *w, const char *idle)
{
	static char threads[8];
	const char *argv[] = {counter, w->file, threads, NULL};

	snprintf(threads, sizeof(threads), "%d", THREADS);
	*w = (struct world){.folder = "/tmp/telefork-commit-XXXXXX",
		.address = "tcp://127.0.0.1:0",
		.idle = idle};
	if (!mkdtemp(w->folder))
		die("mkdtemp");
	snprintf(w->file, sizeof(w->file), "%.200s/counted", w->folder);
	snprintf(w->here, sizeof(w->here), "%.200s/here", w->folder);
	snprintf(w->there, sizeof(w->there), "%.200s/there", w->folder);
	w->source = start(w, w->here, "counter", -1, argv);
	await_growth(w, "the program's start");
	receiver_start(w);
}

void world_end(struct world *w)
{
	char command[TEXT + 16];
	pid_t copy;

	if (w->source) {
		kill(w->source, SIGKILL);
		await(w->source);
	}
	if (w->serve) {
		kill(w->serve, SIGKILL);
		await(w->serve);
	}
	while (others(w, 0, &copy))
		kill(copy, SIGKILL);
	snprintf(command, sizeof(command), "rm -rf %s", w->folder);
	if (system(command))
		die("%s", command);
}

/* --- what came of it --- */

void phase_of(const char *state, const char *which, char phase[static 16])
{
	char path[TEXT + 64];
	struct dirent *entry;
	DIR *dir;

	phase[0] = '\0';
	snprintf(path, sizeof(path), "%s/telefork/%s", state, which);
	dir = opendir(path);
	while (dir && (entry = readdir(dir)))
		if (strlen(entry->d_name) > 33 && entry->d_name[32] == '.')
			snprintf(phase, 16, "%.15s", entry->d_name + 33);
	if (dir)
		closedir(dir);
}

/* Nothing is open on either side, but what a dead receiver has not been able to close. */
static void check_journals(const struct world *w)
{
	char here[16], there[16];

	phase_of(w->here, "moves", here);
	phase_of(w->there, "arrivals", there);
	if (!strcmp(here, "committing") ||
		(w->serve && (!strcmp(there, "prepared") || !strcmp(there, "committed"))))
		die("left open: \"%s\" here, \"%s\" there", here, there);
}

/* Every thread's numbers, each once and in order. */
static void check_counted(const struct world *w)
{
	unsigned next[THREADS] = {0}, thread, n;
	FILE *f = fopen(w->file, "re");

	if (!f)
		die("%s", w->file);
	while (fscanf(f, "%u %u\n", &thread, &n) == 2) {
		if (thread < THREADS && n == next[thread])
			next[thread]++;
		else
			die("thread %u has counted %u out of turn: two have run", thread, n);
	}
	fclose(f);
}

/* Whoever lost has nothing any more, within the receiver's time limits. */
static const char *await_one(struct world *w)
{
	char what[160];
	int patience = PATIENT;
	bool alive;
	pid_t copy = 0;

	for (;;) {
		char state;

		alive = w->source && (state = state_of(w->source)) && state != 'Z';
		if (others(w, alive ? w->source : 0, &copy) + alive == 1 &&
			(!w->serve ||
				(sessions(w) <= !alive && descriptors(w->serve) == w->serve_fds)))
			break;
		snprintf(what, sizeof(what),
			"exactly one program, and nothing beside it (%d here, %d copies, %d sessions, %d "
			"descriptors of %d)",
			alive, others(w, alive ? w->source : 0, &copy), w->serve ? sessions(w) : 0,
			w->serve ? descriptors(w->serve) : 0, w->serve_fds);
		rest(&patience, what);
	}
	await_growth(w, "it to go on");
	check_counted(w);
	check_journals(w);
	return alive ? "here" : "there";
}

static void run_settle(struct world *w)
{
	const char *argv[] = {telefork, "settle", NULL};
	int code;

	if (!w->serve)
		receiver_start(w);
	code = run(w, w->here, "settle", argv);
	if (code)
		die("settle: %d", code);
}

static const char *settle(struct world *w)
{
	const char *argv[] = {telefork, "settle", "--idle-time", w->idle, NULL};
	const char *jobs[] = {telefork, "jobs", NULL};
	char path[TEXT + 64], text[4096];
	int code;

	if (run(w, w->here, "jobs", jobs))
		die("telefork jobs");
	snprintf(path, sizeof(path), "%s/jobs.out", w->folder);
	read_text(path, text, sizeof(text));
	if (!strstr(text, "committing") || !strstr(text, "stopped here: telefork settle"))
		die("no remedy is named: %s", text);
	if (!w->serve) {
		code = run(w, w->here, "settle", argv);
		if (code != 75 || state_of(w->source) != 'T')
			die("settled with nobody: %d, state %c", code, state_of(w->source));
	}
	network_heal();
	run_settle(w);
	return !strcmp(await_one(w), "here") ? "stopped: here" : "stopped: there";
}

const char *verdict(struct world *w)
{
	int patience = PATIENT;
	char phase[16], state;

	phase_of(w->here, "moves", phase);
	state = w->source ? state_of(w->source) : 0;
	if (strcmp(phase, "committing") != 0)
		return await_one(w);
	if (!state || state == 'Z') { /* it was ended, and that was not noted */
		run_settle(w);
		return await_one(w);
	}
	/* A tracer's death, and then the SIGSTOP, take a moment; or that was not sent yet. */
	while ((state = state_of(w->source)) != 'T') {
		if (state == 'S' || state == 'R')
			return settle(w);
		rest(&patience, "the stop");
	}
	return settle(w);
}
