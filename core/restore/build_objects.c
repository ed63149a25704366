/* SPDX-License-Identifier: MIT */
/*
 * Files and shared memory in a plan. Each object is made or opened once and held under a number
 * above the program's while memory is filled; mappings and descriptors of it are made from that
 * one. Afterwards come what would have been in the way: mappings that cannot be made writable,
 * seals, removal.
 */
#include "core/restore/build_impl.h"

#include <fcntl.h>
#include <linux/ipc.h>
#include <linux/shm.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MEMFD_NAME_MAX 249                 /* memfd_create(2) */
#define COPY_MAX       (UINT64_C(1) << 30) /* sendfile(2) takes less than 2 GiB at once */

/* As old headers do not have them, include/uapi/linux/fcntl.h. */
#define SEAL_SEAL 0x01u
#define SEAL_EXEC 0x20u

static const struct tf_object *object_of(const struct tf_build *b, const struct tf_map *m)
{
	return &b->img->objects[m->object - 1];
}

static bool is_segment(const struct tf_object *o)
{
	return o->kind == TF_OBJECT_SYSV && o->how == TF_OBJECT_AS_IT_WAS;
}

bool tf_build_is_file(const struct tf_object *o)
{
	return o->kind == TF_OBJECT_FILE && o->how == TF_OBJECT_AS_IT_WAS &&
	       !(o->flags & TF_OBJECT_DELETED);
}

bool tf_build_is_found(const struct tf_image *img, const struct tf_map *m)
{
	return m->object && tf_build_is_file(&img->objects[m->object - 1]);
}

static uint64_t number_of(const struct tf_build *b, uint32_t object)
{
	return (uint64_t)b->r->fds.objects + object;
}

/* --- making them --- */

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *name = !strncmp(path, "/memfd:", 7) ? path + 7 : slash ? slash + 1 : path;
	size_t n = strlen(name);

	return n > MEMFD_NAME_MAX ? name + (n - MEMFD_NAME_MAX) : name;
}

static uint64_t folder_of(struct tf_build *b, const char *path)
{
	const char *slash = strrchr(path, '/');
	size_t n = slash && slash > path ? (size_t)(slash - path) : 1;
	char *to;
	uint64_t at = tf_build_data(b, NULL, n + 1, 1, &to);

	memcpy(to, path, n);
	to[n] = '\0';
	return at;
}

static void plan_openat(
	struct tf_build *b, const char *comment, uint64_t path, int flags, uint32_t mode)
{
	tf_plan_syscall(&b->r->plan, comment, SYS_openat, 4, (uint64_t)(int64_t)AT_FDCWD, path,
		(uint64_t)(flags | O_CLOEXEC), (uint64_t)mode);
}

/* The id is wished for where the kernel takes wishes (tf_objects_check() has told). */
static void plan_segment(struct tf_build *b, const struct tf_object *o)
{
	struct tf_plan *p = &b->r->plan;
	uint64_t opened = p->n_steps;
	struct tf_step *s;
	char id[16];
	int n = snprintf(id, sizeof(id), "%d", o->id);

	tf_plan_syscall(p, "the segment's id", SYS_openat, 4, (uint64_t)(int64_t)AT_FDCWD,
		tf_build_string(b, TF_SHM_NEXT_ID), (uint64_t)(O_WRONLY | O_CLOEXEC), UINT64_C(0))
		->expect = TF_EXPECT_ANY;
	s = tf_plan_syscall(p, "the segment's id", SYS_write, 3, opened,
		tf_build_data(b, id, (uint64_t)n, 1, NULL), (uint64_t)n);
	s->refs = 1;
	s->expect = TF_EXPECT_ANY;
	s = tf_plan_syscall(p, "the segment's id", SYS_close, 1, opened);
	s->refs = 1;
	s->expect = TF_EXPECT_ANY;
	tf_plan_syscall(p, o->path, SYS_shmget, 3, (uint64_t)(int64_t)o->key, o->size,
		(uint64_t)(IPC_CREAT | IPC_EXCL | o->mode));
}

static void plan_open(struct tf_build *b, const struct tf_object *o, uint32_t i)
{
	bool deleted = o->flags & TF_OBJECT_DELETED;

	if (o->how == TF_OBJECT_TMPFILE)
		plan_openat(b, o->path, folder_of(b, o->path), O_TMPFILE | O_RDWR, o->mode | 0600);
	else if (o->how == TF_OBJECT_NAMELESS || o->kind == TF_OBJECT_MEMFD || deleted)
		tf_plan_syscall(&b->r->plan, o->path, SYS_memfd_create, 2,
			tf_build_string(b, base_name(o->path)),
			(uint64_t)(MFD_CLOEXEC | MFD_ALLOW_SEALING));
	else if (o->kind == TF_OBJECT_SHM)
		plan_openat(b, o->path, tf_build_string(b, o->path), O_CREAT | O_EXCL | O_RDWR,
			o->mode | 0600);
	else
		plan_openat(b, o->path, tf_build_string(b, o->path),
			b->img->uses[i].written ? O_RDWR : O_RDONLY, 0);
}

static void plan_object(struct tf_build *b, uint32_t i)
{
	const struct tf_object *o = &b->img->objects[i];
	struct tf_plan *p = &b->r->plan;
	uint64_t number = number_of(b, i);
	bool found = tf_build_is_file(o);

	if (is_segment(o)) {
		plan_segment(b, o);
		b->r->object_step[i] = tf_plan_last(p);
		return;
	}
	plan_open(b, o, i);
	b->r->object_step[i] = tf_plan_last(p);
	tf_plan_syscall(p, "object", SYS_dup3, 3, b->r->object_step[i], number, (uint64_t)O_CLOEXEC)
		->refs = 1;
	tf_plan_syscall(p, "object", SYS_close, 1, b->r->object_step[i])->refs = 1;
	if (!found)
		tf_plan_syscall(p, "its size", SYS_ftruncate, 2, number, o->size);
}

void tf_build_objects(struct tf_build *b)
{
	for (uint32_t i = 0; i < b->img->n_objects; i++)
		plan_object(b, i);
}

/* --- mapping them --- */

static void plan_mmap(struct tf_build *b, const struct tf_map *m, uint32_t prot, uint64_t fd,
	bool by_step, int place)
{
	struct tf_step *s = tf_plan_syscall(&b->r->plan, "object", SYS_mmap, 6, m->start,
		m->end - m->start, (uint64_t)prot,
		(uint64_t)(MAP_SHARED | (m->vmflags & TF_VMF_NORESERVE ? MAP_NORESERVE : 0) |
			   place),
		fd, m->offset);

	s->refs = by_step ? 1u << 4 : 0;
	s->expect = TF_EXPECT_VALUE;
	s->expected = m->start;
}

/* A segment is attached as a whole, by its first mapping. */
static void plan_attach(struct tf_build *b, const struct tf_map *m, uint64_t flags)
{
	struct tf_step *s;

	if (m->offset)
		return;
	s = tf_plan_syscall(&b->r->plan, "object", SYS_shmat, 3, b->r->object_step[m->object - 1],
		m->start, flags | SHM_EXEC * !!(m->prot & PROT_EXEC));
	s->refs = 1;
	s->expect = TF_EXPECT_VALUE;
	s->expected = m->start;
}

uint32_t tf_build_object_map(struct tf_build *b, uint32_t i, bool has_data)
{
	const struct tf_map *m = &b->img->maps[i];
	const struct tf_object *o = object_of(b, m);
	uint32_t prot = has_data ? PROT_READ | PROT_WRITE : m->prot;

	if (is_segment(o)) {
		plan_attach(b, m, 0);
		return PROT_READ | PROT_WRITE | (m->prot & PROT_EXEC);
	}
	if (tf_build_is_found(b->img, m))
		prot = has_data ? m->prot | PROT_READ : m->prot;
	plan_mmap(b, m, prot, number_of(b, m->object - 1), false, MAP_FIXED_NOREPLACE);
	return prot;
}

/* --- once memory is filled --- */

/* What the program cannot make writable is mapped again, by a descriptor that is for reading. */
static void plan_read_only(struct tf_build *b, const struct tf_map *m)
{
	struct tf_plan *p = &b->r->plan;
	uint64_t opened = p->n_steps;

	if (is_segment(object_of(b, m))) {
		plan_attach(b, m, SHM_RDONLY | SHM_REMAP);
		if (!(m->prot & PROT_READ)) /* the program took that back */
			tf_plan_syscall(p, "to read only", SYS_mprotect, 3, m->start,
				m->end - m->start, (uint64_t)m->prot);
		return;
	}
	plan_openat(b, "to read only", tf_build_object_path(b, m->object - 1), O_RDONLY, 0);
	plan_mmap(b, m, m->prot, opened, true, MAP_FIXED);
	tf_plan_syscall(p, "to read only", SYS_close, 1, opened)->refs = 1;
}

static bool is_read_only(const struct tf_build *b, const struct tf_map *m)
{
	bool opened_so = tf_build_is_found(b->img, m) && !b->img->uses[m->object - 1].written;

	return !((m->prot & PROT_WRITE) | (m->vmflags & TF_VMF_MAYWRITE)) && !opened_so;
}

static void plan_seals(struct tf_build *b, uint32_t i)
{
	const struct tf_object *o = &b->img->objects[i];
	struct tf_plan *p = &b->r->plan;
	uint32_t most = o->seals & ~(SEAL_SEAL | SEAL_EXEC);

	if (o->how != TF_OBJECT_AS_IT_WAS)
		return;
	if (most)
		tf_plan_syscall(p, "seals", SYS_fcntl, 3, number_of(b, i), (uint64_t)F_ADD_SEALS,
			(uint64_t)most);
	if (o->seals & SEAL_EXEC) /* Linux 6.3 */
		tf_plan_syscall(p, "seals", SYS_fcntl, 3, number_of(b, i), (uint64_t)F_ADD_SEALS,
			(uint64_t)SEAL_EXEC)
			->expect = TF_EXPECT_ANY;
	if (o->seals & SEAL_SEAL)
		tf_plan_syscall(p, "seals", SYS_fcntl, 3, number_of(b, i), (uint64_t)F_ADD_SEALS,
			(uint64_t)SEAL_SEAL);
}

/* As far as the receiver may; else it stays the receiver's. */
static void plan_owner(struct tf_build *b, uint32_t i)
{
	const struct tf_object *o = &b->img->objects[i];
	const struct shmid64_ds segment = {
		.shm_perm = {.uid = o->uid, .gid = o->gid, .mode = o->mode}};
	struct tf_plan *p = &b->r->plan;
	struct tf_step *s;

	if (o->uid == UINT32_MAX)
		return;
	if (is_segment(o)) {
		s = tf_plan_syscall(p, "its owner", SYS_shmctl, 3, b->r->object_step[i],
			(uint64_t)IPC_SET, tf_build_data(b, &segment, sizeof(segment), 8, NULL));
		s->refs = 1;
	} else {
		s = tf_plan_syscall(p, "its owner", SYS_fchown, 3, number_of(b, i),
			(uint64_t)o->uid, (uint64_t)o->gid);
	}
	s->expect = TF_EXPECT_ANY;
}

static void plan_finish(struct tf_build *b, uint32_t i)
{
	const struct tf_object *o = &b->img->objects[i];
	struct tf_plan *p = &b->r->plan;

	if (o->kind != TF_OBJECT_FILE || o->flags & TF_OBJECT_DELETED)
		plan_owner(b, i);
	if (is_segment(o)) {
		if (o->flags & TF_OBJECT_DELETED)
			tf_plan_syscall(p, "removed", SYS_shmctl, 3, b->r->object_step[i],
				(uint64_t)IPC_RMID, UINT64_C(0))
				->refs = 1;
		return;
	}
	if (o->kind != TF_OBJECT_FILE || o->flags & TF_OBJECT_DELETED)
		tf_plan_syscall(
			p, "its permissions", SYS_fchmod, 2, number_of(b, i), (uint64_t)o->mode);
	plan_seals(b, i);
}

void tf_build_objects_done(struct tf_build *b)
{
	for (uint32_t i = 0; i < b->img->n_maps; i++) {
		const struct tf_map *m = &b->img->maps[i];

		if (m->kind == TF_MAP_STAGE)
			tf_plan_syscall(
				&b->r->plan, "stage", SYS_munmap, 2, m->start, m->end - m->start);
		else if (m->object && is_read_only(b, m))
			plan_read_only(b, m);
		else
			continue;
		tf_build_advice(b, i);
	}
	for (uint32_t i = 0; i < b->img->n_objects; i++)
		plan_finish(b, i);
}

/* --- anew, in each fork of a zygote --- */

bool tf_build_is_nameless(const struct tf_object *o)
{
	return o->how != TF_OBJECT_AS_IT_WAS || o->kind == TF_OBJECT_MEMFD ||
	       (o->kind != TF_OBJECT_SYSV && o->flags & TF_OBJECT_DELETED);
}

/* Bytes of the zygote's to where they stand in the new one. */
static void plan_copy(
	struct tf_build *b, uint32_t object, uint64_t opened, uint64_t from, uint64_t size)
{
	uint64_t end = b->img->objects[object].size;

	end = from + size < end ? from + size : end;
	for (; from < end && !b->r->plan.full; from += size) {
		struct tf_step *s;

		size = end - from < COPY_MAX ? end - from : COPY_MAX;
		tf_plan_syscall(
			&b->r->plan, "the zygote's", SYS_lseek, 3, opened, from, (uint64_t)SEEK_SET)
			->refs = 1;
		s = tf_plan_syscall(&b->r->plan, "the zygote's", SYS_sendfile, 4, opened,
			number_of(b, object), tf_build_data(b, &from, sizeof(from), 8, NULL), size);
		s->refs = 1;
		s->expect = TF_EXPECT_VALUE;
		s->expected = size;
	}
}

static void plan_anew(struct tf_build *b, uint32_t i)
{
	const struct tf_image *img = b->img;
	struct tf_plan *p = &b->r->plan;
	uint64_t opened;

	plan_open(b, &img->objects[i], i);
	opened = tf_plan_last(p);
	tf_plan_syscall(p, "its size", SYS_ftruncate, 2, opened, img->objects[i].size)->refs = 1;
	for (uint32_t k = 0; k < img->n_segments; k++) {
		const struct tf_segment *g = &img->segments[k];
		const struct tf_map *m = g->filesz ? tf_image_map_at(img, g->vaddr) : NULL;

		if (m && m->object == i + 1)
			plan_copy(b, i, opened, m->offset + (g->vaddr - m->start), g->filesz);
	}
	tf_plan_syscall(p, "object", SYS_dup3, 3, opened, number_of(b, i), (uint64_t)O_CLOEXEC)
		->refs = 1;
	tf_plan_syscall(p, "object", SYS_close, 1, opened)->refs = 1;
	for (uint32_t k = 0; k < img->n_maps; k++) {
		const struct tf_map *m = &img->maps[k];

		if (m->object != i + 1 || m->kind == TF_MAP_STAGE)
			continue;
		if (is_read_only(b, m))
			plan_read_only(b, m);
		else
			plan_mmap(b, m, tf_restore_map_prot(img, k), number_of(b, i), false,
				MAP_FIXED);
		tf_build_advice(b, k);
	}
	plan_finish(b, i);
}

void tf_build_objects_anew(struct tf_build *b)
{
	for (uint32_t i = 0; i < b->img->n_objects; i++)
		if (tf_build_is_nameless(&b->img->objects[i]))
			plan_anew(b, i);
}

uint64_t tf_build_anew_steps(const struct tf_image *img, uint64_t *data)
{
	uint64_t copies = img->n_segments, strings = img->n_maps * 48ull;

	for (uint32_t i = 0; i < img->n_segments; i++)
		copies += img->segments[i].filesz / COPY_MAX;
	for (uint32_t i = 0; i < img->n_objects; i++)
		strings += strlen(img->objects[i].path) + 64;
	*data += strings + copies * 16;
	return 16ull * img->n_objects + 12ull * img->n_maps + 2 * copies;
}

uint64_t tf_build_object_path(struct tf_build *b, uint32_t object)
{
	char path[40];

	snprintf(
		path, sizeof(path), "/proc/self/fd/%llu", (unsigned long long)number_of(b, object));
	return tf_build_string(b, path);
}

void tf_build_objects_close(struct tf_build *b)
{
	for (uint32_t i = 0; i < b->img->n_objects; i++)
		if (!is_segment(&b->img->objects[i]))
			tf_plan_syscall(&b->r->plan, "object", SYS_close, 1, number_of(b, i));
}
