/* SPDX-License-Identifier: MIT */
/* Built with -fsanitize=address: shadow memory of terabytes, threads, and a heap with red zones. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 3
#define BLOCKS  500

static uint64_t sums[THREADS];

static void *churn(void *arg)
{
	uint64_t *sum = arg, x = 1 + (uint64_t)(sum - sums);
	char *block[BLOCKS] = {0};
	size_t size[BLOCKS] = {0};

	for (unsigned i = 0; i < 3000; i++) {
		unsigned at = (unsigned)(x >> 33) % BLOCKS;

		for (size_t k = 0; k < size[at]; k += 64)
			*sum = *sum * 31 + (unsigned char)block[at][k];
		free(block[at]);
		size[at] = (x >> 20) % 3000;
		block[at] = malloc(size[at]);
		memset(block[at], (int)x, size[at]);
		x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	}
	for (unsigned i = 0; i < BLOCKS; i++)
		free(block[i]);
	return NULL;
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int round = 0; round < 6; round++) {
		pthread_t thread[THREADS];

		for (int i = 0; i < THREADS; i++)
			pthread_create(&thread[i], NULL, churn, &sums[i]);
		for (int i = 0; i < THREADS; i++)
			pthread_join(thread[i], NULL);
		printf("%d %016llx\n", round,
			(unsigned long long)(sums[0] ^ sums[1] * 3 ^ sums[2] * 5));
	}
	while (getchar() != EOF)
		;
	puts("ok");
	return 0;
}
