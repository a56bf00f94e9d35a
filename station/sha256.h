/* SHA-256 (FIPS 180-4), with the processor's SHA instructions where it has them. */
#ifndef ETS_SHA256_H
#define ETS_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE 32

/* Writes the digest of data[0..len) to out. */
void sha256(const void *data, size_t len, uint8_t out[SHA256_SIZE]);

/* The portable way alone, so that a test can compare the two. */
void sha256_portable(const void *data, size_t len, uint8_t out[SHA256_SIZE]);

#endif
