/* SPDX-License-Identifier: MIT */
/*
 * Pre-copy, the sender's side: memory goes while the process runs, in rounds. The first takes all
 * of it, each further one what was written to since; when that is little, or does not get less, the
 * process is stopped, and what is left goes with its image (task_rounds.c). Before a page is read
 * it counts as not written, so what is written meanwhile is seen by the next round.
 *
 *   sent     what the other side has, as it was when it was read
 *   clean    at the end: what nobody wrote to since it was asked for; both: staged
 */
#ifndef TF_CAPTURE_ROUNDS_H
#define TF_CAPTURE_ROUNDS_H

#include "core/base/maps.h"
#include "core/capture/track.h"
#include "core/image/stream.h"
#include "core/restore/plan.h"

struct tf_round {
	uint64_t bytes;
	uint64_t ns, looked_ns; /* all of it; until it was known what was to go */
};

#define TF_ROUNDS_BUFFER (TF_EXTENT_MAX + 65536u)

/* Zero-initialise. */
struct tf_rounds {
	pid_t pid;
	int mem; /* -1 */
	struct tf_track track;
	struct tf_io io;
	struct tf_sink sink;
	uint64_t span, shift; /* no place lies in two */
	struct tf_arena text, arena;
	uint32_t seen;       /* check of /proc/PID/maps when the next two were read; 0: never */
	struct tf_map *maps; /* of smaps */
	uint32_t n_maps;
	struct tf_round_place *place; /* in the order in which they were found */
	size_t n_place, room_place;
	size_t told;          /* the other side knows the first ones */
	struct tf_runs known; /* addresses of those that bytes may come from */
	struct tf_runs sent, ever, written, clean;
	struct tf_owners owners; /* its threads */
	uint64_t *held;          /* words with ids of threads that hold locks */
	size_t n_held, room_held;
	uint8_t *bytes, *other;
	struct tf_round round[TF_ROUNDS_MAX];
	uint32_t n;
	bool little;                        /* the last round was */
	char refusal[TELEFORK_MESSAGE_MAX]; /* why the receiver wants no more of them; "" */
	struct tf_err err;
};

/* Tracks the process. 0, or _UNSUPPORTED with the reason in r->err, or as tf_track_begin().
 * tf_rounds_end() in any case. */
int tf_rounds_begin(struct tf_rounds *r, pid_t pid);

/* Offers rounds to the receiver at fd, who was told of them (TF_ERRAND_ROUNDS). packer (NULL: none)
 * is borrowed. 0; _UNSUPPORTED: he does not want them, and the stream may come at once; or what the
 * connection says. */
int tf_rounds_offer(struct tf_rounds *r, int fd, const struct telefork_options *options,
	struct tf_packer *packer);

/* In the middle of a round: whether the receiver has said by now that it wants no more of them. 0,
 * or an error in r->err. */
int tf_rounds_hear(struct tf_rounds *r);

/* rounds_send.c: sends r->written. 0, or an error in r->err. */
int tf_rounds_send(struct tf_rounds *r);

/* All rounds. 0; _UNSUPPORTED: the receiver wants none after all, which is ended as by
 * tf_rounds_over(), and the stream may come at once; or an error in r->err. */
int tf_rounds_run(struct tf_rounds *r);

/* No more rounds follow: says so, when the process stands. 0, or as tf_io_write(). */
int tf_rounds_over(struct tf_rounds *r);

/* The process is not tracked any more. */
void tf_rounds_end(struct tf_rounds *r);

#endif
