/*
 * A client that opens a model again and again, until SIGTERM: usage: open_loop SOCKET MODEL SCHEME LAYOUT PAUSE_US
 *
 * Each time the first matrix of the artifact is multiplied by the same activations, which must give the same bits
 * whatever layout was served. A line for each change of what is served, "LAYOUT MILLISECONDS"; in the end
 * "opens=N failed=N other=N".
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <quantd/quantd.h>

static volatile sig_atomic_t stopped;

static void on_term(int number)
{
    (void)number;
    stopped = 1;
}

static long now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail for this clock */
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* The product of the first tensor that has a matrix: @ret_y[*ret_n], the caller's. */
static int multiply(const struct qd_artifact *a, float **ret_y, size_t *ret_n, struct qd_error *err)
{
    struct qd_matrix w;
    int r = QD_E_NOT_FOUND;
    for (size_t i = 0; r < 0 && i < qd_artifact_n_tensors(a); i++)
        r = qd_artifact_tensor_at(a, i)->n_dims == 2 ? qd_tensor_matrix(qd_artifact_tensor_at(a, i), 0, &w, err) : r;
    if (r < 0)
        return r;
    size_t scratch_bytes = qd_matmul_scratch_bytes(&w, 1, NULL);
    void *scratch = aligned_alloc(64, scratch_bytes);
    float *x = calloc(w.n_cols, sizeof *x), *y = calloc(w.n_rows, sizeof *y);
    for (uint64_t i = 0; x && i < w.n_cols; i++)
        x[i] = (float)(i % 16) / 8 - 1;
    r = scratch && x && y ? qd_matmul(&w, x, 1, y, NULL, scratch, scratch_bytes, err) : QD_E_NO_MEMORY;
    free(scratch);
    free(x);
    *ret_y = y;
    *ret_n = w.n_rows;
    return r;
}

static float *first; /* product */
static char served[32];
static unsigned long n_opens, n_failed, n_other;

static void look(const struct qd_artifact *a, long begun_ms)
{
    struct qd_error err = {0};
    float *y = NULL;
    size_t n = 0;
    if (multiply(a, &y, &n, &err) < 0) {
        n_failed++;
        fprintf(stderr, "multiply: %s\n", err.message);
    }
    n_other += first && y && memcmp(first, y, n * sizeof *y) != 0;
    if (!first)
        first = y;
    else
        free(y);
    if (strcmp(served, qd_artifact_info(a)->layout) != 0) {
        (void)snprintf(served, sizeof served, "%s", qd_artifact_info(a)->layout); /* a name */
        printf("%s %ld\n", served, now_ms() - begun_ms);
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    struct sigaction act = {.sa_handler = on_term};
    struct qd_client *client;
    struct qd_error err;
    if (argc != 6)
        return 64;
    (void)sigaction(SIGTERM, &act, NULL); /* without it, it only ends without its last line */
    const struct qd_open_options o = {.model = argv[2], .scheme = argv[3], .layout = argv[4]};
    long begun_ms = now_ms();
    if (qd_connect(argv[1], &client, &err) < 0) {
        fprintf(stderr, "%s\n", err.message);
        return 69;
    }
    while (!stopped) {
        struct qd_artifact *a;
        n_opens++;
        if (qd_open(client, &o, &a, &err) < 0) {
            n_failed++;
            fprintf(stderr, "open: %s\n", err.message);
            continue;
        }
        look(a, begun_ms);
        qd_artifact_free(a);
        (void)usleep((useconds_t)atoi(argv[5])); /* the CPU is for others, too */
    }
    printf("opens=%lu failed=%lu other=%lu\n", n_opens, n_failed, n_other);
    free(first);
    qd_client_free(client);
    return n_failed || n_other;
}
