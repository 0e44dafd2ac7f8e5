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

enum { LEFT_OUT = 77, BLOCK = 32, BLOCKS_A_ROW = 128, ROW = BLOCK * BLOCKS_A_ROW, SEEDS = 24 };
_Static_assert((int)BLOCKS_A_ROW *SEEDS *DATA_N_KINDS >= 60000, "at least 60,000 blocks an operation");

/* Their names for our operations; all take (source, destination, elements). */
typedef void peer_fn(const void *src, void *dst, int64_t n);
static const struct {
    const char *op, *symbol;
} counterparts[] = {
    {"quantize_q8_0", "quantize_row_q8_0_ref"},  {"quantize_q4_0", "quantize_row_q4_0_ref"},
    {"quantize_f16", "ggml_fp32_to_fp16_row"},   {"quantize_bf16", "ggml_fp32_to_bf16_row"},
    {"dequantize_q8_0", "dequantize_row_q8_0"},  {"dequantize_q4_0", "dequantize_row_q4_0"},
    {"dequantize_f16", "ggml_fp16_to_fp32_row"}, {"dequantize_bf16", "ggml_bf16_to_fp32_row"},
};

static float row[ROW];
static uint8_t blocks[ROW * 2], want[ROW * 4], got[ROW * 4];

static void *library(int argc, char **argv)
{
    const char *folder = getenv("QUANTD_PEERS");
    char path[4096];
    if (!folder)
        folder = argc > 1 ? argv[1] : "";
    (void)snprintf(path, sizeof path, "%s/libggml-base.so", folder); /* a cut path does not open */
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        printf("1..0 # SKIP no libggml-base.so in '%s' (QUANTD_PEERS)\n# %s\n", folder, dlerror());
    return lib;
}

/* A 16-bit NaN or Inf as scale: what a product with it gives is the CPU's choice of NaN; left to check.c. */
static uint64_t count_differences(const struct qd_type_info *type, size_t bytes_per_block, size_t n_blocks)
{
    uint64_t n = 0;
    for (size_t i = 0; i < n_blocks; i++)
        if (memcmp(want + i * bytes_per_block, got + i * bytes_per_block, bytes_per_block) != 0 && n++ == 0)
            printf("# %s: block %zu of the row differs\n", type->name, i);
    return n;
}

static uint64_t race_row(const struct kernel_entry *e, peer_fn *peer, int kind, uint64_t seed)
{
    bool decodes = e->op[0] == 'd';
    const struct qd_type_info *type = qd_type_info((enum qd_type)qd_type_by_name(strchr(e->op, '_') + 1));
    size_t per_32 = BLOCK / type->block_elements * type->block_bytes;
    memset(want, 0x11, sizeof want);
    memset(got, 0x22, sizeof got);
    if (decodes) {
        data_fill_blocks(blocks, ROW / type->block_elements, type->block_bytes, 1, seed * 1000 + (uint64_t)kind);
        peer(blocks, want, ROW);
        ((dequantize_fn *)e->fn)((float *)(void *)got, blocks, ROW);
        return count_differences(type, BLOCK * 4, BLOCKS_A_ROW);
    }
    data_fill((enum data_kind)kind, row, ROW, seed);
    peer(row, want, ROW);
    ((quantize_fn *)e->fn)(got, row, ROW);
    return count_differences(type, per_32, BLOCKS_A_ROW);
}

static bool compare(const struct kernel_entry *e, peer_fn *peer, int number)
{
    uint64_t n = 0, differ = 0;
    for (int kind = 0; kind < DATA_N_KINDS; kind++) {
        uint64_t before = differ;
        for (uint64_t seed = 1; seed <= SEEDS; seed++, n += BLOCKS_A_ROW)
            differ += race_row(e, peer, kind, seed);
        if (differ != before)
            printf("# %s %s: %llu blocks differ for %s\n", e->op, e->variant, (unsigned long long)(differ - before),
                   data_name((enum data_kind)kind));
    }
    printf("%sok %d - %s %s: %llu of %llu blocks differ from ggml\n", differ ? "not " : "", number, e->op, e->variant,
           (unsigned long long)differ, (unsigned long long)n);
    return differ == 0;
}

static peer_fn *counterpart(void *lib, const char *op)
{
    for (size_t i = 0; i < sizeof counterparts / sizeof counterparts[0]; i++)
        if (strcmp(counterparts[i].op, op) == 0)
            return (peer_fn *)dlsym(lib, counterparts[i].symbol);
    return NULL;
}

int main(int argc, char **argv)
{
    void *lib = library(argc, argv);
    if (!lib)
        return LEFT_OUT;
    size_t n;
    int n_tests = 0, n_failed = 0;
    const struct kernel_entry *list = kernels_list(&n);
    for (size_t i = 0; i < n; i++) {
        peer_fn *peer = counterpart(lib, list[i].op);
        if (!peer || (cpu_features_detected() & list[i].needs) != list[i].needs)
            printf("# %s: %s %s\n", peer ? "left out: not on this CPU" : "the peer has no counterpart", list[i].op,
                   list[i].variant);
        else
            n_failed += !compare(&list[i], peer, ++n_tests);
    }
    printf("1..%d\n", n_tests);
    return n_failed != 0;
}
