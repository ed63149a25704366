/* SPDX-License-Identifier: MIT */
/* The receiver's side of core/image/known.h. */
#ifndef TF_RESTORE_KNOWN_H
#define TF_RESTORE_KNOWN_H

#include "core/restore/pad.h"

/* Tells the sender which of the image's files are here. 0, or as tf_io_write(). */
int tf_known_tell(struct tf_pad *p);

/* Of a post-copy, before the plan: of image.known what is here, p->stay, which is not to come; the
 * rest of image.later stays. When there is a plan: tells the sender of it. 0, _NOMEM; 0, or as
 * tf_io_write(). */
int tf_known_choose(struct tf_pad *p);
int tf_known_answer(struct tf_pad *p);

/* Once the new process has mapped them: whether what it mapped is what was told. 0, or
 * _INCOMPATIBLE: a file was exchanged meanwhile. */
int tf_known_check(struct tf_pad *p);

#endif
