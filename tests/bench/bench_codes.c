/*
 * Products with the weights of an ONNX artifact, as an app has them from libquantd: packed for this CPU, and portable.
 * Takes turns with another program, which says what is next: bench_codes.py.
 *
 * usage: bench_codes SOCKET MODEL SCHEME FOLDER
 *
 * Opens MODEL in both layouts. Its matrices, of one shape, are gone through one after the other; together they should
 * be larger than any cache. Leaves in FOLDER: x, the activations, N_MAX columns, and y, the first column's product with
 * the first matrix. Prints one object: the machine, and what the matrices are. Then, for each line of its input
 *
 *     packed N THREADS | portable N THREADS | read N THREADS | multiply N THREADS
 *
 * one number: 10^9 operations a second of a lap over all matrices; 10^9 bytes a second that a plain loop reads of the
 * packed codes; 10^9 operations a second on registers alone (0: not known for this CPU).
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <quantd/quantd.h>

#include "kernels/compute/team.h"
#include "kernels/core/processors.h"
#include "kernels/cpu.h"
#include "tests/bench/ceilings.h"
#include "tests/kernels/data.h"

enum {
    N_MAX = 512,
    MATRICES_MAX = 64,
    PARTS = 8, /* of a matrix that is only read: no thread waits long for another */
    ROUNDS = 1 << 14,
    PATH_BYTES = 4096
};

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

/* The matrices of one layout, in the order of the model. */
struct weights {
    struct qd_artifact *artifact; /* owned */
    struct qd_matrix matrices[MATRICES_MAX];
    size_t n;
};

static struct {
    struct weights packed, portable;
    struct ceilings ceilings;
    unsigned n_cores;
    struct qd_team *team; /* of all cores */
    float *x, *y;
    void *scratch;
    size_t scratch_bytes;
} bench;

static void complain(const struct qd_error *err)
{
    fprintf(stderr, "%s: %s; %s\n", qd_error_name(err->code), err->message, err->hint);
    exit(qd_error_exit_code(err->code));
}

static void stop(const char *why)
{
    fprintf(stderr, "bench_codes: %s\n", why);
    exit(1);
}

static void *must(void *p)
{
    if (!p)
        stop("out of memory");
    return p;
}

/* ---- weights --------------------------------------------------------------------------------------------------- */

/* Of codes, scales and zero points: what a product reads. */
static size_t matrix_bytes(const struct qd_matrix *w)
{
    const size_t n = w->n_rows * w->n_cols, n_scales = w->n_rows * (w->block ? w->n_cols / w->block : 1);
    return (w->type == QD_TYPE_I8 ? n : n / 2) + n_scales * sizeof(float) + (w->zero_points ? n_scales / 2 : 0);
}

static void weights_open(struct qd_client *c, struct qd_open_options o, const char *layout, struct weights *ret)
{
    struct qd_error err;
    o.layout = layout;
    if (qd_open(c, &o, &ret->artifact, &err) < 0)
        complain(&err);
    for (size_t i = 0; i < qd_artifact_n_tensors(ret->artifact); i++) {
        const struct qd_tensor *t = qd_artifact_tensor_at(ret->artifact, i);
        if (t->codes && ret->n < MATRICES_MAX && qd_tensor_matrix(t, 0, &ret->matrices[ret->n++], &err) < 0)
            complain(&err);
    }
    for (size_t i = 0; i < ret->n; i++)
        if (ret->matrices[i].n_rows != ret->matrices->n_rows || ret->matrices[i].n_cols != ret->matrices->n_cols)
            stop("the model's matrices differ in shape");
}

/* ---- laps ------------------------------------------------------------------------------------------------------ */

static struct qd_team *team_of(unsigned n_threads)
{
    return n_threads == 1 ? NULL : bench.team;
}

/* Processor time of this thread where it is the only one: it is not charged for what else runs on the machine. */
static double now(unsigned n_threads)
{
    struct timespec t;
    (void)clock_gettime(n_threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t); /* these always are */
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void multiply(const struct qd_matrix *w, size_t n, unsigned n_threads)
{
    struct qd_error err;
    if (qd_matmul(w, bench.x, n, bench.y, team_of(n_threads), bench.scratch, bench.scratch_bytes, &err) < 0)
        complain(&err);
}

/* Operations done. */
static double run_products(const struct weights *w, size_t n, unsigned n_threads)
{
    for (size_t i = 0; i < w->n; i++)
        multiply(&w->matrices[i], n, n_threads);
    return 2.0 * (double)w->n * (double)n * (double)w->matrices->n_rows * (double)w->matrices->n_cols;
}

static double done[MATRICES_MAX * PARTS]; /* by each task of a ceiling; also keeps results that nobody reads */

static size_t part_bytes(void)
{
    const struct qd_matrix *w = bench.packed.matrices;
    const size_t codes = w->n_rows * w->n_cols / (w->type == QD_TYPE_I8 ? 1 : 2);
    return (codes - 64) / PARTS / 4096 * 4096;
}

static void read_task(void *data, size_t task, unsigned thread)
{
    const uint8_t *codes = bench.packed.matrices[task / PARTS].data;
    (void)data;
    (void)thread;
    codes += (64 - (uintptr_t)codes % 64) % 64;
    done[task] = (double)bench.ceilings.read(codes + task % PARTS * part_bytes(), part_bytes());
}

static void multiply_task(void *data, size_t task, unsigned thread)
{
    (void)data;
    (void)thread;
    done[task] = bench.ceilings.multiply(ROUNDS);
}

static double run_reads(unsigned n_threads)
{
    const size_t n = bench.packed.n * PARTS;
    team_run(team_of(n_threads), n, read_task, NULL);
    return (double)(n * part_bytes());
}

static double run_registers(unsigned n_threads)
{
    const size_t n = bench.packed.n * PARTS;
    double ops = 0;
    if (!bench.ceilings.multiply)
        return 0;
    team_run(team_of(n_threads), n, multiply_task, NULL);
    for (size_t i = 0; i < n; i++)
        ops += done[i];
    return ops;
}

static double run(const char *who, size_t n, unsigned n_threads)
{
    if (strcmp(who, "packed") == 0)
        return run_products(&bench.packed, n, n_threads);
    if (strcmp(who, "portable") == 0)
        return run_products(&bench.portable, n, n_threads);
    return strcmp(who, "read") == 0 ? run_reads(n_threads) : run_registers(n_threads);
}

static void take_turns(void)
{
    char who[16];
    size_t n;
    unsigned n_threads;
    while (scanf("%15s %zu %u", who, &n, &n_threads) == 3) {
        if (n < 1 || n > N_MAX || (n_threads != 1 && n_threads != bench.n_cores))
            stop("columns or threads that it has none of");
        const double start = now(n_threads), amount = run(who, n, n_threads);
        printf("%.4f\n", amount / (now(n_threads) - start) * 1e-9);
    }
}

/* ---- what the other needs --------------------------------------------------------------------------------------- */

static void leave(const char *folder, const char *name, const float *values, size_t n)
{
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name); /* a cut one does not open */
    FILE *f = fopen(path, "we");
    if (!f || fwrite(values, sizeof *values, n, f) != n || fclose(f) != 0)
        stop("cannot write what it leaves");
}

/* The first column's product with the first matrix: the same bits from both layouts. */
static void leave_product(const char *folder)
{
    const size_t n = bench.packed.matrices->n_rows;
    float *first = must(malloc(n * sizeof *first));
    multiply(bench.packed.matrices, 1, 1);
    memcpy(first, bench.y, n * sizeof *first);
    multiply(bench.portable.matrices, 1, 1);
    if (memcmp(first, bench.y, n * sizeof *first) != 0)
        stop("packed and portable products differ");
    leave(folder, "y", first, n);
    free(first);
}

static void heading(void)
{
    const struct qd_matrix *w = bench.packed.matrices;
    char text[512];
    (void)cpu_features_string(cpu_features(), text, sizeof text); /* for people */
    printf("{\"cpu\":\"%s\",\"features\":\"%s\",\"compiler\":\"%s\",\"cores\":%u,\"layout\":\"%s\",\"type\":\"%s\","
           "\"order\":\"%s\",\"block\":%llu,\"rows\":%llu,\"cols\":%llu,\"matrices\":%zu,\"bytes\":%zu}\n",
           cpu_name(), text, COMPILER, bench.n_cores, qd_layout_info(w->layout)->name, qd_type_info(w->type)->name,
           bench.portable.matrices->order == QD_ORDER_COLUMNS ? "columns" : "rows", (unsigned long long)w->block,
           (unsigned long long)w->n_rows, (unsigned long long)w->n_cols, bench.packed.n, matrix_bytes(w));
}

static void make_room(void)
{
    struct qd_error err;
    const struct qd_matrix *both[] = {bench.packed.matrices, bench.portable.matrices};
    bench.ceilings = ceilings_for(cpu_features());
    bench.n_cores = processors_allowed();
    if (qd_team_new(bench.n_cores, &bench.team, &err) < 0)
        complain(&err);
    bench.x = must(malloc(N_MAX * both[0]->n_cols * sizeof *bench.x));
    bench.y = must(aligned_alloc(64, N_MAX * both[0]->n_rows * sizeof *bench.y));
    data_fill(DATA_gaussian, bench.x, N_MAX * both[0]->n_cols, 1);
    for (size_t i = 0; i < 2; i++) {
        const size_t n_bytes = qd_matmul_scratch_bytes(both[i], N_MAX, bench.team);
        bench.scratch_bytes = n_bytes > bench.scratch_bytes ? n_bytes : bench.scratch_bytes;
    }
    bench.scratch = must(aligned_alloc(64, bench.scratch_bytes));
}

int main(int argc, char **argv)
{
    struct qd_client *c = NULL;
    struct qd_error err;
    if (argc != 5)
        return 64;
    setvbuf(stdout, NULL, _IOLBF, 0); /* the other waits for each line */
    if (qd_connect(argv[1], &c, &err) < 0)
        complain(&err);
    const struct qd_open_options o = {.model = argv[2], .scheme = argv[3]};
    weights_open(c, o, "portable", &bench.portable);
    weights_open(c, o, "native", &bench.packed);
    if (bench.packed.n == 0 || bench.packed.n != bench.portable.n)
        stop("the model has no matrices of codes alone");
    make_room();
    leave(argv[4], "x", bench.x, N_MAX * bench.packed.matrices->n_cols);
    leave_product(argv[4]);
    heading();
    take_turns();
    qd_artifact_free(bench.packed.artifact);
    qd_artifact_free(bench.portable.artifact);
    qd_client_free(c);
    qd_team_free(bench.team);
    return 0;
}
