/* SPDX-License-Identifier: MIT */
/* See schema.h. Nothing here knows what the keys mean. */
#include "harness/schema.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

int tf_conf_wrong(const struct tf_conf *r, const config_setting_t *at, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return tf_vm_fail(r->err, -EINVAL, "%s:%d: %s", r->path,
		at ? (int)config_setting_source_line(at) : 1, text);
}

int tf_conf_open(config_t *config, const char *path, const char *missing, struct tf_vm_error *err)
{
	config_init(config);
	if (config_read_file(config, path))
		return 0;
	if (config_error_type(config) == CONFIG_ERR_FILE_IO)
		return tf_vm_fail(err, -ENOENT, "%s: %s", path, missing);
	return tf_vm_fail(err, -EINVAL, "%s:%d: %s: expected lines of the form key = value;", path,
		config_error_line(config), config_error_text(config));
}

int tf_conf_find(const struct tf_conf *r, const config_setting_t *s, const char *word,
	const char *const table[], unsigned n)
{
	char known[256] = "";

	for (unsigned i = 0; i < n; i++) {
		size_t len = strlen(known);

		if (!strcmp(table[i], word))
			return (int)i;
		snprintf(known + len, sizeof(known) - len, "%s%s", i ? ", " : "", table[i]);
	}
	return tf_conf_wrong(r, s, "%s: '%s' is none of %s", config_setting_name(s), word, known);
}

static int read_words(const struct tf_conf *r, const config_setting_t *s, const struct tf_key *key,
	struct tf_words *ret)
{
	const char *word = config_setting_get_string(s);
	int n = word ? 1 : config_setting_length(s);
	int max = key->max ? key->max : TF_WORDS_MAX;

	if (!word && !config_setting_is_array(s) && !config_setting_is_list(s))
		return tf_conf_wrong(r, s, "%s: expected a string or a list of strings", key->name);
	if (n < key->min || n > max)
		return tf_conf_wrong(
			r, s, "%s: expected %d to %d strings", key->name, key->min, max);
	ret->n = 0;
	for (int i = 0; i < n; i++) {
		const char *v = word ? word : config_setting_get_string_elem(s, i);

		if (!v)
			return tf_conf_wrong(
				r, s, "%s: expected strings, element %d is none", key->name, i + 1);
		if (key->words && tf_conf_find(r, s, v, key->words, key->n_words) < 0)
			return -EINVAL;
		ret->v[ret->n++] = v;
	}
	return 0;
}

static int read_number(
	const struct tf_conf *r, const config_setting_t *s, const struct tf_key *key, unsigned *ret)
{
	int n = config_setting_type(s) == CONFIG_TYPE_INT ? config_setting_get_int(s)
							  : key->min - 1;

	if (n < key->min || n > key->max)
		return tf_conf_wrong(
			r, s, "%s: expected a number from %d to %d", key->name, key->min, key->max);
	*ret = (unsigned)n;
	return 0;
}

static int read_string(
	const struct tf_conf *r, const config_setting_t *s, const struct tf_key *key, char *to)
{
	const char *text = config_setting_get_string(s);
	int place = 0;

	if (!text)
		return tf_conf_wrong(r, s, "%s: expected a string", key->name);
	if (key->words) {
		place = tf_conf_find(r, s, text, key->words, key->n_words);
		if (place < 0)
			return place;
	}
	if (key->type == TF_KEY_STRING) {
		memcpy(to, &text, sizeof(text));
	} else if (key->type == TF_KEY_WORD) {
		memcpy(to, &place, sizeof(place));
	} else if (strlen(text) >= key->size) {
		return tf_conf_wrong(
			r, s, "%s: expected at most %zu characters", key->name, key->size - 1);
	} else {
		strncpy(to, text,
			key->size); /* what is behind is zero, too: it is compared as bytes */
	}
	return 0;
}

static int read_key(
	const struct tf_conf *r, const config_setting_t *s, const struct tf_key *key, char *to)
{
	switch (key->type) {
	case TF_KEY_WORDS:
		return read_words(r, s, key, (void *)(to + key->offset));
	case TF_KEY_NUMBER:
		return read_number(r, s, key, (void *)(to + key->offset));
	case TF_KEY_OTHER:
		return key->read ? key->read(r, s, to) : 0;
	default:
		return read_string(r, s, key, to + key->offset);
	}
}

int tf_conf_read(const struct tf_conf *r, const config_setting_t *s, const char *what,
	const struct tf_key *keys, size_t n, void *to)
{
	int rc = 0;

	for (int i = 0; i < config_setting_length(s) && rc == 0; i++) {
		const config_setting_t *member = config_setting_get_elem(s, (unsigned)i);
		const char *name = config_setting_name(member);
		char known[448] = "";
		size_t k = 0;

		for (; k < n && strcmp(keys[k].name, name) != 0; k++) {
			size_t len = strlen(known);

			snprintf(known + len, sizeof(known) - len, "%s%s", k ? ", " : "",
				keys[k].name);
		}
		rc = k < n ? read_key(r, member, &keys[k], to)
			   : tf_conf_wrong(r, member, "%s%s'%s' is none of %s", what,
				     what[0] ? ": " : "", name, known);
	}
	return rc;
}

/* "`a`, `b`" of a table of words. */
static void print_words(FILE *out, const struct tf_key *key)
{
	for (unsigned i = 0; i < key->n_words; i++)
		fprintf(out, "%s`%s`", i ? ", " : "", key->words[i]);
	fputs(key->means[0] ? "; " : "", out);
}

void tf_schema_print(FILE *out, const struct tf_key *keys, size_t n)
{
	fputs("| key | value | without it |\n| --- | --- | --- |\n", out);
	for (size_t i = 0; i < n; i++) {
		fprintf(out, "| `%s` | ", keys[i].name);
		if (keys[i].words)
			print_words(out, &keys[i]);
		if (keys[i].type == TF_KEY_NUMBER)
			fprintf(out, "%d to %d; ", keys[i].min, keys[i].max);
		fprintf(out, "%s | %s |\n", keys[i].means, keys[i].without);
	}
}
