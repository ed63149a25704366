/* SPDX-License-Identifier: MIT */
/*
 * An archive behind a guest's initramfs: the kernel unpacks one after the other. Depends on nothing
 * but what goes in (cpio "newc", Documentation/driver-api/early-userspace/buffer-format.rst).
 */
#ifndef TF_HARNESS_PACK_H
#define TF_HARNESS_PACK_H

#include <stdio.h>
#include <sys/types.h>

#include "qemu/error.h"

struct tf_pack {
	FILE *f;
	char *path;
	unsigned n; /* entries so far */
};

/* Begin the file @path with the content of the archive @before. */
int tf_pack_open(struct tf_pack *p, const char *path, const char *before, struct tf_vm_error *err);

/* Add a folder, a file with this content, or the host's file @from. */
void tf_pack_folder(struct tf_pack *p, const char *name);
void tf_pack_data(struct tf_pack *p, const char *name, mode_t mode, const void *data, size_t len);
int tf_pack_file(struct tf_pack *p, const char *name, mode_t mode, const char *from,
	struct tf_vm_error *err);

/* End it, unless @rc says that something failed. Returns @rc, or what writing failed with. */
int tf_pack_close(struct tf_pack *p, int rc, struct tf_vm_error *err);

#endif
