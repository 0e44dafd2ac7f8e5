/*
 * The bad-file corpus, made by rule: each file has a name, what is wrong with it, and the error
 * that it must cause. Nothing is stored; tests, fuzz seeds and the comparison with llama.cpp's
 * reader all take the files from here. A parser change adds a line.
 */
#ifndef QUANTD_TESTS_BAD_FILES_H
#define QUANTD_TESTS_BAD_FILES_H

#include "kernels/core/bytes.h"

struct bad_file {
    char name[96];         /* the rule and what it was applied to */
    const char *file_name; /* what the file is called on disk */
    int code;              /* enum qd_error_code */
    const char *says;      /* a part of the message */
    struct bytes content;
};

typedef void bad_file_use(const struct bad_file *f, void *data);

/* Good files, from which the bad ones are made: one byte less, or one field changed. */
void good_gguf(struct buffer *dst);
void good_safetensors(struct buffer *dst);
void good_onnx(struct buffer *dst);
void good_imatrix_gguf(struct buffer *dst);
void good_imatrix_dat(struct buffer *dst);

void bad_gguf_files(bad_file_use *use, void *data);
void bad_safetensors_files(bad_file_use *use, void *data);
void bad_foreign_files(bad_file_use *use, void *data);

/* ONNX models, which model_read() does not read: no part of bad_files(). */
void bad_onnx_files(bad_file_use *use, void *data);

/* Importance matrices: no models, so no part of bad_files(). */
void bad_imatrix_files(bad_file_use *use, void *data);

static inline void bad_files(bad_file_use *use, void *data)
{
    bad_gguf_files(use, data);
    bad_safetensors_files(use, data);
    bad_foreign_files(use, data);
}

#endif
