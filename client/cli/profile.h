/* Hardware profiles as files: the text is quantd's to understand (`plan` carries it), the file is ours. */
#ifndef QUANTD_CLI_PROFILE_H
#define QUANTD_CLI_PROFILE_H

#include <jansson.h>

#include "kernels/core/error.h"

enum { PROFILE_TEXT_MAX = 4096 /* as much as quantd takes, with NUL */ };

/* The text of the profile at @path, which may be a pipe. @ret_text[PROFILE_TEXT_MAX]. */
int profile_read(const char *path, char *ret_text, struct qd_error *err);

/* Writes a new file from the answer to `hardware`. QD_E_EXISTS where there is one. */
int profile_save(const char *path, const json_t *hardware, struct qd_error *err);

#endif
