/* SPDX-License-Identifier: MIT */
/*
 * Capture while the process runs on, see task.h. While it stands: what a fork does not have (its
 * threads, signals, descriptors), the fork, and memory that a fork does not freeze or keep. All
 * else is read from the fork afterwards.
 *
 * Which memory that is, is in smaps, and with tens of thousands of mappings that takes longer than
 * the fork. So it is looked at before the process is stopped, and the fork's own mappings tell
 * afterwards whether that was still true. If it was not, it is done again, slowly and exactly. Of a
 * post-copy only maps is looked at before, and what that does not tell counts as not true.
 */
#include "core/capture/task_call.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/base/maps.h"

/* Pages of it that others write to are in no fork, or are not what they were. */
static bool is_kept(const struct tf_map *m)
{
	if (m->kind == TF_MAP_VDSO || m->kind == TF_MAP_VVAR)
		return false;
	/* Huge pages that are written to are taken from a fork, where there are no more. */
	if (m->vmflags & (TF_VMF_DONTFORK | TF_VMF_WIPEONFORK | TF_VMF_HUGETLB) || m->object)
		return true;
	return m->flags & TF_MAP_SHARED && (m->prot & PROT_WRITE || m->vmflags & TF_VMF_MAYWRITE);
}

static int keep_one(struct tf_task *t, const struct tf_map *m, uint8_t *copy)
{
	bool file = m->kind == TF_MAP_FILE && !m->object;
	struct tf_ends ends = {.pid = t->pid};
	uint64_t end = file ? tf_capture_find_end(&ends, t->mem, m) : m->end;
	struct tf_capture *c = &t->capture;

	c->frozen[c->n_frozen++] = (struct tf_frozen){m->start, end, copy};
	if (m->object)
		return tf_task_object_copy(t, m, copy);
	return end > m->start ? tf_task_read(t, m->start, copy, end - m->start) : 0;
}

static int keep(struct tf_task *t, const struct tf_map *maps, uint32_t n)
{
	struct tf_capture *c = &t->capture;
	uint64_t at = 0;
	uint32_t kept = 0;
	int rc = 0;

	for (uint32_t i = 0; i < n; i++)
		if (is_kept(&maps[i])) {
			c->frozen_size += maps[i].end - maps[i].start;
			kept++;
		}
	if (!kept)
		return 0;
	c->frozen = tf_arena_array(&c->arena, kept, sizeof(*c->frozen));
	c->frozen_base = mmap(NULL, c->frozen_size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (c->frozen_base == MAP_FAILED)
		c->frozen_base = NULL;
	if (!c->frozen || !c->frozen_base)
		return tf_fail(&c->err, TELEFORK_E_NOMEM,
			"no room for a copy of %llu bytes of shared mappings",
			(unsigned long long)c->frozen_size);
	for (uint32_t i = 0; i < n && !rc; i++)
		if (is_kept(&maps[i])) {
			rc = keep_one(t, &maps[i], c->frozen_base + at);
			at += maps[i].end - maps[i].start;
		}
	return rc;
}

/* What the fork lacks, the process had marked MADV_DONTFORK. */
static bool is_smaller(const struct tf_task *t)
{
	const struct tf_shot *s = &t->shot;
	char path[TF_TASK_PATH], text[64];
	uint64_t page = t->capture.image.source.page_size;

	snprintf(path, sizeof(path), "/proc/%d/statm", (int)s->x.tid);
	tf_proc_peek(path, text, sizeof(text));
	return strtoull(text, NULL, 10) * page !=
	       tf_text_number(t->status, "\nVmSize:", 10, 0) * 1024 + (s->room ? s->room_size : 0);
}

/* Since it was looked at. */
static bool opens_memory(const struct tf_task *t)
{
	const struct tf_image *img = &t->capture.image;

	for (uint32_t i = 0; i < img->n_fds; i++)
		if (tf_task_opens_memory(&img->fds[i]))
			return true;
	return false;
}

static bool is_exact(const struct tf_task *t)
{
	return t->capture.image.maps;
}

static int keep_all(struct tf_task *t)
{
	const struct tf_image *img = &t->capture.image;

	return is_exact(t) ? keep(t, img->maps, img->n_maps) : keep(t, t->before, t->n_before);
}

static int fork_and_keep(struct tf_asking *q)
{
	struct tf_task *t = q->t;
	const struct tf_image *img = &t->capture.image;

	/* They would see the fork's calls as the program's. */
	if (img->n_filters)
		snprintf(t->stands, sizeof(t->stands), "it has seccomp filters");
	else if (tf_task_keeps_tags(t->before, t->n_before) ||
		 tf_task_keeps_tags(img->maps, img->n_maps))
		snprintf(t->stands, sizeof(t->stands), "it has memory tags that a fork has not");
	else
		return tf_task_fork(q, keep_all);
	return 0;
}

/* Takes over what only the process itself showed, and it only before it stood: locked memory is not
 * inherited. Both lists are sorted. */
static void compare_before(struct tf_task *t)
{
	const struct tf_image *img = &t->capture.image;
	const struct tf_map *b = t->before, *end = b + t->n_before;
	uint64_t locked = 0;

	for (uint32_t i = 0; i < img->n_maps; i++) {
		struct tf_map *m = &img->maps[i];
		bool same;

		while (b < end && b->start < m->start)
			b++;
		same = b < end && b->start == m->start && b->end == m->end;
		t->shot.differs |= is_kept(m) && !(same && is_kept(b));
		t->shot.differs |= tf_task_keeps_tags(m, 1);
		t->shot.differs |= m->key && !(same && b->key); /* which keys there are was asked */
		if (!same || !(b->vmflags & TF_VMF_LOCKED))
			continue;
		m->vmflags |= b->vmflags & (TF_VMF_LOCKED | TF_VMF_ONFAULT);
		locked += m->end - m->start;
	}
	t->shot.differs |= locked / 1024 != tf_text_number(t->status, "\nVmLck:", 10, 0);
}

static int read_shots_maps(struct tf_task *t)
{
	struct tf_image *img = &t->capture.image;
	const struct tf_shot *s = &t->shot;
	int rc = tf_task_describe_maps(t);

	if (rc)
		return rc;
	img->n_maps = tf_capture_cut(img->maps, img->n_maps, s->room, s->room + s->room_size);
	compare_before(t);
	return 0;
}

/* The process runs, and all else is asked of its fork. */
static int turn_to_shot(struct tf_task *t)
{
	int rc;

	tf_task_let_go(t);
	t->shot.differs = !is_exact(t) && (is_smaller(t) || opens_memory(t));
	if (t->shot.differs)
		return 0;
	t->seen = t->shot.x.tid;
	rc = tf_task_open(t);
	if (!rc)
		rc = tf_task_shot_ready(t);
	if (!rc)
		rc = tf_task_ask_shot(t);
	if (!rc)
		rc = tf_task_shot_clean(t);
	return rc || is_exact(t) ? rc : read_shots_maps(t);
}

static int describe_and_fork(struct tf_task *t, bool exact)
{
	const char *why = NULL;
	int rc = tf_task_describe_threads(t);

	exact |= t->opens_memory || tf_task_maps_memory(t->before, t->n_before);
	if (!rc && exact)
		rc = tf_task_describe_aside(t);
	if (!rc && exact)
		rc = tf_task_describe_maps(t);
	if (!rc && exact)
		rc = tf_task_objects(t);
	if (rc)
		return rc;
	if (tf_task_can_ask(t, &why)) {
		rc = tf_task_ask(t, fork_and_keep);
	} else {
		tf_task_unasked(t);
		snprintf(t->stands, sizeof(t->stands), "%s", why);
	}
	if (!rc)
		rc = tf_task_describe_aside(t);
	if (!rc && t->shot.x.tid)
		rc = turn_to_shot(t);
	else if (!rc && !exact)
		rc = tf_task_describe_maps(t);
	return rc || t->shot.differs ? rc : tf_task_describe_rest(t);
}

static bool has_dontfork(const struct tf_task *t)
{
	for (uint32_t i = 0; i < t->n_before; i++)
		if (t->before[i].vmflags & TF_VMF_DONTFORK)
			return true;
	return false;
}

static int take(struct tf_task *t, pid_t pid, bool exact)
{
	int rc = tf_task_begin(t, pid);

	if (!rc && t->may_stop)
		rc = t->may_stop(t->way, &t->capture.err);
	t->may_stop = NULL;
	if (!rc)
		rc = tf_task_halt(t);
	if (!rc)
		rc = describe_and_fork(t, exact || has_dontfork(t));
	if (rc || t->shot.differs)
		tf_task_release(t);
	return rc;
}

int tf_task_snapshot(struct tf_task *t, pid_t pid)
{
	int rc = take(t, pid, false);

	return rc || !t->shot.differs ? rc : take(t, pid, true);
}
