/* SPDX-License-Identifier: MIT */
/* What a machine is, for reports. */
#ifndef TF_HARNESS_FACTS_H
#define TF_HARNESS_FACTS_H

#include <jansson.h>

#include "harness/remote.h"

/* Architecture, tier, kernel, processor, QEMU's version, memory of @m: asked once, the machine's
 * own. What it does not say is null. */
json_t *tf_facts(struct tf_remote *m);

/* Of a machine of tier icount, which cannot be asked; a new reference. */
json_t *tf_facts_alone(const struct tf_spec *spec);

/* The same of the host: kernel and processor. A new reference. */
json_t *tf_facts_host(void);

#endif
