/* SPDX-License-Identifier: MIT */
/*
 * Rounds of memory made to do harm: the receiver says what is wrong with them, and the new process
 * that took them is gone. Under QEMU user mode a receiver takes none.
 */
#include "tests/unit/rounds.h"

#include "core/pack/codec.h"

/* --- offers --- */

static void no_magic(struct tf_rounds_header *h)
{
	h->magic[0]++;
}

static void other_machine(struct tf_rounds_header *h)
{
	h->machine++;
}

static void other_pages(struct tf_rounds_header *h)
{
	h->page_size *= 4;
}

static void too_much(struct tf_rounds_header *h)
{
	h->memory = MOST + 1;
}

static void without_end(struct tf_rounds_header *h)
{
	h->memory = UINT64_MAX;
}

/* Where there are no rounds the stream comes at once: here, nothing. */
START_TEST(offers)
{
	static const struct {
		void (*spoil)(struct tf_rounds_header *h);
		const char *text;
	} kind[] = {
		{other_machine, "another processor"},
		{other_pages, "another processor or another size of pages"},
		{too_much, "so much memory is not free"},
		{without_end, "so much memory is not free"},
	};
	char message[TELEFORK_MESSAGE_MAX];
	struct tf_rounds_header h = good_offer();
	struct line l;

	no_magic(&h);
	line_open(&l);
	put_offer(&l, &h);
	refused(&l, TELEFORK_E_PROTOCOL, "does not begin as rounds", "no magic");
	h = good_offer();
	line_open(&l);
	put(&l, &h, sizeof(h));
	refused(&l, TELEFORK_E_CHECKSUM, "damaged", "no check");
	for (size_t i = 0; i < sizeof(kind) / sizeof(*kind); i++) {
		h = good_offer();
		kind[i].spoil(&h);
		ck_assert_int_eq(offer(&l, &h, message), TF_OUTCOME_GONE);
		ck_assert_msg(strstr(message, kind[i].text) || tf_host_emulated(), "%s", message);
		refused(&l, TELEFORK_E_CLOSED, "", kind[i].text);
	}
}
END_TEST

/* Spans begin where the sender says: any number is one. */
START_TEST(spans)
{
	static const uint32_t shifts[] = {1, 255, 256, UINT32_MAX};

	for (size_t i = 0; i < sizeof(shifts) / sizeof(*shifts) && !tf_host_emulated(); i++)
		for (int across = 0; across < 2; across++) {
			struct tf_rounds_header h = good_offer();
			char message[TELEFORK_MESSAGE_MAX];
			uint64_t border, taken;
			struct line l;

			h.shift = shifts[i];
			ck_assert_int_eq(offer(&l, &h, message), TF_OUTCOME_COMING);
			border = PLACE - PLACE % span + (((uint64_t)shifts[i] << 30) & (span - 1));
			put_place(&l, border - across * PAGE, border + PAGE, 0, 1);
			put_place(&l, border - 2 * PAGE, border - PAGE, 0, 1);
			put_extent(&l, border - 2 * PAGE, PAGE, page);
			put_trailer(&l);
			ck_assert_int_eq(is_taken(&l, &taken), !across);
			refused(&l, across ? TELEFORK_E_IMAGE : TELEFORK_E_CLOSED,
				across ? "a place" : "", "spans");
		}
}
END_TEST

/* --- places --- */

static void odd_places(struct line *l)
{
	put_extent(l, TF_PLACES_OFFSET, sizeof(struct tf_round_place) - 8, page);
}

static void place_empty(struct line *l)
{
	put_place(l, PLACE, PLACE, 0, 1);
}

static void place_backwards(struct line *l)
{
	put_place(l, PLACE + 2 * PAGE, PLACE, 0, 1);
}

static void place_unaligned(struct line *l)
{
	put_place(l, PLACE + 8, PLACE + PAGE, 0, 1);
}

static void place_ends_unaligned(struct line *l)
{
	put_place(l, PLACE, PLACE + PAGE + 8, 0, 1);
}

static void place_in_the_kernel(struct line *l)
{
	put_place(l, PLACE, TF_MAX_ADDR + PAGE, 0, 0);
}

static void place_across_spans(struct line *l)
{
	uint64_t border = PLACE - PLACE % span + span;

	put_place(l, border - PAGE, border + PAGE, 0, 1);
}

static void place_with_flags(struct line *l)
{
	put_place(l, PLACE, PLACE + PAGE, TF_VMF_GROWSDOWN, 1);
}

static void place_twice(struct line *l)
{
	put_place(l, PLACE, PLACE + 4 * PAGE, 0, 1);
	put_place(l, PLACE + 3 * PAGE, PLACE + 5 * PAGE, 0, 1);
}

static void place_around_another(struct line *l)
{
	put_place(l, PLACE + PAGE, PLACE + 2 * PAGE, 0, 1);
	put_place(l, PLACE, PLACE + 4 * PAGE, 0, 1);
}

static void places_everywhere(struct line *l)
{
	for (uint64_t i = 0; i < 80; i++)
		put_place(l, PLACE + i * span, PLACE + i * span + PAGE, 0, 1);
}

/* As one for the kernel, which has no more of them. */
static void places_without_end(struct line *l)
{
	for (uint64_t i = 0; i < 65537; i++)
		put_place(l, PLACE + i * PAGE, PLACE + (i + 1) * PAGE, 0, 1);
}

/* --- extents --- */

static void one_place(struct line *l)
{
	put_place(l, PLACE, PLACE + 16 * PAGE, 0, 1);
	put_place(l, PLACE + 32 * PAGE, PLACE + 48 * PAGE, 0, 1);
	put_place(l, PLACE + 64 * PAGE, PLACE + 80 * PAGE, 0, 0);
}

static void extent_nowhere(struct line *l)
{
	put_extent(l, PLACE + PAGE, PAGE, page);
}

static void extent_behind(struct line *l)
{
	one_place(l);
	put_extent(l, PLACE + 16 * PAGE, PAGE, page);
}

static void extent_before(struct line *l)
{
	one_place(l);
	put_extent(l, PLACE - PAGE, 2 * PAGE, page);
}

static void extent_too_long(struct line *l)
{
	one_place(l);
	put_extent(l, PLACE + 15 * PAGE, 2 * PAGE, page);
}

static void extent_across_a_gap(struct line *l)
{
	one_place(l);
	put_extent(l, PLACE + 15 * PAGE, 18 * PAGE, page);
}

static void extent_in_the_way(struct line *l)
{
	one_place(l);
	put_extent(l, PLACE + 64 * PAGE, PAGE, page);
}

static void extent_unaligned(struct line *l)
{
	one_place(l);
	put_extent(l, PLACE + 8, PAGE, page);
}

static void extent_of_half_a_page(struct line *l)
{
	one_place(l);
	put_extent(l, PLACE, PAGE / 2, page);
}

static void extent_around_the_end(struct line *l)
{
	one_place(l);
	put_extent(l, -(uint64_t)(16 * PAGE), PAGE, page);
}

static void put_bare(struct line *l, uint64_t offset, uint32_t size)
{
	const struct tf_extent x = {offset, size, 0};

	one_place(l);
	put(l, &x, sizeof(x));
}

static void extent_empty(struct line *l)
{
	put_bare(l, PLACE, 0);
}

static void extent_of_4_gib(struct line *l)
{
	put_bare(l, PLACE, UINT32_MAX);
}

static void places_of_4_gib(struct line *l)
{
	put_bare(l, TF_PLACES_OFFSET, UINT32_MAX);
}

static void extent_damaged(struct line *l)
{
	put_bare(l, PLACE, PAGE);
	put(l, page, PAGE);
}

static void places_damaged(struct line *l)
{
	const struct tf_round_place p = {PLACE + PAGE * 100, PLACE + PAGE * 101, 0, 1};

	put_bare(l, TF_PLACES_OFFSET, sizeof(p));
	put(l, &p, sizeof(p));
}

static void extent_missing(struct line *l)
{
	one_place(l);
	l->count++;
	put_trailer(l);
}

static void extents_mixed_up(struct line *l)
{
	one_place(l);
	l->chain++;
	put_trailer(l);
}

static void rounds_without_end(struct line *l)
{
	for (unsigned i = 0; i <= TF_ROUNDS_MAX; i++)
		put_trailer(l);
}

static void bytes_without_end(struct line *l)
{
	one_place(l);
	for (uint64_t n = 0; n <= MOST; n += PAGE)
		put_extent(l, PLACE, PAGE, page);
}

/* Of each round so little that it is allowed. */
static void memory_without_end(struct line *l)
{
	uint64_t taken, at = PLACE;

	put_place(l, PLACE, PLACE + 128 * MOST, TF_VMF_NORESERVE, 1);
	memset(page, 1, sizeof(page));
	for (unsigned i = 0; i < 20; i++) {
		for (uint64_t n = 0; n + TF_EXTENT_MAX <= MOST; n += TF_EXTENT_MAX) {
			put_extent(l, at, TF_EXTENT_MAX, page);
			at += TF_EXTENT_MAX;
		}
		put_trailer(l);
		if (!is_taken(l, &taken))
			break;
	}
}

/* --- extents that are packed --- */

static void put_mark(struct line *l, uint32_t inside)
{
	const struct tf_extent x = {.offset = TF_PACKED_OFFSET, .size = inside};

	put(l, &x, sizeof(x));
}

/* size: of what it stands for, as it says; it is so many pages. */
static void put_packed(struct line *l, uint64_t at, uint32_t pages, uint32_t size, uint32_t crc)
{
	static uint8_t packed[16 * PAGE];
	struct tf_codec_state *codec = tf_codec_new();
	uint32_t n = (uint32_t)tf_codec_pack(
		codec, TF_CODEC_LZ4, packed, sizeof(packed), page, (size_t)pages * PAGE);
	struct tf_extent x = {at, size, tf_extent_crc(at, size, page) ^ crc};

	ck_assert_uint_gt(n, 0);
	l->chain = tf_chain_crc(l->chain, x.crc);
	l->count++;
	x.size |= TF_CODEC_LZ4 << TF_PACK_SHIFT;
	put(l, &x, sizeof(x));
	put(l, &n, sizeof(n));
	put(l, packed, n);
	tf_codec_free(codec);
}

static void packed_nowhere(struct line *l)
{
	one_place(l);
	put_mark(l, 1);
	put_packed(l, PLACE + 16 * PAGE, 1, PAGE, 0);
}

static void packed_too_long(struct line *l)
{
	one_place(l);
	put_mark(l, 1);
	put_packed(l, PLACE + 8 * PAGE, 9, 9 * PAGE, 0);
}

static void packed_says_less(struct line *l)
{
	one_place(l);
	put_mark(l, 1);
	put_packed(l, PLACE, 2, PAGE, 0);
}

static void packed_damaged(struct line *l)
{
	one_place(l);
	put_mark(l, 1);
	put_packed(l, PLACE, 2, 2 * PAGE, 1);
}

static void packed_unaligned(struct line *l)
{
	one_place(l);
	put_mark(l, 1);
	put_packed(l, PLACE + 8, 1, PAGE, 0);
}

static void packed_list(struct line *l)
{
	struct tf_hash hash = {0};

	const struct tf_extent x = {.offset = PLACE, .size = PAGE | TF_PACK_LIST << TF_PACK_SHIFT};

	one_place(l);
	put_mark(l, 1);
	put(l, &x, sizeof(x));
	put(l, &hash, sizeof(hash));
}

static void packed_places(struct line *l)
{
	put_mark(l, 1);
	put_packed(l, TF_PLACES_OFFSET, 1, PAGE, 0);
}

static void packed_missing(struct line *l)
{
	one_place(l);
	put_mark(l, 1);
	put_packed(l, PLACE, 2, 2 * PAGE, 0);
	put_mark(l, 0);
	l->count++;
	put_trailer(l);
}

static void section_twice(struct line *l)
{
	put_mark(l, 1);
	put_mark(l, 1);
}

static void section_open(struct line *l)
{
	put_mark(l, 1);
	put_trailer(l);
}

static void section_without_begin(struct line *l)
{
	put_mark(l, 0);
}

static void section_of_nothing(struct line *l)
{
	put_mark(l, UINT32_MAX);
}

static void nothing_more(struct line *l)
{
	one_place(l);
}

START_TEST(rounds)
{
	static const struct {
		void (*send)(struct line *l);
		int code;
		const char *text, *what;
	} kind[] = {
#define K(fn, code, text) {fn, TELEFORK_E_##code, text, #fn}
		K(odd_places, IMAGE, "places at"),
		K(place_empty, IMAGE, "a place at"),
		K(place_backwards, IMAGE, "a place at"),
		K(place_unaligned, IMAGE, "a place at"),
		K(place_ends_unaligned, IMAGE, "a place at"),
		K(place_in_the_kernel, IMAGE, "a place at"),
		K(place_across_spans, IMAGE, "a place at"),
		K(place_with_flags, IMAGE, "a place at"),
		K(place_twice, IMAGE, "told before"),
		K(place_around_another, IMAGE, "told before"),
		K(extent_nowhere, IMAGE, "in no place"),
		K(extent_behind, IMAGE, "in no place"),
		K(extent_before, IMAGE, "in no place"),
		K(extent_too_long, IMAGE, "in no place"),
		K(extent_across_a_gap, IMAGE, "in no place"),
		K(extent_in_the_way, IMAGE, "in no place"),
		K(extent_unaligned, IMAGE, "in no place"),
		K(extent_of_half_a_page, IMAGE, "in no place"),
		K(extent_around_the_end, IMAGE, "in no place"),
		K(extent_empty, IMAGE, "size"),
		K(extent_of_4_gib, IMAGE, "size"),
		K(places_of_4_gib, IMAGE, "size"),
		K(extent_damaged, CHECKSUM, "damaged"),
		K(places_damaged, CHECKSUM, "damaged"),
		K(extent_missing, CHECKSUM, "missing"),
		K(extents_mixed_up, CHECKSUM, "missing"),
		K(rounds_without_end, IMAGE, "one round too many"),
		K(bytes_without_end, LIMIT, "more than"),
		K(memory_without_end, LIMIT, "more than"),
		K(packed_nowhere, IMAGE, "in no place"),
		K(packed_too_long, IMAGE, "in no place"),
		K(packed_says_less, CHECKSUM, "no lz4 of 4096 bytes"),
		K(packed_damaged, CHECKSUM, "damaged"),
		K(packed_unaligned, IMAGE, "in no place"),
		K(packed_list, IMAGE, "for which there is no store"),
		K(packed_places, IMAGE, "places at"),
		K(packed_missing, CHECKSUM, "missing"),
		K(section_twice, IMAGE, "a section in a section"),
		K(section_open, IMAGE, "ends too early"),
		K(section_without_begin, IMAGE, "a section of packed memory"),
		K(section_of_nothing, IMAGE, "a section of packed memory"),
		K(nothing_more, CLOSED, ""),
#undef K
	};

	if (tf_host_emulated())
		return;
	for (size_t i = 0; i < sizeof(kind) / sizeof(*kind); i++) {
		struct line l;

		begin(&l);
		kind[i].send(&l);
		refused(&l, kind[i].code, kind[i].text, kind[i].what);
	}
}
END_TEST

/* Who did not offer to unpack gets nothing that is packed; who did has it. */
START_TEST(sections)
{
	for (int offered = 0; offered < 2 && !tf_host_emulated(); offered++) {
		uint64_t taken;
		struct line l;

		unpacks = offered;
		begin(&l);
		one_place(&l);
		put_mark(&l, 1);
		put_packed(&l, PLACE, 4, 4 * PAGE, 0);
		put_extent(&l, PLACE + 4 * PAGE, PAGE, page);
		put_place(&l, PLACE + 200 * PAGE, PLACE + 210 * PAGE, 0, 1);
		put_packed(&l, PLACE + 200 * PAGE, 4, 4 * PAGE, 0);
		put_mark(&l, 0);
		put_extent(&l, PLACE + 5 * PAGE, PAGE, page);
		put_trailer(&l);
		ck_assert_int_eq(is_taken(&l, &taken), offered);
		refused(&l, offered ? TELEFORK_E_CLOSED : TELEFORK_E_IMAGE,
			offered ? "" : "a section of packed memory", "sections");
	}
	unpacks = true;
}
END_TEST

/* What cannot be kept is no lie: that is said, what is on its way is swallowed, and the image
 * comes. */
START_TEST(refusals)
{
	static const struct {
		void (*send)(struct line *l);
		const char *text;
	} kind[] = {
		{places_everywhere, "no addresses are free"},
		{places_without_end, "more than 65536 places"},
	};
	char message[TELEFORK_MESSAGE_MAX];

	for (size_t i = 0; i < 2 * sizeof(kind) / sizeof(*kind) && !tf_host_emulated(); i++) {
		uint64_t taken;
		struct line l;

		begin(&l);
		kind[i / 2].send(&l);
		ck_assert_int_eq(offered(&l, message), TF_OUTCOME_GONE);
		ck_assert_msg(strstr(message, kind[i / 2].text) != NULL, "%s", message);
		put_extent(&l, PLACE - PAGE / 2, PAGE, page);
		put_place(&l, PLACE, PLACE, 0, 1);
		put_mark(&l, 1);
		put_packed(&l, PLACE - PAGE / 2, 2, 2 * PAGE, 0);
		put_mark(&l, 0);
		if (i & 1) { /* what is damaged is an error all the same */
			l.chain++;
			put_trailer(&l);
			refused(&l, TELEFORK_E_CHECKSUM, "missing", kind[i / 2].text);
			continue;
		}
		put_trailer(&l);
		ck_assert(is_taken(&l, &taken));
		image.n_staged = 0;
		encode();
		put_over(&l);
		put_head(&l, head, image.head_size);
		refused(&l, 0, "", kind[i / 2].text);
	}
}
END_TEST

int main(int argc, char **argv)
{
	const TTest *const tests[] = {offers, spans, rounds, sections, refusals};

	return sides_main(argc, argv,
		sides_suite("rounds", set_up, NULL, tests, sizeof(tests) / sizeof(*tests)));
}
