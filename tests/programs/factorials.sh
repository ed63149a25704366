#!/bin/sh
# SPDX-License-Identifier: MIT
# A program written in Go: the digits of factorials and of Fibonacci numbers, in big integers. Given as an
# argument, and without a collector, whose timer may come at any time: for a file and for a timer Go's runtime opens
# an epoll set and a pipe, which do not travel yet. Its input ends when it may end.
GOGC=off
export GOGC
exec gojq -nr '
def sum_digits: tostring | explode | map(. - 48) | add;
(range(1; 31) as $i
| (reduce range(2; $i * 40) as $n (1; . * $n) | sum_digits) as $f
| (reduce range(0; $i * 150) as $n ([0, 1]; [.[1], .[0] + .[1]]) | .[0] | sum_digits) as $g
| "\($i) \($f) \($g)"), (last(inputs) // "ok")'
