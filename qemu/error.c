/* SPDX-License-Identifier: MIT */
/*
 * Sentences for struct tf_vm_error.
 */
#include "qemu/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int tf_vm_fail(struct tf_vm_error *err, int code, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return code;
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	return code;
}

int tf_vm_fail_errno(struct tf_vm_error *err, int code, const char *fmt, ...)
{
	char why[128];
	size_t used;
	va_list ap;

	if (!err)
		return code;
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	used = strlen(err->text);
	snprintf(err->text + used, sizeof(err->text) - used, ": %s",
		strerror_r(-code, why, sizeof(why)));
	return code;
}
