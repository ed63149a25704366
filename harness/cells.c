/* SPDX-License-Identifier: MIT */
/* Cells that have been read: their order, and which of them are wanted. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/scenario.h"

static int compare_machines(const void *a, const void *b)
{
	const struct tf_cell *x = a, *y = b;
	int d = x->n_machines < y->n_machines ? -1 : x->n_machines > y->n_machines;

	for (unsigned i = 0; i < x->n_machines && d == 0; i++)
		d = memcmp(&x->machines[i], &y->machines[i], sizeof(x->machines[i]));
	/* qsort is not stable: among equals the order of the files is that of the addresses. */
	return d;
}

void tf_cells_sort(struct tf_cells *cells)
{
	/* Insertion keeps equals in their order, and there are few. */
	for (size_t i = 1; i < cells->n; i++) {
		struct tf_cell c = cells->v[i];
		size_t k = i;

		for (; k && compare_machines(&cells->v[k - 1], &c) > 0; k--)
			cells->v[k] = cells->v[k - 1];
		cells->v[k] = c;
	}
}

static void cell_done(struct tf_cell *c)
{
	free(c->program);
	free(c->refused);
	for (unsigned i = 0; i < TF_CELL_ARGS; i++) {
		free(c->args[i]);
		free(c->files[i]);
		free(c->fetch[i]);
	}
}

void tf_cells_shard(struct tf_cells *cells, unsigned shard, unsigned of)
{
	int64_t total = 0, before = 0;
	size_t n = 0;

	for (size_t i = 0; i < cells->n; i++)
		total += cells->v[i].takes_ms;
	for (size_t i = 0; i < cells->n; i++) {
		int64_t part = before * of / total;

		before += cells->v[i].takes_ms;
		if (part == shard - 1)
			cells->v[n++] = cells->v[i];
		else
			cell_done(&cells->v[i]);
	}
	cells->n = n;
}

static bool is_chosen(const struct tf_cell *c, const char *const *texts)
{
	for (; *texts; texts++)
		if (**texts == '=' ? !strcmp(c->name, *texts + 1) : !!strstr(c->name, *texts))
			return true;
	return false;
}

void tf_cells_filter(struct tf_cells *cells, const char *const *texts)
{
	size_t n = 0;

	for (size_t i = 0; i < cells->n; i++) {
		if (is_chosen(&cells->v[i], texts))
			cells->v[n++] = cells->v[i];
		else
			cell_done(&cells->v[i]);
	}
	cells->n = n;
}

void tf_cells_cut(struct tf_cells *cells, size_t first)
{
	for (size_t i = first; i < cells->n; i++)
		cell_done(&cells->v[i]);
	cells->n = first;
}

void tf_cells_done(struct tf_cells *cells)
{
	tf_cells_cut(cells, 0);
	free(cells->v);
	*cells = (struct tf_cells){0};
}

const char *tf_cell_route(const struct tf_cell *cell, char *buf, size_t size)
{
	size_t n = 0;

	buf[0] = '\0';
	for (unsigned i = 0; i < cell->n_route && n < size; i++)
		n += (size_t)snprintf(buf + n, size - n, "%s%s",
			!i                       ? ""
			: cell->fan_out && i > 1 ? ", "
						 : " -> ",
			cell->machine_names[cell->route[i]]);
	return buf;
}
