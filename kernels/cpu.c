#include "kernels/cpu.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu_detect.h"

enum { WORD_MAX = 32 };

static const char *const architectures[CPU_N_ARCHITECTURES] = {
#define A(NAME, name) [CPU_##NAME] = #name,
    CPU_ARCHITECTURES(A)
#undef A
};

static const char *const names[CPU_N_FEATURES] = {
#define F(NAME, name, architecture) [CPU_BIT_##NAME] = #name,
    CPU_FEATURES(F)
#undef F
};

static const enum cpu_architecture architecture_of[CPU_N_FEATURES] = {
#define F(NAME, name, architecture) [CPU_BIT_##NAME] = CPU_##architecture,
    CPU_FEATURES(F)
#undef F
};

/* What a feature builds on; the closure over this table is what "keep" and "drop" follow. */
static const uint64_t builds_on[CPU_N_FEATURES] = {
    [CPU_BIT_AVX2] = CPU_F16C,
    [CPU_BIT_FMA] = 0,
    [CPU_BIT_AVX512] = CPU_AVX2 | CPU_FMA,
    [CPU_BIT_AVX512VNNI] = CPU_AVX512,
    [CPU_BIT_AVXVNNI] = CPU_AVX2,
    [CPU_BIT_AVX512BF16] = CPU_AVX512,
    [CPU_BIT_AVX512VBMI] = CPU_AVX512,
    [CPU_BIT_AMX_INT8] = CPU_AVX512,
    [CPU_BIT_FP16] = CPU_NEON,
    [CPU_BIT_DOTPROD] = CPU_NEON,
    [CPU_BIT_I8MM] = CPU_NEON,
    [CPU_BIT_SVE] = CPU_NEON | CPU_FP16,
    [CPU_BIT_BF16] = CPU_NEON,
};

static struct {
    pthread_once_t once;
    uint64_t detected;
    uint64_t used;
    char unknown[256];
    char name[64];
} cpu = {.once = PTHREAD_ONCE_INIT};

static int feature_bit(const char *word)
{
    for (int i = 0; i < CPU_N_FEATURES; i++)
        if (strcmp(names[i], word) == 0)
            return i;
    return -1;
}

uint64_t cpu_with_foundations(uint64_t set)
{
    uint64_t before;
    do {
        before = set;
        for (int i = 0; i < CPU_N_FEATURES; i++)
            if (set >> i & 1)
                set |= builds_on[i];
    } while (set != before);
    return set;
}

/* @set and all that builds on its members. */
static uint64_t with_dependents(uint64_t set)
{
    uint64_t before;
    do {
        before = set;
        for (int i = 0; i < CPU_N_FEATURES; i++)
            if (builds_on[i] & set)
                set |= UINT64_C(1) << i;
    } while (set != before);
    return set;
}

static void append(char *dst, size_t n_bytes, const char *separator, const char *word)
{
    size_t used = strlen(dst);
    if (used < n_bytes)
        (void)snprintf(dst + used, n_bytes - used, "%s%s", used ? separator : "", word); /* cut by contract */
}

/* The next word of @text, split at any of @separators, cut to WORD_MAX; NULL at the end. */
static const char *next_word(const char *text, const char *separators, char word[WORD_MAX])
{
    text += strspn(text, separators);
    if (!*text)
        return NULL;
    size_t n = strcspn(text, separators);
    size_t kept = n < WORD_MAX ? n : WORD_MAX - 1;
    memcpy(word, text, kept);
    word[kept] = '\0';
    return text + n;
}

uint64_t cpu_filter(uint64_t features, const char *filter, char *unknown, size_t n_bytes)
{
    uint64_t keep = 0, drop = 0;
    bool any_kept = false;
    char word[WORD_MAX];
    if (n_bytes)
        unknown[0] = '\0';
    for (const char *at = filter; (at = next_word(at, ", \t", word));) {
        bool is_drop = word[0] == '-';
        int bit = feature_bit(word + is_drop);
        bool is_scalar = !is_drop && strcmp(word, "scalar") == 0;
        if (bit >= 0 && is_drop)
            drop |= UINT64_C(1) << bit;
        else if (bit >= 0)
            keep |= UINT64_C(1) << bit;
        else if (!is_scalar && n_bytes)
            append(unknown, n_bytes, ",", word);
        any_kept |= is_scalar || (bit >= 0 && !is_drop);
    }
    if (any_kept)
        features &= cpu_with_foundations(keep);
    return features & ~with_dependents(drop);
}

static void cpu_init(void)
{
    const char *filter = getenv("QUANTD_CPU");
    cpu.detected = cpu_detect();
    cpu.used = cpu_filter(cpu.detected, filter ? filter : "", cpu.unknown, sizeof cpu.unknown);
    cpu_detect_name(cpu.name, sizeof cpu.name);
}

static void cpu_ready(void)
{
    (void)pthread_once(&cpu.once, cpu_init); /* fails only for a bad argument */
}

uint64_t cpu_features(void)
{
    cpu_ready();
    return cpu.used;
}

uint64_t cpu_features_detected(void)
{
    cpu_ready();
    return cpu.detected;
}

uint64_t cpu_features_now(uint64_t *ret_detected)
{
    const char *filter = getenv("QUANTD_CPU");
    *ret_detected = cpu_detect();
    return cpu_filter(*ret_detected, filter ? filter : "", NULL, 0);
}

const char *cpu_unknown_names(void)
{
    cpu_ready();
    return cpu.unknown;
}

const char *cpu_name(void)
{
    cpu_ready();
    return cpu.name;
}

/* The bit of @set whose name comes first; -1 for the empty set. */
static int first_by_name(uint64_t set)
{
    int first = -1;
    for (int i = 0; i < CPU_N_FEATURES; i++)
        if (set >> i & 1 && (first < 0 || strcmp(names[i], names[first]) < 0))
            first = i;
    return first;
}

size_t cpu_features_string_of(enum cpu_architecture architecture, uint64_t features, char *dst, size_t n_bytes)
{
    char text[512];
    (void)snprintf(text, sizeof text, "%s", architectures[architecture]); /* all names together are shorter */
    for (int bit; (bit = first_by_name(features)) >= 0; features &= ~(UINT64_C(1) << bit))
        append(text, sizeof text, "+", names[bit]);
    if (n_bytes)
        (void)snprintf(dst, n_bytes, "%s", text); /* cut by contract */
    return strlen(text);
}

size_t cpu_features_string(uint64_t features, char *dst, size_t n_bytes)
{
    int bit = first_by_name(features);
    return cpu_features_string_of(bit < 0 ? cpu_architecture_here : architecture_of[bit], features, dst, n_bytes);
}

/* The architecture that @word names, or -1. */
static int architecture_named(const char *word)
{
    for (int i = 0; i < CPU_N_ARCHITECTURES; i++)
        if (strcmp(architectures[i], word) == 0)
            return i;
    return -1;
}

/* "unknown feature 'x' of x86_64", with the nearest that it has. */
static int refuse_feature(const char *word, enum cpu_architecture architecture, struct qd_error *err)
{
    const char *known[CPU_N_FEATURES + 1] = {NULL};
    char list[256] = "";
    size_t n = 0;
    for (int i = 0; i < CPU_N_FEATURES; i++) {
        if (architecture_of[i] != architecture)
            continue;
        known[n++] = names[i];
        append(list, sizeof list, ", ", names[i]);
    }
    const char *near = nearest_name(word, known);
    int r = err_new(err, QD_E_INVALID, "unknown feature '%s' of %s", word, architectures[architecture]);
    if (near)
        return err_hint(err, r, "did you mean '%s'? %s has: %s", near, architectures[architecture], list);
    return err_hint(err, r, "%s has: %s", architectures[architecture], list);
}

int cpu_features_read(const char *text, enum cpu_architecture *ret_architecture, uint64_t *ret_features,
                      struct qd_error *err)
{
    char word[WORD_MAX] = "";
    uint64_t features = 0;
    const char *at = text[0] == '+' ? NULL : next_word(text, "+", word);
    int named = architecture_named(word);
    if (named < 0) {
        int r = err_new(err, QD_E_INVALID, "unknown architecture '%s'", word);
        return err_hint(err, r, "a feature string begins with x86_64 or aarch64, such as x86_64+avx2+f16c+fma");
    }
    const enum cpu_architecture architecture = (enum cpu_architecture)named;
    while ((at = next_word(at, "+", word))) {
        int bit = feature_bit(word);
        if (bit < 0 || architecture_of[bit] != architecture)
            return refuse_feature(word, architecture, err);
        features |= UINT64_C(1) << bit;
    }
    *ret_architecture = architecture;
    *ret_features = features;
    return 0;
}

int cpu_features_parse(const char *text, uint64_t *ret_features)
{
    enum cpu_architecture architecture;
    uint64_t features;
    if (cpu_features_read(text, &architecture, &features, NULL) < 0 || architecture != cpu_architecture_here)
        return -1;
    *ret_features = features;
    return 0;
}
