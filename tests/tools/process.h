/* SPDX-License-Identifier: MIT */
/* Processes that are started, heard and looked at by the tools of tests/tools. */
#ifndef TF_TESTS_TOOLS_PROCESS_H
#define TF_TESTS_TOOLS_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

#define TF_LIMIT_MS 100000 /* for whatever is waited for */
#define TF_MAPS_MAX 65536

struct process {
	pid_t pid;
	int out; /* what it and its children print */
	char said[4096];
	size_t n;
};

/* Starts a program in a group of its descriptors: standard input from nowhere, output into p->out,
 * errors to that descriptor. before (may be NULL) is called in the child. p->pid is -1 if it could
 * not be started. */
void process_start(struct process *p, const char *program, char *const argv[], int errors,
	void (*before)(void));

/* Reads until what it said has a line with that word, or (NULL) ends. False: it ended, or said
 * nothing for long. */
bool process_hear(struct process *p, const char *word);

/* Waits for the end of a child, which is killed if it does not come. Its status. */
int process_end(pid_t pid);

struct process_state {
	unsigned fds, threads;
	char maps[TF_MAPS_MAX];   /* line by line, but for the stack, which may grow */
	char ranges[TF_MAPS_MAX]; /* the same, what adjoins together and without attributes */
};

void process_look(pid_t pid, struct process_state *ret);

/* Entries of /proc/PID/name. */
unsigned process_entries(pid_t pid, const char *name);

#endif
