/*
 * Rows to try kernels on: kinds that meet every edge rule of docs/formats/blocks.md. The same
 * seed gives the same bits on every machine: integer generator, IEEE operations, no libm.
 */
#ifndef QUANTD_TESTS_KERNELS_DATA_H
#define QUANTD_TESTS_KERNELS_DATA_H

#include <stddef.h>
#include <stdint.h>

#include <quantd/dtype.h>

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
    K(weights_of_f16)         \
    K(all_positive)           \
    K(far_from_zero)          \
    K(some_runs_zero)         \
    K(runs_of_any_size)

enum data_kind {
#define K(name) DATA_##name,
    DATA_KINDS(K)
#undef K
        DATA_N_KINDS
};

const char *data_name(enum data_kind kind);

/* @n finite f32; blocks of 32 are filled by their own draws. */
void data_fill(enum data_kind kind, float *dst, size_t n, uint64_t seed);

/*
 * Importances for @n elements: finite, not negative. Kinds go round with @seed: uniform, heavy tails, some zeros, all
 * one, all zero, tiny.
 */
void data_fill_importance(float *dst, size_t n, uint64_t seed);

/* Any bits at all, every fourth element NaN or Inf. */
void data_fill_nonfinite(float *dst, size_t n, uint64_t seed);

/*
 * Random bytes as @n_blocks blocks of @type; @finite: all of its f16 scales are finite, else many are not and scales of
 * other kinds meet their edges.
 */
void data_fill_blocks(void *dst, size_t n_blocks, enum qd_type type, int finite, uint64_t seed);

/* FNV-1a, 64 bits, over @n bytes, continued from @hash; begin with HASH_START. */
#define HASH_START UINT64_C(0xcbf29ce484222325)
uint64_t data_hash(uint64_t hash, const void *bytes, size_t n);

uint64_t data_random(uint64_t *state);

#endif
