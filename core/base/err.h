/* SPDX-License-Identifier: MIT */
/*
 * Errors: a code from the public table (core/telefork.h) and a text that names the thing that
 * failed and the way out. Functions return 0 or a negative code; the library never prints.
 * Safe in a forked child: no allocation, no lock.
 */
#ifndef TF_BASE_ERR_H
#define TF_BASE_ERR_H

#include "core/telefork.h"

#define TF_ERR_TEXT TELEFORK_MESSAGE_MAX

struct tf_err {
	int code;               /* 0 or a negative TELEFORK_E_* */
	char text[TF_ERR_TEXT]; /* always terminated; several reasons are separated by '\n' */
};

/* Sets e (which may be NULL) unless it already holds an error; the first cause wins.
 * Returns code, so that a failure is one line: return tf_fail(e, TELEFORK_E_IO, "…"). */
int tf_fail(struct tf_err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* As tf_fail, with ": " and the text of err (a positive errno) appended. */
int tf_fail_errno(struct tf_err *e, int code, int err, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Appends one more reason on a line of its own (for checks that list *all* reasons). Cuts at the
 * buffer's end with "…". Sets the code if there was none. Returns code. */
int tf_fail_more(struct tf_err *e, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Static name ("EEXIST") of a positive errno, or "errno" for one that has none. No locale. */
const char *tf_errno_name(int err);

/* clang's analyzer does not look into err.c: it has to be told that a failure is one. */
#ifdef __clang_analyzer__
#define tf_fail(e, code, ...)            (tf_fail(e, code, __VA_ARGS__), (code))
#define tf_fail_errno(e, code, err, ...) (tf_fail_errno(e, code, err, __VA_ARGS__), (code))
#endif

#endif
