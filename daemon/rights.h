/*
 * Rights: who may open what. A peer may open a model whose files its own credentials, as the kernel
 * recorded them at connect, could read: mode bits and POSIX ACLs of the files and search permission
 * of every folder above them. The configuration's roots can grant more; root and the daemon's own
 * uid may all. Judged anew at each request, so that a chmod counts at once. A few stats; loop thread.
 */
#ifndef QUANTD_DAEMON_RIGHTS_H
#define QUANTD_DAEMON_RIGHTS_H

#include <stdbool.h>
#include <sys/stat.h>

#include "daemon/catalog.h"
#include "daemon/config.h"
#include "ipc/conn.h"

/* Root, the daemon's own uid, and the configuration's admins. */
bool rights_is_admin(const struct config *config, const struct credentials *who);

bool rights_may_open(const struct config *config, const struct credentials *who, const struct catalog_model *m);

/* Whether @who could open the file at @path for reading. A path that cannot be resolved: false. */
bool rights_may_read(const struct credentials *who, const char *path);

/*
 * The kernel's rule for one file: @want of 4 (read) 1 (search). @acl: value of system.posix_acl_access, @acl_bytes 0:
 * none. Pure.
 */
bool rights_allow(const struct credentials *who, const struct stat *st, const void *acl, size_t acl_bytes,
                  unsigned want);

#endif
