/*
 * Trust: which public keys this process believes for artifacts from one socket: the key published
 * beside it, and trusted.d and revoked.d of /etc/quantd and of the user's configuration. Shared by all clients of
 * that socket; noticed within TRUST_CHECK_MS when a folder changes. Any thread.
 */
#ifndef QUANTD_CLIENT_TRUST_H
#define QUANTD_CLIENT_TRUST_H

#include "artifact/envelope.h"

enum { TRUST_CHECK_MS = 250 }; /* a revoked key must be refused within a second */

struct trust;

int trust_get(const char *socket_path, struct trust **ret, struct qd_error *err);
struct trust *trust_put(struct trust *t);
DEFINE_CLEANUP(trust_put, struct trust *)

/*
 * 0 when @e is signed by a trusted key that is not revoked. @known is the serial of the state of trust that
 * believed the same bytes before (0: none): an unchanged state is not asked twice. @ret_serial: the present one.
 */
int trust_verify(struct trust *t, const struct envelope *e, uint64_t known, uint64_t *ret_serial, struct qd_error *err);

#endif
