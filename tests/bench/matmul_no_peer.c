/* Where the peer's headers were not there when this was built. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/bench/matmul_peer.h"

struct peer *peer_open(const char *folder, const char *variant)
{
    (void)folder;
    (void)variant;
    (void)fprintf(stderr, "left out: ggml: no headers of it (./dev peers fetches them)\n");
    return NULL;
}

const char *peer_name(const struct peer *p)
{
    (void)p;
    return "";
}

struct peer_product *peer_product_new(struct peer *p, const struct qd_matrix *w, size_t n_copies, size_t n_max)
{
    (void)p;
    (void)w;
    (void)n_copies;
    (void)n_max;
    abort(); /* there is no peer to give */
}

void peer_product_free(struct peer_product *m)
{
    (void)m;
}

const char *peer_product_buffer(const struct peer_product *m)
{
    (void)m;
    return "";
}

void peer_product_begin(struct peer_product *m, const float *x, size_t n, size_t n_products, unsigned n_threads)
{
    (void)m;
    (void)x;
    (void)n;
    (void)n_products;
    (void)n_threads;
}

void peer_product_run(struct peer_product *m)
{
    (void)m;
}

const float *peer_product_result(const struct peer_product *m)
{
    (void)m;
    return NULL;
}
