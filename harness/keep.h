/* SPDX-License-Identifier: MIT */
/*
 * What a kept cell needs to be run or looked at again, by people and by telebed replay: repro.sh
 * with the scenario, inputs.txt (versions and SHA-256 of all that it began with), the program, and
 * cell.json.
 */
#ifndef TF_HARNESS_KEEP_H
#define TF_HARNESS_KEEP_H

#include "harness/run.h"

/* In the folder of a cell. */
#define TF_KEEP_CELL    "cell.json"
#define TF_KEEP_PROGRAM "program"

/* Best effort: what cannot be written is missing. */
void tf_keep(const struct tf_journey *j);

#endif
