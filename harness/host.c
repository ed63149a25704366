/* SPDX-License-Identifier: MIT */
/* See host.h: filters of containers, and Yama. */
#include "harness/host.h"

#include <linux/capability.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qemu/io.h"

#define YAMA "/proc/sys/kernel/yama/ptrace_scope"

static uint64_t number_of(const char *text, const char *label, int base)
{
	const char *at = text ? strstr(text, label) : NULL;

	return at ? strtoull(at + strlen(label), NULL, base) : 0;
}

/* What telebed starts has its filters. telefork reads those of others only where it has none itself
 * (PTRACE_SECCOMP_GET_FILTER), and moves nothing whose filters it cannot read. */
bool tf_host_looks(char why[static 256])
{
	tf_vm_autofree char *status = tf_vm_file_tail("/proc/self/status", 1 << 16);
	tf_vm_autofree char *yama = tf_vm_file_tail(YAMA, 16);
	bool traces = number_of(status, "\nCapEff:", 16) >> CAP_SYS_PTRACE & 1;
	unsigned long scope = yama ? strtoul(yama, NULL, 10) : 0;

	why[0] = '\0';
	if (number_of(status, "\nSeccomp:", 10))
		snprintf(why, 256,
			"telebed has system call filters (a container's), and telefork takes nothing "
			"along whose filters it cannot read: a container without them "
			"(--security-opt seccomp=unconfined), or machines of tier system");
	else if (scope > 2 || (scope && !traces))
		snprintf(why, 256,
			"kernel.yama.ptrace_scope is %lu here, so that nobody looks at a process that "
			"is not below him: %smachines of tier system",
			scope,
			scope > 2 ? "" : "sysctl kernel.yama.ptrace_scope=0, CAP_SYS_PTRACE, or ");
	return !why[0];
}
