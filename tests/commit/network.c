/* SPDX-License-Identifier: MIT */
/* See commit.h. The relay is the harness's own. */
#include "tests/commit/commit.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qemu/link.h"

static struct tf_link *line;
static struct tf_vm_error err;

static void set(const struct tf_link_faults *f)
{
	if (line && tf_link_set_faults(line, f, &err) < 0)
		die("%s", err.text);
}

void network_start(struct world *w, const struct plan *plan)
{
	struct tf_link_faults f = {
		.what = plan->fault == CUT ? TF_LINK_CUT : TF_LINK_SILENT,
		.moment = {.message = plan->turn, .bytes = (unsigned)plan->bytes},
		.for_good = plan->dead,
	};

	if (tf_link_start_stream((unsigned)atoi(strrchr(w->to, ':') + 1), &line, &err) < 0)
		die("%s", err.text);
	set(&f);
	snprintf(w->to, sizeof(w->to), "tcp://127.0.0.1:%u", tf_link_port(line));
}

bool network_struck(void)
{
	struct pollfd p = {.fd = tf_link_struck_fd(line), .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

void network_heal(void)
{
	set(&(struct tf_link_faults){0});
}

void network_end(void)
{
	tf_link_free(line);
	line = NULL;
}
