/*
 * Races every kernel against ggml's own (libggml-base.so from QUANTD_PEERS or the first argument),
 * in one process and on one thread, calls interleaved, medians: once with rows that stay in the L2
 * cache, once streaming through memory. Without the library the race is against scalar, and the
 * heading says so.
 *
 * usage: bench_kernels [--json] [--quick] [--only=WORD] [folder of libggml-base.so]
 * --json prints one object per line: the machine, then op, variant, place, melements_s, gb_s, bandwidth_share, peer,
 * ratio.
 */
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
#include "tests/kernels/rival.h"

enum { L2_ELEMENTS = 1 << 15, MEMORY_ELEMENTS = 1 << 24, ROW = 4096, MAX_RUNS = 15 };

/* A stretch through memory takes no longer than this; slow encoders get a shorter one, still far beyond the caches. */
static const double longest_s = 0.12;

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

/* One contestant on one stretch of data. */
struct lap {
    const struct kernel_entry *entry; /* ours, or NULL */
    const struct rival *rival;        /* theirs, or NULL */
    const void *src;
    void *dst; /* for measure the second source */
    size_t n;
};

static struct {
    bool json, quick;
    const char *only; /* a word that an operation's name holds */
    void *lib;
    float *row; /* MEMORY_ELEMENTS weights */
    float importance[ROW];
    uint8_t *encoded, *decoded; /* room for as many f32 each */
    double read_gb_s;
} bench;

/* Processor time of this thread: a contestant is not charged for what else runs on the machine. */
static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* this clock always is */
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

static volatile size_t sink; /* keeps results that nobody reads */

/* Rows of ROW elements one after the other, as a model has them. */
static void run_rows(const struct lap *l)
{
    const struct qd_type_info *t = qd_type_info(l->entry->type);
    size_t packed = ROW / t->block_elements * t->block_bytes, plain = ROW * sizeof(float);
    bool decodes = l->entry->kind == KERNEL_dequantize;
    const char *src = l->src;
    char *dst = l->dst;
    for (size_t i = 0; i < l->n / ROW; i++, src += decodes ? packed : plain, dst += decodes ? plain : packed) {
        if (l->rival)
            rival_run(l->rival, l->entry, src, dst, ROW, bench.importance);
        else
            entry_run(l->entry, src, dst, ROW, bench.importance);
    }
}

static void run(const struct lap *l)
{
    struct error_sums sums = {0};
    switch (l->entry->kind) {
    case KERNEL_quantize:
    case KERNEL_quantize_weighted:
    case KERNEL_dequantize:
        run_rows(l);
        break;
    case KERNEL_measure:
        ((measure_fn *)l->entry->fn)(&sums, l->src, l->dst, l->n);
        sink = (size_t)sums.noise[0];
        break;
    case KERNEL_find_nonfinite:
        sink = ((find_nonfinite_fn *)l->entry->fn)(l->src, l->n);
        break;
    case KERNEL_sum_squares:
        sink = (size_t)((sum_squares_fn *)l->entry->fn)(0, l->src, l->n);
    }
}

/* Seconds of one call; a short one is repeated until it can be timed. */
static double lap_seconds(const struct lap *l)
{
    double start = now(), seconds;
    int n = 0;
    do {
        run(l);
        n++;
        seconds = now() - start;
    } while (seconds < 2e-3);
    return seconds / n;
}

/* Bytes that one call reads and writes. */
static double traffic(const struct kernel_entry *e, size_t n)
{
    const struct qd_type_info *t = qd_type_info(e->type);
    if (t)
        return (double)n * 4 + (double)(n / t->block_elements * t->block_bytes);
    return e->kind == KERNEL_measure ? (double)n * 8 : (double)n * 4;
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
        printf("%-24s %-7s %-6s %10.0f %8.1f %6s   %s %6.2fx\n", ours->entry->op, ours->entry->variant, place, rate,
               gb_s, "-", rival, ratio);
    else
        printf("%-24s %-7s %-6s %10.0f %8.1f %5.0f%%   %s %6.2fx\n", ours->entry->op, ours->entry->variant, place, rate,
               gb_s, share * 100, rival, ratio);
}

/* As many elements, in whole rows, as the slower contestant does in longest_s; at least eight times the L2 stretch. */
static size_t memory_stretch(const struct lap *a, const struct lap *b)
{
    double ours = lap_seconds(a), theirs = lap_seconds(b), slower = ours > theirs ? ours : theirs;
    double n = longest_s / slower * (double)a->n;
    if (n >= MEMORY_ELEMENTS)
        return MEMORY_ELEMENTS;
    return n > 8 * L2_ELEMENTS ? (size_t)n / ROW * ROW : (size_t)8 * L2_ELEMENTS;
}

/* Ours and theirs in turn, the same data. */
static void race(const struct kernel_entry *e, const struct kernel_entry *scalar, bool in_l2)
{
    double ours[MAX_RUNS], theirs[MAX_RUNS];
    int runs = bench.quick ? 3 : in_l2 ? MAX_RUNS : 7;
    bool decodes = e->kind == KERNEL_dequantize;
    struct rival rival = bench.lib ? rival_of(bench.lib, e) : (struct rival){0};
    bool has_rival = rival.quantize || rival.rows;
    struct lap a = {
        .entry = e, .src = decodes ? (void *)bench.encoded : bench.row, .dst = bench.decoded, .n = L2_ELEMENTS};
    struct lap b = a;
    b.rival = has_rival ? &rival : NULL;
    b.entry = has_rival ? e : scalar;
    if (!in_l2)
        a.n = b.n = memory_stretch(&a, &b);
    (void)lap_seconds(&a); /* warms caches and pages */
    (void)lap_seconds(&b);
    for (int i = 0; i < runs; i++) {
        theirs[i] = lap_seconds(&b);
        ours[i] = lap_seconds(&a);
    }
    show(&a, in_l2, median(ours, runs), has_rival ? "ggml" : "scalar", median(theirs, runs));
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
    const struct qd_type_info *t = qd_type_info(e->type);
    if (e->kind == KERNEL_dequantize)
        data_fill_blocks(bench.encoded, MEMORY_ELEMENTS / t->block_elements, e->type, 1, 1);
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
    const char *folder = NULL;
    for (int i = 1; i < argc; i++) {
        bench.json |= strcmp(argv[i], "--json") == 0;
        bench.quick |= strcmp(argv[i], "--quick") == 0;
        if (strncmp(argv[i], "--only=", 7) == 0)
            bench.only = argv[i] + 7;
        else if (argv[i][0] != '-')
            folder = argv[i];
    }
    bench.lib = rival_library(folder);
}

static void heading(void)
{
    char text[512];
    (void)cpu_features_string(cpu_features_detected(), text, sizeof text); /* for people */
    if (bench.json) {
        printf("{\"cpu\":\"%s\",\"features\":\"%s\",\"compiler\":\"%s\",\"read_gb_s\":%.2f,\"rival\":\"%s\"}\n",
               cpu_name(), text, COMPILER, bench.read_gb_s,
               bench.lib ? "ggml, the packaged libggml-base" : "our scalar");
        return;
    }
    printf("%s, %s\nmemory, one thread: read %.1f GB/s\n%s\n", cpu_name(), text, bench.read_gb_s,
           bench.lib ? "rival: ggml, the packaged libggml-base"
                     : "rival: our scalar (no libggml-base.so: set QUANTD_PEERS)");
    printf("%-24s %-7s %-6s %10s %8s %6s   %s\n", "operation", "variant", "place", "Melem/s", "GB/s", "of bw",
           "against");
}

int main(int argc, char **argv)
{
    size_t n;
    const struct kernel_entry *list = kernels_list(&n), *scalar = NULL;
    setvbuf(stdout, NULL, _IOLBF, 0); /* results as they come */
    options(argc, argv);
    bench.row = room();
    bench.encoded = room();
    bench.decoded = room();
    data_fill(DATA_gaussian_small, bench.row, L2_ELEMENTS, 1);
    for (size_t i = L2_ELEMENTS; i < MEMORY_ELEMENTS; i += L2_ELEMENTS)
        memcpy(bench.row + i, bench.row, L2_ELEMENTS * 4);
    data_fill_importance(bench.importance, ROW, 0);
    measure_bandwidth();
    heading();
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i].variant, "scalar") == 0)
            scalar = &list[i];
        if ((cpu_features() & list[i].needs) != list[i].needs)
            continue;
        if (bench.only && !strstr(list[i].op, bench.only))
            continue;
        fill(&list[i]);
        race(&list[i], scalar, true);
        race(&list[i], scalar, false);
    }
    return 0;
}
