/* SPDX-License-Identifier: MIT */
/*
 * Shows what the table of notes.h describes: one field as text or number, and the whole table as
 * markdown for docs/format.md. For commands and tests; never called in a forked child.
 */
#include "core/base/text.h"
#include "core/image/notes.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Appends to a bounded buffer; n grows as if there were room, like snprintf's result. */
struct text {
	char *buf;
	size_t size, n;
};

static void __attribute__((format(printf, 2, 3))) add(struct text *t, const char *fmt, ...)
{
	size_t room = t->n < t->size ? t->size - t->n : 0;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(room ? t->buf + t->n : NULL, room, fmt, ap);
	va_end(ap);
	t->n += n > 0 ? (size_t)n : 0;
}

const char *tf_field_string(const struct tf_field *f, const void *item)
{
	const char *p = (const char *)item + f->offset;
	const char *s;

	if (f->type == TF_FIELD_COMM)
		return p;
	if (f->type != TF_FIELD_STR && f->type != TF_FIELD_STR_ARG)
		return NULL;
	memcpy(&s, p, sizeof(s));
	return s ? s : "";
}

uint64_t tf_field_number(const struct tf_field *f, const void *item, unsigned i)
{
	const char *p = (const char *)item + f->offset;
	uint64_t v64;
	uint32_t v32;
	int32_t i32;

	switch (f->type) {
	case TF_FIELD_U64:
	case TF_FIELD_HEX64:
	case TF_FIELD_ADDR:
	case TF_FIELD_TIME:
	case TF_FIELD_SIGSET:
		memcpy(&v64, p + (size_t)i * 8, sizeof(v64));
		return v64;
	case TF_FIELD_I32:
		memcpy(&i32, p + (size_t)i * 4, sizeof(i32));
		return (uint64_t)i32;
	case TF_FIELD_STR:
	case TF_FIELD_STR_ARG:
	case TF_FIELD_COMM:
		return 0;
	default:
		memcpy(&v32, p + (size_t)i * 4, sizeof(v32));
		return v32;
	}
}

/* Names of the bits that are set, separated by sep; name(i) or the number. */
static void add_bits(struct text *t, uint64_t v, const struct tf_field *f)
{
	const char *sep = "";

	if (!v)
		add(t, "-");
	for (unsigned i = 0; i < 64; i++) {
		const char *abbrev;

		if (!(v >> i & 1))
			continue;
		abbrev = f->type == TF_FIELD_SIGSET ? sigabbrev_np((int)i + 1) : NULL;
		if (f->type == TF_FIELD_FLAGS && i < f->n_names)
			add(t, "%s%s", sep, f->names[i]);
		else if (abbrev)
			add(t, "%s%s", sep, abbrev);
		else
			add(t, "%s%u", sep, i + 1);
		sep = ",";
	}
}

int tf_field_text(const struct tf_field *f, const void *item, unsigned i, char *buf, size_t n)
{
	const char *s = tf_field_string(f, item);
	uint64_t v = tf_field_number(f, item, i);
	struct text t = {buf, n, 0};

	if (s)
		return (int)tf_text_safe(s, buf, n);
	switch (f->type) {
	case TF_FIELD_HEX32:
	case TF_FIELD_HEX64:
	case TF_FIELD_ADDR:
		add(&t, "0x%llx", (unsigned long long)v);
		break;
	case TF_FIELD_OCT32:
		add(&t, "0%llo", (unsigned long long)v);
		break;
	case TF_FIELD_TIME:
		add(&t, "%llu.%09llu", (unsigned long long)(v / 1000000000),
			(unsigned long long)(v % 1000000000));
		break;
	case TF_FIELD_ENUM:
		if (v < f->n_names)
			add(&t, "%s", f->names[v]);
		else
			add(&t, "%llu", (unsigned long long)v);
		break;
	case TF_FIELD_FLAGS:
	case TF_FIELD_SIGSET:
		add_bits(&t, v, f);
		break;
	default:
		add(&t, "%lld", (long long)v);
	}
	return (int)t.n;
}

/* --- docs/format.md --- */

static const char *const wire_names[TF_FIELD_TYPES] = {
	[TF_FIELD_U32] = "u32",
	[TF_FIELD_U64] = "u64",
	[TF_FIELD_I32] = "i32",
	[TF_FIELD_HEX32] = "u32",
	[TF_FIELD_HEX64] = "u64",
	[TF_FIELD_OCT32] = "u32, at most 0777",
	[TF_FIELD_ADDR] = "u64 address",
	[TF_FIELD_TIME] = "u64 ns",
	[TF_FIELD_SIGSET] = "u64 signal set",
	[TF_FIELD_ENUM] = "u32 enum",
	[TF_FIELD_FLAGS] = "u32 flags",
	[TF_FIELD_STR] = "string",
	[TF_FIELD_STR_ARG] = "string, not empty",
	[TF_FIELD_COMM] = "16 bytes, zero-padded",
};

static void add_field(struct text *t, const struct tf_field *f)
{
	add(t, "| `%s` | %s", f->name, wire_names[f->type]);
	if (f->count > 1)
		add(t, " [%u]", f->count);
	add(t, " | %s", f->text);
	for (unsigned i = 0; i < f->n_names; i++)
		add(t, "%s%u %s",
			i                           ? ", "
			: f->type == TF_FIELD_FLAGS ? "; bits: "
						    : "; ",
			i, f->names[i]);
	add(t, " |\n");
}

static void add_rule(struct text *t, const char *name, const char *text)
{
	add(t, "| `%s` | %s |\n", name, text);
}

size_t tf_notes_markdown(char *buf, size_t n)
{
	struct text t = {buf, n, 0};

	add(&t, "| type | note | records | what |\n| --- | --- | --- | --- |\n");
	for (size_t i = 0; i < tf_n_kinds; i++) {
		const struct tf_kind *k = &tf_kinds[i];

		add(&t, "| 0x%08x | %s | ", k->type, k->name);
		add(&t, k->max == 1 ? "1" : "0 to %u", k->max);
		add(&t, " | %s |\n", k->text);
	}
	for (size_t i = 0; i < tf_n_kinds; i++) {
		const struct tf_kind *k = &tf_kinds[i];

		add(&t, "\n### %s (0x%08x)\n\n", k->name, k->type);
		add(&t, "| field | wire | meaning |\n| --- | --- | --- |\n");
		for (uint32_t f = 0; f < k->n_fields; f++)
			add_field(&t, &k->fields[f]);
	}
	add(&t, "\n### Rules\n\n| rule | what holds |\n| --- | --- |\n");
#define X(name, rule, text) add_rule(&t, rule, text);
	TF_READER_RULES(X)
	TF_IMAGE_RULES(X)
#undef X
	return t.n;
}
