#include "quant/pack_onnx.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "artifact/digest.h"
#include "kernels/core/checked.h"
#include "kernels/core/io.h"
#include "kernels/kernels.h"
#include "kernels/layout/codes.h"
#include "kernels/layout/packed.h"
#include "quant/format/gguf_write.h"
#include "quant/format/meta_build.h"
#include "quant/packed.h"
#include "quant/plan.h"
#include "quant/portable_table.h"

enum {
    BAND_BYTES = 8 << 20, /* of the rows that are moved at a time */
    COPY_BYTES = 1 << 20,
    NUMBERS = 8, /* that say a matrix */
    ARENA_BYTES = 1 << 16,
};

static const char key_matrices[] = "quantd.onnx.matrices";
static const char *const part_names[ONNX_PARTS] = {"model.onnx", "model.onnx.data"};

/* Bytes of the packed file that change places: codes, or what moves with them. */
struct onnx_run {
    uint64_t offset, bytes; /* in the packed file */
    struct code_shape shape;
    unsigned bits; /* of an element: 0 of codes, whose own they are; 32 of scales, 4 of zero points */
};

struct onnx_pack *onnx_pack_free(struct onnx_pack *p)
{
    if (!p)
        return NULL;
    buffer_clear(&p->header);
    (void)arena_free(p->arena); /* returns NULL by convention */
    free(p);
    return NULL;
}

static int no_memory(struct qd_error *err)
{
    return err_new(err, QD_E_NO_MEMORY, "plan of a packed file");
}

static struct onnx_pack *pack_new(enum qd_layout layout, size_t arena_bytes)
{
    CLEANUP(onnx_pack_free) struct onnx_pack *p = calloc(1, sizeof *p);
    if (!p || !(p->arena = arena_new(arena_bytes)))
        return NULL;
    p->layout = layout;
    return steal(&p);
}

/* ---- runs ---- */

static uint64_t run_bytes(const struct code_shape *s, unsigned bits)
{
    if (bits == 0)
        return codes_bytes(s);
    return bits == 4 ? codes_zero_bytes(s) : (uint64_t)s->n_rows * codes_n_scales(s) * sizeof(float);
}

static int add_run(struct onnx_pack *p, const struct code_shape *s, unsigned bits, uint64_t offset,
                   struct qd_error *err)
{
    const uint64_t row_bytes = (uint64_t)codes_n_blocks(s) * packed_block_bytes(s->type);
    if (row_bytes > SHARD_BYTES / qd_layout_info(p->layout)->rows) {
        int r = err_new(err, QD_E_LIMIT, "%u rows of %" PRIu64 " bytes are packed as one, at most %d",
                        qd_layout_info(p->layout)->rows, row_bytes, (int)SHARD_BYTES);
        return err_hint(err, r, "the portable artifact is all there is of a model with such rows");
    }
    p->runs[p->n_runs++] = (struct onnx_run){.offset = offset, .bytes = run_bytes(s, bits), .shape = *s, .bits = bits};
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    const struct onnx_run *x = a, *y = b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* In file order, each within a part and none over another. */
static int order_runs(struct onnx_pack *p, struct qd_error *err)
{
    size_t part = 0;
    uint64_t end = 0;
    qsort(p->runs, p->n_runs, sizeof *p->runs, by_offset);
    for (size_t i = 0; i < p->n_runs; i++) {
        const struct onnx_run *run = &p->runs[i];
        while (part < p->n_parts && run->offset >= p->parts[part].offset + p->parts[part].bytes)
            part++;
        if (part == p->n_parts || run->offset < end || run->offset < p->parts[part].offset ||
            !range_inside(run->offset - p->parts[part].offset, run->bytes, p->parts[part].bytes))
            return err_new(err, QD_E_CORRUPT, "%" PRIu64 " bytes at %" PRIu64 " are no place of a matrix", run->bytes,
                           run->offset);
        end = run->offset + run->bytes;
    }
    return 0;
}

/* ---- a packed file: plan ---- */

static void take_parts(struct onnx_pack *p, const struct source *s)
{
    const int data = source_n_files(s) > 1 && source_find_role(s, PORTABLE_TABLE_ROLE) != 1 ? 1 : 0;
    p->n_parts = data ? 2 : 1;
    for (size_t i = 0; i < p->n_parts; i++)
        p->parts[i] = (struct onnx_part){.name = part_names[i], .bytes = source_bytes(s, i)};
}

static int read_raw(struct onnx_pack *p, struct source *s, const char *role, struct bytes *ret, struct qd_error *err)
{
    const int file = source_find_role(s, role);
    if (file < 0)
        return err_new(err, QD_E_PROTOCOL, "a layout without the artifact's table of %s", role);
    const uint64_t n = source_bytes(s, (size_t)file);
    uint8_t *raw = n <= TABLE_BYTES_MAX ? arena_alloc(p->arena, n + 1, 1) : NULL;
    if (!raw)
        return err_new(err, QD_E_LIMIT, "a table of %s of %" PRIu64 " bytes", role, n);
    *ret = (struct bytes){raw, (size_t)n};
    return source_read_meta(s, (size_t)file, 0, raw, n, err);
}

static int read_tables(struct onnx_pack *p, struct source *s, struct qd_error *err)
{
    struct bytes tensors, metadata;
    uint64_t payload[ONNX_PARTS] = {0};
    for (size_t i = 0; i < p->n_parts; i++)
        payload[i] = p->parts[i].bytes;
    int r = read_raw(p, s, PORTABLE_TABLE_ROLE, &tensors, err);
    if (r == 0)
        r = tensor_table_decode(tensors, payload, p->n_parts, p->arena, &p->as_read, err);
    if (r == 0)
        r = read_raw(p, s, PORTABLE_METADATA_ROLE, &metadata, err);
    return r < 0 ? r : meta_table_decode(metadata, p->arena, &p->meta, err);
}

/* Where tensor @i of the table lies in the packed file, whose parts have their offsets. */
static uint64_t place_of(const struct onnx_pack *p, size_t i)
{
    return p->parts[p->as_read.tensors[i].file].offset + p->as_read.tensors[i].offset;
}

static bool is_packed(const struct onnx_pack *p, const struct tensor_entry *t)
{
    return t->codes.n_cols && tensor_packs(t, p->layout);
}

/* Eight numbers for each: order, bits, rows, columns, block, places of codes, scales, zero points; 0: not moved. */
static int find_matrices(struct onnx_pack *p, uint64_t *numbers, struct qd_error *err)
{
    int r = 0;
    for (size_t i = 0; i < p->as_read.n && r == 0; i++) {
        const struct tensor_entry *t = &p->as_read.tensors[i];
        const struct code_shape shape = tensor_codes(t);
        if (!is_packed(p, t))
            continue;
        const uint64_t scales = codes_moves_scales(&shape) ? place_of(p, t->codes.scales) : 0;
        const uint64_t zeros =
            t->codes.zero_points && codes_moves_zeros(&shape) ? place_of(p, t->codes.zero_points - 1) : 0;
        const uint64_t said[NUMBERS] = {shape.by_columns, shape.type == QD_TYPE_I8 ? 8 : 4,
                                        shape.n_rows,     shape.n_cols,
                                        shape.block,      place_of(p, i),
                                        scales,           zeros};
        memcpy(numbers + p->n_matrices++ * NUMBERS, said, sizeof said);
        r = add_run(p, &shape, 0, place_of(p, i), err);
        if (r == 0 && scales)
            r = add_run(p, &shape, 32, scales, err);
        if (r == 0 && zeros)
            r = add_run(p, &shape, 4, zeros, err);
    }
    return r < 0 ? r : order_runs(p, err);
}

static int make_header(struct onnx_pack *p, const uint64_t *numbers, struct qd_error *err)
{
    struct tensor tensors[ONNX_PARTS] = {0};
    struct gguf_tensor listed[ONNX_PARTS] = {0};
    struct meta_entry said = {
        key_matrices, {.type = META_ARRAY, .item = META_U64, .n_items = p->n_matrices * NUMBERS, .data = numbers}};
    struct model m = {
        .format = "onnx", .architecture = "", .tensors = tensors, .n_tensors = p->n_parts, .meta = {&said, 1}};
    struct meta_table meta;
    uint64_t at = 0;
    for (size_t i = 0; i < p->n_parts; i++) {
        tensors[i] =
            (struct tensor){.name = p->parts[i].name, .type = QD_TYPE_I8, .n_dims = 1, .shape = {p->parts[i].bytes}};
        listed[i] = (struct gguf_tensor){
            .name = p->parts[i].name, .type = QD_TYPE_I8, .n_dims = 1, .shape = {p->parts[i].bytes}, .offset = at};
        if (!checked_add(at, p->parts[i].bytes, &at) || !checked_align(at, PLAN_ALIGNMENT, &at))
            return err_new(err, QD_E_LIMIT, "the output would pass 2^63 bytes");
    }
    p->header.n = 0;
    int r = packed_meta(&m, p->layout, p->arena, &meta, err);
    if (r == 0)
        r = gguf_header(&meta, listed, p->n_parts, PLAN_ALIGNMENT, &p->header, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < p->n_parts; i++)
        p->parts[i].offset = p->header.n + listed[i].offset;
    p->file_bytes = p->header.n + at;
    return 0;
}

/* What the artifact's table says of its tensors, at their new places. */
static int move_tensors(struct onnx_pack *p, struct qd_error *err)
{
    p->tensors.n = p->as_read.n;
    p->tensors.tensors = arena_alloc(p->arena, p->tensors.n + 1, sizeof *p->tensors.tensors);
    if (!p->tensors.tensors)
        return no_memory(err);
    for (size_t i = 0; i < p->tensors.n; i++) {
        p->tensors.tensors[i] = p->as_read.tensors[i];
        p->tensors.tensors[i].offset = place_of(p, i);
        p->tensors.tensors[i].file = 0;
    }
    return 0;
}

static size_t count_matrices(const struct onnx_pack *p)
{
    size_t n = 0;
    for (size_t i = 0; i < p->as_read.n; i++)
        n += is_packed(p, &p->as_read.tensors[i]);
    return n;
}

int onnx_pack_plan(struct source *s, enum qd_layout layout, size_t budget_bytes, struct onnx_pack **ret,
                   struct qd_error *err)
{
    CLEANUP(onnx_pack_free) struct onnx_pack *p = pack_new(layout, budget_bytes);
    if (!p)
        return no_memory(err);
    take_parts(p, s);
    int r = read_tables(p, s, err);
    if (r < 0)
        return r;
    const size_t n = count_matrices(p);
    uint64_t *numbers = arena_alloc(p->arena, n + 1, NUMBERS * sizeof *numbers);
    p->runs = arena_alloc(p->arena, n + 1, 3 * sizeof *p->runs);
    if (!numbers || !p->runs)
        return no_memory(err);
    p->n_matrices = n;
    memset(numbers, 0, n * NUMBERS * sizeof *numbers);
    r = make_header(p, numbers, err); /* its size: numbers have the same at every value */
    p->n_matrices = 0;
    if (r == 0)
        r = find_matrices(p, numbers, err);
    if (r == 0)
        r = make_header(p, numbers, err);
    if (r == 0)
        r = move_tensors(p, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < p->n_parts; i++)
        p->bytes += p->parts[i].bytes;
    *ret = steal(&p);
    return 0;
}

/* ---- and back: plan ---- */

bool onnx_packed_is(const struct model *m)
{
    return packed_is(m) && meta_find(&m->meta, key_matrices) != NULL;
}

static int unsound(const char *what, struct qd_error *err)
{
    int r = err_new(err, QD_E_CORRUPT, "this is no sound packed file: %s", what);
    return err_hint(err, r, "the file is damaged, or was not written by quantd");
}

static int open_parts(struct onnx_pack *p, const struct packed *packed, struct qd_error *err)
{
    const struct model *m = &packed->model;
    if (m->n_tensors < 1 || m->n_tensors > ONNX_PARTS)
        return unsound("it holds no ONNX model", err);
    p->n_parts = m->n_tensors;
    for (size_t i = 0; i < p->n_parts; i++) {
        const struct tensor *t = &m->tensors[i];
        if (strcmp(t->name, part_names[i]) != 0 || t->type != QD_TYPE_I8 || t->n_dims != 1)
            return unsound("it holds no ONNX model", err);
        p->parts[i] = (struct onnx_part){.name = part_names[i], .offset = t->offset, .bytes = t->bytes};
        p->bytes += t->bytes;
    }
    return 0;
}

static int open_matrix(struct onnx_pack *p, const uint64_t said[NUMBERS], struct qd_error *err)
{
    const struct code_shape shape = {.type = said[1] == 8 ? QD_TYPE_I8 : QD_TYPE_U4,
                                     .by_columns = said[0] == 1,
                                     .n_rows = said[2],
                                     .n_cols = said[3],
                                     .block = said[4]};
    if (said[0] > 1 || (said[1] != 8 && said[1] != 4) || codes_flaw(&shape) ||
        !layout_packs_codes(p->layout, shape.type, shape.n_rows, codes_row(&shape)))
        return unsound("what it says of a matrix is none", err);
    int r = add_run(p, &shape, 0, said[5], err);
    if (r == 0 && said[6])
        r = codes_moves_scales(&shape) ? add_run(p, &shape, 32, said[6], err) : unsound("scales that move", err);
    if (r == 0 && said[7])
        r = codes_moves_zeros(&shape) ? add_run(p, &shape, 4, said[7], err) : unsound("zero points that move", err);
    return r;
}

static int open_matrices(struct onnx_pack *p, const struct model *file, struct qd_error *err)
{
    const struct meta_value *v = meta_find(&file->meta, key_matrices);
    if (v->type != META_ARRAY || v->item != META_U64 || v->n_items % NUMBERS)
        return unsound("its list of matrices is none", err);
    const size_t n = v->n_items / NUMBERS;
    int r = 0;
    p->runs = arena_alloc(p->arena, n + 1, 3 * sizeof *p->runs);
    if (!p->runs)
        return no_memory(err);
    for (size_t i = 0; i < n && r == 0; i++) {
        uint64_t said[NUMBERS];
        memcpy(said, (const uint8_t *)v->data + i * sizeof said, sizeof said);
        r = open_matrix(p, said, err);
    }
    p->n_matrices = n;
    return r < 0 ? r : order_runs(p, err);
}

int onnx_unpack_plan(const struct model *m, struct onnx_pack **ret, struct qd_error *err)
{
    const struct meta_value *v = meta_find(&m->meta, key_matrices);
    struct packed packed;
    CLEANUP(onnx_pack_free)
    struct onnx_pack *p = pack_new(QD_LAYOUT_PORTABLE, ARENA_BYTES + packed_arena_bytes(m) +
                                                           (v->n_items / NUMBERS + 1) * 3 * sizeof(struct onnx_run));
    if (!p)
        return no_memory(err);
    int r = packed_open(m, p->arena, &packed, err);
    if (r < 0)
        return r;
    p->layout = packed.layout;
    r = open_parts(p, &packed, err);
    if (r == 0)
        r = open_matrices(p, m, err);
    if (r < 0)
        return r;
    *ret = steal(&p);
    return 0;
}

/* ---- moving ---- */

/* One side of a run of the whole: where the bytes of a part are read, and where they are written. */
struct side {
    int fd;
    uint64_t shift; /* from a place in the packed file to that in @fd, modulo 2^64 */
};

struct moving {
    const struct onnx_pack *pack;
    struct side portable, packed;
    bool packs;                   /* from portable to packed */
    uint8_t *band, *other, *rows; /* owned; a band in order, packed, and room for a group */
    size_t band_bytes;
    onnx_progress_fn *progress;
    void *data;
    uint64_t done;
};

static int read_side(const struct side *side, uint64_t place, void *dst, size_t n, struct qd_error *err)
{
    const ssize_t got = pread_whole(side->fd, dst, n, place + side->shift);
    if (got < 0)
        return err_sys(err, (int)-got, "read weights");
    return (size_t)got == n ? 0
                            : err_new(err, QD_E_SOURCE_CHANGED, "the weights end at byte %zu of %zu", (size_t)got, n);
}

static int write_side(const struct side *side, uint64_t place, const void *src, size_t n, struct qd_error *err)
{
    const int r = pwrite_whole(side->fd, src, n, place + side->shift);
    return r < 0 ? err_sys(err, -r, "write weights") : 0;
}

static int tell(struct moving *m, uint64_t n, const char *what)
{
    m->done += n;
    return m->progress ? m->progress(m->data, m->done, m->pack->bytes, what) : 0;
}

/* Rows [first, first + n) of codes in order columns, as a matrix of their own in the band: a piece of each row of k. */
static int each_piece(struct moving *m, const struct onnx_run *run, size_t first, size_t n, bool reads,
                      struct qd_error *err)
{
    const unsigned bits = run->shape.type == QD_TYPE_I8 ? 8 : 4;
    const size_t piece = n * bits / 8;
    int r = 0;
    for (size_t k = 0; k < run->shape.n_cols && r == 0; k++) {
        const uint64_t place = run->offset + ((uint64_t)k * run->shape.n_rows + first) * bits / 8;
        r = reads ? read_side(&m->portable, place, m->band + k * piece, piece, err)
                  : write_side(&m->portable, place, m->band + k * piece, piece, err);
    }
    return r;
}

/* Bytes of @n rows, packed and in order rows. */
static size_t rows_bytes(const struct onnx_run *run, size_t n)
{
    struct code_shape rows = run->shape;
    rows.n_rows = n;
    return (size_t)run_bytes(&rows, run->bits);
}

/* The band, @n rows in order, to @other; and back. Rows behind the last group are in order rows. */
static void turn_codes(struct moving *m, const struct code_shape *band)
{
    const enum qd_layout layout = m->pack->layout;
    const size_t lanes = qd_layout_info(layout)->rows, row = codes_n_blocks(band) * packed_block_bytes(band->type);
    size_t r = 0;
    for (; r + lanes <= band->n_rows; r += lanes)
        if (m->packs)
            codes_pack_group(ops_native(), layout, band, m->other + r * row, m->band, r, lanes, m->rows);
        else
            codes_unpack_group(ops_native(), layout, band, m->band, m->other + r * row, r, m->rows);
    if (m->packs)
        codes_get_rows(band, m->other + r * row, m->band, r, band->n_rows - r);
    else
        codes_put_rows(band, m->band, m->other + r * row, r, band->n_rows - r);
}

static void turn_scales(struct moving *m, const struct code_shape *band, unsigned bits)
{
    const size_t lanes = qd_layout_info(m->pack->layout)->rows,
                 row = bits == 4 ? codes_zero_row(band) / 2 : codes_n_scales(band) * sizeof(float);
    size_t r = 0;
    for (; r + lanes <= band->n_rows; r += lanes)
        if (m->packs)
            codes_pack_scales(band, bits, m->other + r * row, m->band, r, lanes, lanes);
        else
            codes_unpack_scales(band, bits, m->band, m->other + r * row, r, lanes);
    memcpy((m->packs ? m->other : m->band) + r * row, (m->packs ? m->band : m->other) + r * row,
           (band->n_rows - r) * row);
}

/* Rows [first, first + n): whole groups, or up to the last row. */
static int move_band(struct moving *m, const struct onnx_run *run, size_t first, size_t n, struct qd_error *err)
{
    struct code_shape band = run->shape;
    const size_t bytes = rows_bytes(run, n);
    const uint64_t place = run->offset + rows_bytes(run, first);
    const bool in_pieces = run->bits == 0 && run->shape.by_columns;
    int r;
    band.n_rows = n;
    if (m->packs)
        r = in_pieces ? each_piece(m, run, first, n, true, err) : read_side(&m->portable, place, m->band, bytes, err);
    else
        r = read_side(&m->packed, place, m->other, bytes, err);
    if (r < 0)
        return r;
    if (run->bits == 0)
        turn_codes(m, &band);
    else
        turn_scales(m, &band, run->bits);
    if (m->packs)
        return write_side(&m->packed, place, m->other, bytes, err);
    return in_pieces ? each_piece(m, run, first, n, false, err) : write_side(&m->portable, place, m->band, bytes, err);
}

static int move_run(struct moving *m, const struct onnx_run *run, struct qd_error *err)
{
    const size_t lanes = qd_layout_info(m->pack->layout)->rows, fit = m->band_bytes / rows_bytes(run, lanes) * lanes;
    int r = 0;
    for (size_t first = 0; first < run->shape.n_rows && r == 0; first += fit) {
        const size_t left = run->shape.n_rows - first, n = left < fit ? left : fit;
        r = move_band(m, run, first, n, err);
        if (r == 0)
            r = tell(m, rows_bytes(run, n), "packed rows");
    }
    return r;
}

static int copy_bytes(struct moving *m, uint64_t from, uint64_t end, struct qd_error *err)
{
    const struct side *in = m->packs ? &m->portable : &m->packed, *out = m->packs ? &m->packed : &m->portable;
    int r = 0;
    for (uint64_t at = from; at < end && r == 0; at += COPY_BYTES) {
        const size_t n = end - at < COPY_BYTES ? (size_t)(end - at) : COPY_BYTES;
        r = read_side(in, at, m->band, n, err);
        if (r == 0)
            r = write_side(out, at, m->band, n, err);
        if (r == 0)
            r = tell(m, n, "what stays in place");
    }
    return r;
}

/* A part: its runs, and all that lies between them as it is. */
static int move_part(struct moving *m, const struct onnx_part *part, struct qd_error *err)
{
    const struct onnx_pack *p = m->pack;
    const uint64_t end = part->offset + part->bytes;
    uint64_t at = part->offset;
    int r = 0;
    for (size_t i = 0; i < p->n_runs && r == 0; i++) {
        const struct onnx_run *run = &p->runs[i];
        if (run->offset < at || run->offset >= end)
            continue;
        r = copy_bytes(m, at, run->offset, err);
        if (r == 0)
            r = move_run(m, run, err);
        at = run->offset + run->bytes;
    }
    return r < 0 ? r : copy_bytes(m, at, end, err);
}

static int moving_init(struct moving *m, struct qd_error *err)
{
    const size_t lanes = qd_layout_info(m->pack->layout)->rows;
    size_t group = 1;
    for (size_t i = 0; i < m->pack->n_runs; i++) {
        const size_t bytes = rows_bytes(&m->pack->runs[i], lanes);
        group = bytes > group ? bytes : group;
    }
    m->band_bytes = group > BAND_BYTES ? group : BAND_BYTES;
    m->band = malloc(m->band_bytes);
    m->other = malloc(m->band_bytes);
    m->rows = malloc(group);
    return m->band && m->other && m->rows ? 0 : no_memory(err);
}

static void moving_clear(struct moving *m)
{
    free(m->band);
    free(m->other);
    free(m->rows);
}

int onnx_pack_run(const struct onnx_pack *p, struct source *s, int fd, onnx_progress_fn *progress, void *data,
                  struct qd_error *err)
{
    struct moving m = {.pack = p, .packed = {.fd = fd}, .packs = true, .progress = progress, .data = data};
    int r = moving_init(&m, err);
    if (r == 0)
        r = write_side(&m.packed, 0, p->header.data, p->header.n, err);
    for (size_t i = 0; i < p->n_parts && r == 0; i++) {
        m.portable = (struct side){.fd = source_fd(s, i), .shift = 0 - p->parts[i].offset};
        r = move_part(&m, &p->parts[i], err);
    }
    moving_clear(&m);
    /* the file ends with what fills up its last part */
    const uint8_t last = 0;
    const struct onnx_part *end = &p->parts[p->n_parts - 1];
    if (r == 0 && end->offset + end->bytes < p->file_bytes)
        r = write_side(&m.packed, p->file_bytes - 1, &last, 1, err);
    return r;
}

int onnx_unpack_run(const struct onnx_pack *p, struct source *s, const int *fds, onnx_progress_fn *progress, void *data,
                    struct qd_error *err)
{
    struct moving m = {.pack = p, .packed = {.fd = source_fd(s, 0)}, .progress = progress, .data = data};
    int r = moving_init(&m, err);
    for (size_t i = 0; i < p->n_parts && r == 0; i++) {
        m.portable = (struct side){.fd = fds[i], .shift = 0 - p->parts[i].offset};
        r = move_part(&m, &p->parts[i], err);
    }
    moving_clear(&m);
    return r;
}
