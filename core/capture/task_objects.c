/* SPDX-License-Identifier: MIT */
/*
 * What a process maps shared, seen from outside: files and shared memory, each an object of the
 * image, with all of its bytes. Each byte travels once, in the first mapping that shows it; what
 * none shows, in a mapping of the image's own (TF_MAP_STAGE) where no mapping of the process lies.
 * Objects are read by a descriptor where one can be had: reading through a mapping makes the kernel
 * fill holes.
 */
#include "core/capture/task_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/crc32c.h"

#define STAGE_LOW (UINT64_C(1) << 32) /* where room for stages is looked for first */
#define STAGE_GAP (UINT64_C(2) << 20)
#define CRC_STEP  ((size_t)1 << 20)

/* A mapping and what it maps. */
struct view {
	uint32_t object, map;
	uint64_t start, end; /* in the object */
};

static bool begins(const char *s, const char *with)
{
	return !strncmp(s, with, strlen(with));
}

static uint64_t page_up(const struct tf_task *t, uint64_t n)
{
	uint64_t page = t->capture.image.source.page_size;

	return (n + page - 1) & ~(page - 1);
}

bool tf_map_has_object(const struct tf_map *m)
{
	return m->flags & TF_MAP_SHARED && m->kind == TF_MAP_FILE && m->path[0] == '/' &&
	       !(m->vmflags & TF_VMF_HUGETLB) && !begins(m->path, "/secretmem") &&
	       !begins(m->path, "/[aio]") &&
	       (!begins(m->path, "/dev/") || begins(m->path, "/dev/shm/"));
}

/* --- a list of them --- */

/* The object with that identity, new if there is none; NULL: too many. */
static struct tf_object *object_of(struct tf_task *t, uint64_t dev, uint64_t ino)
{
	struct tf_image *img = &t->capture.image;

	/* Neighbours are mostly of one file. */
	for (uint32_t i = img->n_objects; i-- > 0;)
		if (img->objects[i].dev == dev && img->objects[i].ino == ino)
			return &img->objects[i];
	if (img->n_objects == t->max_objects)
		return NULL;
	t->object_fd[img->n_objects] = -1;
	img->objects[img->n_objects] = (struct tf_object){.dev = dev, .ino = ino};
	return &img->objects[img->n_objects++];
}

static uint32_t number_of(const struct tf_task *t, const struct tf_object *o)
{
	return (uint32_t)(o - t->capture.image.objects);
}

/* Opens what is to be read, if it is that file. */
static bool try_open(struct tf_task *t, struct tf_object *o, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0)
		return false;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_ino != o->ino) {
		close(fd);
		return false;
	}
	t->object_fd[number_of(t, o)] = fd;
	return true;
}

static void open_mapped(struct tf_task *t, struct tf_object *o, const struct tf_map *m)
{
	char path[96];

	if (t->object_fd[number_of(t, o)] >= 0)
		return;
	/* Asks for CAP_CHECKPOINT_RESTORE. */
	snprintf(path, sizeof(path), "/proc/%d/map_files/%llx-%llx", (int)t->seen,
		(unsigned long long)m->start, (unsigned long long)m->end);
	if (!try_open(t, o, path) && !(m->flags & TF_MAP_DELETED))
		try_open(t, o, m->path);
}

static void open_descriptor(struct tf_task *t, struct tf_object *o, const struct tf_fd *f)
{
	char path[96];

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)t->pid, f->fd);
	if (t->object_fd[number_of(t, o)] < 0)
		try_open(t, o, path);
}

static uint32_t kind_by_name(const char *path)
{
	return begins(path, "/memfd:")     ? TF_OBJECT_MEMFD
	       : begins(path, "/SYSV")     ? TF_OBJECT_SYSV
	       : begins(path, "/dev/shm/") ? TF_OBJECT_SHM
					   : TF_OBJECT_FILE;
}

static int too_many(struct tf_task *t)
{
	return tf_fail(&t->capture.err, TELEFORK_E_LIMIT,
		"process %d has more than %u shared files", (int)t->pid, t->max_objects);
}

static int list_mapped(struct tf_task *t)
{
	struct tf_image *img = &t->capture.image;

	for (uint32_t i = 0; i < img->n_maps; i++) {
		struct tf_map *m = &img->maps[i];
		struct tf_object *o;

		if (!tf_map_has_object(m))
			continue;
		o = object_of(t, m->dev, m->ino);
		if (!o)
			return too_many(t);
		o->path = m->path;
		o->kind = kind_by_name(m->path);
		o->flags |= m->flags & TF_MAP_DELETED ? TF_OBJECT_DELETED : 0;
		m->object = number_of(t, o) + 1;
		open_mapped(t, o, m);
	}
	return 0;
}

static const char *without_mark(struct tf_task *t, const char *path, bool *ret_deleted)
{
	static const char mark[] = " (deleted)"; /* proc(5), /proc/PID/fd */
	size_t n = strlen(path), m = sizeof(mark) - 1;

	*ret_deleted = n > m && !strcmp(path + n - m, mark);
	return *ret_deleted ? tf_arena_strn(&t->capture.arena, path, n - m) : path;
}

/* A file with a name is opened by it. */
static bool is_memory_name(const char *path)
{
	static const char mark[] = " (deleted)";
	size_t n = strlen(path), m = sizeof(mark) - 1;

	return path[0] == '/' && !begins(path, "/secretmem") &&
	       ((n > m && !strcmp(path + n - m, mark)) || kind_by_name(path) != TF_OBJECT_FILE);
}

bool tf_task_opens_memory(const struct tf_fd *f)
{
	return f->ino && f->fd > STDERR_FILENO && is_memory_name(f->path);
}

static int list_opened(struct tf_task *t)
{
	struct tf_image *img = &t->capture.image;

	for (uint32_t i = 0; i < img->n_fds; i++) {
		struct tf_fd *f = &img->fds[i];
		uint32_t before = img->n_objects;
		struct tf_object *o;
		bool deleted;

		if (!tf_task_opens_memory(f))
			continue;
		o = object_of(t, f->dev, f->ino);
		if (!o)
			return too_many(t);
		if (img->n_objects > before) {
			o->path = without_mark(t, f->path, &deleted);
			o->flags = deleted ? TF_OBJECT_DELETED : 0;
			if (!o->path)
				return TELEFORK_E_NOMEM;
			o->kind = kind_by_name(o->path);
		}
		open_descriptor(t, o, f);
		f->kind = TF_FD_FILE;
		f->object = number_of(t, o) + 1;
	}
	return 0;
}

/* --- what they are --- */

/* A row of /proc/sysvipc/shm: "key shmid perms size ...". */
static void describe_sysv(struct tf_task *t, struct tf_object *o)
{
	FILE *f = fopen("/proc/sysvipc/shm", "re");
	char line[512];

	(void)t;
	o->id = (int32_t)o->ino;
	while (f && fgets(line, sizeof(line), f)) {
		char *p = line;
		int32_t key = (int32_t)strtol(p, &p, 10);
		long id = strtol(p, &p, 10);
		unsigned long mode = strtoul(p, &p, 8);
		unsigned long long size = strtoull(p, &p, 10);

		/* cpid lpid nattch uid gid */
		if (id != o->id || sscanf(p, "%*d %*d %*u %u %u", &o->uid, &o->gid) != 2)
			continue;
		o->key = key;
		o->size = size;
		o->mode = mode & 0777;
		o->flags = mode & 01000 /* SHM_DEST */ ? TF_OBJECT_DELETED : 0;
	}
	if (f)
		fclose(f);
}

/* Without a descriptor only what is mapped is known to be there. */
static void describe_by_maps(struct tf_task *t, struct tf_object *o)
{
	const struct tf_image *img = &t->capture.image;
	struct tf_ends ends = {.pid = t->pid};

	o->mode = 0600;
	o->uid = o->gid = UINT32_MAX;
	for (uint32_t i = 0; i < img->n_maps; i++) {
		const struct tf_map *m = &img->maps[i];
		uint64_t end = m->offset - m->start + tf_capture_find_end(&ends, t->mem, m);

		if (m->object == number_of(t, o) + 1 && end > o->size)
			o->size = end;
	}
}

static void describe_object(struct tf_task *t, struct tf_object *o)
{
	int fd = t->object_fd[number_of(t, o)], seals;
	struct statfs fs;
	struct stat st;

	if (o->kind == TF_OBJECT_SYSV)
		describe_sysv(t, o);
	else if (fd < 0 || fstat(fd, &st))
		describe_by_maps(t, o);
	if (o->kind == TF_OBJECT_SYSV || fd < 0 || fstat(fd, &st))
		return;
	o->size = (uint64_t)st.st_size;
	o->mode = st.st_mode & 0777;
	o->uid = st.st_uid;
	o->gid = st.st_gid;
	if (o->kind == TF_OBJECT_FILE && !fstatfs(fd, &fs) && fs.f_type == TMPFS_MAGIC &&
		o->flags & TF_OBJECT_DELETED)
		o->kind = TF_OBJECT_SHM;
	seals = o->kind == TF_OBJECT_MEMFD ? fcntl(fd, F_GET_SEALS) : 0;
	o->seals = seals > 0 ? (uint32_t)seals : 0;
}

/* --- which bytes travel where --- */

static int by_place(const void *a, const void *b)
{
	const struct view *x = a, *y = b;

	if (x->object != y->object)
		return x->object < y->object ? -1 : 1;
	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	return x->map < y->map ? -1 : x->map > y->map;
}

/* Every mapping of an object, and an empty view at the end of each object. *ret_n of them. */
static struct view *list_views(struct tf_task *t, size_t *ret_n)
{
	const struct tf_image *img = &t->capture.image;
	struct view *v =
		tf_arena_array(&t->capture.arena, img->n_maps + (size_t)img->n_objects, sizeof(*v));
	size_t n = 0;

	for (uint32_t i = 0; i < img->n_maps && v; i++) {
		const struct tf_map *m = &img->maps[i];

		if (m->object)
			v[n++] = (struct view){
				m->object, i, m->offset, m->offset + (m->data_end - m->start)};
	}
	for (uint32_t i = 0; i < img->n_objects && v; i++) {
		uint64_t end = page_up(t, img->objects[i].size);

		v[n++] = (struct view){i + 1, UINT32_MAX, end, end};
	}
	if (v)
		qsort(v, n, sizeof(*v), by_place);
	*ret_n = n;
	return v;
}

static bool is_carried(const struct tf_object *o)
{
	return o->kind != TF_OBJECT_FILE || o->flags & TF_OBJECT_DELETED;
}

/* The lowest place from at on where nothing is mapped for size bytes, with room around. */
static uint64_t find_room(const struct tf_task *t, uint64_t at, uint64_t size)
{
	const struct tf_image *img = &t->capture.image;

	for (uint32_t i = 0; i < img->n_maps; i++) {
		if (img->maps[i].start >= at + size + STAGE_GAP)
			break;
		if (img->maps[i].end + STAGE_GAP > at)
			at = page_up(t, img->maps[i].end + STAGE_GAP);
	}
	return at + size <= img->maps[img->n_maps - 1].end ? at : 0;
}

/* A stage for the bytes of [start, end) of an object that are no hole. */
static int add_stage(struct tf_task *t, uint32_t object, uint64_t start, uint64_t end,
	struct tf_map *stages, uint32_t *n)
{
	int fd = t->object_fd[object - 1];
	off_t first = fd < 0 ? -1 : lseek(fd, (off_t)start, SEEK_DATA), last = first, next = first;
	uint64_t at, size, page = t->capture.image.source.page_size;

	if (first < 0 || (uint64_t)first >= end)
		return 0;
	while (next >= 0 && (uint64_t)next < end) {
		last = lseek(fd, next, SEEK_HOLE);
		next = last < 0 ? -1 : lseek(fd, last, SEEK_DATA);
	}
	start = (uint64_t)first & ~(page - 1);
	if (last > 0 && (uint64_t)last < end)
		end = page_up(t, (uint64_t)last);
	size = end - start;
	at = find_room(t, *n ? stages[*n - 1].end + STAGE_GAP : STAGE_LOW, size);
	if (!at)
		return tf_fail(&t->capture.err, TELEFORK_E_LIMIT,
			"%s: no room for %llu bytes that no mapping shows",
			t->capture.image.objects[object - 1].path, (unsigned long long)size);
	stages[(*n)++] = (struct tf_map){.start = at,
		.end = at + size,
		.data_end = at + size,
		.prot = PROT_READ | PROT_WRITE,
		.flags = TF_MAP_SHARED,
		.kind = TF_MAP_STAGE,
		.offset = start,
		.path = "",
		.object = object};
	return 0;
}

static int find_stages(struct tf_task *t, const struct view *v, size_t n_views,
	struct tf_map *stages, uint32_t *ret_n)
{
	uint64_t covered = 0;
	int rc = 0;

	for (size_t i = 0; i < n_views && !rc; i++) {
		if (!i || v[i].object != v[i - 1].object)
			covered = 0;
		if (v[i].start > covered && is_carried(&t->capture.image.objects[v[i].object - 1]))
			rc = add_stage(t, v[i].object, covered, v[i].start, stages, ret_n);
		if (v[i].end > covered)
			covered = v[i].end;
	}
	return rc;
}

/* Both lists are sorted. */
static int insert(struct tf_task *t, const struct tf_map *stages, uint32_t n)
{
	struct tf_image *img = &t->capture.image;
	struct tf_map *all =
		tf_arena_array(&t->capture.arena, img->n_maps + (size_t)n, sizeof(*all));
	uint32_t i = 0, k = 0, at = 0;

	if (!all)
		return TELEFORK_E_NOMEM;
	while (i < img->n_maps || k < n) {
		bool stage = k < n && (i == img->n_maps || stages[k].start < img->maps[i].start);

		all[at++] = stage ? stages[k++] : img->maps[i++];
	}
	img->maps = all;
	img->n_maps = at;
	return 0;
}

static int stage(struct tf_task *t)
{
	size_t n_views;
	struct view *v = list_views(t, &n_views);
	struct tf_map *stages = tf_arena_array(&t->capture.arena, n_views + 1, sizeof(*stages));
	uint32_t n = 0;
	int rc = v && stages ? find_stages(t, v, n_views, stages, &n) : TELEFORK_E_NOMEM;

	return rc || !n ? rc : insert(t, stages, n);
}

/* Adds what of [start, data_end) of the mapping is no hole. The list grows at the arena's end. */
static int add_runs(struct tf_task *t, const struct tf_map *m, uint64_t start)
{
	uint64_t page = t->capture.image.source.page_size;
	off_t shift = (off_t)(m->offset - m->start);
	int fd = t->object_fd[m->object - 1];

	while (start < m->data_end) {
		off_t data = fd < 0 ? -1 : lseek(fd, (off_t)start + shift, SEEK_DATA);
		off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
		struct tf_run *r;
		uint64_t end;

		if (fd >= 0 && hole < 0)
			return 0;
		if (fd >= 0 && (uint64_t)(data - shift) > start)
			start = (uint64_t)(data - shift) & ~(page - 1);
		end = fd < 0 ? m->data_end : page_up(t, (uint64_t)(hole - shift));
		end = end < m->data_end ? end : m->data_end;
		if (start >= m->data_end)
			return 0;
		r = tf_arena_alloc(&t->capture.arena, sizeof(*r));
		if (!r)
			return TELEFORK_E_NOMEM;
		if (!t->n_object_runs++)
			t->object_runs = r;
		*r = (struct tf_run){start, end};
		start = end;
	}
	return 0;
}

/* Each mapping's runs, from where on it shows what no one before it has shown. */
static int share_out(struct tf_task *t)
{
	struct tf_image *img = &t->capture.image;
	uint64_t *from = tf_arena_array(&t->capture.arena, img->n_maps, sizeof(*from));
	uint64_t covered = 0;
	size_t n;
	struct view *v = list_views(t, &n);
	int rc = 0;

	if (!v || !from)
		return TELEFORK_E_NOMEM;
	for (size_t i = 0; i < n; i++) {
		uint64_t first;

		if (!i || v[i].object != v[i - 1].object)
			covered = 0;
		first = v[i].start > covered ? v[i].start : covered;
		first = first < v[i].end ? first : v[i].end;
		if (v[i].map != UINT32_MAX)
			from[v[i].map] = img->maps[v[i].map].start + (first - v[i].start);
		if (v[i].end > covered)
			covered = v[i].end;
	}
	for (uint32_t i = 0; i < img->n_maps && !rc; i++)
		if (img->maps[i].object)
			rc = add_runs(t, &img->maps[i], from[i]);
	return rc;
}

static void find_ends(struct tf_task *t)
{
	struct tf_image *img = &t->capture.image;

	for (uint32_t i = 0; i < img->n_maps; i++) {
		struct tf_map *m = &img->maps[i];
		uint64_t size, end;

		if (!m->object)
			continue;
		size = img->objects[m->object - 1].size;
		end = m->start + (size > m->offset ? page_up(t, size - m->offset) : 0);
		m->data_end = end < m->end ? end : m->end;
	}
}

/* What has to be the same over there, where a file with a name is mapped. */
static int sum(struct tf_task *t, struct tf_map *m, uint8_t *buf)
{
	int rc = 0;

	for (uint64_t at = m->start; at < m->data_end && !rc; at += CRC_STEP) {
		uint64_t n = m->data_end - at < CRC_STEP ? m->data_end - at : CRC_STEP;

		rc = tf_task_read(t, at, buf, n);
		m->crc = rc ? 0 : tf_crc32c(m->crc, buf, n);
	}
	return rc;
}

static int sum_all(struct tf_task *t)
{
	struct tf_image *img = &t->capture.image;
	uint8_t *buf = tf_arena_alloc(&t->capture.arena, CRC_STEP);
	int rc = buf ? 0 : TELEFORK_E_NOMEM;

	for (uint32_t i = 0; i < img->n_maps && !rc; i++) {
		struct tf_map *m = &img->maps[i];

		if (m->object && !is_carried(&img->objects[m->object - 1]))
			rc = sum(t, m, buf);
	}
	return rc;
}

bool tf_task_maps_memory(const struct tf_map *maps, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (tf_map_has_object(&maps[i]) &&
			(maps[i].flags & TF_MAP_DELETED || maps[i].prot & PROT_WRITE ||
				maps[i].vmflags & TF_VMF_MAYWRITE ||
				kind_by_name(maps[i].path) != TF_OBJECT_FILE))
			return true;
	return false;
}

int tf_task_objects(struct tf_task *t)
{
	struct tf_image *img = &t->capture.image;
	int rc;

	if (t->object_fd)
		return 0;
	t->max_objects = img->n_maps + img->n_fds;
	if (t->max_objects > TF_MAX_OBJECTS)
		t->max_objects = TF_MAX_OBJECTS;
	img->objects = tf_arena_array(&t->capture.arena, t->max_objects, sizeof(*img->objects));
	t->object_fd = tf_arena_array(&t->capture.arena, t->max_objects, sizeof(*t->object_fd));
	if (!img->objects || !t->object_fd)
		return TELEFORK_E_NOMEM;
	rc = list_mapped(t);
	if (!rc)
		rc = list_opened(t);
	for (uint32_t i = 0; i < img->n_objects && !rc; i++)
		describe_object(t, &img->objects[i]);
	find_ends(t);
	if (!rc)
		rc = stage(t);
	if (!rc)
		rc = share_out(t);
	return rc ? rc : sum_all(t);
}

/* --- their bytes --- */

/* The first run that is not before the mapping. */
static uint64_t first_run(const struct tf_task *t, const struct tf_map *m)
{
	uint64_t low = 0, high = t->n_object_runs;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;

		if (t->object_runs[middle].start < m->start)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

int tf_task_object_pages(struct tf_task *t, const struct tf_map *m)
{
	int rc = 0;

	for (uint64_t i = first_run(t, m); i < t->n_object_runs && !rc; i++) {
		if (t->object_runs[i].start >= m->end)
			break;
		rc = tf_capture_add_run(
			&t->capture, t->object_runs[i].start, t->object_runs[i].end);
	}
	return rc;
}

int tf_task_object_copy(struct tf_task *t, const struct tf_map *m, uint8_t *copy)
{
	int rc = 0;

	for (uint64_t i = first_run(t, m); i < t->n_object_runs && !rc; i++) {
		const struct tf_run *r = &t->object_runs[i];

		if (r->start >= m->end)
			break;
		rc = tf_task_read(t, r->start, copy + (r->start - m->start), r->end - r->start);
	}
	return rc;
}

bool tf_task_object_read(struct tf_task *t, uint64_t addr, void *to, size_t n, int *ret_rc)
{
	const struct tf_image *img = &t->capture.image;
	const struct tf_map *m = tf_image_map_at(img, addr);
	int fd = m && m->object ? t->object_fd[m->object - 1] : -1;
	ssize_t got;

	if (fd < 0 || n > m->end - addr)
		return false;
	got = pread(fd, to, n, (off_t)(m->offset + (addr - m->start)));
	if (got >= 0)
		memset((uint8_t *)to + got, 0, n - (size_t)got);
	*ret_rc = got >= 0 ? 0
			   : tf_fail_errno(&t->capture.err, TELEFORK_E_SYSTEM, errno, "%s",
				     img->objects[m->object - 1].path);
	return true;
}

void tf_task_objects_close(struct tf_task *t)
{
	for (uint32_t i = 0; i < t->capture.image.n_objects && t->object_fd; i++)
		if (t->object_fd[i] >= 0)
			close(t->object_fd[i]);
	t->object_fd = NULL;
}
