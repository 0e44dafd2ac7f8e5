#include "tests/bench/ceilings.h"

#include "kernels/cpu.h"

enum { STREAMS = 8 };

#ifdef __x86_64__
#include <immintrin.h>

enum { CHAINS = 16 /* of multiply-adds: more than latency times instructions a cycle */ };

/* In assembly: compilers fold sums that come to the same, or keep them in memory. Any values will do. */
__attribute__((target("avx512f,avx512vnni"))) static double multiply_vpdpbusd(size_t n_rounds)
{
    size_t left = n_rounds;
    __asm__ volatile("1:\n"
                     ".irp sum, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31\n"
                     "vpdpbusd %%zmm1, %%zmm0, %%zmm\\sum\n"
                     ".endr\n"
                     "dec %0\n"
                     "jnz 1b\n"
                     : "+r"(left)
                     :
                     : "cc", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25",
                       "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31");
    return (double)n_rounds * CHAINS * 64 * 2;
}

__attribute__((target("avx512f"))) static uint64_t read_avx512(const void *p, size_t n_bytes)
{
    const __m512i *v = p;
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    for (size_t i = 0; i < n_bytes / 64; i += 8) {
        a = _mm512_xor_si512(_mm512_xor_si512(a, v[i]), v[i + 4]);
        b = _mm512_xor_si512(_mm512_xor_si512(b, v[i + 1]), v[i + 5]);
        c = _mm512_xor_si512(_mm512_xor_si512(c, v[i + 2]), v[i + 6]);
        d = _mm512_xor_si512(_mm512_xor_si512(d, v[i + 3]), v[i + 7]);
    }
    return (uint64_t)_mm512_reduce_add_epi64(_mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d)));
}

__attribute__((target("avx512f"))) static uint64_t read_streams_avx512(const void *p, size_t n_bytes)
{
    const __m512i *v = p;
    const size_t n = n_bytes / 64 / STREAMS;
    __m512i a = _mm512_setzero_si512(), b = a;
    for (size_t i = 0; i < n; i += 2)
        for (size_t k = 0; k < STREAMS; k++) {
            a = _mm512_xor_si512(a, v[k * n + i]);
            b = _mm512_xor_si512(b, v[k * n + i + 1]);
        }
    return (uint64_t)_mm512_reduce_add_epi64(_mm512_xor_si512(a, b));
}

__attribute__((target("avx2"))) static uint64_t read_avx2(const void *p, size_t n_bytes)
{
    const __m256i *v = p;
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (size_t i = 0; i < n_bytes / 32; i += 8) {
        a = _mm256_xor_si256(_mm256_xor_si256(a, v[i]), v[i + 4]);
        b = _mm256_xor_si256(_mm256_xor_si256(b, v[i + 1]), v[i + 5]);
        c = _mm256_xor_si256(_mm256_xor_si256(c, v[i + 2]), v[i + 6]);
        d = _mm256_xor_si256(_mm256_xor_si256(d, v[i + 3]), v[i + 7]);
    }
    a = _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
    return (uint64_t)(_mm256_extract_epi64(a, 0) ^ _mm256_extract_epi64(a, 1) ^ _mm256_extract_epi64(a, 2) ^
                      _mm256_extract_epi64(a, 3));
}
#endif

static uint64_t read_streams_words(const void *p, size_t n_bytes)
{
    const uint64_t *v = p;
    const size_t n = n_bytes / 8 / STREAMS;
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i += 8)
        for (size_t k = 0; k < STREAMS; k++)
            for (size_t j = 0; j < 8; j++)
                sum ^= v[k * n + i + j];
    return sum;
}

static uint64_t read_words(const void *p, size_t n_bytes)
{
    const uint64_t *v = p;
    uint64_t sums[8] = {0};
    for (size_t i = 0; i < n_bytes / 8; i += 8)
        for (size_t k = 0; k < 8; k++)
            sums[k] ^= v[i + k];
    return sums[0] ^ sums[1] ^ sums[2] ^ sums[3] ^ sums[4] ^ sums[5] ^ sums[6] ^ sums[7];
}

struct ceilings ceilings_for(uint64_t features)
{
    struct ceilings c = {.read = read_words, .read_streams = read_streams_words};
#ifdef __x86_64__
    if (features & CPU_AVX2)
        c.read = read_avx2;
    if (features & CPU_AVX512) {
        c.read = read_avx512;
        c.read_streams = read_streams_avx512;
    }
    if (features & CPU_AVX512VNNI) {
        c.multiply_name = "vpdpbusd";
        c.multiply = multiply_vpdpbusd;
    }
#else
    (void)features;
#endif
    return c;
}
