/* The scalar decoders' row: their function in kernels.def, by decode_<type>() for one block. */
#ifndef QUANTD_KERNELS_SCALAR_DECODE_H
#define QUANTD_KERNELS_SCALAR_DECODE_H

#include "kernels/layout/decode.h"
#include "kernels/scalar/half.h"

#define DECODER_SCALAR(type, n) DECODER(dequantize_##type##__scalar, type, n)

#endif
