/* SPDX-License-Identifier: MIT */
/*
 * The same by soft-dirty bits, Documentation/admin-guide/mm/soft-dirty.rst: for older kernels, and
 * processes that may have no userfaultfd. Nobody tells which pages were written to and forgets it
 * in one step: so the process stands while each page's word is read and then all bits are cleared.
 *
 * A bit is of a page table's entry, and those are moved whole by mremap(2): a page that is not
 * where it was is known by its frame's number, which takes CAP_SYS_ADMIN. The bit is clear and the
 * frame the same: it is the page that was seen, and nobody wrote to it.
 */
#include "core/base/cleanup.h"
#include "core/capture/pagemap.h"
#include "core/capture/task_impl.h"
#include "core/capture/track_soft.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WHICH (TF_PM_PRESENT | TF_PM_SWAPPED | TF_PM_FRAME) /* page */

/* More would be more words than anybody has room for. */
#define MOST (UINT64_C(64) << 30)

static uint64_t page_size(void)
{
	return (uint64_t)sysconf(_SC_PAGESIZE);
}

/* --- words --- */

static void words_done(struct tf_words *w)
{
	if (w->word)
		munmap(w->word, w->size);
	free(w->first);
	tf_runs_done(&w->where);
	*w = (struct tf_words){0};
}

/* Room for those of the pages of where, which is taken over. */
static int words_make(struct tf_words *w, struct tf_runs *where)
{
	uint64_t n = 0;

	*w = (struct tf_words){.where = *where};
	*where = (struct tf_runs){0};
	w->first = malloc((w->where.n + 1) * sizeof(*w->first));
	for (size_t i = 0; i < w->where.n && w->first; i++) {
		w->first[i] = n;
		n += (w->where.v[i].end - w->where.v[i].start) / page_size();
	}
	w->size = n * sizeof(*w->word);
	if (!w->first || !n)
		return w->first ? 0 : TELEFORK_E_NOMEM;
	w->word = mmap(NULL, w->size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (w->word != MAP_FAILED)
		return 0;
	w->word = NULL;
	return TELEFORK_E_NOMEM;
}

static int read_words(int pagemap, uint64_t start, uint64_t end, uint64_t *word, struct tf_err *e)
{
	uint64_t page = page_size();
	size_t n = (size_t)((end - start) / page) * sizeof(*word), done = 0;

	while (done < n) {
		ssize_t got = pread(pagemap, (uint8_t *)word + done, n - done,
			(off_t)(start / page * sizeof(*word) + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return tf_fail_errno(e, TELEFORK_E_SYSTEM, got ? errno : EIO,
				"pagemap at %llx", (unsigned long long)start);
		done += (size_t)got;
	}
	return 0;
}

/* The word that the page at address had, 0: nobody knows; *i: the first run that may have it. */
static uint64_t word_at(const struct tf_words *w, uint64_t address, size_t *i)
{
	while (*i < w->where.n && w->where.v[*i].end <= address)
		++*i;
	if (*i == w->where.n || w->where.v[*i].start > address)
		return 0;
	return w->word[w->first[*i] + (address - w->where.v[*i].start) / page_size()];
}

static bool is_there(uint64_t word)
{
	return word & (TF_PM_PRESENT | TF_PM_SWAPPED);
}

static bool is_clean(uint64_t now, uint64_t before)
{
	return !(now & TF_PM_SOFT_DIRTY) && !((now ^ before) & WHICH);
}

/* --- whether it can be --- */

/* Of a page that was just written to. */
static bool is_told(void)
{
	uint64_t page = page_size(), word = 0;
	TF_CLOSE int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint8_t *at = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct tf_err quiet = {0};

	if (at == MAP_FAILED)
		return false;
	*at = 1;
	if (pagemap < 0 || read_words(pagemap, (uint64_t)at, (uint64_t)at + page, &word, &quiet))
		word = 0;
	munmap(at, page);
	return word & TF_PM_SOFT_DIRTY && word & TF_PM_FRAME;
}

int tf_soft_begin(struct tf_track *k, struct tf_err *e)
{
	char path[64];

	if (!is_told())
		return tf_fail(e, TELEFORK_E_UNSUPPORTED,
			"no soft-dirty bits (CONFIG_MEM_SOFT_DIRTY, CAP_SYS_ADMIN)");
	snprintf(path, sizeof(path), "/proc/%d/clear_refs", (int)k->pid);
	k->clear = open(path, O_WRONLY | O_CLOEXEC);
	if (k->clear < 0)
		return tf_fail_errno(e, TELEFORK_E_UNSUPPORTED, errno, "%s", path);
	return 0;
}

void tf_soft_end(struct tf_track *k)
{
	tf_closep(&k->clear);
	words_done(&k->words);
	tf_runs_done(&k->written);
}

/* --- rounds --- */

/* What fits. */
static int choose(const struct tf_runs *where, struct tf_runs *ret)
{
	uint64_t size = 0;
	int rc = 0;

	for (size_t i = 0; i < where->n && !rc; i++) {
		uint64_t n = where->v[i].end - where->v[i].start;

		if (n > MOST - size)
			continue;
		size += n;
		rc = tf_runs_add(ret, where->v[i].start, where->v[i].end);
	}
	return rc;
}

static int see_all(struct tf_track *k, struct tf_words *now, struct tf_err *e)
{
	uint64_t *word = now->word;
	int rc = 0;

	for (size_t i = 0; i < now->where.n && !rc; i++) {
		const struct tf_run *r = &now->where.v[i];

		rc = read_words(k->pagemap, r->start, r->end, word, e);
		word += (r->end - r->start) / page_size();
	}
	if (!rc && write(k->clear, "4", 1) != 1)
		rc = tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "clear_refs");
	return rc;
}

static int see_all_standing(struct tf_track *k, struct tf_words *now, struct tf_err *e)
{
	struct tf_task t;
	int rc = tf_task_pause(&t, k->pid);

	if (rc)
		tf_fail(e, rc, "%s", t.capture.err.text);
	else
		rc = see_all(k, now, e);
	tf_task_release(&t);
	return rc;
}

static int find_written(struct tf_track *k, const struct tf_words *now)
{
	uint64_t page = page_size();
	const uint64_t *word = now->word;
	size_t i = 0;
	int rc = 0;

	tf_runs_clear(&k->written);
	for (size_t r = 0; word && r < now->where.n; r++)
		for (uint64_t at = now->where.v[r].start; at < now->where.v[r].end && !rc;
			at += page, word++)
			if (is_there(*word) && !is_clean(*word, word_at(&k->words, at, &i)))
				rc = tf_runs_add(&k->written, at, at + page);
	return rc;
}

/* What is not asked for now is not known any more: its bits are gone, too. */
int tf_soft_round(struct tf_track *k, const struct tf_runs *where, struct tf_err *e)
{
	struct tf_runs some = {0};
	struct tf_words now = {0};
	int rc = choose(where, &some);

	if (!rc)
		rc = words_make(&now, &some);
	tf_runs_done(&some);
	if (rc)
		tf_fail(e, rc, "out of memory for a word for each page");
	if (!rc)
		rc = see_all_standing(k, &now, e);
	if (!rc && find_written(k, &now))
		rc = tf_fail(e, TELEFORK_E_NOMEM, "out of memory");
	words_done(rc ? &now : &k->words);
	if (!rc)
		k->words = now;
	return rc;
}

bool tf_soft_is_ours(const struct tf_track *k, uint64_t start, uint64_t end)
{
	size_t i = tf_runs_find(&k->words.where, start);

	return i < k->words.where.n && k->words.where.v[i].start <= start &&
	       k->words.where.v[i].end >= end;
}

int tf_soft_written(const struct tf_track *k, uint64_t start, uint64_t end, struct tf_runs *ret)
{
	int rc = 0;

	for (size_t i = tf_runs_find(&k->written, start);
		i < k->written.n && k->written.v[i].start < end && !rc; i++) {
		const struct tf_run *r = &k->written.v[i];

		rc = tf_runs_add(
			ret, r->start > start ? r->start : start, r->end < end ? r->end : end);
	}
	return rc;
}

int tf_soft_look(const struct tf_track *k, int pagemap, uint64_t start, uint64_t end,
	int (*page)(void *ctx, uint64_t start, uint64_t end, bool clean), void *ctx,
	struct tf_err *e)
{
	size_t i = tf_runs_find(&k->words.where, start);
	uint64_t size = page_size(), word[512];
	int rc = 0;

	for (uint64_t at = start, stop; at < end && !rc; at = stop) {
		stop = end - at < 512 * size ? end : at + 512 * size;
		rc = read_words(pagemap, at, stop, word, e);
		for (uint64_t p = at, n = 0; p < stop && !rc; p += size, n++)
			/* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): it was read */
			if (is_there(word[n]))
				rc = page(ctx, p, p + size,
					is_clean(word[n], word_at(&k->words, p, &i)));
	}
	return rc;
}
