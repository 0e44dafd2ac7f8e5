/*
 * The peer of bench_matmul: products by libggml's CPU backend (libggml-base.so and libggml-cpu-VARIANT.so of the
 * package, loaded at run time), with the buffer type that the backend itself asks for, which repacks weights of some
 * types; on a pool of threads of its own that is asleep while nothing is asked of it.
 */
#ifndef QUANTD_TESTS_BENCH_MATMUL_PEER_H
#define QUANTD_TESTS_BENCH_MATMUL_PEER_H

#include <stdbool.h>
#include <stddef.h>

#include <quantd/matmul.h>

struct peer;
struct peer_product;

/*
 * The CPU backend in @folder; @variant NULL: the one that it scores best for this CPU, as ggml does. NULL: cannot be
 * had (said on stderr).
 */
struct peer *peer_open(const char *folder, const char *variant);

/* Such as "ggml 0.9.4 (abc123), zen4". */
const char *peer_name(const struct peer *p);

/* @n_copies of a portable matrix, each to be multiplied by @n columns of its own number of inputs. */
struct peer_product *peer_product_new(struct peer *p, const struct qd_matrix *w, size_t n_copies, size_t n_max);
void peer_product_free(struct peer_product *m);

/* Where the weights are: "CPU" as they were, "CPU_REPACK" in an order of its own. */
const char *peer_product_buffer(const struct peer_product *m);

/*
 * Makes ready for @n columns at @x ([n][n_cols]; copied), by the first @n_products copies one after the other in one
 * graph, and for @n_threads.
 */
void peer_product_begin(struct peer_product *m, const float *x, size_t n, size_t n_products, unsigned n_threads);
void peer_product_run(struct peer_product *m);

/* [n][n_rows] of the last one. */
const float *peer_product_result(const struct peer_product *m);

#endif
