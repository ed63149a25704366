/* SPDX-License-Identifier: MIT */
/*
 * A yoyo's way home carries several things at once, in frames {u32 type, u32 size} and size bytes,
 * little-endian:
 *
 *   OUT, ERR  what the copy wrote to its standard output and error
 *   DATA      the stream with the changes
 *   ALIVE     nothing; sent when nothing else was for TF_FRAME_ALIVE_MS
 *   END       i32: the copy's wait(2) status, or -1 if it is not known. The last frame
 */
#ifndef TF_CHANNEL_FRAMES_H
#define TF_CHANNEL_FRAMES_H

#include "core/base/io.h"

#define TF_FRAME_MAX      65536u
#define TF_FRAME_ALIVE_MS 500
#define TF_FRAME_IDLE_MS  2000 /* a reader waits at least so long for the next */

enum tf_frame_type {
	TF_FRAME_OUT = 1,
	TF_FRAME_ERR,
	TF_FRAME_DATA,
	TF_FRAME_ALIVE,
	TF_FRAME_END,
};

struct tf_frame {
	uint32_t type, size;
};

/* Writes one frame. As tf_io_writev. */
int tf_frame_write(
	struct tf_io *io, enum tf_frame_type type, const void *p, uint32_t size, struct tf_err *e);

/* From now on tf_io_read() delivers the DATA; output is written to descriptors 1 and 2 of this
 * process as it passes. An END before the last byte is _CRASHED, with how the copy ended. */
void tf_frames_read(struct tf_io *io);

/* After the last byte of data: passes output on until END. 0, or as tf_io_read; how the copy ended
 * does not matter any more. */
int tf_frames_finish(struct tf_io *io, struct tf_err *e);

#endif
