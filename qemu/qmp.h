/* SPDX-License-Identifier: MIT */
/*
 * QMP, QEMU's control protocol: JSON lines over a stream socket. One command at a time;
 * events that arrive in between are kept (the last 256) for tf_qmp_event().
 */
#ifndef TF_QEMU_QMP_H
#define TF_QEMU_QMP_H

#include <jansson.h>
#include <stdbool.h>

#include "qemu/error.h"

struct tf_qmp;

/*
 * Speak QMP on the connected socket @fd: read the greeting, negotiate capabilities. Takes @fd
 * over, also on failure. -ETIMEDOUT, -EPROTO, -EPIPE (QEMU ended), -ENOMEM.
 */
int tf_qmp_open(int fd, int timeout_ms, struct tf_qmp **ret_qmp, struct tf_vm_error *err);

/* Connect to the unix socket @path, then as tf_qmp_open. */
int tf_qmp_connect(
	const char *path, int timeout_ms, struct tf_qmp **ret_qmp, struct tf_vm_error *err);

/*
 * Run @command with the object @args (NULL for none; the reference is taken over). On success
 * *@ret (may be NULL) is a new reference to the "return" value. QEMU's own error description
 * goes into @err with -EREMOTEIO; -ETIMEDOUT and -EPIPE as above.
 */
int tf_qmp_execute(struct tf_qmp *qmp, const char *command, json_t *args, int timeout_ms,
	json_t **ret, struct tf_vm_error *err);

/*
 * Hand the descriptor @fd, which stays the caller's, to QEMU under @name (getfd), for a command
 * that takes descriptors by name. Errors as above.
 */
int tf_qmp_pass_fd(
	struct tf_qmp *qmp, const char *name, int fd, int timeout_ms, struct tf_vm_error *err);

/*
 * Run a human monitor command ("info registers"); *@ret_text is a malloc'ed string. HMP
 * reports its errors in that text only.
 */
int tf_qmp_hmp(struct tf_qmp *qmp, const char *line, int timeout_ms, char **ret_text,
	struct tf_vm_error *err);

/* Plug the cable of network device @name in or out: the guest sees the carrier go. */
int tf_qmp_set_link(
	struct tf_qmp *qmp, const char *name, bool up, int timeout_ms, struct tf_vm_error *err);

/*
 * The oldest kept event called @name, or any event if @name is NULL, waiting up to
 * @timeout_ms. *@ret_event (may be NULL) is a new reference. -ETIMEDOUT, -EPIPE.
 */
int tf_qmp_event(struct tf_qmp *qmp, const char *name, int timeout_ms, json_t **ret_event,
	struct tf_vm_error *err);

/* Close and free. NULL is fine. */
void tf_qmp_free(struct tf_qmp *qmp);

#endif
