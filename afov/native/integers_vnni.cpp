// The integer network's products in AVX-512 with VNNI: a word's channels and 16 columns at once.
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "integers.h"

#ifndef __clang__
#pragma GCC diagnostic ignored "-Wuninitialized"  // in GCC 12's own header (its bug 105593)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))

namespace {

// The numbers of integers_avx2.cpp. Here neither would have to be so small.
struct Sixteen {
  static constexpr int kBytes = 4, kTile = 8;  // of a step; rows of a tile
  static constexpr float kLargest = 8191;

  VNNI static inline void add(__m512i &sum, __m512i channels, __m512i weight) {
    asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(channels), "v"(weight));
  }

  VNNI static inline void store(__m512i whole, char *row, int64_t column, __mmask16 lanes) {
    _mm256_mask_storeu_epi16(row + 2 * column, lanes, _mm512_cvtsepi32_epi16(whole));
  }

  VNNI static inline __m512i load(const char *row, int64_t column, __mmask16 lanes) {
    return _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(lanes, row + 2 * column));
  }
};

struct Eight {
  static constexpr int kBytes = 8, kTile = 8;
  static constexpr float kLargest = 127;

  VNNI static inline void add(__m512i &sum, __m512i channels, __m512i weight) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(channels), "v"(weight));
  }

  VNNI static inline void store(__m512i whole, char *row, int64_t column, __mmask16 lanes) {
    const __m512i positive = _mm512_max_epi32(whole, _mm512_setzero_si512());
    _mm_mask_storeu_epi8(row + column, lanes, _mm512_cvtusepi32_epi8(positive));
  }

  VNNI static inline __m512i load(const char *row, int64_t column, __mmask16 lanes) {
    return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(lanes, row + column));
  }
};

// sums[pair.to] += scale in[pair.from] W for `count` pairs and `wide` panels, whose weights lie
// `apart` bytes from each other.
template <typename N, int count, int wide>
VNNI inline void tile(const Source &in, const Pair *pairs, const char *weight, int64_t apart,
                      float *sums, int64_t step) {
  const char *from[count];
  __m512i sum[count][wide];
  UNROLL for (int r = 0; r < count; ++r) {
    from[r] = in.rows + pairs[r].from * in.row_bytes;
    UNROLL for (int v = 0; v < wide; ++v) sum[r][v] = _mm512_setzero_si512();
  }
  for (int64_t at = 0, end = in.steps * N::kBytes; at < end; at += 4, weight += 4 * kPanel) {
    __m512i w[wide];
    UNROLL for (int v = 0; v < wide; ++v) w[v] = _mm512_loadu_si512(weight + v * apart);
    UNROLL for (int r = 0; r < count; ++r) {
      int32_t word;
      std::memcpy(&word, from[r] + at, sizeof word);
      const __m512i channels = _mm512_set1_epi32(word);
      UNROLL for (int v = 0; v < wide; ++v) N::add(sum[r][v], channels, w[v]);
    }
  }
  UNROLL for (int r = 0; r < count; ++r) {
    const __m512 scale = _mm512_set1_ps(in.scale[pairs[r].from]);
    float *to = sums + pairs[r].to * kPanel;
    UNROLL for (int v = 0; v < wide; ++v, to += step)
      _mm512_storeu_ps(
          to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][v]), scale, _mm512_loadu_ps(to)));
  }
}

template <typename N, int wide>
VNNI inline void offset(const Source &in, const Pair *pairs, int64_t count, const char *weight,
                        int64_t apart, float *sums, int64_t step) {
  for (; count >= N::kTile; count -= N::kTile, pairs += N::kTile)
    tile<N, N::kTile, wide>(in, pairs, weight, apart, sums, step);
  switch (count) {
    case 7: return tile<N, 7, wide>(in, pairs, weight, apart, sums, step);
    case 6: return tile<N, 6, wide>(in, pairs, weight, apart, sums, step);
    case 5: return tile<N, 5, wide>(in, pairs, weight, apart, sums, step);
    case 4: return tile<N, 4, wide>(in, pairs, weight, apart, sums, step);
    case 3: return tile<N, 3, wide>(in, pairs, weight, apart, sums, step);
    case 2: return tile<N, 2, wide>(in, pairs, weight, apart, sums, step);
    case 1: return tile<N, 1, wide>(in, pairs, weight, apart, sums, step);
  }
}

template <typename N>
VNNI void products(const Source &in, int64_t block, int64_t panel, int64_t columns, float *sums,
                   int64_t step) {
  const int64_t *at = in.starts + block * (in.offsets + 1);
  const int64_t bytes = in.steps * N::kBytes * kPanel, apart = in.offsets * bytes;
  const char *weight = in.weight + panel * apart;
  for (int64_t k = 0; k < in.offsets; ++k, weight += bytes) {
    const Pair *pairs = in.pairs + at[k];
    const int64_t count = at[k + 1] - at[k];
    if (columns > 2 * kPanel)
      offset<N, 3>(in, pairs, count, weight, apart, sums, step);
    else if (columns > kPanel)
      offset<N, 2>(in, pairs, count, weight, apart, sums, step);
    else
      offset<N, 1>(in, pairs, count, weight, apart, sums, step);
  }
}

template <typename N>
VNNI inline void finish_row(const Layer &layer, int64_t at, const float *sums, int64_t step,
                            float *row) {
  const int64_t bytes = layer.width * layer.bits / 8;
  const char *plus = layer.plus ? layer.plus + at * bytes : nullptr;
  char *out = layer.out + at * bytes;
  const auto lanes = [&](int64_t c) { return __mmask16(layer.width - c < kPanel ? 0xff : 0xffff); };
  __m512 most = _mm512_setzero_ps();
  for (int64_t c = 0; c < layer.width; c += kPanel, sums += step) {
    __m512 value = _mm512_fmadd_ps(_mm512_loadu_ps(sums),
                                   _mm512_maskz_loadu_ps(lanes(c), layer.weight_scale + c),
                                   _mm512_maskz_loadu_ps(lanes(c), layer.bias + c));
    if (plus)
      value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(N::load(plus, c, lanes(c))),
                              _mm512_set1_ps(layer.plus_scale[at]), value);
    if (layer.bits < 32) value = _mm512_max_ps(value, _mm512_setzero_ps());
    _mm512_storeu_ps(row + c, value);
    most = _mm512_max_ps(most, value);
  }
  if (layer.bits == 32) {
    std::copy_n(row, layer.channels, (float *)layer.out + at * layer.channels);
    return;
  }
  const float largest = std::max(1e-30f, _mm512_reduce_max_ps(most));
  const __m512 steps = _mm512_set1_ps(N::kLargest / largest);
  for (int64_t c = 0; c < layer.width; c += kPanel)
    N::store(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(row + c), steps)), out, c, lanes(c));
  layer.scale[at] = largest / N::kLargest;
}

template <typename N>
VNNI void finish(const Layer &layer, int64_t begin, int64_t end, const float *sums, int64_t step,
                 float *row) {
  for (int64_t at = begin; at < end; ++at, sums += kPanel)
    finish_row<N>(layer, at, sums, step, row);
}

}  // namespace

const Form kVnni = {
    3,
    [](const Source &in, auto... rest) {
      (in.bits == 8 ? products<Eight> : products<Sixteen>)(in, rest...);
    },
    [](const Layer &layer, auto... rest) {
      (layer.bits == 8 ? finish<Eight> : finish<Sixteen>)(layer, rest...);
    },
};
#endif
