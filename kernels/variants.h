/*
 * Declarations of every kernel in kernels.def, and the slot of struct ops that each operation
 * fills. Included by the ISA folders (their functions then have prototypes of the right type) and
 * by dispatch.c; nobody else calls a variant by name.
 */
#ifndef QUANTD_KERNELS_VARIANTS_H
#define QUANTD_KERNELS_VARIANTS_H

#include "kernels/kernels.h"

typedef quantize_fn type_quantize_f32, type_quantize_f16, type_quantize_bf16, type_quantize_q8_0, type_quantize_q4_0;
typedef dequantize_fn type_dequantize_f32, type_dequantize_f16, type_dequantize_bf16, type_dequantize_q8_0,
    type_dequantize_q4_0;
typedef measure_fn type_measure;
typedef find_nonfinite_fn type_find_nonfinite;

#define SLOT_quantize_f32    quantize[QD_TYPE_F32]
#define SLOT_quantize_f16    quantize[QD_TYPE_F16]
#define SLOT_quantize_bf16   quantize[QD_TYPE_BF16]
#define SLOT_quantize_q8_0   quantize[QD_TYPE_Q8_0]
#define SLOT_quantize_q4_0   quantize[QD_TYPE_Q4_0]
#define SLOT_dequantize_f32  dequantize[QD_TYPE_F32]
#define SLOT_dequantize_f16  dequantize[QD_TYPE_F16]
#define SLOT_dequantize_bf16 dequantize[QD_TYPE_BF16]
#define SLOT_dequantize_q8_0 dequantize[QD_TYPE_Q8_0]
#define SLOT_dequantize_q4_0 dequantize[QD_TYPE_Q4_0]
#define SLOT_measure         measure
#define SLOT_find_nonfinite  find_nonfinite

#define KERNEL(op, variant, needs) type_##op op##__##variant;
#include "kernels/kernels.def"
#undef KERNEL

#endif
