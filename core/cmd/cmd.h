/* SPDX-License-Identifier: MIT */
/*
 * The commands of telefork(1): one function each, called with its own argv, argv[0] being what
 * messages begin with ("telefork restore"). They return the process's exit code. The exit codes
 * stand here and nowhere else: --help and the man page are made of this table.
 */
#ifndef TF_CMD_CMD_H
#define TF_CMD_CMD_H

#include <argp.h>

#include "core/base/err.h"

/* X(NAME, code, meaning). Those of sysexits.h, and a shell's. */
#define TF_EXITS(X)                                                                      \
	X(OK, 0, "done")                                                                 \
	X(DIFFERENT, 1, "diff, verify: something is different")                          \
	X(USAGE, 64, "the command line is not understood")                               \
	X(IMAGE, 65, "the image is damaged, or cannot live here; every reason is told")  \
	X(INPUT, 66, "a file cannot be opened or read")                                  \
	X(UNAVAILABLE, 69, "the address or the baseline is not to be had here")          \
	X(SYSTEM, 71, "out of memory, processes or descriptors")                         \
	X(IO, 74, "input or output failed on the way")                                   \
	X(UNKNOWN, 75, "the receiver's word is missing; the process stays stopped here") \
	X(REFUSED, 77, "the sender or its token was not accepted")                       \
	X(OBSTACLE, 78, "the process cannot travel; every obstacle is told")             \
	X(NOT_RUN, 126, "run: the program cannot be executed")                           \
	X(NOT_FOUND, 127, "run: the program was not found")

enum tf_exit {
#define X(name, code, text) TF_EXIT_##name = (code),
	TF_EXITS(X)
#undef X
};

int tf_cmd_serve(int argc, char **argv);
int tf_cmd_restore(int argc, char **argv);
int tf_cmd_run(int argc, char **argv);
int tf_cmd_diff(int argc, char **argv);
int tf_cmd_verify(int argc, char **argv);
int tf_cmd_check(int argc, char **argv);
int tf_cmd_dump(int argc, char **argv);
int tf_cmd_copy(int argc, char **argv);
int tf_cmd_move(int argc, char **argv);
int tf_cmd_spawn(int argc, char **argv);
int tf_cmd_zygotes(int argc, char **argv);
int tf_cmd_settle(int argc, char **argv);
int tf_cmd_jobs(int argc, char **argv);

/* A process id on the command line; -1 if it is none. */
int tf_parse_pid(const char *arg);

/* Seconds on the command line, 1 to 86400, as milliseconds; -1 if it is something else. */
int tf_parse_seconds(const char *arg);

/* Reads a token from a file, without the line ends behind it. 0, _IO, _AUTH (its length). */
int tf_read_token(const char *path, char token[static TELEFORK_TOKEN_MAX + 1], struct tf_err *e);

/* The exit code for a TELEFORK_E_*. */
int tf_exit_code(int error);

/* The exit code of a process whose wait status this is, as shells have it: 128 + signal. */
int tf_exit_status(int status);

/* For argp.help_filter: --help ends in the table of exit codes. */
char *tf_exit_help(int key, const char *text, void *input);

/* Prints "telefork: " and the text, each line of it that follows indented, to stderr. subject (may
 * be NULL) comes first: what the trouble is with. */
void tf_complain(const char *subject, const char *text);

/* Says on stderr that a process arrived and runs: "telefork: pid 12 (was 99): EXE, ...". */
struct tf_pad;
void tf_announce(const struct tf_pad *pad);

#endif
