/*
 * quantd/error.h - how every quantd library reports failure
 *
 * Functions return 0 when done, a negative enum qd_error_code on failure, a positive value where
 * the answer is one. A struct qd_error, when given, then holds one sentence with subject, place
 * and reason, and where there is one, the next step. It owns no memory; it may be copied.
 *
 * Thread rule: a struct qd_error belongs to the thread that passes it.
 */
#ifndef QUANTD_ERROR_H
#define QUANTD_ERROR_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum qd_error_code {
#define QD_ERROR(name, number, sysexit, text) QD_E_##name = -(number),
#include <quantd/errors.def>
#undef QD_ERROR
};

struct qd_error {
    int32_t code;      /* 0 or an enum qd_error_code */
    int32_t sys_errno; /* errno behind it, 0 where there is none */
    char message[760]; /* one sentence, NUL-terminated, no newline */
    char hint[256];    /* the next step to take, or "" */
};

#if defined(__GNUC__)
#pragma GCC visibility push(default) /* exported by libquantd */
#endif

/* Short lower-case name of a code such as "no-space"; "unknown" for a number that is none. Never NULL. */
const char *qd_error_name(int code);

/* The code of a name, or QD_E_INTERNAL where the name is none (a newer peer's). */
int qd_error_by_name(const char *name);

/* The sysexits(3) code that a command-line tool exits with for this code; 0 for 0. */
int qd_error_exit_code(int code);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif
#endif
