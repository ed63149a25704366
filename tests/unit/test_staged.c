/* SPDX-License-Identifier: MIT */
/*
 * What an image says of rounds that came before it: nothing that did not come is believed to have.
 * Under QEMU user mode a receiver takes none.
 */
#include "tests/unit/rounds.h"

static struct tf_map *mine; /* some memory of the image */
static struct tf_run staged[2];

static void choose_mine(void)
{
	uint64_t best = 0;

	for (uint32_t i = 0; i < image.n_maps; i++) {
		struct tf_map *m = &image.maps[i];

		if (!tf_map_may_be_staged(m) || m->end - m->start <= best ||
			m->start / span != (m->end - 1) / span)
			continue;
		best = m->end - m->start;
		mine = m;
	}
	ck_assert_uint_ge(best, 4 * PAGE);
	staged[0] = (struct tf_run){mine->start + PAGE, mine->start + 2 * PAGE};
	image.staged = staged;
	image.n_staged = 1;
	image.held = NULL;
	image.n_held = 0;
}

static uint32_t flags_of_mine(void)
{
	return mine->vmflags & TF_PLACE_FLAGS;
}

static void put_image(struct line *l)
{
	encode();
	put_over(l);
	put_head(l, head, image.head_size);
}

/* A round in which a page of it came: it has slots for [from, to) of its pages. */
static void come(struct line *l, unsigned from, unsigned to, uint32_t flags)
{
	uint64_t bytes = 0;

	put_place(l, mine->start + from * PAGE, mine->start + to * PAGE, flags, 1);
	put_extent(l, mine->start + from * PAGE, PAGE, page);
	put_trailer(l);
	ck_assert(is_taken(l, &bytes));
	ck_assert_uint_ge(bytes, PAGE);
}

static void came(struct line *l)
{
	come(l, 1, 3, flags_of_mine());
}

static void never_came(struct line *l)
{
	(void)l;
}

static void came_elsewhere(struct line *l)
{
	come(l, 2, 3, flags_of_mine());
}

static void came_in_part(struct line *l)
{
	come(l, 1, 3, flags_of_mine());
	staged[0].end = mine->start + 4 * PAGE;
}

static void came_with_a_gap(struct line *l)
{
	come(l, 1, 2, flags_of_mine());
	come(l, 3, 4, flags_of_mine());
	staged[0].end = mine->start + 4 * PAGE;
}

static void came_as_another(struct line *l)
{
	come(l, 1, 2, flags_of_mine());
	come(l, 2, 3, flags_of_mine() ^ TF_VMF_NORESERVE);
	staged[0].end = mine->start + 3 * PAGE;
}

/* Where memory is meanwhile only the receiver knows: in a span that is free in both. */
static void mapped_over_it(struct line *l)
{
	struct tf_map *maps = tf_arena_array(&arena, image.n_maps + 1, sizeof(*maps));
	uint32_t i = 0, n = image.n_maps;
	uint64_t free = 0, at = mine->start;

	came(l);
	for (uint32_t k = 1; k < n; k++)
		if (image.maps[k].start - image.maps[k - 1].end > free) {
			free = image.maps[k].start - image.maps[k - 1].end;
			i = k;
		}
	memcpy(maps, image.maps, i * sizeof(*maps));
	memcpy(maps + i + 1, image.maps + i, (n - i) * sizeof(*maps));
	maps[i] = (struct tf_map){.start = image.maps[i - 1].end,
		.end = image.maps[i].start,
		.data_end = image.maps[i].start,
		.kind = TF_MAP_ANON,
		.vmflags = TF_VMF_NORESERVE,
		.path = ""};
	image.maps = maps;
	image.n_maps++;
	staged[0] = (struct tf_run){at + PAGE, at + 2 * PAGE};
	ck_assert_int_eq(tf_image_make_segments(&image, &arena, NULL, 0, UINT64_C(256) << 20), 0);
}

START_TEST(images)
{
	static const struct {
		void (*send)(struct line *l);
		int code;
		const char *text, *what;
	} kind[] = {
#define K(fn, code, text) {fn, code, text, #fn}
		K(came, 0, ""),
		K(never_came, TELEFORK_E_IMAGE, "is said to have come before"),
		K(came_elsewhere, TELEFORK_E_IMAGE, "is said to have come before"),
		K(came_in_part, TELEFORK_E_IMAGE, "is said to have come before"),
		K(came_with_a_gap, TELEFORK_E_IMAGE, "is said to have come before"),
		K(came_as_another, TELEFORK_E_IMAGE, "is said to have come before"),
		K(mapped_over_it, TELEFORK_E_COLLISION, "where memory is kept"),
#undef K
	};
	const struct tf_image good = image;

	for (size_t i = 0; i < sizeof(kind) / sizeof(*kind) && !tf_host_emulated(); i++) {
		struct line l;

		image = good;
		begin(&l);
		choose_mine();
		kind[i].send(&l);
		put_image(&l);
		refused(&l, kind[i].code, kind[i].text, kind[i].what);
	}
}
END_TEST

/* After an offer that was refused. */
START_TEST(image_without_rounds)
{
	struct tf_rounds_header h = good_offer();
	char message[TELEFORK_MESSAGE_MAX];
	struct line l;

	if (tf_host_emulated())
		return;
	span = UINT64_C(1) << 38;
	h.machine++;
	choose_mine();
	ck_assert_int_eq(offer(&l, &h, message), TF_OUTCOME_GONE);
	encode();
	put_head(&l, head, image.head_size);
	refused(&l, TELEFORK_E_IMAGE, "is said to have come before", "no rounds");
}
END_TEST

int main(int argc, char **argv)
{
	const TTest *const tests[] = {images, image_without_rounds};

	return sides_main(argc, argv,
		sides_suite("staged", set_up, NULL, tests, sizeof(tests) / sizeof(*tests)));
}
