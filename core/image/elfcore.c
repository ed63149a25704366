/* SPDX-License-Identifier: MIT */
/*
 * The head of an image: an ELF core file's headers around the notes.
 *
 *	0	ELF header (ET_CORE)
 *	64	section header 0: sh_addralign is the page size, sh_info counts program headers
 *(PN_XNUM) 128	program headers: PT_NOTE, then one PT_LOAD for each segment notes, zeros up to a
 *page: head_size the segments' bytes, page by page, in order: data_end
 *
 * One function puts the headers; the decoder runs it again over what it has decoded and compares,
 *so nothing that follows from something else is ever believed. No libc allocator, no lock.
 */
#include "core/image/notes.h"

#include <elf.h>
#include <string.h>
#include <sys/mman.h>

#define RULE(name)  tf_image_rule_text[TF_RULE_##name]
#define EHDR_SIZE   64u
#define SHDR_SIZE   64u
#define PHDR_SIZE   56u
#define SHDR_OFFSET EHDR_SIZE
#define PHDR_OFFSET (SHDR_OFFSET + SHDR_SIZE)

_Static_assert(PHDR_OFFSET + PHDR_SIZE == TF_HEAD_PEEK, "peek sees the PT_NOTE header");

static uint64_t round_up(uint64_t v, uint64_t align)
{
	return (v + align - 1) & ~(align - 1);
}

/* --- writing --- */

/* Sets head_size, every segment's offset and data_end. */
static void lay_out(struct tf_image *img, uint64_t notes_size)
{
	uint64_t at = PHDR_OFFSET + PHDR_SIZE * (1 + (uint64_t)img->n_segments) + notes_size;

	at = round_up(at, img->source.page_size);
	img->head_size = at;
	for (uint32_t i = 0; i < img->n_segments; i++) {
		img->segments[i].offset = at;
		at += img->segments[i].filesz;
	}
	img->data_end = at;
}

static void put_ehdr(struct tf_writer *w, const struct tf_image *img)
{
	static const uint8_t ident[EI_NIDENT] = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64,
		ELFDATA2LSB, EV_CURRENT, ELFOSABI_NONE};
	uint32_t phnum = img->n_segments + 1;

	tf_put(w, ident, sizeof(ident));
	tf_put_u16(w, ET_CORE);
	tf_put_u16(w, (uint16_t)img->source.machine);
	tf_put_u32(w, EV_CURRENT);
	tf_put_u64(w, 0); /* e_entry */
	tf_put_u64(w, PHDR_OFFSET);
	tf_put_u64(w, SHDR_OFFSET);
	tf_put_u32(w, 0); /* e_flags */
	tf_put_u16(w, EHDR_SIZE);
	tf_put_u16(w, PHDR_SIZE);
	tf_put_u16(w, phnum >= PN_XNUM ? PN_XNUM : (uint16_t)phnum);
	tf_put_u16(w, SHDR_SIZE);
	tf_put_u16(w, 1); /* e_shnum */
	tf_put_u16(w, 0); /* e_shstrndx */
}

static void put_shdr(struct tf_writer *w, const struct tf_image *img)
{
	uint32_t phnum = img->n_segments + 1;

	tf_put_zero(w, 32); /* name, SHT_NULL, flags, addr, offset */
	tf_put_u64(w, 1);   /* sh_size: number of sections, as the kernel writes it */
	tf_put_u32(w, 0);   /* sh_link */
	tf_put_u32(w, phnum >= PN_XNUM ? phnum : 0);
	tf_put_u64(w, img->source.page_size);
	tf_put_u64(w, 0); /* sh_entsize */
}

static uint32_t prot_to_flags(uint32_t prot)
{
	return (prot & PROT_READ ? PF_R : 0u) | (prot & PROT_WRITE ? PF_W : 0u) |
	       (prot & PROT_EXEC ? PF_X : 0u);
}

static uint32_t flags_to_prot(uint32_t flags)
{
	return (flags & PF_R ? PROT_READ : 0u) | (flags & PF_W ? PROT_WRITE : 0u) |
	       (flags & PF_X ? PROT_EXEC : 0u);
}

static void put_phdr(struct tf_writer *w, uint32_t type, const struct tf_segment *s, uint64_t align)
{
	tf_put_u32(w, type);
	tf_put_u32(w, prot_to_flags(s->prot));
	tf_put_u64(w, s->offset);
	tf_put_u64(w, s->vaddr);
	tf_put_u64(w, 0); /* p_paddr */
	tf_put_u64(w, s->filesz);
	tf_put_u64(w, s->memsz);
	tf_put_u64(w, align);
}

static void put_headers(struct tf_writer *w, const struct tf_image *img, uint64_t notes_size)
{
	struct tf_segment note = {
		.offset = PHDR_OFFSET + PHDR_SIZE * (1 + (uint64_t)img->n_segments),
		.filesz = notes_size,
	};

	put_ehdr(w, img);
	put_shdr(w, img);
	put_phdr(w, PT_NOTE, &note, 4);
	for (uint32_t i = 0; i < img->n_segments && !w->failed; i++)
		put_phdr(w, PT_LOAD, &img->segments[i], img->source.page_size);
}

static int check_encodable(const struct tf_image *img)
{
	const struct tf_arch *arch = tf_arch_by_machine(img->source.machine);

	if (!arch || !img->source.page_size || img->source.page_size & (img->source.page_size - 1))
		return TELEFORK_E_INVAL;
	if (!img->n_threads)
		return TELEFORK_E_INVAL;
	for (uint32_t i = 0; i < img->n_threads; i++) {
		const struct tf_regset *set = tf_regs_find(&img->threads[i].regs, NT_PRSTATUS);

		if (!set || set->size != arch->prstatus_gregs)
			return TELEFORK_E_INVAL;
	}
	return img->n_segments > TF_MAX_SEGMENTS ? TELEFORK_E_LIMIT : 0;
}

int tf_image_encode(struct tf_image *img, struct tf_arena *a, uint8_t **ret_head)
{
	struct tf_writer w;
	uint64_t notes_size;
	uint8_t *head;
	int r = check_encodable(img);

	if (r)
		return r;
	tf_writer_measure(&w, TF_MAX_HEAD);
	tf_notes_put(&w, img);
	if (w.failed)
		return TELEFORK_E_LIMIT;
	notes_size = w.at;
	lay_out(img, notes_size);
	if (img->head_size > TF_MAX_HEAD)
		return TELEFORK_E_LIMIT;
	head = tf_arena_alloc(a, img->head_size);
	if (!head)
		return TELEFORK_E_NOMEM;
	tf_writer_init(&w, head, img->head_size);
	put_headers(&w, img, notes_size);
	tf_notes_put(&w, img);
	tf_put_zero(&w, img->head_size - w.at);
	*ret_head = head;
	return w.failed ? TELEFORK_E_LIMIT : 0;
}

/* --- reading --- */

/* What the first TF_HEAD_PEEK bytes say. */
struct peek {
	uint32_t machine, phnum;
	uint64_t page_size, notes_offset, notes_size, head_size;
};

static void read_peek(struct tf_reader *r, struct peek *p)
{
	const uint8_t *magic = tf_get(r, 16);
	uint16_t type = tf_get_u16(r);

	if (!magic || memcmp(magic, ELFMAG "\2\1\1", 7) || type != ET_CORE)
		tf_reader_fail(r, TELEFORK_E_IMAGE, 0, RULE(ELF));
	p->machine = tf_get_u16(r);
	tf_get(r, 12);
	if (tf_get_u64(r) != PHDR_OFFSET || tf_get_u64(r) != SHDR_OFFSET)
		tf_reader_fail(r, TELEFORK_E_IMAGE, 32, RULE(ELF));
	tf_get(r, 8);
	p->phnum = tf_get_u16(r);
	tf_get(r, 6 + 44);
	if (p->phnum == PN_XNUM)
		p->phnum = tf_get_u32(r);
	else
		tf_get(r, 4);
	p->page_size = tf_get_u64(r);
	tf_get(r, 8);
	if (tf_get_u32(r) != PT_NOTE)
		tf_reader_fail(r, TELEFORK_E_IMAGE, PHDR_OFFSET, RULE(ELF));
	tf_get(r, 4);
	p->notes_offset = tf_get_u64(r);
	tf_get(r, 16);
	p->notes_size = tf_get_u64(r);
	tf_get(r, 16);
}

static int get_peek(struct tf_reader *r, struct peek *p)
{
	read_peek(r, p);
	if (r->code)
		return r->code;
	if (!tf_arch_by_machine(p->machine))
		return tf_reader_fail(r, TELEFORK_E_IMAGE, 18, RULE(MACHINE));
	if (p->page_size != 4096 && p->page_size != 16384 && p->page_size != 65536)
		return tf_reader_fail(r, TELEFORK_E_IMAGE, SHDR_OFFSET + 48, RULE(PAGE_SIZE));
	if (!p->phnum || p->phnum - 1 > TF_MAX_SEGMENTS)
		return tf_reader_fail(r, TELEFORK_E_IMAGE, 56, RULE(COUNT));
	if (p->notes_offset != PHDR_OFFSET + PHDR_SIZE * (uint64_t)p->phnum)
		return tf_reader_fail(r, TELEFORK_E_IMAGE, PHDR_OFFSET + 8, RULE(DERIVED));
	if (p->notes_size > TF_MAX_HEAD)
		return tf_reader_fail(r, TELEFORK_E_IMAGE, PHDR_OFFSET + 32, RULE(HEAD_SIZE));
	p->head_size = round_up(p->notes_offset + p->notes_size, p->page_size);
	if (p->head_size > TF_MAX_HEAD)
		return tf_reader_fail(r, TELEFORK_E_IMAGE, PHDR_OFFSET + 32, RULE(HEAD_SIZE));
	return 0;
}

int tf_image_peek(const uint8_t bytes[static TF_HEAD_PEEK], uint32_t *ret_machine,
	uint64_t *ret_head_size, struct tf_err *e)
{
	struct tf_reader r;
	struct peek p = {0};

	tf_reader_init(&r, bytes, TF_HEAD_PEEK);
	if (get_peek(&r, &p))
		return tf_reader_error(&r, e, "image");
	*ret_machine = p.machine;
	*ret_head_size = p.head_size;
	return 0;
}

static void get_segments(
	struct tf_reader *r, struct tf_image *img, struct tf_arena *a, const struct peek *p)
{
	img->n_segments = p->phnum - 1;
	img->segments = tf_arena_array(a, img->n_segments + 1u, sizeof(*img->segments));
	if (!img->segments) {
		tf_reader_fail(r, TELEFORK_E_NOMEM, r->at, "memory: the arena is full");
		return;
	}
	for (uint32_t i = 0; i < img->n_segments; i++) {
		struct tf_segment *s = &img->segments[i];

		tf_get_u32(r); /* type, offset, paddr, align: compared later */
		s->prot = flags_to_prot(tf_get_u32(r));
		tf_get_u64(r);
		s->vaddr = tf_get_u64(r);
		tf_get_u64(r);
		s->filesz = tf_get_u64(r);
		s->memsz = tf_get_u64(r);
		tf_get_u64(r);
	}
}

static const char *check_segment(
	const struct tf_segment *s, const struct tf_map *m, uint64_t start, uint64_t mask)
{
	if (s->vaddr != start || !s->memsz || s->memsz & mask || s->memsz > m->end - start)
		return RULE(SEGMENTS);
	if (s->prot != m->prot)
		return RULE(SEGMENTS);
	if (s->filesz & mask || s->filesz > s->memsz)
		return RULE(SEGMENT_DATA);
	if (s->filesz && (s->vaddr + s->filesz > m->data_end || m->kind == TF_MAP_VVAR))
		return RULE(SEGMENT_DATA);
	return NULL;
}

/* Segments cover the maps exactly: each begins where the one before ended, or with the next map. */
static void check_segments(struct tf_reader *r, const struct tf_image *img)
{
	uint64_t mask = img->source.page_size - 1;
	uint32_t n = 0;

	for (uint32_t i = 0; i < img->n_maps && !r->code; i++) {
		const struct tf_map *m = &img->maps[i];

		for (uint64_t at = m->start; at < m->end && !r->code; n++) {
			size_t offset = PHDR_OFFSET + PHDR_SIZE * (1 + (size_t)n);
			const char *rule = RULE(SEGMENTS);

			if (n < img->n_segments)
				rule = check_segment(&img->segments[n], m, at, mask);
			if (rule)
				tf_reader_fail(r, TELEFORK_E_IMAGE, offset, rule);
			else
				at += img->segments[n].memsz;
		}
	}
	if (!r->code && n != img->n_segments)
		tf_reader_fail(r, TELEFORK_E_IMAGE, PHDR_OFFSET + PHDR_SIZE * (1 + (size_t)n),
			RULE(SEGMENTS));
}

/* Puts the head again and compares: [0, known) are headers and known notes, [notes_end, size) the
 * padding; between them are optional notes. */
static void check_derived(
	struct tf_reader *r, const struct tf_image *img, const struct peek *p, size_t known)
{
	size_t notes_end = p->notes_offset + p->notes_size;
	struct tf_writer w;

	if (p->page_size != img->source.page_size) {
		tf_reader_fail(r, TELEFORK_E_IMAGE, SHDR_OFFSET + 48, RULE(DERIVED));
		return;
	}
	tf_writer_compare(&w, r->base, r->size);
	put_headers(&w, img, p->notes_size);
	tf_notes_put(&w, img);
	if (!w.failed && w.at != known)
		w.failed = true;
	if (!w.failed) {
		w.at = notes_end;
		tf_put_zero(&w, r->size - notes_end);
	}
	if (w.failed)
		tf_reader_fail(r, TELEFORK_E_IMAGE, w.at, RULE(DERIVED));
}

int tf_image_decode(struct tf_image *img, struct tf_arena *a, const uint8_t *bytes, size_t size,
	struct tf_err *e)
{
	struct tf_reader r;
	struct peek p = {0};
	size_t known = 0, old;

	*img = (struct tf_image){0};
	tf_reader_init(&r, bytes, size);
	if (get_peek(&r, &p))
		return tf_reader_error(&r, e, "image");
	if (p.head_size != size)
		tf_reader_fail(&r, TELEFORK_E_IMAGE, size, RULE(HEAD_SIZE));
	if (r.code)
		return tf_reader_error(&r, e, "image");
	get_segments(&r, img, a, &p);
	old = tf_reader_limit(&r, p.notes_size);
	tf_notes_get(&r, img, a, tf_arch_by_machine(p.machine), &known, e);
	tf_reader_unlimit(&r, old);
	if (!r.code)
		check_segments(&r, img);
	if (!r.code) {
		lay_out(img, p.notes_size);
		check_derived(&r, img, &p, known);
	}
	if (!r.code && tf_image_link_objects(img, a))
		return tf_fail(e, TELEFORK_E_NOMEM, "out of memory for a list of objects");
	return tf_reader_error(&r, e, "image");
}
