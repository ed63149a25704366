/* SPDX-License-Identifier: MIT */
/*
 * The process's memory: which mappings can travel, which pages are present, and their bytes on the
 * way out. Walked once, from where it lies; what was sent is dropped from the snapshot, so that the
 * program's later writes need not copy it. Forked child: no allocator, no
 * lock. */
#include "core/capture/capture.h"
#include "arch/arch.h"
#include "core/base/guest.h"
#include "core/base/host.h"
#include "core/base/own.h"
#include "core/base/maps.h"
#include "core/base/zero.h"
#include "core/capture/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define SCAN_REGIONS 256

/* Mappings larger than this are looked at through mincore() first, in windows of WINDOW bytes: it
 * skips empty page tables, where pagemap writes eight bytes for each absent page. */
#define LARGE_MAP (UINT64_C(64) << 20)
#define SPLIT_GAP (UINT64_C(256) << 20)

#define EMULATOR_PAGES 8

/* Names what cannot travel. Everything is looked at, so that all reasons are told at once. */
static void check_map(struct tf_capture *c, const struct tf_map *m)
{
	const char *p = m->path;
	bool shared = m->flags & TF_MAP_SHARED;
	const char *why = NULL;

	if (m->vmflags & TF_VMF_MTE && (c->returns || !tf_map_may_have_tags(m)))
		why = "has memory tags (PROT_MTE)";
	else if (strstr(p, "hugepage"))
		why = "uses hugetlb pages";
	else if (m->kind != TF_MAP_FILE)
		return;
	else if (!strncmp(p, "/dev/", 5) && strncmp(p, "/dev/shm/", 9))
		why = "is a device's memory";
	else if (p[0] != '/')
		why = "is no memory of a file";
	else if (shared && ((m->prot & PROT_WRITE) || (m->vmflags & TF_VMF_MAYWRITE)))
		why = "is a writable shared mapping of a file";
	if (why)
		tf_fail_more(&c->err, TELEFORK_E_UNSUPPORTED,
			"mapping %llx-%llx (%s) %s and cannot travel: unmap it before the call",
			(unsigned long long)m->start, (unsigned long long)m->end, p, why);
}

/* Copies the resident pages of a shared mapping to copy. mincore() does not see what is swapped
 * out, so with swap in use every page is read. */
static void freeze_one(struct tf_capture *c, const struct tf_map *m, uint8_t *copy, bool swap)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), size = m->end - m->start;
	unsigned char seen[1024];

	if (!(m->prot & PROT_READ))
		mprotect((void *)m->start, size, PROT_READ);
	for (size_t at = 0; at < size; at += sizeof(seen) * page) {
		size_t n = size - at < sizeof(seen) * page ? size - at : sizeof(seen) * page;

		if (swap || mincore((void *)(m->start + at), n, seen))
			memset(seen, 1, sizeof(seen));
		for (size_t i = 0; i < n / page; i++) {
			const void *from = (const void *)(m->start + at + i * page);

			if ((seen[i] & 1) && !tf_all_zero(from, page))
				memcpy(copy + at + i * page, from, page);
		}
	}
	c->frozen[c->n_frozen++] = (struct tf_frozen){m->start, m->end, copy};
}

static bool is_frozen_kind(const struct tf_map *m)
{
	return (m->flags & TF_MAP_SHARED) && m->kind == TF_MAP_ANON;
}

uint32_t tf_capture_cut(struct tf_map *maps, uint32_t n, uint64_t start, uint64_t end)
{
	uint32_t i = 0, last;

	while (i < n && maps[i].end <= start)
		i++;
	if (start == end || i == n || maps[i].start >= end)
		return n;
	if (maps[i].start < start && maps[i].end > end) {
		memmove(&maps[i + 1], &maps[i], (n - i) * sizeof(*maps));
		maps[i].end = maps[i].data_end = start;
		maps[i + 1].start = end;
		return n + 1;
	}
	if (maps[i].start < start) {
		maps[i].end = maps[i].data_end = start;
		i++;
	}
	for (last = i; last < n && maps[last].end <= end; last++)
		;
	if (last < n && maps[last].start < end)
		maps[last].start = end;
	memmove(&maps[i], &maps[last], (n - last) * sizeof(*maps));
	return n - (last - i);
}

/* In a copy under QEMU user mode: the pages that the emulator it landed in put beside it. */
static void cut_emulator(struct tf_image *img)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), pages[EMULATOR_PAGES];
	unsigned n;

	if (!tf_mailbox.generation || !tf_host_emulated())
		return;
	n = tf_arch_emulator_pages(pages, EMULATOR_PAGES);
	for (unsigned i = 0; i < n; i++)
		img->n_maps = tf_capture_cut(img->maps, img->n_maps, pages[i], pages[i] + page);
}

/* Without what is not the program's: our arena, frozen copies, and the range that an earlier
 * restorer left behind. The kernel may have merged them with the program's own neighbours. */
int tf_capture_read_maps(struct tf_capture *c)
{
	struct tf_image *img = &c->image;
	uint64_t arena = (uint64_t)c->arena.base, frozen = (uint64_t)c->frozen_base;
	int rc = tf_guest_maps(&c->arena, 3 + EMULATOR_PAGES, &img->maps, &img->n_maps, &c->err);

	if (rc)
		return rc;
	img->n_maps = tf_capture_cut(img->maps, img->n_maps, arena, arena + c->arena.size);
	img->n_maps = tf_capture_cut(img->maps, img->n_maps, frozen, frozen + c->frozen_size);
	img->n_maps = tf_capture_cut(img->maps, img->n_maps, tf_mailbox.hole_start,
		tf_mailbox.hole_start + tf_mailbox.hole_size);
	cut_emulator(img);
	return 0;
}

static int freeze_shared(struct tf_capture *c, uint32_t n)
{
	const struct tf_image *img = &c->image;
	struct sysinfo si = {0};
	uint8_t *at;

	c->frozen = tf_arena_array(&c->arena, n, sizeof(*c->frozen));
	at = mmap(NULL, c->frozen_size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!c->frozen || at == MAP_FAILED)
		return tf_fail(&c->err, TELEFORK_E_NOMEM,
			"no room for a copy of %llu bytes of shared mappings",
			(unsigned long long)c->frozen_size);
	c->frozen_base = at;
	sysinfo(&si);
	for (uint32_t i = 0; i < img->n_maps; i++)
		if (is_frozen_kind(&img->maps[i])) {
			freeze_one(c, &img->maps[i], at, si.freeswap != si.totalswap);
			at += img->maps[i].end - img->maps[i].start;
		}
	return 0;
}

int tf_capture_freeze(struct tf_capture *c)
{
	struct tf_image *img = &c->image;
	uint32_t shared = 0;
	int rc = tf_capture_read_maps(c);

	if (rc)
		return rc;
	for (uint32_t i = 0; i < img->n_maps; i++) {
		check_map(c, &img->maps[i]);
		if (is_frozen_kind(&img->maps[i])) {
			c->frozen_size += img->maps[i].end - img->maps[i].start;
			shared++;
		}
	}
	if (c->err.code)
		return c->err.code;
	return shared ? freeze_shared(c, shared) : 0;
}

struct vmflags_taker {
	struct tf_capture *c;
	uint32_t at;
};

/* Both lists are sorted. */
static void take_vmflags(void *ctx, const struct tf_smap *m)
{
	struct vmflags_taker *t = ctx;
	struct tf_image *img = &t->c->image;

	while (t->at < img->n_maps && img->maps[t->at].start < m->start)
		t->at++;
	if (t->at == img->n_maps || img->maps[t->at].start != m->start)
		return;
	img->maps[t->at].vmflags = m->vmflags;
	check_map(t->c, &img->maps[t->at]);
	/* What could be written to is told above; the copy's mapping is memory, and has no such
	 * bit. */
	img->maps[t->at].vmflags &= ~TF_VMF_MAYWRITE;
}

/* Takes the flags that only smaps has, and refuses what only they show. */
int tf_capture_read_vmflags(struct tf_capture *c)
{
	struct vmflags_taker t = {.c = c};
	int rc;

	if (c->image.source.flags & TF_SOURCE_NO_SMAPS)
		return 0;
	rc = tf_smaps_each(&c->arena, "/proc/self/smaps", take_vmflags, &t, &c->err);
	return rc ? rc : c->err.code;
}

int tf_capture_add_run(struct tf_capture *c, uint64_t start, uint64_t end)
{
	struct tf_run *last = c->n_runs > c->map_runs ? &c->runs[c->n_runs - 1] : NULL;

	c->memory += end - start;
	if (last && last->end == start) {
		last->end = end;
		return 0;
	}
	/* Runs grow at the arena's end: nothing else is allocated while they do. */
	if (!tf_arena_alloc(&c->arena, sizeof(*last)))
		return tf_fail(&c->err, TELEFORK_E_NOMEM, "out of memory for the list of pages");
	c->runs[c->n_runs++] = (struct tf_run){start, end};
	return 0;
}

/* One call: regions that are there, and how far it got. */
static int scan_once(
	int pagemap, uint64_t *start, uint64_t end, struct tf_page_region *region, uint32_t room)
{
	struct tf_pm_scan arg = {
		.size = sizeof(arg),
		.start = *start,
		.end = end,
		.vec = (uint64_t)region,
		.vec_len = room,
		.category_inverted = TF_PAGE_PFNZERO,
		.category_mask = TF_PAGE_PFNZERO,
		.category_anyof_mask = TF_PAGE_PRESENT | TF_PAGE_SWAPPED,
		.return_mask = TF_PAGE_PRESENT | TF_PAGE_SWAPPED | TF_PAGE_HUGE,
	};
	int n = ioctl(pagemap, TF_PAGEMAP_SCAN, &arg);

	*start = arg.walk_end > *start ? arg.walk_end : end;
	return n;
}

/* One call tells a whole mapping's present pages. -ENOTTY where the kernel is older than 6.7. */
static int scan_new(struct tf_capture *c, int pagemap, uint64_t start, uint64_t end)
{
	struct tf_page_region region[SCAN_REGIONS];

	while (start < end) {
		int n = scan_once(pagemap, &start, end, region, SCAN_REGIONS);

		if (n < 0)
			return -ENOTTY;
		for (int i = 0; i < n; i++) {
			int rc = tf_capture_add_run(c, region[i].start, region[i].end);

			if (region[i].categories & TF_PAGE_HUGE)
				c->huge += region[i].end - region[i].start;
			if (rc)
				return rc;
		}
	}
	return 0;
}

uint32_t tf_capture_present(struct tf_capture *c, int pagemap, const struct tf_run *in,
	struct tf_run *ret, uint32_t room)
{
	struct tf_page_region region[SCAN_REGIONS];
	uint64_t start = in->start;
	int n = scan_once(
		pagemap, &start, in->end, region, room < SCAN_REGIONS ? room : SCAN_REGIONS);

	if (n < 0) { /* nothing is taken for absent that may not be */
		*ret = *in;
		return 1;
	}
	for (int i = 0; i < n; i++) {
		ret[i] = (struct tf_run){region[i].start, region[i].end};
		if (region[i].categories & TF_PAGE_HUGE)
			c->huge += region[i].end - region[i].start;
	}
	return (uint32_t)n;
}

static int scan_old(struct tf_capture *c, int pagemap, uint64_t start, uint64_t end)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint64_t entry[512];

	for (uint64_t at = start; at < end;) {
		size_t n = (end - at) / page < 512 ? (end - at) / page : 512;
		ssize_t got = pread(pagemap, entry, n * 8, (off_t)(at / page * 8));

		if (got <= 0)
			return tf_fail_errno(&c->err, TELEFORK_E_SYSTEM, got ? errno : EIO,
				"/proc/self/pagemap at %llx", (unsigned long long)at);
		for (size_t i = 0; i < (size_t)got / 8; i++) {
			uint64_t bits = entry[i] & (TF_PM_PRESENT | TF_PM_SWAPPED);
			uint64_t page_at = at + i * page;

			if (bits && tf_capture_add_run(c, page_at, page_at + page))
				return c->err.code;
		}
		at += (uint64_t)got / 8 * page;
	}
	return 0;
}

/* An enormous, nearly empty reservation: only windows with a resident page are scanned. */
static int scan_windows(struct tf_capture *c, int pagemap, uint64_t start, uint64_t end)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	unsigned char seen[4096];
	uint64_t window = sizeof(seen) * page;
	int rc = 0;

	for (uint64_t at = start; at < end && !rc; at += window) {
		uint64_t n = end - at < window ? end - at : window;

		memset(seen, 0, sizeof(seen));
		if (mincore((void *)at, n, seen) || !tf_all_zero(seen, sizeof(seen)))
			rc = scan_old(c, pagemap, at, at + n);
	}
	return rc;
}

static int scan_anon(struct tf_capture *c, int pagemap, const struct tf_map *m, bool swap)
{
	TF_OWN static bool no_scan;
	int rc;

	if (!no_scan) {
		rc = scan_new(c, pagemap, m->start, m->end);
		if (rc != -ENOTTY)
			return rc;
		no_scan = true;
	}
	if (m->end - m->start >= LARGE_MAP && !swap)
		return scan_windows(c, pagemap, m->start, m->end);
	return scan_old(c, pagemap, m->start, m->end);
}

bool tf_capture_lists_pages(int pagemap)
{
	struct tf_pm_scan arg = {.size = sizeof(arg)};

	return ioctl(pagemap, TF_PAGEMAP_SCAN, &arg) >= 0;
}

int tf_capture_scan(struct tf_capture *c, int pagemap, uint64_t start, uint64_t end)
{
	int rc = scan_new(c, pagemap, start, end);

	return rc == -ENOTTY ? scan_old(c, pagemap, start, end) : rc;
}

/* Bytes of the file that is mapped there, if its name still leads to it; else 0. Neighbours are
 * mostly of one file. */
static uint64_t file_size(struct tf_ends *ends, const struct tf_map *m)
{
	char path[TF_MAX_STR + sizeof("/proc/2147483647/root")];
	struct stat st;

	if (ends->size && ends->dev == m->dev && ends->ino == m->ino)
		return ends->size;
	ends->size = 0;
	snprintf(path, sizeof(path), "/proc/%d/root%s", (int)ends->pid, m->path);
	if (!m->ino || stat(path, &st) || !S_ISREG(st.st_mode) || st.st_ino != m->ino ||
		m->dev != ((uint64_t)major(st.st_dev) << 32 | minor(st.st_dev)))
		return 0;
	ends->size = (uint64_t)st.st_size;
	ends->dev = m->dev;
	ends->ino = m->ino;
	return ends->size;
}

/* Where a mapping of a file has to end: beyond the file's last page every access is SIGBUS, and
 * /proc/self/mem says EIO. Where its size is not known or it is shorter, binary search over
 * pages. */
uint64_t tf_capture_find_end(struct tf_ends *ends, int mem, const struct tf_map *m)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint64_t low = m->start, high = m->end; /* all below low is readable, high is not */
	char byte;

	if (file_size(ends, m) > m->offset + (m->end - page - m->start))
		return m->end;
	if (pread(mem, &byte, 1, (off_t)(m->end - page)) == 1)
		return m->end;
	while (high - low > page) {
		uint64_t middle = low + (high - low) / page / 2 * page;

		if (pread(mem, &byte, 1, (off_t)middle) == 1)
			low = middle;
		else
			high = middle;
	}
	return pread(mem, &byte, 1, (off_t)low) == 1 ? high : low;
}

const struct tf_frozen *tf_capture_frozen_at(const struct tf_capture *c, uint64_t addr)
{
	for (uint32_t i = 0; i < c->n_frozen; i++)
		if (addr >= c->frozen[i].start && addr < c->frozen[i].end)
			return &c->frozen[i];
	return NULL;
}

/* The copy's own runs, moved to the addresses they stand for. */
static int scan_frozen(struct tf_capture *c, int pagemap, const struct tf_frozen *f, bool swap)
{
	struct tf_map copy = {
		.start = (uint64_t)f->copy, .end = (uint64_t)f->copy + (f->end - f->start)};
	uint64_t from = c->n_runs;
	int rc = scan_anon(c, pagemap, &copy, swap);

	for (; from < c->n_runs; from++) {
		c->runs[from].start += f->start - copy.start;
		c->runs[from].end += f->start - copy.start;
	}
	return rc;
}

uint64_t tf_capture_readable_end(const struct tf_map *m)
{
	int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	struct tf_ends ends = {.pid = getpid()};
	uint64_t end = mem < 0 ? m->start : tf_capture_find_end(&ends, mem, m);

	close(mem);
	return end;
}

static int scan_map(struct tf_capture *c, struct tf_ends *ends, int pagemap, int mem,
	struct tf_map *m, bool swap)
{
	const struct tf_frozen *f;

	switch (m->kind) {
	case TF_MAP_VVAR:
		m->data_end = m->start;
		return 0;
	case TF_MAP_FILE:
		m->data_end = tf_capture_find_end(ends, mem, m);
		/* fall through */
	case TF_MAP_VDSO:
		return m->data_end > m->start ? tf_capture_add_run(c, m->start, m->data_end) : 0;
	default:
		f = tf_capture_frozen_at(c, m->start);
		if (f)
			return scan_frozen(c, pagemap, f, swap);
		return scan_anon(c, pagemap, m, swap);
	}
}

void tf_capture_begin_runs(struct tf_capture *c)
{
	c->runs = (struct tf_run *)(void *)(c->arena.base + c->arena.used);
	c->n_runs = c->map_runs = 0;
}

int tf_capture_find_pages(struct tf_capture *c)
{
	struct tf_ends ends = {.pid = getpid()};
	struct sysinfo si = {0};
	int pagemap, mem, rc = tf_capture_read_vmflags(c);
	bool swap;

	if (rc)
		return rc;
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	if (pagemap < 0 || mem < 0)
		return tf_fail_errno(
			&c->err, TELEFORK_E_SYSTEM, errno, "/proc/self/pagemap or mem");
	sysinfo(&si);
	swap = si.freeswap != si.totalswap;
	tf_capture_begin_runs(c);
	for (uint32_t i = 0; i < c->image.n_maps && !rc; i++) {
		c->map_runs = c->n_runs; /* runs of neighbouring mappings do not grow together */
		rc = scan_map(c, &ends, pagemap, mem, &c->image.maps[i], swap);
	}
	close(pagemap);
	close(mem);
	return rc;
}

static bool near(const struct tf_run *r, const void *p)
{
	const uint64_t margin = 1u << 20;

	return (uint64_t)p + margin >= r->start && (uint64_t)p < r->end + margin;
}

static bool holds(const struct tf_map *m, const void *p)
{
	return (uint64_t)p >= m->start && (uint64_t)p < m->end;
}

/* Data of a program or library. Ours is among it, and in a static program it lies anywhere; the
 * dynamic linker writes to its own and to tables of the caller when a function is called for the
 * first time. */
static bool is_data(const struct tf_capture *c, const struct tf_map *m)
{
	if (m->kind == TF_MAP_FILE)
		return m->prot & PROT_WRITE;
	return m > c->image.maps && m[-1].end == m->start && m[-1].kind == TF_MAP_FILE;
}

/* Whether we write there ourselves while sending: errno, the stack, and data. */
static bool ours_to_write(
	const struct tf_capture *c, const struct tf_map *m, const struct tf_run *r)
{
	return near(r, __builtin_frame_address(0)) || near(r, __builtin_thread_pointer()) ||
	       is_data(c, m) || holds(m, c) || holds(m, &tf_mailbox);
}

/* What may change between its check and its departure leaves by way of a copy. */
static int send_copied(struct tf_capture *c, uint64_t offset, const uint8_t *data, uint64_t size)
{
	int rc = 0;

	if (!c->bounce)
		c->bounce = tf_arena_alloc(&c->arena, TF_EXTENT_SIZE);
	if (!c->bounce)
		return tf_fail(&c->err, TELEFORK_E_NOMEM, "out of memory for a buffer");
	for (uint64_t at = 0; at < size && !rc; at += TF_EXTENT_SIZE) {
		uint64_t n = size - at < TF_EXTENT_SIZE ? size - at : TF_EXTENT_SIZE;

		memcpy(c->bounce, data + at, n);
		if ((uint8_t *)&errno >= data + at && (uint8_t *)(&errno + 1) <= data + at + n)
			memcpy(c->bounce + ((uint8_t *)&errno - (data + at)),
				&c->before.saved_errno, sizeof(errno));
		rc = tf_sink_data(&c->sink, offset + at, c->bounce, n, NULL, &c->err);
		if (!rc)
			rc = tf_sink_flush(&c->sink, &c->err);
	}
	return rc;
}

int tf_capture_send_run(struct tf_capture *c, const struct tf_run *r)
{
	const struct tf_frozen *f = c->base ? NULL : tf_capture_frozen_at(c, r->start);
	const struct tf_map *m = tf_image_map_at(&c->image, r->start);
	uint8_t *data = f ? f->copy + (r->start - f->start) : (uint8_t *)r->start;
	uint64_t size = r->end - r->start;

	/* The child is a throw-away: what it may not read it makes readable. */
	if (!f && m && !(m->prot & PROT_READ) && c->drop && mprotect(data, size, PROT_READ))
		return tf_fail_errno(&c->err, TELEFORK_E_SYSTEM, errno,
			"mapping %llx-%llx cannot be read: mprotect", (unsigned long long)m->start,
			(unsigned long long)m->end);
	if (!f && m && ours_to_write(c, m, r))
		return send_copied(c, tf_image_offset(&c->image, r->start), data, size);
	return tf_sink_data(
		&c->sink, tf_image_offset(&c->image, r->start), data, size, NULL, &c->err);
}

/* Whether sent pages of the snapshot can be given back, so that the parent writes to them without a
 * copy: only what nothing of ours lies in. The child runs on its stack, its thread's control block
 * and the data of the C library and this one, which the kernel may have merged with the program's
 * own mappings. */
static bool may_drop(const struct tf_capture *c, const struct tf_run *r)
{
	const struct tf_map *m = tf_image_map_at(&c->image, r->start);

	return c->drop && m && m->kind == TF_MAP_ANON && !(m->flags & TF_MAP_SHARED) &&
	       !ours_to_write(c, m, r);
}

/* Pages are sent and dropped in steps, so that the drop comes soon after;
 * huge pages in one piece. */
#define DROP_STEP (UINT64_C(2) << 20)

/* A step, and what it was is dropped. */
static int send_step(struct tf_capture *c, const struct tf_run *r)
{
	bool drop = r->end - r->start == DROP_STEP && may_drop(c, r);
	int rc = tf_capture_send_run(c, r);

	if (!rc && drop)
		rc = tf_sink_flush(&c->sink, &c->err);
	if (!rc && drop)
		madvise((void *)r->start, DROP_STEP, MADV_DONTNEED);
	return rc;
}

/* Whether the program has written to that page since, and has one of its own. */
static bool is_overtaken(int parent, uint64_t at)
{
	uint64_t entry = 0;

	return parent >= 0 &&
	       pread(parent, &entry, sizeof(entry),
		       (off_t)(at / (uint64_t)sysconf(_SC_PAGESIZE) * sizeof(entry))) ==
		       sizeof(entry) &&
	       entry & TF_PM_EXCLUSIVE;
}

/* From the beginning on, before the program gets there. If it has, it may well go on that way: then
 * from the end. parent: the program's pagemap, or -1. */
static int send_large(struct tf_capture *c, const struct tf_run *r, int parent)
{
	struct tf_run left = *r;
	int rc = 0;

	while (left.start < left.end && !rc) {
		uint64_t low = (left.start + DROP_STEP) & ~(DROP_STEP - 1);
		uint64_t high = (left.end - 1) & ~(DROP_STEP - 1);
		struct tf_run part = left;

		if (left.end - left.start > DROP_STEP && is_overtaken(parent, left.start))
			left.end = part.start = high > left.start ? high : left.start;
		else
			left.start = part.end = low < left.end ? low : left.end;
		rc = send_step(c, &part);
	}
	return rc;
}

static int open_parents_pagemap(const struct tf_capture *c)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)c->before.pid);
	return c->drop ? open(path, O_RDONLY | O_CLOEXEC) : -1;
}

static int send_memory(struct tf_capture *c)
{
	int parent = open_parents_pagemap(c), rc = 0;

	for (uint64_t i = 0; i < c->n_runs && !rc; i++)
		if (!tf_known_later(c, &c->runs[i]))
			rc = send_large(c, &c->runs[i], parent);
	if (parent >= 0)
		close(parent);
	return rc;
}

int tf_capture_send_head(struct tf_capture *c, uint32_t stream_flags)
{
	uint8_t *head;
	uint64_t extents;
	int rc = tf_image_make_segments(&c->image, &c->arena, c->runs, c->n_runs, SPLIT_GAP);

	if (!rc)
		rc = tf_image_encode(&c->image, &c->arena, &head);
	if (rc)
		return tf_fail(&c->err, rc, "the description of the process is too large");
	extents = (c->image.head_size + c->memory) / TF_EXTENT_SIZE + 2 * c->n_runs + 64;
	rc = tf_sink_begin(&c->sink, &c->io, c->file, &c->image, c->memory, stream_flags,
		extents < TF_MAX_EXTENTS ? (uint32_t)extents : TF_MAX_EXTENTS, &c->arena, &c->err);
	if (!rc)
		rc = tf_sink_data(&c->sink, 0, head, c->image.head_size, NULL, &c->err);
	return rc ? rc : tf_sink_flush(&c->sink, &c->err); /* the plan takes its time */
}

int tf_capture_send(struct tf_capture *c, uint32_t stream_flags)
{
	bool offers = tf_known_offers(c);
	int rc = 0;

	c->known = NULL; /* of a capture before, in a copy that comes back */
	if (offers)
		rc = tf_known_begin(c);

	if (!rc)
		rc = tf_capture_send_head(c, stream_flags | (offers ? TF_STREAM_OFFER : 0));
	if (!rc)
		rc = send_memory(c);
	if (!rc && offers)
		rc = tf_known_send(c);
	return rc ? rc : tf_sink_end(&c->sink, &c->image, &c->err);
}
