/* SPDX-License-Identifier: MIT */
/*
 * The library's own changing data stands in one section. A yoyo brings home what the program
 * changed; this is not the program's, and stays as it is here. Constants and what is set once
 * before any fork need no mark.
 */
#ifndef TF_BASE_OWN_H
#define TF_BASE_OWN_H

#define TF_OWN __attribute__((section("tf_own")))

extern char __start_tf_own[], __stop_tf_own[];

#endif
