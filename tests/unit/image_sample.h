/* SPDX-License-Identifier: MIT */
/*
 * Synthetic images of both architectures, the same bytes on every host: what the image tests, the
 * golden files and the fuzzer's first inputs are made from. Header only; every value is invented.
 */
#ifndef TESTS_UNIT_IMAGE_SAMPLE_H
#define TESTS_UNIT_IMAGE_SAMPLE_H

#include <elf.h>
#include <string.h>
#include <sys/mman.h>

#include "core/image/image.h"

static inline void sample_u64(uint8_t *p, uint64_t v)
{
	for (unsigned i = 0; i < 8; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

/* A regset of recognisable bytes. */
static inline uint8_t *sample_set(
	struct tf_thread *t, struct tf_arena *a, uint32_t type, uint32_t size)
{
	struct tf_regset *set = tf_regs_add(&t->regs, a, type, size);

	for (uint32_t i = 0; i < size; i++)
		set->data[i] = (uint8_t)(i * 7 + type + (unsigned)t->tid);
	return set->data;
}

static inline void sample_regs_x86_64(
	struct tf_thread *t, struct tf_arena *a, uint64_t pc, uint64_t sp)
{
	uint8_t *gregs = sample_set(t, a, NT_PRSTATUS, 216), *xsave;
	const uint64_t mxcsr = 0xffff00001f80; /* and its mask */

	sample_u64(gregs + 16 * 8, pc);
	sample_u64(gregs + 19 * 8, sp);
	sample_u64(sample_set(t, a, NT_FPREGSET, 512) + 24, mxcsr);
	xsave = sample_set(t, a, NT_X86_XSTATE, 832);
	sample_u64(xsave + 24, mxcsr);
	sample_u64(xsave + 464, 7); /* xfeatures */
	memset(xsave + 512, 0, 64);
	sample_u64(xsave + 512, 7); /* XSTATE_BV */
}

static inline void sample_regs_aarch64(
	struct tf_thread *t, struct tf_arena *a, uint64_t pc, uint64_t sp)
{
	uint8_t *gregs = sample_set(t, a, NT_PRSTATUS, 272), *sve;

	sample_u64(gregs + 31 * 8, sp);
	sample_u64(gregs + 32 * 8, pc);
	sample_u64(gregs + 33 * 8, 0x60000000);
	memset(sample_set(t, a, NT_FPREGSET, 528) + 520, 0, 8);
	sve = sample_set(t, a, NT_ARM_SVE, 1136); /* vectors of 32 bytes */
	sample_u64(sve, 1136 | (uint64_t)1136 << 32);
	sample_u64(sve + 8, 32 | 32 << 16 | (uint64_t)1 << 32);
	sample_set(t, a, NT_ARM_TLS, 8);
}

static inline void sample_thread(
	struct tf_image *img, struct tf_arena *a, uint32_t i, uint64_t pc, uint64_t sp)
{
	struct tf_thread *t = &img->threads[i];

	*t = (struct tf_thread){
		.tid = img->source.pid + (int32_t)(i ? i + 6 : 0),
		.sigmask = 0x4002,
		.altstack = {.sp = 0x7f0000100000, .size = 8192, .flags = 0},
		.robust_head = 0x7f00000fe9a0,
		.robust_len = 24,
		.tid_addr = 0x7f00000fe990,
		.rseq = {.addr = 0x7f00000ff060, .len = 32, .sig = 0x53053053},
		.comm = "sample",
	};
	if (img->source.machine == EM_X86_64)
		sample_regs_x86_64(t, a, pc, sp);
	else
		sample_regs_aarch64(t, a, pc, sp);
}

static inline void sample_cpu(struct tf_image *img)
{
	img->cpu.n_words = 3;
	for (unsigned i = 0; i < 3; i++)
		img->cpu.features[i] = 0x1111 << i;
	if (img->source.machine == EM_X86_64) {
		img->cpu.xcr0 = 7;
		img->cpu.xsave_size = 832;
		img->cpu.xcomp[0].size = 160;
		img->cpu.xcomp[1].offset = 160;
		img->cpu.xcomp[1].size = 256;
		img->cpu.xcomp[2].offset = 576;
		img->cpu.xcomp[2].size = 256;
	} else {
		img->cpu.vl = 32;
		img->cpu.vl_mask = 3;
	}
}

static inline void sample_source(struct tf_image *img, uint32_t machine, uint32_t page)
{
	img->source = (struct tf_source){
		.machine = machine,
		.flags = machine == EM_AARCH64 ? TF_SOURCE_EMULATED : 0,
		.origin = TF_ORIGIN_CALL,
		.page_size = page,
		.max_map_end = 0x7f0000400000,
		.pid = 4711,
		.ppid = 4700,
		.realtime_ns = UINT64_C(1735689600123456789),
		.monotonic_ns = 12345678901234,
		.boottime_ns = 22345678901234,
		.mailbox = 0x430100,
		.stack_limit = 8 << 20,
		.channel_fd = 5,
		.umask = 022,
		.generation = 3,
		.release = "6.1.0-sample",
		.exe = "/usr/bin/sample",
		.cwd = "/tmp",
		.version = "0.1.0",
	};
	img->mm = (struct tf_mm){0x410000, 0x41ffff, 0x430000, 0x43f000, 0x440000, 0x450000,
		0x7f00001ff000, 0x7f00001ff100, 0x7f00001ff200, 0x7f00001ff300, 0x7f00001ff400,
		TF_LOCK_FUTURE, 0x1};
}

/* Six mappings on pages of at most 64 KiB; the image has runs in four of them. */
static inline void sample_maps(struct tf_image *img, struct tf_arena *a)
{
	static const struct tf_map maps[] = {
		{0x410000, 0x420000, 0x420000, PROT_READ | PROT_EXEC, 0, TF_MAP_FILE, 0, 0x10000,
			0xfe01, 1234, "/usr/bin/sample", 0, 0, 0, 0, false, false, 0},
		{0x430000, 0x440000, 0x430000, PROT_READ | PROT_WRITE, TF_MAP_SHARED, TF_MAP_FILE,
			TF_VMF_DONTDUMP, 0, 0xfe01, 1235, "/var/lib/shared data", 0, 0, 0, 0, false,
			false, 0},
		{0x440000, 0x480000, 0x480000, PROT_READ | PROT_WRITE, 0, TF_MAP_HEAP, 0, 0, 0, 0,
			"", 0, 0, 0, 0, false, false, 0},
		{0x7f0000000000, 0x7f0000200000, 0x7f0000200000, PROT_READ | PROT_WRITE, 0,
			TF_MAP_STACK, TF_VMF_GROWSDOWN, 0, 0, 0, "", 0, 0, 0, 0, false, false, 0},
		{0x7f0000200000, 0x7f0000210000, 0x7f0000210000, PROT_READ, 0, TF_MAP_VVAR, 0, 0, 0,
			0, "", 0, 0, 0, 0, false, false, 0},
		{0x7f0000210000, 0x7f0000220000, 0x7f0000220000, PROT_READ | PROT_EXEC, 0,
			TF_MAP_VDSO, 0, 0, 0, 0, "", 0, 0, 0, 0, false, false, 0},
	};

	img->n_maps = sizeof(maps) / sizeof(maps[0]);
	img->maps = tf_arena_dup(a, maps, sizeof(maps));
}

static inline void sample_tables(struct tf_image *img, struct tf_arena *a)
{
	static const struct tf_fd fds[] = {
		{0, TF_FD_TTY, 2, -1, 0, 0, "/dev/pts/3", 0, 0, 0},
		{1, TF_FD_FILE, 0x8001, -1, 4096, 8192, "/tmp/out", 0, 0, 0},
		{7, TF_FD_PIPE, 0x80000, -1, 0, 0, "pipe:[12345]", 0, 0, 0},
	};
	static const struct tf_object objects[] = {
		{TF_OBJECT_MEMFD, TF_OBJECT_DELETED, 0640, 1000, 1001, 0xe, 0, 0, 0x12345,
			"/memfd:sample", 0, 0, 0},
		{TF_OBJECT_SYSV, 0, 0600, 1000, UINT32_MAX - 1, 0, 0x7e1e, 42, 0x3000,
			"/SYSV00007e1e", 0, 0, 0},
	};
	static const struct tf_symbol symbols[] = {
		{0x7f0000210100, 64, "__vdso_clock_gettime"},
		{0x7f0000210200, 16, "__vdso_getcpu"},
	};
	static const struct tf_edit edits[] = {
		{0x420000, 0x430000, TF_EDIT_UNMAP, 0, 0, 0},
		{0x440000, 0x450000, TF_EDIT_PROTECT, PROT_READ, 0, 0},
		{0x500000, 0x510000, TF_EDIT_MAP, PROT_READ | PROT_WRITE, TF_MAP_SHARED,
			TF_VMF_NORESERVE},
	};
	static const struct tf_pending pending[] = {
		{0, 15, {15, 0, 0x3e800001267}},
		{4711, 34, {34, UINT64_C(0xffffffff), 0x3e800001267, 0x1234}},
	};
	static const struct tf_signature signatures[] = {
		{TF_SIGN_MEMORY, 0, 0x7f00001ff808, 0x410444, 0x7f00001ff820},
		{TF_SIGN_MEMORY, 1, 0x7f00001ff828, 0x410484, 0x7f00001ff840},
		{TF_SIGN_LINK, 0, 0, 0x410404, 0x7f00001ff800},
	};
	static const struct tf_tags tags[] = {
		{0x440000, {UINT64_C(0x0123456789abcdef), 1}},
		{0x44f000, {[TF_TAGS_WORDS - 1] = UINT64_C(0xf000000000000000)}},
	};
	static const struct tf_known known[] = {
		{0, 0x89abcdef, 0x12345, {0xb1, 0x1d, [19] = 0x20}}};
	static const uint64_t auxv[] = {AT_PAGESZ, 4096, AT_ENTRY, 0x410400, AT_NULL, 0};

	img->vdso = (struct tf_vdso){
		.base = 0x7f0000210000,
		.size = 0x10000,
		.vvar_base = 0x7f0000200000,
		.vvar_size = 0x10000,
		.digest = UINT64_C(0x0123456789abcdef),
		.n_symbols = 2,
		.symbols = tf_arena_dup(a, symbols, sizeof(symbols)),
	};
	img->n_objects = 2;
	img->objects = tf_arena_dup(a, objects, sizeof(objects));
	img->n_fds = 3;
	img->fds = tf_arena_dup(a, fds, sizeof(fds));
	img->n_edits = 3;
	img->edits = tf_arena_dup(a, edits, sizeof(edits));
	img->n_pending = 2;
	img->pending = tf_arena_dup(a, pending, sizeof(pending));
	img->n_known = 1;
	img->known = tf_arena_dup(a, known, sizeof(known));
	img->n_auxv = 3;
	img->auxv = tf_arena_dup(a, auxv, sizeof(auxv));
	if (img->source.machine == EM_AARCH64) {
		img->maps[2].vmflags = TF_VMF_MTE;
		img->n_tags = sizeof(tags) / sizeof(tags[0]);
		img->tags = tf_arena_dup(a, tags, sizeof(tags));
		img->n_signatures = sizeof(signatures) / sizeof(signatures[0]);
		img->signatures = tf_arena_dup(a, signatures, sizeof(signatures));
	}
	img->n_sigactions = TF_SIGNALS;
	img->sigactions = tf_arena_array(a, TF_SIGNALS, sizeof(*img->sigactions));
	img->sigactions[9] = (struct tf_sigaction){0x410500, 0x14000004, 0x410600, 0x200};
	img->sigactions[12].handler = 1;
}

/* What the kernel keeps: two sets of credentials, a chain of two filters, two timers. */
static inline void sample_kept(struct tf_image *img, struct tf_arena *a, uint32_t n_threads)
{
	static const uint32_t groups[] = {5, 100000, 77};
	static const struct tf_rights rights[] = {
		{{1000, 1001, 1002, 1003}, {10, 11, 12, 13}, 0, 0, 2,
			{1, 0x2001, 1, 0x3fffffff, 1}},
		{{0}, {0}, 0x10, 2, 1, {0, 0x3fffffff, 0x3fffffff, 0x3fffffff, 0}},
	};
	static const uint64_t code[] = {0x20, UINT64_C(0x7fff000000000006), 6};
	static const struct tf_filter filters[] = {{0, 0, 0, 2}, {0, 2, 2, 1}};
	static const struct tf_wait waits[] = {{0, 86399000000000}};
	static const struct tf_timer timers[] = {
		{2, 1, TF_TIMER_SIGNAL, 34, 4711, 0x7f0000001000, 1500000000, 1000000},
		{4, 7, TF_TIMER_NONE, 0, 0, 0, 0, 0},
	};

	img->process = (struct tf_process){
		.flags = TF_PROCESS_KNOWN | TF_PROCESS_ASKED | TF_PROCESS_NO_THP,
		.dumpable = 1,
		.oom_score_adj = 200,
		.n_cpus = 4,
		.itimers = {2500000000, 1000000000, 0, 0, 1, 0},
		.boot = "01234567-89ab-cdef-0123-456789abcdef",
	};
	for (unsigned i = 0; i < 2 * TF_LIMITS; i++)
		img->process.limits[i] = 1000 + i;
	img->n_groups = 3;
	img->groups = tf_arena_dup(a, groups, sizeof(groups));
	img->n_rights = 2;
	img->rights = tf_arena_dup(a, rights, sizeof(rights));
	img->n_code = 3;
	img->code = tf_arena_dup(a, code, sizeof(code));
	img->n_filters = 2;
	img->filters = tf_arena_dup(a, filters, sizeof(filters));
	img->n_timers = 2;
	img->timers = tf_arena_dup(a, timers, sizeof(timers));
	img->n_waits = 1;
	img->waits = tf_arena_dup(a, waits, sizeof(waits));
	img->n_attributes = n_threads;
	img->attributes = tf_arena_array(a, n_threads, sizeof(*img->attributes));
	for (uint32_t i = 0; i < n_threads; i++)
		img->attributes[i] = (struct tf_attributes){
			.flags = TF_ATTR_ASKED | TF_ATTR_SLACK | TF_ATTR_NO_NEW,
			.policy = i ? 1 : 3,
			.priority = i ? 7 : 0,
			.nice = -5,
			.sched_flags = 1,
			.ioprio = 0x4006,
			.personality = 0x40000,
			.pdeathsig = 12,
			.slack = 60000,
			.rights = i ? 1 : 0,
			.chain = i ? TF_NO_CHAIN : 0,
			.cpus = {5},
		};
}

/* A complete image without a head: tf_image_encode() makes one. 0 or what make_segments said. */
static inline int sample_image(struct tf_image *img, struct tf_arena *a, uint32_t machine,
	uint32_t page, uint32_t n_threads)
{
	static const struct tf_run runs[] = {
		{0x410000, 0x420000},
		{0x450000, 0x460000},
		{0x7f0000000000, 0x7f0000010000},
		{0x7f00001f0000, 0x7f0000200000},
		{0x7f0000210000, 0x7f0000220000},
	};

	*img = (struct tf_image){0};
	sample_source(img, machine, page);
	sample_cpu(img);
	sample_maps(img, a);
	sample_tables(img, a);
	sample_kept(img, a, n_threads);
	img->n_threads = n_threads;
	img->threads = tf_arena_array(a, n_threads, sizeof(*img->threads));
	for (uint32_t i = 0; i < n_threads; i++)
		sample_thread(img, a, i, 0x410400 + 16 * i, 0x7f00001ff800);
	return tf_image_make_segments(img, a, runs, sizeof(runs) / sizeof(runs[0]), 0x40000);
}

#endif
