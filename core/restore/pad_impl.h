/* SPDX-License-Identifier: MIT */
/* What the two sides of a receiver share: pad.c and pad_child.c. Nobody else includes this. */
#ifndef TF_RESTORE_PAD_IMPL_H
#define TF_RESTORE_PAD_IMPL_H

#include "core/restore/pad.h"

/* The restorer's code, as the linker has put it together. */
extern const uint8_t __start_tf_restorer[], __stop_tf_restorer[];

/* Its bytes. */
uint64_t tf_restorer_size(void);

/* pad_file.c. The head; the head's extents, which are counted, and whose checks have to hold, too;
 * and memory, into the child. 0 or an error in p->err. */
int tf_pad_file_head(struct tf_pad *p);
int tf_pad_file_check(struct tf_pad *p);
int tf_pad_file_pump(struct tf_pad *p);

/* The child has come to extents that are packed, and says so (a report 'p'): until the section ends
 * it reads what was unpacked from the control socket. 0, also if it does not read any more, or as
 * in pad.h; p->err. */
int tf_pad_unpack(struct tf_pad *p, uint64_t deadline_ns);

/* The new process, right after the fork: becomes what the plan says, or reports over control why
 * not. channel: where its memory comes from; ends: its part of a relay. */
_Noreturn void tf_pad_child(
	const struct tf_pad *p, int channel, int control, struct tf_relay_ends *ends);

/* A fork whose child gets this id. -1 with errno. */
pid_t tf_pad_fork_as(int32_t pid);

/* Why there is no child, by errno. The error. */
int tf_pad_explain_fork(struct tf_pad *p);

#endif
