/*
 * CPUID leaves 1, 7.0 and 7.1, XCR0 by XGETBV for the register state that the kernel saves, and
 * the kernel's permission for AMX tiles. Bit positions: Intel SDM volume 2A, CPUID; volume 1,
 * chapter 13 (XCR0); Linux Documentation/arch/x86/xstate.rst (ARCH_REQ_XCOMP_PERM).
 */
#include "kernels/cpu_detect.h"

#include <cpuid.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/cpu.h"

const enum cpu_architecture cpu_architecture_here = CPU_X86_64;

enum { REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 }; /* asm/prctl.h of Linux 5.16 */

enum { EAX, EBX, ECX, EDX, N_REGISTERS };
enum { LEAF_1, LEAF_7_0, LEAF_7_1, N_LEAVES };
enum state { STATE_NONE, STATE_YMM, STATE_ZMM, STATE_TILE, N_STATES };

/* A feature is there when its bits are set in the leaf and its registers are saved. */
static const struct rule {
    uint64_t feature;
    uint8_t leaf, reg;
    uint32_t bits;
    enum state state;
} rules[] = {
    {CPU_FMA, LEAF_1, ECX, 1u << 12, STATE_YMM},
    {CPU_F16C, LEAF_1, ECX, 1u << 29, STATE_YMM},
    {CPU_AVX2, LEAF_7_0, EBX, 1u << 5, STATE_YMM},
    {CPU_AVX512, LEAF_7_0, EBX,
     1u << 16 /* F */ | 1u << 17 /* DQ */ | 1u << 28 /* CD */ | 1u << 30 /* BW */ | 1u << 31 /* VL */, STATE_ZMM},
    {CPU_AVX512VBMI, LEAF_7_0, ECX, 1u << 1, STATE_ZMM},
    {CPU_AVX512VNNI, LEAF_7_0, ECX, 1u << 11, STATE_ZMM},
    {CPU_AMX_INT8, LEAF_7_0, EDX, 1u << 24 /* TILE */ | 1u << 25 /* INT8 */, STATE_TILE},
    {CPU_AVXVNNI, LEAF_7_1, EAX, 1u << 4, STATE_YMM},
    {CPU_AVX512BF16, LEAF_7_1, EAX, 1u << 5, STATE_ZMM},
};

static uint64_t xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static bool tile_permission(void)
{
    return syscall(SYS_arch_prctl, REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

/* Which register files survive a task switch. */
static void states_read(uint32_t leaf_1_ecx, bool saved[N_STATES])
{
    enum { YMM = 0x6, ZMM = 0xe6, TILE = 0x60000 };
    const uint32_t osxsave_and_avx = 1u << 27 | 1u << 28;
    uint64_t x = (leaf_1_ecx & osxsave_and_avx) == osxsave_and_avx ? xcr0() : 0;
    saved[STATE_NONE] = true;
    saved[STATE_YMM] = (x & YMM) == YMM;
    saved[STATE_ZMM] = (x & ZMM) == ZMM;
    saved[STATE_TILE] = (x & TILE) == TILE;
}

static void leaves_read(uint32_t leaves[N_LEAVES][N_REGISTERS])
{
    static const struct {
        uint32_t leaf, subleaf;
    } ids[N_LEAVES] = {{1, 0}, {7, 0}, {7, 1}};
    memset(leaves, 0, sizeof(uint32_t[N_LEAVES][N_REGISTERS]));
    for (int i = 0; i < N_LEAVES; i++) {
        uint32_t *r = leaves[i];
        bool has_subleaf = ids[i].subleaf == 0 || leaves[LEAF_7_0][EAX] >= ids[i].subleaf;
        if (has_subleaf)
            (void)__get_cpuid_count(ids[i].leaf, ids[i].subleaf, &r[EAX], &r[EBX], &r[ECX],
                                    &r[EDX]); /* absent leaf: zeros */
    }
}

uint64_t cpu_detect(void)
{
    uint32_t leaves[N_LEAVES][N_REGISTERS];
    bool saved[N_STATES];
    leaves_read(leaves);
    states_read(leaves[LEAF_1][ECX], saved);

    uint64_t features = 0;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        const struct rule *r = &rules[i];
        if (saved[r->state] && (leaves[r->leaf][r->reg] & r->bits) == r->bits)
            features |= r->feature;
    }
    if (features & CPU_AMX_INT8 && !tile_permission())
        features &= ~(uint64_t)CPU_AMX_INT8;
    return features;
}

void cpu_detect_name(char *dst, size_t n_bytes)
{
    uint32_t brand[3 * N_REGISTERS + 1] = {0}; /* leaves 0x80000002..4: 48 characters */
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t *r = &brand[i * N_REGISTERS];
        (void)__get_cpuid(0x80000002u + i, &r[EAX], &r[EBX], &r[ECX], &r[EDX]); /* absent leaf: zeros */
    }
    char text[sizeof brand];
    memcpy(text, brand, sizeof text);
    size_t n = strlen(text);
    while (n && text[n - 1] == ' ')
        text[--n] = '\0';
    (void)snprintf(dst, n_bytes, "%s", text + strspn(text, " ")); /* a name may be cut */
}
