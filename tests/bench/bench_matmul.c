/*
 * qd_matmul on packed and on portable weights beside libggml's CPU backend, in one process, calls in turn, medians;
 * and beside what the machine gives at best: multiply-adds on registers, bytes read from the same memory. Weights are
 * copies of a matrix that together are larger than any cache, and are gone through one after the other, so that each
 * product of few columns reads its weights from memory, as it does in a model.
 *
 * usage: bench_matmul [--json] [--quick] [--only=TYPE] [--peer=VARIANT] [folder of libggml-base.so]
 * QUANTD_CPU takes features from our side; --peer names the library that suits them (haswell for avx2,fma,f16c).
 * --json prints one object per line: the machine, then type, rows, cols, n, threads, and what came out.
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <quantd/matmul.h>

#include "kernels/compute/team.h"
#include "kernels/core/processors.h"
#include "kernels/cpu.h"
#include "kernels/kernels.h"
#include "kernels/layout/packed.h"
#include "tests/bench/ceilings.h"
#include "tests/bench/matmul_peer.h"
#include "tests/kernels/data.h"

enum {
    FOOTPRINT_MIB = 640, /* of the weights of each contestant: beyond the largest last-level caches */
    N_MAX = 512,
    ROUNDS_MAX = 15,
    QUICK_ROUNDS = 3,
    PATTERN_ROWS = 256, /* different rows of a matrix; they repeat */
    SLICES = 16,        /* of a ceiling, for each thread: none waits long for the other */
};

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

struct shape {
    size_t rows, cols; /* outputs, inputs */
};
static const struct shape shapes[] = {{4096, 4096}, {11008, 4096}};
static const enum qd_type types[] = {QD_TYPE_Q8_0, QD_TYPE_Q4_0, QD_TYPE_Q4_K, QD_TYPE_Q6_K};
static const struct {
    size_t n;
    int rounds; /* odd */
} columns[] = {{1, ROUNDS_MAX}, {16, 7}, {N_MAX, 9}};

static struct {
    bool json, quick;
    const char *only, *folder, *variant;
    struct peer *peer; /* NULL: none */
    struct ceilings ceilings;
    enum qd_layout layout;
    unsigned n_cores;
    struct qd_team *team; /* of all cores */
    float *x, *y;
    void *scratch;
    size_t scratch_bytes;
} bench;

/* The weights of one case. */
struct weights {
    struct qd_matrix portable, packed; /* the first copies */
    size_t n_copies, matrix_bytes;
    struct peer_product *theirs;
};

static void *must(void *p)
{
    if (!p || p == MAP_FAILED) {
        perror("memory");
        exit(1);
    }
    return p;
}

static void *room(size_t bytes)
{
    return must(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

/* ---- weights --------------------------------------------------------------------------------------------------- */

static void fill_rows(const struct qd_matrix *w, uint8_t *dst)
{
    const size_t row_bytes = qd_type_row_bytes(w->type, w->n_cols);
    float *row = must(malloc(w->n_cols * sizeof *row));
    for (size_t r = 0; r < PATTERN_ROWS; r++) {
        data_fill(DATA_gaussian_small, row, w->n_cols, r);
        ops_native()->quantize[w->type](dst + r * row_bytes, row, w->n_cols);
    }
    free(row);
    for (size_t r = PATTERN_ROWS; r < w->n_rows; r++)
        memcpy(dst + r * row_bytes, dst + (r - PATTERN_ROWS) * row_bytes, row_bytes);
}

static void pack(const struct qd_matrix *w, enum qd_layout layout, uint8_t *dst)
{
    const size_t row_bytes = qd_type_row_bytes(w->type, w->n_cols), step = qd_layout_info(layout)->rows;
    const size_t n_blocks = w->n_cols / qd_type_info(w->type)->block_elements;
    const uint8_t *src = w->data;
    for (size_t r = 0; r + step <= w->n_rows; r += step)
        layout_pack_group(ops_native(), layout, w->type, dst + r * row_bytes, src + r * row_bytes, n_blocks);
    const size_t whole = w->n_rows / step * step;
    memcpy(dst + whole * row_bytes, src + whole * row_bytes, (w->n_rows - whole) * row_bytes);
}

static void weights_make(struct weights *w, enum qd_type type, struct shape shape)
{
    const size_t bytes = shape.rows * qd_type_row_bytes(type, shape.cols);
    const size_t footprint = (size_t)FOOTPRINT_MIB << 20;
    *w = (struct weights){.n_copies = (footprint + bytes - 1) / bytes, .matrix_bytes = bytes};
    uint8_t *portable = room(w->n_copies * bytes), *packed = room(w->n_copies * bytes);
    w->portable = (struct qd_matrix){
        .data = portable, .n_rows = shape.rows, .n_cols = shape.cols, .type = type, .layout = QD_LAYOUT_PORTABLE};
    w->packed = w->portable;
    w->packed.data = packed;
    w->packed.layout = bench.layout;
    fill_rows(&w->portable, portable);
    pack(&w->portable, bench.layout, packed);
    for (size_t i = 1; i < w->n_copies; i++) {
        memcpy(portable + i * bytes, portable, bytes);
        memcpy(packed + i * bytes, packed, bytes);
    }
    if (bench.peer)
        w->theirs = peer_product_new(bench.peer, &w->portable, w->n_copies, N_MAX);
}

static void weights_free(struct weights *w)
{
    (void)munmap((void *)(uintptr_t)w->portable.data, w->n_copies * w->matrix_bytes); /* ours to unmap */
    (void)munmap((void *)(uintptr_t)w->packed.data, w->n_copies * w->matrix_bytes);
    peer_product_free(w->theirs);
}

/* ---- laps ------------------------------------------------------------------------------------------------------ */

enum contestant { PACKED, PORTABLE, PEER, READ, READ_STREAMS, MULTIPLY, N_CONTESTANTS };

/* One case: every contestant does @n_products of them in a lap. */
struct lap {
    const struct weights *w;
    size_t n, n_products;
    unsigned n_threads;
};

/* Processor time of this thread where it is the only one: it is not charged for what else runs on the machine. */
static double now(unsigned n_threads)
{
    struct timespec t;
    (void)clock_gettime(n_threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t); /* these always are */
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static struct qd_team *team_of(const struct lap *l)
{
    return l->n_threads == 1 ? NULL : bench.team;
}

static void run_ours(const struct lap *l, const struct qd_matrix *first)
{
    struct qd_matrix w = *first;
    for (size_t i = 0; i < l->n_products; i++) {
        struct qd_error err;
        w.data = (const uint8_t *)first->data + i * l->w->matrix_bytes;
        if (qd_matmul(&w, bench.x, l->n, bench.y, team_of(l), bench.scratch, bench.scratch_bytes, &err) < 0) {
            (void)fprintf(stderr, "qd_matmul: %s\n", err.message);
            exit(1);
        }
    }
}

static volatile double sink; /* keeps results that nobody reads */

/* What the threads of a ceiling share. */
struct ceiling_work {
    uint64_t (*read)(const void *p, size_t n_bytes);
    const uint8_t *memory;
    size_t slice_bytes; /* to read, for each task */
    size_t n_rounds;    /* to multiply, for each task */
    double ops[SLICES * 1024];
};

static void read_task(void *data, size_t task, unsigned thread)
{
    const struct ceiling_work *w = data;
    (void)thread;
    sink = (double)w->read(w->memory + task * w->slice_bytes, w->slice_bytes);
}

static void multiply_task(void *data, size_t task, unsigned thread)
{
    struct ceiling_work *w = data;
    (void)thread;
    w->ops[task] = bench.ceilings.multiply(w->n_rounds);
}

static size_t n_slices(const struct lap *l)
{
    return l->n_threads == 1 ? 1 : (size_t)l->n_threads * SLICES;
}

/* Amount of work done: bytes (a few less than a lap's weights have, so that slices are whole pages) or operations. */
static double run_ceiling(const struct lap *l, enum contestant which)
{
    static struct ceiling_work w;
    const size_t n = n_slices(l);
    double ops = 0;
    w.memory = l->w->packed.data;
    w.read = which == READ ? bench.ceilings.read : bench.ceilings.read_streams;
    w.slice_bytes = l->n_products * l->w->matrix_bytes / n / 4096 * 4096;
    w.n_rounds = 200000 / SLICES * SLICES / (n > 1 ? SLICES : 1);
    team_run(team_of(l), n, which == MULTIPLY ? multiply_task : read_task, &w);
    for (size_t i = 0; which == MULTIPLY && i < n; i++)
        ops += w.ops[i];
    return which == MULTIPLY ? ops : (double)(n * w.slice_bytes);
}

static bool takes_part(const struct lap *l, enum contestant who)
{
    switch (who) {
    case PACKED:
    case PORTABLE:
        return true;
    case PEER:
        return bench.peer != NULL;
    case READ:
    case READ_STREAMS:
        return l->n == 1;
    case MULTIPLY:
        return l->n == N_MAX && bench.ceilings.multiply;
    case N_CONTESTANTS:
        break;
    }
    return false;
}

/* Operations, or bytes, a second. */
static double rate(const struct lap *l, enum contestant who)
{
    double amount =
        2.0 * (double)l->n_products * (double)l->n * (double)l->w->packed.n_rows * (double)l->w->packed.n_cols;
    const double start = now(l->n_threads);
    if (who == PACKED || who == PORTABLE)
        run_ours(l, who == PACKED ? &l->w->packed : &l->w->portable);
    else if (who == PEER)
        peer_product_run(l->w->theirs);
    else
        amount = run_ceiling(l, who);
    return amount / (now(l->n_threads) - start);
}

/* ---- results --------------------------------------------------------------------------------------------------- */

/*
 * Row @r times column @c in f64, and how far a product with 8-bit activations may be from it: a code is off by half a
 * step, a scale by a rounding to 11 bits, a sum by its roundings.
 */
static double exact(const struct weights *w, size_t r, size_t c, double *ret_bound)
{
    const size_t n = w->portable.n_cols, block = qd_type_info(w->portable.type)->block_elements;
    const float *x = bench.x + c * n;
    float *row = must(malloc(n * sizeof *row));
    double sum = 0, bound = 0;
    struct qd_error err;
    if (qd_dequantize_row(&w->portable, r, row, &err) < 0)
        exit(1);
    for (size_t b = 0; b < n; b += block) {
        double largest = 0, weight = 0;
        for (size_t j = b; j < b + block; j++) {
            sum += (double)row[j] * (double)x[j];
            largest = fmax(largest, fabs((double)x[j]));
            weight += fabs((double)row[j]);
        }
        bound += weight * largest * (1.0 / 254 + 0x1p-10 + (double)(n / block + 10) * 0x1p-24);
    }
    free(row);
    *ret_bound = bound;
    return sum;
}

/* The largest share of the bound that any of the elements looked at takes. */
static double check(const struct lap *l, const float *y)
{
    double worst = 0, bound;
    for (size_t c = 0; c < l->n; c += l->n / 3 + 1)
        for (size_t r = 0; r < l->w->packed.n_rows; r += 197) {
            const double want = exact(l->w, r, c, &bound);
            worst = fmax(worst, fabs((double)y[c * l->w->packed.n_rows + r] - want) / bound);
        }
    return worst;
}

/* What @who has just computed. */
static void must_be_right(const struct lap *l, enum contestant who)
{
    static const char *const names[N_CONTESTANTS] = {"packed weights", "portable weights", "ggml"};
    if (who > PEER)
        return;
    const double share = check(l, who == PEER ? peer_product_result(l->w->theirs) : bench.y);
    if (share <= 1)
        return;
    (void)fprintf(stderr, "%s, %zu columns, %s: the product is beyond its bound (%g of it)\n",
                  qd_type_info(l->w->packed.type)->name, l->n, names[who], share);
    exit(1);
}

/* ---- races ------------------------------------------------------------------------------------------------------ */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Everybody once: to warm up, and to see that it is right. */
static void rehearse(const struct lap *l)
{
    for (int who = 0; who < N_CONTESTANTS; who++)
        if (takes_part(l, (enum contestant)who)) {
            (void)rate(l, (enum contestant)who);
            must_be_right(l, (enum contestant)who);
        }
}

/* Medians of rounds in which all take their turn; 0 for those that have no part. */
static void race(const struct lap *l, int n_rounds, double ret[N_CONTESTANTS])
{
    double rates[N_CONTESTANTS][ROUNDS_MAX];
    for (int i = 0; i < n_rounds; i++)
        for (int who = 0; who < N_CONTESTANTS; who++)
            rates[who][i] = takes_part(l, (enum contestant)who) ? rate(l, (enum contestant)who) : 0;
    for (int who = 0; who < N_CONTESTANTS; who++) {
        qsort(rates[who], (size_t)n_rounds, sizeof rates[who][0], by_value);
        ret[who] = rates[who][n_rounds / 2];
    }
}

/* ---- tables ---------------------------------------------------------------------------------------------------- */

static void heading(void)
{
    char text[512];
    (void)cpu_features_string(cpu_features(), text, sizeof text); /* for people */
    const char *peer = bench.peer ? peer_name(bench.peer) : "";
    if (bench.json) {
        printf("{\"cpu\":\"%s\",\"features\":\"%s\",\"compiler\":\"%s\",\"layout\":\"%s\",\"peer\":\"%s\","
               "\"multiply\":\"%s\"}\n",
               cpu_name(), text, COMPILER, qd_layout_info(bench.layout)->name, peer,
               bench.ceilings.multiply ? bench.ceilings.multiply_name : "");
        return;
    }
    printf("%s, %s; layout %s; beside %s\n", cpu_name(), text, qd_layout_info(bench.layout)->name,
           bench.peer ? peer : "nothing (no libggml: set QUANTD_PEERS)");
    printf("%-5s %-11s %4s %3s %9s %9s %9s %7s\n", "type", "out x in", "n", "thr", "packed", "portable", "ggml",
           "x ggml");
}

static void show(const struct lap *l, const double rates[N_CONTESTANTS])
{
    const char *type = qd_type_info(l->w->packed.type)->name,
               *buffer = bench.peer ? peer_product_buffer(l->w->theirs) : "";
    const size_t rows = l->w->packed.n_rows, cols = l->w->packed.n_cols;
    const double ops_per_byte = 2.0 * (double)l->n * (double)(rows * cols) / (double)l->w->matrix_bytes;
    const double gb_s = rates[PACKED] / ops_per_byte, best = rates[READ] > 0 ? rates[READ] : rates[MULTIPLY];
    const double share = best > 0 ? (rates[READ] > 0 ? gb_s : rates[PACKED]) / best : 0;
    const double ratio = bench.peer ? rates[PACKED] / rates[PEER] : 0;
    if (bench.json) {
        printf("{\"type\":\"%s\",\"rows\":%zu,\"cols\":%zu,\"n\":%zu,\"threads\":%u,\"packed_gop_s\":%.2f,"
               "\"portable_gop_s\":%.2f,\"peer_gop_s\":%.2f,\"peer_buffer\":\"%s\",\"ratio\":%.3f,\"packed_gb_s\":%.2f,"
               "\"read_gb_s\":%.2f,\"read_streams_gb_s\":%.2f,\"multiply_gop_s\":%.1f,\"of_best\":%.3f}\n",
               type, rows, cols, l->n, l->n_threads, rates[PACKED] * 1e-9, rates[PORTABLE] * 1e-9, rates[PEER] * 1e-9,
               buffer, ratio, gb_s * 1e-9, rates[READ] * 1e-9, rates[READ_STREAMS] * 1e-9, rates[MULTIPLY] * 1e-9,
               share);
        return;
    }
    printf("%-5s %5zux%-5zu %4zu %3u %9.1f %9.1f %9.1f %6.2fx", type, rows, cols, l->n, l->n_threads,
           rates[PACKED] * 1e-9, rates[PORTABLE] * 1e-9, rates[PEER] * 1e-9, ratio);
    if (rates[READ] > 0)
        printf(" %7.1f GB/s, %3.0f%% of %.1f (%.0f%% of %.1f in eight streams)", gb_s * 1e-9, share * 100,
               rates[READ] * 1e-9, gb_s / rates[READ_STREAMS] * 100, rates[READ_STREAMS] * 1e-9);
    else if (rates[MULTIPLY] > 0)
        printf(" %3.0f%% of %.0f Gop/s", share * 100, rates[MULTIPLY] * 1e-9);
    printf("  %s\n", buffer);
}

/* ---- cases ----------------------------------------------------------------------------------------------------- */

static void run_case(const struct weights *w, size_t n, int n_rounds, unsigned n_threads)
{
    double rates[N_CONTESTANTS];
    const struct lap l = {.w = w, .n = n, .n_threads = n_threads, .n_products = n == N_MAX ? 1 : w->n_copies};
    if (bench.peer)
        peer_product_begin(w->theirs, bench.x, n, l.n_products, n_threads);
    rehearse(&l);
    race(&l, bench.quick ? QUICK_ROUNDS : n_rounds, rates);
    show(&l, rates);
}

static void run_type(enum qd_type type, struct shape shape)
{
    struct weights w;
    weights_make(&w, type, shape);
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
        run_case(&w, columns[i].n, columns[i].rounds, 1);
        if (bench.n_cores > 1)
            run_case(&w, columns[i].n, columns[i].rounds, bench.n_cores);
    }
    weights_free(&w);
}

static void make_bench(void)
{
    struct qd_error err;
    size_t most_rows = 0, most_cols = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        most_rows = shapes[i].rows > most_rows ? shapes[i].rows : most_rows;
        most_cols = shapes[i].cols > most_cols ? shapes[i].cols : most_cols;
    }
    bench.peer = bench.folder && *bench.folder ? peer_open(bench.folder, bench.variant) : NULL;
    bench.ceilings = ceilings_for(cpu_features());
    bench.layout = layout_native(cpu_features());
    bench.n_cores = processors_allowed();
    if (bench.layout == QD_LAYOUT_PORTABLE)
        bench.layout = QD_LAYOUT_R4K4P128; /* scalar kernels take any */
    if (qd_team_new(bench.n_cores, &bench.team, &err) < 0)
        exit(1);
    bench.x = must(malloc(N_MAX * most_cols * sizeof *bench.x));
    bench.y = must(aligned_alloc(64, N_MAX * most_rows * sizeof *bench.y)); /* as ggml's are */
    for (size_t c = 0; c < N_MAX; c++)
        data_fill(DATA_gaussian, bench.x + c * most_cols, most_cols, c);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        const struct qd_matrix w = {
            .data = bench.x, .n_rows = most_rows, .n_cols = most_cols, .type = types[i], .layout = QD_LAYOUT_PORTABLE};
        const size_t n_bytes = qd_matmul_scratch_bytes(&w, N_MAX, bench.team);
        bench.scratch_bytes = n_bytes > bench.scratch_bytes ? n_bytes : bench.scratch_bytes;
    }
    bench.scratch = must(aligned_alloc(64, bench.scratch_bytes));
}

__attribute__((noreturn)) static void usage(void)
{
    (void)fputs("usage: bench_matmul [--json] [--quick] [--only=TYPE] [--peer=VARIANT] [folder of libggml-base.so]\n",
                stderr);
    exit(64);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0); /* results as they come */
    bench.folder = getenv("QUANTD_PEERS");
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0)
            bench.json = true;
        else if (strcmp(argv[i], "--quick") == 0)
            bench.quick = true;
        else if (strncmp(argv[i], "--only=", 7) == 0)
            bench.only = argv[i] + 7;
        else if (strncmp(argv[i], "--peer=", 7) == 0)
            bench.variant = argv[i] + 7;
        else if (argv[i][0] != '-')
            bench.folder = argv[i];
        else
            usage();
    }
    make_bench();
    heading();
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++)
            if (!bench.only || strcmp(bench.only, qd_type_info(types[i])->name) == 0)
                run_type(types[i], shapes[k]);
    return 0;
}
