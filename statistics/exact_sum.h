/*
 * The exact sum of many f32: one integer of 320 bits in units of the least denormal, 2^-149. Adding is associative, so
 * that the sum does not depend on order, threads or how a set was split, which no floating-point sum offers. Room for
 * 2^42 values of the greatest magnitude.
 */
#ifndef QUANTD_STATISTICS_EXACT_SUM_H
#define QUANTD_STATISTICS_EXACT_SUM_H

#include <stdint.h>

enum { EXACT_SUM_WORDS = 5 };

struct exact_sum {
    uint64_t words[EXACT_SUM_WORDS]; /* two's complement, the least word first */
};

/* @x is finite. */
void exact_sum_add(struct exact_sum *s, float x);
void exact_sum_merge(struct exact_sum *s, const struct exact_sum *other);

/* A double within 2 units in the last place of the sum, the same everywhere. */
double exact_sum_value(const struct exact_sum *s);

#endif
