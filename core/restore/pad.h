/* SPDX-License-Identifier: MIT */
/*
 * The receiver: one image in, one running process out. telepad(), telefork serve and telefork
 * restore are this with other descriptors.
 */
#ifndef TF_RESTORE_PAD_H
#define TF_RESTORE_PAD_H

#include <sys/time.h>

#include "core/image/stream.h"
#include "core/restore/build.h"
#include "core/restore/landing.h"
#include "core/restore/objects.h"
#include "core/restore/pager.h"
#include "core/restore/relay.h"

/* Takes an extent, as it would be if it had not been packed. bytes are its own until it returns: 0,
 * or an error that ends the section. */
typedef int tf_take_extent(void *ctx, const struct tf_extent *x, uint8_t *bytes);

/* Unpacks what follows in a stream, or in rounds (core/pack/unpack.h). */
struct tf_unpacker {
	/* A section, from behind its mark to its end, from the channel. 0; what take() says; or
	 * what is wrong, in e. */
	int (*run)(struct tf_unpacker *u, struct tf_io *from, tf_take_extent *take, void *ctx,
		struct tf_err *e);
	/* The next extent of a section without lists, of which n bytes are at hand, its head first:
	 * how many of them it has, once it was taken; 0: not all of them are there; or an error. */
	int64_t (*one)(struct tf_unpacker *u, uint8_t *at, size_t n, tf_take_extent *take,
		void *ctx, struct tf_err *e);
};

struct tf_pad {
	const struct telefork_options *options; /* never NULL here */
	struct tf_arena arena;
	struct tf_image image;
	struct tf_facts facts;
	uint64_t facts_ns; /* when they were gathered, as of tf_now_ns() */
	void *break_page;  /* keeps our break where the facts have it; NULL: nothing does */
	struct tf_restore restore;
	struct tf_io io; /* the channel, or the file */
	bool file;
	bool answers; /* the other side reads a reply */
	uint8_t *head;
	uint64_t head_size;
	uint32_t chain, count;               /* of the head's extents */
	struct tf_table_header table_header; /* file */
	struct tf_extent *table;             /* file */
	uint32_t stream_flags;
	struct tf_found
		found; /* files that the image's mappings show, where anybody asks for them */
	struct tf_known *stay; /* of a post-copy: mappings that do not come, and are here */
	uint32_t n_stay;
	uint64_t to_come;          /* bytes of all extents of memory at most */
	struct timeval read_limit; /* the socket's own, put back afterwards */
	int stdio[3];              /* for the copy's 0, 1, 2; -1: as options.stdio says */
	pid_t child, receiver;
	uint64_t failed_step; /* UINT64_MAX: not known */
	int64_t began;        /* the child, CLOCK_REALTIME in seconds */
	uint64_t head_ns;     /* when the head had come, as of tf_now_ns(); 0: it has not */
	int control;          /* our end of the control socket */
	int pump;             /* our end of the copy's channel when it comes from a file; -1 */
	uint32_t litter;      /* of a zygote: requests for copies so far */
	struct tf_staging
		*staging;    /* pre-copy: what the child has; NULL: nothing, and no child yet */
	struct tf_mark mark; /* of a move: where it stands that the copy runs */
	struct tf_landing landing;
	struct tf_pager pager; /* post-copy */
	struct tf_relay relay; /* TF_STREAM_RELAY: what we stand between, once it runs */
	struct telefork_result result;
	struct tf_unpacker *unpacker; /* NULL: nothing that is packed is taken */
	struct tf_err err;
	struct tf_err left; /* what it goes without, if the options allow that; code 0: nothing */
};

/* In options->restore, beside TELEFORK_RESTORE_*: the caller calls tf_pad_page() when the process
 * runs. Without it all memory comes before. */
#define TF_RESTORE_POST_COPY (1u << 31)

/* The same: rounds of memory come before the stream (stream.h). */
#define TF_RESTORE_ROUNDS (1u << 29) /* 30: zygote.h */

/* Looks at what is here, for a process that comes from fd. From then on the caller maps no memory.
 * options (NULL: defaults) are kept. 0 or an error in p->err. tf_pad_done() frees in either case.
 */
int tf_pad_begin(struct tf_pad *p, int fd, const struct telefork_options *options);

/* Then everything up to the plan: reads the head, decodes, checks, builds. Nothing is started. mark
 * (NULL: none): the copy is to be noted there when it runs. unpacker (NULL: none) is borrowed. 0 or
 * an error in p->err. */
int tf_pad_take(struct tf_pad *p, const struct tf_mark *mark, struct tf_unpacker *unpacker);

/* Both, without mark and unpacker. */
int tf_pad_prepare(struct tf_pad *p, int fd, const struct telefork_options *options);

/* Starts the child, fills it, and lets it run. On failure the child is gone, and the sender has
 * been told. 0 or an error in p->err; p->child is the copy. _CANCELLED: the sender only asked
 * (TF_STREAM_ASK), and was answered. */
int tf_pad_start(struct tf_pad *p);

/* The same in three steps. Hold: p->child is whole, has not run an instruction, and ends with us.
 * On failure it is gone. */
int tf_pad_hold(struct tf_pad *p);

/* Tells the sender, if it reads answers, what became of the child: enum tf_outcome. */
int tf_pad_answer(struct tf_pad *p, uint32_t outcome);

/* Lets the held child run, and before that notes it at p->mark: then it does not end with us any
 * more. On failure it may run or not, and only the mark says so: tf_pad_kill(), if it is not there.
 */
int tf_pad_release(struct tf_pad *p);

/* The last two for a held child: tells the sender that it runs, and lets it run. On failure it is
 * gone. */
int tf_pad_go(struct tf_pad *p);

/* Once it runs: takes the memory that comes later, if there is any, until all has come; the sender
 * waits for another answer then. On failure the process is killed. 0 or an error in p->err. */
int tf_pad_page(struct tf_pad *p);

/* A report of the new process that a step failed: into p->err. Returns its code. */
int tf_pad_explain(struct tf_pad *p, const struct tf_report *r);

void tf_pad_kill(struct tf_pad *p);

/* Whether the sender asked that the receiver stays between it and the copy; then, after
 * tf_pad_start(), the caller runs p->relay (tf_relay_run), or hands it on. */
bool tf_pad_relayed(const struct tf_pad *p);

/* After the last answer to a sender that may be sending still (its process has ended early): what
 * comes is swallowed for a moment, so that the answer is not lost with the connection. */
void tf_pad_hang_up(struct tf_pad *p);

/* Tells the sender why nothing came of it (when it reads answers), and swallows for a moment what
 * it still sends, so that the answer is not lost with the connection. */
void tf_pad_refuse(struct tf_pad *p);

void tf_pad_done(struct tf_pad *p);

/* The outcome as the public result (which may be NULL). */
void tf_pad_result(const struct tf_pad *p, struct telefork_result *result);

#endif
