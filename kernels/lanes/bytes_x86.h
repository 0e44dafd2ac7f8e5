/* The byte vectors of kernels/lanes/vec.h, for AVX2 and AVX-512 alike: 128 bits feed 16 floats. */
#ifndef QUANTD_KERNELS_LANES_BYTES_X86_H
#define QUANTD_KERNELS_LANES_BYTES_X86_H

#include <immintrin.h>
#include <stdint.h>

typedef __m128i vb;

static inline vb vb_load(const void *p)
{
    return _mm_loadu_si128(p);
}
static inline vb vb_set1(int a)
{
    return _mm_set1_epi8((char)a);
}
static inline vb vb_of_u64(uint64_t low, uint64_t high)
{
    return _mm_set_epi64x((long long)high, (long long)low);
}
static inline vb vb_and(vb a, vb b)
{
    return _mm_and_si128(a, b);
}
static inline vb vb_or(vb a, vb b)
{
    return _mm_or_si128(a, b);
}
static inline vb vb_xor(vb a, vb b)
{
    return _mm_xor_si128(a, b);
}
static inline vb vb_add(vb a, vb b)
{
    return _mm_add_epi8(a, b);
}
static inline vb vb_sub(vb a, vb b)
{
    return _mm_sub_epi8(a, b);
}
static inline vb vb_ge(vb a, vb b)
{
    return _mm_cmpeq_epi8(_mm_max_epu8(a, b), a);
}
/* Bits that come over from the byte beside are not in the mask. */
static inline vb vb_field(vb a, int shift, int mask)
{
    a = shift > 0 ? _mm_srli_epi16(a, shift) : shift < 0 ? _mm_slli_epi16(a, -shift) : a;
    return vb_and(a, vb_set1(mask));
}
static inline vb vb_look_up(vb table, vb index)
{
    return _mm_shuffle_epi8(table, index);
}

#endif
