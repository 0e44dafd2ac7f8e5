#include "quant/calib/dataset.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "artifact/pack.h"
#include "quant/calib/npy.h"
#include "quant/calib/preparation.h"
#include "quant/calib/zip.h"
#include "quant/limits.h"

enum { TENSOR_BUDGET_BYTES = 1 << 20 /* what a TensorProto costs beside its elements */ };

/* The samples of an input: names relative to the dataset's folder, in order. */
struct files {
    char **names;
    size_t n;
    char *preparation; /* name of the file that says how pictures and sounds become values; NULL: there is none */
};

struct dataset {
    int folder;            /* borrowed; -1: files of @source */
    struct source *source; /* borrowed */
    const struct graph *graph;
    struct memory *memory;
    struct preparation *preparations; /* [graph_n_inputs] */
    struct files *inputs;             /* [graph_n_inputs]; of @archives, which hold all inputs, the first alone */
    bool archives;
    size_t next;
};

static void files_clear(struct files *f)
{
    for (size_t i = 0; i < f->n; i++)
        free(f->names[i]);
    free(f->names);
    free(f->preparation);
}

struct dataset *dataset_free(struct dataset *d)
{
    for (size_t i = 0; d && d->inputs && i < graph_n_inputs(d->graph); i++)
        files_clear(&d->inputs[i]);
    if (d) {
        free(d->inputs);
        free(d->preparations);
    }
    free(d);
    return NULL;
}

static const struct files *files_of(const struct dataset *d, size_t input)
{
    return &d->inputs[d->archives ? 0 : input];
}

uint64_t dataset_n_samples(const struct dataset *d)
{
    return graph_n_inputs(d->graph) ? d->inputs[0].n : 0;
}

/* ---- listing ------------------------------------------------------------------------------ */

static struct dirent *dir_close(DIR *dir)
{
    (void)closedir(dir); /* only read */
    return NULL;
}
DEFINE_CLEANUP(dir_close, DIR *)

static bool ends_with(const char *name, const char *suffix)
{
    const size_t n = strlen(name), n_suffix = strlen(suffix);
    return n > n_suffix && strcmp(name + n - n_suffix, suffix) == 0;
}

/* "FOLDER/NAME", or "NAME" where @folder is NULL. */
static char *join(const char *folder, const char *name)
{
    CLEANUP(buffer_clear) struct buffer b = {0};
    if (folder)
        buffer_printf(&b, "%s/", folder);
    buffer_printf(&b, "%s", name);
    return b.failed ? NULL : strndup((const char *)b.data, b.n);
}

static bool is_picture(const char *name)
{
    return ends_with(name, ".png") || ends_with(name, ".jpg") || ends_with(name, ".jpeg");
}

static bool is_sample(const char *folder, const char *name)
{
    return ends_with(name, ".npy") || ends_with(name, ".pb") || is_picture(name) || ends_with(name, ".wav") ||
           (!folder && ends_with(name, ".npz"));
}

static int add_file(struct files *f, const char *folder, const char *name, struct qd_error *err)
{
    if (strcmp(name, PREPARATION_NAME) == 0 && !f->preparation) {
        f->preparation = join(folder, name);
        return f->preparation ? 0 : err_new(err, QD_E_NO_MEMORY, "calibration data");
    }
    if (!is_sample(folder, name)) {
        int r = err_new(err, QD_E_INVALID, "'%.255s' is no calibration data", name);
        return err_hint(err, r,
                        "a sample is a .npz file, or a .npy, .pb, .png, .jpg or .wav file, in a sub-folder for each of "
                        "several inputs; " PREPARATION_NAME " may stand beside them");
    }
    if (f->n == DATASET_SAMPLES_MAX)
        return err_new(err, QD_E_LIMIT, "more than %d samples", DATASET_SAMPLES_MAX);
    if ((f->n & (f->n - 1)) == 0) {
        char **more = realloc(f->names, (f->n ? 2 * f->n : 1) * sizeof *more);
        if (!more)
            return err_new(err, QD_E_NO_MEMORY, "calibration data");
        f->names = more;
    }
    f->names[f->n] = join(folder, name);
    return f->names[f->n] ? (int)(f->n++, 0) : err_new(err, QD_E_NO_MEMORY, "calibration data");
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int none_in(const char *folder, struct qd_error *err)
{
    return err_new(err, QD_E_INVALID, "the folder '%s' of calibration data is empty", folder ? folder : ".");
}

/* A name in the dataset's folder of a file of the source; NULL where it is none of its own. */
static const char *name_in_source(const struct dataset *d, size_t file)
{
    const char *slash = strchr(source_name(d->source, file), '/');
    return slash && strcmp(source_role(d->source, file), CALIBRATION_ROLE) == 0 ? slash + 1 : NULL;
}

/* As list_folder, of the source's files. */
static int list_source(const struct dataset *d, const char *folder, struct files *f, struct qd_error *err)
{
    const size_t n_folder = folder ? strlen(folder) : 0;
    int r = 0;
    for (size_t i = 0; i < source_n_files(d->source) && r == 0; i++) {
        const char *name = name_in_source(d, i);
        if (!name || (folder && (strncmp(name, folder, n_folder) != 0 || name[n_folder] != '/')))
            continue;
        r = add_file(f, folder, folder ? name + n_folder + 1 : name, err);
    }
    if (r == 0 && f->n == 0)
        return none_in(folder, err);
    if (r == 0)
        qsort(f->names, f->n, sizeof *f->names, by_bytes);
    return r;
}

/* Lists the folder at @fd, which is taken. @folder: its name, NULL for the dataset's own. */
static int list_folder(int fd, const char *folder, struct files *f, struct qd_error *err)
{
    CLEANUP(dir_close) DIR *dir = fdopendir(fd);
    if (!dir) {
        int r = err_sys(err, errno, "read the folder '%s' of calibration data", folder ? folder : ".");
        (void)fd_close(fd);
        return r;
    }
    const struct dirent *entry;
    int r = 0;
    while (r == 0 && (errno = 0, entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            r = add_file(f, folder, entry->d_name, err);
    if (r == 0 && errno)
        return err_sys(err, errno, "read the folder '%s' of calibration data", folder ? folder : ".");
    if (r == 0 && f->n == 0)
        return none_in(folder, err);
    if (r == 0)
        qsort(f->names, f->n, sizeof *f->names, by_bytes);
    return r;
}

/* Opened anew, so that its position is its own. */
static int open_own(const struct dataset *d, struct qd_error *err)
{
    const int fd = openat(d->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? err_sys(err, errno, "open the folder of calibration data") : fd;
}

static int list_own(struct dataset *d, struct qd_error *err)
{
    if (d->folder < 0)
        return list_source(d, NULL, &d->inputs[0], err);
    const int fd = open_own(d, err);
    return fd < 0 ? fd : list_folder(fd, NULL, &d->inputs[0], err);
}

/* Does the folder hold archives? Then it holds nothing else. */
static int find_archives(struct dataset *d, struct qd_error *err)
{
    for (size_t i = 0; d->folder < 0 && i < source_n_files(d->source); i++) {
        const char *name = name_in_source(d, i);
        d->archives = d->archives || (name && ends_with(name, ".npz"));
    }
    if (d->folder < 0)
        return 0;
    int fd = open_own(d, err);
    if (fd < 0)
        return fd;
    CLEANUP(dir_close) DIR *dir = fdopendir(fd);
    if (!dir) {
        (void)fd_close(fd);
        return err_new(err, QD_E_NO_MEMORY, "calibration data");
    }
    const struct dirent *entry;
    while (!d->archives && (entry = readdir(dir)))
        d->archives = entry->d_name[0] != '.' && ends_with(entry->d_name, ".npz");
    return 0;
}

static int list_archives(struct dataset *d, struct qd_error *err)
{
    int r = list_own(d, err);
    for (size_t i = 0; i < d->inputs[0].n && r == 0; i++)
        if (!ends_with(d->inputs[0].names[i], ".npz"))
            r = err_new(err, QD_E_INVALID, "'%.255s' stands among .npz archives, each of which is a sample",
                        d->inputs[0].names[i]);
    return r;
}

static int list_input(struct dataset *d, size_t i, struct qd_error *err)
{
    const char *name = graph_input(d->graph, i)->name;
    int fd = -1;
    if (strchr(name, '/') || name[0] == '.' || name[0] == '\0')
        return err_new(err, QD_E_UNSUPPORTED, "input '%.200s': no folder can have that name", name);
    if (d->folder < 0)
        return list_source(d, name, &d->inputs[i], err);
    int r = open_beneath(d->folder, name, &fd, err);
    if (r == 0 && fd < 0)
        return err_new(err, QD_E_INVALID, "the calibration data has no folder '%.200s', the name of an input", name);
    return r < 0 ? r : list_folder(fd, name, &d->inputs[i], err);
}

/* Do two files belong to the same sample? The names without folder and ending. */
static bool same_sample(const char *a, const char *b)
{
    a = strrchr(a, '/') + 1;
    b = strrchr(b, '/') + 1;
    const size_t n = (size_t)(strrchr(a, '.') - a);
    return n == (size_t)(strrchr(b, '.') - b) && strncmp(a, b, n) == 0;
}

static int check_pairs(const struct dataset *d, size_t i, struct qd_error *err)
{
    const struct files *first = &d->inputs[0], *f = &d->inputs[i];
    for (size_t k = 0; k < f->n && k < first->n; k++)
        if (!same_sample(first->names[k], f->names[k]))
            return err_new(err, QD_E_INVALID, "'%.255s' and '%.255s' should be of the same sample", first->names[k],
                           f->names[k]);
    return f->n == first->n ? 0
                            : err_new(err, QD_E_INVALID, "input '%.200s' has %zu samples, input '%.200s' has %zu",
                                      graph_input(d->graph, i)->name, f->n, graph_input(d->graph, 0)->name, first->n);
}

static int list_all(struct dataset *d, struct qd_error *err)
{
    const size_t n = graph_n_inputs(d->graph);
    if (n == 0)
        return err_new(err, QD_E_INVALID, "the model has no input to calibrate with");
    int r = find_archives(d, err);
    if (r == 0 && d->archives)
        return list_archives(d, err);
    if (r == 0 && n == 1)
        return list_own(d, err);
    for (size_t i = 0; i < n && r == 0; i++) {
        r = list_input(d, i, err);
        if (r == 0)
            r = check_pairs(d, i, err);
    }
    return r;
}

/* ---- samples ------------------------------------------------------------------------------ */

/* The file of the source that is called @name in the dataset's folder: it was listed. */
static size_t find_in_source(const struct dataset *d, const char *name)
{
    size_t i = 0;
    for (const char *is; !(is = name_in_source(d, i)) || strcmp(is, name) != 0;)
        i++;
    return i;
}

static int open_file(const struct dataset *d, const char *name, int *ret_fd, struct qd_error *err)
{
    int r = open_beneath(d->folder, name, ret_fd, err);
    return r == 0 && *ret_fd < 0 ? err_new(err, QD_E_SOURCE_CHANGED, "it is gone since the folder was listed") : r;
}

struct position {
    struct source *source;
    uint64_t at;
};

static int read_on(void *data, void *dst, size_t n, struct qd_error *err)
{
    struct position *p = data;
    int r = source_read_meta(p->source, 0, p->at, dst, n, err);
    p->at += n;
    return r;
}

static int read_pb(struct source *s, struct memory *m, struct value **ret, struct qd_error *err)
{
    CLEANUP(arena_free) struct arena *a = arena_new(TENSOR_BUDGET_BYTES);
    const struct onnx_tensor *t;
    if (!a)
        return err_new(err, QD_E_NO_MEMORY, "calibration data");
    int r = onnx_tensor_read(s, NULL, a, &t, err);
    return r < 0 ? r : value_from_tensor(m, s, t, ret, err);
}

/* The array of an input: "NAME.npy" in the archive. */
static int read_member(const struct dataset *d, struct source *s, size_t input, struct value **ret,
                       struct qd_error *err)
{
    CLEANUP(buffer_clear) struct buffer name = {0};
    CLEANUP(zip_close) struct zip_reader *z = NULL;
    buffer_printf(&name, "%s.npy", graph_input(d->graph, input)->name);
    buffer_put_u8(&name, '\0');
    if (name.failed)
        return err_new(err, QD_E_NO_MEMORY, "calibration data");
    int r = zip_open(s, (const char *)name.data, &z, err);
    if (r < 0)
        return r;
    const struct npy_input in = {zip_read, z, zip_bytes(z)};
    r = npy_read(&in, d->memory, ret, err);
    return r < 0 ? err_in(err, r, "array '%.200s'", (const char *)name.data) : r;
}

static int open_source(const struct dataset *d, const char *name, struct source **ret, struct qd_error *err)
{
    if (d->folder < 0)
        return source_view(d->source, find_in_source(d, name), ret, err);
    int fd = -1, r = open_file(d, name, &fd, err);
    if (r == 0)
        r = source_from_fd(fd, name, ret, err);
    if (r == 0)
        source_set_witness(*ret, 0); /* dataset_digest has been over the whole file */
    return r;
}

static int read_picture(const struct dataset *d, struct source *s, size_t input, struct value **ret,
                        struct qd_error *err)
{
    CLEANUP(picture_clear) struct picture picture = {0};
    int r = picture_read(s, &picture, err);
    return r < 0 ? r
                 : preparation_of_picture(&d->preparations[input], &picture, graph_input(d->graph, input), d->memory,
                                          ret, err);
}

static int read_sound(const struct dataset *d, struct source *s, size_t input, struct value **ret, struct qd_error *err)
{
    CLEANUP(sound_clear) struct sound sound = {0};
    int r = sound_read(s, &sound, err);
    return r < 0 ? r
                 : preparation_of_sound(&d->preparations[input], &sound, graph_input(d->graph, input), d->memory, ret,
                                        err);
}

static int read_file(const struct dataset *d, const char *name, size_t input, struct value **ret, struct qd_error *err)
{
    CLEANUP(source_free) struct source *s = NULL;
    int r = open_source(d, name, &s, err);
    if (r < 0)
        return r;
    if (d->archives)
        return read_member(d, s, input, ret, err);
    if (is_picture(name))
        return read_picture(d, s, input, ret, err);
    if (ends_with(name, ".wav"))
        return read_sound(d, s, input, ret, err);
    struct position p = {.source = s};
    const struct npy_input in = {read_on, &p, source_bytes(s, 0)};
    return ends_with(name, ".npy") ? npy_read(&in, d->memory, ret, err) : read_pb(s, d->memory, ret, err);
}

static int check_value(const struct value *v, const struct onnx_value_info *input, struct qd_error *err)
{
    if (input->kind == ONNX_KIND_TENSOR && v->type != input->type)
        return err_new(err, QD_E_INVALID, "it is of %s, input '%.200s' of %s", onnx_type_name(v->type), input->name,
                       onnx_type_name(input->type));
    if (input->has_shape && v->shape.n_dims != input->n_dims)
        return err_new(err, QD_E_INVALID, "it has %u dimensions, input '%.200s' has %zu", v->shape.n_dims, input->name,
                       input->n_dims);
    for (uint32_t i = 0; input->has_shape && i < v->shape.n_dims; i++)
        if (input->dims[i].value >= 0 && input->dims[i].value != v->shape.dims[i])
            return err_new(err, QD_E_INVALID, "dimension %u is %lld, that of input '%.200s' is %lld", i,
                           (long long)v->shape.dims[i], input->name, (long long)input->dims[i].value);
    return 0;
}

int dataset_next(void *dataset, struct value **inputs, const char **ret_name, struct qd_error *err)
{
    struct dataset *d = dataset;
    if (d->next == dataset_n_samples(d))
        return 0;
    for (size_t i = 0; i < graph_n_inputs(d->graph); i++) {
        const char *name = files_of(d, i)->names[d->next];
        int r = read_file(d, name, i, &inputs[i], err);
        if (r == 0)
            r = check_value(inputs[i], graph_input(d->graph, i), err);
        if (r < 0)
            return err_in(err, r, "calibration data '%.255s'", name);
    }
    *ret_name = d->inputs[0].names[d->next++];
    return 1;
}

/* ---- opening ---- */

static int read_preparation(const struct dataset *d, size_t input, struct qd_error *err)
{
    enum { BYTES_MAX = 1 << 16 };
    CLEANUP(source_free) struct source *s = NULL;
    const char *name = files_of(d, input)->preparation;
    d->preparations[input] = preparation_default;
    if (!name)
        return 0;
    int r = open_source(d, name, &s, err);
    if (r < 0)
        return err_in(err, r, "calibration data '%.255s'", name);
    const uint64_t n = source_bytes(s, 0) < BYTES_MAX ? source_bytes(s, 0) : BYTES_MAX;
    CLEANUP(free) uint8_t *text = malloc((size_t)n + 1);
    r = text ? source_read_meta(s, 0, 0, text, (size_t)n, err) : err_new(err, QD_E_NO_MEMORY, "calibration data");
    if (r == 0)
        r = preparation_parse((struct bytes){text, (size_t)n}, &d->preparations[input], err);
    return r < 0 ? err_in(err, r, "calibration data '%.255s'", name) : 0;
}

int dataset_open(int folder_fd, struct source *source, const struct graph *g, struct memory *m, struct dataset **ret,
                 struct qd_error *err)
{
    CLEANUP(dataset_free) struct dataset *d = calloc(1, sizeof *d);
    if (d) {
        *d = (struct dataset){.folder = folder_fd, .source = source, .graph = g, .memory = m};
        d->inputs = calloc(graph_n_inputs(g) + 1, sizeof *d->inputs);
        d->preparations = calloc(graph_n_inputs(g) + 1, sizeof *d->preparations);
    }
    if (!d || !d->inputs || !d->preparations)
        return err_new(err, QD_E_NO_MEMORY, "calibration data");
    int r = list_all(d, err);
    for (size_t i = 0; i < graph_n_inputs(g) && r == 0; i++)
        r = read_preparation(d, i, err);
    if (r == 0)
        *ret = steal(&d);
    return r;
}

/* ---- digest ------------------------------------------------------------------------------- */

static int pack_file(const struct dataset *d, const char *name, struct buffer *b, struct qd_error *err)
{
    CLEANUP(fd_close) int own = -1;
    struct digest digest;
    struct stat st;
    int r = d->folder < 0 ? 0 : open_file(d, name, &own, err);
    if (r < 0)
        return r;
    const int fd = d->folder < 0 ? source_fd(d->source, find_in_source(d, name)) : own;
    if (fstat(fd, &st) < 0)
        return err_sys(err, errno, "stat");
    if (!S_ISREG(st.st_mode))
        return err_new(err, QD_E_INVALID, "it is no regular file");
    r = digest_file(fd, (uint64_t)st.st_size, 1, &digest, NULL, NULL, NULL, err);
    pack_array(b, 3);
    pack_text(b, name);
    pack_u64(b, (uint64_t)st.st_size);
    pack_bin(b, (struct bytes){digest.bytes, DIGEST_BYTES});
    return r;
}

int dataset_digest(const struct dataset *d, const _Atomic int *cancel, struct digest *ret, struct qd_error *err)
{
    CLEANUP(buffer_clear) struct buffer b = {0};
    pack_array(&b, (uint32_t)graph_n_inputs(d->graph));
    for (size_t i = 0; i < graph_n_inputs(d->graph); i++) {
        const struct files *f = files_of(d, i);
        pack_array(&b, 2);
        pack_text(&b, graph_input(d->graph, i)->name);
        pack_array(&b, (uint32_t)f->n);
        int r = f->preparation ? pack_file(d, f->preparation, &b, err) : 0;
        for (size_t k = 0; k < f->n && r == 0; k++) {
            r = cancel && *cancel ? err_new(err, QD_E_CANCELLED, "cancelled") : pack_file(d, f->names[k], &b, err);
            if (r < 0)
                return err_in(err, r, "calibration data '%.255s'", f->names[k]);
        }
        if (r < 0)
            return err_in(err, r, "calibration data '%.255s'", f->preparation);
    }
    if (b.failed)
        return err_new(err, QD_E_NO_MEMORY, "calibration data");
    return digest_message("calibration data", buffer_span(&b), ret, err);
}
