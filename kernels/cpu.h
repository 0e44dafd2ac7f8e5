/*
 * What a CPU can do, this one and others. This one: CPUID + XGETBV (x86-64) or HWCAP (aarch64). The environment
 * variable QUANTD_CPU may only remove features: a list such as "avx2,fma" or "scalar" names the ones to keep,
 * "-avx512vnni,-amxint8" the ones to drop. Keeping a feature keeps those it builds on (avx512 keeps avx2); dropping one
 * drops those built on it. Read once; thread-safe. On a CPU with AMX the first call makes an arch_prctl system call:
 * call once before a system call filter.
 */
#ifndef QUANTD_CPU_H
#define QUANTD_CPU_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/core/error.h"

/* A(NAME, name) */
#define CPU_ARCHITECTURES(A) \
    A(X86_64, x86_64)        \
    A(AARCH64, aarch64)

enum cpu_architecture {
#define A(NAME, name) CPU_##NAME,
    CPU_ARCHITECTURES(A)
#undef A
        CPU_N_ARCHITECTURES
};

extern const enum cpu_architecture cpu_architecture_here; /* of this build */

/* F(NAME, name, architecture) */
#define CPU_FEATURES(F)                                        \
    F(AVX2, avx2, X86_64)                                      \
    F(FMA, fma, X86_64)                                        \
    F(F16C, f16c, X86_64)                                      \
    F(AVX512, avx512, X86_64) /* F, BW, DQ, VL, CD together */ \
    F(AVX512VNNI, avx512vnni, X86_64)                          \
    F(AVXVNNI, avxvnni, X86_64)                                \
    F(AVX512BF16, avx512bf16, X86_64)                          \
    F(AVX512VBMI, avx512vbmi, X86_64)                          \
    F(AMX_INT8, amxint8, X86_64)                               \
    F(NEON, neon, AARCH64)                                     \
    F(FP16, fp16, AARCH64)                                     \
    F(DOTPROD, dotprod, AARCH64)                               \
    F(I8MM, i8mm, AARCH64)                                     \
    F(SVE, sve, AARCH64)                                       \
    F(BF16, bf16, AARCH64)

enum cpu_feature_bit {
#define F(NAME, name, architecture) CPU_BIT_##NAME,
    CPU_FEATURES(F)
#undef F
        CPU_N_FEATURES
};
enum cpu_feature {
#define F(NAME, name, architecture) CPU_##NAME = 1 << CPU_BIT_##NAME,
    CPU_FEATURES(F)
#undef F
};

/* Feature bits in use: detected, less what QUANTD_CPU removes. */
uint64_t cpu_features(void);

/* Feature bits of the hardware alone, QUANTD_CPU ignored. */
uint64_t cpu_features_detected(void);

/*
 * The same two as they are now: another CPU may be below us after a resume, or in a virtual machine that moved. Nothing
 * is kept: cpu_features(), and so the kernels in use, stay what they were at the first call. Any thread.
 */
uint64_t cpu_features_now(uint64_t *ret_detected);

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
 * "x86_64+avx2+avx512+avx512vnni". Writes at most @n bytes with NUL. Returns its length. Without _of the architecture
 * is the one that has such features, this build's for the empty set.
 */
size_t cpu_features_string(uint64_t features, char *dst, size_t n_bytes);
size_t cpu_features_string_of(enum cpu_architecture architecture, uint64_t features, char *dst, size_t n_bytes);

/*
 * Reads such a string, of any architecture. QD_E_INVALID with the nearest name as hint: unknown architecture, unknown
 * feature, or one of another architecture.
 */
int cpu_features_read(const char *text, enum cpu_architecture *ret_architecture, uint64_t *ret_features,
                      struct qd_error *err);

/* Feature bits of a string of this build's architecture; -1 (unknown name, other architecture) or 0. */
int cpu_features_parse(const char *text, uint64_t *ret_features);

/* @features and all that they build on: avx512 has avx2, fma and f16c. */
uint64_t cpu_with_foundations(uint64_t features);

/* Short vendor name and model for people ("AMD EPYC"), "" where unknown. Static storage. */
const char *cpu_name(void);

#endif
