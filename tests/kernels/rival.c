#include "tests/kernels/rival.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const peer_names[QD_N_TYPES] = {
    [QD_TYPE_Q4_0] = "q4_0",       [QD_TYPE_Q4_1] = "q4_1",     [QD_TYPE_Q5_0] = "q5_0",
    [QD_TYPE_Q5_1] = "q5_1",       [QD_TYPE_Q8_0] = "q8_0",     [QD_TYPE_Q2_K] = "q2_K",
    [QD_TYPE_Q3_K] = "q3_K",       [QD_TYPE_Q4_K] = "q4_K",     [QD_TYPE_Q5_K] = "q5_K",
    [QD_TYPE_Q6_K] = "q6_K",       [QD_TYPE_IQ4_NL] = "iq4_nl", [QD_TYPE_IQ4_XS] = "iq4_xs",
    [QD_TYPE_TQ1_0] = "tq1_0",     [QD_TYPE_TQ2_0] = "tq2_0",   [QD_TYPE_MXFP4] = "mxfp4",
    [QD_TYPE_NVFP4] = "nvfp4",     [QD_TYPE_Q1_0] = "q1_0",     [QD_TYPE_Q2_0] = "q2_0",
    [QD_TYPE_IQ2_XS] = "iq2_xs",   [QD_TYPE_IQ2_S] = "iq2_s",   [QD_TYPE_IQ2_XXS] = "iq2_xxs",
    [QD_TYPE_IQ3_XXS] = "iq3_xxs", [QD_TYPE_IQ3_S] = "iq3_s",   [QD_TYPE_IQ1_S] = "iq1_s",
    [QD_TYPE_IQ1_M] = "iq1_m",
};
static const char *const plain_names[QD_N_TYPES][2] = {
    [QD_TYPE_F16] = {"ggml_fp32_to_fp16_row", "ggml_fp16_to_fp32_row"},
    [QD_TYPE_BF16] = {"ggml_fp32_to_bf16_row", "ggml_bf16_to_fp32_row"},
};

void *rival_library(const char *folder)
{
    const char *named = getenv("QUANTD_PEERS");
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/libggml-base.so", named ? named : folder ? folder : "build/peers");
    return dlopen(path, RTLD_NOW | RTLD_LOCAL); /* a cut path does not open */
}

static void *symbol(void *library, const char *before, const char *name)
{
    char text[64];
    (void)snprintf(text, sizeof text, "%s%s", before, name); /* fits by far */
    return dlsym(library, text);
}

struct rival rival_of(void *library, const struct kernel_entry *e)
{
    struct rival r = {0};
    if (e->type >= QD_N_TYPES)
        return r;
    bool decodes = e->kind == KERNEL_dequantize;
    if (plain_names[e->type][0])
        r.rows = (__typeof__(r.rows))dlsym(library, plain_names[e->type][decodes]);
    else if (peer_names[e->type] && decodes)
        r.rows = (__typeof__(r.rows))symbol(library, "dequantize_row_", peer_names[e->type]);
    else if (peer_names[e->type])
        r.quantize = (__typeof__(r.quantize))symbol(library, "quantize_", peer_names[e->type]);
    return r;
}

void rival_run(const struct rival *r, const struct kernel_entry *e, const void *src, void *dst, size_t n_elements,
               const float *importance)
{
    if (r->rows)
        r->rows(src, dst, (int64_t)n_elements);
    else
        (void)r->quantize(src, dst, 1, (int64_t)n_elements,
                          e->kind == KERNEL_quantize_weighted ? importance : NULL); /* the bytes written are known */
}

void entry_run(const struct kernel_entry *e, const void *src, void *dst, size_t n_elements, const float *importance)
{
    if (e->kind == KERNEL_dequantize) {
        ((dequantize_fn *)e->fn)(dst, src, n_elements);
    } else if (e->kind == KERNEL_quantize_weighted) {
        float square = 0; /* of the whole row, for those that ask for it */
        if (quantize_weighted_by_row(e->type))
            square = ops_for(0)->sum_squares(0, src, n_elements) / (float)n_elements;
        ((quantize_weighted_fn *)e->fn)(dst, src, n_elements, importance, square);
    } else {
        ((quantize_fn *)e->fn)(dst, src, n_elements);
    }
}
