/*
 * What this CPU can do: CPUID + XGETBV (x86-64) or HWCAP (aarch64). The environment variable
 * QUANTD_CPU may only remove features: a list such as "avx2,fma" or "scalar" names the ones to
 * keep, "-avx512vnni,-amxint8" the ones to drop. Keeping a feature keeps those it builds on
 * (avx512 keeps avx2); dropping one drops those built on it. Read once; thread-safe. On a CPU
 * with AMX the first call makes an arch_prctl system call: call once before a system call filter.
 */
#ifndef QUANTD_CPU_H
#define QUANTD_CPU_H

#include <stddef.h>
#include <stdint.h>

#define CPU_FEATURES(F)                                \
    F(AVX2, avx2)                                      \
    F(FMA, fma)                                        \
    F(F16C, f16c)                                      \
    F(AVX512, avx512) /* F, BW, DQ, VL, CD together */ \
    F(AVX512VNNI, avx512vnni)                          \
    F(AVXVNNI, avxvnni)                                \
    F(AVX512BF16, avx512bf16)                          \
    F(AVX512VBMI, avx512vbmi)                          \
    F(AMX_INT8, amxint8)                               \
    F(NEON, neon)                                      \
    F(FP16, fp16)                                      \
    F(DOTPROD, dotprod)                                \
    F(I8MM, i8mm)                                      \
    F(SVE, sve)                                        \
    F(BF16, bf16)

enum cpu_feature_bit {
#define F(NAME, name) CPU_BIT_##NAME,
    CPU_FEATURES(F)
#undef F
        CPU_N_FEATURES
};
enum cpu_feature {
#define F(NAME, name) CPU_##NAME = 1 << CPU_BIT_##NAME,
    CPU_FEATURES(F)
#undef F
};

/* Feature bits in use: detected, less what QUANTD_CPU removes. */
uint64_t cpu_features(void);

/* Feature bits of the hardware alone, QUANTD_CPU ignored. */
uint64_t cpu_features_detected(void);

/*
 * Words of QUANTD_CPU that name no feature, joined by commas, for programs to warn of; "" where there are none. Static
 * storage.
 */
const char *cpu_unknown_names(void);

/*
 * What a QUANTD_CPU value @filter leaves of @features; pure. Unknown words are left out of account
 * and written to @unknown, comma-joined, cut at @n bytes with NUL.
 */
uint64_t cpu_filter(uint64_t features, const char *filter, char *unknown, size_t n_bytes);

/*
 * The canonical string of a feature set: architecture, then names in sorted order, such as
 * "x86_64+avx2+avx512+avx512vnni". Writes at most @n bytes with NUL. Returns its length.
 */
size_t cpu_features_string(uint64_t features, char *dst, size_t n_bytes);

/* Feature bits of such a string; -1 (unknown name, other architecture) or 0. */
int cpu_features_parse(const char *text, uint64_t *ret_features);

/* Short vendor name and model for people ("AMD EPYC"), "" where unknown. Static storage. */
const char *cpu_name(void);

#endif
