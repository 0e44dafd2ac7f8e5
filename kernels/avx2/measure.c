#include "kernels/variants.h"

#include <immintrin.h>
#include <string.h>

#include "kernels/avx2/lanes.h"

/* The 16 lanes of struct error_sums in registers. */
struct lanes {
    __m256d noise[4], signal[4];
    __m256 max_abs[2];
};

/* Adds 4 pairs in double. */
static inline void add_four(__m256d *noise, __m256d *signal, __m128 x, __m128 y)
{
    __m256d a = _mm256_cvtps_pd(x), difference = _mm256_sub_pd(a, _mm256_cvtps_pd(y));
    *noise = _mm256_add_pd(*noise, _mm256_mul_pd(difference, difference));
    *signal = _mm256_add_pd(*signal, _mm256_mul_pd(a, a));
}

static inline void add_sixteen(struct lanes *l, const char *a, const char *b)
{
    for (int i = 0; i < 2; i++) {
        __m256 x = load_8(a, 8 * (size_t)i), y = load_8(b, 8 * (size_t)i);
        add_four(&l->noise[2 * i], &l->signal[2 * i], _mm256_castps256_ps128(x), _mm256_castps256_ps128(y));
        add_four(&l->noise[2 * i + 1], &l->signal[2 * i + 1], _mm256_extractf128_ps(x, 1), _mm256_extractf128_ps(y, 1));
        /* a > b ? a : b: a NaN distance leaves the maximum */
        l->max_abs[i] = _mm256_max_ps(magnitude_of(_mm256_sub_ps(x, y)), l->max_abs[i]);
    }
}

void measure__avx2(struct error_sums *sums, const float *x, const float *y, size_t n_elements)
{
    const char *a = (const char *)x, *b = (const char *)y;
    struct lanes l;
    for (int i = 0; i < 4; i++) {
        l.noise[i] = _mm256_loadu_pd(sums->noise + 4 * i);
        l.signal[i] = _mm256_loadu_pd(sums->signal + 4 * i);
    }
    for (int i = 0; i < 2; i++)
        l.max_abs[i] = _mm256_loadu_ps(sums->max_abs + 8 * i);

    size_t n = n_elements;
    for (; n >= 16; n -= 16, a += 64, b += 64)
        add_sixteen(&l, a, b);
    if (n) { /* lanes beyond the end add +0, which changes no sum */
        char last[2][64] = {{0}};
        memcpy(last[0], a, n * 4);
        memcpy(last[1], b, n * 4);
        add_sixteen(&l, last[0], last[1]);
    }

    for (int i = 0; i < 4; i++) {
        _mm256_storeu_pd(sums->noise + 4 * i, l.noise[i]);
        _mm256_storeu_pd(sums->signal + 4 * i, l.signal[i]);
    }
    for (int i = 0; i < 2; i++)
        _mm256_storeu_ps(sums->max_abs + 8 * i, l.max_abs[i]);
    sums->n += n_elements;
}

/* All ones in the lanes whose exponent field is full. */
static inline __m256i nonfinite(const char *x)
{
    const __m256i full = _mm256_set1_epi32(0x7f800000);
    __m256i bits = _mm256_loadu_si256((const __m256i *)(const void *)x);
    return _mm256_cmpeq_epi32(_mm256_and_si256(bits, full), full);
}

size_t find_nonfinite__avx2(const float *x, size_t n_elements)
{
    const char *at = (const char *)x;
    size_t i = 0;
    for (; n_elements - i >= 32; i += 32, at += 128) {
        __m256i any = _mm256_or_si256(_mm256_or_si256(nonfinite(at), nonfinite(at + 32)),
                                      _mm256_or_si256(nonfinite(at + 64), nonfinite(at + 96)));
        if (!_mm256_testz_si256(any, any))
            break;
    }
    return i + find_nonfinite__scalar((const float *)(const void *)at, n_elements - i);
}
