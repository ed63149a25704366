/* SPDX-License-Identifier: MIT */
/*
 * The x86_64 processor: which features this process's C library uses and the machine offers, the
 * layout of its XSAVE area, whether a program can live here, whether CRC32C has an instruction.
 * Runs in a forked child: CPUID, XGETBV and reading memory only.
 */
#include "arch/arch.h"
#include "arch/x86_64/layout.h"

#include <cpuid.h>
#include <elf.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

/* glibc 2.33 has an interface to the features that its own code selection looks at. A strong
 * reference: a weak one would stay NULL in a static program. Elsewhere CPUID has to do. */
#if __has_include(<sys/platform/x86.h>)
#include <sys/platform/x86.h>
#define HAVE_FEATURE_LEAF 1
#else
#define HAVE_FEATURE_LEAF 0
#endif

#define N_LEAVES       10
#define WORD_1_ECX     2
#define WORD_7_EBX     5
#define BIT_OSXSAVE    27
#define BIT_AVX        28
#define BIT_AVX512F    16
#define BIT_CRC32      20     /* SSE4.2 */
#define XCOMP_GET_SUPP 0x1021 /* arch_prctl, Linux 5.16 */
#define XCOMP_GET_PERM 0x1022

const struct tf_arch *tf_arch_native(void)
{
	return &tf_arch_x86_64;
}

static uint64_t xgetbv0(void)
{
	uint32_t lo, hi;

	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return (uint64_t)hi << 32 | lo;
}

/* XCR0, without AMX tile data where this process may not use it: the kernel then leaves it out of
 * signal frames, and no processor fault tells. */
static uint64_t enabled_components(bool in_use)
{
	uint64_t allowed = 0;
	uint64_t xcr0 = xgetbv0() & 0xffffffff;

	if (!(xcr0 & XC_BIT(XC_TILEDATA)))
		return xcr0;
	if (syscall(SYS_arch_prctl, in_use ? XCOMP_GET_PERM : XCOMP_GET_SUPP, &allowed) ||
		!(allowed & XC_BIT(XC_TILEDATA)))
		xcr0 &= ~XC_BIT(XC_TILEDATA);
	return xcr0;
}

static void fill_xsave(struct tf_cpu *cpu, bool in_use)
{
	uint32_t a, b, c, d;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << BIT_OSXSAVE))
		return;
	cpu->xcr0 = enabled_components(in_use);
	cpu->xsave_size = XS_MIN_SIZE;
	for (unsigned i = XC_AVX; i < TF_XCOMPONENTS; i++) {
		if (!(cpu->xcr0 & XC_BIT(i)))
			continue;
		__cpuid_count(0xd, i, a, b, c, d);
		cpu->xcomp[i].size = a;
		cpu->xcomp[i].offset = b;
		if (a + b > cpu->xsave_size)
			cpu->xsave_size = a + b;
	}
}

/* The processor's own word, in the order of glibc's leaves. In a virtual machine each question is a
 * trip to the host: which leaves there are is asked once. */
static void cpuid_words(uint64_t *words)
{
	static const struct {
		uint32_t leaf, sub;
	} leaves[N_LEAVES] = {{1, 0}, {7, 0}, {0x80000001, 0}, {0xd, 1}, {0x80000007, 0},
		{0x80000008, 0}, {7, 1}, {0x19, 0}, {0x14, 0}, {0x24, 0}};
	uint32_t last = __get_cpuid_max(0, NULL), last_extended = __get_cpuid_max(1u << 31, NULL);

	for (unsigned i = 0; i < N_LEAVES; i++) {
		uint32_t leaf = leaves[i].leaf, r[4] = {0};

		if (leaf <= (leaf >> 31 ? last_extended : last))
			__cpuid_count(leaf, leaves[i].sub, r[0], r[1], r[2], r[3]);
		for (unsigned j = 0; j < 4; j++)
			words[i * 4 + j] = r[j];
	}
}

static void active_words(uint64_t *words)
{
#if HAVE_FEATURE_LEAF
	for (unsigned i = 0; i < N_LEAVES; i++) {
		const struct cpuid_feature *f = __x86_get_cpuid_feature_leaf(i);

		for (unsigned j = 0; f && j < 4; j++)
			words[i * 4 + j] = f->active_array[j];
	}
#else
	cpuid_words(words);
#endif
}

static bool has_prefix(const char *s, const char *prefix)
{
	return !strncmp(s, prefix, strlen(prefix));
}

/* Whether a feature's instructions are encoded with VEX or EVEX: unusable without AVX. */
static bool needs_avx(const char *name)
{
	static const char *const names[] = {"AVX", "FMA", "F16C", "VAES", "VPCLMULQDQ", "XOP"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (has_prefix(name, names[i]))
			return true;
	return false;
}

/* Whether "-name" (name may itself be a list) stands in GLIBC_TUNABLES=…glibc.cpu.hwcaps=…: glibc
 * knows few names and ignores the others; here it is the user's word that the program does not use
 * that feature. */
static bool turned_off(const char *hwcaps, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = hwcaps; p && *p && *p != ':'; p++) {
		if (*p != '-' || (p > hwcaps && p[-1] != ',' && p[-1] != '='))
			continue;
		if (!strncmp(p + 1, name, n) && (!p[n + 1] || p[n + 1] == ',' || p[n + 1] == ':'))
			return true;
	}
	return false;
}

static bool feature_off(const char *hwcaps, const char *name)
{
	for (size_t i = 0; i < tf_arch_x86_64.n_features; i++)
		if (!strcmp(tf_arch_x86_64.features[i].name, name))
			return turned_off(hwcaps, tf_arch_x86_64.features[i].tunable);
	return false;
}

/* The value of the tunable if this is the variable that has it. */
static const char *hwcaps_in(const char *variable)
{
	static const char name[] = "GLIBC_TUNABLES=", tunable[] = "glibc.cpu.hwcaps=";
	const char *p = has_prefix(variable, name) ? strstr(variable, tunable) : NULL;

	return p ? p + sizeof(tunable) - 1 : NULL;
}

static const char *own_hwcaps(void)
{
	const char *found = NULL;

	for (char **env = environ; env && *env && !found; env++)
		found = hwcaps_in(*env);
	return found;
}

/* Only what ends in a zero is a variable. */
static const char *hwcaps_of(const char *env, size_t size)
{
	const char *found = NULL, *end;

	for (; !found && (end = memchr(env, '\0', size)); env = end + 1) {
		found = hwcaps_in(env);
		size -= (size_t)(end - env) + 1;
	}
	return found;
}

/* Leaves only features that have a name and can be used: not those whose enabling bit is clear. */
static void mask_features(struct tf_cpu *cpu, const char *hwcaps)
{
	const uint64_t *w = cpu->features;
	bool avx =
		w[WORD_1_ECX] >> BIT_AVX & 1 && (cpu->xcr0 & 6) == 6 && !feature_off(hwcaps, "AVX");
	bool avx512 = avx && w[WORD_7_EBX] >> BIT_AVX512F & 1 &&
		      (cpu->xcr0 & XC_AVX512) == XC_AVX512 && !feature_off(hwcaps, "AVX512F");
	bool amx = cpu->xcr0 & XC_BIT(XC_TILEDATA);
	uint64_t keep[TF_FEATURE_WORDS] = {0};

	for (size_t i = 0; i < tf_arch_x86_64.n_features; i++) {
		const struct tf_feature *f = &tf_arch_x86_64.features[i];

		if ((!avx && needs_avx(f->name)) || (!avx512 && has_prefix(f->name, "AVX512")) ||
			(!amx && has_prefix(f->name, "AMX")) || turned_off(hwcaps, f->tunable))
			continue;
		keep[f->word] |= UINT64_C(1) << f->bit;
	}
	for (unsigned i = 0; i < TF_FEATURE_WORDS; i++)
		cpu->features[i] &= keep[i];
}

void tf_arch_cpu(struct tf_cpu *cpu, bool in_use)
{
	memset(cpu, 0, sizeof(*cpu));
	cpu->n_words = N_LEAVES * 4;
	fill_xsave(cpu, in_use);
	if (in_use)
		active_words(cpu->features);
	else
		cpuid_words(cpu->features);
	mask_features(cpu, in_use ? own_hwcaps() : NULL);
}

/* --- another program's --- */

/* glibc's cpu_features.features: for each leaf of N_LEAVES (older ones lack the last) what CPUID
 * said, and what of it is active, four words each. */
#define NOTED_LEAVES (TF_CPU_NOTED / 32)
#define EDX_ALWAYS   0x07808111u /* FPU, TSC, CX8, CMOV, MMX, FXSR, SSE, SSE2: every x86_64 */
#define EAX_RESERVED 0xf000c000u /* of the processor's signature */
#define BIT_LM       29

static uint32_t noted_word(const uint8_t *at, unsigned leaf, bool active, unsigned word)
{
	return x86_get32(at + leaf * 32 + active * 16 + word * 4);
}

static bool is_noted(const uint8_t *at)
{
	uint32_t signature = noted_word(at, 0, false, 0);

	if ((noted_word(at, 0, false, 3) & EDX_ALWAYS) != EDX_ALWAYS || !signature ||
		signature & EAX_RESERVED || !(noted_word(at, 2, false, 3) >> BIT_LM & 1) ||
		noted_word(at, 0, true, 0) || noted_word(at, 0, true, 1) ||
		!noted_word(at, 0, true, 3))
		return false;
	for (unsigned leaf = 0; leaf < NOTED_LEAVES; leaf++)
		for (unsigned word = 0; word < 4; word++)
			if (noted_word(at, leaf, true, word) & ~noted_word(at, leaf, false, word))
				return false;
	return true;
}

size_t tf_arch_cpu_noted(const uint8_t *data, size_t n)
{
	for (size_t at = 0; at + TF_CPU_NOTED <= n; at += 4)
		if (is_noted(data + at))
			return at;
	return n;
}

void tf_arch_cpu_of(struct tf_cpu *cpu, const struct tf_cpu *here, const struct tf_cpu_clues *clues)
{
	memcpy(cpu->features, here->features, sizeof(cpu->features));
	for (unsigned leaf = 0; leaf < NOTED_LEAVES && clues->noted; leaf++)
		for (unsigned word = 0; word < 4; word++)
			cpu->features[leaf * 4 + word] = noted_word(clues->noted, leaf, true, word);
	mask_features(cpu, hwcaps_of(clues->env, clues->env_size));
}

/* A component lost is a reason only where a thread has something in it. */
static unsigned compat_components(
	const struct tf_image *img, const struct tf_cpu *dst, struct tf_err *e)
{
	const struct tf_cpu *src = &img->cpu;
	unsigned n = 0;

	for (unsigned i = XC_AVX; i < TF_XCOMPONENTS; i++) {
		if (dst->xcr0 & XC_BIT(i))
			continue;
		for (uint32_t t = 0; t < img->n_threads; t++) {
			const struct tf_regset *xs =
				tf_regs_find(&img->threads[t].regs, NT_X86_XSTATE);
			const uint8_t *p = xs && xs->size >= XS_MIN_SIZE
						   ? x86_component(xs->data, xs->size, src, i)
						   : NULL;

			if (!p || x86_all_zero(p, src->xcomp[i].size) ||
				(i == XC_PKRU && x86_get32(p) == X86_PKRU_LINUX))
				continue;
			tf_fail_more(e, TELEFORK_E_INCOMPATIBLE,
				"thread %d has %s registers in use, the processor has none",
				img->threads[t].tid, x86_component_name(i));
			n++;
			break;
		}
	}
	return n;
}

static bool is_xsavec(const struct tf_feature *f)
{
	return !strcmp(f->name, "XSAVEC");
}

/* Bytes that glibc's _dl_runtime_resolve saves with XSAVEC (compacted) or XSAVE (standard) of this
 * processor: the state components 1, 2, 3, 5, 6, 7 (glibc: STATE_SAVE_MASK). */
static uint32_t resolver_bytes(const struct tf_cpu *cpu, bool compact)
{
	static const uint8_t saved[] = {XC_AVX, XC_BNDREGS, XC_OPMASK, XC_ZMM_HI256, XC_HI16_ZMM};
	uint32_t bytes = XS_MIN_SIZE;

	for (size_t i = 0; i < sizeof(saved); i++) {
		uint32_t size = cpu->xcomp[saved[i]].size;
		uint32_t end = cpu->xcomp[saved[i]].offset + size;

		if (!(cpu->xcr0 & XC_BIT(saved[i])))
			continue;
		if (compact)
			bytes += size;
		else if (end > bytes)
			bytes = end;
	}
	return bytes;
}

/* glibc measured its lazy binding's save area once, at the source. With XSAVEC the area is compact;
 * a program that was told not to use it has room for the whole standard format. */
static unsigned compat_resolver(
	const struct tf_cpu *src, const struct tf_cpu *dst, bool *ret_hide_xsavec, struct tf_err *e)
{
	bool compact = false;
	uint32_t room, need;

	for (size_t i = 0; i < tf_arch_x86_64.n_features; i++)
		if (is_xsavec(&tf_arch_x86_64.features[i]))
			compact = tf_cpu_has(src, &tf_arch_x86_64.features[i]);
	room = compact ? resolver_bytes(src, true) : src->xsave_size;
	need = resolver_bytes(dst, compact);
	if (!src->xcr0 || need <= room)
		return 0;
	*ret_hide_xsavec = compact && resolver_bytes(dst, false) <= src->xsave_size;
	tf_fail_more(e, TELEFORK_E_INCOMPATIBLE,
		"the C library has room for %u bytes of XSAVE state when it binds a symbol, the "
		"processor writes %u%s",
		room, need,
		*ret_hide_xsavec ? ""
				 : "; start the program on a machine with the same components");
	return 1;
}

/* Texts separated by commas, as many as fit. */
struct list {
	char text[768];
	size_t used;
	unsigned n;
};

static void list_add(struct list *l, const char *comma, const char *prefix, const char *text)
{
	if (l->used < sizeof(l->text))
		l->used += (size_t)snprintf(l->text + l->used, sizeof(l->text) - l->used, "%s%s%s",
			l->n ? comma : "", prefix, text);
	l->n++;
}

/* hide_xsavec: the program has to be told not to use it although the processor has it. */
static unsigned compat_features(
	const struct tf_cpu *src, const struct tf_cpu *dst, bool hide_xsavec, struct tf_err *e)
{
	const struct tf_baseline *baseline = tf_baseline_within(&tf_arch_x86_64, dst);
	struct list names = {.n = 0}, off = {.n = 0};

	for (size_t i = 0; i < tf_arch_x86_64.n_features; i++) {
		const struct tf_feature *f = &tf_arch_x86_64.features[i];
		bool lacks = !f->hint && tf_cpu_has(src, f) && !tf_cpu_has(dst, f);

		if (lacks)
			list_add(&names, ", ", "", f->name);
		if (lacks || (hide_xsavec && is_xsavec(f)))
			list_add(&off, ",", "-", f->tunable);
	}
	if (names.n)
		tf_fail_more(e, TELEFORK_E_INCOMPATIBLE, "the processor lacks %s", names.text);
	if (off.n)
		tf_fail_more(e, TELEFORK_E_INCOMPATIBLE,
			"start the program with telefork run --baseline %s -- PROGRAM, or with "
			"GLIBC_TUNABLES=glibc.cpu.hwcaps=%s",
			baseline ? baseline->name : "x86-64", off.text);
	return names.n;
}

unsigned tf_arch_compat(const struct tf_image *img, const struct tf_cpu *dst, struct tf_err *e)
{
	bool hide_xsavec = false;
	unsigned n = compat_components(img, dst, e);

	n += compat_resolver(&img->cpu, dst, &hide_xsavec, e);
	return n + compat_features(&img->cpu, dst, hide_xsavec, e);
}

bool tf_arch_has_crc32c(void)
{
	uint32_t a, b, c, d;

	__cpuid(1, a, b, c, d); /* every x86_64 processor has this leaf */
	return c & 1u << BIT_CRC32;
}
