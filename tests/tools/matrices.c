/*
 * An app that computes with an ONNX artifact's weights: every matrix of it, in two layouts.
 *
 * usage: matrices SOCKET MODEL SCHEME LAYOUT [FOLDER]
 *
 * Opens MODEL portable and in LAYOUT. For each weight that is codes alone a line: its name, rows, columns, block, how
 * many values its decoded rows and its products with 1 and with 7 columns differ in between the two, and the layouts of
 * the second's codes and scales. FOLDER/NAME: the decoded rows, floats.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <quantd/quantd.h>

enum { N_MAX = 7, PATH_BYTES = 4096 };

static int complain(const struct qd_error *err)
{
    fprintf(stderr, "%s: %s; %s\n", qd_error_name(err->code), err->message, err->hint);
    return qd_error_exit_code(err->code);
}

static float *take(size_t n)
{
    float *p = calloc(n, sizeof *p);
    if (!p)
        abort();
    return p;
}

static size_t differences(const float *a, const float *b, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += memcmp(&a[i], &b[i], sizeof *a) != 0;
    return count;
}

static float *decode(const struct qd_matrix *w)
{
    struct qd_error err;
    float *rows = take(w->n_rows * w->n_cols);
    for (uint64_t r = 0; r < w->n_rows; r++)
        if (qd_dequantize_row(w, r, rows + r * w->n_cols, &err) < 0)
            exit(complain(&err));
    return rows;
}

static float *multiply(const struct qd_matrix *w, const float *x, size_t n)
{
    struct qd_error err;
    const size_t n_bytes = qd_matmul_scratch_bytes(w, n, NULL);
    void *scratch = aligned_alloc(64, n_bytes + 64);
    float *y = take(n * w->n_rows);
    if (!scratch || qd_matmul(w, x, n, y, NULL, scratch, n_bytes, &err) < 0)
        exit(complain(&err));
    free(scratch);
    return y;
}

static size_t compare(const struct qd_matrix *a, const struct qd_matrix *b, size_t n)
{
    float *x = take(n * a->n_cols);
    for (size_t i = 0; i < n * a->n_cols; i++)
        x[i] = (float)((int)(i * 2654435761u >> 16 & 1023) - 512) / 512;
    float *p = multiply(a, x, n), *q = multiply(b, x, n);
    const size_t found = differences(p, q, n * a->n_rows);
    free(x);
    free(p);
    free(q);
    return found;
}

static void show(const struct qd_tensor *t, const struct qd_matrix *a, const struct qd_matrix *b, const char *folder)
{
    float *p = decode(a), *q = decode(b);
    printf("%s %llu %llu %llu %zu %zu %zu %s %s\n", t->name, (unsigned long long)a->n_rows,
           (unsigned long long)a->n_cols, (unsigned long long)a->block, differences(p, q, a->n_rows * a->n_cols),
           compare(a, b, 1), compare(a, b, N_MAX), qd_layout_info(b->layout)->name,
           qd_layout_info(t->codes->scales->layout)->name);
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/%s", folder ? folder : "", t->name); /* a cut one does not open */
    FILE *f = folder ? fopen(path, "we") : NULL;
    if (f && fwrite(q, sizeof *q, a->n_rows * a->n_cols, f) != a->n_rows * a->n_cols)
        abort();
    if (f)
        (void)fclose(f); /* read by a test, which misses what is not there */
    free(p);
    free(q);
}

int main(int argc, char **argv)
{
    struct qd_client *c = NULL;
    struct qd_artifact *portable = NULL, *packed = NULL;
    struct qd_error err;
    if (argc < 5)
        return 64;
    struct qd_open_options o = {.model = argv[2], .scheme = argv[3], .verify = QD_VERIFY_FULL};
    int r = qd_connect(argv[1], &c, &err);
    if (r == 0)
        r = qd_open(c, &o, &portable, &err);
    o.layout = argv[4];
    if (r == 0)
        r = qd_open(c, &o, &packed, &err);
    for (size_t i = 0; r == 0 && i < qd_artifact_n_tensors(portable); i++) {
        const struct qd_tensor *t = qd_artifact_tensor_at(portable, i), *of_packed;
        struct qd_matrix a, b;
        if (!t->codes)
            continue;
        r = qd_tensor_matrix(t, 0, &a, &err);
        of_packed = qd_artifact_tensor(packed, t->name);
        if (r == 0)
            r = qd_tensor_matrix(of_packed, 0, &b, &err);
        if (r == 0)
            show(of_packed, &a, &b, argc > 5 ? argv[5] : NULL);
    }
    qd_artifact_free(portable);
    qd_artifact_free(packed);
    qd_client_free(c);
    return r < 0 ? complain(&err) : 0;
}
