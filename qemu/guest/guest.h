/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the guest's /init share: init.c (mounts, modules), agent.c (the port and
 * the loop), jobs.c, files.c and setup.c (one request each). Single-threaded, static, and
 * never to exit: pid 1's death is a kernel panic.
 */
#ifndef TF_QEMU_GUEST_H
#define TF_QEMU_GUEST_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qemu/wire.h"

/* Bytes waiting for the host beyond which jobs' pipes are no longer read. */
#define GUEST_OUT_LIMIT (256 * 1024)

/* Everything the agent knows. `out` holds encoded messages for the host. */
struct guest {
	int port;
	int signals; /* signalfd: SIGCHLD, SIGIO */
	bool hup;    /* the host's end is closed; SIGIO will tell */
	struct tf_wire_buf in;
	struct tf_wire_buf out;
};

/* Print a line on the console, for the harness's failure reports. */
void guest_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Serve requests on the open port for ever. */
void guest_serve(int port) __attribute__((noreturn));

/* Whether there is room in the queue to the host for a job's output. */
bool guest_has_room(const struct guest *g);

/* Begin and end a reply to request @tag; between them the reply's own values are written. */
size_t guest_reply_begin(struct guest *g, uint32_t tag, int status);
void guest_reply_end(struct guest *g, size_t mark, uint32_t tag);

/* A reply without values. */
void guest_reply(struct guest *g, uint32_t tag, int status);

/* Requests, each answering with exactly one reply. */
void guest_spawn(struct guest *g, uint32_t tag, struct tf_wire_reader *r);
void guest_stdin(struct guest *g, uint32_t tag, struct tf_wire_reader *r);
void guest_signal(struct guest *g, uint32_t tag, struct tf_wire_reader *r);
void guest_resize(struct guest *g, uint32_t tag, struct tf_wire_reader *r);
void guest_put(struct guest *g, uint32_t tag, struct tf_wire_reader *r);
void guest_get(struct guest *g, uint32_t tag, struct tf_wire_reader *r);
void guest_setup(struct guest *g, uint32_t tag, struct tf_wire_reader *r);

/* The most entries guest_jobs_poll fills in: three pipes for each job. */
#define GUEST_JOB_POLLS (3 * 256)

/* Fill @fds with what the jobs wait for; returns the count. Output only if there is room. */
size_t guest_jobs_poll(struct guest *g, struct pollfd fds[static GUEST_JOB_POLLS]);

/* Move bytes between the jobs' pipes and the queue, a bounded amount for each job. */
void guest_jobs_move(struct guest *g);

/* Whether an exit status waits that could be queued now: then the loop must not sleep. */
bool guest_jobs_due(const struct guest *g);

/* Reap every dead child; statuses of jobs are kept until their EXIT is queued. */
void guest_jobs_reap(void);

/* Bring up an interface with flags; used for lo at boot. 0 or a negative errno. */
int guest_interface_up(const char *name, bool up);

#endif
