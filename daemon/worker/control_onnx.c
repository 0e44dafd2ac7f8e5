#include "daemon/worker/control_onnx.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ipc/records.h"
#include "kernels/core/clock.h"
#include "kernels/core/io.h"
#include "kernels/core/name_set.h"
#include "quant/calib/dataset.h"
#include "quant/limits.h"
#include "quant/onnx/samples.h"

enum {
    COMPARED_SAMPLES = 16,
    SENT_BYTES = 128 << 20,            /* of statistics that were sent, in memory */
    EXECUTOR_BYTES = 512 << 20,        /* where there is no ceiling */
    BESIDE_EXECUTOR_BYTES = 128 << 20, /* of the ceiling: the model as read, scratch, histograms, stacks */
};

static const double tell_every_s = 0.1;

struct onnx_job *onnx_job_free(struct onnx_job *j)
{
    if (!j)
        return NULL;
    (void)onnx_tables_free(j->tables); /* these return NULL */
    (void)comparison_free(j->comparison);
    (void)onnx_model_free(j->output);
    (void)onnx_plan_free(j->made.plan);
    (void)onnx_model_free(j->model);
    free(j->witness);
    free(j);
    return NULL;
}

/* ---- samples ---- */

static uint64_t calibration_bytes(const struct source *s)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < source_n_files(s); i++)
        bytes += strcmp(source_role(s, i), CALIBRATION_ROLE) == 0 ? source_bytes(s, i) : 0;
    return bytes;
}

/* One pass over samples, and what is told of it. */
struct pass {
    const struct onnx_job_env *env;
    const char *step;     /* "calibrating" */
    uint64_t total_bytes; /* of all samples */
};

static int tell_sample(void *data, uint64_t n_done, uint64_t n_samples)
{
    const struct pass *p = data;
    char text[64];
    const double share = n_samples ? (double)n_done / (double)n_samples : 1.0;
    (void)snprintf(text, sizeof text, "sample %" PRIu64 " of %" PRIu64, n_done, n_samples); /* fits */
    p->env->progress(p->env->data, (uint64_t)(share * (double)p->total_bytes), p->total_bytes, text, p->step);
    return *p->env->cancel ? QD_E_CANCELLED : 0;
}

static int open_samples(struct pass *p, struct onnx_samples *ret, struct qd_error *err)
{
    const uint64_t ceiling = p->env->memory_bytes;
    *ret = (struct onnx_samples){.folder_fd = -1,
                                 .memory_bytes = EXECUTOR_BYTES,
                                 .progress = tell_sample,
                                 .progress_data = p,
                                 .cancel = p->env->cancel};
    if (ceiling)
        ret->memory_bytes =
            ceiling > 2 * (uint64_t)BESIDE_EXECUTOR_BYTES ? ceiling - BESIDE_EXECUTOR_BYTES : ceiling / 2;
    return qd_team_new(p->env->n_threads, &ret->team, err);
}

static int calibrate_model(const struct onnx_job *j, const struct onnx_job_env *env, struct statistics **ret,
                           struct qd_error *err)
{
    const struct digest nobody = {0}; /* they are used here and now */
    struct pass pass = {.env = env, .step = "calibrating", .total_bytes = calibration_bytes(env->source)};
    struct onnx_samples samples;
    int r = open_samples(&pass, &samples, err);
    env->progress(env->data, 0, pass.total_bytes, NULL, pass.step);
    if (r == 0)
        r = onnx_calibrate(j->model, env->source, &samples, &nobody, ret, err);
    qd_team_free(samples.team);
    return r;
}

/* ---- plan ---- */

/* What an application sent comes as a file. */
static int read_sent(struct source *s, size_t file, struct statistics **ret, struct qd_error *err)
{
    const uint64_t n = source_bytes(s, file);
    if (n > STATISTICS_BYTES_MAX)
        return err_new(err, QD_E_LIMIT, "statistics of %" PRIu64 " bytes", n);
    CLEANUP(free) uint8_t *content = malloc((size_t)n + 1);
    int r =
        content ? source_read_meta(s, file, 0, content, (size_t)n, err) : err_new(err, QD_E_NO_MEMORY, "statistics");
    return r < 0 ? r : statistics_decode((struct bytes){content, (size_t)n}, SENT_BYTES, ret, err);
}

/* Of samples, of what was sent, or of both together. */
static int gather(const struct onnx_job *j, const struct onnx_job_env *env, struct statistics **ret,
                  struct qd_error *err)
{
    CLEANUP(statistics_free) struct statistics *sent = NULL;
    const int file = source_find_role(env->source, STATISTICS_ROLE);
    int r = file < 0 ? 0 : read_sent(env->source, (size_t)file, &sent, err);
    if (r == 0 && calibration_bytes(env->source))
        r = calibrate_model(j, env, ret, err);
    if (r < 0 || !sent)
        return r;
    if (*ret)
        return statistics_merge(*ret, sent, err);
    *ret = steal(&sent);
    return 0;
}

/* int8 is tried over the first samples. */
static int plan_model(struct onnx_job *j, const struct onnx_job_env *env, const struct statistics *statistics,
                      struct qd_error *err)
{
    struct pass pass = {.env = env, .step = "calibrating", .total_bytes = calibration_bytes(env->source)};
    struct onnx_samples samples = {.folder_fd = -1};
    const bool tries = j->recipe.scheme == SCHEME_INT8 && statistics && pass.total_bytes;
    int r = tries ? open_samples(&pass, &samples, err) : 0;
    if (r == 0)
        r = make_plan(j->model, env->source, &j->recipe, statistics, tries ? &samples : NULL, ops_native(),
                      ONNX_DATA_NAME, &j->made, err);
    qd_team_free(samples.team);
    return r;
}

int onnx_job_plan(const struct onnx_job_env *env, const char *recipe, struct onnx_job **ret, struct qd_error *err)
{
    CLEANUP(statistics_free) struct statistics *statistics = NULL;
    CLEANUP(onnx_job_free) struct onnx_job *j = calloc(1, sizeof *j);
    bool wants = false;
    int r = j ? recipe_parse(recipe, &j->recipe, err) : err_new(err, QD_E_NO_MEMORY, "a job");
    if (r == 0 && j->recipe.weighted)
        r = err_new(err, QD_E_INVALID, "an importance matrix is for GGUF models");
    if (r == 0)
        r = j->recipe.has_statistics == (source_find_role(env->source, STATISTICS_ROLE) >= 0)
                ? 0
                : err_new(err, QD_E_PROTOCOL, "a recipe without its statistics, or the reverse");
    if (r == 0)
        r = make_wants_statistics(&j->recipe, calibration_bytes(env->source) > 0 || j->recipe.has_statistics, &wants,
                                  err);
    if (r == 0)
        r = onnx_read(env->source, LIMIT_HEADER_BUDGET_BYTES, &j->model, err);
    if (r == 0 && wants)
        r = gather(j, env, &statistics, err);
    if (r == 0)
        r = plan_model(j, env, statistics, err);
    if (r < 0)
        return *env->cancel ? err_new(err, QD_E_CANCELLED, "cancelled") : r;
    *ret = steal(&j);
    return 0;
}

/* ---- the plan as a table ---- */

/* Offsets of what goes into the data file, by name. */
struct places {
    struct name_set names;
    const struct onnx_output *output;
};

static const char *payload_name(const struct onnx_payload *p)
{
    return p->copied ? p->copied->name : p->made->tensor.name;
}

static int index_payloads(struct places *p, struct qd_error *err)
{
    size_t earlier;
    int r = name_set_init(&p->names, p->output->n_payloads);
    for (size_t i = 0; i < p->output->n_payloads && r >= 0; i++)
        r = name_set_add(&p->names, payload_name(&p->output->payloads[i]), i, &earlier);
    return r < 0 ? err_new(err, QD_E_NO_MEMORY, "the table of the plan") : 0;
}

static const char *type_name(enum onnx_type type)
{
    const int is = table_type_of(type);
    return is < 0 ? onnx_type_name(type) : qd_type_info((enum qd_type)is)->name;
}

/* What the weight is in the artifact: where codes stand, or where it stands itself. */
static int put_row(const struct onnx_decision *d, struct places *p, struct buffer *dst, struct qd_error *err)
{
    enum { DIMS_SHOWN = 8, DIM_BYTES = 24, REASON_BYTES = 256 };
    const struct onnx_tensor *t = d->weight->tensor;
    char shape[DIMS_SHOWN * DIM_BYTES] = "", reason[REASON_BYTES];
    const char *more = d->reason[0] ? d->reason : d->note ? d->note : "";
    size_t n = 0;
    for (size_t i = t->n_dims; i-- > 0 && n + DIM_BYTES < sizeof shape;)
        n += (size_t)snprintf(shape + n, sizeof shape - n, "%" PRId64 "%s", t->dims[i], i ? "x" : "");
    (void)snprintf(reason, sizeof reason, "%s%s%s", d->form, more[0] ? ": " : "", more); /* cut: it is for people */
    const struct onnx_tensor *made = d->codes ? d->codes : t;
    const int64_t at = name_set_find(&p->names, d->codes ? d->codes->name : d->weight->name);
    const struct onnx_payload *payload = at < 0 ? NULL : &p->output->payloads[at];
    const struct msg_tensor_plan row = {.name = d->codes ? d->codes->name : d->weight->name,
                                        .shape = shape,
                                        .from = type_name(t->type),
                                        .to = type_name(made->type),
                                        .offset = payload ? payload->offset : 0,
                                        .bytes = d->bytes_after,
                                        .reason = reason};
    return record_encode(dst, MESSAGE(tensor_plan, &row), err);
}

int onnx_job_table(const struct onnx_job *j, struct buffer *dst, struct qd_error *err)
{
    const struct onnx_plan *plan = j->made.plan;
    struct places places = {.output = plan->output};
    int r = index_payloads(&places, err);
    if (r == 0)
        r = records_begin(dst, (uint32_t)plan->weights.n, err);
    for (size_t i = 0; i < plan->weights.n && r == 0; i++)
        r = put_row(&plan->decisions[i], &places, dst, err);
    name_set_clear(&places.names);
    return r;
}

/* ---- run ---- */

struct writing {
    const struct onnx_job_env *env;
    double told_at;
};

static int tell_written(void *data, uint64_t done_bytes, uint64_t total_bytes, const char *tensor)
{
    struct writing *w = data;
    const double now = seconds_now();
    if (now - w->told_at >= tell_every_s) {
        w->told_at = now;
        w->env->progress(w->env->data, done_bytes, total_bytes, tensor, NULL);
    }
    return *w->env->cancel ? QD_E_CANCELLED : 0;
}

static int write_files(const struct onnx_job *j, const struct onnx_job_env *env, int model_fd, int data_fd,
                       struct qd_error *err)
{
    const struct onnx_output *o = j->made.plan->output;
    struct writing writing = {.env = env};
    int r = o->data_bytes ? onnx_write_data(o, env->source, data_fd, tell_written, &writing, err) : 0;
    if (r < 0)
        return r;
    r = pwrite_whole(model_fd, o->model.data, o->model.n, 0);
    return r < 0 ? err_sys(err, -r, "write the model") : 0;
}

/* What was written, as a model. Takes the descriptors. */
static int read_back(int model_fd, int data_fd, struct source **ret_source, struct onnx_model **ret,
                     struct qd_error *err)
{
    CLEANUP(fd_close) int data = data_fd;
    int r = source_from_fd(model_fd, ONNX_MODEL_NAME, ret_source, err);
    if (r == 0 && data >= 0)
        r = source_add(*ret_source, steal_fd(&data), "weights", ONNX_DATA_NAME, err);
    if (r >= 0)
        source_set_witness(*ret_source, 0);
    return r < 0 ? r : onnx_read(*ret_source, LIMIT_HEADER_BUDGET_BYTES, ret, err);
}

static int compare_models(const struct onnx_job *j, const struct onnx_job_env *env, struct source *output_source,
                          struct comparison **ret, struct qd_error *err)
{
    struct pass pass = {.env = env, .step = "comparing", .total_bytes = calibration_bytes(env->source)};
    struct onnx_samples samples;
    int r = pass.total_bytes ? open_samples(&pass, &samples, err) : 1;
    if (r == 0) {
        r = onnx_compare(j->model, env->source, j->output, output_source, &samples, COMPARED_SAMPLES, ret, err);
        qd_team_free(samples.team);
    }
    return r < 0 ? r : 0;
}

/* Calibration data are one entry: a model may have more samples than a packet has room for. */
static int testify(struct onnx_job *j, const struct onnx_job_env *env, struct qd_error *err)
{
    const size_t n = source_n_files(env->source);
    CLEANUP(free) struct source_file_id *all = calloc(n + 1, sizeof *all);
    CLEANUP(free) struct source_file_id *samples = calloc(n + 1, sizeof *samples);
    j->witness = calloc(n + 1, sizeof *j->witness);
    int r = all && samples && j->witness ? source_testify(env->source, env->cancel, all, err)
                                         : err_new(err, QD_E_NO_MEMORY, "the witness");
    if (r < 0)
        return r;
    size_t n_samples = 0;
    struct source_file_id together = {.role = CALIBRATION_ROLE, .name = "*"};
    for (size_t i = 0; i < n; i++) {
        const bool is_sample = strcmp(all[i].role, CALIBRATION_ROLE) == 0;
        *(is_sample ? &samples[n_samples++] : &j->witness[j->n_witness++]) = all[i];
        together.bytes += is_sample ? all[i].bytes : 0;
    }
    r = n_samples ? source_identity(samples, n_samples, &together.digest, err) : 0;
    if (r == 0 && n_samples)
        j->witness[j->n_witness++] = together;
    return r;
}

int onnx_job_run(struct onnx_job *j, const struct onnx_job_env *env, int model_fd, int data_fd, struct qd_error *err)
{
    CLEANUP(fd_close) int model_file = model_fd;
    CLEANUP(fd_close) int data_file = data_fd;
    CLEANUP(source_free) struct source *output_source = NULL;
    if ((j->made.plan->output->data_bytes > 0) != (data_fd >= 0))
        return err_new(err, QD_E_PROTOCOL, "w_run: descriptors do not fit the plan");
    int r = write_files(j, env, model_file, data_file, err);
    if (r == 0)
        r = read_back(steal_fd(&model_file), steal_fd(&data_file), &output_source, &j->output, err);
    if (r == 0)
        r = compare_models(j, env, output_source, &j->comparison, err);
    if (r == 0)
        r = onnx_tables_make(&j->made, j->output, j->comparison, &j->tables, err);
    if (r == 0)
        r = testify(j, env, err);
    if (r < 0)
        return *env->cancel ? err_new(err, QD_E_CANCELLED, "cancelled") : r;
    return 0;
}
