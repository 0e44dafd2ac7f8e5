/* Files for tests of readers: bytes become a real file in a folder of its own, a source, a model. */
#ifndef QUANTD_TESTS_FILES_H
#define QUANTD_TESTS_FILES_H

#include "quant/limits.h"
#include "quant/model.h"

enum { TEST_PATH_MAX = 512 };

/* A new folder below $TMPDIR; exits the test where it cannot be made. */
void folder_make(char dst[TEST_PATH_MAX]);

/* Removes the folder and the files in it. */
void folder_remove(const char *folder);

void file_write(const char *folder, const char *name, struct bytes content);

/* Opens folder/name (name "" is the folder), adds the companions that the probe names, reads. */
int model_open(const char *folder, const char *name, struct model **ret, struct source **ret_source,
               struct qd_error *err);

/* The same for one file's bytes. */
int model_of_bytes(struct bytes content, const char *name, struct model **ret, struct qd_error *err);

#endif
