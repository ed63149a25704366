/* SPDX-License-Identifier: MIT */
/*
 * Requests to a guest's agent: one function each, and tf_vm_run and the file copies that are
 * made of several. Several pieces of a file are on their way at once.
 */
#include "qemu/remote.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "qemu/agent.h"
#include "qemu/vm_impl.h"

#define WINDOW     8 /* pieces of a file on their way */
#define SEED_BYTES 64

void tf_vm_result_done(struct tf_vm_result *r)
{
	free(r->out);
	free(r->err);
	*r = (struct tf_vm_result){};
}

/* End the request begun at @mark, send it, await its reply. */
static int call(struct tf_vm *vm, size_t mark, const char *what, int timeout_ms,
	struct tf_wire_buf *ret_body, struct tf_vm_error *err)
{
	int rc = tf_wire_end(&vm->out, mark);

	if (rc < 0)
		return tf_vm_fail_errno(err, rc, "machine %s: %s", vm->machine.name, what);
	return tf_vm_reply(vm, vm->last_tag, what, timeout_ms, ret_body, err);
}

static struct tf_wire_reader reader(const struct tf_wire_buf *b)
{
	return (struct tf_wire_reader){.at = b->data + b->start, .left = tf_wire_size(b)};
}

static int malformed(struct tf_vm *vm, const char *what, struct tf_vm_error *err)
{
	return tf_vm_fail(err, -EPROTO,
		"machine %s: %s: malformed reply of the agent; its "
		"initramfs may be older than this program: make it again",
		vm->machine.name, what);
}

int tf_vm_ping(struct tf_vm *vm, int timeout_ms, int64_t *ret_us, struct tf_vm_error *err)
{
	int64_t start = tf_vm_now_us();
	struct tf_wire_buf body = {};
	struct tf_wire_reader r;
	size_t mark = tf_vm_request(vm, TF_AGENT_PING);
	int rc;

	tf_wire_blob(&vm->out, "ping", 4);
	rc = call(vm, mark, "ping", timeout_ms, &body, err);
	r = reader(&body);
	if (rc == 0 && tf_wire_get_u32(&r) != TF_AGENT_VERSION)
		rc = malformed(vm, "ping", err);
	tf_wire_done(&body);
	if (rc == 0 && ret_us)
		*ret_us = tf_vm_now_us() - start;
	return rc;
}

static void add_strings(struct tf_wire_buf *b, const char *const *v)
{
	uint32_t n = 0;

	while (v[n])
		n++;
	tf_wire_u32(b, n);
	for (uint32_t i = 0; i < n; i++)
		tf_wire_string(b, v[i]);
}

int tf_vm_spawn(struct tf_vm *vm, const struct tf_vm_command *cmd, uint32_t *ret_job,
	pid_t *ret_pid, struct tf_vm_error *err)
{
	static const char *const standard[] = {
		"PATH=/bin:/usr/bin:/tmp", "HOME=/", "TERM=dumb", NULL};
	struct tf_wire_buf body = {};
	struct tf_wire_reader r;
	char what[128];
	size_t mark;
	int rc;

	if (!cmd->argv || !cmd->argv[0])
		return tf_vm_fail(err, -EINVAL, "machine %s: empty command", vm->machine.name);
	snprintf(what, sizeof(what), "start '%s'", cmd->argv[0]);
	mark = tf_vm_request(vm, TF_AGENT_SPAWN);
	tf_wire_u32(&vm->out,
		(cmd->stdin_pipe ? TF_AGENT_SPAWN_STDIN : 0) | (cmd->tty ? TF_AGENT_SPAWN_TTY : 0));
	add_strings(&vm->out, cmd->argv);
	add_strings(&vm->out, cmd->env ? cmd->env : standard);
	tf_wire_string(&vm->out, cmd->cwd ? cmd->cwd : "/");
	rc = call(vm, mark, what, TF_VM_CALL_MS, &body, err);
	if (rc == 0) {
		uint32_t job, pid;

		r = reader(&body);
		job = tf_wire_get_u32(&r);
		pid = tf_wire_get_u32(&r);
		if (r.failed || !job)
			rc = malformed(vm, what, err);
		else
			*ret_job = job;
		if (rc == 0 && ret_pid)
			*ret_pid = (pid_t)pid;
	}
	tf_wire_done(&body);
	return rc;
}

int tf_vm_stdin(
	struct tf_vm *vm, uint32_t job, const void *data, size_t len, struct tf_vm_error *err)
{
	const uint8_t *at = data;
	int rc;

	do {
		size_t n = len < TF_AGENT_CHUNK ? len : TF_AGENT_CHUNK;
		size_t mark = tf_vm_request(vm, TF_AGENT_STDIN);

		tf_wire_u32(&vm->out, job);
		tf_wire_blob(&vm->out, at, n);
		rc = call(vm, mark, "stdin of a job", TF_VM_CALL_MS, NULL, err);
		at += n;
		len -= n;
	} while (rc == 0 && len);
	return rc;
}

int tf_vm_resize(struct tf_vm *vm, uint32_t job, unsigned int rows, unsigned int columns,
	struct tf_vm_error *err)
{
	size_t mark = tf_vm_request(vm, TF_AGENT_RESIZE);

	tf_wire_u32(&vm->out, job);
	tf_wire_u32(&vm->out, rows);
	tf_wire_u32(&vm->out, columns);
	return call(vm, mark, "size of a terminal", TF_VM_CALL_MS, NULL, err);
}

int tf_vm_signal(struct tf_vm *vm, uint32_t job, int signo, struct tf_vm_error *err)
{
	size_t mark = tf_vm_request(vm, TF_AGENT_SIGNAL);

	tf_wire_u32(&vm->out, job);
	tf_wire_u32(&vm->out, (uint32_t)signo);
	return call(vm, mark, "signal to a job", TF_VM_CALL_MS, NULL, err);
}

/* For a guest's random pool: of a run that is to be repeated they follow from its seed. */
static int random_bytes(uint64_t seed, uint8_t bytes[static SEED_BYTES], struct tf_vm_error *err)
{
	if (!seed && getrandom(bytes, SEED_BYTES, 0) != SEED_BYTES)
		return tf_vm_fail_errno(err, -errno, "getrandom");
	for (size_t i = 0; seed && i < SEED_BYTES; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		bytes[i] = (uint8_t)(seed >> 56);
	}
	return 0;
}

int tf_vm_setup(struct tf_vm *vm, const struct tf_vm_identity *id, struct tf_vm_error *err)
{
	struct tf_wire_buf body = {};
	struct tf_wire_reader r;
	uint8_t seed[SEED_BYTES];
	struct timespec now;
	char *step;
	size_t mark;
	int rc;

	rc = random_bytes(id->seed, seed, err);
	if (rc < 0)
		return rc;
	clock_gettime(CLOCK_REALTIME, &now);
	mark = tf_vm_request(vm, TF_AGENT_SETUP);
	tf_wire_string(&vm->out, id->host);
	tf_wire_bytes(&vm->out, id->ipv4, sizeof(id->ipv4));
	tf_wire_u8(&vm->out, id->prefix);
	tf_wire_bytes(&vm->out, id->mac, sizeof(id->mac));
	tf_wire_u64(&vm->out, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
	tf_wire_blob(&vm->out, seed, sizeof(seed));
	rc = call(vm, mark, "set up identity", TF_VM_CALL_MS, &body, err);
	explicit_bzero(seed, sizeof(seed));
	r = reader(&body);
	step = rc < 0 ? tf_wire_get_string(&r, 100) : NULL;
	if (step)
		tf_vm_fail_errno(
			err, rc, "machine %s: set up identity: %s", vm->machine.name, step);
	if (rc == 0)
		vm->id = *id;
	free(step);
	tf_wire_done(&body);
	return rc;
}

int tf_vm_poweroff(struct tf_vm *vm, int timeout_ms, struct tf_vm_error *err)
{
	int64_t deadline = tf_vm_now_ms() + timeout_ms;
	int rc = call(vm, tf_vm_request(vm, TF_AGENT_POWEROFF), "power off", timeout_ms, NULL, err);

	if (rc == -ECHILD)
		rc = 0;
	if (rc == 0 && !tf_vm_child_ended(vm->child, tf_vm_left_ms(deadline), NULL))
		rc = tf_vm_explain(vm, -ETIMEDOUT, "power off: QEMU does not end", err);
	return rc;
}

/* A run in progress: the job's events are taken out of the queue into @result. */
struct run {
	struct tf_vm_result *result;
	size_t max, cap[2];
	bool ended;
	bool no_memory;
};

static void collect(struct run *run, int stream, const void *data, size_t len)
{
	struct tf_vm_result *res = run->result;
	char **text = stream == 1 ? &res->out : &res->err;
	size_t *used = stream == 1 ? &res->out_len : &res->err_len;
	size_t *cap = &run->cap[stream - 1];

	if (len > run->max - *used) {
		len = run->max - *used;
		res->truncated = true;
	}
	if (*used + len + 1 > *cap) {
		size_t want = 2 * (*used + len) + 256;
		char *more = realloc(*text, want);

		if (!more) {
			run->no_memory = true;
			return;
		}
		*text = more;
		*cap = want;
	}
	if (len)
		memcpy(*text + *used, data, len);
	*used += len;
	(*text)[*used] = '\0';
}

static void take_event(struct run *run, struct tf_wire_message *m)
{
	uint32_t value = tf_wire_get_u32(&m->body);
	size_t len;
	const void *data;

	if (m->type == TF_AGENT_OUTPUT && !run->ended) {
		data = tf_wire_get_blob(&m->body, TF_AGENT_CHUNK, &len);
		if (data && (value == 1 || value == 2))
			collect(run, (int)value, data, len);
	} else if (m->type == TF_AGENT_EXIT) {
		run->ended = true;
		run->result->status = (int)value;
	}
}

/* Split the queue into our job's events and the others', which stay in order. */
static void take_events(struct tf_vm *vm, struct run *run)
{
	struct tf_wire_buf queue = vm->events;
	struct tf_wire_message m;
	bool closed = false;

	vm->events = (struct tf_wire_buf){};
	while (tf_wire_next(&queue, &m) > 0) {
		if (m.tag == run->result->job && !closed)
			take_event(run, &m);
		else
			tf_wire_bytes(&vm->events, queue.data + queue.start, m.size);
		closed |= m.tag == run->result->job && m.type == TF_AGENT_CLOSED;
		tf_wire_drop(&queue, m.size);
	}
	run->no_memory |= vm->events.failed;
	tf_wire_done(&queue);
	if (run->ended && !closed)
		tf_vm_mute(vm, run->result->job);
}

/* Wait for the job's end: -ETIMEDOUT without a text if it does not come. */
static int await_end(struct tf_vm *vm, struct run *run, int64_t deadline, struct tf_vm_error *err)
{
	int rc;

	for (;;) {
		rc = tf_vm_sort_events(vm, err);
		if (rc < 0)
			return rc;
		if (tf_wire_size(&vm->events))
			take_events(vm, run);
		if (run->no_memory)
			return tf_vm_fail(err, -ENOMEM, "no memory for a command's output");
		if (run->ended)
			return 0;
		rc = tf_vm_receive(vm, tf_vm_left_ms(deadline));
		if (rc == -ETIMEDOUT)
			return rc;
		if (rc < 0)
			return tf_vm_explain(vm, rc, "waiting for a command", err);
	}
}

int tf_vm_run(struct tf_vm *vm, const struct tf_vm_command *cmd, size_t max_bytes, int timeout_ms,
	struct tf_vm_result *ret, struct tf_vm_error *err)
{
	struct run run = {.result = ret, .max = max_bytes};
	int64_t start = tf_vm_now_ms();
	int rc;

	*ret = (struct tf_vm_result){.status = -1};
	collect(&run, 1, "", 0);
	collect(&run, 2, "", 0);
	if (run.no_memory)
		return tf_vm_fail(err, -ENOMEM, "no memory for a command's output");
	rc = tf_vm_spawn(vm, cmd, &ret->job, NULL, err);
	if (rc < 0)
		return rc;
	if (cmd->stdin_pipe)
		rc = tf_vm_stdin(vm, ret->job, "", 0, err);
	if (rc == 0)
		rc = await_end(vm, &run, start + timeout_ms, err);
	if (rc == -ETIMEDOUT && !vm->gone) {
		struct tf_vm_error ignored;

		rc = tf_vm_signal(vm, ret->job, 9, &ignored);
		if (rc == 0)
			await_end(vm, &run, tf_vm_now_ms() + 10000, &ignored);
		rc = tf_vm_fail(err, -ETIMEDOUT,
			"machine %s: '%s' did not end in %d ms and was "
			"killed; its last output: %.200s",
			vm->machine.name, cmd->argv[0], timeout_ms,
			ret->err_len ? ret->err : ret->out);
	}
	if (!run.ended)
		tf_vm_mute(vm, ret->job);
	ret->elapsed_ms = (int)(tf_vm_now_ms() - start);
	tf_vm_update_wake(vm);
	return rc;
}

/* Where the bytes of a file come from: memory or a descriptor. */
struct source {
	const uint8_t *data;
	int fd;
	size_t size;
};

static int send_piece(struct tf_vm *vm, const struct source *src, size_t offset, const char *path,
	mode_t mode, const char *what, struct tf_vm_error *err)
{
	size_t n = src->size - offset < TF_AGENT_CHUNK ? src->size - offset : TF_AGENT_CHUNK;
	uint32_t flags = (offset ? 0 : TF_AGENT_PUT_FIRST) |
			 (offset + n == src->size ? TF_AGENT_PUT_LAST : 0);
	uint8_t buf[TF_AGENT_CHUNK];
	const uint8_t *data = src->data ? src->data + offset : buf;
	size_t mark;
	int rc;

	if (!src->data && pread(src->fd, buf, n, (off_t)offset) != (ssize_t)n)
		return tf_vm_fail(err, -EIO, "%s: the host's file became shorter", what);
	mark = tf_vm_request(vm, TF_AGENT_PUT);
	tf_wire_u32(&vm->out, flags);
	tf_wire_u32(&vm->out, mode);
	tf_wire_string(&vm->out, path);
	tf_wire_u64(&vm->out, offset);
	tf_wire_blob(&vm->out, data, n);
	rc = tf_wire_end(&vm->out, mark);
	return rc < 0 ? tf_vm_fail_errno(err, rc, "%s", what) : 0;
}

/* Replies come in the order of the requests, so the window is a range of tags. */
static int put(struct tf_vm *vm, const struct source *src, const char *path, mode_t mode,
	struct tf_vm_error *err)
{
	uint32_t tags[WINDOW];
	size_t sent = 0, waited = 0, offset = 0;
	bool last = false;
	char what[160];
	int rc = 0;

	snprintf(what, sizeof(what), "put %.150s", path);
	while (rc == 0 && (!last || waited < sent)) {
		if (!last && sent - waited < WINDOW) {
			rc = send_piece(vm, src, offset, path, mode, what, err);
			if (rc < 0)
				break;
			tags[sent++ % WINDOW] = vm->last_tag;
			offset += TF_AGENT_CHUNK;
			last = offset >= src->size;
			continue;
		}
		rc = tf_vm_reply(vm, tags[waited++ % WINDOW], what, TF_VM_CALL_MS, NULL, err);
	}
	while (rc < 0 && !vm->gone && waited < sent) {
		struct tf_vm_error ignored;

		if (tf_vm_reply(vm, tags[waited++ % WINDOW], what, TF_VM_CALL_MS, NULL, &ignored) ==
			-ETIMEDOUT)
			break;
	}
	return rc;
}

int tf_vm_put_data(struct tf_vm *vm, const void *data, size_t len, const char *guest_path,
	mode_t mode, struct tf_vm_error *err)
{
	struct source src = {.data = data ? data : "", .fd = -1, .size = len};

	return put(vm, &src, guest_path, mode, err);
}

int tf_vm_put(struct tf_vm *vm, const char *host_path, const char *guest_path, mode_t mode,
	struct tf_vm_error *err)
{
	tf_vm_autoclose int fd = open(host_path, O_RDONLY | O_CLOEXEC);
	struct source src = {.fd = fd};
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return tf_vm_fail_errno(err, -errno, "put: open %s", host_path);
	if (!S_ISREG(st.st_mode))
		return tf_vm_fail(err, -EINVAL, "put: %s is not a regular file", host_path);
	src.size = (size_t)st.st_size;
	return put(vm, &src, guest_path, mode, err);
}

/* Fetch one piece, appended to @to; *@ret_n 0 at the end of the file. */
static int get_piece(struct tf_vm *vm, const char *path, uint64_t offset, struct tf_wire_buf *to,
	size_t *ret_n, struct tf_vm_error *err)
{
	struct tf_wire_buf body = {};
	size_t mark = tf_vm_request(vm, TF_AGENT_GET);
	struct tf_wire_reader r;
	char what[160];
	const void *data;
	int rc;

	snprintf(what, sizeof(what), "get %.150s", path);
	tf_wire_string(&vm->out, path);
	tf_wire_u64(&vm->out, offset);
	tf_wire_u32(&vm->out, TF_AGENT_CHUNK);
	rc = call(vm, mark, what, TF_VM_CALL_MS, &body, err);
	if (rc == 0) {
		r = reader(&body);
		data = tf_wire_get_blob(&r, TF_AGENT_CHUNK, ret_n);
		if (!data)
			rc = malformed(vm, what, err);
		else
			tf_wire_bytes(to, data, *ret_n);
		if (to->failed)
			rc = tf_vm_fail(err, -ENOMEM, "%s: no memory", what);
	}
	tf_wire_done(&body);
	return rc;
}

int tf_vm_get_data(struct tf_vm *vm, const char *guest_path, size_t max_bytes, char **ret_data,
	size_t *ret_len, struct tf_vm_error *err)
{
	struct tf_wire_buf all = {};
	size_t n = 1;
	int rc = 0;

	while (rc == 0 && n) {
		rc = get_piece(vm, guest_path, tf_wire_size(&all), &all, &n, err);
		if (rc == 0 && tf_wire_size(&all) > max_bytes)
			rc = tf_vm_fail(
				err, -EFBIG, "get %s: more than %zu bytes", guest_path, max_bytes);
	}
	*ret_len = tf_wire_size(&all);
	tf_wire_u8(&all, 0);
	if (rc == 0 && all.failed)
		rc = tf_vm_fail(err, -ENOMEM, "get %s: no memory", guest_path);
	if (rc < 0)
		tf_wire_done(&all);
	else
		*ret_data = (char *)all.data;
	return rc;
}

static int write_piece(
	int fd, const struct tf_wire_buf *piece, const char *path, struct tf_vm_error *err)
{
	int rc = tf_vm_write_all(fd, piece->data + piece->start, tf_wire_size(piece));

	return rc < 0 ? tf_vm_fail_errno(err, rc, "get: write %s", path) : 0;
}

int tf_vm_get(
	struct tf_vm *vm, const char *guest_path, const char *host_path, struct tf_vm_error *err)
{
	tf_vm_autofree char *temp = tf_vm_format("%s.tmp.%d", host_path, (int)getpid());
	tf_vm_autoclose int fd = -1;
	struct tf_wire_buf piece = {};
	uint64_t offset = 0;
	size_t n = 1;
	int rc = 0;

	if (!temp)
		return tf_vm_fail(err, -ENOMEM, "no memory");
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return tf_vm_fail_errno(err, -errno, "get: create %s", temp);
	while (rc == 0 && n) {
		rc = get_piece(vm, guest_path, offset, &piece, &n, err);
		if (rc == 0 && n)
			rc = write_piece(fd, &piece, host_path, err);
		offset += n;
		tf_wire_drop(&piece, tf_wire_size(&piece));
	}
	tf_wire_done(&piece);
	if (rc == 0 && rename(temp, host_path) < 0)
		rc = tf_vm_fail_errno(err, -errno, "get: rename to %s", host_path);
	if (rc < 0)
		unlink(temp);
	return rc;
}
