/*
 * Our kernels against the field's own library, in one process: libggml-base.so from the folder
 * that QUANTD_PEERS names or that is the first argument. Every variant this CPU can run must give
 * the bytes that ggml's reference encoders and decoders give. Prints TAP; without the library it
 * says so and exits 77 (left out).
 */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu.h"
#include "kernels/kernels.h"
#include "tests/kernels/data.h"
#include "tests/kernels/rival.h"

enum { LEFT_OUT = 77, ROW = 4096, BLOCKS_AN_OPERATION = 61000, REAL = DATA_N_KINDS /* one kind more: the model's */ };

static float row[ROW], importance[ROW];
static uint8_t blocks[ROW * 2], want[ROW * 4], got[ROW * 4];
static const uint16_t *model; /* bf16 weights of the shipped model, or NULL */
static size_t n_model;

/* What is behind the last 2 MiB of the shipped model: bf16 matrices. */
static void read_model(const char *path)
{
    static uint16_t weights[1 << 20];
    FILE *f = path ? fopen(path, "rb") : NULL;
    if (f && fseek(f, -(long)sizeof weights, SEEK_END) == 0)
        n_model = fread(weights, 2, sizeof weights / 2, f);
    if (f)
        (void)fclose(f); /* was only read */
    model = n_model ? weights : NULL;
}

static void fill_row(int kind, uint64_t seed)
{
    if (kind != REAL) {
        data_fill((enum data_kind)kind, row, ROW, seed);
        return;
    }
    for (size_t i = 0; i < ROW; i++) {
        uint32_t bits = (uint32_t)model[(seed * ROW + i) % n_model] << 16;
        if ((bits & 0x7f800000) == 0x7f800000) /* not a weight: the end of some table */
            bits = 0;
        memcpy(&row[i], &bits, 4);
    }
}

/* A 16-bit NaN or Inf as scale: what a product with it gives is the CPU's choice of NaN; left to check.c. */
static uint64_t count_differences(const struct kernel_entry *e, const char *data, size_t bytes, size_t n)
{
    uint64_t differ = 0;
    for (size_t i = 0; i < n; i++)
        if (memcmp(want + i * bytes, got + i * bytes, bytes) != 0 && differ++ == 0)
            printf("# %s %s: block %zu of a row of %s differs\n", e->op, e->variant, i, data);
    return differ;
}

static uint64_t race_row(const struct kernel_entry *e, const struct rival *rival, int kind, uint64_t seed)
{
    const struct qd_type_info *type = qd_type_info(e->type);
    const char *data = kind == REAL ? "the shipped model" : data_name((enum data_kind)kind);
    size_t n_blocks = ROW / type->block_elements, block_bytes = type->block_bytes;
    memset(want, 0x11, sizeof want);
    memset(got, 0x22, sizeof got);
    const float *weights = e->kind == KERNEL_quantize_weighted ? importance : NULL;
    const void *src = row;
    if (e->kind == KERNEL_dequantize) {
        data_fill_blocks(blocks, n_blocks, e->type, 1, seed * 1000 + (uint64_t)kind);
        src = blocks;
        block_bytes = type->block_elements * sizeof(float);
    } else {
        fill_row(kind, seed);
        data_fill_importance(importance, ROW, seed);
    }
    rival_run(rival, e, src, want, ROW, weights);
    entry_run(e, src, got, ROW, weights);
    return count_differences(e, data, block_bytes, n_blocks);
}

static bool compare(const struct kernel_entry *e, const struct rival *rival, int number)
{
    uint64_t n = 0, differ = 0, a_row = ROW / qd_type_info(e->type)->block_elements;
    int n_kinds = DATA_N_KINDS + (model ? 1 : 0);
    for (uint64_t seed = 1; n < BLOCKS_AN_OPERATION && differ == 0; seed++)
        for (int kind = 0; kind < n_kinds; kind++, n += a_row)
            differ += race_row(e, rival, kind, seed);
    printf("%sok %d - %s %s: %llu of %llu blocks of %d kinds differ from ggml\n", differ ? "not " : "", number, e->op,
           e->variant, (unsigned long long)differ, (unsigned long long)n, n_kinds);
    return differ == 0;
}

/* usage: peer [FOLDER [MODEL [WORD]]]: only operations whose name holds WORD */
int main(int argc, char **argv)
{
    void *lib = rival_library(argc > 1 ? argv[1] : NULL);
    if (!lib) {
        printf("1..0 # SKIP no libggml-base.so (QUANTD_PEERS)\n# %s\n", dlerror());
        return LEFT_OUT;
    }
    size_t n;
    int n_tests = 0, n_failed = 0;
    const struct kernel_entry *list = kernels_list(&n);
    read_model(argc > 2 ? argv[2] : NULL);
    if (!model)
        printf("# left out: weights of the shipped model\n");
    for (size_t i = 0; i < n; i++) {
        const struct rival rival = rival_of(lib, &list[i]);
        if (argc > 3 && !strstr(list[i].op, argv[3]))
            continue;
        if (!rival.quantize && !rival.rows)
            printf("# the peer has no counterpart: %s %s\n", list[i].op, list[i].variant);
        else if ((cpu_features_detected() & list[i].needs) != list[i].needs)
            printf("# left out: not on this CPU: %s %s\n", list[i].op, list[i].variant);
        else
            n_failed += !compare(&list[i], &rival, ++n_tests);
    }
    printf("1..%d\n", n_tests);
    return n_failed != 0;
}
