/* SPDX-License-Identifier: MIT */
/*
 * The agent's loop: bytes from the port become requests, requests get one reply each, jobs'
 * output becomes events. Requests come first in every round and each job moves a bounded
 * amount in it, so that no job keeps the host waiting. When the host does not read, jobs'
 * pipes are left alone and the kernel stops their writers.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "qemu/agent.h"
#include "qemu/guest/guest.h"

/* Replies are kept even beyond the limit for output; above this requests wait, too. */
#define OUT_HARD_LIMIT (4 * GUEST_OUT_LIMIT)

bool guest_has_room(const struct guest *g)
{
	return tf_wire_size(&g->out) < GUEST_OUT_LIMIT;
}

size_t guest_reply_begin(struct guest *g, uint32_t tag, int status)
{
	size_t mark = tf_wire_begin(&g->out, TF_AGENT_REPLY, tag);

	tf_wire_u32(&g->out, (uint32_t)status);
	return mark;
}

void guest_reply_end(struct guest *g, size_t mark, uint32_t tag)
{
	int rc = tf_wire_end(&g->out, mark);

	if (rc < 0)
		guest_reply(g, tag, rc);
}

void guest_reply(struct guest *g, uint32_t tag, int status)
{
	size_t mark = guest_reply_begin(g, tag, status);

	if (tf_wire_end(&g->out, mark) < 0)
		guest_log("no memory for a reply");
}

static void ping(struct guest *g, uint32_t tag, struct tf_wire_reader *r)
{
	size_t len, mark;
	const void *data = tf_wire_get_blob(r, TF_AGENT_CHUNK, &len);

	if (!data) {
		guest_reply(g, tag, -EBADMSG);
		return;
	}
	mark = guest_reply_begin(g, tag, 0);
	tf_wire_u32(&g->out, TF_AGENT_VERSION);
	tf_wire_blob(&g->out, data, len);
	guest_reply_end(g, mark, tag);
}

/* The reply goes out by a blocking write, then the machine goes. */
static void power_off(struct guest *g, uint32_t tag)
{
	guest_reply(g, tag, 0);
	fcntl(g->port, F_SETFL, 0);
	while (tf_wire_size(&g->out)) {
		ssize_t n = write(g->port, g->out.data + g->out.start, tf_wire_size(&g->out));

		if (n <= 0)
			break;
		tf_wire_drop(&g->out, (size_t)n);
	}
	sync();
	reboot(RB_POWER_OFF);
}

static void handle(struct guest *g, struct tf_wire_message *m)
{
	switch (m->type) {
	case TF_AGENT_PING:
		ping(g, m->tag, &m->body);
		break;
	case TF_AGENT_SPAWN:
		guest_spawn(g, m->tag, &m->body);
		break;
	case TF_AGENT_STDIN:
		guest_stdin(g, m->tag, &m->body);
		break;
	case TF_AGENT_SIGNAL:
		guest_signal(g, m->tag, &m->body);
		break;
	case TF_AGENT_RESIZE:
		guest_resize(g, m->tag, &m->body);
		break;
	case TF_AGENT_PUT:
		guest_put(g, m->tag, &m->body);
		break;
	case TF_AGENT_GET:
		guest_get(g, m->tag, &m->body);
		break;
	case TF_AGENT_SETUP:
		guest_setup(g, m->tag, &m->body);
		break;
	case TF_AGENT_POWEROFF:
		power_off(g, m->tag);
		break;
	default:
		guest_reply(g, m->tag, -ENOSYS);
		break;
	}
}

/* Requests beyond the hard limit stay in `in`; they are served once the host has read. */
static void serve_requests(struct guest *g)
{
	struct tf_wire_message m;
	int rc;

	while (tf_wire_size(&g->out) < OUT_HARD_LIMIT) {
		rc = tf_wire_next(&g->in, &m);
		if (rc < 0) {
			guest_log("malformed message of the host: input thrown away");
			tf_wire_drop(&g->in, tf_wire_size(&g->in));
		}
		if (rc <= 0)
			break;
		handle(g, &m);
		tf_wire_drop(&g->in, m.size);
	}
}

static bool wants_input(const struct guest *g)
{
	return tf_wire_size(&g->in) < 4 * TF_AGENT_MAX_PAYLOAD;
}

static void read_port(struct guest *g)
{
	while (wants_input(g)) {
		uint8_t *room = tf_wire_room(&g->in, 32 * 1024);
		ssize_t n;

		if (!room)
			return;
		n = read(g->port, room, 32 * 1024);
		if (n <= 0)
			return;
		tf_wire_grew(&g->in, (size_t)n);
	}
}

static void write_port(struct guest *g)
{
	while (tf_wire_size(&g->out)) {
		ssize_t n = write(g->port, g->out.data + g->out.start, tf_wire_size(&g->out));

		if (n <= 0)
			return;
		tf_wire_drop(&g->out, (size_t)n);
	}
}

/*
 * A port whose host side is closed polls as hung up all the time; instead of looking again
 * and again the port is left out until SIGIO says that something changed.
 */
static void set_hup(struct guest *g, bool hup)
{
	if (g->hup == hup)
		return;
	g->hup = hup;
	fcntl(g->port, F_SETFL, O_NONBLOCK | (hup ? O_ASYNC : 0));
	if (hup)
		tf_wire_drop(&g->in, tf_wire_size(&g->in));
}

static void read_signals(struct guest *g)
{
	struct signalfd_siginfo info[16];
	ssize_t n;

	while ((n = read(g->signals, info, sizeof(info))) > 0) {
		for (size_t i = 0; i < (size_t)n / sizeof(info[0]); i++) {
			if (info[i].ssi_signo == SIGIO)
				set_hup(g, false);
		}
	}
	guest_jobs_reap();
}

static void open_signals(struct guest *g)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGIO);
	sigprocmask(SIG_BLOCK, &set, NULL);
	g->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (g->signals < 0)
		guest_log("signalfd: %s", strerror(errno));
	fcntl(g->port, F_SETOWN, getpid());
}

void guest_serve(int port)
{
	static struct guest g;
	static struct pollfd fds[2 + GUEST_JOB_POLLS];

	g.port = port;
	open_signals(&g);
	for (;;) {
		size_t n = 2 + guest_jobs_poll(&g, fds + 2);

		fds[0] = (struct pollfd){.fd = g.signals, .events = POLLIN};
		fds[1] = (struct pollfd){.fd = g.hup ? -1 : port};
		if (wants_input(&g))
			fds[1].events |= POLLIN;
		if (tf_wire_size(&g.out))
			fds[1].events |= POLLOUT;
		if (poll(fds, n, guest_jobs_due(&g) ? 0 : -1) < 0 && errno != EINTR)
			guest_log("poll: %s", strerror(errno));
		if (fds[0].revents)
			read_signals(&g);
		if (fds[1].revents & POLLHUP)
			set_hup(&g, true);
		if (fds[1].revents & POLLIN)
			read_port(&g);
		serve_requests(&g);
		guest_jobs_move(&g);
		if (!g.hup)
			write_port(&g);
	}
}
