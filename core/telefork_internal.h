/* SPDX-License-Identifier: MIT */
/* What the public calls share with each other and with nobody else. */
#ifndef TF_TELEFORK_INTERNAL_H
#define TF_TELEFORK_INTERNAL_H

#include "core/capture/self.h"
#include "core/channel/channel.h"
#include "core/channel/ssh.h"

/* The caller's options (may be NULL), whose header may have had fewer or more fields, as this
 * library's: what is missing is zero. 0, or _INVAL for an impossible value and for a field that is
 * set and not known here. */
int tf_options_take(const struct telefork_options *given, struct telefork_options *ret_options,
	struct tf_err *e);

/* Fills a result (may be NULL) from an error alone; returns the code. */
int tf_result_from(struct telefork_result *result, const struct tf_err *e);

/* For telefork_why(); returns e->code. */
int tf_say_why(const struct tf_err *e);

/* Opens the channel of a parsed address, greeting included, with an errand (NULL: to bring a
 * process). *ret_offers (may be NULL) is left alone where there is no greeting. A descriptor or an
 * error. */
int tf_dial(const struct tf_address *a, const struct telefork_options *options,
	const struct tf_errand *errand, uint32_t *ret_offers, struct tf_err *e);

/* The same in two steps, between which the receiver has time for its answer. */
struct tf_dialing {
	const struct tf_address *a;
	struct tf_ssh ssh;
	struct tf_io io; /* of the greeting */
	bool greets;
	int fd;
};

/* Connects, and says who it is: d->fd, or an error. a stays the caller's until the second step,
 * which has to follow. */
int tf_dial_start(struct tf_dialing *d, const struct tf_address *a,
	const struct telefork_options *options, const struct tf_errand *errand, struct tf_err *e);

/* d->fd again, or an error: then that is closed. */
int tf_dial_finish(struct tf_dialing *d, uint32_t *ret_offers, struct tf_err *e);

/* The errand of bringing a zygote of that name there. 0, _INVAL, _ADDRESS. */
int tf_zygote_errand(
	const struct tf_address *a, const char *name, struct tf_errand *ret, struct tf_err *e);

/* Asks a receiver about zygotes: what->name as text ("" for a list). The answer's records of size
 * bytes each go to records, at most max of them; *ret_n says how many. 0 or an error. */
int tf_zygote_request(const char *uri, const struct telefork_options *options,
	const struct tf_zygote_ask *ask, void *records, size_t size, uint32_t max, uint32_t *ret_n,
	struct tf_err *e);

/* Forks a snapshot as a job. As tf_snapshot_fork(); in the copy everything is tidied up. */
int tf_job_start(struct tf_snapshot *s, struct telefork_job **ret_job, struct tf_err *e);

/* In a copy, first of all: takes away what the restorer left. */
void tf_copy_arrived(void);

#endif
