/* SPDX-License-Identifier: MIT */
/* See zygote.h. The zygote's own side is the restorer's: give_birth(). */
#include "core/restore/zygote.h"
#include "core/base/cleanup.h"
#include "core/restore/build_impl.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

typedef unsigned long long ull;

#define KEY_SETS    8 /* regsets that ptrace sets, at most */
#define HELPERS_MAX 7
#define HELPS       4 /* copies for which one is worth while */

/* --- what cannot be one --- */

#define REASON(...) tf_fail_more(e, TELEFORK_E_INCOMPATIBLE, __VA_ARGS__)

/* A fork has the keys of its parent, and threads have those of their first. */
static bool same_keys(const struct tf_image *img, uint32_t thread)
{
	struct tf_step steps[KEY_SETS + 1];
	struct tf_plan plan = {.steps = steps, .max_steps = KEY_SETS};

	if (tf_arch_has_traced(&img->threads[thread]))
		tf_arch_plan_traced(&plan, &img->threads[thread]);
	for (uint64_t i = 0; i < plan.n_steps; i++) {
		uint32_t type = (uint32_t)plan.steps[i].arg[0];
		const struct tf_regset *a = tf_regs_find(&img->threads[0].regs, type);
		const struct tf_regset *b = tf_regs_find(&img->threads[thread].regs, type);

		if (!a || !b || a->size != b->size || memcmp(a->data, b->data, a->size) != 0)
			return false;
	}
	return !plan.full;
}

/* By each copy: what is there, or is its own. */
static bool can_be_had(const struct tf_object *o)
{
	return tf_build_is_file(o) || tf_build_is_nameless(o);
}

int tf_zygote_check(const struct tf_image *img, const struct tf_facts *f, struct tf_err *e)
{
	int before = e->code;

	(void)f;
	for (uint32_t i = 0; i < img->n_maps; i++) {
		const struct tf_map *m = &img->maps[i];

		if (tf_zygote_shares(img, m))
			REASON("zygote: memory at %llx-%llx is shared (%s): copies would share it with "
			       "each other",
				(ull)m->start, (ull)m->end, m->path[0] ? m->path : "anonymous");
		if (m->huge && m->prot & PROT_WRITE)
			REASON("zygote: %llx-%llx are pages of hugetlbfs: none can be promised to "
			       "a copy that writes to them",
				(ull)m->start, (ull)m->end);
	}
	for (uint32_t i = 0; i < img->n_fds; i++)
		if (img->fds[i].object && !can_be_had(&img->objects[img->fds[i].object - 1]))
			REASON("zygote: descriptor %d is shared memory with a name or key (%s): "
			       "copies would share it with each other",
				img->fds[i].fd, img->fds[i].path);
	if (img->n_filters)
		REASON("zygote: the process has system call filters, which only a receiver sets "
		       "that traces each copy");
	for (uint32_t i = 1; i < img->n_threads; i++)
		if (!same_keys(img, i)) {
			REASON("zygote: thread %d has keys of its own, which only a receiver sets "
			       "that traces each copy",
				(int)img->threads[i].tid);
			break;
		}
	return e->code != before ? e->code : 0;
}

/* --- copies --- */

static bool is_of(const struct tf_pad *p, const struct tf_report *r)
{
	return r->litter == (uint16_t)p->litter;
}

/* One more word about this litter. */
static int hear(struct tf_pad *p, struct tf_io *control, const struct tf_litter *l, uint32_t *ready,
	uint64_t *made, pid_t *pids)
{
	struct tf_report r;
	int rc = tf_io_read(control, &r, sizeof(r), &p->err);

	if (rc)
		return tf_fail_more(&p->err, rc, "zygote %d, or one of its copies", (int)p->child);
	if (!is_of(p, &r))
		return 0;
	if (r.tag == 'r' && r.where - l->first < l->n) {
		pids[r.where - l->first] = (pid_t)r.value;
		++*ready;
		return 0;
	}
	if (r.tag == 'f' && !r.error) {
		*made += r.value;
		return 0;
	}
	if (r.tag != 'f')
		return tf_pad_explain(p, &r);
	return tf_fail_errno(&p->err, r.error == -ENOMEM ? TELEFORK_E_NOMEM : TELEFORK_E_LIMIT,
		-r.error, "copy %llu of %u: fork", (ull)(r.where - l->first + 1), l->n);
}

/* A fork of much memory is work for one processor: others help, where it pays. */
static uint32_t helpers(const struct tf_pad *p, uint32_t n)
{
	cpu_set_t cpus;
	uint32_t others =
		sched_getaffinity(0, sizeof(cpus), &cpus) ? 0 : (uint32_t)CPU_COUNT(&cpus) - 1;

	if (p->facts.flags & TF_FACT_EMULATED)
		return 0;
	others = others < HELPERS_MAX ? others : HELPERS_MAX;
	return others < n / HELPS ? others : n / HELPS;
}

int tf_zygote_make(struct tf_pad *p, uint32_t n, uint64_t first, pid_t *pids)
{
	struct tf_litter l = {.first = first, .n = n, .helpers = helpers(p, n)};
	struct tf_io control;
	uint64_t made = 0;
	uint32_t ready = 0;
	int rc;

	p->err = (struct tf_err){0};
	p->litter++;
	tf_io_init(&control, p->control, p->options);
	control.deadline_ns = 0;
	rc = tf_io_write(&control, &l, sizeof(l), &p->err);
	if (rc)
		return tf_fail_more(&p->err, rc, "zygote %d", (int)p->child);
	while (!rc && (ready < n || made < n))
		rc = hear(p, &control, &l, &ready, &made, pids);
	if (rc)
		tf_zygote_end(p, false);
	return rc;
}

int tf_zygote_end(struct tf_pad *p, bool go)
{
	char word = go ? 'g' : 'x';

	return send(p->control, &word, 1, MSG_NOSIGNAL) == 1
		       ? 0
		       : tf_fail(&p->err, TELEFORK_E_RESTORE, "zygote %d has ended", (int)p->child);
}

int tf_zygote_wait(pid_t pid, int *status)
{
	TF_CLOSE int pidfd = -1;
	struct pollfd p;

	if (telefork_child_wait(pid, status) == pid)
		return 0;
	*status = 0;
	if (errno != ECHILD)
		return TELEFORK_E_SYSTEM;
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		return errno == ESRCH ? 0 : TELEFORK_E_SYSTEM;
	p = (struct pollfd){.fd = pidfd, .events = POLLIN};
	while (poll(&p, 1, -1) < 0 && errno == EINTR)
		;
	return 0;
}
