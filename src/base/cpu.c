/* cpu.c - asks the processor and the kernel (of the system) what may be used.
 *
 * It only answers; choosing a table of kernels, and letting the caller force one, is done above. */
#include "base/cpu.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <stdint.h>
#include <sys/syscall.h>

/* Which register sets the operating system saves on a switch: XCR0. */
static uint64_t saved_registers(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return ((uint64_t)high << 32) | low;
}

static bool has_bits(uint64_t value, uint64_t bits)
{
    return (value & bits) == bits;
}

cv_cpu_level cv_cpu_best(void)
{
    enum { XSAVE_AVX = 0x06, XSAVE_AVX512 = 0xE6 };
    const unsigned leaf1_ecx = bit_FMA | bit_OSXSAVE | bit_AVX | bit_F16C;
    const unsigned avx512 = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | (unsigned)bit_AVX512VL;
    unsigned a, b, c, d;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !has_bits(c, leaf1_ecx)) return CV_CPU_REF;
    uint64_t saved = saved_registers();
    if (!has_bits(saved, XSAVE_AVX)) return CV_CPU_REF;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has_bits(b, bit_AVX2)) return CV_CPU_REF;
    if (!has_bits(b, avx512) || !has_bits(saved, XSAVE_AVX512)) return CV_CPU_AVX2;
    return CV_CPU_AVX512;
}

bool cv_cpu_has_bf16(void)
{
    const unsigned bf16 = 1u << 5; /* AVX512_BF16 */
    unsigned a, b, c, d;
    return cv_cpu_best() == CV_CPU_AVX512 && __get_cpuid_count(7, 1, &a, &b, &c, &d) &&
           has_bits(a, bf16);
}

/* Requests of arch_prctl, and the number of the tiles among the register sets; older system headers
 * lack them. */
enum { GET_SUPPORTED = 0x1021, REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };

static bool has_amx(void)
{
    const unsigned amx = 1u << 22 | 1u << 24; /* AMX-BF16, AMX-TILE */
    const uint64_t tiles = (uint64_t)3 << 17; /* their configuration and data */
    unsigned a, b, c, d;
    unsigned long supported = 0;

    if (!cv_cpu_has_bf16() || !has_bits(saved_registers(), tiles)) return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has_bits(d, amx)) return false;
    return syscall(SYS_arch_prctl, GET_SUPPORTED, &supported) == 0 && has_bits(supported, tiles);
}

cv_cpu_level cv_cpu_widest(void)
{
    return has_amx() ? CV_CPU_AMX : cv_cpu_has_bf16() ? CV_CPU_BF16 : cv_cpu_best();
}

bool cv_cpu_allow_amx(void)
{
    return has_amx() && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
#elif defined(__aarch64__)
cv_cpu_level cv_cpu_best(void)
{
    return CV_CPU_NEON; /* part of the base architecture */
}
#else
cv_cpu_level cv_cpu_best(void)
{
    return CV_CPU_REF;
}
#endif

#if !defined(__x86_64__)
cv_cpu_level cv_cpu_widest(void)
{
    return cv_cpu_best();
}

bool cv_cpu_allow_amx(void)
{
    return false;
}

bool cv_cpu_has_bf16(void)
{
    return false;
}
#endif

/* Whole processors that a control group's quota allows; 0 when there is no limit. */
static size_t quota_count(void)
{
    long long quota = 0, period = 0;
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (file) {
        if (fscanf(file, "%lld %lld", &quota, &period) != 2) quota = 0; /* "max" */
        fclose(file);
    } else {
        file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "re");
        if (!file) return 0;
        if (fscanf(file, "%lld", &quota) != 1) quota = 0;
        fclose(file);
        file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "re");
        if (!file) return 0;
        if (fscanf(file, "%lld", &period) != 1) period = 0;
        fclose(file);
    }
    if (quota <= 0 || period <= 0) return 0;
    long long whole = quota / period + (quota % period != 0);
    return (size_t)whole;
}

/* The affinity mask; machines beyond CPU_SETSIZE processors get the count that sysconf knows. */
static size_t affinity_count(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        int n = CPU_COUNT(&set);
        if (n > 0) return (size_t)n;
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (size_t)online : 1;
}

size_t cv_cpu_count(void)
{
    size_t n = affinity_count(), quota = quota_count();
    return quota > 0 && quota < n ? quota : n;
}

static const char *const LEVEL_NAMES[] = { "ref", "avx2", "avx512", "neon", "amx", "bf16" };

const char *cv_cpu_level_name(cv_cpu_level level)
{
    size_t i = (size_t)level;
    return i < sizeof LEVEL_NAMES / sizeof *LEVEL_NAMES ? LEVEL_NAMES[i] : "unknown";
}

int cv_cpu_level_parse(const char *name, cv_cpu_level *level)
{
    for (size_t i = 0; i < sizeof LEVEL_NAMES / sizeof *LEVEL_NAMES; i++)
        if (strcmp(name, LEVEL_NAMES[i]) == 0) {
            *level = (cv_cpu_level)i;
            return 1;
        }
    return 0;
}
