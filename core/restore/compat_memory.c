/* SPDX-License-Identifier: MIT */
/* What memory asks of the destination besides room: locks, strict accounting, huge pages,
 * protection keys. See compat.c. */
#include "core/restore/build.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>

typedef unsigned long long ull;

struct check {
	const struct tf_image *img;
	const struct tf_facts *f;
	struct tf_err *e;
	unsigned reasons;
};

static void reason(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void reason(struct check *c, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	tf_fail_more(c->e, TELEFORK_E_INCOMPATIBLE, "%s", text);
	c->reasons++;
}

static void check_locks(struct check *c)
{
	const struct tf_image *img = c->img;
	uint64_t locked = 0;

	for (uint32_t i = 0; i < img->n_maps; i++)
		if (img->maps[i].vmflags & TF_VMF_LOCKED)
			locked += img->maps[i].data_end - img->maps[i].start;
	if (locked > c->f->lock_limit || (img->mm.locks && !c->f->lock_limit))
		reason(c,
			"locked memory: the process has locked %llu bytes%s, RLIMIT_MEMLOCK here is "
			"%llu: ulimit -l, or run the receiver with CAP_IPC_LOCK",
			(ull)locked, img->mm.locks ? " and all that is to come" : "",
			(ull)c->f->lock_limit);
}

/* What the kernel has to be able to provide: all that is private and can be written. */
static void check_commit(struct check *c)
{
	const struct tf_image *img = c->img;
	uint64_t need = 0;

	for (uint32_t i = 0; i < img->n_maps; i++) {
		struct tf_range r = tf_restore_map_range(img, i);
		bool filled = img->maps[i].kind != TF_MAP_VVAR;

		if (filled && !(img->maps[i].here && !(img->maps[i].prot & PROT_WRITE)))
			need += r.end - r.start;
	}
	if (need > c->f->commit_free)
		reason(c,
			"overcommit: the process needs %llu bytes, vm.overcommit_memory here is 2 and "
			"%llu are left: raise vm.overcommit_ratio, add swap, or set it to 0",
			(ull)need, (ull)c->f->commit_free);
}

static uint64_t huge_free(const struct tf_facts *f, uint64_t size)
{
	for (unsigned i = 0; i < TF_FACT_HUGE_MAX && f->huge[i].size; i++)
		if (f->huge[i].size == size)
			return f->huge[i].free;
	return 0;
}

static void check_huge(struct check *c)
{
	for (unsigned shift = 13; shift < 40; shift++) {
		uint64_t size = UINT64_C(1) << shift, pages = 0;

		for (uint32_t i = 0; i < c->img->n_maps; i++)
			if (c->img->maps[i].huge == shift)
				pages += (c->img->maps[i].end - c->img->maps[i].start) >> shift;
		if (pages > huge_free(c->f, size))
			reason(c,
				"huge pages: the process has %llu of %llu KiB, %llu are free here: "
				"raise vm.nr_hugepages",
				(ull)pages, (ull)size >> 10, (ull)huge_free(c->f, size));
	}
}

static void check_keys(struct check *c)
{
	bool keys = c->img->mm.keys & ~1u;

	for (uint32_t i = 0; i < c->img->n_maps; i++)
		keys |= c->img->maps[i].key != 0;
	if (keys && !(c->f->flags & TF_FACT_KEYS))
		reason(c,
			"memory protection keys: the process has some, and none can be had here: a "
			"processor with pku, and a receiver without keys of its own");
}

unsigned tf_compat_memory(const struct tf_image *img, const struct tf_facts *f, struct tf_err *e)
{
	struct check c = {img, f, e, 0};

	check_locks(&c);
	check_commit(&c);
	check_huge(&c);
	check_keys(&c);
	return c.reasons;
}
