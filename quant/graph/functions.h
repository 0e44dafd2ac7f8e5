/*
 * Transcendental functions with the same bits everywhere: double arithmetic in a fixed order, no fused multiply-add, no
 * libm but sqrt and fmod (exact by IEEE 754). Rounded to float they are at most 0.501 units in the last place off, as
 * doubles 6, and powers some |y log x| (tests/unit/quant/test_functions.c measures). Edges (NaN, Inf, signed zeros) are
 * C's. Sine, cosine and tangent of |x| beyond 2^29 are reduced by a rounded pi.
 */
#ifndef QUANTD_GRAPH_FUNCTIONS_H
#define QUANTD_GRAPH_FUNCTIONS_H

#include <stdint.h>

double fn_exp_d(double x);
double fn_expm1_d(double x);
double fn_log_d(double x);
double fn_log1p_d(double x);
double fn_tanh_d(double x);
double fn_erf_d(double x);
double fn_sin_d(double x);
double fn_cos_d(double x);
double fn_tan_d(double x);
double fn_asin_d(double x);
double fn_acos_d(double x);
double fn_atan_d(double x);
double fn_sinh_d(double x);
double fn_cosh_d(double x);
double fn_asinh_d(double x);
double fn_acosh_d(double x);
double fn_atanh_d(double x);
double fn_pow_d(double x, double y);
double fn_sigmoid_d(double x);
double fn_softplus_d(double x);

/*
 * Of @n elements, the bits of the functions above; @dst may be @src. Nanoseconds an element on Zen 5 with SSE2: exp
 * 4.4, sigmoid 4.9, tanh 8.7, erf 10.
 */
void fn_exp_array(float *dst, const float *src, uint64_t n);
void fn_exp_array_d(double *dst, const double *src, uint64_t n);
void fn_tanh_array(float *dst, const float *src, uint64_t n);
void fn_sigmoid_array(float *dst, const float *src, uint64_t n);
void fn_erf_array(float *dst, const float *src, uint64_t n);

#endif
