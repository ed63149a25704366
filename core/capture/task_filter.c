/* SPDX-License-Identifier: MIT */
/*
 * System call filters of a stopped process: read out, and asked beforehand what they would say to a
 * call of ours. While we trace, filters are suspended (PTRACE_O_SUSPEND_SECCOMP); should we die in
 * the middle of a call, the thread makes it under its filters, and no such call may be its end.
 */
#include "core/capture/task_impl.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>

#include "arch/arch.h"

#ifndef PTRACE_SECCOMP_GET_METADATA
#define PTRACE_SECCOMP_GET_METADATA 0x420d /* linux/ptrace.h, Linux 4.16 */
#endif

struct metadata {
	uint64_t filter_off, flags;
};

/* --- reading --- */

static int add_filter(struct tf_task *t, pid_t tid, uint32_t chain, uint32_t number, uint32_t n)
{
	struct tf_image *img = &t->capture.image;
	struct tf_arena *a = &t->capture.arena;
	struct tf_filter *filters = tf_arena_array(a, img->n_filters + 1, sizeof(*filters));
	uint64_t *code = tf_arena_array(a, img->n_code + n, sizeof(*code));
	struct metadata meta = {.filter_off = number};

	if (!filters || !code)
		return TELEFORK_E_NOMEM;
	if (img->n_filters == TF_MAX_FILTERS || n > TF_MAX_CODE - img->n_code)
		return tf_fail(&t->capture.err, TELEFORK_E_LIMIT, "too many seccomp filters");
	if (img->n_filters) {
		memcpy(filters, img->filters, img->n_filters * sizeof(*filters));
		memcpy(code, img->code, img->n_code * sizeof(*code));
	}
	if (ptrace(PTRACE_SECCOMP_GET_FILTER, tid, number, code + img->n_code) != (long)n)
		return tf_fail_errno(&t->capture.err, TELEFORK_E_SYSTEM, errno,
			"seccomp filter %u of thread %d", number, (int)tid);
	ptrace(PTRACE_SECCOMP_GET_METADATA, tid, sizeof(meta), &meta);
	filters[img->n_filters++] = (struct tf_filter){chain, (uint32_t)meta.flags, img->n_code, n};
	img->filters = filters;
	img->code = code;
	img->n_code += n;
	return 0;
}

static bool same_filter(
	const struct tf_image *img, const struct tf_filter *a, const struct tf_filter *b)
{
	return a->flags == b->flags && a->n_code == b->n_code &&
	       !memcmp(img->code + a->code, img->code + b->code, a->n_code * sizeof(*img->code));
}

/* The last n filters are the chain's; an equal one that was there before takes their place. */
static uint32_t merge(struct tf_image *img, uint32_t n)
{
	struct tf_filter *last = img->filters + img->n_filters - n;
	uint32_t equal = 0;

	for (uint32_t i = 0; img->filters + i < last; i++) {
		equal = i && img->filters[i].chain != img->filters[i - 1].chain ? 0 : equal;
		if (equal < n && same_filter(img, &img->filters[i], &last[equal]))
			equal++;
		else
			equal = n + 1; /* until the next chain */
		if (equal == n && img->filters[i + 1].chain != img->filters[i].chain) {
			img->n_filters -= n;
			img->n_code = last->code;
			return img->filters[i].chain;
		}
	}
	return last->chain;
}

int tf_task_filters(struct tf_task *t, pid_t tid, struct tf_attributes *at)
{
	struct tf_image *img = &t->capture.image;
	uint32_t chain = img->n_filters ? img->filters[img->n_filters - 1].chain + 1 : 0, n = 0;
	long size;
	int rc = 0;

	if (ptrace(PTRACE_SETOPTIONS, tid, NULL, (void *)(PTRACE_O_TRACESYSGOOD | TF_TASK_SUSPEND)))
		return tf_fail_errno(&t->capture.err, TELEFORK_E_UNSUPPORTED, errno,
			"seccomp: thread %d has filters, which only root may read, who has none "
			"himself",
			(int)tid);
	while (!rc && (size = ptrace(PTRACE_SECCOMP_GET_FILTER, tid, n, NULL)) > 0)
		rc = add_filter(t, tid, chain, n++, (uint32_t)size);
	if (!rc && !n)
		rc = tf_fail_errno(&t->capture.err, TELEFORK_E_UNSUPPORTED, errno,
			"seccomp: the filters of thread %d", (int)tid);
	if (!rc)
		at->chain = merge(img, n);
	return rc;
}

/* --- asking --- */

static uint32_t alu(uint32_t op, uint32_t a, uint32_t x)
{
	switch (op) {
	case BPF_ADD:
		return a + x;
	case BPF_SUB:
		return a - x;
	case BPF_MUL:
		return a * x;
	case BPF_DIV:
		return x ? a / x : 0;
	case BPF_MOD:
		return x ? a % x : 0;
	case BPF_AND:
		return a & x;
	case BPF_OR:
		return a | x;
	case BPF_XOR:
		return a ^ x;
	case BPF_LSH:
		return x < 32 ? a << x : 0;
	case BPF_RSH:
		return x < 32 ? a >> x : 0;
	default:
		return -a; /* BPF_NEG */
	}
}

static bool jumps(uint32_t op, uint32_t a, uint32_t x)
{
	switch (op) {
	case BPF_JEQ:
		return a == x;
	case BPF_JGT:
		return a > x;
	case BPF_JGE:
		return a >= x;
	default:
		return a & x; /* BPF_JSET */
	}
}

/* What a filter that the kernel has accepted says; whatever it would not accept kills. */
uint32_t tf_filter_run(const uint64_t *code, uint32_t n, const struct seccomp_data *data)
{
	uint32_t a = 0, x = 0, mem[BPF_MEMWORDS] = {0}, word;

	for (uint32_t i = 0; i < n; i++) {
		struct sock_filter f;
		uint32_t with;

		memcpy(&f, &code[i], sizeof(f));
		with = BPF_SRC(f.code) == BPF_X ? x : f.k;
		switch (BPF_CLASS(f.code)) {
		case BPF_LD:
		case BPF_LDX:
			if (BPF_MODE(f.code) == BPF_ABS && f.k % 4 == 0 && f.k < sizeof(*data))
				memcpy(&word, (const char *)data + f.k, sizeof(word));
			else if (BPF_MODE(f.code) == BPF_MEM && f.k < BPF_MEMWORDS)
				word = mem[f.k];
			else
				word = BPF_MODE(f.code) == BPF_LEN ? sizeof(*data) : f.k;
			*(BPF_CLASS(f.code) == BPF_LD ? &a : &x) = word;
			break;
		case BPF_ST:
		case BPF_STX:
			if (f.k >= BPF_MEMWORDS)
				return SECCOMP_RET_KILL_PROCESS;
			mem[f.k] = BPF_CLASS(f.code) == BPF_ST ? a : x;
			break;
		case BPF_ALU:
			a = alu(BPF_OP(f.code), a, with);
			break;
		case BPF_JMP:
			i += BPF_OP(f.code) == BPF_JA         ? f.k
			     : jumps(BPF_OP(f.code), a, with) ? f.jt
							      : f.jf;
			break;
		case BPF_RET:
			return BPF_RVAL(f.code) == BPF_A ? a : f.k;
		default: /* BPF_MISC */
			if (BPF_MISCOP(f.code) == BPF_TAX)
				x = a;
			else
				a = x;
		}
	}
	return SECCOMP_RET_KILL_PROCESS;
}

/* An error is no harm: the frame behind the call makes it as it was. */
static bool is_harmless(uint32_t verdict)
{
	switch (verdict & SECCOMP_RET_ACTION_FULL) {
	case SECCOMP_RET_ALLOW:
	case SECCOMP_RET_LOG:
	case SECCOMP_RET_ERRNO:
	case SECCOMP_RET_TRACE: /* there is no other tracer */
		return true;
	default:
		return false;
	}
}

int tf_task_check_call(
	struct tf_task *t, uint32_t thread, uint64_t pc, long nr, const uint64_t arg[6])
{
	const struct tf_image *img = &t->capture.image;
	const struct tf_attributes *at = &img->attributes[thread];
	struct seccomp_data data = {.nr = (int)nr,
		.arch = tf_arch_native()->machine | __AUDIT_ARCH_64BIT | __AUDIT_ARCH_LE,
		.instruction_pointer = pc};
	bool good = true;

	memcpy(data.args, arg, sizeof(data.args));
	for (uint32_t i = 0; i < img->n_filters && good; i++)
		if (img->filters[i].chain == at->chain)
			good = is_harmless(tf_filter_run(
				img->code + img->filters[i].code, img->filters[i].n_code, &data));
	return good ? 0
		    : tf_fail(&t->capture.err, TELEFORK_E_UNSUPPORTED,
			      "seccomp: a filter of thread %d ends it for system call %ld, so it "
			      "cannot be asked without risk",
			      (int)img->threads[thread].tid, nr);
}
