/*
 * The sums of kernels/lanes/products.h by an instruction that adds four products of an unsigned byte and a signed one
 * to 32 bits, vi_dot_4(sum, w, x): nothing saturates, and all codes take the same way, unsigned. vi_dot_4_alone is the
 * same where there is one column.
 */
#ifndef QUANTD_KERNELS_LANES_PRODUCTS_UNSIGNED_H
#define QUANTD_KERNELS_LANES_PRODUCTS_UNSIGNED_H

static inline __attribute__((always_inline)) void dot_codes(vi *sum, const size_t n_columns, const vi *w,
                                                            const int8_t *x, const size_t n_steps, const int highest)
{
    (void)highest;
#pragma GCC unroll 8
    for (size_t i = 0; i < n_steps; i++)
#pragma GCC unroll 8
        for (size_t c = 0; c < n_columns; c++)
            sum[c] = n_columns == 1 ? vi_dot_4_alone(sum[c], w[i], x + 4 * i)
                                    : vi_dot_4(sum[c], w[i], x + c * COLUMN_BYTES + 4 * i);
}

/* As they stand in the byte, 16 times their value: there is room for it in 32 bits. */
enum { UPPER_NIBBLE = 16 };
static inline vi upper_nibbles(vi a)
{
    return vi_and(a, bytes_set1(0xf0));
}

/* code + 128 */
static inline vi bytes_of_q8_0(vi codes)
{
    return vi_xor(codes, bytes_set1(0x80));
}
static inline __attribute__((always_inline)) void dot_bytes(vi *sum, const size_t n_columns, const int32_t *starts,
                                                            const vi w[8], const int8_t *x)
{
    sums_start(sum, n_columns, starts);
    dot_codes(sum, n_columns, w, x, 8, 255);
}

#endif
