/* SPDX-License-Identifier: MIT */
/*
 * See oracle.h. The machine is stopped until the process is found on its processor: by pc, thread
 * pointer and, where the kernel writes the pid into CONTEXTIDR, by that (Linux
 * CONFIG_PID_IN_CONTEXTIDR).
 */
#include "harness/oracle.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/image/file.h"
#include "harness/evidence.h"
#include "qemu/gdb.h"
#include "qemu/io.h"
#include "qemu/qmp.h"

#define REPLY_MS  60000
#define SLICE_MS  7 /* for the process to come by; no multiple of the guest's tick */
#define LINES_MAX 8
#define BLOCK     4096
#define CHUNK     ((uint64_t)1 << 20) /* asked for at a time */

/* A register that QEMU calls otherwise than arch/regs.h. */
static const struct alias {
	const char *name, *low, *high; /* high: the upper half stands in a register of its own */
	uint64_t mask;                 /* of what the image has; 0: all */
} aliases[] = {
	{"rflags", "eflags", NULL, 0x40cd5}, /* without those that are the kernel's */
	{"fcw", "fctrl", NULL, 0},
	{"fsw", "fstat", NULL, 0},
	{"nzcv", "cpsr", NULL, 0xf0000000},
	{"tpidr_el0", "TPIDR_EL0", NULL, 0},
	{"tpidr2", "TPIDR2_EL0", NULL, 0},
	{"apiakey", "APIAKEYLO_EL1", "APIAKEYHI_EL1", 0},
	{"apibkey", "APIBKEYLO_EL1", "APIBKEYHI_EL1", 0},
	{"apdakey", "APDAKEYLO_EL1", "APDAKEYHI_EL1", 0},
	{"apdbkey", "APDBKEYLO_EL1", "APDBKEYHI_EL1", 0},
	{"apgakey", "APGAKEYLO_EL1", "APGAKEYHI_EL1", 0},
};

struct look {
	struct tf_journey *j;
	struct tf_remote *m;
	struct tf_gdb *gdb;
	struct tf_file image;
	struct tf_vm_error *err;
	bool placing; /* only pc and thread pointer are asked for */
	bool same;    /* so far */
	uint64_t registers, bytes;
	unsigned told;
	int rc;
};

static void differs(struct look *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void differs(struct look *l, const char *fmt, ...)
{
	char text[2 * TF_GDB_VALUE_MAX + 2 * TF_REG_VALUE_MAX + 256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	l->same = false;
	if (l->told++ < LINES_MAX)
		tf_journey_failed(l->j, "QEMU and the image of %s disagree: %s", l->m->name, text);
}

static const char *hex(const uint8_t *value, size_t size, char *buf)
{
	for (size_t i = 0; i < size; i++)
		sprintf(buf + 2 * i, "%02x", value[size - 1 - i]);
	return buf;
}

/* The x87 stack: the stub numbers the registers themselves, the image from the top of the stack. */
static int physical_st(struct look *l, unsigned n, char *name, size_t size)
{
	uint8_t status[TF_GDB_VALUE_MAX];
	size_t got;
	int rc = tf_gdb_register(l->gdb, "fstat", status, &got, l->err);

	if (rc == 0)
		snprintf(name, size, "st%u", (n + (status[1] >> 3)) % 8);
	return rc;
}

/* Reads what QEMU shows of @reg, masked as the image has it. */
static int read_register(struct look *l, const struct tf_reg *reg,
	uint8_t value[static TF_GDB_VALUE_MAX], size_t *ret_size)
{
	char other[8];
	unsigned n;
	int rc;

	for (size_t i = 0; i < sizeof(aliases) / sizeof(*aliases); i++) {
		const struct alias *a = &aliases[i];
		uint8_t high[TF_GDB_VALUE_MAX];
		size_t size;

		if (strcmp(a->name, reg->name) != 0)
			continue;
		rc = tf_gdb_register(l->gdb, a->low, value, ret_size, l->err);
		if (rc == 0 && a->high) {
			rc = tf_gdb_register(l->gdb, a->high, high, &size, l->err);
			if (rc == 0)
				memcpy(value + 8, high, 8);
			*ret_size = 16;
		}
		for (unsigned k = 0; k < 8 && a->mask; k++)
			value[k] &= (uint8_t)(a->mask >> 8 * k);
		return rc;
	}
	if (sscanf(reg->name, "st%u", &n) == 1) {
		rc = physical_st(l, n, other, sizeof(other));
		return rc ? rc : tf_gdb_register(l->gdb, other, value, ret_size, l->err);
	}
	rc = tf_gdb_register(l->gdb, reg->name, value, ret_size, l->err);
	if (rc == -ENOENT && sscanf(reg->name, "v%u", &n) == 1) { /* the low end of a Z register */
		snprintf(other, sizeof(other), "z%u", n % 32);
		rc = tf_gdb_register(l->gdb, other, value, ret_size, l->err);
	}
	return rc;
}

static int compare_register(void *ctx, const struct tf_reg *reg, const uint8_t *want)
{
	struct look *l = ctx;
	uint8_t value[TF_GDB_VALUE_MAX] = {0};
	char a[2 * TF_REG_VALUE_MAX + 1], b[2 * TF_REG_VALUE_MAX + 1];
	size_t size;

	if (reg->klass == TF_REG_SYSTEM ||
		(l->placing && reg->klass != TF_REG_PC && reg->klass != TF_REG_THREAD))
		return 0;
	l->rc = read_register(l, reg, value, &size);
	if (l->rc == -ENOENT)
		return l->rc = 0;
	if (l->rc < 0)
		return l->rc;
	/* A stub pads: flags to 32 bits, vectors to the longest that the model has. */
	size = size < reg->size ? size : reg->size;
	l->registers++;
	if (!memcmp(value, want, size))
		return 0;
	if (l->placing)
		l->same = false;
	else {
		differs(l, "register %s: %s in the machine, %s in the image", reg->name,
			hex(value, size, a), hex(want, size, b));
		tf_evidence_seen(l->j, l->m, reg->name, 0, b, a);
	}
	return 0;
}

static int compare_registers(struct look *l, bool placing)
{
	const struct tf_image *img = &l->image.image;

	l->placing = placing;
	l->registers = 0;
	l->same = true;
	tf_arch_by_machine(img->source.machine)
		->each(&img->threads->regs, &img->cpu, compare_register, l);
	return l->rc;
}

/* Whether the processor is in the process. */
static int in_process(struct look *l, uint32_t pid, bool *ret)
{
	uint8_t context[TF_GDB_VALUE_MAX] = {0};
	uint32_t number;
	size_t size;
	int rc = compare_registers(l, true);

	*ret = l->same;
	if (rc == 0 && l->same) {
		rc = tf_gdb_register(l->gdb, "CONTEXTIDR_EL1", context, &size, l->err);
		memcpy(&number, context, sizeof(number));
		*ret = rc == -ENOENT || number == 0 || number == pid;
	}
	return rc == -ENOENT ? 0 : rc;
}

static int find_process(struct look *l, const char *pid)
{
	bool there = false;
	int rc = in_process(l, (uint32_t)atoi(pid), &there);

	while (rc == 0 && !there) {
		if (!tf_vm_left_ms(l->j->deadline_ms))
			return tf_vm_fail(l->err, -ETIMEDOUT,
				"process %s of %s was never on its processor at the image's pc",
				pid, l->m->name);
		rc = tf_gdb_run(l->gdb, SLICE_MS, l->err);
		if (rc == 0)
			rc = in_process(l, (uint32_t)atoi(pid), &there);
	}
	return rc;
}

/* A block of the machine's memory, and that of the image. */
static int compare_block(struct look *l, uint64_t addr, const uint8_t there[static BLOCK])
{
	uint8_t want[BLOCK];

	if (tf_file_read(&l->image, addr, want, BLOCK) != BLOCK)
		return tf_vm_fail(l->err, -EIO, "%#" PRIx64 " of the image cannot be read", addr);
	l->bytes += BLOCK;
	for (unsigned i = 0; i < BLOCK; i++)
		if (there[i] != want[i]) {
			char in_image[3], in_machine[3];

			tf_evidence_seen(l->j, l->m, "byte", addr + i, hex(want + i, 1, in_image),
				hex(there + i, 1, in_machine));
			differs(l, "memory at %#" PRIx64 ": %02x in the machine, %02x in the image",
				addr + i, there[i], want[i]);
			break;
		}
	return 0;
}

/* Has QEMU write the process's memory from @addr on into the file @path, and reads it; *@ret_n is
 * how much there is, up to the first page that no page table leads to. */
static int see(struct look *l, const char *path, uint64_t addr, uint64_t size, uint8_t *there,
	uint64_t *ret_n)
{
	json_t *args = json_pack("{s:I, s:I, s:s}", "val", (json_int_t)addr, "size",
		(json_int_t)size, "filename", path);
	struct tf_vm *vm = l->m->ops->vm(l->m);
	FILE *f;
	int rc;

	remove(path);
	rc = tf_qmp_execute(tf_vm_qmp(vm), "memsave", args, REPLY_MS, NULL, l->err);
	if (rc < 0 && rc != -EREMOTEIO)
		return rc;
	f = fopen(path, "re");
	if (!f)
		return rc ? rc : tf_vm_fail_errno(l->err, -errno, "%s", path);
	*ret_n = fread(there, 1, size, f) / BLOCK * BLOCK;
	fclose(f);
	return rc == 0 && *ret_n != size
		       ? tf_vm_fail(l->err, -EIO, "%s: QEMU wrote not all of it", path)
		       : 0;
}

static int compare_run(struct look *l, const char *path, uint8_t *there, uint64_t at, uint64_t end)
{
	while (at < end) {
		uint64_t size = end - at < CHUNK ? end - at : CHUNK, n = 0;
		int rc = see(l, path, at, size, there, &n);

		for (uint64_t k = 0; k < n && rc == 0; k += BLOCK)
			rc = compare_block(l, at + k, there + k);
		if (rc < 0)
			return rc;
		at += n < size ? n + BLOCK : n;
	}
	return 0;
}

static int compare_memory(struct look *l)
{
	const struct tf_image *img = &l->image.image;
	tf_vm_autofree char *path = tf_vm_format("%s/memory", l->m->folder);
	uint8_t *there = malloc(CHUNK);
	int rc = path && there ? 0 : tf_vm_fail(l->err, -ENOMEM, "no memory");

	for (uint32_t i = 0; i < img->n_maps && rc == 0; i++) {
		struct tf_run run = {0};

		for (uint64_t at = img->maps[i].start;
			rc == 0 && tf_file_run(&l->image, at, img->maps[i].end, &run); at = run.end)
			rc = compare_run(l, path, there, run.start, run.end);
	}
	if (path)
		remove(path);
	free(there);
	return rc;
}

static void add(uint64_t *count, uint64_t n)
{
	*count = (*count == TF_NOT_COUNTED ? 0 : *count) + n;
}

int tf_oracle_look(struct tf_journey *j, struct tf_remote *m, const char *pid, const char *path,
	struct tf_vm_error *err)
{
	struct look l = {.j = j, .m = m, .err = err, .image = {.fd = -1}};
	struct tf_err e = {0};
	int rc;

	if (tf_file_open(&l.image, path, &e))
		return tf_vm_fail(err, -EINVAL, "%s", e.text);
	rc = tf_gdb_attach(m->ops->vm(m), REPLY_MS, &l.gdb, err);
	if (rc == 0)
		rc = find_process(&l, pid);
	if (rc == 0)
		rc = compare_registers(&l, false);
	if (rc == 0)
		rc = compare_memory(&l);
	tf_gdb_detach(l.gdb);
	tf_file_close(&l.image);
	if (rc == 0) {
		add(&j->outcome->seen_registers, l.registers);
		add(&j->outcome->seen_bytes, l.bytes);
	}
	return rc;
}
