/*
 * NonMaxSuppression: of boxes that overlap the one with the best score. onnx:docs/Operators.md; what boxes without an
 * area do is ONNX Runtime's (onnxruntime:onnxruntime/core/providers/cpu/object_detection/non_max_suppression_helper.h).
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "kernels/core/checked.h"
#include "quant/graph/op.h"

struct box {
    float top, left, bottom, right;
};

struct candidate {
    float score;
    uint32_t index;
    struct box box;
};

struct suppression {
    const struct value *boxes, *scores;
    uint64_t n_batches, n_classes, n_boxes, most; /* of a class */
    float overlap, least;
    bool has_least, by_centre;
};

/* Corners in any order; or a centre with width and height. */
static struct box box_at(const struct suppression *s, uint64_t batch, uint64_t i)
{
    const float *b = (const float *)s->boxes->data + (batch * s->n_boxes + i) * 4;
    if (s->by_centre)
        return (struct box){b[1] - b[3] / 2.0f, b[0] - b[2] / 2.0f, b[1] + b[3] / 2.0f, b[0] + b[2] / 2.0f};
    return (struct box){fminf(b[0], b[2]), fminf(b[1], b[3]), fmaxf(b[0], b[2]), fmaxf(b[1], b[3])};
}

static float area(const struct box *b)
{
    return (b->bottom - b->top) * (b->right - b->left);
}

static bool overlap(const struct box *a, const struct box *b, float most)
{
    const float height = fminf(a->bottom, b->bottom) - fmaxf(a->top, b->top);
    const float width = fminf(a->right, b->right) - fmaxf(a->left, b->left);
    if (!(height > 0.0f && width > 0.0f))
        return false;
    const float both = height * width, all = area(a) + area(b) - both;
    return area(a) > 0.0f && area(b) > 0.0f && all > 0.0f && both / all > most;
}

/* The best first; of equal ones that which stands first. */
static int by_score(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? 1 : -1;
    return (x->index > y->index) - (x->index < y->index);
}

/* Those of a class that are better than the least score; NaN is none. */
static size_t find_candidates(const struct suppression *s, uint64_t batch, uint64_t class, struct candidate *dst)
{
    const float *scores = (const float *)s->scores->data + (batch * s->n_classes + class) * s->n_boxes;
    size_t n = 0;
    for (uint64_t i = 0; i < s->n_boxes; i++)
        if (s->has_least ? scores[i] > s->least : !isnan(scores[i]))
            dst[n++] = (struct candidate){scores[i], (uint32_t)i, box_at(s, batch, i)};
    qsort(dst, n, sizeof *dst, by_score);
    return n;
}

/* Keeps those that no better one overlaps, in front of @list; their number. */
static size_t suppress(const struct suppression *s, struct candidate *list, size_t n)
{
    size_t n_kept = 0;
    for (size_t i = 0; i < n && n_kept < s->most; i++) {
        bool keep = true;
        for (size_t k = 0; k < n_kept && keep; k++)
            keep = !overlap(&list[i].box, &list[k].box, s->overlap);
        if (keep)
            list[n_kept++] = list[i];
    }
    return n_kept;
}

static int read_inputs(struct op_call *c, struct suppression *s)
{
    double most = 0.0, overlap_most = 0.0, least = 0.0;
    int r = call_tensor_in(c, 0, ONNX_FLOAT, &s->boxes);
    if (r == 0)
        r = call_tensor_in(c, 1, ONNX_FLOAT, &s->scores);
    if (r < 0)
        return r;
    const struct shape *b = &s->boxes->shape, *k = &s->scores->shape;
    if (b->n_dims != 3 || k->n_dims != 3 || b->dims[2] != 4 || b->dims[0] != k->dims[0] || b->dims[1] != k->dims[2]) {
        char boxes[SHAPE_TEXT_BYTES], scores[SHAPE_TEXT_BYTES];
        return err_new(c->err, QD_E_INVALID, "boxes of shape %s with scores of shape %s", shape_text(b, boxes),
                       shape_text(k, scores));
    }
    if (b->dims[1] > UINT32_MAX)
        return err_new(c->err, QD_E_LIMIT, "%" PRId64 " boxes", b->dims[1]);
    if (call_in(c, 2))
        r = call_number(c, 2, &most);
    if (r == 0 && call_in(c, 3))
        r = call_number(c, 3, &overlap_most);
    if (r == 0 && call_in(c, 4))
        r = call_number(c, 4, &least);
    if (r == 0 && !(overlap_most >= 0.0 && overlap_most <= 1.0))
        r = err_new(c->err, QD_E_INVALID, "an iou_threshold of %g", overlap_most);
    s->n_batches = (uint64_t)b->dims[0];
    s->n_boxes = (uint64_t)b->dims[1];
    s->n_classes = (uint64_t)k->dims[1];
    s->most = !(most > 0.0) ? 0 : most < (double)s->n_boxes ? (uint64_t)most : s->n_boxes;
    s->overlap = (float)overlap_most;
    s->has_least = call_in(c, 4) != NULL;
    s->least = (float)least;
    s->by_centre = call_int(c, "center_point_box", 0) != 0;
    return r;
}

/* The result grows: how many boxes are left nobody knows before. */
struct selection {
    int64_t *rows; /* [n][3]: batch, class, box; scratch of the call */
    uint64_t n;
};

static int select_all(struct op_call *c, const struct suppression *s, struct candidate *list, struct selection *ret)
{
    uint64_t n_classes, most, bytes;
    if (!checked_mul(s->n_batches, s->n_classes, &n_classes) || !checked_mul(n_classes, s->most, &most) ||
        !checked_mul(most, 3 * sizeof *ret->rows, &bytes))
        return err_new(c->err, QD_E_LIMIT, "%" PRIu64 " boxes of %" PRIu64 " classes", s->most, s->n_classes);
    void *rows = NULL;
    int r = memory_take(c->memory, bytes + 1, &rows, c->err);
    ret->rows = rows;
    for (uint64_t i = 0; i < n_classes && r == 0; i++) {
        const uint64_t batch = i / s->n_classes, class = i % s->n_classes;
        const size_t n = suppress(s, list, find_candidates(s, batch, class, list));
        for (size_t k = 0; k < n; k++, ret->n++) {
            ret->rows[3 * ret->n] = (int64_t)batch;
            ret->rows[3 * ret->n + 1] = (int64_t) class;
            ret->rows[3 * ret->n + 2] = list[k].index;
        }
    }
    return r;
}

int op_non_max_suppression(struct op_call *c)
{
    struct suppression s = {.boxes = NULL};
    struct selection selected = {NULL, 0};
    struct value *out;
    void *list = NULL;
    int r = read_inputs(c, &s);
    if (r == 0)
        r = memory_take(c->memory, s.n_boxes * sizeof(struct candidate) + 1, &list, c->err);
    if (r == 0)
        r = select_all(c, &s, list, &selected);
    if (r == 0)
        r = call_tensor(c, 0, ONNX_INT64, &(struct shape){2, {(int64_t)selected.n, 3}}, &out);
    for (uint64_t i = 0; r == 0 && i < 3 * selected.n; i++)
        ((int64_t *)out->data)[i] = selected.rows[i];
    memory_give(c->memory, selected.rows);
    memory_give(c->memory, list);
    return r;
}
