#include "kernels/variants.h"

#include <arm_neon.h>
#include <string.h>

/* The 16 lanes of struct error_sums in registers. */
struct lanes {
    float64x2_t noise[8], signal[8];
    float32x4_t max_abs[4];
};

/* Adds 2 pairs in double. */
static inline void add_two(float64x2_t *noise, float64x2_t *signal, float32x2_t x, float32x2_t y)
{
    float64x2_t a = vcvt_f64_f32(x), difference = vsubq_f64(a, vcvt_f64_f32(y));
    *noise = vaddq_f64(*noise, vmulq_f64(difference, difference));
    *signal = vaddq_f64(*signal, vmulq_f64(a, a));
}

static inline void add_sixteen(struct lanes *l, const uint8_t *a, const uint8_t *b)
{
    for (int i = 0; i < 4; i++) {
        float32x4_t x = vreinterpretq_f32_u8(vld1q_u8(a + 16 * i)), y = vreinterpretq_f32_u8(vld1q_u8(b + 16 * i));
        add_two(&l->noise[2 * i], &l->signal[2 * i], vget_low_f32(x), vget_low_f32(y));
        add_two(&l->noise[2 * i + 1], &l->signal[2 * i + 1], vget_high_f32(x), vget_high_f32(y));
        float32x4_t distance = vabdq_f32(x, y); /* |x - y|, rounded once */
        l->max_abs[i] = vbslq_f32(vcgtq_f32(distance, l->max_abs[i]), distance, l->max_abs[i]); /* NaN leaves it */
    }
}

void measure__neon(struct error_sums *sums, const float *x, const float *y, size_t n_elements)
{
    const uint8_t *a = (const uint8_t *)x, *b = (const uint8_t *)y;
    struct lanes l;
    for (int i = 0; i < 8; i++) {
        l.noise[i] = vld1q_f64(sums->noise + 2 * i);
        l.signal[i] = vld1q_f64(sums->signal + 2 * i);
    }
    for (int i = 0; i < 4; i++)
        l.max_abs[i] = vld1q_f32(sums->max_abs + 4 * i);

    size_t n = n_elements;
    for (; n >= 16; n -= 16, a += 64, b += 64)
        add_sixteen(&l, a, b);
    if (n) { /* lanes beyond the end add +0, which changes no sum */
        uint8_t last[2][64] = {{0}};
        memcpy(last[0], a, n * 4);
        memcpy(last[1], b, n * 4);
        add_sixteen(&l, last[0], last[1]);
    }

    for (int i = 0; i < 8; i++) {
        vst1q_f64(sums->noise + 2 * i, l.noise[i]);
        vst1q_f64(sums->signal + 2 * i, l.signal[i]);
    }
    for (int i = 0; i < 4; i++)
        vst1q_f32(sums->max_abs + 4 * i, l.max_abs[i]);
    sums->n += n_elements;
}

/* All ones in the lanes whose exponent field is full. */
static inline uint32x4_t nonfinite(const uint8_t *x)
{
    const uint32x4_t full = vdupq_n_u32(0x7f800000);
    return vceqq_u32(vandq_u32(vreinterpretq_u32_u8(vld1q_u8(x)), full), full);
}

size_t find_nonfinite__neon(const float *x, size_t n_elements)
{
    const uint8_t *at = (const uint8_t *)x;
    size_t i = 0;
    for (; n_elements - i >= 16; i += 16, at += 64) {
        uint32x4_t any =
            vorrq_u32(vorrq_u32(nonfinite(at), nonfinite(at + 16)), vorrq_u32(nonfinite(at + 32), nonfinite(at + 48)));
        if (vmaxvq_u32(any))
            break;
    }
    return i + find_nonfinite__scalar((const float *)(const void *)at, n_elements - i);
}
