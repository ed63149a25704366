/* SPDX-License-Identifier: MIT */
/* The receiver's side of core/image/known.h. */
#ifndef TF_RESTORE_KNOWN_H
#define TF_RESTORE_KNOWN_H

#include "core/restore/pad.h"

/* Tells the sender which of the image's files are here. 0, or as tf_io_write(). */
int tf_known_tell(struct tf_pad *p);

/* Once the new process has mapped them: whether what it mapped is what was told. 0, or
 * _INCOMPATIBLE: a file was exchanged meanwhile. */
int tf_known_check(struct tf_pad *p);

#endif
