/* SPDX-License-Identifier: MIT */
/*
 * container USER COMMAND [ARGUMENT...]: runs it as a container's default would: the system call
 * filter that Docker and Podman have for who asks for nothing, an ordinary user, no transparent
 * huge pages. What their list lets through only for a capability is forbidden, as a user has none.
 * Started by who is no root it stays what it is, with no_new_privs in the place of that.
 */
#include <errno.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NAMESPACES                                                                    \
	(CLONE_NEWCGROUP | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID | \
		CLONE_NEWUSER | CLONE_NEWUTS)

static const uint16_t forbidden[] = {
	SYS_acct,
	SYS_add_key,
	SYS_bpf,
	SYS_chroot,
	SYS_clock_adjtime,
	SYS_clock_settime,
	SYS_delete_module,
	SYS_fanotify_init,
	SYS_finit_module,
	SYS_fsconfig,
	SYS_fsmount,
	SYS_fsopen,
	SYS_fspick,
	SYS_init_module,
	SYS_io_uring_enter,
	SYS_io_uring_register,
	SYS_io_uring_setup,
#ifdef SYS_ioperm
	SYS_ioperm,
#endif
#ifdef SYS_iopl
	SYS_iopl,
#endif
	SYS_kcmp,
	SYS_kexec_file_load,
	SYS_kexec_load,
	SYS_keyctl,
	SYS_lookup_dcookie,
	SYS_mbind,
	SYS_mount,
	SYS_mount_setattr,
	SYS_move_mount,
	SYS_move_pages,
	SYS_open_by_handle_at,
	SYS_open_tree,
	SYS_perf_event_open,
	SYS_pidfd_getfd,
	SYS_pivot_root,
	SYS_process_madvise,
	SYS_quotactl,
	SYS_quotactl_fd,
	SYS_reboot,
	SYS_request_key,
	SYS_set_mempolicy,
	SYS_setdomainname,
	SYS_sethostname,
	SYS_setns,
	SYS_settimeofday,
	SYS_swapoff,
	SYS_swapon,
	SYS_syslog,
	SYS_umount2,
	SYS_unshare,
	SYS_userfaultfd,
	SYS_vhangup,
};

static int fail(const char *what, int err)
{
	fprintf(stderr, "container: %s: %s\n", what, strerror(err));
	return 125;
}

#define LOAD(field)            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ANSWER(what)           BPF_STMT(BPF_RET | BPF_K, (what))
#define JUMP(if_, value, y, n) BPF_JUMP(BPF_JMP | BPF_##if_ | BPF_K, (value), (y), (n))
#define NO(error)              (SECCOMP_RET_ERRNO | (error))

/* Of the calls whose arguments count: the low half, which all of these have their values in. */
static const struct sock_filter by_arguments[] = {
	JUMP(JEQ, SYS_clone, 0, 4),
	LOAD(args[0]),
	JUMP(JSET, NAMESPACES, 0, 1),
	ANSWER(NO(EPERM)),
	ANSWER(SECCOMP_RET_ALLOW),
	JUMP(JEQ, SYS_socket, 0, 4),
	LOAD(args[0]),
	JUMP(JEQ, AF_VSOCK, 0, 1),
	ANSWER(NO(EPERM)),
	ANSWER(SECCOMP_RET_ALLOW),
	JUMP(JEQ, SYS_personality, 0, 8),
	LOAD(args[0]),
	JUMP(JEQ, PER_LINUX, 4, 0),
	JUMP(JEQ, PER_LINUX32, 3, 0),
	JUMP(JEQ, UNAME26, 2, 0),
	JUMP(JEQ, PER_LINUX32 | UNAME26, 1, 0),
	JUMP(JEQ, 0xffffffff, 0, 1),
	ANSWER(SECCOMP_RET_ALLOW),
	ANSWER(NO(EPERM)),
	ANSWER(SECCOMP_RET_ALLOW),
};

static int filter(void)
{
	enum {
		N = sizeof(forbidden) / sizeof(*forbidden),
		MORE = sizeof(by_arguments) / sizeof(*by_arguments)
	};
	struct sock_filter code[2 * N + MORE + 8], *at = code;
	struct sock_fprog program = {.filter = code};

	*at++ = (struct sock_filter)LOAD(nr);
	for (unsigned i = 0; i < N; i++) {
		*at++ = (struct sock_filter)JUMP(JEQ, forbidden[i], 0, 1);
		*at++ = (struct sock_filter)ANSWER(NO(EPERM));
	}
	/* Its flags are in memory, where no filter sees them. */
	*at++ = (struct sock_filter)JUMP(JEQ, SYS_clone3, 0, 1);
	*at++ = (struct sock_filter)ANSWER(NO(ENOSYS));
	memcpy(at, by_arguments, sizeof(by_arguments));
	at += MORE;
	program.len = (unsigned short)(at - code);
	if (geteuid() && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) ? -errno : 0;
}

int main(int argc, char **argv)
{
	uid_t user = argc > 2 ? (uid_t)atoi(argv[1]) : 0;
	int rc;

	if (argc < 3 || !user) {
		fputs("usage: container USER COMMAND [ARGUMENT...]; USER: a number, not 0\n",
			stderr);
		return 64;
	}
	if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0))
		return fail("huge pages", errno);
	rc = filter();
	if (rc)
		return fail("filter", -rc);
	if (!geteuid() && (setgroups(0, NULL) || setgid(user) || setuid(user)))
		return fail("user", errno);
	execvp(argv[2], argv + 2);
	return fail(argv[2], errno);
}
