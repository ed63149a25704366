/* SPDX-License-Identifier: MIT */
/* Shared memory that nobody else uses: memfd, POSIX, System V, and without a name. Mappings and
 * descriptors of one piece stay one piece. */
#include "tests/probes/outmem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGES 6

static uint8_t *one, *other, *sealed, *posix_named, *posix_gone, *sysv, *sysv_read, *sysv_gone;
static int memfd, sealed_fd, unmapped_fd, posix_fd, gone_fd, segment, gone;
static char posix_name[64];
static key_t key;

static void *map(int fd, size_t pages, int prot, size_t from, const char *name)
{
	return out_must(
		mmap(NULL, pages * OUT_PAGE, prot, MAP_SHARED, fd, (off_t)(from * OUT_PAGE)), name);
}

/* Permissions, size, and that it is ours. */
static void check_file(int fd, const char *name, mode_t mode, size_t pages)
{
	struct stat st;

	out_check(!fstat(fd, &st) && (st.st_mode & 0777) == mode, name, "permissions");
	out_check(st.st_size == (off_t)(pages * OUT_PAGE), name, "size");
	out_check(st.st_uid == geteuid() && st.st_gid == getegid(), name, "its owner");
}

/* Pages 0 to 3 and 2 to 5 are mapped; 2 and 3 are seen twice. */
static void make_memfd(void)
{
	int ro;
	char path[64];

	memfd = out_must_fd(memfd_create("two views", MFD_CLOEXEC), "memfd");
	if (ftruncate(memfd, (off_t)(PAGES * OUT_PAGE)))
		out_wrong("memfd", "no room");
	one = map(memfd, 4, PROT_READ | PROT_WRITE, 0, "memfd");
	out_fill(one, 3 * OUT_PAGE, "memfd");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", memfd);
	ro = out_must_fd(open(path, O_RDONLY | O_CLOEXEC), "memfd");
	other = map(ro, 4, PROT_READ, 2, "memfd");
	close(ro);
	lseek(memfd, 77, SEEK_SET);
	out_note("memfd", one);
	out_note("memfd, read only", other);
}

static void check_memfd(void)
{
	uint64_t word = 0;

	out_check(out_same(one, 3 * OUT_PAGE, "memfd") && !one[3 * OUT_PAGE], "memfd", "content");
	out_check(!memcmp(other, one + 2 * OUT_PAGE, 2 * OUT_PAGE), "memfd", "the other mapping");
	one[2 * OUT_PAGE + 8] ^= 1;
	out_check(other[8] == one[2 * OUT_PAGE + 8], "memfd", "two mappings are not one memory");
	out_check(pread(memfd, &word, 8, (off_t)(2 * OUT_PAGE + 8)) == 8 &&
			  !memcmp(&word, other + 8, 8),
		"memfd", "mapping and descriptor are not one memory");
	out_check(lseek(memfd, 0, SEEK_CUR) == 77, "memfd", "position");
	out_check(strstr(out_name_at(one), "/memfd:two views") != NULL, "memfd", "name");
	out_check(mprotect(other, OUT_PAGE, PROT_READ | PROT_WRITE) < 0 && errno == EACCES, "memfd",
		"what was for reading can be made writable");
	out_check(fcntl(memfd, F_GETFD) == FD_CLOEXEC, "memfd", "close-on-exec");
	out_check(fcntl(memfd, F_GET_SEALS) == F_SEAL_SEAL, "memfd", "may be sealed");
	check_file(memfd, "memfd", 0777, PAGES);
}

#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW)

static void make_sealed(void)
{
	static uint64_t buf[OUT_WORDS];
	char path[64];
	int ro;

	sealed_fd = out_must_fd(memfd_create("sealed", MFD_ALLOW_SEALING), "sealed");
	out_fill(buf, OUT_PAGE, "sealed");
	if (write(sealed_fd, buf, OUT_PAGE) < 0 || fcntl(sealed_fd, F_ADD_SEALS, SEALS))
		out_wrong("sealed", "could not be made");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", sealed_fd);
	ro = out_must_fd(open(path, O_RDONLY | O_CLOEXEC), "sealed");
	sealed = map(ro, 1, PROT_READ, 0, "sealed");
	out_note("sealed", sealed);
	close(ro);
	unmapped_fd = out_must_fd(memfd_create("never mapped", 0), "unmapped");
	out_fill(buf, OUT_PAGE, "unmapped");
	if (pwrite(unmapped_fd, buf, OUT_PAGE, (off_t)(3 * OUT_PAGE)) < 0)
		out_wrong("unmapped", "could not be written");
}

static void check_sealed(void)
{
	static uint64_t buf[OUT_WORDS];

	out_check(out_same(sealed, OUT_PAGE, "sealed"), "sealed", "content");
	out_check(fcntl(sealed_fd, F_GET_SEALS) == SEALS, "sealed", "seals");
	out_check(write(sealed_fd, buf, 8) < 0 && errno == EPERM, "sealed", "can be written");
	out_check(pread(unmapped_fd, buf, OUT_PAGE, (off_t)(3 * OUT_PAGE)) == (ssize_t)OUT_PAGE &&
			  out_same(buf, OUT_PAGE, "unmapped"),
		"unmapped", "content");
	check_file(unmapped_fd, "unmapped", 0777, 4);
	check_file(sealed_fd, "sealed", 0777, 1);
	out_check(fcntl(unmapped_fd, F_GET_SEALS) == F_SEAL_SEAL, "unmapped", "may be sealed");
}

static void make_posix(void)
{
	char gone_name[32];

	snprintf(posix_name, sizeof(posix_name), "/outmem-%d", (int)getpid());
	shm_unlink(posix_name); /* of who had this id before us */
	posix_fd = out_must_fd(shm_open(posix_name, O_RDWR | O_CREAT | O_EXCL, 0640), "posix");
	snprintf(gone_name, sizeof(gone_name), "/outmem-gone-%d", (int)getpid());
	gone_fd = out_must_fd(shm_open(gone_name, O_RDWR | O_CREAT, 0600), "posix, gone");
	shm_unlink(gone_name);
	if (ftruncate(posix_fd, (off_t)(2 * OUT_PAGE)) || ftruncate(gone_fd, (off_t)OUT_PAGE))
		out_wrong("posix", "no room");
	posix_named = map(posix_fd, 2, PROT_READ | PROT_WRITE, 0, "posix");
	posix_gone = map(gone_fd, 1, PROT_READ | PROT_WRITE, 0, "posix, gone");
	out_fill(posix_named, 2 * OUT_PAGE, "posix");
	out_fill(posix_gone, OUT_PAGE, "gone");
	out_note("posix", posix_named);
	out_note("posix, gone", posix_gone);
}

static void check_posix(void)
{
	uint64_t word = 0;
	struct stat st;
	int fd = shm_open(posix_name, O_RDWR, 0);

	out_check(out_same(posix_named, 2 * OUT_PAGE, "posix"), "posix", "content");
	out_check(out_same(posix_gone, OUT_PAGE, "gone"), "posix, gone", "content");
	out_check(fd >= 0, "posix", "the name is gone");
	posix_named[9] ^= 1;
	out_check(fd >= 0 && pread(fd, &word, 8, 8) == 8 && !memcmp(&word, posix_named + 8, 8),
		"posix", "the name leads to another memory");
	check_file(posix_fd, "posix", 0640, 2);
	check_file(gone_fd, "posix, gone", 0600, 1);
	out_check(!fstat(gone_fd, &st) && !st.st_nlink, "posix, gone", "has a name");
	out_check(!strncmp(out_name_at(posix_gone), "/dev/shm/", 9), "posix, gone",
		"is something else");
	posix_gone[9] ^= 1;
	out_check(pread(gone_fd, &word, 8, 8) == 8 && !memcmp(&word, posix_gone + 8, 8),
		"posix, gone", "mapping and descriptor are not one memory");
	shm_unlink(posix_name);
}

static void make_sysv(void)
{
	key = 0x7e000000 + getpid(); /* nobody else's; who had this id before us may have left it */
	shmctl(shmget(key, 0, 0), IPC_RMID, NULL);
	segment = out_must_fd(shmget(key, 3 * OUT_PAGE, IPC_CREAT | IPC_EXCL | 0600), "sysv");
	sysv = out_must(shmat(segment, NULL, 0), "sysv");
	sysv_read = out_must(shmat(segment, NULL, SHM_RDONLY), "sysv, read only");
	gone = out_must_fd(shmget(IPC_PRIVATE, OUT_PAGE, 0600), "sysv, gone");
	sysv_gone = out_must(shmat(gone, NULL, 0), "sysv, gone");
	shmctl(gone, IPC_RMID, NULL);
	out_fill(sysv, 3 * OUT_PAGE, "sysv");
	out_fill(sysv_gone, OUT_PAGE, "sysv, gone");
	out_note("sysv", sysv);
	out_note("sysv, read only", sysv_read);
	out_note("sysv, gone", sysv_gone);
}

/* Permissions and owner as they were made; it goes with its last user, or does not. */
static void check_segment(const void *at, const char *name, key_t should, bool goes)
{
	struct shmid_ds ds = {0};

	out_check(!shmctl((int)out_inode(at), IPC_STAT, &ds), name, "has no id");
	out_check((ds.shm_perm.mode & 0777) == 0600, name, "permissions");
	out_check(ds.shm_perm.uid == geteuid() && ds.shm_perm.gid == getegid(), name, "its owner");
	out_check(ds.shm_perm.__key == should, name, "the key leads elsewhere");
	out_check(!!(ds.shm_perm.mode & SHM_DEST) == goes, name,
		goes ? "does not go with its last user" : "would go with its last user");
}

static void check_sysv(void)
{
	struct shmid_ds ds = {0};
	int id = shmget(key, 0, 0);

	out_check(out_same(sysv, 3 * OUT_PAGE, "sysv"), "sysv", "content");
	out_check(out_same(sysv_gone, OUT_PAGE, "sysv, gone"), "sysv, gone", "content");
	out_check(id >= 0 && !shmctl(id, IPC_STAT, &ds), "sysv", "the key leads nowhere");
	out_check(
		ds.shm_nattch == 2 && ds.shm_segsz == 3 * OUT_PAGE, "sysv", "attachments or size");
	if (!access("/proc/sys/kernel/shm_next_id", W_OK))
		out_check(id == segment, "sysv", "the id");
	check_segment(sysv, "sysv", key, false);
	check_segment(sysv_gone, "sysv, gone", IPC_PRIVATE, true);
	if (!access("/proc/sys/kernel/shm_next_id", W_OK))
		out_check((int)out_inode(sysv_gone) == gone, "sysv, gone", "the id");
	sysv[5] ^= 1;
	out_check(sysv_read[5] == sysv[5], "sysv", "two attachments are not one memory");
	out_check(mprotect(sysv_read, OUT_PAGE, PROT_READ | PROT_WRITE) < 0, "sysv, read only",
		"can be made writable");
	out_check(!shmdt(sysv) && !shmdt(sysv_read), "sysv", "cannot be detached");
	shmctl(id, IPC_RMID, NULL);
	out_check(!shmdt(sysv_gone), "sysv, gone", "cannot be detached");
}

void out_shared_make(const char *dir)
{
	(void)dir;
	make_memfd();
	make_sealed();
	make_posix();
	make_sysv();
}

void out_shared_check(void)
{
	check_memfd();
	check_sealed();
	check_posix();
	check_sysv();
}
