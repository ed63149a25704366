/* SPDX-License-Identifier: MIT */
/*
 * docs/commit.md's table {phase x dead party}: what may be left. Shared by telebed and
 * tests/commit.
 */
#ifndef TF_HARNESS_FAULTS_TABLE_H
#define TF_HARNESS_FAULTS_TABLE_H

#include <stdbool.h>

enum tf_party {
	TF_PARTY_SENDER,
	TF_PARTY_SESSION, /* the receiver's process for this move */
	TF_PARTY_RECEIVER,
};

/* What may come of a party's death in these phases of the two journals ("" no record yet): verdicts
 * "here", "there", "stopped: here", "stopped: there", with ", " between them. NULL: the table has
 * no such phases. */
const char *tf_table_death(enum tf_party party, const char *here, const char *there);

/* The same of a network that breaks in message number @message, for that connection or for good. */
const char *tf_table_break(int message, bool for_good);

/* Whether a list of verdicts has this one. */
bool tf_table_has(const char *list, const char *verdict);

#endif
