/*
 * What the checks of kernels share: TAP lines, memory between unreadable pages with guard bytes around what is written,
 * golden digests, and the names of what this CPU cannot run.
 */
#ifndef QUANTD_TESTS_KERNELS_FIXTURE_H
#define QUANTD_TESTS_KERNELS_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GUARD_BYTES = 64, PAGE = 65536, ROOM = 4 * PAGE };

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* A line of TAP. */
__attribute__((format(printf, 2, 3))) void report(bool ok, const char *fmt, ...);

/* The plan; returns the exit status. */
int report_end(void);

/* The options of a check: [--short] [WORD]. */
struct check_options {
    bool brief;       /* fewer rows, for an emulator; every kind of data and every operation all the same */
    const char *word; /* only operations whose name holds it; "" for all */
};
struct check_options check_begin(int argc, char **argv);

/* Is an operation asked for, and can this CPU run it? Prints "left out: ..." where it cannot. */
bool check_wanted(const struct check_options *o, const char *op, const char *variant, uint64_t needs);

/* ROOM bytes with a page at either side that nobody may touch. Exits where memory is out. */
uint8_t *fenced(void);

/* Where @bytes lie that end @from_end bytes below the upper fence of @room; or begin that far above the lower one. */
uint8_t *place_last(uint8_t *room, size_t bytes, size_t from_end);
uint8_t *place_first(uint8_t *room, size_t from_start);

/* Fills what is around an output of @bytes, as far as the fences and at most GUARD_BYTES; is it still as it was? */
void guard(uint8_t *room, uint8_t *out, size_t bytes);
bool is_guarded(const uint8_t *room, const uint8_t *out, size_t bytes);

/* @n f32 at any address: every NaN becomes the same one. */
void one_nan(void *floats, size_t n);

/* Reports whether the digest of an operation is the one of golden.inc; prints its line where it is not. */
void check_golden(const char *op, const char *variant, uint64_t digest);

#endif
