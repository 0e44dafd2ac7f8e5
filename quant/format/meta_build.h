/*
 * Building a metadata table in a model's arena, entry by entry, in order. Names and data are copied or borrowed as
 * said.
 */
#ifndef QUANTD_QUANT_META_BUILD_H
#define QUANTD_QUANT_META_BUILD_H

#include "artifact/tables.h"

struct meta_build {
    struct arena *arena; /* borrowed */
    struct meta_table table;
    size_t room;
    bool failed; /* the arena's budget is used up; later entries do nothing */
};

/* "<prefix><key>"; @prefix may be "". */
void meta_put_u32(struct meta_build *b, const char *prefix, const char *key, uint32_t v);
void meta_put_f32(struct meta_build *b, const char *prefix, const char *key, float v);
void meta_put_bool(struct meta_build *b, const char *prefix, const char *key, bool v);
void meta_put_text(struct meta_build *b, const char *prefix, const char *key, const char *v);

/* As it stands, borrowed. */
void meta_put_entry(struct meta_build *b, const struct meta_entry *e);

/* An array; @data (in the arena already) is borrowed. */
void meta_put_array(struct meta_build *b, const char *key, enum meta_type item, uint64_t n, const void *data);

#endif
