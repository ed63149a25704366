/* SPDX-License-Identifier: MIT */
/*
 * libFuzzer target: tf_image_decode() with any bytes. What is accepted must encode to the same
 *bytes (but for optional notes), and its registers must be showable. First inputs: tests/golden.
 *
 *	clang -fsanitize=fuzzer,address,undefined ... && ./fuzz_image corpus tests/golden
 *
 * Input bytes rarely keep a head's length right, so a head that is too short is padded with zeros.
 */
#include <stdlib.h>
#include <string.h>

#include "core/image/notes.h"

#define MAX_HEAD ((size_t)256 << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct tf_arena arena;
static uint8_t padded[MAX_HEAD];
static unsigned char sink;

static int touch(void *ctx, const struct tf_reg *reg, const uint8_t *value)
{
	(void)ctx;
	if (reg->size > TF_REG_VALUE_MAX)
		abort();
	for (uint32_t i = 0; i < reg->size; i++)
		sink ^= value[i];
	return 0;
}

/* Every accepted image can be shown, searched and encoded again. */
static void use(struct tf_image *img, size_t notes_size)
{
	const struct tf_arch *arch = tf_arch_by_machine(img->source.machine);
	uint8_t *head;

	for (uint32_t i = 0; i < img->n_threads; i++) {
		arch->each(&img->threads[i].regs, &img->cpu, touch, NULL);
		sink ^= (unsigned char)arch->pc(&img->threads[i].regs);
	}
	for (uint32_t i = 0; i < img->n_segments; i++) {
		const struct tf_segment *s = &img->segments[i];

		if (s->filesz && (tf_image_offset(img, s->vaddr) != s->offset ||
					 tf_image_address(img, s->offset, NULL) != s->vaddr))
			abort();
	}
	if (tf_image_encode(img, &arena, &head))
		abort();
	if (!memcmp(head + 160, &notes_size, 8) && memcmp(head, padded, img->head_size))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tf_image img;
	struct tf_err e = {0};
	uint64_t head_size, notes_size;
	uint32_t machine;

	if (!arena.base && tf_arena_init(&arena, (size_t)64 << 20))
		abort();
	if (size < TF_HEAD_PEEK || size > MAX_HEAD)
		return 0;
	if (tf_image_peek(data, &machine, &head_size, &e) || head_size > MAX_HEAD)
		return 0;
	memcpy(padded, data, size);
	if (size < head_size)
		memset(padded + size, 0, head_size - size);
	memcpy(&notes_size, padded + 160, sizeof(notes_size));
	e.code = 0;
	if (!tf_image_decode(&img, &arena, padded, head_size, &e))
		use(&img, notes_size);
	else if (!e.code || !e.text[0])
		abort();
	memset(arena.base, 0, arena.used);
	arena.used = 0;
	return 0;
}
