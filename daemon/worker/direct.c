#include "daemon/worker/direct.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "daemon/worker/direct_args.h"
#include "daemon/worker/direct_onnx.h"
#include "daemon/worker/direct_report.h"
#include "daemon/worker/outfile.h"
#include "kernels/core/clock.h"
#include "kernels/cpu.h"
#include "kernels/layout/packed.h"
#include "quant/limits.h"
#include "quant/packed.h"
#include "quant/pack_onnx.h"
#include "quant/plan_pack.h"
#include "quant/policy.h"
#include "quant/run.h"

enum {
    RESUMABLE_BYTES = 256 << 20, /* of source: what is worth continuing */
    RESUMABLE_FILES = 32,        /* of a source: what a journal's tag has room for */
    JOURNAL_TAG_BYTES = 4096
};
enum { BAR_CELLS = 30, BAR_NAME_BYTES = 41, LINE_EVERY_PERCENT = 10 };

/* A run that ends sooner needs no progress: a bar may flash, lines stay in a log for ever. */
static const double bar_after_s = 0.5, lines_after_s = 2;

/* What one call holds; filled from top to bottom. */
struct direct {
    struct direct_args args;
    struct source *source; /* owned, as all below */
    bool is_onnx;          /* what the source is */
    struct model *model;
    struct importance *importance; /* NULL: none was given */
    struct plan *plan;
    struct run_result *result;
    char why[POLICY_WHY_MAX];
    char boot_id[40]; /* "" where the kernel tells none */
    bool terminal;
    bool told; /* some progress stands on stderr; a bar is ended by a newline */
    unsigned told_percent;
    double started;
};

static _Atomic int cancelled;

static void on_signal(int number)
{
    (void)number;
    cancelled = 1;
}

/* --- progress: a bar on a terminal, a line every ten percent elsewhere --- */

static void show_bar(const struct direct *d, unsigned percent, double rate, const char *tensor)
{
    char bar[BAR_CELLS + 1], name[BAR_NAME_BYTES];
    (void)snprintf(name, sizeof name, "%s", percent < 100 && tensor ? tensor : ""); /* the rest has no room */
    make_printable(name, strlen(name));
    for (unsigned i = 0; i < BAR_CELLS; i++)
        bar[i] = i < percent * BAR_CELLS / 100 ? '#' : '.';
    bar[BAR_CELLS] = 0;
    fprintf(stderr, "\r[%s] %3u %%  %6.0f MB/s  %-40s", bar, percent, rate, name);
    if (percent == 100 && d->told_percent != 100)
        fputc('\n', stderr);
}

static void on_progress(const struct run_progress *p, void *data)
{
    struct direct *d = data;
    unsigned percent = p->total_bytes ? (unsigned)(p->done_bytes * 100.0 / p->total_bytes) : 100;
    double seconds = seconds_now() - d->started;
    double rate = seconds > 0 ? (double)p->done_bytes / seconds / 1e6 : 0;
    if (!d->told && seconds < (d->terminal ? bar_after_s : lines_after_s))
        return;
    if (d->terminal)
        show_bar(d, percent, rate, p->tensor);
    else if (percent < d->told_percent + LINE_EVERY_PERCENT)
        return;
    else
        fprintf(stderr, "%u %% of %" PRIu64 " bytes, %.0f MB/s\n", percent, p->total_bytes, rate);
    d->told = true;
    d->told_percent = percent;
}

/* --- steps --- */

static int open_companions(struct direct *d, struct qd_error *err)
{
    CLEANUP(probe_free) struct probe *probe = NULL;
    int r = model_probe(d->source, &probe, err);
    if (r < 0)
        return r;
    source_set_role(d->source, 0, probe->role);
    d->is_onnx = strcmp(probe->format, "onnx") == 0;
    return probe_add_files(probe, d->source, err);
}

static int read_model(struct direct *d, struct qd_error *err)
{
    int r = source_open_following(d->args.in, &d->source, err);
    if (r < 0)
        return r;
    source_set_witness(d->source, 0);
    r = open_companions(d, err);
    return r < 0 || d->is_onnx ? r : model_read(d->source, LIMIT_HEADER_BUDGET_BYTES, &d->model, err);
}

/* A companion of the model as far as reading goes: what changes under us is noticed. */
static int add_importance(struct direct *d, struct qd_error *err)
{
    char name[PATH_MAX + 2]; /* a slash in it: no companion of the model has one */
    const char *path = d->args.imatrix;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* a fifo must not hold us */
    if (fd < 0)
        return err_sys(err, errno, "open '%s'", path);
    (void)snprintf(name, sizeof name, "%s%s", strchr(path, '/') ? "" : "./", path); /* fits: it was opened */
    return source_add(d->source, fd, IMPORTANCE_ROLE, name, err);
}

static int read_importance(struct direct *d, struct qd_error *err)
{
    if (!d->args.imatrix)
        return 0;
    int file = add_importance(d, err);
    if (file < 0)
        return file;
    int r = importance_read(d->source, (size_t)file, (size_t)(d->args.max_memory_bytes / 2), &d->importance, err);
    return r < 0 ? r : importance_check(d->importance, d->model, err);
}

static int plan_quantize(struct direct *d, struct qd_error *err)
{
    struct policy_facts facts = {.memory_bytes = policy_memory_bytes(), .cpu_features = cpu_features()};
    for (size_t i = 0; i < d->model->n_tensors; i++) {
        facts.model_bytes += d->model->tensors[i].bytes;
        facts.n_elements += d->model->tensors[i].n_elements;
    }
    struct recipe recipe;
    policy_resolve(&d->args.recipe, &facts, &recipe, d->why);
    recipe.weighted = d->importance != NULL;
    if (d->importance)
        recipe.importance = d->importance->digest;
    return plan_build(d->model, &recipe, d->importance, &d->plan, err);
}

/* "native" is what the fastest kernels of this CPU read. */
static int choose_layout(const char *name, enum qd_layout *ret, struct qd_error *err)
{
    if (strcmp(name, "native") != 0)
        return layout_parse(name, ret, err);
    *ret = layout_native(cpu_features());
    if (*ret != QD_LAYOUT_PORTABLE)
        return 0;
    int r = err_new(err, QD_E_UNSUPPORTED, "no layout is native to this CPU: it reads portable files best");
    return err_hint(err, r, "name the layout of another one: --layout r8k4p128");
}

static int make_plan(struct direct *d, struct qd_error *err)
{
    enum qd_layout layout;
    int r;
    switch (d->args.verb) {
    case DIRECT_QUANTIZE:
        return plan_quantize(d, err);
    case DIRECT_PACK:
        r = choose_layout(d->args.layout, &layout, err);
        return r < 0 ? r : plan_pack(d->model, layout, NULL, &d->plan, err);
    case DIRECT_UNPACK:
        return plan_unpack(d->model, &d->plan, err);
    }
    return err_new(err, QD_E_INTERNAL, "no such work");
}

/* --force replaces an older result, never the model: the original is what every other scheme is made from. */
static int refuse_own_source(const struct direct *d, struct qd_error *err)
{
    struct stat out, in;
    if (stat(d->args.out, &out) < 0)
        return 0; /* the usual case; what else is wrong with it, opening says */
    for (size_t i = 0; i < source_n_files(d->source); i++) {
        if (fstat(source_fd(d->source, i), &in) < 0 || in.st_dev != out.st_dev || in.st_ino != out.st_ino)
            continue;
        int r = err_new(err, QD_E_INVALID, "'%s' is a file of the model itself", d->args.out);
        return err_hint(err, r, "give the output another name");
    }
    return 0;
}

/*
 * What the journal of an unfinished output must say to be continued: this start of the machine (its pages were not
 * synced) and the very files, by all that changes when one is written to.
 */
static void journal_tag(const struct direct *d, char *dst, size_t n)
{
    struct stat st;
    size_t at = (size_t)snprintf(dst, n, "direct %s", d->boot_id);
    for (size_t i = 0; i < source_n_files(d->source) && at < n; i++)
        if (fstat(source_fd(d->source, i), &st) == 0)
            at += (size_t)snprintf(dst + at, n - at, " %llx:%llx:%llx:%llx.%lx:%llx.%lx", (unsigned long long)st.st_dev,
                                   (unsigned long long)st.st_ino, (unsigned long long)st.st_size,
                                   (unsigned long long)st.st_mtim.tv_sec, (unsigned long)st.st_mtim.tv_nsec,
                                   (unsigned long long)st.st_ctim.tv_sec, (unsigned long)st.st_ctim.tv_nsec);
}

/* Work of some seconds is not worth a file that is left behind; nor can so many files be named in a journal. */
static bool is_resumable(const struct direct *d)
{
    return d->boot_id[0] && d->plan->source_bytes >= RESUMABLE_BYTES && source_n_files(d->source) <= RESUMABLE_FILES;
}

static int open_output(const struct direct *d, struct outfile *out, struct qd_error *err)
{
    int r = refuse_own_source(d, err);
    if (r < 0)
        return r;
    return is_resumable(d) ? outfile_open_resumable(out, d->args.out, d->args.force, err)
                           : outfile_open(out, d->args.out, d->args.force, err);
}

static int write_output(struct direct *d, struct qd_error *err)
{
    CLEANUP(outfile_close) struct outfile out = {.fd = -1, .folder_fd = -1, .journal_fd = -1};
    char tag[JOURNAL_TAG_BYTES];
    int r = open_output(d, &out, err);
    if (r < 0)
        return r;
    journal_tag(d, tag, sizeof tag);
    struct run_options options = {
        .ops = ops_native(),
        .cache = d->args.keep_cache ? RUN_CACHE_KEEP : RUN_CACHE_AS_FOUND,
        .n_threads = d->args.n_threads,
        .out_fd = out.fd,
        .journal_fd = out.journal_fd,
        .journal_tag = tag,
        .progress = d->args.quiet ? NULL : on_progress,
        .progress_data = d,
        .cancel = &cancelled,
    };
    r = plan_run(d->source, d->plan, &options, &d->result, err);
    if (r == QD_E_CANCELLED && out.journal) {
        outfile_leave(&out);
        return err_hint(err, r,
                        "the same command continues; 'rm .NAME.part .NAME.journal' beside the output forgets it");
    }
    return r < 0 ? r : outfile_publish(&out, err);
}

/* --- the whole --- */

static void read_boot_id(char *dst, size_t n)
{
    CLEANUP(fd_close) int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, dst, n - 1);
    dst[got > 0 ? got : 0] = 0;
    dst[strcspn(dst, "\n")] = 0;
}

static int on_tensor(void *data, uint64_t done, uint64_t total, const char *tensor)
{
    struct direct *d = data;
    if (!d->args.quiet)
        on_progress(&(struct run_progress){.done_bytes = done, .total_bytes = total, .tensor = tensor}, d);
    return cancelled ? QD_E_CANCELLED : 0;
}

static int run_onnx(struct direct *d, struct qd_error *err)
{
    int r =
        d->args.verb == DIRECT_QUANTIZE
            ? 0
            : err_hint(err, err_new(err, QD_E_UNSUPPORTED, "what an ONNX model's weights are is said by its artifact"),
                       "`quantctl open NAME --layout native --output FILE` gives the packed file");
    if (r == 0 && d->args.imatrix)
        r = err_new(err, QD_E_INVALID, "an importance matrix is for GGUF models");
    if (r == 0 && d->args.out)
        r = refuse_own_source(d, err);
    if (r == 0)
        r = direct_onnx_run(&d->args, d->source, d->started, &cancelled, on_tensor, d, err);
    return r == QD_E_CANCELLED ? err_new(err, r, "cancelled") : r;
}

static int unpack_onnx(struct direct *d, struct qd_error *err)
{
    int r = d->args.out ? refuse_own_source(d, err) : 0;
    if (r == 0)
        r = direct_onnx_unpack(&d->args, d->model, d->source, d->started, on_tensor, d, err);
    return r == QD_E_CANCELLED ? err_new(err, r, "cancelled") : r;
}

static int refuse_data(const struct direct_args *a, struct qd_error *err)
{
    const char *given = a->calibration       ? "--calibration"
                        : a->statistics      ? "--statistics"
                        : a->save_statistics ? "--save-statistics"
                                             : NULL;
    if (!given)
        return 0;
    int r = err_new(err, QD_E_INVALID, "%s is for ONNX models", given);
    return err_hint(err, r, "errors of this model are weighed by --imatrix FILE");
}

static int direct_run(struct direct *d, struct qd_error *err)
{
    int r = read_model(d, err);
    if (r == 0 && d->is_onnx)
        r = run_onnx(d, err);
    if (r < 0 || d->is_onnx)
        return r < 0 ? err_in(err, r, "%s", d->args.in) : 0;
    if (d->args.verb == DIRECT_UNPACK && onnx_packed_is(d->model)) {
        r = unpack_onnx(d, err);
        return r < 0 ? err_in(err, r, "%s", d->args.in) : 0;
    }
    r = refuse_data(&d->args, err);
    if (r == 0)
        r = read_importance(d, err);
    if (r == 0)
        r = make_plan(d, err);
    struct report report = {.args = &d->args, .model = d->model, .plan = d->plan, .why = d->why};
    if (r == 0 && d->args.dry_run)
        return report_plan(&report, err);
    const struct run_ceiling ceiling = {.bytes = d->args.max_memory_bytes, .name = "--max-memory"};
    if (r == 0)
        r = run_fit_threads(d->model, d->plan, &ceiling, d->args.n_threads, &d->args.n_threads, err);
    if (r == 0)
        r = write_output(d, err);
    if (r < 0)
        return err_in(err, r, "%s", d->args.in);
    report.result = d->result;
    report.seconds = seconds_now() - d->started;
    return report_result(&report, err);
}

static int complain(const struct direct *d, struct qd_error *err)
{
    make_printable(err->message, strlen(err->message));
    make_printable(err->hint, strlen(err->hint));
    fprintf(stderr, "%s%s: %s\n", d->terminal && d->told ? "\n" : "", direct_verb_name(d->args.verb), err->message);
    if (err->hint[0])
        fprintf(stderr, "hint: %s\n", err->hint);
    return qd_error_exit_code(err->code);
}

int direct_main(enum direct_verb verb, int argc, char **argv)
{
    struct direct d = {.args = {.verb = verb}, .started = seconds_now(), .terminal = isatty(STDERR_FILENO) != 0};
    struct qd_error err = {0};
    if (direct_args_parse(verb, argc, argv, &d.args, &err) < 0)
        return complain(&d, &err);
    if (d.args.help) {
        fputs(direct_usage(verb), stdout);
        return EX_OK;
    }
    read_boot_id(d.boot_id, sizeof d.boot_id);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND}; /* a second one kills at once */
    (void)sigaction(SIGINT, &action, NULL); /* cannot fail with these arguments */
    (void)sigaction(SIGTERM, &action, NULL);
    (void)signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error that is told */

    int r = direct_run(&d, &err);
    int code = r < 0 ? complain(&d, &err) : EX_OK;
    (void)run_result_free(d.result); /* these return NULL by convention */
    (void)plan_free(d.plan);
    (void)importance_free(d.importance);
    (void)model_free(d.model);
    (void)source_free(d.source);
    return code;
}
