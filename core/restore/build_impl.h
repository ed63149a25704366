/* SPDX-License-Identifier: MIT */
/*
 * What the parts of a plan's making share; see build.h. Each appends its steps to b->r->plan; a
 * plan or its data that gets full sets plan.full, which build.c checks once. Nobody else includes
 * this.
 */
#ifndef TF_RESTORE_BUILD_IMPL_H
#define TF_RESTORE_BUILD_IMPL_H

#include "arch/arch.h"
#include "core/restore/build.h"

#define TF_PAGE_UP(x, page) (((x) + (page)-1) & ~((uint64_t)(page)-1))

struct tf_build {
	struct tf_restore *r;
	const struct tf_image *img;
	const struct tf_facts *f;
	struct tf_err *e;
	int rc; /* what a part of the plan had to say that cannot return it */
	uint64_t page;
	uint64_t tid_step;           /* its result is the first thread's id */
	struct tf_owner *owners;     /* of each thread; NULL: none changes its id */
	uint64_t index_step;         /* of a zygote: its result is a fork's index */
	bool traced;                 /* the receiver sets registers at the barrier */
	uint32_t pending;            /* of the image, planned so far */
	bool new_rights;             /* some thread has other credentials than the receiver */
	uint64_t stay, all_p, all_b; /* capabilities: until the end; of all threads together */
	uint64_t programs;           /* struct sock_fprog of every filter */
	int64_t file_fd;             /* step that opened file, which private mappings show; -1 */
	const char *file;
	uint32_t *mapped_prot; /* of each map of an object: its protection while memory is filled */
	uint32_t staged;       /* runs of image.staged that lie before the mapping at hand */
	int64_t sigbus_fd;     /* step that opened the empty file for pages past a file's end; -1 */
};

/* --- build.c --- */

/* n bytes of the plan's data, from p (NULL: zeroes); returns where they will stand, *ret (may be
 * NULL) where they are now. */
uint64_t tf_build_data(struct tf_build *b, const void *p, uint64_t n, uint64_t align, void *ret);

/* A string in the plan's data. */
uint64_t tf_build_string(struct tf_build *b, const char *s);

/* Stores size (4 or 8) bytes of value. */
void tf_build_store(
	struct tf_build *b, const char *comment, uint64_t address, uint64_t value, uint64_t size);

/* --- build_memory.c --- */

/* Whether n bytes at addr are writable memory of the image's. */
bool tf_build_inside_map(const struct tf_image *img, uint64_t addr, uint64_t n);

/* Lowest address of a vDSO and its data. */
uint64_t tf_build_vdso_first(const struct tf_vdso *v);

/* Takes the receiver down: its rseq, its memory; its vDSO is parked. */
void tf_build_take_down(struct tf_build *b);

/* An anonymous mapping that must come to stand at start. */
void tf_build_mmap(struct tf_build *b, const char *comment, uint64_t start, uint64_t end,
	uint32_t prot, uint32_t flags);

/* What madvise(2) said of the image's map i. */
void tf_build_advice(struct tf_build *b, uint32_t i);

/* All mappings, writable where data is to come, and the data. */
void tf_build_memory(struct tf_build *b);

/* Whether bytes come for the mapping. */
bool tf_build_has_data(const struct tf_image *img, const struct tf_map *m);

/* Entry points of the image's vDSO, where it is another than the destination's. */
void tf_build_vdso_entries(struct tf_build *b);

/* Tags of memory, while all that has some can be written to. */
void tf_build_tags(struct tf_build *b);

/* Protections as they were. */
void tf_build_protections(struct tf_build *b);

/* Memory that was locked, and will be. Once nothing is mapped any more. */
void tf_build_locks(struct tf_build *b);

/* Where file offsets land: r->fills. 0 or _NOMEM. */
int tf_build_fills(struct tf_build *b, struct tf_arena *a);

/* --- build_fill.c --- */

/* Whether the mapping's pages are to be put there as a whole: TF_FILL_PUT. */
bool tf_build_puts(const struct tf_build *b, const struct tf_map *m);

/* The bytes. */
void tf_build_fill(struct tf_build *b);

/* Bytes of data that it takes. */
uint64_t tf_build_fill_size(const struct tf_image *img);

/* --- build_later.c --- */

/* Post-copy: once memory is filled, what is missing is watched, or comes now. */
void tf_build_later(struct tf_build *b);

/* Bytes of data that it takes. */
uint64_t tf_build_later_size(const struct tf_image *img);

/* --- build_zygote.c --- */

/* When all that a fork inherits is there, a zygote stays; what its forks do not inherit, and what
 * each has of its own, follows. Nothing, if it is none. */
void tf_build_zygote(struct tf_build *b);

/* What such a fork has for its barrier. */
void tf_build_gate(struct tf_build *b);

/* Steps of it at most; adds bytes of data. */
uint64_t tf_build_zygote_steps(const struct tf_image *img, uint64_t *data);

/* Bytes of free addresses that it needs at r->aside. */
uint64_t tf_build_zygote_aside(const struct tf_image *img);

/* --- build_staged.c --- */

/* Moves the image's map i to its place, if some of it came before. False: nothing has. A mistake is
 * in b->e. Maps in order. */
bool tf_build_staged_map(struct tf_build *b, uint32_t i);

/* After all maps: what else came before goes. */
void tf_build_staged_done(struct tf_build *b);

/* Everything in [start, end) goes but what came before. */
void tf_build_unmap_but_staged(struct tf_build *b, uint64_t start, uint64_t end);

/* 0, _COLLISION, _IMAGE. */
int tf_build_check_staging(struct tf_build *b);

/* Steps of these at most. */
uint64_t tf_build_staged_steps(const struct tf_build *b);

/* --- build_objects.c --- */

/* Whether the object is a file that is found at the destination, not made. */
bool tf_build_is_file(const struct tf_object *o);

/* Whether the map shows a file that is found at the destination, not made. */
bool tf_build_is_found(const struct tf_image *img, const struct tf_map *m);

/* Makes or opens every object. */
void tf_build_objects(struct tf_build *b);

/* Maps an object as map i does, so that it can be filled; returns the protection it has then. */
uint32_t tf_build_object_map(struct tf_build *b, uint32_t i, bool has_data);

/* Once memory is filled and protected: stages go, mappings for reading only, seals. */
void tf_build_objects_done(struct tf_build *b);

/* Where an object can be opened again while it is held: a string in the plan's data. */
uint64_t tf_build_object_path(struct tf_build *b, uint32_t object);

void tf_build_objects_close(struct tf_build *b);

/* Whether it is memory or a file that no other process can ask for, so that each fork of a zygote
 * can have its own. */
bool tf_build_is_nameless(const struct tf_object *o);

/* In such a fork: makes those anew, with the zygote's content, and puts them in its place. */
void tf_build_objects_anew(struct tf_build *b);

/* Steps of it at most; adds bytes of data. */
uint64_t tf_build_anew_steps(const struct tf_image *img, uint64_t *data);

/* --- build_process.c --- */

/* Where the keys cannot be the source's, signed return addresses get the new ones'. Before
 * protections are set. 0 or _IMAGE. */
int tf_build_signatures(struct tf_build *b);

/* The break and the other mm fields, or what keeps malloc from using the break. */
void tf_build_brk(struct tf_build *b);

/* Every signal's action. */
void tf_build_signals(struct tf_build *b);

/* What the library in the process is told, if there is one. */
void tf_build_mailbox(struct tf_build *b);

/* After the barrier: notes that the copy runs, if it has to. Whoever decides that it does not,
 * takes the file away before: then this step fails, and with it the copy. */
void tf_build_mark(struct tf_build *b);

/* A process that was stopped stops itself, once its copy is noted: nobody else may do that before.
 */
void tf_build_stop(struct tf_build *b);

/* --- build_files.c --- */

/* Before the process gets its rights: all descriptors are held, and those of objects, which may be
 * the receiver's, are opened. */
void tf_build_numbers(struct tf_build *b);

/* umask, working directory, the other descriptors; closes those of the restore but for the control
 * socket. */
void tf_build_files(struct tf_build *b);

/* --- build_threads.c --- */

/* The first thread: what the kernel keeps of it and no signal frame holds, but for registers, and
 * the process's pending signals. */
void tf_build_first_thread(struct tf_build *b);

/* TRACER steps of the image's thread i. */
void tf_build_traced(struct tf_build *b, uint32_t i);

/* The first thread starts the others, where there are any. */
void tf_build_start_threads(struct tf_build *b);

/* Registers that no frame holds, and the frame; *ret_sp is for its rt_sigreturn. Before the
 * barrier: what stands behind it is followed call by call (landing.c). 0 or what the architecture
 * says. */
int tf_build_registers(struct tf_build *b, const struct tf_thread *t, uint64_t *ret_sp);

/* The lists of all other threads, behind the first's. 0, _IMAGE, or what the architecture says. */
int tf_build_other_threads(struct tf_build *b);

/* --- build_owners.c --- */

/* Once all threads are there: who holds a lock is known by the id that he has now. */
void tf_build_owners(struct tf_build *b);

/* Where the frame of the image's thread i stands, which may hold its id. */
void tf_build_owner_frame(struct tf_build *b, uint32_t thread, uint64_t at);

/* The same in a zygote, before it is forked: they are found once. */
void tf_build_owners_noted(struct tf_build *b);

/* Bytes of data that this takes besides. */
uint64_t tf_build_notes_size(const struct tf_image *img);

/* After all frames. */
void tf_build_owners_done(struct tf_build *b);

/* Bytes of data that it takes. */
uint64_t tf_build_owners_size(const struct tf_image *img);

/* --- build_attrs.c --- */

/* A system call of up to four arguments; where QEMU user mode executes it, whatever it says. */
struct tf_step *tf_build_call(struct tf_build *b, const char *comment, long nr, uint64_t a0,
	uint64_t a1, uint64_t a2, uint64_t a3);

/* Whether the image says anything of what these parts set. */
bool tf_build_attrs_known(const struct tf_build *b);

/* Session, subreaper, huge pages, oom_score_adj: while the receiver's own credentials are there. */
void tf_build_process_attrs(struct tf_build *b);

/* Scheduling and what prctl(2) sets, of the image's thread i, in its own list. */
void tf_build_thread_attrs(struct tf_build *b, uint32_t i);

/* When nothing is left to do that a limit could forbid. */
void tf_build_limits(struct tf_build *b);

/* POSIX timers with their ids, once the threads that they tell are there. 0 or _IMAGE. */
int tf_build_timers(struct tf_build *b);

/* After the barrier: all timers run. */
void tf_build_arm(struct tf_build *b);

/* Whether it changes its credentials behind the barrier, which makes it less dumpable, or is not
 * dumpable: nobody who is not privileged could trace it any more. */
bool tf_build_ends_as_less(const struct tf_build *b);

/* After tf_build_last_rights(), if that is so. */
void tf_build_dumpable(struct tf_build *b);

/* Steps of all these at most; adds the bytes of data that they take. */
uint64_t tf_build_attrs_steps(const struct tf_image *img, uint64_t *data);

/* --- build_rights.c --- */

/* Credentials of the thread, but for capabilities that later steps need. */
void tf_build_rights(struct tf_build *b, uint32_t thread);

/* Until it is called again with false, paths lead where the program itself might go: a name in the
 * image may be a link here, which its user has made. */
void tf_build_files_as(struct tf_build *b, bool program);

/* After the barrier, in the thread's own list: filters, and those capabilities go. */
void tf_build_last_rights(struct tf_build *b, uint32_t thread);

/* Before the two above: looks at all threads; steps and bytes as above. */
uint64_t tf_build_rights_steps(struct tf_build *b, uint64_t *data);

#endif
