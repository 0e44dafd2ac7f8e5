/*
 * The one reader interface. A reader returns a model and nothing else; the table in
 * quant/format/formats.def lists them in the order they are asked.
 *
 * A reader gets a model whose arena exists and fills the rest; it reads through a stream
 * (quant/format/stream.h), so that every error says file and byte. It need not check ranges of
 * tensors, sizes or double names: model_check does, once, for all formats.
 */
#ifndef QUANTD_QUANT_FORMAT_H
#define QUANTD_QUANT_FORMAT_H

#include "quant/model.h"

/* Content beats name: a pickle called model.safetensors is a pickle. */
enum recognised { RECOGNISED_NOT, RECOGNISED_BY_NAME, RECOGNISED_BY_CONTENT };

struct format {
    const char *name;
    /* @head: up to FORMAT_HEAD_BYTES first bytes. */
    enum recognised (*recognise)(struct bytes head, const char *file_name, uint64_t file_bytes);
    /* Fills @p->role and the files that belong to the model; @p->arena exists. */
    int (*probe)(struct source *s, struct probe *p, struct qd_error *err);
    int (*read)(struct source *s, struct model *m, struct qd_error *err);
};

enum { FORMAT_HEAD_BYTES = 4096 };

#define FORMAT(name) extern const struct format format_##name;
#include "quant/format/formats.def"
#undef FORMAT

#endif
