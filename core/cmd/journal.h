/* SPDX-License-Identifier: MIT */
/*
 * What became of moves: a file for each, in a folder that only this user can read. Its name is the
 * move's id and its phase; a phase is left by rename(2), so that of two that want to decide a move
 * one wins, and the other one finds that out. What stands in the file never changes; lines may be
 * added to it. Whoever is still at a move holds a lock on its file, which the kernel takes
 * away when that process ends.
 *
 *   $XDG_STATE_HOME/telefork | /var/lib/telefork (root) | ~/.local/state/telefork
 *     moves/ID.sending    -> committing -> moved | here
 *     arrivals/ID.prepared -> committed -> running     -> gone
 *     arrivals/ID.committed -> lost (post-copy)
 *
 * Renames are on the disk before the next step is taken.
 */
#ifndef TF_CMD_JOURNAL_H
#define TF_CMD_JOURNAL_H

#include "core/base/identity.h"
#include "core/channel/channel.h"
#include "core/image/stream.h"

/* X(NAME, text): in the order in which a move can go through them. Those before MOVED and GONE are
 * unfinished. */
#define TF_PHASES(X)                                                                          \
	X(SENDING, "sending")       /* whatever fails, the process goes on here */            \
	X(COMMITTING, "committing") /* stopped here, until the receiver's word is known */    \
	X(MOVED, "moved")           /* it runs there, and has ended here */                   \
	X(HERE, "here")             /* nothing came of it: the process goes on here */        \
	X(PREPARED, "prepared")     /* the copy is whole, and has not run an instruction */   \
	X(COMMITTED, "committed")   /* the copy is the process; it is being let go */         \
	X(RUNNING, "running")       /* the copy was let go */                                 \
	X(GONE, "gone")             /* the copy was ended before it had run an instruction */ \
	X(LOST, "lost")             /* it ran, and was ended before all its memory had come */

enum tf_phase {
#define X(name, text) TF_PHASE_##name,
	TF_PHASES(X)
#undef X
		TF_PHASES_END,
};

extern const char *const tf_phase_name[TF_PHASES_END];

#define TF_JOURNAL_KEEP_S (30 * 24 * 3600) /* what is finished is forgotten after so long */

struct tf_journal {
	int folder;                 /* descriptor; -1 */
	char path[TF_ADDRESS_TEXT]; /* absolute */
};

struct tf_record {
	char id[TF_MOVE_ID_TEXT + 1];
	enum tf_phase phase;
	bool held;                      /* somebody is at it still */
	struct tf_identity process;     /* moves: the original; arrivals: the copy */
	bool stopped;                   /* by a signal, before it was captured */
	bool later;                     /* post-copy: while COMMITTED, its memory is still coming */
	uint32_t n_rounds;              /* moves: of pre-copy, before it was stopped */
	uint64_t rounds[TF_ROUNDS_MAX]; /* bytes */
	char no_rounds[256];            /* why there were none, where there should be; "" */
	int64_t time;                   /* CLOCK_REALTIME, seconds: when it was written */
	char exe[256];
	char address[TF_ADDRESS_TEXT], token_file[TF_ADDRESS_TEXT]; /* moves; "" none */
};

/* Opens "moves" or "arrivals", which is made if there is none. 0, or _SYSTEM with the path. */
int tf_journal_open(struct tf_journal *j, const char *which, struct tf_err *e);
void tf_journal_close(struct tf_journal *j);

/* A phase's file, absolute. */
void tf_journal_path(const struct tf_journal *j, const char *id, enum tf_phase phase,
	char path[static TF_ADDRESS_TEXT]);

/* Writes a new record and holds it: returns a descriptor that has to stay open so long. _INVAL if
 * the id is in use, _SYSTEM. */
int tf_journal_write(struct tf_journal *j, const struct tf_record *r, struct tf_err *e);

/* Adds what was not known yet to a record, which fd (tf_journal_write()) holds: that it is stopped,
 * exe, rounds, that it is another process; what r has of them. 0 or -1; only of a process it
 * matters. */
int tf_journal_add(int fd, const struct tf_record *r);

/* From one phase to a later one. 1: done; 0: it is not in that phase (any more); _SYSTEM. */
int tf_journal_turn(struct tf_journal *j, const char *id, enum tf_phase from, enum tf_phase to,
	struct tf_err *e);

/* Reads a record, whatever its phase is. 1: found; 0: there is none; _SYSTEM. */
int tf_journal_read(struct tf_journal *j, const char *id, struct tf_record *ret, struct tf_err *e);

/* All of them, the latest first; *ret is the caller's to free. What has been over for
 * TF_JOURNAL_KEEP_S is forgotten. Their number, or _SYSTEM, _NOMEM. */
int tf_journal_list(struct tf_journal *j, struct tf_record **ret, struct tf_err *e);

#endif
