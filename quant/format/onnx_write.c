#include "quant/format/onnx_write.h"

#include <stdio.h>
#include <string.h>

#include "kernels/core/checked.h"
#include "kernels/core/io.h"
#include "quant/format/protobuf.h"

enum { SLICE_BYTES = 1 << 20 };

/* Field numbers of onnx.proto that the writer has to know. */
enum {
    MODEL_IR_VERSION = 1,
    MODEL_GRAPH = 7,
    MODEL_OPSET = 8,
    MODEL_PROP = 14,
    MODEL_FUNCTION = 25,
    GRAPH_NODE = 1,
    GRAPH_INITIALIZER = 5,
    GRAPH_INPUT = 11,
    GRAPH_VALUE_INFO = 13,
    NODE_INPUT = 1,
    NODE_OUTPUT = 2,
    NODE_NAME = 3,
    NODE_OP_TYPE = 4,
    NODE_ATTR = 5,
    NODE_DOMAIN = 7,
    ATTR_TENSOR = 5,
    ATTR_GRAPH = 6,
    FUNCTION_NODE = 7,
    TENSOR_DIMS = 1,
    TENSOR_TYPE = 2,
    TENSOR_NAME = 8,
    TENSOR_RAW = 9,
    TENSOR_ENTRY = 13,
    TENSOR_LOCATION = 14,
};

struct writer {
    const struct onnx_model *model;
    struct source *source;
    const struct onnx_edits *edits;
    const char *data_name;
    uint64_t external_from;
    struct onnx_output *out;
    size_t room;
    uint64_t *drops; /* owned, as the next two: @edits' lists, sorted */
    struct onnx_rename *renames;
    const struct onnx_addition **additions;
    struct qd_error *err;
};

/* ---- protobuf ---- */

static void put_varint(struct buffer *b, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        buffer_put_u8(b, (uint8_t)(v | 0x80));
    buffer_put_u8(b, (uint8_t)v);
}

static void put_tag(struct buffer *b, uint32_t field, enum pb_wire wire)
{
    put_varint(b, (uint64_t)field << 3 | wire);
}

static void put_int(struct buffer *b, uint32_t field, int64_t v)
{
    put_tag(b, field, PB_VARINT);
    put_varint(b, (uint64_t)v);
}

static void put_bytes(struct buffer *b, uint32_t field, const void *data, size_t n)
{
    put_tag(b, field, PB_BYTES);
    put_varint(b, n);
    buffer_put(b, data, n);
}

static void put_text(struct buffer *b, uint32_t field, const char *text)
{
    put_bytes(b, field, text, strlen(text));
}

static void put_message(struct buffer *b, uint32_t field, const struct buffer *message)
{
    put_bytes(b, field, message->data, message->n);
    b->failed |= message->failed;
}

static void put_prop(struct buffer *b, uint32_t field, const char *key, const char *value)
{
    CLEANUP(buffer_clear) struct buffer entry = {0};
    put_text(&entry, 1, key);
    put_text(&entry, 2, value);
    put_message(b, field, &entry);
}

static void put_number_prop(struct buffer *b, uint32_t field, const char *key, uint64_t value)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    put_prop(b, field, key, text);
}

/* ---- lookups: the lists sorted, so that a model with as many changes as nodes is written in n log n ---- */

static int by_number(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

static int compare_drops(const void *a, const void *b)
{
    return by_number(*(const uint64_t *)a, *(const uint64_t *)b);
}

static int compare_renames(const void *a, const void *b)
{
    const struct onnx_rename *x = a, *y = b;
    const int r = by_number(x->node, y->node);
    return r ? r : by_number(x->input, y->input);
}

/* Of one place in the order in which they were given: their addresses say it. */
static int compare_additions(const void *a, const void *b)
{
    const struct onnx_addition *x = *(const struct onnx_addition *const *)a,
                               *y = *(const struct onnx_addition *const *)b;
    int r = by_number(x->graph, y->graph);
    r = r ? r : by_number(x->before, y->before);
    return r ? r : x < y ? -1 : x > y;
}

/* Sorted copies of the lists of @w->edits. */
static int sort_edits(struct writer *w)
{
    const struct onnx_edits *e = w->edits;
    w->drops = calloc(e->n_drops + 1, sizeof *w->drops);
    w->renames = calloc(e->n_renames + 1, sizeof *w->renames);
    w->additions = calloc(e->n_additions + 1, sizeof *w->additions);
    if (!w->drops || !w->renames || !w->additions)
        return err_new(w->err, QD_E_NO_MEMORY, "%zu changes", e->n_drops + e->n_renames + e->n_additions);
    for (size_t i = 0; i < e->n_drops; i++)
        w->drops[i] = e->drops[i];
    for (size_t i = 0; i < e->n_renames; i++)
        w->renames[i] = e->renames[i];
    for (size_t i = 0; i < e->n_additions; i++)
        w->additions[i] = &e->additions[i];
    qsort(w->drops, e->n_drops, sizeof *w->drops, compare_drops);
    qsort(w->renames, e->n_renames, sizeof *w->renames, compare_renames);
    qsort(w->additions, e->n_additions, sizeof *w->additions, compare_additions);
    return 0;
}

static void unsort_edits(struct writer *w)
{
    free(w->drops);
    free(w->renames);
    free(w->additions);
}

static bool is_dropped(const struct writer *w, uint64_t offset)
{
    return bsearch(&offset, w->drops, w->edits->n_drops, sizeof offset, compare_drops) != NULL;
}

static const char *renamed(const struct writer *w, uint64_t node, size_t input)
{
    const struct onnx_rename key = {.node = node, .input = input};
    const struct onnx_rename *found = bsearch(&key, w->renames, w->edits->n_renames, sizeof key, compare_renames);
    return found ? found->name : NULL;
}

static bool has_renames(const struct writer *w, const struct onnx_node *n)
{
    bool has = false;
    for (size_t i = 0; i < n->n_inputs && w->edits->n_renames && !has; i++)
        has = renamed(w, n->range.offset, i) != NULL;
    return has;
}

/* The first addition that is not before (@graph, @before). */
static size_t first_addition(const struct writer *w, uint64_t graph, uint64_t before)
{
    size_t low = 0, high = w->edits->n_additions;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const struct onnx_addition *a = w->additions[middle];
        const int r = by_number(a->graph, graph);
        if ((r ? r : by_number(a->before, before)) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* ---- copying ---- */

static int copy_range(struct writer *w, struct buffer *b, uint64_t offset, uint64_t bytes)
{
    buffer_reserve(b, (size_t)bytes);
    if (b->failed)
        return err_new(w->err, QD_E_NO_MEMORY, "the model's file");
    for (uint64_t done = 0; done < bytes;) {
        uint8_t slice[4096];
        const size_t n = bytes - done < sizeof slice ? (size_t)(bytes - done) : sizeof slice;
        int r = source_read_meta(w->source, 0, offset + done, slice, n, w->err);
        if (r < 0)
            return r;
        buffer_put(b, slice, n);
        done += n;
    }
    return 0;
}

/* The field that the stream has just begun, tag included, as it stands. */
static int copy_field(struct writer *w, struct buffer *b, struct stream *st, const struct pb_field *f)
{
    if (!pb_skip(st, f))
        return st->result;
    return copy_range(w, b, f->start, st->at - f->start);
}

static struct stream *open_range(struct writer *w, const struct onnx_range *r)
{
    return stream_new(w->source, 0, r->offset, r->offset + r->bytes, w->err);
}

static int stream_done(const struct stream *st, const struct buffer *b, struct qd_error *err)
{
    return st->result ? st->result : b->failed ? err_new(err, QD_E_NO_MEMORY, "the model's file") : 0;
}

/* ---- payloads ---- */

static int add_payload(struct writer *w, const struct onnx_payload *p, struct onnx_payload **ret)
{
    struct onnx_output *o = w->out;
    if (o->n_payloads == w->room) {
        const size_t room = w->room ? 2 * w->room : 64;
        struct onnx_payload *larger = realloc(o->payloads, room * sizeof *larger);
        if (!larger)
            return err_new(w->err, QD_E_NO_MEMORY, "the list of payloads");
        o->payloads = larger;
        w->room = room;
    }
    struct onnx_payload *added = &o->payloads[o->n_payloads++];
    *added = *p;
    if (!checked_align(o->data_bytes, ONNX_DATA_ALIGNMENT, &added->offset) ||
        !checked_add(added->offset, added->bytes, &o->data_bytes))
        return err_new(w->err, QD_E_LIMIT, "the data file has more bytes than can be counted");
    *ret = added;
    return 0;
}

static void put_external(struct writer *w, struct buffer *b, const struct onnx_payload *p)
{
    put_prop(b, TENSOR_ENTRY, "location", w->data_name);
    put_number_prop(b, TENSOR_ENTRY, "offset", p->offset);
    put_number_prop(b, TENSOR_ENTRY, "length", p->bytes);
    put_int(b, TENSOR_LOCATION, 1);
}

static bool is_payload_field(uint32_t field)
{
    return (field >= 4 && field <= 7) || (field >= 9 && field <= 11) || field == TENSOR_ENTRY ||
           field == TENSOR_LOCATION;
}

/* The tensor's own fields, its payload in the data file. */
static int put_moved(struct writer *w, struct buffer *b, const struct onnx_tensor *t)
{
    CLEANUP(free) struct stream *st = open_range(w, &t->range);
    struct onnx_payload *p;
    struct pb_field f;
    int r =
        st ? add_payload(w, &(struct onnx_payload){.copied = t, .bytes = onnx_tensor_bytes(t)}, &p) : QD_E_NO_MEMORY;
    while (r == 0 && pb_next(st, &f))
        r = is_payload_field(f.number) ? pb_skip(st, &f) ? 0 : st->result : copy_field(w, b, st, &f);
    if (r < 0)
        return r;
    put_external(w, b, p);
    return stream_done(st, b, w->err);
}

/* A tensor that moves: large, of numbers, dense. External ones always, when anything does: theirs is another file. */
static bool moves(const struct writer *w, const struct onnx_tensor *t)
{
    if (w->external_from == UINT64_MAX || t->storage == ONNX_SPARSE || t->type == ONNX_STRING)
        return false;
    return t->external || onnx_tensor_bytes(t) >= w->external_from;
}

static int put_tensor(struct writer *w, struct buffer *b, uint32_t field, const struct onnx_tensor *t)
{
    CLEANUP(buffer_clear) struct buffer message = {0};
    int r = moves(w, t) ? put_moved(w, &message, t) : copy_range(w, &message, t->range.offset, t->range.bytes);
    put_message(b, field, &message);
    return r;
}

static int put_made(struct writer *w, struct buffer *b, uint32_t field, const struct onnx_made *made)
{
    CLEANUP(buffer_clear) struct buffer message = {0};
    const struct onnx_tensor *t = &made->tensor;
    for (size_t d = 0; d < t->n_dims; d++)
        put_int(&message, TENSOR_DIMS, t->dims[d]);
    put_int(&message, TENSOR_TYPE, t->type);
    put_text(&message, TENSOR_NAME, t->name);
    int r = 0;
    if (made->make || t->bytes >= w->external_from) {
        struct onnx_payload *p;
        r = add_payload(w, &(struct onnx_payload){.made = made, .bytes = t->bytes}, &p);
        if (r == 0)
            put_external(w, &message, p);
    } else {
        put_bytes(&message, TENSOR_RAW, t->memory, (size_t)t->bytes);
    }
    put_message(b, field, &message);
    return r;
}

/* ---- nodes ---- */

static void put_attr(struct buffer *b, const struct onnx_attr *a)
{
    CLEANUP(buffer_clear) struct buffer message = {0};
    uint32_t bits;
    put_text(&message, 1, a->name);
    memcpy(&bits, &a->f, sizeof bits);
    if (a->kind == ONNX_ATTR_FLOAT) {
        put_tag(&message, 2, PB_32);
        buffer_put_u32(&message, bits);
    } else if (a->kind == ONNX_ATTR_INT) {
        put_int(&message, 3, a->i);
    } else if (a->kind == ONNX_ATTR_STRING) {
        put_bytes(&message, 4, a->s.data, a->s.n);
    }
    for (size_t i = 0; a->kind == ONNX_ATTR_INTS && i < a->n_ints; i++)
        put_int(&message, 8, a->ints[i]);
    put_int(&message, 20, a->kind);
    put_message(b, NODE_ATTR, &message);
}

/* A node that is made: its attributes are numbers, texts and lists of integers. */
static void put_new_node(struct buffer *b, uint32_t field, const struct onnx_node *n)
{
    CLEANUP(buffer_clear) struct buffer message = {0};
    for (size_t i = 0; i < n->n_inputs; i++)
        put_text(&message, NODE_INPUT, n->inputs[i]);
    for (size_t i = 0; i < n->n_outputs; i++)
        put_text(&message, NODE_OUTPUT, n->outputs[i]);
    put_text(&message, NODE_NAME, n->name);
    put_text(&message, NODE_OP_TYPE, n->op_type);
    for (size_t i = 0; i < n->n_attrs; i++)
        put_attr(&message, &n->attrs[i]);
    if (n->domain[0])
        put_text(&message, NODE_DOMAIN, n->domain);
    put_message(b, field, &message);
}

static int put_graph(struct writer *w, struct buffer *b, uint32_t field, const struct onnx_graph *g);

/* An attribute field by field: tensors and graphs within it may change. */
static int put_old_attr(struct writer *w, struct buffer *b, const struct onnx_attr *a, const struct onnx_range *range)
{
    CLEANUP(buffer_clear) struct buffer message = {0};
    CLEANUP(free) struct stream *st = open_range(w, range);
    struct pb_field f;
    size_t n_tensors = 0, n_graphs = 0;
    int r = st ? 0 : QD_E_NO_MEMORY;
    while (r == 0 && pb_next(st, &f)) {
        const bool tensor = (f.number == ATTR_TENSOR || f.number == 10) && n_tensors < a->n_tensors;
        const bool graph = (f.number == ATTR_GRAPH || f.number == 11) && n_graphs < a->n_graphs;
        if ((tensor || graph) && !pb_skip(st, &f))
            r = st->result;
        else if (tensor)
            r = put_tensor(w, &message, f.number, &a->tensors[n_tensors++]);
        else if (graph)
            r = put_graph(w, &message, f.number, &a->graphs[n_graphs++]);
        else
            r = copy_field(w, &message, st, &f);
    }
    put_message(b, NODE_ATTR, &message);
    return r < 0 ? r : stream_done(st, &message, w->err);
}

static bool has_inner(const struct onnx_node *n)
{
    for (size_t i = 0; i < n->n_attrs; i++)
        if (n->attrs[i].n_graphs || n->attrs[i].n_tensors)
            return true;
    return false;
}

static int put_old_node(struct writer *w, struct buffer *b, uint32_t field, const struct onnx_node *n)
{
    CLEANUP(buffer_clear) struct buffer message = {0};
    CLEANUP(free) struct stream *st = open_range(w, &n->range);
    struct pb_field f;
    size_t n_inputs = 0, n_attrs = 0;
    int r = st ? 0 : QD_E_NO_MEMORY;
    while (r == 0 && pb_next(st, &f)) {
        const char *name = f.number == NODE_INPUT ? renamed(w, n->range.offset, n_inputs++) : NULL;
        const struct onnx_attr *a = f.number == NODE_ATTR ? &n->attrs[n_attrs++] : NULL;
        if ((name || a) && !pb_skip(st, &f))
            r = st->result;
        else if (name)
            put_text(&message, NODE_INPUT, name);
        else if (a)
            r = put_old_attr(w, &message, a, &(struct onnx_range){f.at, f.bytes});
        else
            r = copy_field(w, &message, st, &f);
    }
    put_message(b, field, &message);
    return r < 0 ? r : stream_done(st, &message, w->err);
}

static int put_node(struct writer *w, struct buffer *b, uint32_t field, const struct onnx_node *n)
{
    if (has_inner(n) || has_renames(w, n))
        return put_old_node(w, b, field, n);
    CLEANUP(buffer_clear) struct buffer message = {0};
    int r = copy_range(w, &message, n->range.offset, n->range.bytes);
    put_message(b, field, &message);
    return r;
}

/* ---- graphs ---- */

/* What comes into @graph before its node at @before (0: behind all of them). */
static int put_additions(struct writer *w, struct buffer *b, uint64_t graph, uint64_t before)
{
    int r = 0;
    for (size_t i = first_addition(w, graph, before); i < w->edits->n_additions && r == 0; i++) {
        const struct onnx_addition *a = w->additions[i];
        if (a->graph != graph || a->before != before)
            break;
        if (a->node)
            put_new_node(b, GRAPH_NODE, a->node);
        else
            r = put_made(w, b, GRAPH_INITIALIZER, a->tensor);
    }
    return r;
}

static int put_graph_field(struct writer *w, struct buffer *b, const struct onnx_graph *g, struct stream *st,
                           const struct pb_field *f, size_t *n_nodes, size_t *n_tensors)
{
    const struct onnx_node *node = f->number == GRAPH_NODE ? &g->nodes[(*n_nodes)++] : NULL;
    const bool sparse = f->number == 15;
    const struct onnx_tensor *tensor =
        f->number == GRAPH_INITIALIZER || sparse ? &g->initializers[(*n_tensors)++] : NULL;
    int r = node ? put_additions(w, b, g->range.offset, node->range.offset) : 0;
    if (r < 0)
        return r;
    if (f->wire == PB_BYTES && is_dropped(w, f->at))
        return pb_skip(st, f) ? 0 : st->result;
    if (!node && (!tensor || sparse))
        return copy_field(w, b, st, f);
    if (!pb_skip(st, f))
        return st->result;
    return node ? put_node(w, b, GRAPH_NODE, node) : put_tensor(w, b, GRAPH_INITIALIZER, tensor);
}

static int put_graph(struct writer *w, struct buffer *b, uint32_t field, const struct onnx_graph *g)
{
    CLEANUP(buffer_clear) struct buffer message = {0};
    CLEANUP(free) struct stream *st = open_range(w, &g->range);
    struct pb_field f;
    size_t n_nodes = 0, n_tensors = 0;
    int r = st ? 0 : QD_E_NO_MEMORY;
    while (r == 0 && pb_next(st, &f))
        r = put_graph_field(w, &message, g, st, &f, &n_nodes, &n_tensors);
    if (r == 0)
        r = put_additions(w, &message, g->range.offset, 0);
    put_message(b, field, &message);
    return r < 0 ? r : stream_done(st, &message, w->err);
}

static int put_function(struct writer *w, struct buffer *b, const struct onnx_function *fn)
{
    CLEANUP(buffer_clear) struct buffer message = {0};
    CLEANUP(free) struct stream *st = open_range(w, &fn->range);
    struct pb_field f;
    size_t n_nodes = 0;
    int r = st ? 0 : QD_E_NO_MEMORY;
    while (r == 0 && pb_next(st, &f)) {
        const struct onnx_node *node = f.number == FUNCTION_NODE ? &fn->nodes[n_nodes++] : NULL;
        if (node && !pb_skip(st, &f))
            r = st->result;
        else
            r = node ? put_node(w, &message, FUNCTION_NODE, node) : copy_field(w, &message, st, &f);
    }
    put_message(b, MODEL_FUNCTION, &message);
    return r < 0 ? r : stream_done(st, &message, w->err);
}

/* ---- the model ---- */

static void put_opsets(struct writer *w, struct buffer *b)
{
    for (size_t i = 0; i < w->edits->n_opsets; i++) {
        CLEANUP(buffer_clear) struct buffer message = {0};
        put_text(&message, 1, w->edits->opsets[i].domain);
        put_int(&message, 2, w->edits->opsets[i].version);
        put_message(b, MODEL_OPSET, &message);
    }
}

static int put_model_field(struct writer *w, struct buffer *b, struct stream *st, const struct pb_field *f,
                           size_t *n_functions)
{
    const bool replaced =
        (f->number == MODEL_IR_VERSION && w->edits->ir_version) || (f->number == MODEL_OPSET && w->edits->opsets);
    const bool own = f->number == MODEL_GRAPH || f->number == MODEL_FUNCTION || replaced;
    if (!own)
        return copy_field(w, b, st, f);
    if (!pb_skip(st, f))
        return st->result;
    if (f->number == MODEL_GRAPH)
        return put_graph(w, b, MODEL_GRAPH, w->model->graph);
    if (f->number == MODEL_FUNCTION)
        return put_function(w, b, &w->model->functions[(*n_functions)++]);
    if (f->number == MODEL_IR_VERSION)
        put_int(b, MODEL_IR_VERSION, w->edits->ir_version);
    return 0;
}

static int put_model(struct writer *w)
{
    struct buffer *b = &w->out->model;
    CLEANUP(free) struct stream *st = open_range(w, &w->model->range);
    struct pb_field f;
    size_t n_functions = 0;
    int r = st ? 0 : QD_E_NO_MEMORY;
    while (r == 0 && pb_next(st, &f))
        r = put_model_field(w, b, st, &f, &n_functions);
    if (r < 0)
        return r;
    put_opsets(w, b);
    for (size_t i = 0; i < w->edits->n_props; i++)
        put_prop(b, MODEL_PROP, w->edits->props[i].key, w->edits->props[i].value);
    return stream_done(st, b, w->err);
}

int onnx_write_plan(const struct onnx_model *m, struct source *s, const struct onnx_edits *edits, const char *data_name,
                    uint64_t external_from, struct onnx_output **ret, struct qd_error *err)
{
    CLEANUP(onnx_output_free) struct onnx_output *out = calloc(1, sizeof *out);
    if (!out)
        return err_new(err, QD_E_NO_MEMORY, "'%s'", source_name(s, 0));
    struct writer w = {.model = m,
                       .source = s,
                       .edits = edits,
                       .data_name = data_name,
                       .external_from = external_from,
                       .out = out,
                       .err = err};
    int r = sort_edits(&w);
    if (r == 0)
        r = put_model(&w);
    unsort_edits(&w);
    if (r < 0)
        return r;
    *ret = steal(&out);
    return 0;
}

struct onnx_output *onnx_output_free(struct onnx_output *o)
{
    if (o) {
        buffer_clear(&o->model);
        free(o->payloads);
    }
    free(o);
    return NULL;
}

/* ---- the data file ---- */

struct data_writer {
    const struct onnx_output *out;
    struct source *source;
    int fd;
    uint8_t *slice; /* SLICE_BYTES */
    struct qd_error *err;
};

static int write_at(struct data_writer *w, const void *data, size_t n, uint64_t offset)
{
    const int r = pwrite_whole(w->fd, data, n, offset);
    return r < 0 ? err_sys(w->err, -r, "write the data file") : 0;
}

/* A typed payload is made whole: it stood in a message, which is below 2 GB, and is rare. */
static int write_typed(struct data_writer *w, const struct onnx_payload *p)
{
    CLEANUP(free) uint8_t *whole = malloc((size_t)p->bytes + 1);
    if (!whole)
        return err_new(w->err, QD_E_NO_MEMORY, "tensor '%.200s'", p->copied->name);
    int r = onnx_tensor_load(w->source, p->copied, whole, w->err);
    return r < 0 ? r : write_at(w, whole, (size_t)p->bytes, p->offset);
}

static int fill_slice(struct data_writer *w, const struct onnx_payload *p, uint64_t done, size_t n)
{
    if (p->copied)
        return source_read_meta(w->source, p->copied->file, p->copied->offset + done, w->slice, n, w->err);
    if (p->made->make)
        return p->made->make(p->made->make_data, done, n, w->slice, w->err);
    memcpy(w->slice, (const uint8_t *)p->made->tensor.memory + done, n);
    return 0;
}

static int write_payload(struct data_writer *w, const struct onnx_payload *p)
{
    if (p->copied && p->copied->storage == ONNX_TYPED)
        return write_typed(w, p);
    int r = 0;
    for (uint64_t done = 0; done < p->bytes && r == 0;) {
        const size_t n = p->bytes - done < SLICE_BYTES ? (size_t)(p->bytes - done) : SLICE_BYTES;
        r = fill_slice(w, p, done, n);
        if (r == 0)
            r = write_at(w, w->slice, n, p->offset + done);
        done += n;
    }
    return r;
}

int onnx_write_data(const struct onnx_output *o, struct source *s, int fd, onnx_progress_fn *progress,
                    void *progress_data, struct qd_error *err)
{
    CLEANUP(free) uint8_t *slice = malloc(SLICE_BYTES);
    struct data_writer w = {o, s, fd, slice, err};
    int r = slice ? 0 : err_new(err, QD_E_NO_MEMORY, "the data file");
    for (size_t i = 0; i < o->n_payloads && r == 0; i++) {
        const struct onnx_payload *p = &o->payloads[i];
        const char *name = p->copied ? p->copied->name : p->made->tensor.name;
        r = write_payload(&w, p);
        if (r == 0 && progress)
            r = progress(progress_data, p->offset + p->bytes, o->data_bytes, name);
    }
    return r;
}
