/*
 * Vectors of f32 and i32 under one set of names, so that an encoder is written once and compiled for every instruction
 * set (ADR 10). Each ISA folder has a vec.h that gives these names their meaning; QD_VEC_HEADER says which is meant.
 *
 *   LANES             elements of a vector
 *   vf vi vm          floats, 32-bit integers, a mask of lanes
 *   VARIANT(op)       the function's name in kernels.def
 *   vf_min(a, b)      a < b ? a : b; vf_max: a > b ? a : b; so b where they are equal (zeros of either sign) or NaN
 *   vf_lt .. vf_eq    false with NaN; vf_ne: true with NaN
 *   vf_select(m,a,b)  a where m, else b
 *   vm_bits vm_of_bits  a mask as an integer, lane 0 its lowest bit, and back
 *   vi_of_vf          nearest, ties to even; vi_trunc: towards zero; both for |a| < 2^31 only
 *   vi_store_bytes    the low byte of each lane, LANES bytes
 *   vf_set1_f16       an f16, exactly, in every lane
 *   transpose         LANES vectors become their columns
 *   vf_largest_of_each(v)  lane i: the largest lane of v[i], none of which is NaN; a zero of either sign for zeros
 *   vf_largest        the largest lane, likewise
 *   vf_store_past     past the caches, to a multiple of the vector's bytes; in no order with other stores until a fence
 *   vf_store_f16      LANES f16, nearest, ties to even, Inf beyond 65504; no NaN
 *   vf_load_f16       the way back, exactly
 * 16 bytes, from which decoders make 16 floats in every instruction set:
 *   vb                bytes; vb_add, vb_sub modulo 256
 *   vb_ge(a, b)       all bits where a >= b, unsigned
 *   vb_field          each byte shifted right (left where the shift is negative), then masked; the mask holds no bit
 *                     that such a shift leaves empty
 *   vb_look_up        table[index], indices 0..15
 *   vb_of_bits        byte j all ones where bit j is set, bits 0..15
 *   vf_of_bytes       signed bytes, in order
 * Every operation is one IEEE operation, rounded by itself: no contraction, no approximation.
 */
#ifndef QUANTD_KERNELS_LANES_VEC_H
#define QUANTD_KERNELS_LANES_VEC_H

#include <string.h>

#include QD_VEC_HEADER

/*
 * Nearest integer, ties to even, of |a| <= 2^22: the field's way of rounding (ggml:src/ggml-quants.c, nearest_int),
 * in floats. What lies beyond comes out large with the right sign; the field's own gives other values there, so callers
 * leave such blocks to scalar.
 */
static inline vf vf_nearest(vf a)
{
    const vf magic = vf_set1(12582912.0f); /* 1.5 * 2^23 */
    return vf_sub(vf_add(a, magic), magic);
}

/* A value between @low and @high, where neither is a zero of the other sign. */
static inline vf vf_clamp(vf a, vf low, vf high)
{
    return vf_max(vf_min(a, high), low);
}

/*
 * Runs are searched WIDTH at a time, a lane each, in VECTORS vectors: a search adds one term after the other, and while
 * one vector waits for its sum the other goes on.
 */
enum { VECTORS = 2, WIDTH = VECTORS * LANES };

/* for (k = 0 .. VECTORS - 1), unrolled */
#define EACH_VECTOR(k) _Pragma("GCC unroll 2") for (size_t k = 0; k < VECTORS; k++)

/* @n of @batch blocks at @src; where some are missing, all in @room with the first in their place. */
static inline const char *whole_batch(const char *src, size_t n, size_t batch, size_t block_bytes, char *room)
{
    if (n == batch)
        return src;
    memcpy(room, src, n * block_bytes);
    for (size_t i = n; i < batch; i++)
        memcpy(room + i * block_bytes, src, block_bytes);
    return room;
}

/*
 * dst[j * width + lane] = element j of the run of @n (a multiple of 16) f32 that starts @stride_bytes * lane behind
 * @src: a run in each lane, @width (a multiple of LANES) of them side by side.
 */
static inline void load_runs(float *dst, size_t width, const void *src, size_t stride_bytes, size_t n)
{
    for (size_t first = 0; first < width; first += LANES)
        for (size_t j = 0; j < n; j += LANES) {
            vf v[LANES];
            for (size_t lane = 0; lane < LANES; lane++)
                v[lane] = vf_load((const char *)src + (first + lane) * stride_bytes + j * sizeof(float));
            transpose(v);
            for (size_t i = 0; i < LANES; i++)
                vf_store(dst + (j + i) * width + first, v[i]);
        }
}

/* The same, WIDTH side by side. */
static inline void load_columns(float dst[][WIDTH], const void *src, size_t stride_bytes, size_t n)
{
    load_runs(dst[0], WIDTH, src, stride_bytes, n);
}

#endif
