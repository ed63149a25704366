/* SPDX-License-Identifier: MIT */
/* See journal.h. A file is a line for each of its record's words, "name value". */
#include "core/cmd/journal.h"
#include "core/base/cleanup.h"
#include "core/cmd/cmd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NAME_MAX_  (TF_MOVE_ID_TEXT + 16) /* "ID.committing" */
#define RECORD_MAX 8192

const char *const tf_phase_name[TF_PHASES_END] = {
#define X(name, text) [TF_PHASE_##name] = (text),
	TF_PHASES(X)
#undef X
};

/* --- the folder --- */

static int name_folder(const char *which, char path[static TF_ADDRESS_TEXT], struct tf_err *e)
{
	const char *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	int n;

	if (xdg && *xdg == '/')
		n = snprintf(path, TF_ADDRESS_TEXT, "%s/telefork/%s", xdg, which);
	else if (!geteuid())
		n = snprintf(path, TF_ADDRESS_TEXT, "/var/lib/telefork/%s", which);
	else if (home && *home == '/')
		n = snprintf(path, TF_ADDRESS_TEXT, "%s/.local/state/telefork/%s", home, which);
	else
		return tf_fail(e, TELEFORK_E_SYSTEM,
			"no place for the journal of moves: set XDG_STATE_HOME or HOME");
	return n < TF_ADDRESS_TEXT - NAME_MAX_
		       ? 0
		       : tf_fail(e, TELEFORK_E_SYSTEM, "XDG_STATE_HOME is too long");
}

/* Every folder on the way that is not there yet. */
static void make_folders(char *path)
{
	for (char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		mkdir(path, 0700);
		*p = '/';
	}
	mkdir(path, 0700);
}

int tf_journal_open(struct tf_journal *j, const char *which, struct tf_err *e)
{
	int rc = name_folder(which, j->path, e);
	struct stat st;

	j->folder = -1;
	if (rc)
		return rc;
	make_folders(j->path);
	j->folder = open(j->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (j->folder < 0)
		return tf_fail_errno(e, TELEFORK_E_SYSTEM, errno,
			"the journal of moves, %s (XDG_STATE_HOME says where it is)", j->path);
	if (!fstat(j->folder, &st) && st.st_uid == geteuid() && !(st.st_mode & 077))
		return 0;
	tf_journal_close(j);
	return tf_fail(e, TELEFORK_E_SYSTEM,
		"the journal of moves, %s, is open to others: chmod 700, and it has to be yours",
		j->path);
}

void tf_journal_close(struct tf_journal *j)
{
	tf_closep(&j->folder);
	j->folder = -1;
}

static void name_file(const char *id, enum tf_phase phase, char name[static NAME_MAX_])
{
	snprintf(name, NAME_MAX_, "%s.%s", id, tf_phase_name[phase]);
}

void tf_journal_path(const struct tf_journal *j, const char *id, enum tf_phase phase,
	char path[static TF_ADDRESS_TEXT])
{
	snprintf(path, TF_ADDRESS_TEXT, "%.*s/%s.%s", TF_ADDRESS_TEXT - NAME_MAX_, j->path, id,
		tf_phase_name[phase]);
}

static int failed(const struct tf_journal *j, struct tf_err *e)
{
	return tf_fail_errno(e, TELEFORK_E_SYSTEM, errno, "the journal of moves, %s", j->path);
}

/* --- writing --- */

/* What comes from elsewhere has no line ends here. */
static void print_word(FILE *f, const char *name, const char *word)
{
	fprintf(f, "%s ", name);
	for (; *word; word++)
		putc((unsigned char)*word < ' ' ? '?' : *word, f);
	putc('\n', f);
}

static int print_record(int fd, const struct tf_record *r)
{
	TF_FREE char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return -1;
	fprintf(f, "pid %d\nstart %" PRIu64 "\nboot %s\nstopped %d\ntime %" PRId64 "\n",
		(int)r->process.pid, r->process.start, r->process.boot, r->stopped, r->time);
	if (r->later)
		fputs("later 1\n", f);
	print_word(f, "exe", r->exe);
	if (*r->address)
		print_word(f, "address", r->address);
	if (*r->token_file)
		print_word(f, "token", r->token_file);
	if (fclose(f) || write(fd, text, size) != (ssize_t)size)
		return -1;
	return fsync(fd);
}

/* The file has no name until it is whole; where the file system cannot do that, it is seen while it
 * is being written, and then it is damaged. */
static int create(struct tf_journal *j, const struct tf_record *r)
{
	char name[NAME_MAX_], self[40];
	int fd = openat(j->folder, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	bool nameless = fd >= 0;

	name_file(r->id, r->phase, name);
	if (!nameless)
		fd = openat(j->folder, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	if (fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB) && !print_record(fd, r) &&
		(!nameless || !linkat(AT_FDCWD, self, j->folder, name, AT_SYMLINK_FOLLOW)) &&
		!fsync(j->folder))
		return fd;
	tf_closep(&fd);
	return -1;
}

int tf_journal_write(struct tf_journal *j, const struct tf_record *r, struct tf_err *e)
{
	struct tf_record before;
	int rc = tf_journal_read(j, r->id, &before, e), fd;

	if (rc)
		return rc < 0 ? rc : tf_fail(e, TELEFORK_E_INVAL, "move %s was made before", r->id);
	fd = create(j, r);
	return fd < 0 ? failed(j, e) : fd;
}

int tf_journal_add(int fd, const struct tf_record *r)
{
	TF_FREE char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return -1;
	if (r->process.pid)
		fprintf(f, "pid %d\nstart %" PRIu64 "\nboot %s\n", (int)r->process.pid,
			r->process.start, r->process.boot);
	if (r->stopped)
		fputs("stopped 1\n", f);
	if (*r->exe)
		print_word(f, "exe", r->exe);
	if (*r->no_rounds)
		print_word(f, "no-rounds", r->no_rounds);
	for (uint32_t i = 0; i < r->n_rounds; i++)
		fprintf(f, "%s %" PRIu64, i ? "" : "rounds", r->rounds[i]);
	if (r->n_rounds)
		putc('\n', f);
	if (fclose(f) || write(fd, text, size) != (ssize_t)size)
		return -1;
	return r->process.pid ? fsync(fd) : 0;
}

int tf_journal_turn(struct tf_journal *j, const char *id, enum tf_phase from, enum tf_phase to,
	struct tf_err *e)
{
	char old[NAME_MAX_], new[NAME_MAX_];

	name_file(id, from, old);
	name_file(id, to, new);
	if (renameat(j->folder, old, j->folder, new))
		return errno == ENOENT ? 0 : failed(j, e);
	return fsync(j->folder) ? failed(j, e) : 1;
}

/* --- reading --- */

static void take_word(const char *value, char *to, size_t size)
{
	snprintf(to, size, "%s", value);
}

static void take_rounds(struct tf_record *r, const char *value)
{
	char *end;

	for (r->n_rounds = 0; r->n_rounds < TF_ROUNDS_MAX; value = end) {
		uint64_t bytes = strtoull(value, &end, 10);

		if (end == value)
			return;
		r->rounds[r->n_rounds++] = bytes;
	}
}

static void take_line(struct tf_record *r, const char *name, const char *value)
{
	if (!strcmp(name, "pid"))
		r->process.pid = (pid_t)strtol(value, NULL, 10);
	else if (!strcmp(name, "start"))
		r->process.start = strtoull(value, NULL, 10);
	else if (!strcmp(name, "boot"))
		take_word(value, r->process.boot, sizeof(r->process.boot));
	else if (!strcmp(name, "stopped"))
		r->stopped = *value == '1';
	else if (!strcmp(name, "later"))
		r->later = *value == '1';
	else if (!strcmp(name, "rounds"))
		take_rounds(r, value);
	else if (!strcmp(name, "no-rounds"))
		take_word(value, r->no_rounds, sizeof(r->no_rounds));
	else if (!strcmp(name, "time"))
		r->time = strtoll(value, NULL, 10);
	else if (!strcmp(name, "exe"))
		take_word(value, r->exe, sizeof(r->exe));
	else if (!strcmp(name, "address"))
		take_word(value, r->address, sizeof(r->address));
	else if (!strcmp(name, "token"))
		take_word(value, r->token_file, sizeof(r->token_file));
}

static int parse_record(
	const struct tf_journal *j, char *text, struct tf_record *r, struct tf_err *e)
{
	char *at = text, *line, *value;

	while ((line = strsep(&at, "\n")))
		if ((value = strchr(line, ' '))) {
			*value = '\0';
			take_line(r, line, value + 1);
		}
	/* 0 and -1 would be more than one process to kill(2). */
	if (r->process.pid > 1 && strlen(r->process.boot) == TF_BOOT_ID)
		return 1;
	return tf_fail(e, TELEFORK_E_SYSTEM, "the journal of moves, %s: move %s is damaged",
		j->path, r->id);
}

static int read_record(struct tf_journal *j, const char *id, enum tf_phase phase,
	struct tf_record *ret, struct tf_err *e)
{
	char name[NAME_MAX_], text[RECORD_MAX];
	TF_CLOSE int fd = -1;
	ssize_t n;

	*ret = (struct tf_record){.phase = phase};
	memcpy(ret->id, id, TF_MOVE_ID_TEXT);
	name_file(id, phase, name);
	fd = openat(j->folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return errno == ENOENT ? 0 : failed(j, e);
	text[n] = '\0';
	ret->held = flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
	return parse_record(j, text, ret, e);
}

/* A move goes through its phases in the order of the table: it cannot be missed. */
int tf_journal_read(struct tf_journal *j, const char *id, struct tf_record *ret, struct tf_err *e)
{
	int rc = 0;

	for (int phase = 0; phase < TF_PHASES_END && !rc; phase++)
		rc = read_record(j, id, (enum tf_phase)phase, ret, e);
	return rc;
}

/* The id of a file's name; false if it is none of ours. */
static bool parse_name(const char *name, char id[static TF_MOVE_ID_TEXT + 1])
{
	uint8_t bytes[TF_MOVE_ID];

	if (strnlen(name, TF_MOVE_ID_TEXT + 1) <= TF_MOVE_ID_TEXT || name[TF_MOVE_ID_TEXT] != '.')
		return false;
	memcpy(id, name, TF_MOVE_ID_TEXT);
	id[TF_MOVE_ID_TEXT] = '\0';
	return tf_move_id_parse(id, bytes);
}

/* Over for so long that nobody asks any more. */
static bool is_over(const struct tf_record *r)
{
	return time(NULL) - r->time > TF_JOURNAL_KEEP_S && !r->held &&
	       (r->phase == TF_PHASE_MOVED || r->phase == TF_PHASE_HERE ||
		       r->phase == TF_PHASE_GONE || r->phase == TF_PHASE_LOST ||
		       (r->phase == TF_PHASE_RUNNING && !tf_identity_state(&r->process)));
}

static int by_time(const void *a, const void *b)
{
	const struct tf_record *x = a, *y = b;

	return x->time > y->time ? -1 : x->time < y->time;
}

static int read_all(struct tf_journal *j, DIR *dir, struct tf_record **all, struct tf_err *e)
{
	struct dirent *entry;
	int n = 0;

	while ((entry = readdir(dir))) {
		struct tf_record *more;
		char id[TF_MOVE_ID_TEXT + 1];
		int rc;

		if (!parse_name(entry->d_name, id))
			continue;
		more = realloc(*all, ((size_t)n + 1) * sizeof(**all));
		if (!more)
			return tf_fail(e, TELEFORK_E_NOMEM, "out of memory for moves");
		*all = more;
		rc = tf_journal_read(j, id, &more[n], e);
		if (rc < 0) { /* the others have to be settled all the same */
			tf_complain("journal", e->text);
			*e = (struct tf_err){0};
			continue;
		}
		if (rc && is_over(&more[n])) {
			unlinkat(j->folder, entry->d_name, 0);
			continue;
		}
		/* It may be met twice, if its name changed meanwhile. */
		for (int i = 0; i < n && rc; i++)
			rc = strcmp(more[i].id, id) != 0;
		n += rc;
	}
	return n;
}

int tf_journal_list(struct tf_journal *j, struct tf_record **ret, struct tf_err *e)
{
	int fd = openat(j->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), n;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	*ret = NULL;
	if (!dir) {
		tf_closep(&fd);
		return failed(j, e);
	}
	n = read_all(j, dir, ret, e);
	closedir(dir);
	if (n < 0) {
		free(*ret);
		*ret = NULL;
		return n;
	}
	if (n > 1)
		qsort(*ret, (size_t)n, sizeof(**ret), by_time);
	return n;
}
