/* SPDX-License-Identifier: MIT */
/*
 * The restorer: executes a plan in the new process, whose memory it takes down and builds up around
 * itself. Freestanding and position-independent: all of it lies in one section, which is copied
 * into an address hole; no libc, no data, no relocation (the build checks), no vector register.
 * Anything that can be decided beforehand is decided in
 * build.c. */
#include "arch/restorer.h"
#include "core/base/crc32c.h"
#include "core/image/image.h"
#include "core/image/stream.h"
#include "core/restore/plan.h"

#include <linux/ioctl.h>
#include <linux/userfaultfd.h>

#define IN_BLOB     __attribute__((section("tf_restorer"), noinline))
#define IS_ERROR(x) ((uint64_t)(x) > (uint64_t)-4096)

#define TF_OWNERS_FN static IN_BLOB
#include "core/restore/owners.h"

static IN_BLOB _Noreturn void fail(const struct tf_plan_header *p, uint64_t step, int64_t error,
	uint64_t value, uint64_t where)
{
	struct tf_report r;

	r.tag = 'e';
	r.litter = (uint16_t)p->litter;
	r.error = (int32_t)error;
	r.step = step;
	r.value = value;
	r.where = where;
	tf_r_syscall(TF_R_NR_write, p->control_fd, (long)&r, sizeof(r), 0, 0, 0);
	for (;;)
		tf_r_syscall(TF_R_NR_exit_group, 127, 0, 0, 0, 0, 0);
}

/* Until fd can be read. 0, or -errno: -EAGAIN when the time is over. */
static IN_BLOB int64_t await(int fd, int32_t ms)
{
	struct {
		int32_t fd;
		int16_t events, revents;
	} p;
	int64_t ts[2];
	long n;

	p.fd = fd;
	p.events = 1; /* POLLIN */
	p.revents = 0;
	ts[0] = ms / 1000;
	ts[1] = (int64_t)(ms % 1000) * 1000000;
	n = tf_r_syscall(TF_R_NR_ppoll, (long)&p, 1, (long)ts, 0, 0, 0);
	return n > 0 ? 0 : n ? n : -11 /* EAGAIN */;
}

/* Reads exactly n bytes; 0, -errno, or TF_REPORT_CLOSED. idle_ms: as in struct tf_plan_header. */
static IN_BLOB int64_t read_all(int fd, int32_t idle_ms, uint64_t address, uint64_t n)
{
	while (n) {
		long got = idle_ms ? await(fd, idle_ms) : 0;

		if (!got)
			got = tf_r_syscall(TF_R_NR_read, fd, (long)address, (long)n, 0, 0, 0);
		else if (got == -11)
			return got;
		if (got == -4 /* EINTR */ || (got == -11 /* EAGAIN */ && idle_ms))
			continue;
		if (!got)
			return TF_REPORT_CLOSED;
		if (IS_ERROR(got))
			return got;
		address += (uint64_t)got;
		n -= (uint64_t)got;
	}
	return 0;
}

static IN_BLOB uint32_t crc(
	const struct tf_plan_header *p, uint32_t state, const void *data, uint64_t n)
{
	if (p->crc_instruction)
		return tf_crc32c_instruction(state, data, n);
	return tf_crc32c_slice((const uint32_t(*)[256])p->crc_table, state, data, n);
}

/* The check of n bytes at `at`, and what may be a lock in them; to: where they will stand, 0:
 * nowhere. */
static IN_BLOB uint32_t check(
	const struct tf_plan_header *p, uint32_t state, uint64_t to, uint64_t at, uint64_t n)
{
	struct tf_owners *o = to ? (struct tf_owners *)p->owners : 0;

	if (o && p->crc_instruction)
		return tf_owner_note_checked(o, state, to, at, n);
	if (o)
		tf_owner_note(o, to, at, n);
	return crc(p, state, (const void *)at, n);
}

/* Who unpacks for us keeps the time himself. */
static IN_BLOB int32_t patience(const struct tf_plan_header *p, int fd)
{
	return fd == p->control_fd ? 0 : p->idle_ms;
}

/* The fill entry that holds [offset, offset + size), or 0. */
static IN_BLOB const struct tf_fill *find_fill(
	const struct tf_plan_header *p, uint64_t offset, uint64_t size)
{
	const struct tf_fill *fills = (const struct tf_fill *)p->fills;
	uint64_t low = 0, high = p->n_fills;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;
		const struct tf_fill *f = &fills[middle];

		if (offset < f->offset)
			high = middle;
		else if (offset - f->offset >= f->size)
			low = middle + 1;
		else
			return size <= f->size - (offset - f->offset) ? f : 0;
	}
	return 0;
}

static IN_BLOB void copy(uint64_t to, uint64_t from, uint64_t n)
{
	uint64_t i = 0;

	for (; i + 8 <= n; i += 8)
		*(volatile tf_r_word *)(to + i) = *(const tf_r_word *)(from + i);
	for (; i < n; i++)
		((volatile uint8_t *)to)[i] = ((const uint8_t *)from)[i];
	tf_r_flush(to, n);
}

static IN_BLOB bool same(uint64_t a, uint64_t b, uint64_t n)
{
	for (; n >= 8; n -= 8, a += 8, b += 8)
		if (*(const tf_r_word *)a != *(const tf_r_word *)b)
			return false;
	for (; n; n--, a++, b++)
		if (*(const uint8_t *)a != *(const uint8_t *)b)
			return false;
	return true;
}

/* What came against what is there, page by page. 0, or TF_REPORT_DIFFERS and where. */
static IN_BLOB int64_t settle(
	const struct tf_fill *f, uint64_t to, uint64_t from, uint64_t n, uint64_t *ret_where)
{
	while (n) {
		uint64_t part = TF_PLAN_PAGE - to % TF_PLAN_PAGE;

		part = part < n ? part : n;
		if (!same(to, from, part)) {
			*ret_where = to;
			if (f->how == TF_FILL_EQUAL)
				return TF_REPORT_DIFFERS;
			copy(to, from, part);
		}
		to += part;
		from += part;
		n -= part;
	}
	return 0;
}

static IN_BLOB int64_t ask_uffd(const struct tf_plan_header *p, uint64_t request, void *arg)
{
	return tf_r_syscall(TF_R_NR_ioctl, p->uffd, (long)request, (long)arg, 0, 0, 0);
}

/* Into what may be there, or is not watched: what is missing becomes zero, and is then written to
 * as any memory. 0 or -errno. */
static IN_BLOB int64_t put_bytes(
	const struct tf_plan_header *p, uint64_t to, uint64_t from, uint64_t n)
{
	struct uffdio_zeropage z;
	int64_t rc;

	z.range.start = to & ~(p->page - 1);
	z.range.len = p->page;
	z.mode = UFFDIO_ZEROPAGE_MODE_DONTWAKE;
	do
		rc = ask_uffd(p, UFFDIO_ZEROPAGE, &z);
	while (rc == -11 /* EAGAIN */);
	if (rc && rc != -17 /* EEXIST */ && rc != -2 /* ENOENT: not watched */ &&
		rc != -22 /* EINVAL: nothing is */)
		return rc;
	copy(to, from, n);
	return 0;
}

/* Pages that are missing, made of what came. 0 or -errno. */
static IN_BLOB int64_t put(const struct tf_plan_header *p, uint64_t to, uint64_t from, uint64_t n)
{
	int64_t rc = 0;

	while (n && !rc) {
		uint64_t part = p->page - to % p->page;
		struct uffdio_copy c;

		c.dst = to;
		c.src = from;
		c.len = n & ~(p->page - 1);
		c.mode = UFFDIO_COPY_MODE_DONTWAKE;
		c.copy = 0;
		if (part == p->page && n >= part)
			ask_uffd(p, UFFDIO_COPY, &c);
		if (c.copy > 0) {
			part = (uint64_t)c.copy;
		} else if (c.copy != -11 /* EAGAIN */) {
			part = part < n ? part : n;
			rc = put_bytes(p, to, from, part);
		} else {
			part = 0;
		}
		to += part;
		from += part;
		n -= part;
	}
	return rc;
}

/* One extent's data, into place or (address 0) nowhere. Returns 0 or what went wrong. */
static IN_BLOB int64_t read_extent(
	const struct tf_plan_header *p, int fd, const struct tf_extent *x, uint64_t *ret_where)
{
	const struct tf_fill *f = find_fill(p, x->offset, x->size);
	uint32_t state = crc(p, ~0u, x, 12); /* offset and size */
	uint64_t left = x->size;
	int64_t rc = 0;

	if (!f)
		return TF_REPORT_IMAGE;
	while (left && !rc) {
		uint64_t to = f->address + (x->offset - f->offset) + (x->size - left);
		bool puts = f->address && f->how == TF_FILL_PUT && p->uffd >= 0;
		bool aside = !f->address || f->how > TF_FILL_PUT || puts;
		uint64_t n = aside && left > TF_PLAN_BUFFER ? TF_PLAN_BUFFER : left;
		uint64_t at = aside ? p->buffer : to;

		rc = read_all(fd, patience(p, fd), at, n);
		if (rc)
			return rc;
		state = check(p, state, f->address ? to : 0, at, n);
		if (puts)
			rc = put(p, to, at, n);
		else if (aside && f->address)
			rc = settle(f, to, at, n, ret_where);
		left -= n;
	}
	return rc ? rc : ~state == x->crc ? 0 : TF_REPORT_CHECKSUM;
}

/* From here on extents come over the control socket: the receiver unpacks them. */
static IN_BLOB int ask_to_unpack(const struct tf_plan_header *p)
{
	struct tf_report r;

	r.tag = 'p';
	r.litter = (uint16_t)p->litter;
	r.error = 0;
	r.step = r.value = r.where = 0;
	tf_r_syscall(TF_R_NR_write, p->control_fd, (long)&r, sizeof(r), 0, 0, 0);
	return p->control_fd;
}

static IN_BLOB int64_t fill(struct tf_plan_header *p, int channel, uint64_t *ret_where)
{
	int fd = channel;

	for (;;) {
		struct tf_extent x; /* the kernel fills it, unseen by analyzers */
		int64_t rc = read_all(fd, patience(p, fd), (uint64_t)&x, sizeof(x));

		if (rc)
			return rc;
		*ret_where = x.offset; /* NOLINT(clang-analyzer-core.uninitialized.Assign) */
		if (x.offset == TF_TRAILER_OFFSET) {
			rc = x.size == p->count && x.crc == p->chain ? 0 : TF_REPORT_CHECKSUM;
			p->count = p->chain = 0; /* of what may come behind it */
			return rc;
		}
		if (x.offset == TF_PACKED_OFFSET) {
			fd = fd == channel ? ask_to_unpack(p) : channel;
			continue;
		}
		if (!x.size || x.size > TF_EXTENT_MAX || x.size > p->max_bytes - p->bytes)
			return TF_REPORT_IMAGE;
		rc = read_extent(p, fd, &x, ret_where);
		if (rc)
			return rc;
		p->chain = ~crc(p, ~p->chain, &x.crc, sizeof(x.crc));
		p->count++;
		p->bytes += x.size;
	}
}

static IN_BLOB void store(uint64_t address, uint64_t value, uint64_t size)
{
	if (size == 4)
		*(volatile uint32_t *)address = (uint32_t)value;
	else
		*(volatile uint64_t *)address = value;
}

static IN_BLOB bool word_is(uint64_t address, uint64_t size, uint64_t value)
{
	return size == 4 ? *(volatile uint32_t *)address == (uint32_t)value
			 : *(volatile uint64_t *)address == value;
}

static IN_BLOB void owners(const struct tf_plan_header *p, struct tf_owners *o, uint64_t how)
{
	_Static_assert(TF_OWNER_PAGES <= TF_PLAN_BUFFER, "scratch");
	if (how == TF_OWNERS_NOTED && !o->notes->n)
		return; /* nothing to write: the pages stay shared */
	if (how == TF_OWNERS_NOTED && o->notes->n > o->notes->max)
		o->notes = 0;
	for (uint64_t i = 0; i < o->n_owners && how != TF_OWNERS_NOTE; i++)
		o->owner[i].now =
			(uint32_t)((const struct tf_step *)p->steps)[o->owner[i].step].result;
	if (how == TF_OWNERS_NOTED && o->notes)
		tf_owners_change_noted(o);
	else
		tf_owners_change(o, (uint8_t *)p->buffer);
}

/* 0, or -errno where there are none. */
static IN_BLOB int64_t tags(const struct tf_tags *t, uint64_t n)
{
	int64_t rc = 0;

	for (uint64_t i = 0; i < n && !rc; i++)
		for (uint64_t k = 0; k < TF_TAGS_SIZE / 16 && !rc; k++)
			rc = tf_r_tag(t[i].address + 16 * k, t[i].tags[k / 16] >> k % 16 * 4 & 15);
	return rc;
}

/* 0, -errno, or TF_REPORT_CLOSED. */
static IN_BLOB int64_t tell(const struct tf_plan_header *p, int fd, uint16_t tag, int64_t error,
	uint64_t step, uint64_t value, uint64_t where)
{
	struct tf_report r;
	long n;

	r.tag = tag;
	r.litter = (uint16_t)p->litter;
	r.error = (int32_t)error;
	r.step = step;
	r.value = value;
	r.where = where;
	n = tf_r_syscall(TF_R_NR_write, fd, (long)&r, sizeof(r), 0, 0, 0);
	return n == sizeof(r) ? 0 : IS_ERROR(n) ? n : TF_REPORT_CLOSED;
}

static IN_BLOB int64_t barrier(const struct tf_plan_header *p, uint64_t step, int fd)
{
	int64_t n = tell(p, fd, 'r', 0, step, p->bytes, 0);
	uint8_t go;

	if (n)
		return n;
	do
		n = tf_r_syscall(TF_R_NR_read, fd, (long)&go, 1, 0, 0, 0);
	while (n == -4 /* EINTR */ && !__atomic_load_n(&p->traced, __ATOMIC_SEQ_CST));
	if (n == -4)
		return 0;
	if (n != 1)
		return IS_ERROR(n) ? n : TF_REPORT_CLOSED;
	/* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): as in fill() */
	return go == 'g' ? 0 : TF_REPORT_CLOSED;
}

/* --- zygotes --- */

#define SIGCHLD_FLAG      17
#define CLONE_PARENT_FLAG 0x8000
#define CLOEXEC_FLAG      0x80000

static IN_BLOB long plain_fork(long flags)
{
	return tf_r_syscall(TF_R_NR_clone, flags | SIGCHLD_FLAG, 0, 0, 0, 0, 0);
}

/* A fork whose parent is ours: 0 in it. Without CLONE_PARENT the one in between ends at once, and
 * our parent takes orphans. */
static IN_BLOB long fork_sibling(bool twice)
{
	int32_t status = 0;
	long pid = plain_fork(twice ? 0 : CLONE_PARENT_FLAG);

	if (!twice || IS_ERROR(pid))
		return pid;
	if (!pid) {
		pid = plain_fork(0);
		if (!pid)
			return 0;
		for (;;)
			tf_r_syscall(TF_R_NR_exit_group, IS_ERROR(pid) ? -pid : 0, 0, 0, 0, 0, 0);
	}
	while (tf_r_syscall(TF_R_NR_wait4, pid, (long)&status, 0, 0, 0, 0) == -4 /* EINTR */)
		;
	return status ? -(long)(status >> 8 & 255) : pid;
}

static IN_BLOB void close_fd(int fd)
{
	tf_r_syscall(TF_R_NR_close, fd, 0, 0, 0, 0, 0);
}

/* A pipe under numbers above all of the program's. 0 or -errno. */
static IN_BLOB long open_gate(int gate)
{
	int32_t fd[2];
	long rc = tf_r_syscall(TF_R_NR_pipe2, (long)fd, CLOEXEC_FLAG, 0, 0, 0, 0);

	if (IS_ERROR(rc))
		return rc;
	for (int i = 0; i < 2; i++) {
		/* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): the kernel fills it */
		long to = tf_r_syscall(TF_R_NR_dup3, fd[i], gate + i, CLOEXEC_FLAG, 0, 0, 0);

		rc = IS_ERROR(to) ? to : rc;
		close_fd(fd[i]);
	}
	return rc;
}

/* Some of the forks are made by forks of the zygote, which end then: in one of these it returns
 * what is left for it to make in *l. 0 or -errno. */
static IN_BLOB long share_out(struct tf_litter *l, bool twice, bool *ret_helper)
{
	long pid = 1;

	for (; l->helpers && pid > 0; l->helpers--) {
		uint32_t share = l->n / (l->helpers + 1);

		pid = fork_sibling(twice);
		l->n -= pid ? share : 0;
		if (!pid) {
			l->first += l->n - share;
			l->n = share;
			*ret_helper = true;
		}
	}
	return pid < 0 ? pid : 0;
}

/* Forks that wait behind a gate; then the word whether it opens. 0 in a fork, with its index; > 0
 * in the zygote; < 0: the receiver is gone. */
static IN_BLOB int64_t give_birth(struct tf_plan_header *p, struct tf_litter *l, uint64_t step,
	int fd, bool twice, uint64_t *ret_index)
{
	/* NOLINTNEXTLINE(clang-analyzer-core.uninitialized.Assign): as in fill() */
	uint64_t n = 0, all = l->n;
	bool helper = false;
	uint8_t word = 0;
	int64_t rc;

	p->litter++;
	rc = open_gate(p->gate_fd);
	if (!IS_ERROR(rc))
		rc = share_out(l, twice, &helper);
	for (; !IS_ERROR(rc) && n < l->n; n += !IS_ERROR(rc)) {
		rc = fork_sibling(twice);
		if (!rc) {
			close_fd(p->gate_fd + 1);
			*ret_index = l->first + n;
			return 0;
		}
	}
	rc = tell(p, fd, 'f', IS_ERROR(rc) ? rc : 0, step, n, l->first + n);
	if (helper)
		return -1;
	if (!rc)
		rc = read_all(fd, 0, (uint64_t)&word, 1);
	if (!rc && word == 'g')
		tf_r_syscall(TF_R_NR_write, p->gate_fd + 1, (long)p->buffer, (long)all, 0, 0, 0);
	close_fd(p->gate_fd);
	close_fd(p->gate_fd + 1);
	return rc ? -1 : 1;
}

static IN_BLOB int64_t zygote(
	struct tf_plan_header *p, uint64_t step, int fd, bool twice, uint64_t *ret_index)
{
	_Static_assert(TF_LITTER_MAX <= TF_PLAN_BUFFER, "bytes to write");
	int64_t rc = tell(p, fd, 'z', 0, step, p->bytes, 0);

	if (rc)
		return rc;
	for (;;) {
		struct tf_litter l; /* the kernel fills it */

		rc = read_all(fd, 0, (uint64_t)&l, sizeof(l)) ? -1 : 1;
		if (rc > 0)
			rc = give_birth(p, &l, step, fd, twice, ret_index);
		if (!rc)
			return 0;
		if (rc < 0)
			for (;;)
				tf_r_syscall(TF_R_NR_exit_group, 0, 0, 0, 0, 0, 0);
	}
}

/* Without a word it ends: nothing was to come of it. */
static IN_BLOB int64_t gate(const struct tf_plan_header *p, uint64_t step, int fd, uint64_t index)
{
	uint64_t pid = (uint64_t)tf_r_syscall(TF_R_NR_getpid, 0, 0, 0, 0, 0, 0);
	int64_t rc = tell(p, fd, 'r', 0, step, pid, index);
	uint8_t go;

	while (rc || read_all(p->gate_fd, 0, (uint64_t)&go, 1))
		tf_r_syscall(TF_R_NR_exit_group, 127, 0, 0, 0, 0, 0);
	close_fd(p->gate_fd);
	return 0;
}

/* Sleeps while *word is value; may wake for nothing. */
static IN_BLOB void sleep_on(uint32_t *word, uint32_t value)
{
	tf_r_syscall(TF_R_NR_futex, (long)word, 128 /* WAIT | PRIVATE */, value, 0, 0, 0);
}

static IN_BLOB void wake(uint32_t *word)
{
	tf_r_syscall(TF_R_NR_futex, (long)word, 129 /* WAKE | PRIVATE */, INT32_MAX, 0, 0, 0);
}

static IN_BLOB void arrive(struct tf_plan_header *p)
{
	__atomic_fetch_add(&p->arrived, 1, __ATOMIC_SEQ_CST);
	wake(&p->arrived);
	while (!__atomic_load_n(&p->go, __ATOMIC_SEQ_CST))
		sleep_on(&p->go, 0);
}

static IN_BLOB void gather(struct tf_plan_header *p, uint32_t n)
{
	uint32_t seen;

	while ((seen = __atomic_load_n(&p->arrived, __ATOMIC_SEQ_CST)) != n)
		sleep_on(&p->arrived, seen);
}

static IN_BLOB void release(struct tf_plan_header *p)
{
	__atomic_store_n(&p->go, 1, __ATOMIC_SEQ_CST);
	wake(&p->go);
}

/* What a thread of a process is, to clone(2); QEMU user mode takes no other set. */
#define THREAD_FLAGS                                                                 \
	(0x100 /* VM */ | 0x200 /* FS */ | 0x400 /* FILES */ | 0x800 /* SIGHAND */ | \
		0x10000 /* THREAD */ | 0x40000 /* SYSVSEM */)

/* clone3(2) is for a wanted id only: QEMU user mode has none. */
static IN_BLOB int64_t start_thread(
	const struct tf_plan_header *p, uint64_t first, uint64_t stack, uint64_t tid)
{
	uint64_t args[10]; /* struct clone_args, CLONE_ARGS_SIZE_VER1 */
	int32_t set_tid = (int32_t)tid;

	if (!tid)
		return tf_r_clone(
			TF_R_NR_clone, THREAD_FLAGS, stack, p->thread_entry, (uint64_t)p, first);
	for (unsigned i = 0; i < 10; i++)
		((volatile uint64_t *)args)[i] = 0;
	args[0] = THREAD_FLAGS;
	args[5] = stack - TF_THREAD_STACK;
	args[6] = TF_THREAD_STACK;
	args[8] = (uint64_t)&set_tid;
	args[9] = 1;
	return tf_r_clone(
		TF_R_NR_clone3, (uint64_t)args, sizeof(args), p->thread_entry, (uint64_t)p, first);
}

static IN_BLOB bool expected(const struct tf_step *s)
{
	if (s->expect == TF_EXPECT_ANY)
		return true;
	if (s->expect == TF_EXPECT_VALUE)
		return s->result == s->expected;
	return !IS_ERROR(s->result);
}

static IN_BLOB int64_t run_step(struct tf_plan_header *p, struct tf_step *s, uint64_t index,
	const uint64_t *a, uint64_t *ret_where)
{
	switch (s->op) {
	case TF_OP_SYSCALL:
		s->result = (uint64_t)tf_r_syscall(s->nr, (long)a[0], (long)a[1], (long)a[2],
			(long)a[3], (long)a[4], (long)a[5]);
		if (expected(s))
			return 0;
		return IS_ERROR(s->result) ? (int64_t)s->result : -17 /* EEXIST: another place */;
	case TF_OP_FILL:
		p->uffd = IS_ERROR(a[1]) ? -1 : (int32_t)a[1];
		return fill(p, (int)a[0], ret_where);
	case TF_OP_STORE:
		store(a[0], a[1], a[2]);
		return 0;
	case TF_OP_STORE_IF:
		if (word_is(a[0], a[2], a[3]))
			store(a[0], a[1], a[2]);
		return 0;
	case TF_OP_OWNERS:
		owners(p, (struct tf_owners *)a[0], a[2]);
		return 0;
	case TF_OP_COPY:
		copy(a[0], a[1], a[2]);
		return 0;
	case TF_OP_BARRIER:
		return barrier(p, index, (int)a[0]);
	case TF_OP_ZYGOTE:
		return zygote(p, index, (int)a[0], a[1], &s->result);
	case TF_OP_GATE:
		return gate(p, index, (int)a[0], a[1]);
	case TF_OP_ARCH:
		tf_r_arch((uint32_t)a[0], a[1]);
		return 0;
	case TF_OP_SIGN:
		store(a[0], tf_r_sign(a[1], a[2], a[3]), 8);
		return 0;
	case TF_OP_TAGS:
		return tags((const struct tf_tags *)a[0], a[1]);
	case TF_OP_TRACER:
		return 0; /* the receiver's */
	case TF_OP_THREAD:
		s->result = (uint64_t)start_thread(p, a[0], a[1], a[2]);
		return IS_ERROR(s->result) ? (int64_t)s->result : 0;
	case TF_OP_ARRIVE:
		arrive(p);
		return 0;
	case TF_OP_GATHER:
		gather(p, (uint32_t)a[0]);
		return 0;
	case TF_OP_RELEASE:
		release(p);
		return 0;
	case TF_OP_SIGRETURN:
		tf_r_sigreturn(a[0]);
	default:
		return -38; /* ENOSYS */
	}
}

static IN_BLOB _Noreturn void run_list(struct tf_plan_header *p, uint64_t first)
{
	struct tf_step *steps = (struct tf_step *)p->steps;

	for (uint64_t i = first; i < p->n_steps; i++) {
		struct tf_step *s = &steps[i];
		uint64_t a[6], where = 0;
		int64_t rc;

		for (unsigned k = 0; k < 6; k++)
			a[k] = s->refs & 1u << k ? steps[s->arg[k]].result : s->arg[k];
		rc = run_step(p, s, i, a, &where);
		if (rc)
			fail(p, i, rc, s->result, where);
	}
	fail(p, p->n_steps, -38, 0, 0);
}

IN_BLOB _Noreturn void tf_restorer_main(struct tf_plan_header *p)
{
	run_list(p, 0);
}

IN_BLOB _Noreturn void tf_restorer_thread(struct tf_plan_header *p, uint64_t first)
{
	run_list(p, first);
}
