/* What the fuzz targets of the readers share: sources made of bytes, and what must hold of a model that was read. */
#ifndef QUANTD_TESTS_FUZZ_READERS_H
#define QUANTD_TESTS_FUZZ_READERS_H

#include "quant/model.h"

/* Memory that a header of a fuzz input may cost. */
enum { FUZZ_BUDGET_BYTES = 8 << 20 };

/* A descriptor of a memory file with this content. */
int fd_of_bytes(struct bytes content);

/* NULL where the source refuses it (empty). */
struct source *source_of_bytes(struct bytes content, const char *name);

/* Probes and reads; when both succeed, checks what must hold of the model. */
void read_and_check(struct source *s);

#endif
