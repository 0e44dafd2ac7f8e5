/* One GGUF file by itself, for those who keep other things in it than models: importance matrices. */
#ifndef QUANTD_QUANT_GGUF_H
#define QUANTD_QUANT_GGUF_H

#include "quant/model.h"

/*
 * Reads the header of file @file of @s into @m, whose arena exists: metadata as they are, tensors with their places.
 * The caller has it checked (model_check).
 */
int gguf_read_header(struct source *s, size_t file, struct model *m, struct qd_error *err);

#endif
