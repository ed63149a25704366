/* SPDX-License-Identifier: MIT */
/*
 * Signed return addresses of the interrupted thread: where each lies, what it leads to, and the
 * stack pointer that it was signed with. The unwind tables say so exactly (DWARF CFI, with
 * aarch64's DW_CFA_AARCH64_negate_ra_state and the augmentation B for the B key); a word counts
 * only if the process's own key confirms it. Runs in a forked child: the tables are found through
 * the image's list of mappings, without the loader, without an allocator, without a lock.
 */
#include "arch/arch.h"
#include "arch/aarch64/layout.h"

#include <elf.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#define HWCAP_BIT_PACA 30
#define MODULE_PAGES   65536u /* how far before the code a module's ELF header is looked for */
#define FRAMES_MAX     2000000u
#define STATES_MAX     8 /* nested DW_CFA_remember_state */

#define REG_FP 29
#define REG_SP 31
#define REGS   32

/* A signal frame, see frame.c: siginfo, then the ucontext with x0-x30, sp, pc. */
#define SIGFRAME_REGS (128 + 184)

/* Encodings of pointers, DWARF for the Arm 64-bit architecture and LSB 5.0, 10.5.1. */
#define PE_FORMAT 0x0f
#define PE_PCREL  0x10
#define PE_APPLY  0x70

struct bytes {
	const uint8_t *p, *end;
	bool bad;
};

struct cie {
	uint64_t code_align;
	int64_t data_align;
	uint8_t encoding;
	bool sized, b_key; /* augmentation z, B */
	struct bytes program;
};

struct fde {
	struct cie cie;
	uint64_t start, end;
	struct bytes program;
};

/* An ELF file in memory, as far as it holds the code that is being looked at. */
struct module {
	uint64_t start, end; /* of the code's segment */
	uint64_t header;     /* .eh_frame_hdr, 0: none (static programs) */
	uint64_t frames;     /* .eh_frame, when there is no header */
};

struct rules {
	enum how { SAME, SAVED, VALUE, UNDEFINED, UNKNOWN } how[REGS];
	int64_t offset[REGS];
	uint32_t cfa_reg;
	int64_t cfa_offset;
	bool cfa_unknown, ra_signed;
};

struct cursor {
	const struct tf_image *img;
	struct module module;
	struct fde fde;
	uint64_t reg[REGS], at[REGS]; /* values; where they were saved, 0: still in the register */
	uint64_t pc;
	bool interrupted; /* pc is the next instruction, not one behind a call */
};

/* --- reading --- */

static const uint8_t *readable(const struct tf_image *img, uint64_t addr, uint64_t n)
{
	const struct tf_map *m = tf_image_map_at(img, addr);

	if (!m || addr >= m->data_end || n > m->data_end - addr)
		return NULL;
	/* QEMU 7.2 tells the protection of a merged mapping's first page only. */
	if (!(m->prot & PROT_READ) && !(m->prot && img->source.flags & TF_SOURCE_EMULATED))
		return NULL;
	return (const uint8_t *)addr;
}

static bool load64(const struct tf_image *img, uint64_t addr, uint64_t *ret)
{
	const uint8_t *p = readable(img, addr, 8);

	if (p)
		*ret = arm_get64(p);
	return p;
}

static uint64_t take(struct bytes *b, unsigned n)
{
	uint64_t v = 0;

	if (b->bad || (size_t)(b->end - b->p) < n) {
		b->bad = true;
		return 0;
	}
	memcpy(&v, b->p, n);
	b->p += n;
	return v;
}

static uint64_t take_uleb(struct bytes *b)
{
	uint64_t v = 0, byte;
	unsigned shift = 0;

	do {
		byte = take(b, 1);
		if (shift < 64)
			v |= (byte & 127) << shift;
		shift += 7;
	} while (byte & 128);
	return v;
}

static int64_t take_sleb(struct bytes *b)
{
	uint64_t v = 0, byte;
	unsigned shift = 0;

	do {
		byte = take(b, 1);
		if (shift < 64)
			v |= (byte & 127) << shift;
		shift += 7;
	} while (byte & 128);
	if (byte & 64 && shift < 64)
		v |= ~UINT64_C(0) << shift;
	return (int64_t)v;
}

static uint64_t take_pointer(struct bytes *b, uint8_t encoding)
{
	uint64_t here = (uint64_t)b->p, v;

	switch (encoding & PE_FORMAT) {
	case 0x00:
	case 0x04:
	case 0x0c:
		v = take(b, 8);
		break;
	case 0x03:
		v = take(b, 4);
		break;
	case 0x0b:
		v = (uint64_t)(int64_t)(int32_t)take(b, 4);
		break;
	default:
		b->bad = true;
		return 0;
	}
	if (encoding & PE_APPLY & ~PE_PCREL)
		b->bad = true;
	return (encoding & PE_APPLY) == PE_PCREL ? v + here : v;
}

/* The bytes of the record at addr behind its length; an empty or foreign one is bad. */
static struct bytes record_at(const struct tf_image *img, uint64_t addr)
{
	const uint8_t *head = readable(img, addr, 8);
	uint32_t size = head ? arm_get32(head) : 0;

	if (!size || size >= 0xfffffff0u || size < 4 || !readable(img, addr, 4 + (uint64_t)size))
		return (struct bytes){.bad = true};
	return (struct bytes){head + 4, head + 4 + size, false};
}

/* --- tables --- */

/* The letters behind z: what the records that use this CIE have more. */
static void parse_augmentation(struct bytes *b, const char *letters, struct cie *c)
{
	for (; *letters && !b->bad; letters++) {
		uint8_t encoding;

		switch (*letters) {
		case 'R':
			c->encoding = (uint8_t)take(b, 1);
			break;
		case 'L':
			take(b, 1);
			break;
		case 'P':
			encoding = (uint8_t)take(b, 1);
			take_pointer(b, encoding & PE_FORMAT);
			break;
		case 'B':
			c->b_key = true;
			break;
		case 'S': /* recognised by its code */
			break;
		default:
			b->bad = true;
		}
	}
}

static bool parse_cie(const struct tf_image *img, uint64_t addr, struct cie *c)
{
	struct bytes b = record_at(img, addr), letters;
	const char *augmentation;
	uint64_t version, size;

	*c = (struct cie){0};
	if (take(&b, 4) || b.bad)
		return false;
	version = take(&b, 1);
	augmentation = (const char *)b.p;
	while (take(&b, 1))
		;
	c->code_align = take_uleb(&b);
	c->data_align = take_sleb(&b);
	if ((version == 1 ? take(&b, 1) : take_uleb(&b)) != G_LR)
		b.bad = true;
	if (b.bad || (version != 1 && version != 3))
		return false;
	if (*augmentation == 'z') {
		size = take_uleb(&b);
		letters = b;
		parse_augmentation(&letters, augmentation + 1, c);
		if (letters.bad || size > (size_t)(b.end - b.p))
			return false;
		b.p += size;
		c->sized = true;
	} else if (*augmentation) {
		return false;
	}
	c->program = b;
	return true;
}

static bool parse_fde(const struct tf_image *img, uint64_t addr, struct fde *f)
{
	struct bytes b = record_at(img, addr);
	uint64_t back = take(&b, 4), size;

	if (b.bad || !back || !parse_cie(img, addr + 4 - back, &f->cie))
		return false;
	f->start = take_pointer(&b, f->cie.encoding);
	f->end = f->start + take_pointer(&b, f->cie.encoding & PE_FORMAT);
	if (f->cie.sized) {
		size = take_uleb(&b);
		if (b.bad || size > (size_t)(b.end - b.p))
			return false;
		b.p += size;
	}
	f->program = b;
	return !b.bad;
}

/* A static program has no .eh_frame_hdr; its .eh_frame is known by its shape: an unbroken chain of
 * records, each of which is a CIE or leads back to one, that ends with a zero. */
static bool is_frames(const struct tf_image *img, uint64_t first)
{
	const uint8_t *head = readable(img, first, 16);
	unsigned n = 0;

	if (!head || arm_get32(head + 4) || (head[8] != 1 && head[8] != 3) || head[9] != 'z')
		return false;
	for (uint64_t at = first; (head = readable(img, at, 4)) && arm_get32(head); n++) {
		struct bytes b = record_at(img, at);
		uint64_t back = take(&b, 4);

		if (b.bad || back > at + 4 - first)
			return false;
		at += 4 + (uint64_t)arm_get32(head);
	}
	return head && n > 1;
}

static uint64_t find_frames(const struct tf_image *img, uint64_t start, uint64_t end)
{
	for (uint64_t at = start; at + 16 <= end; at += 4)
		if (is_frames(img, at))
			return at;
	return 0;
}

static bool parse_header(const struct tf_image *img, uint64_t base, uint64_t pc, struct module *m)
{
	const Elf64_Ehdr *eh = (const Elf64_Ehdr *)readable(img, base, sizeof(*eh));
	const Elf64_Phdr *ph;
	uint64_t bias = base, read_only[2] = {0};

	if (!eh || memcmp(eh->e_ident, ELFMAG, SELFMAG) || eh->e_machine != EM_AARCH64 ||
		eh->e_phentsize != sizeof(*ph))
		return false;
	ph = (const Elf64_Phdr *)readable(img, base + eh->e_phoff, eh->e_phnum * sizeof(*ph));
	if (!ph)
		return false;
	*m = (struct module){0};
	for (unsigned i = 0; i < eh->e_phnum; i++)
		if (ph[i].p_type == PT_LOAD && !ph[i].p_offset)
			bias = base - ph[i].p_vaddr;
	for (unsigned i = 0; i < eh->e_phnum; i++) {
		uint64_t at = bias + ph[i].p_vaddr;

		if (ph[i].p_type == PT_LOAD && pc >= at && pc < at + ph[i].p_memsz) {
			m->start = at;
			m->end = at + ph[i].p_memsz;
		}
		if (ph[i].p_type == PT_LOAD && !(ph[i].p_flags & PF_W)) {
			read_only[0] = read_only[0] ? read_only[0] : at;
			read_only[1] = at + ph[i].p_filesz;
		}
		if (ph[i].p_type == PT_GNU_EH_FRAME)
			m->header = at;
	}
	if (m->end && !m->header)
		m->frames = find_frames(img, read_only[0], read_only[1]);
	return m->end;
}

/* Pages before pc, from mapping to mapping, until one begins with an ELF header whose code holds
 * pc. Paths do not help: in a copy, files are plain memory. */
static bool find_module(const struct tf_image *img, uint64_t pc, struct module *m)
{
	uint64_t page_size = img->source.page_size;
	const struct tf_map *map = tf_image_map_at(img, pc);
	uint64_t page = pc & ~(page_size - 1);

	for (unsigned n = 0; map && n < MODULE_PAGES; n++) {
		if (readable(img, page, 4) && parse_header(img, page, pc, m))
			return true;
		if (page > map->start) {
			page -= page_size;
			continue;
		}
		if (map == img->maps)
			return false;
		map--;
		page = map->end - page_size;
	}
	return false;
}

/* .eh_frame_hdr with the table that linkers write: version 1, pairs of 32-bit distances from its
 * beginning, sorted. */
static bool search_header(const struct tf_image *img, uint64_t header, uint64_t pc, struct fde *f)
{
	const uint8_t *head = readable(img, header, 12), *table;
	uint32_t low = 0, high;

	if (!head || head[0] != 1 || head[2] != 0x03 || head[3] != 0x3b || (head[1] & 7) != 3)
		return false;
	high = arm_get32(head + 8);
	table = readable(img, header + 12, (uint64_t)high * 8);
	if (!table)
		return false;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (header + (uint64_t)(int64_t)(int32_t)arm_get32(table + 8ull * middle) <= pc)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low)
		return false;
	header += (uint64_t)(int64_t)(int32_t)arm_get32(table + 8ull * (low - 1) + 4);
	return parse_fde(img, header, f) && pc >= f->start && pc < f->end;
}

static bool search_frames(const struct tf_image *img, uint64_t at, uint64_t pc, struct fde *f)
{
	const uint8_t *head;

	while ((head = readable(img, at, 8)) && arm_get32(head)) {
		if (arm_get32(head + 4) && parse_fde(img, at, f) && pc >= f->start && pc < f->end)
			return true;
		at += 4 + (uint64_t)arm_get32(head);
	}
	return false;
}

static bool find_fde(struct cursor *c, uint64_t pc)
{
	struct module *m = &c->module;

	if (pc >= c->fde.start && pc < c->fde.end)
		return true; /* recursion */
	c->fde = (struct fde){0};
	if ((pc < m->start || pc >= m->end) && !find_module(c->img, pc, m)) {
		*m = (struct module){0};
		return false;
	}
	if (m->header ? search_header(c->img, m->header, pc, &c->fde)
		      : m->frames && search_frames(c->img, m->frames, pc, &c->fde))
		return true;
	c->fde = (struct fde){0};
	return false;
}

/* --- rules --- */

static void set_rule(struct rules *r, uint64_t reg, enum how how, int64_t offset)
{
	if (reg >= REGS) /* d8-d15: nothing is found through them */
		return;
	r->how[reg] = how;
	r->offset[reg] = offset;
}

static void set_cfa(struct rules *r, uint64_t reg, int64_t offset)
{
	r->cfa_unknown = reg >= REGS;
	r->cfa_reg = (uint32_t)reg % REGS;
	r->cfa_offset = offset;
}

static void skip_block(struct bytes *b)
{
	uint64_t n = take_uleb(b);

	if (b->bad || n > (size_t)(b->end - b->p))
		b->bad = true;
	else
		b->p += n;
}

/* DWARF 5, 6.4.2: what is no advance, and has its operands behind it. */
static void one_rule(struct bytes *b, uint64_t op, const struct cie *c, struct rules *r)
{
	uint64_t reg;

	switch (op) {
	case 0x00: /* nop */
		return;
	case 0x05: /* offset_extended */
		reg = take_uleb(b);
		set_rule(r, reg, SAVED, (int64_t)take_uleb(b) * c->data_align);
		return;
	case 0x11: /* offset_extended_sf */
		reg = take_uleb(b);
		set_rule(r, reg, SAVED, take_sleb(b) * c->data_align);
		return;
	case 0x14: /* val_offset */
		reg = take_uleb(b);
		set_rule(r, reg, VALUE, (int64_t)take_uleb(b) * c->data_align);
		return;
	case 0x07: /* undefined */
		set_rule(r, take_uleb(b), UNDEFINED, 0);
		return;
	case 0x08: /* same_value */
		set_rule(r, take_uleb(b), SAME, 0);
		return;
	case 0x09: /* register */
		set_rule(r, take_uleb(b), UNKNOWN, 0);
		take_uleb(b);
		return;
	case 0x10: /* expression */
	case 0x16: /* val_expression */
		set_rule(r, take_uleb(b), UNKNOWN, 0);
		skip_block(b);
		return;
	case 0x0c: /* def_cfa */
		reg = take_uleb(b);
		set_cfa(r, reg, (int64_t)take_uleb(b));
		return;
	case 0x12: /* def_cfa_sf */
		reg = take_uleb(b);
		set_cfa(r, reg, take_sleb(b) * c->data_align);
		return;
	case 0x0d: /* def_cfa_register */
		set_cfa(r, take_uleb(b), r->cfa_offset);
		return;
	case 0x0e: /* def_cfa_offset */
		r->cfa_offset = (int64_t)take_uleb(b);
		return;
	case 0x13: /* def_cfa_offset_sf */
		r->cfa_offset = take_sleb(b) * c->data_align;
		return;
	case 0x0f: /* def_cfa_expression */
		r->cfa_unknown = true;
		skip_block(b);
		return;
	case 0x2d: /* AARCH64_negate_ra_state */
		r->ra_signed = !r->ra_signed;
		return;
	case 0x2e: /* GNU_args_size */
		take_uleb(b);
		return;
	default:
		b->bad = true;
	}
}

/* Executes a program up to the row that holds pc. initial: for DW_CFA_restore; NULL in a CIE. */
static bool run_program(struct bytes b, const struct cie *c, const struct rules *initial,
	uint64_t at, uint64_t pc, struct rules *r)
{
	struct rules kept[STATES_MAX];
	unsigned n_kept = 0;

	while (b.p < b.end && !b.bad) {
		uint64_t op = take(&b, 1), low = op & 63, step = 0;

		if (op >> 6 == 1)
			step = low;
		else if (op >> 6 == 2)
			set_rule(r, low, SAVED, (int64_t)take_uleb(&b) * c->data_align);
		else if (op >= 2 && op <= 4)
			step = take(&b, 1u << (op - 2));
		else if (op == 0x0a && n_kept < STATES_MAX)
			kept[n_kept++] = *r;
		else if (op == 0x0b && n_kept)
			*r = kept[--n_kept];
		else if ((op >> 6 == 3 || op == 0x06) && initial) {
			low = op == 0x06 ? take_uleb(&b) : low;
			if (low < REGS)
				set_rule(r, low, initial->how[low], initial->offset[low]);
		} else
			one_rule(&b, op, c, r);
		at += step * c->code_align;
		if (at > pc)
			break;
	}
	return !b.bad;
}

static bool find_rules(const struct fde *f, uint64_t pc, struct rules *r)
{
	struct rules initial = {.cfa_unknown = true};

	if (!run_program(f->cie.program, &f->cie, NULL, 0, UINT64_MAX, &initial))
		return false;
	*r = initial;
	return run_program(f->program, &f->cie, &initial, f->start, pc, r) && !r->cfa_unknown;
}

/* --- walking --- */

/* Code pointers without and with a signature, by instructions of the hint space: xpaclri, pacia1716
 * and pacib1716. */
static uint64_t strip(uint64_t value)
{
	register uint64_t x30 __asm__("x30") = value;

	__asm__ volatile("hint #7" : "+r"(x30));
	return x30;
}

static uint64_t sign(uint64_t value, uint64_t modifier, bool b_key)
{
	register uint64_t x16 __asm__("x16") = modifier;
	register uint64_t x17 __asm__("x17") = value;

	if (b_key)
		__asm__ volatile("hint #10" : "+r"(x17) : "r"(x16));
	else
		__asm__ volatile("hint #8" : "+r"(x17) : "r"(x16));
	return x17;
}

/* mov x8, #139; svc #0: the code that every handler returns to. */
static bool at_sigreturn(const struct cursor *c)
{
	uint64_t code;

	return load64(c->img, c->pc, &code) && code == UINT64_C(0xd4000001d2801168);
}

/* What became of one step to a caller. */
enum step {
	END, /* the outermost frame, or one that nothing describes */
	LEFT,
	SIGNED,   /* past a signed return address */
	UNSIGNED, /* past one that ought to be signed, and is not by this process's keys */
};

static enum step leave_handler(struct cursor *c)
{
	uint64_t regs = c->reg[REG_SP] + SIGFRAME_REGS;

	for (unsigned i = 0; i < REGS; i++) {
		if (!load64(c->img, regs + 8 * i, &c->reg[i]))
			return END;
		c->at[i] = regs + 8 * i;
	}
	c->interrupted = true;
	return load64(c->img, regs + 8 * G_PC, &c->pc) ? LEFT : END;
}

/* Code without tables. A stub that was interrupted (a PLT entry, a leaf) has moved nothing yet;
 * what calls has a frame record, and its caller most likely one at the bottom of its frame, as GCC
 * lays them out. The key tells whether that was right. */
static enum step leave_unknown(struct cursor *c)
{
	uint64_t fp = c->reg[REG_FP], link = strip(c->reg[G_LR]);

	if (!c->interrupted || !find_fde(c, link - 1)) {
		if (!load64(c->img, fp, &c->reg[REG_FP]) || !load64(c->img, fp + 8, &link))
			return END;
		if (c->reg[REG_FP] <= fp)
			return END;
		c->at[REG_FP] = fp;
		c->at[G_LR] = fp + 8;
		c->reg[REG_SP] = c->reg[REG_FP];
		link = strip(link);
	}
	c->reg[G_LR] = c->pc = link;
	c->interrupted = false;
	return LEFT;
}

static bool restore_registers(struct cursor *c, const struct rules *r, uint64_t cfa)
{
	for (unsigned i = 0; i < REG_SP; i++) {
		if (r->how[i] == SAVED) {
			c->at[i] = cfa + (uint64_t)r->offset[i];
			if (!load64(c->img, c->at[i], &c->reg[i]))
				return false;
		} else if (r->how[i] == VALUE) {
			c->reg[i] = cfa + (uint64_t)r->offset[i];
		}
	}
	return true;
}

static enum step leave_function(struct cursor *c, struct tf_signature *s)
{
	uint64_t at = c->interrupted ? c->pc : c->pc - 1, cfa, link;
	uint64_t old_pc = c->pc, old_sp = c->reg[REG_SP];
	enum step step = LEFT;
	struct rules r;

	if (!find_fde(c, at))
		return leave_unknown(c);
	if (!find_rules(&c->fde, at, &r) || (r.how[G_LR] != SAME && r.how[G_LR] != SAVED))
		return END;
	cfa = c->reg[r.cfa_reg] + (uint64_t)r.cfa_offset;
	if (!restore_registers(c, &r, cfa))
		return END;
	link = c->reg[G_LR];
	if (r.ra_signed) {
		*s = (struct tf_signature){
			.place = c->at[G_LR] ? TF_SIGN_MEMORY : TF_SIGN_LINK,
			.key = c->fde.cie.b_key,
			.address = c->at[G_LR],
			.value = strip(link),
			.modifier = cfa,
		};
		step = sign(s->value, cfa, c->fde.cie.b_key) == link ? SIGNED : UNSIGNED;
		link = s->value;
	}
	c->reg[REG_SP] = cfa;
	c->pc = link;
	c->interrupted = false;
	/* Nothing was left: a function without a frame that calls is described wrongly. */
	return cfa <= old_sp && link == old_pc ? END : step;
}

static int add_signature(
	struct tf_image *img, struct tf_arena *a, const struct tf_signature *s, struct tf_err *e)
{
	struct tf_signature *at;

	if (img->n_signatures == TF_MAX_SIGNATURES)
		return tf_fail(e, TELEFORK_E_LIMIT, "more than %u signed return addresses",
			TF_MAX_SIGNATURES);
	/* The array grows at the arena's end: nothing else is allocated meanwhile. */
	at = tf_arena_alloc(a, sizeof(*at));
	if (!at)
		return tf_fail(e, TELEFORK_E_NOMEM, "out of memory for signatures");
	if (!img->n_signatures++)
		img->signatures = at;
	*at = *s;
	return 0;
}

_Static_assert(sizeof(struct tf_signature) % 16 == 0, "the arena aligns to 16");

/* Without ptrace the list is all there is: a copy would end where such a function returns. */
static int doubt(const struct tf_image *img, const struct tf_signature *s, struct tf_err *e)
{
	if (!(img->source.flags & TF_SOURCE_EMULATED))
		return 0;
	return tf_fail(e, TELEFORK_E_UNSUPPORTED,
		"the return address %#llx at %#llx ought to be signed with %#llx and is not: code "
		"without unwind tables stands between signed functions, and without ptrace (QEMU "
		"user mode) it cannot be signed anew; build that code with -funwind-tables",
		(unsigned long long)s->value, (unsigned long long)s->address,
		(unsigned long long)s->modifier);
}

int tf_arch_signatures(struct tf_image *img, struct tf_arena *a, struct tf_err *e)
{
	struct cursor c = {.img = img, .interrupted = true};
	const struct tf_regset *gp = tf_regs_find(&img->threads[0].regs, NT_PRSTATUS);
	struct tf_signature s, link = {0};
	enum step step = LEFT;
	int rc = 0;

	if (!(getauxval(AT_HWCAP) >> HWCAP_BIT_PACA & 1))
		return 0;
	for (unsigned i = 0; i < REGS; i++)
		c.reg[i] = arm_get64(gp->data + i * 8);
	c.pc = arm_get64(gp->data + G_PC * 8);
	for (unsigned n = 0; c.pc && step != END && n < FRAMES_MAX && !rc; n++) {
		step = at_sigreturn(&c) ? leave_handler(&c) : leave_function(&c, &s);
		if (step == UNSIGNED)
			rc = doubt(img, &s, e);
		else if (step == SIGNED && s.place == TF_SIGN_LINK)
			link = s; /* comes last */
		else if (step == SIGNED)
			rc = add_signature(img, a, &s, e);
	}
	if (!rc && link.modifier)
		rc = add_signature(img, a, &link, e);
	return rc;
}
