/* SPDX-License-Identifier: MIT */
/*
 * Whole reads and writes on a channel's descriptor, bounded in time: idle_ms without a byte, or a
 * deadline, end them. Never raises SIGPIPE on sockets (elsewhere the caller blocks it). Does not
 * change the descriptor's flags, which others share. Safe in a forked child.
 */
#ifndef TF_BASE_IO_H
#define TF_BASE_IO_H

#include <stdint.h>
#include <stdbool.h>
#include <sys/uio.h>
#include <time.h>

#include "core/base/err.h"

#define TF_IDLE_DEFAULT_MS 30000

struct tf_io {
	int fd;
	bool socket;             /* send and recv with MSG_DONTWAIT */
	int idle_ms;             /* > 0 */
	uint64_t deadline_ns;    /* CLOCK_MONOTONIC; 0: none */
	uint64_t sent, received; /* bytes */
	/* Bytes come in frames (channel/frames.h): left in this one, and what looks for the next.
	 * NULL: they come as they are. */
	uint32_t frame_left;
	int (*next_frame)(struct tf_io *io, struct tf_err *e);
	bool heed; /* writing: an answer that comes early (a refusal) ends it with _CLOSED, */
	/* unless it is looked for: 1 if it was taken, 0 if it is another, or an error. */
	int (*told)(struct tf_io *io, struct tf_err *e);
	void *told_ctx;
};

/* Nanoseconds of a clock of clock_gettime(2), and of CLOCK_MONOTONIC. */
uint64_t tf_clock_ns(clockid_t clock);
uint64_t tf_now_ns(void);

/* Looks at fd and takes the time limits of o (NULL: defaults); the deadline starts now. */
void tf_io_init(struct tf_io *io, int fd, const struct telefork_options *o);

/* Gives a unix socket room for more unsent bytes, as far as the system allows (net.core.wmem_max),
 * so that one side checks while the other one reads; TCP sees to that itself. Returns what
 * tf_io_narrow() puts back, for it is a property of the socket, which others share. */
int tf_io_widen(const struct tf_io *io);
void tf_io_narrow(const struct tf_io *io, int before);

/* Waits for what told() looks for. 0, _CLOSED: something else has come, or as tf_io_read(). */
int tf_io_heed(struct tf_io *io, struct tf_err *e);

/* Writes all of iov (which is used up). 0, _CLOSED, _TIMEOUT, _IO. n <= 1024. */
int tf_io_writev(struct tf_io *io, struct iovec *iov, int n, struct tf_err *e);
int tf_io_write(struct tf_io *io, const void *p, size_t n, struct tf_err *e);

/* Reads exactly n bytes. 0, _CLOSED (end of file, also in the middle), _TIMEOUT, _IO. */
int tf_io_read(struct tf_io *io, void *p, size_t n, struct tf_err *e);

/* The same past the frames. */
int tf_io_read_raw(struct tf_io *io, void *p, size_t n, struct tf_err *e);

/* Writes n bytes at an offset of a regular file. 0 or _IO. */
int tf_io_pwrite(int fd, const void *p, size_t n, uint64_t offset, struct tf_err *e);

/* Reads exactly n bytes at an offset. 0, _IO, _IMAGE when the file is shorter. */
int tf_io_pread(int fd, void *p, size_t n, uint64_t offset, struct tf_err *e);

#endif
