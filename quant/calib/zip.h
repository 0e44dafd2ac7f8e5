/*
 * A member of a ZIP archive, as NumPy writes them (.npz): stored or deflated. Source: PKWARE APPNOTE 6.3.10. Only the
 * central directory is believed; what it says of a member is checked against the file and, at the end, by CRC-32.
 * Refused: encryption, other methods, several disks, sizes of 4 GiB and more (ZIP64), a name that is there twice.
 */
#ifndef QUANTD_CALIB_ZIP_H
#define QUANTD_CALIB_ZIP_H

#include "quant/source.h"

struct zip_reader;

/*
 * Member @name of the first file of @s, which outlives the reader. Errors are a reason alone; the caller names the
 * file. No such member: QD_E_INVALID. Built without zlib: always QD_E_UNSUPPORTED.
 */
int zip_open(struct source *s, const char *name, struct zip_reader **ret, struct qd_error *err);
struct zip_reader *zip_close(struct zip_reader *z);
DEFINE_CLEANUP(zip_close, struct zip_reader *)

uint64_t zip_bytes(const struct zip_reader *z); /* of the content, as the archive says */

/* The next @n bytes of the content, in constant memory. More than the member has: QD_E_CORRUPT. */
int zip_read(void *reader, void *dst, size_t n, struct qd_error *err);

#endif
