/* SPDX-License-Identifier: MIT */
/* Memory above 47 bits of address, which only five levels of page tables have. */
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>

#define HIGH  (UINT64_C(1) << 52)
#define WORDS (1u << 18)
#define LINES 60

int main(void)
{
	uint64_t *words = mmap((void *)HIGH, WORDS * 8, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t x = 1;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if ((uintptr_t)words >> 47 == 0) {
		printf("no addresses above 47 bits: %p\n", (void *)words);
		return 1;
	}
	for (unsigned line = 0; line < LINES; line++) {
		for (unsigned i = 0; i < 8 * WORDS; i++) {
			x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
			words[i % WORDS] += x >> 7;
		}
		while (line == LINES - 1 && getchar() != EOF)
			;
		printf("%u %016llx\n", line, (unsigned long long)words[x % WORDS]);
	}
	return 0;
}
