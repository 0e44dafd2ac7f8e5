#include "kernels/variants.h"

#include <immintrin.h>

/* The 16 lanes of struct error_sums in registers. */
struct lanes {
    __m512d noise[2], signal[2];
    __m512 max_abs;
};

/* Adds 8 pairs in double. */
static inline void add_eight(__m512d *noise, __m512d *signal, __m256 x, __m256 y)
{
    __m512d a = _mm512_cvtps_pd(x), difference = _mm512_sub_pd(a, _mm512_cvtps_pd(y));
    *noise = _mm512_add_pd(*noise, _mm512_mul_pd(difference, difference));
    *signal = _mm512_add_pd(*signal, _mm512_mul_pd(a, a));
}

static inline void add_sixteen(struct lanes *l, __m512 x, __m512 y)
{
    add_eight(&l->noise[0], &l->signal[0], _mm512_castps512_ps256(x), _mm512_castps512_ps256(y));
    add_eight(&l->noise[1], &l->signal[1], _mm512_extractf32x8_ps(x, 1), _mm512_extractf32x8_ps(y, 1));
    /* a > b ? a : b: a NaN distance leaves the maximum */
    l->max_abs = _mm512_max_ps(_mm512_abs_ps(_mm512_sub_ps(x, y)), l->max_abs);
}

void measure__avx512(struct error_sums *sums, const float *x, const float *y, size_t n_elements)
{
    const char *a = (const char *)x, *b = (const char *)y;
    struct lanes l;
    for (int i = 0; i < 2; i++) {
        l.noise[i] = _mm512_loadu_pd(sums->noise + 8 * i);
        l.signal[i] = _mm512_loadu_pd(sums->signal + 8 * i);
    }
    l.max_abs = _mm512_loadu_ps(sums->max_abs);

    size_t n = n_elements;
    for (; n >= 16; n -= 16, a += 64, b += 64)
        add_sixteen(&l, _mm512_loadu_ps(a), _mm512_loadu_ps(b));
    __mmask16 rest = (__mmask16)((1u << n) - 1); /* the other lanes add +0, which changes no sum */
    if (rest)
        add_sixteen(&l, _mm512_maskz_loadu_ps(rest, a), _mm512_maskz_loadu_ps(rest, b));

    for (int i = 0; i < 2; i++) {
        _mm512_storeu_pd(sums->noise + 8 * i, l.noise[i]);
        _mm512_storeu_pd(sums->signal + 8 * i, l.signal[i]);
    }
    _mm512_storeu_ps(sums->max_abs, l.max_abs);
    sums->n += n_elements;
}

static inline uint32_t nonfinite(const char *x)
{
    enum { QUIET_NAN = 0x01, PLUS_INF = 0x08, MINUS_INF = 0x10, SIGNALLING_NAN = 0x80 };
    return _mm512_fpclass_ps_mask(_mm512_loadu_ps(x), QUIET_NAN | PLUS_INF | MINUS_INF | SIGNALLING_NAN);
}

size_t find_nonfinite__avx512(const float *x, size_t n_elements)
{
    const char *at = (const char *)x;
    size_t i = 0;
    for (; n_elements - i >= 64; i += 64, at += 256)
        if (nonfinite(at) | nonfinite(at + 64) | nonfinite(at + 128) | nonfinite(at + 192))
            break;
    /* at most 64 elements decide, unless the loop ran out: then fewer are left */
    return i + find_nonfinite__scalar((const float *)(const void *)at, n_elements - i);
}
