/* SPDX-License-Identifier: MIT */
/*
 * signed: return addresses, and pointers of the program's own, that carry a signature (aarch64
 * pointer authentication; elsewhere the same program without). Moves from several signed frames
 * deep, and over there returns through all of them, jumps out of others, and calls what it signed.
 *
 *   signed ADDRESS [OPTION...]
 *     --signal N  is captured by SIGALRM at a moment that N chooses, not by a call; to a file
 *     --yoyo      goes there and comes back, and returns through the frames at home
 *     --token T
 *     --keys      prints what this process's keys make of one fixed pointer, and exits
 *
 * Exit code 0: the copy found everything; with a file, the process made from it prints "ok".
 */
#include "core/base/host.h"
#include "core/telefork.h"

#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define DEPTH 24

#ifdef __ARM_FEATURE_PAC_DEFAULT
#define B_KEY __attribute__((noipa, target("branch-protection=pac-ret+leaf+b-key")))
#define A_KEY __attribute__((noipa, target("branch-protection=pac-ret+leaf")))

/* pacia1716 and autia1716 of the hint space. A wrong signature gives an address that faults. */
static uintptr_t sign(uintptr_t value, uintptr_t modifier)
{
	register uintptr_t x16 __asm__("x16") = modifier;
	register uintptr_t x17 __asm__("x17") = value;

	__asm__ volatile("hint #8" : "+r"(x17) : "r"(x16));
	return x17;
}

static uintptr_t authenticate(uintptr_t value, uintptr_t modifier)
{
	register uintptr_t x16 __asm__("x16") = modifier;
	register uintptr_t x17 __asm__("x17") = value;

	__asm__ volatile("hint #12" : "+r"(x17) : "r"(x16));
	return x17;
}

/* A page of code that an indirect call may not enter, where the processor and the kernel have BTI:
 * ret, without a landing pad. PROT_BTI is 16. */
static void *guarded_page(void)
{
	uint32_t *page =
		mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return NULL;
	page[0] = 0xd65f03c0;
	__builtin___clear_cache((char *)page, (char *)(page + 1));
	return mprotect(page, 65536, PROT_READ | PROT_EXEC | 16) ? NULL : page;
}

/* Code that no unwind table describes: one function that calls another, one that does not. */
void bare_call(void (*fn)(void));
uint64_t bare_mix(uint64_t x);

__asm__("	.pushsection .text\n"
	"bare_call:\n"
	"	stp	x29, x30, [sp, #-16]!\n"
	"	mov	x29, sp\n"
	"	blr	x0\n"
	"	ldp	x29, x30, [sp], #16\n"
	"	ret\n"
	"bare_mix:\n"
	"	mov	x1, #16\n"
	"1:	eor	x0, x0, x0, lsr #31\n"
	"	add	x0, x0, x1\n"
	"	subs	x1, x1, #1\n"
	"	b.ne	1b\n"
	"	ret\n"
	"	.popsection\n");
#else
#define B_KEY __attribute__((noipa))
#define A_KEY __attribute__((noipa))

static uintptr_t sign(uintptr_t value, uintptr_t modifier)
{
	return value + modifier * 0;
}

static uintptr_t authenticate(uintptr_t value, uintptr_t modifier)
{
	return value + modifier * 0;
}

static void *guarded_page(void)
{
	return NULL;
}

static void bare_call(void (*fn)(void))
{
	fn();
}

static uint64_t bare_mix(uint64_t x)
{
	return x ^ x >> 31;
}
#endif

static struct {
	const char *address, *token;
	uint64_t moment;
	bool yoyo;
} opt;

static jmp_buf outside;
static volatile unsigned returned;
static char verdict[256];
static struct telefork_job *job;
static int channel = -1, moved; /* what telefork() returned; 1 before */

static int answer(void)
{
	return 42;
}

static uintptr_t kept; /* the signed pointer, in memory */

static void complain(const char *what)
{
	size_t n = strlen(verdict);

	snprintf(verdict + n, sizeof(verdict) - n, "%s ", what);
}

static void *guarded;
static bool guarded_before;
static sigjmp_buf trapped;

static void on_trap(int signo)
{
	siglongjmp(trapped, signo);
}

static bool is_guarded(void)
{
	if (!guarded)
		return false;
	signal(SIGILL, on_trap);
	if (sigsetjmp(trapped, 1))
		return true;
	((void (*)(void))guarded)();
	return false;
}

/* --- captured by a call, from many frames deep --- */

static void work(void *arg)
{
	int *numbers = arg;

	for (int i = 0; i < 1024; i++)
		numbers[i] += i;
}

/* There and back: these frames, with what was written among them, return at home. */
static int back_again(void)
{
	struct telefork_result r = {0};
	struct telefork_options o = {.deadline_ms = 200000, .token = opt.token, .result = &r};
	int numbers[1024] = {0}, rc;

	rc = telefork_yoyo(opt.address, work, numbers, &o);
	if (rc < 0)
		fprintf(stderr, "signed: %s: %s\n", telefork_errname(rc), r.message);
	for (int i = 0; i < 1024; i++)
		if (numbers[i] != i && rc >= 0)
			rc = TELEFORK_E_IMAGE;
	return rc;
}

static int move(void)
{
	struct telefork_options o = {.deadline_ms = 200000, .token = opt.token};
	struct telefork_result r = {0};
	int rc;

	if (opt.yoyo) {
		rc = back_again();
	} else if (opt.address[0] == '/') {
		rc = telefork_save(opt.address, &o, &r);
	} else {
		channel = telefork_dial(opt.address, &o, &r);
		rc = channel < 0 ? channel : telefork(channel, &o, &job);
	}
	if (rc < 0)
		fprintf(stderr, "signed: %s: %s\n", telefork_errname(rc), r.message);
	return rc;
}

static A_KEY int down_a(int n);

/* Frames of different sizes: no modifier is another's plus a constant. */
static B_KEY int down_b(int n)
{
	volatile char *room = __builtin_alloca((size_t)(32 + 16 * (n % 5)));
	int below;

	room[0] = (char)n;
	below = down_a(n - 1);
	returned++;
	return below + 1 + room[0] - (char)n;
}

static A_KEY int down_a(int n)
{
	volatile char room[48];
	int below = 0;

	room[0] = (char)n;
	if (n <= 0)
		moved = move();
	else
		below = down_b(n - 1);
	returned++;
	return below + 1 + room[0] - (char)n;
}

/* QEMU 7.2 may enter a handler with a stack that is not aligned. */
#if __has_attribute(force_align_arg_pointer)
#define HANDLER __attribute__((force_align_arg_pointer))
#else
#define HANDLER
#endif

/* Below a handler there is a signal frame, and the C library's own code. */
static HANDLER A_KEY void handler(int signo)
{
	if (down_a(DEPTH) != DEPTH + 1 || returned != DEPTH + 1)
		complain("frames");
	returned += (unsigned)signo;
}

static A_KEY int compare(const void *a, const void *b)
{
	raise(SIGUSR2);
	longjmp(outside, 1);
	return *(const int *)a - *(const int *)b;
}

static A_KEY void sort(void)
{
	int numbers[] = {3, 1, 2};

	qsort(numbers, 3, sizeof(int), compare);
	complain("setjmp");
}

static B_KEY void journey(void)
{
	signal(SIGUSR2, handler);
	if (!setjmp(outside))
		bare_call(sort);
	if (returned != DEPTH + 1 + SIGUSR2)
		complain("handler");
}

/* --- captured by a signal --- */

/* +leaf: the signed address is in the link register alone, for as long as a loop takes. */
static A_KEY uint64_t mix_a(uint64_t x)
{
	for (unsigned i = 0; i < 16; i++)
		x = (x ^ x >> 31) * 0x9e3779b97f4a7c15u;
	return x;
}

static B_KEY uint64_t mix_b(uint64_t x)
{
	for (unsigned i = 0; i < 16; i++)
		x = (x ^ x >> 29) * 0xbf58476d1ce4e5b9u;
	return x;
}

static B_KEY uint64_t tree_b(unsigned n, uint64_t x);

static A_KEY uint64_t tree_a(unsigned n, uint64_t x)
{
	if (!n)
		return mix_a(bare_mix(mix_b(x)));
	return tree_b(n - 1, x) + tree_b(n - 1, ~x);
}

static B_KEY uint64_t tree_b(unsigned n, uint64_t x)
{
	if (!n)
		return mix_b(mix_a(x));
	return tree_a(n - 1, mix_a(x)) ^ tree_a(n - 1, x + 1);
}

#define TREE 11 /* levels */

static int by_signal(void)
{
	uint64_t expected = tree_a(TREE, 1), x = opt.moment * 0x9e3779b97f4a7c15u;
	struct itimerval once = {.it_value.tv_usec = (suseconds_t)(x >> 32) % 20000 + 1};
	struct telefork_result r = {0};
	unsigned rounds = 0;

	if (telefork_on_signal(SIGALRM, opt.address, NULL))
		return 2;
	setitimer(ITIMER_REAL, &once, NULL);
	/* Bounded by the caller's time limit. */
	while (!telefork_signal_result(&r) && !telefork_generation()) {
		if (tree_a(TREE, 1) != expected)
			return 1;
		rounds++;
	}
	if (telefork_generation()) {
		printf("ok\n");
		return 0;
	}
	if (r.error)
		fprintf(stderr, "signed: %s: %s\n", telefork_errname(r.error), r.message);
	return r.error ? 2 : 0;
}

/* --- verdicts --- */

static int copy_main(void)
{
	/* Only its own keys make it good: they travel between real kernels alone. */
	if (!tf_host_emulated() && ((int (*)(void))authenticate(kept, (uintptr_t)&kept))() != 42)
		complain("pointer");
	/* QEMU user mode does not tell which pages are. */
	if (!tf_host_emulated() && is_guarded() != guarded_before)
		complain("bti");
	if (!*verdict)
		snprintf(verdict, sizeof(verdict), "ok%s",
			guarded_before ? " with guarded code" : "");
	if (channel < 0) {
		printf("%s\n", verdict);
		return strncmp(verdict, "ok", 2) ? 1 : 0;
	}
	return write(telefork_peer_fd(), verdict, strlen(verdict)) < 0;
}

static int parent_main(void)
{
	struct telefork_result r;
	char said[256] = "";
	int rc = telefork_wait(job, &r);

	if (rc) {
		fprintf(stderr, "signed: %s: %s\n", telefork_errname(rc), r.message);
		return 2;
	}
	if (read(channel, said, sizeof(said) - 1) < 0)
		perror("signed: read");
	printf("pid %d there: %s\n", (int)r.pid, *said ? said : "ended without a word");
	return strncmp(said, "ok", 2) ? 1 : 0;
}

int main(int argc, char **argv)
{
	for (int i = 2; i < argc; i++) {
		if (!strcmp(argv[i], "--keys"))
			return printf("%lx\n", (unsigned long)sign(0x400000, 1)) < 0;
		else if (!strcmp(argv[i], "--signal") && i + 1 < argc)
			opt.moment = strtoull(argv[++i], NULL, 0);
		else if (!strcmp(argv[i], "--yoyo"))
			opt.yoyo = true;
		else if (!strcmp(argv[i], "--token") && i + 1 < argc)
			opt.token = argv[++i];
		else
			return 64;
	}
	if (argc < 2)
		return 64;
	opt.address = argv[1];
	kept = sign((uintptr_t)answer, (uintptr_t)&kept);
	guarded = guarded_page();
	guarded_before = is_guarded();
	if (opt.moment)
		return by_signal();
	moved = 1;
	journey();
	if (!moved)
		return copy_main();
	if (moved < 0 || *verdict) {
		printf("%s\n", verdict);
		return 2;
	}
	return job ? parent_main() : 0; /* saved */
}
