/* SPDX-License-Identifier: MIT */
/*
 * A template is a booted guest, stopped with its agent ready and written to the cache folder:
 * a RAM file that all clones share copy-on-write, and 0.4 MB of device state. It is made once
 * for each key (QEMU version, kernel, initramfs, command line, CPU, memory, devices).
 */
#ifndef TF_QEMU_TEMPLATE_H
#define TF_QEMU_TEMPLATE_H

#include <stdbool.h>

#include "qemu/error.h"
#include "qemu/machine.h"

struct tf_vm_template;

/*
 * Find the template of @m and @guest in @cachedir, or make it: boot, ping, stop, save. Two
 * processes that want the same one wait for each other (flock). @timeout_ms bounds the boot
 * (0: 180,000). Errors as tf_vm_boot. Release with tf_vm_template_free.
 */
int tf_vm_template_get(const struct tf_vm_machine *m, const struct tf_vm_guest *guest,
	const char *cachedir, int timeout_ms, struct tf_vm_template **ret_tmpl,
	struct tf_vm_error *err);

/* Free the description; the files stay in the cache. NULL is fine. */
void tf_vm_template_free(struct tf_vm_template *tmpl);

/* The machine it was made for; its folder; whether this call made it; the boot's time in ms. */
const struct tf_vm_machine *tf_vm_template_machine(const struct tf_vm_template *tmpl);
const char *tf_vm_template_dir(const struct tf_vm_template *tmpl);
bool tf_vm_template_made(const struct tf_vm_template *tmpl);
int tf_vm_template_boot_ms(const struct tf_vm_template *tmpl);

/*
 * @ms scaled to the speed of this host: unchanged where a boot took 3 s or less, in
 * proportion to the measured boot above, at most 20 times. Every limit that depends on how
 * fast a guest computes should go through this.
 */
int tf_vm_scale_ms(const struct tf_vm_template *tmpl, int ms);

#endif
