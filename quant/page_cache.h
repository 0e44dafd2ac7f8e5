/*
 * What a run does to the page cache: a model is read once, and mostly larger than what others keep there. All of it is
 * advice that may be ignored; nothing here fails. Linux's preadv2(RWF_NOWAIT) tells what is cached without reading it.
 */
#ifndef QUANTD_QUANT_PAGE_CACHE_H
#define QUANTD_QUANT_PAGE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

/* Is the beginning, the middle and the end of [begin, end) cached? True also where the file system cannot tell. */
bool page_cache_has(int fd, uint64_t begin, uint64_t end);

/* Read ahead. */
void page_cache_fetch(int fd, uint64_t begin, uint64_t end);

/* Clean pages of the range are dropped. */
void page_cache_drop(int fd, uint64_t begin, uint64_t end);

/* Dirty pages of the range begin to be written, so that the sync at the end finds little to do. */
void page_cache_write(int fd, uint64_t begin, uint64_t end);

#endif
