#include "tests/fuzz/readers.h"

#include <string.h>
#include <sys/mman.h>

#include "kernels/core/io.h"
#include "quant/format/gguf_write.h"
#include "quant/packed.h"
#include "quant/plan_pack.h"

static void must(bool holds)
{
    if (!holds)
        abort();
}

int fd_of_bytes(struct bytes content)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    must(fd >= 0 && write_whole(fd, content.data, content.n) == 0);
    return fd;
}

struct source *source_of_bytes(struct bytes content, const char *name)
{
    struct source *s = NULL;
    struct qd_error err;
    int r = source_from_fd(fd_of_bytes(content), name, &s, &err);
    must((r == 0) == (content.n > 0));
    return s;
}

/* A refusal has a code of ours, a reason, and says which file. */
static void check_refusal(int r, const struct qd_error *err)
{
    must(r < 0 && err->code == r && err->message[0]);
    must(r != QD_E_INTERNAL && r != QD_E_NO_MEMORY && r != QD_E_SYSTEM && r != QD_E_SOURCE_CHANGED);
}

static void check_tensor(const struct tensor *t, const struct source *s)
{
    must(t->file < source_n_files(s));
    must(t->offset <= source_bytes(s, t->file) && t->bytes <= source_bytes(s, t->file) - t->offset);
    must(t->name[0] && t->n_dims <= MODEL_DIMS_MAX);
    const struct qd_type_info *type = qd_type_info(t->type);
    __extension__ unsigned __int128 n = 1;
    for (int d = 0; d < MODEL_DIMS_MAX; d++)
        n = t->shape[d] == 0 || n == 0 ? 0 : n * t->shape[d] > UINT64_MAX ? UINT64_MAX : n * t->shape[d];
    must(n == t->n_elements && n / type->block_elements * type->block_bytes == t->bytes);
}

/* What was read can be written, and is then read the same. */
static void check_round_trip(const struct model *m)
{
    CLEANUP(buffer_clear) struct buffer header = {0}, again = {0};
    struct qd_error err;
    must(gguf_header(&m->meta, NULL, 0, 32, &header, &err) == 0);
    CLEANUP(source_free) struct source *s = source_of_bytes(buffer_span(&header), "again.gguf");
    CLEANUP(model_free) struct model *copy = NULL;
    int r = model_read(s, 2 * FUZZ_BUDGET_BYTES, &copy, &err);
    must(r == 0 && copy->meta.n == m->meta.n);
    must(gguf_header(&copy->meta, NULL, 0, 32, &again, &err) == 0);
    must(again.n == header.n && memcmp(again.data, header.data, header.n) == 0);
}

/* A file of the plan's header and size: a model like any other. NULL where its alignment makes it large. */
static struct model *model_of_plan(const struct plan *p)
{
    enum { FILE_BYTES_MAX = 4 << 20 };
    struct model *m = NULL;
    struct qd_error err;
    if (p->file_bytes > FILE_BYTES_MAX)
        return NULL;
    CLEANUP(source_free) struct source *s = source_of_bytes(buffer_span(&p->header), "planned.gguf");
    must(ftruncate(source_fd(s, 0), (off_t)p->file_bytes) == 0);
    CLEANUP(source_free) struct source *whole = NULL;
    must(source_from_fd(dup(source_fd(s, 0)), "planned.gguf", &whole, &err) == 0);
    must(model_read(whole, 4 * FUZZ_BUDGET_BYTES, &m, &err) == 0);
    return m;
}

/*
 * What can be packed can be unpacked, and the portable tensors come out again; what is packed is unpacked or refused.
 */
static void check_packing(const struct model *m)
{
    struct qd_error err = {0};
    CLEANUP(plan_free) struct plan *pack = NULL;
    CLEANUP(plan_free) struct plan *unpack = NULL;
    int r = packed_is(m) ? plan_unpack(m, &pack, &err) : plan_pack(m, QD_LAYOUT_R4K4P128, NULL, &pack, &err);
    if (r < 0) {
        check_refusal(r, &err);
        return;
    }
    CLEANUP(model_free) struct model *made = model_of_plan(pack);
    if (!made)
        return;
    must(packed_is(m) || packed_is(made));
    if (packed_is(m))
        return;
    must(plan_unpack(made, &unpack, &err) == 0 && unpack->n_tensors == m->n_tensors && unpack->meta.n == m->meta.n);
    for (size_t i = 0; i < m->n_tensors; i++)
        must(unpack->tensors[i].type == m->tensors[i].type && unpack->tensors[i].bytes == m->tensors[i].bytes &&
             memcmp(unpack->tensors[i].source->shape, m->tensors[i].shape, sizeof m->tensors[i].shape) == 0);
}

void read_and_check(struct source *s)
{
    struct qd_error err = {0};
    CLEANUP(probe_free) struct probe *p = NULL;
    int r = model_probe(s, &p, &err);
    if (r < 0)
        check_refusal(r, &err);
    for (size_t i = 0; r == 0 && i < p->n_files; i++)
        must(p->files[i].name[0] && !strchr(p->files[i].name, '/') && !strstr(p->files[i].name, ".."));
    CLEANUP(model_free) struct model *m = NULL;
    r = model_read(s, FUZZ_BUDGET_BYTES, &m, &err);
    if (r < 0) {
        check_refusal(r, &err);
        return;
    }
    for (size_t i = 0; i < m->n_tensors; i++)
        check_tensor(&m->tensors[i], s);
    check_round_trip(m);
    check_packing(m);
}
