/*
 * kernels/lanes/vec.h in plain C, one lane: what the names mean, for tests that try pieces of kernels/lanes on all
 * floats. Names are added as tests come to need them.
 */
#ifndef QUANTD_TESTS_PLAIN_VEC_H
#define QUANTD_TESTS_PLAIN_VEC_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 1 };
#define VARIANT(op) op##__plain

typedef float vf;
typedef int32_t vi;
typedef bool vm;

static inline vf vf_load(const void *p)
{
    vf a;
    memcpy(&a, p, sizeof a);
    return a;
}
static inline void vf_store(void *p, vf a)
{
    memcpy(p, &a, sizeof a);
}
static inline vf vf_set1(float a)
{
    return a;
}
static inline vf vf_add(vf a, vf b)
{
    return a + b;
}
static inline vf vf_sub(vf a, vf b)
{
    return a - b;
}
static inline vf vf_mul(vf a, vf b)
{
    return a * b;
}
static inline vf vf_div(vf a, vf b)
{
    return a / b;
}
static inline vf vf_sqrt(vf a)
{
    return sqrtf(a);
}
static inline vf vf_abs(vf a)
{
    return fabsf(a);
}
static inline vf vf_neg(vf a)
{
    return -a;
}
static inline vf vf_min(vf a, vf b)
{
    return a < b ? a : b;
}
static inline vf vf_max(vf a, vf b)
{
    return a > b ? a : b;
}
static inline vm vf_lt(vf a, vf b)
{
    return a < b;
}
static inline vm vf_gt(vf a, vf b)
{
    return a > b;
}
static inline vm vf_ge(vf a, vf b)
{
    return a >= b;
}
static inline vm vm_and(vm a, vm b)
{
    return a && b;
}
static inline vf vf_select(vm m, vf a, vf b)
{
    return m ? a : b;
}
static inline vi vi_set1(int a)
{
    return a;
}
static inline vi vi_trunc(vf a)
{
    return (vi)a;
}
static inline vi vi_add(vi a, vi b)
{
    return (vi)((uint32_t)a + (uint32_t)b);
}
static inline vi vi_min(vi a, vi b)
{
    return a < b ? a : b;
}
static inline vi vi_max(vi a, vi b)
{
    return a > b ? a : b;
}
static inline vi vi_and(vi a, vi b)
{
    return a & b;
}
static inline vi vi_shift_right(vi a, int n)
{
    return (vi)((uint32_t)a >> n);
}
static inline vi vi_or(vi a, vi b)
{
    return a | b;
}
static inline vi vi_xor(vi a, vi b)
{
    return a ^ b;
}
static inline vi vi_shift_left(vi a, int n)
{
    return (vi)((uint32_t)a << n);
}
static inline vi vi_add_where(vm m, vi a, vi b)
{
    return m ? a + b : a;
}
static inline vi vi_bits(vf a)
{
    vi b;
    memcpy(&b, &a, sizeof b);
    return b;
}
static inline vf vf_bits(vi a)
{
    vf b;
    memcpy(&b, &a, sizeof b);
    return b;
}
static inline vf vf_flip(vm m, vf a, vf b)
{
    return m ? vf_bits(vi_bits(a) ^ vi_bits(b)) : a;
}
static inline vf vf_look_up_16(const float table[16], vi a)
{
    return table[a & 15];
}
static inline void vi_store_bytes(void *p, vi a)
{
    *(uint8_t *)p = (uint8_t)a;
}
static inline void transpose(vf v[LANES])
{
    (void)v;
}

#endif
