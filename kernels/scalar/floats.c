#include "kernels/variants.h"

#include <string.h>

#include "kernels/scalar/half.h"

void quantize_f32__scalar(void *dst, const float *src, size_t n_elements)
{
    if (n_elements)
        memcpy(dst, src, n_elements * sizeof *src);
}

void dequantize_f32__scalar(float *dst, const void *src, size_t n_elements)
{
    if (n_elements)
        memcpy(dst, src, n_elements * sizeof *dst);
}

/* Rows may lie at any address: elements are read and written as bytes. */
static float load_f32(const float *src, size_t i)
{
    float f;
    memcpy(&f, (const char *)src + i * sizeof f, sizeof f);
    return f;
}

static void store_f32(float *dst, size_t i, float f)
{
    memcpy((char *)dst + i * sizeof f, &f, sizeof f);
}

static uint16_t load_u16(const void *src, size_t i)
{
    uint16_t h;
    memcpy(&h, (const char *)src + i * sizeof h, sizeof h);
    return h;
}

static void store_u16(void *dst, size_t i, uint16_t h)
{
    memcpy((char *)dst + i * sizeof h, &h, sizeof h);
}

void quantize_f16__scalar(void *dst, const float *src, size_t n_elements)
{
    for (size_t i = 0; i < n_elements; i++)
        store_u16(dst, i, f16_of_f32(load_f32(src, i)));
}

/*
 * f32_of_f16 without branches, so that a loop over it is made of vectors: the exponent moves by 224, a full one to
 * full, and back by 112. A subnormal m comes out as (1 + m / 2^10) / 2^15, and only then doubling and taking 2^-14 off
 * gives less.
 */
static inline float f32_of_f16_in_row(uint16_t h)
{
    const float normal = f32_of_bits(((uint32_t)(h & 0x7fff) << 13) + 0x70000000) * 0x1p-112f;
    const float subnormal = normal + normal - 0x1p-14f;
    return f32_of_bits(f32_bits(subnormal < normal ? subnormal : normal) | (uint32_t)(h & 0x8000) << 16);
}

void dequantize_f16__scalar(float *dst, const void *src, size_t n_elements)
{
    for (size_t i = 0; i < n_elements; i++)
        store_f32(dst, i, f32_of_f16_in_row(load_u16(src, i)));
}

void quantize_bf16__scalar(void *dst, const float *src, size_t n_elements)
{
    for (size_t i = 0; i < n_elements; i++)
        store_u16(dst, i, bf16_of_f32(load_f32(src, i)));
}

void dequantize_bf16__scalar(float *dst, const void *src, size_t n_elements)
{
    for (size_t i = 0; i < n_elements; i++)
        store_f32(dst, i, f32_of_bf16(load_u16(src, i)));
}
