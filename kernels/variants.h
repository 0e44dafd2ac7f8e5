/*
 * Declarations of every kernel in kernels.def. Included by the ISA folders (their functions then have prototypes of the
 * right type) and by dispatch.c; nobody else calls a variant by name.
 */
#ifndef QUANTD_KERNELS_VARIANTS_H
#define QUANTD_KERNELS_VARIANTS_H

#include "kernels/kernels.h"

#define KERNEL(op, variant, needs, kind, ...) kind##_fn op##__##variant;
#include "kernels/kernels.def"
#include "kernels/packed.def"
#undef KERNEL

#endif
