/* SPDX-License-Identifier: MIT */
/* See known.h. Two builds have two build-ids; what was done to a file afterwards (strip, patchelf)
 * shows in its size, or in the header and program headers on its first page. */
#include "core/image/known.h"
#include "core/base/crc32c.h"

#include <elf.h>
#include <string.h>

/* The build-id among notes; 0 if there is none. */
static uint32_t find_id(const uint8_t *notes, size_t n, uint8_t id[static TF_KNOWN_ID])
{
	while (n >= sizeof(Elf64_Nhdr)) {
		size_t name, desc;
		Elf64_Nhdr h;

		memcpy(&h, notes, sizeof(h));
		notes += sizeof(h);
		n -= sizeof(h);
		name = ((size_t)h.n_namesz + 3) & ~(size_t)3;
		desc = ((size_t)h.n_descsz + 3) & ~(size_t)3;
		if (name > n || desc > n - name)
			return 0;
		if (h.n_type == NT_GNU_BUILD_ID && h.n_namesz == 4 && !memcmp(notes, "GNU", 4) &&
			h.n_descsz && h.n_descsz <= TF_KNOWN_ID) {
			memcpy(id, notes + name, h.n_descsz);
			return h.n_descsz;
		}
		notes += name + desc;
		n -= name + desc;
	}
	return 0;
}

bool tf_known_by_with(
	bool instruction, const uint8_t page[static TF_KNOWN_PAGE], struct tf_known *ret)
{
	Elf64_Ehdr e;

	memcpy(&e, page, sizeof(e));
	memset(ret->id, 0, sizeof(ret->id));
	if (memcmp(e.e_ident, ELFMAG, SELFMAG) != 0 || e.e_ident[EI_CLASS] != ELFCLASS64 ||
		e.e_phentsize != sizeof(Elf64_Phdr) || e.e_phoff > TF_KNOWN_PAGE ||
		e.e_phnum > (TF_KNOWN_PAGE - e.e_phoff) / sizeof(Elf64_Phdr))
		return false;
	ret->crc = tf_crc32c_by(instruction, 0, page, TF_KNOWN_PAGE);
	for (unsigned i = 0; i < e.e_phnum; i++) {
		Elf64_Phdr p;

		memcpy(&p, page + e.e_phoff + i * sizeof(p), sizeof(p));
		if (p.p_type == PT_NOTE && p.p_offset <= TF_KNOWN_PAGE &&
			p.p_filesz <= TF_KNOWN_PAGE - p.p_offset &&
			find_id(page + p.p_offset, p.p_filesz, ret->id))
			return true;
	}
	return false;
}

bool tf_known_by(const uint8_t page[static TF_KNOWN_PAGE], struct tf_known *ret)
{
	return tf_known_by_with(tf_crc32c_has_instruction(), page, ret);
}

bool tf_known_same(const struct tf_known *a, const struct tf_known *b)
{
	return a->size == b->size && a->crc == b->crc && !memcmp(a->id, b->id, sizeof(a->id));
}
