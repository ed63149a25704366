/* SPDX-License-Identifier: MIT */
/*
 * See qmp.h. Replies are matched by an id, so that the late answer to a command that timed
 * out is not taken for the answer to the next one.
 */
#include "qemu/qmp.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "qemu/io.h"

#define MAX_LINE   (4 * 1024 * 1024)
#define MAX_EVENTS 256

struct tf_qmp {
	int fd;
	char *line; /* bytes received, not yet a whole line */
	size_t len, cap;
	json_t *events; /* array, oldest first */
	json_int_t last_id;
};

void tf_qmp_free(struct tf_qmp *qmp)
{
	if (!qmp)
		return;
	tf_vm_close_fd(&qmp->fd);
	json_decref(qmp->events);
	free(qmp->line);
	free(qmp);
}

/* Cut the first line off the buffer as JSON; NULL if there is no whole one (*rc 0) or bad. */
static json_t *take_line(struct tf_qmp *qmp, int *rc)
{
	char *end = qmp->len ? memchr(qmp->line, '\n', qmp->len) : NULL;
	size_t used;
	json_t *msg;

	*rc = 0;
	if (!end)
		return NULL;
	used = (size_t)(end - qmp->line) + 1;
	msg = json_loadb(qmp->line, used, 0, NULL);
	memmove(qmp->line, qmp->line + used, qmp->len - used);
	qmp->len -= used;
	if (!json_is_object(msg)) {
		json_decref(msg);
		*rc = -EPROTO;
		return NULL;
	}
	return msg;
}

static int fill(struct tf_qmp *qmp, int64_t deadline)
{
	struct pollfd p = {.fd = qmp->fd, .events = POLLIN};
	ssize_t n;

	if (qmp->cap - qmp->len < 4096) {
		size_t cap = qmp->cap ? qmp->cap * 2 : 16384;
		char *line = cap > MAX_LINE ? NULL : realloc(qmp->line, cap);

		if (!line)
			return cap > MAX_LINE ? -EPROTO : -ENOMEM;
		qmp->line = line;
		qmp->cap = cap;
	}
	n = poll(&p, 1, tf_vm_left_ms(deadline));
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	if (n == 0)
		return -ETIMEDOUT;
	n = recv(qmp->fd, qmp->line + qmp->len, qmp->cap - qmp->len, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0
		       : errno == ECONNRESET             ? -EPIPE
							 : -errno;
	qmp->len += (size_t)n;
	return n ? 0 : -EPIPE;
}

/* The next message of any kind, or NULL and *rc. */
static json_t *next_message(struct tf_qmp *qmp, int64_t deadline, int *rc)
{
	json_t *msg;

	for (;;) {
		msg = take_line(qmp, rc);
		if (msg || *rc < 0)
			return msg;
		*rc = fill(qmp, deadline);
		if (*rc < 0)
			return NULL;
	}
}

static void keep_event(struct tf_qmp *qmp, json_t *msg)
{
	if (json_array_size(qmp->events) >= MAX_EVENTS)
		json_array_remove(qmp->events, 0);
	json_array_append(qmp->events, msg);
}

static int explain(struct tf_vm_error *err, int rc, const char *what)
{
	if (rc == -EPIPE)
		return tf_vm_fail(err, rc, "qmp %s: QEMU closed the connection", what);
	if (rc == -EPROTO)
		return tf_vm_fail(err, rc, "qmp %s: QEMU sent what is not QMP", what);
	return tf_vm_fail_errno(err, rc, "qmp %s", what);
}

/* Sends some of the text; a descriptor (-1: none) goes with its first byte. As send(2). */
static ssize_t send_some(int to, const char *text, size_t len, int fd)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {.space = {0}};
	struct iovec iov = {(void *)text, len};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		m.msg_control = control.space;
		m.msg_controllen = sizeof(control.space);
		*CMSG_FIRSTHDR(&m) =
			(struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &fd, sizeof(fd));
	}
	return sendmsg(to, &m, MSG_NOSIGNAL);
}

static int send_command(struct tf_qmp *qmp, const char *command, json_t *args, int fd)
{
	json_t *msg = json_pack("{s:s, s:I}", "execute", command, "id", ++qmp->last_id);
	char *text;
	int rc = -ENOMEM;

	if (args && msg)
		json_object_set_new(msg, "arguments", args);
	else
		json_decref(args);
	text = msg ? json_dumps(msg, JSON_COMPACT) : NULL;
	for (size_t at = 0, len = text ? strlen(text) : 0; at < len;) {
		ssize_t n = send_some(qmp->fd, text + at, len - at, at ? -1 : fd);

		rc = n < 0 ? -errno : 0;
		if (n < 0 && errno != EINTR)
			break;
		at += n > 0 ? (size_t)n : 0;
	}
	free(text);
	json_decref(msg);
	return rc == -ECONNRESET ? -EPIPE : rc;
}

/* The reply with our id; events are kept, replies to older commands dropped. */
static json_t *await_reply(struct tf_qmp *qmp, int64_t deadline, int *rc)
{
	for (;;) {
		json_t *msg = next_message(qmp, deadline, rc);

		if (!msg)
			return NULL;
		if (json_object_get(msg, "event"))
			keep_event(qmp, msg);
		else if (json_integer_value(json_object_get(msg, "id")) == qmp->last_id)
			return msg;
		json_decref(msg);
	}
}

/* As tf_qmp_execute, with a descriptor (-1: none). */
static int execute(struct tf_qmp *qmp, const char *command, json_t *args, int fd, int timeout_ms,
	json_t **ret, struct tf_vm_error *err)
{
	int64_t deadline = tf_vm_now_ms() + timeout_ms;
	int rc = send_command(qmp, command, args, fd);
	json_t *reply, *value;

	if (rc < 0)
		return explain(err, rc, command);
	reply = await_reply(qmp, deadline, &rc);
	if (!reply)
		return explain(err, rc, command);
	value = json_object_get(reply, "return");
	if (value) {
		if (ret)
			*ret = json_incref(value);
	} else {
		const char *desc =
			json_string_value(json_object_get(json_object_get(reply, "error"), "desc"));

		rc = tf_vm_fail(err, -EREMOTEIO, "qmp %s: %s", command, desc ? desc : "refused");
	}
	json_decref(reply);
	return rc;
}

int tf_qmp_execute(struct tf_qmp *qmp, const char *command, json_t *args, int timeout_ms,
	json_t **ret, struct tf_vm_error *err)
{
	return execute(qmp, command, args, -1, timeout_ms, ret, err);
}

int tf_qmp_pass_fd(
	struct tf_qmp *qmp, const char *name, int fd, int timeout_ms, struct tf_vm_error *err)
{
	return execute(qmp, "getfd", json_pack("{s:s}", "fdname", name), fd, timeout_ms, NULL, err);
}

int tf_qmp_set_link(
	struct tf_qmp *qmp, const char *name, bool up, int timeout_ms, struct tf_vm_error *err)
{
	return tf_qmp_execute(qmp, "set_link", json_pack("{s:s, s:b}", "name", name, "up", up),
		timeout_ms, NULL, err);
}

int tf_qmp_hmp(struct tf_qmp *qmp, const char *line, int timeout_ms, char **ret_text,
	struct tf_vm_error *err)
{
	json_t *value = NULL;
	char *text;
	int rc = tf_qmp_execute(qmp, "human-monitor-command",
		json_pack("{s:s}", "command-line", line), timeout_ms, &value, err);

	if (rc < 0)
		return rc;
	text = json_is_string(value) ? strdup(json_string_value(value)) : NULL;
	json_decref(value);
	if (!text)
		return tf_vm_fail(err, -ENOMEM, "hmp %s: no memory", line);
	*ret_text = text;
	return 0;
}

static json_t *find_event(struct tf_qmp *qmp, const char *name)
{
	for (size_t i = 0; i < json_array_size(qmp->events); i++) {
		json_t *e = json_array_get(qmp->events, i);
		const char *has = json_string_value(json_object_get(e, "event"));

		if (name && (!has || strcmp(has, name) != 0))
			continue;
		json_incref(e);
		json_array_remove(qmp->events, i);
		return e;
	}
	return NULL;
}

int tf_qmp_event(struct tf_qmp *qmp, const char *name, int timeout_ms, json_t **ret_event,
	struct tf_vm_error *err)
{
	int64_t deadline = tf_vm_now_ms() + timeout_ms;
	json_t *event, *msg;
	int rc;

	while (!(event = find_event(qmp, name))) {
		msg = next_message(qmp, deadline, &rc);
		if (!msg)
			return explain(err, rc, name ? name : "event");
		if (json_object_get(msg, "event"))
			keep_event(qmp, msg);
		json_decref(msg);
	}
	if (ret_event)
		*ret_event = event;
	else
		json_decref(event);
	return 0;
}

int tf_qmp_open(int fd, int timeout_ms, struct tf_qmp **ret_qmp, struct tf_vm_error *err)
{
	int64_t deadline = tf_vm_now_ms() + timeout_ms;
	struct tf_qmp *qmp = calloc(1, sizeof(*qmp));
	json_t *greeting;
	int rc = 0;

	if (!qmp) {
		close(fd);
		return tf_vm_fail(err, -ENOMEM, "qmp: no memory");
	}
	qmp->fd = fd;
	qmp->events = json_array();
	greeting = next_message(qmp, deadline, &rc);
	if (!greeting)
		rc = explain(err, rc, "greeting");
	else if (!json_object_get(greeting, "QMP"))
		rc = explain(err, -EPROTO, "greeting");
	else
		rc = tf_qmp_execute(
			qmp, "qmp_capabilities", NULL, tf_vm_left_ms(deadline), NULL, err);
	json_decref(greeting);
	if (rc < 0) {
		tf_qmp_free(qmp);
		return rc;
	}
	*ret_qmp = qmp;
	return 0;
}

int tf_qmp_connect(
	const char *path, int timeout_ms, struct tf_qmp **ret_qmp, struct tf_vm_error *err)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd;

	if (strlen(path) >= sizeof(un.sun_path))
		return tf_vm_fail(err, -ENAMETOOLONG, "%s: longer than a socket's 107 bytes", path);
	memcpy(un.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return tf_vm_fail_errno(err, -errno, "socket");
	if (connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0) {
		int rc = -errno;

		close(fd);
		return tf_vm_fail_errno(err, rc, "connect to %s", path);
	}
	return tf_qmp_open(fd, timeout_ms, ret_qmp, err);
}
