/* SPDX-License-Identifier: MIT */
/*
 * Which bytes of memory stand where in the file. Segments cover every mapping from start to end, in
 * order; offsets follow from them alone, so the head can be written before any page is read. Runs
 * in a forked child: no libc allocator, no lock.
 */
#include "core/image/image.h"

#include <sys/mman.h>

struct maker {
	struct tf_image *img;
	struct tf_segment *out; /* NULL: only count */
	uint64_t gap;
	uint32_t n;
};

static void emit(
	struct maker *m, const struct tf_map *map, uint64_t start, uint64_t data_end, uint64_t end)
{
	if (start == end)
		return;
	if (m->out) {
		m->out[m->n] = (struct tf_segment){
			.vaddr = start,
			.memsz = end - start,
			.filesz = data_end - start,
			.prot = map->prot,
		};
	}
	m->n++;
}

/* Splits one map; *at is the first run not yet used. Gaps of at most m->gap bytes are holes inside
 * a segment; longer ones, and what is behind the last run if it is long, get segments of their own.
 */
static void split(struct maker *m, const struct tf_map *map, const struct tf_run *runs,
	size_t n_runs, size_t *at)
{
	uint64_t start = map->start, data_end = map->start;

	for (; *at < n_runs && runs[*at].end <= map->end; ++*at) {
		const struct tf_run *run = &runs[*at];

		if (run->start - data_end > m->gap) {
			if (data_end > start)
				emit(m, map, start, data_end, data_end);
			emit(m, map, data_end, data_end, run->start);
			start = run->start;
		}
		data_end = run->end;
	}
	if (data_end > start && map->end - data_end > m->gap) {
		emit(m, map, start, data_end, data_end);
		start = data_end;
	}
	emit(m, map, start, data_end, map->end);
}

static void split_all(struct maker *m, const struct tf_run *runs, size_t n_runs)
{
	size_t at = 0;

	m->n = 0;
	for (uint32_t i = 0; i < m->img->n_maps; i++)
		split(m, &m->img->maps[i], runs, n_runs, &at);
}

/* Every run page-aligned, after the one before, inside the readable part of one map. */
static int check_runs(const struct tf_image *img, const struct tf_run *runs, size_t n_runs)
{
	uint64_t mask = img->source.page_size - 1, last = 0;
	uint32_t i = 0;

	for (size_t n = 0; n < n_runs; n++) {
		if (runs[n].start < last || runs[n].end <= runs[n].start)
			return TELEFORK_E_INVAL;
		if ((runs[n].start | runs[n].end) & mask)
			return TELEFORK_E_INVAL;
		while (i < img->n_maps && img->maps[i].end <= runs[n].start)
			i++;
		if (i == img->n_maps || runs[n].start < img->maps[i].start ||
			runs[n].end > img->maps[i].data_end || img->maps[i].kind == TF_MAP_VVAR)
			return TELEFORK_E_INVAL;
		last = runs[n].end;
	}
	return 0;
}

int tf_image_make_segments(struct tf_image *img, struct tf_arena *a, const struct tf_run *runs,
	size_t n_runs, uint64_t gap)
{
	struct maker m = {.img = img, .gap = gap};
	int r = check_runs(img, runs, n_runs);

	if (r)
		return r;
	split_all(&m, runs, n_runs);
	if (m.n > TF_MAX_SEGMENTS)
		return TELEFORK_E_LIMIT;
	img->segments = tf_arena_array(a, m.n, sizeof(*img->segments));
	if (!img->segments)
		return TELEFORK_E_NOMEM;
	img->n_segments = m.n;
	m.out = img->segments;
	split_all(&m, runs, n_runs);
	return 0;
}

uint64_t tf_image_offset(const struct tf_image *img, uint64_t addr)
{
	uint32_t low = 0, high = img->n_segments;

	while (low < high) { /* the first segment that begins behind addr */
		uint32_t mid = low + (high - low) / 2;

		if (img->segments[mid].vaddr <= addr)
			low = mid + 1;
		else
			high = mid;
	}
	if (!low || addr - img->segments[low - 1].vaddr >= img->segments[low - 1].filesz)
		return UINT64_MAX;
	return img->segments[low - 1].offset + (addr - img->segments[low - 1].vaddr);
}

uint64_t tf_image_address(const struct tf_image *img, uint64_t offset, uint64_t *room)
{
	uint32_t low = 0, high = img->n_segments;
	const struct tf_segment *seg;

	/* Segments without bytes have the offset of the next one with bytes and stand before it, so
	 * the last one at or below offset is the one that can hold it. */
	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (img->segments[mid].offset <= offset)
			low = mid + 1;
		else
			high = mid;
	}
	if (!low)
		return UINT64_MAX;
	seg = &img->segments[low - 1];
	if (offset - seg->offset >= seg->filesz)
		return UINT64_MAX;
	if (room)
		*room = seg->filesz - (offset - seg->offset);
	return seg->vaddr + (offset - seg->offset);
}

bool tf_map_may_wait(const struct tf_map *m)
{
	const uint32_t never = TF_VMF_LOCKED | TF_VMF_GROWSDOWN | TF_VMF_HUGETLB | TF_VMF_MTE;

	return !(m->flags & TF_MAP_SHARED) && !m->object && !m->huge && !(m->vmflags & never) &&
	       (m->kind == TF_MAP_ANON || m->kind == TF_MAP_HEAP || m->kind == TF_MAP_FILE);
}

bool tf_map_may_be_known(const struct tf_map *m)
{
	return m->kind == TF_MAP_FILE && !(m->flags & (TF_MAP_SHARED | TF_MAP_DELETED)) &&
	       m->path[0] == '/';
}

/* Whether the runs from *k on have all of [at, end); *k is then the first that goes on behind it.
 */
static bool is_later(const struct tf_image *img, uint32_t *k, uint64_t at, uint64_t end)
{
	for (; *k < img->n_later && at < end && img->later[*k].start <= at; ++*k) {
		at = img->later[*k].end > at ? img->later[*k].end : at;
		if (at > end)
			break;
	}
	return at >= end;
}

/* All lists are in the order of addresses. */
void tf_image_note_waiting(struct tf_image *img)
{
	uint32_t k = 0, g = 0;

	for (uint32_t i = 0; i < img->n_maps; i++) {
		struct tf_map *m = &img->maps[i];

		m->waits = true;
		for (; g < img->n_segments && img->segments[g].vaddr < m->end; g++) {
			const struct tf_segment *s = &img->segments[g];

			while (k < img->n_later && img->later[k].end <= s->vaddr)
				k++;
			m->waits &= is_later(img, &k, s->vaddr, s->vaddr + s->filesz);
		}
	}
}

/* Both lists are in the order of mappings. */
uint64_t tf_image_drop_later(struct tf_image *img, const struct tf_known *known, uint32_t n)
{
	uint32_t kept = 0, k = 0;
	uint64_t dropped = 0;

	for (uint32_t i = 0; i < img->n_later; i++) {
		const struct tf_run r = img->later[i];

		while (k < n && img->maps[known[k].map].end <= r.start)
			k++;
		if (k < n && img->maps[known[k].map].start < r.end)
			dropped += r.end - r.start;
		else
			img->later[kept++] = r;
	}
	img->n_later = kept;
	return dropped;
}

bool tf_map_may_be_staged(const struct tf_map *m)
{
	return tf_map_may_wait(m) && m->kind != TF_MAP_FILE;
}

bool tf_map_may_have_tags(const struct tf_map *m)
{
	return m->vmflags & TF_VMF_MTE && !(m->flags & TF_MAP_SHARED) &&
	       (m->kind == TF_MAP_ANON || m->kind == TF_MAP_HEAP || m->kind == TF_MAP_STACK);
}

const struct tf_map *tf_image_map_at(const struct tf_image *img, uint64_t addr)
{
	uint32_t low = 0, high = img->n_maps;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (img->maps[mid].start <= addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low && addr < img->maps[low - 1].end ? &img->maps[low - 1] : NULL;
}

int tf_image_link_objects(struct tf_image *img, struct tf_arena *a)
{
	img->uses = tf_arena_array(a, img->n_objects + 1u, sizeof(*img->uses));
	img->next_use = tf_arena_array(a, img->n_maps + 1u, sizeof(*img->next_use));
	if (!img->uses || !img->next_use)
		return TELEFORK_E_NOMEM;
	for (uint32_t i = img->n_maps; i-- > 0;) {
		const struct tf_map *m = &img->maps[i];
		struct tf_use *use = m->object ? &img->uses[m->object - 1] : NULL;

		if (!use)
			continue;
		img->next_use[i] = use->map;
		use->map = i + 1;
		use->written |= m->prot & PROT_WRITE || m->vmflags & TF_VMF_MAYWRITE;
	}
	return 0;
}
