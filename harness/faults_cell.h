/* SPDX-License-Identifier: MIT */
/*
 * The key `faults` of a scenario: what the link does to everybody, and what happens in each move of
 * a campaign.
 */
#ifndef TF_HARNESS_FAULTS_CELL_H
#define TF_HARNESS_FAULTS_CELL_H

#include "harness/faults.h"
#include "harness/schema.h"

struct tf_journey;

/* What a cell has of it. */
struct tf_cell_faults {
	bool given;
	struct tf_link_faults link;
	bool seeded; /* by the scenario, not by the run */
	int hold_ms;
	unsigned byte;
	bool strike[TF_FAULT_KINDS], message[TF_FAULT_MESSAGES];
	unsigned n_strikes;
};

/* The group's schema. */
extern const struct tf_key tf_faults_keys[];
extern const size_t tf_n_faults_keys;

/* Reads the group @s. */
int tf_faults_read(const struct tf_conf *r, const config_setting_t *s, struct tf_cell_faults *ret);

/* The link is made bad for this cell, and good again. */
int tf_faults_begin(struct tf_journey *j, struct tf_vm_error *err);
void tf_faults_end(struct tf_journey *j);

/* On the host a relay comes before a receiver: @address, of @size bytes, becomes the relay's. */
int tf_faults_relay(
	struct tf_journey *j, unsigned place, char *address, size_t size, struct tf_vm_error *err);

/* A campaign: every kind of strike in every message; as tf_journey_go. */
int tf_faults_go(struct tf_journey *j, struct tf_vm_error *err);

#endif
