/* SPDX-License-Identifier: MIT */
/*
 * Symbols. What is read from an image's memory is untrusted: every structure is copied out by
 * tf_file_read(), every count has a maximum, every name is cut. libelf only ever sees files of this
 * host.
 */
#include "core/cmd/symbols.h"

#include <elf.h>
#include <fcntl.h>
#include <gelf.h>
#include <libelf.h>
#include <string.h>
#include <sys/stat.h>

#include "core/base/cleanup.h"

#define MAX_PHDRS   64
#define MAX_SYMBOLS 1000000
#define MAX_NOTES   4096 /* bytes of one PT_NOTE that are searched */

/* An ELF object as it lies in the image's memory. */
struct object {
	const struct tf_file *file;
	const struct tf_map *map; /* its first mapping */
	uint64_t bias;            /* address in memory minus address in the file's headers */
	bool data;                /* variables are looked for as well */
	uint16_t n_phdrs;
	Elf64_Phdr phdrs[MAX_PHDRS];
};

static bool load(const struct tf_file *f, uint64_t addr, void *to, size_t n)
{
	return tf_file_read(f, addr, to, n) == (ssize_t)n;
}

/* Reads the ELF headers at base. */
static bool read_object(struct object *o, const struct tf_file *f, uint64_t base)
{
	Elf64_Ehdr eh;

	if (!load(f, base, &eh, sizeof(eh)) || memcmp(eh.e_ident, ELFMAG, SELFMAG) ||
		eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_machine != f->image.source.machine ||
		eh.e_phentsize != sizeof(Elf64_Phdr) || eh.e_phnum > MAX_PHDRS)
		return false;
	o->file = f;
	o->n_phdrs = eh.e_phnum;
	if (!load(f, base + eh.e_phoff, o->phdrs, o->n_phdrs * sizeof(Elf64_Phdr)))
		return false;
	for (uint16_t i = 0; i < o->n_phdrs; i++) {
		if (o->phdrs[i].p_type == PT_LOAD) {
			o->bias = base - (o->phdrs[i].p_vaddr - o->phdrs[i].p_offset);
			return true;
		}
	}
	return false;
}

/* The object that addr belongs to: the vDSO, or the file's mapping with offset 0 nearest below. */
static bool find_object(struct object *o, const struct tf_file *f, uint64_t addr)
{
	const struct tf_image *img = &f->image;
	const struct tf_map *m = tf_image_map_at(img, addr);

	if (!m)
		return false;
	if (addr - img->vdso.base < img->vdso.size) {
		o->map = m;
		return read_object(o, f, img->vdso.base);
	}
	/* Zeroed variables stand in plain memory right behind the file's. */
	while (!m->path[0] && m > img->maps && m[-1].end == m->start)
		m--;
	if (!m->path[0])
		return false;
	for (uint32_t i = (uint32_t)(m - img->maps) + 1; i-- > 0;) {
		const struct tf_map *first = &img->maps[i];
		bool same = first->ino == m->ino && first->dev == m->dev &&
			    !strcmp(first->path, m->path);

		if (same && !first->offset) {
			o->map = first;
			return read_object(o, f, first->start);
		}
	}
	return false;
}

/* The build-id among notes; its length, 0 if there is none. */
static size_t find_build_id(const uint8_t *notes, size_t n, uint8_t id[static 64])
{
	size_t at = 0;
	Elf64_Nhdr nh;

	while (n - at >= sizeof(nh)) {
		size_t name, desc;

		memcpy(&nh, notes + at, sizeof(nh));
		at += sizeof(nh);
		name = (nh.n_namesz + (size_t)3) & ~(size_t)3;
		desc = (nh.n_descsz + (size_t)3) & ~(size_t)3;
		if (name > n - at || desc > n - at - name)
			return 0;
		if (nh.n_type == NT_GNU_BUILD_ID && nh.n_namesz == 4 &&
			!memcmp(notes + at, "GNU", 4) && nh.n_descsz <= 64) {
			memcpy(id, notes + at + name, nh.n_descsz);
			return nh.n_descsz;
		}
		at += name + desc;
	}
	return 0;
}

static size_t build_id_of_object(const struct object *o, uint8_t id[static 64])
{
	uint8_t notes[MAX_NOTES];

	for (uint16_t i = 0; i < o->n_phdrs; i++) {
		const Elf64_Phdr *p = &o->phdrs[i];
		size_t n = p->p_filesz < MAX_NOTES ? p->p_filesz : MAX_NOTES;

		if (p->p_type != PT_NOTE || !load(o->file, o->bias + p->p_vaddr, notes, n))
			continue;
		n = find_build_id(notes, n, id);
		if (n)
			return n;
	}
	return 0;
}

/* --- from a file of this host --- */

static size_t build_id_of_elf(Elf *elf, uint8_t id[static 64])
{
	size_t n_phdrs = 0;

	elf_getphdrnum(elf, &n_phdrs);
	for (size_t i = 0; i < n_phdrs; i++) {
		GElf_Phdr p;
		Elf_Data *data;
		size_t n;

		if (!gelf_getphdr(elf, (int)i, &p) || p.p_type != PT_NOTE)
			continue;
		data = elf_getdata_rawchunk(elf, (int64_t)p.p_offset, p.p_filesz, ELF_T_BYTE);
		n = data && data->d_buf ? find_build_id(data->d_buf, data->d_size, id) : 0;
		if (n)
			return n;
	}
	return 0;
}

static bool is_at(
	const struct object *o, uint8_t info, uint64_t value, uint64_t size, uint64_t addr)
{
	unsigned type = ELF64_ST_TYPE(info);

	return (type == STT_FUNC || type == STT_GNU_IFUNC || (o->data && type == STT_OBJECT)) &&
	       addr - value < (size ? size : 1);
}

static bool search_section(
	const struct object *o, Elf *elf, Elf_Scn *scn, uint64_t addr, struct tf_place *place)
{
	Elf_Data *data = elf_getdata(scn, NULL);
	GElf_Shdr sh;

	if (!data || !gelf_getshdr(scn, &sh) || !sh.sh_entsize)
		return false;
	for (size_t i = 0; i < sh.sh_size / sh.sh_entsize; i++) {
		GElf_Sym sym;
		const char *name;

		if (!gelf_getsym(data, (int)i, &sym) || !sym.st_shndx ||
			!is_at(o, sym.st_info, sym.st_value, sym.st_size, addr))
			continue;
		name = elf_strptr(elf, sh.sh_link, sym.st_name);
		if (!name || !*name)
			continue;
		strncpy(place->name, name, sizeof(place->name) - 1);
		place->offset = addr - sym.st_value;
		return true;
	}
	return false;
}

static bool search_elf(const struct object *o, Elf *elf, uint64_t addr, struct tf_place *place)
{
	static const uint32_t types[] = {SHT_SYMTAB, SHT_DYNSYM};

	for (size_t t = 0; t < 2; t++) {
		for (Elf_Scn *scn = elf_nextscn(elf, NULL); scn; scn = elf_nextscn(elf, scn)) {
			GElf_Shdr sh;

			if (gelf_getshdr(scn, &sh) && sh.sh_type == types[t] &&
				search_section(o, elf, scn, addr, place))
				return true;
		}
	}
	return false;
}

/* The path that the image names is opened only if it is a regular file with the same build-id. */
static bool find_on_host(const struct object *o, uint64_t addr, struct tf_place *place)
{
	uint8_t mine[64], theirs[64];
	size_t n = build_id_of_object(o, mine);
	struct stat st;
	TF_CLOSE int fd = -1;
	bool found = false;
	Elf *elf;

	if (!n || o->map->path[0] != '/')
		return false;
	fd = open(o->map->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode))
		return false;
	elf_version(EV_CURRENT);
	elf = elf_begin(fd, ELF_C_READ, NULL);
	if (!elf)
		return false;
	if (build_id_of_elf(elf, theirs) == n && !memcmp(mine, theirs, n))
		found = search_elf(o, elf, addr - o->bias, place);
	elf_end(elf);
	place->from_host = found;
	return found;
}

/* --- from the image's memory --- */

struct dynamic {
	uint64_t symbols, strings, n_strings;
};

/* ld.so relocates these pointers in place for what it loads, nobody does for the vDSO and for
 * static programs. */
static uint64_t relocated(const struct object *o, uint64_t p)
{
	return p < o->bias ? p + o->bias : p;
}

static bool read_dynamic(const struct object *o, struct dynamic *d)
{
	const Elf64_Phdr *p = NULL;
	Elf64_Dyn dyn;

	for (uint16_t i = 0; i < o->n_phdrs; i++) {
		if (o->phdrs[i].p_type == PT_DYNAMIC)
			p = &o->phdrs[i];
	}
	for (uint64_t i = 0; p && i < p->p_memsz / sizeof(dyn) && i < 256; i++) {
		if (!load(o->file, o->bias + p->p_vaddr + i * sizeof(dyn), &dyn, sizeof(dyn)) ||
			dyn.d_tag == DT_NULL)
			break;
		if (dyn.d_tag == DT_SYMTAB)
			d->symbols = relocated(o, dyn.d_un.d_ptr);
		else if (dyn.d_tag == DT_STRTAB)
			d->strings = relocated(o, dyn.d_un.d_ptr);
		else if (dyn.d_tag == DT_STRSZ)
			d->n_strings = dyn.d_un.d_val;
	}
	return d->symbols && d->strings > d->symbols;
}

/* A name of at most sizeof(place->name) - 1 bytes, cut at the end of what is mapped. */
static void read_name(const struct object *o, uint64_t addr, uint64_t room, struct tf_place *place)
{
	for (size_t i = 0; i < sizeof(place->name) - 1 && i < room; i++) {
		if (!load(o->file, addr + i, &place->name[i], 1) || !place->name[i])
			break;
	}
}

/* The string table stands right behind the symbols in what linkers make: that is their number. */
static bool find_in_memory(const struct object *o, uint64_t addr, struct tf_place *place)
{
	struct dynamic d = {0};
	Elf64_Sym sym[256];
	uint64_t n;

	if (!read_dynamic(o, &d))
		return false;
	n = (d.strings - d.symbols) / sizeof(sym[0]);
	for (uint64_t i = 0; i < n && i < MAX_SYMBOLS; i += 256) {
		uint64_t part = n - i < 256 ? n - i : 256;

		if (!load(o->file, d.symbols + i * sizeof(sym[0]), sym, part * sizeof(sym[0])))
			return false;
		for (uint64_t k = 0; k < part; k++) {
			uint64_t value = sym[k].st_value + o->bias;

			if (!sym[k].st_shndx || sym[k].st_name >= d.n_strings ||
				!is_at(o, sym[k].st_info, value, sym[k].st_size, addr))
				continue;
			read_name(
				o, d.strings + sym[k].st_name, d.n_strings - sym[k].st_name, place);
			place->offset = addr - value;
			return place->name[0] != '\0';
		}
	}
	return false;
}

static bool find_in_vdso(const struct tf_file *f, uint64_t addr, struct tf_place *place)
{
	const struct tf_vdso *v = &f->image.vdso;

	for (uint32_t i = 0; i < v->n_symbols; i++) {
		if (addr - v->symbols[i].value < v->symbols[i].size) {
			strncpy(place->name, v->symbols[i].name, sizeof(place->name) - 1);
			place->offset = addr - v->symbols[i].value;
			return true;
		}
	}
	return false;
}

static bool find(const struct tf_file *f, uint64_t addr, bool data, struct tf_place *ret_place)
{
	struct tf_place place = {0};
	struct object o = {.data = data};

	if (!find_in_vdso(f, addr, &place)) {
		if (!find_object(&o, f, addr) ||
			(!find_on_host(&o, addr, &place) && !find_in_memory(&o, addr, &place)))
			return false;
	}
	*ret_place = place;
	return true;
}

bool tf_place_find(const struct tf_file *f, uint64_t addr, struct tf_place *ret_place)
{
	return find(f, addr, false, ret_place);
}

bool tf_place_find_any(const struct tf_file *f, uint64_t addr, struct tf_place *ret_place)
{
	return find(f, addr, true, ret_place);
}
