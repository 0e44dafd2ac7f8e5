#include "quant/run_layout.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static uint64_t shard_of(uint64_t offset)
{
    return offset / SHARD_BYTES;
}

static uint64_t n_pieces_of(const struct job_tensor *t)
{
    return t->end > t->offset ? shard_of(t->end - 1) - shard_of(t->offset) + 1 : 0;
}

/* Rows that ROWS_ROPE_PAIRED moves: a bias has an element for each row of its matrix. */
static uint64_t n_moved_rows(const struct tensor *t)
{
    return t->n_dims == 1 ? t->n_elements : t->n_elements / t->shape[0];
}

static uint64_t row_elements(const struct tensor *t)
{
    return t->n_dims ? t->shape[0] : 1;
}

static enum work work_of(const struct plan *p, const struct plan_tensor *pt)
{
    if (plan_moves(p) && pt->layout == QD_LAYOUT_PORTABLE)
        return WORK_MOVE;
    if (plan_moves(p))
        return p->to == QD_LAYOUT_PORTABLE ? WORK_UNPACK : WORK_PACK;
    if (pt->source->type != pt->type)
        return WORK_ENCODE;
    return ops_for(0)->dequantize[pt->type] ? WORK_COPY : WORK_MOVE;
}

/* Groups of rows, and behind those of each matrix the rows that are left. */
static void set_groups(struct job_tensor *t, const struct plan_tensor *pt)
{
    const struct tensor *from = pt->source;
    const uint64_t n_rows = qd_layout_info(pt->layout)->rows,
                   row_bytes = from->bytes / (from->n_elements / from->shape[0]);
    t->cell_elements = n_rows * from->shape[0];
    t->cell_source_bytes = t->cell_bytes = n_rows * row_bytes;
    t->matrix_bytes = from->shape[1] * row_bytes;
    t->matrix_cells = (from->shape[1] + n_rows - 1) / n_rows;
    t->n_cells = from->bytes / t->matrix_bytes * t->matrix_cells;
}

static void set_blocks(struct job_tensor *t, const struct plan_tensor *pt)
{
    const struct tensor *from = pt->source;
    const struct qd_type_info *a = qd_type_info(from->type), *b = qd_type_info(pt->type);
    const bool unseen = t->work == WORK_MOVE;
    t->by_row = t->work == WORK_ENCODE && pt->importance && quantize_weighted_by_row(pt->type);
    t->cell_elements = a->block_elements > b->block_elements ? a->block_elements : b->block_elements;
    if (t->by_row)
        t->cell_elements = row_elements(from);
    t->cell_source_bytes = unseen ? 1 : t->cell_elements / a->block_elements * a->block_bytes;
    t->cell_bytes = unseen ? 1 : t->cell_elements / b->block_elements * b->block_bytes;
    t->n_cells = t->matrix_cells = from->bytes / t->cell_source_bytes;
    t->matrix_bytes = from->bytes;
}

static void set_cells(struct job_tensor *t, const struct plan *p, const struct plan_tensor *pt)
{
    const struct tensor *from = pt->source;
    t->work = work_of(p, pt);
    if (t->work == WORK_PACK || t->work == WORK_UNPACK)
        set_groups(t, pt);
    else
        set_blocks(t, pt);
    t->cells_in_row = t->n_cells;
    if (from->row_order != ROWS_ROPE_PAIRED || !from->n_elements)
        return;
    t->head_rows = from->head_rows;
    t->cells_in_row = t->n_cells / n_moved_rows(from);
}

uint64_t layout_cell_bytes_max(const struct plan *p)
{
    uint64_t most = 1;
    for (size_t i = 0; i < p->n_tensors; i++) {
        struct job_tensor t = {0};
        set_cells(&t, p, &p->tensors[i]);
        most = t.cell_source_bytes > most ? t.cell_source_bytes : most;
    }
    return most;
}

uint64_t layout_group_bytes_max(const struct plan *p)
{
    return plan_moves(p) ? layout_cell_bytes_max(p) : 0;
}

static void set_tensor(struct layout *l, struct job_tensor *t, const struct plan *p, const struct plan_tensor *pt)
{
    const struct tensor *from = pt->source;
    t->planned = pt;
    t->name = from->name;
    t->file = from->file;
    t->offset = from->offset;
    t->end = from->offset + from->bytes;
    set_cells(t, p, pt);

    uint64_t n = n_pieces_of(t), cell = t->cell_source_bytes;
    t->first_piece = l->n_pieces;
    t->first_seam = l->n_seams;
    t->seams = n > 1 && (t->offset % cell != 0 || SHARD_BYTES % cell != 0 || t->matrix_bytes % cell != 0);
    l->n_pieces += n;
    l->n_seams += t->seams ? n - 1 : 0;
}

static int refuse_row(const struct job_tensor *t, struct qd_error *err)
{
    int r = err_new(err, QD_E_LIMIT, "tensor '%s': rows of %" PRIu64 " bytes, and at most %d can be weighed as one",
                    t->name, t->cell_source_bytes, (int)CELL_BYTES_MAX);
    return err_hint(err, r, "give it a type that is weighed block by block, such as q4_k, or leave out the importance");
}

/* What the planner promises and the arithmetic here relies on. */
static int check_tensor(const struct job_tensor *t, const struct plan_tensor *pt, const struct layout *l,
                        struct qd_error *err)
{
    const struct tensor *from = pt->source;
    bool moved = t->cell_source_bytes == t->cell_bytes; /* and so are shorter cells */
    bool whole = !from->bytes || cell_begin(t, t->n_cells) == from->bytes;
    whole = whole && (moved ? from->bytes : t->n_cells * t->cell_bytes) == pt->bytes;
    bool inside = t->file < l->n_files && t->end <= l->file_bytes[t->file];
    bool rows = !t->head_rows || (t->head_rows % 2 == 0 && n_moved_rows(from) % t->head_rows == 0 &&
                                  t->n_cells % n_moved_rows(from) == 0);
    if (t->by_row && t->cell_source_bytes > CELL_BYTES_MAX)
        return refuse_row(t, err);
    if (!whole || !inside || !rows || t->cell_source_bytes > CELL_BYTES_MAX)
        return err_new(err, QD_E_INTERNAL, "tensor '%s': the plan does not fit its source", t->name);
    return 0;
}

static int no_memory(struct qd_error *err)
{
    return err_new(err, QD_E_NO_MEMORY, "layout of the run");
}

static int set_files(struct layout *l, const struct source *s, struct qd_error *err)
{
    l->n_files = source_n_files(s);
    l->file_bytes = calloc(l->n_files + 1, sizeof *l->file_bytes);
    l->unit_first = calloc(l->n_files + 1, sizeof *l->unit_first);
    l->file_first = calloc(l->n_files + 1, sizeof *l->file_first);
    if (!l->file_bytes || !l->unit_first || !l->file_first)
        return no_memory(err);
    for (size_t i = 0; i < l->n_files; i++) {
        l->file_bytes[i] = source_bytes(s, i);
        l->unit_first[i + 1] = l->unit_first[i] + shard_count(l->file_bytes[i]);
    }
    l->n_units = l->unit_first[l->n_files];
    return 0;
}

static int set_tensors(struct layout *l, const struct plan *p, struct qd_error *err)
{
    l->n_tensors = p->n_tensors;
    l->tensors = calloc(p->n_tensors + 1, sizeof *l->tensors);
    if (!l->tensors)
        return no_memory(err);
    for (size_t i = 0; i < p->n_tensors; i++) {
        set_tensor(l, &l->tensors[i], p, &p->tensors[i]);
        int r = check_tensor(&l->tensors[i], &p->tensors[i], l, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int compare_place(const void *a, const void *b, void *data)
{
    const struct job_tensor *tensors = data;
    const struct job_tensor *x = &tensors[*(const size_t *)a], *y = &tensors[*(const size_t *)b];
    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x < y ? -1 : x > y;
}

static int set_order(struct layout *l, struct qd_error *err)
{
    l->by_offset = calloc(l->n_tensors + 1, sizeof *l->by_offset);
    l->furthest = calloc(l->n_tensors + 1, sizeof *l->furthest);
    if (!l->by_offset || !l->furthest)
        return no_memory(err);
    for (size_t i = 0; i < l->n_tensors; i++)
        l->by_offset[i] = i;
    qsort_r(l->by_offset, l->n_tensors, sizeof *l->by_offset, compare_place, l->tensors);
    for (size_t i = 0; i < l->n_tensors; i++) {
        const struct job_tensor *t = &l->tensors[l->by_offset[i]];
        bool first = i == 0 || l->tensors[l->by_offset[i - 1]].file != t->file;
        l->furthest[i] = first || t->end > l->furthest[i - 1] ? t->end : l->furthest[i - 1];
        l->file_first[t->file + 1]++;
    }
    for (size_t f = 0; f < l->n_files; f++)
        l->file_first[f + 1] += l->file_first[f];
    return 0;
}

static int set_slots(struct layout *l, struct qd_error *err)
{
    l->pieces = calloc(l->n_pieces + 1, sizeof *l->pieces);
    l->seams = calloc(l->n_seams + 1, sizeof *l->seams);
    return l->pieces && l->seams ? 0 : no_memory(err);
}

int layout_build(struct layout *l, const struct source *s, const struct plan *p, struct qd_error *err)
{
    int r = set_files(l, s, err);
    l->cell_bytes_max = layout_cell_bytes_max(p);
    l->group_bytes_max = layout_group_bytes_max(p);
    if (r == 0)
        r = set_tensors(l, p, err);
    if (r == 0)
        r = set_order(l, err);
    return r == 0 ? set_slots(l, err) : r;
}

void layout_clear(struct layout *l)
{
    for (size_t i = 0; l->seams && i < l->n_seams; i++)
        free(l->seams[i].bytes);
    free(l->tensors);
    free(l->by_offset);
    free(l->furthest);
    free(l->file_first);
    free(l->file_bytes);
    free(l->unit_first);
    free(l->pieces);
    free(l->seams);
    *l = (struct layout){0};
}

struct unit layout_unit(const struct layout *l, uint64_t index)
{
    size_t low = 0, high = l->n_files; /* the file with unit_first[low] <= index < unit_first[low + 1] */
    while (high - low > 1) {
        size_t mid = low + (high - low) / 2;
        if (l->unit_first[mid] <= index)
            low = mid;
        else
            high = mid;
    }
    struct unit u = {.index = index, .file = (uint32_t)low, .shard = index - l->unit_first[low]};
    u.begin = u.shard * SHARD_BYTES;
    u.end = u.begin + SHARD_BYTES < l->file_bytes[low] ? u.begin + SHARD_BYTES : l->file_bytes[low];
    return u;
}

size_t layout_first(const struct layout *l, uint32_t file, uint64_t begin)
{
    size_t low = l->file_first[file], high = l->file_first[file + 1];
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (l->furthest[mid] > begin)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

struct job_tensor *layout_next(const struct layout *l, uint32_t file, uint64_t begin, uint64_t end, size_t *at)
{
    while (*at < l->file_first[file + 1]) {
        struct job_tensor *t = &l->tensors[l->by_offset[*at]];
        if (t->offset >= end)
            return NULL;
        ++*at;
        if (t->end > begin && t->end > t->offset)
            return t;
    }
    return NULL;
}

struct error_total *layout_piece(const struct layout *l, const struct job_tensor *t, uint64_t shard)
{
    return &l->pieces[t->first_piece + (shard - shard_of(t->offset))];
}

struct seam *layout_seam(const struct layout *l, const struct job_tensor *t, uint64_t left_shard)
{
    return &l->seams[t->first_seam + (left_shard - shard_of(t->offset))];
}

void layout_cells(const struct job_tensor *t, const struct unit *u, uint64_t *ret_first, uint64_t *ret_end)
{
    uint64_t skipped = t->offset >= u->begin ? 0 : u->begin - t->offset, first = cell_at(t, skipped);
    *ret_first = cell_begin(t, first) < skipped ? first + 1 : first;
    *ret_end = t->end <= u->end ? t->n_cells : cell_at(t, u->end - t->offset);
}

struct error_total layout_error(const struct layout *l, const struct job_tensor *t)
{
    struct error_total sum = {0};
    uint64_t n = n_pieces_of(t);
    for (uint64_t k = 0; k < n; k++) {
        error_add(&sum, &l->pieces[t->first_piece + k]);
        if (t->seams && k + 1 < n)
            error_add(&sum, &l->seams[t->first_seam + k].error);
    }
    return sum;
}

uint64_t layout_output(const struct job_tensor *t, uint64_t cell)
{
    if (t->work == WORK_PACK || t->work == WORK_UNPACK)
        return t->planned->offset + cell_begin(t, cell);
    if (!t->head_rows)
        return t->planned->offset + cell * t->cell_bytes;
    /* Row r of a head, half h = r / (rows / 2), i = r % (rows / 2), becomes row 2 i + h. */
    uint64_t row = cell / t->cells_in_row, half_rows = t->head_rows / 2;
    uint64_t head = row / t->head_rows, in_head = row % t->head_rows;
    uint64_t to = head * t->head_rows + 2 * (in_head % half_rows) + in_head / half_rows;
    return t->planned->offset + (to * t->cells_in_row + cell % t->cells_in_row) * t->cell_bytes;
}
