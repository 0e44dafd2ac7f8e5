/*
 * Kernels: the contracts, and the table of those in use.
 *
 * kernels.def and packed.def name every implementation as KERNEL(op, variant, needs, ...); ops_for() fills a struct
 * ops with the last (fastest) entry of each operation whose needs a feature set holds. Scalar
 * needs nothing and is the definition: every variant gives the same bytes for the same input.
 * Kernels do not allocate, do no I/O, do not look at the CPU, and cannot fail. Pointers may have
 * any alignment (an activation tile and a product: that of their elements); dst and src do not
 * overlap. Any thread.
 */
#ifndef QUANTD_KERNELS_H
#define QUANTD_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quantd/dtype.h>
#include <quantd/layout.h>

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

/* One field of every block of a group of rows (kernels/layout/packed.h): how the rows' bytes take turns. */
struct turns {
    size_t row_bytes;   /* from row to row of the portable side */
    size_t block_bytes; /* from block to block of it */
    size_t field_bytes; /* a multiple of @run */
    size_t run;         /* bytes of a turn: the layout's own, 2 or 1 */
    size_t n_blocks;
};

/* Gathers a plane of a group: @src is the field in the first block of the first row. A kernel for each layout. */
typedef void interleave_fn(void *dst, const void *src, const struct turns *t);

/* Puts a plane back: @dst is the field in the first block of the first row; bytes of other fields are left alone. */
typedef void deinterleave_fn(void *dst, const void *src, const struct turns *t);

/*
 * Activations as the integer kernels take them: codes of 8 bits with a scale for each block, as llama.cpp's CPU backend
 * makes them on x86 (ggml:src/ggml-cpu/arch/x86/quants.c, quantize_row_q8_0; src/ggml-quants.c, quantize_row_q8_K_ref),
 * so that products agree with its.
 *
 *   32   scale = f16(max|x| / 127), q = nearest even of x * (127 / max|x|); for q8_0 q4_0 i8 u4
 *   256  q = nearest even of x * (-127 / m), at most 127, where m is the first x of the largest magnitude; scale =
 *        1 / (-127 / m) in f32; for q2_k q3_k q4_k q5_k q6_k
 *
 * A column of zeros has scale 0 and codes 0; so has one whose quotient overflows. NaN or Inf in @x give a product that
 * is NaN or Inf in that column alone, and no undefined behaviour.
 *
 * Columns are kept in tiles: a tile of @width columns holds, block after block of 32,
 *   q      [block][column][32]   codes in order
 *   scale  [block][column]       (256: one for eight blocks)
 *   sums   [unit][column]        minus @offset times the sum of the unit's codes, 32-bit; unit: @unit elements
 *   pairs  [block of 256][column][8] 16-bit sums of 32 codes; 256 alone
 */
struct activation_tile {
    int8_t *q;
    float *scale;
    int32_t *sums;  /* what an integer sum starts from where codes are stored unsigned, @offset above their value */
    int16_t *pairs; /* NULL with 32 */
};

/*
 * Quantizes @n_blocks (of 32 or 256: the operation's name) of @width columns into a tile. @x: the first column; the
 * others follow @stride floats apart.
 */
struct activation_source {
    const float *x;
    size_t stride;
    size_t width;
    size_t n_blocks;
    int32_t offset; /* of unsigned codes: 128 for q8_0 and i8, 8 for q4_0 and u4, 32 for all with blocks of 256; 1 for
                       u4 with zero points, which are multiplied with the sums */
    size_t unit;    /* elements: 16 or 32 */
};
typedef void activate_fn(struct activation_tile *dst, const struct activation_source *src);

/*
 * Scales of weights that are codes alone (i8, u4), apart from them: with f32 scale d and zero point z of its row and
 * block, a weight is d * (code - z). Addresses are those of the first block of a strip's first row, any alignment; from
 * group to group and from block to block it is a number of bytes each. Rows of a group lie side by side: scales as f32,
 * zero points as nibbles, the lower one first.
 */
struct code_scales {
    const uint8_t *scale;
    size_t scale_group, scale_block; /* 0: all blocks of a row have one */
    unsigned shift;                  /* block b of 32 codes has the scale and the zero point of block b >> shift */
    const uint8_t *zero;             /* NULL: 0 of i8, 8 of u4 */
    size_t zero_group, zero_block;
    uint8_t flip; /* of u4: the codes are xored with it; 0x88 makes unsigned ones of i4 */
};

/* From one group to the @n_groups-th behind it. */
static inline void code_scales_skip(struct code_scales *k, size_t n_groups)
{
    if (k->scale)
        k->scale += n_groups * k->scale_group;
    if (k->zero)
        k->zero += n_groups * k->zero_group;
}

/*
 * A strip of a product: the rows of @n_groups groups times a tile of @width columns. Row r of group g is row
 * g * rows + r of y:
 *
 * y[c * y_stride + row] = fold over the blocks b of k in order, from 0, with one rounding in every line:
 *   q8_0 q4_0   acc = fma(float(I), ws * xs, acc)        ws: the f16 scale of the block in f32, xs: of the column; I:
 *                                                        the exact integer sum of products of values without scales
 *   i8 u4       the same with d, one rounding of d * xs; I: with codes less their zero point
 *   i8 where a row has one scale: acc = fma(float(I), xs, acc), and at the end acc * d
 *   q4_k q5_k   t = 0, and for the eight sub-blocks in order t = fma(float(I), float(sc), t);
 *               acc = fma(t, d * xs, acc); acc = fma(-float(M), dmin * xs, acc)
 *                                                        M: the exact integer sum of minimum * sum of codes
 *   q2_k        the same with sixteen sub-blocks
 *   q3_k q6_k   t = 0, and for the sixteen sub-blocks in order t = fma(float(I), float(sc), t);
 *               acc = fma(t, d * xs, acc)
 * Every variant, layout, number of columns and of threads gives the same bits (NaN: any NaN).
 */
struct matmul_strip {
    const uint8_t *w; /* the groups, one behind the other */
    size_t n_groups;
    size_t n_blocks;          /* of the type, in a row; of i8 and u4: of 32 codes */
    struct code_scales codes; /* of i8 and u4 */
    struct activation_tile x;
    float *y;
    size_t y_stride;
    size_t width;    /* a power of two, at most layout_columns() */
    bool y_is_large; /* advice: more than caches hold. A fence must lie between the strip and who reads y elsewhere */
    const uint8_t *next; /* advice: what a later strip reads, to be brought nearer meanwhile */
    size_t next_bytes;   /* may be 0 */
};
typedef void matmul_fn(const struct matmul_strip *s);

/*
 * Sum of a[i] * b[i] over @n f32 at any address: 64 lanes, element i on top of lane i % 64 by one fma, in order; then
 * lanes j and j + 32 are added, of those j and j + 16, and so on. The same bits in every variant (NaN: any NaN).
 */
typedef float dot_fn(const void *a, const void *b, size_t n);

/*
 * c[i][j] += a[i][0] * b[0][j] + a[i][1] * b[1][j] + ... for @n_rows rows and @n_columns columns of f32: one fma for
 * each product, on top of c, in order of k. The same bits in every variant (NaN: any NaN), however a product is cut
 * into tiles.
 */
enum { GEMM_COLUMNS = 32 };
struct gemm_tile {
    float *c;       /* [n_rows] rows, @c_stride floats apart, of @n_columns */
    const float *a; /* a[i][k] stands at i * a_stride + k * a_step */
    const float *b; /* b[k][j] stands at k * b_stride + j; GEMM_COLUMNS of each can be read whatever @n_columns */
    size_t c_stride, a_stride, a_step, b_stride;
    size_t n_rows, n_columns /* 1 to GEMM_COLUMNS */, n_k;
};
typedef void gemm_fn(const struct gemm_tile *t);

/*
 * c[i][j] = the sum of a[i][k] * b[j][k] over n_k, in 32 bits that wrap: exact for codes of 8 bits less a zero point,
 * whose products two to a pair cannot saturate, up to 33,000 of them. Addresses: multiples of 2.
 */
struct dots_tile {
    int32_t *c;           /* [n_rows] rows, @c_stride apart, of @n_columns */
    const int16_t *a, *b; /* [n_rows] and [n_columns] rows of @n_k, @a_stride and @b_stride apart */
    size_t c_stride, a_stride, b_stride;
    size_t n_rows, n_columns, n_k;
};
typedef void dots_fn(const struct dots_tile *t);

struct ops {
    quantize_fn *quantize[QD_N_TYPES];                   /* NULL: no encoder for that type */
    dequantize_fn *dequantize[QD_N_TYPES];               /* NULL: no decoder for that type */
    quantize_weighted_fn *quantize_weighted[QD_N_TYPES]; /* NULL: importance makes no difference */
    measure_fn *measure;
    find_nonfinite_fn *find_nonfinite;
    sum_squares_fn *sum_squares;
    interleave_fn *interleave[QD_N_LAYOUTS]; /* NULL for portable */
    deinterleave_fn *deinterleave[QD_N_LAYOUTS];
    activate_fn *activate_32, *activate_256;
    dot_fn *dot;
    gemm_fn *gemm;
    dots_fn *dots;
    matmul_fn *matmul[QD_N_TYPES][QD_N_LAYOUTS]; /* NULL where the type is not packed */
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

/* The same of packed.def. */
#define PACKED_KINDS(K) K(interleave) K(deinterleave) K(activate) K(matmul) K(dot) K(gemm) K(dots)
enum packed_kind {
#define K(name) PACKED_##name,
    PACKED_KINDS(K)
#undef K
};

struct packed_entry {
    const char *op; /* "interleave_r16k4p128", "activate_32", "matmul_q8_0_r16k4p128" */
    const char *variant;
    uint64_t needs;
    enum packed_kind kind;
    enum qd_type type;     /* of a product; else QD_N_TYPES */
    enum qd_layout layout; /* portable: none (activate) */
    void (*fn)(void);
};
const struct packed_entry *packed_list(size_t *ret_n);

#endif
