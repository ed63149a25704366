/* SPDX-License-Identifier: MIT */
/*
 * mutate: damages exactly one thing in an image, with correct checksums, as if capture or transit
 * had lost it. What notices nothing when that image is restored has a hole.
 *
 *   mutate --list IMAGE        names of all mutants that this image can have, one a line
 *   mutate IN OUT NAME         writes the damaged image
 *
 * Names: CLASS.register.DAMAGE, process.THING, and map.PLACE.DAMAGE where PLACE is the number of
 * the mapping; of a capture from outside also thread.N.THING, pending.DAMAGE and fd.N.DAMAGE.
 * Registers are damaged through the register table alone: the byte of a regset that shows in a
 * register is searched, so no layout is known here.
 */
#include "core/base/io.h"
#include "core/image/file.h"
#include "core/image/notes.h"
#include "core/image/stream.h"

#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SPLIT_GAP (UINT64_C(256) << 20) /* as capture splits segments */
#define MAP_LEAST (64u << 10)           /* bytes of a mapping that is worth damaging */
#define PAGE(m)   ((m)->source.page_size)

static struct tf_file in = {.fd = -1};
static struct tf_image *img = &in.image;
static struct tf_err err;
static const struct tf_arch *arch;

/* Memory as it will be written: runs of the image, and where their bytes come from. */
static struct tf_run *runs;
static uint8_t **bytes;
static uint64_t n_runs;

static const char *wanted; /* NULL: list */
static bool done;

static void die(const char *what)
{
	fprintf(stderr, "mutate: %s: %s\n", what, err.text);
	exit(2);
}

/* Lists a mutant; true when it is the one to make. */
static bool chosen(const char *format, const char *a, const char *b, const char *c)
{
	char name[128];

	snprintf(name, sizeof(name), format, a, b, c);
	if (!wanted)
		printf("%s\n", name);
	else if (!strcmp(name, wanted) && !done)
		return done = true;
	return false;
}

/* --- registers --- */

struct value {
	const char *name; /* of the register that is looked for */
	uint8_t at[TF_REG_VALUE_MAX];
	uint32_t size;
};

static int take(void *ctx, const struct tf_reg *reg, const uint8_t *value)
{
	struct value *v = ctx;

	if (strcmp(v->name, reg->name))
		return 0;
	memcpy(v->at, value, reg->size);
	v->size = reg->size;
	return 1;
}

static struct value value_of(const char *name)
{
	struct value v = {.name = name};

	arch->each(&img->threads[0].regs, &img->cpu, take, &v);
	return v;
}

static int add_other(void *ctx, const struct tf_reg *reg, const uint8_t *value)
{
	struct value *sum = ctx;

	for (uint32_t i = 0; i < reg->size && strcmp(reg->name, sum->name); i++)
		sum->size = sum->size * 31 + value[i];
	return 0;
}

/* A digest of all registers but one. */
static uint32_t others(const char *name)
{
	struct value sum = {.name = name};

	arch->each(&img->threads[0].regs, &img->cpu, add_other, &sum);
	return sum.size;
}

/* Gives byte k of a register a value, by the one byte of a regset that shows there and nowhere
 * else. From the end: an XSAVE header, whose bits switch whole components, stands before those. */
static bool set_byte(const char *name, uint32_t k, uint8_t to)
{
	struct tf_regs *regs = &img->threads[0].regs;
	struct value v = value_of(name);
	uint8_t change = v.at[k] ^ to;
	uint32_t rest = others(name);

	v.at[k] = to;
	for (uint32_t s = regs->n; change && s-- > 0;)
		for (uint32_t i = regs->set[s].size; i-- > 0;) {
			struct value now;

			regs->set[s].data[i] ^= change;
			now = value_of(name);
			if (!memcmp(now.at, v.at, v.size) && others(name) == rest)
				return true;
			regs->set[s].data[i] ^= change;
		}
	return !change;
}

/* Some bit, from the middle on, that is set: a clear one may be reserved. */
static void flip(const char *name, const struct value *v)
{
	for (uint32_t i = 0; i < v->size * 8; i++) {
		uint32_t bit = (v->size * 4 + i) % (v->size * 8);

		if (v->at[bit / 8] >> bit % 8 & 1 &&
			set_byte(name, bit / 8, v->at[bit / 8] ^ (uint8_t)(1u << bit % 8)))
			return;
	}
}

static void set_value(const char *name, const uint8_t *to, uint32_t size)
{
	for (uint32_t k = 0; k < size; k++)
		set_byte(name, k, to[k]);
}

static void damage_register(const char *class, const char *name, const char *neighbour)
{
	struct value v = value_of(name), n = neighbour ? value_of(neighbour) : v, zero = {0};
	bool is_zero = !memcmp(v.at, zero.at, v.size);

	if (!is_zero && chosen("%s.%s.%s", class, name, "flip"))
		flip(name, &v);
	if (!is_zero && chosen("%s.%s.%s", class, name, "zero"))
		set_value(name, zero.at, v.size);
	if (v.size >= 32 && chosen("%s.%s.%s", class, name, "upper")) {
		memset(v.at + 16, 0, v.size - 16);
		set_value(name, v.at, v.size);
	}
	if (neighbour && v.size == n.size && memcmp(v.at, n.at, v.size) &&
		chosen("%s.%s.%s", class, name, "swap")) {
		set_value(name, n.at, n.size);
		set_value(neighbour, v.at, v.size);
	}
}

struct names {
	const char *of[TF_REG_CLASSES][256];
	unsigned n[TF_REG_CLASSES];
};

static int collect(void *ctx, const struct tf_reg *reg, const uint8_t *value)
{
	struct names *names = ctx;

	(void)value;
	names->of[reg->klass][names->n[reg->klass]++] = reg->name;
	return 0;
}

/* The first, a middle and the last register of each class. */
static void damage_registers(void)
{
	static struct names names;

	arch->each(&img->threads[0].regs, &img->cpu, collect, &names);
	for (unsigned c = 0; c < TF_REG_CLASSES; c++) {
		unsigned n = names.n[c], step = n > 4 ? (n - 1) / 2 : 1;

		for (unsigned i = 0; i < n && c != TF_REG_SYSTEM; i += step)
			damage_register(tf_reg_class_name(c), names.of[c][i],
				n > 1 ? names.of[c][i + 1 < n ? i + 1 : i - 1] : NULL);
	}
}

/* --- the process --- */

static void damage_process(void)
{
	struct tf_thread *t = &img->threads[0];

	if (chosen("process.%s%s%s", "mask", "", ""))
		t->sigmask ^= 1u << 9;
	if (t->altstack.size && chosen("process.%s%s%s", "altstack", "", ""))
		t->altstack.size -= 64;
	if (t->altstack.size && chosen("process.%s%s%s", "altstack-missing", "", ""))
		t->altstack = (struct tf_altstack){.flags = 2};
	if (t->tid_addr && chosen("process.%s%s%s", "tid-address", "", ""))
		t->tid_addr = 0;
	if (t->robust_head && chosen("process.%s%s%s", "robust-list", "", ""))
		t->robust_head += 8;
	if (chosen("process.%s%s%s", "comm", "", ""))
		t->comm[0] ^= 1;
	if (chosen("process.%s%s%s", "umask", "", ""))
		img->source.umask ^= 1;
	if (img->mm.start_brk && chosen("process.%s%s%s", "brk", "", ""))
		img->mm.brk += PAGE(&img[0]);
	for (uint32_t i = 0; i < img->n_sigactions; i++) {
		struct tf_sigaction *sa = &img->sigactions[i];

		if (sa->handler < 2 || i + 1 != 14 /* one that every probe can have: SIGALRM */)
			continue;
		if (chosen("process.%s%s%s", "sigaction-missing", "", ""))
			*sa = (struct tf_sigaction){0};
		if (chosen("process.%s%s%s", "sigaction-handler", "", ""))
			sa->handler += 16;
		if (chosen("process.%s%s%s", "sigaction-mask", "", ""))
			sa->mask ^= 2;
		if (chosen("process.%s%s%s", "sigaction-flags", "", ""))
			sa->flags ^= 0x10000000; /* SA_RESTART */
	}
}

/* --- what only a capture from outside takes along --- */

static void damage_thread(uint32_t i)
{
	struct tf_thread *t = &img->threads[i];
	char n[16];

	snprintf(n, sizeof(n), "%u", i);
	if (chosen("thread.%s.%s%s", n, "mask", ""))
		t->sigmask ^= 1u << 20;
	if (chosen("thread.%s.%s%s", n, "altstack", ""))
		t->altstack.size -= 64;
	if (chosen("thread.%s.%s%s", n, "altstack-missing", ""))
		t->altstack = (struct tf_altstack){.flags = 2};
	if (chosen("thread.%s.%s%s", n, "tid-address", ""))
		t->tid_addr = 0;
	if (chosen("thread.%s.%s%s", n, "tid-address-other", ""))
		t->tid_addr = img->threads[i ? 0 : 1].tid_addr;
	if (chosen("thread.%s.%s%s", n, "robust-list", ""))
		t->robust_head = 0;
	if (t->rseq.addr && chosen("thread.%s.%s%s", n, "rseq", ""))
		t->rseq = (struct tf_rseq){0};
	if (chosen("thread.%s.%s%s", n, "comm", ""))
		t->comm[0] ^= 1;
}

static void damage_pending(void)
{
	struct tf_pending *p = img->pending, *last = p + img->n_pending - 1, keep;
	siginfo_t info;

	if (img->n_pending < 2)
		return;
	if (chosen("pending.%s%s%s", "first-missing", "", ""))
		memmove(p, p + 1, --img->n_pending * sizeof(*p));
	if (chosen("pending.%s%s%s", "last-missing", "", ""))
		img->n_pending--;
	if (chosen("pending.%s%s%s", "order", "", "")) {
		keep = p[0];
		p[0] = p[1];
		p[1] = keep;
	}
	memcpy(&info, last->info, sizeof(info));
	info.si_value.sival_int ^= 1;
	if (chosen("pending.%s%s%s", "value", "", ""))
		memcpy(last->info, &info, sizeof(info));
	memcpy(&info, p->info, sizeof(info));
	info.si_code = SI_USER;
	if (chosen("pending.%s%s%s", "code", "", ""))
		memcpy(p->info, &info, sizeof(info));
}

static void damage_fd(uint32_t i)
{
	struct tf_fd *f = &img->fds[i];
	char n[16];

	snprintf(n, sizeof(n), "%d", (int)f->fd);
	if (f->fd < 3)
		return;
	if (!(f->flags & O_APPEND) && chosen("fd.%s.%s%s", n, "position", ""))
		f->offset++;
	if (chosen("fd.%s.%s%s", n, "cloexec", ""))
		f->flags ^= O_CLOEXEC;
	if (chosen("fd.%s.%s%s", n, "mode", ""))
		f->flags ^= O_WRONLY;
	if (f->flags & O_APPEND && chosen("fd.%s.%s%s", n, "append", ""))
		f->flags ^= O_APPEND;
	if (chosen("fd.%s.%s%s", n, "number", ""))
		f->fd += 20;
	if (chosen("fd.%s.%s%s", n, "missing", "")) {
		memmove(f, f + 1, (img->n_fds - i - 1) * sizeof(*f));
		img->n_fds--;
	}
}

static void damage_outside(void)
{
	if (img->source.origin != TF_ORIGIN_TASK)
		return;
	for (uint32_t i = 1; i < img->n_threads; i++)
		damage_thread(i);
	if (img->threads[0].rseq.addr && chosen("process.%s%s%s", "rseq", "", ""))
		img->threads[0].rseq = (struct tf_rseq){0};
	damage_pending();
	for (uint32_t i = 0; i < img->n_fds && !done; i++)
		damage_fd(i);
	if (chosen("process.%s%s%s", "cwd", "", ""))
		img->source.cwd = "/";
	if (img->sigactions[SIGWINCH - 1].handler == 1 &&
		chosen("process.%s%s%s", "ignored", "", ""))
		img->sigactions[SIGWINCH - 1].handler = 0;
	if (!img->sigactions[SIGHUP - 1].handler && chosen("process.%s%s%s", "not-ignored", "", ""))
		img->sigactions[SIGHUP - 1].handler = 1;
}

/* --- mappings --- */

static uint64_t runs_in(const struct tf_map *m, uint64_t *first)
{
	uint64_t n = 0;

	*first = 0;
	for (uint64_t i = 0; i < n_runs; i++)
		if (runs[i].start >= m->start && runs[i].end <= m->end && !n++)
			*first = i;
	return n;
}

/* The mapping, and its memory, stand by pages later. */
static void move_map(uint32_t i, int64_t by)
{
	struct tf_map *m = &img->maps[i];
	uint64_t first, n = runs_in(m, &first);

	for (uint64_t k = 0; k < n; k++) {
		runs[first + k].start += (uint64_t)by;
		runs[first + k].end += (uint64_t)by;
	}
	m->start += (uint64_t)by;
	m->end += (uint64_t)by;
	m->data_end += (uint64_t)by;
}

static void drop_runs(uint64_t first, uint64_t n)
{
	memmove(runs + first, runs + first + n, (n_runs - first - n) * sizeof(*runs));
	memmove(bytes + first, bytes + first + n, (n_runs - first - n) * sizeof(*bytes));
	n_runs -= n;
}

static void shorten_map(struct tf_map *m)
{
	uint64_t end = m->end - PAGE(img);

	for (uint64_t i = 0; i < n_runs; i++)
		if (runs[i].end > end && runs[i].start < m->end) {
			if (runs[i].start >= end)
				drop_runs(i--, 1);
			else
				runs[i].end = end;
		}
	m->end = m->data_end = end;
}

static void drop_map(uint32_t i)
{
	uint64_t first, n = runs_in(&img->maps[i], &first);

	if (n)
		drop_runs(first, n);
	memmove(img->maps + i, img->maps + i + 1, (img->n_maps - i - 1) * sizeof(*img->maps));
	img->n_maps--;
}

static void damage_pages(const char *place, struct tf_map *m)
{
	uint64_t first, n = runs_in(m, &first), page = PAGE(img);
	uint8_t *p, keep[65536];

	if (!n)
		return;
	p = bytes[first];
	if (chosen("map.%s.%s%s", place, "byte", ""))
		p[page / 2] ^= 0x10;
	if (chosen("map.%s.%s%s", place, "page-zero", ""))
		memset(p, 0, page);
	if (chosen("map.%s.%s%s", place, "page-absent", ""))
		drop_runs(first, 1);
	if (runs[first].end - runs[first].start >= 2 * page && memcmp(p, p + page, page) &&
		chosen("map.%s.%s%s", place, "page-swap", "")) {
		memcpy(keep, p, page);
		memcpy(p, p + page, page);
		memcpy(p + page, keep, page);
	}
}

static void damage_map(uint32_t i)
{
	struct tf_map *m = &img->maps[i];
	uint64_t page = PAGE(img), next = i + 1 < img->n_maps ? img->maps[i + 1].start : UINT64_MAX;
	char place[96];

	snprintf(place, sizeof(place), "%u", i);
	damage_pages(place, m);
	if (chosen("map.%s.%s%s", place, "protection", ""))
		m->prot ^= m->prot & PROT_WRITE ? PROT_WRITE : PROT_READ | PROT_WRITE;
	if (chosen("map.%s.%s%s", place, "shared", ""))
		m->flags ^= TF_MAP_SHARED;
	if (next - m->end >= page && chosen("map.%s.%s%s", place, "moved", ""))
		move_map(i, (int64_t)page);
	if (m->end - m->start > page && m->data_end == m->end &&
		chosen("map.%s.%s%s", place, "shortened", ""))
		shorten_map(m);
	if (m->vmflags & TF_VMF_DONTFORK && chosen("map.%s.%s%s", place, "dontfork", ""))
		m->vmflags &= ~TF_VMF_DONTFORK;
	if (m->vmflags & TF_VMF_WIPEONFORK && chosen("map.%s.%s%s", place, "wipeonfork", ""))
		m->vmflags &= ~TF_VMF_WIPEONFORK;
	if (m->vmflags & TF_VMF_HUGEPAGE && chosen("map.%s.%s%s", place, "hugepage", ""))
		m->vmflags &= ~TF_VMF_HUGEPAGE;
	if (m->vmflags & TF_VMF_NOHUGEPAGE && chosen("map.%s.%s%s", place, "nohugepage", ""))
		m->vmflags &= ~TF_VMF_NOHUGEPAGE;
	if (m->vmflags & TF_VMF_SEQ && chosen("map.%s.%s%s", place, "sequential", ""))
		m->vmflags &= ~TF_VMF_SEQ;
	if (m->vmflags & TF_VMF_RAND && chosen("map.%s.%s%s", place, "random", ""))
		m->vmflags &= ~TF_VMF_RAND;
	if (m->vmflags & TF_VMF_DONTDUMP && chosen("map.%s.%s%s", place, "dontdump", ""))
		m->vmflags &= ~TF_VMF_DONTDUMP;
	if (chosen("map.%s.%s%s", place, "missing", ""))
		drop_map(i);
}

static uint64_t data_of(const struct tf_map *m)
{
	uint64_t first, size = 0, n = runs_in(m, &first);

	for (uint64_t i = first; i < first + n; i++)
		size += runs[i].end - runs[i].start;
	return size;
}

/* Mappings with equal attributes are of one sort. */
static bool same_sort(const struct tf_map *a, const struct tf_map *b)
{
	return a->kind == b->kind && a->prot == b->prot && a->flags == b->flags &&
	       a->vmflags == b->vmflags;
}

/* What the program asked for itself: not the pages of files, nor stack and vDSO, whose mappings
 * differ from machine to machine. Of each sort the one with most in it. */
static void damage_maps(void)
{
	for (uint32_t i = 0; i < img->n_maps && !done; i++) {
		const struct tf_map *m = &img->maps[i];
		bool best = m->kind == TF_MAP_ANON && data_of(m) >= MAP_LEAST;

		for (uint32_t k = 0; k < img->n_maps && best; k++)
			best = k == i || !same_sort(m, &img->maps[k]) ||
			       data_of(&img->maps[k]) < data_of(m) ||
			       (data_of(&img->maps[k]) == data_of(m) && k > i);
		if (best)
			damage_map(i);
	}
}

/* --- what the kernel keeps --- */

/* As if that had not been noted: zero, or for a name nothing. */
static void forget(const struct tf_field *f, uint8_t *item, unsigned i)
{
	bool wide = f->type == TF_FIELD_U64 || f->type == TF_FIELD_HEX64 ||
		    f->type == TF_FIELD_ADDR || f->type == TF_FIELD_TIME;

	if (wide)
		memset(item + f->offset + 8 * i, 0, 8);
	else
		memset(item + f->offset + 4 * i, 0, 4);
}

static void damage_field(const struct tf_kind *k, uint32_t i, const struct tf_field *f)
{
	uint8_t *item = (uint8_t *)(uintptr_t)tf_kind_item(k, img, i);
	char place[64], element[64];

	for (unsigned n = 0; n < f->count; n++) {
		if (tf_field_string(f, item) || !tf_field_number(f, item, n))
			continue;
		snprintf(place, sizeof(place), "%s.%u", k->name, i);
		snprintf(element, sizeof(element), "%s.%u", f->name, n);
		if (chosen("kept.%s.%s%s", place, element, ""))
			forget(f, item, n);
	}
}

/* Each number of these records that is not zero; kept.KIND.N.FIELD[I] */
static void damage_kept(void)
{
	static const char *const kinds[] = {
		"process", "rights", "attributes", "timer", "group", "filter"};

	for (size_t n = 0; n < sizeof(kinds) / sizeof(*kinds); n++) {
		const struct tf_kind *k = tf_kinds;

		while (strcmp(k->name, kinds[n]) != 0)
			k++;
		for (uint32_t i = 0; i < tf_kind_count(k, img); i++)
			for (uint32_t f = 0; f < k->n_fields; f++)
				damage_field(k, i, &k->fields[f]);
	}
}

/* --- files --- */

/* The image's memory, by the extents of its table. */
static void read_memory(void)
{
	struct tf_table_header header;
	struct tf_extent *table;

	if (tf_table_read(in.fd, img, &in.arena, &header, &table, &err))
		die("table");
	runs = calloc(header.count + 1, sizeof(*runs));
	bytes = calloc(header.count + 1, sizeof(*bytes));
	for (uint32_t i = 0; runs && bytes && i < header.count; i++) {
		uint64_t start = tf_image_address(img, table[i].offset, NULL);

		if (table[i].offset < img->head_size || start == UINT64_MAX)
			continue;
		runs[n_runs] = (struct tf_run){start, start + table[i].size};
		bytes[n_runs] = malloc(table[i].size);
		if (!bytes[n_runs] ||
			tf_io_pread(in.fd, bytes[n_runs], table[i].size, table[i].offset, &err))
			die("memory");
		n_runs++;
	}
}

static void write_image(const char *path)
{
	static struct tf_sink sink;
	struct tf_io io;
	uint64_t memory = 0;
	uint8_t *head;
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	for (uint64_t i = 0; i < n_runs; i++)
		memory += runs[i].end - runs[i].start;
	if (fd < 0)
		die(path);
	tf_io_init(&io, fd, NULL);
	if (tf_image_make_segments(img, &in.arena, runs, n_runs, SPLIT_GAP) ||
		tf_image_encode(img, &in.arena, &head))
		die("the damaged image cannot be encoded");
	if (tf_sink_begin(&sink, &io, true, img, memory, 0, (uint32_t)(n_runs * 2 + 1024),
		    &in.arena, &err) ||
		tf_sink_data(&sink, 0, head, img->head_size, NULL, &err))
		die(path);
	for (uint64_t i = 0; i < n_runs; i++)
		if (tf_sink_data(&sink, tf_image_offset(img, runs[i].start), bytes[i],
			    runs[i].end - runs[i].start, NULL, &err))
			die(path);
	if (tf_sink_end(&sink, img, &err))
		die(path);
	close(fd);
}

int main(int argc, char **argv)
{
	bool list = argc == 3 && !strcmp(argv[1], "--list");

	if (!list && argc != 4) {
		fprintf(stderr, "usage: mutate --list IMAGE | mutate IN OUT NAME\n");
		return 64;
	}
	wanted = list ? NULL : argv[3];
	if (tf_file_open(&in, argv[list ? 2 : 1], &err))
		die("image");
	arch = tf_arch_by_machine(img->source.machine);
	read_memory();
	damage_registers();
	damage_process();
	damage_outside();
	damage_maps();
	damage_kept();
	if (list)
		return 0;
	if (!done) {
		fprintf(stderr, "mutate: %s: no such mutant\n", wanted);
		return 64;
	}
	write_image(argv[2]);
	return 0;
}
