/* SPDX-License-Identifier: MIT */
/*
 * Destinations on paper: facts for the architecture that this build runs on, under a kernel and
 * under QEMU user mode, and the sample image made to fit them. What plans are tested and fuzzed
 * with.
 */
#ifndef TESTS_UNIT_PLAN_SAMPLE_H
#define TESTS_UNIT_PLAN_SAMPLE_H

#include <stdio.h>

#include "arch/arch.h"
#include "core/restore/build.h"
#include "tests/unit/image_sample.h"

/* A static receiver at a low address. */
#define SAMPLE_FACTS_MAPS                                              \
	"maps:\n"                                                      \
	"10000-e0000 r-xp 00000000 fe:01 42   /usr/bin/telefork-pad\n" \
	"ef000-f0000 rw-p 000df000 fe:01 42   /usr/bin/telefork-pad\n" \
	"f0000-112000 rw-p 00000000 00:00 0   [heap]\n"                \
	"7ffff7f00000-7ffff7f80000 rw-p 00000000 00:00 0 \n"           \
	"7ffff7fa0000-7ffff7fb0000 r--p 00000000 00:00 0    [vvar]\n"  \
	"7ffff7fb0000-7ffff7fc0000 r-xp 00000000 00:00 0    [vdso]\n"  \
	"7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0    [stack]\n"

/* Another kernel's vDSO; rseq, and every mm field can be set. */
static const char sample_facts_native[] =
	"# a kernel\n"
	"page_size 4096\nflags 14\nmin_addr 65536\nmax_addr 0x7ffffffff000\n"
	"max_map_count 65530\nmemory_free 0x40000000\naddress_limit 0xffffffffffffffff\n"
	"fd_limit 1024\nthreads_free 100000\npending_free 100000\nbrk 0x112000\nauxv_size 400\n"
	"rseq.addr 0x7ffff7f00060\nrseq.len 32\nrseq.sig 0x53053053\n"
	"vdso.base 0x7ffff7fb0000\nvdso.size 0x10000\n"
	"vdso.vvar_base 0x7ffff7fa0000\nvdso.vvar_size 0x10000\n"
	"vdso.digest 0x1111111111111111\n" SAMPLE_FACTS_MAPS;

/* No rseq, no brk, a vDSO without data, and two pages that have to stay. */
static const char sample_facts_emulated[] =
	"# QEMU user mode\n"
	"page_size 4096\nflags 1\nmin_addr 65536\nmax_addr 0x7ffffffff000\n"
	"max_map_count 65530\nmemory_free 0x40000000\naddress_limit 0xffffffffffffffff\n"
	"fd_limit 1024\nthreads_free 100000\npending_free 100000\nbrk 0x112000\nauxv_size 400\n"
	"keep 0x7ffff7f10000\nkeep 0x7ffff7f11000\n"
	"vdso.base 0x7ffff7fb0000\nvdso.size 0x10000\n"
	"maps:\n"
	"10000-e0000 r-xp 00000000 fe:01 42   /usr/bin/telefork-pad\n"
	"ef000-f0000 rw-p 000df000 fe:01 42   /usr/bin/telefork-pad\n"
	"f0000-112000 rw-p 00000000 00:00 0   [heap]\n"
	"7ffff7f00000-7ffff7f80000 rw-p 00000000 00:00 0 \n"
	"7ffff7fb0000-7ffff7fc0000 r-xp 00000000 00:00 0    [vdso]\n"
	"7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0    [stack]\n";

static inline bool sample_is_x86_64(void)
{
	return tf_arch_native()->machine == EM_X86_64;
}

/* Names of this architecture's vDSO; the last is never to be touched. */
static inline const char *sample_vdso_name(unsigned i)
{
	static const char *const names[2][4] = {
		{"__vdso_clock_gettime", "__vdso_getcpu", "__vdso_strange", "__vdso_rt_sigreturn"},
		{"__kernel_clock_gettime", "__kernel_clock_getres", "__kernel_strange",
			"__kernel_rt_sigreturn"},
	};

	return names[!sample_is_x86_64()][i];
}

/* Loads facts; of the destination's vDSO only clock_gettime is known. 0 or the parser's code. */
static inline int sample_facts(
	struct tf_facts *f, struct tf_arena *a, const char *text, struct tf_err *e)
{
	int rc = tf_facts_parse(f, a, text, e);
	struct tf_image img = {0};

	if (rc)
		return rc;
	f->machine = img.source.machine = tf_arch_native()->machine;
	sample_cpu(&img);
	f->cpu = img.cpu;
	memset(f->cpu.features, 0xff, sizeof(f->cpu.features));
	f->cpu.n_words = TF_FEATURE_WORDS;
	f->vdso.symbols = tf_arena_array(a, 1, sizeof(*f->vdso.symbols));
	f->vdso.n_symbols = 1;
	f->vdso.symbols[0] = (struct tf_symbol){f->vdso.base + 0x500, 64, sample_vdso_name(0)};
	return 0;
}

/* The sample image as a native program of one thread, with this architecture's vDSO names. */
static inline int sample_program(struct tf_image *img, struct tf_arena *a)
{
	int rc = sample_image(img, a, tf_arch_native()->machine, 4096, 1);
	struct tf_symbol *symbols = tf_arena_array(a, 4, sizeof(*symbols));

	for (unsigned i = 0; i < 4; i++)
		symbols[i] = (struct tf_symbol){
			img->vdso.base + 0x100 * (i + 1), 32, sample_vdso_name(i)};
	img->vdso.n_symbols = 4;
	img->vdso.symbols = symbols;
	img->source.flags = 0;
	img->source.channel_fd = 9;
	img->source.mailbox = 0x440100;
	return rc;
}

#endif
