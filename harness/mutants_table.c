/* SPDX-License-Identifier: MIT */
/*
 * Which probe claims to see what, and what cannot be seen at all. Every state of faults.h is in one
 * of these tables: telebed mutants does not run otherwise.
 */
#include <signal.h>
#include <string.h>

#include "harness/mutants.h"

#define SEES(state, says)                          \
	{                                          \
		.states = (state), .words = (says) \
	}
/* Or the process ends by a signal. */
#define ENDS(state, says)                                        \
	{                                                        \
		.states = (state), .words = (says), .ends = true \
	}

/* A register that was lost has the process run elsewhere, or on another stack. */
static const struct tf_claim by_registers[] = {
	ENDS("register.general", "register %s:"),
	ENDS("register.pc", "register %s:"),
	ENDS("register.thread", "register %s:"),
	SEES("register.*", "register %s:"),
	SEES("thread.sigmask", "signal mask"),
	SEES("thread.altstack.*", "alternate stack"),
	SEES("thread.robust_head", "robust list"),
	SEES("thread.comm", "name: expected"),
	SEES("sigaction.handler", "signal action: handler"),
	SEES("sigaction.flags", "signal action: flags"),
	SEES("sigaction.mask", "signal action: mask"),
	SEES("source.umask", "umask: expected"),
	SEES("source.machine", ""),
	SEES("source.page_size", ""),
	{.states = "source.max_map_end", .words = "", .but = "off"}, /* more does no harm */
	SEES("vdso.*", ""),
	{.states = "cpu.*", .words = "register ", .but = "off"},
	ENDS("mm.brk", "break: expected"),
	SEES("map.prot.*", "protection: "),
	SEES("map.flags.shared", "sharing: |protection: expected"),
	ENDS("map.address", "memory|code"),
	ENDS("map", "memory|code"),
	SEES("memory.first", "word "),
	SEES("memory.middle", "word "),
	SEES("memory.last", "word "),
	{0},
};

/* The same by a look from outside. */
static const struct tf_claim by_held[] = {
	ENDS("register.general", "register %s:"),
	ENDS("register.pc", "register %s:"),
	ENDS("register.thread", "register %s:"),
	SEES("register.flags", "register %s:"),
	SEES("register.fpcontrol", "register %s:"),
	SEES("register.x87", "register %s:"),
	SEES("register.vector", "register %s:"),
	SEES("register.predicate", "register %s:"),
	SEES("register.pkru", "register %s:"),
	{0},
};

static const struct tf_claim by_settled[] = {
	SEES("register.pac", "key "),
	ENDS("thread.sigmask", "signal mask of thread"), /* by a signal that waits */
	SEES("thread.altstack.*", "altstack of thread"),
	SEES("thread.robust_*", "robust list of thread"),
	SEES("thread.tid_addr", "tid address of thread|id of thread"),
	SEES("thread.tid", "id of thread"),
	SEES("thread.rseq.*", "restartable sequences of thread"),
	SEES("thread.comm", "name of thread"),
	SEES("thread.registers", "of thread"),
	SEES("thread", "of thread|threads"),
	SEES("pending.*", "pending signal"),
	SEES("pending", "pending signal"),
	SEES("sigaction.*", "of signal"),
	SEES("source.umask", "umask"),
	SEES("source.cwd", "current directory"),
	SEES("mm.brk", "end of the heap"),
	ENDS("memory.tid", "id of thread"),
	SEES("memory.first", "word of memory"),
	SEES("memory.middle", "word of memory"),
	SEES("memory.last", "word of memory"),
	{0},
};

static const struct tf_claim by_attrs[] = {
	SEES("process.limits", "limit|cannot "),
	SEES("process.oom_score_adj", "oom_score_adj"),
	SEES("process.dumpable", "dumpable"),
	SEES("process.itimers", "interval timer"),
	SEES("process.flags.subreaper", "child subreaper"),
	SEES("process.flags.no-thp", "THP_enabled"),
	SEES("process.flags.leader", "session leader"),
	SEES("process.flags.*", "wrong: thread"),
	SEES("rights.uid", "Uid:"),
	SEES("rights.gid", "Gid:"),
	SEES("rights.securebits", "securebits"),
	SEES("rights.caps", "Cap"),
	SEES("rights*", "Groups:|Uid:"),
	{.states = "group*", .words = "Groups:|Uid:", .but = "swap"}, /* the kernel sorts them */
	ENDS("code*", "filter|wrong: thread"),
	SEES("filter", "filter"),
	SEES("filter.chain", "filter"),
	SEES("filter.code", "filter"),
	SEES("filter.n_code", "filter"),
	SEES("attributes.policy", "policy|nice"),
	SEES("attributes.priority", "priority"),
	SEES("attributes.nice", "nice"),
	SEES("attributes.sched_flags", "scheduling flags"),
	SEES("attributes.ioprio", "I/O priority"),
	SEES("attributes.personality", "personality"),
	SEES("attributes.pdeathsig", "signal for the parent's end"),
	SEES("attributes.slack", "timer slack"),
	SEES("attributes.rights", "Uid:"),
	SEES("attributes.chain", "Seccomp|filter"),
	SEES("attributes.cpus", "processors"),
	SEES("attributes.flags.slack", "timer slack"),
	SEES("attributes.flags.no-new-privs", "NoNewPrivs"),
	SEES("attributes", "wrong: thread"),
	ENDS("timer*", "timer"),
	SEES("source.exe", "/proc/self/exe"),
	SEES("source.cwd", "/proc/self/cwd"),
	SEES("source.umask", "Umask"),
	{0},
};

static const struct tf_claim by_clocks[] = {
	{.states = "source.monotonic_ns",
		.words = "a sleep|a wait",
		.but = "stale"}, /* a moment ago */
	{.states = "source.boottime_ns", .words = "a sleep", .but = "stale"},
	{0},
};

static const struct tf_claim by_outmem[] = {
	SEES("object.seals.*", "seal"),
	SEES("object.mode", "permissions"),
	SEES("object.uid", "owner"),
	SEES("object.gid", "owner"),
	SEES("object.size", "size|content|SIGBUS|has no id"),
	SEES("object.*", "wrong: "),
	SEES("object", "wrong: "),
	ENDS("map.prot.*", "was |protection"),
	SEES("map.flags.shared", "was |zeros|a child sees|file"),
	SEES("map.vmflags.*", "was |a child sees|made writable|grow|present|locked"),
	SEES("map.crc", "content|no mapping of the file"),
	ENDS("map.key", "protection keys|key "),
	SEES("map.huge", "hugetlb"),
	ENDS("map.offset", "content|one memory|are not one|SIGBUS|no mapping shows"),
	ENDS("map.object",
		"one memory|another memory|has no id|mapping|content|writable|file|was "),
	ENDS("map.address", "wrong: "),
	ENDS("map", "wrong: "),
	SEES("memory.first", "wrong: "),
	SEES("memory.middle", "wrong: "),
	SEES("memory.last", "wrong: "),
	SEES("memory.heap", "heap"),
	ENDS("mm.brk", "the break|does not grow"),
	SEES("mm.start_brk", "heap|/proc/self/stat"),
	SEES("mm.locks.*", "mlockall"),
	SEES("mm.keys", "protection keys"),
	SEES("mm.arg_*", "/proc/self/cmdline|/proc/self/stat"),
	SEES("mm.env_*", "/proc/self/environ|/proc/self/stat"),
	SEES("mm.*", "/proc/self/stat|heap"),
	SEES("auxv", "/proc/self/auxv"),
	{0},
};

static const struct tf_claim by_files[] = {
	SEES("fd.flags", "flags: |close-on-exec: |content|not the same file"),
	SEES("fd.offset", "position: "),
	SEES("fd.path", "another file: |flags: |content"),
	{.states = "fd.same", .words = "duplicates: ", .but = "off"},
	SEES("fd.object", "duplicates: |content|another file: |size|not the same"),
	SEES("fd.fd", "duplicates: |flags: |close-on-exec: "),
	SEES("fd", "duplicates: |flags: |close-on-exec: "),
	SEES("object.size", "size|content"),
	SEES("memory.first", "content|hole"),
	SEES("memory.middle", "content|hole"),
	SEES("memory.last", "content|hole"),
	{0},
};

static const struct tf_claim by_signed[] = {
	{.states = "signature*", .words = "frames|setjmp|handler", .ends = true, .but = "swap"},
	{0},
};

static const struct tf_claim by_locks[] = {
	ENDS("memory.owner", "lock|waits for ever"),
	{0},
};

const struct tf_subject tf_subjects[] = {
	{.name = "registers",
		.probe = "registers-pie",
		.way = TF_BY_CALL,
		.args = {"--seed", "{seed}"},
		.least = 64 << 10,
		.claims = by_registers},
	{.name = "held",
		.probe = "registers-static",
		.way = TF_BY_DUMP,
		.args = {"/nowhere", "--wait"},
		.ready = "holding ",
		.wake = SIGTERM,
		.least = UINT64_MAX,
		.claims = by_held},
	{.name = "settled",
		.probe = "settled-static",
		.way = TF_BY_DUMP,
		.args = {"{dir}"},
		.least = 64 << 10,
		.claims = by_settled},
	{.name = "attrs",
		.probe = "attrs-static",
		.way = TF_BY_DUMP,
		.args = {"rights", "filters"},
		.wake = SIGUSR1,
		.least = UINT64_MAX,
		.before = "umask 0; ulimit -Sc 1 -Sn 100 -Sf 12345 -Ss 9000 -St 1234; cd /\n"
			  "echo 123 >/proc/self/oom_score_adj\n"
			  "renice -n 1 -p $$ >/dev/null; taskset -p 1 $$ >/dev/null",
		.claims = by_attrs},
	{.name = "clocks",
		.probe = "attrs-static",
		.way = TF_BY_DUMP,
		.args = {"clocks"},
		.wake = SIGUSR1,
		.least = UINT64_MAX,
		.elsewhere = true,
		.claims = by_clocks},
	{.name = "outmem",
		.probe = "outmem-static",
		.way = TF_BY_DUMP,
		.args = {"{dir}", "lock"},
		.wake = SIGUSR1,
		.least = 4096,
		.alone = true,
		.before =
			"rm -rf \"$dir/home\" /dev/shm/outmem-$pid; cp -a \"$dir/kept\" \"$dir/home\"\n"
			"ipcrm -M $((0x7e000000 + pid)) 2>/dev/null\n"
			"cd \"$dir/home\"; rm -f gone; run='unshare --ipc'\n"
			"for f in changed tail; do\n"
			"printf X | dd of=$f bs=1 seek=100 conv=notrunc status=none; done",
		.claims = by_outmem},
	{.name = "files",
		.probe = "files-static",
		.way = TF_BY_DUMP,
		.wake = SIGUSR1,
		.least = UINT64_MAX,
		.claims = by_files},
	{.name = "signed",
		.probe = "signed-pie",
		.way = TF_BY_CALL,
		.arch = "aarch64",
		.least = UINT64_MAX,
		.claims = by_signed},
	{.name = "locks",
		.probe = "locks-static",
		.way = TF_BY_DUMP,
		.args = {"49", "10"},
		.wake = SIGUSR1,
		.least = UINT64_MAX,
		.claims = by_locks},
};

const size_t tf_n_subjects = sizeof(tf_subjects) / sizeof(*tf_subjects);

const struct tf_excuse tf_excuses[] = {
	{"register.system", "shown, never set: selectors of segments, and which call it was in"},
	{"source.origin", "how it was captured"},
	{"source.flags.*", "how it was captured"},
	{"source.mailbox", "of a process that forks itself: there it finds out that it is a copy"},
	{"source.channel_fd", "of a process that forks itself: its way back, over a socket"},
	{"source.generation", "of a process that forks itself"},
	{"source.pid", "told; a copy has another, or all that it had"},
	{"source.ppid", "told"},
	{"source.realtime_ns", "told"},
	{"source.release", "told"},
	{"source.version", "told"},
	{"source.stack_limit", "room that is kept free below the stack"},
	{"cpu.n_words", "which words of features count"},
	{"cpu.features", "what the program uses, not what it is: a receiver without refuses it"},
	{"cpu.vl_mask", "lengths that the source could have had"},
	{"vdso.digest", "which of two equal ways a vDSO is put in place by"},
	{"symbol*",
		"of another kernel's vDSO: a function that is not found asks the kernel, slower; make pairs"},
	{"map.start", "see map.address"},
	{"map.end", "see map.address"},
	{"map.data_end", "see map.address"},
	{"map.kind", "told"},
	{"map.path",
		"of a private mapping: what is there is compared with what it was, and healed"},
	{"map.flags.deleted", "whether a file of that name is looked for: its content decides"},
	{"map.flags.zero", "told"},
	{"map.vmflags.hugetlb", "see map.huge"},
	{"fd.size", "whether a file is long enough over there is asked before"},
	{"map.dev", "whose mapping it was at the source: nothing over there is named so"},
	{"map.ino", "whose mapping it was at the source: nothing over there is named so"},
	{"fd.kind", "told, but for what is held without a file"},
	{"later*",
		"memory that comes when the process runs already, of which no file has any: later-copy"},
	{"known*", "mappings of files whose pages need not come then: later-known"},
	{"staged*", "memory that came in rounds before, of which no file has any: test_rounds"},
	{"held*", "locks in memory that came in rounds before: test_owners, test_rounds"},
	{"wait*",
		"without it a call starts anew, and how long it took is not exact: test_places(time_left)"},
	{"tags*", "of processors that tag memory, in their guests only: unit-aarch64-test_tags"},
	{"edit*", "a yoyo's way back, which is no image to make a process of: yoyo_more"},
	{"process.boot", "whether clocks are to be shifted at all: attrs-clocks"},
	{"filter.flags", "whether the kernel's log is told of what is forbidden"},
	{"attributes.flags.asked", "which values were asked for: the others are zero"},
	{"process.n_cpus", "tells whether a thread was held to some processors only"},
	{"attributes.runtime", "SCHED_DEADLINE is admitted by few machines"},
	{"attributes.deadline", "SCHED_DEADLINE is admitted by few machines"},
	{"attributes.period", "SCHED_DEADLINE is admitted by few machines"},
};

const size_t tf_n_excuses = sizeof(tf_excuses) / sizeof(*tf_excuses);

static bool matches(const char *pattern, const char *state)
{
	size_t n = strlen(pattern);

	if (n && pattern[n - 1] == '*')
		return !strncmp(pattern, state, n - 1);
	return !strcmp(pattern, state);
}

const struct tf_claim *tf_subject_claim(
	const struct tf_subject *s, const char *state, const char *how)
{
	for (const struct tf_claim *c = s->claims; c->states; c++)
		if (matches(c->states, state) && (!how || !c->but || strcmp(c->but, how) != 0))
			return c;
	return NULL;
}

const char *tf_excuse_of(const char *state)
{
	for (size_t i = 0; i < tf_n_excuses; i++)
		if (matches(tf_excuses[i].states, state))
			return tf_excuses[i].why;
	return NULL;
}
