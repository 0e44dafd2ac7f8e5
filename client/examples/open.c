/*
 * Opens a model and shows what it is made of:
 *     cc open.c $(pkg-config --cflags --libs quantd) -o open && ./open tiny q8_0
 */
#include <stdio.h>

#include <quantd/quantd.h>

static int fail(const struct qd_error *err)
{
    fprintf(stderr, "%s\n", err->message);
    if (err->hint[0])
        fprintf(stderr, "  %s\n", err->hint);
    return qd_error_exit_code(err->code);
}

static int show_progress(const struct qd_progress *p, void *data)
{
    (void)data;
    if (p->total_bytes)
        fprintf(stderr, "%s: %3.0f %% %s\n", p->state, 100.0 * (double)p->done_bytes / (double)p->total_bytes,
                p->tensor);
    return 0; /* anything else stops waiting */
}

int main(int argc, char **argv)
{
    struct qd_error err;
    struct qd_client *client;
    struct qd_artifact *artifact;
    if (argc < 2) {
        fprintf(stderr, "usage: %s MODEL [SCHEME]\n", argv[0]);
        return 64;
    }
    if (qd_connect(NULL, &client, &err) < 0)
        return fail(&err);
    struct qd_open_options options = {
        .model = argv[1], .scheme = argc > 2 ? argv[2] : "auto", .progress = show_progress};
    int r = qd_open(client, &options, &artifact, &err);
    qd_client_free(client); /* the artifact lives on */
    if (r < 0)
        return fail(&err);

    const struct qd_artifact_info *info = qd_artifact_info(artifact);
    printf("%s as %s: %zu tensors, %llu bytes, signed by %s\n", info->model, info->scheme,
           qd_artifact_n_tensors(artifact), (unsigned long long)info->bytes, info->signer);
    const char *architecture;
    if (qd_meta_string(artifact, "general.architecture", &architecture, NULL, NULL) == 0)
        printf("architecture %s\n", architecture);
    for (size_t i = 0; i < qd_artifact_n_tensors(artifact); i++) {
        const struct qd_tensor *t = qd_artifact_tensor_at(artifact, i);
        printf("%-32s %-5s %10llu bytes at %p\n", t->name, qd_type_info(t->type)->name, (unsigned long long)t->bytes,
               t->data);
    }
    qd_artifact_free(artifact);
    return 0;
}
