#include "verity.h"

#include <stdlib.h>

#define FAN_BITS 7

bool verity_init(struct verity *v, uint64_t blocks, const uint8_t root[SHA256_SIZE])
{
	uint64_t length[MAX_LEVELS], at = blocks, n = blocks;

	memset(v, 0, sizeof(*v));
	if (!blocks || blocks > UINT64_MAX / BLOCK / 2)
		return false;
	v->blocks = blocks;
	memcpy(v->root, root, SHA256_SIZE);
	while (n > 1) {
		n = (n + FAN - 1) / FAN;
		length[v->levels++] = n;
		v->tree_blocks += n;
	}
	for (int level = v->levels - 1; level >= 0; level--) { /* the top level lies first */
		v->start[level] = at;
		at += length[level];
	}
	v->tree = calloc(v->tree_blocks + 1, BLOCK);
	v->verified = calloc(v->tree_blocks + 1, 1);
	return v->tree && v->verified;
}

void verity_free(struct verity *v)
{
	free(v->tree);
	free(v->verified);
	memset(v, 0, sizeof(*v));
}

/*
 * The parent's block number, and in *entry which of its digests is ours.
 * A block on level l (data: -1) with index i has its digest in block i / FAN of level l + 1.
 */
static uint64_t parent_entry(const struct verity *v, uint64_t block, unsigned *entry)
{
	uint64_t index = block;
	int level = -1;

	if (verity_is_tree(v, block)) {
		level = 0;
		while (block < v->start[level])
			level++;
		index = block - v->start[level];
	}
	if (level == v->levels - 1)
		return NO_BLOCK;
	*entry = (unsigned)(index & (FAN - 1));
	return v->start[level + 1] + (index >> FAN_BITS);
}

uint64_t verity_parent(const struct verity *v, uint64_t block)
{
	unsigned entry;

	return parent_entry(v, block, &entry);
}

bool verity_right(const struct verity *v, uint64_t first, uint32_t count, const uint8_t *data)
{
	for (uint32_t i = 0; i < count; i++) {
		uint8_t digest[SHA256_SIZE];
		unsigned entry = 0;
		uint64_t parent = parent_entry(v, first + i, &entry);
		const uint8_t *want = v->root;

		if (!verity_known(v, parent))
			return false;
		if (parent != NO_BLOCK)
			want = verity_cache(v, parent) + (size_t)entry * SHA256_SIZE;
		sha256(data + (size_t)i * BLOCK, BLOCK, digest);
		if (memcmp(digest, want, SHA256_SIZE))
			return false;
	}
	return true;
}

bool verity_parse_root(const char *hex, uint8_t root[SHA256_SIZE])
{
	if (strlen(hex) != 2 * SHA256_SIZE)
		return false;
	for (int i = 0; i < 2 * SHA256_SIZE; i++) {
		static const char digits[] = "0123456789abcdef";
		const char *at = strchr(digits, hex[i] | ('A' <= hex[i] && hex[i] <= 'F' ? 0x20 : 0));

		if (!at || !*at)
			return false;
		root[i / 2] = (uint8_t)(root[i / 2] << 4 | (at - digits));
	}
	return true;
}
