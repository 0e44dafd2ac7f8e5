/* kernels/lanes/vec.h for Advanced SIMD: 4 lanes. */
#ifndef QUANTD_KERNELS_NEON_VEC_H
#define QUANTD_KERNELS_NEON_VEC_H

#include <arm_neon.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 4 };
#define VARIANT(op) op##__neon

/* clang-format off: a table */
typedef float32x4_t vf;
typedef int32x4_t vi;
typedef uint8x16_t vb;
typedef uint32x4_t vm; /* all bits of a lane, or none */

static inline vf vf_load(const void *p)
{
    return vreinterpretq_f32_u8(vld1q_u8(p));
}
static inline void vf_store(void *p, vf a)
{
    vst1q_u8(p, vreinterpretq_u8_f32(a));
}
static inline vf vf_set1(float a)
{
    return vdupq_n_f32(a);
}
static inline vf vf_set1_f16(uint16_t a)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(a)));
}
static inline vf vf_add(vf a, vf b)
{
    return vaddq_f32(a, b);
}
static inline vf vf_sub(vf a, vf b)
{
    return vsubq_f32(a, b);
}
static inline vf vf_mul(vf a, vf b)
{
    return vmulq_f32(a, b);
}
static inline vf vf_div(vf a, vf b)
{
    return vdivq_f32(a, b);
}
static inline vf vf_sqrt(vf a)
{
    return vsqrtq_f32(a);
}
static inline vf vf_abs(vf a)
{
    return vabsq_f32(a);
}
static inline vf vf_neg(vf a)
{
    return vnegq_f32(a);
}
static inline vm vf_lt(vf a, vf b)
{
    return vcltq_f32(a, b);
}
static inline vm vf_gt(vf a, vf b)
{
    return vcgtq_f32(a, b);
}
static inline vm vf_le(vf a, vf b)
{
    return vcleq_f32(a, b);
}
static inline vm vf_ge(vf a, vf b)
{
    return vcgeq_f32(a, b);
}
static inline vm vf_eq(vf a, vf b)
{
    return vceqq_f32(a, b);
}
static inline vm vf_ne(vf a, vf b)
{
    return vmvnq_u32(vceqq_f32(a, b));
}
static inline vf vf_select(vm m, vf a, vf b)
{
    return vbslq_f32(m, a, b);
}
static inline vf vf_min(vf a, vf b)
{
    return vbslq_f32(vcltq_f32(a, b), a, b);
} /* FMIN orders zeros and NaN otherwise */
static inline vf vf_max(vf a, vf b)
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
static inline vm vm_and(vm a, vm b)
{
    return vandq_u32(a, b);
}
static inline vm vm_or(vm a, vm b)
{
    return vorrq_u32(a, b);
}
static inline vm vm_not(vm a)
{
    return vmvnq_u32(a);
}
static inline bool vm_any(vm a)
{
    return vmaxvq_u32(a) != 0;
}
static inline bool vm_all(vm a)
{
    return vminvq_u32(a) != 0;
}
static inline unsigned vm_bits(vm a)
{
    const uint32x4_t place = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(a, place));
}

static inline vm vm_of_bits(unsigned bits)
{
    const uint32x4_t place = {1, 2, 4, 8};
    return vtstq_u32(vdupq_n_u32(bits), place);
}
static inline vf vf_largest_of_each(const vf v[LANES])
{
    return vpmaxq_f32(vpmaxq_f32(v[0], v[1]), vpmaxq_f32(v[2], v[3]));
}
static inline float vf_largest(vf a)
{
    return vmaxvq_f32(a);
}
static inline void vf_store_f16(void *p, vf a)
{
    vst1_u8(p, vreinterpret_u8_f16(vcvt_f16_f32(a)));
}
static inline vf vf_load_f16(const void *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}

static inline vi vi_set1(int a)
{
    return vdupq_n_s32(a);
}
static inline vi vi_of_vf(vf a)
{
    return vcvtnq_s32_f32(a);
}
static inline vi vi_trunc(vf a)
{
    return vcvtq_s32_f32(a);
}
static inline vf vf_of_vi(vi a)
{
    return vcvtq_f32_s32(a);
}
static inline vi vi_add(vi a, vi b)
{
    return vaddq_s32(a, b);
}
static inline vi vi_min(vi a, vi b)
{
    return vminq_s32(a, b);
}
static inline vi vi_max(vi a, vi b)
{
    return vmaxq_s32(a, b);
}
static inline vi vi_bits(vf a)
{
    return vreinterpretq_s32_f32(a);
}
static inline vf vf_bits(vi a)
{
    return vreinterpretq_f32_s32(a);
}
static inline vi vi_load(const void *p)
{
    return vreinterpretq_s32_u8(vld1q_u8(p));
}
static inline void vi_store(void *p, vi a)
{
    vst1q_u8(p, vreinterpretq_u8_s32(a));
}
static inline void vi_store_bytes(void *p, vi a)
{
    const uint8x16_t low = {0, 4, 8, 12};
    uint32_t b = vgetq_lane_u32(vreinterpretq_u32_u8(vqtbl1q_u8(vreinterpretq_u8_s32(a), low)), 0);
    memcpy(p, &b, sizeof b);
}
static inline vi vi_load_u8(const void *p)
{
    uint32_t b;
    memcpy(&b, p, sizeof b);
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(b)))));
}
static inline vi vi_load_i8(const void *p)
{
    uint32_t b;
    memcpy(&b, p, sizeof b);
    return vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(b))));
}
static inline vi vi_and(vi a, vi b)
{
    return vandq_s32(a, b);
}
static inline vi vi_or(vi a, vi b)
{
    return vorrq_s32(a, b);
}
static inline vi vi_xor(vi a, vi b)
{
    return veorq_s32(a, b);
}
static inline vi vi_shift_left(vi a, int n)
{
    return vshlq_s32(a, vdupq_n_s32(n));
}
static inline vi vi_shift_right(vi a, int n)
{
    return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(-n)));
}
/* @a, with the bits of @b flipped where @m */
static inline vf vf_flip(vm m, vf a, vf b)
{
    return vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(a), vandq_u32(m, vreinterpretq_u32_f32(b))));
}
/* a + b where m, else a */
static inline vi vi_add_where(vm m, vi a, vi b)
{
    return vaddq_s32(a, vandq_s32(vreinterpretq_s32_u32(m), b));
}
/* table[a] for 16 floats; only the low 4 bits of an index count */
static inline vf vf_look_up_16(const float table[16], vi a)
{
    const uint8_t *t = (const uint8_t *)table;
    const uint8x16x4_t bytes = {{vld1q_u8(t), vld1q_u8(t + 16), vld1q_u8(t + 32), vld1q_u8(t + 48)}};
    const uint32x4_t first = vmulq_n_u32(vandq_u32(vreinterpretq_u32_s32(a), vdupq_n_u32(15)), 0x04040404);
    return vreinterpretq_f32_u8(vqtbl4q_u8(bytes, vreinterpretq_u8_u32(vaddq_u32(first, vdupq_n_u32(0x03020100)))));
}
static inline vb vb_load(const void *p)
{
    return vld1q_u8(p);
}
static inline vb vb_set1(int a)
{
    return vdupq_n_u8((uint8_t)a);
}
static inline vb vb_of_u64(uint64_t low, uint64_t high)
{
    return vcombine_u8(vcreate_u8(low), vcreate_u8(high));
}
static inline vb vb_and(vb a, vb b)
{
    return vandq_u8(a, b);
}
static inline vb vb_or(vb a, vb b)
{
    return vorrq_u8(a, b);
}
static inline vb vb_xor(vb a, vb b)
{
    return veorq_u8(a, b);
}
static inline vb vb_add(vb a, vb b)
{
    return vaddq_u8(a, b);
}
static inline vb vb_sub(vb a, vb b)
{
    return vsubq_u8(a, b);
}
static inline vb vb_ge(vb a, vb b)
{
    return vcgeq_u8(a, b);
}
static inline vb vb_field(vb a, int shift, int mask)
{
    return vandq_u8(vshlq_u8(a, vdupq_n_s8((int8_t)-shift)), vdupq_n_u8((uint8_t)mask));
}
static inline vb vb_look_up(vb table, vb index)
{
    return vqtbl1q_u8(table, index);
}
static inline vb vb_of_bits(uint32_t bits)
{
    const uint8x8_t bit = vcreate_u8(0x8040201008040201);
    return vcombine_u8(vtst_u8(vdup_n_u8((uint8_t)bits), bit), vtst_u8(vdup_n_u8((uint8_t)(bits >> 8)), bit));
}
static inline void vf_of_bytes(vb a, vf ret[16 / LANES])
{
    const int8x16_t s = vreinterpretq_s8_u8(a);
    const int16x8_t low = vmovl_s8(vget_low_s8(s)), high = vmovl_high_s8(s);
    ret[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(low)));
    ret[1] = vcvtq_f32_s32(vmovl_high_s16(low));
    ret[2] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(high)));
    ret[3] = vcvtq_f32_s32(vmovl_high_s16(high));
}
/* clang-format on */

/* 4 vectors become their 4 columns. */
static inline void transpose(vf v[LANES])
{
    float32x4x2_t a = vtrnq_f32(v[0], v[1]), b = vtrnq_f32(v[2], v[3]);
    v[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    v[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    v[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    v[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

#endif
