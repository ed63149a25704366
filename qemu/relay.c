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
#define REORDER_US  1000

struct port {
	int fd; /* -1: free */
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

static struct port ports[MAX_PORTS];
static struct tf_link_table table;
static struct tf_link_faults faults;
static struct tf_link_stats stats;
static struct delayed *delayed;
static size_t delayed_bytes;
static uint64_t random_state;

/* splitmix64 */
static uint64_t next_random(void)
{
	uint64_t z = random_state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static bool happens(uint32_t ppm)
{
	return ppm && next_random() % 1000000 < ppm;
}

static void drop_port(int i)
{
	close(ports[i].fd);
	ports[i].fd = -1;
	tf_wire_done(&ports[i].in);
	tf_wire_done(&ports[i].out);
	tf_link_forget(&table, i);
	stats.guests--;
}

static void queue_to(int i, const uint8_t *data, size_t size)
{
	struct port *p = &ports[i];

	if (p->fd < 0)
		return;
	if (tf_wire_size(&p->out) + size > QUEUE_LIMIT) {
		stats.overflowed++;
		return;
	}
	tf_wire_bytes(&p->out, data, size);
	if (p->out.failed)
		drop_port(i);
}

/* Bring a frame (with its prefix) to where it belongs. */
static void deliver(int from, const uint8_t *data, size_t size)
{
	int to = tf_link_lookup(&table, data + 4);

	if (to != TF_LINK_FLOOD) {
		if (to != from)
			queue_to(to, data, size);
		return;
	}
	stats.flooded++;
	for (int i = 0; i < MAX_PORTS; i++) {
		if (i != from)
			queue_to(i, data, size);
	}
}

static void delay(int from, const uint8_t *data, size_t size, uint32_t us)
{
	struct delayed *d = delayed_bytes + size > DELAY_LIMIT ? NULL : malloc(sizeof(*d) + size);
	struct delayed **at = &delayed;

	if (!d) {
		stats.overflowed++;
		return;
	}
	d->due_us = tf_vm_now_us() + us;
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

static void take_frame(int from, const uint8_t *data, size_t size)
{
	uint32_t us = faults.delay_us;

	stats.frames++;
	stats.bytes += size - 4;
	tf_link_learn(&table, data + 4 + 6, from);
	if (faults.cut || happens(faults.loss_ppm)) {
		stats.dropped++;
		return;
	}
	if (happens(faults.reorder_ppm))
		us += us ? us : REORDER_US;
	if (us)
		delay(from, data, size, us);
	else
		deliver(from, data, size);
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
			ports[i].fd = fd;
			stats.guests++;
			return;
		}
	}
	if (fd >= 0)
		close(fd);
}

/* False once the creator is gone. */
static bool obey(int control)
{
	struct tf_relay_order order;
	ssize_t n = recv(control, &order, sizeof(order), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n != (ssize_t)sizeof(order))
		return false;
	if (order.op == TF_RELAY_FAULTS) {
		faults = order.faults;
		random_state = faults.seed;
	}
	return send(control, &stats, sizeof(stats), MSG_NOSIGNAL) == (ssize_t)sizeof(stats);
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

void tf_relay_run(int listener, int control)
{
	struct pollfd fds[2 + MAX_PORTS] = {
		{.fd = listener, .events = POLLIN},
		{.fd = control, .events = POLLIN},
	};

	prctl(PR_SET_NAME, "tf-relay");
	for (int i = 0; i < MAX_PORTS; i++)
		ports[i].fd = -1;
	for (;;) {
		wait_work(fds);
		if (fds[1].revents && !obey(control))
			_exit(0);
		deliver_due();
		for (int i = 0; i < MAX_PORTS; i++) {
			if (fds[2 + i].revents & ~POLLOUT)
				read_port(i);
		}
		for (int i = 0; i < MAX_PORTS; i++)
			write_port(i);
		if (fds[0].revents)
			accept_guest(listener);
	}
}
