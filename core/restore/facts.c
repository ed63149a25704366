/* SPDX-License-Identifier: MIT */
/* Asking the destination, see facts.h. Nothing is changed but for the moment of a probe mapping. */
#include "core/restore/facts_impl.h"
#include "arch/arch.h"
#include "core/base/cleanup.h"
#include "core/base/guest.h"
#include "core/base/host.h"
#include "core/base/io.h"
#include "core/base/maps.h"
#include "core/capture/capture.h"
#include "core/capture/rights.h"
#include "core/restore/fit.h"
#include "core/restore/spaces.h"
#include "core/restore/tracer.h"
#include "core/restore/vdso.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/prctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

/* linux/prctl.h of Linux 6.15 */
#define PR_TIMER_CREATE_RESTORE_IDS     77
#define PR_TIMER_CREATE_RESTORE_IDS_GET 2

/* Into a small buffer: the kernel allocates as much as is asked of /proc/sys. */
uint64_t tf_facts_number(const char *path, uint64_t otherwise)
{
	TF_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[32];
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (n <= 0)
		return otherwise;
	text[n] = '\0';
	return strtoull(text, NULL, 10);
}

static bool page_exists(uint64_t addr, uint64_t page)
{
	void *p = mmap((void *)addr, page, PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (p == MAP_FAILED)
		return errno == EEXIST;
	munmap(p, page);
	return p == (void *)addr;
}

/* The widths that exist: 57-bit x86_64 (56 for user space), 52 and 48 bits aarch64, 47 x86_64,
 * 42, 39 and 36 aarch64 (Documentation/arch/arm64/memory.rst, x86/x86_64/mm.rst). */
static uint64_t address_end(uint64_t page)
{
	static const int bits[] = {56, 52, 48, 47, 42, 39, 36};

	for (size_t i = 0; i < sizeof(bits) / sizeof(*bits); i++) {
		uint64_t end = UINT64_C(1) << bits[i];

		if (page_exists(end - page, page))
			return end;
		if (page_exists(end - 2 * page, page)) /* x86_64 leaves the last page out */
			return end - page;
	}
	return UINT64_C(1) << 32;
}

/* CONFIG_CHECKPOINT_RESTORE: the size of the structure is told, proc(5) prctl(2). */
static bool has_mm_map(void)
{
	unsigned size = 0;

	return !prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, &size, 0, 0) &&
	       size == sizeof(struct prctl_mm_map);
}

static const char *first_line(struct tf_arena *a, const char *path)
{
	char *text;
	size_t size;

	return tf_proc_read(a, path, &text, &size, NULL)
		       ? ""
		       : tf_arena_strn(a, text, strcspn(text, "\n"));
}

/* Bit n of f->cpus for each n of a list such as "0-3,8". */
static void gather_cpus(struct tf_facts *f, const char *list)
{
	while (*list >= '0' && *list <= '9') {
		char *end;
		unsigned long first = strtoul(list, &end, 10), last = first;

		if (*end == '-')
			last = strtoul(end + 1, &end, 10);
		for (; first <= last && first < 64 * TF_CPU_WORDS; first++)
			f->cpus[first / 64] |= UINT64_C(1) << first % 64;
		list = *end == ',' ? end + 1 : end;
	}
}

/* What the kernel keeps for the receiver, and a new process starts with. */
static int gather_own(struct tf_facts *f, const char *status, struct tf_arena *a)
{
	struct tf_clocks ours = tf_host_clocks(0);
	int bits = prctl(PR_GET_SECUREBITS, 0, 0, 0, 0);

	if (tf_rights_parse(status, &f->rights, &f->groups, a))
		memset(&f->rights, 0, sizeof(f->rights));
	f->rights.securebits = bits > 0 ? (uint32_t)bits : 0;
	if (!strncmp(first_line(a, "/proc/self/uid_map"), "         0          0 4294967295", 31))
		f->flags |= TF_FACT_FIRST_USER;
	f->flags |= prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? TF_FACT_NO_NEW : 0;
	f->flags |= strstr(status, "\nSeccomp:\t0") ? TF_FACT_UNFILTERED : 0;
	f->clock_ahead = ours.monotonic;
	f->boot = ours.monotonic || ours.boottime
			  ? "namespace"
			  : first_line(a, "/proc/sys/kernel/random/boot_id");
	return f->groups && f->boot ? 0 : TELEFORK_E_NOMEM;
}

/* Only a kernel is asked: an emulator has neither. */
static uint32_t kernel_can(const struct tf_facts *f)
{
	uint32_t can = 0;

	if (f->flags & TF_FACT_EMULATED)
		return 0;
	if (prctl(PR_TIMER_CREATE_RESTORE_IDS, PR_TIMER_CREATE_RESTORE_IDS_GET, 0, 0, 0) >= 0)
		can |= TF_FACT_TIMER_IDS;
	if (!access("/proc/self/timens_offsets", F_OK) &&
		f->rights.caps[TF_CAP_E] >> CAP_SYS_ADMIN & 1)
		can |= TF_FACT_TIME_NS;
	if (tf_uffd_usable())
		can |= TF_FACT_UFFD;
	return can;
}

static int gather_auxv(struct tf_facts *f, struct tf_arena *a, struct tf_err *e)
{
	char *text;
	size_t size;
	int rc = tf_proc_read(a, "/proc/self/auxv", &text, &size, e);

	f->auxv_size = size;
	return rc;
}

/* What this process, and whatever it forks, will find as it is now. */
static int gather_lasting(
	struct tf_facts *f, const char *status, struct tf_arena *a, struct tf_err *e)
{
	bool emulated = tf_host_emulated();
	struct tf_before self;
	struct utsname uts;
	int rc;

	*f = (struct tf_facts){
		.machine = tf_arch_native()->machine,
		.page_size = (uint32_t)sysconf(_SC_PAGESIZE),
		.flags = emulated ? TF_FACT_EMULATED : 0,
	};
	/* Asked only where something depends on it: it takes a child for a moment. */
	if (!emulated && tf_arch_traced() && tf_tracer_allowed())
		f->flags |= TF_FACT_PTRACE;
	uname(&uts);
	f->release = tf_arena_strn(a, uts.release, sizeof(uts.release));
	f->max_addr = address_end(f->page_size);
	if (!emulated && has_mm_map())
		f->flags |= TF_FACT_MM_MAP;
	if (!emulated && tf_facts_keys())
		f->flags |= TF_FACT_KEYS;
	/* A kernel with rseq refuses an unaligned area with EINVAL; one without says ENOSYS. */
	if (syscall(SYS_rseq, 1L, 0L, 0L, 0L) && errno != ENOSYS)
		f->flags |= TF_FACT_RSEQ;
	tf_capture_before(&self);
	f->rseq = self.rseq;
	tf_arch_cpu(&f->cpu, false);
	f->n_keep = tf_arch_emulator_pages(f->keep, TF_FACT_KEEP_MAX);
	rc = gather_own(f, status, a);
	f->flags |= kernel_can(f);
	if (!rc)
		rc = gather_auxv(f, a, e);
	return rc || !f->release ? TELEFORK_E_NOMEM : 0;
}

static void gather_limits(struct tf_facts *f, const char *status, struct tf_arena *a)
{
	for (int i = 0; i < TF_LIMITS; i++) {
		struct rlimit lim = {RLIM_INFINITY, RLIM_INFINITY};

		getrlimit((__rlimit_resource_t)i, &lim);
		f->limits[2 * i] = lim.rlim_cur;
		f->limits[2 * i + 1] = lim.rlim_max;
	}
	f->address_limit = f->limits[2 * RLIMIT_AS];
	f->fd_limit = f->limits[2 * RLIMIT_NOFILE + 1];
	f->nr_open = tf_facts_number("/proc/sys/fs/nr_open", 1048576);
	f->max_map_count = tf_facts_number("/proc/sys/vm/max_map_count", 65530);
	f->min_addr = tf_facts_number("/proc/sys/vm/mmap_min_addr", 65536);
	if (f->min_addr < f->page_size)
		f->min_addr = f->page_size;
	f->memory_free = tf_host_memory_free(a);
	tf_facts_tasks(f, status, a);
	tf_facts_memory(f, a);
}

/* All that the arena may still become is its own. */
static void claim_arena(struct tf_map *maps, uint32_t n, struct tf_arena *a)
{
	uint64_t base = (uint64_t)a->base;
	struct tf_map *last = NULL;

	for (uint32_t i = 0; i < n && maps[i].start < base + a->most; i++) {
		if (maps[i].start >= base + a->size)
			a->most = maps[i].start - base;
		else if (maps[i].end > base)
			last = &maps[i];
	}
	if (last && last->end < base + a->most)
		last->end = base + a->most;
}

/* What is true of this moment. */
static int gather_moment(
	struct tf_facts *f, const char *status, struct tf_arena *a, struct tf_err *e)
{
	int rc;

	gather_limits(f, status, a);
	memset(f->cpus, 0, sizeof(f->cpus));
	gather_cpus(f, first_line(a, "/sys/devices/system/cpu/online"));
	f->brk = (uint64_t)syscall(SYS_brk, 0);
	f->nice = getpriority(PRIO_PROCESS, 0);
	f->oom_score_adj = (int32_t)strtol(first_line(a, "/proc/self/oom_score_adj"), NULL, 10);
	f->monotonic_ns = tf_clock_ns(CLOCK_MONOTONIC) - (uint64_t)f->clock_ahead;
	rc = tf_guest_maps(a, 0, &f->maps, &f->n_maps, e);
	f->taken = f->maps;
	f->n_taken = f->n_maps;
	if (!rc && f->flags & TF_FACT_EMULATED)
		rc = tf_maps_read(a, TF_HOST_TRUE_MAPS, &f->taken, &f->n_taken, e);
	if (!rc) {
		claim_arena(f->maps, f->n_maps, a);
		claim_arena(f->taken, f->n_taken, a);
	}
	return rc;
}

static int out_of_memory(struct tf_err *e)
{
	return tf_fail(e, TELEFORK_E_NOMEM, "out of memory for the destination's facts");
}

static const struct tf_facts *lasting;

int tf_facts_gather(struct tf_facts *f, struct tf_arena *a, struct tf_err *e)
{
	char *status;
	size_t size;
	int rc = tf_proc_read(a, "/proc/self/status", &status, &size, e);

	if (!rc && lasting) {
		*f = *lasting;
		return gather_moment(f, status, a, e);
	}
	if (!rc && gather_lasting(f, status, a, e))
		rc = out_of_memory(e);
	if (!rc)
		rc = gather_moment(f, status, a, e);
	if (!rc && tf_vdso_from_maps(&f->vdso, f->maps, f->n_maps, a))
		rc = out_of_memory(e);
	return rc;
}

int tf_facts_remember(struct tf_arena *a, struct tf_err *e)
{
	struct tf_facts *f = tf_arena_alloc(a, sizeof(*f));
	int rc = f ? tf_facts_gather(f, a, e) : out_of_memory(e);

	if (!rc) {
		f->traces = !(f->flags & TF_FACT_EMULATED) && tf_tracer_allowed();
		lasting = f;
	}
	return rc;
}

static const struct {
	const char *name;
	size_t offset, size;
} fields[] = {
#define FIELD(n)                                                                    \
	{                                                                           \
#n, offsetof(struct tf_facts, n), sizeof(((struct tf_facts *)0)->n) \
	}
	FIELD(machine),
	FIELD(page_size),
	FIELD(flags),
	FIELD(min_addr),
	FIELD(max_addr),
	FIELD(max_map_count),
	FIELD(memory_free),
	FIELD(address_limit),
	FIELD(lock_limit),
	FIELD(commit_free),
	FIELD(fd_limit),
	FIELD(threads_free),
	FIELD(pending_free),
	FIELD(brk),
	FIELD(auxv_size),
	FIELD(rseq.addr),
	FIELD(rseq.len),
	FIELD(rseq.sig),
	FIELD(vdso.base),
	FIELD(vdso.size),
	FIELD(vdso.vvar_base),
	FIELD(vdso.vvar_size),
	FIELD(vdso.digest),
	FIELD(cpu.xcr0),
	FIELD(cpu.xsave_size),
	FIELD(cpu.vl),
	FIELD(cpu.vl_mask),
#undef FIELD
};

static bool set_field(struct tf_facts *f, const char *name, size_t n, uint64_t value)
{
	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
		if (strlen(fields[i].name) != n || memcmp(fields[i].name, name, n))
			continue;
		if (fields[i].size == 4 && value > UINT32_MAX)
			return false;
		memcpy((char *)f + fields[i].offset, &value, fields[i].size); /* little-endian */
		return true;
	}
	if (n != 4 || memcmp(name, "keep", n) || f->n_keep == TF_FACT_KEEP_MAX)
		return false;
	f->keep[f->n_keep++] = value;
	return true;
}

/* "name value", up to eol. */
static bool parse_fact(struct tf_facts *f, const char *line, const char *eol)
{
	const char *space = memchr(line, ' ', (size_t)(eol - line));
	const char *value = space ? space + 1 : eol;
	char *end;
	uint64_t number;

	if (value == eol || *value < '0' || *value > '9')
		return false;
	errno = 0;
	number = strtoull(value, &end, !strncmp(value, "0x", 2) ? 16 : 10);
	return end == eol && !errno && set_field(f, line, (size_t)(space - line), number);
}

int tf_facts_parse(struct tf_facts *f, struct tf_arena *a, const char *text, struct tf_err *e)
{
	unsigned line = 1;
	const char *eol;
	int rc;

	*f = (struct tf_facts){.release = "",
		.boot = "",
		.groups = tf_arena_array(a, 1, 4),
		.lock_limit = UINT64_MAX,
		.commit_free = UINT64_MAX};
	for (const char *p = text; *p; p = *eol ? eol + 1 : eol, line++) {
		eol = strchrnul(p, '\n');
		if (eol - p == 5 && !memcmp(p, "maps:", 5)) {
			p = *eol ? eol + 1 : eol;
			rc = tf_maps_parse(a, p, strlen(p), &f->maps, &f->n_maps, e);
			f->taken = f->maps;
			f->n_taken = f->n_maps;
			return rc;
		}
		if (*p != '#' && p != eol && !parse_fact(f, p, eol))
			return tf_fail(
				e, TELEFORK_E_INVAL, "facts: line %u: not a known fact", line);
	}
	return 0;
}

/* The link cannot be changed while the program that it leads to is mapped (prctl(2), EBUSY), and
 * files are mapped by name where they are the same. */
static bool maps_program(const struct tf_image *img, const char *exe)
{
	for (uint32_t i = 0; i < img->n_maps; i++)
		if (img->maps[i].kind == TF_MAP_FILE && !strcmp(img->maps[i].path, exe))
			return true;
	return false;
}

uint32_t tf_facts_link(const struct tf_facts *f, const struct tf_image *img)
{
	const char *exe = img->source.exe;
	char own[TF_MAX_STR] = "";
	struct stat st;

	if (img->source.origin != TF_ORIGIN_TASK || !(f->flags & TF_FACT_MM_MAP) ||
		readlink("/proc/self/exe", own, sizeof(own) - 1) < 0)
		return 0;
	if (!strcmp(own, exe))
		return TF_FACT_EXE_SAME;
	return (tf_fact_may_everywhere(f, CAP_CHECKPOINT_RESTORE) ||
		       tf_fact_may_everywhere(f, CAP_SYS_ADMIN)) &&
			       exe[0] == '/' && !stat(exe, &st) && S_ISREG(st.st_mode) &&
			       !access(exe, R_OK | X_OK) && !maps_program(img, own)
		       ? TF_FACT_EXE
		       : 0;
}
