/*
 * The ONNX reader: a table for each message of onnx.proto says which fields go where; one loop reads them all, with a
 * stack of its own for messages within messages. docs/formats/onnx.md.
 */
#include "quant/format/onnx.h"

#include <stdio.h>
#include <string.h>

#include "kernels/core/checked.h"
#include "quant/format/format.h"
#include "quant/format/onnx_order.h"
#include "quant/format/onnx_tensor.h"
#include "quant/format/protobuf.h"
#include "quant/limits.h"

enum { DEPTH_MAX = 64 /* messages within messages: a graph within a node costs three, real models nest 5 graphs */ };

/* How a field's content becomes a member. A list is a pointer and a count, grown at powers of two. */
enum member {
    M_INT,    /* int64_t */
    M_ENUM,   /* int32_t or an enum */
    M_FLOAT,  /* float */
    M_TEXT,   /* const char * in the arena, without NUL inside */
    M_BYTES,  /* struct bytes */
    M_INTS,   /* list of int64_t, packed or not */
    M_FLOATS, /* list of float */
    M_TEXTS,  /* list of const char * */
    M_SPANS,  /* list of struct bytes */
    M_LIST,   /* list of messages of @child */
    M_SAME,   /* a message whose fields belong to the same object */
    M_RAW,    /* content that stays in the file: struct onnx_tensor's payload */
    M_COUNT,  /* values that stay in the file: counted */
};

struct field {
    uint32_t number;
    enum member member;
    size_t at, n_at; /* offsets of the member, and of a list's count */
    const struct message *child;
    int mark; /* what the presence of the field says: a message's finish or begin looks at it */
};

struct reader;

struct message {
    const char *what; /* for errors: "node" */
    size_t object_bytes;
    size_t range_at; /* offset of its struct onnx_range, or NO_RANGE */
    const struct field *fields;
    size_t n_fields;
    int (*begin)(struct reader *r, void *object);
    int (*finish)(struct reader *r, void *object, uint64_t start);
};

struct frame {
    const struct message *message;
    uint8_t *object;
    uint64_t start, end;
    uint64_t index;
};

struct reader {
    struct stream *st;
    struct arena *arena;
    struct probe *probe; /* NULL: companions are in the source; else they are noted there */
    struct frame stack[DEPTH_MAX];
    size_t depth;
};

#define NO_RANGE            ((size_t)-1)
#define AT(type, member)    offsetof(struct type, member)
#define LIST(type, list, n) AT(type, list), AT(type, n)

/* ---- the messages ---- */

static const struct message attr_message, graph_message, node_message, tensor_message, sparse_message, type_message;
static int tensor_begin(struct reader *r, void *object);
static int tensor_finish(struct reader *r, void *object, uint64_t start);
static int sparse_finish(struct reader *r, void *object, uint64_t start);
static int attr_begin(struct reader *r, void *object);
static int attr_finish(struct reader *r, void *object, uint64_t start);
static int node_begin(struct reader *r, void *object);
static int node_finish(struct reader *r, void *object, uint64_t start);
static int dim_begin(struct reader *r, void *object);
static int value_info_begin(struct reader *r, void *object);
static int graph_begin(struct reader *r, void *object);
static int opset_begin(struct reader *r, void *object);
static int prop_begin(struct reader *r, void *object);
static int function_begin(struct reader *r, void *object);
static int function_finish(struct reader *r, void *object, uint64_t start);
static int type_mark(struct reader *r, void *object);

#define MESSAGE(name, type, range, table, begin_fn, finish_fn)                                       \
    {                                                                                                \
        name, sizeof(struct type), range, table, sizeof table / sizeof table[0], begin_fn, finish_fn \
    }

static const struct field prop_fields[] = {
    {1, M_TEXT, AT(onnx_prop, key), 0, NULL, 0},
    {2, M_TEXT, AT(onnx_prop, value), 0, NULL, 0},
};
static const struct message prop_message = MESSAGE("entry", onnx_prop, NO_RANGE, prop_fields, prop_begin, NULL);

static const struct field opset_fields[] = {
    {1, M_TEXT, AT(onnx_opset, domain), 0, NULL, 0},
    {2, M_INT, AT(onnx_opset, version), 0, NULL, 0},
};
static const struct message opset_message = MESSAGE("opset", onnx_opset, NO_RANGE, opset_fields, opset_begin, NULL);

/* Typed payloads: float_data 4, int32_data 5, string_data 6, int64_data 7, double_data 10, uint64_data 11. */
static const struct field tensor_fields[] = {
    {1, M_INTS, LIST(onnx_tensor, dims, n_dims), NULL, 0},
    {2, M_ENUM, AT(onnx_tensor, type), 0, NULL, 0},
    {4, M_COUNT, 0, 0, NULL, 0},
    {5, M_COUNT, 0, 0, NULL, 0},
    {6, M_COUNT, 0, 0, NULL, 0},
    {7, M_COUNT, 0, 0, NULL, 0},
    {8, M_TEXT, AT(onnx_tensor, name), 0, NULL, 0},
    {9, M_RAW, 0, 0, NULL, 0},
    {10, M_COUNT, 0, 0, NULL, 0},
    {11, M_COUNT, 0, 0, NULL, 0},
    {13, M_LIST, LIST(onnx_tensor, entries, n_entries), &prop_message, 0},
    {14, M_ENUM, AT(onnx_tensor, location), 0, NULL, 0},
};
static const struct message tensor_message =
    MESSAGE("tensor", onnx_tensor, AT(onnx_tensor, range), tensor_fields, tensor_begin, tensor_finish);

static const struct field sparse_fields[] = {
    {1, M_SAME, 0, 0, &tensor_message, 0},
};
static const struct message sparse_message =
    MESSAGE("sparse tensor", onnx_tensor, NO_RANGE, sparse_fields, tensor_begin, sparse_finish);

static const struct field dim_fields[] = {
    {1, M_INT, AT(onnx_dim, value), 0, NULL, 0},
    {2, M_TEXT, AT(onnx_dim, param), 0, NULL, 0},
};
static const struct message dim_message = MESSAGE("dimension", onnx_dim, NO_RANGE, dim_fields, dim_begin, NULL);

static const struct field shape_fields[] = {
    {1, M_LIST, LIST(onnx_value_info, dims, n_dims), &dim_message, 0},
};
static const struct message shape_message = MESSAGE("shape", onnx_value_info, NO_RANGE, shape_fields, type_mark, NULL);

static const struct field plain_type_fields[] = {
    {1, M_ENUM, AT(onnx_value_info, type), 0, NULL, 0},
    {2, M_SAME, 0, 0, &shape_message, 0},
};
static const struct message plain_type_message =
    MESSAGE("tensor type", onnx_value_info, NO_RANGE, plain_type_fields, NULL, NULL);

static const struct field nested_type_fields[] = {
    {1, M_SAME, 0, 0, &type_message, 0},
};
static const struct message nested_type_message =
    MESSAGE("nested type", onnx_value_info, NO_RANGE, nested_type_fields, NULL, NULL);
static const struct message map_type_message = {"map type", sizeof(struct onnx_value_info), NO_RANGE, NULL, 0, NULL,
                                                NULL};

static const struct field type_fields[] = {
    {1, M_SAME, 0, 0, &plain_type_message, ONNX_KIND_TENSOR},
    {4, M_SAME, 0, 0, &nested_type_message, ONNX_KIND_SEQUENCE},
    {5, M_SAME, 0, 0, &map_type_message, ONNX_KIND_MAP},
    {8, M_SAME, 0, 0, &plain_type_message, ONNX_KIND_SPARSE},
    {9, M_SAME, 0, 0, &nested_type_message, ONNX_KIND_OPTIONAL},
};
static const struct message type_message = MESSAGE("type", onnx_value_info, NO_RANGE, type_fields, NULL, NULL);

static const struct field value_info_fields[] = {
    {1, M_TEXT, AT(onnx_value_info, name), 0, NULL, 0},
    {2, M_SAME, 0, 0, &type_message, 0},
};
static const struct message value_info_message =
    MESSAGE("value", onnx_value_info, AT(onnx_value_info, range), value_info_fields, value_info_begin, NULL);

static const struct field attr_fields[] = {
    {1, M_TEXT, AT(onnx_attr, name), 0, NULL, 0},
    {2, M_FLOAT, AT(onnx_attr, f), 0, NULL, 0},
    {3, M_INT, AT(onnx_attr, i), 0, NULL, 0},
    {4, M_BYTES, AT(onnx_attr, s), 0, NULL, 0},
    {5, M_LIST, LIST(onnx_attr, tensors, n_tensors), &tensor_message, 0},
    {6, M_LIST, LIST(onnx_attr, graphs, n_graphs), &graph_message, 0},
    {7, M_FLOATS, LIST(onnx_attr, floats, n_floats), NULL, 0},
    {8, M_INTS, LIST(onnx_attr, ints, n_ints), NULL, 0},
    {9, M_SPANS, LIST(onnx_attr, strings, n_strings), NULL, 0},
    {10, M_LIST, LIST(onnx_attr, tensors, n_tensors), &tensor_message, 0},
    {11, M_LIST, LIST(onnx_attr, graphs, n_graphs), &graph_message, 0},
    {20, M_ENUM, AT(onnx_attr, kind), 0, NULL, 0},
    {21, M_TEXT, AT(onnx_attr, ref), 0, NULL, 0},
    {22, M_LIST, LIST(onnx_attr, tensors, n_tensors), &sparse_message, 0},
    {23, M_LIST, LIST(onnx_attr, tensors, n_tensors), &sparse_message, 0},
};
static const struct message attr_message =
    MESSAGE("attribute", onnx_attr, NO_RANGE, attr_fields, attr_begin, attr_finish);

static const struct field node_fields[] = {
    {1, M_TEXTS, LIST(onnx_node, inputs, n_inputs), NULL, 0},
    {2, M_TEXTS, LIST(onnx_node, outputs, n_outputs), NULL, 0},
    {3, M_TEXT, AT(onnx_node, name), 0, NULL, 0},
    {4, M_TEXT, AT(onnx_node, op_type), 0, NULL, 0},
    {5, M_LIST, LIST(onnx_node, attrs, n_attrs), &attr_message, 0},
    {7, M_TEXT, AT(onnx_node, domain), 0, NULL, 0},
    {8, M_TEXT, AT(onnx_node, overload), 0, NULL, 0},
};
static const struct message node_message =
    MESSAGE("node", onnx_node, AT(onnx_node, range), node_fields, node_begin, node_finish);

static const struct field graph_fields[] = {
    {1, M_LIST, LIST(onnx_graph, nodes, n_nodes), &node_message, 0},
    {2, M_TEXT, AT(onnx_graph, name), 0, NULL, 0},
    {5, M_LIST, LIST(onnx_graph, initializers, n_initializers), &tensor_message, 0},
    {11, M_LIST, LIST(onnx_graph, inputs, n_inputs), &value_info_message, 0},
    {12, M_LIST, LIST(onnx_graph, outputs, n_outputs), &value_info_message, 0},
    {13, M_LIST, LIST(onnx_graph, value_infos, n_value_infos), &value_info_message, 0},
    {15, M_LIST, LIST(onnx_graph, initializers, n_initializers), &sparse_message, 0},
};
static const struct message graph_message =
    MESSAGE("graph", onnx_graph, AT(onnx_graph, range), graph_fields, graph_begin, NULL);

static const struct field function_fields[] = {
    {1, M_TEXT, AT(onnx_function, name), 0, NULL, 0},
    {4, M_TEXTS, LIST(onnx_function, inputs, n_inputs), NULL, 0},
    {5, M_TEXTS, LIST(onnx_function, outputs, n_outputs), NULL, 0},
    {6, M_TEXTS, LIST(onnx_function, attr_names, n_attr_names), NULL, 0},
    {7, M_LIST, LIST(onnx_function, nodes, n_nodes), &node_message, 0},
    {9, M_LIST, LIST(onnx_function, opsets, n_opsets), &opset_message, 0},
    {10, M_TEXT, AT(onnx_function, domain), 0, NULL, 0},
    {11, M_LIST, LIST(onnx_function, attr_defaults, n_attr_defaults), &attr_message, 0},
    {13, M_TEXT, AT(onnx_function, overload), 0, NULL, 0},
};
static const struct message function_message =
    MESSAGE("function", onnx_function, AT(onnx_function, range), function_fields, function_begin, function_finish);

static const struct field model_fields[] = {
    {1, M_INT, AT(onnx_model, ir_version), 0, NULL, 0},
    {2, M_TEXT, AT(onnx_model, producer), 0, NULL, 0},
    {7, M_LIST, LIST(onnx_model, graph, n_graphs), &graph_message, 0},
    {8, M_LIST, LIST(onnx_model, opsets, n_opsets), &opset_message, 0},
    {14, M_LIST, LIST(onnx_model, props, n_props), &prop_message, 0},
    {25, M_LIST, LIST(onnx_model, functions, n_functions), &function_message, 0},
};
static const struct message model_message =
    MESSAGE("model", onnx_model, AT(onnx_model, range), model_fields, NULL, NULL);

/* ---- members ---- */

static int failed(struct reader *r)
{
    return r->st->result;
}

/* Room for one more item of a list; NULL after a failure. Capacities are powers of two from 4 on. */
static void *list_grow(struct reader *r, void *object, const struct field *f, size_t item_bytes)
{
    uint8_t **list = (uint8_t **)(void *)((uint8_t *)object + f->at);
    size_t *n = (size_t *)(void *)((uint8_t *)object + f->n_at);
    if (*n == 0 || (*n >= 4 && is_power_of_two(*n))) {
        uint8_t *larger = arena_alloc(r->arena, *n ? 2 * (uint64_t)*n : 4, item_bytes);
        if (!larger) {
            (void)stream_fail_budget(r->st); /* NULL says it */
            return NULL;
        }
        if (*n)
            memcpy(larger, *list, *n * item_bytes);
        *list = larger;
    }
    return *list + (*n)++ * item_bytes;
}

static const char *take_text(struct reader *r, const struct pb_field *f)
{
    const char *text = stream_text(r->st, r->arena, f->bytes);
    if (text && strlen(text) != f->bytes) {
        (void)stream_fail(r->st, QD_E_CORRUPT, f->at, "a name holds a NUL byte"); /* NULL says it */
        return NULL;
    }
    return text;
}

static struct bytes take_bytes(struct reader *r, const struct pb_field *f)
{
    const char *data = stream_text(r->st, r->arena, f->bytes);
    return (struct bytes){(const uint8_t *)data, data ? (size_t)f->bytes : 0};
}

static void put_number(struct reader *r, void *object, const struct field *f, uint64_t bits)
{
    if (f->member == M_INTS) {
        int64_t *item = list_grow(r, object, f, sizeof *item);
        if (item)
            *item = (int64_t)bits;
        return;
    }
    float *item = list_grow(r, object, f, sizeof *item);
    if (item)
        *item = pb_float((uint32_t)bits);
}

/* A repeated number: one of it, or all of them packed. */
static void take_numbers(struct reader *r, void *object, const struct field *f, const struct pb_field *p)
{
    if (p->wire != PB_BYTES) {
        put_number(r, object, f, p->value);
        return;
    }
    const uint64_t after = r->st->end;
    r->st->end = p->at + p->bytes;
    while (!failed(r) && r->st->at < r->st->end)
        put_number(r, object, f, f->member == M_INTS ? pb_varint(r->st) : stream_u32(r->st));
    r->st->end = after;
}

/* Values of a typed payload, counted; they stay in the file. */
static void count_typed(struct reader *r, struct onnx_tensor *t, const struct pb_field *p)
{
    const uint32_t width = p->number == 4 ? 4 : p->number == 10 ? 8 : 0;
    if (t->typed_field && t->typed_field != p->number)
        (void)stream_fail(r->st, QD_E_CORRUPT, p->start, "elements stand in field %u and in field %u", t->typed_field,
                          p->number); /* sticks */
    t->typed_field = p->number;
    if (p->number == 6 || p->wire != PB_BYTES) {
        t->n_typed++;
        (void)pb_skip(r->st, p);
        return;
    }
    if (width && p->bytes % width)
        (void)stream_fail(r->st, QD_E_CORRUPT, p->at, "%llu bytes of packed values, no multiple of %u",
                          (unsigned long long)p->bytes, width);
    if (width) {
        t->n_typed += p->bytes / width;
        (void)stream_skip(r->st, p->bytes); /* a failure sticks */
        return;
    }
    const uint64_t after = r->st->end;
    r->st->end = p->at + p->bytes;
    for (; !failed(r) && r->st->at < r->st->end; t->n_typed++)
        (void)pb_varint(r->st);
    r->st->end = after;
}

static void take_raw(struct reader *r, struct onnx_tensor *t, const struct pb_field *p)
{
    if (t->has_raw)
        (void)stream_fail(r->st, QD_E_CORRUPT, p->start, "has raw data twice"); /* sticks */
    t->has_raw = true;
    t->file = (uint32_t)r->st->file;
    t->offset = p->at;
    t->bytes = p->bytes;
    (void)pb_skip(r->st, p);
}

static enum pb_wire wire_of(enum member m)
{
    return m == M_FLOAT ? PB_32 : m == M_INT || m == M_ENUM ? PB_VARINT : PB_BYTES;
}

/* May field @p be the member @f? Repeated numbers come packed or one by one. */
static bool wire_fits(const struct field *f, const struct pb_field *p)
{
    if (p->wire == wire_of(f->member))
        return true;
    if (f->member == M_INTS)
        return p->wire == PB_VARINT;
    if (f->member == M_FLOATS)
        return p->wire == PB_32;
    if (f->member != M_COUNT || f->number == 6)
        return false;
    return p->wire == (f->number == 4 ? PB_32 : f->number == 10 ? PB_64 : PB_VARINT);
}

static void take_one(struct reader *r, void *object, const struct field *f, const struct pb_field *p)
{
    uint8_t *at = (uint8_t *)object + f->at;
    const char **text;
    struct bytes *span;
    switch (f->member) {
    case M_INT:
        *(int64_t *)(void *)at = (int64_t)p->value;
        break;
    case M_ENUM:
        *(int32_t *)(void *)at = p->value > INT32_MAX ? INT32_MAX : (int32_t)p->value;
        break;
    case M_FLOAT:
        *(float *)(void *)at = pb_float((uint32_t)p->value);
        break;
    case M_TEXT:
        *(const char **)(void *)at = take_text(r, p);
        break;
    case M_BYTES:
        *(struct bytes *)(void *)at = take_bytes(r, p);
        break;
    case M_INTS:
    case M_FLOATS:
        take_numbers(r, object, f, p);
        break;
    case M_TEXTS:
        text = list_grow(r, object, f, sizeof *text);
        if (text)
            *text = take_text(r, p);
        break;
    case M_SPANS:
        span = list_grow(r, object, f, sizeof *span);
        if (span)
            *span = take_bytes(r, p);
        break;
    case M_RAW:
        take_raw(r, object, p);
        break;
    case M_COUNT:
        count_typed(r, object, p);
        break;
    case M_LIST:
    case M_SAME:
        break; /* push() */
    }
}

/* ---- messages ---- */

static const struct field *find_field(const struct message *m, uint32_t number)
{
    for (size_t i = 0; i < m->n_fields; i++)
        if (m->fields[i].number == number)
            return &m->fields[i];
    return NULL;
}

static void push(struct reader *r, const struct message *m, void *object, uint64_t start, uint64_t end, uint64_t index)
{
    if (r->depth == DEPTH_MAX) {
        (void)stream_fail(r->st, QD_E_LIMIT, start, "more than %d messages, one within the other", DEPTH_MAX);
        return;
    }
    struct frame *f = &r->stack[r->depth++];
    *f = (struct frame){.message = m, .object = object, .start = start, .end = end, .index = index};
    r->st->end = end;
    stream_doing(r->st, m->what, index);
    if (m->range_at != NO_RANGE)
        *(struct onnx_range *)(void *)(f->object + m->range_at) = (struct onnx_range){start, end - start};
    if (m->begin)
        (void)m->begin(r, object); /* a failure sticks in the stream */
}

static void push_field(struct reader *r, const struct frame *f, const struct field *field, const struct pb_field *p)
{
    const struct message *child = field->child;
    const uint64_t end = p->at + p->bytes;
    if (field->member == M_SAME) {
        if (field->mark && ((struct onnx_value_info *)(void *)f->object)->kind == ONNX_KIND_NONE)
            ((struct onnx_value_info *)(void *)f->object)->kind = (enum onnx_kind)field->mark;
        push(r, child, f->object, p->at, end, f->index);
        return;
    }
    const uint64_t index = *(size_t *)(void *)(f->object + field->n_at);
    void *item = list_grow(r, f->object, field, child->object_bytes);
    if (item)
        push(r, child, item, p->at, end, index);
}

static void pop(struct reader *r)
{
    const struct frame f = r->stack[--r->depth];
    if (f.message->finish)
        (void)f.message->finish(r, f.object, f.start); /* a failure sticks in the stream */
    if (r->depth == 0)
        return;
    const struct frame *parent = &r->stack[r->depth - 1];
    r->st->end = parent->end;
    stream_doing(r->st, parent->message->what, parent->index);
}

static void take_field(struct reader *r, const struct frame *f, const struct pb_field *p)
{
    const struct field *field = find_field(f->message, p->number);
    if (!field) {
        (void)pb_skip(r->st, p); /* unknown, or of no use here: the writer keeps it */
        return;
    }
    if (!wire_fits(field, p))
        (void)stream_fail(r->st, QD_E_CORRUPT, p->start, "field %u has wire type %d", p->number, (int)p->wire);
    else if (field->member == M_LIST || field->member == M_SAME)
        push_field(r, f, field, p);
    else
        take_one(r, f->object, field, p);
}

/* Reads [at, end) of the stream as message @m into @object, all messages within it included. */
static int read_message(struct reader *r, const struct message *m, void *object)
{
    push(r, m, object, r->st->at, r->st->end, 0);
    while (!failed(r) && r->depth > 0) {
        const struct frame *f = &r->stack[r->depth - 1];
        struct pb_field p;
        if (pb_next(r->st, &p))
            take_field(r, f, &p);
        else if (!failed(r))
            pop(r);
    }
    return failed(r);
}

/* ---- begin and finish ---- */

static int prop_begin(struct reader *r, void *object)
{
    *(struct onnx_prop *)object = (struct onnx_prop){"", ""};
    return failed(r);
}

static int opset_begin(struct reader *r, void *object)
{
    *(struct onnx_opset *)object = (struct onnx_opset){"", 0};
    return failed(r);
}

static int dim_begin(struct reader *r, void *object)
{
    *(struct onnx_dim *)object = (struct onnx_dim){-1, ""};
    return failed(r);
}

static int type_mark(struct reader *r, void *object)
{
    ((struct onnx_value_info *)object)->has_shape = true;
    return failed(r);
}

static int value_info_begin(struct reader *r, void *object)
{
    ((struct onnx_value_info *)object)->name = "";
    return failed(r);
}

static int tensor_begin(struct reader *r, void *object)
{
    struct onnx_tensor *t = object;
    if (!t->name) /* a sparse tensor's begins twice */
        t->name = "";
    return failed(r);
}

static int sparse_finish(struct reader *r, void *object, uint64_t start)
{
    (void)start;
    ((struct onnx_tensor *)object)->storage = ONNX_SPARSE;
    return failed(r);
}

static int attr_begin(struct reader *r, void *object)
{
    ((struct onnx_attr *)object)->name = "";
    return failed(r);
}

static int node_begin(struct reader *r, void *object)
{
    struct onnx_node *n = object;
    const struct frame *f = &r->stack[r->depth - 1];
    n->name = n->op_type = n->domain = n->overload = "";
    n->index = (size_t)f->index;
    return failed(r);
}

static int graph_begin(struct reader *r, void *object)
{
    ((struct onnx_graph *)object)->name = "";
    return failed(r);
}

static int function_begin(struct reader *r, void *object)
{
    struct onnx_function *f = object;
    f->name = f->domain = f->overload = "";
    return failed(r);
}

/* A text that the file did not say is ""; one that could not be read has failed already. "ai.onnx" is "". */
static const char *plain_domain(const char *domain)
{
    return domain && strcmp(domain, "ai.onnx") == 0 ? "" : domain;
}

/* The kind that the members say, where an old file does not say it (IR version 1). */
static enum onnx_attr_kind kind_of(const struct onnx_attr *a)
{
    if (a->kind || a->ref)
        return a->kind;
    if (a->n_tensors)
        return ONNX_ATTR_TENSOR;
    if (a->n_graphs)
        return ONNX_ATTR_GRAPH;
    if (a->n_floats)
        return ONNX_ATTR_FLOATS;
    if (a->n_ints)
        return ONNX_ATTR_INTS;
    if (a->n_strings)
        return ONNX_ATTR_STRINGS;
    return a->s.n ? ONNX_ATTR_STRING : a->f != 0.0f ? ONNX_ATTR_FLOAT : ONNX_ATTR_INT;
}

static int attr_finish(struct reader *r, void *object, uint64_t start)
{
    struct onnx_attr *a = object;
    a->kind = kind_of(a);
    const bool tensors = a->kind == ONNX_ATTR_TENSOR || a->kind == ONNX_ATTR_SPARSE_TENSOR;
    if (a->kind < 0 || a->kind > ONNX_ATTR_TYPE_PROTOS)
        return stream_fail(r->st, QD_E_UNSUPPORTED, start, "'%.100s' is of kind %d, which is unknown", a->name,
                           a->kind);
    if (!a->ref && ((tensors && a->n_tensors != 1) || (a->kind == ONNX_ATTR_GRAPH && a->n_graphs != 1)))
        return stream_fail(r->st, QD_E_CORRUPT, start, "'%.100s' holds %zu tensors and %zu graphs where one is due",
                           a->name, a->n_tensors, a->n_graphs);
    return failed(r);
}

static int node_finish(struct reader *r, void *object, uint64_t start)
{
    struct onnx_node *n = object;
    n->domain = plain_domain(n->domain);
    if (!failed(r) && n->op_type[0] == '\0')
        return stream_fail(r->st, QD_E_CORRUPT, start, "'%.100s' names no operator", n->name);
    if (!failed(r) && n->n_outputs == 0)
        return stream_fail(r->st, QD_E_CORRUPT, start, "'%.100s' (%.64s) has no outputs", n->name, n->op_type);
    return failed(r);
}

static int function_finish(struct reader *r, void *object, uint64_t start)
{
    struct onnx_function *f = object;
    f->domain = plain_domain(f->domain);
    if (!failed(r) && f->name[0] == '\0')
        return stream_fail(r->st, QD_E_CORRUPT, start, "has no name");
    return failed(r);
}

static int tensor_finish(struct reader *r, void *object, uint64_t start)
{
    struct onnx_tensor *t = object;
    return failed(r) ? failed(r) : onnx_tensor_settle(r->st, r->probe, t, start);
}

/* ---- whole files ---- */

static int read_range(struct source *s, const struct onnx_range *range, struct arena *arena, struct probe *probe,
                      const struct message *m, void *object, struct qd_error *err)
{
    const struct onnx_range whole = {0, source_bytes(s, 0)};
    const struct onnx_range in = range ? *range : whole;
    CLEANUP(free) struct stream *st = stream_new(s, 0, in.offset, in.offset + in.bytes, err);
    CLEANUP(free) struct reader *r = calloc(1, sizeof *r);
    if (!st || !r)
        return err_new(err, QD_E_NO_MEMORY, "'%s'", source_name(s, 0));
    r->st = st;
    r->arena = arena;
    r->probe = probe;
    return read_message(r, m, object);
}

static int check_model(struct source *s, struct onnx_model *m, struct qd_error *err)
{
    int r = 0;
    if (m->n_graphs != 1)
        r = err_new(err, QD_E_CORRUPT, "'%s': holds %zu graphs, one is due", source_name(s, 0), m->n_graphs);
    else if (m->ir_version >= 3 && m->n_opsets == 0)
        r = err_new(err, QD_E_CORRUPT, "'%s': imports no operator set", source_name(s, 0));
    if (r < 0)
        return err_hint(err, r, "the file is no ONNX model, or is damaged: export it again");
    for (size_t i = 0; i < m->n_opsets; i++)
        ((struct onnx_opset *)m->opsets)[i].domain = plain_domain(m->opsets[i].domain); /* ours until it is returned */
    return onnx_order_model(m, source_name(s, 0), err);
}

struct onnx_model *onnx_model_free(struct onnx_model *m)
{
    if (m)
        (void)arena_free(m->arena); /* returns NULL */
    free(m);
    return NULL;
}

static int model_begin(struct source *s, size_t budget_bytes, struct onnx_model **ret, struct qd_error *err)
{
    CLEANUP(onnx_model_free) struct onnx_model *m = calloc(1, sizeof *m);
    if (!m || !(m->arena = arena_new(budget_bytes)))
        return err_new(err, QD_E_NO_MEMORY, "'%s'", source_name(s, 0));
    m->producer = "";
    *ret = steal(&m);
    return 0;
}

int onnx_read(struct source *s, size_t budget_bytes, struct onnx_model **ret, struct qd_error *err)
{
    CLEANUP(onnx_model_free) struct onnx_model *m = NULL;
    int r = model_begin(s, budget_bytes, &m, err);
    if (r == 0)
        r = read_range(s, NULL, m->arena, NULL, &model_message, m, err);
    if (r == 0)
        r = check_model(s, m, err);
    if (r < 0)
        return r;
    *ret = steal(&m);
    return 0;
}

int onnx_tensor_read(struct source *s, const struct onnx_range *range, struct arena *arena,
                     const struct onnx_tensor **ret, struct qd_error *err)
{
    struct onnx_tensor *t = arena_alloc(arena, 1, sizeof *t);
    if (!t)
        return err_new(err, QD_E_LIMIT, "'%s': the tensor needs more memory than it may use", source_name(s, 0));
    int r = read_range(s, range, arena, NULL, &tensor_message, t, err);
    if (r < 0)
        return r;
    *ret = t;
    return 0;
}

/* ---- the format ---- */

bool onnx_is_named(const char *name)
{
    const size_t n = strlen(name);
    return n > 5 && strcmp(name + n - 5, ".onnx") == 0;
}

/* The first field of every writer is ir_version, a small varint; a graph or the producer's name may come first, too. */
static enum recognised onnx_recognise(struct bytes head, const char *file_name, uint64_t file_bytes)
{
    const bool named = onnx_is_named(file_name);
    (void)file_bytes;
    const bool begins = head.n >= 2 && head.data[0] == 0x08 && head.data[1] > 0 && head.data[1] < 0x80;
    const bool other = head.n >= 2 && (head.data[0] == 0x12 || head.data[0] == 0x3a || head.data[0] == 0x42);
    return named && (begins || other) ? RECOGNISED_BY_CONTENT : named ? RECOGNISED_BY_NAME : RECOGNISED_NOT;
}

static int onnx_probe(struct source *s, struct probe *p, struct qd_error *err)
{
    p->role = "weights";
    struct onnx_model *m = arena_alloc(p->arena, 1, sizeof *m);
    if (!m)
        return err_new(err, QD_E_NO_MEMORY, "'%s'", source_name(s, 0));
    return read_range(s, NULL, p->arena, p, &model_message, m, err);
}

static int onnx_format_read(struct source *s, struct model *m, struct qd_error *err)
{
    (void)m;
    return err_new(err, QD_E_UNSUPPORTED, "'%s': an ONNX model, whose tensors are part of a graph", source_name(s, 0));
}

const struct format format_onnx = {
    .name = "onnx", .recognise = onnx_recognise, .probe = onnx_probe, .read = onnx_format_read};
