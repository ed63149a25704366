/* SPDX-License-Identifier: MIT */
/*
 * Files of libconfig read by a table of keys. The table is the schema: what it does not have is an
 * error with file, line and what was expected, and the reference in docs/testbed/reference.md is
 * printed from it.
 */
#ifndef TF_HARNESS_SCHEMA_H
#define TF_HARNESS_SCHEMA_H

#include <libconfig.h>
#include <stddef.h>
#include <stdio.h>

#include "qemu/error.h"

#define TF_WORDS_MAX 32

/* The file being read, and where its error goes. */
struct tf_conf {
	const char *path;
	struct tf_vm_error *err;
};

/* A list of words, borrowed from the configuration; a single word is a list of one. */
struct tf_words {
	const char *v[TF_WORDS_MAX];
	unsigned n;
};

enum tf_key_type {
	TF_KEY_WORDS,  /* struct tf_words */
	TF_KEY_WORD,   /* enum or unsigned: the place in the key's table */
	TF_KEY_TEXT,   /* char array of the key's size */
	TF_KEY_STRING, /* const char *, borrowed */
	TF_KEY_NUMBER, /* unsigned */
	TF_KEY_OTHER,  /* by the key's own function; without one the caller has read it */
};

struct tf_key {
	const char *name;
	enum tf_key_type type;
	size_t offset, size;      /* of its place in what is read */
	const char *const *words; /* the words that are allowed; NULL: any */
	unsigned n_words;         /* of words */
	int min, max;             /* of a number; of a list of words: how many, 0: any */
	int (*read)(const struct tf_conf *r, const config_setting_t *s, void *to);
	const char *means, *without; /* for the reference: the value, and what holds without it */
};

/* Says "FILE:LINE: ..." of @at, which may be NULL; returns -EINVAL. */
int tf_conf_wrong(const struct tf_conf *r, const config_setting_t *at, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Reads the file @path into @config, which the caller destroys in any case. -ENOENT, -EINVAL. */
int tf_conf_open(config_t *config, const char *path, const char *missing, struct tf_vm_error *err);

/* Reads every member of the group @s into @to. @what is the thing it describes, for messages. */
int tf_conf_read(const struct tf_conf *r, const config_setting_t *s, const char *what,
	const struct tf_key *keys, size_t n, void *to);

/* The place of @word in a table; -EINVAL after an error that lists the table. */
int tf_conf_find(const struct tf_conf *r, const config_setting_t *s, const char *word,
	const char *const table[], unsigned n);

/* The table as rows of Markdown. */
void tf_schema_print(FILE *out, const struct tf_key *keys, size_t n);

#endif
