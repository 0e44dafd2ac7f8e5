#include "tests/kernels/data.h"

#include <string.h>

enum { BLOCK = 32 };

const char *data_name(enum data_kind kind)
{
    static const char *const names[DATA_N_KINDS] = {
#define K(name) #name,
        DATA_KINDS(K)
#undef K
    };
    return names[kind];
}

/* splitmix64 */
uint64_t data_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint32_t draw(uint64_t *s)
{
    return (uint32_t)(data_random(s) >> 32);
}

static float of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* [0, 1) in steps of 2^-24 */
static float unit(uint64_t *s)
{
    return (float)(draw(s) >> 8) * 0x1p-24f;
}

static float sign(uint64_t *s)
{
    return draw(s) & 1 ? -1.0f : 1.0f;
}

/* Near enough to Gaussian: twelve uniforms. */
static float normal(uint64_t *s)
{
    float sum = -6;
    for (int i = 0; i < 12; i++)
        sum += unit(s);
    return sum;
}

/* 2^e for a normal result. */
static float power_of_two(int e)
{
    return of_bits((uint32_t)(e + 127) << 23);
}

static float random_finite(uint64_t *s)
{
    uint32_t bits;
    do
        bits = draw(s);
    while ((bits & 0x7f800000) == 0x7f800000);
    return of_bits(bits);
}

/* Element @j of a block; @base is drawn once per block. */
static float element(enum data_kind kind, size_t i, size_t j, float base, size_t spike, uint64_t *s)
{
    switch (kind) {
    case DATA_gaussian:
        return normal(s);
    case DATA_gaussian_small:
        return normal(s) * 0.02f;
    case DATA_heavy_tails:
        return normal(s) / (unit(s) * unit(s) + 0.001f);
    case DATA_uniform:
        return unit(s) * 2 - 1;
    case DATA_zeros:
        return 0;
    case DATA_negative_zeros:
        return -0.0f;
    case DATA_mixed_zeros:
        return 0 * sign(s);
    case DATA_one_spike:
        return j == spike ? base * 1000 : 0;
    case DATA_constant:
        return base * base + 0.001f;
    case DATA_constant_negative:
        return -(base * base) - 0.001f;
    case DATA_alternating_signs:
        return (i + spike) % 2 ? -base : base;
    case DATA_ternary:
        return (float)((int)(draw(s) % 3) - 1) * base;
    case DATA_ramp:
        return ((float)j - (float)spike) * base;
    case DATA_exact_halves:
        return j == spike ? 127 : (float)(int)(draw(s) % 254) - 126.5f;
    case DATA_near_halves:
        return j == spike
                   ? -127
                   : of_bits(0x3f000000 + draw(s) % 0x03800000 / 0x400000 * 0x400000 + draw(s) % 5 - 2) * sign(s);
    case DATA_subnormal:
        return of_bits((draw(s) & 0x807fffff) >> (spike % 20) | (draw(s) & 0x80000000));
    case DATA_subnormal_and_zero:
        return j % 3 ? of_bits(draw(s) & 0x800000ff) : 0;
    case DATA_inverse_near_overflow:
        return (unit(s) * 2 - 1) * power_of_two(-120 - (int)(spike % 6));
    case DATA_scale_subnormal_in_f16:
        return (unit(s) * 2 - 1) * power_of_two(-7 - (int)spike / 2);
    case DATA_near_f16_overflow:
        return (unit(s) * 2 - 1) * 66000.0f * (spike % 2 ? 127 : 1);
    case DATA_near_f32_overflow:
        return of_bits(0x7f7fffff - draw(s) % 0x01000000) * sign(s);
    case DATA_f16_ties:
        return of_bits((draw(s) % 0x12000000 + 0x32800000) & 0xfffff000) * sign(s);
    case DATA_bf16_ties:
        return of_bits((draw(s) % 0x7f7f0000 & 0xffff0000) | (0x7fff + draw(s) % 3)) * sign(s);
    case DATA_random_finite_bits:
        return random_finite(s);
    case DATA_weights_of_f16:
        return (float)((int)(draw(s) % 4001) - 2000) * 0x1p-14f;
    case DATA_all_positive:
        return unit(s) + 0.01f;
    case DATA_far_from_zero:
        return 1000 * base + unit(s) * 0.001f * (float)(spike + 1);
    case DATA_some_runs_zero:
        return spike % 3 ? normal(s) : 0;
    case DATA_runs_of_any_size:
        return normal(s) * power_of_two((int)(spike / 2) * 3 - 24);
    case DATA_N_KINDS:
        break;
    }
    return 0;
}

void data_fill(enum data_kind kind, float *dst, size_t n, uint64_t seed)
{
    uint64_t s = seed * 1000 + (uint64_t)kind;
    float base = 0;
    size_t spike = 0;
    for (size_t i = 0; i < n; i++) {
        if (i % BLOCK == 0) {
            base = normal(&s);
            spike = draw(&s) % BLOCK;
        }
        float x = element(kind, i, i % BLOCK, base, spike, &s);
        memcpy((char *)dst + i * sizeof x, &x, sizeof x);
    }
}

void data_fill_nonfinite(float *dst, size_t n, uint64_t seed)
{
    uint64_t s = seed;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = draw(&s);
        if (i % 4 == 0)
            bits |= 0x7f800000;
        if (i % 16 == 0)
            bits &= 0xff800000;
        memcpy((char *)dst + i * sizeof bits, &bits, sizeof bits);
    }
}

void data_fill_importance(float *dst, size_t n, uint64_t seed)
{
    uint64_t s = seed;
    for (size_t i = 0; i < n; i++) {
        float w = unit(&s);
        switch (seed % 6) {
        case 1:
            w = 1 / (w * w + 1e-4f);
            break;
        case 2:
            w = draw(&s) % 4 ? w * 10 : 0;
            break;
        case 3:
            w = 1;
            break;
        case 4:
            w = 0;
            break;
        case 5:
            w *= 1e-12f;
            break;
        default:
            break;
        }
        memcpy((char *)dst + i * sizeof w, &w, sizeof w);
    }
}

/* Where a type's f16 scales are: byte offsets, -1: none more. */
static void scale_places(enum qd_type type, int places[2])
{
    places[0] = type == QD_TYPE_MXFP4 || type == QD_TYPE_NVFP4 || type == QD_TYPE_IQ1_M ? -1 : 0;
    places[1] = -1;
    switch ((int)type) {
    case QD_TYPE_Q4_1:
    case QD_TYPE_Q5_1:
    case QD_TYPE_Q4_K:
    case QD_TYPE_Q5_K:
        places[1] = 2;
        break;
    case QD_TYPE_Q2_K:
        places[0] = 80;
        places[1] = 82;
        break;
    case QD_TYPE_Q3_K:
    case QD_TYPE_Q6_K:
    case QD_TYPE_TQ1_0:
    case QD_TYPE_TQ2_0:
        places[0] = (int)qd_type_info(type)->block_bytes - 2;
        break;
    default:
        break;
    }
}

/* f16 bits at @place: Inf for every second @i, else a NaN, of either sign. */
static void make_nonfinite(uint8_t *block, int place, size_t i)
{
    block[place] = i % 2 ? 0 : block[place] | 1;
    block[place + 1] = (uint8_t)((block[place + 1] & (i % 2 ? 0x80 : 0xff)) | 0x7c);
}

/* Scales that are not f16 and have edges: all of them are met. */
static void make_edges(uint8_t *block, enum qd_type type, size_t i)
{
    static const uint8_t e8m0[4] = {0, 1, 2, 255}, ue4m3[4] = {0, 0x7f, 0x80, 0xff};
    if (type == QD_TYPE_MXFP4 && i % 4 == 0)
        block[0] = e8m0[i / 4 % 4];
    if (type == QD_TYPE_NVFP4 && i % 4 == 0)
        memcpy(block, ue4m3, sizeof ue4m3);
}

void data_fill_blocks(void *dst, size_t n_blocks, enum qd_type type, int finite, uint64_t seed)
{
    const size_t bytes = qd_type_info(type)->block_bytes;
    const int is_block = qd_type_info(type)->block_elements > 1;
    int places[2];
    uint64_t s = seed;
    uint8_t *b = dst;
    scale_places(type, places);
    for (size_t i = 0; i < n_blocks * bytes; i++)
        b[i] = (uint8_t)draw(&s);
    for (size_t i = 0; finite && i < n_blocks; i++) {
        uint8_t *block = b + i * bytes;
        for (int k = 0; k < 2 && bytes > 1; k++)
            if (places[k] >= 0 && (block[places[k] + 1] & 0x7c) == 0x7c) /* exponent all ones: take one bit out */
                block[places[k] + 1] ^= 0x10;
        if (type == QD_TYPE_IQ1_M && (block[55] & 0xf0) == 0x70) /* its scale is spread over the upper nibbles */
            block[55] ^= 0x10;
        if (type == QD_TYPE_IQ1_M && (block[55] & 0xf0) == 0xf0)
            block[55] ^= 0x10;
    }
    for (size_t i = 0; !finite && is_block && i < n_blocks; i++) {
        make_edges(b + i * bytes, type, i);
        for (int k = 0; k < 2; k++)
            if (places[k] >= 0 && i >> k & 1)
                make_nonfinite(b + i * bytes, places[k], i / 4);
        if (type == QD_TYPE_IQ1_M && i % 2)
            b[i * bytes + 55] |= 0x70, b[i * bytes + 53] |= 0xc0;
    }
}

uint64_t data_hash(uint64_t hash, const void *bytes, size_t n)
{
    const uint8_t *b = bytes;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ b[i]) * UINT64_C(0x100000001b3);
    return hash;
}
