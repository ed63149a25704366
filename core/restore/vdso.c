/* SPDX-License-Identifier: MIT */
/* Reads the vDSO's dynamic symbols where it is mapped (ELF gABI, chapter 5). libelf would allocate,
 * and this runs in a forked child. The kernel made these bytes, but every offset is bounded
 * anyway. */
#include "core/restore/vdso.h"
#include "core/base/crc32c.h"

#include <elf.h>
#include <string.h>

#define MAX_SYMBOLS 256

/* A vDSO and where its bytes can be read. */
struct bytes {
	const struct tf_vdso *v;
	const uint8_t *p;
};

/* n bytes at an offset of the vDSO, or NULL. */
static const void *at(const struct bytes *b, uint64_t offset, uint64_t n)
{
	if (offset > b->v->size || n > b->v->size - offset)
		return NULL;
	return b->p + offset;
}

struct dynamic {
	uint64_t symtab, strtab, strsz, hash, gnu_hash;
	uint64_t load; /* p_vaddr of the first PT_LOAD */
};

static bool read_dynamic(const struct bytes *b, struct dynamic *d)
{
	const Elf64_Ehdr *eh = at(b, 0, sizeof(*eh));
	const Elf64_Phdr *ph, *dyn = NULL;
	const Elf64_Dyn *entry;

	*d = (struct dynamic){.load = UINT64_MAX};
	if (!eh || memcmp(eh->e_ident, ELFMAG, SELFMAG))
		return false;
	ph = at(b, eh->e_phoff, (uint64_t)eh->e_phnum * sizeof(*ph));
	for (unsigned i = 0; ph && i < eh->e_phnum; i++) {
		if (ph[i].p_type == PT_LOAD && d->load == UINT64_MAX)
			d->load = ph[i].p_vaddr - ph[i].p_offset;
		if (ph[i].p_type == PT_DYNAMIC)
			dyn = &ph[i];
	}
	entry = dyn ? at(b, dyn->p_offset, dyn->p_filesz) : NULL;
	if (!entry || d->load == UINT64_MAX)
		return false;
	for (uint64_t i = 0; i < dyn->p_filesz / sizeof(*entry) && entry[i].d_tag != DT_NULL; i++) {
		uint64_t value = entry[i].d_un.d_ptr;

		switch (entry[i].d_tag) {
		case DT_SYMTAB:
			d->symtab = value;
			break;
		case DT_STRTAB:
			d->strtab = value;
			break;
		case DT_STRSZ:
			d->strsz = value;
			break;
		case DT_HASH:
			d->hash = value;
			break;
		case DT_GNU_HASH:
			d->gnu_hash = value;
			break;
		default:
			break;
		}
	}
	return d->symtab && d->strtab;
}

/* Pointers in the dynamic section are link-time addresses, or (QEMU relocates its own) run-time
 * ones. */
static uint64_t offset_of(const struct tf_vdso *v, const struct dynamic *d, uint64_t pointer)
{
	return pointer >= v->base && pointer < v->base + v->size ? pointer - v->base
								 : pointer - d->load;
}

static int read_symbols(struct tf_vdso *v, const void *bytes, struct tf_arena *a)
{
	const struct bytes b = {v, bytes};
	struct dynamic d;
	uint64_t symtab, strtab;

	if (!read_dynamic(&b, &d))
		return 0;
	symtab = offset_of(v, &d, d.symtab);
	strtab = offset_of(v, &d, d.strtab);
	v->symbols = tf_arena_array(a, MAX_SYMBOLS, sizeof(*v->symbols));
	if (!v->symbols)
		return TELEFORK_E_NOMEM;
	/* The string table follows the symbols in every vDSO; its start ends them. */
	for (uint64_t i = 1; v->n_symbols < MAX_SYMBOLS; i++) {
		const Elf64_Sym *s = at(&b, symtab + i * sizeof(*s), sizeof(*s));
		const char *name;
		uint64_t room;

		if (!s || (strtab > symtab && symtab + (i + 1) * sizeof(*s) > strtab))
			break;
		if (s->st_shndx == SHN_UNDEF || ELF64_ST_TYPE(s->st_info) != STT_FUNC ||
			s->st_name >= d.strsz)
			continue;
		name = at(&b, strtab + s->st_name, 1);
		room = name ? v->size - (uint64_t)(name - (const char *)b.p) : 0;
		if (!name || s->st_value - d.load >= v->size)
			continue;
		v->symbols[v->n_symbols++] = (struct tf_symbol){
			.value = v->base + (s->st_value - d.load),
			.size = s->st_size,
			.name = tf_arena_strn(a, name, room < 128 ? room : 128),
		};
		if (!v->symbols[v->n_symbols - 1].name)
			return TELEFORK_E_NOMEM;
	}
	return 0;
}

void tf_vdso_find(struct tf_vdso *v, const struct tf_map *maps, uint32_t n)
{
	*v = (struct tf_vdso){0};
	for (uint32_t i = 0; i < n; i++) {
		const struct tf_map *m = &maps[i];

		if (m->kind == TF_MAP_VDSO) {
			v->base = m->start;
			v->size = m->end - m->start;
		} else if (m->kind == TF_MAP_VVAR) {
			if (!v->vvar_size)
				v->vvar_base = m->start;
			v->vvar_size = m->end - v->vvar_base;
		}
	}
}

int tf_vdso_read(struct tf_vdso *v, const void *bytes, struct tf_arena *a)
{
	if (!v->size)
		return 0;
	v->digest = (uint64_t)tf_crc32c(0, bytes, v->size) << 32 | v->size;
	return read_symbols(v, bytes, a);
}

int tf_vdso_from_maps(struct tf_vdso *v, const struct tf_map *maps, uint32_t n, struct tf_arena *a)
{
	tf_vdso_find(v, maps, n);
	return tf_vdso_read(v, (const void *)v->base, a);
}

bool tf_vdso_equal(const struct tf_vdso *a, const struct tf_vdso *b)
{
	return a->size && a->size == b->size && a->digest == b->digest &&
	       a->vvar_size == b->vvar_size && a->base - a->vvar_base == b->base - b->vvar_base;
}

uint64_t tf_vdso_symbol(const struct tf_vdso *v, const char *name)
{
	for (uint32_t i = 0; i < v->n_symbols; i++)
		if (!strcmp(v->symbols[i].name, name))
			return v->symbols[i].value;
	return 0;
}
