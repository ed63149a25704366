/* SPDX-License-Identifier: MIT */
/*
 * The channel to a guest's agent, from the host: bytes out and in, replies to those who wait
 * for them, events into a queue, the queue to callbacks.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "qemu/agent.h"
#include "qemu/vm_impl.h"

#define READ_SIZE (256 * 1024)

static int watch(struct tf_vm *vm, int fd)
{
	struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};

	return epoll_ctl(vm->epoll, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

int tf_vm_channel_init(struct tf_vm *vm, int ctl)
{
	int rc;

	vm->ctl = ctl;
	fcntl(ctl, F_SETFL, O_NONBLOCK);
	vm->epoll = epoll_create1(EPOLL_CLOEXEC);
	vm->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (vm->epoll < 0 || vm->wake < 0)
		return -errno;
	rc = watch(vm, ctl);
	if (rc == 0)
		rc = watch(vm, vm->wake);
	if (rc == 0)
		rc = watch(vm, tf_vm_child_poll_fd(vm->child));
	return rc;
}

void tf_vm_channel_done(struct tf_vm *vm)
{
	tf_vm_close_fd(&vm->epoll);
	tf_vm_close_fd(&vm->wake);
	tf_vm_close_fd(&vm->ctl);
	tf_wire_done(&vm->in);
	tf_wire_done(&vm->out);
	tf_wire_done(&vm->events);
}

void tf_vm_update_wake(struct tf_vm *vm)
{
	struct tf_wire_message m;
	uint64_t one = 1;

	if (tf_wire_size(&vm->events) || tf_wire_next(&vm->in, &m))
		(void)!write(vm->wake, &one, sizeof(one));
	else
		(void)!read(vm->wake, &one, sizeof(one));
}

void tf_vm_mute(struct tf_vm *vm, uint32_t job)
{
	for (size_t i = 0; i < TF_VM_MAX_MUTED; i++) {
		if (!vm->muted[i]) {
			vm->muted[i] = job;
			return;
		}
	}
}

/* True if nobody wants events of this job; the end of the job ends that. */
static bool is_muted(struct tf_vm *vm, const struct tf_wire_message *m)
{
	for (size_t i = 0; i < TF_VM_MAX_MUTED; i++) {
		if (!vm->muted[i] || vm->muted[i] != m->tag)
			continue;
		if (m->type == TF_AGENT_CLOSED)
			vm->muted[i] = 0;
		return true;
	}
	return false;
}

static void flush(struct tf_vm *vm)
{
	while (tf_wire_size(&vm->out) && !vm->gone) {
		ssize_t n = send(vm->ctl, vm->out.data + vm->out.start, tf_wire_size(&vm->out),
			MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0 && errno != EINTR)
			vm->gone = true;
		if (n > 0)
			tf_wire_drop(&vm->out, (size_t)n);
	}
}

/* Take in one piece of what is there. */
static int fill(struct tf_vm *vm)
{
	uint8_t *room = tf_wire_room(&vm->in, READ_SIZE);
	ssize_t n;

	if (!room)
		return -ENOMEM;
	n = recv(vm->ctl, room, READ_SIZE, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		vm->gone = true;
	else
		tf_wire_grew(&vm->in, (size_t)n);
	return 0;
}

int tf_vm_receive(struct tf_vm *vm, int timeout_ms)
{
	struct pollfd p = {.fd = vm->ctl, .events = POLLIN};

	flush(vm);
	if (vm->gone)
		return -ECHILD;
	if (tf_wire_size(&vm->out))
		p.events |= POLLOUT;
	if (poll(&p, 1, timeout_ms) == 0)
		return -ETIMEDOUT;
	return p.revents & ~POLLOUT ? fill(vm) : 0;
}

/* Keep an event for later; bounded, since it is a guest that decides how much it sends. */
static int keep_event(struct tf_vm *vm, const struct tf_wire_message *m)
{
	if (m->type < TF_AGENT_OUTPUT || m->type > TF_AGENT_CLOSED)
		return m->type == TF_AGENT_REPLY ? 0 : -EPROTO;
	if (is_muted(vm, m))
		return 0;
	if (tf_wire_size(&vm->events) > TF_VM_MAX_EVENTS)
		return -ENOBUFS;
	tf_wire_bytes(&vm->events, vm->in.data + vm->in.start, m->size);
	return vm->events.failed ? -ENOMEM : 0;
}

/*
 * Sort what is in vm->in: events to the queue, late replies away. 1 if the reply to @tag is
 * there: *@ret_status is set, and its body appended to @body.
 */
static int sort(struct tf_vm *vm, uint32_t tag, int *ret_status, struct tf_wire_buf *body)
{
	struct tf_wire_message m;
	int rc;

	while ((rc = tf_wire_next(&vm->in, &m)) > 0) {
		bool ours = tag && m.type == TF_AGENT_REPLY && m.tag == tag;

		if (ours) {
			*ret_status = (int)tf_wire_get_u32(&m.body);
			if (m.body.failed || *ret_status > 0)
				rc = -EPROTO;
			else if (body)
				tf_wire_bytes(body, m.body.at, m.body.left);
		} else {
			rc = keep_event(vm, &m);
		}
		if (rc == -ENOBUFS)
			return rc;
		tf_wire_drop(&vm->in, m.size);
		if (rc < 0 || ours)
			return rc < 0 ? rc : 1;
	}
	return rc == -EBADMSG ? -EPROTO : rc;
}

static int explain(struct tf_vm *vm, int rc, const char *what, struct tf_vm_error *err)
{
	char text[320];

	if (rc == -ENOBUFS)
		return tf_vm_fail(err, rc,
			"machine %s: %s: more than %u MiB of undelivered job "
			"output; call tf_vm_dispatch in between",
			vm->machine.name, what, TF_VM_MAX_EVENTS >> 20);
	if (rc == -ETIMEDOUT)
		snprintf(text, sizeof(text), "%s: the agent does not answer in time", what);
	else if (rc == -ECHILD)
		snprintf(text, sizeof(text), "%s: the channel to the agent closed", what);
	else
		snprintf(text, sizeof(text), "%s: channel to the agent: %s", what, strerror(-rc));
	return tf_vm_explain(vm, rc, text, err);
}

size_t tf_vm_request(struct tf_vm *vm, uint16_t type)
{
	if (!++vm->last_tag)
		++vm->last_tag;
	return tf_wire_begin(&vm->out, type, vm->last_tag);
}

int tf_vm_reply(struct tf_vm *vm, uint32_t tag, const char *what, int timeout_ms,
	struct tf_wire_buf *ret_body, struct tf_vm_error *err)
{
	int64_t deadline = tf_vm_now_ms() + timeout_ms;
	int status = 0, rc;

	while ((rc = sort(vm, tag, &status, ret_body)) == 0) {
		rc = tf_vm_receive(vm, tf_vm_left_ms(deadline));
		if (rc < 0)
			break;
	}
	tf_vm_update_wake(vm);
	if (rc < 0)
		return explain(vm, rc, what, err);
	if (status < 0)
		return tf_vm_fail_errno(err, status, "machine %s: %s", vm->machine.name, what);
	return 0;
}

int tf_vm_sort_events(struct tf_vm *vm, struct tf_vm_error *err)
{
	int status, rc = sort(vm, 0, &status, NULL);

	return rc < 0 ? explain(vm, rc, "waiting for a command", err) : 0;
}

static int deliver(struct tf_vm *vm, const struct tf_vm_callbacks *cb, struct tf_wire_message *m)
{
	uint32_t value = m->type == TF_AGENT_CLOSED ? 0 : tf_wire_get_u32(&m->body);
	const void *data;
	size_t len;

	if (m->type == TF_AGENT_OUTPUT) {
		data = tf_wire_get_blob(&m->body, TF_AGENT_CHUNK, &len);
		if (!data || !cb->output || value < 1 || value > 2)
			return 0;
		cb->output(cb->arg, vm, m->tag, (int)value, data, len);
		return 1;
	}
	if (m->type == TF_AGENT_EXIT && cb->exit) {
		cb->exit(cb->arg, vm, m->tag, (int)value);
		return 1;
	}
	if (m->type == TF_AGENT_CLOSED && cb->closed) {
		cb->closed(cb->arg, vm, m->tag);
		return 1;
	}
	return 0;
}

/* Callbacks may make requests, which queue new events; so the queue is taken away first. */
static int deliver_all(struct tf_vm *vm, const struct tf_vm_callbacks *cb)
{
	int count = 0;

	while (tf_wire_size(&vm->events)) {
		struct tf_wire_buf queue = vm->events;
		struct tf_wire_message m;

		vm->events = (struct tf_wire_buf){};
		while (tf_wire_next(&queue, &m) > 0) {
			count += deliver(vm, cb, &m);
			tf_wire_drop(&queue, m.size);
		}
		tf_wire_done(&queue);
	}
	return count;
}

/* Take in a bounded amount at a time: the caller has other machines, too. */
static int take_in(struct tf_vm *vm)
{
	int status, rc = 0;

	for (int i = 0; i < 16; i++) {
		rc = sort(vm, 0, &status, NULL);
		if (rc == 0)
			rc = tf_vm_receive(vm, 0);
		if (rc < 0)
			return rc;
	}
	return sort(vm, 0, &status, NULL);
}

int tf_vm_dispatch(struct tf_vm *vm, const struct tf_vm_callbacks *cb)
{
	struct tf_vm_error why;
	int count = deliver_all(vm, cb);
	int rc = take_in(vm);

	count += deliver_all(vm, cb);
	tf_vm_update_wake(vm);
	if (rc == -ETIMEDOUT && tf_vm_dead(vm, NULL))
		rc = -ECHILD;
	if (rc == 0 || rc == -ETIMEDOUT)
		return count;
	if (!vm->told) {
		vm->told = true;
		epoll_ctl(vm->epoll, EPOLL_CTL_DEL, vm->ctl, NULL);
		epoll_ctl(vm->epoll, EPOLL_CTL_DEL, tf_vm_child_poll_fd(vm->child), NULL);
		explain(vm, rc, "waiting for events", &why);
		if (cb->dead)
			cb->dead(cb->arg, vm, &why);
		return count + 1;
	}
	return rc;
}

int tf_vm_fd(const struct tf_vm *vm)
{
	return vm->epoll;
}

int tf_vm_wait(
	struct tf_vm *const vms[], size_t n, const struct tf_vm_callbacks *cb, int timeout_ms)
{
	int64_t deadline = tf_vm_now_ms() + timeout_ms;
	struct pollfd *fds = calloc(n ? n : 1, sizeof(*fds));
	int count = 0;
	bool late = false;

	if (!fds)
		return -ENOMEM;
	while (!count && !late) {
		size_t living = 0;

		for (size_t i = 0; i < n; i++) {
			bool ok = vms[i] && !vms[i]->told;

			fds[i] = (struct pollfd){.fd = ok ? vms[i]->epoll : -1, .events = POLLIN};
			living += ok;
		}
		if (!living) {
			count = -ECHILD;
			break;
		}
		late = poll(fds, n, tf_vm_left_ms(deadline)) == 0;
		for (size_t i = 0; i < n; i++) {
			int rc = vms[i] && fds[i].fd >= 0 && fds[i].revents
					 ? tf_vm_dispatch(vms[i], cb)
					 : 0;

			count += rc > 0 ? rc : 0;
		}
	}
	free(fds);
	return count;
}
