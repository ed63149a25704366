/* SPDX-License-Identifier: MIT */
/*
 * What telefork serve --zygote keeps. The session that received a zygote stays, as its keeper and
 * as the parent of its copies. Who asks for copies comes by another connection, to another session:
 *
 *   receiver ---- a socket to each session, which later sessions inherit
 *     |- keeper ---- zygote, copies
 *     |- session ---- asks the keeper by that socket, with a descriptor for the answer;
 *                     tells it to let the copies run when its own client has heard of them
 */
#ifndef TF_CMD_NURSERY_H
#define TF_CMD_NURSERY_H

#include <poll.h>
#include <sys/types.h>

#include "core/channel/channel.h"
#include "core/restore/zygote.h"

struct tf_place {
	int fd; /* to the session; -1: free */
	pid_t session;
	bool keeps; /* a zygote of that name */
	struct tf_zygote_name name;
};

struct tf_nursery {
	unsigned most;   /* zygotes; 0: none is kept */
	unsigned copies; /* of each that run at once, at most */
	unsigned n_places;
	struct tf_place *place;
	int own; /* a session's: its end */
};

/* --- the receiver --- */

/* Room for so many sessions. 0 or _NOMEM. */
int tf_nursery_init(struct tf_nursery *n, unsigned sessions, struct tf_err *e);
void tf_nursery_done(struct tf_nursery *n);

/* Before a session is forked, and after that: pid as fork(2) says. Without room or descriptors the
 * session can keep nothing. */
void tf_nursery_open(struct tf_nursery *n);
void tf_nursery_forked(struct tf_nursery *n, pid_t pid);

/* A session has ended. */
void tf_nursery_left(struct tf_nursery *n, pid_t pid);

/* What to wait for beside a sender, n_places of them; and hears who wants to keep something. */
void tf_nursery_poll(const struct tf_nursery *n, struct pollfd *p);
void tf_nursery_hear(struct tf_nursery *n, const struct pollfd *p);

/* --- a session --- */

/* Whether a zygote of that name may be kept, as far as this session knows. 0, _LIMIT, _INVAL,
 * _UNSUPPORTED. */
int tf_nursery_may(const struct tf_nursery *n, const struct tf_zygote_name *name, struct tf_err *e);

/* The zygote is there: from now on it is asked for here. As above, and it is sure. */
int tf_nursery_keep(struct tf_nursery *n, const struct tf_zygote_name *name, struct tf_err *e);

/* Makes copies as it is asked to, until the zygote is dropped and its copies have ended. */
void tf_nursery_run(struct tf_nursery *n, struct tf_pad *pad, const struct tf_errand *errand);

/* Answers what a client asks about zygotes. 0, or as tf_io_write(). */
int tf_nursery_answer(const struct tf_nursery *n, int fd, const struct telefork_options *options,
	struct tf_err *e);

#endif
