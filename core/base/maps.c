/* SPDX-License-Identifier: MIT */
/* The parser of maps.h: one pass, hand-written, because sscanf costs ten times as much and 60,000
 * mappings are read while somebody waits. */
#include "core/base/maps.h"
#include "core/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct {
	char name[3];
	uint32_t flag;
} vmflag_names[] = {
	{"hg", TF_VMF_HUGEPAGE},
	{"nh", TF_VMF_NOHUGEPAGE},
	{"dd", TF_VMF_DONTDUMP},
	{"dc", TF_VMF_DONTFORK},
	{"wf", TF_VMF_WIPEONFORK},
	{"mg", TF_VMF_MERGEABLE},
	{"sr", TF_VMF_SEQ},
	{"rr", TF_VMF_RAND},
	{"nr", TF_VMF_NORESERVE},
	{"gd", TF_VMF_GROWSDOWN},
	{"bt", TF_VMF_BTI},
	{"mt", TF_VMF_MTE},
	{"lo", TF_VMF_LOCKED},
	{"mw", TF_VMF_MAYWRITE},
	{"ht", TF_VMF_HUGETLB},
	{"lf", TF_VMF_ONFAULT},
};

/* The kernel gives a page or little more at a time, and for some files zeroes as much first. */
#define READ_STEP 65536u

#define N_VMFLAGS (sizeof(vmflag_names) / sizeof(*vmflag_names))

int tf_proc_peek(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);
	int err = errno;

	if (fd >= 0)
		close(fd);
	buf[n > 0 ? n : 0] = '\0';
	return n < 0 ? -err : 0;
}

int tf_proc_read_from(struct tf_arena *a, int fd, const char *path, char **ret_text,
	size_t *ret_size, struct tf_err *e)
{
	char *text = (char *)a->base + a->used;
	size_t n = 0;

	for (;;) {
		bool plenty = tf_arena_ready(a, n + READ_STEP + 1);
		size_t left = a->size - a->used, room = plenty ? READ_STEP : left - n - 1;
		ssize_t got;

		if (n + 2 > left)
			return tf_fail(e, TELEFORK_E_NOMEM, "%s is too large", path);
		if (!plenty && !tf_arena_ready(a, n + room + 1))
			return tf_fail(e, TELEFORK_E_NOMEM, "no memory for %s", path);
		got = read(fd, text + n, room);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			memset(text, 0, n); /* what is not allocated is zero */
			return tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "%s", path);
		}
		if (!got)
			break;
		n += (size_t)got;
	}
	tf_arena_alloc(a, n + 1);
	text[n] = '\0';
	*ret_text = text;
	*ret_size = n;
	return 0;
}

int tf_proc_read(
	struct tf_arena *a, const char *path, char **ret_text, size_t *ret_size, struct tf_err *e)
{
	TF_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "%s", path);
	return tf_proc_read_from(a, fd, path, ret_text, ret_size, e);
}

static uint64_t parse_number(const char **p, const char *end, unsigned base)
{
	uint64_t v = 0;

	for (; *p < end; (*p)++) {
		unsigned c = (unsigned char)**p, digit;

		if (c >= '0' && c <= '9')
			digit = c - '0';
		else if (base == 16 && c >= 'a' && c <= 'f')
			digit = c - 'a' + 10;
		else
			break;
		v = v * base + digit;
	}
	return v;
}

/* A number and the character behind it. */
static bool parse_field(const char **p, const char *end, unsigned base, char behind, uint64_t *ret)
{
	const char *start = *p;

	*ret = parse_number(p, end, base);
	return *p > start && *p < end && *(*p)++ == behind;
}

static uint32_t kind_of(const char *path, size_t n, uint64_t ino)
{
	if (n == 6 && !memcmp(path, "[heap]", 6))
		return TF_MAP_HEAP;
	if (n == 7 && !memcmp(path, "[stack]", 7))
		return TF_MAP_STACK;
	if (n == 6 && !memcmp(path, "[vdso]", 6))
		return TF_MAP_VDSO;
	if (n >= 5 && !memcmp(path, "[vvar", 5))
		return TF_MAP_VVAR;
	if ((n >= 9 && !memcmp(path, "/dev/zero", 9)) ||
		(n >= 14 && !memcmp(path, "/anon_hugepage", 14)))
		return TF_MAP_ANON;
	return ino || (n && path[0] == '/') ? TF_MAP_FILE : TF_MAP_ANON;
}

/* "start-end rwxp offset major:minor inode   path"; false if the line is none of these. */
static bool parse_vma(const char *line, const char *end, struct tf_map *m, const char **ret_path,
	size_t *ret_path_n)
{
	const char *p = line;
	uint64_t major, minor;

	if (!parse_field(&p, end, 16, '-', &m->start) || !parse_field(&p, end, 16, ' ', &m->end) ||
		m->end <= m->start || end - p < 5)
		return false;
	m->data_end = m->end;
	m->vmflags = m->object = m->crc = m->huge = m->key = 0;
	m->here = false;
	m->own = UINT64_MAX;
	m->prot = (p[0] == 'r' ? PROT_READ : 0u) | (p[1] == 'w' ? PROT_WRITE : 0u) |
		  (p[2] == 'x' ? PROT_EXEC : 0u);
	m->flags = p[3] == 's' ? TF_MAP_SHARED : 0;
	p += 5;
	if (!parse_field(&p, end, 16, ' ', &m->offset) || !parse_field(&p, end, 16, ':', &major) ||
		!parse_field(&p, end, 16, ' ', &minor))
		return false;
	m->dev = major << 32 | minor;
	m->ino = parse_number(&p, end, 10);
	while (p < end && *p == ' ')
		p++;
	*ret_path = p;
	*ret_path_n = (size_t)(end - p);
	m->kind = kind_of(p, *ret_path_n, m->ino);
	return true;
}

/* Kernels before 6.13 have no name for MLOCK_ONFAULT, and locked memory no other flag without one.
 */
static uint32_t parse_vmflags(const char *p, const char *end)
{
	uint32_t flags = 0;
	bool nameless = false;

	for (; end - p >= 2; p++) {
		nameless |= p[-1] == ' ' && !memcmp(p, "??", 2);
		for (size_t i = 0; p[-1] == ' ' && i < N_VMFLAGS; i++)
			if (!memcmp(p, vmflag_names[i].name, 2))
				flags |= vmflag_names[i].flag;
	}
	return nameless && flags & TF_VMF_LOCKED ? flags | TF_VMF_ONFAULT : flags;
}

/* The number behind a field's name, if it is this field. */
static bool field_is(const char *p, const char *end, const char *name, uint64_t *ret)
{
	size_t n = strlen(name);

	if ((size_t)(end - p) <= n || memcmp(p, name, n) != 0)
		return false;
	for (p += n; p < end && *p == ' '; p++)
		;
	*ret = parse_number(&p, end, 10);
	return true;
}

/* What a field of smaps says of the mapping before it. */
static void take_field(struct tf_map *m, const char *p, const char *end)
{
	uint64_t number;

	if (end - p > 9 && !memcmp(p, "VmFlags: ", 9)) {
		m->vmflags = parse_vmflags(p + 9, end);
		if (!(m->vmflags & TF_VMF_HUGETLB))
			m->huge = 0;
	} else if (field_is(p, end, "KernelPageSize:", &number)) {
		for (m->huge = 0; number << 10 >> m->huge > 1; m->huge++)
			;
	} else if (field_is(p, end, "Anonymous:", &number)) {
		m->own = number << 10;
	} else if (field_is(p, end, "Swap:", &number)) {
		m->own += number << 10;
	} else if (field_is(p, end, "ProtectionKey:", &number)) {
		m->key = (uint32_t)number;
	}
}

/* NULL: out of memory. */
static const char *keep_path(struct tf_arena *a, struct tf_map *m, const char *path, size_t n)
{
	static const char deleted[] = " (deleted)";
	size_t d = sizeof(deleted) - 1;

	if (!path || !n)
		return "";
	if (n > d && !memcmp(path + n - d, deleted, d)) {
		n -= d;
		m->flags |= m->kind == TF_MAP_FILE ? TF_MAP_DELETED : 0;
	}
	return tf_arena_strn(a, path, n < TF_MAX_STR ? n : TF_MAX_STR - 1);
}

static uint32_t count_lines(const char *text, size_t size)
{
	uint32_t n = 1;

	for (const char *p = text; (p = memchr(p, '\n', size - (size_t)(p - text))); p++)
		n++;
	return n;
}

int tf_maps_parse(struct tf_arena *a, const char *text, size_t size, struct tf_map **ret_maps,
	uint32_t *ret_n, struct tf_err *e)
{
	const char *end = text + size;
	uint32_t n = 0, line = 1;
	/* Only mapped lines count, but the number of lines bounds them. */
	struct tf_map *maps = tf_arena_array(a, count_lines(text, size), sizeof(*maps));
	bool skipped = false;

	if (!maps)
		return tf_fail(e, TELEFORK_E_NOMEM, "out of memory for the list of mappings");
	for (const char *p = text, *eol; p < end; p = eol + 1, line++) {
		const char *path;
		size_t path_n;

		eol = memchr(p, '\n', (size_t)(end - p));
		if (!eol)
			eol = end;
		if (*p >= 'A' && *p <= 'Z') { /* a field of smaps */
			if (n && !skipped)
				take_field(&maps[n - 1], p, eol);
			continue;
		}
		if (!parse_vma(p, eol, &maps[n], &path, &path_n))
			return tf_fail(
				e, TELEFORK_E_SYSTEM, "mappings: line %u is not understood", line);
		skipped = maps[n].end > TF_MAX_ADDR;
		if (skipped)
			continue;
		maps[n].path = keep_path(a, &maps[n], path, path_n);
		if (!maps[n].path)
			return tf_fail(e, TELEFORK_E_NOMEM, "out of memory for a path");
		n++;
	}
	*ret_maps = maps;
	*ret_n = n;
	return 0;
}

int tf_maps_read(struct tf_arena *a, const char *path, struct tf_map **ret_maps, uint32_t *ret_n,
	struct tf_err *e)
{
	char *text = NULL;
	size_t size = 0;
	int rc = tf_proc_read(a, path, &text, &size, e);

	return rc ? rc : tf_maps_parse(a, text, size, ret_maps, ret_n, e);
}

/* The kernel makes a mapping's text when the first byte of it is read, and no more than was asked
 * for: so nothing is asked for behind the last line of the last one, which has two names of flags.
 */
#define LAST_LINE "VmFlags:"
#define CAREFULLY 8u
#define MAPPING   512u /* no mapping's text is shorter */

/* How much may be read if so many mappings are yet to come, and the line that begins at line, and
 * has come as far as end, is one of theirs. */
static size_t next_read(uint32_t n, const char *line, const char *end)
{
	size_t last = strlen(LAST_LINE);

	if (n > 1)
		return MAPPING;
	return (size_t)(end - line) >= last && !memcmp(line, LAST_LINE, last) ? 1 : CAREFULLY;
}

int tf_maps_read_first(struct tf_arena *a, const char *path, uint32_t n, struct tf_map **ret_maps,
	uint32_t *ret_n, struct tf_err *e)
{
	TF_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text = (char *)a->base + a->used, *end = text, *line = text, *eol;
	ssize_t got = 1;

	while (n && got > 0) {
		if (!tf_arena_ready(a, (size_t)(end - text) + MAPPING))
			return tf_fail(e, TELEFORK_E_NOMEM, "no memory for %s", path);
		got = read(fd, end, next_read(n, line, end));
		if (got < 0) {
			memset(text, 0, (size_t)(end - text)); /* what is not allocated is zero */
			return tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "%s", path);
		}
		for (end += got; (eol = memchr(line, '\n', (size_t)(end - line))); line = eol + 1)
			n -= n && !memcmp(line, LAST_LINE, strlen(LAST_LINE));
	}
	tf_arena_alloc(a, (size_t)(end - text));
	return tf_maps_parse(a, text, (size_t)(end - text), ret_maps, ret_n, e);
}

struct smaps {
	void (*fn)(void *ctx, const struct tf_smap *m);
	void *ctx;
	struct tf_smap at; /* the mapping whose fields come */
	size_t most;       /* bytes of text that were ever used */
};

/* "LABEL      number kB": adds it to *bytes. */
static void add_field(const char *p, const char *eol, const char *label, uint64_t *bytes)
{
	size_t n = strlen(label);

	if ((size_t)(eol - p) <= n || memcmp(p, label, n))
		return;
	for (p += n; p < eol && *p == ' '; p++)
		;
	*bytes += parse_number(&p, eol, 10) * 1024;
}

/* Whole lines. False if one is neither a mapping nor a field. */
static bool smaps_lines(struct smaps *s, const char *p, const char *end)
{
	for (const char *eol; p < end; p = eol + 1) {
		const char *path;
		size_t path_n;
		struct tf_map m;

		eol = memchr(p, '\n', (size_t)(end - p));
		if (*p < 'A' || *p > 'Z') {
			if (!parse_vma(p, eol, &m, &path, &path_n))
				return false;
			s->at = (struct tf_smap){.start = m.start, .end = m.end};
		} else if (eol - p > 9 && !memcmp(p, "VmFlags: ", 9)) {
			s->at.vmflags = parse_vmflags(p + 9, eol);
			s->fn(s->ctx, &s->at);
		} else {
			add_field(p, eol, "Rss:", &s->at.resident);
			add_field(p, eol, "Swap:", &s->at.resident);
		}
	}
	return true;
}

/* Reads and tells of what it reads; text has room for 2 * READ_STEP. */
static int smaps_text(struct smaps *s, int fd, char *text, const char *path, struct tf_err *e)
{
	size_t n = 0; /* of a line that has begun */

	for (;;) {
		ssize_t got = n < READ_STEP ? read(fd, text + n, READ_STEP) : 0;
		char *lines;

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "%s", path);
		if (!got)
			break;
		if (s->most < n + (size_t)got)
			s->most = n + (size_t)got;
		lines = memrchr(text + n, '\n', (size_t)got);
		n += (size_t)got;
		if (!lines)
			continue;
		if (!smaps_lines(s, text, ++lines))
			break;
		n -= (size_t)(lines - text);
		memmove(text, lines, n);
	}
	return n ? tf_fail(e, TELEFORK_E_SYSTEM, "%s is not understood", path) : 0;
}

int tf_smaps_each(struct tf_arena *a, const char *path,
	void (*fn)(void *ctx, const struct tf_smap *m), void *ctx, struct tf_err *e)
{
	TF_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct smaps s = {.fn = fn, .ctx = ctx};
	char *text = (char *)a->base + a->used;
	int rc;

	if (fd < 0)
		return tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "%s", path);
	if (!tf_arena_ready(a, 2 * READ_STEP))
		return tf_fail(e, TELEFORK_E_NOMEM, "out of memory for %s", path);
	rc = smaps_text(&s, fd, text, path, e);
	memset(text, 0, s.most); /* what is not allocated is zero */
	return rc;
}

void tf_vmflags_text(uint32_t vmflags, char *buf, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < N_VMFLAGS; i++) {
		if (!(vmflags & vmflag_names[i].flag) || n + 4 > size)
			continue;
		if (n)
			buf[n++] = ' ';
		memcpy(buf + n, vmflag_names[i].name, 2);
		n += 2;
	}
	if (size)
		buf[n] = '\0';
}
