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

static bool can_run(const struct kernel_entry *e)
{
    return (cpu_features_detected() & e->needs) == e->needs;
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

/* All variants of one operation that this CPU can run. */
struct contest {
    const struct kernel_entry *entries; /* of the same op */
    size_t n;
    struct rival rival;
    uint64_t differ[16]; /* by variant */
};

/* The rival once, then every variant on the same row. */
static void race_row(struct contest *c, int kind, uint64_t seed)
{
    const struct kernel_entry *e = c->entries;
    const struct qd_type_info *type = qd_type_info(e->type);
    const char *data = kind == REAL ? "the shipped model" : data_name((enum data_kind)kind);
    size_t n_blocks = ROW / type->block_elements, block_bytes = type->block_bytes;
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
    memset(want, 0x11, sizeof want);
    rival_run(&c->rival, e, src, want, ROW, weights);
    for (size_t i = 0; i < c->n; i++) {
        if (!can_run(&e[i]))
            continue;
        memset(got, 0x22, sizeof got);
        entry_run(&e[i], src, got, ROW, weights);
        c->differ[i] += count_differences(&e[i], data, block_bytes, n_blocks);
    }
}

static int compare(struct contest *c, uint64_t n_wanted, int *n_tests)
{
    uint64_t n = 0, a_row = ROW / qd_type_info(c->entries->type)->block_elements;
    int n_kinds = DATA_N_KINDS + (model ? 1 : 0), n_failed = 0;
    for (uint64_t seed = 1; n < n_wanted; seed++)
        for (int kind = 0; kind < n_kinds; kind++, n += a_row)
            race_row(c, kind, seed);
    for (size_t i = 0; i < c->n; i++) {
        const struct kernel_entry *e = &c->entries[i];
        if (!can_run(e)) {
            printf("# left out: not on this CPU: %s %s\n", e->op, e->variant);
            continue;
        }
        printf("%sok %d - %s %s: %llu of %llu blocks of %d kinds differ from ggml\n", c->differ[i] ? "not " : "",
               ++*n_tests, e->op, e->variant, (unsigned long long)c->differ[i], (unsigned long long)n, n_kinds);
        n_failed += c->differ[i] != 0;
    }
    return n_failed;
}

static size_t n_of_same_op(const struct kernel_entry *list, size_t n)
{
    size_t same = 1;
    while (same < n && strcmp(list[same].op, list->op) == 0)
        same++;
    return same;
}

/* A kind of operation by its name, or any that the word is part of. */
static bool is_asked(const struct kernel_entry *e, const char *word)
{
    static const char *const kinds[] = {
#define K(name) #name,
        KERNEL_KINDS(K)
#undef K
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(kinds[i], word) == 0)
            return e->kind == (enum kernel_kind)i;
    return strstr(e->op, word) != NULL;
}

/* usage: peer FOLDER MODEL [WORD [BLOCKS]]: only operations of the kind or name WORD; BLOCKS of each */
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
    const char *word = argc > 3 ? argv[3] : "";
    uint64_t n_blocks = argc > 4 ? strtoull(argv[4], NULL, 10) : BLOCKS_AN_OPERATION;
    read_model(argc > 2 ? argv[2] : NULL);
    if (!model)
        printf("# left out: weights of the shipped model\n");
    for (size_t i = 0, same; i < n; i += same) {
        same = n_of_same_op(&list[i], n - i);
        struct contest c = {.entries = &list[i], .n = same, .rival = rival_of(lib, &list[i])};
        if (!is_asked(&list[i], word))
            continue;
        if (c.rival.quantize || c.rival.rows)
            n_failed += compare(&c, n_blocks, &n_tests);
        else
            printf("# the peer has no counterpart: %s\n", list[i].op);
    }
    printf("1..%d\n", n_tests);
    return n_failed != 0;
}
