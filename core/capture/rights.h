/* SPDX-License-Identifier: MIT */
/* Credentials of a thread, from /proc. */
#ifndef TF_CAPTURE_RIGHTS_H
#define TF_CAPTURE_RIGHTS_H

#include "core/image/image.h"

/* Reads ids, groups (into the arena) and capabilities of a text like /proc/PID/status; securebits
 * stay 0 and group, too. 0, _SYSTEM if it is no such text, _NOMEM. */
int tf_rights_parse(
	const char *status, struct tf_rights *r, uint32_t **ret_groups, struct tf_arena *a);

#endif
