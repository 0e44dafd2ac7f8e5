/*
 * first_product MODEL SCHEME LAYOUT TENSOR: what an application does that starts, asks for its weights and computes.
 * Opens the artifact, multiplies one vector by the matrix TENSOR and prints a line. For each line on standard
 * input: multiplies by every matrix of the model once, one thread, and prints how long that took. Ends with the input.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <quantd/quantd.h>

struct memory {
    float *x, *y;
    void *scratch;
    size_t x_floats, y_floats, scratch_bytes;
};

__attribute__((noreturn)) static void die(const char *what)
{
    (void)fprintf(stderr, "first_product: %s\n", what);
    exit(EXIT_FAILURE);
}

static double seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail with this clock */
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float *grown(float *old, size_t *n_floats, size_t wanted)
{
    if (wanted <= *n_floats)
        return old;
    free(old);
    float *grown = malloc(wanted * sizeof *grown);
    if (!grown)
        die("out of memory");
    for (size_t i = 0; i < wanted; i++)
        grown[i] = (float)(i % 16) / 8 - 1;
    *n_floats = wanted;
    return grown;
}

static void make_room(struct memory *m, const struct qd_matrix *w)
{
    size_t n_bytes = qd_matmul_scratch_bytes(w, 1, NULL);
    m->x = grown(m->x, &m->x_floats, w->n_cols);
    m->y = grown(m->y, &m->y_floats, w->n_rows);
    if (n_bytes <= m->scratch_bytes)
        return;
    free(m->scratch);
    m->scratch_bytes = n_bytes;
    m->scratch = aligned_alloc(64, n_bytes);
    if (!m->scratch)
        die("out of memory");
}

static float product(struct memory *m, const struct qd_tensor *t)
{
    struct qd_matrix w;
    struct qd_error err;
    if (qd_tensor_matrix(t, 0, &w, &err) < 0)
        die(err.message);
    make_room(m, &w);
    if (qd_matmul(&w, m->x, 1, m->y, NULL, m->scratch, m->scratch_bytes, &err) < 0)
        die(err.message);
    return m->y[0];
}

static void multiply_all(struct memory *m, const struct qd_artifact *a)
{
    double start = seconds(), sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < qd_artifact_n_tensors(a); i++) {
        const struct qd_tensor *t = qd_artifact_tensor_at(a, i);
        if (t->n_dims != 2)
            continue;
        sum += (double)product(m, t);
        n++;
    }
    printf("whole model: %zu matrices, %.3f s, sum %.9g\n", n, seconds() - start, sum);
}

int main(int argc, char **argv)
{
    struct qd_error err;
    struct qd_client *client;
    struct qd_artifact *artifact = NULL;
    struct memory memory = {0};
    char line[64];
    if (argc != 5)
        die("usage: first_product MODEL SCHEME LAYOUT TENSOR");
    struct qd_open_options options = {.model = argv[1], .scheme = argv[2], .layout = argv[3]};
    if (qd_connect(NULL, &client, &err) < 0 || qd_open(client, &options, &artifact, &err) < 0)
        die(err.message);
    float y = product(&memory, qd_artifact_tensor(artifact, argv[4]));
    printf("%s y[0] = %.9g\n", qd_artifact_info(artifact)->layout, (double)y);
    (void)fflush(stdout); /* whoever waits for the line; if it is gone we end below */
    while (fgets(line, sizeof line, stdin)) {
        multiply_all(&memory, artifact);
        (void)fflush(stdout); /* as above */
    }
    qd_artifact_free(artifact);
    qd_client_free(client);
    return EXIT_SUCCESS;
}
