#include <quantd/matmul.h>

#include <inttypes.h>

#include "kernels/compute/rows.h"
#include "kernels/compute/team.h"
#include "kernels/core/checked.h"
#include "kernels/core/error.h"

enum {
    TASKS_A_THREAD = 8, /* so that a slow core holds up an eighth of its share */
    BUNCH_GROUPS = 8,   /* at least: a task is some pages of memory in a row */
};

static int check_memory(const void *memory, size_t have, size_t need, const char *what, struct qd_error *err)
{
    if (need && ((uintptr_t)memory % COMPUTE_ALIGNMENT || !memory))
        return err_new(err, QD_E_INVALID, "%s is not aligned to %d bytes", what, COMPUTE_ALIGNMENT);
    if (have < need)
        return err_new(err, QD_E_INVALID, "%s has %zu bytes, %zu are needed", what, have, need);
    return 0;
}

static int too_many_columns(size_t n, struct qd_error *err)
{
    return err_new(err, QD_E_INVALID, "%zu columns of activations do not fit into memory", n);
}

/* ---- activations ---- */

size_t qd_activations_bytes(const struct qd_matrix *w, size_t n)
{
    struct matrix_view v;
    return matrix_view(w, &v, NULL) < 0 ? 0 : activations_bytes(&v, n);
}

struct fill {
    const struct qd_activations *a;
    const struct ops *ops;
    const float *x;
};

static void fill_task(void *data, size_t task, unsigned thread)
{
    const struct fill *f = data;
    (void)thread;
    activations_fill(f->a, f->ops, f->x, task);
}

static int prepare(const struct matrix_view *v, const float *x, size_t n, struct qd_team *team, void *memory,
                   size_t memory_bytes, const struct qd_activations **ret, struct qd_error *err)
{
    size_t need = activations_bytes(v, n);
    int r = need ? check_memory(memory, memory_bytes, need, "memory for activations", err) : too_many_columns(n, err);
    if (r < 0)
        return r;
    struct fill f = {.a = activations_place(v, n, memory), .ops = v->ops, .x = x};
    team_run(team, activations_n_tasks(f.a), fill_task, &f);
    *ret = f.a;
    return 0;
}

int qd_activations_prepare(const struct qd_matrix *w, const float *x, size_t n, void *memory, size_t memory_bytes,
                           const struct qd_activations **ret, struct qd_error *err)
{
    struct matrix_view v;
    int r = matrix_view(w, &v, err);
    return r < 0 ? r : prepare(&v, x, n, NULL, memory, memory_bytes, ret, err);
}

/* ---- rows ---- */

size_t qd_rows_scratch_bytes(const struct qd_matrix *w)
{
    struct matrix_view v;
    return matrix_view(w, &v, NULL) < 0 ? 0 : rows_scratch_bytes(&v);
}

uint64_t qd_rows_step(const struct qd_matrix *w)
{
    struct matrix_view v;
    return matrix_view(w, &v, NULL) < 0 ? 0 : v.group_rows;
}

static int check_rows(const struct matrix_view *v, uint64_t first, uint64_t end, struct qd_error *err)
{
    if (first > end || end > v->n_rows)
        return err_new(err, QD_E_INVALID, "rows %" PRIu64 " to %" PRIu64 " of a matrix of %zu rows", first, end,
                       v->n_rows);
    if (first % v->group_rows || (end % v->group_rows && end != v->n_rows))
        return err_new(err, QD_E_INVALID, "rows %" PRIu64 " to %" PRIu64 " are no multiples of %zu", first, end,
                       v->group_rows);
    return 0;
}

int qd_matmul_rows(const struct qd_matrix *w, const struct qd_activations *a, uint64_t first, uint64_t end, float *y,
                   void *scratch, size_t scratch_bytes, struct qd_error *err)
{
    struct matrix_view v;
    int r = matrix_view(w, &v, err);
    if (r == 0)
        r = check_rows(&v, first, end, err);
    if (r == 0 && !activations_fit(a, &v))
        r = err_new(err, QD_E_INVALID, "activations were prepared for weights of another type, layout or length");
    if (r == 0)
        r = check_memory(scratch, scratch_bytes, rows_scratch_bytes(&v), "scratch", err);
    if (r < 0)
        return r;
    rows_compute(&v, a, first, end, y, scratch);
    return 0;
}

/* ---- the whole product ---- */

static bool scratch_bytes_of(const struct matrix_view *v, size_t n, unsigned n_threads, uint64_t *ret)
{
    uint64_t rows, activations = activations_bytes(v, n);
    return activations && checked_mul(rows_scratch_bytes(v), n_threads, &rows) && checked_add(activations, rows, ret);
}

size_t qd_matmul_scratch_bytes(const struct qd_matrix *w, size_t n, const struct qd_team *team)
{
    struct matrix_view v;
    uint64_t n_bytes = 0;
    bool fits = matrix_view(w, &v, NULL) == 0 && scratch_bytes_of(&v, n, qd_team_threads(team), &n_bytes);
    return fits ? n_bytes : 0;
}

struct product {
    const struct matrix_view *view;
    const struct qd_activations *a;
    float *y;
    uint8_t *scratch; /* of thread 0; the others' follow */
    size_t task_rows; /* whole groups */
};

static void rows_task(void *data, size_t task, unsigned thread)
{
    const struct product *p = data;
    const struct matrix_view *v = p->view;
    const size_t first = task * p->task_rows, end = first + p->task_rows;
    rows_compute(v, p->a, first, end < v->n_rows ? end : v->n_rows, p->y, p->scratch + thread * rows_scratch_bytes(v));
}

static size_t rows_of_a_task(const struct matrix_view *v, unsigned n_threads)
{
    const size_t n_groups = (v->n_rows + v->group_rows - 1) / v->group_rows;
    const size_t n_tasks = n_threads == 1 ? 1 : (size_t)n_threads * TASKS_A_THREAD;
    const size_t task_groups = (n_groups + n_tasks - 1) / n_tasks;
    return (task_groups + BUNCH_GROUPS - 1) / BUNCH_GROUPS * BUNCH_GROUPS * v->group_rows;
}

int qd_matmul(const struct qd_matrix *w, const float *x, size_t n, float *y, struct qd_team *team, void *scratch,
              size_t scratch_bytes, struct qd_error *err)
{
    struct matrix_view v;
    uint64_t need = 0;
    int r = matrix_view(w, &v, err);
    if (r == 0 && !scratch_bytes_of(&v, n, qd_team_threads(team), &need))
        r = too_many_columns(n, err);
    if (r == 0)
        r = check_memory(scratch, scratch_bytes, need, "scratch", err);
    struct product p = {.view = &v, .y = y};
    if (r == 0)
        r = prepare(&v, x, n, team, scratch, scratch_bytes, &p.a, err);
    if (r < 0)
        return r;
    p.scratch = (uint8_t *)scratch + activations_bytes(&v, n);
    p.task_rows = rows_of_a_task(&v, qd_team_threads(team));
    team_run(team, (v.n_rows + p.task_rows - 1) / p.task_rows, rows_task, &p);
    return 0;
}

/* ---- single rows ---- */

static int decode_row(const struct matrix_view *v, uint64_t row, float *dst, struct qd_error *err)
{
    if (row >= v->n_rows)
        return err_new(err, QD_E_INVALID, "row %" PRIu64 " of a matrix of %zu rows", row, v->n_rows);
    rows_decode(v, row, dst);
    return 0;
}

int qd_dequantize_row(const struct qd_matrix *w, uint64_t row, float *dst, struct qd_error *err)
{
    struct matrix_view v;
    int r = matrix_view(w, &v, err);
    return r < 0 ? r : decode_row(&v, row, dst, err);
}

int qd_get_rows(const struct qd_matrix *w, const uint32_t *rows, size_t n, float *dst, struct qd_error *err)
{
    struct matrix_view v;
    int r = matrix_view(w, &v, err);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = decode_row(&v, rows[i], dst + i * v.n_cols, err);
    return r;
}
