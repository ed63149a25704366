/* SPDX-License-Identifier: MIT */
/*
 * Notes, both ways. Ours ("TELEFORK") come from the table; the kernel's ("CORE", "LINUX") are laid
 * out here, so that gdb, lldb and readelf see a core file. What in the kernel's notes follows from
 * ours (names, NT_FILE, pids) is not decoded but compared with what would be written. Runs in a
 * forked child: no libc allocator, no lock.
 *
 *	TELEFORK source, cpu, mm … threads
 *	thread 1: NT_PRSTATUS, NT_PRPSINFO, NT_AUXV, NT_FILE, then its other regsets
 *	thread n: NT_PRSTATUS, its other regsets
 *	(optional notes that we do not know)
 */
#include "core/image/notes.h"

#include <elf.h>
#include <string.h>

#define RULE(name)        tf_image_rule_text[TF_RULE_##name]
#define PRSTATUS_BEFORE   112 /* struct elf_prstatus, 64-bit: bytes before pr_reg */
#define PRSTATUS_AFTER    8   /* pr_fpvalid and padding */
#define PRPSINFO_SIZE     136 /* struct elf_prpsinfo, 64-bit */
#define NOTE_HEADER       12
#define TELEFORK_PREAMBLE 8 /* u32 format, u32 count */

/* --- records from the table --- */

static size_t element_size(const struct tf_field *f)
{
	switch (f->type) {
	case TF_FIELD_U64:
	case TF_FIELD_HEX64:
	case TF_FIELD_ADDR:
	case TF_FIELD_TIME:
	case TF_FIELD_SIGSET:
		return 8;
	case TF_FIELD_STR:
	case TF_FIELD_STR_ARG:
		return sizeof(char *);
	case TF_FIELD_COMM:
		return 16;
	default:
		return 4;
	}
}

static bool is_string(const struct tf_field *f)
{
	return f->type == TF_FIELD_STR || f->type == TF_FIELD_STR_ARG;
}

/* Bytes of the shortest record on the wire. */
static size_t least_size(const struct tf_kind *k)
{
	size_t n = 0;

	for (uint32_t i = 0; i < k->n_fields; i++) {
		const struct tf_field *f = &k->fields[i];

		n += (is_string(f) ? 4 : element_size(f)) * f->count;
	}
	return n;
}

uint32_t tf_kind_count(const struct tf_kind *k, const struct tf_image *img)
{
	uint32_t n;

	if (k->max == 1)
		return 1;
	memcpy(&n, (const char *)img + k->count, sizeof(n));
	return n;
}

const void *tf_kind_item(const struct tf_kind *k, const struct tf_image *img, uint32_t i)
{
	const char *at = (const char *)img + k->items;
	const char *array;

	if (k->max == 1)
		return at;
	memcpy(&array, at, sizeof(array));
	return array + (size_t)i * k->size;
}

static void put_element(struct tf_writer *w, const struct tf_field *f, const char *p)
{
	const char *s;
	uint64_t v64;
	uint32_t v32;
	size_t n;

	switch (element_size(f)) {
	case 4:
		memcpy(&v32, p, sizeof(v32));
		tf_put_u32(w, v32);
		return;
	case 16:
		n = strnlen(p, 15);
		tf_put(w, p, n);
		tf_put_zero(w, 16 - n);
		return;
	}
	if (is_string(f)) {
		memcpy(&s, p, sizeof(s));
		tf_put_str(w, s, TF_MAX_STR);
		return;
	}
	memcpy(&v64, p, sizeof(v64));
	tf_put_u64(w, v64);
}

static void put_record(struct tf_writer *w, const struct tf_kind *k, const char *item)
{
	for (uint32_t i = 0; i < k->n_fields; i++) {
		const struct tf_field *f = &k->fields[i];

		for (uint16_t n = 0; n < f->count; n++)
			put_element(w, f, item + f->offset + n * element_size(f));
	}
}

static void get_u32(struct tf_reader *r, const struct tf_field *f, char *p)
{
	size_t at = r->at;
	uint32_t v = tf_get_u32(r);
	bool ok = true;

	if (f->type == TF_FIELD_ENUM)
		ok = v < f->n_names;
	else if (f->type == TF_FIELD_FLAGS)
		ok = !(v >> f->n_names);
	else if (f->type == TF_FIELD_OCT32)
		ok = v <= 0777;
	if (!ok)
		tf_reader_fail(r, TELEFORK_E_IMAGE, at, RULE(FIELD));
	memcpy(p, &v, sizeof(v));
}

static void get_element(struct tf_reader *r, const struct tf_field *f, char *p, struct tf_arena *a,
	const struct tf_arch *arch)
{
	size_t at = r->at;
	const uint8_t *bytes;
	const char *s;
	uint64_t v;

	switch (element_size(f)) {
	case 4:
		get_u32(r, f, p);
		return;
	case 16:
		bytes = tf_get(r, 16);
		if (bytes && bytes[15])
			tf_reader_fail(r, TELEFORK_E_IMAGE, at, RULE(FIELD));
		if (bytes)
			memcpy(p, bytes, 16);
		return;
	}
	if (is_string(f)) {
		s = tf_get_str(r, a, TF_MAX_STR);
		if (f->type == TF_FIELD_STR_ARG && !*s)
			tf_reader_fail(r, TELEFORK_E_IMAGE, at, RULE(FIELD));
		memcpy(p, &s, sizeof(s));
		return;
	}
	v = tf_get_u64(r);
	if (f->type == TF_FIELD_ADDR && v > (uint64_t)1 << arch->max_user_bits)
		tf_reader_fail(r, TELEFORK_E_IMAGE, at, RULE(ADDRESS));
	memcpy(p, &v, sizeof(v));
}

static void get_record(struct tf_reader *r, const struct tf_kind *k, char *item, struct tf_arena *a,
	const struct tf_arch *arch)
{
	for (uint32_t i = 0; i < k->n_fields; i++) {
		const struct tf_field *f = &k->fields[i];

		for (uint16_t n = 0; n < f->count; n++)
			get_element(r, f, item + f->offset + n * element_size(f), a, arch);
	}
}

/* Allocates the array for count records and returns where record 0 is; NULL: failure recorded. */
static char *place_records(struct tf_reader *r, const struct tf_kind *k, uint32_t count,
	struct tf_image *img, struct tf_arena *a)
{
	char *array;

	if (k->max == 1)
		return (char *)img + k->items;
	array = tf_arena_array(a, count ? count : 1, k->size);
	if (!array) {
		tf_reader_fail(r, TELEFORK_E_NOMEM, r->at, "memory: the arena is full");
		return NULL;
	}
	memcpy((char *)img + k->items, &array, sizeof(array));
	memcpy((char *)img + k->count, &count, sizeof(count));
	return array;
}

static void get_records(struct tf_reader *r, const struct tf_kind *k, struct tf_image *img,
	struct tf_arena *a, const struct tf_arch *arch)
{
	size_t at = r->at;
	uint32_t count = tf_get_u32(r);
	const char *rule;
	char *items;

	/* Checked before anything is allocated: what is claimed must be there. */
	if (count > k->max || (k->max == 1 && count != 1) ||
		/* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): every kind has a field */
		count > tf_reader_left(r) / least_size(k)) {
		tf_reader_fail(r, TELEFORK_E_IMAGE, at, RULE(COUNT));
		return;
	}
	items = place_records(r, k, count, img, a);
	for (uint32_t i = 0; items && i < count && !r->code; i++) {
		at = r->at;
		get_record(r, k, items + (size_t)i * k->size, a, arch);
		rule = r->code || !k->check ? NULL : k->check(img, arch, i);
		if (rule)
			tf_reader_fail(r, TELEFORK_E_IMAGE, at, rule);
	}
}

/* --- writing --- */

/* A note's header; the caller then puts size bytes. */
static void put_header(struct tf_writer *w, const char *owner, uint32_t type, size_t size)
{
	if (size > UINT32_MAX)
		w->failed = true;
	tf_put_u32(w, (uint32_t)strlen(owner) + 1);
	tf_put_u32(w, (uint32_t)size);
	tf_put_u32(w, type);
	tf_put(w, owner, strlen(owner) + 1);
	tf_put_align(w, 4);
}

static void put_records(struct tf_writer *w, const struct tf_kind *k, const struct tf_image *img)
{
	uint32_t count = tf_kind_count(k, img);

	tf_put_u32(w, TELEFORK_FORMAT);
	tf_put_u32(w, count);
	for (uint32_t i = 0; i < count && !w->failed; i++)
		put_record(w, k, tf_kind_item(k, img, i));
}

/* Bytes of all strings of the record. */
static size_t strings_size(const struct tf_kind *k, const char *item)
{
	size_t size = 0;

	for (uint32_t i = 0; i < k->n_fields; i++) {
		const struct tf_field *f = &k->fields[i];

		for (uint16_t n = 0; is_string(f) && n < f->count; n++) {
			const char *s;

			memcpy(&s, item + f->offset + n * element_size(f), sizeof(s));
			size += s ? strnlen(s, TF_MAX_STR + 1) : 0;
		}
	}
	return size;
}

static size_t records_size(const struct tf_kind *k, const struct tf_image *img)
{
	uint32_t count = tf_kind_count(k, img);
	size_t size = TELEFORK_PREAMBLE + count * least_size(k);

	for (uint32_t i = 0; i < count; i++)
		size += strings_size(k, tf_kind_item(k, img, i));
	return size;
}

static void put_kind(struct tf_writer *w, const struct tf_kind *k, const struct tf_image *img)
{
	size_t size;

	if (tf_kind_count(k, img) > k->max) {
		w->failed = true;
		return;
	}
	size = records_size(k, img);
	put_header(w, TF_NOTE_OWNER, k->type, size);
	if (w->to || w->expect)
		put_records(w, k, img);
	else
		tf_put_zero(w, size);
	tf_put_align(w, 4);
}

/* struct elf_prstatus with the general registers of regs; the rest says who the thread is. */
static void put_prstatus(struct tf_writer *w, const struct tf_image *img, const struct tf_thread *t)
{
	const struct tf_regset *set = tf_regs_find(&t->regs, NT_PRSTATUS);

	if (!set) {
		w->failed = true;
		return;
	}
	put_header(w, "CORE", NT_PRSTATUS, PRSTATUS_BEFORE + set->size + PRSTATUS_AFTER);
	tf_put_zero(w, 24); /* pr_info, pr_cursig, pr_sigpend */
	tf_put_u64(w, t->sigmask);
	tf_put_u32(w, (uint32_t)t->tid);
	tf_put_u32(w, (uint32_t)img->source.ppid);
	tf_put_zero(w, PRSTATUS_BEFORE - 40); /* pr_pgrp, pr_sid, times */
	tf_put(w, set->data, set->size);
	tf_put_u32(w, 1); /* pr_fpvalid */
	tf_put_zero(w, 4);
	tf_put_align(w, 4);
}

static void put_prpsinfo(struct tf_writer *w, const struct tf_image *img)
{
	const char *comm = img->threads[0].comm, *exe = img->source.exe ? img->source.exe : "";
	size_t n_comm = strnlen(comm, 15), n_exe = strnlen(exe, 79);

	put_header(w, "CORE", NT_PRPSINFO, PRPSINFO_SIZE);
	tf_put(w, "\0R\0\0", 4); /* state, its letter, zombie, nice */
	tf_put_zero(w, 20);      /* padding, pr_flag, pr_uid, pr_gid */
	tf_put_u32(w, (uint32_t)img->source.pid);
	tf_put_u32(w, (uint32_t)img->source.ppid);
	tf_put_zero(w, 8); /* pr_pgrp, pr_sid */
	tf_put(w, comm, n_comm);
	tf_put_zero(w, 16 - n_comm);
	tf_put(w, exe, n_exe);
	tf_put_zero(w, 80 - n_exe);
}

static void put_auxv(struct tf_writer *w, const struct tf_image *img)
{
	put_header(w, "CORE", NT_AUXV, (size_t)img->n_auxv * 16);
	for (uint32_t i = 0; i < 2 * img->n_auxv && !w->failed; i++)
		tf_put_u64(w, img->auxv[i]);
}

static bool has_file(const struct tf_map *m)
{
	return m->kind == TF_MAP_FILE && m->path && m->path[0];
}

static void put_file_body(struct tf_writer *w, const struct tf_image *img)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < img->n_maps; i++)
		n += has_file(&img->maps[i]);
	tf_put_u64(w, n);
	tf_put_u64(w, img->source.page_size);
	for (uint32_t i = 0; i < img->n_maps && !w->failed; i++) {
		if (!has_file(&img->maps[i]))
			continue;
		tf_put_u64(w, img->maps[i].start);
		tf_put_u64(w, img->maps[i].end);
		tf_put_u64(w, img->maps[i].offset / img->source.page_size);
	}
	for (uint32_t i = 0; i < img->n_maps && !w->failed; i++) {
		if (has_file(&img->maps[i]))
			tf_put(w, img->maps[i].path, strlen(img->maps[i].path) + 1);
	}
}

static void put_file(struct tf_writer *w, const struct tf_image *img)
{
	struct tf_writer size;

	tf_writer_measure(&size, TF_MAX_HEAD);
	put_file_body(&size, img);
	put_header(w, "CORE", NT_FILE, size.at);
	put_file_body(w, img);
	tf_put_align(w, 4);
}

static const char *regset_owner(uint32_t type)
{
	return type == NT_FPREGSET ? "CORE" : "LINUX";
}

void tf_notes_put(struct tf_writer *w, const struct tf_image *img)
{
	for (size_t i = 0; i < tf_n_kinds && !w->failed; i++)
		put_kind(w, &tf_kinds[i], img);
	for (uint32_t i = 0; i < img->n_threads && !w->failed; i++) {
		const struct tf_regs *regs = &img->threads[i].regs;

		put_prstatus(w, img, &img->threads[i]);
		if (!i) {
			put_prpsinfo(w, img);
			put_auxv(w, img);
			put_file(w, img);
		}
		for (uint32_t n = 0; n < regs->n; n++) {
			if (regs->set[n].type == NT_PRSTATUS)
				continue;
			put_header(w, regset_owner(regs->set[n].type), regs->set[n].type,
				regs->set[n].size);
			tf_put(w, regs->set[n].data, regs->set[n].size);
			tf_put_align(w, 4);
		}
	}
}

/* --- reading --- */

struct note {
	size_t at; /* of the header */
	uint32_t type, size;
	char owner[12]; /* "" if longer than any that we know */
};

/* Reads a header; the reader then stands at the descriptor. False at the end or after a failure. */
static bool get_header(struct tf_reader *r, struct note *n)
{
	uint32_t n_owner;
	const uint8_t *owner;

	if (!tf_reader_left(r))
		return false;
	*n = (struct note){.at = r->at};
	n_owner = tf_get_u32(r);
	n->size = tf_get_u32(r);
	n->type = tf_get_u32(r);
	owner = tf_get(r, n_owner);
	tf_get_align(r, 4);
	if (owner && n_owner && n_owner <= sizeof(n->owner) && !owner[n_owner - 1])
		memcpy(n->owner, owner, n_owner);
	return !r->code;
}

static bool is(const struct note *n, const char *owner, uint32_t type)
{
	return n->type == type && !strcmp(n->owner, owner);
}

/* The next note must be this one, of this size (UINT32_MAX: any). */
static bool expect(
	struct tf_reader *r, struct note *n, const char *owner, uint32_t type, uint32_t size)
{
	size_t at = r->at;

	if (!get_header(r, n) || !is(n, owner, type)) {
		tf_reader_fail(r, TELEFORK_E_IMAGE, at, RULE(NOTE_ORDER));
		return false;
	}
	if (size != UINT32_MAX && n->size != size)
		tf_reader_fail(r, TELEFORK_E_IMAGE, at, RULE(NOTE_SIZE));
	return !r->code;
}

static int get_kind(struct tf_reader *r, const struct tf_kind *k, struct tf_image *img,
	struct tf_arena *a, const struct tf_arch *arch, struct tf_err *e)
{
	struct note n;
	uint32_t format;
	size_t old;

	if (!expect(r, &n, TF_NOTE_OWNER, k->type, UINT32_MAX))
		return r->code;
	old = tf_reader_limit(r, n.size);
	format = tf_get_u32(r);
	if (!r->code && format != TELEFORK_FORMAT) {
		tf_reader_fail(r, TELEFORK_E_VERSION, n.at, "format");
		return tf_fail(e, TELEFORK_E_VERSION,
			"image has format %u, this build of telefork (%s) knows format %u only",
			format, TELEFORK_VERSION, TELEFORK_FORMAT);
	}
	get_records(r, k, img, a, arch);
	tf_reader_unlimit(r, old);
	tf_get_align(r, 4);
	return r->code;
}

/* tids are unique: one bit for each up to the highest. */
static void check_tids(
	struct tf_reader *r, const struct tf_image *img, struct tf_arena *a, size_t at)
{
	uint32_t highest = 0;
	uint8_t *seen;

	if (!img->n_threads)
		tf_reader_fail(r, TELEFORK_E_IMAGE, at, RULE(THREADS));
	if (img->n_threads < 2 || r->code)
		return;
	for (uint32_t i = 0; i < img->n_threads; i++)
		if ((uint32_t)img->threads[i].tid > highest)
			highest = (uint32_t)img->threads[i].tid;
	seen = tf_arena_alloc(a, highest / 8 + 1);
	if (!seen) {
		tf_reader_fail(r, TELEFORK_E_NOMEM, at, "memory: the arena is full");
		return;
	}
	for (uint32_t i = 0; i < img->n_threads; i++) {
		uint32_t tid = (uint32_t)img->threads[i].tid;

		if (seen[tid / 8] & 1u << tid % 8)
			tf_reader_fail(r, TELEFORK_E_IMAGE, at, RULE(THREADS));
		seen[tid / 8] |= (uint8_t)(1u << tid % 8);
	}
}

static void get_auxv(struct tf_reader *r, struct tf_image *img, struct tf_arena *a)
{
	struct note n;

	if (!expect(r, &n, "CORE", NT_AUXV, UINT32_MAX))
		return;
	if (n.size % 16 || n.size / 16 > TF_MAX_AUXV || n.size > tf_reader_left(r)) {
		tf_reader_fail(r, TELEFORK_E_IMAGE, n.at, RULE(AUXV));
		return;
	}
	img->n_auxv = n.size / 16;
	img->auxv = tf_arena_array(a, 2 * img->n_auxv + 1, sizeof(*img->auxv));
	if (!img->auxv) {
		tf_reader_fail(r, TELEFORK_E_NOMEM, n.at, "memory: the arena is full");
		return;
	}
	for (uint32_t i = 0; i < img->n_auxv; i++) {
		img->auxv[2 * i] = tf_get_u64(r);
		img->auxv[2 * i + 1] = tf_get_u64(r);
		if ((img->auxv[2 * i] == AT_NULL) != (i + 1 == img->n_auxv))
			tf_reader_fail(r, TELEFORK_E_IMAGE, n.at, RULE(AUXV));
	}
}

/* Copies a regset's bytes, from where the reader stands, into the thread. */
static void get_regset(
	struct tf_reader *r, struct tf_regs *regs, struct tf_arena *a, uint32_t type, uint32_t size)
{
	size_t at = r->at;
	const uint8_t *bytes;
	struct tf_regset *set;

	if (size > TF_REGSET_MAX || regs->n == TF_REGSETS_MAX || tf_regs_find(regs, type))
		tf_reader_fail(r, TELEFORK_E_IMAGE, at, RULE(REGSETS));
	bytes = tf_get(r, size);
	if (!bytes)
		return;
	set = tf_regs_add(regs, a, type, size);
	if (!set)
		tf_reader_fail(r, TELEFORK_E_NOMEM, at, "memory: the arena is full");
	else
		memcpy(set->data, bytes, size);
}

/* Skips a note that is compared later. */
static void skip(struct tf_reader *r, const char *owner, uint32_t type, uint32_t size)
{
	struct note n;

	if (!expect(r, &n, owner, type, size))
		return;
	tf_get(r, n.size);
	tf_get_align(r, 4);
}

/* What only the architecture knows about its regsets. */
static int check_regs(struct tf_reader *r, const struct tf_image *img, const struct tf_regs *regs,
	const struct tf_arch *arch, size_t at, struct tf_err *e)
{
	struct tf_err why = {0};
	int code = arch->check(regs, &img->cpu, &why);

	if (!code)
		return 0;
	tf_fail(e, code, "image: offset %zu: %s (%s)", at, RULE(REGSETS), why.text);
	return tf_reader_fail(r, code, at, RULE(REGSETS));
}

/* One thread: its NT_PRSTATUS, what comes with the first thread, its regsets up to another owner's
 * note or the next thread. */
static int get_thread(struct tf_reader *r, struct tf_image *img, uint32_t i, struct tf_arena *a,
	const struct tf_arch *arch, struct tf_err *e)
{
	struct tf_regs *regs = &img->threads[i].regs;
	uint32_t gregs = arch->prstatus_gregs;
	size_t at = r->at;
	struct note n;

	if (!expect(r, &n, "CORE", NT_PRSTATUS, PRSTATUS_BEFORE + gregs + PRSTATUS_AFTER))
		return r->code;
	tf_get(r, PRSTATUS_BEFORE);
	get_regset(r, regs, a, NT_PRSTATUS, gregs);
	tf_get(r, PRSTATUS_AFTER);
	tf_get_align(r, 4);
	if (!i) {
		skip(r, "CORE", NT_PRPSINFO, PRPSINFO_SIZE);
		get_auxv(r, img, a);
		skip(r, "CORE", NT_FILE, UINT32_MAX);
	}
	while (get_header(r, &n)) {
		if (is(&n, "CORE", NT_PRSTATUS) || strcmp(n.owner, regset_owner(n.type))) {
			r->at = n.at;
			break;
		}
		get_regset(r, regs, a, n.type, n.size);
		tf_get_align(r, 4);
	}
	return r->code ? r->code : check_regs(r, img, regs, arch, at, e);
}

/* What follows the notes that we know: unknown, and optional. */
static void get_rest(struct tf_reader *r)
{
	struct note n;

	while (get_header(r, &n)) {
		if (strcmp(n.owner, TF_NOTE_OWNER) || !(n.type & TF_NOTE_OPTIONAL))
			tf_reader_fail(r, TELEFORK_E_IMAGE, n.at, RULE(NOTE_UNKNOWN));
		tf_get(r, n.size);
		tf_get_align(r, 4);
	}
}

int tf_notes_get(struct tf_reader *r, struct tf_image *img, struct tf_arena *a,
	const struct tf_arch *arch, size_t *ret_known, struct tf_err *e)
{
	size_t at = r->at;

	for (size_t i = 0; i < tf_n_kinds && !r->code; i++) {
		at = r->at;
		get_kind(r, &tf_kinds[i], img, a, arch, e);
	}
	if (!r->code) /* threads are the last kind */
		check_tids(r, img, a, at);
	for (uint32_t i = 0; i < img->n_threads && !r->code; i++)
		get_thread(r, img, i, a, arch, e);
	if (r->code)
		return r->code;
	*ret_known = r->at;
	get_rest(r);
	return r->code;
}
