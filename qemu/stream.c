/* SPDX-License-Identifier: MIT */
/*
 * The relay process of a link for TCP: connections are accepted and made again to where they
 * belong, and pieces of both streams pass when it is their time. A stream stays in order: what is
 * late makes all behind it late. Nobody is waited for: who does not read is not read from.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "qemu/io.h"
#include "qemu/relay.h"

#define MAX_PAIRS   32
#define QUEUE_LIMIT (1u << 20) /* bytes on their way in one direction */
#define PIECE       (16 * 1024)
#define RESEND_US   200000 /* what TCP needs at least to find that something is lost, tcp(7) */

struct piece {
	struct piece *next;
	int64_t due_us;
	size_t size, at;
	uint8_t data[];
};

/* One end of a connection, and what was said there and is on its way to the other end. */
struct side {
	int fd;                /* -1: none yet */
	bool ended, passed_on; /* nothing more will be said here; the other end has been told */
	struct piece *first, **last;
	size_t queued;
	uint64_t pieces;
	int64_t free_us; /* see tf_link_pace */
};

struct pair {
	bool used, watched, silent;
	uint64_t number; /* which connection of the link it is */
	struct side side[2];
	struct tf_link_talk talk;
};

static struct tf_relay *relay;
static struct pair pairs[MAX_PAIRS];
static unsigned target;
static uint64_t connections;
static bool watching; /* a conversation has begun since the last order */

static void drop_pair(struct pair *p)
{
	for (int i = 0; i < 2; i++) {
		while (p->side[i].first) {
			struct piece *next = p->side[i].first->next;

			free(p->side[i].first);
			p->side[i].first = next;
		}
		if (p->side[i].fd >= 0)
			close(p->side[i].fd);
	}
	p->used = false;
	relay->stats.guests--;
}

/* The other end of a new connection; nobody there is as an end. */
static void dial(struct pair *p)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
		.sin_port = htons((uint16_t)target),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		if (fd >= 0)
			close(fd);
		drop_pair(p);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	p->side[1].fd = fd;
}

/* Nothing can be said to it at the moment. */
static bool stands(const struct pair *p)
{
	return p->silent || relay->held || relay->faults.cut;
}

static void take_connection(void)
{
	int fd = accept4(relay->listener, NULL, NULL, SOCK_CLOEXEC), one = 1;
	struct pair *p = pairs;

	while (p < pairs + MAX_PAIRS && p->used)
		p++;
	if (fd < 0)
		return;
	if (p == pairs + MAX_PAIRS || relay->dead == TF_LINK_CUT) {
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	*p = (struct pair){.used = true, .watched = !watching, .number = connections++};
	p->side[0] = (struct side){.fd = fd, .last = &p->side[0].first};
	p->side[1] = (struct side){.fd = -1, .last = &p->side[1].first};
	p->silent = relay->dead == TF_LINK_SILENT;
	watching = true;
	relay->stats.guests++;
	if (!stands(p))
		dial(p);
}

/* A piece that arrived sets out. */
static void queue(struct pair *p, int from, const uint8_t *data, size_t size)
{
	struct side *s = &p->side[from];
	struct piece *piece = malloc(sizeof(*piece) + size);
	int64_t now = tf_vm_now_us();
	struct tf_link_fate fate =
		tf_link_fate(&relay->faults, p->number * 2 + (unsigned)from, s->pieces++);

	if (!piece) {
		drop_pair(p);
		return;
	}
	relay->stats.frames++;
	relay->stats.bytes += size;
	relay->stats.dropped += fate.lost;
	*piece = (struct piece){.size = size};
	memcpy(piece->data, data, size);
	piece->due_us = tf_link_pace(&relay->faults, &s->free_us, now, size) + fate.late_us +
			(fate.lost ? RESEND_US : 0);
	s->queued += size;
	*s->last = piece;
	s->last = &piece->next;
}

/* What is due from that side, and then its end, goes to the other. */
static void write_side(struct pair *p, int from, int64_t now)
{
	struct side *s = &p->side[from];
	int to = p->side[!from].fd;

	while (s->first && s->first->due_us <= now) {
		struct piece *piece = s->first;
		ssize_t n = send(to, piece->data + piece->at, piece->size - piece->at,
			MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0) {
			drop_pair(p);
			return;
		}
		piece->at += (size_t)n;
		if (piece->at < piece->size)
			continue;
		s->queued -= piece->size;
		s->first = piece->next;
		if (!s->first)
			s->last = &s->first;
		free(piece);
	}
	if (s->ended && !s->first && !s->passed_on) {
		shutdown(to, SHUT_WR);
		s->passed_on = true;
	}
	if (p->side[0].passed_on && p->side[1].passed_on)
		drop_pair(p);
}

/* What was said before arrives, without more delay. */
static void strike(struct pair *p, int from)
{
	enum tf_link_break what;

	for (int i = 0; i < 2; i++)
		if (p->used && p->side[!i].fd >= 0)
			write_side(p, i, INT64_MAX);
	what = tf_relay_strike(relay, &p->talk, from + 1);
	p->silent = what == TF_LINK_SILENT;
	if (p->used && what == TF_LINK_CUT)
		drop_pair(p);
}

static void read_side(struct pair *p, int from)
{
	struct side *s = &p->side[from];
	uint8_t buf[PIECE];
	bool watched = p->watched && relay->faults.what;
	ssize_t n = recv(s->fd, buf, sizeof(buf), MSG_DONTWAIT | (watched ? MSG_PEEK : 0));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		drop_pair(p);
		return;
	}
	if (n > 0 && watched) {
		size_t may = tf_link_may_pass(&p->talk, &relay->faults.moment, from + 1, (size_t)n);

		if (!may) {
			strike(p, from);
			return;
		}
		n = recv(s->fd, buf, may, MSG_DONTWAIT);
		if (n > 0)
			tf_link_passed(&p->talk, from + 1, (size_t)n);
	}
	if (n > 0)
		queue(p, from, buf, (size_t)n);
	else
		s->ended = true;
}

/* Who is silent is still seen to go away. */
static short wanted(const struct pair *p, int i)
{
	const struct side *s = &p->side[i], *other = &p->side[!i];
	short events = 0;

	if (s->fd < 0)
		return 0;
	if (p->silent)
		return s->ended ? 0 : POLLRDHUP;
	if (stands(p) || other->fd < 0)
		return 0;
	if (!s->ended && s->queued < QUEUE_LIMIT)
		events |= POLLIN;
	if (other->first && other->first->due_us <= tf_vm_now_us())
		events |= POLLOUT;
	return events;
}

/* Microseconds until something that is not due now will be; -1: nothing is. */
static int64_t next_due(void)
{
	int64_t now = tf_vm_now_us(), next = -1;

	for (int k = 0; k < 2 * MAX_PAIRS; k++) {
		const struct piece *first = pairs[k / 2].side[k % 2].first;

		if (!pairs[k / 2].used || stands(&pairs[k / 2]) || !first || first->due_us <= now)
			continue;
		if (next < 0 || first->due_us - now < next)
			next = first->due_us - now;
	}
	return next;
}

static void wait_work(struct pollfd fds[static 2 + 2 * MAX_PAIRS])
{
	int64_t us = next_due();
	struct timespec ts = {us / 1000000, us % 1000000 * 1000};

	for (int k = 0; k < 2 * MAX_PAIRS; k++) {
		const struct pair *p = &pairs[k / 2];
		short events = p->used ? wanted(p, k % 2) : 0;

		fds[2 + k] =
			(struct pollfd){.fd = events ? p->side[k % 2].fd : -1, .events = events};
	}
	if (ppoll(fds, 2 + 2 * MAX_PAIRS, us < 0 ? NULL : &ts, NULL) < 0)
		for (int i = 0; i < 2 + 2 * MAX_PAIRS; i++)
			fds[i].revents = 0;
}

static void attend(struct pair *p, const short revents[static 2])
{
	int64_t now = tf_vm_now_us();

	for (int i = 0; i < 2 && p->used; i++) {
		if (p->silent && revents[i])
			p->side[i].ended = true;
		else if (!stands(p) && revents[i] & ~POLLOUT)
			read_side(p, i);
	}
	if (p->used && p->silent && p->side[0].ended && (p->side[1].ended || p->side[1].fd < 0))
		drop_pair(p);
	for (int i = 0; i < 2; i++)
		if (p->used && !stands(p) && p->side[!i].fd >= 0)
			write_side(p, i, now);
}

/* Chance begins anew; who could not be connected is. */
static void forget(void)
{
	watching = false;
	connections = 0;
	for (struct pair *p = pairs; p < pairs + MAX_PAIRS; p++) {
		p->watched = false;
		if (p->used && p->side[1].fd < 0 && !stands(p))
			dial(p);
	}
}

void tf_relay_run_streams(struct tf_relay *r, unsigned to)
{
	struct pollfd fds[2 + 2 * MAX_PAIRS] = {
		{.fd = r->listener, .events = POLLIN},
		{.fd = r->control, .events = POLLIN},
	};

	prctl(PR_SET_NAME, "tf-relay");
	relay = r;
	target = to;
	for (;;) {
		bool changed = false;

		wait_work(fds);
		if (fds[1].revents)
			tf_relay_obey(r, &changed);
		if (changed)
			forget();
		for (struct pair *p = pairs; p < pairs + MAX_PAIRS; p++) {
			const struct pollfd *f = &fds[2 + 2 * (p - pairs)];

			if (p->used)
				attend(p, (short[]){f[0].revents, f[1].revents});
		}
		if (fds[0].revents)
			take_connection();
	}
}
