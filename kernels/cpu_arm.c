/*
 * AT_HWCAP and AT_HWCAP2 say what the CPU has and the kernel lets us use. Bit positions: Linux
 * arch/arm64/include/uapi/asm/hwcap.h. The name comes from MIDR_EL1, which the kernel emulates
 * for user space where HWCAP_CPUID is set; part numbers are those of Arm's reference manuals.
 */
#include "kernels/cpu_detect.h"

#include <stdio.h>
#include <sys/auxv.h>

#include "kernels/cpu.h"

const enum cpu_architecture cpu_architecture_here = CPU_AARCH64;

static const struct rule {
    uint64_t feature;
    unsigned long capability; /* AT_HWCAP or AT_HWCAP2 */
    uint64_t bits;
} rules[] = {
    {CPU_NEON, AT_HWCAP, 1u << 1},     {CPU_FP16, AT_HWCAP, 1u << 9 /* FPHP */ | 1u << 10 /* ASIMDHP */},
    {CPU_DOTPROD, AT_HWCAP, 1u << 20}, {CPU_SVE, AT_HWCAP, 1u << 22},
    {CPU_I8MM, AT_HWCAP2, 1u << 13},   {CPU_BF16, AT_HWCAP2, 1u << 14},
};

uint64_t cpu_detect(void)
{
    uint64_t features = 0;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
        if ((getauxval(rules[i].capability) & rules[i].bits) == rules[i].bits)
            features |= rules[i].feature;
    return features;
}

static const struct {
    uint32_t implementer, part;
    const char *name;
} parts[] = {
    {0x41, 0xd03, "Arm Cortex-A53"},  {0x41, 0xd05, "Arm Cortex-A55"},  {0x41, 0xd07, "Arm Cortex-A57"},
    {0x41, 0xd08, "Arm Cortex-A72"},  {0x41, 0xd0b, "Arm Cortex-A76"},  {0x41, 0xd0c, "Arm Neoverse N1"},
    {0x41, 0xd40, "Arm Neoverse V1"}, {0x41, 0xd49, "Arm Neoverse N2"}, {0x41, 0xd4f, "Arm Neoverse V2"},
    {0xc0, 0xac3, "Ampere-1"},
};

void cpu_detect_name(char *dst, size_t n_bytes)
{
    enum { HWCAP_BIT_CPUID = 11 };
    uint64_t midr = 0;
    if (getauxval(AT_HWCAP) >> HWCAP_BIT_CPUID & 1)
        __asm__("mrs %0, MIDR_EL1" : "=r"(midr));
    const char *name = "";
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (parts[i].implementer == (midr >> 24 & 0xff) && parts[i].part == (midr >> 4 & 0xfff))
            name = parts[i].name;
    (void)snprintf(dst, n_bytes, "%s", name); /* a name may be cut */
}
