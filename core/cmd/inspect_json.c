/* SPDX-License-Identifier: MIT */
/*
 * An image as JSON, from the same table as everything else. Addresses, masks and registers are
 * hexadecimal strings (JSON's integers end at 2^63 here), flags are arrays of names. A text that is
 * not UTF-8 has its odd bytes as \xNN.
 */
#include "core/cmd/inspect.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/cmd/disasm.h"
#include "core/cmd/symbols.h"
#include "core/cmd/text_json.h"
#include "core/image/notes.h"

static json_t *json_hex(uint64_t v)
{
	return json_sprintf("0x%" PRIx64, v);
}

static json_t *json_number(uint64_t v)
{
	return v <= INT64_MAX ? json_integer((json_int_t)v) : json_hex(v);
}

static json_t *json_bits(const struct tf_field *f, uint64_t v)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < 64; i++) {
		if (!(v >> i & 1))
			continue;
		if (f->type == TF_FIELD_FLAGS && i < f->n_names)
			json_array_append_new(array, json_string(f->names[i]));
		else
			json_array_append_new(array, json_integer(i + 1));
	}
	return array;
}

static json_t *json_element(const struct tf_field *f, const void *item, unsigned i)
{
	const char *s = tf_field_string(f, item);
	uint64_t v = tf_field_number(f, item, i);

	if (s)
		return tf_json_text(s);
	switch (f->type) {
	case TF_FIELD_HEX32:
	case TF_FIELD_HEX64:
	case TF_FIELD_ADDR:
		return json_hex(v);
	case TF_FIELD_ENUM:
		return json_string(v < f->n_names ? f->names[v] : "?");
	case TF_FIELD_FLAGS:
	case TF_FIELD_SIGSET:
		return json_bits(f, v);
	case TF_FIELD_I32:
		return json_integer((json_int_t)(int64_t)v);
	default:
		return json_number(v);
	}
}

static json_t *json_record(const struct tf_kind *k, const void *item)
{
	json_t *object = json_object();

	for (uint32_t i = 0; i < k->n_fields; i++) {
		const struct tf_field *f = &k->fields[i];
		json_t *value = f->count > 1 ? json_array() : json_element(f, item, 0);

		for (unsigned n = 0; f->count > 1 && n < f->count; n++)
			json_array_append_new(value, json_element(f, item, n));
		json_object_set_new(object, f->name, value);
	}
	return object;
}

static int add_register(void *ctx, const struct tf_reg *reg, const uint8_t *value)
{
	char hex[2 * TF_REG_VALUE_MAX + 1];

	if (reg->size > TF_REG_VALUE_MAX)
		return 0;
	tf_inspect_hex(value, reg->size, hex);
	json_object_set_new(ctx, reg->name, json_string(hex));
	return 0;
}

static void add_instruction(
	void *ctx, uint64_t addr, const uint8_t *bytes, size_t size, const char *text)
{
	char hex[2 * TF_INSPECT_CODE + 1] = "";
	json_t *object = json_object();

	for (size_t i = 0; i < size && i < TF_INSPECT_CODE; i++)
		sprintf(hex + 2 * i, "%02x", bytes[i]);
	json_object_set_new(object, "address", json_hex(addr));
	json_object_set_new(object, "bytes", json_string(hex));
	json_object_set_new(object, "text", text ? tf_json_text(text) : json_null());
	json_array_append_new(ctx, object);
}

/* What a thread has besides its record: registers, where it stands, the code there. */
static void add_state(json_t *object, const struct tf_file *f, const struct tf_thread *t)
{
	const struct tf_arch *arch = tf_arch_by_machine(f->image.source.machine);
	json_t *registers = json_object(), *code = json_array();
	uint64_t pc = arch->pc(&t->regs);
	uint8_t bytes[TF_INSPECT_CODE];
	struct tf_place place;
	size_t n;

	arch->each(&t->regs, &f->image.cpu, add_register, registers);
	json_object_set_new(object, "registers", registers);
	json_object_set_new(object, "pc", json_hex(pc));
	if (tf_place_find(f, pc, &place)) {
		json_object_set_new(object, "function", tf_json_text(place.name));
		json_object_set_new(object, "function_offset", json_number(place.offset));
	}
	n = tf_inspect_code(f, pc, bytes, sizeof(bytes));
	tf_disasm(arch->machine, pc, bytes, n, TF_INSPECT_INSTRUCTIONS, add_instruction, code);
	json_object_set_new(object, "code", code);
}

static json_t *json_records(const struct tf_kind *k, const struct tf_file *f)
{
	json_t *array = json_array();

	for (uint32_t i = 0; i < tf_kind_count(k, &f->image); i++) {
		const void *item = tf_kind_item(k, &f->image, i);
		json_t *record = json_record(k, item);

		if (k->items == offsetof(struct tf_image, maps)) {
			const struct tf_map *m = item;

			json_object_set_new(record, "present",
				json_number(tf_file_present(f, m->start, m->end)));
		} else if (k->items == offsetof(struct tf_image, threads)) {
			add_state(record, f, item);
		}
		json_array_append_new(array, record);
	}
	return array;
}

json_t *tf_inspect_json(const struct tf_file *f, const char *path)
{
	const struct tf_image *img = &f->image;
	json_t *object = json_object(), *auxv = json_array();

	json_object_set_new(object, "file", tf_json_text(path));
	json_object_set_new(object, "size", json_number(f->size));
	json_object_set_new(object, "format", json_integer(TELEFORK_FORMAT));
	json_object_set_new(
		object, "architecture", json_string(tf_arch_by_machine(img->source.machine)->name));
	json_object_set_new(object, "head_size", json_number(img->head_size));
	json_object_set_new(object, "data_end", json_number(img->data_end));
	for (size_t i = 0; i < tf_n_kinds; i++) {
		const struct tf_kind *k = &tf_kinds[i];
		json_t *value =
			k->max == 1 ? json_record(k, tf_kind_item(k, img, 0)) : json_records(k, f);

		json_object_set_new(object, k->name, value);
	}
	for (uint32_t i = 0; i < img->n_auxv; i++)
		json_array_append_new(auxv, json_pack("[o, o]", json_number(img->auxv[2 * i]),
						    json_hex(img->auxv[2 * i + 1])));
	json_object_set_new(object, "auxv", auxv);
	return object;
}
