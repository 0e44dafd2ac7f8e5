#include "statistics/exact_sum.h"

#include <stdbool.h>
#include <string.h>

enum { MANTISSA_BITS = 23 };

static void negate(struct exact_sum *s)
{
    uint64_t carry = 1;
    for (int i = 0; i < EXACT_SUM_WORDS; i++) {
        s->words[i] = ~s->words[i] + carry;
        carry = carry && s->words[i] == 0;
    }
}

void exact_sum_merge(struct exact_sum *s, const struct exact_sum *other)
{
    uint64_t carry = 0;
    for (int i = 0; i < EXACT_SUM_WORDS; i++) {
        unsigned __int128 sum = (unsigned __int128)s->words[i] + other->words[i] + carry;
        s->words[i] = (uint64_t)sum;
        carry = (uint64_t)(sum >> 64);
    }
}

void exact_sum_add(struct exact_sum *s, float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint64_t mantissa = bits & ((1u << MANTISSA_BITS) - 1);
    uint32_t exponent = bits >> MANTISSA_BITS & 0xff, shift = exponent ? exponent - 1 : 0;
    if (exponent)
        mantissa |= 1u << MANTISSA_BITS;

    struct exact_sum one = {{0}};
    const uint32_t word = shift / 64, bit = shift % 64; /* 253 at most: the mantissa ends in word 4 */
    one.words[word] = mantissa << bit;
    if (bit)
        one.words[word + 1] = mantissa >> (64 - bit);
    if (bits >> 31)
        negate(&one);
    exact_sum_merge(s, &one);
}

double exact_sum_value(const struct exact_sum *s)
{
    struct exact_sum magnitude = *s;
    const bool negative = s->words[EXACT_SUM_WORDS - 1] >> 63;
    if (negative)
        negate(&magnitude);
    double sum = 0;
    for (int i = EXACT_SUM_WORDS - 1; i >= 0; i--)
        sum = sum * 0x1p64 + (double)magnitude.words[i];
    sum *= 0x1p-149;
    return negative ? -sum : sum;
}
