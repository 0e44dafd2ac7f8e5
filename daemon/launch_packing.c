#include "daemon/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config.h"
#include "daemon/lease_tensors.h"
#include "daemon/log.h"
#include "kernels/core/cleanup.h"
#include "kernels/layout/packed.h"
#include "quant/format/onnx.h"
#include "quant/pack_onnx.h"
#include "quant/portable_table.h"

/* ---- what it came to ------------------------------------------------------------------------ */

static int decode_made(const struct launch *l, struct arena **ret_arena, struct tensor_table *ret, struct qd_error *err)
{
    const struct bytes raw = {(const uint8_t *)l->tensors_raw, l->tensors_bytes};
    *ret_arena = arena_new(TABLE_BYTES_MAX);
    if (!*ret_arena)
        return err_new(err, QD_E_NO_MEMORY, "table of tensors");
    return tensor_table_decode(raw, &l->plan.file_bytes, 1, *ret_arena, ret, err);
}

static bool is_same_matrix(const struct code_entry *a, const struct code_entry *b)
{
    return a->by_columns == b->by_columns && a->n_rows == b->n_rows && a->n_cols == b->n_cols && a->block == b->block &&
           a->scales == b->scales && a->zero_points == b->zero_points;
}

/* But for where it lies, all of it is signed twice. */
static bool is_same_tensor(const struct tensor_entry *a, const struct tensor_entry *b)
{
    return strcmp(a->name, b->name) == 0 && strcmp(a->reason, b->reason) == 0 && a->type == b->type &&
           a->source_type == b->source_type && a->n_dims == b->n_dims && a->bytes == b->bytes &&
           memcmp(a->shape, b->shape, a->n_dims * sizeof a->shape[0]) == 0 && is_same_matrix(&a->codes, &b->codes) &&
           memcmp(&a->sqnr_db, &b->sqnr_db, sizeof a->sqnr_db) == 0 &&
           memcmp(&a->rel_rmse, &b->rel_rmse, sizeof a->rel_rmse) == 0 &&
           memcmp(&a->max_abs, &b->max_abs, sizeof a->max_abs) == 0;
}

static int check_tensors(const struct launch *l, struct qd_error *err)
{
    CLEANUP(arena_free) struct arena *made_arena = NULL;
    CLEANUP(arena_free) struct arena *arena = NULL;
    struct tensor_table made, portable;
    int r = decode_made(l, &made_arena, &made, err);
    if (r == 0)
        r = lease_tensors(l->lease, &arena, &portable, err);
    if (r < 0)
        return r;
    if (made.n != portable.n)
        return err_new(err, QD_E_PROTOCOL, "the worker packed %zu tensors of %zu", made.n, portable.n);
    for (size_t i = 0; i < made.n; i++)
        if (!is_same_tensor(&made.tensors[i], &portable.tensors[i]))
            return err_new(err, QD_E_PROTOCOL, "the worker says of tensor '%s' what the portable artifact does not",
                           portable.tensors[i].name);
    return 0;
}

int packing_check_tables(const struct launch *l, struct qd_error *err)
{
    struct digest d;
    const struct manifest_file *metadata = manifest_file(l->lease->manifest, MANIFEST_METADATA);
    int r = digest_of_bytes((struct bytes){(const uint8_t *)l->metadata_raw, l->metadata_bytes}, &d, err);
    if (r < 0)
        return r;
    if (!metadata || !digest_equal(&d, &metadata->digest))
        return err_new(err, QD_E_PROTOCOL, "the worker's metadata is not that of the portable artifact");
    return check_tensors(l, err);
}

/* ---- after a failure ---------------------------------------------------------------------------- */

static int examine_on_pool(void *data, struct qd_error *err)
{
    struct launch *l = data;
    struct store_verify found = {0};
    int r = store_verify(l->d->store, &l->portable, NULL, NULL, &found, err);
    if (r == QD_E_CORRUPT) {
        l->result = r;
        l->err = *err;
    }
    return 0;
}

/* Not what is no word about its bytes. */
static bool may_be_damage(int result)
{
    return result < 0 && result != QD_E_CANCELLED && result != QD_E_NO_SPACE && result != QD_E_LIMIT &&
           result != QD_E_UNAVAILABLE;
}

bool packing_examine(struct launch *l)
{
    if (!l->lease || l->examined || !may_be_damage(l->result))
        return false;
    l->examined = true;
    launch_on_pool(l, examine_on_pool, launch_finish, false);
    return true;
}

/* Of an ONNX artifact all files are handed over: what it is made of says its table, not its model. */
static bool is_onnx(const struct manifest *m)
{
    return onnx_is_named(m->files[0].name);
}

/* ---- the worker has it ---------------------------------------------------------------------------- */

static void on_probe_reply(struct launch *l, struct incoming *in, struct packet *p)
{
    struct msg_w_probed probed;
    struct qd_error err;
    (void)p;
    int r = in->failed ? incoming_error(in, &err) : incoming_decode(in, INTO(w_probed, &probed), &err);
    const bool onnx = is_onnx(l->lease->manifest);
    if (r == 0 && (strcmp(probed.format, onnx ? "onnx" : "gguf") != 0 || strcmp(probed.role, l->files[0].role) != 0 ||
                   (!onnx && probed.files_n > 0)))
        r = err_new(&err, QD_E_PROTOCOL, "the worker takes an artifact for %.16s with %zu companions", probed.format,
                    probed.files_n);
    if (r < 0) {
        launch_fail(l, r, &err);
        launch_finish(l);
        return;
    }
    launch_add(l, launch_plan);
}

static void step_probe(struct launch *l)
{
    if (l->nothing_to_pack)
        launch_finish(l);
    else
        launch_probe(l, on_probe_reply);
}

/* ---- before it ---------------------------------------------------------------------------------------- */

static int look_for_tensors_on_pool(void *data, struct qd_error *err)
{
    struct launch *l = data;
    CLEANUP(arena_free) struct arena *arena = NULL;
    struct tensor_table table;
    int r = lease_tensors(l->lease, &arena, &table, err);
    if (r < 0)
        return r;
    size_t i = 0;
    while (i < table.n && !tensor_packs(&table.tensors[i], l->layout))
        i++;
    l->nothing_to_pack = i == table.n;
    if (l->nothing_to_pack)
        l->key = l->portable;
    return 0;
}

/* A file of the artifact as a file of the launch: what it must hold is known already. */
static int take_file(struct launch *l, const struct manifest_file *from, const char *role, struct qd_error *err)
{
    const struct manifest *m = l->lease->manifest;
    struct launch_file *f = &l->files[l->n_files];
    if (!from)
        return err_new(err, QD_E_CORRUPT, "the portable artifact has no %s", role);
    *f = (struct launch_file){.role = strdup(role), .name = strdup(from->name), .required = true, .fd = -1};
    l->n_files++;
    if (!f->role || !f->name)
        return err_new(err, QD_E_NO_MEMORY, "file list");
    f->fd = fcntl(l->lease->fds[from - m->files], F_DUPFD_CLOEXEC, 0);
    if (f->fd < 0 || fstat(f->fd, &f->st) < 0)
        return err_sys(err, errno, "the portable artifact's %s", role);
    f->digest = from->digest;
    return 0;
}

/* Model, source, recipe and revision are those of the portable artifact; so is all of the key but the layout. */
static int take_facts(struct launch *l, struct qd_error *err)
{
    const struct manifest *m = l->lease->manifest;
    if (strcmp(m->layout, qd_layout_info(QD_LAYOUT_PORTABLE)->name) != 0)
        return err_new(err, QD_E_INTERNAL, "an artifact in layout %s is to be packed", m->layout);
    free(l->model);
    l->model = strdup(m->model);
    if (!l->model)
        return err_new(err, QD_E_NO_MEMORY, "job");
    l->source_id = m->source;
    l->encoder_revision = m->encoder_revision;
    int r = recipe_parse(m->recipe, &l->recipe, err);
    return r < 0 ? r
                 : artifact_key(&m->source, m->recipe, qd_layout_info(l->layout)->name, m->encoder_revision, &l->key,
                                err);
}

static int take_artifact(struct launch *l, struct qd_error *err)
{
    int r = store_lookup(l->d->store, &l->portable, &l->lease, err);
    if (r < 0)
        return r;
    const struct manifest *m = l->lease->manifest;
    r = take_facts(l, err);
    for (size_t i = 0; i < m->n_files && m->files[i].role == MANIFEST_PAYLOAD && r == 0; i++)
        r = take_file(l, &m->files[i], "weights", err);
    if (r == 0)
        r = take_file(l, manifest_file(m, MANIFEST_TENSORS), PORTABLE_TABLE_ROLE, err);
    return r < 0 || !is_onnx(m) ? r : take_file(l, manifest_file(m, MANIFEST_METADATA), PORTABLE_METADATA_ROLE, err);
}

void launch_begin_packing(struct launch *l)
{
    struct lease *made = NULL;
    struct qd_error err;
    l->hooks.state(l->data, JOB_PLANNING);
    int r = take_artifact(l, &err);
    if (r < 0)
        launch_fail(l, r, &err);
    else if (store_lookup(l->d->store, &l->key, &made, NULL) < 0)
        l->cancel |= !l->hooks.keyed(l->data, &l->key);
    if (r < 0 || made) {
        (void)lease_release(made); /* it is there already; returns NULL by convention */
        launch_finish(l);
        return;
    }
    launch_on_pool(l, look_for_tensors_on_pool, step_probe, false);
}
