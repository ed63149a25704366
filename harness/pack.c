/* SPDX-License-Identifier: MIT */
/* See pack.h. Failed writes are noticed by ferror() at the end. */
#include "harness/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "qemu/io.h"

#define TRAILER "TRAILER!!!"

static void pad(FILE *f, size_t n)
{
	for (; n % 4; n++)
		fputc(0, f);
}

static void add(struct tf_pack *p, const char *name, unsigned mode, const void *data, size_t len)
{
	size_t name_size = strlen(name) + 1;
	unsigned ino = strcmp(name, TRAILER) ? ++p->n : 0;

	/* ino mode uid gid nlink mtime size, numbers of devices, length of the name, no checksum */
	fprintf(p->f, "070701%08x%08x%08x%08x%08x%08x%08zx%08x%08x%08x%08x%08zx%08x", ino, mode, 0,
		0, 1, 0, len, 0, 0, 0, 0, name_size, 0);
	fwrite(name, 1, name_size, p->f);
	pad(p->f, 110 + name_size);
	fwrite(data, 1, len, p->f);
	pad(p->f, len);
}

void tf_pack_folder(struct tf_pack *p, const char *name)
{
	add(p, name, S_IFDIR | 0755, "", 0);
}

void tf_pack_data(struct tf_pack *p, const char *name, mode_t mode, const void *data, size_t len)
{
	add(p, name, S_IFREG | mode, data, len);
}

/* A whole file; "" for one that is empty. Release with done(). */
struct content {
	void *data;
	size_t len;
};

static int get(const char *path, struct content *c, struct tf_vm_error *err)
{
	tf_vm_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	*c = (struct content){0};
	if (fd < 0 || fstat(fd, &st) < 0)
		return tf_vm_fail_errno(err, -errno, "%s", path);
	c->len = (size_t)st.st_size;
	c->data = c->len ? mmap(NULL, c->len, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
	return c->data == MAP_FAILED ? tf_vm_fail_errno(err, -errno, "%s", path) : 0;
}

static void done(struct content *c)
{
	if (c->len)
		munmap(c->data, c->len);
}

int tf_pack_file(
	struct tf_pack *p, const char *name, mode_t mode, const char *from, struct tf_vm_error *err)
{
	struct content c;
	int rc = get(from, &c, err);

	if (rc == 0) {
		add(p, name, S_IFREG | mode, c.len ? c.data : "", c.len);
		done(&c);
	}
	return rc;
}

int tf_pack_open(struct tf_pack *p, const char *path, const char *before, struct tf_vm_error *err)
{
	struct content c;
	int rc = get(before, &c, err);

	*p = (struct tf_pack){0};
	if (rc < 0)
		return rc;
	p->path = strdup(path);
	p->f = p->path ? fopen(path, "we") : NULL;
	if (p->f) {
		fwrite(c.len ? c.data : "", 1, c.len, p->f);
		pad(p->f, c.len);
	} else {
		rc = tf_vm_fail_errno(err, -errno, "%s", path);
		free(p->path);
	}
	done(&c);
	return rc;
}

int tf_pack_close(struct tf_pack *p, int rc, struct tf_vm_error *err)
{
	if (!p->f)
		return rc;
	add(p, TRAILER, 0, "", 0);
	if (ferror(p->f) | fclose(p->f) && rc == 0)
		rc = tf_vm_fail(err, -EIO, "%s: cannot be written", p->path);
	free(p->path);
	*p = (struct tf_pack){0};
	return rc;
}
