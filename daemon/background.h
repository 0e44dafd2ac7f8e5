/* Builds that nobody waits for: for warm roots, and for what was found damaged. */
#ifndef QUANTD_DAEMON_BACKGROUND_H
#define QUANTD_DAEMON_BACKGROUND_H

#include "daemon/daemon.h"
#include "quant/recipe.h"

/* Queues a background job for a model. */
int build_in_background(struct daemon *d, const char *model, const struct recipe *recipe, struct qd_error *err);

#endif
