// The layer of network.cpp in 16-bit integers: twice the products per instruction. Activations have
// 14 bits and a scale per row, weights a scale per column; sums are exact, in 32 bits, and leave for
// float32 after every offset.
#include <cmath>
#include <cstdint>

#include "shared.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2,fma")))
// Or the sums of a tile would go through memory.
#define UNROLL _Pragma("GCC unroll 8")

namespace {

constexpr int64_t kLanes = 8, kPanel = 16, kTile = 6;
constexpr float kLargest = 8191;  // of an activation; weights are scaled so that sums fit

struct Pair {
  int32_t to, from;
};

struct Rows {
  const int16_t *data;
  const float *scale;
  int64_t step, channels;  // even
};

// sum += the products of two channels with 8 columns. Written out, because compilers take a third
// register for it, and 12 sums, 2 weights, the channels and the products fill all 16.
AVX2 inline void add_products(__m256i &sum, __m256i two, __m256i weight) {
  __m256i products;
  asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0"
      : "+x"(sum), "=&x"(products)
      : "x"(two), "x"(weight));
}

// out[pair.to] += scale in[pair.from] W for `count` pairs and Wide * 8 columns.
template <int count, int wide>
AVX2 inline void tile(const Rows &in, const Pair *pairs, const int16_t *weight, float *out,
                      int64_t width) {
  const int16_t *from[count];
  __m256i sum[count][wide];
  UNROLL for (int r = 0; r < count; ++r) {
    from[r] = in.data + pairs[r].from * in.step;
    UNROLL for (int v = 0; v < wide; ++v) sum[r][v] = _mm256_setzero_si256();
  }
  for (int64_t c = 0; c < in.channels; c += 2, weight += 2 * kPanel) {
    __m256i w[wide];
    UNROLL for (int v = 0; v < wide; ++v)
      w[v] = _mm256_loadu_si256((const __m256i *)(weight + 2 * v * kLanes));
    UNROLL for (int r = 0; r < count; ++r) {
      const __m256i two = _mm256_castps_si256(_mm256_broadcast_ss((const float *)(from[r] + c)));
      UNROLL for (int v = 0; v < wide; ++v)
        add_products(sum[r][v], two, w[v]);
    }
  }
  UNROLL for (int r = 0; r < count; ++r) {
    const __m256 scale = _mm256_set1_ps(in.scale[pairs[r].from]);
    UNROLL for (int v = 0; v < wide; ++v) {
      float *to = out + pairs[r].to * width + v * kLanes;
      _mm256_storeu_ps(
          to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r][v]), scale, _mm256_loadu_ps(to)));
    }
  }
}

template <int wide>
AVX2 inline void panel(const Rows &in, const Pair *pairs, int64_t count, const int16_t *weight,
                       float *out, int64_t width) {
  for (; count >= kTile; count -= kTile, pairs += kTile)
    tile<kTile, wide>(in, pairs, weight, out, width);
  switch (count) {
    case 5: return tile<5, wide>(in, pairs, weight, out, width);
    case 4: return tile<4, wide>(in, pairs, weight, out, width);
    case 3: return tile<3, wide>(in, pairs, weight, out, width);
    case 2: return tile<2, wide>(in, pairs, weight, out, width);
    case 1: return tile<1, wide>(in, pairs, weight, out, width);
  }
}

AVX2 void product(const Rows &in, const Pair *pairs, int64_t count, const int16_t *weight,
                  int64_t channels, float *out, int64_t width) {
  for (int64_t column = 0; column < width; column += kPanel, weight += channels * kPanel)
    if (width - column > kLanes)
      panel<2>(in, pairs, count, weight, out + column, width);
    else
      panel<1>(in, pairs, count, weight, out + column, width);
}

// A row of a multiple of 8 floats to 14-bit integers; returns their scale.
AVX2 float quantize(const float *row, int64_t width, int16_t *out) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 most = _mm256_setzero_ps();
  for (int64_t c = 0; c < width; c += kLanes)
    most = _mm256_max_ps(most, _mm256_andnot_ps(sign, _mm256_loadu_ps(row + c)));
  float lanes[kLanes], largest = 1e-30f;
  _mm256_storeu_ps(lanes, most);
  for (float lane : lanes) largest = std::max(largest, lane);
  const __m256 steps = _mm256_set1_ps(kLargest / largest);
  for (int64_t c = 0; c < width; c += kLanes) {
    const __m256i whole = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(row + c), steps));
    _mm_storeu_si128(
        (__m128i *)(out + c),
        _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1)));
  }
  return largest / kLargest;
}

// row = row * scale + bias (+ plus), and not below 0 if `relu` says so.
AVX2 void finish(float *row, const float *scale, const float *bias, const float *plus, bool relu,
                 int64_t width) {
  for (int64_t c = 0; c < width; c += kLanes) {
    __m256 value = _mm256_fmadd_ps(_mm256_loadu_ps(row + c), _mm256_loadu_ps(scale + c),
                                   _mm256_loadu_ps(bias + c));
    if (plus) value = _mm256_add_ps(value, _mm256_loadu_ps(plus + c));
    if (relu) value = _mm256_max_ps(value, _mm256_setzero_ps());
    _mm256_storeu_ps(row + c, value);
  }
}

}  // namespace

extern "C" {

int64_t has_integers() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

// rows (n, width), width a multiple of 8, to out (n, width) and scale (n).
void quantize_rows(const float *rows, int64_t n, int64_t width, int16_t *out, float *scale) {
  for (int64_t i = 0; i < n; ++i) scale[i] = quantize(rows + i * width, width, out + i * width);
}

// As sparse_layer; weight (offsets, panels, channels / 2, 16, 2) times weight_scale (width). With
// relu the output also goes out in integers, for the next layer.
void sparse_layer16(const int16_t *x, const float *x_scale, int64_t x_step, int64_t x_channels,
                    const int16_t *skip, const float *skip_scale, int64_t skip_step,
                    int64_t skip_channels, const Pair *pairs, const int64_t *starts,
                    int64_t offsets, int64_t block, const int16_t *weight,
                    const float *weight_scale, const float *bias, const float *plus, int64_t relu,
                    float *out, int16_t *integers, float *scale, int64_t rows, int64_t width) {
  const Rows in[] = {{x, x_scale, x_step, x_channels},
                     {skip, skip_scale, skip_step, skip_channels}};
  const int64_t channels = x_channels + skip_channels;
  const int64_t per_offset = (width + kPanel - 1) / kPanel * channels * kPanel;
  shared(rows, block, [&](int64_t begin, int64_t end) {
    std::fill(out + begin * width, out + end * width, 0.0f);
    const int64_t *at = starts + begin / block * (offsets + 1);
    for (int64_t k = 0; k < offsets; ++k) {
      const int16_t *w = weight + k * per_offset;
      for (int64_t i = 0, first = 0; i < 2; first += in[i++].channels)
        if (in[i].channels)
          product(in[i], pairs + at[k], at[k + 1] - at[k], w + first * kPanel, channels, out,
                  width);
    }
    for (int64_t row = begin; row < end; ++row) {
      finish(out + row * width, weight_scale, bias, plus ? plus + row * width : nullptr, relu,
             width);
      if (relu) scale[row] = quantize(out + row * width, width, integers + row * width);
    }
  });
}
}
#else
extern "C" int64_t has_integers() { return 0; }
#endif
