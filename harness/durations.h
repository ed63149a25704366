/* SPDX-License-Identifier: MIT */
/* How long cells took in earlier runs: durations.json in the cache folder. Only a bar goes by it,
 * so that nothing here is an error. */
#ifndef TF_HARNESS_DURATIONS_H
#define TF_HARNESS_DURATIONS_H

#include "harness/report.h"

/* Cells that are known take as long as the last time. */
void tf_durations_recall(struct tf_cells *cells);

/* Keeps the times of all outcomes that held. */
void tf_durations_keep(const struct tf_report *r);

#endif
