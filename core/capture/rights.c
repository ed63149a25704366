/* SPDX-License-Identifier: MIT */
/* Credentials as /proc tells them, of any thread. Forked child: no allocator, no lock. */
#include "core/capture/rights.h"

#include <stdlib.h>
#include <string.h>

/* What follows the label of a line in a text like /proc/PID/status; NULL if there is none. */
static const char *line_of(const char *status, const char *label)
{
	const char *p = strstr(status, label);

	return p ? p + strlen(label) : NULL;
}

static bool read_ids(const char *status, const char *label, uint32_t id[4])
{
	const char *p = line_of(status, label);
	char *end;

	for (int i = 0; p && i < 4; i++, p = end) {
		id[i] = (uint32_t)strtoul(p, &end, 10);
		if (end == p)
			return false;
	}
	return p;
}

static int read_groups(
	const char *p, struct tf_rights *r, uint32_t **ret_groups, struct tf_arena *a)
{
	const char *line = p;
	char *end;

	for (r->n_groups = 0; *p != '\n' && *p; p++)
		r->n_groups += *p >= '0' && *p <= '9' && (p[1] < '0' || p[1] > '9');
	*ret_groups = tf_arena_array(a, r->n_groups + 1, sizeof(**ret_groups));
	for (uint32_t i = 0; *ret_groups && i < r->n_groups; i++, line = end)
		(*ret_groups)[i] = (uint32_t)strtoul(line, &end, 10);
	return *ret_groups ? 0 : TELEFORK_E_NOMEM;
}

int tf_rights_parse(
	const char *status, struct tf_rights *r, uint32_t **ret_groups, struct tf_arena *a)
{
	static const char *const sets[TF_CAP_SETS] = {
		"\nCapInh:", "\nCapPrm:", "\nCapEff:", "\nCapBnd:", "\nCapAmb:"};
	const char *groups = line_of(status, "\nGroups:");

	*r = (struct tf_rights){0};
	if (!read_ids(status, "\nUid:", r->uid) || !read_ids(status, "\nGid:", r->gid) || !groups)
		return TELEFORK_E_SYSTEM;
	for (unsigned i = 0; i < TF_CAP_SETS; i++) {
		const char *p = line_of(status, sets[i]);

		r->caps[i] = p ? strtoull(p, NULL, 16) : 0;
	}
	return read_groups(groups, r, ret_groups, a);
}
