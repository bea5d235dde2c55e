// The integer network's products in AVX2.
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#include <algorithm>

#include "integers.h"

#define AVX2 __attribute__((target("avx2,fma")))

namespace {

constexpr int64_t kLanes = 8;

// Two channels a word, signed: activations of 14 bits, weights as large as 32-bit sums allow.
struct Sixteen {
  static constexpr int kWords = 1, kTile = 6;  // of a step; rows of a tile
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
  static constexpr int kWords = 2, kTile = 4;
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

// sums[pair.to] += scale in[pair.from] W for `count` pairs and wide * 8 columns.
template <typename N, int count, int wide>
AVX2 inline void tile(const Source &in, const Pair *pairs, const char *weight, float *sums) {
  const char *from[count];
  __m256i sum[count][wide];
  UNROLL for (int r = 0; r < count; ++r) {
    from[r] = in.rows + pairs[r].from * in.row_bytes;
    UNROLL for (int v = 0; v < wide; ++v) sum[r][v] = _mm256_setzero_si256();
  }
  for (int64_t at = 0, end = in.steps * N::kWords * 4; at < end; at += N::kWords * 4) {
    __m256i w[wide][N::kWords];
    UNROLL for (int word = 0; word < N::kWords; ++word, weight += 4 * kPanel)
      UNROLL for (int v = 0; v < wide; ++v)
        w[v][word] = _mm256_loadu_si256((const __m256i *)weight + v);
    UNROLL for (int r = 0; r < count; ++r) {
      __m256i channels[N::kWords];
      UNROLL for (int word = 0; word < N::kWords; ++word)
        channels[word] = _mm256_castps_si256(
            _mm256_broadcast_ss((const float *)(from[r] + at + 4 * word)));
      UNROLL for (int v = 0; v < wide; ++v) N::add(sum[r][v], channels, w[v]);
    }
  }
  UNROLL for (int r = 0; r < count; ++r) {
    const __m256 scale = _mm256_broadcast_ss(in.scale + pairs[r].from);
    float *to = sums + pairs[r].to * kPanel;
    UNROLL for (int v = 0; v < wide; ++v, to += kLanes)
      _mm256_storeu_ps(
          to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r][v]), scale, _mm256_loadu_ps(to)));
  }
}

template <typename N, int wide>
AVX2 inline void offset(const Source &in, const Pair *pairs, int64_t count, const char *weight,
                        float *sums) {
  for (; count >= N::kTile; count -= N::kTile, pairs += N::kTile)
    tile<N, N::kTile, wide>(in, pairs, weight, sums);
  switch (count) {
    case 5: return tile<N, 5, wide>(in, pairs, weight, sums);
    case 4: return tile<N, 4, wide>(in, pairs, weight, sums);
    case 3: return tile<N, 3, wide>(in, pairs, weight, sums);
    case 2: return tile<N, 2, wide>(in, pairs, weight, sums);
    case 1: return tile<N, 1, wide>(in, pairs, weight, sums);
  }
}

template <typename N>
AVX2 void products(const Source &in, int64_t block, int64_t panel, int64_t columns, float *sums,
                   int64_t) {
  const int64_t *at = in.starts + block * (in.offsets + 1);
  const int64_t bytes = in.steps * N::kWords * 4 * kPanel;
  const char *weight = in.weight + panel * in.offsets * bytes;
  for (int64_t k = 0; k < in.offsets; ++k, weight += bytes)
    if (columns <= kLanes)
      offset<N, 1>(in, in.pairs + at[k], at[k + 1] - at[k], weight, sums);
    else
      offset<N, 2>(in, in.pairs + at[k], at[k + 1] - at[k], weight, sums);
}

// `width` floats as whole numbers up to N::kLargest; returns their scale.
template <typename N>
AVX2 inline float quantize(const float *row, int64_t width, char *out) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 most = _mm256_setzero_ps();
  for (int64_t c = 0; c < width; c += kLanes)
    most = _mm256_max_ps(most, _mm256_andnot_ps(sign, _mm256_loadu_ps(row + c)));
  float lanes[kLanes], largest = 1e-30f;
  _mm256_storeu_ps(lanes, most);
  for (float lane : lanes) largest = std::max(largest, lane);
  const __m256 steps = _mm256_set1_ps(N::kLargest / largest);
  for (int64_t c = 0; c < width; c += kLanes)
    N::store(_mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(row + c), steps)), out, c);
  return largest / N::kLargest;
}

template <typename N>
AVX2 inline void finish_row(const Layer &layer, int64_t at, const float *sums, int64_t step,
                            float *row) {
  const char *plus = layer.plus ? layer.plus + at * layer.width * layer.bits / 8 : nullptr;
  for (int64_t c = 0; c < layer.width; c += kLanes) {
    __m256 value = _mm256_fmadd_ps(_mm256_loadu_ps(sums + c / kPanel * step + c % kPanel),
                                   _mm256_loadu_ps(layer.weight_scale + c),
                                   _mm256_loadu_ps(layer.bias + c));
    if (plus)
      value = _mm256_fmadd_ps(_mm256_cvtepi32_ps(N::load(plus, c)),
                              _mm256_set1_ps(layer.plus_scale[at]), value);
    if (layer.bits < 32) value = _mm256_max_ps(value, _mm256_setzero_ps());
    _mm256_storeu_ps(row + c, value);
  }
  if (layer.bits < 32)
    layer.scale[at] = quantize<N>(row, layer.width, layer.out + at * layer.width * layer.bits / 8);
  else
    std::copy_n(row, layer.channels, (float *)layer.out + at * layer.channels);
}

template <typename N>
AVX2 void finish(const Layer &layer, int64_t begin, int64_t end, const float *sums, int64_t step,
                 float *row) {
  for (int64_t at = begin; at < end; ++at, sums += kPanel)
    finish_row<N>(layer, at, sums, step, row);
}

}  // namespace

const Form kAvx2 = {
    1,
    [](const Source &in, auto... rest) {
      (in.bits == 8 ? products<Eight> : products<Sixteen>)(in, rest...);
    },
    [](const Layer &layer, auto... rest) {
      (layer.bits == 8 ? finish<Eight> : finish<Sixteen>)(layer, rest...);
    },
};

AVX2 float quantize_row(const float *row, int64_t width, char *out) {
  return quantize<Sixteen>(row, width, out);
}
#endif
