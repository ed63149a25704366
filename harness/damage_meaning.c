/* SPDX-License-Identifier: MIT */
/*
 * Which fields of which records mean something: a fault in one that nobody reads is none. Here is
 * all that the tables of the code do not tell.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "harness/damage.h"

#define IS(a, b) (!strcmp((a), (b)))

/* open(2): those that have the same number on every architecture, and stay with a descriptor. */
#define FD_BITS                                                                          \
	(UINT64_C(03) | 02000 /* append */ | 04000 /* nonblock */ | 010000 /* dsync */ | \
		04000000 /* sync */ | 01000000 /* noatime */ | 02000000 /* cloexec */)
#define FD_PATH       010000000u
#define FD_NO_OFFSET  (02000u /* append */ | FD_PATH)
#define ALTSTACK_BITS (UINT64_C(2) /* disable */ | 0x80000000u /* autodisarm */)
#define SIGNAL_BITS   (UINT64_C(0x7ffbfeff)) /* not KILL and STOP, and what the C library keeps */
#define LIBRARY_FROM  32                     /* signals of the C library, and above */

uint64_t tf_damage_bits(const struct tf_kind *k, const struct tf_field *f)
{
	if (IS(k->name, "fd") && IS(f->name, "flags"))
		return FD_BITS;
	if (IS(k->name, "code")) /* what is compared or loaded or answered, not where to jump */
		return UINT64_C(0xff) << 32;
	if (IS(f->name, "altstack.flags"))
		return ALTSTACK_BITS;
	if (IS(k->name, "sigaction") &&
		IS(f->name, "flags")) /* nodefer, restart, onstack, siginfo */
		return UINT64_C(0x58000004);
	return f->type == TF_FIELD_SIGSET ? SIGNAL_BITS : UINT64_MAX;
}

/* Frames of the program itself are returned from; of others there may be only remains. */
static bool signature_means(const struct tf_image *img, const struct tf_signature *s)
{
	const struct tf_map *m = tf_image_map_at(img, s->value);

	return m && m->prot & PROT_EXEC && IS(m->path, img->source.exe);
}

/* Standard streams are the receiver's; two actions cannot be set, others are the C library's, which
 * an emulator keeps for itself. */
bool tf_damage_record_means(const struct tf_image *img, const struct tf_kind *k, uint32_t i)
{
	if (IS(k->name, "fd"))
		return img->fds[i].fd > 2;
	if (IS(k->name, "signature"))
		return signature_means(img, &img->signatures[i]);
	if (!IS(k->name, "sigaction"))
		return true;
	return i + 1 != SIGKILL && i + 1 != SIGSTOP &&
	       (i + 1 < LIBRARY_FROM || img->source.origin == TF_ORIGIN_TASK);
}

static bool object_means(const struct tf_object *o, const char *field)
{
	if (IS(field, "kind")) /* both are files without a name, in the folder where it was */
		return o->kind != TF_OBJECT_FILE || !(o->flags & TF_OBJECT_DELETED);
	if (IS(field, "key") && o->flags & TF_OBJECT_DELETED)
		return false;
	if (IS(field, "key") || IS(field, "id"))
		return o->kind == TF_OBJECT_SYSV;
	if (IS(field, "uid") || IS(field, "gid"))
		return o->kind == TF_OBJECT_SYSV || o->kind == TF_OBJECT_SHM;
	if (IS(field, "path"))
		return o->kind != TF_OBJECT_SYSV && !(o->flags & TF_OBJECT_DELETED);
	if (IS(field, "mode") ||
		IS(field, "size")) /* a file with a name is the one that is there */
		return o->kind != TF_OBJECT_FILE || o->flags & TF_OBJECT_DELETED;
	return true;
}

/* A duplicate has everything of the other descriptor; what leads to an object has its name. */
static bool fd_means(const struct tf_fd *fd, const char *field)
{
	if (IS(field, "fd") || IS(field, "same"))
		return true;
	if (fd->same >= 0)
		return false;
	if (IS(field, "path"))
		return !fd->object;
	if (IS(field, "flags") && fd->flags & FD_PATH)
		return false;
	return !IS(field, "offset") || (fd->kind == TF_FD_FILE && !(fd->flags & FD_NO_OFFSET));
}

/* Under QEMU user mode: no break can be set, there are no robust lists; and whether memory can be
 * run, or be written but not read, does not show. */
static bool shows_emulated(const struct tf_image *img, const struct tf_kind *k, uint32_t i,
	const struct tf_field *f, uint32_t flag)
{
	if (!(img->source.flags & TF_SOURCE_EMULATED))
		return true;
	if (IS(f->name, "brk") || IS(f->name, "robust_head"))
		return false;
	if (!IS(k->name, "map") || !IS(f->name, "prot"))
		return true;
	return flag != PROT_EXEC && (flag != PROT_WRITE || img->maps[i].prot & PROT_READ);
}

static bool map_means(const struct tf_image *img, const struct tf_map *m, const char *field)
{
	const struct tf_object *o = m->object ? &img->objects[m->object - 1] : NULL;

	if (IS(field, "offset"))
		return o && o->kind != TF_OBJECT_SYSV;
	if (IS(field, "crc"))
		return m->crc != 0;
	if (IS(field, "key")) /* the kernel's own for what can only be run */
		return m->prot != PROT_EXEC && img->mm.keys && m->kind == TF_MAP_ANON;
	return true;
}

/* What holds for a thread and its children alike. */
static bool attribute_means(const struct tf_image *img, const struct tf_attributes *a,
	const char *field, unsigned element)
{
	uint32_t n = img->process.n_cpus;
	uint64_t all = n < 64 ? (UINT64_C(1) << n) - 1 : UINT64_MAX;
	bool fair = a->policy != 1 && a->policy != 2;

	if (IS(field, "cpus")) /* held to some of the first processors */
		return !element && a->cpus[0] && a->cpus[0] != all;
	if (IS(field, "nice") || IS(field, "slack")) /* SCHED_FIFO and SCHED_RR have neither */
		return fair;
	if (IS(field, "pdeathsig"))
		return a->pdeathsig != 0;
	return !IS(field, "sched_flags") || a->sched_flags;
}

#define RET_ALLOW UINT64_C(0x7fff000000000006) /* struct sock_filter */

bool tf_damage_means(const struct tf_image *img, const struct tf_kind *k, uint32_t i,
	const struct tf_field *f, unsigned element)
{
	if (!shows_emulated(img, k, i, f, 0))
		return false;
	if (IS(k->name, "signature"))
		return signature_means(img, &img->signatures[i]);
	if (IS(k->name, "object"))
		return object_means(&img->objects[i], f->name);
	if (IS(k->name, "fd"))
		return fd_means(&img->fds[i], f->name);
	if (IS(k->name, "map"))
		return map_means(img, &img->maps[i], f->name);
	if (IS(k->name, "attributes"))
		return attribute_means(img, &img->attributes[i], f->name, element);
	if (IS(k->name, "code"))
		return img->code[i] != RET_ALLOW;
	/* Number and error, code, sender, value: no kernel keeps more of a siginfo that was sent.
	 */
	if (IS(k->name, "pending") && IS(f->name, "info"))
		return element < 4;
	if (IS(k->name, "mm") && IS(f->name, "keys")) /* some processors have none */
		return img->mm.keys != 0;
	if (IS(k->name, "cpu"))
		return tf_field_number(f, tf_kind_item(k, img, i), element) != 0;
	return true;
}

static bool advice_means(const struct tf_map *m, uint32_t flag)
{
	static const uint32_t one_of[] = {
		TF_VMF_HUGEPAGE | TF_VMF_NOHUGEPAGE, TF_VMF_SEQ | TF_VMF_RAND};
	bool added = !(m->vmflags & flag);

	if (flag == TF_VMF_ONFAULT)
		return m->vmflags & TF_VMF_LOCKED;
	if (flag == TF_VMF_MAYWRITE)
		return m->object && m->flags & TF_MAP_SHARED && !(m->prot & PROT_WRITE);
	if (!added)
		return flag != TF_VMF_HUGETLB;
	for (unsigned n = 0; n < 2; n++)
		if (one_of[n] & flag && one_of[n] & m->vmflags)
			return false;
	return m->kind == TF_MAP_ANON && !(m->flags & TF_MAP_SHARED) && !m->huge &&
	       !(flag & (TF_VMF_GROWSDOWN | TF_VMF_BTI | TF_VMF_MTE | TF_VMF_HUGETLB));
}

#define SEAL_EXEC 0x20u /* with one that can be run, as a memfd is: F_SEAL_WRITE as well */

static bool knows_seal_exec(const struct tf_image *img)
{
	unsigned major = 0, minor = 0;

	return sscanf(img->source.release, "%u.%u", &major, &minor) == 2 &&
	       (major > 6 || (major == 6 && minor >= 3));
}

static bool is_written(const struct tf_image *img, uint32_t object)
{
	for (uint32_t i = 0; i < img->n_maps; i++)
		if (img->maps[i].object == object + 1 && img->maps[i].prot & PROT_WRITE)
			return true;
	return false;
}

bool tf_damage_flag_means(const struct tf_image *img, const struct tf_kind *k, uint32_t i,
	const struct tf_field *f, uint32_t flag)
{
	if (!shows_emulated(img, k, i, f, flag))
		return false;
	if (IS(k->name, "attributes") && flag == TF_ATTR_SLACK)
		return attribute_means(img, &img->attributes[i], "slack", 0);
	if (IS(k->name, "map") && IS(f->name, "vmflags"))
		return advice_means(&img->maps[i], flag);
	if (IS(k->name, "object") && IS(f->name, "seals"))
		return img->objects[i].kind == TF_OBJECT_MEMFD &&
		       (flag != SEAL_EXEC || (knows_seal_exec(img) && !is_written(img, i)));
	if (IS(k->name, "object") && IS(f->name, "flags"))
		return img->objects[i].kind != TF_OBJECT_MEMFD;
	return true;
}
