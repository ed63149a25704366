/* SPDX-License-Identifier: MIT */
/*
 * Whether it pays to spend time on bytes before they go: what the line takes a second is measured
 * while sending, and what comes of the time is measured on what is sent. Numbers only; bytes go by
 * elsewhere.
 */
#ifndef TF_PACK_CHOOSE_H
#define TF_PACK_CHOOSE_H

#include <stdint.h>

#include "core/pack/codec.h"

/* Blocks of fewer bytes take longer for each of them, and are measured by themselves. */
#define TF_CHOOSE_SMALL 32768u

struct tf_chooser {
	unsigned may; /* bit n: codec n */
	/* The line. */
	uint64_t at_ns, left; /* when it was looked at; bytes that had left by then */
	uint32_t unsent;      /* bytes that had not */
	double line;          /* bytes a second, 0: not known, more than it was given */
	/* Bytes a second that go into a codec, 0: not known, and what part of them comes out. */
	struct tf_measured {
		double speed, ratio;
		uint64_t next, step; /* when sent is so much it is tried again, and how long then */
	} codec[2][TF_CODECS];       /* of small blocks, and of others */
	double hash;                 /* bytes a second that are hashed, 0: not known */
};

void tf_choose_begin(struct tf_chooser *c, unsigned may);

/* The line at that moment: bytes that were handed over so far, of which some have not left. It is
 * of no use within a moment of the last time. */
bool tf_choose_looks(const struct tf_chooser *c, uint64_t now_ns);
void tf_choose_look(struct tf_chooser *c, uint64_t now_ns, uint64_t sent, uint32_t unsent);

/* The same line, but what is handed over is counted anew. */
void tf_choose_anew(struct tf_chooser *c);

/* How n bytes are to go; sent: bytes that went before, packed or not. What was tried is told to
 * tf_choose_learn(), whatever came of it: it took ns. */
enum tf_codec tf_choose_codec(struct tf_chooser *c, uint64_t sent, uint64_t n);
void tf_choose_learn(struct tf_chooser *c, enum tf_codec codec, uint64_t sent, uint64_t n,
	uint64_t packed, uint64_t ns);

/* Whether hashing is faster than the line, so that it pays to ask what the receiver has. */
bool tf_choose_list(const struct tf_chooser *c);
void tf_choose_hashed(struct tf_chooser *c, uint64_t n, uint64_t ns);

#endif
