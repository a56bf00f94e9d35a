/*
 * The image's hash tree: dm-verity format 1, SHA-256, 4096-byte blocks, no salt, no superblock.
 *
 * Blocks are numbered over the whole image file: [0, blocks) is data, behind it lies the tree, top
 * level first. So a tree block is a block like any other: it is fetched from a server like data,
 * and right when its digest stands in its parent (or is the root hash).
 * Layout: Documentation/admin-guide/device-mapper/verity.rst, drivers/md/dm-verity-target.c.
 */
#ifndef ETS_VERITY_H
#define ETS_VERITY_H

#include "sha256.h"
#include "util.h"

#define FAN 128u /* digests in a tree block */
#define MAX_LEVELS 10
#define NO_BLOCK UINT64_MAX

struct verity {
	uint64_t blocks;      /* data blocks */
	uint64_t tree_blocks; /* at most blocks/127 + levels: what the cache costs */
	int levels;           /* 0: the image is one block, its digest is the root hash */
	uint64_t start[MAX_LEVELS]; /* first block of each level; level 0 lies right above the data */
	uint8_t root[SHA256_SIZE];
	uint8_t *tree;     /* room for every tree block */
	uint8_t *verified; /* one flag for each */
};

/* Computes the layout and allocates the cache. False: no memory, or blocks is 0 or absurd. */
bool verity_init(struct verity *v, uint64_t blocks, const uint8_t root[SHA256_SIZE]);
void verity_free(struct verity *v);

/* All blocks of the image file. */
static inline uint64_t verity_total(const struct verity *v)
{
	return v->blocks + v->tree_blocks;
}

static inline bool verity_is_tree(const struct verity *v, uint64_t block)
{
	return block >= v->blocks;
}

/* Where a tree block is kept. */
static inline uint8_t *verity_cache(const struct verity *v, uint64_t block)
{
	return v->tree + (block - v->blocks) * BLOCK;
}

static inline bool verity_known(const struct verity *v, uint64_t block)
{
	return block == NO_BLOCK || v->verified[block - v->blocks];
}

/* The tree block that holds this block's digest; NO_BLOCK when that is the root hash itself. */
uint64_t verity_parent(const struct verity *v, uint64_t block);

/* Are data's count blocks, of one parent that is known, the image's blocks from first on? */
bool verity_right(const struct verity *v, uint64_t first, uint32_t count, const uint8_t *data);

/* The 64 hexadecimal digits of a root hash. False when it is anything else. */
bool verity_parse_root(const char *hex, uint8_t root[SHA256_SIZE]);

#endif
