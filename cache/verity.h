/*
 * fs-verity where the file system has it: the kernel then refuses every write to the file and
 * checks what it reads from the disk. Without it nothing changes but that protection.
 * Source: Documentation/filesystems/fsverity.rst of the Linux kernel.
 */
#ifndef QUANTD_CACHE_VERITY_H
#define QUANTD_CACHE_VERITY_H

#include "artifact/digest.h"

/* Seals the file behind @fd (O_RDONLY, no writer). 1: sealed, 0: not to be had here. */
int verity_enable(int fd, struct qd_error *err);

/* The kernel's measurement of a sealed file. 1: *ret holds it, 0: the file is not sealed. */
int verity_measure(int fd, struct digest *ret, struct qd_error *err);

#endif
