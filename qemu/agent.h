/* SPDX-License-Identifier: MIT */
/*
 * The wire protocol between the host and the agent in a guest, over the virtio-serial port
 * "ctl". Both sides include this file; the guest's side allocates nothing on the word of the
 * host beyond these bounds, and the other way round.
 *
 *     u32 length of the payload | u16 type | u16 zero | u32 tag | payload
 *
 * Integers are little-endian; a string or blob is a u32 length and its bytes. A request's tag
 * is chosen by the host (not 0) and comes back in the REPLY; an event's tag is a job id.
 */
#ifndef TF_QEMU_AGENT_H
#define TF_QEMU_AGENT_H

#define TF_AGENT_VERSION     1
#define TF_AGENT_PORT        "ctl"
#define TF_AGENT_HEADER      12 /* bytes */
#define TF_AGENT_MAX_PAYLOAD (64 * 1024)
#define TF_AGENT_CHUNK       (48 * 1024) /* file and stream bytes in one message, at most */
#define TF_AGENT_MAX_ARGS    1024        /* argv and env, each */
#define TF_AGENT_MAX_JOBS    256
#define TF_AGENT_MAX_STDIN   (1024 * 1024) /* kept for one job that does not read */
#define TF_AGENT_MAX_PATH    4096

/*
 * Requests. Every one is answered by one REPLY: i32 status (0 or a negative errno) and
 * what is listed after "->".
 */
enum tf_agent_request {
	TF_AGENT_PING = 1,   /* blob -> u32 version, the same blob */
	TF_AGENT_SPAWN = 2,  /* u32 flags, u32 argc, strings, u32 envc, strings, string cwd
			      * -> u32 job, u32 pid */
	TF_AGENT_STDIN = 3,  /* u32 job, blob; an empty blob closes it */
	TF_AGENT_SIGNAL = 4, /* u32 job, u32 signo: to the job's process group */
	TF_AGENT_PUT = 5,    /* u32 flags, u32 mode, string path, u64 offset, blob */
	TF_AGENT_GET = 6,    /* string path, u64 offset, u32 count -> blob; empty: the end */
	TF_AGENT_SETUP = 7,  /* string host, 4 bytes IPv4, u8 prefix, 6 bytes MAC,
			      * u64 wall clock in ns, blob of random bytes -> string */
	TF_AGENT_POWEROFF = 8,
	TF_AGENT_RESIZE = 9, /* u32 job, u32 rows, u32 columns: of its terminal */
};

/* Messages of the guest. */
enum tf_agent_event {
	TF_AGENT_REPLY = 64,
	TF_AGENT_OUTPUT = 65, /* tag job: u32 stream (1 or 2), blob */
	TF_AGENT_EXIT = 66,   /* tag job: u32 wait(2) status; output so far came before */
	TF_AGENT_CLOSED = 67, /* tag job: stdout and stderr are held by nobody any more */
};

#define TF_AGENT_SPAWN_STDIN 1u /* flags of SPAWN: stdin is a pipe */
#define TF_AGENT_SPAWN_TTY   2u /* all three are a terminal, whose output is stream 1 */
#define TF_AGENT_PUT_FIRST   1u /* flags of PUT: begin a new file */
#define TF_AGENT_PUT_LAST    2u /* give it its mode and its name */

#endif
