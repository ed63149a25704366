/* SPDX-License-Identifier: MIT */
/* Obstacles on the command line: told, and gone without where the user says so. */
#ifndef TF_CMD_CHECK_H
#define TF_CMD_CHECK_H

#include "core/capture/task_check.h"

/* The kinds that --allow named. */
struct tf_allowed {
	bool kind[TF_OBSTACLE_KINDS];
};

/* Takes the argument of --allow: a kind, several with commas between, or "all". NULL, or the text
 * of what is wrong with it. */
const char *tf_allow(struct tf_allowed *a, const char *arg);

/* Looks for obstacles and tells each on standard error; those that are allowed as what is left
 * behind. An exit code. */
int tf_check_first(const char *command, pid_t pid, const struct tf_allowed *allowed);

/* Asks the receiver at uri whether the process could live there; it stands still for a moment. 0,
 * and every reason for which it could not in *ret_reasons (code 0: it could), one a line; or an
 * error. */
int tf_ask_there(pid_t pid, const char *uri, const char *token_file, struct tf_err *ret_reasons,
	struct tf_err *e);

#endif
