#include "quant/run_worker.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "quant/page_cache.h"

enum { PROGRESS_MS = 100, STOPPED = 1 };

/*
 * Places in file order: unit i fails at 2 i + 1, the seam in front of it at 2 i. The failure that
 * is reported is the one at the lowest place: units before it are finished, whoever runs them, so
 * it does not depend on the number of threads.
 */
static uint64_t place_of_unit(uint64_t unit)
{
    return 2 * unit + 1;
}

static void run_fail(struct run *run, uint64_t place, const struct qd_error *error)
{
    pthread_mutex_lock(&run->lock);
    if (place < atomic_load(&run->failed_at)) {
        atomic_store(&run->failed_at, place);
        run->error = *error;
    }
    pthread_mutex_unlock(&run->lock);
}

static bool run_cancelled(const struct run *run)
{
    return run->options->cancel && atomic_load(run->options->cancel);
}

static bool unit_stops(const struct run *run, uint64_t unit)
{
    return run_cancelled(run) || place_of_unit(unit) > atomic_load(&run->failed_at);
}

/* --- progress --- */

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void tell_progress(struct run *run, uint64_t n_bytes, const char *tensor)
{
    uint64_t done = atomic_fetch_add(&run->done_bytes, n_bytes) + n_bytes;
    if (!run->options->progress || pthread_mutex_trylock(&run->progress_lock) != 0)
        return;
    uint64_t now = now_ms();
    if (now - run->progress_ms >= PROGRESS_MS) {
        struct run_progress p = {.done_bytes = done, .total_bytes = run->total_bytes, .tensor = tensor};
        run->progress_ms = now;
        run->options->progress(&p, run->options->progress_data);
    }
    pthread_mutex_unlock(&run->progress_lock);
}

/* --- seams: a cell of which two units hold a part; who brings the second part encodes it --- */

static uint8_t *seam_bytes(struct run *run, struct seam *seam, const struct job_tensor *t)
{
    pthread_mutex_lock(&run->seam_lock);
    if (!seam->bytes)
        seam->bytes = malloc((size_t)t->cell_source_bytes);
    uint8_t *bytes = seam->bytes;
    pthread_mutex_unlock(&run->seam_lock);
    return bytes;
}

/* A unit beside the seam has been noted and needs its bytes no more. */
static void seam_leave(struct run *run, struct seam *seam)
{
    pthread_mutex_lock(&run->seam_lock);
    if (++seam->n_noted == 2) {
        free(seam->bytes);
        seam->bytes = NULL;
    }
    pthread_mutex_unlock(&run->seam_lock);
}

/* The cell that straddles the end of @left_shard. */
static uint64_t seam_cell(const struct job_tensor *t, uint64_t left_shard)
{
    return cell_at(t, (left_shard + 1) * SHARD_BYTES - t->offset);
}

/* @left_shard: the unit that holds the first part. @part_at: where in the cell @part belongs. */
static int seam_put(struct worker *w, const struct job_tensor *t, uint64_t left_shard, size_t part_at,
                    struct bytes part)
{
    struct layout *l = &w->run->layout;
    struct seam *seam = layout_seam(l, t, left_shard);
    uint8_t *bytes = seam_bytes(w->run, seam, t);
    struct qd_error error;
    uint64_t place = place_of_unit(l->unit_first[t->file] + left_shard + 1) - 1;
    if (!bytes) {
        (void)err_new(&error, QD_E_NO_MEMORY, "a seam of %" PRIu64 " bytes", t->cell_source_bytes);
        run_fail(w->run, place, &error);
        return STOPPED;
    }
    memcpy(bytes + part_at, part.data, part.n);
    if (atomic_fetch_add(&seam->n_parts, 1) == 0)
        return 0;
    uint64_t cell = seam_cell(t, left_shard);
    int r = cells_write(w, t, cell, cell + 1, bytes, &seam->error, &error);
    if (r < 0)
        run_fail(w->run, place, &error);
    return r < 0 ? STOPPED : 0;
}

/* The bytes of @u that belong to the seam before it (n = 0: none), and to the one behind. */
static uint64_t head_part(const struct job_tensor *t, const struct unit *u)
{
    if (!t->seams || t->offset >= u->begin)
        return 0;
    uint64_t at = u->begin - t->offset, cell = cell_at(t, at), begin = cell_begin(t, cell);
    return at > begin ? begin + cell_size(t, cell) - at : 0;
}

static uint64_t tail_part(const struct job_tensor *t, const struct unit *u)
{
    uint64_t at = u->end - t->offset;
    return t->seams && t->end > u->end ? at - cell_begin(t, cell_at(t, at)) : 0;
}

static int put_head(struct worker *w, const struct job_tensor *t, const struct unit *u, const uint8_t *at)
{
    uint64_t n = head_part(t, u);
    if (!n)
        return 0;
    uint64_t part_at = cell_size(t, seam_cell(t, u->shard - 1)) - n;
    return seam_put(w, t, u->shard - 1, (size_t)part_at, (struct bytes){at, (size_t)n});
}

static int put_tail(struct worker *w, const struct job_tensor *t, const struct unit *u, const uint8_t *at)
{
    uint64_t n = tail_part(t, u);
    return n ? seam_put(w, t, u->shard, 0, (struct bytes){at, (size_t)n}) : 0;
}

static void leave_seams(struct run *run, const struct job_tensor *t, const struct unit *u)
{
    if (head_part(t, u))
        seam_leave(run, layout_seam(&run->layout, t, u->shard - 1));
    if (tail_part(t, u))
        seam_leave(run, layout_seam(&run->layout, t, u->shard));
}

/* --- a granule --- */

/*
 * The cells of @t that end in [begin, end) of the file; @bytes is the byte at @begin, and what came before it lies in
 * front.
 */
static int tensor_granule(struct worker *w, const struct job_tensor *t, const struct unit *u, uint64_t begin,
                          uint64_t end, const uint8_t *bytes)
{
    uint64_t head_end = u->begin + head_part(t, u);
    if (head_end > begin && head_end <= end) { /* the last of it has come */
        int r = put_head(w, t, u, bytes - (begin - u->begin));
        if (r != 0)
            return r;
    }
    uint64_t first, last;
    layout_cells(t, u, &first, &last);
    uint64_t from = begin > t->offset ? cell_at(t, begin - t->offset) : 0;
    uint64_t to = t->end <= end ? t->n_cells : cell_at(t, end - t->offset);
    from = from > first ? from : first;
    to = to < last ? to : last;
    if (from < to) {
        struct error_total sum;
        const uint8_t *src = bytes + (int64_t)(t->offset + cell_begin(t, from) - begin);
        int r = cells_write(w, t, from, to, src, &sum, &w->error);
        if (r < 0)
            return r;
        error_add(layout_piece(&w->run->layout, t, u->shard), &sum);
    }
    return end == u->end ? put_tail(w, t, u, bytes + (end - begin) - tail_part(t, u)) : 0;
}

/* Encodes what [begin, end) completes. Returns the last tensor met through @ret_tensor. */
static int granule_encode(struct worker *w, const struct unit *u, uint64_t begin, uint64_t end, const char **ret_tensor)
{
    const struct layout *l = &w->run->layout;
    size_t at = layout_first(l, u->file, begin);
    struct job_tensor *t;
    while ((t = layout_next(l, u->file, begin, end, &at))) {
        *ret_tensor = t->name;
        int r = tensor_granule(w, t, u, begin, end, w->granule);
        if (r != 0)
            return r;
    }
    return 0;
}

static bool granule_needed(const struct run *run, const struct unit *u, uint64_t begin, uint64_t end)
{
    size_t at = layout_first(&run->layout, u->file, begin);
    return run->witness || layout_next(&run->layout, u->file, begin, end, &at) != NULL;
}

/*
 * Reads the granule at @begin. Its bytes are preceded in memory by the end of the one before, for cells that straddle
 * the two.
 */
static int granule_read(struct worker *w, const struct unit *u, uint64_t begin, uint64_t end)
{
    memmove(w->granule - w->before, w->granule + SOURCE_GRANULE_BYTES - w->before, w->before);
    ssize_t n = source_read_granule(w->run->source, u->file, begin / SOURCE_GRANULE_BYTES, w->granule, &w->error);
    if (n < 0)
        return (int)n;
    if ((uint64_t)n != end - begin)
        return err_new(&w->error, QD_E_SOURCE_CHANGED, "'%s' became shorter while it was read",
                       source_name(w->run->source, u->file));
    return w->hasher ? leaf_hasher_add(w->hasher, (struct bytes){w->granule, (size_t)n}, &w->error) : 0;
}

static int granule_run(struct worker *w, const struct unit *u, uint64_t begin, uint64_t end)
{
    const char *tensor = NULL;
    if (granule_needed(w->run, u, begin, end)) {
        int r = granule_read(w, u, begin, end);
        if (r == 0)
            r = granule_encode(w, u, begin, end, &tensor);
        if (r != 0)
            return r;
    }
    tell_progress(w->run, end - begin, tensor);
    return 0;
}

/* --- a unit --- */

/* Looks whether the unit is cached, and asks for it ahead of time. */
static void prefetch(struct run *run, uint64_t unit)
{
    if (unit >= run->layout.n_units || run->done[unit])
        return;
    struct unit u = layout_unit(&run->layout, unit);
    if (!granule_needed(run, &u, u.begin, u.end) || page_cache_has(source_fd(run->source, u.file), u.begin, u.end))
        return;
    atomic_store(&run->cold[unit], 1);
    page_cache_fetch(source_fd(run->source, u.file), u.begin, u.end);
}

/* Behind a finished unit: its pages go as they came, and what it wrote goes to the disk. */
static void release_pages(struct worker *w, const struct unit *u)
{
    const struct run_options *o = w->run->options;
    bool found_cold = o->cache == RUN_CACHE_AS_FOUND && atomic_load(&w->run->cold[u->index]);
    if (o->cache == RUN_CACHE_DROP || found_cold)
        page_cache_drop(source_fd(w->run->source, u->file), u->begin, u->end);
    if (w->dirty_end > w->dirty_begin)
        page_cache_write(o->out_fd, w->dirty_begin, w->dirty_end);
    w->dirty_begin = w->dirty_end = 0;
}

static void put_double(struct buffer *b, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    buffer_put_u64(b, bits);
}

static double take_double(struct cursor *c)
{
    uint64_t bits = cursor_u64(c);
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* What a record says of a unit: for each tensor met the error of its piece, and its parts of seams. */
static void record_body(const struct run *run, const struct unit *u, struct buffer *body)
{
    const struct layout *l = &run->layout;
    size_t at = layout_first(l, u->file, u->begin);
    struct job_tensor *t;
    while ((t = layout_next(l, u->file, u->begin, u->end, &at))) {
        const struct error_total *e = layout_piece(l, t, u->shard);
        put_double(body, e->noise);
        put_double(body, e->signal);
        put_double(body, e->max_abs);
        buffer_put_u64(body, e->n);
        uint64_t head = head_part(t, u), tail = tail_part(t, u);
        if (head)
            buffer_put(body, layout_seam(l, t, u->shard - 1)->bytes + cell_size(t, seam_cell(t, u->shard - 1)) - head,
                       (size_t)head);
        if (tail)
            buffer_put(body, layout_seam(l, t, u->shard)->bytes, (size_t)tail);
    }
}

static uint64_t record_bytes(const struct run *run, const struct unit *u)
{
    uint64_t n = 0;
    size_t at = layout_first(&run->layout, u->file, u->begin);
    struct job_tensor *t;
    while ((t = layout_next(&run->layout, u->file, u->begin, u->end, &at)))
        n += 32 + head_part(t, u) + tail_part(t, u);
    return n;
}

static int copy_error(const struct run *run, struct qd_error *err)
{
    if (err)
        *err = run->error;
    return run->error.code;
}

int unit_restore(struct worker *w, const struct unit *u, struct bytes body, struct qd_error *err)
{
    const struct layout *l = &w->run->layout;
    if (record_bytes(w->run, u) != body.n)
        return err_new(err, QD_E_CORRUPT, "journal record of unit %llu", (unsigned long long)u->index);
    struct cursor c = cursor_over(body);
    size_t at = layout_first(l, u->file, u->begin);
    struct job_tensor *t;
    while ((t = layout_next(l, u->file, u->begin, u->end, &at))) {
        struct error_total *e = layout_piece(l, t, u->shard);
        e->noise = take_double(&c);
        e->signal = take_double(&c);
        e->max_abs = take_double(&c);
        e->n = cursor_u64(&c);
        uint64_t head = head_part(t, u), tail = tail_part(t, u);
        int r = head ? put_head(w, t, u, cursor_take(&c, head).data) : 0;
        if (r == 0 && tail)
            r = put_tail(w, t, u, cursor_take(&c, tail).data);
        if (r != 0)
            return err_in(err, copy_error(w->run, err), "continue from the journal");
        leave_seams(w->run, t, u);
    }
    return 0;
}

/* A journal that cannot be written costs a later resume, not this run. */
static void unit_record(struct run *run, const struct unit *u)
{
    CLEANUP(buffer_clear) struct buffer record = {0};
    journal_record(&record, (size_t)record_bytes(run, u));
    record_body(run, u, &record);
    pthread_mutex_lock(&run->lock);
    if (journal_append(&run->journal, u->index, &run->leaves[u->index], &record, NULL) < 0)
        run->journal.fd = -1;
    pthread_mutex_unlock(&run->lock);
}

static void unit_note(struct run *run, const struct unit *u)
{
    size_t at = layout_first(&run->layout, u->file, u->begin);
    struct job_tensor *t;
    if (run->options->journal_fd >= 0)
        unit_record(run, u);
    while ((t = layout_next(&run->layout, u->file, u->begin, u->end, &at)))
        leave_seams(run, t, u);
}

static int unit_run(struct worker *w, const struct unit *u)
{
    int r = w->hasher ? leaf_hasher_start(w->hasher, u->shard, &w->error) : 0;
    for (uint64_t begin = u->begin; r == 0 && begin < u->end; begin += SOURCE_GRANULE_BYTES) {
        uint64_t end = begin + SOURCE_GRANULE_BYTES < u->end ? begin + SOURCE_GRANULE_BYTES : u->end;
        r = unit_stops(w->run, u->index) ? STOPPED : granule_run(w, u, begin, end);
    }
    if (r == 0 && w->hasher)
        r = leaf_hasher_finish(w->hasher, &w->run->leaves[u->index], &w->error);
    if (r == 0) {
        unit_note(w->run, u);
        release_pages(w, u);
    }
    return r;
}

void worker_loop(struct worker *w)
{
    struct run *run = w->run;
    for (;;) {
        uint64_t index = atomic_fetch_add(&run->next, 1);
        if (index >= run->layout.n_units || unit_stops(run, index))
            return;
        if (index < run->options->n_threads)
            prefetch(run, index);
        prefetch(run, index + run->options->n_threads);
        if (run->done[index])
            continue;
        struct unit u = layout_unit(&run->layout, index);
        int r = unit_run(w, &u);
        if (r < 0)
            run_fail(run, place_of_unit(index), &w->error);
        if (r != 0)
            return;
    }
}

int worker_init(struct worker *w, struct run *run, struct qd_error *err)
{
    size_t floats = 2 * CHUNK_ELEMENTS * sizeof(float), page = 4096;
    *w = (struct worker){.run = run, .before = ((size_t)run->layout.cell_bytes_max + page - 1) / page * page};
    w->out_bytes = ((size_t)run->layout.group_bytes_max + page - 1) / page * page;
    w->out_bytes = w->out_bytes > OUT_BYTES ? w->out_bytes : OUT_BYTES;
    w->memory = aligned_alloc(page, floats + w->before + SOURCE_GRANULE_BYTES + w->out_bytes);
    w->hasher = run->witness ? leaf_hasher_new() : NULL;
    if (!w->memory || (run->witness && !w->hasher))
        return err_new(err, QD_E_NO_MEMORY, "buffers of a thread");
    w->x = (float *)(void *)w->memory;
    w->y = w->x + CHUNK_ELEMENTS;
    w->granule = w->memory + floats + w->before;
    w->out = w->granule + SOURCE_GRANULE_BYTES;
    memset(w->granule - w->before, 0, w->before);
    return 0;
}

void worker_clear(struct worker *w)
{
    free(w->memory);
    w->memory = NULL;
    (void)leaf_hasher_free(w->hasher); /* returns NULL by convention */
    w->hasher = NULL;
}
