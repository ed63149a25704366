/* SPDX-License-Identifier: MIT */
/*
 * telefork inspect. Shows an image as text; what the table of core/image/notes.h describes is shown
 * from that table. An image is untrusted: whatever comes out of it goes through tf_text_safe()
 * before it reaches a terminal. Works on any host for every known architecture.
 */
#include "core/cmd/inspect.h"

#include <argp.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "core/base/text.h"
#include "core/cmd/cmd.h"
#include "core/cmd/disasm.h"
#include "core/cmd/symbols.h"
#include "core/image/notes.h"

struct options {
	const char *path;
	bool json, registers;
};

/* What printing needs everywhere. */
struct view {
	const struct tf_file *file;
	const struct tf_image *img;
	const struct tf_arch *arch;
	const struct options *options;
	const char *bold, *dim, *plain;
};

int tf_inspect_hex(const uint8_t *value, size_t size, char *text)
{
	int zero = 1;

	for (size_t i = 0; i < size; i++) {
		sprintf(text + 2 * i, "%02x", value[size - 1 - i]);
		zero = zero && !value[i];
	}
	text[2 * size] = '\0';
	return zero;
}

size_t tf_inspect_code(const struct tf_file *f, uint64_t pc, uint8_t *code, size_t n)
{
	const struct tf_map *m = tf_image_map_at(&f->image, pc);

	if (!m)
		return 0;
	if (n > m->end - pc)
		n = m->end - pc;
	return tf_file_read(f, pc, code, n) == (ssize_t)n ? n : 0;
}

static void print_title(const struct view *v, const char *title)
{
	printf("\n%s%s%s\n", v->bold, title, v->plain);
}

static void print_safe(const char *s)
{
	char text[4 * TF_MAX_STR + 1];

	tf_text_safe(s, text, sizeof(text));
	fputs(text, stdout);
}

static const struct tf_kind *kind_named(const char *name)
{
	for (size_t i = 0; i < tf_n_kinds; i++) {
		if (!strcmp(tf_kinds[i].name, name))
			return &tf_kinds[i];
	}
	return NULL;
}

/* The text of a record's field by its name in the table. */
static const char *field(const char *kind, const char *name, const void *item, char *buf, size_t n)
{
	const struct tf_kind *k = kind_named(kind);

	for (uint32_t i = 0; k && i < k->n_fields; i++) {
		if (!strcmp(k->fields[i].name, name)) {
			tf_field_text(&k->fields[i], item, 0, buf, n);
			return buf;
		}
	}
	return "?";
}

/* One record, a line for each field; array elements that are zero are left out. */
static void print_record(const struct tf_kind *k, const void *item)
{
	char text[4 * TF_MAX_STR + 1];

	for (uint32_t i = 0; i < k->n_fields; i++) {
		const struct tf_field *f = &k->fields[i];

		for (unsigned n = 0; n < f->count; n++) {
			if (f->count > 1 && !tf_field_number(f, item, n))
				continue;
			tf_field_text(f, item, n, text, sizeof(text));
			if (f->count > 1)
				printf("  %s[%u]%*s%s\n", f->name, n,
					(int)(14 - strlen(f->name) - (n > 9)), "", text);
			else
				printf("  %-16s %s\n", f->name, text);
		}
	}
}

static void print_summary(const struct view *v)
{
	const struct tf_source *s = &v->img->source;
	time_t seconds = (time_t)(s->realtime_ns / 1000000000);
	char when[64] = "?";
	struct tm tm;

	if (gmtime_r(&seconds, &tm))
		strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S UTC", &tm);
	printf("%s", v->bold);
	print_safe(v->options->path);
	printf("%s: %s process %d ", v->plain, v->arch->name, s->pid);
	print_safe(s->exe);
	printf("%s, generation %u\n", s->flags & TF_SOURCE_EMULATED ? " (emulated)" : "",
		s->generation);
	printf("taken %s on Linux ", when);
	print_safe(s->release);
	printf("; %u thread%s, %u mapping%s, %" PRIu64 " bytes present, file of %" PRIu64
	       " bytes\n",
		v->img->n_threads, v->img->n_threads == 1 ? "" : "s", v->img->n_maps,
		v->img->n_maps == 1 ? "" : "s", tf_file_present(v->file, 0, UINT64_MAX),
		v->file->size);
}

/* --- registers and code --- */

struct registers {
	const struct view *view;
	unsigned column, zero;
};

static int print_register(void *ctx, const struct tf_reg *reg, const uint8_t *value)
{
	struct registers *r = ctx;
	char hex[2 * TF_REG_VALUE_MAX + 1];
	bool wide = reg->size > 8;

	if (reg->size > TF_REG_VALUE_MAX)
		return 0;
	if (tf_inspect_hex(value, reg->size, hex) && !r->view->options->registers &&
		(wide || reg->klass == TF_REG_PREDICATE)) {
		r->zero++;
		return 0;
	}
	if (wide) {
		printf("%s  %-10s %s\n", r->column ? "\n" : "", reg->name, hex);
		r->column = 0;
		return 0;
	}
	printf("  %-10s %-16s", reg->name, hex);
	if (++r->column == 3) {
		putchar('\n');
		r->column = 0;
	}
	return 0;
}

static void print_registers(const struct view *v, const struct tf_thread *t)
{
	struct registers r = {.view = v};

	v->arch->each(&t->regs, &v->img->cpu, print_register, &r);
	if (r.column)
		putchar('\n');
	if (r.zero)
		printf("  %s%u vector, x87 and predicate registers are zero%s\n", v->dim, r.zero,
			v->plain);
}

static void print_instruction(
	void *ctx, uint64_t addr, const uint8_t *bytes, size_t size, const char *text)
{
	uint64_t pc = *(const uint64_t *)ctx;
	int width = 0;

	printf("  %s 0x%" PRIx64 ":  ", addr == pc ? "=>" : "  ", addr);
	for (size_t i = 0; i < size; i++)
		width += printf("%02x ", bytes[i]);
	printf("%*s%s\n", width < 32 ? 32 - width : 0, "", text ? text : "(not decoded)");
}

static void print_code(const struct view *v, const struct tf_thread *t)
{
	uint64_t pc = v->arch->pc(&t->regs);
	uint8_t code[TF_INSPECT_CODE];
	size_t n = tf_inspect_code(v->file, pc, code, sizeof(code));
	struct tf_place place;

	printf("  at 0x%" PRIx64, pc);
	if (tf_place_find(v->file, pc, &place)) {
		printf(" in ");
		print_safe(place.name);
		printf("+0x%" PRIx64 "%s", place.offset,
			place.from_host ? "" : " (symbol from the image's memory)");
	}
	putchar('\n');
	if (!n)
		printf("  the code there is not in the image\n");
	tf_disasm(v->arch->machine, pc, code, n, TF_INSPECT_INSTRUCTIONS, print_instruction, &pc);
}

static void print_threads(const struct view *v)
{
	for (uint32_t i = 0; i < v->img->n_threads; i++) {
		const struct tf_thread *t = &v->img->threads[i];
		char title[32];

		snprintf(title, sizeof(title), "thread %d", t->tid);
		print_title(v, title);
		print_record(kind_named("thread"), t);
		if (i < v->img->n_attributes)
			print_record(kind_named("attributes"), &v->img->attributes[i]);
		for (uint32_t n = 0; n < v->img->n_waits; n++)
			if (v->img->waits[n].thread == i)
				print_record(kind_named("wait"), &v->img->waits[n]);
		print_registers(v, t);
		print_code(v, t);
	}
}

/* --- tables --- */

static void print_maps(const struct view *v)
{
	char kind[16], flags[64], vmflags[160];

	print_title(v, "mappings");
	for (uint32_t i = 0; i < v->img->n_maps; i++) {
		const struct tf_map *m = &v->img->maps[i];

		field("map", "flags", m, flags, sizeof(flags));
		field("map", "vmflags", m, vmflags, sizeof(vmflags));
		printf("  %012" PRIx64 "-%012" PRIx64 " %c%c%c %-5s %10" PRIu64 " %s%s%s", m->start,
			m->end, m->prot & PROT_READ ? 'r' : '-', m->prot & PROT_WRITE ? 'w' : '-',
			m->prot & PROT_EXEC ? 'x' : '-',
			field("map", "kind", m, kind, sizeof(kind)),
			tf_file_present(v->file, m->start, m->end), flags, m->vmflags ? "," : "",
			m->vmflags ? vmflags : "");
		if (m->path[0]) {
			putchar(' ');
			print_safe(m->path);
		}
		putchar('\n');
	}
}

static void print_fds(const struct view *v)
{
	char kind[16];

	print_title(v, "descriptors");
	for (uint32_t i = 0; i < v->img->n_fds; i++) {
		const struct tf_fd *fd = &v->img->fds[i];

		printf("  %5d %-6s flags %#-8x offset %" PRIu64 " ", fd->fd,
			field("fd", "kind", fd, kind, sizeof(kind)), fd->flags, fd->offset);
		print_safe(fd->path);
		putchar('\n');
	}
}

static void print_signals(const struct view *v)
{
	char mask[512];

	print_title(v, "signal actions other than the default");
	for (uint32_t i = 0; i < v->img->n_sigactions; i++) {
		const struct tf_sigaction *s = &v->img->sigactions[i];
		const char *name = sigabbrev_np((int)i + 1);

		if (!s->handler && !s->flags && !s->mask)
			continue;
		printf("  %2u %-6s ", i + 1, name ? name : "");
		if (s->handler > 1)
			printf("0x%" PRIx64, s->handler);
		else
			printf("%s", s->handler ? "ignore" : "default");
		printf(" flags %#" PRIx64 " mask %s\n", s->flags,
			field("sigaction", "mask", s, mask, sizeof(mask)));
	}
}

/* Credentials and filters once, threads say which are theirs. */
static void print_kept(const struct view *v)
{
	static const char *const kinds[] = {"rights", "filter", "timer"};

	for (size_t n = 0; n < sizeof(kinds) / sizeof(*kinds); n++) {
		const struct tf_kind *k = kind_named(kinds[n]);

		for (uint32_t i = 0; i < tf_kind_count(k, v->img); i++) {
			char title[32];

			snprintf(title, sizeof(title), "%s %u", k->name, i);
			print_title(v, title);
			print_record(k, tf_kind_item(k, v->img, i));
		}
	}
}

static void print_image(const struct view *v)
{
	print_summary(v);
	for (size_t i = 0; i < tf_n_kinds; i++) {
		if (tf_kinds[i].max != 1)
			continue;
		print_title(v, tf_kinds[i].name);
		print_record(&tf_kinds[i], tf_kind_item(&tf_kinds[i], v->img, 0));
	}
	print_maps(v);
	print_fds(v);
	print_signals(v);
	print_kept(v);
	print_threads(v);
}

/* --- command --- */

static int show(const struct tf_file *f, const struct options *o)
{
	const char *no_color = getenv("NO_COLOR");
	bool color = isatty(STDOUT_FILENO) && !(no_color && *no_color);
	struct view v = {
		.file = f,
		.img = &f->image,
		.arch = tf_arch_by_machine(f->image.source.machine),
		.options = o,
		.bold = color ? "\033[1m" : "",
		.dim = color ? "\033[2m" : "",
		.plain = color ? "\033[0m" : "",
	};
	json_t *json;
	int r = 0;

	if (!o->json) {
		print_image(&v);
	} else {
		json = tf_inspect_json(f, o->path);
		r = json ? json_dumpf(json, stdout, JSON_INDENT(2)) : -1;
		putchar('\n');
		json_decref(json);
	}
	if (fflush(stdout) || ferror(stdout) || r) {
		fprintf(stderr, "telefork: %s: %s\n", o->path,
			o->json && r ? "cannot be written as JSON" : "standard output failed");
		return TF_EXIT_IO;
	}
	return 0;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;

	switch (key) {
	case 'j':
		o->json = true;
		return 0;
	case 'r':
		o->registers = true;
		return 0;
	case ARGP_KEY_ARG:
		if (o->path)
			argp_error(state, "one FILE only");
		o->path = arg;
		return 0;
	case ARGP_KEY_END:
		if (!o->path)
			argp_error(state, "which FILE?");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_option argp_options[] = {
	{"json", 'j', NULL, 0, "Write a JSON object", 0},
	{"registers", 'r', NULL, 0, "Show every register, zero ones too", 0},
	{0},
};

int tf_cmd_inspect(int argc, char **argv)
{
	static const struct argp argp = {
		.options = argp_options,
		.parser = parse_option,
		.args_doc = "FILE",
		.doc = "Shows an image: where it comes from, its mappings, descriptors, signal "
		       "actions, "
		       "registers and the code at which each thread stands.",
		.help_filter = tf_exit_help,
	};
	struct options o = {0};
	struct tf_err e = {0};
	struct tf_file f;
	int r;

	if (argp_parse(&argp, argc, argv, 0, NULL, &o))
		return TF_EXIT_USAGE;
	r = tf_file_open(&f, o.path, &e);
	if (r) {
		tf_complain(NULL, e.text);
		return r == TELEFORK_E_IO ? TF_EXIT_INPUT : tf_exit_code(r);
	}
	r = show(&f, &o);
	tf_file_close(&f);
	return r;
}
