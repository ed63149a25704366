/* SPDX-License-Identifier: MIT */
/* Files that a restored process has to find here. */
#ifndef TF_RESTORE_FILES_H
#define TF_RESTORE_FILES_H

#include "core/image/image.h"

/* Looks for the working directory and each file that the copy would open (tf_restore_opens): every
 * one that is deleted at the source, missing, of another kind, too short or not to be opened so is
 * named in e, one a line. hold false: 0
 * or _INCOMPATIBLE. hold true: 0; their descriptors' kind becomes TF_FD_OTHER, so that the plan
 * only holds their numbers, and the copy stays in the receiver's directory. */
int tf_files_check(struct tf_image *img, bool hold, struct tf_err *e);

#endif
