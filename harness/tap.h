/* SPDX-License-Identifier: MIT */
/*
 * What guests send and receive during a cell, as QEMU sees it at each of their cards:
 * NAME/link.pcap in the cell's folder. Of long frames only the beginning is kept; memory that
 * travels is in the images.
 */
#ifndef TF_HARNESS_TAP_H
#define TF_HARNESS_TAP_H

#include "harness/run.h"

/* Both do nothing for machines that are no guests. A tap that cannot be made is missed, not an
 * error. */
void tf_tap_begin(const struct tf_journey *j);
void tf_tap_end(const struct tf_journey *j);

#endif
