/*
 * Checked arithmetic: the only way sizes, counts and offsets that come from a file or a peer are
 * computed. Each returns false, and leaves *ret alone, when the true result does not fit.
 */
#ifndef QUANTD_CORE_CHECKED_H
#define QUANTD_CORE_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

static inline bool checked_add(uint64_t a, uint64_t b, uint64_t *ret)
{
    uint64_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *ret = sum;
    return true;
}

static inline bool checked_mul(uint64_t a, uint64_t b, uint64_t *ret)
{
    uint64_t product;
    if (__builtin_mul_overflow(a, b, &product))
        return false;
    *ret = product;
    return true;
}

/* Rounds @value up to a multiple of @alignment, a power of two (a bug otherwise). */
static inline bool checked_align(uint64_t value, uint64_t alignment, uint64_t *ret)
{
    uint64_t raised;
    if (!checked_add(value, alignment - 1, &raised))
        return false;
    *ret = raised & ~(alignment - 1);
    return true;
}

/* True when [offset, offset + bytes) lies inside [0, limit). */
static inline bool range_inside(uint64_t offset, uint64_t bytes, uint64_t limit)
{
    return offset <= limit && bytes <= limit - offset;
}

static inline bool is_power_of_two(uint64_t v)
{
    return v != 0 && (v & (v - 1)) == 0;
}

#endif
