/* Numbers with units, as configuration and hardware profiles have them: "512M", "20 GiB", "500ms". */
#ifndef QUANTD_DAEMON_UNITS_H
#define QUANTD_DAEMON_UNITS_H

#include <stdbool.h>
#include <stdint.h>

struct unit {
    const char *name; /* in any case */
    uint64_t factor;
};

/* "<digits>[ ]<unit>", @units ended by a NULL name; false where it is no such thing or too large. */
bool units_parse(const char *text, const struct unit *units, uint64_t *ret);

/* Bytes with B K M G T (powers of 1024), KiB and its like, or nothing. */
bool units_size(const char *text, uint64_t *ret);

/* A plain number of 32 bits. */
bool units_count(const char *text, uint32_t *ret);

#endif
