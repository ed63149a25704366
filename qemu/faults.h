/* SPDX-License-Identifier: MIT */
/*
 * The pure half of what a link does to those who talk over it. Whatever chance decides depends on
 * the seed, on who sends, and on how manieth it is, on nothing else: not on time, not on what
 * others send meanwhile. And a conversation is followed message by message, so that something can
 * happen to it at a certain byte of one.
 */
#ifndef TF_QEMU_FAULTS_H
#define TF_QEMU_FAULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a struct tf_link_moment's message can be besides a number. */
#define TF_LINK_ANY_MESSAGE (-1)

/* A moment of a conversation: when so many bytes of message number @message have passed (the first
 * is 0; a message ends where the other side speaks), or so many bytes of all of them together. A
 * message that is shorter ends before: then it is the beginning of the next one. */
struct tf_link_moment {
	int32_t message;
	uint32_t reserved;
	uint64_t bytes;
};

/* What happens at the moment. */
enum tf_link_break {
	TF_LINK_WHOLE,  /* nothing: there is no such moment */
	TF_LINK_HOLD,   /* everything on the link stands until the next order */
	TF_LINK_CUT,    /* the conversation is ended for both (only streams: else as SILENT) */
	TF_LINK_SILENT, /* nothing of this conversation comes through any more */
};

/* What happens to everything on a link; all zero is a perfect one. */
struct tf_link_faults {
	uint64_t seed;
	uint32_t loss_ppm;      /* lost, parts per million */
	uint32_t reorder_ppm;   /* held back for @delay_us more (1 ms if that is 0) */
	uint32_t duplicate_ppm; /* delivered twice */
	uint32_t delay_us;      /* later, all of it */
	uint32_t jitter_us;     /* and by up to so much more */
	uint32_t reserved;
	uint64_t bytes_per_s; /* of each sender; 0: no limit */
	bool cut;             /* partition: nothing comes through */
	bool for_good;        /* after a CUT or SILENT: others' neither, until the next order */
	uint8_t apart[32];    /* bit n: stations whose address ends in n are cut off the others */
	enum tf_link_break what;
	struct tf_link_moment moment; /* of the first conversation that begins after the order */
};

/* What becomes of one frame, or of one piece of a stream. */
struct tf_link_fate {
	bool lost, twice, behind;
	uint32_t late_us;
};

/* The fate of the @n-th one of the sender @key. */
struct tf_link_fate tf_link_fate(const struct tf_link_faults *f, uint64_t key, uint64_t n);

/* When @size bytes have left a sender that is ready at *@free_us at the earliest, and is from then
 * on. Times are of one clock, in microseconds. */
int64_t tf_link_pace(const struct tf_link_faults *f, int64_t *free_us, int64_t now_us, size_t size);

/* A station on the link @f is cut off from another one, each named by its address's last byte. */
bool tf_link_apart(const struct tf_link_faults *f, uint8_t a, uint8_t b);

/* A conversation so far. Zero-initialise. */
struct tf_link_talk {
	int32_t message; /* number of the last one */
	int32_t from;    /* side that sent it, 1 or 2; 0: nobody has said anything */
	uint64_t bytes;  /* of that message */
	uint64_t total;
};

/* The number of the message that side @from says now. */
int32_t tf_link_message(const struct tf_link_talk *t, int from);

/* How many of @n bytes (> 0) from side @from (1 or 2) may pass before @moment. */
size_t tf_link_may_pass(
	const struct tf_link_talk *t, const struct tf_link_moment *moment, int from, size_t n);

/* So many bytes have passed. */
void tf_link_passed(struct tf_link_talk *t, int from, size_t n);

/* TCP in an Ethernet frame: who talks to whom. */
struct tf_link_tcp {
	uint8_t ends[2][6]; /* IPv4 address and port of sender and receiver */
	uint32_t seq;       /* of the first byte */
	uint32_t size;      /* bytes of the stream in it */
	bool opens;         /* SYN without ACK: a conversation begins */
	bool syn;
};

/* False if the frame (without a prefix) is no IPv4 with TCP, whole and not a fragment. */
bool tf_link_read_tcp(const uint8_t *frame, size_t size, struct tf_link_tcp *ret);

#endif
