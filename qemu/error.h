/* SPDX-License-Identifier: MIT */
/*
 * Errors of the qemu floor: every function returns 0 (or a count) or a negative errno value,
 * and on failure leaves a sentence in a struct tf_vm_error that names the thing it failed on
 * and, where there is one, the way out. Nothing here prints or exits.
 */
#ifndef TF_QEMU_ERROR_H
#define TF_QEMU_ERROR_H

struct tf_vm_error {
	char text[1024];
};

/*
 * Write a printf-style sentence into @err (which may be NULL) and return @code, so that a
 * failing function can end in "return tf_vm_fail(err, -ENOENT, ...)". Too long a text is cut.
 */
int tf_vm_fail(struct tf_vm_error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* As tf_vm_fail, with ": " and the text of errno value -@code appended. */
int tf_vm_fail_errno(struct tf_vm_error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
