/*
 * A product with served weights: y = x * W^T for one matrix of a model.
 *     cc matmul.c $(pkg-config --cflags --libs quantd) -o matmul && ./matmul tiny-kjv q8_0 blk.0.attn_q.weight
 */
#include <stdio.h>
#include <stdlib.h>

#include <quantd/quantd.h>

static int fail(const struct qd_error *err)
{
    fprintf(stderr, "%s\n", err->message);
    if (err->hint[0])
        fprintf(stderr, "  %s\n", err->hint);
    return qd_error_exit_code(err->code);
}

/* Activations of some model's making; here a wave. */
static float *make_input(uint64_t n)
{
    float *x = calloc(n, sizeof *x);
    for (uint64_t i = 0; x && i < n; i++)
        x[i] = (float)(i % 16) / 8 - 1;
    return x;
}

/* The five lines: a tensor's matrix, scratch that is the caller's, the product. */
static int multiply(const struct qd_artifact *artifact, const char *tensor, struct qd_error *err)
{
    struct qd_matrix w;
    if (qd_tensor_matrix(qd_artifact_tensor(artifact, tensor), 0, &w, err) < 0)
        return -1;
    size_t scratch_bytes = qd_matmul_scratch_bytes(&w, 1, NULL);
    void *scratch = aligned_alloc(64, scratch_bytes);
    float *x = make_input(w.n_cols), *y = calloc(w.n_rows, sizeof *y);
    *err = (struct qd_error){.code = QD_E_NO_MEMORY, .message = "out of memory"};
    int r = scratch && x && y ? qd_matmul(&w, x, 1, y, NULL, scratch, scratch_bytes, err) : QD_E_NO_MEMORY;

    if (r == 0)
        printf("%s: %s, %s, %llu x %llu\n", tensor, qd_type_info(w.type)->name, qd_layout_info(w.layout)->name,
               (unsigned long long)w.n_rows, (unsigned long long)w.n_cols);
    for (uint64_t i = 0; r == 0 && i < w.n_rows && i < 8; i++)
        printf("y[%llu] = %g\n", (unsigned long long)i, (double)y[i]);
    free(scratch);
    free(x);
    free(y);
    return r;
}

int main(int argc, char **argv)
{
    struct qd_error err;
    struct qd_client *client;
    struct qd_artifact *artifact;
    if (argc < 4) {
        fprintf(stderr, "usage: %s MODEL SCHEME TENSOR [LAYOUT]\n", argv[0]);
        return 64;
    }
    if (qd_connect(NULL, &client, &err) < 0)
        return fail(&err);
    /* native: in the order that this CPU reads best, packed once for all processes */
    struct qd_open_options options = {.model = argv[1], .scheme = argv[2], .layout = argc > 4 ? argv[4] : "native"};
    int r = qd_open(client, &options, &artifact, &err);
    qd_client_free(client); /* the artifact lives on */
    if (r < 0)
        return fail(&err);
    r = multiply(artifact, argv[3], &err);
    qd_artifact_free(artifact);
    return r < 0 ? fail(&err) : 0;
}
