/* probe.h - how fast this machine reads memory right now. */
#ifndef CLI_PROBE_H
#define CLI_PROBE_H

#include <stddef.h>

/* Bytes per second of n_threads threads reading 512 MiB once, the best of three rounds; 0 when the
 * memory is not to be had. */
double probe_read_bandwidth(size_t n_threads);

#endif
