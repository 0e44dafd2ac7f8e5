#include "daemon/worker/onnx_data.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/worker/outfile.h"
#include "kernels/core/clock.h"
#include "kernels/core/io.h"
#include "quant/limits.h"
#include "quant/model.h"
#include "quant/onnx/samples.h"

enum { EXECUTOR_MEMORY = 512 << 20, STATISTICS_MEMORY = 512 << 20, COMPARED_SAMPLES = 16 };

/* How far the samples are, for people. */
struct watch {
    const char *what; /* "calibrating" */
    bool quiet, terminal, told;
    double started, told_at;
};

/* On a terminal a line that is written over; elsewhere, after some seconds, one now and then. */
static int tell_sample(void *data, uint64_t n_done, uint64_t n_samples)
{
    struct watch *w = data;
    const double now = seconds_now() - w->started, every = w->terminal ? 0.1 : 5.0;
    if (w->quiet || now - w->told_at < every)
        return 0;
    w->told_at = now;
    w->told = true;
    fprintf(stderr, "%s%s: %" PRIu64 " of %" PRIu64 " samples%s", w->terminal ? "\r" : "", w->what, n_done, n_samples,
            w->terminal ? "" : "\n");
    return 0;
}

static int open_folder(const char *path, struct qd_error *err)
{
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        return fd;
    int r = err_sys(err, errno, "open the calibration data '%s'", path);
    return err_hint(err, r, "a folder with a .npy or .pb file for each sample is due");
}

/* The user's samples, opened for one pass; samples_close() ends it. */
struct samples {
    struct onnx_samples options;
    struct watch watch;
};

static int samples_open(struct samples *s, const struct direct_args *a, const char *what, const _Atomic int *cancel,
                        struct qd_error *err)
{
    *s = (struct samples){.watch = {.what = what, .quiet = a->quiet, .terminal = isatty(STDERR_FILENO) != 0}};
    s->watch.started = seconds_now();
    s->options = (struct onnx_samples){.folder_fd = open_folder(a->calibration, err),
                                       .memory_bytes = EXECUTOR_MEMORY,
                                       .progress = tell_sample,
                                       .progress_data = &s->watch,
                                       .cancel = cancel};
    return s->options.folder_fd < 0 ? s->options.folder_fd : qd_team_new(a->n_threads, &s->options.team, err);
}

static void samples_close(struct samples *s)
{
    if (s->watch.told && s->watch.terminal)
        fputc('\n', stderr);
    qd_team_free(s->options.team);
    if (s->options.folder_fd >= 0)
        (void)close(s->options.folder_fd);
}

int onnx_data_check(const struct direct_args *a, struct qd_error *err)
{
    CLEANUP(fd_close) int folder = a->calibration ? open_folder(a->calibration, err) : -1;
    return a->calibration && folder < 0 ? folder : 0;
}

/* ---- statistics ---- */

/* Of the contents of all files; the model's own has whatever name its user gave it. */
static int identify(const struct source *s, unsigned n_threads, struct digest *ret, struct qd_error *err)
{
    const size_t n = source_n_files(s);
    CLEANUP(free) struct source_file_id *files = calloc(n + 1, sizeof *files);
    int r = files ? 0 : err_new(err, QD_E_NO_MEMORY, "the model's files");
    for (size_t i = 0; i < n && r == 0; i++) {
        files[i] = (struct source_file_id){
            .role = source_role(s, i), .name = i ? source_name(s, i) : "model", .bytes = source_bytes(s, i)};
        r = digest_file(source_fd(s, i), files[i].bytes, n_threads, &files[i].digest, NULL, NULL, NULL, err);
    }
    return r < 0 ? r : source_identity(files, n, ret, err);
}

static int read_statistics(const char *path, struct statistics **ret, struct qd_error *err)
{
    CLEANUP(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(err, errno, "open the statistics '%s'", path);
    if (!S_ISREG(st.st_mode) || st.st_size > STATISTICS_BYTES_MAX)
        return err_new(err, QD_E_INVALID, "'%s' is no file of statistics: at most %d MiB are", path,
                       STATISTICS_BYTES_MAX >> 20);
    CLEANUP(free) uint8_t *content = malloc((size_t)st.st_size + 1);
    if (!content)
        return err_new(err, QD_E_NO_MEMORY, "the statistics '%s'", path);
    const ssize_t n = pread_whole(fd, content, (size_t)st.st_size, 0);
    if (n < 0)
        return err_sys(err, (int)-n, "read the statistics '%s'", path);
    int r = statistics_decode((struct bytes){content, (size_t)n}, STATISTICS_MEMORY, ret, err);
    return r < 0 ? err_in(err, r, "statistics '%s'", path) : 0;
}

static int write_statistics(const char *path, const struct statistics *s, bool replace, struct qd_error *err)
{
    CLEANUP(outfile_close) struct outfile out = {.fd = -1, .folder_fd = -1, .journal_fd = -1};
    CLEANUP(buffer_clear) struct buffer content = {0};
    int r = statistics_encode(s, &content, err);
    if (r == 0)
        r = outfile_open(&out, path, replace, err);
    if (r == 0) {
        const int w = pwrite_whole(out.fd, content.data, content.n, 0);
        r = w < 0 ? err_sys(err, -w, "write '%s'", path) : 0;
    }
    return r < 0 ? r : outfile_publish(&out, err);
}

/* Those of the user's file, of the user's samples, or of both together. */
static int gather(const struct direct_args *a, const struct onnx_model *m, struct source *s, const _Atomic int *cancel,
                  struct statistics *sum, struct qd_error *err)
{
    CLEANUP(statistics_free) struct statistics *given = NULL, *seen = NULL;
    int r = a->statistics ? read_statistics(a->statistics, &given, err) : 0;
    if (r == 0 && given && !digest_equal(&given->model, &sum->model)) {
        r = err_new(err, QD_E_INVALID, "the statistics '%s' are of another model", a->statistics);
        return err_hint(err, r, "gather them from this one: --calibration FOLDER --save-statistics FILE");
    }
    if (r == 0 && given)
        r = statistics_merge(sum, given, err);
    if (r < 0 || !a->calibration)
        return r;
    struct samples samples;
    r = samples_open(&samples, a, "calibrating", cancel, err);
    if (r == 0)
        r = onnx_calibrate(m, s, &samples.options, &sum->model, &seen, err);
    samples_close(&samples);
    if (r == 0)
        r = statistics_merge(sum, seen, err);
    return r < 0 ? err_in(err, r, "calibration data '%s'", a->calibration) : 0;
}

int onnx_data_statistics(const struct direct_args *a, const struct onnx_model *m, struct source *s,
                         const _Atomic int *cancel, struct statistics **ret, struct qd_error *err)
{
    struct digest model = {0}; /* of whom does not matter while they are neither read nor kept */
    int r = a->statistics || a->save_statistics ? identify(s, a->n_threads, &model, err) : 0;
    if (r < 0)
        return r;
    CLEANUP(statistics_free) struct statistics *sum = statistics_new(&model);
    r = sum ? gather(a, m, s, cancel, sum, err) : err_new(err, QD_E_NO_MEMORY, "statistics");
    if (r == 0 && a->save_statistics && !a->dry_run)
        r = write_statistics(a->save_statistics, sum, a->force, err);
    if (r == 0)
        *ret = steal(&sum);
    return r;
}

/* ---- the plan ---- */

int onnx_data_plan(const struct direct_args *a, const struct onnx_model *m, struct source *s, const struct recipe *r,
                   const struct statistics *statistics, const char *data_name, const _Atomic int *cancel,
                   struct made *ret, struct qd_error *err)
{
    struct samples samples;
    if (r->scheme != SCHEME_INT8 || !statistics || !a->calibration)
        return make_plan(m, s, r, statistics, NULL, ops_native(), data_name, ret, err);
    int e = samples_open(&samples, a, "trying", cancel, err);
    if (e == 0)
        e = make_plan(m, s, r, statistics, &samples.options, ops_native(), data_name, ret, err);
    samples_close(&samples);
    return e;
}

/* ---- the error ---- */

int onnx_data_compare(const struct direct_args *a, const struct onnx_model *m, struct source *s,
                      const _Atomic int *cancel, struct comparison **ret, struct qd_error *err)
{
    CLEANUP(source_free) struct source *made = NULL;
    CLEANUP(onnx_model_free) struct onnx_model *other = NULL;
    CLEANUP(probe_free) struct probe *probe = NULL;
    struct samples samples;
    int r = source_open(a->out, &made, err);
    if (r == 0)
        r = model_probe(made, &probe, err);
    if (r == 0)
        r = probe_add_files(probe, made, err);
    if (r == 0)
        r = onnx_read(made, LIMIT_HEADER_BUDGET_BYTES, &other, err);
    if (r < 0)
        return r;
    r = samples_open(&samples, a, "comparing", cancel, err);
    if (r == 0)
        r = onnx_compare(m, s, other, made, &samples.options, COMPARED_SAMPLES, ret, err);
    samples_close(&samples);
    return r;
}
