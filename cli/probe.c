/* probe.c - a memory read probe: the denominator of every claim about decoding speed.
 *
 * Huge pages, because the weights lie in huge pages too: on 4 KiB pages the same machine reads a
 * quarter slower and the model would seem to beat the memory. */
#include "probe.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "term.h"

#define PROBE_BYTES ((size_t)512 << 20)
#define MAX_THREADS 64
#define ROUNDS      3

typedef uint64_t lane __attribute__((vector_size(16)));

/* One thread's part of the memory. */
typedef struct probe_share {
    unsigned char *bytes;
    size_t n;
    uint64_t sum; /* kept, so that no compiler drops the reading */
} probe_share;

/* Four streams, a sum for each, spelled out: an array of sums would live in memory and be what is
 * measured.  Several streams keep more lines under way than one core's prefetcher does for one. */
static uint64_t read_all(const unsigned char *bytes, size_t n)
{
    size_t quarter = n / 4 / sizeof(lane);
    const lane *p = (const lane *)(const void *)bytes;
    const lane *q = p + quarter, *r = q + quarter, *s = r + quarter;
    lane a = { 0 }, b = { 0 }, c = { 0 }, d = { 0 };
    for (size_t i = 0; i + 4 <= quarter; i += 4) {
        a += p[i] + p[i + 1] + p[i + 2] + p[i + 3];
        b += q[i] + q[i + 1] + q[i + 2] + q[i + 3];
        c += r[i] + r[i + 1] + r[i + 2] + r[i + 3];
        d += s[i] + s[i + 1] + s[i + 2] + s[i + 3];
    }
    a += b + c + d;
    return a[0] + a[1];
}

/* Touched by its reader: the pages are near it. */
static void *fill(void *ctx)
{
    probe_share *s = ctx;
    memset(s->bytes, 1, s->n);
    return NULL;
}

static void *read_share(void *ctx)
{
    probe_share *s = ctx;
    s->sum += read_all(s->bytes, s->n);
    return NULL;
}

/* Does the work for every share at once and gives the seconds it took.  Starting a thread costs
 * some 20 us of the 10 ms and more that a round takes; where one cannot be started its share is
 * done here, and the figure is honestly lower. */
static double for_all(probe_share *shares, size_t n, void *(*work)(void *))
{
    pthread_t threads[MAX_THREADS];
    bool running[MAX_THREADS] = { false };
    double started = term_seconds();
    for (size_t i = 1; i < n; i++)
        running[i] = pthread_create(&threads[i], NULL, work, &shares[i]) == 0;
    for (size_t i = 0; i < n; i++)
        if (!running[i]) work(&shares[i]);
    for (size_t i = 0; i < n; i++)
        if (running[i]) pthread_join(threads[i], NULL);
    return term_seconds() - started;
}

double probe_read_bandwidth(size_t n_threads)
{
    /* A power of two, so that shares are equal and whole. */
    size_t n = 1;
    while (2 * n <= n_threads && 2 * n <= MAX_THREADS)
        n *= 2;
    const size_t huge = (size_t)2 << 20;
    unsigned char *map =
        mmap(NULL, PROBE_BYTES + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return 0;
    unsigned char *start = map + (huge - (uintptr_t)map % huge) % huge;
    madvise(start, PROBE_BYTES, MADV_HUGEPAGE);
    probe_share shares[MAX_THREADS];
    for (size_t i = 0; i < n; i++)
        shares[i] = (probe_share){ start + i * (PROBE_BYTES / n), PROBE_BYTES / n, 0 };
    for_all(shares, n, fill);
    double best = 0;
    for (int round = 0; round < ROUNDS; round++) {
        double speed = (double)PROBE_BYTES / for_all(shares, n, read_share);
        if (speed > best) best = speed;
    }
    munmap(map, PROBE_BYTES + huge);
    return best;
}
