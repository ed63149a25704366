/* SPDX-License-Identifier: MIT */
/* The comparison's frame: what both images have to agree on, registers, and the exceptions' names.
 */
#include "core/image/compare_impl.h"

#include <elf.h>
#include <stdio.h>
#include <string.h>

static const char *const labels[] = {"",
#define X(name, label, text) [TF_EXCEPT_##name] = (label),
	TF_COMPARE_EXCEPTIONS(X)
#undef X
};

static const char *const texts[] = {"",
#define X(name, label, text) [TF_EXCEPT_##name] = (text),
	TF_COMPARE_EXCEPTIONS(X)
#undef X
};

const char *tf_compare_exception_name(enum tf_compare_exception except)
{
	return (unsigned)except < TF_EXCEPTIONS ? labels[except] : "?";
}

const char *tf_compare_exception_text(enum tf_compare_exception except)
{
	return (unsigned)except < TF_EXCEPTIONS ? texts[except] : "?";
}

uint64_t tf_compared_lost(const struct tf_compared *c)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < TF_COMPARE_KINDS; i++)
		n += c->count[i].different;
	return n;
}

bool tf_compare_tell(struct tf_comparison *c, struct tf_difference *d)
{
	if (c->strict)
		d->except = TF_EXCEPT_NONE;
	if (c->fn)
		c->fn(c->ctx, d);
	return d->except == TF_EXCEPT_NONE;
}

void tf_compare_count(struct tf_comparison *c, enum tf_compare_kind kind, bool different, bool lost)
{
	struct tf_compare_count *n = &c->sum->count[kind];

	if (!different)
		n->equal++;
	else if (lost)
		n->different++;
	else
		n->excepted++;
}

/* --- registers --- */

struct thread {
	struct tf_comparison *c;
	int32_t tid;
};

static void hex(const uint8_t *value, uint32_t size, char text[static 2 * TF_REG_VALUE_MAX + 1])
{
	for (uint32_t i = 0; i < size; i++)
		sprintf(text + 2 * i, "%02x", value[size - 1 - i]);
}

/* Keys that only one image holds were not lost: no signal frame has them. QEMU user mode has no
 * call that sets them; there, return addresses are signed anew. */
static enum tf_compare_exception except_register(
	const struct tf_comparison *c, const struct tf_reg *reg, bool both)
{
	if (reg->klass == TF_REG_PAC && (!both || c->emulated))
		return TF_EXCEPT_KEYS;
	return TF_EXCEPT_NONE;
}

static void differ(void *ctx, const struct tf_reg *reg, const uint8_t *a, const uint8_t *b)
{
	struct thread *t = ctx;
	char text_a[2 * TF_REG_VALUE_MAX + 1] = "-", text_b[2 * TF_REG_VALUE_MAX + 1] = "-";
	struct tf_difference d = {.kind = TF_COMPARE_REGISTER,
		.except = except_register(t->c, reg, a && b),
		.name = reg->name,
		.a = text_a,
		.b = text_b,
		.tid = t->tid,
		.size = reg->size};

	if (a)
		hex(a, reg->size, text_a);
	if (b)
		hex(b, reg->size, text_b);
	tf_compare_count(t->c, TF_COMPARE_REGISTER, true, tf_compare_tell(t->c, &d));
}

static void compare_registers(struct tf_comparison *c)
{
	for (uint32_t i = 0; i < c->a->n_threads; i++) {
		const struct tf_thread *a = &c->a->threads[i], *b = &c->b->threads[i];
		struct thread t = {c, a->tid};
		unsigned equal;

		tf_regs_diff(
			c->arch, &a->regs, &c->a->cpu, &b->regs, &c->b->cpu, differ, &t, &equal);
		c->sum->count[TF_COMPARE_REGISTER].equal += equal;
	}
}

/* --- the whole --- */

static int comparable(const struct tf_image *a, const struct tf_image *b, struct tf_err *e)
{
	if (a->source.machine != b->source.machine)
		return tf_fail(e, TELEFORK_E_INCOMPATIBLE,
			"a process of %s and one of %s cannot be compared",
			tf_arch_by_machine(a->source.machine)->name,
			tf_arch_by_machine(b->source.machine)->name);
	if (a->source.page_size != b->source.page_size)
		return tf_fail(e, TELEFORK_E_INCOMPATIBLE,
			"pages of %u and of %u bytes cannot be compared", a->source.page_size,
			b->source.page_size);
	if (a->n_threads != b->n_threads)
		return tf_fail(e, TELEFORK_E_INCOMPATIBLE,
			"%u threads and %u threads cannot be compared", a->n_threads, b->n_threads);
	if (a->source.origin == TF_ORIGIN_RETURN || b->source.origin == TF_ORIGIN_RETURN)
		return tf_fail(e, TELEFORK_E_INCOMPATIBLE,
			"an image on its way back from a yoyo holds only what changed");
	return 0;
}

/* Where both processes have the library's mailbox. A witness does not know, the other one does. */
static void find_mailbox(struct tf_comparison *c)
{
	uint64_t a = c->a->source.mailbox, b = c->b->source.mailbox, at = a ? a : b;
	struct tf_mailbox *m[] = {&c->mailbox_a, &c->mailbox_b};
	const struct tf_file *f[] = {c->file_a, c->file_b};

	for (unsigned i = 0; i < 2; i++)
		if (!at || tf_file_read(f[i], at, m[i], sizeof(*m[i])) != (ssize_t)sizeof(*m[i]) ||
			m[i]->magic != TF_MAILBOX_MAGIC)
			memset(m[i], 0, sizeof(*m[i]));
	c->mailbox = c->mailbox_a.magic ? at : 0;
}

/* The kernel and every emulator put the program's name on the main stack (AT_EXECFN); the label
 * [stack] is not shown everywhere. */
static const struct tf_map *find_stack(const struct tf_image *img)
{
	for (uint32_t i = 0; i < img->n_maps; i++)
		if (img->maps[i].kind == TF_MAP_STACK)
			return &img->maps[i];
	for (uint32_t i = 0; i < img->n_auxv; i++)
		if (img->auxv[2 * i] == AT_EXECFN)
			return tf_image_map_at(img, img->auxv[2 * i + 1]);
	return NULL;
}

int tf_compare(const struct tf_file *a, const struct tf_file *b, bool strict, tf_difference_fn *fn,
	void *ctx, struct tf_compared *ret, struct tf_err *e)
{
	struct tf_comparison c = {.file_a = a,
		.file_b = b,
		.a = &a->image,
		.b = &b->image,
		.arch = tf_arch_by_machine(a->image.source.machine),
		.strict = strict,
		.fn = fn,
		.ctx = ctx,
		.sum = ret,
		.e = e};
	int rc = comparable(c.a, c.b, e);

	*ret = (struct tf_compared){0};
	if (rc)
		return rc;
	c.emulated = (c.a->source.flags | c.b->source.flags) & TF_SOURCE_EMULATED;
	c.stack = find_stack(c.a);
	find_mailbox(&c);
	compare_registers(&c);
	rc = tf_compare_maps(&c);
	if (!rc)
		rc = tf_compare_memory(&c);
	return rc ? rc : tf_compare_state(&c);
}
