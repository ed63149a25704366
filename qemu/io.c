/* SPDX-License-Identifier: MIT */
/*
 * See io.h.
 */
#include "qemu/io.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

void tf_vm_close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void tf_vm_free_ptr(void *pointer_to_pointer)
{
	void **p = pointer_to_pointer;

	free(*p);
	*p = NULL;
}

int64_t tf_vm_now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t tf_vm_now_ms(void)
{
	return tf_vm_now_us() / 1000;
}

int tf_vm_left_ms(int64_t deadline_ms)
{
	int64_t left = deadline_ms - tf_vm_now_ms();

	if (left > INT_MAX)
		return INT_MAX;
	return left > 0 ? (int)left : 0;
}

/* Keep newlines and printable characters; drop the console's escapes, '\r' and bells. */
static void clean(char *text)
{
	char *to = text;

	for (const char *from = text; *from; from++) {
		if (*from == '\n' || *from == '\t' || (unsigned char)*from >= ' ')
			*to++ = *from;
	}
	*to = '\0';
}

char *tf_vm_file_tail(const char *path, size_t max)
{
	tf_vm_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text = calloc(1, max + 1);
	struct stat st;
	off_t from;
	ssize_t n;

	if (!text || fd < 0 || fstat(fd, &st) < 0)
		return text;
	from = st.st_size > (off_t)max ? st.st_size - (off_t)max : 0;
	n = pread(fd, text, max, from);
	text[n > 0 ? n : 0] = '\0';
	if (from && strchr(text, '\n'))
		memmove(text, strchr(text, '\n') + 1, strlen(strchr(text, '\n') + 1) + 1);
	clean(text);
	while (*text && text[strlen(text) - 1] == '\n')
		text[strlen(text) - 1] = '\0';
	return text;
}

int tf_vm_write_all(int fd, const void *data, size_t len)
{
	const char *at = data;

	while (len) {
		ssize_t n = write(fd, at, len);

		if (n < 0 && errno == EAGAIN) {
			poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, 1000);
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

int tf_vm_write_file(const char *path, const void *data, size_t len, struct tf_vm_error *err)
{
	tf_vm_autofree char *temp = tf_vm_format("%s.tmp.%d", path, (int)getpid());
	tf_vm_autoclose int fd = -1;
	int rc;

	if (!temp)
		return tf_vm_fail(err, -ENOMEM, "no memory");
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return tf_vm_fail_errno(err, -errno, "create %s", temp);
	rc = tf_vm_write_all(fd, data, len);
	if (rc == 0 && rename(temp, path) < 0)
		rc = -errno;
	if (rc == 0)
		return 0;
	unlink(temp);
	return tf_vm_fail_errno(err, rc, "write %s", path);
}

int tf_vm_copy_file(const char *from, const char *to, struct tf_vm_error *err)
{
	tf_vm_autoclose int in = open(from, O_RDONLY | O_CLOEXEC);
	tf_vm_autoclose int out = -1;
	ssize_t n = 1;

	if (in < 0)
		return tf_vm_fail_errno(err, -errno, "%s", from);
	out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	while (out >= 0 && n > 0)
		n = sendfile(out, in, NULL, 1 << 30);
	return out < 0 || n < 0 ? tf_vm_fail_errno(err, -errno, "%s", to) : 0;
}

int tf_vm_make_dirs(const char *path)
{
	char *copy = strdup(path);
	struct stat st;
	int rc = 0;

	if (!copy)
		return -ENOMEM;
	for (char *p = strchr(copy + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		(void)mkdir(copy, 0700);
		*p = '/';
	}
	if (mkdir(copy, 0700) < 0)
		rc = -errno;
	if (rc == -EEXIST)
		rc = stat(copy, &st) == 0 && S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
	free(copy);
	return rc;
}

char *tf_vm_format(const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	return text;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path) && 0;
}

void tf_vm_remove_dir(const char *path)
{
	nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}
