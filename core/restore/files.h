/* SPDX-License-Identifier: MIT */
/* Files that a restored process has to find here. */
#ifndef TF_RESTORE_FILES_H
#define TF_RESTORE_FILES_H

#include <linux/capability.h>
#include <sys/stat.h>

#include "core/restore/facts.h"

/* Looks for the working directory and each file that the copy would open (tf_restore_opens): every
 * one that is deleted at the source, missing, of another kind, too short or not to be opened so is
 * named in e, one a line. hold false: 0
 * or _INCOMPATIBLE. hold true: 0; their descriptors' kind becomes TF_FD_OTHER, so that the plan
 * only holds their numbers, and the copy stays in the receiver's directory. */
int tf_files_check(struct tf_image *img, bool hold, struct tf_err *e);

/* Opens what is of that type (S_IFMT), and touches nothing else: opening a device may do something.
 * A descriptor, or -1 with errno; 0: it is of another type. */
int tf_files_open(const char *path, int flags, mode_t type, struct stat *st);

/* Capabilities that open files, or let them be made, where ids do not. */
#define TF_FILE_CAPS                                                             \
	(UINT64_C(1) << CAP_CHOWN | UINT64_C(1) << CAP_DAC_OVERRIDE |            \
		UINT64_C(1) << CAP_DAC_READ_SEARCH | UINT64_C(1) << CAP_FOWNER | \
		UINT64_C(1) << CAP_FSETID | UINT64_C(1) << CAP_LINUX_IMMUTABLE | \
		UINT64_C(1) << CAP_MKNOD)

/* Whether the program may open other files than the receiver. */
bool tf_files_other(const struct tf_image *img, const struct tf_facts *f);

struct tf_files_as {
	bool other; /* the program has other ids than the receiver */
	int dumpable, signo;
};

/* Until tf_files_back() paths lead this thread where the program's ids may go: a name in an image
 * may be a link here, made by the program's user. For a receiver that gives it other ids than its
 * own; after tf_fit(). */
void tf_files_as(struct tf_files_as *as, const struct tf_image *img, const struct tf_facts *f);
void tf_files_back(
	const struct tf_files_as *as, const struct tf_image *img, const struct tf_facts *f);

#endif
