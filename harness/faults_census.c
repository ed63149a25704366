/* SPDX-License-Identifier: MIT */
/* See faults.h: what is on a machine, as telebed-hand counts it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/faults.h"

void tf_census_done(struct tf_census *c)
{
	free(c->files);
	free(c->moves);
	free(c->arrivals);
	*c = (struct tf_census){0};
}

static bool add_record(
	struct tf_census_record **list, unsigned *n, const char *id, const char *phase)
{
	struct tf_census_record *more = *list;

	if (!(*n & (*n - 1))) { /* it is full at the powers of two */
		more = realloc(*list, (*n ? 2 * *n : 1) * sizeof(**list));
		if (!more)
			return false;
		*list = more;
	}
	snprintf(more[*n].id, sizeof(more->id), "%s", id);
	snprintf(more[*n].phase, sizeof(more->phase), "%s", phase);
	(*n)++;
	return true;
}

/* One line. False without memory. */
static bool take(struct tf_census *c, const char *line, const char *names[], size_t *n_names)
{
	char id[40], phase[40], state;
	int pid;

	if (sscanf(line, "program %d %c", &pid, &state) == 2) {
		if (c->n_programs < 4) {
			c->programs[c->n_programs] = pid;
			c->states[c->n_programs] = state;
		}
		c->n_programs++;
	} else if (sscanf(line, "session %d", &pid) == 1) {
		c->sessions++;
		c->session = pid > c->session ? pid : c->session;
	} else if (!strncmp(line, "other ", 6)) {
		c->others++;
	} else if (sscanf(line, "receiver %d %ld", &c->descriptors, &c->memory_kib) == 2) {
		c->receiver = true;
	} else if (sscanf(line, "moves %32s %15s", id, phase) == 2) {
		return add_record(&c->moves, &c->n_moves, id, phase);
	} else if (sscanf(line, "arrivals %32s %15s", id, phase) == 2) {
		return add_record(&c->arrivals, &c->n_arrivals, id, phase);
	} else if (!strncmp(line, "file ", 5)) {
		names[(*n_names)++] = line + 5;
	}
	return true;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static char *join(const char *names[], size_t n)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return NULL;
	qsort(names, n, sizeof(*names), by_name);
	for (size_t i = 0; i < n; i++)
		fprintf(f, "%s\n", names[i]);
	return fclose(f) ? NULL : text;
}

int tf_census_read(struct tf_census *c, char *text, struct tf_vm_error *err)
{
	const char **names;
	size_t lines = 1, n = 0;
	bool ok = true;

	*c = (struct tf_census){0};
	for (const char *p = text; *p; p++)
		lines += *p == '\n';
	names = calloc(lines, sizeof(*names));
	for (char *rest, *line = names ? strtok_r(text, "\n", &rest) : NULL; line && ok;
		line = strtok_r(NULL, "\n", &rest))
		ok = take(c, line, names, &n);
	c->files = names && ok ? join(names, n) : NULL;
	free(names);
	if (c->files)
		return 0;
	tf_census_done(c);
	return tf_vm_fail(err, -ENOMEM, "no memory");
}
