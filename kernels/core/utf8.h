/* UTF-8 as RFC 3629 has it: shortest forms, no surrogates, nothing beyond U+10FFFF. */
#ifndef QUANTD_CORE_UTF8_H
#define QUANTD_CORE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* The length of the sequence at @at, of which @n_bytes (at least 1) are there; 0 where there is none. */
size_t utf8_sequence(const uint8_t *at, size_t n_bytes);

#endif
