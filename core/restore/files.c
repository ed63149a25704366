/* SPDX-License-Identifier: MIT */
/* See files.h. Every file is opened as the copy is going to, and closed again. */
#include "core/base/cleanup.h"
#include "core/restore/files.h"
#include "core/restore/build.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool is_deleted(const char *path)
{
	static const char mark[] = " (deleted)"; /* proc(5), /proc/PID/fd */
	size_t n = strlen(path), m = sizeof(mark) - 1;

	return n > m && !strcmp(path + n - m, mark);
}

int tf_files_open(const char *path, int flags, mode_t type, struct stat *st)
{
	TF_CLOSE int seen = open(path, O_PATH | O_CLOEXEC | (flags & O_NOFOLLOW));
	char same[32];

	if (seen < 0 || fstat(seen, st))
		return -1;
	errno = S_ISLNK(st->st_mode) ? ELOOP : 0;
	if ((st->st_mode & S_IFMT) != type)
		return -1;
	snprintf(same, sizeof(same), "/proc/self/fd/%d", seen);
	return open(same, (flags & ~O_NOFOLLOW) | O_CLOEXEC);
}

/* Why the file cannot be opened here as the process has it; NULL if it can. */
static const char *obstacle(const struct tf_fd *fd)
{
	bool file = fd->kind == TF_FD_FILE, dir = fd->kind == TF_FD_DIR;
	struct stat st;
	TF_CLOSE int opened = tf_files_open(fd->path, (int)tf_restore_open_flags(fd) | O_NONBLOCK,
		file  ? S_IFREG
		: dir ? S_IFDIR
		      : S_IFCHR,
		&st);

	if (opened < 0 && errno == ENOENT && is_deleted(fd->path))
		return "deleted at the source";
	if (opened < 0 && !errno)
		return file ? "no regular file here" : dir ? "no directory here" : "no device here";
	if (opened < 0)
		return tf_errno_name(errno);
	/* Behind the end of the file of that name: it is another one. */
	if (file && fd->offset > (uint64_t)st.st_size && fd->offset <= fd->size)
		return "shorter here than the process has come in it";
	return NULL;
}

/* The process is somewhere: a program that was moved from outside cannot know better. */
static int check_cwd(struct tf_image *img, bool hold, struct tf_err *e)
{
	const char *cwd = img->source.cwd, *why = NULL;
	struct stat st;

	if (img->source.origin != TF_ORIGIN_TASK || !cwd[0])
		return 0;
	if (stat(cwd, &st))
		why = is_deleted(cwd) ? "deleted at the source" : tf_errno_name(errno);
	else if (!S_ISDIR(st.st_mode))
		why = "no directory here";
	else if (access(cwd, X_OK))
		why = tf_errno_name(errno);
	if (!why)
		return 0;
	if (hold)
		img->source.cwd = "";
	return tf_fail_more(e, TELEFORK_E_INCOMPATIBLE, "working directory %s: %s%s", cwd, why,
		hold ? "; it stays where the receiver is"
		     : ": make it, or go on without it (restore --allow files)");
}

int tf_files_check(struct tf_image *img, bool hold, struct tf_err *e)
{
	int rc = check_cwd(img, hold, e);

	for (uint32_t i = 0; i < img->n_fds; i++) {
		struct tf_fd *fd = &img->fds[i];
		const char *why = tf_restore_opens(img, fd) && !fd->object ? obstacle(fd) : NULL;

		if (!why)
			continue;
		rc = tf_fail_more(e, TELEFORK_E_INCOMPATIBLE, "descriptor %d, %s: %s%s", fd->fd,
			fd->path, why,
			hold ? "; its number is held, every use answers EBADF"
			     : ": put the file there, or go on without it (restore --allow files)");
		if (hold)
			fd->kind = TF_FD_OTHER;
	}
	return hold ? 0 : rc;
}

/* --- as whom --- */

static const struct tf_rights *rights_of(const struct tf_image *img)
{
	return &img->rights[img->attributes[0].rights];
}

static bool other_groups(const struct tf_image *img, const struct tf_facts *f)
{
	const struct tf_rights *r = rights_of(img);

	return r->n_groups != TF_OWN_GROUPS &&
	       (r->n_groups != f->rights.n_groups ||
		       memcmp(img->groups + r->group, f->groups, r->n_groups * sizeof(*f->groups)));
}

bool tf_files_other(const struct tf_image *img, const struct tf_facts *f)
{
	const struct tf_rights *r, *here = &f->rights;

	if (!img->n_attributes || f->flags & TF_FACT_EMULATED)
		return false;
	r = rights_of(img);
	return r->uid[3] != here->uid[3] || r->gid[3] != here->gid[3] || other_groups(img, f) ||
	       here->caps[TF_CAP_E] & TF_FILE_CAPS & ~r->caps[TF_CAP_E];
}

static void set_caps(const struct tf_facts *f, uint64_t e)
{
	const uint64_t *caps = f->rights.caps;
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	const struct __user_cap_data_struct sets[2] = {
		{(uint32_t)e, (uint32_t)caps[TF_CAP_P], (uint32_t)caps[TF_CAP_I]},
		{(uint32_t)(e >> 32), (uint32_t)(caps[TF_CAP_P] >> 32),
			(uint32_t)(caps[TF_CAP_I] >> 32)},
	};

	syscall(SYS_capset, &head, sets);
}

/* Raw calls are for this thread alone. */
static void set_ids(const struct tf_files_as *as, const struct tf_rights *r)
{
	syscall(SYS_setfsgid, r->gid[3]);
	syscall(SYS_setfsuid, r->uid[3]);
	prctl(PR_SET_DUMPABLE, as->dumpable, 0, 0, 0); /* lost with a change of ids, both */
	prctl(PR_SET_PDEATHSIG, as->signo, 0, 0, 0);
}

void tf_files_as(struct tf_files_as *as, const struct tf_image *img, const struct tf_facts *f)
{
	uint64_t e = f->rights.caps[TF_CAP_E];
	const struct tf_rights *r;

	*as = (struct tf_files_as){.dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)};
	as->other = tf_files_other(img, f);
	if (!as->other)
		return;
	r = rights_of(img);
	prctl(PR_GET_PDEATHSIG, &as->signo, 0, 0, 0);
	if (other_groups(img, f))
		syscall(SYS_setgroups, r->n_groups, img->groups + r->group);
	set_ids(as, r);
	set_caps(f, e & (~TF_FILE_CAPS | r->caps[TF_CAP_E]));
}

void tf_files_back(
	const struct tf_files_as *as, const struct tf_image *img, const struct tf_facts *f)
{
	if (!as->other)
		return;
	set_ids(as, &f->rights);
	set_caps(f, f->rights.caps[TF_CAP_E]);
	if (other_groups(img, f))
		syscall(SYS_setgroups, f->rights.n_groups, f->groups);
}
