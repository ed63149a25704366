/* SPDX-License-Identifier: MIT */
/*
 * The bounded reader and writer, the table of notes (every byte of every struct is on the wire or
 * known padding; docs/format.md is the table), and the decoder's rules: for each one an image that
 * breaks it and nothing else, refused by that rule's name.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/text.h"
#include "core/image/notes.h"
#include "tests/unit/image_sample.h"
#include "tests/unit/suite.h"

static struct tf_arena arena;

static void set_up(void)
{
	ck_assert_int_eq(tf_arena_init(&arena, (size_t)128 << 20), 0);
}

static void tear_down(void)
{
	tf_arena_done(&arena);
}

/* --- reader and writer --- */

START_TEST(writer_three_ways)
{
	uint8_t bytes[32];
	struct tf_writer w;

	for (int way = 0; way < 3; way++) {
		if (way == 0)
			tf_writer_measure(&w, 32);
		else if (way == 1)
			tf_writer_init(&w, bytes, sizeof(bytes));
		else
			tf_writer_compare(&w, bytes, sizeof(bytes));
		tf_put_u16(&w, 0x1234);
		tf_put_align(&w, 4);
		tf_put_u32(&w, 0x89abcdef);
		tf_put_u64(&w, UINT64_C(0x0102030405060708));
		tf_put_str(&w, "abc", 3);
		tf_put_str(&w, NULL, 0);
		ck_assert(!w.failed);
		ck_assert_uint_eq(w.at, 27);
	}
	ck_assert_mem_eq(bytes, "\x34\x12\0\0\xef\xcd\xab\x89\x08\x07\x06\x05\x04\x03\x02\x01", 16);
	ck_assert_mem_eq(bytes + 16, "\3\0\0\0abc\0\0\0\0", 11);
}
END_TEST

START_TEST(writer_fails_and_stays)
{
	uint8_t bytes[8] = {1, 2, 3, 4, 5, 6, 7, 8};
	struct tf_writer w;

	tf_writer_init(&w, bytes, 3);
	tf_put_u32(&w, 0);
	ck_assert(w.failed && w.at == 0 && bytes[0] == 1);
	tf_put_u16(&w, 0);
	ck_assert(w.at == 0 && bytes[0] == 1);
	tf_writer_init(&w, bytes, 8);
	tf_put_str(&w, "four", 3);
	ck_assert(w.failed);
	tf_writer_compare(&w, bytes, 8);
	tf_put(&w, "\1\2\3\5", 4);
	ck_assert(w.failed && w.at == 3);
	tf_writer_compare(&w, (const uint8_t *)"\0\0\7", 3);
	tf_put_zero(&w, 3);
	ck_assert(w.failed && w.at == 2);
}
END_TEST

START_TEST(reader_stops_at_the_end)
{
	uint8_t bytes[] = {1, 0, 0, 0, 9, 0, 0};
	struct tf_err e = {0};
	struct tf_reader r;

	tf_reader_init(&r, bytes, sizeof(bytes));
	ck_assert_uint_eq(tf_get_u32(&r), 1);
	ck_assert_uint_eq(tf_reader_left(&r), 3);
	ck_assert_uint_eq(tf_get_u32(&r), 0);
	ck_assert_int_eq(r.code, TELEFORK_E_IMAGE);
	ck_assert_uint_eq(r.failed_at, 4);
	ck_assert_uint_eq(tf_get_u16(&r), 0);
	ck_assert_ptr_null(tf_get(&r, 0));
	ck_assert_uint_eq(tf_reader_left(&r), 0);
	tf_reader_fail(&r, TELEFORK_E_VERSION, 1, "later");
	ck_assert_int_eq(tf_reader_error(&r, &e, "thing"), TELEFORK_E_IMAGE);
	ck_assert_str_eq(e.text, "thing: offset 4: truncated: the bytes end too early");
}
END_TEST

START_TEST(reader_limits_and_strings)
{
	static const uint8_t bytes[] = "\3\0\0\0abc\0\2\0\0\0x\0\377\377\377\377";
	struct tf_reader r;
	size_t old;

	tf_reader_init(&r, bytes, sizeof(bytes));
	old = tf_reader_limit(&r, 8);
	ck_assert_str_eq(tf_get_str(&r, &arena, 3), "abc");
	tf_get_align(&r, 4);
	tf_reader_unlimit(&r, old);
	ck_assert_int_eq(r.code, 0);
	ck_assert_str_eq(tf_get_str(&r, &arena, 3), "");
	ck_assert(strstr(r.rule, "string-zero"));
	tf_reader_init(&r, bytes + 14, 4);
	ck_assert_str_eq(tf_get_str(&r, &arena, TF_MAX_STR), "");
	ck_assert(strstr(r.rule, "string-length"));
	tf_reader_init(&r, bytes, sizeof(bytes));
	old = tf_reader_limit(&r, 8);
	tf_get_u32(&r);
	tf_reader_unlimit(&r, old);
	ck_assert(strstr(r.rule, "consumed"));
	tf_reader_init(&r, bytes, sizeof(bytes));
	tf_reader_limit(&r, sizeof(bytes) + 1);
	ck_assert(strstr(r.rule, "truncated"));
	tf_reader_init(&r, bytes, sizeof(bytes));
	tf_get(&r, 5);
	tf_get_align(&r, 8);
	ck_assert(strstr(r.rule, "padding"));
}
END_TEST

/* --- the table --- */

static size_t field_size(const struct tf_field *f)
{
	switch (f->type) {
	case TF_FIELD_U32:
	case TF_FIELD_I32:
	case TF_FIELD_HEX32:
	case TF_FIELD_OCT32:
	case TF_FIELD_ENUM:
	case TF_FIELD_FLAGS:
		return 4 * (size_t)f->count;
	case TF_FIELD_COMM:
		return 16;
	default:
		return 8 * (size_t)f->count;
	}
}

/* Bytes that are deliberately not on the wire: what has a note of its own, and reserved words. */
static size_t elsewhere(const char *kind)
{
	if (!strcmp(kind, "cpu"))
		return sizeof(((struct tf_cpu *)0)->reserved);
	if (!strcmp(kind, "vdso")) /* n_symbols, symbols */
		return sizeof(uint32_t) + sizeof(void *);
	if (!strcmp(kind, "map")) /* own */
		return sizeof(uint64_t);
	if (!strcmp(kind, "fd")) /* dev, ino */
		return 2 * sizeof(uint64_t);
	if (!strcmp(kind, "object")) /* how, dev, ino */
		return sizeof(uint32_t) + 2 * sizeof(uint64_t);
	return strcmp(kind, "thread") ? 0 : sizeof(struct tf_regs);
}

/* A field that was added to a struct and forgotten in the table would be lost in silence. */
START_TEST(table_covers_the_structs)
{
	for (size_t i = 0; i < tf_n_kinds; i++) {
		const struct tf_kind *k = &tf_kinds[i];
		uint8_t seen[4096] = {0};
		size_t bytes = 0;

		for (uint32_t f = 0; f < k->n_fields; f++) {
			size_t n = field_size(&k->fields[f]);

			ck_assert_uint_le(k->fields[f].offset + n, k->size);
			for (size_t b = 0; b < n; b++)
				ck_assert_int_eq(seen[k->fields[f].offset + b]++, 0);
			bytes += n;
		}
		bytes += elsewhere(k->name);
		ck_assert_msg(bytes <= k->size && k->size - bytes < 13,
			"%s: %zu of %u bytes are in the table", k->name, bytes, k->size);
		ck_assert(!(k->type & TF_NOTE_OPTIONAL));
	}
}
END_TEST

START_TEST(format_md_is_the_table)
{
	static char table[65536], doc[262144];
	const char *dir = getenv("TF_SRCDIR"), *mode = getenv("TF_GOLDEN");
	static const char begin[] = "<!-- table: made from core/image/notes_table.c -->\n";
	char path[4096], *at, *end;
	size_t n = tf_notes_markdown(table, sizeof(table)), n_doc;
	FILE *f;

	ck_assert_uint_lt(n, sizeof(table));
	snprintf(path, sizeof(path), "%s/docs/format.md", dir ? dir : ".");
	f = fopen(path, "r");
	ck_assert_msg(f, "%s: cannot be opened (set TF_SRCDIR)", path);
	n_doc = fread(doc, 1, sizeof(doc) - 1, f);
	fclose(f);
	doc[n_doc] = '\0';
	at = strstr(doc, begin);
	ck_assert_ptr_nonnull(at);
	at += strlen(begin);
	end = strstr(at, "<!-- end of table -->\n");
	ck_assert_ptr_nonnull(end);
	if (mode && !strcmp(mode, "write")) {
		f = fopen(path, "w");
		ck_assert_ptr_nonnull(f);
		fprintf(f, "%.*s%s%s", (int)(at - doc), doc, table, end);
		ck_assert_int_eq(fclose(f), 0);
		return;
	}
	ck_assert_msg((size_t)(end - at) == n && !memcmp(at, table, n),
		"docs/format.md is not the table: run test_notes with TF_GOLDEN=write");
}
END_TEST

START_TEST(text_is_safe)
{
	char text[64];

	tf_text_safe("a\033[2J\\\x7f\x80\xc3\xa9\xc2\x85\xe2\x80\xae", text, sizeof(text));
	ck_assert_str_eq(text, "a\\x1b[2J\\x5c\\x7f\\x80\xc3\xa9\\xc2\\x85\\xe2\\x80\\xae");
	ck_assert_uint_eq(tf_text_safe("abcdef", text, 4), 6);
	ck_assert_str_eq(text, "abc");
	ck_assert_uint_eq(tf_text_safe("\xc3", text, sizeof(text)), 4);
	ck_assert_uint_eq(tf_text_safe("abc\033", text, 7), 7);
	ck_assert_str_eq(text, "abc"); /* a code stays whole */
}
END_TEST

START_TEST(message_is_safe)
{
	char message[TELEFORK_MESSAGE_MAX] = "one: red\\x1b\nand \033[2J\r\xc2\x85";

	tf_message_safe(message);
	ck_assert_str_eq(message, "one: red\\x1b\nand \\x1b[2J\\x0d\\xc2\\x85");
	memset(message, '\033', sizeof(message)); /* without an end */
	tf_message_safe(message);
	ck_assert_uint_eq(strlen(message), (sizeof(message) - 1) / 4 * 4);
}
END_TEST

/* --- rules --- */

struct mutant {
	const char *rule;
	void (*change)(struct tf_image *img);
};

/* One good signature, and room for another. */
static struct tf_signature *sign(struct tf_image *img)
{
	const struct tf_signature s = {TF_SIGN_MEMORY, 0, 0x450100, 0x410404, 0x450110};

	img->n_signatures = 1;
	img->signatures = tf_arena_array(&arena, 2, sizeof(s));
	img->signatures[0] = img->signatures[1] = s;
	return img->signatures;
}

/* One good record of tags, and room for another. */
static struct tf_tags *tag(struct tf_image *img)
{
	const struct tf_tags t = {0x440000, {1}};

	img->maps[2].vmflags |= TF_VMF_MTE;
	img->n_tags = 1;
	img->tags = tf_arena_array(&arena, 2, sizeof(t));
	img->tags[0] = img->tags[1] = t;
	return img->tags;
}

#define CHANGE(name, statement)                \
	static void name(struct tf_image *img) \
	{                                      \
		statement;                     \
	}

/* Two good runs, and a word in the second. */
static void stage(struct tf_image *img)
{
	uint64_t page = img->source.page_size, at = img->maps[2].start;

	img->maps[2].vmflags &= ~TF_VMF_MTE;
	img->n_tags = 0;
	img->n_staged = 2;
	img->staged = tf_arena_array(&arena, 2, sizeof(*img->staged));
	img->staged[0] = (struct tf_run){at, at + page};
	img->staged[1] = (struct tf_run){at + 2 * page, at + 3 * page};
	img->n_held = 1;
	img->held = tf_arena_array(&arena, 2, sizeof(*img->held));
	img->held[0] = img->held[1] = at + 2 * page + 8;
}

CHANGE(staged_empty, (stage(img), img->staged[0].end = img->staged[0].start))
CHANGE(staged_odd, (stage(img), img->staged[0].start += 8))
CHANGE(staged_twice, (stage(img), img->staged[0].end = img->staged[1].end))
CHANGE(staged_nowhere, (stage(img), img->staged[1].end = img->maps[2].end + img->source.page_size))
CHANGE(staged_file, (stage(img), img->maps[2].kind = TF_MAP_FILE))
CHANGE(staged_shared, (stage(img), img->maps[2].flags |= TF_MAP_SHARED))
CHANGE(held_odd, (stage(img), img->held[0] += 2))
CHANGE(held_twice, (stage(img), img->n_held = 2))
CHANGE(held_between, (stage(img), img->held[0] -= img->source.page_size))
CHANGE(page_size, (img->source.page_size = 8192))
CHANGE(source_flag, (img->source.flags = 32))
CHANGE(source_origin, (img->source.origin = TF_ORIGIN_TASK + 1))
CHANGE(source_umask, (img->source.umask = 01000))
CHANGE(mailbox_high, (img->source.mailbox = UINT64_C(1) << 60))
CHANGE(cpu_words, (img->cpu.n_words = TF_FEATURE_WORDS + 1))
CHANGE(cpu_feature, (img->cpu.features[3] = 1))
CHANGE(cpu_component, (img->cpu.xcomp[9].offset = TF_REGSET_MAX + 1))
CHANGE(cpu_vl, (img->cpu.vl = 24))
CHANGE(cpu_vl_mask, (img->cpu.vl_mask = 0x10000))
CHANGE(mm_high, (img->mm.brk = UINT64_MAX))
CHANGE(vdso_odd, (img->vdso.base += 8))
CHANGE(vdso_none, (img->vdso.vvar_size = 0))
CHANGE(vdso_long, (img->vdso.size = UINT64_MAX & ~UINT64_C(0xfff)))
CHANGE(symbol_below, (img->vdso.symbols[0].value = img->vdso.base - 1))
CHANGE(symbol_long, (img->vdso.symbols[1].size = img->vdso.size))
CHANGE(symbol_nameless, (img->vdso.symbols[1].name = ""))
CHANGE(map_empty, (img->maps[0].end = img->maps[0].start))
CHANGE(map_odd, (img->maps[0].start += 1))
CHANGE(map_overlap, (img->maps[1].start = img->maps[0].end - 0x1000))
CHANGE(map_order, (img->maps[1].start = 0x10000, img->maps[1].end = 0x20000))
CHANGE(map_data_behind, (img->maps[0].data_end += 0x1000))
CHANGE(map_data_before, (img->maps[0].data_end = img->maps[0].start - 0x1000))
CHANGE(map_data_odd, (img->maps[0].data_end -= 1))
CHANGE(map_kind, (img->maps[0].kind = TF_MAP_KINDS))
CHANGE(map_prot, (img->maps[0].prot = 8))
CHANGE(map_flag, (img->maps[0].flags = 8))
CHANGE(map_vmflag, (img->maps[0].vmflags = TF_VMF_ALL + 1))
CHANGE(map_high, (img->source.max_map_end = 0x7f0000210000))
CHANGE(tags_odd, (tag(img)->address += 16))
CHANGE(tags_nowhere, (tag(img)->address = 0x900000))
CHANGE(tags_of_others, (tag(img)->address = 0x410000))
CHANGE(tags_untagged, (tag(img), img->maps[2].vmflags = 0))
CHANGE(tags_twice, (tag(img), img->n_tags = 2))
CHANGE(fd_negative, (img->fds[0].fd = -1))
CHANGE(fd_twice, (img->fds[1].fd = 0))
CHANGE(fd_of_itself, (img->fds[1].same = 1))
CHANGE(fd_of_nobody, (img->fds[2].same = 3))
CHANGE(fd_of_less, (img->fds[2].same = -2))
CHANGE(fd_kind, (img->fds[1].kind = TF_FD_KINDS))
CHANGE(one_signal, (img->n_sigactions = 63))
CHANGE(signature_place, (sign(img)->place = TF_SIGN_PLACES))
CHANGE(signature_key, (sign(img)->key = 2))
CHANGE(signature_high, (sign(img)->value = UINT64_C(1) << 60))
CHANGE(signature_odd, (sign(img)->address += 4))
CHANGE(signature_read_only, (sign(img)->address = 0x410000))
CHANGE(signature_nowhere, (sign(img)->address = 0x900000))
CHANGE(signature_behind, (sign(img)->address = 0x438000)) /* past the end of a file */
CHANGE(signature_link_address, (sign(img)->place = TF_SIGN_LINK))
CHANGE(signature_link_first,
	(*sign(img) = (struct tf_signature){.place = TF_SIGN_LINK}, img->n_signatures = 2))
CHANGE(tid_zero, (img->threads[0].tid = 0))
CHANGE(tid_high, (img->threads[1].tid = TF_MAX_TID + 1))
CHANGE(tid_twice, (img->threads[1].tid = img->threads[0].tid))
CHANGE(pending_number, (img->pending[0].signo = TF_SIGNALS + 1))
CHANGE(pending_other, (img->pending[1].info[0]++))
CHANGE(pending_tid, (img->pending[1].tid = -1))
CHANGE(soft_limit, (img->process.limits[6] = img->process.limits[7] + 1))
CHANGE(score, (img->process.oom_score_adj = 1001))
CHANGE(itimer_long, (img->process.itimers[2] = UINT64_C(1) << 62))
CHANGE(process_dumpable, (img->process.dumpable = 3))
CHANGE(groups_missing, (img->rights[1].n_groups = 2))
CHANGE(groups_gap, (img->rights[1].group = 1))
CHANGE(caps_effective, (img->rights[1].caps[TF_CAP_E] = 2, img->rights[1].caps[TF_CAP_P] = 1))
CHANGE(caps_ambient, (img->rights[1].caps[TF_CAP_A] = 4, img->rights[1].caps[TF_CAP_I] = 3))
CHANGE(filter_empty, (img->filters[1].n_code = 0))
CHANGE(filter_behind, (img->filters[1].n_code = 2))
CHANGE(filter_chain, (img->filters[1].chain = 2))
CHANGE(attributes_few, (img->n_attributes = 1))
CHANGE(attributes_rights, (img->attributes[1].rights = 2))
CHANGE(attributes_chain, (img->attributes[1].chain = 1))
CHANGE(attributes_nice, (img->attributes[0].nice = 20))
CHANGE(attributes_policy, (img->attributes[0].policy = 8))
CHANGE(attributes_flag, (img->attributes[0].flags = 8))
CHANGE(attributes_period, (img->attributes[0].period = UINT64_MAX))
CHANGE(timer_twice, (img->timers[1].id = 2))
CHANGE(timer_signal, (img->timers[0].signo = 65))
CHANGE(timer_clock, (img->timers[0].clock = -6))
CHANGE(timer_left, (img->timers[0].left = UINT64_MAX))
CHANGE(timer_notify, (img->timers[0].notify = TF_TIMER_NOTIFIES))
CHANGE(wait_nobody, (img->waits[0].thread = 2))
CHANGE(wait_twice, (img->n_waits = 2, img->waits = tf_arena_array(&arena, 2, sizeof(*img->waits))))
CHANGE(wait_long, (img->waits[0].left = UINT64_MAX))
CHANGE(auxv_open, (img->auxv[4] = 7))
CHANGE(auxv_inside, (img->auxv[0] = 0))
CHANGE(auxv_long, (img->n_auxv = 300, img->auxv = tf_arena_array(&arena, 300, 16)))
CHANGE(set_twice, (img->threads[0].regs.set[2].type = NT_FPREGSET))
CHANGE(set_huge,
	(img->threads[0].regs.set[2].size = TF_REGSET_MAX + 8,
		img->threads[0].regs.set[2].data = tf_arena_alloc(&arena, TF_REGSET_MAX + 8)))
CHANGE(set_damaged, (img->threads[0].regs.set[1].size -= 8))
CHANGE(segment_gap, (img->segments[0].vaddr += 0x1000))
CHANGE(segment_long, (img->segments[0].memsz += 0x1000))
CHANGE(segment_short, (img->segments[0].memsz -= 0x1000, img->segments[0].filesz = 0))
CHANGE(segment_missing, (img->n_segments--))
CHANGE(segment_prot, (img->segments[0].prot = PROT_WRITE))
CHANGE(segment_odd, (img->segments[0].filesz -= 1))
CHANGE(segment_fat, (img->segments[0].filesz += 0x1000))
CHANGE(segment_behind, (img->segments[1].filesz = 0x1000))
CHANGE(segment_vvar, (img->segments[6].filesz = 0x1000))

static const struct mutant mutants[] = {
	{"page-size", page_size},
	{"field", source_flag},
	{"field", source_origin},
	{"field", source_umask},
	{"address", mailbox_high},
	{"cpu", cpu_words},
	{"cpu", cpu_feature},
	{"cpu", cpu_component},
	{"cpu", cpu_vl},
	{"cpu", cpu_vl_mask},
	{"address", mm_high},
	{"vdso", vdso_odd},
	{"vdso", vdso_none},
	{"vdso", vdso_long},
	{"vdso", symbol_below},
	{"vdso", symbol_long},
	{"field", symbol_nameless},
	{"map-pages", map_empty},
	{"map-pages", map_odd},
	{"maps-sorted", map_overlap},
	{"maps-sorted", map_order},
	{"map-data-end", map_data_behind},
	{"map-data-end", map_data_before},
	{"map-data-end", map_data_odd},
	{"field", map_kind},
	{"field", map_prot},
	{"field", map_flag},
	{"field", map_vmflag},
	{"map-limit", map_high},
	{"tags", tags_odd},
	{"tags", tags_nowhere},
	{"tags", tags_of_others},
	{"tags", tags_untagged},
	{"tags", tags_twice},
	{"fds-sorted", fd_negative},
	{"fds-sorted", fd_twice},
	{"fd-same", fd_of_itself},
	{"fd-same", fd_of_nobody},
	{"fd-same", fd_of_less},
	{"field", fd_kind},
	{"sigactions", one_signal},
	{"field", signature_place},
	{"field", signature_key},
	{"address", signature_high},
	{"signatures", signature_odd},
	{"signatures", signature_read_only},
	{"signatures", signature_nowhere},
	{"signatures", signature_behind},
	{"signatures", signature_link_address},
	{"signatures", signature_link_first},
	{"threads", tid_zero},
	{"threads", tid_high},
	{"threads", tid_twice},
	{"pending", pending_number},
	{"pending", pending_other},
	{"pending", pending_tid},
	{"process", soft_limit},
	{"process", score},
	{"process", itimer_long},
	{"process", process_dumpable},
	{"rights", groups_missing},
	{"rights", groups_gap},
	{"capabilities", caps_effective},
	{"capabilities", caps_ambient},
	{"filters", filter_empty},
	{"filters", filter_behind},
	{"filters", filter_chain},
	{"attributes", attributes_few},
	{"attributes", attributes_rights},
	{"attributes", attributes_chain},
	{"attributes", attributes_nice},
	{"attributes", attributes_policy},
	{"field", attributes_flag},
	{"attributes", attributes_period},
	{"timers", timer_twice},
	{"timers", timer_signal},
	{"timers", timer_clock},
	{"timers", timer_left},
	{"field", timer_notify},
	{"staged", staged_empty},
	{"staged", staged_odd},
	{"staged", staged_twice},
	{"staged", staged_nowhere},
	{"staged", staged_file},
	{"staged", staged_shared},
	{"held", held_odd},
	{"held", held_twice},
	{"held", held_between},
	{"waits", wait_nobody},
	{"waits", wait_twice},
	{"waits", wait_long},
	{"auxv", auxv_open},
	{"auxv", auxv_inside},
	{"auxv", auxv_long},
	{"regsets", set_twice},
	{"regsets", set_huge},
	{"regsets", set_damaged},
	{"segments", segment_gap},
	{"segments", segment_long},
	{"segments", segment_short},
	{"segments", segment_missing},
	{"segments", segment_prot},
	{"segment-data", segment_odd},
	{"segment-data", segment_fat},
	{"segment-data", segment_behind},
	{"segment-data", segment_vvar},
};

#define N_MUTANTS (int)(sizeof(mutants) / sizeof(mutants[0]))

START_TEST(each_rule_refuses)
{
	const struct mutant *m = &mutants[_i % N_MUTANTS];
	struct tf_image img, out;
	struct tf_err e = {0};
	char rule[64];
	uint8_t *head;

	ck_assert_int_eq(
		sample_image(&img, &arena, _i < N_MUTANTS ? EM_X86_64 : EM_AARCH64, 4096, 2), 0);
	m->change(&img);
	ck_assert_int_eq(tf_image_encode(&img, &arena, &head), 0);
	ck_assert_int_eq(tf_image_decode(&out, &arena, head, img.head_size, &e), TELEFORK_E_IMAGE);
	snprintf(rule, sizeof(rule), ": %s: ", m->rule);
	ck_assert_msg(strstr(e.text, rule) && strstr(e.text, "offset "), "%d: %s, not %s", _i,
		e.text, m->rule);
}
END_TEST

/* A sample head with its ELF headers and notes at hand; extra bytes of notes may be appended. */
static struct tf_image good;

static uint8_t *good_head(void)
{
	uint8_t *head;

	ck_assert_int_eq(sample_image(&good, &arena, EM_X86_64, 4096, 1), 0);
	ck_assert_int_eq(tf_image_encode(&good, &arena, &head), 0);
	return head;
}

static void assert_refused(const uint8_t *head, size_t size, int code, const char *text)
{
	struct tf_err e = {0};
	struct tf_image out;

	ck_assert_int_eq(tf_image_decode(&out, &arena, head, size, &e), code);
	ck_assert_msg(strstr(e.text, text), "%s, not %s", e.text, text);
}

START_TEST(headers_refused)
{
	static const struct {
		size_t offset;
		uint8_t value;
		const char *rule;
	} cases[] = {
		{0, 0, "elf"},
		{4, 1, "elf"},
		{5, 2, "elf"},
		{16, ET_EXEC, "elf"},
		{18, EM_SPARC, "machine"},
		{18, EM_AARCH64, "machine"},
		{32, 64, "elf"},
		{40, 0, "elf"},
		{56, 0, "count"},
		{64 + 49, 0x20, "page-size"},
		{128, PT_LOAD, "elf"},
		{128 + 8, 0, "derived"},
		{128 + 35, 0xff, "head-size"},
		{24, 1, "derived"},
		{64 + 32, 2, "derived"},
		{184 + 24, 1, "derived"},
		{184 + 8, 1, "derived"},
		{184 + 4, 7, "segments"},
	};
	uint8_t *head = good_head();

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t old = head[cases[i].offset];

		head[cases[i].offset] = cases[i].value;
		assert_refused(head, good.head_size, TELEFORK_E_IMAGE, cases[i].rule);
		head[cases[i].offset] = old;
	}
	assert_refused(head, good.head_size - 1, TELEFORK_E_IMAGE, "head-size");
}
END_TEST

START_TEST(other_version_is_named)
{
	uint8_t *head = good_head();
	uint64_t notes;

	memcpy(&notes, head + 128 + 8, 8);
	head[notes + 24] = TELEFORK_FORMAT + 1;
	for (int format = TELEFORK_FORMAT; format <= TELEFORK_FORMAT + 1; format++) {
		char text[32];

		snprintf(text, sizeof(text), "format %d", format);
		assert_refused(head, good.head_size, TELEFORK_E_VERSION, text);
	}
}
END_TEST

START_TEST(unknown_notes)
{
	static const struct {
		const char *owner;
		uint32_t type;
		const char *rule;
	} cases[] = {
		{TF_NOTE_OWNER, TF_NOTE(99) | TF_NOTE_OPTIONAL, NULL},
		{TF_NOTE_OWNER, TF_NOTE(99), "note-unknown"},
		{TF_NOTE_OWNER, TF_NOTE(1), "note-unknown"},
		{"GNU", TF_NOTE(99) | TF_NOTE_OPTIONAL, "note-unknown"},
		{"CORE", NT_PRSTATUS, "note-unknown"},
	};
	uint8_t *head = good_head();
	uint64_t notes, size;
	struct tf_writer w;

	memcpy(&notes, head + 128 + 8, 8);
	memcpy(&size, head + 128 + 32, 8);
	ck_assert_uint_gt(good.head_size - notes - size, 64); /* else a page would be added */
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct tf_err e = {0};
		struct tf_image out;

		memset(head + notes + size, 0, good.head_size - notes - size);
		tf_writer_init(&w, head + notes + size, 64);
		tf_put_u32(&w, (uint32_t)strlen(cases[i].owner) + 1);
		tf_put_u32(&w, 5);
		tf_put_u32(&w, cases[i].type);
		tf_put(&w, cases[i].owner, strlen(cases[i].owner) + 1);
		tf_put_align(&w, 4);
		tf_put(&w, "hello", 5);
		tf_put_align(&w, 4);
		sample_u64(head + 128 + 32, size + w.at);
		if (cases[i].rule)
			assert_refused(head, good.head_size, TELEFORK_E_IMAGE, cases[i].rule);
		else
			ck_assert_msg(!tf_image_decode(&out, &arena, head, good.head_size, &e),
				"%s", e.text);
	}
}
END_TEST

/* A count that promises more than is there is refused before anything is allocated. */
START_TEST(counts_do_not_allocate)
{
	uint8_t *head = good_head();
	uint64_t notes;
	size_t used, at;

	memcpy(&notes, head + 128 + 8, 8);
	for (at = notes; memcmp(head + at + 8, "\6\0FT", 4); at++)
		;                                    /* to the note of maps */
	memcpy(head + at + 28, "\x40\x42\x0f\0", 4); /* 1,000,000 */
	used = arena.used;
	assert_refused(head, good.head_size, TELEFORK_E_IMAGE, ": count: ");
	ck_assert_uint_lt(arena.used - used, 4096);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("notes");
	TCase *t = tcase_create("notes");

	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_set_timeout(t, SUITE_LIMIT_S);
	tcase_add_test(t, writer_three_ways);
	tcase_add_test(t, writer_fails_and_stays);
	tcase_add_test(t, reader_stops_at_the_end);
	tcase_add_test(t, reader_limits_and_strings);
	tcase_add_test(t, table_covers_the_structs);
	tcase_add_test(t, format_md_is_the_table);
	tcase_add_test(t, text_is_safe);
	tcase_add_test(t, message_is_safe);
	tcase_add_loop_test(t, each_rule_refuses, 0, 2 * N_MUTANTS);
	tcase_add_test(t, headers_refused);
	tcase_add_test(t, other_version_is_named);
	tcase_add_test(t, unknown_notes);
	tcase_add_test(t, counts_do_not_allocate);
	suite_add_tcase(s, t);
	return suite_run(s);
}
