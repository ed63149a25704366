/* SPDX-License-Identifier: MIT */
/* See objects.h. Only looks; the copy opens and makes what it needs by its plan, and compares. */
#include "core/restore/objects.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/crc32c.h"
#include "core/restore/files.h"

#define CRC_STEP ((size_t)1 << 16)

typedef unsigned long long ull;

struct look {
	struct tf_image *img;
	const struct tf_facts *f;
	unsigned restore;
	struct tf_found *found;
	bool crc_instruction;
	struct tf_err *left, *e;
};

static bool is_file_with_name(const struct tf_object *o)
{
	return o->kind == TF_OBJECT_FILE && !(o->flags & TF_OBJECT_DELETED);
}

static int open_regular(const char *path, int flags, struct stat *st)
{
	return tf_files_open(path, flags | O_NONBLOCK | O_NOCTTY, S_IFREG, st);
}

/* Whether as much of the mapping lies in a file of that size as did in the source's. */
static bool ends_alike(const struct tf_image *img, const struct tf_map *m, uint64_t size)
{
	uint64_t page = img->source.page_size, end = m->start;

	size = (size + page - 1) & ~(page - 1);
	if (size > m->offset)
		end += size - m->offset;
	return m->data_end == (end < m->end && end >= m->start ? end : m->end);
}

/* --- private mappings of files --- */

static bool may_execute(int fd)
{
	struct statvfs fs;

	return !fstatvfs(fd, &fs) && !(fs.f_flag & ST_NOEXEC);
}

static void note_file(struct look *l, const char *path, uint32_t map, int fd, const struct stat *st)
{
	uint8_t page[TF_KNOWN_PAGE];
	struct tf_found_file *x;

	if (!l->found || l->found->n == l->found->max)
		return;
	x = &l->found->file[l->found->n++];
	*x = (struct tf_found_file){
		.path = path, .st = *st, .by = {.map = map, .size = (uint64_t)st->st_size}};
	x->usable = pread(fd, page, sizeof(page), 0) == sizeof(page) &&
		    tf_known_by_with(l->crc_instruction, page, &x->by);
}

/* Its pages are compared with what comes when memory is filled: here only whether there is a file
 * whose pages can stand for them. */
static void look_for_files(struct look *l)
{
	const char *path = NULL;
	struct stat st = {0};
	TF_CLOSE int fd = -1;
	bool exec = false, noted = false;

	/* A yoyo finds what its function wrote among pages that are all the copy's own. */
	if (l->img->source.flags & TF_SOURCE_EMULATED || l->f->flags & TF_FACT_EMULATED ||
		l->img->source.origin == TF_ORIGIN_YOYO)
		return;
	for (uint32_t i = 0; i < l->img->n_maps; i++) {
		struct tf_map *m = &l->img->maps[i];

		if (m->kind != TF_MAP_FILE || m->flags & (TF_MAP_SHARED | TF_MAP_DELETED) ||
			m->path[0] != '/')
			continue;
		if (!path || strcmp(path, m->path) != 0) {
			tf_closep(&fd);
			path = m->path;
			fd = open_regular(path, O_RDONLY, &st);
			exec = fd >= 0 && may_execute(fd);
			noted = false;
		}
		m->here = fd >= 0 && !(m->offset & (l->f->page_size - 1)) &&
			  ends_alike(l->img, m, (uint64_t)st.st_size) &&
			  (exec || !(m->prot & PROT_EXEC));
		if (m->here && !noted)
			note_file(l, path, i, fd, &st);
		noted |= m->here;
	}
}

/* --- files with a name that are mapped shared --- */

static bool same_bytes(int fd, const struct tf_map *m, uint8_t *buf, uint64_t page)
{
	uint64_t left = m->data_end - m->start, at = m->offset;
	uint32_t crc = 0;

	while (left) {
		size_t n = left < CRC_STEP ? left : CRC_STEP;
		ssize_t got = pread(fd, buf, n, (off_t)at);

		/* Behind the end of a file its last page is zeros. */
		if (got < 0 || (n - (size_t)got) >= page)
			return false;
		memset(buf + got, 0, n - (size_t)got);
		crc = tf_crc32c(crc, buf, n);
		at += n;
		left -= n;
	}
	return crc == m->crc;
}

static const char *why_not_this_file(const struct look *l, uint32_t object)
{
	const struct tf_object *o = &l->img->objects[object];
	const struct tf_use *use = &l->img->uses[object];
	struct stat st;
	TF_CLOSE int fd = open_regular(o->path, use->written ? O_RDWR : O_RDONLY, &st);
	uint8_t buf[CRC_STEP];

	if (fd < 0)
		return errno ? tf_errno_name(errno) : "no regular file here";
	for (uint32_t i = use->map; i; i = l->img->next_use[i - 1]) {
		const struct tf_map *m = &l->img->maps[i - 1];

		if (!ends_alike(l->img, m, (uint64_t)st.st_size) ||
			!same_bytes(fd, m, buf, l->f->page_size))
			return "another file here, by its content";
	}
	return NULL;
}

/* What may not be had as it was becomes memory of the copy's own, where that is allowed. */
static void part(
	struct look *l, struct tf_object *o, unsigned allowed, const char *why, const char *remedy)
{
	if (l->restore & allowed) {
		o->how = TF_OBJECT_NAMELESS;
		o->key = IPC_PRIVATE;
		tf_fail_more(l->left, TELEFORK_E_INCOMPATIBLE,
			"%s: %s: the copy has memory of its own instead", o->path, why);
		return;
	}
	tf_fail_more(
		l->e, TELEFORK_E_INCOMPATIBLE, "%s, mapped shared: %s: %s", o->path, why, remedy);
}

static void look_for_file(struct look *l, uint32_t object)
{
	struct tf_object *o = &l->img->objects[object];
	const char *why;

	errno = 0;
	why = why_not_this_file(l, object);
	if (!why)
		return;
	if (l->img->uses[object].written)
		part(l, o, TELEFORK_RESTORE_PART_FILES, why,
			"put the same file there, or go on with memory of its own (restore --allow "
			"shared-file)");
	else
		o->how = TF_OBJECT_NAMELESS; /* nobody writes to it: it travels by value */
}

/* --- memory --- */

/* The folder of a path, "/" at least. */
static void folder_of(const char *path, char folder[static TF_MAX_STR])
{
	const char *slash = strrchr(path, '/');
	size_t n = slash && slash > path ? (size_t)(slash - path) : 1;

	snprintf(folder, TF_MAX_STR, "%.*s", (int)n, path);
}

static void look_for_folder(struct tf_object *o)
{
	char folder[TF_MAX_STR];
	TF_CLOSE int fd = -1;

	folder_of(o->path, folder);
	fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	o->how = fd >= 0 ? TF_OBJECT_TMPFILE : TF_OBJECT_NAMELESS;
}

static void look_for_name(struct look *l, struct tf_object *o)
{
	char folder[TF_MAX_STR];
	struct stat st;

	folder_of(o->path, folder);
	if (!lstat(o->path, &st))
		part(l, o, TELEFORK_RESTORE_PART_MEMORY, "the name is in use here",
			"remove it, or go on without the name (restore --allow shared-memory)");
	else if (faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS))
		part(l, o, TELEFORK_RESTORE_PART_MEMORY, tf_errno_name(errno),
			"let it be made there, or go on without the name (restore --allow "
			"shared-memory)");
}

/* The kernel attaches segments whole: all mappings of one have to be such a piece. */
static bool is_whole(const struct look *l, uint32_t object)
{
	uint64_t page = l->f->page_size;
	uint64_t size = (l->img->objects[object].size + page - 1) & ~(page - 1);

	for (uint32_t i = l->img->uses[object].map; i;) {
		uint64_t start = l->img->maps[i - 1].start, at = 0;

		for (const struct tf_map *m; i && at < size; i = l->img->next_use[i - 1]) {
			m = &l->img->maps[i - 1];
			if (m->offset != at || m->kind != TF_MAP_FILE || m->start != start + at)
				break;
			at += m->end - m->start;
		}
		if (!at || at != size)
			return false;
	}
	return true;
}

static void look_for_segment(struct look *l, uint32_t object)
{
	struct tf_object *o = &l->img->objects[object];
	struct shmid_ds ds;

	if (!is_whole(l, object)) {
		o->how = TF_OBJECT_NAMELESS;
		tf_fail_more(l->left, TELEFORK_E_INCOMPATIBLE,
			"%s: it is not attached as a whole: the copy has memory of its own instead",
			o->path);
		return;
	}
	if (o->key != IPC_PRIVATE && (shmget(o->key, 0, 0) >= 0 || errno != ENOENT)) {
		part(l, o, TELEFORK_RESTORE_PART_MEMORY, "its key is in use here",
			"remove that segment (ipcrm -M), or go on without the key (restore --allow "
			"shared-memory)");
		o->how = TF_OBJECT_AS_IT_WAS;
	}
	if (access(TF_SHM_NEXT_ID, W_OK) || !shmctl(o->id, IPC_STAT, &ds) || errno != EINVAL)
		tf_fail_more(l->left, TELEFORK_E_INCOMPATIBLE,
			"%s: its id, which was %d, is another over here", o->path, o->id);
}

int tf_objects_check(struct tf_image *img, const struct tf_facts *f, unsigned restore,
	struct tf_found *found, struct tf_err *left, struct tf_err *e)
{
	struct look l = {img, f, restore, found, tf_crc32c_has_instruction(), left, e};

	look_for_files(&l);
	for (uint32_t i = 0; i < img->n_objects; i++) {
		struct tf_object *o = &img->objects[i];

		if (is_file_with_name(o))
			look_for_file(&l, i);
		else if (o->kind == TF_OBJECT_SYSV)
			look_for_segment(&l, i);
		else if (o->kind != TF_OBJECT_MEMFD && o->flags & TF_OBJECT_DELETED)
			look_for_folder(o);
		else if (o->kind == TF_OBJECT_SHM)
			look_for_name(&l, o);
	}
	return e->code;
}

/* --- after a failure --- */

/* /proc/sysvipc/shm: "key shmid perms size cpid lpid nattch uid gid cuid cgid atime dtime ctime".
 * Others that had this id before may have left segments. */
static void remove_segments_of(pid_t child, int64_t since)
{
	FILE *f = fopen("/proc/sysvipc/shm", "re");
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		char *p = line;
		long id, cpid, nattch;
		int64_t changed = 0;

		strtol(p, &p, 10);
		id = strtol(p, &p, 10);
		strtoul(p, &p, 8);
		strtoull(p, &p, 10);
		cpid = strtol(p, &p, 10);
		strtol(p, &p, 10);
		nattch = strtol(p, &p, 10);
		for (int i = 0; i < 7; i++)
			changed = strtoll(p, &p, 10);
		if (cpid == child && cpid && !nattch && changed >= since)
			shmctl((int)id, IPC_RMID, NULL);
	}
	if (f)
		fclose(f);
}

void tf_objects_undo(const struct tf_image *img, const struct tf_restore *r, pid_t child,
	int64_t since, uint64_t failed)
{
	bool segments = false;

	for (uint32_t i = 0; i < img->n_objects && r->object_step; i++) {
		const struct tf_object *o = &img->objects[i];

		if (o->how != TF_OBJECT_AS_IT_WAS || failed <= r->object_step[i])
			continue;
		if (o->kind == TF_OBJECT_SHM && !(o->flags & TF_OBJECT_DELETED))
			unlink(o->path);
		segments |= o->kind == TF_OBJECT_SYSV;
	}
	if (segments)
		remove_segments_of(child, since);
}
