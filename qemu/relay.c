/* SPDX-License-Identifier: MIT */
/*
 * The relay process of a link: a learning switch between streams of frames. A guest that does
 * not take its frames loses those that do not fit into its queue, as on a real switch; nobody
 * else waits for it. Delayed frames stand in one list ordered by the time they are due.
 *
 * It is forked from a possibly threaded program; glibc's fork makes malloc usable here.
 */
#include "qemu/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "qemu/io.h"
#include "qemu/switch.h"
#include "qemu/wire.h"

#define MAX_PORTS   64
#define QUEUE_LIMIT (4u << 20)  /* bytes waiting for one guest */
#define DELAY_LIMIT (32u << 20) /* bytes in the list of delayed frames */
#define READ_SIZE   (128 * 1024)
#define MAX_MUTE    16 /* conversations that fell silent */

struct port {
	int fd; /* -1: free */
	uint8_t mac[6];
	uint64_t frames; /* since the last order */
	int64_t free_us; /* see tf_link_pace */
	struct tf_wire_buf in, out;
};

/* A frame that waits for its time, with its 4-byte prefix. */
struct delayed {
	struct delayed *next;
	int64_t due_us;
	int from;
	size_t size;
	uint8_t data[];
};

/* The conversation to which something is to happen. */
struct watch {
	bool begun;
	uint8_t ends[2][6];
	uint32_t next[2]; /* number of the byte that comes next */
	struct tf_link_talk talk;
};

static struct tf_relay *relay;
static struct port ports[MAX_PORTS];
static struct tf_link_table table;
static struct delayed *delayed;
static size_t delayed_bytes;
static struct watch watch;
static uint8_t mute[MAX_MUTE][2][6];
static unsigned n_mute;

static void drop_port(int i)
{
	close(ports[i].fd);
	ports[i].fd = -1;
	tf_wire_done(&ports[i].in);
	tf_wire_done(&ports[i].out);
	tf_link_forget(&table, i);
	relay->stats.guests--;
}

static void queue_to(int i, const uint8_t *data, size_t size)
{
	struct port *p = &ports[i];

	if (p->fd < 0)
		return;
	if (tf_wire_size(&p->out) + size > QUEUE_LIMIT) {
		relay->stats.overflowed++;
		return;
	}
	tf_wire_bytes(&p->out, data, size);
	if (p->out.failed)
		drop_port(i);
}

/* Bring a frame (with its prefix) to where it belongs, but not across a partition. */
static void deliver(int from, const uint8_t *data, size_t size)
{
	int to = tf_link_lookup(&table, data + 4);

	if (to == TF_LINK_FLOOD)
		relay->stats.flooded++;
	for (int i = 0; i < MAX_PORTS; i++) {
		if (i == from || (to != TF_LINK_FLOOD && i != to) || ports[i].fd < 0)
			continue;
		if (tf_link_apart(&relay->faults, data[4 + 11], ports[i].mac[5]))
			relay->stats.dropped++;
		else
			queue_to(i, data, size);
	}
}

static void delay(int from, const uint8_t *data, size_t size, int64_t due_us)
{
	struct delayed *d = delayed_bytes + size > DELAY_LIMIT ? NULL : malloc(sizeof(*d) + size);
	struct delayed **at = &delayed;

	if (!d) {
		relay->stats.overflowed++;
		return;
	}
	d->due_us = due_us;
	d->from = from;
	d->size = size;
	memcpy(d->data, data, size);
	while (*at && (*at)->due_us <= d->due_us)
		at = &(*at)->next;
	d->next = *at;
	*at = d;
	delayed_bytes += size;
}

static void deliver_due(void)
{
	int64_t now = delayed ? tf_vm_now_us() : 0;

	while (delayed && delayed->due_us <= now) {
		struct delayed *d = delayed;

		delayed = d->next;
		delayed_bytes -= d->size;
		deliver(d->from, d->data, d->size);
		free(d);
	}
}

static bool is_muted(const struct tf_link_tcp *tcp)
{
	for (unsigned i = 0; i < n_mute && i < MAX_MUTE; i++)
		for (int side = 0; side < 2; side++)
			if (!memcmp(mute[i][side], tcp->ends[0], 6) &&
				!memcmp(mute[i][!side], tcp->ends[1], 6))
				return true;
	return false;
}

static void strike(int from)
{
	if (tf_relay_strike(relay, &watch.talk, from) != TF_LINK_HOLD)
		memcpy(mute[n_mute++ % MAX_MUTE], watch.ends, sizeof(watch.ends));
}

/* Follows the conversation that is watched; false if this frame does not come through. What was
 * said before, and is said again, passes. */
static bool follow(const struct tf_link_tcp *tcp)
{
	int32_t fresh;
	int side;

	if (tcp->opens && !watch.begun) {
		watch.begun = true;
		memcpy(watch.ends, tcp->ends, sizeof(watch.ends));
	}
	side = !memcmp(watch.ends[0], tcp->ends[0], 6) ? 0 : 1;
	if (!watch.begun || memcmp(watch.ends[side], tcp->ends[0], 6) != 0 ||
		memcmp(watch.ends[!side], tcp->ends[1], 6) != 0)
		return true;
	if (tcp->syn)
		watch.next[side] = tcp->seq + 1;
	fresh = (int32_t)(tcp->seq + tcp->size - watch.next[side]);
	if (!tcp->size || fresh <= 0)
		return true;
	if (tf_link_may_pass(&watch.talk, &relay->faults.moment, side + 1, (size_t)fresh) <
		(size_t)fresh) {
		strike(side + 1);
		return false;
	}
	tf_link_passed(&watch.talk, side + 1, (size_t)fresh);
	watch.next[side] += (uint32_t)fresh;
	return true;
}

/* Whether nothing stands against this frame but chance. */
static bool passes(const uint8_t *frame, size_t size)
{
	struct tf_link_tcp tcp;

	if (!(relay->faults.what || n_mute) || !tf_link_read_tcp(frame, size, &tcp))
		return true;
	return !is_muted(&tcp) && (!relay->faults.what || follow(&tcp));
}

static void take_frame(int from, const uint8_t *data, size_t size)
{
	struct port *p = &ports[from];
	struct tf_link_fate fate;
	int64_t now = tf_vm_now_us(), due;
	uint64_t key = 0;

	relay->stats.frames++;
	relay->stats.bytes += size - 4;
	memcpy(p->mac, data + 4 + 6, 6);
	tf_link_learn(&table, p->mac, from);
	if (relay->faults.cut || relay->held || relay->dead) {
		relay->stats.dropped++;
		return;
	}
	memcpy(&key, p->mac, 6);
	fate = tf_link_fate(&relay->faults, key, p->frames++);
	if (fate.lost || !passes(data + 4, size - 4)) {
		relay->stats.dropped++;
		return;
	}
	relay->stats.duplicated += fate.twice;
	due = tf_link_pace(&relay->faults, &p->free_us, now, size) + fate.late_us;
	for (int left = fate.twice ? 2 : 1; left; left--) {
		if (due > now)
			delay(from, data, size, due);
		else
			deliver(from, data, size);
	}
}

static void read_port(int i)
{
	struct port *p = &ports[i];
	uint8_t *room = tf_wire_room(&p->in, READ_SIZE);
	ssize_t n = room ? recv(p->fd, room, READ_SIZE, MSG_DONTWAIT) : 0;
	int size = 0;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0) {
		tf_wire_grew(&p->in, (size_t)n);
		while (p->fd >= 0 && (size = tf_link_next_frame(p->in.data + p->in.start,
					      tf_wire_size(&p->in))) > 0) {
			take_frame(i, p->in.data + p->in.start, (size_t)size + 4);
			tf_wire_drop(&p->in, (size_t)size + 4);
		}
	}
	if (p->fd >= 0 && (n <= 0 || size < 0))
		drop_port(i);
}

static void write_port(int i)
{
	struct port *p = &ports[i];

	while (p->fd >= 0 && tf_wire_size(&p->out)) {
		ssize_t n = send(p->fd, p->out.data + p->out.start, tf_wire_size(&p->out),
			MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0)
			drop_port(i);
		else
			tf_wire_drop(&p->out, (size_t)n);
	}
}

static void accept_guest(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	for (int i = 0; fd >= 0 && i < MAX_PORTS; i++) {
		if (ports[i].fd < 0) {
			ports[i] = (struct port){.fd = fd};
			relay->stats.guests++;
			return;
		}
	}
	if (fd >= 0)
		close(fd);
}

void tf_relay_obey(struct tf_relay *r, bool *ret_changed)
{
	struct tf_relay_order order;
	uint64_t struck;
	ssize_t n = recv(r->control, &order, sizeof(order), MSG_DONTWAIT);

	*ret_changed = false;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n != (ssize_t)sizeof(order))
		_exit(0);
	if (order.op == TF_RELAY_FAULTS) {
		r->faults = order.faults;
		r->held = false;
		r->dead = TF_LINK_WHOLE;
		(void)!read(r->struck, &struck, sizeof(struck));
		*ret_changed = true;
	}
	if (send(r->control, &r->stats, sizeof(r->stats), MSG_NOSIGNAL) !=
		(ssize_t)sizeof(r->stats))
		_exit(0);
}

enum tf_link_break tf_relay_strike(struct tf_relay *r, const struct tf_link_talk *t, int from)
{
	enum tf_link_break what = r->faults.what;
	uint64_t one = 1;

	r->stats.struck++;
	r->stats.message = tf_link_message(t, from);
	r->faults.what = TF_LINK_WHOLE;
	r->held = what == TF_LINK_HOLD;
	r->dead = r->faults.for_good && !r->held ? what : TF_LINK_WHOLE;
	(void)!write(r->struck, &one, sizeof(one));
	return what;
}

/* Chance begins anew with every order. */
static void forget(void)
{
	watch = (struct watch){0};
	for (int i = 0; i < MAX_PORTS; i++)
		ports[i].frames = 0;
}

static void wait_work(struct pollfd fds[static 2 + MAX_PORTS])
{
	struct timespec ts, *limit = NULL;

	for (int i = 0; i < MAX_PORTS; i++) {
		short out = tf_wire_size(&ports[i].out) ? POLLOUT : 0;

		fds[2 + i] = (struct pollfd){.fd = ports[i].fd, .events = (short)(POLLIN | out)};
	}
	if (delayed) {
		int64_t us = delayed->due_us - tf_vm_now_us();

		us = us > 0 ? us : 0;
		ts = (struct timespec){us / 1000000, us % 1000000 * 1000};
		limit = &ts;
	}
	if (ppoll(fds, 2 + MAX_PORTS, limit, NULL) < 0) {
		for (int i = 0; i < 2 + MAX_PORTS; i++)
			fds[i].revents = 0;
	}
}

void tf_relay_run(struct tf_relay *r)
{
	struct pollfd fds[2 + MAX_PORTS] = {
		{.fd = r->listener, .events = POLLIN},
		{.fd = r->control, .events = POLLIN},
	};

	prctl(PR_SET_NAME, "tf-relay");
	relay = r;
	for (int i = 0; i < MAX_PORTS; i++)
		ports[i].fd = -1;
	for (;;) {
		bool changed = false;

		wait_work(fds);
		if (fds[1].revents)
			tf_relay_obey(r, &changed);
		if (changed)
			forget();
		deliver_due();
		for (int i = 0; i < MAX_PORTS; i++) {
			if (fds[2 + i].revents & ~POLLOUT)
				read_port(i);
		}
		for (int i = 0; i < MAX_PORTS; i++)
			write_port(i);
		if (fds[0].revents)
			accept_guest(r->listener);
	}
}
