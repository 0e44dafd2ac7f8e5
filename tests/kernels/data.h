/*
 * Rows to try kernels on: kinds that meet every edge rule of docs/formats/blocks.md. The same
 * seed gives the same bits on every machine: integer generator, IEEE operations, no libm.
 */
#ifndef QUANTD_TESTS_KERNELS_DATA_H
#define QUANTD_TESTS_KERNELS_DATA_H

#include <stddef.h>
#include <stdint.h>

#define DATA_KINDS(K)         \
    K(gaussian)               \
    K(gaussian_small)         \
    K(heavy_tails)            \
    K(uniform)                \
    K(zeros)                  \
    K(negative_zeros)         \
    K(mixed_zeros)            \
    K(one_spike)              \
    K(constant)               \
    K(constant_negative)      \
    K(alternating_signs)      \
    K(ternary)                \
    K(ramp)                   \
    K(exact_halves)           \
    K(near_halves)            \
    K(subnormal)              \
    K(subnormal_and_zero)     \
    K(inverse_near_overflow)  \
    K(scale_subnormal_in_f16) \
    K(near_f16_overflow)      \
    K(near_f32_overflow)      \
    K(f16_ties)               \
    K(bf16_ties)              \
    K(random_finite_bits)     \
    K(weights_of_f16)

enum data_kind {
#define K(name) DATA_##name,
    DATA_KINDS(K)
#undef K
        DATA_N_KINDS
};

const char *data_name(enum data_kind kind);

/* @n finite f32; blocks of 32 are filled by their own draws. */
void data_fill(enum data_kind kind, float *dst, size_t n, uint64_t seed);

/* Any bits at all, every fourth element NaN or Inf. */
void data_fill_nonfinite(float *dst, size_t n, uint64_t seed);

/* Random bytes as rows of @n_blocks blocks whose first 16 bits are a finite f16 (or any f16). */
void data_fill_blocks(void *dst, size_t n_blocks, size_t block_bytes, int finite, uint64_t seed);

/* FNV-1a, 64 bits, over @n bytes, continued from @hash; begin with HASH_START. */
#define HASH_START UINT64_C(0xcbf29ce484222325)
uint64_t data_hash(uint64_t hash, const void *bytes, size_t n);

uint64_t data_random(uint64_t *state);

#endif
