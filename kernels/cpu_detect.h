/* What each architecture's file gives to cpu.c. */
#ifndef QUANTD_CPU_DETECT_H
#define QUANTD_CPU_DETECT_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu.h"

/* Feature bits of this machine: what the CPU has and the kernel saves at a task switch. */
uint64_t cpu_detect(void);

/* A name for people into @dst, NUL-terminated; "" where unknown. */
void cpu_detect_name(char *dst, size_t n_bytes);

#endif
