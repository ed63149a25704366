/* SPDX-License-Identifier: MIT */
/*
 * The host's side of the guest agent: run programs in a guest, several at once, with their
 * output streamed; move files; set up a guest's identity. Calls that wait for an answer keep
 * the job events that arrive meanwhile; tf_vm_dispatch() delivers those first.
 */
#ifndef TF_QEMU_REMOTE_H
#define TF_QEMU_REMOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "qemu/error.h"
#include "qemu/vm.h"

/* What became of jobs; every member may be NULL. Called from tf_vm_dispatch and tf_vm_wait. */
struct tf_vm_callbacks {
	void *arg;
	/* @stream is 1 (stdout) or 2 (stderr); @data is valid during the call only. */
	void (*output)(void *arg, struct tf_vm *vm, uint32_t job, int stream, const void *data,
		size_t len);
	/* The job's first process ended with the wait(2) status @status; its output came before. */
	void (*exit)(void *arg, struct tf_vm *vm, uint32_t job, int status);
	/* After exit: nobody holds the job's stdout and stderr any more. The id is free again. */
	void (*closed)(void *arg, struct tf_vm *vm, uint32_t job);
	/* QEMU or the channel to the agent is gone; called once for each vm. */
	void (*dead)(void *arg, struct tf_vm *vm, const struct tf_vm_error *why);
};

/* How to start a job. Zero-initialise; only argv is necessary. All strings are borrowed. */
struct tf_vm_command {
	const char *const *argv; /* argv[0] is looked up in PATH if it has no slash */
	const char *const *env;  /* complete environment, or NULL for PATH, HOME, TERM */
	const char *cwd;         /* NULL: "/" */
	bool stdin_pipe;         /* tf_vm_stdin will be used; else stdin is /dev/null */
	bool tty;                /* stdin, stdout and stderr are a terminal of its own */
};

/* A finished command. Release with tf_vm_result_done. */
struct tf_vm_result {
	int status; /* wait(2) status; -1 if it did not end */
	uint32_t job;
	char *out, *err; /* NUL-terminated after out_len, err_len bytes */
	size_t out_len, err_len;
	bool truncated; /* more came than was wanted; the rest was thrown away */
	int elapsed_ms;
};

/* Free the buffers; *@r is zero afterwards. */
void tf_vm_result_done(struct tf_vm_result *r);

/* Round trip to the agent; *@ret_us (may be NULL) in microseconds. -ETIMEDOUT, -ECHILD. */
int tf_vm_ping(struct tf_vm *vm, int timeout_ms, int64_t *ret_us, struct tf_vm_error *err);

/*
 * Start a job, in a session and process group of its own. *@ret_job is its id (never 0) and
 * *@ret_pid (may be NULL) its pid in the guest. What execve(2) or chdir(2) said in the guest
 * is returned as it is (-ENOENT, -ENOEXEC, ...); -E2BIG if the arguments exceed 60,000 bytes.
 */
int tf_vm_spawn(struct tf_vm *vm, const struct tf_vm_command *cmd, uint32_t *ret_job,
	pid_t *ret_pid, struct tf_vm_error *err);

/*
 * Give @len bytes to the job's stdin; @len 0 closes it. -EAGAIN if the job has not yet read
 * the previous ones (1 MiB is kept in the guest), -EPIPE if it closed its stdin, -ESRCH.
 */
int tf_vm_stdin(
	struct tf_vm *vm, uint32_t job, const void *data, size_t len, struct tf_vm_error *err);

/* The terminal of a job with one gets a size. -ESRCH if it has ended. */
int tf_vm_resize(struct tf_vm *vm, uint32_t job, unsigned int rows, unsigned int columns,
	struct tf_vm_error *err);

/* Send @signo (numbered as in the guest) to the job's process group. -ESRCH if it has ended. */
int tf_vm_signal(struct tf_vm *vm, uint32_t job, int signo, struct tf_vm_error *err);

/*
 * Run a command to its end, collecting at most @max_bytes of each stream. A command that does
 * not end in @timeout_ms is killed with its whole group: -ETIMEDOUT, with the output so far
 * in *@ret. Events of other jobs are kept for tf_vm_dispatch. *@ret is valid after failure too.
 */
int tf_vm_run(struct tf_vm *vm, const struct tf_vm_command *cmd, size_t max_bytes, int timeout_ms,
	struct tf_vm_result *ret, struct tf_vm_error *err);

/*
 * Copy a host file into the guest, with permission bits @mode; it appears under its name only
 * when complete, folders on the way are made. -ETIMEDOUT if one chunk is not taken in 30 s.
 */
int tf_vm_put(struct tf_vm *vm, const char *host_path, const char *guest_path, mode_t mode,
	struct tf_vm_error *err);

/* The same from memory. */
int tf_vm_put_data(struct tf_vm *vm, const void *data, size_t len, const char *guest_path,
	mode_t mode, struct tf_vm_error *err);

/* Copy a guest's file to the host (written under a temporary name, mode 0600, renamed). */
int tf_vm_get(
	struct tf_vm *vm, const char *guest_path, const char *host_path, struct tf_vm_error *err);

/*
 * A guest's file in memory (malloc'ed, NUL-terminated after *@ret_len bytes); works for /proc.
 * -EFBIG beyond @max_bytes.
 */
int tf_vm_get_data(struct tf_vm *vm, const char *guest_path, size_t max_bytes, char **ret_data,
	size_t *ret_len, struct tf_vm_error *err);

/*
 * Give the guest its identity, the host's wall clock and fresh random bytes. tf_vm_boot and
 * tf_vm_clone do it; call it again after a machine was paused for long.
 */
int tf_vm_setup(struct tf_vm *vm, const struct tf_vm_identity *id, struct tf_vm_error *err);

/* Orderly power-off; returns when QEMU has ended or after @timeout_ms (-ETIMEDOUT). */
int tf_vm_poweroff(struct tf_vm *vm, int timeout_ms, struct tf_vm_error *err);

/* A descriptor, owned by @vm, that polls readable when tf_vm_dispatch has something to do. */
int tf_vm_fd(const struct tf_vm *vm);

/*
 * Deliver what has arrived, without waiting. Returns the number of callbacks made, or a
 * negative code once @vm is dead (after `dead` was called). Callbacks may call everything in
 * this header except tf_vm_free, tf_vm_dispatch and tf_vm_wait.
 */
int tf_vm_dispatch(struct tf_vm *vm, const struct tf_vm_callbacks *cb);

/*
 * Wait up to @timeout_ms until at least one of @n machines has something, and dispatch them
 * all. Returns the number of callbacks made; 0 is a timeout. Dead machines (after their `dead`
 * callback) and NULL entries are passed over; -ECHILD if there is no living one.
 */
int tf_vm_wait(
	struct tf_vm *const vms[], size_t n, const struct tf_vm_callbacks *cb, int timeout_ms);

#endif
