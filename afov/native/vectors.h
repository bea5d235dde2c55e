// Rows of floats in vectors, for every processor: what the network and its training share.
#pragma once

#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__)
#define X86 1
#endif
#if defined(X86) && !defined(__clang__)
// One build for every machine: the loader picks the widest form that the processor has.
#define WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDE
#endif
#define INLINE inline __attribute__((always_inline))

// Vectors of floats that may lie anywhere. In structs, because a template would forget that.
struct Sixteen {
  typedef float V __attribute__((vector_size(64), aligned(4), may_alias));
};
struct Eight {
  typedef float V __attribute__((vector_size(32), aligned(4), may_alias));
};
struct Four {
  typedef float V __attribute__((vector_size(16), aligned(4), may_alias));
};
constexpr int64_t kLanes = 8;           // rows are as wide as a multiple of this
constexpr int64_t kPanel = 2 * kLanes;  // columns that weights lie side by side in

// Rows and panels of a tile: its sums, a row of weights and an input fill the registers.
template <typename Lanes>
constexpr int kTile = 6;  // 16 registers of eight, as AVX2 has, or 32 of four, as ARM
#ifdef X86
template <>
constexpr int kTile<Four> = 2;  // 16 of four
#endif
template <typename Lanes>
constexpr int kPanels = 1;
template <>
constexpr int kPanels<Sixteen> = 4;  // 32 registers of sixteen, as AVX-512 has

struct Pair {
  int32_t to, from;
};

// Floats in the widest vector that this processor multiplies, or that use_lanes allows.
int64_t lanes();
