/*
 * The one reader interface. A reader returns a model and nothing else; the table in
 * quant/format/formats.def lists them in the order they are asked.
 */
#ifndef QUANTD_QUANT_FORMAT_H
#define QUANTD_QUANT_FORMAT_H

#include "quant/model.h"

struct format {
    const char *name;
    /* True when the first bytes of the file are this format's. @head: up to 4096 bytes. */
    bool (*recognise)(struct bytes head, const char *file_name, uint64_t file_bytes);
    int (*probe)(struct source *s, struct probe *p, struct qd_error *err);
    int (*read)(struct source *s, struct model *m, struct qd_error *err);
};

extern const struct format format_gguf;
extern const struct format format_safetensors;

#endif
