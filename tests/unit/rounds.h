/* SPDX-License-Identifier: MIT */
/*
 * Rounds of memory by hand (core/restore/stage.h): a receiver that takes them, in a process of its
 * own, and a line to it on which anything can be put.
 */
#ifndef TF_TEST_ROUNDS_H
#define TF_TEST_ROUNDS_H

#include "tests/unit/line.h"

#include "core/pack/unpack.h"
#include "core/restore/pad.h"

#define PAGE  4096u
#define MOST  (UINT64_C(32) << 20) /* bytes that the receiver takes */
#define PLACE UINT64_C(0x200000100000)

/* What the receiver says of itself. */
struct word {
	int code, children;
	char message[TELEFORK_MESSAGE_MAX];
};

static bool unpacks = true;
static uint64_t span; /* that it answered */
static uint8_t page[TF_EXTENT_MAX];

static _Noreturn void be_receiver(int fd, int talk)
{
	const struct telefork_options o = {
		.idle_ms = 10000, .restore = TF_RESTORE_ROUNDS, .max_memory = MOST};
	struct word w = {0};
	struct tf_pad p;

	w.code = tf_pad_begin(&p, fd, &o);
	if (!w.code)
		w.code = tf_pad_take(&p, NULL, unpacks ? tf_unpacker_new(NULL) : NULL);
	if (w.code) {
		tf_pad_refuse(&p);
		snprintf(w.message, sizeof(w.message), "%s", p.err.text);
	}
	w.children = waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD;
	if (!w.code) {
		tf_pad_kill(&p);
		w.children = waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD;
	}
	tf_pad_done(&p);
	_exit(send(talk, &w, sizeof(w), MSG_NOSIGNAL) != sizeof(w));
}

static void line_open(struct line *l)
{
	int fd[2], talk[2];

	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd));
	ck_assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, talk));
	*l = (struct line){.fd = fd[0], .talk = talk[0]};
	l->receiver = fork();
	if (!l->receiver) {
		close(fd[0]);
		close(talk[0]);
		be_receiver(fd[1], talk[1]);
	}
	close(fd[1]);
	close(talk[1]);
}

static void put_offer(struct line *l, const struct tf_rounds_header *change)
{
	struct tf_rounds_header h = *change;

	h.crc = tf_crc32c(0, &h, offsetof(struct tf_rounds_header, crc));
	put(l, &h, sizeof(h));
}

static struct tf_rounds_header good_offer(void)
{
	struct tf_rounds_header h = {
		.machine = tf_arch_native()->machine, .page_size = PAGE, .memory = MOST / 2};

	memcpy(h.magic, TF_ROUNDS_MAGIC, sizeof(h.magic));
	return h;
}

/* What it answers, to an offer or for a round: the outcome, and its words. */
static uint32_t offered(struct line *l, char message[static TELEFORK_MESSAGE_MAX])
{
	struct tf_err e = {0};
	struct tf_reply reply;
	struct tf_io io;

	tf_io_init(&io, l->fd, NULL);
	ck_assert_msg(!tf_reply_read(&io, &reply, message, &e), "%s", e.text);
	ck_assert_int_eq(reply.code, 0);
	span = reply.memory;
	return reply.outcome;
}

/* A receiver that is made this offer. */
static uint32_t offer(
	struct line *l, const struct tf_rounds_header *h, char message[static TELEFORK_MESSAGE_MAX])
{
	line_open(l);
	put_offer(l, h);
	return offered(l, message);
}

/* Rounds may come. */
static void begin(struct line *l)
{
	const struct tf_rounds_header h = good_offer();
	char message[TELEFORK_MESSAGE_MAX];

	ck_assert_msg(offer(l, &h, message) == TF_OUTCOME_COMING, "%s", message);
}

static void put_place(struct line *l, uint64_t start, uint64_t end, uint32_t flags, uint32_t bytes)
{
	const struct tf_round_place p = {start, end, flags, bytes};

	put_extent(l, TF_PLACES_OFFSET, sizeof(p), &p);
}

static void put_trailer(struct line *l)
{
	const struct tf_extent x = {TF_TRAILER_OFFSET, l->count, l->chain};

	put(l, &x, sizeof(x));
	l->count = l->chain = 0;
}

static void put_over(struct line *l)
{
	const struct tf_extent x = {.offset = TF_ROUNDS_OVER};

	put(l, &x, sizeof(x));
}

/* The other side has a round; false: it says something else, or nothing. */
static bool is_taken(struct line *l, uint64_t *ret_bytes)
{
	struct tf_taken t;

	if (recv(l->fd, &t, sizeof(t), MSG_WAITALL) != sizeof(t) ||
		memcmp(t.magic, TF_TAKEN_MAGIC, sizeof(t.magic)) != 0)
		return false;
	*ret_bytes = t.bytes;
	return true;
}

/* It gives up with this code, and says so with this text. */
static void refused(struct line *l, int code, const char *text, const char *what)
{
	struct word w = {0};

	shutdown(l->fd, SHUT_WR);
	ck_assert_msg(recv(l->talk, &w, sizeof(w), MSG_WAITALL) == sizeof(w), "%s: no word", what);
	ck_assert_msg(
		w.code == code && strstr(w.message, text), "%s: %d: %s", what, w.code, w.message);
	ck_assert_msg(!w.children, "%s: the new process is left", what);
	close(l->fd);
	close(l->talk);
	ck_assert_int_eq(waitpid(l->receiver, NULL, 0), l->receiver);
}

#endif
