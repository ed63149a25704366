/* SPDX-License-Identifier: MIT */
/*
 * What changed in this process since a moment: a yoyo's copy notes how it landed, lets the function
 * run, and sends home the difference.
 *
 *   tf_changes_begin   mappings; pages that are not zero; copies of shared ones; a twin is forked
 *   …the function…
 *   tf_changes_find    a private page is sent if it was written since: the twin shares all others,
 *                      so that pagemap's bit 56 (exclusively mapped) tells; or if it is not the
 *                      twin's page at the same address: by its frame, or its bytes where frames do
 *                      not show; or if it was not zero and is gone. Shared pages are compared.
 */
#ifndef TF_CAPTURE_CHANGES_H
#define TF_CAPTURE_CHANGES_H

#include "core/capture/capture.h"

struct tf_base {
	struct tf_map *maps; /* as it landed */
	uint32_t n_maps;
	struct tf_run *runs; /* pages that were not zero */
	uint64_t n_runs;
	int twin_fd;    /* closing it ends the twin */
	int32_t twin;   /* its pid */
	int32_t copy;   /* that of the process which changes */
	uint64_t stack; /* the caller's frame: below it nothing is of interest */
};

/* Notes this process's memory; needs c->arena, and c->channel_fd: when its other end closes, the
 * twin kills this process and its process group. Everything is kept in the arena. Only the
 * descriptors in use by the library are opened and closed. 0, _NOMEM, _SYSTEM in c->err. */
int tf_changes_begin(struct tf_capture *c, uint64_t stack);

/* Sets image.maps, image.edits and the runs of changed pages. The process is at its end:
 * protections are loosened to look at pages. 0, or an error in c->err. */
int tf_changes_find(struct tf_capture *c);

/* Where the two lists of maps (each sorted) differ, as edits into out[max]: how many there are,
 * which may be more than max. protections false: only what is new and what is gone. The heap is
 * left out: brk tells. Pure. */
uint32_t tf_changes_edits(const struct tf_map *before, uint32_t n_before,
	const struct tf_map *after, uint32_t n_after, bool protections, struct tf_edit *out,
	uint32_t max);

#endif
