/* SPDX-License-Identifier: MIT */
/*
 * ssh://[user@]host[:port]: a channel through ssh(1), which runs "telefork serve" over there and is
 * a child of nobody: the program that dials sees no process of ours. While the greeting lasts a
 * helper stands between that can tell how ssh ended, and end it.
 *
 *   caller == socketpair == ssh ~~~~ sshd == telefork serve --once --detach -
 *     \== control == helper (until tf_ssh_settle)
 */
#ifndef TF_CHANNEL_SSH_H
#define TF_CHANNEL_SSH_H

#include "core/channel/channel.h"

/* A user may have to type a password before the first byte comes. */
#define TF_SSH_LOGIN_MS 120000

struct tf_ssh {
	int fd;      /* the channel */
	int words;   /* what ssh writes to its standard error: a file in memory that cannot grow */
	int control; /* to the helper */
	pid_t helper;
	bool child; /* the helper is ours to reap */
};

/* Starts ssh (or what TELEFORK_SSH names) for a->host and a->port. 0, _SYSTEM, _NOMEM. */
int tf_ssh_start(struct tf_ssh *s, const struct tf_address *a, struct tf_err *e);

/* After the greeting: the helper ends. rc 0: ssh goes on for as long as either side has something
 * to say; returns the channel's descriptor, which is the caller's. Else ssh is ended and the
 * channel closed; *e, the greeting's own failure, is replaced by ssh's words and exit code unless
 * the receiver itself refused. Returns e->code. */
int tf_ssh_settle(struct tf_ssh *s, const struct tf_address *a, int rc, struct tf_err *e);

#endif
