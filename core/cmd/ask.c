/* SPDX-License-Identifier: MIT */
/*
 * The question of telefork check --to: the head of an image goes there without its memory, and
 * whoever would receive it answers with every reason for which that process cannot live there.
 */
#include "core/base/cleanup.h"
#include "core/capture/task.h"
#include "core/channel/channel.h"
#include "core/cmd/check.h"
#include "core/cmd/cmd.h"

#include <signal.h>
#include <unistd.h>

static int dial(const char *uri, const char *token_file, struct tf_err *e)
{
	static char token[TELEFORK_TOKEN_MAX + 1];
	struct telefork_options o = {.token = token_file ? token : NULL};
	struct telefork_result result;
	struct tf_address a;
	int rc = tf_address_parse(uri, &a, e);

	if (!rc && (a.kind == TF_ADDRESS_FILE || a.kind == TF_ADDRESS_STDIO))
		rc = tf_fail(e, TELEFORK_E_ADDRESS,
			"%s: nobody answers there (tcp://host:port, unix:path)", uri);
	if (!rc && token_file)
		rc = tf_read_token(token_file, token, e);
	if (rc)
		return rc;
	rc = telefork_dial(uri, &o, &result);
	return rc < 0 ? tf_fail(e, rc, "%s", result.message) : rc;
}

/* It stands still for as long as that takes, and not for the answer. A process that was half asked
 * must not be left by a signal to us. */
static int describe(struct tf_task *t, pid_t pid)
{
	struct tf_arena described;
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	rc = tf_task_stop(t, pid);
	if (!rc)
		rc = tf_task_describe(t);
	described = t->capture.arena;
	t->capture.arena = (struct tf_arena){0};
	tf_task_release(t);
	t->capture.arena = described;
	sigprocmask(SIG_SETMASK, &before, NULL);
	return rc;
}

int tf_ask_there(pid_t pid, const char *uri, const char *token_file, struct tf_err *ret_reasons,
	struct tf_err *e)
{
	static struct tf_task t;
	struct tf_capture *c = &t.capture;
	char message[TELEFORK_MESSAGE_MAX];
	struct tf_reply reply = {0};
	TF_CLOSE int fd = dial(uri, token_file, e);
	int rc = fd < 0 ? fd : describe(&t, pid);

	if (fd < 0)
		return rc;
	tf_io_init(&c->io, fd, NULL);
	if (!rc)
		rc = tf_capture_send_head(c, TF_STREAM_ASK);
	if (!rc)
		rc = tf_sink_flush(&c->sink, &c->err);
	if (!rc || rc == TELEFORK_E_CLOSED) /* it may have refused before it had all */
		rc = tf_reply_read(&c->io, &reply, message, e);
	else
		tf_fail(e, rc, "%s", c->err.text);
	if (!rc && reply.code)
		tf_fail(ret_reasons, reply.code, "%s", message);
	tf_arena_done(&c->arena);
	return rc;
}
