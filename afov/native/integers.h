// Integers of 16 and of 8 bits: how their products add up in AVX2, and how they lie in memory.
#pragma once

#include <immintrin.h>

#include <cstdint>

#define AVX2 __attribute__((target("avx2,fma")))

// Two channels a word, signed: activations of 14 bits, weights as large as 32-bit sums allow.
struct Sixteen {
  static constexpr int kChannels = 2, kWords = 1, kTile = 6;
  static constexpr float kLargest = 8191;

  // Written out, because compilers take a third register for it, and 12 sums, 2 weights, the
  // channels and the products fill all 16.
  AVX2 static inline void add(__m256i &sum, const __m256i *channels, const __m256i *weight) {
    __m256i products;
    asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0"
        : "+x"(sum), "=&x"(products)
        : "x"(channels[0]), "x"(weight[0]));
  }

  AVX2 static inline void store(__m256i whole, char *row, int64_t column) {
    _mm_storeu_si128(
        (__m128i *)(row + 2 * column),
        _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1)));
  }

  AVX2 static inline __m256i load(const char *row, int64_t column) {
    return _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(row + 2 * column)));
  }
};

alignas(32) const int16_t kOnes[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

// Four channels a word, and two words at a time: activations 0 to 127 and weights up to 63, so that
// the four products that a 16-bit lane adds up, 4 x 127 x 63, fit in it.
struct Eight {
  static constexpr int kChannels = 8, kWords = 2, kTile = 4;
  static constexpr float kLargest = 127;

  AVX2 static inline void add(__m256i &sum, const __m256i *channels, const __m256i *weight) {
    __m256i some, more;
    asm("vpmaddubsw %5, %3, %1\n\tvpmaddubsw %6, %4, %2\n\tvpaddw %2, %1, %1\n\t"
        "vpmaddwd %7, %1, %1\n\tvpaddd %1, %0, %0"
        : "+x"(sum), "=&x"(some), "=&x"(more)
        : "x"(channels[0]), "x"(channels[1]), "x"(weight[0]), "x"(weight[1]),
          "m"(*(const __m256i *)kOnes));
  }

  AVX2 static inline void store(__m256i whole, char *row, int64_t column) {
    const __m128i half =
        _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64((__m128i *)(row + column), _mm_packus_epi16(half, half));
  }

  AVX2 static inline __m256i load(const char *row, int64_t column) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(row + column)));
  }
};
