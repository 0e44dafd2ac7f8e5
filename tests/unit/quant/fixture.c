#include "tests/unit/quant/fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/core/io.h"
#include "kernels/kernels.h"
#include "tests/test.h"

void fixture_only_threads_under_tsan(void)
{
#ifdef __SANITIZE_THREAD__
    cmocka_set_test_filter("*thread*");
#endif
}

void fixture_init(struct fixture *f, const char *format, const char *architecture)
{
    *f = (struct fixture){.arena = arena_new(4 << 20)};
    f->model = (struct model){.arena = f->arena, .format = format, .architecture = architecture, .tensors = f->tensors};
    f->model.meta.entries = f->meta;
    fixture_meta_text(f, "general.architecture", architecture);
}

void fixture_clear(struct fixture *f)
{
    (void)source_free(f->source);
    (void)arena_free(f->arena);
}

void fixture_meta_u32(struct fixture *f, const char *key, uint32_t v)
{
    uint32_t *data = arena_alloc(f->arena, 1, sizeof v);
    *data = v;
    f->meta[f->model.meta.n++] = (struct meta_entry){key, {.type = META_U32, .n_items = 1, .data = data}};
}

void fixture_meta_text(struct fixture *f, const char *key, const char *text)
{
    struct bytes *span = arena_alloc(f->arena, 1, sizeof *span);
    *span = (struct bytes){(const uint8_t *)text, strlen(text)};
    f->meta[f->model.meta.n++] = (struct meta_entry){key, {.type = META_STRING, .n_items = 1, .data = span}};
}

struct tensor *fixture_tensor(struct fixture *f, const char *name, enum qd_type type, uint32_t file, uint64_t gap,
                              uint32_t n_dims, uint64_t ne0, uint64_t ne1, uint64_t ne2)
{
    struct tensor *t = &f->tensors[f->model.n_tensors++];
    assert_true(f->model.n_tensors <= FIXTURE_TENSORS_MAX && file < FIXTURE_FILES_MAX);
    *t = (struct tensor){.name = arena_text(f->arena, (struct bytes){(const uint8_t *)name, strlen(name)}),
                         .type = type,
                         .n_dims = n_dims,
                         .shape = {ne0, ne1, ne2, 1},
                         .n_elements = ne0 * ne1 * ne2,
                         .file = file};
    t->source_name = t->name;
    t->offset = f->file_bytes[file] + gap;
    t->bytes = qd_type_row_bytes(type, ne0) * ne1 * ne2;
    f->file_bytes[file] = t->offset + t->bytes;
    f->n_files = file + 1 > f->n_files ? file + 1 : f->n_files;
    return t;
}

float fixture_value(const struct tensor *t, uint64_t i)
{
    uint64_t h = i * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du;
    for (const char *c = t->name; *c; c++)
        h = (h ^ (uint8_t)*c) * 0x100000001b3u;
    h ^= h >> 29;
    h *= 0xbf58476d1ce4e5b9u;
    h ^= h >> 32;
    return (float)(int32_t)(uint32_t)h * 0x1p-31f;
}

static void write_tensor(int fd, const struct tensor *t)
{
    enum { AT_ONCE = 1024 };
    const struct ops *ops = ops_for(0);
    const struct qd_type_info *info = qd_type_info(t->type);
    for (uint64_t i = 0; i < t->n_elements; i += AT_ONCE) {
        float x[AT_ONCE];
        uint8_t raw[AT_ONCE * 8];
        size_t n = t->n_elements - i < AT_ONCE ? (size_t)(t->n_elements - i) : AT_ONCE;
        for (size_t k = 0; k < n; k++)
            x[k] = fixture_value(t, i + k);
        ops->quantize[t->type](raw, x, n);
        assert_int_equal(pwrite_whole(fd, raw, n / info->block_elements * info->block_bytes,
                                      t->offset + i / info->block_elements * info->block_bytes),
                         0);
    }
}

void fixture_source(struct fixture *f, int witness)
{
    for (uint32_t file = 0; file < f->n_files; file++) {
        char name[32];
        (void)snprintf(name, sizeof name, "part-%u", file);
        int fd = memfd_create(name, MFD_CLOEXEC);
        assert_int_equal(ftruncate(fd, (off_t)f->file_bytes[file]), 0);
        for (size_t i = 0; i < f->model.n_tensors; i++) {
            if (f->tensors[i].file == file)
                write_tensor(fd, &f->tensors[i]);
        }
        if (file == 0)
            assert_int_equal(source_from_fd(fd, name, &f->source, NULL), 0);
        else
            assert_true(source_add(f->source, fd, "weights", name, NULL) >= 0);
    }
    source_set_witness(f->source, witness);
}

void fixture_poke(struct fixture *f, const struct tensor *t, uint64_t element, float value)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", source_fd(f->source, t->file));
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite_whole(fd, &value, sizeof value, t->offset + element * sizeof value), 0);
    (void)close(fd);
}

void fixture_reopen(struct fixture *f)
{
    int fd = fcntl(source_fd(f->source, 0), F_DUPFD_CLOEXEC, 0);
    assert_int_equal(f->n_files, 1);
    f->source = source_free(f->source);
    assert_int_equal(source_from_fd(fd, "part-0", &f->source, NULL), 0);
    source_set_witness(f->source, 0);
}
