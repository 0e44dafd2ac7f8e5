#include "quant/onnx/tables.h"

#include <stdio.h>
#include <string.h>

#include "kernels/core/name_set.h"

enum { ARENA_BYTES = 256 << 20, KEY_BYTES = 256, PROPS_MAX = 256 /* what comes later is not in the table */ };

/* ---- tensors ---- */

int table_type_of(enum onnx_type type)
{
    static const struct {
        enum onnx_type type;
        enum qd_type is;
    } types[] = {
        {ONNX_FLOAT, QD_TYPE_F32},  {ONNX_FLOAT16, QD_TYPE_F16}, {ONNX_BFLOAT16, QD_TYPE_BF16},
        {ONNX_DOUBLE, QD_TYPE_F64}, {ONNX_INT8, QD_TYPE_I8},     {ONNX_INT16, QD_TYPE_I16},
        {ONNX_INT32, QD_TYPE_I32},  {ONNX_INT64, QD_TYPE_I64},   {ONNX_UINT8, QD_TYPE_U8},
        {ONNX_UINT16, QD_TYPE_U16}, {ONNX_UINT32, QD_TYPE_U32},  {ONNX_UINT64, QD_TYPE_U64},
        {ONNX_BOOL, QD_TYPE_BOOL},  {ONNX_INT4, QD_TYPE_I4},     {ONNX_UINT4, QD_TYPE_U4},
    };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].type == type)
            return (int)types[i].is;
    return -1;
}

/* Do rows begin with a byte? Elements of 4 bits stand two in each, whatever the shape. */
static bool has_whole_rows(const struct onnx_tensor *t)
{
    const int64_t row = t->n_dims ? t->dims[t->n_dims - 1] : 1;
    return row % (int64_t)qd_type_info((enum qd_type)table_type_of(t->type))->block_elements == 0;
}

/* Elements that lie in a file as they lie in memory, of a type and a shape that the table can say. */
static bool is_shown(const struct onnx_tensor *t)
{
    return t->storage == ONNX_RAW && t->n_dims <= TABLE_DIMS_MAX && table_type_of(t->type) >= 0 && t->name[0] &&
           strlen(t->name) <= TABLE_NAME_MAX && has_whole_rows(t);
}

/* A signal of nothing but zeros has no error that could be related to it. */
static double relative_error(const struct deviation *d)
{
    return d->noise > 0.0 && d->signal > 0.0 ? sqrt(d->noise / d->signal) : 0.0;
}

static struct tensor_entry entry_of(const struct onnx_tensor *t, const struct onnx_decision *d)
{
    const enum qd_type type = (enum qd_type)table_type_of(t->type);
    struct tensor_entry e = {.name = t->name,
                             .type = type,
                             .source_type = type,
                             .n_dims = (uint32_t)t->n_dims,
                             .file = t->file,
                             .offset = t->offset,
                             .bytes = t->bytes,
                             .reason = "as it was, or made beside codes",
                             .sqnr_db = INFINITY};
    for (size_t i = 0; i < TABLE_DIMS_MAX; i++)
        e.shape[i] = i < t->n_dims ? (uint64_t)t->dims[t->n_dims - 1 - i] : 1;
    if (d) {
        const int from = table_type_of(d->weight->tensor->type);
        e.source_type = from < 0 ? QD_TYPE_F32 : (enum qd_type)from;
        e.reason = d->form;
        e.sqnr_db = deviation_sqnr(&d->deviation);
        e.rel_rmse = relative_error(&d->deviation);
        e.max_abs = d->deviation.max_abs;
    }
    return e;
}

typedef int graph_visitor(void *data, const struct onnx_graph *g);

/* @g, then the graphs within its nodes, which the reader has bounded. */
static int each_graph(const struct onnx_graph *g, graph_visitor *visit, void *data)
{
    int r = visit(data, g);
    for (size_t i = 0; i < g->n_nodes; i++)
        for (size_t a = 0; a < g->nodes[i].n_attrs; a++)
            for (size_t k = 0; k < g->nodes[i].attrs[a].n_graphs && r >= 0; k++)
                r = each_graph(&g->nodes[i].attrs[a].graphs[k], visit, data);
    return r;
}

static int count_initializers(void *data, const struct onnx_graph *g)
{
    *(size_t *)data += g->n_initializers;
    return 0;
}

/* Index of the tensor of that name in the table, which is shown; -1: it is not. */
static int64_t shown_at(struct name_set *names, const struct onnx_tensor *t)
{
    return t ? name_set_find(names, t->name) : -1;
}

struct filling {
    struct onnx_tables *tables;
    const struct onnx_plan *plan;
    struct name_set codes; /* by decision */
    struct name_set names; /* of the table so far: graphs within may use one twice, the first is shown */
};

static int fill_from_graph(void *data, const struct onnx_graph *g)
{
    struct filling *f = data;
    struct tensor_table *table = &f->tables->tensors;
    for (size_t i = 0; i < g->n_initializers; i++) {
        const struct onnx_tensor *tensor = &g->initializers[i];
        size_t earlier;
        if (!is_shown(tensor))
            continue;
        const int added = name_set_add(&f->names, tensor->name, table->n, &earlier);
        if (added < 0)
            return added;
        const int64_t at = name_set_find(&f->codes, tensor->name);
        if (added == 0)
            table->tensors[table->n++] = entry_of(tensor, at < 0 ? NULL : &f->plan->decisions[at]);
    }
    return 0;
}

/* What codes are is said where their scales and zero points are shown, too. */
static void fill_matrices(struct filling *f)
{
    struct tensor_table *table = &f->tables->tensors;
    for (size_t i = 0; i < f->plan->weights.n; i++) {
        const struct onnx_decision *d = &f->plan->decisions[i];
        const struct onnx_matrix *m = &d->matrix;
        const int64_t codes = shown_at(&f->names, d->codes), scales = shown_at(&f->names, m->scales),
                      zeros = shown_at(&f->names, m->zero_points);
        if (codes < 0 || scales < 0 || (m->zero_points && zeros < 0))
            continue;
        table->tensors[codes].codes = (struct code_entry){.by_columns = m->by_columns,
                                                          .n_rows = m->n_rows,
                                                          .n_cols = m->n_cols,
                                                          .block = m->block,
                                                          .scales = (uint32_t)scales,
                                                          .zero_points = (uint32_t)(zeros + 1)};
    }
}

static int fill_tensors(struct onnx_tables *t, const struct onnx_plan *p, const struct onnx_graph *g,
                        struct qd_error *err)
{
    struct filling f = {.tables = t, .plan = p};
    size_t n = 0, earlier;
    int r = name_set_init(&f.codes, p->weights.n);
    if (r == 0)
        r = name_set_init(&f.names, 64);
    for (size_t i = 0; i < p->weights.n && r >= 0; i++)
        if (p->decisions[i].codes)
            r = name_set_add(&f.codes, p->decisions[i].codes->name, i, &earlier);
    if (r >= 0)
        r = each_graph(g, count_initializers, &n);
    t->tensors.tensors = arena_alloc(t->arena, n + 1, sizeof *t->tensors.tensors);
    if (r >= 0)
        r = t->tensors.tensors ? each_graph(g, fill_from_graph, &f) : QD_E_NO_MEMORY;
    if (r >= 0)
        fill_matrices(&f);
    name_set_clear(&f.codes);
    name_set_clear(&f.names);
    return r < 0 ? err_new(err, r, "the table of tensors") : 0;
}

static void sum_up(struct onnx_tables *t, const struct onnx_plan *p)
{
    struct quality_sums *q = &t->quality;
    struct deviation all = {.signal = 0.0};
    *q = (struct quality_sums){.worst = "", .worst_sqnr_db = INFINITY};
    for (size_t i = 0; i < p->weights.n; i++) {
        const struct onnx_decision *d = &p->decisions[i];
        if (!d->codes)
            continue;
        q->n_tensors++;
        deviation_merge(&all, &d->deviation);
        if (deviation_sqnr(&d->deviation) < q->worst_sqnr_db) {
            q->worst_sqnr_db = deviation_sqnr(&d->deviation);
            q->worst = strlen(d->codes->name) < TABLE_NAME_MAX ? d->codes->name : "";
        }
    }
    q->sqnr_db = deviation_sqnr(&all);
    q->rel_rmse = relative_error(&all);
    q->max_abs = all.max_abs;
}

/* ---- facts of the model ---- */

static struct bytes bytes_of_text(const char *text)
{
    return (struct bytes){(const uint8_t *)text, strlen(text)};
}

/* A key that comes twice in the model's file keeps its first value. */
static int set(struct onnx_tables *t, const char *key, enum meta_type type, uint64_t n, bool is_array,
               const void *items)
{
    struct meta_entry *e = &t->meta.entries[t->meta.n];
    if (!key || !items)
        return QD_E_NO_MEMORY;
    if (meta_find(&t->meta, key))
        return 0;
    *e = (struct meta_entry){key, {.type = is_array ? META_ARRAY : type, .item = type, .n_items = n, .data = items}};
    t->meta.n++;
    return 0;
}

static int set_number(struct onnx_tables *t, const char *key, enum meta_type type, const void *number)
{
    void *copy = arena_alloc(t->arena, 1, sizeof(uint64_t));
    if (copy)
        memcpy(copy, number, sizeof(uint64_t));
    return set(t, key, type, 1, false, copy);
}

static int set_text(struct onnx_tables *t, const char *key, const char *text)
{
    struct bytes *copy = arena_alloc(t->arena, 1, sizeof *copy);
    if (copy)
        *copy = bytes_of_text(text);
    return set(t, key, META_STRING, 1, false, copy);
}

/* "PREFIX" "NAME" as one key. */
static const char *key_of(struct onnx_tables *t, const char *prefix, const char *name)
{
    char key[KEY_BYTES];
    const int n = snprintf(key, sizeof key, "%s%s", prefix, name);
    return n < (int)sizeof key ? arena_text(t->arena, (struct bytes){(const uint8_t *)key, (size_t)n}) : NULL;
}

static int set_names(struct onnx_tables *t, const char *key, const struct onnx_value_info *list, size_t n)
{
    struct bytes *names = arena_alloc(t->arena, n + 1, sizeof *names);
    for (size_t i = 0; names && i < n; i++)
        names[i] = bytes_of_text(list[i].name);
    return n ? set(t, key, META_STRING, n, true, names) : 0;
}

static int set_model(struct onnx_tables *t, const struct onnx_model *m)
{
    const uint64_t ir = (uint64_t)m->ir_version;
    int r = set_number(t, "onnx.ir_version", META_U64, &ir);
    if (r == 0)
        r = set_text(t, "onnx.producer", m->producer);
    for (size_t i = 0; i < m->n_opsets && r == 0; i++) {
        const uint64_t version = (uint64_t)m->opsets[i].version;
        r = set_number(t, key_of(t, "onnx.opset.", m->opsets[i].domain[0] ? m->opsets[i].domain : "ai.onnx"), META_U64,
                       &version);
    }
    for (size_t i = 0; i < m->n_props && i < PROPS_MAX && r == 0; i++)
        if (strlen(m->props[i].key) < KEY_BYTES / 2)
            r = set_text(t, key_of(t, "onnx.metadata.", m->props[i].key), m->props[i].value);
    if (r == 0)
        r = set_names(t, "onnx.inputs", m->graph->inputs, m->graph->n_inputs);
    return r < 0 ? r : set_names(t, "onnx.outputs", m->graph->outputs, m->graph->n_outputs);
}

/* ---- the error ---- */

static int by_value(const void *a, const void *b)
{
    const double p = deviation_sqnr(&(*(const struct value_error *const *)a)->deviation),
                 q = deviation_sqnr(&(*(const struct value_error *const *)b)->deviation);
    return p < q ? -1 : p > q;
}

const struct value_error **worst_values(const struct comparison *c)
{
    const struct value_error **list = calloc(c->n_values + 1, sizeof *list);
    for (size_t i = 0; list && i < c->n_values; i++)
        list[i] = &c->values[i];
    if (list)
        qsort(list, c->n_values, sizeof *list, by_value);
    return list;
}

/* Four arrays of as many items: PREFIXname, PREFIXoperator, PREFIXsqnr_db, PREFIXcosine. */
static int set_errors(struct onnx_tables *t, const char *prefix, const struct value_error *const *list, size_t n)
{
    struct bytes *names = arena_alloc(t->arena, n + 1, sizeof *names);
    struct bytes *operators = arena_alloc(t->arena, n + 1, sizeof *operators);
    double *sqnr = arena_alloc(t->arena, n + 1, sizeof *sqnr), *cosine = arena_alloc(t->arena, n + 1, sizeof *cosine);
    if (!names || !operators || !sqnr || !cosine)
        return QD_E_NO_MEMORY;
    for (size_t i = 0; i < n; i++) {
        names[i] = bytes_of_text(list[i]->name);
        operators[i] = bytes_of_text(list[i]->op);
        sqnr[i] = deviation_sqnr(&list[i]->deviation);
        cosine[i] = deviation_cosine(&list[i]->deviation);
    }
    int r = n ? set(t, key_of(t, prefix, "name"), META_STRING, n, true, names) : 0;
    if (r == 0 && n)
        r = set(t, key_of(t, prefix, "operator"), META_STRING, n, true, operators);
    if (r == 0 && n)
        r = set(t, key_of(t, prefix, "sqnr_db"), META_F64, n, true, sqnr);
    return r == 0 && n ? set(t, key_of(t, prefix, "cosine"), META_F64, n, true, cosine) : r;
}

static int set_comparison(struct onnx_tables *t, const struct comparison *c)
{
    CLEANUP(free) const struct value_error **worst = worst_values(c);
    CLEANUP(free) const struct value_error **outputs = calloc(c->n_outputs + 1, sizeof *outputs);
    if (!worst || !outputs)
        return QD_E_NO_MEMORY;
    size_t n_worst = 0;
    while (n_worst < c->n_values && n_worst < TABLES_WORST && worst[n_worst]->deviation.noise > 0.0)
        n_worst++;
    for (size_t i = 0; i < c->n_outputs; i++)
        outputs[i] = &c->outputs[i];
    int r = set_number(t, "quantd.samples", META_U64, &c->n_samples);
    if (r == 0)
        r = set_errors(t, "quantd.outputs.", outputs, c->n_outputs);
    return r < 0 ? r : set_errors(t, "quantd.worst.", worst, n_worst);
}

/* ---- the whole ---- */

enum { KEYS_BESIDE = 16 }; /* of set_model, set_comparison and fill: those that are not counted */

static int fill(struct onnx_tables *t, const struct made *made, const struct onnx_model *output,
                const struct comparison *comparison, struct qd_error *err)
{
    int r = fill_tensors(t, made->plan, output->graph, err);
    if (r < 0)
        return r;
    sum_up(t, made->plan);
    t->meta.entries = arena_alloc(t->arena, output->n_opsets + output->n_props + KEYS_BESIDE, sizeof *t->meta.entries);
    r = t->meta.entries ? set_model(t, output) : QD_E_NO_MEMORY;
    if (r == 0)
        r = set_text(t, "quantd.form", onnx_scheme_name(made->plan->recipe.scheme));
    if (r == 0)
        r = set_text(t, "quantd.form.why", made->why);
    if (r == 0 && comparison)
        r = set_comparison(t, comparison);
    return r < 0 ? err_new(err, r, "the artifact's metadata") : 0;
}

int onnx_tables_make(const struct made *made, const struct onnx_model *output, const struct comparison *comparison,
                     struct onnx_tables **ret, struct qd_error *err)
{
    CLEANUP(onnx_tables_free) struct onnx_tables *t = calloc(1, sizeof *t);
    if (!t || !(t->arena = arena_new(ARENA_BYTES)))
        return err_new(err, QD_E_NO_MEMORY, "the artifact's tables");
    int r = fill(t, made, output, comparison, err);
    if (r == 0)
        *ret = steal(&t);
    return r;
}

struct onnx_tables *onnx_tables_free(struct onnx_tables *t)
{
    if (t)
        (void)arena_free(t->arena); /* returns NULL */
    free(t);
    return NULL;
}
