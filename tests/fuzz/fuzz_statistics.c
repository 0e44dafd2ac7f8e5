/* Input: statistics of a calibration. What is read encodes to the same bytes, and every method finds a range in it. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu.h"
#include "quant/calib/range.h"
#include "statistics/statistics.h"
#include "tests/fuzz/fuzz.h"

enum { BUDGET_BYTES = 8 << 20, EDGES_TRIED = 8 };

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void check_ranges(const struct observer *o)
{
    for (int m = 0; m < RANGE_N_METHODS; m++) {
        const struct range_options options = {(enum range_method)m, grid_s8, 100};
        struct range r;
        if (range_choose(o, &options, &r, NULL) < 0)
            continue;
        must(r.low <= 0 && r.high >= 0 && r.low >= (double)(o->low < 0 ? o->low : 0));
        must(r.high <= (double)(o->high > 0 ? o->high : 0));
        const struct code_params p = range_params(r, grid_s8);
        must(p.scale > 0 && p.scale < 3e38f && p.zero_point >= -128 && p.zero_point <= 127);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    CLEANUP(statistics_free) struct statistics *s = NULL;
    CLEANUP(buffer_clear) struct buffer again = {0};
    struct qd_error err = {0};
    const int r = statistics_decode((struct bytes){data, n_bytes}, BUDGET_BYTES, &s, &err);
    must(r == 0 || r == QD_E_CORRUPT || r == QD_E_UNSUPPORTED || r == QD_E_LIMIT);
    must(r == 0 || (err.code == r && err.message[0]));
    if (r < 0)
        return 0;
    must(statistics_encode(s, &again, NULL) == 0 && again.n == n_bytes && memcmp(again.data, data, n_bytes) == 0);
    for (size_t i = 0; i < s->n_edges && i < EDGES_TRIED; i++)
        check_ranges(s->edges[i].all);
    return 0;
}

void fuzz_seeds(fuzz_use *use, void *data)
{
    const float x[] = {-1, 0, 2, 5};
    const struct digest model = {{1}}, set = {{2}};
    CLEANUP(statistics_free) struct statistics *s = statistics_new(&model);
    CLEANUP(buffer_clear) struct buffer b = {0};
    struct edge_statistics *e;
    must(s && statistics_add_set(s, &set, NULL) == 0);
    must(statistics_edge(s, "y", true, 1, 2, &e, NULL) == 0 && observer_add(e->all, ops_native(), x, 4, NULL) == 0);
    must(observer_add(e->channels[1], ops_native(), x, 2, NULL) == 0);
    must(statistics_edge(s, "x", false, 0, 0, &e, NULL) == 0 && observer_add(e->all, ops_native(), x, 3, NULL) == 0);
    must(statistics_encode(s, &b, NULL) == 0);
    use(buffer_span(&b), data);
}

void fuzz_more(fuzz_use *use, void *data)
{
    (void)use;
    (void)data;
}
