/* SPDX-License-Identifier: MIT */
/* The commands of telefork(1): one function each, called with its own argv. They return the process's
 * exit code (sysexits: 64 usage, 65 bad image, 66 unreadable file, 69 unavailable, 74 input/output). */
#ifndef TF_CMD_CMD_H
#define TF_CMD_CMD_H

int tf_cmd_serve(int argc, char **argv);
int tf_cmd_restore(int argc, char **argv);
int tf_cmd_diff(int argc, char **argv); /* also 0: equal, 1: different */

#endif
