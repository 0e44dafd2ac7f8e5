/*
 * A source and a model made in memory and in unnamed files, for tests of plan and run: tensors are
 * laid into files as the test says, without a container around them.
 */
#ifndef QUANTD_TESTS_QUANT_FIXTURE_H
#define QUANTD_TESTS_QUANT_FIXTURE_H

#include "quant/model.h"

enum { FIXTURE_TENSORS_MAX = 512, FIXTURE_FILES_MAX = 4 };

/* Under a sanitizer everything takes ten times as long: fewer schemes, numbers of threads and deaths are tried. */
#if defined __SANITIZE_THREAD__ || defined __SANITIZE_ADDRESS__
enum { SLOW = 1 };
#else
enum { SLOW = 0 };
#endif

struct fixture {
    struct arena *arena; /* owned */
    struct tensor tensors[FIXTURE_TENSORS_MAX];
    struct meta_entry meta[32];
    struct model model;
    struct source *source; /* owned; NULL until fixture_source() */
    uint64_t file_bytes[FIXTURE_FILES_MAX];
    size_t n_files;
};

/*
 * Before the tests of a group are run: under TSan those that have "thread" in their names; it finds nothing in the
 * others, which gcc's build and ASan's run.
 */
void fixture_only_threads_under_tsan(void);

void fixture_init(struct fixture *f, const char *format, const char *architecture);
void fixture_clear(struct fixture *f);

void fixture_meta_u32(struct fixture *f, const char *key, uint32_t v);
void fixture_meta_text(struct fixture *f, const char *key, const char *text);

/* Adds a tensor in file @file, @gap bytes behind what that file holds so far. */
struct tensor *fixture_tensor(struct fixture *f, const char *name, enum qd_type type, uint32_t file, uint64_t gap,
                              uint32_t n_dims, uint64_t ne0, uint64_t ne1, uint64_t ne2);

/* Writes the files, every tensor filled by a generator seeded by its name, and opens them as a source. */
void fixture_source(struct fixture *f, int witness);

/* The value that the generator gave element @i of @t, before rounding to its type. */
float fixture_value(const struct tensor *t, uint64_t i);

/* Overwrites one element (f32 tensors) in the file. */
void fixture_poke(struct fixture *f, const struct tensor *t, uint64_t element, float value);

/* Opens a source of one file anew, so that what was poked is what it holds from the start. */
void fixture_reopen(struct fixture *f);

#endif
