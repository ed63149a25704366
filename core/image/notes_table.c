/* SPDX-License-Identifier: MIT */
/*
 * The table of notes.h: every kind of state, every field of its record, and what a record must hold
 * to. The order of the rows is the order of the notes in a file; the order of the fields is the
 * wire. Only tables and checks of single records here; whoever walks them lives in
 * notes.c. */
#include "core/image/notes.h"
#include "core/image/runs.h"

#include <elf.h>
#include <sys/mman.h>

const char *const tf_image_rule_text[TF_RULES] = {
#define X(name, rule, text) [TF_RULE_##name] = rule ": " text,
	TF_IMAGE_RULES(X)
#undef X
};

#define RULE(name) tf_image_rule_text[TF_RULE_##name]
#define COUNT(a)   (sizeof(a) / sizeof((a)[0]))

#define ARRAY(strct, member, kind, n, txt)                                                   \
	{                                                                                    \
		.name = #member, .type = TF_FIELD_##kind, .offset = offsetof(strct, member), \
		.count = (n), .text = (txt)                                                  \
	}
#define FIELD(strct, member, kind, txt) ARRAY(strct, member, kind, 1, txt)
#define NAMED(strct, member, kind, list, txt)                                                 \
	{                                                                                     \
		.name = #member, .type = TF_FIELD_##kind, .n_names = COUNT(list),             \
		.offset = offsetof(strct, member), .count = 1, .names = (list), .text = (txt) \
	}

static const char *const origins[] = {"call", "signal", "yoyo", "return", "task"};
static const char *const source_flags[] = {"emulated", "no-smaps", "outside", "signs", "stopped"};

#define F(member, kind, text)       FIELD(struct tf_source, member, kind, text)
#define N(member, kind, list, text) NAMED(struct tf_source, member, kind, list, text)
static const struct tf_field source_fields[] = {
	F(machine, U32, "ELF e_machine"),
	N(flags, FLAGS, source_flags,
		"emulated: under QEMU user mode; no-smaps: vmflags unknown; outside: signal "
		"actions, altstack, tid address and brk unknown; signs: its code signs pointers; stopped: "
		"by a signal, until SIGCONT"),
	N(origin, ENUM, origins, "how the image came about"),
	F(page_size, U32, "bytes: 4096, 16384 or 65536"),
	F(max_map_end, ADDR, "end of the highest mapping at the source"),
	F(pid, I32, "process id at the source"),
	F(ppid, I32, "its parent's"),
	F(realtime_ns, TIME, "CLOCK_REALTIME at capture"),
	F(monotonic_ns, TIME, "CLOCK_MONOTONIC at capture"),
	F(boottime_ns, TIME, "CLOCK_BOOTTIME at capture"),
	F(mailbox, ADDR, "address of struct tf_mailbox, 0: none"),
	F(stack_limit, HEX64, "RLIMIT_STACK, bytes"),
	F(channel_fd, I32, "descriptor of the channel, where the copy finds its peer; -1: none"),
	F(umask, OCT32, "file mode creation mask"),
	F(generation, U32, "moves so far"),
	F(release, STR, "uname -r"),
	F(exe, STR, "/proc/self/exe"),
	F(cwd, STR, "working directory"),
	F(version, STR, "of the library that captured"),
};
#undef F
#undef N

#define F(member, kind, text)    FIELD(struct tf_cpu, member, kind, text)
#define A(member, kind, n, text) ARRAY(struct tf_cpu, member, kind, n, text)
static const struct tf_field cpu_fields[] = {
	F(n_words, U32, "words of features that mean something"),
	A(features, HEX64, TF_FEATURE_WORDS, "features in use, bits as in tf_arch.features"),
	F(xcr0, HEX64, "x86_64: enabled XSAVE components"),
	F(xsave_size, U32, "x86_64: bytes of a standard-format area"),
	A(xcomp, U32, 2 * TF_XCOMPONENTS, "x86_64: offset and size of each XSAVE component"),
	F(vl, U32, "aarch64: SVE vector length, bytes"),
	F(vl_mask, HEX32, "aarch64: bit n: vectors of 16 * (n + 1) bytes are possible"),
};
#undef F
#undef A

static const char *const lock_flags[] = {"future", "onfault"};

#define F(member) FIELD(struct tf_mm, member, ADDR, "as in struct prctl_mm_map")
static const struct tf_field mm_fields[] = {
	F(start_code),
	F(end_code),
	F(start_data),
	F(end_data),
	F(start_brk),
	F(brk),
	F(start_stack),
	F(arg_start),
	F(arg_end),
	F(env_start),
	F(env_end),
	NAMED(struct tf_mm, locks, FLAGS, lock_flags, "mlockall(2) of mappings to come"),
	FIELD(struct tf_mm, keys, HEX32, "protection keys that are allocated"),
};
#undef F

#define F(member, kind, text) FIELD(struct tf_vdso, member, kind, text)
static const struct tf_field vdso_fields[] = {
	F(base, ADDR, "0: none"),
	F(size, U64, "bytes"),
	F(vvar_base, ADDR, "0: none"),
	F(vvar_size, U64, "bytes"),
	F(digest, HEX64, "over the pages"),
};
#undef F

#define F(member, kind, text) FIELD(struct tf_symbol, member, kind, text)
static const struct tf_field symbol_fields[] = {
	F(value, ADDR, "address in the process"),
	F(size, U64, "bytes"),
	F(name, STR_ARG, "of the function"),
};
#undef F

static const char *const prot_names[] = {"read", "write", "exec"};
static const char *const map_flags[] = {"shared", "zero", "deleted"};
static const char *const map_kinds[] = {"anon", "file", "heap", "stack", "vdso", "vvar", "stage"};
static const char *const vm_flags[] = {"hugepage", "nohugepage", "dontdump", "dontfork",
	"wipeonfork", "mergeable", "seq", "rand", "noreserve", "growsdown", "bti", "mte", "locked",
	"maywrite", "hugetlb", "onfault"};

#define F(member, kind, text)       FIELD(struct tf_map, member, kind, text)
#define N(member, kind, list, text) NAMED(struct tf_map, member, kind, list, text)
static const struct tf_field map_fields[] = {
	F(start, ADDR, "first byte"),
	F(end, ADDR, "behind the last byte"),
	F(data_end, ADDR, "behind the last byte that can be read"),
	N(prot, FLAGS, prot_names, "PROT_*"),
	N(flags, FLAGS, map_flags,
		"shared; zero: shared without a path; deleted: a file that has no name any more"),
	N(kind, ENUM, map_kinds,
		"what it is at the source; stage: bytes of an object that no mapping shows"),
	N(vmflags, FLAGS, vm_flags, "advice and locks that can be set again"),
	F(offset, HEX64, "in the file, bytes"),
	F(dev, HEX64, "device of the file"),
	F(ino, U64, "inode of the file"),
	F(path, STR, "of the file"),
	F(object, U32, "what is mapped, shared: 1 + its place in the list of objects; 0: none"),
	F(huge, U32, "hugetlb: log2 of the bytes of a page; else 0"),
	F(key, U32, "of memory protection, pkeys(7)"),
	F(crc, HEX32, "CRC32C of what can be read of an object that is a file with a name; else 0"),
};
#undef F
#undef N

#define F(member, kind, text)    FIELD(struct tf_tags, member, kind, text)
#define A(member, kind, n, text) ARRAY(struct tf_tags, member, kind, n, text)
static const struct tf_field tags_fields[] = {
	F(address, ADDR, "of 4096 bytes"),
	A(tags, HEX64, TF_TAGS_WORDS, "4 bits for each 16 of them, from the least significant on"),
};
#undef F
#undef A

static const char *const object_kinds[] = {"file", "shm", "memfd", "sysv"};
static const char *const object_flags[] = {"deleted"};
static const char *const seals[] = {"seal", "shrink", "grow", "write", "future-write", "exec"};

#define F(member, kind, text)       FIELD(struct tf_object, member, kind, text)
#define N(member, kind, list, text) NAMED(struct tf_object, member, kind, list, text)
static const struct tf_field object_fields[] = {
	N(kind, ENUM, object_kinds, "what it is; shm: a file of tmpfs"),
	N(flags, FLAGS, object_flags, "deleted: has no name any more, or goes with its last user"),
	F(mode, OCT32, "permissions"),
	F(uid, U32, "its owner, 4294967295: unknown"),
	F(gid, U32, "its group, 4294967295: unknown"),
	N(seals, FLAGS, seals, "of a memfd, F_SEAL_*"),
	F(key, I32, "of shmget(2)"),
	F(id, I32, "of shmget(2)"),
	F(size, U64, "bytes"),
	F(path, STR_ARG, "its name at the source"),
};
#undef F
#undef N

static const char *const fd_kinds[] = {
	"other", "file", "dir", "pipe", "socket", "tty", "char", "anon", "reset"};

#define F(member, kind, text)       FIELD(struct tf_fd, member, kind, text)
#define N(member, kind, list, text) NAMED(struct tf_fd, member, kind, list, text)
static const struct tf_field fd_fields[] = {
	F(fd, I32, "number"),
	N(kind, ENUM, fd_kinds, "what it leads to"),
	F(flags, HEX32, "open(2) flags as the image's architecture numbers them"),
	F(same, I32, "lower descriptor that it is a duplicate of, -1: none"),
	F(offset, U64, "position"),
	F(size, U64, "of a regular file, bytes"),
	F(path, STR, "/proc/self/fd/N"),
	F(object, U32, "what it leads to: 1 + its place in the list of objects; 0: none"),
};
#undef F
#undef N

#define F(member, kind, text) FIELD(struct tf_sigaction, member, kind, text)
static const struct tf_field sigaction_fields[] = {
	F(handler, HEX64, "0: default, 1: ignore"),
	F(flags, HEX64, "SA_*"),
	F(restorer, HEX64, "kernel's sa_restorer"),
	F(mask, SIGSET, "blocked in the handler"),
};
#undef F

static const char *const sign_places[] = {"memory", "link-register"};
static const char *const sign_keys[] = {"a", "b"};

#define F(member, kind, text)       FIELD(struct tf_signature, member, kind, text)
#define N(member, kind, list, text) NAMED(struct tf_signature, member, kind, list, text)
static const struct tf_field signature_fields[] = {
	N(place, ENUM, sign_places, "where it is"),
	N(key, ENUM, sign_keys, "that signed it"),
	F(address, ADDR, "of the word in memory, else 0"),
	F(value, ADDR, "the return address without its signature"),
	F(modifier, ADDR, "the stack pointer when the function was entered"),
};
#undef F
#undef N

#define F(member, kind, text) FIELD(struct tf_thread, member, kind, text)
static const struct tf_field thread_fields[] = {
	F(tid, I32, "thread id at the source"),
	F(sigmask, SIGSET, "blocked signals"),
	F(altstack.sp, HEX64, "sigaltstack(2)"),
	F(altstack.size, U64, "bytes"),
	F(altstack.flags, I32, "SS_*"),
	F(robust_head, HEX64, "get_robust_list(2), 0: none"),
	F(robust_len, U64, "bytes"),
	F(tid_addr, HEX64, "set_tid_address(2), 0: none or unknown"),
	F(rseq.addr, HEX64, "rseq(2), 0: not registered"),
	F(rseq.len, U32, "bytes"),
	F(rseq.sig, HEX32, "signature"),
	F(comm, COMM, "name"),
};
#undef F

static const char *const process_flags[] = {"known", "asked", "subreaper", "no-thp", "leader"};

#define F(member, kind, text)       FIELD(struct tf_process, member, kind, text)
#define A(member, kind, n, text)    ARRAY(struct tf_process, member, kind, n, text)
#define N(member, kind, list, text) NAMED(struct tf_process, member, kind, list, text)
static const struct tf_field process_fields[] = {
	N(flags, FLAGS, process_flags,
		"known: the record says something; asked: so do dumpable, subreaper and itimers; "
		"no-thp: PR_SET_THP_DISABLE; leader: of a session without a terminal"),
	F(dumpable, U32, "PR_GET_DUMPABLE"),
	F(oom_score_adj, I32, "as in /proc"),
	F(n_cpus, U32, "processors of the source"),
	A(limits, HEX64, 2 * TF_LIMITS, "soft and hard limit of each RLIMIT_*"),
	A(itimers, TIME, 2 * TF_ITIMERS, "left (0: not armed) and interval: real, virtual, prof"),
	F(boot, STR, "boot_id of the machine whose monotonic clock it reads; else empty"),
};
#undef F
#undef A
#undef N

#define F(member, kind, text)    FIELD(struct tf_rights, member, kind, text)
#define A(member, kind, n, text) ARRAY(struct tf_rights, member, kind, n, text)
static const struct tf_field rights_fields[] = {
	A(uid, U32, 4, "real, effective, saved, file system"),
	A(gid, U32, 4, "the same"),
	F(securebits, HEX32, "SECBIT_*"),
	F(group, U32, "its first group"),
	F(n_groups, U32, "how many"),
	A(caps, HEX64, TF_CAP_SETS, "inheritable, permitted, effective, bounding, ambient"),
};
#undef F
#undef A

static const struct tf_field group_fields[] = {
	{.name = "gid", .type = TF_FIELD_U32, .count = 1, .text = "supplementary group"},
};

#define F(member, kind, text) FIELD(struct tf_filter, member, kind, text)
static const struct tf_field filter_fields[] = {
	F(chain, U32, "number of the chain, that threads name"),
	F(flags, HEX32, "SECCOMP_FILTER_FLAG_LOG"),
	F(code, U32, "its first instruction"),
	F(n_code, U32, "how many: 1 to 4096"),
};
#undef F

static const struct tf_field code_fields[] = {
	{.name = "insn", .type = TF_FIELD_HEX64, .count = 1, .text = "struct sock_filter"},
};

static const char *const attr_flags[] = {"asked", "slack", "no-new-privs"};

#define F(member, kind, text)       FIELD(struct tf_attributes, member, kind, text)
#define A(member, kind, n, text)    ARRAY(struct tf_attributes, member, kind, n, text)
#define N(member, kind, list, text) NAMED(struct tf_attributes, member, kind, list, text)
static const struct tf_field attributes_fields[] = {
	N(flags, FLAGS, attr_flags,
		"asked: pdeathsig and securebits are known; slack: it is known"),
	F(policy, U32, "SCHED_*"),
	F(priority, U32, "of a real-time policy"),
	F(nice, I32, "-20 to 19"),
	F(sched_flags, HEX32, "SCHED_FLAG_*"),
	F(ioprio, HEX32, "ioprio_set(2)"),
	F(personality, HEX32, "personality(2)"),
	F(pdeathsig, U32, "signal for the end of its parent"),
	F(runtime, TIME, "of SCHED_DEADLINE"),
	F(deadline, TIME, "the same"),
	F(period, TIME, "the same"),
	F(slack, TIME, "of timers"),
	F(rights, U32, "its record of rights"),
	F(chain, U32, "of its seccomp filters; 4294967295: none"),
	A(cpus, HEX64, TF_CPU_WORDS, "affinity, bit n: processor n; all 0: unknown"),
};
#undef F
#undef A
#undef N

static const char *const timer_notifies[] = {"signal", "none"};

#define F(member, kind, text)       FIELD(struct tf_timer, member, kind, text)
#define N(member, kind, list, text) NAMED(struct tf_timer, member, kind, list, text)
static const struct tf_field timer_fields[] = {
	F(id, I32, "timer_create(2)"),
	F(clock, I32, "CLOCK_*"),
	N(notify, ENUM, timer_notifies, "sigev_notify"),
	F(signo, U32, "its signal"),
	F(tid, I32, "thread that is told, 0: the process"),
	F(value, HEX64, "sigev_value"),
	F(left, TIME, "until it expires, 0: not armed"),
	F(interval, TIME, "between its expirations"),
};
#undef F
#undef N

#define F(member, kind, text) FIELD(struct tf_wait, member, kind, text)
static const struct tf_field wait_fields[] = {
	F(thread, U32, "its number"),
	F(left, TIME, "until the limit of the call that its registers make"),
};
#undef F

#define F(member, kind, text)    FIELD(struct tf_pending, member, kind, text)
#define A(member, kind, n, text) ARRAY(struct tf_pending, member, kind, n, text)
static const struct tf_field pending_fields[] = {
	F(tid, I32, "of the thread it was sent to, 0: to the process"),
	F(signo, U32, "its number"),
	A(info, HEX64, TF_SIGINFO / 8, "siginfo_t as the kernel has it"),
};
#undef F
#undef A

static const char *const edit_ops[] = {"map", "unmap", "protect", "replace"};

#define F(member, kind, text)       FIELD(struct tf_edit, member, kind, text)
#define N(member, kind, list, text) NAMED(struct tf_edit, member, kind, list, text)
static const struct tf_field edit_fields[] = {
	F(start, ADDR, "first byte"),
	F(end, ADDR, "behind the last byte"),
	N(op, ENUM, edit_ops, "what became of it"),
	N(prot, FLAGS, prot_names, "PROT_* afterwards"),
	N(flags, FLAGS, map_flags, "as of a mapping"),
	N(vmflags, FLAGS, vm_flags, "as of a mapping"),
};
#undef F
#undef N

#define F(member, kind, text) FIELD(struct tf_run, member, kind, text)
static const struct tf_field run_fields[] = {
	F(start, ADDR, "first byte"),
	F(end, ADDR, "behind the last byte"),
};
#undef F

static const struct tf_field known_fields[] = {
	FIELD(struct tf_known, map, U32, "which mapping"),
	FIELD(struct tf_known, crc, HEX32, "CRC32C of the first 4096 bytes of its file"),
	FIELD(struct tf_known, size, U64, "of the file, bytes"),
	ARRAY(struct tf_known, id, HEX64, TF_KNOWN_ID / 8, "its build-id, zeroes behind it"),
};

static const struct tf_field held_fields[] = {
	{.name = "address", .type = TF_FIELD_ADDR, .count = 1, .text = "of a word of four bytes"},
};

/* --- checks --- */

/* [start, start + size) is inside the user's half; start is page-aligned or there is nothing. */
static bool range_ok(
	const struct tf_image *img, const struct tf_arch *arch, uint64_t start, uint64_t size)
{
	uint64_t limit = (uint64_t)1 << arch->max_user_bits, mask = img->source.page_size - 1;

	if (!size)
		return !start;
	return !((start | size) & mask) && start <= limit && size <= limit - start;
}

static const char *check_source(const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	uint32_t page = img->source.page_size;

	(void)i;
	if (img->source.machine != arch->machine)
		return RULE(MACHINE);
	return page == 4096 || page == 16384 || page == 65536 ? NULL : RULE(PAGE_SIZE);
}

static const char *check_cpu(const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	const struct tf_cpu *cpu = &img->cpu;

	(void)arch;
	(void)i;
	if (cpu->n_words > TF_FEATURE_WORDS || cpu->xsave_size > TF_REGSET_MAX)
		return RULE(CPU);
	for (unsigned n = cpu->n_words; n < TF_FEATURE_WORDS; n++) {
		if (cpu->features[n])
			return RULE(CPU);
	}
	for (unsigned n = 0; n < TF_XCOMPONENTS; n++) {
		if (cpu->xcomp[n].offset > TF_REGSET_MAX || cpu->xcomp[n].size > TF_REGSET_MAX)
			return RULE(CPU);
	}
	if (cpu->vl % 16 || cpu->vl > TF_REG_VALUE_MAX || cpu->vl_mask >> 16)
		return RULE(CPU);
	return NULL;
}

static const char *check_vdso(const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	const struct tf_vdso *v = &img->vdso;

	(void)i;
	if (!range_ok(img, arch, v->base, v->size) ||
		!range_ok(img, arch, v->vvar_base, v->vvar_size))
		return RULE(VDSO);
	return NULL;
}

static const char *check_symbol(const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	const struct tf_vdso *v = &img->vdso;
	const struct tf_symbol *s = &v->symbols[i];

	(void)arch;
	if (s->value < v->base || s->value - v->base >= v->size ||
		s->size > v->size - (s->value - v->base))
		return RULE(VDSO);
	return NULL;
}

static const char *check_object(const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	const struct tf_object *o = &img->objects[i];

	(void)arch;
	if (o->size > INT64_MAX || o->path[0] != '/')
		return RULE(OBJECTS);
	return o->seals && o->kind != TF_OBJECT_MEMFD ? RULE(OBJECTS) : NULL;
}

/* What maps an object is shared, and lies in it as far as file offsets go. */
static bool object_ok(const struct tf_image *img, const struct tf_map *m)
{
	uint64_t size = m->end - m->start;

	if (!m->object)
		return m->kind != TF_MAP_STAGE;
	return m->object <= img->n_objects && m->flags & TF_MAP_SHARED &&
	       !(m->offset & (img->source.page_size - 1)) && m->offset <= INT64_MAX - size &&
	       (m->kind == TF_MAP_FILE || m->kind == TF_MAP_STAGE);
}

/* Pages of hugetlbfs are whole, and larger than others. */
static bool huge_ok(const struct tf_map *m)
{
	if (!m->huge)
		return true;
	return m->huge > 12 && m->huge < 40 && m->kind == TF_MAP_ANON &&
	       !((m->start | m->end | m->data_end) & ((UINT64_C(1) << m->huge) - 1));
}

static const char *check_map(const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	const struct tf_map *m = &img->maps[i];
	uint64_t mask = img->source.page_size - 1;

	(void)arch;
	if (m->start >= m->end || (m->start | m->end) & mask)
		return RULE(MAP_PAGES);
	if (i && m->start < m[-1].end)
		return RULE(MAPS_SORTED);
	if (m->data_end < m->start || m->data_end > m->end || m->data_end & mask)
		return RULE(MAP_DATA_END);
	if (!object_ok(img, m))
		return RULE(OBJECTS);
	if (m->key >= TF_KEYS || !huge_ok(m))
		return RULE(MAP_KIND);
	return m->end > img->source.max_map_end ? RULE(MAP_LIMIT) : NULL;
}

/* What may come when the process runs already: its own, and no part of a file or of huge pages. */
static const char *check_later(const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	const struct tf_run *r = &img->later[i];
	const struct tf_map *m = tf_image_map_at(img, r->start);

	(void)arch;
	if (r->start >= r->end || (r->start | r->end) & (img->source.page_size - 1) ||
		(i && r->start < r[-1].end))
		return RULE(LATER);
	return m && tf_map_may_wait(m) && r->end <= m->data_end ? NULL : RULE(LATER);
}

static const char *check_known(const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	uint32_t map = img->known[i].map;

	(void)arch;
	if (map >= img->n_maps || (i && map <= img->known[i - 1].map) ||
		!tf_map_may_be_known(&img->maps[map]))
		return RULE(KNOWN);
	return tf_map_may_wait(&img->maps[map]) ? NULL : RULE(KNOWN);
}

static const char *check_staged(const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	const struct tf_run *r = &img->staged[i];
	const struct tf_map *m = tf_image_map_at(img, r->start);

	(void)arch;
	if (r->start >= r->end || (r->start | r->end) & (img->source.page_size - 1) ||
		(i && r->start < r[-1].end))
		return RULE(STAGED);
	return m && tf_map_may_be_staged(m) && r->end <= m->end ? NULL : RULE(STAGED);
}

static const char *check_held(const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	const struct tf_runs staged = {.v = img->staged, .n = img->n_staged};
	uint64_t at = img->held[i];

	(void)arch;
	if (at & 3 || (i && at <= img->held[i - 1]))
		return RULE(HELD);
	return tf_runs_meet(&staged, at, at + 4) ? NULL : RULE(HELD);
}

static const char *check_tags(const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	const struct tf_tags *t = &img->tags[i];
	const struct tf_map *m = tf_image_map_at(img, t->address);

	if (arch->machine != EM_AARCH64 || t->address % TF_TAGS_SIZE || !m ||
		!tf_map_may_have_tags(m))
		return RULE(TAGS);
	return i && t->address <= t[-1].address ? RULE(TAGS) : NULL;
}

static const char *check_edit(const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	const struct tf_edit *d = &img->edits[i];

	(void)arch;
	if (d->start >= d->end || (d->start | d->end) & (img->source.page_size - 1))
		return RULE(MAP_PAGES);
	return i && d->start < d[-1].end ? RULE(MAPS_SORTED) : NULL;
}

static bool has_fd(const struct tf_fd *fds, uint32_t n, int32_t number)
{
	uint32_t low = 0;

	while (low < n) {
		uint32_t middle = low + (n - low) / 2;

		if (fds[middle].fd == number)
			return true;
		if (fds[middle].fd < number)
			low = middle + 1;
		else
			n = middle;
	}
	return false;
}

static const char *check_fd(const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	const struct tf_fd *fd = &img->fds[i];

	(void)arch;
	if (fd->object > img->n_objects)
		return RULE(OBJECTS);
	if (fd->fd < 0 || (i && fd->fd <= fd[-1].fd))
		return RULE(FDS_SORTED);
	if (fd->same < -1 || fd->same >= fd->fd)
		return RULE(FD_SAME);
	/* Streams are always there. */
	return fd->same <= 2 || has_fd(img->fds, i, fd->same) ? NULL : RULE(FD_SAME);
}

static const char *check_sigaction(
	const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	(void)arch;
	(void)i;
	return img->n_sigactions == TF_SIGNALS ? NULL : RULE(SIGACTIONS);
}

/* Words lie in writable memory; the link register comes once, at the end. */
static const char *check_signature(
	const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	const struct tf_signature *s = &img->signatures[i];
	const struct tf_map *m;

	(void)arch;
	if (i && (s[-1].place != TF_SIGN_MEMORY))
		return RULE(SIGNATURES);
	if (s->place != TF_SIGN_MEMORY)
		return s->address ? RULE(SIGNATURES) : NULL;
	m = tf_image_map_at(img, s->address);
	if (s->address % 8 || !m || !(m->prot & PROT_WRITE) || s->address >= m->data_end)
		return RULE(SIGNATURES);
	return NULL;
}

/* That tids are unique is checked for all at once in notes.c. */
static const char *check_thread(const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	int32_t tid = img->threads[i].tid;

	(void)arch;
	return tid > 0 && tid <= TF_MAX_TID ? NULL : RULE(THREADS);
}

/* siginfo_t begins with the number, in four bytes. */
static const char *check_pending(const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	const struct tf_pending *p = &img->pending[i];

	(void)arch;
	return p->tid < 0 || !p->signo || p->signo > TF_SIGNALS || (uint32_t)p->info[0] != p->signo
		       ? RULE(PENDING)
		       : NULL;
}

/* Seconds of a timespec that every kernel takes. */
#define TIME_OK(ns) ((ns) < UINT64_C(1) << 62)

static const char *check_process(const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	const struct tf_process *p = &img->process;

	(void)arch;
	(void)i;
	if (p->dumpable > 2 || p->oom_score_adj < -1000 || p->oom_score_adj > 1000)
		return RULE(PROCESS);
	for (unsigned n = 0; n < TF_LIMITS; n++)
		if (p->limits[2 * n] > p->limits[2 * n + 1])
			return RULE(PROCESS);
	for (unsigned n = 0; n < 2 * TF_ITIMERS; n++)
		if (!TIME_OK(p->itimers[n]))
			return RULE(PROCESS);
	return NULL;
}

static const char *check_rights(const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	const struct tf_rights *r = &img->rights[i];

	(void)arch;
	if (r->group != (i ? r[-1].group + r[-1].n_groups : 0) ||
		r->n_groups > img->n_groups - r->group)
		return RULE(RIGHTS);
	/* capabilities(7): no process has others. */
	return r->caps[TF_CAP_E] & ~r->caps[TF_CAP_P] ||
			       r->caps[TF_CAP_A] & ~(r->caps[TF_CAP_P] & r->caps[TF_CAP_I])
		       ? RULE(CAPABILITIES)
		       : NULL;
}

static const char *check_filter(const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	const struct tf_filter *f = &img->filters[i];

	(void)arch;
	if (f->code != (i ? f[-1].code + f[-1].n_code : 0) || !f->n_code || f->n_code > 4096 ||
		f->n_code > img->n_code - f->code)
		return RULE(FILTERS);
	/* Chains are numbered without a gap. */
	return f->chain == (i ? f[-1].chain : 0) || (i && f->chain == f[-1].chain + 1)
		       ? NULL
		       : RULE(FILTERS);
}

static const char *check_attributes(
	const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	const struct tf_attributes *a = &img->attributes[i];
	uint32_t chains = img->n_filters ? img->filters[img->n_filters - 1].chain + 1 : 0;

	(void)arch;
	if (!(img->process.flags & TF_PROCESS_KNOWN) || img->n_attributes != img->n_threads ||
		a->rights >= img->n_rights || (a->chain != TF_NO_CHAIN && a->chain >= chains))
		return RULE(ATTRIBUTES);
	if (a->policy > 7 || a->priority > 99 || a->nice < -20 || a->nice > 19 ||
		a->sched_flags > 7 || a->pdeathsig > TF_SIGNALS)
		return RULE(ATTRIBUTES);
	return TIME_OK(a->runtime) && TIME_OK(a->deadline) && TIME_OK(a->period) ? NULL
										 : RULE(ATTRIBUTES);
}

static const char *check_timer(const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	const struct tf_timer *t = &img->timers[i];

	(void)arch;
	if (t->id < 0 || (i && t->id <= t[-1].id) || t->clock < 0 || t->clock > 15 || t->tid < 0 ||
		!TIME_OK(t->left) || !TIME_OK(t->interval))
		return RULE(TIMERS);
	return t->notify == TF_TIMER_NONE || (t->signo && t->signo <= TF_SIGNALS) ? NULL
										  : RULE(TIMERS);
}

static const char *check_wait(const struct tf_image *img, const struct tf_arch *arch, uint32_t i)
{
	const struct tf_wait *w = &img->waits[i];

	(void)arch;
	return w->thread < img->n_threads && (!i || w->thread > w[-1].thread) && TIME_OK(w->left)
		       ? NULL
		       : RULE(WAITS);
}

/* --- the table --- */

#define SINGLE(number, label, member, list, fn, txt)                                               \
	{                                                                                          \
		.type = TF_NOTE(number), .size = sizeof(((struct tf_image *)0)->member), .max = 1, \
		.n_fields = COUNT(list), .fields = (list),                                         \
		.items = offsetof(struct tf_image, member), .name = (label), .text = (txt),        \
		.check = (fn)                                                                      \
	}
#define MANY(number, label, member, n_member, limit, list, fn, txt)                           \
	{                                                                                     \
		.type = TF_NOTE(number), .size = sizeof(*((struct tf_image *)0)->member),     \
		.max = (limit), .n_fields = COUNT(list), .fields = (list),                    \
		.items = offsetof(struct tf_image, member),                                   \
		.count = offsetof(struct tf_image, n_member), .name = (label), .text = (txt), \
		.check = (fn)                                                                 \
	}

const struct tf_kind tf_kinds[] = {
	SINGLE(1, "source", source, source_fields, check_source, "where and when it was taken"),
	SINGLE(2, "cpu", cpu, cpu_fields, check_cpu, "the processor as the program saw it"),
	SINGLE(3, "mm", mm, mm_fields, NULL, "the layout that the kernel keeps"),
	SINGLE(4, "vdso", vdso, vdso_fields, check_vdso, "the kernel's own pages"),
	MANY(5, "symbol", vdso.symbols, vdso.n_symbols, TF_MAX_SYMBOLS, symbol_fields, check_symbol,
		"functions of the vDSO"),
	MANY(20, "object", objects, n_objects, TF_MAX_OBJECTS, object_fields, check_object,
		"files and shared memory behind shared mappings and descriptors"),
	MANY(6, "map", maps, n_maps, TF_MAX_MAPS, map_fields, check_map, "mappings"),
	MANY(21, "tags", tags, n_tags, TF_MAX_TAGS, tags_fields, check_tags,
		"aarch64: tags of memory, where one is not 0"),
	MANY(7, "fd", fds, n_fds, TF_MAX_FDS, fd_fields, check_fd, "descriptors"),
	MANY(8, "sigaction", sigactions, n_sigactions, TF_SIGNALS, sigaction_fields,
		check_sigaction, "signal actions, the first is signal 1"),
	MANY(11, "signature", signatures, n_signatures, TF_MAX_SIGNATURES, signature_fields,
		check_signature, "return addresses, to be signed anew where the keys are others"),
	MANY(9, "thread", threads, n_threads, TF_MAX_THREADS, thread_fields, check_thread,
		"threads, in the order of their NT_PRSTATUS"),
	MANY(12, "pending", pending, n_pending, TF_MAX_PENDING, pending_fields, check_pending,
		"signals that were sent and not delivered, in the order of their queues"),
	SINGLE(13, "process", process, process_fields, check_process,
		"what the kernel keeps for the process"),
	MANY(14, "group", groups, n_groups, TF_MAX_GROUPS, group_fields, NULL,
		"supplementary groups of the rights"),
	MANY(15, "rights", rights, n_rights, TF_MAX_RIGHTS, rights_fields, check_rights,
		"credentials, once for all threads that have the same"),
	MANY(16, "code", code, n_code, TF_MAX_CODE, code_fields, NULL,
		"instructions of the seccomp filters"),
	MANY(17, "filter", filters, n_filters, TF_MAX_FILTERS, filter_fields, check_filter,
		"seccomp filters, in the order in which they were installed"),
	MANY(18, "attributes", attributes, n_attributes, TF_MAX_THREADS, attributes_fields,
		check_attributes, "what the kernel keeps for each thread, in their order, or none"),
	MANY(19, "timer", timers, n_timers, TF_MAX_TIMERS, timer_fields, check_timer,
		"POSIX timers"),
	MANY(22, "later", later, n_later, TF_MAX_LATER, run_fields, check_later,
		"memory that comes when the process runs already"),
	MANY(34, "known", known, n_known, TF_KNOWN_MAX, known_fields, check_known,
		"mappings of files that need not come later, where the same file is"),
	MANY(32, "staged", staged, n_staged, TF_MAX_STAGED, run_fields, check_staged,
		"memory that came before this"),
	MANY(33, "held", held, n_held, TF_MAX_HELD, held_fields, check_held,
		"in that memory: where a thread's id stands because it holds a lock"),
	MANY(24, "wait", waits, n_waits, TF_MAX_THREADS, wait_fields, check_wait,
		"calls with a time limit that threads wait in"),
	MANY(10, "edit", edits, n_edits, TF_MAX_EDITS, edit_fields, check_edit,
		"what a yoyo brings back: changes of mappings"),
};

const size_t tf_n_kinds = COUNT(tf_kinds);
