/* SPDX-License-Identifier: MIT */
/*
 * From an image and the destination's facts to a plan: compat.c says whether the process can live
 * there, build.c writes the list. Both are pure: nothing is mapped, no process is touched.
 *
 * The restorer's range, found by hole.c:
 *
 *   hole.start   plan header | fills | steps | data (signal frames, tables, strings) | buffer |
 *                first thread's stack
 *   thread_stacks  TF_THREAD_STACK bytes for each other thread
 *   code_at      the restorer's code
 *   park_at      the destination's vDSO and its data, when the image's differs: stays for good
 *   hole.end
 */
#ifndef TF_RESTORE_BUILD_H
#define TF_RESTORE_BUILD_H

#include "core/restore/facts.h"
#include "core/restore/hole.h"
#include "core/restore/plan.h"
#include "core/restore/stage.h"

#define TF_RESTORER_STACK (64u << 10)

/* Descriptors of the new process while it is being restored; above every one of the image. */
struct tf_restore_fds {
	int channel; /* extents come from here */
	int control; /* reports go to the receiver, 'g' comes back */
	int reserve; /* O_PATH: duplicated to hold the numbers of descriptors that do not travel */
	int back;  /* becomes the copy's way back (source.channel_fd): the channel itself, or where
		      the receiver stands between (relay.h) */
	bool peer; /* there is a way back */
	int objects; /* of object i while memory is filled: this + i */
	int gate;    /* of a zygote: two numbers, see struct tf_plan_header */
};

/* Where it stands that a copy runs: a file gets another name (absolute paths). */
struct tf_mark {
	const char *from, *to; /* NULL: nowhere */
	uint32_t index;        /* which of many it is, that have no way back; 0: the only one */
	/* Pre-copy: the new process is there, and takes rounds meanwhile. May be NULL. 0, or an
	 * error, of which nothing comes. */
	int (*born)(void *ctx, pid_t child, struct tf_err *e);
	void *ctx;
};

struct tf_restore {
	struct tf_plan plan;
	struct tf_fill *fills;
	uint64_t n_fills;
	struct tf_range hole;      /* everything, park included */
	uint64_t code_at, park_at; /* addresses; park_at == hole.end: nothing is parked */
	uint64_t data_at;          /* address of the data part */
	uint64_t steps_at, fills_at, found_at, buffer_at, stack_top, thread_stacks;
	uint64_t owners_at; /* struct tf_owners; 0: no id changes */
	uint8_t *data;      /* built in the arena, data_size bytes used of data_max */
	uint64_t aside;     /* of a zygote: free addresses at the hole's end */
	uint64_t data_size, data_max;
	uint64_t *object_step; /* of each object: the step that makes or opens it */
	uint64_t first_thread; /* step that starts the second thread; the others follow it */
	bool leads;            /* the child leads a session already: set before building */
	bool same_ids; /* process and threads get the ids that they had: set before building */
	bool detached; /* nobody waits for it: set before building */
	const struct tf_staging *staging; /* memory that came before; NULL. Set before building */
	bool post_copy;                   /* memory that comes later does: set before building */
	uint32_t index;                   /* what telefork_index() says: set before building */
	bool zygote;                      /* it stays, and is forked: set before building */
	struct tf_mark
		mark; /* the copy's own last step but for rt_sigreturn: set before building */
	bool vdso_equal;
	struct tf_restore_fds fds;
	uint32_t crc_table_at; /* offset in data */
};

/* Everything that keeps this image from living at this destination, one reason a line, into e.
 * 0 or _INCOMPATIBLE (or _COLLISION, if pages of an emulator are the only reason: a fresh receiver
 * may have room). max_memory 0: what is free. */
int tf_compat_check(const struct tf_image *img, const struct tf_facts *f, uint64_t max_memory,
	struct tf_err *e);

/* The part of it that is about locks, accounting, huge pages and keys of memory; returns the number
 * of reasons. */
unsigned tf_compat_memory(const struct tf_image *img, const struct tf_facts *f, struct tf_err *e);

/* Numbers for the descriptors, above all of the image's. relayed: the way back is not the channel.
 * _LIMIT if the destination's RLIMIT_NOFILE does not allow them. */
int tf_restore_choose_fds(struct tf_restore *r, const struct tf_image *img,
	const struct tf_facts *f, bool peer, bool relayed, struct tf_err *e);

/* Whether the copy opens this descriptor's file anew, by its path: that of a process which was
 * captured from outside, if it is a regular file, a directory, or a device without state such as
 * /dev/null, and no duplicate of a lower descriptor. */
bool tf_restore_opens(const struct tf_image *img, const struct tf_fd *fd);

/* The flags that it is opened with: none that creates or cuts off. */
uint32_t tf_restore_open_flags(const struct tf_fd *fd);

/* Writing to it, as root, chooses the id of the next segment (proc(5)). */
#define TF_SHM_NEXT_ID "/proc/sys/kernel/shm_next_id"

/* Writes the plan. restorer_size: bytes of the restorer's code. 0, _COLLISION, _NOMEM,
 * _INCOMPATIBLE, _IMAGE. */
int tf_restore_build(struct tf_restore *r, const struct tf_image *img, const struct tf_facts *f,
	uint64_t restorer_size, struct tf_arena *a, struct tf_err *e);

/* Sorts them as a table of owners is (plan.h). */
void tf_owners_sort(struct tf_owner *owners, uint32_t n);

/* The range that the image's map occupies in the copy: a stack is mapped whole, down to the limit
 * it had, or to its neighbour (qemu-user.md rule 6; kernels refuse growth into what they put
 * below). */
struct tf_range tf_restore_map_range(const struct tf_image *img, uint32_t map);

/* Protection bits that the map gets in the copy. */
uint32_t tf_restore_map_prot(const struct tf_image *img, uint32_t map);

#endif
