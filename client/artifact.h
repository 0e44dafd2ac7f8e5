/* Artifact: a handle of what shared.h holds, and how careful its opener wants to be. */
#ifndef QUANTD_CLIENT_ARTIFACT_H
#define QUANTD_CLIENT_ARTIFACT_H

#include "client/shared.h"

struct qd_artifact {
    struct shared *shared; /* owned reference */
    enum qd_verify verify;
    char *why; /* owned; NULL: nothing was said */
};

/* Takes the reference out of *@s; checks what @verify asks for. @why: the daemon's words, may be NULL. */
int artifact_new(struct shared **s, enum qd_verify verify, const char *why, struct qd_artifact **ret,
                 struct qd_error *err);

static inline void qd_artifact_free_cleanup(struct qd_artifact **a)
{
    qd_artifact_free(*a);
}

#endif
