/*
 * Kernels: the contracts, and the table of those in use.
 *
 * kernels.def names every implementation as KERNEL(op, variant, needs); ops_for() fills a struct
 * ops with the last (fastest) entry of each operation whose needs a feature set holds. Scalar
 * needs nothing and is the definition: every variant gives the same bytes for the same input.
 * Kernels do not allocate, do no I/O, do not look at the CPU, and cannot fail. Pointers may have
 * any alignment; dst and src do not overlap. Any thread.
 */
#ifndef QUANTD_KERNELS_H
#define QUANTD_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quantd/dtype.h>

/*
 * Encodes @n_elements f32 at @src (all finite; a multiple of the type's block) into @dst.
 * f32: copy. f16, bf16: round to nearest even (f16 beyond 65504 becomes Inf: callers check).
 * Block types: docs/formats/blocks.md, byte for byte ggml's quantize_<type> without importance.
 */
typedef void quantize_fn(void *dst, const float *src, size_t n_elements);

/*
 * The same with an importance matrix: @importance[n_elements] finite f32, not negative, one for each element of @src,
 * which is (a part of) one row. @mean_square: of the whole row, as sum_squares makes it, divided by its elements; only
 * the types of quantize_weighted_by_row look at it. Byte for byte ggml's quantize_<type> with quant_weights.
 */
typedef void quantize_weighted_fn(void *dst, const float *src, size_t n_elements, const float *importance,
                                  float mean_square);

/* Decodes blocks at @src to @n_elements f32 at @dst; exact. */
typedef void dequantize_fn(float *dst, const void *src, size_t n_elements);

/*
 * Sums over pairs (x: source, y: what the artifact decodes to), kept as 16 double lanes (element i of a call goes to
 * lane i % 16, in order) so that the fold is the same in every variant.
 */
struct error_sums {
    double noise[16];  /* sum of (x - y)^2 */
    double signal[16]; /* sum of x^2 */
    float max_abs[16]; /* max |x - y| */
    uint64_t n;
};

/* Adds @n_elements pairs to @sums. */
typedef void measure_fn(struct error_sums *sums, const float *x, const float *y, size_t n_elements);

/* @sum and the squares of @x, added one by one as the field's encoders do: only that order gives their bytes */
typedef float sum_squares_fn(float sum, const float *x, size_t n_elements);

/* Index of the first NaN or Inf, or @n_elements where all are finite. */
typedef size_t find_nonfinite_fn(const float *x, size_t n_elements);

struct ops {
    quantize_fn *quantize[QD_N_TYPES];                   /* NULL: no encoder for that type */
    dequantize_fn *dequantize[QD_N_TYPES];               /* NULL: no decoder for that type */
    quantize_weighted_fn *quantize_weighted[QD_N_TYPES]; /* NULL: importance makes no difference */
    measure_fn *measure;
    find_nonfinite_fn *find_nonfinite;
    sum_squares_fn *sum_squares;
};

/* Does weighted encoding look at the whole row? (q4_0 q4_1 q5_0 q5_1; the others look at the block alone) */
bool quantize_weighted_by_row(enum qd_type type);

/*
 * The fastest kernels that need no more than @features (enum cpu_feature bits, kernels/cpu.h). Static storage; never
 * NULL. Thread-safe.
 */
const struct ops *ops_for(uint64_t features);

/* ops_for(cpu_features()). */
const struct ops *ops_native(void);

/* What a kernel does; the names are those of kernels.def. */
#define KERNEL_KINDS(K) K(quantize) K(quantize_weighted) K(dequantize) K(measure) K(find_nonfinite) K(sum_squares)
enum kernel_kind {
#define K(name) KERNEL_##name,
    KERNEL_KINDS(K)
#undef K
};

/* Every registered implementation, for checks and benches: one for each line of kernels.def built into this binary. */
struct kernel_entry {
    const char *op;      /* "quantize_q8_0", "measure" */
    const char *variant; /* "scalar", "avx2" */
    uint64_t needs;      /* feature bits */
    enum kernel_kind kind;
    enum qd_type type; /* QD_N_TYPES where the operation has none */
    void (*fn)(void);  /* cast back by kind */
};
const struct kernel_entry *kernels_list(size_t *ret_n);

#endif
