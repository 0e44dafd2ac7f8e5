/*
 * Transcendental functions with the same bits everywhere: double arithmetic in a fixed order, no fused multiply-add, no
 * libm but sqrt (exact by IEEE 754). The float forms compute in double and round once: at most 0.501 units in the last
 * place off (tests/unit/quant/test_functions.c measures). The double forms are right to some 4 units. Sine, cosine and
 * tangent of |x| beyond 2^30 are reduced by a rounded pi.
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

/* e^x of @n floats; @dst may be @src. */
void fn_exp_array(float *dst, const float *src, uint64_t n);
void fn_tanh_array(float *dst, const float *src, uint64_t n);
void fn_sigmoid_array(float *dst, const float *src, uint64_t n);

#endif
