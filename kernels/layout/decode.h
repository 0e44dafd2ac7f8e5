/* What decoders share: a row is decoded block by block, straight to where the caller wants it. */
#ifndef QUANTD_KERNELS_DECODE_H
#define QUANTD_KERNELS_DECODE_H

#include "kernels/layout/blocks.h"
#include "kernels/variants.h"

/* A float at any address. */
typedef float float_at __attribute__((aligned(1)));

/* Defines @function (of type dequantize_fn) by decode_<type>(where, block), which decodes one block of @n elements. */
#define DECODER(function, type, n)                                      \
    void function(float *dst, const void *src, size_t n_elements)       \
    {                                                                   \
        const struct block_##type *b = src;                             \
        float_at *x = (float_at *)dst;                                  \
        for (size_t blocks = n_elements / (n); blocks; blocks--, b++) { \
            decode_##type(x, b);                                        \
            x += (n);                                                   \
        }                                                               \
    }

#endif
