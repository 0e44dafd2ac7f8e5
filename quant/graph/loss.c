/* NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss. onnx:docs/Operators.md. */
#include <inttypes.h>

#include "quant/graph/row.h"
#include "quant/graph/softmax.h"
#include "quant/graph/types.h"

struct loss {
    const struct value *scores;  /* [N, C, ...]: logarithms of probabilities */
    const struct value *target;  /* [N, ...]: int32 or int64 */
    const struct value *weights; /* [C]; NULL: 1 each */
    uint64_t n_classes, inner;
    bool has_ignored;
    int64_t ignored;
};

static int loss_in(struct op_call *c, struct loss *l)
{
    const struct onnx_attr *ignored = call_attr(c, "ignore_index");
    char scores[SHAPE_TEXT_BYTES], target[SHAPE_TEXT_BYTES];
    int r = call_floats_in(c, 0, &l->scores);
    if (r == 0)
        r = call_tensor_in(c, 1, ONNX_UNDEFINED, &l->target);
    if (r < 0)
        return r;
    struct shape due = l->scores->shape;
    for (uint32_t d = 1; d + 1 < due.n_dims; d++)
        due.dims[d] = due.dims[d + 1];
    due.n_dims -= due.n_dims > 1;
    if (l->scores->shape.n_dims < 2 || !shape_equal(&due, &l->target->shape))
        return err_new(c->err, QD_E_INVALID, "a target of shape %s for scores of %s",
                       shape_text(&l->target->shape, target), shape_text(&l->scores->shape, scores));
    if (l->target->type != ONNX_INT32 && l->target->type != ONNX_INT64)
        return err_new(c->err, QD_E_UNSUPPORTED, "a target of %s", onnx_type_name(l->target->type));
    l->n_classes = (uint64_t)l->scores->shape.dims[1];
    l->inner = dims_product(&l->scores->shape, 2, l->scores->shape.n_dims);
    l->has_ignored = ignored && ignored->kind == ONNX_ATTR_INT;
    l->ignored = l->has_ignored ? ignored->i : 0;
    return call_in(c, 2) ? call_n_floats_in(c, 2, l->n_classes, &l->weights) : 0;
}

/* Loss @i, a negative weight times a score, and its weight: both 0 where the target is to be ignored. */
static int one_loss(struct op_call *c, const struct loss *l, uint64_t i, double *ret_loss, double *ret_weight)
{
    const struct value *t = l->target;
    const int64_t class = t->type == ONNX_INT64 ? ((const int64_t *)t->data)[i] : ((const int32_t *)t->data)[i];
    *ret_loss = *ret_weight = 0.0;
    if (l->has_ignored && class == l->ignored)
        return 0;
    if (class < 0 || (uint64_t) class >= l->n_classes)
        return err_new(c->err, QD_E_INVALID, "target %" PRIu64 " is class %" PRId64 " of %" PRIu64, i, class,
                       l->n_classes);
    const uint64_t at = (i / l->inner * l->n_classes + (uint64_t) class) * l->inner + i % l->inner;
    *ret_weight = l->weights ? float_at(l->weights, (uint64_t) class) : 1.0;
    *ret_loss = -*ret_weight * float_at(l->scores, at);
    return 0;
}

/* Output 0: each loss, their sum, or their mean by weights. */
static int loss_out(struct op_call *c, const struct loss *l)
{
    const bool each = call_text_is(c, "reduction", "none", "mean"), mean = call_text_is(c, "reduction", "mean", "mean");
    const struct shape scalar = {0};
    struct value *out;
    struct sum losses = {{0}}, weights = {{0}};
    double x[ROW_PIECE], w[ROW_PIECE];
    int r = call_tensor(c, 0, l->scores->type, each ? &l->target->shape : &scalar, &out);
    if (r < 0)
        return r;
    const struct row all = row_of(out, 0, l->target->n, 1);
    for (uint64_t at = 0; at < all.n; at += ROW_PIECE) {
        const size_t n = row_piece(&all, at);
        for (size_t i = 0; i < n && r == 0; i++)
            r = one_loss(c, l, at + i, &x[i], &w[i]);
        if (r < 0)
            return r;
        sum_add(&losses, x, n);
        sum_add(&weights, w, n);
        if (each)
            row_store(&all, at, n, x);
    }
    const double total = sum_fold(&losses), result = mean ? total / sum_fold(&weights) : total;
    const struct row one = row_of(out, 0, 1, 1);
    if (!each)
        row_store(&one, 0, 1, &result);
    return 0;
}

int op_negative_log_likelihood_loss(struct op_call *c)
{
    WIDEN(c, op_negative_log_likelihood_loss);
    struct loss l = {0};
    int r = loss_in(c, &l);
    return r < 0 ? r : loss_out(c, &l);
}

int op_softmax_cross_entropy_loss(struct op_call *c)
{
    WIDEN(c, op_softmax_cross_entropy_loss);
    struct loss l = {0};
    struct value *logs = NULL;
    int r = loss_in(c, &l);
    if (r == 0)
        r = call_wants(c, 1) ? call_tensor(c, 1, l.scores->type, &l.scores->shape, &logs)
                             : value_new(c->memory, l.scores->type, &l.scores->shape, &logs, c->err);
    if (r < 0)
        return r;
    struct softmax s = {.in = l.scores, .out = logs, .n = l.n_classes, .inner = l.inner, .log = true};
    softmax_run(c, &s);
    l.scores = logs;
    r = loss_out(c, &l);
    if (!call_wants(c, 1))
        (void)value_release(logs);
    return r;
}
