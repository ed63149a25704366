/* SPDX-License-Identifier: MIT */
/*
 * Small things about files and time that every part of the qemu floor needs.
 */
#ifndef TF_QEMU_IO_H
#define TF_QEMU_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "qemu/error.h"

/* Cleanup attributes: close a descriptor that is >= 0, free a pointer. */
void tf_vm_close_fd(int *fd);
void tf_vm_free_ptr(void *pointer_to_pointer);
#define tf_vm_autoclose __attribute__((cleanup(tf_vm_close_fd)))
#define tf_vm_autofree  __attribute__((cleanup(tf_vm_free_ptr)))

/* CLOCK_MONOTONIC in milliseconds and microseconds. */
int64_t tf_vm_now_ms(void);
int64_t tf_vm_now_us(void);

/* Milliseconds from now until @deadline_ms (as of tf_vm_now_ms), never below 0. */
int tf_vm_left_ms(int64_t deadline_ms);

/*
 * The last @max bytes of the file @path, from the start of a line, as a malloc'ed string
 * without control characters; "" if there is no such file. NULL only without memory.
 */
char *tf_vm_file_tail(const char *path, size_t max);

/* Write all @len bytes to @fd. 0 or a negative errno; @fd may be non-blocking (then it polls). */
int tf_vm_write_all(int fd, const void *data, size_t len);

/* Make the file @path, mode 0600, with this text, under a temporary name first. */
int tf_vm_write_file(const char *path, const void *data, size_t len, struct tf_vm_error *err);

/* Copy the file @from to @to, mode 0600; what is there is replaced. */
int tf_vm_copy_file(const char *from, const char *to, struct tf_vm_error *err);

/* Make a folder and those above it (0700); fine if it exists. 0 or a negative errno. */
int tf_vm_make_dirs(const char *path);

/* Remove a folder and all that is in it, as far as that can be done. */
void tf_vm_remove_dir(const char *path);

/* printf into a malloc'ed string; NULL without memory. */
char *tf_vm_format(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
