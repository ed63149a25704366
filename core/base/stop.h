/* SPDX-License-Identifier: MIT */
/*
 * A SIGSTOP that waits for a process whose threads all stand in stops of ours: should we die, it
 * comes before any instruction of the program. The death of a tracer lets every thread go, each
 * looks for signals on its way out, and the first one that does stops them all.
 */
#ifndef TF_BASE_STOP_H
#define TF_BASE_STOP_H

#include <sys/types.h>

/* Takes it back as if it had never been sent (a SIGCONT would, too, but that is a signal that the
 * program may see): lets the process's main thread run into it, and drops it there. The thread
 * stands in a stop of ours again afterwards; what else is on its way to it is passed on. If the
 * SIGSTOP is not there any more, the thread is stopped anew. 0, or -ESRCH if the thread has ended.
 */
int tf_stop_take_back(pid_t pid);

#endif
