/* SPDX-License-Identifier: MIT */
/* From the program's own path to the build that it belongs to. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/command.h"
#include "qemu/io.h"
#include "qemu/machine.h"

/* Cuts the last part of a path off; the part, or NULL. */
static char *cut(char *path)
{
	char *slash = strrchr(path, '/');

	if (slash)
		*slash = '\0';
	return slash ? slash + 1 : NULL;
}

int tf_home_find(struct tf_home *p, struct tf_vm_error *err)
{
	ssize_t n = readlink("/proc/self/exe", p->exe, sizeof(p->exe) - 1);
	const char *folder, *arch = tf_vm_host_arch();

	if (n < 0)
		return tf_vm_fail_errno(err, -errno, "/proc/self/exe");
	p->exe[n] = '\0';
	memcpy(p->root, p->exe, (size_t)n + 1);
	cut(p->root);
	cut(p->root);
	folder = cut(p->root);
	if (!folder || strncmp(folder, arch, strlen(arch)) != 0)
		return tf_vm_fail(err, -ENOENT,
			"%s: not in build/%s/bin, so the probes of this build are not to be found",
			p->exe, arch);
	snprintf(p->variant, sizeof(p->variant), "%s", folder + strlen(arch));
	cut(p->root);
	return 0;
}

void tf_home_programs(const struct tf_home *p)
{
	const char *path = getenv("PATH");
	tf_vm_autofree char *all =
		tf_vm_format("%s%s%s/build/qemu", path ? path : "", path ? ":" : "", p->root);

	if (all)
		setenv("PATH", all, 1);
}
