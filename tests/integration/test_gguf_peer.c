/*
 * llama.cpp's own GGUF reader as a second opinion: what we accept, it accepts; so whatever it
 * refuses, we refuse. Its library is loaded at run time from $QUANTD_PEERS; exit status 77 where
 * it is absent. Inputs: the bad-file corpus, and a good file cut and changed at every byte.
 */
#include <dlfcn.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>

#include "tests/data/bad/bad_files.h"
#include "tests/fuzz/readers.h"

/* ggml:include/gguf.h */
struct gguf_init_params {
    bool no_alloc;
    void **ctx;
};

struct peer {
    void *(*gguf_init_from_file)(const char *name, struct gguf_init_params params);
    void (*gguf_free)(void *gguf);
    void (*ggml_log_set)(void (*log)(int level, const char *text, void *data), void *data);
};

struct counts {
    const struct peer *peer;
    size_t n, both_accept, both_refuse, stricter, looser;
};

static void be_silent(int level, const char *text, void *data)
{
    (void)level;
    (void)text;
    (void)data;
}

static bool load(struct peer *p)
{
    const char *folder = getenv("QUANTD_PEERS");
    char pattern[4096];
    (void)snprintf(pattern, sizeof pattern, "%s/libggml-base.so*",
                   folder ? folder : PEER_FOLDER); /* cut: nothing matches */
    glob_t found;
    if (glob(pattern, 0, NULL, &found) != 0)
        return false;
    void *lib = dlopen(found.gl_pathv[0], RTLD_NOW | RTLD_LOCAL);
    globfree(&found);
    if (!lib)
        return false;
    *(void **)&p->gguf_init_from_file = dlsym(lib, "gguf_init_from_file");
    *(void **)&p->gguf_free = dlsym(lib, "gguf_free");
    *(void **)&p->ggml_log_set = dlsym(lib, "ggml_log_set");
    return p->gguf_init_from_file && p->gguf_free && p->ggml_log_set;
}

static bool peer_accepts(const struct peer *p, struct bytes content)
{
    CLEANUP(fd_close) int fd = fd_of_bytes(content);
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd); /* fits */
    void *gguf = p->gguf_init_from_file(path, (struct gguf_init_params){.no_alloc = true});
    if (gguf)
        p->gguf_free(gguf);
    return gguf != NULL;
}

static bool we_accept(struct bytes content, struct qd_error *err)
{
    CLEANUP(source_free) struct source *s = source_of_bytes(content, "x.gguf");
    CLEANUP(model_free) struct model *m = NULL;
    return s && model_read(s, 8 << 20, &m, err) == 0;
}

static void compare(const char *name, struct bytes content, struct counts *c)
{
    struct qd_error err = {0};
    bool ours = we_accept(content, &err), theirs = peer_accepts(c->peer, content);
    c->n++;
    c->both_accept += ours && theirs;
    c->both_refuse += !ours && !theirs;
    c->stricter += !ours && theirs;
    c->looser += ours && !theirs;
    if (ours && !theirs)
        printf("we accept, the peer refuses: %s\n", name);
    if (!ours && theirs && getenv("QUANTD_PEER_VERBOSE"))
        printf("only we refuse: %s: %s\n", name, err.message);
}

static void compare_bad(const struct bad_file *f, void *data)
{
    compare(f->name, f->content, data);
}

static void compare_changed(struct counts *c)
{
    static const uint8_t edits[] = {0x00, 0x01, 0x02, 0x08, 0x1f, 0x20, 0x3f, 0x40, 0x7f, 0x80, 0xfe, 0xff};
    CLEANUP(buffer_clear) struct buffer good = {0};
    char name[64];
    good_gguf(&good);
    compare("good", buffer_span(&good), c);
    for (size_t i = 0; i < good.n; i++) {
        (void)snprintf(name, sizeof name, "cut to %zu", i); /* fits */
        compare(name, (struct bytes){good.data, i}, c);
        uint8_t was = good.data[i];
        for (size_t k = 0; k < sizeof edits; k++) {
            good.data[i] = edits[k];
            (void)snprintf(name, sizeof name, "byte %zu is %02x", i, edits[k]); /* fits */
            compare(name, buffer_span(&good), c);
        }
        good.data[i] = was;
    }
}

int main(void)
{
    struct peer p;
    if (!load(&p)) {
        printf("left out: libggml-base is not in $QUANTD_PEERS (./dev peers fetches it)\n");
        return 77;
    }
    p.ggml_log_set(be_silent, NULL);
    struct counts c = {.peer = &p};
    bad_gguf_files(compare_bad, &c);
    compare_changed(&c);
    printf("%zu files: both accept %zu, both refuse %zu, only we refuse %zu, only the peer refuses %zu\n", c.n,
           c.both_accept, c.both_refuse, c.stricter, c.looser);
    return c.looser == 0 && c.both_accept > 0 ? 0 : 1;
}
