/* SPDX-License-Identifier: MIT */
/* See runs.h: a walk over the borders of two lists at a time. */
#include "core/image/runs.h"

#include <stdlib.h>

int tf_runs_add(struct tf_runs *r, uint64_t start, uint64_t end)
{
	if (start >= end)
		return 0;
	if (r->n && r->v[r->n - 1].end >= start) {
		if (r->v[r->n - 1].end < end)
			r->v[r->n - 1].end = end;
		return 0;
	}
	if (r->n == r->room) {
		size_t room = r->room ? 2 * r->room : 64;
		struct tf_run *v = realloc(r->v, room * sizeof(*v));

		if (!v)
			return TELEFORK_E_NOMEM;
		r->v = v;
		r->room = room;
	}
	r->v[r->n++] = (struct tf_run){start, end};
	return 0;
}

/* Of border k of a list, two for each run. */
static uint64_t border(const struct tf_runs *r, size_t k)
{
	if (k >= 2 * r->n)
		return UINT64_MAX;
	return k & 1 ? r->v[k / 2].end : r->v[k / 2].start;
}

static bool is_in(enum tf_runs_op op, bool a, bool b)
{
	return op == TF_RUNS_EITHER ? a || b : op == TF_RUNS_BOTH ? a && b : a && !b;
}

int tf_runs_make(
	struct tf_runs *ret, enum tf_runs_op op, const struct tf_runs *a, const struct tf_runs *b)
{
	uint64_t start = 0;
	bool inside = false;
	size_t i = 0, j = 0;
	int rc = 0;

	ret->n = 0;
	while ((i < 2 * a->n || j < 2 * b->n) && !rc) {
		uint64_t x = border(a, i), y = border(b, j), at = x < y ? x : y;
		bool now;

		i += x == at;
		j += y == at;
		now = is_in(op, i & 1, j & 1);
		if (inside && !now)
			rc = tf_runs_add(ret, start, at);
		else if (!inside && now)
			start = at;
		inside = now;
	}
	return rc;
}

int tf_runs_change(struct tf_runs *a, enum tf_runs_op op, const struct tf_runs *b)
{
	struct tf_runs new = {0};
	int rc = tf_runs_make(&new, op, a, b);

	if (rc) {
		tf_runs_done(&new);
		return rc;
	}
	tf_runs_done(a);
	*a = new;
	return 0;
}

size_t tf_runs_find(const struct tf_runs *r, uint64_t at)
{
	size_t low = 0, high = r->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (r->v[middle].end <= at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

bool tf_runs_meet(const struct tf_runs *r, uint64_t start, uint64_t end)
{
	size_t i = tf_runs_find(r, start);

	return i < r->n && r->v[i].start < end;
}

uint64_t tf_runs_size(const struct tf_runs *r)
{
	uint64_t size = 0;

	for (size_t i = 0; i < r->n; i++)
		size += r->v[i].end - r->v[i].start;
	return size;
}

void tf_runs_clear(struct tf_runs *r)
{
	r->n = 0;
}

void tf_runs_done(struct tf_runs *r)
{
	free(r->v);
	*r = (struct tf_runs){0};
}
