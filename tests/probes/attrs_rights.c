/* SPDX-License-Identifier: MIT */
/* Credentials and filters of its own for each thread; see attrs.h. System calls only: the C library
 * would change all threads. */
#include "tests/probes/attrs.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BIT(cap) (1u << (cap))

static void set_caps(uint32_t p, uint32_t e, uint32_t i)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct sets[2] = {{e, p, i}};

	attrs_need(!syscall(SYS_capset, &head, sets), "set capabilities");
}

void attrs_change_rights(unsigned thread)
{
	const gid_t groups[] = {5, 77 + thread, 100000};
	const uid_t id = 4000 + 10 * thread;

	attrs_need(!prctl(PR_CAPBSET_DROP, CAP_SYS_MODULE, 0, 0, 0) &&
			   !prctl(PR_CAPBSET_DROP, thread ? CAP_SYS_BOOT : CAP_SYS_TIME, 0, 0, 0),
		"drop a capability");
	attrs_need(!syscall(SYS_setgroups, 3, groups), "set groups");
	attrs_need(!syscall(SYS_setresgid, id, id + 1, id + 2), "set a gid");
	attrs_need(!prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "keep capabilities");
	attrs_need(!syscall(SYS_setresuid, id + 3, id + 4, id + 5), "set a uid");
	set_caps(~BIT(CAP_SYS_RESOURCE) & ~BIT(CAP_SYS_PACCT),
		BIT(CAP_SETPCAP) | BIT(CAP_SETUID) | BIT(CAP_SETGID), BIT(CAP_CHOWN));
	syscall(SYS_setfsgid, id + 6);
	syscall(SYS_setfsuid, id + 7);
	if (thread == 1)
		attrs_need(!prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0),
			"raise an ambient capability");
	if (thread == 2)
		attrs_need(!prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS, 0,
				   0, 0),
			"set securebits");
	set_caps(BIT(CAP_CHOWN) | BIT(CAP_NET_RAW) | BIT(thread), BIT(CAP_NET_RAW), BIT(CAP_CHOWN));
}

/* nr answers error where its first argument is arg; everything else is let through. */
static void answer(long nr, uint32_t arg, uint32_t error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)nr, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, arg, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {sizeof(code) / sizeof(*code), code};

	attrs_need(!syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog), "set a filter");
}

/* Thread 1 may not gain privileges; thread 2 sets its filter because it is root. */
void attrs_filter(unsigned thread)
{
	answer(SYS_getpriority, 77, EDOM + thread);
	if (thread == 1)
		answer(SYS_getsid, UINT32_MAX, ERANGE);
	else
		answer(SYS_prctl, PR_MCE_KILL, ENOANO);
}
