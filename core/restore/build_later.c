/* SPDX-License-Identifier: MIT */
/*
 * Memory that comes when the process runs already: its mappings are watched by userfaultfd(2),
 * whose descriptor goes to the receiver. Where that is not to be had, the memory comes now.
 */
#include "core/restore/build_impl.h"

#include "core/restore/spaces.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/* A report to the receiver with a descriptor, as sendmsg(2) wants it. */
struct message {
	struct msghdr header;
	struct iovec iov;
	struct tf_report report;
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
};

static void plan_message(struct tf_build *b, uint64_t uffd)
{
	struct message *m;
	uint64_t at = tf_build_data(b, NULL, sizeof(*m), 8, &m);
	struct tf_step *s;

	if (b->r->plan.full)
		return;
	m->report = (struct tf_report){.tag = 'u'};
	m->iov = (struct iovec){(void *)(at + offsetof(struct message, report)), sizeof(m->report)};
	m->header = (struct msghdr){.msg_iov = (void *)(at + offsetof(struct message, iov)),
		.msg_iovlen = 1,
		.msg_control = (void *)(at + offsetof(struct message, control)),
		.msg_controllen = CMSG_LEN(sizeof(int))};
	m->control.align = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)),
		.cmsg_level = SOL_SOCKET,
		.cmsg_type = SCM_RIGHTS};
	s = tf_plan_add(&b->r->plan, TF_OP_STORE, "its descriptor");
	s->arg[0] = at + offsetof(struct message, control) + CMSG_LEN(0);
	s->arg[1] = uffd;
	s->refs = 1u << 1;
	s->arg[2] = 4;
	s = tf_plan_syscall(&b->r->plan, "to the receiver", SYS_sendmsg, 3,
		(uint64_t)b->r->fds.control, at, (uint64_t)MSG_NOSIGNAL);
	s->expect = TF_EXPECT_VALUE;
	s->expected = sizeof(struct tf_report);
}

static struct tf_step *plan_ioctl(struct tf_build *b, const char *comment, uint64_t uffd,
	uint64_t request, const void *data, size_t n)
{
	struct tf_step *s = tf_plan_syscall(&b->r->plan, comment, SYS_ioctl, 3, uffd, request,
		tf_build_data(b, data, n, 8, NULL));

	s->refs = 1;
	return s;
}

static bool has_later(const struct tf_image *img, const struct tf_map *m, uint32_t *k)
{
	while (*k < img->n_later && img->later[*k].end <= m->start)
		++*k;
	return *k < img->n_later && img->later[*k].start < m->end;
}

void tf_build_later(struct tf_build *b)
{
	struct uffdio_api api = {.api = UFFD_API, .features = TF_UFFD_FEATURES};
	struct tf_plan *p = &b->r->plan;
	struct tf_step *s;
	uint64_t uffd;
	uint32_t k = 0;

	if (!b->img->n_later)
		return;
	if (!b->r->post_copy) {
		s = tf_plan_add(p, TF_OP_FILL, "memory that could wait");
		s->arg[0] = (uint64_t)b->r->fds.channel;
		s->arg[1] = UINT64_MAX;
		return;
	}
	tf_plan_syscall(
		p, "memory to come", SYS_userfaultfd, 1, (uint64_t)(O_CLOEXEC | O_NONBLOCK));
	uffd = tf_plan_last(p);
	plan_ioctl(b, "memory to come", uffd, UFFDIO_API, &api, sizeof(api));
	for (uint32_t i = 0; i < b->img->n_maps; i++) {
		const struct tf_map *m = &b->img->maps[i];
		struct uffdio_register reg = {.range = {m->start, m->data_end - m->start},
			.mode = UFFDIO_REGISTER_MODE_MISSING};

		if (has_later(b->img, m, &k))
			plan_ioctl(b, "memory to come", uffd, UFFDIO_REGISTER, &reg, sizeof(reg));
	}
	plan_message(b, uffd);
	tf_plan_syscall(p, "its descriptor", SYS_close, 1, uffd)->refs = 1;
}

uint64_t tf_build_later_size(const struct tf_image *img)
{
	return img->n_later ? sizeof(struct message) + 64 + sizeof(struct uffdio_api) +
				      img->n_maps * sizeof(struct uffdio_register)
			    : 0;
}
