/* SPDX-License-Identifier: MIT */
/*
 * Error texts. vsnprintf with integers and strings takes no lock and allocates nothing in glibc
 * and musl, so these may run in a forked child or a signal handler.
 */
#include "core/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void append(struct tf_err *e, const char *fmt, va_list ap)
{
	size_t n = strlen(e->text);

	if (n + 1 < sizeof(e->text))
		vsnprintf(e->text + n, sizeof(e->text) - n, fmt, ap);
}

static void append_text(struct tf_err *e, const char *text)
{
	size_t n = strlen(e->text);

	snprintf(e->text + n, sizeof(e->text) - n, "%s", text);
}

int(tf_fail)(struct tf_err *e, int code, const char *fmt, ...)
{
	va_list ap;

	if (!e || e->code)
		return code;
	e->code = code;
	e->text[0] = '\0';
	va_start(ap, fmt);
	append(e, fmt, ap);
	va_end(ap);
	return code;
}

int(tf_fail_errno)(struct tf_err *e, int code, int err, const char *fmt, ...)
{
	va_list ap;

	if (!e || e->code)
		return code;
	e->code = code;
	e->text[0] = '\0';
	va_start(ap, fmt);
	append(e, fmt, ap);
	va_end(ap);
	append_text(e, ": ");
	append_text(e, tf_errno_name(err));
	return code;
}

int tf_fail_more(struct tf_err *e, int code, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return code;
	if (!e->code) {
		e->code = code;
		e->text[0] = '\0';
	} else {
		append_text(e, "\n");
	}
	va_start(ap, fmt);
	append(e, fmt, ap);
	va_end(ap);
	return code;
}

const char *tf_errno_name(int err)
{
	const char *name = strerrorname_np(err);

	return name ? name : "errno";
}
