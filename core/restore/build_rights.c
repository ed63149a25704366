/* SPDX-License-Identifier: MIT */
/*
 * Credentials and system call filters in a plan. Ids change before files are opened, so that those
 * are opened with the program's own rights; some capabilities that open nothing stay until
 * everything that needs them is done, and go with the last steps:
 *
 *   first thread   ids, groups, bounding set ... files, threads, limits | BARRIER | filters, drop
 *   another        its own, if they are others                 | ARRIVE | filters, drop
 *
 * Filters are set while the receiver traces and has suspended them (landing.c): the restorer's own
 * calls are not for the program's filters to judge.
 */
#include "core/restore/build_impl.h"
#include "core/restore/files.h"

#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>

#define BIT(cap) (UINT64_C(1) << (cap))

/* None of them opens a file that others may not. */
#define STAY                                                                                 \
	(BIT(CAP_SETPCAP) | BIT(CAP_SYS_ADMIN) | BIT(CAP_SYS_NICE) | BIT(CAP_SYS_RESOURCE) | \
		BIT(CAP_CHECKPOINT_RESTORE) | BIT(CAP_WAKE_ALARM))

/* --- credentials --- */

static bool has_groups(const struct tf_build *b, const struct tf_rights *r)
{
	return r->n_groups == TF_OWN_GROUPS ||
	       (r->n_groups == b->f->rights.n_groups &&
		       !memcmp(b->img->groups + r->group, b->f->groups,
			       r->n_groups * sizeof(*b->f->groups)));
}

/* As the receiver's. */
static bool equal(const struct tf_build *b, const struct tf_rights *r)
{
	const struct tf_rights *here = &b->f->rights;

	return !memcmp(r->uid, here->uid, sizeof(r->uid)) &&
	       !memcmp(r->gid, here->gid, sizeof(r->gid)) &&
	       !memcmp(r->caps, here->caps, sizeof(r->caps)) && r->securebits == here->securebits &&
	       has_groups(b, r);
}

static const struct tf_rights *rights_of(const struct tf_build *b, uint32_t thread)
{
	return &b->img->rights[b->img->attributes[thread].rights];
}

static void plan_capset(struct tf_build *b, const char *comment, uint64_t p, uint64_t e, uint64_t i)
{
	const struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	const struct __user_cap_data_struct sets[2] = {
		{(uint32_t)e, (uint32_t)p, (uint32_t)i},
		{(uint32_t)(e >> 32), (uint32_t)(p >> 32), (uint32_t)(i >> 32)},
	};

	tf_build_call(b, comment, SYS_capset, tf_build_data(b, &head, sizeof(head), 8, NULL),
		tf_build_data(b, sets, sizeof(sets), 8, NULL), 0, 0);
}

static void plan_drop(struct tf_build *b, uint64_t caps)
{
	for (uint64_t i = 0; i < 64; i++)
		if (caps >> i & 1)
			tf_build_call(b, "bounding set", SYS_prctl, PR_CAPBSET_DROP, i, 0, 0);
}

static void plan_ids(struct tf_build *b, const struct tf_rights *r, uint32_t thread)
{
	/* Those that it has anyone may keep. */
	if (r->n_groups != TF_OWN_GROUPS && (thread || !has_groups(b, r)))
		tf_build_call(b, "groups", SYS_setgroups, r->n_groups,
			tf_build_data(b, b->img->groups + r->group,
				r->n_groups * sizeof(*b->img->groups), 8, NULL),
			0, 0);
	tf_build_call(b, "gid", SYS_setresgid, r->gid[0], r->gid[1], r->gid[2], 0);
	tf_build_call(b, "uid", SYS_setresuid, r->uid[0], r->uid[1], r->uid[2], 0);
}

static void plan_ambient(struct tf_build *b, uint64_t caps)
{
	tf_build_call(b, "ambient set", SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0);
	for (uint64_t i = 0; i < 64; i++)
		if (caps >> i & 1)
			tf_build_call(b, "ambient set", SYS_prctl, PR_CAP_AMBIENT,
				PR_CAP_AMBIENT_RAISE, i, 0);
}

/* Without capabilities only what is less, or a change among its own ids, succeeds: fit.c has seen
 * to that. */
static void plan_rights(struct tf_build *b, uint32_t thread)
{
	const struct tf_rights *r = rights_of(b, thread), *here = &b->f->rights;
	uint64_t all = b->all_p | b->stay, now = thread ? all : here->caps[TF_CAP_P];
	uint64_t i = r->caps[TF_CAP_I];

	plan_capset(b, "inheritable set", now, now, i);
	/* Others inherit from the first, which drops the rest of its own at its end. */
	plan_drop(b, thread ? b->all_b & ~r->caps[TF_CAP_B] : here->caps[TF_CAP_B] & ~b->all_b);
	/* Capabilities survive the change of uid, but for the effective ones. */
	tf_build_call(b, "keep capabilities", SYS_prctl, PR_SET_KEEPCAPS, 1, 0, 0);
	plan_ids(b, r, thread);
	plan_capset(b, "capabilities", all, all, i);
	tf_build_call(b, "file system gid", SYS_setfsgid, r->gid[3], 0, 0, 0)->expect =
		TF_EXPECT_ANY; /* the one before */
	tf_build_call(b, "file system uid", SYS_setfsuid, r->uid[3], 0, 0, 0)->expect =
		TF_EXPECT_ANY;
	plan_ambient(b, r->caps[TF_CAP_A]);
	if (r->securebits != here->securebits)
		tf_build_call(b, "securebits", SYS_prctl, PR_SET_SECUREBITS, r->securebits, 0, 0);
	else
		tf_build_call(b, "keep capabilities", SYS_prctl, PR_SET_KEEPCAPS,
			r->securebits >> SECURE_KEEP_CAPS & 1, 0, 0);
	plan_capset(b, "capabilities while files are opened", all, r->caps[TF_CAP_E] | b->stay, i);
	/* Whoever changes his ids loses it; meanwhile a receiver's end ends the barrier. */
	if (!thread)
		tf_build_call(b, "not to outlive the receiver", SYS_prctl, PR_SET_PDEATHSIG,
			SIGKILL, 0, 0);
}

void tf_build_rights(struct tf_build *b, uint32_t thread)
{
	if (b->new_rights && thread < b->img->n_attributes &&
		(!thread || rights_of(b, thread) != rights_of(b, 0)))
		plan_rights(b, thread);
}

/* --- files --- */

static void plan_file_groups(struct tf_build *b, const uint32_t *groups, uint32_t n)
{
	tf_build_call(b, "files: groups", SYS_setgroups, n,
		tf_build_data(b, groups, n * sizeof(*groups), 8, NULL), 0, 0);
}

void tf_build_files_as(struct tf_build *b, bool program)
{
	const struct tf_rights *here = &b->f->rights, *own, *r;
	uint64_t e = here->caps[TF_CAP_E];

	if (!tf_files_other(b->img, b->f))
		return;
	own = rights_of(b, 0);
	r = program ? own : here;
	if (program && !has_groups(b, own))
		plan_file_groups(b, b->img->groups + own->group, own->n_groups);
	tf_build_call(b, "files: gid", SYS_setfsgid, r->gid[3], 0, 0, 0)->expect = TF_EXPECT_ANY;
	tf_build_call(b, "files: uid", SYS_setfsuid, r->uid[3], 0, 0, 0)->expect = TF_EXPECT_ANY;
	plan_capset(b, program ? "files: as the program may" : "files: as the receiver may",
		here->caps[TF_CAP_P], program ? e & (~TF_FILE_CAPS | own->caps[TF_CAP_E]) : e,
		here->caps[TF_CAP_I]);
	if (!program && !has_groups(b, own))
		plan_file_groups(b, b->f->groups, here->n_groups);
	/* Both are lost with a change of ids. */
	tf_build_call(b, "files: dumpable", SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0);
	tf_build_call(b, "files: not to outlive the receiver", SYS_prctl, PR_SET_PDEATHSIG, SIGKILL,
		0, 0);
}

/* --- filters --- */

/* The filters of a chain: they stand together, and chains ascend. */
static uint32_t chain_of(const struct tf_image *img, uint32_t chain, uint32_t *ret_first)
{
	uint32_t low = 0, high = img->n_filters, n = 0;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (img->filters[middle].chain < chain)
			low = middle + 1;
		else
			high = middle;
	}
	while (low + n < img->n_filters && img->filters[low + n].chain == chain)
		n++;
	*ret_first = low;
	return n;
}

/* struct sock_fprog of every filter, once for all threads. */
static void plan_programs(struct tf_build *b)
{
	const struct tf_image *img = b->img;
	struct sock_fprog *prog;
	uint64_t code = tf_build_data(b, img->code, img->n_code * UINT64_C(8), 8, NULL);

	b->programs = tf_build_data(b, NULL, img->n_filters * sizeof(*prog), 8, &prog);
	for (uint32_t i = 0; i < img->n_filters && !b->r->plan.full; i++)
		prog[i] = (struct sock_fprog){.len = (unsigned short)img->filters[i].n_code,
			.filter =
				(struct sock_filter *)(code + img->filters[i].code * UINT64_C(8))};
}

void tf_build_last_rights(struct tf_build *b, uint32_t thread)
{
	const struct tf_image *img = b->img;
	const struct tf_attributes *a = &img->attributes[thread];
	const struct tf_rights *r;
	uint32_t first, n;

	if (thread >= img->n_attributes)
		return;
	if (!thread && img->n_filters)
		plan_programs(b);
	n = chain_of(img, a->chain, &first);
	for (uint32_t i = first; i < first + n; i++)
		tf_build_call(b, "seccomp filter", SYS_seccomp, SECCOMP_SET_MODE_FILTER,
			img->filters[i].flags & SECCOMP_FILTER_FLAG_LOG,
			b->programs + i * sizeof(struct sock_fprog), 0);
	r = rights_of(b, thread);
	if (b->new_rights && !thread)
		plan_drop(b, b->all_b & ~r->caps[TF_CAP_B]);
	if (b->new_rights)
		plan_capset(
			b, "capabilities", r->caps[TF_CAP_P], r->caps[TF_CAP_E], r->caps[TF_CAP_I]);
}

/* --- beforehand --- */

/* What concerns all threads together. */
static void look_at_all(struct tf_build *b)
{
	bool several = false;

	for (uint32_t i = 0; i < b->img->n_attributes; i++) {
		const struct tf_rights *r = rights_of(b, i);

		b->new_rights |= !equal(b, r);
		b->all_p |= r->caps[TF_CAP_P];
		b->all_b |= r->caps[TF_CAP_B];
		several |= r != rights_of(b, 0);
	}
	b->stay = STAY & b->f->rights.caps[TF_CAP_P];
	if (several)
		b->stay |= (BIT(CAP_SETUID) | BIT(CAP_SETGID)) & b->f->rights.caps[TF_CAP_P];
}

uint64_t tf_build_rights_steps(struct tf_build *b, uint64_t *data)
{
	const struct tf_image *img = b->img;
	uint64_t n = 64;

	look_at_all(b);
	*data += img->n_code * UINT64_C(8) + img->n_filters * sizeof(struct sock_fprog) + 64;
	if (tf_files_other(img, b->f)) { /* there and back, twice */
		n += 24;
		*data += 512 + 8 * ((uint64_t)img->n_groups + b->f->rights.n_groups);
	}
	for (uint32_t i = 0; i < img->n_attributes; i++) {
		const struct tf_rights *r = rights_of(b, i);
		uint32_t first;

		n += 2 + chain_of(img, img->attributes[i].chain, &first);
		*data += 64;
		if (i && r == rights_of(b, 0))
			continue;
		n += 80 + (uint64_t)__builtin_popcountll(r->caps[TF_CAP_A]);
		*data += 256 + 4 * (uint64_t)(r->n_groups == TF_OWN_GROUPS ? 0 : r->n_groups);
	}
	return n;
}
