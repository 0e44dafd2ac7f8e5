/*
 * Races every kernel against ggml's own (libggml-base.so from QUANTD_PEERS or the first argument),
 * in one process and on one thread, calls interleaved, medians: once with rows that stay in the L2
 * cache, once streaming through memory. Without the library the race is against scalar, and the
 * heading says so.
 *
 * usage: bench_kernels [--json] [--quick] [folder of libggml-base.so]
 * --json prints one object per line: op, variant, place, melements_s, gb_s, bandwidth_share, peer, ratio.
 */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "kernels/cpu.h"
#include "kernels/kernels.h"
#include "tests/kernels/data.h"

enum { L2_ELEMENTS = 1 << 15, MEMORY_ELEMENTS = 1 << 24, MAX_RUNS = 15 };

typedef void peer_fn(const void *src, void *dst, int64_t n);
static const struct {
    const char *op, *symbol;
} counterparts[] = {
    {"quantize_q8_0", "quantize_row_q8_0_ref"},  {"quantize_q4_0", "quantize_row_q4_0_ref"},
    {"quantize_f16", "ggml_fp32_to_fp16_row"},   {"quantize_bf16", "ggml_fp32_to_bf16_row"},
    {"dequantize_q8_0", "dequantize_row_q8_0"},  {"dequantize_q4_0", "dequantize_row_q4_0"},
    {"dequantize_f16", "ggml_fp16_to_fp32_row"}, {"dequantize_bf16", "ggml_bf16_to_fp32_row"},
};

/* One contestant on one stretch of data. */
struct lap {
    const struct kernel_entry *entry; /* ours, or NULL */
    peer_fn *peer;                    /* theirs, or NULL */
    const void *src;
    void *dst; /* for measure the second source */
    size_t n;
};

static struct {
    bool json, quick;
    void *lib;
    float *row;                 /* MEMORY_ELEMENTS weights */
    uint8_t *encoded, *decoded; /* room for as many f32 each */
    double read_gb_s;
} bench;

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* this clock always is */
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *times, int n)
{
    qsort(times, (size_t)n, sizeof *times, by_value);
    return times[n / 2];
}

static const struct qd_type_info *type_of(const char *op)
{
    const char *end = strchr(op, '_');
    int type = end ? qd_type_by_name(end + 1) : -1;
    return type < 0 ? NULL : qd_type_info((enum qd_type)type);
}

static volatile size_t sink; /* keeps results that nobody reads */

static void run_ours(const struct lap *l)
{
    struct error_sums sums = {0};
    switch (l->entry->op[0]) {
    case 'q':
        ((quantize_fn *)l->entry->fn)(l->dst, l->src, l->n);
        break;
    case 'd':
        ((dequantize_fn *)l->entry->fn)(l->dst, l->src, l->n);
        break;
    case 'm':
        ((measure_fn *)l->entry->fn)(&sums, l->src, l->dst, l->n);
        sink = (size_t)sums.noise[0];
        break;
    default:
        sink = ((find_nonfinite_fn *)l->entry->fn)(l->src, l->n);
    }
}

/* Seconds of one call; a short one is repeated until it can be timed. */
static double lap_seconds(const struct lap *l)
{
    int repeat = l->n < MEMORY_ELEMENTS ? 32 : 1;
    double start = now();
    for (int i = 0; i < repeat; i++) {
        if (l->peer)
            l->peer(l->src, l->dst, (int64_t)l->n);
        else
            run_ours(l);
    }
    return (now() - start) / repeat;
}

/* Bytes that one call reads and writes. */
static double traffic(const struct kernel_entry *e, size_t n)
{
    const struct qd_type_info *t = type_of(e->op);
    if (t)
        return (double)n * 4 + (double)(n / t->block_elements * t->block_bytes);
    return e->op[0] == 'm' ? (double)n * 8 : (double)n * 4;
}

static peer_fn *counterpart(const char *op)
{
    for (size_t i = 0; bench.lib && i < sizeof counterparts / sizeof counterparts[0]; i++)
        if (strcmp(counterparts[i].op, op) == 0)
            return (peer_fn *)dlsym(bench.lib, counterparts[i].symbol);
    return NULL;
}

static void show(const struct lap *ours, bool in_l2, double seconds, const char *rival, double rival_seconds)
{
    double rate = (double)ours->n / seconds * 1e-6, gb_s = traffic(ours->entry, ours->n) / seconds * 1e-9;
    double share = in_l2 ? 0 : gb_s / bench.read_gb_s, ratio = rival_seconds / seconds;
    const char *place = in_l2 ? "l2" : "memory";
    if (bench.json)
        printf("{\"op\":\"%s\",\"variant\":\"%s\",\"place\":\"%s\",\"melements_s\":%.1f,\"gb_s\":%.2f,\"bandwidth_"
               "share\":%.3f,"
               "\"peer\":\"%s\",\"ratio\":%.2f}\n",
               ours->entry->op, ours->entry->variant, place, rate, gb_s, share, rival, ratio);
    else if (in_l2)
        printf("%-16s %-7s %-6s %10.0f %8.1f %6s   %s %6.2fx\n", ours->entry->op, ours->entry->variant, place, rate,
               gb_s, "-", rival, ratio);
    else
        printf("%-16s %-7s %-6s %10.0f %8.1f %5.0f%%   %s %6.2fx\n", ours->entry->op, ours->entry->variant, place, rate,
               gb_s, share * 100, rival, ratio);
}

/* Ours and theirs in turn, the same data. */
static void race(const struct kernel_entry *e, const struct kernel_entry *scalar, size_t n)
{
    double ours[MAX_RUNS], theirs[MAX_RUNS];
    int runs = bench.quick ? 3 : n == MEMORY_ELEMENTS ? 7 : MAX_RUNS;
    bool decodes = e->op[0] == 'd';
    peer_fn *peer = counterpart(e->op);
    struct lap a = {.entry = e, .src = decodes ? (void *)bench.encoded : bench.row, .dst = bench.decoded, .n = n};
    struct lap b = a;
    b.peer = peer;
    b.entry = scalar;
    (void)lap_seconds(&a); /* warms caches and pages */
    (void)lap_seconds(&b);
    for (int i = 0; i < runs; i++) {
        theirs[i] = lap_seconds(&b);
        ours[i] = lap_seconds(&a);
    }
    show(&a, n == L2_ELEMENTS, median(ours, runs), peer ? "ggml" : "scalar", median(theirs, runs));
}

/* What memory gives to one thread at best: bytes read per second by libc's search, the ceiling that shares refer to. */
static void measure_bandwidth(void)
{
    const size_t bytes = (size_t)MEMORY_ELEMENTS * 4;
    memset(bench.encoded, 0, bytes);
    for (int i = 0; i < 9; i++) {
        double start = now();
        sink = memchr(bench.encoded, 1, bytes) != NULL;
        double gb_s = (double)bytes / (now() - start) * 1e-9;
        if (gb_s > bench.read_gb_s)
            bench.read_gb_s = gb_s;
    }
}

static void fill(const struct kernel_entry *e)
{
    const struct qd_type_info *t = type_of(e->op);
    if (t && e->op[0] == 'd') /* decode what scalar made of the weights */
        ops_for(0)->quantize[qd_type_by_name(t->name)](bench.encoded, bench.row, MEMORY_ELEMENTS);
    memcpy(bench.decoded, bench.row, (size_t)MEMORY_ELEMENTS * 4);
}

static void *room(void)
{
    void *p = mmap(NULL, (size_t)MEMORY_ELEMENTS * 4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return p;
}

static void options(int argc, char **argv)
{
    const char *folder = getenv("QUANTD_PEERS");
    char path[4096];
    for (int i = 1; i < argc; i++) {
        bench.json |= strcmp(argv[i], "--json") == 0;
        bench.quick |= strcmp(argv[i], "--quick") == 0;
        if (!folder && argv[i][0] != '-')
            folder = argv[i];
    }
    (void)snprintf(path, sizeof path, "%s/libggml-base.so",
                   folder ? folder : "build/peers"); /* a cut path does not open */
    bench.lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

static void heading(void)
{
    char text[512];
    if (bench.json)
        return;
    (void)cpu_features_string(cpu_features_detected(), text, sizeof text); /* for people */
    printf("%s, %s\nmemory, one thread: read %.1f GB/s\n%s\n", cpu_name(), text, bench.read_gb_s,
           bench.lib ? "rival: ggml, the packaged libggml-base"
                     : "rival: our scalar (no libggml-base.so: set QUANTD_PEERS)");
    printf("%-16s %-7s %-6s %10s %8s %6s   %s\n", "operation", "variant", "place", "Melem/s", "GB/s", "of bw",
           "against");
}

int main(int argc, char **argv)
{
    size_t n;
    const struct kernel_entry *list = kernels_list(&n), *scalar = NULL;
    options(argc, argv);
    bench.row = room();
    bench.encoded = room();
    bench.decoded = room();
    data_fill(DATA_gaussian_small, bench.row, L2_ELEMENTS, 1);
    for (size_t i = L2_ELEMENTS; i < MEMORY_ELEMENTS; i += L2_ELEMENTS)
        memcpy(bench.row + i, bench.row, L2_ELEMENTS * 4);
    measure_bandwidth();
    heading();
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i].variant, "scalar") == 0)
            scalar = &list[i];
        if ((cpu_features() & list[i].needs) != list[i].needs)
            continue;
        fill(&list[i]);
        race(&list[i], scalar, L2_ELEMENTS);
        race(&list[i], scalar, MEMORY_ELEMENTS);
    }
    return 0;
}
