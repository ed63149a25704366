/* SPDX-License-Identifier: MIT */
/* See process.h. */
#include "tests/tools/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void process_start(struct process *p, const char *program, char *const argv[], int errors,
	void (*before)(void))
{
	int from[2];

	*p = (struct process){.pid = -1};
	if (pipe2(from, O_CLOEXEC))
		return;
	p->pid = fork();
	if (!p->pid) {
		dup2(open("/dev/null", O_RDWR | O_CLOEXEC), 0);
		dup2(from[1], 1);
		dup2(errors, 2);
		if (before)
			before();
		execv(program, argv);
		_exit(127);
	}
	close(from[1]);
	p->out = from[0];
}

bool process_hear(struct process *p, const char *word)
{
	for (;;) {
		struct pollfd in = {.fd = p->out, .events = POLLIN};
		const char *at = word ? strstr(p->said, word) : NULL;
		ssize_t got;

		if (at && strchr(at, '\n'))
			return true;
		if (poll(&in, 1, TF_LIMIT_MS) <= 0)
			return false;
		got = read(p->out, p->said + p->n, sizeof(p->said) - 1 - p->n);
		if (got <= 0)
			return !word;
		p->n += (size_t)got;
		p->said[p->n] = '\0';
	}
}

int process_end(pid_t pid)
{
	struct timespec ms = {.tv_nsec = 1000000};
	int status = -1;

	for (int i = 0; i < TF_LIMIT_MS; i++) {
		if (waitpid(pid, &status, WNOHANG))
			return status;
		nanosleep(&ms, NULL);
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return status;
}

unsigned process_entries(pid_t pid, const char *name)
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

void process_look(pid_t pid, struct process_state *s)
{
	char path[64], line[512];
	size_t n = 0, m = 0;
	unsigned long from, to, first = 0, last = 0;
	FILE *f;

	*s = (struct process_state){
		.fds = process_entries(pid, "fd"), .threads = process_entries(pid, "task")};
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f)) {
		if (strstr(line, "[stack]") || sscanf(line, "%lx-%lx", &from, &to) != 2)
			continue;
		n += (size_t)snprintf(s->maps + n, sizeof(s->maps) - n, "%s", line);
		if (from != last) {
			m += (size_t)snprintf(
				s->ranges + m, sizeof(s->ranges) - m, "%lx-%lx\n", first, last);
			first = from;
		}
		last = to;
	}
	snprintf(s->ranges + m, sizeof(s->ranges) - m, "%lx-%lx\n", first, last);
	if (f)
		fclose(f);
}
