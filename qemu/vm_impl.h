/* SPDX-License-Identifier: MIT */
/*
 * The inside of struct tf_vm, for vm.c, template.c and the two halves of the agent's host
 * side, wait.c and remote.c. Not for other folders.
 */
#ifndef TF_QEMU_VM_IMPL_H
#define TF_QEMU_VM_IMPL_H

#include "qemu/child.h"
#include "qemu/io.h"
#include "qemu/remote.h"
#include "qemu/vm.h"
#include "qemu/wire.h"

#define TF_VM_CALL_MS    30000 /* one request to the agent, unless told otherwise */
#define TF_VM_QMP_MS     30000
#define TF_VM_MAX_EVENTS (64u << 20) /* bytes of events kept while calls are waited for */
#define TF_VM_MAX_MUTED  64

struct tf_vm {
	struct tf_vm_machine machine;
	struct tf_vm_identity id;
	char *rundir, *console, *log;
	struct tf_vm_child *child;
	struct tf_qmp *qmp;
	int ready_ms, ready_cpu_ms;
	int64_t started_us;

	int ctl;   /* stream to the agent, non-blocking */
	int epoll; /* what tf_vm_fd() returns: ctl, child, wake */
	int wake;  /* eventfd: `events` is not empty */
	bool gone; /* end of stream on ctl: the agent cannot answer any more */
	bool told; /* the `dead` callback has been made */
	uint32_t last_tag;
	struct tf_wire_buf in, out;
	struct tf_wire_buf events;       /* whole messages for tf_vm_dispatch */
	uint32_t muted[TF_VM_MAX_MUTED]; /* jobs whose events nobody wants any more */
};

/* How a QEMU is started beyond its configuration. */
struct tf_vm_launch {
	const char *ram; /* RAM file or NULL */
	bool share;
	bool incoming;
};

/* Start QEMU and open QMP; the agent has not been asked yet. Errors as tf_vm_boot. */
int tf_vm_launch(const struct tf_vm_config *config, const struct tf_vm_launch *how,
	struct tf_vm **ret_vm, struct tf_vm_error *err);

/* The command line of tf_vm_launch, pure; descriptors 3 and 4 are QMP and the agent. */
void tf_vm_command_line(struct tf_vm_args *args, const struct tf_vm_config *config,
	const struct tf_vm_launch *how, const char *console);

/* Wait for the agent's first answer; sets ready_ms and ready_cpu_ms. */
int tf_vm_await_agent(struct tf_vm *vm, int timeout_ms, struct tf_vm_error *err);

/* Open and close the part of @vm that talks to the agent; takes over @ctl. */
int tf_vm_channel_init(struct tf_vm *vm, int ctl);
void tf_vm_channel_done(struct tf_vm *vm);

/* Begin request @type in vm->out; returns the mark for tf_wire_end. Its tag: vm->last_tag. */
size_t tf_vm_request(struct tf_vm *vm, uint16_t type);

/*
 * Send what is in vm->out and wait for the reply to request @tag. Its status is returned;
 * the body after it is appended to *@ret_body (NULL: not wanted). Failures of the channel:
 * -ETIMEDOUT, -ECHILD, -EPROTO, -ENOBUFS, explained in @err as @what; when the agent itself
 * refuses, @err is "@what: errno text".
 */
int tf_vm_reply(struct tf_vm *vm, uint32_t tag, const char *what, int timeout_ms,
	struct tf_wire_buf *ret_body, struct tf_vm_error *err);

/* Wait until something arrives (0), @timeout_ms passes (-ETIMEDOUT) or the vm is dead. */
int tf_vm_receive(struct tf_vm *vm, int timeout_ms);

/* Move what has been received so far into the event queue; late replies are dropped. */
int tf_vm_sort_events(struct tf_vm *vm, struct tf_vm_error *err);

/* Drop the events of @job from now on, until it is closed. */
void tf_vm_mute(struct tf_vm *vm, uint32_t job);

/* Make the eventfd agree with whether there are events. */
void tf_vm_update_wake(struct tf_vm *vm);

#endif
