/* SPDX-License-Identifier: MIT */
/*
 * A machine as a scenario sees it, whatever stands behind the name: the host itself (native), QEMU
 * user mode on the host (user), a QEMU guest (system). Files go to a private folder of the machine;
 * programs run there as jobs whose output is kept. Machines and jobs belong to one thread.
 *
 * Everything that is started here ends with the harness, also with kill -9 (qemu/child.h).
 */
#ifndef TF_HARNESS_REMOTE_H
#define TF_HARNESS_REMOTE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "qemu/error.h"
#include "qemu/link.h"
#include "qemu/vm.h"

enum tf_tier {
	TF_TIER_NATIVE,
	TF_TIER_USER,
	TF_TIER_SYSTEM,
	TF_TIER_ICOUNT, /* no struct tf_remote: see alone.h */
	TF_TIERS,
};

enum tf_transport {
	TF_TRANSPORT_FILE,
	TF_TRANSPORT_UNIX,
	TF_TRANSPORT_TCP,
	TF_TRANSPORTS,
};

extern const char *const tf_tier_names[TF_TIERS];
extern const char *const tf_transport_names[TF_TRANSPORTS];

/* What is asked of a machine. Two of equal specification, byte by byte, are interchangeable. */
struct tf_spec {
	char arch[16]; /* of its programs */
	enum tf_tier tier;
	char on[16];         /* system: the machine's own architecture, programs run under
				qemu-ARCH there; "": the same */
	char kernel[256];    /* system: "": Debian's own; which guest of the Makefile; or a path */
	char initramfs[256]; /* system: a path; "": that of the kernel */
	char cpu[128];       /* QEMU's -cpu; "": the default of the architecture */
	char qemu[128];      /* QEMU's program; "": the one in PATH */
	char board[64];      /* system: further properties of QEMU's -M, with commas between */
	unsigned memory_mib; /* system; 0: the default */
	unsigned cores;      /* system; 0: one */
	unsigned page_kib;   /* system; 0: 4 */
	unsigned vector_length; /* longest SVE vector in bytes; 0: what the CPU model has */
};

/* What all machines of one run share. Strings are borrowed. */
struct tf_site {
	const char *root;     /* the build folder's parent: build/guest, build/<arch> are below */
	const char *variant;  /* of the build, "" or "-address" */
	char *folder;         /* of this set of machines: each has a folder in it */
	char cache[4096];     /* templates */
	struct tf_link *link; /* started with the first system machine */
	unsigned count;       /* machines so far */
	uint64_t seed;        /* of what their kernels draw at random; 0: the host's */
};

/* Output kept of one job's stream, at most; what comes beyond is dropped. */
#define TF_JOB_OUTPUT_MAX ((size_t)1 << 20)

/* How a job is started; any of them. */
#define TF_JOB_RECEIVER                                                          \
	1u /* it will turn itself into other programs: QEMU user mode needs room \
	    */
#define TF_JOB_HELD                                                                  \
	2u /* its standard input does not end before tf_job_let_go; else it is empty \
	    */

/* A program on a machine. Read-only for others; freed by tf_job_free or with its machine. */
struct tf_job {
	struct tf_job *next;
	struct tf_remote *remote;
	char name[64];
	char *text[2]; /* stdout and stderr so far, NUL-terminated */
	size_t len[2];
	bool ended;                /* status is valid */
	bool closed;               /* nobody holds the streams any more */
	int status;                /* wait(2) */
	pid_t pid;                 /* on its machine */
	uint32_t id;               /* system */
	struct tf_vm_child *child; /* native, user */
	int pipe[2];
	int input; /* native, user: our end of a held one's standard input, or -1 */
	bool held;
};

struct tf_remote_ops;

struct tf_remote {
	const struct tf_remote_ops *ops;
	struct tf_spec spec;
	char name[32];        /* as the last scenario called it */
	char engine[32];      /* the engine whose files have been put there, or "" */
	char *folder;         /* on the host: its logs; for native and user also its files */
	const char *dir;      /* the machine's own name of the folder for files */
	const char *variable; /* native, user: NAME=VALUE that jobs are started with; or NULL */
	struct tf_job *jobs;
	struct tf_vm_error why; /* text: why it is dead */
	bool dead;
	int ready_ms;     /* from nothing to the first answer */
	int ready_cpu_ms; /* of that, at work */
	json_t *facts;    /* facts.h; or NULL */
};

/* One tier: what differs. Errors are negative errno values with a text. */
struct tf_remote_ops {
	/* As tf_remote_put and tf_remote_get, with full names on both sides. */
	int (*put)(struct tf_remote *r, const char *host_path, const char *path, mode_t mode,
		struct tf_vm_error *err);
	int (*get)(struct tf_remote *r, const char *path, const char *host_path,
		struct tf_vm_error *err);
	/* Starts @argv; @job is filled in as far as its tier needs. @how: TF_JOB_*. */
	int (*start)(struct tf_remote *r, const char *const argv[], unsigned how,
		struct tf_job *job, struct tf_vm_error *err);
	/* Ends the standard input of one that is held. */
	int (*let_go)(struct tf_job *job, struct tf_vm_error *err);
	/* @signo to the job's process group, which a process that it received belongs to. */
	void (*signal)(struct tf_job *job, int signo);
	/* Releases the tier's part of a job. */
	void (*drop)(struct tf_job *job);
	/* As tf_job_ask. */
	int (*ask)(struct tf_job *job, pid_t pid, int signo, const char *name, int limit_ms,
		struct tf_vm_error *err);
	/* A descriptor that polls readable when `pump` has something to do. */
	int (*fd)(const struct tf_remote *r);
	/* Takes in what has arrived, without waiting; sets dead and why if the machine is gone. */
	void (*pump)(struct tf_remote *r);
	/* The address that a receiver on this machine listens at. */
	int (*address)(const struct tf_remote *r, enum tf_transport transport, char *buf,
		size_t size, struct tf_vm_error *err);
	/* Whether it still answers. */
	bool (*well)(struct tf_remote *r);
	/* @ms in proportion to the machine's speed. */
	int (*scale)(const struct tf_remote *r, int ms);
	/* The guest, or NULL. */
	struct tf_vm *(*vm)(const struct tf_remote *r);
	/* Ends the machine, frees all of it but the common part. */
	void (*end)(struct tf_remote *r);
};

/* Starts a machine. -EINVAL: no such machine can exist here; else what tf_vm_clone says. */
int tf_remote_new(struct tf_site *site, const struct tf_spec *spec, const char *name,
	struct tf_remote **ret, struct tf_vm_error *err);

/* The two kinds of tf_remote_new (remote_guest.c, remote_host.c); they set all but the common part.
 */
int tf_remote_new_guest(struct tf_site *site, struct tf_remote *common, struct tf_remote **ret,
	struct tf_vm_error *err);
int tf_remote_new_host(struct tf_site *site, struct tf_remote *common, struct tf_remote **ret,
	struct tf_vm_error *err);

/* Ends the machine and its jobs. NULL is fine. Log files stay. */
void tf_remote_free(struct tf_remote *r);

/* Ends what is shared. */
void tf_site_done(struct tf_site *site);

/* The full name, on the machine, of the file @name in its folder. */
const char *tf_remote_path(const struct tf_remote *r, const char *name, char *buf, size_t size);

/* Copies the host's file to the machine's folder as @name, with permission bits @mode. */
int tf_remote_put(struct tf_remote *r, const char *host_path, const char *name, mode_t mode,
	struct tf_vm_error *err);

/* Copies the file @name out of the machine's folder to the host. */
int tf_remote_get(
	struct tf_remote *r, const char *name, const char *host_path, struct tf_vm_error *err);

/*
 * Starts argv on the machine; argv[0] is a full name there. @how: TF_JOB_*. The job's name, for
 * messages, is the last part of argv[0].
 */
int tf_job_start(struct tf_remote *r, const char *const argv[], unsigned how, struct tf_job **ret,
	struct tf_vm_error *err);

/* Ends the standard input of a job that was held. Nothing to do if it was not, or has ended. */
int tf_job_let_go(struct tf_job *job, struct tf_vm_error *err);

/*
 * Waits until @job has said a whole line on stream @stream (0 stdout, 1 stderr) that begins with
 * @word; *@ret_line (may be NULL) is what follows the word, malloc'ed. With @word NULL: until it
 * has ended and its streams are closed. All @n machines of @set are attended to meanwhile, and the
 * death of any of them ends the wait (-ECHILD). 0; -ETIMEDOUT; -ESRCH: the job ended without that
 * line.
 */
int tf_job_wait(struct tf_remote *const set[], size_t n, struct tf_job *job, int stream,
	const char *word, char **ret_line, int limit_ms, struct tf_vm_error *err);

/* Sends @signo to the job's process group: also to a process that a receiver has received. */
void tf_job_signal(struct tf_job *job, int signo);

/*
 * Sends @signo to the process @pid, which is @job's or has been received by it, and waits until the
 * new file @name is there, complete, in the machine's folder. -ETIMEDOUT, -ESRCH.
 */
int tf_job_ask(struct tf_job *job, pid_t pid, int signo, const char *name, int limit_ms,
	struct tf_vm_error *err);

/* How it ended, or that it runs, in words. */
const char *tf_job_fate(const struct tf_job *job, char *buf, size_t size);

/* Kills the job and what it started, and frees it. NULL is fine. */
void tf_job_free(struct tf_job *job);

/* For the tiers: keep output; find a job by the guest's number. */
void tf_job_keep(struct tf_job *job, int stream, const void *data, size_t len);
struct tf_job *tf_job_find(struct tf_remote *r, uint32_t id);

#endif
