#!/usr/bin/python3 -u
# SPDX-License-Identifier: MIT
# Counts primes in threads of CPython: workers with a generator each that also sleep, results through a lock and
# a condition, in order; integers of thousands of digits. Its input ends when it may end.
import sys
import threading
import time

PARTS, SIZE, WORKERS = 100, 300, 4
ready = threading.Condition()
results = {}


def primes(start, end):
    for n in range(max(start, 2), end):
        if all(n % d for d in range(2, int(n**0.5) + 1)):
            yield n


def work(number):
    for part in range(number, PARTS, WORKERS):
        time.sleep(0.4)
        product = 1
        count = 0
        for p in primes(part * SIZE, (part + 1) * SIZE):
            product *= p
            count += 1
        with ready:
            results[part] = (count, product % (10**40 + 121))
            ready.notify_all()


threads = [threading.Thread(target=work, args=(i,)) for i in range(WORKERS)]
for t in threads:
    t.start()
for part in range(PARTS):
    with ready:
        while part not in results:
            ready.wait()
    print(part, *results[part])
for t in threads:
    t.join()
sys.stdin.read()
print("ok", sum(count for count, _ in results.values()))
